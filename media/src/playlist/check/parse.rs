//! A strict reader of media playlists: only tags the product may send, each attribute known.
//!
//! In: playlist text. Out: [`MediaPlaylist`], or the first violation of the grammar.

use std::str::FromStr;

use super::Violation;

/// A media playlist.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MediaPlaylist {
    /// `EXT-X-VERSION`.
    pub version: u32,
    /// `EXT-X-TARGETDURATION`, seconds.
    pub target_duration: u32,
    /// `PART-TARGET`, seconds.
    pub part_target: Option<f64>,
    /// `PART-HOLD-BACK`, seconds.
    pub part_hold_back: Option<f64>,
    /// `CAN-SKIP-UNTIL`, seconds.
    pub can_skip_until: Option<f64>,
    /// `CAN-BLOCK-RELOAD=YES`.
    pub can_block_reload: bool,
    /// `EXT-X-MEDIA-SEQUENCE`.
    pub media_sequence: u64,
    /// `EXT-X-DISCONTINUITY-SEQUENCE`.
    pub discontinuity_sequence: u64,
    /// `EXT-X-INDEPENDENT-SEGMENTS`.
    pub independent_segments: bool,
    /// `SKIPPED-SEGMENTS` of a delta update, else 0.
    pub skipped: u64,
    /// The segments in order; the last may be open.
    pub segments: Vec<Segment>,
    /// The preload hints in order.
    pub hints: Vec<Hint>,
    /// `EXT-X-ENDLIST`.
    pub ended: bool,
}

impl MediaPlaylist {
    /// Whether a segment is complete.
    pub fn complete(&self) -> impl DoubleEndedIterator<Item = &Segment> {
        self.segments.iter().filter(|s| s.duration.is_some())
    }

    /// The URI of the next part.
    #[must_use]
    pub fn part_hint(&self) -> Option<&str> {
        self.hints.iter().find(|h| h.kind == "PART").map(|h| h.uri.as_str())
    }
}

/// A segment, complete or open.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Segment {
    /// Its media sequence number.
    pub msn: u64,
    /// `EXT-X-DISCONTINUITY` stands before it.
    pub discontinuity: bool,
    /// The URI of the `EXT-X-MAP` in force.
    pub map: Option<String>,
    /// `EXT-X-PROGRAM-DATE-TIME` in milliseconds since the Unix epoch.
    pub pdt_ms: Option<i64>,
    /// Its parts, where listed.
    pub parts: Vec<Part>,
    /// `EXTINF` in seconds, once complete.
    pub duration: Option<f64>,
    /// Its URI, once complete.
    pub uri: Option<String>,
}

/// A partial segment.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Seconds.
    pub duration: f64,
    /// Its URI.
    pub uri: String,
    /// `INDEPENDENT=YES`.
    pub independent: bool,
}

/// A preload hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// `PART` or `MAP`.
    pub kind: String,
    /// Its URI.
    pub uri: String,
}

fn broken(detail: impl Into<String>) -> Violation {
    Violation { rule: "grammar", detail: detail.into() }
}

/// Reads a media playlist.
pub(super) fn media(text: &str) -> Result<MediaPlaylist, Violation> {
    let mut reader = Reader::default();
    let body = text.strip_prefix("#EXTM3U\n").ok_or_else(|| broken("no #EXTM3U"))?;
    let body = body.strip_suffix('\n').ok_or_else(|| broken("the last line does not end"))?;
    for line in body.split('\n') {
        reader.line(line)?;
    }
    reader.finish()
}

