//! Watches LL-HLS: blocking reload, and parts asked for before they exist.
//!
//! In: playlists and parts. Out: as every viewer, and for each held playlist the time from the part's
//! completion to the last byte. A part is complete when the first frame of the next one is pushed: the
//! home cannot know earlier. Timed viewers find that time in the stamps of the parts and tell all others
//! through [`Completed`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use super::hls::{Reader, media_playlist, not_a_playlist};
use super::{Trouble, Viewer, now};
use crate::http::Client;
use crate::scenario::Parts;
use crate::stamp;
use crate::tail::{self, Tail};

/// Completions kept: the last minute of a room.
const MAX_COMPLETED: usize = 300;
/// Playlists of a viewer whose completion is not known yet.
const MAX_PENDING: usize = 8;
/// What a player keeps where the server does not say.
const DEFAULT_HOLD_BACK_S: f64 = 0.65;

/// The number of the next part, by segment and place: what a playlist ends with.
type Position = (u64, u64);

/// When each part of a room was complete, by the position that follows it.
#[derive(Debug, Default)]
pub(crate) struct Completed(Mutex<BTreeMap<Position, u64>>);

impl Completed {
    fn tell(&self, position: Position, micros: u64) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Timed viewers differ by nothing: the stamp is the publisher's.
        known.entry(position).or_insert(micros);
        while known.len() > MAX_COMPLETED {
            known.pop_first();
        }
    }

    fn get(&self, position: Position) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&position).copied()
    }
}

pub(super) async fn watch(viewer: &Viewer, began: &mut bool) -> Result<(), Trouble> {
    let mut lists = viewer.client();
    let path = media_playlist(viewer, &mut lists, began).await?;
    // One reads playlists while the other waits for a part.
    let (mut lister, mut reader) = (Reader::new(viewer), Reader::new(viewer));
    let text = lister.playlist(&mut lists, &path, began).await?;
    let tail = Tail::read(&text).ok_or_else(|| not_a_playlist(&path))?;
    let hold_back = tail.part_hold_back.unwrap_or(DEFAULT_HOLD_BACK_S);
    reader.hold_back((hold_back * 1e6) as u64);
    if let Some(init) = tail.init {
        reader.media(&mut lists, &tail::resolve(&path, init), began).await?;
    }
    let parts =
        if viewer.timed && viewer.parts == Parts::None { Parts::Hint } else { viewer.parts };
    let session = Session {
        viewer,
        next: tail.next,
        hint: tail.hint.map(|uri| tail::resolve(&path, uri)),
        path,
        waits: Waits::default(),
    };
    let readers = (&mut lister, &mut reader);
    session.follow(parts, (&mut lists, &mut viewer.client()), readers, began).await
}

struct Session<'a> {
    viewer: &'a Viewer,
    path: String,
    next: Position,
    hint: Option<String>,
    waits: Waits,
}

impl Session<'_> {
    async fn follow(
        mut self,
        parts: Parts,
        (lists, media): (&mut Client, &mut Client),
        (lister, reader): (&mut Reader<'_>, &mut Reader<'_>),
        began: &mut bool,
    ) -> Result<(), Trouble> {
        // What has been listed before the first reload has been complete for an unknown time.
        let mut completed_by = None;
        let mut began_listing = true;
        loop {
            let reload = self.reload_path();
            let asked = self.hint.take();
            let hinted = async {
                match &asked {
                    Some(part) if parts == Parts::Hint => {
                        reader.media(media, part, began).await.map(|body| (true, body))
                    }
                    _ => Ok((false, None)),
                }
            };
            let listed = async {
                let text = lister.playlist(lists, &reload, &mut began_listing).await;
                (text, now())
            };
            let (hinted, (text, at)) = tokio::join!(hinted, listed);
            let (was_fetched, mut body) = hinted?;
            let text = text?;
            let tail = Tail::read(&text).ok_or_else(|| not_a_playlist(&self.path))?;
            if tail.ended {
                return Err(Trouble::Ended);
            }
            if tail.next <= self.next {
                return Err(Trouble::Media("a held playlist lists nothing new".into()));
            }
            let part = tail.part.map(|uri| tail::resolve(&self.path, uri));
            let missed = was_fetched && part != asked;
            if parts != Parts::None
                && (!was_fetched || missed)
                && let Some(part) = &part
            {
                let tally = &self.viewer.tally;
                tally.count(&tally.skipped, u64::from(missed));
                body = reader.fetch(lists, part, began).await?;
            }
            let first = body.as_deref().and_then(|b| stamp::find(b).next());
            if let (Some(position), Some(first), false) = (completed_by, first, missed) {
                self.viewer.stage.completed.tell(position, first.micros);
            }
            completed_by = Some(tail.next);
            self.waits.ended(self.viewer, tail.next, at);
            self.next = tail.next;
            self.hint = tail.hint.map(|uri| tail::resolve(&self.path, uri));
        }
    }

    fn reload_path(&self) -> String {
        let (msn, part) = self.next;
        let mark = if self.path.contains('?') { '&' } else { '?' };
        format!("{}{mark}_HLS_msn={msn}&_HLS_part={part}&_HLS_skip=YES", self.path)
    }
}

/// Held playlists whose part's completion is not known yet.
#[derive(Debug, Default)]
struct Waits(VecDeque<(Position, u64)>);

impl Waits {
    /// A held playlist was there at `at`. Records what has become known meanwhile.
    fn ended(&mut self, viewer: &Viewer, position: Position, at: u64) {
        let tally = &viewer.tally;
        if tally.window.is_open() {
            self.0.push_back((position, at));
        }
        self.0.retain(|(position, at)| match viewer.stage.completed.get(*position) {
            Some(complete) => {
                tally.reload.record(at.saturating_sub(complete));
                false
            }
            None => true,
        });
        while self.0.len() > MAX_PENDING {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_are_kept_for_a_while_and_never_change() {
        let completed = Completed::default();
        completed.tell((5, 1), 10);
        completed.tell((5, 1), 99);
        assert_eq!(completed.get((5, 1)), Some(10));
        for part in 0..MAX_COMPLETED as u64 {
            completed.tell((6, part), part);
        }
        assert_eq!(completed.get((5, 1)), None, "the oldest leaves");
        assert_eq!(completed.get((6, 0)), Some(0));
    }
}
