//! Formats and the feed: everything that is true of a live stream regardless of sockets.
//!
//! The path through this crate, in order: FLV tags (what RTMP and HTTP-FLV carry) → [`frame`]s of
//! [`track`]s → the timeline (room ticks) → the segmenter (parts, segments, numbers) → [`manifest`]
//! (what the home says about them) → the feed (rolling window, one producer, many cursors) →
//! playlists and fMP4, or FLV again (what viewers read).
//!
//! Pure: no socket, clock, task or disk. Callers pass the time in; `clippy.toml` holds the rule.

pub mod amf0;
#[cfg(test)]
mod clip;
pub mod codec;
pub mod error;
pub mod feed;
pub mod flv;
pub mod fmp4;
pub mod frame;
#[cfg(test)]
mod golden;
pub mod manifest;
pub mod playlist;
pub mod segmenter;
mod timeline;
pub mod track;

pub use error::Error;
