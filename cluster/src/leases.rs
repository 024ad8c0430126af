//! Who is alive and how busy: the leader's soft state.
//!
//! In: heartbeats. Out: whether a node's lease runs, and its last load. Nothing of it is replicated;
//! a new leader, and one that was itself asleep, grants every node a full lease first, since its
//! own ignorance says nothing about the nodes.
//!
//! A lease decides only when to look for another home. Safety rests on epochs.

use std::collections::BTreeMap;
use std::time::Duration;

use wire::NodeId;
use wire::control::Load;

/// How often a node sends a heartbeat.
pub const HEARTBEAT_EVERY: Duration = Duration::from_millis(250);
/// How long a heartbeat counts. A node silent for longer is called dead.
pub const LEASE: Duration = Duration::from_millis(1500);

/// The leases of all nodes. Rows are bounded by the node table: only its nodes are entered.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    rows: BTreeMap<NodeId, Lease>,
    /// Until then every node counts as alive.
    amnesty: Duration,
    /// The highest head any node has reported, also one that is gone by now.
    head_msn: u64,
}

#[derive(Debug)]
struct Lease {
    until: Duration,
    load: Load,
}

impl Leases {
    /// Grants every node a full lease from now.
    pub(crate) fn grant_all(&mut self, now: Duration) {
        self.amnesty = now + LEASE;
    }

    /// Forgets everything, for a node that does not lead any more.
    pub(crate) fn clear(&mut self) {
        self.rows.clear();
    }

    /// Renews a lease. Without a load, the last one stays.
    pub(crate) fn renew(&mut self, node: &NodeId, load: Option<Load>, now: Duration) {
        let until = now + LEASE;
        self.head_msn = self.head_msn.max(load.map_or(0, |load| load.head_msn));
        match self.rows.get_mut(node) {
            Some(lease) => {
                lease.until = until;
                lease.load = load.unwrap_or(lease.load);
            }
            None => {
                let load = load.unwrap_or_default();
                self.rows.insert(node.clone(), Lease { until, load });
            }
        }
    }

    /// Whether the node's lease runs.
    pub(crate) fn is_alive(&self, node: &NodeId, now: Duration) -> bool {
        now < self.amnesty || self.rows.get(node).is_some_and(|lease| now < lease.until)
    }

    /// Whether the node has been heard of within its lease: no amnesty counts.
    pub(crate) fn is_heard(&self, node: &NodeId, now: Duration) -> bool {
        self.rows.get(node).is_some_and(|lease| now < lease.until)
    }

    /// The node's last load.
    pub(crate) fn load(&self, node: &NodeId) -> Option<Load> {
        self.rows.get(node).map(|lease| lease.load)
    }

    /// Media sequence numbers below this have been seen in the cluster.
    pub(crate) fn head_msn(&self) -> u64 {
        self.head_msn
    }

    /// Forgets the rows of nodes that are not in the table any more.
    pub(crate) fn retain(&mut self, in_table: impl Fn(&NodeId) -> bool) {
        self.rows.retain(|node, _| in_table(node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_runs_out_and_an_amnesty_covers_everyone() {
        let node = NodeId::new("o1").unwrap();
        let mut leases = Leases::default();
        let at = Duration::from_millis;
        leases.grant_all(at(100));
        assert!(leases.is_alive(&node, at(1599)) && !leases.is_heard(&node, at(1599)));
        assert!(!leases.is_alive(&node, at(1600)));
        let load = Load { viewers: 3, head_msn: 9, ..Load::default() };
        leases.renew(&node, Some(load), at(1000));
        leases.renew(&node, None, at(2000));
        assert!(leases.is_heard(&node, at(3499)) && !leases.is_alive(&node, at(3500)));
        assert_eq!(leases.load(&node), Some(load));
        leases.retain(|_| false);
        assert_eq!((leases.load(&node), leases.head_msn()), (None, 9));
    }
}
