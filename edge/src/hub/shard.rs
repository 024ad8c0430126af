//! One task per room and worker: walks the sockets of its members.
//!
//! In: members that have come in, ticks, answers, sockets that are ready. Out: bytes on sockets. No task
//! is woken per member: a socket that is ready puts its number on a list and wakes this task, which
//! looks at those alone; a tick is written to all of them in one walk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval};
use wire::room::{Code, Server};

use super::conductor::{Asker, Up};
use super::member::{Member, Request, Turn};
use super::metrics::Ended;
use super::{Hub, SPREAD_MS};

/// Members of a room per shard before another begins, up to one per CPU.
const MEMBERS_PER_SHARD: usize = 256;
/// Members that have come in, and answers, before their senders wait.
const QUEUE: usize = 1024;
/// How often each member is looked at: pings, and those that take nothing.
const TEND_EVERY: Duration = Duration::from_secs(1);
/// Members served before other tasks get the CPU.
const YIELD_EVERY: usize = 64;
/// Bytes read at once; one buffer for all members.
const SCRATCH_BYTES: usize = 8 << 10;

/// What a shard is given.
pub(crate) enum ToShard {
    /// A member that has come in, and what it sent behind its hello.
    Join(Box<Member>, Vec<u8>),
    /// An answer to a member, unless another has its place by now.
    Answer { slot: usize, turn: u64, said: Server },
    /// This connection of this user has a successor.
    Replace { sid: String, uid: String },
}

/// The shards of one room.
#[derive(Debug)]
pub(crate) struct Shards {
    cpus: usize,
    running: Mutex<Vec<Handle>>,
}

#[derive(Debug, Clone)]
struct Handle {
    queue: mpsc::Sender<ToShard>,
    members: Arc<AtomicUsize>,
}

impl Shards {
    pub(super) fn new(cpus: usize) -> Self {
        Self { cpus: cpus.max(1), running: Mutex::new(Vec::new()) }
    }

    /// Members of all shards.
    pub(super) fn members(&self) -> usize {
        self.running.lock().iter().map(|shard| shard.members.load(Ordering::Relaxed)).sum()
    }

    /// Gives a member to the shard with the fewest, or to another one if all have enough.
    pub(super) async fn join(&self, hub: &Arc<Hub>, member: Box<Member>, ahead: Vec<u8>) {
        let shard = self.pick(hub);
        shard.members.fetch_add(1, Ordering::Relaxed);
        hub.shared.metrics.members.inc();
        // A shard ends only with its node: the member is dropped with it.
        if shard.queue.send(ToShard::Join(member, ahead)).await.is_err() {
            shard.members.fetch_sub(1, Ordering::Relaxed);
            hub.shared.metrics.members.dec();
        }
    }

    /// Ends the connection of a user that has a successor, wherever it is. A shard that is too busy to be
    /// told keeps it until it is found dead.
    pub(super) fn replace(&self, sid: &str, uid: &str) {
        for shard in self.running.lock().iter() {
            let replace = ToShard::Replace { sid: sid.to_owned(), uid: uid.to_owned() };
            let _ = shard.queue.try_send(replace);
        }
    }

    fn pick(&self, hub: &Arc<Hub>) -> Handle {
        let mut running = self.running.lock();
        running.retain(|shard| !shard.queue.is_closed());
        let least = running.iter().min_by_key(|shard| shard.members.load(Ordering::Relaxed));
        if let Some(shard) = least
            && (shard.members.load(Ordering::Relaxed) < MEMBERS_PER_SHARD
                || running.len() >= self.cpus)
        {
            return shard.clone();
        }
        let (queue, given) = mpsc::channel(QUEUE);
        let handle = Handle { queue, members: Arc::default() };
        running.push(handle.clone());
        let shard = Shard {
            hub: Arc::clone(hub),
            queue: handle.queue.downgrade(),
            given,
            count: Arc::clone(&handle.members),
            seats: Vec::new(),
            free: Vec::new(),
            ready: Arc::default(),
            turns: 0,
            scratch: vec![0; SCRATCH_BYTES].into(),
        };
        hub.shared.tasks.spawn(shard.run());
        handle
    }
}

