//! The event loop of a simulation: time, packets, faults, and the rest after them.
//!
//! In: a seed. Out: the first broken promise, or none. Every random draw comes from the seed, every
//! collection has an order, and nothing asks the real clock.

mod actions;
mod faults;
mod packets;
mod rest;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use wire::control::{Answer, Ask, Refusal, Roles, SecretHash, WatchEvent};
use wire::{ClusterId, Epoch, NodeId, RoomId};

use super::Counts;
use super::agents::{Agent, Operator};
use super::check::{Checker, Violation};
use super::control::{ControlNode, Woken};
use super::nemesis::{self, Fault};
use super::net::{Index, Net};
use crate::command::CLOCK_START_UNIX_S;
use crate::driver::{Driver, Errand, Input, Now, Outputs};
use crate::raft::Message;

/// Control nodes there are, voters or not.
const CONTROLS: usize = 5;
/// Origins, then edges, then the operator.
const ORIGINS: usize = 3;
const EDGES: usize = 2;
const ROOMS: usize = 6;
/// When the faults begin: after the founding.
const CHAOS_FROM: Duration = Duration::from_millis(1500);
/// How long agents go on after everything is healed.
const BUSY_AFTER: Duration = Duration::from_secs(4);
/// How long everything may take to come to rest after that.
const REST_AFTER: Duration = Duration::from_secs(4);
const BEAT: Duration = Duration::from_millis(250);
const SEGMENT: Duration = Duration::from_secs(1);
const FETCH: Duration = Duration::from_millis(400);
/// A write that takes longer makes a leader hand over.
const SLOW_WRITE: Duration = Duration::from_millis(100);
/// How often a question is asked again, and how often in all.
const ASK_AGAIN: Duration = Duration::from_millis(700);
const MAX_ATTEMPTS: u32 = 6;

/// The world of one seed.
pub(super) struct World {
    now: Duration,
    queue: BinaryHeap<Reverse<Scheduled>>,
    sequence: u64,
    rng: StdRng,
    net: Net,
    controls: Vec<ControlNode>,
    agents: Vec<Agent>,
    operator: Operator,
    checker: Checker,
    voters: usize,
    heal_at: Duration,
    is_healed: bool,
    wall_offset_s: Vec<i64>,
    next_op: u64,
    digest: DefaultHasher,
    counts: Counts,
    is_traced: bool,
}

struct Scheduled {
    at: Duration,
    sequence: u64,
    event: Event,
}

enum Event {
    /// A control node's clock ticks.
    Tick(Index, u64),
    /// A control node has something to take.
    Wake(Index, u64),
    /// A packet arrives.
    Arrive { from: Index, to: Index, packet: Packet },
    /// An agent sends its heartbeat, looks after its watch.
    Beat(Index),
    /// An agent does something.
    Act(Index),
    /// An origin ends a segment.
    Segment(Index),
    /// An edge fetches.
    Fetch(Index),
    /// A question may have to be asked again.
    AskAgain { agent: Index, op: u64 },
    /// Something goes wrong.
    Fault(Fault),
    /// A control process starts again.
    Restart(Index, u64),
    /// A control process dies.
    Crash(Index, u64),
    /// Everything is made whole.
    Heal,
}

#[derive(Clone)]
enum Packet {
    Raft(Box<Message>),
    Ask { op: u64, ask: Ask },
    Answer { op: u64, answer: Result<Answer, Refusal> },
    Errand(Errand),
    ErrandDone(Input2),
    Watch { session: u64 },
    Events { session: u64, events: Vec<WatchEvent> },
    Fetch { room: RoomId, epoch: Epoch },
    Segment { room: RoomId, epoch: Epoch, msn: u64, content: u64 },
}

/// The inputs an errand leads to, in a form that can be doubled.
#[derive(Debug, Clone, Copy)]
enum Input2 {
    Probed { raft_id: u64, disk: wire::control::Disk },
    Adopted { raft_id: u64, taken: bool },
}

impl World {
    pub(super) fn new(seed: u64, is_traced: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let voters = [1, 3, 3, 3, 5][rng.random_range(0..5)];
        let controls = (0..CONTROLS)
            .map(|i| ControlNode::new(node_id(&format!("c{}", i + 1)), rng.random()))
            .collect();
        let mut agents = Vec::new();
        for i in 0..ORIGINS {
            agents.push(Agent::new(&format!("o{}", i + 1), Roles::ORIGIN, rng.random(), 0));
        }
        for i in 0..EDGES {
            agents.push(Agent::new(&format!("e{}", i + 1), Roles::EDGE, rng.random(), 0));
        }
        agents.push(Agent::new("op", Roles::default(), 0, 0));
        let heal_at = CHAOS_FROM + Duration::from_millis(rng.random_range(1500..6000));
        Self {
            now: Duration::ZERO,
            queue: BinaryHeap::new(),
            sequence: 0,
            rng,
            net: Net::default(),
            controls,
            agents,
            operator: Operator::default(),
            checker: Checker::default(),
            voters,
            heal_at,
            is_healed: false,
            wall_offset_s: vec![0; CONTROLS],
            next_op: 0,
            digest: DefaultHasher::new(),
            counts: Counts::default(),
            is_traced,
        }
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest.finish()
    }

