//! What the enhanced audio and video headers share: FourCCs, `ModEx` and multitrack (E-RTMP v2).
//!
//! In: the bytes behind a header's first byte. Out: the packet type that counts, its FourCC and the
//! body of track 0. Other tracks are dropped: a room has one track of each kind.

use bytes::{Buf, Bytes};

use super::Body;
use crate::error::Error;

/// A four-character code as sent.
pub(super) type FourCc = [u8; 4];

/// Packet types that audio and video number alike.
mod packet {
    pub(super) const MULTITRACK_VIDEO: u8 = 6;
    pub(super) const MULTITRACK_AUDIO: u8 = 5;
    pub(super) const MOD_EX: u8 = 7;
}

/// `AvMultitrackType`.
mod multitrack {
    pub(super) const ONE_TRACK: u8 = 0;
    pub(super) const MANY_TRACKS: u8 = 1;
    pub(super) const MANY_TRACKS_MANY_CODECS: u8 = 2;
}

/// Whether a header is a video or an audio one: they differ in the number of one packet type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Medium {
    Video,
    Audio,
}

impl Medium {
    fn multitrack(self) -> u8 {
        match self {
            Self::Video => packet::MULTITRACK_VIDEO,
            Self::Audio => packet::MULTITRACK_AUDIO,
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Video => "enhanced video tag",
            Self::Audio => "enhanced audio tag",
        }
    }
}

/// One packet of track 0.
pub(super) struct Packet {
    pub(super) packet_type: u8,
    pub(super) four_cc: FourCc,
    pub(super) body: Bytes,
}

/// Passes over `ModEx` prefixes (each with its data: timestamp offsets below a millisecond, which the
/// timeline has no use for) and returns the packet type behind them.
pub(super) fn skip_mod_ex(
    medium: Medium,
    mut packet_type: u8,
    rest: &mut Bytes,
) -> Result<u8, Error> {
    let what = medium.what();
    while packet_type == packet::MOD_EX {
        let mut size = usize::from(u8_of(rest, what)?) + 1;
        if size == 256 {
            size = usize::from(u8_of(rest, what)?) << 8 | usize::from(u8_of(rest, what)?);
            size += 1;
        }
        take(rest, size, what)?;
        packet_type = u8_of(rest, what)? & 0x0f;
    }
    Ok(packet_type)
}

/// Reads the FourCC and, for a multitrack packet, finds track 0. `Err` within `Ok` is the body to
/// answer with when there is no such packet.
pub(super) fn packet(
    medium: Medium,
    packet_type: u8,
    mut rest: Bytes,
) -> Result<Result<Packet, Body>, Error> {
    let what = medium.what();
    if packet_type != medium.multitrack() {
        let four_cc = four_cc(&mut rest, what)?;
        return Ok(Ok(Packet { packet_type, four_cc, body: rest }));
    }
    let byte = u8_of(&mut rest, what)?;
    let (kind, packet_type) = (byte >> 4, byte & 0x0f);
    if packet_type == medium.multitrack() || packet_type == packet::MOD_EX {
        return Err(Error::invalid(what, format!("packet type {packet_type} within multitrack")));
    }
    let shared = match kind {
        multitrack::ONE_TRACK | multitrack::MANY_TRACKS => Some(four_cc(&mut rest, what)?),
        multitrack::MANY_TRACKS_MANY_CODECS => None,
        other => return Err(Error::invalid(what, format!("multitrack type {other}"))),
    };
    while !rest.is_empty() {
        let four_cc = match shared {
            Some(four_cc) => four_cc,
            None => four_cc(&mut rest, what)?,
        };
        let track = u8_of(&mut rest, what)?;
        let body = if kind == multitrack::ONE_TRACK {
            std::mem::take(&mut rest)
        } else {
            let size = take(&mut rest, 3, what)?;
            let size = u32::from_be_bytes([0, size[0], size[1], size[2]]);
            take(&mut rest, size as usize, what)?
        };
        if track == 0 {
            return Ok(Ok(Packet { packet_type, four_cc, body }));
        }
    }
    Ok(Err(Body::Ignored("tracks other than 0")))
}

pub(super) fn four_cc(rest: &mut Bytes, what: &'static str) -> Result<FourCc, Error> {
    let bytes = take(rest, 4, what)?;
    Ok([bytes[0], bytes[1], bytes[2], bytes[3]])
}

pub(super) fn u8_of(rest: &mut Bytes, what: &'static str) -> Result<u8, Error> {
    if rest.is_empty() {
        return Err(Error::Truncated { what });
    }
    Ok(rest.get_u8())
}

/// Signed 24-bit milliseconds, the composition time of AVC and HEVC packets.
pub(super) fn composition_time(rest: &mut Bytes, what: &'static str) -> Result<i32, Error> {
    let bytes = take(rest, 3, what)?;
    Ok(i32::from_be_bytes([bytes[0], bytes[1], bytes[2], 0]) >> 8)
}

fn take(rest: &mut Bytes, len: usize, what: &'static str) -> Result<Bytes, Error> {
    if rest.len() < len {
        return Err(Error::Truncated { what });
    }
    Ok(rest.split_to(len))
}
