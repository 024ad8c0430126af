//! Autobahn's cases against the frames, messages and compression that members and WS-FLV are served with.
//!
//! In: PyPI's `kosoku`, which `make setup` puts under `target/autobahn`. Out: every case's verdict. The server is an echo of
//! whatever length the cases ask for; it is part of this test alone. Run by `make autobahn`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::frame::{self, Opcode};
use super::message::{Bounds, Message, Messages};
use super::{accept, deflate, wants_upgrade};

/// The longest message of the cases is 16 MiB.
const MAX_MESSAGE: usize = 32 << 20;
const READ_BYTES: usize = 64 << 10;
/// How long a client may take to close once both said so.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// All but 9, 12 and 13, whose megabytes take minutes without optimisation and which rooms refuse by size.
const CASES: &str = "1.* 2.* 3.* 4.* 5.* 6.* 7.* 10.*";
/// Cases at a time.
const PARALLEL: &str = "8";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PyPI's kosoku: make autobahn"]
async fn autobahn() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                // What a case does to its connection is for the runner to judge.
                let _ = echo(socket).await;
            });
        }
    });
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/autobahn");
    let out = tempfile::tempdir().unwrap();
    let mut run = std::process::Command::new("python3");
    run.arg(installed.join("bin/kosoku"))
        .args(["-m", "fuzzingclient", "-p", PARALLEL, "-o"])
        .arg(out.path())
        .arg(format!("ws://{address}"))
        .env("PYTHONPATH", &installed);
    let only = std::env::var("AUTOBAHN_CASES").unwrap_or_else(|_| CASES.to_owned());
    run.args(only.split(' ').flat_map(|case| ["-i", case]));
    let ran = tokio::task::spawn_blocking(move || run.output()).await.unwrap().unwrap();
    let index = std::fs::read_to_string(out.path().join("index.json")).unwrap_or_else(|error| {
        let said = String::from_utf8_lossy(&ran.stderr);
        panic!("{error}: kosoku is needed, run make setup: {said}")
    });
    let index: Value = serde_json::from_str(&index).unwrap();
    let cases = index.as_object().unwrap().values().next().unwrap().as_object().unwrap();
    let mut counts: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (case, verdict) in cases {
        let of = |key: &str| verdict[key].as_str().unwrap_or_default().to_owned();
        let (behavior, close) = (of("behavior"), of("behaviorClose"));
        let known = ["OK", "INFORMATIONAL", "NON-STRICT"].contains(&close.as_str());
        let close = if known { String::new() } else { format!(", closing {close}") };
        counts.entry(format!("{behavior}{close}")).or_default().push(case);
    }
    for (verdict, cases) in &counts {
        let few = if verdict == "OK" { String::new() } else { format!(": {}", cases.join(" ")) };
        println!("{verdict}: {} cases{few}", cases.len());
    }
    // Not strict is text that is refused at the end of its frame, not within; unimplemented are offers of compression that are declined (a smaller window of ours).
    let is_fine = |verdict: &String| {
        ["OK", "INFORMATIONAL", "NON-STRICT", "UNIMPLEMENTED"].contains(&verdict.as_str())
    };
    assert!(cases.len() > 200 || std::env::var("AUTOBAHN_CASES").is_ok(), "{} cases", cases.len());
    assert!(counts.keys().all(is_fine), "{counts:#?}");
}

/// Sends back what one client says.
async fn echo(mut socket: TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut read = Vec::new();
    let head = loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if socket.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
    };
    let headers = parse(&read[..head]);
    assert!(wants_upgrade(&headers));
    let key = accept(&headers).expect("the runner asks for an upgrade");
    let extension = deflate::accept(&headers);
    let offer = extension.map_or(String::new(), |e| format!("Sec-WebSocket-Extensions: {e}\r\n"));
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {key}\r\n{offer}\r\n"
    );
    socket.write_all(answer.as_bytes()).await?;
    let deflate = extension.is_some();
    let bounds = Bounds { payload: MAX_MESSAGE, inflated: MAX_MESSAGE, deflate };
    let mut incoming = read.split_off(head);
    let mut messages = Messages::default();
    loop {
        let mut input = &incoming[..];
        let mut out = Vec::new();
        let over = loop {
            match messages.next(&mut input, bounds) {
                Ok(None) => break false,
                Ok(Some(Message::Text(payload))) => {
                    out.extend(whole(Opcode::Text, &payload, deflate));
                }
                Ok(Some(Message::Binary(payload))) => {
                    out.extend(whole(Opcode::Binary, &payload, deflate));
                }
                Ok(Some(Message::Ping(payload))) => {
                    out.extend(frame::control(Opcode::Pong, &payload));
                }
                Ok(Some(Message::Pong)) => {}
                Ok(Some(Message::Close(code))) => {
                    out.extend(frame::close_with(code, ""));
                    break true;
                }
                Err(status) => {
                    out.extend(frame::close(status));
                    break true;
                }
            }
        };
        socket.write_all(&out).await?;
        if over {
            socket.shutdown().await?;
            let mut ignored = vec![0; READ_BYTES];
            let _ = timeout(END_TIMEOUT, async {
                while socket.read(&mut ignored).await? > 0 {}
                Ok::<_, std::io::Error>(())
            })
            .await;
            return Ok(());
        }
        incoming.clear();
        incoming.reserve(READ_BYTES);
        if socket.read_buf(&mut incoming).await? == 0 {
            return Ok(());
        }
    }
}

fn whole(opcode: Opcode, payload: &[u8], deflate: bool) -> Vec<u8> {
    match deflate {
        true => frame::compressed(opcode, &deflate::deflated(payload)),
        false => frame::whole(opcode, payload),
    }
}

fn parse(head: &[u8]) -> HeaderMap {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut fields);
    request.parse(head).expect("the runner speaks HTTP");
    let fields = request.headers.iter().map(|field| {
        let name = HeaderName::from_bytes(field.name.as_bytes()).expect("a name");
        (name, HeaderValue::from_bytes(field.value).expect("a value"))
    });
    fields.collect()
}
