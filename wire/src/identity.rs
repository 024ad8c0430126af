//! Who a node is: its certificate, its key, and the CA it trusts; and the TLS both sides use.
//!
//! In: PEM files or text, made by [`authority`] or by an operator's own CA. Out: an [`Identity`]
//! that is known to work (the key fits the certificate, the certificate is of this node, valid now
//! and of the CA), and rustls configurations with certificates demanded on both sides.
//!
//! [`enrol`] gets a certificate for a node that has none.
//!
//! The node id of a certificate is its first DNS name; further names are the operator's business.
//! Does not watch files nor hold connections; [`crate::endpoint`] swaps identities.

pub mod authority;
pub mod enrol;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{
    CertificateError, RootCertStore,
    client::{Resumption, WebPkiServerVerifier},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::{NodeId, hello::ALPN};

/// Largest certificate or key file read. A chain of ten RSA certificates is some 20 KiB.
pub const MAX_PEM_BYTES: u64 = 256 << 10;

/// The files of a node's identity, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    /// The cluster's CA certificates: whom to trust.
    pub ca: PathBuf,
    /// The node's certificate, then any intermediate ones.
    pub cert: PathBuf,
    /// The node's private key.
    pub key: PathBuf,
}

impl IdentityFiles {
    /// Reads and checks the identity of `node`. Reads files: call it where blocking is allowed.
    ///
    /// # Errors
    /// [`IdentityError`] names the file and what is wrong.
    pub fn load(&self, node: &NodeId) -> Result<Identity, IdentityError> {
        let sources = Sources {
            ca: (read_pem(&self.ca)?, self.ca.display().to_string()),
            cert: (read_pem(&self.cert)?, self.cert.display().to_string()),
            key: (read_pem(&self.key)?, self.key.display().to_string()),
        };
        warn_if_others_can_read(&self.key);
        Identity::from_sources(node, &sources)
    }
}

/// A node's certificate, key and trust, checked. Cheap to clone.
#[derive(Clone)]
pub struct Identity {
    inner: Arc<Inner>,
}

struct Inner {
    node: NodeId,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    not_after: SystemTime,
}

impl Identity {
    /// Reads and checks the identity of `node` from PEM text.
    ///
    /// # Errors
    /// [`IdentityError`] says which of the three is wrong and how.
    pub fn from_pem(node: &NodeId, ca: &str, cert: &str, key: &str) -> Result<Self, IdentityError> {
        let sources = Sources {
            ca: (ca.as_bytes().to_vec(), "the CA".to_owned()),
            cert: (cert.as_bytes().to_vec(), "the certificate".to_owned()),
            key: (key.as_bytes().to_vec(), "the key".to_owned()),
        };
        Self::from_sources(node, &sources)
    }

    /// Whose identity it is.
    #[must_use]
    pub fn node(&self) -> &NodeId {
        &self.inner.node
    }

