//! How a node without a certificate gets one: a join token, a request, an answer, and the TLS around.
//!
//! In, at the newcomer: a [`JoinToken`] from the operator. It carries the fingerprint of the cluster's
//! CA, so the newcomer trusts exactly that one before it says its secret. Out: a [`Request`] with a
//! public key; the private key never leaves the newcomer. In, at a node that has the CA's key: that
//! request. Out: a certificate, after whoever keeps the tokens has used this one up.
//!
//! Messages are frames of [`crate::frame`]. Opens no socket, keeps no tokens.

use std::sync::Arc;

use rcgen::{
    CertificateParams, CertificateSigningRequestParams, KeyPair, PKCS_ECDSA_P256_SHA256,
    PublicKeyData,
};
use ring::digest::{SHA256, digest};
use rustls::{
    DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    server::NoServerSessionStorage,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, ServerName, UnixTime};
use serde::{Deserialize, Serialize};

use super::{Identity, IdentityError, LeafFacts, certificates, provider, read_pem};
use crate::{NodeId, control::KeyId};

/// The protocol of joining, as TLS agrees on it. A new version gets a new name.
pub const JOIN_ALPN: &[u8] = b"tidewater-join/1";
/// Longest frame either side accepts.
pub const MAX_JOIN_BYTES: usize = 64 << 10;
/// Most further names in one request.
pub const MAX_JOIN_HOSTS: usize = 16;
/// How a token begins: which kind and version it is.
const PREFIX: &str = "twjoin1";
/// Hexadecimal digits of the secret.
const SECRET_DIGITS: usize = 40;

/// What an operator hands to a new node: good once, for a while, at one cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Its public name.
    pub id: KeyId,
    /// What only its holder knows, in hexadecimal digits.
    pub secret: String,
    /// The CA to trust.
    pub ca: Fingerprint,
}

/// SHA-256 of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    fn of(certificate: &CertificateDer<'_>) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, certificate).as_ref());
        Self(bytes)
    }

    /// Of the first certificate of a CA's file.
    ///
    /// # Errors
    /// [`IdentityError`] if the file cannot be read or holds none.
    pub fn of_file(path: &std::path::Path) -> Result<Self, IdentityError> {
        let found = certificates(&(read_pem(path)?, path.display().to_string()))?;
        found
            .first()
            .map(Self::of)
            .ok_or(IdentityError::NoCertificate { name: path.display().to_string() })
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Display for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{PREFIX}-{}-{}-{}", self.id, self.secret, self.ca)
    }
}

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinToken").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Why a text is no join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a join token; it begins with {PREFIX}- and is 130 characters long, copy all of it")]
pub struct NoToken;

impl std::str::FromStr for JoinToken {
    type Err = NoToken;

    fn from_str(text: &str) -> Result<Self, NoToken> {
        let mut pieces = text.trim().split('-');
        let mut piece = || pieces.next().ok_or(NoToken);
        let (prefix, id, secret, ca) = (piece()?, piece()?, piece()?, piece()?);
        let is_hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let is_whole = prefix == PREFIX && id.len() == 16 && secret.len() == SECRET_DIGITS;
        if !is_whole || ca.len() != 64 || ![id, secret, ca].into_iter().all(is_hex) {
            return Err(NoToken);
        }
        if pieces.next().is_some() {
            return Err(NoToken);
        }
        let mut fingerprint = [0; 32];
        for (byte, at) in fingerprint.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&ca[at..at + 2], 16).map_err(|_| NoToken)?;
        }
        let id = id.parse().map_err(|_| NoToken)?;
        Ok(Self { id, secret: secret.to_owned(), ca: Fingerprint(fingerprint) })
    }
}

/// From a newcomer: make me a certificate.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Who it shall be.
    pub node: NodeId,
    /// Further names or addresses, at most [`MAX_JOIN_HOSTS`].
    pub hosts: Vec<String>,
    /// PKCS #10 in DER. Its key counts, and the proof that the newcomer has it; nothing else does.
    pub csr: Vec<u8>,
    /// The token's public name.
    pub token: KeyId,
    /// The token's secret.
    pub secret: String,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("node", &self.node)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

/// To the newcomer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Here it is.
    Certificate {
        /// The certificate, PEM.
        cert: String,
        /// What every node of the cluster trusts, PEM.
        ca: String,
    },
    /// No, and why, for the operator to read.
    Refused(String),
}

/// A newcomer's fresh key, and the request that proves it is the newcomer's.
pub struct NewKeyPair {
    key: KeyPair,
    csr: Vec<u8>,
}

impl NewKeyPair {
    /// Draws one.
    ///
    /// # Errors
    /// [`IdentityError::Issue`] without randomness.
    pub fn generate() -> Result<Self, IdentityError> {
        let failed = |error: rcgen::Error| IdentityError::Issue { why: error.to_string() };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let csr = CertificateParams::default().serialize_request(&key).map_err(failed)?;
        Ok(Self { csr: csr.der().to_vec(), key })
    }

    /// PKCS #10 in DER.
    #[must_use]
    pub fn csr(&self) -> &[u8] {
        &self.csr
    }

    /// The private key, PEM. Keep it from logs.
    #[must_use]
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }
}

impl std::fmt::Debug for NewKeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewKeyPair").finish_non_exhaustive()
    }
}

/// The public key of a request whose sender has shown that it has the private one.
#[derive(Debug)]
pub struct ProvenKey(pub(super) rcgen::PublicKey);

