//! What the home says about its stream: the only source of numbers, durations and names.
//!
//! In: entries from the [`crate::segmenter`] (at the home) or from the control stream (everywhere else).
//! Out: a [`Manifest`], the accumulated state that [`crate::playlist`] and [`crate::fmp4`] render.
//! Everything an edge prints comes from here, so equal manifests give equal bytes on every edge.
//!
//! Pure state: applying the same entries in the same order gives the same manifest. Bytes live in
//! [`crate::feed`].

mod codec;
mod state;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use codec::{MANIFEST_VERSION, MAX_ENTRY_BYTES, decode, encode};
pub use state::{
    ApplyError, MAX_CONFIGS, MAX_PARTS_PER_SEGMENT, MAX_SEGMENTS, Manifest, PartMeta, SegmentMeta,
    Status,
};

use crate::track::{Track, TrackId};

/// The Raft log index of the grant under which a home serves a room; unique for ever, only goes up.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Epoch(pub u64);

/// Media sequence number: counts the segments of a room; consecutive within a playlist, never down.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Msn(pub u64);

/// Part number: one counter through the whole stream, so that a preload hint's name stays right at
/// the end of a segment.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct PartNumber(pub u64);

impl std::fmt::Display for Epoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
impl std::fmt::Display for Msn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
impl std::fmt::Display for PartNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Msn {
    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl PartNumber {
    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// The version of the exact bytes this build renders for playlists, init segments and parts.
pub const RENDER_VERSION: u16 = 1;

/// What is true of the room as a whole; replaced whole when the home revises it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The epoch the home serves under. Entries that follow belong to it.
    pub epoch: Epoch,
    /// The placement generation of the room; a viewer never sees it.
    pub generation: u64,
    /// Which bytes renderers must produce, see [`RENDER_VERSION`].
    pub render_version: u16,
    /// Frozen when the room's first segment closes; `None` before, when no media playlist exists.
    pub constants: Option<Constants>,
    /// Peak bits per second of any segment so far, the `BANDWIDTH` of the multivariant playlist.
    pub bandwidth_bps: u64,
    /// Mean bits per second, the `AVERAGE-BANDWIDTH`.
    pub average_bandwidth_bps: u64,
    /// Frames per 1000 seconds of the video track (29,970 for 29.97), `None` without video or
    /// when the rate varies.
    pub frame_rate_milli: Option<u32>,
}

/// The constants of a room's playlist (RFC 8216bis sections 4.4.3.1, 4.4.3.7, 4.4.3.8): they never
/// change over the life of the playlist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constants {
    /// `EXT-X-TARGETDURATION` in seconds.
    pub target_duration_s: u32,
    /// `PART-TARGET` in milliseconds. `PART-HOLD-BACK` is three times it.
    pub part_target_ms: u32,
}

/// A set of tracks with their decoder configurations: what one init segment is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Counts the configurations of a room under one epoch, from 1.
    pub id: u32,
    /// The tracks in the order of [`TrackId`]; at most one of each.
    pub tracks: Vec<Track>,
}

impl Config {
    /// The track with this id, if the room has it.
    #[must_use]
    pub fn track(&self, id: TrackId) -> Option<&Track> {
        self.tracks.iter().find(|t| t.id == id)
    }
}

/// A time on the clock of each track, in that track's ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackTimes {
    /// Ticks of the video track, when there is one.
    pub video: Option<u64>,
    /// Ticks of the audio track, when there is one.
    pub audio: Option<u64>,
}

impl TrackTimes {
    /// The time on the clock of `track`.
    #[must_use]
    pub fn get(&self, track: TrackId) -> Option<u64> {
        match track {
            TrackId::Video => self.video,
            TrackId::Audio => self.audio,
        }
    }

    /// Sets the time on the clock of `track`.
    pub fn set(&mut self, track: TrackId, ticks: u64) {
        match track {
            TrackId::Video => self.video = Some(ticks),
            TrackId::Audio => self.audio = Some(ticks),
        }
    }
}

