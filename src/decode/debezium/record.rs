//! One record: opened, named, and sent to its table.

use super::envelope::{self, Payload};
use super::key::MessageKey;
use super::schema::Described;
use super::{Context, DebeziumJson, Outcome, Refusal, scan, utf8};
use crate::batch::{Op, RawRecord};
use crate::error::Result;

impl DebeziumJson {
    /// Decodes one record into the table that it belongs to. One that is refused leaves a mark under its key, so that
    /// no later partial row stands on the version before it.
    pub(super) fn record(&mut self, context: &Context<'_>, record: &RawRecord<'_>) -> Result<Outcome> {
        let outcome = match self.open(record) {
            Ok(None) => self.tombstone(context, record),
            Ok(Some((payload, block))) => self.payload(context, record, payload, block),
            Err(refusal) => Ok(self.refuse(context, refusal)),
        };
        if let Ok(Outcome::Refused(Refusal { table: Some(table), op, .. })) = &outcome
            && *op != Some(Op::Truncate)
        {
            self.mark_refused(context, record, *table);
        }
        outcome
    }

    /// Reads a record's value as far as its parts; `None` when it has no value.
    pub(super) fn open<'r>(
        &mut self,
        record: &RawRecord<'r>,
    ) -> std::result::Result<Option<(Payload<'r>, Option<usize>)>, Refusal> {
        let Some(value) = record.value().filter(|value| !value.is_empty()) else { return Ok(None) };
        let not_text = || Refusal::decode("the value is not UTF-8");
        let (found, text) = match self.values.find(value, self.hints.0) {
            // The bytes of the schema block were checked when it was first seen.
            Some(found) => (Some(found), utf8(&value[found.payload..]).ok_or_else(not_text)?),
            None => {
                let text = utf8(value).ok_or_else(not_text)?;
                let found = self.values.learn(text);
                (found, text.get(found.map_or(0, |found| found.payload)..).unwrap_or_default())
            }
        };
        let mut cursor = scan::Cursor::new(text);
        let payload = envelope::payload(&mut cursor, &self.names);
        let ended = match found {
            Some(found) => found.whole || (cursor.take(b'}') && cursor.ended()),
            None => cursor.ended(),
        };
        let payload = payload.filter(|_| ended).ok_or_else(|| {
            Refusal::decode(
                "the value is not one JSON object; the topic holds something else than Debezium's JSON, or the message \
                 was cut",
            )
        })?;
        let block = found.and_then(|found| found.block);
        self.hints.0 = block.unwrap_or(self.hints.0);
        Ok(Some((payload, block)))
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
            (_, Some(Described::Control)) => Ok(Outcome::Control),
            (Payload::Null, None | Some(Described::Nothing)) => self.tombstone(context, record),
            (Payload::Null, Some(Described::Envelope(_))) => Ok(Outcome::Control),
            (Payload::Null, Some(Described::Row(_))) => self.delete_by_key(context, record),
            (Payload::Control, _) => Ok(Outcome::Control),
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

    fn refuse(&self, context: &Context<'_>, mut refusal: Refusal) -> Outcome {
        match context.stream.map(|_| context.table) {
            // Nobody reads that stream, so nobody misses the record.
            Some(None) => return Outcome::Unrouted,
            Some(Some(table)) => refusal.table = refusal.table.or(Some(table)),
            None => {}
        }
        Outcome::Refused(refusal)
    }

    /// The table of an event; `Ok(None)` when none reads its stream.
    pub(super) fn route(
        &self,
        context: &Context<'_>,
        payload: &Payload<'_>,
    ) -> std::result::Result<Option<usize>, Refusal> {
        if context.stream.is_some() {
            return Ok(context.table);
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
        let table = match context.stream.map(|_| context.table) {
            Some(Some(table)) => table,
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
        if state.flattened.is_none() && !matches!(self.key(record), MessageKey::Fields { .. }) {
            return Ok(Outcome::Control);
        }
        self.delete_by_key(context, record)
    }

    pub(super) fn key<'r>(&mut self, record: &RawRecord<'r>) -> MessageKey<'r> {
        MessageKey::read(record.key(), &mut self.keys, &mut self.hints.1)
    }
}
