//! Upstreams: one subscription per room to its home, however many viewers ask.
//!
//! In: viewers' demand for rooms. Out: a [`Feed`] per room, kept filled by a [`link`] task that
//! finds the home, subscribes, follows moves and resumes after a loss. A room that placement does
//! not know is remembered for a moment, and watched, so that polls of it cost the control plane
//! nothing and its first publish is seen at once.

mod donate;
mod error;
mod fetch;
mod link;
mod sink;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use futures_util::future::BoxFuture;
use media::feed::{Feed, Limits};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::control::NodeInfo;
use wire::endpoint::Peer;
use wire::{Region, RoomId};

use crate::room::{Offer, OpenError, RoomSummary, Source, Subscription};
use wire::links::Links;
use wire::service::Service;

/// Rooms that placement does not know and that are remembered as such. One more is looked up anew
/// at every request.
pub const MAX_UNKNOWN: usize = 10_000;

/// How long an unknown room is remembered. It is watched meanwhile.
pub const UNKNOWN_TTL: Duration = Duration::from_secs(3);

/// How long a first request for a known room waits for its feed.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Rooms one edge carries at a time; one more is answered "unavailable".
pub const MAX_ROOMS: usize = 20_000;

/// Most edges offered to a viewer.
const MAX_OFFERED: usize = 3;

/// The answer for a room that cannot be had now.
const UNAVAILABLE: OpenError = OpenError::Unavailable { retry_after: Duration::from_secs(1) };

/// Every room this edge is subscribed to.
#[derive(Debug, Clone)]
pub struct Upstreams {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: cluster::Client,
    links: Links,
    limits: Limits,
    rooms: DashMap<RoomId, Arc<Slot>>,
    unknown: AtomicUsize,
    sinks: Arc<sink::Sinks>,
    next_subscription: AtomicU64,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    /// Where viewers should go, and the region of this edge.
    router: OnceLock<(cluster::Router, Region)>,
}

/// What is known of a room now.
#[derive(Debug, Clone)]
enum Phase {
    /// Asking placement, or dialling the home for the first time.
    Seeking,
    /// The feed is being filled, or was until the stream ended.
    Serving(Feed),
    /// Placement does not know it.
    Unknown,
    /// The link task is over; whoever still wants the room starts another.
    Closed,
}

#[derive(Debug)]
struct Slot {
    room: RoomId,
    phase: watch::Sender<Phase>,
    holders: watch::Sender<usize>,
    viewers: watch::Sender<u64>,
    /// The home the link is connected to now.
    peer: Mutex<Option<Arc<Peer>>>,
    /// Set when this feed will never go on: a later stream of the room has another feed.
    superseded: CancellationToken,
}

impl Slot {
    /// The slot as the viewer side sees it.
    fn subscription(self: &Arc<Self>, feed: Feed, hold: Hold) -> Subscription {
        Subscription {
            feed: feed.clone(),
            fetch: Arc::new(fetch::Fetcher::new(Arc::clone(self), feed)),
            retired: self.superseded.clone(),
            viewers: self.viewers.clone(),
            keep: Box::new(hold),
        }
    }
}

impl Upstreams {
    /// Starts with no rooms. Register [`Self::services`] with the endpoint `links` dials from.
    #[must_use]
    pub fn new(client: cluster::Client, links: Links, limits: Limits) -> Self {
        Self {
            inner: Arc::new(Inner {
                client,
                links,
                limits,
                rooms: DashMap::new(),
                unknown: AtomicUsize::new(0),
                sinks: Arc::default(),
                next_subscription: AtomicU64::new(1),
                shutdown: CancellationToken::new(),
                tasks: TaskTracker::new(),
                router: OnceLock::new(),
            }),
        }
    }

    /// Lets this edge, which stands in `region`, tell viewers where to go. Once.
    pub fn set_router(&self, router: cluster::Router, region: Region) {
        let _ = self.inner.router.set((router, region));
    }

    /// The services for streams that homes open to this node: those that carry segments, and those
    /// that ask what is here of an earlier home.
    #[must_use]
    pub fn services(&self) -> Vec<Arc<dyn Service>> {
        let donations = donate::Donations(Arc::downgrade(&self.inner));
        vec![Arc::clone(&self.inner.sinks) as Arc<dyn Service>, Arc::new(donations)]
    }

    /// The room's feed, subscribing first if nobody has.
    ///
    /// # Errors
    /// [`OpenError`]; holds at most [`OPEN_TIMEOUT`].
    pub async fn open(&self, room: &RoomId) -> Result<Subscription, OpenError> {
        tokio::time::timeout(OPEN_TIMEOUT, self.open_unbounded(room))
            .await
            .unwrap_or(Err(UNAVAILABLE))
    }

