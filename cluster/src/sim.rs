//! Whole clusters in one thread: the real driver, state machine, view and watches, with a virtual
//! clock, network and disk. One seed decides everything, so a seed replays exactly.
//!
//! In: a seed and, to show that the checkers work, a planted bug. Out: a [`Report`]. Control nodes
//! run [`crate::driver::Driver`] on simulated disks; origins claim, hold and release rooms and make
//! segments under their epochs; edges watch and fetch; an operator adds, removes, wipes, drains and
//! moves. A nemesis cuts, loses, crashes, pauses and fills disks, then everything is healed and must
//! come to rest in good order.
//!
//! Client and transport are simulated, as they are made of tasks and sockets; what they promise is
//! kept here by simpler means (questions are asked again, frames may be lost, a watch stream is
//! ordered or broken).

mod agents;
mod check;
mod control;
mod disk;
mod nemesis;
mod net;
pub mod scale;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

pub use crate::planted::Bug;

use world::World;

/// How a run went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What was promised and not kept, if anything.
    pub violation: Option<String>,
    /// A digest of everything that happened: the same for the same seed.
    pub digest: u64,
    /// What happened how often.
    pub counts: Counts,
}

/// What happened how often in a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events handled.
    pub events: u64,
    /// Questions answered positively.
    pub answers: u64,
    /// Grants seen, each epoch of a room once.
    pub grants: u64,
    /// Terms with a leader.
    pub leaders: u64,
    /// Control processes that died or were restarted.
    pub crashes: u64,
    /// Membership changes that took effect.
    pub changes: u64,
    /// Segments fetched by edges.
    pub fetches: u64,
    /// Faults of the nemesis.
    pub faults: u64,
}

/// Runs one seed.
#[must_use]
pub fn run(seed: u64, bug: Option<Bug>) -> Report {
    run_traced(seed, bug, false)
}

/// Runs one seed, and prints what happens if asked to.
#[must_use]
pub fn run_traced(seed: u64, bug: Option<Bug>, is_traced: bool) -> Report {
    crate::planted::plant(bug);
    let mut world = World::new(seed, is_traced);
    let ended = catch_unwind(AssertUnwindSafe(|| world.run()));
    crate::planted::plant(None);
    let violation = match ended {
        Ok(Ok(())) => None,
        Ok(Err(violation)) => Some(violation),
        // No disk is ever damaged here, so a panic of the raft crate is a fault of ours.
        Err(panic) => Some(format!("panic: {}", crate::runtime::panic_text(panic.as_ref()))),
    };
    Report { seed, violation, digest: world.digest(), counts: world.counts() }
}
