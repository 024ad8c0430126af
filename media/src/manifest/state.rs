//! The manifest as accumulated state: entries in, the picture of the stream out.
//!
//! Owned by a [`crate::feed`], which keeps two: what the home has said, and what of it is published
//! (all bytes present). Cloning is cheap: closed segments are shared.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{
    Config, Entry, Epoch, Head, Header, Mark, Msn, PartEnd, PartNumber, SegmentClose, SegmentOpen,
    SegmentSeal, TrackTimes, WindowStart,
};

/// Segments a manifest lists at most; more means the home forgot to move its window.
pub const MAX_SEGMENTS: usize = 4096;

/// Parts a segment has at most: one of a single frame each at 120 fps for the longest target
/// duration, with room to spare.
pub const MAX_PARTS_PER_SEGMENT: usize = 2048;

/// Configurations kept: those that listed segments name, and a few newer.
pub const MAX_CONFIGS: usize = 64;

/// A part as the manifest knows it.
pub type PartMeta = PartEnd;

/// A segment as the manifest knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentMeta {
    /// How it began.
    pub open: SegmentOpen,
    /// Its configuration.
    pub config: Arc<Config>,
    /// Its parts so far, in order.
    pub parts: Vec<PartMeta>,
    /// Its `EXTINF` in 90 kHz ticks once it is closed.
    pub duration: Option<u32>,
    /// The epoch of the home that closed it, where that is another one than opened it.
    pub sealed: Option<Epoch>,
}

impl SegmentMeta {
    /// The epoch in the name of the whole segment. That of its parts is the one it was opened under.
    #[must_use]
    pub fn name_epoch(&self) -> Epoch {
        self.sealed.unwrap_or(self.open.epoch)
    }

    /// Where the part at `index` starts on each track's clock: where the one before it ended.
    #[must_use]
    pub fn part_start(&self, index: usize) -> TrackTimes {
        let mut start = self.open.start;
        for part in self.parts.iter().take(index) {
            start.video = part.end.video.or(start.video);
            start.audio = part.end.audio.or(start.audio);
        }
        start
    }

    /// The number the next part of this segment has or would have.
    #[must_use]
    pub fn next_part(&self) -> PartNumber {
        self.parts.last().map_or(self.open.first_part, |p| p.part.next())
    }

    /// Number of frames covered by parts.
    #[must_use]
    pub fn frames(&self) -> u32 {
        self.parts.last().map_or(0, |p| p.frames_end)
    }

    /// Whether its first part can be decoded from (`INDEPENDENT=YES`).
    #[must_use]
    pub fn starts_independent(&self) -> bool {
        self.parts.first().is_some_and(|p| p.independent)
    }
}

/// Where the stream is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Status {
    /// A publisher is sending.
    #[default]
    Live,
    /// The publisher has gone; it may return within the grace time.
    Grace,
    /// Over: nothing follows.
    Ended,
}

/// The accumulated manifest of one room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    header: Header,
    configs: VecDeque<Arc<Config>>,
    segments: VecDeque<Arc<SegmentMeta>>,
    window: WindowStart,
    next_part: Option<PartNumber>,
    mark: Option<Mark>,
    status: Status,
}

/// An entry that contradicts what was said before. The stream it came on cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("manifest {entry}: {why}")]
pub struct ApplyError {
    /// The kind of entry.
    pub entry: &'static str,
    /// What it contradicts.
    pub why: String,
}

impl Manifest {
    /// An empty manifest under `header`; nothing is listed.
    #[must_use]
    pub fn new(header: Header) -> Self {
        Self {
            header,
            configs: VecDeque::new(),
            segments: VecDeque::new(),
            window: WindowStart { first: Msn(0), discontinuity_sequence: 0 },
            next_part: None,
            mark: None,
            status: Status::Live,
        }
    }

    /// The room header now in force.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The listed segments, oldest first; the last may be open.
    #[must_use]
    pub fn segments(&self) -> &VecDeque<Arc<SegmentMeta>> {
        &self.segments
    }

    /// The segment with this number, if it is listed.
    #[must_use]
    pub fn segment(&self, msn: Msn) -> Option<&Arc<SegmentMeta>> {
        let first = self.segments.front()?.open.msn.0;
        self.segments.get(usize::try_from(msn.0.checked_sub(first)?).ok()?)
    }

