//! Publishers for the tests: what they push, and when.

use bytes::Bytes;

use crate::clip::clip;
use crate::codec::aac::AudioConfig;
use crate::segmenter::{Now, Sample};
use crate::track::{Track, TrackId};

/// Wall time at which the tests' clock is 0.
pub(super) const UNIX_MS: u64 = 1_795_300_000_000;

pub(in crate::segmenter) fn now(mono_ms: u64) -> Now {
    Now { mono_ms, unix_ms: UNIX_MS + mono_ms }
}

/// A video configuration; different versions differ in the level they claim.
pub(in crate::segmenter) fn video_track(version: u8) -> Track {
    let (config, _) = clip();
    let mut track = config.track(TrackId::Video).unwrap().clone();
    let mut record = track.config.to_vec();
    record[3] = record[3].wrapping_add(version);
    track.config = Bytes::from(record);
    track
}

/// AAC-LC, stereo.
pub(in crate::segmenter) fn audio_track(sample_rate: u32) -> Track {
    let record: [u8; 2] = match sample_rate {
        96_000 => [0x10, 0x10],
        48_000 => [0x11, 0x90],
        44_100 => [0x12, 0x10],
        _ => [0x15, 0x90],
    };
    let track = AudioConfig::parse(&Bytes::copy_from_slice(&record)).unwrap().track();
    assert_eq!(track.timescale, sample_rate);
    track
}

/// One push: the sample and when it comes.
pub(in crate::segmenter) type Push = (u64, Sample);

/// How a publisher stamps its video.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::segmenter) enum Stamps {
    /// To the nearest millisecond.
    Rounded,
    /// Cut down to the millisecond.
    Truncated,
    /// Rounded, then this many milliseconds off, either way.
    Jitter(i64),
}

/// A publisher.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::segmenter) struct Source {
    /// Frames per second as a fraction; none for no video.
    pub(in crate::segmenter) fps: Option<(u64, u64)>,
    pub(in crate::segmenter) stamps: Stamps,
    /// Frames from key to key.
    pub(in crate::segmenter) gop: u64,
    /// Composition offset of B-frame streams: I, P and B take turns.
    pub(in crate::segmenter) b_frames: bool,
    pub(in crate::segmenter) audio: Option<u32>,
    /// How much later audio comes than video of the same time, in milliseconds.
    pub(in crate::segmenter) audio_lag_ms: i64,
    pub(in crate::segmenter) start_stamp: u32,
    pub(in crate::segmenter) duration_ms: u64,
    pub(in crate::segmenter) seed: u64,
}

impl Default for Source {
    fn default() -> Self {
        Self {
            fps: Some((30, 1)),
            stamps: Stamps::Rounded,
            gop: 60,
            b_frames: false,
            audio: Some(48_000),
            audio_lag_ms: 0,
            start_stamp: 0,
            duration_ms: 12_000,
            seed: 1,
        }
    }
}

impl Source {
    /// What it pushes, in the order in which it comes, from `at_ms` on.
    pub(in crate::segmenter) fn pushes(&self, at_ms: u64) -> Vec<Push> {
        let mut pushes = self.video(at_ms);
        pushes.extend(self.audio(at_ms));
        pushes.sort_by_key(|(at, s)| (*at, s.track));
        pushes
    }

    /// The stamps of its video frames.
    pub(in crate::segmenter) fn video_stamps(&self) -> Vec<u32> {
        self.video(0).into_iter().map(|(_, s)| s.timestamp_ms).collect()
    }

    fn video(&self, at_ms: u64) -> Vec<Push> {
        let Some((num, den)) = self.fps else { return Vec::new() };
        let mut random = Random(self.seed);
        let mut last = i64::MIN;
        let count = self.duration_ms * num / (1000 * den);
        (0..count)
            .map(|i| {
                let (micros, ms) = (i * den * 1_000_000 / num, 1000 * den);
                let stamp = match self.stamps {
                    Stamps::Rounded => (i * ms + num / 2) / num,
                    Stamps::Truncated => i * ms / num,
                    Stamps::Jitter(most) => {
                        let off = random.within(-most, most);
                        ((i * ms + num / 2) / num).saturating_add_signed(off)
                    }
                };
                let stamp = (stamp as i64).max(last + 1);
                last = stamp;
                let frame_ms = |n: u64| (n * ms + num / 2) / num;
                let cts_ms = match (self.b_frames, i % self.gop % 3) {
                    (false, _) => 0,
                    (true, 0) => frame_ms(1) as i32,
                    (true, 1) => frame_ms(3).saturating_sub(frame_ms(1)) as i32,
                    (true, _) => 0,
                };
                let sample = Sample {
                    track: TrackId::Video,
                    timestamp_ms: self.start_stamp.wrapping_add(stamp as u32),
                    cts_ms,
                    key: i % self.gop == 0,
                    payload: payload(i, if i % self.gop == 0 { 400 } else { 40 }),
                    piece: 0,
                };
                (at_ms + micros / 1000, sample)
            })
            .collect()
    }

    fn audio(&self, at_ms: u64) -> Vec<Push> {
        let Some(rate) = self.audio else { return Vec::new() };
        let count = self.duration_ms * u64::from(rate) / 1_024_000;
        (0..count)
            .map(|i| {
                let ms = (i * 1_024_000 + u64::from(rate) / 2) / u64::from(rate);
                let sample = Sample {
                    track: TrackId::Audio,
                    timestamp_ms: self.start_stamp.wrapping_add(ms as u32),
                    cts_ms: 0,
                    key: true,
                    payload: payload(i, 8),
                    piece: 0,
                };
                ((at_ms + ms).saturating_add_signed(self.audio_lag_ms), sample)
            })
            .collect()
    }
}

/// Bytes that tell one frame from another.
pub(in crate::segmenter) fn payload(i: u64, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    bytes[..8].copy_from_slice(&i.to_be_bytes());
    Bytes::from(bytes)
}

/// A small generator of even numbers (SplitMix64), so that a seed replays a run.
#[derive(Debug, Clone)]
pub(in crate::segmenter) struct Random(pub(super) u64);

impl Random {
    pub(in crate::segmenter) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(in crate::segmenter) fn within(&mut self, low: i64, high: i64) -> i64 {
        low + (self.next() % (high - low + 1) as u64) as i64
    }
}
