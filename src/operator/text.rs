//! One text per value, exact and the same in every process: quarantine entries show it, pseudonyms are made of it, and
//! `dataflow verify` compares it.

use std::fmt::Write;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{
    Date32Type, Decimal128Type, Decimal256Type, DecimalType, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimestampMicrosecondType,
};

use crate::contract::Type;

/// Microseconds of a day.
pub(crate) const DAY_US: i64 = 86_400_000_000;

/// Appends the text of a value that is not null. Numbers: decimal digits without an exponent where they are whole or
/// fixed, with all digits of their scale; times: ISO 8601; bytes: lower-case hexadecimal.
pub(crate) fn write_value(array: &ArrayRef, data_type: Type, row: usize, out: &mut String) {
    // Writing to a String cannot fail.
    let _ = match data_type {
        Type::Boolean => write!(out, "{}", array.as_boolean().value(row)),
        Type::SmallInt => write!(out, "{}", array.as_primitive::<Int16Type>().value(row)),
        Type::Int => write!(out, "{}", array.as_primitive::<Int32Type>().value(row)),
        Type::BigInt | Type::Duration => write!(out, "{}", array.as_primitive::<Int64Type>().value(row)),
        Type::Real => write!(out, "{}", array.as_primitive::<Float32Type>().value(row)),
        Type::Double => write!(out, "{}", array.as_primitive::<Float64Type>().value(row)),
        Type::Decimal { precision, scale } if precision <= 38 => {
            let value = array.as_primitive::<Decimal128Type>().value(row);
            out.write_str(&Decimal128Type::format_decimal(value, precision, scale))
        }
        Type::Decimal { precision, scale } => {
            let value = array.as_primitive::<Decimal256Type>().value(row);
            out.write_str(&Decimal256Type::format_decimal(value, precision, scale))
        }
        Type::Date => write_date(i64::from(array.as_primitive::<Date32Type>().value(row)), out),
        Type::Time => write_time(array.as_primitive::<Time64MicrosecondType>().value(row), out),
        Type::Timestamp => write_timestamp(array.as_primitive::<TimestampMicrosecondType>().value(row), "", out),
        Type::TimestampTz => write_timestamp(array.as_primitive::<TimestampMicrosecondType>().value(row), "Z", out),
        Type::Numeric | Type::Text { .. } | Type::Json | Type::Uuid => {
            out.write_str(array.as_string::<i32>().value(row))
        }
        Type::Binary => array.as_binary::<i32>().value(row).iter().try_for_each(|byte| write!(out, "{byte:02x}")),
    };
}

/// Appends the normal form of a value that is not null: equal values have equal forms, whatever the column's type.
/// As [`write_value`], but a number loses zeros that say nothing (`1`, `1.0` and `1.00` are `1`; `-0` is `0`).
pub(crate) fn write_normal(array: &ArrayRef, data_type: Type, row: usize, out: &mut String) {
    let start = out.len();
    write_value(array, data_type, row, out);
    let is_number = matches!(data_type, Type::Decimal { .. } | Type::Numeric | Type::Real | Type::Double);
    if is_number {
        normalise_number(out, start);
    }
}

/// Takes the zeros that say nothing off the number that `out` holds from `start` on.
pub(crate) fn normalise_number(out: &mut String, start: usize) {
    let text = &out[start..];
    let is_plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'-');
    if is_plain && text.contains('.') {
        let kept = text.trim_end_matches('0').trim_end_matches('.').len();
        out.truncate(start + kept);
    }
    if &out[start..] == "-0" {
        out.truncate(start);
        out.push('0');
    }
}

pub(crate) fn write_date(days: i64, out: &mut String) -> std::fmt::Result {
    let (year, month, day) = civil(days);
    match year {
        0..=9999 => write!(out, "{year:04}-{month:02}-{day:02}"),
        // ISO 8601 asks for a sign where four digits do not do.
        _ => write!(out, "{}{:06}-{month:02}-{day:02}", if year < 0 { '-' } else { '+' }, year.abs()),
    }
}

