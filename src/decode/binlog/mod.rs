//! MySQL's and MariaDB's row events, and the rows of their snapshots, one record per row.
//!
//! | file | what it owns |
//! |---|---|
//! | `mod.rs` | tables, and which change becomes which row |
//! | `types.rs` | which column type holds which MySQL type |
//! | `row.rs` | row images and snapshot rows into builders |
//! | `value.rs`, `snapshot.rs` | values of row images; of the binary protocol |
//! | `json.rs`, `diff.rs` | binary JSON as text; differences of JSON |
//!
//! # Decisions
//!
//! * A record with a key and no value describes a table ([`TableShape`] as JSON). Rows that follow in its partition are
//!   read by the newest description of theirs, so every row is read by the columns that it was written with. Descriptions
//!   that are recalled with a batch count as come before it.
//! * The key is the primary key. Where there is none, and the topology gives none, rows can only be added.
//! * What an update's new image leaves out is as it is in the old image, else *unchanged*; never null.
//! * What an insert leaves out (`binlog_row_image=MINIMAL`) is the column's constant default, where that is known, else
//!   the row is refused as incomplete.
//! * A JSON difference is applied to the document of the old image; without it the row is refused as incomplete.
//! * A version that is refused leaves its key behind, so that no later partial row is filled from what was before it.
//! * Zero and partial dates are refused: no warehouse has such days, and null would be another value.

mod diff;
mod json;
mod row;
mod snapshot;
#[cfg(test)]
mod tests;
mod types;
mod value;

use std::collections::HashMap;
use std::sync::Arc;

use self::row::{Change, Column, Context, Source};
use self::types::reading;
use self::value::Scratch;
use super::Decoder;
use super::debezium::row::Target;
use super::debezium::schema::WireColumn;
use super::debezium::write::fill;
use super::debezium::{Refusal, TableRoute};
use super::routed::{Heard, NO_KEY, Outcome, Routed, other_key};
use crate::batch::{ChangeBatch, NO_TIME, Op, RawBatch, RawRecord, Seq};
use crate::contract::Contract;
use crate::error::Result;
use crate::progress::{Partition, Progress};
use crate::wire::binlog::{Record, RecordKind, RowsKind};
use crate::wire::mysqltype::{ColumnShape, Form, TableShape};

/// Decodes what a MySQL source reads.
pub struct BinlogDecoder {
    routed: Routed,
    partitions: HashMap<Partition, Tables>,
    scratch: Scratch,
    /// What changes are found in, empty between records.
    spare: [Vec<Source<'static>>; 2],
}

/// What a partition has described, by the numbers that its rows name.
type Tables = HashMap<u64, Told>;

/// A description and its table; `None` when nobody reads it.
struct Told {
    heard: Heard,
    known: Option<Known>,
}

/// A table that was described.
struct Known {
    table: usize,
    shape: TableShape,
    wires: Vec<WireColumn>,
    forms: Vec<Form>,
    /// How its columns are read, and under which state of the table's contract that was found out.
    columns: Vec<Column>,
    epoch: Option<u64>,
    /// Why its rows are refused.
    trouble: Option<String>,
}

impl BinlogDecoder {
    /// A decoder of the source `source` for the tables in `routes`, whose streams are `<database>.<table>`.
    pub fn new(source: &str, routes: Vec<TableRoute>) -> Result<Self> {
        let routed = Routed::new(source, routes)?;
        Ok(Self { routed, partitions: HashMap::new(), scratch: Scratch::default(), spare: Default::default() })
    }

