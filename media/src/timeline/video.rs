//! The clock of the video track: snaps stamps to the grid of a nominal rate, or follows them.
//!
//! In: where the stamps put each frame, in 90 kHz ticks of the room. Out: decode times, strictly
//! rising, and composition offsets. On a grid, stamps that were rounded to milliseconds or jitter a
//! little give exact intervals; a grid that stamps drift away from is moved after them slowly, so
//! that nothing accumulates.

use std::collections::VecDeque;

use super::rate::{Cadence, Rate, SNAP_QUARTERS};
use crate::manifest::GridMark;

/// Least distance between two frames: FLV cannot tell nearer ones apart.
pub(crate) const MIN_STEP: u64 = 90;

/// The longest interval that is expected to come again: a second.
const MAX_INTERVAL: u64 = 90_000;

/// Stamps remembered to lay a grid anew when they have drifted off it.
const HISTORY: usize = 64;

/// Stamps that a grid laid anew must fit, at least.
const REFIT_MIN: usize = 8;

/// Ticks per frame by which a grid laid anew is approached: an interval of 60 fps changes by 0.3 %.
const SLEW: i64 = 4;

/// How much tighter, in quarter ticks, stamps must lie on the neighbouring rate to change to it.
const SWITCH_GAIN: i64 = 120;

/// Stamps of a new configuration from which its rate is learnt.
const LEARN: usize = 30;

/// Where a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VideoPlace {
    /// Decode time in ticks of the room.
    pub(crate) dts: u64,
    /// Presentation minus decode time in ticks.
    pub(crate) cts: i32,
    /// Whether its stamp lay off the grid and the rate counts as variable from here on.
    pub(crate) lost_grid: bool,
}

/// Places video frames; lives as long as the room.
#[derive(Debug, Clone)]
pub(crate) struct VideoClock {
    mode: Mode,
    last: Option<u64>,
    floor: u64,
    /// Stamps in milliseconds since a new configuration, while its rate is being learnt.
    learning: Option<Vec<i64>>,
}

#[derive(Debug, Clone)]
enum Mode {
    Grid(Grid),
    /// The expected interval in ticks: a running mean.
    Variable {
        interval: u64,
    },
}

#[derive(Debug, Clone)]
struct Grid {
    rate: Rate,
    /// Decode time of index 0 in quarter ticks, before the shift.
    origin: i64,
    /// Where stamps lie about the grid, in quarter ticks.
    phase: i64,
    /// Ticks by which decode times are shifted after drifting stamps, and the aim of it.
    shift: i64,
    shift_aim: i64,
    /// The index of the last frame.
    last: Option<i64>,
    /// (index, stamp in quarter ticks) of the latest frames.
    history: VecDeque<(i64, i64)>,
}

impl VideoClock {
    /// A clock whose first frame may start at `floor`.
    pub(crate) fn new(floor: u64) -> Self {
        let mode = Mode::Variable { interval: 3_000 };
        Self { mode, last: None, floor, learning: None }
    }

    /// A clock that goes on after a frame at `last` which an earlier home placed, said to end at
    /// `end`, and on that home's grid.
    pub(crate) fn go_on(last: u64, end: u64, grid: Option<GridMark>) -> Self {
        let known = grid.and_then(|g| Some((Rate::of_milli(g.rate_milli)?, g.phase, g.slew)));
        let mode = match known {
            Some((rate, phase, slew)) => {
                let mut grid = Grid::new(rate, last, phase);
                (grid.last, grid.shift_aim) = (Some(0), slew);
                Mode::Grid(grid)
            }
            None => {
                Mode::Variable { interval: end.saturating_sub(last).clamp(MIN_STEP, MAX_INTERVAL) }
            }
        };
        Self { mode, last: Some(last), floor: 0, learning: None }
    }

    /// The grid as another home could go on with it after the last frame.
    pub(crate) fn grid(&self) -> Option<GridMark> {
        match &self.mode {
            Mode::Grid(grid) => {
                let (rate_milli, slew) = (grid.rate.milli(), grid.shift_aim - grid.shift);
                Some(GridMark { rate_milli, phase: grid.phase - grid.shift * 4, slew })
            }
            Mode::Variable { .. } => None,
        }
    }

    /// Starts a publish at `start` with `cadence`: the first stamp will be `start`.
    pub(crate) fn begin(&mut self, start: u64, cadence: Cadence) {
        self.learning = None;
        self.floor = self.floor.max(start);
        self.mode = match cadence {
            Cadence::Constant { rate, phase } => Mode::Grid(Grid::new(rate, start, phase)),
            Cadence::Variable { interval } => {
                Mode::Variable { interval: ((interval / 4).max(1) as u64).min(MAX_INTERVAL) }
            }
        };
    }

    /// Stamps jumped, and `start` is where they go on: a grid is laid anew through it.
    pub(crate) fn rebase(&mut self, start: u64) {
        self.floor = self.floor.max(start);
        if let Mode::Grid(grid) = &mut self.mode {
            *grid = Grid::new(grid.rate, start, 0);
        }
    }

