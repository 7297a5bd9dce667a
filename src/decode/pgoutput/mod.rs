//! PostgreSQL's logical replication messages, and the rows of its snapshots in the same form.
//!
//! | file | what it owns |
//! |---|---|
//! | `mod.rs` | relations, and which change becomes which row |
//! | `types.rs` | which column type holds which PostgreSQL type |
//! | `row.rs` | tuples into builders |
//! | `text.rs` | arrays and hstore as JSON |
//! | `binary.rs` | values that a snapshot reads in their binary form |
//!
//! # Decisions
//!
//! * A record with a key and no value describes a relation ([`RelationShape`] as JSON). Rows that follow are read by the
//!   newest description of theirs, so every row is read by the columns that it was written with.
//! * The key is the primary key; with `REPLICA IDENTITY USING INDEX` that index, because old tuples carry nothing else.
//! * An old tuple of kind `K` is data in the columns of the replica identity alone.
//! * Descriptions that are recalled with a batch count as come before it.
//! * A value that is stored apart and unchanged is taken from the old tuple where that has it, else it is *unchanged*.
//! * A change whose place inside the log is 0 is a row of a snapshot.

mod binary;
mod row;
#[cfg(test)]
mod tests;
mod text;
mod types;

use std::sync::Arc;

use hashbrown::HashMap;

use self::row::{Change, Column};
use self::types::reading;
use super::Decoder;
use super::debezium::row::Target;
use super::debezium::schema::WireColumn;
use super::debezium::table::Table;
use super::debezium::write::{fill, refusal};
use super::debezium::{Refusal, TableRoute};
use super::routed::{Heard, NO_KEY, Outcome, Routed, other_key};
use crate::batch::{ChangeBatch, NO_TIME, Op, RawBatch, RawRecord, Seq};
use crate::contract::Contract;
use crate::error::Result;
use crate::progress::{Partition, Progress};
use crate::wire::pgoutput::{Message, parse};
use crate::wire::pgtype::RelationShape;

/// Decodes what a PostgreSQL source reads.
pub struct PgOutput {
    routed: Routed,
    relations: HashMap<u32, Known>,
    /// Relations that were described and that no table reads.
    unrouted: HashMap<u32, Heard>,
    scratch: String,
}

/// A relation that was described.
struct Known {
    table: usize,
    heard: Heard,
    shape: RelationShape,
    wires: Vec<WireColumn>,
    /// How its columns are read, and under which state of the table's contract that was found out.
    columns: Vec<Column>,
    epoch: Option<u64>,
    /// Why its rows are refused.
    trouble: Option<String>,
}

impl PgOutput {
    /// A decoder of the source `source` for the tables in `routes`, whose streams are `<schema>.<table>`.
    pub fn new(source: &str, routes: Vec<TableRoute>) -> Result<Self> {
        let (relations, unrouted) = (HashMap::new(), HashMap::new());
        Ok(Self { routed: Routed::new(source, routes)?, relations, unrouted, scratch: String::new() })
    }

    fn record(&mut self, partition: &Partition, record: &RawRecord<'_>, seq: Seq) -> Result<Outcome> {
        let time = record.timestamp_us();
        let Some(value) = record.value() else {
            let key = record.key().unwrap_or_default();
            return Ok(match serde_json::from_slice::<RelationShape>(key) {
                Ok(shape) => self.describe(shape, key, false),
                _ => refused(None, None, Refusal::decode("it neither describes a relation nor holds a change")),
            });
        };
        let message = match parse(value, false) {
            Ok(message) => message,
            Err(malformed) => return Ok(refused(None, None, Refusal::decode(malformed.to_string()))),
        };
        let change = |op, tuple, old| Change { op, seq, time, tuple, old, ignore: false };
        match message {
            Message::Insert { relation, new, .. } => {
                let op = if record.within().0 == 0 { Op::Read } else { Op::Create };
                self.change(partition, relation, change(op, new, None))
            }
            Message::Update { relation, old, new, .. } => {
                self.change(partition, relation, change(Op::Update, new, old))
            }
            Message::Delete { relation, old, .. } => {
                self.change(partition, relation, change(Op::Delete, old.tuple(), Some(old)))
            }
            Message::Truncate { relations, .. } => {
                let mut outcome = Outcome::Unrouted;
                for relation in relations {
                    outcome = self.truncate(partition, relation, seq, time)?.max(outcome);
                }
                Ok(outcome)
            }
            _ => Ok(Outcome::Control),
        }
    }

