//! One room as this edge serves it: its feed, what was rendered of it, and who watches.
//!
//! In: a [`Subscription`] from a [`Source`], once per room however many viewers ask at once. Out: a
//! [`Viewing`] for each request, through which the HTTP side waits for parts, fetches missing bytes
//! and reads shared renderings. A room leaves, and its subscription with it, a grace time after its
//! last viewer ([`registry`]).
//!
//! Does not know where a room's home is (that is the source's business) nor how a request looks.

mod audience;
pub(crate) mod registry;
mod rendering;
pub(crate) mod shelf;

use std::any::Any;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use media::feed::Feed;
use media::manifest::{Epoch, Manifest, Msn, Status};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::{NodeId, Region, RoomId};

use crate::flv::Hub;
use crate::metrics::Protocol;
use audience::Audience;
pub(crate) use rendering::{Coding, Playlists, target_s};
use shelf::Shelf;

/// Fetches of lost segments that one room runs at once. Over it a request is still held, and the next
/// one that comes after a fetch has ended starts another.
pub const MAX_FETCHES: usize = 16;

/// How much longer requests are held once the node shuts down: a part is due well within it.
const SHUTDOWN_HOLD: Duration = Duration::from_secs(1);

/// Where rooms come from: subscribes to the home on first demand.
///
/// The edge calls [`Self::open`] once per room, however many viewers ask at the same time, and again
/// after the subscription was dropped or retired. Answers to unknown rooms may be polled by the
/// thousand: the source keeps the negative cache.
pub trait Source: Send + Sync + 'static {
    /// Subscribes to `room`. The edge gives up after 10 s, as long as a viewer is held.
    ///
    /// # Errors
    /// [`OpenError`].
    fn open<'a>(&'a self, room: &'a RoomId) -> BoxFuture<'a, Result<Subscription, OpenError>>;

    /// The rooms a viewer of this edge may find in its room list.
    fn list(&self) -> Vec<RoomSummary>;

    /// The best edges for a viewer of `room` in `region` (none: this edge's own), best first.
    fn route(&self, room: &RoomId, region: Option<&Region>) -> Vec<Offer> {
        let _ = (room, region);
        Vec::new()
    }

    /// Why this edge should get no traffic now, if so: the answer of `/readyz`.
    fn unready(&self) -> Option<String> {
        None
    }
}

/// An edge to send a viewer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The edge.
    pub node: NodeId,
    /// Where it stands.
    pub region: Region,
    /// Under which base URL viewers reach it; none for this edge itself, reached already.
    pub url: Option<String>,
}

/// A room's stream as it comes in. Dropping it is how the edge says that nobody watches any more.
pub struct Subscription {
    /// Filled by the source.
    pub feed: Feed,
    /// Gets bytes again that were lost on the way.
    pub fetch: Arc<dyn Fetch>,
    /// Cancelled by the source when `feed` will never tell anything again and another would: the
    /// room has moved to a home that knows no past, or was removed. FLV viewers are let go so that
    /// they reconnect, and the next request opens the room anew.
    pub retired: CancellationToken,
    /// How many viewers this edge has for the room, told about once a second: the home adds them up.
    pub viewers: watch::Sender<u64>,
    /// Whatever keeps the upstream alive; dropped with the room.
    pub keep: Box<dyn Any + Send + Sync>,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("feed", &self.feed).finish_non_exhaustive()
    }
}

/// Gets bytes of a segment again.
pub trait Fetch: Send + Sync + 'static {
    /// Asks the home for the missing bytes of a listed segment and puts them into the feed. Returns
    /// whether they are there now. At most one runs per segment.
    fn fetch(&self, epoch: Epoch, msn: Msn) -> BoxFuture<'static, bool>;
}

/// Why a room cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Placement says there is no such room.
    #[error("no such room")]
    Unknown,
    /// The room exists, or may exist, and cannot be had now.
    #[error("the room cannot be had now")]
    Unavailable {
        /// When to ask again.
        retry_after: Duration,
    },
}

/// A line of the room list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomSummary {
    /// The room.
    pub room: RoomId,
    /// Where it is in its life.
    pub state: RoomState,
    /// Viewers in the whole cluster where that is known; else this edge's own are shown.
    pub viewers: Option<u64>,
}