    async fn open_unbounded(&self, room: &RoomId) -> Result<Subscription, OpenError> {
        loop {
            let hold = Hold::new(self.slot(room)?);
            let mut phase = hold.slot.phase.subscribe();
            let known = phase.wait_for(|p| !matches!(p, Phase::Seeking)).await;
            let known = known.map_or(Phase::Closed, |p| p.clone());
            match known {
                Phase::Serving(feed) => return Ok(Arc::clone(&hold.slot).subscription(feed, hold)),
                Phase::Unknown => return Err(OpenError::Unknown),
                Phase::Seeking | Phase::Closed => {
                    if self.inner.shutdown.is_cancelled() {
                        return Err(UNAVAILABLE);
                    }
                    // The task that ended takes its slot out of the table before it says so.
                }
            }
        }
    }

    /// The rooms whose feeds are being served, with their feeds.
    #[must_use]
    pub fn rooms(&self) -> Vec<(RoomId, Feed)> {
        let serving = |slot: &Slot| match &*slot.phase.borrow() {
            Phase::Serving(feed) => Some((slot.room.clone(), feed.clone())),
            _ => None,
        };
        self.inner.rooms.iter().filter_map(|slot| serving(&slot)).collect()
    }

    /// One past the highest media sequence number of any room received here; 0 without one.
    #[must_use]
    pub fn next_msn(&self) -> u64 {
        let next =
            |(_, feed): (RoomId, Feed)| feed.manifest().last().map(|last| last.open.msn.0 + 1);
        self.rooms().into_iter().filter_map(next).max().unwrap_or(0)
    }

    /// Ends every link and waits for their tasks.
    pub async fn shutdown(&self) {
        self.inner.shutdown.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    fn slot(&self, room: &RoomId) -> Result<Arc<Slot>, OpenError> {
        if let Some(slot) = self.inner.rooms.get(room) {
            return Ok(Arc::clone(&slot));
        }
        if self.inner.rooms.len() >= MAX_ROOMS + MAX_UNKNOWN {
            return Err(UNAVAILABLE);
        }
        match self.inner.rooms.entry(room.clone()) {
            Entry::Occupied(taken) => Ok(Arc::clone(taken.get())),
            Entry::Vacant(free) => {
                let slot = Arc::new(Slot {
                    room: room.clone(),
                    phase: watch::Sender::new(Phase::Seeking),
                    holders: watch::Sender::new(0),
                    viewers: watch::Sender::new(0),
                    peer: Mutex::new(None),
                    superseded: CancellationToken::new(),
                });
                free.insert(Arc::clone(&slot));
                let inner = Arc::clone(&self.inner);
                self.inner.tasks.spawn(link::run(inner, Arc::clone(&slot)));
                Ok(slot)
            }
        }
    }
}

impl Inner {
    /// Takes the slot out of the table, so that the next demand starts anew.
    fn forget(&self, slot: &Arc<Slot>) {
        self.rooms.remove_if(&slot.room, |_, known| Arc::ptr_eq(known, slot));
        slot.phase.send_replace(Phase::Closed);
    }

    fn subscription_id(&self) -> u64 {
        self.next_subscription.fetch_add(1, Ordering::Relaxed)
    }
}

impl Source for Upstreams {
    fn open<'a>(&'a self, room: &'a RoomId) -> BoxFuture<'a, Result<Subscription, OpenError>> {
        Box::pin(self.open(room))
    }

    fn route(&self, room: &RoomId, region: Option<&Region>) -> Vec<Offer> {
        let Some((router, own)) = self.inner.router.get() else { return Vec::new() };
        // An edge that does not say where viewers reach it can only be offered by itself.
        let may =
            |info: &NodeInfo| !info.spec.viewer_urls.is_empty() || info.spec.id == *router.node();
        let edges = router.edges(room, region.unwrap_or(own), MAX_OFFERED, may);
        let offer = |info: NodeInfo| Offer {
            url: info.spec.viewer_urls.into_iter().next(),
            node: info.spec.id,
            region: info.spec.region,
        };
        edges.into_iter().map(offer).collect()
    }

    fn list(&self) -> Vec<RoomSummary> {
        let summary = |(room, feed): (RoomId, Feed)| RoomSummary {
            room,
            state: feed.manifest().status().into(),
            viewers: None,
        };
        self.rooms().into_iter().map(summary).collect()
    }
}

/// Counts as a holder of the slot for as long as it lives.
#[derive(Debug)]
struct Hold {
    slot: Arc<Slot>,
}

impl Hold {
    fn new(slot: Arc<Slot>) -> Self {
        slot.holders.send_modify(|count| *count += 1);
        Self { slot }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.slot.holders.send_modify(|count| *count -= 1);
    }
}
