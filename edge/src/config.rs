//! What an operator may set on an edge, with the values that serve when nothing is said.
//!
//! In: the node's configuration. Out: limits and switches read by the listener, the router and the
//! rooms. Limits that nobody tunes are named constants where they are enforced.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cluster::access::Access;
use wire::Region;

use crate::hub::Journal;

/// Configuration of the viewer side.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where viewers connect; port 0 picks a free one.
    pub listen: SocketAddr,
    /// With it, `listen` speaks TLS and nothing else.
    pub tls: Option<TlsFiles>,
    /// Connections at once. Above it new ones wait in the kernel's backlog until one ends.
    pub max_connections: usize,
    /// Connections at once from one IPv4 address or IPv6 /64. Above it a new one is closed. Loopback
    /// is exempt: that is where reverse proxies and load generators come from.
    pub max_connections_per_address: u32,
    /// Whether viewers without a token may watch and see which rooms there are.
    pub allow_guests: bool,
    /// Whose tokens and signed URLs let viewers in.
    pub access: Arc<Access>,
    /// Origins whose pages may connect to rooms, as `https://example.org`; empty is all. Programs that are
    /// no browsers send none and may always.
    pub origins: Vec<String>,
    /// Guests in rooms at once from one IPv4 address or IPv6 /64, loopback aside; 0 is no limit.
    pub max_guests_per_address: u32,
    /// Where this edge stands.
    pub region: Region,
    /// Who is told which members come and go.
    pub journal: Option<Arc<dyn Journal>>,
    /// This node's name; without it nobody is redirected.
    pub node: Option<String>,
    /// Whether viewers who begin at an edge that is not among the best for their room are redirected.
    pub redirect: bool,
    /// How long a room's subscription outlives its last viewer. A playlist poll counts as a viewer
    /// for as long, so it must exceed the time between two polls of a classic HLS player.
    pub room_grace: Duration,
    /// How long peers may take.
    pub timeouts: Timeouts,
    /// Tasks that write FLV per room at most; 0 stands for one per CPU.
    pub writers: usize,
    /// How rooms are served.
    pub rooms: RoomPace,
    /// The longest an FLV chunk collects frames, on a full node. Larger writes cost the kernel less per
    /// byte; at the default the gain levels off.
    pub flv_max_flush: Duration,
}

/// Where the certificate of the viewer listener is. Both files are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain, PEM, leaf first.
    pub cert: PathBuf,
    /// Private key of the leaf, PEM.
    pub key: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)),
            tls: None,
            max_connections: 100_000,
            max_connections_per_address: 1024,
            allow_guests: false,
            access: Arc::default(),
            origins: Vec::new(),
            max_guests_per_address: 20,
            region: Region::default(),
            journal: None,
            node: None,
            redirect: false,
            room_grace: Duration::from_secs(30),
            timeouts: Timeouts::default(),
            writers: 0,
            rooms: RoomPace::default(),
            flv_max_flush: Duration::from_millis(350),
        }
    }
}

/// How often members of rooms are sent something, and how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomPace {
    /// The longest messages are collected into one frame; large rooms collect as long, small ones less.
    pub max_tick: Duration,
    /// The most messages a second shown to each member; by the room's size where nothing is said.
    pub chat_per_second: Option<u32>,
}

impl Default for RoomPace {
    fn default() -> Self {
        // Longer than a room of any size collects.
        Self { max_tick: Duration::from_secs(1), chat_per_second: None }
    }
}

/// How long a peer may take before its connection is closed and the reason counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From the first byte of a request head to its last, from accept to the first request, and for
    /// a TLS handshake.
    pub head: Duration,
    /// Between two requests. Longer than any player's poll interval, or players pay for it.
    pub idle: Duration,
    /// To take the next byte of what is to be written.
    pub write: Duration,
    /// To take all of a response that has an end.
    pub response: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(5),
            idle: Duration::from_secs(60),
            write: Duration::from_secs(10),
            response: Duration::from_secs(120),
        }
    }
}
