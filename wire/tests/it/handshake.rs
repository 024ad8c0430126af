//! Who gets in, who does not, and what each side is told.

use std::time::{Duration, SystemTime};

use wire::{
    ClusterId, Error, Hello, Limits,
    error::CloseCode,
    frame::encode_message,
    hello::{ALPN, VersionRange},
};

use crate::harness::{Cluster, Echo, Node, Raw, echo, hello, node_id, until, within};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn limits() -> Limits {
    Limits::default()
}

/// The message of a failed dial.
async fn refusal(dialler: &Node, other: &Node) -> Error {
    within(dialler.dial(other)).await.expect_err("should be refused")
}

/// How a raw connection that may have come up ends.
async fn end_of(
    dialled: Result<(quinn::Endpoint, quinn::Connection), quinn::ConnectionError>,
) -> Error {
    let error = match dialled {
        Ok((_endpoint, connection)) => within(connection.closed()).await,
        Err(error) => error,
    };
    Error::from_connection(&error)
}

#[tokio::test]
async fn two_nodes_of_a_cluster_meet() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node("o1"), cluster.node("e1"));
    let peer = within(b.dial(&a)).await.unwrap();
    assert_eq!(peer.node(), &node_id("o1"));
    assert_eq!((peer.version(), peer.is_dialled()), (1, true));
    assert_eq!(peer.hello(), &hello("o1"));
    within(echo(&peer, "hi")).await.unwrap();
    until("o1 counts e1", || a.metric("tidewater_wire_connections{", "accepted") == 1.0).await;
    peer.close(CloseCode::Unneeded, "done");
    until("o1 forgets e1", || a.metric("tidewater_wire_connections{", "accepted") == 0.0).await;
}

#[tokio::test]
async fn a_node_of_another_ca_is_refused_on_both_sides() {
    let (ours, theirs) = (Cluster::new(), Cluster::new());
    let (a, b) = (ours.node("o1"), theirs.node("e1"));
    // The dialler sees it first: TLS shows the server's certificate before the client's.
    let error = refusal(&b, &a).await;
    assert_eq!(error.to_string(), "TLS: invalid peer certificate: UnknownIssuer");
    assert!(!error.is_retryable());
    // A dialler that trusts us and is not trusted is told so.
    let cert = Raw::cert(&theirs.issue("e1", &[], SystemTime::now()));
    let ca = ours.authority.cert_pem();
    let error = end_of(Raw::dial(ca, Some(&cert), ALPN, a.address, "o1").await).await;
    assert_eq!(error.to_string(), "TLS: the peer does not trust the CA of our certificate");
    until("both are counted", || {
        a.metric("tidewater_wire_connections_refused_total", "tls") == 2.0
    })
    .await;
    assert_eq!(b.metric("tidewater_wire_dials_failed_total", "tls"), 1.0);
}

#[tokio::test]
async fn a_node_of_another_name_is_refused() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node("o1"), cluster.node("e1"));
    let error = within(b.endpoint.connect(&node_id("o2"), a.address)).await.unwrap_err();
    assert!(error.to_string().contains("certificate not valid for name \"o2\""), "{error}");
    assert!(error.to_string().contains("DnsName(\"o1\")"), "names who is there: {error}");
}

#[tokio::test]
async fn a_further_host_in_a_certificate_is_not_its_node() {
    let cluster = Cluster::new();
    let issued = cluster.issue("o1", &["o2"], SystemTime::now());
    let identity = issued.identity(cluster.authority.cert_pem()).unwrap();
    let a = Node::start(&identity, hello("o1"), limits(), vec![Echo::new()]);
    let b = cluster.node("e1");
    let error = within(b.endpoint.connect(&node_id("o2"), a.address)).await.unwrap_err();
    let expected = "refused the peer: not the node of its certificate: dialled o2, reached o1";
    assert_eq!(error.to_string(), expected);
    within(b.dial(&a)).await.unwrap();
}

#[tokio::test]
async fn a_hello_in_another_name_is_refused() {
    let cluster = Cluster::new();
    let a = cluster.node("o1");
    let cert = Raw::cert(&cluster.issue("e1", &[], SystemTime::now()));
    let ca = cluster.authority.cert_pem();
    let (_endpoint, connection) = Raw::dial(ca, Some(&cert), ALPN, a.address, "o1").await.unwrap();
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    let message = encode_message("hello", &hello("e2")).unwrap();
    send.write_all(&[&[0], message.as_ref()].concat()).await.unwrap();
    let error = Error::from_connection(&within(connection.closed()).await);
    let expected = "closed by the peer: not the node of its certificate: \
                    says it is e2, its certificate is of e1";
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn an_expired_certificate_is_refused_on_both_sides() {
    let cluster = Cluster::new();
    let long_ago = SystemTime::now() - 3000 * DAY;
    let a = cluster.node("o1");
    let ca = cluster.authority.cert_pem();
    let expired = Raw::cert(&cluster.issue("e1", &[], long_ago));
    let error = end_of(Raw::dial(ca, Some(&expired), ALPN, a.address, "o1").await).await;
    let expected = "TLS: our certificate has expired, or one of the clocks is wrong";
    assert_eq!(error.to_string(), expected);

    let listener = Raw::listen(&Raw::cert(&cluster.issue("e2", &[], long_ago)));
    let address = listener.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        let incoming = listener.accept().await.expect("a dial");
        let _ = incoming.await;
    });
    let error = within(a.endpoint.connect(&node_id("e2"), address)).await.unwrap_err();
    assert!(error.to_string().starts_with("TLS: invalid peer certificate: certificate expired"));
    within(accepting).await.unwrap();
}

