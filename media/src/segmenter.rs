//! The segmenter: decides parts, segments and numbers of a room, at its home and nowhere else.
//!
//! In: access units as the publisher sent them, configurations as they were parsed, the time. Out:
//! manifest entries and frames on the room's timeline, in the order in which a
//! [`Feed`](crate::feed::Feed) takes them. Entries between two frames belong together: they are one
//! atomic batch.
//!
//! Pure: the same inputs give the same outputs. Owns no bytes beyond the start-up second of a
//! publish. Does not parse codecs and does not know who publishes.

mod counters;
mod cutter;
mod listing;
mod live;
mod past;
mod startup;

use bytes::Bytes;

pub use counters::Counters;

use crate::frame::Frame;
use crate::manifest::{Config, Entry, Epoch, Header, Msn, RENDER_VERSION};
use crate::timeline::Timeline;
use crate::timeline::rate::{Cadence, Rate};
use crate::track::{Params, Track, TrackId};
use cutter::Cutter;
use listing::Listing;
use live::Clock;
use startup::{Fixed, Startup};

/// How much earlier than the segment length a key frame may end a segment, in milliseconds.
pub(crate) const KEY_EARLY_MS: u32 = 100;

/// What the publisher is told while segments have to be cut without a key frame.
const KEY_INTERVAL_ADVICE: &str = "set the key-frame interval to 1–2 s";

/// The `[hls]` section as far as the home decides by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Length of a part aimed at, in milliseconds.
    pub part_ms: u32,
    /// Length of a segment from which the next key frame ends it, in milliseconds.
    pub segment_ms: u32,
    /// `EXT-X-TARGETDURATION` at least, in seconds.
    pub target_duration_s: u32,
    /// `EXT-X-TARGETDURATION` at most, in seconds.
    pub max_target_duration_s: u32,
    /// Segments listed at least.
    pub window: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            part_ms: 200,
            segment_ms: 1_000,
            target_duration_s: 2,
            max_target_duration_s: 10,
            window: 8,
        }
    }
}

/// What placement granted the home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The epoch of all names.
    pub epoch: Epoch,
    /// The placement generation of the room.
    pub generation: u64,
    /// The number of the first segment, at least 1 (0 is read as 1): some players never block for
    /// a successor of segment 0.
    pub msn_base: u64,
}

/// The time an input came, told twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a monotonic clock.
    pub mono_ms: u64,
    /// Milliseconds since the Unix epoch.
    pub unix_ms: u64,
}

/// One access unit as the publisher sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The track it belongs to.
    pub track: TrackId,
    /// Its RTMP timestamp: decode time in milliseconds, modulo 2^32.
    pub timestamp_ms: u32,
    /// Presentation minus decode time in milliseconds.
    pub cts_ms: i32,
    /// Whether decoding can start here, by its own bytes.
    pub key: bool,
    /// The coded bytes, as in [`Frame::payload`].
    pub payload: Bytes,
    /// Which message of its push it was, see [`Segmenter::identify`].
    pub piece: u64,
}

/// What the segmenter says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A manifest entry. It and its neighbours up to the next frame are one batch.
    Entry(Entry),
    /// The next frame of the open segment.
    Frame {
        /// The segment.
        msn: Msn,
        /// The frame.
        frame: Frame,
    },
}

#[derive(Debug)]
enum Phase {
    /// No publisher yet.
    Idle,
    /// A publisher is here; its first samples wait.
    Starting(Startup),
    /// Samples are cut as they come.
    Live,
    /// The publisher has gone.
    Gone,
    /// Over.
    Ended,
}

/// The segmenter of one room.
#[derive(Debug)]
pub struct Segmenter {
    settings: Settings,
    epoch: Epoch,
    phase: Phase,
    timeline: Timeline,
    cutter: Cutter,
    listing: Listing,
    counters: Counters,
    clock: Clock,
    /// The configurations of this publish, video first.
    configured: [Option<Track>; 2],
    /// Whether frames came of a configuration that is not in force yet.
    seen_pending: [bool; 2],
    /// The frame rate that metadata claims.
    claim: Option<f64>,
    active: Option<Config>,
    active_said: bool,
    part_target_ms: u32,
    next_msn: Msn,
    /// The next segment that starts at a key frame starts after a discontinuity.
    discontinuity_due: bool,
    forced_recently: u32,
    /// What was taken over from an earlier home, until a publish begins or goes on.
    past: Option<past::Past>,
}

