//! The sections of the configuration as the rest of the node reads them.
//!
//! Filled by [`super::reader`]; plain data, no checks.

use std::{
    collections::BTreeSet, fmt, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration,
};

use wire::{NodeId, Region};

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Takes part in Raft and answers placement questions.
    Control,
    /// Takes pushes and is the home of rooms.
    Origin,
    /// Serves viewers.
    Edge,
}

/// `[node]`: who this node is.
#[derive(Debug, Clone)]
pub struct Node {
    /// Unset under `dev`, and for commands that only talk to a node.
    pub id: Option<NodeId>,
    /// Where it stands.
    pub region: Region,
    /// Folder for what must survive a restart.
    pub data: PathBuf,
    /// What it does; never empty.
    pub roles: BTreeSet<Role>,
    /// How long a stop waits for what is in flight.
    pub shutdown_grace: Duration,
}

/// `[cluster]`: how nodes find and trust each other.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// UDP address of the QUIC endpoint.
    pub listen: SocketAddr,
    /// `host:port` others reach it at, when set.
    pub advertise: Option<String>,
    /// The control nodes.
    pub control: Vec<ControlNode>,
    /// The cluster's CA certificate.
    pub ca: Option<PathBuf>,
    /// This node's certificate.
    pub cert: Option<PathBuf>,
    /// This node's private key.
    pub key: Option<PathBuf>,
    /// The CA's private key, on a node that signs for newcomers.
    pub ca_key: Option<PathBuf>,
}

/// One entry of `cluster.control`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlNode {
    /// The node.
    pub id: NodeId,
    /// `host:port` of its QUIC endpoint.
    pub address: String,
}

/// `[rtmp]`: where publishers push.
#[derive(Debug, Clone)]
pub struct Rtmp {
    /// Where it listens; port 0 picks a free one.
    pub listen: SocketAddr,
    /// `host:port` that publishers are told to push to, when set.
    pub advertise: Option<String>,
    /// Connections at once.
    pub max_connections: usize,
    /// Connections at once from one address; 0 is no limit.
    pub max_connections_per_address: usize,
}

/// `[http]`: where viewers connect.
#[derive(Debug, Clone)]
pub struct Http {
    /// Where it listens; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Certificate and key; both or none.
    pub tls: Option<Tls>,
    /// Base URL under which viewers reach this edge, when set.
    pub advertise: Option<String>,
    /// Viewer connections at once.
    pub max_connections: usize,
    /// Viewer connections at once from one address.
    pub max_connections_per_address: u32,
    /// Origins whose pages may connect to rooms; empty is all.
    pub origins: Vec<String>,
    /// The longest an FLV chunk collects frames.
    pub flv_max_flush: Duration,
}

/// A certificate chain and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// PEM file of the chain.
    pub cert: PathBuf,
    /// PEM file of the private key.
    pub key: PathBuf,
}

/// `[admin]`: the private listener.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Where it listens, and where commands look for it: `host:port`.
    pub listen: String,
    /// Whether loopback callers need the token too.
    pub require_token: bool,
    /// The bearer token, when set.
    pub token: Option<Secret>,
}

/// `[api]`: the API alone, for application back-ends.
#[derive(Debug, Clone)]
pub struct Api {
    /// `None` is off.
    pub listen: Option<SocketAddr>,
    /// Certificate and key; needed off loopback.
    pub tls: Option<Tls>,
}

/// `[hls]`: how streams are cut.
#[derive(Debug, Clone)]
pub struct Hls {
    /// Length of a part.
    pub part: Duration,
    /// A segment ends at the first key frame after this.
    pub segment: Duration,
    /// Least EXT-X-TARGETDURATION.
    pub target_duration: Duration,
    /// Most EXT-X-TARGETDURATION.
    pub max_target_duration: Duration,
    /// Least segments in the playlist.
    pub window: u32,
}

/// `[route]`: where viewers are sent.
#[derive(Debug, Clone)]
pub struct Route {
    /// How far regions are from each other.
    pub distances: cluster::placement::Distances,
    /// Whether viewers who begin at the wrong edge are redirected.
    pub redirect: bool,
}

