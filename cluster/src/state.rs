//! The replicated state machine: nodes, rooms and their epochs, keys, settings, members.
//!
//! In: committed commands, in log order, each with its log index. Out: the answer for whoever asked
//! and the set of things that changed. Pure and deterministic: the same log gives the same state on
//! every replica, down to the bytes of a snapshot. Time comes in with the commands only.
//!
//! Does not choose homes, judge liveness or know loads: that is soft state of the leader.

mod bars;
mod join;
mod keys;
mod nodes;
mod rooms;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use wire::control::{Answer, Bar, Barred, KeyId, NodeInfo, Refusal};
use wire::{ClusterId, Epoch, NodeId, Region, RoomId};

use crate::command::{Command, Stamped};

pub use self::bars::MAX_BARS;
pub use self::keys::Opening;
use self::keys::{Key, Terms};

/// The format of an encoded state. 1: first release. 2: bars, the terms of keys and join tokens at its
/// end. A state without any of them is written as format 1.
pub const STATE_FORMAT: u8 = 2;
/// What format 1 lacks at its end: three empty tables.
const ADDED_SINCE_1: [u8; 3] = [0; 3];
/// Most active rooms; a further one is refused as overloaded.
pub const MAX_ROOMS: usize = 250_000;
/// Most rows of the node table; a further node is refused as overloaded.
pub const MAX_NODES: usize = 10_000;
/// Most publish keys in all; a further one is refused as overloaded.
pub const MAX_KEYS: usize = 500_000;
/// Most publish keys of one room; a further one is refused as overloaded.
pub const MAX_KEYS_PER_ROOM: usize = 64;
/// Most node ids remembered as removed; a further removal is refused as overloaded.
pub const MAX_REMOVED: usize = 65_536;
/// Most cluster-wide settings.
pub const MAX_SETTINGS: usize = 256;
/// Longest name or value of a setting, in bytes.
pub const MAX_SETTING_BYTES: usize = 1024;
/// Most members of the Raft group in any stage, those on their way in and out included.
pub const MAX_MEMBERS: usize = 32;
/// How fast the media sequence numbers of rooms without a past grow with time, per second: more
/// than a room uses up, as a segment lasts at least a second.
const MSN_PER_SECOND: u64 = 4;
/// How many media sequence numbers a room can use up before a second has passed by the clock in
/// commands, and more: two grants of a room are at least this far apart.
const MSN_SPARE: u64 = 8;

/// The state after all entries up to [`State::revision`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    cluster: ClusterId,
    revision: u64,
    /// The latest time seen in any command: the clock that never goes back.
    clock_s: u64,
    /// Lowest media sequence number for an activation: above those of every removed room.
    msn_floor: u64,
    nodes: BTreeMap<NodeId, NodeInfo>,
    removed: BTreeSet<NodeId>,
    rooms: BTreeMap<RoomId, Room>,
    keys: BTreeMap<KeyId, Key>,
    settings: BTreeMap<String, String>,
    members: BTreeMap<u64, Member>,
    next_raft_id: u64,
    conf: Conf,
    /// What is barred, for good or until a time.
    bars: BTreeMap<Barred, Bar>,
    /// The keys that have terms, and whether they were used.
    terms: BTreeMap<KeyId, Terms>,
    /// What lets new nodes get certificates.
    join_tokens: BTreeMap<KeyId, join::Token>,
    /// Derived: when bars end, in seconds since 1970.
    #[serde(skip)]
    bar_ends: BTreeSet<(u64, Barred)>,
    /// Derived: the rooms of each home.
    #[serde(skip)]
    homes: BTreeMap<NodeId, BTreeSet<RoomId>>,
    /// Derived: the keys of each room.
    #[serde(skip)]
    room_keys: BTreeMap<RoomId, BTreeSet<KeyId>>,
}

/// A placed room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// The node that holds it.
    pub home: NodeId,
    /// The node that had its publisher when it was placed.
    pub ingest: Option<NodeId>,
    /// The right under which it is held.
    pub epoch: Epoch,
    /// The log index of its activation.
    pub generation: u64,
    /// Where its media sequence numbers start without a past.
    pub msn_base: u64,
    /// Its hub in each region that has one.
    pub hubs: BTreeMap<Region, NodeId>,
}

/// A member of the Raft group, or one that shall be or has been.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// Where its QUIC endpoint is.
    pub addr: SocketAddr,
    /// The disk that took the raft id, once one has.
    pub disk: Option<u64>,
    /// Whether it shall be a voter; if not, it shall leave.
    pub wanted: bool,
}

/// The Raft configuration as of [`State::revision`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conf {
    /// Raft ids that count for quorums.
    pub voters: BTreeSet<u64>,
    /// Raft ids that only receive the log.
    pub learners: BTreeSet<u64>,
    /// Raft ids of the outgoing half while two configurations hold at once.
    pub outgoing: BTreeSet<u64>,
}

