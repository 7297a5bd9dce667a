//! Which column type holds a MySQL type exactly.
//!
//! | MySQL, MariaDB | column |
//! |---|---|
//! | tinyint, smallint, mediumint, int, bigint | smallint, smallint, int, int, bigint |
//! | the same, unsigned | smallint, int, int, bigint, decimal(20,0) |
//! | float, double | real, double |
//! | decimal(p,s) | decimal(p,s) |
//! | bit(1), bit(n), bit(64) | boolean, bigint, decimal(20,0) |
//! | year | smallint |
//! | date, datetime, timestamp | date, timestamp, timestamptz |
//! | time | duration, for it runs from −838 to 838 hours; a contract may declare `time` |
//! | char, varchar, text, enum, set, inet4, inet6 | text, as the server prints it |
//! | binary, varbinary, blob | binary; a `binary(n)` has all its n bytes |
//! | MariaDB's compressed text and blob | as if they were not compressed |
//! | json | json, as MySQL prints it |
//! | geometry | text: EWKB in hexadecimal, as PostGIS prints and reads it |
//! | vector | json: an array of numbers |
//! | uuid | uuid |
//!
//! MariaDB's JSON is text there and text here; a contract may declare `json`. Zero and partial dates are refused with the
//! reason, as are columns in character sets that are not read.

use crate::contract::Type;
use crate::decode::debezium::value::{Spelling, Unit};
use crate::decode::debezium::wire::Wire;
use crate::wire::mysqltype::{ColumnShape, Form, Kind};

/// What holds every number of 64 bits without a sign.
const UNSIGNED: Type = Type::Decimal { precision: 20, scale: 0 };

/// The column type, and the spelling that it declares.
pub(super) fn reading(column: &ColumnShape) -> (Type, Wire) {
    match &column.kind {
        Kind::Integer { unsigned } => (integer(column.form, *unsigned), Wire::Integer),
        Kind::Real if column.form == Form::Float => (Type::Real, Wire::Float32),
        Kind::Real => (Type::Double, Wire::Float64),
        Kind::Decimal => (decimal(column.form), Wire::DecimalText),
        Kind::Bit => match column.form {
            Form::Bit(1) => (Type::Boolean, Wire::Boolean),
            Form::Bit(64) => (UNSIGNED, Wire::Integer),
            _ => (Type::BigInt, Wire::Integer),
        },
        Kind::Year => (Type::SmallInt, Wire::Integer),
        Kind::Date => (Type::Date, Wire::Days),
        Kind::Time => (Type::Duration, Wire::Time(Unit::Micro)),
        Kind::DateTime => (Type::Timestamp, Wire::Timestamp(Unit::Micro)),
        Kind::Timestamp => (Type::TimestampTz, Wire::ZonedTimestamp),
        Kind::Binary { .. } | Kind::PackedBinary => (Type::Binary, Wire::Bytes(Spelling::Hex)),
        Kind::Json | Kind::Vector => (Type::Json, Wire::JsonText),
        Kind::Uuid => (Type::Uuid, Wire::Uuid),
        Kind::Text { .. }
        | Kind::PackedText { .. }
        | Kind::Enum { .. }
        | Kind::Set { .. }
        | Kind::Geometry
        | Kind::Inet4
        | Kind::Inet6
        | Kind::Unread { .. } => (Type::TEXT, Wire::Text),
    }
}

fn integer(form: Form, unsigned: bool) -> Type {
    match (form, unsigned) {
        (Form::Integer(1), _) | (Form::Integer(2), false) => Type::SmallInt,
        (Form::Integer(2 | 3), _) | (Form::Integer(4), false) => Type::Int,
        (Form::Integer(8), true) => UNSIGNED,
        _ => Type::BigInt,
    }
}

fn decimal(form: Form) -> Type {
    match form {
        Form::Decimal { precision, scale } => Type::Decimal { precision, scale: scale as i8 },
        _ => Type::Numeric,
    }
}
