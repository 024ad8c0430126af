//! RTMP in: the way of an encoder's media to its room.
//!
//! [`listener`] accepts connections, [`connection`] drives one of them, [`session`] is its protocol,
//! pure and over [`chunk`]s and [`handshake`]. What comes out is a [`PublishRequest`] to whoever
//! implements [`Publishes`], and, once accepted, [`IngestMessage`]s into a [`Publication`].
//!
//! It does not know where rooms live, who may publish, or what is in a message. Timestamps are
//! handed on as the encoder sent them, 32 bits that wrap; the room's home unwraps them.

pub mod address;
mod aggregate;
pub mod chunk;
mod connection;
mod error;
pub mod handshake;
pub mod listener;
pub mod message;
pub mod publication;
pub mod session;

use std::net::SocketAddr;

use wire::RoomId;

pub use error::Error;
pub use listener::{Config, Listener};
pub use publication::{End, IngestMessage, Intake, Kicker, Publication};

/// Where accepted publishes go.
pub trait Publishes: Send + Sync + 'static {
    /// Authenticates, finds or claims the room's home, and contends for the room.
    ///
    /// While this is pending no media of the encoder is read. It is cancelled when the encoder goes
    /// away and after [`listener::OPEN_TIME`]; that placement settles in the meantime is awaited
    /// inside.
    fn open(
        &self,
        request: PublishRequest,
    ) -> impl Future<Output = Result<Publication, Refusal>> + Send;
}

/// An encoder wants to publish.
#[derive(Clone)]
pub struct PublishRequest {
    /// The room.
    pub room: RoomId,
    /// The token it brought, unchecked. Never logged.
    pub token: Option<String>,
    /// The query it brought, which may hold the token, without `?`. Never logged.
    pub query: String,
    /// Its address.
    pub peer: SocketAddr,
    /// Its name for itself (`flashVer`), printable and short; empty if it gave none.
    pub encoder: String,
}

impl std::fmt::Debug for PublishRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Neither the token nor the query, which holds it.
        f.debug_struct("PublishRequest")
            .field("room", &self.room)
            .field("has_token", &self.token.is_some())
            .field("peer", &self.peer)
            .field("encoder", &self.encoder)
            .finish_non_exhaustive()
    }
}

/// Why a publish is refused or ended by the server, as encoder, log and metrics are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The `code` of the `onStatus` sent to the encoder.
    pub code: &'static str,
    /// What is wrong and what to do, for the person at the encoder. Without secrets.
    pub description: String,
    /// The label of `tidewater_refused_total`, from a closed set.
    pub reason: &'static str,
}

impl Refusal {
    /// Another encoder is sending media to the room.
    #[must_use]
    pub fn busy(room: &RoomId) -> Self {
        Self {
            code: "NetStream.Publish.BadName",
            description: format!("{room} is being published by another encoder; stop that one"),
            reason: "busy",
        }
    }

    /// The names in the URL are not those of a room.
    #[must_use]
    pub fn bad_name(why: impl std::fmt::Display) -> Self {
        Self { code: "NetStream.Publish.BadName", description: why.to_string(), reason: "bad_name" }
    }

    /// The encoder has no right to publish here: no token, a wrong or an expired one, or a ban.
    #[must_use]
    pub fn denied(why: impl Into<String>) -> Self {
        Self { code: "NetStream.Publish.Denied", description: why.into(), reason: "denied" }
    }

    /// No home can be had for the room at present; trying again later may help.
    #[must_use]
    pub fn unavailable(why: impl Into<String>) -> Self {
        Self { code: "NetStream.Publish.Rejected", description: why.into(), reason: "unavailable" }
    }

    /// A newer encoder took the room over.
    #[must_use]
    pub fn replaced(room: &RoomId) -> Self {
        Self {
            code: "NetStream.Publish.BadName",
            description: format!("another encoder has taken over {room}"),
            reason: "replaced",
        }
    }

    /// An operator or the application ended the publish.
    #[must_use]
    pub fn kicked(why: impl Into<String>) -> Self {
        Self { code: "NetStream.Publish.Rejected", description: why.into(), reason: "kicked" }
    }

    /// Publishing to the room is forbidden for a time.
    #[must_use]
    pub fn forbidden(why: impl Into<String>) -> Self {
        Self { code: "NetStream.Publish.Denied", description: why.into(), reason: "forbidden" }
    }

    /// What is published cannot be carried: no usable codec configuration, for example.
    #[must_use]
    pub fn bad_media(why: impl Into<String>) -> Self {
        Self { code: "NetStream.Publish.Rejected", description: why.into(), reason: "bad_media" }
    }

    /// The node is shutting down; the encoder should connect again.
    #[must_use]
    pub fn shutting_down() -> Self {
        Self {
            code: "NetStream.Publish.Rejected",
            description: "the server is shutting down; connect again".to_owned(),
            reason: "shutting_down",
        }
    }
}
