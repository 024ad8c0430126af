//! A whole cluster in one process: what `tidewater dev` runs and black-box tests start.
//!
//! In: [`Options`]. Out: a [`Dev`] that knows every port and can be stopped. Nodes `o1` (control and
//! origin) and `e1` to `eN` (edges) each have their own identity, QUIC endpoint, metrics and data
//! folder, and speak to each other over loopback exactly as separate machines would. The process is
//! the cluster's CA too.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail};
use futures_util::future::join_all;
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use wire::{NodeId, RoomId, control::KeyId, identity::authority::Authority};

use crate::{
    admin::{self, Shown},
    assemble::{Node, Plan, STOP_MARGIN},
    config::{Config, ControlNode, Role, Sources},
    demo::{self, DEMO_ROOM, TestCard},
    facts::Facts,
    ports::Ports,
    shutdown::drained,
    telemetry::Metrics,
    version::Versions,
};

/// How long founding the cluster and joining it may take. It takes a second.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to keep data; `None` is a temporary folder, removed by [`Dev::stop`].
    pub data: Option<PathBuf>,
    /// How many edges, at least one. The first takes `http.listen`, the others free ports.
    pub edges: u16,
    /// Whether to push the test card to `live/demo`.
    pub demo: bool,
    /// Settings over the defaults of `dev`.
    pub sources: Sources,
}

/// A running cluster.
pub struct Dev {
    ports: Ports,
    facts: Facts,
    config: watch::Sender<Arc<Config>>,
    /// Origin first.
    nodes: Vec<Node>,
    admin: admin::Listener,
    api: Option<admin::Listener>,
    demo: Option<Demo>,
    stop: CancellationToken,
    admin_closed: CancellationToken,
    /// Removed when dropped.
    temporary: Option<tempfile::TempDir>,
}

/// The test card on air.
struct Demo {
    task: JoinHandle<()>,
    stop: CancellationToken,
    /// Made where pushing asks for a key, and revoked at the end.
    key: Option<KeyId>,
}

impl Options {
    /// One edge, every port free, a temporary data folder, no test card: for tests.
    #[must_use]
    pub fn for_tests() -> Self {
        let free = |key: &str| (key.to_owned(), "127.0.0.1:0".to_owned());
        let keys = ["rtmp.listen", "http.listen", "admin.listen", "cluster.listen"];
        let set = keys.map(free).to_vec();
        let sources = Sources { dev: true, set, ..Sources::default() };
        Self { data: None, edges: 1, demo: false, sources }
    }

    /// As this, with one more `--set`.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.sources.set.push((key.to_owned(), value.to_owned()));
        self
    }

    /// As this, with so many edges.
    #[must_use]
    pub fn edges(self, edges: u16) -> Self {
        Self { edges, ..self }
    }
}

impl Dev {
    /// Starts everything; when it returns, every listener answers and every node has joined. When it
    /// fails, what had started has been stopped.
    ///
    /// # Errors
    /// A wrong configuration, a data folder in use, or a port in use; names the key to change.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let mut nodes = Vec::new();
        let started = Self::launch(options, &mut nodes).await;
        for node in nodes.into_iter().rev() {
            node.stop(Instant::now()).await;
        }
        started
    }

    /// Leaves the nodes that have started in `nodes` when it fails.
    async fn launch(options: Options, nodes: &mut Vec<Node>) -> anyhow::Result<Self> {
        let sources = Sources { dev: true, ..options.sources };
        let mut config = Config::load(&sources)?;
        let named =
            options.data.or_else(|| config.is_set("node.data").then(|| config.node.data.clone()));
        let (data, temporary) = data_folder(named)?;
        config.node.data = data;
        let metrics = Metrics::new(&Versions::of_this_build())?;
        let facts = Facts::default();
        launch_nodes(&config, options.edges, &metrics, &facts, nodes).await?;
        if !facts.ready_within(READY_TIMEOUT).await {
            bail!("the cluster did not get ready: {}", facts.not_ready().join("; "));
        }

        let origin = &nodes[0];
        let rtmp = origin.rtmp().context("the origin has an RTMP listener")?;
        let (config, live) = watch::channel(Arc::new(config));
        let stop = CancellationToken::new();
        let shown = Shown {
            config: live,
            client: origin.client().clone(),
            events: origin.events(),
            audit: origin.audit(),
            inquiries: origin.inquiries().clone(),
            refused: origin.refused().clone(),
            metrics,
            facts: facts.clone(),
            rtmp: Some(rtmp),
            http: nodes.iter().find_map(Node::http),
            warns: false,
            stop: stop.clone(),
        };
        let admin_closed = CancellationToken::new();
        let admin = admin::Listener::admin(shown.clone(), admin_closed.clone()).await?;
        let api = admin::Listener::api(shown, admin_closed.clone()).await?;
        let http = nodes.iter().filter_map(Node::http).collect();
        let ports = Ports { rtmp, http, admin: admin.address, cluster: origin.address() };
        let demo = match options.demo {
            true => Some(Demo::start(origin, rtmp, config.borrow().auth.publish_open).await?),
            false => None,
        };
        let nodes = std::mem::take(nodes);
        Ok(Self { ports, facts, config, nodes, admin, api, demo, stop, admin_closed, temporary })
    }

    /// Where everything listens.
    #[must_use]
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// Where the API listens by itself, if `api.listen` is on.
    #[must_use]
    pub fn api(&self) -> Option<SocketAddr> {
        self.api.as_ref().map(|api| api.address)
    }

    /// The nodes: `o1`, then the edges.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// What the roles know about rooms.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The configuration in force, for taking over what a reload changed.
    #[must_use]
    pub fn config(&self) -> &watch::Sender<Arc<Config>> {
        &self.config
    }

    /// Resolves when a role has died by itself; says which and why.
    pub async fn failed(&self) -> anyhow::Error {
        let failures = self.nodes.iter().map(|node| Box::pin(node.failed()));
        futures_util::future::select_all(failures).await.0
    }

    /// Stops the test card, then the edges, then the origin, finishing what is in flight for at most
    /// `grace`; then removes a temporary data folder.
    pub async fn stop(self, grace: Duration) {
        self.stop.cancel();
        let deadline = Instant::now() + grace;
        let Self { mut nodes, admin, api, demo, admin_closed, temporary, .. } = self;
        let drain = async {
            if let Some(demo) = demo {
                demo.end(nodes[0].client()).await;
            }
            let edges = nodes.split_off(1);
            join_all(edges.into_iter().map(|edge| edge.stop(deadline))).await;
            join_all(nodes.into_iter().map(|node| node.stop(deadline))).await;
            admin_closed.cancel();
            admin.closed().await;
            if let Some(api) = api {
                api.closed().await;
            }
        };
        if !drained(grace + STOP_MARGIN, drain).await {
            tracing::warn!(?grace, "not everything in flight was finished in time; cut off");
        }
        drop(temporary);
    }
}

