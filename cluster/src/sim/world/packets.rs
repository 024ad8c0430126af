//! Packets between simulated nodes: Raft, questions and answers, watches, segments.

use std::collections::BTreeMap;
use std::time::Duration;

use wire::control::{Answer, Ask, Refusal};

use super::super::agents::{Op, WatchSession};
use super::super::check::Violation;
use super::super::control::DISK;
use super::super::net::Index;
use super::{
    ASK_AGAIN, CONTROLS, Event, Input2, MAX_ATTEMPTS, Packet, ROOMS, World, agent_index, room,
};
use crate::driver::{Errand, Input};
use crate::raft::{Message, MessageType};

/// An agent that hears nothing on its watch for this long opens another: in reality a heartbeat of
/// the transport tells it that the stream is dead.
const WATCH_PATIENCE: Duration = Duration::from_millis(1500);

impl World {
    /// Sends a packet over the network.
    pub(super) fn send(&mut self, from: Index, to: Index, at: Duration, packet: Packet) {
        for arrival in self.net.arrivals(from, to, at, &mut self.rng) {
            self.schedule(arrival, Event::Arrive { from, to, packet: packet.clone() });
        }
    }

    pub(super) fn send_raft(&mut self, from: Index, at: Duration, message: Message) {
        let to = self.controls.iter().position(|node| {
            node.driver.as_ref().is_some_and(|driver| driver.raft_id() == message.to)
        });
        let is_snapshot = message.get_msg_type() == MessageType::MsgSnapshot;
        let raft_id = message.to;
        let arrivals = match to {
            Some(to) => self.net.arrivals(from, to, at, &mut self.rng),
            None => Vec::new(),
        };
        // The transport learns of most losses, and of the fate of every snapshot.
        if is_snapshot {
            let arrived = !arrivals.is_empty();
            self.controls[from].put(Input::SnapshotSent { raft_id, arrived });
        } else if arrivals.is_empty() && at.subsec_micros().is_multiple_of(3) {
            self.controls[from].put(Input::Unreachable { raft_id });
        }
        for arrival in arrivals {
            let packet = Packet::Raft(Box::new(message.clone()));
            if let Some(to) = to {
                self.schedule(arrival, Event::Arrive { from, to, packet });
            }
        }
    }

    pub(super) fn arrive(
        &mut self,
        from: Index,
        to: Index,
        packet: Packet,
    ) -> Result<(), Violation> {
        match to.checked_sub(CONTROLS) {
            None => {
                if self.controls[to].is_up {
                    self.arrive_at_control(from, to, packet);
                }
                Ok(())
            }
            Some(agent) if self.agents[agent].is_up => self.arrive_at_agent(from, agent, packet),
            Some(_) => Ok(()),
        }
    }

    fn arrive_at_control(&mut self, from: Index, to: Index, packet: Packet) {
        match packet {
            Packet::Raft(message) => {
                // A frame names the member it is meant for.
                let node = &mut self.controls[to];
                if node.driver.as_ref().is_some_and(|driver| driver.raft_id() == message.to) {
                    node.put(Input::Message(message));
                    self.wake_later(to);
                }
            }
            Packet::Ask { op, ask } => {
                let peer = self.agents[from - CONTROLS].id.clone();
                match self.controls[to].ask(from, peer, op, ask) {
                    Some(answer) => self.send(to, from, self.now, Packet::Answer { op, answer }),
                    None => self.wake_later(to),
                }
            }
            Packet::Errand(errand) => self.run_errand(from, to, &errand),
            Packet::ErrandDone(done) => {
                self.trace(|| format!("{to} hears {done:?} from {from}"));
                let input = match done {
                    Input2::Probed { raft_id, disk } => Input::Probed { raft_id, disk },
                    Input2::Adopted { raft_id, taken } => Input::Adopted { raft_id, taken },
                };
                self.controls[to].put(input);
                self.wake_later(to);
            }
            Packet::Watch { session } if !self.controls[to].view.is_ready() => {
                // The stream ends at once, and the agent goes elsewhere with its next heartbeat.
                let agent = &mut self.agents[from - CONTROLS];
                agent.watch.take_if(|watch| watch.number == session);
            }
            Packet::Watch { session } => {
                let watcher = self.controls[to].view.watch();
                for i in 0..ROOMS {
                    watcher.subscribe(room(i));
                }
                self.controls[to].watchers.insert(session, watcher);
                self.push_events(to);
            }
            Packet::Answer { .. }
            | Packet::Events { .. }
            | Packet::Fetch { .. }
            | Packet::Segment { .. } => {}
        }
    }