/// One thing the home says. The order of entries is the order of events at the home.
///
/// The discriminants are part of manifest version 1: append only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Entry {
    /// Replaces the room header: first entry of every stream, then at each revision.
    Header(Header),
    /// Introduces a configuration that later segments name.
    Config(Config),
    /// Opens the next segment. At most one segment is open.
    Open(SegmentOpen),
    /// Ends a part of the open segment.
    Part(PartEnd),
    /// Closes the open segment. Parts cover all its frames.
    Close(SegmentClose),
    /// The listed window now starts here; what is before it has left the playlist.
    Window(WindowStart),
    /// The publisher has gone and its grace time runs; the open segment was closed.
    Grace,
    /// The publisher is back; the next segment carries a discontinuity where one is needed.
    Resumed,
    /// The stream is over: `EXT-X-ENDLIST`. Nothing follows.
    End,
    /// A later home took the stream over and ends here the segment that the home before it left
    /// open. What the earlier home said beyond is void.
    Seal(SegmentSeal),
    /// Where the publisher's messages were at the end of the newest part. A reader of the stream has
    /// no use for it; a home that takes the stream over goes on by it.
    Mark(Mark),
}

/// The start of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentOpen {
    /// Its number: the last one plus one.
    pub msn: Msn,
    /// The epoch its names carry; segments taken over from an earlier home keep theirs.
    pub epoch: Epoch,
    /// The configuration its samples need.
    pub config: u32,
    /// Whether `EXT-X-DISCONTINUITY` stands before it.
    pub discontinuity: bool,
    /// Wall time of its first sample in milliseconds since the Unix epoch, by the anchor of its
    /// discontinuity and the timeline: never an edge's clock.
    pub pdt_ms: u64,
    /// Where it starts on each track's clock.
    pub start: TrackTimes,
    /// The number its first part will have.
    pub first_part: PartNumber,
}

/// The end of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartEnd {
    /// The segment it belongs to: the open one.
    pub msn: Msn,
    /// Its number: the last one plus one.
    pub part: PartNumber,
    /// How many frames of the segment precede the end of this part, this part's own included. The
    /// part is whole when the segment's first `frames_end` frames have arrived.
    pub frames_end: u32,
    /// Its duration in 90 kHz ticks, never over PART-TARGET.
    pub duration: u32,
    /// Whether it contains a frame at which decoding can start (`INDEPENDENT=YES`).
    pub independent: bool,
    /// Where it ends on the clock of each track it has samples of; the sample durations of the last
    /// frames follow from it.
    pub end: TrackTimes,
}

/// The end of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentClose {
    /// The segment that was open.
    pub msn: Msn,
    /// Its `EXTINF` in 90 kHz ticks.
    pub duration: u32,
}

/// The end of a segment by another home than the one that opened it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentSeal {
    /// The segment.
    pub msn: Msn,
    /// The epoch of the home that ends it. The whole segment's name carries it, because under the
    /// epoch that opened it an edge may have shown a longer one; its parts keep their names.
    pub epoch: Epoch,
    /// Its `EXTINF` in 90 kHz ticks.
    pub duration: u32,
    /// One past its last part.
    pub next_part: PartNumber,
}

/// Where the publisher's messages were at the end of a part: enough for another home to place the
/// message after it as the home that said this would have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The part: the newest one.
    pub part: PartNumber,
    /// Names the push; chosen at random by the node that the publisher is connected to.
    pub publish: u64,
    /// The last video message up to the end of the part.
    pub video: Option<TrackMark>,
    /// The last audio message up to the end of the part.
    pub audio: Option<TrackMark>,
    /// The grid that video stamps snap to, if they do.
    pub grid: Option<GridMark>,
}

/// The last message of a track in a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackMark {
    /// Which message of the push it was, counting all messages from 0.
    pub piece: u64,
    /// The publisher's stamp: milliseconds modulo 2^32.
    pub stamp_ms: u32,
    /// Where that stamp lies in the room, in 90 kHz ticks.
    pub position: i64,
    /// The decode time the frame was given, in ticks of the track.
    pub dts: u64,
}

/// The grid of a nominal frame rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GridMark {
    /// Frames per 1000 seconds.
    pub rate_milli: u32,
    /// Where stamps lie about the grid through the last frame, in quarters of a 90 kHz tick.
    pub phase: i64,
    /// Ticks by which the grid is still to be moved after stamps that drifted.
    pub slew: i64,
}

/// Where the listed window starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowStart {
    /// `EXT-X-MEDIA-SEQUENCE`.
    pub first: Msn,
    /// `EXT-X-DISCONTINUITY-SEQUENCE`.
    pub discontinuity_sequence: u64,
}

/// Identifies the newest published part: what resume and blocking reload compare.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Head {
    /// Epoch of the home that said so.
    pub epoch: Epoch,
    /// The newest segment with a published part.
    pub msn: Msn,
    /// How many parts of it are published.
    pub parts: u32,
}

/// The bytes of an encoded entry, as the wire carries them.
pub type EncodedEntry = Bytes;
