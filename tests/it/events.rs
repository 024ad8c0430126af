//! Gifts and events as an operator meets them: what was kept can be exported from every node.

use std::time::Duration;

use ::events::order::{Order, ShopKey};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::member::Member;
use tests::process::Tidewater;
use tests::publisher::Publisher;
use tests::{eventually, http};

use crate::places::lay_out;

/// What `tidewater events export` prints, asked of the node whose admin listener is `admin`.
async fn export(admin: &str, extra: &[&str]) -> Result<Vec<Value>> {
    let mut args = vec!["events", "export", "--since", "1h", "--format", "jsonl", "--set", admin];
    args.extend(extra);
    let (code, out, err) = Tidewater::command(&args).await?;
    ensure!(code == Some(0), "{err}");
    out.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}

fn types(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["type"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_is_in_the_books_of_the_cluster_and_survives_its_keeper() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let [o1, e1] = lay_out(dir.path(), ["o1", "e1"]).await?;
    let keeper = o1.start().await?;
    let edge = e1.start().await?;
    let mut publisher = Publisher::connect(o1.at(1935), "live", "kept").await?;
    publisher.send(Duration::from_millis(300)).await?;
    publisher.finish().await?;

    // Asked of the edge: the node that keeps the store answers over QUIC.
    let admin = format!("admin.listen={}", e1.at(8081));
    let expected = ["room_start", "publish", "unpublish"];
    let seen = eventually("the events of the push", async || {
        let seen = export(&admin, &["--room", "live/kept"]).await.ok()?;
        (seen.len() >= expected.len()).then_some(seen)
    })
    .await?;
    ensure!(types(&seen) == expected, "{seen:?}");
    let publish = &seen[1];
    ensure!(publish["v"] == 1 && publish["room"] == "live/kept", "{publish}");
    ensure!(publish["client"] == "encoder" && publish["address"] == "loopback", "{publish}");
    ensure!(publish["region"] == "eu" && publish["node"] == "o1", "{publish}");
    ensure!(export(&admin, &["--room", "live/other"]).await?.is_empty());

    keeper.kill().await?;
    let (code, _, err) =
        Tidewater::command(&["events", "export", "--since", "1h", "--set", &admin]).await?;
    ensure!(code == Some(1) && err.contains("not available"), "{err}");
    let keeper = o1.start().await?;
    let again = eventually("the store is back", async || {
        export(&admin, &["--room", "live/kept"]).await.ok()
    })
    .await?;
    ensure!(again[..3] == seen[..], "what was kept is kept: {again:?}");
    let metrics = http::get(o1.at(8081), "/metrics").await?.text();
    ensure!(metrics.contains("tidewater_events_store_up 1"), "{metrics}");

    let (code, _, err) =
        Tidewater::command(&["events", "export", "--since", "yesterday", "--set", &admin]).await?;
    ensure!(code == Some(1) && err.contains("2026-11-22T18:00:00Z"), "{err}");
    for node in [edge, keeper] {
        ensure!(node.terminate().await? == Some(0));
    }
    Ok(())
}

/// A shop's key, as in the configuration of the test below.
const SHOP_KEY: &str = "a key of a shop, of at least thirty-two bytes";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gift_needs_an_order_and_is_one_gift_through_every_edge() -> Result<()> {
    let data = tempfile::tempdir()?;
    let key = format!("room.shop_key={SHOP_KEY}");
    let args = ["--edges", "2", "--set", "room.open_gifts=false", "--set", &key];
    let (node, ready) = Tidewater::dev(data.path(), &args).await?;
    let (one, two) = (ready.http[0], ready.http[1]);
    let mut ann = Member::join(one, "live/shop", "ann's own secret", None).await?;
    let user = ann.welcome["uid"].as_str().context("a user id")?.to_owned();
    let shop = ShopKey::new(SHOP_KEY.as_bytes()).context("long enough")?;
    let order = |id: &str| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        shop.sign(&Order {
            id: id.to_owned(),
            room: "live/shop".to_owned(),
            user: user.clone(),
            gift: "rose".to_owned(),
            count: 3,
            value: 520,
            exp: now.map_or(0, |now| now.as_secs()) + 600,
        })
    };
    let gift = |cid: &str, auth: Option<String>| {
        let mut frame = json!({"t": "gift", "c": cid, "g": "rose", "n": 3});
        if let Some(auth) = auth {
            frame["auth"] = auth.into();
        }
        frame
    };
    let without = ann.ask(&gift("c1", None)).await?;
    ensure!(without["code"] == "bad_order", "{without}");
    let forged = ann.ask(&gift("c2", Some(order("A-1").replace('.', ".A")))).await?;
    ensure!(forged["code"] == "bad_order", "{forged}");
    let taken = ann.ask(&gift("c3", Some(order("A-1")))).await?;
    ensure!(taken["t"] == "ok", "{taken}");
    let used = ann.ask(&gift("c4", Some(order("A-1")))).await?;
    ensure!(used["code"] == "bad_order", "one order, one gift: {used}");

    // The same person through the other edge: the same gift.
    let mut again = Member::join(two, "live/shop", "ann's own secret", None).await?;
    let same = again.ask(&gift("c3", Some(order("A-1")))).await?;
    ensure!(same["id"] == taken["id"] && same["o"] == taken["o"], "{same} {taken}");

    // The shop itself needs no signature.
    let path = "/api/v1/rooms/live/shop/messages";
    let buyer = json!({"id": "buyer", "n": "Buyer", "r": "member"});
    let body = json!({"t": "gift", "c": "s1", "u": buyer, "g": "car", "order": "B-1"});
    let first = http::post(ready.admin, path, &body).await?;
    ensure!(first.status == 200, "{}", first.text());
    let seen = again.item(|item| item["t"] == "gift" && item["g"] == "car").await?;
    ensure!(seen["u"]["n"] == "Buyer", "{seen}");
    let second = http::post(ready.admin, path, &body).await?;
    ensure!(second.body == first.body, "{}", second.text());
    let nameless =
        http::post(ready.admin, path, &json!({"t": "chat", "u": buyer, "x": "hi"})).await?;
    ensure!(nameless.status == 400 && nameless.text().contains("Idempotency-Key"));

    let admin = format!("admin.listen={}", ready.admin);
    let (code, out, err) =
        Tidewater::command(&["events", "totals", "--json", "--set", &admin]).await?;
    ensure!(code == Some(0), "{err}");
    let totals: Value = serde_json::from_str(&out)?;
    ensure!(totals["rows"] == 2 && totals["count"] == 4 && totals["value"] == 520, "{totals}");
    ensure!(totals["duplicates"] == 0, "{totals}");
    ensure!(node.terminate().await? == Some(0));
    Ok(())
}