    /// When the certificate stops to be valid.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.inner.not_after
    }

    /// Whether `other` shows the same certificates and trusts the same CA.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.inner.chain == other.inner.chain && self.inner.roots.roots == other.inner.roots.roots
    }

    /// The TLS of accepted connections: the dialler must show a certificate of the CA.
    ///
    /// # Errors
    /// [`IdentityError::Tls`] if the TLS library refuses what was accepted before.
    pub fn server_config(&self) -> Result<rustls::ServerConfig, IdentityError> {
        let roots = Arc::clone(&self.inner.roots);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(|error| IdentityError::Tls { why: error.to_string() })?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.inner.chain.clone(), self.inner.key.clone_key())?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Every connection shows its certificate anew: no tickets, no resumption, no early data.
        // Links between nodes last for days, so a full handshake costs nothing that matters.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// The TLS of dialled connections: shows this node's certificate, and demands one of the CA
    /// that names the node dialled.
    ///
    /// # Errors
    /// [`IdentityError::Tls`] if the TLS library refuses what was accepted before.
    pub fn client_config(&self) -> Result<rustls::ClientConfig, IdentityError> {
        let roots = Arc::clone(&self.inner.roots);
        let mut config = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(self.inner.chain.clone(), self.inner.key.clone_key())?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    /// A secret that stays the same for as long as the key file does, for `purpose`.
    pub(crate) fn derived_secret(&self, purpose: &[u8]) -> ring::hmac::Tag {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, self.inner.key.secret_der());
        ring::hmac::sign(&key, purpose)
    }

    fn from_sources(node: &NodeId, sources: &Sources) -> Result<Self, IdentityError> {
        let (ca, cert, key) = (&sources.ca, &sources.cert, &sources.key);
        let mut roots = RootCertStore::empty();
        for root in certificates(ca)? {
            roots.add(root).map_err(|error| IdentityError::BadCertificate {
                name: ca.1.clone(),
                why: error.to_string(),
            })?;
        }
        let chain = certificates(cert)?;
        let key_der = PrivateKeyDer::from_pem_slice(&key.0).map_err(|error| match error {
            rustls_pki_types::pem::Error::NoItemsFound => {
                IdentityError::NoKey { name: key.1.clone() }
            }
            other => IdentityError::BadPem { name: key.1.clone(), why: other.to_string() },
        })?;
        let leaf = chain.first().ok_or(IdentityError::NoCertificate { name: cert.1.clone() })?;
        let facts = LeafFacts::read(leaf)
            .map_err(|why| IdentityError::BadCertificate { name: cert.1.clone(), why })?;
        if facts.node.as_ref() != Some(node) {
            let found = facts.node.map_or("no node".to_owned(), |found| format!("node {found}"));
            return Err(IdentityError::WrongNode {
                name: cert.1.clone(),
                found,
                expected: node.clone(),
            });
        }
        let not_after = facts.not_after;
        let inner =
            Inner { node: node.clone(), roots: Arc::new(roots), chain, key: key_der, not_after };
        let identity = Self { inner: Arc::new(inner) };
        identity.verify(sources)?;
        Ok(identity)
    }

    /// Tries the identity as its peers will, so that a node with a bad one fails at its start.
    fn verify(&self, sources: &Sources) -> Result<(), IdentityError> {
        let (ca, cert, key) = (&sources.ca.1, &sources.cert.1, &sources.key.1);
        let refusal = |error: rustls::Error| match error {
            rustls::Error::InvalidCertificate(why) => {
                IdentityError::Unusable { name: cert.clone(), ca: ca.clone(), why: describe(&why) }
            }
            other => IdentityError::Tls { why: other.to_string() },
        };
        let roots = Arc::clone(&self.inner.roots);
        let (leaf, intermediates) = (&self.inner.chain[0], &self.inner.chain[1..]);
        let now = UnixTime::now();
        let servers = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider())
            .build()
            .map_err(|error| IdentityError::Tls { why: error.to_string() })?;
        let name = ServerName::try_from(self.inner.node.as_str())
            .map_err(|error| IdentityError::Tls { why: error.to_string() })?;
        rustls::client::danger::ServerCertVerifier::verify_server_cert(
            &*servers,
            leaf,
            intermediates,
            &name,
            &[],
            now,
        )
        .map_err(refusal)?;
        let clients = WebPkiClientVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(|error| IdentityError::Tls { why: error.to_string() })?;
        clients.verify_client_cert(leaf, intermediates, now).map_err(refusal)?;
        match self.server_config() {
            Ok(_) => Ok(()),
            Err(IdentityError::KeyMismatch) => {
                Err(IdentityError::KeyIsNotOf { key: key.clone(), cert: cert.clone() })
            }
            Err(other) => Err(other),
        }
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key is nobody's business.
        f.debug_struct("Identity")
            .field("node", &self.inner.node)
            .field("not_after", &self.inner.not_after)
            .finish_non_exhaustive()
    }
}

/// The node id of a peer's certificate chain, as the QUIC connection hands it out.
///
/// # Errors
/// A sentence, if there is no chain, or its first certificate names no node.
pub(crate) fn node_of_peer(identity: Option<Box<dyn std::any::Any>>) -> Result<NodeId, String> {
    let chain = identity
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .ok_or("the peer has shown no certificate")?;
    let leaf = chain.first().ok_or("the peer has shown no certificate")?;
    LeafFacts::read(leaf)?
        .node
        .ok_or_else(|| "the first DNS name of the peer's certificate is not a node id".to_owned())
}

