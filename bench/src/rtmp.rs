//! The client side of RTMP: publishes here, plays in [`play`].
//!
//! In: an address, an app and a key. Out: a [`Push`] that carries frames. The protocol is another
//! project's (rml_rtmp), so that load generator and server do not share one misunderstanding.

pub(crate) mod play;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use media::flv::TagKind;
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use rml_rtmp::sessions::{
    ClientSession, ClientSessionConfig, ClientSessionEvent, ClientSessionResult, PublishRequestType,
};
use rml_rtmp::time::RtmpTimestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::net;

/// What a server may take to accept a push: it may hold one while placement settles.
pub const PUBLISH_TIMEOUT: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 8192;

/// The server said no.
#[derive(Debug, thiserror::Error)]
#[error("refused: {0}")]
pub struct Refused(pub String);

/// A connection that has been accepted for publishing.
pub struct Push(Link);

impl Push {
    /// Connects and publishes `app/key`; the key may carry a query.
    ///
    /// # Errors
    /// [`Refused`] when the server says no.
    pub async fn connect(
        to: SocketAddr,
        source: Option<IpAddr>,
        app: &str,
        key: &str,
    ) -> Result<Self> {
        timeout(PUBLISH_TIMEOUT, Self::connect_now(to, source, app, key))
            .await
            .context("publish takes too long")?
    }

    async fn connect_now(
        to: SocketAddr,
        source: Option<IpAddr>,
        app: &str,
        key: &str,
    ) -> Result<Self> {
        let mut link = Link::connect(to, source, app).await?;
        let publish = link.session.request_publishing(key.to_owned(), PublishRequestType::Live)?;
        link.carry_out(vec![publish]).await?;
        loop {
            for event in link.events().await? {
                match event {
                    ClientSessionEvent::PublishRequestAccepted => return Ok(Self(link)),
                    ClientSessionEvent::UnhandleableOnStatusCode { code } => bail!(Refused(code)),
                    _ => {}
                }
            }
        }
    }

    /// Sends one frame or sequence header.
    ///
    /// # Errors
    /// When the server has ended the connection.
    pub async fn send(&mut self, kind: TagKind, body: Bytes, at_ms: u64) -> Result<()> {
        // RTMP timestamps wrap (E-RTMP and Adobe's RTMP, 5.3.1.2.1).
        let at = RtmpTimestamp::new((at_ms & u64::from(u32::MAX)) as u32);
        let packet = match kind {
            TagKind::Video => self.0.session.publish_video_data(body, at, false)?,
            TagKind::Audio => self.0.session.publish_audio_data(body, at, false)?,
            TagKind::Script => return Ok(()),
        };
        Ok(self.0.carry_out(vec![packet]).await?)
    }

    /// Waits until the server has said something. Cancel safe.
    ///
    /// # Errors
    /// When the socket has failed.
    pub async fn readable(&self) -> io::Result<()> {
        self.0.socket.readable().await
    }

    /// Answers what the server has said.
    ///
    /// # Errors
    /// When the server has ended the connection or the push.
    pub async fn answer(&mut self) -> Result<()> {
        let mut buffer = [0; READ_BYTES];
        let count = match self.0.socket.try_read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            other => other?,
        };
        for event in self.0.take(&buffer[..count]).await? {
            if let ClientSessionEvent::UnhandleableOnStatusCode { code } = event {
                bail!(Refused(code));
            }
        }
        Ok(())
    }

    /// Ends the push in order: `deleteStream` and close.
    ///
    /// # Errors
    /// When the connection is already gone.
    pub async fn finish(mut self) -> Result<()> {
        let results = self.0.session.stop_publishing()?;
        self.0.carry_out(results).await?;
        Ok(self.0.socket.shutdown().await?)
    }
}

/// A connection on which `connect` has been answered.
struct Link {
    socket: TcpStream,
    session: ClientSession,
}

impl Link {
    async fn connect(to: SocketAddr, source: Option<IpAddr>, app: &str) -> Result<Self> {
        let mut socket = net::connect(to, source).await?;
        let rest = shake_hands(&mut socket).await?;
        let mut config = ClientSessionConfig::new();
        config.tc_url = Some(format!("rtmp://{to}/{app}"));
        let (session, first) = ClientSession::new(config)?;
        let mut this = Self { socket, session };
        this.carry_out(first).await?;
        let results = this.session.handle_input(&rest)?;
        this.carry_out(results).await?;
        let connect = this.session.request_connection(app.to_owned())?;
        this.carry_out(vec![connect]).await?;
        loop {
            for event in this.events().await? {
                match event {
                    ClientSessionEvent::ConnectionRequestAccepted => return Ok(this),
                    ClientSessionEvent::ConnectionRequestRejected { description } => {
                        bail!(Refused(description));
                    }
                    ClientSessionEvent::UnhandleableOnStatusCode { code } => bail!(Refused(code)),
                    _ => {}
                }
            }
        }
    }

    async fn events(&mut self) -> Result<Vec<ClientSessionEvent>> {
        let mut buffer = [0; READ_BYTES];
        let count = self.socket.read(&mut buffer).await?;
        self.take(&buffer[..count]).await
    }

    async fn take(&mut self, bytes: &[u8]) -> Result<Vec<ClientSessionEvent>> {
        ensure!(!bytes.is_empty(), "the server closed the connection");
        let mut events = Vec::new();
        let mut replies = Vec::new();
        for result in self.session.handle_input(bytes)? {
            match result {
                ClientSessionResult::RaisedEvent(event) => events.push(event),
                other => replies.push(other),
            }
        }
        self.carry_out(replies).await?;
        Ok(events)
    }

    async fn carry_out(&mut self, results: Vec<ClientSessionResult>) -> io::Result<()> {
        for result in results {
            if let ClientSessionResult::OutboundResponse(packet) = result {
                self.socket.write_all(&packet.bytes).await?;
            }
        }
        Ok(())
    }
}

/// Returns what the server sent behind the handshake.
async fn shake_hands(socket: &mut TcpStream) -> Result<Vec<u8>> {
    let mut handshake = Handshake::new(PeerType::Client);
    socket.write_all(&handshake.generate_outbound_p0_and_p1()?).await?;
    let mut buffer = [0; READ_BYTES];
    loop {
        let count = socket.read(&mut buffer).await?;
        ensure!(count > 0, "closed during the handshake");
        match handshake.process_bytes(&buffer[..count])? {
            HandshakeProcessResult::InProgress { response_bytes } => {
                socket.write_all(&response_bytes).await?;
            }
            HandshakeProcessResult::Completed { response_bytes, remaining_bytes } => {
                socket.write_all(&response_bytes).await?;
                return Ok(remaining_bytes);
            }
        }
    }
}