pub(crate) fn write_time(micros: i64, out: &mut String) -> std::fmt::Result {
    let seconds = micros / 1_000_000;
    write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)?;
    match micros % 1_000_000 {
        0 => Ok(()),
        fraction => write!(out, ".{fraction:06}"),
    }
}

pub(crate) fn write_timestamp(micros: i64, zone: &str, out: &mut String) -> std::fmt::Result {
    write_date(micros.div_euclid(DAY_US), out)?;
    out.push('T');
    write_time(micros.rem_euclid(DAY_US), out)?;
    out.write_str(zone)
}

/// Days since 1970-01-01 to year, month and day of the proleptic Gregorian calendar; years beyond what chrono knows
/// included, because databases have them. Counts in eras of 400 years that begin on the first of March.
pub(crate) fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// The reverse of [`civil`].
pub(crate) fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Decimal128Array, Float64Array, Int64Array, StringArray, Time64MicrosecondArray};
    use proptest::prelude::*;

    use super::*;

    fn value(array: ArrayRef, data_type: Type) -> String {
        let mut out = String::new();
        write_value(&array, data_type, 0, &mut out);
        out
    }

    fn normal(array: ArrayRef, data_type: Type) -> String {
        let mut out = String::from("x");
        write_normal(&array, data_type, 0, &mut out);
        out[1..].to_owned()
    }

    fn decimal(value: i128, precision: u8, scale: i8) -> (ArrayRef, Type) {
        let array = Decimal128Array::from(vec![value]).with_precision_and_scale(precision, scale).expect("fits");
        (Arc::new(array), Type::Decimal { precision, scale })
    }

    #[test]
    fn equal_numbers_have_one_form() {
        assert_eq!(normal(Arc::new(Int64Array::from(vec![1])), Type::BigInt), "1");
        assert_eq!(normal(Arc::new(Float64Array::from(vec![1.0])), Type::Double), "1");
        assert_eq!(normal(Arc::new(Float64Array::from(vec![-0.0])), Type::Double), "0");
        assert_eq!(normal(Arc::new(StringArray::from(vec!["1.50"])), Type::Numeric), "1.5");
        assert_eq!(normal(Arc::new(StringArray::from(vec!["100"])), Type::Numeric), "100");
        assert_eq!(normal(Arc::new(StringArray::from(vec!["1.50"])), Type::TEXT), "1.50");
        for (raw, scale, form) in [(100, 2, "1"), (150, 2, "1.5"), (0, 2, "0"), (100, 0, "100"), (-5, 2, "-0.05")] {
            let (array, data_type) = decimal(raw, 12, scale);
            assert_eq!(normal(array, data_type), form);
        }
        let (array, data_type) = decimal(150, 12, 2);
        assert_eq!(value(array, data_type), "1.50");
    }

    #[test]
    fn a_day_may_end_at_midnight() {
        assert_eq!(value(Arc::new(Time64MicrosecondArray::from(vec![DAY_US])), Type::Time), "24:00:00");
        assert_eq!(value(Arc::new(Time64MicrosecondArray::from(vec![1])), Type::Time), "00:00:00.000001");
    }

    #[test]
    fn times_far_away_and_before_1970() {
        let mut out = String::new();
        write_timestamp(-1, "Z", &mut out).expect("a String");
        assert_eq!(out, "1969-12-31T23:59:59.999999Z");
        out.clear();
        write_date(i64::from(i32::MAX), &mut out).expect("a String");
        assert_eq!(out, "+5881580-07-11");
        out.clear();
        write_date(days(-1, 3, 1), &mut out).expect("a String");
        assert_eq!(out, "-000001-03-01");
    }

    proptest! {
        #[test]
        fn days_and_dates_are_the_same(day in -90_000_000i64..90_000_000) {
            let (year, month, date) = civil(day);
            prop_assert_eq!(days(year, month, date), day);
            let known = chrono::DateTime::from_timestamp(day * 86_400, 0).map(|t| t.format("%Y-%m-%d").to_string());
            if (0..=9999).contains(&year) {
                prop_assert_eq!(known, Some(format!("{year:04}-{month:02}-{date:02}")));
            }
        }
    }
}
