//! The values that labels of this crate's metrics take: closed sets, each value with its meaning.

/// How a viewer is served; the label `protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    /// HLS by whole segments.
    Hls,
    /// HLS by parts and blocking reload.
    LlHls,
    /// HTTP-FLV.
    Flv,
    /// FLV over WebSocket.
    WsFlv,
}

impl Protocol {
    /// All of them, in label order.
    pub(crate) const ALL: [Self; 4] = [Self::Hls, Self::LlHls, Self::Flv, Self::WsFlv];

    /// The value of the label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Hls => "hls",
            Self::LlHls => "llhls",
            Self::Flv => "flv",
            Self::WsFlv => "wsflv",
        }
    }
}

/// What a response carried; the label `resource`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Resource {
    Multivariant,
    Playlist,
    Init,
    Segment,
    Part,
}

impl Resource {
    pub(super) const ALL: [Self; 5] =
        [Self::Multivariant, Self::Playlist, Self::Init, Self::Segment, Self::Part];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Multivariant => "multivariant",
            Self::Playlist => "playlist",
            Self::Init => "init",
            Self::Segment => "segment",
            Self::Part => "part",
        }
    }
}

/// Why an FLV response ended; the label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Close {
    /// The stream is over.
    Ended,
    /// The track set or a codec changed, or the timeline began anew: the player must reconnect.
    Changed,
    /// The viewer left.
    Left,
    /// The viewer took no byte for too long.
    Stuck,
    /// The viewer lagged behind again and again.
    Lagging,
    /// The viewer broke the WebSocket protocol or sent more than a viewer has to say.
    Protocol,
    /// This node is shutting down.
    Shutdown,
    /// The stream cannot be written as FLV, or the room was given up.
    Failed,
    /// The viewer's token was taken back.
    Revoked,
}

impl Close {
    pub(super) const ALL: [Self; 9] = [
        Self::Ended,
        Self::Changed,
        Self::Left,
        Self::Stuck,
        Self::Lagging,
        Self::Protocol,
        Self::Shutdown,
        Self::Failed,
        Self::Revoked,
    ];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Changed => "changed",
            Self::Left => "left",
            Self::Stuck => "stuck",
            Self::Lagging => "lagging",
            Self::Protocol => "protocol",
            Self::Shutdown => "shutdown",
            Self::Failed => "failed",
            Self::Revoked => "revoked",
        }
    }
}

/// Why a connection or request was refused; the label `reason` of `tidewater_refused_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Refusal {
    /// Too many connections from one address.
    Address,
    /// The TLS handshake failed or took too long.
    Tls,
    /// Bytes that are not HTTP, or HTTP over the limits.
    Malformed,
    /// A request head or an upgrade that did not come in time.
    SlowRequest,
    /// A response that was not taken in time.
    SlowReader,
    /// No token where one is needed.
    Unauthorized,
    /// A room that placement does not know.
    UnknownRoom,
    /// A room that could not be had in time.
    Unavailable,
    /// A method other than GET, HEAD and OPTIONS.
    Method,
    /// A request that contradicts the rules of HLS or of WebSocket.
    BadRequest,
    /// Asked where to go too often.
    RateLimit,
}

impl Refusal {
    pub(super) const ALL: [Self; 11] = [
        Self::Address,
        Self::Tls,
        Self::Malformed,
        Self::SlowRequest,
        Self::SlowReader,
        Self::Unauthorized,
        Self::UnknownRoom,
        Self::Unavailable,
        Self::Method,
        Self::BadRequest,
        Self::RateLimit,
    ];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Address => "address_limit",
            Self::Tls => "tls",
            Self::Malformed => "malformed",
            Self::SlowRequest => "slow_request",
            Self::SlowReader => "slow_reader",
            Self::Unauthorized => "unauthorized",
            Self::UnknownRoom => "unknown_room",
            Self::Unavailable => "unavailable",
            Self::Method => "method",
            Self::BadRequest => "bad_request",
            Self::RateLimit => "rate_limit",
        }
    }
}
