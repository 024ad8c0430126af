//! The node's QUIC endpoint: one UDP socket for all links to other nodes, dialled and accepted.
//!
//! In: packets of other nodes; dials of [`crate::links`]. Out: [`Peer`]s that have proven who they
//! are (mutual TLS) and said hello, and their streams, each handed to the [`Service`] of its kind.
//! What is said on a stream, whom to dial and when to try again is not decided here.
//!
//! Every task of an endpoint hangs on it: [`Endpoint::close`] ends them all within
//! [`CLOSE_TIMEOUT`] each, and dropping the last clone aborts them.

mod accept;
mod dispatch;
mod peer;
mod transport;

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, RwLock, Weak},
    time::{Duration, SystemTime},
};

use quinn::{AsyncUdpSocket, ClientConfig, Connection, Runtime};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, timeout},
};

use crate::{
    ClusterId, Error, NodeId,
    error::CloseCode,
    frame,
    hello::{Hello, MAX_HELLO_BYTES},
    identity::{Identity, IdentityFiles, node_of_peer},
    metrics::Metrics,
    service::{Service, Services, StreamKind},
    stream::{Receiver, Sender},
};

pub use dispatch::{KIND_TIMEOUT, SERVICE_END_GRACE};
pub use peer::{OPEN_TIMEOUT, Peer};
pub use transport::{HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, KEEP_ALIVE, Limits};

/// How long a dial may take, from the first packet to both hellos.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long [`Endpoint::close`] waits for tasks to end, and then for the peers to be told.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the files of an identity are looked at.
pub const IDENTITY_POLL: Duration = Duration::from_secs(10);

/// A node's endpoint. Clones are the same endpoint.
#[derive(Clone)]
pub struct Endpoint {
    inner: Arc<Inner>,
}

struct Inner {
    quinn: quinn::Endpoint,
    factory: transport::TransportFactory,
    dialling: RwLock<Dialling>,
    tasks: Mutex<Tasks>,
    shared: Arc<Shared>,
}

/// What a dial needs of the identity in use.
struct Dialling {
    identity: Identity,
    client: ClientConfig,
}

/// What must end with the endpoint.
#[derive(Default)]
struct Tasks {
    /// Whether the accept loop was started.
    serving: bool,
    /// The accept loop, and one driver for each dialled connection.
    connections: JoinSet<()>,
    /// Watching files: aborted first, as it never ends by itself.
    background: JoinSet<()>,
}

/// What the tasks of an endpoint share. They hold this and never [`Inner`], which holds them.
pub(crate) struct Shared {
    limits: Limits,
    metrics: Metrics,
    hello: RwLock<Hello>,
    services: RwLock<Arc<Services>>,
    /// Accepted connections by node; an entry goes with its last connection.
    accepted: Mutex<HashMap<NodeId, usize>>,
}

impl Endpoint {
    /// Binds `listen` (port 0 picks a free one). Nothing is accepted before [`Endpoint::serve`].
    /// Needs a Tokio runtime around it.
    ///
    /// # Errors
    /// [`Error::Listen`] if the address cannot be had, [`Error::Identity`] if the certificates
    /// cannot be used or are of another node than `hello` names.
    pub fn bind(
        listen: SocketAddr,
        identity: &Identity,
        hello: Hello,
        limits: Limits,
        metrics: &Metrics,
    ) -> Result<Self, Error> {
        let failed =
            |error: std::io::Error| Error::Listen { address: listen, why: error.to_string() };
        let runtime: Arc<dyn Runtime> = Arc::new(quinn::TokioRuntime);
        let socket = runtime.wrap_udp_socket(transport::bind_socket(listen)?).map_err(failed)?;
        let under = Under { socket, runtime, seed: None };
        Self::bind_abstract(under, identity, hello, limits, metrics)
    }

