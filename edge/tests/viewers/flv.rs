//! HTTP-FLV and WS-FLV: joining, following, changing, lagging, ending.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use media::flv::TagKind;
use media::flv::reader::Reader;
use media::track::TrackId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::client::{FlvViewer, is_key};
use super::support::reel::Reel;
use super::support::{House, demo, eventually, soon};

const FLV: &str = "/live/demo.flv";

#[tokio::test]
async fn a_viewer_begins_with_head_metadata_configurations_and_the_gop() {
    let house = House::open();
    let mut reel = Reel::running(3);
    reel.part();
    house.source.put(demo(), reel.feed.clone());
    let mut viewer = house.client.flv(FLV).await;
    assert!(viewer.head.starts_with("HTTP/1.1 200 OK\r\n"), "{}", viewer.head);
    for header in [
        "content-type: video/x-flv",
        "cache-control: no-store",
        "connection: close",
        "access-control-allow-origin: *",
        "x-accel-buffering: no",
    ] {
        assert!(viewer.head.contains(header), "{header} in {}", viewer.head);
    }
    let metadata = viewer.tag().await.unwrap();
    let claimed = viewer.reader.header().unwrap();
    assert!(claimed.audio && claimed.video);
    assert_eq!(metadata.kind, TagKind::Script);
    let video = viewer.tag().await.unwrap();
    assert_eq!((video.kind, &video.body[..2]), (TagKind::Video, &[0x17, 0][..]));
    let audio = viewer.tag().await.unwrap();
    assert_eq!((audio.kind, &audio.body[..2]), (TagKind::Audio, &[0xaf, 0][..]));
    let first = viewer.tag().await.unwrap();
    assert!(is_key(&first), "the GOP begins with its key frame");
    assert_eq!(first.timestamp_ms, 3000, "the room's timeline");
    assert_eq!([metadata.timestamp_ms, video.timestamp_ms, audio.timestamp_ms], [0, 3000, 3000]);
    let (mut last_ms, mut pictures) = ([0, 3000], 1);
    for _ in 0..3 {
        reel.segment();
    }
    while pictures < 90 {
        let tag = viewer.frame().await.unwrap();
        let is_video = tag.kind == TagKind::Video;
        let last = &mut last_ms[usize::from(is_video)];
        assert!(tag.timestamp_ms >= *last, "time goes on");
        *last = tag.timestamp_ms;
        if is_video {
            assert_eq!(
                u64::from(tag.timestamp_ms),
                (3000.0 + f64::from(pictures) * 1000.0 / 30.0).round() as u64
            );
            pictures += 1;
        }
    }
    assert_eq!(house.metric("tidewater_edge_viewers{protocol=\"flv\"}"), 1.0);
    assert!(house.metric("tidewater_edge_sent_bytes_total{protocol=\"flv\"}") > 0.0);
    drop(viewer);
    house.reaches("tidewater_edge_flv_closed_total{reason=\"left\"}", 1.0).await;
    eventually("nobody is left", || {
        house.metric("tidewater_edge_viewers{protocol=\"flv\"}") == 0.0
            && house.metric("tidewater_edge_connections") == 0.0
    })
    .await;
}

#[tokio::test]
async fn without_the_gop_a_viewer_begins_at_the_next_key_frame() {
    let house = House::open();
    let mut reel = Reel::running(3);
    reel.part();
    house.source.put(demo(), reel.feed.clone());
    let mut viewer = house.client.flv(&format!("{FLV}?gop=0")).await;
    reel.segment();
    reel.part();
    let first = viewer.frame().await.unwrap();
    assert!(is_key(&first));
    assert_eq!(first.timestamp_ms, 4000);
}

#[tokio::test]
async fn a_first_viewer_is_held_until_the_tracks_are_known() {
    let house = House::open();
    let mut reel = Reel::new();
    house.source.put(demo(), reel.feed.clone());
    let client = house.client.clone();
    let viewer = tokio::spawn(async move { client.flv(FLV).await });
    house.reaches("tidewater_edge_viewers{protocol=\"flv\"}", 1.0).await;
    assert!(!viewer.is_finished());
    reel.part();
    let mut viewer = soon(viewer).await.unwrap();
    assert!(is_key(&viewer.frame().await.unwrap()));
}

