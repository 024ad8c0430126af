//! What an operator's node asks another node: facts that are not replicated, and acts only it can do.
//!
//! The asker opens a bidirectional stream (`StreamKind::Inquiry`), says one [`Inquiry`] and reads one
//! [`Finding`]. A backup follows its finding as frames of at most [`BACKUP_FRAME_BYTES`], up to the end
//! of the stream. Variants and fields are encoded by position: append only.
//!
//! Any node of the cluster may ask: a certificate of its CA is an operator's word.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{Epoch, NodeId, RoomId};

/// Most rooms in one inquiry: a page of the API.
pub const MAX_ROOMS: usize = crate::control::MAX_PAGE as usize;
/// Longest inquiry: [`MAX_ROOMS`] of the longest names.
pub const MAX_INQUIRY_BYTES: usize = 128 << 10;
/// Longest finding: [`MAX_ROOMS`] facts.
pub const MAX_FINDING_BYTES: usize = 1 << 20;
/// Longest frame of a backup.
pub const BACKUP_FRAME_BYTES: usize = 1 << 20;
/// Longest encoder name or advice in [`RoomFacts`], in bytes; longer ones are cut.
pub const MAX_TEXT_BYTES: usize = 256;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Inquiry {
    /// What goes on in these rooms, at most [`MAX_ROOMS`]? Asked of their home.
    Rooms {
        /// The rooms.
        rooms: Vec<RoomId>,
    },
    /// End this room's stream at once. Asked of its home.
    Kick {
        /// The room.
        room: RoomId,
    },
    /// A backup of the replicated state. Asked of a control node.
    Backup,
    /// End this room's stream at once and tell its publisher why. Asked of its home, answered as a kick.
    Stop {
        /// The room.
        room: RoomId,
        /// Why, in at most [`MAX_TEXT_BYTES`]; longer ones are cut.
        why: String,
    },
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Finding {
    /// As asked: the facts of each room, none for one that is not at home here.
    Rooms {
        /// One for each room asked for.
        facts: Vec<Option<RoomFacts>>,
    },
    /// Whether the room was at home here, and its stream is ended.
    Kicked {
        /// Whether it was.
        done: bool,
    },
    /// The bytes of a backup follow.
    Backup {
        /// The log index it is of.
        revision: u64,
        /// How many bytes.
        bytes: u64,
    },
    /// It cannot be answered.
    Refused {
        /// Why, in words.
        why: String,
    },
}

/// What the home of a room knows of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomFacts {
    /// The epoch it is held under.
    pub epoch: Epoch,
    /// What goes on in it.
    pub state: RoomState,
    /// The node its publisher is connected to.
    pub ingest: Option<NodeId>,
    /// The publisher's address.
    pub source: Option<SocketAddr>,
    /// What its encoder calls itself.
    pub encoder: Option<String>,
    /// When the present push was accepted, in milliseconds since 1970.
    pub since_unix_ms: Option<u64>,
    /// What the streamer should change, when something is amiss.
    pub advice: Option<String>,
    /// Viewers on all edges, as these last said.
    pub viewers: u64,
    /// Edges subscribed to it.
    pub subscribers: u64,
}

/// What goes on in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RoomState {
    /// Nobody publishes.
    Idle,
    /// Someone publishes.
    Live,
    /// The publisher has gone and its grace time runs.
    Grace,
}

/// `text` as it fits [`MAX_TEXT_BYTES`].
#[must_use]
pub fn clip(text: &str) -> String {
    let end = (0..=MAX_TEXT_BYTES.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text[..end.unwrap_or(0)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex<T: Serialize>(message: &T) -> String {
        let bytes = postcard::to_allocvec(message).unwrap();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn longest() -> RoomFacts {
        RoomFacts {
            epoch: Epoch(u64::MAX),
            state: RoomState::Grace,
            ingest: Some(NodeId::new(&"a".repeat(63)).unwrap()),
            source: Some("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().unwrap()),
            encoder: Some(clip(&"é".repeat(MAX_TEXT_BYTES))),
            since_unix_ms: Some(u64::MAX),
            advice: Some(clip(&"x".repeat(MAX_TEXT_BYTES + 1))),
            viewers: u64::MAX,
            subscribers: u64::MAX,
        }
    }

    #[test]
    fn messages_look_like_this() {
        let room = RoomId::new("live", "a").unwrap();
        assert_eq!(hex(&Inquiry::Rooms { rooms: vec![room.clone()] }), "0001066c6976652f61");
        assert_eq!(hex(&Inquiry::Kick { room: room.clone() }), "01066c6976652f61");
        assert_eq!(hex(&Inquiry::Stop { room, why: "x".into() }), "03066c6976652f610178");
        assert_eq!(hex(&Inquiry::Backup), "02");
        let facts = RoomFacts {
            epoch: Epoch(9),
            state: RoomState::Live,
            ingest: Some(NodeId::new("o2").unwrap()),
            source: None,
            encoder: Some("OBS".to_owned()),
            since_unix_ms: None,
            advice: None,
            viewers: 3,
            subscribers: 1,
        };
        let rooms = Finding::Rooms { facts: vec![Some(facts), None] };
        assert_eq!(hex(&rooms), "000201090101026f32000103".to_owned() + "4f42530000030100");
        assert_eq!(hex(&Finding::Kicked { done: true }), "0101");
        assert_eq!(hex(&Finding::Backup { revision: 5, bytes: 300 }), "0205ac02");
        assert_eq!(hex(&Finding::Refused { why: "no".to_owned() }), "03026e6f");
    }

    #[test]
    fn the_largest_messages_fit_their_limits() {
        let room = RoomId::new(&"a".repeat(64), &"b".repeat(64)).unwrap();
        let rooms = Inquiry::Rooms { rooms: vec![room; MAX_ROOMS] };
        assert!(postcard::to_allocvec(&rooms).unwrap().len() <= MAX_INQUIRY_BYTES);
        let facts = Finding::Rooms { facts: vec![Some(longest()); MAX_ROOMS] };
        assert!(postcard::to_allocvec(&facts).unwrap().len() <= MAX_FINDING_BYTES);
    }

    #[test]
    fn text_is_cut_at_a_character() {
        assert_eq!(clip("short"), "short");
        assert_eq!(clip(&format!("x{}", "é".repeat(MAX_TEXT_BYTES))).len(), MAX_TEXT_BYTES - 1);
    }
}
