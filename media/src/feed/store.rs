//! The bytes of a feed: segments with their frames and published parts, oldest first.
//!
//! Bytes of a segment stay for three target durations after it has left the list (RFC 8216bis
//! section 6.2.2, availability), measured in media time so that no clock is needed.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Counters, Cursor, Error, Part, Read, SegmentFrames, Start, Timed};
use crate::frame::Frame;
use crate::manifest::{
    Config, Epoch, Msn, PartEnd, PartNumber, SegmentClose, SegmentOpen, Status, TrackTimes,
};
use crate::track::TrackId;

/// Frames of one segment: 10 s at 240 fps with 94 audio frames a second, several times over. More
/// is a peer that counts wrong.
const MAX_FRAMES_PER_SEGMENT: u32 = 32_768;

#[derive(Debug)]
pub(super) struct Store {
    segments: VecDeque<Stored>,
    max_bytes: usize,
    counters: Counters,
}

#[derive(Debug)]
struct Stored {
    open: SegmentOpen,
    config: Arc<Config>,
    frames: Vec<Frame>,
    bytes: usize,
    parts: Vec<Arc<Part>>,
    part_start: TrackTimes,
    close: Option<(SegmentClose, u32)>,
}

impl Stored {
    fn total(&self) -> Option<u32> {
        self.close.map(|(_, total)| total)
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
        Self { segments: VecDeque::new(), max_bytes, counters: Counters::default() }
    }

    pub(super) fn open(&mut self, open: SegmentOpen, config: Arc<Config>) {
        self.segments.push_back(Stored {
            part_start: open.start,
            open,
            config,
            frames: Vec::new(),
            bytes: 0,
            parts: Vec::new(),
            close: None,
        });
    }

    pub(super) fn close(&mut self, close: SegmentClose, total: u32) {
        if let Some(segment) = self.find_mut(close.msn) {
            segment.close = Some((close, total));
        }
    }

    pub(super) fn push(&mut self, msn: Msn, index: u32, frame: Frame) -> Result<bool, Error> {
        let bytes = frame.payload.len();
        let Some(segment) = self.find_mut(msn) else {
            // Before the oldest: it has left the store and nobody wants it. After: not open yet.
            return Ok(self.segments.front().is_some_and(|s| msn < s.open.msn));
        };
        let expected = segment.len();
        if index < expected || segment.total().is_some_and(|total| index >= total) {
            return Ok(true);
        }
        if index > expected {
            return Err(Error::Hole { msn, index, expected });
        }
        if index >= MAX_FRAMES_PER_SEGMENT {
            return Err(Error::SegmentTooLong(msn));
        }
        segment.frames.push(frame);
        segment.bytes += bytes;
        self.counters.bytes += bytes;
        Ok(true)
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
        let from = segment.parts.last().map_or(0, |p| p.meta.frames_end);
        let range = usize::try_from(from).unwrap_or(usize::MAX)
            ..usize::try_from(meta.frames_end).unwrap_or(usize::MAX);
        let Some(frames) = segment.frames.get(range) else { return };
        let part = Part::new(
            segment.open.epoch,
            *meta,
            segment.part_start,
            Arc::clone(&segment.config),
            frames.to_vec(),
        );
        segment.part_start.video = meta.end.video.or(segment.part_start.video);
        segment.part_start.audio = meta.end.audio.or(segment.part_start.audio);
        segment.parts.push(Arc::new(part));
    }

    /// Drops what no one may ask for any more: segments before `first` once more than `keep` ticks
    /// (90 kHz) of media lie between them and `first`, and the oldest over the byte limit.
    pub(super) fn retain(&mut self, first: Msn, keep: u64) {
        let unlisted = self.segments.iter().take_while(|s| s.open.msn < first);
        let mut excess: u64 =
            unlisted.map(|s| u64::from(s.close.map_or(0, |(c, _)| c.duration))).sum();
        while let Some(oldest) = self.segments.front() {
            let listed = oldest.open.msn >= first;
            let duration = u64::from(oldest.close.map_or(0, |(c, _)| c.duration));
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
        // Part numbers rise through the stream under one epoch, so walk back from the newest.
        for segment in self.segments.iter().rev().filter(|s| s.open.epoch == epoch) {
            if segment.open.first_part <= number {
                return segment.parts.iter().find(|p| p.meta.part == number).cloned();
            }
        }
        None
    }

    pub(super) fn segment(&self, epoch: Epoch, msn: Msn) -> Option<Vec<Arc<Part>>> {
        let segment = self.find(msn).filter(|s| s.open.epoch == epoch)?;
        let published = segment.parts.last().map(|p| p.meta.frames_end);
        (segment.close.is_some() && published == segment.total()).then(|| segment.parts.clone())
    }

    pub(super) fn frames(&self, msn: Msn, index: u32) -> Option<SegmentFrames> {
        let segment = self.find(msn)?;
        let skip = usize::try_from(index).unwrap_or(usize::MAX);
        Some(SegmentFrames {
            epoch: segment.open.epoch,
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
                        return Some(Cursor { msn: segment.open.msn, index });
                    }
                }
                None
            }
            Start::NextKey => {
                let last = self.segments.back()?;
                Some(Cursor { msn: last.open.msn, index: last.len() })
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
            let skip = usize::try_from(cursor.index).unwrap_or(usize::MAX);
            for frame in segment.frames.iter().skip(skip).take(max_frames - frames.len()) {
                frames.push(Timed {
                    frame: frame.clone(),
                    msn: cursor.msn,
                    config: Arc::clone(&segment.config),
                    discontinuity: segment.open.discontinuity && cursor.index == 0,
                });
                cursor.index += 1;
            }
            if frames.len() >= max_frames {
                return Read::Frames(frames);
            }
            if segment.total().is_some_and(|total| cursor.index >= total) {
                *cursor = Cursor { msn: cursor.msn.next(), index: 0 };
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
                *cursor = Cursor { msn: segment.open.msn, index };
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