#[tokio::test]
async fn a_peer_without_a_certificate_is_refused() {
    let cluster = Cluster::new();
    let a = cluster.node("o1");
    let ca = cluster.authority.cert_pem();
    let error = end_of(Raw::dial(ca, None, ALPN, a.address, "o1").await).await;
    let expected = "TLS: the peer demands a certificate and we sent none";
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn a_peer_of_another_protocol_is_refused() {
    let cluster = Cluster::new();
    let a = cluster.node("o1");
    let cert = Raw::cert(&cluster.issue("e1", &[], SystemTime::now()));
    let ca = cluster.authority.cert_pem();
    let error = end_of(Raw::dial(ca, Some(&cert), b"h3", a.address, "o1").await).await;
    assert!(error.to_string().starts_with("TLS: no application protocol in common"), "{error}");
}

#[tokio::test]
async fn a_listener_that_demands_no_certificate_is_no_node_but_must_be_certified() {
    // A server of the CA that skips client certificates still has to say a proper hello.
    let cluster = Cluster::new();
    let a = cluster.node("o1");
    let listener = Raw::listen(&Raw::cert(&cluster.issue("e2", &[], SystemTime::now())));
    let address = listener.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        let connection = listener.accept().await.expect("a dial").await.unwrap();
        let (mut send, _recv) = connection.accept_bi().await.unwrap();
        send.write_all(b"\x03\x00\x01x").await.unwrap();
        connection.closed().await
    });
    let error = within(a.endpoint.connect(&node_id("e2"), address)).await.unwrap_err();
    assert!(matches!(error, Error::Refused { code: CloseCode::BadHello, .. }), "{error}");
    let told = Error::from_connection(&within(accepting).await.unwrap());
    assert!(matches!(told, Error::Closed { code: CloseCode::BadHello, .. }), "{told}");
}

#[tokio::test]
async fn builds_without_a_common_version_part_with_a_reason() {
    let cluster = Cluster::new();
    let a = cluster.node("o1");
    let future = Hello { wire: VersionRange { oldest: 7, newest: 9 }, ..hello("e1") };
    let b = cluster.node_with("e1", future, limits(), vec![]);
    let error = refusal(&b, &a).await;
    let expected = "closed by the peer: no wire version in common: \
                    this node speaks wire versions 1 to 1, the peer 7 to 9";
    assert_eq!(error.to_string(), expected);
    assert!(!error.is_retryable());
    // The other way round it is the same.
    let error = refusal(&a, &b).await;
    assert!(matches!(error, Error::Closed { code: CloseCode::Incompatible, .. }), "{error}");
    let metric = "tidewater_wire_connections_refused_total";
    until("it is counted", || a.metric(metric, "incompatible") == 1.0).await;
}

#[tokio::test]
async fn the_highest_common_version_is_spoken() {
    let cluster = Cluster::new();
    let newer = |id: &str, newest| Hello { wire: VersionRange { oldest: 1, newest }, ..hello(id) };
    let a = cluster.node_with("o1", newer("o1", 4), limits(), vec![]);
    let b = cluster.node_with("e1", newer("e1", 3), limits(), vec![]);
    assert_eq!(within(b.dial(&a)).await.unwrap().version(), 3);
}

