//! Contract types and Redshift's, on both sides of a load: what a table's column is, and what its stage's column is,
//! which is what the Parquet file holds.
//!
//! | contract | table | stage, from Parquet | why |
//! |---|---|---|---|
//! | boolean, smallint, int, bigint, real, double, date, timestamp | the same | the same | |
//! | decimal(p,s), p up to 38, s up to 37 | numeric(p,s) | numeric(p,s) | equal in file and table |
//! | decimal(19,s) | numeric(20,s) | numeric(20,s) | numeric(19,s) is kept in 8 bytes, and ends at 2⁶³ - 1 |
//! | other decimals, numeric | varchar | varchar | Redshift has 38 digits, 37 behind the point; a fixed scale would cut |
//! | time | varchar(15) | varchar(15) | COPY loads no TIME from Parquet; the text sorts like the time |
//! | duration | bigint | bigint | microseconds |
//! | timestamptz | timestamptz | timestamp, UTC | how COPY takes adjusted times is not documented |
//! | text, uuid | varchar(bytes) | the same | |
//! | binary | varbyte | varbyte | COPY takes no VARBYTE with a length; without one it holds 64,000 bytes |
//! | json | super | varchar | `JSON_PARSE` either gives the document or fails; a Parquet column that COPY does not take for JSON would become one string, silently |
//! | json beyond 65,535 bytes | super | super | a text of that length is in no column (`documents.rs`) |

use crate::contract::{Column, Limits, Type, join_types};

/// What the columns hold.
pub(crate) const LIMITS: Limits = Limits::REDSHIFT;

/// How many bytes a column's text may have, where the column is text in the stage.
pub(crate) fn text_bytes(data_type: Type) -> Option<u32> {
    LIMITS.bytes_of(data_type)
}

/// The type of a table's column.
pub(crate) fn sql_type(data_type: Type) -> String {
    match data_type {
        Type::TimestampTz => "timestamptz".to_owned(),
        Type::Json => "super".to_owned(),
        _ => stage_type(data_type),
    }
}

/// The type of a stage's column.
pub(crate) fn stage_type(data_type: Type) -> String {
    if let Some(bytes) = text_bytes(data_type) {
        return format!("varchar({bytes})");
    }
    let name = match data_type {
        Type::Boolean => "boolean",
        Type::SmallInt => "smallint",
        Type::Int => "integer",
        Type::Real => "real",
        Type::Double => "double precision",
        Type::Decimal { precision, scale } => {
            let (precision, scale) = LIMITS.decimal(precision, scale).unwrap_or((precision, scale));
            return format!("numeric({precision},{scale})");
        }
        Type::Date => "date",
        Type::Timestamp | Type::TimestampTz => "timestamp",
        Type::Binary => "varbyte",
        Type::BigInt | Type::Duration => "bigint",
        Type::Numeric | Type::Time | Type::Text { .. } | Type::Json | Type::Uuid => "varchar",
    };
    name.to_owned()
}

/// A staged value as the table's type.
pub(crate) fn to_table(data_type: Type, value: &str) -> String {
    match data_type {
        Type::TimestampTz => format!("{value} AT TIME ZONE 'UTC'"),
        Type::Json => format!("JSON_PARSE({value})"),
        _ => value.to_owned(),
    }
}

/// The same where the stage holds documents.
pub(crate) fn document_to_table(data_type: Type, value: &str) -> String {
    if data_type == Type::Json { value.to_owned() } else { to_table(data_type, value) }
}

/// A value of the table as the stage's type; a document stays one, because `JSON_SERIALIZE` refuses what is too long for a
/// text (<https://docs.aws.amazon.com/redshift/latest/dg/JSON_SERIALIZE.html>).
pub(crate) fn to_stage(data_type: Type, value: &str) -> String {
    match data_type {
        Type::TimestampTz => format!("{value} AT TIME ZONE 'UTC'"),
        Type::Json => value.to_owned(),
        _ => format!("CAST({value} AS {})", stage_type(data_type)),
    }
}

/// A column of a live table, as the catalog tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LiveColumn {
    pub name: String,
    /// As `information_schema.columns` spells it.
    pub data_type: String,
    pub max_bytes: Option<u32>,
    pub precision: Option<u32>,
    pub scale: Option<u32>,
}

impl LiveColumn {
    /// The type in the words of [`sql_type`].
    pub(crate) fn sql_type(&self) -> String {
        match self.data_type.as_str() {
            "character varying" => format!("varchar({})", self.max_bytes.unwrap_or(LIMITS.text_bytes)),
            "numeric" => match (self.precision, self.scale) {
                (Some(precision), scale) => format!("numeric({precision},{})", scale.unwrap_or(0)),
                _ => "numeric".to_owned(),
            },
            "timestamp without time zone" => "timestamp".to_owned(),
            "timestamp with time zone" => "timestamptz".to_owned(),
            "binary varying" => "varbyte".to_owned(),
            other => other.to_owned(),
        }
    }
}

/// How a live column fits what the contract wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It holds every value.
    Holds,
    /// It does after it has become this longer `varchar`.
    Lengthen(String),
    /// It does after a column of this type has taken its place.
    Replace(String),
    /// It never will.
    Never,
}

