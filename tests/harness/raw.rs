//! A WebSocket client that may break every rule: it sends the bytes it is given.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use flate2::{Decompress, FlushDecompress};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::member::Closed;

/// How long a frame is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection to `/ws` after its upgrade.
#[derive(Debug)]
pub struct Raw {
    /// What bytes are written to and read from.
    pub socket: TcpStream,
}

impl Raw {
    /// Upgrades, with further head lines.
    ///
    /// # Errors
    /// When the edge does not switch protocols.
    pub async fn open(edge: SocketAddr, lines: &str) -> Result<Self> {
        Self::upgrade(TcpStream::connect(edge).await?, edge, lines).await
    }

    /// The same with a receive buffer of so many bytes.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_narrow(edge: SocketAddr, bytes: u32) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(bytes)?;
        Self::upgrade(socket.connect(edge).await?, edge, "").await
    }

    /// The same on a socket that is connected already.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn upgrade(mut socket: TcpStream, edge: SocketAddr, lines: &str) -> Result<Self> {
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: {edge}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Protocol: tidewater.v1.json\r\n{lines}\r\n"
        );
        socket.write_all(request.as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(PATIENCE, socket.read_u8()).await??);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        ensure!(head.starts_with("HTTP/1.1 101"), "{head}");
        ensure!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        Ok(Self { socket })
    }

    /// Comes into a room and reads the welcome.
    ///
    /// # Errors
    /// When there is none.
    pub async fn join(&mut self, room: &str, secret: &str) -> Result<Value> {
        let hello = json!({"t": "hello", "v": 1, "room": room, "guest": secret, "n": "Raw"});
        self.text(&hello.to_string()).await?;
        let (first, payload) = self.frame().await?;
        let welcome: Value = serde_json::from_slice(&payload)?;
        ensure!(first & 0x8f == 0x81 && welcome["t"] == "welcome", "{welcome}");
        Ok(welcome)
    }

    /// Sends a text in one frame.
    ///
    /// # Errors
    /// When the connection is broken.
    pub async fn text(&mut self, text: &str) -> Result<()> {
        self.send(&masked(0x81, text.as_bytes())).await
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the connection is broken.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.socket.write_all(bytes).await?)
    }

    /// The next frame: its first byte, its payload, inflated where it was compressed.
    ///
    /// # Errors
    /// When the connection ends or none comes.
    pub async fn frame(&mut self) -> Result<(u8, Vec<u8>)> {
        timeout(PATIENCE, async {
            let first = self.socket.read_u8().await?;
            let length = match self.socket.read_u8().await? {
                126 => u64::from(self.socket.read_u16().await?),
                127 => self.socket.read_u64().await?,
                short => u64::from(short),
            };
            ensure!(length < 1 << 20, "a frame of {length} bytes");
            let mut payload = vec![0; length as usize];
            self.socket.read_exact(&mut payload).await?;
            Ok((first, if first & 0x40 == 0 { payload } else { inflated(&payload)? }))
        })
        .await
        .context("no frame came")?
    }

    /// Reads until a frame of text that `is_it`.
    ///
    /// # Errors
    /// When the connection ends first.
    pub async fn until(&mut self, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
        loop {
            let (first, payload) = self.frame().await?;
            ensure!(first != 0x88, "closed: {payload:?}");
            let Ok(value) = serde_json::from_slice::<Value>(&payload) else { continue };
            if is_it(&value) {
                return Ok(value);
            }
        }
    }

    /// Reads until the server closes; with what. It must hang up after that.
    ///
    /// # Errors
    /// When it ends without a close frame, or does not end.
    pub async fn closed(mut self) -> Result<Closed> {
        let closed = loop {
            let (first, payload) = self.frame().await?;
            if first == 0x88 {
                let code = payload.first_chunk().context("a close frame without a code")?;
                let reason = String::from_utf8_lossy(&payload[2..]).into_owned();
                // It may have hung up already: what broke the rules is not waited for.
                let _ = self.send(&masked(0x88, code)).await;
                let _ = self.socket.shutdown().await;
                break Closed(u16::from_be_bytes(*code), reason);
            }
        };
        let rest = timeout(PATIENCE, self.socket.read_to_end(&mut Vec::new())).await;
        // Where it left something unread the end is a reset.
        let _ = rest.context("the server does not hang up")?;
        Ok(closed)
    }
}

/// A compressed message of the server's, which keeps no context (RFC 7692, 7.2.2).
fn inflated(payload: &[u8]) -> Result<Vec<u8>> {
    let whole = [payload, &[0, 0, 0xff, 0xff]].concat();
    let mut out = Vec::with_capacity(1 << 20);
    Decompress::new(false).decompress_vec(&whole, &mut out, FlushDecompress::Sync)?;
    Ok(out)
}

/// A client's frame that begins with this byte.
#[must_use]
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..126 => frame.push(0x80 | short as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
    }
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}
