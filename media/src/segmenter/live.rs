//! Samples of a running publish: placed on the timeline, then cut.
//!
//! The segmenting clock is the video track's decode time, or the audio track's where there is no
//! video. While video stalls and audio runs on, the clock runs on with the audio.

use super::cutter::Item;
use super::{Frame, Now, Output, Sample, Segmenter, audio_layout, index};
use crate::manifest::{Entry, SegmentOpen, TrackMark, TrackTimes};
use crate::timeline::audio::AudioPlace;
use crate::timeline::rate::Rate;
use crate::track::TrackId;

/// How far audio runs past the expected end of the last video frame, and how long that frame is ago,
/// before audio alone cuts parts and segments.
pub(super) const STALL_MS: u64 = 500;

/// How long the last video frame is ago where the open segment cannot last longer: with an audio
/// frame it fits between the cut and the longest EXTINF.
const LATE_MS: u64 = 80;

/// How much declared time a segment may lose before players are told of a discontinuity.
const LOSS_MS: u64 = 500;

/// Segments ended by key frames after which a forced cut is forgotten.
const FORGET_FORCED: u32 = 10;

/// The segmenting clock, in 90 kHz ticks of the room.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// The latest time of the clock.
    now: Option<u64>,
    /// By how much the clock is ahead of the track it follows: of video that joined behind audio,
    /// or of a publish that follows one whose audio ran on alone.
    ahead: u64,
    /// Where what was passed on is expected to end.
    tail: u64,
    video: Option<LastVideo>,
    anchor: Anchor,
    last_pdt_ms: u64,
    last_open: u64,
}

/// The wall time of a time of the clock.
#[derive(Debug, Default, Clone, Copy)]
struct Anchor {
    unix_ms: u64,
    time: u64,
}

#[derive(Debug, Clone, Copy)]
struct LastVideo {
    /// When it started on the clock.
    time: u64,
    /// Where it is expected to end on the video track.
    end: u64,
    interval: u64,
    mono_ms: u64,
    /// Where the audio was then, in 90 kHz ticks of its own positions.
    audio: Option<u64>,
}

impl Clock {
    /// The clock of an earlier home that ended its last segment, which began at `opened` with this
    /// wall time, after `length` ticks; the next frame is due at `next` on the track's clock.
    pub(super) fn take_over(next: u64, length: u64, pdt_ms: u64) -> Self {
        // Whatever lay between the clock and the track is over with the segment.
        let opened = next.saturating_sub(length);
        let end = opened + length;
        Self {
            now: Some(end.saturating_sub(1)),
            ahead: end - next,
            tail: end,
            video: None,
            anchor: Anchor { unix_ms: pdt_ms, time: opened },
            last_pdt_ms: pdt_ms,
            last_open: opened,
        }
    }

    /// The time of a frame that starts at `ticks`: later than all before it. `anew` is set where
    /// declared time need not fit what came before.
    fn time(&mut self, ticks: u64, anew: bool) -> u64 {
        if anew {
            self.ahead = self.after(ticks) - ticks;
        }
        self.after(ticks + self.ahead)
    }

    fn after(&self, time: u64) -> u64 {
        self.now.map_or(time, |now| time.max(now + 1))
    }

    pub(super) fn forget_tracks(&mut self) {
        self.video = None;
    }

    /// The wall time at `time`; a new anchor is set when `now` is given. Never goes back.
    fn pdt_ms(&mut self, time: u64, now: Option<Now>) -> u64 {
        let earliest = self.last_pdt_ms + time.saturating_sub(self.last_open) / 90;
        if let Some(now) = now {
            let before = if self.last_pdt_ms == 0 { 0 } else { earliest };
            self.anchor = Anchor { unix_ms: now.unix_ms.max(before), time };
        }
        self.last_pdt_ms = self.anchor.unix_ms + time.saturating_sub(self.anchor.time) / 90;
        self.last_open = time;
        self.last_pdt_ms
    }
}

/// Why a segment ends and another begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Boundary {
    /// A frame that can be decoded from.
    Key,
    /// The segment became too long, or too large, without one.
    Forced,
}

