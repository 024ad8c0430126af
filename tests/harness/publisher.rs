//! Pushes RTMP as an encoder does: the test card, in real time, with faults on demand.
//!
//! The client side of the protocol is another project's (rml_rtmp), so that both ends of a test do
//! not share one misunderstanding.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use media::flv::TagKind;
use media::flv::reader::{Reader, Tag};
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use rml_rtmp::sessions::{
    ClientSession, ClientSessionConfig, ClientSessionEvent, ClientSessionResult, PublishRequestType,
};
use rml_rtmp::time::RtmpTimestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use crate::PATIENCE;

/// The length of the test card's loop in milliseconds.
pub const LOOP_MS: u64 = 16_000;

/// A connection that has been accepted for publishing.
pub struct Publisher {
    socket: TcpStream,
    session: ClientSession,
    card: Vec<Tag>,
    started: Instant,
    sent: u64,
    /// Milliseconds added to every timestamp, modulo 2^32.
    offset_ms: u32,
}

/// How a push was answered, when not by acceptance.
#[derive(Debug, thiserror::Error)]
#[error("publish refused: {0}")]
pub struct Refused(pub String);

impl Publisher {
    /// Connects and publishes `app/key`; the key may carry a query.
    ///
    /// # Errors
    /// [`Refused`] when the server says no.
    pub async fn connect(to: SocketAddr, app: &str, key: &str) -> Result<Self> {
        timeout(PATIENCE, Self::connect_now(to, app, key))
            .await
            .context("publish takes too long")?
    }

    async fn connect_now(to: SocketAddr, app: &str, key: &str) -> Result<Self> {
        let mut socket = TcpStream::connect(to).await?;
        socket.set_nodelay(true)?;
        let mut handshake = Handshake::new(PeerType::Client);
        socket.write_all(&handshake.generate_outbound_p0_and_p1()?).await?;
        let mut buffer = vec![0; 8192];
        let rest = loop {
            let count = socket.read(&mut buffer).await?;
            anyhow::ensure!(count > 0, "closed during the handshake");
            match handshake.process_bytes(&buffer[..count])? {
                HandshakeProcessResult::InProgress { response_bytes } => {
                    socket.write_all(&response_bytes).await?;
                }
                HandshakeProcessResult::Completed { response_bytes, remaining_bytes } => {
                    socket.write_all(&response_bytes).await?;
                    break remaining_bytes;
                }
            }
        };
        let (session, first) = ClientSession::new(ClientSessionConfig::new())?;
        let mut this =
            Self { socket, session, card: card()?, started: Instant::now(), sent: 0, offset_ms: 0 };
        this.carry_out(first).await?;
        let results = this.session.handle_input(&rest)?;
        this.carry_out(results).await?;
        let connect = this.session.request_connection(app.to_owned())?;
        this.carry_out(vec![connect]).await?;
        loop {
            for event in this.events(&mut buffer).await? {
                match event {
                    ClientSessionEvent::ConnectionRequestAccepted => {
                        let kind = PublishRequestType::Live;
                        let publish = this.session.request_publishing(key.to_owned(), kind)?;
                        this.carry_out(vec![publish]).await?;
                    }
                    ClientSessionEvent::PublishRequestAccepted => {
                        this.started = Instant::now();
                        return Ok(this);
                    }
                    ClientSessionEvent::ConnectionRequestRejected { description } => {
                        bail!(Refused(description));
                    }
                    ClientSessionEvent::UnhandleableOnStatusCode { code } => bail!(Refused(code)),
                    _ => {}
                }
            }
        }
    }

    /// Starts timestamps at `ms`.
    #[must_use]
    pub fn starting_at(mut self, ms: u32) -> Self {
        self.offset_ms = ms;
        self
    }

    /// Sends the sequence headers and then the card in real time for `length` of it.
    ///
    /// # Errors
    /// When the server ends the connection.
    pub async fn send(&mut self, length: Duration) -> Result<()> {
        if self.sent == 0 {
            let headers: Vec<_> = self.card.iter().filter(|t| is_header(t)).cloned().collect();
            for tag in headers {
                self.send_tag(&tag, 0).await?;
            }
            self.started = Instant::now();
        }
        let end = self.started.elapsed() + length;
        loop {
            let (tag, at_ms) = self.frame(self.sent);
            let at = Duration::from_millis(at_ms);
            if at >= end {
                return Ok(());
            }
            sleep_until(self.started + at).await;
            self.send_tag(&tag, at_ms).await?;
            self.sent += 1;
        }
    }

    /// Ends the push in order: `deleteStream` and close.
    ///
    /// # Errors
    /// When the connection is already gone.
    pub async fn finish(mut self) -> Result<()> {
        let results = self.session.stop_publishing()?;
        self.carry_out(results).await?;
        Ok(self.socket.shutdown().await?)
    }

    /// The socket, to leave open and silent.
    #[must_use]
    pub fn into_socket(self) -> TcpStream {
        self.socket
    }

    fn frame(&self, index: u64) -> (Tag, u64) {
        let frames: Vec<_> = self.card.iter().filter(|t| !is_header(t)).collect();
        let count = frames.len() as u64;
        let tag = frames[usize::try_from(index % count).unwrap_or_default()];
        (tag.clone(), index / count * LOOP_MS + u64::from(tag.timestamp_ms))
    }

    async fn send_tag(&mut self, tag: &Tag, at_ms: u64) -> Result<()> {
        let low = u32::try_from(at_ms & 0xffff_ffff).unwrap_or_default();
        let at = RtmpTimestamp::new(low.wrapping_add(self.offset_ms));
        let body: Bytes = tag.body.clone();
        let packet = match tag.kind {
            TagKind::Video => self.session.publish_video_data(body, at, false)?,
            TagKind::Audio => self.session.publish_audio_data(body, at, false)?,
            TagKind::Script => return Ok(()),
        };
        self.carry_out(vec![packet]).await
    }

    async fn events(&mut self, buffer: &mut [u8]) -> Result<Vec<ClientSessionEvent>> {
        let count = self.socket.read(buffer).await?;
        anyhow::ensure!(count > 0, "the server closed the connection");
        let results = self.session.handle_input(&buffer[..count])?;
        let mut events = Vec::new();
        let mut replies = Vec::new();
        for result in results {
            match result {
                ClientSessionResult::RaisedEvent(event) => events.push(event),
                other => replies.push(other),
            }
        }
        self.carry_out(replies).await?;
        Ok(events)
    }

    async fn carry_out(&mut self, results: Vec<ClientSessionResult>) -> Result<()> {
        for result in results {
            if let ClientSessionResult::OutboundResponse(packet) = result {
                self.socket.write_all(&packet.bytes).await?;
            }
        }
        Ok(())
    }
}

fn is_header(tag: &Tag) -> bool {
    tag.body.get(1) == Some(&0)
}

/// The tags of the test card that the demo pushes.
fn card() -> Result<Vec<Tag>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../node/assets/testcard.flv");
    let mut reader = Reader::new();
    reader.push(&std::fs::read(&path).with_context(|| path.display().to_string())?);
    let mut tags = Vec::new();
    while let Some(tag) = reader.next_tag()? {
        let ends_sequence = tag.kind == TagKind::Video && tag.body.get(1) == Some(&2);
        if tag.kind != TagKind::Script && !ends_sequence {
            tags.push(tag);
        }
    }
    tags.sort_by_key(|t| t.timestamp_ms);
    Ok(tags)
}
