//! What a warehouse can hold, as data: whoever seals rows and whoever loads them ask the same question.
//!
//! A load takes all rows of a file or none. A value that it would refuse must therefore never be in one.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Time64MicrosecondType,
    TimestampMicrosecondType,
};
use serde::de::IgnoredAny;

use super::Type;

/// The years 1 to 9999, in microseconds since 1970.
const TIMES_US: std::ops::RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;
/// The same in days.
const DATES: std::ops::RangeInclusive<i32> = -719_162..=2_932_896;
const DAY_US: i64 = 86_400_000_000;
/// The longest number in a document.
const MOST_DIGITS: usize = 1024;

/// What the columns of a warehouse hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The warehouse's name, for messages.
    pub warehouse: &'static str,
    /// The longest text, and the longest text of a key's columns together, in bytes.
    pub text_bytes: u32,
    /// The longest JSON document, in bytes of its text.
    pub json_bytes: u32,
    /// The longest string inside of a document, name or value, in bytes of what it stands for.
    pub json_string_bytes: u32,
    /// How deep it may be nested.
    pub json_depth: usize,
    /// The longest text of a number without a fixed scale, in bytes.
    pub numeric_bytes: u32,
    /// The longest binary value.
    pub binary_bytes: usize,
    /// The most digits of a fixed point number; one of more is text.
    pub digits: u8,
    /// The most of them behind the point.
    pub scale: i8,
    /// Of so many digits a fixed point number is kept in 8 bytes, which do not hold all of them: its column has one more.
    pub crammed: u8,
}

impl Limits {
    /// Amazon Redshift. Texts are counted in bytes and hold no NUL
    /// (<https://docs.aws.amazon.com/redshift/latest/dg/r_Character_types.html>). A document has 16 MB and is nested at most
    /// a thousand times (<https://docs.aws.amazon.com/redshift/latest/dg/limitations-super.html>), of which the smallest
    /// reading is taken: 16,000,000 bytes. A string in it may have as many only in a cluster that has opted in to that
    /// (<https://docs.aws.amazon.com/redshift/latest/dg/r_enable_large_strings_opt_in.html>); in every other it has what a
    /// text has. A decimal of 19 digits goes up to 2⁶³ - 1, and at most 37 are behind the point
    /// (<https://docs.aws.amazon.com/redshift/latest/dg/r_Numeric_types201.html>). That NaN and infinity load from Parquet is
    /// written nowhere, and only the years 1 to 9999 mean the same to everybody who reads or writes it.
    pub const REDSHIFT: Self = Self {
        warehouse: "Redshift",
        text_bytes: 65_535,
        json_bytes: 16_000_000,
        json_string_bytes: 65_535,
        json_depth: 1000,
        numeric_bytes: 1024,
        binary_bytes: 64_000,
        digits: 38,
        scale: 37,
        crammed: 19,
    };

    /// How a fixed point number is kept: the digits of its column, and how many of them are behind the point. `None`: as text.
    pub fn decimal(&self, precision: u8, scale: i8) -> Option<(u8, i8)> {
        let fits = precision <= self.digits && (0..=self.scale).contains(&scale);
        fits.then_some((precision + u8::from(precision == self.crammed), scale))
    }

    /// How many bytes a column may have, where it is loaded as text; what is too long for one may be loaded otherwise
    /// (see [`Limits::is_large`]).
    pub fn bytes_of(&self, data_type: Type) -> Option<u32> {
        match data_type {
            Type::Text { max_bytes: Some(bytes) } => Some(bytes.clamp(1, self.text_bytes)),
            Type::Text { max_bytes: None } => Some(self.text_bytes),
            Type::Json => Some(self.json_bytes.min(self.text_bytes)),
            Type::Numeric => Some(self.numeric_bytes),
            // Sign, point, and a zero in front of it.
            Type::Decimal { precision, scale } if self.decimal(precision, scale).is_none() => {
                Some(u32::from(precision) + 3)
            }
            // `hh:mm:ss.ffffff`.
            Type::Time => Some(15),
            Type::Uuid => Some(36),
            _ => None,
        }
    }

    /// Whether a document is too long to be loaded as text.
    pub fn is_large(&self, document: &str) -> bool {
        document.len() > self.json_bytes.min(self.text_bytes) as usize
    }

    /// Whether there are values of that type that cannot be loaded.
    pub fn bounds(&self, data_type: Type) -> bool {
        !matches!(data_type, Type::Boolean | Type::SmallInt | Type::Int | Type::BigInt | Type::Duration)
    }

