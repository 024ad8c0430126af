//! What the state machine promises, by example and by random logs.

use proptest::prelude::*;
use wire::control::{
    Bar, Barred, Capacity, FOR_GOOD, KeyTerms, KeyVerdict, NodeSpec, NodeState, Roles, SecretHash,
    Versions,
};

use super::*;
use crate::command::CLOCK_START_UNIX_S;

fn id(text: &str) -> NodeId {
    NodeId::new(text).unwrap()
}

fn room(i: u8) -> RoomId {
    RoomId::new("live", &format!("r{i}")).unwrap()
}

fn spec(node: &str, incarnation: u64) -> NodeSpec {
    NodeSpec {
        id: id(node),
        incarnation,
        roles: Roles::ORIGIN,
        region: Region::new("eu").unwrap(),
        capacity: Capacity::default(),
        addr: "127.0.0.1:1".parse().unwrap(),
        viewer_urls: Vec::new(),
        versions: Versions::default(),
    }
}

/// A state and the log position, so that tests read as a list of commands.
struct Machine {
    state: State,
    changes: Changes,
    at_s: u64,
}

impl Machine {
    fn new() -> Self {
        let founder = (id("o1"), "127.0.0.1:1".parse().unwrap());
        let state = State::found(ClusterId::from_bits(1), &[founder], 7);
        let mut machine = Machine { state, changes: Changes::default(), at_s: 1000 };
        for node in ["o1", "o2", "o3"] {
            machine.run(Command::Register { spec: spec(node, 1) }).unwrap();
        }
        machine
    }

    fn run(&mut self, command: Command) -> Result<Answer, Refusal> {
        let stamped = Stamped { at_s: self.at_s, command };
        self.changes = Changes::default();
        let index = self.state.revision() + 1;
        self.state.apply(index, stamped, &mut self.changes)
    }

