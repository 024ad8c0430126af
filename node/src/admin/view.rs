//! The JSON of the admin API, as the server writes it and the command line reads it.
//!
//! Field names are part of the outside contract (DESIGN section 9): append only.

mod access;

pub use self::access::{
    AllForbidden, CreatedKey, CreatedToken, Forbidden, Key, KeyTerms, Keys, NewAdminToken,
    NewForbidden, NewKey, NewToken, Obs, Play, Push, Revocation, Revocations, RoomOpened,
    RoomWanted, Rotation,
};
use http::HeaderName;
use serde::{Deserialize, Serialize};

/// Says the log index a backup is of.
pub const REVISION_HEADER: HeaderName = HeaderName::from_static("tidewater-revision");

/// `GET /api/v1/cluster`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// The cluster's id.
    pub cluster: String,
    /// The node that leads, if one is known.
    pub leader: Option<String>,
    /// The Raft term.
    pub term: u64,
    /// The log index up to which the answering node has applied.
    pub revision: u64,
    /// The control nodes.
    pub members: Vec<Member>,
    /// All nodes, by id.
    pub nodes: Vec<Node>,
    /// Active rooms.
    pub rooms: u64,
}

/// One control node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The node.
    pub id: String,
    /// Its raft id.
    pub raft_id: u64,
    /// `host:port` of its QUIC endpoint.
    pub address: String,
    /// `voter`, `learner` or `joining`.
    pub part: String,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its id.
    pub id: String,
    /// What it does.
    pub roles: Vec<String>,
    /// Where it stands.
    pub region: String,
    /// `up`, `draining` or `down`.
    pub state: String,
    /// `host:port` of its QUIC endpoint.
    pub address: String,
    /// Rooms it is home of.
    pub rooms: u32,
    /// Viewers it serves, if the leader answered.
    pub viewers: Option<u32>,
    /// Share of its cores in use, in thousandths, if the leader answered.
    pub cpu_permille: Option<u16>,
    /// Bits per second it sends to viewers, if the leader answered.
    pub egress_bps: Option<u64>,
    /// Highest log format it applies.
    pub log: u16,
    /// Highest render version it produces.
    pub render: u16,
}

/// `POST /api/v1/rooms/{app}/{name}/place`: where a room shall live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewHome {
    /// An origin; without it the leader chooses the best other one.
    pub to: Option<String>,
}

/// The answer to `POST /api/v1/rooms/{app}/{name}/place`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// `app/name`.
    pub room: String,
    /// The node that holds it now.
    pub home: String,
    /// The right under which it does.
    pub epoch: u64,
}

/// `POST /api/v1/cluster/tokens`: a token with which one new node gets its certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewJoinToken {
    /// The only node it is for; without it any that the cluster does not know.
    pub node: Option<String>,
    /// How long it is good, in seconds.
    pub ttl_s: u32,
}

/// The answer to `POST /api/v1/cluster/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedJoinToken {
    /// The token, shown this once.
    pub token: String,
    /// How long it is good, in seconds.
    pub ttl_s: u32,
    /// `host:port` of a node that takes it, if the answering one does.
    pub join: Option<String>,
}

/// `POST /api/v1/cluster/members`: the control node to admit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewMember {
    /// The node.
    pub id: String,
    /// `host:port` of its QUIC endpoint.
    pub address: String,
}

/// The answer to `POST /api/v1/cluster/members`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admitted {
    /// The node.
    pub id: String,
    /// The raft id it was given.
    pub raft_id: u64,
}

/// `POST /api/v1/cluster/leader`: who shall lead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewLeader {
    /// A voter; without it the leader chooses the one that is furthest.
    pub to: Option<String>,
}

/// What goes on in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RoomState {
    /// Someone publishes.
    Live,
    /// The publisher has gone and its grace time runs.
    Grace,
    /// Nobody publishes.
    Idle,
}

/// `GET /api/v1/rooms/{app}/{name}`, and an item of `GET /api/v1/rooms`.
///
/// What only the home knows is absent while it does not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// `app/name`.
    pub room: String,
    /// The node that holds it.
    pub home: String,
    /// The node its publisher is connected to, if there is one.
    pub ingest: Option<String>,
    /// The right under which the home holds it.
    pub epoch: u64,
    /// What goes on in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<RoomState>,
    /// Viewers on all edges, as these last said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub viewers: Option<u64>,
    /// Edges subscribed to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscribers: Option<u64>,
    /// The publisher's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// What its encoder calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoder: Option<String>,
    /// When the present push was accepted, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_unix_ms: Option<u64>,
    /// What the streamer should change, when something is amiss.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// `GET /api/v1/rooms`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rooms {
    /// One page, by name.
    pub rooms: Vec<Room>,
    /// What to give as `after` for the next page; absent on the last.
    pub next: Option<String>,
}

/// `GET /readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Whether this node should be sent callers.
    pub ready: bool,
    /// Why not.
    pub not_ready: Vec<String>,
    /// What is left open to anyone.
    pub warnings: Vec<String>,
}
