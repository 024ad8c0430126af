//! The bytes of every message, pinned: a change here breaks clusters of mixed versions.

use std::fmt::Debug;

use proptest::prelude::*;
use serde::de::DeserializeOwned;

use super::*;

fn room() -> RoomId {
    RoomId::new("live", "a").unwrap()
}

fn node() -> NodeId {
    NodeId::new("o1").unwrap()
}

fn addr() -> SocketAddr {
    "10.0.0.1:7400".parse().unwrap()
}

fn grant() -> Grant {
    Grant {
        room: room(),
        home: node(),
        home_addr: addr(),
        epoch: Epoch(300),
        generation: 7,
        msn_base: 1000,
    }
}

fn info() -> NodeInfo {
    NodeInfo {
        spec: NodeSpec {
            id: node(),
            incarnation: 1,
            roles: Roles::CONTROL.with(Roles::ORIGIN),
            region: Region::new("eu").unwrap(),
            capacity: Capacity { rooms: 10, viewers: 20, egress_bps: 30 },
            addr: addr(),
            viewer_urls: vec!["http://e".to_owned()],
            versions: Versions { control: 1, log: 1, render: 1 },
        },
        state: NodeState::Draining,
    }
}

fn bar() -> Bar {
    Bar { before_unix_s: 1, until_unix_s: 2, set_unix_s: 3, reason: "no".to_owned() }
}

fn terms() -> KeyTerms {
    let networks = vec!["10.0.0.0/8".parse().unwrap()];
    KeyTerms { from_unix_s: None, until_unix_s: Some(9), once: true, networks }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[track_caller]
fn pinned<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T, expected: &str) {
    let bytes = postcard::to_allocvec(value).unwrap();
    assert_eq!(hex(&bytes), expected, "{value:?}");
    assert_eq!(&postcard::from_bytes::<T>(&bytes).unwrap(), value);
}

const ROOM: &str = "066c6976652f61";
const NODE: &str = "026f31";
const BAR: &str = "010203026e6f";
const TERMS: &str = "0001090101000a00000008";
const ADDR: &str = "000a000001e839";
const GRANT: &str = "066c6976652f61026f31000a000001e839ac0207e807";
const INFO: &str = "026f3101030265750a141e000a000001e8390108687474703a2f2f6501010101";

#[test]
fn questions_keep_their_bytes() {
    let (room, node) = (room(), node());
    let hash = SecretHash([0xab; 32]);
    let hash_hex = "ab".repeat(32);
    let NodeInfo { spec, .. } = info();
    let spec_hex = INFO[..INFO.len() - 2].to_owned();
    let load = Load { rooms: 1, viewers: 2, egress_bps: 3, cpu_permille: 4, head_msn: 5 };
    let epoch = Epoch(300);
    let cases = [
        (Ask::Claim { room: room.clone(), ingest: node.clone() }, format!("00{ROOM}{NODE}")),
        (Ask::Confirm { room: room.clone(), epoch }, format!("01{ROOM}ac02")),
        (Ask::Locate { room: room.clone() }, format!("02{ROOM}")),
        (Ask::Release { room: room.clone(), epoch, next_msn: 5 }, format!("03{ROOM}ac0205")),
        (Ask::Register { spec }, format!("04{spec_hex}")),
        (
            Ask::Heartbeat { node: node.clone(), incarnation: 9, load },
            format!("05{NODE}090102030405"),
        ),
        (
            Ask::CreateKey { id: KeyId(1), room: room.clone(), hash },
            format!("0601{ROOM}{hash_hex}"),
        ),
        (
            Ask::ListKeys { room: Some(room.clone()), after: None, limit: 2 },
            format!("0701{ROOM}0002"),
        ),
        (Ask::RevokeKey { id: KeyId(1) }, "0801".to_owned()),
        (Ask::CheckKey { room: room.clone(), hash }, format!("09{ROOM}{hash_hex}")),
        (Ask::Status, "0a".to_owned()),
        (Ask::Rooms { after: None, limit: 2 }, "0b0002".to_owned()),
        (Ask::Place { room: room.clone(), to: Some(node.clone()) }, format!("0c{ROOM}01{NODE}")),
        (Ask::Remove { room }, format!("0d{ROOM}")),
        (Ask::Drain { node: node.clone(), draining: true }, format!("0e{NODE}01")),
        (Ask::AddMember { node: node.clone(), addr: addr() }, format!("0f{NODE}{ADDR}")),
        (Ask::RemoveNode { node: node.clone() }, format!("10{NODE}")),
        (Ask::TransferLeader { to: None }, "1100".to_owned()),
        (Ask::Probe, "12".to_owned()),
        (
            Ask::Adopt { cluster: ClusterId::from_bits(1), raft_id: 2, disk: 3 },
            format!("1320{}0203", hex(b"00000000000000000000000000000001")),
        ),
        (Ask::Set { name: "a".into(), value: Some("b".into()) }, "140161010162".to_owned()),
        (Ask::Settings, "15".to_owned()),
        (Ask::Loads, "16".to_owned()),
    ];
    for (ask, expected) in cases {
        pinned(&Request { id: 1, ask }, &format!("01{expected}"));
    }
}

