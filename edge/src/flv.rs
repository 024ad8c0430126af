//! FLV for viewers, over HTTP and WebSocket: one chunk per room and flush, shared by all of them.
//!
//! In: frames, read from the room's feed by one cursor. Out: [`chunk::Chunk`]s in a [`ring::Ring`],
//! from which every viewer is served: sockets by the room's [`writer`]s, TLS by a [`session`] each,
//! HTTP/2 through hyper by a [`body`].
//!
//! A room's [`Hub`] begins with its first FLV viewer and ends a while after the last, or when the
//! stream does. The rules are pure ([`chunker`], [`ring`], [`cursor`], [`outlet`]); this file is the task around
//! them: it waits for frames and decides when to flush.

pub(crate) mod body;
mod chunk;
mod chunker;
mod cursor;
mod outlet;
mod ring;
pub(crate) mod session;
pub(crate) mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cluster::access::Pass;
use media::feed::{Cursor as FeedCursor, Feed, Read, Start};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Timeouts;
use crate::metrics::{Close, Metrics, Protocol};
use crate::room::{Room, Viewing};
pub(crate) use chunk::Framing;
use chunker::{Broken, Chunker};
pub(crate) use cursor::Cursor;
pub(crate) use outlet::Outlet;
use ring::Ring;
use writer::Writers;

/// Flush interval while few watch: about what one frame takes.
pub const MIN_FLUSH: Duration = Duration::from_millis(20);
/// FLV viewers per CPU up to which nothing is gained by waiting.
pub const RELAXED_VIEWERS: usize = 100;
/// FLV viewers per CPU from which chunks collect as long as [`crate::Config::flv_max_flush`] says.
pub const CROWDED_VIEWERS: usize = 1000;

/// How long the feed's cursor waits for an older incomplete segment before it jumps to a later key
/// frame.
const STALL_PATIENCE: Duration = Duration::from_millis(500);
/// How long a hub without viewers stays, for those who reload.
const IDLE_GRACE: Duration = Duration::from_secs(5);
/// How often a hub looks whether anybody is still there.
const IDLE_CHECK: Duration = Duration::from_secs(1);
/// Frames read at a time, so that a long GOP does not hold the feed's lock.
const READ_FRAMES: usize = 256;

/// What the FLV of all rooms has in common.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) metrics: Arc<Metrics>,
    /// CPUs to spread over.
    cpus: usize,
    max_flush: Duration,
    timeouts: Timeouts,
    viewers: AtomicUsize,
    drain: CancellationToken,
    abort: CancellationToken,
    tasks: TaskTracker,
}

impl Stage {
    pub(crate) fn new(
        metrics: Arc<Metrics>,
        (cpus, max_flush): (usize, Duration),
        timeouts: Timeouts,
        (drain, abort): (CancellationToken, CancellationToken),
        tasks: TaskTracker,
    ) -> Arc<Self> {
        let cpus = cpus.max(1);
        Arc::new(Self {
            metrics,
            cpus,
            max_flush: max_flush.max(MIN_FLUSH),
            timeouts,
            viewers: AtomicUsize::new(0),
            drain,
            abort,
            tasks,
        })
    }

    /// How long a chunk may collect frames, by how many watch on this node.
    fn flush_interval(&self) -> Duration {
        let viewers = self.viewers.load(Ordering::Relaxed) / self.cpus;
        let over = viewers.saturating_sub(RELAXED_VIEWERS).min(CROWDED_VIEWERS - RELAXED_VIEWERS);
        let share = over as f64 / (CROWDED_VIEWERS - RELAXED_VIEWERS) as f64;
        MIN_FLUSH + (self.max_flush - MIN_FLUSH).mul_f64(share)
    }

    /// Makes `viewing` a viewer of its room's FLV, beginning the hub if there is none.
    pub(crate) fn enter(self: &Arc<Self>, viewing: Viewing, protocol: Protocol) -> Seat {
        let mut slot = viewing.hub().lock();
        let hub = match slot.as_ref().filter(|hub| hub.admit()) {
            Some(hub) => Arc::clone(hub),
            None => {
                let hub = Hub::begin(self, &viewing);
                *slot = Some(Arc::clone(&hub));
                hub
            }
        };
        drop(slot);
        self.viewers.fetch_add(1, Ordering::Relaxed);
        self.metrics.viewers(protocol).inc();
        viewing.flv_joined();
        Seat { stage: Arc::clone(self), hub, viewing, protocol, pass: None }
    }
}