    fn describe(&mut self, shape: RelationShape, text: &[u8], recalled: bool) -> Outcome {
        let heard = self.routed.hear(shape.id.into(), text, recalled);
        let Some(table) = self.routed.of(&shape.name) else {
            self.relations.remove(&shape.id);
            self.unrouted.insert(shape.id, heard);
            return Outcome::Unrouted;
        };
        let wire = |column: &crate::wire::pgtype::ColumnShape| {
            let (natural, wire, _) = reading(&column.kind);
            WireColumn { name: column.name.clone(), wire, natural, narrow: true }
        };
        let wires = shape.columns.iter().map(wire).collect();
        let known = Known { table, heard, wires, columns: Vec::new(), epoch: None, trouble: None, shape };
        self.unrouted.remove(&known.shape.id);
        self.relations.insert(known.shape.id, known);
        self.routed.describe(table, text);
        Outcome::Control
    }

    /// Makes sure that the relation's columns are in its table's contract.
    fn agree(&mut self, relation: u32) -> Result<Option<usize>> {
        let Some(known) = self.relations.get_mut(&relation) else { return Ok(None) };
        self.routed.rely_on(relation.into(), &mut known.heard);
        let table = &mut self.routed.tables[known.table];
        if known.epoch == Some(table.epoch) && table.contract.is_some() {
            return Ok(Some(known.table));
        }
        let key: Vec<String> = known.shape.columns.iter().filter(|c| c.key).map(|c| c.name.clone()).collect();
        let key = key_then(known, table, key);
        known.trouble = other_key(table, &key);
        if known.trouble.is_none() {
            match table.learn_block(&known.wires, &key, &[])? {
                Ok(layout) => {
                    let column = |(shape, wire): (&crate::wire::pgtype::ColumnShape, &WireColumn)| Column {
                        target: layout.target(&shape.name).cloned().unwrap_or(Target::Skip),
                        reading: reading(&shape.kind).2,
                        wire: wire.wire,
                        binary: shape.kind.binary(),
                        identity: shape.identity,
                    };
                    known.columns = known.shape.columns.iter().zip(&known.wires).map(column).collect();
                }
                Err(why) => known.trouble = Some(why),
            }
        }
        known.epoch = Some(table.epoch);
        Ok(Some(known.table))
    }

    fn change(&mut self, partition: &Partition, relation: u32, change: Change<'_>) -> Result<Outcome> {
        let Some(at) = self.agree(relation)? else { return Ok(self.unknown(relation, change.op)) };
        let Some(known) = self.relations.get(&relation) else { return Ok(Outcome::Unrouted) };
        let table = &mut self.routed.tables[at];
        let op = change.op;
        let refused = |refusal| Ok(refused(Some(at), Some(op), refusal));
        if let Some(trouble) = &known.trouble {
            return refused(Refusal::contract(trouble.clone()));
        }
        let ignore = table.ignores();
        let tuple = change.tuple;
        if tuple.len() != known.columns.len() {
            return refused(Refusal::decode("it has another number of values than its relation has columns"));
        }
        if !matches!(op, Op::Read | Op::Create) {
            if table.key().is_empty() {
                return refused(Refusal::decode(NO_KEY));
            }
            if let Some(column) = uncovered(known, table.key()) {
                return refused(Refusal::contract(format!(
                    "its key column `{column}` is not part of the replica identity, so what key the row had is not \
                     known; run `ALTER TABLE {} REPLICA IDENTITY FULL` at the source",
                    known.shape.name
                )));
            }
        }
        let Some(rows) = table.open(partition) else {
            return refused(Refusal::decode("nothing is known of its table's columns"));
        };
        let moved = op == Op::Update && row::moves(&known.columns, rows.key(), tuple, change.old);
        let op = if moved { Op::Move } else { op };
        match row::write(&known.columns, rows, &Change { op, ignore, ..change }, &mut self.scratch) {
            Ok(()) => Ok(Outcome::Row),
            Err(error) => {
                let narrow = rows.take_narrow();
                rows.abandon();
                let Some((column, wider)) = narrow else { return refused(refusal(error)) };
                table.widen(column, wider)?;
                self.change(partition, relation, change)
            }
        }
    }

