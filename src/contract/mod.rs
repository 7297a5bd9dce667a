//! A table's contract: columns, types and key; written by hand or learned from the stream, versioned through the log.
//!
//! | file | what it owns |
//! |---|---|
//! | `types.rs` | [`Type`]: the column types, their text and Arrow forms |
//! | `limits.rs` | [`Limits`]: which values a warehouse can hold |
//! | `lattice.rs` | [`join_schemas`]: learning and widening as pure functions |
//! | `growth.rs` | what a column becomes for a value that it does not hold |
//!
//! A contract has two sides. `input` is what the decoder reads; `output` is what the operators make of it, what the
//! files of the `processed` zone hold and what the warehouse table looks like. `output` is a pure function of `input`
//! and the topology. Columns are only ever appended, and types only widen.

pub mod growth;
mod lattice;
mod limits;
mod types;

pub use lattice::{Incompatible, join_schemas, join_types};
pub use limits::{Limits, is_in_range};
pub use types::{TYPE_NAMES, Type};

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use serde::{Deserialize, Serialize};

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name. In an output schema: already mapped to what every warehouse accepts.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub data_type: Type,
    /// Whether a row may lack a value.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub nullable: bool,
}

fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_yes(value: &bool) -> bool {
    *value
}

impl Column {
    /// A nullable column.
    pub fn new(name: impl Into<String>, data_type: Type) -> Self {
        Self { name: name.into(), data_type, nullable: true }
    }
}

/// Columns and key of a table at one point in its life.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSchema {
    /// The columns in order; only ever appended to.
    pub columns: Vec<Column>,
    /// The names of the key columns, in key order; empty for an append-only table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<String>,
}

impl TableSchema {
    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name == name)
    }

    /// The position of that column.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }

    /// The positions of the key columns, in key order.
    pub fn key_indices(&self) -> Vec<usize> {
        self.key.iter().filter_map(|name| self.index(name)).collect()
    }

    /// The Arrow schema of the columns. Every field is nullable: a delete carries its key alone, and a row may be partial.
    pub fn arrow(&self) -> SchemaRef {
        Arc::new(Schema::new(
            self.columns.iter().map(|c| Field::new(&c.name, c.data_type.arrow(), true)).collect::<Vec<_>>(),
        ))
    }
}

/// One version of a table's contract, as the log stores it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contract {
    /// The table's name in the topology.
    pub table: String,
    /// 1 for the first; grows by one with every change in the log.
    pub version: u32,
    /// What the decoder reads.
    pub input: TableSchema,
    /// What the operators make of it: files of `processed`, and the warehouse table.
    pub output: TableSchema,
}
