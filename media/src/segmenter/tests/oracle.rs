//! Checks everything a segmenter says against the rules, written down a second time.
//!
//! What it says goes through a real feed, every part through the fMP4 renderer, and the media
//! playlist through the playlist checker.

use crate::feed::{Feed, Limits, Lookup};
use crate::fmp4;
use crate::frame::Frame;
use crate::manifest::{
    Constants, Entry, Manifest, Msn, PartEnd, SegmentMeta, SegmentOpen, WindowStart,
};
use crate::playlist::{self, Form, check::Checker};
use crate::segmenter::{Counters, Output, Segmenter, Settings};
use crate::track::TrackId;

/// A closed segment with its frames.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) open: SegmentOpen,
    pub(super) parts: Vec<PartEnd>,
    pub(super) frames: Vec<Frame>,
    pub(super) duration: u32,
}

impl Segment {
    pub(super) fn starts_with_key(&self, audio_only: bool) -> bool {
        let opener = &self.frames[0];
        opener.key && (audio_only || opener.track == TrackId::Video)
    }
}

/// Follows one segmenter.
pub(super) struct Oracle {
    settings: Settings,
    manifest: Manifest,
    feed: Feed,
    batch: Vec<Entry>,
    batches: u64,
    checker: Checker,
    /// Playlist rules that were broken, each with the number of segments then.
    pub(super) broken: Vec<(&'static str, String)>,
    pub(super) segments: Vec<Segment>,
    pub(super) entries: Vec<Entry>,
    frames: Vec<Frame>,
    emitted: u64,
    last_dts: [Option<u64>; 2],
    next_part: u64,
    constants: Option<Constants>,
    pub(super) forced: u64,
    /// Parts that were said after a frame that does not belong to them.
    pub(super) late_parts: u64,
    /// Parts whose video frames lie further apart than the part is said to be long.
    pub(super) squeezed: u64,
    /// Times that the video track starts later than it was said to end, without a discontinuity.
    pub(super) holes: u64,
    video_end: Option<u64>,
    removed_discontinuities: u64,
    listed: usize,
    base: u64,
}

impl Oracle {
    pub(super) fn new(settings: Settings, segmenter: &Segmenter) -> Self {
        Self {
            settings,
            manifest: Manifest::new(segmenter.header()),
            feed: Feed::new(segmenter.header(), Limits::default()),
            batch: Vec::new(),
            batches: 0,
            checker: Checker::new(),
            broken: Vec::new(),
            segments: Vec::new(),
            entries: Vec::new(),
            frames: Vec::new(),
            emitted: 0,
            last_dts: [None; 2],
            next_part: 1,
            constants: None,
            forced: 0,
            late_parts: 0,
            squeezed: 0,
            holes: 0,
            video_end: None,
            removed_discontinuities: 0,
            listed: 0,
            base: segmenter.next_msn().0,
        }
    }

    pub(super) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Takes what one call has said.
    pub(super) fn take(&mut self, out: &mut Vec<Output>) {
        for output in out.drain(..) {
            match output {
                Output::Frame { msn, frame } => {
                    self.flush();
                    assert!(self.feed.push_next(msn, frame.clone()).unwrap());
                    self.frame(msn, frame);
                }
                Output::Entry(entry) => {
                    self.entry(&entry);
                    self.batch.push(entry.clone());
                    self.entries.push(entry);
                }
            }
        }
        self.flush();
    }

    /// A batch is complete: viewers see what it says, all at once.
    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let only_part = matches!(self.batch[..], [Entry::Part(_)]);
        self.feed.apply(std::mem::take(&mut self.batch)).unwrap();
        self.batches += 1;
        // One part more changes little: every third such batch is enough, and the tests are quick.
        if only_part && !self.batches.is_multiple_of(3) {
            return;
        }
        assert_eq!(*self.feed.manifest(), self.manifest, "published at once");
        if let Some(part) = self.manifest.segments().iter().rev().find_map(|s| s.parts.last()) {
            let found = self.feed.part(self.manifest.header().epoch, part.part);
            assert!(matches!(found, Lookup::Ready(_)));
        }
        if !self.manifest.is_playable() {
            return;
        }
        let text = match playlist::media(&self.manifest, Form::Full) {
            Ok(text) => text,
            Err(e) => panic!("{e}"),
        };
        if let Err(violations) = self.checker.observe(&text) {
            self.broken.extend(violations.into_iter().map(|v| (v.rule, v.detail)));
        }
    }

