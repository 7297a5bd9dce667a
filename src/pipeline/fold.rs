//! Several epochs become one unit: column by column, the newest value of every key.
//!
//! Pure and columnar: keys become comparable bytes, a pass in log order decides for every key which row of which batch
//! each column comes from, and one gather per column writes the result. What the fold cannot know (whether the warehouse
//! holds a base for a partial row, or something newer) it leaves to the warehouse, in the terms of
//! [`TableLoad::rows`](crate::epoch::TableLoad).

mod gather;

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::row::{RowConverter, Rows, SortField};
use hashbrown::HashMap;
use xxhash_rust::xxh3::Xxh3Builder;

use crate::batch::{NO_TIME, Op, Seq, TableChanges};
use crate::contract::Contract;
use crate::epoch::{DeleteMode, Incomplete, LoadAccount, TableLoad};
use crate::error::{Error, ErrorKind, Result};
use crate::warehouse::KeyText;

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
    load.rows = match left {
        Some(left) => gather::gather(contract, mode, &key, &changes, left)?,
        None => changes.into_iter().filter(|c| !c.is_empty()).collect(),
    };
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

/// A row of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct At {
    batch: u32,
    row: u32,
}

/// Only the warehouse knows the value.
const UNKNOWN: At = At { batch: u32::MAX, row: u32::MAX };

/// A key: a row's own, or the old one of a move.
#[derive(Debug, Clone, Copy)]
struct KeyAt {
    at: At,
    old: bool,
}

/// Keys of all batches as comparable bytes.
struct Keys {
    own: Vec<Rows>,
    old: Vec<Option<Rows>>,
}

impl Keys {
    fn new(contract: &Contract, key: &[usize], changes: &[TableChanges]) -> Result<Self> {
        let fail = |e| internal("make keys comparable", &contract.table, e);
        let fields = key.iter().map(|&i| SortField::new(contract.output.columns[i].data_type.arrow())).collect();
        let converter = RowConverter::new(fields).map_err(fail)?;
        let mut keys = Self { own: Vec::with_capacity(changes.len()), old: Vec::with_capacity(changes.len()) };
        for batch in changes {
            let own: Vec<ArrayRef> = key.iter().map(|&i| Arc::clone(batch.rows.column(i))).collect();
            keys.own.push(converter.convert_columns(&own).map_err(fail)?);
            let old = batch.old_keys.as_ref().map(|old| converter.convert_columns(old.columns()));
            keys.old.push(old.transpose().map_err(fail)?);
        }
        Ok(keys)
    }

    fn bytes(&self, key: KeyAt) -> Option<&[u8]> {
        let rows = if key.old { self.old[key.at.batch as usize].as_ref()? } else { &self.own[key.at.batch as usize] };
        Some(rows.row(key.at.row as usize).data())
    }
}

/// Which row each column comes from.
#[derive(Debug, Clone)]
enum Sources {
    One(At),
    Each(Box<[At]>),
}

