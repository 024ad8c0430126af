//! HLS and LL-HLS by the letter: what is answered, when, with which headers and bytes.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{Method, StatusCode};
use media::feed::Lookup;
use media::manifest::{Epoch, Msn, PartNumber};
use media::playlist::check::{self, Checker};

use super::support::reel::{PARTS_PER_SEGMENT, Reel};
use super::support::{House, demo, eventually, soon};

const MAIN: &str = "/live/demo/main.m3u8";

/// A request that is under way.
macro_rules! under_way {
    ($house:expr, $path:expr) => {{
        let client = $house.client.clone();
        let path = $path.to_string();
        tokio::spawn(async move { client.get(&path).await })
    }};
}

/// That a request is held cannot be seen from outside; that the edge has it and has not answered can.
async fn held<T>(house: &House, count: f64, request: &tokio::task::JoinHandle<T>) {
    house.reaches("tidewater_edge_connections", count).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!request.is_finished(), "the request is held");
}

#[tokio::test]
async fn playlists_and_everything_they_name_are_served() {
    let house = House::open();
    let mut reel = Reel::running(4);
    reel.part();
    house.source.put(demo(), reel.feed.clone());
    let multivariant = house.client.get("/live/demo.m3u8").await;
    assert_eq!(multivariant.status, StatusCode::OK);
    assert_eq!(multivariant.header("content-type"), "application/vnd.apple.mpegurl");
    assert_eq!(multivariant.header("cache-control"), "max-age=1");
    check::multivariant(multivariant.text()).unwrap();
    assert!(multivariant.text().contains("\ndemo/main.m3u8\n"), "{}", multivariant.text());

    let main = house.client.get(MAIN).await;
    assert_eq!(main.header("cache-control"), "max-age=1");
    assert_eq!(main.header("vary"), "Accept-Encoding");
    assert_eq!(main.header("access-control-allow-origin"), "*");
    let mut checker = Checker::new();
    let list = checker.observe(main.text()).unwrap();
    assert_eq!(list.complete().count(), 4);
    let named = |uri: &str| format!("/live/demo/{uri}");
    let (mut parts, mut maps) = (0, 0);
    for segment in &list.segments {
        if let Some(map) = &segment.map {
            let init = house.client.get(&named(map)).await;
            assert_eq!(init.status, StatusCode::OK, "{map}");
            assert_eq!(&init.body[4..8], b"ftyp");
            maps += 1;
        }
        let mut bytes = Vec::new();
        for part in &segment.parts {
            let part = house.client.get(&named(&part.uri)).await;
            assert_eq!(part.header("content-type"), "video/mp4");
            assert_eq!(part.header("cache-control"), "public, max-age=31536000, immutable");
            assert_eq!(&part.body[4..8], b"moof");
            bytes.extend_from_slice(&part.body);
            parts += 1;
        }
        if let Some(uri) = &segment.uri {
            let whole = house.client.get(&named(uri)).await;
            assert_eq!(whole.status, StatusCode::OK);
            assert_eq!(whole.header("content-length"), whole.body.len().to_string());
            if !segment.parts.is_empty() {
                assert_eq!(whole.body, bytes, "a segment is its parts");
            }
        }
    }
    assert!(maps >= 1);
    assert_eq!(parts, 2 * PARTS_PER_SEGMENT + 1);
    assert_eq!(house.source.opened.load(Ordering::SeqCst), 1, "one subscription for all of it");
    assert!(house.metric("tidewater_edge_sent_bytes_total{protocol=\"llhls\"}") > 0.0);
    assert!(house.metric("tidewater_edge_sent_bytes_total{protocol=\"hls\"}") > 0.0);
    house.reaches("tidewater_edge_viewers{protocol=\"hls\"}", 1.0).await;
}

#[tokio::test]
async fn a_token_is_carried_into_the_multivariant_playlist() {
    let house = House::open();
    house.source.put(demo(), Reel::running(2).feed);
    let answer = house.client.get("/live/demo.m3u8?token=a.b-c").await;
    assert!(answer.text().ends_with("\ndemo/main.m3u8?token=a.b-c\n"), "{}", answer.text());
}

