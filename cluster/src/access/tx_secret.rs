//! URLs signed as Tencent Cloud's live service signs them, so that back-ends made for it go on working.
//!
//! `txTime` is the end of the URL's time, in seconds since 1970, as hexadecimal digits; `txSecret` is
//! the MD5 (or, where the domain is set so, the SHA-256) in lower-case hexadecimal of the key, the
//! stream's name and `txTime` as it was sent. Pushing and playing are signed alike, with keys of their
//! own; to play, the name is the one without `.flv` or `.m3u8`.

use std::fmt::Write as _;

use md5::{Digest, Md5};
use subtle::ConstantTimeEq;
use wire::RoomId;

use super::Denied;

/// The parameter with the signature.
const SECRET: &str = "txSecret";
/// The parameter with the time.
const TIME: &str = "txTime";
/// Longest `txTime`: sixteen digits are all of 64 bits.
const MAX_TIME_DIGITS: usize = 16;

/// The keys that sign URLs of one kind.
#[derive(Clone)]
pub struct TxKeys {
    /// The key in use.
    pub primary: String,
    /// The one before or after it, accepted too while keys are changed.
    pub backup: Option<String>,
    /// How long after its time a URL is still accepted.
    pub grace_s: u64,
}

impl std::fmt::Debug for TxKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TxKeys").field("grace_s", &self.grace_s).finish_non_exhaustive()
    }
}

/// The two parameters, as found in a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TxSigned<'a> {
    secret: &'a str,
    time: &'a str,
    /// When the URL's time is over, in seconds since 1970.
    pub expires_s: u64,
}

impl<'a> TxSigned<'a> {
    /// Finds them. A query without both, or with a time that is none, is not signed this way.
    #[must_use]
    pub fn find(query: &'a str) -> Option<Self> {
        let value = |name: &str| {
            let pairs = query.split(['&', '?']).filter_map(|pair| pair.split_once('='));
            pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        let (secret, time) = (value(SECRET)?, value(TIME)?);
        if time.len() > MAX_TIME_DIGITS || !time.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let expires_s = u64::from_str_radix(time, 16).ok()?;
        Some(Self { secret, time, expires_s })
    }
}

impl TxKeys {
    /// Whether one of the keys has signed this for `room`, and its time is not over at `now_s`.
    ///
    /// # Errors
    /// [`Denied::BadSignature`] or [`Denied::Expired`].
    pub fn check(&self, room: &RoomId, signed: &TxSigned<'_>, now_s: u64) -> Result<(), Denied> {
        let keys = [Some(self.primary.as_str()), self.backup.as_deref()];
        let given = signed.secret.as_bytes();
        let matches = keys.into_iter().flatten().any(|key| {
            let text = format!("{key}{}{}", room.name(), signed.time);
            let expected = match given.len() {
                64 => hex(ring::digest::digest(&ring::digest::SHA256, text.as_bytes()).as_ref()),
                _ => hex(&Md5::digest(text.as_bytes())),
            };
            expected.as_bytes().ct_eq(given).into()
        });
        if !matches {
            return Err(Denied::BadSignature);
        }
        if now_s > signed.expires_s.saturating_add(self.grace_s) {
            return Err(Denied::Expired);
        }
        Ok(())
    }

    /// The query that signs `room` until `expires_s`, by MD5 with the primary key.
    #[must_use]
    pub fn sign(&self, room: &RoomId, expires_s: u64) -> String {
        let time = format!("{expires_s:X}");
        let secret = hex(&Md5::digest(format!("{}{}{time}", self.primary, room.name()).as_bytes()));
        format!("{SECRET}={secret}&{TIME}={time}")
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing into a string never fails.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