/// Where a room is in its life, as viewers are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoomState {
    /// A publisher is sending.
    Live,
    /// The publisher has gone and may be back any moment.
    Grace,
    /// Nobody publishes.
    Idle,
}

impl RoomState {
    /// The word of the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Grace => "grace",
            Self::Idle => "idle",
        }
    }
}

impl From<Status> for RoomState {
    fn from(status: Status) -> Self {
        match status {
            Status::Live => Self::Live,
            Status::Grace => Self::Grace,
            Status::Ended => Self::Idle,
        }
    }
}

/// Why a wait ended without what was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missed {
    /// The time was up.
    TimedOut,
    /// The room was retired: opening it again may help.
    Retired,
}

/// One open room.
#[derive(Debug)]
pub(crate) struct Room {
    id: RoomId,
    subscription: Subscription,
    /// Cancelled when the node shuts down.
    drain: CancellationToken,
    opened: Instant,
    /// Milliseconds after `opened` at which somebody last asked for anything.
    interest_ms: AtomicU64,
    /// Requests and streams in progress.
    holders: AtomicU32,
    flv_viewers: AtomicU32,
    playlists: Playlists,
    shelf: Shelf,
    audience: Mutex<Audience>,
    hub: Mutex<Option<Arc<Hub>>>,
    /// Fetches in progress; the value turns true at the end.
    fetching: Mutex<HashMap<(Epoch, Msn), watch::Receiver<bool>>>,
    /// When the janitor first saw the stream ended.
    ended: Mutex<Option<Instant>>,
}

impl Room {
    fn new(id: RoomId, subscription: Subscription, drain: CancellationToken) -> Self {
        let playlists = Playlists::new(id.clone());
        Self {
            id,
            subscription,
            drain,
            opened: Instant::now(),
            interest_ms: AtomicU64::new(0),
            holders: AtomicU32::new(0),
            flv_viewers: AtomicU32::new(0),
            playlists,
            shelf: Shelf::default(),
            audience: Mutex::new(Audience::default()),
            hub: Mutex::new(None),
            fetching: Mutex::new(HashMap::new()),
            ended: Mutex::new(None),
        }
    }

    pub(crate) fn id(&self) -> &RoomId {
        &self.id
    }

    pub(crate) fn feed(&self) -> &Feed {
        &self.subscription.feed
    }

    pub(crate) fn playlists(&self) -> &Playlists {
        &self.playlists
    }

    pub(crate) fn shelf(&self) -> &Shelf {
        &self.shelf
    }

    pub(crate) fn retired(&self) -> &CancellationToken {
        &self.subscription.retired
    }

    /// Whether it was opened less than this long ago.
    pub(crate) fn is_younger_than(&self, age: Duration) -> bool {
        self.opened.elapsed() < age
    }

    /// Ends the FLV of its viewers, who then go where they are sent.
    pub(crate) fn dismiss(&self) {
        if let Some(hub) = self.hub.lock().as_ref() {
            hub.dismiss();
        }
    }

    /// The slot of the FLV hub, which the FLV side fills on demand.
    pub(crate) fn hub(&self) -> &Mutex<Option<Arc<Hub>>> {
        &self.hub
    }

    /// Waits until `look` finds what it looks for in the published manifest.
    pub(crate) async fn wait_for<T>(
        &self,
        deadline: Instant,
        mut look: impl FnMut(&Arc<Manifest>) -> Option<T>,
    ) -> Result<T, Missed> {
        // Most find it here: only who waits is put on the list of those to wake.
        if let Some(found) = look(&self.feed().manifest()) {
            return Ok(found);
        }
        let look_again = async {
            let mut published = self.feed().published();
            published.mark_changed();
            while published.changed().await.is_ok() {
                let manifest = Arc::clone(&published.borrow_and_update());
                if let Some(found) = look(&manifest) {
                    return found;
                }
            }
            // The feed outlives the wait: this room holds it.
            std::future::pending().await
        };
        self.hold(deadline, look_again).await
    }