    /// The newest segment.
    #[must_use]
    pub fn last(&self) -> Option<&Arc<SegmentMeta>> {
        self.segments.back()
    }

    /// `EXT-X-MEDIA-SEQUENCE` and `EXT-X-DISCONTINUITY-SEQUENCE`.
    #[must_use]
    pub fn window(&self) -> WindowStart {
        self.window
    }

    /// Where the stream is in its life.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }

    /// The newest configuration, the one the next segment will most likely use.
    #[must_use]
    pub fn config(&self) -> Option<&Arc<Config>> {
        self.configs.back()
    }

    /// The number of the next part, once any segment was opened.
    #[must_use]
    pub fn next_part(&self) -> Option<PartNumber> {
        self.next_part
    }

    /// Where the publisher was at the end of the newest part, if the home said so.
    #[must_use]
    pub fn mark(&self) -> Option<&Mark> {
        self.mark.as_ref()
    }

    /// The newest part, for resume and blocking reload.
    #[must_use]
    pub fn head(&self) -> Head {
        let newest = self.segments.iter().rev().find(|s| !s.parts.is_empty());
        Head {
            epoch: self.header.epoch,
            msn: newest.map_or(Msn(0), |s| s.open.msn),
            parts: newest.map_or(0, |s| u32::try_from(s.parts.len()).unwrap_or(u32::MAX)),
        }
    }

    /// Whether a media playlist exists: the constants are frozen and a segment is complete.
    #[must_use]
    pub fn is_playable(&self) -> bool {
        self.header.constants.is_some() && self.segments.iter().any(|s| s.duration.is_some())
    }

    /// The entries that rebuild this manifest from nothing: what a new subscriber is told first.
    #[must_use]
    pub fn dump(&self) -> Vec<Entry> {
        let mut out = vec![Entry::Header(self.header.clone()), Entry::Window(self.window)];
        // Compared by content: a home that lost its past may use an id again.
        let mut told: Option<&Config> = None;
        for segment in &self.segments {
            if told != Some(&*segment.config) {
                told = Some(&segment.config);
                out.push(Entry::Config(Config::clone(&segment.config)));
            }
            out.push(Entry::Open(segment.open));
            out.extend(segment.parts.iter().map(|p| Entry::Part(*p)));
            let msn = segment.open.msn;
            match (segment.duration, segment.sealed) {
                (Some(duration), Some(epoch)) => {
                    let next_part = segment.next_part();
                    out.push(Entry::Seal(SegmentSeal { msn, epoch, duration, next_part }));
                }
                (Some(duration), None) => out.push(Entry::Close(SegmentClose { msn, duration })),
                (None, _) => {}
            }
        }
        out.extend(self.mark.map(Entry::Mark));
        if let Some(newest) = self.configs.back().filter(|c| told != Some(&***c)) {
            out.push(Entry::Config(Config::clone(newest)));
        }
        match self.status {
            Status::Live => out.push(Entry::Resumed),
            Status::Grace => out.push(Entry::Grace),
            Status::Ended => out.push(Entry::End),
        }
        out
    }

    /// Applies one entry. An entry already applied (same segment, same part) changes nothing, so a
    /// dump may be replayed over a manifest that has part of it. Returns whether anything changed.
    ///
    /// # Errors
    /// [`ApplyError`] when the entry contradicts what was said before; the manifest is unchanged.
    pub fn apply(&mut self, entry: &Entry) -> Result<bool, ApplyError> {
        match entry {
            Entry::Header(header) => self.apply_header(header),
            Entry::Config(config) => self.apply_config(config),
            Entry::Open(open) => self.apply_open(open),
            Entry::Part(part) => self.apply_part(part),
            Entry::Close(close) => self.apply_close(*close),
            Entry::Window(window) => self.apply_window(*window),
            Entry::Grace => Ok(self.set_status(Status::Grace)),
            Entry::Resumed => Ok(self.set_status(Status::Live)),
            Entry::End => Ok(self.set_status(Status::Ended)),
            Entry::Seal(seal) => self.apply_seal(*seal),
            Entry::Mark(mark) => Ok(self.apply_mark(*mark)),
        }
    }

