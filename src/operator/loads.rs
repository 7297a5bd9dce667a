//! What the warehouse cannot hold is refused as what breaks a rule is: behind all operators, in the columns that are
//! loaded.
//!
//! | what cannot be loaded | insert, snapshot row | update | move | delete, marker |
//! |---|---|---|---|---|
//! | a value | `rejected` | marker, `rejected` | delete of the old key, `replaced` | |
//! | the key | `rejected` | `rejected` | delete of the old key, `replaced` | `rejected` |
//! | the key that it had | | | becomes an insert; a partial row: marker, `rejected` | |
//!
//! Nobody can see a row of a key that cannot be loaded, so there is nothing to mark or to delete.
//!
//! With `on_mismatch: ignore` a value outside the key becomes null instead, and is counted: an older value of the column
//! would be shown as if it were the newest.

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::nullif;

use crate::batch::Op;
use crate::contract::{Limits, TableSchema, Type};
use crate::error::{Error, ErrorKind, Result};

use super::LeftOut;
use super::rows::Rows;

/// The name of the rule.
pub(super) const RULE: &str = "load";

/// What is wrong with a row.
#[derive(Debug)]
struct Wrong {
    why: String,
    /// In its key.
    key: bool,
}

/// Refuses what `limits` do not let in: keys, and unless they are to be ignored values. `key` are the positions of the key
/// in the columns of `output`.
pub(super) fn refuse(limits: &Limits, output: &TableSchema, key: &[usize], ignore: bool, rows: &mut Rows) {
    let wrong = wrong_values(limits, output, key, ignore, rows);
    let old = wrong_old_keys(limits, output, key, rows);
    for (row, wrong) in &wrong {
        let why = format!("{} cannot hold it: {}", limits.warehouse, wrong.why);
        match rows.ops[*row] {
            Op::Move if !old.contains_key(row) => rows.refuse(*row, RULE, why),
            Op::Move if !wrong.key => rows.refuse_without_base(*row, RULE, why),
            _ if wrong.key => rows.leave(*row, RULE, why),
            _ => rows.refuse(*row, RULE, why),
        }
    }
    for (row, why) in old {
        if wrong.contains_key(&row) {
            continue;
        }
        if rows.is_partial(row) {
            let why = format!("it stands on a row that {} cannot hold: {why}", limits.warehouse);
            rows.refuse_without_base(row, RULE, why);
        } else {
            rows.forget_old_key(row);
        }
    }
}

/// Makes null what `limits` do not let in, outside the key, and counts it by column.
pub(super) fn leave_out(
    limits: &Limits,
    output: &TableSchema,
    key: &[usize],
    rows: &mut Rows,
) -> Result<BTreeMap<String, LeftOut>> {
    let mut left_out = BTreeMap::new();
    for (index, column) in output.columns.iter().enumerate() {
        if key.contains(&index) || !limits.bounds(column.data_type) {
            continue;
        }
        let mut found = LeftOut::default();
        let mut wrong = |row: usize| {
            let why =
                rows.holds(row, false).then(|| limits.refusal(column.data_type, &rows.columns[index], row)).flatten();
            let is_wrong = why.is_some();
            if let Some(why) = why {
                found.add(LeftOut { values: 1, why });
            }
            Some(is_wrong)
        };
        let wrong: BooleanArray = (0..rows.len()).map(&mut wrong).collect();
        if found.values > 0 {
            let failed = |error| Error::new(ErrorKind::Internal, "leave values out").because(error);
            rows.columns[index] = nullif(&rows.columns[index], &wrong).map_err(failed)?;
            left_out.insert(column.name.clone(), found);
        }
    }
    Ok(left_out)
}

fn wrong_values(
    limits: &Limits,
    output: &TableSchema,
    key: &[usize],
    ignore: bool,
    rows: &Rows,
) -> BTreeMap<usize, Wrong> {
    let mut wrong = BTreeMap::new();
    // The key first: it decides what becomes of the row.
    let others = (0..output.columns.len()).filter(|index| !ignore && !key.contains(index));
    for index in key.iter().copied().chain(others) {
        let (column, values, in_key) = (&output.columns[index], &rows.columns[index], key.contains(&index));
        if !limits.bounds(column.data_type) {
            continue;
        }
        for row in (0..rows.len()).filter(|row| rows.holds(*row, in_key)) {
            if let Some(why) = limits.refusal(column.data_type, values, row) {
                let why = format!("column {}: {why}", column.name);
                wrong.entry(row).or_insert(Wrong { why, key: in_key });
            }
        }
    }
    if key.is_empty() {
        return wrong;
    }
    let columns: Vec<(Type, &ArrayRef)> =
        key.iter().map(|index| (output.columns[*index].data_type, &rows.columns[*index])).collect();
    for row in (0..rows.len()).filter(|row| rows.holds(*row, true)) {
        if let Some(why) = limits.key_refusal(&columns, row) {
            wrong.insert(row, Wrong { why, key: true });
        }
    }
    wrong
}

/// Moves away from a key that cannot have been loaded.
fn wrong_old_keys(limits: &Limits, output: &TableSchema, key: &[usize], rows: &Rows) -> BTreeMap<usize, String> {
    let Some(old) = &rows.old_keys else { return BTreeMap::new() };
    let columns: Vec<(Type, &ArrayRef)> =
        key.iter().zip(old).map(|(index, values)| (output.columns[*index].data_type, values)).collect();
    let refusal = |row: usize| {
        let value = columns.iter().find_map(|(data_type, values)| limits.refusal(*data_type, values, row));
        value.or_else(|| limits.key_refusal(&columns, row))
    };
    let moved = (0..rows.len()).filter(|row| rows.ops[*row] == Op::Move && rows.holds(*row, true));
    moved.filter_map(|row| Some((row, refusal(row)?))).collect()
}
