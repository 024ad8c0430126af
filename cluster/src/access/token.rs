//! What a token says once its signature holds: for which room, for whom, what for and how long.

use std::fmt;

use serde::{Deserialize, Serialize};
use wire::RoomId;

use super::Denied;

/// Longest token that is looked at: with RS256 and a dozen claims of an OpenID issuer, twice over.
pub const MAX_TOKEN_BYTES: usize = 4096;

/// How far the clocks of an issuer and a node may be apart.
pub const SKEW_S: u64 = 30;

/// What its holder is in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Somebody.
    #[default]
    Guest,
    /// A user of the application.
    Member,
    /// Keeps order in the room.
    Mod,
    /// The room is theirs.
    Host,
    /// An encoder.
    Publisher,
}

/// Something a token may allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// Push a stream.
    Publish,
    /// Watch the stream and read along.
    Watch,
    /// Say something, like.
    Chat,
    /// Give gifts.
    Gift,
    /// Delete, mute, ban, set the room's mode.
    Moderate,
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Publish => "publish",
            Self::Watch => "watch",
            Self::Chat => "chat",
            Self::Gift => "give gifts",
            Self::Moderate => "moderate",
        })
    }
}

impl Role {
    /// What a token of this role allows when it does not say.
    #[must_use]
    pub fn capabilities(self) -> &'static [Capability] {
        use Capability::{Chat, Gift, Moderate, Publish, Watch};
        match self {
            Self::Guest => &[Watch],
            Self::Member => &[Watch, Chat, Gift],
            Self::Mod => &[Watch, Chat, Gift, Moderate],
            Self::Host => &[Watch, Chat, Gift, Moderate, Publish],
            Self::Publisher => &[Publish],
        }
    }
}

/// The rooms a token is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Scope {
    /// One room.
    Room(RoomId),
    /// All rooms of an app.
    App(String),
}

impl Scope {
    /// Whether `room` is among them.
    #[must_use]
    pub fn covers(&self, room: &RoomId) -> bool {
        match self {
            Self::Room(one) => one == room,
            Self::App(app) => room.app() == app,
        }
    }
}

impl TryFrom<String> for Scope {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.strip_suffix("/*") {
            // A room of that app is valid exactly when the app is.
            Some(app) => match RoomId::new(app, "any") {
                Ok(_) => Ok(Self::App(app.to_owned())),
                Err(error) => Err(format!("room: {error}")),
            },
            None => RoomId::parse(&text).map(Self::Room).map_err(|error| format!("room: {error}")),
        }
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Room(room) => room.to_string(),
            Scope::App(app) => format!("{app}/*"),
        }
    }
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The rooms it is for.
    #[serde(rename = "room")]
    pub scope: Scope,
    /// What its holder is there.
    #[serde(default)]
    pub role: Role,
    /// What it allows, if not what the role does.
    #[serde(default, rename = "caps", skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<Capability>>,
    /// Who holds it, as the application names users.
    #[serde(default, rename = "sub", skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The name to show.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// When it ends, in seconds since 1970.
    #[serde(rename = "exp")]
    pub expires_s: u64,
    /// When it begins.
    #[serde(default, rename = "nbf", skip_serializing_if = "Option::is_none")]
    pub not_before_s: Option<u64>,
    /// When it was issued.
    #[serde(default, rename = "iat", skip_serializing_if = "Option::is_none")]
    pub issued_s: Option<u64>,
    /// Its own id.
    #[serde(default, rename = "jti", skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Who issued it.
    #[serde(default, rename = "iss", skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Whom it is for.
    #[serde(default, rename = "aud", skip_serializing_if = "Option::is_none")]
    pub audience: Option<Audience>,
    /// Whether this is no token but stands for a signed URL.
    #[serde(skip)]
    pub is_signed_url: bool,
}

/// The `aud` claim: one or many (RFC 7519 section 4.1.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    /// One.
    One(String),
    /// Many.
    Many(Vec<String>),
}

impl Audience {
    /// Whether `who` is among them.
    #[must_use]
    pub fn names(&self, who: &str) -> bool {
        match self {
            Self::One(one) => one == who,
            Self::Many(many) => many.iter().any(|one| one == who),
        }
    }
}

impl Claims {
    /// What a signed URL stands for: one thing in one room until a time.
    #[must_use]
    pub fn of_signed_url(room: &RoomId, capability: Capability, expires_s: u64) -> Self {
        Self {
            scope: Scope::Room(room.clone()),
            role: Role::Guest,
            capabilities: Some(vec![capability]),
            user: None,
            name: None,
            expires_s,
            not_before_s: None,
            issued_s: None,
            id: None,
            issuer: None,
            audience: None,
            is_signed_url: true,
        }
    }

    /// Whether it allows `capability` in `room`.
    ///
    /// # Errors
    /// [`Denied`] says why not.
    pub fn allows(&self, capability: Capability, room: &RoomId) -> Result<(), Denied> {
        if !self.scope.covers(room) {
            return Err(Denied::OtherRoom);
        }
        let allowed = self.capabilities.as_deref().unwrap_or(self.role.capabilities());
        if allowed.contains(&capability) { Ok(()) } else { Err(Denied::NotAllowed(capability)) }
    }

    /// Whether its time is now.
    ///
    /// # Errors
    /// [`Denied::Expired`] or [`Denied::NotYet`].
    pub(super) fn in_time(&self, now_s: u64) -> Result<(), Denied> {
        if now_s > self.expires_s.saturating_add(SKEW_S) {
            return Err(Denied::Expired);
        }
        match self.not_before_s {
            Some(from_s) if now_s.saturating_add(SKEW_S) < from_s => Err(Denied::NotYet),
            _ => Ok(()),
        }
    }
}
