//! The control plane of Tidewater: which node is home of which room, by consensus.
//!
//! ```text
//!  origin, edge, admin ── Client ──┬── in process ──▶ Core ──┬── View: locate, list, watch
//!                                  └── QUIC ──▶ ControlService┘      ▲
//!                                                   │ questions      │ what changed
//!                                                   ▼                │
//!        other voters ◀── Transport ◀──────── Runtime (thread) ── Driver::step
//!                                                                    │
//!                             State (pure) ◀── Raft (RawNode) ──▶ Log ──▶ redb
//! ```
//!
//! [`client`] is what the other roles use; [`Control`] is the control role. [`command`] and
//! [`state`] are what is replicated, [`placement`] the policy. The driver is one loop without
//! sockets, tasks or clocks, so that a simulation runs the same code with a virtual network and disk.
//!
//! Raft is never on the media path: without a leader, every running room goes on.

pub mod access;
mod archive;
mod client;
pub mod command;
mod control;
mod driver;
mod error;
mod leases;
mod metrics;
pub mod placement;
mod planted;
mod raft;
mod runtime;
mod scheduler;
mod server;
#[cfg(feature = "sim")]
pub mod sim;
pub mod state;
mod storage;
mod transport;
mod view;
mod watches;

pub use archive::{EPOCH_JUMP, Refounded, recover, restore};
pub use client::{
    Client, ClientConfig, LoadCell, NewKey, NodeTable, RoomWatch, Router, Standing,
    fresh_incarnation,
};
pub use control::{Backup, Backups, Control, ControlConfig};
pub use driver::Leadership;
pub use error::Error;
pub use leases::{HEARTBEAT_EVERY, LEASE};
pub use metrics::Metrics;
pub use raft::ready::Fault;
pub use runtime::Health;
pub use storage::StorageError;
pub use wire::control::{
    Capacity, ClusterStatus, Grant, KeyId, KeyInfo, Load, Location, NodeInfo, NodeSpec, NodeState,
    Refusal, Roles, Versions,
};