#[test]
fn questions_about_access_keep_their_bytes() {
    let hash = SecretHash([0xab; 32]);
    let hash_hex = "ab".repeat(32);
    let cases = [
        (
            Ask::SetBar { on: Barred::Push(RoomId::new("live", "a").unwrap()), bar: Some(bar()) },
            format!("1700{ROOM}01{BAR}"),
        ),
        (Ask::Bars { after: Some(Barred::Token("j".into())), limit: 2 }, "180101016a02".to_owned()),
        (
            Ask::StoreKey {
                id: KeyId(1),
                room: RoomId::new("live", "a").unwrap(),
                hash,
                terms: terms(),
                replaces: Some((KeyId(2), 3)),
            },
            format!("1901{ROOM}{hash_hex}{TERMS}010203"),
        ),
        (Ask::KeysInFull { room: None, after: Some(KeyId(1)), limit: 2 }, "1a00010102".to_owned()),
        (
            Ask::UseKey {
                room: RoomId::new("live", "a").unwrap(),
                hash,
                from: addr().ip(),
                push: 4,
            },
            format!("1b{ROOM}{hash_hex}000a00000104"),
        ),
    ];
    for (ask, expected) in cases {
        pinned(&Request { id: 1, ask }, &format!("01{expected}"));
    }
}

#[test]
fn answers_keep_their_bytes() {
    let location = Location { revision: 8, placement: Some(grant()) };
    let cases = [
        (Answer::Grant(grant()), format!("00{GRANT}")),
        (Answer::Bool(true), "0101".to_owned()),
        (Answer::Location(location), format!("020801{GRANT}")),
        (Answer::Done, "03".to_owned()),
        (Answer::Beat { term: 1, revision: 2 }, "040102".to_owned()),
        (
            Answer::Keys(vec![KeyInfo { id: KeyId(1), room: room(), created_unix_s: 3 }]),
            format!("050101{ROOM}03"),
        ),
        (Answer::Rooms { revision: 1, rooms: vec![grant()] }, format!("070101{GRANT}")),
        (Answer::Member { raft_id: 4 }, "0804".to_owned()),
        (Answer::Probe(Disk::Empty { disk: 5 }), "090005".to_owned()),
        (Answer::Settings(vec![("a".into(), "b".into())]), "0a0101610162".to_owned()),
        (
            Answer::Loads(vec![(NodeId::new("e1").unwrap(), Load::default())]),
            "0b010265310000000000".to_owned(),
        ),
        (
            Answer::Bars(vec![(Barred::Rooms("live/*".into()), bar())]),
            format!("0c0103066c6976652f2a{BAR}"),
        ),
        (
            Answer::KeysInFull(vec![KeyInFull {
                info: KeyInfo { id: KeyId(1), room: room(), created_unix_s: 3 },
                terms: terms(),
                is_used: true,
            }]),
            format!("0d0101{ROOM}03{TERMS}01"),
        ),
        (Answer::Key(KeyVerdict::Used), "0e04".to_owned()),
    ];
    for (answer, expected) in cases {
        pinned(&Response { id: 1, answer: Ok(answer) }, &format!("0100{expected}"));
    }
    let status = ClusterStatus {
        cluster: ClusterId::from_bits(1),
        leader: None,
        term: 2,
        revision: 3,
        members: vec![MemberInfo {
            raft_id: 1,
            node: node(),
            addr: addr(),
            part: Part::Voter,
            matched: 3,
        }],
        nodes: vec![NodeStatus { info: info(), load: None, homes: 4 }],
        rooms: 5,
    };
    let id = hex(b"00000000000000000000000000000001");
    let expected = format!("01000620{id}0002030101{NODE}{ADDR}000301{INFO}000405");
    pinned(&Response { id: 1, answer: Ok(Answer::Status(status)) }, &expected);
}

