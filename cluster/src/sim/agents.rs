//! Those who use the control plane: origins, edges and an operator, as far as placement concerns
//! them. Media is a counter per segment.
//!
//! In: time and packets. Out: questions and fetches, through the world. Origins keep to the rules of
//! homes: they act on a grant only after their own start is registered, and drop a room when they
//! learn of a higher epoch.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash as _, Hasher as _};
use std::time::Duration;

use wire::control::{
    Ask, Capacity, Load, Location, NodeInfo, NodeSpec, Roles, Versions, WatchEvent,
};
use wire::{Epoch, NodeId, Region, RoomId};

use super::check::Expectation;
use super::net::Index;

/// One agent.
pub(super) struct Agent {
    pub(super) id: NodeId,
    pub(super) roles: Roles,
    pub(super) incarnation: u64,
    pub(super) is_up: bool,
    pub(super) is_registered: bool,
    /// The control node asked first.
    pub(super) target: Index,
    pub(super) ops: BTreeMap<u64, Op>,
    pub(super) held: BTreeMap<RoomId, Held>,
    pub(super) watch: Option<WatchSession>,
    pub(super) known: BTreeMap<RoomId, Location>,
    pub(super) table: BTreeMap<NodeId, NodeInfo>,
    /// The newest segment an edge has of each room.
    pub(super) heads: BTreeMap<RoomId, (Epoch, u64)>,
    pub(super) head_msn: u64,
    pub(super) leader_revision: u64,
}

/// A question under way.
pub(super) struct Op {
    pub(super) ask: Ask,
    pub(super) expected: Expectation,
    pub(super) attempts: u32,
    /// The control node asked last.
    pub(super) target: Index,
    pub(super) incarnation: u64,
}

/// A room an origin is home of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) epoch: Epoch,
    pub(super) next_msn: u64,
}

/// A watch stream to a control node: ordered, or broken.
#[derive(Debug, Clone)]
pub(super) struct WatchSession {
    pub(super) control: Index,
    pub(super) number: u64,
    pub(super) last_arrival: Duration,
    pub(super) last_heard: Duration,
    /// What the leader had applied, and since when the watch has not.
    pub(super) behind: Option<(u64, Duration)>,
}

impl Agent {
    pub(super) fn new(id: &str, roles: Roles, incarnation: u64, target: Index) -> Self {
        Self {
            id: NodeId::new(id).expect("the simulation names its nodes well"),
            roles,
            incarnation,
            is_up: true,
            is_registered: false,
            target,
            ops: BTreeMap::new(),
            held: BTreeMap::new(),
            watch: None,
            known: BTreeMap::new(),
            table: BTreeMap::new(),
            heads: BTreeMap::new(),
            head_msn: 0,
            leader_revision: 0,
        }
    }

    /// Starts the process anew: nothing is remembered.
    pub(super) fn restart(&mut self, incarnation: u64) {
        *self = Self::new(self.id.as_str(), self.roles, incarnation, self.target);
    }

    pub(super) fn spec(&self) -> NodeSpec {
        NodeSpec {
            id: self.id.clone(),
            incarnation: self.incarnation,
            roles: self.roles,
            region: Region::default(),
            capacity: Capacity::default(),
            addr: ([10, 0, 1, 1], 7400).into(),
            viewer_urls: Vec::new(),
            versions: Versions::default(),
        }
    }

    pub(super) fn heartbeat(&self) -> Ask {
        let load = Load { head_msn: self.head_msn, ..Load::default() };
        Ask::Heartbeat { node: self.id.clone(), incarnation: self.incarnation, load }
    }

    pub(super) const fn is_origin(&self) -> bool {
        self.roles.has(Roles::ORIGIN)
    }

    /// Takes over a room under a grant that was given to this start of the node.
    pub(super) fn hold(&mut self, room: &RoomId, epoch: Epoch, msn_base: u64) {
        let before = self.held.get(room).cloned();
        if before.as_ref().is_some_and(|held| held.epoch >= epoch) {
            return;
        }
        // A home that moves to itself is its own donor: its numbers go on.
        let next_msn = before.map_or(msn_base, |held| held.next_msn.max(msn_base));
        self.held.insert(room.clone(), Held { epoch, next_msn });
    }