    fn place(&mut self, i: u8, home: &str, replaces: Option<Epoch>) -> wire::control::Grant {
        let command =
            Command::Place { room: room(i), home: id(home), ingest: None, replaces, msn_floor: 0 };
        match self.run(command).unwrap() {
            Answer::Grant(grant) => grant,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_claim_race_gives_one_home() {
    let mut machine = Machine::new();
    let first = machine.place(0, "o1", None);
    let second = machine.place(0, "o2", None);
    assert_eq!(first, second, "the later decision finds the earlier");
    assert_eq!(machine.changes, Changes::default(), "and changes nothing");
    let moved = machine.place(0, "o2", Some(first.epoch));
    assert!(moved.epoch > first.epoch && moved.home == id("o2"));
    assert_eq!(moved.generation, first.generation, "a move is not a new room");
    assert_eq!(machine.state.rooms_of(&id("o1")).len(), 0);
    assert_eq!(machine.state.rooms_of(&id("o2")).len(), 1);
}

#[test]
fn numbers_only_go_up_across_removal_even_when_the_clock_goes_back() {
    let mut machine = Machine::new();
    let first = machine.place(0, "o1", None);
    assert_eq!(first.msn_base, 4000);
    let used = first.msn_base + 100;
    machine.at_s = 10;
    let release = Command::Release { room: room(0), epoch: first.epoch, next_msn: used };
    machine.run(release).unwrap();
    let second = machine.place(0, "o1", None);
    assert_eq!(second.msn_base, used);
    assert!(second.epoch > first.epoch && second.generation > first.generation);
    machine.run(Command::Remove { room: room(0) }).unwrap();
    assert_eq!(machine.place(0, "o1", None).msn_base, used + MSN_SPARE);
    machine.at_s = 2000;
    assert_eq!(machine.place(1, "o1", None).msn_base, 8000, "by the clock when it has moved on");
}

#[test]
fn an_absurd_number_from_a_home_does_not_end_the_range() {
    let mut machine = Machine::new();
    let grant = machine.place(0, "o1", None);
    let release = Command::Release { room: room(0), epoch: grant.epoch, next_msn: u64::MAX };
    machine.run(release).unwrap();
    assert!(machine.place(0, "o1", None).msn_base <= 4000 + (1 << 32));
}

#[test]
fn a_room_without_a_past_starts_above_what_the_cluster_has_seen() {
    let mut machine = Machine::new();
    let seen = 4100;
    let first = machine.place(0, "o1", None);
    let command = Command::Place {
        room: room(0),
        home: id("o2"),
        ingest: None,
        replaces: Some(first.epoch),
        msn_floor: seen,
    };
    machine.run(command).unwrap();
    assert_eq!(machine.state.grant(&room(0)).unwrap().msn_base, seen);
    let absurd = Command::Place {
        room: room(1),
        home: id("o2"),
        ingest: None,
        replaces: None,
        msn_floor: u64::MAX,
    };
    machine.run(absurd).unwrap();
    assert_eq!(machine.state.grant(&room(1)).unwrap().msn_base, seen);
}

#[test]
fn a_stale_release_leaves_the_room_alone() {
    let mut machine = Machine::new();
    let first = machine.place(0, "o1", None);
    let moved = machine.place(0, "o2", Some(first.epoch));
    let stale = Command::Release { room: room(0), epoch: first.epoch, next_msn: 0 };
    assert_eq!(machine.run(stale), Err(Refusal::StaleEpoch { current: Some(moved.epoch) }));
    assert_eq!(machine.state.grant(&room(0)), Some(moved.clone()));
    let release = Command::Release { room: room(0), epoch: moved.epoch, next_msn: 0 };
    assert_eq!(machine.run(release.clone()), Ok(Answer::Done));
    assert_eq!(machine.run(release), Ok(Answer::Done), "asked again after a lost answer");
}

#[test]
fn a_restarted_home_holds_nothing_under_its_old_epochs() {
    let mut machine = Machine::new();
    let before = machine.place(0, "o1", None);
    let other = machine.place(1, "o2", None);
    machine.run(Command::Register { spec: spec("o1", 2) }).unwrap();
    let after = machine.state.grant(&room(0)).unwrap();
    assert!(after.epoch > before.epoch && after.msn_base > before.msn_base);
    assert_eq!(after.home, before.home);
    assert_eq!(machine.state.grant(&room(1)), Some(other));
    assert!(machine.changes.rooms.contains(&room(0)));
    machine.run(Command::Register { spec: spec("o1", 2) }).unwrap();
    assert_eq!(machine.changes, Changes::default(), "registering again changes nothing");
}

#[test]
fn a_new_address_reaches_those_who_watch_the_rooms() {
    let mut machine = Machine::new();
    let before = machine.place(0, "o1", None);
    let addr = "127.0.0.1:2".parse().unwrap();
    machine.run(Command::Register { spec: NodeSpec { addr, ..spec("o1", 1) } }).unwrap();
    assert_eq!(machine.changes.rooms, BTreeSet::from([room(0)]));
    let after = machine.state.grant(&room(0)).unwrap();
    assert_eq!((after.epoch, after.home_addr), (before.epoch, addr));
}

#[test]
fn node_states_belong_to_an_incarnation() {
    let mut machine = Machine::new();
    let set = |incarnation, state| Command::SetState { node: id("o1"), incarnation, state };
    machine.run(Command::Register { spec: spec("o1", 2) }).unwrap();
    assert!(matches!(machine.run(set(1, NodeState::Down)), Err(Refusal::Conflict(_))));
    machine.run(set(2, NodeState::Draining)).unwrap();
    machine.run(Command::Register { spec: spec("o1", 2) }).unwrap();
    assert_eq!(machine.state.node(&id("o1")).unwrap().state, NodeState::Draining);
    machine.run(Command::Register { spec: spec("o1", 3) }).unwrap();
    assert_eq!(machine.state.node(&id("o1")).unwrap().state, NodeState::Up);
}

#[test]
fn a_removed_node_cannot_come_back_unless_it_is_added() {
    let mut machine = Machine::new();
    let grant = machine.place(0, "o2", None);
    let remove = Command::RemoveNode { node: id("o2") };
    assert!(matches!(machine.run(remove.clone()), Err(Refusal::Conflict(_))));
    machine.place(0, "o3", Some(grant.epoch));
    machine.run(remove).unwrap();
    let register = Command::Register { spec: spec("o2", 5) };
    assert_eq!(machine.run(register.clone()), Err(Refusal::Removed(id("o2"))));
    let addr = "127.0.0.1:1".parse().unwrap();
    machine.run(Command::Admit { node: id("o2"), addr, lost: None }).unwrap();
    machine.run(register).unwrap();
    let last = Command::RemoveNode { node: id("o9") };
    assert_eq!(machine.run(last), Err(Refusal::UnknownNode(id("o9"))));
}

#[test]
fn raft_ids_are_given_once_and_bound_to_one_disk() {
    let mut machine = Machine::new();
    let addr = "127.0.0.1:1".parse().unwrap();
    let admit = |lost| Command::Admit { node: id("o2"), addr, lost };
    assert_eq!(machine.run(admit(None)), Ok(Answer::Member { raft_id: 2 }));
    machine.run(Command::Bind { raft_id: 2, disk: 11 }).unwrap();
    assert_eq!(machine.run(admit(None)), Ok(Answer::Member { raft_id: 2 }), "it has one");
    machine.run(Command::Bind { raft_id: 2, disk: 11 }).unwrap();
    assert!(machine.run(Command::Bind { raft_id: 2, disk: 12 }).is_err());
    let voters = BTreeSet::from([1, 2]);
    let index = machine.state.revision() + 1;
    machine.state.configure(index, Conf { voters: voters.clone(), ..Conf::default() });
    // The disk was wiped: the node comes back under a new id, the old one is on its way out.
    assert_eq!(machine.run(admit(Some(2))), Ok(Answer::Member { raft_id: 3 }));
    assert!(!machine.state.members()[&2].wanted && machine.state.members()[&3].wanted);
    machine.state.configure(
        machine.state.revision() + 1,
        Conf { voters: BTreeSet::from([1, 3]), ..Conf::default() },
    );
    assert_eq!(machine.state.members().keys().copied().collect::<Vec<_>>(), [1, 3]);
    let remove = Command::RemoveNode { node: id("o1") };
    machine.run(remove).unwrap();
    let only = Command::RemoveNode { node: id("o2") };
    assert!(matches!(machine.run(only), Err(Refusal::Conflict(_))));
}

#[test]
fn keys_open_one_room_until_revoked() {
    let mut machine = Machine::new();
    let hash = SecretHash([1; 32]);
    let create = Command::CreateKey { id: KeyId(5), room: room(0), hash };
    machine.run(create.clone()).unwrap();
    machine.run(create).unwrap();
    let other = Command::CreateKey { id: KeyId(5), room: room(1), hash };
    assert!(matches!(machine.run(other), Err(Refusal::Conflict(_))));
    assert!(machine.state.opens(&room(0), &hash));
    assert!(!machine.state.opens(&room(0), &SecretHash([2; 32])));
    assert!(!machine.state.opens(&room(1), &hash));
    let listed = machine.state.keys(Some(&room(0)), None, 10);
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].created_unix_s, CLOCK_START_UNIX_S + 1000);
    assert_eq!(machine.state.keys(None, Some(KeyId(5)), 10), []);
    assert_eq!(machine.state.keys(None, Some(KeyId(u64::MAX)), 10), []);
    machine.run(Command::RevokeKey { id: KeyId(5) }).unwrap();
    assert!(!machine.state.opens(&room(0), &hash));
    assert!(machine.run(Command::RevokeKey { id: KeyId(5) }).is_err());
    for i in 0..MAX_KEYS_PER_ROOM as u64 {
        machine.run(Command::CreateKey { id: KeyId(i), room: room(0), hash }).unwrap();
    }
    let over = Command::CreateKey { id: KeyId(999), room: room(0), hash };
    assert!(matches!(machine.run(over), Err(Refusal::Overloaded(_))));
}

#[test]
fn keys_open_on_their_terms_and_give_way_to_newer_ones() {
    let mut machine = Machine::new();
    let now_s = CLOCK_START_UNIX_S + machine.at_s;
    let (one, two) = (SecretHash([1; 32]), SecretHash([2; 32]));
    let address = "10.0.0.9".parse().unwrap();
    let store = |id, hash, terms, replaces| Command::StoreKey {
        id: KeyId(id),
        room: room(0),
        hash,
        terms,
        replaces,
    };
    let once = KeyTerms { once: true, ..KeyTerms::default() };
    machine.run(store(1, one, once.clone(), None)).unwrap();
    machine.run(store(1, one, once, None)).unwrap();
    let ask = |machine: &Machine, hash, at_s, push| {
        machine.state.opening(&room(0), hash, (at_s, address, push))
    };
    assert!(!machine.state.opens(&room(0), &one), "whoever asks without telling more is refused");
    assert_eq!(ask(&machine, &one, now_s, 7), Opening::Uses(KeyId(1)));
    let used = |machine: &mut Machine, push| machine.run(Command::UseKey { id: KeyId(1), push });
    assert_eq!(used(&mut machine, 7), Ok(Answer::Key(KeyVerdict::Opens)));
    assert_eq!(used(&mut machine, 7), Ok(Answer::Key(KeyVerdict::Opens)), "the same push");
    assert_eq!(used(&mut machine, 8), Ok(Answer::Key(KeyVerdict::Used)), "of two at once, one");
    assert_eq!(ask(&machine, &one, now_s, 8), Opening::Judged(KeyVerdict::Used));
    assert_eq!(ask(&machine, &two, now_s, 8), Opening::Judged(KeyVerdict::Unknown));

    // A newer key takes the place of the old one, which opens for a while yet.
    machine.run(Command::CreateKey { id: KeyId(2), room: room(0), hash: two }).unwrap();
    let three = SecretHash([3; 32]);
    let elsewhere = store(3, three, KeyTerms::default(), Some((KeyId(99), 60)));
    assert_eq!(machine.run(elsewhere), Err(Refusal::UnknownKey(KeyId(99))));
    machine.run(store(3, three, KeyTerms::default(), Some((KeyId(2), 60)))).unwrap();
    assert_eq!(ask(&machine, &two, now_s + 59, 9), Opening::Judged(KeyVerdict::Opens));
    assert_eq!(ask(&machine, &two, now_s + 60, 9), Opening::Judged(KeyVerdict::Over));
    assert_eq!(ask(&machine, &three, now_s + 60, 9), Opening::Judged(KeyVerdict::Opens));

    let listed = machine.state.keys_in_full(Some(&room(0)), None, 10);
    let shown: Vec<_> = listed.iter().map(|key| (key.info.id.0, key.is_used)).collect();
    assert_eq!(shown, [(1, true), (2, false), (3, false)]);
    machine.run(Command::RevokeKey { id: KeyId(1) }).unwrap();
    assert_eq!(ask(&machine, &one, now_s, 7), Opening::Judged(KeyVerdict::Unknown));
    let read = State::decode(&machine.state.encode().unwrap()).unwrap();
    assert_eq!(read, machine.state);
}

#[test]
fn what_is_barred_is_told_bounded_and_forgotten_in_time() {
    let mut machine = Machine::new();
    let now_s = CLOCK_START_UNIX_S + machine.at_s;
    let bar = |until_unix_s| {
        Some(Bar { before_unix_s: 0, until_unix_s, set_unix_s: now_s, reason: String::new() })
    };
    let set = |on: &Barred, bar| Command::SetBar { on: on.clone(), bar };
    let push = Barred::Push(room(0));
    machine.run(set(&push, bar(now_s + 5))).unwrap();
    assert_eq!(machine.changes.bars, BTreeSet::from([push.clone()]));
    let read = State::decode(&machine.state.encode().unwrap()).unwrap();
    assert_eq!(read, machine.state);
    machine.run(set(&push, bar(now_s + 6))).unwrap();
    machine.run(set(&push, bar(now_s + 6))).unwrap();
    assert_eq!(machine.state.bar(&push).unwrap().until_unix_s, now_s + 6);

    let token = Barred::Token("j".to_owned());
    machine.at_s += 6;
    machine.run(set(&token, bar(FOR_GOOD))).unwrap();
    assert!(machine.state.bar(&push).is_some(), "its last second");
    machine.at_s += 1;
    machine.run(set(&token, None)).unwrap();
    assert_eq!(machine.changes.bars, BTreeSet::from([push.clone(), token.clone()]));
    assert_eq!(machine.state.bars().count(), 0);

    let nobody = Barred::Token(String::new());
    assert!(matches!(machine.run(set(&nobody, bar(FOR_GOOD))), Err(Refusal::Invalid(_))));
    for i in 0..MAX_BARS {
        machine.run(set(&Barred::Token(i.to_string()), bar(FOR_GOOD))).unwrap();
    }
    assert!(matches!(machine.run(set(&push, bar(FOR_GOOD))), Err(Refusal::Overloaded(_))));
    machine.run(set(&Barred::Token("0".to_owned()), bar(now_s))).unwrap();
}

#[test]
fn a_damaged_or_newer_snapshot_is_refused() {
    let bytes = Machine::new().state.encode().unwrap();
    assert!(matches!(State::decode(&[]), Err(StateError::Empty)));
    assert!(matches!(State::decode(&[9]), Err(StateError::Newer { found: 9 })));
    assert!(matches!(State::decode(&bytes[..bytes.len() - 1]), Err(StateError::Malformed(_))));
}

#[test]
fn raft_ids_that_are_out_are_not_listened_to() {
    let mut machine = Machine::new();
    let addr = "127.0.0.1:9".parse().unwrap();
    machine.run(Command::Admit { node: id("o2"), addr, lost: None }).unwrap();
    assert!(machine.state.hears(1) && machine.state.hears(2) && machine.state.hears(3));
    assert_eq!(machine.state.member_route(2), Some((id("o2"), spec("o2", 1).addr)));
    machine.run(Command::Admit { node: id("o2"), addr, lost: Some(2) }).unwrap();
    assert!(!machine.state.hears(2), "its disk is lost");
    assert!(machine.state.hears(3) && machine.state.hears(4), "given, and perhaps given elsewhere");
}

/// A state with something in every table, as format 1 writes it. Later builds must go on reading it.
const FIXTURE: &str = include_str!("../../testdata/state-format-1.hex");

#[test]
fn the_state_format_of_the_first_release_stays_readable() {
    let mut machine = Machine::new();
    let grant = machine.place(0, "o1", None);
    let region = Region::new("eu").unwrap();
    let hub = Some(id("o3"));
    machine.run(Command::SetHub { room: room(0), region, hub }).unwrap();
    machine.run(Command::Set { name: "a".to_owned(), value: Some("b".to_owned()) }).unwrap();
    let hash = SecretHash([1; 32]);
    machine.run(Command::CreateKey { id: KeyId(5), room: room(0), hash }).unwrap();
    machine.run(Command::RemoveNode { node: id("o2") }).unwrap();
    let addr = "127.0.0.1:9".parse().unwrap();
    machine.run(Command::Admit { node: id("o4"), addr, lost: None }).unwrap();
    let bytes = machine.state.encode().unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, FIXTURE.trim());
    let read = State::decode(&bytes).unwrap();
    assert_eq!(read, machine.state);
    assert_eq!(read.grant(&room(0)), Some(grant));
    assert!(read.opens(&room(0), &hash) && read.is_removed(&id("o2")));
}

