//! A track: one elementary stream of a room, with the codec configuration its decoder needs.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::Codec;

/// Which track of the room a frame belongs to. A room has at most one video and one audio track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TrackId {
    /// The video track; its timescale is always [`VIDEO_TIMESCALE`].
    Video,
    /// The audio track; its timescale is its sample rate.
    Audio,
}

/// Ticks per second of every video track, and of every duration in the manifest.
///
/// 90 kHz is the MPEG system clock divided by 300 (ISO/IEC 13818-1, 2.4.2.1); it divides evenly by
/// 24, 25, 30 and 60 fps.
pub const VIDEO_TIMESCALE: u32 = 90_000;

/// One elementary stream and its decoder configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Track {
    /// Which of the room's tracks this is.
    pub id: TrackId,
    /// The codec of its frames.
    pub codec: Codec,
    /// Ticks per second of its frames' `dts` and `pts`.
    pub timescale: u32,
    /// The codec configuration record: `AVCDecoderConfigurationRecord` (ISO/IEC 14496-15, 5.3.3.1)
    /// for AVC, `AudioSpecificConfig` (ISO/IEC 14496-3, 1.6.2.1) for AAC.
    pub config: Bytes,
    /// What the configuration says, parsed once at the home.
    pub params: Params,
}

/// What players and playlists need to know of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Params {
    /// Picture size in luma samples after cropping.
    Video {
        /// Width in pixels.
        width: u16,
        /// Height in pixels.
        height: u16,
    },
    /// Audio layout.
    Audio {
        /// Output sample rate in Hz.
        sample_rate: u32,
        /// Number of channels.
        channels: u8,
        /// Samples per frame, for example 1024 for AAC-LC.
        frame_samples: u16,
    },
}