#[tokio::test]
async fn nodes_of_different_clusters_part_with_a_reason() {
    let cluster = Cluster::new();
    let a = cluster.node("o1");
    let b = cluster.node("e1");
    a.endpoint.set_cluster(ClusterId::from_bits(1));
    let peer = within(b.dial(&a)).await.expect("a node that knows no cluster yet may ask");
    assert_eq!(peer.hello().cluster, Some(ClusterId::from_bits(1)));
    b.endpoint.set_cluster(ClusterId::from_bits(2));
    let error = refusal(&b, &a).await;
    let expected = "closed by the peer: different clusters: this node is of cluster \
                    00000000000000000000000000000001, e1 of 00000000000000000000000000000002";
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn hellos_that_are_none_cost_their_own_connection() {
    let cluster = Cluster::new();
    let a = cluster.node("o1");
    let cert = Raw::cert(&cluster.issue("e1", &[], SystemTime::now()));
    let ca = cluster.authority.cert_pem();
    let cases: [(&[u8], &str); 4] = [
        (b"\x00\xff\xff\x7f", "frame: 2097151 bytes are over the limit of 2048"),
        (b"\x00\x02\x01", "frame: the stream ended inside it"),
        (b"\x01\x00", "hello: the first stream is of another kind"),
        (b"\x00\x01\x01", "no versions: "),
    ];
    for (bytes, expected) in cases {
        let dialled = Raw::dial(ca, Some(&cert), ALPN, a.address, "o1").await;
        let (_endpoint, connection) = dialled.unwrap();
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        send.finish().unwrap();
        match Error::from_connection(&within(connection.closed()).await) {
            Error::Closed { code: CloseCode::BadHello, reason } => {
                assert!(reason.starts_with(expected), "{bytes:?}: {reason}");
            }
            other => panic!("{bytes:?}: {other}"),
        }
    }
    let b = cluster.node("e1");
    within(echo(&within(b.dial(&a)).await.unwrap(), "still here")).await.unwrap();
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_let_go() {
    let cluster = Cluster::new();
    let quick = Limits { handshake_timeout: Duration::from_millis(200), ..limits() };
    let a = cluster.node_with("o1", hello("o1"), quick, vec![]);
    let cert = Raw::cert(&cluster.issue("e1", &[], SystemTime::now()));
    let ca = cluster.authority.cert_pem();
    let (_endpoint, connection) = Raw::dial(ca, Some(&cert), ALPN, a.address, "o1").await.unwrap();
    let error = Error::from_connection(&within(connection.closed()).await);
    assert!(matches!(error, Error::Closed { code: CloseCode::HelloTimeout, .. }), "{error}");
}

#[tokio::test]
async fn connections_of_one_node_are_bounded_and_places_come_back() {
    let cluster = Cluster::new();
    let one = Limits { max_connections_per_node: 1, ..limits() };
    let a = cluster.node_with("o1", hello("o1"), one, vec![Echo::new()]);
    let (b, c) = (cluster.node("e1"), cluster.node("e2"));
    let first = within(b.dial(&a)).await.unwrap();
    let error = refusal(&b, &a).await;
    let expected = "closed by the peer: too many connections: 1 connections of e1 are up";
    assert_eq!(error.to_string(), expected);
    assert!(error.is_retryable());
    within(c.dial(&a)).await.expect("another node has its own place");
    first.close(CloseCode::Unneeded, "");
    until("e1's place is free", || a.metric("tidewater_wire_connections{", "accepted") == 1.0)
        .await;
    within(b.dial(&a)).await.expect("the place is free again");
}

#[tokio::test]
async fn under_load_addresses_are_proven_first_and_then_attempts_refused() {
    let cluster = Cluster::new();
    let b = cluster.node("e1");
    let careful = Limits { retry_above: 0, ..limits() };
    let a = cluster.node_with("o1", hello("o1"), careful, vec![Echo::new()]);
    let peer = within(b.dial(&a)).await.unwrap();
    within(echo(&peer, "proven")).await.unwrap();
    assert_eq!(a.metric("tidewater_wire_address_checks_total", ""), 1.0);

    let full = Limits { max_handshakes: 0, retry_above: 1, ..limits() };
    let c = cluster.node_with("o2", hello("o2"), full, vec![]);
    let error = refusal(&b, &c).await;
    assert!(error.to_string().contains("refused to accept a new connection"), "{error}");
    assert!(error.is_retryable());
    assert_eq!(c.metric("tidewater_wire_connections_refused_total", "too_many_handshakes"), 1.0);
}

#[tokio::test]
async fn one_cannot_listen_in_another_name() {
    let cluster = Cluster::new();
    let loopback = "127.0.0.1:0".parse().unwrap();
    let metrics = wire::Metrics::new();
    let error =
        wire::Endpoint::bind(loopback, &cluster.identity("o1"), hello("o2"), limits(), &metrics)
            .unwrap_err();
    assert_eq!(error.to_string(), "identity: it is of o1, this node is o2");
}

#[tokio::test]
async fn noise_on_the_port_changes_nothing() {
    let cluster = Cluster::new();
    let (a, b) = (cluster.node("o1"), cluster.node("e1"));
    let peer = within(b.dial(&a)).await.unwrap();
    let noise = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..3000 {
        let mut packet: Vec<u8> = (0..1200_usize.min(1 + round))
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()[0]
            })
            .collect();
        // Every third one begins as an Initial of QUIC version 1 does (RFC 9000 section 17.2.2).
        if round % 3 == 0 && packet.len() > 6 {
            packet[..6].copy_from_slice(&[0xc3, 0, 0, 0, 1, 8]);
        }
        let _ = noise.send_to(&packet, a.address).await;
    }
    within(echo(&peer, "still up")).await.unwrap();
    within(echo(&within(b.dial(&a)).await.unwrap(), "and open")).await.unwrap();
    assert_eq!(a.metric("tidewater_wire_connections{", "accepted"), 2.0);
}
