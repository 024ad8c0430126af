//! H.264: the decoder configuration record and what an access unit's own bytes say.
//!
//! In: `AVCDecoderConfigurationRecord`s and length-prefixed access units as FLV tags carry them. Out:
//! a [`Track`] with a normalised record (four-byte lengths, no stray bytes), and whether decoding can
//! start at an access unit. The sequence parameter set is read in `sps`. Slices are never decoded.

mod sps;

use bytes::{BufMut, Bytes, BytesMut};

use super::Codec;
use crate::error::Error;
use crate::track::{Params, Track, TrackId, VIDEO_TIMESCALE};

/// The largest configuration record accepted: it travels in a manifest entry
/// ([`crate::manifest::MAX_ENTRY_BYTES`]). Real ones have 30 to 100 bytes.
pub const MAX_RECORD_BYTES: usize = 32 * 1024;

/// The largest parameter set accepted within a record.
pub const MAX_PARAMETER_SET_BYTES: usize = 16 * 1024;

/// The largest picture accepted, in luma samples on either side.
pub const MAX_SIDE: u32 = 8192;

/// The most macroblocks a picture may have: level 6.2, the top of H.264 (Table A-1).
pub const MAX_MACROBLOCKS: u32 = 139_264;

const RECORD: &str = "AVC configuration record";
const SPS: &str = "AVC sequence parameter set";
const PAYLOAD: &str = "AVC access unit";

/// `nal_unit_type`s (ISO/IEC 14496-10, Table 7-1).
mod nal_type {
    pub(super) const SLICE_FIRST: u8 = 1;
    pub(super) const IDR: u8 = 5;
    pub(super) const SPS: u8 = 7;
    pub(super) const PPS: u8 = 8;
}

/// A decoder configuration, checked and normalised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecoderConfig {
    /// The record with `lengthSizeMinusOne` 3, reserved bits set and no trailing bytes: what init
    /// segments and FLV sequence headers carry. Equal configurations have equal records.
    pub record: Bytes,
    /// Bytes of each NAL unit's length in the publisher's access units: 1, 2 or 4. When it is not 4,
    /// [`with_four_byte_lengths`] converts them.
    pub length_size: u8,
    /// Picture width in luma samples after cropping.
    pub width: u16,
    /// Picture height in luma samples after cropping.
    pub height: u16,
    /// Frames per 1000 seconds, when the stream promises a fixed rate (VUI `fixed_frame_rate_flag`).
    pub frame_rate_milli: Option<u32>,
}

impl DecoderConfig {
    /// Reads a record (ISO/IEC 14496-15, 5.3.3.1). Trailing bytes are tolerated and dropped.
    ///
    /// # Errors
    /// Names what is truncated, forbidden or over a limit: parameter sets over
    /// [`MAX_PARAMETER_SET_BYTES`], pictures over [`MAX_SIDE`] or [`MAX_MACROBLOCKS`].
    pub fn parse(record: &[u8]) -> Result<Self, Error> {
        let parts = Parts::split(record)?;
        let first = *parts.sps.first().ok_or_else(|| Error::invalid(RECORD, "has no SPS"))?;
        if parts.pps.is_empty() {
            return Err(Error::invalid(RECORD, "has no PPS"));
        }
        let picture = sps::parse(first)?;
        for other in &parts.sps[1..] {
            sps::parse(other)?;
        }
        Ok(Self {
            record: parts.normalised(),
            length_size: parts.length_size,
            width: picture.width,
            height: picture.height,
            frame_rate_milli: picture.frame_rate_milli,
        })
    }

    /// The video track this configuration describes.
    #[must_use]
    pub fn track(&self) -> Track {
        Track {
            id: TrackId::Video,
            codec: Codec::Avc,
            timescale: VIDEO_TIMESCALE,
            config: self.record.clone(),
            params: Params::Video { width: self.width, height: self.height },
        }
    }
}

