//! What a leader answers to each question.
//!
//! In: a question and the certified name of its asker. Out: an answer at once, a proposal whose
//! outcome is the answer, or a read that is answered once leadership is confirmed. A question that
//! tells of the past ("is this still so") is never answered from a leader's own belief: another one
//! may have been elected meanwhile.

use wire::control::{Answer, Ask, MAX_PAGE, NodeSpec, NodeState, Refusal, Roles};
use wire::{NodeId, RoomId};

use super::pending::Waiting;
use super::{Driver, Now, Outputs, Token};
use crate::command::Command;
use crate::placement;
use crate::planted::{Bug, is_planted};
use crate::scheduler::origins;
use crate::state::Opening;
use crate::storage::Disk;

impl<D: Disk> Driver<D> {
    /// Takes a question. An error is the answer; otherwise the answer is in `out` or comes later.
    pub(super) fn ask(
        &mut self,
        now: Now,
        token: Token,
        peer: &NodeId,
        ask: Ask,
        out: &mut Outputs,
    ) -> Result<(), Refusal> {
        match ask {
            Ask::Status => {
                out.replies.push((token, Ok(Answer::Status(self.status()))));
                return Ok(());
            }
            Ask::Locate { .. }
            | Ask::Rooms { .. }
            | Ask::Bars { .. }
            | Ask::Probe
            | Ask::Adopt { .. } => {
                return Err(Refusal::Invalid("not a question for the leader".to_owned()));
            }
            _ => {}
        }
        if !self.node.is_leader() {
            return Err(self.not_leader());
        }
        if !self.is_settled() {
            return self.parked.insert(token, peer.clone(), ask, now.mono);
        }
        let command = match ask {
            Ask::Heartbeat { node, incarnation, load } => {
                self.check_speaker(peer, &node)?;
                let row = self.state().node(&node);
                if row.is_none_or(|row| row.spec.incarnation != incarnation) {
                    return Err(self.removed_or(&node, Refusal::Unregistered));
                }
                self.leases.renew(&node, Some(load), now.mono);
                let beat =
                    Answer::Beat { term: self.node.term(), revision: self.state().revision() };
                out.replies.push((token, Ok(beat)));
                return Ok(());
            }
            Ask::Loads => {
                let edges = self.state().nodes().filter(|row| row.spec.roles.has(Roles::EDGE));
                let load = |id: &NodeId| Some((id.clone(), self.leases.load(id)?));
                let loads = edges.filter_map(|row| load(&row.spec.id)).collect();
                out.replies.push((token, Ok(Answer::Loads(loads))));
                return Ok(());
            }
            Ask::Register { spec } => return self.register(now, token, peer, spec, out),
            Ask::Claim { room, ingest } => return self.claim(now, token, room, ingest),
            Ask::Confirm { .. } | Ask::CheckKey { .. } if is_planted(Bug::StaleRead) => {
                let answer = self.read(now, token, ask)?;
                out.replies.extend(answer.map(|answer| (token, Ok(answer))));
                return Ok(());
            }
            Ask::Confirm { .. }
            | Ask::CheckKey { .. }
            | Ask::UseKey { .. }
            | Ask::ListKeys { .. }
            | Ask::KeysInFull { .. }
            | Ask::Settings => {
                return self.reads.insert(token, ask, now.mono);
            }
            Ask::AddMember { node, addr } => {
                return self.add_member(now, token, node, addr, out);
            }
            Ask::TransferLeader { to } => return self.hand_over(now, token, to, out),
            other => self.written(now, other)?,
        };
        self.propose(now, command, Waiting::Asker(token))
    }

    /// What a question that changes the state writes to the log.
    fn written(&self, now: Now, ask: Ask) -> Result<Command, Refusal> {
        Ok(match ask {
            Ask::Release { room, epoch, next_msn } => Command::Release { room, epoch, next_msn },
            Ask::CreateKey { id, room, hash } => Command::CreateKey { id, room, hash },
            Ask::StoreKey { id, room, hash, terms, replaces } => {
                Command::StoreKey { id, room, hash, terms, replaces }
            }
            Ask::RevokeKey { id } => Command::RevokeKey { id },
            Ask::SetBar { on, bar } => Command::SetBar { on, bar },
            Ask::Place { room, to } => self.move_to(now, room, to)?,
            Ask::Remove { room } => Command::Remove { room },
            Ask::Drain { node, draining } => self.drain(&node, draining)?,
            Ask::Set { name, value } => Command::Set { name, value },
            Ask::RemoveNode { node } => Command::RemoveNode { node },
            Ask::CreateJoinToken { .. } | Ask::RedeemJoinToken { .. } => self.join_token(ask)?,
            _ => return Err(Refusal::Invalid("not a question for the leader".to_owned())),
        })
    }

