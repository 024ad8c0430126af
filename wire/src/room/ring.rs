//! The recent past of a room, by which members resume, newcomers see what was said, and a new home
//! takes over from an old one. The same rules hold at a home and at an edge.
//!
//! In: items in the order of their offsets. Out: what came after an offset, and a snapshot. Bounded:
//! [`MAX_ITEMS`] messages and [`MAX_ITEMS`] of what matters more, for [`KEPT_MS`]; gifts for
//! [`PAID_MS`]. What is over leaves, and positions before it cannot be resumed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::model::{Body, Item, Lane};

/// Items kept of chat, of gifts, and of the rest, each.
pub const MAX_ITEMS: usize = 300;
/// How long items are kept, in milliseconds.
pub const KEPT_MS: u64 = 60_000;
/// How long gifts are kept to be shown to newcomers, in milliseconds.
pub const PAID_MS: u64 = 600_000;
/// Messages a resumed member is sent at most; the rest is counted.
pub const MAX_RESUMED_CHAT: usize = 100;
/// Messages a newcomer is shown.
pub const SNAPSHOT_CHAT: usize = 50;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Ring {
    /// Chat, the rest, gifts; each by offset.
    queues: [VecDeque<Kept>; 3],
    /// Everything above it is here, but for what was deleted.
    floor: u64,
    /// The newest offset.
    head: u64,
}

#[derive(Debug, Clone)]
struct Kept {
    at_ms: u64,
    item: Arc<Item>,
}

/// What a resumed member missed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Missed {
    /// Oldest first.
    pub items: Vec<Arc<Item>>,
    /// What was left out, by lane number.
    pub left_out: BTreeMap<u32, u32>,
}

impl Ring {
    /// An empty ring behind `head`, of which nothing earlier is known.
    #[must_use]
    pub fn starting_at(head: u64) -> Self {
        Self { queues: Default::default(), floor: head, head }
    }

    /// The newest offset.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.head
    }

    /// The offset after which nothing is missing.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Whether everything after `offset` is here.
    #[must_use]
    pub fn reaches(&self, offset: u64) -> bool {
        (self.floor..=self.head).contains(&offset)
    }

    /// Takes the next item. Returns whether it was news: an item without offset, or one at or below
    /// the head, changes nothing. One that skips offsets makes what was before unreachable.
    pub fn push(&mut self, now_ms: u64, item: &Arc<Item>) -> bool {
        let Some(offset) = item.o.filter(|&offset| offset > self.head) else { return false };
        if offset > self.head + 1 {
            self.floor = offset - 1;
        }
        self.head = offset;
        match &item.body {
            Some(Body::Del(del)) => self.forget(|kept| del.ids.contains(&kept.id)),
            Some(Body::Clear(clear)) => self.forget(|kept| {
                kept.lane() != Lane::Money && kept.author() == Some(clear.uid.as_str())
            }),
            _ => {}
        }
        self.queues[queue(item.lane())].push_back(Kept { at_ms: now_ms, item: Arc::clone(item) });
        self.expire(now_ms);
        true
    }

    /// Forgets what is over.
    pub fn expire(&mut self, now_ms: u64) {
        for (index, queue) in self.queues.iter_mut().enumerate() {
            let kept_ms = if index == queue_of_gifts() { PAID_MS } else { KEPT_MS };
            while let Some(first) = queue.front()
                && (queue.len() > MAX_ITEMS || first.at_ms.saturating_add(kept_ms) <= now_ms)
            {
                self.floor = self.floor.max(first.item.o.unwrap_or_default());
                queue.pop_front();
            }
        }
    }

    /// What came after `offset`: everything that matters and the newest [`MAX_RESUMED_CHAT`] messages.
    /// None if the ring does not reach back so far.
    #[must_use]
    pub fn after(&self, offset: u64) -> Option<Missed> {
        if !self.reaches(offset) {
            return None;
        }
        let mut missed = Missed::default();
        for (index, queue) in self.queues.iter().enumerate() {
            let from = queue.partition_point(|kept| kept.item.o.unwrap_or_default() <= offset);
            let mut found: Vec<_> =
                queue.range(from..).map(|kept| Arc::clone(&kept.item)).collect();
            if index == queue_of_chat() && found.len() > MAX_RESUMED_CHAT {
                let over = found.len() - MAX_RESUMED_CHAT;
                found.drain(..over);
                let over = u32::try_from(over).unwrap_or(u32::MAX);
                missed.left_out.insert(Lane::Chat.number(), over);
            }
            missed.items.append(&mut found);
        }
        missed.items.sort_by_key(|item| item.o);
        Some(missed)
    }

    /// Everything kept that came after `offset`, oldest first.
    #[must_use]
    pub fn since(&self, offset: u64) -> Vec<Arc<Item>> {
        let mut found = self.all();
        found.retain(|item| item.o > Some(offset));
        found
    }

    /// The newest messages and all gifts, each oldest first.
    #[must_use]
    pub fn snapshot(&self, now_ms: u64) -> (Vec<Arc<Item>>, Vec<Arc<Item>>) {
        let is_chat = |kept: &&Kept| matches!(kept.item.body, Some(Body::Chat(_)));
        let mut chat: Vec<_> =
            self.queues[0].iter().chain(&self.queues[1]).filter(is_chat).collect();
        chat.sort_by_key(|kept| kept.item.o);
        let from = chat.len().saturating_sub(SNAPSHOT_CHAT);
        let chat = chat.split_off(from).into_iter().map(|kept| Arc::clone(&kept.item)).collect();
        let recent = |kept: &&Kept| kept.at_ms.saturating_add(PAID_MS) > now_ms;
        let paid = self.queues[queue_of_gifts()].iter().filter(recent);
        (chat, paid.map(|kept| Arc::clone(&kept.item)).collect())
    }

    /// All of it, oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Item>> {
        let mut all: Vec<_> =
            self.queues.iter().flatten().map(|kept| Arc::clone(&kept.item)).collect();
        all.sort_by_key(|item| item.o);
        all
    }

    /// Puts another ring of the same order beside this one: what either has, both to the higher head.
    pub fn unite(&mut self, now_ms: u64, other: &[Arc<Item>], floor: u64, head: u64) {
        let mut by_offset: BTreeMap<u64, Kept> = BTreeMap::new();
        for queue in &mut self.queues {
            by_offset.extend(queue.drain(..).map(|kept| (kept.item.o.unwrap_or_default(), kept)));
        }
        for item in other {
            let Some(offset) = item.o.filter(|&offset| offset <= head) else { continue };
            let kept = Kept { at_ms: now_ms, item: Arc::clone(item) };
            by_offset.entry(offset).or_insert(kept);
        }
        // What lies between two stretches that do not touch is missing.
        let (low, high) = match self.head >= head {
            true => ((floor, head), (self.floor, self.head)),
            false => ((self.floor, self.head), (floor, head)),
        };
        self.floor = if low.1 >= high.0 { low.0.min(high.0) } else { high.0 };
        self.head = high.1;
        for kept in by_offset.into_values() {
            self.queues[queue(kept.item.lane())].push_back(kept);
        }
        self.expire(now_ms);
    }

    fn forget(&mut self, is_gone: impl Fn(&Item) -> bool) {
        for queue in &mut self.queues {
            queue.retain(|kept| !is_gone(&kept.item));
        }
    }
}

