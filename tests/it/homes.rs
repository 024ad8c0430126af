//! Three origins: a push goes to any of them, and the crowd does not notice when its room's home dies.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::eventually;
use tests::publisher::{Publisher, Refused};

use crate::crowd::{Crowd, home, keep_pushing, room};
use crate::places::lay_out;

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
    crowd.forget_gaps();
    first.kill().await?;
    crowd.watch(6).await?;
    let moved = home(o2, "live/moving", |home| home != "o1").await?;
    ensure!(moved == "o2", "the ingest node is preferred, not {moved}");
    println!("home killed, ingest elsewhere: {}", crowd.gaps());
    crowd.saw_no_seam(before)?;
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