/// Why certificates or keys cannot be used or made. The text is for the operator.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A file that would be overwritten.
    #[error("{path} exists; move it away first, or ask for it to be replaced")]
    Exists {
        /// The file.
        path: String,
    },
    /// The text is not PEM.
    #[error("{name}: not PEM: {why}")]
    BadPem {
        /// Which of the files.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// There is no certificate in the file.
    #[error("{name}: holds no certificate (no BEGIN CERTIFICATE)")]
    NoCertificate {
        /// Which of the files.
        name: String,
    },
    /// There is no private key in the file.
    #[error("{name}: holds no private key (no BEGIN PRIVATE KEY)")]
    NoKey {
        /// Which of the files.
        name: String,
    },
    /// A certificate cannot be read.
    #[error("{name}: {why}")]
    BadCertificate {
        /// Which of the files.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// The certificate is of another node.
    #[error(
        "{name}: the certificate is of {found}, this is node {expected} (the first DNS name counts)"
    )]
    WrongNode {
        /// Which of the files.
        name: String,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: NodeId,
    },
    /// The key does not belong to the certificate.
    #[error("{key}: not the key of the certificate in {cert}")]
    KeyIsNotOf {
        /// The key's file.
        key: String,
        /// The certificate's file.
        cert: String,
    },
    /// As [`IdentityError::KeyIsNotOf`], where the files are not known.
    #[error("the key does not belong to the certificate")]
    KeyMismatch,
    /// Peers would refuse the certificate.
    #[error("{name}: {why} (trusting {ca})")]
    Unusable {
        /// The certificate's file.
        name: String,
        /// The CA's file.
        ca: String,
        /// Why they would.
        why: String,
    },
    /// A certificate cannot be made.
    #[error("cannot make a certificate: {why}")]
    Issue {
        /// Why not.
        why: String,
    },
    /// The TLS library refuses the configuration.
    #[error("TLS: {why}")]
    Tls {
        /// Why it does.
        why: String,
    },
}

impl From<rustls::Error> for IdentityError {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InconsistentKeys(_) => Self::KeyMismatch,
            other => Self::Tls { why: other.to_string() },
        }
    }
}

/// The cryptography of every TLS in this crate. Named, never the process default: which one a
/// process installs must not change what a node can talk to.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// PEM text and what to call it.
struct Sources {
    ca: (Vec<u8>, String),
    cert: (Vec<u8>, String),
    key: (Vec<u8>, String),
}

/// What this crate reads from a node's own certificate.
struct LeafFacts {
    /// The first DNS name, if it is a node id.
    node: Option<NodeId>,
    not_after: SystemTime,
}

impl LeafFacts {
    fn read(leaf: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, certificate) = X509Certificate::from_der(leaf)
            .map_err(|error| format!("the certificate cannot be read: {error}"))?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|error| format!("the names in the certificate cannot be read: {error}"))?;
        let first = names.and_then(|names| {
            names.value.general_names.iter().find_map(|name| match name {
                GeneralName::DNSName(name) => Some(*name),
                _ => None,
            })
        });
        let seconds = certificate.validity().not_after.timestamp();
        let since_epoch = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        Ok(Self {
            node: first.and_then(|name| NodeId::new(name).ok()),
            not_after: UNIX_EPOCH + since_epoch,
        })
    }
}

fn certificates(
    (pem, name): &(Vec<u8>, String),
) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| IdentityError::BadPem { name: name.clone(), why: error.to_string() })?;
    match found.is_empty() {
        true => Err(IdentityError::NoCertificate { name: name.clone() }),
        false => Ok(found),
    }
}

fn read_pem(path: &Path) -> Result<Vec<u8>, IdentityError> {
    use std::io::Read;
    let failed = |source| IdentityError::Read { path: path.display().to_string(), source };
    let mut pem = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    // One byte more than allowed tells a file that is too large from one that just fits.
    file.take(MAX_PEM_BYTES + 1).read_to_end(&mut pem).map_err(failed)?;
    if pem.len() as u64 > MAX_PEM_BYTES {
        let why = format!("larger than {MAX_PEM_BYTES} bytes");
        return Err(IdentityError::BadPem { name: path.display().to_string(), why });
    }
    Ok(pem)
}

fn warn_if_others_can_read(key: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if let Ok(metadata) = std::fs::metadata(key)
        && metadata.permissions().mode() & 0o077 != 0
    {
        tracing::warn!(path = %key.display(), "other users can read the node's private key; chmod 600");
    }
}

/// The usual refusals in an operator's words.
fn describe(error: &CertificateError) -> String {
    let text = match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the certificate has expired; make a new one"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate is not valid yet; is this machine's clock right?"
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the certificate is not of this CA"
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the certificate must be for both server and client authentication"
        }
        other => return other.to_string(),
    };
    text.to_owned()
}

#[cfg(test)]
mod tests;
