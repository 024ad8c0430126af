//! Writes FLV to sockets that have left hyper: a few tasks per room walk all its viewers.
//!
//! In: viewers with their sockets, and a ring that wakes the walk. Out: `writev` calls, one per viewer
//! and chunk. No task is woken per viewer and no buffer is kept for one: between walks a viewer is its
//! socket and its place in the ring. A socket that takes nothing is tried again when tokio's reactor
//! has seen it become writable, which costs the walk a flag and no system call.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::outlet::{MAX_BATCH_BYTES, MAX_SLICES, Outlet};
use super::ring::Ring;
use super::{Hub, Seat, Stage};
use crate::http::listener::Lease;
use crate::metrics::{Close, Protocol};

/// Viewers of a room per writer before another writer begins, up to one per CPU.
const VIEWERS_PER_WRITER: usize = 64;
/// Viewers that have joined and wait for their writer; over it joining waits.
const JOIN_QUEUE: usize = 256;
/// How soon a viewer whose socket was full is tried again.
const RETRY: Duration = Duration::from_millis(20);
/// How often sockets are looked at when the stream is silent.
const SWEEP: Duration = Duration::from_secs(1);
/// Viewers served before other tasks get the CPU.
const YIELD_EVERY: usize = 64;
/// Unsent bytes the kernel keeps per viewer beyond what is in flight: what is more shows as lag here,
/// where it can be acted on.
const NOTSENT_LOWAT_BYTES: u32 = 64 * 1024;
/// The writers of one room.
#[derive(Debug)]
pub(crate) struct Writers {
    cpus: usize,
    running: Mutex<Vec<Handle>>,
}

#[derive(Debug, Clone)]
struct Handle {
    joins: mpsc::Sender<Viewer>,
    viewers: Arc<AtomicUsize>,
}

impl Writers {
    pub(super) fn new(cpus: usize) -> Self {
        Self { cpus, running: Mutex::new(Vec::new()) }
    }

    /// The least loaded writer, or another one if all have enough.
    fn pick(&self, hub: &Arc<Hub>, stage: &Arc<Stage>) -> Handle {
        let mut running = self.running.lock();
        running.retain(|w| !w.joins.is_closed());
        let least = running.iter().min_by_key(|w| w.viewers.load(Ordering::Relaxed));
        if let Some(writer) = least
            && (writer.viewers.load(Ordering::Relaxed) < VIEWERS_PER_WRITER
                || running.len() >= self.cpus)
        {
            return writer.clone();
        }
        let (joins, joined) = mpsc::channel(JOIN_QUEUE);
        let handle = Handle { joins, viewers: Arc::new(AtomicUsize::new(0)) };
        running.push(handle.clone());
        let writer = Writer {
            hub: Arc::clone(hub),
            stage: Arc::clone(stage),
            joined,
            count: Arc::clone(&handle.viewers),
            viewers: Vec::new(),
            scratch: vec![0; 4096].into(),
        };
        stage.tasks.spawn(writer.run());
        handle
    }
}

