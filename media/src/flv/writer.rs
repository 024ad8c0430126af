//! Writes what FLV viewers read: header, metadata, sequence headers and tags.
//!
//! In: a [`Config`] and [`Frame`]s on the room's timeline. Out: bytes appended to a buffer the caller
//! sized with [`tag_len`] and [`preamble_len`], so that a chunk of many tags is one buffer. H.264 is
//! always written as codec 7 and AAC as sound format 10: players that know no FourCC read them too.
//! Nothing here is per viewer, so equal input gives equal bytes on every edge.

use bytes::{BufMut, BytesMut};

use super::{MAX_BODY_BYTES, TagKind};
use crate::amf0::{self, Amf0};
use crate::codec::Codec;
use crate::error::Error;
use crate::frame::Frame;
use crate::manifest::Config;
use crate::track::{Params, Track, TrackId};

/// Tag header, FLV E.4.1.
const TAG_HEADER_LEN: usize = 11;
/// The size of the tag, repeated behind it.
const PREVIOUS_TAG_SIZE_LEN: usize = 4;
/// File header and the first previous-tag size, FLV E.2 and E.3.
const FILE_HEADER_LEN: usize = 13;
/// Frame type and codec, packet type, composition time (FLV, E.4.3.1).
const AVC_HEADER_LEN: usize = 5;
/// Sound format and packet type (FLV, E.4.2.1).
const AAC_HEADER_LEN: usize = 2;

/// `SoundFormat` 10; AAC always says 44 kHz, 16 bits, stereo and means its own configuration.
const AAC_BYTE: u8 = 0xaf;
const CODEC_AVC: u8 = 7;
const CODEC_AAC: u8 = 10;

/// The timestamp of a tick on a track's clock: milliseconds, rounded to the nearest, modulo 2^32 as FLV
/// and RTMP carry them.
#[must_use]
pub fn timestamp_ms(track: &Track, ticks: u64) -> u32 {
    milliseconds(ticks, track.timescale) as u32
}

/// The bytes [`write_tag`] appends for this frame.
#[must_use]
pub fn tag_len(frame: &Frame) -> usize {
    framed(frame.payload.len() + body_header_len(frame.track))
}

/// Appends one tag: header, body, previous-tag size.
///
/// # Errors
/// [`Error::TooLarge`] when the body is over [`MAX_BODY_BYTES`]; nothing is written then.
pub fn write_tag(out: &mut BytesMut, track: &Track, frame: &Frame) -> Result<(), Error> {
    debug_assert_eq!(track.id, frame.track);
    let dts_ms = milliseconds(frame.dts, track.timescale);
    match frame.track {
        TrackId::Video => {
            begin(out, TagKind::Video, dts_ms as u32, AVC_HEADER_LEN + frame.payload.len())?;
            out.put_u8(if frame.key { 1 << 4 } else { 2 << 4 } | CODEC_AVC);
            out.put_u8(1);
            let pts = frame.dts.saturating_add_signed(i64::from(frame.cts));
            let cts_ms = milliseconds(pts, track.timescale) as i64 - dts_ms as i64;
            put_si24(out, cts_ms);
        }
        TrackId::Audio => {
            begin(out, TagKind::Audio, dts_ms as u32, AAC_HEADER_LEN + frame.payload.len())?;
            out.put_slice(&[AAC_BYTE, 1]);
        }
    }
    out.put_slice(&frame.payload);
    finish(out, tag_len(frame));
    Ok(())
}

/// The bytes [`write_preamble`] appends.
#[must_use]
pub fn preamble_len(config: &Config, frame_rate_milli: Option<u32>) -> usize {
    FILE_HEADER_LEN
        + framed(metadata(config, frame_rate_milli).len())
        + sequence_headers_len(config)
}

/// Appends what a stream begins with: file header with truthful flags, `onMetaData`, and the sequence
/// headers. `timestamp_ms` is that of the first media tag to follow; the sequence headers carry it.
///
/// # Errors
/// As [`write_sequence_headers`].
pub fn write_preamble(
    out: &mut BytesMut,
    config: &Config,
    frame_rate_milli: Option<u32>,
    timestamp_ms: u32,
) -> Result<(), Error> {
    let audio = config.track(TrackId::Audio).is_some();
    let video = config.track(TrackId::Video).is_some();
    out.put_slice(b"FLV\x01");
    out.put_u8(u8::from(audio) << 2 | u8::from(video));
    out.put_u32(9);
    out.put_u32(0);
    let script = metadata(config, frame_rate_milli);
    // FFmpeg takes metadata at any other time than 0 for a subtitle stream.
    begin(out, TagKind::Script, 0, script.len())?;
    out.put_slice(&script);
    finish(out, framed(script.len()));
    write_sequence_headers(out, config, timestamp_ms)
}