#[tokio::test]
async fn a_blocking_reload_waits_for_its_part_and_no_longer() {
    let house = House::open();
    let mut reel = Reel::running(3);
    reel.part();
    house.source.put(demo(), reel.feed.clone());
    let mut checker = Checker::new();
    checker.observe(house.client.get(MAIN).await.text()).unwrap();
    for _ in 0..12 {
        let (msn, part) = (reel.msn(), reel.parts());
        let path = format!("{MAIN}?_HLS_msn={msn}&_HLS_part={part}");
        let waiters: Vec<_> = (0..20).map(|_| under_way!(house, path)).collect();
        held(&house, 20.0, &waiters[0]).await;
        let before = house.metric("tidewater_edge_renderings_total");
        reel.part();
        let mut texts = Vec::new();
        for waiter in waiters {
            let answer = soon(waiter).await.unwrap();
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
            assert_eq!(answer.header("cache-control"), "max-age=12");
            texts.push(answer.text().to_owned());
        }
        texts.dedup();
        assert_eq!(texts.len(), 1);
        let list = checker.observe(&texts[0]).unwrap();
        let segment = list.segments.iter().find(|s| s.msn == msn).unwrap();
        assert!(segment.parts.len() as u64 > part, "{}", texts[0]);
        assert_eq!(house.metric("tidewater_edge_renderings_total"), before + 1.0);
        eventually("connections end", || house.metric("tidewater_edge_connections") == 0.0).await;
    }
    assert!(house.metric("tidewater_edge_wake_seconds_count") >= 240.0);
    house.reaches("tidewater_edge_viewers{protocol=\"llhls\"}", 1.0).await;
    let plain = || house.metric("tidewater_edge_viewers{protocol=\"hls\"}");
    eventually("its first, plain poll is forgotten", || plain() == 0.0).await;
}

#[tokio::test]
async fn a_segment_alone_waits_for_all_of_it_and_a_part_past_the_end_for_the_next() {
    let house = House::open();
    let mut reel = Reel::running(3);
    reel.part();
    house.source.put(demo(), reel.feed.clone());
    let msn = reel.msn();
    let whole = under_way!(house, format!("{MAIN}?_HLS_msn={msn}"));
    let past = under_way!(house, format!("{MAIN}?_HLS_msn={}&_HLS_part=5", msn - 1));
    let past = soon(past).await.unwrap();
    assert!(past.text().contains(&format!("p7-{}.m4s", reel.next_part() - 1)));
    for _ in 1..PARTS_PER_SEGMENT {
        held(&house, 1.0, &whole).await;
        reel.part();
    }
    let whole = soon(whole).await.unwrap();
    assert!(whole.text().contains(&format!("main/s{msn}-7.m4s")), "{}", whole.text());
    let next = under_way!(house, format!("{MAIN}?_HLS_msn={msn}&_HLS_part=5"));
    held(&house, 1.0, &next).await;
    reel.part();
    soon(next).await.unwrap();
}

#[tokio::test]
async fn what_left_the_window_is_answered_at_once() {
    let house = House::open();
    house.source.put(demo(), Reel::running(20).feed);
    for query in ["_HLS_msn=1", "_HLS_msn=1&_HLS_part=7", "_HLS_msn=0"] {
        let answer = house.client.get(&format!("{MAIN}?{query}")).await;
        assert_eq!(answer.status, StatusCode::OK);
        Checker::new().observe(answer.text()).unwrap();
    }
}

