//! Placement writes per second with fsync on, for one and for three voters on this machine, and how
//! long a group is without a leader when the leader's process ends:
//! `cargo run --release -p cluster --example rate`.

#[path = "../tests/it/harness.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "shared with tests that need more of it")]
mod harness;

use std::time::{Duration, Instant};

use cluster::{Error, Roles};
use harness::{Node, Site, room, until};

const CONTROL: Roles = Roles::CONTROL.with(Roles::ORIGIN);
/// Claims under way at a time.
const CONCURRENCY: usize = 256;
/// How long claims are counted.
const WINDOW: Duration = Duration::from_secs(5);
/// How often a leader is ended.
const FAILOVERS: usize = 10;

#[tokio::main]
async fn main() -> Result<(), Error> {
    for voters in [1, 3] {
        let site = Site::new();
        let mut bound = Vec::new();
        for i in 1..=voters {
            bound.push(site.bind(&format!("o{i}"), CONTROL, "127.0.0.1:0").await);
        }
        let list: Vec<_> = bound.iter().map(|node| (node.id.clone(), node.addr)).collect();
        let mut nodes: Vec<Node> =
            bound.into_iter().map(|bound| site.start(bound, &list)).collect();
        until("all vote", || async {
            let status = nodes[0].client.status().await.ok()?;
            let votes = |m: &&wire::control::MemberInfo| m.part == wire::control::Part::Voter;
            (status.members.iter().filter(votes).count() == voters).then_some(())
        })
        .await;
        for node in &nodes {
            node.registered().await;
        }
        sequential(&nodes[0]).await?;
        concurrent(&nodes[0]).await;
        if voters > 1 {
            failovers(&site, &list, &mut nodes, true).await?;
            failovers(&site, &list, &mut nodes, false).await?;
        }
        for node in nodes {
            node.stop().await;
        }
    }
    Ok(())
}

async fn sequential(node: &Node) -> Result<(), Error> {
    let start = Instant::now();
    let mut times = Vec::new();
    for i in 0..300 {
        let at = Instant::now();
        node.client.claim(&room(&format!("s{i}")), &node.id).await?;
        times.push(at.elapsed());
    }
    times.sort();
    println!(
        "one claim at a time: {:.0}/s, p50 {:?}, p99 {:?}",
        300.0 / start.elapsed().as_secs_f64(),
        times[150],
        times[297]
    );
    Ok(())
}

async fn concurrent(node: &Node) {
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..CONCURRENCY {
        let (client, ingest) = (node.client.clone(), node.id.clone());
        tasks.spawn(async move {
            let mut done = 0_u32;
            while start.elapsed() < WINDOW {
                let name = room(&format!("c{worker}-{done}"));
                if client.claim(&name, &ingest).await.is_ok() {
                    done += 1;
                }
            }
            done
        });
    }
    let done: u32 = tasks.join_all().await.into_iter().sum();
    println!("{CONCURRENCY} claims at a time: {:.0}/s", f64::from(done) / WINDOW.as_secs_f64());
}

/// Ends the leader again and again, in good order or not, and measures how long placement stands
/// still for another node.
async fn failovers(
    site: &Site,
    list: &[(wire::NodeId, std::net::SocketAddr)],
    nodes: &mut Vec<Node>,
    in_order: bool,
) -> Result<(), Error> {
    let mut times = Vec::new();
    for round in 0..FAILOVERS {
        let leader =
            until("a leader", || async { nodes[0].client.status().await.ok()?.leader }).await;
        let Some(place) = nodes.iter().position(|node| node.id == leader) else { continue };
        let stopped = nodes.remove(place);
        let (id, addr) = (stopped.id.clone(), stopped.addr);
        let start = Instant::now();
        let ended = tokio::spawn(async move {
            if in_order { stopped.stop().await } else { stopped.abandon().await }
        });
        let node = &nodes[0];
        // The old leader may still answer while it ends in good order.
        if in_order {
            let changed = || async {
                let now = node.client.status().await.ok()?.leader?;
                (now != leader).then_some(())
            };
            until("another leader", changed).await;
        }
        until("placement works", || async {
            let name = room(&format!("f{in_order}{round}"));
            node.client.claim(&name, &node.id).await.ok()
        })
        .await;
        times.push(start.elapsed());
        let _ = ended.await;
        let bound = site.bind(id.as_str(), CONTROL, &addr.to_string()).await;
        nodes.push(site.start(bound, list));
        nodes[nodes.len() - 1].registered().await;
    }
    times.sort();
    println!(
        "leader ends {}, until another has granted a claim: p50 {:?}, worst of {} {:?}",
        if in_order { "in good order" } else { "without a word" },
        times[times.len() / 2],
        times.len(),
        times[times.len() - 1]
    );
    Ok(())
}
