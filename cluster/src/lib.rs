//! Placeholder while the skeleton is laid.

mod command;
mod driver;
mod leases;
mod placement;
mod raft;
mod scheduler;
mod state;
mod storage;
