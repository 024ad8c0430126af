//! One room as an edge carries it: its recent past, who is here, what they may say, and what the next
//! tick shows. Pure: `(now, input) → outputs`.
//!
//! In: what the home says, who comes and goes, the time. Out: batches for all, welcomes for newcomers.
//! Every item with an offset goes into the ring first and is sampled after, so that resuming does not
//! depend on what was shown.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use rand::rngs::SmallRng;
use wire::Epoch;
use wire::room::model::{Batch, Limits, Mode, People, Position, State, Stats, Value, Welcome};
use wire::room::relay::{Counters, FromHome, MAX_LISTED, Past, RoomState, Whom};
use wire::room::{Body, Census, Item, Ring, Role, User};

use super::Provenance;
use super::allowance::{Allowance, CHAT_MS, CHAT_RATE};
use super::sampler::{Chosen, Sampler, Tier};
use super::text::MAX_TEXT;
use crate::config::RoomPace;

/// How long somebody who left is still counted: a phone that changes its network comes back.
const LEAVE_GRACE_MS: u64 = 15_000;
/// Milliseconds between two pings, as the welcome says.
pub(crate) const PING_MS: u32 = 25_000;
/// Connections of one user in one room on one edge.
const MAX_SOCKETS: u32 = 5;
/// Rooms from this size see a sample of chat.
const SAMPLED_FROM: u64 = 200;
/// Members told by name of an edge with more than [`MAX_LISTED`], host and moderators among them.
const SOME_LISTED: usize = 50;
/// How often counters are shown at most, in rooms that see arrivals and in larger ones.
const STATS_EVERY_MS: u64 = 1_000;

/// Whether a member may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Yes; true if nobody of this name was here.
    In(bool),
    /// Too many connections of one user.
    TooMany,
    /// Banned.
    Banned,
}

/// How a member came into the room's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resumed {
    /// It is new.
    Fresh,
    /// It has all it missed.
    Recovered,
    /// It was away too long.
    Lost,
}

#[derive(Debug)]
pub(crate) struct Core {
    pace: RoomPace,
    epoch: Option<Epoch>,
    lineage: Vec<(Epoch, u64)>,
    ring: Ring,
    state: RoomState,
    stats: Stats,
    stats_shown: (Stats, u64),
    tally: Vec<(u64, u64)>,
    /// Likes taken here since the start.
    likes: u64,
    people: HashMap<String, Person>,
    /// Whether somebody came or went since they were told by name.
    people_are_news: bool,
    /// Who is in the room by name, on all edges, as the home told last.
    listed: Vec<User>,
    sampler: Sampler,
    remove: Vec<Whom>,
    /// The epoch is to be told with the next batch.
    epoch_is_news: bool,
    last_tick_ms: Option<u64>,
}

#[derive(Debug)]
struct Person {
    user: Arc<User>,
    from: Provenance,
    sockets: u32,
    /// When the last connection went.
    left_ms: u64,
    allowance: Allowance,
}

impl Core {
    pub(crate) fn new(rng: SmallRng, pace: RoomPace) -> Self {
        Self {
            pace,
            epoch: None,
            lineage: Vec::new(),
            ring: Ring::default(),
            state: RoomState::default(),
            stats: Stats::default(),
            stats_shown: (Stats::default(), 0),
            tally: Vec::new(),
            likes: 0,
            people: HashMap::new(),
            people_are_news: false,
            listed: Vec::new(),
            sampler: Sampler::new(rng),
            remove: Vec::new(),
            epoch_is_news: false,
            last_tick_ms: None,
        }
    }

    /// How far this edge has come, for a home.
    pub(crate) fn past(&self) -> Option<Past> {
        Some(Past {
            epoch: self.epoch?,
            head: self.ring.head(),
            floor: self.ring.floor(),
            lineage: self.lineage.clone(),
            tally: self.tally.clone(),
            state: self.state.clone(),
        })
    }

    /// The ring, for a new home.
    pub(crate) fn history(&self) -> Vec<Bytes> {
        self.ring.all().iter().map(|item| item.encode_shared()).collect()
    }

