//! What a record's value is: an envelope, a flattened row, a tombstone, or none of a table's changes.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::scan::{Cursor, Text, Token, fields};
use super::value::integer;
use crate::batch::NO_TIME;

/// The value under its schema block, or alone.
#[derive(Debug, Clone, Copy)]
pub(super) enum Payload<'a> {
    Null,
    Envelope(Envelope<'a>),
    Flat(Flat<'a>),
    /// A heartbeat, a transaction's border, a schema change.
    Control,
}

/// An envelope, its parts still text.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Envelope<'a> {
    pub op: &'a str,
    pub before: Option<&'a str>,
    pub after: Option<&'a str>,
    pub source: Option<&'a str>,
    pub handled: Handled<'a>,
    /// The transaction block: part of what tells two equal rows apart.
    pub transaction: Option<&'a str>,
}

/// When the connector handled an event: numbers that are read only when they are needed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Handled<'a> {
    ms: Option<&'a str>,
    us: Option<&'a str>,
    ns: Option<&'a str>,
}

impl Handled<'_> {
    fn any(&self) -> bool {
        self.ms.or(self.us).or(self.ns).is_some()
    }

    /// In nanoseconds, from the finest unit that is there; only good for comparing for equality and order.
    pub fn nanos(&self) -> Option<i64> {
        let in_nanos = |(text, factor): (Option<&str>, i64)| integer(text?).ok()?.checked_mul(factor);
        [(self.ms, 1_000_000), (self.us, 1_000), (self.ns, 1)].into_iter().filter_map(in_nanos).max()
    }
}

/// A flattened row with its metadata.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Flat<'a> {
    pub row: &'a str,
    pub op: Option<&'a str>,
    pub deleted: bool,
    pub time_us: Option<i64>,
    pub schema: Option<&'a str>,
    pub db: Option<&'a str>,
    pub table: Option<&'a str>,
}

/// How the metadata of flattened rows is named.
#[derive(Debug, Clone)]
pub(super) struct FlatNames {
    pub prefix: String,
    pub deleted: String,
}

impl FlatNames {
    /// Whether a field of a flattened row is metadata: everything with the prefix is.
    pub fn is_meta(&self, name: &str) -> bool {
        name == self.deleted || (!self.prefix.is_empty() && name.starts_with(&self.prefix))
    }
}

/// Reads the value at the cursor and leaves the cursor behind it. `None` when it is not an object or null.
pub(super) fn payload<'a>(cursor: &mut Cursor<'a>, names: &FlatNames) -> Option<Payload<'a>> {
    if cursor.peek()? == b'n' {
        return cursor.take_literal("null").then_some(Payload::Null);
    }
    let from = cursor.place();
    if !cursor.take(b'{') {
        return None;
    }
    let mut split = Split::default();
    if !cursor.take(b'}') {
        let mut next = 0;
        loop {
            // The usual next name is compared at once; only when it is another is the name read.
            match PARTS.get(next) {
                Some((literal, part)) if cursor.take_literal(literal) => {
                    next += 1;
                    let token = cursor.value()?;
                    if !split.part(*part, token) {
                        split.foreign(literal.trim_matches(['"', ':']), token, names);
                    }
                }
                _ => {
                    let name = cursor.name()?.raw;
                    let token = cursor.value()?;
                    let known = PARTS.iter().position(|(literal, _)| literal[1..].strip_suffix("\":") == Some(name));
                    next = known.map_or(next, |at| at + 1);
                    if !known.and_then(|at| PARTS.get(at)).is_some_and(|(_, part)| split.part(*part, token)) {
                        split.foreign(name, token, names);
                    }
                }
            }
            split.fields += 1;
            if !cursor.more(b'}')? {
                break;
            }
        }
    }
    Some(split.finish(cursor.slice(from)))
}

/// A part of an envelope.
#[derive(Debug, Clone, Copy)]
enum Part {
    Before,
    After,
    Source,
    Transaction,
    Op,
    Millis,
    Micros,
    Nanos,
    Message,
}

/// The parts of an envelope in the order in which Debezium writes them.
const PARTS: [(&str, Part); 9] = [
    ("\"before\":", Part::Before),
    ("\"after\":", Part::After),
    ("\"source\":", Part::Source),
    ("\"transaction\":", Part::Transaction),
    ("\"op\":", Part::Op),
    ("\"ts_ms\":", Part::Millis),
    ("\"ts_us\":", Part::Micros),
    ("\"ts_ns\":", Part::Nanos),
    ("\"message\":", Part::Message),
];

#[derive(Default)]
struct Split<'a> {
    envelope: Envelope<'a>,
    flat: Flat<'a>,
    /// A field that no envelope has.
    foreign: bool,
    fields: usize,
    /// A time that is null.
    has_time: bool,
    control: u32,
}

impl<'a> Split<'a> {
    /// Takes a part of an envelope; says whether it looks as it does in one.
    #[inline]
    fn part(&mut self, part: Part, token: Token<'a>) -> bool {
        let envelope = &mut self.envelope;
        match (part, token) {
            (Part::Before, Token::Object(raw)) => envelope.before = Some(raw),
            (Part::After, Token::Object(raw)) => envelope.after = Some(raw),
            (Part::Source, Token::Object(raw)) => envelope.source = Some(raw),
            (Part::Transaction, Token::Object(raw)) => envelope.transaction = Some(raw),
            (Part::Before | Part::After | Part::Source | Part::Transaction, Token::Null) => {}
            (Part::Op, Token::Text(op)) => envelope.op = op.raw,
            (Part::Millis, Token::Number(number)) => envelope.handled.ms = Some(number),
            (Part::Micros, Token::Number(number)) => envelope.handled.us = Some(number),
            (Part::Nanos, Token::Number(number)) => envelope.handled.ns = Some(number),
            (Part::Millis | Part::Micros | Part::Nanos, Token::Null) => self.has_time = true,
            (Part::Message, Token::Object(_) | Token::Null) => {}
            _ => return false,
        }
        true
    }

