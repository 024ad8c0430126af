//! One task per room of an edge: keeps the link to the home, passes on what members say, and makes the
//! ticks.
//!
//! In: the home's messages, members' requests, the time. Out: ticks in the hub's window, answers to
//! members. The link is found anew for as long as somebody is here; members stay meanwhile.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::BoxFuture;
use prost::Message as _;
use rand::Rng;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::{debug, info};
use wire::events::EventKind;
use wire::room::model::{Accepted, Held, Refused};
use wire::room::relay::{Enter, FromHome, Say, ToHome, Verdict};
use wire::room::{Code, Item, Server, User};

use super::homes::{Link, NoLink};
use super::shard::ToShard;
use super::tick::Tick;
use super::{Hub, Phase, Provenance, Want};

/// Requests of members that wait for their answer; beyond, they are told `unavailable`.
const MAX_PENDING: usize = 4096;
/// How long a request waits for its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// When to try again what could not be passed on, in milliseconds.
const RETRY_MS: u32 = 1_000;
/// How often likes are told to the home.
const LIKES_EVERY: Duration = Duration::from_millis(250);
/// How often the home is told who is here.
const PRESENT_EVERY_MS: u64 = 2_000;
/// How long a room without members keeps its link.
const IDLE_MS: u64 = 30_000;
/// The first pause after a failed try; doubles up to [`MAX_PAUSE_MS`], drawn from half to all.
const FIRST_PAUSE_MS: u64 = 100;
/// See [`FIRST_PAUSE_MS`].
const MAX_PAUSE_MS: u64 = 2_000;
/// Tries to enter a room nobody has opened, before its members are told that it is gone.
const MAX_REFUSALS: u32 = 3;

/// What members want of their room's task.
pub(crate) enum Up {
    /// To say, give or moderate something.
    Ask { asker: Asker, user: User, from: Provenance, cid: String, want: Want },
    /// Somebody came.
    Came(User),
    /// Somebody came who may open the room, which was found closed.
    Open,
}

/// Who is told what became of it.
pub(crate) enum Asker {
    /// A member on a shard.
    Member { shard: mpsc::Sender<ToShard>, slot: usize, turn: u64 },
    /// A request of its own.
    Once(oneshot::Sender<Server>),
}

struct Asked {
    asker: Asker,
    cid: String,
    since: Instant,
}

pub(super) struct Conductor {
    hub: Arc<Hub>,
    ups: mpsc::Receiver<Up>,
    link: Option<Link>,
    entering: Option<BoxFuture<'static, Result<Link, NoLink>>>,
    /// When the home is looked for again.
    again: Option<Instant>,
    pause_ms: u64,
    refusals: u32,
    /// The home has let us in; the counters that follow the past have not come yet.
    is_let_in: bool,
    pending: HashMap<u64, Asked>,
    next_request: u64,
    present_ms: u64,
    /// The home has not been told yet who is here by name.
    is_anonymous: bool,
    likes_told: u64,
    empty_since_ms: Option<u64>,
}

impl Conductor {
    pub(super) fn new(hub: Arc<Hub>, ups: mpsc::Receiver<Up>) -> Self {
        Self {
            hub,
            ups,
            link: None,
            entering: None,
            again: Some(Instant::now()),
            pause_ms: FIRST_PAUSE_MS,
            refusals: 0,
            is_let_in: false,
            pending: HashMap::new(),
            next_request: 0,
            present_ms: 0,
            is_anonymous: true,
            likes_told: 0,
            empty_since_ms: Some(0),
        }
    }

    pub(super) async fn run(mut self) {
        let mut tend = interval(LIKES_EVERY);
        tend.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let abort = self.hub.shared.abort.clone();
        loop {
            let due = self.tick_due();
            tokio::select! {
                biased;
                () = abort.cancelled() => break,
                said = from_home(&mut self.link) => match said {
                    Some(said) => self.hear(said).await,
                    None => self.lose(),
                },
                entered = entering(&mut self.entering) => self.entered(entered),
                up = self.ups.recv() => match up {
                    Some(up) => self.up(up).await,
                    None => break,
                },
                () = until(due) => self.tick(due),
                () = until(self.again) => self.enter(),
                _ = tend.tick() => {
                    if self.tend().await {
                        break;
                    }
                }
            }
        }
        self.hub.shared.forget(&self.hub);
        let left = self.hub.core.lock().disperse();
        self.note_left(left);
    }

    fn note_left(&self, left: Vec<(Arc<User>, Provenance)>) {
        for (user, from) in left {
            self.hub.shared.note(&self.hub.id, EventKind::LEAVE, &user, from);
        }
    }

