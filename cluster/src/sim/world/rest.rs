//! How the world must look when everything has come to rest.

use wire::control::NodeState;

use super::super::check::Violation;
use super::{EDGES, ORIGINS, ROOMS, World, room};

impl World {
    /// Checks that the cluster has one leader, whole membership, equal members, all that was
    /// acknowledged, living homes, and watchers who know.
    pub(super) fn check_rest(&mut self) -> Result<(), Violation> {
        let leader = self.leader().ok_or("no leader after healing")?;
        let driver = self.controls[leader].driver.as_ref().ok_or("the leader is gone")?;
        let state = driver.state();
        self.counts.changes = state.conf().voters.iter().max().copied().unwrap_or(0);
        let conf = state.conf();
        for (raft_id, member) in state.members() {
            if !member.wanted || !conf.voters.contains(raft_id) {
                return Err(format!(
                    "member {raft_id} on {} is stuck after healing: {member:?}, {conf:?}",
                    member.node
                ));
            }
        }
        if conf.voters.len() != state.members().len() || !conf.outgoing.is_empty() {
            return Err(format!("membership is stuck after healing: {conf:?}"));
        }
        for (raft_id, member) in state.members() {
            let node = self.controls.iter().find(|node| node.id == member.node);
            let other = node.and_then(|node| node.driver.as_ref());
            let Some(other) = other.filter(|other| other.raft_id() == *raft_id) else {
                return Err(format!("voter {} does not run after healing", member.node));
            };
            if other.state() != state {
                return Err(format!(
                    "{} is at revision {}, the leader at {}",
                    member.node,
                    other.state().revision(),
                    state.revision()
                ));
            }
        }
        self.checker.rested(|room| state.grant(room))?;
        let any_up = state.nodes().any(|row| {
            row.state == NodeState::Up && row.spec.roles.has(wire::control::Roles::ORIGIN)
        });
        for agent in &self.agents[..ORIGINS + EDGES] {
            let row = state.node(&agent.id).ok_or(format!("{} is not registered", agent.id))?;
            if row.state == NodeState::Down || row.spec.incarnation != agent.incarnation {
                return Err(format!("{} is taken for dead after healing: {row:?}", agent.id));
            }
            for i in 0..ROOMS {
                let known = agent.known.get(&room(i)).and_then(|known| known.placement.clone());
                if known != state.grant(&room(i)) {
                    return Err(format!(
                        "{} believes {known:?} of a room that is {:?}",
                        agent.id,
                        state.grant(&room(i))
                    ));
                }
            }
            if agent.table.values().ne(state.nodes()) {
                return Err(format!("{} has another node table than the leader", agent.id));
            }
        }
        for i in 0..ROOMS {
            let Some(grant) = state.grant(&room(i)) else { continue };
            let home = state.node(&grant.home).map(|row| row.state);
            if home != Some(NodeState::Up) && any_up {
                return Err(format!("{} rests at a home that is {home:?}", grant.room));
            }
        }
        Ok(())
    }
}
