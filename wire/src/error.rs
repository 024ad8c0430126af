//! What goes wrong between two nodes, and the numbers by which nodes tell each other.
//!
//! [`CloseCode`] ends a connection, [`ResetCode`] ends one stream; both travel in QUIC frames and
//! are append-only. [`Error`] is what a caller of this crate gets. Nothing here decides whether to
//! try again: that is the caller's, helped by [`Error::is_retryable`].

use std::{net::SocketAddr, time::Duration};

use quinn::{ConnectError, ConnectionError, ReadError, VarInt, WriteError};

use crate::service::StreamKind;

/// Why a connection or a stream between nodes failed. Safe to log; cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The stream ended inside a frame.
    #[error("{what}: the stream ended inside it")]
    Truncated {
        /// What was being read.
        what: &'static str,
    },
    /// A declared or actual size is over the limit.
    #[error("{what}: {found} bytes are over the limit of {limit}")]
    TooLarge {
        /// What was measured.
        what: &'static str,
        /// The size found.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// Bytes are not the message they should be.
    #[error("{what}: {why}")]
    Invalid {
        /// What was being read.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Something took too long.
    #[error("{what} took longer than {after:?}")]
    TimedOut {
        /// What was waited for.
        what: &'static str,
        /// How long.
        after: Duration,
    },
    /// The peer ended one stream.
    #[error("the peer ended the stream: {0}")]
    Reset(ResetCode),
    /// The stream was used after it was finished or reset on this side.
    #[error("the stream is closed on this side")]
    StreamClosed,
    /// The peer closed the connection.
    #[error("closed by the peer: {code}: {reason}")]
    Closed {
        /// Why, as a number.
        code: CloseCode,
        /// Why, in the peer's words (at most [`MAX_REASON_BYTES`], control characters removed).
        reason: String,
    },
    /// This side refused the peer.
    #[error("refused the peer: {code}: {reason}")]
    Refused {
        /// Why, as a number; the peer was told the same.
        code: CloseCode,
        /// Why, for a person.
        reason: String,
    },
    /// This side closed the connection or the endpoint.
    #[error("closed on this side")]
    LocallyClosed,
    /// The peer was not heard from, or has restarted.
    #[error("connection lost: {why}")]
    Lost {
        /// What ended it.
        why: &'static str,
    },
    /// The TLS handshake failed: certificates, names or protocols do not fit.
    #[error("TLS: {why}")]
    Tls {
        /// What did not fit, and on which side.
        why: String,
    },
    /// QUIC itself failed.
    #[error("QUIC: {why}")]
    Transport {
        /// The transport's own words.
        why: String,
    },
    /// The address cannot be dialled from this endpoint.
    #[error("cannot dial {address}: {why}")]
    Undialable {
        /// The address.
        address: SocketAddr,
        /// Why not.
        why: String,
    },
    /// The socket could not be set up.
    #[error("cannot listen on {address}: {why}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The operating system's words.
        why: String,
    },
    /// The node's own certificates cannot be used.
    #[error("identity: {why}")]
    Identity {
        /// What is wrong with them.
        why: String,
    },
    /// Two services want the same kind of stream, or services were registered twice.
    #[error("streams of kind {kind} already have a service")]
    KindTaken {
        /// The kind.
        kind: StreamKind,
    },
    /// A bounded table is full.
    #[error("{what}: no room for more than {limit}")]
    Full {
        /// The table.
        what: &'static str,
        /// Its size.
        limit: usize,
    },
}

/// Longest close reason kept or sent, in bytes.
pub const MAX_REASON_BYTES: usize = 256;