    /// Takes what the home says about the room.
    pub(crate) fn hear(&mut self, now_ms: u64, said: FromHome) {
        match said {
            FromHome::Entered { epoch, head, floor, lineage, state } => {
                self.enter(epoch, head, floor, lineage);
                self.state = state;
            }
            FromHome::Items(items) => {
                for item in items.iter().filter_map(|bytes| Item::decode_shared(bytes).ok()) {
                    let item = Arc::new(item);
                    if self.ring.push(now_ms, &item) {
                        self.note(&item);
                        self.sampler.push(item);
                    }
                }
            }
            FromHome::Ambient(items) => {
                let items = items.iter().filter_map(|bytes| Item::decode_shared(bytes).ok());
                items.for_each(|item| self.sampler.push(Arc::new(item)));
            }
            FromHome::State(state) => self.state = state,
            FromHome::Counters(counters) => self.count(counters),
            FromHome::Remove(whom) => self.remove.extend(whom),
            FromHome::Members { users } => {
                let users = users.iter().filter_map(|bytes| User::decode(&**bytes).ok());
                self.listed = users.take(MAX_LISTED).collect();
            }
            _ => {}
        }
    }

    /// Shows an item to those here alone.
    pub(crate) fn show(&mut self, item: Item) {
        self.sampler.push(Arc::new(item));
    }

    fn enter(&mut self, epoch: Epoch, head: u64, floor: u64, lineage: Vec<(Epoch, u64)>) {
        let ours = self.ring.head();
        let continues = self.epoch.is_some_and(|known| {
            let is_same = known == epoch && ours <= head;
            let is_old = lineage.iter().any(|&(old, base)| old == known && ours <= base);
            (is_same || is_old) && ours >= floor
        });
        if !continues {
            self.ring = Ring::starting_at(floor);
        }
        self.epoch_is_news = self.epoch_is_news || self.epoch.is_some_and(|known| known != epoch);
        self.epoch = Some(epoch);
        self.lineage = lineage;
    }

    fn note(&mut self, item: &Item) {
        match &item.body {
            Some(Body::Set(set)) => drop(self.state.set(set)),
            Some(Body::Stream(stream)) => self.state.live = stream.s != "ended",
            _ => {}
        }
    }

    fn count(&mut self, counters: Counters) {
        let Counters { on, like, lps, v, tally } = counters;
        if v >= self.stats.v {
            // Totals never go down, whoever tells them.
            self.stats = Stats { on, like: like.max(self.stats.like), lps, v };
        }
        for (incarnation, total) in tally {
            match self.tally.iter_mut().find(|(known, _)| *known == incarnation) {
                Some((_, known)) => *known = (*known).max(total),
                None => self.tally.push((incarnation, total)),
            }
        }
    }

    /// Whether somebody may come in; counts them if so. One who `replaces` a connection of its own may
    /// have one more until that is gone.
    pub(crate) fn admit(
        &mut self,
        now_unix_ms: u64,
        user: &Arc<User>,
        from: Provenance,
        replaces: bool,
    ) -> Entry {
        let banned =
            |s: &wire::room::relay::Sanction| s.ban && s.holds(&user.id, from.address, now_unix_ms);
        if self.state.sanctions.iter().any(banned) {
            return Entry::Banned;
        }
        match self.people.get_mut(&user.id) {
            Some(person) if person.sockets >= MAX_SOCKETS + u32::from(replaces) => Entry::TooMany,
            Some(person) => {
                person.sockets += 1;
                if person.user != *user {
                    // Under another name or role by now.
                    person.user = Arc::clone(user);
                    self.people_are_news = true;
                }
                Entry::In(false)
            }
            None => {
                let (user, allowance) = (Arc::clone(user), Allowance::default());
                let id = user.id.clone();
                self.people.insert(id, Person { user, from, sockets: 1, left_ms: 0, allowance });
                self.people_are_news = true;
                Entry::In(true)
            }
        }
    }

    /// Whether somebody of this name has a connection.
    pub(crate) fn is_connected(&self, uid: &str) -> bool {
        self.people.get(uid).is_some_and(|person| person.sockets > 0)
    }

