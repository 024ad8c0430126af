//! What goes wrong, and when.
//!
//! In: the seed's random numbers. Out: faults, each with a time and, where it lasts, an end. The
//! nemesis keeps to what the cluster promises to survive: of several voters, at most one disk is
//! lost at a time.

use std::time::Duration;

use rand::Rng as _;
use rand::rngs::StdRng;

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Control nodes fall into two parts; agents keep to one or both.
    Split,
    /// What goes from one node to the others is lost, what comes from them arrives.
    OneWay,
    /// Some links are up and down by turns.
    Flap,
    /// The leader is cut off from everyone, or from the voters alone.
    IsolateLeader,
    /// Links are whole again.
    Mend,
    /// A share of packets is lost, doubled or late.
    Weather,
    /// A control process dies and starts again.
    Crash,
    /// The leader's process dies and starts again.
    CrashLeader,
    /// A control process dies within its next write.
    CrashInWrite,
    /// The leader's process dies, in bad weather, and others within the writes of the election.
    Storm,
    /// A control process stands still.
    Pause,
    /// The leader's process stands still.
    PauseLeader,
    /// A disk takes long for each write.
    SlowDisk,
    /// A disk is full, for a while.
    FullDisk,
    /// A node's wall clock jumps.
    ClockJump,
    /// A voter loses its disk.
    Wipe,
    /// An origin's or edge's process dies and starts again.
    CrashAgent,
    /// An origin or edge is cut off.
    CutAgent,
}

const ALL: [Fault; 18] = [
    Fault::Split,
    Fault::OneWay,
    Fault::Flap,
    Fault::IsolateLeader,
    Fault::Mend,
    Fault::Weather,
    Fault::Crash,
    Fault::CrashLeader,
    Fault::CrashInWrite,
    Fault::Storm,
    Fault::Pause,
    Fault::PauseLeader,
    Fault::SlowDisk,
    Fault::FullDisk,
    Fault::ClockJump,
    Fault::Wipe,
    Fault::CrashAgent,
    Fault::CutAgent,
];

/// The faults of a run, by time. Each seed has a few kinds of fault rather than all of them, so that
/// some runs go deep into one kind.
pub(super) fn plan(rng: &mut StdRng, from: Duration, until: Duration) -> Vec<(Duration, Fault)> {
    let kinds: Vec<Fault> = {
        let count = rng.random_range(1..=5);
        (0..count).map(|_| ALL[rng.random_range(0..ALL.len())]).collect()
    };
    let gap_ms = rng.random_range(100..1200);
    let mut faults = Vec::new();
    let mut at = from;
    loop {
        at += Duration::from_millis(rng.random_range(gap_ms / 2..=gap_ms));
        if at >= until {
            return faults;
        }
        // Every other cut is mended before the next.
        let kind = if rng.random_range(0..4) == 0 {
            Fault::Mend
        } else {
            kinds[rng.random_range(0..kinds.len())]
        };
        faults.push((at, kind));
    }
}
