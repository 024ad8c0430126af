//! The rules, each with the section of RFC 8216bis it comes from.
//!
//! In: playlists that the grammar accepted. Out: violations.

use super::Violation;
use super::parse::{self, Attributes, MediaPlaylist, Segment};

/// Decimal rounding of one duration.
const ROUNDING_S: f64 = 0.000_011;

/// How far a program date may be from the one before plus a segment's duration: milliseconds rounded
/// on both sides.
const PDT_TOLERANCE_MS: f64 = 2.0;

macro_rules! must {
    ($found:expr, $holds:expr, $rule:literal, $($detail:tt)+) => {
        {
            let holds: bool = $holds;
            if !holds {
                $found.push(Violation { rule: $rule, detail: format!($($detail)+) });
            }
        }
    };
}

/// Fills in the segments that a delta update left out from the playlist before it (6.2.5.1).
pub(super) fn merge(
    last: Option<&MediaPlaylist>,
    list: &mut MediaPlaylist,
    found: &mut Vec<Violation>,
) {
    must!(found, list.version >= 9, "version", "EXT-X-SKIP in version {}", list.version);
    let Some(last) = last else {
        must!(found, false, "skip", "a delta update before any playlist");
        return;
    };
    let range = list.media_sequence..list.media_sequence.saturating_add(list.skipped);
    let known: Vec<Segment> =
        last.segments.iter().filter(|s| range.contains(&s.msn)).cloned().collect();
    must!(
        found,
        known.len() as u64 == list.skipped && known.iter().all(|s| s.duration.is_some()),
        "skip",
        "skips {range:?}, of which the client has {} segments",
        known.len()
    );
    // 6.2.5.1: only what is further from the end than the skip boundary may be left out.
    let kept: f64 = list.complete().filter_map(|s| s.duration).sum();
    let boundary = list.can_skip_until.unwrap_or(f64::INFINITY);
    must!(found, kept + 0.01 >= boundary, "skip", "keeps {kept} s, the boundary is {boundary} s");
    for mut segment in known.into_iter().rev() {
        segment.parts.clear();
        list.segments.insert(0, segment);
    }
    // Its parts are the client's no longer; the same holds for the playlist it came from.
    list.skipped = 0;
}

/// What every playlist must keep by itself.
pub(super) fn single(list: &MediaPlaylist, found: &mut Vec<Violation>) {
    let target = f64::from(list.target_duration);
    must!(found, list.version >= 6, "version", "{} with EXT-X-MAP", list.version);
    must!(found, list.target_duration >= 1, "target-duration", "{}", list.target_duration);
    must!(found, list.can_block_reload, "server-control", "no CAN-BLOCK-RELOAD");
    let part_target = list.part_target.unwrap_or(0.0);
    must!(found, part_target > 0.0, "part-inf", "no PART-TARGET");
    // 4.4.3.8: three part targets; at least six target durations.
    let hold_back = list.part_hold_back.unwrap_or(0.0);
    must!(found, hold_back >= part_target * 3.0 - 1e-9, "hold-back", "{hold_back} s");
    let until = list.can_skip_until.unwrap_or(0.0);
    must!(found, until >= target * 6.0, "skip-until", "{until} s");
    hints(list, found);
    let mut newer = 0.0;
    for segment in list.segments.iter().rev() {
        check_segment(list, segment, newer, found);
        newer += segment.duration.unwrap_or(0.0);
    }
    for pair in list.segments.windows(2) {
        let ([a, b], Some(duration)) = (pair, pair[0].duration) else {
            must!(found, false, "open", "segment {} is open and not the last", pair[0].msn);
            continue;
        };
        if let (Some(from), Some(to), false) = (a.pdt_ms, b.pdt_ms, b.discontinuity) {
            // 4.4.4.6: the mapping of dates to media is never ambiguous.
            let off = (to - from) as f64 - duration * 1000.0;
            must!(
                found,
                off.abs() <= PDT_TOLERANCE_MS,
                "pdt",
                "segment {} is off by {off} ms",
                b.msn
            );
        }
    }
    must!(found, list.complete().next().is_some(), "complete", "no complete segment");
}

fn hints(list: &MediaPlaylist, found: &mut Vec<Violation>) {
    let parts = list.hints.iter().filter(|h| h.kind == "PART").count();
    let maps = list.hints.iter().filter(|h| h.kind == "MAP").count();
    must!(found, parts + maps == list.hints.len(), "hint", "of another type");
    if list.ended {
        must!(found, list.hints.is_empty(), "hint", "beside EXT-X-ENDLIST");
        return;
    }
    must!(found, parts == 1 && maps <= 1, "hint", "{parts} for parts, {maps} for maps");
    must!(
        found,
        list.hints.last().is_some_and(|h| h.kind == "PART"),
        "hint",
        "players that keep one hint keep the last"
    );
    let hint = list.part_hint().unwrap_or_default();
    let listed = list.segments.iter().flat_map(|s| &s.parts).any(|p| p.uri == hint);
    must!(found, !listed, "hint", "{hint} is listed already");
}

