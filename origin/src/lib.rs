//! The origin role: RTMP in, the room's home, replication out.
//!
//! ```text
//!  encoder ─▶ rtmp ─▶ publish ─▶ registry ─▶ room ─▶ feed ─▶ replicate ─▶ edges
//!             bytes    who may    whose home   timeline, segments    streams
//! ```
//!
//! [`rtmp`] turns an encoder's bytes into messages; `publish` asks who may push where; `registry`
//! claims rooms from the control plane; `room` owns one room's stream; `replicate` serves the streams
//! on which edges subscribe; [`sequencer`] orders what is said in a room. No viewer ever connects here.

mod contribute;
mod error;
mod ingest;
pub mod metrics;
mod publish;
mod registry;
mod replicate;
mod room;
pub mod rtmp;
pub mod sequencer;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cluster::Client;
use cluster::access::Access;
use prometheus::{IntCounterVec, Registry as MetricsRegistry};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::info;
use wire::links::Links;
use wire::room::User;
use wire::room::relay::{Act, Saying, Verdict};
use wire::service::Service;
use wire::{NodeId, RoomId};

pub use error::Error;
pub use media::feed::Limits as FeedLimits;
pub use media::segmenter::Settings as HlsSettings;
pub use publish::Policy;
pub use room::{Facts, State};

use crate::metrics::Metrics;
use crate::publish::Publisher;
use crate::registry::Registry;
use crate::replicate::Replicate;
use crate::rtmp::Listener;
use crate::sequencer::{Figures, Sequencers, Unheard};

/// What an operator may set on an origin.
#[derive(Debug, Clone)]
pub struct Config {
    /// The RTMP listener.
    pub rtmp: rtmp::Config,
    /// How streams are cut for HLS.
    pub hls: HlsSettings,
    /// How long a publisher's return is awaited.
    pub publish_grace: Duration,
    /// Who may publish.
    pub policy: Policy,
    /// Whose tokens and signed URLs let publishers in, besides keys.
    pub access: Arc<Access>,
    /// What one room's feed may hold.
    pub feed: FeedLimits,
    /// What members may do in rooms, and where what they give is kept.
    pub rooms: sequencer::Config,
    /// Where this node stands.
    pub region: wire::Region,
    /// Rooms this node may be the home of.
    pub max_rooms: usize,
    /// The application's back-end, where it is asked and told.
    pub hooks: Option<hooks::Hooks>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rtmp: rtmp::Config::default(),
            hls: HlsSettings::default(),
            publish_grace: Duration::from_secs(10),
            policy: Policy::default(),
            access: Arc::default(),
            feed: FeedLimits::default(),
            rooms: sequencer::Config::default(),
            region: wire::Region::default(),
            max_rooms: 10_000,
            hooks: None,
        }
    }
}

/// A room at home here, as the API shows it.
#[derive(Debug, Clone)]
pub struct RoomReport {
    /// The room.
    pub room: RoomId,
    /// The epoch it is held under.
    pub epoch: wire::Epoch,
    /// Its stream.
    pub facts: Facts,
    /// Viewers on all edges, as they last said.
    pub viewers: u64,
    /// Edges subscribed.
    pub subscribers: u64,
}

/// A running origin.
#[derive(Debug)]
pub struct Origin {
    rooms: Arc<Registry>,
    replicate: Arc<Replicate>,
    sequencers: Arc<Sequencers>,
    rtmp_addr: SocketAddr,
    stop_listening: CancellationToken,
    listener: JoinHandle<()>,
}

impl Origin {
    /// Opens the RTMP listener. Register [`Self::service`] with the node's endpoint.
    ///
    /// # Errors
    /// When the listener cannot be opened, or a metric is registered already.
    pub async fn start(
        config: Config,
        node: NodeId,
        client: Client,
        links: Links,
        registry: &MetricsRegistry,
        refused: IntCounterVec,
    ) -> Result<Self, Error> {
        let metrics = Arc::new(Metrics::register(registry, refused)?);
        let room_metrics = Arc::new(room::Metrics::register(registry)?);
        let room_config = room::Config {
            segmenter: config.hls,
            feed: config.feed,
            publish_grace: config.publish_grace,
            ledger: config.rooms.ledger.clone(),
            hooks: config.hooks.clone(),
            region: config.region,
        };
        let rooms = Registry::new(
            node.clone(),
            client.clone(),
            room_config,
            config.max_rooms,
            Arc::clone(&room_metrics),
        );
        let sequencer_metrics = sequencer::Metrics::register(registry)?;
        let sequencers = Sequencers::new(config.rooms, Arc::clone(&rooms), sequencer_metrics);
        let replicate = Arc::new(Replicate::new(Arc::clone(&rooms), room_metrics));
        let publisher = Publisher {
            node,
            policy: config.policy,
            access: config.access,
            client,
            links,
            rooms: Arc::clone(&rooms),
            hooks: config.hooks,
        };
        let address = config.rtmp.listen;
        let listen = |source| Error::Listen { address, source };
        let listener = Listener::bind(config.rtmp, Arc::new(publisher), metrics).await;
        let listener = listener.map_err(listen)?;
        let rtmp_addr = listener.local_addr().map_err(listen)?;
        info!(%rtmp_addr, "listening for RTMP");
        let stop_listening = CancellationToken::new();
        let listener = tokio::spawn(listener.run(stop_listening.clone()));
        Ok(Self { rooms, replicate, sequencers, rtmp_addr, stop_listening, listener })
    }

