//! HLS playlists: the text of the multivariant and the media playlist, and which requests wait.
//!
//! In: a published [`Manifest`], and nothing else: no clock and no observation of this node, so equal
//! manifests give equal text on every edge. Out: playlists to the letter of RFC 8216bis
//! (draft-pantos-hls-rfc8216bis-22) with Low-Latency HLS, and the answer to a blocking request
//! ([`reload`]). [`check`] holds a sequence of playlists against the same rules for tests.
//!
//! URIs are relative: `/{app}/{name}.m3u8` names `/{app}/{name}/main.m3u8`, which names what lies under
//! `/{app}/{name}/main/`.

pub mod check;
mod format;
pub mod reload;

use std::fmt::{self, Write};
use std::sync::Arc;

use format::{Milli, Seconds, Utc};

use crate::codec;
use crate::error::Error;
use crate::fmp4;
use crate::manifest::{Config, Constants, Epoch, Manifest, Msn, PartNumber, SegmentMeta, Status};
use crate::track::{Params, TrackId};

/// The media type of both playlists (RFC 8216bis, 4).
pub const CONTENT_TYPE: &str = "application/vnd.apple.mpegurl";

/// `EXT-X-VERSION` of every playlist: 9 is what `EXT-X-SKIP` needs (RFC 8216bis, 8), and all
/// playlists of a stream say the same.
pub const VERSION: u32 = 9;

/// How many complete segments list their parts besides the open one; older `EXT-X-PART`s are to be
/// removed once they are three target durations from the end (RFC 8216bis, 6.2.2).
pub const SEGMENTS_WITH_PARTS: usize = 2;

/// Which form of the media playlist a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// Everything.
    Full,
    /// A delta update (`_HLS_skip`); the full form where nothing can be skipped.
    Delta,
}

/// The name of a segment under `main/`.
#[must_use]
pub fn segment_name(msn: Msn, epoch: Epoch) -> String {
    SegmentName(msn, epoch).to_string()
}

/// The name of a part under `main/`.
#[must_use]
pub fn part_name(epoch: Epoch, part: PartNumber) -> String {
    PartName(epoch, part).to_string()
}

/// Renders the multivariant playlist of the stream that viewers call `name`.
///
/// `query` is the request's query string: a token in it is carried over to the media playlist, playlist
/// directives (`_HLS_…`) are not.
///
/// # Errors
/// When no configuration is known yet, or its codec string cannot be made.
pub fn multivariant(manifest: &Manifest, name: &str, query: Option<&str>) -> Result<String, Error> {
    let header = manifest.header();
    let config = manifest
        .config()
        .ok_or_else(|| Error::invalid("multivariant playlist", "no configuration is known yet"))?;
    let mut out = String::with_capacity(512);
    put(&mut out, format_args!("#EXTM3U\n#EXT-X-VERSION:{VERSION}\n"));
    if all_independent(manifest) {
        out.push_str("#EXT-X-INDEPENDENT-SEGMENTS\n");
    }
    put(&mut out, format_args!("#EXT-X-STREAM-INF:BANDWIDTH={}", header.bandwidth_bps.max(1)));
    if header.average_bandwidth_bps > 0 {
        put(&mut out, format_args!(",AVERAGE-BANDWIDTH={}", header.average_bandwidth_bps));
    }
    out.push_str(",CODECS=\"");
    for (index, track) in config.tracks.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(&codec::rfc6381(track)?);
    }
    out.push('"');
    if let Some(Params::Video { width, height }) = config.track(TrackId::Video).map(|t| t.params) {
        put(&mut out, format_args!(",RESOLUTION={width}x{height}"));
        if let Some(milli) = header.frame_rate_milli {
            put(&mut out, format_args!(",FRAME-RATE={}", Milli(u64::from(milli))));
        }
    }
    put(&mut out, format_args!("\n{name}/main.m3u8"));
    carry_over(&mut out, query.unwrap_or_default());
    out.push('\n');
    Ok(out)
}

