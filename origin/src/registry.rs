//! The rooms this node is the home of, and how one becomes such.
//!
//! In: demand for a room, from a push. Out: the running [`Room`], claimed from the control plane
//! first. Activation of a room is single-flight; no lock of the table is held across an await.

use std::sync::Arc;
use std::time::Duration;

use cluster::{Client, Grant};
use dashmap::DashMap;
use parking_lot::Mutex;
use rand::Rng;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};
use wire::{NodeId, RoomId};

use crate::room::{Config, Metrics, Room};
use crate::rtmp::Refusal;

/// How long a push is held while placement is settling.
const PLACEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// The first pause between two tries to place a room; doubles, each drawn from half to all.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// What a node can be asked about a room.
#[derive(Debug)]
pub(crate) struct Registry {
    node: NodeId,
    client: Client,
    config: Config,
    max_rooms: usize,
    metrics: Arc<Metrics>,
    slots: DashMap<RoomId, Arc<Slot>>,
}

/// A room's place in the table: the room, and the gate that makes its activation single-flight.
#[derive(Debug, Default)]
struct Slot {
    gate: tokio::sync::Mutex<()>,
    room: Mutex<Option<Arc<Room>>>,
}

/// Where a room turned out to live.
#[derive(Debug)]
pub(crate) enum Place {
    /// Here.
    Here(Arc<Room>),
    /// On another node.
    There(Grant),
}

impl Registry {
    pub(crate) fn new(
        node: NodeId,
        client: Client,
        config: Config,
        max_rooms: usize,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self { node, client, config, max_rooms, metrics, slots: DashMap::new() })
    }

    /// The room, if this node is its home now.
    pub(crate) fn get(&self, room: &RoomId) -> Option<Arc<Room>> {
        let slot = Arc::clone(&*self.slots.get(room)?);
        let found = slot.room.lock().clone();
        found.filter(|room| !room.closed().is_cancelled())
    }

    /// Every room this node is the home of.
    pub(crate) fn rooms(&self) -> Vec<Arc<Room>> {
        let slots: Vec<_> = self.slots.iter().map(|slot| Arc::clone(&slot)).collect();
        let open = |slot: Arc<Slot>| slot.room.lock().clone();
        slots.into_iter().filter_map(open).filter(|r| !r.closed().is_cancelled()).collect()
    }

    /// Finds or makes the room's home for a push that arrived here.
    ///
    /// # Errors
    /// The refusal to tell the publisher, after [`PLACEMENT_TIMEOUT`] at most.
    pub(crate) async fn activate(self: &Arc<Self>, room: &RoomId) -> Result<Place, Refusal> {
        if !self.slots.contains_key(room) && self.slots.len() >= self.max_rooms {
            return Err(Refusal::unavailable(
                "this node holds all the rooms it may; push to another",
            ));
        }
        let slot = Arc::clone(&*self.slots.entry(room.clone()).or_default());
        let _turn = slot.gate.lock().await;
        if !self.slots.get(room).is_some_and(|known| Arc::ptr_eq(&known, &slot)) {
            // It left the table while this push waited for its turn: start over with its successor.
            return Box::pin(self.activate(room)).await;
        }
        let current = slot.room.lock().clone();
        if let Some(current) = current {
            if !current.is_over() {
                return Ok(Place::Here(current));
            }
            // The stream is over: a new one needs an epoch and numbers of its own.
            current.close().await;
            self.give_back(&current).await;
        }
        let placed = self.place(room).await;
        let grant = match placed {
            Ok(grant) if grant.home == self.node => grant,
            other => {
                self.slots.remove_if(room, |_, known| Arc::ptr_eq(known, &slot));
                return other.map(Place::There);
            }
        };
        info!(%room, epoch = %grant.epoch, msn_base = grant.msn_base, "home of the room");
        let opened = Room::start(grant, &self.config, &self.metrics);
        *slot.room.lock() = Some(Arc::clone(&opened));
        tokio::spawn(Arc::clone(self).watch_over(Arc::clone(&slot), Arc::clone(&opened)));
        Ok(Place::Here(opened))
    }

    /// Claims the room, trying again for as long as a push is held.
    async fn place(&self, room: &RoomId) -> Result<Grant, Refusal> {
        let give_up = Instant::now() + PLACEMENT_TIMEOUT;
        let mut pause = FIRST_PAUSE;
        loop {
            match tokio::time::timeout_at(give_up, self.claim_anew(room)).await {
                Ok(Ok(grant)) => return Ok(grant),
                Ok(Err(error)) if error.is_retryable() && Instant::now() + pause < give_up => {
                    debug!(%room, %error, "cannot place the room yet");
                    let half = pause / 2;
                    let jitter = rand::rng().random_range(Duration::ZERO..=half);
                    sleep(half + jitter).await;
                    pause *= 2;
                }
                Ok(Err(error)) => {
                    warn!(%room, %error, "the room cannot be placed");
                    return Err(unplaced(room));
                }
                Err(_) => {
                    warn!(%room, "the control plane did not answer in time");
                    return Err(unplaced(room));
                }
            }
        }
    }

    /// Claims the room. A grant left from before a restart of this node is given back first: its
    /// epoch names media that is gone, and no URL may name two contents.
    async fn claim_anew(&self, room: &RoomId) -> Result<Grant, cluster::Error> {
        let placed = self.client.locate(room).await?.placement;
        if let Some(stale) = placed.filter(|grant| grant.home == self.node) {
            info!(%room, epoch = %stale.epoch, "giving back a grant from before a restart");
            self.client.release(room, stale.epoch).await?;
        }
        self.client.claim(room, &self.node).await
    }

    /// Waits for the room to close by itself, then gives its placement back.
    async fn watch_over(self: Arc<Self>, slot: Arc<Slot>, room: Arc<Room>) {
        room.closed().cancelled().await;
        let _turn = slot.gate.lock().await;
        let is_current = slot.room.lock().as_ref().is_some_and(|r| Arc::ptr_eq(r, &room));
        if !is_current {
            return;
        }
        self.give_back(&room).await;
        slot.room.lock().take();
        self.slots.remove_if(room.id(), |_, known| Arc::ptr_eq(known, &slot));
    }

    async fn give_back(&self, room: &Room) {
        let next_msn = room.feed().said().last().map_or(0, |last| last.open.msn.0 + 1);
        let released = self.client.release_at(room.id(), room.epoch(), next_msn).await;
        if let Err(error) = released {
            // It stays placed here; the next push gives it back before it claims.
            warn!(room = %room.id(), %error, "the room's placement was not given back");
        }
    }

    /// Ends every push, for a shutdown: publishers are told to come again elsewhere.
    pub(crate) async fn leave(&self) {
        for room in self.rooms() {
            room.stop(Refusal::shutting_down()).await;
        }
    }
}

fn unplaced(room: &RoomId) -> Refusal {
    Refusal::unavailable(format!("{room} cannot be placed now; push again in a moment"))
}
