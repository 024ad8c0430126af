//! Nodes on free ports: control nodes with a folder, and nodes that only ask.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use cluster::{
    Capacity, Client, ClientConfig, Control, ControlConfig, Metrics, NodeSpec, Roles, Versions,
};
use prometheus::Registry;
use tempfile::TempDir;
use wire::error::CloseCode;
use wire::hello::{VersionRange, WIRE_VERSIONS};
use wire::identity::authority::Authority;
use wire::{Endpoint, Hello, Limits, Links, NodeId, Region, RoomId, Service};

/// How long anything may take before a test calls it hung.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn id(text: &str) -> NodeId {
    NodeId::new(text).unwrap()
}

pub(crate) fn room(text: &str) -> RoomId {
    RoomId::new("live", text).unwrap()
}

/// Runs a test's body and fails it rather than hang.
pub(crate) async fn within<T>(body: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, body).await.expect("hung")
}

/// Waits until `condition` gives a value, looking again and again.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut condition: impl FnMut() -> F,
) -> T {
    let waiting = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"))
}

/// The certificates and folders of a cluster.
pub(crate) struct Site {
    authority: Authority,
    folder: TempDir,
}

/// A node that is up: its endpoint, and what runs on it.
pub(crate) struct Node {
    pub id: NodeId,
    pub addr: SocketAddr,
    pub client: Client,
    pub control: Option<Control>,
    endpoint: Endpoint,
}

/// An endpoint whose address is known before anything runs on it.
pub(crate) struct Bound {
    pub id: NodeId,
    pub addr: SocketAddr,
    roles: Roles,
    endpoint: Endpoint,
}

impl Site {
    pub(crate) fn new() -> Self {
        // Shown for tests that fail; RUST_LOG chooses.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let authority = Authority::create(SystemTime::now()).unwrap();
        Self { authority, folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn data(&self, node: &str) -> PathBuf {
        self.folder.path().join(node)
    }

    pub(crate) async fn bind(&self, node: &str, roles: Roles, addr: &str) -> Bound {
        let hello = Hello {
            wire: WIRE_VERSIONS,
            node: id(node),
            roles,
            region: Region::default(),
            software: "test".to_owned(),
            cluster: None,
            render: VersionRange { oldest: 1, newest: 1 },
        };
        let identity = self.authority.identity(&id(node)).unwrap();
        let metrics = wire::Metrics::new();
        let addr = addr.parse().unwrap();
        let bind = || async {
            // The last tasks of a node that stopped may hold its port for a moment.
            Endpoint::bind(addr, &identity, hello.clone(), Limits::default(), &metrics).ok()
        };
        let endpoint = until("the port is free", bind).await;
        let addr = endpoint.local_addr().unwrap();
        Bound { id: id(node), addr, roles, endpoint }
    }

    /// Starts what a bound node runs: the control role if it has it, and a client.
    pub(crate) fn start(&self, bound: Bound, control: &[(NodeId, SocketAddr)]) -> Node {
        let Bound { id, addr, roles, endpoint } = bound;
        let links = Links::new(endpoint.clone());
        let metrics = Metrics::register(&Registry::new()).unwrap();
        let spec = NodeSpec {
            id: id.clone(),
            incarnation: cluster::fresh_incarnation(),
            roles,
            region: Region::default(),
            capacity: Capacity::default(),
            addr,
            viewer_urls: Vec::new(),
            versions: Versions { control: 2, log: 2, render: 1 },
        };
        let config = ClientConfig { spec, control: control.to_vec() };
        if !roles.has(Roles::CONTROL) {
            endpoint.serve(Vec::new()).unwrap();
            let client = Client::connect(config, links, metrics).unwrap();
            return Node { id, addr, client, control: None, endpoint };
        }
        let control_config = ControlConfig {
            node: id.clone(),
            data: self.data(id.as_str()),
            control: control.to_vec(),
        };
        let control = Control::start(control_config, links.clone(), metrics.clone()).unwrap();
        let service: std::sync::Arc<dyn Service> = control.service();
        endpoint.serve(vec![service]).unwrap();
        let client = Client::local(&control, config, links, metrics).unwrap();
        Node { id, addr, client, control: Some(control), endpoint }
    }

    /// One control+origin node on a free port.
    pub(crate) async fn alone(&self, node: &str) -> Node {
        let bound = self.bind(node, Roles::CONTROL.with(Roles::ORIGIN), "127.0.0.1:0").await;
        let list = [(bound.id.clone(), bound.addr)];
        self.start(bound, &list)
    }

    /// A node without the control role.
    pub(crate) async fn guest(&self, node: &str, roles: Roles, control: &[&Node]) -> Node {
        let list: Vec<_> = control.iter().map(|node| (node.id.clone(), node.addr)).collect();
        self.start(self.bind(node, roles, "127.0.0.1:0").await, &list)
    }
}

impl Node {
    /// Ends the node. Its port is free again afterwards.
    pub(crate) async fn stop(self) {
        let Node { client, control, endpoint, .. } = self;
        drop(client);
        if let Some(control) = control {
            control.stop().await;
        }
        endpoint.close(CloseCode::Shutdown, "test").await;
    }

    /// Ends the node without handing over, as a crash would.
    pub(crate) async fn abandon(self) {
        let Node { client, control, endpoint, .. } = self;
        drop(control);
        drop(client);
        endpoint.close(CloseCode::Shutdown, "test").await;
    }

    pub(crate) async fn registered(&self) {
        let mut standing = self.client.standing();
        within(standing.wait_for(|standing| standing.is_registered)).await.unwrap();
    }
}
