//! Takes events from all roles, without ever making one wait.
//!
//! In: events, one at a time. Out: batches to the ledger's node. What does not fit into the queue is
//! dropped, and so is a batch that could not be delivered for [`PATIENCE`]; both are counted. Gifts do
//! not come this way.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use wire::events::{Event, MAX_BATCH};

use crate::Client;

/// Events that wait to be sent; a further one is dropped and counted.
const QUEUE: usize = 8192;
/// How long the first event of a batch waits for others.
const LINGER: Duration = Duration::from_millis(250);
/// How long a batch is tried before it is dropped and counted.
const PATIENCE: Duration = Duration::from_secs(30);
/// The pause after a failed try.
const PAUSE: Duration = Duration::from_millis(500);
/// How long the last events may take at a shutdown.
const FLUSH: Duration = Duration::from_secs(2);

/// Where events go in. Clones are the same.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Event>,
    client: Client,
}

/// The sending behind a [`Recorder`].
#[derive(Debug)]
pub struct Sending {
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Recorder {
    /// Sends events through `client`.
    #[must_use]
    pub fn new(client: Client) -> (Self, Sending) {
        let (queue, inbox) = mpsc::channel(QUEUE);
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(client.clone(), inbox, stop.clone()));
        (Self { queue, client }, Sending { task, stop })
    }

    /// Keeps an event if there is room for it; never waits.
    pub fn emit(&self, event: Event) {
        if self.queue.try_send(event).is_err() {
            self.client.note_dropped("queue_full", 1);
        }
    }
}

impl Sending {
    /// Sends what waits, for [`FLUSH`] at most, and takes nothing more.
    pub async fn finish(mut self) {
        self.stop.cancel();
        if timeout(FLUSH, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

async fn run(client: Client, mut inbox: mpsc::Receiver<Event>, stop: CancellationToken) {
    loop {
        let first = tokio::select! {
            biased;
            // What is in the queue still comes out of it.
            () = stop.cancelled(), if !inbox.is_closed() => {
                inbox.close();
                continue;
            }
            first = inbox.recv() => first,
        };
        let Some(first) = first else { return };
        let mut batch = vec![first];
        let full = Instant::now() + LINGER;
        while batch.len() < MAX_BATCH
            && let Ok(Some(event)) = timeout_at(full, inbox.recv()).await
        {
            batch.push(event);
        }
        deliver(&client, batch).await;
    }
}

async fn deliver(client: &Client, batch: Vec<Event>) {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match client.keep(batch.clone()).await {
            Ok(()) => return,
            Err(refusal) if refusal.is_retryable() && Instant::now() < give_up => {
                sleep(PAUSE).await;
            }
            Err(refusal) => {
                tracing::debug!(%refusal, count = batch.len(), "events dropped");
                return client.note_dropped("unavailable", batch.len());
            }
        }
    }
}
