//! Separate processes with certificates of their own: one control and origin, two edges.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::process::Tidewater;
use tests::publisher::Publisher;
use tests::{flv, hls};

use crate::places::lay_out;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_processes_serve_and_the_origin_may_be_killed_in_the_middle() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let [o1, e1, e2] = lay_out(dir.path(), ["o1", "e1", "e2"]).await?;
    let origin = o1.start().await?;
    let (edge1, edge2) = (e1.start().await?, e2.start().await?);
    let edges = [e1.at(8080), e2.at(8080)];

    let mut publisher = Publisher::connect(o1.at(1935), "live", "far").await?;
    let pushing = tokio::spawn(async move { publisher.send(Duration::from_secs(60)).await });
    let mut hls = hls::Viewer::new(&edges, "live/far");
    hls.watch(|tally, _| tally.segments >= 4).await?;
    let mut flv = flv::Viewer::connect(edges[1], "/live/far.flv").await?;
    flv.watch(|seen| seen.video > 30).await?;

    origin.kill().await?;
    let lost = pushing.await?;
    ensure!(lost.is_err(), "the encoder sees its connection break");
    let origin = o1.start().await?;
    let mut publisher = Publisher::connect(o1.at(1935), "live", "far").await?;
    let pushing = tokio::spawn(async move { publisher.send(Duration::from_secs(60)).await });

    // The home takes its past back from the edges: the list goes on after a discontinuity, and the
    // connections of FLV viewers stay.
    let so_far = flv.seen().video;
    hls.watch(|tally, _| tally.discontinuities == 1 && tally.segments >= 8).await?;
    ensure!(!flv.watch(|seen| seen.video > so_far + 30).await?.ended);

    pushing.abort();
    for node in [edge1, edge2, origin] {
        ensure!(node.terminate().await? == Some(0));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_key_nobody_publishes_and_with_one_from_the_command_line_one_does() -> Result<()>
{
    let dir = tempfile::tempdir()?;
    let [o1] = lay_out(dir.path(), ["o1"]).await?;
    let text =
        std::fs::read_to_string(&o1.config)?.replace(r#"publish = "open""#, r#"publish = "key""#);
    std::fs::write(&o1.config, text)?;
    let origin = o1.start().await?;
    let refused = Publisher::connect(o1.at(1935), "live", "locked").await.err();
    ensure!(refused.is_some_and(|e| e.is::<tests::publisher::Refused>()));

    let admin = format!("admin.listen={}", o1.at(8081));
    let args = ["key", "create", "live/locked", "--json", "--set", &admin];
    let (code, out, err) = Tidewater::command(&args).await?;
    ensure!(code == Some(0), "{err}");
    let made: serde_json::Value = serde_json::from_str(&out)?;
    let (id, key) =
        (made["id"].as_str().unwrap_or_default(), made["key"].as_str().unwrap_or_default());
    ensure!(made["push_url"].as_str().is_some_and(|url| url.starts_with("rtmp://")), "{made}");

    let wrong = Publisher::connect(o1.at(1935), "live", "locked?token=nonsense").await;
    ensure!(wrong.is_err());
    let other = Publisher::connect(o1.at(1935), "live", &format!("other?token={key}")).await;
    ensure!(other.is_err(), "a key opens one room");
    Publisher::connect(o1.at(1935), "live", &format!("locked?token={key}")).await?.finish().await?;
    Publisher::connect(o1.at(1935), &format!("live?token={key}"), "locked").await?.finish().await?;

    let (code, _, err) = Tidewater::command(&["key", "revoke", id, "--set", &admin]).await?;
    ensure!(code == Some(0), "{err}");
    let revoked = Publisher::connect(o1.at(1935), "live", &format!("locked?token={key}")).await;
    ensure!(revoked.is_err());
    ensure!(!origin.log().has(&[key]), "the key is in the log");
    origin.kill().await
}
