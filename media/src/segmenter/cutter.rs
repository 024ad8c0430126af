//! Cuts the open segment into parts, and says where it ends.
//!
//! In: frames with their time on the segmenting clock (the video track's decode time; the audio
//! track's where there is no video), after the [`super::Segmenter`] has decided which of them end a
//! segment. Out: part and close entries in which every part keeps PART-TARGET.
//!
//! A part ends before a frame that would exceed PART-TARGET. How long a frame lasts is known only
//! when the next one comes, so a part may end before frames that have already been passed on.

use super::counters::Counters;
use super::{Frame, Output};
use crate::manifest::{
    Entry, GridMark, Mark, Msn, PartEnd, PartNumber, SegmentClose, SegmentOpen, TrackMark,
    TrackTimes,
};
use crate::track::TrackId;

/// Frames of one segment; one more cuts it. Half of what a feed takes.
pub(super) const MAX_FRAMES: u32 = 16_384;

/// Parts of one segment; one more cuts it. Half of what a manifest takes.
pub(super) const MAX_PARTS: u32 = 1_024;

/// The share of PART-TARGET below which a part that is not exempt is counted short
/// (RFC 8216bis-22 section 4.4.4.9).
const FULL_PERCENT: u64 = 85;

/// The open segment and its open part.
#[derive(Debug)]
pub(super) struct Cutter {
    /// PART-TARGET in 90 kHz ticks.
    target: u64,
    part: PartNumber,
    open: Option<OpenSegment>,
    /// The push under way, if it has a name, and its last messages that parts have taken.
    mark: Option<Mark>,
    grid: Option<GridMark>,
}

#[derive(Debug)]
struct OpenSegment {
    msn: Msn,
    start: u64,
    frames: u32,
    bytes: u64,
    parts: u32,
    discontinuity: bool,
    /// Where the open part starts on the segmenting clock.
    part_start: u64,
    /// The frames of the open part in arrival order.
    items: Vec<Item>,
    audio_only: bool,
}

/// A frame as far as cutting goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    pub(super) track: TrackId,
    /// When it starts on the segmenting clock.
    pub(super) time: u64,
    /// Where it ends on its own clock, as far as is known.
    pub(super) end: u64,
    pub(super) key: bool,
    /// Where it was among the publisher's messages.
    pub(super) mark: TrackMark,
}

/// What a closed segment was.
#[derive(Debug, Clone, Copy)]
pub(super) struct Closed {
    pub(super) msn: Msn,
    pub(super) duration: u32,
    pub(super) bytes: u64,
    pub(super) discontinuity: bool,
}

impl Cutter {
    pub(super) fn new() -> Self {
        Self { target: 0, part: PartNumber(1), open: None, mark: None, grid: None }
    }

    /// Goes on after the parts of an earlier home.
    pub(super) fn take_over(next_part: PartNumber, mark: Option<Mark>) -> Self {
        Self { part: next_part, mark, ..Self::new() }
    }

    /// The frames that follow are of this push; 0 is one without a name, whose parts get no mark.
    pub(super) fn identify(&mut self, publish: u64) {
        let part = self.part;
        let mark = Mark { part, publish, video: None, audio: None, grid: None };
        self.mark = (publish != 0).then_some(mark);
    }

    /// Where the push is whose parts were ended last.
    pub(super) fn mark(&self) -> Option<Mark> {
        self.mark
    }

    /// The grid that video stamps snap to now.
    pub(super) fn set_grid(&mut self, grid: Option<GridMark>) {
        self.grid = grid;
    }

