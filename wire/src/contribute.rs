//! What an ingest node and a room's home say to each other about a push.
//!
//! The ingest opens a bidirectional stream (`StreamKind::Contribute`), says [`Contribute`] and reads
//! one [`Reply`], which the home may give only after it has judged an incumbent. Accepted, the
//! ingest sends [`Piece`]s, one a frame of the stream, in the order of the publisher; the end of the
//! stream is the end of the push. The home may say [`Reply::Stop`] at any time, and nothing more.
//!
//! The ingest numbers the publisher's messages from 0. First it sends the newest metadata and
//! configurations before the message it begins with, then that one's number
//! ([`PieceKind::Number`]), then the messages from it on. A home that has taken the room over says
//! from which message on it wants them.
//!
//! Media is opaque: a piece is a message as the publisher sent it.

use std::net::SocketAddr;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::id::{Epoch, NodeId, RoomId};

/// The longest message other than a piece.
pub const MAX_CONTROL_BYTES: usize = 4 << 10;

/// The longest piece: the largest RTMP message an origin accepts, and its header.
pub const MAX_PIECE_BYTES: usize = (8 << 20) + PIECE_HEADER_BYTES;

/// Kind and timestamp.
const PIECE_HEADER_BYTES: usize = 5;

/// A push wants its room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contribute {
    /// The room.
    pub room: RoomId,
    /// The epoch under which the ingest believes the peer to be its home.
    pub epoch: Epoch,
    /// The publisher's address, for the API.
    pub source: SocketAddr,
    /// What its encoder calls itself, for the API.
    pub encoder: String,
    /// When it came, in milliseconds since the Unix epoch.
    pub since_unix_ms: u64,
    /// Names the push on its way from home to home: chosen at random, never 0.
    pub publish: u64,
}

/// What the home says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Reply {
    /// The push has the room.
    Accepted {
        /// The first message wanted; none for the newest one that a stream can begin with.
        from: Option<u64>,
    },
    /// The peer is not the room's home; it knows of this epoch (0: of none) and this home.
    NotHome {
        /// The highest epoch it knows of.
        epoch: Epoch,
        /// Whom to ask instead, when known.
        hint: Option<NodeId>,
    },
    /// The push is refused, or ended after it was accepted.
    Stop {
        /// Why, as a machine reads it.
        why: Why,
        /// Why, for the person at the encoder.
        description: String,
    },
}

/// Why a home ends a push. The discriminants are part of the wire format: append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Why {
    /// Another push is sending.
    Busy,
    /// Another push took the place of this silent one.
    Replaced,
    /// The media cannot be served.
    BadMedia,
    /// An operator ended it.
    Kicked,
    /// The home is closing or moving; pushing again helps.
    Unavailable,
}

/// The kind of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PieceKind {
    /// An FLV video tag body.
    Video,
    /// An FLV audio tag body.
    Audio,
    /// An FLV script tag body, `onMetaData`.
    Metadata,
    /// Not the publisher's: the number of the message that follows, 64 bits big-endian.
    Number,
}

/// One message of the publisher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// What it carries.
    pub kind: PieceKind,
    /// The publisher's clock, 32 bits, wrapping.
    pub timestamp_ms: u32,
    /// The message.
    pub payload: Bytes,
}

/// Why a piece cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PieceError {
    /// It ends inside its header.
    #[error("contributed message: truncated")]
    Truncated,
    /// A kind this build does not know.
    #[error("contributed message: unknown kind {0}")]
    Kind(u8),
}

impl Piece {
    /// Says that the piece after this one has this number.
    #[must_use]
    pub fn number(next: u64) -> Self {
        let payload = Bytes::copy_from_slice(&next.to_be_bytes());
        Self { kind: PieceKind::Number, timestamp_ms: 0, payload }
    }

    /// The number of the next piece, if that is what this one says.
    #[must_use]
    pub fn as_number(&self) -> Option<u64> {
        let bytes = self.payload.as_ref().try_into().ok()?;
        (self.kind == PieceKind::Number).then(|| u64::from_be_bytes(bytes))
    }

    /// The header; header and payload together are one frame of the stream, so that the payload is
    /// not copied. Layout: kind (1 video, 2 audio, 3 metadata, 4 number), timestamp big-endian.
    #[must_use]
    pub fn header(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(PIECE_HEADER_BYTES);
        out.put_u8(match self.kind {
            PieceKind::Video => 1,
            PieceKind::Audio => 2,
            PieceKind::Metadata => 3,
            PieceKind::Number => 4,
        });
        out.put_u32(self.timestamp_ms);
        out.freeze()
    }

    /// Reads a piece; the payload shares the frame's memory.
    ///
    /// # Errors
    /// [`PieceError`]; the stream cannot be trusted any more.
    pub fn decode(mut frame: Bytes) -> Result<Self, PieceError> {
        if frame.len() < PIECE_HEADER_BYTES {
            return Err(PieceError::Truncated);
        }
        let kind = match frame.get_u8() {
            1 => PieceKind::Video,
            2 => PieceKind::Audio,
            3 => PieceKind::Metadata,
            4 => PieceKind::Number,
            other => return Err(PieceError::Kind(other)),
        };
        let timestamp_ms = frame.get_u32();
        Ok(Self { kind, timestamp_ms, payload: frame })
    }
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
        let contribute = Contribute {
            room: RoomId::new("live", "a").unwrap(),
            epoch: Epoch(300),
            source: "127.0.0.1:5".parse().unwrap(),
            encoder: "x".into(),
            since_unix_ms: 1,
            publish: 300,
        };
        assert_eq!(hex(&contribute), "066c6976652f61ac02007f00000105017801ac02");
        assert_eq!(hex(&Reply::Accepted { from: None }), "0000");
        assert_eq!(hex(&Reply::Accepted { from: Some(300) }), "0001ac02");
        assert_eq!(hex(&Reply::NotHome { epoch: Epoch(0), hint: None }), "010000");
        let stop = Reply::Stop { why: Why::BadMedia, description: "no".into() };
        assert_eq!(hex(&stop), "0202026e6f");
    }

    #[test]
    fn pieces_survive_and_foul_ones_are_refused() {
        for kind in [PieceKind::Video, PieceKind::Audio, PieceKind::Metadata] {
            let piece =
                Piece { kind, timestamp_ms: 0x0102_0304, payload: Bytes::from_static(b"ab") };
            let joined = Bytes::from([piece.header(), piece.payload.clone()].concat());
            assert_eq!(&joined[1..], [1, 2, 3, 4, b'a', b'b']);
            assert_eq!(Piece::decode(joined), Ok(piece));
        }
        let number = Piece::number(300);
        let joined = Bytes::from([number.header(), number.payload.clone()].concat());
        assert_eq!(joined.as_ref(), [4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x2c]);
        assert_eq!(Piece::decode(joined).unwrap().as_number(), Some(300));
        assert_eq!(Piece::decode(Bytes::from_static(&[1, 0, 0])), Err(PieceError::Truncated));
        assert_eq!(Piece::decode(Bytes::from_static(&[9; 8])), Err(PieceError::Kind(9)));
    }
}
