//! One event becomes one row of its table, or a refusal.

use super::block::Blocks;
use super::envelope::{self, Handled, Payload, Source};
use super::key::MessageKey;
use super::moves;
use super::redelivery::{self, Identity};
use super::row::{Layout, Reading, RowError};
use super::rows::Rows;
use super::schema::{Described, WireColumn};
use super::table::Table;
use super::write::{fill, refusal, write_refused, write_row};
use super::{Context, DebeziumJson, Outcome, Refusal};
use crate::batch::{NO_TIME, Op, RawRecord, Seq};
use crate::error::Result;

/// An event with everything that its row is made of.
#[derive(Clone, Copy)]
pub(super) struct Event<'a> {
    pub op: Op,
    /// Whether the event said `op`; a flattened row need not.
    pub said: bool,
    /// The row after the change; for a delete what may hold the key.
    pub row: Option<&'a str>,
    pub flat: bool,
    pub seq: Seq,
    pub time: i64,
    pub key: MessageKey<'a>,
    /// For a move: the key that the row had.
    pub old_key: Option<MessageKey<'a>>,
    pub block: Option<usize>,
    /// What re-delivery is recognised by: `source`, when the connector handled the event, its transaction.
    pub source: Option<&'a str>,
    pub handled: Handled<'a>,
    pub transaction: Option<&'a str>,
}

impl<'a> Event<'a> {
    fn new(op: Op, row: Option<&'a str>, flat: bool, time: i64) -> Self {
        Self {
            op,
            said: true,
            row,
            flat,
            seq: Seq::default(),
            time,
            key: MessageKey::Absent,
            old_key: None,
            block: None,
            source: None,
            handled: Handled::default(),
            transaction: None,
        }
    }
}

impl DebeziumJson {
    /// Makes a row of an event of `table`.
    pub(super) fn change(
        &mut self,
        context: &Context<'_>,
        record: &RawRecord<'_>,
        table: usize,
        payload: &Payload<'_>,
        block: Option<usize>,
    ) -> Result<Outcome> {
        let event = match event(payload) {
            Ok(event) => event,
            Err(refusal) => return Ok(Outcome::Refused(Refusal { table: Some(table), ..refusal })),
        };
        self.tables[table].flattened = Some(event.flat);
        let event = Event { seq: context.seq(record), block, ..event };
        let state = &self.tables[table];
        let written = state.fixed_key.as_ref().is_some_and(|key| !key.is_empty());
        if written && state.contract.is_some() && event.op != Op::Delete {
            // The row has its key; the message key is read only when it does not.
            let outcome = self.apply(context, table, &event)?;
            if !matches!(&outcome, Outcome::Refused(refusal) if refusal.lacking) {
                return Ok(outcome);
            }
        }
        let key = self.key(record);
        self.apply(context, table, &Event { key, ..event })
    }

    /// A delete that is nothing but a key.
    pub(super) fn delete_by_key(&mut self, context: &Context<'_>, record: &RawRecord<'_>) -> Result<Outcome> {
        let table = match context.stream.map(|_| context.table) {
            Some(Some(table)) => table,
            Some(None) => return Ok(Outcome::Unrouted),
            None if self.tables.len() == 1 => 0,
            None => {
                return Ok(Outcome::Refused(Refusal::decode(
                    "a flattened delete does not name its table; give the source a `stream:`, or let the connector send \
                     deletes as rows (`delete.tombstone.handling.mode=rewrite`)",
                )));
            }
        };
        let key = self.key(record);
        let seq = context.seq(record);
        let event = Event { seq, key, ..Event::new(Op::Delete, None, true, NO_TIME) };
        self.apply(context, table, &event)
    }

    pub(super) fn apply(&mut self, context: &Context<'_>, table: usize, event: &Event<'_>) -> Result<Outcome> {
        match self.try_apply(context, table, event)? {
            Ok(outcome) => Ok(outcome),
            Err(refusal) => {
                let (op, time) = (Some(event.op), Some(event.time));
                Ok(Outcome::Refused(Refusal { table: Some(table), op, time, ..refusal }))
            }
        }
    }

