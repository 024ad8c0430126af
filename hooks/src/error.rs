//! What can go wrong between a node and an application's back-end.

/// Why a webhook could not be set up, sent or understood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL is none that can be asked.
    #[error("{0}")]
    Url(&'static str),
    /// The certificates cannot be read.
    #[error("the certificates in {path} cannot be used: {why}")]
    Certificates {
        /// The file.
        path: String,
        /// What is wrong with them.
        why: String,
    },
    /// The name has no address.
    #[error("the name cannot be resolved: {0}")]
    Resolve(std::io::Error),
    /// It is on this machine or in a private network, and may not be asked.
    #[error("the address {0} is private; allow it with hooks.allow_private")]
    Private(std::net::IpAddr),
    /// No connection.
    #[error("no connection: {0}")]
    Connect(std::io::Error),
    /// The connection broke, or what came is no HTTP.
    #[error("the request failed: {0}")]
    Http(#[from] hyper::Error),
    /// It took too long.
    #[error("no answer in time")]
    TimedOut,
    /// The answer is too long, or broke off.
    #[error("the answer cannot be read: {0}")]
    Body(String),
    /// The answer says neither yes nor no.
    #[error("the answer is status {0}")]
    Status(u16),
    /// The answer is nothing that is understood.
    #[error("the answer is not understood: {0}")]
    Answer(&'static str),
}