impl Conf {
    /// Whether the id takes part in any way.
    #[must_use]
    pub fn contains(&self, raft_id: u64) -> bool {
        [&self.voters, &self.learners, &self.outgoing].iter().any(|set| set.contains(&raft_id))
    }
}

/// What entries changed, so that watchers are told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Rooms that came, went or moved, or whose home has another address.
    pub rooms: BTreeSet<RoomId>,
    /// Nodes that came, went or changed.
    pub nodes: BTreeSet<NodeId>,
    /// What was barred, or is no longer.
    pub bars: BTreeSet<Barred>,
    /// Everything may have changed: a snapshot took the place of entries.
    pub all: bool,
}

/// Why bytes are not a state.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// There are no bytes.
    #[error("empty state")]
    Empty,
    /// Written by a newer build.
    #[error("state format {found} is newer than {STATE_FORMAT}, the highest this build knows")]
    Newer {
        /// The format byte.
        found: u8,
    },
    /// The bytes are damaged.
    #[error("malformed state: {0}")]
    Malformed(#[from] postcard::Error),
}

impl State {
    /// The first state of a cluster: `founders` become members in this order, under the raft ids
    /// from 1 on; the first of them is the only voter and has taken its id with `disk`.
    ///
    /// # Panics
    /// Without a founder.
    #[must_use]
    pub fn found(cluster: ClusterId, founders: &[(NodeId, SocketAddr)], disk: u64) -> Self {
        assert!(!founders.is_empty(), "a cluster has a first member");
        let members = founders.iter().zip(1..).map(|((node, addr), raft_id)| {
            let disk = (raft_id == 1).then_some(disk);
            (raft_id, Member { node: node.clone(), addr: *addr, disk, wanted: true })
        });
        Self {
            revision: 1,
            members: members.collect(),
            next_raft_id: founders.len() as u64 + 1,
            conf: Conf { voters: BTreeSet::from([1]), ..Conf::default() },
            ..Self::blank(cluster)
        }
    }

    /// Makes this state the first of a new cluster, of which `founder` is the only member. The
    /// revision jumps by `jump`, past whatever the former cluster may have granted after this state,
    /// and every room is granted anew with it. Returns the founder's raft id, which is a fresh one.
    pub fn refound(
        &mut self,
        cluster: ClusterId,
        founder: (NodeId, SocketAddr),
        disk: u64,
        jump: u64,
    ) -> u64 {
        let raft_id = self.next_raft_id;
        self.next_raft_id += 1;
        self.cluster = cluster;
        self.revision = self.revision.saturating_add(jump);
        self.removed.remove(&founder.0);
        let (node, addr) = founder;
        let member = Member { node, addr, disk: Some(disk), wanted: true };
        self.members = BTreeMap::from([(raft_id, member)]);
        self.conf = Conf { voters: BTreeSet::from([raft_id]), ..Conf::default() };
        let homes: Vec<NodeId> = self.homes.keys().cloned().collect();
        for home in homes {
            self.renew(&home, &mut Changes::default());
        }
        raft_id
    }

    /// What a new member knows before it has received anything: the cluster's name.
    #[must_use]
    pub fn blank(cluster: ClusterId) -> Self {
        Self {
            cluster,
            revision: 0,
            clock_s: 0,
            msn_floor: 0,
            nodes: BTreeMap::new(),
            removed: BTreeSet::new(),
            rooms: BTreeMap::new(),
            keys: BTreeMap::new(),
            settings: BTreeMap::new(),
            members: BTreeMap::new(),
            next_raft_id: 1,
            conf: Conf::default(),
            bars: BTreeMap::new(),
            terms: BTreeMap::new(),
            join_tokens: BTreeMap::new(),
            bar_ends: BTreeSet::new(),
            homes: BTreeMap::new(),
            room_keys: BTreeMap::new(),
        }
    }

