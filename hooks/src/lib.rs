//! Webhooks: an application's back-end is asked before something is allowed, and told what happened.
//!
//! In: [`Event`]s of the roles. Out: signed POST requests to one URL ([`wire`](body), [`sign`]), over a client
//! that goes to no private address unless it may ([`reach`]) and follows no redirect ([`client`]).
//! [`Hooks::decide`] waits for the answer, for a bounded time, and falls back on what the configuration says;
//! [`Hooks::notify`] never waits: a bounded queue and one task deliver in order, with retries ([`delivery`]).
//!
//! Does not know rooms, tokens or RTMP: events are text that the roles fill in.

mod body;
mod client;
mod delivery;
mod error;
mod metrics;
mod reach;
mod sign;
mod verdict;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

pub use body::{Format, MAX_TEXT_BYTES};
pub use client::{MAX_ANSWER_BYTES, Target};
pub use error::Error;
pub use metrics::Metrics;
pub use reach::is_public;
pub use sign::{SIGNATURE_HEADER, signature};

use client::Client;
use verdict::read;

/// Notifications that wait to be delivered; a further one is dropped and counted.
pub const QUEUE: usize = 4096;
/// Decisions under way at once; a further one waits its turn within its time-out.
pub const MAX_DECISIONS: usize = 256;

/// What happens, by its name in requests. A closed set: it is a label of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Somebody wants to publish: a decision.
    Publish,
    /// A push has ended.
    Unpublish,
    /// Somebody wants to watch: a decision.
    Play,
    /// Somebody watches no longer.
    Stop,
    /// A room has its home.
    RoomStart,
    /// A room is gone.
    RoomEnd,
    /// Somebody wants to say something: a decision.
    MessageReview,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Publish,
        Self::Unpublish,
        Self::Play,
        Self::Stop,
        Self::RoomStart,
        Self::RoomEnd,
        Self::MessageReview,
    ];

    /// The name, as in requests and in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Publish => "on_publish",
            Self::Unpublish => "on_unpublish",
            Self::Play => "on_play",
            Self::Stop => "on_stop",
            Self::RoomStart => "on_room_start",
            Self::RoomEnd => "on_room_end",
            Self::MessageReview => "on_message_review",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Something that happens, or is about to.
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub kind: Kind,
    /// The app of the room.
    pub app: String,
    /// The name of the room in its app.
    pub name: String,
    /// Where the client is, if one is concerned.
    pub address: Option<SocketAddr>,
    /// The user, as tokens name users; empty for none.
    pub user: String,
    /// How it comes: `rtmp`, `hls`, `flv`, `wsflv`, `ws`, `sse`; empty for none.
    pub protocol: &'static str,
    /// Names the session, so that its beginning and end belong together; empty for none.
    pub session: String,
    /// What is said, for a review; else empty.
    pub text: String,
    /// The query the client brought, with what may be secret in it. Only sent in the form of SRS, whose
    /// back-ends check it there. Never logged.
    pub query: String,
}

impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Neither the query nor what is said.
        f.debug_struct("Event")
            .field("kind", &self.kind)
            .field("app", &self.app)
            .field("name", &self.name)
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

impl Event {
    /// Of this kind, about this room; the rest is empty.
    #[must_use]
    pub fn new(kind: Kind, app: &str, name: &str) -> Self {
        Self {
            kind,
            app: app.to_owned(),
            name: name.to_owned(),
            address: None,
            user: String::new(),
            protocol: "",
            session: String::new(),
            text: String::new(),
            query: String::new(),
        }
    }
}

/// Whether something may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Allow,
    /// It may not.
    Deny(
        /// Why, for whom it concerns: the back-end's words, cut to [`MAX_TEXT_BYTES`], or ours.
        String,
    ),
}

