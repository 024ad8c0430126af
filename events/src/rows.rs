//! Between the values of messages and the columns of [`crate::schema`].
//!
//! In: messages on their way to the store, rows on their way out. Out: the other. Both engines read
//! rows through [`Columns`]. A row that no build of ours can have written is an error that names
//! the column; it does not end anything but the query.

use wire::events::{
    AddressClass, ClientKind, Cursor, Detail, Event, EventKind, Gift, GiftRow, Id, Name, Position,
    Record, Whence,
};
use wire::{Epoch, NodeId, Region, RoomId};

/// A row of either engine.
pub(crate) trait Columns {
    /// Why a column cannot be read.
    type Error: std::fmt::Display;
    /// The text in column `at`.
    fn text(&self, at: usize) -> Result<String, Self::Error>;
    /// The number in column `at`.
    fn number(&self, at: usize) -> Result<i64, Self::Error>;
    /// The number in column `at`, if there is one.
    fn optional(&self, at: usize) -> Result<Option<i64>, Self::Error>;
}

/// A column that cannot be read, or holds what no column of ours can.
pub(crate) type BadRow = String;

/// A gift as it is stored beyond what was asked for.
pub(crate) struct StoredGift {
    pub(crate) row: GiftRow,
    pub(crate) reuse: i64,
    pub(crate) node: String,
}

/// Reads `gift_columns!()`.
pub(crate) fn gift(row: &impl Columns) -> Result<StoredGift, BadRow> {
    let read = Reader(row);
    let epoch = read.optional(16, "epoch")?;
    let position = match (epoch, read.optional(17, "pos")?) {
        (Some(epoch), Some(offset)) => Some(Position { epoch: Epoch(epoch), offset }),
        _ => None,
    };
    let gift = Gift {
        room: read.room(2)?,
        user: read.short::<128>(3, "user_id")?,
        client_id: read.short::<128>(4, "client_id")?,
        gift: read.short::<128>(6, "gift")?,
        count: u32::try_from(read.number(7, "count")?).map_err(|_| bad("count"))?,
        order: read.short::<128>(8, "order_id")?,
        value: read.number(9, "value")?,
        whence: read.whence(10)?,
        detail: read.short::<3072>(13, "detail")?,
        epoch: Epoch(read.number(15, "asked_epoch")?),
    };
    let (id, at_unix_ms) = (read.number(0, "id")?, read.number(1, "at_ms")?);
    Ok(StoredGift {
        row: GiftRow { id, at_unix_ms, gift, position },
        reuse: row.number(5).map_err(|_| bad("reuse"))?,
        node: row.text(14).map_err(|_| bad("node"))?,
    })
}

/// A stored gift as an exported record.
pub(crate) fn gift_record(stored: StoredGift) -> Record {
    let StoredGift { row, node, .. } = stored;
    let GiftRow { id, at_unix_ms, gift, position } = row;
    // Past the bound of a detail nothing is lost: it is bounded itself, and this is never stored.
    let detail = crate::export::gift_detail(&gift, position);
    Record {
        cursor: Cursor { at_unix_ms, is_event: false, id },
        node: NodeId::new(&node).ok(),
        event: Event {
            kind: EventKind::GIFT,
            at_unix_ms,
            room: Some(gift.room),
            user: gift.user,
            whence: gift.whence,
            detail,
        },
    }
}

/// Reads the columns of `EXPORT_EVENTS`.
pub(crate) fn event_record(row: &impl Columns) -> Result<Record, BadRow> {
    let read = Reader(row);
    let (id, at_unix_ms) = (read.number(0, "id")?, read.number(1, "at_ms")?);
    let room = row.text(3).map_err(|_| bad("room"))?;
    let node = row.text(9).map_err(|_| bad("node"))?;
    Ok(Record {
        cursor: Cursor { at_unix_ms, is_event: true, id },
        node: NodeId::new(&node).ok(),
        event: Event {
            kind: EventKind(u8::try_from(read.number(2, "kind")?).unwrap_or(u8::MAX)),
            at_unix_ms,
            room: RoomId::parse(&room).ok(),
            user: read.short::<128>(4, "user_id")?,
            whence: read.whence(5)?,
            detail: read.short::<3072>(8, "detail")?,
        },
    })
}

/// A number as the stores hold it. What is stored fits: `Ask::check` has seen to it, and times and
/// epochs do not come near.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number of the stores: never negative as we write them.
pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

struct Reader<'a, R>(&'a R);

impl<R: Columns> Reader<'_, R> {
    fn number(&self, at: usize, name: &str) -> Result<u64, BadRow> {
        let number = self.0.number(at).map_err(|error| format!("column {name}: {error}"))?;
        u64::try_from(number).map_err(|_| bad(name))
    }

    fn optional(&self, at: usize, name: &str) -> Result<Option<u64>, BadRow> {
        let number = self.0.optional(at).map_err(|error| format!("column {name}: {error}"))?;
        number.map(|number| u64::try_from(number).map_err(|_| bad(name))).transpose()
    }

    fn short<const MAX: usize>(
        &self,
        at: usize,
        name: &str,
    ) -> Result<wire::events::Short<MAX>, BadRow> {
        let text = self.0.text(at).map_err(|error| format!("column {name}: {error}"))?;
        wire::events::Short::new(text).map_err(|_| bad(name))
    }

    fn room(&self, at: usize) -> Result<RoomId, BadRow> {
        let text = self.0.text(at).map_err(|error| format!("column room: {error}"))?;
        RoomId::parse(&text).map_err(|_| bad("room"))
    }

    fn whence(&self, at: usize) -> Result<Whence, BadRow> {
        let region = self.0.text(at).map_err(|error| format!("column region: {error}"))?;
        let byte = |number: u64| u8::try_from(number).unwrap_or(u8::MAX);
        Ok(Whence {
            region: Region::new(&region).map_err(|_| bad("region"))?,
            client: ClientKind(byte(self.number(at + 1, "client")?)),
            address: AddressClass(byte(self.number(at + 2, "address")?)),
        })
    }
}

fn bad(name: &str) -> BadRow {
    format!("column {name} holds what no build has written")
}

// The bounds that `gift` and `event_record` name are those of the message types.
const _: fn(Id, Name, Detail) =
    |_: wire::events::Short<128>, _: wire::events::Short<128>, _: wire::events::Short<3072>| {};

/// After which (time, id) the gifts, or the events, of a page begin.
pub(crate) fn start(after: Option<Cursor>, is_event: bool) -> (i64, i64) {
    let Some(after) = after else { return (-1, 0) };
    let id = match (after.is_event, is_event) {
        (false, false) | (true, true) => signed(after.id),
        // Gifts of the same millisecond have all been read before the first event of it.
        (true, false) => i64::MAX,
        (false, true) => 0,
    };
    (signed(after.at_unix_ms), id)
}

/// A page of gifts and events together, from at most a page of each.
pub(crate) fn page(mut found: Vec<Record>, limit: u16) -> Vec<Record> {
    found.sort_by_key(|record| record.cursor);
    found.truncate(usize::from(limit));
    found
}
