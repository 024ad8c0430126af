//! Why an RTMP connection ends early.

use std::{io, time::Duration};

/// What was wrong with a connection, or with its way out to the room.
///
/// The text names what was found and what is allowed. It is safe to log: text of the peer is escaped
/// and short, and no token or payload is in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The first byte is not that of an RTMP handshake.
    #[error("first byte {first:#04x} is not an RTMP version 3 handshake: {hint}")]
    NotRtmp {
        /// The byte.
        first: u8,
        /// What it looks like and what to do.
        hint: &'static str,
    },
    /// The handshake did not go through.
    #[error("handshake: {0}")]
    Handshake(String),
    /// A size or count is over its limit.
    #[error("{what}: {found} is over the limit of {limit}")]
    TooLarge {
        /// What was counted.
        what: &'static str,
        /// The value found.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// The bytes break the protocol.
    #[error("{what}: {why}")]
    Protocol {
        /// The structure or message being read.
        what: &'static str,
        /// What was found and what is allowed.
        why: String,
    },
    /// A command or data message could not be read.
    #[error("{0}")]
    Value(#[from] media::Error),
    /// The peer did not do in time what it must.
    #[error("no {what} within {} s", after.as_secs())]
    TimedOut {
        /// What was waited for.
        what: &'static str,
        /// How long.
        after: Duration,
    },
    /// The room's home did not take a message in time; the publisher is not at fault.
    #[error("the room took no media for {} s", after.as_secs())]
    RoomStalled {
        /// How long.
        after: Duration,
    },
    /// The socket failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Error {
    /// A closed-set label for metrics: why the connection was dropped.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotRtmp { .. } => "not_rtmp",
            Self::Handshake(_) => "handshake",
            Self::TooLarge { .. } => "too_large",
            Self::Protocol { .. } => "protocol",
            Self::Value(error) => error.reason(),
            Self::TimedOut { .. } => "timeout",
            Self::RoomStalled { .. } => "room_stalled",
            Self::Io(_) => "io",
        }
    }

    /// Whether the peer merely went away: nothing to refuse or to count.
    #[must_use]
    pub fn is_peer_gone(&self) -> bool {
        matches!(self, Self::Io(_))
    }

    pub(crate) fn protocol(what: &'static str, why: impl Into<String>) -> Self {
        Self::Protocol { what, why: why.into() }
    }

    pub(crate) fn too_large(what: &'static str, found: usize, limit: usize) -> Self {
        Self::TooLarge { what, found: found as u64, limit: limit as u64 }
    }
}
