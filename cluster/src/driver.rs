//! One member of the control plane: Raft, the state machine and the leader's soft state, as one
//! loop without sockets, tasks or clocks.
//!
//! In: [`Input`]s and the time. Out: [`Outputs`] — messages to peers, answers, what changed. The
//! disk is behind a trait, so that a simulation brings its own. [`Driver::step`] takes all inputs
//! that wait, then handles what Raft has ready: everything proposed in one step shares one write to
//! disk. A driver that returned a [`Fault`] is dropped and started again from its disk.
//!
//! Does not answer what needs no leader: locating and watching read the published view.

mod asks;
mod handover;
mod io;
mod members;
mod pending;
mod replica;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Duration;

use wire::NodeId;
use wire::control::{ClusterStatus, Refusal};

use crate::command::{CLOCK_START_UNIX_S, Command, Stamped};
use crate::leases::Leases;
use crate::planted::{Bug, is_planted};
use crate::raft::ready::{Fault, on_ready};
use crate::raft::{Node, TICK_MS};
use crate::scheduler::{Scheduler, Subject};
use crate::state::{Changes, State};
use crate::storage::{Batch, Disk, Identity, Log, StorageError};

use handover::Handover;
pub use io::Leadership;
pub(crate) use io::{Errand, Figures, Input, Now, Outputs, Published, Token};
use members::Members;
use pending::{Parked, Proposals, Reads, Waiting};
use replica::Replica;

/// What a disk holds that begins with `state`, whose only voter is `raft_id`, in `term`.
pub(crate) fn first_batch(state: &State, raft_id: u64, term: u64) -> Result<Batch, Fault> {
    let index = state.revision();
    let mut snapshot = crate::raft::snapshot(state.encode()?, index, term);
    snapshot.mut_metadata().mut_conf_state().set_voters(vec![raft_id]);
    Ok(Batch {
        identity: Some(Identity { cluster: state.cluster(), raft_id }),
        hard_state: Some(crate::raft::hard_state(term, 0, index)),
        base: Some((index, term)),
        clear: true,
        snapshot: Some(snapshot),
        sync: true,
        ..Batch::default()
    })
}

/// When the log is compacted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Compaction {
    /// Entry bytes after the last snapshot that make the next one due, unless the state is larger:
    /// then as many as the state has, so that snapshots cost at most as much as the log.
    pub(crate) after_bytes: u64,
    /// Entries kept before a snapshot, for followers that lag a little.
    pub(crate) kept_entries: u64,
}

impl Default for Compaction {
    fn default() -> Self {
        Self { after_bytes: 2 * 1024 * 1024, kept_entries: 2048 }
    }
}

/// A driver that was not stepped for this long was asleep, and knows nothing of who else was.
const ASLEEP_AFTER: Duration = Duration::from_millis(500);
/// How often the scheduler looks around.
const SCHEDULE_EVERY: Duration = Duration::from_millis(100);

/// A member.
pub(crate) struct Driver<D: Disk> {
    me: NodeId,
    node: Node<D>,
    replica: Replica,
    leases: Leases,
    scheduler: Scheduler,
    members: Members,
    proposals: Proposals,
    reads: Reads,
    parked: Parked,
    handover: Handover,
    leadership: Leadership,
    last_step: Option<Duration>,
    next_tick: Duration,
    next_schedule: Duration,
    /// The leader's clock: what the state had seen when it took over, and when that was.
    clock: (u64, Duration),
    compaction: Compaction,
    snapshot_bytes: u64,
    figures: Figures,
}

impl<D: Disk> Driver<D> {
    /// Writes a first state to an empty disk: the first member of a new cluster.
    ///
    /// # Errors
    /// [`Fault`] if the disk is not empty or fails.
    pub(crate) fn found(
        disk: D,
        cluster: wire::ClusterId,
        founders: &[(NodeId, SocketAddr)],
    ) -> Result<(), Fault> {
        let mut log = Log::open(disk)?;
        if log.image().identity.is_some() {
            return Err(StorageError::Damaged { what: "emptiness" }.into());
        }
        let state = State::found(cluster, founders, log.image().disk);
        Ok(log.write(first_batch(&state, 1, 1)?)?)
    }

