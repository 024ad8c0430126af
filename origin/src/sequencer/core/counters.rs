//! Counts of a room: members over all edges, likes, arrivals.
//!
//! Likes are a table of ever growing totals by the incarnation of an edge, so that nothing is counted
//! twice however often it is said, and so that a new home that unites the tables of all edges has the
//! exact sum. Members are distinct users over the censuses of the last [`CENSUS_LIFE_MS`].

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use wire::room::model::{Join, Mode, base36};
use wire::room::relay::{Counters, FromHome, MAX_LISTED, MAX_LISTED_BYTES, MAX_TALLY, RoomState};
use wire::room::{Body, Census, Item, Role, User};

use super::{EdgeId, Now, Output};

/// How long an edge's census counts.
const CENSUS_LIFE_MS: u64 = 10_000;
/// How often counters are told at most.
const TOLD_EVERY_MS: u64 = 1_000;
/// How often counters are told although nothing changed: a sign of life.
const REPEATED_EVERY_MS: u64 = 2_000;
/// Rooms up to this size are told who came; larger ones how many.
const EACH_JOIN: u64 = 1_000;
/// Rooms from this size are told only of those who matter.
const NO_JOINS: u64 = 10_000;
/// Arrivals told one by one in a second.
const JOINS_PER_SECOND: u32 = 5;
/// Members told by name in a room with more than [`MAX_LISTED`], host and moderators among them.
const SOME_LISTED: usize = 50;
/// How often the list of members is told at most.
const LISTED_EVERY_MS: u64 = 2_000;

/// What the API tells of a room's interaction.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// Members on all edges.
    pub members: u64,
    /// Likes since the room was opened.
    pub likes: u64,
    /// Likes in the last second.
    pub likes_per_s: u64,
    /// Edges that carry the room.
    pub edges: usize,
    /// The newest offset.
    pub head: u64,
    /// Who may say what.
    pub mode: Mode,
    /// Keys and sanctions.
    pub state: RoomState,
    /// Members by name, as far as they are told: the Protobuf forms of [`User`].
    pub users: Vec<Bytes>,
}

#[derive(Debug, Default)]
pub(super) struct Counting {
    edges: BTreeMap<EdgeId, Edge>,
    tally: BTreeMap<u64, u64>,
    told: Counters,
    told_at_ms: u64,
    /// Likes and the time a second or more ago, for the rate.
    mark: (u64, u64),
    /// Arrivals told one by one since the last telling, and those not told.
    joins: (u32, u32),
    next_join: u64,
    /// The list of members as last told, when, and whether an edge has said another since.
    listed: Vec<Bytes>,
    listed_at_ms: u64,
    list_is_old: bool,
}

#[derive(Debug)]
struct Edge {
    incarnation: u64,
    census: Option<(u64, Census)>,
    /// Its members by name.
    users: Vec<Bytes>,
}

impl Counting {
    pub(super) fn enter(&mut self, edge: EdgeId, incarnation: u64) {
        self.edges.insert(edge, Edge { incarnation, census: None, users: Vec::new() });
    }

    pub(super) fn leave(&mut self, edge: EdgeId) {
        self.list_is_old |= self.edges.remove(&edge).is_some_and(|edge| !edge.users.is_empty());
    }

    /// Who is at an edge by name.
    pub(super) fn named(&mut self, edge: EdgeId, mut users: Vec<Bytes>) {
        users.truncate(MAX_LISTED);
        if let Some(edge) = self.edges.get_mut(&edge) {
            edge.users = users;
            self.list_is_old = true;
        }
    }

    pub(super) fn likes(&mut self, edge: EdgeId, total: u64) {
        let Some(edge) = self.edges.get(&edge) else { return };
        let incarnation = edge.incarnation;
        self.raise(incarnation, total);
    }

    /// Unites a table of likes with this one.
    pub(super) fn unite(&mut self, tally: &[(u64, u64)]) {
        tally.iter().for_each(|&(incarnation, total)| self.raise(incarnation, total));
    }

    fn raise(&mut self, incarnation: u64, total: u64) {
        if self.tally.len() >= MAX_TALLY && !self.tally.contains_key(&incarnation) {
            // The edge that has gone longest is not known; the one with least likes costs least.
            let gone =
                |incarnation: &u64| self.edges.values().all(|e| e.incarnation != *incarnation);
            let least =
                self.tally.iter().filter(|(i, _)| **i != 0 && gone(i)).min_by_key(|(_, n)| **n);
            let Some((&least, &count)) = least else { return };
            self.tally.remove(&least);
            *self.tally.entry(0).or_default() += count;
        }
        let known = self.tally.entry(incarnation).or_default();
        *known = (*known).max(total);
    }

    pub(super) fn present(&mut self, now: Now, edge: EdgeId, census: Census) {
        if let Some(edge) = self.edges.get_mut(&edge) {
            edge.census = Some((now.ms, census));
        }
    }