    /// Applies the entry at `index`.
    ///
    /// # Errors
    /// The refusal for whoever proposed it; the state is then as before, but for the revision and
    /// the clock.
    pub fn apply(
        &mut self,
        index: u64,
        stamped: Stamped,
        changes: &mut Changes,
    ) -> Result<Answer, Refusal> {
        debug_assert!(index > self.revision, "entry {index} applied after {}", self.revision);
        self.revision = index;
        self.clock_s = self.clock_s.max(stamped.at_s);
        match stamped.command {
            Command::Register { spec } => self.register(spec, changes),
            Command::SetState { node, incarnation, state } => {
                self.set_state(&node, incarnation, state, changes)
            }
            Command::Forget { node } => self.forget(&node, changes),
            Command::RemoveNode { node } => self.remove_node(node, changes),
            Command::Place { room, home, ingest, replaces, msn_floor } => {
                self.raise_msn_floor(msn_floor);
                self.place(room, home, ingest, replaces, changes)
            }
            Command::Release { room, epoch, next_msn } => {
                self.release(&room, epoch, next_msn, changes)
            }
            Command::Remove { room } => Ok(self.remove_room(&room, 0, changes)),
            Command::SetHub { room, region, hub } => self.set_hub(&room, region, hub, changes),
            Command::Set { name, value } => self.set(name, value),
            Command::CreateKey { id, room, hash } => self.create_key(id, room, hash),
            Command::RevokeKey { id } => self.revoke_key(id),
            Command::Admit { node, addr, lost } => self.admit(node, addr, lost),
            Command::Bind { raft_id, disk } => self.bind(raft_id, disk),
            Command::SetBar { on, bar } => self.set_bar(on, bar, changes),
            Command::StoreKey { id, room, hash, terms, replaces } => {
                self.store_key(id, room, hash, (terms, replaces))
            }
            Command::UseKey { id, push } => self.use_key(id, push),
            Command::CreateJoinToken { id, hash, node, ttl_s } => {
                self.create_join_token(id, hash, node, ttl_s)
            }
            Command::RedeemJoinToken { id, hash, node, key } => {
                self.redeem_join_token(id, &hash, node, key)
            }
        }
    }

    /// Takes over the Raft configuration that the entry at `index` brought about. A member that
    /// shall leave and takes no part any more is forgotten.
    pub fn configure(&mut self, index: u64, conf: Conf) {
        self.revision = index;
        self.conf = conf;
        let conf = &self.conf;
        self.members.retain(|raft_id, member| member.wanted || conf.contains(*raft_id));
    }

    /// Passes an entry without effect.
    pub fn pass(&mut self, index: u64) {
        self.revision = index;
    }

    /// The bytes of a snapshot.
    ///
    /// # Errors
    /// [`StateError::Malformed`] if the state cannot be encoded, which no state does.
    pub fn encode(&self) -> Result<Vec<u8>, StateError> {
        if self.bars.is_empty() && self.terms.is_empty() && self.join_tokens.is_empty() {
            let mut bytes = postcard::to_extend(self, vec![1])?;
            bytes.truncate(bytes.len() - ADDED_SINCE_1.len());
            return Ok(bytes);
        }
        Ok(postcard::to_extend(self, vec![STATE_FORMAT])?)
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// [`StateError`] names what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let mut state: State = match bytes.split_first() {
            None => return Err(StateError::Empty),
            Some((&1, rest)) => postcard::from_bytes(&[rest, &ADDED_SINCE_1].concat())?,
            Some((&format, rest)) if format <= STATE_FORMAT => postcard::from_bytes(rest)?,
            Some((&found, _)) => return Err(StateError::Newer { found }),
        };
        for (room, placed) in &state.rooms {
            state.homes.entry(placed.home.clone()).or_default().insert(room.clone());
        }
        let ends = state.bars.iter().map(|(on, bar)| (bar.until_unix_s, on.clone()));
        state.bar_ends = ends.collect();
        for (id, key) in &state.keys {
            state.room_keys.entry(key.room.clone()).or_default().insert(*id);
        }
        Ok(state)
    }

    /// The cluster.
    #[must_use]
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The index of the last entry applied.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// The latest time any command carried, in seconds since
    /// [`CLOCK_START_UNIX_S`](crate::command::CLOCK_START_UNIX_S).
    #[must_use]
    pub const fn clock_s(&self) -> u64 {
        self.clock_s
    }

    /// The cluster-wide settings, by name.
    #[must_use]
    pub const fn settings(&self) -> &BTreeMap<String, String> {
        &self.settings
    }

    /// The Raft group and those on their way in or out, by raft id.
    #[must_use]
    pub const fn members(&self) -> &BTreeMap<u64, Member> {
        &self.members
    }

    /// The Raft configuration.
    #[must_use]
    pub const fn conf(&self) -> &Conf {
        &self.conf
    }

    fn set(&mut self, name: String, value: Option<String>) -> Result<Answer, Refusal> {
        let Some(value) = value else {
            self.settings.remove(&name);
            return Ok(Answer::Done);
        };
        if name.is_empty() || name.len() > MAX_SETTING_BYTES || value.len() > MAX_SETTING_BYTES {
            return Err(Refusal::Invalid(format!(
                "a setting has 1 to {MAX_SETTING_BYTES} bytes of name and at most as many of value"
            )));
        }
        if self.settings.len() >= MAX_SETTINGS && !self.settings.contains_key(&name) {
            return Err(Refusal::Overloaded(format!("the cluster has {MAX_SETTINGS} settings")));
        }
        self.settings.insert(name, value);
        Ok(Answer::Done)
    }
}