impl Segmenter {
    pub(super) fn push_live(&mut self, now: Now, sample: Sample, out: &mut Vec<Output>) {
        let slot = index(sample.track);
        let in_force = self.active.as_ref().and_then(|c| c.track(sample.track));
        let pending = in_force != self.configured[slot].as_ref();
        match sample.track {
            TrackId::Video if pending && !sample.key => self.counters.dropped_switching += 1,
            TrackId::Video => {
                self.seen_pending[slot] |= pending;
                self.push_video(now, sample, out);
            }
            TrackId::Audio if pending && self.has(TrackId::Video) => {
                self.seen_pending[slot] = true;
                self.counters.dropped_switching += 1;
            }
            TrackId::Audio => {
                self.seen_pending[slot] |= pending;
                self.push_audio(now, sample, out);
            }
        }
    }

    /// Puts configurations in force whose frames have come. Returns whether anything changed.
    fn switch(&mut self, start: u64) -> bool {
        let mut tracks = Vec::with_capacity(2);
        let mut changed = false;
        for (slot, id) in [(0, TrackId::Video), (1, TrackId::Audio)] {
            let old = self.active.as_ref().and_then(|c| c.track(id)).cloned();
            // A track that is new needs frames to count; one that has changed is known to have them.
            let new = self.configured[slot].clone();
            let new = new.filter(|_| old.is_some() || self.seen_pending[slot]);
            if let Some(track) = new.as_ref().filter(|new| old.as_ref() != Some(*new)) {
                changed = true;
                if id == TrackId::Audio {
                    let (rate, frame_samples) = audio_layout(track);
                    self.timeline.shape_audio(rate, frame_samples, start);
                } else {
                    self.timeline.video_mut().relearn();
                }
            }
            tracks.extend(new.or(old));
        }
        if !changed {
            return false;
        }
        self.activate(tracks);
        self.discontinuity_due = true;
        true
    }

    fn push_video(&mut self, now: Now, sample: Sample, out: &mut Vec<Output>) {
        let limit = self.latest();
        let (place, jumped) = self.timeline.place_video(sample.timestamp_ms, sample.cts_ms, limit);
        self.note_jump(jumped);
        self.counters.lost_grid += u64::from(place.lost_grid);
        let interval = self.timeline.video().interval();
        self.cutter.video_ends(place.dts);
        let switched = sample.key && self.switch(place.dts);
        let time = self.clock.time(place.dts, sample.key && self.starts_anew());
        match self.boundary(sample.key, switched, time, interval) {
            Some(boundary) => self.turn(now, boundary, time, Some(place.dts), out),
            None => self.cutter.advance(time, interval, &mut self.counters, out),
        }
        // If nothing follows it, a frame lasts no longer than a part can.
        let interval = interval.min(self.cutter.target());
        let end = place.dts + interval;
        self.clock.now = Some(time);
        self.clock.tail = time + interval;
        let audio = self.clock.video.and_then(|v| v.audio).and(self.timeline.audio());
        self.clock.video = Some(LastVideo {
            time,
            end,
            interval,
            mono_ms: now.mono_ms,
            audio: audio.map(|a| a.ticks(a.next())),
        });
        self.cutter.set_grid(self.timeline.video().grid());
        let mark = self.mark(&sample, place.dts);
        let item = Item { track: TrackId::Video, time, end, key: sample.key, mark };
        let frame = Frame {
            track: TrackId::Video,
            dts: place.dts,
            cts: place.cts,
            key: sample.key,
            payload: sample.payload,
        };
        self.emit(item, frame, out);
    }

    fn push_audio(&mut self, now: Now, sample: Sample, out: &mut Vec<Output>) {
        let switched = !self.has(TrackId::Video) && self.switch(self.timeline.end());
        let expected = self.timeline.audio().map_or(0, |a| a.next());
        let (place, jumped) = self.timeline.place_audio(sample.timestamp_ms, self.latest());
        self.note_jump(jumped);
        let dts = match place {
            AudioPlace::At(dts) => dts,
            AudioPlace::AfterGap(dts) => {
                self.counters.audio_gaps += 1;
                dts
            }
            AudioPlace::Overlap => {
                self.counters.dropped_overlap += 1;
                return;
            }
            AudioPlace::Early => {
                self.counters.dropped_early += 1;
                return;
            }
        };
        let Some(clock) = self.timeline.audio() else { return };
        let (start, end) = (clock.ticks(dts), dts + clock.frame_samples());
        let length = clock.ticks(end) - start;
        let gap = start.saturating_sub(clock.ticks(expected));
        let time = if self.has(TrackId::Video) {
            self.open_for_audio(now, dts, out);
            self.run_on(now, start, length, gap, dts, out)
        } else {
            let time = self.clock.time(start, self.starts_anew());
            match self.boundary(true, switched, time, length) {
                Some(boundary) => self.turn(now, boundary, time, None, out),
                None => self.cutter.advance(time, length, &mut self.counters, out),
            }
            self.clock.now = Some(time);
            self.clock.tail = time + length;
            time
        };
        let mark = self.mark(&sample, dts);
        let item = Item { track: TrackId::Audio, time, end, key: true, mark };
        let frame =
            Frame { track: TrackId::Audio, dts, cts: 0, key: true, payload: sample.payload };
        self.emit(item, frame, out);
    }