    /// A row of a relation that no table reads, or of one that nothing is known of.
    fn unknown(&mut self, relation: u32, op: Op) -> Outcome {
        if let Some(heard) = self.unrouted.get_mut(&relation) {
            self.routed.rely_on(relation.into(), heard);
            return Outcome::Unrouted;
        }
        let why = format!("nothing that came before it describes its relation ({relation})");
        refused(None, Some(op), Refusal::decode(why))
    }

    fn truncate(&mut self, partition: &Partition, relation: u32, seq: Seq, time: i64) -> Result<Outcome> {
        let Some(at) = self.agree(relation)? else { return Ok(Outcome::Unrouted) };
        // A table that nothing is known of holds nothing that could be emptied.
        let Some(rows) = self.routed.tables[at].open(partition) else { return Ok(Outcome::Control) };
        fill(rows, false);
        rows.finish_row(Op::Truncate, seq, time);
        Ok(Outcome::Row)
    }
}

fn refused(table: Option<usize>, op: Option<Op>, refusal: Refusal) -> Outcome {
    Outcome::Refused(table, op, refusal)
}

/// The key of rows that were written with all of their old values: the catalog knows only the key of now. Where that has
/// other columns, it is the table's.
fn key_then(known: &Known, table: &Table, now: Vec<String>) -> Vec<String> {
    let has = |name: &String| known.shape.columns.iter().any(|column| column.name == *name);
    let lost = now.is_empty() && known.shape.identity == 'f' && table.fixed_key.is_none();
    if lost && table.contract.is_some() && table.key().iter().all(has) { table.key().to_vec() } else { now }
}

/// The key column that old tuples do not carry.
fn uncovered<'k>(known: &Known, key: &'k [String]) -> Option<&'k String> {
    if known.shape.identity == 'f' {
        return None;
    }
    let carried = |name: &String| known.shape.columns.iter().any(|c| c.name == *name && c.identity);
    key.iter().find(|name| !carried(name))
}

impl Decoder for PgOutput {
    fn decode(&mut self, raw: &RawBatch) -> Result<ChangeBatch> {
        let mut batch = self.routed.begin(raw);
        for text in raw.records.recalled() {
            if let Ok(shape) = serde_json::from_slice(text) {
                self.describe(shape, text, true);
            }
        }
        self.routed.say_described(&mut batch, Seq::default());
        for record in raw.records.iter() {
            let (minor, ordinal) = record.within();
            let seq = Seq { generation: raw.generation, major: record.offset(), minor, ordinal };
            let outcome = self.record(&raw.partition, &record, seq)?;
            if record.value().is_none() {
                self.routed.say_described(&mut batch, seq);
            }
            let time = if record.timestamp_us() == 0 { NO_TIME } else { record.timestamp_us() };
            self.routed.count(&mut batch, seq, time, outcome);
        }
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
        // A source that begins again describes every relation again before its rows.
    }

    fn revisit(&mut self, _partition: &Partition, _progress: &Progress) {
        // Nothing is kept of a partition.
    }
}
