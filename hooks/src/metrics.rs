//! What hooks count.

use prometheus::{IntCounterVec, Opts, Registry};

use crate::Kind;

/// Counters of one node. Clones are the same.
#[derive(Debug, Clone)]
pub struct Metrics {
    decisions: IntCounterVec,
    deliveries: IntCounterVec,
    dropped: IntCounterVec,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let metrics = Self {
            decisions: counter(
                "tidewater_hooks_decisions_total",
                "Questions to the application's back-end, by event and outcome",
                &["event", "outcome"],
            )?,
            deliveries: counter(
                "tidewater_hooks_deliveries_total",
                "Attempts to tell the application's back-end something, by event and outcome",
                &["event", "outcome"],
            )?,
            dropped: counter(
                "tidewater_hooks_dropped_total",
                "Events the application's back-end was never told",
                &["reason"],
            )?,
        };
        for reason in ["queue_full", "retries"] {
            metrics.dropped.with_label_values(&[reason]).inc_by(0);
        }
        Ok(metrics)
    }

    pub(crate) fn decided(&self, kind: Kind, outcome: &str) {
        self.decisions.with_label_values(&[kind.name(), outcome]).inc();
    }

    pub(crate) fn delivered(&self, kind: Kind, outcome: &str) {
        self.deliveries.with_label_values(&[kind.name(), outcome]).inc();
    }

    pub(crate) fn dropped(&self, reason: &str) {
        self.dropped.with_label_values(&[reason]).inc();
    }
}