    pub(super) fn counts(&self) -> Counts {
        Counts { leaders: self.checker.leaders(), grants: self.checker.grants(), ..self.counts }
    }

    /// Runs to the end, or to the first broken promise.
    pub(super) fn run(&mut self) -> Result<(), Violation> {
        self.begin()?;
        let end = self.heal_at + BUSY_AFTER + REST_AFTER;
        while let Some(Reverse(Scheduled { at, event, .. })) = self.queue.pop() {
            if at > end {
                break;
            }
            self.now = at;
            self.counts.events += 1;
            at.hash(&mut self.digest);
            self.handle(event)?;
        }
        self.check_rest()
    }

    fn begin(&mut self) -> Result<(), Violation> {
        let founders: Vec<_> =
            (0..self.voters).map(|i| (self.controls[i].id.clone(), addr(i))).collect();
        let disk = self.controls[0].disk.clone();
        let cluster = ClusterId::from_bits(self.rng.random());
        Driver::found(disk, cluster, &founders).map_err(|fault| fault.to_string())?;
        for i in 0..CONTROLS {
            self.start_control(i)?;
        }
        for a in 0..self.agents.len() {
            let jitter = self.jitter(300);
            self.schedule(jitter, Event::Act(a));
            if self.agents[a].roles == Roles::default() {
                continue;
            }
            self.schedule(jitter, Event::Beat(a));
            let media =
                if self.agents[a].is_origin() { Event::Segment(a) } else { Event::Fetch(a) };
            self.schedule(jitter, media);
        }
        for (at, fault) in nemesis::plan(&mut self.rng, CHAOS_FROM, self.heal_at) {
            self.schedule(at, Event::Fault(fault));
        }
        self.schedule(self.heal_at, Event::Heal);
        Ok(())
    }

