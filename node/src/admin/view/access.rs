//! The JSON of who may do what: keys, tokens, what an app hands out, what is taken back.

use serde::{Deserialize, Serialize};

/// `POST /api/v1/keys`: what to make.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// The room the key opens.
    pub room: String,
    /// When and from where it opens.
    #[serde(flatten)]
    pub terms: KeyTerms,
}

/// When and from where a key opens; left out, always and from anywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyTerms {
    /// Not before this time, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_unix_s: Option<u64>,
    /// Not from this time on, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_unix_s: Option<u64>,
    /// For one push only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub once: bool,
    /// Only from these networks, as in `203.0.113.0/24`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
}

/// `POST /api/v1/keys/{id}/rotate`: how the new key takes over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// For how many seconds the old key still opens; a push that runs goes on.
    #[serde(default)]
    pub overlap_s: u32,
}

/// The answer to `POST /api/v1/keys`. The only time the secret is shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedKey {
    /// The key's public name.
    pub id: String,
    /// The room it opens.
    pub room: String,
    /// The secret.
    pub key: String,
    /// Where to push with it.
    pub push_url: String,
}

/// An item of `GET /api/v1/keys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Its public name.
    pub id: String,
    /// The room it opens.
    pub room: String,
    /// When it was made, in seconds since 1970.
    pub created_unix_s: u64,
    /// When and from where it opens.
    #[serde(flatten)]
    pub terms: KeyTerms,
    /// Whether it was for one push, which has been.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub used: bool,
}

/// `GET /api/v1/keys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// One page, by id.
    pub keys: Vec<Key>,
    /// What to give as `after` for the next page; absent on the last.
    pub next: Option<String>,
}

/// `POST /api/v1/tokens`: what to sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// `app/name`, or `app/*`.
    pub room: String,
    /// `guest`, `member`, `mod`, `host` or `publisher`.
    pub role: String,
    /// Who holds it.
    #[serde(default)]
    pub user: Option<String>,
    /// The name to show.
    #[serde(default)]
    pub name: Option<String>,
    /// When it ends, in seconds since 1970.
    pub expires_unix_s: u64,
}

/// `POST /api/v1/admin-tokens`: who may call this API, and for what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewAdminToken {
    /// Who, for the audit.
    pub name: String,
    /// `read`, `rooms`, `keys`, `moderate`, `cluster`.
    pub scopes: Vec<String>,
    /// When it ends, in seconds since 1970.
    pub expires_unix_s: u64,
}

/// The answer to `POST /api/v1/tokens` and `POST /api/v1/admin-tokens`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedToken {
    /// The token.
    pub token: String,
    /// Its `jti`, by which it can be revoked.
    #[serde(default)]
    pub id: String,
    /// When it ends, in seconds since 1970.
    pub expires_unix_s: u64,
}

/// `PUT /api/v1/rooms/{app}/{name}`: for whom, and for how long.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoomWanted {
    /// For how many seconds the push URLs are good; a day unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push_ttl_s: Option<u64>,
    /// For how many seconds the token and the play URLs are good; four hours unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u64>,
    /// The user whom the token is for; without one it is a guest's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The name to show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `guest`, `member`, `mod` or `host`; a user is a member unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Whether the room shall have its home now, before anybody pushes or joins.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub open: bool,
}

/// The answer to `PUT /api/v1/rooms/{app}/{name}`: everything an app hands out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomOpened {
    /// `app/name`.
    pub room: String,
    /// Its home, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
    /// Where to push, with what lets the publisher in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub push_url: Option<String>,
    /// The same, signed as Tencent's live service does, where that is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub push_url_tx: Option<String>,
    /// `push_url` as OBS asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub obs: Option<Obs>,
    /// When the push URLs end, in seconds since 1970; absent where they do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub push_expires_unix_s: Option<u64>,
    /// Where to watch, with what lets the viewer in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub play: Option<Play>,
    /// The same, signed as Tencent's live service does, where that is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub play_tx: Option<Play>,
    /// Where to talk.
    pub ws: String,
    /// What lets the user in there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The token's `jti`, by which it can be revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_id: Option<String>,
    /// When the token and the play URLs end, in seconds since 1970; absent where they do not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_unix_s: Option<u64>,
    /// Whether pushes are forbidden now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forbidden: Option<Forbidden>,
    /// What is missing here, and how to get it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub advice: Vec<String>,
}

/// A push URL as OBS asks for it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obs {
    /// "Server".
    pub server: String,
    /// "Stream key".
    pub key: String,
}

/// Where to watch.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Play {
    /// HLS and low-latency HLS.
    pub hls: String,
    /// HTTP-FLV, for `<live-player>` among others.
    pub flv: String,
    /// FLV over WebSocket.
    pub wsflv: String,
}

/// `GET /api/v1/rooms/{app}/{name}/push`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Push {
    /// `app/name`.
    pub room: String,
    /// Whether pushes are forbidden now.
    pub forbidden: Option<Forbidden>,
}

/// `POST /api/v1/rooms/{app}/{name}/push/forbid`: for how long. With neither time, for good.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewForbidden {
    /// For how many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// Until when, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_unix_s: Option<u64>,
    /// Why, as the publisher is told.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Pushes to a room are forbidden.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forbidden {
    /// `app/name`.
    pub room: String,
    /// Until when, in seconds since 1970; absent for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_unix_s: Option<u64>,
    /// Since when, in seconds since 1970.
    pub since_unix_s: u64,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// `GET /api/v1/forbidden`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllForbidden {
    /// One page, by room.
    pub forbidden: Vec<Forbidden>,
    /// What to give as `after` for the next page; absent on the last.
    pub next: Option<String>,
}

/// `POST /api/v1/revocations`, and an item of `GET /api/v1/revocations`: of one token by `token`, of a user's
/// by `user` (and `room`), or of all for a room by `room` alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// The `jti` of one token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The user whose tokens are meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The rooms that are meant: `app/name` or `app/*`; with a user also `*`, for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<String>,
    /// Of a user or room, tokens issued before this time are meant, in seconds since 1970; now unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_unix_s: Option<u64>,
    /// When it may be forgotten, in seconds since 1970: when all tokens that it means have ended. In 366 days
    /// unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_unix_s: Option<u64>,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// `GET /api/v1/revocations`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocations {
    /// One page: single tokens, users, rooms.
    pub revocations: Vec<Revocation>,
    /// What to give as `after` for the next page; absent on the last.
    pub next: Option<String>,
}
