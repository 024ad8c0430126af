//! One connection per node, whoever asks and however often.

use std::sync::Arc;

use tokio::task::JoinSet;
use wire::{Error, Limits, Links, error::CloseCode, links::FAILURE_MEMORY};

use crate::harness::{Cluster, Node, echo, hello, until, within};

async fn crowd(links: &Links, node: &Node, size: usize) -> Vec<Result<usize, Error>> {
    let mut asking = JoinSet::new();
    for _ in 0..size {
        let (links, id, address) = (links.clone(), node.id.clone(), node.address);
        asking.spawn(async move { links.get(&id, address).await.map(|peer| peer.id()) });
    }
    within(asking.join_all()).await
}

#[tokio::test]
async fn a_crowd_shares_one_dial() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node("o1"), cluster.node("e1"));
    let links = Links::new(b.endpoint.clone());
    let ids = crowd(&links, &a, 100).await;
    assert!(ids.iter().all(|id| *id == ids[0] && id.is_ok()), "{ids:?}");
    until("o1 sees it", || a.metric("tidewater_wire_connections{", "accepted") > 0.0).await;
    assert_eq!(a.metric("tidewater_wire_connections{", "accepted"), 1.0);
}

#[tokio::test]
async fn a_crowd_shares_one_failure_for_a_moment() {
    let cluster = Cluster::new();
    let full = Limits { max_handshakes: 0, retry_above: 1, ..Limits::default() };
    let a = cluster.node_with("o1", hello("o1"), full, vec![]);
    let b = cluster.node("e1");
    let links = Links::new(b.endpoint.clone());
    let failures = "tidewater_wire_dials_failed_total";
    let errors = crowd(&links, &a, 20).await;
    assert!(errors.iter().all(Result::is_err));
    // One dial, or two if this machine was too slow to ask them all within the memory.
    let dials = b.metric(failures, "");
    assert!((1.0..20.0).contains(&dials), "{dials} dials");
    tokio::time::sleep(FAILURE_MEMORY).await;
    assert!(links.get(&a.id, a.address).await.is_err());
    assert!(b.metric(failures, "") > dials, "forgotten failures are dialled again");
}

#[tokio::test]
async fn a_dead_connection_is_dialled_anew() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node("o1"), cluster.node("e1"));
    let links = Links::new(b.endpoint.clone());
    let first = within(links.get(&a.id, a.address)).await.unwrap();
    first.close(CloseCode::Protocol, "test");
    let second = within(links.get(&a.id, a.address)).await.unwrap();
    assert_ne!(first.id(), second.id());
    within(echo(&second, "anew")).await.unwrap();
}

#[tokio::test]
async fn a_node_that_moved_is_dialled_where_it_is() {
    let cluster = Cluster::new();
    let (here, there) = (cluster.node("o1"), cluster.node("o1"));
    let b = cluster.node("e1");
    let links = Links::new(b.endpoint.clone());
    let first = within(links.get(&here.id, here.address)).await.unwrap();
    let second = within(links.get(&there.id, there.address)).await.unwrap();
    assert_eq!(second.address(), there.address);
    assert!(first.is_closed());
    until("it is told", || here.metric("tidewater_wire_connections{", "accepted") == 0.0).await;
}

#[tokio::test]
async fn a_node_that_left_is_let_go() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node("o1"), cluster.node("e1"));
    let links = Links::new(b.endpoint.clone());
    let peer = within(links.get(&a.id, a.address)).await.unwrap();
    links.forget(&a.id);
    assert_eq!(within(peer.closed()).await, Error::LocallyClosed);
    links.forget(&a.id);
}

#[tokio::test]
async fn whoever_gives_up_while_dialling_leaves_it_to_the_next() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node("o1"), cluster.node("e1"));
    let links = Links::new(b.endpoint.clone());
    let impatient = tokio::time::timeout(std::time::Duration::ZERO, links.get(&a.id, a.address));
    assert!(impatient.await.is_err(), "a dial takes longer than one poll");
    let peer: Arc<wire::Peer> = within(links.get(&a.id, a.address)).await.unwrap();
    within(echo(&peer, "dialled")).await.unwrap();
}
