//! Frames on a stream: a length, then as many bytes. Pure; [`crate::stream`] moves them.
//!
//! In: bytes as they come off a stream, in pieces of any size. Out: whole frames, each in an
//! allocation of exactly its size, copied once, so that a frame kept for a minute pins no packet
//! buffers. A frame is opaque here, or a message: a postcard value that fills it exactly.
//!
//! The length is an unsigned LEB128 number of at most 5 bytes in its shortest form. It is checked
//! against the caller's limit before anything is allocated for it, and memory then follows the
//! bytes received, not the length declared.

use bytes::{Buf, Bytes};
use serde::{Serialize, de::DeserializeOwned};

use crate::Error;

/// The largest frame any limit may allow: the largest limit of a message, a Raft snapshot.
pub const MAX_FRAME_BYTES: usize = 512 << 20;
/// Memory taken for a frame before its bytes are there; beyond it, memory follows received bytes.
const FIRST_RESERVE_BYTES: usize = 16 << 10;
/// Bytes of the longest length: 5 × 7 bits hold a `u32`.
const MAX_LENGTH_BYTES: usize = 5;

/// Cuts a stream of bytes into frames.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    state: State,
}

#[derive(Debug)]
enum State {
    /// Inside the length: its value so far and its bytes seen.
    Length { value: u64, seen: usize },
    /// Inside the body: what has come, and how long it will be.
    Body { received: Vec<u8>, declared: usize },
}

impl Default for State {
    fn default() -> Self {
        Self::Length { value: 0, seen: 0 }
    }
}

impl FrameDecoder {
    /// Takes bytes off the front of `input` until a frame is whole, or `input` is empty (`None`).
    ///
    /// # Errors
    /// [`Error::TooLarge`] as soon as a length over `limit` is declared, [`Error::Invalid`] for a
    /// length not in its shortest form. The stream is of no use after an error.
    pub fn push(&mut self, input: &mut Bytes, limit: usize) -> Result<Option<Bytes>, Error> {
        while let State::Length { value, seen } = &mut self.state {
            if !input.has_remaining() {
                return Ok(None);
            }
            let byte = input.get_u8();
            *value |= u64::from(byte & 0x7f) << (7 * *seen);
            *seen += 1;
            if byte & 0x80 == 0 {
                if byte == 0 && *seen > 1 {
                    return Err(Error::invalid("frame length", "not in its shortest form"));
                }
                let declared = usize::try_from(*value).unwrap_or(usize::MAX);
                self.state = State::Body { received: Vec::new(), declared };
            } else if *seen == MAX_LENGTH_BYTES {
                return Err(Error::invalid("frame length", "longer than 5 bytes"));
            }
        }
        let State::Body { received, declared } = &mut self.state else {
            return Ok(None);
        };
        let limit = limit.min(MAX_FRAME_BYTES);
        if *declared > limit {
            let (found, limit) = (*declared as u64, limit as u64);
            return Err(Error::TooLarge { what: "frame", found, limit });
        }
        let take = input.len().min(*declared - received.len());
        reserve(received, take, *declared);
        received.extend_from_slice(&input[..take]);
        input.advance(take);
        if received.len() < *declared {
            return Ok(None);
        }
        let frame = Bytes::from(std::mem::take(received));
        self.state = State::default();
        Ok(Some(frame))
    }

    /// Whether a frame has begun and is not whole: the stream must not end here.
    #[must_use]
    pub fn is_inside_frame(&self) -> bool {
        !matches!(self.state, State::Length { seen: 0, .. })
    }
}

/// Grows `received` so that `more` fit, by doubling, and at last to exactly `declared`.
fn reserve(received: &mut Vec<u8>, more: usize, declared: usize) {
    let needed = received.len() + more;
    if needed > received.capacity() {
        let target = needed.max(2 * received.capacity()).max(FIRST_RESERVE_BYTES).min(declared);
        received.reserve_exact(target - received.len());
    }
}

/// The length that goes before a frame of `bytes` bytes.
///
/// # Errors
/// [`Error::TooLarge`] over [`MAX_FRAME_BYTES`].
pub fn length_prefix(bytes: usize) -> Result<Bytes, Error> {
    let mut buffer = [0; MAX_LENGTH_BYTES];
    let used = write_length(bytes, &mut buffer)?;
    Ok(Bytes::copy_from_slice(&buffer[..used]))
}

/// A message as a frame, length and all.
///
/// # Errors
/// [`Error::TooLarge`] over [`MAX_FRAME_BYTES`]; [`Error::Invalid`] if the value cannot be
/// serialised, which is a bug in its type.
pub fn encode_message<T: Serialize>(what: &'static str, message: &T) -> Result<Bytes, Error> {
    // Room for the longest length is left in front, and what it does not need is cut off again.
    let mut buffer = postcard::to_extend(message, vec![0; MAX_LENGTH_BYTES])
        .map_err(|error| Error::invalid(what, error.to_string()))?;
    let mut length = [0; MAX_LENGTH_BYTES];
    let used = write_length(buffer.len() - MAX_LENGTH_BYTES, &mut length)?;
    let start = MAX_LENGTH_BYTES - used;
    buffer[start..MAX_LENGTH_BYTES].copy_from_slice(&length[..used]);
    Ok(Bytes::from(buffer).slice(start..))
}

/// A message as the body of a frame, for one that goes to many: see
/// [`crate::stream::Sender::write_frame`].
///
/// # Errors
/// As [`encode_message`].
pub fn encode_body<T: Serialize>(what: &'static str, message: &T) -> Result<Bytes, Error> {
    let body = postcard::to_stdvec(message).map_err(|e| Error::invalid(what, e.to_string()))?;
    length_prefix(body.len())?;
    Ok(Bytes::from(body))
}

