//! The chunk stream: bytes of a connection to whole messages, for a peer that is not trusted.
//!
//! In: bytes as they arrive, split anywhere. Out: [`Message`]s, each copied once into a buffer of
//! its own. Set Chunk Size and Abort concern this layer only and are applied here; all other
//! messages go to the [session](super::session). [`Writer`] is the way back.
//!
//! Every chunk stream reassembles for itself, so messages may interleave. Buffers grow by what was
//! received, never by what was declared. Source: Adobe "RTMP 1.0" (2012) section 5.3.

mod writer;

use bytes::Bytes;

pub use writer::Writer;

use super::{
    Error,
    message::{Limits, Message, kind},
};

/// The chunk size both sides start with (section 5.4.1).
pub const INITIAL_CHUNK_BYTES: usize = 128;
/// The largest chunk size a peer may set. The specification allows 2^31−1; no encoder goes beyond
/// 64 KiB, and a chunk holds up whatever is to come after it.
pub const MAX_CHUNK_BYTES: usize = 64 * 1024;
/// How many chunk streams a peer may use: encoders use up to 8, one more per additional track.
pub const MAX_CHUNK_STREAMS: usize = 16;
/// How many messages may be incomplete at a time.
pub const MAX_PARTIAL_MESSAGES: usize = 4;

/// The longest chunk header: basic 3, message 11, extended timestamp 4 (section 5.3.1).
const MAX_HEADER_BYTES: usize = 18;
/// In the 24-bit field of a header: the time follows in 32 bits (section 5.3.1.3).
const EXTENDED: u32 = 0xff_ffff;
/// The name used in errors.
const WHAT: &str = "chunk stream";

/// Reassembles messages.
#[derive(Debug)]
pub struct Reader {
    limits: Limits,
    chunk_bytes: usize,
    streams: Vec<ChunkStream>,
    /// Sum of the capacities of all partial messages.
    partial_bytes: usize,
    /// Bytes that were received but are not yet understood: the start of a header.
    stash: [u8; MAX_HEADER_BYTES],
    stashed: usize,
    /// The chunk whose payload is being received.
    open: Option<OpenChunk>,
}

#[derive(Debug, Clone, Copy)]
struct OpenChunk {
    /// Index into `streams`.
    stream: usize,
    /// Payload bytes still to come.
    left: usize,
}

/// What is remembered of a chunk stream: the last header, for those that leave parts out, and the
/// message in the making.
#[derive(Debug)]
struct ChunkStream {
    id: u32,
    /// Time of the current message.
    timestamp_ms: u32,
    /// The last time field, absolute or delta: a header that has none repeats it.
    field: u32,
    /// Whether that field was an extended one, so that headers without a field repeat it too.
    extended: bool,
    length: usize,
    kind: u8,
    stream_id: u32,
    /// `Some` while a message is incomplete.
    partial: Option<Vec<u8>>,
}

/// A chunk header as it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    chunk_stream: u32,
    /// What the time field says and whether it was extended; `None` in a header of type 3 without.
    time: Option<(u32, bool)>,
    /// Length and type, in headers of type 0 and 1.
    shape: Option<(usize, u8)>,
    /// Message stream id, in headers of type 0.
    stream_id: Option<u32>,
}

