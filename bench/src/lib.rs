//! The load generator: publishers and viewers by the thousand, and figures that can be believed.
//!
//! ```text
//!  scenario ─▶ run ─┬▶ publisher ─▶ rtmp ──▶ server ──▶ viewer/{flv,hls,llhls} ─▶ stats ─▶ report
//!                   └▶ process (the server's CPU and memory) ──────────────────────────────▲
//! ```
//!
//! A frame carries the time it was sent ([`stamp`]), so that every timed viewer knows how old it is.
//! Everything speaks the standards and nothing of Tidewater's inside: other servers are measured alike.

mod baseline;
pub mod card;
pub mod cli;
mod html;
mod http;
mod limits;
mod measure;
mod net;
mod player;
mod process;
pub mod publisher;
pub mod report;
mod requests;
pub mod rtmp;
pub mod run;
pub mod scenario;
pub mod stamp;
pub mod stats;
mod tail;
mod viewer;
