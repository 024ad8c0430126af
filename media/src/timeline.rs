//! The room's timeline: from a publisher's 32-bit millisecond stamps to ticks that never go back.
//!
//! In: raw stamps of one publish after the other, with the cadence its start-up showed. Out: decode
//! times on each track's clock, 0 at activation. Both tracks of a publish share one offset, so their
//! alignment is kept; a new publish, or stamps that jump, go on where the room ends.
//!
//! Does not decide on parts or segments, and knows no wall time: see [`crate::segmenter`].

pub(crate) mod audio;
pub(crate) mod rate;
pub(crate) mod video;

use crate::manifest::Mark;
use crate::track::TrackId;
use audio::{AudioClock, AudioPlace};
use rate::Cadence;
use video::{VideoClock, VideoPlace};

/// How far a track's stamps may step back and still count as disorder; further is a jump.
pub(crate) const BACKWARD_MS: i64 = 500;

/// How far a stamp may lie ahead of everything before it; further is a jump.
pub(crate) const FORWARD_MS: i64 = 10_000;

/// How much later than expected a frame may come and still be no hole.
pub(crate) const HOLE_MS: i64 = 90;

const TICKS_PER_MS: i64 = 90;

/// The timeline of one room.
#[derive(Debug, Clone)]
pub(crate) struct Timeline {
    /// The offset in force, and the one before it, which the other track may still be under.
    eras: [Option<Era>; 2],
    opened: u64,
    tracks: [Cursor; 2],
    /// Where the latest stamp of each track lies in the room.
    located: [i64; 2],
    video: VideoClock,
    audio: Option<AudioClock>,
}

/// Where a stream is that an earlier home of the room placed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Past {
    /// Where video ends, in its ticks.
    pub(crate) video_end: u64,
    /// Where audio ends, in samples, with its rate and frame length.
    pub(crate) audio: Option<(u64, u32, u16)>,
    /// The publisher's last frames and the grid, when they are known.
    pub(crate) mark: Option<Mark>,
}

/// A run of stamps under one offset.
#[derive(Debug, Clone, Copy)]
struct Era {
    id: u64,
    /// The latest stamp and where it lies in the room, in ticks.
    stamp: u32,
    position: i64,
}

impl Era {
    /// Where a stamp lies: the nearest reading of its 32 bits, so a wrap is seamless.
    fn position(&self, stamp: u32) -> i64 {
        let step = i64::from(stamp.wrapping_sub(self.stamp).cast_signed());
        self.position + step * TICKS_PER_MS
    }
}

/// Which offset a stamp took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// That of the stamp before it.
    None,
    /// One that the other track has moved to.
    Joined,
    /// One of its own: the stamps jumped.
    Opened,
}

/// Where a track's stamps are.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    era: u64,
    /// The furthest position of this publish.
    reached: Option<i64>,
}

impl Timeline {
    /// A timeline at 0.
    pub(crate) fn new() -> Self {
        Self {
            eras: [None, None],
            opened: 0,
            tracks: [Cursor::default(); 2],
            located: [0; 2],
            video: VideoClock::new(0),
            audio: None,
        }
    }

    /// A timeline that goes on where an earlier home left it. With a mark the next frames of the
    /// same push are placed as that home would have placed them.
    pub(crate) fn take_over(past: Past) -> Self {
        let mut timeline = Self::new();
        timeline.audio = past
            .audio
            .map(|(next, rate, frame_samples)| AudioClock::go_on(rate, frame_samples, next));
        timeline.video = VideoClock::new(past.video_end);
        let Some(mark) = past.mark else { return timeline };
        if let Some(video) = mark.video {
            timeline.video = VideoClock::go_on(video.dts, past.video_end, mark.grid);
        }
        for (track, known) in [(TrackId::Video, mark.video), (TrackId::Audio, mark.audio)] {
            let Some(known) = known else { continue };
            let joined = timeline.eras[0].filter(|e| e.position(known.stamp_ms) == known.position);
            let era = joined.unwrap_or_else(|| {
                timeline.opened += 1;
                let era =
                    Era { id: timeline.opened, stamp: known.stamp_ms, position: known.position };
                timeline.eras = [Some(era), timeline.eras[0]];
                era
            });
            let cursor = Cursor { era: era.id, reached: Some(known.position) };
            timeline.tracks[index(track)] = cursor;
        }
        timeline
    }

    /// Nothing that follows is earlier than `ticks`.
    pub(crate) fn not_before(&mut self, ticks: u64) {
        self.video.not_before(ticks);
    }

    /// Where the latest stamp of `track` lies in the room, in ticks.
    pub(crate) fn located(&self, track: TrackId) -> i64 {
        self.located[index(track)]
    }

    /// Starts a publish whose first stamp is `stamp`: it goes where the room ends. `video` is the
    /// cadence its video has shown, `audio` the sample rate and frame length.
    pub(crate) fn begin(&mut self, stamp: u32, video: Option<Cadence>, audio: Option<(u32, u16)>) {
        let start = self.end();
        self.tracks = [Cursor::default(); 2];
        self.eras = [None, None];
        self.open_era(stamp, start);
        if let Some(cadence) = video {
            self.video.begin(start, cadence);
        } else {
            self.video.not_before(start);
        }
        if let Some((rate, frame_samples)) = audio {
            self.shape_audio(rate, frame_samples, start);
        }
    }

