//! The rooms of an edge: who is in them, and what they are sent.
//!
//! ```text
//!  /ws ─▶ door ─▶ shard ── requests ─▶ conductor ─▶ home
//!                   ▲                      │ ▲
//!                   └── window of ticks ◀──┘ └── items, counters
//! ```
//!
//! [`door`] lets members in, [`pass`] says who they are and what they may; a [`shard`] walks the sockets of some of them; a [`conductor`] per room keeps
//! the link to the home ([`homes`]) and makes the ticks, whose rules are in [`core`] and [`sampler`].
//! A tick is rendered once ([`tick`]) and shared by all. Nothing here knows media.

mod acts;
mod allowance;
mod conductor;
mod core;
pub(crate) mod door;
pub mod homes;
mod member;
mod metrics;
mod pass;
mod sampler;
mod shard;
mod text;
mod tick;

use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cluster::access::Access;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use parking_lot::{Mutex, RwLock};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::events::{AddressClass, ClientKind, Event, EventKind, Id, Whence};
use wire::room::model::{Position, Welcome};
use wire::room::relay::{Act, Saying};
use wire::room::{Client, Code, Role, Server, User};
use wire::{Region, RoomId};

use self::allowance::{Allowance, Denied};
use self::conductor::{Conductor, Up};
use self::core::Core;
use self::homes::Homes;
pub(crate) use self::metrics::{Ended, Metrics};
use self::pass::Pass;
use self::shard::Shards;
pub(crate) use self::shard::spread;
use self::tick::Window;
use crate::config::RoomPace;
use crate::http::listener::Addresses;

/// Rooms one edge carries at a time; one more is answered "overloaded".
pub const MAX_ROOMS: usize = 20_000;
/// How long a first member waits for its room: a home may be finding its past.
const CARRY_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests of members that wait for their room's task; beyond, they are told `unavailable`.
const UPS: usize = 1024;
/// Over how long members of a node that shuts down are spread, in milliseconds.
const SPREAD_MS: u32 = 10_000;
/// Rooms one address may open in [`OPEN_WINDOW`].
const MAX_OPENED: u32 = 10;
/// See [`MAX_OPENED`].
const OPEN_WINDOW: Duration = Duration::from_secs(60);
/// Addresses whose openings are remembered. Beyond, all are forgotten.
const MAX_OPENERS: usize = 10_000;
/// Rooms that guests may have opened at one node.
const MAX_GUEST_ROOMS: usize = 1_000;

/// Keeps what is told of members: who came and went. Never waits; what it has no room for it drops and
/// counts.
pub trait Journal: Debug + Send + Sync + 'static {
    /// Keeps an event.
    fn note(&self, event: Event);
}

/// On which terms members come in.
#[derive(Debug)]
pub(crate) struct Terms {
    /// Whether they need no token.
    pub(crate) allow_guests: bool,
    /// Whose tokens let them in.
    pub(crate) access: Arc<Access>,
    /// Sites whose pages may connect; empty is all.
    pub(crate) origins: Vec<String>,
    /// Connections of guests by their addresses, loopback aside.
    pub(crate) guests: Arc<Addresses>,
    /// Where this edge stands.
    pub(crate) region: Region,
    /// Who is told of those who come and go.
    pub(crate) journal: Option<Arc<dyn Journal>>,
}

/// What all rooms of an edge share.
pub(crate) struct Shared {
    pub(crate) homes: Arc<dyn Homes>,
    pub(crate) metrics: Metrics,
    pub(crate) terms: Terms,
    pub(crate) drain: CancellationToken,
    pub(crate) abort: CancellationToken,
    /// Whether members should go to other edges.
    pub(crate) leaving: watch::Receiver<bool>,
    tasks: TaskTracker,
    incarnation: u64,
    pace: RoomPace,
    hubs: DashMap<RoomId, Arc<Hub>>,
    openers: Mutex<Openers>,
    pressed: AtomicBool,
    cpus: usize,
}

#[derive(Default)]
struct Openers {
    since: Option<Instant>,
    opened: std::collections::HashMap<IpAddr, u32>,
}

/// What a member wants of the room's home.
#[derive(Debug)]
pub(crate) enum Want {
    /// To say or give something.
    Say(Saying),
    /// To moderate.
    Act(Act),
}

/// Where a member comes from, as far as it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Provenance {
    pub(crate) address: IpAddr,
    pub(crate) client: ClientKind,
}

/// What is to become of something said.
pub(crate) enum Considered {
    /// It goes to the home, under this client id.
    Pass(String, Want),
    /// It is refused here.
    Refuse(String, Code, Option<u32>),
    /// It is answered here.
    Answer(Server),
    /// Under this client id, a newer token.
    Renew(String, String),
    /// Nothing more.
    Done,
    /// It does not belong here.
    Wrong,
}