#[derive(Default)]
struct Reader {
    list: MediaPlaylist,
    /// Header tags seen, to refuse a second one.
    seen: Vec<&'static str>,
    /// The segment that tags gather for.
    next: Segment,
    gathering: bool,
    map: Option<String>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), Violation> {
        if self.list.ended {
            return Err(broken(format!("{line:?} after EXT-X-ENDLIST")));
        }
        if !line.starts_with('#') {
            return self.uri(line);
        }
        let (tag, value) = line.split_once(':').unwrap_or((line, ""));
        match tag {
            "#EXT-X-DISCONTINUITY" => self.segment_tag(line, |next| {
                next.discontinuity = true;
                Ok(())
            }),
            "#EXT-X-MAP" => {
                let map = Attributes::parse(value)?.quoted("URI")?;
                self.map = Some(map);
                self.segment_tag(line, |_| Ok(()))
            }
            "#EXT-X-PROGRAM-DATE-TIME" => self.segment_tag(line, |next| {
                next.pdt_ms = Some(date_time(value)?);
                Ok(())
            }),
            "#EXT-X-PART" => self.part(value),
            "#EXTINF" => {
                let duration = value.strip_suffix(',').ok_or_else(|| broken(line))?;
                let duration = decimal(duration)?;
                self.gathering = true;
                match self.next.duration.replace(duration) {
                    None => Ok(()),
                    Some(_) => Err(broken("two EXTINF for one segment")),
                }
            }
            "#EXT-X-PRELOAD-HINT" => {
                let attributes = Attributes::parse(value)?;
                let hint =
                    Hint { kind: attributes.plain("TYPE")?.into(), uri: attributes.quoted("URI")? };
                self.list.hints.push(hint);
                Ok(())
            }
            "#EXT-X-ENDLIST" => {
                self.list.ended = true;
                Ok(())
            }
            _ => self.header(tag, value),
        }
    }

    fn header(&mut self, tag: &str, value: &str) -> Result<(), Violation> {
        const HEADERS: [&str; 8] = [
            "#EXT-X-VERSION",
            "#EXT-X-TARGETDURATION",
            "#EXT-X-SERVER-CONTROL",
            "#EXT-X-PART-INF",
            "#EXT-X-MEDIA-SEQUENCE",
            "#EXT-X-DISCONTINUITY-SEQUENCE",
            "#EXT-X-INDEPENDENT-SEGMENTS",
            "#EXT-X-SKIP",
        ];
        let known = HEADERS.iter().find(|h| **h == tag);
        let known = known.ok_or_else(|| broken(format!("unexpected line {tag}:{value}")))?;
        if self.seen.contains(known) {
            return Err(broken(format!("{tag} twice")));
        }
        if self.gathering || !self.list.segments.is_empty() {
            return Err(broken(format!("{tag} behind the first segment")));
        }
        self.seen.push(known);
        let list = &mut self.list;
        match tag {
            "#EXT-X-VERSION" => list.version = integer(value)?,
            "#EXT-X-TARGETDURATION" => list.target_duration = integer(value)?,
            "#EXT-X-MEDIA-SEQUENCE" => list.media_sequence = integer(value)?,
            "#EXT-X-DISCONTINUITY-SEQUENCE" => list.discontinuity_sequence = integer(value)?,
            "#EXT-X-INDEPENDENT-SEGMENTS" => list.independent_segments = true,
            "#EXT-X-SKIP" => {
                list.skipped = integer(Attributes::parse(value)?.plain("SKIPPED-SEGMENTS")?)?;
                if list.skipped == 0 {
                    return Err(broken("EXT-X-SKIP of nothing"));
                }
            }
            "#EXT-X-PART-INF" => {
                list.part_target = Some(decimal(Attributes::parse(value)?.plain("PART-TARGET")?)?);
            }
            _ => {
                let attributes = Attributes::parse(value)?;
                list.can_block_reload = attributes.plain("CAN-BLOCK-RELOAD")? == "YES";
                list.part_hold_back = Some(decimal(attributes.plain("PART-HOLD-BACK")?)?);
                list.can_skip_until = Some(decimal(attributes.plain("CAN-SKIP-UNTIL")?)?);
            }
        }
        Ok(())
    }

    /// A tag that must stand before the parts and the duration of its segment.
    fn segment_tag(
        &mut self,
        line: &str,
        apply: impl FnOnce(&mut Segment) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        self.gathering = true;
        if !self.next.parts.is_empty() || self.next.duration.is_some() {
            return Err(broken(format!("{line} behind the segment's first part")));
        }
        apply(&mut self.next)
    }

    fn part(&mut self, value: &str) -> Result<(), Violation> {
        self.gathering = true;
        if self.next.duration.is_some() {
            return Err(broken("EXT-X-PART between EXTINF and its URI"));
        }
        let attributes = Attributes::parse(value)?;
        self.next.parts.push(Part {
            duration: decimal(attributes.plain("DURATION")?)?,
            uri: attributes.quoted("URI")?,
            independent: match attributes.get("INDEPENDENT") {
                None => false,
                Some("YES") => true,
                Some(other) => return Err(broken(format!("INDEPENDENT={other}"))),
            },
        });
        Ok(())
    }

    fn uri(&mut self, line: &str) -> Result<(), Violation> {
        if line.is_empty() || self.next.duration.is_none() {
            return Err(broken(format!("{line:?} without an EXTINF")));
        }
        self.next.uri = Some(line.into());
        self.close();
        Ok(())
    }

    fn close(&mut self) {
        let mut segment = std::mem::take(&mut self.next);
        let list = &mut self.list;
        let before = list.skipped.saturating_add(list.segments.len() as u64);
        segment.msn = list.media_sequence.saturating_add(before);
        segment.map.clone_from(&self.map);
        list.segments.push(segment);
        self.gathering = false;
    }

    fn finish(mut self) -> Result<MediaPlaylist, Violation> {
        if self.next.duration.is_some() {
            return Err(broken("an EXTINF without a URI"));
        }
        if self.gathering {
            if self.next.parts.is_empty() {
                return Err(broken("tags of a segment that has no part yet"));
            }
            self.close();
        }
        for needed in ["#EXT-X-VERSION", "#EXT-X-TARGETDURATION", "#EXT-X-MEDIA-SEQUENCE"] {
            if !self.seen.contains(&needed) {
                return Err(broken(format!("no {needed}")));
            }
        }
        Ok(self.list)
    }
}

