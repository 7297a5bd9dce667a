//! Debezium's JSON: envelopes with or without the schema block, mixed in one topic, or flattened.
//!
//! | file | what it owns |
//! |---|---|
//! | `scan.rs` | finding where JSON values end |
//! | `block.rs`, `schema.rs`, `wire.rs` | schema blocks: recognised by their bytes, read once into columns |
//! | `envelope.rs` | what a value is, and its parts |
//! | `key.rs` | message keys |
//! | `row.rs`, `rows.rs`, `builder.rs`, `value.rs`, `time.rs` | rows: from text straight into Arrow builders |
//! | `placeholder.rs`, `md5.rs` | the shapes of the unavailable-value placeholder |
//! | `table.rs` | what is known of a table, and how it is learned |
//! | `change.rs` | one event becomes one row, or a refusal |
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
mod builder;
mod change;
mod envelope;
mod key;
mod md5;
mod placeholder;
mod row;
mod rows;
mod scan;
mod schema;
mod table;
mod time;
mod value;
mod wire;

use std::collections::HashMap;
use std::sync::Arc;

use self::block::Blocks;
use self::envelope::{FlatNames, Payload};
use self::key::MessageKey;
use self::placeholder::Placeholder;
use self::table::Table;
use super::Decoder;
use crate::batch::{ChangeBatch, NO_TIME, Op, RawBatch, RawRecord, RecordAccount, Reject, Seq};
use crate::config;
use crate::contract::Contract;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::{Generation, Partition};

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
}

/// What a record became.
enum Outcome {
    Row,
    Control,
    Unrouted,
    Refused(Refusal),
}

/// Why a record is refused.
#[derive(Debug, Default)]
struct Refusal {
    table: Option<usize>,
    rule: &'static str,
    reason: String,
    op: Option<Op>,
    time: Option<i64>,
}

impl Refusal {
    fn decode(reason: impl Into<String>) -> Self {
        Self { rule: "decode", reason: reason.into(), ..Self::default() }
    }

    fn contract(reason: impl Into<String>) -> Self {
        Self { rule: "contract", reason: reason.into(), ..Self::default() }
    }

    fn incomplete(reason: impl Into<String>) -> Self {
        Self { rule: "incomplete", reason: reason.into(), ..Self::default() }
    }
}

