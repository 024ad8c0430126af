//! What a room's members are shown in one tick, when not all can be. Pure.
//!
//! In: items as they come from the home, how many members there are, the time. Out: for each tick the
//! items to show and what was left out, by lane. Control is never left out; gifts and trusted voices wait
//! a little and are counted when they waited too long; chat is sampled by weight, one message a user,
//! equal texts merged; arrivals are the first to go.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use wire::room::{Body, Item, Lane, Role};

use crate::config::RoomPace;

/// Gifts shown a second; combos count once.
const MONEY_PER_SECOND: f64 = 10.0;
/// Messages of the host and moderators shown a second.
const TRUSTED_PER_SECOND: f64 = 5.0;
/// Gifts that wait: two seconds' worth. Beyond, the oldest is counted as left out.
const MAX_MONEY: usize = 20;
/// Trusted messages that wait: a second's worth. Beyond, the oldest is counted as left out.
const MAX_TRUSTED: usize = 5;
/// Messages that wait for one tick; beyond, they are sampled as they come.
const MAX_CHAT: usize = 1024;
/// Arrivals shown in one tick.
const MAX_AMBIENT: usize = 5;
/// Users whose message was shown so lately weigh less.
const SHOWN_LATELY_MS: u64 = 5_000;
/// From this many members on, equal texts of one tick are one item.
const MERGE_FROM: u64 = 200;

/// How a room of some size is served.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tier {
    /// Between two ticks.
    pub(crate) tick: Duration,
    /// Messages shown a second.
    pub(crate) chat_per_second: f64,
    /// Whether arrivals are shown.
    pub(crate) ambient: bool,
    /// Whether equal texts are merged.
    merges: bool,
}

impl Tier {
    /// How a room with so many members is served; with `pressed`, on a node that has not enough CPU.
    pub(crate) fn of(members: u64, pressed: bool) -> Self {
        let (tick_ms, chat_per_second) = match members {
            0..200 => (50, 200.0),
            200..1_000 => (100, 100.0),
            1_000..10_000 => (200, 40.0),
            10_000..100_000 => (250, 20.0),
            _ => (400, 18.0),
        };
        let (longer, fewer) = if pressed { (2, 0.5) } else { (1, 1.0) };
        Self {
            tick: Duration::from_millis(tick_ms * longer),
            chat_per_second: chat_per_second * fewer,
            ambient: !pressed,
            merges: members >= MERGE_FROM,
        }
    }

    /// The same, within what the operator says.
    pub(crate) fn within(self, pace: RoomPace) -> Self {
        Self {
            tick: self.tick.min(pace.max_tick),
            chat_per_second: pace.chat_per_second.map_or(self.chat_per_second, f64::from),
            ..self
        }
    }
}

/// What one tick shows.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Chosen {
    /// By offset; those without one last.
    pub(crate) items: Vec<Arc<Item>>,
    /// Left out, by lane number.
    pub(crate) left_out: BTreeMap<u32, u32>,
    /// Messages that are shown as part of another.
    pub(crate) merged: u32,
}

/// Items that wait for the next tick.
#[derive(Debug)]
pub(crate) struct Sampler {
    control: Vec<Arc<Item>>,
    money: VecDeque<Arc<Item>>,
    trusted: VecDeque<Arc<Item>>,
    chat: Vec<Arc<Item>>,
    ambient: VecDeque<Arc<Item>>,
    left_out: BTreeMap<u32, u32>,
    /// What may be shown now of money, of trusted, of chat.
    allowance: [f64; 3],
    last_ms: u64,
    /// When a user's message was shown last.
    shown_ms: HashMap<String, u64>,
    rng: SmallRng,
}

impl Sampler {
    pub(crate) fn new(rng: SmallRng) -> Self {
        Self {
            control: Vec::new(),
            money: VecDeque::new(),
            trusted: VecDeque::new(),
            chat: Vec::new(),
            ambient: VecDeque::new(),
            left_out: BTreeMap::new(),
            allowance: [MONEY_PER_SECOND, TRUSTED_PER_SECOND, f64::MAX],
            last_ms: 0,
            shown_ms: HashMap::new(),
            rng,
        }
    }