    fn enter(&mut self) {
        self.again = None;
        let hub = &self.hub;
        // A room that nobody has opened is opened only when it was not found.
        let is_named = hub.is_named.load(Ordering::Acquire);
        let open = self.refusals > 0 && (is_named || hub.shared.may_open(hub.opener));
        if self.refusals > 0 && !open {
            hub.phase.send_replace(Phase::NoRoom);
        }
        let past = hub.core.lock().past();
        let incarnation = hub.shared.incarnation;
        let enter = Enter { room: hub.id.clone(), incarnation, open, past };
        self.entering = Some(hub.shared.homes.enter(enter));
    }

    fn entered(&mut self, entered: Result<Link, NoLink>) {
        self.entering = None;
        match entered {
            Ok(link) => {
                self.link = Some(link);
                self.is_let_in = false;
                self.present_ms = 0;
                self.is_anonymous = true;
                self.likes_told = 0;
            }
            Err(NoLink::NoRoom) => {
                self.refusals += 1;
                if self.refusals >= MAX_REFUSALS {
                    self.hub.phase.send_replace(Phase::NoRoom);
                }
                let first = self.refusals == 1;
                self.rest(if first { 0 } else { self.pause_ms });
            }
            Err(_) => self.rest(self.pause_ms),
        }
    }

    fn rest(&mut self, pause_ms: u64) {
        let jittered = pause_ms / 2 + rand::rng().random_range(0..=pause_ms / 2);
        self.again = Some(Instant::now() + Duration::from_millis(jittered));
        self.pause_ms = (self.pause_ms * 2).min(MAX_PAUSE_MS);
    }

    fn lose(&mut self) {
        debug!(room = %self.hub.id, "the home is lost");
        self.link = None;
        self.rest(FIRST_PAUSE_MS);
    }

    async fn hear(&mut self, said: FromHome) {
        match said {
            FromHome::Recall => {
                let items = self.hub.core.lock().history();
                self.send(ToHome::History { items });
            }
            FromHome::Said { request, verdict } => self.answer(request, verdict).await,
            FromHome::NotHome { .. } | FromHome::NoRoom | FromHome::Busy => self.lose(),
            said => {
                let is_whole = matches!(said, FromHome::Counters(_));
                self.is_let_in |= matches!(said, FromHome::Entered { .. });
                self.hub.core.lock().hear(self.hub.now_ms(), said);
                // What the home has of the past comes between the two: who came in before it would be
                // told that there is none.
                if is_whole && std::mem::take(&mut self.is_let_in) {
                    self.pause_ms = FIRST_PAUSE_MS;
                    self.refusals = 0;
                    if !matches!(*self.hub.phase.borrow(), Phase::Carried) {
                        info!(room = %self.hub.id, "carrying the room's interaction");
                    }
                    self.hub.phase.send_replace(Phase::Carried);
                }
            }
        }
    }

    async fn answer(&mut self, request: u64, verdict: Verdict) {
        let Some(asked) = self.pending.remove(&request) else { return };
        self.hub.shared.metrics.answer_seconds.observe(asked.since.elapsed().as_secs_f64());
        let c = asked.cid;
        let said = match verdict {
            Verdict::Placed { id, offset } => {
                let f = self.hub.core.lock().fanout().to_owned();
                Server::Ok(Accepted { c, id, o: Some(offset), f })
            }
            Verdict::Local { item } => match Item::decode_shared(&item) {
                Ok(item) => {
                    let id = item.id.clone();
                    self.hub.core.lock().show(item);
                    Server::Ok(Accepted { c, id, o: None, f: "local".into() })
                }
                Err(_) => refusal(c, Code::Unavailable, Some(RETRY_MS)),
            },
            Verdict::Held => Server::Held(Held { c }),
            Verdict::Done => Server::Ok(Accepted { c, ..Accepted::default() }),
            Verdict::Refused { code, retry_ms } => refusal(c, code, retry_ms),
        };
        tell(asked.asker, said).await;
    }

    async fn up(&mut self, up: Up) {
        match up {
            Up::Came(user) => {
                self.send(ToHome::Came { user: user.encode_to_vec().into() });
            }
            Up::Open => {
                self.refusals = self.refusals.min(1);
                self.again = self.again.map(|_| Instant::now());
            }
            Up::Ask { asker, user, from, cid, want } => {
                self.next_request += 1;
                let request = self.next_request;
                let user = user.encode_to_vec().into();
                let asked = match want {
                    Want::Say(what) => {
                        let (address, whence) = (from.address, self.hub.shared.whence(from));
                        let say = Say { request, user, address, cid: cid.clone(), what };
                        ToHome::SayFrom(say, whence)
                    }
                    Want::Act(act) => ToHome::Act { request, user, act },
                };
                if self.pending.len() < MAX_PENDING && self.send(asked) {
                    self.hub.shared.metrics.accepted.inc();
                    let since = Instant::now();
                    self.pending.insert(request, Asked { asker, cid, since });
                } else {
                    self.hub.shared.metrics.refuse(Code::Unavailable);
                    tell(asker, refusal(cid, Code::Unavailable, Some(RETRY_MS))).await;
                }
            }
        }
    }

