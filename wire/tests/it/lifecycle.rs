//! Identities change, nodes restart and shut down.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, SystemTime},
};

use tokio::{net::UdpSocket, sync::watch};
use wire::{
    Error, IdentityFiles, Limits,
    error::CloseCode,
    identity::authority::{Existing, NODE_VALIDITY},
};

use crate::harness::{Cluster, Echo, Node, echo, hello, node_id, until, within};

#[tokio::test]
async fn another_identity_is_for_new_connections_and_keeps_the_live_ones() {
    let (old, new) = (Cluster::new(), Cluster::new());
    let (a, b) = (old.node("o1"), old.node("e1"));
    let peer = within(b.dial(&a)).await.unwrap();
    a.endpoint.reload(&new.identity("o1")).unwrap();
    within(echo(&peer, "still up")).await.unwrap();
    let error = within(b.dial(&a)).await.unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "the old CA opens no new connection: {error}");
    b.endpoint.reload(&new.identity("e1")).unwrap();
    let next = within(b.dial(&a)).await.unwrap();
    within(echo(&next, "the new CA does")).await.unwrap();
    within(echo(&peer, "and still")).await.unwrap();

    let error = a.endpoint.reload(&new.identity("o2")).unwrap_err();
    assert_eq!(error.to_string(), "identity: it is of o2, this node is o1");
}

#[tokio::test]
async fn changed_files_are_taken_up_and_bad_ones_are_not() {
    let cluster = Cluster::new();
    let dir = tempfile::tempdir().unwrap();
    let write = |days: u32, existing| {
        let validity = Duration::from_secs(u64::from(days) * 24 * 3600);
        let issued = cluster.authority.issue(&node_id("o1"), &[], SystemTime::now(), validity);
        issued.unwrap().write(dir.path(), existing).unwrap();
    };
    cluster.authority.write(dir.path()).unwrap();
    write(10, Existing::Keep);
    let files = IdentityFiles {
        ca: dir.path().join("ca.pem"),
        cert: dir.path().join("o1.pem"),
        key: dir.path().join("o1.key"),
    };
    let identity = files.load(&node_id("o1")).unwrap();
    let a = Node::start(&identity, hello("o1"), Limits::default(), vec![Echo::new()]);
    let b = cluster.node("e1");
    let peer = within(b.dial(&a)).await.unwrap();
    let first = a.endpoint.certificate_expiry();
    a.endpoint.follow(files.clone(), Duration::from_millis(5));

    write(20, Existing::Replace);
    until("the new certificate is in use", || a.endpoint.certificate_expiry() > first).await;
    let second = a.endpoint.certificate_expiry();
    within(echo(&peer, "live ones stay")).await.unwrap();
    within(b.dial(&a)).await.unwrap();

    std::fs::write(&files.cert, "half a file").unwrap();
    // The follower passes over the bad file and goes on to the good one after it.
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(a.endpoint.certificate_expiry(), second);
    write(30, Existing::Replace);
    until("the next one is in use", || a.endpoint.certificate_expiry() > second).await;
    let expiry = a.metric("tidewater_wire_certificate_expiry_timestamp_seconds", "");
    let expected = a.endpoint.certificate_expiry().duration_since(SystemTime::UNIX_EPOCH);
    assert_eq!(expiry, expected.unwrap().as_secs_f64());
}

