//! Holds playlists against RFC 8216bis and what players are known to break on.
//!
//! In: the texts of a media playlist as a client receives them one after the other, full or delta. Out:
//! [`Violation`]s. It shares nothing with the renderer, and is public so that black-box tests and the
//! load generator check what came over the network.

mod parse;
mod rules;

use std::collections::BTreeMap;
use std::fmt;

pub use parse::{Hint, MediaPlaylist, Part, Segment};

/// A rule that a playlist, or a change from one to the next, does not keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which rule: a short stable name such as `part-target`.
    pub rule: &'static str,
    /// What was found.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.detail)
    }
}

/// Follows one media playlist through its updates.
#[derive(Debug, Default)]
pub struct Checker {
    last: Option<MediaPlaylist>,
    /// Every URI ever listed and the place it named, to find names with two contents.
    names: BTreeMap<String, Place>,
    /// Parts under 85 % of the target that no exemption covers.
    short_parts: u64,
    observed: u64,
}

/// What a URI named: a segment, or a part of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    msn: u64,
    part: Option<usize>,
}

impl Checker {
    /// A checker that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next text of the playlist, a delta update included, and checks it by itself and
    /// against those before it. Short parts are only counted: variable frame rates cannot avoid them.
    ///
    /// # Errors
    /// All violations found. The playlist is remembered where it could be read at all.
    pub fn observe(&mut self, text: &str) -> Result<&MediaPlaylist, Vec<Violation>> {
        let mut found = Vec::new();
        let mut list = parse::media(text).map_err(|v| vec![v])?;
        if list.skipped > 0 {
            rules::merge(self.last.as_ref(), &mut list, &mut found);
        }
        rules::single(&list, &mut found);
        if let Some(last) = &self.last {
            rules::update(last, &list, &mut found);
        }
        self.check_names(&list, &mut found);
        self.short_parts += rules::short_parts(self.last.as_ref(), &list);
        self.observed += 1;
        let list = self.last.insert(list);
        if found.is_empty() { Ok(list) } else { Err(found) }
    }

    /// The playlist as last seen, deltas merged.
    #[must_use]
    pub fn last(&self) -> Option<&MediaPlaylist> {
        self.last.as_ref()
    }

    /// How many parts were under 85 % of the part target without being exempt.
    #[must_use]
    pub fn short_parts(&self) -> u64 {
        self.short_parts
    }

    /// How many playlists were read.
    #[must_use]
    pub fn observed(&self) -> u64 {
        self.observed
    }

    fn check_names(&mut self, list: &MediaPlaylist, found: &mut Vec<Violation>) {
        for segment in &list.segments {
            let parts = segment.parts.iter().enumerate();
            let parts = parts.map(|(i, p)| (&p.uri, Place { msn: segment.msn, part: Some(i) }));
            let whole = segment.uri.iter().map(|u| (u, Place { msn: segment.msn, part: None }));
            for (uri, place) in parts.chain(whole) {
                let known = self.names.entry(uri.clone()).or_insert(place);
                if *known != place {
                    let detail = format!("{uri} names {known:?} and {place:?}");
                    found.push(Violation { rule: "unique-names", detail });
                }
            }
        }
    }
}

/// Checks a multivariant playlist: one variant, complete attributes, a URI.
///
/// # Errors
/// All violations found.
pub fn multivariant(text: &str) -> Result<(), Vec<Violation>> {
    let mut found = Vec::new();
    rules::multivariant(text, &mut found);
    if found.is_empty() { Ok(()) } else { Err(found) }
}

#[cfg(test)]
mod tests;
