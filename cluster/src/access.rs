//! Who may do what: what a token or a signed URL allows. Pure: keys and the time come in as arguments.
//!
//! In: what a publisher, a viewer or a member brings (`?token=`, or Tencent's `txSecret` and `txTime`).
//! Out: what it may do, or why not. Publish keys, which are kept in the replicated state, are not checked
//! here: the control plane does that. Reading key files and telling peers is the callers' affair.
//!
//! A token is a JWT (RFC 7519) signed with HS256, ES256, EdDSA or RS256. Its claims:
//!
//! | claim | |
//! |---|---|
//! | `exp` | when it ends, in seconds since 1970; needed |
//! | `room` | `app/name`, or `app/*` for all rooms of an app; needed |
//! | `role` | `guest`, `member`, `mod`, `host` or `publisher`; else `guest` |
//! | `caps` | what it allows, instead of what the role does: `publish watch chat gift moderate` |
//! | `sub`, `name` | who holds it, and the name to show |
//! | `iat` | when it was issued: what is taken back by user or room is what is older |
//! | `nbf`, `jti`, `iss`, `aud` | as in RFC 7519 |
//!
//! What has been taken back is in [`Bars`], which follows the control plane.

mod admin;
mod bars;
mod keyring;
mod provider;
mod token;
mod tx_secret;

pub use admin::{AdminClaims, AdminScope, sign_admin, verify_admin};
pub use bars::{Bars, Pass};
pub use keyring::{KeyError, Keyring, MAX_KEYS, MIN_SECRET_BYTES, Requirements, sign};
pub use token::{Audience, Capability, Claims, MAX_TOKEN_BYTES, Role, SKEW_S, Scope};
pub use tx_secret::{TxKeys, TxSigned};

use std::sync::Arc;

use wire::RoomId;

/// Why something is not allowed. The text may be shown to whoever asked: it names what was wrong and
/// never holds a key, a token or a signature.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Denied {
    /// Nothing was brought that could allow it.
    #[error("a token is needed")]
    Missing,
    /// It is no token, or its claims are not what they must be.
    #[error("the token cannot be read: {0}")]
    Malformed(String),
    /// No key here has signed it.
    #[error("the token is not signed by a key that is accepted here")]
    BadSignature,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet")]
    NotYet,
    /// It is from an issuer, or for an audience, that is not accepted here.
    #[error("the token's {0} is not accepted here")]
    NotForUs(&'static str),
    /// It is for another room.
    #[error("the token is for another room")]
    OtherRoom,
    /// It does not allow this.
    #[error("the token does not allow to {0}")]
    NotAllowed(Capability),
    /// It was taken back.
    #[error("the token has been revoked")]
    Revoked,
}

impl Denied {
    /// A closed-set label for metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "no_token",
            Self::Malformed(_) => "bad_token",
            Self::BadSignature => "bad_signature",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::NotForUs(_) => "not_for_us",
            Self::OtherRoom => "other_room",
            Self::NotAllowed(_) => "not_allowed",
            Self::Revoked => "revoked",
        }
    }
}

/// Everything that signs what is accepted.
#[derive(Debug, Default)]
pub struct Access {
    /// The keys of tokens.
    pub keyring: Keyring,
    /// The keys of signed push URLs, if any.
    pub push: Option<TxKeys>,
    /// The keys of signed play URLs, if any.
    pub play: Option<TxKeys>,
    /// What has been taken back.
    pub bars: Arc<Bars>,
}

/// What was brought, out of a URL or a header.
#[derive(Debug, Clone, Copy, Default)]
pub struct Brought<'a> {
    /// The token.
    pub token: Option<&'a str>,
    /// The query it came with, without `?`.
    pub query: &'a str,
}

impl Access {
    /// Whether anything could be allowed at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keyring.is_empty() && self.push.is_none() && self.play.is_none()
    }

    /// Whether `brought` allows to publish `room` at the time `now_s` (seconds since 1970).
    ///
    /// # Errors
    /// [`Denied`] says why not.
    pub fn publish(
        &self,
        room: &RoomId,
        brought: Brought<'_>,
        now_s: u64,
    ) -> Result<Claims, Denied> {
        self.check(self.push.as_ref(), Capability::Publish, room, brought, now_s)
    }

    /// Whether `brought` allows to watch `room` at the time `now_s`.
    ///
    /// # Errors
    /// [`Denied`] says why not.
    pub fn watch(&self, room: &RoomId, brought: Brought<'_>, now_s: u64) -> Result<Claims, Denied> {
        self.check(self.play.as_ref(), Capability::Watch, room, brought, now_s)
    }

    fn check(
        &self,
        signed: Option<&TxKeys>,
        capability: Capability,
        room: &RoomId,
        brought: Brought<'_>,
        now_s: u64,
    ) -> Result<Claims, Denied> {
        if let (Some(keys), Some(signed)) = (signed, TxSigned::find(brought.query)) {
            keys.check(room, &signed, now_s)?;
            return Ok(Claims::of_signed_url(room, capability, signed.expires_s));
        }
        let token = brought.token.ok_or(Denied::Missing)?;
        let claims = self.keyring.verify(token, now_s)?;
        claims.allows(capability, room)?;
        if self.bars.revokes(&claims, room, now_s) {
            return Err(Denied::Revoked);
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests;