/// What holds for all records of a batch.
struct Context<'b> {
    partition: &'b Partition,
    generation: Generation,
    stream: Option<&'b str>,
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
        })
    }

    /// Decodes one record into the table that it belongs to.
    fn record(&mut self, context: &Context<'_>, record: &RawRecord<'_>) -> Result<Outcome> {
        let value = match record.value() {
            None | Some([]) => return self.tombstone(context, record),
            Some(value) => value,
        };
        let found = match self.values.find(value, self.hints.0) {
            Some(found) => Some((found, utf8(&value[found.payload..]))),
            None => match utf8(value) {
                Some(text) => self.values.learn(text).map(|found| (found, text.get(found.payload..))),
                None => None,
            },
        };
        let (block, text, whole) = match found {
            Some((found, Some(text))) => (Some(found), text, found.whole),
            _ => match utf8(value) {
                Some(text) => (None, text, false),
                None => return Ok(self.refuse(context, Refusal::decode("the value is not UTF-8"))),
            },
        };
        let mut cursor = scan::Cursor::new(text);
        let payload = envelope::payload(&mut cursor, &self.names);
        let ended = whole || ((block.is_none() || cursor.take(b'}')) && cursor.ended());
        let Some(payload) = payload.filter(|_| ended) else {
            return Ok(self.refuse(
                context,
                Refusal::decode(
                    "the value is not one JSON object; the topic holds something else than Debezium's JSON, or the \
                     message was cut",
                ),
            ));
        };
        self.hints.0 = block.map_or(self.hints.0, |b| b.block);
        self.payload(context, record, payload, block.map(|b| b.block))
    }

    fn payload(
        &mut self,
        context: &Context<'_>,
        record: &RawRecord<'_>,
        payload: Payload<'_>,
        block: Option<usize>,
    ) -> Result<Outcome> {
        let described = block.map(|block| self.values.described(block));
        match (&payload, described) {
            (_, Some(schema::Described::Control)) => Ok(self.control(context)),
            (Payload::Null, None | Some(schema::Described::Nothing)) => self.tombstone(context, record),
            (Payload::Null, Some(schema::Described::Envelope(_))) => Ok(self.control(context)),
            (Payload::Null, Some(schema::Described::Row(_))) => self.delete_by_key(context, record),
            (Payload::Control, _) => Ok(self.control(context)),
            (Payload::Envelope(envelope), _) if envelope.op.eq_ignore_ascii_case("m") => Ok(Outcome::Control),
            (Payload::Envelope(_) | Payload::Flat(_), _) => {
                let table = match self.route(context, &payload) {
                    Ok(Some(table)) => table,
                    Ok(None) => return Ok(Outcome::Unrouted),
                    Err(refusal) => return Ok(Outcome::Refused(refusal)),
                };
                self.change(context, record, table, &payload, block)
            }
        }
    }

    /// Metadata events are control wherever they come from, but an unknown shape on a routed stream is a row.
    fn control(&self, _context: &Context<'_>) -> Outcome {
        Outcome::Control
    }

    fn refuse(&self, context: &Context<'_>, mut refusal: Refusal) -> Outcome {
        match context.stream.map(|stream| self.by_stream.get(stream)) {
            // Nobody reads that stream, so nobody misses the record.
            Some(None) => return Outcome::Unrouted,
            Some(Some(table)) => refusal.table = refusal.table.or(Some(*table)),
            None => {}
        }
        Outcome::Refused(refusal)
    }

    /// The table of an event; `Ok(None)` when none reads its stream.
    fn route(&self, context: &Context<'_>, payload: &Payload<'_>) -> std::result::Result<Option<usize>, Refusal> {
        if let Some(stream) = context.stream {
            return Ok(self.by_stream.get(stream).copied());
        }
        match payload {
            Payload::Envelope(envelope) => {
                let stream = envelope.source.and_then(envelope::Source::read).and_then(|source| source.stream());
                let stream = stream.ok_or_else(|| {
                    Refusal::decode("the event does not name its table in `source`; give the source a `stream:`")
                })?;
                Ok(self.by_stream.get(stream.as_str()).copied())
            }
            Payload::Flat(flat) => self.route_flat(flat),
            Payload::Null | Payload::Control => Ok(None),
        }
    }

    /// A flattened row names its table at most by its last part.
    fn route_flat(&self, flat: &envelope::Flat<'_>) -> std::result::Result<Option<usize>, Refusal> {
        if let ([_], None) = (self.tables.as_slice(), flat.table) {
            return Ok(Some(0));
        }
        let Some(table) = flat.table else {
            return Err(Refusal::decode(
                "a flattened row does not name its stream; give the source a `stream:`, or let the connector add it \
                 (`add.fields=table`)",
            ));
        };
        let space = flat.schema.or(flat.db);
        let is = |stream: &str| {
            let mut parts = stream.rsplit('.');
            parts.next() == Some(table) && space.is_none_or(|space| parts.next() == Some(space))
        };
        let mut matching = self.tables.iter().enumerate().filter(|(_, t)| is(&t.route.stream)).map(|(index, _)| index);
        match (matching.next(), matching.next()) {
            (Some(_), Some(_)) => Err(Refusal::decode(
                "a flattened row names its table only by the last part, and several streams end with it; give the \
                 source a `stream:`",
            )),
            (found, _) => Ok(found),
        }
    }

    fn tombstone(&mut self, context: &Context<'_>, record: &RawRecord<'_>) -> Result<Outcome> {
        let table = match context.stream.map(|stream| self.by_stream.get(stream)) {
            Some(Some(table)) => *table,
            Some(None) => return Ok(Outcome::Unrouted),
            // Nothing says which table it belongs to; behind an enveloped delete it says nothing new.
            None => return Ok(Outcome::Control),
        };
        let no_key = record.key().is_none_or(<[u8]>::is_empty);
        let state = &self.tables[table];
        let append_only = state.contract.is_some() && state.key().is_empty();
        if state.flattened == Some(false) || no_key || append_only {
            return Ok(Outcome::Control);
        }
        self.delete_by_key(context, record)
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
        let mut batch = ChangeBatch {
            partition: raw.partition.clone(),
            generation: raw.generation,
            span: raw.span.clone(),
            tables: Vec::new(),
            rejects: Vec::new(),
            account: RecordAccount::default(),
            mark: None,
        };
        let context =
            Context { partition: &raw.partition, generation: raw.generation, stream: raw.stream.as_deref() };
        for record in raw.records.iter() {
            let outcome = self.record(&context, &record)?;
            self.count(&mut batch, context.seq(&record), outcome);
        }
        self.finish(&mut batch)?;
        Ok(batch)
    }

    fn flush(&mut self, _partition: &Partition) -> Result<Option<ChangeBatch>> {
        Ok(None)
    }

    fn adopt(&mut self, contracts: &[Arc<Contract>]) -> Result<()> {
        for contract in contracts {
            if let Some(table) = self.tables.iter_mut().find(|t| t.route.table == contract.table) {
                table.adopt(contract).map_err(|e| e.doing(format!("source {}", self.source)))?;
            }
        }
        Ok(())
    }

    fn reset(&mut self, _partition: &Partition, _mark: Option<&str>) {}
}
