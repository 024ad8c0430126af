//! Pushes on their way to rooms: who may push where, and what the home knows of a push.
//!
//! In: requests of RTMP connections. Out: to the [`Relay`], which carries the push's [`Intake`] to the
//! room's home until one side ends it. Whether the room is free is the home's decision; whether the key is right is
//! the control plane's answer; nothing is decided here but the order of asking.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use cluster::Client;
use cluster::access::{Access, Brought, Denied};
use tracing::warn;
use wire::NodeId;
use wire::links::Links;

use crate::contribute::Relay;
use crate::registry::Registry;
use crate::rtmp::{Intake, Publication, PublishRequest, Publishes, Refusal};

/// A push that wants a room, or has it.
#[derive(Debug)]
pub(crate) struct Pushed {
    /// Its messages, and the way to end it.
    pub(crate) intake: Intake,
    /// The node the publisher is connected to.
    pub(crate) ingest: NodeId,
    /// The publisher's address.
    pub(crate) source: SocketAddr,
    /// What its encoder calls itself.
    pub(crate) encoder: String,
    /// When it came, in milliseconds since the Unix epoch.
    pub(crate) since_unix_ms: u64,
    /// Names it, from home to home: random, never 0.
    pub(crate) publish: u64,
}

/// Who may publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Who holds a key of the room, a token that allows it or a signed URL.
    #[default]
    Key,
    /// Anyone.
    Open,
}

/// Leads pushes to their rooms.
#[derive(Debug)]
pub(crate) struct Publisher {
    pub(crate) node: NodeId,
    pub(crate) policy: Policy,
    pub(crate) access: Arc<Access>,
    pub(crate) client: Client,
    pub(crate) links: Links,
    pub(crate) rooms: Arc<Registry>,
}

impl Publisher {
    async fn authenticate(&self, request: &PublishRequest) -> Result<(), Refusal> {
        if self.policy == Policy::Open {
            return Ok(());
        }
        let room = &request.room;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let brought = Brought { token: request.token.as_deref(), query: &request.query };
        match self.access.publish(room, brought, now.as_secs()) {
            Ok(_) => return Ok(()),
            // Not a token of ours: perhaps a key.
            Err(Denied::Missing | Denied::Malformed(_)) => {}
            Err(denied) => return Err(Refusal::denied(denied.to_string())),
        }
        let denied = || {
            // One text for a missing, a wrong and a revoked key: it helps nobody who guesses.
            Refusal::denied(format!("no valid key for {room}: push to .../{room}?token=KEY"))
        };
        let key = request.token.as_deref().ok_or_else(denied)?;
        match self.client.check_key(room, key).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(denied()),
            Err(error) => {
                warn!(%room, %error, "a publish key cannot be checked");
                Err(Refusal::unavailable("keys cannot be checked now; push again in a moment"))
            }
        }
    }
}

impl Publishes for Publisher {
    async fn open(&self, request: PublishRequest) -> Result<Publication, Refusal> {
        self.authenticate(&request).await?;
        let (publication, intake) = Publication::new();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let pushed = Pushed {
            intake,
            ingest: self.node.clone(),
            source: request.peer,
            encoder: request.encoder,
            since_unix_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            publish: rand::random::<u64>().max(1),
        };
        let (links, rooms) = (self.links.clone(), Arc::clone(&self.rooms));
        Relay::open(links, rooms, request.room, pushed).await?;
        Ok(publication)
    }
}

/// The room or its home is closing.
pub(crate) fn closing() -> Refusal {
    Refusal::unavailable("the room is closing; push again in a moment")
}
