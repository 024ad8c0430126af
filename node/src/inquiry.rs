//! What is asked of one node through another: rooms and what is said in them of their home, backups of a
//! control node.
//!
//! In: an operator's request at any node's API; inquiries of other nodes. Out: answers of this process
//! where it is the one concerned, else of the node that is. So every command works at every node.
//!
//! Placement is not here: whom to ask comes from the control plane.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use cluster::{Backup, Backups, Client};
use futures_util::future::join_all;
use origin::sequencer::{Figures, Unheard};
use prost::Message as _;
use tokio::time::timeout;
use wire::{
    Links, NodeId, Peer, RoomId, Sender, Service, Stream, StreamKind,
    control::{ClusterStatus, Grant, MAX_SNAPSHOT_BYTES, Part, Roles},
    inquiry::{
        BACKUP_FRAME_BYTES, Finding, Inquiry, MAX_FINDING_BYTES, MAX_INQUIRY_BYTES, MAX_ROOMS,
        RoomFacts, RoomState, TalkFigures, clip,
    },
    room::User,
    service::Serving,
};

use crate::facts::Facts;

/// How long a node may take to answer; less than an API call may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a node may take over the whole of a backup.
const BACKUP_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a home may take over something said: longer than the ledger may over a gift.
const HEARING_TIMEOUT: Duration = Duration::from_secs(12);
/// How often a room is followed to another home before the caller is told to come again.
const MAX_HOPS: usize = 3;
/// How long a stream that was opened may say nothing.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node could not be asked.
    #[error("{node} does not answer: {source}")]
    Unreachable {
        /// The node.
        node: NodeId,
        /// How it failed.
        source: wire::Error,
    },
    /// The node said no.
    #[error("{node}: {why}")]
    Refused {
        /// The node.
        node: NodeId,
        /// Its words.
        why: String,
    },
    /// This node's control role could not.
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    /// There is no node to ask now.
    #[error("{0}")]
    Nobody(&'static str),
}

/// Asks this node and others, and answers others. Clones are the same.
#[derive(Clone)]
pub struct Inquiries {
    inner: Arc<Inner>,
}

struct Inner {
    node: NodeId,
    links: Links,
    facts: Facts,
    backups: Option<Backups>,
}

impl Inquiries {
    /// For `node`, which knows `facts` and, if it has the control role, takes `backups`.
    #[must_use]
    pub fn new(node: NodeId, links: Links, facts: Facts, backups: Option<Backups>) -> Self {
        Self { inner: Arc::new(Inner { node, links, facts, backups }) }
    }

    /// The service that answers other nodes.
    #[must_use]
    pub fn service(&self) -> Arc<dyn Service> {
        Arc::clone(&self.inner) as Arc<dyn Service>
    }

    /// What the homes of these rooms know of them; none for a room whose home does not answer or
    /// holds it under another epoch by now.
    pub async fn rooms(&self, grants: &[Grant]) -> Vec<Option<RoomFacts>> {
        let mut found: Vec<Option<RoomFacts>> =
            grants.iter().map(|grant| self.inner.room(&grant.room)).collect();
        let mut homes: Vec<(&NodeId, SocketAddr)> = grants
            .iter()
            .zip(&found)
            .filter(|(grant, facts)| facts.is_none() && grant.home != self.inner.node)
            .map(|(grant, _)| (&grant.home, grant.home_addr))
            .collect();
        homes.sort();
        homes.dedup();
        let asked = homes.into_iter().map(|(home, addr)| async move {
            let theirs = grants.iter().enumerate().filter(|(_, grant)| grant.home == *home);
            let (places, rooms): (Vec<_>, Vec<_>) =
                theirs.map(|(place, grant)| (place, grant.room.clone())).take(MAX_ROOMS).unzip();
            match self.ask(home, addr, Inquiry::Rooms { rooms }).await {
                Ok(Finding::Rooms { facts }) => places.into_iter().zip(facts).collect(),
                Ok(_) => Vec::new(),
                Err(error) => {
                    tracing::debug!(%home, %error, "a home does not tell of its rooms");
                    Vec::new()
                }
            }
        });
        for (place, facts) in join_all(asked).await.into_iter().flatten() {
            found[place] = found[place].take().or(facts);
        }
        for (facts, grant) in found.iter_mut().zip(grants) {
            let _ = facts.take_if(|facts| facts.epoch != grant.epoch);
        }
        found
    }

