//! Rooms: what is said through one edge is read through all, in one order, once, and not lost.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tests::member::{Closed, Member};
use tests::process::Tidewater;
use tests::{eventually, http, tool};
use tokio_websockets::Message;

use crate::places::lay_out;

const ANN: &str = "ann's own secret";
const BOB: &str = "bob's own secret";

fn is_text(text: &str) -> impl Fn(&Value) -> bool {
    move |item| item["t"] == "chat" && item["x"] == text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_two_edges_read_each_other_and_resume_on_either() -> Result<()> {
    let data = tempfile::tempdir()?;
    let (node, ready) = Tidewater::dev(data.path(), &["--edges", "2"]).await?;
    let (one, two) = (ready.http[0], ready.http[1]);

    // Nobody streams: the room opens for those who come.
    let mut ann = Member::join(one, "live/talk", ANN, None).await?;
    let mut bob = Member::join(two, "live/talk", BOB, None).await?;
    ensure!(ann.welcome["state"]["live"] == false, "{}", ann.welcome);
    let said = ann.say("c1", "hello <b>there</b>").await?;
    ensure!(said["t"] == "ok" && said["f"] == "full", "{said}");
    let read = bob.item(is_text("hello <b>there</b>")).await?;
    ensure!(read["id"] == said["id"] && read["o"] == said["o"], "{read} {said}");
    ensure!(read["u"]["n"] == "Mei" && read["u"]["r"] == "guest", "{read}");
    ensure!(read["u"]["id"] == ann.welcome["uid"], "{read}");

    // The same client id is the same message; another so soon is too many; the same text is refused.
    let again = ann.say("c1", "hello <b>there</b>").await?;
    ensure!(again["id"] == said["id"], "{again}");
    let many = ann.say("c2", "and more").await?;
    ensure!(many["code"] == "rate_limited" && many["retry_ms"].as_u64() <= Some(1000), "{many}");
    let long = ann.say("c3", &"x".repeat(201)).await?;
    ensure!(long["code"] == "too_long", "{long}");

    // Likes add up over edges, members are counted once.
    ann.send(&json!({"t": "like", "n": 17})).await?;
    bob.send(&json!({"t": "like", "n": 70})).await?;
    let counted = bob.counters(|s| s["like"] == 67 && s["on"] == 2).await?;
    ensure!(counted["v"].as_u64() > Some(0), "{counted}");

    // Bob goes away, misses something, and resumes on the other edge.
    let left_at = bob.position.clone();
    drop(bob);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let missed = ann.say("c4", "while you were away").await?;
    let mut bob = Member::join(one, "live/talk", BOB, Some(&left_at)).await?;
    ensure!(bob.welcome["recovered"] == true && bob.welcome["state"].is_null(), "{}", bob.welcome);
    let read = bob.item(is_text("while you were away")).await?;
    ensure!(read["id"] == missed["id"], "{read}");
    let old = json!({"e": left_at["e"], "o": 1_000_000});
    let lost = Member::join(two, "live/talk", BOB, Some(&old)).await?;
    ensure!(lost.welcome["recovered"] == false, "{}", lost.welcome);
    ensure!(lost.welcome["state"]["chat"].as_array().map(Vec::len) == Some(2), "{}", lost.welcome);

    let metrics = http::get(ready.admin, "/metrics").await?.text();
    ensure!(metrics.contains("tidewater_room_placed_items_total{lane=\"chat\"} 2"), "{metrics}");
    // A node that leaves says so, with a delay of one's own.
    let stopping = tokio::spawn(node.terminate());
    let bye = loop {
        let frame = ann.frame().await?;
        if frame["t"] == "bye" {
            break frame;
        }
    };
    ensure!(bye["code"] == 4012 && bye["after_ms"].as_u64() < Some(10_000), "{bye}");
    ensure!(ann.closed().await?.0 == 4012);
    ensure!(stopping.await?? == Some(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_a_member_is_told_why_and_costs_nobody_else() -> Result<()> {
    let data = tempfile::tempdir()?;
    let (node, ready) = Tidewater::dev(data.path(), &["--edges", "1"]).await?;
    let edge = ready.http[0];
    let mut witness = Member::join(edge, "live/door", ANN, None).await?;
    let token = json!({"t": "hello", "v": 1, "room": "live/door", "token": "x.y.z"});
    for (frame, code) in [
        ("[]".to_owned(), 4001),
        (json!({"t": "chat", "c": "a", "x": "before hello"}).to_string(), 4001),
        (json!({"t": "hello", "v": 2, "room": "live/door"}).to_string(), 4001),
        (json!({"t": "hello", "v": 1, "room": "no room"}).to_string(), 4001),
        (json!({"t": "hello", "v": 1, "room": 7}).to_string(), 4001),
        (token.to_string(), 4003),
        (format!("{{\"t\":\"hello\",\"x\":\"{}\"}}", "x".repeat(5000)), 4002),
    ] {
        let mut socket = Member::open(edge).await?;
        socket.send(Message::text(frame.clone())).await?;
        let closed = loop {
            let message = socket.next().await.context("closed without a word")??;
            if let Some((code, reason)) = message.as_close() {
                break Closed(code.into(), reason.to_owned());
            }
        };
        ensure!(closed.0 == code, "{frame}: {closed}");
        ensure!(!closed.1.is_empty(), "{frame}: no reason");
    }
    // Six connections of one user are one too many; a wrong type costs the connection.
    let mut five = Vec::new();
    for _ in 0..5 {
        five.push(Member::join(edge, "live/door", BOB, None).await?);
    }
    let mut socket = Member::open(edge).await?;
    let sixth = json!({"t": "hello", "v": 1, "room": "live/door", "guest": BOB});
    socket.send(Message::text(sixth.to_string())).await?;
    let refused = socket.next().await.context("closed")??;
    ensure!(refused.as_close().is_some_and(|(code, _)| u16::from(code) == 4010), "{refused:?}");
    let mut fifth = five.pop().context("joined")?;
    fifth.send(&json!({"t": "dance", "unknown": true})).await?;
    fifth.send(&json!({"t": "chat", "c": 5, "x": "hi"})).await?;
    ensure!(fifth.closed().await?.0 == 4001);
    // Too many frames.
    let mut flood = Member::join(edge, "live/door", "a flood of frames", None).await?;
    for _ in 0..130 {
        flood.send(&json!({"t": "pong"})).await?;
    }
    ensure!(flood.closed().await?.0 == 4013);
    let said = witness.say("c1", "still here").await?;
    ensure!(said["t"] == "ok", "{said}");
    node.kill().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_without_websocket_is_read_and_written_too() -> Result<()> {
    let data = tempfile::tempdir()?;
    let (node, ready) = Tidewater::dev(data.path(), &["--edges", "1"]).await?;
    let edge = ready.http[0];
    let mut ann = Member::join(edge, "live/sse", ANN, None).await?;
    let mut events = tests::events::Events::open(edge, "/sse/live/sse").await?;
    let (id, welcome) = events.next().await?;
    ensure!(welcome["t"] == "welcome" && id.contains('-'), "{welcome}");
    ann.say("c1", "by socket").await?;
    let post = json!({"t": "chat", "c": "p1", "x": "by post", "guest": BOB, "name": "Bob"});
    let (status, answer) = tests::events::post(edge, "/sse/live/sse", &post).await?;
    ensure!(status == 200 && answer["t"] == "ok", "{status} {answer}");
    ann.item(is_text("by post")).await?;
    let (mut seen, mut last) = (Vec::new(), id.clone());
    while seen.len() < 2 {
        let (id, batch) = events.next().await?;
        last = id;
        seen.extend(batch["m"].as_array().cloned().unwrap_or_default());
        seen.retain(|item| item["t"] == "chat");
    }
    let resumed = tests::events::Events::open(edge, &format!("/sse/live/sse?pos={id}")).await?;
    let (_, welcome) = { resumed }.next().await?;
    ensure!(welcome["recovered"] == true && last != id, "{welcome}");
    ensure!(welcome["m"].as_array().is_some_and(|m| m.len() >= 2), "{welcome}");
    let (status, error) =
        tests::events::post(edge, "/sse/live/sse", &json!({"t": "hello"})).await?;
    ensure!(status == 400 && error["detail"].is_string(), "{status} {error}");
    node.kill().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_past_survives_the_home() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let places = lay_out(dir.path(), ["o1", "o2", "o3", "e1"]).await?;
    let [o1, o2, o3, e1] = &places;
    let (one, two, three) = tokio::try_join!(o1.start(), o2.start(), o3.start())?;
    let edge = e1.start().await?;
    let at = e1.at(8080);
    let mut ann = Member::join(at, "live/moves", ANN, None).await?;
    let mut bob = Member::join(at, "live/moves", BOB, None).await?;
    let first = ann.say("c1", "before").await?;
    bob.item(is_text("before")).await?;
    ann.send(&json!({"t": "like", "n": 5})).await?;
    bob.counters(|s| s["like"] == 5).await?;
    let before = bob.position.clone();

    let listed = [o1, o2, o3];
    let home = eventually("the room has a home", async || {
        for place in listed {
            let admin = format!("admin.listen={}", place.at(8081));
            let args = ["room", "show", "live/moves", "--json", "--set", &admin];
            let (_, out, _) = Tidewater::command(&args).await.ok()?;
            if let Ok(told) = serde_json::from_str::<Value>(&out) {
                return Some(told["home"].as_str()?.to_owned());
            }
        }
        None
    })
    .await?;
    let mut nodes = [("o1", Some(one)), ("o2", Some(two)), ("o3", Some(three))];
    for (name, node) in &mut nodes {
        if *name == home {
            node.take().context("running")?.kill().await?;
        }
    }
    // What is said meanwhile is answered: now, or try again.
    let mut second = Value::Null;
    for attempt in 0.. {
        second = ann.say(&format!("d{attempt}"), &format!("after {attempt}")).await?;
        if second["t"] == "ok" {
            break;
        }
        ensure!(second["retry_ms"].is_u64(), "{second}");
        let wait = second["retry_ms"].as_u64().unwrap_or_default().max(50);
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
    ensure!(second["o"].as_u64() > first["o"].as_u64(), "{first} {second}");
    bob.item(|item| item["id"] == second["id"]).await?;
    ensure!(bob.position["e"] != before["e"], "the batch names the new epoch: {}", bob.position);
    let resumed = Member::join(at, "live/moves", BOB, Some(&before)).await?;
    ensure!(resumed.welcome["recovered"] == true, "{}", resumed.welcome);
    ensure!(resumed.welcome["s"]["like"] == 5, "{}", resumed.welcome);
    edge.kill().await?;
    for (_, node) in nodes {
        if let Some(node) = node {
            node.kill().await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moderators_reach_every_member() -> Result<()> {
    let data = tempfile::tempdir()?;
    let (node, ready) = Tidewater::dev(data.path(), &["--edges", "2"]).await?;
    let mut ann = Member::join(ready.http[0], "live/mods", ANN, None).await?;
    let mut bob = Member::join(ready.http[1], "live/mods", BOB, None).await?;
    let path = "/api/v1/rooms/live/mods";
    let act = |act: Value| async move {
        tests::events::post(ready.admin, &format!("{path}/moderation"), &act).await
    };
    let said = ann.say("c1", "take this back").await?;
    bob.item(is_text("take this back")).await?;
    let (status, answer) = act(json!({"action": "delete", "ids": [said["id"]]})).await?;
    ensure!(status == 204, "{status} {answer}");
    bob.item(|item| item["t"] == "del" && item["ids"][0] == said["id"]).await?;
    act(json!({"action": "pin", "text": "be kind"})).await?;
    bob.item(|item| item["t"] == "set" && item["k"] == "pin" && item["v"] == "be kind").await?;
    let uid = ann.welcome["uid"].clone();
    act(json!({"action": "mute", "user": uid, "seconds": 60})).await?;
    let mut muted = ann.say("c2", "am I muted?").await?;
    while muted["code"] == "rate_limited" {
        let wait = muted["retry_ms"].as_u64().unwrap_or_default();
        tokio::time::sleep(Duration::from_millis(wait)).await;
        muted = ann.say("c2", "am I muted?").await?;
    }
    ensure!(muted["code"] == "muted" && muted["retry_ms"].as_u64() <= Some(60_000), "{muted}");
    act(json!({"action": "ban", "user": uid})).await?;
    ensure!(ann.closed().await?.0 == 4005);
    let (status, answer) = act(json!({"action": "ban"})).await?;
    ensure!(status == 400 && answer["detail"].is_string(), "{status} {answer}");
    node.kill().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_browsers_talk() -> Result<()> {
    let data = tempfile::tempdir()?;
    let (node, ready) = Tidewater::dev(data.path(), &["--edges", "1"]).await?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../web/e2e/room.mjs");
    let url = format!("http://{}/watch/live/pages", ready.http[0]);
    tool::run("node", &[script, &url], Duration::from_secs(120)).await?;
    node.kill().await
}
