//! Three origins: a push goes to any of them, and survives the death of its room's home.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::process::Tidewater;
use tests::publisher::{Publisher, Refused};
use tests::{eventually, flv, hls};
use tokio::task::JoinHandle;

use crate::places::{Place, lay_out};

fn keep_pushing(mut publisher: Publisher) -> JoinHandle<Result<()>> {
    tokio::spawn(async move { publisher.send(Duration::from_secs(120)).await })
}

/// What `room show --json` says, asked at this node.
async fn room(place: &Place, room: &str) -> Option<serde_json::Value> {
    let admin = format!("admin.listen={}", place.at(8081));
    let args = ["room", "show", room, "--json", "--set", &admin];
    let (code, out, _) = Tidewater::command(&args).await.ok()?;
    (code == Some(0)).then(|| serde_json::from_str(&out).ok())?
}

async fn home(places: &[Place], name: &str) -> Result<String> {
    eventually("the room has a home", async || {
        for place in places {
            let told = room(place, name).await.and_then(|v| Some(v["home"].as_str()?.to_owned()));
            if told.is_some() {
                return told;
            }
        }
        None
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_elsewhere_reaches_the_home_and_outlives_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let places = lay_out(dir.path(), ["o1", "o2", "o3", "e1"]).await?;
    let [o1, o2, o3, e1] = &places;
    let (first, second, third) = tokio::try_join!(o1.start(), o2.start(), o3.start())?;
    let edge = e1.start().await?;
    let edges = [e1.at(8080)];

    // The room comes to live on o1, and its publisher goes away.
    let mut publisher = Publisher::connect(o1.at(1935), "live", "moving").await?;
    publisher.send(Duration::from_secs(3)).await?;
    ensure!(home(&places[..3], "live/moving").await? == "o1");
    let mut hls = hls::Viewer::new(&edges, "live/moving");
    hls.start().await?;
    let mut flv = flv::Viewer::connect(edges[0], "/live/moving.flv").await?;
    flv.watch(|seen| seen.video > 0).await?;
    publisher.finish().await?;

    // It comes back through o2: the home stays, and so do the viewers.
    let pushing = keep_pushing(Publisher::connect(o2.at(1935), "live", "moving").await?);
    hls.watch(|tally, _| tally.discontinuities >= 1 && tally.segments >= 3).await?;
    ensure!(home(&places[..3], "live/moving").await? == "o1", "the home has no reason to move");
    let so_far = flv.seen().video;
    ensure!(!flv.watch(|seen| seen.video > so_far + 30).await?.ended);
    eventually("the home knows of the edge's viewers", async || {
        let told = room(o1, "live/moving").await?;
        (told["viewers"].as_u64()? >= 1 && told["ingest"] == "o2").then_some(())
    })
    .await?;

    // A third push through o3 beside a live one is refused by the home.
    let third_push = Publisher::connect(o3.at(1935), "live", "moving").await.err();
    let refused = third_push.and_then(|e| e.downcast::<Refused>().ok());
    ensure!(refused.as_ref().is_some_and(|r| r.0.contains("BadName")), "{refused:?}");

    // The home dies: the encoder's connection to o2 stays, and the stream goes on.
    first.kill().await?;
    let moved = eventually("the room has another home", async || {
        let told = room(o2, "live/moving").await?;
        let at = told["home"].as_str()?.to_owned();
        (at != "o1" && told["state"] == "live").then_some(at)
    })
    .await?;
    ensure!(moved == "o2", "the ingest node is preferred, not {moved}");
    eventually("viewers go on", async || {
        let mut viewer = flv::Viewer::connect(edges[0], "/live/moving.flv").await.ok()?;
        viewer.watch(|seen| seen.video > 30).await.ok()?;
        (!viewer.seen().ended).then_some(())
    })
    .await?;
    ensure!(!pushing.is_finished(), "the encoder never lost its connection");
    let mut again = hls::Viewer::new(&edges, "live/moving");
    again.watch(|tally, _| tally.segments >= 3).await?;
    let (last, first_again) = (hls.playlist(), again.playlist());
    let last = last.and_then(|l| l.segments.last().map(|s| s.msn)).context("segments")?;
    ensure!(first_again.is_some_and(|list| list.media_sequence > last), "numbers only go up");

    pushing.abort();
    for node in [edge, third, second] {
        ensure!(node.terminate().await? == Some(0));
    }
    Ok(())
}