    fn describe(&mut self, key: Option<&[u8]>, tables: &mut Tables, recalled: bool) -> Outcome {
        let key = key.unwrap_or_default();
        let Ok(shape) = serde_json::from_slice::<TableShape>(key) else {
            return Outcome::Refused(None, None, Refusal::decode("it neither describes a table nor holds a row"));
        };
        let heard = self.routed.hear(shape.id, key, recalled);
        let Some(table) = self.routed.of(&shape.name) else {
            tables.insert(shape.id, Told { heard, known: None });
            return Outcome::Unrouted;
        };
        self.routed.describe(table, key);
        let wire = |column: &ColumnShape| {
            let (natural, wire) = reading(column);
            WireColumn { name: column.name.clone(), wire, natural, narrow: true }
        };
        let wires = shape.columns.iter().map(wire).collect();
        let forms = shape.columns.iter().map(|column| column.form).collect();
        let known = Known { table, wires, forms, columns: Vec::new(), epoch: None, trouble: None, shape };
        tables.insert(known.shape.id, Told { heard, known: Some(known) });
        Outcome::Control
    }

    /// Makes sure that the table's columns are in its contract.
    fn agree(&mut self, known: &mut Known) -> Result<()> {
        let table = &mut self.routed.tables[known.table];
        if known.epoch == Some(table.epoch) && table.contract.is_some() {
            return Ok(());
        }
        let key: Vec<String> = known.shape.columns.iter().filter(|c| c.key).map(|c| c.name.clone()).collect();
        known.trouble = other_key(table, &key);
        if known.trouble.is_none() {
            match table.learn_block(&known.wires, &key, &[])? {
                Ok(layout) => {
                    let column = |(shape, wire): (&ColumnShape, &WireColumn)| Column {
                        target: layout.target(&shape.name).cloned().unwrap_or(Target::Skip),
                        shape: shape.clone(),
                        wire: wire.wire,
                    };
                    known.columns = known.shape.columns.iter().zip(&known.wires).map(column).collect();
                }
                Err(why) => known.trouble = Some(why),
            }
        }
        known.epoch = Some(table.epoch);
        Ok(())
    }

    fn truncate(&mut self, partition: &Partition, table: usize, context: Context) -> Outcome {
        // A table that nothing is known of holds nothing that could be emptied.
        let Some(rows) = self.routed.tables[table].open(partition) else { return Outcome::Control };
        fill(rows, false);
        rows.finish_row(Op::Truncate, context.seq, context.time);
        Outcome::Row
    }

    fn record(
        &mut self,
        partition: &Partition,
        tables: &mut Tables,
        record: &RawRecord<'_>,
        seq: Seq,
    ) -> Result<Outcome> {
        let Some(value) = record.value() else { return Ok(self.describe(record.key(), tables, false)) };
        let record_time = record.timestamp_us();
        let record = match Record::parse(value) {
            Ok(record) => record,
            Err(malformed) => return Ok(Outcome::Refused(None, None, Refusal::decode(malformed.to_string()))),
        };
        let op = op(record.kind);
        let Some(Told { heard, known }) = tables.get_mut(&record.table) else {
            let why = Refusal::decode("its table was not described before it, so its columns are not known");
            return Ok(Outcome::Refused(None, Some(op), why));
        };
        self.routed.rely_on(record.table, heard);
        let Some(known) = known else { return Ok(Outcome::Unrouted) };
        self.agree(known)?;
        let context = Context { op, seq, time: record_time, ignore: false };
        if op == Op::Truncate {
            return Ok(self.truncate(partition, known.table, context));
        }
        let [new, old] = std::mem::take(&mut self.spare);
        let mut change = Change { new, old };
        let written = self.change(partition, known, &record, &mut change, context);
        self.spare = [emptied(change.new), emptied(change.old)];
        Ok(match written? {
            Ok(()) => Outcome::Row,
            Err(refusal) => {
                // A table has one number for its events and another for rows that a query reads.
                self.routed.describe_by(known.table, heard);
                Outcome::Refused(Some(known.table), Some(op), refusal)
            }
        })
    }

