//! The store over a disk that loses and tears what was not synced.
//!
//! The real redb runs on a file in memory. At a crash, each write since the last sync is kept, lost
//! or kept in part, in any combination; what remains must be the store before or after the batch
//! that was being written, and after it once the write has returned.

use std::sync::{Arc, Mutex};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use redb::StorageBackend;

use super::*;

/// A file in memory that remembers what was not synced.
#[derive(Debug, Clone, Default)]
struct TornFile(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    live: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Change>,
    /// Changes until the disk is gone.
    left: Option<usize>,
}

#[derive(Debug, Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Length(length) => bytes.resize(*length as usize, 0),
            Change::Write(offset, data) => {
                let end = *offset as usize + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset as usize..end].copy_from_slice(data);
            }
        }
    }
}

impl Inner {
    fn change(&mut self, change: Change) -> Result<(), std::io::Error> {
        match &mut self.left {
            Some(0) => return Err(std::io::Error::other("the disk is gone")),
            Some(left) => *left -= 1,
            None => {}
        }
        change.apply(&mut self.live);
        self.unsynced.push(change);
        Ok(())
    }
}

impl TornFile {
    /// The file after a crash: what was synced, and some of the rest.
    fn crash(&self, rng: &mut StdRng) -> Self {
        let inner = self.0.lock().unwrap();
        let mut bytes = inner.synced.clone();
        for change in &inner.unsynced {
            match (rng.random_range(0..3), change) {
                (0, _) => {}
                (1, Change::Write(offset, data)) => {
                    let kept = rng.random_range(0..=data.len());
                    Change::Write(*offset, data[..kept].to_vec()).apply(&mut bytes);
                }
                (_, change) => change.apply(&mut bytes),
            }
        }
        let inner = Inner { live: bytes.clone(), synced: bytes, ..Inner::default() };
        Self(Arc::new(Mutex::new(inner)))
    }

    fn open(&self) -> Result<RedbDisk, StorageError> {
        let database = Database::builder().create_with_backend(self.clone()).map_err(failed)?;
        let histogram = crate::metrics::unregistered_histogram();
        RedbDisk::with_database(database, 7, histogram)
    }
}

impl StorageBackend for TornFile {
    fn len(&self) -> Result<u64, std::io::Error> {
        Ok(self.0.lock().unwrap().live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        let inner = self.0.lock().unwrap();
        let end = offset as usize + out.len();
        let found = inner.live.get(offset as usize..end);
        out.copy_from_slice(found.ok_or_else(|| std::io::Error::other("beyond the end"))?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<(), std::io::Error> {
        self.0.lock().unwrap().change(Change::Length(length))
    }

    fn sync_data(&self) -> Result<(), std::io::Error> {
        let mut inner = self.0.lock().unwrap();
        if inner.left == Some(0) {
            return Err(std::io::Error::other("the disk is gone"));
        }
        inner.synced = inner.live.clone();
        inner.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.0.lock().unwrap().change(Change::Write(offset, data.to_vec()))
    }
}

fn batch(rng: &mut StdRng, image: &Image) -> Batch {
    let last = image.base.0 + image.entries.len() as u64;
    let first = last + 1 - rng.random_range(0..=image.entries.len().min(3)) as u64;
    let entries = (first..first + rng.random_range(1..5)).map(|index| Entry {
        index,
        term: rng.random_range(1..9),
        data: vec![rng.random(); rng.random_range(0..3000)].into(),
        ..Entry::default()
    });
    let mut batch = Batch { entries: entries.collect(), sync: true, ..Batch::default() };
    batch.hard_state = Some(crate::raft::hard_state(rng.random_range(1..9), 1, image.base.0));
    if rng.random_range(0..6) == 0 && first > image.base.0 + 1 {
        let mut snapshot = Snapshot { data: vec![1; 9000].into(), ..Snapshot::default() };
        snapshot.mut_metadata().index = first - 1;
        batch.snapshot = Some(snapshot);
        batch.base = Some((first - 1, 1));
    }
    batch
}

#[test]
fn a_crash_leaves_the_store_before_or_after_the_batch() {
    for seed in 0..60 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut file = TornFile::default();
        let mut expected = file.open().unwrap().load().unwrap();
        for round in 0..8 {
            let mut disk = file.open().unwrap();
            assert_eq!(disk.load().unwrap(), expected, "seed {seed} round {round}");
            file.0.lock().unwrap().left = Some(rng.random_range(0..40));
            let (before, after) = loop {
                let batch = batch(&mut rng, &expected);
                let mut after = expected.clone();
                after.apply(batch.clone());
                if disk.write(&batch).is_err() {
                    break (expected, after);
                }
                // What a write has returned for is there, whatever happens next.
                expected = after;
            };
            let crashed = file.crash(&mut rng);
            drop(disk);
            file = crashed;
            let found = file.open().unwrap().load().unwrap();
            assert!(found == before || found == after, "seed {seed} round {round}");
            expected = found;
        }
    }
}
