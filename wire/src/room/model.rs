//! The room protocol as members see it: `tidewater.v1.json` and `tidewater.v1.pb` from one set of types.
//!
//! Each type derives both forms, with the same field names; `docs/rooms.proto` says the same to others.
//! Unknown fields are ignored in both. Strings and lists are bounded by the frame they come in; what a
//! field may hold beyond its type is checked where it is used.

use std::collections::BTreeMap;

use prost::Message;
use serde::{Deserialize, Deserializer, Serialize};

use crate::Epoch;

/// Who said it.
#[derive(Clone, PartialEq, Eq, Hash, Message, Serialize, Deserialize)]
pub struct User {
    /// Opaque.
    #[prost(string, tag = "1")]
    pub id: String,
    /// A name to show.
    #[prost(string, tag = "2")]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub n: String,
    /// A [`Role`].
    #[prost(enumeration = "Role", tag = "3")]
    #[serde(default, with = "role_name")]
    pub r: i32,
    /// A level, where the application has such.
    #[prost(uint32, optional, tag = "4")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lv: Option<u32>,
}

/// What a member may do.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    prost::Enumeration,
    Serialize,
    Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[repr(i32)]
pub enum Role {
    /// Came without a token.
    Guest = 0,
    /// Has a token.
    Member = 1,
    /// Moderates.
    Mod = 2,
    /// The streamer.
    Host = 3,
}

mod role_name {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Role;

    pub(super) fn serialize<S: Serializer>(r: &i32, s: S) -> Result<S::Ok, S::Error> {
        Role::try_from(*r).unwrap_or(Role::Guest).serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<i32, D::Error> {
        Role::deserialize(d).map(i32::from)
    }
}

/// A place in a room's order.
#[derive(Clone, PartialEq, Eq, Hash, Message, Serialize, Deserialize)]
pub struct Position {
    /// The home's epoch, opaque to clients: see [`Position::new`].
    #[prost(string, tag = "1")]
    pub e: String,
    /// The offset.
    #[prost(uint64, tag = "2")]
    pub o: u64,
}

impl Position {
    /// A place under an epoch, which is written in base 36.
    #[must_use]
    pub fn new(epoch: Epoch, offset: u64) -> Self {
        Self { e: base36(epoch.0), o: offset }
    }

    /// The epoch, if it can be one.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        u64::from_str_radix(&self.e, 36).ok().map(Epoch)
    }
}

/// A number in base 36, as it stands in ids and positions.
#[must_use]
pub fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % 36) as usize]);
        number /= 36;
        if number == 0 {
            break;
        }
    }
    digits.iter().rev().map(|&digit| char::from(digit)).collect()
}

/// Something that happened in the room.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
pub struct Item {
    /// What.
    #[prost(oneof = "Body", tags = "10, 11, 12, 13, 14, 15, 16")]
    #[serde(flatten)]
    pub body: Option<Body>,
    /// Unique in the room, opaque. An item seen twice has the same.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Its offset; absent from what is shown only on one edge.
    #[prost(uint64, optional, tag = "2")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub o: Option<u64>,
    /// When the home took it, in milliseconds since 1970.
    #[prost(uint64, tag = "3")]
    pub ts: u64,
}

/// What an item tells.
#[derive(Clone, PartialEq, prost::Oneof, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "lowercase")]
pub enum Body {
    /// Somebody said something.
    #[prost(message, tag = "10")]
    Chat(Chat),
    /// Somebody gave something.
    #[prost(message, tag = "11")]
    Gift(Gift),
    /// Somebody came.
    #[prost(message, tag = "12")]
    Join(Join),
    /// Items are taken back.
    #[prost(message, tag = "13")]
    Del(Del),
    /// Everything of one user is taken back.
    #[prost(message, tag = "14")]
    Clear(Clear),
    /// A key of the room's state has a new value.
    #[prost(message, tag = "15")]
    Set(Set),
    /// The stream began, paused or ended.
    #[prost(message, tag = "16")]
    Stream(Stream),
}

/// See [`Body::Chat`].
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
pub struct Chat {
    /// Who.
    #[prost(message, optional, tag = "1")]
    pub u: Option<User>,
    /// Plain text.
    #[prost(string, tag = "2")]
    pub x: String,
    /// Stream time at the sender, in milliseconds.
    #[prost(uint64, optional, tag = "3")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pts: Option<u64>,
    /// How often it was said, when others said the same.
    #[prost(uint32, optional, tag = "4")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<u32>,
}

/// See [`Body::Gift`].
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
pub struct Gift {
    /// Who.
    #[prost(message, optional, tag = "1")]
    pub u: Option<User>,
    /// What.
    #[prost(string, tag = "2")]
    pub g: String,
    /// How many, in all of a combo so far.
    #[prost(uint32, tag = "3")]
    pub n: u32,
    /// The combo it goes on.
    #[prost(string, optional, tag = "4")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub combo: Option<String>,
    /// How long the combo stays open, in milliseconds.
    #[prost(uint32, optional, tag = "5")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<u32>,
}

