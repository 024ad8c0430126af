//! What waits for the writer, and in what portions it is taken.
//!
//! In: asks, from the service and from this process. Out: batches for one transaction each. Two
//! bounded queues, so that no flood of events makes a gift wait or be refused: gifts, marks and
//! take-overs first, as many as there are, then at most [`MAX_EVENTS`] events. A full queue refuses;
//! the client drops events that are refused, and counts them.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use wire::NodeId;
use wire::events::{Answer, Ask, Event, Refusal};

/// Gifts, marks and take-overs that wait for the writer; a further one is refused as unavailable.
pub(crate) const LEDGER_QUEUE: usize = 4096;
/// Batches of events that wait for the writer; a further one is refused as unavailable.
pub(crate) const EVENTS_QUEUE: usize = 64;
/// Most asks of one transaction, besides events.
const MAX_LEDGER: usize = 1024;
/// Most events of one transaction: some ten milliseconds of writing.
const MAX_EVENTS: usize = 1024;

/// An ask and whoever waits for its answer.
pub(crate) struct Job {
    /// The node that asks.
    pub(crate) from: NodeId,
    pub(crate) ask: Ask,
    pub(crate) reply: oneshot::Sender<Result<Answer, Refusal>>,
}

/// The sending side.
#[derive(Clone)]
pub(crate) struct Counter {
    pub(crate) ledger: mpsc::Sender<Job>,
    pub(crate) events: mpsc::Sender<Job>,
}

/// The writer's side.
pub(crate) struct Intake {
    ledger: mpsc::Receiver<Job>,
    events: mpsc::Receiver<Job>,
    /// Batches of events taken off the queue that did not fit into the last transaction.
    kept_back: VecDeque<Job>,
}

/// What goes into one transaction.
#[derive(Default)]
pub(crate) struct Batch {
    /// Gifts, marks and take-overs in the order in which they came.
    pub(crate) ledger: Vec<Job>,
    /// Batches of events.
    pub(crate) events: Vec<Job>,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.ledger.is_empty() && self.events.is_empty()
    }

    /// Tells everybody the same refusal.
    pub(crate) fn refuse(self, refusal: &Refusal) {
        for job in self.ledger.into_iter().chain(self.events) {
            // Whoever does not wait any more needs no answer.
            let _ = job.reply.send(Err(refusal.clone()));
        }
    }
}

pub(crate) fn queues() -> (Counter, Intake) {
    let (ledger, ledger_queue) = mpsc::channel(LEDGER_QUEUE);
    let (events, events_queue) = mpsc::channel(EVENTS_QUEUE);
    let intake = Intake { ledger: ledger_queue, events: events_queue, kept_back: VecDeque::new() };
    (Counter { ledger, events }, intake)
}

impl Intake {
    /// Waits for something to write, at most for `patience`; `None` once nobody can ask any more.
    /// Cancel-safe.
    pub(crate) async fn gather(&mut self, patience: Duration) -> Option<Batch> {
        let mut batch = Batch::default();
        if self.kept_back.is_empty() {
            let first = async {
                tokio::select! {
                    biased;
                    job = self.ledger.recv() => (job, true),
                    Some(job) = self.events.recv() => (Some(job), false),
                }
            };
            match timeout(patience, first).await {
                Ok((Some(job), true)) => batch.ledger.push(job),
                Ok((Some(job), false)) => self.kept_back.push_back(job),
                Ok((None, _)) => return None,
                Err(_) => return Some(batch),
            }
        }
        while batch.ledger.len() < MAX_LEDGER
            && let Ok(job) = self.ledger.try_recv()
        {
            batch.ledger.push(job);
        }
        let mut events = 0;
        while let Some(job) = self.kept_back.pop_front().or_else(|| self.events.try_recv().ok()) {
            let count = kept(&job).len();
            if events > 0 && events + count > MAX_EVENTS {
                self.kept_back.push_front(job);
                break;
            }
            events += count;
            batch.events.push(job);
        }
        Some(batch)
    }

    /// How many asks wait.
    pub(crate) fn depth(&self) -> usize {
        self.ledger.len() + self.events.len() + self.kept_back.len()
    }
}

/// The events of a job in the events queue.
pub(crate) fn kept(job: &Job) -> &[Event] {
    match &job.ask {
        Ask::Keep(events) => events,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use wire::events::{Detail, EventKind, Id, Whence};

    use super::*;

    fn job(ask: Ask) -> (Job, oneshot::Receiver<Result<Answer, Refusal>>) {
        let (reply, answer) = oneshot::channel();
        (Job { from: NodeId::new("e1").unwrap(), ask, reply }, answer)
    }

    fn events(count: usize) -> Ask {
        let event = Event {
            kind: EventKind::JOIN,
            at_unix_ms: 0,
            room: None,
            user: Id::default(),
            whence: Whence::default(),
            detail: Detail::default(),
        };
        Ask::Keep(vec![event; count])
    }

    #[tokio::test]
    async fn gifts_go_first_and_events_in_portions() {
        let (counter, mut intake) = queues();
        for _ in 0..6 {
            counter.events.try_send(job(events(250)).0).ok().unwrap();
        }
        for _ in 0..MAX_LEDGER + 1 {
            counter.ledger.try_send(job(Ask::Mark(vec![])).0).ok().unwrap();
        }
        let batch = intake.gather(Duration::from_secs(9)).await.unwrap();
        assert_eq!((batch.ledger.len(), batch.events.len()), (MAX_LEDGER, 4));
        let batch = intake.gather(Duration::from_secs(9)).await.unwrap();
        assert_eq!((batch.ledger.len(), batch.events.len()), (1, 2));
        assert_eq!(intake.depth(), 0);
        assert!(intake.gather(Duration::ZERO).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_an_end_is_noticed() {
        let (counter, mut intake) = queues();
        for _ in 0..EVENTS_QUEUE {
            counter.events.try_send(job(events(1)).0).ok().unwrap();
        }
        assert!(counter.events.try_send(job(events(1)).0).is_err());
        assert!(counter.ledger.try_send(job(Ask::Mark(vec![])).0).is_ok());
        drop(counter);
        assert_eq!(intake.gather(Duration::ZERO).await.unwrap().events.len(), EVENTS_QUEUE);
        assert!(intake.gather(Duration::from_secs(9)).await.is_none());
    }
}
