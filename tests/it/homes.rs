//! Three origins: a push goes to any of them, and the crowd does not notice when its room's home dies.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::process::Tidewater;
use tests::publisher::{Publisher, Refused};
use tests::{eventually, flv, hls};
use tokio::task::JoinHandle;
use tokio::time::Instant;

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

/// Waits until the room is live under a home for which `is_it` holds, as this node sees it.
async fn home(at: &Place, name: &str, is_it: impl Fn(&str) -> bool) -> Result<String> {
    eventually("the room has such a home", async || {
        let told = room(at, name).await?;
        let home = told["home"].as_str()?.to_owned();
        is_it(&home).then_some(home)
    })
    .await
}

/// Viewers of both kinds that watch on while homes come and go.
struct Crowd {
    hls: hls::Viewer,
    flv: flv::Viewer,
    /// The longest wait for a part, and when the last one came.
    gap: Duration,
    last: Instant,
}

impl Crowd {
    async fn gather(edges: &[std::net::SocketAddr], room: &str) -> Result<Self> {
        let mut hls = hls::Viewer::new(edges, room);
        hls.start().await?;
        let mut flv = flv::Viewer::connect(edges[0], &format!("/{room}.flv")).await?;
        flv.watch(|seen| seen.video > 0).await?;
        Ok(Self { hls, flv, gap: Duration::ZERO, last: Instant::now() })
    }

    /// Watches `segments` more, both ways at once; the list keeps every rule meanwhile.
    async fn watch(&mut self, segments: u64) -> Result<()> {
        let until = self.hls.tally.segments + segments;
        let frames = self.flv.seen().video + segments * 25;
        let (gap, last) = (&mut self.gap, &mut self.last);
        *last = Instant::now();
        let mut parts = self.hls.tally.parts;
        let hls = self.hls.watch(|tally, _| {
            if tally.parts > parts {
                parts = tally.parts;
                *gap = (*gap).max(last.elapsed());
                *last = Instant::now();
            }
            tally.segments >= until
        });
        let (_, seen) = tokio::try_join!(hls, self.flv.watch(|seen| seen.video > frames))?;
        ensure!(!seen.ended, "an FLV viewer was let go");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_outlives_the_homes_of_its_room_and_nobody_notices() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let places = lay_out(dir.path(), ["o1", "o2", "o3", "e1", "e2"]).await?;
    let [o1, o2, o3, e1, e2] = &places;
    let (first, second, third) = tokio::try_join!(o1.start(), o2.start(), o3.start())?;
    let (edge1, edge2) = tokio::try_join!(e1.start(), e2.start())?;
    let edges = [e1.at(8080), e2.at(8080)];

    // The room comes to live on o1, its publisher goes away and comes back through o2.
    let mut publisher = Publisher::connect(o1.at(1935), "live", "moving").await?;
    publisher.send(Duration::from_secs(3)).await?;
    home(o1, "live/moving", |home| home == "o1").await?;
    let mut crowd = Crowd::gather(&edges, "live/moving").await?;
    publisher.finish().await?;
    let pushing = keep_pushing(Publisher::connect(o2.at(1935), "live", "moving").await?);
    crowd.hls.watch(|tally, _| tally.discontinuities >= 1 && tally.segments >= 3).await?;
    home(o2, "live/moving", |home| home == "o1").await?;
    eventually("the home knows of the edges' viewers", async || {
        let told = room(o1, "live/moving").await?;
        (told["viewers"].as_u64()? >= 1 && told["ingest"] == "o2").then_some(())
    })
    .await?;

    // A third push through o3 beside a live one is refused by the home.
    let third_push = Publisher::connect(o3.at(1935), "live", "moving").await.err();
    let refused = third_push.and_then(|e| e.downcast::<Refused>().ok());
    ensure!(refused.as_ref().is_some_and(|r| r.0.contains("BadName")), "{refused:?}");

    // The home dies: the encoder's connection to o2 stays, the stream goes on there, and viewers of
    // either kind miss nothing.
    let before = crowd.hls.tally.discontinuities;
    crowd.watch(1).await?;
    crowd.gap = Duration::ZERO;
    first.kill().await?;
    crowd.watch(6).await?;
    let moved = home(o2, "live/moving", |home| home != "o1").await?;
    ensure!(moved == "o2", "the ingest node is preferred, not {moved}");
    println!("home killed, ingest elsewhere: {:?} without a new part", crowd.gap);
    ensure!(crowd.hls.tally.discontinuities == before, "{:?}", crowd.hls.tally);
    let gap_ms = crowd.flv.seen().largest_gap_ms;
    ensure!(gap_ms < 70, "{gap_ms} ms between two frames: some are missing");
    ensure!(!pushing.is_finished(), "the encoder never lost its connection");

    // Its new home is stopped as it is ingest, too: viewers stay, and a push elsewhere goes on under
    // the same URLs after a discontinuity. Resumed, it does not serve what it has no more.
    let first = o1.start().await?;
    second.signal("STOP").await?;
    let again = eventually("a push is accepted elsewhere", async || {
        Publisher::connect(o3.at(1935), "live", "moving").await.ok()
    })
    .await?;
    let pushing_again = keep_pushing(again);
    crowd.gap = Duration::ZERO;
    crowd.hls.watch(|tally, _| tally.discontinuities == before + 1).await?;
    crowd.watch(2).await?;
    let now = home(o1, "live/moving", |home| home != "o2").await?;
    second.signal("CONT").await?;
    crowd.watch(4).await?;
    eventually("the resumed node knows the room's home", async || {
        let told = room(o2, "live/moving").await?;
        (told["home"] == now.as_str()).then_some(())
    })
    .await?;
    ensure!(crowd.hls.tally.discontinuities == before + 1, "{:?}", crowd.hls.tally);
    pushing.await.ok().context("the push")?.err().context("the ghost was told that it is over")?;
    ensure!(!pushing_again.is_finished());

    pushing_again.abort();
    for node in [edge1, edge2, third, second, first] {
        ensure!(node.terminate().await? == Some(0));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_pushes_that_race_for_a_room_one_wins() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let [o1, o2, o3] = &lay_out(dir.path(), ["o1", "o2", "o3"]).await?;
    let nodes = tokio::try_join!(o1.start(), o2.start(), o3.start())?;
    for race in 0..3 {
        let key = format!("race{race}");
        let push = async |at| {
            let mut publisher = Publisher::connect(at, "live", &key).await?;
            publisher.send(Duration::from_secs(4)).await?;
            anyhow::Ok(publisher)
        };
        let (a, b) = tokio::join!(push(o1.at(1935)), push(o2.at(1935)));
        ensure!(a.is_ok() != b.is_ok(), "race {race}: {:?} {:?}", a.err(), b.err());
        let lost = a.err().or(b.err()).and_then(|e| e.downcast::<Refused>().ok());
        ensure!(lost.as_ref().is_some_and(|r| r.0.contains("BadName")), "{lost:?}");
    }
    for node in [nodes.0, nodes.1, nodes.2] {
        ensure!(node.terminate().await? == Some(0));
    }
    Ok(())
}
