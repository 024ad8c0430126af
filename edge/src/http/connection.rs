//! One viewer connection: hyper driven under our own clock, and a way out of it for sockets.
//!
//! In: an accepted stream. Out: answered requests. Three things hyper does not do are done here:
//! * **Time limits that players can live with**, see [`super::progress`] and [`super::ending`]: hyper's own limit on request heads
//!   would close every connection that idles between two polls.
//! * **Hand-over**: an FLV or WebSocket request on HTTP/1.x takes the socket out of hyper. Its handler
//!   leaves a [`Handover`] and never returns; once hyper has nothing left to write, the driver takes
//!   hyper apart and passes the socket on, without a byte written for that request.
//! * **Isolation**: a panic in a handler is counted and costs this connection.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use futures_util::task::AtomicWaker;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::ending::{End, Ending, Ends};
use super::listener::Lease;
use super::progress::{InFlight, Progress};
use super::reply::Reply;
use super::stream::Watched;
use super::{App, answer};
use crate::metrics::Refusal;

/// How long closing may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// HTTP/2 streams at once on one connection: a player needs a handful.
const MAX_STREAMS: u32 = 64;
/// Request head bytes, on HTTP/1.x also the read buffer.
pub(super) const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Headers of a request.
const MAX_HEADERS: usize = 64;
/// HTTP/2 bytes buffered for one stream before its flow control takes over.
const MAX_SEND_BUFFER_BYTES: usize = 64 * 1024;
/// How often an HTTP/2 peer is asked whether it lives, and how long it may take to say so.
const PING_INTERVAL: Duration = Duration::from_secs(20);

/// Settings of both protocols, made once.
#[derive(Debug)]
pub(crate) struct Protocols {
    http1: hyper::server::conn::http1::Builder,
    http2: hyper::server::conn::http2::Builder<TokioExecutor>,
}

impl Default for Protocols {
    fn default() -> Self {
        let mut http1 = hyper::server::conn::http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(None) // it would run while a connection is idle, too
            .max_buf_size(MAX_HEAD_BYTES)
            .max_headers(MAX_HEADERS);
        let mut http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD_BYTES as u32)
            .max_send_buf_size(MAX_SEND_BUFFER_BYTES)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_INTERVAL);
        Self { http1, http2 }
    }
}

/// A socket that has left hyper.
pub(crate) struct Socket {
    pub(crate) stream: Transport,
    /// Bytes the viewer has sent behind its request.
    pub(crate) ahead: Bytes,
    /// Keeps the connection counted.
    pub(crate) lease: Lease,
}

/// What a socket is made of.
pub(crate) enum Transport {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// What happens to a socket once it has left hyper.
pub(crate) type Handover = Box<dyn FnOnce(Socket) -> BoxFuture<'static, ()> + Send>;

/// Streams that HTTP runs on.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    fn into_transport(self) -> Transport;
}

impl Stream for TcpStream {
    fn into_transport(self) -> Transport {
        Transport::Tcp(self)
    }
}

impl Stream for Box<TlsStream<TcpStream>> {
    fn into_transport(self) -> Transport {
        Transport::Tls(self)
    }
}

/// What handlers and the driver of a connection share.
#[derive(Debug)]
pub(crate) struct Conn {
    peer: SocketAddr,
    /// Whether a handler may take the socket.
    http1: bool,
    is_tls: bool,
    progress: Progress,
    handover: Mutex<Option<HandoverSlot>>,
    condemned: AtomicBool,
    dismissed: AtomicBool,
    driver: AtomicWaker,
}

struct HandoverSlot(Handover);

impl std::fmt::Debug for HandoverSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handover")
    }
}