    /// Somebody came: told if the room is small enough or they matter.
    pub(super) fn came(&mut self, now: Now, user: &Bytes, out: &mut Vec<Output>) {
        let Ok(user) = User::decode(&**user) else { return };
        let matters = user.r() >= Role::Mod;
        if self.told.on >= NO_JOINS && !matters {
            return;
        }
        if !matters && (self.told.on >= EACH_JOIN || self.joins.0 >= JOINS_PER_SECOND) {
            self.joins.1 += 1;
            return;
        }
        self.joins.0 += 1;
        out.push(self.join(now, Join { u: Some(user), n: None }));
    }

    pub(super) fn poll(&mut self, now: Now, out: &mut Vec<Output>) {
        if self.list_is_old && now.ms >= self.listed_at_ms + LISTED_EVERY_MS {
            (self.list_is_old, self.listed_at_ms) = (false, now.ms);
            let users = self.list(self.members(now));
            if users != self.listed {
                self.listed.clone_from(&users);
                out.push(Output::All(FromHome::Members { users }));
            }
        }
        if now.ms < self.told_at_ms + TOLD_EVERY_MS {
            return;
        }
        let (_, untold) = std::mem::take(&mut self.joins);
        if untold > 0 {
            out.push(self.join(now, Join { u: None, n: Some(untold) }));
        }
        let like = self.tally.values().sum();
        let past_ms = now.ms.saturating_sub(self.mark.1).max(1);
        let lps = (like - self.mark.0.min(like)) * 1000 / past_ms;
        self.mark = (like, now.ms);
        let on = self.members(now);
        let is_news = (on, like, lps) != (self.told.on, self.told.like, self.told.lps);
        if !is_news && now.ms < self.told_at_ms + REPEATED_EVERY_MS {
            return;
        }
        self.told_at_ms = now.ms;
        let tally = if like == self.told.like { Vec::new() } else { self.table() };
        let v = self.told.v + u64::from(is_news);
        self.told = Counters { on, like, lps, v, tally: Vec::new() };
        out.push(Output::All(FromHome::Counters(Counters { tally, ..self.told.clone() })));
    }

    /// The counters as last told, with the table.
    pub(super) fn told(&self) -> Counters {
        Counters { tally: self.table(), ..self.told.clone() }
    }

    /// The list of members as last told.
    pub(super) fn listed(&self) -> FromHome {
        FromHome::Members { users: self.listed.clone() }
    }

    /// Who is here, each once, host and moderators first: all of a small room, some of a large one.
    fn list(&self, members: u64) -> Vec<Bytes> {
        let mut by_name = BTreeMap::new();
        for bytes in self.edges.values().flat_map(|edge| &edge.users) {
            if let Ok(user) = User::decode(&**bytes) {
                by_name.insert((std::cmp::Reverse(user.r()), user.id), bytes);
            }
        }
        let limit = match members <= MAX_LISTED as u64 && by_name.len() <= MAX_LISTED {
            true => MAX_LISTED,
            false => SOME_LISTED,
        };
        let mut left = MAX_LISTED_BYTES;
        let fits = |bytes: &&Bytes| {
            let fits = bytes.len() <= left;
            left = left.saturating_sub(bytes.len());
            fits
        };
        by_name.into_values().take(limit).take_while(fits).cloned().collect()
    }

    /// Goes on above versions that another home has told.
    pub(super) fn begin_above(&mut self, version: u64) {
        self.told.v = self.told.v.max(version);
        self.told.like = self.tally.values().sum();
        self.mark.0 = self.told.like;
    }

    pub(super) fn figures(&self, edges: usize, head: u64, mode: Mode, state: RoomState) -> Figures {
        let Counters { on: members, like: likes, lps: likes_per_s, .. } = self.told;
        let users = self.listed.clone();
        Figures { members, likes, likes_per_s, edges, head, mode, state, users }
    }

    fn table(&self) -> Vec<(u64, u64)> {
        self.tally.iter().map(|(&incarnation, &total)| (incarnation, total)).collect()
    }

    fn members(&self, now: Now) -> u64 {
        let fresh = self.edges.values().filter_map(|edge| edge.census.as_ref());
        let mut fresh =
            fresh.filter(|(at, _)| now.ms < at + CENSUS_LIFE_MS).map(|(_, census)| census);
        let Some(first) = fresh.next() else { return 0 };
        let mut rest = fresh.peekable();
        if rest.peek().is_none() {
            return first.count();
        }
        let mut all = first.clone();
        rest.for_each(|census| all.unite(census));
        all.count()
    }

    fn join(&mut self, now: Now, join: Join) -> Output {
        self.next_join += 1;
        let id = format!("j{}-{}", base36(now.unix_ms), base36(self.next_join));
        let item = Item { body: Some(Body::Join(join)), id, o: None, ts: now.unix_ms };
        Output::All(FromHome::Ambient(vec![item.encode_shared()]))
    }
}
