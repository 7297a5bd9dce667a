//! Row images and snapshot rows into the rows of a table.

use super::snapshot;
use super::value::{self, Scratch, Value};
use super::{Known, diff};
use crate::batch::{Op, Seq};
use crate::decode::debezium::Refusal;
use crate::decode::debezium::builder::Problem;
use crate::decode::debezium::row::{RowError, Target};
use crate::decode::debezium::rows::Rows;
use crate::decode::debezium::scan::{Text, Token};
use crate::decode::debezium::wire::Wire;
use crate::decode::debezium::write::{fill, refusal};
use crate::wire::binlog::{Cell, Record, RecordKind, Typed};
use crate::wire::mysqltype::{ColumnShape, DefaultValue, Form, Kind};

/// How one column of a table is read.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub target: Target,
    pub shape: ColumnShape,
    pub wire: Wire,
}

/// What a column of a change is, before its value is read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Source<'a> {
    /// The source says nothing of it.
    #[default]
    Absent,
    Null,
    Image(&'a [u8]),
    /// A difference to the document of the old row.
    Diff {
        old: &'a [u8],
        diff: &'a [u8],
    },
    Typed(Typed<'a>),
    /// What the server takes for a column that an insert does not name.
    Default(&'a str),
}

/// A change as its row needs it, used again for the next one.
#[derive(Debug, Default)]
pub(super) struct Change<'a> {
    /// The row after the change; of a delete the row before it.
    pub new: Vec<Source<'a>>,
    /// The row before the change; empty when there is none.
    pub old: Vec<Source<'a>>,
}

/// Where the change belongs, and how it is written.
#[derive(Clone, Copy)]
pub(super) struct Context {
    pub op: Op,
    pub seq: Seq,
    pub time: i64,
    /// `on_mismatch: ignore`
    pub ignore: bool,
}

impl<'a> Change<'a> {
    /// Finds the values of a record; says why they cannot be.
    pub fn fill(&mut self, record: &Record<'a>, known: &'a Known) -> Result<(), Refusal> {
        let count = known.columns.len();
        self.new.clear();
        self.old.clear();
        if record.kind == RecordKind::Snapshot {
            for value in record.values() {
                let value = value.map_err(|malformed| Refusal::decode(malformed.to_string()))?;
                self.new.push(Source::Typed(value));
            }
            return if self.new.len() == count { Ok(()) } else { Err(other_width()) };
        }
        if record.width != count {
            return Err(other_width());
        }
        self.new.resize(count, Source::Absent);
        self.old.resize(count, Source::Absent);
        let Some((images, bytes)) = record.images(&known.forms) else { return Ok(()) };
        let (new, old) = (&mut self.new, &mut self.old);
        let length = images.walk(bytes, |after, column, cell| {
            let found = match cell {
                Cell::Absent => Source::Absent,
                Cell::Null => Source::Null,
                Cell::Value(bytes) => Source::Image(bytes),
                Cell::Diff(diff) => Source::Diff { old: &[], diff },
            };
            if after {
                new[column] = found;
            } else {
                old[column] = found;
            }
        });
        match length {
            Ok(length) if length == bytes.len() => Ok(()),
            Ok(_) => Err(Refusal::decode("it has more bytes than its table's columns take")),
            Err(malformed) => Err(Refusal::decode(malformed.to_string())),
        }
    }

    /// Completes the new row: what an image leaves out is as it was in the old row, where that has it.
    pub fn complete(&mut self, op: Op, columns: &'a [Column]) -> Result<(), Refusal> {
        match op {
            Op::Delete => std::mem::swap(&mut self.new, &mut self.old),
            Op::Create => {
                for (source, column) in self.new.iter_mut().zip(columns) {
                    if matches!(source, Source::Absent) {
                        *source = default(column)?;
                    }
                }
            }
            Op::Update => {
                for ((new, old), column) in self.new.iter_mut().zip(&self.old).zip(columns) {
                    match (*new, *old) {
                        (Source::Absent, old) => *new = old,
                        (Source::Diff { diff, .. }, Source::Image(old)) => *new = Source::Diff { old, diff },
                        (Source::Diff { diff, .. }, Source::Null) => *new = Source::Diff { old: &[], diff },
                        (Source::Diff { .. }, _) => return Err(no_document(&column.shape.name)),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the change gives the row another key: its columns are those `key` positions.
    pub fn moves(&self, columns: &[Column], key: &[usize]) -> bool {
        let of_key = |column: &Column| matches!(&column.target, Target::Column { index, .. } if key.contains(index));
        let differs = |((new, old), column): ((&Source<'_>, &Source<'_>), &Column)| match (new, old) {
            (Source::Image(new), Source::Image(old)) => new != old && of_key(column),
            (Source::Null, Source::Image(_)) | (Source::Image(_), Source::Null) => of_key(column),
            _ => false,
        };
        self.new.iter().zip(&self.old).zip(columns).any(differs)
    }
}

fn other_width() -> Refusal {
    Refusal::decode("it has another number of values than its table has columns")
}

fn no_document(column: &str) -> Refusal {
    Refusal::incomplete(format!(
        "column `{column}` is sent as a difference and the old row does not have the document; set \
         binlog_row_image=FULL or binlog_row_value_options='' at the server, then update the row once"
    ))
}

fn default(column: &Column) -> Result<Source<'_>, Refusal> {
    match &column.shape.default {
        Some(DefaultValue::Null) => Ok(Source::Null),
        Some(DefaultValue::Text(text)) => Ok(Source::Default(text)),
        None if matches!(column.target, Target::Skip) => Ok(Source::Absent),
        None => Err(Refusal::incomplete(format!(
            "column `{}` is not in the row image of an insert, and what the server took for it is not known; set \
             binlog_row_image=FULL at the server, then update the row once",
            column.shape.name
        ))),
    }
}

/// Writes the change as the current row, finished when it succeeds.
pub(super) fn write(
    columns: &[Column],
    rows: &mut Rows,
    change: &Change<'_>,
    context: Context,
    scratch: &mut Scratch,
) -> Result<(), Refusal> {
    for (column, source) in columns.iter().zip(&change.new) {
        let Target::Column { index, .. } = column.target else {
            mismatch(column, rows, *source, context)?;
            continue;
        };
        if context.op == Op::Delete && !rows.key().contains(&index) {
            continue;
        }
        match source {
            Source::Null | Source::Typed(Typed::Null) => rows.null(index),
            Source::Absent if context.op == Op::Delete => {}
            Source::Absent => rows.unchanged(index),
            source => append(column, rows, index, *source, context.ignore, scratch)?,
        }
    }
    if context.op == Op::Move {
        write_old_key(columns, rows, change, scratch)?;
    }
    fill(rows, matches!(context.op, Op::Update | Op::Move));
    if let Some(column) = rows.lacking(context.op != Op::Delete) {
        return Err(lacking(rows, column));
    }
    rows.finish_row(context.op, context.seq, context.time);
    Ok(())
}

/// Writes only the key, as the mark of a version that was refused; nothing when the key cannot be read.
pub(super) fn write_refused(
    columns: &[Column],
    rows: &mut Rows,
    change: &Change<'_>,
    context: Context,
    scratch: &mut Scratch,
) {
    for (column, source) in columns.iter().zip(&change.new) {
        let Target::Column { index, .. } = column.target else { continue };
        let readable = !matches!(source, Source::Absent | Source::Null | Source::Typed(Typed::Null));
        if rows.key().contains(&index) && (!readable || append(column, rows, index, *source, false, scratch).is_err()) {
            return rows.abandon();
        }
    }
    if rows.key().iter().any(|index| !rows.has(*index)) {
        return rows.abandon();
    }
    fill(rows, false);
    rows.finish_row(Op::Refused, context.seq, context.time);
}

fn lacking(rows: &Rows, column: usize) -> Refusal {
    refusal(RowError::Lacking { name: rows.name(column).to_owned() })
}

fn mismatch(column: &Column, rows: &mut Rows, source: Source<'_>, context: Context) -> Result<(), Refusal> {
    let Target::Mismatch { index, why } = &column.target else { return Ok(()) };
    if context.op == Op::Delete && !rows.key().contains(index) {
        return Ok(());
    }
    match source {
        Source::Null | Source::Typed(Typed::Null) => rows.null(*index),
        Source::Absent => rows.unchanged(*index),
        _ if context.ignore => rows.ignore(*index),
        _ => {
            let name = rows.name(*index).to_owned();
            return Err(refusal(RowError::Mismatch { name, why: why.clone() }));
        }
    }
    Ok(())
}

fn write_old_key(
    columns: &[Column],
    rows: &mut Rows,
    change: &Change<'_>,
    scratch: &mut Scratch,
) -> Result<(), Refusal> {
    for at in 0..rows.key().len() {
        let index = rows.key()[at];
        let found = columns.iter().position(|c| matches!(c.target, Target::Column { index: i, .. } if i == index));
        let source = found.and_then(|place| change.old.get(place).map(|source| (place, *source)));
        let Some((place, source @ Source::Image(_))) = source else { return Err(lacking(rows, index)) };
        let column = &columns[place];
        let written = match value(column, source, scratch) {
            Ok(Value::Native(native)) => rows.old_key_native(at, native),
            Ok(Value::Text(text)) => rows.old_key(at, column.wire, plain(text)),
            Err(why) => Err(Problem::Value(why)),
        };
        written.map_err(|problem| refused(rows, index, source, problem))?;
    }
    Ok(())
}

#[inline]
fn append(
    column: &Column,
    rows: &mut Rows,
    index: usize,
    source: Source<'_>,
    ignore: bool,
    scratch: &mut Scratch,
) -> Result<(), Refusal> {
    if let Kind::Unread { why } = &column.shape.kind {
        return unread(rows, index, ignore, why);
    }
    let written = match value(column, source, scratch) {
        Ok(Value::Native(native)) => rows.append_native(index, native),
        Ok(Value::Text(text)) => rows.append(index, column.wire, plain(text)),
        Err(why) => Err(Problem::Value(why)),
    };
    match written {
        Ok(()) => Ok(()),
        // Left out: null for a new row, unchanged for an update.
        Err(Problem::Kind(_)) if ignore => {
            rows.ignore(index);
            Ok(())
        }
        Err(problem) => Err(refused(rows, index, source, problem)),
    }
}

#[cold]
fn unread(rows: &mut Rows, index: usize, ignore: bool, why: &str) -> Result<(), Refusal> {
    if ignore {
        rows.ignore(index);
        return Ok(());
    }
    Err(Refusal::decode(format!("column `{}` cannot be read: {why}", rows.name(index))))
}

fn plain(raw: &str) -> Token<'_> {
    Token::Text(Text { raw, escaped: false })
}

/// The value of a column.
#[inline]
fn value<'v>(column: &'v Column, source: Source<'v>, scratch: &'v mut Scratch) -> Result<Value<'v>, &'static str> {
    let (form, kind) = (column.shape.form, &column.shape.kind);
    match source {
        Source::Image(bytes) => value::read(form, kind, bytes, scratch),
        Source::Typed(typed) => snapshot::read(form, kind, typed, scratch),
        Source::Default(text) => snapshot::read(form, kind, Typed::Bytes(text.as_bytes()), scratch),
        Source::Diff { old, diff } => {
            let Form::Json(size) = form else { return Err(super::json::DAMAGED) };
            let content = |bytes: &'v [u8]| bytes.get(usize::from(size)..).unwrap_or_default();
            scratch.text.clear();
            diff::apply(content(old), content(diff), &mut scratch.text)?;
            Ok(Value::Native(crate::decode::debezium::native::Native::Document(&scratch.text)))
        }
        Source::Absent | Source::Null => Err("it has no value"),
    }
}

#[cold]
fn refused(rows: &Rows, index: usize, source: Source<'_>, problem: Problem) -> Refusal {
    let column = &rows.contract.input.columns[index];
    let shape = match source {
        Source::Image(bytes) => format!("a value of {} bytes", bytes.len()),
        Source::Diff { diff, .. } => format!("a difference of {} bytes", diff.len()),
        Source::Typed(Typed::Bytes(bytes)) => format!("a value of {} bytes", bytes.len()),
        Source::Typed(_) => "a value".to_owned(),
        Source::Default(_) => "a default".to_owned(),
        Source::Absent | Source::Null => "no value".to_owned(),
    };
    refusal(RowError::Column { name: format!("`{}` ({})", column.name, column.data_type), shape, problem })
}