/// See [`Body::Join`]: one user, or how many.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
pub struct Join {
    /// Who, where each is told.
    #[prost(message, optional, tag = "1")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub u: Option<User>,
    /// How many, where they are merged.
    #[prost(uint32, optional, tag = "2")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<u32>,
}

/// See [`Body::Del`].
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
pub struct Del {
    /// Ids of items.
    #[prost(string, repeated, tag = "1")]
    pub ids: Vec<String>,
}

/// See [`Body::Clear`].
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
pub struct Clear {
    /// The user.
    #[prost(string, tag = "1")]
    pub uid: String,
}

/// See [`Body::Set`]. Under the key `mode`, the value is the JSON of [`Mode`]; under `pin`, a text.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
pub struct Set {
    /// The key.
    #[prost(string, tag = "1")]
    pub k: String,
    /// Its value; empty takes it away.
    #[prost(string, tag = "2")]
    pub v: String,
    /// Its version, higher each time.
    #[prost(uint64, tag = "3")]
    pub ver: u64,
}

/// See [`Body::Stream`].
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
pub struct Stream {
    /// `live`, `gap` or `ended`.
    #[prost(string, tag = "1")]
    pub s: String,
}

/// Who may say what. Each restricts when it is set.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
#[serde(default)]
pub struct Mode {
    /// Seconds between two messages of one user; 0 is off.
    #[prost(uint32, tag = "1")]
    pub slow_s: u32,
    /// Only followers talk.
    #[prost(bool, tag = "2")]
    pub followers: bool,
    /// Only members talk.
    #[prost(bool, tag = "3")]
    pub members: bool,
    /// Only emotes.
    #[prost(bool, tag = "4")]
    pub emotes: bool,
    /// No links.
    #[prost(bool, tag = "5")]
    pub links: bool,
}

/// What a server says: one frame.
#[derive(Clone, PartialEq, prost::Oneof, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "lowercase")]
pub enum Server {
    /// The answer to a hello.
    #[prost(message, boxed, tag = "1")]
    Welcome(Box<Welcome>),
    /// What was sent has its place.
    #[prost(message, tag = "2")]
    Ok(Accepted),
    /// What was sent waits for a moderator.
    #[prost(message, tag = "3")]
    Held(Held),
    /// What was sent was refused.
    #[prost(message, tag = "4")]
    Err(Refused),
    /// A tick's batch.
    #[prost(message, tag = "5")]
    B(Batch),
    /// Asks for a sign of life.
    #[prost(message, tag = "6")]
    Ping(Empty),
    /// The last frame.
    #[prost(message, tag = "7")]
    Bye(Bye),
    /// Who is here: the answer to [`Client::Who`].
    #[prost(message, tag = "8")]
    Who(People),
}

/// A frame without fields.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
pub struct Empty {}

