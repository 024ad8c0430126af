//! What an operator does to a cluster by command: grow, hand over, drain, kick, back up, rebuild.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::process::Tidewater;
use tests::publisher::Publisher;
use tests::{eventually, flv, hls, http};
use tokio::task::JoinHandle;

use crate::places::{Place, lay_out};

fn keep_pushing(mut publisher: Publisher) -> JoinHandle<()> {
    tokio::spawn(async move {
        // Ends with an error when the server ends the push, which is for the test to see elsewhere.
        let _ = publisher.send(Duration::from_secs(120)).await;
    })
}

/// Waits until these nodes, and no others, are voters.
async fn voters(asked: &Place, ids: &[&str]) -> Result<serde_json::Value> {
    eventually(&format!("voters {ids:?}"), async || {
        let status = asked.json(&["cluster", "status"]).await.ok()?;
        let members = status["members"].as_array()?.clone();
        let mut found: Vec<_> = members.iter().filter_map(|m| m["id"].as_str()).collect();
        found.sort_unstable();
        let all_vote = members.iter().all(|member| member["part"] == "voter");
        (found == ids && all_vote && !status["leader"].is_null()).then_some(status)
    })
    .await
}

async fn room(asked: &Place, name: &str) -> Option<serde_json::Value> {
    asked.json(&["room", "show", name]).await.ok()
}