fn queue(lane: Lane) -> usize {
    match lane {
        Lane::Chat | Lane::Ambient => queue_of_chat(),
        Lane::Control | Lane::Trusted => 1,
        Lane::Money => queue_of_gifts(),
    }
}

const fn queue_of_chat() -> usize {
    0
}

const fn queue_of_gifts() -> usize {
    2
}

#[cfg(test)]
mod tests {
    use super::super::model::{Chat, Clear, Del, Gift, User};
    use super::*;

    fn item(o: u64, body: Body) -> Arc<Item> {
        Arc::new(Item { body: Some(body), id: format!("i{o}"), o: Some(o), ts: 0 })
    }

    fn chat(o: u64) -> Arc<Item> {
        let u = Some(User { id: format!("u{}", o % 3), ..User::default() });
        item(o, Body::Chat(Chat { u, x: "x".into(), ..Chat::default() }))
    }

    fn gift(o: u64) -> Arc<Item> {
        item(o, Body::Gift(Gift { g: "rose".into(), n: 1, ..Gift::default() }))
    }

    fn offsets(items: &[Arc<Item>]) -> Vec<u64> {
        items.iter().map(|item| item.o.unwrap()).collect()
    }

    #[test]
    fn what_was_missed_comes_in_order_and_honestly() {
        let mut ring = Ring::starting_at(10);
        for o in 11..=200 {
            let next = if o == 50 { gift(o) } else { chat(o) };
            assert!(ring.push(o, &next));
            assert!(!ring.push(o, &next), "a second time it is no news");
        }
        let missed = ring.after(40).unwrap();
        assert_eq!(missed.left_out, BTreeMap::from([(3, 59)]));
        assert_eq!(offsets(&missed.items), [50].into_iter().chain(101..=200).collect::<Vec<_>>());
        assert_eq!(ring.after(200), Some(Missed::default()));
        assert!(ring.after(9).is_none() && ring.after(201).is_none());
    }

    #[test]
    fn it_is_bounded_in_number_and_time_and_gifts_stay_longer() {
        let mut ring = Ring::default();
        assert!(ring.push(0, &gift(1)));
        (2..=1000).for_each(|o| assert!(ring.push(1, &chat(o))));
        assert_eq!(ring.all().len(), 301);
        assert_eq!((ring.floor(), ring.head()), (700, 1000));
        ring.expire(KEPT_MS + 1);
        assert_eq!((offsets(&ring.all()), ring.floor()), (vec![1], 1000));
        assert_eq!(offsets(&ring.snapshot(PAID_MS - 1).1), [1]);
        ring.expire(PAID_MS);
        assert!(ring.all().is_empty());
    }

    #[test]
    fn what_was_taken_back_is_not_shown_again() {
        let mut ring = Ring::default();
        (1..=6).for_each(|o| assert!(ring.push(0, &chat(o))));
        ring.push(0, &item(7, Body::Del(Del { ids: vec!["i2".into()] })));
        ring.push(0, &item(8, Body::Clear(Clear { uid: "u0".into() })));
        assert_eq!(offsets(&ring.snapshot(0).0), [1, 4, 5]);
        assert_eq!(offsets(&ring.after(0).unwrap().items), [1, 4, 5, 7, 8]);
    }

    #[test]
    fn the_union_of_rings_has_what_any_of_them_has() {
        let part = |from: u64, to: u64| {
            let mut ring = Ring::starting_at(from);
            (from + 1..=to).for_each(|o| assert!(ring.push(0, &chat(o))));
            ring
        };
        let mut ring = part(10, 20);
        let other = part(5, 25);
        ring.unite(0, &other.all(), other.floor(), other.head());
        assert_eq!((ring.floor(), ring.head()), (5, 25));
        assert_eq!(offsets(&ring.all()), (6..=25).collect::<Vec<_>>());
        let apart = part(30, 31);
        ring.unite(0, &apart.all(), apart.floor(), apart.head());
        assert_eq!((ring.floor(), ring.head()), (30, 31), "26 to 30 are nowhere");
    }
}
