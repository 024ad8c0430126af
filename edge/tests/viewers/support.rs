//! A house to test in: an edge, the rooms its source knows, and its figures.

pub(crate) mod client;
pub(crate) mod reel;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use edge::room::{Fetch, OpenError, RoomState, RoomSummary, Source, Subscription};
use edge::{Config, Edge, Timeouts};
use futures_util::future::BoxFuture;
use media::feed::Feed;
use media::manifest::{Epoch, Msn};
use parking_lot::Mutex;
use prometheus::{IntCounterVec, Opts, Registry};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use wire::RoomId;

use client::Client;

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A tenth of what peers have outside of tests.
const QUICK: Timeouts = Timeouts {
    head: Duration::from_millis(500),
    idle: Duration::from_secs(6),
    write: Duration::from_secs(1),
    response: Duration::from_secs(12),
};

/// A running edge.
pub(crate) struct House {
    pub(crate) edge: Edge,
    pub(crate) source: Arc<TestSource>,
    pub(crate) registry: Registry,
    pub(crate) client: Client,
}

impl House {
    /// An edge where guests may watch.
    pub(crate) fn open() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            allow_guests: true,
            timeouts: QUICK,
            ..Config::default()
        };
        change(&mut config);
        let source = Arc::new(TestSource::default());
        let registry = Registry::new();
        let refused =
            IntCounterVec::new(Opts::new("tidewater_refused_total", "R."), &["role", "reason"])
                .unwrap();
        registry.register(Box::new(refused.clone())).unwrap();
        let edge = Edge::start(config, Arc::clone(&source) as _, &registry, &refused).unwrap();
        let client = Client::new(edge.local_addr());
        Self { edge, source, registry, client }
    }

    /// The value of a metric, by its name and labels as they are written.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text =
            prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }

    /// Waits until a metric has reached `value`.
    pub(crate) async fn reaches(&self, name: &str, value: f64) {
        eventually(&format!("{name} reaches {value}"), || self.metric(name) >= value).await;
    }
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}: not in time"));
}

/// Waits for a future that must end.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

pub(crate) fn demo() -> RoomId {
    RoomId::parse("live/demo").unwrap()
}

/// Rooms made by hand.
pub(crate) struct TestSource {
    rooms: Mutex<HashMap<RoomId, (Feed, CancellationToken)>>,
    pub(crate) opened: AtomicUsize,
    /// Subscriptions that live now.
    pub(crate) kept: Arc<AtomicUsize>,
    /// Opening waits for a permit of this.
    pub(crate) gate: Semaphore,
    pub(crate) fetcher: Arc<TestFetch>,
    failure: Mutex<Option<OpenError>>,
    unready: Mutex<Option<String>>,
}

impl Default for TestSource {
    fn default() -> Self {
        Self {
            rooms: Mutex::default(),
            opened: AtomicUsize::new(0),
            kept: Arc::default(),
            // As many as one call can acquire: who takes them all has closed it.
            gate: Semaphore::new(u32::MAX as usize),
            fetcher: Arc::default(),
            failure: Mutex::default(),
            unready: Mutex::default(),
        }
    }
}

impl TestSource {
    /// Makes `room` known with this feed; a feed it had before is retired.
    pub(crate) fn put(&self, room: RoomId, feed: Feed) {
        if let Some((_, retired)) = self.rooms.lock().insert(room, (feed, CancellationToken::new()))
        {
            retired.cancel();
        }
    }

    pub(crate) fn fail_with(&self, error: OpenError) {
        *self.failure.lock() = Some(error);
    }

    pub(crate) fn set_unready(&self, why: &str) {
        *self.unready.lock() = Some(why.to_owned());
    }

    pub(crate) fn remove(&self, room: &RoomId) {
        if let Some((_, retired)) = self.rooms.lock().remove(room) {
            retired.cancel();
        }
    }
}

impl Source for TestSource {
    fn open<'a>(&'a self, room: &'a RoomId) -> BoxFuture<'a, Result<Subscription, OpenError>> {
        Box::pin(async move {
            self.opened.fetch_add(1, Ordering::SeqCst);
            let _permit = self.gate.acquire().await.unwrap();
            if let Some(error) = self.failure.lock().clone() {
                return Err(error);
            }
            let (feed, retired) = self.rooms.lock().get(room).cloned().ok_or(OpenError::Unknown)?;
            self.kept.fetch_add(1, Ordering::SeqCst);
            let keep = Kept(Arc::clone(&self.kept));
            Ok(Subscription {
                viewers: tokio::sync::watch::Sender::new(0),
                feed,
                fetch: Arc::clone(&self.fetcher) as _,
                retired,
                keep: Box::new(keep),
            })
        })
    }

    fn unready(&self) -> Option<String> {
        self.unready.lock().clone()
    }

    fn list(&self) -> Vec<RoomSummary> {
        let rooms = self.rooms.lock();
        rooms
            .iter()
            .map(|(room, (feed, _))| RoomSummary {
                room: room.clone(),
                state: RoomState::from(feed.manifest().status()),
                viewers: None,
            })
            .collect()
    }
}

struct Kept(Arc<AtomicUsize>);

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

type OnFetch = Box<dyn Fn(Epoch, Msn) -> bool + Send>;

/// Counts fetches, and does what it was told to.
#[derive(Default)]
pub(crate) struct TestFetch {
    pub(crate) fetches: AtomicUsize,
    on_fetch: Mutex<Option<OnFetch>>,
}

impl TestFetch {
    pub(crate) fn on_fetch(&self, does: impl Fn(Epoch, Msn) -> bool + Send + 'static) {
        *self.on_fetch.lock() = Some(Box::new(does));
    }
}

impl Fetch for TestFetch {
    fn fetch(&self, epoch: Epoch, msn: Msn) -> BoxFuture<'static, bool> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        let got = self.on_fetch.lock().as_ref().is_some_and(|does| does(epoch, msn));
        Box::pin(async move { got })
    }
}
