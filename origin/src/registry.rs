//! The rooms this node is the home of, how one becomes such, and how it ceases to be.
//!
//! In: demand for a room, from a push or from subscribers of the home before; and what placement says.
//! Out: the running [`Room`], claimed from the control plane first, and with the stream of an earlier
//! home where there was one ([`takeover`]). A room that placement gives to another home is given up at
//! once. Activation of a room is single-flight; no lock of the table is held across an await.

mod takeover;

use std::sync::Arc;
use std::time::Duration;

use cluster::{Client, Grant, RoomWatch};
use dashmap::DashMap;
use parking_lot::Mutex;
use rand::Rng;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use wire::{Epoch, NodeId, RoomId};

pub(crate) use self::takeover::Candidate;
use self::takeover::{Candidates, Inheritance};
use crate::room::{Authority, Config, Metrics, Room};
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
    authority: Arc<Authority>,
    /// The node shuts down: rooms that close keep their placement.
    leaving: CancellationToken,
    slots: DashMap<RoomId, Arc<Slot>>,
}

/// A room's place in the table: the room, and the gate that makes its activation single-flight.
#[derive(Debug, Default)]
struct Slot {
    gate: tokio::sync::Mutex<()>,
    room: Mutex<Option<Arc<Room>>>,
    /// The newest epoch under which the room was open here. It is not opened under it again, because
    /// what was made of its names is gone.
    spent: Mutex<Epoch>,
    /// Subscribers of an earlier home that have come here.
    candidates: Candidates,
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
        let authority = Arc::new(Authority::new(client.clone()));
        tokio::spawn(Authority::run(Arc::downgrade(&authority)));
        let (leaving, slots) = (CancellationToken::new(), DashMap::new());
        Arc::new(Self { node, client, config, max_rooms, metrics, authority, leaving, slots })
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

    /// Whether a leader answered within the last lease.
    pub(crate) fn sees_leader(&self) -> bool {
        self.client.standing().borrow().sees_leader
    }

    /// Follows where the room is.
    pub(crate) fn watch(&self, room: &RoomId) -> RoomWatch {
        self.client.watch_room(room)
    }

    /// Finds the room for a subscriber, which may have the stream of an earlier home: if placement has
    /// made this node the home, the room is opened on it. The error says who is the home, if anyone
    /// is.
    ///
    /// # Errors
    /// The grant of another home, or none.
    pub(crate) async fn adopt(
        self: &Arc<Self>,
        room: &RoomId,
        candidate: Option<Candidate>,
    ) -> Result<Arc<Room>, Option<Grant>> {
        if let Some(room) = self.get(room) {
            return Ok(room);
        }
        let location = self.client.locate(room).await.map_err(|_| None)?;
        match location.placement {
            Some(grant) if grant.home == self.node => {}
            elsewhere => return Err(elsewhere),
        }
        let slot = self.slot(room).map_err(|_| None)?;
        if let Some(candidate) = candidate {
            slot.candidates.add(candidate);
        }
        match self.activate(room, None).await {
            Ok(Place::Here(room)) => Ok(room),
            Ok(Place::There(grant)) => Err(Some(grant)),
            Err(_) => Err(None),
        }
    }

    /// Finds the room for its members, or opens it for them if it is nowhere and they may.
    ///
    /// # Errors
    /// When it cannot be had now.
    pub(crate) async fn open(
        self: &Arc<Self>,
        room: &RoomId,
        may_open: bool,
    ) -> Result<Option<Place>, Refusal> {
        match self.adopt(room, None).await {
            Ok(room) => Ok(Some(Place::Here(room))),
            Err(Some(grant)) if grant.home != self.node => Ok(Some(Place::There(grant))),
            Err(_) if may_open => self.activate(room, Some(&self.node)).await.map(Some),
            Err(_) => Ok(None),
        }
    }

    fn slot(&self, room: &RoomId) -> Result<Arc<Slot>, Refusal> {
        if !self.slots.contains_key(room) && self.slots.len() >= self.max_rooms {
            return Err(Refusal::unavailable(
                "this node holds all the rooms it may; push to another",
            ));
        }
        Ok(Arc::clone(&*self.slots.entry(room.clone()).or_default()))
    }

