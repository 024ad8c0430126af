//! Gifts: committed by the ledger, then given their place, then acknowledged.
//!
//! A gift is the same however often it is sent and through whichever edge: by (room, user, client id)
//! in the ledger, and by the ledger's number here. Gifts of one user and kind within [`COMBO_MS`] of
//! each other are one combo, whose count goes up.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use wire::events::Whence;
use wire::room::model;
use wire::room::relay::{Say, Verdict};
use wire::room::{Body, Code, Role, User};

use super::{
    Committed, Core, Count, EdgeId, Gift, LedgerError, Now, Output, Place, Recent, answer, refused,
};

/// How long a combo waits for its next gift.
const COMBO_MS: u64 = 3_000;
/// Combos open at once; beyond, gifts stand alone.
const MAX_COMBOS: usize = 10_000;
/// Gifts on their way to the ledger, and gifts looked up in it; beyond, they are answered `unavailable`.
const MAX_PENDING: usize = 10_000;
/// Askers of one gift that are answered; a client has no reason to ask more often meanwhile.
const MAX_ASKERS: usize = 8;
/// Gifts whose place is remembered until the ledger has it marked.
const MAX_PLACED: usize = 20_000;
/// The longest name of a gift, in bytes.
const MAX_GIFT_BYTES: usize = 64;
/// Most gifts at a time.
const MAX_COUNT: u32 = 9_999;
/// When to try again while the ledger's queue is full, in milliseconds.
const RETRY_MS: u32 = 1_000;

/// Those who wait for the fate of one gift: on which edge, under which number.
type Askers = Vec<(EdgeId, u64)>;

#[derive(Debug)]
pub(super) struct Gifts {
    /// Who waits for which gift.
    pending: HashMap<(String, String), Askers>,
    /// Who would be refused which gift, and how, unless the ledger has it.
    sought: HashMap<(String, String), (Verdict, Askers)>,
    placed: Recent<u64, Verdict>,
    combos: BTreeMap<(String, String), Combo>,
}

impl Default for Gifts {
    fn default() -> Self {
        Self {
            pending: HashMap::new(),
            sought: HashMap::new(),
            placed: Recent::new(MAX_PLACED),
            combos: BTreeMap::new(),
        }
    }
}

#[derive(Debug)]
struct Combo {
    id: String,
    count: u32,
    until_ms: u64,
}

impl Gifts {
    pub(super) fn expire(&mut self, now: Now) {
        self.combos.retain(|_, combo| combo.until_ms > now.ms);
    }

    /// The combo this gift belongs to, and how many there are in it now.
    fn combine(&mut self, now: Now, gift: &Gift, id: &str) -> Option<(String, u32)> {
        let key = (gift.uid.clone(), gift.gift.clone());
        let is_full = self.combos.len() >= MAX_COMBOS;
        let combo = match self.combos.get_mut(&key).filter(|combo| combo.until_ms > now.ms) {
            Some(combo) => combo,
            None if is_full => return None,
            None => {
                let combo = Combo { id: id.to_owned(), count: 0, until_ms: 0 };
                self.combos.insert(key.clone(), combo);
                self.combos.get_mut(&key)?
            }
        };
        combo.count = combo.count.saturating_add(gift.count);
        combo.until_ms = now.ms + COMBO_MS;
        Some((combo.id.clone(), combo.count))
    }
}

impl Core {
    /// A gift is asked for. None: the ledger is asked first.
    ///
    /// What would be refused may be the repetition of a gift that was taken: since then its order has
    /// run out, or its giver was silenced. It is looked up, and answered as it was.
    pub(super) fn give(
        &mut self,
        now: Now,
        edge: EdgeId,
        user: &User,
        (say, whence): (&Say, &Whence),
        (gift, count, order): (&str, u32, Option<&str>),
        out: &mut Vec<Output>,
    ) -> Option<Verdict> {
        if gift.is_empty() || gift.len() > MAX_GIFT_BYTES || !(1..=MAX_COUNT).contains(&count) {
            return Some(refused(Code::UnknownGift, None));
        }
        let mut asked = Gift {
            room: self.room.clone(),
            epoch: self.epoch,
            uid: user.id.clone(),
            name: user.n.clone(),
            role: role_name(user.r()).to_owned(),
            cid: say.cid.clone(),
            gift: gift.to_owned(),
            count,
            order: order.map(str::to_owned),
            value: 0,
            whence: whence.clone(),
            at_unix_ms: now.unix_ms,
        };
        let is_closed = edge != super::API && order.is_none() && !self.rules.open_gifts;
        if is_closed {
            return Some(refused(Code::BadOrder, None));
        }
        let silenced = self.silenced(now, user, say);
        let refusal = silenced.or_else(|| self.check_order(now, edge, &mut asked));
        let key = (user.id.clone(), say.cid.clone());
        let gifts = &mut self.gifts;
        let is_full = gifts.pending.len() + gifts.sought.len() >= MAX_PENDING;
        // One that is being committed is answered as that, whatever has become of its order meanwhile.
        let waiting = match refusal.is_some() && !gifts.pending.contains_key(&key) {
            true => gifts.sought.get_mut(&key).map(|(_, askers)| askers),
            false => gifts.pending.get_mut(&key),
        };
        match (waiting, refusal) {
            (Some(askers), _) if askers.len() < MAX_ASKERS => askers.push((edge, say.request)),
            (Some(_), _) => return Some(refused(Code::Unavailable, Some(RETRY_MS))),
            (None, _) if is_full => return Some(refused(Code::Unavailable, Some(RETRY_MS))),
            (None, None) => {
                gifts.pending.insert(key, vec![(edge, say.request)]);
                out.push(Output::Commit(asked));
            }
            (None, Some(refusal)) => {
                gifts.sought.insert(key, (refusal, vec![(edge, say.request)]));
                out.push(Output::Find(asked));
            }
        }
        None
    }

