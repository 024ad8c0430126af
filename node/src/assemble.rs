//! One node: every start-up step in the order in which it must happen, and every stop in reverse.
//!
//! In: a [`Plan`] and the configuration. Out: a running [`Node`]. `run` makes one, `dev` several in
//! one process. What the roles do is theirs; here they are given their parts: identity, endpoint,
//! control plane, metrics.

mod access;
mod address;
mod handover;
mod hooks;

use std::{
    collections::BTreeSet,
    fmt::Display,
    fs::{File, TryLockError},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use cluster::{Client, ClientConfig, Control, ControlConfig, NodeTable};
use edge::{Edge, hub::homes::ClusterHomes, upstream::Upstreams};
use media::{feed, manifest::RENDER_VERSION};
use origin::Origin;
use prometheus::{IntCounterVec, PullingGauge};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;
use wire::{
    Endpoint, Hello, Identity, IdentityFiles, Limits, Links, NodeId, Region, Service,
    control::{Capacity, NodeSpec, NodeState, Roles},
    endpoint::IDENTITY_POLL,
    error::CloseCode,
    hello::{VersionRange, WIRE_VERSIONS},
};

pub(crate) use self::access::tx_keys;
use crate::{
    config::{Config, ControlNode, Role},
    enrol::{self, Signer},
    facts::Facts,
    inquiry::Inquiries,
    ledger::{self, Ledger},
    load,
    telemetry::NodeMetrics,
    version::Versions,
};

/// How often it is looked whether the listeners still accept.
const LISTENER_CHECK_EVERY: Duration = Duration::from_secs(1);
/// What stopping may take on top of the grace time: ending what did not finish.
pub const STOP_MARGIN: Duration = Duration::from_secs(5);

/// Who a node is and where it listens.
pub struct Plan {
    /// Its name.
    pub id: NodeId,
    /// Its certificate and key.
    pub identity: Identity,
    /// Where these are from, to follow their renewal; none if they exist in memory only.
    pub files: Option<IdentityFiles>,
    /// The CA's private key, if it signs for newcomers.
    pub ca_key: Option<PathBuf>,
    /// Where it stands.
    pub region: Region,
    /// What it does.
    pub roles: BTreeSet<Role>,
    /// Its own data folder.
    pub data: PathBuf,
    /// UDP address of its QUIC endpoint.
    pub cluster_listen: SocketAddr,
    /// `host:port` others reach that at, if it is not found out.
    pub advertise: Option<String>,
    /// The control nodes; empty is this node alone.
    pub control: Vec<ControlNode>,
    /// Where viewers connect, if it is an edge.
    pub http_listen: SocketAddr,
}

/// A running node.
pub struct Node {
    id: NodeId,
    address: SocketAddr,
    endpoint: Endpoint,
    control: Option<Control>,
    client: Client,
    origin: Option<Origin>,
    edge: Option<(Edge, Arc<Upstreams>)>,
    ledger: Ledger,
    inquiries: Inquiries,
    refused: IntCounterVec,
    /// Signs certificates for nodes that have none.
    newcomers: Option<AbortOnDropHandle<()>>,
    /// Tells the control plane how busy the node is.
    _load: AbortOnDropHandle<()>,
    /// Tells the edge that it drains.
    _drain: Option<AbortOnDropHandle<()>>,
    /// Keeps other processes off the data folder.
    _lock: File,
}

impl Node {
    /// Starts the node; when it returns, its listeners answer. Joining the cluster goes on behind:
    /// `facts` says when it is done.
    ///
    /// # Errors
    /// What could not be started, with the key to change.
    pub async fn start(
        plan: Plan,
        config: &Config,
        metrics: NodeMetrics,
        facts: &Facts,
    ) -> anyhow::Result<Self> {
        let data = &plan.data;
        let lock = lock(data)?;

        let endpoint = bind(&plan, &metrics)?;
        if let Some(files) = plan.files.clone() {
            endpoint.follow(files, IDENTITY_POLL);
        }
        let links = Links::new(endpoint.clone());
        let bound = endpoint.local_addr()?;
        let mut control_nodes = address::resolve_all(&plan.control).await?;
        let address = address::advertised(&plan, bound, &control_nodes).await?;
        if control_nodes.is_empty() {
            control_nodes.push((plan.id.clone(), address));
        }

        let mut services: Vec<Arc<dyn Service>> = Vec::new();
        let spec = spec(&plan, config, address);
        let (control, client) = join(&plan, spec, control_nodes.clone(), &links, &metrics)?;
        services.extend(control.as_ref().map(Control::service));
        let (nodes, peers) = (client.nodes(), links.clone());
        let ledger = Ledger::start(&plan, config, &control_nodes, nodes, peers, &metrics)?;
        services.extend(ledger.service());
        let origin = if plan.roles.contains(&Role::Origin) {
            let around = (&links, &ledger, &metrics);
            let origin = start_origin(&plan, config, client.clone(), around).await?;
            services.extend([origin.service(), origin.interaction()]);
            facts.add_origin(origin.rooms());
            Some(origin)
        } else {
            None
        };
        let is_edge = plan.roles.contains(&Role::Edge);
        let edge = is_edge
            .then(|| start_edge(&plan, config, client.clone(), links.clone(), &ledger, &metrics))
            .transpose()?;
        services.extend(edge.iter().flat_map(|(_, upstreams)| upstreams.services()));
        let backups = control.as_ref().map(Control::backups);
        let inquiries = Inquiries::new(plan.id.clone(), links, facts.clone(), backups);
        services.push(inquiries.service());
        endpoint.serve(services)?;
        let newcomers = serve_newcomers(&plan, bound, &client).await?;
        let load = load::Sources {
            rooms: origin.as_ref().map(Origin::rooms),
            edge: edge.as_ref().map(|(edge, _)| edge.usage()),
            upstreams: edge.as_ref().map(|(_, upstreams)| Arc::clone(upstreams)),
        };
        let load = load::keep(client.load(), load);
        let drain = edge.as_ref().map(|(edge, _)| follow_drain(&plan.id, &client, edge.draining()));
        add_conditions(&plan.id, control.as_ref(), &client, facts);
        let names = roles(&plan.roles).names().collect::<Vec<_>>().join(",");
        tracing::info!(
            node = %plan.id, roles = names, %bound, advertised = %address, "node started"
        );
        Ok(Self {
            id: plan.id,
            address,
            endpoint,
            control,
            client,
            origin,
            edge,
            ledger,
            inquiries,
            refused: metrics.refused,
            newcomers,
            _load: load,
            _drain: drain,
            _lock: lock,
        })
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> &NodeId {
        &self.id
    }

    /// Where other nodes reach its QUIC endpoint.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where publishers push, if it is an origin.
    #[must_use]
    pub fn rtmp(&self) -> Option<SocketAddr> {
        self.origin.as_ref().map(Origin::rtmp_addr)
    }

    /// Where viewers connect, if it is an edge.
    #[must_use]
    pub fn http(&self) -> Option<SocketAddr> {
        self.edge.as_ref().map(|(edge, _)| edge.local_addr())
    }

    /// Its handle on the control plane.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Its handle on gifts and events.
    #[must_use]
    pub fn events(&self) -> events::Client {
        self.ledger.client()
    }

    /// Where changes by the API are kept.
    #[must_use]
    pub fn audit(&self) -> events::Recorder {
        self.ledger.recorder()
    }

    /// Asks this node and others on behalf of an operator.
    #[must_use]
    pub fn inquiries(&self) -> &Inquiries {
        &self.inquiries
    }

    /// Its `tidewater_refused_total`.
    #[must_use]
    pub fn refused(&self) -> &IntCounterVec {
        &self.refused
    }

    /// Resolves when a role has died by itself, with the reason; pending as long as all is well.
    pub async fn failed(&self) -> anyhow::Error {
        let control = async {
            match &self.control {
                Some(control) => control.failed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            why = control => anyhow!("the control role of {} has failed: {why}", self.id),
            listener = self.deaf() => anyhow!(
                "the {listener} listener of {} has died; the log says why", self.id
            ),
        }
    }

    /// Resolves when a listener no longer accepts.
    async fn deaf(&self) -> &'static str {
        loop {
            tokio::time::sleep(LISTENER_CHECK_EVERY).await;
            if self.origin.as_ref().is_some_and(|origin| !origin.is_listening()) {
                return "RTMP";
            }
            if self.edge.as_ref().is_some_and(|(edge, _)| !edge.is_listening()) {
                return "HTTP";
            }
        }
    }

    /// Stops: rooms at home here move to other nodes; then viewers leave, because what they wait for
    /// comes from the others; then publishers; then the control plane and the connections to other
    /// nodes. What is in flight at `deadline` is cut off; everything has ended [`STOP_MARGIN`] later
    /// at the latest.
    pub async fn stop(self, deadline: Instant) {
        if let Some(origin) = &self.origin {
            handover::hand_over(&self.client, &origin.rooms(), deadline).await;
        }
        if let Some((edge, upstreams)) = self.edge {
            edge.shutdown(deadline.saturating_duration_since(Instant::now())).await;
            upstreams.shutdown().await;
        }
        if let Some(origin) = self.origin
            && timeout_at(deadline.max(Instant::now() + MIN_STEP), origin.shutdown()).await.is_err()
        {
            tracing::warn!(node = %self.id, "publishers did not end in time; cut off");
        }
        // Other nodes may still ask: their gifts are refused, and asked again when it is back.
        self.ledger.stop().await;
        drop((self.newcomers, self.client));
        if let Some(control) = self.control {
            control.stop().await;
        }
        self.endpoint.close(CloseCode::Shutdown, "the node stops").await;
    }
}

/// Makes the data folder and takes it for this process: two nodes on one folder would each undo what
/// the other has written.
pub(crate) fn lock(data: &Path) -> anyhow::Result<File> {
    let path = data.join("lock");
    std::fs::create_dir_all(data)
        .and_then(|()| File::options().create(true).truncate(false).write(true).open(&path))
        .with_context(|| format!("node.data: cannot use the folder {}", data.display()))
        .and_then(|lock| match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(TryLockError::WouldBlock) => bail!(
                "node.data: {} is in use by another tidewater; stop it or choose another folder",
                data.display()
            ),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("node.data: cannot lock {}", path.display()))
            }
        })
}