impl Demo {
    async fn start(origin: &Node, rtmp: SocketAddr, publish_open: bool) -> anyhow::Result<Self> {
        let room = RoomId::parse(DEMO_ROOM).context("the demo's room")?;
        let (key, token) = if publish_open {
            (None, None)
        } else {
            let key = origin.client().create_key(&room).await?;
            (Some(key.id), Some(key.key))
        };
        let stop = CancellationToken::new();
        let target = demo::Target { rtmp: on_loopback(rtmp), room, token };
        let task = tokio::spawn(demo::run(TestCard::built_in(), target, stop.clone()));
        Ok(Self { task, stop, key })
    }

    async fn end(self, client: &cluster::Client) {
        self.stop.cancel();
        // An error is a panic, which has been reported where it happened.
        let _ = self.task.await;
        if let Some(key) = self.key
            && let Err(error) = client.revoke_key(key).await
        {
            tracing::warn!(%key, %error, "the test card's publish key is left behind");
        }
    }
}

/// Starts `o1`, then the edges, each into `nodes` as soon as it runs.
async fn launch_nodes(
    config: &Config,
    edges: u16,
    metrics: &Metrics,
    facts: &Facts,
    nodes: &mut Vec<Node>,
) -> anyhow::Result<()> {
    let authority = authority(&config.node.data.join("ca"))?;
    let origin = plan(config, "o1", &[Role::Control, Role::Origin], &authority)?;
    let origin = Node::start(origin, config, metrics.node()?, facts).await?;
    let control = ControlNode { id: origin.id().clone(), address: origin.address().to_string() };
    nodes.push(origin);
    for number in 1..=edges {
        let mut edge = plan(config, &format!("e{number}"), &[Role::Edge], &authority)?;
        edge.cluster_listen.set_port(0);
        edge.control.push(control.clone());
        if number > 1 {
            edge.http_listen.set_port(0);
        }
        nodes.push(Node::start(edge, config, metrics.node()?, facts).await?);
    }
    Ok(())
}

fn plan(config: &Config, id: &str, roles: &[Role], authority: &Authority) -> anyhow::Result<Plan> {
    let id = NodeId::new(id)?;
    Ok(Plan {
        identity: authority.identity(&id)?,
        files: None,
        ca_key: None,
        region: config.node.region.clone(),
        roles: roles.iter().copied().collect(),
        data: config.node.data.join(id.as_str()),
        cluster_listen: config.cluster.listen,
        advertise: None,
        control: Vec::new(),
        http_listen: config.http.listen,
        id,
    })
}

/// The folder to use, and what removes it if it is temporary.
fn data_folder(asked: Option<PathBuf>) -> anyhow::Result<(PathBuf, Option<tempfile::TempDir>)> {
    match asked {
        Some(folder) => Ok((std::path::absolute(folder)?, None)),
        None => {
            let temporary = tempfile::Builder::new().prefix("tidewater-dev-").tempdir();
            let temporary = temporary
                .context("cannot make a temporary data folder; name one with --data DIR")?;
            Ok((temporary.path().to_owned(), Some(temporary)))
        }
    }
}

/// The cluster's CA: made once per data folder, so that its nodes trust each other after a restart.
fn authority(folder: &Path) -> anyhow::Result<Authority> {
    let (cert, key) = (folder.join("ca.pem"), folder.join("ca.key"));
    if cert.exists() && key.exists() {
        return Ok(Authority::load(&cert, &key)?);
    }
    let authority = Authority::create(SystemTime::now())?;
    authority.write(folder)?;
    Ok(authority)
}

/// An address to connect to, where `listen` may be a wildcard.
fn on_loopback(listen: SocketAddr) -> SocketAddr {
    match listen {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => ([127, 0, 0, 1], v4.port()).into(),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => {
            (std::net::Ipv6Addr::LOCALHOST, v6.port()).into()
        }
        specific => specific,
    }
}

#[cfg(test)]
mod tests;
