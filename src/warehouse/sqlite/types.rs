//! How values are kept in SQLite: exact, and readable by a person.

use std::borrow::Cow;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimestampMicrosecondType,
};
use chrono::{DateTime, NaiveDate};
use sqlx::sqlite::SqliteArguments;

use crate::contract::Type;

/// What a column of this type is declared as. Decimals are text, because SQLite's numbers are not exact.
pub(crate) fn sql_type(data_type: Type) -> &'static str {
    match data_type {
        Type::Boolean => "BOOLEAN",
        Type::SmallInt | Type::Int | Type::BigInt | Type::Duration => "INTEGER",
        Type::Real | Type::Double => "REAL",
        Type::Binary => "BLOB",
        Type::Decimal { .. }
        | Type::Numeric
        | Type::Date
        | Type::Time
        | Type::Timestamp
        | Type::TimestampTz
        | Type::Text { .. }
        | Type::Json
        | Type::Uuid => "TEXT",
    }
}

/// SQLite's own rule of what a declared type does to values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Affinity {
    Integer,
    Text,
    Blob,
    Real,
    Numeric,
}

/// The affinity of a declared type.
pub(crate) fn affinity(declared: &str) -> Affinity {
    let upper = declared.to_ascii_uppercase();
    let has = |part: &str| upper.contains(part);
    if has("INT") {
        Affinity::Integer
    } else if has("CHAR") || has("CLOB") || has("TEXT") {
        Affinity::Text
    } else if has("BLOB") || upper.is_empty() {
        Affinity::Blob
    } else if has("REAL") || has("FLOA") || has("DOUB") {
        Affinity::Real
    } else {
        Affinity::Numeric
    }
}

/// Whether a column with that declared type keeps values of `data_type` exactly.
pub(crate) fn keeps(declared: &str, data_type: Type) -> bool {
    use Affinity::{Blob, Integer, Numeric, Real, Text};
    let has = affinity(declared);
    match affinity(sql_type(data_type)) {
        Text => matches!(has, Text | Blob),
        // Text keeps a whole number's digits: what is left of a column that has become decimal.
        Integer | Numeric => has != Real,
        Real => matches!(has, Real | Numeric | Blob),
        Blob => true,
    }
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell<'a> {
    Null,
    Int(i64),
    Real(f64),
    Text(Cow<'a, str>),
    Blob(&'a [u8]),
}

impl Cell<'_> {
    /// Binds it as the next argument.
    pub(crate) fn bind(self, arguments: &mut SqliteArguments) -> Result<(), sqlx::error::BoxDynError> {
        use sqlx::Arguments;
        match self {
            Self::Null => arguments.add(None::<i64>),
            Self::Int(value) => arguments.add(value),
            Self::Real(value) => arguments.add(value),
            Self::Text(value) => arguments.add(value.into_owned()),
            Self::Blob(value) => arguments.add(value.to_vec()),
        }
    }
}

/// The value of row `row`; `Err` says why SQLite cannot hold it.
pub(crate) fn cell(data_type: Type, array: &dyn Array, row: usize) -> Result<Cell<'_>, String> {
    if array.is_null(row) {
        return Ok(Cell::Null);
    }
    let text = |text: String| Ok(Cell::Text(Cow::Owned(text)));
    match data_type {
        Type::Boolean => Ok(Cell::Int(i64::from(array.as_boolean().value(row)))),
        Type::SmallInt => Ok(Cell::Int(i64::from(array.as_primitive::<Int16Type>().value(row)))),
        Type::Int => Ok(Cell::Int(i64::from(array.as_primitive::<Int32Type>().value(row)))),
        Type::BigInt | Type::Duration => Ok(Cell::Int(array.as_primitive::<Int64Type>().value(row))),
        Type::Real => Ok(float(f64::from(array.as_primitive::<Float32Type>().value(row)))),
        Type::Double => Ok(float(array.as_primitive::<Float64Type>().value(row))),
        Type::Decimal { precision, .. } if precision <= 38 => {
            text(array.as_primitive::<Decimal128Type>().value_as_string(row))
        }
        Type::Decimal { .. } => text(array.as_primitive::<Decimal256Type>().value_as_string(row)),
        Type::Date => date(array.as_primitive::<Date32Type>().value(row)).and_then(text),
        Type::Time => text(time(array.as_primitive::<Time64MicrosecondType>().value(row))),
        Type::Timestamp => timestamp(array.as_primitive::<TimestampMicrosecondType>().value(row)).and_then(text),
        Type::TimestampTz => {
            timestamp(array.as_primitive::<TimestampMicrosecondType>().value(row)).and_then(|value| text(value + "Z"))
        }
        Type::Numeric | Type::Text { .. } | Type::Json | Type::Uuid => {
            Ok(Cell::Text(Cow::Borrowed(array.as_string::<i32>().value(row))))
        }
        Type::Binary => Ok(Cell::Blob(array.as_binary::<i32>().value(row))),
    }
}

/// SQLite turns NaN into null, so it is kept as text.
fn float(value: f64) -> Cell<'static> {
    if value.is_nan() { Cell::Text(Cow::Borrowed("NaN")) } else { Cell::Real(value) }
}

const DAYS_FROM_CE_TO_1970: i32 = 719_163;

/// ISO 8601; years before 1 and after 9999 have a sign.
fn date(days: i32) -> Result<String, String> {
    days.checked_add(DAYS_FROM_CE_TO_1970)
        .and_then(NaiveDate::from_num_days_from_ce_opt)
        .map(|date| date.format("%Y-%m-%d").to_string())
        .ok_or_else(|| format!("the date {days} days after 1970-01-01 is beyond what a calendar can print"))
}

fn time(micros: i64) -> String {
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    format!("{:02}:{:02}:{:02}.{micros:06}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// ISO 8601 with six digits of a second, without a zone.
pub(crate) fn timestamp(micros: i64) -> Result<String, String> {
    DateTime::from_timestamp_micros(micros)
        .map(|time| time.format("%Y-%m-%dT%H:%M:%S%.6f").to_string())
        .ok_or_else(|| format!("the time {micros} microseconds after 1970 is beyond what a calendar can print"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_printed_exactly() {
        assert_eq!(date(0).as_deref(), Ok("1970-01-01"));
        assert_eq!(date(-735_160).as_deref(), Ok("-0043-03-15"));
        assert!(date(i32::MAX).is_err());
        assert_eq!(time(86_400_000_000), "24:00:00.000000");
        assert_eq!(timestamp(-1).as_deref(), Ok("1969-12-31T23:59:59.999999"));
        assert!(timestamp(i64::MIN).is_err());
    }

    #[test]
    fn an_integer_column_cannot_keep_decimals() {
        let decimal = Type::Decimal { precision: 12, scale: 2 };
        assert!(!keeps("BIGINT", decimal) && !keeps("DECIMAL(12,2)", decimal) && keeps("VARCHAR(10)", decimal));
        assert!(keeps("BIGINT", Type::Int) && keeps("TEXT", Type::Int) && !keeps("REAL", Type::BigInt));
    }
}
