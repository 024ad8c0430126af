//! The way from an edge to the homes of rooms.
//!
//! In: a room an edge has members of. Out: a [`Link`] to its home, two queues that end when the home is
//! lost or the room has moved. Where that is, placement says; who comes back when, the hub decides.

use std::time::Duration;

use cluster::Client;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;
use wire::control::Roles;
use wire::links::Links;
use wire::room::relay::{Enter, FromHome, MAX_MESSAGE_BYTES, SILENCE_MS, ToHome};
use wire::service::StreamKind;
use wire::stream::{Receiver, Sender};
use wire::{NodeId, RoomId};

/// Messages of a home that wait for the hub; beyond, the home waits.
const FROM_QUEUE: usize = 256;
/// Messages that wait for the home; beyond, members are told that the room is unavailable.
const TO_QUEUE: usize = 1024;
/// How long a home may take to answer: it may be finding the room's past.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long finding a home may take.
const LOCATE_TIMEOUT: Duration = Duration::from_secs(3);
/// Hints followed from one node to the next.
const MAX_HINTS: usize = 3;

/// A room as its home tells it. Dropped, the home is left.
#[derive(Debug)]
pub struct Link {
    /// What the home says.
    pub from: mpsc::Receiver<FromHome>,
    /// What the home is told.
    pub to: mpsc::Sender<ToHome>,
}

/// Why there is no link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoLink {
    /// Nobody has opened the room.
    #[error("the room is not open")]
    NoRoom,
    /// Not now.
    #[error("the home cannot be reached")]
    Later,
}

/// Finds homes and enters rooms.
pub trait Homes: Send + Sync + 'static {
    /// Enters a room at its home.
    ///
    /// # Errors
    /// [`NoLink`].
    fn enter(&self, enter: Enter) -> BoxFuture<'static, Result<Link, NoLink>>;

    /// Base URLs of other edges, best first.
    fn others(&self) -> Vec<String>;

    /// Whether there is another edge to go to, under whatever URL.
    fn has_others(&self) -> bool;
}

/// Homes of a cluster.
#[derive(Clone)]
pub struct ClusterHomes {
    client: Client,
    links: Links,
}

impl ClusterHomes {
    /// Homes as placement knows them, reached over `links`.
    #[must_use]
    pub fn new(client: Client, links: Links) -> Self {
        Self { client, links }
    }

    /// The node to ask: the home, or, of a room that is to be opened, an origin drawn by its name.
    async fn find(&self, enter: &Enter) -> Result<NodeId, NoLink> {
        let located = timeout(LOCATE_TIMEOUT, self.client.locate(&enter.room)).await;
        match located {
            Ok(Ok(location)) => match location.placement {
                Some(grant) => Ok(grant.home),
                None if enter.open => self.draw(&enter.room).ok_or(NoLink::Later),
                None => Err(NoLink::NoRoom),
            },
            _ => Err(NoLink::Later),
        }
    }

    fn draw(&self, room: &RoomId) -> Option<NodeId> {
        let nodes = self.client.nodes().borrow().clone();
        let origins = nodes.up().filter(|node| node.spec.roles.has(Roles::ORIGIN));
        // Rendezvous hashing: all edges draw the same one.
        let drawn = origins.max_by_key(|node| weight(node.spec.id.as_str(), room.as_str()));
        drawn.map(|node| node.spec.id.clone())
    }

    async fn dial(
        &self,
        node: &NodeId,
        enter: &Enter,
    ) -> Result<(Sender, Receiver, FromHome), NoLink> {
        let address = self.client.nodes().borrow().get(node).map(|info| info.spec.addr);
        let address = address.ok_or(NoLink::Later)?;
        let dialled = async {
            let peer = self.links.get(node, address).await?;
            let (mut sender, mut receiver) = peer.open_bi(StreamKind::RoomEvents).await?;
            sender.write_message(enter).await?;
            let first = receiver.read_answer(MAX_MESSAGE_BYTES, ANSWER_TIMEOUT).await?;
            Ok::<_, wire::Error>((sender, receiver, first))
        };
        dialled.await.map_err(|error| {
            debug!(room = %enter.room, home = %node, %error, "the home cannot be entered");
            NoLink::Later
        })
    }

