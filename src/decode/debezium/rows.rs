//! The rows of one table under construction. A row is either finished or abandoned half-way; abandoned rows are cut out
//! at the end, so that a bad value in the last column costs nothing in the others.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::BooleanBuffer;
use arrow::compute::filter;
use arrow::datatypes::{Field, Schema};

use super::builder::{ColumnBuilder, Exact, Problem, Room, Widening};
use super::native::Native;
use super::scan::Token;
use super::wire::Wire;
use crate::batch::{NO_TIME, Op, Seq, TableChanges};
use crate::contract::{Contract, Type};
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Partition;

struct Slot {
    builder: ColumnBuilder,
    /// Rows whose value the source left unchanged.
    unchanged: Vec<u32>,
}

/// Rows under construction.
pub(in crate::decode) struct Rows {
    /// Columns of the current row whose value does not fit and is left out.
    ignored: Vec<usize>,
    /// See [`Rows::take_narrow`].
    narrow: Option<(usize, Type)>,
    pub contract: Arc<Contract>,
    partition: Partition,
    slots: Vec<Slot>,
    key: Vec<usize>,
    /// Columns that a whole row must have a value in, beyond the key.
    required: Vec<usize>,
    /// Columns whose absence is a mismatch once the partition has shown them.
    watched: Vec<bool>,
    /// Which columns the partition has shown, and whether all; empty until the first row.
    shown: Vec<bool>,
    all_shown: bool,
    ops: Vec<Op>,
    seqs: Vec<Seq>,
    times: Vec<i64>,
    /// Columns that the current row has something in.
    filled: usize,
    /// Rows that were abandoned.
    dead: Vec<usize>,
    old_keys: Option<Vec<ColumnBuilder>>,
}

impl Rows {
    /// None so far. `room` is what the rows before them held, of the same columns or of fewer: they are about as many.
    pub fn new(
        contract: Arc<Contract>,
        partition: Partition,
        required: Vec<usize>,
        watched: Vec<bool>,
        widens: &[bool],
        room: &[Room],
    ) -> Self {
        let key = contract.input.key_indices();
        let slot = |(at, column): (usize, &crate::contract::Column)| {
            let room = room.get(at).copied().unwrap_or_default();
            let widening = Widening::of(widens.get(at) == Some(&true), key.contains(&at));
            let builder = ColumnBuilder::with_room(column.data_type, room).widening(widening);
            Slot { builder, unchanged: Vec::new() }
        };
        let rows = room.first().map_or(0, |room| room.rows);
        Self {
            slots: contract.input.columns.iter().enumerate().map(slot).collect(),
            key,
            contract,
            partition,
            required,
            watched,
            shown: Vec::new(),
            all_shown: false,
            ops: Vec::with_capacity(rows),
            seqs: Vec::with_capacity(rows),
            times: Vec::with_capacity(rows),
            ignored: Vec::new(),
            narrow: None,
            filled: 0,
            dead: Vec::new(),
            old_keys: None,
        }
    }

    /// The first column of the current row that must have a value and has none.
    #[inline]
    pub fn lacking(&self, whole: bool) -> Option<usize> {
        let required = self.required.iter().filter(|_| whole);
        let lacks =
            |c: &&usize| self.slots[**c].builder.ends_null() && (self.key.contains(c) || !self.is_unchanged(**c));
        self.key.iter().chain(required).find(lacks).copied()
    }

    /// The number of columns.
    pub fn width(&self) -> usize {
        self.slots.len()
    }

    /// Positions of the key columns.
    pub fn key(&self) -> &[usize] {
        &self.key
    }

    /// Whether the current row has something in that column.
    #[inline]
    pub fn has(&self, column: usize) -> bool {
        self.slots[column].builder.len() > self.ops.len()
    }

    /// Whether the current row's value in that column is marked as unchanged.
    pub fn is_unchanged(&self, column: usize) -> bool {
        self.slots[column].unchanged.last() == Some(&(self.ops.len() as u32))
    }

    /// The columns that the current row leaves unchanged.
    pub fn any_unchanged(&self) -> Option<usize> {
        (0..self.slots.len()).find(|column| self.is_unchanged(*column))
    }

    #[inline]
    pub fn append(&mut self, column: usize, wire: Wire, token: Token<'_>) -> Result<(), Problem> {
        if self.has(column) {
            return Err(Problem::Value("it appears twice in the row"));
        }
        let appended = self.slots[column].builder.append(wire, token);
        self.appended(column, appended)
    }

