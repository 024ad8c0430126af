//! Tokens and signed URLs, right and forged.
//! Tokens and signed URLs: what is accepted, and every way in which one is not.

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use super::*;

const NOW_S: u64 = 1_795_350_000;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn room(name: &str) -> RoomId {
    RoomId::parse(name).unwrap()
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

/// A token by hand, so that what is refused is not what our own signing happens to write.
fn by_hand(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let message = format!(
        "{}.{}",
        base64(header.to_string().as_bytes()),
        base64(claims.to_string().as_bytes())
    );
    let signature = sign(message.as_bytes());
    format!("{message}.{}", base64(&signature))
}

fn hs256(claims: &Value) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET);
    let header = json!({"alg": "HS256", "typ": "JWT"});
    by_hand(&header, claims, |message| ring::hmac::sign(&key, message).as_ref().to_vec())
}

fn access() -> Access {
    let mut keyring = Keyring::new(Requirements::default());
    keyring.add_secret(None, SECRET).unwrap();
    Access { keyring, ..Access::default() }
}

fn watch(access: &Access, token: &str) -> Result<Claims, Denied> {
    access.watch(&room("live/c"), Brought { token: Some(token), query: "" }, NOW_S)
}

#[test]
fn a_token_allows_what_it_says_where_it_says() {
    let access = access();
    let claims =
        json!({"room": "live/c", "role": "member", "sub": "u7", "name": "Mei", "exp": NOW_S + 60});
    let token = hs256(&claims);
    let brought = Brought { token: Some(&token), query: "" };
    let claims = access.watch(&room("live/c"), brought, NOW_S).unwrap();
    assert_eq!((claims.user.as_deref(), claims.name.as_deref()), (Some("u7"), Some("Mei")));
    assert_eq!(claims.role, Role::Member);
    assert_eq!(access.watch(&room("live/d"), brought, NOW_S), Err(Denied::OtherRoom));
    let denied = Denied::NotAllowed(Capability::Publish);
    assert_eq!(access.publish(&room("live/c"), brought, NOW_S), Err(denied));
    let none = Brought::default();
    assert_eq!(access.watch(&room("live/c"), none, NOW_S), Err(Denied::Missing));
}

#[test]
fn an_app_and_single_capabilities_can_be_named() {
    let access = access();
    let of_app = hs256(&json!({"room": "live/*", "exp": NOW_S}));
    assert!(watch(&access, &of_app).is_ok());
    let brought = Brought { token: Some(&of_app), query: "" };
    assert_eq!(access.watch(&room("lives/c"), brought, NOW_S), Err(Denied::OtherRoom));
    let only = hs256(&json!({"room": "live/c", "role": "host", "caps": ["publish"], "exp": NOW_S}));
    assert_eq!(watch(&access, &only), Err(Denied::NotAllowed(Capability::Watch)));
    let brought = Brought { token: Some(&only), query: "" };
    assert!(access.publish(&room("live/c"), brought, NOW_S).is_ok());
}

#[test]
fn time_is_kept_with_some_patience() {
    let access = access();
    let token = |exp: u64, nbf: u64| hs256(&json!({"room": "live/c", "exp": exp, "nbf": nbf}));
    assert!(watch(&access, &token(NOW_S - SKEW_S, NOW_S + SKEW_S)).is_ok());
    assert_eq!(watch(&access, &token(NOW_S - SKEW_S - 1, 0)), Err(Denied::Expired));
    assert_eq!(watch(&access, &token(NOW_S, NOW_S + SKEW_S + 1)), Err(Denied::NotYet));
}

#[test]
fn what_is_wrong_is_named_and_nothing_unsigned_is_believed() {
    let access = access();
    let good = hs256(&json!({"room": "live/c", "exp": NOW_S}));
    assert!(watch(&access, &good).is_ok());
    for end in 1..good.len() {
        assert!(watch(&access, &good[..end]).is_err(), "{end}");
    }
    let claims = json!({"room": "live/c", "exp": NOW_S});
    let none = by_hand(&json!({"alg": "none"}), &claims, |_| Vec::new());
    assert!(watch(&access, &none).is_err());
    let other = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"another");
    let forged = by_hand(&json!({"alg": "HS256"}), &claims, |m| {
        ring::hmac::sign(&other, m).as_ref().to_vec()
    });
    assert_eq!(watch(&access, &forged), Err(Denied::BadSignature));
    for (claims, said) in [
        (json!({"room": "live/c"}), "exp"),
        (json!({"exp": NOW_S}), "room"),
        (json!({"room": "live", "exp": NOW_S}), "room"),
        (json!({"room": "api/*", "exp": NOW_S}), "reserved"),
        (json!({"room": "live/c", "exp": NOW_S, "role": "king"}), "king"),
    ] {
        let Err(Denied::Malformed(why)) = watch(&access, &hs256(&claims)) else {
            panic!("{claims}")
        };
        assert!(why.contains(said), "{why}");
    }
    let long = "a".repeat(MAX_TOKEN_BYTES + 1);
    assert!(matches!(watch(&access, &long), Err(Denied::Malformed(_))));
    assert!(matches!(watch(&Access::default(), &good), Err(Denied::BadSignature)));
}