fn check_segment(list: &MediaPlaylist, segment: &Segment, newer: f64, found: &mut Vec<Violation>) {
    let msn = segment.msn;
    let target = f64::from(list.target_duration);
    must!(found, segment.map.is_some(), "map", "none before segment {msn}");
    must!(found, segment.pdt_ms.is_some(), "pdt", "none on segment {msn}");
    let part_target = list.part_target.unwrap_or(0.0);
    for (index, part) in segment.parts.iter().enumerate() {
        // 4.4.4.9.
        must!(
            found,
            part.duration > 0.0 && part.duration <= part_target,
            "part-target",
            "part {index} of segment {msn} is {} s, the target {part_target} s",
            part.duration
        );
    }
    if let Some(first) = segment.parts.first() {
        must!(
            found,
            first.independent || !list.independent_segments,
            "independent",
            "segment {msn} does not start so"
        );
        // 6.2.2: parts further than three target durations from the end are removed.
        must!(found, newer <= target * 3.0, "old-parts", "segment {msn}, {newer} s from the end");
    }
    let Some(duration) = segment.duration else { return };
    // 4.4.3.1: rounded to the nearest integer.
    must!(found, duration.round() <= target, "target-duration", "segment {msn} is {duration} s");
    must!(found, duration > 0.0, "target-duration", "segment {msn} is empty");
    if !segment.parts.is_empty() {
        // 3.2: the parts are the segment.
        let sum: f64 = segment.parts.iter().map(|p| p.duration).sum();
        let tolerance = ROUNDING_S * (segment.parts.len() + 1) as f64;
        must!(
            found,
            (sum - duration).abs() <= tolerance,
            "parts-are-the-segment",
            "segment {msn} is {duration} s, its parts {sum} s"
        );
    }
}

/// Counts the parts new in `list` that are under 85 % of the target and not exempt: independent ones,
/// and the last of their segment (4.4.4.9).
pub(super) fn short_parts(last: Option<&MediaPlaylist>, list: &MediaPlaylist) -> u64 {
    let floor = list.part_target.unwrap_or(0.0) * 0.85 - ROUNDING_S;
    let mut count = 0;
    for segment in &list.segments {
        let before = last
            .and_then(|l| l.segments.iter().find(|s| s.msn == segment.msn))
            .map_or(0, |s| if s.duration.is_some() { usize::MAX } else { s.parts.len() });
        let end = segment.parts.len().saturating_sub(1);
        // The last part listed of an open segment may still turn out to be its last.
        let settled = segment.parts.iter().enumerate().take(end);
        count += settled
            .filter(|(i, p)| i + 1 >= before && !p.independent && p.duration < floor)
            .count();
    }
    count as u64
}

/// What an update must keep of the playlist before it (6.2.1, 6.2.2).
pub(super) fn update(last: &MediaPlaylist, list: &MediaPlaylist, found: &mut Vec<Violation>) {
    let constants = |l: &MediaPlaylist| {
        (l.target_duration, l.part_target, l.part_hold_back, l.can_skip_until, l.version)
    };
    must!(
        found,
        constants(last) == constants(list),
        "constants",
        "{:?} became {:?}",
        constants(last),
        constants(list)
    );
    must!(
        found,
        list.media_sequence >= last.media_sequence,
        "media-sequence",
        "{} after {}",
        list.media_sequence,
        last.media_sequence
    );
    let newest = |l: &MediaPlaylist| l.complete().next_back().map_or(0, |s| s.msn);
    must!(
        found,
        newest(list) >= newest(last),
        "media-sequence",
        "the newest segment was {} and is {}",
        newest(last),
        newest(list)
    );
    must!(found, !last.ended || last == list, "ended", "the playlist changed after its end");
    let removed = last.segments.iter().filter(|s| s.msn < list.media_sequence);
    let tags = removed.clone().filter(|s| s.discontinuity).count() as u64;
    let known_all =
        list.media_sequence <= last.media_sequence.saturating_add(last.segments.len() as u64);
    must!(
        found,
        !known_all || list.discontinuity_sequence == last.discontinuity_sequence + tags,
        "discontinuity-sequence",
        "{} after {}, with {tags} tags removed",
        list.discontinuity_sequence,
        last.discontinuity_sequence
    );
    if list.media_sequence > last.media_sequence {
        // 6.2.2: nothing is removed that leaves less than three target durations.
        let left: f64 = list.complete().filter_map(|s| s.duration).sum();
        let least = 3.0 * f64::from(list.target_duration);
        must!(found, left + 0.001 >= least, "window", "{left} s are left of at least {least} s");
    }
    for old in last.segments.iter().filter(|s| s.msn >= list.media_sequence) {
        match list.segments.iter().find(|s| s.msn == old.msn) {
            Some(new) => same_segment(old, new, found),
            None => must!(found, false, "media-sequence", "segment {} vanished", old.msn),
        }
    }
    hint_kept(last, list, found);
}