    fn run_errand(&mut self, from: Index, to: Index, errand: &Errand) {
        let peer = self.controls[from].id.clone();
        self.trace(|| format!("{to} gets {errand:?}"));
        let done = match *errand {
            Errand::Probe { raft_id, .. } => {
                match self.controls[to].ask(from, peer, 0, Ask::Probe) {
                    Some(Ok(Answer::Probe(disk))) => Input2::Probed { raft_id, disk },
                    _ => return,
                }
            }
            Errand::Adopt { raft_id, disk, .. } => {
                let Some(cluster) =
                    self.controls[from].driver.as_ref().map(|driver| driver.state().cluster())
                else {
                    return;
                };
                let was_empty = self.controls[to].disk.is_empty();
                let ask = Ask::Adopt { cluster, raft_id, disk };
                let taken = match self.controls[to].ask(from, peer, 0, ask) {
                    Some(Ok(_)) => true,
                    Some(Err(Refusal::Conflict(_))) => false,
                    Some(Err(Refusal::Unavailable(why))) if why == DISK => {
                        self.crash_control(to);
                        return;
                    }
                    _ => return,
                };
                if taken && was_empty {
                    let life = self.controls[to].life;
                    self.schedule_in(Duration::from_millis(1), Event::Restart(to, life));
                }
                Input2::Adopted { raft_id, taken }
            }
        };
        self.send(to, from, self.now, Packet::ErrandDone(done));
    }

    fn arrive_at_agent(&mut self, from: Index, a: Index, packet: Packet) -> Result<(), Violation> {
        match packet {
            Packet::Answer { op, answer } => self.answered(a, from, op, answer),
            Packet::Events { session, events } => {
                let now = self.now;
                let Some(watch) = &mut self.agents[a].watch else { return Ok(()) };
                if watch.number != session {
                    return Ok(());
                }
                watch.last_heard = now;
                for event in events {
                    self.agents[a].progressed(&event, now);
                    if let Some(room) = self.agents[a].take(event) {
                        self.located(a, &room);
                    }
                }
                Ok(())
            }
            Packet::Fetch { room, epoch } => {
                if let Some((msn, content)) = self.agents[a].newest(&room, epoch) {
                    let packet = Packet::Segment { room, epoch, msn, content };
                    self.send(agent_index(a), from, self.now, packet);
                }
                Ok(())
            }
            Packet::Segment { room, epoch, msn, content } => {
                self.counts.fetches += 1;
                self.checker.content(&room, epoch, msn, content)?;
                self.agents[a].shown(&room, epoch, msn)
            }
            _ => Ok(()),
        }
    }

    // === questions ===

    /// Asks a question for an agent.
    pub(super) fn ask(&mut self, a: Index, ask: Ask) {
        self.next_op += 1;
        let op = self.next_op;
        let expected = self.checker.asked(&ask);
        let incarnation = self.agents[a].incarnation;
        self.agents[a].ops.insert(op, Op { ask, expected, attempts: 0, target: 0, incarnation });
        self.attempt(a, op);
    }

    fn attempt(&mut self, a: Index, op: u64) {
        let agent = &mut self.agents[a];
        let to = agent.target;
        let Some(waiting) = agent.ops.get_mut(&op) else { return };
        waiting.attempts += 1;
        waiting.target = to;
        if waiting.attempts > MAX_ATTEMPTS {
            agent.ops.remove(&op);
            return;
        }
        let ask = waiting.ask.clone();
        self.send(agent_index(a), to, self.now, Packet::Ask { op, ask });
        self.schedule_in(ASK_AGAIN, Event::AskAgain { agent: a, op });
    }

    pub(super) fn ask_again(&mut self, a: Index, op: u64) {
        let Some(waiting) = self.agents[a].ops.get(&op) else { return };
        let is_beat = matches!(waiting.ask, Ask::Heartbeat { .. });
        // Nobody answered: another control node may.
        let asked = waiting.target;
        self.move_on(a, asked);
        if is_beat {
            self.agents[a].ops.remove(&op);
        } else {
            self.attempt(a, op);
        }
    }

    /// A control node gave no good answer: the next question goes to another.
    fn move_on(&mut self, a: Index, from: Index) {
        if self.agents[a].target == from {
            self.agents[a].target = (from + 1) % CONTROLS;
        }
    }

    fn answered(
        &mut self,
        a: Index,
        from: Index,
        op: u64,
        answer: Result<Answer, Refusal>,
    ) -> Result<(), Violation> {
        match answer {
            Ok(answer) => {
                let Some(done) = self.agents[a].ops.remove(&op) else { return Ok(()) };
                self.counts.answers += 1;
                self.checker.answered(&done.ask, &done.expected, &answer)?;
                if done.incarnation == self.agents[a].incarnation {
                    self.use_answer(a, done.ask, answer);
                }
                Ok(())
            }
            Err(Refusal::NotLeader { hint }) => {
                let hinted = hint.and_then(|(node, _)| {
                    self.controls.iter().position(|control| control.id == node)
                });
                let Some(to) = hinted else {
                    self.move_on(a, from);
                    return Ok(());
                };
                if to != self.agents[a].target {
                    self.agents[a].target = to;
                    self.attempt(a, op);
                }
                Ok(())
            }
            Err(Refusal::Unavailable(_)) => {
                self.move_on(a, from);
                Ok(())
            }
            Err(refusal) if refusal.is_retryable() => {
                let unregistered = refusal == Refusal::Unregistered;
                if unregistered && self.agents[a].ops.remove(&op).is_some() {
                    let spec = self.agents[a].spec();
                    let registers = |op: &Op| matches!(op.ask, Ask::Register { .. });
                    if !self.agents[a].ops.values().any(registers) {
                        self.ask(a, Ask::Register { spec });
                    }
                }
                Ok(())
            }
            Err(refusal) => {
                self.trace(|| format!("agent {a} refused: {refusal}"));
                self.agents[a].ops.remove(&op);
                Ok(())
            }
        }
    }