    /// As [`Endpoint::bind`], over a socket and clock of the caller's, for simulations.
    ///
    /// # Errors
    /// As [`Endpoint::bind`].
    pub fn bind_abstract(
        under: Under,
        identity: &Identity,
        hello: Hello,
        limits: Limits,
        metrics: &Metrics,
    ) -> Result<Self, Error> {
        if hello.node != *identity.node() {
            let why = format!("it is of {}, this node is {}", identity.node(), hello.node);
            return Err(Error::Identity { why });
        }
        let factory = transport::TransportFactory::new(&limits)?;
        let server = factory.server(identity)?;
        let client = factory.client(identity)?;
        let config = transport::endpoint_config(identity, under.seed)?;
        let quinn = quinn::Endpoint::new_with_abstract_socket(
            config,
            Some(server),
            under.socket,
            under.runtime,
        )
        .map_err(|error| Error::Transport { why: error.to_string() })?;
        metrics.set_certificate_expiry(identity.not_after());
        let shared = Shared {
            limits,
            metrics: metrics.clone(),
            hello: RwLock::new(hello),
            services: RwLock::default(),
            accepted: Mutex::default(),
        };
        let inner = Inner {
            quinn,
            factory,
            dialling: RwLock::new(Dialling { identity: identity.clone(), client }),
            tasks: Mutex::default(),
            shared: Arc::new(shared),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Begins to accept connections, and gives the streams of all of them, dialled ones included,
    /// to `services`. Once; until then streams of peers are refused.
    ///
    /// # Errors
    /// [`Error::KindTaken`] if two services want the same kind, or on a second call.
    pub fn serve(&self, services: Vec<Arc<dyn Service>>) -> Result<(), Error> {
        let services = Services::new(services)?;
        let mut tasks = self.inner.tasks();
        if std::mem::replace(&mut tasks.serving, true) {
            return Err(Error::KindTaken { kind: StreamKind::Hello });
        }
        *write(&self.inner.shared.services) = Arc::new(services);
        let accepting = accept::run(self.inner.quinn.clone(), Arc::clone(&self.inner.shared));
        tasks.connections.spawn(accepting);
        Ok(())
    }

    /// Dials `node` at `address`: TLS both ways, then hello. Tries once; when to try again is the
    /// caller's to decide. [`crate::links::Links`] keeps one connection per node.
    ///
    /// # Errors
    /// [`Error::TimedOut`] after [`DIAL_TIMEOUT`], [`Error::Tls`] if certificates do not fit,
    /// [`Error::Refused`] or [`Error::Closed`] with the reason of the side that refused.
    pub async fn connect(&self, node: &NodeId, address: SocketAddr) -> Result<Arc<Peer>, Error> {
        let dialled = match timeout(DIAL_TIMEOUT, self.dial(node, address)).await {
            Ok(dialled) => dialled,
            Err(_) => Err(Error::TimedOut { what: "dialling the node", after: DIAL_TIMEOUT }),
        };
        match dialled {
            Ok(peer) => {
                let driver = dispatch::drive(Arc::clone(&self.inner.shared), Arc::clone(&peer));
                let metrics = &self.inner.shared.metrics;
                self.inner.tasks().spawn_connection(driver, metrics);
                Ok(peer)
            }
            Err(error) => {
                let failed = &self.inner.shared.metrics.dials_failed;
                failed.with_label_values(&[error.reason()]).inc();
                Err(error)
            }
        }
    }

    /// The address bound.
    ///
    /// # Errors
    /// [`Error::Transport`] if the operating system will not say.
    pub fn local_addr(&self) -> Result<SocketAddr, Error> {
        self.inner.quinn.local_addr().map_err(|error| Error::Transport { why: error.to_string() })
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        read(&self.inner.shared.hello).node.clone()
    }

    /// The figures of this endpoint.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.inner.shared.metrics
    }

    /// Tells the cluster's id in hellos from now on, and demands the same of peers that know one.
    pub fn set_cluster(&self, cluster: ClusterId) {
        write(&self.inner.shared.hello).cluster = Some(cluster);
    }

    /// When the certificate in use expires.
    #[must_use]
    pub fn certificate_expiry(&self) -> SystemTime {
        read(&self.inner.dialling).identity.not_after()
    }

    /// Takes another identity of the same node for the handshakes to come; live connections stay.
    ///
    /// # Errors
    /// [`Error::Identity`] if it is of another node or cannot be used; the former one stays.
    pub fn reload(&self, identity: &Identity) -> Result<(), Error> {
        let node = self.node();
        if *identity.node() != node {
            let why = format!("it is of {}, this node is {node}", identity.node());
            return Err(Error::Identity { why });
        }
        let server = self.inner.factory.server(identity)?;
        let client = self.inner.factory.client(identity)?;
        self.inner.quinn.set_server_config(Some(server));
        *write(&self.inner.dialling) = Dialling { identity: identity.clone(), client };
        self.inner.shared.metrics.set_certificate_expiry(identity.not_after());
        Ok(())
    }

    /// Looks at `files` every `every` ([`IDENTITY_POLL`] is a good choice) and takes the identity
    /// in them whenever they change. One that cannot be used is warned of, and looked at again.
    pub fn follow(&self, files: IdentityFiles, every: Duration) {
        let following = follow(Arc::downgrade(&self.inner), files, every);
        self.inner.tasks().background.spawn(following);
    }

    /// Closes every connection with `code` and `reason`, accepts and dials no more, and waits, in
    /// bounded time, until all tasks have ended and the peers have been told. Finishing what is in
    /// flight comes before, and is the caller's.
    pub async fn close(&self, code: CloseCode, reason: &str) {
        self.inner.quinn.close(code.varint(), reason.as_bytes());
        let mut tasks = std::mem::take(&mut *self.inner.tasks());
        tasks.background.shutdown().await;
        let ended = async { while tasks.connections.join_next().await.is_some() {} };
        if timeout(CLOSE_TIMEOUT, ended).await.is_err() {
            tracing::debug!("services still running at close are aborted");
            tasks.connections.shutdown().await;
        }
        // A service may hold this endpoint; let go of it, or neither is ever freed.
        *write(&self.inner.shared.services) = Arc::default();
        // A peer that does not answer finds out by itself.
        let _ = timeout(CLOSE_TIMEOUT, self.inner.quinn.wait_idle()).await;
    }

    async fn dial(&self, node: &NodeId, address: SocketAddr) -> Result<Arc<Peer>, Error> {
        let client = read(&self.inner.dialling).client.clone();
        let connecting = self
            .inner
            .quinn
            .connect_with(client, address, node.as_str())
            .map_err(|error| Error::from_connect(address, &error))?;
        let connection = connecting.await.map_err(|error| Error::from_connection(&error))?;
        let met = self.greet(node, &connection).await;
        let (hello, version) = met.inspect_err(|error| refuse(&connection, error))?;
        Ok(Arc::new(Peer::new(hello, version, true, connection)))
    }

    /// The dialler's half of the hello: speaks first.
    async fn greet(&self, node: &NodeId, connection: &Connection) -> Result<(Hello, u16), Error> {
        let certified = certified_node(connection)?;
        // TLS has checked that the node's name is in the certificate; here it must be the node's
        // own name, not one more host of some other node.
        if certified != *node {
            let reason = format!("dialled {node}, reached {certified}");
            return Err(Error::Refused { code: CloseCode::WrongIdentity, reason });
        }
        let ours = read(&self.inner.shared.hello).clone();
        let opened = connection.open_bi().await.map_err(|error| Error::from_connection(&error))?;
        let (mut sender, mut receiver) = (Sender::new(opened.0), Receiver::new(opened.1));
        sender.write_kind(StreamKind::Hello).await?;
        sender.write_message(&ours).await?;
        sender.finish();
        ours.meet(&read_hello(&mut receiver).await?, &certified)
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("node", &self.node()).finish_non_exhaustive()
    }
}

/// What an endpoint stands on, where it is not a socket of the operating system.
#[derive(Debug)]
pub struct Under {
    /// Carries the packets.
    pub socket: Arc<dyn AsyncUdpSocket>,
    /// Tells the time and runs quinn's own tasks.
    pub runtime: Arc<dyn Runtime>,
    /// Makes what QUIC draws by lot repeatable.
    pub seed: Option<[u8; 32]>,
}

impl Inner {
    fn tasks(&self) -> std::sync::MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Peers handed out may outlive the endpoint, and would keep their connections up.
        self.quinn.close(CloseCode::Dropped.varint(), b"");
    }
}

