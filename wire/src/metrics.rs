//! What a node counts about its links to others.
//!
//! Labels are closed sets: directions and the reasons of [`crate::error`]; never a node or address.

use prometheus::{GaugeVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

/// Counters and gauges of one or more endpoints. Clones share the figures.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub(crate) connections: IntGaugeVec,
    pub(crate) connections_refused: IntCounterVec,
    pub(crate) dials_failed: IntCounterVec,
    pub(crate) retries: IntCounter,
    pub(crate) streams_refused: IntCounterVec,
    pub(crate) services_failed: IntCounter,
    certificate_expiry: GaugeVec,
}

impl Metrics {
    /// Fresh figures, not yet exported.
    ///
    /// # Panics
    /// Never: names and labels are constants that the metrics library accepts.
    #[must_use]
    pub fn new() -> Self {
        let counters = |name: &str, help: &str| {
            IntCounterVec::new(Opts::new(name, help), &["reason"]).expect("a valid metric")
        };
        let counter = |name: &str, help: &str| {
            IntCounter::with_opts(Opts::new(name, help)).expect("a valid metric")
        };
        Self {
            connections: IntGaugeVec::new(
                Opts::new(
                    "tidewater_wire_connections",
                    "Connections to other nodes that are up, by who dialled.",
                ),
                &["direction"],
            )
            .expect("a valid metric"),
            connections_refused: counters(
                "tidewater_wire_connections_refused_total",
                "Connections of other nodes refused here, by reason.",
            ),
            dials_failed: counters(
                "tidewater_wire_dials_failed_total",
                "Attempts to reach another node that failed, by reason.",
            ),
            retries: counter(
                "tidewater_wire_address_checks_total",
                "Connection attempts that had to prove their address first, because many came at once.",
            ),
            streams_refused: counters(
                "tidewater_wire_streams_refused_total",
                "Streams of other nodes refused here, by reason.",
            ),
            services_failed: counter(
                "tidewater_wire_services_failed_total",
                "Streams whose service panicked; each is a bug.",
            ),
            certificate_expiry: GaugeVec::new(
                Opts::new(
                    "tidewater_wire_certificate_expiry_timestamp_seconds",
                    "When the node's certificate expires, in seconds since 1970.",
                ),
                &[],
            )
            .expect("a valid metric"),
        }
    }

    /// Exports the figures through `registry`.
    ///
    /// # Errors
    /// If `registry` already has metrics of these names.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.connections.clone()))?;
        registry.register(Box::new(self.connections_refused.clone()))?;
        registry.register(Box::new(self.dials_failed.clone()))?;
        registry.register(Box::new(self.retries.clone()))?;
        registry.register(Box::new(self.streams_refused.clone()))?;
        registry.register(Box::new(self.services_failed.clone()))?;
        registry.register(Box::new(self.certificate_expiry.clone()))
    }

    /// Notes when the certificate in use expires. With several endpoints in one process the
    /// earliest matters to the operator, but all of them are issued together there.
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^52")]
    pub(crate) fn set_certificate_expiry(&self, not_after: std::time::SystemTime) {
        if let Ok(since_epoch) = not_after.duration_since(std::time::UNIX_EPOCH) {
            let no_labels: [&str; 0] = [];
            let gauge = self.certificate_expiry.with_label_values(&no_labels);
            gauge.set(since_epoch.as_secs() as f64);
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_takes_them_once() {
        let (metrics, registry) = (Metrics::new(), Registry::new());
        metrics.register(&registry).unwrap();
        assert!(metrics.register(&registry).is_err());
        metrics.connections_refused.with_label_values(&["tls"]).inc();
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert!(text.contains("tidewater_wire_connections_refused_total{reason=\"tls\"} 1"));
    }
}
