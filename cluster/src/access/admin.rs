//! Tokens for callers of the API that may do some things and not others.
//!
//! Each is a JWT signed with a key that is made from the admin token, so that every node with the same admin
//! token takes it and none is kept. It says what its holder may do; changing the admin token ends all of
//! them, a revocation by its id one. Pure.

use std::fmt;
use std::str::FromStr;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use ring::hmac;
use serde::{Deserialize, Serialize};

use super::token::{MAX_TOKEN_BYTES, SKEW_S};
use super::{Denied, KeyError, provider};

/// What tells them from tokens of rooms.
const AUDIENCE: &str = "tidewater-admin";

/// What a caller of the API may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminScope {
    /// Look at everything that is no secret.
    Read,
    /// Open rooms; stop, forbid and resume pushes; say things in rooms for the application.
    Rooms,
    /// Make, replace and revoke keys and tokens.
    Keys,
    /// Keep order in rooms.
    Moderate,
    /// Change who belongs to the cluster and where rooms live; make tokens like these.
    Cluster,
}

impl AdminScope {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Read, Self::Rooms, Self::Keys, Self::Moderate, Self::Cluster];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Rooms => "rooms",
            Self::Keys => "keys",
            Self::Moderate => "moderate",
            Self::Cluster => "cluster",
        }
    }
}

impl fmt::Display for AdminScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for AdminScope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|scope| scope.name() == text);
        let forms = "it is read, rooms, keys, moderate or cluster";
        known.ok_or_else(|| format!("scope {text:?}; {forms}"))
    }
}

/// What such a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminClaims {
    /// Who holds it, for the audit.
    #[serde(rename = "sub")]
    pub name: String,
    /// What it allows.
    pub scopes: Vec<AdminScope>,
    /// When it ends, in seconds since 1970.
    #[serde(rename = "exp")]
    pub expires_s: u64,
    /// When it was issued, in seconds since 1970.
    #[serde(rename = "iat")]
    pub issued_s: u64,
    /// Its own id.
    #[serde(rename = "jti")]
    pub id: String,
}

#[derive(Serialize, Deserialize)]
struct Signed {
    #[serde(flatten)]
    claims: AdminClaims,
    aud: String,
}

/// The key that signs, made from the admin token.
fn key(admin_token: &str) -> hmac::Tag {
    let key = hmac::Key::new(hmac::HMAC_SHA256, admin_token.as_bytes());
    hmac::sign(&key, b"tidewater admin tokens 1")
}

/// Signs a token of this kind.
///
/// # Errors
/// When it cannot be encoded, which no claims are the cause of.
pub fn sign_admin(claims: &AdminClaims, admin_token: &str) -> Result<String, KeyError> {
    provider::install();
    let signed = Signed { claims: claims.clone(), aud: AUDIENCE.to_owned() };
    let key = EncodingKey::from_secret(key(admin_token).as_ref());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &signed, &key)
        .map_err(|error| KeyError::Malformed(error.to_string()))
}

/// Reads a token of this kind.
///
/// # Errors
/// [`Denied`] says what is wrong with it.
pub fn verify_admin(token: &str, admin_token: &str, now_s: u64) -> Result<AdminClaims, Denied> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(Denied::Malformed(format!("over {MAX_TOKEN_BYTES} bytes")));
    }
    provider::install();
    let mut validation = Validation::new(Algorithm::HS256);
    validation.required_spec_claims.clear();
    // The time is looked at below, by what was given.
    validation.validate_exp = false;
    validation.validate_aud = false;
    let key = DecodingKey::from_secret(key(admin_token).as_ref());
    let Signed { claims, aud } = jsonwebtoken::decode::<Signed>(token, &key, &validation)
        .map_err(|_| Denied::BadSignature)?
        .claims;
    if aud != AUDIENCE {
        return Err(Denied::NotForUs("audience"));
    }
    if now_s > claims.expires_s.saturating_add(SKEW_S) {
        return Err(Denied::Expired);
    }
    Ok(claims)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: u64 = 1_795_000_000;

    fn claims() -> AdminClaims {
        AdminClaims {
            name: "shop".to_owned(),
            scopes: vec![AdminScope::Read, AdminScope::Rooms],
            expires_s: NOW_S,
            issued_s: NOW_S - 60,
            id: "j1".to_owned(),
        }
    }

    #[test]
    fn a_token_is_good_under_its_admin_token_for_its_time() {
        let token = sign_admin(&claims(), "root").unwrap();
        assert_eq!(verify_admin(&token, "root", NOW_S), Ok(claims()));
        assert_eq!(verify_admin(&token, "root", NOW_S + SKEW_S + 1), Err(Denied::Expired));
        assert_eq!(verify_admin(&token, "other", NOW_S), Err(Denied::BadSignature));
        assert_eq!(verify_admin("root", "root", NOW_S), Err(Denied::BadSignature));
        assert_eq!(verify_admin("", "root", NOW_S), Err(Denied::BadSignature));
        let mut bent = token.clone();
        bent.replace_range(60..61, if &token[60..61] == "A" { "B" } else { "A" });
        assert!(verify_admin(&bent, "root", NOW_S).is_err());
    }

    #[test]
    fn scopes_have_their_names() {
        for scope in AdminScope::ALL {
            assert_eq!(scope.name().parse(), Ok(scope));
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.name());
        }
        assert!("all".parse::<AdminScope>().is_err());
    }
}
