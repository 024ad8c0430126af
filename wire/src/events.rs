//! What nodes say to the one that keeps the ledger of gifts and the store of events.
//!
//! In: postcard bytes of one frame of an events stream (`StreamKind::Events`). A node opens the
//! stream, sends numbered [`Request`]s, several at once if it likes, and reads their [`Response`]s
//! in any order. Every ask may be put again after a lost answer: a gift is the same gift by its
//! room, user and client id. Events may then be stored twice; gifts never.
//!
//! Text is a [`Short`], bounded and storable by construction; lists are bounded by the frame and
//! checked by [`Ask::check`]. Variants and fields are encoded by position: append only.
//!
//! Does not store anything: the events crate does.

mod kind;
mod short;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use self::kind::{AddressClass, ClientKind, EventKind};
pub use self::short::{Short, ShortError};
use crate::{Epoch, NodeId, Region, RoomId};

/// Version of the messages in this file. 1: first release.
pub const EVENTS_VERSION: u16 = 1;
/// Longest frame the ledger accepts: a full batch of long events.
pub const MAX_ASK_BYTES: usize = 1 << 20;
/// Longest frame a client accepts: a full page of long records.
pub const MAX_ANSWER_BYTES: usize = 4 << 20;
/// Most events in one message, and most marks.
pub const MAX_BATCH: usize = 256;
/// Most rows or records in one answer.
pub const MAX_PAGE: u16 = 500;
/// Most asks of one stream that are being answered; the next is read when one is done.
pub const MAX_IN_FLIGHT: usize = 1024;
/// How long a repeat of a gift is answered as its first time was, in milliseconds: 24 hours.
pub const REPEAT_WINDOW_MS: u64 = 24 * 60 * 60 * 1000;

/// A user, a client's id of a message, an order: opaque to the system.
pub type Id = Short<128>;
/// The name of a gift, or of whatever else an event is about.
pub type Name = Short<128>;
/// More about a gift or an event, as one JSON object, or empty.
pub type Detail = Short<3072>;

/// Where a room message stands in its room's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The epoch of the home that gave it.
    pub epoch: Epoch,
    /// Its number under that epoch.
    pub offset: u64,
}

/// What is kept of where a user comes from: never the address itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Whence {
    /// The region of the node the user is connected to.
    pub region: Region,
    /// The kind of program.
    pub client: ClientKind,
    /// The kind of network.
    pub address: AddressClass,
}

/// A gift to be written to the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gift {
    /// The room.
    pub room: RoomId,
    /// Who gives it.
    pub user: Id,
    /// The sender's id of this gift: unique for [`REPEAT_WINDOW_MS`] with room and user.
    pub client_id: Id,
    /// The epoch of the home that asks. Refused once a later home has taken the room over, so that
    /// no row is left behind that nobody puts in order. 0 asks without a home.
    pub epoch: Epoch,
    /// What is given.
    pub gift: Name,
    /// How many, at least 1.
    pub count: u32,
    /// The shop's order, or empty.
    pub order: Id,
    /// What was paid in the smallest unit of the shop's currency, by its order; else 0.
    pub value: u64,
    /// Where the sender comes from.
    pub whence: Whence,
    /// What the room layer needs to show it again, as JSON.
    pub detail: Detail,
}

/// A gift as it stands in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GiftRow {
    /// Its number in the ledger: unique, rising, the same for every repeat.
    pub id: u64,
    /// When the ledger first took it, in milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// What the first ask said.
    pub gift: Gift,
    /// Where it stands in its room's order, once it does.
    pub position: Option<Position>,
}

/// A ledger row has its place in the room's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The row.
    pub id: u64,
    /// Its place.
    pub position: Position,
}

/// Something that happened, for statistics and audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// When, in milliseconds since the Unix epoch by the clock of the node that says so.
    pub at_unix_ms: u64,
    /// The room, if it is about one.
    pub room: Option<RoomId>,
    /// Who, if it is about somebody; else empty.
    pub user: Id,
    /// Where they come from.
    pub whence: Whence,
    /// More, as JSON.
    pub detail: Detail,
}

/// An event or a gift as it is exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Where it stands in the export.
    pub cursor: Cursor,
    /// The node that said so.
    pub node: Option<NodeId>,
    /// The event; a gift has its columns in the detail.
    pub event: Event,
}

/// A place in an export: everything up to it has been read.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Cursor {
    /// The time of the last record, in milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// Whether it is an event; gifts of the same millisecond come first.
    pub is_event: bool,
    /// Its number among gifts, or among events.
    pub id: u64,
}

/// Which records.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Span {
    /// From this time on, in milliseconds since the Unix epoch.
    pub since_unix_ms: u64,
    /// Up to but without this time.
    pub until_unix_ms: u64,
    /// Of this room alone.
    pub room: Option<RoomId>,
}

/// What the gifts of a span add up to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Rows in the ledger.
    pub rows: u64,
    /// Gifts in them.
    pub count: u64,
    /// What was paid for them.
    pub value: u64,
    /// Rows without a place in their room's order.
    pub unsequenced: u64,
    /// Rows beyond the first with the same room, user and client id within the repeat window: 0, or
    /// the ledger is broken.
    pub duplicates: u64,
    /// By gift, the most valuable first; at most [`MAX_PAGE`].
    pub by_gift: Vec<GiftTotal>,
}

