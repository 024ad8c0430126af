//! The bytes of a feed: segments with their frames and published parts, oldest first.
//!
//! Bytes of a segment stay for three target durations after it has left the list (RFC 8216bis
//! section 6.2.2, availability), measured in media time so that no clock is needed.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Counters, Cursor, Error, Part, Read, SegmentFrames, Start, Timed};
use crate::frame::Frame;
use crate::manifest::{
    Config, Epoch, Msn, PartEnd, PartNumber, SegmentOpen, SegmentSeal, Status, TrackTimes,
};
use crate::track::TrackId;

/// Frames of one segment: 10 s at 240 fps with 94 audio frames a second, several times over. More
/// is a peer that counts wrong.
const MAX_FRAMES_PER_SEGMENT: u32 = 32_768;

/// Parts kept that a later home did not know of and that viewers may still ask for; the oldest leave
/// first.
const MAX_VOID_PARTS: usize = 64;

/// The same of whole segments.
const MAX_VOID_SEGMENTS: usize = 4;

#[derive(Debug)]
pub(super) struct Store {
    segments: VecDeque<Stored>,
    void_parts: VecDeque<Arc<Part>>,
    void_segments: VecDeque<(Epoch, Msn, Vec<Arc<Part>>)>,
    max_bytes: usize,
    counters: Counters,
}

#[derive(Debug)]
struct Stored {
    open: SegmentOpen,
    config: Arc<Config>,
    frames: Vec<Frame>,
    bytes: usize,
    /// The published parts, and where each starts.
    listed: Vec<(PartEnd, TrackTimes)>,
    /// Those of them whose bytes are here, from the first on.
    parts: Vec<Arc<Part>>,
    close: Option<Closed>,
}

/// The end of a segment.
#[derive(Debug, Clone, Copy)]
struct Closed {
    duration: u32,
    /// Its number of frames.
    total: u32,
    sealed: Option<Epoch>,
}

impl Stored {
    fn total(&self) -> Option<u32> {
        self.close.map(|close| close.total)
    }

    fn duration(&self) -> u64 {
        self.close.map_or(0, |close| u64::from(close.duration))
    }

    fn sealed(&self) -> Option<Epoch> {
        self.close.and_then(|close| close.sealed)
    }

    /// Makes the published parts whose bytes are here. Returns whether there was one.
    fn make_parts(&mut self) -> bool {
        let made = self.parts.len();
        while let Some((meta, start)) = self.listed.get(self.parts.len()) {
            let from = self.parts.last().map_or(0, |p| p.meta.frames_end);
            let range = usize::try_from(from).unwrap_or(usize::MAX)
                ..usize::try_from(meta.frames_end).unwrap_or(usize::MAX);
            let Some(frames) = self.frames.get(range) else { break };
            let config = Arc::clone(&self.config);
            let part = Part::new(self.open.epoch, *meta, *start, config, frames.to_vec());
            self.parts.push(Arc::new(part));
        }
        self.parts.len() > made
    }

    /// Whether every part of the closed segment is here.
    fn has_all_parts(&self) -> bool {
        self.close.is_some() && self.parts.last().map(|p| p.meta.frames_end) == self.total()
    }

    fn len(&self) -> u32 {
        u32::try_from(self.frames.len()).unwrap_or(u32::MAX)
    }

    fn is_whole(&self) -> bool {
        self.total().is_some_and(|total| self.len() >= total)
    }

    /// The index of the newest frame at which decoding can start.
    fn last_start(&self) -> Option<u32> {
        let video = self.config.track(TrackId::Video).is_some();
        let found =
            self.frames.iter().rposition(|f| f.key && (f.track == TrackId::Video || !video));
        found.and_then(|i| u32::try_from(i).ok())
    }

