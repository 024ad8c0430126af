//! What this control node has applied, for readers that need no leader: locate, list, watch.
//!
//! In: what the driver publishes. Out: locations, pages of rooms, events for watchers. It goes on
//! answering while the driver waits for its disk or starts anew, as placement then does not change.
//!
//! Answers may lag behind the leader's; each carries the revision it is of.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;
use wire::control::{Bar, Barred, Grant, Location, NodeInfo, WATCH_PROGRESS_MS, WatchEvent};
use wire::{NodeId, RoomId};

use crate::driver::Published;
use crate::planted::{Bug, is_planted};
use crate::watches::{Owed, WatcherId, Watches};

/// See [`WATCH_PROGRESS_MS`].
const PROGRESS: Duration = Duration::from_millis(WATCH_PROGRESS_MS);
/// Most events handed to a watcher at a time.
const MAX_EVENTS: usize = 256;

/// The read side of a control node.
#[derive(Debug, Default)]
pub(crate) struct View {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    revision: u64,
    rooms: BTreeMap<RoomId, Grant>,
    nodes: BTreeMap<NodeId, NodeInfo>,
    bars: BTreeMap<Barred, Bar>,
    watches: Watches,
    wakers: BTreeMap<WatcherId, Arc<Notify>>,
}

impl View {
    /// Takes over what the driver published.
    pub(crate) fn update(&self, published: Published) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        inner.revision = published.revision;
        if published.all {
            let rooms = published.rooms.into_iter();
            inner.rooms = rooms.filter_map(|(room, grant)| Some((room, grant?))).collect();
            let nodes = published.nodes.into_iter();
            inner.nodes = nodes.filter_map(|(id, row)| Some((id, row?))).collect();
            let bars = published.bars.into_iter();
            inner.bars = bars.filter_map(|(on, bar)| Some((on, bar?))).collect();
            if is_planted(Bug::NoResync) {
                return;
            }
            inner.watches.all_changed(inner.nodes.keys().cloned(), inner.bars.keys().cloned());
            inner.wakers.values().for_each(|waker| waker.notify_one());
            return;
        }
        for (room, grant) in published.rooms {
            for id in inner.watches.room_changed(&room) {
                if let Some(waker) = inner.wakers.get(&id) {
                    waker.notify_one();
                }
            }
            match grant {
                Some(grant) => drop(inner.rooms.insert(room, grant)),
                None => drop(inner.rooms.remove(&room)),
            }
        }
        if !published.nodes.is_empty() {
            for (id, row) in published.nodes {
                inner.watches.node_changed(&id);
                match row {
                    Some(row) => drop(inner.nodes.insert(id, row)),
                    None => drop(inner.nodes.remove(&id)),
                }
            }
            inner.wakers.values().for_each(|waker| waker.notify_one());
        }
        if !published.bars.is_empty() {
            for (on, bar) in published.bars {
                inner.watches.bar_changed(&on);
                match bar {
                    Some(bar) => drop(inner.bars.insert(on, bar)),
                    None => drop(inner.bars.remove(&on)),
                }
            }
            inner.wakers.values().for_each(|waker| waker.notify_one());
        }
    }

    /// Whether anything has been published: not on a control node that is in no cluster.
    pub(crate) fn is_ready(&self) -> bool {
        self.inner.lock().revision > 0
    }

    pub(crate) fn locate(&self, room: &RoomId) -> Location {
        self.inner.lock().locate(room)
    }

    /// Up to `limit` grants of rooms after `after`, and the revision they are of.
    pub(crate) fn rooms(&self, after: Option<&RoomId>, limit: usize) -> (u64, Vec<Grant>) {
        let inner = self.inner.lock();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let page = inner.rooms.range::<RoomId, _>((from, Bound::Unbounded)).take(limit);
        (inner.revision, page.map(|(_, grant)| grant.clone()).collect())
    }

    /// Up to `limit` bars on what comes after `after`.
    pub(crate) fn bars(&self, after: Option<&Barred>, limit: usize) -> Vec<(Barred, Bar)> {
        let inner = self.inner.lock();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let page = inner.bars.range::<Barred, _>((from, Bound::Unbounded)).take(limit);
        page.map(|(on, bar)| (on.clone(), bar.clone())).collect()
    }

    pub(crate) fn watchers(&self) -> usize {
        self.inner.lock().watches.len()
    }

    /// A new watcher.
    pub(crate) fn watch(self: &Arc<Self>) -> Watcher {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let id = inner.watches.add(inner.nodes.keys().cloned(), inner.bars.keys().cloned());
        let waker = Arc::new(Notify::new());
        waker.notify_one();
        inner.wakers.insert(id, Arc::clone(&waker));
        Watcher { view: Arc::clone(self), id, waker }
    }
}

impl Inner {
    fn locate(&self, room: &RoomId) -> Location {
        Location { revision: self.revision, placement: self.rooms.get(room).cloned() }
    }

    fn event(&self, owed: Owed) -> WatchEvent {
        let revision = self.revision;
        match owed {
            Owed::Resync => WatchEvent::Resync { revision },
            Owed::Node(id) => match self.nodes.get(&id) {
                Some(node) => WatchEvent::Node { revision, node: node.clone() },
                None => WatchEvent::NodeGone { revision, id },
            },
            Owed::Room(room) => {
                let location = self.locate(&room);
                WatchEvent::Room { room, location }
            }
            Owed::Bar(on) => {
                let bar = self.bars.get(&on).cloned();
                WatchEvent::Bar { revision, on, bar }
            }
            Owed::Synced => WatchEvent::Synced { revision },
        }
    }
}

/// One watcher; dropping it ends its subscriptions.
#[derive(Debug)]
pub(crate) struct Watcher {
    view: Arc<View>,
    id: WatcherId,
    waker: Arc<Notify>,
}

impl Watcher {
    /// Subscribes, whereupon the room's location is among the next events. False at the limit.
    pub(crate) fn subscribe(&self, room: RoomId) -> bool {
        let subscribed = self.view.inner.lock().watches.subscribe(self.id, room);
        self.waker.notify_one();
        subscribed
    }

    pub(crate) fn unsubscribe(&self, room: &RoomId) {
        self.view.inner.lock().watches.unsubscribe(self.id, room);
    }

    /// The events there are, up to a limit.
    pub(crate) fn take(&self) -> Vec<WatchEvent> {
        let mut inner = self.view.inner.lock();
        let owed = inner.watches.take(self.id, MAX_EVENTS);
        owed.into_iter().map(|owed| inner.event(owed)).collect()
    }

    /// Waits for events; never empty. With nothing to tell for a while, says how far it has come.
    /// Cancel-safe: what is not returned stays owed.
    pub(crate) async fn next(&self) -> Vec<WatchEvent> {
        loop {
            let events = self.take();
            if !events.is_empty() {
                return events;
            }
            if timeout(PROGRESS, self.waker.notified()).await.is_err() {
                return vec![self.progress()];
            }
        }
    }

    /// How far the view has come.
    pub(crate) fn progress(&self) -> WatchEvent {
        WatchEvent::Synced { revision: self.view.inner.lock().revision }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut inner = self.view.inner.lock();
        inner.watches.remove(self.id);
        inner.wakers.remove(&self.id);
    }
}