/// Renders the media playlist.
///
/// # Errors
/// When there is none yet ([`Manifest::is_playable`]), or an init segment cannot be rendered.
pub fn media(manifest: &Manifest, form: Form) -> Result<String, Error> {
    let constants = manifest.header().constants.filter(|_| manifest.is_playable());
    let constants =
        constants.ok_or_else(|| Error::invalid("media playlist", "no segment is complete yet"))?;
    let skipped = match form {
        Form::Full => 0,
        Form::Delta => skippable(manifest, constants),
    };
    let listed = manifest.segments().len() - skipped;
    let parts: usize = manifest.segments().iter().rev().take(3).map(|s| s.parts.len()).sum();
    let mut out = String::with_capacity(512 + listed * 192 + parts * 80);
    write_head(&mut out, manifest, constants, skipped);
    let complete = manifest.segments().iter().filter(|s| s.duration.is_some()).count();
    let mut map = Map::default();
    for (index, segment) in manifest.segments().iter().enumerate().skip(skipped) {
        let with_parts = index + SEGMENTS_WITH_PARTS >= complete;
        write_segment(&mut out, segment, with_parts, &mut map)?;
    }
    match manifest.status() {
        Status::Ended => out.push_str("#EXT-X-ENDLIST\n"),
        Status::Live | Status::Grace => write_hint(&mut out, manifest, &mut map)?,
    }
    Ok(out)
}

/// How many of the oldest segments a delta update leaves out: those that end before the skip boundary,
/// which counts back from the end of the last complete segment (RFC 8216bis, 6.2.5.1). An ended
/// playlist is always sent whole.
fn skippable(manifest: &Manifest, constants: Constants) -> usize {
    if manifest.status() == Status::Ended {
        return 0;
    }
    let boundary = u64::from(constants.target_duration_s) * SKIP_TARGET_DURATIONS * 90_000;
    let (mut newer, mut kept) = (0, 0);
    for segment in manifest.segments().iter().rev() {
        if newer >= boundary {
            break;
        }
        newer += u64::from(segment.duration.unwrap_or(0));
        kept += 1;
    }
    manifest.segments().len() - kept
}

/// `CAN-SKIP-UNTIL` in target durations; it must be at least six (RFC 8216bis, 4.4.3.8).
const SKIP_TARGET_DURATIONS: u64 = 6;

/// `PART-HOLD-BACK` in part targets; it should be at least three (RFC 8216bis, 4.4.3.8).
const HOLD_BACK_PART_TARGETS: u64 = 3;

fn write_head(out: &mut String, manifest: &Manifest, constants: Constants, skipped: usize) {
    let target = u64::from(constants.target_duration_s);
    let part_target = u64::from(constants.part_target_ms);
    put(out, format_args!("#EXTM3U\n#EXT-X-VERSION:{VERSION}\n#EXT-X-TARGETDURATION:{target}\n"));
    put(
        out,
        format_args!(
            "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL={},PART-HOLD-BACK={}\n",
            Milli(target * SKIP_TARGET_DURATIONS * 1000),
            Milli(part_target * HOLD_BACK_PART_TARGETS),
        ),
    );
    put(out, format_args!("#EXT-X-PART-INF:PART-TARGET={}\n", Milli(part_target)));
    let window = manifest.window();
    put(out, format_args!("#EXT-X-MEDIA-SEQUENCE:{}\n", window.first));
    put(out, format_args!("#EXT-X-DISCONTINUITY-SEQUENCE:{}\n", window.discontinuity_sequence));
    if all_independent(manifest) {
        out.push_str("#EXT-X-INDEPENDENT-SEGMENTS\n");
    }
    if skipped > 0 {
        put(out, format_args!("#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}\n"));
    }
}

