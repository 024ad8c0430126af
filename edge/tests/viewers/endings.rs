//! Shutting down: nothing new, everything in flight to its end, then nothing at all.

use std::time::Duration;

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::client::FlvViewer;
use super::support::reel::Reel;
use super::support::{House, demo, soon};

const MAIN: &str = "/live/demo/main.m3u8";

#[tokio::test]
async fn requests_in_flight_are_answered_and_nothing_new_is_taken() {
    let house = House::open();
    let mut reel = Reel::running(3);
    reel.fatten(400_000);
    reel.segment();
    reel.part();
    house.source.put(demo(), reel.feed.clone());
    let client = house.client.clone();
    let path = format!("{MAIN}?_HLS_msn={}&_HLS_part={}", reel.msn(), reel.parts());
    let held = tokio::spawn(async move { client.get(&path).await });
    house.reaches("tidewater_edge_connections", 1.0).await;
    // A body far larger than the socket's buffers, of which the head alone was read.
    let mut slow = house.client.raw().await;
    let request = format!("GET /live/demo/main/s{}-7.m4s HTTP/1.1\r\nHost: e\r\n\r\n", 103);
    slow.write_all(request.as_bytes()).await.unwrap();
    let mut slow = FlvViewer::begin(slow).await;
    let length: usize = slow
        .head
        .lines()
        .find_map(|l| l.strip_prefix("content-length: "))
        .expect(&slow.head)
        .parse()
        .unwrap();
    assert!(length > 10_000_000);
    let idle = house.client.raw().await;
    house.reaches("tidewater_edge_connections", 3.0).await;
    let address = house.client.address;
    let shutdown = tokio::spawn(house.edge.shutdown(Duration::from_secs(10)));
    soon(async { while TcpStream::connect(address).await.is_ok() {} }).await;
    reel.part();
    let held = soon(held).await.unwrap();
    assert_eq!(held.status, StatusCode::OK);
    assert!(held.text().contains(&format!("p7-{}.m4s", reel.next_part() - 1)));
    assert!(!shutdown.is_finished(), "a body is in flight");
    let mut body = Vec::new();
    soon(slow.stream.read_to_end(&mut body)).await.unwrap();
    assert_eq!(body.len(), length);
    soon(shutdown).await.unwrap();
    drop(idle);
}

#[tokio::test]
async fn streams_end_at_once_and_cleanly() {
    let house = House::open();
    house.source.put(demo(), Reel::running(2).feed);
    let mut viewer = house.client.flv("/live/demo.flv").await;
    for _ in 0..30 {
        viewer.picture().await.unwrap();
    }
    let uri = format!("ws://{}/live/demo.flv?gop=0", house.client.address);
    let (mut socket, _) =
        tokio_websockets::ClientBuilder::new().uri(&uri).unwrap().connect().await.unwrap();
    house.reaches("tidewater_edge_viewers{protocol=\"wsflv\"}", 1.0).await;
    soon(house.edge.shutdown(Duration::from_secs(10))).await;
    assert_eq!(viewer.picture().await, None);
    use futures_util::StreamExt;
    let last = soon(socket.next()).await.unwrap().unwrap();
    assert_eq!(u16::from(last.as_close().unwrap().0), 1001, "going away");
}

#[tokio::test]
async fn what_does_not_finish_is_cut_when_the_grace_time_is_over() {
    let house = House::open();
    let mut reel = Reel::new();
    reel.fatten(400_000);
    (0..2).for_each(|_| reel.segment());
    house.source.put(demo(), reel.feed.clone());
    let mut slow = house.client.raw().await;
    slow.write_all(b"GET /live/demo/main/s100-7.m4s HTTP/1.1\r\nHost: e\r\n\r\n").await.unwrap();
    let slow = FlvViewer::begin(slow).await;
    let began = tokio::time::Instant::now();
    soon(house.edge.shutdown(Duration::from_millis(300))).await;
    assert!(began.elapsed() >= Duration::from_millis(300));
    drop(slow);
}
