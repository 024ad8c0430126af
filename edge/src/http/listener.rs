//! Accepts viewers: a permit before each accept, a limit per address, TLS, and HTTP/2 by its preface.
//!
//! In: the viewer port. Out: a task per connection, tracked so that a shutdown can wait for it. An
//! accept error backs off; it never ends the listener.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dashmap::DashMap;
use futures_util::FutureExt;
use prometheus::IntGauge;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use super::App;
use super::connection::{Conn, Protocols, serve_http1, serve_http2};
use super::direct::{self, Left};
use super::ending::Ending;
use super::tls::Certificate;
use crate::metrics::Refusal;

/// Connections the kernel keeps for us; capped by `net.core.somaxconn`.
const BACKLOG: u32 = 4096;
/// Pause after an accept error such as "too many open files".
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// How often that is logged.
const WARN_EVERY: Duration = Duration::from_secs(1);
/// What an HTTP/2 client with prior knowledge sends first (RFC 9113 section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The viewer port and its limits.
pub(crate) struct Listener {
    pub(crate) tcp: TcpListener,
    pub(crate) certificate: Option<Arc<Certificate>>,
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) addresses: Arc<Addresses>,
    pub(crate) app: Arc<App>,
    pub(crate) ending: Ending,
    pub(crate) tasks: TaskTracker,
}

/// Opens the viewer port.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Listener {
    /// Accepts until the node drains. Dropping the listener then refuses new connections.
    pub(crate) async fn run(self) {
        let protocols = Arc::new(Protocols::default());
        let drain = self.ending.drain.clone();
        let mut quiet_until = Instant::now();
        loop {
            let permit = Arc::clone(&self.permits).acquire_owned();
            let Some(Ok(permit)) = drain.run_until_cancelled(permit).await else { return };
            let Some(accepted) = drain.run_until_cancelled(self.tcp.accept()).await else { return };
            match accepted {
                Ok((tcp, peer)) => self.admit(tcp, peer, permit, &protocols),
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) => {
                    if Instant::now() >= quiet_until {
                        tracing::warn!(%error, "cannot accept viewers; trying again");
                        quiet_until = Instant::now() + WARN_EVERY;
                    }
                    let _ = drain.run_until_cancelled(tokio::time::sleep(ACCEPT_BACKOFF)).await;
                }
            }
        }
    }

    fn admit(
        &self,
        tcp: TcpStream,
        peer: SocketAddr,
        permit: OwnedSemaphorePermit,
        protocols: &Arc<Protocols>,
    ) {
        let metrics = &self.app.metrics;
        let Some(address) = self.addresses.enter(peer.ip()) else {
            metrics.refuse(Refusal::Address);
            return;
        };
        let lease = Lease::new(permit, address, &metrics.connections);
        if tcp.set_nodelay(true).is_err() {
            return; // it is gone already
        }
        let connection = Connection {
            app: Arc::clone(&self.app),
            protocols: Arc::clone(protocols),
            ending: self.ending.clone(),
            peer,
        };
        let certificate = self.certificate.clone();
        self.tasks.spawn(async move {
            let metrics = Arc::clone(&connection.app.metrics);
            let serve = async move {
                match certificate {
                    Some(certificate) => connection.serve_tls(tcp, &certificate, lease).await,
                    None => connection.serve_clear(tcp, lease).await,
                }
            };
            // What is shared with others is behind locks that do not poison.
            if AssertUnwindSafe(serve).catch_unwind().await.is_err() {
                metrics.panics.inc();
                tracing::error!(%peer, "a viewer connection panicked");
            }
        });
    }
}

/// What a connection's task needs.
struct Connection {
    app: Arc<App>,
    protocols: Arc<Protocols>,
    ending: Ending,
    peer: SocketAddr,
}

impl Connection {
    async fn serve_clear(self, mut tcp: TcpStream, lease: Lease) {
        let sniff = tokio::time::timeout(self.app.timeouts.head, sniff(&mut tcp));
        let sniffed = tokio::select! {
            biased;
            sniffed = sniff => sniffed,
            () = self.ending.drain.cancelled() => return,
        };
        let (ahead, http2) = match sniffed {
            Ok(Ok(sniffed)) => sniffed,
            Ok(Err(_)) => return,
            Err(_) => return self.app.refuse(Refusal::SlowRequest),
        };
        let conn = Conn::new(self.peer, !http2, false);
        if http2 {
            let stream = (tcp, ahead, conn);
            serve_http2(self.app, &self.protocols, stream, &self.ending, lease).await;
            return;
        }
        let direct = direct::serve(&self.app, &conn, (&tcp, ahead), &self.ending).await;
        if let Left::ToHyper(ahead) = direct {
            let stream = (tcp, ahead, conn);
            serve_http1(self.app, &self.protocols, stream, &self.ending, lease).await;
        }
    }

