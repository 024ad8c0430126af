//! A disk in a redb file: pure Rust, copy-on-write, one transaction a batch.
//!
//! In: batches. Out: the image at start. The points where a crash matters are failpoints, active
//! with the `failpoints` feature: `store-before-write`, `store-before-sync`, `store-after-sync`.
//!
//! Formats: hard state, snapshot and entries are the raft crate's protobuf, which is stable; what
//! is inside entries and snapshot carries a format byte of its own.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;

use prometheus::Histogram;
use protobuf::Message as _;
use raft::eraftpb::{Entry, HardState, Snapshot};
use redb::{Database, Durability, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use wire::ClusterId;

use super::{Batch, Disk, Identity, Image, StorageError};

/// The format of the file. 1: first release.
const FILE_FORMAT: u64 = 1;
/// Memory redb may use for pages: the log is read once, at start.
const CACHE_BYTES: usize = 4 * 1024 * 1024;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");

const FORMAT: &str = "format";
const DISK: &str = "disk";
const CLUSTER: &str = "cluster";
const RAFT_ID: &str = "raft_id";
const HARD_STATE: &str = "hard_state";
const SNAPSHOT: &str = "snapshot";
const BASE_INDEX: &str = "base_index";
const BASE_TERM: &str = "base_term";

/// A redb file that holds one member's log.
pub(crate) struct RedbDisk {
    database: Database,
    /// Takes the time of each durable write, in seconds.
    sync_seconds: Histogram,
}

impl RedbDisk {
    /// Opens the file, or makes it, with `fresh` as the name of the new disk.
    pub(crate) fn open(
        path: &Path,
        fresh: u64,
        sync_seconds: Histogram,
    ) -> Result<Self, StorageError> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|error| failed(::redb::Error::Io(error)))?;
        }
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(path);
        Self::with_database(database.map_err(failed)?, fresh, sync_seconds)
    }

    /// Takes over a database, whatever it is kept in.
    pub(crate) fn with_database(
        database: Database,
        fresh: u64,
        sync_seconds: Histogram,
    ) -> Result<Self, StorageError> {
        let transaction = database.begin_write().map_err(failed)?;
        {
            let mut meta = transaction.open_table(META).map_err(failed)?;
            transaction.open_table(LOG).map_err(failed)?;
            if meta.get(DISK).map_err(failed)?.is_none() {
                put_u64(&mut meta, FORMAT, FILE_FORMAT)?;
                put_u64(&mut meta, DISK, fresh)?;
            }
            let found = get_u64(&meta, FORMAT)?;
            if found > FILE_FORMAT {
                return Err(StorageError::Newer { found, known: FILE_FORMAT });
            }
        }
        transaction.commit().map_err(failed)?;
        Ok(Self { database, sync_seconds })
    }
}

impl Disk for RedbDisk {
    fn load(&mut self) -> Result<Image, StorageError> {
        let transaction = self.database.begin_read().map_err(failed)?;
        let meta = transaction.open_table(META).map_err(failed)?;
        let log = transaction.open_table(LOG).map_err(failed)?;
        let mut image = Image { disk: get_u64(&meta, DISK)?, ..Image::default() };
        if let Some(cluster) = meta.get(CLUSTER).map_err(failed)? {
            let bits = cluster.value().try_into().map_err(|_| damaged(CLUSTER))?;
            let cluster = ClusterId::from_bits(u128::from_be_bytes(bits));
            image.identity = Some(Identity { cluster, raft_id: get_u64(&meta, RAFT_ID)? });
        }
        if let Some(bytes) = meta.get(HARD_STATE).map_err(failed)? {
            image.hard_state =
                HardState::parse_from_bytes(bytes.value()).map_err(|_| damaged(HARD_STATE))?;
        }
        if let Some(bytes) = meta.get(SNAPSHOT).map_err(failed)? {
            image.snapshot =
                Snapshot::parse_from_bytes(bytes.value()).map_err(|_| damaged(SNAPSHOT))?;
        }
        image.base = (get_u64(&meta, BASE_INDEX)?, get_u64(&meta, BASE_TERM)?);
        let mut entries = VecDeque::new();
        for row in log.iter().map_err(failed)? {
            let (_, bytes) = row.map_err(failed)?;
            entries.push_back(Entry::parse_from_bytes(bytes.value()).map_err(|_| damaged("log"))?);
        }
        image.entries = entries;
        Ok(image)
    }

