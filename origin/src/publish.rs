//! Pushes on their way to rooms: who may push where, and what the home knows of a push.
//!
//! In: requests of RTMP connections. Out: to the [`Relay`], which carries the push's [`Intake`] to the
//! room's home until one side ends it. Whether the room is free is the home's decision; whether the key is
//! right is the control plane's answer; nothing is decided here but the order of asking. A push that runs is
//! ended when its room is barred or its token taken back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cluster::Client;
use cluster::access::{Access, Bars, Brought, Denied, Pass};
use hooks::{Decision, Hooks, Kind};
use tracing::warn;
use wire::control::{Bar, FOR_GOOD, KeyVerdict};
use wire::links::Links;
use wire::{NodeId, RoomId};

use crate::contribute::Relay;
use crate::registry::Registry;
use crate::rtmp::{Intake, Kicker, Publication, PublishRequest, Publishes, Refusal};

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
    pub(crate) hooks: Option<Hooks>,
}

/// What let a push in.
#[derive(Debug)]
enum Credential {
    /// Nothing is asked for.
    Open,
    /// A token, which may be taken back.
    Token(Box<Pass>),
    /// A key of the room.
    Key,
}

impl Publisher {
    async fn authenticate(
        &self,
        request: &PublishRequest,
        push: u64,
    ) -> Result<Credential, Refusal> {
        if let Some(forbidden) = self.forbidden(&request.room) {
            return Err(forbidden);
        }
        if self.policy == Policy::Open {
            return Ok(Credential::Open);
        }
        let room = &request.room;
        let brought = Brought { token: request.token.as_deref(), query: &request.query };
        match self.access.publish(room, brought, now().as_secs()) {
            Ok(claims) => {
                let pass = Pass::new(&self.access, claims, room.clone());
                return Ok(Credential::Token(Box::new(pass)));
            }
            // Not a token of ours: perhaps a key.
            Err(Denied::Missing | Denied::Malformed(_)) => {}
            Err(denied) => return Err(Refusal::denied(denied.to_string())),
        }
        let denied = || {
            // One text for a missing, a wrong and a revoked key: it helps nobody who guesses.
            Refusal::denied(format!("no valid key for {room}: push to .../{room}?token=KEY"))
        };
        let key = request.token.as_deref().ok_or_else(denied)?;
        let verdict = self.client.use_key(room, key, request.peer.ip(), push).await;
        // Whoever has the secret may know why it does not open.
        let why = match verdict {
            Ok(KeyVerdict::Opens) => return Ok(Credential::Key),
            Ok(KeyVerdict::Unknown) => return Err(denied()),
            Ok(KeyVerdict::NotYet) => "does not open yet",
            Ok(KeyVerdict::Over) => "has expired",
            Ok(KeyVerdict::Used) => "was for one push, and has been used",
            Ok(KeyVerdict::WrongAddress) => "may not be used from this address",
            Err(error) => {
                warn!(%room, %error, "a publish key cannot be checked");
                let why = "keys cannot be checked now; push again in a moment";
                return Err(Refusal::unavailable(why));
            }
        };
        Err(Refusal::denied(format!("the key for {room} {why}")))
    }

    /// Asks the application whether this push may be. What is returned tells it of the end when dropped.
    async fn ask(
        &self,
        request: &PublishRequest,
        credential: &Credential,
        push: u64,
    ) -> Result<Option<Told>, Refusal> {
        let Some(hooks) = &self.hooks else { return Ok(None) };
        let user = match credential {
            Credential::Token(pass) => pass.claims().user.clone().unwrap_or_default(),
            Credential::Open | Credential::Key => String::new(),
        };
        let room = &request.room;
        let event = hooks::Event {
            address: Some(request.peer),
            user,
            protocol: "rtmp",
            session: format!("{push:016x}"),
            query: request.query.clone(),
            ..hooks::Event::new(Kind::Publish, room.app(), room.name())
        };
        match hooks.decide(event.clone()).await {
            Decision::Allow => Ok(Some(Told { hooks: hooks.clone(), event })),
            Decision::Deny(why) => Err(Refusal::denied(why)),
        }
    }

    /// The refusal of pushes to a room that is barred.
    fn forbidden(&self, room: &RoomId) -> Option<Refusal> {
        let bar = self.access.bars.push(room, now().as_secs())?;
        Some(forbidden(room, &bar))
    }
}

/// A push that the application knows of; dropped, it is told of the end.
struct Told {
    hooks: Hooks,
    event: hooks::Event,
}

impl Drop for Told {
    fn drop(&mut self) {
        let event = hooks::Event { kind: Kind::Unpublish, ..self.event.clone() };
        self.hooks.notify(event);
    }
}

impl Publishes for Publisher {
    async fn open(&self, request: PublishRequest) -> Result<Publication, Refusal> {
        let publish = rand::random::<u64>().max(1);
        let credential = self.authenticate(&request, publish).await?;
        let told = self.ask(&request, &credential, publish).await?;
        let (publication, intake) = Publication::new();
        let kicker = intake.kicker();
        let pushed = Pushed {
            intake,
            ingest: self.node.clone(),
            source: request.peer,
            encoder: request.encoder,
            since_unix_ms: u64::try_from(now().as_millis()).unwrap_or(u64::MAX),
            publish,
        };
        let (links, rooms) = (self.links.clone(), Arc::clone(&self.rooms));
        let room = request.room.clone();
        Relay::open(links, rooms, request.room, pushed).await?;
        let bars = Arc::clone(&self.access.bars);
        // Ends with the push.
        tokio::spawn(async move {
            watch_over(&kicker, room, credential, bars).await;
            kicker.released().await;
            drop(told);
        });
        Ok(publication)
    }
}

/// Ends a push whose room is barred or whose token is taken back; ends with the push.
async fn watch_over(kicker: &Kicker, room: RoomId, credential: Credential, bars: Arc<Bars>) {
    let mut changes = bars.changes();
    let barred = async {
        loop {
            changes.mark_unchanged();
            if let Some(bar) = bars.push(&room, now().as_secs()) {
                return forbidden(&room, &bar);
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let voided = async {
        match &credential {
            Credential::Token(pass) => pass.voided().await,
            Credential::Open | Credential::Key => std::future::pending().await,
        }
    };
    tokio::select! {
        refusal = barred => kicker.kick(refusal),
        () = voided => kicker.kick(Refusal::denied(Denied::Revoked.to_string())),
        () = kicker.released() => {}
    }
}

/// The refusal of pushes to a room on which there is `bar`.
fn forbidden(room: &RoomId, bar: &Bar) -> Refusal {
    let until = match bar.until_unix_s {
        FOR_GOOD => String::new(),
        until => {
            let left_s = until.saturating_sub(now().as_secs()) + 1;
            format!(" for another {left_s} s")
        }
    };
    let why = match bar.reason.as_str() {
        "" => String::new(),
        reason => format!(": {reason}"),
    };
    Refusal::forbidden(format!("publishing to {room} is forbidden{until}{why}"))
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The room or its home is closing.
pub(crate) fn closing() -> Refusal {
    Refusal::unavailable("the room is closing; push again in a moment")
}
