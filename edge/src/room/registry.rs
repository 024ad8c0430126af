//! The rooms open on this edge, by name.
//!
//! In: requests for rooms. Out: [`Viewing`]s. The first request opens the room through the source,
//! all others that come meanwhile wait for the same answer; a room nobody has asked for during the
//! grace time is dropped, and its subscription with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use media::manifest::{Manifest, Status};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use wire::{Region, RoomId};

use super::{Offer, OpenError, Room, RoomSummary, Source, Viewing};
use crate::metrics::{Metrics, Protocol};

/// How long the source may take to open a room: as long as a viewer is held.
pub(crate) const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Rooms being opened at once. Over it a request for a further room is answered 503: this many only
/// come from somebody who makes names up.
pub(crate) const MAX_OPENING: usize = 10_000;

/// How long an ended room stays before it is asked for anew: as long as homes keep ended lists.
pub(crate) const ENDED_KEPT: Duration = Duration::from_secs(60);

/// What the registry does each time: evictions, and the figures that are sampled.
const JANITOR_INTERVAL: Duration = Duration::from_secs(1);

/// When to ask again after a time-out or overload.
const RETRY_AFTER: Duration = Duration::from_secs(1);

type Opened = Option<Result<Arc<Room>, OpenError>>;

#[derive(Debug)]
enum Slot {
    Opening(watch::Receiver<Opened>),
    Open(Arc<Room>),
}

/// Handle to the rooms; one per edge.
pub(crate) struct Rooms {
    slots: DashMap<RoomId, Slot>,
    opening: AtomicUsize,
    source: Arc<dyn Source>,
    grace: Duration,
    metrics: Arc<Metrics>,
    drain: CancellationToken,
}