#[test]
fn refusals_keep_their_bytes_and_name_the_cause() {
    let cases = [
        (Refusal::NotLeader { hint: None }, "0000".to_owned(), "not the leader"),
        (
            Refusal::NotLeader { hint: Some((node(), addr())) },
            format!("0001{NODE}{ADDR}"),
            "not the leader; o1 leads",
        ),
        (
            Refusal::Unregistered,
            "01".to_owned(),
            "this node is not registered under its incarnation",
        ),
        (Refusal::UnknownNode(node()), format!("02{NODE}"), "node o1 is unknown"),
        (Refusal::UnknownRoom(room()), format!("03{ROOM}"), "room live/a is not active"),
        (
            Refusal::UnknownKey(KeyId(1)),
            "0401".to_owned(),
            "publish key 0000000000000001 is unknown",
        ),
        (Refusal::NoHome, "05".to_owned(), "no origin is up"),
        (
            Refusal::StaleEpoch { current: Some(Epoch(3)) },
            "060103".to_owned(),
            "epoch is not current; the room's is 3",
        ),
        (Refusal::Removed(node()), format!("07{NODE}"), "node o1 was removed from the cluster"),
        (
            Refusal::WrongNode { peer: node(), claimed: node() },
            format!("08{NODE}{NODE}"),
            "node o1 may not speak for o1",
        ),
        (Refusal::Overloaded("x".into()), "090178".to_owned(), "overloaded: x"),
        (Refusal::Unavailable("x".into()), "0a0178".to_owned(), "unavailable: x"),
        (Refusal::Invalid("x".into()), "0b0178".to_owned(), "invalid: x"),
        (Refusal::Conflict("x".into()), "0c0178".to_owned(), "conflict: x"),
    ];
    for (refusal, expected, text) in cases {
        assert_eq!(refusal.to_string(), text);
        pinned(&Response { id: 1, answer: Err(refusal) }, &format!("0101{expected}"));
    }
}

#[test]
fn watch_and_raft_messages_keep_their_bytes() {
    pinned(&WatchAsk::Subscribe { room: room() }, &format!("00{ROOM}"));
    pinned(&WatchAsk::Unsubscribe { room: room() }, &format!("01{ROOM}"));
    pinned(&WatchEvent::Resync { revision: 1 }, "0001");
    pinned(&WatchEvent::Node { revision: 1, node: info() }, &format!("0101{INFO}"));
    pinned(&WatchEvent::NodeGone { revision: 1, id: node() }, &format!("0201{NODE}"));
    let location = Location { revision: 1, placement: None };
    pinned(&WatchEvent::Room { room: room(), location }, &format!("03{ROOM}0100"));
    pinned(&WatchEvent::Synced { revision: 1 }, "0401");
    pinned(&WatchEvent::Refused { room: room() }, &format!("05{ROOM}"));
    let on = Barred::User { user: "u".into(), rooms: "*".into() };
    pinned(
        &WatchEvent::Bar { revision: 1, on, bar: Some(bar()) },
        &format!("060102017501 2a01{BAR}").replace(' ', ""),
    );
    let frame = RaftFrame {
        cluster: ClusterId::from_bits(1),
        from: 1,
        to: 2,
        message: bytes::Bytes::from_static(b"m"),
    };
    pinned(&frame, &format!("20{}0102016d", hex(b"00000000000000000000000000000001")));
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    assert_eq!(format!("{:?}", SecretHash([1; 32])), "SecretHash(..)");
    assert_ne!(SecretHash([1; 32]), SecretHash([2; 32]));
}

#[test]
fn roles_are_sets() {
    let both = Roles::CONTROL.with(Roles::EDGE);
    assert!(both.has(Roles::EDGE) && both.has(both) && !both.has(Roles::ORIGIN));
    assert_eq!(both.names().collect::<Vec<_>>(), ["control", "edge"]);
}

proptest! {
    #[test]
    fn any_bytes_decode_or_err(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = postcard::from_bytes::<Request>(&bytes);
        let _ = postcard::from_bytes::<Response>(&bytes);
        let _ = postcard::from_bytes::<WatchAsk>(&bytes);
        let _ = postcard::from_bytes::<WatchEvent>(&bytes);
        let _ = postcard::from_bytes::<RaftFrame>(&bytes);
    }
}