/// What one kind of gift adds up to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GiftTotal {
    /// The gift.
    pub gift: Name,
    /// Rows in the ledger.
    pub rows: u64,
    /// Gifts in them.
    pub count: u64,
    /// What was paid for them.
    pub value: u64,
}

/// A question. The number comes back with the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the asker, once a stream.
    pub id: u64,
    /// The question.
    pub ask: Ask,
}

/// The answer to the request of the same number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// The number of the request.
    pub id: u64,
    /// The answer.
    pub answer: Result<Answer, Refusal>,
}

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Ask {
    /// Write a gift, unless it is there: [`Answer::Gift`], only after it is on the disk.
    Commit(Gift),
    /// Note the places of rows: [`Answer::Done`].
    Mark(Vec<Mark>),
    /// The home under `epoch` has the room: commits under earlier epochs are refused from now on.
    /// Answered by the rows without a place, in the order of the ledger, after row `after`.
    TakeOver {
        /// The room.
        room: RoomId,
        /// The epoch of the home that asks.
        epoch: Epoch,
        /// Rows after this one; 0 for all.
        after: u64,
        /// At most so many.
        limit: u16,
    },
    /// Keep events: [`Answer::Done`] once they are on the disk.
    Keep(Vec<Event>),
    /// Records in the order of their times: [`Answer::Records`].
    Export {
        /// Which.
        span: Span,
        /// After this place; none from the beginning.
        after: Option<Cursor>,
        /// At most so many.
        limit: u16,
    },
    /// What the gifts of a span add up to: [`Answer::Totals`].
    Totals(Span),
    /// Is this gift in the ledger? [`Answer::Rows`]: its row, if it was taken within the time in which its
    /// client's id names it.
    Find {
        /// The room.
        room: RoomId,
        /// Who gave it.
        user: Id,
        /// The sender's id of it.
        client_id: Id,
    },
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Answer {
    /// The gift is in the ledger.
    Gift {
        /// Its row, as the first ask made it.
        row: Box<GiftRow>,
        /// Whether it was there before.
        is_repeat: bool,
    },
    /// It is done.
    Done,
    /// Rows of a room.
    Rows(Vec<GiftRow>),
    /// A page of an export; a page that is not full is the last.
    Records(Vec<Record>),
    /// Sums.
    Totals(Box<Totals>),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Refusal {
    /// The store cannot be written or read now. Nothing was done, or it may be asked again.
    #[error("the ledger is not available: {why}")]
    Unavailable {
        /// What is wrong, for the log.
        why: String,
        /// When to try again, in milliseconds.
        retry_ms: u32,
    },
    /// A later home has the room.
    #[error("the room has moved on to epoch {current}")]
    Stale {
        /// The epoch of that home.
        current: Epoch,
    },
    /// The ask makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// Another gift has used up the shop's order.
    #[error("the order has been used for another gift")]
    OrderUsed,
    /// This node does not keep the ledger.
    #[error("this node does not keep the ledger")]
    NotHere,
}

impl Refusal {
    /// Not available, to be tried again in `retry_ms`.
    #[must_use]
    pub fn unavailable(why: impl Into<String>, retry_ms: u32) -> Self {
        Self::Unavailable { why: why.into(), retry_ms }
    }

    /// Whether the same ask may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::NotHere)
    }
}

impl Ask {
    /// Checks what the types cannot: numbers and lengths of lists.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] names what is wrong.
    pub fn check(&self) -> Result<(), Refusal> {
        let invalid = |what: String| Err(Refusal::Invalid(what));
        match self {
            Self::Commit(gift) => gift.check(),
            Self::Mark(marks) if marks.len() > MAX_BATCH => {
                invalid(format!("{} marks at once; {MAX_BATCH} are the most", marks.len()))
            }
            Self::Keep(events) if events.len() > MAX_BATCH => {
                invalid(format!("{} events at once; {MAX_BATCH} are the most", events.len()))
            }
            Self::TakeOver { limit, .. } | Self::Export { limit, .. }
                if !(1..=MAX_PAGE).contains(limit) =>
            {
                invalid(format!("a page of {limit}; it is from 1 to {MAX_PAGE}"))
            }
            Self::Mark(marks) if marks.iter().any(|mark| !fits(mark.position.offset)) => {
                invalid("an offset beyond what the ledger can hold".to_owned())
            }
            _ => Ok(()),
        }
    }
}

impl Gift {
    fn check(&self) -> Result<(), Refusal> {
        let wrong = if self.user.is_empty() {
            "a gift needs a user"
        } else if self.client_id.is_empty() {
            "a gift needs a client id"
        } else if self.gift.is_empty() {
            "a gift needs a name"
        } else if self.count == 0 {
            "a gift of none"
        } else if !fits(self.value) {
            "a value beyond what the ledger can hold"
        } else {
            return Ok(());
        };
        Err(Refusal::Invalid(wrong.to_owned()))
    }
}

impl Whence {
    /// Of a user at `address` with a program of kind `client`, seen by a node in `region`.
    #[must_use]
    pub fn new(region: Region, client: ClientKind, address: IpAddr) -> Self {
        Self { region, client, address: AddressClass::of(address) }
    }
}

/// Whether both stores can hold the number: their integers are signed, 64 bits.
fn fits(number: u64) -> bool {
    i64::try_from(number).is_ok()
}

#[cfg(test)]
mod tests;
