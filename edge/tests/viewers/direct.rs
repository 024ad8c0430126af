//! Requests that are answered without hyper, and the way from there to hyper: one connection throughout.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::reel::Reel;
use super::support::{House, demo, eventually, soon};

const SEGMENT: &str = "/live/demo/main/s100-7.m4s";

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: e\r\n\r\n")
}

/// Reads one answer with a length: its head and its body.
async fn answer(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(stream.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    soon(stream.read_exact(&mut body)).await.unwrap();
    (head, body)
}

#[tokio::test]
async fn a_document_is_the_same_however_often_and_however_it_is_asked_for() {
    let house = House::open();
    let mut reel = Reel::new();
    // Longer than a socket takes at once.
    reel.fatten(400_000);
    (0..2).for_each(|_| reel.segment());
    house.source.put(demo(), reel.feed.clone());
    let mut client = house.client.http2().await;
    let request = http::Request::get(format!("http://e{SEGMENT}"));
    let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
    let response = soon(client.send_request(request)).await.unwrap();
    let expected = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    let mut stream = house.client.raw().await;
    // From the fourth time on it comes from the shelf.
    for time in 0..8 {
        stream.write_all(get(SEGMENT).as_bytes()).await.unwrap();
        let (head, body) = answer(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("\r\ndate: "), "{head}");
        assert!(body == expected, "time {time}");
    }
    let ranged = format!("GET {SEGMENT} HTTP/1.1\r\nRange: bytes=5-9\r\n\r\n");
    stream.write_all(ranged.as_bytes()).await.unwrap();
    let (head, body) = answer(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 206 "), "{head}");
    assert_eq!(body, expected[5..10]);
}

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_order_and_others_go_on_with_hyper() {
    let house = House::open();
    let reel = Reel::running(2);
    house.source.put(demo(), reel.feed.clone());
    let mut stream = house.client.raw().await;
    let requests = [
        get("/live/demo.m3u8"),
        get("/live/demo/main.m3u8"),
        get("/live/demo/main/none.m4s"),
        "HEAD /live/demo.m3u8 HTTP/1.1\r\n\r\n".to_owned(),
        get("/healthz"),
        get("/live/demo.m3u8").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"),
    ];
    let all = requests.concat();
    let (first, rest) = all.split_at(70);
    stream.write_all(first.as_bytes()).await.unwrap();
    let (_, multivariant) = answer(&mut stream).await;
    stream.write_all(rest.as_bytes()).await.unwrap();
    let (_, main) = answer(&mut stream).await;
    assert!(main.starts_with(b"#EXTM3U") && main != multivariant);
    assert!(answer(&mut stream).await.0.starts_with("HTTP/1.1 404 "));
    let mut last = Vec::new();
    soon(stream.read_to_end(&mut last)).await.unwrap();
    let last = String::from_utf8(last).unwrap();
    assert_eq!(last.matches("HTTP/1.1 200 OK").count(), 3, "{last}");
    assert!(last.ends_with(std::str::from_utf8(&multivariant).unwrap()), "{last}");
}

#[tokio::test]
async fn who_leaves_while_waiting_is_let_go() {
    let house = House::open();
    let reel = Reel::running(2);
    house.source.put(demo(), reel.feed.clone());
    let mut stream = house.client.raw().await;
    stream.write_all(get("/live/demo/main.m3u8?_HLS_msn=102").as_bytes()).await.unwrap();
    house.reaches("tidewater_edge_connections", 1.0).await;
    drop(stream);
    eventually("it is gone", || house.metric("tidewater_edge_connections") == 0.0).await;
}
