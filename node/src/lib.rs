//! The one binary `tidewater`: configuration, assembly, shutdown, telemetry, the admin listener.
//!
//! In: a command line, a configuration, signals. Out: running roles (control, origin, edge) of the
//! crates below, and the admin API that shows them. No protocol and no media logic lives here.

pub mod admin;
pub mod assemble;
pub mod cli;
pub mod config;
pub mod demo;
pub mod dev;
mod enrol;
pub mod facts;
pub mod inquiry;
pub mod ledger;
mod load;
mod offline;
pub mod ports;
pub mod run;
pub mod shutdown;
pub mod telemetry;
pub mod version;
pub mod when;
