//! Several epochs become one unit: column by column, the newest value of every key.
//!
//! Pure and columnar: keys become comparable bytes, a pass in log order decides for every key which row of which batch
//! each column comes from, and one gather per column writes the result. What the fold cannot know (whether the warehouse
//! holds a base for a partial row, or something newer) it leaves to the warehouse, in the terms of
//! [`TableLoad::rows`](crate::epoch::TableLoad).

mod gather;
mod keys;
mod pass;
mod state;

use std::sync::Arc;

use self::keys::{At, Keys};
use self::pass::Pass;
use crate::batch::{NO_TIME, Op, TableChanges};
use crate::contract::Contract;
use crate::epoch::{DeleteMode, LoadAccount, TableLoad};
use crate::error::{Error, ErrorKind, Result};

/// Folds the changes of one table, given in log order with rows that follow `contract.output`.
///
/// The result does not depend on how the log is split into units: applying the folds of any split, in order, leaves the
/// same rows. Errors are bugs only ([`ErrorKind::Internal`]): columns that do not follow the contract.
pub fn fold(
    contract: &Arc<Contract>,
    mode: DeleteMode,
    changes: Vec<TableChanges>,
    keep_tombstones: bool,
) -> Result<TableLoad> {
    let max_source_time_us = changes.iter().flat_map(|c| c.source_times_us.iter().copied()).max().unwrap_or(NO_TIME);
    let mut load = TableLoad {
        contract: Arc::clone(contract),
        mode,
        truncate: None,
        truncated_at_us: NO_TIME,
        earlier_truncates: Vec::new(),
        rows: Vec::new(),
        later: Vec::new(),
        incomplete: Vec::new(),
        keep_tombstones,
        folded: LoadAccount::default(),
        max_source_time_us,
    };
    for batch in &changes {
        check(contract, batch)?;
    }
    let key = contract.output.key_indices();
    if key.is_empty() {
        append_only(&mut load, changes)?;
        return Ok(load);
    }
    let keys = Keys::new(contract, &key, &changes)?;
    let mut pass = Pass::new(contract, mode, &key, &changes, &keys);
    for (batch, change) in changes.iter().enumerate() {
        for row in 0..change.len() {
            pass.change(At { batch: batch as u32, row: row as u32 })?;
        }
    }
    load.truncate = pass.truncate.map(|(seq, _)| seq);
    load.truncated_at_us = pass.truncate.map_or(NO_TIME, |(_, time)| time);
    load.earlier_truncates = std::mem::take(&mut pass.earlier_truncates);
    load.earlier_truncates.sort_unstable();
    load.folded = pass.account;
    load.incomplete = std::mem::take(&mut pass.incomplete);
    let left = (!pass.as_it_stands).then(|| pass.finish());
    let Some(left) = left else {
        load.rows = changes.into_iter().filter(|c| !c.is_empty()).collect();
        return Ok(load);
    };
    for (number, round) in left.into_iter().enumerate() {
        let rows = gather::gather(contract, mode, &key, &changes, round)?;
        if number == 0 {
            load.rows = rows;
        } else {
            load.later.push(rows);
        }
    }
    Ok(load)
}

fn internal(what: &str, table: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Internal, format!("fold table {table}: {what}")).because(error)
}

fn check(contract: &Contract, batch: &TableChanges) -> Result<()> {
    let columns = &contract.output.columns;
    let same = columns.len() == batch.rows.num_columns()
        && columns.iter().zip(batch.rows.columns()).all(|(c, a)| c.data_type.arrow() == *a.data_type());
    let rows = batch.rows.num_rows();
    let parts = batch.ops.len() == rows && batch.seqs.len() == rows && batch.source_times_us.len() == rows;
    if same && parts {
        return Ok(());
    }
    Err(internal("a batch does not follow the contract", &contract.table, format!("version {}", contract.version)))
}

