//! Which build this is and which formats it speaks.
//!
//! In: the constants of the crates that own the formats. Out: `--version`, `/api/v1/version`,
//! `tidewater_build_info`.

use std::fmt;

use serde::Serialize;

/// The versions of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Versions {
    /// Of the binary.
    pub version: String,
    /// Of what nodes say to each other.
    pub wire: u16,
    /// Of the replicated log.
    pub log: u16,
    /// Of the exact bytes of playlists, init segments and parts.
    pub render: u16,
}

impl Versions {
    /// Those of this build.
    #[must_use]
    pub fn of_this_build() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            wire: wire::hello::WIRE_VERSIONS.newest,
            log: u16::from(cluster::command::LOG_FORMAT),
            render: media::manifest::RENDER_VERSION,
        }
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, wire, log, render } = self;
        write!(f, "{version} (wire {wire}, log {log}, render {render})")
    }
}
