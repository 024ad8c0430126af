//! What an SRE sees.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::process::Tidewater;
use tests::publisher::Publisher;
use tests::{eventually, flv, http};

/// The names DESIGN promises to dashboards.
const GUARANTEED: [&str; 14] = [
    "tidewater_build_info",
    "tidewater_edge_viewers",
    "tidewater_edge_sent_bytes_total",
    "tidewater_edge_upstreams",
    "tidewater_edge_media_lag_seconds",
    "tidewater_origin_publishers",
    "tidewater_origin_received_bytes_total",
    "tidewater_origin_rooms",
    "tidewater_refused_total",
    "tidewater_raft_is_leader",
    "tidewater_raft_term",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guaranteed_metrics_are_there_and_clean() -> Result<()> {
    let data = tempfile::tempdir()?;
    let (node, ready) = Tidewater::dev(data.path(), &[]).await?;
    let mut publisher = Publisher::connect(ready.rtmp, "live", "seen").await?;
    let pushing = tokio::spawn(async move { publisher.send(Duration::from_secs(60)).await });
    let mut viewer = flv::Viewer::connect(ready.http[0], "/live/seen.flv").await?;
    viewer.watch(|seen| seen.video > 30).await?;
    let refused = Publisher::connect(ready.rtmp, "live", "seen").await;
    ensure!(refused.is_err());

    let text = http::get(ready.admin, "/metrics").await?.text();
    for name in GUARANTEED {
        ensure!(text.contains(&format!("\n{name}")), "{name} is missing");
    }
    for line in [
        "tidewater_origin_publishers 1",
        "tidewater_origin_rooms 1",
        "tidewater_edge_upstreams 1",
        "tidewater_raft_is_leader 1",
        "tidewater_edge_viewers{protocol=\"flv\"} 1",
    ] {
        eventually(line, async || {
            let text = http::get(ready.admin, "/metrics").await.ok()?.text();
            text.lines().any(|found| found == line).then_some(())
        })
        .await?;
    }
    ensure!(text.contains("tidewater_refused_total{reason=\"busy\",role=\"origin\"} 1"), "{text}");
    ensure!(!text.contains("live/seen"), "no label names a room");

    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("promtool is needed: run make setup")?;
    promtool.stdin.take().context("stdin is piped")?.write_all(text.as_bytes())?;
    let output = promtool.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.trim().is_empty(), "promtool: {said}");
    pushing.abort();
    node.kill().await
}
