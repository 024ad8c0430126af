//! A frame: one video access unit or one audio frame on the room's timeline.

use bytes::Bytes;

use crate::track::TrackId;

/// One coded access unit with its place on the room's timeline.
///
/// The payload is container-neutral: length-prefixed NAL units for AVC (as in FLV and MP4), one raw
/// access unit for AAC. It is a view into the buffer the publisher's message was reassembled in, and
/// cloning a frame copies no media.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The track it belongs to.
    pub track: TrackId,
    /// Decode time in ticks of the track's timescale; 0 is the room's activation.
    pub dts: u64,
    /// Presentation time minus decode time, in ticks of the track's timescale.
    pub cts: i32,
    /// Whether decoding can start here: an IDR (or CRA, BLA, AV1 key frame) by the frame's own
    /// bytes, not by the publisher's flag. Always true for audio.
    pub key: bool,
    /// The coded bytes.
    pub payload: Bytes,
}