    /// Drops a room, if it is not held under a higher epoch.
    pub(super) fn drop_room(&mut self, room: &RoomId, epoch: Epoch) {
        if self.held.get(room).is_some_and(|held| held.epoch <= epoch) {
            self.held.remove(room);
        }
    }

    /// Makes the next segment of each room. What is in it depends on who made it, and when.
    pub(super) fn make_segments(&mut self) -> Vec<(RoomId, Epoch, u64, u64)> {
        let mut made = Vec::new();
        for (room, held) in &mut self.held {
            let content = content(&self.id, self.incarnation, room, held.epoch, held.next_msn);
            made.push((room.clone(), held.epoch, held.next_msn, content));
            held.next_msn += 1;
            self.head_msn = self.head_msn.max(held.next_msn);
        }
        made
    }

    /// The newest segment of a room, for an edge that knows its epoch.
    pub(super) fn newest(&self, room: &RoomId, epoch: Epoch) -> Option<(u64, u64)> {
        let held = self.held.get(room).filter(|held| held.epoch == epoch)?;
        let msn = held.next_msn.checked_sub(1)?;
        Some((msn, content(&self.id, self.incarnation, room, epoch, msn)))
    }

    /// An edge gets a segment. An error if its numbers went down.
    pub(super) fn shown(&mut self, room: &RoomId, epoch: Epoch, msn: u64) -> Result<(), String> {
        let head = self.heads.get(room).copied().unwrap_or_default();
        if epoch < head.0 || (epoch == head.0 && msn <= head.1) {
            // Late, or of a home that does not know that it is none any more: not shown.
            return Ok(());
        }
        if msn <= head.1 {
            return Err(format!(
                "{} shows s{msn}-{epoch} of {room} after s{}-{}",
                self.id, head.1, head.0
            ));
        }
        self.heads.insert(room.clone(), (epoch, msn));
        self.head_msn = self.head_msn.max(msn + 1);
        Ok(())
    }

    /// Takes note of how far the watch stream has come.
    pub(super) fn progressed(&mut self, event: &WatchEvent, now: Duration) {
        let leader = self.leader_revision;
        if let (WatchEvent::Synced { revision }, Some(watch)) = (event, &mut self.watch)
            && watch.behind.is_none_or(|(wanted, _)| wanted <= *revision)
        {
            watch.behind = (leader > *revision).then_some((leader, now));
        }
    }

    /// Takes an event of the watch stream. Returns a room whose location is news.
    pub(super) fn take(&mut self, event: WatchEvent) -> Option<RoomId> {
        match event {
            WatchEvent::Room { room, location } => {
                let known = self.known.get(&room);
                let is_old = known.is_some_and(|known| known.revision > location.revision);
                let is_news =
                    !is_old && known.is_none_or(|known| known.placement != location.placement);
                if !is_old {
                    self.known.insert(room.clone(), location);
                }
                is_news.then_some(room)
            }
            WatchEvent::Resync { .. } => {
                self.table.clear();
                None
            }
            WatchEvent::Node { node, .. } => {
                self.table.insert(node.spec.id.clone(), node);
                None
            }
            WatchEvent::NodeGone { id, .. } => {
                self.table.remove(&id);
                None
            }
            WatchEvent::Synced { .. } | WatchEvent::Refused { .. } | WatchEvent::Bar { .. } => None,
        }
    }
}

/// The control nodes an operator has taken out or lost the disks of.
#[derive(Debug, Default)]
pub(super) struct Operator {
    /// Wiped or new: to be added.
    pub(super) to_add: BTreeSet<Index>,
    /// Removed, to be wiped before anything else is done with them.
    pub(super) removed: BTreeSet<Index>,
}

fn content(node: &NodeId, incarnation: u64, room: &RoomId, epoch: Epoch, msn: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (node, incarnation, room, epoch, msn).hash(&mut hasher);
    hasher.finish()
}
