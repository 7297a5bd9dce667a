//! Which column type holds a PostgreSQL type exactly, and how its text is read.
//!
//! | PostgreSQL | column |
//! |---|---|
//! | boolean, smallint, integer, bigint, real, double precision, date, time, timestamp, timestamptz, uuid, bytea | the same |
//! | oid | bigint |
//! | numeric(p,s) with 0 ≤ s ≤ p ≤ 76 | decimal(p,s) |
//! | any other numeric | numeric |
//! | json, jsonb, pgvector's vector and halfvec | json |
//! | hstore | json: an object of texts and nulls |
//! | arrays | json: arrays of numbers, booleans, documents or texts |
//! | interval | text: ISO 8601, months, days and microseconds apart as PostgreSQL keeps them |
//! | char, varchar, text, enums, ranges, composites, network, bit, geometric, money, xml, timetz, anything else | text, as PostgreSQL writes it |
//!
//! A domain is what it stands on. NaN and infinity are values of real and double; in numeric, and infinite or BC dates
//! and times, they are refused with the reason.

use crate::contract::Type;
use crate::decode::debezium::value::Spelling;
use crate::decode::debezium::wire::Wire;
use crate::wire::pgtype::{Class, TypeShape};

/// How a value's text becomes what the builders take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// `t` or `f`
    Boolean,
    /// Digits.
    Number,
    /// A number, or one of the three words that a float may also be.
    Float,
    Decimal,
    /// A date or time, which may be infinite or before Christ.
    Moment,
    /// `\x` and hexadecimal digits
    Bytes,
    Hstore,
    /// An array, its elements read like this.
    Array(Element, char),
    /// As it is.
    Text,
}

/// How an element of an array is written as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    Boolean,
    Number,
    Document,
    Text,
}

/// The column type, the spelling that it declares, and how to read it.
pub(super) fn reading(shape: &TypeShape) -> (Type, Wire, Reading) {
    if shape.array {
        return (Type::Json, Wire::JsonText, Reading::Array(element(shape), shape.delimiter));
    }
    if shape.class != Class::Base {
        return (Type::TEXT, Wire::Text, Reading::Text);
    }
    match shape.name.as_str() {
        "bool" => (Type::Boolean, Wire::Boolean, Reading::Boolean),
        "int2" => (Type::SmallInt, Wire::Integer, Reading::Number),
        "int4" => (Type::Int, Wire::Integer, Reading::Number),
        "int8" | "oid" => (Type::BigInt, Wire::Integer, Reading::Number),
        "float4" => (Type::Real, Wire::Float32, Reading::Float),
        "float8" => (Type::Double, Wire::Float64, Reading::Float),
        "numeric" => (decimal(shape.modifier), Wire::DecimalText, Reading::Decimal),
        "date" => (Type::Date, Wire::IsoDate, Reading::Moment),
        "time" => (Type::Time, Wire::IsoTime, Reading::Text),
        "timestamp" => (Type::Timestamp, Wire::IsoTimestamp, Reading::Moment),
        "timestamptz" => (Type::TimestampTz, Wire::ZonedTimestamp, Reading::Moment),
        "bytea" => (Type::Binary, Wire::Bytes(Spelling::Hex), Reading::Bytes),
        "uuid" => (Type::Uuid, Wire::Uuid, Reading::Text),
        "json" | "jsonb" | "vector" | "halfvec" => (Type::Json, Wire::JsonText, Reading::Text),
        "hstore" => (Type::Json, Wire::JsonText, Reading::Hstore),
        _ => (Type::TEXT, Wire::Text, Reading::Text),
    }
}

fn element(shape: &TypeShape) -> Element {
    match shape.name.as_str() {
        _ if shape.class != Class::Base => Element::Text,
        "bool" => Element::Boolean,
        "int2" | "int4" | "int8" | "oid" | "float4" | "float8" | "numeric" => Element::Number,
        "json" | "jsonb" => Element::Document,
        _ => Element::Text,
    }
}

/// The type of a `numeric`: its modifier is 4 + (precision << 16 | scale), the scale of eleven bits with a sign.
fn decimal(modifier: i32) -> Type {
    let Some(packed) = modifier.checked_sub(4).filter(|packed| *packed >= 0) else { return Type::Numeric };
    let precision = (packed >> 16) & 0xFFFF;
    let scale = ((packed & 0x7FF) ^ 0x400) - 0x400;
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(precision @ 1..=76), Ok(scale)) if scale >= 0 && scale as u8 <= precision => {
            Type::Decimal { precision, scale }
        }
        _ => Type::Numeric,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_numeric_is_a_decimal_where_one_holds_it() {
        assert_eq!(decimal(-1), Type::Numeric);
        assert_eq!(decimal(4 + (12 << 16 | 2)), Type::Decimal { precision: 12, scale: 2 });
        assert_eq!(decimal(4 + (76 << 16)), Type::Decimal { precision: 76, scale: 0 });
        assert_eq!(decimal(4 + (77 << 16)), Type::Numeric);
        assert_eq!(decimal(4 + (5 << 16 | 0x7FE)), Type::Numeric, "a scale of -2");
        assert_eq!(decimal(4 + (2 << 16 | 5)), Type::Numeric, "more digits behind the point than digits");
    }
}
