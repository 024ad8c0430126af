//! Members that mean ill, or die, cost their own connection and nothing else.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use flate2::Compression;
use flate2::write::DeflateEncoder;
use serde_json::{Value, json};
use tests::member::{Closed, Member};
use tests::process::{Ready, Tidewater};
use tests::raw::{Raw, masked};
use tests::{eventually, http};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::places::lay_out;

const ANN: &str = "ann's own secret";
const BOB: &str = "bob's own secret";
const DEFLATE: &str = "Sec-WebSocket-Extensions: permessage-deflate\r\n";

async fn start() -> Result<(tempfile::TempDir, Tidewater, Ready)> {
    let data = tempfile::tempdir()?;
    let (node, ready) = Tidewater::dev(data.path(), &["--edges", "1"]).await?;
    Ok((data, node, ready))
}

/// The value of a metric with its labels.
async fn metric(ready: &Ready, name: &str) -> Result<f64> {
    let text = http::get(ready.admin, "/metrics").await?.text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.with_context(|| format!("no {name}"))?.trim().parse().context("a number")
}

fn resident(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages: u64 = text.split(' ').nth(1).context("statm has a second field")?.parse()?;
    Ok(pages * 4096)
}

fn open_files(pid: u32) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// A message, compressed as permessage-deflate has it (RFC 7692, 7.2.1).
fn deflated(payload: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(payload)?;
    encoder.flush()?;
    let mut out = encoder.get_ref().clone();
    let tail = out.len().checked_sub(4).context("a flush ends with four bytes")?;
    ensure!(out.split_off(tail) == [0, 0, 0xff, 0xff]);
    Ok(out)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_break_the_rules_are_answered_with_the_code_that_says_so() -> Result<()> {
    let (_data, node, ready) = start().await?;
    let edge = ready.http[0];
    let mut witness = Member::join(edge, "live/rules", ANN, None).await?;
    let cases = broken()?;
    for (what, bytes, code) in &cases {
        for inside in [true, false] {
            // Before the hello a second one is the first.
            if !inside && *what == "a second hello" {
                continue;
            }
            let mut raw = Raw::open(edge, DEFLATE).await?;
            if inside {
                raw.join("live/rules", "somebody who breaks rules").await?;
            }
            raw.send(bytes).await?;
            let closed = raw.closed().await.with_context(|| format!("{what}, inside {inside}"))?;
            ensure!(closed.0 == *code, "{what}, inside {inside}: {closed}");
            ensure!(closed.0 < 4000 || !closed.1.is_empty(), "{what}: no reason");
        }
    }
    whole(edge, &mut witness).await?;
    node.kill().await
}

/// Frames that break a rule, and the code they are answered with.
fn broken() -> Result<Vec<(&'static str, Vec<u8>, u16)>> {
    let bomb = deflated(&vec![b' '; 2 << 20])?;
    ensure!(bomb.len() < 4096, "the bomb fits a frame: {}", bomb.len());
    let endless = [&[0x81, 0xff][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat();
    let wide = [masked(0x01, &[b'x'; 3000]), masked(0x80, &[b'x'; 3000])].concat();
    let nested = "[".repeat(4000);
    Ok(vec![
        ("a compressed bomb", masked(0xc1, &bomb), 4002),
        ("broken compression", masked(0xc1, &[0xff; 20]), 1002),
        ("a frame of 5,000 bytes", masked(0x81, &[b'x'; 5000]), 4002),
        ("a frame that says 2^64", endless, 4002),
        ("pieces of 6,000 bytes together", wide, 4002),
        ("a ping of 126 bytes", masked(0x89, &[0; 126]), 1002),
        ("a ping in pieces", masked(0x09, b"x"), 1002),
        ("a reserved opcode", masked(0x83, b"x"), 1002),
        ("a reserved bit", masked(0xa1, b"{}"), 1002),
        ("no mask", vec![0x81, 2, b'{', b'}'], 1002),
        ("the end of nothing", masked(0x80, b"x"), 1002),
        ("text that is no UTF-8", masked(0x81, b"{\"t\":\"\xff\"}"), 1007),
        ("pieces that are no UTF-8", masked(0x01, b"\xed\xa0\x80"), 1007),
        ("a close that is no UTF-8", masked(0x88, b"\x03\xe8\xff"), 1007),
        ("a close with a code nobody may send", masked(0x88, &1006_u16.to_be_bytes()), 1002),
        ("binary where JSON was agreed upon", masked(0x82, b"{}"), 4001),
        ("no JSON", masked(0x81, b"{"), 4001),
        ("a list", masked(0x81, b"[]"), 4001),
        ("a number", masked(0x81, b"7"), 4001),
        ("nothing nested four thousand deep", masked(0x81, nested.as_bytes()), 4001),
        ("a client id of a wrong type", masked(0x81, br#"{"t":"chat","c":5,"x":"hi"}"#), 4001),
        ("a text of a wrong type", masked(0x81, br#"{"t":"chat","c":"a","x":{}}"#), 4001),
        ("likes of a wrong type", masked(0x81, br#"{"t":"like","n":"many"}"#), 4001),
        ("fewer than no likes", masked(0x81, br#"{"t":"like","n":-1}"#), 4001),
        ("a gift without a name", masked(0x81, br#"{"t":"gift","c":"a","n":1}"#), 4001),
        ("a second hello", masked(0x81, br#"{"t":"hello","v":1,"room":"live/rules"}"#), 4001),
    ])
}

/// Frames that look odd and break none: a member that reads them all is told what they say.
async fn whole(edge: SocketAddr, witness: &mut Member) -> Result<()> {
    // What is unknown is ignored; pieces, pings between them and single bytes are all allowed.
    let mut raw = Raw::open(edge, DEFLATE).await?;
    raw.join("live/rules", "somebody who keeps rules").await?;
    raw.text(r#"{"t":"dance","wild":[{}]}"#).await?;
    let said = [
        masked(0x01, br#"{"t":"chat","c":"#),
        masked(0x89, b"between"),
        masked(0x00, br#""c1","x":"in pie"#),
        masked(0x80, br#"ces","new":null}"#),
    ];
    for byte in said.concat() {
        raw.send(&[byte]).await?;
    }
    let (first, pong) = loop {
        let (first, payload) = raw.frame().await?;
        if first & 0x0f != 1 {
            break (first, payload);
        }
    };
    ensure!((first, &pong[..]) == (0x8a, &b"between"[..]), "{first:x} {pong:?}");
    raw.until(|frame| frame["t"] == "ok" && frame["c"] == "c1").await?;
    witness.item(|item| item["x"] == "in pieces").await?;
    let deflated = deflated(br#"{"t":"like","n":3}"#)?;
    raw.send(&masked(0xc1, &deflated)).await?;
    witness.counters(|counters| counters["like"] == 3).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_are_told_when_to_come_back_and_the_room_goes_on() -> Result<()> {
    let (_data, node, ready) = start().await?;
    let edge = ready.http[0];
    let mut witness = Member::join(edge, "live/flood", ANN, None).await?;
    // Messages: refused with a time, the connection stays, and the time is true.
    let mut flood = Member::join(edge, "live/flood", BOB, None).await?;
    for number in 0..30 {
        let chat = json!({"t": "chat", "c": format!("c{number}"), "x": format!("flood {number}")});
        flood.send(&chat).await?;
    }
    let (mut accepted, mut retry_ms) = (0, 0);
    for _ in 0..30 {
        let answer = loop {
            let frame = flood.frame().await?;
            if frame["c"].is_string() {
                break frame;
            }
        };
        match answer["t"].as_str() {
            Some("ok") => accepted += 1,
            _ => {
                ensure!(answer["code"] == "rate_limited", "{answer}");
                retry_ms = answer["retry_ms"].as_u64().context("when to try again")?;
            }
        }
    }
    ensure!((1..=5).contains(&accepted) && retry_ms > 0, "{accepted} {retry_ms}");
    sleep(Duration::from_millis(retry_ms + 50)).await;
    let again = flood.say("again", "after the time that was told").await?;
    ensure!(again["t"] == "ok", "{again}");
    witness.item(|item| item["x"] == "after the time that was told").await?;
    // Control frames: a hundred and twenty a minute, then the door, with a time.
    let mut pings = Raw::open(edge, "").await?;
    pings.join("live/flood", "somebody who pings").await?;
    let many = masked(0x89, b"ping").repeat(400);
    pings.send(&many).await?;
    let bye = pings.until(|frame| frame["t"] == "bye").await?;
    ensure!(bye["code"] == 4013 && bye["after_ms"].as_u64() > Some(0), "{bye}");
    ensure!(pings.closed().await?.0 == 4013);
    // A million pongs before the hello do not keep the door open.
    let mut pongs = Raw::open(edge, "").await?;
    let many = masked(0x8a, b"").repeat(10_000);
    for _ in 0..100 {
        if pongs.send(&many).await.is_err() {
            break;
        }
    }
    let closed = pongs.closed().await;
    ensure!(closed.is_err() || closed.is_ok_and(|Closed(code, _)| code >= 4001), "let go");
    let said = witness.say("c1", "still here").await?;
    ensure!(said["t"] == "ok", "{said}");
    node.kill().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_never_reads_is_closed_and_holds_no_memory() -> Result<()> {
    let (_data, node, ready) = start().await?;
    let (edge, pid) = (ready.http[0], node.pid().context("it runs")?);
    let mut sleepers = Vec::new();
    for number in 0..50 {
        // Else the kernel takes minutes of talk, and nobody notices.
        let mut sleeper = Raw::open_narrow(edge, 2048).await?;
        sleeper.join("live/loud", &format!("a sleeper, number {number:04}")).await?;
        sleepers.push(sleeper);
    }
    let before = resident(pid)?;
    let mut talkers = JoinSet::new();
    for number in 0..60 {
        talkers.spawn(async move {
            let secret = format!("a talker, number {number:04}");
            let mut talker = Member::join(edge, "live/loud", &secret, None).await?;
            for said in 0.. {
                // The longest text there is: two hundred characters of four bytes.
                let text = format!("{number:03}{said:03}{}", "\u{1f30a}".repeat(194));
                let answer = talker.say(&format!("c{said}"), &text).await?;
                let wait = answer["retry_ms"].as_u64().unwrap_or(1000);
                sleep(Duration::from_millis(wait)).await;
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    let slow = r#"tidewater_room_closed_total{reason="slow"}"#;
    eventually("all who sleep are let go", async || {
        (metric(&ready, slow).await.ok()? >= 50.0).then_some(())
    })
    .await?;
    ensure!(metric(&ready, "tidewater_room_members").await? == 60.0, "nobody else is");
    let grown = resident(pid)?.saturating_sub(before);
    ensure!(grown < 64 << 20, "fifty sleepers and sixty talkers take {grown} bytes");
    ensure!(talkers.try_join_next().is_none(), "talkers are not disturbed");
    talkers.shutdown().await;
    node.kill().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_sockets_opened_and_dropped_at_once_leave_nothing() -> Result<()> {
    const SOCKETS: usize = 5_000;
    let (_data, node, ready) = start().await?;
    let (edge, pid) = (ready.http[0], node.pid().context("it runs")?);
    let mut witness = Member::join(edge, "live/burst", ANN, None).await?;
    let before = open_files(pid)?;
    let at_once = std::sync::Arc::new(Semaphore::new(500));
    let mut sockets = JoinSet::new();
    for number in 0..SOCKETS {
        let at_once = std::sync::Arc::clone(&at_once);
        sockets.spawn(async move {
            let permit = at_once.acquire().await?;
            let socket = from(number, edge).await?;
            drop(permit);
            // A third say nothing, a third upgrade, a third come in.
            if number % 3 == 0 {
                return Ok((None, Some(socket)));
            }
            let mut raw = Raw::upgrade(socket, edge, "").await?;
            if number % 3 == 2 {
                raw.join("live/burst", &format!("one of many, {number:05}")).await?;
            }
            Ok::<_, anyhow::Error>((Some(raw), None))
        });
    }
    let mut open = Vec::new();
    while let Some(socket) = sockets.join_next().await {
        open.push(socket??);
    }
    let inside = (0..SOCKETS).filter(|number| number % 3 == 2).count();
    let members = "tidewater_room_members";
    ensure!(metric(&ready, members).await? == (inside + 1) as f64, "all came in");
    ensure!(open_files(pid)? >= before + inside);
    drop(open);
    eventually("all are forgotten", async || {
        let left = metric(&ready, members).await.ok()?;
        let files = open_files(pid).ok()?;
        (left == 1.0 && files <= before + 8).then_some(())
    })
    .await?;
    let said = witness.say("c1", "still here").await?;
    ensure!(said["t"] == "ok", "{said}");
    node.kill().await
}

/// A connection from an address that few others have: a crowd's.
async fn from(number: usize, to: SocketAddr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let source = Ipv4Addr::new(127, 3, (number / 250) as u8, (number % 250) as u8 + 1);
    socket.bind((source, 0).into())?;
    let mut stream = socket.connect(to).await?;
    stream.flush().await?;
    Ok(stream)
}

/// Follows a room as a client does: what is covered already is dropped (docs/rooms.md).
struct Follower {
    member: Member,
    secret: &'static str,
    seen: Vec<(u64, String)>,
}

impl Follower {
    async fn join(edge: SocketAddr, secret: &'static str) -> Result<Self> {
        let member = Member::join(edge, "live/edges", secret, None).await?;
        Ok(Self { member, secret, seen: Vec::new() })
    }

    /// Reads until a text is there.
    async fn until(&mut self, text: &str) -> Result<()> {
        while !self.seen.iter().any(|(_, seen)| seen == text) {
            if let Err(error) = self.member.frame().await {
                self.take();
                return Err(error);
            }
            self.take();
        }
        Ok(())
    }

    fn take(&mut self) {
        for item in self.member.take_items() {
            let (Some(offset), Some(text)) = (item["o"].as_u64(), item["x"].as_str()) else {
                continue;
            };
            let is_new = self.seen.last().is_none_or(|(last, _)| *last < offset);
            if is_new {
                self.seen.push((offset, text.to_owned()));
            }
        }
    }

    /// Comes back where it was, on another edge.
    async fn resume(&mut self, edge: SocketAddr) -> Result<()> {
        let from = self.member.position.clone();
        self.member = Member::join(edge, "live/edges", self.secret, Some(&from)).await?;
        ensure!(self.member.welcome["recovered"] == true, "{}", self.member.welcome);
        self.take();
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_talks_while_its_edge_is_killed_goes_on_at_another_without_gap_or_repetition()
-> Result<()> {
    let dir = tempfile::tempdir()?;
    let [o1, e1, e2] = &lay_out(dir.path(), ["o1", "e1", "e2"]).await?;
    let home = o1.start().await?;
    let (one, two) = tokio::try_join!(e1.start(), e2.start())?;
    let (first, second) = (e1.at(8080), e2.at(8080));
    let mut ann = Follower::join(first, ANN).await?;
    let mut bob = Follower::join(first, BOB).await?;
    let mut eve = Follower::join(second, "eve's own secret").await?;
    // Talk that does not stop: eight members of the edge that lives.
    let mut talk = JoinSet::new();
    for number in 0..8 {
        talk.spawn(async move {
            let secret = format!("a talker, number {number:04}");
            let mut talker = Member::join(second, "live/edges", &secret, None).await?;
            for said in 0.. {
                let text = format!("talker {number} says {said}");
                let answer = talker.say(&format!("c{said}"), &text).await?;
                let wait = answer["retry_ms"].as_u64().unwrap_or(1000);
                sleep(Duration::from_millis(wait)).await;
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    for follower in [&mut ann, &mut bob, &mut eve] {
        follower.until("talker 3 says 1").await?;
    }
    // Bob says something, and its edge dies before it has answered.
    let last = json!({"t": "chat", "c": "last", "x": "said while dying"});
    bob.member.send(&last).await?;
    one.kill().await?;
    for follower in [&mut ann, &mut bob] {
        ensure!(follower.until("never said").await.is_err(), "the edge is dead");
        follower.resume(second).await?;
    }
    // Bob does not know what became of it, and says it again: once it is.
    let mut answer = Value::Null;
    while answer["t"] != "ok" {
        answer = bob.member.ask(&last).await?;
        let wait = answer["retry_ms"].as_u64().unwrap_or_default();
        sleep(Duration::from_millis(wait)).await;
    }
    ann.member.say("end", "the end").await?;
    for follower in [&mut ann, &mut bob, &mut eve] {
        follower.until("the end").await?;
    }
    talk.shutdown().await;
    for follower in [&ann, &bob, &eve] {
        let offsets: Vec<u64> = follower.seen.iter().map(|(offset, _)| *offset).collect();
        ensure!(offsets.windows(2).all(|two| two[0] + 1 == two[1]), "{offsets:?}");
        let again = follower.seen.iter().filter(|(_, text)| text == "said while dying").count();
        ensure!(again == 1, "said while dying: {again} times");
    }
    let begins = [&ann, &bob, &eve].map(|follower| follower.seen[0].0);
    let begin = begins.into_iter().max().context("three followers")?;
    let from = |follower: &Follower| {
        let all = follower.seen.iter().filter(|(offset, _)| *offset >= begin);
        all.take_while(|(_, text)| text != "the end").cloned().collect::<Vec<_>>()
    };
    ensure!(from(&ann) == from(&eve) && from(&bob) == from(&eve), "one order for all");
    two.kill().await?;
    home.kill().await
}