/// Without a key every row passes; a truncate takes away what is older.
fn append_only(load: &mut TableLoad, changes: Vec<TableChanges>) -> Result<()> {
    let truncate = changes
        .iter()
        .flat_map(|c| c.ops.iter().zip(&c.seqs).zip(&c.source_times_us))
        .filter(|((op, _), _)| **op == Op::Truncate)
        .map(|((_, seq), time)| (*seq, *time))
        .max();
    load.truncate = truncate.map(|(seq, _)| seq);
    load.truncated_at_us = truncate.map_or(NO_TIME, |(_, time)| time);
    for batch in changes {
        let counted = batch.ops.iter().filter(|op| **op != Op::Refused).count() as u64;
        load.folded.loaded += counted;
        let stays = |row: usize| batch.ops[row].has_row() && load.truncate.is_none_or(|floor| batch.seqs[row] >= floor);
        let kept: Vec<u32> = (0..batch.len()).filter(|row| stays(*row)).map(|row| row as u32).collect();
        load.folded.superseded += counted - kept.len() as u64;
        if kept.len() == batch.len() {
            load.rows.push(batch);
        } else if !kept.is_empty() {
            load.rows.push(take(&load.contract.table, &batch, &kept)?);
        }
    }
    // The newest truncate is applied, not superseded.
    load.folded.superseded -= u64::from(load.truncate.is_some());
    Ok(())
}