impl Reader {
    /// A reader for a connection that just finished its handshake.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            chunk_bytes: INITIAL_CHUNK_BYTES,
            streams: Vec::new(),
            partial_bytes: 0,
            stash: [0; MAX_HEADER_BYTES],
            stashed: 0,
            open: None,
        }
    }

    /// Changes the limits for messages that start from now on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Bytes held for incomplete messages.
    #[must_use]
    pub fn partial_bytes(&self) -> usize {
        self.partial_bytes
    }

    /// Takes bytes off the front of `input` until a message is whole or `input` is used up.
    ///
    /// # Errors
    /// [`Error::Protocol`] or [`Error::TooLarge`]; the connection is then of no more use.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Message>, Error> {
        loop {
            let index = match self.open.take() {
                Some(open) => {
                    let Some(index) = self.payload(open, input)? else { return Ok(None) };
                    index
                }
                None => {
                    let Some(header) = self.header(input)? else { return Ok(None) };
                    self.begin(header)?
                }
            };
            let stream = &self.streams[index];
            if self.open.is_some() || stream.received() < stream.length {
                continue;
            }
            let message = self.complete(index);
            match message.kind {
                kind::SET_CHUNK_SIZE => self.set_chunk_size(&message.payload)?,
                kind::ABORT => self.abort(&message.payload)?,
                _ => return Ok(Some(message)),
            }
        }
    }

    /// Reads a header off the stash and the input, or stashes what there is of it.
    fn header(&mut self, input: &mut &[u8]) -> Result<Option<Header>, Error> {
        let before = self.stashed;
        let taken = input.len().min(MAX_HEADER_BYTES - before);
        self.stash[before..before + taken].copy_from_slice(&input[..taken]);
        let available = before + taken;
        let Some((header, used)) = self.parse(&self.stash[..available])? else {
            self.stashed = available;
            *input = &input[taken..];
            return Ok(None);
        };
        // A header may turn out shorter than what was stashed for it (see `repeats_time`): the rest
        // of the stash is then payload.
        if used < before {
            self.stash.copy_within(used..before, 0);
        }
        self.stashed = before.saturating_sub(used);
        *input = &input[used.saturating_sub(before)..];
        Ok(Some(header))
    }

    /// Reads the header at the start of `bytes` and says how long it is; `None` if more is needed.
    fn parse(&self, bytes: &[u8]) -> Result<Option<(Header, usize)>, Error> {
        let mut cursor = Cursor { bytes, at: 0 };
        Ok(self.parse_from(&mut cursor)?.map(|header| (header, cursor.at)))
    }

    fn parse_from(&self, cursor: &mut Cursor<'_>) -> Result<Option<Header>, Error> {
        let Some([first]) = cursor.take() else { return Ok(None) };
        let chunk_stream = match first & 0x3f {
            0 => {
                let Some([low]) = cursor.take() else { return Ok(None) };
                u32::from(low) + 64
            }
            1 => {
                let Some(bytes) = cursor.take() else { return Ok(None) };
                u32::from(u16::from_le_bytes(bytes)) + 64
            }
            id => u32::from(id),
        };
        let mut header = Header { chunk_stream, time: None, shape: None, stream_id: None };
        let format = first >> 6;
        if format == 3 {
            return self.parse_time_of_type_3(header, cursor);
        }
        let Some(time) = cursor.take_u24() else { return Ok(None) };
        if format <= 1 {
            let Some(length) = cursor.take_u24() else { return Ok(None) };
            let Some([kind]) = cursor.take() else { return Ok(None) };
            header.shape = Some((length as usize, kind));
        }
        if format == 0 {
            // The only little-endian field of RTMP (section 5.3.1.2.1).
            let Some(id) = cursor.take() else { return Ok(None) };
            header.stream_id = Some(u32::from_le_bytes(id));
        }
        header.time = Some((time, false));
        if time == EXTENDED {
            let Some(time) = cursor.take() else { return Ok(None) };
            header.time = Some((u32::from_be_bytes(time), true));
        }
        Ok(Some(header))
    }

    /// A header of type 3 repeats an extended time field (section 5.3.1.3), but some encoders leave
    /// it out of chunks that go on with a message. Inside a message the field can only be the
    /// repetition, so four other bytes there are payload.
    fn parse_time_of_type_3(
        &self,
        mut header: Header,
        cursor: &mut Cursor<'_>,
    ) -> Result<Option<Header>, Error> {
        let Some(stream) = self.streams.iter().find(|stream| stream.id == header.chunk_stream)
        else {
            return Err(Error::protocol(
                WHAT,
                format!("{} starts with a header of type 3", header.chunk_stream),
            ));
        };
        if stream.extended {
            let start = cursor.at;
            let Some(time) = cursor.take() else { return Ok(None) };
            let time = u32::from_be_bytes(time);
            if stream.partial.is_some() && time != stream.field {
                cursor.at = start;
            } else {
                header.time = Some((time, true));
            }
        }
        Ok(Some(header))
    }

    /// Applies a header and opens its chunk. Returns the index of the stream.
    fn begin(&mut self, header: Header) -> Result<usize, Error> {
        let index = match self.streams.iter().position(|s| s.id == header.chunk_stream) {
            Some(index) => index,
            None => self.add_stream(header)?,
        };
        let incomplete = self.streams.iter().filter(|stream| stream.partial.is_some()).count();
        let stream = &mut self.streams[index];
        if stream.partial.is_some() {
            stream.check_continues(header)?;
        } else {
            stream.start(header);
            let (what, limit) = self.limits.of(stream.kind);
            if stream.length > limit {
                return Err(Error::too_large(what, stream.length, limit));
            }
            if incomplete >= MAX_PARTIAL_MESSAGES {
                return Err(Error::too_large(
                    "incomplete messages",
                    incomplete + 1,
                    MAX_PARTIAL_MESSAGES,
                ));
            }
            stream.partial = Some(Vec::new());
        }
        let left = self.chunk_bytes.min(stream.length - stream.received());
        if left > 0 {
            self.open = Some(OpenChunk { stream: index, left });
        }
        Ok(index)
    }

    /// The first header on a chunk stream must be whole; librtmp begins one with type 1, which can
    /// only mean stream 0 and a time counted from 0.
    fn add_stream(&mut self, header: Header) -> Result<usize, Error> {
        if header.shape.is_none() {
            return Err(Error::protocol(
                WHAT,
                format!("{} starts with a header of type 2", header.chunk_stream),
            ));
        }
        let found = self.streams.len() + 1;
        if found > MAX_CHUNK_STREAMS {
            return Err(Error::too_large("chunk streams", found, MAX_CHUNK_STREAMS));
        }
        self.streams.push(ChunkStream {
            id: header.chunk_stream,
            timestamp_ms: 0,
            field: 0,
            extended: false,
            length: 0,
            kind: 0,
            stream_id: 0,
            partial: None,
        });
        Ok(found - 1)
    }

    /// Moves payload into the message. Returns the stream once the chunk is whole.
    fn payload(&mut self, open: OpenChunk, input: &mut &[u8]) -> Result<Option<usize>, Error> {
        let OpenChunk { stream: index, mut left } = open;
        if self.stashed > 0 {
            let taken = left.min(self.stashed);
            let stash = self.stash;
            self.append(index, &stash[..taken])?;
            self.stash.copy_within(taken..self.stashed, 0);
            self.stashed -= taken;
            left -= taken;
        }
        let taken = left.min(input.len());
        self.append(index, &input[..taken])?;
        *input = &input[taken..];
        left -= taken;
        if left > 0 {
            self.open = Some(OpenChunk { stream: index, left });
            return Ok(None);
        }
        Ok(Some(index))
    }

    fn append(&mut self, index: usize, bytes: &[u8]) -> Result<(), Error> {
        let stream = &mut self.streams[index];
        let length = stream.length;
        let Some(partial) = stream.partial.as_mut() else { return Ok(()) };
        let needed = partial.len() + bytes.len();
        let before = partial.capacity();
        if needed > before {
            // Double what was received, but never beyond the message: what is frozen in the end
            // has no slack.
            let target = (2 * partial.len()).max(needed).min(length);
            let held = self.partial_bytes - before + target;
            if held > self.limits.partial_bytes {
                return Err(Error::too_large(
                    "bytes of incomplete messages",
                    held,
                    self.limits.partial_bytes,
                ));
            }
            partial.reserve_exact(target - partial.len());
            self.partial_bytes += partial.capacity() - before;
        }
        partial.extend_from_slice(bytes);
        Ok(())
    }

    fn complete(&mut self, index: usize) -> Message {
        let stream = &mut self.streams[index];
        let payload = stream.partial.take().unwrap_or_default();
        self.partial_bytes -= payload.capacity();
        Message {
            timestamp_ms: stream.timestamp_ms,
            kind: stream.kind,
            stream_id: stream.stream_id,
            payload: Bytes::from(payload),
        }
    }

    fn set_chunk_size(&mut self, payload: &[u8]) -> Result<(), Error> {
        let size = first_u32("set chunk size", payload)? as usize;
        if size == 0 {
            return Err(Error::protocol("set chunk size", "0 bytes; at least 1 is needed"));
        }
        if size > MAX_CHUNK_BYTES {
            return Err(Error::too_large("chunk size", size, MAX_CHUNK_BYTES));
        }
        self.chunk_bytes = size;
        Ok(())
    }

    fn abort(&mut self, payload: &[u8]) -> Result<(), Error> {
        let id = first_u32("abort", payload)?;
        let stream = self.streams.iter_mut().find(|stream| stream.id == id);
        if let Some(partial) = stream.and_then(|stream| stream.partial.take()) {
            self.partial_bytes -= partial.capacity();
        }
        Ok(())
    }
}