    /// Binds an empty disk to a raft id: a member that waits for its first snapshot.
    ///
    /// # Errors
    /// [`Fault`] if the disk is not empty or fails.
    pub(crate) fn adopt(disk: D, identity: Identity) -> Result<(), Fault> {
        let mut log = Log::open(disk)?;
        match log.image().identity {
            Some(taken) if taken == identity => Ok(()),
            Some(_) => Err(StorageError::Damaged { what: "emptiness" }.into()),
            None => {
                let identity = Some(identity);
                Ok(log.write(Batch { identity, sync: true, ..Batch::default() })?)
            }
        }
    }

    /// Starts from what the disk holds, which must be a member's. `seed` decides the election
    /// timeouts and must differ between members and starts, except in a replay.
    ///
    /// # Errors
    /// [`Fault`] if the disk fails, makes no sense or is nobody's.
    pub(crate) fn start(me: NodeId, disk: D, seed: u64) -> Result<Self, Fault> {
        let log = Log::open(disk)?;
        let identity = log.image().identity.ok_or(StorageError::Damaged { what: "identity" })?;
        let snapshot = &log.image().snapshot;
        let state = if snapshot.is_empty() {
            State::blank(identity.cluster)
        } else {
            State::decode(snapshot.get_data())?
        };
        let snapshot_bytes = snapshot.get_data().len() as u64;
        let mut node = Node::start(log, identity.raft_id, seed)?;
        if let Some(member) = state.members().get(&identity.raft_id)
            && member.node != me
        {
            let owner = member.node.clone();
            return Err(StorageError::Owner { owner, me }.into());
        }
        let conf = state.conf();
        if conf.voters.len() == 1 && conf.voters.contains(&identity.raft_id) {
            // Nobody else to hear from: no reason to wait for a timeout.
            node.campaign();
        }
        let changes = Changes { all: true, ..Changes::default() };
        Ok(Self {
            me,
            node,
            replica: Replica {
                is_restarted: state.revision() > 1,
                state,
                changes,
                ..Replica::default_for(identity)
            },
            leases: Leases::default(),
            scheduler: Scheduler::default(),
            members: Members::default(),
            proposals: Proposals::new(seed),
            reads: Reads::default(),
            parked: Parked::default(),
            handover: Handover::default(),
            leadership: Leadership::default(),
            last_step: None,
            next_tick: Duration::ZERO,
            next_schedule: Duration::ZERO,
            clock: (0, Duration::ZERO),
            compaction: Compaction::default(),
            snapshot_bytes,
            figures: Figures::default(),
        })
    }

    /// Takes all inputs that wait, lets a tick pass if one is due, and handles what follows.
    /// Call at least once in [`Driver::TICK`], with inputs or without.
    ///
    /// # Errors
    /// [`Fault`]: the driver must be dropped. Whoever waits for an answer gets none.
    pub(crate) fn step(
        &mut self,
        now: Now,
        inputs: impl IntoIterator<Item = Input>,
    ) -> Result<Outputs, Fault> {
        let mut out = Outputs::default();
        self.notice_sleep(now);
        for input in inputs {
            self.take(now, input, &mut out);
        }
        if now.mono >= self.next_tick {
            self.next_tick = now.mono + Self::TICK;
            self.node.tick();
            self.expire(now, &mut out);
            self.advance_handover(now, &mut out);
        }
        loop {
            self.follow_leadership(now, &mut out);
            self.reads.issue(&mut self.node);
            let was_ready = on_ready(&mut self.node, &mut self.replica, &mut out.messages)?;
            self.answer_applied(&mut out);
            self.answer_reads(now, &mut out);
            self.unpark(now, &mut out);
            if !was_ready && self.schedule(now, &mut out) == 0 {
                break;
            }
        }
        self.compact()?;
        self.publish(&mut out);
        Ok(out)
    }

