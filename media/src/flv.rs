//! FLV: the bodies of RTMP and FLV tags in, HTTP-FLV out.
//!
//! In: audio and video message bodies from a publisher, legacy or Enhanced RTMP v2 ([`video`],
//! [`audio`]); whole FLV streams ([`reader`]). Out: [`Body`]s that say what a message is without
//! copying it; and the tags viewers read ([`writer`]), always in the legacy form every FLV player
//! understands. Timestamps are unwrapped by the timeline, not here.
//!
//! Sources: Adobe Flash Video File Format 10.1, annex E ("FLV"); Veovera Enhanced RTMP v2 ("E-RTMP").

pub mod audio;
mod enhanced;
pub mod reader;
pub mod video;
pub mod writer;

use bytes::Bytes;

use crate::codec::Codec;

/// The largest tag body FLV can carry: its size field has 24 bits (FLV, E.4.1).
pub const MAX_BODY_BYTES: usize = 0xff_ffff;

/// The kind of an FLV tag or RTMP message; the discriminant is the type byte of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TagKind {
    /// Audio.
    Audio = 8,
    /// Video.
    Video = 9,
    /// Script data in AMF0.
    Script = 18,
}

impl TagKind {
    /// The kind with this type byte.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            8 => Some(Self::Audio),
            9 => Some(Self::Video),
            18 => Some(Self::Script),
            _ => None,
        }
    }
}

/// What the body of an audio or video message is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Body {
    /// The decoder configuration of what follows.
    SequenceHeader {
        /// Whose configuration.
        codec: Codec,
        /// The configuration record, unchecked; a view into the message.
        config: Bytes,
    },
    /// One access unit or audio frame.
    Frame {
        /// Its codec.
        codec: Codec,
        /// Whether the publisher calls it a key frame. Not to be believed:
        /// [`crate::codec::avc::is_key`] looks.
        key_flag: bool,
        /// Presentation time minus decode time in milliseconds; 0 for audio.
        cts_ms: i32,
        /// The coded bytes, never empty; a view into the message.
        payload: Bytes,
    },
    /// The publisher says the sequence is over. A new sequence header may follow.
    EndOfSequence,
    /// Well formed and of no use here; the text says what it is.
    Ignored(&'static str),
    /// A codec that is not carried.
    Unsupported {
        /// Its name as users know it, for example `h265` or `Speex`.
        codec: &'static str,
    },
}

impl Body {
    fn sequence_header(codec: Codec, config: Bytes) -> Self {
        if codec.is_carried() {
            Self::SequenceHeader { codec, config }
        } else {
            Self::Unsupported { codec: codec.name() }
        }
    }

    fn frame(codec: Codec, key_flag: bool, cts_ms: i32, payload: Bytes) -> Self {
        if !codec.is_carried() {
            Self::Unsupported { codec: codec.name() }
        } else if payload.is_empty() {
            Self::Ignored("an empty frame")
        } else {
            Self::Frame { codec, key_flag, cts_ms, payload }
        }
    }
}

#[cfg(test)]
mod tests;
