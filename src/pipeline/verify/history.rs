//! What the lake's log says of rows that change faster than both sides can be read.
//!
//! ```text
//! log       … v1 ─ v2 ─ v3 ─ v4 ─ v5 …       every version of the row, in order
//! source         └ S shows one of them
//! warehouse                └ W, at epoch e, shows the newest one up to e
//! ```
//!
//! Such a row is equal when the source shows a version that the log has, and the warehouse exactly the one that the log
//! has for the epoch at which it was read. It differs when the warehouse shows another one, or none. What the log has only
//! in part (unchanged TOAST, a refused version) leaves it open.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};

use super::digest::row_hash;
use super::judge::{Shown, Turn, Verdict};
use super::layout::Layout;
use super::value;
use crate::batch::{Op, Seq, TableChanges};
use crate::contract::Contract;
use crate::epoch::EpochNumber;
use crate::error::Result;
use crate::lake::Log;
use crate::operator::text;

/// What is to be shown of a key after a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// A row with that hash.
    Row(u128),
    /// Nothing.
    Nothing,
    /// Not known from the change alone.
    Unclear,
}

#[derive(Debug, Clone, Copy)]
struct Version {
    epoch: EpochNumber,
    seq: Seq,
    after: After,
}

impl Version {
    /// Whether this is what is shown; `None` when that is not known.
    fn is(&self, shown: &Shown) -> Option<bool> {
        match self.after {
            After::Row(hash) => Some(shown.rows == 1 && shown.sum == hash),
            After::Nothing => Some(shown.rows == 0),
            After::Unclear => None,
        }
    }
}

/// The versions of some keys that came into the log since it is followed.
pub struct History {
    layout: Layout,
    through: EpochNumber,
    versions: HashMap<Box<[u8]>, Vec<Version>>,
}

impl History {
    /// Follows `keys` from the epoch after `through` on.
    pub fn new<'k>(layout: &Layout, through: EpochNumber, keys: impl Iterator<Item = &'k Box<[u8]>>) -> Self {
        let versions = keys.map(|key| (key.clone(), Vec::new())).collect();
        Self { layout: layout.clone(), through, versions }
    }

    /// Whether it reads rows as `layout` does.
    pub fn fits(&self, layout: &Layout) -> bool {
        self.layout == *layout
    }

    /// Takes in what the log has had since. Files that retention has taken away meanwhile are an error.
    pub async fn follow(&mut self, log: &Log) -> Result<()> {
        let state = log.refresh().await?;
        let Some(contract) = state.contracts.get(&self.layout.table).cloned() else { return Ok(()) };
        while self.through < state.n {
            let manifest = log.manifest(self.through + 1).await?;
            for file in manifest.tables.get(&self.layout.table).into_iter().flat_map(|table| &table.files) {
                for changes in log.lake().read_changes(file, &contract).await? {
                    tokio::task::block_in_place(|| self.take(manifest.n, &changes, &contract));
                }
            }
            self.through = manifest.n;
        }
        Ok(())
    }

    fn take(&mut self, epoch: EpochNumber, changes: &TableChanges, contract: &Arc<Contract>) {
        let output = &contract.output;
        let columns: Vec<usize> = self.layout.columns.iter().filter_map(|(name, _)| output.index(name)).collect();
        if columns.len() < self.layout.columns.len() {
            return;
        }
        let (mut row, mut key, mut scratch) = (Vec::new(), Vec::new(), String::new());
        for at in 0..changes.len() {
            let (op, seq) = (changes.ops[at], changes.seqs[at]);
            if op == Op::Truncate {
                let emptied = Version { epoch, seq, after: After::Nothing };
                self.versions.values_mut().for_each(|versions| versions.push(emptied));
                continue;
            }
            let cell = |place: usize, out: &mut String| {
                let column = columns[place];
                let values = changes.rows.column(column);
                let there = values.is_valid(at);
                if there {
                    text::write_normal(values, output.columns[column].data_type, at, out);
                }
                there
            };
            self.layout.write(&mut row, &mut key, cell, &mut scratch);
            if let (Op::Move, Some(old)) = (op, &changes.old_keys) {
                let old = old_key(old, output, at);
                self.push(&old, Version { epoch, seq, after: After::Nothing });
            }
            let partial = columns.iter().any(|column| changes.is_unchanged(*column, at));
            let after = match op {
                _ if partial => After::Unclear,
                op if op.has_row() => After::Row(row_hash(&row)),
                Op::Delete => After::Nothing,
                _ => After::Unclear,
            };
            self.push(&key, Version { epoch, seq, after });
        }
    }

    fn push(&mut self, key: &[u8], version: Version) {
        if let Some(versions) = self.versions.get_mut(key) {
            versions.push(version);
        }
    }

    /// Judges what a turn shows of a key, whose warehouse was read at epoch `held`.
    pub fn judge(&self, key: &[u8], turn: &Turn, held: EpochNumber) -> Verdict {
        let versions = self.versions.get(key).map(Vec::as_slice).unwrap_or_default();
        let newest = versions.iter().filter(|version| version.epoch <= held).max_by_key(|version| version.seq);
        let Some(newest) = newest else { return Verdict::Again };
        // A version from before that was read again may be older than what stands there.
        let same = turn.warehouse.seq.as_ref().is_none_or(|seq| *seq == newest.seq.to_string());
        match newest.is(&turn.warehouse) {
            Some(true) if versions.iter().any(|version| version.is(&turn.source) == Some(true)) => Verdict::Equal,
            Some(false) if same => Verdict::Differs,
            _ => Verdict::Again,
        }
    }
}