#[tokio::test]
async fn audio_alone_and_video_alone_are_served_and_said_so() {
    for track in [TrackId::Audio, TrackId::Video] {
        let house = House::open();
        let mut reel = Reel::new();
        reel.reconfigure(|tracks| tracks.retain(|t| t.id == track));
        (0..3).for_each(|_| reel.part_of(track));
        house.source.put(demo(), reel.feed.clone());
        let mut viewer = house.client.flv(FLV).await;
        let first = viewer.frame().await.unwrap();
        let claimed = viewer.reader.header().unwrap();
        assert_eq!(
            (claimed.audio, claimed.video),
            (track == TrackId::Audio, track == TrackId::Video)
        );
        assert_eq!(
            first.kind,
            if track == TrackId::Audio { TagKind::Audio } else { TagKind::Video }
        );
    }
}

#[tokio::test]
async fn grace_and_return_keep_viewers_and_the_end_lets_them_go() {
    let house = House::open();
    let mut reel = Reel::running(2);
    house.source.put(demo(), reel.feed.clone());
    let mut viewer = house.client.flv(FLV).await;
    for _ in 0..30 {
        viewer.picture().await.unwrap();
    }
    reel.grace();
    reel.resume();
    reel.segment();
    let next = viewer.picture().await.unwrap();
    assert!(is_key(&next));
    assert_eq!(next.timestamp_ms, 2000);
    reel.end();
    for _ in 0..29 {
        viewer.picture().await.unwrap();
    }
    assert_eq!(viewer.picture().await, None, "a clean end behind the last frame");
    house.reaches("tidewater_edge_flv_closed_total{reason=\"ended\"}", 1.0).await;
    assert_eq!(house.client.get(FLV).await.status, StatusCode::NOT_FOUND, "it is over");
}

#[tokio::test]
async fn another_configuration_is_announced_before_its_key_frame() {
    let house = House::open();
    let mut reel = Reel::running(2);
    house.source.put(demo(), reel.feed.clone());
    let mut viewer = house.client.flv(FLV).await;
    for _ in 0..30 {
        viewer.picture().await.unwrap();
    }
    // The same parameter sets with a byte behind them: another record of the same tracks.
    reel.reconfigure(|tracks| {
        let mut record = tracks[0].config.to_vec();
        record[1] = 0x64;
        tracks[0].config = Bytes::from(record);
    });
    reel.segment();
    let mut tag = viewer.tag().await.unwrap();
    while tag.kind == TagKind::Audio && tag.body[1] != 0 {
        tag = viewer.tag().await.unwrap();
    }
    assert_eq!((tag.kind, &tag.body[..2]), (TagKind::Video, &[0x17, 0][..]));
    assert_eq!(tag.body[6], 0x64);
    assert_eq!(viewer.tag().await.unwrap().body[..2], [0xaf, 0]);
    assert!(is_key(&viewer.tag().await.unwrap()));
}

#[tokio::test]
async fn other_tracks_end_the_response_so_that_players_begin_anew() {
    let house = House::open();
    let mut reel = Reel::running(2);
    house.source.put(demo(), reel.feed.clone());
    let mut viewer = house.client.flv(FLV).await;
    for _ in 0..30 {
        viewer.picture().await.unwrap();
    }
    reel.reconfigure(|tracks| tracks.retain(|t| t.id == TrackId::Video));
    reel.segment();
    assert_eq!(viewer.picture().await, None);
    house.reaches("tidewater_edge_flv_closed_total{reason=\"changed\"}", 1.0).await;
    let mut again = house.client.flv(FLV).await;
    again.picture().await.unwrap();
    assert!(!again.reader.header().unwrap().audio);
}

