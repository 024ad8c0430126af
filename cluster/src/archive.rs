//! Backups of the replicated state, and the two ways back from disaster.
//!
//! In: the state of a running member, a backup file, the store of a lone survivor. Out: backups, and
//! stores from which a control node starts as the only member of a new cluster; the others are then
//! wiped and added to it.
//!
//! Both ways may bring back an old state: whatever the former cluster granted after it is forgotten.
//! So epochs jump, past anything it can have granted, and the cluster gets a new id: a member of the
//! former one that turns out to be alive is refused instead of being believed.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use ring::digest::{SHA256, digest};
use wire::{ClusterId, NodeId};

use crate::Error;
use crate::command::Stamped;
use crate::control::STORE_FILE;
use crate::driver::first_batch;
use crate::raft::ready::Fault;
use crate::state::{Changes, State};
use crate::storage::redb::RedbDisk;
use crate::storage::{Disk as _, Image, StorageError};

/// How far epochs jump when a cluster is founded anew from an old state: more entries than a cluster
/// writes between two backups, at a thousand a second for a month.
pub const EPOCH_JUMP: u64 = 1 << 32;

/// How a backup begins: a name, and the version of what follows (1: SHA-256, then the state).
const HEADER: &[u8] = b"tidewater backup 1\n";
const HASH_BYTES: usize = 32;

/// A cluster founded anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refounded {
    /// The new cluster.
    pub cluster: ClusterId,
    /// The log index of the state it was founded from.
    pub from_revision: u64,
    /// The log index it begins with; every epoch to come is higher.
    pub revision: u64,
    /// Rooms in the state.
    pub rooms: usize,
}

/// A backup of an encoded state.
pub(crate) fn seal(state: Vec<u8>) -> Vec<u8> {
    [HEADER, digest(&SHA256, &state).as_ref(), &state].concat()
}

fn open(backup: &[u8]) -> Result<State, Error> {
    let damaged = |what: &str| Error::Backup(what.to_owned());
    let rest = backup.strip_prefix(HEADER).ok_or_else(|| damaged("not a backup of this kind"))?;
    let (hash, state) = rest.split_at_checked(HASH_BYTES).ok_or_else(|| damaged("cut short"))?;
    if digest(&SHA256, state).as_ref() != hash {
        return Err(damaged("damaged: its hash does not fit"));
    }
    State::decode(state).map_err(|error| Error::Backup(error.to_string()))
}

/// Founds a cluster from a backup, in the data folder of a control node that is not running and has
/// no control store yet.
///
/// # Errors
/// [`Error::Backup`] if the backup cannot be read or there is a store already,
/// [`Error::Storage`] if the store cannot be written.
pub fn restore(
    backup: &[u8],
    data: &Path,
    node: &NodeId,
    addr: SocketAddr,
) -> Result<Refounded, Error> {
    let state = open(backup)?;
    let store = data.join(STORE_FILE);
    if store.exists() {
        let why = format!("{} exists; restore into an empty data folder", store.display());
        return Err(Error::Backup(why));
    }
    write(&store, state, 1, node, addr)
}

/// Founds a cluster from the store of the last control node, when a majority of the voters is lost
/// for good. The node must not be running. Takes over everything in its log, also what it does not
/// know to be committed: some of it may have been acknowledged. The former store stays beside the
/// new one, as `control.redb.before-recovery`.
///
/// # Errors
/// [`Error::Storage`] if the store cannot be read or written, or belongs to no cluster;
/// [`Error::Fault`] if it holds what this build cannot read.
pub fn recover(data: &Path, node: &NodeId, addr: SocketAddr) -> Result<Refounded, Error> {
    let store = data.join(STORE_FILE);
    if !store.exists() {
        let why = format!("{} does not exist; there is nothing to recover", store.display());
        return Err(Error::Backup(why));
    }
    let image = disk(&store)?.load()?;
    let (state, term) = newest(image)?;
    let fresh = data.join(format!("{STORE_FILE}.recovered"));
    // Left behind by a recovery that did not end.
    let _ = fs::remove_file(&fresh);
    let refounded = write(&fresh, state, term + 1, node, addr)?;
    let before = data.join(format!("{STORE_FILE}.before-recovery"));
    let moved = fs::rename(&store, before).and_then(|()| fs::rename(&fresh, &store));
    moved.map_err(|error| StorageError::Database(Box::new(::redb::Error::Io(error))))?;
    Ok(refounded)
}

