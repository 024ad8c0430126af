//! Members by name: what their tokens let them do, what moderators may, and where they go when an edge
//! empties.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use cluster::access::{Capability, Claims, Role, sign};
use http::header::{AUTHORIZATION, ORIGIN};
use serde_json::{Value, json};
use tests::events::Events;
use tests::member::{Closed, Member};
use tests::process::{Ready, Tidewater};
use tests::{events, eventually, http as web};
use wire::RoomId;

use crate::places::{Place, lay_out};

const SECRET: &str = "a secret of thirty-two bytes, here";
const ROOM: &str = "live/c";

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A token as an application makes it.
struct Token(Claims);

impl Token {
    fn new(role: Role, user: &str) -> Self {
        let room = RoomId::parse(ROOM).expect("a name");
        let mut claims = Claims::of_signed_url(&room, Capability::Watch, now_s() + 600);
        (claims.role, claims.capabilities) = (role, None);
        claims.user = Some(user.to_owned()).filter(|user| !user.is_empty());
        Self(claims)
    }

    fn with(mut self, change: impl FnOnce(&mut Claims)) -> Self {
        change(&mut self.0);
        self
    }

    fn signed(&self) -> String {
        sign(&self.0, None, SECRET.as_bytes()).expect("the secret is long enough")
    }
}

async fn closed(more: &[&str]) -> Result<(tempfile::TempDir, Tidewater, Ready)> {
    let data = tempfile::tempdir()?;
    let secret = format!("auth.token_secret={SECRET}");
    let mut args = vec!["--set", "auth.allow_guests=false", "--set", &secret];
    args.extend(more);
    let (node, ready) = Tidewater::dev(data.path(), &args).await?;
    Ok((data, node, ready))
}

/// Asks the same until the answer is so, as often as the server lets it.
async fn until(
    member: &mut Member,
    frame: &Value,
    is_so: impl Fn(&Value) -> bool,
) -> Result<Value> {
    for _ in 0..20 {
        let answer = member.ask(frame).await?;
        if is_so(&answer) {
            return Ok(answer);
        }
        let wait = answer["retry_ms"].as_u64().unwrap_or(100);
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }
    anyhow::bail!("{frame} is never answered so")
}