/// What a step of a stop may take although the grace time is over.
const MIN_STEP: Duration = Duration::from_secs(1);

/// Signs certificates for newcomers, if this node is to.
async fn serve_newcomers(
    plan: &Plan,
    bound: SocketAddr,
    client: &Client,
) -> anyhow::Result<Option<AbortOnDropHandle<()>>> {
    let (Some(files), Some(ca_key)) = (plan.files.clone(), plan.ca_key.clone()) else {
        return Ok(None);
    };
    let signer = Signer { node: plan.id.clone(), files, ca_key };
    Ok(Some(enrol::serve(signer, bound, client.clone()).await?))
}

fn bind(plan: &Plan, metrics: &NodeMetrics) -> anyhow::Result<Endpoint> {
    let hello = Hello {
        wire: WIRE_VERSIONS,
        node: plan.id.clone(),
        roles: roles(&plan.roles),
        region: plan.region.clone(),
        software: concat!("tidewater ", env!("CARGO_PKG_VERSION")).to_owned(),
        cluster: None,
        render: VersionRange { oldest: RENDER_VERSION, newest: RENDER_VERSION },
    };
    let wire_metrics = wire::Metrics::new();
    wire_metrics.register(&metrics.registry)?;
    let listen = plan.cluster_listen;
    Endpoint::bind(listen, &plan.identity, hello, Limits::default(), &wire_metrics)
        .with_context(|| in_use("cluster.listen", &listen))
}

