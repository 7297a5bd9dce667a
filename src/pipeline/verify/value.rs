//! One text per value on both sides, and rows of them as bytes.

use crate::contract::Type;
use crate::operator::text::{self, DAY_US, normalise_number};

/// Appends the normal form (see [`text::write_normal`]) of a value that a warehouse writes as `stored`. What is no value
/// of the type stays as it is, and then equals nothing that a source can have.
pub fn write_stored(data_type: Type, stored: &str, out: &mut String) {
    if understood(data_type, stored, out).is_none() {
        out.push_str(stored);
    }
}

fn understood(data_type: Type, stored: &str, out: &mut String) -> Option<()> {
    let start = out.len();
    match data_type {
        Type::Boolean => out.push_str(match stored {
            "1" | "t" | "true" => "true",
            "0" | "f" | "false" => "false",
            _ => return None,
        }),
        Type::SmallInt | Type::Int | Type::BigInt => out.push_str(&stored.parse::<i64>().ok()?.to_string()),
        Type::Duration => {
            let micros = stored.parse::<i64>().ok().or_else(|| duration(stored))?;
            out.push_str(&micros.to_string());
        }
        Type::Real => out.push_str(&stored.parse::<f32>().ok()?.to_string()),
        Type::Double => out.push_str(&stored.parse::<f64>().ok()?.to_string()),
        Type::Decimal { .. } | Type::Numeric => out.push_str(stored),
        Type::Date => text::write_date(date(stored)?, out).ok()?,
        Type::Time => text::write_time(time(stored)?, out).ok()?,
        Type::Timestamp => text::write_timestamp(timestamp(stored)?, "", out).ok()?,
        Type::TimestampTz => text::write_timestamp(timestamp(stored)?, "Z", out).ok()?,
        Type::Text { .. } | Type::Json => out.push_str(stored),
        Type::Uuid => out.push_str(&stored.to_ascii_lowercase()),
        Type::Binary => out.push_str(&stored.strip_prefix("\\x")?.to_ascii_lowercase()),
    }
    if matches!(data_type, Type::Decimal { .. } | Type::Numeric | Type::Real | Type::Double) {
        normalise_number(out, start);
    }
    Some(())
}

/// Days since 1970; `0044-03-15 BC` is how PostgreSQL writes a year before 1.
fn date(text: &str) -> Option<i64> {
    let (text, before_christ) = text.strip_suffix(" BC").map_or((text, false), |text| (text, true));
    let (text, negative) = match text.as_bytes().first()? {
        b'-' => (&text[1..], true),
        b'+' => (&text[1..], false),
        _ => (text, false),
    };
    let mut parts = text.split('-');
    let mut number = || parts.next().and_then(digits);
    let (year, month, day) = (number()?, number()?, number()?);
    let year = if before_christ {
        1 - year
    } else if negative {
        -year
    } else {
        year
    };
    let days = text::days(year, month, day);
    (parts.next().is_none() && text::civil(days) == (year, month, day)).then_some(days)
}

/// A number of so few digits that nothing overflows.
fn digits(text: &str) -> Option<i64> {
    let sound = text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
    sound.then(|| text.parse().ok())?
}

/// Microseconds of `HH:MM:SS.ffffff`.
fn time(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut parts = whole.split(':');
    let mut number = || parts.next().and_then(digits);
    let seconds = number()? * 3600 + number()? * 60 + number()?;
    if parts.next().is_some() || fraction.len() > 6 {
        return None;
    }
    Some(seconds * 1_000_000 + digits(&format!("{fraction:0<6}"))?)
}

fn duration(text: &str) -> Option<i64> {
    match text.strip_prefix('-') {
        Some(text) => time(text).map(|micros| -micros),
        None => time(text),
    }
}

/// Microseconds since 1970, in UTC where there is a zone.
fn timestamp(text: &str) -> Option<i64> {
    let (text, era) = text.strip_suffix(" BC").map_or((text, ""), |text| (text, " BC"));
    let (day, clock) = text.split_once([' ', 'T'])?;
    let zone = ["Z", "+00:00", "+00"].into_iter().find_map(|zone| clock.strip_suffix(zone));
    let days = date(&format!("{day}{era}"))?;
    days.checked_mul(DAY_US)?.checked_add(time(zone.unwrap_or(clock))?)
}

/// Makes one text of all texts of a JSON document; what is none stays as it is.
pub fn document(text: &mut String) {
    if let Ok(mut value) = serde_json::from_str::<serde_json::Value>(text) {
        value.sort_all_objects();
        *text = value.to_string();
    }
}

