//! Rooms that move because an operator says so, and nodes that restart one by one: nobody notices.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::eventually;
use tests::process::Tidewater;
use tests::publisher::Publisher;

use crate::crowd::{Crowd, home, keep_pushing, push_anywhere, room};
use crate::places::{Place, lay_out};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_moved_by_command_or_drained_goes_on_without_a_seam() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let places = lay_out(dir.path(), ["o1", "o2", "o3", "e1", "e2"]).await?;
    let [o1, o2, o3, e1, e2] = &places;
    let (first, second, third) = tokio::try_join!(o1.start(), o2.start(), o3.start())?;
    let (edge1, edge2) = tokio::try_join!(e1.start(), e2.start())?;

    // The room comes to live on o1; its publisher comes back through o2.
    let mut publisher = Publisher::connect(o1.at(1935), "live", "moved").await?;
    publisher.send(Duration::from_secs(2)).await?;
    home(o1, "live/moved", |home| home == "o1").await?;
    publisher.finish().await?;
    let pushing = keep_pushing(Publisher::connect(o2.at(1935), "live", "moved").await?);
    eventually("the push comes through o2", async || {
        let told = room(o1, "live/moved").await?;
        (told["ingest"] == "o2" && told["home"] == "o1").then_some(())
    })
    .await?;
    let mut crowd = Crowd::gather(&[e1.at(8080), e2.at(8080)], "live/moved").await?;
    crowd.watch(4).await?;
    let before = crowd.hls.tally.discontinuities;

    // To a node without its publisher, on to the one with it, and away again.
    for to in ["o3", "o2", "o1"] {
        crowd.forget_gaps();
        let placed = e1.json(&["room", "place", "live/moved", to]).await?;
        ensure!(placed["home"] == to, "{placed}");
        crowd.watch(4).await?;
        println!("moved to {to} by command: {}", crowd.gaps());
        crowd.saw_no_seam(before)?;
        home(o2, "live/moved", |home| home == to).await?;
    }

    // A drain is such a move, and says when it is done.
    crowd.forget_gaps();
    let drained = e2.json(&["cluster", "drain", "o1"]).await?;
    ensure!(drained["rooms"] == 0 && drained["state"] == "draining", "{drained}");
    crowd.watch(4).await?;
    let moved = home(o1, "live/moved", |home| home != "o1").await?;
    ensure!(moved == "o2", "the ingest node is preferred, not {moved}");
    println!("home drained: {}", crowd.gaps());
    crowd.saw_no_seam(before)?;
    ensure!(!pushing.is_finished(), "the encoder never lost its connection");

    // A drained edge sends its FLV viewers elsewhere at a tag's end, and refuses nobody else.
    let drained = e2.json(&["cluster", "drain", "e1"]).await?;
    ensure!(drained["state"] == "draining", "{drained}");
    ensure!(crowd.flv.watch(|_| false).await?.ended, "its FLV viewer is let go");
    let until = crowd.hls.tally.segments + 4;
    crowd.hls.watch(|tally, _| tally.segments >= until).await?;
    ensure!(crowd.hls.tally.discontinuities == before, "{:?}", crowd.hls.tally);

    pushing.abort();
    for node in [edge1, edge2, third, second, first] {
        ensure!(node.terminate().await? == Some(0));
    }
    Ok(())
}

/// Ends a node in order and starts it again, until the cluster counts on it.
async fn restart(node: Tidewater, place: &Place, asked: &Place) -> Result<Tidewater> {
    ensure!(node.terminate().await? == Some(0), "{} did not stop in order", place.id);
    let node = place.start().await?;
    eventually("the restarted node counts", async || {
        let status = asked.json(&["cluster", "status"]).await.ok()?;
        let row = status["nodes"].as_array()?.iter().find(|row| row["id"] == place.id)?.clone();
        (row["state"] == "up" && !status["leader"].is_null()).then_some(())
    })
    .await?;
    Ok(node)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_restart_one_by_one_and_no_viewer_elsewhere_sees_an_error() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let places = lay_out(dir.path(), ["o1", "o2", "o3", "e1", "e2"]).await?;
    let [o1, o2, o3, e1, e2] = &places;
    let origins = tokio::try_join!(o1.start(), o2.start(), o3.start())?;
    let (edge1, edge2) = tokio::try_join!(e1.start(), e2.start())?;

    // The room lives on o1 and is pushed through o2, then wherever an encoder gets in.
    let mut publisher = Publisher::connect(o1.at(1935), "live", "rolling").await?;
    publisher.send(Duration::from_secs(2)).await?;
    publisher.finish().await?;
    let pushing = push_anywhere([o2, o3, o1].map(|o| o.at(1935)).to_vec(), "rolling");
    let mut crowd = eventually("the room is live on both edges", async || {
        Crowd::gather(&[e1.at(8080), e2.at(8080)], "live/rolling").await.ok()
    })
    .await?;
    crowd.watch(2).await?;

    // Origins, the home first. Where its publisher is elsewhere, the crowd meets no seam.
    let mut running = Vec::new();
    for (node, place) in [origins.0, origins.2, origins.1].into_iter().zip([o1, o3, o2]) {
        let told = room(e1, "live/rolling").await.context("the room is placed")?;
        let is_ingest = told["ingest"] == place.id;
        let before = crowd.hls.tally.discontinuities;
        crowd.forget_gaps();
        let (node, ()) = tokio::try_join!(restart(node, place, e1), crowd.watch(8))?;
        println!("{} restarted (home {}): {}", place.id, told["home"], crowd.gaps());
        if !is_ingest {
            crowd.saw_no_seam(before)?;
        }
        running.push(node);
    }

    // Edges: whoever watches on the other one sees nothing of it.
    for (edge, place, other) in [(edge1, e1, e2), (edge2, e2, e1)] {
        let mut others = Crowd::gather(&[other.at(8080)], "live/rolling").await?;
        others.watch(1).await?;
        let before = others.hls.tally.discontinuities;
        others.forget_gaps();
        let (edge, ()) = tokio::try_join!(restart(edge, place, o1), others.watch(4))?;
        println!("{} restarted: {}", place.id, others.gaps());
        others.saw_no_seam(before)?;
        running.push(edge);
    }
    pushing.abort();
    for node in running.into_iter().rev() {
        ensure!(node.terminate().await? == Some(0));
    }
    Ok(())
}
