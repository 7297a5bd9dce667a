//! Values in their binary form: straight into their column where that keeps them as they are, else by the text that the
//! server would have written, so that both ways give and refuse the same.

use std::fmt::Write as _;

use super::row::{self, Column};
use super::types::Reading;
use crate::decode::debezium::builder::Exact;
use crate::decode::debezium::row::RowError;
use crate::decode::debezium::rows::Rows;
use crate::decode::debezium::value::Unit;
use crate::decode::debezium::wire::Wire;
use crate::wire::pgtype::BinaryForm;

/// Days from 1970-01-01 to 2000-01-01, where PostgreSQL begins to count.
const EPOCH_DAYS: i64 = 10_957;
const DAY_US: i64 = 86_400_000_000;
/// The first day after Christ, in days since 1970.
const FIRST_DAY: i64 = -719_162;
/// What digits of a numeric count to.
const NUMERIC_BASE: i16 = 10_000;
const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Appends a value.
#[inline]
pub(super) fn append(
    column: &Column,
    rows: &mut Rows,
    index: usize,
    bytes: &[u8],
    ignore: bool,
    scratch: &mut String,
) -> Result<(), RowError> {
    let Some(form) = column.binary else { return Err(RowError::Malformed) };
    match form {
        BinaryForm::Text => {
            let text = simdutf8::basic::from_utf8(bytes).map_err(|_| RowError::Malformed)?;
            if matches!(column.reading, Reading::Text) && rows.append_exact(index, Exact::Text(text)) {
                return Ok(());
            }
            return row::append(column, rows, index, bytes, ignore, scratch);
        }
        BinaryForm::Jsonb => {
            let text = bytes.strip_prefix(&[1]).ok_or(RowError::Malformed)?;
            return row::append(column, rows, index, text, ignore, scratch);
        }
        _ if native(form, rows, index, bytes) => return Ok(()),
        _ => {}
    }
    // Where it is judged, its text is.
    let mut text = std::mem::take(scratch);
    text.clear();
    let zoned = column.wire == Wire::ZonedTimestamp;
    let done = match write(form, bytes, zoned, &mut text) {
        Some(()) => row::append(column, rows, index, text.as_bytes(), ignore, scratch),
        None => Err(RowError::Malformed),
    };
    *scratch = text;
    done
}

/// Appends what its column keeps in the same form; says whether it did.
fn native(form: BinaryForm, rows: &mut Rows, index: usize, bytes: &[u8]) -> bool {
    match form {
        BinaryForm::Integer | BinaryForm::Oid => {
            integer(form, bytes).is_some_and(|number| rows.append_whole(index, Wire::Integer, number))
        }
        BinaryForm::Float => match bytes.len() {
            4 => array(bytes).is_some_and(|b| rows.append_exact(index, Exact::Single(f32::from_be_bytes(b)))),
            _ => array(bytes).is_some_and(|b| rows.append_exact(index, Exact::Double(f64::from_be_bytes(b)))),
        },
        BinaryForm::Boolean => {
            array::<1>(bytes).is_some_and(|[byte]| rows.append_exact(index, Exact::Boolean(byte != 0)))
        }
        BinaryForm::Numeric => small_numeric(bytes)
            .is_some_and(|(unscaled, scale)| rows.append_exact(index, Exact::Decimal(unscaled, scale))),
        BinaryForm::Uuid => array(bytes).is_some_and(|bytes| rows.append_exact(index, Exact::Uuid(bytes))),
        BinaryForm::Bytes => rows.append_exact(index, Exact::Bytes(bytes)),
        BinaryForm::Date => match date(bytes) {
            Some(Moment::At(days)) if days >= FIRST_DAY => rows.append_whole(index, Wire::Days, days),
            _ => false,
        },
        BinaryForm::Timestamp => match timestamp(bytes) {
            Some(Moment::At(us)) if us >= FIRST_DAY * DAY_US => {
                rows.append_whole(index, Wire::Timestamp(Unit::Micro), us)
            }
            _ => false,
        },
        _ => false,
    }
}

fn array<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}

fn integer(form: BinaryForm, bytes: &[u8]) -> Option<i64> {
    match (form, bytes.len()) {
        (BinaryForm::Oid, _) => array(bytes).map(|b| i64::from(u32::from_be_bytes(b))),
        (_, 2) => array(bytes).map(|b| i64::from(i16::from_be_bytes(b))),
        (_, 4) => array(bytes).map(|b| i64::from(i32::from_be_bytes(b))),
        _ => array(bytes).map(i64::from_be_bytes),
    }
}

