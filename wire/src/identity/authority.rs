//! The cluster's own CA: makes it, and issues the certificates of nodes.
//!
//! In: an operator's command or `dev`. Out: PEM text and files (`ca.pem ca.key`, `o1.pem o1.key`),
//! private keys readable by their owner alone. Not needed at run time: a node holds the CA's key only
//! if its operator lets it sign for newcomers ([`super::enrol`]), and in `dev`, where one process is the
//! whole cluster.

use std::{
    fs,
    io::Write,
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};

use super::{Identity, IdentityError, enrol::ProvenKey, read_pem};
use crate::NodeId;

/// How long a CA is valid.
pub const CA_VALIDITY: Duration = Duration::from_secs(10 * 365 * DAY_SECONDS);
/// How long a node's certificate is valid unless the operator says otherwise.
pub const NODE_VALIDITY: Duration = Duration::from_secs(2 * 365 * DAY_SECONDS);
/// Certificates begin in the past, so that nodes whose clocks differ can use them at once.
const BACKDATED: Duration = Duration::from_secs(DAY_SECONDS);
const DAY_SECONDS: u64 = 24 * 60 * 60;
/// Bytes of a serial number: under the 20 of RFC 5280 section 4.1.2.2, too random to repeat.
const SERIAL_BYTES: usize = 16;

/// A CA that can issue certificates.
pub struct Authority {
    cert_pem: String,
    key: KeyPair,
}

impl Authority {
    /// Makes a new CA, valid for [`CA_VALIDITY`] from `now`.
    ///
    /// # Errors
    /// [`IdentityError::Issue`] if no key can be made.
    pub fn create(now: SystemTime) -> Result<Self, IdentityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| cannot_issue(&e))?;
        let mut params = CertificateParams::default();
        // Two CAs of one name would be taken for each other until a signature fails to verify, and
        // "bad signature" sends an operator in the wrong direction.
        let mut mark = [0; 4];
        fill_random(&mut mark)?;
        params.distinguished_name =
            named(&format!("Tidewater cluster CA {:08x}", u32::from_be_bytes(mark)));
        // It signs nodes only; no further CA below it is trusted.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, now, CA_VALIDITY)?;
        let cert = params.self_signed(&key).map_err(|error| cannot_issue(&error))?;
        Ok(Self { cert_pem: cert.pem(), key })
    }

    /// Reads a CA from its two files.
    ///
    /// # Errors
    /// [`IdentityError`] names the file and what is wrong with it.
    pub fn load(cert: &Path, key: &Path) -> Result<Self, IdentityError> {
        let text = |path: &Path| {
            String::from_utf8(read_pem(path)?).map_err(|_| IdentityError::BadPem {
                name: path.display().to_string(),
                why: "not text".to_owned(),
            })
        };
        let cert_pem = text(cert)?;
        let key_pair = KeyPair::from_pem(&text(key)?)
            .map_err(|_| IdentityError::NoKey { name: key.display().to_string() })?;
        let authority = Self { cert_pem, key: key_pair };
        let issuer = authority.issuer().map_err(|error| IdentityError::BadCertificate {
            name: cert.display().to_string(),
            why: error.to_string(),
        })?;
        drop(issuer);
        Ok(authority)
    }

    /// The CA's certificate: what every node trusts.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// Issues the certificate of `node`, valid for `validity` from `now`, for use as server and as
    /// client. `hosts` are further names or addresses in it, for tools that dial by those.
    ///
    /// # Errors
    /// [`IdentityError::Issue`] if a host is no name, or no certificate can be made.
    pub fn issue(
        &self,
        node: &NodeId,
        hosts: &[String],
        now: SystemTime,
        validity: Duration,
    ) -> Result<Issued, IdentityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| cannot_issue(&e))?;
        let cert_pem = self.sign(node, hosts, &key, now, validity)?;
        Ok(Issued { node: node.clone(), cert_pem, key_pem: key.serialize_pem() })
    }

    /// As [`Authority::issue`] for a key that the node made itself: the certificate, PEM.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn certify(
        &self,
        node: &NodeId,
        hosts: &[String],
        key: &ProvenKey,
        now: SystemTime,
        validity: Duration,
    ) -> Result<String, IdentityError> {
        self.sign(node, hosts, &key.0, now, validity)
    }

    fn sign(
        &self,
        node: &NodeId,
        hosts: &[String],
        key: &impl PublicKeyData,
        now: SystemTime,
        validity: Duration,
    ) -> Result<String, IdentityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(node.as_str());
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        // The node id goes first: the first DNS name is who the node is.
        params.subject_alt_names.push(dns_name(node.as_str())?);
        for host in hosts {
            params.subject_alt_names.push(match host.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => dns_name(host)?,
            });
        }
        set_validity(&mut params, now, validity)?;
        let issuer = self.issuer().map_err(|error| cannot_issue(&error))?;
        let cert = params.signed_by(key, &issuer).map_err(|error| cannot_issue(&error))?;
        Ok(cert.pem())
    }

    /// Issues a certificate for `node` and makes it an identity at once, without files: for a whole
    /// cluster in one process, and for tests.
    ///
    /// # Errors
    /// As [`Authority::issue`].
    pub fn identity(&self, node: &NodeId) -> Result<Identity, IdentityError> {
        let issued = self.issue(node, &[], SystemTime::now(), NODE_VALIDITY)?;
        issued.identity(&self.cert_pem)
    }

    /// Writes `ca.pem` and `ca.key` into `dir`, which is made if missing, and returns their paths.
    ///
    /// # Errors
    /// [`IdentityError::Exists`] if one of them is there: a second CA would cut the cluster in two.
    pub fn write(&self, dir: &Path) -> Result<(PathBuf, PathBuf), IdentityError> {
        write_pair(dir, "ca", &self.cert_pem, &self.key.serialize_pem(), Existing::Keep)
    }

    fn issuer(&self) -> Result<Issuer<'static, &KeyPair>, rcgen::Error> {
        Issuer::from_ca_cert_pem(&self.cert_pem, &self.key)
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// A certificate fresh from the CA, with its key.
pub struct Issued {
    node: NodeId,
    cert_pem: String,
    key_pem: String,
}