impl Sources {
    fn of(&self, column: usize) -> At {
        match self {
            Self::One(at) => *at,
            Self::Each(each) => each[column],
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing is known of the key yet.
    Absent,
    Row,
    /// Deleted, or left by a move (then it is not counted).
    Deleted {
        counted: bool,
    },
}

/// What the fold knows of a key, or one version of it.
#[derive(Debug, Clone)]
struct State {
    kind: Kind,
    seq: Seq,
    /// The change that made it.
    at: At,
    key: KeyAt,
    sources: Sources,
    base: Option<Base>,
}

/// The row of the warehouse that a row stands on.
#[derive(Debug, Clone, Copy)]
struct Base {
    /// Its key.
    key: KeyAt,
    /// The first change that stands on it; after a move: the move that left its key.
    seq: Seq,
    moved: bool,
    /// The move that brought it to the row's own key.
    arrived: Seq,
}

/// One pass over all changes in log order.
struct Pass<'a> {
    contract: &'a Contract,
    mode: DeleteMode,
    key: &'a [usize],
    changes: &'a [TableChanges],
    keys: &'a Keys,
    index: HashMap<&'a [u8], u32, Xxh3Builder>,
    states: Vec<State>,
    /// Refused versions, by key number.
    refused: HashMap<u32, Vec<At>>,
    /// History only: every version and end, in order, and which orders of a key have been seen.
    versions: Vec<State>,
    seen: HashSet<(u32, Seq)>,
    truncate: Option<(Seq, i64)>,
    earlier_truncates: Vec<(Seq, i64)>,
    account: LoadAccount,
    incomplete: Vec<Incomplete>,
    /// Whether the batches can be loaded as they are.
    as_it_stands: bool,
}

impl<'a> Pass<'a> {
    fn new(
        contract: &'a Contract,
        mode: DeleteMode,
        key: &'a [usize],
        changes: &'a [TableChanges],
        keys: &'a Keys,
    ) -> Self {
        let rows = changes.iter().map(TableChanges::len).sum();
        Self {
            contract,
            mode,
            key,
            changes,
            keys,
            index: HashMap::with_capacity_and_hasher(rows, Xxh3Builder::new()),
            states: Vec::with_capacity(rows),
            refused: HashMap::new(),
            versions: Vec::new(),
            seen: HashSet::new(),
            truncate: None,
            earlier_truncates: Vec::new(),
            account: LoadAccount::default(),
            incomplete: Vec::new(),
            as_it_stands: true,
        }
    }

    fn batch(&self, at: At) -> &'a TableChanges {
        &self.changes[at.batch as usize]
    }

    fn seq(&self, at: At) -> Seq {
        self.batch(at).seqs[at.row as usize]
    }

    fn change(&mut self, at: At) -> Result<()> {
        let op = self.batch(at).ops[at.row as usize];
        let seq = self.seq(at);
        if op != Op::Refused {
            self.account.loaded += 1;
        }
        if op == Op::Truncate {
            self.truncated(at, seq);
            return Ok(());
        }
        if self.mode != DeleteMode::History && self.truncate.is_some_and(|(floor, _)| seq < floor) {
            self.as_it_stands = false;
            self.account.superseded += u64::from(op != Op::Refused);
            return Ok(());
        }
        let own = KeyAt { at, old: false };
        let id = self.id(own)?;
        match op {
            Op::Refused => {
                self.refused.entry(id).or_default().push(at);
                Ok(())
            }
            Op::Delete => {
                self.delete(id, own, seq, true);
                Ok(())
            }
            Op::Move => {
                self.as_it_stands = false;
                let old = KeyAt { at, old: true };
                let from = self.id(old)?;
                self.upsert(id, own, seq, Some((from, old)))
            }
            _ => self.upsert(id, own, seq, None),
        }
    }

    /// The number of a key.
    fn id(&mut self, key: KeyAt) -> Result<u32> {
        let bytes = self
            .keys
            .bytes(key)
            .ok_or_else(|| internal("a move lacks its old key", &self.contract.table, self.seq(key.at).to_string()))?;
        let next = self.states.len() as u32;
        let id = *self.index.entry(bytes).or_insert(next);
        if id == next {
            let sources = Sources::One(UNKNOWN);
            let (kind, seq) = (Kind::Absent, Seq::default());
            self.states.push(State { kind, seq, at: key.at, key, sources, base: None });
        }
        Ok(id)
    }

    /// Whether the key already has something as new as `seq`; counts it.
    fn superseded(&mut self, id: u32, seq: Seq, counted: bool) -> bool {
        let state = &self.states[id as usize];
        let old = if self.mode == DeleteMode::History {
            !self.seen.insert((id, seq))
        } else {
            state.kind != Kind::Absent && state.seq >= seq
        };
        if old {
            self.as_it_stands = false;
            self.account.superseded += u64::from(counted);
        }
        old
    }