    /// Why the value of a row cannot be loaded; `None`: it can, as null can. The value itself is never in the reason.
    pub fn refusal(&self, data_type: Type, values: &ArrayRef, row: usize) -> Option<String> {
        if values.is_null(row) {
            return None;
        }
        match data_type {
            Type::Boolean | Type::SmallInt | Type::Int | Type::BigInt | Type::Duration => None,
            Type::Real => finite(f64::from(values.as_primitive::<Float32Type>().value(row))),
            Type::Double => finite(values.as_primitive::<Float64Type>().value(row)),
            Type::Decimal { precision, .. } => {
                (!has_digits(values, row, precision)).then(|| format!("the number has more than {precision} digits"))
            }
            Type::Date => within(DATES.contains(&values.as_primitive::<Date32Type>().value(row)), "date"),
            Type::Timestamp | Type::TimestampTz => {
                within(is_in_range(values.as_primitive::<TimestampMicrosecondType>().value(row)), "time")
            }
            Type::Time => {
                let time = values.as_primitive::<Time64MicrosecondType>().value(row);
                (!(0..=DAY_US).contains(&time)).then(|| "it is no time of day".to_owned())
            }
            Type::Binary => {
                let (bytes, most) = (values.as_binary::<i32>().value(row).len(), self.binary_bytes);
                (bytes > most).then(|| format!("{bytes} bytes are more than the {most} that the column takes"))
            }
            Type::Text { .. } | Type::Numeric | Type::Uuid => {
                text(text_of(values, row), self.bytes_of(data_type).unwrap_or_default())
            }
            Type::Json => {
                let document = text_of(values, row);
                text(document, self.json_bytes).or_else(|| self.document(document))
            }
        }
    }

    /// Why a key cannot be one, of its columns' types and values: without a value it is never found again, and as a whole
    /// it is written as text.
    pub fn key_refusal(&self, key: &[(Type, &ArrayRef)], row: usize) -> Option<String> {
        if key.iter().any(|(_, values)| values.is_null(row)) {
            return Some("a column of the key has no value".to_owned());
        }
        let bytes: usize = key.iter().map(|(data_type, values)| key_bytes(*data_type, values, row)).sum();
        let most = self.text_bytes;
        (bytes > most as usize).then(|| format!("its key is longer than {most} bytes"))
    }
}

/// Whether a time is in the years 1 to 9999, in microseconds since 1970.
pub fn is_in_range(time_us: i64) -> bool {
    TIMES_US.contains(&time_us)
}

/// What a column of a key takes in the key's text, its name included: at least what it does take.
fn key_bytes(data_type: Type, values: &ArrayRef, row: usize) -> usize {
    const NAME_AND_SIGNS: usize = 140;
    let value = match data_type {
        Type::Text { .. } | Type::Numeric | Type::Uuid | Type::Json => escaped_bytes(text_of(values, row)),
        _ => 100,
    };
    value + NAME_AND_SIGNS
}

/// How long a text is as JSON, quotes not counted.
fn escaped_bytes(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(escaped).sum()
}

fn text(text: &str, most: u32) -> Option<String> {
    if text.len() > most as usize {
        return Some(format!("{} bytes are more than the {most} that the column takes", text.len()));
    }
    memchr::memchr(0, text.as_bytes()).map(|at| format!("there is a NUL character at byte {}", at + 1))
}

fn text_of(values: &ArrayRef, row: usize) -> &str {
    values.as_string::<i32>().value(row)
}

fn finite(value: f64) -> Option<String> {
    (!value.is_finite()).then(|| format!("{value} cannot be loaded"))
}

fn within(fits: bool, what: &str) -> Option<String> {
    (!fits).then(|| format!("the {what} is outside of the years 1 to 9999"))
}

fn has_digits(values: &ArrayRef, row: usize, precision: u8) -> bool {
    if precision <= 38 {
        let value = values.as_primitive::<Decimal128Type>().value(row).unsigned_abs();
        return value < 10u128.pow(u32::from(precision));
    }
    let digits = values.as_primitive::<Decimal256Type>().value(row).to_string();
    digits.trim_start_matches('-').len() <= usize::from(precision)
}

impl Limits {
    /// Why a text is not a document that can be loaded.
    fn document(&self, text: &str) -> Option<String> {
        if serde_json::from_str::<IgnoredAny>(text).is_err() {
            return Some("the document is not JSON".to_owned());
        }
        // From here on it is well-formed: only what is inside must be looked at.
        let bytes = text.as_bytes();
        let (mut at, mut open) = (0, 0usize);
        while at < bytes.len() {
            match bytes[at] {
                b'[' | b'{' => {
                    open += 1;
                    if open > self.json_depth {
                        return Some("the document is nested too deeply".to_owned());
                    }
                }
                b']' | b'}' => open = open.saturating_sub(1),
                b'"' => match string_end(bytes, at + 1) {
                    Ok((_, len)) if len > self.json_string_bytes as usize => {
                        let most = self.json_string_bytes;
                        return Some(format!(
                            "a string in the document has {len} bytes, more than the {most} that one may have"
                        ));
                    }
                    Ok((end, _)) => at = end,
                    Err(why) => return Some(why.to_owned()),
                },
                b'-' | b'0'..=b'9' => {
                    let rest = &text[at..];
                    let sign = |byte: u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
                    let len = rest.bytes().take_while(|byte| sign(*byte)).count();
                    if !is_number(&rest[..len]) {
                        return Some("the document holds a number that is too large or too small".to_owned());
                    }
                    at += len - 1;
                }
                _ => {}
            }
            at += 1;
        }
        None
    }
}