/// The RFC 6381 name, `avc1.PPCCLL`, of a configuration record: its bytes 1 to 3 in hex.
///
/// # Errors
/// [`Error::Truncated`] when the record is shorter than that.
pub fn rfc6381(record: &[u8]) -> Result<String, Error> {
    match record {
        [_, profile, compatibility, level, ..] => {
            Ok(format!("avc1.{profile:02x}{compatibility:02x}{level:02x}"))
        }
        _ => Err(Error::Truncated { what: RECORD }),
    }
}

/// What kinds of NAL units an access unit holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AccessUnit {
    /// Bit n is set when a NAL unit of type n is present.
    types: u32,
}

impl AccessUnit {
    /// Walks an access unit with four-byte lengths. Empty NAL units are passed over.
    ///
    /// # Errors
    /// When a length runs past the end.
    pub fn inspect(payload: &[u8]) -> Result<Self, Error> {
        let mut types = 0;
        for nal in nal_units(payload, 4) {
            if let Some(header) = nal?.first() {
                types |= 1 << (header & 0x1f);
            }
        }
        Ok(Self { types })
    }

    /// Whether a NAL unit of this `nal_unit_type` is present.
    #[must_use]
    pub fn has(self, nal_unit_type: u8) -> bool {
        nal_unit_type < 32 && self.types >> nal_unit_type & 1 == 1
    }

    /// Whether it is an instantaneous decoding refresh: decoding can start here.
    #[must_use]
    pub fn is_key(self) -> bool {
        self.has(nal_type::IDR)
    }

    /// Whether it holds any part of a picture (types 1 to 5); one that does not is no frame.
    #[must_use]
    pub fn has_picture(self) -> bool {
        (nal_type::SLICE_FIRST..=nal_type::IDR).any(|t| self.has(t))
    }
}

/// Whether decoding can start at this access unit (four-byte lengths), by its own bytes.
///
/// # Errors
/// As [`AccessUnit::inspect`].
pub fn is_key(payload: &[u8]) -> Result<bool, Error> {
    AccessUnit::inspect(payload).map(AccessUnit::is_key)
}

/// The NAL units of an access unit, each after a big-endian length of `length_size` bytes. After an
/// error the walk is over.
pub fn nal_units(payload: &[u8], length_size: u8) -> impl Iterator<Item = Result<&[u8], Error>> {
    let length_size = usize::from(length_size);
    let mut rest = payload;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some((prefix, body)) = rest.split_at_checked(length_size) else {
            rest = &[];
            return Some(Err(Error::Truncated { what: "AVC NAL unit length" }));
        };
        let len = prefix.iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
        let Some((nal, after)) = body.split_at_checked(len) else {
            let left = body.len();
            rest = &[];
            let why = format!("a NAL unit of {len} bytes where {left} are left");
            return Some(Err(Error::invalid(PAYLOAD, why)));
        };
        rest = after;
        Some(Ok(nal))
    })
}

/// The access unit with four-byte lengths, as every later stage expects it; shared, not copied,
/// when it has them already. Empty NAL units are dropped by a conversion.
///
/// # Errors
/// When a length runs past the end.
pub fn with_four_byte_lengths(payload: &Bytes, length_size: u8) -> Result<Bytes, Error> {
    if length_size == 4 {
        return Ok(payload.clone());
    }
    // A kept NAL unit has at least one byte, so the result is at most 2.5 times the input.
    let mut out = BytesMut::with_capacity(payload.len() + payload.len() / 8 + 64);
    for nal in nal_units(payload, length_size) {
        let nal = nal?;
        if !nal.is_empty() {
            out.put_u32(u32::try_from(nal.len()).map_err(|_| Error::TooLarge {
                what: PAYLOAD,
                found: nal.len() as u64,
                limit: u64::from(u32::MAX),
            })?);
            out.put_slice(nal);
        }
    }
    Ok(out.freeze())
}

