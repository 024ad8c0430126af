//! What a home and its subscribers say to each other about media.
//!
//! A subscriber opens a bidirectional stream (`StreamKind::Subscribe`), says [`Subscribe`] and reads
//! [`FromHome`]: the manifest, in batches that become visible together, and heartbeats. It may say
//! [`FromEdge`] on the same stream. Bytes come on unidirectional streams (`StreamKind::Segment`), one
//! per segment: a [`SegmentHeader`], then frame records ([`encode_frame`], [`FrameDecoder`]) until
//! the end of the stream. Bytes that a reset stream lost are asked for again with [`Fetch`].
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

/// The newest bytes a subscriber holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The epoch they belong to.
    pub epoch: Epoch,
    /// Media sequence number of the newest segment of which any byte is here.
    pub msn: u64,
    /// Frames of it that are here.
    pub frames: u32,
    /// Parts of it that are published.
    pub parts: u32,
    /// Milliseconds since the last part came; a new home chooses its resumption time by it.
    pub age_ms: u64,
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
    /// The home has no stream of the room yet: its publisher has not sent media.
    NotYet,
    /// Too many subscribers, or the node is leaving: come back later or elsewhere.
    Busy,
    /// Manifest entries, each in the encoding of the media crate, to be applied together.
    Manifest(Vec<Bytes>),
    /// The home is alive. Three missing in a row and the subscriber looks for another way.
    Beat {
        /// Counts from 0 under one subscription.
        number: u64,
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

/// The longest record header: flags, two 10-byte varints at most, a 5-byte length.
const MAX_RECORD_HEADER: usize = 1 + 10 + 5 + 5;

/// Appends the header of a frame record to `out`; the payload follows it on the stream untouched.
///
/// Layout: flags (bits 0–3 track, bit 4 key), then as LEB128 varints `dts`, zig-zag `cts` and the
/// payload length.
pub fn encode_frame(record: &FrameRecord, out: &mut BytesMut) {
    out.reserve(MAX_RECORD_HEADER);
    out.put_u8((record.track & TRACK_MASK) | if record.key { KEY_FLAG } else { 0 });
    put_varint(out, record.dts);
    put_varint(out, u64::from(((record.cts << 1) ^ (record.cts >> 31)).cast_unsigned()));
    put_varint(out, record.payload.len() as u64);
}

/// Why a record stream cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A varint is longer than its field.
    #[error("frame record: {0} is out of range")]
    Range(&'static str),
    /// The payload is over [`MAX_FRAME_BYTES`].
    #[error("frame record: payload of {0} bytes is over the limit of {MAX_FRAME_BYTES}")]
    TooLarge(u64),
    /// Reserved flag bits are set.
    #[error("frame record: unknown flags {0:#04x}")]
    Flags(u8),
}

/// Turns the bytes of a segment stream into frame records. Bytes are copied once, into the buffer
/// that the payloads then share; memory grows with what arrived, not with what was declared.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    buffer: BytesMut,
}

impl FrameDecoder {
    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole record, or none until more bytes come.
    ///
    /// # Errors
    /// [`FrameError`]; the stream cannot be read on.
    pub fn next_record(&mut self) -> Result<Option<FrameRecord>, FrameError> {
        let mut head = self.buffer.as_ref();
        let before = head.len();
        if before == 0 {
            return Ok(None);
        }
        let flags = head.get_u8();
        if flags & !(TRACK_MASK | KEY_FLAG) != 0 {
            return Err(FrameError::Flags(flags));
        }
        let Some(dts) = take_varint(&mut head, "dts")? else { return Ok(None) };
        let Some(cts) = take_varint(&mut head, "cts")? else { return Ok(None) };
        let Some(len) = take_varint(&mut head, "length")? else { return Ok(None) };
        let cts = u32::try_from(cts).map_err(|_| FrameError::Range("cts"))?;
        let cts = (cts >> 1).cast_signed() ^ -((cts & 1).cast_signed());
        let size = usize::try_from(len).unwrap_or(usize::MAX);
        if size > MAX_FRAME_BYTES {
            return Err(FrameError::TooLarge(len));
        }
        if head.len() < size {
            return Ok(None);
        }
        let header = before - head.len();
        self.buffer.advance(header);
        let payload = self.buffer.split_to(size).freeze();
        Ok(Some(FrameRecord {
            track: flags & TRACK_MASK,
            key: flags & KEY_FLAG != 0,
            dts,
            cts,
            payload,
        }))
    }

    /// Whether bytes of an unfinished record are left: at the end of a stream, a truncation.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn take_varint(input: &mut &[u8], what: &'static str) -> Result<Option<u64>, FrameError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        if input.is_empty() {
            return Ok(None);
        }
        let byte = input.get_u8();
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return Err(FrameError::Range(what));
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(Some(value));
        }
    }
    Err(FrameError::Range(what))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> impl Strategy<Value = FrameRecord> {
        (
            0u8..16,
            any::<bool>(),
            any::<u64>(),
            any::<i32>(),
            prop::collection::vec(any::<u8>(), 0..300),
        )
            .prop_map(|(track, key, dts, cts, payload)| FrameRecord {
                track,
                key,
                dts,
                cts,
                payload: payload.into(),
            })
    }

    proptest! {
        #[test]
        fn records_survive_any_split(records in prop::collection::vec(record(), 0..12), step in 1usize..400) {
            let mut bytes = BytesMut::new();
            for r in &records {
                encode_frame(r, &mut bytes);
                bytes.extend_from_slice(&r.payload);
            }
            let mut decoder = FrameDecoder::default();
            let mut seen = Vec::new();
            for piece in bytes.chunks(step) {
                decoder.push(piece);
                while let Some(r) = decoder.next_record().unwrap() {
                    seen.push(r);
                }
            }
            prop_assert_eq!(seen, records);
            prop_assert!(decoder.is_empty());
        }

        #[test]
        fn any_bytes_end_in_records_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut decoder = FrameDecoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_record() {}
        }
    }

    #[test]
    fn a_record_has_these_bytes() {
        let record = FrameRecord {
            track: 1,
            key: true,
            dts: 90_000,
            cts: -2,
            payload: Bytes::from_static(&[0xde, 0xad]),
        };
        let mut out = BytesMut::new();
        encode_frame(&record, &mut out);
        assert_eq!(out.as_ref(), [0x11, 0x90, 0xbf, 0x05, 0x03, 0x02]);
    }

    #[test]
    fn a_declared_size_allocates_nothing() {
        let mut decoder = FrameDecoder::default();
        decoder.push(&[0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert_eq!(decoder.next_record(), Err(FrameError::TooLarge(0xffff_ffff)));
    }
}
