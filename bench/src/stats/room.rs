//! What room members count besides what all viewers do.
//!
//! In: what members sent and were sent. Out: totals and times for [`crate::report`]. Deliveries, frames and
//! what was sent count while the window is open; connections, resumes and refusals always.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::{Reasons, Times};

/// How finely it is known when members came in.
const BIN: Duration = Duration::from_millis(100);
/// An hour of bins; who comes later is counted in the last.
const BINS: usize = 36_000;
/// Bins in a second.
const SECOND: usize = 10;

/// The figures of all members.
#[derive(Debug)]
pub struct RoomTally {
    /// Data frames that members were sent.
    pub frames: AtomicU64,
    /// Messages in them, each member counted.
    pub deliveries: AtomicU64,
    /// Messages that members sent.
    pub sent: AtomicU64,
    /// Of those and of gifts, answered with a place in the room's order.
    pub accepted: AtomicU64,
    /// Answered as shown at one edge alone.
    pub local: AtomicU64,
    /// Answered as waiting for a moderator.
    pub held: AtomicU64,
    /// Never answered: their connection ended.
    pub unanswered: AtomicU64,
    /// Gifts that members sent.
    pub gifts: AtomicU64,
    /// Likes that members sent.
    pub likes: AtomicU64,
    /// Messages that batches say they left out, as timed members read it.
    pub shed: AtomicU64,
    /// Offsets that batches cover and neither hold nor count, as timed members find.
    pub lost: AtomicU64,
    /// Offsets that came twice on one connection to a timed member.
    pub duplicated: AtomicU64,
    /// Connections that got as far as a welcome.
    pub connects: AtomicU64,
    /// Of those, with a position whose past was there.
    pub recovered: AtomicU64,
    /// Of those, with a position whose past was gone.
    pub not_recovered: AtomicU64,
    /// Why messages and gifts were refused.
    pub refused: Reasons,
    /// With what connections were closed.
    pub closes: Reasons,
    /// From when a message was due to its answer.
    pub ack: Times,
    /// From the first packet to the welcome.
    pub connect: Times,
    /// The same, of those who resumed.
    pub resume: Times,
    came: Box<[AtomicU32]>,
}

impl Default for RoomTally {
    fn default() -> Self {
        Self {
            frames: AtomicU64::default(),
            deliveries: AtomicU64::default(),
            sent: AtomicU64::default(),
            accepted: AtomicU64::default(),
            local: AtomicU64::default(),
            held: AtomicU64::default(),
            unanswered: AtomicU64::default(),
            gifts: AtomicU64::default(),
            likes: AtomicU64::default(),
            shed: AtomicU64::default(),
            lost: AtomicU64::default(),
            duplicated: AtomicU64::default(),
            connects: AtomicU64::default(),
            recovered: AtomicU64::default(),
            not_recovered: AtomicU64::default(),
            refused: Reasons::default(),
            closes: Reasons::default(),
            ack: Times::default(),
            connect: Times::default(),
            resume: Times::default(),
            came: (0..BINS).map(|_| AtomicU32::new(0)).collect(),
        }
    }
}

impl RoomTally {
    /// Somebody was welcomed, so long after the run began.
    pub fn came(&self, since_begin: Duration) {
        self.connects.fetch_add(1, Relaxed);
        let bin = (since_begin.as_millis() / BIN.as_millis()) as usize;
        if let Some(bin) = self.came.get(bin.min(BINS - 1)) {
            bin.fetch_add(1, Relaxed);
        }
    }

    /// The most who were welcomed within one second.
    #[must_use]
    pub fn most_in_a_second(&self) -> u32 {
        let bins: Vec<u32> = self.came.iter().map(|bin| bin.load(Relaxed)).collect();
        bins.windows(SECOND).map(|second| second.iter().sum()).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_second_is_found_wherever_it_begins() {
        let tally = RoomTally::default();
        for ms in [100, 1_900, 2_000, 2_500, 2_899, 2_900, 90_000_000] {
            tally.came(Duration::from_millis(ms));
        }
        assert_eq!((tally.most_in_a_second(), tally.connects.load(Relaxed)), (4, 7));
    }
}