    fn records(&mut self, raw: &RawBatch, tables: &mut Tables, batch: &mut ChangeBatch) -> Result<()> {
        self.routed.say_described(batch, Seq::default());
        for record in raw.records.iter() {
            let (minor, ordinal) = record.within();
            let seq = Seq { generation: raw.generation, major: record.offset(), minor, ordinal };
            let outcome = self.record(&raw.partition, tables, &record, seq)?;
            if record.value().is_none() || matches!(outcome, Outcome::Refused(..)) {
                self.routed.say_described(batch, seq);
            }
            let time = if record.timestamp_us() == 0 { NO_TIME } else { record.timestamp_us() };
            self.routed.count(batch, seq, time, outcome);
        }
        Ok(())
    }

    /// Writes a change that was found whole.
    fn change<'a>(
        &mut self,
        partition: &Partition,
        known: &'a Known,
        record: &Record<'a>,
        change: &mut Change<'a>,
        context: Context,
    ) -> Result<std::result::Result<(), Refusal>> {
        if let Some(trouble) = &known.trouble {
            return Ok(Err(Refusal::contract(trouble.clone())));
        }
        let table = &mut self.routed.tables[known.table];
        if let Err(refusal) = change.fill(record, known) {
            return Ok(Err(refusal));
        }
        let keyless = table.key().is_empty();
        if keyless && !matches!(context.op, Op::Read | Op::Create) {
            return Ok(Err(Refusal::decode(NO_KEY)));
        }
        let context = Context { ignore: table.ignores(), ..context };
        let mut completed = change.complete(context.op, &known.columns);
        loop {
            let Some(rows) = table.open(partition) else {
                return Ok(Err(Refusal::decode("nothing is known of its table's columns")));
            };
            let written = std::mem::replace(&mut completed, Ok(())).and_then(|()| {
                let moved = context.op == Op::Update && change.moves(&known.columns, rows.key());
                let context = if moved { Context { op: Op::Move, ..context } } else { context };
                row::write(&known.columns, rows, change, context, &mut self.scratch)
            });
            if written.is_ok() {
                return Ok(written);
            }
            let narrow = rows.take_narrow();
            rows.abandon();
            if let Some((column, wider)) = narrow {
                table.widen(column, wider)?;
                continue;
            }
            if !keyless {
                row::write_refused(&known.columns, rows, change, context, &mut self.scratch);
            }
            return Ok(written);
        }
    }
}

/// An empty vector with the same memory.
fn emptied(mut sources: Vec<Source<'_>>) -> Vec<Source<'static>> {
    sources.clear();
    sources.into_iter().map(|_| Source::Absent).collect()
}

/// The op of a record that is a row.
fn op(kind: RecordKind) -> Op {
    match kind {
        RecordKind::Snapshot => Op::Read,
        RecordKind::Row(RowsKind::Insert) => Op::Create,
        RecordKind::Row(RowsKind::Update | RowsKind::PartialUpdate) => Op::Update,
        RecordKind::Row(RowsKind::Delete) => Op::Delete,
        RecordKind::Truncate => Op::Truncate,
    }
}

impl Decoder for BinlogDecoder {
    fn decode(&mut self, raw: &RawBatch) -> Result<ChangeBatch> {
        let mut batch = self.routed.begin(raw);
        // Taken out while its rows are written, and put back.
        let mut tables = self.partitions.remove(&raw.partition).unwrap_or_default();
        for text in raw.records.recalled() {
            self.describe(Some(text), &mut tables, true);
        }
        let decoded = self.records(raw, &mut tables, &mut batch);
        self.partitions.insert(raw.partition.clone(), tables);
        decoded?;
        self.routed.close(&mut batch)?;
        Ok(batch)
    }

    fn flush(&mut self, _partition: &Partition) -> Result<Option<ChangeBatch>> {
        Ok(None)
    }

    fn adopt(&mut self, contracts: &[Arc<Contract>]) -> Result<()> {
        self.routed.adopt(contracts)
    }

    fn reset(&mut self, _partition: &Partition, _progress: &Progress) {
        // A source that begins again describes every table again before its rows.
    }

    fn revisit(&mut self, _partition: &Partition, _progress: &Progress) {
        // Nothing is kept of a partition but descriptions.
    }
}
