//! What a connection has done when, and what the clock says of it.
//!
//! In: notes from the byte stream under hyper and from requests. Out: a [`Verdict`]. A request head must
//! be whole in time, an idle connection goes after a while, and a peer must take what it asked for.
//!
//! Times are kept as atomics and looked at by one lazy timer per connection: nothing is armed or
//! cancelled per request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::connection::Conn;
use crate::config::Timeouts;

/// What a connection has done when. Times are milliseconds since accept plus one; zero is "not".
#[derive(Debug)]
pub(super) struct Progress {
    accepted: Instant,
    requests: AtomicU32,
    served: AtomicBool,
    idle_since: AtomicU64,
    head_since: AtomicU64,
    blocked_since: AtomicU64,
    flushed: AtomicBool,
    /// When each response with an end was begun.
    bodies: Mutex<Vec<u64>>,
}

/// What the clock says of a connection.
pub(super) enum Verdict {
    /// Look again after this time.
    Fine(Duration),
    /// No request for too long: end it politely.
    Idle,
    SlowRequest,
    SlowReader,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            accepted: Instant::now(),
            requests: AtomicU32::new(0),
            served: AtomicBool::new(false),
            idle_since: AtomicU64::new(1),
            head_since: AtomicU64::new(0),
            blocked_since: AtomicU64::new(0),
            flushed: AtomicBool::new(true),
            bodies: Mutex::new(Vec::new()),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.accepted.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    /// Bytes came.
    pub(super) fn read(&self) {
        if self.requests.load(Ordering::Relaxed) == 0
            && self.head_since.load(Ordering::Relaxed) == 0
        {
            self.head_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// A write was tried.
    pub(super) fn write(&self, blocked: bool) {
        self.flushed.store(false, Ordering::Relaxed);
        if !blocked {
            self.blocked_since.store(0, Ordering::Relaxed);
        } else if self.blocked_since.load(Ordering::Relaxed) == 0 {
            self.blocked_since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Everything was written.
    pub(super) fn flushed(&self) {
        self.flushed.store(true, Ordering::Relaxed);
        self.blocked_since.store(0, Ordering::Relaxed);
    }

    /// Whether hyper has nothing left to write.
    pub(super) fn is_flushed(&self) -> bool {
        self.flushed.load(Ordering::Relaxed)
    }

    fn begin(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.served.store(true, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
    }

    fn begin_body(&self) -> u64 {
        let now = self.now();
        self.bodies.lock().push(now);
        now
    }

    fn end(&self, body_since: Option<u64>) {
        if let Some(since) = body_since {
            let mut bodies = self.bodies.lock();
            if let Some(at) = bodies.iter().position(|b| *b == since) {
                bodies.swap_remove(at);
            }
        }
        self.idle_since.store(self.now(), Ordering::Relaxed);
        self.requests.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether no request is in progress.
    pub(super) fn is_between_requests(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0
    }

    pub(super) fn has_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }

    /// What `limits` say of the connection now. `heads` tells whether bytes without a request are a request head: not so in HTTP/2.
    pub(super) fn verdict(&self, limits: Timeouts, heads: bool) -> Verdict {
        let now = self.now();
        let mut next = limits.head.min(limits.write);
        let mut over = |since: u64, limit: Duration| {
            if since == 0 {
                return false;
            }
            let left = limit.saturating_sub(Duration::from_millis(now.saturating_sub(since)));
            next = next.min(left);
            left.is_zero()
        };
        if over(self.blocked_since.load(Ordering::Relaxed), limits.write) {
            return Verdict::SlowReader;
        }
        let oldest = self.bodies.lock().iter().copied().min().unwrap_or(0);
        if over(oldest, limits.response) {
            return Verdict::SlowReader;
        }
        if self.requests.load(Ordering::Relaxed) == 0 {
            let served = self.served.load(Ordering::Relaxed);
            let head = if served && !heads { 0 } else { self.head_since.load(Ordering::Relaxed) };
            if over(head, limits.head) {
                return Verdict::SlowRequest;
            }
            let idle_since = self.idle_since.load(Ordering::Relaxed);
            if !served && over(idle_since, limits.head) {
                return Verdict::SlowRequest;
            }
            if over(idle_since, limits.idle) {
                return Verdict::Idle;
            }
        }
        // Never sooner than a millisecond, the resolution of the times.
        Verdict::Fine(next.max(Duration::from_millis(1)))
    }
}

/// A request in progress, from its head to the last byte of its response.
#[derive(Debug)]
pub(crate) struct InFlight {
    conn: Arc<Conn>,
    body_since: Option<u64>,
}

impl InFlight {
    pub(super) fn begin(conn: &Arc<Conn>) -> Self {
        conn.progress().begin();
        Self { conn: Arc::clone(conn), body_since: None }
    }

    /// The response is on its way, and has an end.
    pub(super) fn sends_a_body(&mut self) {
        self.body_since = Some(self.conn.progress().begin_body());
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.conn.progress().end(self.body_since);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Progress {
        /// Lets time pass, as all times count from the accept.
        fn pass(&mut self, seconds: u64) {
            self.accepted -= Duration::from_secs(seconds);
        }

        fn says(&self) -> Verdict {
            self.verdict(Timeouts::default(), true)
        }
    }

    #[test]
    fn heads_are_short_and_pauses_long() {
        let mut conn = Progress::new();
        assert!(matches!(conn.says(), Verdict::Fine(left) if left > Duration::from_secs(4)));
        conn.pass(4);
        conn.read();
        conn.pass(2);
        assert!(matches!(conn.says(), Verdict::SlowRequest), "the first must come soon");
        conn.begin();
        conn.pass(100);
        assert!(matches!(conn.says(), Verdict::Fine(_)), "a held request may take its time");
        conn.end(None);
        conn.pass(57);
        assert!(matches!(conn.says(), Verdict::Fine(left) if left <= Duration::from_secs(3)));
        conn.read();
        conn.pass(5);
        assert!(matches!(conn.says(), Verdict::SlowRequest));
        let http2 = conn.verdict(Timeouts::default(), false);
        assert!(matches!(http2, Verdict::Idle), "frames between requests are no head there");
    }

    #[test]
    fn what_is_written_must_be_taken() {
        let mut conn = Progress::new();
        conn.begin();
        let body = conn.begin_body();
        for _ in 0..11 {
            assert!(matches!(conn.says(), Verdict::Fine(_)));
            conn.write(true);
            conn.pass(9);
            conn.write(true);
            conn.write(false);
            conn.pass(1);
        }
        conn.write(true);
        conn.pass(9);
        assert!(matches!(conn.says(), Verdict::Fine(_)));
        conn.pass(1);
        assert!(matches!(conn.says(), Verdict::SlowReader));
        conn.flushed();
        assert!(matches!(conn.says(), Verdict::SlowReader), "two minutes for one response");
        conn.end(Some(body));
        assert!(matches!(conn.says(), Verdict::Fine(_)));
    }
}
