//! Watches FLV, over HTTP or WebSocket.
//!
//! In: one endless body. Out: for a timed viewer, the age of every frame, gaps in their numbers, stalls,
//! and an error where the stream is no FLV or its time goes back; for the others, bytes.

use media::flv::TagKind;
use media::flv::reader::{Reader, Tag};

use super::stamps::{Order, Sequence};
use super::ws::{self, Frames};
use super::{Trouble, Viewer, now};
use crate::http::Stream;
use crate::player::Player;
use crate::scenario::Protocol;
use crate::stamp;

/// What mpegts.js keeps when it follows the live edge.
const BUFFER_MICROS: u64 = 500_000;

pub(super) async fn watch(viewer: &Viewer, began: &mut bool) -> Result<(), Trouble> {
    let is_ws = viewer.tally.protocol == Protocol::WsFlv;
    let (lines, wanted) = if is_ws { (ws::UPGRADE, 101) } else { ("", 200) };
    let mut stream = viewer.client().stream(&viewer.stage.flv, lines, wanted).await?;
    if viewer.timed {
        return Timed::new(viewer).read(&mut stream, is_ws.then(Frames::default), began).await;
    }
    loop {
        match stream.count().await? {
            0 => return Err(Trouble::Ended),
            count => viewer.received(count, began),
        }
    }
}

/// Looks at every frame of one viewer.
pub(super) struct Timed<'a> {
    viewer: &'a Viewer,
    reader: Reader,
    sequence: Sequence,
    player: Player,
    last_ms: [u32; 2],
}

impl<'a> Timed<'a> {
    pub(super) fn new(viewer: &'a Viewer) -> Self {
        let player = Player::new(BUFFER_MICROS);
        Self {
            viewer,
            reader: Reader::new(),
            sequence: Sequence::default(),
            player,
            last_ms: [0; 2],
        }
    }

    async fn read(
        &mut self,
        stream: &mut Stream,
        mut frames: Option<Frames>,
        began: &mut bool,
    ) -> Result<(), Trouble> {
        loop {
            let bytes = stream.next().await?;
            let at = now();
            if bytes.is_empty() {
                return Err(Trouble::Ended);
            }
            self.viewer.received(bytes.len(), began);
            match &mut frames {
                Some(frames) => {
                    frames.push(&bytes);
                    while let Some(payload) = frames.next()? {
                        self.reader.push(&payload);
                        self.take(at)?;
                    }
                }
                None => {
                    self.reader.push(&bytes);
                    self.take(at)?;
                }
            }
        }
    }

    fn take(&mut self, at: u64) -> Result<(), Trouble> {
        while let Some(tag) = self.reader.next_tag()? {
            self.tag(&tag, at)?;
        }
        Ok(())
    }

    /// A tag came at `at`.
    pub(super) fn tag(&mut self, tag: &Tag, at: u64) -> Result<(), Trouble> {
        let track = match tag.kind {
            TagKind::Video => 0,
            TagKind::Audio => 1,
            TagKind::Script => return Ok(()),
        };
        // A sequence header has no time of its own.
        if tag.body.get(1) == Some(&0) {
            return Ok(());
        }
        self.in_order(tag, track)?;
        if tag.kind == TagKind::Video {
            self.picture(tag, at);
        }
        Ok(())
    }

    fn in_order(&mut self, tag: &Tag, track: usize) -> Result<(), Trouble> {
        let last = std::mem::replace(&mut self.last_ms[track], tag.timestamp_ms);
        // Over half of the range back is a wrap (FLV, E.4.1: 32 bits of milliseconds).
        if last != 0 && (tag.timestamp_ms.wrapping_sub(last) as i32) < 0 {
            return Err(Trouble::Media("FLV time goes back".into()));
        }
        Ok(())
    }

    fn picture(&mut self, tag: &Tag, at: u64) {
        let tally = &self.viewer.tally;
        if let Some(stamp) = stamp::find(&tag.body).next() {
            self.viewer.aged(at, stamp.micros);
            match self.sequence.follow(stamp) {
                Order::Next => {}
                Order::Skipped(count) => tally.count(&tally.skipped, u64::from(count)),
                Order::Repeated => tally.count(&tally.repeated, 1),
            }
        }
        if self.player.arrived(at, u64::from(tag.timestamp_ms) * 1000) {
            tally.count(&tally.stalls, 1);
        }
    }
}