impl Issued {
    /// The certificate.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The private key. Keep it from logs.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The identity it makes, trusting `ca_pem`.
    ///
    /// # Errors
    /// As [`Identity::from_pem`].
    pub fn identity(&self, ca_pem: &str) -> Result<Identity, IdentityError> {
        Identity::from_pem(&self.node, ca_pem, &self.cert_pem, &self.key_pem)
    }

    /// Writes `<node>.pem` and `<node>.key` into `dir` and returns their paths. A running node that
    /// follows the files never sees half a file; it may see a new certificate with an old key for
    /// a moment, and waits for the other.
    ///
    /// # Errors
    /// [`IdentityError::Exists`] with [`Existing::Keep`], or [`IdentityError::Write`].
    pub fn write(
        &self,
        dir: &Path,
        existing: Existing,
    ) -> Result<(PathBuf, PathBuf), IdentityError> {
        write_pair(dir, self.node.as_str(), &self.cert_pem, &self.key_pem, existing)
    }
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("node", &self.node).finish_non_exhaustive()
    }
}

/// Writes what a newcomer has got: `ca.pem`, `<node>.pem` and `<node>.key` into `dir`, and returns the
/// paths of the last two. A `ca.pem` that is there must be the same.
///
/// # Errors
/// [`IdentityError::Exists`] with [`Existing::Keep`] or another CA; [`IdentityError::Write`].
pub fn write_joined(
    dir: &Path,
    node: &NodeId,
    ca_pem: &str,
    (cert_pem, key_pem): (&str, &str),
    existing: Existing,
) -> Result<(PathBuf, PathBuf), IdentityError> {
    // What does not make an identity is not written.
    Identity::from_pem(node, ca_pem, cert_pem, key_pem)?;
    let ca = dir.join("ca.pem");
    let failed = |source| IdentityError::Write { path: ca.display().to_string(), source };
    match fs::read(&ca) {
        Ok(known) => {
            let known = super::certificates(&(known, ca.display().to_string()))?;
            let given = super::certificates(&(ca_pem.into(), "the CA".to_owned()))?;
            if !given.iter().all(|certificate| known.contains(certificate)) {
                return Err(IdentityError::Exists { path: ca.display().to_string() });
            }
        }
        Err(_) => {
            fs::create_dir_all(dir).map_err(failed)?;
            write_file(&ca, ca_pem, 0o644).map_err(failed)?;
        }
    }
    write_pair(dir, node.as_str(), cert_pem, key_pem, existing)
}

/// What to do with files that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Refuse to write.
    Keep,
    /// Put the new ones in their place.
    Replace,
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn dns_name(name: &str) -> Result<SanType, IdentityError> {
    let bad = || IdentityError::Issue { why: format!("{name:?} is no host name and no address") };
    rustls_pki_types::DnsName::try_from(name).map_err(|_| bad())?;
    Ok(SanType::DnsName(name.try_into().map_err(|_| bad())?))
}

fn set_validity(
    params: &mut CertificateParams,
    now: SystemTime,
    validity: Duration,
) -> Result<(), IdentityError> {
    let mut serial = [0; SERIAL_BYTES];
    fill_random(&mut serial)?;
    // A serial number is positive (RFC 5280 section 4.1.2.2).
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    let since_epoch = now
        .duration_since(UNIX_EPOCH)
        .map_err(|_| IdentityError::Issue { why: "the clock is before 1970".to_owned() })?;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch.saturating_sub(BACKDATED);
    params.not_after = epoch + since_epoch + validity;
    Ok(())
}

fn fill_random(bytes: &mut [u8]) -> Result<(), IdentityError> {
    SystemRandom::new()
        .fill(bytes)
        .map_err(|_| IdentityError::Issue { why: "no random bytes".to_owned() })
}

fn cannot_issue(error: &rcgen::Error) -> IdentityError {
    IdentityError::Issue { why: error.to_string() }
}

fn write_pair(
    dir: &Path,
    stem: &str,
    cert: &str,
    key: &str,
    existing: Existing,
) -> Result<(PathBuf, PathBuf), IdentityError> {
    let (cert_path, key_path) = (dir.join(format!("{stem}.pem")), dir.join(format!("{stem}.key")));
    if existing == Existing::Keep {
        for path in [&cert_path, &key_path] {
            if path.exists() {
                return Err(IdentityError::Exists { path: path.display().to_string() });
            }
        }
    }
    let failed =
        |path: &Path, source| IdentityError::Write { path: path.display().to_string(), source };
    fs::create_dir_all(dir).map_err(|source| failed(dir, source))?;
    write_file(&key_path, key, 0o600).map_err(|source| failed(&key_path, source))?;
    write_file(&cert_path, cert, 0o644).map_err(|source| failed(&cert_path, source))?;
    Ok((cert_path, key_path))
}

/// Writes the whole file under a temporary name first, with its mode from the first byte on.
fn write_file(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    // Left over from a run that was cut off; its mode is not to be trusted.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}
