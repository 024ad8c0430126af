//! The durable half of Raft: log, hard state, snapshot, and whose they are.
//!
//! In: batches from the Ready loop. Out: what the raft crate reads back. [`Log`] keeps the whole
//! log in memory, as compaction keeps it small, and writes each batch through a [`Disk`] first: what
//! memory shows is on disk as far as Raft needs it to be. A batch is atomic: after a crash it is
//! there or it is not.
//!
//! What is applied is not stored by itself: a start goes back to the snapshot and applies the
//! committed entries after it again, so state and applied index cannot disagree.
//!
//! Does not decide when to compact (the driver does) and does not know what entries mean.

pub(crate) mod redb;

use std::cell::Cell;
use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, StorageError as RaftStorageError};
use wire::{ClusterId, NodeId};

use crate::planted::{Bug, is_planted};
use crate::state::Conf;

/// Whose log a disk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The raft id, bound to this disk for ever.
    pub raft_id: u64,
}

/// Everything on a disk, as read at start.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Image {
    /// Random, drawn when the disk was first opened; another one after it was wiped.
    pub disk: u64,
    /// None on a disk that is in no cluster yet.
    pub identity: Option<Identity>,
    /// Term, vote and commit index.
    pub hard_state: HardState,
    /// The last snapshot; empty on a member that has not received one yet.
    pub snapshot: Snapshot,
    /// Index and term of the entry before the first of `entries`.
    pub base: (u64, u64),
    /// The log, without gaps. It may begin before the snapshot, for followers that lag a little.
    pub entries: VecDeque<Entry>,
}

/// One atomic change of a disk.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Batch {
    /// Becomes the disk's identity.
    pub identity: Option<Identity>,
    /// Takes the place of the stored one.
    pub hard_state: Option<HardState>,
    /// Takes the place of the stored one.
    pub snapshot: Option<Snapshot>,
    /// The log up to here, with its term, is dropped.
    pub base: Option<(u64, u64)>,
    /// The rest of the log is dropped too: a snapshot came from the leader, and what was here may
    /// never have been committed.
    pub clear: bool,
    /// Replace everything from the index of the first of them on.
    pub entries: Vec<Entry>,
    /// Whether the batch must survive a crash once [`Disk::write`] has returned. If not, it may be
    /// lost, with all later ones that need not survive either.
    pub sync: bool,
}