/// Whether a number is within what a double can come near to, and not absurdly long.
fn is_number(text: &str) -> bool {
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let is_zero = mantissa.bytes().all(|byte| matches!(byte, b'0' | b'-' | b'.'));
    let value = text.parse::<f64>().unwrap_or(f64::NAN);
    text.len() <= MOST_DIGITS && value.is_finite() && (value != 0.0 || is_zero)
}

/// Where the string that begins at `at` has its closing quote, and how many bytes it stands for.
fn string_end(bytes: &[u8], mut at: usize) -> Result<(usize, usize), &'static str> {
    let unit = |at: usize| {
        let digits = bytes.get(at..at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        digits.and_then(|digits| u16::from_str_radix(digits, 16).ok())
    };
    let mut len = 0;
    while at < bytes.len() && bytes[at] != b'"' {
        let (written, stands_for) = match (bytes[at], bytes.get(at + 1)) {
            (b'\\', Some(b'u')) => match unit(at + 2) {
                Some(0) => return Err("the document holds a NUL character"),
                Some(0xD800..=0xDBFF) => {
                    let low = bytes.get(at + 6..at + 8) == Some(b"\\u");
                    if !low || !matches!(unit(at + 8), Some(0xDC00..=0xDFFF)) {
                        return Err("the document holds half a character");
                    }
                    (12, 4)
                }
                Some(0xDC00..=0xDFFF) => return Err("the document holds half a character"),
                Some(0..0x80) => (6, 1),
                Some(0x80..0x800) => (6, 2),
                _ => (6, 3),
            },
            (b'\\', _) => (2, 1),
            _ => (1, 1),
        };
        at += written;
        len += stands_for;
    }
    Ok((at, len))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BinaryArray, Decimal128Array, Float64Array, StringArray, TimestampMicrosecondArray};

    use super::*;

    fn refusal(data_type: Type, values: impl Array + 'static) -> Option<String> {
        let values: ArrayRef = Arc::new(values);
        Limits::REDSHIFT.refusal(data_type, &values, 0)
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
    fn documents_must_be_json_that_the_warehouse_can_read() {
        let json = |text: &str| refusal(Type::Json, StringArray::from(vec![text]));
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        for good in [
            r#"{"a": [1, 2.5e10, "é", null, -0.0, 0e999, 1e-300]}"#,
            r#""\\u0000 \ud83d\ude00 \" ]""#,
            &nested(1000),
            "  7 ",
        ] {
            assert_eq!(json(good), None, "{good}");
        }
        let wrong = [
            "",
            "{",
            "{'a': 1}",
            "1e999",
            "[0.1e-999]",
            &"9".repeat(1025),
            "[-1e999]",
            r#""\u0000""#,
            "NaN",
            "{\"a\\u0000\": 1}",
            r#""\ud83d""#,
            r#""\ud83dx\ude00""#,
            r#""\ude00""#,
            "[1,]",
            &nested(1001),
        ];
        for wrong in wrong {
            assert!(json(wrong).is_some(), "{wrong}");
        }
    }

    #[test]
    fn documents_and_their_strings_have_ends() {
        let json = |text: String| refusal(Type::Json, StringArray::from(vec![text]));
        let long = |bytes: usize| "x".repeat(bytes);
        for good in [
            format!("\"{}\"", long(65_535)),
            format!("{{\"{}\": \"{}\"}}", long(65_535), "\\u00e9".repeat(32_767)),
            format!("[\"{}\"]", "\\ud83d\\ude00".repeat(16_383)),
            format!("[\"{}\"]", "\\n".repeat(65_535)),
            format!("[{}1]", " ".repeat(15_999_997)),
        ] {
            assert_eq!(json(good), None);
        }
        let wrong = [
            (format!("\"{}\"", long(65_536)), "65536 bytes, more than the 65535"),
            (format!("{{\"{}\": 1}}", long(65_536)), "65536 bytes, more than the 65535"),
            (format!("[\"{}\"]", "\\u00e9".repeat(32_768)), "65536 bytes"),
            (format!("[\"{}\"]", "\\ud83d\\ude00".repeat(16_384)), "65536 bytes"),
            (format!("[{}1]", " ".repeat(15_999_998)), "16000001 bytes are more than the 16000000"),
        ];
        for (wrong, why) in wrong {
            assert!(json(wrong).is_some_and(|found| found.contains(why)), "{why}");
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
    fn a_key_has_values_and_an_end() {
        let key = |value: Option<String>| -> Option<String> {
            let values: ArrayRef = Arc::new(StringArray::from(vec![value]));
            Limits::REDSHIFT.key_refusal(&[(Type::TEXT, &values), (Type::TEXT, &values)], 0)
        };
        assert!(key(None).is_some_and(|why| why.contains("no value")));
        assert_eq!(key(Some("k".repeat(30_000))), None);
        assert!(key(Some("k".repeat(40_000))).is_some_and(|why| why.contains("65535 bytes")));
        assert!(key(Some("\u{1}".repeat(6_000))).is_some(), "as JSON it takes six times as much");
    }
}
