//! Messages to chunks: what we send to a peer.

use super::INITIAL_CHUNK_BYTES;
use crate::rtmp::message::kind;

/// Writes messages as chunks, every message with a full header, which all peers understand.
#[derive(Debug)]
pub struct Writer {
    chunk_bytes: usize,
}

impl Default for Writer {
    fn default() -> Self {
        Self { chunk_bytes: INITIAL_CHUNK_BYTES }
    }
}

impl Writer {
    /// Appends a Set Chunk Size message and uses that size from then on. `chunk_bytes` is 1 or more.
    pub fn set_chunk_size(&mut self, out: &mut Vec<u8>, chunk_bytes: u32) {
        self.write(out, 2, 0, kind::SET_CHUNK_SIZE, 0, &chunk_bytes.to_be_bytes());
        self.chunk_bytes = chunk_bytes.max(1) as usize;
    }

    /// Appends a message on chunk stream `chunk_stream` (2 to 63).
    pub fn write(
        &self,
        out: &mut Vec<u8>,
        chunk_stream: u8,
        timestamp_ms: u32,
        kind: u8,
        stream_id: u32,
        payload: &[u8],
    ) {
        let extended = timestamp_ms >= super::EXTENDED;
        let field = if extended { super::EXTENDED } else { timestamp_ms };
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        out.push(chunk_stream & 0x3f);
        out.extend_from_slice(&field.to_be_bytes()[1..]);
        out.extend_from_slice(&length.to_be_bytes()[1..]);
        out.push(kind);
        out.extend_from_slice(&stream_id.to_le_bytes());
        for (index, chunk) in payload.chunks(self.chunk_bytes).enumerate() {
            if index > 0 {
                out.push(0xc0 | (chunk_stream & 0x3f));
            }
            if extended {
                out.extend_from_slice(&timestamp_ms.to_be_bytes());
            }
            out.extend_from_slice(chunk);
        }
        if extended && payload.is_empty() {
            out.extend_from_slice(&timestamp_ms.to_be_bytes());
        }
    }
}
