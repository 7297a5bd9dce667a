//! What Redshift can hold, value by value: COPY takes all rows of a file or none, so a value that it would refuse must
//! never be in one.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Time64MicrosecondType,
    TimestampMicrosecondType,
};

use super::types::{MAX_PRECISION, MAX_VARBYTE, text_bytes};
use crate::contract::Type;

/// The years 1 to 9999, in microseconds since 1970. Redshift's own range is wider, but only these mean the same to
/// everybody who reads or writes Parquet.
const TIMES_US: std::ops::RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;
/// The same in days.
const DATES: std::ops::RangeInclusive<i32> = -719_162..=2_932_896;
const DAY_US: i64 = 86_400_000_000;
/// How deep JSON may be nested.
const MAX_DEPTH: usize = 128;

/// One column of a batch, ready to be asked value by value.
pub(crate) struct Proof<'a> {
    data_type: Type,
    array: &'a ArrayRef,
    /// A key must have a value.
    key: bool,
}

impl<'a> Proof<'a> {
    pub(crate) fn new(data_type: Type, array: &'a ArrayRef, key: bool) -> Self {
        Self { data_type, array, key }
    }

    /// Why the value of a row cannot be loaded; `None` = it can.
    pub(crate) fn refusal(&self, row: usize) -> Option<String> {
        if self.array.is_null(row) {
            return self.key.then(|| "a column of the key has no value".to_owned());
        }
        match self.data_type {
            Type::Boolean | Type::SmallInt | Type::Int | Type::BigInt | Type::Duration => None,
            Type::Real => finite(f64::from(self.array.as_primitive::<Float32Type>().value(row))),
            Type::Double => finite(self.array.as_primitive::<Float64Type>().value(row)),
            Type::Decimal { precision, .. } if precision > MAX_PRECISION => {
                let digits = self.array.as_primitive::<Decimal256Type>().value(row).to_string();
                let digits = digits.trim_start_matches('-').len();
                (digits > usize::from(precision)).then(|| format!("the number has more than {precision} digits"))
            }
            Type::Decimal { precision, .. } => {
                let value = self.array.as_primitive::<Decimal128Type>().value(row).unsigned_abs();
                let fits = value < 10u128.pow(u32::from(precision));
                (!fits).then(|| format!("the number has more than {precision} digits"))
            }
            Type::Date => within(DATES.contains(&self.array.as_primitive::<Date32Type>().value(row)), "date"),
            Type::Timestamp | Type::TimestampTz => {
                let time = self.array.as_primitive::<TimestampMicrosecondType>().value(row);
                within(TIMES_US.contains(&time), "time")
            }
            Type::Time => within(
                (0..=DAY_US).contains(&self.array.as_primitive::<Time64MicrosecondType>().value(row)),
                "time of day",
            ),
            Type::Binary => {
                let bytes = self.array.as_binary::<i32>().value(row).len();
                (bytes > MAX_VARBYTE).then(|| format!("{bytes} bytes are more than the {MAX_VARBYTE} of a varbyte"))
            }
            Type::Text { .. } | Type::Numeric | Type::Uuid => self.text(row),
            Type::Json => self.text(row).or_else(|| json(self.array.as_string::<i32>().value(row))),
        }
    }

    fn text(&self, row: usize) -> Option<String> {
        let text = self.array.as_string::<i32>().value(row);
        let most = text_bytes(self.data_type).unwrap_or(0) as usize;
        if text.len() > most {
            return Some(format!("{} bytes are more than the {most} that the column takes", text.len()));
        }
        memchr::memchr(0, text.as_bytes()).map(|at| format!("there is a NUL character at byte {}", at + 1))
    }
}

fn finite(value: f64) -> Option<String> {
    (!value.is_finite()).then(|| format!("{value} cannot be loaded from Parquet"))
}

fn within(fits: bool, what: &str) -> Option<String> {
    (!fits).then(|| format!("the {what} is outside of the years 1 to 9999"))
}