/// What hooks need to know.
#[derive(Clone)]
pub struct Config {
    /// Where to send.
    pub url: String,
    /// Signs every request; empty leaves them unsigned.
    pub secret: Vec<u8>,
    /// What is sent; anything else is allowed, or not told.
    pub kinds: BTreeSet<Kind>,
    /// How it is written.
    pub format: Format,
    /// How long the back-end may take.
    pub timeout: Duration,
    /// Whether something is allowed when the back-end gives no answer.
    pub fail_open: bool,
    /// Whether private addresses may be asked.
    pub allow_private: bool,
    /// The certificates that sign the back-end's; without them those of the system.
    pub ca: Option<PathBuf>,
    /// This node, as it names itself.
    pub node: String,
}

/// Asks and tells. Clones are the same; the last one dropped ends the delivery.
#[derive(Clone)]
pub struct Hooks {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Event>,
    _delivery: Arc<AbortOnDropHandle<()>>,
}

struct Shared {
    config: Config,
    client: Client,
    metrics: Metrics,
    decisions: Semaphore,
}

impl Hooks {
    /// Begins. Needs a Tokio runtime around it.
    ///
    /// # Errors
    /// When the URL or the certificates cannot be used.
    pub fn start(config: Config, metrics: Metrics) -> Result<Self, Error> {
        let target = Target::parse(&config.url)?;
        let client = Client::new(target, config.allow_private, config.ca.as_deref())?;
        let decisions = Semaphore::new(MAX_DECISIONS);
        let shared = Arc::new(Shared { config, client, metrics, decisions });
        let (queue, inbox) = mpsc::channel(QUEUE);
        let task = tokio::spawn(delivery::run(Arc::clone(&shared), inbox));
        Ok(Self { shared, queue, _delivery: Arc::new(AbortOnDropHandle::new(task)) })
    }

    /// Whether events of this kind are sent at all. Cheap; asked before an event is put together.
    #[must_use]
    pub fn wants(&self, kind: Kind) -> bool {
        self.shared.config.kinds.contains(&kind)
    }

    /// Asks whether something may be. Answers within the configured time-out, by the configured fallback
    /// where the back-end does not.
    pub async fn decide(&self, event: Event) -> Decision {
        let Shared { config, metrics, decisions, .. } = &*self.shared;
        if !config.kinds.contains(&event.kind) {
            return Decision::Allow;
        }
        let asked = async {
            // Never closed; were it, nothing could be asked.
            let _turn = decisions.acquire().await.map_err(|_| Error::TimedOut)?;
            let answer = self.shared.send(&event, now_s()).await?;
            read(config.format, answer.status, &answer.body)
        };
        let decided = timeout(config.timeout, asked).await.unwrap_or(Err(Error::TimedOut));
        match decided {
            Ok(decision) => {
                let outcome = if decision == Decision::Allow { "allowed" } else { "denied" };
                metrics.decided(event.kind, outcome);
                decision
            }
            Err(error) => {
                metrics.decided(event.kind, "failed");
                tracing::warn!(event = event.kind.name(), %error, "the webhook gave no answer");
                match config.fail_open {
                    true => Decision::Allow,
                    false => {
                        let why = "the application cannot be asked now; try again in a moment";
                        Decision::Deny(why.to_owned())
                    }
                }
            }
        }
    }

    /// Tells what happened; never waits. What does not fit the queue is dropped and counted.
    pub fn notify(&self, event: Event) {
        if self.wants(event.kind) && self.queue.try_send(event).is_err() {
            self.shared.metrics.dropped("queue_full");
        }
    }
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hooks").field("kinds", &self.shared.config.kinds).finish_non_exhaustive()
    }
}

impl Shared {
    /// Sends one event, signed for `at_s`.
    async fn send(&self, event: &Event, at_s: u64) -> Result<client::Answer, Error> {
        let body = body::write(self.config.format, event, &self.config.node, at_s);
        let signed = match self.config.secret.as_slice() {
            [] => None,
            secret => Some(signature(secret, at_s, &body)),
        };
        self.client.post(event.kind.name(), signed.as_deref(), body).await
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests;
