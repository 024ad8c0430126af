//! Aggregate messages: several messages in one, as FLV tags with their back pointers.
//!
//! Source: Adobe "RTMP 1.0" (2012) section 7.1.6; the tags are those of "FLV 10.1" annex E.4.1.

use bytes::{Buf, Bytes};

use super::{
    Error,
    message::{Limits, Message},
};

/// How many messages one aggregate may hold. Encoders that aggregate collect some hundred
/// milliseconds.
const MAX_MESSAGES: usize = 1024;
/// A tag header: type 1, size 3, time 3 + 1, stream id 3.
const TAG_HEADER_BYTES: usize = 11;
/// The back pointer after each tag.
const BACK_POINTER_BYTES: usize = 4;
/// The name used in errors.
const WHAT: &str = "aggregate message";

/// The messages of an aggregate, one after the other.
#[derive(Debug)]
pub(super) struct Aggregate {
    rest: Bytes,
    stream_id: u32,
    /// What is added to the time of a tag: the first one is to have the aggregate's own.
    offset_ms: Option<u32>,
    timestamp_ms: u32,
    messages: usize,
}

impl Aggregate {
    pub(super) fn new(message: Message) -> Self {
        Self {
            rest: message.payload,
            stream_id: message.stream_id,
            offset_ms: None,
            timestamp_ms: message.timestamp_ms,
            messages: 0,
        }
    }

    /// The next message, in a buffer of its own so that it does not keep the aggregate alive.
    pub(super) fn next(&mut self, limits: Limits) -> Result<Option<Message>, Error> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        self.messages += 1;
        if self.messages > MAX_MESSAGES {
            return Err(Error::too_large("messages of an aggregate", self.messages, MAX_MESSAGES));
        }
        let Some(header) = self.rest.first_chunk::<TAG_HEADER_BYTES>() else {
            return Err(Error::protocol(WHAT, "truncated"));
        };
        // The upper three bits of the type are flags of encryption in FLV.
        let kind = header[0] & 0x1f;
        let length = u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize;
        let tag_ms = u32::from_be_bytes([header[7], header[4], header[5], header[6]]);
        let (what, limit) = limits.of(kind);
        if length > limit {
            return Err(Error::too_large(what, length, limit));
        }
        self.rest.advance(TAG_HEADER_BYTES);
        if self.rest.len() < length {
            return Err(Error::protocol(WHAT, "truncated"));
        }
        let payload = Bytes::copy_from_slice(&self.rest[..length]);
        // Some encoders leave out the last back pointer.
        self.rest.advance(self.rest.len().min(length + BACK_POINTER_BYTES));
        let first = self.timestamp_ms.wrapping_sub(tag_ms);
        let offset = *self.offset_ms.get_or_insert(first);
        let timestamp_ms = tag_ms.wrapping_add(offset);
        Ok(Some(Message { timestamp_ms, kind, stream_id: self.stream_id, payload }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtmp::message::kind;

    fn tag(kind: u8, timestamp_ms: u32, payload: &[u8]) -> Vec<u8> {
        let [high, time @ ..] = timestamp_ms.to_be_bytes();
        let length = &(payload.len() as u32).to_be_bytes()[1..];
        let back = (payload.len() as u32 + 11).to_be_bytes();
        [&[kind], length, &time, &[high, 0, 0, 0], payload, &back].concat()
    }

    fn split(timestamp_ms: u32, payload: Vec<u8>) -> Result<Vec<Message>, Error> {
        let message =
            Message { timestamp_ms, kind: kind::AGGREGATE, stream_id: 1, payload: payload.into() };
        let mut aggregate = Aggregate::new(message);
        let mut messages = Vec::new();
        while let Some(message) = aggregate.next(Limits::PUBLISHER)? {
            messages.push(message);
        }
        Ok(messages)
    }

    #[test]
    fn times_are_relative_to_the_first() {
        let tags = [
            tag(kind::VIDEO, 0xffff_fff0, b"v"),
            tag(kind::AUDIO, 0xffff_fffa, b""),
            tag(kind::VIDEO, 0x4, b"w"),
        ];
        let mut payload = tags.concat();
        for _ in 0..2 {
            let messages = split(1000, payload.clone()).unwrap();
            let read: Vec<_> =
                messages.iter().map(|m| (m.kind, m.timestamp_ms, &m.payload[..])).collect();
            let expected = [(9, 1000, &b"v"[..]), (8, 1010, b""), (9, 1020, b"w")];
            assert_eq!(read, expected);
            payload.truncate(payload.len() - BACK_POINTER_BYTES);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let tag_of = |length: u32| {
            let mut tag = tag(kind::AUDIO, 0, b"");
            tag[1..4].copy_from_slice(&length.to_be_bytes()[1..]);
            tag
        };
        let error = |payload: Vec<u8>| split(0, payload).unwrap_err().to_string();
        assert_eq!(error(vec![8]), "aggregate message: truncated");
        assert_eq!(error(tag_of(5)), "aggregate message: truncated");
        assert_eq!(error(tag_of(65_537)), "audio message bytes: 65537 is over the limit of 65536");
        let many = tag(kind::AUDIO, 0, b"").repeat(1025);
        assert_eq!(error(many), "messages of an aggregate: 1025 is over the limit of 1024");
    }
}