#[tokio::test]
async fn a_close_tells_the_peers_and_frees_the_address() {
    let cluster = Cluster::new();
    let echoing = Echo::new();
    let services: Vec<Arc<dyn wire::Service>> = vec![Arc::clone(&echoing) as _];
    let a = cluster.node_with("o1", hello("o1"), Limits::default(), services);
    let b = cluster.node("e1");
    let peer = within(b.dial(&a)).await.unwrap();
    within(echo(&peer, "up")).await.unwrap();
    within(a.endpoint.close(CloseCode::Shutdown, "upgrade")).await;
    // A service may hold the endpoint: unless it is let go of, neither is ever freed.
    assert_eq!(Arc::strong_count(&echoing), 1);
    let error = within(peer.closed()).await;
    let expected = Error::Closed { code: CloseCode::Shutdown, reason: "upgrade".to_owned() };
    assert_eq!(error, expected);
    let address = a.address;
    assert_eq!(within(a.dial(&b)).await.unwrap_err(), Error::LocallyClosed);
    drop(a);
    let bound = async {
        loop {
            match UdpSocket::bind(address).await {
                Ok(socket) => return socket,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    within(bound).await;
}

#[tokio::test]
async fn a_dropped_endpoint_takes_its_connections_along() {
    let cluster = Cluster::new();
    let a = cluster.node("o1");
    let echoing = Echo::new();
    let services: Vec<Arc<dyn wire::Service>> = vec![Arc::clone(&echoing) as _];
    let b = cluster.node_with("e1", hello("e1"), Limits::default(), services);
    let peer = within(b.dial(&a)).await.unwrap();
    let held = within(a.endpoint.connect(&b.id, b.address)).await.unwrap();
    let _open = held.open_bi(wire::StreamKind::Control).await.unwrap();
    let streams =
        |echo: &Echo| AtomicUsize::load(&echo.streams, std::sync::atomic::Ordering::SeqCst);
    until("the stream is served", || streams(&echoing) == 1).await;
    drop(a);
    let error = within(peer.closed()).await;
    assert!(matches!(error, Error::Closed { code: CloseCode::Dropped, .. }), "{error}");
    assert_eq!(within(held.closed()).await, Error::LocallyClosed);
    drop(b);
    until("no task holds the service", || Arc::strong_count(&echoing) == 1).await;
}

#[tokio::test]
async fn a_node_that_restarts_says_so_at_once() {
    let cluster = Cluster::new();
    let patient = || Limits {
        idle_timeout: Duration::from_secs(3600),
        keep_alive: Duration::from_millis(50),
        ..Limits::default()
    };
    let identity = cluster.identity("o1");
    let first = Node::start(&identity, hello("o1"), patient(), vec![Echo::new()]);
    let (address, target) = proxy(first.address).await;
    let b = cluster.node_with("e1", hello("e1"), patient(), vec![]);
    let peer = within(b.endpoint.connect(&node_id("o1"), address)).await.unwrap();
    within(echo(&peer, "before")).await.unwrap();
    // The former life is cut off without a word; the next one has the same key and no memory.
    let second = Node::start(&identity, hello("o1"), patient(), vec![Echo::new()]);
    target.send_replace(second.address);
    let error = within(peer.closed()).await;
    assert_eq!(error, Error::Lost { why: "the peer has restarted" });
    let peer = within(b.endpoint.connect(&node_id("o1"), address)).await.unwrap();
    within(echo(&peer, "after")).await.unwrap();
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_noticed() {
    let cluster = Cluster::new();
    let nervous = || Limits {
        idle_timeout: Duration::from_millis(300),
        keep_alive: Duration::from_millis(50),
        ..Limits::default()
    };
    let a = cluster.node_with("o1", hello("o1"), nervous(), vec![Echo::new()]);
    let b = cluster.node_with("e1", hello("e1"), nervous(), vec![]);
    let (address, target) = proxy(a.address).await;
    let peer = within(b.endpoint.connect(&a.id, address)).await.unwrap();
    within(echo(&peer, "here")).await.unwrap();
    // Nobody listens there.
    let nowhere = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    target.send_replace(nowhere.local_addr().unwrap());
    assert_eq!(within(peer.closed()).await, Error::Lost { why: "not heard from in time" });
    until("o1 notices too", || a.metric("tidewater_wire_connections{", "accepted") == 0.0).await;
}

#[tokio::test]
async fn a_node_may_dial_itself() {
    let cluster = Cluster::new();
    let a = cluster.node("o1");
    let peer = within(a.dial(&a)).await.unwrap();
    within(echo(&peer, "me")).await.unwrap();
}

#[tokio::test]
async fn an_identity_in_memory_lasts_as_long_as_one_on_disk() {
    let cluster = Cluster::new();
    let left = cluster.identity("o1").not_after().duration_since(SystemTime::now()).unwrap();
    assert!(left > NODE_VALIDITY - Duration::from_secs(60));
}

/// Carries the packets of one client to whatever address the sender last named.
async fn proxy(target: SocketAddr) -> (SocketAddr, watch::Sender<SocketAddr>) {
    let inside = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let outside = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = inside.local_addr().unwrap();
    let (named, target) = watch::channel(target);
    tokio::spawn(async move {
        let (mut there, mut back) = (vec![0; 65536], vec![0; 65536]);
        let mut client = None;
        loop {
            tokio::select! {
                Ok((length, from)) = inside.recv_from(&mut there) => {
                    client = Some(from);
                    let to = *target.borrow();
                    let _ = outside.send_to(&there[..length], to).await;
                }
                Ok((length, from)) = outside.recv_from(&mut back) => {
                    let current = *target.borrow();
                    if let Some(client) = client && from == current {
                        let _ = inside.send_to(&back[..length], client).await;
                    }
                }
            }
        }
    });
    (address, named)
}
