//! Messages between a node and the control plane, and between voters.
//!
//! In: postcard bytes of one frame of a control, watch or raft stream. Out: values whose ids are
//! valid by construction. Lists are bounded by the frame ([`MAX_ASK_BYTES`], [`MAX_ANSWER_BYTES`])
//! and by the named limits below; a declared length never allocates, since postcard reads from a
//! slice that is already there.
//!
//! Enum variants and struct fields are encoded by position: a new variant goes to the end of its
//! enum, a field is never added, moved or removed. [`CONTROL_VERSION`] counts what a node may send.
//!
//! Does not decide anything: answers are made by the cluster crate.

mod bar;

use std::net::IpAddr;
use std::{fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

pub use self::bar::{
    Bar, Barred, FOR_GOOD, KeyInFull, KeyTerms, KeyVerdict, MAX_BARRED_BYTES, MAX_KEY_NETWORKS,
    Network,
};
use crate::{ClusterId, Epoch, NodeId, Region, RoomId};

/// Version of the messages in this file. 1: first release. 2: bars and the terms of keys.
pub const CONTROL_VERSION: u16 = 2;
/// Longest frame a control node accepts from a client.
pub const MAX_ASK_BYTES: usize = 16 * 1024;
/// Longest frame a client accepts from a control node: a status of a few thousand nodes.
pub const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// Longest raft frame without a snapshot: entries are at most 1 MiB a message.
pub const MAX_RAFT_BYTES: usize = 4 * 1024 * 1024;
/// Longest raft frame with a snapshot: about a million rooms.
pub const MAX_SNAPSHOT_BYTES: usize = 512 * 1024 * 1024;
/// Most entries in one page of rooms or keys.
pub const MAX_PAGE: u16 = 500;
/// How often a watch stream says how far it has come, at least, in milliseconds.
pub const WATCH_PROGRESS_MS: u64 = 500;
/// Most viewer URLs of one node.
pub const MAX_VIEWER_URLS: usize = 4;
/// Longest viewer URL, in bytes.
pub const MAX_VIEWER_URL_BYTES: usize = 256;

/// Which parts of Tidewater a node runs: a set of [`Roles::CONTROL`], [`Roles::ORIGIN`] and
/// [`Roles::EDGE`].
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Roles(pub u8);

impl Roles {
    /// Votes on placement, or could.
    pub const CONTROL: Roles = Roles(1);
    /// Accepts publishers and may be the home of rooms.
    pub const ORIGIN: Roles = Roles(2);
    /// Serves viewers.
    pub const EDGE: Roles = Roles(4);

    /// The roles of both sets.
    #[must_use]
    pub const fn with(self, other: Roles) -> Roles {
        Roles(self.0 | other.0)
    }

    /// Whether every role of `other` is in this set.
    #[must_use]
    pub const fn has(self, other: Roles) -> bool {
        self.0 & other.0 == other.0
    }

    /// The names of the roles in the set, as the configuration writes them.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        [(Roles::CONTROL, "control"), (Roles::ORIGIN, "origin"), (Roles::EDGE, "edge")]
            .into_iter()
            .filter_map(move |(role, name)| self.has(role).then_some(name))
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// What a node can carry. 0 means no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Rooms it may be home of.
    pub rooms: u32,
    /// Viewers it may serve.
    pub viewers: u32,
    /// Bits per second it may send.
    pub egress_bps: u64,
}

/// Which versions a node understands, so that the cluster speaks what all its nodes know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// Control messages: [`CONTROL_VERSION`] of its build.
    pub control: u16,
    /// Highest format of replicated commands it applies.
    pub log: u16,
    /// Highest render version it produces; it also produces the one before.
    pub render: u16,
}

/// What a node says about itself when it registers. Replicated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Its name, the SAN of its certificate.
    pub id: NodeId,
    /// Random, drawn at each start of the process: a new one means everything in its memory is gone.
    pub incarnation: u64,
    /// What it runs.
    pub roles: Roles,
    /// Where it stands.
    pub region: Region,
    /// What it can carry.
    pub capacity: Capacity,
    /// Where its QUIC endpoint is reached by other nodes.
    pub addr: SocketAddr,
    /// Base URLs under which viewers reach it, best first, at most [`MAX_VIEWER_URLS`].
    pub viewer_urls: Vec<String>,
    /// Which versions it understands.
    pub versions: Versions,
}

