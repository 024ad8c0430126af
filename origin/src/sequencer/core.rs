//! The order of one room, and the rules of what comes into it. Pure: `(now, input) → outputs`.
//!
//! In: what edges say, what moderators do, what the ledger answers, the time. Out: messages to edges and
//! gifts to commit. Offsets only go up, through all epochs: a new epoch begins above the last offset of
//! the one before that is known ([`settle`]), so that a position stays good for as long as the ring
//! reaches back to it.

mod counters;
mod gifts;
mod moderation;
mod settle;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use wire::events::{AddressClass, Whence};
use wire::room::model::{Chat, Mode, base36};
use wire::room::relay::{
    Enter, FromHome, MAX_LINEAGE, Past, RoomState, Sanction, Say, Saying, ToHome, Verdict,
};
use wire::room::{Body, Code, Item, Ring, Role, User};
use wire::{Epoch, RoomId};

use self::counters::Counting;
pub use self::counters::Figures;
use self::gifts::Gifts;
pub(crate) use self::moderation::Undone;
use self::settle::Settling;
use super::filter::Filter;
use super::ledger::{Committed, EventKind, Gift, LedgerError, Place, Shop};

/// Messages a room orders per second; those beyond are shown on the sender's edge alone.
pub(crate) const MAX_PER_SECOND: u64 = 400;
/// Messages in a burst.
const BURST: u64 = 100;
/// Users whose last message is remembered for slow mode, and the address it came from for moderators.
/// Beyond, the oldest is forgotten.
const MAX_SPEAKERS: usize = 20_000;
/// Client ids whose fate is remembered, so that the same again is the same. Beyond, the oldest goes.
const MAX_CIDS: usize = 20_000;
/// The longest client id, in bytes.
const MAX_CID_BYTES: usize = 64;
/// Edges that may carry one room.
pub(crate) const MAX_EDGES: usize = 4096;

/// The time of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    /// Monotonic, in milliseconds.
    pub(crate) ms: u64,
    /// Since 1970, in milliseconds.
    pub(crate) unix_ms: u64,
}

/// Names one stream of an edge, or the API.
pub(crate) type EdgeId = u64;

/// The API of this node, which says things as edges do.
pub(crate) const API: EdgeId = 0;

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Output {
    /// Tell one edge.
    To(EdgeId, FromHome),
    /// Tell all edges.
    All(FromHome),
    /// Make a gift durable and say what came of it.
    Commit(Gift),
    /// Look whether a gift is durable already, and say so.
    Find(Gift),
    /// Note a gift's place.
    Mark(u64, Place),
    /// Keep an event: whose, where they come from, and what.
    Note(String, Whence, EventKind),
    /// Something was counted.
    Count(Count),
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    /// An item got its place.
    Placed(wire::room::Lane),
    /// A message was over the room's limit.
    Local,
    /// Something was refused.
    Refused(Code),
}

/// The settings of rooms at this home.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    /// Whether gifts need no order of a shop.
    pub(crate) open_gifts: bool,
    /// Who checks orders.
    pub(crate) shop: Option<Arc<dyn Shop>>,
    /// Words that may not be said.
    pub(crate) filter: Arc<Filter>,
}

/// One room's order.
#[derive(Debug)]
pub(crate) struct Core {
    room: RoomId,
    epoch: Epoch,
    lineage: Vec<(Epoch, u64)>,
    ring: Ring,
    state: RoomState,
    edges: BTreeMap<EdgeId, ()>,
    settling: Option<Settling>,
    counting: Counting,
    gifts: Gifts,
    rules: Rules,
    /// When the bucket of [`MAX_PER_SECOND`] is empty again, in microseconds.
    busy_until_us: u64,
    spoke: Recent<String, u64>,
    /// From where users spoke last.
    addresses: Recent<String, IpAddr>,
    /// The second in which moderators acted last, and how often they did.
    acts: (u64, u32),
    cids: Recent<(String, String), Verdict>,
}

impl Core {
    /// A room under `epoch`. One that `moved` has a past on edges, which is waited for.
    pub(crate) fn new(now: Now, room: RoomId, epoch: Epoch, moved: bool, rules: Rules) -> Self {
        Self {
            room,
            epoch,
            lineage: Vec::new(),
            ring: Ring::default(),
            state: RoomState::default(),
            edges: BTreeMap::new(),
            settling: moved.then(|| Settling::new(now)),
            counting: Counting::default(),
            gifts: Gifts::default(),
            rules,
            busy_until_us: 0,
            spoke: Recent::new(MAX_SPEAKERS),
            addresses: Recent::new(MAX_SPEAKERS),
            acts: (0, 0),
            cids: Recent::new(MAX_CIDS),
        }
    }

