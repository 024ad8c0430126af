//! The raft crate behind one type: configuration, election timeouts, proposals, reads.
//!
//! In: ticks, messages and proposals from the driver. Out: through [`ready::on_ready`], messages to
//! peers and committed entries. This module, `raft/ready`, `storage` and `transport` are the only
//! ones that name the raft crate, so that another implementation can take its place.
//!
//! The raft crate draws election timeouts from the thread's random generator; here they come from
//! the node's own, seeded one, so that a simulation replays.

pub(crate) mod ready;

use raft::eraftpb::{ConfChangeTransition, ConfChangeV2};
use raft::{Config, RawNode, ReadOnlyOption, StateRole};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

pub(crate) use raft::eraftpb::{
    ConfChangeSingle, ConfChangeType, ConfState, Entry, EntryType, HardState, Message, MessageType,
    Snapshot,
};

use crate::state::Conf;
use crate::storage::{Batch, Disk, Log};

/// How often the driver ticks Raft, in milliseconds.
pub(crate) const TICK_MS: u64 = 25;
/// Ticks between two heartbeats of a leader: 100 ms.
const HEARTBEAT_TICKS: usize = 4;
/// A follower that hears nothing for at least this long stands for election: 500 ms.
const ELECTION_TICKS_MIN: usize = 20;
/// And at most this long: 1 s.
const ELECTION_TICKS_MAX: usize = 40;
/// Most bytes of entries in one message to a follower.
const MAX_MESSAGE_BYTES: u64 = 1024 * 1024;
/// Most append messages on their way to one follower.
const MAX_IN_FLIGHT_MESSAGES: usize = 64;
/// Most bytes proposed but not committed; a further proposal is refused.
const MAX_UNCOMMITTED_BYTES: u64 = 16 * 1024 * 1024;
/// Most bytes of committed entries applied in one round, so that a long catch-up does not keep the
/// driver from ticking.
const MAX_COMMITTED_BYTES_PER_READY: u64 = 1024 * 1024;

/// The proposal was not taken: no leader, leadership is being handed on, or too much is pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dropped;

/// One member of a Raft group.
pub(crate) struct Node<D: Disk> {
    raw: RawNode<Log<D>>,
    rng: StdRng,
    timeout_ticks: usize,
    /// Term, role and election clock at the last tick: a change of these means a new timeout.
    last: (u64, StateRole, usize),
}

impl<D: Disk> Node<D> {
    /// Starts from what the log holds. `seed` decides the election timeouts.
    pub(crate) fn start(log: Log<D>, raft_id: u64, seed: u64) -> raft::Result<Self> {
        let config = Config {
            id: raft_id,
            election_tick: ELECTION_TICKS_MIN,
            min_election_tick: ELECTION_TICKS_MIN,
            max_election_tick: ELECTION_TICKS_MAX,
            heartbeat_tick: HEARTBEAT_TICKS,
            applied: log.snapshot_index(),
            max_size_per_msg: MAX_MESSAGE_BYTES,
            max_inflight_msgs: MAX_IN_FLIGHT_MESSAGES,
            check_quorum: true,
            pre_vote: true,
            read_only_option: ReadOnlyOption::Safe,
            max_uncommitted_size: MAX_UNCOMMITTED_BYTES,
            max_committed_size_per_ready: MAX_COMMITTED_BYTES_PER_READY,
            ..Config::default()
        };
        let raw = RawNode::new(&config, log, &logger())?;
        let mut node = Self {
            raw,
            rng: StdRng::seed_from_u64(seed),
            timeout_ticks: ELECTION_TICKS_MIN,
            last: (0, StateRole::Follower, 0),
        };
        node.draw_timeout();
        Ok(node)
    }

    /// Lets one tick pass.
    pub(crate) fn tick(&mut self) {
        let (term, role, elapsed) = self.last;
        let raft = &self.raw.raft;
        if (term, role) != (raft.term, raft.state) || raft.election_elapsed < elapsed {
            self.draw_timeout();
        }
        let raft = &mut self.raw.raft;
        // The raft crate redraws at every change of role, from a generator that has no seed.
        raft.set_randomized_election_timeout(self.timeout_ticks);
        self.raw.tick();
        let raft = &self.raw.raft;
        self.last = (raft.term, raft.state, raft.election_elapsed);
    }

