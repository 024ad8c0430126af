//! The figures of the viewer side. Meaning and labels are documented at each field; labels come from
//! closed sets, never from rooms, viewers or addresses.

use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

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
    const ALL: [Self; 5] =
        [Self::Multivariant, Self::Playlist, Self::Init, Self::Segment, Self::Part];

    fn label(self) -> &'static str {
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
}

impl Close {
    const ALL: [Self; 8] = [
        Self::Ended,
        Self::Changed,
        Self::Left,
        Self::Stuck,
        Self::Lagging,
        Self::Protocol,
        Self::Shutdown,
        Self::Failed,
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
}

impl Refusal {
    const ALL: [Self; 10] = [
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
        }
    }
}

/// All figures of the viewer side.
#[derive(Debug)]
pub(crate) struct Metrics {
    viewers: [IntGauge; 4],
    sent_bytes: [IntCounter; 4],
    responses: [Histogram; 5],
    refused: [IntCounter; 10],
    flv_closed: [IntCounter; 8],
    /// From the moment a part was published to the moment a held playlist request has its answer.
    pub(crate) wake_seconds: Histogram,
    /// The largest media lag of any live room: wall clock minus the program date-time of the end of
    /// the newest part. It contains the clock difference between this node and the room's home.
    pub(crate) media_lag_seconds: Gauge,
    /// FLV viewers moved on to a later key frame because they lagged.
    pub(crate) flv_skips: IntCounter,
    /// FLV rooms that jumped over a segment whose bytes did not come.
    pub(crate) flv_jumps: IntCounter,
    /// Connections open now, FLV and WebSocket ones included.
    pub(crate) connections: IntGauge,
    /// Connections whose handler panicked: always a bug.
    pub(crate) panics: IntCounter,
    /// Rooms open on this edge.
    pub(crate) rooms: IntGauge,
    /// Playlist renderings; shared by all waiters, so at most four for each published change.
    pub(crate) renderings: IntCounter,
}

/// Seconds: from a cache hit to the longest hold.
const RESPONSE_BUCKETS: &[f64] =
    &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Seconds: the promise is 5 ms at 100 waiters and 25 ms at 1,000.
const WAKE_BUCKETS: &[f64] =
    &[0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];

impl Metrics {
    /// Registers everything; `refused` is the node's `tidewater_refused_total{role,reason}`.
    pub(crate) fn new(
        registry: &Registry,
        refused: &IntCounterVec,
    ) -> Result<Self, prometheus::Error> {
        let viewers = IntGaugeVec::new(
            Opts::new(
                "tidewater_edge_viewers",
                "Viewers served by this edge. HLS viewers have no session: they are counted as \
                 distinct addresses and user agents, or tokens, seen in the last 10 to 20 s.",
            ),
            &["protocol"],
        )?;
        registry.register(Box::new(viewers.clone()))?;
        let sent = IntCounterVec::new(
            Opts::new("tidewater_edge_sent_bytes_total", "Bytes of media and playlists sent."),
            &["protocol"],
        )?;
        registry.register(Box::new(sent.clone()))?;
        let responses = HistogramVec::new(
            HistogramOpts::new(
                "tidewater_edge_response_seconds",
                "From request to response of HLS resources, held requests included.",
            )
            .buckets(RESPONSE_BUCKETS.to_vec()),
            &["resource"],
        )?;
        registry.register(Box::new(responses.clone()))?;
        let closed = IntCounterVec::new(
            Opts::new("tidewater_edge_flv_closed_total", "FLV responses that ended, by reason."),
            &["reason"],
        )?;
        registry.register(Box::new(closed.clone()))?;
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let wake_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "tidewater_edge_wake_seconds",
                "From the publication of a part to the answer of a held playlist request.",
            )
            .buckets(WAKE_BUCKETS.to_vec()),
        )?;
        registry.register(Box::new(wake_seconds.clone()))?;
        let media_lag_seconds = Gauge::new(
            "tidewater_edge_media_lag_seconds",
            "Age of the newest part of the live room that lags most, by its program date-time.",
        )?;
        registry.register(Box::new(media_lag_seconds.clone()))?;
        Ok(Self {
            viewers: Protocol::ALL.map(|p| viewers.with_label_values(&[p.label()])),
            sent_bytes: Protocol::ALL.map(|p| sent.with_label_values(&[p.label()])),
            responses: Resource::ALL.map(|r| responses.with_label_values(&[r.label()])),
            refused: Refusal::ALL.map(|r| refused.with_label_values(&["edge", r.label()])),
            flv_closed: Close::ALL.map(|c| closed.with_label_values(&[c.label()])),
            wake_seconds,
            media_lag_seconds,
            flv_skips: counter(
                "tidewater_edge_flv_skips_total",
                "FLV viewers moved on to a later key frame because they lagged.",
            )?,
            flv_jumps: counter(
                "tidewater_edge_flv_jumps_total",
                "Jumps of a room's FLV over a segment whose bytes did not come.",
            )?,
            connections: gauge("tidewater_edge_connections", "Viewer connections open now.")?,
            panics: counter(
                "tidewater_edge_panics_total",
                "Viewer connections lost to a panic: always a bug.",
            )?,
            rooms: gauge("tidewater_edge_rooms", "Rooms this edge keeps open for its viewers.")?,
            renderings: counter(
                "tidewater_edge_renderings_total",
                "Playlists rendered; one rendering serves all who wait for it.",
            )?,
        })
    }

    pub(crate) fn viewers(&self, protocol: Protocol) -> &IntGauge {
        &self.viewers[protocol as usize]
    }

    pub(crate) fn sent_bytes(&self, protocol: Protocol) -> &IntCounter {
        &self.sent_bytes[protocol as usize]
    }

    pub(crate) fn response(&self, resource: Resource) -> &Histogram {
        &self.responses[resource as usize]
    }

    pub(crate) fn refuse(&self, reason: Refusal) {
        self.refused[reason as usize].inc();
    }

    pub(crate) fn flv_closed(&self, reason: Close) {
        self.flv_closed[reason as usize].inc();
    }
}

#[cfg(test)]
impl Metrics {
    /// Metrics on a registry of their own.
    pub(crate) fn for_tests() -> std::sync::Arc<Self> {
        let refused = IntCounterVec::new(
            Opts::new("tidewater_refused_total", "Refused."),
            &["role", "reason"],
        )
        .unwrap();
        std::sync::Arc::new(Self::new(&Registry::new(), &refused).unwrap())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guaranteed_figures_stand_in_the_registry_from_the_start() {
        let registry = Registry::new();
        let refused =
            IntCounterVec::new(Opts::new("tidewater_refused_total", "R."), &["role", "reason"])
                .unwrap();
        let metrics = Metrics::new(&registry, &refused).unwrap();
        metrics.refuse(Refusal::BadRequest);
        metrics.flv_closed(Close::Failed);
        metrics.response(Resource::Part).observe(0.1);
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for protocol in ["hls", "llhls", "flv", "wsflv"] {
            for name in ["tidewater_edge_viewers", "tidewater_edge_sent_bytes_total"] {
                assert!(text.contains(&format!("{name}{{protocol=\"{protocol}\"}} 0")), "{text}");
            }
        }
        assert!(text.contains("flv_closed_total{reason=\"failed\"} 1"), "{text}");
        assert!(text.contains("response_seconds_count{resource=\"part\"} 1"), "{text}");
        assert!(text.contains("tidewater_edge_media_lag_seconds 0"), "{text}");
        assert_eq!(refused.with_label_values(&["edge", "bad_request"]).get(), 1);
    }
}
