//! Raft messages between voters, over the cluster's QUIC endpoint.
//!
//! In: messages of the driver, frames of peers. Out: frames to peers, messages for the driver. Each
//! peer has a lane: a bounded queue and one stream, so that order is mostly kept; a full queue or a
//! broken link drops, as Raft expects of a network. A snapshot has a stream of its own, since it may
//! take seconds, and its end is reported to Raft, which waits for that.
//!
//! A frame is refused unless it names this cluster and this member; raft ids are never reused, so
//! what is meant for a former member is not taken by a present one.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use protobuf::Message as _;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use wire::control::{MAX_SNAPSHOT_BYTES, RaftFrame, Roles};
use wire::{Links, NodeId, Peer, Receiver, Sender, StreamKind};

use crate::driver::Input;
use crate::metrics::Metrics;
use crate::raft::{Message, MessageType};
use crate::runtime::Call;
use crate::state::State;
use crate::storage::Identity;

/// Most messages waiting for one peer; a further one is dropped and counted.
const LANE_QUEUE: usize = 1024;
/// How long a write to a peer may hang before its link counts as broken.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a snapshot may take.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(120);

type Route = (NodeId, SocketAddr);

/// All lanes of a member.
pub(crate) struct Transport {
    /// Lanes hold this weakly, so that the last handle outside ends them.
    this: Weak<Transport>,
    runtime: Handle,
    links: Links,
    calls: SyncSender<Call>,
    metrics: Metrics,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    identity: Option<Identity>,
    lanes: HashMap<u64, mpsc::Sender<Message>>,
    /// Where members are by the replicated state; else where their frames came from.
    routes: BTreeMap<u64, Route>,
    learned: BTreeMap<u64, Route>,
    tasks: JoinSet<()>,
}

impl Transport {
    pub(crate) fn new(
        runtime: Handle,
        links: Links,
        calls: SyncSender<Call>,
        metrics: Metrics,
    ) -> Arc<Self> {
        let inner = Mutex::default();
        Arc::new_cyclic(|this| Self { this: this.clone(), runtime, links, calls, metrics, inner })
    }

    /// Whose messages these are from now on.
    pub(crate) fn set_identity(&self, identity: Identity) {
        self.inner.lock().identity = Some(identity);
    }

    /// Sends messages to where members are.
    pub(crate) fn send(&self, messages: Vec<Message>, state: &State) {
        if messages.is_empty() {
            return;
        }
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        for message in messages {
            let to = message.to;
            if let Some(route) = state.member_route(to) {
                inner.routes.insert(to, route);
            }
            if message.get_msg_type() == MessageType::MsgSnapshot {
                if let Some(transport) = self.this.upgrade() {
                    inner.tasks.spawn_on(transport.send_snapshot(message), &self.runtime);
                }
                continue;
            }
            let lane = inner.lanes.entry(to).or_insert_with(|| {
                let (lane, queue) = mpsc::channel(LANE_QUEUE);
                inner.tasks.spawn_on(run_lane(self.this.clone(), to, queue), &self.runtime);
                lane
            });
            if lane.try_send(message).is_err() {
                self.metrics.messages_dropped.inc();
                self.tell(Input::Unreachable { raft_id: to });
            }
        }
        while inner.tasks.try_join_next().is_some() {}
        inner.lanes.retain(|raft_id, _| state.hears(*raft_id));
    }

