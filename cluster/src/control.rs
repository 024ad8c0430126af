//! The control role of a node: assembly of thread, transport and service, and the founding of a
//! cluster.
//!
//! In: the list of control nodes, the node's data folder, its links. Out: a running member, the
//! service for the endpoint, and the core for clients in the same process.
//!
//! Founding: only if every listed control node answers that its disk is empty does the first of the
//! list create the cluster, as its only voter with the others as wanted members; the leader then
//! takes them in one by one, each under the raft id the log gives it. So a founder that dies at any
//! moment leaves either nothing or a cluster, and a list that is edited later founds nothing.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use wire::control::{Answer, Ask, Disk as DiskContent, Refusal};
use wire::{Links, NodeId, Service};

use crate::Error;
use crate::archive;
use crate::client::link::ask_once;
use crate::driver::{Errand, Input};
use crate::metrics::Metrics;
use crate::runtime::{Call, Health, QUEUE, Runtime};
use crate::server::{ControlService, Core};
use crate::transport::Transport;
use crate::view::View;

/// The file in the data folder that holds the member's log.
pub(crate) const STORE_FILE: &str = "control.redb";
/// How often the first listed node asks the others whether all are empty.
const FOUND_EVERY: Duration = Duration::from_millis(300);
/// How long a question to another control node may take.
const ERRAND_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a leader that ends waits for another to take over.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(1);
/// Errands under way; further ones wait for the driver to send them again.
const ERRANDS: usize = 64;
/// Most control nodes in a list: five vote, a few more may be learners or on their way.
const MAX_LISTED: usize = 16;

/// What a control node needs to know.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// This node.
    pub node: NodeId,
    /// Its data folder.
    pub data: PathBuf,
    /// All control nodes and their addresses, the same list in the same order on all of them.
    pub control: Vec<(NodeId, SocketAddr)>,
}

/// A running control node.
pub struct Control {
    node: NodeId,
    core: Core,
    service: Arc<ControlService>,
    health: watch::Receiver<Health>,
    thread: Option<JoinHandle<()>>,
    _tasks: JoinSet<()>,
}

impl Control {
    /// Starts the control role. Needs a Tokio runtime around it. The endpoint must be given
    /// [`Control::service`] before other nodes can ask anything.
    ///
    /// # Errors
    /// [`Error::Config`] for a list that does not name this node or names one twice,
    /// [`Error::Thread`]. A store that cannot be opened is reported by [`Control::health`], as it
    /// may become usable again.
    pub fn start(config: ControlConfig, links: Links, metrics: Metrics) -> Result<Self, Error> {
        check(&config)?;
        let (calls, queue) = sync_channel(QUEUE);
        let view = Arc::new(View::default());
        let transport =
            Transport::new(Handle::current(), links.clone(), calls.clone(), metrics.clone());
        let (errands, errand_queue) = mpsc::channel(ERRANDS);
        let (health_sender, health) = watch::channel(Health::default());
        let endpoint = links.endpoint().clone();
        let runtime = Runtime {
            me: config.node.clone(),
            path: config.data.join(STORE_FILE),
            founders: config.control.clone(),
            calls: queue,
            view: Arc::clone(&view),
            transport: Arc::clone(&transport),
            errands,
            health: health_sender,
            metrics,
            on_cluster: Box::new(move |cluster| endpoint.set_cluster(cluster)),
        };
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || runtime.run())
            .map_err(Error::Thread)?;
        let core = Core { view, calls: calls.clone() };
        let node = config.node.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(run_errands(errand_queue, links.clone(), calls.clone(), health.clone()));
        if config.control.len() > 1 && config.control[0].0 == config.node {
            tasks.spawn(found(config, links, calls, health.clone()));
        }
        let service = Arc::new(ControlService { core: core.clone(), transport });
        Ok(Self { node, core, service, health, thread: Some(thread), _tasks: tasks })
    }

    /// The service for the endpoint: control, watch and raft streams.
    #[must_use]
    pub fn service(&self) -> Arc<dyn Service> {
        Arc::clone(&self.service) as Arc<dyn Service>
    }

    /// How the control node is doing, now and whenever that changes.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    /// Waits until the control node has been given up: its log is damaged, and the process should
    /// end with what this returns. Pending as long as all is well.
    pub async fn failed(&self) -> String {
        let mut health = self.health.clone();
        let failed = health.wait_for(|health| health.failed).await;
        match failed {
            Ok(health) => health.fault.clone().unwrap_or_default(),
            Err(_) => "the control plane's thread has ended".to_owned(),
        }
    }

    /// A handle to take backups by.
    #[must_use]
    pub fn backups(&self) -> Backups {
        Backups { core: self.core.clone() }
    }

    async fn hand_over(&self) {
        let mut health = self.health.clone();
        let leads = |health: &Health| health.leadership.is_leader;
        if !leads(&health.borrow()) {
            return;
        }
        let asked = self.core.answer(&self.node, Ask::TransferLeader { to: None });
        let handed = async {
            // Refused by the only voter, which has nobody to hand over to. Who leads next need not
            // be waited for: this member is not needed for the election any more.
            tokio::select! {
                _ = asked => {}
                _ = health.wait_for(|health| !leads(health)) => {}
            }
        };
        let _ = tokio::time::timeout(HAND_OVER_TIMEOUT, handed).await;
    }

    pub(crate) fn core(&self) -> Core {
        self.core.clone()
    }

    /// Ends the control node. A leader hands over first, so that placement goes on without an
    /// election. What it acknowledged is on disk.
    pub async fn stop(mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.hand_over().await;
        let calls = self.core.calls.clone();
        // The queue may be full, and a member that writes to a slow disk ends after that write.
        let ended = tokio::task::spawn_blocking(move || {
            let _ = calls.send(Call::Stop);
            thread.join()
        });
        if let Ok(Err(_)) = ended.await {
            tracing::error!("the control plane's thread panicked");
        }
    }
}

