//! The keeping side of the ledger and the events: one front for both engines.
//!
//! In: asks of this node and of others. Out: answers; those to gifts after their commit. Behind it run
//! a writer and a reader, of [`crate::sqlite`] or [`crate::postgres`]. Every queue is bounded, every
//! answer is waited for at most [`ANSWER_TIMEOUT`]; past either, the ask is refused as unavailable.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use wire::NodeId;
use wire::events::{Answer, Ask, Gift, GiftRow, REPEAT_WINDOW_MS, Refusal};

use crate::intake::{Batch, Counter, Job, kept, queues};
use crate::metrics::Metrics;
use crate::rows::{StoredGift, unsigned};
use crate::{Error, Server, postgres, sqlite};

/// Exports and sums that wait for the reader; a further one is refused as unavailable.
const QUERIES: usize = 16;
/// How long an answer of the engine is waited for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// When a refused ask may be put again, in milliseconds.
pub(crate) const RETRY_MS: u32 = 1000;
/// How often the writer looks for events that are past their retention.
pub(crate) const PRUNE_EVERY: Duration = Duration::from_secs(600);
/// Most events forgotten in one transaction.
pub(crate) const PRUNE_BATCH: i64 = 2000;
/// How long it is remembered which epoch a room was last taken over under. A home that has heard
/// nothing for longer is none.
const FENCE_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// A store. Clones are the same; the last one dropped closes it.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    /// None once closed.
    queues: RwLock<Option<Queues>>,
    metrics: Metrics,
    engine: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Clone)]
struct Queues {
    counter: Counter,
    queries: mpsc::Sender<Job>,
}

/// What an engine is made with.
pub(crate) struct Context {
    pub(crate) metrics: Metrics,
    /// How long events are kept; zero is for ever. Gifts are.
    pub(crate) retention: Duration,
}

impl Store {
    /// Keeps everything in the SQLite file at `path`, which is made if it is not there. Needs a Tokio
    /// runtime around it.
    ///
    /// # Errors
    /// If the path can never be one. A disk that cannot be written now is no error: gifts are refused
    /// as unavailable until it can.
    pub fn sqlite(path: &Path, retention: Duration, metrics: Metrics) -> Result<Self, Error> {
        metrics.show_store()?;
        let (counter, intake) = queues();
        let (queries, inbox) = mpsc::channel(QUERIES);
        let context = Context { metrics: metrics.clone(), retention };
        let engine = sqlite::start(path, intake, inbox, context)?;
        Ok(Self::new(counter, queries, metrics, engine))
    }

    /// Keeps everything in a PostgreSQL database. Needs a Tokio runtime around it.
    ///
    /// # Errors
    /// If the node keeps a store already: a server that cannot be reached is tried again.
    pub fn postgres(server: Server, retention: Duration, metrics: Metrics) -> Result<Self, Error> {
        metrics.show_store()?;
        let (counter, intake) = queues();
        let (queries, inbox) = mpsc::channel(QUERIES);
        let context = Context { metrics: metrics.clone(), retention };
        let engine = postgres::start(&server, intake, inbox, context);
        Ok(Self::new(counter, queries, metrics, engine))
    }

    fn new(
        counter: Counter,
        queries: mpsc::Sender<Job>,
        metrics: Metrics,
        engine: Vec<JoinHandle<()>>,
    ) -> Self {
        let engine = Mutex::new(engine);
        let queues = RwLock::new(Some(Queues { counter, queries }));
        Self { shared: Arc::new(Shared { queues, metrics, engine }) }
    }

    /// Answers an ask of node `from`.
    ///
    /// # Errors
    /// The refusal to tell it.
    pub async fn answer(&self, from: &NodeId, ask: Ask) -> Result<Answer, Refusal> {
        let is_gift = matches!(ask, Ask::Commit(_));
        let answer = self.ask_engine(from, ask).await;
        if is_gift {
            let outcome = match &answer {
                Ok(Answer::Gift { is_repeat: true, .. }) => "repeated",
                Ok(_) => "committed",
                Err(refusal) if refusal.is_retryable() => "unavailable",
                Err(Refusal::Stale { .. }) => "stale",
                Err(_) => "refused",
            };
            self.shared.metrics.gifts.with_label_values(&[outcome]).inc();
        }
        answer
    }

    async fn ask_engine(&self, from: &NodeId, ask: Ask) -> Result<Answer, Refusal> {
        ask.check()?;
        let closing = || Refusal::unavailable("the store is closing", RETRY_MS);
        let queues = self.shared.queues.read().clone().ok_or_else(closing)?;
        let queue = match &ask {
            Ask::Export { .. } | Ask::Totals(_) => queues.queries,
            Ask::Keep(_) => queues.counter.events,
            _ => queues.counter.ledger,
        };
        let (reply, answer) = oneshot::channel();
        let job = Job { from: from.clone(), ask, reply };
        queue.try_send(job).map_err(|_| Refusal::unavailable("too much is waiting", RETRY_MS))?;
        // Held on, it would keep the engine of a closed store alive.
        drop(queue);
        match timeout(ANSWER_TIMEOUT, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(closing()),
            Err(_) => Err(Refusal::unavailable("the store does not answer in time", RETRY_MS)),
        }
    }

    /// Finishes what waits and closes. Other clones get refusals from then on.
    pub async fn close(self) {
        let engine = std::mem::take(&mut *self.shared.engine.lock());
        *self.shared.queues.write() = None;
        for task in engine {
            // An error is a panic, which has been reported where it happened.
            let _ = task.await;
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Context {
    /// Events from before this time are forgotten.
    pub(crate) fn events_since_ms(&self) -> Option<i64> {
        (!self.retention.is_zero()).then(|| before(self.retention))
    }

    /// Fences from before this time are forgotten.
    pub(crate) fn fences_since_ms() -> i64 {
        before(FENCE_LIFE)
    }

    /// Counts what a transaction has written.
    pub(crate) fn note_commit(&self, batch: &Batch) {
        self.metrics.up.set(1);
        if !batch.ledger.is_empty() {
            self.metrics.batch.observe(batch.ledger.len() as f64);
        }
        for event in batch.events.iter().flat_map(kept) {
            self.metrics.kept.with_label_values(&[event.kind.name()]).inc();
        }
    }
}

/// Whether a gift of the same key is the same gift: it is younger than the window, or the clock has
/// gone back since.
pub(crate) fn is_same(found: &StoredGift, now_ms: i64) -> bool {
    unsigned(now_ms) < found.row.at_unix_ms.saturating_add(REPEAT_WINDOW_MS)
}

/// The answer to a gift that was not there before.
pub(crate) fn taken(id: i64, gift: &Gift, now_ms: i64) -> Answer {
    let row = GiftRow {
        id: unsigned(id),
        at_unix_ms: unsigned(now_ms),
        gift: gift.clone(),
        position: None,
    };
    Answer::Gift { row: Box::new(row), is_repeat: false }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn unix_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

fn before(span: Duration) -> i64 {
    unix_ms().saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX))
}