    /// Takes a field that no envelope has, perhaps one of a flattened row.
    fn foreign(&mut self, name: &'a str, token: Token<'a>, names: &FlatNames) {
        self.foreign = true;
        if matches!(name, "status" | "id" | "event_count" | "data_collections") {
            self.control += 1;
        } else if matches!(name, "ddl" | "databaseName" | "schemaName" | "tableChanges") {
            self.control += 0x100;
        }
        if name == names.deleted {
            self.flat.deleted = matches!(token, Token::Bool(true)) || text_of(token) == Some("true");
        }
        let Some(meta) = name.strip_prefix(names.prefix.as_str()) else { return };
        let number = |factor: i64| match token {
            Token::Number(text) => integer(text).ok().and_then(|n| n.checked_mul(factor)),
            _ => None,
        };
        match meta {
            "op" => self.flat.op = text_of(token),
            "table" | "source_table" => self.flat.table = text_of(token),
            "schema" | "source_schema" => self.flat.schema = text_of(token),
            "db" | "source_db" => self.flat.db = text_of(token),
            "source_ts_us" => self.flat.time_us = number(1),
            "source_ts_ms" => self.flat.time_us = self.flat.time_us.or(number(1_000)),
            _ => {}
        }
    }

    fn finish(mut self, whole: &'a str) -> Payload<'a> {
        let envelope = &self.envelope;
        let has_parts = envelope.source.is_some() || envelope.after.is_some() || envelope.before.is_some();
        if !self.foreign && !envelope.op.is_empty() && has_parts {
            return Payload::Envelope(self.envelope);
        }
        let has_time = self.has_time || envelope.handled.any();
        let heartbeat = self.fields > 0 && !self.foreign && has_time && !has_parts && envelope.op.is_empty();
        let border = self.control & 0xFF >= 2 && self.control < 0x100 && self.fields <= 5;
        let schema_change = self.control >= 0x200 && envelope.source.is_some();
        let border = border && whole.contains("\"event_count\"");
        if heartbeat || border || schema_change {
            return Payload::Control;
        }
        self.flat.row = whole;
        Payload::Flat(self.flat)
    }
}

fn text_of(token: Token<'_>) -> Option<&str> {
    match token {
        Token::Text(text) if !text.escaped => Some(text.raw),
        _ => None,
    }
}

/// What is read of `source`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Source<'a> {
    pub name: Option<&'a str>,
    pub schema: Option<&'a str>,
    pub db: Option<&'a str>,
    pub table: Option<&'a str>,
    pub sequence: Option<Text<'a>>,
    pub lsn: Option<i64>,
    pub file: Option<&'a str>,
    pub pos: Option<i64>,
    pub row: Option<i64>,
}

impl<'a> Source<'a> {
    /// Reads all of it; `None` when it is no object.
    pub fn read(raw: &'a str) -> Option<Self> {
        let mut source = Self::default();
        let number = |token| match token {
            Token::Number(text) => integer(text).ok(),
            _ => None,
        };
        fields(raw, |name, token| match name.raw {
            "name" => source.name = text_of(token),
            "schema" => source.schema = text_of(token),
            "db" => source.db = text_of(token),
            "table" => source.table = text_of(token),
            "sequence" => {
                if let Token::Text(text) = token {
                    source.sequence = Some(text);
                }
            }
            "lsn" => source.lsn = number(token),
            "file" => source.file = text_of(token),
            "pos" => source.pos = number(token),
            "row" => source.row = number(token),
            _ => {}
        })?;
        Some(source)
    }

    /// The stream that the event names itself: `<name>.<schema or db>.<table>`.
    pub fn stream(&self) -> Option<String> {
        let space = self.schema.filter(|s| !s.is_empty()).or(self.db)?;
        Some(format!("{}.{space}.{}", self.name?, self.table?))
    }
}

static TS_US: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"ts_us\":"));
static TS_MS: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"ts_ms\":"));

/// The commit time in `source`, without reading the rest. A quoted name before a colon is a field in any JSON text, since
/// quotes inside strings are escaped; `source` has no nested object with such a field.
pub(super) fn source_time(raw: &str) -> i64 {
    let found = |finder: &Finder<'_>, factor: i64| {
        let at = finder.find(raw.as_bytes())? + 8;
        match Cursor::at(raw, at).value()? {
            Token::Number(text) => integer(text).ok()?.checked_mul(factor),
            _ => None,
        }
    };
    if let Some(us) = found(&TS_US, 1).or_else(|| found(&TS_MS, 1_000)) {
        return us;
    }
    // White space before the colon: rare enough to read it all.
    let mut time = NO_TIME;
    let _read_or_not = fields(raw, |name, token| {
        if let ("ts_ms", Token::Number(text)) = (name.raw, token) {
            time = integer(text).ok().and_then(|ms| ms.checked_mul(1_000)).unwrap_or(NO_TIME);
        }
    });
    time
}