/// A date in days, or a time in microseconds, since 1970.
enum Moment {
    At(i64),
    Late,
    Early,
    /// Later than 64 bits hold: microseconds since 2000.
    Beyond(i64),
}

fn date(bytes: &[u8]) -> Option<Moment> {
    Some(match i32::from_be_bytes(array(bytes)?) {
        i32::MAX => Moment::Late,
        i32::MIN => Moment::Early,
        days => Moment::At(i64::from(days) + EPOCH_DAYS),
    })
}

fn timestamp(bytes: &[u8]) -> Option<Moment> {
    Some(match i64::from_be_bytes(array(bytes)?) {
        i64::MAX => Moment::Late,
        i64::MIN => Moment::Early,
        us => us.checked_add(EPOCH_DAYS * DAY_US).map_or(Moment::Beyond(us), Moment::At),
    })
}

/// The text of a value, as the server writes it.
fn write(form: BinaryForm, bytes: &[u8], zoned: bool, out: &mut String) -> Option<()> {
    match form {
        BinaryForm::Boolean => out.push(if array::<1>(bytes)?[0] == 0 { 'f' } else { 't' }),
        BinaryForm::Integer | BinaryForm::Oid => write!(out, "{}", integer(form, bytes)?).ok()?,
        BinaryForm::Float if bytes.len() == 4 => float(f64::from(f32::from_be_bytes(array(bytes)?)), out, || {
            f32::from_be_bytes(array(bytes).unwrap_or_default()).to_string()
        }),
        BinaryForm::Float => {
            let value = f64::from_be_bytes(array(bytes)?);
            float(value, out, || value.to_string());
        }
        BinaryForm::Numeric => numeric(bytes, out)?,
        BinaryForm::Date => match date(bytes)? {
            Moment::At(days) => {
                let era = day(days, out);
                out.push_str(era);
            }
            other => infinite(&other, out),
        },
        BinaryForm::Time => clock(i64::from_be_bytes(array(bytes)?), out),
        BinaryForm::Timestamp => match timestamp(bytes)? {
            Moment::At(us) => date_time(us.div_euclid(DAY_US), us.rem_euclid(DAY_US), zoned, out),
            Moment::Beyond(us) => {
                date_time(us.div_euclid(DAY_US) + EPOCH_DAYS, us.rem_euclid(DAY_US), zoned, out);
            }
            other => infinite(&other, out),
        },
        BinaryForm::Bytes => {
            out.push_str("\\x");
            hexadecimal(bytes, out);
        }
        BinaryForm::Uuid => {
            array::<16>(bytes)?;
            for (at, part) in [&bytes[..4], &bytes[4..6], &bytes[6..8], &bytes[8..10], &bytes[10..]].iter().enumerate()
            {
                out.push_str(if at > 0 { "-" } else { "" });
                hexadecimal(part, out);
            }
        }
        BinaryForm::Text | BinaryForm::Jsonb => return None,
    }
    Some(())
}

fn hexadecimal(bytes: &[u8], out: &mut String) {
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
}

fn float(value: f64, out: &mut String, finite: impl FnOnce() -> String) {
    match value {
        value if value.is_nan() => out.push_str("NaN"),
        f64::INFINITY => out.push_str("Infinity"),
        f64::NEG_INFINITY => out.push_str("-Infinity"),
        _ => out.push_str(&finite()),
    }
}

fn infinite(moment: &Moment, out: &mut String) {
    out.push_str(if matches!(moment, Moment::Early) { "-infinity" } else { "infinity" });
}

/// A day of the proleptic Gregorian calendar; what stands behind it (and behind a time of that day) before Christ.
fn day(days: i64, out: &mut String) -> &'static str {
    // Years begin in March, so that the leap day is the last one.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (year, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    let _a_string_takes_all = write!(out, "{year:04}-{month:02}-{day:02}");
    era
}

fn clock(us: i64, out: &mut String) {
    let (seconds, fraction) = (us / 1_000_000, us % 1_000_000);
    let _a_string_takes_all = write!(out, "{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if fraction > 0 {
        let _a_string_takes_all = write!(out, ".{fraction:06}");
        out.truncate(out.trim_end_matches('0').len());
    }
}

