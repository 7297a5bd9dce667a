//! Dates and times: ISO 8601 text, and the numbers that stand for infinity.

use super::value::Why;

/// Microseconds in a day; also the time `24:00:00`.
pub(in crate::decode) const DAY_US: i64 = 86_400_000_000;

const INFINITE: Why = "it stands for infinity, which the column cannot hold; map it to a date or null at the source";
const NO_DATE: Why = "it is not an ISO date or time";

/// The numbers that Debezium sends for Postgres' infinite timestamps: its own pair (of microseconds and, divided, of
/// milliseconds), and the ends of the range.
pub(super) fn finite_timestamp(us: i64) -> Result<i64, Why> {
    match us {
        9_223_372_036_825_200_000 | -9_223_372_036_832_400_000 | i64::MAX | i64::MIN => Err(INFINITE),
        _ => Ok(us),
    }
}

/// Days since 1970. Infinite dates come as days near the ends of what 32 bits hold.
pub(super) fn finite_date(days: i64) -> Result<i32, Why> {
    if days.unsigned_abs() > 290_000_000 {
        return Err(INFINITE);
    }
    Ok(days as i32)
}

/// A time of day.
pub(super) fn of_day(us: i64) -> Result<i64, Why> {
    if (0..=DAY_US).contains(&us) {
        return Ok(us);
    }
    Err("it is not a time between 00:00 and 24:00; declare the column `duration` in a contract to hold such values")
}

/// Days since 1970-01-01 of a day of the proleptic Gregorian calendar (year 0 = 1 BC).
pub(in crate::decode) fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => return None,
    };
    if !(1..=last).contains(&day) || year.abs() > 1_000_000 {
        return None;
    }
    // Years begin in March, so that the leap day is the last one.
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let of_era = shifted.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take(&mut self, byte: u8) -> bool {
        let found = self.0.first() == Some(&byte);
        self.0 = &self.0[usize::from(found)..];
        found
    }

    fn need(&mut self, byte: u8) -> Option<()> {
        self.take(byte).then_some(())
    }

    fn digits(&mut self, least: usize, most: usize) -> Option<i64> {
        let (mut value, mut count) = (0, 0);
        while let Some(digit @ b'0'..=b'9') = self.0.get(count).filter(|_| count < most) {
            value = value * 10 + i64::from(digit - b'0');
            count += 1;
        }
        self.0 = &self.0[count..];
        (count >= least).then_some(value)
    }

    #[inline]
    fn two_digits(&mut self) -> Option<i64> {
        let [tens @ b'0'..=b'9', ones @ b'0'..=b'9', rest @ ..] = self.0 else { return None };
        self.0 = rest;
        Some(i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
    }

    fn date(&mut self) -> Option<i64> {
        let negative = self.take(b'-');
        if !negative {
            self.take(b'+');
        }
        let year = match self.0.get(4) {
            Some(b'-') => self.two_digits()? * 100 + self.two_digits()?,
            _ => self.digits(4, 7)?,
        };
        self.need(b'-')?;
        let month = self.two_digits()?;
        self.need(b'-')?;
        let day = self.two_digits()?;
        days(if negative { -year } else { year }, month, day)
    }

    /// `HH:MM[:SS[.f]]` in nanoseconds.
    fn clock(&mut self) -> Option<i64> {
        let hour = self.two_digits()?;
        self.need(b':')?;
        let minute = self.two_digits()?;
        let second = if self.take(b':') { self.two_digits()? } else { 0 };
        let mut nanos = 0;
        if self.take(b'.') || self.take(b',') {
            let before = self.0.len();
            nanos = self.digits(1, 9)?;
            for _ in before - self.0.len()..9 {
                nanos *= 10;
            }
        }
        let total = ((hour * 60 + minute) * 60 + second) * 1_000_000_000 + nanos;
        (minute < 60 && second < 60 && total <= DAY_US * 1_000).then_some(total)
    }

    /// The zone in seconds east of Greenwich; `None` when there is none, an error when it is not one.
    fn zone(&mut self) -> Option<Option<i64>> {
        if self.0.is_empty() {
            return Some(None);
        }
        if self.take(b'Z') || self.take(b'z') {
            return Some(Some(0));
        }
        let east = self.take(b'+');
        if !east {
            self.need(b'-')?;
        }
        let hours = self.two_digits()?;
        self.take(b':');
        let minutes = if self.0.is_empty() { 0 } else { self.two_digits()? };
        let seconds = if self.take(b':') { self.two_digits()? } else { 0 };
        if hours > 18 || minutes > 59 || seconds > 59 {
            return None;
        }
        let total = (hours * 60 + minutes) * 60 + seconds;
        Some(Some(if east { total } else { -total }))
    }
}

