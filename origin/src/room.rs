//! The home of one room: owns its segmenter, its feed, and the decision who publishes.
//!
//! In: pushes that want the room and the messages of the one that has it. Out: a feed that
//! [`crate::replicate`] serves to edges. One task, one loop: wait for an input, apply it
//! synchronously, publish what came of it. The rules are in [`life`] and [`media::segmenter`];
//! this file only moves data between them.

mod authority;
mod core;
mod life;
mod metrics;
#[cfg(test)]
mod sim;
mod witness;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cluster::Grant;
use media::feed::{Feed, Limits};
use media::segmenter::Settings;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, info_span};
use wire::{Epoch, NodeId, Region, RoomId};

pub(crate) use self::authority::Authority;
pub(crate) use self::core::Past;
use self::core::{Core, Decision};
pub(crate) use self::metrics::Metrics;
use self::witness::Witness;
use crate::publish::{self, Pushed};
use crate::rtmp::{IngestMessage, Refusal};
use crate::sequencer::ledger::Handle;

/// Commands a room takes before their senders wait.
const COMMANDS: usize = 16;

/// Messages taken from a publisher before other inputs are looked at again.
const MESSAGES_PER_TURN: usize = 64;

/// How often it is looked whether a room may serve again after a pause of the process.
const CONFIRM_POLL: Duration = Duration::from_millis(20);

/// What a room is made with.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// How its stream is cut.
    pub(crate) segmenter: Settings,
    /// What its feed may hold.
    pub(crate) feed: Limits,
    /// How long a publisher's return is awaited.
    pub(crate) publish_grace: Duration,
    /// Where events are kept.
    pub(crate) ledger: Option<Handle>,
    /// Where rooms' beginnings and ends are told.
    pub(crate) hooks: Option<hooks::Hooks>,
    /// Where this node stands.
    pub(crate) region: Region,
}

/// Where a room is in its life, for the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    /// Nobody has published, or the stream is over.
    #[default]
    Idle,
    /// A publisher is sending.
    Live,
    /// The publisher has gone and its return is awaited.
    Grace,
}

impl State {
    /// The word the API uses.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Live => "live",
            Self::Grace => "grace",
        }
    }
}

/// What the API tells of a room's stream.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Where it is in its life.
    pub state: State,
    /// The node its publisher is connected to.
    pub ingest: Option<NodeId>,
    /// The publisher's address.
    pub source: Option<std::net::SocketAddr>,
    /// What its encoder calls itself.
    pub encoder: Option<String>,
    /// When the present push was accepted, in milliseconds since the Unix epoch.
    pub since_unix_ms: Option<u64>,
    /// What the streamer should change, when something is amiss.
    pub advice: Option<&'static str>,
}

/// Handle to a room's home; the task behind it ends by itself when the room closes.
#[derive(Debug)]
pub(crate) struct Room {
    grant: Grant,
    feed: Feed,
    commands: mpsc::Sender<Command>,
    facts: watch::Receiver<Facts>,
    closed: CancellationToken,
    viewers: AtomicU64,
    subscribers: AtomicU64,
    authority: Arc<Authority>,
    /// The pauses of this process after which the leader has confirmed the epoch.
    confirmed: Arc<AtomicU64>,
}

enum Command {
    Publish(Box<Pushed>, Answer),
    Stop(Refusal),
    Hold(bool),
    Fence,
    Close,
}

/// Accepted, a push is told which message the room wants first, see [`Room::publish`].
type Answer = oneshot::Sender<Result<Option<u64>, Refusal>>;

impl Room {
    /// Opens the room under `grant`, on the past an earlier home left, and starts its task.
    pub(crate) fn start(
        grant: Grant,
        past: Option<&Past>,
        config: &Config,
        metrics: &Arc<Metrics>,
        authority: Arc<Authority>,
    ) -> Arc<Self> {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (facts_sender, facts) = watch::channel(Facts::default());
        let span = info_span!("room", room = %grant.room, epoch = %grant.epoch);
        let core = Core::new(&grant, past, config, Arc::clone(metrics));
        let (ledger, region) = (config.ledger.clone(), config.region.clone());
        let told = (ledger, config.hooks.clone());
        let witness = Witness::new(told, grant.room.clone(), region);
        let confirmed = Arc::new(AtomicU64::new(authority.pauses()));
        let room = Arc::new(Self {
            feed: core.feed().clone(),
            grant,
            commands,
            facts,
            closed: CancellationToken::new(),
            viewers: AtomicU64::new(0),
            subscribers: AtomicU64::new(0),
            authority: Arc::clone(&authority),
            confirmed: Arc::clone(&confirmed),
        });
        let task = Task {
            core,
            epoch: room.epoch(),
            pauses: authority.watch(),
            authority,
            confirmed,
            metrics: Arc::clone(metrics),
            inbox,
            incumbent: None,
            waiting: Vec::new(),
            facts: facts_sender,
            closed: room.closed.clone(),
            started: Instant::now(),
            witness,
            _counted: metrics.room(),
        };
        tokio::spawn(task.run().instrument(span));
        room
    }