/// Takes part in the control plane: with a control role of its own, or as a client.
fn join(
    plan: &Plan,
    spec: NodeSpec,
    control: Vec<(NodeId, SocketAddr)>,
    links: &Links,
    metrics: &NodeMetrics,
) -> anyhow::Result<(Option<Control>, Client)> {
    let metrics = cluster::Metrics::register(&metrics.registry)?;
    let config = ClientConfig { spec, control: control.clone() };
    if !plan.roles.contains(&Role::Control) {
        return Ok((None, Client::connect(config, links.clone(), metrics)?));
    }
    let own = ControlConfig { node: plan.id.clone(), data: plan.data.clone(), control };
    let control = Control::start(own, links.clone(), metrics.clone())?;
    let client = Client::local(&control, config, links.clone(), metrics)?;
    Ok((Some(control), client))
}

async fn start_origin(
    plan: &Plan,
    config: &Config,
    client: Client,
    (links, ledger, metrics): (&Links, &Ledger, &NodeMetrics),
) -> anyhow::Result<Origin> {
    let listen = config.rtmp.listen;
    let origin = origin::Config {
        rtmp: origin::rtmp::Config {
            listen,
            max_connections: config.rtmp.max_connections,
            max_connections_per_ip: config.rtmp.max_connections_per_address,
        },
        hls: origin::HlsSettings {
            part_ms: config.hls.part.as_millis() as u32,
            segment_ms: config.hls.segment.as_millis() as u32,
            target_duration_s: config.hls.target_duration.as_secs() as u32,
            max_target_duration_s: config.hls.max_target_duration.as_secs() as u32,
            window: config.hls.window as usize,
        },
        publish_grace: config.room.publish_grace,
        access: access::access(config, client.bars())?,
        policy: if config.auth.publish_open { origin::Policy::Open } else { origin::Policy::Key },
        feed: feed::Limits { max_bytes: config.room.cache_bytes },
        rooms: sequencer(config, ledger),
        region: plan.region.clone(),
        hooks: hooks::start(plan, config, metrics)?,
        ..origin::Config::default()
    };
    let (registry, refused) = (&metrics.registry, metrics.refused.clone());
    Origin::start(origin, plan.id.clone(), client, links.clone(), registry, refused)
        .await
        .with_context(|| in_use("rtmp.listen", &listen))
}