fn micros(nanos: i64) -> Result<i64, Why> {
    if nanos % 1_000 == 0 {
        Ok(nanos / 1_000)
    } else {
        Err("it has digits below the microsecond, which cannot be kept")
    }
}

fn refuse(text: &str) -> Why {
    if text.trim_start_matches(['-', '+']).eq_ignore_ascii_case("infinity") { INFINITE } else { NO_DATE }
}

/// `2017-09-15`, with or without a zone (which Debezium adds and which says nothing).
pub(super) fn iso_date(text: &str) -> Result<i32, Why> {
    let mut reader = Reader(text.as_bytes());
    let days = reader.date().ok_or_else(|| refuse(text))?;
    match reader.zone() {
        Some(None | Some(0)) if reader.0.is_empty() => finite_date(days),
        _ => Err(NO_DATE),
    }
}

/// `04:05:11.789`, with or without `Z`.
pub(super) fn iso_time(text: &str) -> Result<i64, Why> {
    let mut reader = Reader(text.as_bytes());
    let nanos = reader.clock().ok_or(NO_DATE)?;
    match reader.zone() {
        Some(None | Some(0)) if reader.0.is_empty() => micros(nanos),
        _ => Err("it has a zone, which a time of day cannot hold"),
    }
}

fn date_time(text: &str) -> Result<(i64, Option<i64>), Why> {
    let mut reader = Reader(text.as_bytes());
    let days = reader.date().ok_or_else(|| refuse(text))?;
    if !(reader.take(b'T') || reader.take(b' ')) {
        return Err(NO_DATE);
    }
    let clock = micros(reader.clock().filter(|nanos| *nanos < DAY_US * 1_000).ok_or(NO_DATE)?)?;
    let zone = reader.zone().filter(|_| reader.0.is_empty()).ok_or(NO_DATE)?;
    let us = days.checked_mul(DAY_US).and_then(|us| us.checked_add(clock)).ok_or("it is beyond the calendar")?;
    Ok((us, zone))
}

/// A date and time without a zone; a `Z` that only fills the form is accepted.
pub(super) fn iso_timestamp(text: &str) -> Result<i64, Why> {
    match date_time(text)? {
        (us, None | Some(0)) => finite_timestamp(us),
        _ => Err("it has a zone; declare the column `timestamptz` in a contract"),
    }
}

/// A date and time with a zone, in UTC.
pub(super) fn iso_timestamptz(text: &str) -> Result<i64, Why> {
    match date_time(text)? {
        (us, Some(east)) => finite_timestamp(us.checked_sub(east * 1_000_000).ok_or("it is beyond the calendar")?),
        (_, None) => Err("it has no zone; declare the column `timestamp` in a contract"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use chrono::DateTime;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn dates_and_times_are_read_as_chrono_reads_them(us in -62_135_596_800_000_000i64..253_402_300_800_000_000) {
            let time = DateTime::from_timestamp_micros(us).unwrap();
            let text = time.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
            prop_assert_eq!(iso_timestamptz(&text), Ok(us));
            prop_assert_eq!(iso_timestamp(&text[..26]), Ok(us));
            prop_assert_eq!(iso_date(&text[..10]).map(i64::from), Ok(us.div_euclid(DAY_US)));
            prop_assert_eq!(iso_time(&text[11..26]), Ok(us.rem_euclid(DAY_US)));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[-+0-9TZ:. infty]{0,32}") {
            let _any = (iso_date(&text), iso_time(&text), iso_timestamp(&text), iso_timestamptz(&text));
        }
    }

    #[test]
    fn edges() {
        assert_eq!(iso_time("24:00:00"), Ok(DAY_US));
        assert!(iso_time("24:00:01").is_err() && iso_time("23:60:00").is_err() && iso_time("11:51:30+02:00").is_err());
        assert!(iso_timestamp("2020-01-01T24:00:00").is_err());
        assert!(iso_timestamptz("2020-01-01T00:00:00.1234567Z").is_err());
        assert_eq!(iso_timestamptz("1970-01-01T00:00Z"), Ok(0));
        assert_eq!(iso_timestamptz("1970-01-01T00:00:00.1234560Z"), Ok(123_456));
        // 24 November 4714 BC, the first day that Postgres knows (year 0 is 1 BC); 31 December 4713 BC.
        assert_eq!(iso_timestamp("-4713-11-24T00:00:00"), Ok(-210_866_803_200_000_000));
        assert_eq!(iso_timestamp("-4712-12-31T23:59:59.999999"), Ok(-210_831_897_600_000_001));
        assert_eq!(finite_date(-2_147_472_693).unwrap_err(), INFINITE);
    }
}
