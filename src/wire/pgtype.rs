//! What a relation and its columns are: what the source learns from the catalog, and the decoder reads values by.
//!
//! The stream alone does not say it: for a domain, an enum or an extension's type it gives a number and a name, and with
//! `REPLICA IDENTITY FULL` it calls every column a key column.

use serde::{Deserialize, Serialize};

/// A relation as the source describes it to the decoder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelationShape {
    /// The number by which messages name it.
    pub id: u32,
    /// `<schema>.<table>`
    pub name: String,
    /// `REPLICA IDENTITY`: `d`efault, `n`othing, `f`ull, `i`ndex.
    pub identity: char,
    /// The columns in the order of the stream's tuples.
    pub columns: Vec<ColumnShape>,
}

/// A column of a relation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnShape {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(flatten)]
    pub kind: TypeShape,
    /// Whether it is part of the primary key (or, where there is none, of the replica identity's index).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub key: bool,
    /// Whether old tuples carry it: part of the replica identity.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub identity: bool,
}

/// A type, domains taken down to what they stand on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeShape {
    /// The name in `pg_type` (`int4`, `numeric`, `mood`); of an array that of its elements.
    #[serde(rename = "type")]
    pub name: String,
    /// What kind of type that is.
    #[serde(default)]
    pub class: Class,
    /// The modifier (length, precision and scale); -1 when there is none.
    #[serde(default = "none", skip_serializing_if = "is_none")]
    pub modifier: i32,
    /// Whether it is an array.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub array: bool,
    /// What stands between an array's elements: a comma for all types but `box`.
    #[serde(default = "comma", skip_serializing_if = "is_comma")]
    pub delimiter: char,
}

/// The kinds of types in `pg_type.typtype`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// A base type of the server or of an extension.
    #[default]
    Base,
    /// A row of its own.
    Composite,
    /// One of listed words.
    Enum,
    /// A range or multirange.
    Range,
}

fn none() -> i32 {
    -1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_none(modifier: &i32) -> bool {
    *modifier == -1
}

fn comma() -> char {
    ','
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_comma(delimiter: &char) -> bool {
    *delimiter == ','
}

/// The binary forms that are read exactly. A type without one is sent as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BinaryForm {
    /// One byte.
    Boolean,
    /// Two, four or eight bytes with a sign.
    Integer,
    /// Four bytes without a sign.
    Oid,
    /// Four or eight bytes, IEEE 754.
    Float,
    /// Digits to the base of 10,000.
    Numeric,
    /// Days since 2000.
    Date,
    /// Microseconds since midnight.
    Time,
    /// Microseconds since 2000.
    Timestamp,
    /// As it is.
    Bytes,
    /// Sixteen bytes.
    Uuid,
    /// The text itself.
    Text,
    /// A version and the text.
    Jsonb,
}

impl TypeShape {
    /// How its values are read from their binary form; `None` where only the text is exact for certain.
    pub fn binary(&self) -> Option<BinaryForm> {
        if self.array || self.class != Class::Base {
            return (self.class == Class::Enum && !self.array).then_some(BinaryForm::Text);
        }
        Some(match self.name.as_str() {
            "bool" => BinaryForm::Boolean,
            "int2" | "int4" | "int8" => BinaryForm::Integer,
            "oid" => BinaryForm::Oid,
            "float4" | "float8" => BinaryForm::Float,
            "numeric" => BinaryForm::Numeric,
            "date" => BinaryForm::Date,
            "time" => BinaryForm::Time,
            "timestamp" | "timestamptz" => BinaryForm::Timestamp,
            "bytea" => BinaryForm::Bytes,
            "uuid" => BinaryForm::Uuid,
            "text" | "varchar" | "bpchar" | "json" => BinaryForm::Text,
            "jsonb" => BinaryForm::Jsonb,
            _ => return None,
        })
    }

    /// Whether the text of a value, as the server writes it, is certain from its binary form: see [`TypeShape::key_text`].
    pub fn is_exact_key(&self) -> bool {
        use BinaryForm::{Integer, Oid, Text, Uuid};
        matches!(self.binary(), Some(Integer | Oid | Text | Uuid))
    }

    /// The text of a value in its binary form; `None` where it is not certain, or the bytes are no such value.
    pub fn key_text(&self, bytes: &[u8]) -> Option<String> {
        match self.binary()? {
            BinaryForm::Integer => match bytes.len() {
                2 => Some(i16::from_be_bytes(bytes.try_into().ok()?).to_string()),
                4 => Some(i32::from_be_bytes(bytes.try_into().ok()?).to_string()),
                _ => Some(i64::from_be_bytes(bytes.try_into().ok()?).to_string()),
            },
            BinaryForm::Oid => Some(u32::from_be_bytes(bytes.try_into().ok()?).to_string()),
            BinaryForm::Uuid => uuid::Uuid::from_slice(bytes).ok().map(|uuid| uuid.to_string()),
            BinaryForm::Text => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        }
    }

    /// A type that is neither an array nor modified.
    pub fn plain(name: impl Into<String>) -> Self {
        Self { name: name.into(), class: Class::Base, modifier: -1, array: false, delimiter: ',' }
    }
}
