//! WebSocket frames (RFC 6455 section 5): headers for what the server sends, a reader for what
//! clients send. Pure.
//!
//! Server frames are never masked or fragmented, so a payload that many clients get is framed once.
//! Client frames must be masked; a reader holds memory only while a frame is incomplete, and only for
//! bytes that have come: a declared length allocates nothing.

/// The longest header of a server frame: opcode, 127, a 64-bit length.
pub(crate) const MAX_HEADER_BYTES: usize = 10;
/// The longest payload of a control frame (RFC 6455, 5.5).
pub(crate) const MAX_CONTROL_BYTES: usize = 125;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0x0 => Some(Self::Continuation),
            0x1 => Some(Self::Text),
            0x2 => Some(Self::Binary),
            0x8 => Some(Self::Close),
            0x9 => Some(Self::Ping),
            0xa => Some(Self::Pong),
            _ => None,
        }
    }

    fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// The status codes of close frames this server sends (RFC 6455, 7.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// The stream is over.
    Normal = 1000,
    /// The server goes away.
    GoingAway = 1001,
    /// The client broke the protocol.
    ProtocolError = 1002,
    /// A text is not UTF-8.
    NotText = 1007,
    /// The client may not go on: its token was taken back.
    PolicyViolation = 1008,
    /// The client sent more than is taken.
    TooBig = 1009,
    /// The client should try again: it lagged, or the stream began anew.
    TryAgainLater = 1013,
}

/// The header of an unmasked, unfragmented frame, and how many of the bytes it takes.
pub(crate) fn header(opcode: Opcode, payload_len: usize) -> ([u8; MAX_HEADER_BYTES], usize) {
    let mut out = [0; MAX_HEADER_BYTES];
    out[0] = 0x80 | opcode as u8;
    let len = payload_len as u64;
    if let Ok(short @ 0..=125) = u8::try_from(len) {
        out[1] = short;
        (out, 2)
    } else if let Ok(medium) = u16::try_from(len) {
        out[1] = 126;
        out[2..4].copy_from_slice(&medium.to_be_bytes());
        (out, 4)
    } else {
        out[1] = 127;
        out[2..10].copy_from_slice(&len.to_be_bytes());
        (out, 10)
    }
}

/// A whole control frame. The payload is cut at [`MAX_CONTROL_BYTES`].
pub(crate) fn control(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let payload = &payload[..payload.len().min(MAX_CONTROL_BYTES)];
    let (header, len) = header(opcode, payload.len());
    [&header[..len], payload].concat()
}

/// A close frame.
pub(crate) fn close(status: Status) -> Vec<u8> {
    control(Opcode::Close, &(status as u16).to_be_bytes())
}

/// A close frame with a code of an application's own and a reason (RFC 6455, 7.4.2).
pub(crate) fn close_with(code: u16, reason: &str) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    let cut = (0..=MAX_CONTROL_BYTES - 2).rev().find(|&at| reason.is_char_boundary(at));
    payload.extend_from_slice(reason.get(..cut.unwrap_or_default()).unwrap_or(reason).as_bytes());
    control(Opcode::Close, &payload)
}

/// A whole data frame.
pub(crate) fn whole(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let (header, len) = header(opcode, payload.len());
    [&header[..len], payload].concat()
}

/// A whole data frame whose payload is compressed (RFC 7692, 6).
pub(crate) fn compressed(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut frame = whole(opcode, payload);
    frame[0] |= COMPRESSED;
    frame
}

/// The bit of a compressed message's first frame.
const COMPRESSED: u8 = 0x40;

/// A frame from a client, unmasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: Opcode,
    /// Whether it ends its message.
    pub(crate) last: bool,
    /// Whether its message is compressed; only where that was agreed upon.
    pub(crate) compressed: bool,
    pub(crate) payload: Vec<u8>,
}

/// How a client broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    /// Reserved bits or an opcode that no extension gives a meaning.
    #[error("reserved bits or opcode")]
    Reserved,
    /// Clients must mask (RFC 6455, 5.1).
    #[error("frame is not masked")]
    Unmasked,
    /// Control frames are short and whole (RFC 6455, 5.5).
    #[error("control frame is long or fragmented")]
    Control,
    /// The payload is longer than is taken.
    #[error("payload is too long")]
    TooLong,
}

impl Violation {
    /// The status to close with.
    pub(crate) fn status(self) -> Status {
        if self == Self::TooLong { Status::TooBig } else { Status::ProtocolError }
    }
}

/// Reads client frames from bytes as they come.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// What has come of an incomplete frame.
    partial: Vec<u8>,
}

impl Reader {
    /// Takes the next frame from the front of `input`, which moves on. `None`: all of it was taken
    /// and more must come.
    ///
    /// # Errors
    /// [`Violation`]; the connection must be closed.
    pub(crate) fn next(
        &mut self,
        input: &mut &[u8],
        max_payload: usize,
    ) -> Result<Option<Frame>, Violation> {
        self.next_of(input, max_payload, false)
    }

