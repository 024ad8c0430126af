//! What an edge and a room's home tell each other about its interaction.
//!
//! An edge with members opens one bidirectional stream (`StreamKind::RoomEvents`) per room, says
//! [`Enter`] and then [`ToHome`]; it reads [`FromHome`]. Items are opaque here: the Protobuf form of
//! [`super::model::Item`], so that a node passes on fields it does not know. They come in the order of
//! their offsets, and an answer comes after the item it is about.
//!
//! Encoded by position: a new variant goes to the end of its enum, a field is never added or moved.

use std::net::IpAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::census::Census;
use super::model::{Code, Mode, Set};
use crate::events::Whence;
use crate::{Epoch, NodeId, RoomId};

/// The longest message either way: a whole ring.
pub const MAX_MESSAGE_BYTES: usize = 2 << 20;
/// The longest [`Enter`].
pub const MAX_ENTER_BYTES: usize = 64 << 10;
/// Most edges whose likes are told apart; those beyond are added up under 0.
pub const MAX_TALLY: usize = 1024;
/// Old epochs whose positions can be resumed.
pub const MAX_LINEAGE: usize = 16;
/// Members told by name; of more only a part is.
pub const MAX_LISTED: usize = 500;
/// Most bytes of a list of members, so that it fits a frame of theirs.
pub const MAX_LISTED_BYTES: usize = 40 << 10;
/// Silence after which either side gives the stream up, in milliseconds; each speaks at least every
/// third of it.
pub const SILENCE_MS: u64 = 6_000;

/// An edge wants to carry the room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enter {
    /// The room.
    pub room: RoomId,
    /// Drawn at each start of the edge: its likes are counted under it.
    pub incarnation: u64,
    /// Whether its members may open a room that nobody has opened.
    pub open: bool,
    /// What the edge has of the room's past.
    pub past: Option<Past>,
}

/// How far an edge has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// The epoch it heard last.
    pub epoch: Epoch,
    /// The newest offset it has.
    pub head: u64,
    /// Nothing after this offset is missing.
    pub floor: u64,
    /// Earlier epochs and the last offset of each that holds.
    pub lineage: Vec<(Epoch, u64)>,
    /// Likes, by the incarnations of edges.
    pub tally: Vec<(u64, u64)>,
    /// The room's state as last heard.
    pub state: RoomState,
}

/// What of a room is not in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomState {
    /// Keys with their versions, `mode` and `pin` among them.
    pub keys: Vec<(String, String, u64)>,
    /// Who may not talk or be here.
    pub sanctions: Vec<Sanction>,
    /// Whether somebody streams.
    pub live: bool,
}

impl RoomState {
    /// Sets a key, unless what is known is as new.
    pub fn set(&mut self, set: &Set) -> bool {
        match self.keys.iter_mut().find(|(key, ..)| *key == set.k) {
            Some((_, _, version)) if *version >= set.ver => return false,
            Some(known) => *known = (set.k.clone(), set.v.clone(), set.ver),
            None => self.keys.push((set.k.clone(), set.v.clone(), set.ver)),
        }
        true
    }

    /// The value of a key; empty if it has none.
    #[must_use]
    pub fn get(&self, key: &str) -> &str {
        self.keys.iter().find(|(known, ..)| known == key).map_or("", |(_, value, _)| value)
    }
}

/// A user or address that may not talk, or not be here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sanction {
    /// Who.
    pub whom: Whom,
    /// Not only silenced, but kept out.
    pub ban: bool,
    /// Until when, in milliseconds since 1970; none is for ever.
    pub until_unix_ms: Option<u64>,
}

/// Whom a sanction is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Whom {
    /// A user.
    User(String),
    /// An address.
    Address(IpAddr),
}

impl Whom {
    /// Whether it is this member.
    #[must_use]
    pub fn is(&self, uid: &str, address: IpAddr) -> bool {
        match self {
            Self::User(user) => user == uid,
            Self::Address(known) => *known == address.to_canonical(),
        }
    }
}

impl Sanction {
    /// Whether it holds for this member now.
    #[must_use]
    pub fn holds(&self, uid: &str, address: IpAddr, now_unix_ms: u64) -> bool {
        self.whom.is(uid, address) && self.until_unix_ms.is_none_or(|until| until > now_unix_ms)
    }
}

/// What an edge says after [`Enter`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToHome {
    /// A member says or gives something.
    Say(Say),
    /// All likes of this edge since its start. Said again until [`Counters::tally`] has it.
    Likes {
        /// Ever growing.
        total: u64,
    },
    /// Who is here, every two seconds; also a sign of life.
    Present {
        /// Distinct members.
        census: Census,
        /// Their connections.
        sockets: u32,
    },
    /// Somebody came: the Protobuf form of [`super::model::User`].
    Came {
        /// Who.
        user: Bytes,
    },
    /// The answer to [`FromHome::Recall`]: the edge's ring, in one message.
    History {
        /// The items.
        items: Vec<Bytes>,
    },
    /// As [`Self::Say`], with where the member comes from.
    SayFrom(Say, Whence),
    /// A member who may moderate does so. The edge has seen that it may.
    Act {
        /// The edge's number of it, for the answer.
        request: u64,
        /// Who: the Protobuf form of [`super::model::User`].
        user: Bytes,
        /// What.
        act: Act,
    },
    /// Who is here by name, when it has changed: all of at most [`MAX_LISTED`] members, a part of more.
    Members {
        /// The Protobuf forms of [`super::model::User`].
        users: Vec<Bytes>,
    },
}

