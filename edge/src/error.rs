//! Why an edge could not start. What goes wrong with one viewer is an HTTP answer or a counted close,
//! never this.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why an edge could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The viewer listener could not be opened.
    #[error("cannot listen for viewers on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate or key file could not be read.
    #[error("{path}: {source}")]
    CertificateFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate or key file was read but cannot be used.
    #[error("{path}: {why}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A metric could not be registered, because the registry already has one of that name.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}