/// An attribute list (RFC 8216bis, 4.2).
pub(super) struct Attributes<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Attributes<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, Violation> {
        let mut list: Vec<(&str, &str)> = Vec::new();
        let mut rest = text;
        loop {
            let (name, after) =
                rest.split_once('=').ok_or_else(|| broken(format!("attributes {text:?}")))?;
            let named =
                name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-');
            if name.is_empty() || !named || list.iter().any(|(n, _)| *n == name) {
                return Err(broken(format!("attribute name {name:?}")));
            }
            let len = if let Some(quoted) = after.strip_prefix('"') {
                quoted.find('"').ok_or_else(|| broken(format!("open quote in {text:?}")))? + 2
            } else {
                after.find(',').unwrap_or(after.len())
            };
            list.push((name, &after[..len]));
            rest = match after[len..].strip_prefix(',') {
                Some(more) => more,
                None if after.len() == len => return Ok(Self(list)),
                None => return Err(broken(format!("attributes {text:?}"))),
            };
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, value)| *value)
    }

    pub(super) fn plain(&self, name: &str) -> Result<&'a str, Violation> {
        let value = self.get(name).ok_or_else(|| broken(format!("no attribute {name}")))?;
        if value.is_empty() || value.contains('"') {
            return Err(broken(format!("{name}={value}")));
        }
        Ok(value)
    }

    pub(super) fn quoted(&self, name: &str) -> Result<String, Violation> {
        let value = self.get(name).ok_or_else(|| broken(format!("no attribute {name}")))?;
        match value.strip_prefix('"').and_then(|v| v.strip_suffix('"')) {
            Some(inner) if !inner.is_empty() => Ok(inner.into()),
            _ => Err(broken(format!("{name}={value}"))),
        }
    }
}

pub(super) fn integer<T: FromStr>(text: &str) -> Result<T, Violation> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let value = text.parse().ok().filter(|_| digits);
    value.ok_or_else(|| broken(format!("{text:?} is no decimal integer")))
}

/// A decimal number with at most five decimals: more have broken players.
pub(super) fn decimal(text: &str) -> Result<f64, Violation> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || decimals.len() > 5 {
        return Err(broken(format!("{text:?} is no number of at most five decimals")));
    }
    text.parse().map_err(|_| broken(text))
}

/// `YYYY-MM-DDTHH:MM:SS.mmmZ` in milliseconds since the Unix epoch.
fn date_time(text: &str) -> Result<i64, Violation> {
    let fields: Vec<&str> = text.split(['-', 'T', ':', '.']).collect();
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    if shape != "0000-00-00T00:00:00.000Z" {
        return Err(broken(format!("date {text:?}")));
    }
    let field = |i: usize| integer::<i64>(fields[i].trim_end_matches('Z'));
    let (year, month, day) = (field(0)?, field(1)?, field(2)?);
    let days: i64 = (1970..year).map(|y| if leap(y) { 366 } else { 365 }).sum::<i64>()
        + (1..month).map(|m| days_in(year, m)).sum::<i64>()
        + day
        - 1;
    let seconds = days * 86_400 + field(3)? * 3_600 + field(4)? * 60 + field(5)?;
    Ok(seconds * 1000 + field(6)?)
}

fn leap(year: i64) -> bool {
    year % 4 == 0 && year % 100 != 0 || year % 400 == 0
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}
