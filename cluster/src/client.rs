//! The handle with which the other roles use the control plane, in its process or elsewhere.
//!
//! In: calls of origin, edge and admin. Out: answers of whichever control node can give them, the
//! node table, and the whereabouts of watched rooms. Behind it, one task keeps the node registered
//! and heartbeating, one keeps a watch stream. Retries live here and nowhere else: jittered,
//! within a deadline, through another control node each time, following hints to the leader.
//!
//! Does not remember answers: what a role knows of a room's place it has from a watch.

mod bars;
mod beat;
mod keys;
pub(crate) mod link;
mod route;
mod watch;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use wire::control::{
    Answer, Ask, ClusterStatus, Grant, KeyId, KeyInfo, Load, Location, NodeSpec, Refusal,
};
use wire::{Epoch, Links, NodeId, RoomId};

pub use beat::Standing;
pub use keys::NewKey;
pub use route::Router;
pub use watch::{NodeTable, RoomWatch};

use crate::Error;
use crate::control::Control;
use crate::metrics::Metrics;
use crate::server::Core;
use link::{Line, To};

/// What a client needs to know.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// This node, as it shall stand in the node table. [`fresh_incarnation`] makes its incarnation.
    pub spec: NodeSpec,
    /// All control nodes and their addresses.
    pub control: Vec<(NodeId, SocketAddr)>,
}

/// An incarnation for this start of the process.
#[must_use]
pub fn fresh_incarnation() -> u64 {
    rand::random()
}

/// A handle on the control plane. Clones are the same handle; the last one dropped ends its tasks.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    _tasks: Arc<JoinSet<()>>,
}

/// What the handle and its tasks share.
pub(crate) struct Shared {
    line: Line,
    spec: NodeSpec,
    load: Arc<LoadCell>,
    rooms: watch::Registry,
    nodes: tokio::sync::watch::Sender<Arc<NodeTable>>,
    /// The log index up to which the leader had applied at the last heartbeat.
    leader_revision: AtomicU64,
    standing: tokio::sync::watch::Sender<Standing>,
    bars: Arc<crate::access::Bars>,
}

/// How busy this node is, written by its roles and sent with each heartbeat.
#[derive(Debug, Default)]
pub struct LoadCell {
    /// Rooms this node is home of.
    pub rooms: AtomicU32,
    /// Viewers this node serves.
    pub viewers: AtomicU32,
    /// Bits per second this node sends.
    pub egress_bps: AtomicU64,
    /// Share of all its cores in use, in thousandths.
    pub cpu_permille: AtomicU16,
    /// One past the highest media sequence number this node has made or shown, of any room. Raise
    /// it with [`LoadCell::raise_head`].
    pub head_msn: AtomicU64,
}

impl LoadCell {
    /// Takes note that media sequence numbers below `next_msn` have been made or shown here, so that
    /// no room that loses its past starts below them.
    pub fn raise_head(&self, next_msn: u64) {
        self.head_msn.fetch_max(next_msn, Ordering::Relaxed);
    }

    fn read(&self) -> Load {
        Load {
            rooms: self.rooms.load(Ordering::Relaxed),
            viewers: self.viewers.load(Ordering::Relaxed),
            egress_bps: self.egress_bps.load(Ordering::Relaxed),
            cpu_permille: self.cpu_permille.load(Ordering::Relaxed),
            head_msn: self.head_msn.load(Ordering::Relaxed),
        }
    }
}

impl Client {
    /// A client of control nodes elsewhere. Registers this node and keeps it alive in the node
    /// table. Needs a Tokio runtime around it.
    ///
    /// # Errors
    /// [`Error::NoControl`] without a control node.
    pub fn connect(config: ClientConfig, links: Links, metrics: Metrics) -> Result<Self, Error> {
        Self::start(config, links, metrics, None)
    }

    /// A client on a node that has the control role itself: asks it first, and others when it does
    /// not lead.
    ///
    /// # Errors
    /// [`Error::NoControl`] without a control node.
    pub fn local(
        control: &Control,
        config: ClientConfig,
        links: Links,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        Self::start(config, links, metrics, Some(control.core()))
    }