/// Why `JSON_PARSE` would refuse the document.
fn json(text: &str) -> Option<String> {
    let refused = match serde_json::from_str::<serde_json::Value>(text) {
        Err(error) => return Some(format!("the document is not JSON: {error}")),
        Ok(value) => refused_inside(&value, MAX_DEPTH),
    };
    refused.map(str::to_owned)
}

fn refused_inside(value: &serde_json::Value, depth: usize) -> Option<&'static str> {
    use serde_json::Value;
    let nul = |text: &str| text.contains('\0').then_some("the document holds a NUL character");
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
        Value::String(text) => nul(text),
        Value::Array(_) | Value::Object(_) if depth == 0 => Some("the document is nested too deeply"),
        Value::Array(items) => items.iter().find_map(|item| refused_inside(item, depth - 1)),
        Value::Object(fields) => {
            fields.iter().find_map(|(name, value)| nul(name).or_else(|| refused_inside(value, depth - 1)))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BinaryArray, Decimal128Array, Float64Array, StringArray, TimestampMicrosecondArray};

    use super::*;

    fn refusal(data_type: Type, array: impl Array + 'static) -> Option<String> {
        let array: ArrayRef = Arc::new(array);
        Proof::new(data_type, &array, false).refusal(0)
    }

    #[test]
    fn texts_are_measured_in_bytes() {
        let four = Type::Text { max_bytes: Some(4) };
        assert_eq!(refusal(four, StringArray::from(vec!["éé"])), None);
        assert!(refusal(four, StringArray::from(vec!["ééx"])).is_some_and(|why| why.contains("5 bytes")));
        assert!(refusal(four, StringArray::from(vec!["a\0b"])).is_some_and(|why| why.contains("byte 2")));
        assert_eq!(refusal(Type::TEXT, StringArray::from(vec!["x".repeat(65_535)])), None);
        assert!(refusal(Type::TEXT, StringArray::from(vec!["x".repeat(65_536)])).is_some());
    }

    #[test]
    fn documents_must_be_json() {
        let json = |text: &str| refusal(Type::Json, StringArray::from(vec![text]));
        assert_eq!(json(r#"{"a": [1, 2.5e10, "é", null]}"#), None);
        for wrong in ["{", "{'a': 1}", "1e999", "\"\\u0000\"", "NaN", "{\"a\\u0000\": 1}"] {
            assert!(json(wrong).is_some(), "{wrong}");
        }
    }

    #[test]
    fn numbers_times_and_bytes_have_ends() {
        assert!(refusal(Type::Double, Float64Array::from(vec![f64::NAN])).is_some());
        assert!(refusal(Type::Double, Float64Array::from(vec![f64::INFINITY])).is_some());
        assert_eq!(refusal(Type::Double, Float64Array::from(vec![f64::MAX])), None);
        let ten = Type::Decimal { precision: 3, scale: 1 };
        let number = |value| Decimal128Array::from(vec![value]).with_precision_and_scale(38, 1).expect("fits");
        assert_eq!(refusal(ten, number(-999)), None);
        assert!(refusal(ten, number(1000)).is_some());
        assert_eq!(refusal(Type::Timestamp, TimestampMicrosecondArray::from(vec![*TIMES_US.end()])), None);
        assert!(refusal(Type::Timestamp, TimestampMicrosecondArray::from(vec![i64::MIN])).is_some());
        assert!(refusal(Type::Binary, BinaryArray::from_vec(vec![&[0u8; 64_001]])).is_some());
    }

    #[test]
    fn a_key_must_have_a_value() {
        let array: ArrayRef = Arc::new(StringArray::from(vec![None::<&str>]));
        assert!(Proof::new(Type::TEXT, &array, true).refusal(0).is_some());
        assert_eq!(Proof::new(Type::TEXT, &array, false).refusal(0), None);
    }
}
