//! What Tidewater's nodes say to each other: names, messages, framing, and the QUIC endpoint that
//! carries them. Media is opaque bytes here.
//!
//! ```text
//!  dialler                                                        acceptor
//!  Links ── Endpoint::connect ── QUIC, TLS 1.3, certificates both ways ── Endpoint::serve
//!                │                                                     │
//!                └── stream of kind Hello: versions, node, cluster ────┘
//!                          │ both are each other's Peer now │
//!   Peer::open_bi(kind) ───┴──── kind byte, frames … ───────┴──▶ Service of that kind
//!   Service of that kind ◀────── kind byte, frames … ─────────── Peer::open_uni(kind)
//! ```
//!
//! [`id`] names things; [`identity`] proves who a node is; [`hello`] agrees on a version;
//! [`frame`] cuts streams into messages and [`stream`] moves them; [`service`] lists the kinds of
//! streams; [`endpoint`] dials, accepts and dispatches; [`links`] keeps one connection per node.
//! [`control`], [`contribute`] and [`replica`] are what is said: to the control plane, to a room's
//! home by whoever has its publisher, and by the home to those who carry the room further;
//! [`events`] is what is told to the node that keeps the ledger of gifts; [`room`] is a room's
//! interaction, up to what its members read and write; [`inquiry`] is what an operator's node asks another.
//! Sockets, clocks and tasks are in `stream`, `endpoint` and `links` alone; the rest is pure.

pub mod contribute;
pub mod control;
pub mod endpoint;
pub mod error;
pub mod events;
pub mod frame;
pub mod hello;
pub mod id;
pub mod identity;
pub mod inquiry;
pub mod links;
pub mod metrics;
pub mod replica;
pub mod room;
pub mod service;
pub mod stream;

pub use endpoint::{Endpoint, Limits, Peer};
pub use error::Error;
pub use hello::Hello;
pub use id::{ClusterId, Epoch, Generation, IdError, NodeId, Region, RoomId};
pub use identity::{Identity, IdentityFiles};
pub use links::Links;
pub use metrics::Metrics;
pub use service::{Service, Stream, StreamKind};
pub use stream::{Receiver, Sender};
