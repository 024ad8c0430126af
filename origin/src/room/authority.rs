//! Whether this node may still act as the home of its rooms, after it was stopped and resumed.
//!
//! A process that was not running for longer than it takes placement to declare it dead does not know
//! what happened meanwhile: until the leader has confirmed a room's epoch, or does not answer, the
//! room serves nothing. Safety does not rest on it: subscribers that have met a later epoch take
//! nothing from an earlier one. It saves the others from a home that is one no more.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cluster::Client;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};
use wire::{Epoch, RoomId};

/// How often it is noted that the process runs.
const PULSE: Duration = Duration::from_millis(200);

/// Without a note for so long the process was stopped, or its machine was. Less than the lease after
/// which its rooms are placed anew (1.5 s).
const PAUSE: Duration = Duration::from_millis(1_000);

/// How long a leader is waited for: without one the room goes on as it was.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);

/// Tells pauses of the process, and asks the leader after them.
#[derive(Debug)]
pub(crate) struct Authority {
    client: Client,
    started: Instant,
    /// When the process was last known to run, in milliseconds since `started`.
    ran_ms: AtomicU64,
    /// Pauses since the start.
    pauses: watch::Sender<u64>,
}

impl Authority {
    /// Nothing is noted until [`Self::run`] runs.
    pub(crate) fn new(client: Client) -> Self {
        let pauses = watch::Sender::new(0);
        Self { client, started: Instant::now(), ran_ms: AtomicU64::new(0), pauses }
    }

    /// Notes that the process runs, for as long as somebody holds it.
    pub(crate) async fn run(this: std::sync::Weak<Self>) {
        let mut pulse = interval(PULSE);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            pulse.tick().await;
            let Some(this) = this.upgrade() else { return };
            let unnoted = this.unnoted();
            if unnoted > PAUSE {
                info!(
                    stopped_ms = unnoted.as_millis(),
                    "this process was stopped; asking the leader"
                );
                this.pauses.send_modify(|pauses| *pauses += 1);
            }
            let now_ms = u64::try_from(this.started.elapsed().as_millis()).unwrap_or(u64::MAX);
            this.ran_ms.store(now_ms, Ordering::Release);
        }
    }

    /// How long ago the process was last noted to run.
    fn unnoted(&self) -> Duration {
        let ran = Duration::from_millis(self.ran_ms.load(Ordering::Acquire));
        self.started.elapsed().saturating_sub(ran)
    }

    /// Pauses so far.
    pub(crate) fn pauses(&self) -> u64 {
        *self.pauses.borrow()
    }

    /// Wakes at each pause.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.pauses.subscribe()
    }

    /// Whether there was no pause since the one counted in `confirmed`.
    pub(crate) fn is_confirmed(&self, confirmed: &AtomicU64) -> bool {
        self.unnoted() <= PAUSE && confirmed.load(Ordering::Acquire) == self.pauses()
    }

    /// Waits until a pause that has just ended is counted, and returns the count.
    pub(crate) async fn settled(&self) -> u64 {
        while self.unnoted() > PAUSE {
            sleep(PULSE / 4).await;
        }
        self.pauses()
    }

    /// Whether the room is still held under `epoch`, by the leader; true if none answers in time.
    pub(crate) async fn confirm(&self, room: &RoomId, epoch: Epoch) -> bool {
        match timeout(CONFIRM_TIMEOUT, self.client.confirm(room, epoch)).await {
            Ok(Ok(is_held)) => is_held,
            Ok(Err(error)) => {
                warn!(%room, %error, "no leader confirms the room; it goes on here");
                true
            }
            Err(_) => {
                warn!(%room, "no leader confirms the room in time; it goes on here");
                true
            }
        }
    }
}