impl Error {
    /// A closed-set label for metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Truncated { .. } => "truncated",
            Self::TooLarge { .. } => "too_large",
            Self::Invalid { .. } => "invalid",
            Self::TimedOut { .. } => "timeout",
            Self::Reset(_) => "reset",
            Self::StreamClosed | Self::LocallyClosed => "closed",
            Self::Closed { .. } => "closed_by_peer",
            Self::Refused { code, .. } => code.reason(),
            Self::Lost { .. } => "lost",
            Self::Tls { .. } => "tls",
            Self::Transport { .. } => "transport",
            Self::Undialable { .. } => "undialable",
            Self::Listen { .. } => "listen",
            Self::Identity { .. } => "identity",
            Self::KindTaken { .. } => "kind_taken",
            Self::Full { .. } => "full",
        }
    }

    /// Whether the peer, or the way to it, is gone: the whole connection is of no more use.
    #[must_use]
    pub fn is_peer_gone(&self) -> bool {
        matches!(
            self,
            Self::Closed { .. }
                | Self::Refused { .. }
                | Self::LocallyClosed
                | Self::Lost { .. }
                | Self::Tls { .. }
                | Self::Transport { .. }
        )
    }

    /// Whether the same call may succeed later without anybody changing a configuration.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::TimedOut { .. }
            | Self::Reset(_)
            | Self::Lost { .. }
            | Self::Transport { .. }
            | Self::Truncated { .. }
            | Self::Full { .. } => true,
            Self::Closed { code, .. } | Self::Refused { code, .. } => code.is_retryable(),
            _ => false,
        }
    }

    pub(crate) fn invalid(what: &'static str, why: impl Into<String>) -> Self {
        Self::Invalid { what, why: why.into() }
    }

    /// How the connection ended, in this crate's words.
    #[must_use]
    pub fn from_connection(error: &ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => Self::Closed {
                code: CloseCode::from_number(close.error_code.into_inner()),
                reason: printable(&close.reason),
            },
            ConnectionError::LocallyClosed => Self::LocallyClosed,
            ConnectionError::TimedOut => Self::Lost { why: "not heard from in time" },
            ConnectionError::Reset => Self::Lost { why: "the peer has restarted" },
            ConnectionError::TransportError(local) => {
                match alert_of(u64::from(local.code)) {
                    // The text of the TLS library says which certificate and why.
                    Some(_) => Self::Tls { why: local.reason.clone() },
                    None => Self::Transport { why: local.to_string() },
                }
            }
            ConnectionError::ConnectionClosed(close) => {
                match alert_of(u64::from(close.error_code)) {
                    Some(alert) => Self::Tls { why: describe_alert(alert) },
                    None => Self::Transport { why: format!("the peer gave up: {close}") },
                }
            }
            ConnectionError::VersionMismatch => {
                Self::Transport { why: "the peer speaks no QUIC version of ours".to_owned() }
            }
            ConnectionError::CidsExhausted => {
                Self::Transport { why: "connection ids are used up".to_owned() }
            }
        }
    }

    pub(crate) fn from_read(error: &ReadError) -> Self {
        match error {
            ReadError::Reset(code) => Self::Reset(ResetCode::from_number(code.into_inner())),
            ReadError::ConnectionLost(lost) => Self::from_connection(lost),
            ReadError::ClosedStream
            | ReadError::IllegalOrderedRead
            | ReadError::ZeroRttRejected => Self::StreamClosed,
        }
    }

    pub(crate) fn from_write(error: &WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => Self::Reset(ResetCode::from_number(code.into_inner())),
            WriteError::ConnectionLost(lost) => Self::from_connection(lost),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => Self::StreamClosed,
        }
    }

    pub(crate) fn from_connect(address: SocketAddr, error: &ConnectError) -> Self {
        match error {
            ConnectError::EndpointStopping => Self::LocallyClosed,
            other => Self::Undialable { address, why: other.to_string() },
        }
    }
}

macro_rules! codes {
    (
        $(#[$outer:meta])* $name:ident {
            $( $(#[$doc:meta])* $variant:ident = $number:literal, $label:literal, $text:literal; )*
        }
    ) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $( $(#[$doc])* $variant, )*
            /// A number this build does not know: the peer is newer.
            Unknown(u64),
        }

        impl $name {
            /// Every code this build knows.
            pub const ALL: &'static [Self] = &[$( Self::$variant, )*];

            /// The number on the wire.
            #[must_use]
            pub fn number(self) -> u64 {
                match self {
                    $( Self::$variant => $number, )*
                    Self::Unknown(number) => number,
                }
            }

            /// The code of a number on the wire.
            #[must_use]
            pub fn from_number(number: u64) -> Self {
                match number {
                    $( $number => Self::$variant, )*
                    other => Self::Unknown(other),
                }
            }

            /// A closed-set label for metrics.
            #[must_use]
            pub fn reason(self) -> &'static str {
                match self {
                    $( Self::$variant => $label, )*
                    Self::Unknown(_) => "unknown",
                }
            }

            pub(crate) fn varint(self) -> VarInt {
                VarInt::from_u64(self.number()).unwrap_or(VarInt::MAX)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    $( Self::$variant => f.write_str($text), )*
                    Self::Unknown(number) => write!(f, "unknown code {number}"),
                }
            }
        }
    };
}

codes! {
    /// Why one node closes its connection to another. The numbers are QUIC application error codes;
    /// they are append-only and mean the same in every version.
    CloseCode {
        /// The connection was dropped without a word: what QUIC says for a node that does not.
        Dropped = 0, "dropped", "the connection was dropped";
        /// The node is shutting down. Another node, or the same after a restart, may serve.
        Shutdown = 1, "shutdown", "the node is shutting down";
        /// The two builds have no wire version in common.
        Incompatible = 2, "incompatible", "no wire version in common";
        /// The two nodes belong to different clusters.
        WrongCluster = 3, "wrong_cluster", "different clusters";
        /// The hello names another node than the certificate.
        WrongIdentity = 4, "wrong_identity", "not the node of its certificate";
        /// The hello cannot be read.
        BadHello = 5, "bad_hello", "bad hello";
        /// The hello did not come in time.
        HelloTimeout = 6, "hello_timeout", "no hello in time";
        /// The node, or this peer, has too many connections.
        TooManyConnections = 7, "too_many_connections", "too many connections";
        /// The dialler goes on over a newer connection.
        Replaced = 8, "replaced", "replaced by a newer connection";
        /// The peer broke the protocol.
        Protocol = 9, "protocol", "protocol broken";
        /// The dialler needs the connection no more, or the peer has left the cluster.
        Unneeded = 10, "unneeded", "no longer needed";
    }
}

