//! Watches HLS as players without the low-latency extension do: polls, then fetches whole segments.
//!
//! In: playlists and segments. Out: as every viewer, and the time each segment takes. The parts of
//! reading that LL-HLS shares are here too.

use std::time::Duration;

use bytes::Bytes;
use media::playlist::check::Checker;
use tokio::time::{Instant, sleep_until};

use super::stamps::{Order, Sequence};
use super::{Trouble, Viewer, now};
use crate::http::Client;
use crate::player::Player;
use crate::stamp;
use crate::tail::{self, Tail};

/// Segments behind the end at which a player starts (RFC 8216bis, 6.3.3).
const HOLD_BACK_TARGETS: u64 = 3;
/// Sizes and kinds of boxes (ISO/IEC 14496-12, 4.2).
const BOX_HEADER: usize = 8;

pub(super) async fn watch(viewer: &Viewer, began: &mut bool) -> Result<(), Trouble> {
    let mut client = viewer.client();
    let mut reader = Reader::new(viewer);
    let path = media_playlist(viewer, &mut client, began).await?;
    let mut last = None;
    let mut init = None;
    loop {
        let asked = Instant::now();
        let text = reader.playlist(&mut client, &path, began).await?;
        let tail = Tail::read(&text).ok_or_else(|| not_a_playlist(&path))?;
        if tail.ended {
            return Err(Trouble::Ended);
        }
        reader.hold_back(tail.target_duration * HOLD_BACK_TARGETS * 1_000_000);
        if init.as_deref() != tail.init {
            init = tail.init.map(str::to_owned);
            if let Some(init) = &init {
                reader.media(&mut client, &tail::resolve(&path, init), began).await?;
            }
        }
        let fresh: Vec<_> = match last {
            Some(last) => tail::segments(&text).filter(|(msn, _)| *msn > last).collect(),
            None => tail::segments(&text).last().into_iter().collect(),
        };
        for (msn, uri) in &fresh {
            if last.is_some_and(|last| *msn > last + 1) {
                viewer.tally.count(&viewer.tally.skipped, 1);
            }
            last = Some(*msn);
            reader.fetch(&mut client, &tail::resolve(&path, uri), began).await?;
        }
        // RFC 8216bis, 6.3.4: half a target duration when nothing was new.
        let target = Duration::from_secs(tail.target_duration.max(1));
        let pause = if fresh.is_empty() { target / 2 } else { target };
        sleep_until(asked + pause).await;
    }
}

/// The path of the media playlist, by way of the multivariant one if there is one.
pub(super) async fn media_playlist(
    viewer: &Viewer,
    client: &mut Client,
    began: &mut bool,
) -> Result<String, Trouble> {
    let path = &viewer.stage.hls;
    let body = client.get(path).await?;
    viewer.received(body.len(), began);
    let text = std::str::from_utf8(&body).map_err(|_| not_a_playlist(path))?;
    if Tail::read(text).is_some() {
        return Ok(path.clone());
    }
    let variant = tail::first_uri(text).ok_or_else(|| not_a_playlist(path))?;
    let mut variant = tail::resolve(path, variant);
    if let Some((_, query)) = path.split_once('?')
        && !variant.contains('?')
    {
        variant.push('?');
        variant.push_str(query);
    }
    Ok(variant)
}

pub(super) fn not_a_playlist(path: &str) -> Trouble {
    Trouble::Media(format!("{path} is no playlist"))
}

/// What a viewer of HLS keeps of what it has read.
pub(super) struct Reader<'a> {
    viewer: &'a Viewer,
    checker: Checker,
    sequence: Sequence,
    player: Option<Player>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(viewer: &'a Viewer) -> Self {
        Self { viewer, checker: Checker::new(), sequence: Sequence::default(), player: None }
    }

    /// Says how much the player keeps, once.
    pub(super) fn hold_back(&mut self, micros: u64) {
        self.player.get_or_insert_with(|| Player::new(micros));
    }

    /// Fetches and, if the viewer is timed, checks a playlist.
    pub(super) async fn playlist(
        &mut self,
        client: &mut Client,
        path: &str,
        began: &mut bool,
    ) -> Result<String, Trouble> {
        let body = client.get(path).await?;
        self.viewer.received(body.len(), began);
        let tally = &self.viewer.tally;
        tally.count(&tally.requests, 1);
        let text = String::from_utf8(body.into()).map_err(|_| not_a_playlist(path))?;
        if self.viewer.timed
            && self.viewer.strict
            && let Err(violations) = self.checker.observe(&text)
        {
            for violation in violations {
                tally.error(&format!("playlist: {}", violation.rule));
            }
        }
        Ok(text)
    }

    /// Fetches media that is listed, and times that.
    pub(super) async fn fetch(
        &mut self,
        client: &mut Client,
        path: &str,
        began: &mut bool,
    ) -> Result<Option<Bytes>, Trouble> {
        let asked = Instant::now();
        let media = self.media(client, path, began).await?;
        if self.viewer.tally.window.is_open() {
            self.viewer.tally.fetch.record(asked.elapsed().as_micros() as u64);
        }
        Ok(media)
    }

    /// Fetches media. A timed viewer reads it and is given it; the others count it.
    pub(super) async fn media(
        &mut self,
        client: &mut Client,
        path: &str,
        began: &mut bool,
    ) -> Result<Option<Bytes>, Trouble> {
        let tally = &self.viewer.tally;
        if !self.viewer.timed {
            let count = client.count(path).await?;
            self.viewer.received(count, began);
            tally.count(&tally.requests, 1);
            return Ok(None);
        }
        let body = client.get(path).await?;
        let at = now();
        self.viewer.received(body.len(), began);
        tally.count(&tally.requests, 1);
        if self.viewer.strict && !boxes_are_whole(&body) {
            return Err(Trouble::Media("media is not made of whole boxes".into()));
        }
        let mut newest = None;
        for stamp in stamp::find(&body) {
            self.viewer.aged(at, stamp.micros);
            newest = newest.max(Some(stamp.micros));
            match self.sequence.follow(stamp) {
                Order::Next => {}
                Order::Skipped(count) => tally.count(&tally.skipped, u64::from(count)),
                Order::Repeated => tally.count(&tally.repeated, 1),
            }
        }
        if let (Some(newest), Some(player)) = (newest, &mut self.player)
            && player.arrived(at, newest)
        {
            tally.count(&tally.stalls, 1);
        }
        Ok(Some(body))
    }
}

/// Whether the sizes of top-level boxes add up to the whole.
fn boxes_are_whole(mut bytes: &[u8]) -> bool {
    while let Some((size, rest)) = bytes.split_first_chunk::<4>() {
        let size = u32::from_be_bytes(*size) as usize;
        let is_named = rest.get(..4).is_some_and(|name| name.iter().all(u8::is_ascii_alphanumeric));
        if size < BOX_HEADER || !is_named || size > bytes.len() {
            return false;
        }
        bytes = &bytes[size..];
    }
    bytes.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cut_media_is_noticed() {
        let media = b"\0\0\0\x0cmoofABCD\0\0\0\x09mdatX";
        assert!(boxes_are_whole(media));
        assert!(!boxes_are_whole(&media[..media.len() - 1]));
        assert!(!boxes_are_whole(b"G@\x11\x10 a transport stream"));
        assert!(boxes_are_whole(b""));
    }
}