    fn send(&self, said: ToHome) -> bool {
        self.link.as_ref().is_some_and(|link| link.to.try_send(said).is_ok())
    }

    /// When the next tick is due, if there is something to show.
    fn tick_due(&self) -> Option<Instant> {
        let now_ms = self.hub.now_ms();
        let core = self.hub.core.lock();
        let due_ms =
            core.has_news(now_ms).then(|| core.next_tick_ms(self.hub.shared.is_pressed()))?;
        Some(self.hub.started + Duration::from_millis(due_ms))
    }

    fn tick(&self, due: Option<Instant>) {
        let metrics = &self.hub.shared.metrics;
        let now = Instant::now();
        // A tick after an idle time was due when its item came, which is now.
        let lag = due.map_or(Duration::ZERO, |due| now.saturating_duration_since(due));
        if lag < Duration::from_secs(1) {
            metrics.tick_lag_seconds.observe(lag.as_secs_f64());
        }
        let mut core = self.hub.core.lock();
        let (batch, remove, merged) = core.tick(self.hub.now_ms(), self.hub.shared.is_pressed());
        batch.d.iter().for_each(|(&lane, &count)| metrics.shed(lane, count));
        metrics.merged.inc_by(u64::from(merged));
        let mut window = self.hub.window.write();
        window.push(Arc::new(Tick::new(now, batch, remove)));
        let next = window.next();
        drop((window, core));
        self.hub.changes.send_replace(next);
    }

    /// Tells the home what has changed, and members who waited too long. Returns whether nobody has
    /// been here for long.
    async fn tend(&mut self) -> bool {
        let now_ms = self.hub.now_ms();
        let (likes, known, left, present) = {
            let mut core = self.hub.core.lock();
            let left = core.expire(now_ms);
            let is_due = self.link.is_some() && now_ms >= self.present_ms + PRESENT_EVERY_MS;
            let present = is_due.then(|| (core.census(), core.names(self.is_anonymous)));
            (core.likes(), core.likes_known(self.hub.shared.incarnation), left, present)
        };
        self.note_left(left);
        if let Some(((census, sockets), names)) = present {
            let sent = self.send(ToHome::Present { census, sockets });
            // What cannot be told now is told whole the next time.
            let told = names.is_none_or(|users| sent && self.send(ToHome::Members { users }));
            self.is_anonymous = !told;
            if sent {
                self.present_ms = now_ms;
                // What the home has not confirmed by now is told again.
                self.likes_told = known;
            }
        }
        if likes != self.likes_told && self.send(ToHome::Likes { total: likes }) {
            self.likes_told = likes;
        }
        let is_late = |asked: &Asked| asked.since.elapsed() >= ANSWER_TIMEOUT;
        let late: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, asked)| is_late(asked))
            .map(|(&request, _)| request)
            .collect();
        for request in late {
            let verdict = Verdict::Refused { code: Code::Unavailable, retry_ms: Some(RETRY_MS) };
            self.answer(request, verdict).await;
        }
        self.empty_since_ms = match self.hub.is_empty() {
            true => Some(self.empty_since_ms.unwrap_or(now_ms)),
            false => None,
        };
        let leaving = self.hub.shared.drain.is_cancelled() && self.hub.is_empty();
        leaving || self.empty_since_ms.is_some_and(|since| now_ms >= since + IDLE_MS)
    }
}

/// A refusal as members read it.
pub(super) fn refusal(cid: String, code: Code, retry_ms: Option<u32>) -> Server {
    Server::Err(Refused { c: Some(cid), code: code.label().to_owned(), retry_ms })
}

async fn tell(asker: Asker, said: Server) {
    match asker {
        Asker::Member { shard, slot, turn } => {
            // A shard never waits for this task, so this ends.
            let _ = shard.send(ToShard::Answer { slot, turn, said }).await;
        }
        Asker::Once(answer) => drop(answer.send(said)),
    }
}

async fn from_home(link: &mut Option<Link>) -> Option<FromHome> {
    match link {
        Some(link) => link.from.recv().await,
        None => std::future::pending().await,
    }
}

async fn entering(
    entering: &mut Option<BoxFuture<'static, Result<Link, NoLink>>>,
) -> Result<Link, NoLink> {
    match entering {
        Some(entering) => entering.await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