    async fn serve_tls(self, tcp: TcpStream, certificate: &Certificate, lease: Lease) {
        let handshake = TlsAcceptor::from(certificate.current()).accept(tcp);
        let handshake = tokio::time::timeout(self.app.timeouts.head, handshake);
        let stream = tokio::select! {
            biased;
            result = handshake => match result {
                Ok(Ok(stream)) => Box::new(stream),
                Ok(Err(error)) => {
                    tracing::debug!(peer = %self.peer, %error, "TLS handshake failed");
                    return self.app.refuse(Refusal::Tls);
                }
                Err(_) => return self.app.refuse(Refusal::Tls),
            },
            () = self.ending.drain.cancelled() => return,
        };
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let stream = (stream, Bytes::new(), Conn::new(self.peer, !http2, true));
        if http2 {
            serve_http2(self.app, &self.protocols, stream, &self.ending, lease).await;
        } else {
            serve_http1(self.app, &self.protocols, stream, &self.ending, lease).await;
        }
    }
}

/// Reads until it is clear whether the peer speaks HTTP/2; returns what was read.
async fn sniff(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(Bytes, bool)> {
    let mut read = BytesMut::with_capacity(HTTP2_PREFACE.len());
    while read.len() < HTTP2_PREFACE.len() {
        let missing = HTTP2_PREFACE.len() - read.len();
        let n = stream.take(missing as u64).read_buf(&mut read).await?;
        if n == 0 || !HTTP2_PREFACE.starts_with(&read) {
            return Ok((read.freeze(), false));
        }
    }
    Ok((read.freeze(), true))
}

/// Errors of the connection that was to be accepted, not of this node (accept(2)).
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, TimedOut};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | TimedOut)
}

/// A connection's place among all: given back when it is dropped, wherever the socket ended up.
#[derive(Debug)]
pub(crate) struct Lease {
    _permit: OwnedSemaphorePermit,
    _address: Option<AddressGuard>,
    open: IntGauge,
}

impl Lease {
    fn new(permit: OwnedSemaphorePermit, address: AddressGuard, open: &IntGauge) -> Self {
        open.inc();
        // Exempt addresses hold nothing that must be given back.
        let address = Some(address).filter(|a| a.key.is_some());
        Self { _permit: permit, _address: address, open: open.clone() }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// How many connections each address has. Bounded by the number of connections.
#[derive(Debug)]
pub(crate) struct Addresses {
    counts: DashMap<IpAddr, u32>,
    limit: u32,
}

impl Addresses {
    pub(crate) fn new(limit: u32) -> Arc<Self> {
        Arc::new(Self { counts: DashMap::new(), limit })
    }

    /// Counts a connection; none when the address has its share.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<AddressGuard> {
        if address.is_loopback() || address.to_canonical().is_loopback() {
            return Some(AddressGuard { addresses: Arc::clone(self), key: None });
        }
        let key = site(address);
        let mut count = self.counts.entry(key).or_insert(0);
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(AddressGuard { addresses: Arc::clone(self), key: Some(key) })
    }
}

/// A connection's place in the share of its address.
#[derive(Debug)]
pub(crate) struct AddressGuard {
    addresses: Arc<Addresses>,
    key: Option<IpAddr>,
}

impl Drop for AddressGuard {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        if let dashmap::Entry::Occupied(mut entry) = self.addresses.counts.entry(key) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// What one subscriber is given: an IPv4 address, or an IPv6 /64 (RFC 6177).
pub(crate) fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_and_gets_it_back() {
        let addresses = Addresses::new(2);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let first = addresses.enter(ip("192.0.2.1")).unwrap();
        let _second = addresses.enter(ip("::ffff:192.0.2.1")).unwrap();
        assert!(addresses.enter(ip("192.0.2.1")).is_none());
        assert!(addresses.enter(ip("192.0.2.2")).is_some());
        drop(first);
        assert!(addresses.enter(ip("192.0.2.1")).is_some());
        let _a = addresses.enter(ip("2001:db8::1")).unwrap();
        let _b = addresses.enter(ip("2001:db8::2")).unwrap();
        assert!(addresses.enter(ip("2001:db8::3")).is_none(), "the same /64");
        for _ in 0..10 {
            std::mem::forget(addresses.enter(ip("127.0.0.1")).unwrap());
        }
        assert_eq!(addresses.counts.len(), 2);
    }

    #[tokio::test]
    async fn http2_is_known_by_its_preface_alone() {
        for (input, http2) in [
            (HTTP2_PREFACE, true),
            (b"PRI * HTTP/1.1\r\n", false),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", false),
            (b"PRI", false),
            (b"", false),
        ] {
            let (read, found) = sniff(&mut &*input).await.unwrap();
            assert_eq!(found, http2);
            assert!(input.starts_with(&read));
        }
    }
}
