//! What the origin counts. Labels come from closed sets; nothing here names a room or an address.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

/// The counters and gauges of the origin role.
#[derive(Debug)]
pub struct Metrics {
    /// Encoders whose publish is accepted and under way on this node.
    pub publishers: IntGauge,
    /// Open RTMP connections, publishing or not.
    pub rtmp_connections: IntGauge,
    /// Bytes read from encoders.
    pub received_bytes: IntCounter,
    /// RTMP messages passed over: of unknown kinds, unreadable metadata, media outside a publish.
    pub skipped_messages: IntCounter,
    /// Peers refused or dropped, by role and reason; shared by all roles of the node.
    refused: IntCounterVec,
}

impl Metrics {
    /// Registers the origin's own metrics. `refused` is `tidewater_refused_total{role,reason}`, which
    /// the node registers.
    ///
    /// # Errors
    /// If a name is registered already.
    pub fn register(
        registry: &Registry,
        refused: IntCounterVec,
    ) -> Result<Self, prometheus::Error> {
        let gauge = |name, help| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let counter = |name, help| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        Ok(Self {
            publishers: gauge(
                "tidewater_origin_publishers",
                "Encoders publishing through this node.",
            )?,
            rtmp_connections: gauge(
                "tidewater_origin_rtmp_connections",
                "Open RTMP connections, publishing or not.",
            )?,
            received_bytes: counter(
                "tidewater_origin_received_bytes_total",
                "Bytes received from encoders over RTMP.",
            )?,
            skipped_messages: counter(
                "tidewater_origin_skipped_messages_total",
                "RTMP messages passed over because they mean nothing here or came too late.",
            )?,
            refused,
        })
    }

    /// Counts a peer that was refused or dropped. `reason` comes from a closed set.
    pub fn refuse(&self, reason: &'static str) {
        self.refused.with_label_values(&["origin", reason]).inc();
    }
}
