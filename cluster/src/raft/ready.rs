//! The Ready loop: the one place where Raft's outputs become disk writes, messages and state.
//!
//! In: a node that has something ready. Out: messages to send, entries applied to the
//! [`Machine`]. The order of the steps in [`on_ready`] is what Raft's safety rests on.

use raft::eraftpb::{ConfChange, ConfChangeV2, Entry, EntryType, Message};
use raft::{Error as RaftError, RawNode};

use crate::planted::{Bug, is_planted};
use crate::state::{Conf, StateError};
use crate::storage::{Batch, Disk, Log, StorageError};

use super::Node;

/// Why a member had to stop. It may start again from its disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The disk failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The raft crate refused what must not be refused.
    #[error("raft: {0}")]
    Raft(#[from] RaftError),
    /// A snapshot cannot be read or made.
    #[error("snapshot: {0}")]
    Snapshot(#[from] StateError),
    /// A committed entry cannot be read, so this replica must not go on without it.
    #[error("committed entry {index}: {error}")]
    Entry {
        /// Its index.
        index: u64,
        /// What is wrong.
        error: crate::command::CommandError,
    },
}

/// What committed entries are applied to.
pub(crate) trait Machine {
    /// Takes over a snapshot in place of everything before it.
    fn restore(&mut self, data: &[u8]) -> Result<(), Fault>;
    /// Applies one entry; empty data is an entry without effect.
    fn apply(&mut self, index: u64, context: &[u8], data: &[u8]) -> Result<(), Fault>;
    /// The Raft configuration as of the entry at `index`.
    fn configure(&mut self, index: u64, conf: Conf);
    /// A read asked for with `context` may be answered once `index` is applied.
    fn read_ready(&mut self, index: u64, context: &[u8]);
}

/// Handles what a node has ready, once. Returns whether there was anything.
///
/// The order: messages a leader may send before it has persisted; a received snapshot; committed
/// entries, which are on disk already; then snapshot, entries and hard state to disk in one
/// transaction, with fsync if Raft demands it; messages that vouch for what is now on disk; and
/// what became committed by that write.
pub(crate) fn on_ready<D: Disk>(
    node: &mut Node<D>,
    machine: &mut impl Machine,
    messages: &mut Vec<Message>,
) -> Result<bool, Fault> {
    let raw = &mut node.raw;
    if !raw.has_ready() {
        return Ok(false);
    }
    let mut ready = raw.ready();
    let mut batch = Batch { sync: ready.must_sync(), ..Batch::default() };

    messages.extend(ready.take_messages());

    if !ready.snapshot().is_empty() {
        let snapshot = ready.snapshot().clone();
        machine.restore(snapshot.get_data())?;
        let metadata = snapshot.get_metadata();
        batch.base = Some((metadata.index, metadata.term));
        batch.clear = true;
        batch.snapshot = Some(snapshot);
    }

    for read in ready.take_read_states() {
        machine.read_ready(read.index, &read.request_ctx);
    }

    apply(raw, machine, ready.take_committed_entries())?;

    batch.entries = ready.take_entries();
    batch.hard_state = ready.hs().cloned();
    if let Some(hard_state) = &mut batch.hard_state
        && is_planted(Bug::ForgetVote)
    {
        hard_state.vote = 0;
    }
    if batch.sync || batch.hard_state.is_some() {
        raw.mut_store().write(batch)?;
    }

    messages.extend(ready.take_persisted_messages());

    let mut light = raw.advance(ready);
    if let Some(commit) = light.commit_index() {
        let mut hard_state = raw.store().image().hard_state.clone();
        hard_state.commit = commit;
        raw.mut_store().write(Batch { hard_state: Some(hard_state), ..Batch::default() })?;
    }
    messages.extend(light.take_messages());
    apply(raw, machine, light.take_committed_entries())?;
    raw.advance_apply();
    Ok(true)
}

fn apply<D: Disk>(
    raw: &mut RawNode<Log<D>>,
    machine: &mut impl Machine,
    entries: Vec<Entry>,
) -> Result<(), Fault> {
    for entry in entries {
        // The type first: an entry without data that changes the configuration is the one that
        // leaves a joint configuration, and skipping it would leave the group in it for ever.
        match entry.get_entry_type() {
            EntryType::EntryNormal => {
                machine.apply(entry.index, &entry.context, &entry.data)?;
            }
            EntryType::EntryConfChange => {
                let change: ConfChange = parse(&entry)?;
                machine.configure(entry.index, Conf::from(&raw.apply_conf_change(&change)?));
            }
            EntryType::EntryConfChangeV2 if entry.data.is_empty() && is_planted(Bug::StayJoint) => {
                machine.apply(entry.index, &[], &[])?;
            }
            EntryType::EntryConfChangeV2 => {
                let change: ConfChangeV2 = parse(&entry)?;
                machine.configure(entry.index, Conf::from(&raw.apply_conf_change(&change)?));
            }
        }
    }
    Ok(())
}

fn parse<M: protobuf::Message>(entry: &Entry) -> Result<M, Fault> {
    M::parse_from_bytes(&entry.data).map_err(|error| RaftError::CodecError(error).into())
}
