//! The load generator: publishers and viewers by the thousand, and figures that can be believed.
//!
//! ```text
//!  scenario ─▶ run ─┬▶ publisher ─▶ rtmp ──▶ server ──▶ viewer/{flv,hls,llhls} ─▶ stats ─▶ report
//!                   ├▶ member ─▶ chat, gifts ─▶ server ──▶ member ──────────────────▲
//!                   └▶ process (the server's CPU and memory) ──────────────────────────────▲
//! ```
//!
//! A frame carries the time it was sent ([`stamp`]), so that every timed viewer knows how old it is.
//! Everything speaks the standards and nothing of Tidewater's inside: other servers are measured alike. Members
//! speak the published room protocol, or bare messages to servers that repeat them.

mod baseline;
pub mod card;
pub mod cli;
mod html;
mod http;
mod limits;
mod measure;
mod member;
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
