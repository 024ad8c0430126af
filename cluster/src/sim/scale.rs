//! A large cluster's load on its leader, without network and disk: how much work placement is.
//!
//! In: numbers of nodes and rooms. Out: what the driver did. The caller measures the time.

use std::time::Duration;

use wire::control::{Ask, Capacity, Load, NodeSpec, Roles, Versions};
use wire::{ClusterId, NodeId, Region, RoomId};

use super::disk::SimDisk;
use crate::command::CLOCK_START_UNIX_S;
use crate::driver::{Driver, Input, Now, Outputs};
use crate::placement::{self, Candidate};

/// A leader by itself.
pub struct Leader {
    driver: Driver<SimDisk>,
    now: Now,
    next_token: u64,
}

/// What a step of a [`Leader`] led to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Done {
    /// Positive answers.
    pub answers: usize,
    /// Rooms whose place is another.
    pub rooms: usize,
}

impl Default for Leader {
    fn default() -> Self {
        let disk = SimDisk::new(1);
        let founder = (node("c1"), ([127, 0, 0, 1], 7400).into());
        Driver::found(disk.clone(), ClusterId::from_bits(1), &[founder])
            .expect("an empty disk takes a cluster");
        let driver = Driver::start(node("c1"), disk, 1).expect("a founded disk starts");
        let now = Now { mono: Duration::from_secs(1), unix_s: CLOCK_START_UNIX_S + 1_000_000 };
        let mut leader = Self { driver, now, next_token: 0 };
        leader.step(Vec::new());
        leader
    }
}

impl Leader {
    /// Registers nodes named `prefix` and a number.
    pub fn register(&mut self, prefix: &str, count: usize, roles: Roles) -> Done {
        let asks = (0..count).map(|i| Ask::Register { spec: spec(prefix, i, roles) });
        self.ask_as(prefix, asks.collect())
    }

    /// One heartbeat of each of those nodes, with the viewers each serves.
    pub fn beat(&mut self, prefix: &str, count: usize, viewers: impl Fn(usize) -> u32) -> Done {
        let asks = (0..count).map(|i| Ask::Heartbeat {
            node: node(&format!("{prefix}{i}")),
            incarnation: 1,
            load: Load { viewers: viewers(i), ..Load::default() },
        });
        self.ask_as(prefix, asks.collect())
    }

    /// Claims rooms from `from` on, each by one of `origins` in turn.
    pub fn claim(&mut self, from: usize, count: usize, origins: usize) -> Done {
        let asks = (from..from + count)
            .map(|i| Ask::Claim { room: room(i), ingest: node(&format!("o{}", i % origins)) });
        self.ask_as("c1", asks.collect())
    }

    /// Lets time pass in ticks.
    pub fn wait(&mut self, time: Duration) -> Done {
        let until = self.now.mono + time;
        let mut done = Done::default();
        while self.now.mono < until {
            let step = self.step(Vec::new());
            done.rooms += step.rooms;
        }
        done
    }

    /// Bytes of the encoded state, i.e. of a snapshot.
    ///
    /// # Panics
    /// If the state cannot be encoded.
    pub fn state_bytes(&self) -> usize {
        self.driver.state().encode().expect("a state encodes").len()
    }

    /// The edges a viewer of a room is sent to, and the load of each as the leader knows it.
    pub fn edges(&self, i: usize, count: usize, viewers: &[u32]) -> Vec<usize> {
        let index = |id: &NodeId| id.as_str()[1..].parse::<usize>().unwrap_or(0);
        let nodes = self.driver.state().nodes().map(|info| Candidate {
            info,
            load: Load {
                viewers: viewers.get(index(&info.spec.id)).copied().unwrap_or(0),
                ..Load::default()
            },
            homes: 0,
            alive: true,
        });
        placement::edges(&room(i), None, count, nodes).iter().map(index).collect()
    }

    fn ask_as(&mut self, prefix: &str, asks: Vec<Ask>) -> Done {
        let mut inputs = Vec::with_capacity(asks.len());
        for ask in asks {
            self.next_token += 1;
            let peer = match &ask {
                Ask::Register { spec } => spec.id.clone(),
                Ask::Heartbeat { node, .. } => node.clone(),
                _ => node(prefix),
            };
            inputs.push(Input::Ask { token: self.next_token, peer, ask });
        }
        self.step(inputs)
    }

    fn step(&mut self, inputs: Vec<Input>) -> Done {
        self.now.mono += Driver::<SimDisk>::TICK;
        let out: Outputs = self.driver.step(self.now, inputs).expect("a disk in memory works");
        let answers = out.replies.iter().filter(|(_, answer)| answer.is_ok()).count();
        Done { answers, rooms: out.published.map_or(0, |published| published.rooms.len()) }
    }
}

fn node(text: &str) -> NodeId {
    NodeId::new(text).expect("the simulation names its nodes well")
}

fn room(i: usize) -> RoomId {
    RoomId::new("live", &format!("room-{i}")).expect("the simulation names its rooms well")
}

fn spec(prefix: &str, i: usize, roles: Roles) -> NodeSpec {
    NodeSpec {
        id: node(&format!("{prefix}{i}")),
        incarnation: 1,
        roles,
        region: Region::default(),
        capacity: Capacity::default(),
        addr: ([10, 1, 0, 1], 7400).into(),
        viewer_urls: vec!["https://edge.example.net".to_owned()],
        versions: Versions { control: 1, log: 1, render: 1 },
    }
}