    /// Takes an item that is to be shown.
    pub(crate) fn push(&mut self, item: Arc<Item>) {
        match item.lane() {
            Lane::Control => {
                self.take_back(&item);
                self.control.push(item);
            }
            Lane::Money => {
                if let Some(waiting) =
                    self.money.iter_mut().find(|known| is_same_combo(known, &item))
                {
                    // Its count has all of the earlier one's.
                    *waiting = item;
                    return;
                }
                self.money.push_back(item);
                if self.money.len() > MAX_MONEY {
                    self.money.pop_front();
                    self.leave_out(Lane::Money);
                }
            }
            Lane::Trusted => {
                self.trusted.push_back(item);
                if self.trusted.len() > MAX_TRUSTED {
                    self.trusted.pop_front();
                    self.leave_out(Lane::Trusted);
                }
            }
            Lane::Chat if self.chat.len() < MAX_CHAT => self.chat.push(item),
            Lane::Chat => {
                let at = self.rng.random_range(0..2 * MAX_CHAT);
                if let Some(place) = self.chat.get_mut(at) {
                    *place = item;
                }
                self.leave_out(Lane::Chat);
            }
            Lane::Ambient => {
                self.ambient.push_back(item);
                if self.ambient.len() > MAX_AMBIENT {
                    self.ambient.pop_front();
                    self.leave_out(Lane::Ambient);
                }
            }
        }
    }

    /// Whether a tick would have something to show.
    pub(crate) fn is_empty(&self) -> bool {
        self.control.is_empty()
            && self.money.is_empty()
            && self.trusted.is_empty()
            && self.chat.is_empty()
            && self.ambient.is_empty()
            && self.left_out.is_empty()
    }

    /// The lowest offset of what matters and still waits.
    pub(crate) fn owes(&self) -> Option<u64> {
        self.money.iter().chain(&self.trusted).filter_map(|item| item.o).min()
    }

    /// What this tick shows.
    pub(crate) fn tick(&mut self, now_ms: u64, tier: Tier) -> Chosen {
        let passed = now_ms.saturating_sub(self.last_ms) as f64 / 1000.0;
        self.last_ms = now_ms;
        let rates = [MONEY_PER_SECOND, TRUSTED_PER_SECOND, tier.chat_per_second];
        for (allowed, rate) in self.allowance.iter_mut().zip(rates) {
            // A second's worth may come at once: a room that was quiet shows all of a burst.
            *allowed = (*allowed + rate * passed).min(rate);
        }
        let mut chosen = Chosen::default();
        chosen.items.append(&mut self.control);
        chosen.items.extend(take(&mut self.money, &mut self.allowance[0]));
        chosen.items.extend(take(&mut self.trusted, &mut self.allowance[1]));
        let chat = self.sample(now_ms, tier, &mut chosen.merged);
        chosen.items.extend(chat);
        if tier.ambient {
            chosen.items.extend(self.ambient.drain(..));
        } else {
            let over = self.ambient.drain(..).count();
            (0..over).for_each(|_| self.leave_out(Lane::Ambient));
        }
        chosen.items.sort_by_key(|item| item.o.unwrap_or(u64::MAX));
        chosen.left_out = std::mem::take(&mut self.left_out);
        self.shown_ms.retain(|_, at| *at + SHOWN_LATELY_MS > now_ms);
        chosen
    }

