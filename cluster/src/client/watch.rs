//! What this node watches: the node table and the rooms its roles care about.
//!
//! In: events of one control node, in its process or over a watch stream. Out: the node table and,
//! for each watched room, the latest location. A lost stream is opened at another control node and
//! begins with everything anew, so nothing is missed; a location older than one already seen is
//! left out, so nothing goes back.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};
use wire::control::{
    Bar, Barred, Location, MAX_ANSWER_BYTES, NodeInfo, NodeState, WatchAsk, WatchEvent,
};
use wire::{NodeId, Receiver, RoomId, Sender, StreamKind};

use super::link::{Target, To, jittered};
use super::{Client, Shared};
use crate::view::Watcher;

/// The first pause after a lost watch; doubles up to [`MAX_PAUSE`], with jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// See [`FIRST_PAUSE`].
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// A watch that says nothing for this long is dead: it says how far it has come twice a second.
const SILENCE: Duration = Duration::from_secs(2);
/// A watch that is behind what the leader had applied this long ago is at a control node that the
/// leader does not reach.
const MAX_LAG: Duration = Duration::from_secs(2);

/// The nodes of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeTable {
    /// The log index up to which it is known; 0 before the first answer of a control node.
    pub revision: u64,
    /// The rows, by node.
    pub nodes: BTreeMap<NodeId, NodeInfo>,
}

impl NodeTable {
    /// The row of a node.
    #[must_use]
    pub fn get(&self, node: &NodeId) -> Option<&NodeInfo> {
        self.nodes.get(node)
    }

    /// The nodes that placement counts on.
    pub fn up(&self) -> impl Iterator<Item = &NodeInfo> + '_ {
        self.nodes.values().filter(|node| node.state == NodeState::Up)
    }
}

/// The rooms watched on this node. Each is subscribed to once, however many watch it.
#[derive(Default)]
pub(super) struct Registry {
    rooms: Mutex<HashMap<RoomId, Entry>>,
    /// Rooms whose subscription may have to change.
    touched: Mutex<HashSet<RoomId>>,
    wake: Notify,
}

struct Entry {
    location: watch::Sender<Option<Location>>,
    watchers: usize,
}

impl Registry {
    fn touch(&self, room: &RoomId) {
        self.touched.lock().insert(room.clone());
        self.wake.notify_one();
    }

    /// Takes note of a location, unless it is older than the one known.
    fn note(&self, room: &RoomId, location: Location) {
        let rooms = self.rooms.lock();
        let Some(entry) = rooms.get(room) else { return };
        entry.location.send_if_modified(|known| {
            let is_news = known.as_ref().is_none_or(|known| {
                location.revision >= known.revision && location.placement != known.placement
            });
            match known {
                Some(known) if !is_news => known.revision = known.revision.max(location.revision),
                _ => *known = Some(location),
            }
            is_news
        });
    }
}

/// A watch on one room. Dropping it ends it.
pub struct RoomWatch {
    client: Client,
    room: RoomId,
    location: watch::Receiver<Option<Location>>,
}

impl RoomWatch {
    /// Waits for the room's location: at first the one it has, or has not, when a control node
    /// answers; then each time it comes, moves or goes. Of several changes in a row, the last one
    /// is returned. Cancel-safe.
    pub async fn changed(&mut self) -> Location {
        loop {
            // The sender lives in the registry for as long as this watch does.
            if self.location.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            if let Some(location) = self.location.borrow_and_update().clone() {
                return location;
            }
        }
    }

    /// The location as last heard; none before a control node has answered.
    #[must_use]
    pub fn current(&self) -> Option<Location> {
        self.location.borrow().clone()
    }

    /// The room.
    #[must_use]
    pub const fn room(&self) -> &RoomId {
        &self.room
    }
}

impl Drop for RoomWatch {
    fn drop(&mut self) {
        let registry = &self.client.shared.rooms;
        let mut rooms = registry.rooms.lock();
        if let Some(entry) = rooms.get_mut(&self.room) {
            entry.watchers -= 1;
            if entry.watchers == 0 {
                rooms.remove(&self.room);
                drop(rooms);
                registry.touch(&self.room);
            }
        }
    }
}

impl std::fmt::Debug for RoomWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RoomWatch").field("room", &self.room).finish_non_exhaustive()
    }
}

pub(super) fn watch_room(client: &Client, room: &RoomId) -> RoomWatch {
    let registry = &client.shared.rooms;
    let mut rooms = registry.rooms.lock();
    let mut is_new = false;
    let entry = rooms.entry(room.clone()).or_insert_with(|| {
        is_new = true;
        Entry { location: watch::Sender::new(None), watchers: 0 }
    });
    entry.watchers += 1;
    let mut location = entry.location.subscribe();
    if location.borrow().is_some() {
        // What is known already is news to a new watch.
        location.mark_changed();
    }
    drop(rooms);
    if is_new {
        registry.touch(room);
    }
    RoomWatch { client: client.clone(), room: room.clone(), location }
}

/// Keeps a watch for as long as the client lives.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let target = shared.line.target(To::Any);
        let mut session = Session::new(&shared);
        let ended = match shared.line.local(&target.0) {
            Some(core) => session.follow_local(core.view.watch()).await,
            None => session.follow_remote(&target).await,
        };
        if session.has_synced {
            pause = FIRST_PAUSE;
        }
        tracing::debug!(node = %target.0, error = %ended, "watch lost");
        shared.line.note_failure(&target, String::new());
        sleep(jittered(pause)).await;
        pause = (pause * 2).min(MAX_PAUSE);
    }
}