    fn try_apply(
        &mut self,
        context: &Context<'_>,
        table: usize,
        event: &Event<'_>,
    ) -> Result<std::result::Result<Outcome, Refusal>> {
        if event.op != Op::Truncate
            && let Err(refusal) = self.agree(table, event)?
        {
            return Ok(Err(refusal));
        }
        let mut event = event;
        let added;
        if !event.said && self.tables[table].key().is_empty() {
            added = Event { op: Op::Create, ..*event };
            event = &added;
        }
        if self.is_repeat(table, event) {
            return Ok(Ok(Outcome::Redelivered));
        }
        if event.op == Op::Truncate {
            return Ok(Ok(self.truncate(context, table, event)));
        }
        let state = &self.tables[table];
        if !matches!(event.op, Op::Create | Op::Read) && state.contract.is_some() && state.key().is_empty() {
            return Ok(Err(Refusal::decode(
                "the table has no key, so a row can only be added; give the table a `key:` in the topology, or the \
                 source table a primary key",
            )));
        }
        match self.read_widening(context, table, event)? {
            Ok(()) => Ok(Ok(Outcome::Row)),
            Err(RowError::Learn) if self.has_layout(table, event) => {
                Ok(Err(Refusal::decode("the row has a field that its schema block does not describe")))
            }
            Err(RowError::Learn) => self.relearn(context, table, event),
            Err(error) => Ok(Err(refusal(error))),
        }
    }

    /// Whether an event of a table without a key was delivered before.
    fn is_repeat(&mut self, table: usize, event: &Event<'_>) -> bool {
        let state = &self.tables[table];
        if state.contract.is_none() || !state.key().is_empty() || !matches!(event.op, Op::Create | Op::Truncate) {
            return false;
        }
        let source = event.source.and_then(Source::read);
        let Some((position, shared)) = source.as_ref().and_then(redelivery::position) else { return false };
        let transaction = event.transaction.unwrap_or_default();
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        hash.update(event.op.letter().as_bytes());
        hash.update(event.row.unwrap_or_default().as_bytes());
        hash.update(transaction.as_bytes());
        let (time, handled_ns) = (event.time, event.handled.nanos());
        let identity = Identity { position, shared, time, hash: hash.digest(), handled_ns };
        self.marks.is_repeat(&state.route.table, &identity)
    }

    /// Whether a record with the header of a delete half is one: an enveloped delete of a table that may have a key.
    pub(super) fn is_half(&mut self, context: &Context<'_>, record: &RawRecord<'_>) -> bool {
        let Ok(Some((payload @ Payload::Envelope(envelope), _))) = self.open(record) else { return false };
        let routed = envelope.op.eq_ignore_ascii_case("d").then(|| self.route(context, &payload));
        let Some(Ok(Some(table))) = routed else { return false };
        self.tables[table].contract.is_none() || !self.tables[table].key().is_empty()
    }

    /// Makes one row of both halves of a move; `None` when they do not belong together or make no row.
    pub(super) fn move_row(
        &mut self,
        context: &Context<'_>,
        delete: &RawRecord<'_>,
        create: &RawRecord<'_>,
    ) -> Result<Option<Outcome>> {
        let Ok(Some((Payload::Envelope(old), _))) = self.open(delete) else { return Ok(None) };
        let Ok(Some((payload @ Payload::Envelope(new), block))) = self.open(create) else { return Ok(None) };
        let table = match self.route(context, &payload) {
            Ok(Some(table)) if new.op.eq_ignore_ascii_case("c") => table,
            _ => return Ok(None),
        };
        let same = matches!(self.route(context, &Payload::Envelope(old)), Ok(Some(of)) if of == table);
        if !same || !moves::belong_together(delete, create, (old.source, new.source)) {
            return Ok(None);
        }
        let Ok(event) = event(&payload) else { return Ok(None) };
        let old_key = Some(self.key(delete));
        let key = self.key(create);
        let event = Event { op: Op::Move, seq: context.seq(create), key, old_key, block, ..event };
        self.tables[table].flattened = Some(false);
        match self.try_apply(context, table, &event)? {
            Ok(outcome) => Ok(Some(outcome)),
            // Then the delete stands alone, and the create is refused on its own.
            Err(_) => Ok(None),
        }
    }