impl Conn {
    pub(super) fn new(peer: SocketAddr, http1: bool, is_tls: bool) -> Arc<Self> {
        Arc::new(Self {
            peer,
            http1,
            is_tls,
            progress: Progress::new(),
            handover: Mutex::new(None),
            condemned: AtomicBool::new(false),
            dismissed: AtomicBool::new(false),
            driver: AtomicWaker::new(),
        })
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Whether it is encrypted here, and not by a proxy before it.
    pub(super) fn is_tls(&self) -> bool {
        self.is_tls
    }

    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Whether [`Self::hand_over`] works here.
    pub(crate) fn can_hand_over(&self) -> bool {
        self.http1
    }

    /// Has the driver take the socket out of hyper. The caller must then never return: its future is
    /// dropped with hyper.
    pub(crate) fn hand_over(&self, handover: Handover) {
        *self.handover.lock() = Some(HandoverSlot(handover));
    }

    /// Ends the connection from outside: a response on it stands still and hyper does not look.
    pub(crate) fn condemn(&self) {
        self.condemned.store(true, Ordering::Release);
        self.driver.wake();
    }

    /// Lets an HTTP/2 connection finish its streams and take no other: the peer opens its next ones on
    /// another connection, to wherever it is sent then (GOAWAY, RFC 9113 section 6.8).
    pub(super) fn dismiss(&self) {
        self.dismissed.store(true, Ordering::Release);
        self.driver.wake();
    }

    /// Whether it has been dismissed since it was asked last.
    pub(super) fn take_dismissal(&self) -> bool {
        self.dismissed.swap(false, Ordering::AcqRel)
    }

    /// Resolves once the connection is condemned.
    pub(super) async fn condemned(&self) {
        std::future::poll_fn(|cx| {
            self.driver.register(cx.waker());
            if self.condemned.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    pub(crate) fn is_http1(&self) -> bool {
        self.http1
    }

    fn take_handover(&self) -> Option<Handover> {
        if !self.progress.is_flushed() {
            return None;
        }
        self.handover.lock().take().map(|slot| slot.0)
    }
}

/// Answers the requests of one connection for hyper.
struct Service {
    app: Arc<App>,
    conn: Arc<Conn>,
}

/// A handler panicked; the panic was counted and logged.
#[derive(Debug, thiserror::Error)]
#[error("the handler panicked")]
struct Panicked;

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Reply;
    type Error = Panicked;
    type Future = BoxFuture<'static, Result<Reply, Panicked>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let in_flight = InFlight::begin(&self.conn);
        let (app, conn) = (Arc::clone(&self.app), Arc::clone(&self.conn));
        Box::pin(async move {
            // Handlers keep their shared state consistent behind locks that do not poison.
            match AssertUnwindSafe(answer(&app, &conn, request)).catch_unwind().await {
                Ok(reply) => Ok(reply.map(|body| body.holding(in_flight))),
                Err(_) => {
                    app.metrics.panics.inc();
                    tracing::error!(peer = %conn.peer, "a request handler panicked");
                    Err(Panicked)
                }
            }
        })
    }
}

/// Why the driver stopped.
enum Outcome {
    Done(Result<(), hyper::Error>),
    Handover(Handover),
    Cut(Option<Refusal>),
}

/// Serves HTTP/1.x until the connection ends or its socket is handed over.
pub(super) async fn serve_http1<S: Stream>(
    app: Arc<App>,
    protocols: &Protocols,
    (stream, ahead, conn): (S, Bytes, Arc<Conn>),
    ending: &Ending,
    lease: Lease,
) {
    let io = TokioIo::new(Watched::new(stream, ahead, Arc::clone(&conn)));
    let service = Service { app: Arc::clone(&app), conn: Arc::clone(&conn) };
    let mut http = protocols.http1.serve_connection(io, service);
    let outcome = {
        let mut ends = Ends::new(&conn, ending, app.timeouts);
        std::future::poll_fn(|cx| {
            loop {
                if let Poll::Ready(result) = http.poll_without_shutdown(cx) {
                    return Poll::Ready(Outcome::Done(result));
                }
                if let Some(handover) = conn.take_handover() {
                    return Poll::Ready(Outcome::Handover(handover));
                }
                match ready!(ends.poll(cx)) {
                    End::Politely => Pin::new(&mut http).graceful_shutdown(),
                    End::Now(why) => return Poll::Ready(Outcome::Cut(why)),
                }
            }
        })
        .await
    };
    match outcome {
        Outcome::Handover(handover) => {
            let parts = http.into_parts();
            let (stream, unread) = parts.io.into_inner().into_inner();
            let ahead = joined(parts.read_buf, unread);
            drop((parts.service, conn, app));
            handover(Socket { stream: stream.into_transport(), ahead, lease }).await;
        }
        Outcome::Done(result) => {
            note(&app, &conn, result);
            let (mut stream, _) = http.into_parts().io.into_inner().into_inner();
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, stream.shutdown()).await;
        }
        Outcome::Cut(why) => why.into_iter().for_each(|why| app.refuse(why)),
    }
}

/// Serves HTTP/2 until the connection ends.
pub(super) async fn serve_http2<S: Stream>(
    app: Arc<App>,
    protocols: &Protocols,
    (stream, ahead, conn): (S, Bytes, Arc<Conn>),
    ending: &Ending,
    _lease: Lease,
) {
    let io = TokioIo::new(Watched::new(stream, ahead, Arc::clone(&conn)));
    let service = Service { app: Arc::clone(&app), conn: Arc::clone(&conn) };
    let mut http = std::pin::pin!(protocols.http2.serve_connection(io, service));
    let mut ends = Ends::new(&conn, ending, app.timeouts);
    let outcome = std::future::poll_fn(|cx| {
        loop {
            if let Poll::Ready(result) = http.as_mut().poll(cx) {
                return Poll::Ready(Outcome::Done(result));
            }
            match ready!(ends.poll(cx)) {
                End::Politely => http.as_mut().graceful_shutdown(),
                End::Now(why) => return Poll::Ready(Outcome::Cut(why)),
            }
        }
    })
    .await;
    match outcome {
        Outcome::Done(result) => note(&app, &conn, result),
        Outcome::Cut(why) => why.into_iter().for_each(|why| app.refuse(why)),
        Outcome::Handover(_) => {}
    }
}

fn note(app: &App, conn: &Conn, result: Result<(), hyper::Error>) {
    let Err(error) = result else { return };
    tracing::debug!(peer = %conn.peer, %error, "connection failed");
    let cut_short = error.is_incomplete_message() && !conn.progress.has_served();
    if error.is_parse() || error.is_parse_too_large() || error.is_parse_status() || cut_short {
        app.refuse(Refusal::Malformed);
    }
}

fn joined(first: Bytes, second: Bytes) -> Bytes {
    if second.is_empty() {
        return first;
    }
    if first.is_empty() { second } else { [first, second].concat().into() }
}