/// A viewer's place in a room's FLV: while it lives the viewer counts.
#[derive(Debug)]
pub(crate) struct Seat {
    stage: Arc<Stage>,
    pub(crate) hub: Arc<Hub>,
    viewing: Viewing,
    pub(crate) protocol: Protocol,
    /// What let the viewer in, where something had to.
    pass: Option<Box<Pass>>,
}

impl Seat {
    /// As this, for a viewer whom `pass` let in.
    pub(crate) fn with_pass(mut self, pass: Option<Pass>) -> Self {
        self.pass = pass.map(Box::new);
        self
    }

    /// Why the viewer may stay no longer, if so. Cheap.
    pub(crate) fn revoked(&self) -> Option<Close> {
        let is_void = self.pass.as_ref().is_some_and(|pass| pass.is_void());
        is_void.then_some(Close::Revoked)
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.stage.metrics
    }

    pub(crate) fn timeouts(&self) -> Timeouts {
        self.stage.timeouts
    }

    /// Cancelled when nothing may be finished any more.
    pub(crate) fn abort(&self) -> &CancellationToken {
        &self.stage.abort
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.hub.state.lock().viewers -= 1;
        self.stage.viewers.fetch_sub(1, Ordering::Relaxed);
        self.stage.metrics.viewers(self.protocol).dec();
        self.viewing.flv_left();
    }
}

/// The FLV of one room, from its first viewer on.
#[derive(Debug)]
pub(crate) struct Hub {
    state: Mutex<State>,
    /// Counts changes of the ring.
    changed: watch::Sender<u64>,
    /// Cancelled when its viewers are to come back elsewhere.
    dismissed: CancellationToken,
    writers: Writers,
}

#[derive(Debug)]
struct State {
    ring: Arc<Ring>,
    viewers: usize,
}

impl Hub {
    /// Begins with one viewer.
    fn begin(stage: &Arc<Stage>, room: &Room) -> Arc<Self> {
        let hub = Arc::new(Self {
            state: Mutex::new(State { ring: Arc::new(Ring::default()), viewers: 1 }),
            changed: watch::Sender::new(0),
            dismissed: CancellationToken::new(),
            writers: Writers::new(stage.cpus),
        });
        let maker = Maker {
            hub: Arc::clone(&hub),
            stage: Arc::clone(stage),
            feed: room.feed().clone(),
            retired: room.retired().clone(),
        };
        stage.tasks.spawn(maker.run());
        hub
    }

    /// Counts a viewer in, unless this hub is over.
    fn admit(&self) -> bool {
        let mut state = self.state.lock();
        let open = state.ring.ended().is_none();
        state.viewers += usize::from(open);
        open
    }

    /// Ends the streams of all viewers; those who come back begin another hub.
    pub(crate) fn dismiss(&self) {
        self.dismissed.cancel();
    }

    /// The ring as it is now.
    pub(crate) fn ring(&self) -> Arc<Ring> {
        Arc::clone(&self.state.lock().ring)
    }

