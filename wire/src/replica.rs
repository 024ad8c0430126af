//! What a home and its subscribers say to each other about media.
//!
//! A subscriber opens a bidirectional stream (`StreamKind::Subscribe`), says [`Subscribe`] and reads
//! [`FromHome`]: the manifest, in batches that become visible together, and heartbeats. It may say
//! [`FromEdge`] on the same stream. Bytes come on unidirectional streams (`StreamKind::Segment`), one
//! per segment: a [`SegmentHeader`], then one [`FrameRecord`] a frame until the end of the stream.
//! Bytes that a reset stream lost are asked for again with [`Fetch`]. A new home asks its subscribers
//! with [`Donate`] for what they have of the home before it.
//!
//! Media is opaque here: manifest entries and payloads are bytes with a length limit.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::id::{Epoch, NodeId, RoomId};

/// The longest message on a subscription's control stream: a full manifest of a long window.
pub const MAX_CONTROL_BYTES: usize = 1 << 20;

/// The longest request that opens a subscription or a fetch.
pub const MAX_REQUEST_BYTES: usize = 4 << 10;

/// The longest frame payload: the largest RTMP message an origin accepts.
pub const MAX_FRAME_BYTES: usize = 8 << 20;

/// The longest [`SegmentHeader`].
pub const MAX_SEGMENT_HEADER_BYTES: usize = 64;

/// A subscriber asks for a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribe {
    /// The room.
    pub room: RoomId,
    /// Chosen by the subscriber, unique on its connection; the segment streams of this subscription
    /// carry it.
    pub subscription: u64,
    /// What the subscriber already has, so that bytes are not sent twice.
    pub resume: Option<Resume>,
}

/// What a subscriber holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The highest epoch it has heard of.
    pub epoch: Epoch,
    /// Media sequence number of the newest segment with a published part.
    pub msn: u64,
    /// Its published parts.
    pub parts: u32,
    /// Milliseconds since the last part came; a new home chooses its resumption time by it.
    pub age_ms: u64,
    /// The first segment that lacks bytes, or the newest one: where bytes are wanted from.
    pub bytes: Have,
    /// How many subscribers the home said it had: so many may come to a new home.
    pub subscribers: u32,
}

/// Bytes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Have {
    /// The epoch that opened the segment.
    pub epoch: Epoch,
    /// Its media sequence number.
    pub msn: u64,
    /// Its frames that are here, from the first on.
    pub frames: u32,
}

/// What the home answers and goes on to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FromHome {
    /// The subscription stands; manifest batches follow.
    Accepted {
        /// The epoch the home serves under.
        epoch: Epoch,
    },
    /// This node is not the room's home, or not any more.
    NotHome {
        /// The highest epoch this node knows of for the room, 0 if none.
        epoch: Epoch,
        /// Whom to ask instead, when known.
        hint: Option<NodeId>,
    },
    /// Too many subscribers, or the node is leaving: come back later or elsewhere.
    Busy,
    /// Manifest entries, each in the encoding of the media crate, to be applied together.
    Manifest(Vec<Bytes>),
    /// The home is alive. Three missing in a row and the subscriber looks for another way.
    Beat {
        /// Counts from 0 under one subscription.
        number: u64,
        /// How many subscribers the room has.
        subscribers: u32,
    },
    /// The stream is over and everything was sent.
    Finished,
}

/// Milliseconds between two [`FromHome::Beat`]s.
pub const BEAT_INTERVAL_MS: u64 = 250;

/// Beats a subscriber may miss before it gives the link up.
pub const BEATS_MISSED: u32 = 3;

/// What a subscriber says on its control stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FromEdge {
    /// How many viewers the edge has for the room, sent when it changes, at most once a second.
    Viewers(u64),
}

/// Asks for the bytes of one segment again, on its own bidirectional stream (`StreamKind::Fetch`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// The room.
    pub room: RoomId,
    /// The epoch in the segment's name.
    pub epoch: Epoch,
    /// Media sequence number.
    pub msn: u64,
    /// The first frame wanted.
    pub first_frame: u32,
}

/// The answer to a [`Fetch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FetchReply {
    /// Frame records follow until the end of the stream.
    Found,
    /// These bytes are gone, or never were.
    Gone,
}

/// A new home asks a subscriber for what it has of the home before, on a bidirectional stream of its
/// own (`StreamKind::Donate`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Donate {
    /// The manifest of this room, as far as its bytes are there.
    Manifest(RoomId),
    /// The bytes of a segment.
    Segment(Fetch),
}

/// The answer to a [`Donate`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Donated {
    /// It has nothing of the kind.
    Gone,
    /// Manifest entries, each in the encoding of the media crate.
    Manifest(Vec<Bytes>),
    /// Frame records follow until the end of the stream.
    Segment,
}

/// The start of a segment stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentHeader {
    /// The subscription the bytes belong to.
    pub subscription: u64,
    /// The epoch in the segment's name.
    pub epoch: Epoch,
    /// Media sequence number.
    pub msn: u64,
    /// Index of the first frame that follows.
    pub first_frame: u32,
}

/// One frame as the wire carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameRecord {
    /// The track: 0 video, 1 audio, others reserved (refused by the reader's owner).
    pub track: u8,
    /// Whether decoding can start here.
    pub key: bool,
    /// Decode time in ticks of the track.
    pub dts: u64,
    /// Presentation minus decode time in ticks of the track.
    pub cts: i32,
    /// The coded bytes.
    pub payload: Bytes,
}

const TRACK_MASK: u8 = 0x0f;
const KEY_FLAG: u8 = 0x10;

/// The longest header of a frame record: flags and two varints.
const MAX_RECORD_HEADER: usize = 1 + 10 + 5;

