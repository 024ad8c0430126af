//! The control plane over real QUIC, threads and disks, on loopback.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod group;
mod harness;
mod one_voter;