    /// How often [`Driver::step`] wants to be called.
    pub(crate) const TICK: Duration = Duration::from_millis(TICK_MS);

    /// Who leads.
    pub(crate) const fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// The replicated state, as far as this member has applied it.
    pub(crate) const fn state(&self) -> &State {
        &self.replica.state
    }

    /// Compacts the log at other times than usual.
    #[cfg(feature = "sim")]
    pub(crate) fn set_compaction(&mut self, compaction: Compaction) {
        self.compaction = compaction;
    }

    /// This member's raft id.
    #[cfg(feature = "sim")]
    pub(crate) fn raft_id(&self) -> u64 {
        self.node.raft_id()
    }

    /// Figures for metrics.
    pub(crate) fn figures(&self) -> Figures {
        let log = self.node.log();
        Figures {
            term: self.node.term(),
            is_leader: self.node.is_leader(),
            committed: self.node.committed(),
            applied: self.replica.state.revision(),
            entries: log.last() + 1 - log.first(),
            ..self.figures
        }
    }

    /// The state of the control plane as this member sees it.
    pub(crate) fn status(&self) -> ClusterStatus {
        members::status(&self.replica.state, &self.node, &self.leases, &self.leadership)
    }

    fn take(&mut self, now: Now, input: Input, out: &mut Outputs) {
        match input {
            Input::Message(message) => {
                if self.replica.state.hears(message.from) {
                    self.node.receive(*message);
                } else {
                    self.figures.refused_messages += 1;
                }
            }
            Input::Ask { token, peer, ask } => {
                if let Err(refusal) = self.ask(now, token, &peer, ask, out) {
                    out.replies.push((token, Err(refusal)));
                }
            }
            Input::Unreachable { raft_id } => self.node.unreachable(raft_id),
            Input::SnapshotSent { raft_id, arrived } => self.node.snapshot_sent(raft_id, arrived),
            Input::SlowDisk => {
                if self.node.is_leader()
                    && let Ok(heir) = self.heir(None)
                {
                    self.node.transfer_leader(heir);
                    tracing::warn!("the disk is slow; handing leadership to another control node");
                }
            }
            Input::Probed { raft_id, disk } => self.probed(now, raft_id, disk, out),
            Input::Adopted { raft_id, taken } => self.adopted(now, raft_id, taken, out),
        }
    }

    /// A step that comes late means this process was stopped or its disk hung, and heartbeats sent
    /// meanwhile may have been lost: nobody is dead for that.
    fn notice_sleep(&mut self, now: Now) {
        let asleep = self.last_step.is_some_and(|last| now.mono > last + ASLEEP_AFTER);
        if asleep {
            self.leases.grant_all(now.mono);
        }
        self.last_step = Some(now.mono);
    }

    /// Takes note of elections won and lost. Answers given up here may still be committed; their
    /// askers ask again, and every question may be asked again.
    fn follow_leadership(&mut self, now: Now, out: &mut Outputs) {
        let leader =
            self.node.leader().and_then(|raft_id| self.replica.state.member_route(raft_id));
        let is_leader = self.node.is_leader();
        let seen = Leadership { term: self.node.term(), leader, is_leader };
        if seen == self.leadership {
            return;
        }
        let new_office =
            (seen.term, seen.is_leader) != (self.leadership.term, self.leadership.is_leader);
        self.leadership = seen;
        self.settle_handover(out);
        if !new_office {
            return;
        }
        let refusal = self.not_leader();
        let given_up = self.proposals.give_up().into_iter().chain(self.reads.give_up());
        let given_up = given_up.chain(self.members.give_up());
        out.replies.extend(given_up.map(|token| (token, Err(refusal.clone()))));
        self.scheduler.clear();
        self.leases.clear();
        if is_leader {
            self.leases.grant_all(now.mono);
            self.clock = (self.replica.state.clock_s(), now.mono);
        } else {
            let parked = self.parked.give_up();
            out.replies.extend(parked.map(|token| (token, Err(refusal.clone()))));
        }
    }