#[tokio::test]
async fn bad_directives_are_refused_by_name() {
    let house = House::with(|config| config.room_grace = Duration::from_secs(60));
    let reel = Reel::running(3);
    house.source.put(demo(), reel.feed.clone());
    let msn = reel.msn();
    for (query, named) in [
        ("_HLS_part=1".to_owned(), "_HLS_msn"),
        ("_HLS_msn=x".to_owned(), "_HLS_msn"),
        ("_HLS_msn=".to_owned(), "_HLS_msn"),
        ("_HLS_msn=-1".to_owned(), "_HLS_msn"),
        ("_HLS_msn=1&_HLS_part=1.5".to_owned(), "_HLS_part"),
    ] {
        let answer = house.client.get(&format!("{MAIN}?{query}")).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert!(answer.text().contains(named), "{}", answer.text());
    }
    assert_eq!(house.metric("tidewater_refused_total{reason=\"bad_request\",role=\"edge\"}"), 5.0);
    // A room that has just been opened may be behind the edge the viewer comes from: those wait.
    let ahead = under_way!(house, format!("{MAIN}?_HLS_msn={}", msn + 9));
    held(&house, 1.0, &ahead).await;
    ahead.abort();
}

#[tokio::test]
async fn a_delta_update_skips_and_merges_to_the_same_list() {
    let house = House::open();
    let mut reel = Reel::running(20);
    house.source.put(demo(), reel.feed.clone());
    let (mut full, mut delta) = (Checker::new(), Checker::new());
    delta.observe(house.client.get(MAIN).await.text()).unwrap();
    for _ in 0..7 {
        reel.part();
        let text = house.client.get(&format!("{MAIN}?_HLS_skip=YES")).await;
        assert!(text.text().contains("#EXT-X-SKIP:SKIPPED-SEGMENTS="), "{}", text.text());
        let whole = house.client.get(MAIN).await;
        assert!(text.body.len() < whole.body.len());
        let merged = delta.observe(text.text()).unwrap();
        let whole = full.observe(whole.text()).unwrap();
        let uris =
            |l: &check::MediaPlaylist| l.segments.iter().map(|s| s.uri.clone()).collect::<Vec<_>>();
        assert_eq!(uris(merged), uris(whole));
    }
}

#[tokio::test]
async fn gzip_where_it_is_taken_is_the_same_text_from_every_edge() {
    let (one, two) = (House::open(), House::open());
    let mut reel = Reel::running(5);
    reel.part();
    one.source.put(demo(), reel.feed.clone());
    two.source.put(demo(), reel.feed.clone());
    let gzip = [("accept-encoding", "gzip, br")];
    let plain = one.client.get(MAIN).await;
    assert_eq!(plain.header("content-encoding"), "");
    let a = one.client.send(Method::GET, MAIN, &gzip).await;
    let b = two.client.send(Method::GET, MAIN, &gzip).await;
    assert_eq!(a.header("content-encoding"), "gzip");
    assert_eq!(a.header("vary"), "Accept-Encoding");
    assert_eq!(a.body, b.body);
    let mut text = String::new();
    flate2::read::GzDecoder::new(&a.body[..]).read_to_string(&mut text).unwrap();
    assert_eq!(text, plain.text());
}