    /// Whether the entry takes back something said before: a later home did not know of it.
    #[must_use]
    pub fn is_voided_by(&self, entry: &Entry) -> bool {
        let newest = self.segments.back().map_or(Msn(0), |s| s.open.msn);
        match entry {
            Entry::Open(open) => self.segment(open.msn).is_some_and(|s| s.open.epoch < open.epoch),
            Entry::Seal(seal) => self.segment(seal.msn).is_some_and(|s| {
                let known = s.sealed == Some(seal.epoch);
                let beyond = newest > seal.msn || s.next_part() > seal.next_part;
                !known && (beyond || s.duration.is_some())
            }),
            _ => false,
        }
    }

    fn set_status(&mut self, status: Status) -> bool {
        let changed = self.status != status && self.status != Status::Ended;
        if changed {
            self.status = status;
        }
        changed
    }

    fn apply_header(&mut self, header: &Header) -> Result<bool, ApplyError> {
        let fail = |why: String| Err(ApplyError { entry: "header", why });
        if header.epoch < self.header.epoch {
            return fail(format!("epoch {} after {}", header.epoch, self.header.epoch));
        }
        if header.epoch == self.header.epoch
            && self.header.constants.is_some()
            && header.constants != self.header.constants
        {
            return fail("the constants of a room never change".into());
        }
        let changed = self.header != *header;
        self.header = header.clone();
        Ok(changed)
    }

    fn apply_config(&mut self, config: &Config) -> Result<bool, ApplyError> {
        if let Some(at) = self.configs.iter().position(|c| c.id == config.id) {
            if self.configs.get(at).is_some_and(|known| **known == *config) {
                return Ok(false);
            }
            // Only a home that lost its past reuses an id, under a new epoch. Segments hold their own
            // configuration, so this takes it from none of them; the new one is the newest.
            self.configs.remove(at);
        }
        if self.configs.len() == MAX_CONFIGS {
            self.configs.pop_front();
        }
        self.configs.push_back(Arc::new(config.clone()));
        Ok(true)
    }

    fn apply_open(&mut self, open: &SegmentOpen) -> Result<bool, ApplyError> {
        let fail = |why: String| Err(ApplyError { entry: "open", why });
        if open.msn < self.window.first {
            return Ok(false);
        }
        if let Some(known) = self.segment(open.msn) {
            if known.open == *open {
                return Ok(false);
            }
            if known.open.epoch >= open.epoch {
                return fail(format!("segment {} was opened differently before", open.msn));
            }
            self.void_from(open.msn);
        }
        if self.status == Status::Ended {
            return fail(format!("segment {} after the end", open.msn));
        }
        if let Some(last) = self.segments.back() {
            if last.duration.is_none() {
                return fail(format!("segment {} while {} is open", open.msn, last.open.msn));
            }
            if open.msn != last.open.msn.next() {
                return fail(format!("segment {} follows {}", open.msn, last.open.msn));
            }
            if open.first_part < last.next_part() {
                return fail(format!("part {} comes again", open.first_part));
            }
        }
        if self.segments.len() == MAX_SEGMENTS {
            return fail(format!("more than {MAX_SEGMENTS} segments"));
        }
        let Some(config) = self.configs.iter().find(|c| c.id == open.config) else {
            return fail(format!("unknown configuration {}", open.config));
        };
        if self.segments.is_empty() && self.window.first < open.msn {
            self.window.first = open.msn;
        }
        self.segments.push_back(Arc::new(SegmentMeta {
            open: *open,
            config: Arc::clone(config),
            parts: Vec::new(),
            duration: None,
            sealed: None,
        }));
        self.next_part = Some(open.first_part);
        Ok(true)
    }

    /// Takes back the segments from `msn` on: an earlier home said them, and a later one did not
    /// know of them.
    fn void_from(&mut self, msn: Msn) {
        while self.segments.back().is_some_and(|s| s.open.msn >= msn) {
            self.segments.pop_back();
        }
        self.void_parts();
    }

    fn void_parts(&mut self) {
        self.next_part = self.segments.back().map(|s| s.next_part());
        self.mark = self.mark.filter(|mark| Some(mark.part.next()) == self.next_part);
    }