    #[inline]
    fn appended(&mut self, column: usize, appended: Result<(), Problem>) -> Result<(), Problem> {
        match appended {
            Ok(()) => self.filled += 1,
            Err(problem) => self.note_narrow(column, problem),
        }
        appended
    }

    #[cold]
    fn note_narrow(&mut self, column: usize, problem: Problem) {
        if let Problem::Narrow(wider) = problem {
            self.narrow = Some((column, wider));
        }
    }

    /// The column that must become wider to take a value of the current row, and what it must become.
    pub fn take_narrow(&mut self) -> Option<(usize, Type)> {
        self.narrow.take()
    }

    /// Appends a value that came in binary.
    #[inline]
    pub fn append_native(&mut self, column: usize, native: Native<'_>) -> Result<(), Problem> {
        let appended = self.slots[column].builder.append_native(native);
        self.appended(column, appended)
    }

    /// Appends a whole number when nothing about it needs to be judged; says whether it did.
    #[inline]
    pub fn append_whole(&mut self, column: usize, wire: Wire, number: i64) -> bool {
        let taken = !self.has(column) && self.slots[column].builder.append_whole(wire, number);
        self.filled += usize::from(taken);
        taken
    }

    /// Appends bytes or a float when nothing about it needs to be judged; says whether it did.
    #[inline]
    pub fn append_exact(&mut self, column: usize, exact: Exact<'_>) -> bool {
        let taken = !self.has(column) && self.slots[column].builder.append_exact(exact);
        self.filled += usize::from(taken);
        taken
    }