    fn use_answer(&mut self, a: Index, ask: Ask, answer: Answer) {
        let agent = &mut self.agents[a];
        match (ask, answer) {
            (Ask::Register { spec }, _) if spec.incarnation == agent.incarnation => {
                agent.is_registered = true;
            }
            (Ask::Heartbeat { .. }, Answer::Beat { revision, .. }) => {
                agent.is_registered = true;
                agent.leader_revision = revision;
            }
            (Ask::Claim { room, .. }, Answer::Grant(grant)) => {
                if grant.home == agent.id {
                    agent.hold(&room, grant.epoch, grant.msn_base);
                } else {
                    agent.drop_room(&room, grant.epoch);
                }
            }
            (Ask::Confirm { room, epoch }, Answer::Bool(holds)) => {
                let grant = agent.known.get(&room).and_then(|known| known.placement.clone());
                let mine = grant.filter(|grant| grant.epoch == epoch && grant.home == agent.id);
                match mine {
                    Some(grant) if holds => agent.hold(&room, epoch, grant.msn_base),
                    _ if !holds => agent.drop_room(&room, epoch),
                    _ => {}
                }
            }
            (Ask::Release { room, epoch, .. }, _) => agent.drop_room(&room, epoch),
            _ => {}
        }
    }

    /// An agent hears that a room's location is another.
    fn located(&mut self, a: Index, room: &wire::RoomId) {
        let agent = &mut self.agents[a];
        let Some(grant) = agent.known.get(room).and_then(|known| known.placement.clone()) else {
            return;
        };
        if !agent.is_origin() {
            return;
        }
        if grant.home != agent.id {
            agent.drop_room(room, grant.epoch);
        } else if agent.is_registered
            && agent.held.get(room).is_none_or(|held| held.epoch < grant.epoch)
        {
            // A home serves nothing until the leader has confirmed its epoch.
            self.ask(a, Ask::Confirm { room: room.clone(), epoch: grant.epoch });
        }
    }

    // === watches ===

    /// Looks after an agent's watch stream: opens one, or another one when it is dead.
    pub(super) fn keep_watch(&mut self, a: Index) {
        let from = agent_index(a);
        let now = self.now;
        if let Some(watch) = &self.agents[a].watch {
            let alive = self.controls[watch.control].watchers.contains_key(&watch.number)
                && self.net.passes(watch.control, from, now)
                && self.net.passes(from, watch.control, now);
            let lags = watch.behind.is_some_and(|(_, since)| now > since + WATCH_PATIENCE);
            if !lags && (alive || now < watch.last_heard + WATCH_PATIENCE) {
                return;
            }
            let (control, number) = (watch.control, watch.number);
            self.controls[control].watchers.remove(&number);
            self.agents[a].watch = None;
        }
        self.next_op += 1;
        let number = self.next_op;
        let control = (self.agents[a].target + number as usize) % CONTROLS;
        let session =
            WatchSession { control, number, last_arrival: now, last_heard: now, behind: None };
        self.agents[a].watch = Some(session);
        if self.net.passes(from, control, now) {
            let packet = Packet::Watch { session: number };
            let arrival = now + Duration::from_millis(1);
            self.schedule(arrival, Event::Arrive { from, to: control, packet });
        }
    }

    /// Hands watchers what they are owed. The stream is ordered: a later packet never overtakes. One
    /// that cannot pass breaks it.
    pub(super) fn push_events(&mut self, i: Index) {
        let watched: BTreeMap<u64, Index> = self
            .agents
            .iter()
            .enumerate()
            .filter_map(|(a, agent)| Some((agent.watch.as_ref()?.number, a)))
            .collect();
        let numbers: Vec<u64> = self.controls[i].watchers.keys().copied().collect();
        for number in numbers {
            let Some(&a) = watched.get(&number) else {
                self.controls[i].watchers.remove(&number);
                continue;
            };
            let to = agent_index(a);
            let watcher = &self.controls[i].watchers[&number];
            let mut events = watcher.take();
            if events.is_empty() && !self.now.subsec_millis().is_multiple_of(10) {
                continue;
            }
            events.push(watcher.progress());
            if !self.net.passes(i, to, self.now) {
                self.controls[i].watchers.remove(&number);
                continue;
            }
            let jitter = self.jitter(3);
            let now = self.now;
            if let Some(watch) = &mut self.agents[a].watch {
                let arrival = (now + jitter).max(watch.last_arrival + Duration::from_micros(1));
                watch.last_arrival = arrival;
                let packet = Packet::Events { session: number, events };
                self.schedule(arrival, Event::Arrive { from: i, to, packet });
            }
        }
    }
}