    fn apply_seal(&mut self, seal: SegmentSeal) -> Result<bool, ApplyError> {
        let fail = |why: String| Err(ApplyError { entry: "seal", why });
        let msn = seal.msn;
        if msn < self.window.first {
            return Ok(false);
        }
        let Some(known) = self.segment(msn) else {
            return fail(format!("segment {msn} was never opened"));
        };
        if known.sealed == Some(seal.epoch) {
            return if known.duration == Some(seal.duration) && known.next_part() == seal.next_part {
                Ok(false)
            } else {
                fail(format!("segment {msn} was sealed differently before"))
            };
        }
        if known.open.epoch >= seal.epoch || known.sealed > Some(seal.epoch) {
            return fail(format!("segment {msn} is not sealed by an earlier home"));
        }
        if seal.next_part <= known.open.first_part || seal.next_part > known.next_part() {
            return fail(format!("segment {msn} has no part before {}", seal.next_part));
        }
        self.void_from(msn.next());
        if let Some(segment) = self.segments.back_mut() {
            let segment = Arc::make_mut(segment);
            segment.parts.retain(|part| part.part < seal.next_part);
            segment.duration = Some(seal.duration);
            segment.sealed = Some(seal.epoch);
        }
        self.void_parts();
        Ok(true)
    }

    fn apply_mark(&mut self, mark: Mark) -> bool {
        let is_newest = self.next_part == Some(mark.part.next());
        let changed = is_newest && self.mark != Some(mark);
        if changed {
            self.mark = Some(mark);
        }
        changed
    }

    fn apply_part(&mut self, part: &PartEnd) -> Result<bool, ApplyError> {
        let fail = |why: String| Err(ApplyError { entry: "part", why });
        if part.msn < self.window.first {
            return Ok(false);
        }
        if let Some(known) = self.segment(part.msn)
            && part.part < known.next_part()
        {
            return if known.parts.contains(part) {
                Ok(false)
            } else {
                fail(format!("part {} was said differently before", part.part))
            };
        }
        let limit = self.header.constants.map(|c| c.part_target_ms.saturating_mul(90));
        let Some(open) = self.segments.back_mut() else {
            return fail("no segment is open".into());
        };
        if open.open.msn != part.msn || open.duration.is_some() {
            return fail(format!("segment {} is not open", part.msn));
        }
        if part.part != open.next_part() {
            return fail(format!("part {} where {} was due", part.part, open.next_part()));
        }
        if part.frames_end <= open.frames() {
            return fail(format!("part {} is empty", part.part));
        }
        if limit.is_some_and(|l| part.duration > l) {
            return fail(format!("part {} is longer than the part target", part.part));
        }
        if open.parts.len() == MAX_PARTS_PER_SEGMENT {
            return fail(format!("more than {MAX_PARTS_PER_SEGMENT} parts in a segment"));
        }
        Arc::make_mut(open).parts.push(*part);
        self.next_part = Some(part.part.next());
        Ok(true)
    }

    fn apply_close(&mut self, close: SegmentClose) -> Result<bool, ApplyError> {
        let fail = |why: String| Err(ApplyError { entry: "close", why });
        if close.msn < self.window.first {
            return Ok(false);
        }
        if let Some(known) = self.segment(close.msn)
            && let Some(duration) = known.duration
        {
            return if duration == close.duration {
                Ok(false)
            } else {
                fail(format!("segment {} was closed differently before", close.msn))
            };
        }
        let Some(open) = self.segments.back_mut().filter(|s| s.open.msn == close.msn) else {
            return fail(format!("segment {} is not open", close.msn));
        };
        if open.parts.is_empty() {
            return fail(format!("segment {} has no part", close.msn));
        }
        Arc::make_mut(open).duration = Some(close.duration);
        Ok(true)
    }

    fn apply_window(&mut self, window: WindowStart) -> Result<bool, ApplyError> {
        let fail = |why: String| Err(ApplyError { entry: "window", why });
        if window.first < self.window.first {
            // An older dump replayed: numbers never go down.
            return Ok(false);
        }
        let goes_on = self.segments.back().is_some_and(|last| window.first <= last.open.msn.next());
        if goes_on && window.discontinuity_sequence < self.window.discontinuity_sequence {
            return fail("the discontinuity sequence goes down".into());
        }
        if window == self.window {
            return Ok(false);
        }
        self.window = window;
        while self.segments.front().is_some_and(|s| s.open.msn < window.first) {
            self.segments.pop_front();
        }
        let oldest = self.segments.front().map(|s| s.config.id);
        while self.configs.len() > 1 && self.configs.front().map(|c| c.id) < oldest {
            self.configs.pop_front();
        }
        Ok(true)
    }
}