    /// Opens the segment after a take-over for an audio frame that comes before video goes on.
    fn open_for_audio(&mut self, now: Now, dts: u64, out: &mut Vec<Output>) {
        let Some(next) = self.continues().filter(|_| !self.cutter.is_open()) else { return };
        let time = self.clock.after(next + self.clock.ahead);
        self.turn_at(now, Boundary::Key, time, Some(next), Some(dts), out);
        self.clock.now = Some(time);
        let interval = self.timeline.video().interval();
        let audio = self.timeline.audio().map(|a| a.ticks(dts));
        let before = time.saturating_sub(interval);
        let mono_ms = now.mono_ms;
        self.clock.video = Some(LastVideo { time: before, end: next, interval, mono_ms, audio });
    }

    /// Where an audio frame beside video lies on the clock: as far after the last video frame as
    /// audio has come since. Where video has stalled, audio drives the clock.
    fn run_on(
        &mut self,
        now: Now,
        start: u64,
        length: u64,
        gap: u64,
        dts: u64,
        out: &mut Vec<Output>,
    ) -> u64 {
        let Some(video) = &mut self.clock.video else { return start };
        // Silence does not run: a gap in the audio moves its reference along.
        let reference = video.audio.map_or(start, |a| a + gap);
        video.audio = Some(reference);
        let video = *video;
        let time = video.time + start.saturating_sub(reference);
        let ago_ms = now.mono_ms.saturating_sub(video.mono_ms);
        let past = time.saturating_sub(video.time + video.interval);
        let stalled = ago_ms >= STALL_MS && past > STALL_MS * 90;
        // A segment that has reached its end waits less.
        let full = self.cutter.length(time) + length > self.listing.cut_length();
        let stalled = stalled || (full && ago_ms >= LATE_MS && past > 0);
        if !stalled && !self.cutter.is_full() {
            return time;
        }
        let time = self.clock.after(time);
        // The last video frame was said to end when it was expected to.
        self.timeline.video_mut().not_before(video.end);
        match self.boundary(false, false, time, length) {
            Some(boundary) => self.turn_at(now, boundary, time, Some(video.end), Some(dts), out),
            None => self.cutter.advance(time, length, &mut self.counters, out),
        }
        self.clock.now = Some(time);
        self.clock.tail = self.clock.tail.max(time + length);
        time
    }

    /// The latest time that the open segment can last to without exceeding TARGETDURATION. A hole
    /// that reaches further cannot be said in a playlist; the timeline leaves it out.
    fn latest(&self) -> Option<u64> {
        let start = self.cutter.start()?.saturating_sub(self.clock.ahead);
        Some(start + self.listing.longest())
    }

    /// Whether a frame that can be decoded from begins a publish or follows a discontinuity.
    fn starts_anew(&self) -> bool {
        self.discontinuity_due || !self.cutter.is_open()
    }

    fn note_jump(&mut self, jumped: bool) {
        self.counters.reanchored += u64::from(jumped);
        self.discontinuity_due |= jumped;
    }

    fn emit(&mut self, item: Item, frame: Frame, out: &mut Vec<Output>) {
        self.cutter.add(item, frame, out);
        self.counters.emitted += 1;
    }

    fn mark(&self, sample: &Sample, dts: u64) -> TrackMark {
        TrackMark {
            piece: sample.piece,
            stamp_ms: sample.timestamp_ms,
            position: self.timeline.located(sample.track),
            dts,
        }
    }