fn date_time(days: i64, us: i64, zoned: bool, out: &mut String) {
    let era = day(days, out);
    out.push(' ');
    clock(us, out);
    if zoned {
        out.push_str("+00");
    }
    out.push_str(era);
}

/// The powers of ten that 64 bits hold.
const TENS: [i64; 19] = {
    let mut tens = [1; 19];
    let mut at = 1;
    while at < 19 {
        tens[at] = tens[at - 1] * 10;
        at += 1;
    }
    tens
};

/// A finite numeric of up to four digits to the base of 10,000, which nearly all have: its digits and its scale.
fn small_numeric(bytes: &[u8]) -> Option<(i128, i32)> {
    let (head, digits) = bytes.split_first_chunk::<8>()?;
    let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let (count, weight, sign, scale) = (word(0), i32::from(word(2) as i16), word(4), i32::from(word(6)));
    let (digits, []) = digits.as_chunks::<2>() else { return None };
    if digits.len() != usize::from(count) || count > 4 || !matches!(sign, 0 | 0x4000) {
        return None;
    }
    let mut value = 0;
    for digit in digits {
        let digit = i16::from_be_bytes(*digit);
        if !(0..NUMERIC_BASE).contains(&digit) {
            return None;
        }
        value = value * i64::from(NUMERIC_BASE) + i64::from(digit);
    }
    // So many of its decimal digits stand behind the point; its scale may ask for more of them, or for fewer.
    let behind = 4 * (i32::from(count) - 1 - weight);
    let value = match scale - behind {
        more @ 0..=18 => i128::from(value) * i128::from(TENS[more as usize]),
        fewer @ -18..=-1 => {
            let by = TENS[fewer.unsigned_abs() as usize];
            (value % by == 0).then(|| i128::from(value / by))?
        }
        _ => return None,
    };
    Some((if sign == 0 { value } else { -value }, scale))
}

