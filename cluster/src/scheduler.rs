//! What a leader does on its own: notice deaths and returns, move rooms, grow and shrink the group.
//!
//! In: the replicated state, the leases, the time. Out: commands to propose and steps of membership
//! to take. Pure: the driver proposes what comes out and says when a proposal has ended, so that
//! nothing is proposed twice at a time.
//!
//! Runs on a leader that knows everything committed before its term; its decisions carry the epoch
//! or incarnation they were made against, so that a decision overtaken by events changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use wire::control::{Load, NodeInfo, NodeState, Roles};
use wire::{NodeId, RoomId};

use crate::command::Command;
use crate::leases::Leases;
use crate::placement::{self, Candidate};
use crate::state::State;

/// Most rooms being placed at a time; the rest wait for the next round.
const MAX_PLACING: usize = 1024;
/// Most rooms being moved off draining nodes at a time: each is a hand-over with live viewers.
const MAX_DRAINING: usize = 16;
/// A node that has been down for this long, has no room and no vote is dropped from the table, so
/// that edges that come and go under ever new names do not fill it.
const FORGET_AFTER: Duration = Duration::from_secs(3600);
/// How many rooms' ingests may be remembered beyond the rooms there are, before a sweep.
const SPARE_INGESTS: usize = 1024;

/// What the leader has under way, and the soft facts it decides by.
#[derive(Debug, Default)]
pub(crate) struct Scheduler {
    nodes: BTreeSet<NodeId>,
    rooms: BTreeSet<RoomId>,
    /// The node that last claimed a room, i.e. has its publisher. Bounded by the rooms placed.
    ingests: BTreeMap<RoomId, NodeId>,
    down_since: BTreeMap<NodeId, Duration>,
}

/// What a proposal of the scheduler is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// A row of the node table.
    Node(NodeId),
    /// The placement of a room.
    Room(RoomId),
    /// The group's membership.
    Members,
}

impl Scheduler {
    /// Forgets everything, at a change of leadership.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// A proposal has ended, one way or the other.
    pub(crate) fn ended(&mut self, subject: &Subject) {
        match subject {
            Subject::Node(node) => drop(self.nodes.remove(node)),
            Subject::Room(room) => drop(self.rooms.remove(room)),
            Subject::Members => {}
        }
    }

    /// `ingest` claimed the room.
    pub(crate) fn claimed(&mut self, room: &RoomId, ingest: &NodeId) {
        if self.ingests.get(room) != Some(ingest) {
            self.ingests.insert(room.clone(), ingest.clone());
        }
    }

    /// Everything due now, with what it is about.
    pub(crate) fn due(
        &mut self,
        now: Duration,
        state: &State,
        leases: &Leases,
    ) -> Vec<(Subject, Command)> {
        let mut due = Vec::new();
        if self.ingests.len() > state.room_count() + SPARE_INGESTS {
            self.ingests.retain(|room, _| state.room(room).is_some());
        }
        self.down_since
            .retain(|node, _| state.node(node).is_some_and(|row| row.state == NodeState::Down));
        for row in state.nodes() {
            self.watch_node(row, now, state, leases, &mut due);
        }
        for row in state.nodes() {
            match row.state {
                NodeState::Down => self.move_rooms(row, MAX_PLACING, now, state, leases, &mut due),
                NodeState::Draining => {
                    self.move_rooms(row, MAX_DRAINING, now, state, leases, &mut due);
                }
                NodeState::Up => {}
            }
        }
        due
    }

    fn watch_node(
        &mut self,
        row: &NodeInfo,
        now: Duration,
        state: &State,
        leases: &Leases,
        due: &mut Vec<(Subject, Command)>,
    ) {
        let id = &row.spec.id;
        if self.nodes.contains(id) {
            return;
        }
        let set = |state| Command::SetState {
            node: id.clone(),
            incarnation: row.spec.incarnation,
            state,
        };
        let command = match row.state {
            NodeState::Up | NodeState::Draining if !leases.is_alive(id, now) => {
                set(NodeState::Down)
            }
            NodeState::Down if leases.is_heard(id, now) => set(NodeState::Up),
            NodeState::Down => {
                let since = *self.down_since.entry(id.clone()).or_insert(now);
                let is_member = state.members().values().any(|member| member.node == *id);
                if now < since + FORGET_AFTER || is_member || state.rooms_of(id).len() > 0 {
                    return;
                }
                Command::Forget { node: id.clone() }
            }
            NodeState::Up | NodeState::Draining => return,
        };
        self.nodes.insert(id.clone());
        due.push((Subject::Node(id.clone()), command));
    }

