//! One stream to a keeper, with any number of asks on their way.
//!
//! In: asks. Out: their answers in whatever order they come. One task writes, one reads; when either
//! ends all who wait learn that their answer is lost, and the owner opens another pipe.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;
use wire::events::{Answer, Ask, MAX_ANSWER_BYTES, MAX_IN_FLIGHT, Refusal, Request, Response};
use wire::{Links, NodeId, Receiver, Sender, StreamKind};

/// Asks that wait to be written; a further one waits with its sender.
const OUTBOX: usize = MAX_IN_FLIGHT;

/// A stream to a keeper. Dropped, it ends.
pub(super) struct Pipe {
    outbox: mpsc::Sender<Request>,
    waiting: Arc<Waiting>,
    next: AtomicU64,
    _tasks: [AbortOnDropHandle<()>; 2],
}

#[derive(Default)]
struct Waiting {
    is_closed: AtomicBool,
    asks: Mutex<HashMap<u64, oneshot::Sender<Result<Answer, Refusal>>>>,
}

impl Pipe {
    pub(super) async fn open(
        links: &Links,
        keeper: &NodeId,
        address: SocketAddr,
    ) -> Result<Self, wire::Error> {
        let peer = links.get(keeper, address).await?;
        let (sender, receiver) = peer.open_bi(StreamKind::Events).await?;
        let waiting = Arc::<Waiting>::default();
        let (outbox, inbox) = mpsc::channel(OUTBOX);
        let writing = tokio::spawn(write(sender, inbox, Arc::clone(&waiting)));
        let reading = tokio::spawn(read(receiver, Arc::clone(&waiting)));
        let tasks = [writing, reading].map(AbortOnDropHandle::new);
        Ok(Self { outbox, waiting, next: AtomicU64::new(1), _tasks: tasks })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.waiting.is_closed.load(Ordering::Acquire)
    }

    /// Asks and waits; `None` if the stream ends first. Dropping the future forgets the ask.
    pub(super) async fn ask(&self, ask: Ask) -> Option<Result<Answer, Refusal>> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        self.waiting.asks.lock().insert(id, reply);
        // Taken out again however this ends, so that what nobody waits for is not kept.
        let _forget = Forget { waiting: &self.waiting, id };
        if self.is_closed() {
            return None;
        }
        self.outbox.send(Request { id, ask }).await.ok()?;
        answer.await.ok()
    }
}

struct Forget<'a> {
    waiting: &'a Waiting,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.waiting.asks.lock().remove(&self.id);
    }
}

impl Waiting {
    /// Tells all who wait that their answers are lost.
    fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.asks.lock().clear();
    }
}

async fn write(mut sender: Sender, mut inbox: mpsc::Receiver<Request>, waiting: Arc<Waiting>) {
    while let Some(request) = inbox.recv().await {
        // Given up while it waited: its sender asks again elsewhere.
        if !waiting.asks.lock().contains_key(&request.id) {
            continue;
        }
        if let Err(error) = sender.write_message(&request).await {
            tracing::debug!(%error, "events stream lost");
            break;
        }
    }
    waiting.close();
}

async fn read(mut receiver: Receiver, waiting: Arc<Waiting>) {
    loop {
        match receiver.read_message::<Response>(MAX_ANSWER_BYTES).await {
            Ok(Some(Response { id, answer })) => {
                if let Some(reply) = waiting.asks.lock().remove(&id) {
                    // Whoever does not wait any more needs no answer.
                    let _ = reply.send(answer);
                }
            }
            Ok(None) => break,
            Err(error) => {
                tracing::debug!(%error, "events stream lost");
                break;
            }
        }
    }
    waiting.close();
}