    /// What the shop says of a gift's order, which is put in its place; a refusal if it is none.
    fn check_order(&self, now: Now, edge: EdgeId, asked: &mut Gift) -> Option<Verdict> {
        match (&asked.order, &self.rules.shop) {
            // The application behind the API sells by itself; its order numbers are taken as they are.
            _ if edge == super::API => None,
            (Some(_), Some(shop)) => match shop.check(asked, now.unix_ms) {
                Some(paid) => {
                    (asked.order, asked.value) = (Some(paid.order), paid.value);
                    None
                }
                None => Some(refused(Code::BadOrder, None)),
            },
            _ if self.rules.open_gifts => {
                asked.order = None;
                None
            }
            _ => Some(refused(Code::BadOrder, None)),
        }
    }

    /// The ledger has answered whether it has a gift that would be refused.
    pub(crate) fn found(
        &mut self,
        now: Now,
        asked: &Gift,
        result: Result<Option<Committed>, LedgerError>,
        out: &mut Vec<Output>,
    ) {
        let key = (asked.uid.clone(), asked.cid.clone());
        let Some((refusal, askers)) = self.gifts.sought.remove(&key) else { return };
        let verdict = match result {
            Ok(Some(committed)) if is_same(&committed.gift, asked) => {
                self.hand_out(now, committed, out)
            }
            Err(LedgerError::Unavailable { retry_after }) => unavailable(retry_after),
            _ => refusal,
        };
        self.answer_all(askers, verdict, out);
    }

    fn answer_all(&self, askers: Askers, verdict: Verdict, out: &mut Vec<Output>) {
        if let Verdict::Refused { code, .. } = &verdict {
            out.push(Output::Count(Count::Refused(*code)));
        }
        for (edge, request) in askers {
            out.push(answer(edge, request, verdict.clone()));
        }
    }

    /// The ledger has answered about a gift.
    pub(crate) fn committed(
        &mut self,
        now: Now,
        asked: &Gift,
        result: Result<Committed, LedgerError>,
        out: &mut Vec<Output>,
    ) {
        let verdict = match result {
            Ok(committed) if !is_same(&committed.gift, asked) => refused(Code::Duplicate, None),
            Ok(committed) => self.hand_out(now, committed, out),
            Err(LedgerError::Unavailable { retry_after }) => unavailable(retry_after),
            // The next home answers.
            Err(LedgerError::Stale { .. }) => refused(Code::Unavailable, Some(RETRY_MS)),
            Err(_) => refused(Code::BadOrder, None),
        };
        let key = (asked.uid.clone(), asked.cid.clone());
        let askers = self.gifts.pending.remove(&key).unwrap_or_default();
        self.answer_all(askers, verdict, out);
    }

    /// Gives a committed gift its place, unless it has one.
    pub(crate) fn hand_out(
        &mut self,
        now: Now,
        committed: Committed,
        out: &mut Vec<Output>,
    ) -> Verdict {
        let Committed { id: number, gift, place } = committed;
        let id = format!("g{number}");
        if let Some(place) = place {
            return Verdict::Placed { id, offset: place.offset };
        }
        if let Some(known) = self.gifts.placed.get(&number) {
            return known.clone();
        }
        let user = User {
            id: gift.uid.clone(),
            n: gift.name.clone(),
            r: role_named(&gift.role).into(),
            lv: None,
        };
        let (combo, n) = match self.gifts.combine(now, &gift, &id) {
            Some((combo, n)) => (Some(combo), n),
            None => (None, gift.count),
        };
        let end = combo.is_some().then_some(COMBO_MS as u32);
        let body = Body::Gift(model::Gift { u: Some(user), g: gift.gift, n, combo, end });
        let verdict = self.place(now, Some(id), body, out);
        if let Verdict::Placed { offset, .. } = verdict {
            out.push(Output::Mark(number, Place { epoch: self.epoch, offset }));
        }
        self.gifts.placed.insert(number, verdict.clone());
        verdict
    }
}

fn unavailable(retry_after: Duration) -> Verdict {
    let retry_ms = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
    refused(Code::Unavailable, Some(retry_ms.max(1)))
}

fn is_same(kept: &Gift, asked: &Gift) -> bool {
    (&kept.uid, &kept.cid, &kept.gift, kept.count)
        == (&asked.uid, &asked.cid, &asked.gift, asked.count)
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Guest => "guest",
        Role::Member => "member",
        Role::Mod => "mod",
        Role::Host => "host",
    }
}

fn role_named(name: &str) -> Role {
    [Role::Member, Role::Mod, Role::Host]
        .into_iter()
        .find(|role| role_name(*role) == name)
        .unwrap_or(Role::Guest)
}