    /// Places up to `most` rooms of a node elsewhere: where their publisher is, if that can be.
    fn move_rooms(
        &mut self,
        from: &NodeInfo,
        most: usize,
        now: Duration,
        state: &State,
        leases: &Leases,
        due: &mut Vec<(Subject, Command)>,
    ) {
        let old = &from.spec.id;
        let homes_added: &mut BTreeMap<NodeId, u32> = &mut BTreeMap::new();
        for room in state.rooms_of(old) {
            if self.rooms.len() >= most {
                return;
            }
            let Some(placed) = state.room(room) else { continue };
            if self.rooms.contains(room) {
                continue;
            }
            let ingest = self.ingests.get(room).or(placed.ingest.as_ref());
            let nodes = origins(now, state, leases).map(|mut node| {
                node.homes += homes_added.get(&node.info.spec.id).copied().unwrap_or(0);
                node
            });
            let Some(home) = placement::home(room, ingest, Some(old), nodes) else { return };
            if home == *old {
                return;
            }
            *homes_added.entry(home.clone()).or_default() += 1;
            self.rooms.insert(room.clone());
            let command = Command::Place {
                room: room.clone(),
                home,
                ingest: ingest.cloned(),
                replaces: Some(placed.epoch),
                msn_floor: leases.head_msn(),
            };
            due.push((Subject::Room(room.clone()), command));
        }
    }
}

/// The origins of the node table as placement sees them. A large cluster has a thousand edges for a
/// few origins, and a death or a storm of activations asks this for thousands of rooms.
pub(crate) fn origins<'a>(
    now: Duration,
    state: &'a State,
    leases: &'a Leases,
) -> impl Iterator<Item = Candidate<'a>> {
    let origins = state.nodes().filter(|info| info.spec.roles.has(Roles::ORIGIN));
    origins.map(move |info| {
        let id = &info.spec.id;
        let load: Load = leases.load(id).unwrap_or_default();
        let homes = u32::try_from(state.rooms_of(id).len()).unwrap_or(u32::MAX);
        Candidate { info, load, homes, alive: leases.is_alive(id, now) }
    })
}

#[cfg(test)]
mod tests {
    use wire::control::{Answer, Capacity, Grant, NodeSpec, Versions};
    use wire::{ClusterId, Region};

    use super::*;
    use crate::command::Stamped;
    use crate::state::Changes;

    fn id(text: &str) -> NodeId {
        NodeId::new(text).unwrap()
    }

    fn run(state: &mut State, command: Command) -> Answer {
        let stamped = Stamped { at_s: 0, command };
        state.apply(state.revision() + 1, stamped, &mut Changes::default()).unwrap()
    }

    fn cluster() -> State {
        let founder = (id("o1"), "127.0.0.1:1".parse().unwrap());
        let mut state = State::found(ClusterId::from_bits(1), &[founder], 7);
        for node in ["o1", "o2", "o3"] {
            let spec = NodeSpec {
                id: id(node),
                incarnation: 1,
                roles: Roles::ORIGIN,
                region: Region::default(),
                capacity: Capacity::default(),
                addr: "127.0.0.1:1".parse().unwrap(),
                viewer_urls: Vec::new(),
                versions: Versions::default(),
            };
            run(&mut state, Command::Register { spec });
        }
        state
    }

    fn place(state: &mut State, i: usize, home: &str, ingest: &str) -> Grant {
        let room = RoomId::new("live", &format!("r{i}")).unwrap();
        let ingest = Some(id(ingest));
        let command = Command::Place { room, home: id(home), ingest, replaces: None, msn_floor: 0 };
        match run(state, command) {
            Answer::Grant(grant) => grant,
            other => panic!("{other:?}"),
        }
    }

