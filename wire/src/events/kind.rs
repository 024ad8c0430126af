//! The closed sets of the events: what happened, with what program, from what network.
//!
//! In: bytes of a message. Out: names for the store, for exports and metrics. Each is a number rather
//! than an enum, so that a store keeps what a newer node says, under a name of its own.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

/// What happened. Append-only; a number is never given to another use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventKind(pub u8);

#[expect(missing_docs, reason = "the names say what happened")]
impl EventKind {
    pub const JOIN: Self = Self(0);
    pub const LEAVE: Self = Self(1);
    pub const PUBLISH: Self = Self(2);
    pub const UNPUBLISH: Self = Self(3);
    pub const CHAT: Self = Self(4);
    pub const GIFT: Self = Self(5);
    pub const MODERATION: Self = Self(6);
    pub const ROOM_START: Self = Self(7);
    pub const ROOM_END: Self = Self(8);
    pub const AUDIT: Self = Self(9);

    /// Every kind this build knows, in the order of their numbers.
    pub const NAMES: [&'static str; 10] = [
        "join",
        "leave",
        "publish",
        "unpublish",
        "chat",
        "gift",
        "moderation",
        "room_start",
        "room_end",
        "audit",
    ];

    /// Its name; `other` for one this build does not know.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.get(usize::from(self.0)).copied().unwrap_or("other")
    }
}

/// The kind of program a user has. Append-only.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct ClientKind(pub u8);

#[expect(missing_docs, reason = "the names say what it is")]
impl ClientKind {
    pub const OTHER: Self = Self(0);
    pub const WEB: Self = Self(1);
    pub const MINI_PROGRAM: Self = Self(2);
    pub const APP: Self = Self(3);
    pub const BOT: Self = Self(4);
    pub const SERVER: Self = Self(5);
    pub const ENCODER: Self = Self(6);

    const NAMES: [&'static str; 7] =
        ["other", "web", "miniprogram", "app", "bot", "server", "encoder"];

    /// The kind of this name; [`Self::OTHER`] for a name that is none.
    #[must_use]
    pub fn by_name(name: &str) -> Self {
        by_name(&Self::NAMES, name).map_or(Self::OTHER, Self)
    }

    /// Its name; `other` for one this build does not know.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.get(usize::from(self.0)).copied().unwrap_or("other")
    }
}

/// The kind of network an address is in: what is kept instead of the address. Append-only.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct AddressClass(pub u8);

#[expect(missing_docs, reason = "the names say what it is")]
impl AddressClass {
    pub const NONE: Self = Self(0);
    pub const LOOPBACK: Self = Self(1);
    pub const PRIVATE: Self = Self(2);
    pub const V4: Self = Self(3);
    pub const V6: Self = Self(4);

    const NAMES: [&'static str; 5] = ["none", "loopback", "private", "v4", "v6"];

    /// The class of this name; [`Self::NONE`] for a name that is none.
    #[must_use]
    pub fn by_name(name: &str) -> Self {
        by_name(&Self::NAMES, name).map_or(Self::NONE, Self)
    }

    /// The class of an address. Carrier-grade NAT (RFC 6598) counts as public: its users are.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
                Self::of(v6.to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED).into())
            }
            address if address.is_unspecified() => Self::NONE,
            address if address.is_loopback() => Self::LOOPBACK,
            IpAddr::V4(v4) if v4.is_private() || v4.is_link_local() => Self::PRIVATE,
            IpAddr::V6(v6) if v6.is_unique_local() || v6.is_unicast_link_local() => Self::PRIVATE,
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Its name; `other` for one this build does not know.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.get(usize::from(self.0)).copied().unwrap_or("other")
    }
}

fn by_name(names: &[&str], name: &str) -> Option<u8> {
    names.iter().position(|known| *known == name).and_then(|at| u8::try_from(at).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_their_names() {
        assert_eq!(EventKind::NAMES[usize::from(EventKind::AUDIT.0)], "audit");
        assert_eq!(EventKind::UNPUBLISH.name(), "unpublish");
        assert_eq!(EventKind(200).name(), "other");
        assert_eq!(ClientKind::by_name("miniprogram"), ClientKind::MINI_PROGRAM);
        assert_eq!(ClientKind::by_name("toaster"), ClientKind::OTHER);
        assert_eq!(AddressClass::by_name("v6"), AddressClass::V6);
        assert_eq!(ClientKind::SERVER.name(), "server");
    }

    #[test]
    fn addresses_have_their_class() {
        for (address, class) in [
            ("0.0.0.0", AddressClass::NONE),
            ("127.0.0.3", AddressClass::LOOPBACK),
            ("::1", AddressClass::LOOPBACK),
            ("10.1.2.3", AddressClass::PRIVATE),
            ("::ffff:192.168.1.1", AddressClass::PRIVATE),
            ("fd00::1", AddressClass::PRIVATE),
            ("fe80::1", AddressClass::PRIVATE),
            ("100.64.0.1", AddressClass::V4),
            ("2001:db8::1", AddressClass::V6),
        ] {
            assert_eq!(AddressClass::of(address.parse().unwrap()), class, "{address}");
        }
    }
}
