//! First light: what is pushed is seen, the same on every edge.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::process::Tidewater;
use tests::publisher::Publisher;
use tests::{eventually, flv, hls, http};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_edges_answer_every_listed_url_with_the_same_bytes() -> Result<()> {
    let data = tempfile::tempdir()?;
    let (node, ready) = Tidewater::dev(data.path(), &["--edges", "3"]).await?;
    ensure!(ready.http.len() == 3);
    let mut publisher = Publisher::connect(ready.rtmp, "live", "three").await?;
    let pushing = tokio::spawn(async move { publisher.send(Duration::from_secs(60)).await });

    // Two edges from the start; the third joins in the middle and must answer the same.
    let mut viewer = hls::Viewer::new(&ready.http[..2], "live/three");
    viewer.watch(|tally, _| tally.segments >= 4).await?;
    let mut comparing = hls::Viewer::new(&ready.http, "live/three");
    comparing.watch(|tally, _| tally.segments >= 6 && tally.parts >= 30).await?;
    ensure!(comparing.tally.discontinuities == 0, "{:?}", comparing.tally);

    pushing.abort();
    ensure!(node.terminate().await? == Some(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flv_starts_at_a_key_frame_and_flows() -> Result<()> {
    let data = tempfile::tempdir()?;
    let (node, ready) = Tidewater::dev(data.path(), &["--edges", "1"]).await?;
    let mut publisher = Publisher::connect(ready.rtmp, "live", "flow").await?;
    let pushing = tokio::spawn(async move { publisher.send(Duration::from_secs(60)).await });

    let mut viewer = flv::Viewer::connect(ready.http[0], "/live/flow.flv").await?;
    let seen = viewer.watch(|seen| seen.video >= 90 && seen.audio >= 100).await?;
    ensure!(seen.headers == 2, "{seen:?}");
    ensure!(seen.largest_gap_ms <= 34, "{seen:?}");

    pushing.abort();
    ensure!(node.terminate().await? == Some(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_pushes_itself_and_the_pages_are_there() -> Result<()> {
    let data = tempfile::tempdir()?;
    let (node, ready) = Tidewater::dev(data.path(), &["--demo"]).await?;
    let edge = ready.http[0];
    let listed = eventually("live/demo is in the room list", async || {
        // Asking for the playlist is what makes this edge carry the room.
        let _ = http::get(edge, "/live/demo.m3u8").await.ok()?;
        let list = http::request(edge, "GET", "/", &[("accept", "application/json")]).await.ok()?;
        list.text().contains("\"live/demo\"").then_some(list)
    })
    .await?;
    ensure!(listed.header("content-type").starts_with("application/json"));
    let page = http::get(edge, "/watch/live/demo").await?;
    ensure!(page.status == 200 && page.header("content-type").starts_with("text/html"));
    let home = http::get(edge, "/").await?;
    ensure!(home.status == 200 && home.header("content-type").starts_with("text/html"));
    ensure!(node.terminate().await? == Some(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timestamps_may_start_anywhere_and_wrap() -> Result<()> {
    let data = tempfile::tempdir()?;
    let (node, ready) = Tidewater::dev(data.path(), &[]).await?;
    // Three seconds before the 32-bit wrap, past both 2^24 and 2^31.
    let publisher = Publisher::connect(ready.rtmp, "live", "wrap").await?;
    let mut publisher = publisher.starting_at(u32::MAX - 3_000);
    let pushing = tokio::spawn(async move { publisher.send(Duration::from_secs(60)).await });
    let mut viewer = hls::Viewer::new(&ready.http, "live/wrap");
    viewer.watch(|tally, _| tally.segments >= 6).await?;
    ensure!(viewer.tally.discontinuities == 0, "the wrap is no discontinuity");
    let mut flv = flv::Viewer::connect(ready.http[0], "/live/wrap.flv").await?;
    let seen = flv.watch(|seen| seen.video >= 30).await?;
    ensure!(seen.last_ms < 120_000, "viewers see the room's timeline: {seen:?}");
    pushing.abort();
    node.kill().await
}
