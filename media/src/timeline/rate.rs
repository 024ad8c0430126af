//! Which nominal frame rate a video track has, judged from its stamps.
//!
//! In: millisecond stamps in decode order and what metadata claims. Out: a [`Rate`] on whose grid
//! the stamps lie, or the word that the rate varies. Stamps are the evidence; a claim only breaks
//! ties and saves time.

/// Quarter ticks of the 90 kHz clock in a millisecond. All nominal periods are whole quarter ticks.
pub(crate) const QUARTERS_PER_MS: i64 = 360;

/// How far a stamp may lie from the grid and still belong to it: the 2 ms of DESIGN section 3, and
/// half a millisecond of rounding each for this stamp and for the one the grid was laid by.
pub(crate) const SNAP_QUARTERS: i64 = 3 * QUARTERS_PER_MS;

/// Intervals that confirm a rate that metadata claims.
const CLAIM_INTERVALS: usize = 4;

/// Intervals, and milliseconds they cover, that show a rate by themselves.
const PLAIN_INTERVALS: usize = 12;
const PLAIN_COVER_MS: i64 = 400;

/// A claim names a nominal rate when it is this close to it, in parts per million: 29.97 and 30 are
/// 1,000 ppm apart.
const CLAIM_PPM: f64 = 300.0;

/// How much tighter the stamps must lie on a 1000/1001 grid than on its whole neighbour before it is
/// believed without a claim: half a millisecond.
const FRACTION_PENALTY: i64 = QUARTERS_PER_MS / 2;

/// A nominal frame rate, as its period in quarter ticks of the 90 kHz clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    quarters: i64,
}

/// Periods of the nominal rates: 1, 2, 5, 10, 12, 12.5, 15, 20, 23.976, 24, 25, 29.97, 30, 48, 50,
/// 59.94, 60, 90, 100, 119.88 and 120 fps.
const NOMINAL: [Rate; 21] = [
    Rate { quarters: 360_000 },
    Rate { quarters: 180_000 },
    Rate { quarters: 72_000 },
    Rate { quarters: 36_000 },
    Rate { quarters: 30_000 },
    Rate { quarters: 28_800 },
    Rate { quarters: 24_000 },
    Rate { quarters: 18_000 },
    Rate { quarters: 15_015 },
    Rate { quarters: 15_000 },
    Rate { quarters: 14_400 },
    Rate { quarters: 12_012 },
    Rate { quarters: 12_000 },
    Rate { quarters: 7_500 },
    Rate { quarters: 7_200 },
    Rate { quarters: 6_006 },
    Rate { quarters: 6_000 },
    Rate { quarters: 4_000 },
    Rate { quarters: 3_600 },
    Rate { quarters: 3_003 },
    Rate { quarters: 3_000 },
];

impl Rate {
    /// The period in quarter ticks.
    pub(crate) fn quarters(self) -> i64 {
        self.quarters
    }

    /// Frames per 1000 seconds.
    pub(crate) fn milli(self) -> u32 {
        // At least 3,000 quarters, so at most 120,000.
        ((360_000_000 + self.quarters / 2) / self.quarters) as u32
    }

    /// The nominal rate of `milli` frames per 1000 seconds, if there is one.
    pub(crate) fn of_milli(milli: u32) -> Option<Self> {
        NOMINAL.into_iter().find(|rate| rate.milli() == milli)
    }

    /// The whole rate of a 1000/1001 one and the other way round: too near to tell apart at first.
    pub(crate) fn sibling(self) -> Option<Self> {
        NOMINAL.into_iter().find(|r| {
            *r != self && (r.quarters - self.quarters).abs() * 500 < self.quarters.max(r.quarters)
        })
    }

    fn is_fraction(self) -> bool {
        self.quarters % 1001 == 0
    }

    /// The nominal rate that `fps` names, if it names one.
    pub(crate) fn claimed(fps: f64) -> Option<Self> {
        NOMINAL.into_iter().find(|r| {
            let nominal = 360_000.0 / r.quarters as f64;
            (fps - nominal).abs() <= nominal * CLAIM_PPM / 1e6
        })
    }
}

