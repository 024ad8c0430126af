//! Hooks against a back-end on this machine.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// Answers requests in order as told, and tells what was asked.
async fn backend(answers: Vec<&'static str>) -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (tell, told) = mpsc::channel(16);
    tokio::spawn(async move {
        for answer in answers {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            // Until the body has come: the last byte of an object.
            while !asked.ends_with(b"}") {
                let mut some = [0; 4096];
                let count = socket.read(&mut some).await.unwrap();
                assert!(count > 0, "broke off");
                asked.extend_from_slice(&some[..count]);
            }
            tell.send(String::from_utf8(asked).unwrap()).await.unwrap();
            if answer == "silence" {
                std::future::pending::<()>().await;
            }
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (url, told)
}

fn hooks(url: &str) -> Config {
    Config {
        url: url.to_owned(),
        secret: b"secret".to_vec(),
        kinds: Kind::ALL.into_iter().collect(),
        format: Format::Tidewater,
        timeout: Duration::from_secs(5),
        fail_open: false,
        allow_private: true,
        ca: None,
        node: "o1".to_owned(),
    }
}

fn start(config: Config) -> (Hooks, prometheus::Registry) {
    let registry = prometheus::Registry::new();
    let metrics = Metrics::register(&registry).unwrap();
    (Hooks::start(config, metrics).unwrap(), registry)
}

fn counted(registry: &prometheus::Registry, line: &str) -> bool {
    let mut text = String::new();
    let encoder = prometheus::TextEncoder::new();
    encoder.encode_utf8(&registry.gather(), &mut text).unwrap();
    text.lines().any(|found| found == line)
}

const YES: &str = "HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{\"allow\":true}";
const NO: &str =
    "HTTP/1.1 200 OK\r\ncontent-length: 35\r\n\r\n{\"allow\":false,\"reason\":\"you know\"}";
const AWAY: &str = "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n";

#[tokio::test]
async fn a_back_end_decides_and_can_check_who_asks() {
    let (url, mut told) = backend(vec![YES, NO]).await;
    let (hooks, registry) = start(hooks(&url));
    let event = Event::new(Kind::Publish, "live", "c");
    assert_eq!(hooks.decide(event.clone()).await, Decision::Allow);
    assert_eq!(hooks.decide(event).await, Decision::Deny("you know".to_owned()));
    let asked = told.recv().await.unwrap();
    let (head, body) = asked.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /hook HTTP/1.1\r\n"), "{head}");
    let header = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
    };
    assert_eq!(header("tidewater-event").as_deref(), Some("on_publish"));
    let signed = header(SIGNATURE_HEADER).unwrap();
    let at_s = signed[2..].split(',').next().unwrap().parse().unwrap();
    assert_eq!(signed, signature(b"secret", at_s, body.as_bytes()));
    let line = r#"tidewater_hooks_decisions_total{event="on_publish",outcome="denied"} 1"#;
    assert!(counted(&registry, line));
}

#[tokio::test]
async fn without_an_answer_the_configuration_decides() {
    for fail_open in [false, true] {
        let (url, _told) = backend(vec![AWAY, "silence"]).await;
        let quick = Duration::from_millis(200);
        let (hooks, registry) = start(Config { fail_open, timeout: quick, ..hooks(&url) });
        for kind in [Kind::Play, Kind::MessageReview] {
            let decision = hooks.decide(Event::new(kind, "live", "c")).await;
            assert_eq!(decision == Decision::Allow, fail_open, "{decision:?}");
        }
        let line = r#"tidewater_hooks_decisions_total{event="on_play",outcome="failed"} 1"#;
        assert!(counted(&registry, line));
    }
}

#[tokio::test]
async fn what_is_not_asked_for_is_allowed_and_not_told() {
    let config = Config { kinds: BTreeSet::from([Kind::Play]), ..hooks("http://127.0.0.1:1/") };
    let (hooks, _) = start(config);
    let event = Event::new(Kind::Publish, "live", "c");
    assert!(!hooks.wants(Kind::Publish) && hooks.wants(Kind::Play));
    assert_eq!(hooks.decide(event.clone()).await, Decision::Allow);
    hooks.notify(event);
}

#[tokio::test]
async fn notifications_come_in_order_and_again_after_a_failure() {
    let (url, mut told) = backend(vec![AWAY, YES, YES]).await;
    let (hooks, _registry) = start(hooks(&url));
    for kind in [Kind::RoomStart, Kind::RoomEnd] {
        hooks.notify(Event::new(kind, "live", "c"));
    }
    for expected in ["on_room_start", "on_room_start", "on_room_end"] {
        let asked = told.recv().await.unwrap();
        assert!(asked.contains(&format!("\"event\":\"{expected}\"")), "{asked}");
    }
}

#[tokio::test]
async fn private_addresses_are_not_asked_unless_they_may_be() {
    let (url, mut told) = backend(vec![YES]).await;
    let (closed, _) = start(Config { allow_private: false, ..hooks(&url) });
    let event = Event::new(Kind::Publish, "live", "c");
    assert!(matches!(closed.decide(event).await, Decision::Deny(_)));
    assert!(told.try_recv().is_err(), "nobody was asked");
}

#[test]
fn events_do_not_show_what_let_somebody_in() {
    let query = "token=secret".to_owned();
    let event = Event { query, ..Event::new(Kind::Publish, "live", "c") };
    assert!(!format!("{event:?}").contains("secret"));
}