/// Gives a viewer to one of its room's writers.
pub(crate) async fn join(viewer: Viewer) {
    let writer = viewer.seat.hub.writers.pick(&viewer.seat.hub, &viewer.seat.stage);
    writer.viewers.fetch_add(1, Ordering::Relaxed);
    // A writer that has just ended drops the viewer, who reconnects.
    if writer.joins.send(viewer).await.is_err() {
        writer.viewers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One socket and its place in the stream.
#[derive(Debug)]
pub(crate) struct Viewer {
    stream: TcpStream,
    seat: Seat,
    _lease: Lease,
    outlet: Outlet,
    /// Its socket was full at the last try.
    blocked: bool,
    /// Closes once everything pending is taken.
    closing: Option<Close>,
}

impl Viewer {
    /// A viewer whose response begins with `head`; `ahead` is what it sent behind its request.
    pub(crate) fn new(
        stream: TcpStream,
        lease: Lease,
        seat: Seat,
        outlet: Outlet,
    ) -> io::Result<Self> {
        SockRef::from(&stream).set_tcp_notsent_lowat(NOTSENT_LOWAT_BYTES)?;
        Ok(Self { stream, seat, _lease: lease, outlet, blocked: false, closing: None })
    }

    fn serve(&mut self, ring: &Ring, now: Instant, scratch: &mut [u8]) -> Served {
        let left = self.receive(scratch);
        let mut served = Served { bytes: 0, close: left.or_else(|| self.seat.revoked()) };
        while served.close.is_none() {
            if self.outlet.is_empty() {
                served.close = self.outlet.fill(ring, now, self.seat.metrics());
                if self.outlet.is_empty() {
                    self.blocked = false;
                    break;
                }
                // What is due goes out before the end.
                self.closing = served.close.take();
            }
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let count = self.outlet.slices(&mut slices);
            match self.stream.try_write_vectored(&slices[..count]) {
                Ok(n) => {
                    self.outlet.advance(n, now);
                    served.bytes += n;
                    if self.outlet.is_empty() && self.closing.is_some() {
                        served.close = self.closing;
                    } else if served.bytes >= MAX_BATCH_BYTES {
                        self.blocked = true; // goes on at the next turn
                        break;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked = true;
                    if self.outlet.untaken_for(now) >= self.seat.timeouts().write {
                        served.close = Some(Close::Stuck);
                    }
                    break;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => served.close = Some(Close::Left),
            }
        }
        if let (Some(why), Some(farewell)) = (served.close, self.outlet.farewell(served.close)) {
            // As much as the socket takes: the peer may be gone, or the reason for closing.
            if why != Close::Left {
                let _ = self.stream.try_write(&farewell);
            }
        }
        served
    }

    /// Reads what the viewer has to say, which is little.
    fn receive(&mut self, scratch: &mut [u8]) -> Option<Close> {
        loop {
            match self.stream.try_read(scratch) {
                Ok(0) => return Some(Close::Left),
                Ok(n) => {
                    if let Some(why) = self.outlet.received(scratch.get(..n).unwrap_or_default()) {
                        return Some(why);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return None,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Some(Close::Left),
            }
        }
    }
}

/// What a walk did for one viewer.
#[derive(Debug)]
struct Served {
    bytes: usize,
    close: Option<Close>,
}

/// One task that walks sockets.
struct Writer {
    hub: Arc<Hub>,
    stage: Arc<Stage>,
    joined: mpsc::Receiver<Viewer>,
    count: Arc<AtomicUsize>,
    viewers: Vec<Viewer>,
    scratch: Box<[u8]>,
}

/// Which viewers a walk serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Walk {
    All,
    /// Those who have joined since.
    From(usize),
    /// Those whose sockets were full.
    Blocked,
}

impl Writer {
    async fn run(mut self) {
        let mut changes = self.hub.changes();
        let mut any_blocked = false;
        loop {
            let walk = tokio::select! {
                biased;
                () = self.stage.abort.cancelled() => return self.leave(Close::Shutdown),
                changed = changes.changed() => {
                    debug_assert!(changed.is_ok(), "the hub is held here");
                    Walk::All
                }
                viewer = self.joined.recv() => match viewer {
                    Some(viewer) => {
                        let from = self.viewers.len();
                        self.viewers.push(viewer);
                        Walk::From(from)
                    }
                    None => return self.leave(Close::Shutdown),
                },
                () = tokio::time::sleep(RETRY), if any_blocked => Walk::Blocked,
                () = tokio::time::sleep(SWEEP) => Walk::All,
            };
            while let Ok(viewer) = self.joined.try_recv() {
                self.viewers.push(viewer);
            }
            any_blocked = self.walk(walk).await;
            if self.viewers.is_empty() && self.hub.ring().ended().is_some() {
                self.joined.close();
                // Who slipped in before is served what there is, and let go.
                while let Ok(viewer) = self.joined.try_recv() {
                    self.viewers.push(viewer);
                }
                if self.viewers.is_empty() {
                    return;
                }
            }
        }
    }

    /// Serves viewers; returns whether any socket is full.
    async fn walk(&mut self, walk: Walk) -> bool {
        let ring = self.hub.ring();
        let mut now = Instant::now();
        let mut sent = [0_u64; 2];
        let mut index = match walk {
            Walk::From(index) => index,
            Walk::All | Walk::Blocked => 0,
        };
        let mut any_blocked = walk != Walk::All && self.viewers.iter().any(|v| v.blocked);
        let mut turns = 0;
        while let Some(viewer) = self.viewers.get_mut(index) {
            if walk == Walk::Blocked && !viewer.blocked {
                index += 1;
                continue;
            }
            let served = viewer.serve(&ring, now, &mut self.scratch);
            sent[usize::from(viewer.seat.protocol == Protocol::WsFlv)] += served.bytes as u64;
            if let Some(why) = served.close {
                self.stage.metrics.flv_closed(why);
                drop(self.viewers.swap_remove(index));
                self.count.fetch_sub(1, Ordering::Relaxed);
            } else {
                any_blocked |= viewer.blocked;
                index += 1;
            }
            turns += 1;
            if turns % YIELD_EVERY == 0 {
                tokio::task::yield_now().await;
                now = Instant::now();
            }
        }
        self.stage.metrics.sent_bytes(Protocol::Flv).inc_by(sent[0]);
        self.stage.metrics.sent_bytes(Protocol::WsFlv).inc_by(sent[1]);
        any_blocked
    }

    fn leave(mut self, why: Close) {
        for _ in self.viewers.drain(..) {
            self.stage.metrics.flv_closed(why);
        }
    }
}