/// Whether placement counts on a node. Replicated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NodeState {
    /// It heartbeats and takes rooms.
    Up,
    /// It works, takes no new room, and its rooms are being moved away.
    Draining,
    /// It has not been heard of for longer than its lease.
    Down,
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NodeState::Up => "up",
            NodeState::Draining => "draining",
            NodeState::Down => "down",
        })
    }
}

/// One row of the node table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// What it said about itself.
    pub spec: NodeSpec,
    /// Whether placement counts on it.
    pub state: NodeState,
}

/// How busy a node is, sent with each heartbeat. Soft state of the leader, never replicated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Rooms it is home of.
    pub rooms: u32,
    /// Viewers it serves.
    pub viewers: u32,
    /// Bits per second it sends.
    pub egress_bps: u64,
    /// Share of all its cores in use, in thousandths.
    pub cpu_permille: u16,
    /// One past the highest media sequence number it has made or shown, of any room: a room that
    /// starts anew without a known past starts no lower.
    pub head_msn: u64,
}

/// Where a room lives, and under which right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The room.
    pub room: RoomId,
    /// The node that holds it.
    pub home: NodeId,
    /// Where that node's QUIC endpoint is.
    pub home_addr: SocketAddr,
    /// The right under which it holds the room.
    pub epoch: Epoch,
    /// The log index at which the room was activated: the same through all its moves, higher when
    /// it comes back after a removal.
    pub generation: u64,
    /// The media sequence number to start from when nothing of the room's past is known.
    pub msn_base: u64,
}

/// The answer to "where is this room": at `revision`, there or nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// The log index up to which the answering node knew.
    pub revision: u64,
    /// The grant, or none while the room is not active.
    pub placement: Option<Grant>,
}

/// A publish key's public name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(pub u64);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for KeyId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(KeyId)
    }
}

/// SHA-256 of a secret. The secret itself never crosses the wire and is never stored.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretHash(pub [u8; 32]);

impl PartialEq for SecretHash {
    /// Takes the same time wherever the hashes differ.
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}

impl Eq for SecretHash {}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

/// A publish key as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyInfo {
    /// Its public name.
    pub id: KeyId,
    /// The one room it opens.
    pub room: RoomId,
    /// When it was made, in seconds since 1970.
    pub created_unix_s: u64,
}

/// How a control node takes part in Raft.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// It counts for quorums.
    Voter,
    /// It receives the log but does not count yet.
    Learner,
    /// It is admitted, but has not been contacted.
    Joining,
}

/// One member of the Raft group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberInfo {
    /// Its raft id: unique for ever, a wiped disk gets a new one.
    pub raft_id: u64,
    /// The node that runs it.
    pub node: NodeId,
    /// Where that node's QUIC endpoint is.
    pub addr: SocketAddr,
    /// How it takes part.
    pub part: Part,
    /// Log index up to which it is known to have the log; 0 unless the leader answers.
    pub matched: u64,
}

/// One row of a status: the node and, when the leader answers, its load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its row of the node table.
    pub info: NodeInfo,
    /// Its load as of the last heartbeat, if the answering node leads.
    pub load: Option<Load>,
    /// Rooms it is home of.
    pub homes: u32,
}

/// The state of the control plane as one of its nodes sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node that leads, if one is known.
    pub leader: Option<NodeId>,
    /// The current Raft term.
    pub term: u64,
    /// The log index up to which the answering node has applied.
    pub revision: u64,
    /// The Raft group.
    pub members: Vec<MemberInfo>,
    /// The node table, by id.
    pub nodes: Vec<NodeStatus>,
    /// Active rooms.
    pub rooms: u64,
}

/// A question to the control plane. The number comes back with the answer; a client uses each
/// number once a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the asker.
    pub id: u64,
    /// The question.
    pub ask: Ask,
}

/// The answer to the request of the same number. Answers come in any order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// The number of the request.
    pub id: u64,
    /// The answer.
    pub answer: Result<Answer, Refusal>,
}