    /// Ends the stream of `room` at once if its home is in this process, and tells its publisher why.
    pub async fn stop_here(&self, room: &RoomId, why: &str) -> bool {
        self.inner.facts.stop(room, why).await
    }

    /// Ends the stream of a room at its home, wherever that is, and tells its publisher why. Whether it was
    /// there.
    ///
    /// # Errors
    /// [`Error`] if the home does not answer.
    pub async fn stop(&self, grant: &Grant, why: &str) -> Result<bool, Error> {
        let inquiry = Inquiry::Stop { room: grant.room.clone(), why: clip(why) };
        match self.ask(&grant.home, grant.home_addr, inquiry).await? {
            Finding::Kicked { done } => Ok(done),
            other => Err(unexpected(&grant.home, &other)),
        }
    }

    /// Has something said, done or told about the members of a room by its home, wherever that is. The
    /// answer is [`Finding::Heard`], [`Finding::Moderated`], [`Finding::Unheard`] or [`Finding::Talk`].
    /// Asked again because an answer was lost, what has a client's id is not done twice.
    ///
    /// # Errors
    /// [`Error`] if there is no home that answers now.
    pub async fn talk(
        &self,
        client: &Client,
        room: &RoomId,
        inquiry: Inquiry,
    ) -> Result<Finding, Error> {
        let mut home = match self.inner.hear(inquiry.clone()).await {
            Finding::Elsewhere { home } => Some(home),
            Finding::Talk { figures: None } | Finding::Refused { .. } => None,
            found => return Ok(found),
        };
        if home.is_none() {
            let located = timeout(ANSWER_TIMEOUT, client.locate(room)).await;
            let located =
                located.map_err(|_| Error::Nobody("the control plane does not answer"))??;
            home = located.placement.map(|grant| grant.home);
        }
        let mut home = match (home, &inquiry) {
            (Some(home), _) => home,
            (None, Inquiry::Talk { .. }) => return Ok(Finding::Talk { figures: None }),
            (None, _) => any_origin(client).ok_or(Error::Nobody("no origin is up"))?,
        };
        for _ in 0..MAX_HOPS {
            let known = client.nodes().borrow().get(&home).map(|node| node.spec.addr);
            let addr = known.ok_or(Error::Nobody("the room's home is not in the cluster"))?;
            match self.ask_within(&home, addr, inquiry.clone(), HEARING_TIMEOUT).await? {
                Finding::Elsewhere { home: next } => home = next,
                found @ (Finding::Heard { .. }
                | Finding::Moderated
                | Finding::Unheard { .. }
                | Finding::Talk { .. }) => return Ok(found),
                other => return Err(unexpected(&home, &other)),
            }
        }
        Err(Error::Nobody("the room is moving"))
    }

    /// A backup by the leader, or, while none leads or it does not answer, by the first voter that
    /// does: that one may not have heard of the last changes.
    ///
    /// # Errors
    /// How the last control node failed.
    pub async fn backup(&self, status: &ClusterStatus) -> Result<Backup, Error> {
        let mut voters: Vec<_> =
            status.members.iter().filter(|member| member.part == Part::Voter).collect();
        voters.sort_by_key(|member| {
            (Some(&member.node) != status.leader.as_ref(), member.node != self.inner.node)
        });
        let why = "the cluster has no voter".to_owned();
        let mut last = Error::Refused { node: self.inner.node.clone(), why };
        for member in voters {
            match self.backup_of(&member.node, member.addr).await {
                Ok(backup) => return Ok(backup),
                Err(error) => {
                    tracing::warn!(node = %member.node, %error, "no backup from this control node");
                    last = error;
                }
            }
        }
        Err(last)
    }

