//! Who wants to know of which rooms, and what each does not know yet.
//!
//! In: subscriptions and changes. Out, for each watcher, the names of things to tell it of. Pure.
//!
//! A watcher is owed names, not events: a room that changes five times before its watcher is told
//! is owed once, and told as it then is. So what is kept for a watcher is bounded by what it
//! subscribed to, a slow one skips states instead of losing rooms, and there is no queue to
//! overflow.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use wire::control::Barred;
use wire::{NodeId, RoomId};

/// Most rooms one watcher may subscribe to; a further one is refused.
pub(crate) const MAX_ROOMS_PER_WATCHER: usize = 65_536;

/// Names a watcher.
pub(crate) type WatcherId = u64;

/// All watchers of one control node.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    next: WatcherId,
    watchers: BTreeMap<WatcherId, Watcher>,
    by_room: HashMap<RoomId, BTreeSet<WatcherId>>,
}

#[derive(Debug, Default)]
struct Watcher {
    rooms: BTreeSet<RoomId>,
    owed_rooms: BTreeSet<RoomId>,
    owed_nodes: BTreeSet<NodeId>,
    owed_bars: BTreeSet<Barred>,
    /// The watcher is owed a word that everything follows anew.
    resync: bool,
    /// It is owed a word that everything has followed.
    synced: bool,
}

/// Something a watcher is to be told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owed {
    /// Everything follows anew.
    Resync,
    /// This row of the node table.
    Node(NodeId),
    /// Whether this is barred.
    Bar(Barred),
    /// Where this room is.
    Room(RoomId),
    /// Everything has followed.
    Synced,
}

impl Watches {
    /// A new watcher. It is owed the whole node table and all bars.
    pub(crate) fn add(
        &mut self,
        nodes: impl Iterator<Item = NodeId>,
        bars: impl Iterator<Item = Barred>,
    ) -> WatcherId {
        self.next += 1;
        let watcher = Watcher {
            owed_nodes: nodes.collect(),
            owed_bars: bars.collect(),
            resync: true,
            synced: true,
            ..Watcher::default()
        };
        self.watchers.insert(self.next, watcher);
        self.next
    }

    pub(crate) fn remove(&mut self, id: WatcherId) {
        for room in self.watchers.remove(&id).map(|watcher| watcher.rooms).unwrap_or_default() {
            self.unlist(&room, id);
        }
    }

    /// Subscribes, whereupon the room is owed. False if the watcher has too many.
    pub(crate) fn subscribe(&mut self, id: WatcherId, room: RoomId) -> bool {
        let Some(watcher) = self.watchers.get_mut(&id) else { return false };
        if watcher.rooms.len() >= MAX_ROOMS_PER_WATCHER && !watcher.rooms.contains(&room) {
            return false;
        }
        watcher.rooms.insert(room.clone());
        watcher.owed_rooms.insert(room.clone());
        self.by_room.entry(room).or_default().insert(id);
        true
    }

    pub(crate) fn unsubscribe(&mut self, id: WatcherId, room: &RoomId) {
        if let Some(watcher) = self.watchers.get_mut(&id) {
            watcher.rooms.remove(room);
            watcher.owed_rooms.remove(room);
            self.unlist(room, id);
        }
    }

    /// A room changed. Returns who is now owed it.
    pub(crate) fn room_changed(
        &mut self,
        room: &RoomId,
    ) -> impl Iterator<Item = WatcherId> + use<> {
        let ids = self.by_room.get(room).cloned().unwrap_or_default();
        for id in &ids {
            if let Some(watcher) = self.watchers.get_mut(id) {
                watcher.owed_rooms.insert(room.clone());
            }
        }
        ids.into_iter()
    }

    /// A row of the node table changed: everyone is owed it.
    pub(crate) fn node_changed(&mut self, node: &NodeId) {
        for watcher in self.watchers.values_mut() {
            watcher.owed_nodes.insert(node.clone());
        }
    }

    /// Something was barred, or is no longer: everyone is owed it.
    pub(crate) fn bar_changed(&mut self, on: &Barred) {
        for watcher in self.watchers.values_mut() {
            watcher.owed_bars.insert(on.clone());
        }
    }

    /// Everything may have changed: everyone is owed everything.
    pub(crate) fn all_changed(
        &mut self,
        nodes: impl Iterator<Item = NodeId>,
        bars: impl Iterator<Item = Barred>,
    ) {
        let (nodes, bars): (BTreeSet<NodeId>, BTreeSet<Barred>) = (nodes.collect(), bars.collect());
        for watcher in self.watchers.values_mut() {
            watcher.owed_rooms = watcher.rooms.clone();
            watcher.owed_nodes = nodes.clone();
            watcher.owed_bars = bars.clone();
            (watcher.resync, watcher.synced) = (true, true);
        }
    }

