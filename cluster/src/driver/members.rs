//! Growing and shrinking the Raft group, as the leader does it step by step.
//!
//! In: the members the state wants and the configuration Raft has. Out: errands to empty nodes and
//! membership changes: probe → bind the disk → adopt → learner → caught up → joint change that
//! promotes it and drops whom it replaces. Every step is decided anew from the log, so that a
//! leader may die between any two.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use wire::NodeId;
use wire::control::{
    Answer, ClusterStatus, Disk as DiskContent, MemberInfo, NodeStatus, Part, Refusal,
};

use super::pending::Waiting;
use super::{Driver, Errand, Leadership, Now, Outputs, Token};
use crate::command::Command;
use crate::leases::Leases;
use crate::raft::{ConfChangeType, Node, change_step};
use crate::scheduler::Subject;
use crate::state::{Member, State};
use crate::storage::Disk;

/// How long an errand may take before it is sent again.
const ERRAND_EVERY: Duration = Duration::from_secs(1);
/// How long it may take to look at a member's disk.
const LOOK_TIMEOUT: Duration = Duration::from_secs(3);
/// How far a learner may lag and still be promoted: it catches up within a round trip.
const CAUGHT_UP_WITHIN: u64 = 64;

/// Errands under way, by raft id, and when they may be sent again.
#[derive(Debug, Default)]
pub(super) struct Members {
    next_errand: BTreeMap<u64, Duration>,
    /// Raft ids whose disks have said in this term that they have taken them.
    taken: Vec<u64>,
    /// Who wants to add a node that is a member already, until its disk has been looked at.
    adding: BTreeMap<u64, Vec<(Token, Duration)>>,
}

impl Members {
    /// Forgets everything, at a change of leadership. Returns whose questions are given up.
    pub(super) fn give_up(&mut self) -> Vec<Token> {
        let adding = std::mem::take(self).adding.into_values().flatten();
        adding.map(|(token, _)| token).collect()
    }

    /// Those who have waited for too long for a disk to be looked at.
    pub(super) fn expire(&mut self, now: Duration) -> Vec<Token> {
        let mut expired = Vec::new();
        self.adding.retain(|_, asked| {
            asked.retain(|(token, deadline)| {
                let keep = now < *deadline;
                if !keep {
                    expired.push(*token);
                }
                keep
            });
            !asked.is_empty()
        });
        expired
    }
}

impl<D: Disk> Driver<D> {
    /// Takes the next steps of membership. Returns how many changes were proposed.
    pub(super) fn advance_members(&mut self, now: Now, out: &mut Outputs) -> usize {
        let state = &self.replica.state;
        let conf = state.conf();
        if !conf.outgoing.is_empty() {
            // Joint: the leader leaves it by itself, and nothing may be changed before.
            return 0;
        }
        let mut steps = Vec::new();
        for (&raft_id, member) in state.members() {
            if member.wanted && !conf.contains(raft_id) {
                if self.members.taken.contains(&raft_id) {
                    steps.push(change_step(raft_id, ConfChangeType::AddLearnerNode));
                    break;
                }
                let due = self.members.next_errand.entry(raft_id).or_default();
                if *due <= now.mono {
                    *due = now.mono + ERRAND_EVERY;
                    out.errands.push(errand(raft_id, member));
                }
            }
        }
        if steps.is_empty() {
            steps = self.promotion();
        }
        if steps.is_empty() {
            return 0;
        }
        usize::from(self.node.propose_change(steps).is_ok())
    }

    /// Learners that have caught up become voters, and members that shall leave go, in one joint
    /// change. A member that is being replaced stays until its replacement is ready.
    fn promotion(&mut self) -> Vec<crate::raft::ConfChangeSingle> {
        let state = &self.replica.state;
        let (conf, members) = (state.conf(), state.members());
        let last = self.node.last_index();
        let is_ready = |raft_id: u64| {
            self.node
                .progress(raft_id)
                .filter(|(matched, heard)| *heard && *matched > 0)
                .is_some_and(|(matched, _)| matched + CAUGHT_UP_WITHIN >= last)
        };
        let promoted: Vec<u64> = conf
            .learners
            .iter()
            .copied()
            .filter(|id| members.get(id).is_some_and(|member| member.wanted) && is_ready(*id))
            .collect();
        let waits = |node: &NodeId| {
            members.iter().any(|(id, member)| {
                member.wanted
                    && member.node == *node
                    && !conf.voters.contains(id)
                    && !promoted.contains(id)
            })
        };
        let mut leaving: Vec<u64> = members
            .iter()
            .filter(|(id, member)| !member.wanted && conf.contains(**id) && !waits(&member.node))
            .map(|(id, _)| *id)
            .collect();
        let stays = |id: &u64| !leaving.contains(id);
        if !conf.voters.iter().chain(&promoted).any(stays) {
            return Vec::new();
        }
        let me = self.node.raft_id();
        if leaving.contains(&me) {
            // A leader does not vote itself out: it hands over first, to one that stays.
            let heir = conf.voters.iter().copied().find(|id| stays(id) && is_ready(*id));
            if let Some(heir) = heir {
                self.node.transfer_leader(heir);
            }
            leaving.retain(|id| *id != me);
        }
        let adds = promoted.into_iter().map(|id| change_step(id, ConfChangeType::AddNode));
        let removes = leaving.into_iter().map(|id| change_step(id, ConfChangeType::RemoveNode));
        adds.chain(removes).collect()
    }

