//! What an operator's node asks another node: facts that are not replicated, and acts only it can do.
//!
//! The asker opens a bidirectional stream (`StreamKind::Inquiry`), says one [`Inquiry`] and reads one
//! [`Finding`]. A backup follows its finding as frames of at most [`BACKUP_FRAME_BYTES`], up to the end
//! of the stream. Variants and fields are encoded by position: append only.
//!
//! Any node of the cluster may ask: a certificate of its CA is an operator's word.

use std::net::SocketAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::room::model::Mode;
use crate::room::relay::{Act, Saying, Verdict};
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
    /// Say this in the room in the application's name, opening it if need be. Asked of its home, or of an
    /// origin. The same `cid` of the same user again is the same.
    Post {
        /// The room.
        room: RoomId,
        /// The application's id of it.
        cid: String,
        /// In whose name: the Protobuf form of [`crate::room::User`].
        user: Bytes,
        /// What.
        what: Saying,
    },
    /// Moderate the room, opening it if need be. Asked of its home, or of an origin.
    Moderate {
        /// The room.
        room: RoomId,
        /// Who does it, for the records.
        by: String,
        /// What.
        act: Act,
    },
    /// What goes on among the room's members? Asked of its home.
    Talk {
        /// The room.
        room: RoomId,
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
    /// What became of something said.
    Heard {
        /// The home's word.
        verdict: Verdict,
    },
    /// The room is moderated.
    Moderated,
    /// What was asked for makes no sense, in these words; or the room cannot be had now.
    Unheard {
        /// Why, in words.
        why: String,
        /// Whether the same may be asked again.
        later: bool,
    },
    /// What goes on among the room's members; none where nobody talks.
    Talk {
        /// The figures.
        figures: Option<TalkFigures>,
    },
    /// The room's home is another node.
    Elsewhere {
        /// Which.
        home: NodeId,
    },
}

/// What goes on among the members of a room.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TalkFigures {
    /// Members on all edges.
    pub members: u64,
    /// Likes since the room was opened.
    pub likes: u64,
    /// Likes in the last second.
    pub likes_per_s: u64,
    /// Edges that carry the room.
    pub edges: u32,
    /// The newest offset.
    pub head: u64,
    /// Who may say what.
    pub mode: Mode,
    /// Users and addresses that are silenced or banned.
    pub sanctions: u32,
    /// Members by name, as far as they are told: the Protobuf forms of [`crate::room::User`].
    pub users: Vec<Bytes>,
    /// Messages that wait for a moderator: the Protobuf forms of [`crate::room::Item`].
    pub held: Vec<Bytes>,
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
    fn what_is_asked_about_talk_looks_like_this() {
        let room = RoomId::new("live", "a").unwrap();
        let what = Saying::Chat { text: "hi".into(), pts: None };
        let (cid, user) = ("c".to_owned(), Bytes::from_static(&[9]));
        let post = Inquiry::Post { room: room.clone(), cid, user: user.clone(), what };
        assert_eq!(hex(&post), "04066c6976652f6101630109000268 6900".replace(' ', ""));
        let act = Act::Clear("u".into());
        let moderate = Inquiry::Moderate { room: room.clone(), by: "b".into(), act };
        assert_eq!(hex(&moderate), "05066c6976652f610162010175");
        assert_eq!(hex(&Inquiry::Talk { room }), "06066c6976652f61");
        assert_eq!(hex(&Finding::Heard { verdict: Verdict::Held }), "0402");
        assert_eq!(hex(&Finding::Moderated), "05");
        assert_eq!(hex(&Finding::Unheard { why: "no".into(), later: true }), "06026e6f01");
        assert_eq!(hex(&Finding::Talk { figures: None }), "0700");
        let figures = TalkFigures {
            members: 1,
            likes: 2,
            likes_per_s: 3,
            edges: 4,
            head: 5,
            mode: Mode { slow_s: 6, ..Mode::default() },
            sanctions: 7,
            users: vec![user],
            held: Vec::new(),
        };
        let talk = Finding::Talk { figures: Some(figures) };
        assert_eq!(hex(&talk), "070101020304050600000000070101 0900".replace(' ', ""));
        let home = NodeId::new("o2").unwrap();
        assert_eq!(hex(&Finding::Elsewhere { home }), "08026f32");
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