    /// Sets PART-TARGET in milliseconds; it holds for all parts from here on.
    pub(super) fn set_target(&mut self, part_target_ms: u32) {
        self.target = u64::from(part_target_ms) * 90;
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// When the open segment started.
    pub(super) fn start(&self) -> Option<u64> {
        self.open.as_ref().map(|s| s.start)
    }

    /// PART-TARGET in ticks.
    pub(super) fn target(&self) -> u64 {
        self.target
    }

    /// How long the open segment is at `time`, in ticks.
    pub(super) fn length(&self, time: u64) -> u64 {
        self.open.as_ref().map_or(0, |s| time.saturating_sub(s.start))
    }

    /// Whether the open segment takes no further frame.
    pub(super) fn is_full(&self) -> bool {
        self.open.as_ref().is_some_and(|s| s.frames >= MAX_FRAMES || s.parts >= MAX_PARTS)
    }

    /// The number of the next part.
    pub(super) fn next_part(&self) -> PartNumber {
        self.part
    }

    /// Opens a segment whose first frame comes at `time`.
    pub(super) fn open(&mut self, open: &SegmentOpen, time: u64, audio_only: bool) {
        self.open = Some(OpenSegment {
            msn: open.msn,
            start: time,
            frames: 0,
            bytes: 0,
            parts: 0,
            discontinuity: open.discontinuity,
            part_start: time,
            items: Vec::new(),
            audio_only,
        });
    }

    /// Ends the parts that end before a frame that comes at `time` and is expected to last
    /// `expected` ticks.
    pub(super) fn advance(
        &mut self,
        time: u64,
        expected: u64,
        counters: &mut Counters,
        out: &mut Vec<Output>,
    ) {
        self.split(time, false, counters, out);
        let Some(segment) = &self.open else { return };
        if !segment.items.is_empty() && time + expected > segment.part_start + self.target {
            let whole = segment.items.len();
            self.end_part(whole, time, false, counters, out);
        }
    }

    /// Adds a frame to the open segment.
    pub(super) fn add(&mut self, item: Item, frame: Frame, out: &mut Vec<Output>) {
        let Some(segment) = &mut self.open else { return };
        segment.frames += 1;
        segment.bytes += frame.payload.len() as u64;
        segment.items.push(item);
        out.push(Output::Frame { msn: segment.msn, frame });
    }

    /// The open part's last video frame lasts until `ticks`, as is known now.
    pub(super) fn video_ends(&mut self, ticks: u64) {
        let Some(segment) = &mut self.open else { return };
        if let Some(last) = segment.items.iter_mut().rev().find(|i| i.track == TrackId::Video) {
            last.end = ticks;
        }
    }

    /// Closes the open segment at `time`, declaring at most `longest` ticks.
    pub(super) fn close(
        &mut self,
        time: u64,
        longest: u64,
        counters: &mut Counters,
        out: &mut Vec<Output>,
    ) -> Option<Closed> {
        self.split(time, true, counters, out);
        let items = self.open.as_ref()?.items.len();
        if items > 0 {
            self.end_part(items, time, true, counters, out);
        }
        let segment = self.open.take()?;
        let length = time.saturating_sub(segment.start).max(1);
        if length > longest {
            counters.clamped_segments += 1;
        }
        let duration = u32::try_from(length.min(longest)).unwrap_or(u32::MAX);
        out.push(Output::Entry(Entry::Close(SegmentClose { msn: segment.msn, duration })));
        counters.segments += 1;
        Some(Closed {
            msn: segment.msn,
            duration,
            bytes: segment.bytes,
            discontinuity: segment.discontinuity,
        })
    }

    /// Ends parts before frames of the open part while that part, lasting to `time`, would exceed
    /// PART-TARGET. `closing` is set where nothing follows in this segment.
    fn split(&mut self, time: u64, closing: bool, counters: &mut Counters, out: &mut Vec<Output>) {
        while let Some(segment) = &self.open
            && time > segment.part_start + self.target
            && let Some((index, at)) = self.split_point(segment, time, closing)
        {
            self.end_part(index, at, false, counters, out);
        }
    }

    /// Before which frame of the open part it must end, and when that is.
    ///
    /// Before its last video frame, if that gives a full part. Otherwise that frame is a long one,
    /// and the part ends as late as it can, among the audio that came since; but audio alone does
    /// not end a segment where one part can hold it and the video frame.
    fn split_point(&self, segment: &OpenSegment, time: u64, closing: bool) -> Option<(usize, u64)> {
        let start = segment.part_start;
        let reach = start + self.target;
        let later = || segment.items.iter().enumerate().skip(1);
        let within = |item: &Item| item.time > start && item.time <= reach;
        let video = later().rfind(|(_, i)| i.track == TrackId::Video && within(i));
        let video = video.filter(|(_, i)| {
            let full = (i.time - start) * 100 >= self.target * FULL_PERCENT;
            full || (closing && time - i.time <= self.target)
        });
        let any = || later().rfind(|(_, i)| within(i));
        let beyond = || later().find(|(_, i)| i.time > reach);
        video.or_else(any).or_else(beyond).map(|(index, item)| (index, item.time))
    }

    /// Ends the open part before its frame `index`, which comes at `at`.
    fn end_part(
        &mut self,
        index: usize,
        at: u64,
        last: bool,
        counters: &mut Counters,
        out: &mut Vec<Output>,
    ) {
        let Some(segment) = &mut self.open else { return };
        let kept = segment.items.split_off(index);
        let items = std::mem::replace(&mut segment.items, kept);
        let mut end = TrackTimes::default();
        for item in &items {
            end.set(item.track, item.end);
        }
        let independent =
            items.iter().any(|i| i.key && (segment.audio_only || i.track == TrackId::Video));
        let length = at.saturating_sub(segment.part_start).max(1);
        if length > self.target {
            counters.irregular_parts += 1;
        } else if !last && !independent && length * 100 < self.target * FULL_PERCENT {
            counters.short_parts += 1;
        }
        // A segment has at most `MAX_FRAMES` frames.
        let frames_end = segment.frames - segment.items.len() as u32;
        out.push(Output::Entry(Entry::Part(PartEnd {
            msn: segment.msn,
            part: self.part,
            frames_end,
            duration: length.min(self.target) as u32,
            independent,
            end,
        })));
        if let Some(mark) = &mut self.mark {
            for item in &items {
                match item.track {
                    TrackId::Video => mark.video = Some(item.mark),
                    TrackId::Audio => mark.audio = Some(item.mark),
                }
            }
            (mark.part, mark.grid) = (self.part, self.grid);
            out.push(Output::Entry(Entry::Mark(*mark)));
        }
        self.part = self.part.next();
        segment.parts += 1;
        segment.part_start = at;
        counters.parts += 1;
    }
}
