//! The thread that runs a member: it has the clock and the disk that the driver does without.
//!
//! In: questions and inputs through one bounded queue. Out: answers to their askers, messages to
//! the transport, changes to the view. A thread of its own, as a write to disk blocks it; what
//! comes in meanwhile shares the next write.
//!
//! A fault or a panic of the raft crate ends the driver, not the process: it is reported as an
//! error, counted, and the driver starts again from its disk. Storage faults are retried for as long
//! as they last, as a full disk may get room again; a member that keeps panicking has a damaged log
//! and is given up, which the process is told through [`Health::failed`].

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot, watch};
use wire::control::{Answer, Ask, Disk as DiskContent, Refusal};
use wire::{ClusterId, NodeId};

use crate::driver::{Driver, Errand, Figures, Input, Leadership, Now, Token};
use crate::metrics::Metrics;
use crate::raft::ready::Fault;
use crate::storage::redb::RedbDisk;
use crate::storage::{Disk as _, Identity, StorageError};
use crate::transport::Transport;
use crate::view::View;

/// Most questions and inputs waiting for the driver; a further question is refused as overloaded,
/// a further message is dropped as the network might.
pub(crate) const QUEUE: usize = 16_384;
/// Most of them taken in one step.
const MAX_BATCH: usize = 2048;
/// Why a control node on an empty disk answers nothing.
const NO_CLUSTER: &str = "this control node is in no cluster yet";
/// How long a member waits after a fault before it starts again; doubles with each fault within
/// [`FAULT_WINDOW`], up to [`MAX_RESTART_AFTER`].
const RESTART_AFTER: Duration = Duration::from_millis(50);
/// See [`RESTART_AFTER`].
const MAX_RESTART_AFTER: Duration = Duration::from_secs(2);
/// How long a fault counts.
const FAULT_WINDOW: Duration = Duration::from_secs(60);
/// So many panics within [`FAULT_WINDOW`] and the member is given up.
const MAX_PANICS: usize = 5;
/// A step that takes longer than this has waited for the disk for too long to lead.
const SLOW_STEP: Duration = Duration::from_millis(500);
/// So many slow steps within [`SLOW_WINDOW`], and a leader hands over.
const MAX_SLOW_STEPS: usize = 2;
/// See [`MAX_SLOW_STEPS`].
const SLOW_WINDOW: Duration = Duration::from_secs(5);

/// What is sent to the thread.
pub(crate) enum Call {
    /// A question; the answer goes back through the channel, or none if the driver faults.
    Ask { peer: NodeId, ask: Ask, reply: oneshot::Sender<Result<Answer, Refusal>> },
    /// Anything else that happens to a member.
    Input(Input),
    /// The state, as bytes, and the log index it is of.
    Backup { reply: oneshot::Sender<Result<(u64, Vec<u8>), Refusal>> },
    /// All founders' disks are empty: found a cluster.
    Found,
    /// End.
    Stop,
}

/// How a control node is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// The cluster and this member's raft id, once it is in one.
    pub member: Option<(ClusterId, u64)>,
    /// Whether its disk has been read and is empty: it waits to found a cluster or to be added.
    pub is_empty: bool,
    /// Who leads.
    pub leadership: Leadership,
    /// What stopped the member, until it runs again.
    pub fault: Option<String>,
    /// Whether it has been given up: the process should end.
    pub failed: bool,
}

/// What the thread needs.
pub(crate) struct Runtime {
    pub(crate) me: NodeId,
    pub(crate) path: PathBuf,
    pub(crate) founders: Vec<(NodeId, SocketAddr)>,
    pub(crate) calls: Receiver<Call>,
    pub(crate) view: Arc<View>,
    pub(crate) transport: Arc<Transport>,
    pub(crate) errands: mpsc::Sender<Errand>,
    pub(crate) health: watch::Sender<Health>,
    pub(crate) metrics: Metrics,
    /// Called when the member's cluster is known.
    pub(crate) on_cluster: Box<dyn Fn(ClusterId) + Send>,
}

/// Why a driver ended without a fault.
enum Ended {
    /// The process ends.
    Stopped,
    /// The disk has become a member's.
    Joined,
}

