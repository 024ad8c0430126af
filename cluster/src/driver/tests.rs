//! A member by itself: answers, leadership, restarts. Groups are the simulation's.

use std::sync::{Arc, Mutex};

use wire::control::{
    Answer, Ask, Capacity, Grant, KeyId, Load, NodeSpec, NodeState, Part, Roles, SecretHash,
    Versions,
};
use wire::{ClusterId, Epoch, Region, RoomId};

use super::*;
use crate::leases::LEASE;
use crate::storage::Image;

/// A disk in memory that can be opened again, and told to fail.
#[derive(Clone, Default)]
pub(super) struct Memory {
    image: Arc<Mutex<Image>>,
    fails: Arc<Mutex<bool>>,
}

impl Disk for Memory {
    fn load(&mut self) -> Result<Image, StorageError> {
        Ok(self.image.lock().unwrap().clone())
    }

    fn write(&mut self, batch: &Batch) -> Result<(), StorageError> {
        if *self.fails.lock().unwrap() {
            return Err(StorageError::Stopped("test"));
        }
        self.image.lock().unwrap().apply(batch.clone());
        Ok(())
    }
}

/// One member with its time and its disk.
struct Alone {
    disk: Memory,
    driver: Driver<Memory>,
    now: Now,
    seed: u64,
}

pub(super) fn id(text: &str) -> NodeId {
    NodeId::new(text).unwrap()
}

fn room(i: usize) -> RoomId {
    RoomId::new("live", &format!("r{i}")).unwrap()
}

fn spec(node: &str, incarnation: u64) -> NodeSpec {
    NodeSpec {
        id: id(node),
        incarnation,
        roles: Roles::ORIGIN,
        region: Region::default(),
        capacity: Capacity::default(),
        addr: "127.0.0.1:1".parse().unwrap(),
        viewer_urls: Vec::new(),
        versions: Versions::default(),
    }
}

impl Alone {
    fn new() -> Self {
        let disk = Memory::default();
        disk.image.lock().unwrap().disk = 99;
        let founder = (id("o1"), "127.0.0.1:1".parse().unwrap());
        Driver::found(disk.clone(), ClusterId::from_bits(5), &[founder]).unwrap();
        let driver = Driver::start(id("o1"), disk.clone(), 1).unwrap();
        let now = Now { mono: Duration::from_secs(1), unix_s: CLOCK_START_UNIX_S + 1000 };
        let mut alone = Alone { disk, driver, now, seed: 1 };
        alone.step(Vec::new());
        alone
    }

    fn restart(&mut self) {
        self.seed += 1;
        self.driver = Driver::start(id("o1"), self.disk.clone(), self.seed).unwrap();
        self.step(Vec::new());
    }

    fn step(&mut self, inputs: Vec<Input>) -> Outputs {
        self.now.mono += Driver::<Memory>::TICK;
        self.driver.step(self.now, inputs).unwrap()
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now.mono + time;
        while self.now.mono < until {
            self.step(Vec::new());
        }
    }

    fn ask_as(&mut self, peer: &str, ask: Ask) -> Result<Answer, Refusal> {
        let mut out = self.step(vec![Input::Ask { token: 7, peer: id(peer), ask }]);
        assert_eq!(out.replies.len(), 1, "one voter answers within the step");
        let (token, result) = out.replies.remove(0);
        assert_eq!(token, 7);
        result
    }

    fn register(&mut self, node: &str, incarnation: u64) {
        let spec = spec(node, incarnation);
        assert_eq!(self.ask_as(node, Ask::Register { spec }), Ok(Answer::Done));
    }

    fn beat(&mut self, node: &str, incarnation: u64) -> Result<Answer, Refusal> {
        let load = Load::default();
        self.ask_as(node, Ask::Heartbeat { node: id(node), incarnation, load })
    }