async fn ready(place: &Place) -> Result<(u16, String)> {
    let answer = http::get(place.at(8081), "/readyz").await?;
    Ok((answer.status, answer.text()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_voter_grows_to_three_under_load_and_is_drained() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let places = lay_out(dir.path(), ["o1", "o2", "o3", "e1"]).await?;
    let [o1, o2, o3, e1] = &places;
    for alone in [o1, e1] {
        alone.listing(&[o1])?;
    }
    let (first, edge) = (o1.start().await?, e1.start().await?);
    let pushing = keep_pushing(Publisher::connect(o1.at(1935), "live", "grown").await?);
    let edges = [e1.at(8080)];
    let mut hls = hls::Viewer::new(&edges, "live/grown");
    let mut flv = flv::Viewer::when_live(edges[0], "/live/grown.flv").await?;
    hls.start().await?;

    // Load on the log: every key is a write that a majority must hold.
    let load = async {
        let mut keys = Vec::new();
        for i in 0..12 {
            let key = e1.json(&["key", "create", &format!("live/k{i}")]).await?;
            keys.push(key["id"].as_str().context("an id")?.to_owned());
        }
        anyhow::Ok(keys)
    };
    let grow = async {
        let mut started = Vec::new();
        for next in [o2, o3] {
            started.push(next.start().await?);
            let added = o1.json(&["cluster", "add", next.id, &next.quic()]).await?;
            ensure!(added["id"] == next.id, "{added}");
        }
        voters(e1, &["o1", "o2", "o3"]).await?;
        anyhow::Ok(started)
    };
    let (keys, started) = tokio::try_join!(load, grow)?;
    let listed = o3.json(&["key", "list"]).await?;
    ensure!(listed.as_array().map(Vec::len) == Some(keys.len()), "{listed}");
    let so_far = flv.seen().video;
    ensure!(!flv.watch(|seen| seen.video > so_far + 30).await?.ended, "viewers saw nothing of it");
    hls.watch(|tally, _| tally.segments >= 3).await?;

    // When the command returns, the other one leads.
    let passed = e1.json(&["cluster", "transfer-leader", "o2"]).await?;
    ensure!(passed["leader"] == "o2", "{passed}");
    let (code, table, _) = o3.command(&["cluster", "status"]).await?;
    ensure!(code == Some(0) && table.contains("RAFT"), "{table}");
    let row = table.lines().find(|line| line.starts_with("o2")).unwrap_or_default();
    ensure!(row.contains("leader"), "{table}");
    let (code, _, error) = o3.command(&["cluster", "transfer-leader", "e1"]).await?;
    ensure!(code == Some(1) && error.contains("e1 is no other voter"), "{error}");

    // A drain moves the room, says when it is done, and the node says no to new callers meanwhile.
    ensure!(room(e1, "live/grown").await.is_some_and(|told| told["home"] == "o1"));
    let drained = e1.json(&["cluster", "drain", "o1"]).await?;
    ensure!(drained["rooms"] == 0 && drained["state"] == "draining", "{drained}");
    ensure!(room(o3, "live/grown").await.is_some_and(|told| told["home"] != "o1"));
    let (status, why) = eventually("o1 is not ready", async || {
        ready(o1).await.ok().filter(|(status, _)| *status == 503)
    })
    .await?;
    ensure!(why.contains("o1 is draining"), "{status} {why}");
    e1.json(&["cluster", "drain", "o1", "--undo"]).await?;
    eventually("o1 is ready again", async || (ready(o1).await.ok()?.0 == 200).then_some(()))
        .await?;
    let placed = o3.json(&["room", "place", "live/grown", "o1"]).await?;
    ensure!(placed["home"] == "o1", "{placed}");
    let (code, _, error) = o3.command(&["room", "place", "live/grown", "e1"]).await?;
    ensure!(code == Some(1) && error.contains("node e1 is no origin"), "{error}");

    pushing.abort();
    for node in started.into_iter().chain([edge, first]) {
        ensure!(node.terminate().await? == Some(0));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_are_shown_and_ended_from_any_node_and_an_edge_drains() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let places = lay_out(dir.path(), ["o1", "e1", "e2"]).await?;
    let [o1, e1, e2] = &places;
    let origin = o1.start().await?;
    let (one, two) = tokio::try_join!(e1.start(), e2.start())?;
    let pushing = keep_pushing(Publisher::connect(o1.at(1935), "live", "seen").await?);
    let mut stays = flv::Viewer::when_live(e2.at(8080), "/live/seen.flv").await?;
    let mut leaves = flv::Viewer::when_live(e1.at(8080), "/live/seen.flv").await?;
    leaves.watch(|seen| seen.video > 10).await?;
    eventually("an edge tells what the home knows", async || {
        let told = room(e1, "live/seen").await?;
        (told["state"] == "live" && told["viewers"] == 2 && told["ingest"] == "o1").then_some(())
    })
    .await?;
    let listed = e2.json(&["room", "list"]).await?;
    ensure!(listed[0]["state"] == "live", "{listed}");

    // Every edge tells where to watch, and one that drains is not offered any more.
    let route = async |place: &Place| -> Result<serde_json::Value> {
        let answer = http::get(place.at(8080), "/route/live/seen?region=eu").await?;
        ensure!(answer.status == 200, "{answer:?}");
        Ok(serde_json::from_str(&answer.text())?)
    };
    let (one_says, two_says) = (route(e1).await?, route(e2).await?);
    ensure!(one_says == two_says && one_says["edges"].as_array().map(Vec::len) == Some(2));
    ensure!(
        one_says["edges"][0]["hls"].as_str().is_some_and(|url| url.ends_with("/live/seen.m3u8"))
    );
    let bad = http::get(e1.at(8080), "/route/live/seen?region=e%20u").await?;
    ensure!(bad.status == 400, "{bad:?}");

    // The drained edge sends its viewer away, still serves whoever insists, and says so to others.
    e2.json(&["cluster", "drain", "e1"]).await?;
    ensure!(leaves.watch(|_| false).await?.ended, "told at a tag's end");
    let edge = http::get(e1.at(8080), "/readyz").await?;
    ensure!(edge.status == 503 && edge.text().contains("draining"), "{edge:?}");
    let offered = route(e1).await?;
    ensure!(offered["edges"][0]["id"] == "e2" && offered["edges"][1].is_null(), "{offered}");
    let mut refused = false;
    for _ in 0..40 {
        refused |= http::get(e1.at(8080), "/route/live/seen").await?.status == 429;
    }
    ensure!(refused, "asked too often");
    let list = http::get(e1.at(8080), "/live/seen/main.m3u8").await?;
    ensure!(list.status == 200 && list.header("connection") == "close", "{list:?}");
    let so_far = stays.seen().video;
    ensure!(!stays.watch(|seen| seen.video > so_far + 30).await?.ended);

    // Ended from an edge, at the home.
    let (code, _, error) = e2.command(&["room", "kick", "live/none"]).await?;
    ensure!(code == Some(1) && error.contains("live/none is not active"), "{error}");
    e2.json(&["room", "kick", "live/seen"]).await?;
    ensure!(stays.watch(|_| false).await?.ended);
    pushing.await?;
    for node in [two, one, origin] {
        ensure!(node.terminate().await? == Some(0));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_voter_and_a_lost_majority_and_a_lost_cluster_are_rebuilt() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let places = lay_out(dir.path(), ["o1", "o2", "o3", "e1"]).await?;
    let [o1, o2, o3, e1] = &places;
    let (first, second, third) = tokio::try_join!(o1.start(), o2.start(), o3.start())?;
    let edge = e1.start().await?;
    let before = voters(e1, &["o1", "o2", "o3"]).await?;
    let key = e1.json(&["key", "create", "live/kept"]).await?;

    // A wiped voter comes back as a new member, by command and not by itself.
    third.kill().await?;
    std::fs::remove_dir_all(o3.data())?;
    let third = o3.start().await?;
    let added = e1.json(&["cluster", "add", "o3", &o3.quic()]).await?;
    let old = before["members"].as_array().context("members")?.iter().map(|m| &m["raft_id"]);
    ensure!(old.clone().all(|id| *id != added["raft_id"]), "{added} in {before}");
    voters(e1, &["o1", "o2", "o3"]).await?;

    // A backup is taken at any node and overwrites nothing.
    let file = dir.path().join("cluster.backup");
    let file = file.to_str().context("a path")?;
    let taken = e1.json(&["cluster", "backup", file]).await?;
    ensure!(taken["revision"].as_u64() > before["revision"].as_u64(), "{taken}");
    let (code, _, error) = e1.command(&["cluster", "backup", file]).await?;
    ensure!(code == Some(1) && error.contains("exists"), "{error}");

    // Two of three are lost for good. Who would recover must say so, and must stop the node first.
    second.kill().await?;
    third.kill().await?;
    let config = o1.config.to_str().context("a path")?;
    let recover = ["cluster", "recover", "--sole-survivor", "--config", config, "--json"];
    let (code, ..) = Tidewater::command(&["cluster", "recover", "--config", config]).await?;
    ensure!(code == Some(2), "without the word it is a usage error");
    let (code, _, error) = Tidewater::command(&recover).await?;
    ensure!(code == Some(1) && error.contains("in use by another tidewater"), "{error}");
    first.kill().await?;
    let (code, out, error) = Tidewater::command(&recover).await?;
    ensure!(code == Some(0), "{error}");
    let recovered: serde_json::Value = serde_json::from_str(&out)?;
    let first = o1.start().await?;
    let status = voters(o1, &["o1"]).await?;
    ensure!(status["cluster"] == recovered["cluster"], "{status}");
    ensure!(o1.json(&["key", "list"]).await?[0]["id"] == key["id"]);
    eventually("the edge is served by the survivor", async || {
        e1.json(&["cluster", "status"]).await.ok().filter(|s| s["leader"] == "o1")
    })
    .await?;
    std::fs::remove_dir_all(o2.data())?;
    let second = o2.start().await?;
    o1.json(&["cluster", "add", "o2", &o2.quic()]).await?;
    voters(o1, &["o1", "o2"]).await?;

    // All are lost: the cluster begins again from the backup.
    for node in [first, second] {
        node.kill().await?;
    }
    let restore = ["cluster", "restore", file, "--config", config, "--json"];
    let (code, _, error) = Tidewater::command(&restore).await?;
    ensure!(code == Some(1) && error.contains("restore into an empty data folder"), "{error}");
    std::fs::remove_dir_all(o1.data())?;
    let (code, out, error) = Tidewater::command(&restore).await?;
    ensure!(code == Some(0), "{error}");
    let restored: serde_json::Value = serde_json::from_str(&out)?;
    ensure!(restored["from_revision"] == taken["revision"], "{restored} of {taken}");
    let first = o1.start().await?;
    ensure!(o1.json(&["key", "list"]).await?[0]["id"] == key["id"]);
    for node in [edge, first] {
        ensure!(node.terminate().await? == Some(0));
    }
    Ok(())
}
