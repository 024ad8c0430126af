//! Delivers notifications: in order, one at a time, each a few times.
//!
//! In: the queue behind [`crate::Hooks::notify`]. Out: requests. A back-end that is away holds the queue up
//! for as long as one event is tried; what does not fit meanwhile is dropped and counted where it comes in.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::{Error, Event, Shared, now_s};

/// How often one event is tried.
const ATTEMPTS: u32 = 5;
/// The pause after the first failure; doubles, each drawn from half to all of it.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

pub(crate) async fn run(shared: Arc<Shared>, mut inbox: mpsc::Receiver<Event>) {
    while let Some(event) = inbox.recv().await {
        deliver(&shared, &event).await;
    }
}

async fn deliver(shared: &Shared, event: &Event) {
    for attempt in 0..ATTEMPTS {
        match once(shared, event).await {
            Ok(()) => return shared.metrics.delivered(event.kind, "delivered"),
            Err(error) => {
                shared.metrics.delivered(event.kind, "failed");
                tracing::debug!(event = event.kind.name(), attempt, %error, "webhook not delivered");
                // What is refused for good is refused the next time too.
                if matches!(error, Error::Status(400..=499)) {
                    break;
                }
            }
        }
        if attempt + 1 < ATTEMPTS {
            let half = FIRST_PAUSE * 2_u32.pow(attempt) / 2;
            let jitter = rand::rng().random_range(Duration::ZERO..=half);
            sleep(half + jitter).await;
        }
    }
    shared.metrics.dropped("retries");
    tracing::warn!(event = event.kind.name(), "the webhook could not be told; given up");
}

async fn once(shared: &Shared, event: &Event) -> Result<(), Error> {
    let sent = timeout(shared.config.timeout, shared.send(event, now_s())).await;
    match sent.unwrap_or(Err(Error::TimedOut))?.status {
        200..=299 => Ok(()),
        status => Err(Error::Status(status)),
    }
}