    /// Answers a read, now that leadership at the time of the question is confirmed. None means the
    /// answer comes with a proposal.
    pub(super) fn read(
        &mut self,
        now: Now,
        token: Token,
        ask: Ask,
    ) -> Result<Option<Answer>, Refusal> {
        let state = self.state();
        match ask {
            Ask::Confirm { room, epoch } => {
                let holds = state.room(&room).is_some_and(|placed| placed.epoch == epoch);
                Ok(Some(Answer::Bool(holds)))
            }
            Ask::CheckKey { room, hash } => Ok(Some(Answer::Bool(state.opens(&room, &hash)))),
            Ask::UseKey { room, hash, from, push } => {
                match state.opening(&room, &hash, (now.unix_s, from, push)) {
                    Opening::Judged(verdict) => Ok(Some(Answer::Key(verdict))),
                    Opening::Uses(id) => {
                        let command = Command::UseKey { id, push };
                        self.propose(now, command, Waiting::Asker(token)).map(|()| None)
                    }
                }
            }
            Ask::KeysInFull { room, after, limit } => {
                let limit = usize::from(limit.min(MAX_PAGE));
                let keys = state.keys_in_full(room.as_ref(), after, limit);
                Ok(Some(Answer::KeysInFull(keys)))
            }
            Ask::ListKeys { room, after, limit } => {
                let limit = usize::from(limit.min(MAX_PAGE));
                Ok(Some(Answer::Keys(state.keys(room.as_ref(), after, limit))))
            }
            Ask::Settings => {
                let settings = state.settings().iter();
                let settings = settings.map(|(name, value)| (name.clone(), value.clone()));
                Ok(Some(Answer::Settings(settings.collect())))
            }
            Ask::Claim { room, ingest } => match self.settled_grant(now, &room) {
                Some(grant) => Ok(Some(Answer::Grant(grant))),
                None => self.activate(now, token, room, &ingest).map(|()| None),
            },
            other => Err(Refusal::Invalid(format!("not a read: {other:?}"))),
        }
    }

    fn check_speaker(&self, peer: &NodeId, claimed: &NodeId) -> Result<(), Refusal> {
        if peer == claimed {
            Ok(())
        } else {
            Err(Refusal::WrongNode { peer: peer.clone(), claimed: claimed.clone() })
        }
    }

    fn removed_or(&self, node: &NodeId, refusal: Refusal) -> Refusal {
        if self.state().is_removed(node) { Refusal::Removed(node.clone()) } else { refusal }
    }

    /// A registration that changes nothing is a heartbeat and costs no write.
    fn register(
        &mut self,
        now: Now,
        token: Token,
        peer: &NodeId,
        spec: NodeSpec,
        out: &mut Outputs,
    ) -> Result<(), Refusal> {
        self.check_speaker(peer, &spec.id)?;
        let known = self.state().node(&spec.id);
        let same = known.is_some_and(|row| row.spec == spec && row.state != NodeState::Down);
        if self.state().is_removed(&spec.id) {
            return Err(Refusal::Removed(spec.id));
        }
        self.leases.renew(&spec.id, None, now.mono);
        if same {
            out.replies.push((token, Ok(Answer::Done)));
            return Ok(());
        }
        self.propose(now, Command::Register { spec }, Waiting::Asker(token))
    }

    /// The grant of a room whose home can be counted on.
    fn settled_grant(&self, now: Now, room: &RoomId) -> Option<wire::control::Grant> {
        let grant = self.state().grant(room)?;
        let row = self.state().node(&grant.home)?;
        let alive = row.state != NodeState::Down && self.leases.is_alive(&grant.home, now.mono);
        alive.then_some(grant)
    }

