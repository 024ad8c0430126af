//! Bad input costs its own connection and nothing else.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::process::{Ready, Tidewater};
use tests::publisher::Publisher;
use tests::{eventually, flv, http};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;

async fn start() -> Result<(tempfile::TempDir, Tidewater, Ready)> {
    let data = tempfile::tempdir()?;
    let (node, ready) = Tidewater::dev(data.path(), &["--demo"]).await?;
    Ok((data, node, ready))
}

/// Resident memory of a process in bytes.
fn resident(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages: u64 = text.split(' ').nth(1).context("statm has a second field")?.parse()?;
    Ok(pages * 4096)
}

/// Bytes that look random and are the same in every run.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| next()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_on_every_port_disturbs_nobody() -> Result<()> {
    let (_data, node, ready) = start().await?;
    let mut viewer = flv::Viewer::when_live(ready.http[0], "/live/demo.flv").await?;
    viewer.watch(|seen| seen.video > 10).await?;
    for seed in 0..40 {
        for to in [ready.rtmp, ready.http[0], ready.admin] {
            let mut socket = TcpStream::connect(to).await?;
            let mut bytes = noise(seed, 5_000);
            if seed % 2 == 0 {
                // Past the RTMP handshake's first byte, where more is read.
                bytes[0] = 3;
            }
            // The other side may hang up in the middle, which is its right.
            let _ = socket.write_all(&bytes).await;
            let _ = timeout(Duration::from_millis(50), socket.read(&mut [0; 64])).await;
        }
        let udp = UdpSocket::bind((ready.cluster.ip(), 0)).await?;
        udp.send_to(&noise(seed, 1_200), ready.cluster).await?;
    }
    let so_far = viewer.seen().video;
    viewer.watch(|seen| seen.video > so_far + 30).await?;
    let metrics = http::get(ready.admin, "/metrics").await?.text();
    ensure!(metrics.contains("tidewater_refused_total{"), "refusals are counted");
    node.kill().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_names_that_do_not_exist_cost_little() -> Result<()> {
    let (_data, node, ready) = start().await?;
    let pid = node.pid().context("it runs")?;
    let mut viewer = flv::Viewer::when_live(ready.http[0], "/live/demo.flv").await?;
    viewer.watch(|seen| seen.video > 10).await?;
    let before = resident(pid)?;
    let revision = placements(&ready).await?;
    let polls = (0..8).map(|part| {
        let edge = ready.http[0];
        tokio::spawn(async move {
            let mut socket = TcpStream::connect(edge).await?;
            for name in 0..1_250 {
                let path = format!("/live/nobody-{part}-{name}.m3u8");
                let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
                socket.write_all(request.as_bytes()).await?;
                let head = read_answer(&mut socket).await?;
                ensure!(head.starts_with("HTTP/1.1 404"), "{head}");
            }
            Ok(())
        })
    });
    for poll in polls.collect::<Vec<_>>() {
        poll.await??;
    }
    let grown = resident(pid)?.saturating_sub(before);
    ensure!(grown < 100 << 20, "10,000 unknown names take {grown} bytes");
    ensure!(placements(&ready).await? == revision, "polls write nothing to the log");
    let so_far = viewer.seen().video;
    viewer.watch(|seen| seen.video > so_far + 30).await?;
    node.kill().await
}

async fn placements(ready: &Ready) -> Result<String> {
    let answer = http::get(ready.admin, "/api/v1/rooms").await?;
    ensure!(answer.status == 200, "{answer:?}");
    let value: serde_json::Value = serde_json::from_slice(&answer.body)?;
    let rooms = value["rooms"].as_array().context("a list of rooms")?;
    // Placement only: viewers come and go without the log.
    let placed = rooms.iter().map(|r| format!("{} {} {}", r["room"], r["home"], r["epoch"]));
    Ok(placed.collect::<Vec<_>>().join(","))
}

/// Reads one answer with a Content-Length and returns its head.
async fn read_answer(socket: &mut TcpStream) -> Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await?);
    }
    let head = String::from_utf8(head)?.to_ascii_lowercase();
    let length = head.split("content-length:").nth(1).and_then(|rest| rest.lines().next());
    let length: usize = length.context("a length")?.trim().parse()?;
    socket.read_exact(&mut vec![0; length]).await?;
    Ok(head.replacen("http", "HTTP", 1))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_never_reads_is_let_go_and_others_go_on() -> Result<()> {
    let (_data, node, ready) = start().await?;
    let mut viewer = flv::Viewer::when_live(ready.http[0], "/live/demo.flv").await?;
    viewer.watch(|seen| seen.video > 10).await?;
    let socket = TcpSocket::new_v4()?;
    // Else the two kernels hold minutes of the test card, and nobody notices.
    socket.set_recv_buffer_size(4096)?;
    let mut sleeper = socket.connect(ready.http[0]).await?;
    sleeper.write_all(b"GET /live/demo.flv HTTP/1.1\r\nHost: x\r\n\r\n").await?;
    let closed = |text: &str| {
        let total = text.lines().filter(|l| l.starts_with("tidewater_edge_flv_closed_total{"));
        total.filter(|l| !l.ends_with(" 0")).count() > 0
    };
    let mut so_far = viewer.seen().video;
    for _ in 0..60 {
        so_far += 30;
        viewer.watch(|seen| seen.video > so_far).await?;
        let text = http::get(ready.admin, "/metrics").await?.text();
        if closed(&text) {
            break;
        }
    }
    eventually("the sleeper is let go", async || {
        let text = http::get(ready.admin, "/metrics").await.ok()?.text();
        closed(&text).then_some(())
    })
    .await?;
    drop(sleeper);
    node.kill().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encoder_that_sends_no_key_frame_is_told_and_hurts_nobody() -> Result<()> {
    let (_data, node, ready) = start().await?;
    let publisher = Publisher::connect(ready.rtmp, "live", "headless").await?;
    // A publish without any media: the room exists, its playlist does not.
    let answer = http::get(ready.http[0], "/live/headless/main.m3u8").await?;
    ensure!(answer.status == 503, "{answer:?}");
    ensure!(!answer.header("retry-after").is_empty());
    drop(publisher);
    node.kill().await
}