    fn write(&mut self, batch: &Batch) -> Result<(), StorageError> {
        fail_here("store-before-write")?;
        let _timer = batch.sync.then(|| self.sync_seconds.start_timer());
        let mut transaction = self.database.begin_write().map_err(failed)?;
        if !batch.sync {
            transaction
                .set_durability(Durability::None)
                .map_err(|error| failed(::redb::Error::from(error)))?;
        }
        {
            let mut meta = transaction.open_table(META).map_err(failed)?;
            if let Some(identity) = &batch.identity {
                let bits = identity.cluster.bits().to_be_bytes();
                meta.insert(CLUSTER, bits.as_slice()).map_err(failed)?;
                put_u64(&mut meta, RAFT_ID, identity.raft_id)?;
            }
            if let Some(hard_state) = &batch.hard_state {
                put_message(&mut meta, HARD_STATE, hard_state)?;
            }
            if let Some(snapshot) = &batch.snapshot {
                put_message(&mut meta, SNAPSHOT, snapshot)?;
            }
            let mut log = transaction.open_table(LOG).map_err(failed)?;
            if let Some((index, term)) = batch.base {
                put_u64(&mut meta, BASE_INDEX, index)?;
                put_u64(&mut meta, BASE_TERM, term)?;
                log.retain_in(..=index, |_, _| false).map_err(failed)?;
            }
            if batch.clear {
                log.retain(|_, _| false).map_err(failed)?;
            }
            if let Some(first) = batch.entries.first() {
                let stale =
                    log.last().map_err(failed)?.is_some_and(|row| row.0.value() >= first.index);
                if stale {
                    log.retain_in(first.index.., |_, _| false).map_err(failed)?;
                }
            }
            for entry in &batch.entries {
                let bytes = entry.write_to_bytes().map_err(|_| damaged("log"))?;
                log.insert(entry.index, bytes.as_slice()).map_err(failed)?;
            }
        }
        fail_here("store-before-sync")?;
        // The fsync: an immediate commit returns once the transaction is on stable storage.
        transaction.commit().map_err(failed)?;
        fail_here("store-after-sync")
    }
}

type MetaTable<'a> = redb::Table<'a, &'static str, &'static [u8]>;

fn put_u64(meta: &mut MetaTable<'_>, name: &'static str, value: u64) -> Result<(), StorageError> {
    meta.insert(name, value.to_be_bytes().as_slice()).map_err(failed)?;
    Ok(())
}

fn put_message(
    meta: &mut MetaTable<'_>,
    name: &'static str,
    message: &impl protobuf::Message,
) -> Result<(), StorageError> {
    let bytes = message.write_to_bytes().map_err(|_| damaged(name))?;
    meta.insert(name, bytes.as_slice()).map_err(failed)?;
    Ok(())
}

/// A stored number; 0 where none was stored.
fn get_u64(
    meta: &impl redb::ReadableTable<&'static str, &'static [u8]>,
    name: &'static str,
) -> Result<u64, StorageError> {
    match meta.get(name).map_err(failed)? {
        None => Ok(0),
        Some(bytes) => Ok(u64::from_be_bytes(bytes.value().try_into().map_err(|_| damaged(name))?)),
    }
}

fn failed(error: impl Into<::redb::Error>) -> StorageError {
    StorageError::Database(Box::new(error.into()))
}

const fn damaged(what: &'static str) -> StorageError {
    StorageError::Damaged { what }
}

/// A place where a test may stop the disk: `return` gives an error, `panic` a crash.
#[cfg_attr(not(feature = "failpoints"), expect(unused_variables, reason = "a failpoint's name"))]
fn fail_here(point: &'static str) -> Result<(), StorageError> {
    fail::fail_point!(point, |_| Err(StorageError::Stopped(point)));
    Ok(())
}

#[cfg(test)]
mod torn;

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path, fresh: u64) -> RedbDisk {
        let histogram = crate::metrics::unregistered_histogram();
        RedbDisk::open(path, fresh, histogram).unwrap()
    }

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, data: vec![index as u8; 8].into(), ..Entry::default() }
    }

    #[test]
    fn what_is_written_is_read_back_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/control.redb");
        let mut expected = {
            let mut disk = open(&path, 42);
            disk.load().unwrap()
        };
        assert_eq!(expected, Image { disk: 42, ..Image::default() });
        let identity = Identity { cluster: ClusterId::from_bits(7), raft_id: 3 };
        let mut snapshot = Snapshot { data: vec![9; 100_000].into(), ..Snapshot::default() };
        snapshot.mut_metadata().index = 2;
        let batches = [
            Batch { identity: Some(identity), ..Batch::default() },
            Batch { entries: (1..=5).map(|index| entry(index, 1)).collect(), ..Batch::default() },
            Batch {
                hard_state: Some(HardState { term: 2, vote: 1, commit: 2, ..HardState::default() }),
                entries: vec![entry(4, 2)],
                ..Batch::default()
            },
            Batch { snapshot: Some(snapshot), base: Some((1, 1)), ..Batch::default() },
        ];
        for batch in batches {
            let batch = Batch { sync: true, ..batch };
            // Another name for the disk changes nothing once it has one.
            let mut disk = open(&path, 43);
            disk.write(&batch).unwrap();
            drop(disk);
            expected.apply(batch);
            assert_eq!(open(&path, 44).load().unwrap(), expected);
        }
        assert_eq!(expected.entries.iter().map(|e| e.index).collect::<Vec<_>>(), [2, 3, 4]);
    }

    #[test]
    fn a_file_of_a_newer_build_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.redb");
        let disk = open(&path, 1);
        let transaction = disk.database.begin_write().unwrap();
        put_u64(&mut transaction.open_table(META).unwrap(), FORMAT, 2).unwrap();
        transaction.commit().unwrap();
        drop(disk);
        let histogram = crate::metrics::unregistered_histogram();
        let error = RedbDisk::open(&path, 1, histogram).err().unwrap().to_string();
        assert_eq!(error, "control store has format 2, newer than 1, the highest this build knows");
    }
}
