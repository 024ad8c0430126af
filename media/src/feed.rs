//! The feed: a rolling window of one live stream, one producer, many readers.
//!
//! In: manifest entries and frames, from the segmenter (at the home) or from a link to the home
//! (at an edge). Out, three ways to read the same bytes:
//! * published manifests and [`Part`]s, for HLS: a part is published when its bytes and its entry
//!   are both there, and every part before it is;
//! * frames as they come, by [`Cursor`], for FLV;
//! * entries and frames by segment, for replication to the next node.
//!
//! A relay is a feed copied. Inserting is idempotent by (segment, frame index) and (segment, part),
//! so a link may replay what is known, and two links may feed one feed.
//!
//! The lock is held for short synchronous sections only; no reader holds it while rendering.

mod cursor;
mod part;
mod store;

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

pub use cursor::{Cursor, Read, Start, Timed};
pub use part::Part;

use crate::frame::Frame;
use crate::manifest::{ApplyError, Entry, Epoch, Header, Manifest, Msn, PartNumber, Status};
use store::Store;

/// Batches of entries kept for subscribers that follow; one that falls further behind is told
/// everything again. At five parts a second this is over three minutes.
pub const LOG_BATCHES: usize = 1024;

/// Batches whose bytes are still coming. A home sends bytes before entries, so this is only ever
/// long on a link that lost its uni streams; over it the link must start again.
pub const MAX_PENDING_BATCHES: usize = 1024;

/// A part whose bytes are not here is published all the same once so many segments later one is
/// whole: bytes come in order, so these are lost, and the stream goes on without them.
pub const MAX_SEGMENTS_LATE: u64 = 3;

/// What a feed may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Payload bytes kept. Over it the oldest segments lose their bytes, unlisted ones first;
    /// rendered forms come on top, at most one of each part.
    pub max_bytes: usize,
}

impl Default for Limits {
    /// 64 MiB: 20 s of a 25 Mbit/s stream.
    fn default() -> Self {
        Self { max_bytes: 64 << 20 }
    }
}

/// Why a producer's input was refused. The stream it came on cannot be trusted any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An entry contradicts the manifest.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A frame's index leaves a hole.
    #[error("segment {msn}: frame {index} where {expected} was due")]
    Hole {
        /// The segment.
        msn: Msn,
        /// The index given.
        index: u32,
        /// The index that was due.
        expected: u32,
    },
    /// Too many batches wait for their bytes.
    #[error("over {MAX_PENDING_BATCHES} manifest batches wait for their bytes")]
    Pending,
    /// A segment is larger than any real one.
    #[error("segment {0} has too many frames")]
    SegmentTooLong(Msn),
}

/// The answer to a look-up by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup<T> {
    /// It is here.
    Ready(T),
    /// The manifest knows it; its bytes are still coming.
    Coming,
    /// Never heard of, or gone for good.
    Unknown,
}

/// Frames of one segment, for replication.
#[derive(Debug, Clone, Default)]
pub struct SegmentFrames {
    /// The epoch that opened the segment.
    pub epoch: Epoch,
    /// The epoch of the later home that ended it, if one did.
    pub sealed: Option<Epoch>,
    /// The frames from the asked index on.
    pub frames: Vec<Frame>,
    /// The number of frames of the whole segment once it is closed.
    pub total: Option<u32>,
}

/// A position in the log of batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogCursor(u64);

/// Counters of a feed since it began, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Segments whose bytes were dropped while they were still listed, for [`Limits::max_bytes`].
    pub evicted_listed: u64,
    /// Payload bytes held now.
    pub bytes: usize,
    /// Parts published before their bytes were here: of the older segments of a stream just joined,
    /// or lost on the way for good.
    pub published_hollow: u64,
}

impl SegmentFrames {
    /// Whether the segment or its parts are named by this epoch.
    #[must_use]
    pub fn is_named(&self, epoch: Epoch) -> bool {
        self.epoch == epoch || self.sealed == Some(epoch)
    }
}

/// Handle to a feed; clones share it.
#[derive(Debug, Clone)]
pub struct Feed {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    published: watch::Sender<Arc<Manifest>>,
    activity: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    /// Everything the home has said.
    said: Manifest,
    /// What of it is published.
    published: Manifest,
    /// Batches said and not yet published, oldest first.
    pending: VecDeque<Pending>,
    /// After a take-over by a home that knew less than is published here: the newest segment and its
    /// number of parts, below which nothing is published any more.
    hold: Option<(Msn, u32)>,
    log: VecDeque<Arc<[Entry]>>,
    /// Sequence number of the first batch in `log`.
    log_start: u64,
    store: Store,
}