/// A record taken apart, its limits checked.
struct Parts<'a> {
    profile: [u8; 3],
    length_size: u8,
    sps: Vec<&'a [u8]>,
    pps: Vec<&'a [u8]>,
    /// Chroma format, bit depths and SPS extensions of the high profiles, when whole.
    extension: Option<&'a [u8]>,
}

impl<'a> Parts<'a> {
    fn split(record: &'a [u8]) -> Result<Self, Error> {
        if record.len() > MAX_RECORD_BYTES {
            return Err(Error::TooLarge {
                what: "AVC configuration record bytes",
                found: record.len() as u64,
                limit: MAX_RECORD_BYTES as u64,
            });
        }
        let [version, profile, compatibility, level, length, sps_count, rest @ ..] = record else {
            return Err(Error::Truncated { what: RECORD });
        };
        if *version != 1 {
            return Err(Error::invalid(RECORD, format!("version {version}, not 1")));
        }
        let length_size = (length & 3) + 1;
        if length_size == 3 {
            return Err(Error::invalid(RECORD, "NAL unit lengths of 3 bytes"));
        }
        let mut rest = rest;
        let sps = parameter_sets(&mut rest, sps_count & 0x1f, nal_type::SPS)?;
        let (pps_count, mut rest) =
            rest.split_first().ok_or(Error::Truncated { what: "AVC PPS count" })?;
        let pps = parameter_sets(&mut rest, *pps_count, nal_type::PPS)?;
        Ok(Self {
            profile: [*profile, *compatibility, *level],
            length_size,
            sps,
            pps,
            extension: extension(*profile, rest),
        })
    }

    fn normalised(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(MAX_RECORD_BYTES.min(256));
        out.put_u8(1);
        out.put_slice(&self.profile);
        out.put_u8(0xfc | 3);
        for (sets, reserved) in [(&self.sps, 0xe0), (&self.pps, 0)] {
            // Both counts come from the record's own fields of 5 and 8 bits.
            out.put_u8(reserved | sets.len() as u8);
            for set in sets {
                out.put_u16(set.len() as u16);
                out.put_slice(set);
            }
        }
        if let Some([chroma, luma_depth, chroma_depth, sets @ ..]) = self.extension {
            out.put_slice(&[chroma | 0xfc, luma_depth | 0xf8, chroma_depth | 0xf8]);
            out.put_slice(sets);
        }
        out.freeze()
    }
}

fn parameter_sets<'a>(rest: &mut &'a [u8], count: u8, kind: u8) -> Result<Vec<&'a [u8]>, Error> {
    let what = if kind == nal_type::SPS { "AVC SPS" } else { "AVC PPS" };
    let mut sets = Vec::new();
    for _ in 0..count {
        let set = length_16(rest).ok_or(Error::Truncated { what })?;
        if set.len() > MAX_PARAMETER_SET_BYTES {
            return Err(Error::TooLarge {
                what: "AVC parameter set bytes",
                found: set.len() as u64,
                limit: MAX_PARAMETER_SET_BYTES as u64,
            });
        }
        match set.first().map(|header| header & 0x1f) {
            Some(found) if found == kind => sets.push(set),
            Some(found) => return Err(Error::invalid(what, format!("is NAL unit type {found}"))),
            None => return Err(Error::invalid(what, "is empty")),
        }
    }
    Ok(sets)
}

fn length_16<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, body) = rest.split_first_chunk::<2>()?;
    let (set, after) = body.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    *rest = after;
    Some(set)
}

/// The extension of profiles with chroma information (ISO/IEC 14496-15, 5.3.3.1.2). Many encoders
/// leave it out and some write stray bytes there: what is not whole counts as absent.
fn extension(profile: u8, rest: &[u8]) -> Option<&[u8]> {
    if !matches!(profile, 100 | 110 | 122 | 144) {
        return None;
    }
    let [_, _, _, count, sets @ ..] = rest else { return None };
    let mut left = sets;
    for _ in 0..*count {
        length_16(&mut left)?;
    }
    Some(&rest[..rest.len() - left.len()])
}

#[cfg(test)]
mod tests;