fn any_command() -> impl Strategy<Value = Command> {
    let node = prop_oneof![Just("o1"), Just("o2"), Just("o3"), Just("o4")].prop_map(id);
    let rooms = (0..4_u8).prop_map(room);
    let epoch = proptest::option::of((1..60_u64).prop_map(Epoch));
    prop_oneof![
        3 => (rooms.clone(), node.clone(), epoch.clone()).prop_map(|(room, home, replaces)| {
            Command::Place { room, home, ingest: None, replaces, msn_floor: 0 }
        }),
        2 => (rooms.clone(), 1..60_u64, 0..9000_u64).prop_map(|(room, epoch, next_msn)| {
            Command::Release { room, epoch: Epoch(epoch), next_msn }
        }),
        1 => rooms.clone().prop_map(|room| Command::Remove { room }),
        2 => (node.clone(), 1..4_u64).prop_map(|(node, incarnation)| {
            Command::Register { spec: spec(node.as_str(), incarnation) }
        }),
        1 => (node.clone(), 1..4_u64).prop_map(|(node, incarnation)| {
            Command::SetState { node, incarnation, state: NodeState::Down }
        }),
        1 => node.clone().prop_map(|node| Command::Forget { node }),
        1 => node.prop_map(|node| Command::RemoveNode { node }),
        1 => (0..5_u64, rooms, 0..3_u8).prop_map(|(id, room, hash)| {
            Command::CreateKey { id: KeyId(id), room, hash: SecretHash([hash; 32]) }
        }),
        1 => (0..5_u64).prop_map(|id| Command::RevokeKey { id: KeyId(id) }),
    ]
}

