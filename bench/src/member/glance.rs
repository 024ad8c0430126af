//! What a member sees in a frame without reading all of it, and the text that messages carry.
//!
//! Pure. In: a data frame. Out: whether it is a batch, the offset it covers, how many messages are in it; anything
//! else is read in full. One in fifty members reads batches in full too.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use wire::room::model::Form as Wire;
use wire::room::{Body, Server};

use crate::scenario::Form;

/// How a batch begins in JSON.
const BATCH: &[u8] = br#"{"t":"b","o":"#;
/// What each message has, and nothing in a message can hold: its quotes would be escaped.
static CHAT: LazyLock<Finder> = LazyLock::new(|| Finder::new(br#""t":"chat""#));
/// What a batch has that names a new epoch.
static EPOCH: LazyLock<Finder> = LazyLock::new(|| Finder::new(br#""e":""#));
/// How the text of a message of this load begins.
const MARK: &str = "bench ";

/// What a frame is.
#[derive(Debug, PartialEq)]
pub(super) enum Seen {
    /// A batch that covers this offset and holds so many messages.
    Batch { offset: u64, messages: u64 },
    /// Anything else, or a batch that was read in full.
    Said(Server),
    /// A bare message.
    Plain,
    /// Nothing of this protocol that is known.
    Other,
}

/// Looks at a data frame; in full if `whole`.
///
/// # Errors
/// When it cannot be read.
pub(super) fn glance(payload: &[u8], form: Form, whole: bool) -> Result<Seen, String> {
    let wire = match form {
        Form::Plain if payload.starts_with(MARK.as_bytes()) => return Ok(Seen::Plain),
        Form::Plain => return Ok(Seen::Other),
        Form::Pb => Wire::Protobuf,
        Form::Json => Wire::Json,
    };
    if form == Form::Json
        && !whole
        && let Some(rest) = payload.strip_prefix(BATCH)
        && EPOCH.find(rest).is_none()
    {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit());
        let offset = digits
            .fold(0_u64, |n, digit| n.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
        return Ok(Seen::Batch { offset, messages: CHAT.find_iter(rest).count() as u64 });
    }
    let said = Server::read(payload, wire).map_err(|error| error.0)?;
    Ok(said.map_or(Seen::Other, Seen::Said))
}

/// Messages in a batch that was read in full.
pub(super) fn messages(batch: &wire::room::model::Batch) -> u64 {
    batch.m.iter().filter(|item| matches!(item.body, Some(Body::Chat(_)))).count() as u64
}

/// When a message was due, and which it is in its room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) micros: u64,
    pub(super) number: u64,
}

impl Mark {
    /// A text of `bytes` bytes with it.
    pub(super) fn text(self, bytes: usize) -> String {
        let Self { micros, number } = self;
        let mut text = format!("{MARK}{micros:016} {number} ");
        let missing = bytes.saturating_sub(text.len());
        text.extend(std::iter::repeat_n('x', missing));
        text
    }

    /// What a text carries; none if it is not of this load.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut words = text.strip_prefix(MARK)?.split(' ');
        let micros = words.next()?.parse().ok()?;
        Some(Self { micros, number: words.next()?.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use wire::room::Item;
    use wire::room::model::{Batch, Chat, Empty};

    use super::*;

    fn batch(texts: &[&str]) -> Batch {
        let item = |(o, text): (u64, &&str)| {
            let chat = Chat { x: (*text).to_owned(), ..Chat::default() };
            Item { body: Some(Body::Chat(chat)), id: "i".into(), o: Some(o), ts: 1 }
        };
        let m = (1..).zip(texts).map(item).collect();
        Batch { o: 8895, m, ..Batch::default() }
    }

    #[test]
    fn a_glance_sees_what_reading_does() {
        let batch = batch(&["a", r#""t":"chat""#, "\u{e9}"]);
        let payload = Server::B(batch.clone()).write(Wire::Json);
        let seen = glance(&payload, Form::Json, false);
        assert_eq!(seen, Ok(Seen::Batch { offset: 8895, messages: 3 }));
        let read = glance(&payload, Form::Json, true);
        assert_eq!(read, Ok(Seen::Said(Server::B(batch.clone()))));
        assert_eq!(messages(&batch), 3);
        let payload = Server::B(batch.clone()).write(Wire::Protobuf);
        assert_eq!(glance(&payload, Form::Pb, false), Ok(Seen::Said(Server::B(batch))));
    }

    #[test]
    fn what_is_rare_is_read_in_full() {
        let ping = Server::Ping(Empty {}).write(Wire::Json);
        let said = glance(&ping, Form::Json, false).unwrap();
        assert_eq!(said, Seen::Said(Server::Ping(Empty {})));
        let moved = Batch { e: Some("k4".into()), ..batch(&[]) };
        let payload = Server::B(moved.clone()).write(Wire::Json);
        assert_eq!(glance(&payload, Form::Json, false), Ok(Seen::Said(Server::B(moved))));
        assert!(glance(br#"{"t":"new"}"#, Form::Json, false).is_err());
        assert!(glance(b"{", Form::Json, false).is_err());
    }

    #[test]
    fn a_text_carries_its_time() {
        let mark = Mark { micros: 1_795_350_000_123_456, number: 42 };
        let text = mark.text(60);
        assert_eq!((text.len(), Mark::read(&text)), (60, Some(mark)));
        assert_eq!(Mark::read("hello there"), None);
        assert_eq!(glance(text.as_bytes(), Form::Plain, true), Ok(Seen::Plain));
        assert_eq!(glance(b"queued messages: 1", Form::Plain, true), Ok(Seen::Other));
    }
}