fn take(table: &str, batch: &TableChanges, rows: &[u32]) -> Result<TableChanges> {
    let indices = arrow::array::UInt32Array::from(rows.to_vec());
    let pick = |row: &u32| *row as usize;
    Ok(TableChanges {
        contract: Arc::clone(&batch.contract),
        partition: batch.partition.clone(),
        rows: arrow::compute::take_record_batch(&batch.rows, &indices).map_err(|e| internal("take rows", table, e))?,
        ops: rows.iter().map(|row| batch.ops[pick(row)]).collect(),
        seqs: rows.iter().map(|row| batch.seqs[pick(row)]).collect(),
        source_times_us: rows.iter().map(|row| batch.source_times_us[pick(row)]).collect(),
        unchanged: vec![None; batch.rows.num_columns()],
        old_keys: None,
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch};
    use arrow::buffer::BooleanBuffer;

    use super::*;
    use crate::batch::Seq;
    use crate::contract::{Column, TableSchema, Type};
    use crate::progress::Partition;

    /// (op, seq, id, old id, value; `None` = unchanged)
    type Row = (Op, u64, i64, Option<i64>, Option<i64>);

    fn folded(mode: DeleteMode, batches: &[&[Row]]) -> TableLoad {
        let columns = vec![Column::new("id", Type::BigInt), Column::new("v", Type::BigInt)];
        let schema = TableSchema { columns, key: vec!["id".into()] };
        let contract = Arc::new(Contract { table: "t".into(), version: 1, input: schema.clone(), output: schema });
        let changes = batches.iter().map(|rows| batch(&contract, rows)).collect();
        fold(&contract, mode, changes, false).expect("folds")
    }

    fn batch(contract: &Arc<Contract>, rows: &[Row]) -> TableChanges {
        let ids: Int64Array = rows.iter().map(|r| Some(r.2)).collect();
        let values: Int64Array = rows.iter().map(|r| r.4).collect();
        let unchanged = |r: &Row| r.0.has_row() && r.4.is_none();
        let bits = rows.iter().any(unchanged).then(|| rows.iter().map(unchanged).collect::<BooleanBuffer>());
        let old: ArrayRef = Arc::new(rows.iter().map(|r| r.3).collect::<Int64Array>());
        let old = RecordBatch::try_from_iter_with_nullable([("id", old, true)]).expect("one column");
        TableChanges {
            contract: Arc::clone(contract),
            partition: Partition::new("s", "p"),
            rows: RecordBatch::try_new(contract.output.arrow(), vec![Arc::new(ids), Arc::new(values)]).expect("fits"),
            ops: rows.iter().map(|r| r.0).collect(),
            seqs: rows.iter().map(|r| Seq { major: r.1, ..Seq::default() }).collect(),
            source_times_us: rows.iter().map(|r| r.1 as i64).collect(),
            unchanged: vec![None, bits],
            old_keys: rows.iter().any(|r| r.3.is_some()).then_some(old),
        }
    }

    /// What a fold left, a line per row: `letter seq id value`, `?` where only the warehouse knows.
    fn lines(load: &TableLoad) -> Vec<String> {
        rounds(load).concat()
    }

    /// The lines of every round.
    fn rounds(load: &TableLoad) -> Vec<Vec<String>> {
        std::iter::once(&load.rows).chain(&load.later).map(|rows| lines_of(rows)).collect()
    }

    fn lines_of(rows: &[TableChanges]) -> Vec<String> {
        let mut out = Vec::new();
        for changes in rows {
            let column =
                |i: usize| arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(changes.rows.column(i));
            for row in 0..changes.len() {
                let value = match (changes.is_unchanged(1, row), column(1).is_null(row)) {
                    (true, _) => "?".to_owned(),
                    (_, true) => "-".to_owned(),
                    _ => column(1).value(row).to_string(),
                };
                let (op, seq) = (changes.ops[row].letter(), changes.seqs[row].major);
                out.push(format!("{op} {seq} {} {value}", column(0).value(row)));
            }
        }
        out
    }

    #[test]
    fn whole_rows_of_different_keys_stay_where_they_are() {
        let load =
            folded(DeleteMode::Hard, &[&[(Op::Create, 1, 1, None, Some(10))], &[(Op::Delete, 2, 2, None, None)]]);
        assert_eq!(load.rows.len(), 2);
        assert_eq!(lines(&load), ["c 1 1 10", "d 2 2 -"]);
        assert_eq!(load.folded, LoadAccount { loaded: 2, ..LoadAccount::default() });
    }

    #[test]
    fn the_newest_value_of_each_column_wins() {
        let load = folded(
            DeleteMode::Hard,
            &[
                &[(Op::Create, 1, 1, None, Some(10)), (Op::Update, 3, 1, None, None)],
                &[(Op::Update, 2, 1, None, Some(9)), (Op::Update, 4, 2, None, None)],
            ],
        );
        assert_eq!(lines(&load), ["u 3 1 10", "u 4 2 ?"]);
        assert_eq!((load.folded.loaded, load.folded.superseded), (4, 2));
    }

    #[test]
    fn a_move_takes_its_row_along_and_leaves_its_key() {
        let load =
            folded(DeleteMode::Hard, &[&[(Op::Create, 1, 1, None, Some(10)), (Op::Move, 2, 2, Some(1), Some(20))]]);
        assert_eq!(rounds(&load), [["m 2 1 -", "u 2 2 20"]]);
        let load = folded(DeleteMode::Hard, &[&[(Op::Move, 3, 8, Some(7), None)]]);
        assert_eq!(rounds(&load), [["m 3 7 -", "u 3 8 ?"]]);
        let old = load.rows[0].old_keys.as_ref().expect("one needs a base");
        assert_eq!((old.num_columns(), old.column(0).null_count()), (3, 1));
        assert_eq!((load.folded.loaded, load.folded.superseded), (1, 0));
    }

    #[test]
    fn a_partial_move_waits_for_what_the_unit_has_of_its_keys() {
        let rows: &[Row] = &[
            (Op::Create, 1, 1, None, Some(10)),
            (Op::Create, 2, 5, None, Some(50)),
            // Whether 2 is free only the warehouse knows, and there 1 is not yet.
            (Op::Move, 3, 2, Some(1), None),
            // Here the unit knows it.
            (Op::Delete, 4, 6, None, None),
            (Op::Move, 5, 6, Some(5), None),
        ];
        let load = folded(DeleteMode::Hard, &[rows]);
        let first = ["c 1 1 10", "m 5 5 -", "u 5 6 50"].map(str::to_owned).to_vec();
        assert_eq!(rounds(&load), [first, ["m 3 1 -", "u 3 2 ?"].map(str::to_owned).to_vec()]);
        assert_eq!((load.folded.loaded, load.folded.superseded), (5, 2));
    }

    #[test]
    fn a_repeated_partial_move_stands_on_its_own_key() {
        let row = (Op::Create, 1, 2, None, Some(20));
        let again: &[Row] = &[row, (Op::Create, 2, 1, None, Some(10)), (Op::Move, 3, 2, Some(1), None)];
        let load = folded(DeleteMode::Hard, &[again]);
        assert_eq!(rounds(&load), [["m 3 1 -", "u 3 2 20"]]);
        let twice: &[Row] = &[(Op::Move, 1, 2, Some(1), None), (Op::Move, 2, 2, Some(1), None)];
        let load = folded(DeleteMode::Hard, &[twice]);
        assert_eq!(rounds(&load), [["m 1 1 -", "u 1 2 ?"], ["m 2 1 -", "u 2 2 ?"]]);
    }

    #[test]
    fn a_shift_of_keys_is_one_round() {
        let rows: Vec<Row> = (0..20).map(|n| (Op::Move, n, 20 - n as i64, Some(19 - n as i64), None)).collect();
        for mode in [DeleteMode::Hard, DeleteMode::Soft, DeleteMode::History] {
            let load = folded(mode, &[&rows]);
            assert_eq!((load.later.len(), load.incomplete.len()), (0, 0), "{mode:?}");
        }
    }

    #[test]
    fn nothing_stands_on_what_was_deleted_or_refused() {
        let load = folded(
            DeleteMode::Hard,
            &[&[
                (Op::Create, 1, 1, None, Some(10)),
                (Op::Refused, 2, 1, None, None),
                (Op::Update, 3, 1, None, None),
                (Op::Create, 4, 2, None, Some(20)),
                (Op::Delete, 5, 2, None, None),
                (Op::Update, 6, 2, None, None),
                (Op::Update, 7, 1, None, Some(11)),
            ]],
        );
        assert_eq!(lines(&load), ["x 2 1 -", "d 5 2 -", "u 7 1 11"]);
        assert_eq!(
            load.incomplete.iter().map(|row| row.key.as_str()).collect::<Vec<_>>(),
            ["{\"id\":1}", "{\"id\":2}"]
        );
        assert_eq!(load.folded, LoadAccount { loaded: 6, applied: 0, superseded: 2, incomplete: 2 });
    }

    #[test]
    fn a_truncate_supersedes_what_is_older() {
        let rows: &[Row] = &[
            (Op::Create, 1, 1, None, Some(10)),
            (Op::Truncate, 2, 0, None, None),
            (Op::Create, 3, 2, None, Some(20)),
            (Op::Create, 1, 3, None, Some(30)),
        ];
        let load = folded(DeleteMode::Hard, &[rows]);
        assert_eq!(load.truncate.map(|seq| seq.major), Some(2));
        assert_eq!(lines(&load), ["c 3 2 20"]);
        assert_eq!((load.folded.loaded, load.folded.superseded), (4, 2));
    }

    #[test]
    fn soft_deletes_keep_the_columns() {
        let load = folded(
            DeleteMode::Soft,
            &[&[(Op::Create, 1, 1, None, Some(10)), (Op::Delete, 2, 1, None, None), (Op::Delete, 3, 2, None, None)]],
        );
        assert_eq!(lines(&load), ["d 2 1 10", "d 3 2 ?"]);
    }

    #[test]
    fn history_keeps_every_version() {
        let rows: &[Row] = &[
            (Op::Create, 1, 1, None, Some(10)),
            (Op::Update, 2, 1, None, None),
            (Op::Update, 2, 1, None, None),
            (Op::Delete, 3, 1, None, None),
        ];
        let load = folded(DeleteMode::History, &[rows]);
        assert_eq!(lines(&load), ["c 1 1 10", "u 2 1 10", "d 3 1 -"]);
        assert_eq!((load.folded.loaded, load.folded.superseded), (4, 1));
    }
}