    fn not_leader(&self) -> Refusal {
        let hint = self.leadership.leader.clone().filter(|_| !self.leadership.is_leader);
        Refusal::NotLeader { hint }
    }

    /// The time that goes into commands: never before any command, and going on while this member
    /// leads even if the wall clock stands still or jumps back.
    fn clock_s(&self, now: Now) -> u64 {
        let (at_s, since) = self.clock;
        let led = at_s.saturating_add(now.mono.saturating_sub(since).as_secs());
        now.unix_s.saturating_sub(CLOCK_START_UNIX_S).max(led).max(self.replica.state.clock_s())
    }

    fn propose(&mut self, now: Now, command: Command, waiting: Waiting) -> Result<(), Refusal> {
        self.all_voters_know(&command)?;
        let stamped = Stamped { at_s: self.clock_s(now), command };
        let data = stamped.encode().map_err(|error| Refusal::Invalid(error.to_string()))?;
        if data.len() > crate::command::MAX_COMMAND_BYTES {
            return Err(Refusal::Invalid(format!("a command of {} bytes", data.len())));
        }
        let context = self.proposals.reserve()?;
        self.node
            .propose(context.to_be_bytes().to_vec(), data)
            .map_err(|_| Refusal::Unavailable("the leader takes no proposals now".to_owned()))?;
        if is_planted(Bug::AnswerBeforeCommit) {
            self.answer_early(context);
        }
        self.proposals.insert(context, waiting, now.mono);
        self.figures.proposals += 1;
        Ok(())
    }

    /// Refuses what a member of an older build could not apply: it would stop at that entry.
    fn all_voters_know(&self, command: &Command) -> Result<(), Refusal> {
        let format = u16::from(command.format());
        if format == 1 {
            return Ok(());
        }
        let state = &self.replica.state;
        let rows = state.members().values().filter_map(|member| state.node(&member.node));
        match rows.into_iter().find(|row| row.spec.versions.log < format) {
            Some(row) => Err(Refusal::Conflict(format!(
                "control node {} runs an older build that does not know this; upgrade it first",
                row.spec.id
            ))),
            None => Ok(()),
        }
    }

    /// Answers a placement as if it were committed: [`Bug::AnswerBeforeCommit`].
    fn answer_early(&mut self, context: u128) {
        let mut guess = self.replica.state.clone();
        let index = self.node.last_index();
        let entry = self.node.log().image().entries.back().cloned();
        let data = self.node.unstable_data().or(entry.map(|entry| entry.data.to_vec()));
        if let Some(Ok(stamped)) = data.map(|data| Stamped::decode(&data))
            && matches!(stamped.command, Command::Place { .. })
            && index > guess.revision()
        {
            let result = guess.apply(index, stamped, &mut Changes::default());
            self.replica.outcomes.push((context, result));
        }
    }

    fn expire(&mut self, now: Now, out: &mut Outputs) {
        let expired =
            self.proposals.expire(now.mono).into_iter().flat_map(|waiting| match waiting {
                Waiting::Asker(token) => Some(token),
                Waiting::Scheduler(subject) => {
                    self.scheduler.ended(&subject);
                    None
                }
            });
        let expired: Vec<Token> = expired.collect();
        let reads = self.reads.expire(now.mono);
        let parked = self.parked.expire(now.mono);
        for token in self.members.expire(now.mono) {
            let refusal = Refusal::Unavailable("the node to add does not answer".to_owned());
            out.replies.push((token, Err(refusal)));
        }
        for token in expired.into_iter().chain(reads).chain(parked) {
            let refusal = Refusal::Unavailable("no majority answered in time".to_owned());
            out.replies.push((token, Err(refusal)));
        }
    }