/// What can be asked. All of them may be asked again after a lost answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Activate the room if it is not, and say where it lives. Leader only.
    Claim {
        /// The room.
        room: RoomId,
        /// The node that has the publisher, preferred as home if it is an origin.
        ingest: NodeId,
    },
    /// Is `epoch` still the room's? Leader only, linearizable.
    Confirm {
        /// The room.
        room: RoomId,
        /// The epoch asked about.
        epoch: Epoch,
    },
    /// Where is the room? Any node.
    Locate {
        /// The room.
        room: RoomId,
    },
    /// The room is idle: remove it if `epoch` is still its epoch. Leader only.
    Release {
        /// The room.
        room: RoomId,
        /// The epoch under which the asker holds it.
        epoch: Epoch,
        /// One past the highest media sequence number used; 0 if unknown.
        next_msn: u64,
    },
    /// Enter the node table or update one's row. Leader only.
    Register {
        /// The asker's row.
        spec: NodeSpec,
    },
    /// I am alive. Leader only.
    Heartbeat {
        /// The asker.
        node: NodeId,
        /// Its incarnation; another one than the registered gets [`Refusal::Unregistered`].
        incarnation: u64,
        /// How busy it is.
        load: Load,
    },
    /// Store a publish key. Leader only. The same id again changes nothing.
    CreateKey {
        /// Its public name, random.
        id: KeyId,
        /// The room it opens.
        room: RoomId,
        /// SHA-256 of the secret.
        hash: SecretHash,
    },
    /// One page of keys. Leader only.
    ListKeys {
        /// Only those of this room.
        room: Option<RoomId>,
        /// Only those after this one.
        after: Option<KeyId>,
        /// Most keys to return, at most [`MAX_PAGE`].
        limit: u16,
    },
    /// Forget a publish key. Leader only.
    RevokeKey {
        /// Its public name.
        id: KeyId,
    },
    /// Does a secret with this hash open the room? Leader only, linearizable.
    CheckKey {
        /// The room.
        room: RoomId,
        /// SHA-256 of the secret.
        hash: SecretHash,
    },
    /// The state of the control plane. Any node.
    Status,
    /// One page of active rooms, by name. Any node.
    Rooms {
        /// Only those after this one.
        after: Option<RoomId>,
        /// Most rooms to return, at most [`MAX_PAGE`].
        limit: u16,
    },
    /// Move a room to a node, or to the best one. Leader only.
    Place {
        /// The room.
        room: RoomId,
        /// Where to; none lets placement choose among the others.
        to: Option<NodeId>,
    },
    /// Remove a room whatever its epoch. Leader only.
    Remove {
        /// The room.
        room: RoomId,
    },
    /// Begin or end the draining of a node. Leader only.
    Drain {
        /// The node.
        node: NodeId,
        /// False takes it back into service.
        draining: bool,
    },
    /// Admit a node to the Raft group, in place of a member of the same node id if there is one.
    /// Leader only.
    AddMember {
        /// The node.
        node: NodeId,
        /// Where its QUIC endpoint is.
        addr: SocketAddr,
    },
    /// Remove a node from the Raft group and the node table, for good. Leader only.
    RemoveNode {
        /// The node.
        node: NodeId,
    },
    /// Hand leadership on. Leader only.
    TransferLeader {
        /// To whom; none lets the leader choose the member that is furthest.
        to: Option<NodeId>,
    },
    /// What is on your disk? Any control node, also one that is in no cluster yet.
    Probe,
    /// Join the cluster under this raft id. Only to a control node with an empty disk, only from a
    /// node of its own list.
    Adopt {
        /// The cluster.
        cluster: ClusterId,
        /// The fresh raft id.
        raft_id: u64,
        /// The disk it is meant for, from [`Disk::Empty`]; another disk refuses.
        disk: u64,
    },
    /// Set or, without a value, clear a cluster-wide setting. Leader only.
    Set {
        /// Its name, as in the configuration.
        name: String,
        /// Its value, as in the configuration.
        value: Option<String>,
    },
    /// The cluster-wide settings. Leader only.
    Settings,
    /// How busy each edge is, by its last heartbeat. Leader only; a thousand edges are some 20 KiB.
    Loads,
    /// Bar something, or, without a bar, let it in again. Leader only.
    SetBar {
        /// What.
        on: Barred,
        /// For how long.
        bar: Option<Bar>,
    },
    /// One page of bars, by what they are on. Any node.
    Bars {
        /// Only those after this one.
        after: Option<Barred>,
        /// Most bars to return, at most [`MAX_PAGE`].
        limit: u16,
    },
    /// Store a publish key with terms. Leader only. The same id again changes nothing.
    StoreKey {
        /// Its public name, random.
        id: KeyId,
        /// The room it opens.
        room: RoomId,
        /// SHA-256 of the secret.
        hash: SecretHash,
        /// Its terms.
        terms: KeyTerms,
        /// The key it takes the place of, and for how many seconds more that one opens.
        replaces: Option<(KeyId, u32)>,
    },
    /// One page of keys with their terms. Leader only.
    KeysInFull {
        /// Only those of this room.
        room: Option<RoomId>,
        /// Only those after this one.
        after: Option<KeyId>,
        /// Most keys to return, at most [`MAX_PAGE`].
        limit: u16,
    },
    /// A push brings a secret with this hash. Leader only, linearizable; uses up a key for one push.
    UseKey {
        /// The room.
        room: RoomId,
        /// SHA-256 of the secret.
        hash: SecretHash,
        /// The publisher's address.
        from: IpAddr,
        /// Names the push: asked again for the same one, the answer is the same.
        push: u64,
    },
    /// Store a token with which one new node gets a certificate. Leader only. The same id again
    /// changes nothing.
    CreateJoinToken {
        /// Its public name, random.
        id: KeyId,
        /// SHA-256 of the secret.
        hash: SecretHash,
        /// The only node it is for; without it, any node that the cluster does not know.
        node: Option<NodeId>,
        /// How long it is good, in seconds.
        ttl_s: u32,
    },
    /// Use such a token up, for this node and this public key. Leader only. The same again changes
    /// nothing.
    RedeemJoinToken {
        /// The token's public name.
        id: KeyId,
        /// SHA-256 of its secret.
        hash: SecretHash,
        /// The node that joins.
        node: NodeId,
        /// SHA-256 of its public key.
        key: SecretHash,
    },
}