impl Runtime {
    /// Runs until told to stop, or given up.
    pub(crate) fn run(self) {
        let mut faults: VecDeque<(Instant, bool)> = VecDeque::new();
        loop {
            let mut is_panic = false;
            let fault = match catch_unwind(AssertUnwindSafe(|| self.live())) {
                Ok(Ok(Ended::Stopped)) => return,
                Ok(Ok(Ended::Joined)) => continue,
                Ok(Err(fault)) => fault.to_string(),
                Err(panic) => {
                    is_panic = true;
                    format!("panic: {}", panic_text(panic.as_ref()))
                }
            };
            self.metrics.restarts.inc();
            faults.push_back((Instant::now(), is_panic));
            faults.retain(|(at, _)| at.elapsed() < FAULT_WINDOW);
            let failed = faults.iter().filter(|(_, is_panic)| *is_panic).count() >= MAX_PANICS;
            let doublings = faults.len().min(16) as u32;
            let pause = (RESTART_AFTER * (1 << doublings) / 2).min(MAX_RESTART_AFTER);
            tracing::error!(%fault, failed, "the control plane of this node stopped");
            self.health.send_modify(|health| {
                health.fault = Some(fault.clone());
                health.leadership = Leadership::default();
                health.failed = failed;
            });
            if failed || self.refuse_all(&fault, pause) {
                return;
            }
        }
    }

    /// Refuses questions for a while. True if told to stop.
    fn refuse_all(&self, why: &str, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        loop {
            match self.calls.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Call::Ask { reply, .. }) => {
                    // Whoever does not wait any more needs no answer.
                    let _ = reply.send(Err(Refusal::Unavailable(why.to_owned())));
                }
                Ok(Call::Backup { reply }) => {
                    let _ = reply.send(Err(Refusal::Unavailable(why.to_owned())));
                }
                Ok(Call::Input(_) | Call::Found) => {}
                Ok(Call::Stop) | Err(RecvTimeoutError::Disconnected) => return true,
                Err(RecvTimeoutError::Timeout) => return false,
            }
        }
    }

    /// Opens the disk and runs what is on it.
    fn live(&self) -> Result<Ended, Fault> {
        let fresh = rand::random();
        let open = || RedbDisk::open(&self.path, fresh, self.metrics.sync_seconds.clone());
        let mut disk = open()?;
        let image = disk.load()?;
        match image.identity {
            Some(identity) => self.drive(disk, identity),
            None if self.founders.len() == 1 && self.founders[0].0 == self.me => {
                self.found(disk)?;
                Ok(Ended::Joined)
            }
            None => self.wait_empty(disk, image.disk),
        }
    }

    fn found(&self, disk: RedbDisk) -> Result<(), Fault> {
        let cluster = ClusterId::random().map_err(|_| StorageError::Stopped("no randomness"))?;
        Driver::found(disk, cluster, &self.founders)?;
        tracing::info!(%cluster, founders = self.founders.len(), "cluster founded");
        Ok(())
    }

    /// Waits on an empty disk until the founders agree or a leader gives this node a raft id.
    fn wait_empty(&self, disk: RedbDisk, name: u64) -> Result<Ended, Fault> {
        tracing::info!("in no cluster yet; waiting for the other control nodes");
        self.health.send_modify(|health| {
            (health.member, health.fault) = (None, None);
            health.is_empty = true;
        });
        while let Ok(call) = self.calls.recv() {
            let (peer, ask, reply) = match call {
                Call::Ask { peer, ask, reply } => (peer, ask, reply),
                Call::Input(_) => continue,
                Call::Backup { reply } => {
                    let _ = reply.send(Err(Refusal::Unavailable(NO_CLUSTER.to_owned())));
                    continue;
                }
                Call::Found => {
                    self.found(disk)?;
                    return Ok(Ended::Joined);
                }
                Call::Stop => return Ok(Ended::Stopped),
            };
            let answer = match ask {
                Ask::Probe => Ok(Answer::Probe(DiskContent::Empty { disk: name })),
                Ask::Adopt { cluster, raft_id, disk: meant } => {
                    if meant != name {
                        Err(Refusal::Conflict("the raft id is for another disk".to_owned()))
                    } else if !self.founders.iter().any(|(node, _)| *node == peer) {
                        Err(Refusal::WrongNode { peer, claimed: self.me.clone() })
                    } else {
                        Driver::adopt(disk, Identity { cluster, raft_id })?;
                        tracing::info!(%cluster, raft_id, "joined a cluster");
                        let _ = reply.send(Ok(Answer::Done));
                        return Ok(Ended::Joined);
                    }
                }
                _ => Err(Refusal::Unavailable(NO_CLUSTER.to_owned())),
            };
            let _ = reply.send(answer);
        }
        Ok(Ended::Stopped)
    }

    /// Waits for something to happen until `until`, and takes what has. False if told to stop.
    fn gather(
        &self,
        driver: &Driver<RedbDisk>,
        identity: Identity,
        desk: &mut Desk,
        until: Instant,
        inputs: &mut Vec<Input>,
    ) -> bool {
        let mut patience = until.saturating_duration_since(Instant::now());
        while inputs.len() < MAX_BATCH {
            match self.calls.recv_timeout(patience) {
                Ok(Call::Ask { peer, ask, reply }) => {
                    inputs.extend(desk.take(identity, peer, ask, reply));
                }
                Ok(Call::Input(input)) => inputs.push(input),
                Ok(Call::Backup { reply }) => {
                    let state = driver.state().encode();
                    let state = state
                        .map(|bytes| (driver.state().revision(), bytes))
                        .map_err(|error| Refusal::Unavailable(error.to_string()));
                    // Whoever does not wait any more needs no backup.
                    let _ = reply.send(state);
                }
                Ok(Call::Found) => {}
                Ok(Call::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => return true,
            }
            patience = Duration::ZERO;
        }
        true
    }

    /// Runs a member until it is told to stop or faults.
    fn drive(&self, disk: RedbDisk, identity: Identity) -> Result<Ended, Fault> {
        let Identity { cluster, raft_id } = identity;
        let mut driver = Driver::start(self.me.clone(), disk, rand::random())?;
        (self.on_cluster)(cluster);
        self.transport.set_identity(identity);
        self.health.send_modify(|health| {
            health.member = Some((cluster, raft_id));
            (health.is_empty, health.fault) = (false, None);
        });
        tracing::info!(%cluster, raft_id, revision = driver.state().revision(), "member started");
        let start = Instant::now();
        let mut desk = Desk::default();
        let mut figures = Figures::default();
        let mut next_tick = start;
        let mut slow_steps: VecDeque<Instant> = VecDeque::new();
        loop {
            let mut inputs = Vec::new();
            if slow_steps.len() >= MAX_SLOW_STEPS {
                slow_steps.clear();
                inputs.push(Input::SlowDisk);
            }
            if !self.gather(&driver, identity, &mut desk, next_tick, &mut inputs) {
                return Ok(Ended::Stopped);
            }
            let at = Instant::now();
            if at >= next_tick {
                next_tick = at + Driver::<RedbDisk>::TICK;
            }
            let out = driver.step(Now { mono: at - start, unix_s: unix_s() }, inputs)?;
            if at.elapsed() > SLOW_STEP {
                slow_steps.push_back(at);
                slow_steps.retain(|at| at.elapsed() < SLOW_WINDOW);
            }
            if let Some(published) = out.published {
                self.view.update(published);
            }
            self.transport.send(out.messages, driver.state());
            for (token, answer) in out.replies {
                desk.answer(token, answer, &self.metrics);
            }
            for errand in out.errands {
                // One that does not fit is sent again by the driver.
                let _ = self.errands.try_send(errand);
            }
            let leadership = driver.leadership();
            self.health.send_if_modified(|health| {
                let changed = health.leadership != *leadership;
                if changed {
                    health.leadership = leadership.clone();
                }
                changed
            });
            let now = driver.figures();
            self.metrics.update(&now, &figures, self.view.watchers());
            figures = now;
        }
    }
}