    /// Whether a segment begins with a frame at `time` that is expected to last `expected` ticks.
    fn boundary(&self, key: bool, switched: bool, time: u64, expected: u64) -> Option<Boundary> {
        let length = self.cutter.length(time);
        let enough = u64::from(self.settings.segment_ms - super::KEY_EARLY_MS) * 90;
        if !self.cutter.is_open()
            || (key && (switched || self.discontinuity_due || length >= enough))
        {
            return Some(Boundary::Key);
        }
        let over = length + expected > self.listing.cut_length();
        (over || self.cutter.is_full()).then_some(Boundary::Forced)
    }

    fn turn(
        &mut self,
        now: Now,
        boundary: Boundary,
        time: u64,
        video: Option<u64>,
        out: &mut Vec<Output>,
    ) {
        let audio = self.timeline.audio().map(|a| a.next());
        // An audio frame that opens a segment was placed already; its own start is the track's.
        let opener = if video.is_none() {
            self.timeline.audio().map(|a| a.next() - a.frame_samples())
        } else {
            audio
        };
        self.turn_at(now, boundary, time, video, opener, out);
    }

    /// Closes the open segment, if there is one, and opens the next.
    fn turn_at(
        &mut self,
        now: Now,
        boundary: Boundary,
        time: u64,
        video: Option<u64>,
        audio: Option<u64>,
        out: &mut Vec<Output>,
    ) {
        if self.cutter.is_open() {
            match boundary {
                Boundary::Forced => {
                    self.counters.forced_cuts += 1;
                    self.forced_recently = FORGET_FORCED;
                }
                Boundary::Key => self.forced_recently = self.forced_recently.saturating_sub(1),
            }
        }
        let rate = self.timeline.video().rate().map(Rate::milli);
        self.listing.set_frame_rate(rate.filter(|_| self.has(TrackId::Video)));
        self.close(time, out);
        let discontinuity = boundary == Boundary::Key && self.discontinuity_due;
        let first = self.clock.last_pdt_ms == 0;
        let Some(config) = &self.active else { return };
        out.extend(self.listing.news().map(Output::Entry));
        if !std::mem::replace(&mut self.active_said, true) {
            out.push(Output::Entry(Entry::Config(config.clone())));
        }
        let open = SegmentOpen {
            msn: self.next_msn,
            epoch: self.epoch,
            config: config.id,
            discontinuity,
            pdt_ms: self.clock.pdt_ms(time, (discontinuity || first).then_some(now)),
            start: TrackTimes {
                video: video.filter(|_| config.track(TrackId::Video).is_some()),
                audio: audio.filter(|_| config.track(TrackId::Audio).is_some()),
            },
            first_part: self.cutter.next_part(),
        };
        self.next_msn = self.next_msn.next();
        if discontinuity {
            self.discontinuity_due = false;
            self.counters.discontinuities += 1;
        }
        let audio_only = config.track(TrackId::Video).is_none();
        self.cutter.open(&open, time, audio_only);
        out.push(Output::Entry(Entry::Open(open)));
    }

    /// Closes the open segment at `time`; the constants freeze when it is the first.
    fn close(&mut self, time: u64, out: &mut Vec<Output>) {
        if !self.cutter.is_open() {
            return;
        }
        let length = self.cutter.length(time);
        if !self.listing.is_frozen() {
            self.listing.freeze(length, self.part_target_ms);
        }
        let longest = self.listing.longest();
        if length > longest + LOSS_MS * 90 {
            self.discontinuity_due = true;
        }
        let mut entries = Vec::new();
        let closed = self.cutter.close(time, longest, &mut self.counters, &mut entries);
        let Some(closed) = closed else { return };
        self.listing.measure(closed);
        // Constants come before the first part they hold for.
        out.extend(self.listing.news().map(Output::Entry));
        out.append(&mut entries);
        out.extend(self.listing.list(closed).map(|w| Output::Entry(Entry::Window(w))));
    }

    /// Closes the open segment where what came is expected to end.
    pub(super) fn seal(&mut self, out: &mut Vec<Output>) {
        if !self.cutter.is_open() {
            return;
        }
        let time = self.clock.after(self.clock.tail);
        self.close(time, out);
        self.clock.now = Some(time);
    }
}
