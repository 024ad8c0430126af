//! Takes an FLV stream apart into tags (FLV, E.2 to E.4.1).
//!
//! In: the bytes of an FLV stream in any split, from our own edges (the load generator, tests) or from
//! files. Out: the stream's flags and its tags. Bodies are views into the bytes given.

use bytes::{Buf, Bytes, BytesMut};

use super::TagKind;
use crate::error::Error;

/// The largest tag accepted: as the largest RTMP message.
pub const MAX_TAG_BYTES: usize = 8 * 1024 * 1024;

const STREAM: &str = "FLV stream";

/// File header and the first previous-tag size.
const FILE_HEADER_LEN: usize = 13;
const TAG_HEADER_LEN: usize = 11;
const PREVIOUS_TAG_SIZE_LEN: usize = 4;

/// One tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// What it carries.
    pub kind: TagKind,
    /// Its time in milliseconds, modulo 2^32.
    pub timestamp_ms: u32,
    /// Its body, for [`super::video::parse`], [`super::audio::parse`] or [`crate::amf0`].
    pub body: Bytes,
}

/// What the file header claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileHeader {
    /// Audio tags are present.
    pub audio: bool,
    /// Video tags are present.
    pub video: bool,
}

/// Reads a stream incrementally. It holds at most one unfinished tag.
#[derive(Debug, Default)]
pub struct Reader {
    buffer: BytesMut,
    header: Option<FileHeader>,
}

impl Reader {
    /// A reader at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends bytes of the stream. Take all tags out with [`Self::next_tag`] before the next push:
    /// only then is the buffer bounded.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The file header, once it was read.
    #[must_use]
    pub fn header(&self) -> Option<FileHeader> {
        self.header
    }

    /// The next whole tag; `None` when more bytes are needed.
    ///
    /// # Errors
    /// When the bytes are no FLV, a tag is over [`MAX_TAG_BYTES`], or a previous-tag size is wrong.
    /// The stream cannot be read on then.
    pub fn next_tag(&mut self) -> Result<Option<Tag>, Error> {
        if self.header.is_none() && !self.read_header()? {
            return Ok(None);
        }
        let Some(head) = self.buffer.first_chunk::<TAG_HEADER_LEN>() else {
            return Ok(None);
        };
        let [kind, s0, s1, s2, t0, t1, t2, t3, ..] = *head;
        let kind = TagKind::from_byte(kind)
            .ok_or_else(|| Error::invalid(STREAM, format!("tag type {kind}")))?;
        let len = u32::from_be_bytes([0, s0, s1, s2]) as usize;
        if len > MAX_TAG_BYTES {
            return Err(Error::TooLarge {
                what: "FLV tag bytes",
                found: len as u64,
                limit: MAX_TAG_BYTES as u64,
            });
        }
        if self.buffer.len() < TAG_HEADER_LEN + len + PREVIOUS_TAG_SIZE_LEN {
            return Ok(None);
        }
        self.buffer.advance(TAG_HEADER_LEN);
        let body = self.buffer.split_to(len).freeze();
        let previous = self.buffer.get_u32();
        if previous as usize != TAG_HEADER_LEN + len {
            let why = format!("previous tag size {previous} behind a tag of {len} bytes");
            return Err(Error::invalid(STREAM, why));
        }
        Ok(Some(Tag { kind, timestamp_ms: u32::from_be_bytes([t3, t0, t1, t2]), body }))
    }

    fn read_header(&mut self) -> Result<bool, Error> {
        let Some(head) = self.buffer.first_chunk::<FILE_HEADER_LEN>() else {
            return Ok(false);
        };
        let [b'F', b'L', b'V', 1, flags, 0, 0, 0, 9, 0, 0, 0, 0] = *head else {
            return Err(Error::invalid(STREAM, "no FLV version 1 header"));
        };
        self.header = Some(FileHeader { audio: flags & 4 != 0, video: flags & 1 != 0 });
        self.buffer.advance(FILE_HEADER_LEN);
        Ok(true)
    }
}