    fn frame(&mut self, msn: Msn, frame: Frame) {
        let open = self.manifest.last().expect("a frame comes in an open segment");
        assert_eq!((open.open.msn, open.duration), (msn, None), "frame outside of its segment");
        assert!(open.config.track(frame.track).is_some(), "frame of an unknown track");
        let slot = usize::from(frame.track == TrackId::Audio);
        // The sample rate may change with the configuration; then the numbers start on a new clock.
        if let Some(last) = self.last_dts[slot] {
            assert!(frame.dts > last, "{:?} goes from {last} to {}", frame.track, frame.dts);
        }
        assert!(frame.dts as i128 + i128::from(frame.cts) >= 0, "presented before the room began");
        self.last_dts[slot] = Some(frame.dts);
        self.emitted += 1;
        self.frames.push(frame);
    }

    fn entry(&mut self, entry: &Entry) {
        if let Entry::Window(window) = entry {
            self.window(*window);
        }
        if let Entry::Close(close) = entry {
            let open = self.manifest.last().unwrap().clone();
            self.close(&open, close.duration);
        }
        self.manifest.apply(entry).unwrap_or_else(|e| panic!("{e}: {entry:?}"));
        match entry {
            Entry::Header(header) => {
                assert!(self.constants.is_none() || self.constants == header.constants);
                self.constants = header.constants;
            }
            Entry::Open(open) => self.open(open),
            Entry::Part(part) => self.part(part),
            _ => {}
        }
    }

    fn open(&mut self, open: &SegmentOpen) {
        assert!(self.frames.is_empty());
        assert_eq!(open.first_part.0, self.next_part);
        let Some(last) = self.segments.last() else {
            assert!(!open.discontinuity, "nothing came before");
            assert_eq!(open.msn.0, self.base);
            return;
        };
        assert_eq!(open.msn, last.open.msn.next());
        assert!(open.pdt_ms >= last.open.pdt_ms, "wall time goes back");
        if open.discontinuity {
            self.video_end = None;
        }
        let config = &self.manifest.last().unwrap().config;
        if config.id != last.open.config {
            assert!(open.discontinuity, "a configuration changes without a discontinuity");
            self.last_dts[1] = None;
        }
        if let (Some(was), Some(start)) = (self.last_dts[0], open.start.video) {
            assert!(start > was);
        }
    }

    fn part(&mut self, part: &PartEnd) {
        assert_eq!(part.part.0, self.next_part);
        self.next_part += 1;
        let meta = self.manifest.last().unwrap();
        let index = meta.parts.len() - 1;
        let from = index.checked_sub(1).map_or(0, |i| meta.parts[i].frames_end) as usize;
        let frames = &self.frames[from..part.frames_end as usize];
        assert!(part.duration > 0);
        let audio_only = meta.config.track(TrackId::Video).is_none();
        let key = |f: &Frame| f.key && (audio_only || f.track == TrackId::Video);
        assert_eq!(part.independent, frames.iter().any(key), "INDEPENDENT of {part:?}");
        // Renders: every sample starts within the part's bounds and lasts.
        fmp4::part(&meta.config, part.part, meta.part_start(index), part.end, frames).unwrap();
        for track in [TrackId::Video, TrackId::Audio] {
            let last = frames.iter().rfind(|f| f.track == track).map(|f| f.dts);
            assert_eq!(last.is_some(), part.end.get(track).is_some(), "end of {track:?}");
            assert!(last.is_none_or(|l| l < part.end.get(track).unwrap()), "a sample of no length");
        }
        let mut video = frames.iter().filter(|f| f.track == TrackId::Video).map(|f| f.dts);
        if let Some(first) = video.next() {
            let last = video.next_back().unwrap_or(first);
            self.squeezed += u64::from(last - first > u64::from(part.duration));
            self.holes += u64::from(self.video_end.is_some_and(|end| first > end));
            self.video_end = part.end.video;
        }
        self.late_parts += u64::from(self.frames.len() > part.frames_end as usize);
    }