    /// New settings.
    pub(crate) fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// The room goes on under a newer epoch at this same home.
    pub(crate) fn adopt(&mut self, epoch: Epoch, out: &mut Vec<Output>) {
        if epoch <= self.epoch {
            return;
        }
        self.close_epoch(self.epoch, self.ring.head());
        self.epoch = epoch;
        if self.settling.is_none() {
            out.push(Output::All(self.entered()));
        }
    }

    /// An edge wants to carry the room.
    pub(crate) fn enter(&mut self, now: Now, edge: EdgeId, enter: Enter, out: &mut Vec<Output>) {
        if self.edges.len() >= MAX_EDGES {
            out.push(Output::To(edge, FromHome::Busy));
            return;
        }
        self.edges.insert(edge, ());
        self.counting.enter(edge, enter.incarnation);
        let is_new = self.ring.head() == 0 && self.lineage.is_empty();
        if let Some(past) = &enter.past
            && self.settling.is_none()
            && is_new
            && past.epoch != self.epoch
        {
            self.settling = Some(Settling::new(now));
        }
        if let Some(settling) = &mut self.settling {
            if settling.enter(edge, enter.past) {
                out.push(Output::To(edge, FromHome::Recall));
            }
            return;
        }
        self.admit(edge, enter.past.as_ref(), out);
    }

    /// An edge is gone.
    pub(crate) fn leave(&mut self, edge: EdgeId) {
        self.edges.remove(&edge);
        self.counting.leave(edge);
        if let Some(settling) = &mut self.settling {
            settling.leave(edge);
        }
    }

    /// An edge says something.
    pub(crate) fn hear(&mut self, now: Now, edge: EdgeId, said: ToHome, out: &mut Vec<Output>) {
        match said {
            ToHome::Say(say) => {
                let address = AddressClass::of(say.address);
                let whence = Whence { address, ..Whence::default() };
                self.say(now, edge, say, whence, out);
            }
            ToHome::SayFrom(say, whence) => self.say(now, edge, say, whence, out),
            ToHome::Act { request, user, act } => {
                let verdict = self.act_of(now, &user, act, out);
                out.push(answer(edge, request, verdict));
            }
            ToHome::Members { users } => self.counting.named(edge, users),
            ToHome::Likes { total } => self.counting.likes(edge, total),
            ToHome::Present { census, .. } => self.counting.present(now, edge, census),
            ToHome::Came { user } => self.counting.came(now, &user, out),
            ToHome::History { items } => {
                if let Some(settling) = &mut self.settling {
                    settling.history(edge, &items);
                }
            }
        }
    }

    /// What the time alone decides; to be called at [`Self::deadline_ms`].
    pub(crate) fn poll(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.settling.as_ref().is_some_and(|settling| settling.is_over(now)) {
            self.settle(now, out);
        }
        self.ring.expire(now.ms);
        self.gifts.expire(now);
        let was = self.state.sanctions.len();
        self.state.sanctions.retain(|s| s.until_unix_ms.is_none_or(|until| until > now.unix_ms));
        if self.state.sanctions.len() != was {
            out.push(Output::All(FromHome::State(self.state.clone())));
        }
        self.counting.poll(now, out);
    }

    /// When the room stops waiting for its past.
    pub(crate) fn settles_at_ms(&self) -> Option<u64> {
        self.settling.as_ref().map(Settling::until_ms)
    }

    /// What the API tells of the room.
    pub(crate) fn figures(&self) -> Figures {
        let mode = self.mode();
        self.counting.figures(self.edges.len(), self.ring.head(), mode, self.state.clone())
    }

    fn say(&mut self, now: Now, edge: EdgeId, say: Say, whence: Whence, out: &mut Vec<Output>) {
        let request = say.request;
        if let Some(settling) = &mut self.settling {
            if !settling.keep(edge, say, whence) {
                out.push(answer(edge, request, refused(Code::Unavailable, Some(500))));
            }
            return;
        }
        let Ok(user) = User::decode(&*say.user) else {
            return out.push(answer(edge, request, refused(Code::BadRequest, None)));
        };
        if say.cid.is_empty() || say.cid.len() > MAX_CID_BYTES {
            return out.push(answer(edge, request, refused(Code::BadRequest, None)));
        }
        if !say.address.is_unspecified() {
            self.addresses.insert(user.id.clone(), say.address.to_canonical());
        }
        let said = (&say, &whence);
        let verdict = match say.what {
            Saying::Chat { ref text, pts } => Some(self.chat(now, &user, said, (text, pts), out)),
            Saying::Gift { ref gift, count, ref order } => {
                self.give(now, edge, &user, said, (gift, count, order.as_deref()), out)
            }
        };
        if let Some(verdict) = verdict {
            if let Verdict::Refused { code, .. } = &verdict {
                out.push(Output::Count(Count::Refused(*code)));
            }
            out.push(answer(edge, request, verdict));
        }
    }

