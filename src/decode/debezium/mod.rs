//! Debezium's JSON: envelopes with or without the schema block, mixed in one topic, or flattened.
//!
//! | file | what it owns |
//! |---|---|
//! | `scan.rs` | finding where JSON values end |
//! | `block.rs`, `schema.rs`, `wire.rs` | schema blocks: recognised by their bytes, read once into columns |
//! | `envelope.rs` | what a value is, and its parts |
//! | `key.rs` | message keys |
//! | `record.rs` | one record: opened, routed |
//! | `row.rs`, `rows.rs`, `builder.rs`, `value.rs`, `time.rs` | rows: from text straight into Arrow builders |
//! | `native.rs` | values that come in binary, into the same builders |
//! | `placeholder.rs`, `md5.rs` | the shapes of the unavailable-value placeholder |
//! | `table.rs` | what is known of a table, and how it is learned |
//! | `change.rs`, `write.rs` | one event becomes one row, or a refusal |
//! | `moves.rs` | key updates: two events become one row |
//! | `redelivery.rs` | recognising re-delivered events of tables without a key; what is kept of a partition |
//! | `shown.rs` | telling a column that is gone from one that was not there yet |
//!
//! # Decisions
//!
//! * The row (`after`) says what the key of an insert or update is. The message key gives the key's column *names*, the
//!   key columns that the row lacks (routers add some), and the key of a delete. Debezium makes both of the same values.
//! * `before` is never read but for the key of a delete without a message key: with Postgres' default replica identity
//!   its other columns are invented.
//! * A record without a value is a tombstone where rows are enveloped. Where they are flattened (or while that is not
//!   known) it is a delete by its key: repeating a delete does nothing.
//! * Fields of a flattened row that begin with the configured prefix are metadata, never columns.
//! * Bits are kept as Debezium sends them: little-endian bytes.

mod block;
pub(super) mod builder;
mod change;
mod envelope;
mod key;
mod md5;
mod moves;
pub(super) mod native;
mod placeholder;
mod record;
mod redelivery;
pub(super) mod row;
pub(super) mod rows;
pub(super) mod scan;
pub(super) mod schema;
mod shown;
pub(super) mod table;
pub(super) mod time;
pub(super) mod value;
pub(super) mod wire;
pub(super) mod write;

use std::collections::HashMap;
use std::sync::Arc;

use self::block::Blocks;
use self::envelope::FlatNames;
use self::moves::Held;
use self::placeholder::Placeholder;
use self::redelivery::Marks;
use self::table::Table;
use super::Decoder;
use crate::batch::{ChangeBatch, NO_TIME, Op, RawBatch, RawRecord, Reject, Seq};
use crate::config;
use crate::contract::Contract;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::{Generation, Partition, Progress, Span};

/// Which stream becomes which table.
#[derive(Debug, Clone)]
pub struct TableRoute {
    /// The table's name in the topology.
    pub table: String,
    /// The stream (`from:`): a Kafka topic, or `<topic prefix>.<schema or database>.<table>`.
    pub stream: String,
    /// The key that the topology gives it; empty makes it append-only.
    pub key: Option<Vec<String>>,
    /// The hand-written contract.
    pub contract: Option<config::ContractFile>,
    /// What happens when the stream leaves the contract.
    pub on_mismatch: config::OnMismatch,
    /// Columns that the source need not have any more.
    pub gone: Vec<String>,
}

/// Decodes Debezium's JSON.
pub struct DebeziumJson {
    source: String,
    names: FlatNames,
    placeholder: Placeholder,
    tables: Vec<Table>,
    by_stream: HashMap<String, usize>,
    values: Blocks,
    keys: Blocks,
    /// The blocks that the last record had: the next one most likely has the same.
    hints: (usize, usize),
    partitions: HashMap<Partition, State>,
    /// The marks of the partition that is being decoded.
    marks: Marks,
}

/// What is kept of a partition between batches.
#[derive(Debug, Default)]
struct State {
    marks: Marks,
    held: Option<Held>,
}

/// What a record became.
enum Outcome {
    Row,
    /// The delete half of a move: part of another record's row.
    Merged,
    Redelivered,
    Control,
    Unrouted,
    Refused(Refusal),
}

/// Why a record is refused.
#[derive(Debug, Default)]
pub(super) struct Refusal {
    table: Option<usize>,
    pub(super) rule: &'static str,
    pub(super) reason: String,
    op: Option<Op>,
    time: Option<i64>,
    /// Whether a column lacks a value, which the message key may have.
    lacking: bool,
}