async fn refused(edge: SocketAddr, hello: &Value) -> Result<Closed> {
    let come = Member::greet(Member::open(edge).await?, hello).await;
    come.err().context("it came in")?.downcast::<Closed>()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_says_who_comes_in_and_until_when() -> Result<()> {
    let (_data, node, ready) = closed(&[]).await?;
    let edge = ready.http[0];
    let good = Token::new(Role::Member, "u7").with(|c| c.name = Some("Mei".into())).signed();
    let (body, signature) = good.rsplit_once('.').context("a token")?;
    let forged = format!("{body}.{}", signature.chars().rev().collect::<String>());
    let expired = Token::new(Role::Member, "u7").with(|c| c.expires_s = now_s() - 60).signed();
    let other = RoomId::parse("live/d")?;
    let elsewhere = Token::new(Role::Host, "u7").with(|c| {
        c.scope = cluster::access::Scope::Room(other);
    });
    let push = Token::new(Role::Publisher, "u7").signed();
    let as_guest = Token::new(Role::Member, "~0123456789abcdef").signed();
    let mut secrets = Vec::new();
    for (token, why) in [
        (None, "a token is needed"),
        (Some("x.y.z".to_owned()), "cannot be read"),
        (Some(forged), "not signed by a key"),
        (Some(expired), "has expired"),
        (Some(elsewhere.signed()), "another room"),
        (Some(push), "does not allow to watch"),
        (Some(as_guest), "sub must"),
    ] {
        let hello = json!({"t": "hello", "v": 1, "room": ROOM, "token": token});
        let Closed(code, reason) = refused(edge, &hello).await?;
        ensure!(code == 4003 && reason.contains(why), "{why}: {code} {reason}");
        secrets.extend(token);
    }

    // The room opens for whom a token names it. The token may come in a header.
    let hello = json!({"t": "hello", "v": 1, "room": ROOM});
    let bearer = format!("Bearer {good}");
    let socket = Member::open_with(edge, &[(AUTHORIZATION, &bearer)]).await?;
    let mut mei = Member::greet(socket, &hello).await?;
    ensure!(mei.welcome["uid"] == "u7", "{}", mei.welcome);
    ensure!(mei.welcome["may"] == json!(["chat", "gift"]), "{}", mei.welcome);
    ensure!(mei.welcome["until"].as_u64() > Some(now_s() * 1000), "{}", mei.welcome);
    let said = mei.say("c1", "hello").await?;
    ensure!(said["t"] == "ok", "{said}");
    let item = mei.item(|item| item["t"] == "chat").await?;
    ensure!(item["u"] == json!({"id": "u7", "n": "Mei", "r": "member"}), "{item}");

    // A watcher reads, and says nothing; its likes count nothing.
    let watcher = Token::new(Role::Guest, "u8").signed();
    let mut watcher = Member::with_token(edge, ROOM, &watcher).await?;
    ensure!(watcher.welcome["may"].is_null(), "{}", watcher.welcome);
    ensure!(watcher.welcome["state"]["chat"][0]["id"] == said["id"], "{}", watcher.welcome);
    let refused = watcher.say("c1", "me too").await?;
    ensure!(refused["code"] == "unauthorised", "{refused}");
    let gift = watcher.ask(&json!({"t": "gift", "c": "g1", "g": "rose", "n": 1})).await?;
    ensure!(gift["code"] == "unauthorised", "{gift}");
    watcher.send(&json!({"t": "like", "n": 9})).await?;
    mei.send(&json!({"t": "like", "n": 5})).await?;
    let counted = watcher.counters(|s| s["like"].as_u64() > Some(0) && s["on"] == 2).await?;
    ensure!(counted["like"] == 5, "{counted}");
    let is_both = |who: &Value| who["u"].as_array().map(Vec::len) == Some(2);
    let who = until(&mut mei, &json!({"t": "who", "c": "w"}), is_both).await?;
    ensure!(who["t"] == "who" && who["on"] == 2, "{who}");

    secrets.extend([good, SECRET.to_owned()]);
    let log = node.log();
    for secret in secrets {
        ensure!(!log.has(&[&secret]), "a secret is logged");
    }
    node.kill().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_ends_closes_the_connection_unless_a_newer_one_came() -> Result<()> {
    let (_data, node, ready) = closed(&[]).await?;
    let edge = ready.http[0];
    let soon = |user: &str| Token::new(Role::Member, user).with(|c| c.expires_s = now_s() - 27);
    let ends = Member::with_token(edge, ROOM, &soon("u9").signed()).await?;
    let mut stays = Member::with_token(edge, ROOM, &soon("u10").signed()).await?;
    let other = Token::new(Role::Mod, "u9").signed();
    let not_theirs = stays.ask(&json!({"t": "token", "c": "t1", "token": other})).await?;
    ensure!(not_theirs["code"] == "unauthorised", "{not_theirs}");
    let newer = Token::new(Role::Member, "u10").signed();
    let renewed = stays.ask(&json!({"t": "token", "c": "t2", "token": newer})).await?;
    ensure!(renewed == json!({"t": "ok", "c": "t2"}), "{renewed}");
    let Closed(code, reason) = ends.closed().await?;
    ensure!(code == 4003 && reason.contains("expired"), "{code} {reason}");
    let after = stays.say("c1", "still here").await?;
    ensure!(after["t"] == "ok", "{after}");

    // Without a WebSocket: the same tokens.
    let no_token = web::get(edge, "/sse/live/c").await?;
    ensure!(no_token.status == 401, "{no_token:?}");
    let mut stream = Events::open(edge, &format!("/sse/live/c?token={newer}")).await?;
    let (_, welcome) = stream.next().await?;
    ensure!(welcome["uid"] == "u10", "{welcome}");
    let short = Token::new(Role::Guest, "u11").with(|c| c.expires_s = now_s() - 28).signed();
    let mut short = Events::open(edge, &format!("/sse/live/c?token={short}")).await?;
    let bye = loop {
        let (_, frame) = short.next().await?;
        if frame["t"] == "bye" {
            break frame;
        }
    };
    ensure!(bye["code"] == 4003, "{bye}");
    let post = json!({"t": "chat", "c": "p1", "x": "by post", "token": newer});
    let (status, answer) = events::post(edge, "/sse/live/c", &post).await?;
    ensure!(status == 200 || answer["code"] == "rate_limited", "{status} {answer}");

    ensure!(!node.log().has(&[&newer]), "a token is logged");
    node.kill().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_moderator_keeps_order_over_the_socket_and_nobody_else_does() -> Result<()> {
    let (_data, node, ready) = closed(&["--edges", "2"]).await?;
    let (one, two) = (ready.http[0], ready.http[1]);
    let mut host = Member::with_token(one, ROOM, &Token::new(Role::Mod, "m1").signed()).await?;
    ensure!(host.welcome["may"] == json!(["chat", "gift", "moderate"]), "{}", host.welcome);
    let troll_token = Token::new(Role::Member, "troll").signed();
    let mut troll = Member::with_token(two, ROOM, &troll_token).await?;
    let mut reader = Member::with_token(two, ROOM, &Token::new(Role::Guest, "u8").signed()).await?;

    let said = troll.say("c1", "take this back").await?;
    ensure!(said["t"] == "ok", "{said}");
    let delete = json!({"t": "mod", "c": "m1", "a": "delete", "ids": [said["id"]]});
    let denied = troll.ask(&delete).await?;
    ensure!(denied["code"] == "unauthorised", "{denied}");
    let done = host.ask(&delete).await?;
    ensure!(done == json!({"t": "ok", "c": "m1"}), "{done}");
    reader.item(|item| item["t"] == "del" && item["ids"][0] == said["id"]).await?;
    let pin = json!({"t": "mod", "c": "m2", "a": "pin", "v": "be kind"});
    ensure!(host.ask(&pin).await?["t"] == "ok");
    reader.item(|item| item["t"] == "set" && item["v"] == "be kind").await?;
    let wrong = host.ask(&json!({"t": "mod", "c": "m3", "a": "mute"})).await?;
    ensure!(wrong["code"] == "bad_request", "{wrong}");
    let mute = json!({"t": "mod", "c": "m4", "a": "mute", "uid": "troll", "s": 60});
    ensure!(host.ask(&mute).await?["t"] == "ok");
    let say = json!({"t": "chat", "c": "c2", "x": "am I muted?"});
    let muted = until(&mut troll, &say, |answer| answer["code"] != "rate_limited").await?;
    ensure!(muted["code"] == "muted", "{muted}");
    ensure!(muted["retry_ms"].as_u64() <= Some(60_000), "{muted}");
    let ban = json!({"t": "mod", "c": "m5", "a": "ban", "uid": "troll"});
    ensure!(host.ask(&ban).await?["t"] == "ok");
    ensure!(troll.closed().await?.0 == 4005);
    let hello = json!({"t": "hello", "v": 1, "room": ROOM, "token": troll_token});
    ensure!(refused(two, &hello).await?.0 == 4005, "a ban lasts");
    let export = ["events", "export", "--since", "1h", "--room", ROOM, "--set"];
    let admin = format!("admin.listen={}", ready.admin);
    eventually("who did what is in the books", async || {
        let (_, out, _) = Tidewater::command(&[&export[..], &[&admin]].concat()).await.ok()?;
        let lines = out.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let by: Vec<Value> = lines.filter(|line| line["type"] == "moderation").collect();
        (by.len() == 4 && by.iter().all(|line| line["user"] == "m1")).then_some(())
    })
    .await?;
    node.kill().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_other_sites_stay_outside_and_a_newer_connection_takes_over() -> Result<()> {
    let data = tempfile::tempdir()?;
    let args = ["--set", "http.origins=https://app.example.org"];
    let (node, ready) = Tidewater::dev(data.path(), &args).await?;
    let edge = ready.http[0];
    let known = [(ORIGIN, "https://app.example.org")];
    ensure!(Member::open_with(edge, &known).await.is_ok());
    ensure!(Member::open_with(edge, &[(ORIGIN, "https://evil.example")]).await.is_err());
    let foreign = web::request(edge, "GET", "/sse/live/c", &[("origin", "https://evil.example")]);
    ensure!(foreign.await?.status == 403);

    let secret = "ann's own secret";
    let mut five = Vec::new();
    for _ in 0..5 {
        five.push(Member::join(edge, ROOM, secret, None).await?);
    }
    let first = five.swap_remove(0);
    let hello = json!({"t": "hello", "v": 1, "room": ROOM, "guest": secret});
    ensure!(refused(edge, &hello).await?.0 == 4010, "a sixth is one too many");
    let mut instead = hello.clone();
    instead["sid"] = first.welcome["sid"].clone();
    let mut sixth = Member::greet(Member::open(edge).await?, &instead).await?;
    ensure!(first.closed().await?.0 == 4014, "unless it takes the place of another");
    ensure!(sixth.say("c1", "here I am").await?["t"] == "ok");
    node.kill().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_application_may_ask_any_node_and_is_heard_once() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let places = lay_out(dir.path(), ["o1", "o2", "o3", "e1"]).await?;
    let [o1, o2, o3, e1] = &places;
    let (one, two, three) = tokio::try_join!(o1.start(), o2.start(), o3.start())?;
    let edge = e1.start().await?;
    let base = "/api/v1/rooms/live/asked";

    // The first message opens the room, although the node asked is no origin.
    let shop = json!({"id": "shop", "n": "Shop", "r": "host"});
    let chat = json!({"t": "chat", "c": "s1", "u": shop, "x": "open for business"});
    let gift = json!({"t": "gift", "c": "s2", "u": shop, "g": "car", "order": "A-1"});
    let first = eventually("the cluster takes a message", async || {
        let first = web::post(e1.at(8081), &format!("{base}/messages"), &chat).await.ok()?;
        (first.status == 200).then_some(first)
    })
    .await?;
    let given = web::post(e1.at(8081), &format!("{base}/messages"), &gift).await?;
    ensure!(given.status == 200, "{}", given.text());
    let mut ann = Member::join(e1.at(8080), "live/asked", "ann's own secret", None).await?;
    ensure!(ann.welcome["state"]["paid"][0]["g"] == "car", "{}", ann.welcome);
    for (at, place) in places.iter().enumerate() {
        let again = web::post(place.at(8081), &format!("{base}/messages"), &chat).await?;
        ensure!(again.body == first.body, "{}: {}", place.id, again.text());
        let again = web::post(place.at(8081), &format!("{base}/messages"), &gift).await?;
        ensure!(again.body == given.body, "{}: {}", place.id, again.text());
        let text = format!("pinned by {at}");
        let pin = json!({"action": "pin", "text": text});
        let pinned = web::post(place.at(8081), &format!("{base}/moderation"), &pin).await?;
        ensure!(pinned.status == 204, "{}: {}", place.id, pinned.text());
        ann.item(|item| item["t"] == "set" && item["v"] == text).await?;
        let told = web::get(place.at(8081), &format!("{base}/interaction")).await?;
        ensure!(told.status == 200, "{}: {}", place.id, told.text());
        let wrong = json!({"action": "delete", "ids": []});
        let wrong = web::post(place.at(8081), &format!("{base}/moderation"), &wrong).await?;
        ensure!(wrong.status == 400 && wrong.text().contains("ids"), "{}", wrong.text());
        let nobody = web::get(place.at(8081), "/api/v1/rooms/live/none/interaction").await?;
        ensure!(nobody.status == 404, "{}: {}", place.id, nobody.text());
    }
    eventually("every node names who is here", async || {
        let told = web::get(o2.at(8081), &format!("{base}/members")).await.ok()?;
        let told: Value = serde_json::from_slice(&told.body).ok()?;
        (told["members"] == 1 && told["users"][0]["id"] == ann.welcome["uid"]).then_some(())
    })
    .await?;
    for node in [edge, one, two, three] {
        node.kill().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_an_edge_that_drains_are_told_where_to_go() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let [o1, e1, e2] = &lay_out(dir.path(), ["o1", "e1", "e2"]).await?;
    let origin = o1.start().await?;
    let (one, two) = tokio::try_join!(e1.start(), e2.start())?;
    let secret = "ann's own secret";
    let mut ann = Member::join(e1.at(8080), "live/leaves", secret, None).await?;
    ann.say("c1", "hello").await?;
    let mut stream = Events::open(e1.at(8080), "/sse/live/leaves").await?;
    stream.next().await?;
    eventually("the edges know of each other", async || {
        let status = o1.json(&["cluster", "status"]).await.ok()?;
        (status["nodes"].as_array()?.len() == 3).then_some(())
    })
    .await?;
    o1.json(&["cluster", "drain", "e1"]).await?;
    let bye = ann.kind("bye").await?;
    let there = format!("http://{}", e2.at(8080));
    ensure!(bye["code"] == 4012 && bye["edges"] == json!([there]), "{bye}");
    ensure!(bye["after_ms"].as_u64() < Some(10_000), "{bye}");
    let position = ann.position.clone();
    ensure!(ann.closed().await?.0 == 4012);
    let bye = loop {
        let (_, frame) = stream.next().await?;
        if frame["t"] == "bye" {
            break frame;
        }
    };
    ensure!(bye["code"] == 4012, "{bye}");

    // Nobody new comes in there; on the other edge ann lacks nothing.
    let hello = json!({"t": "hello", "v": 1, "room": "live/leaves", "guest": secret});
    let mut socket = Member::open(e1.at(8080)).await?;
    {
        use futures_util::{SinkExt, StreamExt};
        socket.send(tokio_websockets::Message::text(hello.to_string())).await?;
        let first = socket.next().await.context("closed without a word")??;
        let bye: Value = serde_json::from_str(first.as_text().context("a frame")?)?;
        ensure!(bye["t"] == "bye" && bye["edges"] == json!([there]), "{bye}");
        let last = socket.next().await.context("not closed")??;
        ensure!(last.as_close().is_some_and(|(code, _)| u16::from(code) == 4012), "{last:?}");
    }
    ensure!(web::get(e1.at(8080), "/sse/live/leaves").await?.status == 503);
    let back = Member::join(e2.at(8080), "live/leaves", secret, Some(&position)).await?;
    ensure!(back.welcome["recovered"] == true, "{}", back.welcome);
    o1.json(&["cluster", "drain", "e1", "--undo"]).await?;
    let mut again = eventually("the edge is open again", async || {
        Member::join(e1.at(8080), "live/leaves", secret, None).await.ok()
    })
    .await?;
    let say = json!({"t": "chat", "c": "c2", "x": "home again"});
    until(&mut again, &say, |answer| answer["t"] == "ok").await?;

    // Who came and went is in the books, with where from.
    drop((again, back));
    ensure!(one.terminate().await? == Some(0));
    let join = visits(o1, "live/leaves").await?;
    ensure!(join["node"] == "e1" && join["region"] == "eu", "{join}");
    ensure!(join["address"] == "loopback" && join["client"] == "other", "{join}");
    for node in [two, origin] {
        node.kill().await?;
    }
    Ok(())
}

/// Waits until somebody has left a room by the books; who came first.
async fn visits(asked: &Place, room: &str) -> Result<Value> {
    let export = ["events", "export", "--since", "1h", "--room", room];
    eventually("joins and leaves", async || {
        let (_, out, _) = asked.command(&export).await.ok()?;
        let lines = out.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let seen: Vec<Value> = lines.collect();
        let has_left = seen.iter().any(|line| line["type"] == "leave");
        seen.into_iter().find(|line| line["type"] == "join" && has_left)
    })
    .await
}