/// What a [`Ask::Probe`] finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Disk {
    /// No cluster: a new node, or one whose disk was wiped.
    Empty {
        /// Random, drawn when the empty disk was first opened: a wiped disk has another one, so that
        /// no raft id is ever used from two disks.
        disk: u64,
    },
    /// Member of this cluster.
    Member {
        /// The cluster.
        cluster: ClusterId,
        /// Its raft id.
        raft_id: u64,
    },
}

/// A positive answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Ask::Claim`] and [`Ask::Place`].
    Grant(Grant),
    /// To [`Ask::Confirm`], [`Ask::CheckKey`].
    Bool(bool),
    /// To [`Ask::Locate`].
    Location(Location),
    /// It is done, or was already.
    Done,
    /// To [`Ask::Heartbeat`]: the leader knows the node.
    Beat {
        /// The leader's term.
        term: u64,
        /// The log index up to which it has applied.
        revision: u64,
    },
    /// To [`Ask::ListKeys`]; fewer than asked for means no more.
    Keys(Vec<KeyInfo>),
    /// To [`Ask::Status`].
    Status(ClusterStatus),
    /// To [`Ask::Rooms`]; fewer than asked for means no more.
    Rooms {
        /// The log index up to which the answering node knew.
        revision: u64,
        /// The page.
        rooms: Vec<Grant>,
    },
    /// To [`Ask::AddMember`]: the raft id it was given.
    Member {
        /// The raft id.
        raft_id: u64,
    },
    /// To [`Ask::Probe`].
    Probe(Disk),
    /// To [`Ask::Settings`].
    Settings(Vec<(String, String)>),
    /// To [`Ask::Loads`].
    Loads(Vec<(NodeId, Load)>),
    /// To [`Ask::Bars`]; fewer than asked for means no more.
    Bars(Vec<(Barred, Bar)>),
    /// To [`Ask::KeysInFull`]; fewer than asked for means no more.
    KeysInFull(Vec<KeyInFull>),
    /// To [`Ask::UseKey`].
    Key(KeyVerdict),
}

/// Why a question has no positive answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Ask the leader.
    #[error("not the leader{}", hint.as_ref().map_or_else(String::new, |h| format!("; {} leads", h.0)))]
    NotLeader {
        /// Who leads and where, if known.
        hint: Option<(NodeId, SocketAddr)>,
    },
    /// The asker must register first.
    #[error("this node is not registered under its incarnation")]
    Unregistered,
    /// A named node is not in the node table.
    #[error("node {0} is unknown")]
    UnknownNode(NodeId),
    /// A named room is not active.
    #[error("room {0} is not active")]
    UnknownRoom(RoomId),
    /// A named publish key does not exist.
    #[error("publish key {0} is unknown")]
    UnknownKey(KeyId),
    /// No origin is up to take the room.
    #[error("no origin is up")]
    NoHome,
    /// The epoch is not the room's any more.
    #[error("epoch is not current; the room's is {}", current.map_or_else(|| "none".to_owned(), |e| e.to_string()))]
    StaleEpoch {
        /// The room's epoch, if it is active.
        current: Option<Epoch>,
    },
    /// The node was removed from the cluster for good.
    #[error("node {0} was removed from the cluster")]
    Removed(NodeId),
    /// The certificate's name is not the one the message speaks for.
    #[error("node {peer} may not speak for {claimed}")]
    WrongNode {
        /// The certificate's name.
        peer: NodeId,
        /// The name in the message.
        claimed: NodeId,
    },
    /// A queue or table of the control node is full; try again.
    #[error("overloaded: {0}")]
    Overloaded(String),
    /// The control node cannot answer now; try again, or try another.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The question makes no sense.
    #[error("invalid: {0}")]
    Invalid(String),
    /// Another change of the same thing is under way.
    #[error("conflict: {0}")]
    Conflict(String),
    /// A join token opens nothing.
    #[error(transparent)]
    JoinToken(#[from] JoinFault),
}

