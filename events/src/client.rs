//! The handle of every role on the ledger, wherever that is kept.
//!
//! In: gifts, marks, batches of events, queries. Out: answers of the node that keeps the store, in this
//! process or over the cluster's QUIC. Retries live here and nowhere else: jittered, within a deadline,
//! at the next keeper if there are several. Safe, because every ask may be put twice.
//!
//! Does not decide who keeps the store: [`ClientConfig`] says so.

mod pipe;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::Rng as _;
use tokio::time::{Instant, sleep, timeout_at};
use wire::events::{
    Answer, Ask, Cursor, Event, Gift, GiftRow, Id, MAX_BATCH, Mark, Record, Refusal, Span, Totals,
};
use wire::{Epoch, Links, NodeId, RoomId};

use self::pipe::Pipe;
use crate::metrics::Metrics;
use crate::store::{RETRY_MS, Store};

/// How long a gift or a mark is tried before the sender is told to come again.
const LEDGER_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a query may take: it reads many rows.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one attempt may take before the ask is put again.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
/// The first pause between attempts; doubles up to [`MAX_PAUSE`], each drawn from half to all.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// See [`FIRST_PAUSE`].
const MAX_PAUSE: Duration = Duration::from_millis(400);

/// Finds the address of a node.
pub type Directory = Arc<dyn Fn(&NodeId) -> Option<SocketAddr> + Send + Sync>;

/// What a client needs to know.
#[derive(Clone)]
pub struct ClientConfig {
    /// This node.
    pub node: NodeId,
    /// The nodes that keep the store: one with SQLite, any of several with PostgreSQL.
    pub keepers: Vec<NodeId>,
    /// The store in this process, if this node is a keeper: it is asked first.
    pub local: Option<Store>,
    /// Where nodes are.
    pub directory: Directory,
}

/// A handle on the ledger. Clones are the same handle.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    config: ClientConfig,
    links: Links,
    metrics: Metrics,
    /// The open stream to each keeper.
    pipes: Vec<tokio::sync::Mutex<Option<Arc<Pipe>>>>,
    /// Which keeper is asked; moves on when it fails.
    turn: AtomicUsize,
    last_failure: Mutex<String>,
}

/// A gift that is in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Its row, as it was first committed.
    pub row: GiftRow,
    /// Whether it was there before.
    pub is_repeat: bool,
}

impl Client {
    /// A handle for this node.
    #[must_use]
    pub fn new(config: ClientConfig, links: Links, metrics: Metrics) -> Self {
        let pipes = config.keepers.iter().map(|_| tokio::sync::Mutex::default()).collect();
        let turn = AtomicUsize::new(0);
        let last_failure = Mutex::default();
        Self { shared: Arc::new(Shared { config, links, metrics, pipes, turn, last_failure }) }
    }

    /// Writes a gift to the ledger, or finds it there. Returns after the commit has reached the disk.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`]: it may or may not be there; the same gift may be committed again.
    /// [`Refusal::Stale`], [`Refusal::OrderUsed`], [`Refusal::Invalid`] for good.
    pub async fn commit(&self, gift: Gift) -> Result<Committed, Refusal> {
        match self.ask(Ask::Commit(gift), LEDGER_TIMEOUT).await? {
            Answer::Gift { row, is_repeat } => Ok(Committed { row: *row, is_repeat }),
            _ => Err(unexpected()),
        }
    }

    /// A gift that is in the ledger, by what names it for [`wire::events::REPEAT_WINDOW_MS`].
    ///
    /// # Errors
    /// [`Refusal::Unavailable`].
    pub async fn find(
        &self,
        room: &RoomId,
        user: Id,
        client_id: Id,
    ) -> Result<Option<GiftRow>, Refusal> {
        let ask = Ask::Find { room: room.clone(), user, client_id };
        match self.ask(ask, LEDGER_TIMEOUT).await? {
            Answer::Rows(rows) => Ok(rows.into_iter().next()),
            _ => Err(unexpected()),
        }
    }

    /// Notes the places of gifts. Again changes nothing.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`].
    pub async fn mark(&self, marks: &[Mark]) -> Result<(), Refusal> {
        for some in marks.chunks(MAX_BATCH) {
            self.ask(Ask::Mark(some.to_vec()), LEDGER_TIMEOUT).await?;
        }
        Ok(())
    }

    /// The gifts of a room without a place, after row `after`, for the home under `epoch`. Homes of
    /// earlier epochs commit nothing more.
    ///
    /// # Errors
    /// [`Refusal::Stale`] if a later home has the room; [`Refusal::Unavailable`].
    pub async fn take_over(
        &self,
        room: &RoomId,
        epoch: Epoch,
        after: u64,
        limit: u16,
    ) -> Result<Vec<GiftRow>, Refusal> {
        let ask = Ask::TakeOver { room: room.clone(), epoch, after, limit };
        match self.ask(ask, LEDGER_TIMEOUT).await? {
            Answer::Rows(rows) => Ok(rows),
            _ => Err(unexpected()),
        }
    }