/// What the stamps say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cadence {
    /// They lie on the grid of a nominal rate. `phase` is the middle of their scatter about the
    /// grid through the first stamp, in quarter ticks.
    Constant {
        /// The rate.
        rate: Rate,
        /// Where the stamps lie about the grid.
        phase: i64,
    },
    /// They lie on no grid; the median interval in quarter ticks.
    Variable {
        /// The median interval.
        interval: i64,
    },
}

impl Cadence {
    /// The same cadence about the grid through the stamp `key_ms` instead of `first_ms`.
    pub(crate) fn through(self, first_ms: i64, key_ms: i64) -> Self {
        match self {
            Self::Constant { rate, phase } => {
                let distance = (key_ms - first_ms) * QUARTERS_PER_MS - phase;
                let half = rate.quarters / 2;
                // What is left of the distance after whole periods, nearest to none.
                let rest = (distance + half).rem_euclid(rate.quarters) - half;
                Self::Constant { rate, phase: -rest }
            }
            Self::Variable { .. } => self,
        }
    }

    /// The interval that is expected, in quarter ticks.
    pub(crate) fn interval(self) -> i64 {
        match self {
            Self::Constant { rate, .. } => rate.quarters,
            Self::Variable { interval } => interval.max(1),
        }
    }
}

/// The longest interval believed, in milliseconds; stamps further apart than this jump.
const LONGEST_MS: i64 = super::FORWARD_MS;

/// The interval assumed of a track of which nothing is known: 30 fps.
const UNKNOWN_INTERVAL: i64 = 12_000;

/// Judges `stamps_ms`, the stamps so far in decode order. None while more of them could change the
/// answer; never none when `last_word` is set.
pub(crate) fn judge(stamps_ms: &[i64], claim: Option<f64>, last_word: bool) -> Option<Cadence> {
    let claimed = claim.and_then(Rate::claimed);
    let intervals = stamps_ms.len().saturating_sub(1);
    let cover_ms = match stamps_ms {
        [first, .., last] => last - first,
        _ => 0,
    };
    if let Some(rate) = claimed
        && intervals >= CLAIM_INTERVALS
        && let Some(fit) = Fit::of(rate, stamps_ms)
    {
        return Some(Cadence::Constant { rate, phase: fit.middle });
    }
    if !last_word && (intervals < PLAIN_INTERVALS || cover_ms < PLAIN_COVER_MS) {
        return None;
    }
    let fits = NOMINAL.into_iter().filter_map(|rate| Some((rate, Fit::of(rate, stamps_ms)?)));
    let best = fits.min_by_key(|(rate, fit)| {
        fit.spread + if rate.is_fraction() { FRACTION_PENALTY } else { 0 }
    });
    if let Some((rate, fit)) = best
        && intervals >= 2
    {
        return Some(Cadence::Constant { rate, phase: fit.middle });
    }
    let fallback = claimed.map_or(UNKNOWN_INTERVAL, Rate::quarters);
    last_word.then(|| Cadence::Variable { interval: median(stamps_ms).unwrap_or(fallback) })
}

/// How stamps lie on a grid.
struct Fit {
    /// Quarter ticks between the earliest and the latest stamp about the grid.
    spread: i64,
    /// The middle between those two, about the grid through the first stamp.
    middle: i64,
}

impl Fit {
    /// Lays the stamps on the grid of `rate`; none when they scatter too far, or mostly skip grid
    /// points (30 fps stamps also lie on the grid of 60 fps).
    fn of(rate: Rate, stamps_ms: &[i64]) -> Option<Self> {
        let (mut index, mut single, mut low, mut high) = (0, 0, 0, 0);
        for (i, pair) in stamps_ms.windows(2).enumerate() {
            let [earlier, later] = pair else { return None };
            let delta = (later - earlier) * QUARTERS_PER_MS;
            let steps = (delta + rate.quarters / 2).div_euclid(rate.quarters);
            if steps < 1 {
                return None;
            }
            single += usize::from(steps == 1);
            index += steps;
            let first = stamps_ms.first()?;
            let off = (later - first) * QUARTERS_PER_MS - index * rate.quarters;
            low = low.min(off);
            high = high.max(off);
            // A stray stamp early on is judged like one at the end.
            if high - low > 2 * SNAP_QUARTERS || (i > 8 && single * 2 < i) {
                return None;
            }
        }
        let intervals = stamps_ms.len().saturating_sub(1);
        (single * 5 >= intervals * 3)
            .then_some(Self { spread: high - low, middle: low.midpoint(high) })
    }
}