    fn draw_timeout(&mut self) {
        self.timeout_ticks = self.rng.random_range(ELECTION_TICKS_MIN..ELECTION_TICKS_MAX);
    }

    /// Stands for election at once. Only sensible for the only voter, which has nobody to wait for.
    pub(crate) fn campaign(&mut self) {
        // The only error is a storage error, which the log in memory does not give.
        let _ = self.raw.campaign();
    }

    /// Takes a message of a peer. One that does not fit is ignored, as if lost.
    pub(crate) fn receive(&mut self, message: Message) {
        let _ = self.raw.step(message);
    }

    pub(crate) fn propose(&mut self, context: Vec<u8>, data: Vec<u8>) -> Result<(), Dropped> {
        self.raw.propose(context, data).map_err(|_| Dropped)
    }

    /// Proposes a membership change: joint if it has more than one step, left automatically. The
    /// raft crate turns it into an empty entry if another one is pending, so it is not proposed then.
    pub(crate) fn propose_change(&mut self, steps: Vec<ConfChangeSingle>) -> Result<(), Dropped> {
        if self.raw.raft.has_pending_conf() {
            return Err(Dropped);
        }
        let mut change = ConfChangeV2::default();
        change.set_transition(ConfChangeTransition::Auto);
        change.set_changes(steps.into());
        self.raw.propose_conf_change(Vec::new(), change).map_err(|_| Dropped)
    }

    /// Asks for a point in the log that everything acknowledged by now lies before.
    pub(crate) fn read_index(&mut self, context: Vec<u8>) {
        self.raw.read_index(context);
    }

    pub(crate) fn transfer_leader(&mut self, raft_id: u64) {
        self.raw.transfer_leader(raft_id);
    }

    /// Whether a transfer is under way that Raft has not given up.
    pub(crate) fn is_handing_over(&self) -> bool {
        self.raw.raft.lead_transferee.is_some()
    }

    /// Whether a membership change is proposed and not applied, or a joint one not left.
    pub(crate) fn is_changing(&self) -> bool {
        let joint = !self.raw.raft.prs().conf().to_conf_state().voters_outgoing.is_empty();
        joint || self.raw.raft.has_pending_conf()
    }

    pub(crate) fn unreachable(&mut self, raft_id: u64) {
        self.raw.report_unreachable(raft_id);
    }

