//! Bodies of video messages (FLV, E.4.3; E-RTMP v2, "Enhanced Video").
//!
//! In: the body of an RTMP message of type 9, or of an FLV video tag. Out: a [`Body`]. Enhanced and
//! legacy forms of one codec give the same answer.

use bytes::Bytes;

use super::Body;
use super::enhanced::{self, FourCc, Medium};
use crate::codec::Codec;
use crate::error::Error;

const TAG: &str = "video tag";

/// `FrameType` (FLV, E.4.3.1).
mod frame_type {
    pub(super) const KEY: u8 = 1;
    pub(super) const GENERATED_KEY: u8 = 4;
    pub(super) const COMMAND: u8 = 5;
}

/// `VideoPacketType` (E-RTMP v2).
mod packet {
    pub(super) const SEQUENCE_START: u8 = 0;
    pub(super) const CODED_FRAMES: u8 = 1;
    pub(super) const SEQUENCE_END: u8 = 2;
    pub(super) const CODED_FRAMES_X: u8 = 3;
    pub(super) const METADATA: u8 = 4;
    pub(super) const MPEG2_TS_SEQUENCE_START: u8 = 5;
}

/// Says what the body of a video message is.
///
/// # Errors
/// When the body ends within its headers, or they contradict the format.
pub fn parse(body: &Bytes) -> Result<Body, Error> {
    let mut rest = body.clone();
    let first = enhanced::u8_of(&mut rest, TAG)?;
    if first & 0x80 == 0 { legacy(first, rest) } else { extended(first, rest) }
}

fn is_key(frame_type: u8) -> bool {
    matches!(frame_type, frame_type::KEY | frame_type::GENERATED_KEY)
}

fn legacy(first: u8, mut rest: Bytes) -> Result<Body, Error> {
    let frame_type = first >> 4;
    if frame_type == frame_type::COMMAND {
        return Ok(Body::Ignored("a video command"));
    }
    let codec = match first & 0x0f {
        7 => Codec::Avc,
        // Not in Adobe's text: the extension Chinese CDNs and players share. It is laid out as AVC.
        12 => Codec::Hevc,
        other => return Ok(Body::Unsupported { codec: legacy_name(other) }),
    };
    let packet_type = enhanced::u8_of(&mut rest, TAG)?;
    let cts_ms = enhanced::composition_time(&mut rest, TAG)?;
    Ok(match packet_type {
        0 => Body::sequence_header(codec, rest),
        1 => Body::frame(codec, is_key(frame_type), cts_ms, rest),
        2 => Body::EndOfSequence,
        _ => return Err(Error::invalid(TAG, format!("AVC packet type {packet_type}"))),
    })
}

/// Names of `CodecID` (FLV, E.4.3.1).
fn legacy_name(codec_id: u8) -> &'static str {
    match codec_id {
        2 => "Sorenson H.263",
        3 => "Screen video",
        4 | 5 => "On2 VP6",
        6 => "Screen video 2",
        13 => "AV1 as codec 13",
        _ => "an unknown video codec",
    }
}

fn extended(first: u8, mut rest: Bytes) -> Result<Body, Error> {
    let frame_type = first >> 4 & 0x07;
    let packet_type = enhanced::skip_mod_ex(Medium::Video, first & 0x0f, &mut rest)?;
    if frame_type == frame_type::COMMAND && packet_type != packet::METADATA {
        return Ok(Body::Ignored("a video command"));
    }
    let packet = match enhanced::packet(Medium::Video, packet_type, rest)? {
        Ok(packet) => packet,
        Err(body) => return Ok(body),
    };
    if packet.packet_type == packet::METADATA {
        return Ok(Body::Ignored("video metadata"));
    }
    let codec = match codec_of(packet.four_cc) {
        Ok(codec) => codec,
        Err(name) => return Ok(Body::Unsupported { codec: name }),
    };
    let mut body = packet.body;
    Ok(match packet.packet_type {
        packet::SEQUENCE_START => Body::sequence_header(codec, body),
        packet::CODED_FRAMES => {
            let cts_ms = match codec {
                Codec::Avc | Codec::Hevc => enhanced::composition_time(&mut body, TAG)?,
                _ => 0,
            };
            Body::frame(codec, is_key(frame_type), cts_ms, body)
        }
        packet::CODED_FRAMES_X => Body::frame(codec, is_key(frame_type), 0, body),
        packet::SEQUENCE_END => Body::EndOfSequence,
        packet::MPEG2_TS_SEQUENCE_START => Body::Ignored("an MPEG-2 TS sequence start"),
        _ => Body::Ignored("a reserved video packet type"),
    })
}

fn codec_of(four_cc: FourCc) -> Result<Codec, &'static str> {
    match &four_cc {
        b"avc1" => Ok(Codec::Avc),
        b"hvc1" => Ok(Codec::Hevc),
        b"av01" => Ok(Codec::Av1),
        b"vp09" => Ok(Codec::Vp9),
        b"vvc1" => Err("h266"),
        b"vp08" => Err("vp8"),
        _ => Err("an unknown video codec"),
    }
}
