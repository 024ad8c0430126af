//! RTMP messages: what a chunk stream carries, and how many bytes each kind may have.
//!
//! Source: Adobe "RTMP 1.0" (2012) sections 5.4, 6.2 and 7.1.

use bytes::Bytes;

/// Message type ids.
pub mod kind {
    /// Protocol control: the sender's chunk size (5.4.1).
    pub const SET_CHUNK_SIZE: u8 = 1;
    /// Protocol control: forget a partly sent message (5.4.2).
    pub const ABORT: u8 = 2;
    /// Protocol control: bytes received so far (5.4.3).
    pub const ACKNOWLEDGEMENT: u8 = 3;
    /// User control events, among them ping (6.2, 7.1.7).
    pub const USER_CONTROL: u8 = 4;
    /// Protocol control: how often to acknowledge (5.4.4).
    pub const WINDOW_ACK_SIZE: u8 = 5;
    /// Protocol control: how much may be unacknowledged (5.4.5).
    pub const SET_PEER_BANDWIDTH: u8 = 6;
    /// Audio (7.1.4).
    pub const AUDIO: u8 = 8;
    /// Video (7.1.5).
    pub const VIDEO: u8 = 9;
    /// Data in AMF3 (7.1.2): one byte more, then AMF0 in practice.
    pub const DATA_AMF3: u8 = 15;
    /// Command in AMF3 (7.1.1): one byte more, then AMF0 in practice.
    pub const COMMAND_AMF3: u8 = 17;
    /// Data in AMF0 (7.1.2).
    pub const DATA_AMF0: u8 = 18;
    /// Command in AMF0 (7.1.1).
    pub const COMMAND_AMF0: u8 = 20;
    /// Several messages in one (7.1.6).
    pub const AGGREGATE: u8 = 22;
}

/// A whole message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The sender's time in milliseconds, modulo 2^32, as it came.
    pub timestamp_ms: u32,
    /// What it is, see [`kind`].
    pub kind: u8,
    /// The message stream it belongs to; 0 is the connection itself.
    pub stream_id: u32,
    /// Its body, in a buffer of its own.
    pub payload: Bytes,
}

/// How much a peer may send and make us hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest video or aggregate message in bytes.
    pub video_bytes: usize,
    /// Largest audio message in bytes.
    pub audio_bytes: usize,
    /// Largest message of any other kind in bytes: commands, data, control.
    pub other_bytes: usize,
    /// Largest sum of the buffers of messages not yet whole, in bytes.
    pub partial_bytes: usize,
}

impl Limits {
    /// Before a publish is accepted: a peer without credentials costs at most 64 KiB, of which this
    /// is the part for messages.
    pub const STRANGER: Self = Self {
        video_bytes: 16 * 1024,
        audio_bytes: 16 * 1024,
        other_bytes: 16 * 1024,
        partial_bytes: 32 * 1024,
    };

    /// While publishing. A key frame of 8 MiB would be 60 Mbit of one picture.
    pub const PUBLISHER: Self = Self {
        video_bytes: 8 * 1024 * 1024,
        audio_bytes: 64 * 1024,
        other_bytes: 16 * 1024,
        partial_bytes: 16 * 1024 * 1024,
    };

    /// The name and the size limit of messages of this kind.
    pub(crate) fn of(&self, kind: u8) -> (&'static str, usize) {
        match kind {
            kind::VIDEO => ("video message bytes", self.video_bytes),
            kind::AGGREGATE => ("aggregate message bytes", self.video_bytes),
            kind::AUDIO => ("audio message bytes", self.audio_bytes),
            _ => ("command or data message bytes", self.other_bytes),
        }
    }
}
