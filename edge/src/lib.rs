//! The edge: serves streams to the crowd near it, from one subscription per room.
//!
//! The path through this crate: a [`room::Source`] fills a [`media::feed::Feed`] → [`room`] keeps it
//! while somebody watches, and what was rendered of it → [`http`] answers HLS and LL-HLS from it, and
//! hands FLV viewers to [`flv`], which serves them all from one ring of chunks per room, and members
//! of rooms to [`hub`], which carries what they say to the room's home and back.
//!
//! [`Edge::start`] opens the viewer port and begins everything; [`Edge::shutdown`] ends it in three
//! steps: stop accepting, finish what is in flight, stop.

mod assets;
mod config;
mod drain;
mod error;
pub mod flv;
mod gzip;
mod http;
pub mod hub;
mod metrics;
pub mod room;
pub mod upstream;
mod ws;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{IntCounterVec, Registry};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use config::{Config, RoomPace, Timeouts, TlsFiles};
pub use drain::Drain;
pub use error::Error;

use crate::flv::Stage;
use crate::http::App;
use crate::http::ending::Ending;
use crate::http::listener::{Addresses, Listener};
use crate::http::tls::Certificate;
use crate::hub::homes::Homes;
use crate::metrics::{Metrics, Protocol};
use crate::room::Source;
use crate::room::registry::Rooms;

/// How long ending at once may take after the grace time: tasks only have to notice.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

/// A running edge. Dropping it without [`Self::shutdown`] ends it at once.
#[derive(Debug)]
pub struct Edge {
    address: SocketAddr,
    ending: Ending,
    tasks: TaskTracker,
    listener: JoinHandle<()>,
    metrics: Arc<Metrics>,
    drain: Drain,
}

/// Asks an edge how busy it is. Cheap to clone; keeps nothing running.
#[derive(Debug, Clone)]
pub struct Usage {
    metrics: Arc<Metrics>,
}

impl Usage {
    /// Viewers now, over all protocols.
    #[must_use]
    pub fn viewers(&self) -> u64 {
        let viewers = |protocol| u64::try_from(self.metrics.viewers(protocol).get()).unwrap_or(0);
        Protocol::ALL.into_iter().map(viewers).sum()
    }

    /// Bytes of media and playlists sent since the start, over all protocols.
    #[must_use]
    pub fn sent_bytes(&self) -> u64 {
        Protocol::ALL.into_iter().map(|protocol| self.metrics.sent_bytes(protocol).get()).sum()
    }
}

impl Edge {
    /// Opens the viewer port and serves rooms from `source`.
    ///
    /// `refused` is the node's `tidewater_refused_total{role,reason}`, which this counts under the
    /// role `edge`. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the port cannot be opened, a certificate cannot be used, or the registry already has an
    /// edge's metrics.
    pub fn start(
        config: Config,
        source: Arc<dyn Source>,
        registry: &Registry,
        refused: &IntCounterVec,
    ) -> Result<Self, Error> {
        Self::start_with(config, source, None, registry, refused)
    }

    /// As [`Self::start`], with the homes of rooms: members can come in.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(
        config: Config,
        source: Arc<dyn Source>,
        homes: Option<Arc<dyn Homes>>,
        registry: &Registry,
        refused: &IntCounterVec,
    ) -> Result<Self, Error> {
        let certificate = config.tls.clone().map(Certificate::load).transpose()?.map(Arc::new);
        let listen = |source| Error::Listen { address: config.listen, source };
        let tcp = http::listener::bind(config.listen).map_err(listen)?;
        let address = tcp.local_addr().map_err(listen)?;
        let metrics = Arc::new(Metrics::new(registry, refused)?);
        let ending = Ending { drain: CancellationToken::new(), abort: CancellationToken::new() };
        let tasks = TaskTracker::new();
        let cpus = match config.writers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            writers => writers,
        };
        let rooms =
            Rooms::new(source, config.room_grace, Arc::clone(&metrics), ending.drain.clone());
        let tokens = (ending.drain.clone(), ending.abort.clone());
        let pace = (cpus, config.flv_max_flush);
        let stage = Stage::new(Arc::clone(&metrics), pace, config.timeouts, tokens, tasks.clone());
        let tokens = (ending.drain.clone(), ending.abort.clone());
        let drain = Drain { sender: watch::Sender::default() };
        let hub = homes.map(|homes| {
            let metrics = hub::Metrics::register(registry)?;
            let (crew, leaving) = ((tasks.clone(), cpus, config.rooms), drain.sender.subscribe());
            Ok::<_, Error>(hub::Shared::new(homes, metrics, terms(&config), tokens, leaving, crew))
        });
        let hub = hub.transpose()?;
        let app = Arc::new(App {
            rooms: Arc::clone(&rooms),
            metrics: Arc::clone(&metrics),
            stage,
            hub,
            timeouts: config.timeouts,
            allow_guests: config.allow_guests,
            access: Arc::clone(&config.access),
            drain: ending.drain.clone(),
            draining: drain.sender.clone(),
            node: config.node.clone(),
            redirect: config.redirect,
            is_tls: certificate.is_some(),
            routes: http::route::Limiter::default(),
        });
        let listener = Listener {
            tcp,
            certificate: certificate.clone(),
            permits: Arc::new(Semaphore::new(config.max_connections.min(Semaphore::MAX_PERMITS))),
            addresses: Addresses::new(config.max_connections_per_address),
            app,
            ending: ending.clone(),
            tasks: tasks.clone(),
        };
        let listener = tasks.spawn(listener.run());
        let departing = drain::depart(Arc::clone(&rooms), drain.sender.subscribe());
        let until = ending.drain.clone();
        tasks.spawn(async move { until.run_until_cancelled(departing).await.unwrap_or(()) });
        tasks.spawn(rooms.tend());
        let tls = certificate.is_some();
        if let Some(certificate) = certificate {
            tasks.spawn(certificate.follow(ending.drain.clone()));
        }
        tracing::info!(%address, tls, "listening for viewers");
        Ok(Self { address, ending, tasks, listener, metrics, drain })
    }

    /// Where viewers connect.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// A handle to ask how busy this edge is by.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage { metrics: Arc::clone(&self.metrics) }
    }

    /// A handle to tell this edge by that its viewers should go elsewhere.
    #[must_use]
    pub fn draining(&self) -> Drain {
        self.drain.clone()
    }

    /// Whether the listener still accepts: it ends before [`Self::shutdown`] only by a bug.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        !self.listener.is_finished()
    }

    /// Stops accepting, lets what is in flight finish for up to `grace`, and ends the rest. FLV ends
    /// at once and at a chunk's boundary, so that players go to another edge.
    pub async fn shutdown(self, grace: Duration) {
        self.ending.drain.cancel();
        self.tasks.close();
        if tokio::time::timeout(grace, self.tasks.wait()).await.is_err() {
            tracing::info!(
                left = self.tasks.len(),
                "ending viewer connections that did not finish"
            );
            self.ending.abort.cancel();
            let _ = tokio::time::timeout(ABORT_TIMEOUT, self.tasks.wait()).await;
        }
    }
}

/// On which terms members come into rooms.
fn terms(config: &Config) -> hub::Terms {
    let most = config.max_guests_per_address;
    hub::Terms {
        allow_guests: config.allow_guests,
        access: Arc::clone(&config.access),
        origins: config.origins.clone(),
        guests: Addresses::new(if most == 0 { u32::MAX } else { most }),
        region: config.region.clone(),
        journal: config.journal.clone(),
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.ending.drain.cancel();
        self.ending.abort.cancel();
    }
}