    /// Leaves a [`Op::Refused`] under the key of a refused record of `table`. Nothing when the key cannot be read either,
    /// or when nothing is known of the table yet: then no partial row can have a base.
    #[cold]
    pub(super) fn mark_refused(&mut self, context: &Context<'_>, record: &RawRecord<'_>, table: usize) {
        if self.tables[table].key().is_empty() {
            return;
        }
        let opened = self.open(record).ok().flatten();
        let said = opened.as_ref().and_then(|(payload, _)| event(payload).ok());
        let block = opened.as_ref().and_then(|(_, block)| *block);
        let (key, seq) = (self.key(record), context.seq(record));
        let (row, time) = (said.and_then(|event| event.row), said.map_or(NO_TIME, |event| event.time));
        let event = Event { seq, key, block, ..Event::new(Op::Refused, row, false, time) };
        let wires = key.wires(&self.keys);
        if let Some((layout, rows)) = parts(&self.values, &mut self.tables[table], table, &event, context) {
            write_refused(layout, rows, &event, wires);
        }
    }

    fn truncate(&mut self, context: &Context<'_>, table: usize, event: &Event<'_>) -> Outcome {
        // A table that nothing is known of holds nothing that could be emptied.
        let Some(rows) = self.tables[table].open(context.partition) else { return Outcome::Control };
        fill(rows, false);
        rows.finish_row(Op::Truncate, event.seq, event.time);
        Outcome::Row
    }

    /// Makes sure that the table has a contract that knows the event's schema block and key.
    fn agree(&mut self, table: usize, event: &Event<'_>) -> Result<std::result::Result<(), Refusal>> {
        let state = &mut self.tables[table];
        if state.contract.is_none() && state.fixed_key.is_none() && matches!(event.key, MessageKey::Unreadable) {
            return Ok(Err(Refusal::decode(
                "the message key is not a JSON object, so it does not name the key columns; give the table a `key:` \
                 in the topology",
            )));
        }
        let known = state.contract.is_some() && state.fixed_key.is_none();
        if known && matches!(event.key, MessageKey::Fields { .. }) && !event.key.is_of(state.key()) {
            return Ok(Err(Refusal::contract(format!(
                "the message key has the columns ({}) and the table's key is ({}); if the source's primary key has \
                 changed, start the table anew under another name, or fix its `key:` in the topology",
                event.key.names().join(", "),
                state.key().join(", ")
            ))));
        }
        if let Some(block) = event.block {
            let block = self.values.get_mut(block);
            let wires = match (&block.described, event.flat) {
                (Described::Envelope(wires), false) | (Described::Row(wires), true) => wires,
                (Described::Nothing, _) => return self.agree_plain(table, event),
                _ => {
                    return Ok(Err(Refusal::decode(
                        "the schema block describes something else than the payload holds",
                    )));
                }
            };
            let current = block.layout.as_ref().is_some_and(|(of, epoch, _)| *of == table && *epoch == state.epoch);
            if !current {
                let names = &self.names;
                let wires: Vec<WireColumn> =
                    wires.iter().filter(|w| !(event.flat && names.is_meta(&w.name))).cloned().collect();
                match state.learn_block(&wires, &event.key.names(), event.key.wires(&self.keys))? {
                    Ok(layout) => block.layout = Some((table, state.epoch, layout)),
                    Err(why) => return Ok(Err(Refusal::contract(why))),
                }
            }
            return Ok(Ok(()));
        }
        self.agree_plain(table, event)
    }

    fn agree_plain(&mut self, table: usize, event: &Event<'_>) -> Result<std::result::Result<(), Refusal>> {
        if self.tables[table].contract.is_some() {
            return Ok(Ok(()));
        }
        self.learn_plain(table, event)
    }

    fn learn_plain(&mut self, table: usize, event: &Event<'_>) -> Result<std::result::Result<(), Refusal>> {
        let flat = event.flat.then_some(&self.names);
        // Of a delete only the key is certain.
        let row = event.row.filter(|_| event.op != Op::Delete || matches!(event.key, MessageKey::Absent));
        let learned = self.tables[table].learn_row(row.unwrap_or("{}"), flat, &event.key.names(), event.key.text())?;
        Ok(learned.map_err(Refusal::contract))
    }

    fn relearn(
        &mut self,
        context: &Context<'_>,
        table: usize,
        event: &Event<'_>,
    ) -> Result<std::result::Result<Outcome, Refusal>> {
        if let Err(refusal) = self.learn_plain(table, event)? {
            return Ok(Err(refusal));
        }
        match self.read_widening(context, table, event)? {
            Ok(()) => Ok(Ok(Outcome::Row)),
            Err(error) => Ok(Err(refusal(error))),
        }
    }

