//! Publish keys and join tokens: made and hashed where they are used, so that no secret crosses the
//! wire.

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use wire::control::{KeyId, SecretHash};

use crate::Error;

/// Random bytes in a key: guessing is out of the question, and a person can still copy it.
const SECRET_BYTES: usize = 20;

/// A publish key or a join token, just made. The only time its secret is known.
#[derive(Clone, PartialEq, Eq)]
pub struct NewKey {
    /// Its public name.
    pub id: KeyId,
    /// The secret: 40 hexadecimal digits.
    pub key: String,
}

impl NewKey {
    pub(super) fn random() -> Result<Self, Error> {
        let mut bytes = [0; 8 + SECRET_BYTES];
        SystemRandom::new().fill(&mut bytes).map_err(|_| Error::NoRandomness)?;
        let (id, secret) = bytes.split_at(8);
        let id = id.iter().fold(0, |id, byte| (id << 8) | u64::from(*byte));
        let key = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { id: KeyId(id), key })
    }
}

impl std::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// SHA-256 of a secret. The secrets are random, so that no slower hash is called for.
pub(super) fn hash(secret: impl AsRef<[u8]>) -> SecretHash {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, secret.as_ref()).as_ref());
    SecretHash(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_random_hexadecimal_and_do_not_show() {
        let (one, two) = (NewKey::random().unwrap(), NewKey::random().unwrap());
        assert!(one.key.len() == 40 && one.key.bytes().all(|b| b.is_ascii_hexdigit()));
        assert!(one.key != two.key && one.id != two.id);
        assert!(!format!("{one:?}").contains(&one.key));
    }

    #[test]
    fn the_hash_is_sha_256() {
        // FIPS 180-2, appendix B.1.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let hex: String = hash("abc").0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
    }
}
