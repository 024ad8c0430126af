//! Clusters in this process: what they keep, what they refuse, how they stop.

use super::*;

const GRACE: Duration = Duration::from_secs(1);

#[tokio::test]
async fn data_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let options = || Options { data: Some(folder.path().to_owned()), ..Options::for_tests() };
    let room = RoomId::parse("live/kept").unwrap();

    let dev = Dev::start(options()).await.unwrap();
    let key = dev.nodes()[0].client().create_key(&room).await.unwrap();
    let first_ca = std::fs::read_to_string(folder.path().join("ca/ca.pem")).unwrap();
    dev.stop(GRACE).await;

    let dev = Dev::start(options()).await.unwrap();
    assert!(dev.nodes()[0].client().check_key(&room, &key.key).await.unwrap());
    assert_eq!(std::fs::read_to_string(folder.path().join("ca/ca.pem")).unwrap(), first_ca);
    for node in ["o1", "e1"] {
        assert!(folder.path().join(node).is_dir(), "{node} has a folder of its own");
    }
    dev.stop(GRACE).await;
}

#[tokio::test]
async fn the_data_folder_may_be_a_setting() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("d");
    let options = Options::for_tests().set("node.data", data.to_str().unwrap());
    let dev = Dev::start(options).await.unwrap();
    assert!(data.join("o1").is_dir());
    dev.stop(GRACE).await;
    assert!(data.join("o1").is_dir(), "a named folder stays");
}

#[tokio::test]
async fn what_had_started_is_stopped_when_the_rest_cannot() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let options = Options::for_tests()
        .set("rtmp.listen", &free.to_string())
        .set("http.listen", &taken.local_addr().unwrap().to_string());
    assert!(Dev::start(options).await.is_err());
    std::net::TcpListener::bind(free).expect("the origin has let go of its port");
}

#[tokio::test]
async fn a_data_folder_has_one_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let options = || Options { data: Some(folder.path().to_owned()), ..Options::for_tests() };
    let dev = Dev::start(options()).await.unwrap();
    let error = Dev::start(options()).await.err().expect("the folder is taken");
    assert!(error.to_string().contains("in use by another tidewater"), "{error:#}");
    dev.stop(GRACE).await;
}

/// Waits until the test card's room is in `state`.
async fn await_demo(dev: &Dev, state: origin::State) {
    let room = RoomId::parse(DEMO_ROOM).unwrap();
    let reached = async {
        while dev.facts().room(&room).is_none_or(|report| report.facts.state != state) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reached).await.expect("the test card's room");
}

#[tokio::test]
async fn the_test_card_is_on_air_with_open_doors_and_with_keys() {
    for publish in ["open", "key"] {
        let folder = tempfile::tempdir().unwrap();
        let options = || Options {
            data: Some(folder.path().to_owned()),
            ..Options::for_tests().set("auth.publish", publish)
        };
        let dev = Dev::start(Options { demo: true, ..options() }).await.unwrap();
        await_demo(&dev, origin::State::Live).await;
        dev.stop(GRACE).await;

        // Its key does not outlive it.
        let dev = Dev::start(options()).await.unwrap();
        let keys = dev.nodes()[0].client().list_keys(None, None, 10).await.unwrap();
        assert_eq!(keys, [], "auth.publish={publish}");
        dev.stop(GRACE).await;
    }
}

#[tokio::test]
async fn a_viewer_shows_at_the_room_and_at_its_edge() {
    let dev = Dev::start(Options { demo: true, ..Options::for_tests() }).await.unwrap();
    await_demo(&dev, origin::State::Live).await;
    let room = RoomId::parse(DEMO_ROOM).unwrap();
    let mut viewer = tokio::net::TcpStream::connect(dev.ports().http[0]).await.unwrap();
    let request = b"GET /live/demo.flv HTTP/1.1\r\nhost: edge\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut viewer, request).await.unwrap();
    let seen = async {
        loop {
            let at_room = dev.facts().room(&room).map_or(0, |report| report.viewers);
            let status = dev.nodes()[0].client().status().await.unwrap();
            let edge = status.nodes.iter().find(|node| node.info.spec.id.as_str() == "e1");
            let at_edge = edge.and_then(|edge| edge.load).map_or(0, |load| load.viewers);
            if (at_room, at_edge) == (1, 1) {
                return;
            }
            // The viewer must read, or it is no viewer for long.
            let mut media = [0; 65536];
            let _ = tokio::io::AsyncReadExt::read(&mut viewer, &mut media).await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), seen).await.expect("the viewer is counted");
    dev.stop(GRACE).await;
}

#[tokio::test]
async fn a_kicked_stream_ends_at_once() {
    let dev = Dev::start(Options { demo: true, ..Options::for_tests() }).await.unwrap();
    await_demo(&dev, origin::State::Live).await;
    let room = RoomId::parse(DEMO_ROOM).unwrap();
    let before = dev.facts().room(&room).unwrap().facts.since_unix_ms;
    assert!(dev.facts().stop(&room, "enough").await);
    // The test card is a persistent publisher: it comes back as a push of its own.
    let back = async {
        while dev.facts().room(&room).is_none_or(|report| {
            report.facts.state != origin::State::Live || report.facts.since_unix_ms == before
        }) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), back).await.expect("the test card is back");
    let nobody = RoomId::parse("live/nobody").unwrap();
    assert!(!dev.facts().stop(&nobody, "").await);
    dev.stop(GRACE).await;
}

#[tokio::test]
async fn a_temporary_folder_is_removed() {
    let dev = Dev::start(Options::for_tests()).await.unwrap();
    let folder = dev.config().borrow().node.data.clone();
    assert!(folder.is_dir());
    dev.stop(GRACE).await;
    assert!(!folder.exists());
}

#[tokio::test]
async fn a_port_in_use_names_the_key_to_change() {
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for (key, taken) in [
        ("rtmp.listen", tcp.local_addr().unwrap()),
        ("http.listen", tcp.local_addr().unwrap()),
        ("admin.listen", tcp.local_addr().unwrap()),
        ("cluster.listen", udp.local_addr().unwrap()),
    ] {
        let options = Options::for_tests().set(key, &taken.to_string());
        let error = Dev::start(options).await.err().expect("the port is taken");
        let text = format!("{error:#}");
        assert!(text.contains(&format!("--set {key}=")), "{text}");
        assert!(text.contains("in use"), "{text}");
    }
}

#[tokio::test]
async fn several_clusters_run_side_by_side() {
    let (one, two) =
        tokio::join!(Dev::start(Options::for_tests()), Dev::start(Options::for_tests()));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_ne!(one.ports(), two.ports());
    tokio::join!(one.stop(GRACE), two.stop(GRACE));
}

#[test]
fn wildcards_are_reached_on_loopback() {
    for (listen, reached) in [
        ("0.0.0.0:1935", "127.0.0.1:1935"),
        ("[::]:1935", "[::1]:1935"),
        ("10.0.0.1:1935", "10.0.0.1:1935"),
    ] {
        assert_eq!(on_loopback(listen.parse().unwrap()), reached.parse().unwrap());
    }
}