fn sequencer(config: &Config, ledger: &Ledger) -> origin::sequencer::Config {
    let (open_gifts, filter) = (config.room.open_gifts, config.room.filter.clone());
    let (ledger, shop) = (Some(ledger.handle()), ledger::shop(config));
    origin::sequencer::Config { open_gifts, shop, filter, ledger }
}

fn start_edge(
    plan: &Plan,
    config: &Config,
    client: Client,
    links: Links,
    ledger: &Ledger,
    metrics: &NodeMetrics,
) -> anyhow::Result<(Edge, Arc<Upstreams>)> {
    let limits = feed::Limits { max_bytes: config.room.cache_bytes };
    let access = access::access(config, client.bars())?;
    let homes = Arc::new(ClusterHomes::new(client.clone(), links.clone()));
    let router = cluster::Router::new(client.clone(), config.route.distances.clone());
    let upstreams = Arc::new(Upstreams::new(client, links, limits));
    upstreams.set_router(router, plan.region.clone());
    count_upstreams(&upstreams, metrics)?;
    let tls = config.http.tls.clone();
    let edge = edge::Config {
        listen: plan.http_listen,
        tls: tls.map(|tls| edge::TlsFiles { cert: tls.cert, key: tls.key }),
        max_connections: config.http.max_connections,
        max_connections_per_address: config.http.max_connections_per_address,
        flv_max_flush: config.http.flv_max_flush,
        rooms: edge::RoomPace {
            max_tick: config.room.max_tick,
            chat_per_second: config.room.chat_per_second,
        },
        allow_guests: config.auth.allow_guests,
        access,
        origins: config.http.origins.clone(),
        max_guests_per_address: config.room.max_guests_per_address,
        region: plan.region.clone(),
        journal: Some(ledger.journal()),
        node: Some(plan.id.to_string()),
        redirect: config.route.redirect,
        ..edge::Config::default()
    };
    let source = Arc::clone(&upstreams) as Arc<dyn edge::room::Source>;
    let (registry, refused) = (&metrics.registry, &metrics.refused);
    let edge = Edge::start_with(edge, source, Some(homes), registry, refused)
        .with_context(|| in_use("http.listen", &plan.http_listen))?;
    Ok((edge, upstreams))
}