    fn sample(&mut self, now_ms: u64, tier: Tier, merged: &mut u32) -> Vec<Arc<Item>> {
        let mut waiting = std::mem::take(&mut self.chat);
        if tier.merges {
            let before = waiting.len();
            waiting = merge(waiting);
            *merged = u32::try_from(before - waiting.len()).unwrap_or(u32::MAX);
        }
        let allowed = self.allowance[2] as usize;
        if waiting.len() > allowed {
            // Weighted sampling without replacement (Efraimidis and Spirakis 2006): the highest keys.
            let mut keyed: Vec<(f64, Arc<Item>)> = Vec::with_capacity(waiting.len());
            for item in waiting {
                let weight = self.weight(now_ms, &item);
                keyed.push((self.rng.random::<f64>().powf(1.0 / weight), item));
            }
            keyed.sort_by(|a, b| b.0.total_cmp(&a.0));
            let mut seen = std::collections::HashSet::new();
            let (mut shown, mut over) = (Vec::new(), 0_u32);
            for (_, item) in keyed {
                let is_first = seen.insert(item.author().unwrap_or_default().to_owned());
                if is_first && shown.len() < allowed {
                    shown.push(item);
                } else {
                    over += 1;
                }
            }
            *self.left_out.entry(Lane::Chat.number()).or_default() += over;
            waiting = shown;
        }
        self.allowance[2] -= waiting.len() as f64;
        if tier.merges {
            for item in &waiting {
                self.shown_ms.insert(item.author().unwrap_or_default().to_owned(), now_ms);
            }
        }
        waiting
    }

    fn weight(&self, now_ms: u64, item: &Item) -> f64 {
        let Some(Body::Chat(chat)) = &item.body else { return 1.0 };
        let user = chat.u.clone().unwrap_or_default();
        let known = if user.r() >= Role::Member { 1.0 } else { 0.0 };
        let level = f64::from(user.lv.unwrap_or_default().min(40)) / 10.0;
        let lately = self.shown_ms.get(&user.id).is_some_and(|at| at + SHOWN_LATELY_MS > now_ms);
        (1.0 + known + level) * if lately { 0.3 } else { 1.0 }
    }

    /// What is taken back before it was shown is not shown.
    fn take_back(&mut self, item: &Item) {
        let is_gone = |known: &Item| match &item.body {
            Some(Body::Del(del)) => del.ids.contains(&known.id),
            Some(Body::Clear(clear)) => known.author() == Some(clear.uid.as_str()),
            _ => false,
        };
        self.chat.retain(|known| !is_gone(known));
        self.trusted.retain(|known| !is_gone(known));
    }

    fn leave_out(&mut self, lane: Lane) {
        *self.left_out.entry(lane.number()).or_default() += 1;
    }
}

fn take(waiting: &mut VecDeque<Arc<Item>>, allowed: &mut f64) -> Vec<Arc<Item>> {
    let count = (*allowed as usize).min(waiting.len());
    *allowed -= count as f64;
    waiting.drain(..count).collect()
}

fn is_same_combo(a: &Item, b: &Item) -> bool {
    match (&a.body, &b.body) {
        (Some(Body::Gift(a)), Some(Body::Gift(b))) => a.combo.is_some() && a.combo == b.combo,
        _ => false,
    }
}