    fn start(
        config: ClientConfig,
        links: Links,
        metrics: Metrics,
        local: Option<Core>,
    ) -> Result<Self, Error> {
        if config.control.is_empty() {
            return Err(Error::NoControl);
        }
        let shared = Arc::new(Shared {
            line: Line::new(config.spec.id.clone(), config.control, links, local, metrics),
            spec: config.spec,
            load: Arc::default(),
            rooms: watch::Registry::default(),
            nodes: tokio::sync::watch::Sender::default(),
            leader_revision: AtomicU64::new(0),
            standing: tokio::sync::watch::Sender::default(),
            bars: Arc::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(beat::run(Arc::clone(&shared)));
        tasks.spawn(watch::run(Arc::clone(&shared)));
        Ok(Self { shared, _tasks: Arc::new(tasks) })
    }

    /// Activates the room if it is not, and says where it lives. Idempotent: a room that is placed
    /// keeps its grant. `ingest` is the node that has the publisher; it is preferred as home.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NoHome` while no origin is up; [`Error::TimedOut`].
    pub async fn claim(&self, room: &RoomId, ingest: &NodeId) -> Result<Grant, Error> {
        let ask = Ask::Claim { room: room.clone(), ingest: ingest.clone() };
        self.registered().await?;
        match self.shared.line.ask(ask, To::Leader).await? {
            Answer::Grant(grant) => Ok(grant),
            _ => Err(Error::Unexpected { asked: "claim" }),
        }
    }

    /// Whether `epoch` is still the room's, by the leader and a majority.
    ///
    /// # Errors
    /// [`Error::TimedOut`] while there is no leader.
    pub async fn confirm(&self, room: &RoomId, epoch: Epoch) -> Result<bool, Error> {
        let ask = Ask::Confirm { room: room.clone(), epoch };
        self.registered().await?;
        self.ask_bool(ask, "confirm").await
    }

    /// Where the room is, as any control node knows it. One that lags behind the leader's last
    /// heartbeat is not believed when it says "nowhere".
    ///
    /// # Errors
    /// [`Error::TimedOut`] if no control node answers.
    pub async fn locate(&self, room: &RoomId) -> Result<Location, Error> {
        let location = self.locate_at(room, To::Any).await?;
        let lags = location.revision < self.shared.leader_revision.load(Ordering::Relaxed);
        if location.placement.is_none() && lags {
            return self.locate_at(room, To::LeaderFirst).await;
        }
        Ok(location)
    }

    async fn locate_at(&self, room: &RoomId, to: To) -> Result<Location, Error> {
        match self.shared.line.ask(Ask::Locate { room: room.clone() }, to).await? {
            Answer::Location(location) => Ok(location),
            _ => Err(Error::Unexpected { asked: "locate" }),
        }
    }

    /// Watches where the room is. The room need not exist: its appearance is a change, too.
    #[must_use]
    pub fn watch_room(&self, room: &RoomId) -> RoomWatch {
        watch::watch_room(self, room)
    }

    /// The node table, kept up to date.
    #[must_use]
    pub fn nodes(&self) -> tokio::sync::watch::Receiver<Arc<NodeTable>> {
        self.shared.nodes.subscribe()
    }

    /// Where this node stands with the control plane.
    #[must_use]
    pub fn standing(&self) -> tokio::sync::watch::Receiver<Standing> {
        self.shared.standing.subscribe()
    }

    /// How busy this node is; the roles write it.
    #[must_use]
    pub fn load(&self) -> Arc<LoadCell> {
        Arc::clone(&self.shared.load)
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.shared.spec.id
    }

    /// Removes an idle room, if `epoch` is still its epoch. As [`Client::release_at`] without a
    /// number.
    ///
    /// # Errors
    /// [`Error::Refused`] with `StaleEpoch` if the room has moved; [`Error::TimedOut`].
    pub async fn release(&self, room: &RoomId, epoch: Epoch) -> Result<(), Error> {
        self.release_at(room, epoch, 0).await
    }

    /// Removes an idle room, if `epoch` is still its epoch. `next_msn` is one past the highest
    /// media sequence number the room used; a later activation starts at or above it.
    ///
    /// # Errors
    /// As [`Client::release`].
    pub async fn release_at(
        &self,
        room: &RoomId,
        epoch: Epoch,
        next_msn: u64,
    ) -> Result<(), Error> {
        let ask = Ask::Release { room: room.clone(), epoch, next_msn };
        self.ask_done(ask, "release").await
    }

    /// Makes a publish key for the room. The secret exists only in what this returns.
    ///
    /// # Errors
    /// [`Error::Refused`] with `Overloaded` if the room has too many; [`Error::TimedOut`].
    pub async fn create_key(&self, room: &RoomId) -> Result<NewKey, Error> {
        let key = NewKey::random()?;
        let ask = Ask::CreateKey { id: key.id, room: room.clone(), hash: keys::hash(&key.key) };
        self.ask_done(ask, "create key").await?;
        Ok(key)
    }

    /// Up to `limit` publish keys after `after`, of one room or of all.
    ///
    /// # Errors
    /// [`Error::TimedOut`].
    pub async fn list_keys(
        &self,
        room: Option<&RoomId>,
        after: Option<KeyId>,
        limit: u16,
    ) -> Result<Vec<KeyInfo>, Error> {
        let ask = Ask::ListKeys { room: room.cloned(), after, limit };
        match self.shared.line.ask(ask, To::Leader).await? {
            Answer::Keys(keys) => Ok(keys),
            _ => Err(Error::Unexpected { asked: "list keys" }),
        }
    }

    /// Forgets a publish key. True if there was one.
    ///
    /// # Errors
    /// [`Error::TimedOut`].
    pub async fn revoke_key(&self, id: KeyId) -> Result<bool, Error> {
        match self.ask_done(Ask::RevokeKey { id }, "revoke key").await {
            Ok(()) => Ok(true),
            Err(Error::Refused(Refusal::UnknownKey(_))) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether `key` opens the room to a publisher. Only its hash leaves this process, and it is
    /// compared in constant time.
    ///
    /// # Errors
    /// [`Error::TimedOut`] while there is no leader: a key is never taken for good on old news.
    pub async fn check_key(&self, room: &RoomId, key: &str) -> Result<bool, Error> {
        let ask = Ask::CheckKey { room: room.clone(), hash: keys::hash(key) };
        self.ask_bool(ask, "check key").await
    }

    /// Makes a token with which one new node gets its certificate, within `ttl`: `node` alone, or
    /// without it any that the cluster does not know. The secret exists only in what this returns.
    ///
    /// # Errors
    /// [`Error::Refused`] if `ttl` is out of range or there are too many; [`Error::TimedOut`].
    pub async fn create_join_token(
        &self,
        node: Option<&NodeId>,
        ttl: Duration,
    ) -> Result<NewKey, Error> {
        let token = NewKey::random()?;
        let (id, hash) = (token.id, keys::hash(&token.key));
        let ttl_s = u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX);
        let ask = Ask::CreateJoinToken { id, hash, node: node.cloned(), ttl_s };
        self.ask_done(ask, "create join token").await?;
        Ok(token)
    }

    /// Uses a join token up for `node` and its public key (DER).
    ///
    /// # Errors
    /// [`Error::Refused`] with `JoinToken` if it opens nothing; [`Error::TimedOut`].
    pub async fn redeem_join_token(
        &self,
        token: &NewKey,
        node: &NodeId,
        public_key: &[u8],
    ) -> Result<(), Error> {
        let (id, hash) = (token.id, keys::hash(&token.key));
        let key = keys::hash(public_key);
        self.ask_done(
            Ask::RedeemJoinToken { id, hash, node: node.clone(), key },
            "redeem join token",
        )
        .await
    }

    /// The state of the control plane: the leader's view, or, without a leader, any control node's.
    ///
    /// # Errors
    /// [`Error::TimedOut`] if no control node answers.
    pub async fn status(&self) -> Result<ClusterStatus, Error> {
        match self.shared.line.ask(Ask::Status, To::LeaderFirst).await? {
            Answer::Status(status) => Ok(status),
            _ => Err(Error::Unexpected { asked: "status" }),
        }
    }

    /// Up to `limit` placed rooms after `after`, by name. Fewer than asked for means no more.
    ///
    /// # Errors
    /// [`Error::TimedOut`] if no control node answers.
    pub async fn rooms(&self, after: Option<&RoomId>, limit: u16) -> Result<Vec<Grant>, Error> {
        let ask = Ask::Rooms { after: after.cloned(), limit };
        match self.shared.line.ask(ask, To::Any).await? {
            Answer::Rooms { rooms, .. } => Ok(rooms),
            _ => Err(Error::Unexpected { asked: "rooms" }),
        }
    }

    /// Moves a room to a node, or to the best other one.
    ///
    /// # Errors
    /// [`Error::Refused`] if the room or node is unknown or the node cannot take it.
    pub async fn place(&self, room: &RoomId, to: Option<&NodeId>) -> Result<Grant, Error> {
        let ask = Ask::Place { room: room.clone(), to: to.cloned() };
        match self.shared.line.ask(ask, To::Leader).await? {
            Answer::Grant(grant) => Ok(grant),
            _ => Err(Error::Unexpected { asked: "place" }),
        }
    }

    /// Removes a room whatever its epoch.
    ///
    /// # Errors
    /// [`Error::TimedOut`].
    pub async fn remove_room(&self, room: &RoomId) -> Result<(), Error> {
        self.ask_done(Ask::Remove { room: room.clone() }, "remove room").await
    }

    /// Begins or ends the draining of a node: it takes no new room and its rooms move away. A
    /// restart of the node ends it, too.
    ///
    /// # Errors
    /// [`Error::Refused`] if the node is unknown or down.
    pub async fn drain(&self, node: &NodeId, draining: bool) -> Result<(), Error> {
        self.ask_done(Ask::Drain { node: node.clone(), draining }, "drain").await
    }

    /// Admits a control node to the Raft group; it catches up and votes by itself afterwards. A
    /// wiped one is admitted under a new raft id in its own place.
    ///
    /// # Errors
    /// [`Error::Refused`]; [`Error::TimedOut`].
    pub async fn add_member(&self, node: &NodeId, addr: SocketAddr) -> Result<u64, Error> {
        let ask = Ask::AddMember { node: node.clone(), addr };
        match self.shared.line.ask(ask, To::Leader).await? {
            Answer::Member { raft_id } => Ok(raft_id),
            _ => Err(Error::Unexpected { asked: "add member" }),
        }
    }

    /// Removes a node for good: from the Raft group and the node table. It must have no rooms.
    ///
    /// # Errors
    /// [`Error::Refused`]; [`Error::TimedOut`].
    pub async fn remove_node(&self, node: &NodeId) -> Result<(), Error> {
        self.ask_done(Ask::RemoveNode { node: node.clone() }, "remove node").await
    }

    /// Hands leadership to a voter, or to the one that is furthest. Returns once that one leads.
    ///
    /// # Errors
    /// [`Error::Refused`]; [`Error::TimedOut`] if leadership did not pass.
    pub async fn transfer_leader(&self, to: Option<&NodeId>) -> Result<(), Error> {
        self.ask_done(Ask::TransferLeader { to: to.cloned() }, "transfer leader").await
    }

    /// How busy each edge is, as the leader heard last.
    ///
    /// # Errors
    /// [`Error::TimedOut`] while there is no leader.
    pub async fn loads(&self) -> Result<Vec<(NodeId, Load)>, Error> {
        match self.shared.line.ask(Ask::Loads, To::Leader).await? {
            Answer::Loads(loads) => Ok(loads),
            _ => Err(Error::Unexpected { asked: "loads" }),
        }
    }

    /// Sets a cluster-wide setting, or clears it.
    ///
    /// # Errors
    /// [`Error::Refused`] if it is too long; [`Error::TimedOut`].
    pub async fn set(&self, name: &str, value: Option<&str>) -> Result<(), Error> {
        let ask = Ask::Set { name: name.to_owned(), value: value.map(str::to_owned) };
        self.ask_done(ask, "set").await
    }

    /// The cluster-wide settings.
    ///
    /// # Errors
    /// [`Error::TimedOut`].
    pub async fn settings(&self) -> Result<Vec<(String, String)>, Error> {
        match self.shared.line.ask(Ask::Settings, To::Leader).await? {
            Answer::Settings(settings) => Ok(settings),
            _ => Err(Error::Unexpected { asked: "settings" }),
        }
    }

    /// Waits until this start of the node is in the node table. Before that, the control plane may
    /// still answer with grants of its former life, whose contents died with it.
    async fn registered(&self) -> Result<(), Error> {
        let mut standing = self.shared.standing.subscribe();
        let settled = standing.wait_for(|standing| standing.is_registered || standing.is_removed);
        match tokio::time::timeout(link::ASK_TIMEOUT, settled).await {
            Ok(Ok(standing)) if standing.is_removed => {
                Err(Refusal::Removed(self.node().clone()).into())
            }
            Ok(_) => Ok(()),
            Err(_) => Err(Error::TimedOut {
                after: link::ASK_TIMEOUT,
                last: "this node is not registered yet".to_owned(),
            }),
        }
    }

    async fn ask_done(&self, ask: Ask, asked: &'static str) -> Result<(), Error> {
        match self.shared.line.ask(ask, To::Leader).await? {
            Answer::Done => Ok(()),
            _ => Err(Error::Unexpected { asked }),
        }
    }

    async fn ask_bool(&self, ask: Ask, asked: &'static str) -> Result<bool, Error> {
        match self.shared.line.ask(ask, To::Leader).await? {
            Answer::Bool(value) => Ok(value),
            _ => Err(Error::Unexpected { asked }),
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("node", &self.shared.spec.id).finish_non_exhaustive()
    }
}