    pub(super) fn probed(&mut self, now: Now, raft_id: u64, disk: DiskContent, out: &mut Outputs) {
        self.looked_at(now, raft_id, disk, out);
        let Some(member) = self.joining(raft_id) else { return };
        match disk {
            DiskContent::Empty { disk } if member.disk.is_none() => {
                self.propose_scheduled(now, Subject::Members, Command::Bind { raft_id, disk });
                // The next errand need not wait.
                self.members.next_errand.remove(&raft_id);
            }
            DiskContent::Empty { .. } => {}
            DiskContent::Member { cluster, raft_id: other } => {
                tracing::warn!(
                    node = %member.node, %cluster, raft_id = other,
                    "a node that shall join has data of a cluster; stop it and empty its data folder"
                );
            }
        }
    }

    pub(super) fn adopted(&mut self, now: Now, raft_id: u64, taken: bool, out: &mut Outputs) {
        let Some(member) = self.joining(raft_id) else { return };
        if taken {
            self.members.taken.push(raft_id);
            self.advance_members(now, out);
        } else {
            // The disk was wiped after it was bound. The raft id is lost with it; the node gets
            // another one.
            let (node, addr) = (member.node.clone(), member.addr);
            let command = Command::Admit { node, addr, lost: Some(raft_id) };
            self.propose_scheduled(now, Subject::Members, command);
        }
    }

    /// A member that this leader wants to join and that does not take part yet.
    fn joining(&self, raft_id: u64) -> Option<Member> {
        let state = &self.replica.state;
        let member = state.members().get(&raft_id)?;
        let joins = member.wanted && !state.conf().contains(raft_id) && self.is_settled();
        joins.then(|| member.clone())
    }

    /// Admits a node, unless it is a member whose disk still has its raft id: that takes a look.
    pub(super) fn add_member(
        &mut self,
        now: Now,
        token: Token,
        node: NodeId,
        addr: SocketAddr,
        out: &mut Outputs,
    ) -> Result<(), Refusal> {
        let state = &self.replica.state;
        let is_in = |(id, member): &(&u64, &Member)| {
            member.wanted && member.node == node && state.conf().contains(**id)
        };
        if let Some((&raft_id, _)) = state.members().iter().find(is_in) {
            let asked = self.members.adding.entry(raft_id).or_default();
            asked.push((token, now.mono + LOOK_TIMEOUT));
            out.errands.push(Errand::Probe { raft_id, node, addr });
            return Ok(());
        }
        self.propose(now, Command::Admit { node, addr, lost: None }, Waiting::Asker(token))
    }

    /// The disk of a member that someone wants to add again has been looked at.
    fn looked_at(&mut self, now: Now, raft_id: u64, disk: DiskContent, out: &mut Outputs) {
        let Some(asked) = self.members.adding.remove(&raft_id) else { return };
        let state = &self.replica.state;
        let cluster = state.cluster();
        let is_same = disk == DiskContent::Member { cluster, raft_id };
        let member = state.members().get(&raft_id).cloned();
        for (token, _) in asked {
            let proposed = match &member {
                _ if is_same => {
                    out.replies.push((token, Ok(Answer::Member { raft_id })));
                    continue;
                }
                Some(Member { node, addr, .. }) => {
                    let (node, addr) = (node.clone(), *addr);
                    let command = Command::Admit { node, addr, lost: Some(raft_id) };
                    self.propose(now, command, Waiting::Asker(token))
                }
                None => Err(Refusal::Conflict("the member is being removed".to_owned())),
            };
            if let Err(refusal) = proposed {
                out.replies.push((token, Err(refusal)));
            }
        }
    }
}

fn errand(raft_id: u64, member: &Member) -> Errand {
    let (node, addr) = (member.node.clone(), member.addr);
    match member.disk {
        None => Errand::Probe { raft_id, node, addr },
        Some(disk) => Errand::Adopt { raft_id, node, addr, disk },
    }
}

/// The state of the control plane as one member sees it.
pub(super) fn status<D: Disk>(
    state: &State,
    node: &Node<D>,
    leases: &Leases,
    leadership: &Leadership,
) -> ClusterStatus {
    let conf = state.conf();
    let members = state.members().iter().map(|(raft_id, member)| MemberInfo {
        raft_id: *raft_id,
        node: member.node.clone(),
        addr: member.addr,
        part: match () {
            () if conf.voters.contains(raft_id) => Part::Voter,
            () if conf.contains(*raft_id) => Part::Learner,
            () => Part::Joining,
        },
        matched: node.progress(*raft_id).map_or(0, |(matched, _)| matched),
    });
    let nodes = state.nodes().map(|info| NodeStatus {
        info: info.clone(),
        load: leases.load(&info.spec.id).filter(|_| leadership.is_leader),
        homes: u32::try_from(state.rooms_of(&info.spec.id).len()).unwrap_or(u32::MAX),
    });
    ClusterStatus {
        cluster: state.cluster(),
        leader: leadership.leader.as_ref().map(|(node, _)| node.clone()),
        term: leadership.term,
        revision: state.revision(),
        members: members.collect(),
        nodes: nodes.collect(),
        rooms: state.room_count() as u64,
    }
}
