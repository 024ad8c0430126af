//! Blocking playlist reload and delta updates: what a request asks for, and whether it waits.
//!
//! In: the query string of a media playlist request, and the published manifest. Out: a
//! [`Decision`]. Pure: the caller waits, and asks again whenever something was published; how long it
//! waits at most is its own business (RFC 8216bis, 6.2.5.2: three target durations).

use super::Form;
use crate::manifest::{Constants, Manifest, Msn, Status};

/// How many segments a request may be ahead of the newest complete one (RFC 8216bis, 6.2.5.2).
pub const ADVANCE_SEGMENT_LIMIT: u64 = 2;

/// The delivery directives of a media playlist request (RFC 8216bis, 6.2.5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ReloadQuery {
    /// `_HLS_msn`: answer once this segment, or the part of it, is listed.
    pub msn: Option<u64>,
    /// `_HLS_part`: the part's index within the segment.
    pub part: Option<u64>,
    /// `_HLS_skip`: a delta update is welcome.
    pub skip: bool,
}

/// Why a query was refused, in words for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadQuery {
    /// The value is no decimal number below 2^64.
    #[error("{0} is not a decimal number")]
    NotANumber(&'static str),
    /// The directive came twice.
    #[error("{0} is given twice")]
    Twice(&'static str),
    /// `_HLS_part` needs the segment it counts in.
    #[error("_HLS_part needs _HLS_msn")]
    PartWithoutMsn,
    /// The segment is further ahead than a client can know of.
    #[error("_HLS_msn {asked} is more than 2 past the last segment, {last}")]
    TooFarAhead {
        /// What was asked for.
        asked: u64,
        /// The newest complete segment.
        last: u64,
    },
    /// The part is further ahead than the advance part limit.
    #[error("_HLS_part {asked} is {limit} or more past the last part of its segment")]
    PartTooFarAhead {
        /// What was asked for.
        asked: u64,
        /// The advance part limit.
        limit: u64,
    },
}

/// What to do with a media playlist request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Answer with the playlist as it is.
    Now,
    /// Hold it until this is published, then ask again: what it needs may have moved on.
    Wait {
        /// The segment waited for.
        msn: Msn,
        /// The index of the part waited for; `None` for the complete segment.
        part: Option<u64>,
    },
    /// Answer 400 with this text.
    BadRequest(BadQuery),
}

impl ReloadQuery {
    /// Reads the directives of a query string; other parameters, and directives of other versions of
    /// the protocol, are passed over.
    ///
    /// # Errors
    /// Names the directive that is malformed or given twice.
    pub fn parse(query: &str) -> Result<Self, BadQuery> {
        let mut parsed = Self::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "_HLS_msn" => number(&mut parsed.msn, "_HLS_msn", value)?,
                "_HLS_part" => number(&mut parsed.part, "_HLS_part", value)?,
                // What else a skip directive may say is answered with the full playlist, which is
                // always right.
                "_HLS_skip" => parsed.skip = matches!(value, "YES" | "v2"),
                _ => {}
            }
        }
        Ok(parsed)
    }

    /// The form of playlist it asks for.
    #[must_use]
    pub fn form(&self) -> Form {
        if self.skip { Form::Delta } else { Form::Full }
    }
}

fn number(slot: &mut Option<u64>, name: &'static str, value: &str) -> Result<(), BadQuery> {
    if slot.is_some() {
        return Err(BadQuery::Twice(name));
    }
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_digit()) {
        return Err(BadQuery::NotANumber(name));
    }
    *slot = Some(value.parse().map_err(|_| BadQuery::NotANumber(name))?);
    Ok(())
}

/// The advance part limit: how many parts past the newest one a request may name (RFC 8216bis,
/// 6.2.5.2): three seconds' worth for parts under a second, else three.
#[must_use]
pub fn advance_part_limit(constants: &Constants) -> u64 {
    match u64::from(constants.part_target_ms) {
        0 => 3, // not a target any home freezes
        ms @ 1..1000 => 3_000u64.div_ceil(ms),
        _ => 3,
    }
}