    /// Keeps events; at most [`MAX_BATCH`]. Roles use [`crate::Recorder`] instead.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`].
    pub async fn keep(&self, events: Vec<Event>) -> Result<(), Refusal> {
        self.ask(Ask::Keep(events), LEDGER_TIMEOUT).await.map(drop)
    }

    /// A page of gifts and events in the order of their times. A page that is not full is the last.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`], [`Refusal::Invalid`].
    pub async fn export(
        &self,
        span: &Span,
        after: Option<Cursor>,
        limit: u16,
    ) -> Result<Vec<Record>, Refusal> {
        let ask = Ask::Export { span: span.clone(), after, limit };
        match self.ask(ask, QUERY_TIMEOUT).await? {
            Answer::Records(records) => Ok(records),
            _ => Err(unexpected()),
        }
    }

    /// What the gifts of a span add up to.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`].
    pub async fn totals(&self, span: &Span) -> Result<Totals, Refusal> {
        match self.ask(Ask::Totals(span.clone()), QUERY_TIMEOUT).await? {
            Answer::Totals(totals) => Ok(*totals),
            _ => Err(unexpected()),
        }
    }

    /// Counts events that nobody keeps.
    pub(crate) fn note_dropped(&self, reason: &'static str, count: usize) {
        self.shared.metrics.dropped.with_label_values(&[reason]).inc_by(count as u64);
    }

    async fn ask(&self, ask: Ask, within: Duration) -> Result<Answer, Refusal> {
        ask.check()?;
        let shared = &self.shared;
        let keepers = shared.config.keepers.len();
        if keepers == 0 {
            return Err(Refusal::unavailable("no node keeps the ledger", RETRY_MS));
        }
        let deadline = Instant::now() + within;
        let mut pause = FIRST_PAUSE;
        loop {
            let turn = shared.turn.load(Ordering::Relaxed);
            let attempt_deadline = deadline.min(Instant::now() + ATTEMPT_TIMEOUT.max(within / 2));
            let attempt = timeout_at(attempt_deadline, shared.attempt(turn, ask.clone())).await;
            let attempt = attempt.unwrap_or_else(|_| Err(Lost("no answer in time".to_owned())));
            let last = match attempt {
                Ok(Err(refusal)) if refusal.is_retryable() => {
                    // It answers, so asking it again at once does not help; the next one may.
                    if keepers == 1 && refusal != Refusal::NotHere {
                        return Err(refusal);
                    }
                    refusal
                }
                Ok(answer) => return answer,
                Err(Lost(why)) => {
                    shared.note_failure(turn, &why);
                    Refusal::unavailable(why, RETRY_MS)
                }
            };
            shared.metrics.attempts_failed.inc();
            // Of several who fail at the same keeper, one moves on.
            let next = turn.wrapping_add(1);
            let _ = shared.turn.compare_exchange(turn, next, Ordering::Relaxed, Ordering::Relaxed);
            if Instant::now() + pause >= deadline {
                return Err(match last {
                    Refusal::NotHere => Refusal::unavailable(last.to_string(), RETRY_MS),
                    other => other,
                });
            }
            let jitter = rand::rng().random_range(Duration::ZERO..=pause / 2);
            sleep(pause / 2 + jitter).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keepers = &self.shared.config.keepers;
        f.debug_struct("Client").field("keepers", keepers).finish_non_exhaustive()
    }
}

/// Why an attempt brought no answer.
struct Lost(String);

impl Shared {
    async fn attempt(&self, turn: usize, ask: Ask) -> Result<Result<Answer, Refusal>, Lost> {
        let at = turn % self.config.keepers.len();
        let keeper = &self.config.keepers[at];
        if let Some(store) = &self.config.local
            && *keeper == self.config.node
        {
            return Ok(store.answer(&self.config.node, ask).await);
        }
        let pipe = self.pipe(at, keeper).await?;
        pipe.ask(ask).await.ok_or_else(|| Lost(format!("lost the connection to {keeper}")))
    }

    async fn pipe(&self, at: usize, keeper: &NodeId) -> Result<Arc<Pipe>, Lost> {
        let mut open = self.pipes[at].lock().await;
        if let Some(pipe) = open.as_ref().filter(|pipe| !pipe.is_closed()) {
            return Ok(Arc::clone(pipe));
        }
        let address = (self.config.directory)(keeper)
            .ok_or_else(|| Lost(format!("{keeper} is not in the cluster")))?;
        let pipe = Pipe::open(&self.links, keeper, address)
            .await
            .map_err(|error| Lost(format!("cannot reach {keeper}: {error}")))?;
        let pipe = Arc::new(pipe);
        *open = Some(Arc::clone(&pipe));
        Ok(pipe)
    }

    fn note_failure(&self, turn: usize, why: &str) {
        let keeper = &self.config.keepers[turn % self.config.keepers.len()];
        let mut last = self.last_failure.lock();
        if *last != why {
            why.clone_into(&mut last);
            tracing::debug!(%keeper, why, "asking the ledger again");
        }
    }
}

fn unexpected() -> Refusal {
    Refusal::Invalid("the ledger answered something else than was asked".to_owned())
}