impl Refusal {
    pub(super) fn decode(reason: impl Into<String>) -> Self {
        Self { rule: "decode", reason: reason.into(), ..Self::default() }
    }

    pub(super) fn contract(reason: impl Into<String>) -> Self {
        Self { rule: "contract", reason: reason.into(), ..Self::default() }
    }

    pub(super) fn incomplete(reason: impl Into<String>) -> Self {
        Self { rule: "incomplete", reason: reason.into(), ..Self::default() }
    }
}

/// What holds for all records of a batch.
struct Context<'b> {
    partition: &'b Partition,
    generation: Generation,
    stream: Option<&'b str>,
    /// The table that reads the stream.
    table: Option<usize>,
}

impl Context<'_> {
    fn seq(&self, record: &RawRecord<'_>) -> Seq {
        Seq { generation: self.generation, major: record.offset(), minor: 0, ordinal: 0 }
    }
}

impl DebeziumJson {
    /// A decoder of the source `source` for the tables in `routes`.
    pub fn new(source: &str, settings: &config::Debezium, routes: Vec<TableRoute>) -> Result<Self> {
        let mut by_stream = HashMap::new();
        let mut tables = Vec::with_capacity(routes.len());
        for route in routes {
            if let Some(other) = by_stream.insert(route.stream.clone(), tables.len()) {
                let other: &Table = &tables[other];
                return Err(Error::new(
                    ErrorKind::Config,
                    format!(
                        "tables {} and {} both read the stream {} of source {source}",
                        other.route.table, route.table, route.stream
                    ),
                )
                .help("one stream becomes one table; remove one of them"));
            }
            tables.push(Table::new(route)?);
        }
        Ok(Self {
            source: source.to_owned(),
            names: FlatNames {
                prefix: settings.flattened_prefix.clone(),
                deleted: settings.flattened_deleted_field.clone(),
            },
            placeholder: Placeholder::new(&settings.unavailable_value_placeholder),
            tables,
            by_stream,
            values: Blocks::default(),
            keys: Blocks::default(),
            hints: (0, 0),
            partitions: HashMap::new(),
            marks: Marks::default(),
        })
    }

    /// What the log says of a partition, and what the others have shown.
    fn marks_at(&self, partition: &Partition, progress: &Progress) -> Marks {
        let own = progress.get(partition).and_then(|standing| standing.mark.as_deref()).and_then(Marks::from_text);
        let mut marks = own.unwrap_or_default();
        for state in self.partitions.iter().filter(|(other, _)| *other != partition).map(|(_, state)| state) {
            marks.inherit(&state.marks);
        }
        let others = progress.of_source(&partition.source).filter(|(other, _)| *other != partition);
        let others = others.filter_map(|(_, standing)| standing.mark.as_deref()).filter_map(Marks::from_text);
        others.for_each(|other| marks.inherit(&other));
        marks
    }

    fn context<'b>(&self, partition: &'b Partition, generation: Generation, stream: Option<&'b str>) -> Context<'b> {
        let table = stream.and_then(|stream| self.by_stream.get(stream)).copied();
        Context { partition, generation, stream, table }
    }

