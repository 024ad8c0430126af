//! An application's back-end: asked and told by webhooks, and calling the API with tokens of its own.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::process::{Ready, Tidewater};
use tests::publisher::{Publisher, Refused};
use tests::{addr, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// A back-end that lets nobody publish `live/no`, and passes on what it is asked and told.
async fn backend() -> Result<(SocketAddr, mpsc::Receiver<(String, Value)>)> {
    let listener = TcpListener::bind((addr::fresh(), 0)).await?;
    let address = listener.local_addr()?;
    let (tell, told) = mpsc::channel(64);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut asked = Vec::new();
            // The body is one JSON object, and its end the end of the request.
            while !asked.ends_with(b"}") {
                let mut some = [0; 4096];
                match socket.read(&mut some).await {
                    Ok(count) if count > 0 => asked.extend_from_slice(&some[..count]),
                    _ => break,
                }
            }
            let text = String::from_utf8_lossy(&asked).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let body: Value = serde_json::from_str(body).unwrap_or_default();
            let answer = match body["name"].as_str() {
                Some("no") => r#"{"allow":false,"reason":"not tonight"}"#,
                _ => r#"{"allow":true}"#,
            };
            let answer =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
            let _ = socket.write_all(answer.as_bytes()).await;
            if tell.send((head.to_owned(), body)).await.is_err() {
                return;
            }
        }
    });
    Ok((address, told))
}

async fn command(ready: &Ready, args: &[&str]) -> Result<(Option<i32>, String, String)> {
    let admin = format!("admin.listen={}", ready.admin);
    Tidewater::command(&[args, &["--set", &admin]].concat()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_application_is_asked_before_a_push_and_told_of_its_end() -> Result<()> {
    let (backend, mut told) = backend().await?;
    let data = tempfile::tempdir()?;
    let url = format!("hooks.url=http://{backend}/hooks");
    let settings = [url.as_str(), "hooks.allow_private=true", "hooks.secret=between us"];
    let args: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let (node, ready) = Tidewater::dev(data.path(), &args).await?;

    let refused = Publisher::connect(ready.rtmp, "live", "no").await.err();
    let refused = refused.context("the push is not refused")?.downcast::<Refused>()?;
    ensure!(refused.0.contains("Denied"), "{refused}");
    ensure!(node.log().has(&["not tonight"]), "the log says why");
    let (head, asked) = told.recv().await.context("nothing was asked")?;
    ensure!(head.contains("tidewater-signature: t="), "{head}");
    ensure!(asked["event"] == "on_publish" && asked["room"] == "live/no", "{asked}");

    let mut publisher = Publisher::connect(ready.rtmp, "live", "yes").await?;
    publisher.send(Duration::from_millis(100)).await?;
    publisher.finish().await?;
    let mut session = Value::Null;
    let mut seen = Vec::new();
    while !seen.contains(&"on_unpublish".to_owned()) || !seen.contains(&"on_room_start".to_owned())
    {
        let waited = tokio::time::timeout(tests::PATIENCE, told.recv()).await;
        let (_, event) = waited.with_context(|| format!("after {seen:?}"))?.context("ended")?;
        match event["event"].as_str() {
            Some("on_publish") => session = event["session"].clone(),
            Some("on_unpublish") => ensure!(event["session"] == session, "{event}"),
            _ => {}
        }
        seen.push(event["event"].as_str().unwrap_or_default().to_owned());
    }
    ensure!(!node.log().has(&["between us"]), "the secret is logged");
    node.kill().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_for_the_api_allows_its_scopes_and_leaves_its_trace() -> Result<()> {
    let data = tempfile::tempdir()?;
    let args = ["--set", "admin.token=the root of it all", "--set", "admin.require_token=true"];
    let (node, ready) = Tidewater::dev(data.path(), &args).await?;
    let root = "admin.token=the root of it all";
    let make = ["token", "admin", "shop", "--scope", "read", "--scope", "keys", "--set", root];
    let (code, token, error) = command(&ready, &make).await?;
    ensure!(code == Some(0), "{error}");
    let token = token.trim().to_owned();
    let shop = format!("admin.token={token}");

    let (code, _, error) = command(&ready, &["room", "list", "--set", &shop]).await?;
    ensure!(code == Some(0), "{error}");
    let (code, key, error) =
        command(&ready, &["key", "create", "live/c", "--json", "--set", &shop]).await?;
    ensure!(code == Some(0), "{error}");
    let key: Value = serde_json::from_str(&key)?;
    let secret = key["key"].as_str().context("a key")?;
    let (code, _, error) = command(&ready, &["room", "forbid", "live/c", "--set", &shop]).await?;
    ensure!(code == Some(1) && error.contains("lacks the scope rooms"), "{error}");
    let (code, _, error) = command(&ready, &["room", "list"]).await?;
    ensure!(code == Some(1) && error.contains("token"), "{error}");

    let id = command(&ready, &["token", "revoked", "--json", "--set", &shop]).await?.1;
    ensure!(id.trim() == "[]", "{id}");
    let trail = eventually("the audit", async || {
        let export = ["events", "export", "--since", "1h", "--set", root];
        let out = command(&ready, &export).await.ok()?.1;
        let lines = out.lines().filter(|line| line.contains("audit")).count();
        (lines >= 3).then_some(out)
    })
    .await?;
    for words in [["shop", "/api/v1/keys", "201"], ["shop", "push/forbid", "403"]] {
        let found = trail.lines().any(|line| words.iter().all(|word| line.contains(word)));
        ensure!(found, "{words:?} is not in\n{trail}");
    }
    let metrics = format!("{:?}", node.log().lines());
    for secret in [secret, &token, "the root of it all"] {
        ensure!(!trail.contains(secret) && !metrics.contains(secret), "a secret is shown");
    }
    node.kill().await
}