/// Equal texts become the newest of them, with how many they were.
fn merge(items: Vec<Arc<Item>>) -> Vec<Arc<Item>> {
    let mut counts: HashMap<String, u32> = HashMap::new();
    for item in &items {
        if let Some(Body::Chat(chat)) = &item.body {
            *counts.entry(chat.x.clone()).or_default() += 1;
        }
    }
    let mut out = Vec::with_capacity(counts.len());
    for item in items.into_iter().rev() {
        let Some(Body::Chat(chat)) = &item.body else { continue };
        match counts.remove(&chat.x) {
            Some(1) => out.push(item),
            Some(n) => {
                let mut one = Item::clone(&item);
                if let Some(Body::Chat(chat)) = &mut one.body {
                    chat.n = Some(n);
                }
                out.push(Arc::new(one));
            }
            None => {}
        }
    }
    out.reverse();
    out
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use wire::room::User;
    use wire::room::model::{Chat, Clear, Gift};

    use super::*;

    fn sampler() -> Sampler {
        Sampler::new(SmallRng::seed_from_u64(7))
    }

    fn chat(o: u64, user: u64, text: &str) -> Arc<Item> {
        let u = Some(User { id: format!("u{user}"), ..User::default() });
        let body = Some(Body::Chat(Chat { u, x: text.into(), ..Chat::default() }));
        Arc::new(Item { body, id: format!("i{o}"), o: Some(o), ts: 0 })
    }

    fn gift(o: u64, combo: &str, n: u32) -> Arc<Item> {
        let body = Body::Gift(Gift { combo: Some(combo.into()), n, ..Gift::default() });
        Arc::new(Item { body: Some(body), id: format!("g{o}"), o: Some(o), ts: 0 })
    }

    #[test]
    fn an_operator_may_ask_for_shorter_ticks_and_another_sample() {
        let pace = RoomPace { max_tick: Duration::from_millis(80), chat_per_second: Some(7) };
        let tick = |members| Tier::of(members, false).within(pace).tick.as_millis();
        assert_eq!((tick(10), tick(500), tick(1_000_000)), (50, 80, 80));
        assert_eq!(Tier::of(10, false).within(pace).chat_per_second, 7.0);
        assert_eq!(Tier::of(10, true).within(RoomPace::default()), Tier::of(10, true));
    }

    #[test]
    fn a_small_room_sees_everything_in_order() {
        let mut sampler = sampler();
        (1..=100).for_each(|o| sampler.push(chat(o, o, "hi")));
        let chosen = sampler.tick(1000, Tier::of(10, false));
        assert_eq!(
            chosen.items.iter().map(|i| i.o.unwrap()).collect::<Vec<_>>(),
            (1..=100).collect::<Vec<_>>()
        );
        assert!(chosen.left_out.is_empty() && sampler.is_empty());
    }

    #[test]
    fn a_large_room_sees_its_budget_and_is_told_the_rest() {
        let mut sampler = sampler();
        let (mut shown, mut out) = (0, 0);
        for tick in 1..=40_u64 {
            (0..50).for_each(|n| sampler.push(chat(tick * 50 + n, n, &format!("{tick} {n}"))));
            let chosen = sampler.tick(tick * 250, Tier::of(50_000, false));
            shown += chosen.items.len();
            out += chosen.left_out.get(&3).copied().unwrap_or_default() as usize;
        }
        assert_eq!(shown + out, 2000);
        assert!((200..=225).contains(&shown), "{shown} in ten seconds at 20 a second");
    }

    #[test]
    fn one_user_is_not_the_room_and_equal_texts_are_one() {
        let mut sampler = sampler();
        sampler.tick(0, Tier::of(2_000, false));
        (1..=60).for_each(|o| sampler.push(chat(o, 1, &format!("spam {o}"))));
        (61..=100).for_each(|o| sampler.push(chat(o, o, "gg")));
        let chosen = sampler.tick(200, Tier::of(2_000, false));
        assert_eq!(chosen.items.len(), 2, "{chosen:?}");
        assert_eq!(chosen.merged, 39);
        let merged = chosen.items.iter().find_map(|item| match &item.body {
            Some(Body::Chat(chat)) => chat.n,
            _ => None,
        });
        assert_eq!(merged, Some(40));
    }

    #[test]
    fn gifts_wait_merge_and_are_never_passed_over_silently() {
        let mut sampler = sampler();
        (1..=40).for_each(|o| sampler.push(gift(o, "one", o as u32)));
        (41..=80).for_each(|o| sampler.push(gift(o, &format!("c{o}"), 1)));
        let mut seen = 0;
        let first = sampler.tick(50, Tier::of(10, false));
        assert_eq!(first.items.len(), 10);
        assert_eq!(sampler.owes(), Some(71));
        seen += first.items.len() + first.left_out[&1] as usize;
        seen += sampler.tick(1050, Tier::of(10, false)).items.len();
        assert_eq!(seen, 41);
        assert_eq!(sampler.owes(), None);
    }

    #[test]
    fn what_is_taken_back_in_time_is_never_shown() {
        let mut sampler = sampler();
        sampler.push(chat(1, 1, "oops"));
        sampler.push(chat(2, 2, "fine"));
        let body = Some(Body::Clear(Clear { uid: "u1".into() }));
        sampler.push(Arc::new(Item { body, id: "c".into(), o: Some(3), ts: 0 }));
        let shown: Vec<_> = sampler.tick(50, Tier::of(10, false)).items;
        assert_eq!(shown.iter().map(|i| i.o.unwrap()).collect::<Vec<_>>(), [2, 3]);
    }
}
