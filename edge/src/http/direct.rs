//! HLS over cleartext HTTP/1.1, answered without hyper: what a crowd asks for all day, at half the cost.
//!
//! In: an accepted socket. Out: answered requests, until one comes that is anything but a plain GET of
//! HLS; then the socket goes on to hyper with every byte not yet answered ([`Left::ToHyper`]), which judges malformed
//! requests too. The handlers are the same ([`super::respond`]), and so are the clock and the ways to end
//! ([`super::progress`], [`super::ending`]).
//!
//! What it saves: hyper's state machine and a task wake per request, and for bodies on a
//! [`crate::room::shelf`] the copy into the kernel.

mod head;

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read as _};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::FutureExt;
use http::header::CONNECTION;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::body::Content;
use super::connection::{Conn, MAX_HEAD_BYTES};
use super::ending::{End, Ending, Ends};
use super::progress::InFlight;
use super::reply::Reply;
use super::{App, respond};
use head::Parsed;

/// What one read takes: requests are shorter.
const READ_BYTES: usize = 2048;
/// Bodies up to this go out in one buffer with their heads: cheaper than naming two to the kernel.
const JOINED_BYTES: usize = 8 * 1024;
/// Buffers in one `writev`.
const MAX_SLICES: usize = 32;

/// Why this is over.
pub(super) enum Left {
    /// The connection has ended, or is to end.
    Closed,
    /// Hyper goes on, beginning with these bytes.
    ToHyper(Bytes),
}

/// Answers requests on `stream`, of which `ahead` has been read, as long as they are GETs of HLS.
pub(super) async fn serve(
    app: &Arc<App>,
    conn: &Arc<Conn>,
    (stream, ahead): (&TcpStream, Bytes),
    ending: &Ending,
) -> Left {
    let last = AtomicBool::new(false);
    let direct = Direct { app, conn, stream, last: &last };
    if !ahead.is_empty() {
        conn.progress().read();
    }
    let mut ends = Ends::new(conn, ending, app.timeouts);
    let mut requests = pin!(direct.run(ahead));
    std::future::poll_fn(|cx| {
        loop {
            if let Poll::Ready(left) = requests.as_mut().poll(cx) {
                return Poll::Ready(left);
            }
            match ready!(ends.poll(cx)) {
                End::Politely if conn.progress().is_between_requests() => {
                    return Poll::Ready(Left::Closed);
                }
                // The answer in progress says that it is the last.
                End::Politely => last.store(true, Ordering::Relaxed),
                End::Now(why) => {
                    why.into_iter().for_each(|why| app.refuse(why));
                    return Poll::Ready(Left::Closed);
                }
            }
        }
    })
    .await
}

struct Direct<'a> {
    app: &'a Arc<App>,
    conn: &'a Arc<Conn>,
    stream: &'a TcpStream,
    /// Whether the connection ends with the answer in progress.
    last: &'a AtomicBool,
}

