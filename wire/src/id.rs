//! The names nodes use for things: rooms, nodes, regions, clusters, epochs.
//!
//! In: text from RTMP, HTTP, configuration and other nodes. Out: values that are valid by
//! construction, so that no later code checks a name again. Every constructor and every serde
//! decoder validates; an invalid id cannot be built.
//!
//! Does not say where a room is (that is placement) nor what a number means to media (the media
//! crate has its own sequence types; nothing of it is visible here).

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Longest app or name part of a room, in bytes.
pub const MAX_ROOM_PART_BYTES: usize = 64;
/// Longest node id, in bytes: one DNS label (RFC 1035 section 2.3.4), as it is a certificate's SAN.
pub const MAX_NODE_ID_BYTES: usize = 63;
/// Longest region label, in bytes.
pub const MAX_REGION_BYTES: usize = 63;
/// The app of a room named without one.
pub const DEFAULT_APP: &str = "live";
/// Apps that no room may use, because the viewer and admin HTTP routes live under these names.
pub const RESERVED_APPS: [&str; 10] =
    ["api", "assets", "console", "healthz", "metrics", "readyz", "route", "sse", "watch", "ws"];
/// Endings that a room part may not have, because they end the URLs of a room's resources.
pub const RESERVED_SUFFIXES: [&str; 2] = [".m3u8", ".flv"];

/// A room: `app/name`, case-sensitive.
///
/// Each part is 1–64 of `[A-Za-z0-9._-]`, starts with a letter or digit, and does not end in
/// `.m3u8` or `.flv`; the app is not one of [`RESERVED_APPS`]. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoomId {
    /// `app/name`. First, so that the derived order is that of the text.
    text: Arc<str>,
    /// Bytes of the app, i.e. the position of the slash.
    app_bytes: usize,
}

impl RoomId {
    /// The room `name` of `app`.
    ///
    /// # Errors
    /// [`IdError`] names the part and what is wrong with it.
    pub fn new(app: &str, name: &str) -> Result<Self, IdError> {
        check_room_part("app", app)?;
        check_room_part("room name", name)?;
        if RESERVED_APPS.contains(&app) {
            return Err(IdError::ReservedApp { app: app.to_owned() });
        }
        let mut text = String::with_capacity(app.len() + 1 + name.len());
        text.push_str(app);
        text.push('/');
        text.push_str(name);
        Ok(Self { text: text.into(), app_bytes: app.len() })
    }

    /// Reads `app/name`.
    ///
    /// # Errors
    /// [`IdError::NoSlash`] without a slash; else as [`RoomId::new`].
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let (app, name) = text.split_once('/').ok_or(IdError::NoSlash)?;
        Self::new(app, name)
    }

    /// The part before the slash.
    #[must_use]
    pub fn app(&self) -> &str {
        &self.text[..self.app_bytes]
    }

    /// The part after the slash.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.text[self.app_bytes + 1..]
    }

    /// `app/name`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// A node of the cluster: 1–63 of `[a-z0-9-]`, starting and ending with a letter or digit, not
