//! The names that every warehouse shares, and how they are quoted.

use crate::epoch::DeleteMode;

/// Per topology and group: which epochs the warehouse holds.
pub(crate) const LEDGER: &str = "_dataflow_ledger";
/// Per table: epoch, account, freshness, truncate floor.
pub(crate) const TABLES: &str = "_dataflow_tables";
/// Deleted keys that something older may still arrive for, and refused versions.
pub(crate) const TOMBSTONES: &str = "_dataflow_tombstones";
/// Partial rows that found no base.
pub(crate) const INCOMPLETE: &str = "_dataflow_incomplete";
pub(crate) const INCOMPLETE_KEY: &str = "_dataflow_incomplete_key";
/// The view that people look at, and its name where that is taken.
pub(crate) const FRESHNESS: &str = "freshness";
pub(crate) const FRESHNESS_ELSE: &str = "dataflow_freshness";

/// The system columns of a target table.
pub(crate) const SEQ: &str = "_seq";
pub(crate) const SYNCED_AT: &str = "_synced_at";
pub(crate) const DELETED: &str = "_deleted";
pub(crate) const VALID_FROM: &str = "_valid_from";
pub(crate) const VALID_TO: &str = "_valid_to";
pub(crate) const CURRENT: &str = "_current";
pub(crate) const END_SEQ: &str = "_end_seq";
pub(crate) const PARTITION: &str = "_partition";

/// An identifier in double quotes.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text literal.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Whether a row is shown to those who read its table, as a condition.
pub(crate) fn live(mode: DeleteMode) -> String {
    match mode {
        DeleteMode::Hard => "1 = 1".to_owned(),
        DeleteMode::Soft => format!("{DELETED} IS NOT TRUE"),
        DeleteMode::History => format!("{CURRENT} IS TRUE"),
    }
}