    fn answer_applied(&mut self, out: &mut Outputs) {
        for (context, result) in self.replica.outcomes.drain(..) {
            match self.proposals.remove(context) {
                Some(Waiting::Asker(token)) => out.replies.push((token, result)),
                Some(Waiting::Scheduler(subject)) => {
                    if let Err(refusal) = result {
                        tracing::debug!(?subject, %refusal, "a decision was overtaken");
                    }
                    self.scheduler.ended(&subject);
                }
                None => {}
            }
        }
    }

    fn answer_reads(&mut self, now: Now, out: &mut Outputs) {
        let ready = self.replica.readable.drain(..);
        let done = self.reads.ready(ready, self.replica.state.revision());
        for (token, ask) in done {
            match self.read(now, token, ask) {
                Ok(Some(answer)) => out.replies.push((token, Ok(answer))),
                Ok(None) => {}
                Err(refusal) => out.replies.push((token, Err(refusal))),
            }
        }
    }

    fn unpark(&mut self, now: Now, out: &mut Outputs) {
        if self.is_settled() {
            for (token, peer, ask) in self.parked.take() {
                if let Err(refusal) = self.ask(now, token, &peer, ask, out) {
                    out.replies.push((token, Err(refusal)));
                }
            }
        }
    }

    /// Whether this member leads and has applied all that was committed before its term.
    fn is_settled(&self) -> bool {
        self.node.is_settled_leader() && self.replica.state.revision() == self.node.committed()
    }

    /// Proposes what the scheduler finds due. Returns how much that was.
    fn schedule(&mut self, now: Now, out: &mut Outputs) -> usize {
        if now.mono < self.next_schedule || !self.is_settled() {
            return 0;
        }
        self.next_schedule = now.mono + SCHEDULE_EVERY;
        let state = &self.replica.state;
        self.leases.retain(|node| state.node(node).is_some());
        let due = self.scheduler.due(now.mono, state, &self.leases);
        let count = due.len();
        for (subject, command) in due {
            self.propose_scheduled(now, subject, command);
        }
        count + self.advance_members(now, out)
    }

    fn propose_scheduled(&mut self, now: Now, subject: Subject, command: Command) {
        if let Err(refusal) = self.propose(now, command, Waiting::Scheduler(subject.clone())) {
            tracing::debug!(?subject, %refusal, "a decision waits");
            self.scheduler.ended(&subject);
        }
    }

    fn compact(&mut self) -> Result<(), Fault> {
        let applied = self.replica.state.revision();
        let log = self.node.log();
        let is_due = log.tail_bytes() >= self.compaction.after_bytes.max(self.snapshot_bytes);
        if !(is_due || log.wants_snapshot()) || applied <= log.snapshot_index() {
            return Ok(());
        }
        let data = self.replica.state.encode()?;
        self.snapshot_bytes = data.len() as u64;
        self.node.compact(applied, data, self.compaction.kept_entries)?;
        self.figures.snapshots += 1;
        Ok(())
    }

    fn publish(&mut self, out: &mut Outputs) {
        let state = &self.replica.state;
        let changes = std::mem::take(&mut self.replica.changes);
        let mut published =
            Published { revision: state.revision(), all: changes.all, ..Published::default() };
        if changes.all {
            let grants = state.grants(None).map(|grant| (grant.room.clone(), Some(grant)));
            published.rooms = grants.collect();
            published.nodes =
                state.nodes().map(|node| (node.spec.id.clone(), Some(node.clone()))).collect();
            published.bars =
                state.bars().map(|(on, bar)| (on.clone(), Some(bar.clone()))).collect();
        } else {
            let rooms = changes.rooms.into_iter().map(|room| {
                let grant = state.grant(&room);
                (room, grant)
            });
            published.rooms = rooms.collect();
            let nodes = changes.nodes.into_iter().map(|id| {
                let row = state.node(&id).cloned();
                (id, row)
            });
            published.nodes = nodes.collect();
            let bars = changes.bars.into_iter().map(|on| {
                let bar = state.bar(&on).cloned();
                (on, bar)
            });
            published.bars = bars.collect();
        }
        out.published = Some(published);
    }
}