    fn claim(&mut self, i: usize, ingest: &str) -> Grant {
        match self.ask_as("x", Ask::Claim { room: room(i), ingest: id(ingest) }) {
            Ok(Answer::Grant(grant)) => grant,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_only_voter_leads_at_once_and_places_rooms_with_their_ingest() {
    let mut alone = Alone::new();
    assert!(alone.driver.leadership().is_leader);
    let unregistered = alone.ask_as("o1", Ask::Claim { room: room(0), ingest: id("o1") });
    assert_eq!(unregistered, Err(Refusal::Unregistered));
    alone.register("o1", 1);
    alone.register("o2", 1);
    let grant = alone.claim(0, "o2");
    assert_eq!((&grant.home, grant.msn_base), (&id("o2"), 4000));
    assert_eq!(alone.claim(0, "o1"), grant, "asked again, by another ingest: the same grant");
    assert_eq!(grant.epoch, Epoch(alone.driver.state().revision()), "the epoch is the log index");
    let confirm = |epoch| Ask::Confirm { room: room(0), epoch };
    assert_eq!(alone.ask_as("o2", confirm(grant.epoch)), Ok(Answer::Bool(true)));
    assert_eq!(alone.ask_as("o2", confirm(Epoch(1))), Ok(Answer::Bool(false)));
}

#[test]
fn state_survives_a_restart_and_epochs_only_go_up() {
    let mut alone = Alone::new();
    alone.register("o1", 1);
    let mut last = alone.claim(0, "o1");
    for i in 0..5 {
        alone.restart();
        assert_eq!(alone.claim(0, "o1"), last, "acknowledged before restart {i}");
        let release = Ask::Release { room: room(0), epoch: last.epoch, next_msn: 0 };
        assert_eq!(alone.ask_as("o1", release), Ok(Answer::Done));
        alone.restart();
        let next = alone.claim(0, "o1");
        assert!(next.epoch > last.epoch && next.msn_base > last.msn_base);
        assert!(next.generation > last.generation);
        last = next;
    }
}

#[test]
fn snapshots_bound_the_log_and_carry_the_state() {
    let mut alone = Alone::new();
    alone.register("o1", 1);
    let grant = alone.claim(0, "o1");
    let value = Some("v".repeat(1000));
    for i in 0..2500 {
        let ask = Ask::Set { name: format!("s{}", i % 200), value: value.clone() };
        alone.ask_as("o1", ask).unwrap();
    }
    let figures = alone.driver.figures();
    assert!(figures.snapshots >= 1, "{figures:?}");
    assert!(figures.entries < 2 * Compaction::default().kept_entries + 500, "{figures:?}");
    let before = alone.driver.state().clone();
    alone.restart();
    let after = alone.driver.state();
    assert_eq!(after.settings(), before.settings());
    assert_eq!(after.grant(&room(0)), Some(grant));
}

#[test]
fn a_dead_home_is_replaced_and_a_silent_leader_start_gives_everyone_time() {
    let mut alone = Alone::new();
    for node in ["o1", "o2"] {
        alone.register(node, 1);
    }
    let grant = alone.claim(0, "o1");
    let until = alone.now.mono + LEASE + SCHEDULE_EVERY * 3;
    while alone.now.mono < until {
        alone.beat("o2", 1).unwrap();
    }
    let moved = alone.driver.state().grant(&room(0)).unwrap();
    assert_eq!(moved.home, id("o2"));
    assert!(moved.epoch > grant.epoch && moved.generation == grant.generation);
    assert_eq!(alone.driver.state().node(&id("o1")).unwrap().state, NodeState::Down);
    assert!(alone.beat("o1", 1).is_ok());
    alone.wait(SCHEDULE_EVERY * 2);
    assert_eq!(alone.driver.state().node(&id("o1")).unwrap().state, NodeState::Up);
    alone.restart();
    alone.wait(LEASE - SCHEDULE_EVERY);
    assert_eq!(alone.driver.state().node(&id("o2")).unwrap().state, NodeState::Up);
    alone.wait(SCHEDULE_EVERY * 4);
    assert_eq!(alone.driver.state().node(&id("o2")).unwrap().state, NodeState::Down);
}

#[test]
fn a_claim_does_not_wait_for_the_scheduler_to_bury_the_home() {
    let mut alone = Alone::new();
    for node in ["o1", "o2"] {
        alone.register(node, 1);
    }
    let grant = alone.claim(0, "o1");
    alone.wait(LEASE);
    // Both silent: with everyone dead there is nowhere to go.
    let nowhere = alone.ask_as("o2", Ask::Claim { room: room(0), ingest: id("o2") });
    assert_eq!(nowhere, Err(Refusal::NoHome));
    alone.register("o2", 1);
    let moved = alone.claim(0, "o2");
    assert!(moved.home == id("o2") && moved.epoch > grant.epoch);
}

#[test]
fn a_sleeping_leader_kills_nobody_when_it_wakes() {
    let mut alone = Alone::new();
    alone.register("o1", 1);
    alone.now.mono += Duration::from_secs(60);
    alone.step(Vec::new());
    alone.wait(Duration::from_millis(300));
    assert_eq!(alone.driver.state().node(&id("o1")).unwrap().state, NodeState::Up);
}

#[test]
fn nobody_speaks_for_another_node() {
    let mut alone = Alone::new();
    alone.register("o1", 1);
    let spec = spec("o1", 2);
    let wrong = alone.ask_as("e1", Ask::Register { spec });
    assert_eq!(wrong, Err(Refusal::WrongNode { peer: id("e1"), claimed: id("o1") }));
    let beat = Ask::Heartbeat { node: id("o1"), incarnation: 1, load: Load::default() };
    assert!(matches!(alone.ask_as("e1", beat), Err(Refusal::WrongNode { .. })));
    assert_eq!(alone.beat("o1", 2), Err(Refusal::Unregistered), "another incarnation");
}

#[test]
fn registering_again_writes_nothing() {
    let mut alone = Alone::new();
    alone.register("o1", 1);
    let before = alone.driver.state().revision();
    for _ in 0..10 {
        alone.register("o1", 1);
        alone.beat("o1", 1).unwrap();
        alone.claim(0, "o1");
    }
    assert_eq!(alone.driver.state().revision(), before + 1, "one write, for the room");
}

#[test]
fn an_operator_moves_and_drains() {
    let mut alone = Alone::new();
    for node in ["o1", "o2"] {
        alone.register(node, 1);
    }
    let grant = alone.claim(0, "o1");
    let place = |to: Option<&str>| Ask::Place { room: room(0), to: to.map(id) };
    match alone.ask_as("x", place(Some("o1"))) {
        Ok(Answer::Grant(same)) => assert_eq!(same, grant, "already there"),
        other => panic!("{other:?}"),
    }
    match alone.ask_as("x", place(None)) {
        Ok(Answer::Grant(moved)) => assert_eq!(moved.home, id("o2")),
        other => panic!("{other:?}"),
    }
    assert_eq!(alone.ask_as("x", place(Some("o9"))), Err(Refusal::UnknownNode(id("o9"))));
    let drain = |draining| Ask::Drain { node: id("o2"), draining };
    assert_eq!(alone.ask_as("x", drain(true)), Ok(Answer::Done));
    for _ in 0..10 {
        alone.beat("o1", 1).unwrap();
        alone.beat("o2", 1).unwrap();
    }
    assert_eq!(alone.driver.state().grant(&room(0)).unwrap().home, id("o1"));
    assert_eq!(alone.claim(1, "o2").home, id("o1"), "a draining node takes no room");
    assert_eq!(alone.ask_as("x", drain(false)), Ok(Answer::Done));
    assert_eq!(alone.claim(2, "o2").home, id("o2"));
}

#[test]
fn keys_and_status() {
    let mut alone = Alone::new();
    alone.register("o1", 1);
    let hash = SecretHash([3; 32]);
    let create = Ask::CreateKey { id: KeyId(1), room: room(0), hash };
    assert_eq!(alone.ask_as("x", create), Ok(Answer::Done));
    let check = Ask::CheckKey { room: room(0), hash };
    assert_eq!(alone.ask_as("x", check), Ok(Answer::Bool(true)));
    let list = Ask::ListKeys { room: None, after: None, limit: 10 };
    assert!(matches!(alone.ask_as("x", list), Ok(Answer::Keys(keys)) if keys.len() == 1));
    match alone.ask_as("x", Ask::Status) {
        Ok(Answer::Status(status)) => {
            assert_eq!(status.leader, Some(id("o1")));
            assert_eq!(status.members.len(), 1);
            assert_eq!(status.members[0].part, Part::Voter);
            assert_eq!(status.members[0].matched, status.revision);
            assert_eq!(status.nodes[0].info.state, NodeState::Up);
        }
        other => panic!("{other:?}"),
    }
    let transfer = Ask::TransferLeader { to: None };
    assert!(matches!(alone.ask_as("x", transfer), Err(Refusal::Conflict(_))));
}

#[test]
fn a_disk_that_fails_stops_the_driver_and_loses_nothing_acknowledged() {
    let mut alone = Alone::new();
    alone.register("o1", 1);
    let grant = alone.claim(0, "o1");
    *alone.disk.fails.lock().unwrap() = true;
    let ask = Ask::Claim { room: room(1), ingest: id("o1") };
    let input = Input::Ask { token: 1, peer: id("o1"), ask };
    alone.now.mono += Driver::<Memory>::TICK;
    assert!(matches!(alone.driver.step(alone.now, [input]), Err(Fault::Storage(_))));
    *alone.disk.fails.lock().unwrap() = false;
    alone.restart();
    assert_eq!(alone.claim(0, "o1"), grant);
}

#[test]
fn one_step_makes_one_write_for_many_claims() {
    let mut alone = Alone::new();
    alone.register("o1", 1);
    let claims = (0..1000).map(|i| {
        let ask = Ask::Claim { room: room(i), ingest: id("o1") };
        Input::Ask { token: i as u64, peer: id("o1"), ask }
    });
    let out = alone.step(claims.collect());
    assert_eq!(out.replies.len(), 1000);
    let published = out.published.unwrap();
    assert_eq!(published.rooms.len(), 1000);
}

#[test]
fn the_data_folder_of_another_node_is_refused() {
    let alone = Alone::new();
    let error = Driver::start(id("o2"), alone.disk.clone(), 1).err().unwrap().to_string();
    assert_eq!(error, "control store: it is the member o1's, this node is o2");
}

#[test]
fn a_member_without_a_leader_says_so() {
    let disk = Memory::default();
    let identity = Identity { cluster: ClusterId::from_bits(5), raft_id: 4 };
    Driver::adopt(disk.clone(), identity).unwrap();
    Driver::adopt(disk.clone(), identity).unwrap();
    let other = Identity { raft_id: 5, ..identity };
    assert!(Driver::adopt(disk.clone(), other).is_err(), "a disk takes one raft id for ever");
    let mut driver = Driver::start(id("o4"), disk, 1).unwrap();
    let now = Now { mono: Duration::from_secs(1), unix_s: 0 };
    let ask = Ask::Claim { room: room(0), ingest: id("o4") };
    let out = driver.step(now, [Input::Ask { token: 1, peer: id("o4"), ask }]).unwrap();
    assert_eq!(out.replies, [(1, Err(Refusal::NotLeader { hint: None }))]);
}