    /// As [`Self::next`], where messages may be compressed.
    pub(crate) fn next_of(
        &mut self,
        input: &mut &[u8],
        max_payload: usize,
        deflate: bool,
    ) -> Result<Option<Frame>, Violation> {
        if self.partial.is_empty() {
            return match parse(input, max_payload, deflate)? {
                Parsed::Frame(frame, taken) => {
                    *input = &input[taken..];
                    Ok(Some(frame))
                }
                Parsed::Needs(_) => {
                    self.partial.extend_from_slice(input);
                    *input = &[];
                    Ok(None)
                }
            };
        }
        loop {
            match parse(&self.partial, max_payload, deflate)? {
                Parsed::Frame(frame, _) => {
                    self.partial = Vec::new();
                    return Ok(Some(frame));
                }
                Parsed::Needs(_) if input.is_empty() => return Ok(None),
                Parsed::Needs(more) => {
                    let (now, later) = input.split_at(more.min(input.len()));
                    self.partial.extend_from_slice(now);
                    *input = later;
                }
            }
        }
    }
}

enum Parsed {
    /// A frame and the bytes it took.
    Frame(Frame, usize),
    /// At least this many more bytes are needed.
    Needs(usize),
}

fn parse(bytes: &[u8], max_payload: usize, deflate: bool) -> Result<Parsed, Violation> {
    let &[first, second, ref rest @ ..] = bytes else { return Ok(Parsed::Needs(2 - bytes.len())) };
    let opcode = Opcode::from_bits(first & 0x0f).ok_or(Violation::Reserved)?;
    let last = first & 0x80 != 0;
    let compressed = deflate && first & 0x70 == COMPRESSED;
    if first & 0x70 != 0 && (!compressed || opcode.is_control()) {
        return Err(Violation::Reserved);
    }
    if second & 0x80 == 0 {
        return Err(Violation::Unmasked);
    }
    let short = second & 0x7f;
    if opcode.is_control() && (!last || usize::from(short) > MAX_CONTROL_BYTES) {
        return Err(Violation::Control);
    }
    let (len, rest) = match short {
        126 => match rest.split_first_chunk::<2>() {
            Some((len, rest)) => (u64::from(u16::from_be_bytes(*len)), rest),
            None => return Ok(Parsed::Needs(2 - rest.len())),
        },
        127 => match rest.split_first_chunk::<8>() {
            Some((len, rest)) => (u64::from_be_bytes(*len), rest),
            None => return Ok(Parsed::Needs(8 - rest.len())),
        },
        short => (u64::from(short), rest),
    };
    let len = usize::try_from(len).ok().filter(|len| *len <= max_payload.max(MAX_CONTROL_BYTES));
    let len = len.ok_or(Violation::TooLong)?;
    let Some((mask, rest)) = rest.split_first_chunk::<4>() else {
        return Ok(Parsed::Needs(4 - rest.len()));
    };
    let Some(masked) = rest.get(..len) else { return Ok(Parsed::Needs(len - rest.len())) };
    let payload = masked.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m).collect();
    let taken = bytes.len() - rest.len() + len;
    Ok(Parsed::Frame(Frame { opcode, last, compressed, payload }, taken))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame as a client sends it.
    fn masked(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
        let (header, len) = header(Opcode::Binary, payload.len());
        let mut out = header[..len].to_vec();
        out[0] = first;
        out[1] |= 0x80;
        out.extend_from_slice(&mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
        out
    }

    #[test]
    fn headers_have_the_three_lengths_of_the_rfc() {
        let hex = |len| {
            let (header, n) = header(Opcode::Binary, len);
            header[..n].to_vec()
        };
        assert_eq!(hex(0), [0x82, 0]);
        assert_eq!(hex(125), [0x82, 125]);
        assert_eq!(hex(126), [0x82, 126, 0, 126]);
        assert_eq!(hex(65535), [0x82, 126, 0xff, 0xff]);
        assert_eq!(hex(65536), [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(close(Status::GoingAway), [0x88, 2, 0x03, 0xe9]);
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        let mut reader = Reader::default();
        let mut hello: &[u8] = &[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        let frame = reader.next(&mut hello, 100).unwrap().unwrap();
        assert_eq!((frame.opcode, frame.last), (Opcode::Text, true));
        assert_eq!(frame.payload, b"Hello");
        assert!(hello.is_empty());
    }

    #[test]
    fn violations_are_named() {
        let mask = [1, 2, 3, 4];
        for (bytes, expected) in [
            (vec![0x81, 0x05], Violation::Unmasked),
            (masked(0xc1, b"a", mask), Violation::Reserved),
            (masked(0x83, b"a", mask), Violation::Reserved),
            (masked(0x09, b"a", mask), Violation::Control),
            (masked(0x89, &[0; 126], mask), Violation::Control),
            (masked(0x82, &[0; 201], mask), Violation::TooLong),
            (vec![0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Violation::TooLong),
        ] {
            let mut reader = Reader::default();
            assert_eq!(reader.next(&mut &bytes[..], 200), Err(expected), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn frames_survive_any_split(
            frames in prop::collection::vec((any::<[u8; 4]>(), prop::collection::vec(any::<u8>(), 0..300)), 1..5),
            sizes in prop::collection::vec(1_usize..40, 1..50),
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|(m, p)| masked(0x82, p, *m)).collect();
            let (mut reader, mut read) = (Reader::default(), Vec::new());
            let (mut rest, mut sizes) = (&bytes[..], sizes.iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
                rest = later;
                let mut input = now;
                while let Some(frame) = reader.next(&mut input, 300).unwrap() {
                    read.push(frame.payload);
                }
            }
            let expected: Vec<_> = frames.into_iter().map(|(_, p)| p).collect();
            prop_assert_eq!(read, expected);
            prop_assert_eq!(reader.partial.capacity(), 0);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = Reader::default();
            let mut input = &bytes[..];
            while let Ok(Some(_)) = reader.next(&mut input, 100) {}
            prop_assert!(reader.partial.len() <= 200);
        }
    }
}