    /// Runs `until` no longer than to `deadline`, to the retirement of the room, or to shortly after
    /// the node begins to shut down.
    pub(crate) async fn hold<T>(
        &self,
        deadline: Instant,
        until: impl Future<Output = T>,
    ) -> Result<T, Missed> {
        let shutdown = async {
            self.drain.cancelled().await;
            tokio::time::sleep(SHUTDOWN_HOLD).await;
        };
        tokio::select! {
            biased;
            found = until => Ok(found),
            () = self.retired().cancelled() => Err(Missed::Retired),
            () = tokio::time::sleep_until(deadline) => Err(Missed::TimedOut),
            () = shutdown => Err(Missed::TimedOut),
        }
    }

    /// Has the source get a segment's bytes again unless that is being done, and waits for the end of
    /// it. Returns false at once when too many fetches run.
    pub(crate) async fn fetch(&self, epoch: Epoch, msn: Msn) -> bool {
        let mut done = {
            let mut fetching = self.fetching.lock();
            fetching.retain(|_, done| !*done.borrow());
            let full = fetching.len() >= MAX_FETCHES;
            match fetching.entry((epoch, msn)) {
                Entry::Occupied(running) => running.get().clone(),
                Entry::Vacant(_) if full => return false,
                Entry::Vacant(slot) => {
                    let (end, done) = watch::channel(false);
                    let fetch = self.subscription.fetch.fetch(epoch, msn);
                    let retired = self.retired().clone();
                    tokio::spawn(async move {
                        let got = retired.run_until_cancelled(fetch).await;
                        tracing::debug!(%epoch, %msn, ?got, "fetched a segment again");
                        end.send_replace(true);
                    });
                    slot.insert(done).clone()
                }
            }
        };
        // An error means the task is gone, which is an end too.
        let _ = done.wait_for(|done| *done).await;
        true
    }

    /// Notes a playlist poll of the HLS viewer with this key.
    pub(crate) fn saw(&self, protocol: Protocol, viewer: u64) {
        self.audience.lock().saw(protocol, viewer, Instant::now());
    }

    /// HLS viewers of `protocol`, estimated.
    fn hls_viewers(&self, protocol: Protocol) -> u64 {
        self.audience.lock().count(protocol, Instant::now())
    }

    /// Viewers of any protocol on this edge.
    pub(crate) fn viewers(&self) -> u64 {
        u64::from(self.flv_viewers.load(Ordering::Relaxed))
            + self.hls_viewers(Protocol::Hls)
            + self.hls_viewers(Protocol::LlHls)
    }

    /// Tells the source how many viewers there are, if that has changed.
    fn tell_viewers(&self) {
        let count = self.viewers();
        self.subscription.viewers.send_if_modified(|told| std::mem::replace(told, count) != count);
    }

    pub(crate) fn flv_joined(&self) {
        self.flv_viewers.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn flv_left(&self) {
        self.flv_viewers.fetch_sub(1, Ordering::Relaxed);
    }

    fn touch(&self) {
        let ms = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.interest_ms.fetch_max(ms, Ordering::Relaxed);
    }

    /// How long nobody has asked for anything; zero while somebody holds the room.
    fn idle_for(&self) -> Duration {
        if self.holders.load(Ordering::Acquire) > 0 {
            return Duration::ZERO;
        }
        let last = Duration::from_millis(self.interest_ms.load(Ordering::Relaxed));
        self.opened.elapsed().saturating_sub(last)
    }

    /// How long the stream has been over, by the calls of this function.
    fn ended_for(&self, now: Instant) -> Option<Duration> {
        let over = self.feed().manifest().status() == Status::Ended;
        let mut ended = self.ended.lock();
        *ended = over.then(|| ended.unwrap_or(now));
        ended.map(|since| now - since)
    }
}

/// Somebody's hold on a room: while it lives the room stays.
#[derive(Debug)]
pub(crate) struct Viewing(Arc<Room>);

impl Viewing {
    fn new(room: &Arc<Room>) -> Self {
        room.holders.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(room))
    }
}

impl Clone for Viewing {
    fn clone(&self) -> Self {
        Self::new(&self.0)
    }
}

impl Drop for Viewing {
    fn drop(&mut self) {
        self.0.touch();
        self.0.holders.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Deref for Viewing {
    type Target = Room;

    fn deref(&self) -> &Room {
        &self.0
    }
}
