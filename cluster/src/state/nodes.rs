//! Nodes and members: who is in the table, who is in the Raft group, who is out for good.
//!
//! In: commands from [`State::apply`]. Out: answers and changed rows. A node that restarts has lost
//! its memory, so its rooms get new epochs; a raft id is given once and bound to one disk.

use std::net::SocketAddr;

use wire::NodeId;
use wire::control::{
    Answer, MAX_VIEWER_URL_BYTES, MAX_VIEWER_URLS, NodeInfo, NodeSpec, NodeState, Refusal,
};

use crate::planted::{Bug, is_planted};

use super::{Changes, MAX_MEMBERS, MAX_NODES, MAX_REMOVED, Member, State};

impl State {
    /// The row of a node.
    #[must_use]
    pub fn node(&self, id: &NodeId) -> Option<&NodeInfo> {
        self.nodes.get(id)
    }

    /// The node table, by id.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &NodeInfo> + '_ {
        self.nodes.values()
    }

    /// Where a member's QUIC endpoint is: by its row of the node table, which it keeps up to date
    /// itself, or else as it was admitted.
    #[must_use]
    pub fn member_route(&self, raft_id: u64) -> Option<(NodeId, SocketAddr)> {
        let member = self.members.get(&raft_id)?;
        let addr = self.nodes.get(&member.node).map_or(member.addr, |row| row.spec.addr);
        Some((member.node.clone(), addr))
    }

    /// Whether messages of a raft id are to be listened to: of members, and of ids that were given
    /// after this state, which may simply be behind. An id that was given and is no member's any
    /// more is out for good.
    #[must_use]
    pub fn hears(&self, raft_id: u64) -> bool {
        self.members.contains_key(&raft_id)
            || self.conf.contains(raft_id)
            || raft_id >= self.next_raft_id
    }

    /// Whether the node was removed for good.
    #[must_use]
    pub fn is_removed(&self, id: &NodeId) -> bool {
        self.removed.contains(id)
    }

    pub(super) fn register(
        &mut self,
        spec: NodeSpec,
        changes: &mut Changes,
    ) -> Result<Answer, Refusal> {
        if self.removed.contains(&spec.id) {
            return Err(Refusal::Removed(spec.id));
        }
        if spec.viewer_urls.len() > MAX_VIEWER_URLS
            || spec.viewer_urls.iter().any(|url| url.len() > MAX_VIEWER_URL_BYTES)
        {
            return Err(Refusal::Invalid(format!(
                "a node has at most {MAX_VIEWER_URLS} viewer URLs of {MAX_VIEWER_URL_BYTES} bytes"
            )));
        }
        let id = spec.id.clone();
        let old = self.nodes.get(&id);
        if old.is_none() && self.nodes.len() >= MAX_NODES {
            return Err(Refusal::Overloaded(format!("the node table has {MAX_NODES} rows")));
        }
        let restarted = old.is_some_and(|old| old.spec.incarnation != spec.incarnation);
        let moved = old.is_some_and(|old| old.spec.addr != spec.addr);
        // A restart ends a drain: the operator drained the node to restart it.
        let state = match old.map(|old| old.state) {
            Some(NodeState::Draining) if !restarted => NodeState::Draining,
            _ => NodeState::Up,
        };
        let row = NodeInfo { spec, state };
        if old != Some(&row) {
            self.nodes.insert(id.clone(), row);
            changes.nodes.insert(id.clone());
        }
        if restarted && !is_planted(Bug::KeepEpochs) {
            self.renew(&id, changes);
        } else if moved {
            changes.rooms.extend(self.rooms_of(&id).cloned());
        }
        Ok(Answer::Done)
    }

    pub(super) fn set_state(
        &mut self,
        id: &NodeId,
        incarnation: u64,
        state: NodeState,
        changes: &mut Changes,
    ) -> Result<Answer, Refusal> {
        let row = self.nodes.get_mut(id).ok_or_else(|| Refusal::UnknownNode(id.clone()))?;
        if row.spec.incarnation != incarnation {
            return Err(Refusal::Conflict(format!("node {id} has restarted")));
        }
        if row.state != state {
            row.state = state;
            changes.nodes.insert(id.clone());
        }
        Ok(Answer::Done)
    }

    pub(super) fn forget(&mut self, id: &NodeId, changes: &mut Changes) -> Result<Answer, Refusal> {
        let row = self.nodes.get(id).ok_or_else(|| Refusal::UnknownNode(id.clone()))?;
        let is_member = self.members.values().any(|member| member.node == *id);
        if row.state != NodeState::Down || is_member || self.rooms_of(id).len() > 0 {
            return Err(Refusal::Conflict(format!("node {id} is still needed")));
        }
        self.nodes.remove(id);
        changes.nodes.insert(id.clone());
        Ok(Answer::Done)
    }

    pub(super) fn remove_node(
        &mut self,
        id: NodeId,
        changes: &mut Changes,
    ) -> Result<Answer, Refusal> {
        let is_member = self.members.values().any(|member| member.node == id);
        if !is_member && !self.nodes.contains_key(&id) {
            let known = self.removed.contains(&id);
            return if known { Ok(Answer::Done) } else { Err(Refusal::UnknownNode(id)) };
        }
        if self.removed.len() >= MAX_REMOVED && !self.removed.contains(&id) {
            return Err(Refusal::Overloaded(format!("{MAX_REMOVED} nodes have been removed")));
        }
        if self.rooms_of(&id).len() > 0 {
            return Err(Refusal::Conflict(format!("node {id} has rooms; drain it first")));
        }
        let stays = |member: &Member| member.wanted && member.node != id;
        if is_member && !self.members.values().any(stays) {
            return Err(Refusal::Conflict(format!("node {id} is the only voter")));
        }
        for member in self.members.values_mut().filter(|member| member.node == id) {
            member.wanted = false;
        }
        let conf = &self.conf;
        self.members.retain(|raft_id, member| member.wanted || conf.contains(*raft_id));
        if self.nodes.remove(&id).is_some() {
            changes.nodes.insert(id.clone());
        }
        self.removed.insert(id);
        Ok(Answer::Done)
    }

    pub(super) fn admit(
        &mut self,
        node: NodeId,
        addr: SocketAddr,
        lost: Option<u64>,
    ) -> Result<Answer, Refusal> {
        let is_same = |(id, member): &(&u64, &mut Member)| {
            member.wanted && member.node == node && lost != Some(**id)
        };
        if let Some((raft_id, member)) = self.members.iter_mut().find(is_same) {
            // It has a raft id, and its disk may have taken it already: a second one would find no
            // disk to take it. The address given last is the right one.
            member.addr = addr;
            return Ok(Answer::Member { raft_id: *raft_id });
        }
        if self.members.len() >= MAX_MEMBERS {
            return Err(Refusal::Overloaded(format!("the Raft group has {MAX_MEMBERS} members")));
        }
        for member in self.members.values_mut().filter(|member| member.node == node) {
            member.wanted = false;
        }
        let conf = &self.conf;
        self.members.retain(|raft_id, member| member.wanted || conf.contains(*raft_id));
        let raft_id = self.next_raft_id;
        self.next_raft_id += 1;
        self.removed.remove(&node);
        self.members.insert(raft_id, Member { node, addr, disk: None, wanted: true });
        Ok(Answer::Member { raft_id })
    }

    pub(super) fn bind(&mut self, raft_id: u64, disk: u64) -> Result<Answer, Refusal> {
        let member = self
            .members
            .get_mut(&raft_id)
            .ok_or_else(|| Refusal::Conflict(format!("raft id {raft_id} is not to be taken")))?;
        match member.disk {
            None => {
                member.disk = Some(disk);
                Ok(Answer::Done)
            }
            Some(taken) if taken == disk => Ok(Answer::Done),
            Some(_) => Err(Refusal::Conflict(format!("raft id {raft_id} is taken"))),
        }
    }
}
