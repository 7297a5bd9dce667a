//! The record of one row: what the source pushes into its batch and the decoder reads.
//!
//! ```text
//! key: the JSON of a TableShape, no value    a table, for the rows behind it
//! value: kind u8 | table u64 | …             a row, or that the table was emptied
//!   of the log:    width u16 | present (before) | present (after) | images, as they stand in the event
//!   of a snapshot: values, each a tag and what it needs
//! ```

use super::Malformed;
use super::bytes::Bytes;
use super::rows::{Images, Presence, RowsEvent, RowsKind};
use crate::wire::mysqltype::{Form, TableShape};

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordKind {
    /// A row that a snapshot read.
    Snapshot,
    /// A row of the log.
    Row(RowsKind),
    /// The table was emptied.
    Truncate,
}

impl RecordKind {
    const ALL: [(u8, Self); 6] = [
        (b'r', Self::Snapshot),
        (b'c', Self::Row(RowsKind::Insert)),
        (b'u', Self::Row(RowsKind::Update)),
        (b'd', Self::Row(RowsKind::Delete)),
        (b'p', Self::Row(RowsKind::PartialUpdate)),
        (b't', Self::Truncate),
    ];

    fn letter(self) -> u8 {
        Self::ALL.iter().find(|(_, kind)| *kind == self).map_or(0, |(letter, _)| *letter)
    }
}

/// A record's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    pub kind: RecordKind,
    /// The number of its table's description.
    pub table: u64,
    /// The number of columns; 0 for snapshots and truncates.
    pub width: usize,
    before: Presence<'a>,
    after: Presence<'a>,
    bytes: &'a [u8],
}

impl<'a> Record<'a> {
    /// Reads a record's head.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut rest = Bytes(bytes);
        let letter = rest.u8()?;
        let kind = RecordKind::ALL.iter().find(|(known, _)| *known == letter);
        let kind = kind.ok_or(Malformed::Other("it is no record of a row"))?.1;
        let table = rest.u64()?;
        let (mut width, mut before, mut after) = (0, Presence::default(), Presence::default());
        if let RecordKind::Row(rows) = kind {
            width = usize::from(rest.u16()?);
            if rows != RowsKind::Insert {
                before = Presence(rest.take(width.div_ceil(8))?);
            }
            if rows != RowsKind::Delete {
                after = Presence(rest.take(width.div_ceil(8))?);
            }
        }
        Ok(Self { kind, table, width, before, after, bytes: rest.0 })
    }

    /// How its images are read, and their bytes; `None` when it is no row of the log.
    pub fn images<'f>(&self, forms: &'f [Form]) -> Option<(Images<'f>, &'a [u8])>
    where
        'a: 'f,
    {
        let RecordKind::Row(kind) = self.kind else { return None };
        Some((Images { kind, forms, before: self.before, after: self.after }, self.bytes))
    }

    /// The values of a snapshot's row.
    pub fn values(&self) -> TypedValues<'a> {
        TypedValues(Bytes(if self.kind == RecordKind::Snapshot { self.bytes } else { &[] }))
    }
}

impl RowsEvent<'_> {
    /// Writes the record of one of its rows to `out`, which is cleared. `table` is the number of the table's description.
    pub fn record(&self, table: u64, images: &[u8], out: &mut Vec<u8>) {
        out.clear();
        out.push(RecordKind::Row(self.kind).letter());
        out.extend_from_slice(&table.to_le_bytes());
        out.extend_from_slice(&(self.width as u16).to_le_bytes());
        out.extend_from_slice(self.before.0);
        out.extend_from_slice(self.after.0);
        out.extend_from_slice(images);
    }
}

/// The record that says that a table was emptied.
pub fn truncate_record(table: u64) -> Vec<u8> {
    let mut out = vec![RecordKind::Truncate.letter()];
    out.extend(table.to_le_bytes());
    out
}

/// The key of the record that describes a table.
pub fn describe_key(shape: &TableShape) -> Vec<u8> {
    serde_json::to_vec(shape).unwrap_or_default()
}