/// See [`Server::Welcome`].
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
pub struct Welcome {
    /// Names this connection.
    #[prost(string, tag = "1")]
    pub sid: String,
    /// Who the member is.
    #[prost(string, tag = "2")]
    pub uid: String,
    /// Milliseconds between two pings.
    #[prost(uint32, tag = "3")]
    pub hb: u32,
    /// The server's clock, in milliseconds since 1970.
    #[prost(uint64, tag = "4")]
    pub now: u64,
    /// Where the room is.
    #[prost(message, optional, tag = "5")]
    pub pos: Option<Position>,
    /// Whether `m` has all that was missed.
    #[prost(bool, tag = "6")]
    pub recovered: bool,
    /// Limits of this member.
    #[prost(message, optional, tag = "7")]
    pub lim: Option<Limits>,
    /// The room, unless it was resumed.
    #[prost(message, optional, tag = "8")]
    pub state: Option<State>,
    /// What was missed.
    #[prost(message, repeated, tag = "9")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub m: Vec<Item>,
    /// Missed items left out, by lane.
    #[prost(btree_map = "uint32, uint32", tag = "10")]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "counts")]
    pub d: BTreeMap<u32, u32>,
    /// Other edges to go to, best first.
    #[prost(string, repeated, tag = "11")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edges: Vec<String>,
    /// Counters as of now.
    #[prost(message, optional, tag = "12")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s: Option<Stats>,
    /// What the member may do: `chat` (and like), `gift`, `moderate`.
    #[prost(string, repeated, tag = "13")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub may: Vec<String>,
    /// When the member's token ends, in milliseconds since 1970.
    #[prost(uint64, optional, tag = "14")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

/// What a member may send.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
pub struct Limits {
    /// Milliseconds between two messages.
    #[prost(uint32, tag = "1")]
    pub chat_ms: u32,
    /// Code points of a message.
    #[prost(uint32, tag = "2")]
    pub len: u32,
    /// Messages in ten seconds.
    #[prost(uint32, tag = "3")]
    pub rate: u32,
}

/// The room as a newcomer is shown it.
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
pub struct State {
    /// Whether somebody streams.
    #[prost(bool, tag = "1")]
    pub live: bool,
    /// Who may say what.
    #[prost(message, optional, tag = "2")]
    pub mode: Option<Mode>,
    /// The pinned text.
    #[prost(string, optional, tag = "3")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<String>,
    /// The other keys.
    #[prost(btree_map = "string, message", tag = "4")]
    #[serde(default)]
    pub kv: BTreeMap<String, Value>,
    /// The newest messages, at most 50.
    #[prost(message, repeated, tag = "5")]
    #[serde(default)]
    pub chat: Vec<Item>,
    /// Gifts of the last ten minutes.
    #[prost(message, repeated, tag = "6")]
    #[serde(default)]
    pub paid: Vec<Item>,
}

/// A value of the room's state.
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
pub struct Value {
    /// The value.
    #[prost(string, tag = "1")]
    pub v: String,
    /// Its version.
    #[prost(uint64, tag = "2")]
    pub ver: u64,
}

/// See [`Server::Ok`].
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
pub struct Accepted {
    /// The client's id of it.
    #[prost(string, tag = "1")]
    pub c: String,
    /// The item's id; empty where what was asked for is no item: an act of a moderator, a new token.
    #[prost(string, tag = "2")]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Its offset, if it has one.
    #[prost(uint64, optional, tag = "3")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub o: Option<u64>,
    /// Who sees it: `full` all, `sampled` a part of them, `local` a part of those on this edge.
    #[prost(string, tag = "4")]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub f: String,
}

/// See [`Server::Who`].
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
pub struct People {
    /// The client's id of the question.
    #[prost(string, tag = "1")]
    pub c: String,
    /// Host and moderators first; of a large room a part.
    #[prost(message, repeated, tag = "2")]
    #[serde(default)]
    pub u: Vec<User>,
    /// Members in all.
    #[prost(uint64, tag = "3")]
    pub on: u64,
}

/// See [`Server::Held`].
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
pub struct Held {
    /// The client's id of it.
    #[prost(string, tag = "1")]
    pub c: String,
}

/// See [`Server::Err`].
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
pub struct Refused {
    /// The client's id of what is refused, if it had one.
    #[prost(string, optional, tag = "1")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub c: Option<String>,
    /// A [`Code`].
    #[prost(string, tag = "2")]
    pub code: String,
    /// When to try again, in milliseconds.
    #[prost(uint32, optional, tag = "3")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_ms: Option<u32>,
}

/// See [`Server::B`].
#[derive(Clone, PartialEq, Message, Serialize, Deserialize)]
pub struct Batch {
    /// The highest offset covered.
    #[prost(uint64, tag = "1")]
    pub o: u64,
    /// What happened.
    #[prost(message, repeated, tag = "2")]
    #[serde(default)]
    pub m: Vec<Item>,
    /// Counters, when they changed.
    #[prost(message, optional, tag = "3")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s: Option<Stats>,
    /// Items left out, by lane.
    #[prost(btree_map = "uint32, uint32", tag = "4")]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "counts")]
    pub d: BTreeMap<u32, u32>,
    /// The epoch of positions from here on, in the first batch after it changed.
    #[prost(string, optional, tag = "5")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e: Option<String>,
}

/// A room's counters.
#[derive(Clone, Copy, PartialEq, Eq, Message, Serialize, Deserialize)]
pub struct Stats {
    /// Members.
    #[prost(uint64, tag = "1")]
    pub on: u64,
    /// Likes, since the room was opened.
    #[prost(uint64, tag = "2")]
    pub like: u64,
    /// Likes per second.
    #[prost(uint64, tag = "3")]
    pub lps: u64,
    /// Version: of two, the higher one holds.
    #[prost(uint64, tag = "4")]
    pub v: u64,
}

/// See [`Server::Bye`].
#[derive(Clone, PartialEq, Eq, Message, Serialize, Deserialize)]
pub struct Bye {
    /// The close code that follows.
    #[prost(uint32, tag = "1")]
    pub code: u32,
    /// When to come again, in milliseconds.
    #[prost(uint32, optional, tag = "2")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_ms: Option<u32>,
    /// Where to go.
    #[prost(string, repeated, tag = "3")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edges: Vec<String>,
}

/// Counts by lane: JSON writes numbers as keys in quotes.
fn counts<'de, D: Deserializer<'de>>(d: D) -> Result<BTreeMap<u32, u32>, D::Error> {
    let by_name = BTreeMap::<String, u32>::deserialize(d)?;
    let parsed = by_name.into_iter().map(|(lane, count)| lane.parse().map(|lane| (lane, count)));
    parsed.collect::<Result<_, _>>().map_err(serde::de::Error::custom)
}

mod client;
mod codec;
mod lane;

pub use client::{Client, Give, Hello, Like, Moderate, Renew, Say, Who};
pub use codec::{BadFrame, Form};
pub use lane::{Code, Lane};

#[cfg(test)]
mod tests;