impl Segmenter {
    /// A segmenter for a room that was just activated.
    #[must_use]
    pub fn new(settings: Settings, identity: Identity) -> Self {
        let first = Msn(identity.msn_base.max(1));
        let header = Header {
            epoch: identity.epoch,
            generation: identity.generation,
            render_version: RENDER_VERSION,
            constants: None,
            bandwidth_bps: 0,
            average_bandwidth_bps: 0,
            frame_rate_milli: None,
        };
        let settings = sane(settings);
        Self {
            settings,
            epoch: identity.epoch,
            phase: Phase::Idle,
            timeline: Timeline::new(),
            cutter: Cutter::new(),
            listing: Listing::new(&settings, header, first),
            counters: Counters::default(),
            clock: Clock::default(),
            configured: [None, None],
            seen_pending: [false; 2],
            claim: None,
            active: None,
            active_said: false,
            part_target_ms: settings.part_ms,
            next_msn: first,
            discontinuity_due: false,
            forced_recently: 0,
            past: None,
        }
    }

    /// The room's header as of now. A feed is created with it.
    #[must_use]
    pub fn header(&self) -> Header {
        self.listing.header().clone()
    }

    /// A publisher was accepted. One that is still here gives way to it.
    pub fn begin(&mut self, now: Now, out: &mut Vec<Output>) {
        match self.phase {
            Phase::Ended => return,
            Phase::Idle => out.push(Output::Entry(Entry::Window(self.listing.window()))),
            Phase::Gone => {
                self.lose_past();
                out.push(Output::Entry(Entry::Resumed));
            }
            Phase::Starting(_) | Phase::Live => {
                self.finish(now, out);
                self.configured = [None, None];
                self.claim = None;
            }
        }
        self.phase = Phase::Starting(Startup::default());
        self.forced_recently = 0;
    }

    /// A sequence header was parsed; `frame_rate_hint` is what metadata claims, if it came. A
    /// repeated one changes nothing. A different one takes effect at the next key frame; until then
    /// frames of its track are dropped, because nothing could decode them.
    pub fn configure(&mut self, track: Track, frame_rate_hint: Option<f64>) {
        if frame_rate_hint.is_some() {
            self.claim = frame_rate_hint;
        }
        let slot = index(track.id);
        if self.configured[slot].as_ref() != Some(&track) {
            self.configured[slot] = Some(track);
            self.seen_pending[slot] = false;
        }
    }

    /// A sample came.
    pub fn push(&mut self, now: Now, sample: Sample, out: &mut Vec<Output>) {
        self.counters.pushed += 1;
        self.tick(now, out);
        let taken = self.was_taken(sample.track, sample.piece);
        match &mut self.phase {
            Phase::Idle | Phase::Gone | Phase::Ended => self.counters.dropped_idle += 1,
            _ if self.configured[index(sample.track)].is_none() || sample.payload.is_empty() => {
                self.counters.dropped_unusable += 1;
            }
            Phase::Starting(startup) => {
                startup.push(now, sample, &mut self.counters);
                self.try_start(now, false, out);
            }
            Phase::Live if taken => self.counters.dropped_taken += 1,
            Phase::Live => self.push_live(now, sample, out),
        }
    }

    /// Time has passed: see [`Self::deadline_ms`].
    pub fn tick(&mut self, now: Now, out: &mut Vec<Output>) {
        self.try_start(now, false, out);
    }