/// A batch that was said and not yet published.
#[derive(Debug)]
struct Pending {
    batch: Arc<[Entry]>,
    /// Parts before this segment need no bytes to be published.
    hollow_before: Msn,
}

impl Pending {
    /// A batch that opens several segments tells of a stream that has been running: what is new in it
    /// is its newest segment and the one before it. Readers of older ones wait for the bytes.
    fn new(batch: Arc<[Entry]>) -> Self {
        let opened = |entry: &Entry| match entry {
            Entry::Open(open) => Some(open.msn),
            _ => None,
        };
        let hollow_before = batch.iter().rev().filter_map(opened).nth(1).unwrap_or_default();
        Self { batch, hollow_before }
    }
}

impl Feed {
    /// An empty feed under `header`.
    #[must_use]
    pub fn new(header: Header, limits: Limits) -> Self {
        let manifest = Manifest::new(header);
        let state = State {
            said: manifest.clone(),
            published: manifest.clone(),
            pending: VecDeque::new(),
            hold: None,
            log: VecDeque::new(),
            log_start: 0,
            store: Store::new(limits.max_bytes),
        };
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(state),
                published: watch::Sender::new(Arc::new(manifest)),
                activity: watch::Sender::new(0),
            }),
        }
    }

    // === producing

    /// Applies a batch of entries: they become visible to readers together, once the bytes of every
    /// part among them are here. What is already known changes nothing. A batch that opens several
    /// segments waits only for those of the last two. What a later home takes back stays published
    /// until it has said as much itself, so that the head of the stream never goes down; nor is there no
    /// playlist where there was one.
    ///
    /// # Errors
    /// When an entry contradicts the manifest, or too many batches wait. Entries before the faulty
    /// one stay applied; the caller gives the stream up.
    pub fn apply(&self, batch: Vec<Entry>) -> Result<(), Error> {
        let mut state = self.shared.state.lock();
        let mut news = Vec::with_capacity(batch.len());
        let mut result = Ok(());
        let mut voided = false;
        for entry in batch {
            let voids = state.said.is_voided_by(&entry);
            match state.said.apply(&entry) {
                Ok(true) => {
                    voided |= voids;
                    state.keep_bytes(&entry);
                    news.push(entry);
                }
                Ok(false) => {}
                Err(e) => {
                    result = Err(e.into());
                    break;
                }
            }
        }
        if !news.is_empty() {
            let news: Arc<[Entry]> = news.into();
            state.remember(Arc::clone(&news));
            if voided {
                state.publish_anew();
            } else {
                state.pending.push_back(Pending::new(news));
            }
            if state.pending.len() > MAX_PENDING_BATCHES {
                result = result.and(Err(Error::Pending));
            }
            self.publish(state, false);
        }
        result
    }

    /// Adds the frame at `index` of segment `msn`. A frame already here changes nothing. Returns
    /// false when the segment is not open yet: the caller waits for [`Self::activity`] and retries.
    ///
    /// # Errors
    /// [`Error::Hole`] when a frame before it is missing.
    pub fn push(&self, msn: Msn, index: u32, frame: Frame) -> Result<bool, Error> {
        self.push_into(self.shared.state.lock(), msn, index, frame)
    }

    /// As [`Self::push`], for a segment opened under `epoch`. Frames of a home whose segment was taken
    /// back are dropped; those of a home not heard of yet wait.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn push_of(&self, epoch: Epoch, msn: Msn, index: u32, frame: Frame) -> Result<bool, Error> {
        let state = self.shared.state.lock();
        match state.store.epoch_of(msn) {
            Some(known) if known > epoch => Ok(true),
            Some(known) if known < epoch => Ok(false),
            _ => self.push_into(state, msn, index, frame),
        }
    }

    fn push_into(
        &self,
        mut state: parking_lot::MutexGuard<'_, State>,
        msn: Msn,
        index: u32,
        frame: Frame,
    ) -> Result<bool, Error> {
        let Some(completes) = state.store.push(msn, index, frame)? else { return Ok(false) };
        self.publish(state, completes);
        Ok(true)
    }

    /// Adds the next frame of the newest segment: what a home does, which pushes in order.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn push_next(&self, msn: Msn, frame: Frame) -> Result<bool, Error> {
        let state = self.shared.state.lock();
        let index = state.store.len(msn);
        self.push_into(state, msn, index, frame)
    }

    /// How many frames of segment `msn` are here: where a resumed link goes on.
    #[must_use]
    pub fn frames_of(&self, msn: Msn) -> u32 {
        self.shared.state.lock().store.len(msn)
    }

    // === reading: HLS

    /// The published manifest: every part in it can be fetched.
    #[must_use]
    pub fn manifest(&self) -> Arc<Manifest> {
        Arc::clone(&self.shared.published.borrow())
    }

    /// Wakes when the published manifest changes.
    #[must_use]
    pub fn published(&self) -> watch::Receiver<Arc<Manifest>> {
        self.shared.published.subscribe()
    }

    /// The part with this name.
    #[must_use]
    pub fn part(&self, epoch: Epoch, number: PartNumber) -> Lookup<Arc<Part>> {
        let state = self.shared.state.lock();
        if let Some(part) = state.store.part(epoch, number) {
            return Lookup::Ready(part);
        }
        let said = state.said.segments().iter().any(|s| {
            s.open.epoch == epoch && s.open.first_part <= number && number < s.next_part()
        });
        if said { Lookup::Coming } else { Lookup::Unknown }
    }

    /// The parts of the complete segment with this name; its body is their bodies in order.
    #[must_use]
    pub fn segment(&self, epoch: Epoch, msn: Msn) -> Lookup<Vec<Arc<Part>>> {
        let state = self.shared.state.lock();
        if let Some(parts) = state.store.segment(epoch, msn) {
            return Lookup::Ready(parts);
        }
        match state.said.segment(msn) {
            Some(s) if s.name_epoch() == epoch && s.duration.is_some() => Lookup::Coming,
            _ => Lookup::Unknown,
        }
    }

    // === reading: FLV

    /// Wakes whenever a frame or an entry came; the value only counts.
    #[must_use]
    pub fn activity(&self) -> watch::Receiver<u64> {
        self.shared.activity.subscribe()
    }

    /// A cursor at `start`, or none while no frame is here to start at.
    #[must_use]
    pub fn cursor(&self, start: Start) -> Option<Cursor> {
        self.shared.state.lock().store.cursor(start)
    }

    /// Reads what came since the cursor was last here, at most `max_frames`, and moves it on.
    #[must_use]
    pub fn read(&self, cursor: &mut Cursor, max_frames: usize) -> Read {
        let state = self.shared.state.lock();
        state.store.read(cursor, max_frames, state.said.status())
    }

    /// Moves a cursor that is [`Read::Stalled`] or [`Read::Behind`] to the next frame of a later
    /// segment at which decoding can start. Returns false while there is none.
    #[must_use]
    pub fn skip(&self, cursor: &mut Cursor) -> bool {
        self.shared.state.lock().store.skip(cursor)
    }

    // === reading: replication

    /// Everything said so far, as the entries of one batch, and the position after it.
    #[must_use]
    pub fn attach(&self) -> (Vec<Entry>, LogCursor) {
        let state = self.shared.state.lock();
        (state.said.dump(), LogCursor(state.log_start + state.log.len() as u64))
    }

    /// The batches since `cursor`, which moves on; none when the log no longer reaches back, and
    /// the subscriber must [`Self::attach`] again.
    #[must_use]
    pub fn batches_since(&self, cursor: &mut LogCursor) -> Option<Vec<Arc<[Entry]>>> {
        let state = self.shared.state.lock();
        let skip = usize::try_from(cursor.0.checked_sub(state.log_start)?).ok()?;
        let batches: Vec<_> = state.log.iter().skip(skip).cloned().collect();
        cursor.0 += batches.len() as u64;
        Some(batches)
    }

    /// The manifest as the home has said it, published or not.
    #[must_use]
    pub fn said(&self) -> Manifest {
        self.shared.state.lock().said.clone()
    }

    /// The oldest segment that lacks bytes, or the newest one, and how many of its frames are here:
    /// where a new link should go on. None while no segment was opened.
    #[must_use]
    pub fn resume_point(&self) -> Option<(Msn, u32)> {
        self.shared.state.lock().store.resume_point()
    }

    /// Frames of segment `msn` from `index` on; none when its bytes are gone.
    #[must_use]
    pub fn segment_frames(&self, msn: Msn, index: u32) -> Option<SegmentFrames> {
        self.shared.state.lock().store.frames(msn, index)
    }

    /// Counters for metrics.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.state.lock().store.counters()
    }

    /// Publishes what can be; `completes` says that a part published before has its bytes now.
    fn publish(&self, mut state: parking_lot::MutexGuard<'_, State>, completes: bool) {
        let changed = state.advance() || completes;
        let manifest = changed.then(|| Arc::new(state.published.clone()));
        // Sent under the lock so that two producers' manifests cannot overtake each other.
        if let Some(manifest) = manifest {
            self.shared.published.send_replace(manifest);
        }
        drop(state);
        self.shared.activity.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl State {
    fn remember(&mut self, batch: Arc<[Entry]>) {
        if self.log.len() == LOG_BATCHES {
            self.log.pop_front();
            self.log_start += 1;
        }
        self.log.push_back(batch);
    }

    /// Does with the bytes what an entry just said says.
    fn keep_bytes(&mut self, entry: &Entry) {
        let total = |state: &Self, msn| state.said.segment(msn).map_or(0, |s| s.frames());
        match entry {
            Entry::Open(open) => {
                self.store.void_from(open.msn);
                if let Some(config) = self.said.last().map(|s| Arc::clone(&s.config)) {
                    self.store.open(*open, config);
                }
            }
            Entry::Close(close) => {
                self.store.close(close.msn, close.duration, total(self, close.msn));
            }
            Entry::Seal(seal) => self.store.seal(*seal, total(self, seal.msn)),
            _ => {}
        }
    }

    /// Something published, or about to be, was taken back: everything said is to be published anew.
    fn publish_anew(&mut self) {
        let head = self.published.head();
        let hold = self.hold.max(Some((head.msn, head.parts)));
        self.pending.clear();
        self.pending.push_back(Pending::new(self.said.dump().into()));
        self.hold = hold;
    }

    fn is_ready(&self, pending: &Pending) -> bool {
        let newest = self.store.newest_whole();
        let lost = |msn: Msn| newest.is_some_and(|n| n.0 >= msn.0 + MAX_SEGMENTS_LATE);
        pending.batch.iter().all(|entry| match entry {
            // A part of a segment that has already left the store can never come; the window
            // entry behind it takes it off the list.
            Entry::Part(p) => {
                p.msn < pending.hollow_before
                    || self.store.has(p.msn, p.frames_end) != Some(false)
                    || lost(p.msn)
            }
            _ => true,
        })
    }

    /// Whether publishing the first `count` batches brings back as much as was published before.
    fn makes_up(&self, count: usize) -> bool {
        let Some(hold) = self.hold else { return true };
        let mut then = self.published.clone();
        for entry in self.pending.iter().take(count).flat_map(|p| p.batch.iter()) {
            if then.apply(entry).is_err() {
                return true;
            }
        }
        (then.head().msn, then.head().parts) >= hold || then.status() == Status::Ended
    }

    /// Whether a playlist that there was is still there, or another, once the first `count` batches are
    /// published: a home that knows nothing of the past says so before it has anything to list.
    fn keeps_playlist(&self, count: usize) -> bool {
        let begins_anew =
            |entry: &Entry| matches!(entry, Entry::Header(header) if header.constants.is_none());
        let entries = || self.pending.iter().take(count).flat_map(|p| p.batch.iter());
        if !self.published.is_playable() || !entries().any(begins_anew) {
            return true;
        }
        let mut then = self.published.clone();
        // What `said` has taken, `published` takes.
        let taken = entries().all(|entry| then.apply(entry).is_ok());
        !taken || then.is_playable() || then.status() == Status::Ended
    }

    /// Publishes every leading batch whose bytes are all here. Returns whether there was one.
    fn advance(&mut self) -> bool {
        let ready = self.pending.iter().take_while(|p| self.is_ready(p)).count();
        if ready == 0 || !self.makes_up(ready) || !self.keeps_playlist(ready) {
            return false;
        }
        self.hold = None;
        for pending in self.pending.drain(..ready) {
            for entry in pending.batch.iter() {
                // `said` accepted it in the same order, so `published` does too.
                let applied = self.published.apply(entry);
                debug_assert!(applied.is_ok(), "{applied:?}");
                if let (Entry::Part(part), Ok(true)) = (entry, applied) {
                    self.store.publish_part(part);
                }
            }
        }
        let target_s = self.published.header().constants.map_or(10, |c| c.target_duration_s);
        self.store.retain(self.published.window().first, u64::from(target_s) * 3 * 90_000);
        true
    }
}

#[cfg(test)]
mod tests;