    /// A connection of somebody ended.
    pub(crate) fn leave(&mut self, now_ms: u64, uid: &str) {
        if let Some(person) = self.people.get_mut(uid) {
            person.sockets = person.sockets.saturating_sub(1);
            person.left_ms = now_ms;
        }
    }

    /// What a user has said lately.
    pub(crate) fn allowance(&mut self, uid: &str) -> Option<&mut Allowance> {
        self.people.get_mut(uid).map(|person| &mut person.allowance)
    }

    /// Takes likes.
    pub(crate) fn like(&mut self, n: u32) {
        self.likes += u64::from(n);
    }

    /// Likes taken here, in all.
    pub(crate) fn likes(&self) -> u64 {
        self.likes
    }

    /// Likes that the home is known to have, under this edge's incarnation.
    pub(crate) fn likes_known(&self, incarnation: u64) -> u64 {
        self.tally.iter().find(|(known, _)| *known == incarnation).map_or(0, |(_, total)| *total)
    }

    /// Who is here, and their connections.
    pub(crate) fn census(&self) -> (Census, u32) {
        let mut census = Census::default();
        self.people.keys().for_each(|uid| census.add(uid));
        (census, self.people.values().map(|person| person.sockets).sum())
    }

    /// Forgets who has left, and says who that is.
    pub(crate) fn expire(&mut self, now_ms: u64) -> Vec<(Arc<User>, Provenance)> {
        self.ring.expire(now_ms);
        let is_gone =
            |_: &String, p: &mut Person| p.sockets == 0 && p.left_ms + LEAVE_GRACE_MS <= now_ms;
        let gone: Vec<_> =
            self.people.extract_if(is_gone).map(|(_, person)| (person.user, person.from)).collect();
        self.people_are_news |= !gone.is_empty();
        gone
    }

    /// Everybody, when the room is no longer carried.
    pub(crate) fn disperse(&mut self) -> Vec<(Arc<User>, Provenance)> {
        self.people.drain().map(|(_, person)| (person.user, person.from)).collect()
    }

    /// Who is here by name, for the home, if that has changed or is told `anew`: all of a few, some of many.
    pub(crate) fn names(&mut self, anew: bool) -> Option<Vec<Bytes>> {
        if !std::mem::take(&mut self.people_are_news) && !anew {
            return None;
        }
        let mut users: Vec<&User> = self.people.values().map(|person| &*person.user).collect();
        if users.len() > MAX_LISTED {
            let rank = |user: &&User| std::cmp::Reverse(user.r());
            users.select_nth_unstable_by_key(SOME_LISTED, rank);
            users.truncate(SOME_LISTED);
        }
        Some(users.into_iter().map(|user| user.encode_to_vec().into()).collect())
    }

    /// The answer to somebody who asks who is here.
    pub(crate) fn people(&self, c: String) -> People {
        People { c, u: self.listed.clone(), on: self.stats.on }
    }