    const NOW: Duration = Duration::from_secs(10);

    fn leases(alive: &[&str]) -> Leases {
        let mut leases = Leases::default();
        for node in alive {
            leases.renew(&id(node), None, NOW);
        }
        leases
    }

    #[test]
    fn a_dead_node_is_marked_and_its_rooms_go_to_their_publishers() {
        let mut state = cluster();
        for i in 0..4 {
            place(&mut state, i, "o1", "o3");
        }
        let leases = leases(&["o2", "o3"]);
        let mut scheduler = Scheduler::default();
        let due = scheduler.due(NOW, &state, &leases);
        assert_eq!(due.len(), 1, "{due:?}");
        assert!(scheduler.due(NOW, &state, &leases).is_empty(), "not twice at a time");
        for (subject, command) in due {
            run(&mut state, command);
            scheduler.ended(&subject);
        }
        let moves = scheduler.due(NOW, &state, &leases);
        assert_eq!(moves.len(), 4);
        for (subject, command) in moves {
            match run(&mut state, command) {
                Answer::Grant(grant) => assert_eq!(grant.home, id("o3")),
                other => panic!("{other:?}"),
            }
            scheduler.ended(&subject);
        }
        assert!(scheduler.due(NOW, &state, &leases).is_empty());
    }

    #[test]
    fn the_last_claimant_counts_more_than_the_first() {
        let mut state = cluster();
        let grant = place(&mut state, 0, "o1", "o2");
        let mut scheduler = Scheduler::default();
        scheduler.claimed(&grant.room, &id("o3"));
        let down = Command::SetState { node: id("o1"), incarnation: 1, state: NodeState::Down };
        run(&mut state, down);
        let due = scheduler.due(NOW, &state, &leases(&["o2", "o3"]));
        assert!(
            matches!(&due[..], [(_, Command::Place { home, .. })] if *home == id("o3")),
            "{due:?}"
        );
    }

    #[test]
    fn rooms_without_another_origin_stay_where_they_are() {
        let mut state = cluster();
        place(&mut state, 0, "o1", "o1");
        for node in ["o1", "o2", "o3"] {
            let command =
                Command::SetState { node: id(node), incarnation: 1, state: NodeState::Down };
            run(&mut state, command);
        }
        let mut scheduler = Scheduler::default();
        assert!(scheduler.due(NOW, &state, &leases(&[])).is_empty());
        let due = scheduler.due(NOW, &state, &leases(&["o1"]));
        assert!(
            matches!(&due[..], [(_, Command::SetState { state: NodeState::Up, .. })]),
            "{due:?}"
        );
    }

    #[test]
    fn a_drain_moves_a_few_rooms_at_a_time_and_not_the_last_origin() {
        let mut state = cluster();
        for i in 0..40 {
            place(&mut state, i, "o1", "o1");
        }
        let drain =
            Command::SetState { node: id("o1"), incarnation: 1, state: NodeState::Draining };
        run(&mut state, drain);
        let mut scheduler = Scheduler::default();
        let all = leases(&["o1", "o2", "o3"]);
        assert_eq!(scheduler.due(NOW, &state, &all).len(), MAX_DRAINING);
        assert!(scheduler.due(NOW, &state, &all).is_empty());
        scheduler.clear();
        let due = scheduler.due(NOW, &state, &leases(&["o1"]));
        assert!(due.iter().all(|(subject, _)| matches!(subject, Subject::Node(_))), "{due:?}");
    }

    #[test]
    fn a_node_long_gone_is_forgotten() {
        let mut state = cluster();
        let down = Command::SetState { node: id("o3"), incarnation: 1, state: NodeState::Down };
        run(&mut state, down);
        let mut scheduler = Scheduler::default();
        let mut leases = leases(&["o1", "o2"]);
        assert!(scheduler.due(NOW, &state, &leases).is_empty());
        let later = NOW + FORGET_AFTER;
        leases.renew(&id("o1"), None, later);
        leases.renew(&id("o2"), None, later);
        let due = scheduler.due(later, &state, &leases);
        assert!(
            matches!(&due[..], [(_, Command::Forget { node })] if *node == id("o3")),
            "{due:?}"
        );
    }
}
