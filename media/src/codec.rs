//! Which codecs a track may carry, and the RFC 6381 strings that name them to players.
//!
//! In: codec configuration records as the publisher sent them. Out: parameters and codec strings.
//! The records themselves are parsed in [`avc`] and [`aac`].

pub mod aac;
pub mod avc;
mod bits;

use crate::error::Error;
use crate::track::Track;

/// Every codec the house knows by name. Only some are carried today; see [`Codec::is_carried`].
///
/// The discriminants are part of the wire format (manifest version 1): append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum Codec {
    /// H.264 / AVC (ISO/IEC 14496-10).
    Avc,
    /// H.265 / HEVC (ISO/IEC 23008-2).
    Hevc,
    /// AV1.
    Av1,
    /// VP9.
    Vp9,
    /// AAC (ISO/IEC 14496-3), raw access units without ADTS.
    Aac,
    /// Opus (RFC 6716).
    Opus,
    /// MPEG-1/2 audio layer III.
    Mp3,
    /// FLAC.
    Flac,
}

impl Codec {
    /// Whether frames of this codec are accepted, segmented and served.
    #[must_use]
    pub fn is_carried(self) -> bool {
        matches!(self, Self::Avc | Self::Aac)
    }

    /// Whether this is a video codec.
    #[must_use]
    pub fn is_video(self) -> bool {
        matches!(self, Self::Avc | Self::Hevc | Self::Av1 | Self::Vp9)
    }

    /// Short lower-case name for logs, metrics and the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Avc => "h264",
            Self::Hevc => "h265",
            Self::Av1 => "av1",
            Self::Vp9 => "vp9",
            Self::Aac => "aac",
            Self::Opus => "opus",
            Self::Mp3 => "mp3",
            Self::Flac => "flac",
        }
    }
}

/// The RFC 6381 name of a track for `CODECS` and for Media Source Extensions, made from the track's
/// own configuration record and never from what metadata claims.
///
/// # Errors
/// When the record cannot be read, or the codec is not carried.
pub fn rfc6381(track: &Track) -> Result<String, Error> {
    match track.codec {
        Codec::Avc => avc::rfc6381(&track.config),
        Codec::Aac => aac::rfc6381(&track.config),
        other => Err(Error::Unsupported { what: "codec string", name: other.name().into() }),
    }
}