/// Why a disk could not be read or written. The log in memory is not to be used any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The database failed: disk full, input/output error, damaged file.
    #[error("control store: {0}")]
    Database(#[from] Box<::redb::Error>),
    /// What is stored makes no sense.
    #[error("control store: {what} is damaged")]
    Damaged {
        /// Which record.
        what: &'static str,
    },
    /// The file was written by a newer build.
    #[error("control store has format {found}, newer than {known}, the highest this build knows")]
    Newer {
        /// The format of the file.
        found: u64,
        /// The highest format this build knows.
        known: u64,
    },
    /// The data folder is another node's.
    #[error("control store: it is the member {owner}'s, this node is {me}")]
    Owner {
        /// The node whose it is.
        owner: NodeId,
        /// This node.
        me: NodeId,
    },
    /// A failpoint or the simulation stopped the disk.
    #[error("control store: stopped at {0}")]
    Stopped(&'static str),
}

/// A place that keeps batches.
pub(crate) trait Disk: Send {
    /// Reads everything.
    ///
    /// # Errors
    /// [`StorageError`] if it cannot be read or makes no sense.
    fn load(&mut self) -> Result<Image, StorageError>;

    /// Applies a batch, all or nothing.
    ///
    /// # Errors
    /// [`StorageError`]; the batch may be on disk or not, and the disk must be loaded again.
    fn write(&mut self, batch: &Batch) -> Result<(), StorageError>;
}

/// The log as the raft crate reads it.
pub(crate) struct Log<D> {
    disk: D,
    image: Image,
    /// Bytes of entry data after the snapshot: what a start would apply again.
    tail_bytes: u64,
    /// Raft wants a snapshot newer than the one there is. A cell, as it asks through `&self`.
    wants_snapshot: Cell<bool>,
}

impl<D: Disk> Log<D> {
    /// Reads a disk.
    pub(crate) fn open(mut disk: D) -> Result<Self, StorageError> {
        let image = disk.load()?;
        let mut log = Self { disk, image, tail_bytes: 0, wants_snapshot: Cell::new(false) };
        log.check()?;
        log.count_tail();
        Ok(log)
    }

    pub(crate) const fn image(&self) -> &Image {
        &self.image
    }

    pub(crate) const fn tail_bytes(&self) -> u64 {
        self.tail_bytes
    }

    /// Whether Raft has asked for a newer snapshot since the last one was made.
    pub(crate) fn wants_snapshot(&self) -> bool {
        self.wants_snapshot.get()
    }

    pub(crate) fn snapshot_index(&self) -> u64 {
        self.image.snapshot.get_metadata().index
    }

    pub(crate) fn first(&self) -> u64 {
        self.image.base.0 + 1
    }

    pub(crate) fn last(&self) -> u64 {
        self.image.base.0 + self.image.entries.len() as u64
    }

    /// Writes a batch to disk, then to memory. A batch that only moves the commit index stays in
    /// memory until the next one: losing it costs a start nothing but hearing of it again.
    pub(crate) fn write(&mut self, mut batch: Batch) -> Result<(), StorageError> {
        let only_commit =
            batch.entries.is_empty() && batch.snapshot.is_none() && batch.identity.is_none();
        if !only_commit || batch.sync {
            if batch.hard_state.is_none() {
                batch.hard_state = Some(self.image.hard_state.clone());
            }
            self.disk.write(&batch)?;
        }
        if batch.snapshot.is_some() {
            self.wants_snapshot.set(false);
        }
        let appends = batch.snapshot.is_none()
            && batch.base.is_none()
            && batch.entries.first().is_none_or(|first| first.index > self.last());
        self.tail_bytes += bytes_of(&batch.entries);
        self.image.apply(batch);
        if !appends {
            self.count_tail();
        }
        Ok(())
    }

    fn count_tail(&mut self) {
        let snapshot = self.snapshot_index();
        let after = self.image.entries.iter().rev().take_while(|entry| entry.index > snapshot);
        self.tail_bytes = bytes_of(after);
    }

    /// Refuses a disk that would make the raft crate panic.
    fn check(&self) -> Result<(), StorageError> {
        let image = &self.image;
        let commit = image.hard_state.commit;
        let snapshot = self.snapshot_index();
        if image.identity.is_none() && (commit > 0 || self.last() > 0) {
            return Err(StorageError::Damaged { what: "identity" });
        }
        let indexes = image.entries.iter().map(|entry| entry.index);
        if !indexes.eq(self.first()..=self.last()) {
            return Err(StorageError::Damaged { what: "log" });
        }
        if snapshot < image.base.0 || snapshot > self.last() {
            return Err(StorageError::Damaged { what: "snapshot" });
        }
        if commit < snapshot || commit > self.last() {
            return Err(StorageError::Damaged { what: "hard state" });
        }
        Ok(())
    }
}

impl Image {
    /// What a batch leaves: the meaning of [`Batch`], shared by memory and simulated disks.
    pub(crate) fn apply(&mut self, batch: Batch) {
        if let Some(identity) = batch.identity {
            self.identity = Some(identity);
        }
        if let Some(hard_state) = batch.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(snapshot) = batch.snapshot {
            self.snapshot = snapshot;
        }
        if let Some(base) = batch.base {
            let dropped = base.0.saturating_sub(self.base.0) as usize;
            self.entries.drain(..dropped.min(self.entries.len()));
            self.base = base;
        }
        if batch.clear {
            self.entries.clear();
        }
        if let Some(first) = batch.entries.first() {
            let kept = first.index.saturating_sub(self.base.0 + 1);
            self.entries.truncate(kept as usize);
            self.entries.extend(batch.entries);
        }
    }
}

fn bytes_of<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> u64 {
    entries.into_iter().map(|entry| entry.data.len() as u64).sum()
}

impl<D: Disk> raft::Storage for Log<D> {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let conf_state: ConfState = self.image.snapshot.get_metadata().get_conf_state().clone();
        Ok(RaftState { hard_state: self.image.hard_state.clone(), conf_state })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.first() {
            return Err(RaftStorageError::Compacted.into());
        }
        if high > self.last() + 1 {
            return Err(RaftStorageError::Unavailable.into());
        }
        let range = (low - self.first()) as usize..(high - self.first()) as usize;
        let mut entries: Vec<Entry> = self.image.entries.range(range).cloned().collect();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let (base_index, base_term) = self.image.base;
        if index == base_index {
            return Ok(base_term);
        }
        let Some(position) = index.checked_sub(self.first()) else {
            return Err(RaftStorageError::Compacted.into());
        };
        let entry = self.image.entries.get(position as usize);
        entry.map(|entry| entry.term).ok_or_else(|| RaftStorageError::Unavailable.into())
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let snapshot = &self.image.snapshot;
        let conf = Conf::from(snapshot.get_metadata().get_conf_state());
        // A member ignores a snapshot whose configuration does not name it: one that was taken
        // before it joined would be sent for ever.
        let names_it = conf.contains(to) || is_planted(Bug::OldSnapshot);
        if self.snapshot_index() < request_index.max(1) || !names_it {
            self.wants_snapshot.set(true);
            return Err(RaftStorageError::SnapshotTemporarilyUnavailable.into());
        }
        Ok(snapshot.clone())
    }
}