    /// The room.
    pub(crate) fn id(&self) -> &RoomId {
        &self.grant.room
    }

    /// The epoch this home serves under.
    pub(crate) fn epoch(&self) -> Epoch {
        self.grant.epoch
    }

    /// What edges subscribe to.
    pub(crate) fn feed(&self) -> &Feed {
        &self.feed
    }

    /// What the API tells.
    pub(crate) fn facts(&self) -> Facts {
        self.facts.borrow().clone()
    }

    /// Cancelled once the room is closed.
    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// Viewers on all edges, as they last said.
    pub(crate) fn viewers(&self) -> &AtomicU64 {
        &self.viewers
    }

    /// Subscriptions served now.
    pub(crate) fn subscribers(&self) -> &AtomicU64 {
        &self.subscribers
    }

    /// Whether the stream is over, so that a new push needs a new epoch.
    pub(crate) fn is_over(&self) -> bool {
        self.closed.is_cancelled() || self.feed.said().status() == media::manifest::Status::Ended
    }

    /// Waits until the room may serve: until the leader has confirmed its epoch after a pause of this
    /// process, or does not answer, or the room is closed.
    pub(crate) async fn serving(&self) {
        while !self.authority.is_confirmed(&self.confirmed) && !self.closed.is_cancelled() {
            tokio::time::sleep(CONFIRM_POLL).await;
        }
    }

    /// Contends for the room. On success the room reads the push's messages until one side ends:
    /// first a [`IngestMessage::Numbered`], then from the message that this returns on; none leaves it
    /// to the push where to begin.
    ///
    /// # Errors
    /// The refusal to tell the publisher.
    pub(crate) async fn publish(&self, pushed: Pushed) -> Result<Option<u64>, Refusal> {
        let (answer, verdict) = oneshot::channel();
        let command = Command::Publish(Box::new(pushed), answer);
        self.commands.send(command).await.map_err(|_| publish::closing())?;
        verdict.await.unwrap_or_else(|_| Err(publish::closing()))
    }

    /// Whether the room has a past at another home.
    pub(crate) fn has_moved(&self) -> bool {
        self.grant.generation != self.grant.epoch.0
    }

    /// The facts whenever they change; ends with the room.
    pub(crate) fn watch_facts(&self) -> watch::Receiver<Facts> {
        self.facts.clone()
    }

    /// Keeps the room open although nobody publishes, or no longer: it has members.
    pub(crate) async fn hold(&self, held: bool) {
        let _ = self.commands.send(Command::Hold(held)).await;
    }

    /// Ends the stream at once: kicked or stopped by an operator.
    pub(crate) async fn stop(&self, reason: Refusal) {
        let _ = self.commands.send(Command::Stop(reason)).await;
    }

    /// Gives the room up to another home: seals its stream, which is not over, and closes.
    pub(crate) async fn fence(&self) {
        if self.commands.send(Command::Fence).await.is_ok() {
            self.closed.cancelled().await;
        }
    }

    /// Closes the room without waiting for anything.
    pub(crate) async fn close(&self) {
        if self.commands.send(Command::Close).await.is_ok() {
            self.closed.cancelled().await;
        }
    }
}

/// The room's one loop.
struct Task {
    core: Core,
    epoch: Epoch,
    authority: Arc<Authority>,
    pauses: watch::Receiver<u64>,
    confirmed: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
    inbox: mpsc::Receiver<Command>,
    /// The push that has the room.
    incumbent: Option<(life::PublishId, Box<Pushed>)>,
    /// Pushes that contend for it.
    waiting: Vec<Waiting>,
    facts: watch::Sender<Facts>,
    closed: CancellationToken,
    started: Instant,
    witness: Witness,
    _counted: metrics::Gauged,
}

struct Waiting {
    id: life::PublishId,
    pushed: Box<Pushed>,
    answer: Answer,
}

impl Task {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(MESSAGES_PER_TURN);
        let mut decisions = Vec::new();
        while !self.core.is_closed() {
            let deadline =
                self.core.deadline_ms().map(|ms| self.started + Duration::from_millis(ms));
            if !self.authority.is_confirmed(&self.confirmed) {
                self.confirm(&mut decisions).await;
                continue;
            }
            tokio::select! {
                biased;
                _ = self.pauses.changed() => {}
                command = self.inbox.recv() => match command {
                    Some(command) => self.command(command, &mut decisions),
                    // Every handle is gone; the registry keeps one while the room is wanted.
                    None => self.core.close(&mut decisions),
                },
                count = messages(&mut self.incumbent, &mut batch) => {
                    // Stopped and resumed in this wait, the room may have another home by now.
                    if !self.authority.is_confirmed(&self.confirmed) {
                        self.confirm(&mut decisions).await;
                    }
                    if self.core.is_closed() {
                        break;
                    }
                    if count == 0 {
                        self.core.left(self.now_ms(), &mut decisions);
                        self.incumbent = None;
                    }
                    for message in batch.drain(..) {
                        self.message(message, &mut decisions);
                    }
                }
                () = until(deadline) => self.core.poll(self.now_ms(), &mut decisions),
            }
            for decision in std::mem::take(&mut decisions) {
                self.decide(decision);
            }
            self.forget_who_left();
            self.tell();
            let publisher = self.incumbent.as_ref().map(|(id, pushed)| (*id, pushed.source));
            self.witness.see(publisher);
        }
        self.closed.cancel();
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// This process was stopped for a while: the room may have another home.
    async fn confirm(&mut self, decisions: &mut Vec<Decision>) {
        let pauses = self.authority.settled().await;
        if self.authority.confirm(self.core.room(), self.epoch).await {
            self.confirmed.store(pauses, Ordering::Release);
        } else {
            self.fence(decisions);
        }
    }

