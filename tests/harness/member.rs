//! A member of a room, as a client is: hello, frames, resume.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_websockets::{ClientBuilder, MaybeTlsStream, Message, WebSocketStream};

/// How long a frame is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to `/ws`.
#[derive(Debug)]
pub struct Member {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Batches read while something else was waited for.
    items: Vec<Value>,
    /// Where it is in the room's order.
    pub position: Value,
    /// The answer to the hello.
    pub welcome: Value,
}

/// What a connection was closed with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("closed with {0}: {1}")]
pub struct Closed(pub u16, pub String);

impl Member {
    /// Opens a socket and says nothing.
    pub async fn open(edge: SocketAddr) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>> {
        Self::open_with(edge, &[]).await
    }

    /// Opens a socket with more headers and says nothing.
    pub async fn open_with(
        edge: SocketAddr,
        headers: &[(HeaderName, &str)],
    ) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>> {
        let mut builder = ClientBuilder::new().uri(&format!("ws://{edge}/ws"))?.add_header(
            http::header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static("tidewater.v1.json"),
        )?;
        for (name, value) in headers {
            builder = builder.add_header(name.clone(), HeaderValue::from_str(value)?)?;
        }
        let (socket, response) = builder.connect().await?;
        let protocol = response.headers().get("sec-websocket-protocol");
        ensure!(protocol.is_some_and(|p| p == "tidewater.v1.json"), "{protocol:?}");
        Ok(socket)
    }

    /// Comes into a room under a secret of 16 bytes or more, from a position or anew.
    pub async fn join(
        edge: SocketAddr,
        room: &str,
        secret: &str,
        from: Option<&Value>,
    ) -> Result<Self> {
        let mut hello = json!({"t": "hello", "v": 1, "room": room, "guest": secret, "n": "Mei"});
        if let Some(from) = from {
            hello["pos"] = from.clone();
        }
        Self::greet(Self::open(edge).await?, &hello).await
    }

    /// Comes into a room with a token.
    pub async fn with_token(edge: SocketAddr, room: &str, token: &str) -> Result<Self> {
        let hello = json!({"t": "hello", "v": 1, "room": room, "token": token});
        Self::greet(Self::open(edge).await?, &hello).await
    }

    /// Comes into a room by a hello of any kind. What the server closes with instead is a [`Closed`].
    pub async fn greet(
        socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
        hello: &Value,
    ) -> Result<Self> {
        let (items, position, welcome) = (Vec::new(), Value::Null, Value::Null);
        let mut member = Self { socket, items, position, welcome };
        member.send(hello).await?;
        member.welcome = member.frame().await?;
        ensure!(member.welcome["t"] == "welcome", "{}", member.welcome);
        member.position = member.welcome["pos"].clone();
        let missed = member.welcome["m"].as_array().cloned().unwrap_or_default();
        member.items.extend(missed);
        Ok(member)
    }

    /// Sends a frame.
    pub async fn send(&mut self, frame: &Value) -> Result<()> {
        Ok(self.socket.send(Message::text(frame.to_string())).await?)
    }

    /// The next frame; pings are answered.
    pub async fn frame(&mut self) -> Result<Value> {
        loop {
            let message = timeout(PATIENCE, self.socket.next()).await.context("no frame came")?;
            let message = message.context("the socket ended")??;
            if let Some((code, reason)) = message.as_close() {
                bail!(Closed(code.into(), reason.to_owned()));
            }
            let Some(text) = message.as_text() else { continue };
            let frame: Value = serde_json::from_str(text)?;
            if frame["t"] == "ping" {
                self.send(&json!({"t": "pong"})).await?;
                continue;
            }
            if frame["t"] == "b" {
                self.position["o"] = frame["o"].clone();
                if frame["e"].is_string() {
                    self.position["e"] = frame["e"].clone();
                }
                let items = frame["m"].as_array().cloned().unwrap_or_default();
                self.items.extend(items);
            }
            return Ok(frame);
        }
    }

    /// The items that nobody waited for.
    pub fn take_items(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.items)
    }

    /// Says something and waits for the answer to it.
    pub async fn say(&mut self, cid: &str, text: &str) -> Result<Value> {
        self.ask(&json!({"t": "chat", "c": cid, "x": text})).await
    }

    /// Sends a frame with a client id and waits for the answer to it.
    pub async fn ask(&mut self, frame: &Value) -> Result<Value> {
        self.send(frame).await?;
        loop {
            let answer = self.frame().await?;
            if answer["c"] == frame["c"] {
                return Ok(answer);
            }
        }
    }

    /// Waits for an item that `is_it`.
    pub async fn item(&mut self, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
        loop {
            if let Some(at) = self.items.iter().position(&is_it) {
                return Ok(self.items.remove(at));
            }
            self.frame().await?;
        }
    }

    /// Waits for counters that are so.
    pub async fn counters(&mut self, are_so: impl Fn(&Value) -> bool) -> Result<Value> {
        loop {
            let frame = self.frame().await?;
            if frame["s"].is_object() && are_so(&frame["s"]) {
                return Ok(frame["s"].clone());
            }
        }
    }

    /// Waits for a frame of a kind.
    pub async fn kind(&mut self, kind: &str) -> Result<Value> {
        loop {
            let frame = self.frame().await?;
            if frame["t"] == kind {
                return Ok(frame);
            }
        }
    }

    /// Reads until the server closes; with what.
    pub async fn closed(mut self) -> Result<Closed> {
        loop {
            match self.frame().await {
                Ok(_) => {}
                Err(error) => return error.downcast::<Closed>(),
            }
        }
    }
}