    /// Takes up to `most` of what a watcher is owed, in the order in which it is to be told.
    pub(crate) fn take(&mut self, id: WatcherId, most: usize) -> Vec<Owed> {
        let mut taken = Vec::new();
        let Some(watcher) = self.watchers.get_mut(&id) else { return taken };
        if std::mem::take(&mut watcher.resync) {
            taken.push(Owed::Resync);
        }
        while taken.len() < most {
            if let Some(node) = watcher.owed_nodes.pop_first() {
                taken.push(Owed::Node(node));
            } else if let Some(on) = watcher.owed_bars.pop_first() {
                taken.push(Owed::Bar(on));
            } else if let Some(room) = watcher.owed_rooms.pop_first() {
                taken.push(Owed::Room(room));
            } else if std::mem::take(&mut watcher.synced) {
                taken.push(Owed::Synced);
            } else {
                break;
            }
        }
        taken
    }

    pub(crate) fn len(&self) -> usize {
        self.watchers.len()
    }

    fn unlist(&mut self, room: &RoomId, id: WatcherId) {
        if let Some(ids) = self.by_room.get_mut(room) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_room.remove(room);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(i: usize) -> RoomId {
        RoomId::new("live", &format!("r{i}")).unwrap()
    }

    fn node(text: &str) -> NodeId {
        NodeId::new(text).unwrap()
    }

    #[test]
    fn a_watcher_begins_with_everything_and_is_then_owed_changes_once() {
        let mut watches = Watches::default();
        let on = Barred::Token("j".to_owned());
        let id = watches.add([node("o1")].into_iter(), [on.clone()].into_iter());
        assert!(watches.subscribe(id, room(1)));
        let first = watches.take(id, 10);
        assert_eq!(
            first,
            [
                Owed::Resync,
                Owed::Node(node("o1")),
                Owed::Bar(on.clone()),
                Owed::Room(room(1)),
                Owed::Synced
            ]
        );
        watches.bar_changed(&on);
        watches.bar_changed(&on);
        assert_eq!(watches.take(id, 10), [Owed::Bar(on)]);
        assert_eq!(watches.take(id, 10), []);
        for _ in 0..5 {
            assert_eq!(watches.room_changed(&room(1)).collect::<Vec<_>>(), [id]);
        }
        assert_eq!(watches.room_changed(&room(2)).count(), 0, "not subscribed");
        assert_eq!(watches.take(id, 10), [Owed::Room(room(1))]);
    }

    #[test]
    fn what_does_not_fit_a_turn_stays_owed() {
        let mut watches = Watches::default();
        let id = watches.add(std::iter::empty(), std::iter::empty());
        (0..100).for_each(|i| assert!(watches.subscribe(id, room(i))));
        let mut rooms = 0;
        loop {
            let taken = watches.take(id, 7);
            if taken.is_empty() {
                break;
            }
            rooms += taken.iter().filter(|owed| matches!(owed, Owed::Room(_))).count();
        }
        assert_eq!(rooms, 100);
    }

    #[test]
    fn after_a_snapshot_everything_is_owed_anew() {
        let mut watches = Watches::default();
        let id = watches.add(std::iter::empty(), std::iter::empty());
        watches.subscribe(id, room(1));
        watches.take(id, 10);
        watches.all_changed([node("o2")].into_iter(), std::iter::empty());
        assert_eq!(
            watches.take(id, 10),
            [Owed::Resync, Owed::Node(node("o2")), Owed::Room(room(1)), Owed::Synced]
        );
    }

    #[test]
    fn nothing_is_kept_for_those_who_left() {
        let mut watches = Watches::default();
        let id = watches.add(std::iter::empty(), std::iter::empty());
        watches.subscribe(id, room(1));
        watches.subscribe(id, room(2));
        watches.unsubscribe(id, &room(1));
        assert_eq!(watches.by_room.len(), 1);
        watches.remove(id);
        assert!(watches.by_room.is_empty() && watches.watchers.is_empty());
        assert!(!watches.subscribe(id, room(1)));
        assert_eq!(watches.take(id, 10), []);
    }

    #[test]
    fn a_watcher_has_a_limit() {
        let mut watches = Watches::default();
        let id = watches.add(std::iter::empty(), std::iter::empty());
        (0..MAX_ROOMS_PER_WATCHER).for_each(|i| assert!(watches.subscribe(id, room(i))));
        assert!(!watches.subscribe(id, room(MAX_ROOMS_PER_WATCHER)));
        assert!(watches.subscribe(id, room(0)), "what it has, it keeps");
    }
}
