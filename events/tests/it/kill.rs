//! kill -9 in the middle of gifts: what was acknowledged is found, once.
//!
//! A child process, which is this test binary again, commits gifts from many tasks and prints each one
//! that was answered. The parent kills it, starts the next on the same file, and hands it the gifts
//! that were sent and not answered: they are sent again, as a client would.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use events::Store;
use wire::events::Span;

use crate::contract::{commit, export, gift, metrics, totals};

const FILE: &str = "TIDEWATER_TEST_LEDGER";
const FIRST: &str = "TIDEWATER_TEST_FIRST";
const KILLS: usize = 12;
const TASKS: u64 = 16;

/// The child: sends gift numbers from `FIRST` on until it is killed.
#[test]
#[ignore = "run by the test below"]
fn child() {
    let Ok(path) = std::env::var(FILE) else { return };
    let first: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::sqlite(path.as_ref(), Duration::ZERO, metrics()).unwrap();
        let tasks = (0..TASKS).map(async |task| {
            for number in (first + task..).step_by(TASKS as usize) {
                say(&format!("sent {number}"));
                let (row, _) = commit(&store, gift("k", &number.to_string())).await.unwrap();
                say(&format!("got {number} {}", row.id));
            }
        });
        futures_util::future::join_all(tasks).await;
    });
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
}

#[test]
fn acknowledged_gifts_are_found_once_after_every_kill() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events.db");
    let (mut sent, mut acknowledged) = (BTreeSet::new(), BTreeSet::new());
    for kill in 0..KILLS {
        // The lowest number without an answer: everything from there on is sent again or anew.
        let first = sent.difference(&acknowledged).next().copied().unwrap_or(sent.len() as u64);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kill::child", "--ignored", "--nocapture"])
            .env(FILE, &path)
            .env(FIRST, first.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufReader::new(child.stdout.take().unwrap());
        let wanted = 20 + 13 * kill;
        let mut answers = 0;
        for line in std::io::BufRead::lines(lines) {
            let line = line.unwrap();
            let mut words = line.split(' ').rev().peekable();
            let number = |word: Option<&str>| word.and_then(|word| word.parse::<u64>().ok());
            match line.split(' ').find(|word| ["sent", "got"].iter().any(|w| word.ends_with(w))) {
                Some(word) if word.ends_with("sent") => sent.extend(number(words.next())),
                Some(_) => {
                    words.next();
                    acknowledged.extend(number(words.next()));
                    answers += 1;
                }
                None => continue,
            }
            if answers == wanted {
                child.kill().unwrap();
            }
        }
        assert!(!child.wait().unwrap().success(), "the child was killed");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::sqlite(&path, Duration::ZERO, metrics()).unwrap();
        for number in sent.difference(&acknowledged) {
            commit(&store, gift("k", &number.to_string())).await.unwrap();
        }
        let span = Span { since_unix_ms: 0, until_unix_ms: 1 << 60, room: None };
        let found = export(&store, span, 500).await;
        let sums = totals(&store, None).await;
        println!(
            "sent {} acknowledged {} found {} duplicates {}",
            sent.len(),
            acknowledged.len(),
            found.len(),
            sums.duplicates
        );
        assert!(acknowledged.len() > KILLS * 20);
        assert_eq!((found.len(), sums.duplicates), (sent.len(), 0));
        for number in &sent {
            let client_id = format!(r#""client_id":"{number}""#);
            let rows = found.iter().filter(|row| row.event.detail.as_str().contains(&client_id));
            assert_eq!(rows.count(), 1, "gift {number}");
        }
    });
}