impl Direct<'_> {
    async fn run(&self, mut read: Bytes) -> Left {
        loop {
            let (request, rest) = loop {
                match head::parse(&read) {
                    Parsed::Plain(request, length) => break (request, read.slice(length..)),
                    Parsed::Other => return Left::ToHyper(read),
                    Parsed::Partial if read.len() >= MAX_HEAD_BYTES => return Left::ToHyper(read),
                    Parsed::Partial => {}
                }
                if self.stream.readable().await.is_err() {
                    return Left::Closed;
                }
                // Only now: an idle connection owns no buffer.
                let mut buffer = BytesMut::from(&read[..]);
                if !self.take(&mut buffer) {
                    return Left::Closed;
                }
                read = buffer.freeze();
            };
            let mut behind = BytesMut::from(&rest[..]);
            let mut in_flight = InFlight::begin(self.conn);
            let respond = respond(self.app, self.conn, request.ask());
            // Handlers keep their shared state consistent behind locks that do not poison.
            let mut respond = pin!(AssertUnwindSafe(respond).catch_unwind());
            let reply = tokio::select! {
                biased;
                reply = &mut respond => reply,
                () = self.gone(&mut behind) => return Left::Closed,
            };
            let Ok(mut reply) = reply else {
                self.app.metrics.panics.inc();
                tracing::error!(peer = %self.conn.peer(), "a request handler panicked");
                return Left::Closed;
            };
            // The node drains: what the answer says is also done.
            if reply.headers_mut().remove(CONNECTION).is_some() {
                self.last.store(true, Ordering::Relaxed);
            }
            in_flight.sends_a_body();
            if self.send(reply).await.is_err() || self.last.load(Ordering::Relaxed) {
                return Left::Closed;
            }
            drop(in_flight);
            read = behind.freeze();
            if !read.is_empty() {
                self.conn.progress().read();
            }
            tokio::task::coop::consume_budget().await;
        }
    }

    /// Reads what is there; false at the end of the stream.
    fn take(&self, buffer: &mut BytesMut) -> bool {
        let mut scratch = [0; READ_BYTES];
        let mut read = 0;
        let tried = self.stream.try_io(Interest::READABLE, || {
            read = (&*SockRef::from(self.stream)).read(&mut scratch)?;
            if (1..READ_BYTES).contains(&read) {
                // The socket is empty, and what comes next wakes the task: epoll is edge-triggered. Said
                // here, it need not be asked of the kernel before every wait.
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(())
        });
        if read > 0 {
            buffer.extend_from_slice(&scratch[..read]);
            self.conn.progress().read();
            return true;
        }
        tried.is_err_and(|error| is_no_error(&error))
    }

    /// Resolves when the viewer leaves while it waits. What it sends meanwhile is kept, up to a head's
    /// length: players that send requests ahead send few.
    async fn gone(&self, behind: &mut BytesMut) {
        while behind.len() < MAX_HEAD_BYTES {
            if self.stream.readable().await.is_err() {
                return;
            }
            if !self.take(behind) {
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    async fn send(&self, reply: Reply) -> io::Result<()> {
        let (parts, body) = reply.into_parts();
        let Some((content, length)) = body.into_content() else {
            debug_assert!(false, "HLS has no endless bodies");
            return Err(io::ErrorKind::Unsupported.into());
        };
        let mut head = head::render(&parts, length, self.last.load(Ordering::Relaxed));
        match content {
            Content::Shelved(shelved) => {
                let more = |done| {
                    SockRef::from(self.stream).send_with_flags(&head[done..], libc::MSG_MORE)
                };
                self.write(head.len(), |done| self.try_write(|| more(done))).await?;
                let send = |done| shelved.send(self.stream, done);
                self.write(shelved.len(), |done| self.try_write(|| send(done))).await?;
            }
            Content::List(list) if length <= JOINED_BYTES => {
                list.iter().for_each(|bytes| head.extend_from_slice(bytes));
                self.write(head.len(), |done| self.stream.try_write(&head[done..])).await?;
            }
            Content::List(mut list) => {
                list.push_front(head.freeze());
                self.write_list(list).await?;
            }
        }
        self.conn.progress().flushed();
        Ok(())
    }

    async fn write_list(&self, mut list: VecDeque<Bytes>) -> io::Result<()> {
        let length = list.iter().map(Bytes::len).sum();
        self.write(length, |_| {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let count = slices.iter_mut().zip(&list).map(|(s, b)| *s = IoSlice::new(b)).count();
            let written = self.stream.try_write_vectored(&slices[..count])?;
            let mut left = written;
            while let Some(front) = list.front_mut().filter(|_| left > 0) {
                let taken = front.len().min(left);
                front.advance(taken);
                left -= taken;
                if front.is_empty() {
                    list.pop_front();
                }
            }
            Ok(written)
        })
        .await
    }

    fn try_write(&self, write: impl FnOnce() -> io::Result<usize>) -> io::Result<usize> {
        self.stream.try_io(Interest::WRITABLE, write)
    }

    /// Calls `some` with what it has written, until that is `length`.
    async fn write(
        &self,
        length: usize,
        mut some: impl FnMut(usize) -> io::Result<usize>,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < length {
            match some(done) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    done += written;
                    self.conn.progress().write(false);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.conn.progress().write(true);
                    self.stream.writable().await?;
                }
                Err(error) if is_no_error(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Errors after which the same is tried again.
fn is_no_error(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
