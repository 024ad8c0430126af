//! Takes the server's WebSocket frames off a member's socket (RFC 6455, 5.2), for thousands of members at once.
//!
//! Pure. In: bytes as they were read, in a buffer that all members share. Out: whole frames. Memory is
//! held only while a frame is incomplete, and only for bytes that have come.

use crate::viewer::Trouble;

/// The largest frame taken: more than rooms send.
const MAX_FRAME_BYTES: usize = 1 << 20;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text or binary.
    Data,
    Ping,
    Pong,
    Close,
}

/// Cuts a stream of bytes into frames.
#[derive(Debug, Default)]
pub(super) struct Frames {
    partial: Vec<u8>,
}

impl Frames {
    /// Takes what has come; `take` is called with each whole frame.
    ///
    /// # Errors
    /// When it is no frame of a server, and as `take` says.
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(Kind, &[u8]) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        if self.partial.is_empty() {
            let rest = cut(bytes, &mut take)?;
            self.partial.extend_from_slice(rest);
            return Ok(());
        }
        self.partial.extend_from_slice(bytes);
        let left = cut(&self.partial, &mut take)?.len();
        let done = self.partial.len() - left;
        if left == 0 {
            // An idle member holds nothing.
            self.partial = Vec::new();
        } else {
            self.partial.drain(..done);
        }
        Ok(())
    }
}

/// Hands over whole frames from the front; returns what is left.
fn cut<'a>(
    mut bytes: &'a [u8],
    take: &mut impl FnMut(Kind, &[u8]) -> Result<(), Trouble>,
) -> Result<&'a [u8], Trouble> {
    while let Some((kind, head, length)) = header(bytes)? {
        let Some(payload) = bytes.get(head..head + length) else { break };
        take(kind, payload)?;
        bytes = &bytes[head + length..];
    }
    Ok(bytes)
}

/// What the frame at the front is, the length of its header and of its payload; none if more must come.
fn header(bytes: &[u8]) -> Result<Option<(Kind, usize, usize)>, Trouble> {
    let Some([first, second]) = bytes.first_chunk() else { return Ok(None) };
    let kind = match first & 0x0f {
        // Our servers send no fragments; another's would be counted piece by piece.
        0..=2 => Kind::Data,
        8 => Kind::Close,
        9 => Kind::Ping,
        10 => Kind::Pong,
        other => return Err(Trouble::Media(format!("a WebSocket frame of opcode {other}"))),
    };
    let (head, length) = match second {
        126 => (4, bytes.get(2..4).map(|b| usize::from(u16::from_be_bytes([b[0], b[1]])))),
        127 => (10, bytes.get(2..10).map(|b| b.iter().fold(0, |n, b| n << 8 | usize::from(*b)))),
        short @ 0..126 => (2, Some(usize::from(*short))),
        _ => return Err(Trouble::Media("a masked frame from the server".into())),
    };
    match length {
        Some(length) if length > MAX_FRAME_BYTES => {
            Err(Trouble::Media(format!("a WebSocket frame of {length} bytes")))
        }
        Some(length) => Ok(Some((kind, head, length))),
        None => Ok(None),
    }
}

/// A whole frame of a client's. The mask is zero: it guards proxies, of which there are none (RFC 6455, 10.3).
pub(super) fn masked(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match payload.len() {
        short @ 0..126 => out.push(0x80 | short as u8),
        length => {
            out.push(0x80 | 126);
            out.extend((length as u16).to_be_bytes());
        }
    }
    out.extend([0; 4]);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Vec<u8> {
        let mut stream = Vec::new();
        for length in [0_usize, 1, 125, 126, 65_535, 65_536] {
            stream.push(0x81);
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
        }
        stream.extend([0x89, 1, 5]);
        stream
    }

    #[test]
    fn frames_come_out_whole_however_they_are_read() {
        let stream = stream();
        for size in [1, 3, 1000, stream.len()] {
            let (mut frames, mut seen) = (Frames::default(), Vec::new());
            for piece in stream.chunks(size) {
                let taken = frames.push(piece, |kind, payload| {
                    seen.push((kind, payload.len()));
                    Ok(())
                });
                taken.unwrap();
            }
            let lengths = [0, 1, 125, 126, 65_535, 65_536].map(|length| (Kind::Data, length));
            assert_eq!(seen, [&lengths[..], &[(Kind::Ping, 1)]].concat(), "read by {size}");
            assert_eq!(frames.partial.capacity(), 0, "an idle member holds nothing");
        }
    }

    #[test]
    fn what_no_server_sends_is_refused() {
        for bytes in [&[0x81_u8, 0x85][..], &[0x83, 0], &[0x82, 127, 0, 0, 0, 1, 0, 0, 0, 0]] {
            assert!(Frames::default().push(bytes, |_, _| Ok(())).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn clients_frames_are_masked() {
        let mut out = Vec::new();
        masked(1, &[b'x'; 200], &mut out);
        assert_eq!(out[..8], [0x81, 0xfe, 0, 200, 0, 0, 0, 0]);
        assert_eq!(out.len(), 208);
    }
}