/// Takes backups of a control node. Clones are the same handle; it keeps nothing running.
#[derive(Clone)]
pub struct Backups {
    core: Core,
}

/// The replicated state at one moment.
#[derive(Clone, PartialEq, Eq)]
pub struct Backup {
    /// The log index it is of.
    pub revision: u64,
    /// What [`crate::restore`] takes.
    pub bytes: Vec<u8>,
}

impl Backups {
    /// A backup of the replicated state, as of what this member has applied.
    ///
    /// # Errors
    /// [`Error::Refused`] while the member does not run.
    pub async fn take(&self) -> Result<Backup, Error> {
        let (reply, state) = oneshot::channel();
        let overloaded = || Refusal::Overloaded("the control node's queue".to_owned());
        self.core.calls.try_send(Call::Backup { reply }).map_err(|_| overloaded())?;
        let restarts = || Refusal::Unavailable("the control node restarts".to_owned());
        let (revision, state) = state.await.map_err(|_| restarts())??;
        Ok(Backup { revision, bytes: archive::seal(state) })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if self.thread.is_some() {
            // Without waiting: the thread ends by itself, at the latest when the queue does.
            let _ = self.core.calls.try_send(Call::Stop);
        }
    }
}

fn check(config: &ControlConfig) -> Result<(), Error> {
    let listed = &config.control;
    if listed.is_empty() || listed.len() > MAX_LISTED {
        return Err(Error::Config(format!(
            "the list of control nodes has {} entries; it needs 1 to {MAX_LISTED}",
            listed.len()
        )));
    }
    for (i, (node, _)) in listed.iter().enumerate() {
        if listed[..i].iter().any(|(other, _)| other == node) {
            return Err(Error::Config(format!("the list of control nodes names {node} twice")));
        }
    }
    if !listed.iter().any(|(node, _)| *node == config.node) {
        return Err(Error::Config(format!(
            "this node has the control role, but the list of control nodes does not name {}",
            config.node
        )));
    }
    Ok(())
}

/// Founds the cluster once all listed nodes say that they are empty. Ends when this node is in a
/// cluster, or another one is: then this node waits to be added.
async fn found(
    config: ControlConfig,
    links: Links,
    calls: SyncSender<Call>,
    mut health: watch::Receiver<Health>,
) {
    if health.wait_for(|health| health.is_empty || health.member.is_some()).await.is_err() {
        return;
    }
    let mut every = tokio::time::interval(FOUND_EVERY);
    while health.borrow().is_empty {
        every.tick().await;
        let others = config.control.iter().filter(|(node, _)| *node != config.node);
        let mut probes = JoinSet::new();
        for (node, addr) in others.cloned() {
            let links = links.clone();
            probes.spawn(async move { (probe(&links, &node, addr).await, node) });
        }
        let mut empty = 0;
        while let Some(Ok((found, node))) = probes.join_next().await {
            match found {
                Some(DiskContent::Empty { .. }) => empty += 1,
                Some(DiskContent::Member { cluster, .. }) => {
                    tracing::warn!(
                        %node, %cluster,
                        "this node is empty, but another control node is in a cluster; \
                         add this node with `tidewater cluster add`"
                    );
                    return;
                }
                None => {}
            }
        }
        if empty + 1 == config.control.len() && calls.try_send(Call::Found).is_ok() {
            let _ = health.wait_for(|health| !health.is_empty).await;
            return;
        }
    }
}

async fn probe(links: &Links, node: &NodeId, addr: SocketAddr) -> Option<DiskContent> {
    match tokio::time::timeout(ERRAND_TIMEOUT, ask_once(links, node, addr, Ask::Probe)).await {
        Ok(Ok(Ok(Answer::Probe(disk)))) => Some(disk),
        _ => None,
    }
}

/// Asks other control nodes what the driver wants to know, and tells it.
async fn run_errands(
    mut errands: mpsc::Receiver<Errand>,
    links: Links,
    calls: SyncSender<Call>,
    health: watch::Receiver<Health>,
) {
    let mut tasks = JoinSet::new();
    while let Some(errand) = errands.recv().await {
        while tasks.try_join_next().is_some() {}
        if tasks.len() >= ERRANDS {
            continue;
        }
        let Some((cluster, _)) = health.borrow().member else { continue };
        let (links, calls) = (links.clone(), calls.clone());
        tasks.spawn(async move {
            let found = match errand {
                Errand::Probe { raft_id, node, addr } => {
                    probe(&links, &node, addr).await.map(|disk| Input::Probed { raft_id, disk })
                }
                Errand::Adopt { raft_id, node, addr, disk } => {
                    let ask = Ask::Adopt { cluster, raft_id, disk };
                    let asked = ask_once(&links, &node, addr, ask);
                    match tokio::time::timeout(ERRAND_TIMEOUT, asked).await {
                        Ok(Ok(Ok(_))) => Some(Input::Adopted { raft_id, taken: true }),
                        Ok(Ok(Err(Refusal::Conflict(_)))) => {
                            Some(Input::Adopted { raft_id, taken: false })
                        }
                        // Not there or not willing: asked again later.
                        _ => None,
                    }
                }
            };
            if let Some(input) = found {
                // If the queue is full, the driver sends the errand again.
                let _ = calls.try_send(Call::Input(input));
            }
        });
    }
}