/// Who waits for which answer.
#[derive(Default)]
struct Desk {
    next: Token,
    waiting: HashMap<Token, oneshot::Sender<Result<Answer, Refusal>>>,
}

impl Desk {
    /// Turns a question into an input, or answers it if it is about the disk.
    fn take(
        &mut self,
        identity: Identity,
        peer: NodeId,
        ask: Ask,
        reply: oneshot::Sender<Result<Answer, Refusal>>,
    ) -> Option<Input> {
        let Identity { cluster, raft_id } = identity;
        let answer = match ask {
            Ask::Probe => Answer::Probe(DiskContent::Member { cluster, raft_id }),
            Ask::Adopt { cluster: other, raft_id: given, .. } => {
                if (other, given) == (cluster, raft_id) {
                    Answer::Done
                } else {
                    let refusal = Refusal::Conflict(format!("member {raft_id} of {cluster}"));
                    let _ = reply.send(Err(refusal));
                    return None;
                }
            }
            ask => {
                self.next += 1;
                self.waiting.insert(self.next, reply);
                return Some(Input::Ask { token: self.next, peer, ask });
            }
        };
        let _ = reply.send(Ok(answer));
        None
    }

    fn answer(&mut self, token: Token, answer: Result<Answer, Refusal>, metrics: &Metrics) {
        if let Err(refusal) = &answer {
            metrics.asks_refused.with_label_values(&[crate::metrics::reason(refusal)]).inc();
        }
        if let Some(reply) = self.waiting.remove(&token) {
            // Whoever does not wait any more needs no answer.
            let _ = reply.send(answer);
        }
    }
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "without a message".to_owned())
}