impl Rooms {
    pub(crate) fn new(
        source: Arc<dyn Source>,
        grace: Duration,
        metrics: Arc<Metrics>,
        drain: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            slots: DashMap::new(),
            opening: AtomicUsize::new(0),
            source,
            grace,
            metrics,
            drain,
        })
    }

    /// The room `id`, opened if it is not yet.
    pub(crate) async fn view(self: &Arc<Self>, id: &RoomId) -> Result<Viewing, OpenError> {
        // Taken under the shard's lock, so that the janitor cannot evict in between.
        let known = self.slots.get(id).and_then(|slot| match slot.value() {
            Slot::Open(room) if !room.retired().is_cancelled() => Some(Viewing::new(room)),
            _ => None,
        });
        if let Some(viewing) = known {
            return Ok(viewing);
        }
        let mut opened = self.opening(id)?;
        let result = match opened.wait_for(Option::is_some).await {
            Ok(result) => result.clone(),
            Err(_) => None,
        };
        match result {
            Some(Ok(room)) => Ok(Viewing::new(&room)),
            Some(Err(error)) => Err(error),
            None => Err(OpenError::Unavailable { retry_after: RETRY_AFTER }),
        }
    }

    /// The room `id` if it is open: does not open it.
    pub(crate) fn peek(&self, id: &RoomId) -> Option<Viewing> {
        self.slots.get(id).and_then(|slot| match slot.value() {
            Slot::Open(room) => Some(Viewing::new(room)),
            Slot::Opening(_) => None,
        })
    }

    /// The rooms that are open now.
    pub(crate) fn all_open(&self) -> Vec<Arc<Room>> {
        let open = self.slots.iter().filter_map(|slot| match slot.value() {
            Slot::Open(room) => Some(Arc::clone(room)),
            Slot::Opening(_) => None,
        });
        open.collect()
    }

    pub(crate) fn list(&self) -> Vec<RoomSummary> {
        self.source.list()
    }

    /// The best edges for a viewer.
    pub(crate) fn route(&self, room: &RoomId, region: Option<&Region>) -> Vec<Offer> {
        self.source.route(room, region)
    }

    pub(crate) fn unready(&self) -> Option<String> {
        self.source.unready()
    }

    /// Evicts and samples until `drain` is cancelled.
    pub(crate) async fn tend(self: Arc<Self>) {
        let mut tick = tokio::time::interval(JANITOR_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.drain.run_until_cancelled(tick.tick()).await.is_some() {
            self.sweep(Instant::now());
            self.sample();
        }
    }

    /// The opening of `id`, begun if it is not under way.
    fn opening(self: &Arc<Self>, id: &RoomId) -> Result<watch::Receiver<Opened>, OpenError> {
        let overloaded = self.opening.load(Ordering::Relaxed) >= MAX_OPENING;
        let (told, opened) = watch::channel(None);
        match self.slots.entry(id.clone()) {
            Entry::Occupied(mut slot) => match slot.get() {
                Slot::Opening(under_way) => return Ok(under_way.clone()),
                Slot::Open(room) if !room.retired().is_cancelled() => {
                    told.send_replace(Some(Ok(Arc::clone(room))));
                    return Ok(opened);
                }
                Slot::Open(_) => {
                    slot.insert(Slot::Opening(opened.clone()));
                }
            },
            Entry::Vacant(_) if overloaded => {
                return Err(OpenError::Unavailable { retry_after: RETRY_AFTER });
            }
            Entry::Vacant(slot) => {
                slot.insert(Slot::Opening(opened.clone()));
            }
        }
        self.opening.fetch_add(1, Ordering::Relaxed);
        // Apart from the request, whose viewer may leave while others wait.
        tokio::spawn(Arc::clone(self).open(id.clone(), told));
        Ok(opened)
    }

    async fn open(self: Arc<Self>, id: RoomId, told: watch::Sender<Opened>) {
        let mut guard = OpeningGuard { rooms: &self, id: &id, armed: true };
        let result = match tokio::time::timeout(OPEN_TIMEOUT, self.source.open(&id)).await {
            Ok(Ok(subscription)) => {
                Ok(Arc::new(Room::new(id.clone(), subscription, self.drain.clone())))
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(OpenError::Unavailable { retry_after: RETRY_AFTER }),
        };
        guard.armed = false;
        match &result {
            Ok(room) => {
                tracing::debug!(room = %id, "room opened");
                self.slots.insert(id.clone(), Slot::Open(Arc::clone(room)));
            }
            Err(error) => {
                tracing::debug!(room = %id, %error, "room not opened");
                self.slots.remove(&id);
            }
        }
        told.send_replace(Some(result));
    }

    fn sweep(&self, now: Instant) {
        self.slots.retain(|id, slot| {
            let Slot::Open(room) = slot else { return true };
            let why = if room.retired().is_cancelled() {
                "retired"
            } else if room.idle_for() >= self.grace {
                "nobody watches"
            } else if room.ended_for(now).is_some_and(|since| since >= ENDED_KEPT) {
                "ended"
            } else {
                return true;
            };
            tracing::debug!(room = %id, why, "room closed");
            false
        });
    }

    fn sample(&self) {
        let (mut rooms, mut hls, mut llhls, mut lag) = (0, 0, 0, 0.0_f64);
        let unix_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
        for slot in &self.slots {
            let Slot::Open(room) = slot.value() else { continue };
            rooms += 1;
            room.tell_viewers();
            hls += room.hls_viewers(Protocol::Hls);
            llhls += room.hls_viewers(Protocol::LlHls);
            if let Some(head_ms) = head_unix_ms(&room.feed().manifest()) {
                lag = lag.max(unix_ms.saturating_sub(head_ms) as f64 / 1000.0);
            }
        }
        self.metrics.rooms.set(rooms);
        self.metrics.viewers(Protocol::Hls).set(i64::try_from(hls).unwrap_or(i64::MAX));
        self.metrics.viewers(Protocol::LlHls).set(i64::try_from(llhls).unwrap_or(i64::MAX));
        self.metrics.media_lag_seconds.set(lag);
    }
}

/// The wall time of the end of the newest part, in milliseconds; none unless the stream is live.
fn head_unix_ms(manifest: &Manifest) -> Option<u64> {
    let newest = manifest.segments().iter().rev().find(|s| !s.parts.is_empty())?;
    let ticks: u64 = newest.parts.iter().map(|p| u64::from(p.duration)).sum();
    (manifest.status() == Status::Live).then_some(newest.open.pdt_ms + ticks / 90)
}

/// Counts an opening, and takes its slot away if it panics, so that the room can be asked for again.
struct OpeningGuard<'a> {
    rooms: &'a Rooms,
    id: &'a RoomId,
    armed: bool,
}

impl Drop for OpeningGuard<'_> {
    fn drop(&mut self) {
        self.rooms.opening.fetch_sub(1, Ordering::Relaxed);
        if self.armed {
            self.rooms.slots.remove(self.id);
        }
    }
}
