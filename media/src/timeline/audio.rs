//! The clock of the audio track: it counts samples.
//!
//! In: where the stamps put each frame, in 90 kHz ticks of the room. Out: decode times on the sample
//! grid. Millisecond stamps are too coarse to place a frame of 1024 samples, so a frame follows the
//! one before it until stamps and samples are more than [`TOLERANCE_MS`] apart.

use crate::track::VIDEO_TIMESCALE;

/// How far stamps and counted samples may part: over it a gap moves the decode time, an overlap
/// drops the frame (DESIGN section 3).
pub(crate) const TOLERANCE_MS: i64 = 60;

/// What becomes of an audio frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AudioPlace {
    /// It starts here, in samples.
    At(u64),
    /// It starts here, after a gap.
    AfterGap(u64),
    /// Its time is taken already.
    Overlap,
    /// It lies before the start of what is published.
    Early,
}

/// Counts samples; lives as long as the room.
#[derive(Debug, Clone)]
pub(crate) struct AudioClock {
    rate: u32,
    frame_samples: u32,
    /// Where the next frame starts if it follows the last one.
    next: u64,
    /// Whether the next frame is placed by its stamp alone.
    resync: bool,
}

impl AudioClock {
    /// A clock of `rate` samples a second at `start` ticks of 90 kHz.
    pub(crate) fn new(rate: u32, frame_samples: u16, start: u64) -> Self {
        let rate = rate.max(1);
        let frame_samples = u32::from(frame_samples).max(1);
        Self { rate, frame_samples, next: scale(start, VIDEO_TIMESCALE, rate), resync: true }
    }

    /// A clock whose next frame starts at `next` samples and follows one placed by an earlier home.
    pub(crate) fn go_on(rate: u32, frame_samples: u16, next: u64) -> Self {
        let mut clock = Self::new(rate, frame_samples, 0);
        clock.next = next;
        clock.resync = false;
        clock
    }

    /// Goes on with another layout from `start` ticks of 90 kHz, or where it is if that is later.
    pub(crate) fn reshape(&mut self, rate: u32, frame_samples: u16, start: u64) {
        let rate = rate.max(1);
        if rate != self.rate {
            self.next = scale_up(self.next, self.rate, rate);
            self.rate = rate;
        }
        self.frame_samples = u32::from(frame_samples).max(1);
        self.next = self.next.max(scale(start, VIDEO_TIMESCALE, rate));
        self.resync = true;
    }

    /// The stamps start anew: the next frame is placed by its stamp.
    pub(crate) fn resync(&mut self) {
        self.resync = true;
    }

    /// Where the next frame starts if it follows the last one, in samples.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// The same in 90 kHz ticks, rounded up.
    pub(crate) fn end(&self) -> u64 {
        scale_up(self.next, self.rate, VIDEO_TIMESCALE)
    }

    /// `samples` on the 90 kHz clock.
    pub(crate) fn ticks(&self, samples: u64) -> u64 {
        scale(samples, self.rate, VIDEO_TIMESCALE)
    }

    /// How long a frame lasts, in samples.
    pub(crate) fn frame_samples(&self) -> u64 {
        u64::from(self.frame_samples)
    }

    /// Places the frame whose stamp is `position` (90 kHz ticks of the room, negative before it).
    pub(crate) fn place(&mut self, position: i64) -> AudioPlace {
        let Ok(position) = u64::try_from(position) else {
            return AudioPlace::Early;
        };
        let stamp = scale(position, VIDEO_TIMESCALE, self.rate);
        let place = if self.resync {
            if stamp + self.frame_samples() / 2 < self.next {
                return AudioPlace::Early;
            }
            self.resync = false;
            AudioPlace::At(stamp.max(self.next))
        } else {
            let tolerance = u64::from(self.rate) * TOLERANCE_MS as u64 / 1000;
            if stamp > self.next + tolerance {
                AudioPlace::AfterGap(stamp)
            } else if stamp + tolerance < self.next {
                AudioPlace::Overlap
            } else {
                AudioPlace::At(self.next)
            }
        };
        if let AudioPlace::At(dts) | AudioPlace::AfterGap(dts) = place {
            self.next = dts + self.frame_samples();
        }
        place
    }
}

/// `ticks` of a clock of `from` per second on one of `to`, to the nearest.
fn scale(ticks: u64, from: u32, to: u32) -> u64 {
    let (from, to) = (u128::from(from), u128::from(to));
    // Times of a room fit 64 bits on every clock: 2^64 ticks of 90 kHz are six million years.
    ((u128::from(ticks) * to + from / 2) / from) as u64
}

/// As [`scale`], rounded up.
fn scale_up(ticks: u64, from: u32, to: u32) -> u64 {
    let (from, to) = (u128::from(from), u128::from(to));
    (u128::from(ticks) * to).div_ceil(from) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The stamp of frame `i` as a publisher rounds it.
    fn stamp(i: u64, rate: u64) -> i64 {
        ((i * 1024 * 1000 + rate / 2) / rate * 90) as i64
    }

    #[test]
    fn rounded_stamps_of_a_day_accumulate_no_error() {
        let mut clock = AudioClock::new(44_100, 1024, 0);
        for i in 0..4_000_000_u64 {
            assert_eq!(clock.place(stamp(i, 44_100)), AudioPlace::At(i * 1024));
        }
    }

    #[test]
    fn a_gap_moves_the_time_and_an_overlap_drops() {
        let mut clock = AudioClock::new(48_000, 1024, 0);
        assert_eq!(clock.place(0), AudioPlace::At(0));
        assert_eq!(clock.place(80 * 90), AudioPlace::At(1024));
        assert_eq!(clock.place(200 * 90), AudioPlace::AfterGap(9_600));
        assert_eq!(clock.place(165 * 90), AudioPlace::At(10_624));
        assert_eq!(clock.place(170 * 90), AudioPlace::Overlap);
        assert_eq!(clock.place(183 * 90), AudioPlace::At(11_648));
    }

    #[test]
    fn a_fresh_start_drops_what_lies_before_it() {
        let mut clock = AudioClock::new(48_000, 1024, 90_000);
        assert_eq!(clock.place(-5), AudioPlace::Early);
        assert_eq!(clock.place(89_000 - 1_000), AudioPlace::Early);
        assert_eq!(clock.place(89_500), AudioPlace::At(48_000));
        clock.reshape(44_100, 1024, 0);
        assert_eq!(clock.next(), 45_041);
        assert_eq!(clock.place(180_000), AudioPlace::At(88_200));
    }
}