/// `[room]`: how rooms behave.
#[derive(Debug, Clone)]
pub struct Room {
    /// How long a room waits for its publisher.
    pub publish_grace: Duration,
    /// Most media kept of one room, in bytes.
    pub cache_bytes: usize,
    /// Longest a room's messages are collected into one frame.
    pub max_tick: Duration,
    /// Most messages a second shown to each member, where the room's size does not decide.
    pub chat_per_second: Option<u32>,
    /// Whether gifts are taken without a shop order.
    pub open_gifts: bool,
    /// Guests in rooms at once from one address; 0 is no limit.
    pub max_guests_per_address: u32,
    /// The file with the words that may not be said, when set.
    pub filter: Option<PathBuf>,
    /// The key that shops sign their orders with, when set.
    pub shop_key: Option<Secret>,
}

/// `[auth]`: who may do what.
#[derive(Debug, Clone)]
pub struct Auth {
    /// Whether anyone may push, without a key.
    pub publish_open: bool,
    /// Whether guests may watch, talk and open rooms.
    pub allow_guests: bool,
    /// The secret that tokens are signed with.
    pub token_secret: Option<Secret>,
    /// The file with the JWK set of an issuer of tokens.
    pub jwks: Option<PathBuf>,
    /// The `iss` that tokens must have.
    pub issuer: Option<String>,
    /// The `aud` that tokens must name.
    pub audience: Option<String>,
    /// What signs push URLs as Tencent's live service does.
    pub tx_push: TxSecrets,
    /// What signs play URLs in that way.
    pub tx_play: TxSecrets,
    /// How long after its time a signed URL is taken.
    pub tx_grace: Duration,
}

/// The two keys that sign URLs of one kind.
#[derive(Debug, Clone)]
pub struct TxSecrets {
    /// The one in use.
    pub key: Option<Secret>,
    /// The one before or after it.
    pub backup: Option<Secret>,
}

/// `[hooks]`: the application's back-end.
#[derive(Debug, Clone)]
pub struct Hooks {
    /// Where it is asked and told; none is off.
    pub url: Option<String>,
    /// What signs requests.
    pub secret: Option<Secret>,
    /// What it is asked and told.
    pub kinds: BTreeSet<hooks::Kind>,
    /// Whether requests and answers have the form of SRS.
    pub srs: bool,
    /// How long it may take.
    pub timeout: Duration,
    /// Whether something is allowed when it gives no answer.
    pub fail_open: bool,
    /// Whether it may be on loopback or in a private network.
    pub allow_private: bool,
    /// The certificates that sign its own.
    pub ca: Option<PathBuf>,
}

/// `[events]`: where gifts and events are kept.
#[derive(Debug, Clone)]
pub struct Events {
    /// The store.
    pub store: EventStore,
    /// The node that keeps the store, when named.
    pub node: Option<NodeId>,
    /// The CA of the PostgreSQL server's certificate; with it the connection is encrypted.
    pub ca: Option<PathBuf>,
    /// How long events are kept; zero is for ever.
    pub retention: Duration,
}

/// Where events are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventStore {
    /// A SQLite file; none is `events.db` in the node's data folder.
    Sqlite(Option<PathBuf>),
    /// A PostgreSQL server.
    Postgres(Secret),
}

/// `[log]`: what is logged and how.
#[derive(Debug, Clone)]
pub struct Log {
    /// A `tracing` filter.
    pub filter: String,
    /// How lines look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Human on a terminal, else JSON.
    Auto,
    /// For people.
    Human,
    /// One JSON object per line.
    Json,
}

/// Text that shows as `(hidden)` wherever it is printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Role {
    /// All roles.
    pub const ALL: [Self; 3] = [Self::Control, Self::Origin, Self::Edge];

    /// The role's name in configuration, logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Origin => "origin",
            Self::Edge => "edge",
        }
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|role| role.name() == text);
        known.ok_or(format!("has {text:?}; roles are control, origin and edge"))
    }
}

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret itself, for comparing and sending; never for printing.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}
