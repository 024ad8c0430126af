//! Follows a room's order as one member is shown it: what is missing, what comes twice.
//!
//! Pure. In: welcomes and batches, in order. Out: offsets that are covered and were neither held nor counted, and
//! offsets held twice. A batch may hold offsets beyond what it covers, when a gift before them still waits;
//! and just after a welcome what the welcome covered: both are in order (docs/rooms.md).

use std::collections::{BTreeSet, HashMap};

use wire::room::model::{Batch, Position, Welcome};
use wire::room::{Body, Item};

/// The lane of arrivals, which have no offset.
const AMBIENT: u32 = 4;
/// Offsets and combos remembered.
const MAX_SEEN: usize = 4096;

/// Where one member is.
#[derive(Debug, Default)]
pub(super) struct Follower {
    position: Option<Position>,
    /// Offsets held on this connection.
    seen: BTreeSet<u64>,
    /// Covered, less held, less counted: above zero something is missing.
    balance: i64,
    /// No batch has come since the welcome.
    fresh: bool,
    /// What a combo stood at.
    combos: HashMap<String, u32>,
}

/// What a frame showed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) shed: u64,
}

impl Follower {
    /// A connection begins.
    pub(super) fn welcome(&mut self, welcome: &Welcome) -> Found {
        let mut found = Found::default();
        self.fresh = true;
        if let (true, Some(position)) = (welcome.recovered, &welcome.pos) {
            let held = self.hold(&welcome.m, None);
            let counted = self.counted(&welcome.d);
            self.cover(position.o, held + counted, &mut found);
        } else {
            (self.balance, self.combos) = (0, HashMap::new());
        }
        self.seen.clear();
        self.position.clone_from(&welcome.pos);
        found
    }

    /// A tick.
    pub(super) fn batch(&mut self, batch: &Batch) -> Found {
        let mut found = Found { shed: sum(&batch.d), ..Found::default() };
        let held = self.hold(&batch.m, Some(&mut found));
        let mut counted = self.counted(&batch.d);
        if std::mem::take(&mut self.fresh) {
            // It may count what the welcome covered.
            let covered = self.position.as_ref().map_or(0, |p| batch.o.saturating_sub(p.o));
            counted = counted.min((covered as i64 - held).max(0));
        }
        self.cover(batch.o, held + counted, &mut found);
        if let (Some(position), Some(epoch)) = (&mut self.position, &batch.e) {
            position.e.clone_from(epoch);
        }
        while self.seen.len() > MAX_SEEN {
            self.seen.pop_first();
        }
        found
    }

    /// How many offsets these stand for that were not covered before.
    fn hold(&mut self, items: &[Item], mut found: Option<&mut Found>) -> i64 {
        let covered = self.position.as_ref().map_or(0, |position| position.o);
        let mut held = 0;
        for item in items {
            let stands_for = 1 + i64::from(self.merged(item));
            let Some(offset) = item.o else { continue };
            if !self.seen.insert(offset) {
                if let Some(found) = &mut found {
                    found.duplicated += 1;
                }
            } else if offset > covered {
                held += stands_for;
            }
        }
        held
    }

    /// How many others an item has taken in.
    fn merged(&mut self, item: &Item) -> u32 {
        match &item.body {
            Some(Body::Chat(chat)) => chat.n.unwrap_or(1).saturating_sub(1),
            Some(Body::Gift(gift)) => {
                let Some(combo) = &gift.combo else { return 0 };
                if self.combos.len() >= MAX_SEEN {
                    self.combos.clear();
                }
                // Gifts of this load come one at a time.
                let before = self.combos.insert(combo.clone(), gift.n);
                before.map_or(0, |before| gift.n.saturating_sub(before + 1))
            }
            _ => 0,
        }
    }

    fn counted(&self, left_out: &std::collections::BTreeMap<u32, u32>) -> i64 {
        left_out.iter().filter(|(lane, _)| **lane != AMBIENT).map(|(_, n)| i64::from(*n)).sum()
    }