/// Decides about a request for the media playlist.
#[must_use]
pub fn block(manifest: &Manifest, query: ReloadQuery) -> Decision {
    if manifest.status() == Status::Ended {
        return Decision::Now;
    }
    let msn = match (query.msn, query.part) {
        (Some(msn), _) => msn,
        (None, None) => return Decision::Now,
        (None, Some(_)) => return Decision::BadRequest(BadQuery::PartWithoutMsn),
    };
    if manifest.segments().front().is_some_and(|first| msn < first.open.msn.0) {
        return Decision::Now; // left the window: only the playlist as it is can help
    }
    let Some(last) = manifest.segments().iter().rev().find(|s| s.duration.is_some()) else {
        return Decision::Wait { msn: Msn(msn), part: query.part };
    };
    let last = last.open.msn.0;
    if msn.saturating_sub(last) > ADVANCE_SEGMENT_LIMIT {
        return Decision::BadRequest(BadQuery::TooFarAhead { asked: msn, last });
    }
    match query.part {
        None if msn <= last => Decision::Now,
        None => Decision::Wait { msn: Msn(msn), part: None },
        Some(part) => block_part(manifest, Msn(msn), part),
    }
}

fn block_part(manifest: &Manifest, msn: Msn, part: u64) -> Decision {
    let segment = manifest.segment(msn);
    let listed = segment.map_or(0, |s| s.parts.len() as u64);
    if part < listed {
        return Decision::Now;
    }
    if segment.is_some_and(|s| s.duration.is_some()) {
        // A part that a complete segment does not have means the first of the next one.
        return block_part(manifest, msn.next(), 0);
    }
    let limit = manifest.header().constants.map_or(u64::MAX, |c| advance_part_limit(&c));
    if part - listed >= limit {
        return Decision::BadRequest(BadQuery::PartTooFarAhead { asked: part, limit });
    }
    Decision::Wait { msn, part: Some(part) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{FIVE, Home};
    use super::*;
    use crate::manifest::Entry;

    /// Segments 100 to 115 complete, of which the window lists 102 on; 116 open with two parts.
    fn manifest() -> Manifest {
        let mut home = Home::new(2, 200);
        for _ in 0..16 {
            home.segment(&FIVE);
        }
        home.open();
        home.part(18_000, true);
        home.part(18_000, false);
        home.manifest
    }

    fn ask(manifest: &Manifest, query: &str) -> Decision {
        block(manifest, ReloadQuery::parse(query).unwrap())
    }

    fn wait(msn: u64, part: impl Into<Option<u64>>) -> Decision {
        Decision::Wait { msn: Msn(msn), part: part.into() }
    }

    #[test]
    fn queries_are_read() {
        let parse = ReloadQuery::parse;
        assert_eq!(parse(""), Ok(ReloadQuery::default()));
        assert_eq!(
            parse("token=x&_HLS_msn=7&_HLS_part=0&_HLS_skip=YES"),
            Ok(ReloadQuery { msn: Some(7), part: Some(0), skip: true })
        );
        assert_eq!(parse("_HLS_skip=v2").unwrap().form(), Form::Delta);
        assert_eq!(parse("_HLS_skip=NO&_HLS_push=1").unwrap(), ReloadQuery::default());
        for bad in ["_HLS_msn=", "_HLS_msn=-1", "_HLS_msn=+1", "_HLS_msn=1e3", "_HLS_msn"] {
            assert_eq!(parse(bad), Err(BadQuery::NotANumber("_HLS_msn")), "{bad}");
        }
        assert_eq!(
            parse("_HLS_msn=1&_HLS_part=18446744073709551616"),
            Err(BadQuery::NotANumber("_HLS_part"))
        );
        assert_eq!(parse("_HLS_msn=1&_HLS_msn=1"), Err(BadQuery::Twice("_HLS_msn")));
    }

    #[test]
    fn what_is_listed_is_answered_at_once() {
        let m = manifest();
        for query in [
            "",
            "_HLS_msn=115",
            "_HLS_msn=102&_HLS_part=0",
            "_HLS_msn=115&_HLS_part=4",
            "_HLS_msn=116&_HLS_part=0",
            "_HLS_msn=116&_HLS_part=1",
            // A part that 115 does not have is the first of 116, which is there.
            "_HLS_msn=115&_HLS_part=5",
            "_HLS_msn=115&_HLS_part=900",
            // Left the window long ago.
            "_HLS_msn=101",
            "_HLS_msn=0&_HLS_part=3",
        ] {
            assert_eq!(ask(&m, query), Decision::Now, "{query}");
        }
    }

    #[test]
    fn what_is_to_come_is_waited_for() {
        let m = manifest();
        assert_eq!(ask(&m, "_HLS_msn=116"), wait(116, None));
        assert_eq!(ask(&m, "_HLS_msn=117"), wait(117, None));
        assert_eq!(ask(&m, "_HLS_msn=116&_HLS_part=2"), wait(116, 2));
        assert_eq!(ask(&m, "_HLS_msn=116&_HLS_part=16"), wait(116, 16));
        assert_eq!(ask(&m, "_HLS_msn=117&_HLS_part=0"), wait(117, 0));
    }

    #[test]
    fn a_part_past_the_end_waits_for_the_next_segment() {
        let mut home = Home::new(2, 200);
        home.segment(&FIVE);
        assert_eq!(ask(&home.manifest, "_HLS_msn=100&_HLS_part=5"), wait(101, 0));
        home.open();
        assert_eq!(ask(&home.manifest, "_HLS_msn=100&_HLS_part=5"), wait(101, 0));
        home.part(18_000, true);
        assert_eq!(ask(&home.manifest, "_HLS_msn=100&_HLS_part=5"), Decision::Now);
        // Waited for part 3 of 101, which closes after one part: on to 102.
        assert_eq!(ask(&home.manifest, "_HLS_msn=101&_HLS_part=3"), wait(101, 3));
        home.close();
        assert_eq!(ask(&home.manifest, "_HLS_msn=101&_HLS_part=3"), wait(102, 0));
    }

    #[test]
    fn what_no_client_can_mean_is_refused() {
        let m = manifest();
        let refused = |query: &str| match ask(&m, query) {
            Decision::BadRequest(why) => why.to_string(),
            other => panic!("{query}: {other:?}"),
        };
        assert_eq!(refused("_HLS_part=1"), "_HLS_part needs _HLS_msn");
        assert_eq!(
            refused("_HLS_msn=118"),
            "_HLS_msn 118 is more than 2 past the last segment, 115"
        );
        assert!(refused(&format!("_HLS_msn={}&_HLS_part=0", u64::MAX)).contains("more than 2"));
        assert!(refused("_HLS_msn=116&_HLS_part=17").contains("15 or more past"));
        assert!(refused("_HLS_msn=117&_HLS_part=15").contains("15 or more past"));
        assert!(refused(&format!("_HLS_msn=116&_HLS_part={}", u64::MAX)).contains("_HLS_part"));
    }

    #[test]
    fn an_ended_playlist_answers_everything() {
        let mut m = manifest();
        m.apply(&Entry::End).unwrap();
        for query in ["_HLS_msn=116", "_HLS_msn=900&_HLS_part=7", "_HLS_part=1"] {
            assert_eq!(ask(&m, query), Decision::Now, "{query}");
        }
    }

    #[test]
    fn the_advance_part_limit() {
        let limit = |part_target_ms| {
            advance_part_limit(&Constants { target_duration_s: 2, part_target_ms })
        };
        assert_eq!([200, 210, 334, 999, 1000, 2000].map(limit), [15, 15, 9, 4, 3, 3]);
    }

    /// Whether a part at or behind (msn, part) is listed, or for no part the whole segment.
    fn is_there(manifest: &Manifest, msn: u64, part: Option<u64>) -> bool {
        let mut segments = manifest.segments().iter();
        match part {
            None => segments.any(|s| s.open.msn.0 >= msn && s.duration.is_some()),
            Some(part) => segments.any(|s| {
                let newest = s.parts.len().checked_sub(1).map(|p| (s.open.msn.0, p as u64));
                newest.is_some_and(|newest| newest >= (msn, part))
            }),
        }
    }

    proptest! {
        #[test]
        fn an_answer_never_comes_before_what_was_asked_for(
            before in 1usize..20,
            open in 0usize..5,
            msn in 98u64..124,
            part in proptest::option::of(0u64..20),
        ) {
            let mut home = Home::new(2, 200);
            for _ in 0..before {
                home.segment(&FIVE);
            }
            if open > 0 {
                home.open();
                (0..open).for_each(|i| home.part(18_000, i == 0));
            }
            let query = ReloadQuery { msn: Some(msn), part, skip: false };
            let oldest = home.manifest.window().first.0;
            for step in open..40 {
                match block(&home.manifest, query) {
                    Decision::Now => {
                        let there = is_there(&home.manifest, msn, part);
                        prop_assert!(there || msn < oldest, "answered early");
                        return Ok(());
                    }
                    Decision::Wait { msn: at, part: index } => {
                        prop_assert!((at.0, index) >= (msn, None));
                        prop_assert!(!is_there(&home.manifest, msn, part), "kept waiting");
                    }
                    Decision::BadRequest(_) => {
                        prop_assert_eq!(step, open, "refused after it had been waiting");
                        let last = 100 + before as u64 - 1;
                        prop_assert!(msn > last + 2 || part.is_some_and(|p| p >= 15));
                        return Ok(());
                    }
                }
                match step % 5 {
                    0 => {
                        if step > 0 {
                            home.close();
                        }
                        home.open();
                        home.part(18_000, true);
                    }
                    _ => home.part(18_000, false),
                }
            }
            prop_assert!(false, "never answered");
        }
    }
}
