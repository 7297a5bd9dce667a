//! What a unit's table needs, found by looking at it once.

use std::collections::BTreeMap;
use std::ops::Range;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::kernels::cmp::distinct;

use super::key::KeyText;
use super::merge::Needs;
use crate::batch::{Op, Seq, TableChanges};
use crate::epoch::{Incomplete, TableLoad};
use crate::error::Result;

/// What a table of a unit needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Rows, markers and keys left by moves included.
    pub rows: usize,
    /// There are rows that need a base.
    pub partial: bool,
    /// There are rows that moved to another key.
    pub moves: bool,
    /// There are deletes.
    pub deletes: bool,
    /// There are refused versions.
    pub refused: bool,
    /// The lowest order.
    pub oldest: Option<Seq>,
}

impl Shape {
    pub(crate) fn of(load: &TableLoad) -> Self {
        let ops = || load.rows.iter().flat_map(|c| &c.ops);
        let key = load.contract.output.key_indices();
        let whole = load.rows.iter().all(|c| c.old_keys.is_none() && c.unchanged.iter().all(Option::is_none));
        Self {
            rows: load.rows.iter().map(TableChanges::len).sum(),
            partial: !whole,
            moves: load.rows.iter().any(|c| c.ops.contains(&Op::Move) || has_moved(c, &key)),
            deletes: ops().any(|op| matches!(op, Op::Delete | Op::Move)),
            refused: ops().any(|op| *op == Op::Refused),
            oldest: load.rows.iter().flat_map(|c| &c.seqs).min().copied(),
        }
    }
}

/// Whether a row stands on another key than its own (`key`: where that is). Where that cannot be told, it does.
fn has_moved(changes: &TableChanges, key: &[usize]) -> bool {
    let Some(old) = &changes.old_keys else { return false };
    key.iter().zip(old.columns()).any(|(own, old)| match distinct(changes.rows.column(*own), old) {
        Ok(differs) => (0..old.len()).any(|row| old.is_valid(row) && differs.value(row)),
        Err(_) => true,
    })
}

impl Shape {
    /// Whether every row is a whole upsert.
    pub(crate) fn plain(&self) -> bool {
        !self.partial && !self.deletes && !self.refused
    }

    /// What the merge must do.
    pub(crate) fn needs(&self, marked: bool) -> Needs {
        Needs { partial: self.partial, moves: self.moves, gone: self.deletes || self.moves, marked }
    }
}

/// One batch of a load with what the stage needs to know of its rows.
pub(crate) struct StageRows<'a> {
    pub changes: &'a TableChanges,
    key: Vec<usize>,
    names: &'a [String],
    marked: bool,
}

impl<'a> StageRows<'a> {
    pub(crate) fn new(load: &'a TableLoad, changes: &'a TableChanges, marked: bool) -> Self {
        let output = &load.contract.output;
        Self { changes, key: output.key_indices(), names: &output.key, marked }
    }

