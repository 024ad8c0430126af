//! What is counted and timed, per protocol.
//!
//! In: what viewers and publishers saw. Out: totals and histograms for [`crate::report`]. Counters are
//! written from any thread; histograms only by timed viewers, so that their locks are never waited
//! for. Times count only while the [`Window`] is open; start-up times and errors always.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hdrhistogram::Histogram;

use crate::scenario::Protocol;

mod room;

pub use room::RoomTally;

/// The longest time a histogram tells apart: a minute, in microseconds.
const LONGEST_MICROS: u64 = 60_000_000;
/// Three significant digits.
const DIGITS: u8 = 3;
/// Kinds of errors kept by name; further ones are counted under [`OTHER`].
const MAX_REASONS: usize = 32;
const OTHER: &str = "other";

/// When measuring goes on.
#[derive(Debug, Default)]
pub struct Window {
    open: AtomicBool,
    over: AtomicBool,
}

impl Window {
    /// Starts measuring.
    pub fn open(&self) {
        self.open.store(true, Relaxed);
    }

    /// Ends measuring: from here on connections may end without being errors.
    pub fn close(&self) {
        self.over.store(true, Relaxed);
        self.open.store(false, Relaxed);
    }

    /// Whether measuring goes on.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.load(Relaxed)
    }

    /// Whether measuring has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }
}

/// A histogram of microseconds.
#[derive(Debug)]
pub struct Times(Mutex<Histogram<u64>>);

impl Default for Times {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST_MICROS, DIGITS);
        Self(Mutex::new(histogram.expect("constant bounds are valid")))
    }
}

impl Times {
    /// Adds a time.
    pub fn record(&self, micros: u64) {
        lock(&self.0).saturating_record(micros.max(1));
    }

    /// Adds a time of a request made every `interval` micros, and what the requests not made
    /// meanwhile would have taken: the correction for coordinated omission.
    pub fn record_paced(&self, micros: u64, interval: u64) {
        let micros = micros.clamp(1, LONGEST_MICROS);
        // Cannot fail within the bounds.
        let _ = lock(&self.0).record_correct(micros, interval);
    }

    /// What was recorded so far.
    #[must_use]
    pub fn get(&self) -> Histogram<u64> {
        lock(&self.0).clone()
    }
}

/// The figures of one protocol.
#[derive(Debug)]
pub struct Tally {
    /// Which.
    pub protocol: Protocol,
    /// Viewers asked for; [`Self::bytes`] has a place for each.
    pub wanted: u32,
    /// When measuring goes on.
    pub window: Arc<Window>,
    /// Bytes of bodies per viewer, head bytes not counted.
    bytes: Box<[AtomicU64]>,
    /// Viewers that have received media.
    pub started: AtomicU64,
    /// Viewers that freeze: a timed one by its player's clock, another by five seconds without bytes.
    pub stalls: AtomicU64,
    /// Frames or parts that a viewer was not given.
    pub skipped: AtomicU64,
    /// Frames or parts that a viewer was given twice.
    pub repeated: AtomicU64,
    /// Requests answered in full.
    pub requests: AtomicU64,
    errors: AtomicU64,
    reasons: Reasons,
    /// What room members count besides; nothing of other protocols.
    pub room: Option<Box<RoomTally>>,
    /// From the moment a frame is sent to the moment a viewer has it.
    pub latency: Times,
    /// From the moment a viewer arrives to its first byte of body.
    pub first_byte: Times,
    /// From the moment a part is complete to the last byte of the playlist that lists it.
    pub reload: Times,
    /// From request to last byte, of parts and segments that exist already.
    pub fetch: Times,
}

impl Tally {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(protocol: Protocol, wanted: u32, window: Arc<Window>) -> Self {
        Self {
            protocol,
            wanted,
            window,
            bytes: (0..wanted).map(|_| AtomicU64::new(0)).collect(),
            started: AtomicU64::new(0),
            stalls: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            reasons: Reasons::default(),
            room: (protocol == Protocol::Ws).then(Box::default),
            latency: Times::default(),
            first_byte: Times::default(),
            reload: Times::default(),
            fetch: Times::default(),
        }
    }

    /// Counts bytes of a viewer.
    pub fn received(&self, viewer: u32, bytes: usize) {
        if let Some(seat) = self.bytes.get(viewer as usize) {
            seat.fetch_add(bytes as u64, Relaxed);
        }
    }

    /// Bytes of every viewer so far.
    #[must_use]
    pub fn bytes(&self) -> Vec<u64> {
        self.bytes.iter().map(|b| b.load(Relaxed)).collect()
    }

    /// Counts an event while measuring.
    pub fn count(&self, counter: &AtomicU64, by: u64) {
        if self.window.is_open() {
            counter.fetch_add(by, Relaxed);
        }
    }

    /// Counts an error, unless measuring is over.
    pub fn error(&self, reason: &str) {
        if self.window.is_over() {
            return;
        }
        self.errors.fetch_add(1, Relaxed);
        self.reasons.count(reason);
    }

    /// Errors so far.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.errors.load(Relaxed)
    }

    /// What went wrong how often.
    #[must_use]
    pub fn reasons(&self) -> BTreeMap<String, u64> {
        self.reasons.get()
    }
}

/// How often something happened for which reason.
#[derive(Debug, Default)]
pub struct Reasons(Mutex<BTreeMap<String, u64>>);

impl Reasons {
    /// Counts one; of further kinds than are kept by name as [`OTHER`].
    pub fn count(&self, reason: &str) {
        let mut reasons = lock(&self.0);
        let known = reasons.len() < MAX_REASONS || reasons.contains_key(reason);
        *reasons.entry(if known { reason } else { OTHER }.to_owned()).or_default() += 1;
    }

    /// All so far.
    #[must_use]
    pub fn get(&self) -> BTreeMap<String, u64> {
        lock(&self.0).clone()
    }
}

/// A counter nobody panics over is still sound after a panic elsewhere.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_window_counts() {
        let window = Arc::new(Window::default());
        let tally = Tally::new(Protocol::Flv, 2, Arc::clone(&window));
        tally.count(&tally.stalls, 1);
        tally.error("before");
        window.open();
        tally.count(&tally.stalls, 1);
        tally.received(1, 10);
        tally.received(2, 10);
        window.close();
        tally.count(&tally.stalls, 1);
        tally.error("after");
        assert_eq!(tally.stalls.load(Relaxed), 1);
        assert_eq!(tally.errors(), 1);
        assert_eq!(tally.bytes(), [0, 10], "a viewer that does not exist has no bytes");
    }

    #[test]
    fn reasons_are_bounded() {
        let tally = Tally::new(Protocol::Flv, 1, Arc::default());
        for reason in 0..1000 {
            tally.error(&format!("reason {reason}"));
        }
        assert_eq!(tally.reasons().len(), MAX_REASONS + 1);
        assert_eq!(tally.reasons()[OTHER], 1000 - MAX_REASONS as u64);
    }

    #[test]
    fn a_stalled_request_stands_for_those_not_made() {
        let times = Times::default();
        for _ in 0..99 {
            times.record_paced(1_000, 1_000);
        }
        times.record_paced(1_000_000, 1_000);
        let p50 = times.get().value_at_quantile(0.5);
        assert!(p50 > 400_000, "half of the time requests would have waited: {p50}");
    }
}