/// A value that a snapshot read by the binary protocol.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Typed<'a> {
    Null,
    Int(i64),
    UInt(u64),
    Float(f32),
    Double(f64),
    /// Text is UTF-8, whatever its column is; decimals, `ENUM`s, `SET`s, JSON and UUIDs are text. `BIT`s are big-endian,
    /// a geometry is an SRID and a WKB, a vector 32-bit floats.
    Bytes(&'a [u8]),
    /// A `DATE`, a `DATETIME`, or a `TIMESTAMP` in UTC.
    Moment {
        year: u16,
        month: u8,
        day: u8,
        hour: u8,
        minute: u8,
        second: u8,
        micros: u32,
    },
    Time {
        negative: bool,
        days: u32,
        hours: u8,
        minutes: u8,
        seconds: u8,
        micros: u32,
    },
}

/// Writes the rows that a snapshot reads.
#[derive(Debug)]
pub struct SnapshotWriter {
    bytes: Vec<u8>,
}

const HEAD: usize = 9;

impl SnapshotWriter {
    /// A row of the table of that description, without values so far.
    pub fn new(table: u64) -> Self {
        let mut bytes = vec![RecordKind::Snapshot.letter()];
        bytes.extend(table.to_le_bytes());
        Self { bytes }
    }

    /// Adds a value, for the next column of the table's description.
    pub fn push(&mut self, value: Typed<'_>) {
        let out = &mut self.bytes;
        match value {
            Typed::Null => out.push(0),
            Typed::Int(number) => {
                out.push(1);
                out.extend_from_slice(&number.to_le_bytes());
            }
            Typed::UInt(number) => {
                out.push(2);
                out.extend_from_slice(&number.to_le_bytes());
            }
            Typed::Float(number) => {
                out.push(3);
                out.extend_from_slice(&number.to_le_bytes());
            }
            Typed::Double(number) => {
                out.push(4);
                out.extend_from_slice(&number.to_le_bytes());
            }
            Typed::Bytes(bytes) => {
                out.push(5);
                out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
                out.extend_from_slice(bytes);
            }
            Typed::Moment { year, month, day, hour, minute, second, micros } => {
                out.push(6);
                out.extend_from_slice(&year.to_le_bytes());
                out.extend_from_slice(&[month, day, hour, minute, second]);
                out.extend_from_slice(&micros.to_le_bytes());
            }
            Typed::Time { negative, days, hours, minutes, seconds, micros } => {
                out.extend_from_slice(&[7, u8::from(negative)]);
                out.extend_from_slice(&days.to_le_bytes());
                out.extend_from_slice(&[hours, minutes, seconds]);
                out.extend_from_slice(&micros.to_le_bytes());
            }
        }
    }

    /// The record's value.
    pub fn record(&self) -> &[u8] {
        &self.bytes
    }

    /// Begins the next row of the same table.
    pub fn clear(&mut self) {
        self.bytes.truncate(HEAD);
    }
}

/// The values of a snapshot's row.
#[derive(Debug, Clone)]
pub struct TypedValues<'a>(Bytes<'a>);

impl<'a> TypedValues<'a> {
    fn value(&mut self) -> Result<Typed<'a>, Malformed> {
        let bytes = &mut self.0;
        Ok(match bytes.u8()? {
            0 => Typed::Null,
            1 => Typed::Int(i64::from_le_bytes(bytes.array()?)),
            2 => Typed::UInt(bytes.u64()?),
            3 => Typed::Float(f32::from_le_bytes(bytes.array()?)),
            4 => Typed::Double(f64::from_le_bytes(bytes.array()?)),
            5 => {
                let length = bytes.u32()?;
                Typed::Bytes(bytes.take(length as usize)?)
            }
            6 => {
                let year = bytes.u16()?;
                let [month, day, hour, minute, second] = bytes.array()?;
                Typed::Moment { year, month, day, hour, minute, second, micros: bytes.u32()? }
            }
            7 => {
                let negative = bytes.u8()? != 0;
                let days = bytes.u32()?;
                let [hours, minutes, seconds] = bytes.array()?;
                Typed::Time { negative, days, hours, minutes, seconds, micros: bytes.u32()? }
            }
            _ => return Err(Malformed::Other("it has a value of an unknown kind")),
        })
    }
}

impl<'a> Iterator for TypedValues<'a> {
    type Item = Result<Typed<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.0.is_empty() {
            return None;
        }
        let value = self.value();
        if value.is_err() {
            self.0.0 = &[];
        }
        Some(value)
    }
}
