//! Times as people write them: RFC 3339, a day, so long ago, or milliseconds.
//!
//! In: text, and the present time. Out: milliseconds since the Unix epoch, or how to write it. Pure but
//! for [`now_ms`].

use std::time::{SystemTime, UNIX_EPOCH};

/// How a time may be written.
const FORM: &str = "write it as 2026-11-22T18:00:00Z, 2026-11-22, 24h (ago), or milliseconds since \
                    1970";
const DAY_MS: i64 = 86_400_000;

/// The present time, in milliseconds since the Unix epoch.
#[must_use]
pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Reads a time.
///
/// # Errors
/// How it may be written.
pub fn when(text: &str, now_ms: u64) -> Result<u64, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map_err(|_| FORM.to_owned());
    }
    let read = ago(text, now_ms).or_else(|| rfc3339(text));
    read.ok_or_else(|| FORM.to_owned())
}

fn ago(text: &str, now_ms: u64) -> Option<u64> {
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text.get(..at)?.parse().ok()?;
    let unit_ms = match text.get(at..)? {
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => DAY_MS as u64,
        _ => return None,
    };
    Some(now_ms.saturating_sub(number.checked_mul(unit_ms)?))
}

/// RFC 3339, section 5.6; a day alone is its beginning in UTC.
fn rfc3339(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let is = |at: usize, among: &[u8]| text.as_bytes().get(at).is_some_and(|b| among.contains(b));
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    if !is(4, b"-") || !is(7, b"-") || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let midnight_ms = days_since_1970(year, month, day) * DAY_MS;
    if text.len() == 10 {
        return u64::try_from(midnight_ms).ok();
    }
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !is(10, b"Tt ") || !is(13, b":") || !is(16, b":") {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let rest = text.get(19..)?;
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?),
        None => ("0", rest),
    };
    let millis: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    let offset_min = match zone {
        "Z" | "z" => 0,
        zone => {
            let at = text.len() - zone.len();
            let minutes = number(at + 1, at + 3)? * 60 + number(at + 4, at + 6)?;
            match (zone.len(), zone.as_bytes()[0], is(at + 3, b":")) {
                (6, b'+', true) => minutes,
                (6, b'-', true) => -minutes,
                _ => return None,
            }
        }
    };
    let of_day_ms = ((hour * 60 + minute - offset_min) * 60 + second) * 1000 + millis;
    u64::try_from(midnight_ms + of_day_ms).ok()
}

/// Days from 1970-01-01, in the Gregorian calendar: whole 400-year eras of 146,097 days, years that
/// begin in March so that the leap day is the last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = of_era * 365 + of_era / 4 - of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_form() {
        let now = 1_795_370_400_000;
        for (text, expected) in [
            ("1795350000123", 1_795_350_000_123),
            ("24h", now - 86_400_000),
            ("90s", now - 90_000),
            ("1970-01-01", 0),
            ("2000-02-29", 951_782_400_000),
            ("2026-11-22", 1_795_305_600_000),
            ("2026-11-22T18:00:00Z", now),
            ("2026-11-22 18:00:00.25Z", now + 250),
            ("2026-11-22T19:30:00.123456+01:30", now + 123),
            ("2026-11-22T12:00:00-06:00", now),
        ] {
            assert_eq!(when(text, now), Ok(expected), "{text}");
        }
        for foul in [
            "",
            "x",
            "24w",
            "2026-13-01",
            "2026-11-22T18:00",
            "2026-11-22T18:00:00",
            "1969-12-31",
            "2026-11-22T24:00:00Z",
            "2026-11-22T18:00:00+1:00",
            "2026-11-22T18:00:00.Z+",
            "99999999999999999999",
            "99999999999999999d",
            "é026-11-22",
        ] {
            assert_eq!(when(foul, now), Err(FORM.to_owned()), "{foul}");
        }
    }
}