    /// Reads the event's row; columns that are too narrow for its values become wider.
    fn read_widening(
        &mut self,
        context: &Context<'_>,
        table: usize,
        event: &Event<'_>,
    ) -> Result<std::result::Result<(), RowError>> {
        let mut read = self.read_row(context, table, event);
        while read.is_err() && self.widened(table)? {
            // What its block and key say was agreed on before, and a wider column takes all of it.
            let _agreed = self.agree(table, event)?;
            read = self.read_row(context, table, event);
        }
        Ok(read)
    }

    /// Makes the column wider that was too narrow for the row that was read last, if there is one.
    fn widened(&mut self, table: usize) -> Result<bool> {
        let state = &mut self.tables[table];
        let Some((column, wider)) = state.rows.as_mut().and_then(Rows::take_narrow) else { return Ok(false) };
        state.widen(column, wider)?;
        Ok(true)
    }

    fn has_layout(&self, table: usize, event: &Event<'_>) -> bool {
        let layout = |block| self.values.get(block).layout.as_ref();
        event.block.and_then(layout).is_some_and(|(of, ..)| *of == table)
    }

    /// Reads the event's row into the builders; an abandoned row when it fails.
    fn read_row(
        &mut self,
        context: &Context<'_>,
        table: usize,
        event: &Event<'_>,
    ) -> std::result::Result<(), RowError> {
        let how = Reading {
            placeholder: &self.placeholder,
            flat: event.flat.then_some(&self.names),
            learn: self.tables[table].learns(),
            ignore: self.tables[table].ignores(),
        };
        let state = &mut self.tables[table];
        let (layout, rows) = parts(&self.values, state, table, event, context).ok_or(RowError::Malformed)?;
        let wires = event.key.wires(&self.keys);
        let done = write_row(layout, rows, event, how, wires, &mut self.marks);
        if done.is_err() {
            rows.abandon();
        }
        done
    }
}

/// How the event's row is read, and what into.
#[inline]
fn parts<'t>(
    blocks: &'t Blocks,
    state: &'t mut Table,
    table: usize,
    event: &Event<'_>,
    context: &Context<'_>,
) -> Option<(&'t Layout, &'t mut Rows)> {
    let described = event.block.and_then(|block| {
        let block = blocks.get(block);
        block.layout.as_ref().filter(|(of, ..)| *of == table).map(|(.., layout)| layout)
    });
    match described {
        Some(layout) => Some((layout, state.open(context.partition)?)),
        None => state.plain_parts(context.partition),
    }
}

fn event<'a>(payload: &Payload<'a>) -> std::result::Result<Event<'a>, Refusal> {
    let (op, row, time, flat) = match payload {
        Payload::Envelope(e) => {
            let time = e.source.map_or(NO_TIME, envelope::source_time);
            let op = op_of(e.op)?;
            let row = if op == Op::Delete { e.before } else { e.after };
            (op, row, time, false)
        }
        Payload::Flat(f) => {
            let op = if f.deleted { Op::Delete } else { f.op.map_or(Ok(Op::Update), op_of)? };
            (op, Some(f.row), f.time_us.unwrap_or(NO_TIME), true)
        }
        Payload::Null | Payload::Control => return Err(Refusal::decode("the value holds no change")),
    };
    if row.is_none() && !matches!(op, Op::Delete | Op::Truncate) {
        return Err(Refusal { op: Some(op), time: Some(time), ..Refusal::decode("the event has no `after`") });
    }
    let event = Event::new(op, row, flat, time);
    Ok(match payload {
        Payload::Envelope(e) => Event { source: e.source, handled: e.handled, transaction: e.transaction, ..event },
        Payload::Flat(f) => Event { said: f.deleted || f.op.is_some(), ..event },
        Payload::Null | Payload::Control => event,
    })
}

fn op_of(code: &str) -> std::result::Result<Op, Refusal> {
    match code {
        "r" | "R" => Ok(Op::Read),
        "c" | "C" => Ok(Op::Create),
        "u" | "U" => Ok(Op::Update),
        "d" | "D" => Ok(Op::Delete),
        "t" | "T" => Ok(Op::Truncate),
        _ => Err(Refusal::decode("the operation `op` is none of r, c, u, d, t, m")),
    }
}
