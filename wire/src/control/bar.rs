//! What takes back what keys, tokens and signed URLs allow, and on what terms a publish key opens.
//!
//! A [`Bar`] stands in the replicated state under what it bars, and every node is told of all of them on its
//! watch stream. Whether one applies to a push or a token is decided where that comes in. Pure data, bounded
//! by [`Barred::check`] and [`KeyTerms::check`].

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::KeyInfo;
use crate::RoomId;

/// Longest name of a token or a user that can be barred, and longest reason, in bytes.
pub const MAX_BARRED_BYTES: usize = 256;
/// Most networks a publish key may be used from.
pub const MAX_KEY_NETWORKS: usize = 16;
/// A bar that does not end by itself.
pub const FOR_GOOD: u64 = u64::MAX;

/// What a bar is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Barred {
    /// Pushes to this room, whatever they bring.
    Push(RoomId),
    /// The token of this id, its `jti`.
    Token(String),
    /// Tokens of a user.
    User {
        /// The user, as `sub` of tokens has it.
        user: String,
        /// In these rooms: `app/name`, or `app/*`, or `*` for all.
        rooms: String,
    },
    /// Tokens of everybody for these rooms: `app/name`, or `app/*`.
    Rooms(String),
}

/// For how long and for which tokens something is barred.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bar {
    /// Of a user's or a room's tokens, those issued before this time, in seconds since 1970; else 0.
    pub before_unix_s: u64,
    /// When the bar ends, in seconds since 1970; [`FOR_GOOD`] for never.
    pub until_unix_s: u64,
    /// When it was set, in seconds since 1970.
    pub set_unix_s: u64,
    /// Why, for whom it concerns; may be empty.
    pub reason: String,
}

impl Barred {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        let named = |what: &str, text: &str| match text.len() {
            1..=MAX_BARRED_BYTES => Ok(()),
            _ => Err(format!("{what} must have 1 to {MAX_BARRED_BYTES} bytes")),
        };
        match self {
            Self::Push(_) => Ok(()),
            Self::Token(id) => named("the token's jti", id),
            Self::User { user, rooms } => named("the user", user).and_then(|()| match &**rooms {
                "*" => Ok(()),
                rooms => named_rooms(rooms),
            }),
            Self::Rooms(rooms) => named_rooms(rooms),
        }
    }
}

/// Whether `rooms` is `app/name` or `app/*`.
fn named_rooms(rooms: &str) -> Result<(), String> {
    let named = match rooms.strip_suffix("/*") {
        // A room of that app is valid exactly when the app is.
        Some(app) => RoomId::new(app, "any"),
        None => RoomId::parse(rooms),
    };
    named.map(drop).map_err(|error| format!("room {rooms:?}: {error}"))
}

/// When and from where a publish key opens its room. The default is always, from anywhere, any number of
/// times.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyTerms {
    /// Not before this time, in seconds since 1970.
    pub from_unix_s: Option<u64>,
    /// Not from this time on, in seconds since 1970.
    pub until_unix_s: Option<u64>,
    /// For one push only.
    pub once: bool,
    /// Only from these networks; empty is from anywhere.
    pub networks: Vec<Network>,
}

impl KeyTerms {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        if self.networks.len() > MAX_KEY_NETWORKS {
            return Err(format!("a key has at most {MAX_KEY_NETWORKS} networks"));
        }
        match (self.from_unix_s, self.until_unix_s) {
            (Some(from), Some(until)) if from >= until => {
                Err("a key must begin to open before it ceases to".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Whether the key opens at `now_s` for a push from `address`, apart from having been used.
    #[must_use]
    pub fn judge(&self, now_s: u64, address: IpAddr) -> KeyVerdict {
        if self.from_unix_s.is_some_and(|from| now_s < from) {
            KeyVerdict::NotYet
        } else if self.until_unix_s.is_some_and(|until| now_s >= until) {
            KeyVerdict::Over
        } else if !self.networks.is_empty()
            && !self.networks.iter().any(|network| network.contains(address))
        {
            KeyVerdict::WrongAddress
        } else {
            KeyVerdict::Opens
        }
    }
}

/// What becomes of a push that brings a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyVerdict {
    /// It opens the room.
    Opens,
    /// The room has no such key.
    Unknown,
    /// It opens later.
    NotYet,
    /// Its time is over.
    Over,
    /// It was for one push, which has been.
    Used,
    /// It does not open for this address.
    WrongAddress,
}

/// A publish key as it may be shown, with its terms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyInFull {
    /// Its name, room and age.
    pub info: KeyInfo,
    /// Its terms.
    pub terms: KeyTerms,
    /// Whether it was for one push, which has been.
    pub is_used: bool,
}

/// Addresses that share their first bits (CIDR, RFC 4632). IPv4 addresses inside IPv6 are IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Whether `address` is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let ignored = 32 - u32::from(self.prefix.min(32));
                shifted(u32::from(own).into(), ignored) == shifted(u32::from(other).into(), ignored)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let ignored = 128 - u32::from(self.prefix.min(128));
                shifted(own.into(), ignored) == shifted(other.into(), ignored)
            }
            _ => false,
        }
    }
}

