//! Two or more real endpoints on loopback, and peers that do not play by the rules.

#![expect(clippy::unwrap_used, reason = "a test ends where an expectation fails")]

mod corpus;
mod dispatch;
mod handshake;
mod harness;
mod lifecycle;
mod links;
mod partition;
mod simulated;