    /// The letter that the merge knows: reads and creates and updates are the same to it.
    pub(crate) fn op(&self, row: usize) -> &'static str {
        match self.changes.ops[row] {
            op @ (Op::Delete | Op::Move | Op::Refused) => op.letter(),
            _ => Op::Update.letter(),
        }
    }

    /// Whether the old key of the row is given.
    pub(crate) fn has_old_key(&self, row: usize) -> bool {
        self.changes.old_keys.as_ref().is_some_and(|old| old.columns().first().is_some_and(|c| c.is_valid(row)))
    }

    /// `0` and `1` per column when the row needs a base.
    pub(crate) fn unchanged(&self, row: usize) -> Option<String> {
        let columns = self.changes.rows.num_columns();
        let bits: String =
            (0..columns).map(|column| if self.changes.is_unchanged(column, row) { '1' } else { '0' }).collect();
        (self.has_old_key(row) || bits.contains('1')).then_some(bits)
    }

    /// Its state as it is staged: whole rows are to be applied, partial ones incomplete until their base is found; what
    /// takes a row away has nothing to do without one.
    pub(crate) fn state(&self, row: usize, partial: bool) -> i16 {
        match self.changes.ops[row] {
            _ if !partial => 0,
            Op::Delete | Op::Move => 3,
            _ => 2,
        }
    }

    /// The first change that stands on the base (or the move that left its key), and the move that brought it here.
    pub(crate) fn base_seqs(&self, row: usize) -> [String; 2] {
        [0, 1].map(|more| {
            let given = self.changes.old_keys.as_ref().and_then(|old| old.columns().get(self.key.len() + more));
            match given.map(|seqs| seqs.as_string::<i32>()) {
                Some(seqs) if seqs.is_valid(row) => seqs.value(row).to_owned(),
                _ => self.changes.seqs[row].to_string(),
            }
        })
    }

    /// The base's key columns: of old keys, or own.
    pub(crate) fn base(&self, row: usize) -> (&RecordBatch, Vec<usize>) {
        match &self.changes.old_keys {
            Some(old) if self.has_old_key(row) => (old, (0..self.key.len()).collect()),
            _ => (&self.changes.rows, self.key.clone()),
        }
    }

    /// The keys of a range of rows as text, own and the base's, when tombstones matter.
    pub(crate) fn key_texts(&self, rows: Range<usize>) -> Result<Option<Vec<KeyTexts>>> {
        if !self.marked {
            return Ok(None);
        }
        let positions: Vec<usize> = (0..self.key.len()).collect();
        let own = KeyText::new(&self.changes.rows, self.names, &self.key)?;
        let old = self.changes.old_keys.as_ref().map(|old| KeyText::new(old, self.names, &positions)).transpose()?;
        let texts = |row: usize| {
            let base = match &old {
                Some(old) if self.has_old_key(row) => old.json(row),
                _ => own.json(row),
            };
            KeyTexts { own: own.json(row), base }
        };
        Ok(Some(rows.map(texts).collect()))
    }
}

/// A row's key and its base's as text.
#[derive(Debug, Clone)]
pub(crate) struct KeyTexts {
    pub own: String,
    pub base: String,
}

/// The keys, as text, that a load shows whole or takes away, with the order of the last such change: what was found
/// incomplete of them before that is settled.
pub(crate) fn settled(load: &TableLoad) -> Result<Vec<(String, String)>> {
    let output = &load.contract.output;
    let key = output.key_indices();
    let mut newest: BTreeMap<String, Seq> = BTreeMap::new();
    for changes in load.rows.iter().chain(load.later.iter().flatten()) {
        let rows = StageRows::new(load, changes, false);
        let texts = KeyText::new(&changes.rows, &output.key, &key)?;
        for row in 0..changes.len() {
            let settles = match changes.ops[row] {
                Op::Delete | Op::Move => true,
                op => op.has_row() && rows.unchanged(row).is_none(),
            };
            if settles {
                let found = newest.entry(texts.json(row)).or_default();
                *found = changes.seqs[row].max(*found);
            }
        }
    }
    Ok(newest.into_iter().map(|(key, seq)| (key, seq.to_string())).collect())
}

/// The rows of a load with these numbers (counted over all its batches), as what they are missing.
pub(crate) fn incompletes(load: &TableLoad, numbers: &[i64]) -> Result<Vec<Incomplete>> {
    let output = &load.contract.output;
    let key = output.key_indices();
    let mut found = Vec::with_capacity(numbers.len());
    for number in numbers {
        let mut row = *number as usize;
        for changes in &load.rows {
            if row >= changes.len() {
                row -= changes.len();
                continue;
            }
            let missing = output.columns.iter().enumerate().filter(|(column, _)| changes.is_unchanged(*column, row));
            found.push(Incomplete {
                table: load.contract.table.clone(),
                key: KeyText::new(&changes.rows, &output.key, &key)?.json(row),
                seq: changes.seqs[row].to_string(),
                partition: changes.partition.to_string(),
                missing: missing.map(|(_, column)| column.name.clone()).collect(),
            });
            break;
        }
    }
    Ok(found)
}