    /// When [`Self::tick`] has something to do, in milliseconds of the monotonic clock.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        match &self.phase {
            Phase::Starting(startup) => startup.deadline_ms(),
            _ => None,
        }
    }

    /// The publisher has gone: the open segment is sealed and the grace time begins.
    pub fn gone(&mut self, out: &mut Vec<Output>) {
        if !matches!(self.phase, Phase::Starting(_) | Phase::Live) {
            return;
        }
        self.finish(Now::default(), out);
        out.push(Output::Entry(Entry::Grace));
        self.phase = Phase::Gone;
        self.keep_past();
        self.configured = [None, None];
        self.claim = None;
    }

    /// The stream is over. Nothing is said after this.
    pub fn end(&mut self, out: &mut Vec<Output>) {
        if matches!(self.phase, Phase::Ended) {
            return;
        }
        self.finish(Now::default(), out);
        out.push(Output::Entry(Entry::End));
        self.phase = Phase::Ended;
    }

    /// What was counted since the room was activated.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The number of the next segment to open.
    #[must_use]
    pub fn next_msn(&self) -> Msn {
        self.next_msn
    }

    /// What the publisher should change, if anything.
    #[must_use]
    pub fn advice(&self) -> Option<&'static str> {
        (self.forced_recently > 0).then_some(KEY_INTERVAL_ADVICE)
    }

    /// The tracks in force, video first; empty before the first publish has started.
    #[must_use]
    pub fn tracks(&self) -> &[Track] {
        self.active.as_ref().map_or(&[], |c| &c.tracks)
    }

    /// Frames per 1000 seconds of the video track while it keeps a nominal rate.
    #[must_use]
    pub fn frame_rate_milli(&self) -> Option<u32> {
        self.has(TrackId::Video).then(|| self.timeline.video().rate().map(Rate::milli)).flatten()
    }

    fn has(&self, track: TrackId) -> bool {
        self.active.as_ref().is_some_and(|c| c.track(track).is_some())
    }

    /// Passes on what waits and seals the open segment.
    fn finish(&mut self, now: Now, out: &mut Vec<Output>) {
        self.try_start(now, true, out);
        self.counters.dropped_leading += std::mem::take(&mut self.counters.waiting);
        self.past = None;
        self.seal(out);
    }

    /// Fixes the track set if the time has come, and passes on the samples that waited.
    fn try_start(&mut self, now: Now, forced: bool, out: &mut Vec<Output>) {
        let Phase::Starting(startup) = &mut self.phase else { return };
        let Some(fixed) = startup.fix(now.mono_ms, self.claim, forced) else { return };
        let waiting = startup.drain();
        self.counters.waiting = 0;
        let Some((_, first)) = waiting.front() else { return };
        self.fix_tracks(fixed, first.timestamp_ms);
        self.phase = Phase::Live;
        for (now, sample) in waiting {
            self.push_live(now, sample, out);
        }
    }

    fn fix_tracks(&mut self, fixed: Fixed, first_stamp: u32) {
        let video = self.configured[0].clone().filter(|_| fixed.video.is_some());
        let audio = self.configured[1].clone().filter(|_| fixed.audio);
        let layout = audio.as_ref().map(audio_layout);
        self.timeline.begin(first_stamp, fixed.video, layout);
        if matches!(fixed.video, Some(Cadence::Variable { .. })) {
            self.counters.lost_grid += 1;
        }
        self.discontinuity_due = self.active.is_some();
        self.activate(video.into_iter().chain(audio).collect());
        self.clock.forget_tracks();
        if !self.listing.is_frozen() {
            self.part_target_ms = self.part_target(fixed, layout);
            self.cutter.set_target(self.part_target_ms);
        }
    }

    /// Puts a track set in force, under a new configuration if it differs from the last one.
    fn activate(&mut self, tracks: Vec<Track>) {
        self.seen_pending = [false; 2];
        if self.active.as_ref().is_none_or(|c| c.tracks != tracks) {
            let id = self.active.as_ref().map_or(1, |c| c.id + 1);
            self.active = Some(Config { id, tracks });
            self.active_said = false;
        }
    }

    /// PART-TARGET in milliseconds: n frames and a twentieth, n as many as fit the part length.
    fn part_target(&self, fixed: Fixed, audio: Option<(u32, u16)>) -> u32 {
        let frame = match (fixed.video, audio) {
            (Some(cadence), _) => cadence.interval().unsigned_abs(),
            (None, Some((rate, samples))) => {
                (u64::from(samples) * 360_000).div_ceil(u64::from(rate.max(1)))
            }
            (None, None) => 12_000,
        };
        let frame = frame.max(1);
        let wanted = 105 * u64::from(self.settings.part_ms) * 360;
        let frames = (wanted / (100 * frame)).max(1);
        let target_ms = (105 * frames * frame).div_ceil(36_000);
        // Longer than TARGETDURATION a part may not be; frames that are, are counted irregular.
        let limit_ms = u64::from(self.settings.target_duration_s) * 1_000;
        u32::try_from(target_ms.min(limit_ms)).unwrap_or(u32::MAX)
    }
}

/// Settings inside of what the rules can hold: a second of TARGETDURATION at least, parts of 10 ms.
fn sane(settings: Settings) -> Settings {
    let target_duration_s = settings.target_duration_s.clamp(1, 60);
    Settings {
        part_ms: settings.part_ms.clamp(10, target_duration_s * 1_000),
        segment_ms: settings.segment_ms.clamp(KEY_EARLY_MS, 60_000),
        target_duration_s,
        max_target_duration_s: settings.max_target_duration_s.clamp(target_duration_s, 60),
        window: settings.window,
    }
}

/// Sample rate and frame length of an audio track.
fn audio_layout(track: &Track) -> (u32, u16) {
    match track.params {
        Params::Audio { sample_rate, frame_samples, .. } => {
            debug_assert_eq!(sample_rate, track.timescale);
            (track.timescale.max(1), frame_samples.max(1))
        }
        Params::Video { .. } => (track.timescale.max(1), 1_024),
    }
}

fn index(track: TrackId) -> usize {
    match track {
        TrackId::Video => 0,
        TrackId::Audio => 1,
    }
}

#[cfg(test)]
mod tests;
