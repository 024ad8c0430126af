//! SQLite: the contract, and what goes wrong with files.

use std::path::Path;
use std::time::Duration;

use events::Store;
use rusqlite::Connection;
use wire::events::{Ask, EventKind, Refusal, Span};

use crate::contract::{
    commit, event, export, gift, keeps_its_promises, keys_are_free_after_a_day, metrics, node,
    totals,
};

fn open(path: &Path) -> Store {
    Store::sqlite(path, Duration::ZERO, metrics()).unwrap()
}

#[tokio::test]
async fn the_contract_holds_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made/events.db");
    let store = open(&path);
    keeps_its_promises(&store).await;
    let before = totals(&store, None).await;
    store.close().await;
    let store = open(&path);
    assert_eq!(totals(&store, None).await, before);
    assert!(commit(&store, gift("a", "c1")).await.unwrap().1, "still the same gift");
}

#[tokio::test]
async fn a_key_is_free_after_a_day() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    let store = open(&path);
    keys_are_free_after_a_day(&store, async |by_ms| {
        let other = Connection::open(&path).unwrap();
        other.execute("UPDATE gifts SET at_ms = at_ms - ?1", [by_ms as i64]).unwrap();
    })
    .await;
}

#[tokio::test]
async fn while_the_file_is_locked_gifts_are_refused_and_afterwards_taken() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    let store = open(&path);
    let (first, _) = commit(&store, gift("a", "c1")).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = commit(&store, gift("a", "c2")).await.unwrap_err();
    assert!(matches!(refused, Refusal::Unavailable { retry_ms: 1.., .. }), "{refused}");
    assert_eq!(totals(&store, None).await.rows, 1, "reading does not wait");
    other.execute_batch("ROLLBACK").unwrap();
    let (second, is_repeat) = commit(&store, gift("a", "c2")).await.unwrap();
    assert!(!is_repeat && second.id > first.id);
}

#[tokio::test]
async fn events_are_forgotten_in_time_and_gifts_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    let store = open(&path);
    let old: Vec<_> = (0..200).map(|at| event(EventKind::JOIN, at)).collect();
    store.answer(&node(), Ask::Keep(old)).await.unwrap();
    commit(&store, gift("a", "c1")).await.unwrap();
    store.close().await;
    let other = Connection::open(&path).unwrap();
    other.execute("UPDATE gifts SET at_ms = 1", []).unwrap();
    let store = Store::sqlite(&path, Duration::from_secs(3600), metrics()).unwrap();
    let all = Span { since_unix_ms: 0, until_unix_ms: 1 << 60, room: None };
    loop {
        let left = export(&store, all.clone(), 500).await;
        if left.iter().all(|record| record.event.kind == EventKind::GIFT) {
            assert_eq!(left.len(), 1);
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_file_that_is_none_of_ours_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let error = Store::sqlite(dir.path(), Duration::ZERO, metrics()).unwrap_err();
    assert!(error.to_string().contains("is a folder"), "{error}");
    let path = dir.path().join("text");
    std::fs::write(&path, "This is not a database, however long it may be. ".repeat(50)).unwrap();
    let error = Store::sqlite(&path, Duration::ZERO, metrics()).unwrap_err();
    assert!(error.to_string().contains("not a database"), "{error}");
    let path = dir.path().join("newer.db");
    open(&path).close().await;
    let other = Connection::open(&path).unwrap();
    other.execute("UPDATE tidewater_schema SET version = 99", []).unwrap();
    let error = Store::sqlite(&path, Duration::ZERO, metrics()).unwrap_err();
    assert!(error.to_string().contains("schema 99"), "{error}");
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    let store = open(&path);
    commit(&store, gift("a", "c0")).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // More than the queue holds while the writer waits for the lock.
    let asks = (0..6000).map(|n| commit(&store, gift("a", &format!("c{n}"))));
    let answers = futures_util::future::join_all(asks).await;
    let full = |refusal: &Refusal| refusal.to_string().contains("too much is waiting");
    let refused = answers.iter().filter(|answer| answer.as_ref().is_err_and(full)).count();
    assert!(refused > 800, "{refused}");
    other.execute_batch("ROLLBACK").unwrap();
    assert!(commit(&store, gift("a", "c0")).await.unwrap().1);
}
