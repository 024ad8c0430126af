//! What members say, in both forms.
//!
//! In: payloads of frames. Out: [`Client`]. What a field may hold beyond its type is checked where it is
//! used.

use prost::Message;
use serde::{Deserialize, Serialize};

use super::{Empty, Mode, Position};

/// What a member says: one frame.
#[derive(Clone, PartialEq, prost::Oneof, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "lowercase")]
pub enum Client {
    /// The first frame.
    #[prost(message, tag = "1")]
    Hello(Hello),
    /// A message.
    #[prost(message, tag = "2")]
    Chat(Say),
    /// Likes, coalesced.
    #[prost(message, tag = "3")]
    Like(Like),
    /// A gift.
    #[prost(message, tag = "4")]
    Gift(Give),
    /// A sign of life.
    #[prost(message, tag = "5")]
    Pong(Empty),
    /// A moderator acts.
    #[prost(message, tag = "6")]
    Mod(Moderate),
    /// A newer token of the same member.
    #[prost(message, tag = "7")]
    Token(Renew),
    /// Who is here?
    #[prost(message, tag = "8")]
    Who(Who),
}

/// See [`Client::Hello`].
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
pub struct Hello {
    /// The protocol's version: 1.
    #[prost(uint32, tag = "1")]
    pub v: u32,
    /// `app/name`.
    #[prost(string, tag = "2")]
    pub room: String,
    /// Who the member is and what it may do.
    #[prost(string, optional, tag = "3")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// What the client can show.
    #[prost(string, repeated, tag = "4")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cap: Vec<String>,
    /// Where it left off.
    #[prost(message, optional, tag = "5")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pos: Option<Position>,
    /// A guest's secret: the same one is the same guest.
    #[prost(string, optional, tag = "6")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<String>,
    /// The name a guest wants.
    #[prost(string, optional, tag = "7")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<String>,
    /// The connection that this one replaces, as its welcome named it.
    #[prost(string, optional, tag = "8")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
}

/// See [`Client::Chat`].
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
pub struct Say {
    /// The client's id of it: the same again is the same message.
    #[prost(string, tag = "1")]
    pub c: String,
    /// Plain text.
    #[prost(string, tag = "2")]
    pub x: String,
    /// Stream time, in milliseconds.
    #[prost(uint64, optional, tag = "3")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pts: Option<u64>,
}

/// See [`Client::Like`].
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
pub struct Like {
    /// How many.
    #[prost(uint32, tag = "1")]
    pub n: u32,
}

/// See [`Client::Gift`].
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
pub struct Give {
    /// The client's id of it: the same again is the same gift.
    #[prost(string, tag = "1")]
    pub c: String,
    /// What.
    #[prost(string, tag = "2")]
    pub g: String,
    /// How many.
    #[prost(uint32, tag = "3")]
    pub n: u32,
    /// The shop's order.
    #[prost(string, optional, tag = "4")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<String>,
}

/// See [`Client::Mod`]. Which fields count depends on the act.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
pub struct Moderate {
    /// The client's id of it.
    #[prost(string, tag = "1")]
    pub c: String,
    /// `delete clear mute ban pardon kick mode pin set approve reject`.
    #[prost(string, tag = "2")]
    pub a: String,
    /// Of `delete`, `approve`, `reject`: items.
    #[prost(string, repeated, tag = "3")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// Of `clear`, `mute`, `ban`, `pardon`, `kick`: the user.
    #[prost(string, optional, tag = "4")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Of `mute` and `ban`: for how many seconds; without it until a pardon.
    #[prost(uint32, optional, tag = "5")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s: Option<u32>,
    /// Of `mute` and `ban`: the address the user spoke from, too.
    #[prost(bool, optional, tag = "6")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net: Option<bool>,
    /// Of `mode`.
    #[prost(message, optional, tag = "7")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Of `set`: the key.
    #[prost(string, optional, tag = "8")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k: Option<String>,
    /// Of `set` and `pin`: the value; empty takes it away.
    #[prost(string, optional, tag = "9")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v: Option<String>,
}

/// See [`Client::Token`].
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
pub struct Renew {
    /// The client's id of it.
    #[prost(string, tag = "1")]
    pub c: String,
    /// The token.
    #[prost(string, tag = "2")]
    pub token: String,
}

/// See [`Client::Who`].
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
pub struct Who {
    /// The client's id of it.
    #[prost(string, tag = "1")]
    pub c: String,
}