/// digits alone. That is a DNS label which no TLS library takes for an address, since the node's
/// certificate carries it as its SAN. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// Reads a node id.
    ///
    /// # Errors
    /// [`IdError`] names what is wrong.
    pub fn new(text: &str) -> Result<Self, IdError> {
        const WHAT: &str = "node id";
        check_length(WHAT, text, MAX_NODE_ID_BYTES)?;
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        check_characters(WHAT, text, "a-z 0-9 -", allowed)?;
        check_start(WHAT, text)?;
        if text.ends_with('-') {
            return Err(IdError::BadEnd { what: WHAT, suffix: "-" });
        }
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(IdError::OnlyDigits { what: WHAT });
        }
        Ok(Self(text.into()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where a node stands, as the operator names it: 1–63 of `[A-Za-z0-9._-]`, starting with a letter
/// or digit. Placement only compares regions for equality. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Region(Arc<str>);

impl Region {
    /// Reads a region label.
    ///
    /// # Errors
    /// [`IdError`] names what is wrong.
    pub fn new(text: &str) -> Result<Self, IdError> {
        const WHAT: &str = "region";
        check_length(WHAT, text, MAX_REGION_BYTES)?;
        check_characters(WHAT, text, ROOM_ALPHABET, is_room_character)?;
        check_start(WHAT, text)?;
        Ok(Self(text.into()))
    }

    /// The label as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Region {
    /// `default`: a cluster that never names a region has one.
    fn default() -> Self {
        Self("default".into())
    }
}

/// The Raft log index of the grant under which a home serves a room: unique for ever in a cluster,
/// and it only goes up. 0 is no epoch.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

/// How often a room has been created anew: a room that was removed and comes back under the same
/// name has a higher generation, so that nothing kept from the former one is taken for its own.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Generation(pub u64);

/// A cluster, for its whole life: 128 random bits, written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(u128);

impl ClusterId {
    /// A new id from the operating system's random source.
    ///
    /// # Errors
    /// [`IdError::NoRandomness`] if the operating system gives none.
    pub fn random() -> Result<Self, IdError> {
        let mut bytes = [0; 16];
        SystemRandom::new().fill(&mut bytes).map_err(|_| IdError::NoRandomness)?;
        Ok(Self(u128::from_be_bytes(bytes)))
    }

    /// The id with these bits, for stores and seeded tests.
    #[must_use]
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// The bits of the id.
    #[must_use]
    pub const fn bits(self) -> u128 {
        self.0
    }
}

/// Why text is not the id it was given as. Safe to log: quoted input is escaped and short.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// There is no text.
    #[error("{what} is empty")]
    Empty {
        /// Which id or part.
        what: &'static str,
    },
    /// The text is over the limit.
    #[error("{what} has {bytes} bytes, over the limit of {limit}")]
    TooLong {
        /// Which id or part.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The longest allowed.
        limit: usize,
    },
    /// A character is not one of the allowed ones.
    #[error("{what} contains {found:?}; allowed are {allowed}")]
    BadCharacter {
        /// Which id or part.
        what: &'static str,
        /// The first character not allowed.
        found: char,
        /// The allowed ones, for a person.
        allowed: &'static str,
    },
    /// The first character may stand in the text, but not at its start.
    #[error("{what} starts with {found:?}; it must start with a letter or digit")]
    BadStart {
        /// Which id or part.
        what: &'static str,
        /// The first character.
        found: char,
    },
    /// The text ends as it must not.
    #[error("{what} must not end in {suffix:?}")]
    BadEnd {
        /// Which id or part.
        what: &'static str,
        /// The ending found.
        suffix: &'static str,
    },
    /// A node id of digits alone would be taken for an address by TLS libraries.
    #[error("{what} has digits only; it needs at least one letter")]
    OnlyDigits {
        /// Which id.
        what: &'static str,
    },
    /// The app is the name of an HTTP route.
    #[error("app {app:?} is reserved; reserved are {}", RESERVED_APPS.join(" "))]
    ReservedApp {
        /// The app.
        app: String,
    },
    /// A room without a slash.
    #[error("room has no \"/\"; a room is app/name, as in live/demo")]
    NoSlash,
    /// A cluster id is not 32 hexadecimal digits.
    #[error("cluster id is not 32 hexadecimal digits")]
    NotHex,
    /// The operating system gave no random bytes.
    #[error("the operating system's random source failed")]
    NoRandomness,
}

const ROOM_ALPHABET: &str = "A-Z a-z 0-9 . _ -";

fn is_room_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

fn check_room_part(what: &'static str, text: &str) -> Result<(), IdError> {
    check_length(what, text, MAX_ROOM_PART_BYTES)?;
    check_characters(what, text, ROOM_ALPHABET, is_room_character)?;
    check_start(what, text)?;
    match RESERVED_SUFFIXES.iter().find(|suffix| text.ends_with(**suffix)) {
        Some(suffix) => Err(IdError::BadEnd { what, suffix }),
        None => Ok(()),
    }
}

fn check_length(what: &'static str, text: &str, limit: usize) -> Result<(), IdError> {
    match text.len() {
        0 => Err(IdError::Empty { what }),
        bytes if bytes > limit => Err(IdError::TooLong { what, bytes, limit }),
        _ => Ok(()),
    }
}

fn check_characters(
    what: &'static str,
    text: &str,
    allowed: &'static str,
    is_allowed: impl Fn(char) -> bool,
) -> Result<(), IdError> {
    match text.chars().find(|c| !is_allowed(*c)) {
        Some(found) => Err(IdError::BadCharacter { what, found, allowed }),
        None => Ok(()),
    }
}

fn check_start(what: &'static str, text: &str) -> Result<(), IdError> {
    match text.chars().next() {
        Some(c) if c.is_ascii_alphanumeric() => Ok(()),
        Some(found) => Err(IdError::BadStart { what, found }),
        None => Err(IdError::Empty { what }),
    }
}

// === text, hash and serde forms ===

impl std::hash::Hash for RoomId {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        // The text alone, as `Borrow<str>` demands.
        self.text.hash(state);
    }
}

