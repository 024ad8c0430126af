//! Numbers and times as playlists write them, without an allocation each.
//!
//! In: ticks, milliseconds. Out: text through [`std::fmt::Display`].

use std::fmt;

/// 90 kHz ticks as seconds with five decimals, rounded down: a part of exactly PART-TARGET must not
/// read longer than it, and more decimals have broken players (RFC 8216bis asks for none).
pub(super) struct Seconds(pub(super) u32);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, ticks) = (self.0 / 90_000, self.0 % 90_000);
        write!(f, "{whole}.{:05}", ticks * 10 / 9)
    }
}

/// Thousandths with three decimals.
pub(super) struct Milli(pub(super) u64);

impl fmt::Display for Milli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// Milliseconds since the Unix epoch as an ISO 8601 date and time in UTC.
pub(super) struct Utc(pub(super) u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, ms) = (self.0 / 86_400_000, self.0 % 86_400_000);
        let (year, month, day) = civil(days);
        let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        write!(f, ".{:03}Z", ms % 1000)
    }
}

/// The Gregorian date of a day counted from 1970-01-01. Years begin in March here, so that the leap
/// day is a year's last, and eras are the 400 years after which the calendar repeats.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_PER_ERA: u64 = 146_097;
    const DAYS_BEFORE_1970: u64 = 719_468; // from 0000-03-01
    let days = days + DAYS_BEFORE_1970;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let leap_days = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March on have 31 30 31 30 31 days, again and again.
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_round_down() {
        let text = |ticks| Seconds(ticks).to_string();
        assert_eq!(text(0), "0.00000");
        assert_eq!(text(18_000), "0.20000");
        assert_eq!(text(19_200), "0.21333");
        assert_eq!(text(90_000 - 1), "0.99998");
        assert_eq!(text(900_001), "10.00001");
        assert_eq!(Milli(213).to_string(), "0.213");
        assert_eq!(Milli(12_000).to_string(), "12.000");
    }

    #[test]
    fn dates_are_right() {
        let text = |ms| Utc(ms).to_string();
        assert_eq!(text(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(text(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(text(1_709_251_199_001), "2024-02-29T23:59:59.001Z");
        assert_eq!(text(1_795_371_845_067), "2026-11-22T18:24:05.067Z");
        assert_eq!(text(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
        let _ = text(u64::MAX);
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut last = civil(0);
        for day in 1..200_000 {
            let next = civil(day);
            let (y, m, d) = last;
            let follows = next == (y, m, d + 1)
                || next == (y, m + 1, 1) && d >= 28
                || next == (y + 1, 1, 1) && (m, d) == (12, 31);
            assert!(follows, "{last:?} {next:?}");
            last = next;
        }
    }
}