#[tokio::test]
async fn a_room_that_begins_anew_lets_its_viewers_go() {
    let house = House::open();
    house.source.put(demo(), Reel::running(2).feed);
    let mut viewer = house.client.flv(FLV).await;
    for _ in 0..30 {
        viewer.picture().await.unwrap();
    }
    let mut anew = Reel::with_epoch(9, 500);
    anew.segment();
    house.source.put(demo(), anew.feed.clone());
    assert_eq!(viewer.picture().await, None);
    let mut again = house.client.flv(FLV).await;
    assert_eq!(again.picture().await.unwrap().timestamp_ms, 0);
}

#[tokio::test]
async fn requests_that_follow_each_other_may_end_in_a_stream() {
    let house = House::open();
    let mut reel = Reel::new();
    reel.fatten(200_000);
    (0..2).for_each(|_| reel.segment());
    house.source.put(demo(), reel.feed.clone());
    let mut stream = house.client.raw().await;
    // Both at once, the first far larger than what sockets hold: the second must wait for the last
    // byte of it, wherever that is.
    let requests = "GET /live/demo/main/s100-7.m4s HTTP/1.1\r\nHost: e\r\n\r\n\
                    GET /live/demo.flv HTTP/1.1\r\nHost: e\r\n\r\n";
    stream.write_all(requests.as_bytes()).await.unwrap();
    house.reaches("tidewater_edge_sent_bytes_total{protocol=\"hls\"}", 1_000_000.0).await;
    let mut first = FlvViewer::begin(stream).await;
    let length: usize = first
        .head
        .lines()
        .find_map(|l| l.strip_prefix("content-length: "))
        .unwrap()
        .parse()
        .unwrap();
    let mut body = vec![0; length];
    soon(first.stream.read_exact(&mut body)).await.unwrap();
    assert_eq!(body, house.client.get("/live/demo/main/s100-7.m4s").await.body);
    let mut second = FlvViewer::begin(first.stream).await;
    assert!(second.head.contains("video/x-flv"));
    assert!(is_key(&second.frame().await.unwrap()));
}

#[tokio::test]
async fn head_of_a_stream_is_answered_and_the_connection_goes_on() {
    let house = House::open();
    house.source.put(demo(), Reel::running(2).feed);
    let answer = house.client.send(Method::HEAD, FLV, &[]).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("content-type"), "video/x-flv");
}