impl Tasks {
    fn spawn_connection(
        &mut self,
        driver: impl Future<Output = ()> + Send + 'static,
        metrics: &Metrics,
    ) {
        // Reaping here keeps the set as large as the connections that live.
        while let Some(ended) = self.connections.try_join_next() {
            dispatch::note_failure(metrics, ended);
        }
        self.connections.spawn(driver);
    }
}

/// Who the peer is, by its certificate.
fn certified_node(connection: &Connection) -> Result<NodeId, Error> {
    node_of_peer(connection.peer_identity())
        .map_err(|reason| Error::Refused { code: CloseCode::WrongIdentity, reason })
}

async fn read_hello(receiver: &mut Receiver) -> Result<bytes::Bytes, Error> {
    match receiver.read_frame(MAX_HELLO_BYTES).await? {
        Some(frame) => Ok(frame),
        None => Err(Error::Truncated { what: "hello" }),
    }
}

/// Closes a connection whose peer is not who or what it should be, and tells it why.
fn refuse(connection: &Connection, error: &Error) {
    match error {
        Error::Refused { code, reason } => peer::close(connection, *code, reason),
        Error::TimedOut { .. } => {
            peer::close(connection, CloseCode::HelloTimeout, &error.to_string());
        }
        other => peer::close(connection, CloseCode::BadHello, &other.to_string()),
    }
}

