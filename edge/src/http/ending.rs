//! When a connection has to end, and how: the clock, the node and its own handlers are watched here.
//!
//! In: a connection's progress, the node's tokens. Out: an [`End`]. What is watched sits behind locks that
//! all connections share, so it is looked at only when one of them has rung, not whenever a packet comes.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};

use futures_util::future::BoxFuture;
use futures_util::task::AtomicWaker;
use tokio_util::sync::CancellationToken;

use super::connection::Conn;
use super::progress::Verdict;
use crate::config::Timeouts;
use crate::metrics::Refusal;

/// When connections are to end.
#[derive(Debug, Clone)]
pub(crate) struct Ending {
    /// Finish what is in progress, take nothing new.
    pub(crate) drain: CancellationToken,
    /// Stop at once.
    pub(crate) abort: CancellationToken,
}

/// How a connection is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With the requests in progress; said once.
    Politely,
    /// Now, for this reason if it is to be counted.
    Now(Option<Refusal>),
}

/// Watches one connection.
pub(super) struct Ends {
    conn: Arc<Conn>,
    ending: Ending,
    limits: Timeouts,
    watch: BoxFuture<'static, End>,
    bell: Arc<Bell>,
    waker: Waker,
    polite: bool,
}

impl Ends {
    pub(super) fn new(conn: &Arc<Conn>, ending: &Ending, limits: Timeouts) -> Self {
        let bell = Arc::new(Bell { rung: AtomicBool::new(true), task: AtomicWaker::new() });
        let watch = Box::pin(watch(Arc::clone(conn), ending.clone(), limits));
        Self {
            conn: Arc::clone(conn),
            ending: ending.clone(),
            limits,
            watch,
            waker: Waker::from(Arc::clone(&bell)),
            bell,
            polite: false,
        }
    }

    /// The next end that is due. After a polite one a second means that politeness did not help.
    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Poll<End> {
        self.bell.task.register(cx.waker());
        if !self.bell.rung.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        if self.conn.take_dismissal() {
            // What is watched is looked at the next time; this end is no sign that the peer is slow.
            self.bell.rung.store(true, Ordering::Release);
            return Poll::Ready(End::Politely);
        }
        let mut cx = Context::from_waker(&self.waker);
        let end = ready!(Pin::new(&mut self.watch).poll(&mut cx));
        if end == End::Politely && self.polite {
            return Poll::Ready(End::Now(None));
        }
        self.polite = true;
        let watch = watch(Arc::clone(&self.conn), self.ending.clone(), self.limits);
        self.watch = Box::pin(watch);
        self.bell.rung.store(true, Ordering::Release);
        Poll::Ready(end)
    }
}

/// Wakes the connection's task, and remembers that it was not for a packet.
struct Bell {
    rung: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.task.wake();
    }
}

async fn watch(conn: Arc<Conn>, ending: Ending, limits: Timeouts) -> End {
    let already_draining = ending.drain.is_cancelled();
    let drain = async {
        if already_draining {
            std::future::pending::<()>().await;
        }
        ending.drain.cancelled().await;
    };
    let clock = async {
        loop {
            match conn.progress().verdict(limits, conn.is_http1()) {
                Verdict::Fine(next) => tokio::time::sleep(next).await,
                Verdict::Idle => return End::Politely,
                Verdict::SlowRequest => return End::Now(Some(Refusal::SlowRequest)),
                Verdict::SlowReader => return End::Now(Some(Refusal::SlowReader)),
            }
        }
    };
    tokio::select! {
        () = drain => End::Politely,
        () = ending.abort.cancelled() => End::Now(None),
        () = conn.condemned() => End::Now(Some(Refusal::SlowReader)),
        end = clock => end,
    }
}
