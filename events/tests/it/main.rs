//! The stores as their callers meet them: one contract for both, failures for each, and kill -9.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

mod cluster;
mod contract;
mod kill;
mod postgres;
mod sqlite;
