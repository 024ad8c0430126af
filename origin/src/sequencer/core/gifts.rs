//! Gifts: committed by the ledger, then given their place, then acknowledged.
//!
//! A gift is the same however often it is sent and through whichever edge: by (room, user, client id)
//! in the ledger, and by the ledger's number here. Gifts of one user and kind within [`COMBO_MS`] of
//! each other are one combo, whose count goes up.

use std::collections::{BTreeMap, HashMap};

use wire::events::{AddressClass, Whence};
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
/// Gifts on their way to the ledger; beyond, they are answered `unavailable`.
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

#[derive(Debug)]
pub(super) struct Gifts {
    /// Who waits for which gift.
    pending: HashMap<(String, String), Vec<(EdgeId, u64)>>,
    placed: Recent<u64, Verdict>,
    combos: BTreeMap<(String, String), Combo>,
}

impl Default for Gifts {
    fn default() -> Self {
        Self { pending: HashMap::new(), placed: Recent::new(MAX_PLACED), combos: BTreeMap::new() }
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
    pub(super) fn give(
        &mut self,
        now: Now,
        edge: EdgeId,
        user: &User,
        say: &Say,
        (gift, count, order): (&str, u32, Option<&str>),
        out: &mut Vec<Output>,
    ) -> Option<Verdict> {
        if gift.is_empty() || gift.len() > MAX_GIFT_BYTES || !(1..=MAX_COUNT).contains(&count) {
            return Some(refused(Code::UnknownGift, None));
        }
        if let Some(refusal) = self.silenced(now, user, say) {
            return Some(refusal);
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
            whence: Whence { address: AddressClass::of(say.address), ..Whence::default() },
            at_unix_ms: now.unix_ms,
        };
        match (&asked.order, &self.rules.shop) {
            // The application behind the API sells by itself; its order numbers are taken as they are.
            _ if edge == super::API => {}
            (Some(_), Some(shop)) => match shop.check(&asked, now.unix_ms) {
                Some(paid) => (asked.order, asked.value) = (Some(paid.order), paid.value),
                None => return Some(refused(Code::BadOrder, None)),
            },
            _ if self.rules.open_gifts => asked.order = None,
            _ => return Some(refused(Code::BadOrder, None)),
        }
        let pending = &mut self.gifts.pending;
        let is_full = pending.len() >= MAX_PENDING;
        match pending.get_mut(&(user.id.clone(), say.cid.clone())) {
            Some(askers) if askers.len() < MAX_ASKERS => askers.push((edge, say.request)),
            Some(_) => return Some(refused(Code::Unavailable, Some(RETRY_MS))),
            None if is_full => return Some(refused(Code::Unavailable, Some(RETRY_MS))),
            None => {
                let key = (user.id.clone(), say.cid.clone());
                pending.insert(key, vec![(edge, say.request)]);
                out.push(Output::Commit(asked));
            }
        }
        None
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
            Err(LedgerError::Unavailable { retry_after }) => {
                let retry_ms = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
                refused(Code::Unavailable, Some(retry_ms.max(1)))
            }
            // The next home answers.
            Err(LedgerError::Stale { .. }) => refused(Code::Unavailable, Some(RETRY_MS)),
            Err(_) => refused(Code::BadOrder, None),
        };
        if let Verdict::Refused { code, .. } = &verdict {
            out.push(Output::Count(Count::Refused(*code)));
        }
        let key = (asked.uid.clone(), asked.cid.clone());
        for (edge, request) in self.gifts.pending.remove(&key).unwrap_or_default() {
            out.push(answer(edge, request, verdict.clone()));
        }
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