#[cfg(test)]
mod tests {
    use raft::Storage as _;

    use super::*;

    /// A disk in memory that forgets nothing.
    struct Memory(Image);

    impl Disk for Memory {
        fn load(&mut self) -> Result<Image, StorageError> {
            Ok(self.0.clone())
        }

        fn write(&mut self, batch: &Batch) -> Result<(), StorageError> {
            self.0.apply(batch.clone());
            Ok(())
        }
    }

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, data: vec![0; 10].into(), ..Entry::default() }
    }

    fn member() -> Image {
        let identity = Identity { cluster: ClusterId::from_bits(1), raft_id: 1 };
        Image { identity: Some(identity), ..Image::default() }
    }

    fn log() -> Log<Memory> {
        let mut log = Log::open(Memory(member())).unwrap();
        let entries = (1..=5).map(|index| entry(index, 1)).collect();
        log.write(Batch { entries, sync: true, ..Batch::default() }).unwrap();
        log
    }

    #[test]
    fn a_conflicting_tail_is_replaced() {
        let mut log = log();
        log.write(Batch { entries: vec![entry(4, 2)], sync: true, ..Batch::default() }).unwrap();
        assert_eq!((log.last(), log.term(4).unwrap(), log.term(3).unwrap()), (4, 2, 1));
        assert_eq!(log.disk.0.entries, log.image.entries);
    }

    #[test]
    fn compaction_keeps_the_term_before_the_first_entry() {
        let mut log = log();
        let mut snapshot = Snapshot::default();
        snapshot.mut_metadata().index = 4;
        snapshot.mut_metadata().mut_conf_state().voters = vec![1, 2];
        let batch =
            Batch { snapshot: Some(snapshot), base: Some((3, 1)), sync: true, ..Batch::default() };
        log.write(batch).unwrap();
        assert_eq!((log.first(), log.last(), log.term(3).unwrap()), (4, 5, 1));
        assert_eq!(log.tail_bytes(), 10, "one entry after the snapshot");
        let context = || GetEntriesContext::empty(false);
        assert!(log.entries(3, 5, None, context()).is_err(), "compacted");
        assert!(log.entries(4, 7, None, context()).is_err(), "beyond the end");
        assert_eq!(log.entries(4, 6, Some(1), context()).unwrap().len(), 1, "at least one");
        assert!(log.snapshot(4, 2).is_ok() && !log.wants_snapshot());
        assert!(log.snapshot(5, 2).is_err() && log.wants_snapshot(), "too old");
        log.wants_snapshot.set(false);
        assert!(log.snapshot(4, 3).is_err() && log.wants_snapshot(), "not for a later member");
    }

    #[test]
    fn a_received_snapshot_drops_the_whole_log() {
        for index in [3, 9] {
            let mut log = log();
            let batch =
                Batch { base: Some((index, 3)), clear: true, sync: true, ..Batch::default() };
            log.write(batch).unwrap();
            assert_eq!((log.first(), log.last(), log.tail_bytes()), (index + 1, index, 0));
            assert_eq!(log.term(index).unwrap(), 3);
        }
    }

    #[test]
    fn a_disk_that_makes_no_sense_is_refused() {
        let damaged = |change: fn(&mut Image)| {
            let mut image = log().image;
            change(&mut image);
            Log::open(Memory(image)).err().map(|error| error.to_string())
        };
        assert_eq!(damaged(|_| ()), None);
        let says = |what: &str| Some(format!("control store: {what} is damaged"));
        assert_eq!(damaged(|image| image.identity = None), says("identity"));
        assert_eq!(damaged(|image| drop(image.entries.remove(2))), says("log"));
        assert_eq!(damaged(|image| image.hard_state.commit = 9), says("hard state"));
        assert_eq!(damaged(|image| image.snapshot.mut_metadata().index = 9), says("snapshot"));
    }
}