/// The longest client id, in bytes.
const MAX_CID: usize = 64;
/// How often it is looked whether this node has enough CPU.
const PRESSURE_EVERY: Duration = Duration::from_millis(200);
/// A task that waits so long for its turn is on a node without enough CPU.
const PRESSURE_LAG: Duration = Duration::from_millis(100);
/// How long there must have been enough before it is believed.
const PRESSURE_KEPT: Duration = Duration::from_secs(5);

/// Says whether tasks of this node wait for the CPU.
async fn feel_pressure(shared: Arc<Shared>) {
    let mut last = None;
    loop {
        let due = Instant::now() + PRESSURE_EVERY;
        tokio::select! {
            () = shared.drain.cancelled() => return,
            () = tokio::time::sleep_until(due) => {}
        }
        if due.elapsed() >= PRESSURE_LAG {
            last = Some(Instant::now());
        }
        shared.press(last.is_some_and(|at| at.elapsed() < PRESSURE_KEPT));
    }
}

/// Why a room is not carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotCarried {
    /// Nobody has opened it, and this caller may not.
    NoRoom,
    /// Not now.
    Unavailable,
}

/// How far a room has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its home is being looked for.
    Seeking,
    /// It has been entered.
    Carried,
    /// Nobody has opened it.
    NoRoom,
}

/// One room of this edge.
pub(crate) struct Hub {
    pub(crate) id: RoomId,
    pub(crate) shared: Arc<Shared>,
    pub(crate) core: Mutex<Core>,
    pub(crate) window: RwLock<Window>,
    /// The number of the tick after the newest.
    pub(crate) changes: watch::Sender<u64>,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) ups: mpsc::Sender<Up>,
    pub(crate) shards: Shards,
    /// Who asked for the room first.
    opener: IpAddr,
    /// Whether somebody is here whose token names the room: they may open it.
    is_named: AtomicBool,
    started: Instant,
}

impl Shared {
    pub(crate) fn new(
        homes: Arc<dyn Homes>,
        metrics: Metrics,
        terms: Terms,
        (drain, abort): (CancellationToken, CancellationToken),
        leaving: watch::Receiver<bool>,
        (tasks, cpus, pace): (TaskTracker, usize, RoomPace),
    ) -> Arc<Self> {
        let shared = Arc::new(Self {
            homes,
            metrics,
            terms,
            drain,
            abort,
            leaving,
            tasks,
            incarnation: rand::random(),
            pace,
            hubs: DashMap::new(),
            openers: Mutex::default(),
            pressed: AtomicBool::new(false),
            cpus,
        });
        shared.tasks.spawn(feel_pressure(Arc::clone(&shared)));
        shared
    }

    /// The room, entered at its home.
    pub(crate) async fn carry(
        self: &Arc<Self>,
        room: &RoomId,
        (opener, pass): (IpAddr, Pass),
    ) -> Result<Arc<Hub>, NotCarried> {
        let hub = self.hub(room, opener)?;
        let mut is_news = pass.opens && !hub.is_named.swap(true, Ordering::AcqRel);
        loop {
            let mut phase = hub.phase.subscribe();
            let known = phase.wait_for(|phase| *phase != Phase::Seeking);
            let known = timeout(CARRY_TIMEOUT, known).await;
            let known = known.ok().and_then(Result::ok).map(|phase| *phase);
            match known {
                Some(Phase::Carried) => return Ok(hub),
                // Those before were not allowed to open it; this one is.
                Some(Phase::NoRoom) if is_news => {
                    is_news = false;
                    hub.phase.send_replace(Phase::Seeking);
                    if hub.ups.send(Up::Open).await.is_err() {
                        return Err(NotCarried::Unavailable);
                    }
                }
                Some(Phase::NoRoom) => return Err(NotCarried::NoRoom),
                _ => return Err(NotCarried::Unavailable),
            }
        }
    }

