//! How much an item matters when not all can be sent, and how a refusal is called.

use serde::{Deserialize, Serialize};

use super::{Body, Item, Role};

/// How much an item matters: what is lower is shed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Deletions, modes, the stream's life: never shed.
    Control = 0,
    /// Gifts.
    Money = 1,
    /// The host and moderators.
    Trusted = 2,
    /// Everybody else's messages.
    Chat = 3,
    /// Arrivals, counters.
    Ambient = 4,
}

impl Lane {
    /// All of them, by number.
    pub const ALL: [Self; 5] =
        [Self::Control, Self::Money, Self::Trusted, Self::Chat, Self::Ambient];

    /// The number under which `d` counts it.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The value of the label `lane`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Money => "money",
            Self::Trusted => "trusted",
            Self::Chat => "chat",
            Self::Ambient => "ambient",
        }
    }
}

impl Item {
    /// The lane it goes in.
    #[must_use]
    pub fn lane(&self) -> Lane {
        match &self.body {
            Some(Body::Gift(_)) => Lane::Money,
            Some(Body::Chat(chat)) => match chat.u.as_ref().map(|user| user.r()) {
                Some(Role::Mod | Role::Host) => Lane::Trusted,
                _ => Lane::Chat,
            },
            Some(Body::Join(_)) => Lane::Ambient,
            Some(Body::Del(_) | Body::Clear(_) | Body::Set(_) | Body::Stream(_)) | None => {
                Lane::Control
            }
        }
    }

    /// Who said or gave it.
    #[must_use]
    pub fn author(&self) -> Option<&str> {
        let user = match &self.body {
            Some(Body::Chat(chat)) => chat.u.as_ref(),
            Some(Body::Gift(gift)) => gift.u.as_ref(),
            _ => None,
        };
        user.map(|user| user.id.as_str())
    }
}

/// Why something was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are the protocol's; docs/rooms.md says what each means")]
pub enum Code {
    BadRequest,
    Unauthorised,
    Forbidden,
    Muted,
    SlowMode,
    RateLimited,
    Duplicate,
    TooLong,
    Filtered,
    ModeRefused,
    UnknownGift,
    BadOrder,
    Unavailable,
}

impl Code {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::BadRequest,
        Self::Unauthorised,
        Self::Forbidden,
        Self::Muted,
        Self::SlowMode,
        Self::RateLimited,
        Self::Duplicate,
        Self::TooLong,
        Self::Filtered,
        Self::ModeRefused,
        Self::UnknownGift,
        Self::BadOrder,
        Self::Unavailable,
    ];

    /// As the protocol writes it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Unauthorised => "unauthorised",
            Self::Forbidden => "forbidden",
            Self::Muted => "muted",
            Self::SlowMode => "slow_mode",
            Self::RateLimited => "rate_limited",
            Self::Duplicate => "duplicate",
            Self::TooLong => "too_long",
            Self::Filtered => "filtered",
            Self::ModeRefused => "mode_refused",
            Self::UnknownGift => "unknown_gift",
            Self::BadOrder => "bad_order",
            Self::Unavailable => "unavailable",
        }
    }
}