    /// Decodes records one after the other, halves of a move together; returns what must wait for the next batch.
    fn records(
        &mut self,
        context: &Context<'_>,
        records: &[RawRecord<'_>],
        batch: &mut ChangeBatch,
        raw: &RawBatch,
    ) -> Result<Option<Held>> {
        let mut at = 0;
        while let Some(record) = records.get(at) {
            if moves::is_delete_half(record) && self.is_half(context, record) {
                let tombstone = records.get(at + 1).filter(|next| moves::is_its_tombstone(record, next));
                let behind = at + 1 + usize::from(tombstone.is_some());
                let Some(create) = records.get(behind) else {
                    if raw.span.to.as_offset().is_some() {
                        return Ok(Some(Held::new(&records[at..], raw)));
                    }
                    at = self.one(context, records, at, batch)?;
                    continue;
                };
                if let Some(outcome) = self.move_row(context, record, create)? {
                    self.count(batch, context.seq(record), Outcome::Merged);
                    if let Some(tombstone) = tombstone {
                        self.count(batch, context.seq(tombstone), Outcome::Control);
                    }
                    self.count(batch, context.seq(create), outcome);
                    at = behind + 1;
                    continue;
                }
            }
            at = self.one(context, records, at, batch)?;
        }
        Ok(None)
    }

    fn one(
        &mut self,
        context: &Context<'_>,
        records: &[RawRecord<'_>],
        at: usize,
        batch: &mut ChangeBatch,
    ) -> Result<usize> {
        let outcome = self.record(context, &records[at])?;
        self.count(batch, context.seq(&records[at]), outcome);
        Ok(at + 1)
    }

    /// Gathers what one batch became.
    fn finish(&mut self, batch: &mut ChangeBatch) -> Result<()> {
        for table in &mut self.tables {
            table.close()?;
            batch.tables.append(&mut table.done);
        }
        debug_assert!(batch.account.balances(), "every record is accounted for: {:?}", batch.account);
        Ok(())
    }

    fn count(&self, batch: &mut ChangeBatch, seq: Seq, outcome: Outcome) {
        let account = &mut batch.account;
        account.read += 1;
        match outcome {
            Outcome::Row => account.rows += 1,
            Outcome::Merged => account.merged += 1,
            Outcome::Redelivered => account.redelivered += 1,
            Outcome::Control => account.control += 1,
            Outcome::Unrouted => account.unrouted += 1,
            Outcome::Refused(refusal) => {
                account.rejected += 1;
                batch.rejects.push(Reject {
                    table: refusal.table.map(|table| self.tables[table].route.table.clone()),
                    partition: batch.partition.clone(),
                    seq,
                    rule: refusal.rule.to_owned(),
                    reason: refusal.reason,
                    op: refusal.op,
                    key: None,
                    values: None,
                    source_time_us: refusal.time.unwrap_or(NO_TIME),
                });
            }
        }
    }
}

fn utf8(bytes: &[u8]) -> Option<&str> {
    simdutf8::basic::from_utf8(bytes).ok()
}

impl Decoder for DebeziumJson {
    fn decode(&mut self, raw: &RawBatch) -> Result<ChangeBatch> {
        let mut batch = ChangeBatch::begin(raw.partition.clone(), raw.generation, raw.span.clone());
        let mut state = self.partitions.remove(&raw.partition).unwrap_or_default();
        // A source that went back hands the kept records out again.
        state.held = state.held.filter(|held| held.until == raw.span.from);
        self.marks = state.marks;
        let mut context = self.context(&raw.partition, raw.generation, raw.stream.as_deref());
        let mut records: Vec<RawRecord<'_>> = Vec::with_capacity(raw.records.len() + 2);
        if let Some(held) = &state.held {
            let kept = held.records();
            batch.span.from = held.from();
            if held.generation == raw.generation {
                records.extend(kept.iter());
            } else {
                // Halves of different generations are not next to each other: the delete stands alone.
                context.generation = held.generation;
                for record in kept.iter() {
                    let outcome = self.record(&context, &record)?;
                    self.count(&mut batch, context.seq(&record), outcome);
                }
                context.generation = raw.generation;
            }
        }
        records.extend(raw.records.iter());
        let held = self.records(&context, &records, &mut batch, raw)?;
        if let Some(held) = &held {
            batch.span.to = held.from();
        }
        self.finish(&mut batch)?;
        batch.mark = self.marks.to_text();
        self.partitions.insert(raw.partition.clone(), State { marks: std::mem::take(&mut self.marks), held });
        Ok(batch)
    }

    fn flush(&mut self, partition: &Partition) -> Result<Option<ChangeBatch>> {
        let Some(state) = self.partitions.get_mut(partition) else { return Ok(None) };
        let Some(held) = state.held.take() else { return Ok(None) };
        self.marks = std::mem::take(&mut state.marks);
        let span = Span { from: held.from(), to: held.until.clone() };
        let mut batch = ChangeBatch::begin(partition.clone(), held.generation, span);
        let context = self.context(partition, held.generation, held.stream.as_deref());
        for record in held.records().iter() {
            let outcome = self.record(&context, &record)?;
            self.count(&mut batch, context.seq(&record), outcome);
        }
        self.finish(&mut batch)?;
        batch.mark = self.marks.to_text();
        self.partitions.insert(partition.clone(), State { marks: std::mem::take(&mut self.marks), held: None });
        Ok(Some(batch))
    }

    fn adopt(&mut self, contracts: &[Arc<Contract>]) -> Result<()> {
        for contract in contracts {
            if let Some(table) = self.tables.iter_mut().find(|t| t.route.table == contract.table) {
                table.adopt(contract).map_err(|e| e.doing(format!("source {}", self.source)))?;
            }
        }
        Ok(())
    }

    fn reset(&mut self, partition: &Partition, progress: &Progress) {
        let marks = self.marks_at(partition, progress);
        self.partitions.insert(partition.clone(), State { marks, held: None });
    }

    fn revisit(&mut self, partition: &Partition, progress: &Progress) {
        let marks = self.marks_at(partition, progress).without_delivered();
        self.partitions.insert(partition.clone(), State { marks, held: None });
    }
}