impl ProvenKey {
    /// Reads a request and checks its signature.
    ///
    /// # Errors
    /// [`IdentityError::Issue`] says what is wrong with it.
    pub fn of(csr: &[u8]) -> Result<Self, IdentityError> {
        let csr = CertificateSigningRequestDer::from(csr);
        match CertificateSigningRequestParams::from_der(&csr) {
            Ok(request) => Ok(Self(request.public_key)),
            Err(error) => {
                Err(IdentityError::Issue { why: format!("the request for it is no good: {error}") })
            }
        }
    }

    /// Its SubjectPublicKeyInfo in DER (RFC 5280 section 4.1).
    #[must_use]
    pub fn der(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }
}

/// The TLS of a node that signs: shows its own certificate and the CA's, and demands none.
///
/// # Errors
/// [`IdentityError::Tls`] if the TLS library refuses what was accepted before.
pub fn server_config(
    identity: &Identity,
    ca: &std::path::Path,
) -> Result<rustls::ServerConfig, IdentityError> {
    let mut chain = identity.inner.chain.clone();
    chain.extend(certificates(&(read_pem(ca)?, ca.display().to_string()))?);
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, identity.inner.key.clone_key())?;
    config.alpn_protocols = vec![JOIN_ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The TLS of a newcomer: talks to a node of the CA with this fingerprint, whatever its name.
///
/// # Errors
/// [`IdentityError::Tls`] if the TLS library cannot do what is needed.
pub fn client_config(ca: Fingerprint) -> Result<rustls::ClientConfig, IdentityError> {
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { ca }))
        .with_no_client_auth();
    config.alpn_protocols = vec![JOIN_ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Takes a server for good whose certificate is of the pinned CA, which it must show, too.
#[derive(Debug)]
struct Pinned {
    ca: Fingerprint,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let general = |why: &str| rustls::Error::General(why.to_owned());
        let ca = intermediates.iter().find(|certificate| Fingerprint::of(certificate) == self.ca);
        let ca = ca.ok_or_else(|| general("the node there is not of the cluster of this token"))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| general(&error.to_string()))?;
        // Any node of the cluster that has the CA's key may sign: its own name is the right one.
        let facts = LeafFacts::read(end_entity).map_err(|why| general(&why))?;
        let node = facts.node.ok_or_else(|| general("the certificate there names no node"))?;
        let name = ServerName::try_from(node.as_str().to_owned())
            .map_err(|error| general(&error.to_string()))?;
        inner.verify_server_cert(end_entity, intermediates, &name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::authority::{Authority, NODE_VALIDITY};
    use super::*;

    fn token(ca: Fingerprint) -> JoinToken {
        JoinToken { id: KeyId(0xa1), secret: "5".repeat(SECRET_DIGITS), ca }
    }

    #[test]
    fn a_token_survives_being_copied_and_nothing_else_is_one() {
        let token = token(Fingerprint([0xc4; 32]));
        let text = token.to_string();
        assert_eq!(text.len(), 130, "as the error says");
        assert_eq!(format!(" {text}\n").parse(), Ok(token.clone()));
        assert!(!format!("{token:?}").contains(&token.secret));
        for bad in ["", "x", &text[1..], &text[..text.len() - 1], &format!("{text}-1")] {
            assert_eq!(bad.parse::<JoinToken>(), Err(NoToken), "{bad}");
        }
        assert_eq!(text.replace('5', "G").parse::<JoinToken>(), Err(NoToken));
    }

    #[test]
    fn a_request_proves_its_key_and_its_certificate_fits() {
        let authority = Authority::create(SystemTime::now()).unwrap();
        let pair = NewKeyPair::generate().unwrap();
        let key = ProvenKey::of(pair.csr()).unwrap();
        let node = NodeId::new("e9").unwrap();
        let cert = authority.certify(&node, &[], &key, SystemTime::now(), NODE_VALIDITY).unwrap();
        Identity::from_pem(&node, authority.cert_pem(), &cert, &pair.key_pem()).unwrap();

        let mut forged = pair.csr().to_vec();
        *forged.last_mut().unwrap() ^= 1;
        assert!(ProvenKey::of(&forged).is_err(), "whoever cannot sign does not have the key");
        assert!(ProvenKey::of(b"nonsense").is_err());
    }

    #[test]
    fn only_the_pinned_ca_is_trusted() {
        let authority = Authority::create(SystemTime::now()).unwrap();
        let identity = authority.identity(&NodeId::new("o1").unwrap()).unwrap();
        let chain = &identity.inner.chain;
        let root = certificates(&(authority.cert_pem().into(), "ca".to_owned())).unwrap();
        let verify = |ca: Fingerprint, shown: &[CertificateDer<'static>]| {
            let name = ServerName::try_from("anything").unwrap();
            Pinned { ca }.verify_server_cert(&chain[0], shown, &name, &[], UnixTime::now())
        };
        let ca = Fingerprint::of(&root[0]);
        verify(ca, &root).unwrap();
        assert!(verify(ca, &[]).is_err(), "it must be shown");
        assert!(verify(Fingerprint([0; 32]), &root).is_err());
        let other = Authority::create(SystemTime::now()).unwrap();
        let other = certificates(&(other.cert_pem().into(), "ca".to_owned())).unwrap();
        assert!(verify(Fingerprint::of(&other[0]), &other).is_err(), "another CA did not sign it");
    }
}
