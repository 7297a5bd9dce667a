//! Contract types and PostgreSQL's.

use crate::contract::{Type, join_types};

/// The longest `varchar` that PostgreSQL knows.
const MAX_VARCHAR: u32 = 10_485_760;

/// The type of a column. `json`, not `jsonb`: the document stays as it was written.
pub(crate) fn sql_type(data_type: Type) -> String {
    let name = match data_type {
        Type::Boolean => "boolean",
        Type::SmallInt => "smallint",
        Type::Int => "integer",
        Type::BigInt => "bigint",
        Type::Real => "real",
        Type::Double => "double precision",
        Type::Decimal { precision, scale } => return format!("numeric({precision},{scale})"),
        Type::Numeric => "numeric",
        Type::Date => "date",
        Type::Time => "time",
        Type::Duration => "interval",
        Type::Timestamp => "timestamp",
        Type::TimestampTz => "timestamptz",
        Type::Text { max_bytes: Some(bytes) } if bytes > 0 && bytes <= MAX_VARCHAR => {
            return format!("varchar({bytes})");
        }
        Type::Text { .. } => "text",
        Type::Binary => "bytea",
        Type::Json => "json",
        Type::Uuid => "uuid",
    };
    name.to_owned()
}

/// How a live column fits what the contract wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It holds every value.
    Holds,
    /// It does after it has become this type.
    Widen(String),
    /// It never will.
    Never,
}

/// Holds the catalog's type (as `format_type` prints it) against the wanted one.
pub(crate) fn fit(live: &str, wanted: Type) -> Fit {
    let Some(known) = parse(live) else { return Fit::Never };
    match join_types(known, wanted) {
        Some(joined) if joined == known => Fit::Holds,
        Some(joined) => Fit::Widen(sql_type(joined)),
        None if known == Type::TEXT => Fit::Holds,
        None => Fit::Never,
    }
}

/// The contract type that a catalog type is.
fn parse(live: &str) -> Option<Type> {
    let data_type = match live {
        "boolean" => Type::Boolean,
        "smallint" => Type::SmallInt,
        "integer" => Type::Int,
        "bigint" => Type::BigInt,
        "real" => Type::Real,
        "double precision" => Type::Double,
        "numeric" => Type::Numeric,
        "date" => Type::Date,
        "time without time zone" => Type::Time,
        "interval" => Type::Duration,
        "timestamp without time zone" => Type::Timestamp,
        "timestamp with time zone" => Type::TimestampTz,
        "text" | "character varying" => Type::TEXT,
        "bytea" => Type::Binary,
        "json" | "jsonb" => Type::Json,
        "uuid" => Type::Uuid,
        _ => {
            let (name, rest) = live.split_once('(')?;
            let arguments = rest.strip_suffix(')')?;
            match name {
                "numeric" => format!("decimal({arguments})").parse().ok()?,
                "character varying" => Type::Text { max_bytes: Some(arguments.parse().ok()?) },
                _ => return None,
            }
        }
    };
    Some(data_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_only_widen() {
        let decimal = |precision, scale| Type::Decimal { precision, scale };
        assert_eq!(fit("integer", Type::BigInt), Fit::Widen("bigint".into()));
        assert_eq!(fit("bigint", Type::Int), Fit::Holds);
        assert_eq!(fit("numeric(10,4)", decimal(12, 2)), Fit::Widen("numeric(14,4)".into()));
        assert_eq!(fit("character varying(10)", Type::Text { max_bytes: Some(40) }), Fit::Widen("varchar(40)".into()));
        assert_eq!(fit("text", Type::Uuid), Fit::Holds);
        assert_eq!(fit("jsonb", Type::Json), Fit::Holds);
        assert_eq!(fit("timestamp with time zone", Type::Timestamp), Fit::Never);
        assert_eq!(fit("point", Type::TEXT), Fit::Never);
    }
}
