//! What goes into a driver and what comes out of it.
//!
//! Plain data: a simulation makes and takes the same as the runtime does.

use std::net::SocketAddr;
use std::time::Duration;

use wire::NodeId;
use wire::control::{Answer, Ask, Bar, Barred, Disk as DiskContent, Grant, NodeInfo, Refusal};

use crate::raft::Message;

/// The time, as the driver is told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    /// Since some fixed point; never goes back.
    pub mono: Duration,
    /// Seconds since 1970 by the wall clock, which may jump. No safety rests on it.
    pub unix_s: u64,
}

/// Names the asker of a question; chosen by whoever asks.
pub(crate) type Token = u64;

/// What happens to a member.
#[derive(Debug)]
pub(crate) enum Input {
    /// A message of a peer, protobuf-decoded and addressed to this member.
    Message(Box<Message>),
    /// A question of `peer`.
    Ask {
        /// Comes back with the answer.
        token: Token,
        /// The node that asks, as its certificate says.
        peer: NodeId,
        /// The question.
        ask: Ask,
    },
    /// A member could not be reached.
    Unreachable {
        /// Its raft id.
        raft_id: u64,
    },
    /// The snapshot for a member has been handed over, or not.
    SnapshotSent {
        /// Its raft id.
        raft_id: u64,
        /// Whether it arrived.
        arrived: bool,
    },
    /// The disk takes too long for a leader.
    SlowDisk,
    /// What an errand of the kind [`Errand::Probe`] found.
    Probed {
        /// The raft id the node shall take.
        raft_id: u64,
        /// What is on its disk.
        disk: DiskContent,
    },
    /// How an errand of the kind [`Errand::Adopt`] ended.
    Adopted {
        /// The raft id.
        raft_id: u64,
        /// The node's answer: whether its disk now has the raft id.
        taken: bool,
    },
}

/// Something to ask another control node, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Errand {
    /// What is on its disk?
    Probe {
        /// The raft id it shall take.
        raft_id: u64,
        /// The node.
        node: NodeId,
        /// Where it is.
        addr: SocketAddr,
    },
    /// Take this raft id.
    Adopt {
        /// The raft id.
        raft_id: u64,
        /// The node.
        node: NodeId,
        /// Where it is.
        addr: SocketAddr,
        /// The disk the raft id is bound to.
        disk: u64,
    },
}

/// Who leads, as far as a member knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The Raft term.
    pub term: u64,
    /// The leader and its address.
    pub leader: Option<(NodeId, SocketAddr)>,
    /// Whether this member leads.
    pub is_leader: bool,
}

/// What changed in the state, for readers outside the driver.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Published {
    /// The log index up to which entries are applied.
    pub revision: u64,
    /// Everything is in here; what is not, is gone.
    pub all: bool,
    /// Rooms that changed; none for a room that is gone.
    pub rooms: Vec<(wire::RoomId, Option<Grant>)>,
    /// Nodes that changed; none for a node that is gone.
    pub nodes: Vec<(NodeId, Option<NodeInfo>)>,
    /// Bars that changed; none for one that is lifted.
    pub bars: Vec<(Barred, Option<Bar>)>,
}

/// What a step leads to, in the order in which things may be done.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    /// Messages for peers. They may be lost, doubled and reordered.
    pub messages: Vec<Message>,
    /// Answers.
    pub replies: Vec<(Token, Result<Answer, Refusal>)>,
    /// What changed, if entries were applied.
    pub published: Option<Published>,
    /// Questions for other control nodes.
    pub errands: Vec<Errand>,
}

/// Figures of a member.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// The Raft term.
    pub term: u64,
    /// Whether it leads.
    pub is_leader: bool,
    /// Highest index known to be committed.
    pub committed: u64,
    /// Highest index applied.
    pub applied: u64,
    /// Entries in the log.
    pub entries: u64,
    /// Proposals made.
    pub proposals: u64,
    /// Snapshots taken.
    pub snapshots: u64,
    /// Messages of former members refused.
    pub refused_messages: u64,
}
