//! What a comparison found.

use std::collections::BTreeMap;

use serde::Serialize;

use super::judge::Turn;
use super::layout::Layout;
use super::value;

/// What stands for a value that must not be shown.
const HIDDEN: &str = "***";

/// How a table came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Nothing differs.
    Equal,
    /// Something does.
    Different,
    /// It cannot be said.
    NotCompared,
}

/// In which way a row differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The source has it, the warehouse does not.
    Missing,
    /// The warehouse has it, the source does not.
    Extra,
    /// Both have it, with other values (or the warehouse has it more than once).
    Different,
}

/// A value on both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Values {
    /// The column.
    pub column: String,
    /// What the source and the operators say; `None` is null.
    pub source: Option<String>,
    /// What the warehouse holds.
    pub warehouse: Option<String>,
}

/// A row that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// How.
    pub kind: Kind,
    /// Its key; of a table without one all its values.
    pub key: BTreeMap<String, Option<String>>,
    /// The columns that differ; empty when a side has no such row.
    pub columns: Vec<Values>,
    /// Rows of the key in the source and in the warehouse.
    pub rows: (u64, u64),
}

/// How a table compares.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TableReport {
    /// The table.
    pub table: String,
    /// How it came out.
    pub outcome: Outcome,
    /// Rows that the source has.
    pub source_rows: u64,
    /// Of these: what operators leave out.
    pub filtered: u64,
    /// Rows that the warehouse shows.
    pub warehouse_rows: u64,
    /// Rows whose difference is known and said elsewhere, by the reason.
    pub excused: BTreeMap<String, u64>,
    /// Rows that changed on both sides faster than they could be compared.
    pub moving: u64,
    /// Rows that differ.
    pub different: u64,
    /// The first of them.
    pub differences: Vec<Difference>,
    /// Ranges of keys that differ and were not looked at row by row, because so many do.
    pub ranges_left_out: u64,
    /// Columns that were not compared, and why.
    pub columns_left_out: Vec<String>,
    /// Why it could not be compared.
    pub why: Option<String>,
}

impl TableReport {
    /// Nothing is known yet.
    pub fn new(table: &str) -> Self {
        Self {
            table: table.to_owned(),
            outcome: Outcome::Equal,
            source_rows: 0,
            filtered: 0,
            warehouse_rows: 0,
            excused: BTreeMap::new(),
            moving: 0,
            different: 0,
            differences: Vec::new(),
            ranges_left_out: 0,
            columns_left_out: Vec::new(),
            why: None,
        }
    }

    /// It cannot be compared.
    pub fn not_compared(mut self, why: impl Into<String>) -> Self {
        self.outcome = Outcome::NotCompared;
        self.why = Some(why.into());
        self
    }
}

impl Difference {
    /// What `turn` shows of `key`.
    pub fn new(layout: &Layout, key: &[u8], turn: &Turn) -> Self {
        let shown =
            |at: usize, cell: Option<String>| cell.map(|cell| if layout.hidden[at] { HIDDEN.into() } else { cell });
        let all: Vec<usize> = (0..layout.columns.len()).collect();
        let key_columns = if layout.key.is_empty() { &all } else { &layout.key };
        let named = key_columns.iter().zip(value::cells(key));
        let key = named.map(|(at, cell)| (layout.columns[*at].0.clone(), shown(*at, cell))).collect();
        let kind = match (turn.source.rows, turn.warehouse.rows) {
            (_, 0) => Kind::Missing,
            (0, _) => Kind::Extra,
            _ => Kind::Different,
        };
        let mut columns = Vec::new();
        if let (Some(source), Some(warehouse)) = (&turn.source.row, &turn.warehouse.row) {
            let pairs = value::cells(source).into_iter().zip(value::cells(warehouse)).enumerate();
            for (at, (source, warehouse)) in pairs.filter(|(_, (source, warehouse))| source != warehouse) {
                let column = layout.columns[at].0.clone();
                columns.push(Values { column, source: shown(at, source), warehouse: shown(at, warehouse) });
            }
        }
        Self { kind, key, columns, rows: (turn.source.rows, turn.warehouse.rows) }
    }
}