    fn close(&mut self, meta: &SegmentMeta, duration: u32) {
        let constants = self.constants.expect("constants come before the first close");
        let frames = std::mem::take(&mut self.frames);
        assert_eq!(meta.frames() as usize, frames.len(), "parts cover all frames");
        let target_ticks = constants.part_target_ms * 90;
        assert!(meta.parts.iter().all(|p| p.duration <= target_ticks), "PART-TARGET exceeded");
        let rounded = (duration + 45_000) / 90_000;
        assert!(rounded <= constants.target_duration_s, "EXTINF {duration} exceeds the target");
        let audio_only = meta.config.track(TrackId::Video).is_none();
        let segment = Segment { open: meta.open, parts: meta.parts.clone(), frames, duration };
        if segment.starts_with_key(audio_only) {
            assert!(meta.starts_independent());
        } else {
            self.forced += 1;
        }
        self.segments.push(segment);
        self.listed += 1;
    }

    fn window(&mut self, window: WindowStart) {
        let first = self.segments.last().map_or(self.base, |s| s.open.msn.0 + 1);
        assert!(window.first.0 <= first);
        let gone = (window.first.0 - self.base) as usize;
        let discontinuities =
            self.segments[..gone].iter().filter(|s| s.open.discontinuity).count() as u64;
        let base = crate::segmenter::listing::discontinuity_base(Msn(self.base));
        assert_eq!(window.discontinuity_sequence, base + discontinuities);
        assert!(discontinuities >= self.removed_discontinuities);
        self.removed_discontinuities = discontinuities;
        if gone > 0 {
            let rest = &self.segments[gone..];
            let ticks: u64 = rest.iter().map(|s| u64::from(s.duration)).sum();
            let target = u64::from(self.constants.unwrap().target_duration_s) * 90_000;
            assert!(rest.len() >= self.settings.window, "too few segments listed");
            assert!(ticks >= 6 * target + u64::from(rest[0].duration), "too little listed");
        }
        self.listed = self.segments.len() - gone;
    }

    /// Checks what must hold after every call.
    pub(super) fn check(&self, counters: &Counters) {
        assert_eq!(counters.emitted, self.emitted);
        assert_eq!(counters.pushed, counters.emitted + counters.dropped() + counters.waiting);
        assert_eq!(counters.segments as usize, self.segments.len());
        assert!(self.listed <= 1_025, "{} listed", self.listed);
        for (rule, detail) in &self.broken {
            // Declared times are untrue only where that was counted.
            let counted = match *rule {
                "parts-are-the-segment" => counters.irregular_parts + counters.clamped_segments,
                "pdt" => counters.clamped_segments,
                _ => 0,
            };
            assert!(counted > 0, "{rule}: {detail}");
        }
    }

    /// Checks what holds for a steady publisher: every part full, declared times exact.
    pub(super) fn check_steady(&self, counters: &Counters) {
        let constants = self.constants.unwrap();
        assert_eq!((counters.short_parts, counters.irregular_parts), (0, 0), "{counters:?}");
        assert_eq!((self.late_parts, self.squeezed), (0, 0), "late or squeezed parts");
        let least = u64::from(constants.part_target_ms) * 90 * 85 / 100;
        for segment in &self.segments {
            let sum: u32 = segment.parts.iter().map(|p| p.duration).sum();
            assert_eq!(sum, segment.duration, "segment {}", segment.open.msn);
            let (_, others) = segment.parts.split_last().unwrap();
            for part in others.iter().filter(|p| !p.independent) {
                assert!(u64::from(part.duration) >= least, "{part:?} of {constants:?}");
            }
        }
        for pair in self.segments.windows(2) {
            let step = pair[1].open.pdt_ms - pair[0].open.pdt_ms;
            let duration = u64::from(pair[0].duration) / 90;
            if !pair[1].open.discontinuity {
                assert!(step.abs_diff(duration) <= 1, "{step} and {duration}");
            }
        }
    }
}