    fn hub(self: &Arc<Self>, room: &RoomId, opener: IpAddr) -> Result<Arc<Hub>, NotCarried> {
        if let Some(hub) = self.hubs.get(room) {
            return Ok(Arc::clone(&hub));
        }
        if self.hubs.len() >= MAX_ROOMS || self.drain.is_cancelled() {
            return Err(NotCarried::Unavailable);
        }
        match self.hubs.entry(room.clone()) {
            Entry::Occupied(known) => Ok(Arc::clone(known.get())),
            Entry::Vacant(free) => {
                let (ups, taken) = mpsc::channel(UPS);
                let hub = Arc::new(Hub {
                    id: room.clone(),
                    shared: Arc::clone(self),
                    core: Mutex::new(Core::new(SmallRng::from_rng(&mut rand::rng()), self.pace)),
                    window: RwLock::default(),
                    changes: watch::Sender::new(0),
                    phase: watch::Sender::new(Phase::Seeking),
                    ups,
                    shards: Shards::new(self.cpus),
                    opener,
                    is_named: AtomicBool::new(false),
                    started: Instant::now(),
                });
                free.insert(Arc::clone(&hub));
                self.metrics.hubs.inc();
                self.tasks.spawn(Conductor::new(Arc::clone(&hub), taken).run());
                Ok(hub)
            }
        }
    }

    /// The room's task is over.
    fn forget(&self, hub: &Arc<Hub>) {
        if self.hubs.remove_if(&hub.id, |_, known| Arc::ptr_eq(known, hub)).is_some() {
            self.metrics.hubs.dec();
        }
        hub.phase.send_if_modified(|phase| {
            let waits = *phase == Phase::Seeking;
            if waits {
                *phase = Phase::NoRoom;
            }
            waits
        });
    }

    /// Whether somebody at this address may open one more room that no token of theirs names.
    fn may_open(&self, opener: IpAddr) -> bool {
        if self.hubs.len() > MAX_GUEST_ROOMS {
            return false;
        }
        if opener.to_canonical().is_loopback() {
            return true;
        }
        let mut openers = self.openers.lock();
        let is_over = openers.since.is_none_or(|since| since.elapsed() >= OPEN_WINDOW);
        if is_over || openers.opened.len() >= MAX_OPENERS {
            *openers = Openers { since: Some(Instant::now()), ..Openers::default() };
        }
        let opened = openers.opened.entry(opener.to_canonical()).or_default();
        *opened += 1;
        *opened <= MAX_OPENED
    }

    /// Whether this node has not enough CPU: rooms are served more sparingly then, video first.
    pub(crate) fn is_pressed(&self) -> bool {
        self.pressed.load(Ordering::Relaxed)
    }

    /// Says whether this node has not enough CPU.
    pub(crate) fn press(&self, pressed: bool) {
        if self.pressed.swap(pressed, Ordering::Relaxed) != pressed {
            tracing::info!(pressed, "rooms are served more sparingly while the CPU is short");
        }
    }

    pub(crate) fn now_unix_ms(&self) -> u64 {
        door::unix_ms()
    }

    /// Whether members should come in elsewhere. Where there is no other edge, they may stay.
    pub(crate) fn is_draining(&self) -> bool {
        *self.leaving.borrow() && self.homes.has_others()
    }

    /// Resolves when members are to go elsewhere, once for each drain.
    pub(crate) async fn departure(&self, leaving: &mut watch::Receiver<bool>) {
        loop {
            if leaving.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            if *leaving.borrow_and_update() && self.homes.has_others() {
                return;
            }
        }
    }

    /// Keeps that somebody came or went.
    pub(crate) fn note(&self, room: &RoomId, kind: EventKind, user: &User, from: Provenance) {
        let Some(journal) = &self.terms.journal else { return };
        journal.note(Event {
            kind,
            at_unix_ms: self.now_unix_ms(),
            room: Some(room.clone()),
            user: Id::clip(&user.id),
            whence: self.whence(from),
            detail: Default::default(),
        });
    }

    /// Where somebody comes from, for the records.
    pub(crate) fn whence(&self, Provenance { address, client }: Provenance) -> Whence {
        Whence { region: self.terms.region.clone(), client, address: AddressClass::of(address) }
    }
}