    async fn open(self, enter: Enter) -> Result<Link, NoLink> {
        let mut node = self.find(&enter).await?;
        for _ in 0..MAX_HINTS {
            let (sender, receiver, first) = self.dial(&node, &enter).await?;
            match first {
                FromHome::NotHome { hint: Some(home) } if home != node => node = home,
                FromHome::NotHome { .. } | FromHome::Busy => return Err(NoLink::Later),
                FromHome::NoRoom => return Err(NoLink::NoRoom),
                first => return Ok(self.carry(enter.room, node, (sender, receiver), first)),
            }
        }
        Err(NoLink::Later)
    }

    fn carry(
        self,
        room: RoomId,
        home: NodeId,
        (sender, receiver): (Sender, Receiver),
        first: FromHome,
    ) -> Link {
        let (from_home, from) = mpsc::channel(FROM_QUEUE);
        let (to, to_home) = mpsc::channel(TO_QUEUE);
        tokio::spawn(async move {
            let moved = self.moved(&room, &home);
            let pumped = async {
                if from_home.send(first).await.is_ok() {
                    pump(sender, receiver, from_home, to_home).await;
                }
            };
            tokio::select! {
                () = pumped => {}
                () = moved => debug!(%room, "the room has moved"),
            }
        });
        Link { from, to }
    }

    /// Resolves when placement names another home.
    async fn moved(&self, room: &RoomId, home: &NodeId) {
        let mut watch = self.client.watch_room(room);
        loop {
            let location = watch.changed().await;
            if location.placement.is_some_and(|grant| grant.home != *home) {
                return;
            }
        }
    }
}

impl Homes for ClusterHomes {
    fn enter(&self, enter: Enter) -> BoxFuture<'static, Result<Link, NoLink>> {
        Box::pin(self.clone().open(enter))
    }

    fn others(&self) -> Vec<String> {
        let nodes = self.client.nodes().borrow().clone();
        let us = nodes.get(self.client.node()).map(|node| node.spec.region.clone());
        let mut urls: Vec<_> = nodes
            .up()
            .filter(|node| node.spec.id != *self.client.node())
            .flat_map(|node| {
                let far = Some(&node.spec.region) != us.as_ref();
                node.spec.viewer_urls.first().map(|url| (far, url.clone()))
            })
            .collect();
        urls.sort();
        urls.truncate(MAX_OTHERS);
        urls.into_iter().map(|(_, url)| url).collect()
    }

    fn has_others(&self) -> bool {
        let nodes = self.client.nodes().borrow().clone();
        nodes
            .up()
            .any(|node| node.spec.id != *self.client.node() && node.spec.roles.has(Roles::EDGE))
    }
}

/// Edges a client is told of.
const MAX_OTHERS: usize = 4;

async fn pump(
    mut sender: Sender,
    mut receiver: Receiver,
    from_home: mpsc::Sender<FromHome>,
    mut to_home: mpsc::Receiver<ToHome>,
) {
    let silence = Duration::from_millis(SILENCE_MS);
    let mut heard = Instant::now();
    loop {
        tokio::select! {
            said = receiver.read_message::<FromHome>(MAX_MESSAGE_BYTES) => match said {
                Ok(Some(said)) => {
                    heard = Instant::now();
                    if from_home.send(said).await.is_err() {
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    debug!(%error, "the home is lost");
                    break;
                }
            },
            said = to_home.recv() => match said {
                Some(said) => if let Err(error) = sender.write_message(&said).await {
                    debug!(%error, "the home is lost");
                    break;
                },
                None => break,
            },
            () = sleep_until(heard + silence) => {
                debug!("the home says nothing any more");
                break;
            }
        }
    }
    sender.finish();
}

fn weight(node: &str, room: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (node, room).hash(&mut hasher);
    hasher.finish()
}