#[tokio::test]
async fn head_and_range_agree_with_get() {
    let house = House::open();
    let reel = Reel::running(3);
    house.source.put(demo(), reel.feed.clone());
    let path = "/live/demo/main/s100-7.m4s";
    let whole = house.client.get(path).await;
    assert_eq!(whole.header("accept-ranges"), "bytes");
    let len = whole.body.len();
    for path in [path, MAIN, "/live/demo.m3u8"] {
        let get = house.client.get(path).await;
        let head = house.client.send(Method::HEAD, path, &[]).await;
        assert!(head.body.is_empty());
        for name in ["content-length", "content-type", "cache-control", "vary"] {
            assert_eq!(head.header(name), get.header(name), "{name} of {path}");
        }
        assert_eq!(head.header("content-length"), get.body.len().to_string());
    }
    for (range, start, end) in [
        ("bytes=0-99".to_owned(), 0, 100),
        (format!("bytes={}-{}", len / 2, len + 500), len / 2, len),
        ("bytes=-7".to_owned(), len - 7, len),
    ] {
        let part = house.client.send(Method::GET, path, &[("range", &range)]).await;
        assert_eq!(part.status, StatusCode::PARTIAL_CONTENT);
        assert_eq!(part.body, whole.body[start..end]);
        assert_eq!(part.header("content-range"), format!("bytes {start}-{}/{len}", end - 1));
    }
    let past = [("range", &*format!("bytes={len}-"))];
    let past = house.client.send(Method::GET, path, &past).await;
    assert_eq!(past.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(past.header("content-range"), format!("bytes */{len}"));
    let conditional = [("range", "bytes=0-9"), ("if-range", "\"x\"")];
    let conditional = house.client.send(Method::GET, path, &conditional).await;
    assert_eq!((conditional.status, conditional.body.len()), (StatusCode::OK, len));
}

#[tokio::test]
async fn the_hinted_part_is_held_until_it_is_whole() {
    let house = House::open();
    let mut reel = Reel::running(2);
    house.source.put(demo(), reel.feed.clone());
    for _ in 0..2 * PARTS_PER_SEGMENT {
        let list = house.client.get(MAIN).await;
        let mut checker = Checker::new();
        let hint = checker.observe(list.text()).unwrap().part_hint().unwrap().to_owned();
        let hinted = under_way!(house, format!("/live/demo/{hint}"));
        held(&house, 1.0, &hinted).await;
        let undelivered = reel.say_part();
        held(&house, 1.0, &hinted).await;
        reel.deliver(&undelivered);
        let answer = soon(hinted).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(&answer.body[4..8], b"moof");
    }
}

#[tokio::test]
async fn what_an_edge_ahead_has_listed_is_held_for_a_moment() {
    let house = House::open();
    let mut reel = Reel::running(2);
    house.source.put(demo(), reel.feed.clone());
    house.client.get(MAIN).await;
    let path = |part| format!("/live/demo/main/p7-{part}.m4s");
    let second = under_way!(house, path(reel.next_part() + 1));
    let open = under_way!(house, format!("/live/demo/main/s{}-7.m4s", reel.msn()));
    held(&house, 2.0, &second).await;
    reel.segment();
    assert_eq!(soon(second).await.unwrap().status, StatusCode::OK);
    assert_eq!(soon(open).await.unwrap().status, StatusCode::OK);
    for path in [
        path(reel.next_part() + 3),
        path(reel.next_part() + 500),
        path(1),
        format!("/live/demo/main/s{}-7.m4s", reel.msn() + 1),
        format!("/live/demo/main/s{}-7.m4s", reel.msn() + 100),
        "/live/demo/main/s100-6.m4s".to_owned(),
        format!("/live/demo/main/p8-{}.m4s", reel.next_part()),
        "/live/demo/main/init-0123456789abcdef.mp4".to_owned(),
    ] {
        let answer = house.client.get(&path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(answer.header("cache-control"), "max-age=1");
    }
}

#[tokio::test]
async fn lost_bytes_are_fetched_once_while_requests_are_held() {
    let house = House::open();
    let mut reel = Reel::running(2);
    house.source.put(demo(), reel.feed.clone());
    house.client.get(MAIN).await;
    let number = reel.next_part();
    let undelivered = Arc::new(reel.say_part());
    assert_eq!(reel.feed.part(Epoch(7), PartNumber(number)), Lookup::Coming);
    let (feed, msn) = (reel.feed.clone(), reel.msn());
    house.source.fetcher.on_fetch(move |epoch, asked| {
        assert_eq!((epoch, asked), (Epoch(7), Msn(msn)));
        undelivered.deliver_to(&feed);
        true
    });
    let path = format!("/live/demo/main/p7-{number}.m4s");
    let waiters: Vec<_> = (0..10).map(|_| under_way!(house, path)).collect();
    for waiter in waiters {
        assert_eq!(soon(waiter).await.unwrap().status, StatusCode::OK);
    }
    assert_eq!(house.source.fetcher.fetches.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn first_requests_are_held_until_there_is_a_playlist() {
    let house = House::open();
    let mut reel = Reel::new();
    house.source.put(demo(), reel.feed.clone());
    let main = under_way!(house, MAIN);
    let multivariant = under_way!(house, "/live/demo.m3u8");
    let part = under_way!(house, format!("/live/demo/main/p7-{}.m4s", reel.next_part()));
    held(&house, 3.0, &main).await;
    reel.part();
    assert_eq!(soon(part).await.unwrap().status, StatusCode::OK, "parts before playlists");
    held(&house, 2.0, &main).await;
    reel.segment();
    assert_eq!(soon(main).await.unwrap().status, StatusCode::OK);
    assert_eq!(soon(multivariant).await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn a_crowd_on_a_cold_edge_subscribes_once() {
    let house = House::open();
    let closed = house.source.gate.acquire_many(house.source.gate.available_permits() as u32);
    let closed = closed.await.unwrap();
    let reel = Reel::running(3);
    house.source.put(demo(), reel.feed.clone());
    let crowd: Vec<_> = (0..50).map(|_| under_way!(house, MAIN)).collect();
    house.reaches("tidewater_edge_connections", 50.0).await;
    drop(closed);
    for viewer in crowd {
        assert_eq!(soon(viewer).await.unwrap().status, StatusCode::OK);
    }
    assert_eq!(house.source.opened.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn unknown_rooms_are_404_and_asked_for_again() {
    let house = House::open();
    for path in ["/live/demo.m3u8", MAIN, "/live/demo/main/s1-1.m4s", "/live/demo.flv"] {
        let answer = house.client.get(path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(answer.header("cache-control"), "max-age=1");
        assert!(answer.text().contains("live/demo"), "{}", answer.text());
    }
    house.source.put(demo(), Reel::running(2).feed);
    assert_eq!(house.client.get(MAIN).await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_end_wakes_who_waits_and_closes_the_list() {
    let house = House::open();
    let reel = Reel::running(3);
    house.source.put(demo(), reel.feed.clone());
    let waiting = under_way!(house, format!("{MAIN}?_HLS_msn={}", reel.msn()));
    let hinted = under_way!(house, format!("/live/demo/main/p7-{}.m4s", reel.next_part()));
    held(&house, 2.0, &waiting).await;
    reel.end();
    let ended = soon(waiting).await.unwrap();
    assert!(ended.text().ends_with("#EXT-X-ENDLIST\n"), "{}", ended.text());
    assert_eq!(soon(hinted).await.unwrap().status, StatusCode::NOT_FOUND);
    let again = house.client.get(&format!("{MAIN}?_HLS_msn=9999&_HLS_part=3")).await;
    assert_eq!(again.status, StatusCode::OK, "directives mean nothing any more");
}

#[tokio::test]
async fn a_room_that_begins_anew_is_opened_anew() {
    let house = House::open();
    let reel = Reel::running(3);
    house.source.put(demo(), reel.feed.clone());
    assert!(house.client.get(MAIN).await.text().contains("s100-7"));
    let waiting = under_way!(house, format!("{MAIN}?_HLS_msn={}", reel.msn()));
    held(&house, 1.0, &waiting).await;
    let anew = Reel::with_epoch(9, 500);
    let mut anew = anew;
    (0..3).for_each(|_| anew.segment());
    house.source.put(demo(), anew.feed.clone());
    assert!(soon(waiting).await.unwrap().text().contains("s500-9"), "the waiter sees the new one");
    assert!(house.client.get(MAIN).await.text().contains("s500-9"));
    house.source.remove(&demo());
    assert_eq!(house.client.get(MAIN).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_room_leaves_a_grace_time_after_its_last_viewer() {
    let house = House::with(|config| config.room_grace = Duration::from_millis(100));
    house.source.put(demo(), Reel::running(3).feed);
    let kept = || house.source.kept.load(Ordering::SeqCst);
    house.client.get(MAIN).await;
    assert_eq!(kept(), 1);
    eventually("the subscription ends", || kept() == 0).await;
    let mut viewer = house.client.flv("/live/demo.flv").await;
    viewer.frame().await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(kept(), 1, "an FLV viewer holds it");
    drop(viewer);
    eventually("the subscription ends", || kept() == 0).await;
}