#[tokio::test]
async fn a_viewer_who_reads_nothing_is_skipped_and_closed_and_others_see_nothing_of_it() {
    let house = House::open();
    let mut reel = Reel::new();
    reel.fatten(40_000);
    reel.segment();
    house.source.put(demo(), reel.feed.clone());
    let idle = house.client.flv(FLV).await;
    let mut viewer = house.client.flv(FLV).await;
    viewer.picture().await.unwrap();
    let mut pictures = 1_u64;
    let began = tokio::time::Instant::now();
    // 1.2 MB for each second of the stream, as fast as the other viewer takes it.
    while house.metric("tidewater_edge_flv_closed_total{reason=\"stuck\"}")
        + house.metric("tidewater_edge_flv_closed_total{reason=\"lagging\"}")
        < 1.0
    {
        reel.part();
        for _ in 0..6 {
            let picture = viewer.picture().await.unwrap();
            assert_eq!(u64::from(picture.timestamp_ms), (pictures * 1000 + 15) / 30);
            pictures += 1;
        }
        assert!(began.elapsed() < super::support::PATIENCE, "the idle viewer is not closed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(idle);
    assert_eq!(house.metric("tidewater_edge_viewers{protocol=\"flv\"}"), 1.0);
}

#[tokio::test]
async fn a_viewer_who_lags_goes_on_at_a_key_frame() {
    // Lagging, not stuck: it may take its time to take the next byte.
    let house = House::with(|config| config.timeouts.write = super::support::PATIENCE);
    let mut reel = Reel::new();
    reel.fatten(100_000);
    reel.segment();
    house.source.put(demo(), reel.feed.clone());
    let mut viewer = house.client.flv(FLV).await;
    viewer.picture().await.unwrap();
    let mut reader = house.client.flv(FLV).await;
    // Far more than sockets and the allowance hold, paced by a viewer who keeps up.
    for _ in 0..12 {
        reel.segment();
        for _ in 0..30 {
            reader.picture().await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (mut last, mut jumped) = (0, false);
    while !jumped {
        let picture = viewer.picture().await.unwrap();
        if picture.timestamp_ms > last + 34 {
            assert!(is_key(&picture), "a jump lands on a key frame");
            jumped = true;
        }
        last = picture.timestamp_ms;
    }
    assert!(house.metric("tidewater_edge_flv_skips_total") >= 1.0);
    reel.segment();
    viewer.picture().await.unwrap();
}

#[tokio::test]
async fn websocket_viewers_get_the_same_tags_in_binary_frames() {
    let house = House::open();
    let reel = Reel::running(2);
    house.source.put(demo(), reel.feed.clone());
    let uri = format!("ws://{}{FLV}", house.client.address);
    let (mut socket, response) =
        tokio_websockets::ClientBuilder::new().uri(&uri).unwrap().connect().await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    house.reaches("tidewater_edge_viewers{protocol=\"wsflv\"}", 1.0).await;
    socket.send(tokio_websockets::Message::ping("here")).await.unwrap();
    socket.send(tokio_websockets::Message::text("players say nothing")).await.unwrap();
    let (mut reader, mut pictures, mut ponged) = (Reader::new(), 0, false);
    while pictures < 30 || !ponged {
        let message = soon(socket.next()).await.unwrap().unwrap();
        if message.is_pong() {
            assert_eq!(&message.as_payload()[..], b"here");
            ponged = true;
            continue;
        }
        assert!(message.is_binary());
        reader.push(message.as_payload());
        while let Some(tag) = reader.next_tag().unwrap() {
            pictures += u32::from(tag.kind == TagKind::Video && tag.body[1] == 1);
        }
    }
    reel.end();
    loop {
        let message = soon(socket.next()).await.unwrap().unwrap();
        if let Some((code, _)) = message.as_close() {
            assert_eq!(u16::from(code), 1000);
            break;
        }
    }
    house.reaches("tidewater_edge_flv_closed_total{reason=\"ended\"}", 1.0).await;
    assert!(house.metric("tidewater_edge_sent_bytes_total{protocol=\"wsflv\"}") > 0.0);
}

#[tokio::test]
async fn a_websocket_that_breaks_the_protocol_is_told_so() {
    let house = House::open();
    let mut reel = Reel::running(2);
    house.source.put(demo(), reel.feed.clone());
    let upgrade = "GET /live/demo.flv?gop=0 HTTP/1.1\r\nHost: e\r\nConnection: Upgrade\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut stream = house.client.raw().await;
    stream.write_all(upgrade.as_bytes()).await.unwrap();
    let mut viewer = FlvViewer::begin(stream).await;
    assert!(viewer.head.starts_with("HTTP/1.1 101 "), "{}", viewer.head);
    assert!(viewer.head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    viewer.stream.write_all(b"\x82\x01a").await.unwrap(); // not masked
    reel.part();
    let mut rest = Vec::new();
    soon(viewer.stream.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, [0x88, 2, 0x03, 0xea], "1002");
    let bad = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "8")];
    let answer = house.client.send(Method::GET, FLV, &bad).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.text().contains("Version"));
}

#[tokio::test]
async fn http2_viewers_get_the_stream_as_a_body() {
    let house = House::open();
    let mut reel = Reel::running(2);
    house.source.put(demo(), reel.feed.clone());
    let mut http2 = house.client.http2().await;
    let request = Request::get(format!("http://e{FLV}")).body(Empty::<Bytes>::new()).unwrap();
    let response = soon(http2.send_request(request)).await.unwrap();
    assert_eq!(response.headers()["content-type"], "video/x-flv");
    let (mut body, mut reader, mut pictures) = (response.into_body(), Reader::new(), 0);
    reel.segment();
    reel.end();
    while let Some(frame) = soon(body.frame()).await {
        reader.push(&frame.unwrap().into_data().unwrap());
        while let Some(tag) = reader.next_tag().unwrap() {
            pictures += u32::from(tag.kind == TagKind::Video && tag.body[1] == 1);
        }
    }
    assert_eq!(pictures, 60);
    house.reaches("tidewater_edge_flv_closed_total{reason=\"ended\"}", 1.0).await;
}
