//! The client side of WebSocket as far as a viewer of FLV needs it (RFC 6455).
//!
//! In: bytes after the upgrade. Out: the payloads of binary frames. It never speaks, so that it must
//! not be pinged for an answer: media servers see a viewer's life in what it takes.

use bytes::{Buf, Bytes, BytesMut};

use super::Trouble;

/// The head lines that ask for the upgrade. The key is the one of RFC 6455, 1.3: no secret.
pub(super) const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// The largest frame taken.
const MAX_FRAME_BYTES: u64 = 64 * 1024 * 1024;

const CONTINUATION: u8 = 0;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;

/// Takes frames apart as they come.
#[derive(Debug, Default)]
pub(super) struct Frames(BytesMut);

impl Frames {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The payload of the next media frame; none when more bytes are needed.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, Trouble> {
        while let Some([first, second]) = self.0.first_chunk().copied() {
            let (head, length) = match second {
                126 => (4, self.0.get(2..4).map(|mut b| u64::from(b.get_u16()))),
                127 => (10, self.0.get(2..10).map(|mut b| b.get_u64())),
                short if short < 126 => (2, Some(u64::from(short))),
                _ => return Err(Trouble::Media("a masked frame from the server".into())),
            };
            let Some(length) = length else { break };
            if length > MAX_FRAME_BYTES {
                return Err(Trouble::Media(format!("a WebSocket frame of {length} bytes")));
            }
            let length = length as usize;
            if self.0.len() < head + length {
                break;
            }
            self.0.advance(head);
            let payload = self.0.split_to(length).freeze();
            match first & 0x0f {
                CONTINUATION | BINARY => return Ok(Some(payload)),
                CLOSE => return Err(Trouble::Ended),
                _ => {}
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_length_come_out_whole() {
        let mut stream = Vec::new();
        for length in [0_usize, 125, 126, 65_535, 65_536] {
            stream.push(0x82);
            match length {
                0..126 => stream.push(length as u8),
                126..65_536 => {
                    stream.push(126);
                    stream.extend((length as u16).to_be_bytes());
                }
                _ => {
                    stream.push(127);
                    stream.extend((length as u64).to_be_bytes());
                }
            }
            stream.resize(stream.len() + length, 7);
            stream.extend([0x89, 0]);
        }
        let mut frames = Frames::default();
        let mut lengths = Vec::new();
        for piece in stream.chunks(1000) {
            frames.push(piece);
            while let Some(payload) = frames.next().unwrap() {
                lengths.push(payload.len());
            }
        }
        assert_eq!(lengths, [0, 125, 126, 65_535, 65_536]);
        frames.push(&[0x88, 2, 0x0f, 0xa8]);
        assert!(matches!(frames.next(), Err(Trouble::Ended)));
    }

    #[test]
    fn declared_lengths_do_not_allocate() {
        let mut frames = Frames::default();
        frames.push(&[0x82, 127, 0x7f, 0, 0, 0, 0, 0, 0, 0]);
        assert!(frames.next().is_err());
        let mut frames = Frames::default();
        frames.push(&[0x82, 0x85]);
        assert!(frames.next().is_err(), "servers do not mask");
    }
}
