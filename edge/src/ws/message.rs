//! Whole messages of a WebSocket client (RFC 6455, 5.4), put together from its frames. Pure.
//!
//! In: bytes as they come. Out: messages, inflated and, if they are text, valid UTF-8. Control frames come
//! between the pieces of a message. A reader holds memory only while a frame or message is incomplete.

use super::deflate::{Uninflatable, inflated};
use super::frame::{Frame, Opcode, Reader, Status, Violation};

/// What a client said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    /// With the status to answer with.
    Close(u16),
}

/// Reads messages from bytes as they come.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    reader: Reader,
    /// What has come of a message in pieces.
    partial: Option<Box<Partial>>,
}

#[derive(Debug)]
struct Partial {
    opcode: Opcode,
    compressed: bool,
    payload: Vec<u8>,
}

/// How much one message may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Bytes as they come.
    pub(crate) payload: usize,
    /// Bytes inflated.
    pub(crate) inflated: usize,
    /// Whether compression was agreed upon.
    pub(crate) deflate: bool,
}

impl Messages {
    /// Takes the next message from the front of `input`, which moves on. `None`: more must come.
    ///
    /// # Errors
    /// The status to close with.
    pub(crate) fn next(
        &mut self,
        input: &mut &[u8],
        bounds: Bounds,
    ) -> Result<Option<Message>, Status> {
        loop {
            let frame = self.reader.next_of(input, bounds.payload, bounds.deflate);
            let Some(frame) = frame.map_err(Violation::status)? else {
                return Ok(None);
            };
            if let Some(message) = self.take(frame, bounds)? {
                return Ok(Some(message));
            }
        }
    }

    fn take(&mut self, frame: Frame, bounds: Bounds) -> Result<Option<Message>, Status> {
        let Frame { opcode, last, compressed, payload } = frame;
        let whole = match opcode {
            Opcode::Ping => return Ok(Some(Message::Ping(payload))),
            Opcode::Pong => return Ok(Some(Message::Pong)),
            Opcode::Close => return close(&payload).map(|status| Some(Message::Close(status))),
            Opcode::Text | Opcode::Binary if self.partial.is_some() => {
                return Err(Status::ProtocolError);
            }
            Opcode::Text | Opcode::Binary if last => Partial { opcode, compressed, payload },
            Opcode::Text | Opcode::Binary => {
                let partial = Partial { opcode, compressed, payload };
                check_prefix(&partial)?;
                self.partial = Some(Box::new(partial));
                return Ok(None);
            }
            Opcode::Continuation => {
                let Some(mut partial) = self.partial.take() else {
                    return Err(Status::ProtocolError);
                };
                if compressed {
                    return Err(Status::ProtocolError);
                }
                if partial.payload.len() + payload.len() > bounds.payload {
                    return Err(Status::TooBig);
                }
                partial.payload.extend_from_slice(&payload);
                if !last {
                    check_prefix(&partial)?;
                    self.partial = Some(partial);
                    return Ok(None);
                }
                *partial
            }
        };
        let payload = match whole.compressed {
            false => whole.payload,
            true => inflated(&whole.payload, bounds.inflated).map_err(|error| match error {
                Uninflatable::TooLong => Status::TooBig,
                Uninflatable::Broken => Status::ProtocolError,
            })?,
        };
        if whole.opcode == Opcode::Binary {
            return Ok(Some(Message::Binary(payload)));
        }
        if std::str::from_utf8(&payload).is_err() {
            return Err(Status::NotText);
        }
        Ok(Some(Message::Text(payload)))
    }
}

/// Text that can no longer become UTF-8 is refused before it is whole (RFC 6455, 8.1).
fn check_prefix(partial: &Partial) -> Result<(), Status> {
    if partial.opcode != Opcode::Text || partial.compressed {
        return Ok(());
    }
    match std::str::from_utf8(&partial.payload) {
        Err(error) if error.error_len().is_some() => Err(Status::NotText),
        _ => Ok(()),
    }
}

/// The status to answer a close frame with (RFC 6455, 5.5.1 and 7.4).
fn close(payload: &[u8]) -> Result<u16, Status> {
    match payload {
        [] => Ok(Status::Normal as u16),
        [_] => Err(Status::ProtocolError),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if std::str::from_utf8(reason).is_err() {
                return Err(Status::NotText);
            }
            match code {
                1000..=1003 | 1007..=1014 | 3000..=4999 => Ok(code),
                _ => Err(Status::ProtocolError),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::deflate::deflated;
    use super::super::frame::header;
    use super::*;

    const BOUNDS: Bounds = Bounds { payload: 1000, inflated: 2000, deflate: true };

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let (header, len) = header(Opcode::Binary, payload.len());
        let mut out = header[..len].to_vec();
        out[0] = first;
        out[1] |= 0x80;
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(payload);
        out
    }

    fn read(frames: &[Vec<u8>]) -> Result<Vec<Message>, Status> {
        let bytes = frames.concat();
        let (mut messages, mut out) = (Messages::default(), Vec::new());
        let mut input = &bytes[..];
        while let Some(message) = messages.next(&mut input, BOUNDS)? {
            out.push(message);
        }
        assert!(messages.partial.is_none() || input.is_empty());
        Ok(out)
    }

    #[test]
    fn pieces_are_joined_around_control_frames() {
        let pieces = [frame(0x01, b"a\xc3"), frame(0x89, b"p"), frame(0x80, b"\xa9b")];
        let expected = vec![Message::Ping(b"p".to_vec()), Message::Text("aéb".into())];
        assert_eq!(read(&pieces), Ok(expected));
        let deflated = deflated("hello hello hello".as_bytes());
        let (one, two) = deflated.split_at(4);
        let pieces = [frame(0x41, one), frame(0x80, two)];
        assert_eq!(read(&pieces), Ok(vec![Message::Text(b"hello hello hello".to_vec())]));
    }

    #[test]
    fn what_is_not_a_message_is_named() {
        for (frames, status) in [
            (vec![frame(0x80, b"a")], Status::ProtocolError),
            (vec![frame(0x01, b"a"), frame(0x81, b"b")], Status::ProtocolError),
            (vec![frame(0x01, b"a"), frame(0xc0, b"b")], Status::ProtocolError),
            (vec![frame(0x81, b"\xff")], Status::NotText),
            (vec![frame(0x01, b"\xff")], Status::NotText),
            (vec![frame(0x81, b"\xc3")], Status::NotText),
            (vec![frame(0xc9, b"")], Status::ProtocolError),
            (vec![frame(0x88, b"\x03")], Status::ProtocolError),
            (vec![frame(0x88, &1005_u16.to_be_bytes())], Status::ProtocolError),
            (vec![frame(0x88, b"\x03\xe8\xff")], Status::NotText),
            (vec![frame(0x01, &[b'a'; 600]), frame(0x80, &[b'a'; 600])], Status::TooBig),
            (vec![frame(0xc1, &deflated(&[b'a'; 3000]))], Status::TooBig),
        ] {
            assert_eq!(read(&frames), Err(status), "{frames:?}");
        }
    }

    #[test]
    fn a_close_is_answered_with_its_code() {
        assert_eq!(read(&[frame(0x88, b"")]), Ok(vec![Message::Close(1000)]));
        assert_eq!(read(&[frame(0x88, b"\x0f\xa1bye")]), Ok(vec![Message::Close(4001)]));
    }
}