    /// Who sees what is said: `full` or `sampled`.
    pub(crate) fn fanout(&self) -> &'static str {
        if self.size() >= SAMPLED_FROM { "sampled" } else { "full" }
    }

    fn size(&self) -> u64 {
        self.stats.on.max(self.people.len() as u64)
    }

    /// How the room is served now.
    pub(crate) fn tier(&self, pressed: bool) -> Tier {
        Tier::of(self.size(), pressed).within(self.pace)
    }

    /// Whether a tick would have something to say.
    pub(crate) fn has_news(&self, now_ms: u64) -> bool {
        !self.sampler.is_empty()
            || !self.remove.is_empty()
            || self.epoch_is_news
            || (self.stats != self.stats_shown.0 && now_ms >= self.stats_shown.1 + STATS_EVERY_MS)
    }

    /// When the next tick may be: at once after an idle one.
    pub(crate) fn next_tick_ms(&self, pressed: bool) -> u64 {
        let tick = u64::try_from(self.tier(pressed).tick.as_millis()).unwrap_or(u64::MAX);
        self.last_tick_ms.map_or(0, |last| last + tick)
    }

    /// What the next tick shows, whose connections end with it, and how many messages were merged.
    pub(crate) fn tick(&mut self, now_ms: u64, pressed: bool) -> (Batch, Vec<Whom>, u32) {
        self.last_tick_ms = Some(now_ms);
        let tier = self.tier(pressed);
        let Chosen { items, left_out: d, merged } = self.sampler.tick(now_ms, tier);
        let m = items.into_iter().map(Arc::unwrap_or_clone).collect();
        let mut s = None;
        if self.stats != self.stats_shown.0 && now_ms >= self.stats_shown.1 + STATS_EVERY_MS {
            self.stats_shown = (self.stats, now_ms);
            s = Some(self.stats);
        }
        let e = std::mem::take(&mut self.epoch_is_news)
            .then(|| self.epoch.map(|epoch| Position::new(epoch, 0).e))
            .flatten();
        // What matters and still waits is not covered: whoever resumes meanwhile is sent it.
        let o = self.sampler.owes().map_or(self.ring.head(), |owed| owed - 1);
        (Batch { o, m, s, d, e }, std::mem::take(&mut self.remove), merged)
    }

    /// The answer to a hello.
    pub(crate) fn welcome(
        &self,
        (now_ms, now_unix_ms): (u64, u64),
        (sid, user): (String, &User),
        from: Option<&Position>,
        edges: Vec<String>,
    ) -> (Welcome, Resumed) {
        let here = from.and_then(|position| self.offset_of(position));
        let missed = here.and_then(|offset| self.ring.after(offset));
        let resumed = match (from, &missed) {
            (None, _) => Resumed::Fresh,
            (Some(_), Some(_)) => Resumed::Recovered,
            (Some(_), None) => Resumed::Lost,
        };
        let state = missed.is_none().then(|| self.snapshot(now_ms));
        let missed = missed.unwrap_or_default();
        let chat_ms = if user.r() >= Role::Mod { CHAT_MS / 10 } else { CHAT_MS };
        let welcome = Welcome {
            sid,
            uid: user.id.clone(),
            hb: PING_MS,
            now: now_unix_ms,
            pos: self.epoch.map(|epoch| Position::new(epoch, self.ring.head())),
            recovered: resumed == Resumed::Recovered,
            lim: Some(Limits { chat_ms, len: MAX_TEXT as u32, rate: CHAT_RATE }),
            state,
            m: missed.items.into_iter().map(Arc::unwrap_or_clone).collect(),
            d: missed.left_out,
            edges,
            s: Some(self.stats),
            may: Vec::new(),
            until: None,
        };
        (welcome, resumed)
    }

    /// The offset of a position that still holds.
    fn offset_of(&self, position: &Position) -> Option<u64> {
        let epoch = position.epoch()?;
        let holds = self.epoch == Some(epoch)
            || self.lineage.iter().any(|&(old, base)| old == epoch && position.o <= base);
        holds.then_some(position.o)
    }

    fn snapshot(&self, now_ms: u64) -> State {
        let (chat, paid) = self.ring.snapshot(now_ms);
        let own = |items: Vec<Arc<Item>>| items.into_iter().map(Arc::unwrap_or_clone).collect();
        let mode = serde_json::from_str::<Mode>(self.state.get("mode")).unwrap_or_default();
        let pin = Some(self.state.get("pin").to_owned()).filter(|pin| !pin.is_empty());
        let others = self
            .state
            .keys
            .iter()
            .filter(|(key, value, _)| key != "mode" && key != "pin" && !value.is_empty());
        let kv = others.map(|(k, v, ver)| (k.clone(), Value { v: v.clone(), ver: *ver })).collect();
        State { live: self.state.live, mode: Some(mode), pin, kv, chat: own(chat), paid: own(paid) }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use rand::SeedableRng;
    use wire::room::model::{Chat, Gift, Set};
    use wire::room::relay::Sanction;

    use super::*;

    const HERE: Provenance = Provenance {
        address: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        client: wire::events::ClientKind::WEB,
    };

    fn item(o: u64, body: Body) -> Bytes {
        Item { body: Some(body), id: format!("i{o}"), o: Some(o), ts: 0 }.encode_shared()
    }

    fn chat(o: u64) -> Bytes {
        let u = Some(Arc::unwrap_or_clone(user(&format!("u{o}"))));
        item(o, Body::Chat(Chat { u, x: format!("t{o}"), ..Chat::default() }))
    }

    fn set(k: &str, v: &str) -> Set {
        Set { k: k.into(), v: v.into(), ver: 1 }
    }

    fn user(id: &str) -> Arc<User> {
        Arc::new(User { id: id.into(), ..User::default() })
    }

    fn entered(epoch: u64, head: u64, floor: u64, lineage: &[(u64, u64)]) -> FromHome {
        let lineage = lineage.iter().map(|&(e, o)| (Epoch(e), o)).collect();
        FromHome::Entered { epoch: Epoch(epoch), head, floor, lineage, state: RoomState::default() }
    }

    fn core() -> Core {
        let mut core = Core::new(SmallRng::seed_from_u64(1), RoomPace::default());
        core.hear(0, entered(5, 0, 0, &[]));
        core.hear(0, FromHome::Items((1..=10).map(chat).collect()));
        core
    }

    fn welcome(core: &Core, from: Option<Position>) -> (Welcome, Resumed) {
        core.welcome((100, 1000), ("s".into(), &user("u")), from.as_ref(), Vec::new())
    }

    #[test]
    fn a_newcomer_sees_the_room_and_one_who_returns_what_it_missed() {
        let mut core = core();
        core.hear(1, FromHome::Items(vec![item(11, Body::Set(set("pin", "hello")))]));
        let (fresh, resumed) = welcome(&core, None);
        let state = fresh.state.unwrap();
        assert_eq!(
            (resumed, state.chat.len(), state.pin.as_deref()),
            (Resumed::Fresh, 10, Some("hello"))
        );
        assert_eq!(fresh.pos, Some(Position::new(Epoch(5), 11)));
        let (back, resumed) = welcome(&core, Some(Position::new(Epoch(5), 8)));
        assert_eq!((resumed, back.recovered, back.state), (Resumed::Recovered, true, None));
        assert_eq!(back.m.iter().map(|i| i.o.unwrap()).collect::<Vec<_>>(), [9, 10, 11]);
        for lost in [
            Position::new(Epoch(4), 8),
            Position::new(Epoch(5), 12),
            Position { e: "?".into(), o: 1 },
        ] {
            let (lost, resumed) = welcome(&core, Some(lost));
            assert_eq!((resumed, lost.recovered), (Resumed::Lost, false));
            assert!(lost.state.is_some());
        }
    }

    #[test]
    fn positions_survive_a_move_of_the_home() {
        let mut core = core();
        core.tick(0, false);
        core.hear(2, entered(9, 10, 0, &[(5, 10)]));
        core.hear(2, FromHome::Items(vec![chat(11)]));
        let (batch, ..) = core.tick(100, false);
        assert_eq!((batch.e.as_deref(), batch.o), (Some("9"), 11));
        let (back, resumed) = welcome(&core, Some(Position::new(Epoch(5), 9)));
        assert_eq!((resumed, back.m.len()), (Resumed::Recovered, 2));
        // A home that knows less than this edge starts it over.
        core.hear(3, entered(12, 10, 10, &[(9, 10)]));
        assert_eq!(welcome(&core, Some(Position::new(Epoch(9), 11))).1, Resumed::Lost);
        assert_eq!(core.past().unwrap().head, 10);
    }

    #[test]
    fn items_are_shown_once_and_sampling_does_not_touch_the_past() {
        let mut core = core();
        core.hear(0, FromHome::Items(vec![chat(10)]));
        core.count(Counters { on: 200_000, v: 1, ..Counters::default() });
        let shown = core.tick(1, false).0;
        assert_eq!(shown.m.len() as u32 + shown.d.values().sum::<u32>(), 10);
        (11..=200).for_each(|o| core.hear(1, FromHome::Items(vec![chat(o)])));
        let shown = core.tick(401, false).0;
        assert!(shown.m.len() <= 25, "{}", shown.m.len());
        let back = welcome(&core, Some(Position::new(Epoch(5), 100))).0;
        assert_eq!(back.m.len(), 100);
    }

    #[test]
    fn a_gift_that_waits_is_not_covered_by_the_offset() {
        let mut core = core();
        let gift =
            |o| item(o, Body::Gift(Gift { combo: Some(format!("c{o}")), ..Gift::default() }));
        core.hear(0, FromHome::Items((11..=25).map(gift).collect()));
        let batch = core.tick(10, false).0;
        assert_eq!(batch.o, 20, "21 to 25 wait");
        let batch = core.tick(1010, false).0;
        assert_eq!(batch.o, 25);
    }

    #[test]
    fn people_are_counted_once_and_a_while_after_they_left() {
        let mut core = core();
        let admit = |core: &mut Core, now, id| core.admit(now, &user(id), HERE, false);
        assert_eq!(admit(&mut core, 0, "a"), Entry::In(true));
        (0..4).for_each(|_| assert_eq!(admit(&mut core, 0, "a"), Entry::In(false)));
        assert_eq!(admit(&mut core, 0, "a"), Entry::TooMany);
        assert_eq!(core.admit(0, &user("a"), HERE, true), Entry::In(false), "in place of another");
        assert_eq!(core.admit(0, &user("a"), HERE, true), Entry::TooMany);
        assert_eq!(core.census().0.count(), 1);
        (0..6).for_each(|_| core.leave(1000, "a"));
        assert!(core.expire(1000 + LEAVE_GRACE_MS - 1).is_empty());
        assert_eq!(admit(&mut core, 0, "a"), Entry::In(false), "a return is no arrival");
        core.leave(2000, "a");
        assert_eq!(core.expire(2000 + LEAVE_GRACE_MS), [(user("a"), HERE)]);
        assert_eq!(core.census().0.count(), 0);
        let ban = Sanction { whom: Whom::User("b".into()), ban: true, until_unix_ms: Some(500) };
        core.hear(0, FromHome::State(RoomState { sanctions: vec![ban], ..RoomState::default() }));
        assert_eq!(admit(&mut core, 499, "b"), Entry::Banned);
        assert_eq!(admit(&mut core, 500, "b"), Entry::In(true));
    }

    #[test]
    fn who_is_here_is_told_when_it_changes_and_asked_of_the_home() {
        let mut core = core();
        core.admit(0, &user("a"), HERE, false);
        assert_eq!(core.names(false).map(|names| names.len()), Some(1));
        assert_eq!(core.names(false), None);
        assert_eq!(core.names(true).map(|names| names.len()), Some(1), "to a home that is new");
        let host = Arc::new(User { id: "h".into(), r: Role::Host.into(), ..User::default() });
        core.admit(0, &host, HERE, false);
        for n in 0..MAX_LISTED {
            core.admit(0, &user(&format!("u{n}")), HERE, false);
        }
        let names = core.names(false).unwrap();
        let has_host = names.iter().any(|bytes| *bytes == host.encode_to_vec());
        assert_eq!((names.len(), has_host), (SOME_LISTED, true), "some of many, and the host");
        core.hear(0, FromHome::Members { users: names });
        assert_eq!(core.people("w".into()).u.len(), SOME_LISTED);
        assert_eq!(core.disperse().len(), MAX_LISTED + 2);
    }

    #[test]
    fn counters_never_go_down_and_are_shown_once_a_second() {
        let mut core = core();
        core.tick(0, false);
        core.count(Counters { on: 3, like: 40, lps: 2, v: 9, tally: vec![(7, 40)] });
        assert!(core.has_news(1000));
        assert_eq!(core.tick(1000, false).0.s.unwrap().like, 40);
        core.count(Counters { on: 4, like: 12, lps: 0, v: 10, tally: vec![(7, 12)] });
        assert_eq!((core.stats.on, core.stats.like, core.likes_known(7)), (4, 40, 40));
        assert!(!core.has_news(1500) && core.has_news(2000));
    }
}
