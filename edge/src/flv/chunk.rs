//! A chunk: a run of FLV tags in one buffer, as every viewer of a room is sent it.
//!
//! The buffer has room for a WebSocket frame header before the tags, so that HTTP-FLV and WS-FLV
//! viewers are sent slices of the same bytes. A chunk starts at a key frame or contains none, and
//! never splits a tag: viewers join, skip and change configuration at chunk boundaries.

use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};
use media::Error;
use media::flv::writer;
use media::manifest::Config;
use tokio::time::Instant;

use crate::ws::frame::{self, MAX_HEADER_BYTES, Opcode};

/// How FLV bytes go to a viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// As they are: HTTP-FLV.
    Plain,
    /// In binary WebSocket frames.
    WebSocket,
}

/// A run of tags.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// Counts the chunks of a hub.
    pub(crate) sequence: u64,
    /// Whether decoding can start at its first frame.
    pub(crate) key: bool,
    /// What its tags need; viewers at another generation are sent its headers first.
    pub(crate) preamble: Arc<Preamble>,
    /// Timestamp of its first tag.
    timestamp_ms: u32,
    pub(crate) made: Instant,
    /// Bytes of all chunks of the hub up to the start of this one.
    pub(crate) offset: u64,
    framed: Framed,
    head: OnceLock<Framed>,
    headers: OnceLock<Framed>,
}

impl Chunk {
    pub(super) fn new(
        (sequence, offset): (u64, u64),
        (key, timestamp_ms): (bool, u32),
        preamble: Arc<Preamble>,
        made: Instant,
        framed: Framed,
    ) -> Self {
        Self {
            sequence,
            key,
            preamble,
            timestamp_ms,
            made,
            offset,
            framed,
            head: OnceLock::new(),
            headers: OnceLock::new(),
        }
    }

    /// Length of its tags.
    pub(crate) fn len(&self) -> usize {
        self.framed.len
    }

    /// Its tags.
    pub(crate) fn bytes(&self, framing: Framing) -> &Bytes {
        self.framed.get(framing)
    }

    /// What a viewer who begins with this chunk is sent before it: file header, metadata, sequence
    /// headers, at the chunk's timestamp.
    pub(crate) fn head(&self, framing: Framing) -> &Bytes {
        self.head.get_or_init(|| self.preamble.head(self.timestamp_ms)).get(framing)
    }

    /// The sequence headers alone, for a viewer whose configuration is another.
    pub(crate) fn headers(&self, framing: Framing) -> &Bytes {
        self.headers.get_or_init(|| self.preamble.headers(self.timestamp_ms)).get(framing)
    }
}

/// What players must be told before frames of a configuration.
#[derive(Debug)]
pub(crate) struct Preamble {
    /// Counts the configurations of a hub.
    pub(crate) generation: u64,
    pub(super) config: Arc<Config>,
    frame_rate_milli: Option<u32>,
}

impl Preamble {
    /// Checked here once, so that rendering it at any timestamp cannot fail.
    pub(super) fn new(
        generation: u64,
        config: Arc<Config>,
        frame_rate_milli: Option<u32>,
    ) -> Result<Self, Error> {
        let preamble = Self { generation, config, frame_rate_milli };
        let mut buffer = FrameBuffer::with_capacity(1024);
        writer::write_preamble(buffer.tags(), &preamble.config, frame_rate_milli, 0)?;
        Ok(preamble)
    }

    /// The head for a viewer who begins with whatever comes next.
    pub(super) fn head(&self, timestamp_ms: u32) -> Framed {
        let capacity = writer::preamble_len(&self.config, self.frame_rate_milli);
        let mut buffer = FrameBuffer::with_capacity(capacity);
        let written = writer::write_preamble(
            buffer.tags(),
            &self.config,
            self.frame_rate_milli,
            timestamp_ms,
        );
        debug_assert!(written.is_ok(), "checked in new");
        buffer.finish()
    }

    fn headers(&self, timestamp_ms: u32) -> Framed {
        let mut buffer = FrameBuffer::with_capacity(writer::sequence_headers_len(&self.config));
        let written = writer::write_sequence_headers(buffer.tags(), &self.config, timestamp_ms);
        debug_assert!(written.is_ok(), "checked in new");
        buffer.finish()
    }
}

/// Tags being written, with room before them.
#[derive(Debug)]
pub(super) struct FrameBuffer(BytesMut);

impl FrameBuffer {
    /// For this many bytes of tags.
    pub(super) fn with_capacity(capacity: usize) -> Self {
        let mut buffer = BytesMut::with_capacity(MAX_HEADER_BYTES + capacity);
        buffer.put_bytes(0, MAX_HEADER_BYTES);
        Self(buffer)
    }

    /// Where tags are appended.
    pub(super) fn tags(&mut self) -> &mut BytesMut {
        &mut self.0
    }

    /// Bytes of tags written.
    pub(super) fn len(&self) -> usize {
        self.0.len() - MAX_HEADER_BYTES
    }

    /// Puts the WebSocket header right before the tags.
    pub(super) fn finish(self) -> Framed {
        let Self(mut buffer) = self;
        let len = buffer.len() - MAX_HEADER_BYTES;
        let (header, header_len) = frame::header(Opcode::Binary, len);
        let start = MAX_HEADER_BYTES - header_len;
        buffer[start..MAX_HEADER_BYTES].copy_from_slice(&header[..header_len]);
        let buffer = buffer.freeze();
        Framed { len, plain: buffer.slice(MAX_HEADER_BYTES..), websocket: buffer.slice(start..) }
    }
}

/// The same tags for both kinds of viewer.
#[derive(Debug)]
pub(super) struct Framed {
    len: usize,
    plain: Bytes,
    websocket: Bytes,
}

impl Framed {
    pub(super) fn get(&self, framing: Framing) -> &Bytes {
        match framing {
            Framing::Plain => &self.plain,
            Framing::WebSocket => &self.websocket,
        }
    }
}
