//! Identities good and bad, from files as operators have them.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use super::{
    authority::{Authority, Existing, NODE_VALIDITY},
    *,
};

fn node(id: &str) -> NodeId {
    NodeId::new(id).unwrap()
}

fn files(dir: &Path, stem: &str) -> IdentityFiles {
    IdentityFiles {
        ca: dir.join("ca.pem"),
        cert: dir.join(format!("{stem}.pem")),
        key: dir.join(format!("{stem}.key")),
    }
}

/// A folder with a CA and a certificate of node o1.
fn folder() -> (tempfile::TempDir, Authority) {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::create(SystemTime::now()).unwrap();
    authority.write(dir.path()).unwrap();
    let hosts = ["10.0.0.1".to_owned(), "o1.example.org".to_owned()];
    let issued = authority.issue(&node("o1"), &hosts, SystemTime::now(), NODE_VALIDITY).unwrap();
    issued.write(dir.path(), Existing::Keep).unwrap();
    (dir, authority)
}

#[test]
fn what_is_written_loads_and_keys_are_private() {
    let (dir, _) = folder();
    let identity = files(dir.path(), "o1").load(&node("o1")).unwrap();
    let left = identity.not_after().duration_since(SystemTime::now()).unwrap();
    assert!(left <= NODE_VALIDITY && left > NODE_VALIDITY - Duration::from_secs(60));
    for key in ["ca.key", "o1.key"] {
        let mode = fs::metadata(dir.path().join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    assert!(!format!("{identity:?}").contains("PRIVATE"));
}

#[test]
fn a_ca_on_disk_goes_on_issuing() {
    let (dir, _) = folder();
    let authority =
        Authority::load(&dir.path().join("ca.pem"), &dir.path().join("ca.key")).unwrap();
    let issued = authority.issue(&node("e1"), &[], SystemTime::now(), NODE_VALIDITY).unwrap();
    issued.write(dir.path(), Existing::Keep).unwrap();
    files(dir.path(), "e1").load(&node("e1")).unwrap();
}

#[test]
fn files_are_not_overwritten_by_accident() {
    let (dir, authority) = folder();
    assert!(matches!(authority.write(dir.path()), Err(IdentityError::Exists { .. })));
    let issued = authority.issue(&node("o1"), &[], SystemTime::now(), NODE_VALIDITY).unwrap();
    assert!(matches!(issued.write(dir.path(), Existing::Keep), Err(IdentityError::Exists { .. })));
    issued.write(dir.path(), Existing::Replace).unwrap();
    files(dir.path(), "o1").load(&node("o1")).unwrap();
}

#[test]
fn each_bad_identity_names_its_file_and_fault() {
    let (dir, authority) = folder();
    let path = dir.path();
    let now = SystemTime::now();
    let long_ago = now - Duration::from_secs(30 * 24 * 3600);
    let write = |issued: &authority::Issued, stem: &str| {
        fs::write(path.join(format!("{stem}.pem")), issued.cert_pem()).unwrap();
        fs::write(path.join(format!("{stem}.key")), issued.key_pem()).unwrap();
    };
    let o1 = node("o1");
    let day = Duration::from_secs(24 * 3600);
    write(&authority.issue(&o1, &[], long_ago, day).unwrap(), "expired");
    write(&authority.issue(&o1, &[], now + 30 * day, day).unwrap(), "early");
    let other = Authority::create(now).unwrap();
    write(&other.issue(&o1, &[], now, day).unwrap(), "stranger");
    write(&authority.issue(&o1, &[], now, day).unwrap(), "mixed");
    fs::copy(path.join("o1.key"), path.join("mixed.key")).unwrap();
    fs::write(path.join("empty.pem"), "").unwrap();
    fs::write(path.join("empty.key"), "").unwrap();
    fs::copy(path.join("o1.pem"), path.join("keyless.pem")).unwrap();
    fs::write(path.join("keyless.key"), "").unwrap();
    fs::copy(path.join("o1.key"), path.join("torn.key")).unwrap();
    fs::write(path.join("torn.pem"), "-----BEGIN CERTIFICATE-----\nAAAA").unwrap();
    fs::copy(path.join("o1.key"), path.join("noise.key")).unwrap();
    let noise = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    fs::write(path.join("noise.pem"), noise).unwrap();

    let cases = [
        ("missing", "o1", "cannot read {dir}/missing.pem: No such file or directory"),
        ("o1", "o2", "{dir}/o1.pem: the certificate is of node o1, this is node o2"),
        ("expired", "o1", "{dir}/expired.pem: the certificate has expired; make a new one"),
        ("early", "o1", "{dir}/early.pem: the certificate is not valid yet; is this machine's"),
        ("stranger", "o1", "{dir}/stranger.pem: the certificate is not of this CA (trusting"),
        ("mixed", "o1", "{dir}/mixed.key: not the key of the certificate in {dir}/mixed.pem"),
        ("empty", "o1", "{dir}/empty.pem: holds no certificate (no BEGIN CERTIFICATE)"),
        ("keyless", "o1", "{dir}/keyless.key: holds no private key (no BEGIN PRIVATE KEY)"),
        ("torn", "o1", "{dir}/torn.pem: not PEM"),
        ("noise", "o1", "{dir}/noise.pem: the certificate cannot be read"),
    ];
    for (stem, id, expected) in cases {
        let expected = expected.replace("{dir}", &path.display().to_string());
        let error = files(path, stem).load(&node(id)).unwrap_err().to_string();
        assert!(error.starts_with(&expected), "{stem}: {error}");
    }
}

#[test]
fn a_certificate_for_one_side_only_is_refused() {
    let (dir, authority) = folder();
    let ca_key = rcgen::KeyPair::from_pem(&fs::read_to_string(dir.path().join("ca.key")).unwrap());
    let issuer = rcgen::Issuer::from_ca_cert_pem(authority.cert_pem(), ca_key.unwrap()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["o1".to_owned()]).unwrap();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let cert = params.signed_by(&key, &issuer).unwrap();
    let error =
        Identity::from_pem(&node("o1"), authority.cert_pem(), &cert.pem(), &key.serialize_pem())
            .unwrap_err()
            .to_string();
    assert!(error.contains("both server and client authentication"), "{error}");
}

#[test]
fn hosts_must_be_names_or_addresses() {
    let (_dir, authority) = folder();
    let now = SystemTime::now();
    for bad in ["", "a b", "http://x", "-x"] {
        let hosts = [bad.to_owned()];
        let error = authority.issue(&node("o1"), &hosts, now, NODE_VALIDITY).unwrap_err();
        assert!(error.to_string().contains("is no host name and no address"), "{bad:?}: {error}");
    }
    let hosts = ["::1".to_owned(), "localhost".to_owned(), "*.example.org".to_owned()];
    let _ = authority.issue(&node("o1"), &hosts[..2], now, NODE_VALIDITY).unwrap();
}

#[test]
fn the_derived_secret_follows_the_key() {
    let (dir, authority) = folder();
    let first = files(dir.path(), "o1").load(&node("o1")).unwrap();
    let again = files(dir.path(), "o1").load(&node("o1")).unwrap();
    let other = authority.identity(&node("o1")).unwrap();
    assert_eq!(first.derived_secret(b"a").as_ref(), again.derived_secret(b"a").as_ref());
    assert_ne!(first.derived_secret(b"a").as_ref(), first.derived_secret(b"b").as_ref());
    assert_ne!(first.derived_secret(b"a").as_ref(), other.derived_secret(b"a").as_ref());
}