/// Reads a message that fills `frame` exactly.
///
/// # Errors
/// [`Error::Invalid`] if the bytes are not such a message or some are left over.
pub fn decode_message<T: DeserializeOwned>(what: &'static str, frame: &[u8]) -> Result<T, Error> {
    let (message, rest) = postcard::take_from_bytes(frame)
        .map_err(|error| Error::invalid(what, error.to_string()))?;
    if rest.is_empty() {
        Ok(message)
    } else {
        Err(Error::invalid(what, format!("{} bytes too many", rest.len())))
    }
}

fn write_length(bytes: usize, buffer: &mut [u8; MAX_LENGTH_BYTES]) -> Result<usize, Error> {
    if bytes > MAX_FRAME_BYTES {
        let (found, limit) = (bytes as u64, MAX_FRAME_BYTES as u64);
        return Err(Error::TooLarge { what: "frame", found, limit });
    }
    let mut value = bytes;
    let mut used = 0;
    loop {
        let low = u8::try_from(value & 0x7f).expect("seven bits fit in a byte");
        value >>= 7;
        buffer[used] = if value == 0 { low } else { low | 0x80 };
        used += 1;
        if value == 0 {
            return Ok(used);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames_of(bytes: &[u8], piece: usize, limit: usize) -> Result<Vec<Bytes>, Error> {
        let mut decoder = FrameDecoder::default();
        let mut frames = Vec::new();
        for piece in bytes.chunks(piece.max(1)) {
            let mut input = Bytes::copy_from_slice(piece);
            while !input.is_empty() {
                frames.extend(decoder.push(&mut input, limit)?);
            }
        }
        Ok(frames)
    }

    #[test]
    fn frames_look_like_this() {
        assert_eq!(encode_message("test", &"hi").unwrap().as_ref(), b"\x03\x02hi");
        assert_eq!(encode_message("test", &()).unwrap().as_ref(), b"\x00");
        assert_eq!(length_prefix(127).unwrap().as_ref(), b"\x7f");
        assert_eq!(length_prefix(300).unwrap().as_ref(), b"\xac\x02");
        assert_eq!(length_prefix(MAX_FRAME_BYTES).unwrap().as_ref(), b"\x80\x80\x80\x80\x02");
        assert!(length_prefix(MAX_FRAME_BYTES + 1).is_err());
    }

    #[test]
    fn an_empty_frame_is_a_frame() {
        assert_eq!(frames_of(b"\x00\x01a\x00", 1, 10).unwrap(), ["", "a", ""]);
    }

    #[test]
    fn a_declared_length_over_the_limit_is_refused_at_once() {
        let mut decoder = FrameDecoder::default();
        let mut input = Bytes::from_static(b"\xff\xff\xff\x07");
        let error = decoder.push(&mut input, 1000).unwrap_err();
        assert_eq!(error.to_string(), "frame: 16777215 bytes are over the limit of 1000");
        let mut input = Bytes::from_static(b"\xff\xff\xff\xff\x0f");
        let error = FrameDecoder::default().push(&mut input, usize::MAX).unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }), "no caller lifts the absolute limit");
    }

    #[test]
    fn a_declared_length_takes_no_memory() {
        let mut decoder = FrameDecoder::default();
        let mut input = Bytes::from_static(b"\x80\x80\x80\x04only these");
        assert_eq!(decoder.push(&mut input, MAX_FRAME_BYTES), Ok(None));
        assert!(decoder.is_inside_frame());
        let State::Body { received, declared } = &decoder.state else { panic!("in the body") };
        assert_eq!((*declared, received.capacity()), (8 << 20, FIRST_RESERVE_BYTES));
    }

    #[test]
    fn a_length_has_one_form_only() {
        for bad in [&b"\x80\x00"[..], b"\xff\xff\xff\xff\xff\x01"] {
            let error = frames_of(bad, 1, 1000).unwrap_err();
            assert!(matches!(error, Error::Invalid { what: "frame length", .. }), "{bad:?}");
        }
    }

    #[test]
    fn a_message_fills_its_frame() {
        assert_eq!(decode_message::<u8>("test", &[7]), Ok(7));
        let error = decode_message::<u8>("test", &[7, 8]).unwrap_err();
        assert_eq!(error.to_string(), "test: 1 bytes too many");
        assert!(decode_message::<String>("test", &[5, b'a']).is_err());
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..8),
            piece in 1usize..4000,
        ) {
            let mut bytes = Vec::new();
            for frame in &frames {
                bytes.extend_from_slice(&length_prefix(frame.len()).unwrap());
                bytes.extend_from_slice(frame);
            }
            prop_assert_eq!(frames_of(&bytes, piece, 3000).unwrap(), frames);
        }

        #[test]
        fn a_frame_takes_exactly_its_size(length in 1usize..100_000, piece in 1usize..70_000) {
            let mut bytes = length_prefix(length).unwrap().to_vec();
            bytes.resize(bytes.len() + length, 7);
            let frames = frames_of(&bytes, piece, length).unwrap();
            let frame = Vec::from(frames.into_iter().next().unwrap());
            prop_assert_eq!((frame.len(), frame.capacity()), (length, length));
        }

        #[test]
        fn any_bytes_are_frames_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..2000),
            piece in 1usize..100,
        ) {
            let _ = frames_of(&bytes, piece, 500);
        }
    }
}