/// The bytes [`write_sequence_headers`] appends.
#[must_use]
pub fn sequence_headers_len(config: &Config) -> usize {
    config.tracks.iter().map(|t| framed(t.config.len() + body_header_len(t.id))).sum()
}

/// Appends the sequence header of every track: at the start, and again where a configuration changes.
///
/// # Errors
/// When a track's codec has no FLV form here, or its record is over [`MAX_BODY_BYTES`].
pub fn write_sequence_headers(
    out: &mut BytesMut,
    config: &Config,
    timestamp_ms: u32,
) -> Result<(), Error> {
    for track in &config.tracks {
        let body_len = track.config.len() + body_header_len(track.id);
        match track.codec {
            Codec::Avc => {
                begin(out, TagKind::Video, timestamp_ms, body_len)?;
                out.put_slice(&[1 << 4 | CODEC_AVC, 0, 0, 0, 0]);
            }
            Codec::Aac => {
                begin(out, TagKind::Audio, timestamp_ms, body_len)?;
                out.put_slice(&[AAC_BYTE, 0]);
            }
            other => {
                return Err(Error::Unsupported { what: "FLV track", name: other.name().into() });
            }
        }
        out.put_slice(&track.config);
        finish(out, framed(body_len));
    }
    Ok(())
}

/// `onMetaData` (FLV, E.5): what is there and how it is laid out; no duration and no file size, for the
/// stream has neither.
fn metadata(config: &Config, frame_rate_milli: Option<u32>) -> Vec<u8> {
    let mut members: Vec<(String, Amf0)> = Vec::new();
    let mut put = |name: &str, value: Amf0| members.push((name.into(), value));
    let number = |value: u32| Amf0::Number(f64::from(value));
    let video = config.track(TrackId::Video);
    let audio = config.track(TrackId::Audio);
    put("hasVideo", Amf0::Boolean(video.is_some()));
    put("hasAudio", Amf0::Boolean(audio.is_some()));
    put("hasMetadata", Amf0::Boolean(true));
    if let Some(Params::Video { width, height }) = video.map(|t| t.params) {
        put("width", number(u32::from(width)));
        put("height", number(u32::from(height)));
        put("videocodecid", number(u32::from(CODEC_AVC)));
        if let Some(milli) = frame_rate_milli {
            put("framerate", Amf0::Number(f64::from(milli) / 1000.0));
        }
    }
    if let Some(Params::Audio { sample_rate, channels, .. }) = audio.map(|t| t.params) {
        put("audiocodecid", number(u32::from(CODEC_AAC)));
        put("audiosamplerate", number(sample_rate));
        put("audiosamplesize", number(16));
        put("stereo", Amf0::Boolean(channels > 1));
    }
    let mut out = Vec::with_capacity(256);
    amf0::write(&mut out, &Amf0::String("onMetaData".into()));
    amf0::write(&mut out, &Amf0::EcmaArray(members));
    out
}

fn framed(body_len: usize) -> usize {
    TAG_HEADER_LEN + body_len + PREVIOUS_TAG_SIZE_LEN
}

fn body_header_len(track: TrackId) -> usize {
    match track {
        TrackId::Video => AVC_HEADER_LEN,
        TrackId::Audio => AAC_HEADER_LEN,
    }
}

/// Writes a tag header. The timestamp's high byte stands behind its low three.
fn begin(out: &mut BytesMut, kind: TagKind, timestamp: u32, body_len: usize) -> Result<(), Error> {
    if body_len > MAX_BODY_BYTES {
        return Err(Error::TooLarge {
            what: "FLV tag body bytes",
            found: body_len as u64,
            limit: MAX_BODY_BYTES as u64,
        });
    }
    out.put_u8(kind as u8);
    out.put_uint(body_len as u64, 3);
    out.put_uint(u64::from(timestamp & 0xff_ffff), 3);
    out.put_u8((timestamp >> 24) as u8);
    out.put_uint(0, 3); // stream id
    Ok(())
}

/// Writes the previous-tag size of a tag that took `framed_len` bytes with it.
fn finish(out: &mut BytesMut, framed_len: usize) {
    out.put_u32((framed_len - PREVIOUS_TAG_SIZE_LEN) as u32);
}

/// A composition time beyond 24 bits (over two hours) cannot be said; the nearest that can is.
fn put_si24(out: &mut BytesMut, value: i64) {
    let value = value.clamp(-0x80_0000, 0x7f_ffff);
    out.put_uint((value & 0xff_ffff) as u64, 3);
}

/// Ticks to the nearest millisecond, without overflow over the whole range of ticks.
fn milliseconds(ticks: u64, timescale: u32) -> u64 {
    let timescale = u64::from(timescale.max(1));
    let (seconds, rest) = (ticks / timescale, ticks % timescale);
    seconds.wrapping_mul(1000).wrapping_add((rest * 1000 + timescale / 2) / timescale)
}
