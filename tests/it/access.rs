//! Who may push and watch where nothing is open, and how that is taken back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::http::{self, Answer};
use tests::process::{Ready, Tidewater};
use tests::publisher::{Publisher, Refused};
use tests::{eventually, flv};
use tokio::time::Instant;

const SECRET: &str = "a secret of thirty-two bytes, here";

async fn closed() -> Result<(tempfile::TempDir, Tidewater, Ready)> {
    let data = tempfile::tempdir()?;
    let secret = format!("auth.token_secret={SECRET}");
    let settings = [
        "auth.publish=key",
        "auth.allow_guests=false",
        &secret,
        "auth.tx_push_key=e12c46f2612d5106e2034781ab261ca3",
    ];
    let args: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let (node, ready) = Tidewater::dev(data.path(), &args).await?;
    Ok((data, node, ready))
}

async fn token(ready: &Ready, args: &[&str]) -> Result<String> {
    let admin = format!("admin.listen={}", ready.admin);
    let all: Vec<&str> =
        ["token", "create"].iter().chain(args).chain(&["--set", &admin]).copied().collect();
    let (code, out, error) = Tidewater::command(&all).await?;
    ensure!(code == Some(0), "{error}");
    Ok(out.trim().to_owned())
}

async fn refusal(ready: &Ready, key: &str) -> Result<String> {
    let refused = Publisher::connect(ready.rtmp, "live", key).await.err();
    let refused = refused.context("the push is not refused")?.downcast::<Refused>()?;
    Ok(refused.0)
}