/// Members whose sockets are ready.
#[derive(Debug, Default)]
struct Ready {
    slots: Mutex<Vec<usize>>,
    notify: Notify,
}

/// Puts one member on the list.
struct Bell {
    slot: usize,
    rung: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.ready.slots.lock().push(self.slot);
            self.ready.notify.notify_one();
        }
    }
}

/// A member's place.
struct Seat {
    member: Box<Member>,
    bell: Arc<Bell>,
    waker: Waker,
    /// Told apart from others that had this place.
    turn: u64,
}

struct Shard {
    hub: Arc<Hub>,
    queue: mpsc::WeakSender<ToShard>,
    given: mpsc::Receiver<ToShard>,
    count: Arc<AtomicUsize>,
    seats: Vec<Option<Seat>>,
    free: Vec<usize>,
    ready: Arc<Ready>,
    turns: u64,
    scratch: Box<[u8]>,
}

impl Shard {
    async fn run(mut self) {
        let mut changes = self.hub.changes.subscribe();
        let mut tend = interval(TEND_EVERY);
        tend.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (drain, abort) = (self.hub.shared.drain.clone(), self.hub.shared.abort.clone());
        let mut leaving = self.hub.shared.leaving.clone();
        let hub = Arc::clone(&self.hub);
        let mut draining = false;
        loop {
            tokio::select! {
                biased;
                () = abort.cancelled() => break,
                () = drain.cancelled(), if !draining => {
                    draining = true;
                    self.say_goodbye().await;
                }
                () = hub.shared.departure(&mut leaving) => self.say_goodbye().await,
                changed = changes.changed() => {
                    debug_assert!(changed.is_ok(), "the hub is held here");
                    self.walk().await;
                }
                given = self.given.recv() => match given {
                    Some(ToShard::Join(member, ahead)) => self.sit(member, &ahead, draining),
                    Some(ToShard::Answer { slot, turn, said }) => self.answer(slot, turn, &said),
                    Some(ToShard::Replace { sid, uid }) => self.replace(&sid, &uid),
                    None => break,
                },
                () = self.ready.notify.notified() => self.serve_ready().await,
                _ = tend.tick() => self.tend().await,
            }
            if draining && self.seats.iter().all(Option::is_none) {
                break;
            }
        }
        (0..self.seats.len()).for_each(|slot| self.stand_up(slot, Some(Ended::Draining)));
    }

    /// Writes the new ticks to all.
    async fn walk(&mut self) {
        let started = Instant::now();
        let remove = self.removed();
        for slot in 0..self.seats.len() {
            self.with(slot, |member, turn, _| {
                if !remove.is_empty() && member.is_meant(&remove) {
                    // What was said until then is theirs to read.
                    return member.flush(turn).or_else(|| member.end(turn, Ended::Removed, None));
                }
                member.flush(turn)
            });
            if slot % YIELD_EVERY == YIELD_EVERY - 1 {
                tokio::task::yield_now().await;
            }
        }
        self.hub.shared.metrics.fanout_seconds.observe(started.elapsed().as_secs_f64());
    }

    /// Whose connections the newest ticks end.
    fn removed(&self) -> Vec<wire::room::relay::Whom> {
        let window = self.hub.window.read();
        let next = window.next();
        // More than one tick may have come since the last walk; removing twice harms nobody.
        let recent = (next.saturating_sub(4)..next).filter_map(|n| window.get(n).ok().flatten());
        recent.flat_map(|tick| tick.remove.clone()).collect()
    }