/// Writes one segment: its tags, then its parts, then its duration and URI once it is complete. An
/// open segment shows with its first part, never before: players that see a discontinuity without a
/// part behind it lose count.
fn write_segment(
    out: &mut String,
    segment: &Arc<SegmentMeta>,
    with_parts: bool,
    map: &mut Map,
) -> Result<(), Error> {
    if segment.parts.is_empty() {
        return Ok(());
    }
    let open = &segment.open;
    if open.discontinuity {
        out.push_str("#EXT-X-DISCONTINUITY\n");
    }
    if map.change_to(&segment.config)? || open.discontinuity {
        put(out, format_args!("#EXT-X-MAP:URI=\"main/{}\"\n", map.name));
    }
    put(out, format_args!("#EXT-X-PROGRAM-DATE-TIME:{}\n", Utc(open.pdt_ms)));
    if with_parts {
        for part in &segment.parts {
            put(
                out,
                format_args!(
                    "#EXT-X-PART:DURATION={},URI=\"main/{}\"{}\n",
                    Seconds(part.duration),
                    PartName(open.epoch, part.part),
                    if part.independent { ",INDEPENDENT=YES" } else { "" },
                ),
            );
        }
    }
    if let Some(duration) = segment.duration {
        let name = SegmentName(open.msn, segment.name_epoch());
        put(out, format_args!("#EXTINF:{},\nmain/{name}\n", Seconds(duration)));
    }
    Ok(())
}

/// Names the next part. Where the next segment needs another init segment that is known, it is named
/// too, and first: players that keep one hint keep the last.
fn write_hint(out: &mut String, manifest: &Manifest, map: &mut Map) -> Result<(), Error> {
    let Some(number) = manifest.next_part() else { return Ok(()) };
    let open = manifest.last().filter(|s| s.duration.is_none());
    let config = open.map(|s| &s.config).or(manifest.config());
    if let Some(config) = config
        && map.change_to(config)?
    {
        put(out, format_args!("#EXT-X-PRELOAD-HINT:TYPE=MAP,URI=\"main/{}\"\n", map.name));
    }
    let epoch = open.map_or(manifest.header().epoch, |s| s.open.epoch);
    let name = PartName(epoch, number);
    put(out, format_args!("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"main/{name}\"\n"));
    Ok(())
}

/// Whether every listed segment starts with a frame at which decoding can start.
fn all_independent(manifest: &Manifest) -> bool {
    manifest.segments().iter().all(|s| s.parts.is_empty() || s.starts_independent())
}

/// The `EXT-X-MAP` in force while segments are written.
#[derive(Default)]
struct Map {
    config: Option<Arc<Config>>,
    name: String,
}

impl Map {
    /// Makes `config` the one in force. Returns whether its init segment is another one; a home that
    /// counts configurations anew has the same init segment for the same tracks.
    fn change_to(&mut self, config: &Arc<Config>) -> Result<bool, Error> {
        if self.config.as_ref().is_some_and(|c| c.tracks == config.tracks) {
            return Ok(false);
        }
        self.config = Some(Arc::clone(config));
        self.name = fmp4::init_name(&fmp4::init(config)?);
        Ok(true)
    }
}

struct SegmentName(Msn, Epoch);

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}-{}.m4s", self.0, self.1)
    }
}

struct PartName(Epoch, PartNumber);

impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}-{}.m4s", self.0, self.1)
    }
}

/// Appends the parameters of `query` that are not playlist directives. Parameters with characters that
/// have no place in a URI are left out: a playlist line must stay one line.
fn carry_over(out: &mut String, query: &str) {
    let fit = |pair: &&str| {
        !pair.is_empty()
            && !pair.starts_with("_HLS_")
            && pair.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'<' | b'>' | b'#'))
    };
    for (index, pair) in query.split('&').filter(fit).enumerate() {
        out.push(if index == 0 { '?' } else { '&' });
        out.push_str(pair);
    }
}

fn put(out: &mut String, text: fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a String takes any text");
}

#[cfg(test)]
mod tests;