    async fn backup_of(&self, node: &NodeId, addr: SocketAddr) -> Result<Backup, Error> {
        if let Some(backups) = self.inner.backups.as_ref().filter(|_| *node == self.inner.node) {
            return Ok(backups.take().await?);
        }
        let fetched = async {
            let peer = self.inner.links.get(node, addr).await?;
            let (mut sender, mut receiver) = peer.open_bi(StreamKind::Inquiry).await?;
            sender.write_message(&Inquiry::Backup).await?;
            sender.finish();
            let found = receiver.read_answer(MAX_FINDING_BYTES, ANSWER_TIMEOUT).await?;
            let Finding::Backup { revision, bytes: promised } = found else {
                return Ok(Err(found));
            };
            let mut bytes = Vec::new();
            while let Some(frame) = receiver.read_frame(BACKUP_FRAME_BYTES).await? {
                if bytes.len() + frame.len() > MAX_SNAPSHOT_BYTES {
                    return Err(wire::Error::Truncated { what: "backup" });
                }
                bytes.extend_from_slice(&frame);
            }
            if bytes.len() as u64 != promised {
                return Err(wire::Error::Truncated { what: "backup" });
            }
            Ok(Ok(Backup { revision, bytes }))
        };
        let what = "the backup";
        let late = || Err(wire::Error::TimedOut { what, after: BACKUP_TIMEOUT });
        match timeout(BACKUP_TIMEOUT, fetched).await.unwrap_or_else(|_| late()) {
            Ok(Ok(backup)) => Ok(backup),
            Ok(Err(finding)) => Err(unexpected(node, &finding)),
            Err(source) => Err(Error::Unreachable { node: node.clone(), source }),
        }
    }

    async fn ask(
        &self,
        node: &NodeId,
        addr: SocketAddr,
        inquiry: Inquiry,
    ) -> Result<Finding, Error> {
        self.ask_within(node, addr, inquiry, ANSWER_TIMEOUT).await
    }

    async fn ask_within(
        &self,
        node: &NodeId,
        addr: SocketAddr,
        inquiry: Inquiry,
        limit: Duration,
    ) -> Result<Finding, Error> {
        let asked = async {
            let peer = self.inner.links.get(node, addr).await?;
            let (mut sender, mut receiver) = peer.open_bi(StreamKind::Inquiry).await?;
            sender.write_message(&inquiry).await?;
            sender.finish();
            receiver.read_answer(MAX_FINDING_BYTES, limit).await
        };
        let what = "the node's answer";
        let late = || Err(wire::Error::TimedOut { what, after: limit });
        let found = timeout(limit, asked).await.unwrap_or_else(|_| late());
        found.map_err(|source| Error::Unreachable { node: node.clone(), source })
    }
}

/// An origin that may become the home of a room that has none.
fn any_origin(client: &Client) -> Option<NodeId> {
    let nodes = client.nodes().borrow().clone();
    let mut origins = nodes.up().filter(|node| node.spec.roles.has(Roles::ORIGIN));
    origins.next().map(|node| node.spec.id.clone())
}

fn unexpected(node: &NodeId, finding: &Finding) -> Error {
    let why = match finding {
        Finding::Refused { why } => why.clone(),
        _ => "it answered something else than was asked".to_owned(),
    };
    Error::Refused { node: node.clone(), why }
}

impl Service for Inner {
    fn kinds(&self) -> &'static [StreamKind] {
        &[StreamKind::Inquiry]
    }

    fn serve(self: Arc<Self>, peer: Arc<Peer>, stream: Stream) -> Serving {
        Box::pin(async move {
            if let Err(error) = self.answer(&peer, stream).await {
                tracing::debug!(node = %peer.node(), %error, "inquiry ended");
            }
        })
    }
}