    pub(crate) fn snapshot_sent(&mut self, raft_id: u64, arrived: bool) {
        let status =
            if arrived { raft::SnapshotStatus::Finish } else { raft::SnapshotStatus::Failure };
        self.raw.report_snapshot(raft_id, status);
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// Whether this leader has committed an entry of its own term: only then is what it knows
    /// complete, and only then does the raft crate answer reads instead of dropping them.
    pub(crate) fn is_settled_leader(&self) -> bool {
        self.is_leader() && self.raw.raft.commit_to_current_term()
    }

    /// The raft id of the leader, if one is known.
    pub(crate) fn leader(&self) -> Option<u64> {
        Some(self.raw.raft.leader_id).filter(|id| *id != raft::INVALID_ID)
    }

    pub(crate) fn raft_id(&self) -> u64 {
        self.raw.raft.id
    }

    pub(crate) fn term(&self) -> u64 {
        self.raw.raft.term
    }

    pub(crate) fn committed(&self) -> u64 {
        self.raw.raft.raft_log.committed
    }

    pub(crate) fn last_index(&self) -> u64 {
        self.raw.raft.raft_log.last_index()
    }

    /// The index up to which a member is known to have the log, and whether it was heard of since
    /// the last quorum check. Only a leader knows.
    pub(crate) fn progress(&self, raft_id: u64) -> Option<(u64, bool)> {
        let progress = self.raw.raft.prs().get(raft_id)?;
        let heard = progress.recent_active || raft_id == self.raft_id();
        self.is_leader().then_some((progress.matched, heard))
    }

    /// The data of the last entry that is not on disk yet.
    pub(crate) fn unstable_data(&self) -> Option<Vec<u8>> {
        self.raw.raft.raft_log.unstable_entries().last().map(|entry| entry.data.to_vec())
    }

    pub(crate) fn log(&self) -> &Log<D> {
        self.raw.store()
    }

    /// Makes `data`, the state as of `index`, the snapshot, and drops the log up to `kept` entries
    /// before it. `index` is the last entry applied.
    pub(crate) fn compact(
        &mut self,
        index: u64,
        data: Vec<u8>,
        kept: u64,
    ) -> Result<(), ready::Fault> {
        let mut snapshot = snapshot(data, index, raft::Storage::term(self.log(), index)?);
        let conf_state = self.raw.raft.prs().conf().to_conf_state();
        snapshot.mut_metadata().set_conf_state(conf_state);
        let base = index.saturating_sub(kept).max(self.log().image().base.0);
        let base_term = raft::Storage::term(self.log(), base)?;
        let batch = Batch {
            snapshot: Some(snapshot),
            base: Some((base, base_term)),
            sync: true,
            ..Batch::default()
        };
        Ok(self.raw.mut_store().write(batch)?)
    }
}

/// Whether an entry carries a command, and not a membership change or nothing.
pub(crate) fn is_command(entry: &Entry) -> bool {
    entry.get_entry_type() == EntryType::EntryNormal && !entry.data.is_empty()
}

/// A snapshot without its configuration.
pub(crate) fn snapshot(data: Vec<u8>, index: u64, term: u64) -> Snapshot {
    let mut snapshot = Snapshot { data: data.into(), ..Snapshot::default() };
    let metadata = snapshot.mut_metadata();
    (metadata.index, metadata.term) = (index, term);
    snapshot
}

/// A hard state with these values.
pub(crate) fn hard_state(term: u64, vote: u64, commit: u64) -> HardState {
    HardState { term, vote, commit, ..HardState::default() }
}

impl From<&ConfState> for Conf {
    fn from(state: &ConfState) -> Self {
        Conf {
            voters: state.voters.iter().copied().collect(),
            learners: state.learners.iter().chain(&state.learners_next).copied().collect(),
            outgoing: state.voters_outgoing.iter().copied().collect(),
        }
    }
}

/// One step of a membership change.
pub(crate) fn change_step(raft_id: u64, kind: ConfChangeType) -> ConfChangeSingle {
    let mut step = ConfChangeSingle { node_id: raft_id, ..ConfChangeSingle::default() };
    step.set_change_type(kind);
    step
}

/// The raft crate's log, passed on to tracing. What it calls information is detail to an operator.
fn logger() -> slog::Logger {
    slog::Logger::root(ToTracing, slog::o!())
}

struct ToTracing;

impl slog::Drain for ToTracing {
    type Ok = ();
    type Err = slog::Never;

    fn log(
        &self,
        record: &slog::Record<'_>,
        values: &slog::OwnedKVList,
    ) -> Result<(), slog::Never> {
        match record.level() {
            slog::Level::Critical | slog::Level::Error => {
                tracing::error!(detail = %Fields(record, values), "raft: {}", record.msg());
            }
            slog::Level::Warning | slog::Level::Info => {
                tracing::debug!(detail = %Fields(record, values), "raft: {}", record.msg());
            }
            slog::Level::Debug | slog::Level::Trace => {
                tracing::trace!(detail = %Fields(record, values), "raft: {}", record.msg());
            }
        }
        Ok(())
    }
}

/// The fields of a record, written only if someone listens.
struct Fields<'a>(&'a slog::Record<'a>, &'a slog::OwnedKVList);

impl std::fmt::Display for Fields<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use slog::KV as _;

        struct Writer<'a, 'b>(&'a mut std::fmt::Formatter<'b>);

        impl slog::Serializer for Writer<'_, '_> {
            fn emit_arguments(
                &mut self,
                key: slog::Key,
                value: &std::fmt::Arguments<'_>,
            ) -> slog::Result {
                write!(self.0, "{key}={value} ").map_err(slog::Error::from)
            }
        }

        let mut writer = Writer(f);
        let own = self.0.kv().serialize(self.0, &mut writer);
        own.and_then(|()| self.1.serialize(self.0, &mut writer)).map_err(|_| std::fmt::Error)
    }
}
