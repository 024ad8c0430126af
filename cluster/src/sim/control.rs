//! A simulated control node: a process with a driver, a disk, a clock of its own, and watchers.
//!
//! In: what arrives at it. Out: what its driver says, when the disk has had its time. It does what
//! the runtime does on its thread, without the thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use wire::NodeId;
use wire::control::{Answer, Ask, Disk as DiskContent, Refusal};

use super::disk::{CRASH, SimDisk};
use super::net::Index;
use crate::driver::{Compaction, Driver, Input, Now, Outputs, Token};
use crate::raft::ready::Fault;
use crate::state::Conf;
use crate::storage::{Identity, StorageError};
use crate::view::{View, Watcher};

/// Why a node whose disk failed while it took a raft id gives no answer: its process is gone.
pub(super) const DISK: &str = "the disk";
/// Often, and with few entries kept, so that whoever lags needs a snapshot.
const COMPACTION: Compaction = Compaction { after_bytes: 1024, kept_entries: 6 };
/// Most inputs taken in one step.
const MAX_BATCH: usize = 64;

/// A control node.
pub(super) struct ControlNode {
    pub(super) id: NodeId,
    pub(super) disk: SimDisk,
    pub(super) driver: Option<Driver<SimDisk>>,
    /// Goes up with each start, so that what was meant for an earlier life is known.
    pub(super) life: u64,
    pub(super) is_up: bool,
    pub(super) paused_until: Duration,
    pub(super) busy_until: Duration,
    /// What a durable write takes.
    pub(super) write_time: Duration,
    pub(super) view: Arc<View>,
    pub(super) watchers: BTreeMap<u64, Watcher>,
    inbox: Vec<Input>,
    next_token: Token,
    asked: BTreeMap<Token, (Index, u64)>,
    /// The last revision told to the checker and the view.
    pub(super) revision: u64,
    pub(super) conf: Conf,
}

/// What a wake of a control node led to.
pub(super) enum Woken {
    /// Nothing runs there, or it sleeps.
    Idle,
    /// The driver stepped.
    Stepped(Box<Outputs>),
    /// The process died within a write.
    Crashed,
    /// The driver gave up and wants to be started again.
    Faulted,
}

impl ControlNode {
    pub(super) fn new(id: NodeId, disk_name: u64) -> Self {
        Self {
            id,
            disk: SimDisk::new(disk_name),
            driver: None,
            life: 0,
            is_up: true,
            paused_until: Duration::ZERO,
            busy_until: Duration::ZERO,
            write_time: Duration::from_micros(300),
            view: Arc::new(View::default()),
            watchers: BTreeMap::new(),
            inbox: Vec::new(),
            next_token: 0,
            asked: BTreeMap::new(),
            revision: 0,
            conf: Conf::default(),
        }
    }

    /// Starts the process, or the driver in it.
    pub(super) fn start(&mut self, seed: u64) -> Result<(), Fault> {
        self.is_up = true;
        self.life += 1;
        self.inbox.clear();
        self.asked.clear();
        self.revision = 0;
        self.driver = None;
        if !self.disk.is_empty() {
            let mut driver = Driver::start(self.id.clone(), self.disk.clone(), seed)?;
            driver.set_compaction(COMPACTION);
            self.driver = Some(driver);
        }
        Ok(())
    }

    /// Ends the process.
    pub(super) fn stop(&mut self) {
        self.is_up = false;
        self.life += 1;
        self.driver = None;
        self.inbox.clear();
        self.asked.clear();
        self.watchers.clear();
        // What a process that is gone knew is gone, too.
        self.view = Arc::new(View::default());
    }

    pub(super) fn put(&mut self, input: Input) {
        self.inbox.push(input);
    }

    /// Takes a question, and answers it at once if it is not for the driver.
    pub(super) fn ask(
        &mut self,
        from: Index,
        peer: NodeId,
        op: u64,
        ask: Ask,
    ) -> Option<Result<Answer, Refusal>> {
        let member = self.driver.as_ref().map(|driver| driver.state().cluster());
        match (ask, member) {
            (Ask::Locate { room }, _) => Some(Ok(Answer::Location(self.view.locate(&room)))),
            (Ask::Probe, None) if self.disk.is_empty() => {
                Some(Ok(Answer::Probe(DiskContent::Empty { disk: self.disk.name() })))
            }
            (Ask::Probe, Some(cluster)) => {
                let raft_id = self.driver.as_ref().map_or(0, Driver::raft_id);
                Some(Ok(Answer::Probe(DiskContent::Member { cluster, raft_id })))
            }
            (Ask::Adopt { cluster, raft_id, disk }, None) if self.disk.is_empty() => {
                if disk != self.disk.name() {
                    return Some(Err(Refusal::Conflict("another disk".to_owned())));
                }
                let identity = Identity { cluster, raft_id };
                match Driver::adopt(self.disk.clone(), identity) {
                    Ok(()) => Some(Ok(Answer::Done)),
                    Err(_) => Some(Err(Refusal::Unavailable(DISK.to_owned()))),
                }
            }
            (Ask::Adopt { cluster, raft_id, .. }, Some(own)) => {
                let same = own == cluster
                    && self.driver.as_ref().is_some_and(|driver| driver.raft_id() == raft_id);
                let refusal = || Err(Refusal::Conflict("a member already".to_owned()));
                Some(if same { Ok(Answer::Done) } else { refusal() })
            }
            (_, None) => Some(Err(Refusal::Unavailable("no cluster".to_owned()))),
            (ask, Some(_)) => {
                self.next_token += 1;
                self.asked.insert(self.next_token, (from, op));
                self.inbox.push(Input::Ask { token: self.next_token, peer, ask });
                None
            }
        }
    }

    /// Who asked the question with this token.
    pub(super) fn asker(&mut self, token: Token) -> Option<(Index, u64)> {
        self.asked.remove(&token)
    }

    /// Lets the driver take what has come.
    pub(super) fn wake(&mut self, now: Now) -> Woken {
        if !self.is_up || now.mono < self.paused_until || now.mono < self.busy_until {
            return Woken::Idle;
        }
        let Some(driver) = &mut self.driver else { return Woken::Idle };
        let batch: Vec<Input> = self.inbox.drain(..self.inbox.len().min(MAX_BATCH)).collect();
        let writes = self.disk.writes();
        match driver.step(now, batch) {
            Ok(out) => {
                let written = self.disk.writes() - writes;
                self.busy_until = now.mono + self.write_time * u32::try_from(written).unwrap_or(1);
                Woken::Stepped(Box::new(out))
            }
            Err(Fault::Storage(StorageError::Stopped(CRASH))) => Woken::Crashed,
            Err(_) => {
                self.driver = None;
                self.inbox.clear();
                self.asked.clear();
                Woken::Faulted
            }
        }
    }

    /// Whether something waits for the driver.
    pub(super) fn has_mail(&self) -> bool {
        !self.inbox.is_empty()
    }
}