impl Inner {
    async fn answer(&self, peer: &Peer, stream: Stream) -> Result<(), wire::Error> {
        let (mut sender, mut receiver) = stream.both()?;
        let finding = match receiver.read_answer(MAX_INQUIRY_BYTES, ASK_TIMEOUT).await? {
            Inquiry::Rooms { rooms } if rooms.len() > MAX_ROOMS => {
                Finding::Refused { why: format!("more than {MAX_ROOMS} rooms") }
            }
            Inquiry::Rooms { rooms } => {
                Finding::Rooms { facts: rooms.iter().map(|room| self.room(room)).collect() }
            }
            Inquiry::Kick { room } => self.stop(peer, &room, "ended by the operator").await,
            Inquiry::Stop { room, why } => self.stop(peer, &room, &clip(&why)).await,
            Inquiry::Backup => return self.send_backup(&mut sender).await,
            inquiry => self.hear(inquiry).await,
        };
        sender.write_message(&finding).await?;
        sender.finish();
        Ok(())
    }

    async fn stop(&self, peer: &Peer, room: &RoomId, why: &str) -> Finding {
        let done = self.facts.stop(room, why).await;
        if done {
            tracing::info!(%room, by = %peer.node(), "stream ended by the operator");
        }
        Finding::Kicked { done }
    }

    /// Has something said, done or told at the origin of this process.
    async fn hear(&self, inquiry: Inquiry) -> Finding {
        let Some(origin) = self.facts.origin() else {
            return Finding::Refused { why: "this node is no origin".to_owned() };
        };
        let heard = match inquiry {
            Inquiry::Post { room, cid, user, what } => match User::decode(&*user) {
                Ok(user) => {
                    let said = origin.post(&room, cid, user, what).await;
                    said.map(|verdict| Finding::Heard { verdict })
                }
                Err(_) => Err(Unheard::Refused("the user cannot be read")),
            },
            Inquiry::Moderate { room, by, act } => {
                origin.act(&room, &by, act).await.map(|()| Finding::Moderated)
            }
            Inquiry::Talk { room } => {
                Ok(Finding::Talk { figures: origin.figures(&room).await.map(figures) })
            }
            _ => Err(Unheard::Refused("this is not asked of a room's home")),
        };
        heard.unwrap_or_else(|unheard| match unheard {
            Unheard::Elsewhere(home) => Finding::Elsewhere { home },
            Unheard::Refused(why) => Finding::Unheard { why: why.to_owned(), later: false },
            other => Finding::Unheard { why: other.to_string(), later: true },
        })
    }

    async fn send_backup(&self, sender: &mut Sender) -> Result<(), wire::Error> {
        let taken = match &self.backups {
            Some(backups) => backups.take().await.map_err(|error| error.to_string()),
            None => Err("this node has no control role".to_owned()),
        };
        match taken {
            Err(why) => sender.write_message(&Finding::Refused { why }).await?,
            Ok(Backup { revision, bytes }) => {
                let bytes = bytes::Bytes::from(bytes);
                let head = Finding::Backup { revision, bytes: bytes.len() as u64 };
                sender.write_message(&head).await?;
                for at in (0..bytes.len()).step_by(BACKUP_FRAME_BYTES) {
                    let end = bytes.len().min(at + BACKUP_FRAME_BYTES);
                    sender.write_frame(bytes.slice(at..end)).await?;
                }
            }
        }
        sender.finish();
        Ok(())
    }

    fn room(&self, room: &RoomId) -> Option<RoomFacts> {
        let report = self.facts.room(room)?;
        let facts = report.facts;
        Some(RoomFacts {
            epoch: report.epoch,
            state: match facts.state {
                origin::State::Idle => RoomState::Idle,
                origin::State::Live => RoomState::Live,
                origin::State::Grace => RoomState::Grace,
            },
            ingest: facts.ingest,
            source: facts.source,
            encoder: facts.encoder.as_deref().map(clip),
            since_unix_ms: facts.since_unix_ms,
            advice: facts.advice.map(clip),
            viewers: report.viewers,
            subscribers: report.subscribers,
        })
    }
}

fn figures(figures: Figures) -> TalkFigures {
    let Figures { members, likes, likes_per_s, edges, head, mode, state, users } = figures;
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    TalkFigures {
        members,
        likes,
        likes_per_s,
        edges: count(edges),
        head,
        mode,
        sanctions: count(state.sanctions.len()),
        users,
        held: Vec::new(),
    }
}
