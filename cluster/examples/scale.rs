//! Numbers for a large cluster, by the real driver without network and disk:
//! `cargo run --release -p cluster --features sim --example scale`.

use std::time::{Duration, Instant};

use cluster::Roles;
use cluster::sim::scale::Leader;

const EDGES: usize = 1000;
const ORIGINS: usize = 20;
const ROOMS: usize = 100_000;
const VIEWERS: f64 = 1_000_000.0;

fn main() {
    let mut leader = Leader::default();
    leader.register("o", ORIGINS, Roles::ORIGIN);
    leader.register("e", EDGES, Roles::EDGE);

    let start = Instant::now();
    let mut answers = 0;
    for batch in 0..ROOMS / 2000 {
        answers += leader.claim(batch * 2000, 2000, ORIGINS).answers;
        leader.beat("o", ORIGINS, |_| 0);
        leader.beat("e", EDGES, |_| 0);
    }
    println!("{answers} rooms placed in {:?}", start.elapsed());
    println!(
        "snapshot of {ROOMS} rooms, {} nodes: {} bytes",
        EDGES + ORIGINS,
        leader.state_bytes()
    );

    let start = Instant::now();
    let storm = leader.claim(ROOMS, 10_000, ORIGINS);
    println!("storm of {} activations: {:?} of one core", storm.answers, start.elapsed());

    let (start, rounds) = (Instant::now(), 40);
    for _ in 0..rounds {
        leader.beat("o", ORIGINS, |_| 0);
        leader.beat("e", EDGES, |_| 1000);
    }
    let per_second = start.elapsed() / rounds * 4;
    println!("heartbeats of {} nodes: {per_second:?} of one core a second", EDGES + ORIGINS);

    // One origin falls silent while all others go on.
    let start = Instant::now();
    let mut moved = 0;
    for _ in 0..200 {
        moved += leader.beat("o", ORIGINS - 1, |_| 0).rooms;
        moved += leader.beat("e", EDGES, |_| 0).rooms;
    }
    println!(
        "one of {ORIGINS} origins dies: {moved} rooms moved, {:?} of one core in 10 s of heartbeats",
        start.elapsed()
    );
    leader.wait(Duration::from_millis(100));
    crowd(&leader);
}

/// Viewers with heavy-tailed popularity arrive one crowd at a time.
fn crowd(leader: &Leader) {
    let mut viewers = vec![0_u32; EDGES];
    let weights: f64 = (1..=2000).map(|rank| 1.0 / f64::from(rank)).sum();
    let mut edges_used = 0;
    for rank in 1..=2000_u32 {
        let mut left = (VIEWERS / f64::from(rank) / weights) as u32;
        let mut used = std::collections::BTreeSet::new();
        while left > 0 {
            let crowd = left.min(200);
            let edge = leader.edges(rank as usize, 1, &viewers)[0];
            viewers[edge] += crowd;
            used.insert(edge);
            left -= crowd;
        }
        edges_used += used.len();
    }
    let total: u64 = viewers.iter().copied().map(u64::from).sum();
    let most = viewers.iter().max().copied().unwrap_or(0);
    println!(
        "{total} viewers of 2000 rooms by Zipf on {EDGES} edges: average {}, most {most}, {:.1} edges a room",
        total / EDGES as u64,
        edges_used as f64 / 2000.0
    );
}
