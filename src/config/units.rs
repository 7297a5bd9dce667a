//! Sizes and lengths of time as people write them: `256MiB`, `60s`.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A number of bytes: `512KiB`, `256MiB`, `1GB`, or a plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bytes(pub u64);

/// A length of time: `500ms`, `60s`, `5m`, `2h`, `7d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(pub Duration);

impl Span {
    /// So many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

const BYTE_UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

const TIME_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (unit, factor) = units.iter().find(|(unit, _)| text.ends_with(unit))?;
    text[..text.len() - unit.len()].trim().parse::<u64>().ok()?.checked_mul(*factor)
}

impl TryFrom<String> for Bytes {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let plain = text.trim().parse().ok();
        plain
            .or_else(|| scaled(text.trim(), &BYTE_UNITS))
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a size; write a whole number and a unit, e.g. 512KiB, 256MiB, 1GB"))
    }
}

impl From<Bytes> for String {
    fn from(bytes: Bytes) -> Self {
        let unit = BYTE_UNITS[..4].iter().rev().find(|(_, factor)| bytes.0 > 0 && bytes.0.is_multiple_of(*factor));
        unit.map_or_else(|| format!("{}B", bytes.0), |(unit, factor)| format!("{}{unit}", bytes.0 / factor))
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        scaled(text.trim(), &TIME_UNITS).map(|ms| Self(Duration::from_millis(ms))).ok_or_else(|| {
            format!("`{text}` is not a length of time; write a whole number and a unit, e.g. 500ms, 60s, 5m, 2h, 7d")
        })
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis() as u64;
        let unit = TIME_UNITS.iter().rev().find(|(_, factor)| ms > 0 && ms.is_multiple_of(*factor));
        match unit {
            Some((unit, factor)) => write!(f, "{}{unit}", ms / factor),
            None => f.write_str("0s"),
        }
    }
}

impl JsonSchema for Bytes {
    fn schema_name() -> Cow<'static, str> {
        "Bytes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "description": "a size, e.g. 512KiB, 256MiB, 1GB" })
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$", "description": "a length of time, e.g. 500ms, 60s, 5m" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_round_trip() {
        for text in ["256MiB", "1KiB", "1000B"] {
            assert_eq!(Bytes::try_from(text.to_owned()).map(String::from), Ok(text.to_owned()));
        }
        for text in ["60s", "500ms", "7d"] {
            let back = Span::try_from(text.to_owned()).map(String::from);
            assert!(back == Ok(text.to_owned()) || back == Ok("1m".to_owned()), "{back:?}");
        }
        assert!(Span::try_from("5 parsecs".to_owned()).is_err());
        assert!(Bytes::try_from("many".to_owned()).is_err());
    }
}
