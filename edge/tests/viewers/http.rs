//! What holds for every request: methods, CORS, problems, pages, HTTP/2, TLS, guests.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use edge::TlsFiles;
use edge::room::OpenError;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use media::flv::TagKind;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::support::client::{FlvViewer, http2_over, is_key};
use super::support::reel::Reel;
use super::support::{House, demo, eventually, soon};

const MAIN: &str = "/live/demo/main.m3u8";

#[tokio::test]
async fn viewers_only_read() {
    let house = House::open();
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
        let answer = house.client.send(method.clone(), MAIN, &[]).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert_eq!(answer.header("allow"), "GET, HEAD, OPTIONS");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert!(answer.text().contains(method.as_str()));
    }
    let preflight = house.client.send(Method::OPTIONS, MAIN, &[("origin", "http://x")]).await;
    assert_eq!(preflight.status, StatusCode::NO_CONTENT);
    assert_eq!(preflight.header("access-control-allow-origin"), "*");
    assert!(preflight.header("access-control-allow-headers").contains("Range"));
    assert_eq!(preflight.header("access-control-allow-methods"), "GET, HEAD, POST, OPTIONS");
}

#[tokio::test]
async fn errors_are_problem_documents_that_scripts_may_read() {
    let house = House::open();
    for (path, detail) in [
        ("/nothing/here", "nothing of this name"),
        ("/api/demo.m3u8", "reserved"),
        ("/live/-x.m3u8", "must start with a letter or digit"),
        ("/live/demo.m3u8", "live/demo"),
        ("/ws/live/demo", "nothing of this name"),
    ] {
        let answer = house.client.get(path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert!(answer.header("access-control-expose-headers").contains("Retry-After"));
        let document: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(document["status"], 404);
        assert!(document["detail"].as_str().unwrap().contains(detail), "{document}");
    }
}

#[tokio::test]
async fn the_room_list_is_a_page_for_people_and_json_for_programs() {
    let house = House::open();
    let reel = Reel::running(2);
    house.source.put(demo(), reel.feed.clone());
    let mut viewer = house.client.flv("/live/demo.flv").await;
    viewer.tag().await.unwrap();
    let json = [("accept", "application/json")];
    let answer = house.client.send(Method::GET, "/", &json).await;
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("vary"), "Accept");
    let list: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let expected = serde_json::json!({"rooms": [
        {"room": "live/demo", "state": "live", "viewers": 1, "url": "/watch/live/demo"}
    ]});
    assert_eq!(list, expected);
    reel.grace();
    let answer = house.client.send(Method::GET, "/", &json).await;
    assert!(answer.text().contains("\"state\":\"grace\""));
    let browser = [("accept", "text/html,application/xhtml+xml,*/*;q=0.8")];
    for path in ["/", "/watch/live/demo"] {
        let page = house.client.send(Method::GET, path, &browser).await;
        assert_eq!(page.status, StatusCode::OK);
        assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
        assert_eq!(page.header("referrer-policy"), "no-referrer");
        assert!(page.header("content-security-policy").contains("object-src 'none'"));
        assert!(page.text().contains("<!doctype html>"));
    }
    assert_eq!(house.client.get("/watch/api/demo").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn assets_do_not_lead_out_of_their_folder() {
    let house = House::open();
    for path in [
        "/assets/../index.html",
        "/assets/../../Cargo.toml",
        "/assets/%2e%2e/index.html",
        "/assets//etc/passwd",
        "/assets/",
        "/assets",
        "/assets/nothing.js",
    ] {
        assert_eq!(house.client.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn health_is_told() {
    let house = House::open();
    assert_eq!(house.client.get("/healthz").await.text(), "ok\n");
    assert_eq!(house.client.get("/readyz").await.text(), "ready\n");
    house.source.set_unready("no home is reachable");
    let answer = house.client.get("/readyz").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.text().contains("no home is reachable"));
    assert_eq!(house.client.get("/healthz").await.status, StatusCode::OK);
}

#[tokio::test]
async fn without_guests_media_needs_a_token_and_rooms_are_not_told() {
    let house = House::with(|config| config.allow_guests = false);
    house.source.put(demo(), Reel::running(2).feed);
    for path in
        ["/live/demo.m3u8", MAIN, "/live/demo/main/s100-7.m4s", "/live/demo.flv", "/live/no.flv"]
    {
        let answer = house.client.get(path).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    let list = house.client.send(Method::GET, "/", &[("accept", "application/json")]).await;
    assert_eq!(list.text(), "{\"rooms\":[]}");
    assert_eq!(house.client.get("/healthz").await.status, StatusCode::OK);
    assert_eq!(house.metric("tidewater_refused_total{reason=\"unauthorized\",role=\"edge\"}"), 5.0);
}

#[tokio::test]
async fn a_room_that_cannot_be_had_says_when_to_ask_again() {
    let house = House::open();
    let retry_after = std::time::Duration::from_millis(2500);
    house.source.fail_with(OpenError::Unavailable { retry_after });
    for path in [MAIN, "/live/demo.flv"] {
        let answer = house.client.get(path).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.header("retry-after"), "3");
    }
}

#[tokio::test]
async fn many_blocking_reloads_share_one_http2_connection() {
    let house = House::open();
    let mut reel = Reel::running(3);
    house.source.put(demo(), reel.feed.clone());
    let http2 = house.client.http2().await;
    let ask = |path: String| {
        let mut http2 = http2.clone();
        let request = Request::get(format!("http://edge{path}"));
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        tokio::spawn(async move {
            let response = http2.send_request(request).await.unwrap();
            let status = response.status();
            (status, response.into_body().collect().await.unwrap().to_bytes())
        })
    };
    let (msn, part) = (reel.msn(), reel.next_part());
    let mut waiting: Vec<_> =
        (0..20).map(|_| ask(format!("{MAIN}?_HLS_msn={msn}&_HLS_part=0"))).collect();
    waiting.push(ask(format!("/live/demo/main/p7-{part}.m4s")));
    let (status, body) = soon(ask(MAIN.into())).await.unwrap();
    assert_eq!(status, StatusCode::OK, "a plain request passes those that wait");
    assert!(body.starts_with(b"#EXTM3U"));
    assert!(waiting.iter().all(|w| !w.is_finished()));
    reel.part();
    for waiting in waiting {
        let (status, body) = soon(waiting).await.unwrap();
        assert_eq!(status, StatusCode::OK);
        assert!(!body.is_empty());
    }
    assert_eq!(house.metric("tidewater_edge_connections"), 1.0);
    let head = Request::head("http://edge/live/demo/main/s100-7.m4s").body(Empty::new()).unwrap();
    let head = soon(http2.clone().send_request(head)).await.unwrap();
    assert!(head.headers()["content-length"].to_str().unwrap().parse::<u64>().unwrap() > 1000);
    assert!(head.into_body().collect().await.unwrap().to_bytes().is_empty());
}

#[tokio::test]
async fn a_drain_lets_http2_connections_finish_and_sends_them_away() {
    let house = House::open();
    let mut reel = Reel::running(3);
    house.source.put(demo(), reel.feed.clone());
    let mut http2 = house.client.http2().await;
    let get = |path: String| {
        Request::get(format!("http://edge{path}")).body(Empty::<Bytes>::new()).unwrap()
    };
    let (msn, mut other) = (reel.msn(), http2.clone());
    let held = get(format!("{MAIN}?_HLS_msn={msn}&_HLS_part=0"));
    let held = tokio::spawn(async move { other.send_request(held).await.unwrap().status() });
    assert_eq!(soon(http2.send_request(get(MAIN.into()))).await.unwrap().status(), StatusCode::OK);
    assert!(soon(http2.ready()).await.is_ok(), "another request would be taken");

    house.edge.draining().set(true);
    let last = soon(http2.send_request(get(MAIN.into()))).await.unwrap();
    assert_eq!(last.status(), StatusCode::OK, "nobody is refused");
    reel.part();
    assert_eq!(soon(held).await.unwrap(), StatusCode::OK, "what was asked is answered");
    eventually("the connection ends", || http2.is_closed()).await;
    house.client.get(MAIN).await;
    let mut again = house.client.http2().await;
    let status = soon(again.send_request(get(MAIN.into()))).await.unwrap().status();
    assert_eq!(status, StatusCode::OK, "whoever has no other edge stays");
}

/// Writes a fresh certificate for localhost; returns it for a client to trust.
fn certificate(folder: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    made.cert.der().clone()
}

async fn tls(
    house: &House,
    trusted: &CertificateDer<'static>,
    alpn: &[&[u8]],
) -> TlsStream<TcpStream> {
    try_tls(house, trusted, alpn).await.unwrap()
}

async fn try_tls(
    house: &House,
    trusted: &CertificateDer<'static>,
    alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    let stream = house.client.raw().await;
    let name = ServerName::try_from("localhost").unwrap();
    soon(TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}

#[tokio::test]
async fn tls_serves_both_protocols_flv_and_websocket_and_follows_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let first = certificate(folder.path());
    let files =
        TlsFiles { cert: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
    let house = House::with(|config| config.tls = Some(files));
    let mut reel = Reel::running(2);
    house.source.put(demo(), reel.feed.clone());

    let mut http2 = http2_over(tls(&house, &first, &[b"h2", b"http/1.1"]).await).await;
    let request = Request::get(format!("https://localhost{MAIN}")).body(Empty::new()).unwrap();
    let response = soon(http2.send_request(request)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);

    let mut stream = tls(&house, &first, &[b"http/1.1"]).await;
    let request = "GET /live/demo.flv HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut viewer = FlvViewer::begin(stream).await;
    assert!(viewer.head.contains("connection: close"));
    assert!(is_key(&viewer.picture().await.unwrap()));

    let stream = tls(&house, &first, &[]).await;
    let (mut socket, _) = tokio_websockets::ClientBuilder::new()
        .uri("wss://localhost/live/demo.flv")
        .unwrap()
        .connect_on(stream)
        .await
        .unwrap();
    use futures_util::StreamExt;
    assert!(soon(socket.next()).await.unwrap().unwrap().is_binary());

    // A renewal: new connections get the new certificate, nobody is dropped.
    let second = certificate(folder.path());
    let mut renewed = None;
    while renewed.is_none() {
        renewed = try_tls(&house, &second, &[b"http/1.1"]).await.ok();
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    for _ in 1..30 {
        viewer.picture().await.unwrap();
    }
    reel.segment();
    assert_eq!(viewer.picture().await.unwrap().timestamp_ms, 2000);
    reel.end();
    for _ in 0..29 {
        viewer.picture().await.unwrap();
    }
    assert_eq!(viewer.picture().await.map(|t| t.kind), None::<TagKind>, "and a clean end");
    eventually("both ended", || {
        house.metric("tidewater_edge_flv_closed_total{reason=\"ended\"}") == 2.0
    })
    .await;

    // Clear text on the TLS port costs its own connection.
    let mut clear = house.client.raw().await;
    clear.write_all(b"GET / HTTP/1.1\r\nHost: e\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _ = soon(clear.read_to_end(&mut rest)).await;
    house.reaches("tidewater_refused_total{reason=\"tls\",role=\"edge\"}", 1.0).await;
}