    async fn serve_ready(&mut self) {
        let slots = std::mem::take(&mut *self.ready.slots.lock());
        for (index, slot) in slots.into_iter().enumerate() {
            if let Some(Some(seat)) = self.seats.get(slot) {
                seat.bell.rung.store(false, Ordering::Release);
            }
            self.with(slot, |member, turn, say| member.serve(turn, say));
            if index % YIELD_EVERY == YIELD_EVERY - 1 {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn tend(&mut self) {
        for slot in 0..self.seats.len() {
            self.with(slot, |member, turn, _| member.tend(turn));
            if slot % YIELD_EVERY == YIELD_EVERY - 1 {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn say_goodbye(&mut self) {
        let edges = self.hub.shared.homes.others();
        for slot in 0..self.seats.len() {
            let edges = edges.clone();
            self.with(slot, |member, turn, _| {
                let bye = (spread(member.sid()), edges);
                member.end(turn, Ended::Draining, Some(bye))
            });
            if slot % YIELD_EVERY == YIELD_EVERY - 1 {
                tokio::task::yield_now().await;
            }
        }
    }

    fn sit(&mut self, member: Box<Member>, ahead: &[u8], draining: bool) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.seats.push(None);
            self.seats.len() - 1
        });
        self.turns += 1;
        let ready = Arc::clone(&self.ready);
        let bell = Arc::new(Bell { slot, rung: AtomicBool::new(false), ready });
        let waker = Waker::from(Arc::clone(&bell));
        self.seats[slot] = Some(Seat { member, bell, waker, turn: self.turns });
        self.with(slot, |member, turn, say| {
            if draining {
                let bye = (spread(member.sid()), Vec::new());
                return member.end(turn, Ended::Draining, Some(bye));
            }
            let ended = if ahead.is_empty() { None } else { member.take(ahead, turn, say) };
            ended.or_else(|| member.serve(turn, say))
        });
    }

    fn replace(&mut self, sid: &str, uid: &str) {
        let is_it = |seat: &Option<Seat>| {
            seat.as_ref().is_some_and(|seat| seat.member.is_session(sid, uid))
        };
        if let Some(slot) = self.seats.iter().position(is_it) {
            self.with(slot, |member, turn, _| member.end(turn, Ended::Replaced, None));
        }
    }

    fn answer(&mut self, slot: usize, turn: u64, said: &Server) {
        if self.seats.get(slot).and_then(Option::as_ref).is_some_and(|seat| seat.turn == turn) {
            self.with(slot, |member, turn, _| member.answer(turn, said));
        }
    }

    /// Does something with a member, passes on what it says, and lets it go if it is over.
    fn with(
        &mut self,
        slot: usize,
        act: impl FnOnce(&mut Member, &mut Turn<'_>, &mut dyn FnMut(Request)) -> Option<Ended>,
    ) {
        let Some(Some(seat)) = self.seats.get_mut(slot) else { return };
        let mut turn = Turn {
            hub: &self.hub,
            waker: &seat.waker,
            now: Instant::now(),
            scratch: &mut self.scratch,
        };
        let mut requests = Vec::new();
        let mut ended = act(&mut seat.member, &mut turn, &mut |request| requests.push(request));
        for request in requests {
            let Request { user, from, cid, want } = request;
            let refused = cid.clone();
            let sent = self.queue.upgrade().is_some_and(|shard| {
                let asker = Asker::Member { shard, slot, turn: seat.turn };
                self.hub.ups.try_send(Up::Ask { asker, user, from, cid, want }).is_ok()
            });
            if !sent && ended.is_none() {
                ended = seat.member.refuse(&mut turn, refused, Code::Unavailable, Some(500));
            }
        }
        if ended.is_some() {
            self.stand_up(slot, ended);
        }
    }

    /// The member's connection is over.
    fn stand_up(&mut self, slot: usize, why: Option<Ended>) {
        let Some(seat) = self.seats.get_mut(slot).and_then(Option::take) else { return };
        if !seat.member.is_closing()
            && let Some(why) = why
        {
            self.hub.shared.metrics.ended(why);
        }
        self.hub.core.lock().leave(self.hub.now_ms(), &seat.member.user.id);
        self.hub.shared.metrics.members.dec();
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.free.push(slot);
    }
}

/// When one of many is to come again, so that they do not all at once.
pub(crate) fn spread(sid: &str) -> u32 {
    let hash = sid
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    hash % SPREAD_MS
}