/// Holds a live column against the wanted one.
pub(crate) fn fit(live: &LiveColumn, wanted: &Column) -> Fit {
    let wanted_type = sql_type(wanted.data_type);
    let live_type = live.sql_type();
    if live_type == wanted_type && wanted.data_type != Type::Binary {
        return Fit::Holds;
    }
    if live.data_type == "character varying" {
        let has = live.max_bytes.unwrap_or(LIMITS.text_bytes);
        return match text_bytes(wanted.data_type) {
            Some(bytes) if wanted.data_type != Type::Json && bytes <= has => Fit::Holds,
            Some(_) if wanted.data_type != Type::Json => Fit::Lengthen(wanted_type),
            _ => Fit::Never,
        };
    }
    if let (Some(has), Type::Binary) = (binary_bytes(live), wanted.data_type) {
        return if has < LIMITS.binary_bytes { Fit::Replace(wanted_type) } else { Fit::Holds };
    }
    let Some(known) = known_type(live) else { return Fit::Never };
    match join_types(known, wanted.data_type) {
        Some(joined) if joined == known || sql_type(joined) == live_type => Fit::Holds,
        Some(joined) => Fit::Replace(sql_type(joined)),
        None => Fit::Never,
    }
}

/// How many bytes a live column of binary values holds. The catalog may show it behind the type, in its own column, or not.
fn binary_bytes(live: &LiveColumn) -> Option<usize> {
    let length = live.data_type.strip_prefix("binary varying")?;
    let shown = length.trim_matches(['(', ')']).parse().ok().or(live.max_bytes);
    Some(shown.map_or(LIMITS.binary_bytes, |bytes| bytes as usize))
}

fn known_type(live: &LiveColumn) -> Option<Type> {
    let narrow = |number: Option<u32>| number.and_then(|n| u8::try_from(n).ok());
    Some(match live.data_type.as_str() {
        "boolean" => Type::Boolean,
        "smallint" => Type::SmallInt,
        "integer" => Type::Int,
        "bigint" => Type::BigInt,
        "real" => Type::Real,
        "double precision" => Type::Double,
        "date" => Type::Date,
        "numeric" => {
            let precision = narrow(live.precision)?;
            // It holds every number of one digit less.
            let precision = precision - u8::from(precision == LIMITS.crammed);
            Type::Decimal { precision, scale: narrow(live.scale).unwrap_or(0).cast_signed() }
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(data_type: &str, max_bytes: Option<u32>, number: Option<(u32, u32)>) -> LiveColumn {
        LiveColumn {
            name: "c".into(),
            data_type: data_type.into(),
            max_bytes,
            precision: number.map(|n| n.0),
            scale: number.map(|n| n.1),
        }
    }

    #[test]
    fn types_only_widen() {
        let wanted = |data_type| Column::new("c", data_type);
        let varchar = |n| Type::Text { max_bytes: Some(n) };
        let decimal = |precision, scale| Type::Decimal { precision, scale };
        let ten = live("character varying", Some(10), None);
        assert_eq!(fit(&ten, &wanted(varchar(10))), Fit::Holds);
        assert_eq!(fit(&ten, &wanted(varchar(40))), Fit::Lengthen("varchar(40)".into()));
        assert_eq!(fit(&ten, &wanted(Type::TEXT)), Fit::Lengthen("varchar(65535)".into()));
        assert_eq!(fit(&ten, &wanted(Type::Int)), Fit::Never);
        assert_eq!(fit(&live("bigint", None, None), &wanted(Type::Int)), Fit::Holds);
        assert_eq!(fit(&live("integer", None, None), &wanted(Type::BigInt)), Fit::Replace("bigint".into()));
        let numeric = live("numeric", None, Some((10, 4)));
        assert_eq!(fit(&numeric, &wanted(decimal(12, 2))), Fit::Replace("numeric(14,4)".into()));
        assert_eq!(fit(&numeric, &wanted(decimal(10, 4))), Fit::Holds);
        assert_eq!(fit(&live("timestamp with time zone", None, None), &wanted(Type::Timestamp)), Fit::Never);
        assert_eq!(fit(&live("super", None, None), &wanted(Type::Json)), Fit::Holds);
        assert_eq!(fit(&live("binary varying", None, None), &wanted(Type::Binary)), Fit::Holds);
        assert_eq!(fit(&live("binary varying", Some(64_000), None), &wanted(Type::Binary)), Fit::Holds);
        assert_eq!(fit(&live("binary varying(100000)", None, None), &wanted(Type::Binary)), Fit::Holds);
        for short in [live("binary varying", Some(10), None), live("binary varying(10)", None, None)] {
            assert_eq!(fit(&short, &wanted(Type::Binary)), Fit::Replace("varbyte".into()));
        }
        let crammed = live("numeric", None, Some((19, 4)));
        assert_eq!(fit(&crammed, &wanted(decimal(19, 4))), Fit::Replace("numeric(20,4)".into()));
        assert_eq!(fit(&crammed, &wanted(decimal(18, 4))), Fit::Holds);
        assert_eq!(fit(&live("numeric", None, Some((20, 4))), &wanted(decimal(19, 4))), Fit::Holds);
        assert_eq!(
            fit(&live("numeric", None, Some((18, 0))), &wanted(Type::BigInt)),
            Fit::Replace("numeric(20,0)".into())
        );
    }

    #[test]
    fn what_cannot_be_loaded_as_it_is_has_a_stage_of_another_type() {
        assert_eq!((sql_type(Type::Json), stage_type(Type::Json)), ("super".into(), "varchar(65535)".into()));
        assert_eq!(to_table(Type::Json, "s.\"doc\""), "JSON_PARSE(s.\"doc\")");
        assert_eq!(stage_type(Type::TimestampTz), "timestamp");
        assert_eq!(sql_type(Type::Decimal { precision: 40, scale: 2 }), "varchar(43)");
        assert_eq!(sql_type(Type::Decimal { precision: 38, scale: 38 }), "varchar(41)");
    }
}