    fn delete(&mut self, id: u32, key: KeyAt, seq: Seq, counted: bool) {
        self.as_it_stands &= self.mode != DeleteMode::Soft;
        if self.superseded(id, seq, counted) {
            return;
        }
        self.gone(id, key, seq, counted);
    }

    fn gone(&mut self, id: u32, key: KeyAt, seq: Seq, counted: bool) {
        let state = &self.states[id as usize];
        let (sources, base) = match state.kind {
            Kind::Absent => (Sources::One(UNKNOWN), Some(Base { key, seq, moved: false, arrived: seq })),
            _ => (state.sources.clone(), state.base),
        };
        self.put(id, State { kind: Kind::Deleted { counted }, seq, at: key.at, key, sources, base });
    }

    /// A row whose unchanged columns come from its own key's state, or from that of the key that it had before.
    fn upsert(&mut self, id: u32, key: KeyAt, seq: Seq, from: Option<(u32, KeyAt)>) -> Result<()> {
        let from = from.filter(|(old, _)| *old != id);
        let (base_id, base_key) = from.unwrap_or((id, key));
        let stands_on = self.stands_on(base_id, base_key, key.at, seq, from.is_some());
        if let Some((old, old_key)) = from {
            self.delete(old, old_key, seq, false);
        }
        if self.superseded(id, seq, true) {
            return Ok(());
        }
        match stands_on {
            Some((sources, base)) => {
                self.put(id, State { kind: Kind::Row, seq, at: key.at, key, sources, base });
                Ok(())
            }
            None => {
                if from.is_some() {
                    // What had the new key before is gone at the source, even if what has it now cannot be shown.
                    self.gone(id, key, seq, false);
                }
                self.left_out(key.at, seq)
            }
        }
    }

    /// Where the columns of the row `at` come from; `None` when what it stands on was deleted or refused.
    fn stands_on(&self, id: u32, key: KeyAt, at: At, seq: Seq, moved: bool) -> Option<(Sources, Option<Base>)> {
        let batch = self.batch(at);
        let columns = self.contract.output.columns.len();
        if !(0..columns).any(|column| batch.is_unchanged(column, at.row as usize)) {
            return Some((Sources::One(at), None));
        }
        let state = &self.states[id as usize];
        let unknown = (&Sources::One(UNKNOWN), Some(Base { key, seq, moved, arrived: seq }));
        let (sources, base) = match state.kind {
            Kind::Absent => unknown,
            // What came late stands on what the warehouse has from before it.
            _ if state.seq >= seq => unknown,
            Kind::Deleted { .. } => return None,
            _ if self.refused_between(id, state.seq, seq) => return None,
            _ => (&state.sources, state.base),
        };
        let each = (0..columns)
            .map(|column| if batch.is_unchanged(column, at.row as usize) { sources.of(column) } else { at })
            .collect();
        let base = match base {
            Some(base) if moved => {
                Some(Base { seq: if base.moved { base.seq } else { seq }, moved, arrived: seq, ..base })
            }
            base => base,
        };
        Some((Sources::Each(each), base))
    }

    fn refused_between(&self, id: u32, after: Seq, before: Seq) -> bool {
        let markers = self.refused.get(&id);
        markers.is_some_and(|markers| markers.iter().any(|at| (after..before).contains(&self.seq(*at))))
    }

    fn put(&mut self, id: u32, new: State) {
        if self.mode == DeleteMode::History {
            self.versions.push(new.clone());
            if self.states[id as usize].kind != Kind::Absent {
                // Whether this one was filled from the version before is not worth finding out.
                self.as_it_stands = false;
                if self.states[id as usize].seq > new.seq {
                    return;
                }
            }
        } else if self.states[id as usize].kind != Kind::Absent {
            self.replaced(id);
        }
        self.states[id as usize] = new;
    }