/// What a moderator, or the application behind the API, does to a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// Takes items back.
    Delete(Vec<String>),
    /// Takes back everything a user said.
    Clear(String),
    /// Silences or bans, until a time or for ever.
    Sanction(Sanction),
    /// Lifts what was put on somebody; of a user also what was put on the address it spoke from.
    Pardon(Whom),
    /// Ends a user's connections.
    Kick(Whom),
    /// Sets who may say what.
    Mode(Mode),
    /// Sets a key of the state.
    Set(String, String),
    /// As [`Self::Sanction`] of a user, and of the address it spoke from last, if that is known.
    SanctionWithAddress(Sanction),
    /// Lets held messages through, by their ids.
    Approve(Vec<String>),
    /// Throws held messages away, by their ids.
    Reject(Vec<String>),
}

/// A member says or gives something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Say {
    /// The edge's number of it, for the answer.
    pub request: u64,
    /// Who: the Protobuf form of [`super::model::User`].
    pub user: Bytes,
    /// The member's address.
    pub address: IpAddr,
    /// The client's id of it.
    pub cid: String,
    /// What.
    pub what: Saying,
}

/// What is said or given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Saying {
    /// A message.
    Chat {
        /// Plain text, checked by the edge.
        text: String,
        /// Stream time, in milliseconds.
        pts: Option<u64>,
    },
    /// A gift.
    Gift {
        /// What.
        gift: String,
        /// How many.
        count: u32,
        /// The shop's order.
        order: Option<String>,
    },
}

/// What a home says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromHome {
    /// The edge carries the room now; said again when the home's epoch changes. The items the edge lacks
    /// follow.
    Entered {
        /// The epoch the home orders under.
        epoch: Epoch,
        /// The newest offset.
        head: u64,
        /// Nothing after this offset will be missing on the edge; higher than its head, what it has
        /// is not continued.
        floor: u64,
        /// Earlier epochs and the last offset of each that holds.
        lineage: Vec<(Epoch, u64)>,
        /// The room's state.
        state: RoomState,
    },
    /// This node is not the room's home.
    NotHome {
        /// Whom to ask instead, when known.
        hint: Option<NodeId>,
    },
    /// The room is not open, and the edge may not open it.
    NoRoom,
    /// Too many edges or rooms.
    Busy,
    /// Send what you have of the past.
    Recall,
    /// Items in their order.
    Items(Vec<Bytes>),
    /// Items outside of the order: arrivals.
    Ambient(Vec<Bytes>),
    /// The answer to [`Say`].
    Said {
        /// The edge's number.
        request: u64,
        /// What became of it.
        verdict: Verdict,
    },
    /// The room's state has changed.
    State(RoomState),
    /// Counters; also a sign of life.
    Counters(Counters),
    /// Users or addresses are banned or kicked: their connections end.
    Remove(Vec<Whom>),
    /// Who is here by name, when it has changed, host and moderators first.
    Members {
        /// The Protobuf forms of [`super::model::User`].
        users: Vec<Bytes>,
    },
}

/// What became of something said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It has its place.
    Placed {
        /// The item's id.
        id: String,
        /// Its offset.
        offset: u64,
    },
    /// The room takes no more now: show it to some of those on this edge.
    Local {
        /// The item, for them.
        item: Bytes,
    },
    /// It waits for a moderator.
    Held,
    /// It was refused.
    Refused {
        /// Why.
        code: Code,
        /// When to try again, in milliseconds.
        retry_ms: Option<u32>,
    },
    /// It is done, and is no item.
    Done,
}

