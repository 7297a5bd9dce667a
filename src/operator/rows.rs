//! The rows on their way through a chain. Rows that leave are only marked, so positions stay valid; what is marked is
//! carried out once, at the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, StringArray, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::kernels::zip::zip;
use arrow::compute::{filter, nullif};

use crate::batch::{Op, TableChanges};
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Partition;

use super::expression::{Evaluated, Expression};

/// What a step knows beside the rows.
pub(super) struct Context<'a> {
    /// The table.
    pub table: &'a str,
    /// Where the rows come from.
    pub partition: &'a Partition,
    /// The rows as they came in.
    pub changes: &'a TableChanges,
    /// By source column: whether its values may not be shown as they are.
    pub restricted: &'a [bool],
}

impl Context<'_> {
    /// Why an expression failed on a row. The engine's words may quote values, so they are kept back when the
    /// expression reads something that is masked.
    pub fn failure(&self, expression: &Expression, words: &str) -> String {
        if expression.sources.iter().any(|source| self.restricted[*source]) {
            format!(
                "`{}` cannot be evaluated for this row (it reads a masked or dropped column, so no details)",
                expression.text
            )
        } else {
            format!("`{}` cannot be evaluated for this row: {words}", expression.text)
        }
    }
}

/// A row that was refused.
pub(super) struct Refusal {
    /// Its position in the rows as they came in.
    pub row: usize,
    /// The rule's name.
    pub rule: String,
    /// Why.
    pub reason: String,
}

/// Rows inside a chain.
pub(super) struct Rows {
    /// The columns of the current scope.
    pub columns: Vec<ArrayRef>,
    /// Per column: which rows do not carry the value.
    pub unchanged: Vec<Option<BooleanBuffer>>,
    /// Old keys of moves, in key order.
    pub old_keys: Option<Vec<ArrayRef>>,
    /// Names of broken `tag` rules, comma separated; empty when there is none.
    pub tags: Vec<String>,
    /// Refused rows, in no order.
    pub refusals: Vec<Refusal>,
    /// Rows that left no trace, by filter.
    pub filtered: BTreeMap<String, u64>,
    /// Rows refused, by rule.
    pub rejected: BTreeMap<String, u64>,
    /// Refused rows that a delete was written for.
    pub replaced: u64,
    /// What happened, per row.
    pub ops: Vec<Op>,
    keyed: bool,
    alive: Vec<bool>,
    cleared: Vec<bool>,
    under_old_key: Vec<bool>,
    /// Rows whose old key is not one.
    forgotten: Vec<bool>,
}

/// The rows that an expression can be evaluated for.
pub(super) struct Selection {
    /// Their positions; `None` = every row.
    pub rows: Option<UInt32Array>,
    /// Rows that hold values but not those of a column that is read.
    pub blocked: Vec<usize>,
}

impl Selection {
    /// The position among all rows of the selection's row `index`.
    pub fn row(&self, index: usize) -> usize {
        self.rows.as_ref().map_or(index, |rows| rows.value(index) as usize)
    }
}

impl Rows {
    /// The rows of `changes`; `keyed` says whether the table has a key.
    pub fn new(changes: &TableChanges, keyed: bool) -> Self {
        let len = changes.len();
        let mut unchanged = changes.unchanged.clone();
        unchanged.resize(changes.rows.num_columns(), None);
        Self {
            columns: changes.rows.columns().to_vec(),
            unchanged,
            old_keys: changes.old_keys.as_ref().map(|keys| keys.columns().to_vec()),
            tags: Vec::new(),
            refusals: Vec::new(),
            filtered: BTreeMap::new(),
            rejected: BTreeMap::new(),
            replaced: 0,
            ops: changes.ops.clone(),
            keyed,
            alive: vec![true; len],
            cleared: vec![false; len],
            under_old_key: vec![false; len],
            forgotten: vec![false; len],
        }
    }

    /// The number of rows, with those that have left.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// The rows that still hold values, parted by whether they carry all of `columns`.
    pub fn select(&self, columns: &[usize]) -> Selection {
        let partial: Vec<&BooleanBuffer> = columns.iter().filter_map(|c| self.unchanged[*c].as_ref()).collect();
        let mut rows = Vec::with_capacity(self.len());
        let mut blocked = Vec::new();
        for row in 0..self.len() {
            if !self.alive[row] || !self.ops[row].has_row() {
                continue;
            }
            if partial.iter().any(|bits| bits.value(row)) {
                blocked.push(row);
            } else {
                rows.push(row as u32);
            }
        }
        let rows = (rows.len() < self.len()).then(|| UInt32Array::from(rows));
        Selection { rows, blocked }
    }

    /// Evaluates for a selection.
    pub fn evaluate(&self, expression: &Expression, selection: &Selection) -> Result<Evaluated> {
        expression.evaluate(&self.columns, self.len(), selection.rows.as_ref())
    }

    /// The row's version is refused; people go on seeing the last valid one.
    pub fn refuse(&mut self, row: usize, rule: &str, reason: String) {
        let moved = self.keyed && self.ops[row] == Op::Move;
        let reason =
            if moved { format!("{reason}; its key changed, so the row under the old key is removed") } else { reason };
        self.refusals.push(Refusal { row, rule: rule.to_owned(), reason });
        match self.ops[row] {
            Op::Move if moved => {
                self.replaced += 1;
                self.demote(row, Op::Delete);
            }
            op => {
                *self.rejected.entry(rule.to_owned()).or_default() += 1;
                if op == Op::Update && self.keyed {
                    self.demote(row, Op::Refused);
                } else {
                    self.alive[row] = false;
                }
            }
        }
    }