/// `bits` without the last `ignored`, which may be all of them.
fn shifted(bits: u128, ignored: u32) -> u128 {
    bits.checked_shr(ignored).unwrap_or(0)
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no network; write 203.0.113.0/24 or an address");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse::<u8>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let address = address.parse::<IpAddr>().map_err(|_| wrong())?.to_canonical();
        let most = if address.is_ipv4() { 32 } else { 128 };
        match prefix.unwrap_or(most) {
            prefix if prefix <= most => Ok(Self { address, prefix }),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn networks_hold_the_addresses_that_share_their_first_bits() {
        for (text, inside, outside) in [
            ("203.0.113.0/24", "203.0.113.9", "203.0.114.9"),
            ("203.0.113.7", "203.0.113.7", "203.0.113.6"),
            ("0.0.0.0/0", "8.8.8.8", "2001:db8::1"),
            ("2001:db8::/32", "2001:db8:1::9", "2001:db9::9"),
            ("::ffff:10.0.0.1", "10.0.0.1", "10.0.0.2"),
        ] {
            let network = network(text);
            assert!(network.contains(inside.parse().unwrap()), "{text}");
            assert!(!network.contains(outside.parse().unwrap()), "{text}");
        }
        assert!(network("10.0.0.0/8").contains("::ffff:10.1.2.3".parse().unwrap()));
        for foul in ["", "10.0.0.0/33", "10.0.0/8", "a/8", "::/129", "10.0.0.0/-1"] {
            assert!(foul.parse::<Network>().is_err(), "{foul}");
        }
        assert_eq!(network("10.1.2.3").to_string(), "10.1.2.3/32");
    }

    #[test]
    fn a_key_opens_by_its_terms() {
        let terms = KeyTerms {
            from_unix_s: Some(100),
            until_unix_s: Some(200),
            once: false,
            networks: vec![network("10.0.0.0/8")],
        };
        let judge = |now_s, address: &str| terms.judge(now_s, address.parse().unwrap());
        assert_eq!(judge(99, "10.0.0.1"), KeyVerdict::NotYet);
        assert_eq!(judge(100, "10.0.0.1"), KeyVerdict::Opens);
        assert_eq!(judge(199, "11.0.0.1"), KeyVerdict::WrongAddress);
        assert_eq!(judge(200, "10.0.0.1"), KeyVerdict::Over);
        assert!(terms.check().is_ok());
        assert!(KeyTerms { until_unix_s: Some(100), ..terms.clone() }.check().is_err());
        let many = vec![network("10.0.0.1"); MAX_KEY_NETWORKS + 1];
        assert!(KeyTerms { networks: many, ..terms }.check().is_err());
    }

    #[test]
    fn bars_name_what_there_can_be() {
        let user =
            |user: &str, rooms: &str| Barred::User { user: user.into(), rooms: rooms.into() };
        for good in [
            Barred::Token("j".into()),
            user("u7", "*"),
            user("u7", "live/*"),
            Barred::Rooms("live/c".into()),
        ] {
            assert_eq!(good.check(), Ok(()), "{good:?}");
        }
        for foul in [
            Barred::Token(String::new()),
            Barred::Token("x".repeat(MAX_BARRED_BYTES + 1)),
            user("", "*"),
            user("u7", "live"),
            Barred::Rooms("*".into()),
            Barred::Rooms("api/*".into()),
        ] {
            assert!(foul.check().is_err(), "{foul:?}");
        }
    }
}