#[test]
fn public_keys_of_an_issuer_are_taken_by_their_ids() {
    let random = SystemRandom::new();
    let curve = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(curve, &random).unwrap();
    let ec = EcdsaKeyPair::from_pkcs8(curve, pkcs8.as_ref(), &random).unwrap();
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
    let ed = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let point = ec.public_key().as_ref();
    let set = json!({"keys": [
        {"kty": "EC", "crv": "P-256", "kid": "one", "x": base64(&point[1..33]), "y": base64(&point[33..])},
        {"kty": "OKP", "crv": "Ed25519", "kid": "two", "alg": "EdDSA", "use": "sig", "x": base64(ed.public_key().as_ref())},
        {"kty": "EC", "crv": "P-521", "kid": "three", "x": "AA", "y": "AA"},
        {"kty": "new", "kid": "four"},
        {"kty": "OKP", "crv": "Ed25519", "kid": "five", "use": "enc", "x": base64(ed.public_key().as_ref())},
    ]});
    let requirements = Requirements {
        issuer: Some("https://id".to_owned()),
        audience: Some("tidewater".to_owned()),
    };
    let mut keyring = Keyring::new(requirements);
    assert_eq!(keyring.add_jwk_set(set.to_string().as_bytes()), Ok(2));
    let access = Access { keyring, ..Access::default() };
    let sign_ec = |m: &[u8]| ec.sign(&random, m).unwrap().as_ref().to_vec();
    let sign_ed = |m: &[u8]| ed.sign(m).as_ref().to_vec();
    let claims =
        |iss: &str, aud: Value| json!({"room": "live/c", "exp": NOW_S, "iss": iss, "aud": aud});
    let right = claims("https://id", json!(["other", "tidewater"]));
    assert!(
        watch(&access, &by_hand(&json!({"alg": "ES256", "kid": "one"}), &right, sign_ec)).is_ok()
    );
    assert!(
        watch(&access, &by_hand(&json!({"alg": "EdDSA", "kid": "two"}), &right, sign_ed)).is_ok()
    );
    let of_other = by_hand(&json!({"alg": "EdDSA", "kid": "one"}), &right, sign_ed);
    assert_eq!(watch(&access, &of_other), Err(Denied::BadSignature));
    // A public key is no shared secret (RFC 8725 section 2.1).
    let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, point);
    let confused = by_hand(&json!({"alg": "HS256", "kid": "one"}), &right, |m| {
        ring::hmac::sign(&secret, m).as_ref().to_vec()
    });
    assert_eq!(watch(&access, &confused), Err(Denied::BadSignature));
    let elsewhere = claims("https://other", json!("tidewater"));
    let token = by_hand(&json!({"alg": "EdDSA", "kid": "two"}), &elsewhere, sign_ed);
    assert_eq!(watch(&access, &token), Err(Denied::NotForUs("issuer")));
    let not_ours = claims("https://id", json!("other"));
    let token = by_hand(&json!({"alg": "EdDSA", "kid": "two"}), &not_ours, sign_ed);
    assert_eq!(watch(&access, &token), Err(Denied::NotForUs("audience")));
}

/// The key and the token of RFC 7515 appendix A.2.1: RS256.
#[test]
fn the_rsa_example_of_the_rfc_is_signed_by_its_key() {
    let n = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
    let token = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    let mut keyring = Keyring::new(Requirements::default());
    let set = json!({"keys": [{"kty": "RSA", "n": n, "e": "AQAB"}]});
    assert_eq!(keyring.add_jwk_set(set.to_string().as_bytes()), Ok(1));
    // Signed by it, and then without the claims that are ours.
    let Err(Denied::Malformed(why)) = keyring.verify(token, NOW_S) else { panic!() };
    assert!(why.contains("room"), "{why}");
    let mut other = token.to_owned();
    other.replace_range(40..41, "X");
    assert_eq!(keyring.verify(&other, NOW_S), Err(Denied::BadSignature));
}

