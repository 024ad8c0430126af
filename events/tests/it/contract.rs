//! What both stores promise, and how the tests ask.

use events::{Metrics, Store};
use wire::events::{
    Answer, Ask, ClientKind, Cursor, Detail, Event, EventKind, Gift, GiftRow, Id, Mark, Name,
    Position, REPEAT_WINDOW_MS, Record, Refusal, Span, Totals, Whence,
};
use wire::{Epoch, NodeId, Region, RoomId};

pub(crate) fn node() -> NodeId {
    NodeId::new("o1").unwrap()
}

pub(crate) fn room(name: &str) -> RoomId {
    RoomId::new("live", name).unwrap()
}

pub(crate) fn metrics() -> Metrics {
    Metrics::register(&prometheus::Registry::new()).unwrap()
}

pub(crate) fn gift(room_name: &str, client_id: &str) -> Gift {
    Gift {
        room: room(room_name),
        user: Id::new("u7").unwrap(),
        client_id: Id::new(client_id).unwrap(),
        epoch: Epoch(5),
        gift: Name::new("rose").unwrap(),
        count: 2,
        order: Id::default(),
        value: 10,
        whence: Whence::new(
            Region::new("eu").unwrap(),
            ClientKind::WEB,
            "10.0.0.1".parse().unwrap(),
        ),
        detail: Detail::new(r#"{"n":"Mei"}"#).unwrap(),
    }
}

pub(crate) fn event(kind: EventKind, at_unix_ms: u64) -> Event {
    Event {
        kind,
        at_unix_ms,
        room: Some(room("e")),
        user: Id::new("u1").unwrap(),
        whence: Whence::default(),
        detail: Detail::default(),
    }
}

pub(crate) async fn commit(store: &Store, gift: Gift) -> Result<(GiftRow, bool), Refusal> {
    match store.answer(&node(), Ask::Commit(gift)).await? {
        Answer::Gift { row, is_repeat } => Ok((*row, is_repeat)),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn take_over(store: &Store, name: &str, epoch: u64) -> Result<Vec<u64>, Refusal> {
    let ask = Ask::TakeOver { room: room(name), epoch: Epoch(epoch), after: 0, limit: 500 };
    match store.answer(&node(), ask).await? {
        Answer::Rows(rows) => Ok(rows.iter().map(|row| row.id).collect()),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn totals(store: &Store, of: Option<&str>) -> Totals {
    let span = Span { since_unix_ms: 0, until_unix_ms: u64::MAX >> 1, room: of.map(room) };
    match store.answer(&node(), Ask::Totals(span)).await {
        Ok(Answer::Totals(totals)) => *totals,
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn export(store: &Store, span: Span, page: u16) -> Vec<Record> {
    let mut all = Vec::new();
    let mut after: Option<Cursor> = None;
    loop {
        let ask = Ask::Export { span: span.clone(), after, limit: page };
        match store.answer(&node(), ask).await {
            Ok(Answer::Records(records)) => {
                let is_full = records.len() == usize::from(page);
                after = records.last().map(|record| record.cursor);
                all.extend(records);
                if !is_full {
                    return all;
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Everything a store promises while all is well.
pub(crate) async fn keeps_its_promises(store: &Store) {
    a_gift_is_one_gift(store).await;
    a_later_home_gets_what_has_no_place(store).await;
    an_order_is_used_once(store).await;
    concurrent_repeats_are_one_gift(store).await;
    what_is_kept_is_exported_in_order(store).await;
}

async fn a_gift_is_one_gift(store: &Store) {
    let (first, is_repeat) = commit(store, gift("a", "c1")).await.unwrap();
    assert!(!is_repeat && first.position.is_none() && first.at_unix_ms > 0);
    assert_eq!(first.gift, gift("a", "c1"), "what comes back is what was asked for");
    let changed = Gift { count: 9, ..gift("a", "c1") };
    assert_eq!(commit(store, changed).await.unwrap(), (first.clone(), true), "the first answer");
    for other in
        [gift("b", "c1"), gift("a", "c2"), Gift { user: Id::new("u8").unwrap(), ..gift("a", "c1") }]
    {
        let (row, is_repeat) = commit(store, other).await.unwrap();
        assert!(!is_repeat && row.id > first.id);
    }
    let find = async |client_id: &str| {
        let client_id = Id::new(client_id).unwrap();
        let ask = Ask::Find { room: room("a"), user: Id::new("u7").unwrap(), client_id };
        store.answer(&node(), ask).await
    };
    assert_eq!(find("c1").await, Ok(Answer::Rows(vec![first])), "found without being given again");
    assert_eq!(find("c8").await, Ok(Answer::Rows(vec![])));
    let none = Gift { count: 0, ..gift("a", "c9") };
    assert!(matches!(commit(store, none).await, Err(Refusal::Invalid(_))));
    let sums = totals(store, Some("a")).await;
    assert_eq!((sums.rows, sums.count, sums.value, sums.duplicates), (3, 6, 30, 0));
    assert_eq!((sums.unsequenced, sums.by_gift.len()), (3, 1));
}

async fn a_later_home_gets_what_has_no_place(store: &Store) {
    let (one, _) = commit(store, gift("m", "c1")).await.unwrap();
    let (two, _) = commit(store, gift("m", "c2")).await.unwrap();
    let at = |epoch, offset| Position { epoch: Epoch(epoch), offset };
    let mark = |id, position| Ask::Mark(vec![Mark { id, position }]);
    store.answer(&node(), mark(one.id, at(5, 40))).await.unwrap();
    assert_eq!(take_over(store, "m", 6).await, Ok(vec![two.id]));
    assert_eq!(take_over(store, "m", 6).await, Ok(vec![two.id]), "again changes nothing");
    let stale = Err(Refusal::Stale { current: Epoch(6) });
    assert_eq!(commit(store, gift("m", "c3")).await, stale, "the earlier home commits no more");
    assert_eq!(take_over(store, "m", 5).await, Err(Refusal::Stale { current: Epoch(6) }));
    let theirs = Gift { epoch: Epoch(6), ..gift("m", "c2") };
    let (row, is_repeat) = commit(store, theirs.clone()).await.unwrap();
    assert!(is_repeat && row.position.is_none());
    // Both homes give it a place; the later one's stays.
    store.answer(&node(), mark(two.id, at(6, 3))).await.unwrap();
    store.answer(&node(), mark(two.id, at(5, 41))).await.unwrap();
    assert_eq!(commit(store, theirs).await.unwrap().0.position, Some(at(6, 3)));
    assert_eq!(take_over(store, "m", 7).await, Ok(vec![]));
}

async fn an_order_is_used_once(store: &Store) {
    let with = |client_id: &str| Gift { order: Id::new("A-1").unwrap(), ..gift("o", client_id) };
    let (row, _) = commit(store, with("c1")).await.unwrap();
    assert_eq!(commit(store, with("c2")).await, Err(Refusal::OrderUsed));
    assert_eq!(commit(store, with("c1")).await.unwrap(), (row, true), "a repeat is no second use");
}

async fn concurrent_repeats_are_one_gift(store: &Store) {
    let asks = (0..40).map(|n| commit(store, gift("r", &format!("c{}", n % 4))));
    let mut ids: Vec<_> = Vec::new();
    let mut firsts = 0;
    for answer in futures_util::future::join_all(asks).await {
        let (row, is_repeat) = answer.unwrap();
        firsts += usize::from(!is_repeat);
        ids.push(row.id);
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), firsts), (4, 4));
    let sums = totals(store, Some("r")).await;
    assert_eq!((sums.rows, sums.duplicates), (4, 0));
}

async fn what_is_kept_is_exported_in_order(store: &Store) {
    let events: Vec<_> = (0..7).map(|n| event(EventKind(n), 1000 + u64::from(n / 3))).collect();
    store.answer(&node(), Ask::Keep(events)).await.unwrap();
    let span = Span { since_unix_ms: 1000, until_unix_ms: 1002, room: None };
    let seen = export(store, span.clone(), 2).await;
    let kinds: Vec<_> = seen.iter().map(|record| record.event.kind.0).collect();
    assert_eq!(kinds, [0, 1, 2, 3, 4, 5], "up to but without the end");
    assert!(seen.iter().all(|record| record.node == Some(node())));
    let other = Span { room: Some(room("x")), ..span };
    assert!(export(store, other, 100).await.is_empty());
    let all = Span { since_unix_ms: 0, until_unix_ms: u64::MAX >> 1, room: None };
    let seen = export(store, all, 3).await;
    let gifts = seen.iter().filter(|record| record.event.kind == EventKind::GIFT).count() as u64;
    // One of the seven events is of the kind that gifts have, too.
    assert_eq!(gifts, totals(store, None).await.rows + 1);
    assert!(seen.windows(2).all(|pair| pair[0].cursor < pair[1].cursor));
    let lines: Vec<_> = seen.iter().map(events::export::line).collect();
    assert!(lines.iter().any(|line| line.contains(r#""sender":{"n":"Mei"}"#)), "{}", lines[9]);
}

/// A gift of the same key is another one once the window is over: what `age` does to the rows is
/// to make them a window older.
pub(crate) async fn keys_are_free_after_a_day(store: &Store, age: impl AsyncFn(u64)) {
    let (first, _) = commit(store, gift("day", "c1")).await.unwrap();
    age(REPEAT_WINDOW_MS - 3_600_000).await;
    assert!(commit(store, gift("day", "c1")).await.unwrap().1, "23 hours later it is the same");
    age(3_600_000).await;
    let (second, is_repeat) = commit(store, gift("day", "c1")).await.unwrap();
    assert!(!is_repeat && second.id > first.id);
    assert_eq!(commit(store, gift("day", "c1")).await.unwrap(), (second, true));
    assert_eq!(totals(store, Some("day")).await.duplicates, 0);
}
