//! Those who mean no good, or no HTTP: each costs its own connection and is counted.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::reel::Reel;
use super::support::{House, demo, eventually, soon};

/// Reads until the other side closes; what came before.
async fn closed(mut stream: TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let _ = soon(stream.read_to_end(&mut rest)).await;
    rest
}

fn refused(house: &House, reason: &str) -> f64 {
    house.metric(&format!("tidewater_refused_total{{reason=\"{reason}\",role=\"edge\"}}"))
}

#[tokio::test]
async fn garbage_is_refused_and_others_are_served() {
    let house = House::open();
    house.source.put(demo(), Reel::running(2).feed);
    let inputs: [&[u8]; 8] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello",
        b"\x03 an RTMP handshake, perhaps, or nothing at all \r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n and no frame that HTTP/2 knows, for long enough",
        b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\nxx",
    ];
    for input in inputs {
        let mut stream = house.client.raw().await;
        stream.write_all(input).await.unwrap();
        stream.shutdown().await.unwrap();
        let answer = closed(stream).await;
        assert!(!answer.starts_with(b"HTTP/1.1 200") || input.contains(&b'x'), "{input:?}");
    }
    let mut long = house.client.raw().await;
    let _ = long.write_all(format!("GET /{} HTTP/1.1\r\n", "a".repeat(100_000)).as_bytes()).await;
    closed(long).await;
    let mut many = house.client.raw().await;
    let _ = many
        .write_all(format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000)).as_bytes())
        .await;
    assert!(closed(many).await.starts_with(b"HTTP/1.1 431"));
    eventually("all are gone", || house.metric("tidewater_edge_connections") == 0.0).await;
    assert!(refused(&house, "malformed") >= 5.0);
    assert_eq!(house.client.get("/live/demo.m3u8").await.status, StatusCode::OK);
    assert_eq!(house.metric("tidewater_edge_panics_total"), 0.0);
}

#[tokio::test]
async fn slow_request_heads_and_silence_are_closed_in_time() {
    let house = House::open();
    let silent = house.client.raw().await;
    let mut slow = house.client.raw().await;
    slow.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let mut half = house.client.raw().await;
    half.write_all(b"PRI * HT").await.unwrap();
    // A second head on a connection that has been served is no better.
    let mut second = house.client.raw().await;
    second.write_all(b"GET /healthz HTTP/1.1\r\nHost: e\r\n\r\n").await.unwrap();
    let mut read = [0; 1024];
    assert!(soon(second.read(&mut read)).await.unwrap() > 0);
    second.write_all(b"GET /heal").await.unwrap();
    let trickle = tokio::spawn(async move {
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if slow.write_all(b"x: y\r\n").await.is_err() {
                return true;
            }
        }
        false
    });
    let began = tokio::time::Instant::now();
    closed(silent).await;
    closed(half).await;
    closed(second).await;
    assert!(soon(trickle).await.unwrap(), "a trickle does not help");
    assert!(began.elapsed() > Duration::from_millis(300), "they had their time");
    eventually("all are gone", || house.metric("tidewater_edge_connections") == 0.0).await;
    assert!(refused(&house, "slow_request") >= 3.0);
}

#[tokio::test]
async fn a_response_nobody_takes_is_given_up() {
    let house = House::open();
    let mut reel = Reel::new();
    reel.fatten(400_000);
    (0..2).for_each(|_| reel.segment());
    house.source.put(demo(), reel.feed.clone());
    let mut idle = house.client.raw().await;
    idle.write_all(b"GET /live/demo/main/s100-7.m4s HTTP/1.1\r\nHost: e\r\n\r\n").await.unwrap();
    // The same over HTTP/2 with an FLV stream whose window stays closed.
    let mut http2 = house.client.http2().await;
    let request = Request::get("http://e/live/demo.flv").body(Empty::<Bytes>::new()).unwrap();
    let response = soon(http2.send_request(request)).await.unwrap();
    let feeding = async {
        loop {
            reel.segment();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let given_up =
        house.reaches("tidewater_refused_total{reason=\"slow_reader\",role=\"edge\"}", 2.0);
    tokio::select! {
        () = given_up => {}
        () = feeding => {}
    }
    eventually("both are gone", || house.metric("tidewater_edge_connections") == 0.0).await;
    assert_eq!(house.metric("tidewater_edge_viewers{protocol=\"flv\"}"), 0.0);
    drop((idle, response));
}

#[tokio::test]
async fn polls_of_rooms_that_do_not_exist_leave_nothing_behind() {
    let house = House::open();
    let mut polls = tokio::task::JoinSet::new();
    for poller in 0..20 {
        let client = house.client.clone();
        polls.spawn(async move {
            for room in 0..50 {
                let answer = client.get(&format!("/live/no-{poller}-{room}.m3u8")).await;
                assert_eq!(answer.status, StatusCode::NOT_FOUND);
            }
        });
    }
    while let Some(done) = soon(polls.join_next()).await {
        done.unwrap();
    }
    assert_eq!(refused(&house, "unknown_room"), 1000.0);
    assert_eq!(house.metric("tidewater_edge_rooms"), 0.0);
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_one_to_end() {
    let house = House::with(|config| config.max_connections = 2);
    let first = house.client.raw().await;
    let second = house.client.raw().await;
    house.reaches("tidewater_edge_connections", 2.0).await;
    let client = house.client.clone();
    let third = tokio::spawn(async move { client.get("/healthz").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!third.is_finished());
    drop(first);
    assert_eq!(soon(third).await.unwrap().status, StatusCode::OK);
    drop(second);
}