    fn chat(
        &mut self,
        now: Now,
        user: &User,
        (say, whence): (&Say, &Whence),
        (text, pts): (&str, Option<u64>),
        out: &mut Vec<Output>,
    ) -> Verdict {
        let key = (user.id.clone(), say.cid.clone());
        if let Some(known) = self.cids.get(&key) {
            return known.clone();
        }
        let trusted = user.r() >= Role::Mod;
        if let Some(refusal) = self.silenced(now, user, say) {
            return refusal;
        }
        if !trusted {
            if let Some(refusal) = self.against_mode(now, user, text) {
                return refusal;
            }
            if self.rules.filter.matches(text) {
                return refused(Code::Filtered, None);
            }
        }
        let chat = Chat { u: Some(user.clone()), x: text.to_owned(), pts, n: None };
        let body = Body::Chat(chat);
        self.spoke.insert(user.id.clone(), now.ms);
        if !trusted && !self.has_room(now) {
            out.push(Output::Count(Count::Local));
            let id = format!("{}-l{}", base36(self.epoch.0), base36(rand::random::<u64>() >> 20));
            let item = Item { body: Some(body), id, o: None, ts: now.unix_ms };
            return Verdict::Local { item: item.encode_shared() };
        }
        let verdict = self.place(now, None, body, out);
        if let Verdict::Placed { id, .. } = &verdict {
            let kind = EventKind::Chat { id: id.clone(), text: text.to_owned() };
            out.push(Output::Note(user.id.clone(), whence.clone(), kind));
        }
        self.cids.insert(key, verdict.clone());
        verdict
    }

    /// Gives something its place and tells all edges.
    fn place(
        &mut self,
        now: Now,
        id: Option<String>,
        body: Body,
        out: &mut Vec<Output>,
    ) -> Verdict {
        let offset = self.ring.head() + 1;
        let id = id.unwrap_or_else(|| format!("{}-{offset}", base36(self.epoch.0)));
        let item = Item { body: Some(body), id: id.clone(), o: Some(offset), ts: now.unix_ms };
        out.push(Output::Count(Count::Placed(item.lane())));
        let item = Arc::new(item);
        self.ring.push(now.ms, &item);
        out.push(Output::All(FromHome::Items(vec![item.encode_shared()])));
        Verdict::Placed { id, offset }
    }

    /// Takes one message from the bucket, if there is one.
    fn has_room(&mut self, now: Now) -> bool {
        let now_us = now.ms.saturating_mul(1000);
        let cost_us = 1_000_000 / MAX_PER_SECOND;
        let from = self.busy_until_us.max(now_us);
        if from + cost_us > now_us + BURST * cost_us {
            return false;
        }
        self.busy_until_us = from + cost_us;
        true
    }

    /// Why this member may not talk at all, if so.
    fn silenced(&self, now: Now, user: &User, say: &Say) -> Option<Verdict> {
        let holds = |s: &&Sanction| s.holds(&user.id, say.address, now.unix_ms);
        let sanction = self.state.sanctions.iter().find(holds)?;
        let left = sanction.until_unix_ms.map(|until| until.saturating_sub(now.unix_ms));
        let left = left.map(|ms| u32::try_from(ms).unwrap_or(u32::MAX));
        Some(refused(if sanction.ban { Code::Forbidden } else { Code::Muted }, left))
    }

    fn against_mode(&self, now: Now, user: &User, text: &str) -> Option<Verdict> {
        let mode = self.mode();
        let refusal = Some(refused(Code::ModeRefused, None));
        // Until tokens say who follows, a follower is whoever has a token.
        if (mode.members || mode.followers) && user.r() < Role::Member {
            return refusal;
        }
        if (mode.emotes && !is_emotes(text)) || (mode.links && has_link(text)) {
            return refusal;
        }
        let slow_ms = u64::from(mode.slow_s) * 1000;
        let last = self.spoke.get(&user.id).copied().filter(|_| slow_ms > 0)?;
        let left = (last + slow_ms).saturating_sub(now.ms);
        let left_ms = u32::try_from(left).unwrap_or(u32::MAX);
        (left > 0).then(|| refused(Code::SlowMode, Some(left_ms)))
    }

