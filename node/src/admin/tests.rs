//! The admin listener of a real cluster, asked over its socket.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::view;
use crate::dev::{Dev, Options};

const GRACE: Duration = Duration::from_secs(1);

/// One request, head and body as written; status, head and body of the answer.
async fn ask(admin: SocketAddr, request: &str) -> (u16, String, String) {
    let mut socket = TcpStream::connect(admin).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a whole head");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

async fn get(admin: SocketAddr, path: &str) -> (u16, String, String) {
    ask(admin, &format!("GET {path} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n")).await
}

async fn send(admin: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String, String) {
    let bytes = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {bytes}\r\n\r\n{body}"
    );
    ask(admin, &request).await
}

fn detail(body: &str) -> String {
    let problem: serde_json::Value = serde_json::from_str(body).expect("a problem document");
    problem["detail"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_cluster_shows_its_health_nodes_and_metrics() {
    let dev = Dev::start(Options::for_tests().edges(2)).await.unwrap();
    let admin = dev.ports().admin;

    assert_eq!(get(admin, "/healthz").await.2, "ok\n");
    let (status, _, body) = get(admin, "/readyz").await;
    assert_eq!((status, body.as_str()), (200, r#"{"ready":true,"not_ready":[],"warnings":[]}"#));

    let (_, _, body) = get(admin, "/api/v1/version").await;
    assert!(body.starts_with(r#"{"version":""#), "{body}");

    let (_, _, body) = get(admin, "/api/v1/cluster").await;
    let cluster: view::Cluster = serde_json::from_str(&body).unwrap();
    assert_eq!(cluster.leader.as_deref(), Some("o1"));
    let nodes: Vec<_> = cluster.nodes.iter().map(|n| (n.id.as_str(), n.state.as_str())).collect();
    assert_eq!(nodes, [("e1", "up"), ("e2", "up"), ("o1", "up")]);
    assert_eq!(cluster.nodes[2].roles, ["control", "origin"]);
    assert_eq!(cluster.nodes[2].address, dev.ports().cluster.to_string());

    let (status, head, metrics) = get(admin, "/metrics").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    for name in [
        "tidewater_build_info{",
        "tidewater_edge_viewers{",
        "tidewater_edge_sent_bytes_total{",
        "tidewater_edge_upstreams",
        "tidewater_edge_media_lag_seconds",
        "tidewater_origin_publishers",
        "tidewater_origin_received_bytes_total",
        "tidewater_origin_rooms",
        "tidewater_refused_total{",
        "tidewater_raft_is_leader 1",
        "tidewater_raft_term",
        "process_cpu_seconds_total",
    ] {
        assert!(metrics.lines().any(|line| line.starts_with(name)), "{name} is not in\n{metrics}");
    }
    check_with_promtool(&metrics);
    dev.stop(GRACE).await;
}

/// As `promtool check metrics` sees it; skipped where promtool is not installed, unless strict.
fn check_with_promtool(metrics: &str) {
    use std::{io::Write as _, process::Stdio};
    let promtool = std::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match promtool {
        Ok(promtool) => promtool,
        Err(error) => {
            let strict = std::env::var("TIDEWATER_STRICT").is_ok_and(|strict| strict == "1");
            assert!(!strict, "promtool: {error}");
            return;
        }
    };
    promtool.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "promtool: {said}");
}

#[tokio::test]
async fn keys_are_made_listed_and_revoked() {
    let dev = Dev::start(Options::for_tests()).await.unwrap();
    let admin = dev.ports().admin;

    let (status, head, body) = send(admin, "POST", "/api/v1/keys", r#"{"room":"live/c"}"#).await;
    assert_eq!(status, 201, "{body}");
    assert!(head.contains("cache-control: no-store"), "{head}");
    let key: view::CreatedKey = serde_json::from_str(&body).unwrap();
    assert_eq!(key.push_url, format!("rtmp://{}/live/c?token={}", dev.ports().rtmp, key.key));

    send(admin, "POST", "/api/v1/keys", r#"{"room":"live/d"}"#).await;
    let (_, _, body) = get(admin, "/api/v1/keys?room=live/c").await;
    let keys: view::Keys = serde_json::from_str(&body).unwrap();
    assert_eq!(keys.keys.iter().map(|k| &k.id).collect::<Vec<_>>(), [&key.id]);
    assert!(!body.contains(&key.key), "the secret is shown once only");

    // Two pages of one.
    let (_, _, body) = get(admin, "/api/v1/keys?limit=1").await;
    let first: view::Keys = serde_json::from_str(&body).unwrap();
    let after = first.next.expect("there is a second page");
    let (_, _, body) = get(admin, &format!("/api/v1/keys?limit=1&after={after}")).await;
    let second: view::Keys = serde_json::from_str(&body).unwrap();
    assert_ne!(first.keys[0].id, second.keys[0].id);

    let path = format!("/api/v1/keys/{}", key.id);
    assert_eq!(send(admin, "DELETE", &path, "").await.0, 204);
    let (status, _, body) = send(admin, "DELETE", &path, "").await;
    assert_eq!(status, 404);
    assert!(detail(&body).contains(&key.id), "{body}");
    dev.stop(GRACE).await;
}

#[tokio::test]
async fn wrong_requests_are_problems_that_say_so() {
    let dev = Dev::start(Options::for_tests()).await.unwrap();
    let admin = dev.ports().admin;
    let cases = [
        ("GET", "/api/v1/rooms/live/none", "", 404, "live/none is not active"),
        ("GET", "/api/v1/rooms/api/none", "", 400, "reserved"),
        ("GET", "/api/v1/rooms/live/a.flv", "", 400, ".flv"),
        ("GET", "/api/v1/rooms?limit=0", "", 400, "limit must be from 1 to 500"),
        ("GET", "/api/v1/rooms?limt=1", "", 400, "limt"),
        ("GET", "/api/v1/rooms?after=x", "", 400, "a room is app/name"),
        ("POST", "/api/v1/rooms/live/none/kick", "", 404, "live/none is not active"),
        ("POST", "/api/v1/cluster/members", r#"{"id":"A","address":"h:1"}"#, 400, "node id"),
        ("POST", "/api/v1/cluster/members", r#"{"id":"o2","address":"x"}"#, 400, "address"),
        ("POST", "/api/v1/cluster/leader", r#"{"to":"o9"}"#, 400, "o9"),
        ("DELETE", "/api/v1/cluster/nodes/o9", "", 404, "o9"),
        ("GET", "/api/v1/nothing", "", 404, "no such resource"),
        ("PUT", "/api/v1/keys", "", 405, "does not take that method"),
        ("POST", "/api/v1/keys", "{", 400, "body: EOF"),
        ("POST", "/api/v1/keys", r#"{"room":"live"}"#, 400, "a room is app/name"),
        ("POST", "/api/v1/keys", r#"{"room":"live/c","x":1}"#, 400, "unknown field `x`"),
        ("DELETE", "/api/v1/keys/zz", "", 400, "16 hexadecimal digits"),
    ];
    for (method, path, body, status, says) in cases {
        let (found, head, answer) = send(admin, method, path, body).await;
        assert_eq!(found, status, "{method} {path}: {answer}");
        assert!(head.contains("content-type: application/problem+json"), "{method} {path}: {head}");
        assert!(detail(&answer).contains(says), "{method} {path}: {answer}");
    }
    let huge = "x".repeat(super::MAX_BODY_BYTES + 1);
    assert_eq!(send(admin, "POST", "/api/v1/keys", &huge).await.0, 413);
    dev.stop(GRACE).await;
}

#[tokio::test]
async fn web_pages_and_strangers_are_refused_and_counted() {
    let options = Options::for_tests().set("admin.token", "s3cret");
    let dev = Dev::start(options.set("admin.require_token", "true")).await.unwrap();
    let admin = dev.ports().admin;
    let (status, head, _) = get(admin, "/api/v1/cluster").await;
    assert_eq!(status, 401);
    assert!(head.contains("www-authenticate: bearer"), "{head}");
    assert_eq!(get(admin, "/healthz").await.0, 200);
    assert_eq!(get(admin, "/readyz").await.0, 200);

    let with_token = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nhost: node.example\r\nauthorization: Bearer s3cret\r\n\
             connection: close\r\n\r\n"
        )
    };
    assert_eq!(ask(admin, &with_token("/api/v1/cluster")).await.0, 200);
    let (_, _, metrics) = ask(admin, &with_token("/metrics")).await;
    let refused = r#"tidewater_refused_total{reason="token",role="admin"} 1"#;
    assert!(metrics.contains(refused), "{metrics}");
    dev.stop(GRACE).await;

    let dev = Dev::start(Options::for_tests()).await.unwrap();
    let admin = dev.ports().admin;
    let page = format!(
        "GET /api/v1/cluster HTTP/1.1\r\nhost: {admin}\r\norigin: https://evil.example\r\n\
         connection: close\r\n\r\n"
    );
    assert_eq!(ask(admin, &page).await.0, 403);
    dev.stop(GRACE).await;
}

#[tokio::test]
async fn the_api_has_a_listener_of_its_own() {
    let options = Options::for_tests().set("admin.token", "s3cret");
    let dev = Dev::start(options.set("api.listen", "127.0.0.1:0")).await.unwrap();
    let api = dev.api().expect("api.listen is on");
    assert_eq!(get(api, "/api/v1/cluster").await.0, 401);
    let request = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nhost: api.example\r\nauthorization: Bearer s3cret\r\n\
             connection: close\r\n\r\n"
        )
    };
    assert_eq!(ask(api, &request("/api/v1/cluster")).await.0, 200);
    assert_eq!(ask(api, &request("/metrics")).await.0, 404);
    dev.stop(GRACE).await;
}
