//! The ledger of gifts and the store of events.
//!
//! ```text
//!  room layer ── Client::commit ──┬── in process ───────────────▶ Store ── Intake ──▶ writer ──▶ SQLite
//!  any role ──── Recorder::emit ──┤                                 ▲  └── Queries ─▶ reader      or
//!                                 └── QUIC, StreamKind::Events ── LedgerService               PostgreSQL
//! ```
//!
//! [`Store`] is the keeping side: one writer that puts everything waiting into one transaction and
//! answers after its commit, one reader that never stands in its way. [`Client`] is the handle of all
//! roles, with the retries; [`Recorder`] takes events that may be dropped, and counts those that are.
//! [`order`] checks what a shop has signed. Messages are in [`wire::events`].
//!
//! A store that cannot be written answers gifts with "unavailable" at once and comes back by itself.
//! Does not know rooms: what a gift looks like, combos and their order are the room layer's.

mod client;
mod error;
pub mod export;
mod intake;
mod metrics;
pub mod order;
mod postgres;
mod recorder;
mod rows;
mod schema;
mod service;
mod sqlite;
mod store;

pub use client::{Client, ClientConfig, Committed, Directory};
pub use error::Error;
pub use metrics::Metrics;
pub use postgres::Server;
pub use recorder::{Recorder, Sending};
pub use service::LedgerService;
pub use store::Store;