async fn follow(endpoint: Weak<Inner>, files: IdentityFiles, every: Duration) {
    // What the identity in use was read from is not known, so the first look reads them.
    let mut taken = None;
    let mut complained = None;
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now = Some(stamps(&files));
        if now == taken {
            continue;
        }
        let Some(inner) = endpoint.upgrade() else { return };
        match take_up(&Endpoint { inner }, &files).await {
            Ok(is_new) => {
                if is_new {
                    tracing::info!(cert = %files.cert.display(), "certificates reloaded");
                }
                taken = now;
            }
            Err(why) => {
                // Once per change: a pair of files being replaced is often half new for a moment.
                if complained != now {
                    tracing::warn!(why, "changed certificates cannot be used; the former stay");
                }
                complained = now;
            }
        }
    }
}

/// Takes the identity in `files` into use; false if it is the one in use already.
async fn take_up(endpoint: &Endpoint, files: &IdentityFiles) -> Result<bool, String> {
    let (node, files) = (endpoint.node(), files.clone());
    let loaded = tokio::task::spawn_blocking(move || files.load(&node)).await;
    let identity = loaded.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    if read(&endpoint.inner.dialling).identity.is_same(&identity) {
        return Ok(false);
    }
    endpoint.reload(&identity).map_err(|error| error.to_string())?;
    Ok(true)
}

type Stamp = Option<(SystemTime, u64)>;

/// What tells a changed file from an unchanged one; `None` where it cannot be looked at.
fn stamps(files: &IdentityFiles) -> [Stamp; 3] {
    [&files.ca, &files.cert, &files.key].map(|path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}

// A lock here guards plain values that are replaced whole, so a panic leaves nothing half done.

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

const _: () = assert!(MAX_HELLO_BYTES <= frame::MAX_FRAME_BYTES, "a hello fits in a frame");
