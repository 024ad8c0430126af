//! Networks that break, in virtual time.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use wire::{
    Endpoint, Error, Identity, Limits, Links, Metrics,
    endpoint::{DIAL_TIMEOUT, IDLE_TIMEOUT},
};

use crate::{
    harness::{Cluster, Echo, echo, hello, node_id},
    simulated::under,
};

const PORT: u16 = 7400;

/// Slack for round trips and timers of a simulated network that is slow, but not for another
/// time-out.
const SLACK: Duration = Duration::from_secs(2);

async fn endpoint(identity: &Identity) -> Endpoint {
    let node = identity.node().as_str();
    let mut seed = [0; 32];
    seed[..node.len()].copy_from_slice(node.as_bytes());
    let under = under(PORT, seed).await.unwrap();
    let limits = Limits::default();
    let endpoint =
        Endpoint::bind_abstract(under, identity, hello(node), limits, &Metrics::new()).unwrap();
    endpoint.serve(vec![Echo::new()]).unwrap();
    endpoint
}

fn simulation(seed: u64) -> turmoil::Sim<'static> {
    turmoil::Builder::new()
        .simulation_duration(Duration::from_secs(120))
        .min_message_latency(Duration::from_millis(5))
        .max_message_latency(Duration::from_millis(40))
        .udp_capacity(4096)
        .rng_seed(seed)
        .build()
}

/// Runs `body` on the edge `e1`, with its links and the address of the origin `o1`.
fn with_an_origin<F>(seed: u64, body: impl FnOnce(Links, SocketAddr) -> F + 'static)
where
    F: Future<Output = ()> + 'static,
{
    let cluster = Cluster::new();
    let (home, edge) = (cluster.identity("o1"), cluster.identity("e1"));
    let mut simulation = simulation(seed);
    simulation.host("o1", move || {
        let home = home.clone();
        async move {
            let _endpoint = endpoint(&home).await;
            std::future::pending().await
        }
    });
    simulation.client("e1", async move {
        let links = Links::new(endpoint(&edge).await);
        body(links, SocketAddr::new(turmoil::lookup("o1"), PORT)).await;
        Ok(())
    });
    simulation.run().unwrap();
}

#[test]
fn a_cut_link_is_noticed_and_comes_back() {
    for seed in 0..5 {
        with_an_origin(seed, async |links, address| {
            let home = node_id("o1");
            let peer = links.get(&home, address).await.unwrap();
            echo(&peer, "up").await.unwrap();
            let cut_at = tokio::time::Instant::now();
            turmoil::partition("o1", "e1");
            assert_eq!(peer.closed().await, Error::Lost { why: "not heard from in time" });
            assert!(cut_at.elapsed() <= IDLE_TIMEOUT + SLACK, "{:?}", cut_at.elapsed());

            let dialled_at = tokio::time::Instant::now();
            let error = links.get(&home, address).await.unwrap_err();
            assert!(matches!(error, Error::TimedOut { .. }), "{error}");
            assert_eq!(dialled_at.elapsed().as_secs(), DIAL_TIMEOUT.as_secs());

            turmoil::repair("o1", "e1");
            tokio::time::sleep(wire::links::FAILURE_MEMORY).await;
            let peer = links.get(&home, address).await.unwrap();
            echo(&peer, "again").await.unwrap();
        });
    }
}

#[test]
fn a_short_cut_is_ridden_out() {
    with_an_origin(7, async |links, address| {
        let peer = links.get(&node_id("o1"), address).await.unwrap();
        for _ in 0..3 {
            turmoil::partition("o1", "e1");
            let spoken = tokio::spawn({
                let peer = Arc::clone(&peer);
                async move { echo(&peer, "through the cut").await }
            });
            tokio::time::sleep(Duration::from_secs(2)).await;
            turmoil::repair("o1", "e1");
            spoken.await.unwrap().unwrap();
        }
        assert!(!peer.is_closed());
    });
}

#[test]
fn a_node_that_crashes_and_returns_is_dialled_anew() {
    let cluster = Cluster::new();
    let (home, edge) = (cluster.identity("o1"), cluster.identity("e1"));
    let mut simulation = simulation(11);
    simulation.host("o1", move || {
        let home = home.clone();
        async move {
            let _endpoint = endpoint(&home).await;
            std::future::pending().await
        }
    });
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    simulation.client("e1", async move {
        let links = Links::new(endpoint(&edge).await);
        let address = SocketAddr::new(turmoil::lookup("o1"), PORT);
        let peer = links.get(&node_id("o1"), address).await.unwrap();
        echo(&peer, "before").await.unwrap();
        tell.send(()).unwrap();
        let error = peer.closed().await;
        assert!(matches!(error, Error::Lost { .. }), "{error}");
        let peer = links.get(&node_id("o1"), address).await.unwrap();
        echo(&peer, "after").await.unwrap();
        Ok(())
    });
    while told.try_recv().is_err() {
        simulation.step().unwrap();
    }
    simulation.crash("o1");
    simulation.bounce("o1");
    simulation.run().unwrap();
}
