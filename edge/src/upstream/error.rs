//! Why a link to a home ended. Never a viewer's affair: the link tries again.

use media::manifest::Msn;

/// Why a session with a home failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum Error {
    /// The connection or a stream failed.
    #[error(transparent)]
    Wire(#[from] wire::Error),
    /// A frame record cannot be read.
    #[error(transparent)]
    Record(#[from] wire::replica::RecordError),
    /// A manifest entry cannot be read.
    #[error(transparent)]
    Entry(#[from] media::Error),
    /// What the home says contradicts what the feed holds.
    #[error(transparent)]
    Feed(#[from] media::feed::Error),
    /// The home serves under an epoch that was already superseded here.
    #[error("the home is at epoch {found}, and {known} was seen")]
    StaleEpoch {
        /// The epoch the home says.
        found: u64,
        /// The highest seen for the room.
        known: u64,
    },
    /// The stream that is here is over, and the home serves another one of the room.
    #[error("the stream is over and the room has another")]
    OtherStream,
    /// The home's heartbeats stopped.
    #[error("no heartbeat from the home")]
    NoBeat,
    /// Bytes of a segment that the manifest never opened.
    #[error("bytes of segment {0} which was never opened")]
    NeverOpened(Msn),
    /// A track number this build does not know.
    #[error("unknown track {0}")]
    UnknownTrack(u8),
}

impl Error {
    /// Whether the feed itself can no longer be trusted.
    pub(super) fn is_contradiction(&self) -> bool {
        matches!(self, Self::Feed(_))
    }
}