    /// A new configuration came into force: the rate is judged again by the stamps that follow.
    pub(crate) fn relearn(&mut self) {
        self.learning = Some(Vec::with_capacity(LEARN));
    }

    /// No later frame may start before `ticks`: it was said that the last one lasts so long.
    pub(crate) fn not_before(&mut self, ticks: u64) {
        self.floor = self.floor.max(ticks);
    }

    /// How long the frame after the last one is expected to be, in ticks.
    pub(crate) fn interval(&self) -> u64 {
        match &self.mode {
            // Rounded up, so that a frame counted on never ends early.
            Mode::Grid(grid) => (grid.rate.quarters() as u64).div_ceil(4),
            Mode::Variable { interval } => *interval,
        }
    }

    /// The nominal rate, if the track keeps one.
    pub(crate) fn rate(&self) -> Option<Rate> {
        match &self.mode {
            Mode::Grid(grid) => Some(grid.rate),
            Mode::Variable { .. } => None,
        }
    }

    /// Where the last frame is expected to end.
    pub(crate) fn end(&self) -> u64 {
        self.last.map_or(0, |last| last + self.interval()).max(self.floor)
    }

    /// Places the frame whose stamp is `position` (90 kHz ticks of the room).
    pub(crate) fn place(&mut self, position: i64, cts_ms: i32) -> VideoPlace {
        self.learn(position);
        let cts_plain = i64::from(cts_ms) * 90;
        let mut lost_grid = false;
        let (wanted, cts) = match &mut self.mode {
            Mode::Grid(grid) => match grid.place(position) {
                Some((index, dts)) => (dts, grid.composition(index, cts_plain)),
                None => {
                    let interval = (grid.rate.quarters() / 4) as u64;
                    self.mode = Mode::Variable { interval };
                    lost_grid = true;
                    (position, cts_plain)
                }
            },
            Mode::Variable { .. } => (position, cts_plain),
        };
        let least = self.last.map_or(0, |last| last + MIN_STEP).max(self.floor);
        let dts = u64::try_from(wanted).unwrap_or(0).max(least);
        if let (Mode::Variable { interval }, Some(last)) = (&mut self.mode, self.last) {
            *interval = (*interval * 7 + (dts - last).min(MAX_INTERVAL)).div_ceil(8);
        }
        self.last = Some(dts);
        // Presentation may not lie before the start of the room, nor further off than a player
        // would wait.
        let earliest = -i64::try_from(dts).unwrap_or(i64::MAX);
        let cts = cts.clamp(earliest.max(i64::from(i32::MIN)), i64::from(i32::MAX)) as i32;
        VideoPlace { dts, cts, lost_grid }
    }

    fn learn(&mut self, position: i64) {
        let Some(stamps) = &mut self.learning else { return };
        stamps.push(position.div_euclid(90));
        if stamps.len() < LEARN {
            return;
        }
        let judged = super::rate::judge(stamps, None, true);
        self.learning = None;
        if let Some(Cadence::Constant { rate, .. }) = judged
            && self.rate() != Some(rate)
            && let Some(last) = self.last
        {
            let start = i64::try_from(last).unwrap_or(i64::MAX).max(position);
            self.mode = Mode::Grid(Grid::new(rate, start as u64, 0));
        }
    }
}

impl Grid {
    fn new(rate: Rate, start: u64, phase: i64) -> Self {
        let origin = i64::try_from(start).unwrap_or(i64::MAX / 8) * 4;
        let history = VecDeque::with_capacity(HISTORY);
        Self { rate, origin, phase, shift: 0, shift_aim: 0, last: None, history }
    }

    fn place(&mut self, position: i64) -> Option<(i64, i64)> {
        let stamp = position * 4;
        let mut index = self.nearest(stamp);
        if self.last.is_some_and(|last| index <= last) {
            return None;
        }
        if (stamp - self.point(index) - self.phase).abs() > SNAP_QUARTERS {
            let steps = self.last.map_or(index, |last| index - last);
            if !self.refit(stamp) {
                return None;
            }
            index = self.last.map_or_else(|| self.nearest(stamp), |last| last + steps);
        }
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back((index, stamp));
        self.last = Some(index);
        self.shift += (self.shift_aim - self.shift).clamp(-SLEW, SLEW);
        Some((index, self.dts(index)))
    }

    /// The grid point of an index, in quarter ticks.
    fn point(&self, index: i64) -> i64 {
        self.origin + index * self.rate.quarters()
    }

    fn nearest(&self, stamp: i64) -> i64 {
        let period = self.rate.quarters();
        (stamp - self.phase - self.origin + period / 2).div_euclid(period)
    }

    fn dts(&self, index: i64) -> i64 {
        (self.point(index) + 2).div_euclid(4) + self.shift
    }