    fn replaced(&mut self, id: u32) {
        self.as_it_stands = false;
        let counted = matches!(self.states[id as usize].kind, Kind::Row | Kind::Deleted { counted: true });
        self.account.superseded += u64::from(counted);
    }

    fn truncated(&mut self, at: At, seq: Seq) {
        self.as_it_stands = false;
        if self.truncate.is_some() {
            self.account.superseded += 1;
        }
        let new = (seq, self.batch(at).source_times_us[at.row as usize]);
        if self.mode == DeleteMode::History {
            self.earlier_truncates.extend(self.truncate.map(|old| old.min(new)));
        }
        self.truncate = self.truncate.max(Some(new));
        for id in 0..self.states.len() as u32 {
            let state = &self.states[id as usize];
            if state.kind == Kind::Absent || state.seq >= seq {
                continue;
            }
            if self.mode == DeleteMode::History {
                let ended = State { kind: Kind::Deleted { counted: false }, seq, at, ..state.clone() };
                self.put(id, ended);
            } else {
                self.replaced(id);
                let key = self.states[id as usize].key;
                let (kind, sources) = (Kind::Absent, Sources::One(UNKNOWN));
                self.states[id as usize] = State { kind, seq: Seq::default(), at, key, sources, base: None };
            }
        }
        // Versions that were refused stay refused in the history.
        let changes = if self.mode == DeleteMode::History { &[] } else { self.changes };
        for markers in self.refused.values_mut() {
            markers.retain(|at| changes.get(at.batch as usize).is_none_or(|c| c.seqs[at.row as usize] >= seq));
        }
    }

    fn left_out(&mut self, at: At, seq: Seq) -> Result<()> {
        self.as_it_stands = false;
        self.account.incomplete += 1;
        let batch = self.batch(at);
        let output = &self.contract.output;
        let missing = output.columns.iter().enumerate();
        self.incomplete.push(Incomplete {
            table: self.contract.table.clone(),
            key: KeyText::new(&batch.rows, &output.key, self.key)?.json(at.row as usize),
            seq: seq.to_string(),
            partition: batch.partition.to_string(),
            missing: missing
                .filter(|(column, _)| batch.is_unchanged(*column, at.row as usize))
                .map(|(_, c)| c.name.clone())
                .collect(),
        });
        Ok(())
    }

    /// What is left, in the order of the changes that made it.
    fn finish(self) -> Vec<State> {
        let markers = self.refused.values().flatten().map(|at| State {
            kind: Kind::Absent,
            seq: self.seq(*at),
            at: *at,
            key: KeyAt { at: *at, old: false },
            sources: Sources::One(UNKNOWN),
            base: None,
        });
        let history = self.mode == DeleteMode::History;
        let mut left: Vec<State> = if history {
            markers.chain(self.versions.iter().cloned()).collect()
        } else {
            markers.chain(self.states.iter().filter(|s| s.kind != Kind::Absent).cloned()).collect()
        };
        // The key that a move left comes before the key that it went to.
        left.sort_by_key(|s| (s.at, !s.key.old));
        left
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, Int64Array, RecordBatch};
    use arrow::buffer::BooleanBuffer;

    use super::*;
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
        let mut out = Vec::new();
        for changes in &load.rows {
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
        let load = folded(
            DeleteMode::Hard,
            &[&[(Op::Create, 1, 1, None, Some(10)), (Op::Move, 2, 2, Some(1), None), (Op::Move, 3, 8, Some(7), None)]],
        );
        assert_eq!(lines(&load), ["m 2 1 -", "u 2 2 10", "m 3 7 -", "u 3 8 ?"]);
        let old = load.rows[0].old_keys.as_ref().expect("one needs a base");
        assert_eq!((old.num_columns(), old.column(0).null_count()), (3, 3));
        assert_eq!((load.folded.loaded, load.folded.superseded), (3, 1));
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
