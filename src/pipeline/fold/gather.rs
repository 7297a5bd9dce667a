//! Writes what the pass decided: one gather per column.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray, new_null_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::interleave;
use arrow::datatypes::{DataType, Field, Schema};

use super::internal;
use super::keys::{KeyAt, UNKNOWN};
use super::state::{Base, Kind, State};
use crate::batch::{Op, TableChanges};
use crate::contract::Contract;
use crate::epoch::DeleteMode;
use crate::error::Result;

/// Writes the rows, one batch per partition.
pub(super) fn gather(
    contract: &Arc<Contract>,
    mode: DeleteMode,
    key: &[usize],
    changes: &[TableChanges],
    left: Vec<State>,
) -> Result<Vec<TableChanges>> {
    let mut groups: Vec<(&TableChanges, Vec<State>)> = Vec::new();
    for state in left {
        let of = &changes[state.at.batch as usize];
        match groups.iter_mut().find(|(first, _)| first.partition == of.partition) {
            Some((_, states)) => states.push(state),
            None => groups.push((of, vec![state])),
        }
    }
    groups.into_iter().map(|(first, states)| gather_one(contract, mode, key, changes, first, &states)).collect()
}

fn gather_one(
    contract: &Arc<Contract>,
    mode: DeleteMode,
    key: &[usize],
    changes: &[TableChanges],
    first: &TableChanges,
    states: &[State],
) -> Result<TableChanges> {
    let count = contract.output.columns.len();
    let mut columns = Vec::with_capacity(count);
    let mut unchanged = Vec::with_capacity(count);
    for column in 0..count {
        let (pool, indices, unknown) = match key.iter().position(|k| *k == column) {
            Some(part) => {
                let keys: Vec<_> = states.iter().map(|s| Some(s.key)).collect();
                (key_pool(changes, column, part), key_indices(changes.len(), &keys), None)
            }
            None => value_indices(mode, changes, column, states),
        };
        let pool: Vec<&dyn Array> = pool.iter().map(AsRef::as_ref).collect();
        columns.push(interleave(&pool, &indices).map_err(|e| internal("gather a column", &contract.table, e))?);
        unchanged.push(unknown);
    }
    let rows = RecordBatch::try_new(contract.output.arrow(), columns)
        .map_err(|e| internal("assemble rows", &contract.table, e))?;
    let at = |s: &State| (&changes[s.at.batch as usize], s.at.row as usize);
    Ok(TableChanges {
        contract: Arc::clone(contract),
        partition: first.partition.clone(),
        rows,
        ops: states.iter().map(|s| op(s, at(s).0.ops[at(s).1])).collect(),
        seqs: states.iter().map(|s| s.seq).collect(),
        source_times_us: states.iter().map(|s| at(s).0.source_times_us[at(s).1]).collect(),
        unchanged,
        old_keys: base_keys(contract, mode, key, changes, states)?,
    })
}

fn op(state: &State, was: Op) -> Op {
    match state.kind {
        Kind::Absent | Kind::Staged => Op::Refused,
        Kind::Row if was == Op::Move => Op::Update,
        Kind::Row => was,
        Kind::Deleted { counted: true } => Op::Delete,
        Kind::Deleted { counted: false } => Op::Move,
    }
}

/// A key column of all batches, then the same column of their old keys, then one null.
fn key_pool(changes: &[TableChanges], column: usize, part: usize) -> Vec<ArrayRef> {
    let own = changes.iter().map(|c| Arc::clone(c.rows.column(column)));
    let null = changes.first().map(|c| new_null_array(c.rows.column(column).data_type(), 1));
    let old = changes.iter().filter_map(|c| match &c.old_keys {
        Some(old) => Some(Arc::clone(old.column(part))),
        None => null.clone(),
    });
    own.chain(old).chain(null.clone()).collect()
}

fn key_indices(batches: usize, keys: &[Option<KeyAt>]) -> Vec<(usize, usize)> {
    let place = |key: &Option<KeyAt>| match key {
        Some(key) if key.old => (batches + key.at.batch as usize, key.at.row as usize),
        Some(key) => (key.at.batch as usize, key.at.row as usize),
        None => (2 * batches, 0),
    };
    keys.iter().map(place).collect()
}

type Gather = (Vec<ArrayRef>, Vec<(usize, usize)>, Option<BooleanBuffer>);

fn value_indices(mode: DeleteMode, changes: &[TableChanges], column: usize, states: &[State]) -> Gather {
    let null = changes.first().map(|c| new_null_array(c.rows.column(column).data_type(), 1));
    let pool: Vec<ArrayRef> = changes.iter().map(|c| Arc::clone(c.rows.column(column))).chain(null).collect();
    let carries = |s: &State| match s.kind {
        Kind::Row => true,
        Kind::Deleted { .. } => mode == DeleteMode::Soft,
        Kind::Absent | Kind::Staged => false,
    };
    let place = |s: &State| match s.sources.of(column) {
        at if at != UNKNOWN && carries(s) => (at.batch as usize, at.row as usize),
        _ => (changes.len(), 0),
    };
    let unknown = |s: &State| carries(s) && s.sources.of(column) == UNKNOWN;
    let bits = states.iter().any(unknown).then(|| states.iter().map(unknown).collect::<BooleanBuffer>());
    (pool, states.iter().map(place).collect(), bits)
}

/// The base's key of every row that needs one, and the first change that stands on it.
fn base_keys(
    contract: &Contract,
    mode: DeleteMode,
    key: &[usize],
    changes: &[TableChanges],
    states: &[State],
) -> Result<Option<RecordBatch>> {
    let carries =
        |s: &State| s.kind == Kind::Row || (mode == DeleteMode::Soft && matches!(s.kind, Kind::Deleted { .. }));
    let needs = |s: &State| s.base.filter(|_| carries(s));
    let bases: Vec<Option<Base>> = states.iter().map(needs).collect();
    if bases.iter().all(Option::is_none) {
        return Ok(None);
    }
    let fail = |e| internal("gather the keys of bases", &contract.table, e);
    let keys: Vec<Option<KeyAt>> = bases.iter().map(|base| base.map(|base| base.key)).collect();
    let indices = key_indices(changes.len(), &keys);
    let mut columns = Vec::with_capacity(key.len());
    let mut fields = Vec::with_capacity(key.len());
    for (part, &column) in key.iter().enumerate() {
        let pool = key_pool(changes, column, part);
        let pool: Vec<&dyn Array> = pool.iter().map(AsRef::as_ref).collect();
        let array = interleave(&pool, &indices).map_err(fail)?;
        fields.push(Field::new(&contract.output.columns[column].name, array.data_type().clone(), true));
        columns.push(array);
    }
    let seqs: StringArray = bases.iter().map(|base| base.map(|base| base.seq.to_string())).collect();
    let arrived = |base: Base| base.arrived.map_or_else(String::new, |seq| seq.to_string());
    let arrived: StringArray = bases.iter().map(|base| base.map(arrived)).collect();
    fields.extend(["_seq", "_arrived"].map(|name| Field::new(name, DataType::Utf8, true)));
    columns.extend([Arc::new(seqs) as ArrayRef, Arc::new(arrived)]);
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map(Some).map_err(fail)
}
