//! The figures of the viewer side. Meaning and labels are documented at each field; labels come from
//! closed sets, never from rooms, viewers or addresses.

mod labels;

use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

pub(crate) use labels::{Close, Protocol, Refusal, Resource};

/// All figures of the viewer side.
#[derive(Debug)]
pub(crate) struct Metrics {
    viewers: [IntGauge; 4],
    sent_bytes: [IntCounter; 4],
    responses: [Histogram; 5],
    refused: [IntCounter; 11],
    flv_closed: [IntCounter; 9],
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
        let add = Registering(registry);
        let viewers = add.gauges(
            "tidewater_edge_viewers",
            "Viewers served by this edge. HLS viewers have no session: they are counted as distinct \
             addresses and user agents, or tokens, seen in the last 10 to 20 s.",
            "protocol",
        )?;
        let sent = add.counters(
            "tidewater_edge_sent_bytes_total",
            "Bytes of media and playlists sent.",
            "protocol",
        )?;
        let responses = HistogramVec::new(
            HistogramOpts::new(
                "tidewater_edge_response_seconds",
                "From request to response of HLS resources, held requests included.",
            )
            .buckets(RESPONSE_BUCKETS.to_vec()),
            &["resource"],
        )?;
        let responses = add.kept(responses)?;
        let closed = add.counters(
            "tidewater_edge_flv_closed_total",
            "FLV responses that ended, by reason.",
            "reason",
        )?;
        let wake_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "tidewater_edge_wake_seconds",
                "From the publication of a part to the answer of a held playlist request.",
            )
            .buckets(WAKE_BUCKETS.to_vec()),
        )?;
        let media_lag_seconds = Gauge::new(
            "tidewater_edge_media_lag_seconds",
            "Age of the newest part of the live room that lags most, by its program date-time.",
        )?;
        Ok(Self {
            viewers: Protocol::ALL.map(|p| viewers.with_label_values(&[p.label()])),
            sent_bytes: Protocol::ALL.map(|p| sent.with_label_values(&[p.label()])),
            responses: Resource::ALL.map(|r| responses.with_label_values(&[r.label()])),
            refused: Refusal::ALL.map(|r| refused.with_label_values(&["edge", r.label()])),
            flv_closed: Close::ALL.map(|c| closed.with_label_values(&[c.label()])),
            wake_seconds: add.kept(wake_seconds)?,
            media_lag_seconds: add.kept(media_lag_seconds)?,
            flv_skips: add.kept(IntCounter::new(
                "tidewater_edge_flv_skips_total",
                "FLV viewers moved on to a later key frame because they lagged.",
            )?)?,
            flv_jumps: add.kept(IntCounter::new(
                "tidewater_edge_flv_jumps_total",
                "Jumps of a room's FLV over a segment whose bytes did not come.",
            )?)?,
            connections: add.kept(IntGauge::new(
                "tidewater_edge_connections",
                "Viewer connections open now.",
            )?)?,
            panics: add.kept(IntCounter::new(
                "tidewater_edge_panics_total",
                "Viewer connections lost to a panic: always a bug.",
            )?)?,
            rooms: add.kept(IntGauge::new(
                "tidewater_edge_rooms",
                "Rooms this edge keeps open for its viewers.",
            )?)?,
            renderings: add.kept(IntCounter::new(
                "tidewater_edge_renderings_total",
                "Playlists rendered; one rendering serves all who wait for it.",
            )?)?,
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

/// Makes metrics and registers them.
struct Registering<'a>(&'a Registry);

impl Registering<'_> {
    fn kept<C: Collector + Clone + 'static>(&self, metric: C) -> Result<C, prometheus::Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        label: &str,
    ) -> Result<IntCounterVec, prometheus::Error> {
        self.kept(IntCounterVec::new(Opts::new(name, help), &[label])?)
    }

    fn gauges(
        &self,
        name: &str,
        help: &str,
        label: &str,
    ) -> Result<IntGaugeVec, prometheus::Error> {
        self.kept(IntGaugeVec::new(Opts::new(name, help), &[label])?)
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
