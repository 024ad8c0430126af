//! The keys whose signatures are accepted, and the one that signs.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::Deserialize;

use super::token::{Claims, MAX_TOKEN_BYTES};
use super::{Denied, provider};

/// Most keys of a ring: an issuer's, while it rotates them, several times over.
pub const MAX_KEYS: usize = 64;

/// Shortest shared secret: what HS256 is as strong as (RFC 7518 section 3.2).
pub const MIN_SECRET_BYTES: usize = 32;

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A shared secret is too short to be one.
    #[error("a token secret has {found} bytes, at least {MIN_SECRET_BYTES} are needed")]
    ShortSecret {
        /// Its length.
        found: usize,
    },
    /// The JWK set cannot be read (RFC 7517).
    #[error("JWK set: {0}")]
    Malformed(String),
    /// It has too many keys.
    #[error("JWK set: over {MAX_KEYS} keys")]
    TooMany,
    /// None of its keys is of use.
    #[error("JWK set: no key for HS256, ES256, EdDSA or RS256 among {0}")]
    NoneUsable(usize),
}

/// What a token must say besides being signed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requirements {
    /// The `iss` it must have, if any.
    pub issuer: Option<String>,
    /// The `aud` it must name, if any.
    pub audience: Option<String>,
}

/// Keys by their ids.
#[derive(Debug, Default)]
pub struct Keyring {
    keys: Vec<Key>,
    requirements: Requirements,
}

#[derive(Debug)]
struct Key {
    /// The `kid` it goes by; without one it is tried for every token of its algorithm.
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl Keyring {
    /// A ring without keys, which accepts nothing.
    #[must_use]
    pub fn new(requirements: Requirements) -> Self {
        provider::install();
        Self { keys: Vec::new(), requirements }
    }

    /// Adds a secret shared with the issuer, for HS256.
    ///
    /// # Errors
    /// When it is too short.
    pub fn add_secret(&mut self, id: Option<&str>, secret: &[u8]) -> Result<(), KeyError> {
        if secret.len() < MIN_SECRET_BYTES {
            return Err(KeyError::ShortSecret { found: secret.len() });
        }
        let key = DecodingKey::from_secret(secret);
        self.keys.push(Key { id: id.map(str::to_owned), algorithm: Algorithm::HS256, key });
        Ok(())
    }

    /// Adds the keys of a JWK set. Keys for other algorithms and uses are passed over, as an issuer may
    /// have some.
    ///
    /// # Errors
    /// When it cannot be read, or none of its keys is of use.
    pub fn add_jwk_set(&mut self, json: &[u8]) -> Result<usize, KeyError> {
        // Key by key, so that one of an unknown kind does not cost the others.
        provider::install();
        let set: serde_json::Value =
            serde_json::from_slice(json).map_err(|error| KeyError::Malformed(error.to_string()))?;
        let listed = set.get("keys").and_then(serde_json::Value::as_array);
        let listed = listed.ok_or_else(|| KeyError::Malformed("it has no \"keys\"".to_owned()))?;
        if listed.len() > MAX_KEYS {
            return Err(KeyError::TooMany);
        }
        let before = self.keys.len();
        let known = listed.iter().filter_map(|key| Jwk::deserialize(key).ok());
        self.keys.extend(known.filter_map(|key| usable(&key)));
        match self.keys.len() - before {
            0 => Err(KeyError::NoneUsable(listed.len())),
            added => Ok(added),
        }
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Reads a token whose signature, time, issuer and audience are as they must be.
    ///
    /// # Errors
    /// [`Denied`] says what is not.
    pub fn verify(&self, token: &str, now_s: u64) -> Result<Claims, Denied> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Denied::Malformed(format!("over {MAX_TOKEN_BYTES} bytes")));
        }
        let header = jsonwebtoken::decode_header(token)
            .map_err(|_| Denied::Malformed("it is no JWT".to_owned()))?;
        let claims = self.signed(token, &header)?;
        claims.in_time(now_s)?;
        let Requirements { issuer, audience } = &self.requirements;
        if issuer.is_some() && *issuer != claims.issuer {
            return Err(Denied::NotForUs("issuer"));
        }
        match (audience, &claims.audience) {
            (Some(us), Some(named)) if !named.names(us) => Err(Denied::NotForUs("audience")),
            (Some(_), None) => Err(Denied::NotForUs("audience")),
            _ => Ok(claims),
        }
    }

    fn signed(&self, token: &str, header: &Header) -> Result<Claims, Denied> {
        // The key decides which algorithm verifies, never the token: RFC 8725 section 3.1.
        let mut validation = Validation::new(header.alg);
        validation.required_spec_claims.clear();
        // Time, issuer and audience are looked at above, by the time that was given.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        for key in self.keys.iter().filter(|key| key.may_have_signed(header)) {
            validation.algorithms = vec![key.algorithm];
            match jsonwebtoken::decode::<Claims>(token, &key.key, &validation) {
                Ok(found) => return Ok(found.claims),
                Err(error) => {
                    if let jsonwebtoken::errors::ErrorKind::Json(why) = error.kind() {
                        // The signature holds: the issuer may be told what is wrong.
                        return Err(Denied::Malformed(why.to_string()));
                    }
                }
            }
        }
        Err(Denied::BadSignature)
    }
}

/// The key, if it verifies signatures of an algorithm that is accepted.
fn usable(jwk: &Jwk) -> Option<Key> {
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::OctetKey(_) => Algorithm::HS256,
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            Algorithm::ES256
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            Algorithm::EdDSA
        }
        _ => return None,
    };
    let common = &jwk.common;
    let signs = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature));
    if !signs || common.key_algorithm.is_some_and(|named| named != algorithm.into()) {
        return None;
    }
    let key = DecodingKey::from_jwk(jwk).ok()?;
    Some(Key { id: common.key_id.clone(), algorithm, key })
}

impl Key {
    fn may_have_signed(&self, header: &Header) -> bool {
        let same_key = match (&self.id, &header.kid) {
            (Some(own), Some(named)) => own == named,
            _ => true,
        };
        same_key && self.algorithm == header.alg
    }
}

/// Signs a token with a shared secret, by HS256.
///
/// # Errors
/// When the secret is too short.
pub fn sign(claims: &Claims, id: Option<&str>, secret: &[u8]) -> Result<String, KeyError> {
    if secret.len() < MIN_SECRET_BYTES {
        return Err(KeyError::ShortSecret { found: secret.len() });
    }
    provider::install();
    let mut header = Header::new(Algorithm::HS256);
    header.kid = id.map(str::to_owned);
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(secret))
        .map_err(|error| KeyError::Malformed(error.to_string()))
}
