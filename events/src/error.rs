//! Why a store cannot be opened.

use std::path::PathBuf;

/// What is wrong with where events are to be kept: what an operator has to change. That a store
/// cannot be reached or written now is no such error; it comes back by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The SQLite file cannot be one.
    #[error("{path}: {why}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The PostgreSQL URL is not one.
    #[error("not a PostgreSQL URL: {0}")]
    Url(String),
    /// The CA of the PostgreSQL server cannot be used.
    #[error("{path}: {why}")]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A metric is registered already.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
    /// A thread cannot be started.
    #[error("thread of the event store: {0}")]
    Thread(std::io::Error),
}
