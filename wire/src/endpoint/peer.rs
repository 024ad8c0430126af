//! One live connection to another node, after both sides said hello.

use std::{net::SocketAddr, time::Duration};

use quinn::Connection;
use tokio::time::timeout;

use crate::{
    Error, NodeId,
    error::{CloseCode, MAX_REASON_BYTES},
    hello::Hello,
    service::StreamKind,
    stream::{Receiver, Sender},
};

/// How long opening a stream may wait for the peer to allow one more.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// Another node, over one connection. The connection lasts until either side closes it or is not
/// heard from; a new one is a new `Peer`.
#[derive(Debug)]
pub struct Peer {
    hello: Hello,
    version: u16,
    is_dialled: bool,
    connection: Connection,
}

impl Peer {
    pub(super) fn new(
        hello: Hello,
        version: u16,
        is_dialled: bool,
        connection: Connection,
    ) -> Self {
        Self { hello, version, is_dialled, connection }
    }

    /// Who it is, by its certificate.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.hello.node
    }

    /// What it said of itself.
    #[must_use]
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// The wire version both sides speak.
    #[must_use]
    pub fn version(&self) -> u16 {
        self.version
    }

    /// Whether this side dialled.
    #[must_use]
    pub fn is_dialled(&self) -> bool {
        self.is_dialled
    }

    /// Its address on this connection.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// A number that tells this connection from all others of this process.
    #[must_use]
    pub fn id(&self) -> usize {
        self.connection.stable_id()
    }

    /// The transport's current estimate of the round-trip time.
    #[must_use]
    pub fn rtt(&self) -> Duration {
        self.connection.rtt()
    }

    /// Opens a two-way stream. The peer sees it at once.
    ///
    /// # Errors
    /// [`Error::TimedOut`] if the peer allows no more streams for [`OPEN_TIMEOUT`], or how the
    /// connection ended.
    pub async fn open_bi(&self, kind: StreamKind) -> Result<(Sender, Receiver), Error> {
        let (sender, receiver) = within_open_timeout(self.connection.open_bi()).await?;
        let mut sender = Sender::new(sender);
        sender.write_kind(kind).await?;
        Ok((sender, Receiver::new(receiver)))
    }

    /// Opens a one-way stream. The peer sees it at once.
    ///
    /// # Errors
    /// As [`Peer::open_bi`].
    pub async fn open_uni(&self, kind: StreamKind) -> Result<Sender, Error> {
        let mut sender = Sender::new(within_open_timeout(self.connection.open_uni()).await?);
        sender.write_kind(kind).await?;
        Ok(sender)
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.connection.close_reason().is_some()
    }

    /// Waits until the connection has ended, and says how.
    pub async fn closed(&self) -> Error {
        Error::from_connection(&self.connection.closed().await)
    }

    /// Ends the connection at once, with all its streams.
    pub fn close(&self, code: CloseCode, reason: &str) {
        close(&self.connection, code, reason);
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }
}

/// Closes a connection with a reason the peer keeps whole.
pub(super) fn close(connection: &Connection, code: CloseCode, reason: &str) {
    let mut end = reason.len().min(MAX_REASON_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    connection.close(code.varint(), &reason.as_bytes()[..end]);
}

async fn within_open_timeout<T>(
    opening: impl Future<Output = Result<T, quinn::ConnectionError>>,
) -> Result<T, Error> {
    match timeout(OPEN_TIMEOUT, opening).await {
        Ok(opened) => opened.map_err(|error| Error::from_connection(&error)),
        Err(_) => Err(Error::TimedOut { what: "opening a stream", after: OPEN_TIMEOUT }),
    }
}
