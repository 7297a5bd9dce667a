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

impl TypeShape {
    /// A type that is neither an array nor modified.
    pub fn plain(name: impl Into<String>) -> Self {
        Self { name: name.into(), class: Class::Base, modifier: -1, array: false, delimiter: ',' }
    }
}