    /// The composition offset, on the grid when it lies near it.
    fn composition(&self, index: i64, cts: i64) -> i64 {
        let period = self.rate.quarters();
        let steps = (cts * 4 + period / 2).div_euclid(period);
        if (cts * 4 - steps * period).abs() > SNAP_QUARTERS {
            return cts;
        }
        self.dts(index + steps) - self.dts(index)
    }

    /// Lays the grid through the latest stamps, `stamp` the newest, at this rate or the neighbouring
    /// one. Returns whether they fit; if not, nothing has changed.
    fn refit(&mut self, stamp: i64) -> bool {
        let Some(last) = self.last.filter(|_| self.history.len() >= REFIT_MIN) else {
            return false;
        };
        let newest = (self.nearest(stamp).max(last + 1), stamp);
        let here = self.scatter(self.rate, last, newest);
        let there = self.rate.sibling().map(|rate| (rate, self.scatter(rate, last, newest)));
        let (rate, (low, high)) = match there {
            Some((rate, (low, high))) if high - low + SWITCH_GAIN < here.1 - here.0 => {
                (rate, (low, high))
            }
            _ => (self.rate, here),
        };
        if high - low > 2 * SNAP_QUARTERS {
            return false;
        }
        // Indices are counted on; only where index 0 would lie moves with the period.
        self.origin = self.point(last) - last * rate.quarters();
        self.rate = rate;
        self.phase = low.midpoint(high);
        self.shift_aim = self.phase / 4;
        true
    }

    /// The earliest and latest of the remembered stamps about a grid of `rate` through the present
    /// point of index `last`.
    fn scatter(&self, rate: Rate, last: i64, newest: (i64, i64)) -> (i64, i64) {
        let through = self.point(last);
        let offs = self.history.iter().copied().chain([newest]);
        offs.map(|(index, stamp)| stamp - through - (index - last) * rate.quarters())
            .fold((i64::MAX, i64::MIN), |(low, high), off| (low.min(off), high.max(off)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::rate::judge;

    fn constant(fps: f64) -> Cadence {
        Cadence::Constant { rate: Rate::claimed(fps).unwrap(), phase: 0 }
    }

    #[test]
    fn rounded_stamps_become_exact() {
        for (fps, period) in [(30.0, 3_000), (60.0, 1_500), (25.0, 3_600), (29.97, 3_003)] {
            let mut clock = VideoClock::new(0);
            clock.begin(0, constant(fps));
            for i in 0..10_000_u64 {
                let ms = (i * period + 45) / 90;
                let place = clock.place(ms as i64 * 90, 0);
                assert_eq!((place.dts, place.lost_grid), (i * period, false), "{fps} {i}");
            }
        }
    }

    #[test]
    fn composition_lands_on_the_grid() {
        let mut clock = VideoClock::new(0);
        clock.begin(0, constant(23.976));
        assert_eq!(clock.place(0, 83).cts, 7_508);
        assert_eq!(clock.place(42 * 90, 0).cts, 0);
        assert_eq!(clock.place(83 * 90, 125).cts, 11_261);
        assert_eq!(clock.place(125 * 90, 60).cts, 5_400, "off the grid stays as it is");
        assert_eq!(VideoClock::new(0).place(0, -40).cts, 0, "never before the room");
    }

    #[test]
    fn a_wrong_neighbour_is_corrected_and_drift_followed() {
        for period_ppm in [1_000_000_i64, 1_001_000, 1_000_080, 999_900] {
            let mut clock = VideoClock::new(0);
            clock.begin(0, constant(30.0));
            for i in 0..100_000_i64 {
                let ticks = i * 3_000 * period_ppm / 1_000_000;
                let place = clock.place((ticks + 45) / 90 * 90, 0);
                assert!(!place.lost_grid, "{period_ppm} {i}");
                assert!((place.dts as i64 - ticks).abs() < 5 * 90, "{period_ppm} {i} {place:?}");
            }
            let expected = if period_ppm == 1_001_000 { 29_970 } else { 30_000 };
            assert_eq!(clock.rate().map(Rate::milli), Some(expected));
        }
    }

    #[test]
    fn a_stamp_off_the_grid_makes_the_rate_variable() {
        let mut clock = VideoClock::new(0);
        clock.begin(0, constant(25.0));
        for i in 0..20 {
            assert!(!clock.place(i * 3_600, 0).lost_grid);
        }
        let place = clock.place(20 * 3_600 + 900, 0);
        assert!(place.lost_grid);
        assert_eq!(place.dts, 20 * 3_600 + 900);
        assert_eq!(clock.place(0, 0).dts, place.dts + MIN_STEP, "never back");
        assert_eq!(clock.rate(), None);
    }

    #[test]
    fn a_new_configuration_may_find_a_rate_again() {
        let mut clock = VideoClock::new(0);
        clock.begin(0, Cadence::Variable { interval: 12_000 });
        clock.relearn();
        for i in 0..60_i64 {
            let _ = clock.place((i * 3_000 + 45) / 90 * 90, 0);
        }
        assert_eq!(clock.rate().map(Rate::milli), Some(30_000));
        assert!(judge(&[], None, true).is_some());
    }
}
