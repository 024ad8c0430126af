//! What a room's home needs of the ledger: gifts made durable before they are ordered, events noted.
//!
//! In: gifts and events from the sequencer. Out: whether and as what they are kept. Who keeps them, and
//! where, is behind [`Ledger`]: the node hands one to [`crate::Origin`]. Without one, gifts are answered
//! `unavailable` and events are not kept.
//!
//! The order is commit → sequence → [`Ledger::mark`] → acknowledge. A gift that was committed and whose
//! mark is missing is given its place by whoever is the room's home next ([`Ledger::unmarked`]).

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use wire::events::Whence;
use wire::{Epoch, RoomId};

/// What an answer of the ledger is waited for through.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, LedgerError>> + Send + 'a>>;

/// Where gifts and events are kept. Clones of the handle share it.
pub trait Ledger: Debug + Send + Sync + 'static {
    /// Makes a gift durable, or finds the one that is: (room, uid, cid) is unique for 24 h. Resolves
    /// after the append has reached the disk.
    ///
    /// # Errors
    /// [`LedgerError`]; after [`LedgerError::Unavailable`] the gift may or may not be kept, and the same
    /// gift may be committed again.
    fn commit(&self, gift: Gift) -> Answer<'_, Committed>;

    /// The gift of this room, user and client id, if it was committed in the last 24 h.
    ///
    /// # Errors
    /// [`LedgerError`].
    fn find(&self, room: RoomId, uid: String, cid: String) -> Answer<'_, Option<Committed>>;

    /// Notes that a committed gift has its place in the room. Called again it changes nothing.
    ///
    /// # Errors
    /// [`LedgerError`]; the gift is then among [`Self::unmarked`] for the next home, which gives it out
    /// again under the same id.
    fn mark(&self, room: RoomId, id: u64, at: Place) -> Answer<'_, ()>;

    /// The gifts of a room that were committed and have no place yet, oldest first; at most
    /// [`MAX_UNMARKED`]. From then on the ledger refuses gifts that homes of earlier epochs commit, so
    /// that none is left behind unseen.
    ///
    /// # Errors
    /// [`LedgerError`].
    fn unmarked(&self, room: RoomId, epoch: Epoch) -> Answer<'_, Vec<Committed>>;

    /// Keeps an event if there is room for it; never waits. What is dropped is counted by the ledger.
    fn note(&self, event: Event);
}

/// Whoever can tell a shop's order from a forged one.
pub trait Shop: Debug + Send + Sync + 'static {
    /// What the order says that came with this gift; none if it is no order for this gift, or no longer.
    fn check(&self, gift: &Gift, now_unix_ms: u64) -> Option<Paid>;
}

/// What a shop's order says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paid {
    /// The shop's number of the order: the ledger takes each once.
    pub order: String,
    /// What was paid, in the smallest unit of the shop's currency.
    pub value: u64,
}

/// A handle on whatever keeps gifts.
pub type Handle = Arc<dyn Ledger>;

/// Most rows [`Ledger::unmarked`] answers: more than a room takes in the seconds a move lasts.
pub const MAX_UNMARKED: usize = 1000;

/// A gift as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gift {
    /// Where it was given.
    pub room: RoomId,
    /// The epoch of the home that commits it: refused once a later home has asked for
    /// [`Ledger::unmarked`].
    pub epoch: Epoch,
    /// Who gave it.
    pub uid: String,
    /// The giver's name at that time, for showing it again.
    pub name: String,
    /// The giver's role, as the protocol writes it.
    pub role: String,
    /// The client's id of this gift: the same again is the same gift.
    pub cid: String,
    /// What was given.
    pub gift: String,
    /// How many.
    pub count: u32,
    /// The shop's order, if one came with it; checked by the home before this.
    pub order: Option<String>,
    /// What was paid, in the smallest unit of the shop's currency, by its order; else 0.
    pub value: u64,
    /// Where the giver comes from.
    pub whence: Whence,
    /// When the home took it, in milliseconds since 1970. Of a gift that is kept: when the ledger did.
    pub at_unix_ms: u64,
}

/// Where a gift stands in its room's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The home's epoch.
    pub epoch: Epoch,
    /// The offset under it.
    pub offset: u64,
}

/// A gift that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Its number in the ledger, unique for ever and in all rooms.
    pub id: u64,
    /// The gift as it was first committed. A home compares it with what was asked for.
    pub gift: Gift,
    /// Its place, if it was given one before: then it is acknowledged and not given out again.
    pub place: Option<Place>,
}

/// Why the ledger did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// It cannot be reached or cannot write now.
    #[error("the ledger is away; try again in {retry_after:?}")]
    Unavailable {
        /// When to try again.
        retry_after: Duration,
    },
    /// A later home has the room: this one must not order any more.
    #[error("the room has moved on to epoch {current}")]
    Stale {
        /// The epoch of that home.
        current: Epoch,
    },
    /// Another gift has used up the shop's order: `bad_order`.
    #[error("the order has been used for another gift")]
    OrderUsed,
    /// It will never take this, for the reason given.
    #[error("the ledger refuses: {0}")]
    Refused(String),
}

/// Something that happened in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// Where.
    pub room: RoomId,
    /// Who, as the protocol names users; empty where nobody is meant.
    pub uid: String,
    /// The region of the edge it came through.
    pub region: String,
    /// What the client runs on, from a closed set: `web`, `miniprogram`, `app`, `bot`, `server`, `other`.
    pub client: &'static str,
    /// What kind of address it came from, from a closed set: `v4`, `v6`, `loopback`, `private`, `none`.
    pub address: &'static str,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// A member came.
    Join,
    /// A member went, after the time in which a return is not told.
    Leave,
    /// A publisher began.
    Publish,
    /// A publisher ended.
    Unpublish,
    /// The room has a home: it begins, or moved here.
    RoomStart,
    /// The room is over at this home.
    RoomEnd,
    /// Something was said and has its place in the order.
    Chat {
        /// The item's id.
        id: String,
        /// The text.
        text: String,
    },
    /// A moderator acted.
    Moderation {
        /// Who acted.
        by: String,
        /// What was done, in the words of the API: `mute`, `ban`, `delete`, `clear`, `mode`, …
        action: String,
        /// Upon whom or what.
        target: String,
    },
}