/// The median of the intervals that are longer than nothing, in quarter ticks.
fn median(stamps_ms: &[i64]) -> Option<i64> {
    let mut deltas: Vec<i64> = stamps_ms
        .windows(2)
        .filter_map(|pair| match pair {
            [earlier, later] if later > earlier => Some(later - earlier),
            _ => None,
        })
        .collect();
    deltas.sort_unstable();
    deltas.get(deltas.len() / 2).map(|ms| (*ms).min(LONGEST_MS) * QUARTERS_PER_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamps(fps: f64, count: usize) -> Vec<i64> {
        (0..count).map(|i| (i as f64 * 1000.0 / fps).round() as i64).collect()
    }

    #[test]
    fn each_nominal_rate_is_found_by_its_rounded_stamps_alone() {
        for rate in NOMINAL {
            let fps = 360_000.0 / rate.quarters as f64;
            let found = judge(&stamps(fps, 2 + 3 * fps as usize), None, true);
            let Some(Cadence::Constant { rate: found, .. }) = found else {
                panic!("{fps}: {found:?}")
            };
            assert_eq!(found, rate, "{fps}");
        }
    }

    #[test]
    fn a_claim_is_believed_once_stamps_bear_it_out() {
        let judged = judge(&stamps(29.97, 5), Some(29.97), false);
        let Some(Cadence::Constant { rate, .. }) = judged else { panic!("{judged:?}") };
        assert_eq!(rate.milli(), 29_970);
        assert_eq!(judge(&stamps(29.97, 4), Some(29.97), false), None);
        // 60 is claimed, 30 is sent.
        let Some(Cadence::Constant { rate, .. }) = judge(&stamps(30.0, 20), Some(60.0), false)
        else {
            panic!("30 fps not found")
        };
        assert_eq!(rate.milli(), 30_000);
    }

    #[test]
    fn the_grid_may_be_taken_through_another_stamp() {
        // 0 33 67 100: about the first the stamps lie -1/3 to 1/3 ms off, about the third -2/3 to 0.
        let cadence = judge(&stamps(30.0, 30), None, true).unwrap();
        assert_eq!(cadence, Cadence::Constant { rate: Rate { quarters: 12_000 }, phase: 0 });
        let moved = Cadence::Constant { rate: Rate { quarters: 12_000 }, phase: -120 };
        assert_eq!(cadence.through(0, 67), moved);
    }

    #[test]
    fn scattered_stamps_have_a_median_and_no_rate() {
        let scattered = [0, 20, 71, 99, 150, 164, 214, 229, 270, 312];
        assert_eq!(judge(&scattered, Some(30.0), false), None);
        let judged = judge(&scattered, Some(30.0), true);
        assert_eq!(judged, Some(Cadence::Variable { interval: 41 * QUARTERS_PER_MS }));
        let odd = judge(&[5], Some(25.0), true);
        assert_eq!(odd, Some(Cadence::Variable { interval: 14_400 }));
    }

    #[test]
    fn siblings_are_the_rates_a_thousandth_apart() {
        let pairs: Vec<_> =
            NOMINAL.iter().filter_map(|r| Some((r.milli(), r.sibling()?.milli()))).collect();
        let whole = [(23_976, 24_000), (29_970, 30_000), (59_940, 60_000), (119_880, 120_000)];
        assert_eq!(pairs.len(), 8);
        for (fraction, rate) in whole {
            assert!(pairs.contains(&(fraction, rate)) && pairs.contains(&(rate, fraction)));
        }
    }
}