    /// Another home has the room, or will have it.
    fn fence(&mut self, decisions: &mut Vec<Decision>) {
        info!("the room has another home; given up here");
        self.metrics.fenced();
        self.core.fence(decisions);
        if let Some((_, incumbent)) = self.incumbent.take() {
            incumbent.intake.kick(publish::closing());
        }
    }

    fn command(&mut self, command: Command, decisions: &mut Vec<Decision>) {
        let now_ms = self.now_ms();
        match command {
            Command::Publish(pushed, answer) => {
                let id = self.core.challenge(now_ms, pushed.publish, decisions);
                self.waiting.push(Waiting { id, pushed, answer });
            }
            Command::Stop(reason) => {
                if let Some((_, incumbent)) = self.incumbent.take() {
                    incumbent.intake.kick(reason);
                }
                self.core.stop(now_ms, decisions);
            }
            Command::Hold(held) => self.core.hold(now_ms, held),
            Command::Fence => self.fence(decisions),
            Command::Close => self.core.close(decisions),
        }
    }

    fn message(&mut self, message: IngestMessage, decisions: &mut Vec<Decision>) {
        // The incumbent may have been refused by an earlier message of the same turn.
        if self.incumbent.is_none() {
            return;
        }
        if let Err(error) = self.core.message(self.now_ms(), message, decisions) {
            if let Some((_, incumbent)) = self.incumbent.take() {
                let why = format!("this stream cannot be served: {error}");
                incumbent.intake.kick(Refusal::bad_media(why));
            }
            self.core.left(self.now_ms(), decisions);
        }
    }

    fn decide(&mut self, decision: Decision) {
        match decision {
            Decision::Accept { id, replaces, from } => {
                let Some(at) = self.waiting.iter().position(|w| w.id == id) else { return };
                let Waiting { pushed, answer, .. } = self.waiting.swap_remove(at);
                if let Some((old, incumbent)) = self.incumbent.take() {
                    let again = incumbent.publish == pushed.publish;
                    debug_assert!(again || Some(old) == replaces, "only the incumbent is replaced");
                    incumbent.intake.kick(Refusal::replaced(self.core.room()));
                }
                // A push that gave up in this very moment shows as an ended one.
                let _ = answer.send(Ok(from));
                self.incumbent = Some((id, pushed));
            }
            Decision::Refuse { id } => {
                let Some(at) = self.waiting.iter().position(|w| w.id == id) else { return };
                let refusal = Refusal::busy(self.core.room());
                let _ = self.waiting.swap_remove(at).answer.send(Err(refusal));
            }
        }
    }

    fn forget_who_left(&mut self) {
        let core = &mut self.core;
        self.waiting.retain(|waiting| {
            let stays = !waiting.answer.is_closed();
            if !stays {
                core.withdraw(waiting.id);
            }
            stays
        });
    }

    fn tell(&self) {
        let pushed = self.incumbent.as_ref().map(|(_, pushed)| pushed);
        let state = self.core.state();
        let advice = self.core.advice();
        self.facts.send_if_modified(|facts| {
            let since = pushed.map(|p| p.since_unix_ms);
            let changed =
                facts.state != state || facts.since_unix_ms != since || facts.advice != advice;
            if changed {
                *facts = Facts {
                    state,
                    ingest: pushed.map(|p| p.ingest.clone()),
                    source: pushed.map(|p| p.source),
                    encoder: pushed.map(|p| p.encoder.clone()),
                    since_unix_ms: since,
                    advice,
                };
            }
            changed
        });
    }
}

/// The incumbent's next messages; 0 once it has ended.
async fn messages(
    incumbent: &mut Option<(life::PublishId, Box<Pushed>)>,
    batch: &mut Vec<IngestMessage>,
) -> usize {
    match incumbent {
        Some((_, pushed)) => {
            batch.extend(pushed.intake.recv().await);
            while batch.len() < MESSAGES_PER_TURN
                && !batch.is_empty()
                && let Some(message) = pushed.intake.try_recv()
            {
                batch.push(message);
            }
            batch.len()
        }
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
