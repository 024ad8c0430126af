//! What goes wrong between a node and its control plane.

use std::time::Duration;

use wire::control::Refusal;

use crate::raft::ready::Fault;
use crate::storage::StorageError;

/// Why the control plane could not be started or gave no positive answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The control plane answered, and refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No control node gave an answer in time.
    #[error("no control node answered within {after:?}; last: {last}")]
    TimedOut {
        /// How long was tried.
        after: Duration,
        /// How the last attempt failed.
        last: String,
    },
    /// A control node answered something else than was asked.
    #[error("a control node answered something else than {asked}")]
    Unexpected {
        /// The question.
        asked: &'static str,
    },
    /// This node has no control node to ask.
    #[error("no control node is configured")]
    NoControl,
    /// The configuration makes no sense.
    #[error("control plane: {0}")]
    Config(String),
    /// The operating system gives no random bytes.
    #[error("the operating system's random source failed")]
    NoRandomness,
    /// The control store cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The member cannot start.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// A backup cannot be read.
    #[error("backup: {0}")]
    Backup(String),
    /// The control plane's thread cannot be started.
    #[error("control plane thread: {0}")]
    Thread(std::io::Error),
}

impl Error {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Refused(refusal) => refusal.is_retryable(),
            Error::TimedOut { .. } | Error::Unexpected { .. } => true,
            Error::NoControl
            | Error::Config(_)
            | Error::NoRandomness
            | Error::Storage(_)
            | Error::Fault(_)
            | Error::Backup(_)
            | Error::Thread(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_succeed_later_says_so() {
        assert!(Error::from(Refusal::NoHome).is_retryable());
        assert!(!Error::from(Refusal::Invalid(String::new())).is_retryable());
        let after = Duration::from_secs(5);
        let timed_out = Error::TimedOut { after, last: "x".to_owned() };
        assert!(timed_out.is_retryable());
        assert_eq!(timed_out.to_string(), "no control node answered within 5s; last: x");
        assert!(!Error::NoControl.is_retryable());
    }
}
