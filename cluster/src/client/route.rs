//! Where a viewer should go: the best edges of a room, as any node can tell.
//!
//! In: the node table, kept by the watch, and the loads that the leader has from heartbeats, asked for
//! only while somebody wants to know. Out: edges, best first. Never waits: an answer uses the loads
//! there are, and without any the room's own order decides alone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;
use wire::control::{Load, NodeInfo, NodeState};
use wire::{NodeId, Region, RoomId};

use super::Client;
use crate::placement::{self, Candidate, Distances};

/// How old loads may be before they are asked for again.
const FRESH: Duration = Duration::from_secs(5);

/// Tells where viewers should go. Clones share what they know.
#[derive(Clone)]
pub struct Router {
    client: Client,
    distances: Arc<Distances>,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    loads: BTreeMap<NodeId, Load>,
    /// When they were last asked for.
    asked: Option<Instant>,
    /// The question under way; at most one.
    asking: JoinSet<()>,
}

impl Router {
    /// A router over the node table of `client`.
    #[must_use]
    pub fn new(client: Client, distances: Distances) -> Self {
        Self { client, distances: Arc::new(distances), known: Arc::default() }
    }

    /// The node it runs on.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        self.client.node()
    }

    /// Up to `count` edges for a viewer of `room` in `region`, best first, of those that `may` be
    /// offered.
    #[must_use]
    pub fn edges(
        &self,
        room: &RoomId,
        region: &Region,
        count: usize,
        may: impl Fn(&NodeInfo) -> bool,
    ) -> Vec<NodeInfo> {
        self.refresh();
        let table = self.client.shared.nodes.borrow().clone();
        let known = self.known.lock();
        let candidates = table.nodes.values().filter(|info| may(info)).map(|info| Candidate {
            info,
            load: known.loads.get(&info.spec.id).copied().unwrap_or_default(),
            homes: 0,
            alive: info.state != NodeState::Down,
        });
        let chosen = placement::route(room, region, &self.distances, count, candidates);
        chosen.into_iter().cloned().collect()
    }

    /// Asks for the loads if they are old and nobody is asking.
    fn refresh(&self) {
        let mut known = self.known.lock();
        while known.asking.try_join_next().is_some() {}
        let old = known.asked.is_none_or(|asked| asked.elapsed() >= FRESH);
        if !old || !known.asking.is_empty() {
            return;
        }
        known.asked = Some(Instant::now());
        let (client, shared) = (self.client.clone(), Arc::downgrade(&self.known));
        known.asking.spawn(async move {
            match client.loads().await {
                Ok(loads) => {
                    if let Some(known) = shared.upgrade() {
                        known.lock().loads = loads.into_iter().collect();
                    }
                }
                // Loads of a while ago are better than none.
                Err(error) => tracing::debug!(%error, "loads of the edges are not known"),
            }
        });
    }
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").field("node", self.node()).finish_non_exhaustive()
    }
}
