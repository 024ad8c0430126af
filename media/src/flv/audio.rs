//! Bodies of audio messages (FLV, E.4.2; E-RTMP v2, "Enhanced Audio").
//!
//! In: the body of an RTMP message of type 8, or of an FLV audio tag. Out: a [`Body`]. Enhanced and
//! legacy forms of one codec give the same answer.

use bytes::Bytes;

use super::Body;
use super::enhanced::{self, FourCc, Medium};
use crate::codec::Codec;
use crate::error::Error;

const TAG: &str = "audio tag";

/// `SoundFormat` 9: the enhanced header follows (E-RTMP v2).
const EX_HEADER: u8 = 9;

/// `AudioPacketType` (E-RTMP v2).
mod packet {
    pub(super) const SEQUENCE_START: u8 = 0;
    pub(super) const CODED_FRAMES: u8 = 1;
    pub(super) const SEQUENCE_END: u8 = 2;
    pub(super) const MULTICHANNEL_CONFIG: u8 = 4;
}

/// Says what the body of an audio message is. An empty body is silence.
///
/// # Errors
/// When the body ends within its headers, or they contradict the format.
pub fn parse(body: &Bytes) -> Result<Body, Error> {
    if body.is_empty() {
        return Ok(Body::Ignored("silence"));
    }
    let mut rest = body.clone();
    let first = enhanced::u8_of(&mut rest, TAG)?;
    if first >> 4 == EX_HEADER { extended(first, rest) } else { legacy(first, rest) }
}

fn legacy(first: u8, mut rest: Bytes) -> Result<Body, Error> {
    let format = first >> 4;
    if format != 10 {
        return Ok(Body::Unsupported { codec: legacy_name(format) });
    }
    let packet_type = enhanced::u8_of(&mut rest, TAG)?;
    Ok(match packet_type {
        0 => Body::sequence_header(Codec::Aac, rest),
        1 => Body::frame(Codec::Aac, true, 0, rest),
        _ => return Err(Error::invalid(TAG, format!("AAC packet type {packet_type}"))),
    })
}

/// Names of `SoundFormat` (FLV, E.4.2.1).
fn legacy_name(format: u8) -> &'static str {
    match format {
        0 | 3 => "PCM",
        1 => "ADPCM",
        2 | 14 => Codec::Mp3.name(),
        4..=6 => "Nellymoser",
        7 => "G.711 A-law",
        8 => "G.711 mu-law",
        11 => "Speex",
        13 => "Opus as sound format 13",
        15 => "device-specific sound",
        _ => "an unknown audio codec",
    }
}

fn extended(first: u8, mut rest: Bytes) -> Result<Body, Error> {
    let packet_type = enhanced::skip_mod_ex(Medium::Audio, first & 0x0f, &mut rest)?;
    let packet = match enhanced::packet(Medium::Audio, packet_type, rest)? {
        Ok(packet) => packet,
        Err(body) => return Ok(body),
    };
    if packet.packet_type == packet::MULTICHANNEL_CONFIG {
        return Ok(Body::Ignored("a multichannel layout"));
    }
    let codec = match codec_of(packet.four_cc) {
        Ok(codec) => codec,
        Err(name) => return Ok(Body::Unsupported { codec: name }),
    };
    Ok(match packet.packet_type {
        packet::SEQUENCE_START => Body::sequence_header(codec, packet.body),
        packet::CODED_FRAMES => Body::frame(codec, true, 0, packet.body),
        packet::SEQUENCE_END => Body::EndOfSequence,
        _ => Body::Ignored("a reserved audio packet type"),
    })
}

fn codec_of(four_cc: FourCc) -> Result<Codec, &'static str> {
    match &four_cc {
        b"mp4a" => Ok(Codec::Aac),
        b"Opus" => Ok(Codec::Opus),
        b"fLaC" => Ok(Codec::Flac),
        b".mp3" => Ok(Codec::Mp3),
        b"ac-3" => Err("AC-3"),
        b"ec-3" => Err("E-AC-3"),
        _ => Err("an unknown audio codec"),
    }
}