impl Hub {
    /// Milliseconds since the room was first asked for.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_empty(&self) -> bool {
        self.shards.members() == 0
    }

    /// The answer to a hello, and the number of the first tick after it.
    pub(crate) fn welcome(
        &self,
        sid: &str,
        (user, pass): (&User, Pass),
        from: Option<&Position>,
    ) -> (Welcome, u64) {
        let edges = self.shared.homes.others();
        let core = self.core.lock();
        let now = (self.now_ms(), self.shared.now_unix_ms());
        let (mut welcome, how) = core.welcome(now, (sid.to_owned(), user), from, edges);
        welcome.may = pass.may();
        welcome.until = pass.until_s.map(|until| until.saturating_mul(1000));
        self.shared.metrics.resumed(how);
        // No tick is made while the core is held.
        (welcome, self.window.read().next())
    }

    /// What is to become of something said.
    pub(crate) fn consider(&self, user: &User, pass: Pass, said: Client) -> Considered {
        let considered = match said {
            Client::Pong(_) => return Considered::Done,
            Client::Hello(_) => return Considered::Wrong,
            Client::Like(like) => {
                let now_ms = self.now_ms();
                let mut core = self.core.lock();
                let counted = core.allowance(&user.id).map_or(0, |a| a.likes(now_ms, like.n));
                // Those of somebody who may not talk count nothing.
                core.like(if pass.chat { counted } else { 0 });
                return Considered::Done;
            }
            Client::Chat(chat) if !pass.chat => unauthorised(chat.c),
            Client::Chat(chat) => self.chat(user, chat),
            Client::Gift(give) if !pass.gift => unauthorised(give.c),
            Client::Gift(give) => match self.allowed(user, Allowance::gift) {
                Ok(()) => {
                    let gift = Saying::Gift { gift: give.g, count: give.n, order: give.auth };
                    Considered::Pass(give.c, Want::Say(gift))
                }
                Err(ms) => Considered::Refuse(give.c, Code::RateLimited, Some(ms)),
            },
            Client::Mod(said) if !pass.moderate => unauthorised(said.c),
            Client::Mod(said) => match self.allowed(user, Allowance::act) {
                Ok(()) => {
                    let c = said.c.clone();
                    match acts::act(said, self.shared.now_unix_ms()) {
                        Some(act) => Considered::Pass(c, Want::Act(act)),
                        None => Considered::Refuse(c, Code::BadRequest, None),
                    }
                }
                Err(ms) => Considered::Refuse(said.c, Code::RateLimited, Some(ms)),
            },
            Client::Who(who) => match self.allowed(user, Allowance::who) {
                Ok(()) => Considered::Answer(Server::Who(self.core.lock().people(who.c))),
                Err(ms) => Considered::Refuse(who.c, Code::RateLimited, Some(ms)),
            },
            Client::Token(renew) => Considered::Renew(renew.c, renew.token),
        };
        match considered {
            Considered::Pass(cid, _) | Considered::Renew(cid, _)
                if cid.is_empty() || cid.len() > MAX_CID =>
            {
                Considered::Refuse(cid, Code::BadRequest, None)
            }
            considered => considered,
        }
    }

    fn chat(&self, user: &User, chat: wire::room::model::Say) -> Considered {
        let text = match text::message(&chat.x) {
            Ok(text) => text,
            Err(code) => return Considered::Refuse(chat.c, code, None),
        };
        let (now_ms, trusted) = (self.now_ms(), user.r() >= Role::Mod);
        let mut core = self.core.lock();
        let allowance = core.allowance(&user.id);
        match allowance.map_or(Ok(()), |a| a.chat(now_ms, trusted, &chat.c, &text)) {
            Ok(()) => Considered::Pass(chat.c, Want::Say(Saying::Chat { text, pts: chat.pts })),
            Err(Denied::TooMany(ms)) => Considered::Refuse(chat.c, Code::RateLimited, Some(ms)),
            Err(Denied::Same(ms)) => Considered::Refuse(chat.c, Code::Duplicate, Some(ms)),
        }
    }

    /// Whether a user may do one more of something, or in how many milliseconds.
    fn allowed(
        &self,
        user: &User,
        take: impl FnOnce(&mut Allowance, u64) -> Result<(), Denied>,
    ) -> Result<(), u32> {
        let now_ms = self.now_ms();
        let mut core = self.core.lock();
        match core.allowance(&user.id).map_or(Ok(()), |allowance| take(allowance, now_ms)) {
            Ok(()) => Ok(()),
            Err(Denied::TooMany(ms) | Denied::Same(ms)) => Err(ms),
        }
    }

    /// What a newer token allows the same member; none if it is no such token.
    pub(crate) fn renew(&self, user: &User, token: &str) -> Option<Pass> {
        let terms = &self.shared.terms;
        let papers = pass::Papers { token: Some(token), ..Default::default() };
        let now_s = self.shared.now_unix_ms() / 1000;
        let known = pass::identify(&terms.access, terms.allow_guests, &self.id, papers, now_s);
        known.ok().filter(|(known, _)| known.id == user.id).map(|(_, pass)| pass)
    }

    /// Says and keeps that somebody came.
    pub(crate) fn came(&self, user: &User, from: Provenance) {
        self.shared.note(&self.id, EventKind::JOIN, user, from);
        self.tell_came(user);
    }

    /// Tells the home of an arrival, if it has time for that.
    fn tell_came(&self, user: &User) {
        let _ = self.ups.try_send(Up::Came(user.clone()));
    }
}

fn unauthorised(cid: String) -> Considered {
    Considered::Refuse(cid, Code::Unauthorised, None)
}