/// `count, weight, sign, scale` and digits to the base of 10,000, the first of which counts `10,000 ^ weight`.
fn numeric(bytes: &[u8], out: &mut String) -> Option<()> {
    let word = |at: usize| bytes.get(at * 2..at * 2 + 2).and_then(array::<2>);
    let (count, weight) = (u16::from_be_bytes(word(0)?), i16::from_be_bytes(word(1)?));
    let (sign, scale) = (u16::from_be_bytes(word(2)?), usize::from(u16::from_be_bytes(word(3)?)));
    if bytes.len() != 8 + 2 * usize::from(count) {
        return None;
    }
    match sign {
        0 => {}
        0x4000 => out.push('-'),
        0xC000 => out.push_str("NaN"),
        0xD000 => out.push_str("Infinity"),
        0xF000 => out.push_str("-Infinity"),
        _ => return None,
    }
    if sign & 0x8000 != 0 {
        return Some(());
    }
    let weight = i32::from(weight);
    let digit = |at: i32| -> Option<i16> {
        let Some(at) = usize::try_from(at).ok().filter(|at| *at < usize::from(count)) else { return Some(0) };
        word(4 + at).map(i16::from_be_bytes).filter(|digit| (0..NUMERIC_BASE).contains(digit))
    };
    if weight < 0 {
        out.push('0');
    }
    for at in 0..=weight {
        let digit = digit(at)?;
        let _a_string_takes_all = if at == 0 { write!(out, "{digit}") } else { write!(out, "{digit:04}") };
    }
    if scale > 0 {
        out.push('.');
        let end = out.len() + scale;
        let mut at = weight + 1;
        while out.len() < end {
            let _a_string_takes_all = write!(out, "{:04}", digit(at)?);
            at += 1;
        }
        out.truncate(end);
    }
    Some(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use chrono::{Datelike, NaiveDate};
    use proptest::prelude::*;

    use super::*;

    fn text(form: BinaryForm, bytes: &[u8], zoned: bool) -> Option<String> {
        let mut out = String::new();
        write(form, bytes, zoned, &mut out).map(|()| out)
    }

    fn words(words: &[u16]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    #[test]
    fn numbers_are_written_as_the_server_writes_them() {
        let numeric = |bytes: &[u16]| text(BinaryForm::Numeric, &words(bytes), false).unwrap();
        assert_eq!(numeric(&[0, 0, 0, 0]), "0");
        assert_eq!(numeric(&[0, 0, 0, 3]), "0.000");
        assert_eq!(numeric(&[2, 0, 0x4000, 3, 1, 50]), "-1.005");
        assert_eq!(numeric(&[1, 2, 0, 0, 7]), "700000000");
        assert_eq!(numeric(&[1, 0xFFFE, 0, 8, 12]), "0.00000012");
        assert_eq!(numeric(&[3, 1, 0, 1, 1, 2, 5000]), "10002.5");
        for (sign, name) in [(0xC000, "NaN"), (0xD000, "Infinity"), (0xF000, "-Infinity")] {
            assert_eq!(numeric(&[0, 0, sign, 0]), name);
        }
        assert_eq!(text(BinaryForm::Numeric, &words(&[1, 0, 0, 0]), false), None, "a digit is missing");
        assert_eq!(text(BinaryForm::Numeric, &words(&[1, 0, 0, 0, 10_000]), false), None, "no such digit");
        assert_eq!(text(BinaryForm::Oid, &u32::MAX.to_be_bytes(), false).as_deref(), Some("4294967295"));
        assert_eq!(text(BinaryForm::Float, &f32::NEG_INFINITY.to_be_bytes(), false).as_deref(), Some("-Infinity"));
        assert_eq!(text(BinaryForm::Float, &0.1f32.to_be_bytes(), false).as_deref(), Some("0.1"));
    }

    #[test]
    fn times_are_written_as_the_server_writes_them() {
        let at = |us: i64, zoned| text(BinaryForm::Timestamp, &us.to_be_bytes(), zoned).unwrap();
        assert_eq!(at(0, false), "2000-01-01 00:00:00");
        assert_eq!(at(-1_500_000, true), "1999-12-31 23:59:58.5+00");
        assert_eq!(at(i64::MAX, true), "infinity");
        assert_eq!(at(i64::MIN, false), "-infinity");
        assert_eq!(at(-64_453_276_800_000_000, true), "0044-07-23 00:00:00+00 BC");
        assert_eq!(at(9_223_371_331_199_999_999, false), "294276-12-31 23:59:59.999999");
        let date = |days: i32| text(BinaryForm::Date, &days.to_be_bytes(), false).unwrap();
        assert_eq!((date(0).as_str(), date(i32::MIN).as_str()), ("2000-01-01", "-infinity"));
        assert_eq!(date(-730_120), "0001-12-31 BC");
        assert_eq!(text(BinaryForm::Time, &DAY_US.to_be_bytes(), false).as_deref(), Some("24:00:00"));
    }

    proptest! {
        #[test]
        fn days_are_those_of_the_calendar(days in -700_000i32..2_900_000) {
            let date = NaiveDate::from_num_days_from_ce_opt(730_120 + days).unwrap();
            let expected = format!("{:04}-{:02}-{:02}", date.year(), date.month(), date.day());
            prop_assert_eq!(text(BinaryForm::Date, &days.to_be_bytes(), false), Some(expected));
        }

        #[test]
        fn a_numeric_counts_what_its_text_says(digits in proptest::collection::vec(0u16..10_000, 0..6), weight in -4i16..5,
                                               negative: bool, scale in 0u16..20) {
            let sign = if negative && digits.iter().any(|digit| *digit > 0) { 0x4000 } else { 0 };
            let words = [digits.len() as u16, weight as u16, sign, scale];
            let bytes: Vec<u8> = words.iter().chain(&digits).flat_map(|word| word.to_be_bytes()).collect();
            let written = text(BinaryForm::Numeric, &bytes, false).unwrap();
            match small_numeric(&bytes) {
                Some((value, digits)) => {
                    prop_assert_eq!(digits as usize, written.split_once('.').map_or(0, |(_, fraction)| fraction.len()));
                    prop_assert_eq!(Ok(value), written.replace('.', "").parse());
                }
                // The server writes no digits that its scale does not show.
                None => prop_assert!(digits.len() > 4 || i32::from(scale) != 4 * (digits.len() as i32 - 1 - i32::from(weight))),
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            for form in [BinaryForm::Numeric, BinaryForm::Date, BinaryForm::Time, BinaryForm::Timestamp, BinaryForm::Uuid] {
                let _any = text(form, &bytes, true);
            }
        }
    }
}