    /// The index of the first frame at or after `index` at which decoding can start.
    fn next_start(&self, index: u32) -> Option<u32> {
        let video = self.config.track(TrackId::Video).is_some();
        let skip = usize::try_from(index).ok()?;
        let found = self
            .frames
            .iter()
            .skip(skip)
            .position(|f| f.key && (f.track == TrackId::Video || !video));
        found.and_then(|i| u32::try_from(i + skip).ok())
    }
}

impl Store {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            segments: VecDeque::new(),
            void_parts: VecDeque::new(),
            void_segments: VecDeque::new(),
            max_bytes,
            counters: Counters::default(),
        }
    }

    pub(super) fn open(&mut self, open: SegmentOpen, config: Arc<Config>) {
        self.segments.push_back(Stored {
            open,
            config,
            frames: Vec::new(),
            bytes: 0,
            listed: Vec::new(),
            parts: Vec::new(),
            close: None,
        });
    }

    pub(super) fn close(&mut self, msn: Msn, duration: u32, total: u32) {
        if let Some(segment) = self.find_mut(msn) {
            segment.close = Some(Closed { duration, total, sealed: None });
        }
    }

    /// Ends a segment after its first `total` frames, whatever an earlier home sent beyond.
    pub(super) fn seal(&mut self, seal: SegmentSeal, total: u32) {
        self.void_from(seal.msn.next());
        let Some(segment) = self.find_mut(seal.msn) else { return };
        let whole = segment.has_all_parts().then(|| segment.parts.clone());
        let name = (segment.open.epoch, seal.msn);
        segment.listed.retain(|(part, _)| part.part < seal.next_part);
        let void = segment.parts.split_off(segment.parts.len().min(segment.listed.len()));
        segment.frames.truncate(usize::try_from(total).unwrap_or(usize::MAX));
        let kept = segment.frames.iter().map(|f| f.payload.len()).sum();
        let dropped = std::mem::replace(&mut segment.bytes, kept).saturating_sub(kept);
        let (duration, sealed) = (seal.duration, Some(seal.epoch));
        segment.close = Some(Closed { duration, total, sealed });
        self.counters.bytes -= dropped;
        self.keep_void(name, whole, void);
    }

    /// Drops the segments from `msn` on, which a later home did not know of.
    pub(super) fn void_from(&mut self, msn: Msn) {
        while let Some(segment) = self.segments.pop_back_if(|s| s.open.msn >= msn) {
            self.counters.bytes -= segment.bytes;
            let whole = segment.has_all_parts().then(|| segment.parts.clone());
            self.keep_void((segment.open.epoch, segment.open.msn), whole, segment.parts);
        }
    }

    fn keep_void(
        &mut self,
        (epoch, msn): (Epoch, Msn),
        whole: Option<Vec<Arc<Part>>>,
        parts: Vec<Arc<Part>>,
    ) {
        self.void_segments.extend(whole.map(|parts| (epoch, msn, parts)));
        self.void_parts.extend(parts);
        let excess = self.void_segments.len().saturating_sub(MAX_VOID_SEGMENTS);
        self.void_segments.drain(..excess);
        let excess = self.void_parts.len().saturating_sub(MAX_VOID_PARTS);
        self.void_parts.drain(..excess);
    }

    /// The epoch that opened segment `msn`, if it is here.
    pub(super) fn epoch_of(&self, msn: Msn) -> Option<Epoch> {
        self.find(msn).map(|s| s.open.epoch)
    }

    /// The newest segment whose bytes are all here.
    pub(super) fn newest_whole(&self) -> Option<Msn> {
        self.segments.iter().rev().find(|s| s.is_whole()).map(|s| s.open.msn)
    }

    /// Adds a frame; none if its segment is not open yet. Says whether a published part became whole.
    pub(super) fn push(
        &mut self,
        msn: Msn,
        index: u32,
        frame: Frame,
    ) -> Result<Option<bool>, Error> {
        let bytes = frame.payload.len();
        let Some(segment) = self.find_mut(msn) else {
            // Before the oldest: it has left the store and nobody wants it. After: not open yet.
            let left = self.segments.front().is_some_and(|s| msn < s.open.msn);
            return Ok(left.then_some(false));
        };
        let expected = segment.len();
        if index < expected || segment.total().is_some_and(|total| index >= total) {
            return Ok(Some(false));
        }
        if index > expected {
            return Err(Error::Hole { msn, index, expected });
        }
        if index >= MAX_FRAMES_PER_SEGMENT {
            return Err(Error::SegmentTooLong(msn));
        }
        segment.frames.push(frame);
        segment.bytes += bytes;
        let completes = segment.make_parts();
        self.counters.bytes += bytes;
        Ok(Some(completes))
    }

    pub(super) fn len(&self, msn: Msn) -> u32 {
        self.find(msn).map_or(0, Stored::len)
    }

    /// Whether the first `frames_end` frames of `msn` are here; none when the segment is not.
    pub(super) fn has(&self, msn: Msn, frames_end: u32) -> Option<bool> {
        self.find(msn).map(|s| s.len() >= frames_end)
    }

    pub(super) fn publish_part(&mut self, meta: &PartEnd) {
        let Some(segment) = self.find_mut(meta.msn) else { return };
        let start = match segment.listed.last() {
            None => segment.open.start,
            Some((before, start)) => TrackTimes {
                video: before.end.video.or(start.video),
                audio: before.end.audio.or(start.audio),
            },
        };
        segment.listed.push((*meta, start));
        if !segment.make_parts() {
            self.counters.published_hollow += 1;
        }
    }

    /// Drops what no one may ask for any more: segments before `first` once more than `keep` ticks
    /// (90 kHz) of media lie between them and `first`, and the oldest over the byte limit.
    pub(super) fn retain(&mut self, first: Msn, keep: u64) {
        let unlisted = self.segments.iter().take_while(|s| s.open.msn < first);
        let mut excess: u64 = unlisted.map(Stored::duration).sum();
        while let Some(oldest) = self.segments.front() {
            let listed = oldest.open.msn >= first;
            let duration = oldest.duration();
            let over_bytes = self.counters.bytes > self.max_bytes && self.segments.len() > 2;
            let expired = !listed && excess.saturating_sub(duration) >= keep;
            if !expired && !over_bytes {
                break;
            }
            if listed {
                self.counters.evicted_listed += 1;
            }
            excess = excess.saturating_sub(duration);
            self.counters.bytes -= oldest.bytes;
            self.segments.pop_front();
        }
    }

    pub(super) fn part(&self, epoch: Epoch, number: PartNumber) -> Option<Arc<Part>> {
        if let Some(void) =
            self.void_parts.iter().find(|p| p.epoch == epoch && p.meta.part == number)
        {
            return Some(Arc::clone(void));
        }
        // Part numbers rise through the stream under one epoch, so walk back from the newest.
        for segment in self.segments.iter().rev().filter(|s| s.open.epoch == epoch) {
            if segment.open.first_part <= number {
                return segment.parts.iter().find(|p| p.meta.part == number).cloned();
            }
        }
        None
    }

    pub(super) fn segment(&self, epoch: Epoch, msn: Msn) -> Option<Vec<Arc<Part>>> {
        if let Some((_, _, parts)) =
            self.void_segments.iter().find(|(e, m, _)| (*e, *m) == (epoch, msn))
        {
            return Some(parts.clone());
        }
        let named = |s: &&Stored| s.sealed().unwrap_or(s.open.epoch) == epoch;
        let segment = self.find(msn).filter(named)?;
        segment.has_all_parts().then(|| segment.parts.clone())
    }

    pub(super) fn frames(&self, msn: Msn, index: u32) -> Option<SegmentFrames> {
        let segment = self.find(msn)?;
        let skip = usize::try_from(index).unwrap_or(usize::MAX);
        Some(SegmentFrames {
            epoch: segment.open.epoch,
            sealed: segment.sealed(),
            frames: segment.frames.get(skip..).unwrap_or_default().to_vec(),
            total: segment.total(),
        })
    }

    pub(super) fn cursor(&self, start: Start) -> Option<Cursor> {
        match start {
            Start::LatestKey => {
                for (i, segment) in self.segments.iter().enumerate().rev() {
                    // A key frame further back is of use only if every frame after it is here.
                    if i + 1 < self.segments.len() && !segment.is_whole() {
                        return None;
                    }
                    if let Some(index) = segment.last_start() {
                        return Some(Cursor::at(segment.open.msn, index));
                    }
                }
                None
            }
            Start::NextKey => {
                let last = self.segments.back()?;
                Some(Cursor::at(last.open.msn, last.len()))
            }
        }
    }

    pub(super) fn read(&self, cursor: &mut Cursor, max_frames: usize, status: Status) -> Read {
        let mut frames: Vec<Timed> = Vec::new();
        loop {
            let Some(segment) = self.find(cursor.msn) else {
                if !frames.is_empty() {
                    return Read::Frames(frames);
                }
                return match self.segments.front() {
                    Some(oldest) if oldest.open.msn > cursor.msn => Read::Behind,
                    _ if status == Status::Ended => Read::Ended,
                    _ => Read::Waiting,
                };
            };
            if cursor.epoch.replace(segment.open.epoch).is_some_and(|e| e != segment.open.epoch) {
                cursor.index = 0;
            }
            let skip = usize::try_from(cursor.index).unwrap_or(usize::MAX);
            for frame in segment.frames.iter().skip(skip) {
                if frames.len() >= max_frames {
                    break;
                }
                let discontinuity = segment.open.discontinuity && cursor.index == 0;
                cursor.index += 1;
                if cursor.seen.get(frame.track).is_some_and(|seen| frame.dts <= seen) {
                    continue;
                }
                cursor.seen.set(frame.track, frame.dts);
                frames.push(Timed {
                    frame: frame.clone(),
                    msn: cursor.msn,
                    config: Arc::clone(&segment.config),
                    discontinuity,
                });
            }
            if frames.len() >= max_frames {
                return Read::Frames(frames);
            }
            if segment.total().is_some_and(|total| cursor.index >= total) {
                (cursor.msn, cursor.index, cursor.epoch) = (cursor.msn.next(), 0, None);
                continue;
            }
            if !frames.is_empty() {
                return Read::Frames(frames);
            }
            let newer = self
                .segments
                .back()
                .is_some_and(|s| s.open.msn > cursor.msn && !s.frames.is_empty());
            return if newer { Read::Stalled } else { Read::Waiting };
        }
    }

    pub(super) fn resume_point(&self) -> Option<(Msn, u32)> {
        let incomplete = self.segments.iter().find(|s| !s.is_whole());
        incomplete.or(self.segments.back()).map(|s| (s.open.msn, s.len()))
    }

    /// Moves the cursor to the first frame after its segment at which decoding can start.
    pub(super) fn skip(&self, cursor: &mut Cursor) -> bool {
        for segment in self.segments.iter().filter(|s| s.open.msn > cursor.msn) {
            if let Some(index) = segment.next_start(0) {
                *cursor = Cursor::at(segment.open.msn, index);
                return true;
            }
        }
        false
    }

    pub(super) fn counters(&self) -> Counters {
        self.counters
    }

    fn find(&self, msn: Msn) -> Option<&Stored> {
        let index = self.segments.binary_search_by_key(&msn, |s| s.open.msn).ok()?;
        self.segments.get(index)
    }

    fn find_mut(&mut self, msn: Msn) -> Option<&mut Stored> {
        let index = self.segments.binary_search_by_key(&msn, |s| s.open.msn).ok()?;
        self.segments.get_mut(index)
    }
}
