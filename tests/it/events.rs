//! Gifts and events as an operator meets them: what was kept can be exported from every node.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
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