    /// The audio track has this layout from `start` on.
    pub(crate) fn shape_audio(&mut self, rate: u32, frame_samples: u16, start: u64) {
        match &mut self.audio {
            Some(clock) => clock.reshape(rate, frame_samples, start),
            None => self.audio = Some(AudioClock::new(rate, frame_samples, start)),
        }
    }

    /// Where the room ends so far, in ticks: nothing is later on either track.
    pub(crate) fn end(&self) -> u64 {
        self.video.end().max(self.audio.as_ref().map_or(0, AudioClock::end))
    }

    /// Places a video frame; the flag says whether the stamps needed a new offset. A hole in all
    /// tracks that reaches past `limit` counts as a jump.
    pub(crate) fn place_video(
        &mut self,
        stamp: u32,
        cts_ms: i32,
        limit: Option<u64>,
    ) -> (VideoPlace, bool) {
        let (position, turn) = self.locate(TrackId::Video, stamp, limit);
        self.located[0] = position;
        if turn != Turn::None {
            self.video.rebase(u64::try_from(position).unwrap_or(0));
        }
        let place = self.video.place(position, cts_ms);
        // A flood of equal stamps has pushed decode times ahead; judge the next stamp by them.
        self.reach(TrackId::Video, i64::try_from(place.dts).unwrap_or(i64::MAX));
        (place, turn == Turn::Opened)
    }

    /// Places an audio frame; the flag and `limit` are as for video.
    pub(crate) fn place_audio(&mut self, stamp: u32, limit: Option<u64>) -> (AudioPlace, bool) {
        let (position, turn) = self.locate(TrackId::Audio, stamp, limit);
        self.located[1] = position;
        let Some(clock) = &mut self.audio else {
            return (AudioPlace::Early, false);
        };
        if turn != Turn::None {
            clock.resync();
        }
        (clock.place(position), turn == Turn::Opened)
    }

    pub(crate) fn video(&self) -> &VideoClock {
        &self.video
    }

    pub(crate) fn video_mut(&mut self) -> &mut VideoClock {
        &mut self.video
    }

    pub(crate) fn audio(&self) -> Option<&AudioClock> {
        self.audio.as_ref()
    }

    /// Where `stamp` lies, and whether it took another offset than the track's last stamp.
    fn locate(&mut self, track: TrackId, stamp: u32, limit: Option<u64>) -> (i64, Turn) {
        let cursor = self.tracks[index(track)];
        let frontier = self.tracks.iter().filter_map(|c| c.reached).max();
        let back_ms = if cursor.reached.is_some() { BACKWARD_MS } else { FORWARD_MS };
        let back = cursor.reached.or(frontier).map(|b| b - back_ms * TICKS_PER_MS);
        let forward = frontier.map(|f| {
            let far = f + FORWARD_MS * TICKS_PER_MS;
            let Some(limit) = limit.and_then(|l| i64::try_from(l).ok()) else { return far };
            far.min(limit.max(f + self.interval(track) + HOLE_MS * TICKS_PER_MS))
        });
        let fits = |position: i64| {
            back.is_none_or(|b| position >= b) && forward.is_none_or(|f| position <= f)
        };
        // The track's own offset first, then the one that the other track has moved to.
        let own_is_older = self.eras[1].is_some_and(|e| e.id == cursor.era);
        for slot in if own_is_older { [1, 0] } else { [0, 1] } {
            let Some(era) = &mut self.eras[slot] else { continue };
            let position = era.position(stamp);
            if !fits(position) || (cursor.reached.is_some() && era.id < cursor.era) {
                continue;
            }
            (era.stamp, era.position) = (stamp, position);
            let moved = cursor.reached.is_some() && era.id != cursor.era;
            self.tracks[index(track)].era = era.id;
            self.reach(track, position);
            return (position, if moved { Turn::Joined } else { Turn::None });
        }
        let start = self.end();
        let position = self.open_era(stamp, start);
        self.tracks[index(track)] = Cursor { era: self.opened, reached: Some(position) };
        (position, Turn::Opened)
    }

    /// How long a frame of `track` is expected to last, in ticks.
    fn interval(&self, track: TrackId) -> i64 {
        let ticks = match (track, &self.audio) {
            (TrackId::Audio, Some(clock)) => clock.ticks(clock.frame_samples()),
            _ => self.video.interval(),
        };
        i64::try_from(ticks).unwrap_or(i64::MAX / 4)
    }

    fn open_era(&mut self, stamp: u32, start: u64) -> i64 {
        let position = i64::try_from(start).unwrap_or(i64::MAX);
        self.opened += 1;
        self.eras = [Some(Era { id: self.opened, stamp, position }), self.eras[0]];
        position
    }

    fn reach(&mut self, track: TrackId, position: i64) {
        let cursor = &mut self.tracks[index(track)];
        cursor.reached = Some(cursor.reached.map_or(position, |r| r.max(position)));
    }
}

fn index(track: TrackId) -> usize {
    match track {
        TrackId::Video => 0,
        TrackId::Audio => 1,
    }
}
