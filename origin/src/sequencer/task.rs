//! One task per room: takes what edges and the API say to the pure core, and does what it says.
//!
//! In: inputs from streams and calls, answers of the ledger, the room's life, the time. Out: encoded
//! messages to edges, each encoded once however many edges it goes to. An edge that does not take its
//! messages is let go: it comes again with its position and lacks nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tracing::{debug, info, warn};
use wire::RoomId;
use wire::events::Whence;
use wire::room::relay::{Act, Enter, FromHome, Say, ToHome, Verdict};

use super::Sequencers;
use super::core::{API, Core, EdgeId, Figures, Now, Output, Rules, Undone};
use super::ledger::{Committed, Event, EventKind, Gift, LedgerError};
use crate::registry::Place;
use crate::room::{Room, State};

/// Inputs of one room before their senders wait.
pub(super) const INBOX: usize = 1024;
/// Messages one edge may have waiting; one more and it is let go.
pub(super) const EDGE_QUEUE: usize = 1024;
/// How often the core looks at the time.
const POLL_EVERY: Duration = Duration::from_millis(250);
/// How long a room without edges keeps its past.
const IDLE: Duration = Duration::from_secs(60);
/// When gifts are to be tried again where no ledger is configured.
const NO_LEDGER_RETRY: Duration = Duration::from_secs(30);

/// What a room's task takes.
pub(super) enum Input {
    Enter(EdgeId, Enter, mpsc::Sender<Bytes>),
    Hear(EdgeId, ToHome),
    Leave(EdgeId),
    /// Said through the API.
    Post(Box<Say>, oneshot::Sender<Verdict>),
    Act(String, Act, oneshot::Sender<Result<(), Undone>>),
    Figures(oneshot::Sender<Figures>),
}

/// What the ledger has answered about a gift.
enum Answered {
    Committed(Gift, Result<Committed, LedgerError>),
    Found(Gift, Result<Option<Committed>, LedgerError>),
}

pub(super) struct Task {
    id: RoomId,
    shared: Arc<Sequencers>,
    room: Arc<Room>,
    core: Core,
    inbox: mpsc::Receiver<Input>,
    edges: HashMap<EdgeId, mpsc::Sender<Bytes>>,
    posts: HashMap<u64, oneshot::Sender<Verdict>>,
    next_post: u64,
    commits: JoinSet<Option<Answered>>,
    rules: watch::Receiver<Rules>,
    state: State,
    started: Instant,
    /// Since when no edge has been here.
    empty_since: Option<Instant>,
    out: Vec<Output>,
}

impl Task {
    pub(super) fn new(
        shared: &Arc<Sequencers>,
        room: Arc<Room>,
        inbox: mpsc::Receiver<Input>,
    ) -> Self {
        let mut rules = shared.rules.subscribe();
        let started = Instant::now();
        let known = rules.borrow_and_update().clone();
        let core =
            Core::new(now(started), room.id().clone(), room.epoch(), room.has_moved(), known);
        Self {
            id: room.id().clone(),
            shared: Arc::clone(shared),
            room,
            core,
            inbox,
            edges: HashMap::new(),
            posts: HashMap::new(),
            next_post: 0,
            commits: JoinSet::new(),
            rules,
            state: State::Idle,
            started,
            empty_since: Some(started),
            out: Vec::new(),
        }
    }

