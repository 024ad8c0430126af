//! Golden bytes of the messages, and what may not pass.

use super::*;
use crate::frame::{decode_message, encode_message};

fn hex<T: Serialize>(message: &T) -> String {
    let bytes = postcard::to_stdvec(message).unwrap();
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn gift() -> Gift {
    Gift {
        room: RoomId::new("live", "a").unwrap(),
        user: Id::new("u7").unwrap(),
        client_id: Id::new("c1").unwrap(),
        epoch: Epoch(300),
        gift: Name::new("rose").unwrap(),
        count: 2,
        order: Id::default(),
        value: 0,
        whence: Whence::new(Region::default(), ClientKind::WEB, "127.0.0.1".parse().unwrap()),
        detail: Detail::new("{}").unwrap(),
    }
}

fn row() -> GiftRow {
    let position = Some(Position { epoch: Epoch(300), offset: 5 });
    GiftRow { id: 9, at_unix_ms: 1, gift: gift(), position }
}

const GIFT: &str = "066c6976652f610275370263 31ac0204726f73650200000764656661756c740101027b7d";

#[test]
fn asks_have_these_bytes() {
    let gift_bytes = GIFT.replace(' ', "");
    let request = Request { id: 1, ask: Ask::Commit(gift()) };
    assert_eq!(hex(&request), format!("0100{gift_bytes}"));
    let mark = Mark { id: 9, position: Position { epoch: Epoch(300), offset: 5 } };
    assert_eq!(hex(&Ask::Mark(vec![mark])), "010109ac0205");
    let room = RoomId::new("live", "a").unwrap();
    let take_over = Ask::TakeOver { room: room.clone(), epoch: Epoch(4), after: 0, limit: 500 };
    assert_eq!(hex(&take_over), "02066c6976652f610400f403");
    let event = Event {
        kind: EventKind::CHAT,
        at_unix_ms: 300,
        room: Some(room.clone()),
        user: Id::new("u7").unwrap(),
        whence: Whence::default(),
        detail: Detail::default(),
    };
    let event_bytes = "04ac0201066c6976652f61027537 0764656661756c74000000".replace(' ', "");
    assert_eq!(hex(&Ask::Keep(vec![event.clone()])), format!("0301{event_bytes}"));
    let span = Span { since_unix_ms: 1, until_unix_ms: 2, room: Some(room) };
    let export = Ask::Export { span: span.clone(), after: Some(Cursor::default()), limit: 1 };
    assert_eq!(hex(&export), "04010201066c6976652f610100000001");
    assert_eq!(hex(&Ask::Totals(span)), "05010201066c6976652f61");
    let room = RoomId::new("live", "a").unwrap();
    let (user, client_id) = (Id::new("u").unwrap(), Id::new("c").unwrap());
    let find = Ask::Find { room, user, client_id };
    assert_eq!(hex(&find), "06066c6976652f6101750163");
}

#[test]
fn answers_have_these_bytes() {
    let gift_bytes = GIFT.replace(' ', "");
    let row_bytes = format!("0901{gift_bytes}01ac0205");
    let gift = Answer::Gift { row: Box::new(row()), is_repeat: true };
    let response = Response { id: 1, answer: Ok(gift) };
    assert_eq!(hex(&response), format!("010000{row_bytes}01"));
    assert_eq!(hex(&Answer::Done), "01");
    assert_eq!(hex(&Answer::Rows(vec![row()])), format!("0201{row_bytes}"));
    assert_eq!(hex(&Answer::Records(vec![])), "0300");
    let by_gift = vec![GiftTotal { gift: Name::new("r").unwrap(), rows: 1, count: 2, value: 3 }];
    let totals = Totals { rows: 1, count: 2, value: 3, unsequenced: 4, duplicates: 0, by_gift };
    assert_eq!(hex(&Answer::Totals(Box::new(totals))), "040102030400010172010203");
    assert_eq!(hex(&Refusal::unavailable("x", 300)), "000178ac02");
    assert_eq!(hex(&Refusal::Stale { current: Epoch(1) }), "0101");
    assert_eq!(hex(&Refusal::Invalid("x".into())), "020178");
    assert_eq!(hex(&Refusal::OrderUsed), "03");
    assert_eq!(hex(&Refusal::NotHere), "04");
}

#[test]
fn text_beyond_its_bound_is_not_read() {
    let mut long = postcard::to_stdvec(&(0_u64, 1_u32, vec![0_u8; 0])).unwrap();
    long.clear();
    let text = "x".repeat(129);
    postcard::to_io(&text, &mut long).unwrap();
    assert!(decode_message::<Id>("id", &long).is_err());
    let frame = encode_message("id", &"x".repeat(128)).unwrap();
    assert_eq!(frame.len(), 2 + 2 + 128);
    assert!(decode_message::<Id>("id", &frame[2..]).is_ok());
}

#[test]
fn asks_that_make_no_sense_are_refused_by_name() {
    let with = |change: fn(&mut Gift)| {
        let mut gift = gift();
        change(&mut gift);
        Ask::Commit(gift).check().map_err(|refusal| refusal.to_string())
    };
    assert_eq!(with(|_| {}), Ok(()));
    assert_eq!(with(|gift| gift.count = 0), Err("a gift of none".to_owned()));
    assert_eq!(with(|gift| gift.user = Id::default()), Err("a gift needs a user".to_owned()));
    assert!(with(|gift| gift.client_id = Id::default()).is_err());
    assert!(with(|gift| gift.value = u64::MAX).is_err());
    let mark = Mark { id: 1, position: Position { epoch: Epoch(1), offset: 1 } };
    assert!(Ask::Mark(vec![mark; MAX_BATCH]).check().is_ok());
    assert!(Ask::Mark(vec![mark; MAX_BATCH + 1]).check().is_err());
    let far = Mark { id: 1, position: Position { epoch: Epoch(1), offset: u64::MAX } };
    assert!(Ask::Mark(vec![far]).check().is_err());
    let export = |limit| Ask::Export { span: Span::default(), after: None, limit }.check();
    assert!(export(0).is_err() && export(MAX_PAGE + 1).is_err() && export(MAX_PAGE).is_ok());
}