    /// Finds or makes the room's home for a push that arrived at `ingest`; without one, only takes a
    /// room that placement has given to this node.
    ///
    /// # Errors
    /// The refusal to tell the publisher, after [`PLACEMENT_TIMEOUT`] at most.
    pub(crate) async fn activate(
        self: &Arc<Self>,
        room: &RoomId,
        ingest: Option<&NodeId>,
    ) -> Result<Place, Refusal> {
        let slot = self.slot(room)?;
        let _turn = slot.gate.lock().await;
        if !self.slots.get(room).is_some_and(|known| Arc::ptr_eq(&known, &slot)) {
            // It left the table while this push waited for its turn: start over with its successor.
            return Box::pin(self.activate(room, ingest)).await;
        }
        let current = slot.room.lock().clone();
        if let Some(current) = current {
            if !current.is_over() {
                return Ok(Place::Here(current));
            }
            // The stream is over: a new one needs an epoch and numbers of its own. A room that was
            // given up to another home is that one's.
            if !current.closed().is_cancelled() {
                current.close().await;
                self.give_back(&current).await;
            }
        }
        let spent = *slot.spent.lock();
        let placed = self.place(room, ingest, spent).await;
        let grant = match placed {
            Ok(grant) if grant.home == self.node => grant,
            other => {
                // What is spent must be remembered as long as it may come back.
                if other.is_ok() || spent == Epoch(0) {
                    self.slots.remove_if(room, |_, known| Arc::ptr_eq(known, &slot));
                }
                return other.map(Place::There);
            }
        };
        // The first grant of an activation has no past; later ones are of a room that has moved, or
        // that this node had before it was started anew.
        let is_first = grant.epoch.0 == grant.generation;
        let inherited = if is_first {
            Inheritance::default()
        } else {
            takeover::settle(room, &slot.candidates).await
        };
        let past = inherited.past.as_ref();
        info!(
            %room, epoch = %grant.epoch, msn_base = grant.msn_base, inherits = past.is_some(),
            "home of the room"
        );
        *slot.spent.lock() = grant.epoch;
        let authority = Arc::clone(&self.authority);
        let opened = Room::start(grant, past, &self.config, &self.metrics, authority);
        *slot.room.lock() = Some(Arc::clone(&opened));
        tokio::spawn(inherited.bring(Arc::clone(&opened)));
        tokio::spawn(Arc::clone(self).watch_over(Arc::clone(&slot), Arc::clone(&opened)));
        Ok(Place::Here(opened))
    }

    /// Claims the room, trying again for as long as a push is held.
    async fn place(
        &self,
        room: &RoomId,
        ingest: Option<&NodeId>,
        spent: Epoch,
    ) -> Result<Grant, Refusal> {
        let give_up = Instant::now() + PLACEMENT_TIMEOUT;
        let mut pause = FIRST_PAUSE;
        loop {
            match tokio::time::timeout_at(give_up, self.claim_anew(room, ingest, spent)).await {
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

    /// Claims the room: by a claim, the leader says what holds now. A grant under an epoch that is spent
    /// is given back first: no URL may name two contents.
    async fn claim_anew(
        &self,
        room: &RoomId,
        ingest: Option<&NodeId>,
        spent: Epoch,
    ) -> Result<Grant, cluster::Error> {
        let Some(ingest) = ingest else {
            let placed = self.client.locate(room).await?.placement;
            let unknown = || wire::control::Refusal::UnknownRoom(room.clone());
            let grant = placed.filter(|grant| grant.epoch > spent).ok_or_else(unknown)?;
            let is_held = self.client.confirm(room, grant.epoch).await?;
            return if is_held { Ok(grant) } else { Err(unknown().into()) };
        };
        let grant = self.client.claim(room, ingest).await?;
        if grant.home != self.node || grant.epoch > spent {
            return Ok(grant);
        }
        info!(%room, epoch = %grant.epoch, "giving back a grant that is spent");
        self.client.release(room, grant.epoch).await?;
        self.client.claim(room, ingest).await
    }

    /// Waits for the room to close by itself, then gives its placement back; or for another home to be
    /// named, then gives the room up.
    async fn watch_over(self: Arc<Self>, slot: Arc<Slot>, room: Arc<Room>) {
        let mut watch = self.watch(room.id());
        let fenced = async {
            loop {
                let placement = watch.changed().await.placement;
                if placement.is_some_and(|grant| grant.epoch > room.epoch()) {
                    return;
                }
            }
        };
        tokio::select! {
            () = room.closed().cancelled() => {}
            () = fenced => room.fence().await,
        }
        let _turn = slot.gate.lock().await;
        let is_current = slot.room.lock().as_ref().is_some_and(|r| Arc::ptr_eq(r, &room));
        if !is_current {
            return;
        }
        slot.room.lock().take();
        if !self.leaving.is_cancelled() && !self.give_back(&room).await {
            return;
        }
        self.slots.remove_if(room.id(), |_, known| Arc::ptr_eq(known, &slot));
    }

    /// Returns whether the room is placed here no more.
    async fn give_back(&self, room: &Room) -> bool {
        let next_msn = room.feed().said().last().map_or(0, |last| last.open.msn.0 + 1);
        let released = self.client.release_at(room.id(), room.epoch(), next_msn).await;
        if let Err(cluster::Error::Refused(wire::control::Refusal::StaleEpoch { .. })) = released {
            debug!(room = %room.id(), "the room has another home");
            true
        } else if let Err(error) = released {
            // It stays placed here; the next push gives it back before it claims.
            warn!(room = %room.id(), %error, "the room's placement was not given back");
            false
        } else {
            true
        }
    }

    /// Gives every room up, for a shutdown: their streams are not over, and go on where placement puts
    /// them.
    pub(crate) async fn leave(&self) {
        self.leaving.cancel();
        for room in self.rooms() {
            room.fence().await;
        }
    }
}

fn unplaced(room: &RoomId) -> Refusal {
    Refusal::unavailable(format!("{room} cannot be placed now; push again in a moment"))
}
