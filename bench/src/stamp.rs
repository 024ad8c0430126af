//! The wall-clock stamp that rides in the pictures, and how it is found again.
//!
//! In: the time a frame is sent and its number. Out: an SEI NAL unit (H.264, 7.3.2.3 and D.1.7,
//! `user_data_unregistered`) that every server passes on untouched, in FLV, fMP4 or anything else
//! that keeps NAL units whole. Digits are ASCII, so that emulation prevention never applies and the
//! stamp can be found by its UUID without parsing the container.

use std::time::{SystemTime, UNIX_EPOCH};

use memchr::memmem;

/// The UUID of the stamp's SEI message.
pub const UUID: [u8; 16] = *b"tidewater-stamp1";
/// The UUID of SEI messages that only fill the stream up to its bit rate.
const FILL_UUID: [u8; 16] = *b"tidewater-filler";

/// `nal_unit_type` 6 with `nal_ref_idc` 0.
const SEI: u8 = 6;
/// `payloadType` of `user_data_unregistered`.
const USER_DATA_UNREGISTERED: u8 = 5;
/// `rbsp_trailing_bits`.
const STOP_BIT: u8 = 0x80;

const MICROS_DIGITS: usize = 16;
const SEQUENCE_DIGITS: usize = 8;
const DIGITS: usize = MICROS_DIGITS + SEQUENCE_DIGITS;
/// NAL header, payload type, payload size, UUID: what stands before the digits, behind the length.
const BEFORE_DIGITS: usize = 3 + UUID.len();
/// Bytes of the length that precedes a NAL unit in the stream (avcC, `lengthSizeMinusOne` 3).
pub const LENGTH_BYTES: usize = 4;
/// The whole stamp: length, NAL unit.
pub const STAMP_BYTES: usize = LENGTH_BYTES + BEFORE_DIGITS + DIGITS + 1;
/// Where the digits stand in it.
pub const DIGITS_AT: usize = LENGTH_BYTES + BEFORE_DIGITS;
/// The shortest filler.
const MIN_FILL_BYTES: usize = LENGTH_BYTES + BEFORE_DIGITS + 1;

/// When a frame was sent, and which it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Microseconds since the Unix epoch.
    pub micros: u64,
    /// Counts the video frames of a publisher, across its reconnects.
    pub sequence: u32,
}

/// Microseconds since the Unix epoch.
#[must_use]
pub fn now_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// A length-prefixed SEI NAL unit with room for a stamp at [`DIGITS_AT`].
#[must_use]
pub fn blank() -> [u8; STAMP_BYTES] {
    let mut nal = [b'0'; STAMP_BYTES];
    let length = (STAMP_BYTES - LENGTH_BYTES) as u32;
    nal[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    let payload = (UUID.len() + DIGITS) as u8;
    nal[LENGTH_BYTES..LENGTH_BYTES + 3].copy_from_slice(&[SEI, USER_DATA_UNREGISTERED, payload]);
    nal[LENGTH_BYTES + 3..DIGITS_AT].copy_from_slice(&UUID);
    nal[STAMP_BYTES - 1] = STOP_BIT;
    nal
}

impl Stamp {
    /// Writes the digits at the start of `out`, which holds a [`blank`] stamp from [`DIGITS_AT`] on.
    pub fn write(self, out: &mut [u8]) {
        let mut value = u128::from(self.micros) << 32 | u128::from(self.sequence);
        for digit in out.iter_mut().take(DIGITS).rev() {
            *digit = b"0123456789abcdef"[(value & 15) as usize];
            value >>= 4;
        }
    }

    fn read(digits: &[u8]) -> Option<Self> {
        let mut value = 0_u128;
        for digit in digits.get(..DIGITS)? {
            value = value << 4 | u128::from(char::from(*digit).to_digit(16)?);
        }
        let sequence = (value & u128::from(u32::MAX)) as u32;
        Some(Self { micros: u64::try_from(value >> 32).ok()?, sequence })
    }
}

/// All stamps in `bytes`, in order.
pub fn find(bytes: &[u8]) -> impl Iterator<Item = Stamp> {
    memmem::find_iter(bytes, &UUID).filter_map(|at| Stamp::read(bytes.get(at + UUID.len()..)?))
}

/// A length-prefixed SEI NAL unit of about `bytes`, to fill a frame up; nothing when that is too few.
#[must_use]
pub fn filler(bytes: usize) -> Vec<u8> {
    if bytes < MIN_FILL_BYTES {
        return Vec::new();
    }
    // The size is written in steps of 255: every 255 bytes of filling cost one more.
    let filling = (bytes - MIN_FILL_BYTES) * 255 / 256;
    let payload = UUID.len() + filling;
    let mut nal = vec![0; LENGTH_BYTES];
    nal.extend([SEI, USER_DATA_UNREGISTERED]);
    nal.resize(nal.len() + payload / 255, 0xff);
    nal.push((payload % 255) as u8);
    nal.extend(FILL_UUID);
    nal.resize(nal.len() + filling, b'.');
    nal.push(STOP_BIT);
    let length = (nal.len() - LENGTH_BYTES) as u32;
    nal[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    nal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_survive_whatever_is_around_them() {
        let stamps = [(1, 0), (1_795_305_600_123_456, 7), (u64::from(u32::MAX), u32::MAX)]
            .map(|(micros, sequence)| Stamp { micros, sequence });
        let mut stream = b"moof".to_vec();
        for stamp in stamps {
            let mut nal = blank();
            stamp.write(&mut nal[DIGITS_AT..]);
            stream.extend(nal);
            stream.extend(filler(300));
        }
        assert_eq!(find(&stream).collect::<Vec<_>>(), stamps);
        assert_eq!(find(&stream[..stream.len() - 310]).count(), 2, "a cut stamp is none");
    }

    #[test]
    fn nal_units_are_as_long_as_they_say_and_need_no_emulation_prevention() {
        let fillers = [23, 24, 254, 255, 256, 600, 8_000, 100_000].map(filler);
        for nal in fillers.iter().map(Vec::as_slice).chain([&blank()[..], &[]]) {
            let Some((length, nal)) = nal.split_first_chunk::<LENGTH_BYTES>() else { continue };
            assert_eq!(u32::from_be_bytes(*length) as usize, nal.len());
            assert!(!nal.windows(2).any(|w| w == [0, 0]), "no start code can appear");
            let steps = nal[2..].iter().take_while(|b| **b == 0xff).count();
            let size = steps * 255 + usize::from(nal[2 + steps]);
            assert_eq!(size, nal.len() - 4 - steps, "payload size");
            assert_eq!(nal.last(), Some(&STOP_BIT));
        }
        assert!(filler(10_000).len().abs_diff(10_000) < 64);
    }
}