/// The longest frame on a segment stream.
pub const MAX_RECORD_BYTES: usize = MAX_RECORD_HEADER + MAX_FRAME_BYTES;

/// Why a frame record cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The record ends inside its header.
    #[error("frame record: truncated")]
    Truncated,
    /// A varint is longer than its field.
    #[error("frame record: {0} is out of range")]
    Range(&'static str),
    /// Reserved flag bits are set.
    #[error("frame record: unknown flags {0:#04x}")]
    Flags(u8),
}

impl FrameRecord {
    /// The header of the record; header and payload together are one frame of the stream
    /// ([`crate::stream::Sender::write_frame_parts`]), so that the payload is never copied.
    ///
    /// Layout: flags (bits 0–3 track, bit 4 key), then as LEB128 varints `dts` and zig-zag `cts`;
    /// the payload is the rest.
    #[must_use]
    pub fn header(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(MAX_RECORD_HEADER);
        out.put_u8((self.track & TRACK_MASK) | if self.key { KEY_FLAG } else { 0 });
        put_varint(&mut out, self.dts);
        put_varint(&mut out, u64::from(((self.cts << 1) ^ (self.cts >> 31)).cast_unsigned()));
        out.freeze()
    }

    /// Reads a record; the payload shares the frame's memory.
    ///
    /// # Errors
    /// [`RecordError`]; the stream cannot be trusted any more.
    pub fn decode(mut frame: Bytes) -> Result<Self, RecordError> {
        if frame.is_empty() {
            return Err(RecordError::Truncated);
        }
        let flags = frame.get_u8();
        if flags & !(TRACK_MASK | KEY_FLAG) != 0 {
            return Err(RecordError::Flags(flags));
        }
        let dts = take_varint(&mut frame, "dts")?;
        let cts = u32::try_from(take_varint(&mut frame, "cts")?)
            .map_err(|_| RecordError::Range("cts"))?;
        let cts = (cts >> 1).cast_signed() ^ -((cts & 1).cast_signed());
        let (track, key) = (flags & TRACK_MASK, flags & KEY_FLAG != 0);
        Ok(Self { track, key, dts, cts, payload: frame })
    }
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn take_varint(input: &mut Bytes, what: &'static str) -> Result<u64, RecordError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        if input.is_empty() {
            return Err(RecordError::Truncated);
        }
        let byte = input.get_u8();
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err(RecordError::Range(what));
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(RecordError::Range(what))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn joined(record: &FrameRecord) -> Bytes {
        [record.header(), record.payload.clone()].concat().into()
    }

    proptest! {
        #[test]
        fn records_survive_the_wire(
            track in 0u8..16, key: bool, dts: u64, cts: i32,
            payload in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let record = FrameRecord { track, key, dts, cts, payload: payload.into() };
            prop_assert_eq!(FrameRecord::decode(joined(&record)), Ok(record));
        }

        #[test]
        fn any_bytes_are_a_record_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let bytes = Bytes::from(bytes);
            if let Ok(record) = FrameRecord::decode(bytes.clone()) {
                prop_assert!(record.payload.len() < bytes.len());
            }
        }
    }

    #[test]
    fn a_record_has_these_bytes() {
        let payload = Bytes::from_static(&[0xde, 0xad]);
        let record = FrameRecord { track: 1, key: true, dts: 90_000, cts: -2, payload };
        assert_eq!(joined(&record).as_ref(), [0x11, 0x90, 0xbf, 0x05, 0x03, 0xde, 0xad]);
    }

    fn hex<T: Serialize>(message: &T) -> String {
        let bytes = postcard::to_stdvec(message).unwrap();
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn messages_have_these_bytes() {
        let room = RoomId::new("live", "a").unwrap();
        let bytes = Have { epoch: Epoch(2), msn: 299, frames: 9 };
        let (msn, parts, age_ms, subscribers) = (300, 1, 40, 7);
        let resume = Resume { epoch: Epoch(3), msn, parts, age_ms, bytes, subscribers };
        let subscribe = Subscribe { room: room.clone(), subscription: 5, resume: Some(resume) };
        assert_eq!(hex(&subscribe), "066c6976652f61050103ac02012802ab020907");
        assert_eq!(hex(&FromHome::Accepted { epoch: Epoch(3) }), "0003");
        assert_eq!(hex(&FromHome::NotHome { epoch: Epoch(0), hint: None }), "010000");
        assert_eq!(hex(&FromHome::Busy), "02");
        assert_eq!(hex(&FromHome::Manifest(vec![Bytes::from_static(&[1, 2])])), "0301020102");
        assert_eq!(hex(&FromHome::Beat { number: 300, subscribers: 2 }), "04ac0202");
        assert_eq!(hex(&FromHome::Finished), "05");
        assert_eq!(hex(&FromEdge::Viewers(7)), "0007");
        let fetch = Fetch { room, epoch: Epoch(3), msn: 300, first_frame: 2 };
        assert_eq!(hex(&fetch), "066c6976652f6103ac0202");
        assert_eq!(hex(&Donate::Manifest(fetch.room.clone())), "00066c6976652f61");
        assert_eq!(hex(&Donate::Segment(fetch)), "01066c6976652f6103ac0202");
        assert_eq!(hex(&Donated::Gone), "00");
        assert_eq!(hex(&Donated::Manifest(vec![Bytes::from_static(&[1])])), "01010101");
        assert_eq!(hex(&Donated::Segment), "02");
        assert_eq!(hex(&FetchReply::Found), "00");
        assert_eq!(hex(&FetchReply::Gone), "01");
        let header = SegmentHeader { subscription: 5, epoch: Epoch(3), msn: 300, first_frame: 2 };
        assert_eq!(hex(&header), "0503ac0202");
    }
}
