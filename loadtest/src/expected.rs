//! What the tables must hold in the end, in a form that any warehouse can be compared with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::table::Kind;

/// An order-free hash of rows: the sum of their 128-bit hashes, and how many there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowHash {
    /// How many rows.
    pub rows: u64,
    /// The wrapping sum of [`row_hash`] over them.
    pub sum: u128,
}

impl RowHash {
    /// Adds one row.
    pub fn add(&mut self, hash: u128) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(hash);
    }

    /// The sum as 32 hexadecimal digits.
    pub fn hex(&self) -> String {
        format!("{:032x}", self.sum)
    }
}

/// The hash of one row: of `name=value` lines of the columns that are not null, in name order.
///
/// Canonical values: whole numbers in decimal digits; decimals with exactly their scale's digits; `true` and `false`;
/// doubles as Rust's shortest text; dates as days and times as microseconds since 1970; texts, JSON and UUIDs as they are.
/// A null and a missing column are the same, so rows from before a column was added compare equal.
pub fn row_hash<'a>(cells: impl IntoIterator<Item = (&'a str, &'a str)>) -> u128 {
    let mut cells: Vec<(&str, &str)> = cells.into_iter().collect();
    cells.sort_unstable_by_key(|(name, _)| *name);
    let mut canonical = Vec::with_capacity(256);
    for (name, value) in cells {
        canonical.extend_from_slice(name.as_bytes());
        canonical.push(b'=');
        canonical.extend_from_slice(value.as_bytes());
        canonical.push(b'\n');
    }
    xxh3_128(&canonical)
}

/// A column and how its canonical text is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnSpec {
    /// Its name at the source.
    pub name: String,
    /// Its type at the source.
    pub kind: Kind,
}

/// A column that appeared on the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedColumn {
    /// Its name.
    pub name: String,
    /// How many events of the whole shop came before.
    pub after_events: u64,
}

/// What one table must hold, and what was said about it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableExpected {
    /// The stream that its events came in.
    pub topic: String,
    /// The key columns; none: append-only.
    pub key: Vec<String>,
    /// The columns that the hash is made of.
    pub columns: Vec<ColumnSpec>,
    /// Valid row events by op (`r`, `c`, `u`, `d`); a key update counts as a delete and a create.
    pub events: BTreeMap<String, u64>,
    /// Planted bad events by kind.
    pub bad: BTreeMap<String, u64>,
    /// Key updates among the events.
    pub moves: u64,
    /// Events that came a second time.
    pub redelivered: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Rows that people see in the end.
    pub rows: u64,
    /// Their order-free hash, 32 hexadecimal digits.
    pub hash: String,
    /// Sums of the decimal columns over these rows, unscaled.
    pub sums: BTreeMap<String, i64>,
    /// The column that appeared on the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added_column: Option<AddedColumn>,
}

impl TableExpected {
    /// Valid and bad row events.
    pub fn generated(&self) -> u64 {
        self.events.values().sum::<u64>() + self.bad.values().sum::<u64>()
    }
}

/// What a whole run must lead to; the summary file of the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// The seed.
    pub seed: u64,
    /// Valid and bad row events of all tables.
    pub generated: u64,
    /// Planted bad events of all tables.
    pub bad: u64,
    /// Messages in all: row events, bad ones, tombstones and what was delivered again.
    pub messages: u64,
    /// By table.
    pub tables: BTreeMap<String, TableExpected>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_ignores_the_order_of_rows_and_columns() {
        let (a, b) = (row_hash([("id", "1"), ("name", "x")]), row_hash([("id", "2"), ("name", "y")]));
        let (mut one, mut other) = (RowHash::default(), RowHash::default());
        one.add(a);
        one.add(b);
        other.add(b);
        other.add(row_hash([("name", "x"), ("id", "1")]));
        assert_eq!(one, other);
        other.add(b);
        assert_ne!(one, other);
        assert_ne!(row_hash([("a", "bc")]), row_hash([("ab", "c")]));
    }
}