    fn claim(
        &mut self,
        now: Now,
        token: Token,
        room: RoomId,
        ingest: NodeId,
    ) -> Result<(), Refusal> {
        if self.state().node(&ingest).is_none() {
            return Err(self.removed_or(&ingest, Refusal::Unregistered));
        }
        if self.settled_grant(now, &room).is_some() {
            // The publisher has come back elsewhere: where the room goes when it has to move.
            if self.state().node(&ingest).is_some_and(|row| row.spec.roles.has(Roles::ORIGIN)) {
                self.scheduler.claimed(&room, &ingest);
            }
            return self.reads.insert(token, Ask::Claim { room, ingest }, now.mono);
        }
        self.activate(now, token, room, &ingest)
    }

    /// Proposes a home for a room that has none it can count on. The proposal names the epoch it
    /// was decided against, so that a leader that is out of date cannot do harm.
    fn activate(
        &mut self,
        now: Now,
        token: Token,
        room: RoomId,
        ingest: &NodeId,
    ) -> Result<(), Refusal> {
        let state = self.state();
        let is_origin = state.node(ingest).is_some_and(|row| row.spec.roles.has(Roles::ORIGIN));
        let ingest = is_origin.then_some(ingest);
        let current = state.room(&room);
        let avoid = current.map(|placed| &placed.home);
        let nodes = origins(now.mono, state, &self.leases);
        let home = placement::home(&room, ingest, avoid, nodes).ok_or(Refusal::NoHome)?;
        let replaces = current.map(|placed| placed.epoch);
        let ingest = ingest.cloned();
        if let Some(ingest) = &ingest {
            self.scheduler.claimed(&room, ingest);
        }
        let msn_floor = self.leases.head_msn();
        let command = Command::Place { room, home, ingest, replaces, msn_floor };
        self.propose(now, command, Waiting::Asker(token))
    }

    /// The move of a room that an operator asked for.
    fn move_to(&self, now: Now, room: RoomId, to: Option<NodeId>) -> Result<Command, Refusal> {
        let state = self.state();
        let placed = state.room(&room).ok_or_else(|| Refusal::UnknownRoom(room.clone()))?;
        let home = match to {
            Some(to) => match state.node(&to) {
                None => return Err(Refusal::UnknownNode(to)),
                Some(row) if !row.spec.roles.has(Roles::ORIGIN) => {
                    return Err(Refusal::Invalid(format!("node {to} is no origin")));
                }
                Some(row)
                    if row.state == NodeState::Down || !self.leases.is_alive(&to, now.mono) =>
                {
                    return Err(Refusal::Conflict(format!("node {to} is down")));
                }
                Some(_) => to,
            },
            None => {
                let nodes = origins(now.mono, state, &self.leases);
                placement::home(&room, None, Some(&placed.home), nodes).ok_or(Refusal::NoHome)?
            }
        };
        // A room that is there already keeps its epoch: a decision against another one changes
        // nothing and answers with the grant as it is.
        let replaces = (home != placed.home).then_some(placed.epoch);
        let ingest = placed.ingest.clone();
        let msn_floor = self.leases.head_msn();
        Ok(Command::Place { room, home, ingest, replaces, msn_floor })
    }

    fn join_token(&self, ask: Ask) -> Result<Command, Refusal> {
        self.all_read(match ask {
            Ask::CreateJoinToken { id, hash, node, ttl_s } => {
                Command::CreateJoinToken { id, hash, node, ttl_s }
            }
            Ask::RedeemJoinToken { id, hash, node, key } => {
                Command::RedeemJoinToken { id, hash, node, key }
            }
            other => return Err(Refusal::Invalid(format!("not about a join token: {other:?}"))),
        })
    }

    /// The command, if every member knows its format: one that does not would stop at it.
    fn all_read(&self, command: Command) -> Result<Command, Refusal> {
        let state = self.state();
        for member in state.members().values() {
            let knows = state.node(&member.node).map_or(0, |row| row.spec.versions.log);
            if knows < u16::from(command.format()) {
                return Err(Refusal::Conflict(format!(
                    "control node {} has not said that it knows this; is it up, and of this release?",
                    member.node
                )));
            }
        }
        Ok(command)
    }

    fn drain(&self, node: &NodeId, draining: bool) -> Result<Command, Refusal> {
        let row = self.state().node(node).ok_or_else(|| Refusal::UnknownNode(node.clone()))?;
        if row.state == NodeState::Down {
            return Err(Refusal::Conflict(format!("node {node} is down")));
        }
        let state = if draining { NodeState::Draining } else { NodeState::Up };
        Ok(Command::SetState { node: node.clone(), incarnation: row.spec.incarnation, state })
    }
}
