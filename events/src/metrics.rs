//! What the ledger, the event store and their clients count.

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, core::Collector,
};

/// The counters of a node. Clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    /// Gifts by how they were answered here.
    pub(crate) gifts: IntCounterVec,
    /// Events written here, by kind.
    pub(crate) kept: IntCounterVec,
    /// Events given up, by reason.
    pub(crate) dropped: IntCounterVec,
    /// From taking a batch to its commit.
    pub(crate) commit_seconds: Histogram,
    /// Gifts and marks of one transaction.
    pub(crate) batch: Histogram,
    /// Asks waiting for the writer.
    pub(crate) queue: IntGauge,
    /// Whether the last transaction succeeded.
    pub(crate) up: IntGauge,
    /// Transactions and queries that failed.
    pub(crate) failures: IntCounter,
    /// Asks to the ledger that had to be put again.
    pub(crate) attempts_failed: IntCounter,
}

impl Metrics {
    /// Makes the counters and registers them.
    ///
    /// # Errors
    /// If a name is taken: a mistake of the caller.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, label: &str| {
            registered(registry, IntCounterVec::new(Opts::new(name, help), &[label]))
        };
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| {
            let opts = HistogramOpts::new(name, help).buckets(buckets);
            registered(registry, Histogram::with_opts(opts))
        };
        Ok(Self {
            registry: registry.clone(),
            gifts: counters(
                "tidewater_events_gifts_total",
                "Gifts the ledger on this node answered, by how",
                "outcome",
            )?,
            kept: counters("tidewater_events_kept_total", "Events written, by kind", "kind")?,
            dropped: counters(
                "tidewater_events_dropped_total",
                "Events given up, by reason; never gifts",
                "reason",
            )?,
            commit_seconds: histogram(
                "tidewater_events_commit_seconds",
                "From taking a batch to its commit",
                vec![0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5],
            )?,
            batch: histogram(
                "tidewater_events_batch_asks",
                "Asks answered by one transaction of the ledger",
                vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0],
            )?,
            queue: gauge(registry, "tidewater_events_queue", "Asks waiting for the writer")?,
            up: IntGauge::new(
                "tidewater_events_store_up",
                "Whether the event store on this node was written or opened at the last try",
            )?,
            failures: registered(
                registry,
                IntCounter::new(
                    "tidewater_events_failures_total",
                    "Transactions and queries of the event store that failed",
                ),
            )?,
            attempts_failed: registered(
                registry,
                IntCounter::new(
                    "tidewater_events_attempts_failed_total",
                    "Asks to the ledger that were not answered and had to be put again",
                ),
            )?,
        })
    }

    /// Shows whether the store is up: on the nodes that keep it, so that 0 means something.
    pub(crate) fn show_store(&self) -> Result<(), prometheus::Error> {
        self.registry.register(Box::new(self.up.clone()))
    }
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    registered(registry, IntGauge::new(name, help))
}

fn registered<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: Result<C, prometheus::Error>,
) -> Result<C, prometheus::Error> {
    let collector = collector?;
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