/// What is wrong with a join token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum JoinFault {
    /// No such token, or another secret.
    #[error("the join token is unknown to this cluster; make one with: tidewater cluster token")]
    Unknown,
    /// Its time is over.
    #[error("the join token has expired; make another with: tidewater cluster token")]
    Expired,
    /// It has admitted a node.
    #[error(
        "the join token was used by {by}; each is good for one node, make another with: tidewater cluster token"
    )]
    Used {
        /// That node.
        by: NodeId,
    },
    /// It is for another node.
    #[error("the join token is for {node} alone")]
    OtherNode {
        /// That node.
        node: NodeId,
    },
    /// A token for any new node does not make another certificate of a node that is there.
    #[error(
        "the cluster has a node {node} already; for a new certificate of it: tidewater cluster token --node {node}"
    )]
    Known {
        /// That node.
        node: NodeId,
    },
}

impl Refusal {
    /// Whether the same question may succeed later or elsewhere.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Refusal::NotLeader { .. }
            | Refusal::Unregistered
            | Refusal::NoHome
            | Refusal::Overloaded(_)
            | Refusal::Unavailable(_) => true,
            Refusal::UnknownNode(_)
            | Refusal::UnknownRoom(_)
            | Refusal::UnknownKey(_)
            | Refusal::StaleEpoch { .. }
            | Refusal::Removed(_)
            | Refusal::WrongNode { .. }
            | Refusal::Invalid(_)
            | Refusal::Conflict(_)
            | Refusal::JoinToken(_) => false,
        }
    }
}

/// From the watcher, on a watch stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WatchAsk {
    /// Tell me where this room is, now and whenever that changes.
    Subscribe {
        /// The room; it need not exist.
        room: RoomId,
    },
    /// No longer.
    Unsubscribe {
        /// The room.
        room: RoomId,
    },
}

/// To the watcher. A stream begins with [`WatchEvent::Resync`], the node table and
/// [`WatchEvent::Synced`]. Several changes of one thing may come as one event with the last of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WatchEvent {
    /// What follows is the whole node table and every subscribed room; forget nodes not in it.
    Resync {
        /// The log index up to which the sender knows.
        revision: u64,
    },
    /// A row of the node table.
    Node {
        /// The log index up to which the sender knew.
        revision: u64,
        /// The row.
        node: NodeInfo,
    },
    /// A node left the table.
    NodeGone {
        /// The log index up to which the sender knew.
        revision: u64,
        /// The node.
        id: NodeId,
    },
    /// Where a subscribed room is.
    Room {
        /// The room.
        room: RoomId,
        /// Where.
        location: Location,
    },
    /// Everything up to this revision has been sent. Ends a resync, and comes at least every
    /// [`WATCH_PROGRESS_MS`] as a sign of life: a watcher that knows from the leader of a higher
    /// revision sees by it that this control node lags, and watches at another.
    Synced {
        /// The log index up to which the sender knew.
        revision: u64,
    },
    /// The subscription is not held: the stream is at its limit of rooms. Ask by locate instead.
    Refused {
        /// The room.
        room: RoomId,
    },
    /// Something is barred, or, without a bar, no longer. A resync brings all bars that stand.
    Bar {
        /// The log index up to which the sender knew.
        revision: u64,
        /// What.
        on: Barred,
        /// For how long.
        bar: Option<Bar>,
    },
}

/// One message between voters. The message itself is the raft crate's protobuf, opaque here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftFrame {
    /// The sender's cluster; another one is refused.
    pub cluster: ClusterId,
    /// The raft id of the sender.
    pub from: u64,
    /// The raft id it is meant for; a node that has another refuses.
    pub to: u64,
    /// Protobuf `eraftpb.Message`.
    pub message: bytes::Bytes,
}

#[cfg(test)]
mod tests;