    fn handle(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Tick(i, life) if self.controls[i].life == life => {
                self.schedule_in(Driver::<super::disk::SimDisk>::TICK, Event::Tick(i, life));
                self.wake(i)
            }
            Event::Wake(i, life) if self.controls[i].life == life => self.wake(i),
            Event::Tick(..) | Event::Wake(..) => Ok(()),
            Event::Arrive { from, to, packet } => self.arrive(from, to, packet),
            Event::Beat(a) => {
                self.beat(a);
                Ok(())
            }
            Event::Act(a) => {
                self.act(a);
                Ok(())
            }
            Event::Segment(a) => {
                self.schedule_in(SEGMENT, Event::Segment(a));
                if !self.agents[a].is_up {
                    return Ok(());
                }
                for (room, epoch, msn, content) in self.agents[a].make_segments() {
                    self.checker.content(&room, epoch, msn, content)?;
                }
                Ok(())
            }
            Event::Fetch(a) => {
                self.schedule_in(FETCH, Event::Fetch(a));
                self.fetch(a);
                Ok(())
            }
            Event::AskAgain { agent, op } => {
                self.ask_again(agent, op);
                Ok(())
            }
            Event::Fault(fault) => self.strike(fault),
            Event::Restart(i, life) if self.controls[i].life == life => self.start_control(i),
            Event::Restart(..) => Ok(()),
            Event::Crash(i, life) => {
                if self.controls[i].life == life {
                    self.crash_control(i);
                }
                Ok(())
            }
            Event::Heal => self.heal(),
        }
    }

    // === control nodes ===

    fn start_control(&mut self, i: Index) -> Result<(), Violation> {
        let seed = self.rng.random();
        self.trace(|| format!("start {i}"));
        self.controls[i].start(seed).map_err(|fault| format!("start: {fault}"))?;
        let life = self.controls[i].life;
        let jitter = self.jitter(25);
        self.schedule_in(jitter, Event::Tick(i, life));
        Ok(())
    }

    fn wake(&mut self, i: Index) -> Result<(), Violation> {
        let unix_s = (CLOCK_START_UNIX_S + 1_000_000)
            .saturating_add(self.now.as_secs())
            .saturating_add_signed(self.wall_offset_s[i]);
        let now = Now { mono: self.now, unix_s };
        match self.controls[i].wake(now) {
            Woken::Idle => Ok(()),
            Woken::Stepped(out) => self.stepped(i, *out),
            Woken::Crashed => {
                self.trace(|| format!("crash in write {i}"));
                self.crash_control(i);
                Ok(())
            }
            Woken::Faulted => {
                self.trace(|| format!("fault {i}"));
                let life = self.controls[i].life;
                self.schedule_in(Duration::from_secs(1), Event::Restart(i, life));
                Ok(())
            }
        }
    }

    fn stepped(&mut self, i: Index, out: Outputs) -> Result<(), Violation> {
        if self.controls[i].disk.dies_soon() {
            let life = self.controls[i].life;
            let moment = self.jitter(8);
            self.schedule_in(moment, Event::Crash(i, life));
        }
        let node = &mut self.controls[i];
        let done = node.busy_until.max(self.now);
        if let Some(driver) = &node.driver {
            let leadership = driver.leadership();
            if leadership.is_leader {
                self.checker.leads(leadership.term, &node.id)?;
            }
            let revision = driver.state().revision();
            if revision != node.revision {
                node.revision = revision;
                let conf = driver.state().conf().clone();
                if node.conf != conf {
                    if self.is_traced {
                        println!("{:>9.4} {} has {conf:?}", self.now.as_secs_f64(), node.id);
                    }
                    node.conf = conf;
                }
                let state = driver.state().encode().map_err(|error| error.to_string())?;
                self.checker.applied(&node.id, revision, &state)?;
                (i, revision).hash(&mut self.digest);
            }
        }
        if done > self.now + SLOW_WRITE {
            self.controls[i].put(Input::SlowDisk);
        }
        let node = &mut self.controls[i];
        if let Some(published) = out.published {
            for grant in published.rooms.iter().filter_map(|(_, grant)| grant.as_ref()) {
                self.checker.granted(grant)?;
            }
            node.view.update(published);
        }
        for message in out.messages {
            self.send_raft(i, done, message);
        }
        for (token, answer) in out.replies {
            if let Some((agent, op)) = self.controls[i].asker(token) {
                self.send(i, agent, done, Packet::Answer { op, answer });
            }
        }
        for errand in out.errands {
            self.trace(|| format!("{i} sends {errand:?}"));
            let (Errand::Probe { node, .. } | Errand::Adopt { node, .. }) = &errand;
            if let Some(to) = self.controls.iter().position(|other| other.id == *node) {
                self.send(i, to, done, Packet::Errand(errand));
            }
        }
        self.push_events(i);
        if self.controls[i].has_mail() {
            self.wake_later(i);
        }
        Ok(())
    }

    fn wake_later(&mut self, i: Index) {
        let node = &self.controls[i];
        let at = node.busy_until.max(node.paused_until).max(self.now) + Duration::from_micros(20);
        let life = node.life;
        self.schedule(at, Event::Wake(i, life));
    }

    fn crash_control(&mut self, i: Index) {
        self.counts.crashes += 1;
        self.controls[i].stop();
        self.controls[i].disk.crash(&mut self.rng);
        let life = self.controls[i].life;
        let quick = self.rng.random_range(0..3) == 0;
        let most = if quick { 40 } else { 2500 };
        let pause = Duration::from_millis(self.rng.random_range(1..most));
        self.schedule_in(pause, Event::Restart(i, life));
    }

    /// The control node that leads in the highest term, if any believes it does.
    fn leader(&self) -> Option<Index> {
        let leads = |i: &Index| {
            let driver = self.controls[*i].driver.as_ref()?;
            let leadership = driver.leadership();
            leadership.is_leader.then_some((leadership.term, *i))
        };
        (0..CONTROLS).filter_map(|i| leads(&i)).max().map(|(_, i)| i)
    }

    // === time ===

    fn schedule(&mut self, at: Duration, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse(Scheduled { at, sequence: self.sequence, event }));
    }

    fn schedule_in(&mut self, pause: Duration, event: Event) {
        self.schedule(self.now + pause, event);
    }

    fn jitter(&mut self, most_ms: u64) -> Duration {
        Duration::from_micros(self.rng.random_range(0..most_ms * 1000))
    }

    fn trace(&self, text: impl FnOnce() -> String) {
        if self.is_traced {
            println!("{:>9.4} {}", self.now.as_secs_f64(), text());
        }
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.sequence) == (other.at, other.sequence)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// Agents come after the control nodes in the network.
const fn agent_index(agent: Index) -> Index {
    CONTROLS + agent
}

fn node_id(text: &str) -> NodeId {
    NodeId::new(text).expect("the simulation names its nodes well")
}

fn room(i: usize) -> RoomId {
    RoomId::new("live", &format!("r{i}")).expect("the simulation names its rooms well")
}

/// Keys are spread over rooms of their own, as a room has only so many.
fn key_room(key: u64) -> RoomId {
    room(1000 + key as usize / 32)
}

/// A hash that begins with its key's id, so that the checker knows whose it is.
fn hash_of(key: u64) -> SecretHash {
    let mut hash = [7; 32];
    hash[..8].copy_from_slice(&key.to_be_bytes());
    SecretHash(hash)
}

fn addr(control: Index) -> std::net::SocketAddr {
    ([10, 0, 0, control as u8 + 1], 7400).into()
}
