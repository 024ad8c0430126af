//! Why a part of the origin cannot go on. What goes wrong with one publisher is a refusal, never this.

use std::io;
use std::net::SocketAddr;

/// Why the origin could not start, or a stream to a subscriber ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The RTMP listener could not be opened.
    #[error("cannot listen for RTMP on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A metric could not be registered, because the registry already has one of that name.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// A connection or stream between nodes failed.
    #[error(transparent)]
    Wire(#[from] wire::Error),
    /// A contributed message cannot be read.
    #[error(transparent)]
    Piece(#[from] wire::contribute::PieceError),
    /// The node asked is not the room's home.
    #[error("not the room's home")]
    NotHome,
    /// A frame record cannot be read.
    #[error(transparent)]
    Record(#[from] wire::replica::RecordError),
    /// What a subscriber has of an earlier home contradicts itself.
    #[error("the past of a stream: {0}")]
    Past(String),
    /// A manifest entry is too large to send.
    #[error(transparent)]
    Media(#[from] media::Error),
}