impl CloseCode {
    /// Whether a later attempt may succeed without anybody changing a configuration.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        match self {
            Self::Incompatible | Self::WrongCluster | Self::WrongIdentity => false,
            Self::Dropped
            | Self::Shutdown
            | Self::BadHello
            | Self::HelloTimeout
            | Self::TooManyConnections
            | Self::Replaced
            | Self::Protocol
            | Self::Unneeded
            | Self::Unknown(_) => true,
        }
    }
}

codes! {
    /// Why one node ends a stream, without harm to the connection: the code of RESET_STREAM from
    /// its sender or of STOP_SENDING from its receiver. Append-only.
    ResetCode {
        /// The side that ends it has no more use for it. Also what a dropped stream says.
        Cancelled = 0, "cancelled", "cancelled";
        /// No service here serves streams of this kind.
        UnknownKind = 1, "unknown_kind", "no service for streams of this kind";
        /// The peer has too many streams open here.
        Busy = 2, "busy", "too many streams";
        /// A frame on it is over its limit or cannot be read.
        BadMessage = 3, "bad_message", "a message on it cannot be read";
        /// The segment it carries has left the window.
        OutOfWindow = 4, "out_of_window", "the segment has left the window";
        /// The other side did not read or write in time.
        TimedOut = 5, "timeout", "too slow";
        /// The service failed; its own log says why.
        Internal = 6, "internal", "the service failed";
        /// The service is shutting down.
        Shutdown = 7, "shutdown", "the service is shutting down";
    }
}

/// The peer's reason, cut and cleaned so that it cannot forge log lines.
fn printable(reason: &[u8]) -> String {
    let cut = &reason[..reason.len().min(MAX_REASON_BYTES)];
    String::from_utf8_lossy(cut).chars().filter(|c| !c.is_control()).collect()
}

/// The TLS alert in a QUIC CRYPTO_ERROR code (RFC 9001 section 4.8: 0x0100 + alert).
fn alert_of(code: u64) -> Option<u8> {
    match code {
        0x100..=0x1ff => u8::try_from(code - 0x100).ok(),
        _ => None,
    }
}

/// What the peer's TLS alert means for the operator of this node (RFC 8446 section 6.2).
fn describe_alert(alert: u8) -> String {
    let meaning = match alert {
        42 => "the peer finds our certificate malformed or not meant for it",
        43 => "the peer does not support our kind of certificate",
        44 => "our certificate is revoked",
        45 => "our certificate has expired, or one of the clocks is wrong",
        46 => "the peer does not accept our certificate",
        48 => "the peer does not trust the CA of our certificate",
        49 => "the peer denied access",
        51 => "a signature does not verify",
        70 => "no TLS version in common",
        112 => "the peer knows no such server name",
        116 => "the peer demands a certificate and we sent none",
        120 => "no application protocol in common: not a Tidewater node, or one too old or too new",
        _ => return format!("the peer raised alert {alert}"),
    };
    meaning.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_survive_their_numbers_and_are_distinct() {
        for (number, code) in CloseCode::ALL.iter().enumerate() {
            assert_eq!(code.number(), number as u64, "the list is dense and in order");
            assert_eq!(CloseCode::from_number(code.number()), *code);
        }
        for (number, code) in ResetCode::ALL.iter().enumerate() {
            assert_eq!(code.number(), number as u64, "the list is dense and in order");
            assert_eq!(ResetCode::from_number(code.number()), *code);
        }
        assert_eq!(CloseCode::from_number(4711), CloseCode::Unknown(4711));
        assert_eq!(CloseCode::Unknown(u64::MAX).varint(), VarInt::MAX);
    }

    #[test]
    fn a_peers_reason_is_cut_and_cleaned() {
        assert_eq!(printable(b"bye\n\x1b[31mroot"), "bye[31mroot");
        assert_eq!(printable(&[b'x'; 10_000]).len(), MAX_REASON_BYTES);
        assert_eq!(printable(&[0xff, b'a']), "\u{fffd}a");
    }

    #[test]
    fn a_wrong_configuration_is_not_worth_a_retry() {
        let wrong = Error::Closed { code: CloseCode::WrongCluster, reason: String::new() };
        assert!(!wrong.is_retryable() && wrong.is_peer_gone());
        let shutdown = Error::Closed { code: CloseCode::Shutdown, reason: String::new() };
        assert!(shutdown.is_retryable() && shutdown.is_peer_gone());
        assert!(!Error::Reset(ResetCode::Busy).is_peer_gone());
        assert_eq!(shutdown.to_string(), "closed by the peer: the node is shutting down: ");
    }
}