    /// Wakes when the ring changes; the value only counts.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Waits until the tracks are known, so that the head of an answer can be written.
    pub(crate) async fn known(&self) {
        let mut changes = self.changes();
        loop {
            {
                let state = self.state.lock();
                if state.ring.preamble().is_some() || state.ring.ended().is_some() {
                    return;
                }
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn update(&self, change: impl FnOnce(&mut Ring)) {
        change(Arc::make_mut(&mut self.state.lock().ring));
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Ends the hub if nobody is there.
    fn end_if_empty(&self) -> bool {
        let mut state = self.state.lock();
        let empty = state.viewers == 0;
        if empty {
            Arc::make_mut(&mut state.ring).end(Close::Left);
        }
        empty
    }
}

/// Turns the feed's frames into chunks.
struct Maker {
    hub: Arc<Hub>,
    stage: Arc<Stage>,
    feed: Feed,
    retired: CancellationToken,
}

/// Where the maker is between two wake-ups.
struct Making {
    chunker: Chunker,
    cursor: Option<FeedCursor>,
    /// When the open chunk is to go out.
    flush_at: Option<Instant>,
    last_flush: Instant,
    stalled_since: Option<Instant>,
}

impl Maker {
    async fn run(self) {
        let why = tokio::select! {
            biased;
            () = self.stage.drain.cancelled() => Close::Shutdown,
            () = self.retired.cancelled() => Close::Changed,
            () = self.hub.dismissed.cancelled() => Close::Shutdown,
            why = self.make() => why,
        };
        tracing::debug!(reason = why.label(), "FLV of a room ends");
        self.hub.update(|ring| ring.end(why));
    }

    async fn make(&self) -> Close {
        let mut activity = self.feed.activity();
        let mut making = Making {
            chunker: Chunker::new(),
            cursor: None,
            flush_at: None,
            last_flush: Instant::now() - self.stage.max_flush,
            stalled_since: None,
        };
        let mut empty_since = None;
        loop {
            activity.mark_unchanged();
            if let Some(why) = self.take(&mut making) {
                return why;
            }
            let now = Instant::now();
            let occupied = self.hub.state.lock().viewers > 0;
            let since = *empty_since.get_or_insert(now);
            if occupied {
                empty_since = None;
            } else if now - since >= IDLE_GRACE && self.hub.end_if_empty() {
                return Close::Left;
            }
            let stall = making.stalled_since.map(|since| since + STALL_PATIENCE);
            let wake = [making.flush_at, stall].into_iter().flatten().min();
            let wake = wake.unwrap_or(now + IDLE_CHECK).min(now + IDLE_CHECK);
            tokio::select! {
                changed = activity.changed() => {
                    if changed.is_err() {
                        return Close::Failed;
                    }
                }
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// Takes what the feed has and flushes what is due. Returns why it is over, if it is.
    fn take(&self, making: &mut Making) -> Option<Close> {
        let end = loop {
            if making.cursor.is_none() {
                making.cursor = self.feed.cursor(Start::LatestKey);
            }
            let now = Instant::now();
            let Some(cursor) = &mut making.cursor else { break None };
            let jump = match self.feed.read(cursor, READ_FRAMES) {
                Read::Frames(frames) => {
                    making.stalled_since = None;
                    let rate = self.feed.manifest().header().frame_rate_milli;
                    let pushed =
                        frames.iter().try_for_each(|frame| making.chunker.push(frame, rate, now));
                    match pushed {
                        Ok(()) => continue,
                        Err(broken) => break Some(broken.close()),
                    }
                }
                Read::Waiting => break None,
                Read::Ended => break Some(Close::Ended),
                Read::Behind => true,
                Read::Stalled => now - *making.stalled_since.get_or_insert(now) >= STALL_PATIENCE,
            };
            if !jump || !self.feed.skip(cursor) {
                break None;
            }
            making.stalled_since = None;
            making.chunker.jump();
            self.stage.metrics.flv_jumps.inc();
        };
        self.flush(making, end);
        end
    }

    /// Puts finished chunks into the ring, and the open one when it is due or the last.
    fn flush(&self, making: &mut Making, end: Option<Close>) {
        let now = Instant::now();
        if making.chunker.is_empty() {
            making.flush_at = None;
        } else {
            let due = making.last_flush + self.stage.flush_interval();
            making.flush_at = Some(due);
            if due <= now || end.is_some() {
                making.chunker.seal(now);
                making.last_flush = now;
                making.flush_at = None;
            }
        }
        let chunks: Vec<_> = making.chunker.finished().collect();
        if !chunks.is_empty() {
            self.hub.update(|ring| chunks.into_iter().for_each(|chunk| ring.push(chunk, now)));
        }
    }
}

impl Broken {
    fn close(&self) -> Close {
        match self {
            Self::Tracks | Self::Timeline => Close::Changed,
            Self::Unwritable(error) => {
                tracing::error!(%error, "the stream cannot be written as FLV");
                Close::Failed
            }
        }
    }
}

#[cfg(test)]
mod tests;