/// The key that a row had before it moved.
fn old_key(old: &RecordBatch, output: &crate::contract::TableSchema, at: usize) -> Vec<u8> {
    let (mut key, mut text) = (Vec::new(), String::new());
    for (column, index) in old.columns().iter().zip(output.key_indices()) {
        text.clear();
        if column.is_valid(at) {
            text::write_normal(column, output.columns[index].data_type, at, &mut text);
        }
        value::push_cell(&mut key, column.is_valid(at).then_some(text.as_str()));
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"k";

    fn seq(major: u64) -> Seq {
        Seq { major, ..Seq::default() }
    }

    fn row(bytes: &[u8], at: Option<u64>) -> Shown {
        Shown { rows: 1, sum: row_hash(bytes), seq: at.map(|at| seq(at).to_string()), row: None }
    }

    fn judged(source: Shown, warehouse: Shown, held: EpochNumber, versions: &[(EpochNumber, u64, After)]) -> Verdict {
        let version =
            |(epoch, at, after): &(EpochNumber, u64, After)| Version { epoch: *epoch, seq: seq(*at), after: *after };
        let layout = Layout {
            table: "t".into(),
            columns: Vec::new(),
            key: Vec::new(),
            source_key: Vec::new(),
            plain_key: true,
            hidden: Vec::new(),
            left_out: Vec::new(),
            documents: false,
        };
        let versions = versions.iter().map(version).collect();
        let history = History { layout, through: 9, versions: [(KEY.into(), versions)].into() };
        history.judge(KEY, &Turn { source, warehouse, lacking: 0 }, held)
    }

    #[test]
    fn a_row_on_the_move_is_judged_by_what_the_log_says_of_it() {
        use Verdict::{Again, Differs, Equal};
        let after = |bytes: &[u8]| After::Row(row_hash(bytes));
        let log = [(1, 10, after(b"a")), (1, 11, after(b"b")), (2, 12, after(b"c")), (3, 13, after(b"d"))];
        assert_eq!(judged(row(b"a", None), row(b"c", Some(12)), 2, &log), Equal);
        // The warehouse shows something else than the log says for that epoch, or nothing.
        assert_eq!(judged(row(b"a", None), row(b"x", Some(12)), 2, &log), Differs);
        assert_eq!(judged(row(b"a", None), Shown::default(), 2, &log), Differs);
        // A version of the source that the log does not have (yet).
        assert_eq!(judged(row(b"y", None), row(b"c", Some(12)), 2, &log), Again);
        // What stands there came before the log was followed, or after.
        assert_eq!(judged(row(b"a", None), row(b"x", Some(99)), 2, &log), Again);
        assert_eq!(judged(row(b"a", None), row(b"c", Some(12)), 0, &log), Again);
        // A row that comes and goes.
        let gone = [log[0], (2, 14, After::Nothing)];
        assert_eq!(judged(row(b"a", None), Shown::default(), 2, &gone), Equal);
        assert_eq!(judged(Shown::default(), row(b"a", Some(10)), 2, &gone), Again);
        assert_eq!(judged(row(b"a", None), row(b"z", Some(12)), 2, &[(2, 12, After::Unclear)]), Again);
    }
}
