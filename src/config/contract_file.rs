//! A contract file: the columns of one table as people write them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::contract::{Column, TYPE_NAMES};

/// A contract file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContractFile {
    /// The version of the file format: 1.
    pub version: u32,
    /// The columns, as the source has them (before the operators).
    #[schemars(with = "Vec<ColumnForm>")]
    pub columns: Vec<Column>,
    /// The key; empty makes the table append-only.
    #[serde(default)]
    pub key: Vec<String>,
    /// Whether columns that are not listed are learned (`true`) or left out (`false`).
    #[serde(default = "yes")]
    pub learn: bool,
    /// Whether a value that does not fit makes its column wider, in the warehouse too (`true`), or its row is refused
    /// (`false`, see the table's `on_mismatch`). A `varchar` becomes longer, up to 65,535 bytes; a `smallint` an `int`,
    /// both a `bigint`; a `decimal` gets more digits, up to 38, in front of the point and behind it.
    #[serde(default = "yes")]
    pub widen: bool,
    /// How columns are spelled in events without a schema block, where that does not follow from the type: column name to
    /// encoding.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub encodings: BTreeMap<String, Encoding>,
}

/// How a column is spelled in JSON without a schema block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// Dates: days since 1970 (Debezium's only number for a date).
    Days,
    /// Times and timestamps: seconds.
    #[serde(rename = "s")]
    Seconds,
    /// Times and timestamps: milliseconds.
    #[serde(rename = "ms")]
    Milliseconds,
    /// Times and timestamps: microseconds.
    #[serde(rename = "us")]
    Microseconds,
    /// Times and timestamps: nanoseconds; what lies below the microsecond is refused.
    #[serde(rename = "ns")]
    Nanoseconds,
    /// Bytes, and decimals with the declared scale, in base64.
    Base64,
    /// Bytes in URL-safe base64.
    Base64Url,
    /// Bytes in hexadecimal.
    Hex,
    /// Decimals as digits, dates and times as ISO 8601.
    Text,
}

impl std::fmt::Display for Encoding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Days => "days",
            Self::Seconds => "s",
            Self::Milliseconds => "ms",
            Self::Microseconds => "us",
            Self::Nanoseconds => "ns",
            Self::Base64 => "base64",
            Self::Base64Url => "base64_url",
            Self::Hex => "hex",
            Self::Text => "text",
        })
    }
}

fn yes() -> bool {
    true
}

/// How a [`Column`] is written.
#[derive(JsonSchema)]
#[schemars(rename = "Column", deny_unknown_fields)]
#[allow(dead_code, reason = "only its schema is used")]
struct ColumnForm {
    /// Its name.
    name: String,
    /// Its type.
    #[schemars(rename = "type")]
    data_type: TypeForm,
    /// Whether a row may lack a value; `true` when absent.
    #[schemars(default = "yes")]
    nullable: bool,
}

/// How a column's type is written.
struct TypeForm;

impl JsonSchema for TypeForm {
    fn schema_name() -> Cow<'static, str> {
        "ColumnType".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let plain: Vec<&str> = TYPE_NAMES.into_iter().filter(|name| !name.contains('(')).collect();
        json_schema!({
            "type": "string",
            "description": format!("one of {}", TYPE_NAMES.join(", ")),
            "anyOf": [{ "enum": plain }, { "pattern": "^(decimal|numeric|varchar)\\([0-9]+(, ?[0-9]+)?\\)$" }, { "type": "string" }]
        })
    }
}
