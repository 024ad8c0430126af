//! A new home finds the room's past: what edges have of it is united.
//!
//! In: edges with how far they have come, and their rings. Out, after [`SETTLE_MS`]: a ring that has
//! what any of them has of the newest epoch, and the lineage that lets positions of that epoch go on.
//! Meanwhile what members say is kept, and then said in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use wire::events::Whence;
use wire::room::relay::{Past, Say};
use wire::room::{Item, Ring};

use super::{Core, EdgeId, Now, Output};

/// How long edges are waited for.
pub(crate) const SETTLE_MS: u64 = 500;
/// Things said that wait meanwhile; beyond, they are answered `unavailable`.
const MAX_WAITING: usize = 1_000;

#[derive(Debug)]
pub(super) struct Settling {
    until_ms: u64,
    edges: BTreeMap<EdgeId, Found>,
    waiting: Vec<(EdgeId, Say, Whence)>,
}

#[derive(Debug, Default)]
struct Found {
    past: Option<Past>,
    items: Vec<Arc<Item>>,
    answered: bool,
}

impl Settling {
    pub(super) fn new(now: Now) -> Self {
        Self { until_ms: now.ms + SETTLE_MS, edges: BTreeMap::new(), waiting: Vec::new() }
    }

    pub(super) fn until_ms(&self) -> u64 {
        self.until_ms
    }

    pub(super) fn is_over(&self, now: Now) -> bool {
        now.ms >= self.until_ms
    }

    /// Whether the edge is to be asked for its ring.
    pub(super) fn enter(&mut self, edge: EdgeId, past: Option<Past>) -> bool {
        let recalled = past.is_some();
        self.edges.insert(edge, Found { past, ..Found::default() });
        recalled
    }

    pub(super) fn leave(&mut self, edge: EdgeId) {
        self.edges.remove(&edge);
        self.waiting.retain(|(from, ..)| *from != edge);
    }

    pub(super) fn history(&mut self, edge: EdgeId, items: &[Bytes]) {
        let Some(found) = self.edges.get_mut(&edge) else { return };
        found.items =
            items.iter().filter_map(|item| Item::decode_shared(item).ok().map(Arc::new)).collect();
        found.answered = true;
    }

    /// Keeps what was said for later; false if too much waits.
    pub(super) fn keep(&mut self, edge: EdgeId, say: Say, whence: Whence) -> bool {
        let has_room = self.waiting.len() < MAX_WAITING;
        if has_room {
            self.waiting.push((edge, say, whence));
        }
        has_room
    }
}

impl Core {
    /// Takes over from what was found, lets all edges in, and says what waited.
    pub(super) fn settle(&mut self, now: Now, out: &mut Vec<Output>) {
        let Some(settling) = self.settling.take() else { return };
        let Settling { edges, waiting, .. } = settling;
        let pasts =
            || edges.values().filter(|found| found.answered).filter_map(|f| f.past.as_ref());
        if let Some(newest) = pasts().map(|past| past.epoch).max() {
            self.unite(now, &edges, newest);
        }
        let mut version = 0;
        for past in edges.values().filter_map(|found| found.past.as_ref()) {
            self.counting.unite(&past.tally);
            version = version.max(past.head);
        }
        // Versions of counters are not in the past; wall time is above any of them.
        self.counting.begin_above(now.unix_ms / 1000);
        for (edge, found) in &edges {
            self.admit(*edge, found.past.as_ref(), out);
        }
        for (edge, say, whence) in waiting {
            self.say(now, edge, say, whence, out);
        }
    }

    fn unite(&mut self, now: Now, edges: &BTreeMap<EdgeId, Found>, newest: wire::Epoch) {
        let mut head = 0;
        for found in edges.values().filter(|found| found.answered) {
            let Some(past) = found.past.as_ref().filter(|past| past.epoch == newest) else {
                continue;
            };
            if self.ring.head() == 0 && self.ring.all().is_empty() {
                self.ring = Ring::starting_at(past.head);
                self.ring.unite(now.ms, &found.items, past.floor, past.head);
            } else {
                self.ring.unite(now.ms, &found.items, past.floor, past.head);
            }
            if past.head >= head {
                head = past.head;
                self.lineage.clone_from(&past.lineage);
                self.state.sanctions.clone_from(&past.state.sanctions);
            }
            for (k, v, ver) in &past.state.keys {
                let set = wire::room::model::Set { k: k.clone(), v: v.clone(), ver: *ver };
                self.state.set(&set);
            }
        }
        self.close_epoch(newest, self.ring.head());
    }
}