    fn cover(&mut self, offset: u64, explained: i64, found: &mut Found) {
        let Some(position) = &mut self.position else { return };
        let covered = offset.saturating_sub(position.o);
        position.o = position.o.max(offset);
        self.balance += covered as i64 - explained;
        if self.balance > 0 {
            found.lost += std::mem::take(&mut self.balance) as u64;
        }
    }
}

fn sum(left_out: &std::collections::BTreeMap<u32, u32>) -> u64 {
    left_out.values().map(|count| u64::from(*count)).sum()
}

#[cfg(test)]
mod tests {
    use wire::Epoch;
    use wire::room::model::{Chat, Gift};

    use super::*;

    fn at(o: u64) -> Option<Position> {
        Some(Position::new(Epoch(7), o))
    }

    fn chat(o: u64) -> Item {
        Item { body: Some(Body::Chat(Chat::default())), id: format!("i{o}"), o: Some(o), ts: 0 }
    }

    fn batch(o: u64, items: impl IntoIterator<Item = u64>) -> Batch {
        Batch { o, m: items.into_iter().map(chat).collect(), ..Batch::default() }
    }

    fn follower() -> Follower {
        let mut follower = Follower::default();
        follower.welcome(&Welcome { pos: at(10), ..Welcome::default() });
        follower
    }

    #[test]
    fn what_is_covered_must_be_held_or_counted() {
        let mut follower = follower();
        assert_eq!(follower.batch(&batch(12, [11, 12])), Found::default());
        let counted = Batch { d: [(3, 2), (4, 9)].into(), ..batch(15, [14]) };
        assert_eq!(follower.batch(&counted), Found { shed: 11, ..Found::default() });
        assert_eq!(follower.batch(&batch(18, [17])).lost, 2);
        assert_eq!(
            follower.batch(&batch(19, [19, 17])),
            Found { duplicated: 1, ..Found::default() }
        );
        assert_eq!(follower.position.as_ref().unwrap().o, 19);
    }

    #[test]
    fn merged_and_waiting_items_are_not_lost() {
        let mut follower = follower();
        let mut merged = batch(13, [11]);
        merged.m[0].body = Some(Body::Chat(Chat { n: Some(3), ..Chat::default() }));
        assert_eq!(follower.batch(&merged), Found::default());
        // 14 is a gift that waits; what follows is shown before.
        assert_eq!(follower.batch(&batch(13, [15, 16])), Found::default());
        assert_eq!(follower.batch(&batch(16, [14])), Found::default());
        assert_eq!(follower.batch(&batch(17, [])).lost, 1, "and the account is even again");
        let combo = |o, n| {
            let gift = Gift { combo: Some("c".into()), n, ..Gift::default() };
            Batch { o, m: vec![Item { body: Some(Body::Gift(gift)), ..chat(o) }], ..batch(o, []) }
        };
        assert_eq!(follower.batch(&combo(18, 1)), Found::default());
        assert_eq!(follower.batch(&combo(21, 4)), Found::default(), "two were taken in");
    }

    #[test]
    fn just_after_a_welcome_what_it_covered_may_come() {
        let mut follower = follower();
        let late = Batch { d: [(3, 5)].into(), ..batch(11, [9, 10, 11]) };
        assert_eq!(follower.batch(&late), Found { shed: 5, ..Found::default() });
        assert_eq!(follower.batch(&batch(12, [])).lost, 1, "those five stood for nothing");
    }

    #[test]
    fn who_resumes_must_be_given_what_it_missed() {
        let mut follower = follower();
        let back =
            |m: Vec<Item>, recovered| Welcome { pos: at(13), recovered, m, ..Welcome::default() };
        let all = back(vec![chat(11), chat(12), chat(13)], true);
        assert_eq!(follower.welcome(&all), Found::default());
        assert_eq!(follower.batch(&batch(14, [13, 14])), Found::default());
        let mut follower = self::follower();
        assert_eq!(follower.welcome(&back(vec![chat(13)], true)).lost, 2);
        let mut follower = self::follower();
        assert_eq!(follower.welcome(&back(Vec::new(), false)), Found::default());
        assert_eq!(follower.position.as_ref().unwrap().o, 13);
    }
}
