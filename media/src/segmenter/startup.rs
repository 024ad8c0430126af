//! The start of a publish: samples wait until it is known what the publish consists of.
//!
//! In: the first samples and configurations of a publish. Out: the word that the track set and the
//! frame rate can be fixed, and the samples in their order, from the first one that can be decoded.

use std::collections::VecDeque;

use super::counters::Counters;
use super::{Now, Sample};
use crate::timeline::rate::{self, Cadence};
use crate::track::TrackId;

/// After the first media the track set is fixed (DESIGN section 3).
pub(super) const TRACKS_MS: u64 = 1_000;

/// How much longer a single video frame waits for a second one, to learn the interval.
pub(super) const INTERVAL_MS: u64 = 2_000;

/// Samples that wait at most; over it the oldest are dropped, or the set is fixed early.
pub(super) const MAX_SAMPLES: usize = 2_048;

/// Payload bytes that wait at most; over it as over [`MAX_SAMPLES`]. A second at 64 Mbit/s.
pub(super) const MAX_BYTES: usize = 8 << 20;

/// Stamps from which the rate is judged, the latest ones.
const MAX_STAMPS: usize = 256;

/// The samples that wait, and what they have shown.
#[derive(Debug, Default)]
pub(super) struct Startup {
    first_media_ms: Option<u64>,
    waiting: VecDeque<(Now, Sample)>,
    bytes: usize,
    stamps_ms: Vec<i64>,
    last_stamp: Option<u32>,
    /// The stamp of the first key frame that waits, as in `stamps_ms`.
    key_ms: Option<i64>,
    audio_seen: bool,
    overflowed: bool,
}

/// What the publish consists of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Fixed {
    pub(super) video: Option<Cadence>,
    pub(super) audio: bool,
}

impl Startup {
    /// Takes a sample of a track that has a configuration.
    pub(super) fn push(&mut self, now: Now, sample: Sample, counters: &mut Counters) {
        self.first_media_ms.get_or_insert(now.mono_ms);
        if sample.track == TrackId::Video {
            self.note(sample.timestamp_ms);
            if self.key_ms.is_none() {
                if !sample.key {
                    counters.dropped_leading += 1;
                    return;
                }
                self.key_ms = self.stamps_ms.last().copied();
            }
        } else {
            self.audio_seen = true;
        }
        self.bytes += sample.payload.len();
        self.waiting.push_back((now, sample));
        while self.waiting.len() > MAX_SAMPLES || self.bytes > MAX_BYTES {
            self.overflowed = true;
            // With a key frame here the set is about to be fixed; without one only audio waits.
            if self.key_ms.is_some() {
                break;
            }
            let Some((_, oldest)) = self.waiting.pop_front() else { break };
            self.bytes -= oldest.payload.len();
            counters.dropped_overflow += 1;
        }
        counters.waiting = self.waiting.len() as u64;
    }

    fn note(&mut self, stamp: u32) {
        let step = self.last_stamp.map_or(0, |l| i64::from(stamp.wrapping_sub(l).cast_signed()));
        let last_ms = self.stamps_ms.last().copied().unwrap_or(0);
        self.last_stamp = Some(stamp);
        if self.stamps_ms.len() == MAX_STAMPS {
            self.stamps_ms.remove(0);
        }
        self.stamps_ms.push(last_ms + step);
    }

    fn video_seen(&self) -> bool {
        !self.stamps_ms.is_empty()
    }

    /// When the set is fixed at the latest, if it can be.
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        let first = self.first_media_ms?;
        if self.video_seen() && self.key_ms.is_none() {
            return None;
        }
        let short = self.stamps_ms.len() == 1;
        Some(first + TRACKS_MS + if short { INTERVAL_MS } else { 0 })
    }

    /// Fixes the track set if it is time, or certain already, or `forced`.
    pub(super) fn fix(&self, now_ms: u64, claim: Option<f64>, forced: bool) -> Option<Fixed> {
        let first = self.first_media_ms?;
        if self.video_seen() && self.key_ms.is_none() {
            return None;
        }
        let due = forced || self.overflowed || self.deadline_ms().is_some_and(|d| now_ms >= d);
        let set_due = due || now_ms >= first + TRACKS_MS;
        if !self.video_seen() {
            return set_due.then_some(Fixed { video: None, audio: self.audio_seen });
        }
        if !set_due && !self.audio_seen {
            return None;
        }
        let last_word = due || (set_due && self.stamps_ms.len() > 1);
        let cadence = rate::judge(&self.stamps_ms, claim, last_word)?;
        let (first_ms, key_ms) = (self.stamps_ms.first()?, self.key_ms?);
        Some(Fixed { video: Some(cadence.through(*first_ms, key_ms)), audio: self.audio_seen })
    }

    /// The samples that waited: first the one the publish starts with (a video key frame where there
    /// is video), then the others in the order they came.
    pub(super) fn drain(&mut self) -> VecDeque<(Now, Sample)> {
        let mut waiting = std::mem::take(self).waiting;
        let key = waiting.iter().position(|(_, s)| s.track == TrackId::Video);
        if let Some(key) = key.and_then(|i| waiting.remove(i)) {
            waiting.push_front(key);
        }
        waiting
    }
}
