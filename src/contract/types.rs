//! The column types, and how they are laid out in Arrow.

use std::fmt;

use arrow::datatypes::{DataType, TimeUnit};
use serde::{Deserialize, Serialize};

/// A column's type: what a source can say exactly and a warehouse can hold exactly.
///
/// Its text form (in contract files and in the log) is what [`fmt::Display`] prints, e.g. `decimal(12,2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Type {
    /// true or false
    Boolean,
    /// 16-bit integer
    SmallInt,
    /// 32-bit integer
    Int,
    /// 64-bit integer
    BigInt,
    /// 32-bit float, NaN and infinities included
    Real,
    /// 64-bit float, NaN and infinities included
    Double,
    /// Fixed point, at most 76 digits. Up to 38 digits: Arrow Decimal128, above: Decimal256.
    Decimal { precision: u8, scale: i8 },
    /// A decimal number without a fixed scale; canonical text.
    Numeric,
    /// Days since 1970-01-01
    Date,
    /// Time of day, microseconds in [0, 86400000000]
    Time,
    /// A signed length of time in microseconds (Postgres interval, MySQL TIME beyond a day)
    Duration,
    /// Microseconds since 1970-01-01T00:00:00 without a zone
    Timestamp,
    /// Microseconds since 1970-01-01T00:00:00 UTC
    TimestampTz,
    /// UTF-8; the limit is in bytes
    Text { max_bytes: Option<u32> },
    /// Bytes
    Binary,
    /// A JSON document, as text
    Json,
    /// A UUID, as lower-case hyphenated text
    Uuid,
}

impl Type {
    /// Text without a limit.
    pub const TEXT: Self = Self::Text { max_bytes: None };

    /// The Arrow layout of a column of this type.
    pub fn arrow(&self) -> DataType {
        match self {
            Self::Boolean => DataType::Boolean,
            Self::SmallInt => DataType::Int16,
            Self::Int => DataType::Int32,
            Self::BigInt => DataType::Int64,
            Self::Real => DataType::Float32,
            Self::Double => DataType::Float64,
            Self::Decimal { precision, scale } if *precision <= 38 => DataType::Decimal128(*precision, *scale),
            Self::Decimal { precision, scale } => DataType::Decimal256(*precision, *scale),
            Self::Date => DataType::Date32,
            Self::Time => DataType::Time64(TimeUnit::Microsecond),
            Self::Duration => DataType::Int64,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Self::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Numeric | Self::Text { .. } | Self::Json | Self::Uuid => DataType::Utf8,
            Self::Binary => DataType::Binary,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("boolean"),
            Self::SmallInt => f.write_str("smallint"),
            Self::Int => f.write_str("int"),
            Self::BigInt => f.write_str("bigint"),
            Self::Real => f.write_str("real"),
            Self::Double => f.write_str("double"),
            Self::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            Self::Numeric => f.write_str("numeric"),
            Self::Date => f.write_str("date"),
            Self::Time => f.write_str("time"),
            Self::Duration => f.write_str("duration"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::TimestampTz => f.write_str("timestamptz"),
            Self::Text { max_bytes: None } => f.write_str("text"),
            Self::Text { max_bytes: Some(bytes) } => write!(f, "varchar({bytes})"),
            Self::Binary => f.write_str("binary"),
            Self::Json => f.write_str("json"),
            Self::Uuid => f.write_str("uuid"),
        }
    }
}

impl From<Type> for String {
    fn from(value: Type) -> Self {
        value.to_string()
    }
}

/// The names that a contract file may use, for messages and suggestions.
pub const TYPE_NAMES: [&str; 18] = [
    "boolean",
    "smallint",
    "int",
    "bigint",
    "real",
    "double",
    "decimal(p,s)",
    "numeric",
    "date",
    "time",
    "duration",
    "timestamp",
    "timestamptz",
    "text",
    "varchar(bytes)",
    "binary",
    "json",
    "uuid",
];

impl TryFrom<String> for Type {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl std::str::FromStr for Type {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.trim().to_ascii_lowercase();
        let (name, arguments) = match lower.split_once('(') {
            Some((name, rest)) => {
                let inner =
                    rest.strip_suffix(')').ok_or_else(|| format!("type `{text}` lacks its closing parenthesis"))?;
                (name.trim(), inner.split(',').map(|a| a.trim().to_owned()).collect::<Vec<_>>())
            }
            None => (lower.as_str(), Vec::new()),
        };
        let number = |i: usize| -> Result<u32, String> {
            arguments
                .get(i)
                .and_then(|a: &String| a.parse().ok())
                .ok_or_else(|| format!("type `{text}` needs a whole number as argument {}", i + 1))
        };
        let plain = |kind: Self| {
            if arguments.is_empty() { Ok(kind) } else { Err(format!("type `{name}` takes no arguments")) }
        };
        match name {
            "boolean" | "bool" => plain(Self::Boolean),
            "smallint" | "int2" => plain(Self::SmallInt),
            "int" | "integer" | "int4" => plain(Self::Int),
            "bigint" | "int8" => plain(Self::BigInt),
            "real" | "float4" => plain(Self::Real),
            "double" | "double precision" | "float8" => plain(Self::Double),
            "decimal" => {
                let (precision, scale) = (number(0)?, if arguments.len() > 1 { number(1)? } else { 0 });
                if precision == 0 || precision > 76 || scale > precision {
                    return Err(format!("type `{text}`: precision must be 1 to 76 and scale 0 to the precision"));
                }
                Ok(Self::Decimal { precision: precision as u8, scale: scale as i8 })
            }
            "numeric" if arguments.is_empty() => Ok(Self::Numeric),
            "numeric" => format!("decimal({})", arguments.join(",")).parse(),
            "date" => plain(Self::Date),
            "time" => plain(Self::Time),
            "duration" | "interval" => plain(Self::Duration),
            "timestamp" => plain(Self::Timestamp),
            "timestamptz" => plain(Self::TimestampTz),
            "text" | "string" => plain(Self::TEXT),
            "varchar" if arguments.is_empty() => Ok(Self::TEXT),
            "varchar" => Ok(Self::Text { max_bytes: Some(number(0)?) }),
            "binary" | "bytes" | "bytea" => plain(Self::Binary),
            "json" | "jsonb" => plain(Self::Json),
            "uuid" => plain(Self::Uuid),
            _ => Err(format!("unknown type `{text}`; known are {}", TYPE_NAMES.join(", "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        for text in ["boolean", "decimal(12,2)", "decimal(76,0)", "varchar(40)", "text", "timestamptz", "numeric"] {
            assert_eq!(text.parse::<Type>().map(|t| t.to_string()), Ok(text.to_owned()));
        }
        assert!("decimal(80,2)".parse::<Type>().is_err());
        assert!("integr".parse::<Type>().is_err_and(|e| e.contains("unknown type")));
    }
}