    fn mode(&self) -> Mode {
        serde_json::from_str(self.state.get("mode")).unwrap_or_default()
    }

    fn entered(&self) -> FromHome {
        FromHome::Entered {
            epoch: self.epoch,
            head: self.ring.head(),
            floor: self.ring.floor(),
            lineage: self.lineage.clone(),
            state: self.state.clone(),
        }
    }

    /// Lets an edge in, and sends it what it lacks.
    fn admit(&self, edge: EdgeId, past: Option<&Past>, out: &mut Vec<Output>) {
        let continued = past.filter(|past| {
            past.head >= self.ring.floor()
                && (past.epoch == self.epoch && past.head <= self.ring.head()
                    || self.lineage.contains_base(past.epoch, past.head))
        });
        let from = continued.map_or(self.ring.floor(), |past| past.head);
        out.push(Output::To(edge, self.entered()));
        let missing: Vec<Bytes> = match continued {
            Some(_) => self.ring.since(from),
            None => self.ring.all(),
        }
        .iter()
        .map(|item| item.encode_shared())
        .collect();
        if !missing.is_empty() {
            out.push(Output::To(edge, FromHome::Items(missing)));
        }
        out.push(Output::To(edge, FromHome::Counters(self.counting.told())));
        out.push(Output::To(edge, self.counting.listed()));
    }

    fn close_epoch(&mut self, epoch: Epoch, base: u64) {
        self.lineage.push((epoch, base));
        let over = self.lineage.len().saturating_sub(MAX_LINEAGE);
        self.lineage.drain(..over);
    }
}

/// Whether a position of an old epoch still holds.
trait Lineage {
    fn contains_base(&self, epoch: Epoch, offset: u64) -> bool;
}

impl Lineage for Vec<(Epoch, u64)> {
    fn contains_base(&self, epoch: Epoch, offset: u64) -> bool {
        self.iter().any(|&(known, base)| known == epoch && offset <= base)
    }
}

/// The last values under the keys used last: a map that forgets.
#[derive(Debug)]
struct Recent<K, V> {
    values: HashMap<K, V>,
    order: VecDeque<K>,
    limit: usize,
}

impl<K: Clone + Eq + std::hash::Hash, V> Recent<K, V> {
    fn new(limit: usize) -> Self {
        Self { values: HashMap::new(), order: VecDeque::new(), limit }
    }

    fn get(&self, key: &K) -> Option<&V> {
        self.values.get(key)
    }

    fn insert(&mut self, key: K, value: V) {
        if self.values.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > self.limit {
            let oldest = self.order.pop_front();
            oldest.and_then(|oldest| self.values.remove(&oldest));
        }
    }
}

fn answer(edge: EdgeId, request: u64, verdict: Verdict) -> Output {
    Output::To(edge, FromHome::Said { request, verdict })
}

fn refused(code: Code, retry_ms: Option<u32>) -> Verdict {
    Verdict::Refused { code, retry_ms }
}

/// Whether a text is nothing but emotes: `:names:`, pictographs and spaces.
fn is_emotes(text: &str) -> bool {
    let is_name = |word: &str| {
        let inner = word.strip_prefix(':').and_then(|w| w.strip_suffix(':')).unwrap_or_default();
        !inner.is_empty() && inner.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let is_picture = |c: char| matches!(c, '\u{2190}'..='\u{2bff}' | '\u{1f000}'..='\u{1faff}' | '\u{200d}' | '\u{fe0f}');
    text.split_whitespace().all(|word| is_name(word) || word.chars().all(is_picture))
}

/// Whether a text names an address that people could follow.
fn has_link(text: &str) -> bool {
    let lower = text.to_lowercase();
    lower.contains("://")
        || lower.contains("www.")
        || lower.split(|c: char| c.is_whitespace() || matches!(c, '/' | ',' | '(' | ')')).any(
            |word| {
                let word = word.trim_end_matches(['.', '!', '?']);
                word.rsplit_once('.').is_some_and(|(host, top)| {
                    !host.is_empty()
                        && host.chars().next_back().is_some_and(|c| c.is_ascii_alphanumeric())
                        && (2..=12).contains(&top.len())
                        && top.chars().all(|c| c.is_ascii_lowercase())
                })
            },
        )
}