#[test]
fn keys_that_cannot_be_used_are_refused() {
    let mut keyring = Keyring::new(Requirements::default());
    assert_eq!(keyring.add_secret(None, &[1; 31]), Err(KeyError::ShortSecret { found: 31 }));
    assert!(matches!(keyring.add_jwk_set(b"{"), Err(KeyError::Malformed(_))));
    assert!(matches!(keyring.add_jwk_set(b"{}"), Err(KeyError::Malformed(_))));
    assert_eq!(keyring.add_jwk_set(br#"{"keys":[{"kty":"new"}]}"#), Err(KeyError::NoneUsable(1)));
    let many = json!({"keys": vec![json!({}); MAX_KEYS + 1]}).to_string();
    assert_eq!(keyring.add_jwk_set(many.as_bytes()), Err(KeyError::TooMany));
    assert!(keyring.is_empty());
}

#[test]
fn our_own_tokens_are_accepted() {
    let claims = Claims {
        role: Role::Mod,
        is_signed_url: false,
        issued_s: Some(NOW_S - 10),
        id: Some("j1".to_owned()),
        ..Claims::of_signed_url(&room("live/c"), Capability::Watch, NOW_S)
    };
    let token = sign(&claims, Some("k1"), SECRET).unwrap();
    assert_eq!(watch(&access(), &token), Ok(claims.clone()));
    let mut keyring = Keyring::new(Requirements::default());
    keyring.add_secret(Some("k2"), SECRET).unwrap();
    assert_eq!(keyring.verify(&token, NOW_S), Err(Denied::BadSignature), "of another id");
    assert!(sign(&claims, None, b"short").is_err());
}

fn tencent() -> TxKeys {
    TxKeys {
        primary: "e12c46f2612d5106e2034781ab261ca3".to_owned(),
        backup: Some("backup".to_owned()),
        grace_s: 0,
    }
}

/// The vector of Tencent Cloud's documentation.
#[test]
fn a_url_signed_as_tencent_does_is_accepted_until_its_time() {
    let access = Access { push: Some(tencent()), ..Access::default() };
    let query = "txSecret=f85a2ab363fe4deaffef9754d79da6fe&txTime=5C271099";
    assert_eq!(tencent().sign(&room("live/test"), 0x5C27_1099), query);
    let brought = Brought { token: None, query };
    let publish = |name: &str, now_s| access.publish(&room(name), brought, now_s);
    assert!(publish("live/test", 0x5C27_1099).is_ok());
    assert_eq!(publish("live/test", 0x5C27_109A), Err(Denied::Expired));
    assert_eq!(publish("live/tess", 0), Err(Denied::BadSignature));
    assert_eq!(access.watch(&room("live/test"), brought, 0), Err(Denied::Missing), "to push only");
}

#[test]
fn backup_keys_sha256_and_grace_work_too() {
    let mut keys = tencent();
    keys.grace_s = 60;
    let by_backup =
        TxKeys { primary: "backup".to_owned(), ..tencent() }.sign(&room("live/c"), NOW_S);
    let signed = TxSigned::find(&by_backup).unwrap();
    assert_eq!(keys.check(&room("live/c"), &signed, NOW_S + 60), Ok(()));
    assert_eq!(keys.check(&room("live/c"), &signed, NOW_S + 61), Err(Denied::Expired));
    let digest = ring::digest::digest(&ring::digest::SHA256, b"backupc5C271099");
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let query = format!("txTime=5C271099&txSecret={hex}");
    assert_eq!(keys.check(&room("live/c"), &TxSigned::find(&query).unwrap(), 0), Ok(()));
    for query in
        ["txSecret=a", "txTime=1", "txSecret=a&txTime=xyz", "txSecret=a&txTime=11112222333344445"]
    {
        assert_eq!(TxSigned::find(query), None, "{query}");
    }
}

#[test]
fn no_key_is_shown() {
    let access = Access { push: Some(tencent()), play: Some(tencent()), ..access() };
    let shown = format!("{access:?}");
    assert!(
        !shown.contains("e12c46f2") && !shown.contains("backup") && !shown.contains("0123456789")
    );
}
