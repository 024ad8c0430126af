//! Server-sent events and POSTs of a room, over a bare socket.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an event is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// An open event stream.
#[derive(Debug)]
pub struct Events {
    lines: BufReader<TcpStream>,
}

impl Events {
    /// Asks for a stream.
    pub async fn open(edge: SocketAddr, path: &str) -> Result<Self> {
        let mut socket = TcpStream::connect(edge).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {edge}\r\naccept: text/event-stream\r\n\r\n");
        socket.write_all(request.as_bytes()).await?;
        let mut events = Self { lines: BufReader::new(socket) };
        let status = events.line().await?;
        ensure!(status.starts_with("HTTP/1.1 200"), "{status}");
        while !events.line().await?.is_empty() {}
        Ok(events)
    }

    /// The next event: its id and what it says.
    pub async fn next(&mut self) -> Result<(String, Value)> {
        let mut id = String::new();
        loop {
            let line = self.line().await?;
            if let Some(found) = line.strip_prefix("id: ") {
                id = found.to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                return Ok((id, serde_json::from_str(data)?));
            }
        }
    }

    async fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        timeout(PATIENCE, self.lines.read_line(&mut line)).await.context("no event came")??;
        ensure!(!line.is_empty(), "the stream ended");
        Ok(line.trim_end().to_owned())
    }
}

/// Posts a JSON body; the status and the answer.
pub async fn post(edge: SocketAddr, path: &str, body: &Value) -> Result<(u16, Value)> {
    let mut socket = TcpStream::connect(edge).await?;
    let body = body.to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {edge}\r\ncontent-type: application/json\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    timeout(PATIENCE, socket.read_to_string(&mut answer)).await.context("no answer came")??;
    let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).context("no status")?;
    Ok((status, serde_json::from_str(body).unwrap_or(Value::Null)))
}