impl ChunkStream {
    fn received(&self) -> usize {
        self.partial.as_ref().map_or(0, Vec::len)
    }

    /// Takes over what the first header of a message says.
    fn start(&mut self, header: Header) {
        if let Some((field, extended)) = header.time {
            self.field = field;
            self.extended = extended;
        }
        if let Some((length, kind)) = header.shape {
            self.length = length;
            self.kind = kind;
        }
        match header.stream_id {
            Some(stream_id) => {
                self.stream_id = stream_id;
                self.timestamp_ms = self.field;
            }
            // Also after a header of type 0: its time is then the delta (section 5.3.1.2.4).
            None => self.timestamp_ms = self.timestamp_ms.wrapping_add(self.field),
        }
    }

    /// Inside a message the header should be of type 3, but some encoders repeat a fuller one. It
    /// must then be about the same message.
    fn check_continues(&self, header: Header) -> Result<(), Error> {
        match header.shape {
            Some(shape) if shape != (self.length, self.kind) => Err(Error::protocol(
                WHAT,
                format!("{} starts a message inside another one", self.id),
            )),
            _ => Ok(()),
        }
    }
}

/// Reads a header piece by piece; every read says whether the bytes are there yet.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = self.bytes.get(self.at..)?.first_chunk()?;
        self.at += N;
        Some(*bytes)
    }

    fn take_u24(&mut self) -> Option<u32> {
        let [high, middle, low] = self.take()?;
        Some(u32::from_be_bytes([0, high, middle, low]))
    }
}

/// The 32-bit field that a control message starts with.
pub(super) fn first_u32(what: &'static str, payload: &[u8]) -> Result<u32, Error> {
    match payload.first_chunk() {
        Some(bytes) => Ok(u32::from_be_bytes(*bytes)),
        None => Err(Error::protocol(what, format!("{} bytes; 4 are needed", payload.len()))),
    }
}

#[cfg(test)]
mod tests;