/// Appends a value to a row's bytes.
pub fn push_cell(row: &mut Vec<u8>, cell: Option<&str>) {
    let Some(cell) = cell else { return row.push(0) };
    row.push(1);
    row.extend((cell.len() as u64).to_le_bytes());
    row.extend(cell.as_bytes());
}

/// The values of a row's bytes.
pub fn cells(mut row: &[u8]) -> Vec<Option<String>> {
    let mut cells = Vec::new();
    while let Some((kind, rest)) = row.split_first() {
        row = rest;
        cells.push(match (kind, row.split_first_chunk::<8>()) {
            (1, Some((length, rest))) => {
                let (cell, rest) = rest.split_at((u64::from_le_bytes(*length) as usize).min(rest.len()));
                row = rest;
                Some(String::from_utf8_lossy(cell).into_owned())
            }
            _ => None,
        });
    }
    cells
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Date32Array, StringArray, Time64MicrosecondArray, TimestampMicrosecondArray};
    use proptest::prelude::*;

    use super::*;

    fn stored(data_type: Type, text: &str) -> String {
        let mut out = String::new();
        write_stored(data_type, text, &mut out);
        out
    }

    fn normal(array: ArrayRef, data_type: Type) -> String {
        let mut out = String::new();
        text::write_normal(&array, data_type, 0, &mut out);
        out
    }

    #[test]
    fn what_the_warehouses_write_is_one_value() {
        let same = |data_type: Type, texts: &[&str], value: &str| {
            for text in texts {
                assert_eq!(stored(data_type, text), value, "{data_type} {text}");
            }
        };
        same(Type::Boolean, &["1", "true"], "true");
        same(Type::Decimal { precision: 12, scale: 3 }, &["-1.500", "-1.5"], "-1.5");
        same(Type::Numeric, &["0", "-0.00", "0.0"], "0");
        same(Type::Real, &["1.5", "1.500"], "1.5");
        same(Type::Double, &["1e+300", &format!("1{}", "0".repeat(300))], &format!("1{}", "0".repeat(300)));
        same(Type::Double, &["Infinity", "inf"], "inf");
        same(Type::Time, &["04:05:06.700000", "04:05:06.7"], "04:05:06.700000");
        same(Type::Timestamp, &["2001-02-03T04:05:06.789000", "2001-02-03 04:05:06.789"], "2001-02-03T04:05:06.789000");
        same(Type::TimestampTz, &["2001-02-03T04:05:06.000000Z", "2001-02-03 04:05:06+00"], "2001-02-03T04:05:06Z");
        same(Type::TimestampTz, &["0044-03-15 12:00:00+00 BC"], "-000043-03-15T12:00:00Z");
        same(Type::Date, &["-0043-03-15", "0044-03-15 BC"], "-000043-03-15");
        same(Type::Duration, &["-3020399000000", "-838:59:59"], "-3020399000000");
        same(Type::Binary, &["\\x00FF", "\\x00ff"], "00ff");
        same(Type::Uuid, &["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"], "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11");
        // What people write by hand stays what it is.
        same(Type::Date, &["yesterday"], "yesterday");
        same(Type::Date, &["2024-02-30"], "2024-02-30");
        same(Type::Int, &["7 apples"], "7 apples");
    }

    proptest! {
        #[test]
        fn times_are_read_back_exactly(micros in -200_000_000_000_000_000i64..200_000_000_000_000_000) {
            let array: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![micros]).with_timezone("UTC"));
            let form = normal(array, Type::TimestampTz);
            prop_assert_eq!(timestamp(&form), Some(micros));
            let days = (micros / DAY_US) as i32;
            prop_assert_eq!(date(&normal(Arc::new(Date32Array::from(vec![days])), Type::Date)), Some(i64::from(days)));
            let clock = micros.rem_euclid(DAY_US);
            prop_assert_eq!(time(&normal(Arc::new(Time64MicrosecondArray::from(vec![clock])), Type::Time)), Some(clock));
        }

        #[test]
        fn rows_are_read_back(row in proptest::collection::vec(proptest::option::of(".{0,12}"), 0..6)) {
            let mut bytes = Vec::new();
            row.iter().for_each(|cell| push_cell(&mut bytes, cell.as_deref()));
            prop_assert_eq!(cells(&bytes), row);
        }

        #[test]
        fn no_text_is_too_strange(text in ".{0,20}") {
            for data_type in [Type::Date, Type::Time, Type::Timestamp, Type::Duration, Type::Real, Type::Binary] {
                let _whatever = stored(data_type, &text);
            }
            let array: ArrayRef = Arc::new(StringArray::from(vec![text.as_str()]));
            prop_assert_eq!(normal(array, Type::TEXT), stored(Type::TEXT, &text));
        }
    }
}
