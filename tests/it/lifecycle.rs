//! A room's life: refusals, returns, the end.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::process::{Ready, Tidewater};
use tests::publisher::{Publisher, Refused};
use tests::{eventually, flv, hls, http};
use tokio::task::JoinHandle;

fn keep_pushing(mut publisher: Publisher) -> JoinHandle<Publisher> {
    tokio::spawn(async move {
        // Ends with an error when the server ends the push, which is for the test to see elsewhere.
        let _ = publisher.send(Duration::from_secs(120)).await;
        publisher
    })
}

async fn start(extra: &[&str]) -> Result<(tempfile::TempDir, Tidewater, Ready)> {
    let data = tempfile::tempdir()?;
    let (node, ready) = Tidewater::dev(data.path(), extra).await?;
    Ok((data, node, ready))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_return_within_the_grace_time_keeps_every_viewer() -> Result<()> {
    let (_data, node, ready) = start(&["--edges", "2"]).await?;
    let mut first = Publisher::connect(ready.rtmp, "live", "back").await?;
    let mut hls = hls::Viewer::new(&ready.http, "live/back");
    // Short of the key frame at 4 s, with which a viewer would begin and see nothing behind it.
    first.send(Duration::from_millis(3_900)).await?;
    let mut flv = flv::Viewer::connect(ready.http[1], "/live/back.flv").await?;
    let before = flv.watch(|seen| seen.video >= 20).await?.clone();
    hls.start().await?;
    first.finish().await?;

    let pushing = keep_pushing(Publisher::connect(ready.rtmp, "live", "back").await?);
    hls.watch(|tally, _| tally.discontinuities >= 1 && tally.segments >= 4).await?;
    let after = flv.watch(|seen| seen.video >= before.video + 60).await?;
    ensure!(!after.ended, "the same response goes on");
    pushing.abort();
    node.kill().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_grace_time_over_the_stream_ends_everywhere_and_a_new_one_may_begin() -> Result<()> {
    let extra = ["--edges", "3", "--set", "room.publish_grace=1s"];
    let (_data, node, ready) = start(&extra).await?;
    let mut publisher = Publisher::connect(ready.rtmp, "live", "over").await?;
    let mut hls = hls::Viewer::new(&ready.http[..2], "live/over");
    publisher.send(Duration::from_secs(3)).await?;
    hls.start().await?;
    let mut flv = flv::Viewer::connect(ready.http[0], "/live/over.flv").await?;
    flv.watch(|seen| seen.video > 0).await?;
    publisher.finish().await?;
    hls.watch(|_, list| list.ended).await?;
    let last = hls.playlist().and_then(|list| list.segments.last().map(|s| s.msn));
    let seen = flv.watch(|_| false).await?;
    ensure!(seen.ended);
    // An edge that hears of the room only now has all of what remains of it.
    let mut late = hls::Viewer::new(&ready.http[2..], "live/over");
    late.start().await?;
    ensure!(late.playlist().is_some_and(|list| list.ended), "{:?}", late.playlist());
    ensure!(late.playlist().and_then(|list| list.segments.last().map(|s| s.msn)) == last);

    // The next stream of the room has other names and higher numbers.
    let pushing = keep_pushing(Publisher::connect(ready.rtmp, "live", "over").await?);
    let mut again = hls::Viewer::new(&ready.http, "live/over");
    eventually("a new stream under the same URL", async || {
        let answer = http::get(ready.http[0], "/live/over/main.m3u8").await.ok()?;
        (answer.status == 200 && !answer.text().contains("ENDLIST")).then_some(())
    })
    .await?;
    eventually("the other edge follows", async || {
        let answer = http::get(ready.http[1], "/live/over/main.m3u8").await.ok()?;
        (answer.status == 200 && !answer.text().contains("ENDLIST")).then_some(())
    })
    .await?;
    again.watch(|tally, _| tally.segments >= 2).await?;
    let first = again.playlist().map(|list| list.media_sequence);
    ensure!(first > last, "numbers only go up: {first:?} after {last:?}");
    pushing.abort();
    node.kill().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_push_beside_a_live_one_is_refused_by_name() -> Result<()> {
    let (_data, node, ready) = start(&[]).await?;
    let pushing = keep_pushing(Publisher::connect(ready.rtmp, "live", "one").await?);
    let mut flv = flv::Viewer::connect(ready.http[0], "/live/one.flv").await?;
    flv.watch(|seen| seen.video > 0).await?;
    let second = Publisher::connect(ready.rtmp, "live", "one").await;
    let refused = second.err().and_then(|e| e.downcast::<Refused>().ok());
    ensure!(refused.as_ref().is_some_and(|r| r.0.contains("BadName")), "{refused:?}");
    let so_far = flv.seen().video;
    flv.watch(|seen| seen.video > so_far + 30).await?;
    pushing.abort();
    node.kill().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_beside_a_silent_one_is_live_soon() -> Result<()> {
    let (_data, node, ready) = start(&[]).await?;
    let mut silent = Publisher::connect(ready.rtmp, "live", "ghost").await?;
    silent.send(Duration::from_secs(2)).await?;
    // The socket stays open and says nothing: no FIN, as when the streamer's network went away.
    let ghost = silent.into_socket();
    let pushing = keep_pushing(Publisher::connect(ready.rtmp, "live", "ghost").await?);
    let mut flv = flv::Viewer::connect(ready.http[0], "/live/ghost.flv").await?;
    let so_far = flv.seen().video;
    flv.watch(|seen| seen.video > so_far + 60).await?;
    drop(ghost);
    pushing.abort();
    node.kill().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_room_is_404_and_seen_as_soon_as_it_begins() -> Result<()> {
    let (_data, node, ready) = start(&[]).await?;
    let edge = ready.http[0];
    let answer = http::get(edge, "/live/soon.m3u8").await?;
    ensure!(answer.status == 404, "{answer:?}");
    ensure!(answer.header("cache-control").contains("max-age=1"), "{answer:?}");
    let pushing = keep_pushing(Publisher::connect(ready.rtmp, "live", "soon").await?);
    // The negative entry falls with the first word of the room: FLV is answered, not refused.
    eventually("the room is found", async || {
        flv::Viewer::connect(edge, "/live/soon.flv").await.ok()
    })
    .await?;
    pushing.abort();
    node.kill().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_finishes_what_is_in_flight_and_exits_zero() -> Result<()> {
    let (_data, node, ready) = start(&["--demo"]).await?;
    let mut flv = flv::Viewer::when_live(ready.http[0], "/live/demo.flv").await?;
    flv.watch(|seen| seen.video > 30).await?;
    ensure!(node.terminate().await? == Some(0));
    let seen = flv.watch(|_| false).await?;
    ensure!(seen.ended, "the response ended at a tag boundary");
    Ok(())
}
