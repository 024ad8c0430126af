//! Bugs that can be planted, to show that the simulation finds them.
//!
//! In a build without the `sim` feature every question here is answered with a constant no. With it,
//! a simulation plants at most one bug, on its own thread.

/// A bug that can be planted. Each is one that real systems have shipped.
#[cfg_attr(
    not(feature = "sim"),
    expect(dead_code, unreachable_pub, reason = "planted by simulations alone")
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Writes are acknowledged before they are on disk.
    SkipFsync,
    /// A placement is answered when it is proposed, not when it is committed.
    AnswerBeforeCommit,
    /// The vote is not written to disk.
    ForgetVote,
    /// After a restart, entries are applied to a state that has them already.
    ApplyTwice,
    /// A room is released whatever the epoch of whoever asks.
    IgnoreEpoch,
    /// A leader answers reads from what it believes, without asking a majority.
    StaleRead,
    /// An entry without data is passed over even where it changes the configuration.
    StayJoint,
    /// A member is sent a snapshot whose configuration does not name it, which it ignores.
    OldSnapshot,
    /// Watchers are not told that a snapshot took the place of changes.
    NoResync,
    /// A restarted home keeps the epochs of its former life.
    KeepEpochs,
}

#[cfg(feature = "sim")]
impl Bug {
    /// All of them.
    pub const ALL: [Bug; 10] = [
        Bug::SkipFsync,
        Bug::AnswerBeforeCommit,
        Bug::ForgetVote,
        Bug::ApplyTwice,
        Bug::IgnoreEpoch,
        Bug::StaleRead,
        Bug::StayJoint,
        Bug::OldSnapshot,
        Bug::NoResync,
        Bug::KeepEpochs,
    ];
}

#[cfg(feature = "sim")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug on this thread, or none.
#[cfg(feature = "sim")]
pub(crate) fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether the bug is planted.
#[cfg(feature = "sim")]
pub(crate) fn is_planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether the bug is planted: never.
#[cfg(not(feature = "sim"))]
pub(crate) const fn is_planted(_: Bug) -> bool {
    false
}
