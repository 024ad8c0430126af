//! Records as lines of JSON: what an export writes and a warehouse reads.
//!
//! In: [`Record`]s. Out: one JSON object a line, with [`FORMAT`] in it. The fields are documented in
//! `docs/events.md`; they are only ever added to.

use serde_json::{Map, Value, json};
use wire::events::{Detail, Gift, Position, Record};

/// Version of the lines. 1: first release.
pub const FORMAT: u32 = 1;

/// A record as one line, without its end.
#[must_use]
pub fn line(record: &Record) -> String {
    object(record).to_string()
}

/// A record as what its line says.
#[must_use]
pub fn object(record: &Record) -> Value {
    let event = &record.event;
    let kind = event.kind;
    let prefix = if record.cursor.is_event { 'e' } else { 'g' };
    let mut line = json!({
        "v": FORMAT,
        "id": format!("{prefix}{}", record.cursor.id),
        "at_ms": event.at_unix_ms,
        "type": kind.name(),
        "room": event.room.as_ref().map(ToString::to_string),
        "user": Some(event.user.as_str()).filter(|user| !user.is_empty()),
        "region": event.whence.region.as_str(),
        "client": event.whence.client.name(),
        "address": event.whence.address.name(),
        "node": record.node.as_ref().map(ToString::to_string),
    });
    let detail = event.detail.as_str();
    if !detail.is_empty() {
        // Detail that is not JSON, from whoever wrote it so, is still exported: as text.
        line["detail"] =
            serde_json::from_str(detail).unwrap_or_else(|_| Value::String(detail.to_owned()));
    }
    line
}

/// The columns of a gift as the detail of its record.
pub(crate) fn gift_detail(gift: &Gift, position: Option<Position>) -> Detail {
    let mut detail = Map::new();
    detail.insert("gift".to_owned(), gift.gift.as_str().into());
    detail.insert("count".to_owned(), gift.count.into());
    detail.insert("value".to_owned(), gift.value.into());
    detail.insert("client_id".to_owned(), gift.client_id.as_str().into());
    if !gift.order.is_empty() {
        detail.insert("order".to_owned(), gift.order.as_str().into());
    }
    if let Some(Position { epoch, offset }) = position {
        detail.insert("epoch".to_owned(), epoch.0.into());
        detail.insert("offset".to_owned(), offset.into());
    }
    let columns = Value::Object(detail.clone()).to_string();
    if let Ok(sender) = serde_json::from_str::<Value>(gift.detail.as_str()) {
        detail.insert("sender".to_owned(), sender);
    }
    // With everything at its longest the sender's part does not fit; the columns are what counts.
    Detail::new(Value::Object(detail).to_string())
        .or_else(|_| Detail::new(columns))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use wire::events::{
        AddressClass, ClientKind, Cursor, Event, EventKind, Id, Name, Short, Whence,
    };
    use wire::{Epoch, NodeId, Region, RoomId};

    use super::*;

    fn record(detail: &str) -> Record {
        Record {
            cursor: Cursor { at_unix_ms: 5, is_event: true, id: 9 },
            node: NodeId::new("e1").ok(),
            event: Event {
                kind: EventKind::CHAT,
                at_unix_ms: 5,
                room: RoomId::parse("live/a").ok(),
                user: Id::new("u1").unwrap(),
                whence: Whence {
                    region: Region::new("eu").unwrap(),
                    client: ClientKind::WEB,
                    address: AddressClass::V4,
                },
                detail: Detail::new(detail).unwrap(),
            },
        }
    }

    #[test]
    fn a_record_is_a_line() {
        let golden = concat!(
            r#"{"address":"v4","at_ms":5,"client":"web","detail":{"text":"a\nb"},"id":"e9","#,
            r#""node":"e1","region":"eu","room":"live/a","type":"chat","user":"u1","v":1}"#
        );
        assert_eq!(line(&record(r#"{"text":"a\nb"}"#)), golden);
        assert!(line(&record("no json")).contains(r#""detail":"no json""#));
        assert!(!line(&record("")).contains("detail"));
    }

    #[test]
    fn the_columns_of_a_gift_are_exported_however_long_the_rest_is() {
        let gift = |detail: String| Gift {
            room: RoomId::parse("live/a").unwrap(),
            user: Id::new("u").unwrap(),
            client_id: Id::new("c").unwrap(),
            epoch: Epoch(1),
            gift: Name::new("\u{1}".repeat(128)).unwrap(),
            count: 3,
            order: Id::new("o").unwrap(),
            value: 7,
            whence: Whence::default(),
            detail: Short::new(detail).unwrap(),
        };
        let position = Some(Position { epoch: Epoch(4), offset: 2 });
        let read = |detail: Detail| serde_json::from_str::<Value>(detail.as_str()).unwrap();
        let short = read(gift_detail(&gift(r#"{"n":"Mei"}"#.into()), position));
        assert_eq!(short["sender"]["n"], "Mei");
        assert_eq!((&short["count"], &short["offset"]), (&3.into(), &2.into()));
        let long = format!(r#"{{"n":"{}"}}"#, "x".repeat(3000));
        let long = read(gift_detail(&gift(long), position));
        assert_eq!((&long["value"], &long["sender"]), (&7.into(), &Value::Null));
    }
}