proptest! {
    #[test]
    fn any_log_keeps_the_promises(
        log in proptest::collection::vec((any_command(), 0..3000_u64), 0..80),
    ) {
        let mut machine = Machine::new();
        let mut last: BTreeMap<RoomId, (Epoch, u64, u64)> = BTreeMap::new();
        for (command, at_s) in log {
            machine.at_s = at_s;
            let _ = machine.run(command);
            for i in 0..4 {
                let Some(grant) = machine.state.grant(&room(i)) else { continue };
                let seen = (grant.epoch, grant.generation, grant.msn_base);
                prop_assert_ne!(grant.home_addr.port(), 0, "a home is in the table");
                match last.insert(room(i), seen) {
                    None => {}
                    Some(before) if before.0 == seen.0 => prop_assert_eq!(before, seen),
                    Some(before) => {
                        prop_assert!(seen.0 > before.0, "epochs only go up");
                        prop_assert!(seen.1 >= before.1, "generations never go down");
                        prop_assert!(seen.2 > before.2, "msn bases only go up");
                        prop_assert!(machine.changes.rooms.contains(&room(i)), "watchers are told");
                    }
                }
            }
            // A snapshot is the state, the derived parts included.
            let bytes = machine.state.encode().unwrap();
            prop_assert_eq!(&State::decode(&bytes).unwrap(), &machine.state);
        }
    }

    #[test]
    fn any_bytes_are_a_state_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = State::decode(&bytes);
        let _ = Stamped::decode(&bytes);
    }
}