    /// Whether the current row has something in every column.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.filled == self.slots.len()
    }

    pub fn null(&mut self, column: usize) {
        self.filled += 1;
        self.slots[column].builder.append_null();
    }

    pub fn unchanged(&mut self, column: usize) {
        let row = self.ops.len() as u32;
        let slot = &mut self.slots[column];
        slot.builder.append_null();
        slot.unchanged.push(row);
        self.filled += 1;
    }

    /// Leaves the value of a column out of the current row.
    pub fn ignore(&mut self, column: usize) {
        self.ignored.push(column);
    }

    /// Whether the current row has a value for the column that was left out.
    pub fn is_ignored(&self, column: usize) -> bool {
        self.ignored.contains(&column)
    }

    /// Whether the current row has every column, and the partition has shown them all before.
    #[inline]
    pub fn is_usual(&self) -> bool {
        self.is_full() && self.all_shown
    }

    /// Takes over which columns the partition has shown so far.
    pub fn recall(&mut self, has: impl Fn(&str) -> bool) {
        if self.shown.len() < self.slots.len() {
            self.shown = self.contract.input.columns.iter().map(|column| has(&column.name)).collect();
            self.all_shown = !self.shown.contains(&false);
        }
    }

    /// Columns that the current row is the first to show.
    pub fn first_shown(&self) -> Vec<usize> {
        let present = |column: &usize| self.has(*column) || self.is_ignored(*column);
        (0..self.slots.len()).filter(|column| !self.shown[*column]).filter(present).collect()
    }

    /// Columns that the current row lacks although the partition has shown them.
    pub fn absent(&self) -> Vec<usize> {
        let watched = |column: &usize| self.shown[*column] && self.watched[*column];
        self.missing().filter(watched).filter(|column| !self.is_ignored(*column)).collect()
    }

    /// The partition has shown the column, or (`false`) its absence was taken.
    pub fn note_shown(&mut self, column: usize, shown: bool) {
        self.shown[column] = shown;
        self.all_shown = !self.shown.contains(&false);
    }

    /// The column's name.
    pub fn name(&self, column: usize) -> &str {
        &self.contract.input.columns[column].name
    }

    /// Columns that the current row lacks so far.
    pub fn missing(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.slots.len()).filter(|column| !self.has(*column))
    }

    /// Writes a column of the old key of the current row, a move.
    pub fn old_key(&mut self, at: usize, wire: Wire, token: Token<'_>) -> Result<(), Problem> {
        let appended = self.old_key_builder(at)?.append(wire, token);
        appended.inspect_err(|problem| self.note_narrow(self.key[at], *problem))
    }

    /// The same, of a value that came in binary.
    pub fn old_key_native(&mut self, at: usize, native: Native<'_>) -> Result<(), Problem> {
        let appended = self.old_key_builder(at)?.append_native(native);
        appended.inspect_err(|problem| self.note_narrow(self.key[at], *problem))
    }

    fn old_key_builder(&mut self, at: usize) -> Result<&mut ColumnBuilder, Problem> {
        let row = self.ops.len();
        let builders = self.old_keys.get_or_insert_with(|| {
            let builder = |key: &usize| {
                let data_type = self.contract.input.columns[*key].data_type;
                ColumnBuilder::new(data_type).widening(self.slots[*key].builder.widens())
            };
            self.key.iter().map(builder).collect()
        });
        let Some(builder) = builders.get_mut(at) else { return Err(Problem::Value("the key has no such column")) };
        while builder.len() < row {
            builder.append_null();
        }
        Ok(builder)
    }

    /// Finishes the current row; every column must have something.
    #[inline]
    pub fn finish_row(&mut self, op: Op, seq: Seq, time: i64) {
        debug_assert!(self.is_full() && self.missing().next().is_none(), "a finished row is whole");
        self.filled = 0;
        self.ignored.clear();
        self.ops.push(op);
        self.seqs.push(seq);
        self.times.push(time);
    }

    /// Gives up the current row.
    pub fn abandon(&mut self) {
        self.ignored.clear();
        for column in 0..self.slots.len() {
            if !self.has(column) {
                self.null(column);
            }
        }
        self.dead.push(self.ops.len());
        self.finish_row(Op::Refused, Seq::default(), NO_TIME);
        self.pad_old_keys();
    }

    fn pad_old_keys(&mut self) {
        let rows = self.ops.len();
        for builder in self.old_keys.iter_mut().flatten() {
            while builder.len() < rows {
                builder.append_null();
            }
        }
    }

    /// How much its columns hold.
    pub fn room(&self) -> Vec<Room> {
        self.slots.iter().map(|slot| slot.builder.room()).collect()
    }

    /// The finished rows; `None` when there are none.
    pub fn finish(mut self) -> Result<Option<TableChanges>> {
        let rows = self.ops.len();
        if rows == self.dead.len() {
            return Ok(None);
        }
        self.pad_old_keys();
        let keep = (!self.dead.is_empty()).then(|| mask(rows, &self.dead));
        let cut = |array: ArrayRef| -> Result<ArrayRef> {
            match &keep {
                Some(keep) => filter(&array, keep).map_err(internal),
                None => Ok(array),
            }
        };
        let arrays = self.slots.iter_mut().map(|s| cut(s.builder.finish())).collect::<Result<Vec<_>>>()?;
        let unchanged = self.slots.iter().map(|s| bits(rows, &s.unchanged, &self.dead)).collect();
        let moved = self.ops.contains(&Op::Move);
        let old_keys = match self.old_keys.as_mut().filter(|_| moved) {
            Some(builders) => {
                let arrays = builders.iter_mut().map(|b| cut(b.finish())).collect::<Result<Vec<_>>>()?;
                let columns = self.key.iter().map(|k| &self.contract.input.columns[*k]);
                let fields: Vec<_> = columns.map(|c| Field::new(&c.name, c.data_type.arrow(), true)).collect();
                Some(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).map_err(internal)?)
            }
            None => None,
        };
        let alive = rows - self.dead.len();
        let options = RecordBatchOptions::new().with_row_count(Some(alive));
        let batch =
            RecordBatch::try_new_with_options(self.contract.input.arrow(), arrays, &options).map_err(internal)?;
        Ok(Some(TableChanges {
            contract: self.contract,
            partition: self.partition,
            rows: batch,
            ops: alive_of(self.ops, &self.dead),
            seqs: alive_of(self.seqs, &self.dead),
            source_times_us: alive_of(self.times, &self.dead),
            unchanged,
            old_keys,
        }))
    }
}

fn internal(error: arrow::error::ArrowError) -> Error {
    Error::new(ErrorKind::Internal, "build the columns of decoded rows").because(error)
}

fn mask(rows: usize, dead: &[usize]) -> BooleanArray {
    let mut keep = vec![true; rows];
    for row in dead {
        keep[*row] = false;
    }
    BooleanArray::from(keep)
}

fn bits(rows: usize, unchanged: &[u32], dead: &[usize]) -> Option<BooleanBuffer> {
    if unchanged.is_empty() {
        return None;
    }
    let mut bits = vec![false; rows];
    for row in unchanged {
        bits[*row as usize] = true;
    }
    let bits = alive_of(bits, dead);
    bits.contains(&true).then(|| BooleanBuffer::from(bits))
}

fn alive_of<T>(values: Vec<T>, dead: &[usize]) -> Vec<T> {
    if dead.is_empty() {
        return values;
    }
    let mut dead = dead.iter().copied().peekable();
    let alive = |(row, value)| if dead.next_if_eq(&row).is_some() { None } else { Some(value) };
    values.into_iter().enumerate().filter_map(alive).collect()
}
