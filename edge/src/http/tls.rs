//! The certificate of the viewer listener, read again when its files change.
//!
//! In: paths. Out: the configuration for the next handshake. Connections that are open keep theirs, so
//! a renewal drops nobody. Files that cannot be used are reported once and the old ones stay.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::sync::CancellationToken;

use crate::config::TlsFiles;
use crate::error::Error;

/// How often the files' times are looked at.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// The newest usable certificate.
#[derive(Debug)]
pub(crate) struct Certificate {
    files: TlsFiles,
    current: ArcSwap<ServerConfig>,
}

/// What tells one state of the files from another.
type Stamp = [Option<(SystemTime, u64)>; 2];

impl Certificate {
    /// Reads the files.
    pub(crate) fn load(files: TlsFiles) -> Result<Self, Error> {
        let current = ArcSwap::from_pointee(read(&files)?);
        Ok(Self { files, current })
    }

    /// The configuration for the next handshake.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Watches the files until `drain` is cancelled.
    pub(crate) async fn follow(self: Arc<Self>, drain: CancellationToken) {
        let mut known = stamp(&self.files);
        while drain.run_until_cancelled(tokio::time::sleep(POLL_INTERVAL)).await.is_some() {
            let now = stamp(&self.files);
            if now == known {
                continue;
            }
            known = now;
            match read(&self.files) {
                Ok(config) => {
                    self.current.store(Arc::new(config));
                    tracing::info!(cert = %self.files.cert.display(), "certificate read again");
                }
                // Also when a renewal has replaced one of the two: the other changes the stamp again.
                Err(error) => tracing::warn!(%error, "certificate not taken; the old one stays"),
            }
        }
    }
}

fn stamp(files: &TlsFiles) -> Stamp {
    [&files.cert, &files.key]
        .map(|path| fs::metadata(path).ok().and_then(|m| Some((m.modified().ok()?, m.len()))))
}

fn read(files: &TlsFiles) -> Result<ServerConfig, Error> {
    let unreadable = |path: &Path, error: rustls_pki_types::pem::Error| match error {
        rustls_pki_types::pem::Error::Io(source) => {
            Error::CertificateFile { path: path.to_owned(), source }
        }
        other => Error::Certificate { path: path.to_owned(), why: other.to_string() },
    };
    let chain = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| unreadable(&files.cert, e))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| unreadable(&files.key, e))?;
    let unusable = |e: rustls::Error| Error::Certificate {
        path: files.cert.clone(),
        why: format!("not usable with {}: {e}", files.key.display()),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