    /// Takes the frames of a stream that a peer opened.
    pub(crate) async fn receive(&self, peer: &Peer, mut receiver: Receiver) {
        if !peer.hello().roles.has(Roles::CONTROL) {
            tracing::debug!(node = %peer.node(), "raft stream of a node without the control role");
            return;
        }
        loop {
            let frame: RaftFrame = match receiver.read_message(MAX_SNAPSHOT_BYTES).await {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(node = %peer.node(), %error, "raft stream ended");
                    return;
                }
            };
            if !self.is_for_me(peer, &frame) {
                tracing::debug!(
                    node = %peer.node(), cluster = %frame.cluster, to = frame.to, from = frame.from,
                    "raft frame refused"
                );
                self.metrics.messages_dropped.inc();
                return;
            }
            match Message::parse_from_bytes(&frame.message) {
                Ok(message) if (message.from, message.to) == (frame.from, frame.to) => {
                    self.tell(Input::Message(Box::new(message)));
                }
                _ => {
                    tracing::debug!(node = %peer.node(), "malformed raft message");
                    self.metrics.messages_dropped.inc();
                    return;
                }
            }
        }
    }

    /// Whether a frame names this cluster, this member, and a sender that is the peer.
    fn is_for_me(&self, peer: &Peer, frame: &RaftFrame) -> bool {
        let mut inner = self.inner.lock();
        let mine =
            inner.identity.is_some_and(|me| (me.cluster, me.raft_id) == (frame.cluster, frame.to));
        let known = inner.routes.get(&frame.from);
        if !mine || known.is_some_and(|(node, _)| node != peer.node()) {
            return false;
        }
        if known.is_none() && !inner.learned.contains_key(&frame.from) {
            inner.learned.insert(frame.from, (peer.node().clone(), peer.address()));
        }
        true
    }

    fn tell(&self, input: Input) {
        if self.calls.try_send(Call::Input(input)).is_err() {
            self.metrics.messages_dropped.inc();
        }
    }

    fn route(&self, raft_id: u64) -> Option<Route> {
        let inner = self.inner.lock();
        inner.routes.get(&raft_id).or_else(|| inner.learned.get(&raft_id)).cloned()
    }

    async fn open(&self, raft_id: u64) -> Option<Sender> {
        let (node, addr) = self.route(raft_id)?;
        let opened = async {
            let peer = self.links.get(&node, addr).await?;
            peer.open_bi(StreamKind::Raft).await
        };
        match opened.await {
            Ok((mut sender, _)) => {
                sender.set_timeout(WRITE_TIMEOUT);
                Some(sender)
            }
            Err(error) => {
                tracing::debug!(%node, %error, "no raft stream");
                None
            }
        }
    }

    fn frame(&self, message: &Message) -> Option<RaftFrame> {
        let cluster = self.inner.lock().identity?.cluster;
        let bytes = message.write_to_bytes().ok()?;
        Some(RaftFrame { cluster, from: message.from, to: message.to, message: bytes.into() })
    }

    async fn send_snapshot(self: Arc<Self>, message: Message) {
        let raft_id = message.to;
        let sent = async {
            let frame = self.frame(&message)?;
            let mut sender = self.open(raft_id).await?;
            sender.write_message(&frame).await.ok()?;
            sender.finish();
            // Until the peer has all of it; a code instead means it wants no more.
            sender.stopped().await.ok().filter(Option::is_none)
        };
        let arrived = matches!(tokio::time::timeout(SNAPSHOT_TIMEOUT, sent).await, Ok(Some(_)));
        tracing::info!(raft_id, arrived, "snapshot sent");
        self.tell(Input::SnapshotSent { raft_id, arrived });
    }
}

/// Writes the messages of one lane, over one stream as long as it holds.
async fn run_lane(transport: Weak<Transport>, raft_id: u64, mut queue: mpsc::Receiver<Message>) {
    let mut stream: Option<Sender> = None;
    while let Some(message) = queue.recv().await {
        let Some(transport) = transport.upgrade() else { return };
        if stream.is_none() {
            stream = transport.open(raft_id).await;
        }
        let frame = transport.frame(&message);
        let written = match (&mut stream, frame) {
            (Some(sender), Some(frame)) => sender.write_message(&frame).await.is_ok(),
            _ => false,
        };
        if !written {
            // What waited meanwhile is out of date; Raft sends again what is still needed.
            stream = None;
            let mut dropped = 1;
            while queue.try_recv().is_ok() {
                dropped += 1;
            }
            transport.metrics.messages_dropped.inc_by(dropped);
            transport.tell(Input::Unreachable { raft_id });
        }
    }
}