fn is_refused(answer: &Answer, why: &str) -> Result<()> {
    ensure!(answer.status == 401 && answer.text().contains(why), "{answer:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_opens_what_it_says_and_nothing_else() -> Result<()> {
    let (_data, node, ready) = closed().await?;
    let edge = ready.http[0];
    let push = token(&ready, &["live/c", "--role", "publisher"]).await?;
    let watch = token(&ready, &["live/c", "--user", "u7"]).await?;
    let elsewhere = token(&ready, &["live/d", "--role", "host"]).await?;
    for key in ["c", "c?token=x", &format!("c?token={watch}"), &format!("c?token={elsewhere}")] {
        let said = refusal(&ready, key).await?;
        ensure!(said.contains("Denied") && !said.contains(&watch), "{key}: {said}");
    }
    let mut publisher = Publisher::connect(ready.rtmp, "live", &format!("c?token={push}")).await?;
    let pushing = tokio::spawn(async move { publisher.send(Duration::from_secs(60)).await });

    is_refused(&http::get(edge, "/live/c.m3u8").await?, "a token is needed")?;
    is_refused(&http::get(edge, "/live/c.flv?token=x").await?, "cannot be read")?;
    is_refused(&http::get(edge, &format!("/live/c.flv?token={push}")).await?, "does not allow")?;
    is_refused(
        &http::get(edge, &format!("/live/c.m3u8?token={elsewhere}")).await?,
        "another room",
    )?;
    let mut viewer = flv::Viewer::connect(edge, &format!("/live/c.flv?token={watch}")).await?;
    viewer.watch(|seen| seen.video >= 30).await?;

    // The files of a playlist are had with the cookie that came with it.
    let path = format!("/live/c/main.m3u8?token={watch}");
    let list = eventually("the playlist", async || {
        http::get(edge, &path).await.ok().filter(|answer| answer.status == 200)
    })
    .await?;
    ensure!(list.header("cache-control").starts_with("private"), "{list:?}");
    let text = list.text();
    let named = text.lines().find(|line| line.ends_with(".m4s")).context("no segment")?;
    let file = format!("/live/c/{named}");
    is_refused(&http::get(edge, &file).await?, "a token is needed")?;
    let cookie = list.header("set-cookie");
    ensure!(cookie.contains("Path=/live/c;") && cookie.contains("HttpOnly"), "{cookie}");
    let kept = cookie.split(';').next().unwrap_or_default();
    let media = http::request(edge, "GET", &file, &[("cookie", kept)]).await?;
    ensure!(media.status == 200 && !media.header("cache-control").contains("private"), "{media:?}");

    pushing.abort();
    let log = node.log();
    for secret in [watch.as_str(), &push, SECRET] {
        ensure!(!log.has(&[secret]), "a secret is logged");
    }
    node.kill().await
}

/// A publisher that runs until it is ended; says how long after `since` that was.
fn pushing(mut publisher: Publisher) -> tokio::task::JoinHandle<Instant> {
    tokio::spawn(async move {
        while publisher.send(Duration::from_millis(50)).await.is_ok() {}
        Instant::now()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_call_gives_an_app_everything_it_hands_out() -> Result<()> {
    let (_data, node, ready) = closed().await?;
    let path = "/api/v1/rooms/live/c";
    let answer = http::put(ready.admin, path, &json!({"user": "u7", "name": "Mei"})).await?;
    ensure!(answer.status == 200, "{}", answer.text());
    let room: Value = serde_json::from_slice(&answer.body)?;
    let text = |at: &str| room.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    let push_url = text("/push_url");
    let base = format!("rtmp://{}/live/c?token=", ready.rtmp);
    ensure!(push_url.starts_with(&base), "{push_url}");
    ensure!(text("/push_url_tx").contains("txSecret="), "{room}");
    ensure!(text("/obs/server") == format!("rtmp://{}/live", ready.rtmp), "{room}");
    ensure!(text("/ws") == format!("ws://{}/ws", ready.http[0]), "{room}");
    ensure!(room["home"].is_null(), "nobody has come yet: {room}");

    let publisher = Publisher::connect(ready.rtmp, "live", &text("/obs/key")).await?;
    let running = pushing(publisher);
    let edge = format!("http://{}", ready.http[0]);
    let flv = text("/play/flv");
    let flv = flv.strip_prefix(&edge).context("at the edge")?;
    let mut viewer = flv::Viewer::when_live(ready.http[0], flv).await?;
    viewer.watch(|seen| seen.video >= 10).await?;
    let hls = text("/play/hls");
    let hls = hls.strip_prefix(&edge).context("at the edge")?.to_owned();
    eventually("the playlist", async || {
        http::get(ready.http[0], &hls).await.ok().filter(|answer| answer.status == 200)
    })
    .await?;
    // Asked again, it is as good; opened, a room has its home.
    let again = http::put(ready.admin, path, &json!({})).await?;
    let again: Value = serde_json::from_slice(&again.body)?;
    ensure!(again["home"] == "o1" && again["push_url"].is_string(), "{again}");
    let open = http::put(ready.admin, "/api/v1/rooms/live/new", &json!({"open": true})).await?;
    ensure!(serde_json::from_slice::<Value>(&open.body)?["home"] == "o1", "{}", open.text());
    let wrong = http::put(ready.admin, path, &json!({"role": "mod"})).await?;
    ensure!(wrong.status == 400 && wrong.text().contains("give the user too"), "{wrong:?}");
    running.abort();
    node.kill().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_is_forbidden_is_gone_at_once_and_stays_away() -> Result<()> {
    let (_data, node, ready) = closed().await?;
    let token = token(&ready, &["live/c", "--role", "publisher"]).await?;
    let key = format!("c?token={token}");
    let running = pushing(Publisher::connect(ready.rtmp, "live", &key).await?);
    let admin = format!("admin.listen={}", ready.admin);
    let room = async |args: &[&str]| {
        let args = [&["room"], args, &["--set", &admin]].concat();
        let (code, out, error) = Tidewater::command(&args).await?;
        ensure!(code == Some(0), "{args:?}: {error}");
        Ok(out)
    };
    let asked = Instant::now();
    let path = "/api/v1/rooms/live/c/push/forbid";
    let forbidden = http::post(ready.admin, path, &json!({"reason": "a break"})).await?;
    ensure!(forbidden.status == 200, "{}", forbidden.text());
    let gone = running.await?.saturating_duration_since(asked);
    println!("forbidden: the publisher was gone after {gone:?}");
    for _ in 0..3 {
        let said = refusal(&ready, &key).await?;
        ensure!(said.contains("Denied"), "{said}");
    }
    ensure!(node.log().has(&["publishing to live/c is forbidden: a break"]), "the log says why");
    ensure!(room(&["forbidden"]).await?.contains("live/c"));
    room(&["resume", "live/c"]).await?;
    let running = pushing(Publisher::connect(ready.rtmp, "live", &key).await?);
    ensure!(!room(&["forbidden"]).await?.contains("live/c"));
    // Stopped only, it may come back at once.
    let path = "/api/v1/rooms/live/c/push/stop";
    eventually("the push is stopped", async || {
        let answer = http::post(ready.admin, path, &json!({})).await.ok()?;
        (answer.status == 204).then_some(())
    })
    .await?;
    running.await?;
    Publisher::connect(ready.rtmp, "live", &key).await?;
    node.kill().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_taken_back_ends_what_it_let_in() -> Result<()> {
    let (_data, node, ready) = closed().await?;
    let edge = ready.http[0];
    let push = token(&ready, &["live/c", "--role", "publisher", "--user", "streamer"]).await?;
    let running =
        pushing(Publisher::connect(ready.rtmp, "live", &format!("c?token={push}")).await?);
    let create = async |user: &str| {
        let expires = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        let body = json!({"room": "live/c", "role": "member", "user": user,
            "expires_unix_s": expires + 600});
        let made = http::post(ready.admin, "/api/v1/tokens", &body).await?;
        let made: Value = serde_json::from_slice(&made.body)?;
        let text = |key: &str| made[key].as_str().map(str::to_owned).context(made.to_string());
        Ok::<_, anyhow::Error>((text("id")?, text("token")?))
    };
    let (one_id, one) = create("u1").await?;
    let (_, two) = create("u2").await?;
    let watch = async |token: &str| {
        let mut viewer =
            flv::Viewer::when_live(edge, &format!("/live/c.flv?token={token}")).await?;
        viewer.watch(|seen| seen.video >= 5).await?;
        Ok::<_, anyhow::Error>(viewer)
    };
    let (mut first, mut second) = (watch(&one).await?, watch(&two).await?);

    let revoke = async |body: Value| {
        let asked = Instant::now();
        let answer = http::post(ready.admin, "/api/v1/revocations", &body).await?;
        ensure!(answer.status == 201, "{}", answer.text());
        Ok(asked)
    };
    let asked = revoke(json!({"token": one_id})).await?;
    first.watch(|_| false).await?;
    println!("revoked by id: FLV ended after {:?}", asked.elapsed());
    is_refused(&http::get(edge, &format!("/live/c.m3u8?token={one}")).await?, "revoked")?;
    let before = second.seen().video;
    second.watch(|seen| seen.video >= before + 30).await?;

    let asked = revoke(json!({"user": "u2"})).await?;
    second.watch(|_| false).await?;
    println!("revoked by user: FLV ended after {:?}", asked.elapsed());
    is_refused(&http::get(edge, &format!("/live/c.m3u8?token={two}")).await?, "revoked")?;
    let lifted = http::request(ready.admin, "DELETE", "/api/v1/revocations?user=u2", &[]).await?;
    ensure!(lifted.status == 204, "{}", lifted.text());
    eventually("the token is good again", async || {
        let again = http::get(edge, &format!("/live/c.m3u8?token={two}")).await.ok()?;
        (again.status == 200).then_some(())
    })
    .await?;

    let asked = revoke(json!({"room": "live/c"})).await?;
    let gone = running.await?.saturating_duration_since(asked);
    println!("revoked by room: the publisher was gone after {gone:?}");
    let said = refusal(&ready, &format!("c?token={push}")).await?;
    ensure!(said.contains("Denied"), "{said}");
    let listed = http::get(ready.admin, "/api/v1/revocations?limit=1").await?;
    let listed: Value = serde_json::from_slice(&listed.body)?;
    ensure!(listed["revocations"][0]["token"] == one_id.as_str(), "{listed}");
    let next = listed["next"].as_str().context("a next page")?;
    let rest = http::get(ready.admin, &format!("/api/v1/revocations?after={next}")).await?;
    let rest: Value = serde_json::from_slice(&rest.body)?;
    ensure!(rest["revocations"][0]["room"] == "live/c" && rest["next"].is_null(), "{rest}");
    node.kill().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_open_once_for_a_while_and_for_some() -> Result<()> {
    let (_data, node, ready) = closed().await?;
    let create = async |body: Value| {
        let made = http::post(ready.admin, "/api/v1/keys", &body).await?;
        ensure!(made.status == 201, "{}", made.text());
        Ok(serde_json::from_slice::<Value>(&made.body)?)
    };
    let secret = |made: &Value| format!("c?token={}", made["key"].as_str().unwrap_or_default());
    let once = create(json!({"room": "live/c", "once": true})).await?;
    Publisher::connect(ready.rtmp, "live", &secret(&once)).await?.finish().await?;
    let said = refusal(&ready, &secret(&once)).await?;
    ensure!(said.contains("Denied"), "{said}");
    ensure!(node.log().has(&["was for one push"]), "the log says why");
    let elsewhere = create(json!({"room": "live/c", "allow": ["203.0.113.0/24"]})).await?;
    refusal(&ready, &secret(&elsewhere)).await?;
    ensure!(node.log().has(&["may not be used from this address"]), "the log says why");
    let later = create(json!({"room": "live/c", "from_unix_s": u32::MAX})).await?;
    refusal(&ready, &secret(&later)).await?;
    ensure!(node.log().has(&["does not open yet"]), "the log says why");

    let old = create(json!({"room": "live/c"})).await?;
    let path = format!("/api/v1/keys/{}/rotate", old["id"].as_str().context("an id")?);
    let new = http::post(ready.admin, &path, &json!({})).await?;
    let new: Value = serde_json::from_slice(&new.body)?;
    refusal(&ready, &secret(&old)).await?;
    ensure!(node.log().has(&["has expired"]), "the log says why");
    Publisher::connect(ready.rtmp, "live", &secret(&new)).await?.finish().await?;
    let foul = json!({"room": "live/c", "allow": ["x"]});
    let foul = http::post(ready.admin, "/api/v1/keys", &foul).await?;
    ensure!(foul.status == 400 && foul.text().contains("203.0.113.0/24"), "{}", foul.text());
    node.kill().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_signed_as_tencent_does_lets_a_publisher_in_until_its_time() -> Result<()> {
    let (_data, node, ready) = closed().await?;
    // Of 2018, by the documentation of Tencent Cloud; and of 2100, by the same key.
    let old = "test?txSecret=f85a2ab363fe4deaffef9754d79da6fe&txTime=5C271099";
    let said = refusal(&ready, old).await?;
    ensure!(said.contains("Denied"), "{said}");
    let good = "test?txSecret=40e2f6e42a4a4216b465826b249643d4&txTime=F4865700";
    let said = refusal(&ready, &good.replace("test?", "tess?")).await?;
    ensure!(said.contains("Denied"), "{said}");
    let mut publisher = Publisher::connect(ready.rtmp, "live", good).await?;
    publisher.send(Duration::from_millis(200)).await?;
    publisher.finish().await?;
    node.kill().await
}