/// The state after all entries of a log, and the highest term in it.
fn newest(image: Image) -> Result<(State, u64), Error> {
    let identity = image.identity.ok_or(StorageError::Damaged { what: "identity" })?;
    let mut state = if image.snapshot.is_empty() {
        State::blank(identity.cluster)
    } else {
        State::decode(image.snapshot.get_data()).map_err(Fault::from)?
    };
    let mut term = image.hard_state.term;
    for entry in image.entries {
        term = term.max(entry.term);
        let index = entry.index;
        if index <= state.revision() {
            continue;
        }
        if crate::raft::is_command(&entry) {
            let stamped =
                Stamped::decode(&entry.data).map_err(|error| Fault::Entry { index, error })?;
            // A refusal is for whoever asked.
            let _ = state.apply(index, stamped, &mut Changes::default());
        } else {
            state.pass(index);
        }
    }
    Ok((state, term))
}

fn write(
    store: &Path,
    mut state: State,
    term: u64,
    node: &NodeId,
    addr: SocketAddr,
) -> Result<Refounded, Error> {
    let cluster = ClusterId::random().map_err(|_| Error::NoRandomness)?;
    let mut disk = disk(store)?;
    let name = disk.load()?.disk;
    let from_revision = state.revision();
    let raft_id = state.refound(cluster, (node.clone(), addr), name, EPOCH_JUMP);
    disk.write(&first_batch(&state, raft_id, term)?)?;
    let (revision, rooms) = (state.revision(), state.room_count());
    Ok(Refounded { cluster, from_revision, revision, rooms })
}

fn disk(store: &Path) -> Result<RedbDisk, StorageError> {
    RedbDisk::open(store, rand::random(), crate::metrics::unregistered_histogram())
}

#[cfg(test)]
mod tests {
    use wire::RoomId;
    use wire::control::KeyId;

    use super::*;
    use crate::command::Command;

    fn state() -> State {
        let founder = (NodeId::new("o1").unwrap(), "127.0.0.1:1".parse().unwrap());
        let mut state = State::found(ClusterId::from_bits(1), &[founder], 7);
        let room = RoomId::new("live", "a").unwrap();
        let hash = wire::control::SecretHash([1; 32]);
        let command = Command::CreateKey { id: KeyId(1), room, hash };
        state.apply(5, Stamped { at_s: 1, command }, &mut Changes::default()).unwrap();
        state
    }

    #[test]
    fn a_backup_founds_a_cluster_with_higher_epochs() {
        let folder = tempfile::tempdir().unwrap();
        let backup = seal(state().encode().unwrap());
        let node = NodeId::new("o9").unwrap();
        let addr = "127.0.0.1:9".parse().unwrap();
        let refounded = restore(&backup, folder.path(), &node, addr).unwrap();
        assert_eq!((refounded.from_revision, refounded.revision), (5, 5 + EPOCH_JUMP));
        let image = disk(&folder.path().join(STORE_FILE)).unwrap().load().unwrap();
        let (restored, _) = newest(image.clone()).unwrap();
        assert_eq!(restored.keys(None, None, 9), state().keys(None, None, 9));
        assert_ne!(restored.cluster(), state().cluster());
        let member = restored.members().iter().next().unwrap();
        assert_eq!((*member.0, &member.1.node), (2, &node), "raft ids go on");
        assert_eq!(member.1.disk, Some(image.disk));
        let again = restore(&backup, folder.path(), &node, addr).unwrap_err().to_string();
        assert!(again.contains("exists"), "{again}");
    }

    #[test]
    fn damaged_backups_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let node = NodeId::new("o9").unwrap();
        let says = |backup: &[u8]| {
            restore(backup, folder.path(), &node, ([127, 0, 0, 1], 1).into())
                .unwrap_err()
                .to_string()
        };
        let mut backup = seal(state().encode().unwrap());
        assert_eq!(says(b"x"), "backup: not a backup of this kind");
        assert_eq!(says(&backup[..HEADER.len() + 3]), "backup: cut short");
        *backup.last_mut().unwrap() ^= 1;
        assert_eq!(says(&backup), "backup: damaged: its hash does not fit");
        assert!(recover(folder.path(), &node, ([127, 0, 0, 1], 1).into()).is_err());
    }
}