fn count_upstreams(upstreams: &Arc<Upstreams>, metrics: &NodeMetrics) -> anyhow::Result<()> {
    let counted = Arc::downgrade(upstreams);
    let gauge = PullingGauge::new(
        "tidewater_edge_upstreams",
        "Rooms whose stream this edge receives from their home",
        Box::new(move || counted.upgrade().map_or(0.0, |upstreams| upstreams.rooms().len() as f64)),
    )?;
    Ok(metrics.registry.register(Box::new(gauge))?)
}

/// What an address that cannot be had is called, and what to do.
pub(crate) fn in_use(key: &str, listen: &impl Display) -> String {
    format!(
        "{key}: cannot start on {listen} (another address: --set {key}=ADDRESS:PORT, port 0 picks a free one)"
    )
}

/// What must hold before the node is called ready.
fn add_conditions(id: &NodeId, control: Option<&Control>, client: &Client, facts: &Facts) {
    let (standing, nodes, id) = (client.standing(), client.nodes(), id.clone());
    facts.add_condition(Box::new(move || {
        let standing = *standing.borrow();
        if standing.is_removed {
            Some(format!("{id} was removed from the cluster"))
        } else if !standing.is_registered {
            Some(format!("{id} has not joined the cluster yet"))
        } else if !standing.sees_leader {
            Some(format!("{id} cannot reach the control plane's leader"))
        } else if is_draining(&nodes, &id) {
            Some(format!("{id} is draining"))
        } else {
            None
        }
    }));
    if let Some(control) = control {
        let health = control.health();
        facts.add_condition(Box::new(move || {
            health.borrow().fault.as_ref().map(|fault| format!("control plane: {fault}"))
        }));
    }
}

/// Whether the operator is draining the node, as far as it has heard.
fn is_draining(nodes: &tokio::sync::watch::Receiver<Arc<NodeTable>>, id: &NodeId) -> bool {
    nodes.borrow().get(id).is_some_and(|row| row.state == NodeState::Draining)
}

/// Tells the edge when the operator drains the node, and when that is over.
fn follow_drain(id: &NodeId, client: &Client, edge: edge::Drain) -> AbortOnDropHandle<()> {
    let (mut nodes, id) = (client.nodes(), id.clone());
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            edge.set(is_draining(&nodes, &id));
            if nodes.changed().await.is_err() {
                return;
            }
        }
    }))
}

fn spec(plan: &Plan, config: &Config, address: SocketAddr) -> NodeSpec {
    let versions = Versions::of_this_build();
    let viewer_urls = match &config.http.advertise {
        Some(url) if plan.roles.contains(&Role::Edge) => vec![url.clone()],
        _ => Vec::new(),
    };
    NodeSpec {
        id: plan.id.clone(),
        incarnation: cluster::fresh_incarnation(),
        roles: roles(&plan.roles),
        region: plan.region.clone(),
        capacity: Capacity::default(),
        addr: address,
        viewer_urls,
        versions: wire::control::Versions {
            control: wire::control::CONTROL_VERSION,
            log: versions.log,
            render: versions.render,
        },
    }
}

fn roles(roles: &BTreeSet<Role>) -> Roles {
    let bit = |role: &Role| match role {
        Role::Control => Roles::CONTROL,
        Role::Origin => Roles::ORIGIN,
        Role::Edge => Roles::EDGE,
    };
    roles.iter().map(bit).fold(Roles::default(), Roles::with)
}