    /// Where encoders connect, with the real port.
    #[must_use]
    pub fn rtmp_addr(&self) -> SocketAddr {
        self.rtmp_addr
    }

    /// The service that feeds edges.
    #[must_use]
    pub fn service(&self) -> Arc<dyn Service> {
        Arc::clone(&self.replicate) as Arc<dyn Service>
    }

    /// The service that takes edges into the interaction of rooms.
    #[must_use]
    pub fn interaction(&self) -> Arc<dyn Service> {
        Arc::clone(&self.sequencers) as Arc<dyn Service>
    }

    /// A handle to ask about rooms by, which outlives nothing and blocks nothing.
    #[must_use]
    pub fn rooms(&self) -> Rooms {
        Rooms { registry: Arc::clone(&self.rooms), sequencers: Arc::clone(&self.sequencers) }
    }

    /// Whether the RTMP listener still accepts: it ends before [`Self::shutdown`] only by a bug.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        !self.listener.is_finished()
    }

    /// Stops accepting, ends every push and gives the rooms back. Edges keep what they have.
    pub async fn shutdown(self) {
        self.stop_listening.cancel();
        // An error means it has ended, by panic or abort, which is what is wanted.
        let _ = self.listener.await;
        self.rooms.leave().await;
    }
}

/// Asks an origin about its rooms.
#[derive(Debug, Clone)]
pub struct Rooms {
    registry: Arc<Registry>,
    sequencers: Arc<Sequencers>,
}

impl Rooms {
    /// The room, if this node is its home.
    #[must_use]
    pub fn get(&self, room: &RoomId) -> Option<RoomReport> {
        self.registry.get(room).map(|room| report(&room))
    }

    /// Every room at home here.
    #[must_use]
    pub fn all(&self) -> Vec<RoomReport> {
        self.registry.rooms().iter().map(|room| report(room)).collect()
    }

    /// One past the highest media sequence number in any room at home here; 0 without one.
    #[must_use]
    pub fn next_msn(&self) -> u64 {
        let rooms = self.registry.rooms();
        let next =
            |room: &Arc<room::Room>| room.feed().manifest().last().map(|last| last.open.msn.0 + 1);
        rooms.iter().filter_map(next).max().unwrap_or(0)
    }

    /// Ends the room's stream at once and tells its publisher why. Returns whether this node is its home.
    pub async fn stop(&self, room: &RoomId, why: &str) -> bool {
        let Some(room) = self.registry.get(room) else { return false };
        room.stop(rtmp::Refusal::kicked(why)).await;
        true
    }

    /// Says something in a room in the name of the application, opening the room if need be. The same
    /// `cid` of the same user again is the same.
    ///
    /// # Errors
    /// [`Unheard`].
    pub async fn post(
        &self,
        room: &RoomId,
        cid: String,
        user: User,
        what: Saying,
    ) -> Result<Verdict, Unheard> {
        self.sequencers.post(room, cid, user, what).await
    }

    /// Moderates a room, opening it if need be.
    ///
    /// # Errors
    /// [`Unheard`].
    pub async fn act(&self, room: &RoomId, by: &str, act: Act) -> Result<(), Unheard> {
        self.sequencers.act(room, by, act).await
    }

    /// What goes on among a room's members, if it is ordered here.
    pub async fn figures(&self, room: &RoomId) -> Option<Figures> {
        self.sequencers.figures(room).await
    }
}

fn report(room: &room::Room) -> RoomReport {
    use std::sync::atomic::Ordering::Relaxed;
    RoomReport {
        room: room.id().clone(),
        epoch: room.epoch(),
        facts: room.facts(),
        viewers: room.viewers().load(Relaxed),
        subscribers: room.subscribers().load(Relaxed),
    }
}