    pub(super) async fn run(mut self) {
        self.room.hold(true).await;
        self.recall_gifts();
        let mut facts = self.room.watch_facts();
        self.follow_stream();
        let mut poll = interval(POLL_EVERY);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let closed = self.room.closed().clone();
            let settles =
                self.core.settles_at_ms().map(|ms| self.started + Duration::from_millis(ms));
            tokio::select! {
                biased;
                input = self.inbox.recv() => match input {
                    Some(input) => self.input(input),
                    None => break,
                },
                Some(answered) = self.commits.join_next(), if !self.commits.is_empty() => {
                    let now = now(self.started);
                    match answered {
                        Ok(Some(Answered::Committed(gift, result))) => {
                            self.core.committed(now, &gift, result, &mut self.out);
                        }
                        Ok(Some(Answered::Found(gift, result))) => {
                            self.core.found(now, &gift, result, &mut self.out);
                        }
                        _ => {}
                    }
                }
                changed = facts.changed(), if !closed.is_cancelled() => {
                    // Its end is seen by the room's closing.
                    if changed.is_ok() {
                        self.follow_stream();
                    } else if !self.follow_room().await {
                        break;
                    } else {
                        facts = self.room.watch_facts();
                    }
                }
                () = closed.cancelled() => {
                    if !self.follow_room().await {
                        break;
                    }
                    facts = self.room.watch_facts();
                }
                _ = self.rules.changed() => {
                    let rules = self.rules.borrow_and_update().clone();
                    self.core.set_rules(rules);
                }
                _ = poll.tick() => self.core.poll(now(self.started), &mut self.out),
                () = until(settles) => self.core.poll(now(self.started), &mut self.out),
            }
            self.carry_out();
            if self.empty_since.is_some_and(|since| since.elapsed() >= IDLE) {
                debug!(room = %self.id, "nobody is here; the room's interaction ends");
                break;
            }
        }
        self.shared.forget(&self.id, &mut self.inbox);
        self.room.hold(false).await;
    }

    fn input(&mut self, input: Input) {
        let now = now(self.started);
        match input {
            Input::Enter(edge, enter, queue) => {
                self.edges.insert(edge, queue);
                self.empty_since = None;
                self.core.enter(now, edge, enter, &mut self.out);
            }
            Input::Hear(edge, said) => self.core.hear(now, edge, said, &mut self.out),
            Input::Leave(edge) => self.leave(edge),
            Input::Post(mut say, answer) => {
                self.next_post += 1;
                say.request = self.next_post;
                self.posts.insert(self.next_post, answer);
                self.core.hear(now, API, ToHome::Say(*say), &mut self.out);
            }
            Input::Act(by, act, answer) => {
                let done = self.core.act(now, &by, act, &mut self.out);
                // The caller may have hung up.
                let _ = answer.send(done);
            }
            Input::Figures(answer) => {
                let _ = answer.send(self.core.figures());
            }
        }
    }

    fn leave(&mut self, edge: EdgeId) {
        self.edges.remove(&edge);
        self.core.leave(edge);
        if self.edges.is_empty() && self.empty_since.is_none() {
            self.empty_since = Some(Instant::now());
        }
    }

    fn carry_out(&mut self) {
        for output in std::mem::take(&mut self.out) {
            match output {
                Output::To(API, FromHome::Said { request, verdict }) => {
                    if let Some(answer) = self.posts.remove(&request) {
                        let _ = answer.send(verdict);
                    }
                }
                Output::To(edge, message) => self.send(edge, encode(&message)),
                Output::All(message) => {
                    let bytes = encode(&message);
                    let edges: Vec<_> = self.edges.keys().copied().collect();
                    edges.into_iter().for_each(|edge| self.send(edge, bytes.clone()));
                }
                Output::Commit(gift) => self.commit(gift),
                Output::Find(gift) => self.find(gift),
                Output::Mark(id, place) => {
                    let Some(ledger) = self.shared.ledger.clone() else { continue };
                    let room = self.id.clone();
                    self.commits.spawn(async move {
                        if let Err(error) = ledger.mark(room, id, place).await {
                            warn!(id, %error, "a gift's place is not marked; it is given out again");
                        }
                        None
                    });
                }
                Output::Note(uid, whence, kind) => self.note(uid, &whence, kind),
                Output::Count(count) => self.shared.metrics.count(count),
            }
        }
    }

    fn send(&mut self, edge: EdgeId, bytes: Bytes) {
        let Some(queue) = self.edges.get(&edge) else { return };
        if queue.try_send(bytes).is_err() {
            debug!(room = %self.id, edge, "an edge does not take its messages; let go");
            self.shared.metrics.lagged();
            self.leave(edge);
        }
    }

    fn commit(&mut self, gift: Gift) {
        let ledger = self.shared.ledger.clone();
        self.commits.spawn(async move {
            let result = match ledger {
                Some(ledger) => ledger.commit(gift.clone()).await,
                None => Err(LedgerError::Unavailable { retry_after: NO_LEDGER_RETRY }),
            };
            Some(Answered::Committed(gift, result))
        });
    }

    fn find(&mut self, gift: Gift) {
        let ledger = self.shared.ledger.clone();
        self.commits.spawn(async move {
            let Gift { room, uid, cid, .. } = gift.clone();
            let result = match ledger {
                Some(ledger) => ledger.find(room, uid, cid).await,
                None => Ok(None),
            };
            Some(Answered::Found(gift, result))
        });
    }

    /// Gives out what a home before this one committed and did not give out, as soon as the ledger says
    /// what that is.
    fn recall_gifts(&mut self) {
        let Some(ledger) = self.shared.ledger.clone() else { return };
        let (room, shared) = (self.id.clone(), Arc::clone(&self.shared));
        let epoch = self.room.epoch();
        self.commits.spawn(async move {
            let left = loop {
                match ledger.unmarked(room.clone(), epoch).await {
                    Ok(left) => break left,
                    Err(LedgerError::Unavailable { retry_after }) => {
                        debug!(%room, "the ledger is away; gifts left by an earlier home wait");
                        sleep(retry_after).await;
                    }
                    Err(error) => {
                        warn!(%room, %error, "gifts left by an earlier home are not known");
                        break Vec::new();
                    }
                }
            };
            for committed in left {
                shared.repost(&room, committed).await;
            }
            None
        });
    }

    fn note(&self, uid: String, whence: &Whence, kind: EventKind) {
        let Some(ledger) = &self.shared.ledger else { return };
        let room = self.id.clone();
        let at_unix_ms = now(self.started).unix_ms;
        let is_known = whence.region != wire::Region::default();
        let region = if is_known { whence.region.as_str().to_owned() } else { String::new() };
        let (client, address) = (whence.client.name(), whence.address.name());
        ledger.note(Event { at_unix_ms, room, uid, region, client, address, kind });
    }

    /// Tells of the stream's life.
    fn follow_stream(&mut self) {
        let state = self.room.facts().state;
        if state == self.state {
            return;
        }
        let word = match state {
            State::Live => "live",
            State::Grace => "gap",
            State::Idle => "ended",
        };
        self.state = state;
        self.core.stream(now(self.started), word, &mut self.out);
    }

    /// The room has closed: goes on under its next epoch, or tells the edges where it is now. Returns
    /// whether it goes on here.
    async fn follow_room(&mut self) -> bool {
        if self.edges.is_empty() {
            return false;
        }
        let found = match self.shared.registry.get(&self.id) {
            Some(room) => Ok(Some(Place::Here(room))),
            None => self.shared.registry.open(&self.id, true).await,
        };
        match found {
            Ok(Some(Place::Here(room))) => {
                info!(room = %self.id, epoch = %room.epoch(), "the interaction goes on");
                room.hold(true).await;
                self.core.adopt(room.epoch(), &mut self.out);
                self.room = room;
                self.follow_stream();
                true
            }
            Ok(Some(Place::There(grant))) => {
                self.out.push(Output::All(FromHome::NotHome { hint: Some(grant.home) }));
                self.carry_out();
                false
            }
            Ok(None) | Err(_) => {
                self.out.push(Output::All(FromHome::Busy));
                self.carry_out();
                false
            }
        }
    }
}

impl Sequencers {
    /// Has a gift given out that an earlier home left.
    async fn repost(&self, room: &RoomId, committed: Committed) {
        let Some(inbox) = self.inbox(room) else { return };
        let gift = committed.gift;
        let say = super::say_again(&gift);
        let (answer, _) = oneshot::channel();
        // By the ordinary path: the ledger finds it committed and without a place.
        let _ = inbox.send(Input::Post(Box::new(say), answer)).await;
    }
}

fn encode(message: &FromHome) -> Bytes {
    match wire::frame::encode_body("FromHome", message) {
        Ok(bytes) => bytes,
        // Only a bug in the type could; an empty frame ends the stream as unreadable.
        Err(error) => {
            tracing::error!(%error, "a message cannot be encoded");
            Bytes::new()
        }
    }
}

/// The time of an input.
pub(super) fn now(started: Instant) -> Now {
    let unix_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
    Now { ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX), unix_ms }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
