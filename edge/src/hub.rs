//! The rooms of an edge: who is in them, and what they are sent.
//!
//! ```text
//!  /ws ─▶ door ─▶ shard ── requests ─▶ conductor ─▶ home
//!                   ▲                      │ ▲
//!                   └── window of ticks ◀──┘ └── items, counters
//! ```
//!
//! [`door`] lets members in; a [`shard`] walks the sockets of some of them; a [`conductor`] per room keeps
//! the link to the home ([`homes`]) and makes the ticks, whose rules are in [`core`] and [`sampler`].
//! A tick is rendered once ([`tick`]) and shared by all. Nothing here knows media.

mod allowance;
mod conductor;
mod core;
pub(crate) mod door;
pub mod homes;
mod member;
mod metrics;
mod sampler;
mod shard;
mod text;
mod tick;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use parking_lot::{Mutex, RwLock};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::RoomId;
use wire::room::model::{Position, Welcome};
use wire::room::relay::Saying;
use wire::room::{Client, Code, Role, User};

use self::allowance::Denied;
use self::conductor::{Conductor, Up};
use self::core::Core;
use self::homes::Homes;
pub(crate) use self::metrics::Metrics;
use self::shard::Shards;
use self::tick::Window;
use crate::config::RoomPace;

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

/// What all rooms of an edge share.
pub(crate) struct Shared {
    pub(crate) homes: Arc<dyn Homes>,
    pub(crate) metrics: Metrics,
    pub(crate) allow_guests: bool,
    pub(crate) drain: CancellationToken,
    pub(crate) abort: CancellationToken,
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

/// What is to become of something said.
pub(crate) enum Considered {
    /// It goes to the home, under this client id.
    Pass(String, Saying),
    /// It is refused here.
    Refuse(String, Code, Option<u32>),
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
    started: Instant,
}

impl Shared {
    pub(crate) fn new(
        homes: Arc<dyn Homes>,
        metrics: Metrics,
        allow_guests: bool,
        (drain, abort): (CancellationToken, CancellationToken),
        (tasks, cpus, pace): (TaskTracker, usize, RoomPace),
    ) -> Arc<Self> {
        let shared = Arc::new(Self {
            homes,
            metrics,
            allow_guests,
            drain,
            abort,
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
        opener: IpAddr,
    ) -> Result<Arc<Hub>, NotCarried> {
        let hub = self.hub(room, opener)?;
        let mut phase = hub.phase.subscribe();
        let known = timeout(CARRY_TIMEOUT, phase.wait_for(|phase| *phase != Phase::Seeking)).await;
        let known = known.ok().and_then(Result::ok).map(|phase| *phase);
        match known {
            Some(Phase::Carried) => Ok(hub),
            Some(Phase::NoRoom) => Err(NotCarried::NoRoom),
            _ => Err(NotCarried::Unavailable),
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

    /// Whether somebody at this address may open one more room.
    fn may_open(&self, opener: IpAddr) -> bool {
        if !self.allow_guests || self.hubs.len() > MAX_GUEST_ROOMS {
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
        user: &User,
        from: Option<&Position>,
    ) -> (Welcome, u64) {
        let edges = self.shared.homes.others();
        let core = self.core.lock();
        let now = (self.now_ms(), self.shared.now_unix_ms());
        let (welcome, how) = core.welcome(now, (sid.to_owned(), user), from, edges);
        self.shared.metrics.resumed(how);
        // No tick is made while the core is held.
        (welcome, self.window.read().next())
    }

    /// What is to become of something said.
    pub(crate) fn consider(&self, user: &User, said: Client) -> Considered {
        let now_ms = self.now_ms();
        let trusted = user.r() >= Role::Mod;
        let mut core = self.core.lock();
        let considered = match said {
            Client::Pong(_) => return Considered::Done,
            Client::Hello(_) => return Considered::Wrong,
            Client::Like(like) => {
                let counted = core.allowance(&user.id).map_or(0, |a| a.likes(now_ms, like.n));
                core.like(counted);
                return Considered::Done;
            }
            Client::Chat(chat) => match text::message(&chat.x) {
                Err(code) => Considered::Refuse(chat.c, code, None),
                Ok(text) => {
                    let user = core.allowance(&user.id);
                    match user.map_or(Ok(()), |a| a.chat(now_ms, trusted, &chat.c, &text)) {
                        Ok(()) => Considered::Pass(chat.c, Saying::Chat { text, pts: chat.pts }),
                        Err(Denied::TooMany(ms)) => {
                            Considered::Refuse(chat.c, Code::RateLimited, Some(ms))
                        }
                        Err(Denied::Same(ms)) => {
                            Considered::Refuse(chat.c, Code::Duplicate, Some(ms))
                        }
                    }
                }
            },
            Client::Gift(give) => {
                let allowed = core.allowance(&user.id).map_or(Ok(()), |a| a.gift(now_ms));
                let gift = Saying::Gift { gift: give.g, count: give.n, order: give.auth };
                match allowed {
                    Ok(()) => Considered::Pass(give.c, gift),
                    Err(_) => Considered::Refuse(give.c, Code::RateLimited, Some(1000)),
                }
            }
        };
        match considered {
            Considered::Pass(cid, _) if cid.is_empty() || cid.len() > MAX_CID => {
                Considered::Refuse(cid, Code::BadRequest, None)
            }
            considered => considered,
        }
    }

    /// Tells the home of an arrival, if it has time for that.
    pub(crate) fn tell_came(&self, user: &User) {
        let _ = self.ups.try_send(Up::Came(user.clone()));
    }
}