    /// Whether the row holds values; of its key (`in_key`) also when it is a delete or a marker.
    pub fn holds(&self, row: usize, in_key: bool) -> bool {
        self.alive[row] && (self.ops[row].has_row() || in_key && self.ops[row] != Op::Truncate)
    }

    /// Whether the source left a column of it unchanged.
    pub fn is_partial(&self, row: usize) -> bool {
        self.unchanged.iter().flatten().any(|bits| bits.value(row))
    }

    /// The row is refused and leaves nothing behind: nobody can see a row of its key. A marker only goes: the version that
    /// it stands for is refused already.
    pub fn leave(&mut self, row: usize, rule: &str, reason: String) {
        if self.ops[row] != Op::Refused {
            self.refusals.push(Refusal { row, rule: rule.to_owned(), reason });
            *self.rejected.entry(rule.to_owned()).or_default() += 1;
        }
        self.alive[row] = false;
    }

    /// The row that moved here never was where it says that it was: it is a new one.
    pub fn forget_old_key(&mut self, row: usize) {
        self.ops[row] = Op::Create;
        self.forgotten[row] = true;
    }

    /// The same of a row whose version is refused: people see nothing of it, and what stands on it is refused as well.
    pub fn refuse_without_base(&mut self, row: usize, rule: &str, reason: String) {
        self.forgotten[row] = true;
        self.ops[row] = Op::Update;
        self.refuse(row, rule, reason);
    }

    /// The row's version is refused, and the row disappears.
    pub fn remove(&mut self, row: usize, rule: &str, reason: String) {
        if !self.keyed {
            return self.refuse(row, rule, reason);
        }
        self.refusals.push(Refusal { row, rule: rule.to_owned(), reason });
        self.replaced += 1;
        self.demote(row, Op::Delete);
    }

    /// The row is left out; when people may see an older version, that one goes.
    pub fn leave_out(&mut self, row: usize, filter: &str) {
        if self.keyed && matches!(self.ops[row], Op::Update | Op::Move) {
            self.demote(row, Op::Delete);
        } else {
            *self.filtered.entry(filter.to_owned()).or_default() += 1;
            self.alive[row] = false;
        }
    }

    /// Adds a rule's name to the row's tags.
    pub fn tag(&mut self, row: usize, rule: &str) {
        if self.tags.is_empty() {
            self.tags = vec![String::new(); self.len()];
        }
        let tags = &mut self.tags[row];
        if !tags.is_empty() {
            tags.push(',');
        }
        tags.push_str(rule);
    }

    fn demote(&mut self, row: usize, op: Op) {
        self.under_old_key[row] = self.ops[row] == Op::Move;
        self.cleared[row] = true;
        self.ops[row] = op;
    }

    /// Tags as a column; null where there is none.
    pub fn tag_column(&self) -> ArrayRef {
        let tag = |row: usize| self.tags.get(row).filter(|t| !t.is_empty() && self.ops[row].has_row());
        Arc::new((0..self.len()).map(tag).collect::<StringArray>())
    }

    /// Carries out what was marked; afterwards all parts hold only the rows that stay. Returns which rows those are,
    /// `None` = all.
    pub fn settle(&mut self, key: &[usize]) -> Result<Option<BooleanArray>> {
        let failed = |error| Error::new(ErrorKind::Internal, "settle the rows of a chain").because(error);
        self.clear(key).map_err(failed)?;
        if self.alive.iter().all(|alive| *alive) {
            return Ok(None);
        }
        let keep = BooleanArray::from(std::mem::take(&mut self.alive));
        for column in self.columns.iter_mut().chain(self.old_keys.iter_mut().flatten()) {
            *column = filter(column, &keep).map_err(failed)?;
        }
        for bits in self.unchanged.iter_mut().flatten() {
            let kept = filter(&BooleanArray::new(bits.clone(), None), &keep).map_err(failed)?;
            *bits = kept.as_boolean().values().clone();
        }
        let mut kept = keep.values().iter();
        self.ops.retain(|_| kept.next().unwrap_or(false));
        Ok(Some(keep))
    }

    fn clear(&mut self, key: &[usize]) -> Result<(), arrow::error::ArrowError> {
        if self.cleared.iter().chain(&self.forgotten).any(|marked| *marked) {
            let cleared = BooleanArray::from(self.cleared.clone());
            let moved = BooleanArray::from(self.under_old_key.clone());
            for (index, column) in self.columns.iter_mut().enumerate() {
                match key.iter().position(|k| *k == index) {
                    None => *column = nullif(column, &cleared)?,
                    Some(part) => {
                        if let Some(old) = &self.old_keys {
                            *column = zip(&moved, &old[part], column)?;
                        }
                    }
                }
            }
            let staying = !cleared.values();
            for bits in self.unchanged.iter_mut().flatten() {
                *bits = &*bits & &staying;
            }
            let old = |(moved, forgotten): (&bool, &bool)| *moved || *forgotten;
            let old: BooleanArray = self.under_old_key.iter().zip(&self.forgotten).map(old).map(Some).collect();
            for column in self.old_keys.iter_mut().flatten() {
                *column = nullif(column, &old)?;
            }
        }
        for bits in &mut self.unchanged {
            if bits.as_ref().is_some_and(|b| b.count_set_bits() == 0) {
                *bits = None;
            }
        }
        Ok(())
    }
}
