//! Key updates. Debezium sends an update that changes the key as a delete of the old key (header `__debezium.newkey`), a
//! tombstone, and a create of the new one (header `__debezium.oldkey`). Next to each other in one partition they become
//! one `Move`, so that columns that the create leaves unchanged find their values under the old key.
//!
//! | the delete half | what follows | becomes |
//! |---|---|---|
//! | here | its create | one move; the delete is counted as merged, the tombstone as control |
//! | here | something else | a delete alone: the create went to another partition |
//! | here | the end of the batch | kept back for the next batch, or for `flush` |
//! | not here | a create that is whole | a create |
//! | not here | a create that leaves columns unchanged | refused as `incomplete` |
//!
//! Two halves belong together when each one's header is the other one's key. Headers that are not JSON (other header
//! converters) cannot say so; then the halves must come from the same source position.

use std::sync::Arc;

use super::envelope::Source;
use super::scan::{Cursor, Token, fields};
use super::utf8;
use crate::batch::{RawBatch, RawRecord, RawRecords};
use crate::progress::{Generation, Position};

pub(super) const NEW_KEY: &str = "__debezium.newkey";
pub(super) const OLD_KEY: &str = "__debezium.oldkey";

/// What is kept back of a partition: a delete half, and its tombstone if that was read.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub generation: Generation,
    pub stream: Option<Arc<str>>,
    /// Where the batch that they stood in ended.
    pub until: Position,
    records: RawRecords,
}

impl Held {
    pub fn new(records: &[RawRecord<'_>], raw: &RawBatch) -> Self {
        let mut kept = RawRecords::default();
        for record in records {
            kept.push(record.offset(), record.timestamp_us(), record.key(), record.value());
            for (name, value) in record.headers() {
                kept.push_header(&String::from_utf8_lossy(name), value);
            }
        }
        let (generation, stream, until) = (raw.generation, raw.stream.clone(), raw.span.to.clone());
        Self { generation, stream, until, records: kept }
    }

    pub fn records(&self) -> &RawRecords {
        &self.records
    }

    /// Where the next batch of the partition begins.
    pub fn from(&self) -> Position {
        self.records.get(0).map_or_else(|| self.until.clone(), |first| Position::offset(first.offset()))
    }
}

/// Whether the record is the delete half of a key update.
pub(super) fn is_delete_half(record: &RawRecord<'_>) -> bool {
    record.header(NEW_KEY).is_some()
}

/// Whether the record is the tombstone of that delete.
pub(super) fn is_its_tombstone(delete: &RawRecord<'_>, record: &RawRecord<'_>) -> bool {
    record.value().is_none_or(|value| value.is_empty() || value == b"null") && record.key() == delete.key()
}

/// Whether `create` is the other half of `delete`.
pub(super) fn belong_together(
    delete: &RawRecord<'_>,
    create: &RawRecord<'_>,
    sources: (Option<&str>, Option<&str>),
) -> bool {
    let (Some(old), Some(new)) = (create.header(OLD_KEY), delete.header(NEW_KEY)) else { return false };
    let object = |bytes: Option<&[u8]>| bytes.and_then(utf8).and_then(fields_text).map(str::to_owned);
    match (object(Some(old)), object(Some(new))) {
        (Some(old), Some(new)) => Some(old) == object(delete.key()) && Some(new) == object(create.key()),
        _ => {
            let place = |raw: Option<&str>| {
                let source = Source::read(raw?)?;
                source
                    .lsn
                    .map(|lsn| (String::new(), lsn, 0))
                    .or_else(|| Some((source.file?.to_owned(), source.pos?, source.row.unwrap_or(0))))
            };
            place(sources.0).is_some_and(|at| place(sources.1) == Some(at))
        }
    }
}

/// The key's object without its schema block.
fn fields_text(text: &str) -> Option<&str> {
    let mut cursor = Cursor::new(text);
    let Some(Token::Object(whole)) = cursor.value() else { return None };
    let (mut payload, mut others) = (None, false);
    fields(whole, |name, token| match (name.raw, token) {
        ("payload", Token::Object(object)) => payload = Some(object),
        ("schema", _) => {}
        _ => others = true,
    })?;
    Some(payload.filter(|_| !others).unwrap_or(whole))
}