/// A room's counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Members.
    pub on: u64,
    /// Likes.
    pub like: u64,
    /// Likes per second.
    pub lps: u64,
    /// Version.
    pub v: u64,
    /// Likes by the incarnations of edges, when they changed.
    pub tally: Vec<(u64, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex<T: Serialize>(message: &T) -> String {
        let bytes = postcard::to_stdvec(message).unwrap();
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn messages_have_these_bytes() {
        let room = RoomId::new("live", "a").unwrap();
        let sanction =
            Sanction { whom: Whom::User("u".into()), ban: true, until_unix_ms: Some(300) };
        let state = RoomState {
            keys: vec![("pin".into(), "x".into(), 2)],
            sanctions: vec![sanction],
            live: true,
        };
        let lineage = vec![(Epoch(3), 9)];
        let past = Past {
            epoch: Epoch(4),
            head: 300,
            floor: 1,
            lineage: lineage.clone(),
            tally: vec![(7, 8)],
            state: state.clone(),
        };
        let state_hex = "010370696e01780201000175010 1ac0201".replace(' ', "");
        let enter = Enter { room, incarnation: 5, open: true, past: Some(past) };
        assert_eq!(
            hex(&enter),
            format!("066c6976652f61050101 04ac0201 010309 010708 {state_hex}").replace(' ', "")
        );
        let address = IpAddr::from([127, 0, 0, 1]);
        let chat = Saying::Chat { text: "hi".into(), pts: Some(1) };
        let user = Bytes::from_static(&[9]);
        let say = Say { request: 2, user: user.clone(), address, cid: "c".into(), what: chat };
        assert_eq!(hex(&ToHome::Say(say)), "00020109007f0000010163000268690101");
        assert_eq!(hex(&ToHome::Likes { total: 300 }), "01ac02");
        let present = ToHome::Present { census: Census::default(), sockets: 2 };
        assert_eq!(hex(&present), "02000002");
        assert_eq!(hex(&ToHome::Came { user: user.clone() }), "030109");
        assert_eq!(hex(&ToHome::History { items: vec![user.clone()] }), "04010109");
        let entered =
            FromHome::Entered { epoch: Epoch(4), head: 9, floor: 8, lineage, state: state.clone() };
        assert_eq!(hex(&entered), format!("00040908010309{state_hex}"));
        assert_eq!(hex(&FromHome::NotHome { hint: None }), "0100");
        assert_eq!(hex(&FromHome::NoRoom), "02");
        assert_eq!(hex(&FromHome::Busy), "03");
        assert_eq!(hex(&FromHome::Recall), "04");
        assert_eq!(hex(&FromHome::Items(vec![user.clone()])), "05010109");
        assert_eq!(hex(&FromHome::Ambient(vec![])), "0600");
        let said = |verdict| hex(&FromHome::Said { request: 1, verdict });
        assert_eq!(said(Verdict::Placed { id: "i".into(), offset: 9 }), "070100016909");
        assert_eq!(said(Verdict::Local { item: user }), "0701010109");
        assert_eq!(said(Verdict::Held), "070102");
        assert_eq!(said(Verdict::Done), "070104");
        assert_eq!(
            said(Verdict::Refused { code: Code::SlowMode, retry_ms: Some(3) }),
            "070103040103"
        );
        assert_eq!(hex(&FromHome::State(state)), format!("08{state_hex}"));
        let counters = Counters { on: 1, like: 2, lps: 3, v: 4, tally: vec![(5, 6)] };
        assert_eq!(hex(&FromHome::Counters(counters)), "0901020304010506");
        assert_eq!(hex(&FromHome::Remove(vec![Whom::Address(address)])), "0a0101007f000001");
    }

    #[test]
    fn messages_of_members_by_name_have_these_bytes() {
        let (user, address) = (Bytes::from_static(&[9]), IpAddr::from([127, 0, 0, 1]));
        let chat = Saying::Chat { text: "hi".into(), pts: None };
        let say = Say { request: 2, user: user.clone(), address, cid: "c".into(), what: chat };
        let whence = Whence::new(crate::Region::default(), crate::events::ClientKind::WEB, address);
        let from = format!("05020109007f00000101630002686900{}0101", "0764656661756c74");
        assert_eq!(hex(&ToHome::SayFrom(say, whence)), from);
        let act = |act| hex(&ToHome::Act { request: 2, user: user.clone(), act });
        assert_eq!(act(Act::Delete(vec!["i".into()])), "0602010900010169");
        assert_eq!(act(Act::Clear("u".into())), "06020109010175");
        let mute = Sanction { whom: Whom::User("u".into()), ban: false, until_unix_ms: None };
        assert_eq!(act(Act::Sanction(mute.clone())), "0602010902000175 0000".replace(' ', ""));
        assert_eq!(act(Act::Pardon(mute.whom.clone())), "0602010903000175");
        assert_eq!(act(Act::Kick(mute.whom.clone())), "0602010904000175");
        assert_eq!(act(Act::Mode(Mode { slow_s: 3, ..Mode::default() })), "06020109050300000000");
        assert_eq!(act(Act::Set("k".into(), "v".into())), "0602010906016b0176");
        assert_eq!(act(Act::SanctionWithAddress(mute)), "06020109070001750000");
        assert_eq!(act(Act::Approve(vec![])), "060201090800");
        assert_eq!(act(Act::Reject(vec![])), "060201090900");
        assert_eq!(hex(&ToHome::Members { users: vec![user.clone()] }), "07010109");
        assert_eq!(hex(&FromHome::Members { users: vec![user.clone()] }), "0b010109");
    }

    #[test]
    fn the_newest_value_of_a_key_holds() {
        let set = |v: &str, ver| Set { k: "goal".into(), v: v.into(), ver };
        let mut state = RoomState::default();
        assert!(state.set(&set("a", 2)) && !state.set(&set("b", 2)) && !state.set(&set("c", 1)));
        assert_eq!(state.get("goal"), "a");
        assert!(state.set(&set("", 3)));
        assert_eq!((state.get("goal"), state.get("none")), ("", ""));
    }
}