impl FromStr for ClusterId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        // `from_str_radix` would also take a sign.
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(IdError::NotHex);
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| IdError::NotHex)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ClusterId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for RoomId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::parse(text)
    }
}

impl FromStr for NodeId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::new(text)
    }
}

impl FromStr for Region {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::new(text)
    }
}

/// Visits a string and parses it, for the ids whose serde form is their text.
struct TextVisitor<T>(std::marker::PhantomData<T>);

impl<T: FromStr<Err = IdError>> de::Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id as text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

macro_rules! deserialize_from_text {
    ($($id:ty),*) => {$(
        impl<'de> Deserialize<'de> for $id {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(TextVisitor(std::marker::PhantomData))
            }
        }
    )*};
}

deserialize_from_text!(RoomId, NodeId, Region, ClusterId);

macro_rules! text_forms {
    ($($id:ty),*) => {$(
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
        impl AsRef<str> for $id {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }
        impl Borrow<str> for $id {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }
        impl Serialize for $id {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    )*};
}

text_forms!(RoomId, NodeId, Region);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_room_has_an_app_and_a_name() {
        let room = RoomId::parse("live/Demo_1.x-2").unwrap();
        assert_eq!((room.app(), room.name()), ("live", "Demo_1.x-2"));
        assert_eq!(room.to_string(), "live/Demo_1.x-2");
        assert_eq!(room, RoomId::new("live", "Demo_1.x-2").unwrap());
        assert_ne!(room, RoomId::new("live", "demo_1.x-2").unwrap(), "rooms are case-sensitive");
    }

    #[test]
    fn each_bad_room_says_what_is_wrong() {
        let long = "a".repeat(65);
        let cases = [
            ("demo", "room has no \"/\"; a room is app/name, as in live/demo"),
            ("/demo", "app is empty"),
            ("live/", "room name is empty"),
            ("live/a/b", "room name contains '/'; allowed are A-Z a-z 0-9 . _ -"),
            ("live/.a", "room name starts with '.'; it must start with a letter or digit"),
            ("_live/a", "app starts with '_'; it must start with a letter or digit"),
            ("live/a\n", "room name contains '\\n'; allowed are A-Z a-z 0-9 . _ -"),
            ("live/é", "room name contains 'é'; allowed are A-Z a-z 0-9 . _ -"),
            ("live/a.m3u8", "room name must not end in \".m3u8\""),
            ("a.flv/a", "app must not end in \".flv\""),
        ];
        for (text, message) in cases {
            assert_eq!(RoomId::parse(text).unwrap_err().to_string(), message, "{text:?}");
        }
        let error = RoomId::new("live", &long).unwrap_err().to_string();
        assert_eq!(error, "room name has 65 bytes, over the limit of 64");
        assert!(RoomId::new("live", &long[1..]).is_ok());
        for app in RESERVED_APPS {
            assert!(matches!(RoomId::new(app, "a"), Err(IdError::ReservedApp { .. })), "{app}");
        }
    }

    #[test]
    fn node_ids_are_dns_labels() {
        for good in ["o1", "edge-eu-1", "1a", "a"] {
            assert_eq!(NodeId::new(good).unwrap().as_str(), good);
            rustls_pki_types::DnsName::try_from(good).expect("usable as a DNS SAN");
        }
        let long = "a".repeat(64);
        for bad in ["", "O1", "-a", "a-", "a.b", "a_b", "17", "é", long.as_str()] {
            assert!(NodeId::new(bad).is_err(), "{bad:?}");
        }
        assert!(NodeId::new(&long[1..]).is_ok());
    }

    #[test]
    fn a_map_of_rooms_can_be_asked_with_text() {
        let rooms = HashMap::from([(RoomId::parse("live/demo").unwrap(), 1)]);
        assert_eq!(rooms.get("live/demo"), Some(&1));
    }

    #[test]
    fn cluster_ids_are_32_hex_digits() {
        let id: ClusterId = "00000000000000000000000000abcdef".parse().unwrap();
        assert_eq!(id, ClusterId::from_bits(0xab_cdef));
        assert_eq!(id.to_string(), "00000000000000000000000000abcdef");
        for bad in ["", "abcdef", "+0000000000000000000000000abcdef", "zz"] {
            assert_eq!(bad.parse::<ClusterId>(), Err(IdError::NotHex), "{bad:?}");
        }
        assert_ne!(ClusterId::random().unwrap(), ClusterId::random().unwrap());
    }

    #[test]
    fn serde_forms_are_text_and_validated() {
        let room = RoomId::parse("live/demo").unwrap();
        let bytes = postcard::to_allocvec(&room).unwrap();
        assert_eq!(bytes, b"\x09live/demo");
        assert_eq!(postcard::from_bytes::<RoomId>(&bytes).unwrap(), room);
        assert!(postcard::from_bytes::<RoomId>(b"\x08api/demo").is_err());
        assert!(postcard::from_bytes::<NodeId>(b"\x02O1").is_err());
        let id = ClusterId::from_bits(1);
        let bytes = postcard::to_allocvec(&id).unwrap();
        assert_eq!(postcard::from_bytes::<ClusterId>(&bytes).unwrap(), id);
        assert_eq!(postcard::to_allocvec(&Epoch(300)).unwrap(), [0xac, 0x02]);
    }

    proptest! {
        #[test]
        fn every_valid_room_survives_its_text(
            app in "[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
            name in "[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
        ) {
            let reserved = RESERVED_APPS.contains(&app.as_str())
                || RESERVED_SUFFIXES.iter().any(|s| app.ends_with(s) || name.ends_with(s));
            match RoomId::new(&app, &name) {
                Ok(room) => {
                    prop_assert!(!reserved);
                    prop_assert_eq!(room.app(), app);
                    prop_assert_eq!(room.name(), name);
                    prop_assert_eq!(RoomId::parse(room.as_str()).unwrap(), room);
                }
                Err(error) => prop_assert!(reserved, "{}", error),
            }
        }

        #[test]
        fn any_text_parses_or_errs(text in ".{0,200}") {
            let _ = RoomId::parse(&text);
            let _ = Region::new(&text);
            if let Ok(node) = NodeId::new(&text) {
                prop_assert!(rustls_pki_types::DnsName::try_from(node.as_str()).is_ok());
            }
        }
    }
}