/// One watch stream, from its opening to its end.
struct Session<'a> {
    shared: &'a Shared,
    subscribed: HashSet<RoomId>,
    /// The node table and the bars while a resync is under way.
    incoming: Option<(NodeTable, Vec<(Barred, Bar)>)>,
    has_synced: bool,
    /// What the leader had applied, and since when the watch has not.
    behind: Option<(u64, Instant)>,
}

/// How a watch ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Link(#[from] wire::Error),
    #[error("nothing was heard")]
    Silent,
    #[error("the control node lags behind the leader")]
    Lagging,
}

impl<'a> Session<'a> {
    fn new(shared: &'a Shared) -> Self {
        // A new session subscribes to everything that is watched.
        let watched: Vec<RoomId> = shared.rooms.rooms.lock().keys().cloned().collect();
        shared.rooms.touched.lock().extend(watched);
        shared.rooms.wake.notify_one();
        Self { shared, subscribed: HashSet::new(), incoming: None, has_synced: false, behind: None }
    }

    async fn follow_local(&mut self, watcher: Watcher) -> Ended {
        while !self.is_lagging() {
            tokio::select! {
                () = self.shared.rooms.wake.notified() => {
                    for ask in self.changes() {
                        match ask {
                            WatchAsk::Subscribe { room } => {
                                if !watcher.subscribe(room.clone()) {
                                    self.take(WatchEvent::Refused { room });
                                }
                            }
                            WatchAsk::Unsubscribe { room } => watcher.unsubscribe(&room),
                        }
                    }
                }
                events = watcher.next() => {
                    for event in events {
                        self.take(event);
                    }
                }
            }
        }
        Ended::Lagging
    }

    async fn follow_remote(&mut self, target: &Target) -> Ended {
        let opened = async {
            let peer = self.shared.line.links().get(&target.0, target.1).await?;
            peer.open_bi(StreamKind::Watch).await
        };
        let (mut sender, mut receiver): (Sender, Receiver) = match opened.await {
            Ok(stream) => stream,
            Err(error) => return error.into(),
        };
        while !self.is_lagging() {
            tokio::select! {
                () = self.shared.rooms.wake.notified() => {
                    for ask in self.changes() {
                        if let Err(error) = sender.write_message(&ask).await {
                            return error.into();
                        }
                    }
                }
                event = receiver.read_answer::<WatchEvent>(MAX_ANSWER_BYTES, SILENCE) => {
                    match event {
                        Ok(event) => self.take(event),
                        Err(wire::Error::TimedOut { .. }) => return Ended::Silent,
                        Err(error) => return error.into(),
                    }
                }
            }
        }
        Ended::Lagging
    }

    /// Whether the control node has long been behind what the leader said it had applied.
    fn is_lagging(&self) -> bool {
        self.behind.is_some_and(|(_, since)| since.elapsed() > MAX_LAG)
    }

    /// The watch has come as far as `revision`.
    fn progressed(&mut self, revision: u64) {
        if self.behind.is_none_or(|(wanted, _)| wanted <= revision) {
            let leader = self.shared.leader_revision.load(Ordering::Relaxed);
            self.behind = (leader > revision).then(|| (leader, Instant::now()));
        }
    }

    /// What has to be said so that the subscriptions are those watched.
    fn changes(&mut self) -> Vec<WatchAsk> {
        let touched = std::mem::take(&mut *self.shared.rooms.touched.lock());
        let mut asks = Vec::new();
        for room in touched {
            let is_watched = self.shared.rooms.rooms.lock().contains_key(&room);
            if is_watched {
                // Also if it is subscribed already: a watch that ended and began anew knows nothing.
                self.subscribed.insert(room.clone());
                asks.push(WatchAsk::Subscribe { room });
            } else if self.subscribed.remove(&room) {
                asks.push(WatchAsk::Unsubscribe { room });
            }
        }
        asks
    }

    fn take(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Resync { revision } => {
                let table = NodeTable { revision, nodes: BTreeMap::new() };
                self.incoming = Some((table, Vec::new()));
            }
            WatchEvent::Node { revision, node } => self.change_table(revision, |nodes| {
                nodes.insert(node.spec.id.clone(), node);
            }),
            WatchEvent::NodeGone { revision, id } => self.change_table(revision, |nodes| {
                nodes.remove(&id);
            }),
            WatchEvent::Room { room, location } => self.shared.rooms.note(&room, location),
            WatchEvent::Synced { revision } => {
                self.has_synced = true;
                self.progressed(revision);
                if let Some((table, bars)) = self.incoming.take() {
                    self.shared.bars.replace(revision, bars);
                    self.shared.nodes.send_if_modified(|known| {
                        let is_news = table.revision >= known.revision;
                        if is_news {
                            *known = Arc::new(NodeTable { revision, ..table });
                        }
                        is_news
                    });
                }
            }
            WatchEvent::Bar { revision, on, bar } => match (&mut self.incoming, bar) {
                (Some((_, bars)), Some(bar)) => bars.push((on, bar)),
                (Some(_), None) => {}
                (None, bar) => self.shared.bars.set(revision, on, bar),
            },
            WatchEvent::Refused { room } => {
                tracing::warn!(%room, "the control node does not watch any more rooms for this node");
            }
        }
    }

    fn change_table(
        &mut self,
        revision: u64,
        change: impl FnOnce(&mut BTreeMap<NodeId, NodeInfo>),
    ) {
        if let Some((table, _)) = &mut self.incoming {
            table.revision = table.revision.max(revision);
            change(&mut table.nodes);
            return;
        }
        self.shared.nodes.send_if_modified(|known| {
            if revision < known.revision {
                return false;
            }
            let mut table = NodeTable::clone(known);
            table.revision = revision;
            change(&mut table.nodes);
            *known = Arc::new(table);
            true
        });
    }
}