fn same_segment(old: &Segment, new: &Segment, found: &mut Vec<Violation>) {
    let msn = old.msn;
    let names = |s: &Segment| (s.discontinuity, s.map.clone(), s.pdt_ms);
    must!(found, names(old) == names(new), "immutable", "tags of segment {msn} changed");
    if old.duration.is_some() {
        let same = (old.duration, &old.uri) == (new.duration, &new.uri);
        must!(found, same, "immutable", "segment {msn} changed");
    }
    let kept = new.parts.starts_with(&old.parts);
    let dropped = new.parts.is_empty() && new.duration.is_some();
    // A delta update merges segments without their parts, so more may show than was known.
    let unknown = old.parts.is_empty();
    must!(found, kept || dropped || unknown, "immutable", "parts of segment {msn} changed");
    if old.duration.is_some() && !old.parts.is_empty() && !new.parts.is_empty() {
        must!(found, old.parts == new.parts, "immutable", "parts joined segment {msn} late");
    }
}

/// Whether `uri` names a part of a later home than `hint`: the one that hinted it is no more, and under
/// its name nothing may come from another.
fn is_of_later_home(hint: &str, uri: &str) -> bool {
    let epoch = |uri: &str| {
        let (_, name) = uri.rsplit_once("/p")?;
        name.split_once('-')?.0.parse::<u64>().ok()
    };
    epoch(hint) < epoch(uri)
}

/// 4.4.5.3: the part that was hinted is the next one to appear.
fn hint_kept(last: &MediaPlaylist, list: &MediaPlaylist, found: &mut Vec<Violation>) {
    let Some(hint) = last.part_hint() else { return };
    let known = |uri: &str| last.segments.iter().flat_map(|s| &s.parts).any(|p| p.uri == uri);
    let newest = last.segments.last().map_or(0, |s| s.msn);
    let new = list
        .segments
        .iter()
        .filter(|s| s.msn >= newest)
        .flat_map(|s| &s.parts)
        .find(|p| !known(&p.uri));
    // After a long pause the parts in between are listed no longer.
    let continuous = list.segments.iter().any(|s| s.msn == newest && !s.parts.is_empty());
    if let Some(new) = new.filter(|_| continuous) {
        let kept = new.uri == hint || is_of_later_home(hint, &new.uri);
        must!(found, kept, "hint", "{hint} was announced, {} came", new.uri);
    }
    let appeared = list.segments.iter().flat_map(|s| &s.parts).count() > 0;
    if appeared && !list.ended && new.is_none() && continuous {
        must!(
            found,
            list.part_hint().is_some_and(|now| now == hint || is_of_later_home(hint, now)),
            "hint",
            "{hint} was announced, then {:?} before it came",
            list.part_hint()
        );
    }
}

/// The multivariant playlist (4.4.6.2).
pub(super) fn multivariant(text: &str, found: &mut Vec<Violation>) {
    let mut lines = text.lines();
    must!(found, lines.next() == Some("#EXTM3U"), "grammar", "no #EXTM3U");
    let mut streams = 0;
    let mut version = 0;
    while let Some(line) = lines.next() {
        let (tag, value) = line.split_once(':').unwrap_or((line, ""));
        match tag {
            "#EXT-X-VERSION" => version = parse::integer(value).unwrap_or(0),
            "#EXT-X-INDEPENDENT-SEGMENTS" => {}
            "#EXT-X-STREAM-INF" => {
                streams += 1;
                match Attributes::parse(value) {
                    Ok(attributes) => stream_inf(&attributes, found),
                    Err(violation) => found.push(violation),
                }
                let uri = lines.next().unwrap_or_default();
                let named = !uri.is_empty() && !uri.starts_with('#') && !uri.contains(' ');
                must!(found, named, "grammar", "EXT-X-STREAM-INF names {uri:?}");
            }
            _ => must!(found, false, "grammar", "unexpected line {line}"),
        }
    }
    must!(found, version >= 6, "version", "{version}");
    must!(found, streams > 0, "variant", "none");
    must!(found, text.ends_with('\n'), "grammar", "the last line does not end");
}

fn stream_inf(attributes: &Attributes<'_>, found: &mut Vec<Violation>) {
    let number = |name| attributes.plain(name).and_then(parse::integer::<u64>);
    match number("BANDWIDTH") {
        Ok(peak) => {
            must!(found, peak > 0, "bandwidth", "{peak}");
            if let Ok(average) = number("AVERAGE-BANDWIDTH") {
                must!(found, average <= peak, "bandwidth", "average {average}, peak {peak}");
            }
        }
        Err(violation) => found.push(violation),
    }
    match attributes.quoted("CODECS") {
        Ok(codecs) => {
            let video = codecs.contains("avc1");
            let size = attributes.plain("RESOLUTION").is_ok();
            must!(found, video == size, "resolution", "with codecs {codecs}");
        }
        Err(violation) => found.push(violation),
    }
    if let Ok(rate) = attributes.plain("FRAME-RATE") {
        let decimals = rate.split_once('.').map(|(_, d)| d.len());
        must!(found, decimals == Some(3), "frame-rate", "{rate}");
    }
}
