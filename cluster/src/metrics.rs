//! Figures of the control plane.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::driver::Figures;

/// Buckets of the time a write to the control store takes, in seconds: from a fast SSD to a disk on
/// which a leader must not stay.
const SYNC_BUCKETS: [f64; 12] =
    [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

/// The metrics of one control node and of its clients.
#[derive(Debug, Clone)]
pub struct Metrics {
    is_leader: IntGauge,
    term: IntGauge,
    committed: IntGauge,
    applied: IntGauge,
    apply_lag: IntGauge,
    entries: IntGauge,
    watchers: IntGauge,
    proposals: IntCounter,
    snapshots: IntCounter,
    pub(crate) restarts: IntCounter,
    pub(crate) messages_dropped: IntCounter,
    pub(crate) sync_seconds: Histogram,
    pub(crate) asks_refused: IntCounterVec,
    pub(crate) attempts_failed: IntCounter,
    pub(crate) leader_seen: IntGauge,
}

impl Metrics {
    /// Makes the metrics and registers them.
    ///
    /// # Errors
    /// If the registry has some of the same name.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let sync_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "tidewater_raft_sync_seconds",
                "Time of one durable write to the control store, fsync included.",
            )
            .buckets(SYNC_BUCKETS.to_vec()),
        )?;
        registry.register(Box::new(sync_seconds.clone()))?;
        let asks_refused = IntCounterVec::new(
            Opts::new(
                "tidewater_control_refused_total",
                "Questions this control node refused, by reason.",
            ),
            &["reason"],
        )?;
        registry.register(Box::new(asks_refused.clone()))?;
        Ok(Self {
            is_leader: gauge(
                "tidewater_raft_is_leader",
                "1 while this node leads the control plane, else 0.",
            )?,
            term: gauge("tidewater_raft_term", "Current Raft term.")?,
            committed: gauge("tidewater_raft_commit_index", "Highest log index committed.")?,
            applied: gauge("tidewater_raft_applied_index", "Highest log index applied.")?,
            apply_lag: gauge(
                "tidewater_raft_apply_lag_entries",
                "Entries committed but not applied on this node.",
            )?,
            entries: gauge("tidewater_raft_log_entries", "Entries in the log of this node.")?,
            watchers: gauge(
                "tidewater_control_watchers",
                "Nodes that watch placement at this control node.",
            )?,
            proposals: counter(
                "tidewater_raft_proposals_total",
                "Commands proposed by this node.",
            )?,
            snapshots: counter("tidewater_raft_snapshots_total", "Snapshots taken by this node.")?,
            restarts: counter(
                "tidewater_raft_restarts_total",
                "Times the control plane of this node stopped on a fault and started again.",
            )?,
            messages_dropped: counter(
                "tidewater_raft_messages_dropped_total",
                "Messages to other voters dropped because a queue was full or a link was down.",
            )?,
            sync_seconds,
            asks_refused,
            attempts_failed: counter(
                "tidewater_control_attempts_failed_total",
                "Attempts of this node to ask a control node that failed and were tried again.",
            )?,
            leader_seen: gauge(
                "tidewater_control_leader_reachable",
                "1 while the leader of the control plane answers this node's heartbeats, else 0.",
            )?,
        })
    }

    /// Takes over the figures of the driver since `last`.
    pub(crate) fn update(&self, now: &Figures, last: &Figures, watchers: usize) {
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.is_leader.set(i64::from(now.is_leader));
        self.term.set(signed(now.term));
        self.committed.set(signed(now.committed));
        self.applied.set(signed(now.applied));
        self.apply_lag.set(signed(now.committed.saturating_sub(now.applied)));
        self.entries.set(signed(now.entries));
        self.watchers.set(i64::try_from(watchers).unwrap_or(i64::MAX));
        self.proposals.inc_by(now.proposals.saturating_sub(last.proposals));
        self.snapshots.inc_by(now.snapshots.saturating_sub(last.snapshots));
        let refused = now.refused_messages.saturating_sub(last.refused_messages);
        self.messages_dropped.inc_by(refused);
    }
}

/// A place for the times of writes nobody watches: offline tools and tests.
pub(crate) fn unregistered_histogram() -> Histogram {
    let options = HistogramOpts::new("unregistered", "Not shown.").buckets(SYNC_BUCKETS.to_vec());
    Histogram::with_opts(options).expect("a name and increasing buckets make a histogram")
}

/// The label of a refusal, from a closed set.
pub(crate) fn reason(refusal: &wire::control::Refusal) -> &'static str {
    use wire::control::Refusal;
    match refusal {
        Refusal::NotLeader { .. } => "not_leader",
        Refusal::Unregistered => "unregistered",
        Refusal::UnknownNode(_) => "unknown_node",
        Refusal::UnknownRoom(_) => "unknown_room",
        Refusal::UnknownKey(_) => "unknown_key",
        Refusal::NoHome => "no_home",
        Refusal::StaleEpoch { .. } => "stale_epoch",
        Refusal::Removed(_) => "removed",
        Refusal::WrongNode { .. } => "wrong_node",
        Refusal::Overloaded(_) => "overloaded",
        Refusal::Unavailable(_) => "unavailable",
        Refusal::Invalid(_) => "invalid",
        Refusal::Conflict(_) => "conflict",
        Refusal::JoinToken(_) => "join_token",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_reach_the_registry_and_names_are_unique() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        assert!(Metrics::register(&registry).is_err());
        let figures = Figures {
            term: 3,
            is_leader: true,
            committed: 9,
            applied: 7,
            proposals: 5,
            ..Figures::default()
        };
        metrics.update(&figures, &Figures::default(), 2);
        metrics.update(&figures, &figures, 2);
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            "tidewater_raft_is_leader 1",
            "tidewater_raft_term 3",
            "tidewater_raft_apply_lag_entries 2",
            "tidewater_raft_proposals_total 5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }
}
