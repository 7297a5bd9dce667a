//! Tuples into rows: from a value's text straight into its column's builder.

use super::binary;
use super::text;
use super::types::Reading;
use crate::batch::{Op, Seq};
use crate::decode::debezium::builder::Problem;
use crate::decode::debezium::row::{RowError, Target};
use crate::decode::debezium::rows::Rows;
use crate::decode::debezium::scan::{Text, Token};
use crate::decode::debezium::value::Why;
use crate::decode::debezium::wire::Wire;
use crate::decode::debezium::write::fill;
use crate::wire::pgoutput::{Datum, Old, Tuple};
use crate::wire::pgtype::BinaryForm;

/// How one column of a relation is read.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub target: Target,
    pub reading: Reading,
    pub wire: Wire,
    /// How a value in its binary form is read.
    pub binary: Option<BinaryForm>,
    /// Whether old tuples of kind `K` carry it.
    pub identity: bool,
}

/// A change as its row needs it.
#[derive(Clone, Copy)]
pub(super) struct Change<'a> {
    pub op: Op,
    pub seq: Seq,
    pub time: i64,
    /// The row after the change; for a delete the old tuple.
    pub tuple: Tuple<'a>,
    pub old: Option<Old<'a>>,
    /// `on_mismatch: ignore`
    pub ignore: bool,
}

impl Change<'_> {
    /// The old value of a column, where the old tuple carries it.
    fn old_datum<'a>(old: Option<Old<'a>>, column: &Column, at: usize) -> Option<Datum<'a>> {
        let carried = match old? {
            Old::Full(_) => true,
            Old::Key(_) => column.identity,
        };
        old?.tuple().iter().nth(at).filter(|_| carried)
    }
}

/// Whether the change gives the row another key: its columns are those `key` positions.
pub(super) fn moves(columns: &[Column], key: &[usize], new: Tuple<'_>, old: Option<Old<'_>>) -> bool {
    let of_key = |column: &Column| matches!(&column.target, Target::Column { index, .. } if key.contains(index));
    let differs = |(at, (column, datum)): (usize, (&Column, Datum<'_>))| {
        of_key(column)
            && datum != Datum::Unchanged
            && Change::old_datum(old, column, at).is_some_and(|old| old != datum && old != Datum::Unchanged)
    };
    old.is_some() && columns.iter().zip(new.iter()).enumerate().any(differs)
}

/// Writes the change as the current row, finished when it succeeds.
pub(super) fn write(
    columns: &[Column],
    rows: &mut Rows,
    change: &Change<'_>,
    scratch: &mut String,
) -> Result<(), RowError> {
    for (at, (column, datum)) in columns.iter().zip(change.tuple.iter()).enumerate() {
        let Target::Column { index, .. } = column.target else {
            mismatch(column, rows, datum, change)?;
            continue;
        };
        if change.op == Op::Delete && !(rows.key().contains(&index) && column_is_data(change, column)) {
            continue;
        }
        let datum = match datum {
            Datum::Unchanged => Change::old_datum(change.old, column, at).unwrap_or(datum),
            datum => datum,
        };
        match datum {
            Datum::Null => rows.null(index),
            Datum::Unchanged => rows.unchanged(index),
            Datum::Text(bytes) => append(column, rows, index, bytes, change.ignore, scratch)?,
            Datum::Binary(bytes) => binary::append(column, rows, index, bytes, change.ignore, scratch)?,
        }
    }
    if change.op == Op::Move {
        write_old_key(columns, rows, change, scratch)?;
    }
    fill(rows, matches!(change.op, Op::Update | Op::Move));
    if let Some(column) = rows.lacking(change.op != Op::Delete) {
        return Err(RowError::Lacking { name: rows.contract.input.columns[column].name.clone() });
    }
    rows.finish_row(change.op, change.seq, change.time);
    Ok(())
}

/// Whether the old tuple of a delete carries the column.
fn column_is_data(change: &Change<'_>, column: &Column) -> bool {
    matches!(change.old, Some(Old::Full(_))) || column.identity
}

fn mismatch(column: &Column, rows: &mut Rows, datum: Datum<'_>, change: &Change<'_>) -> Result<(), RowError> {
    let Target::Mismatch { index, why } = &column.target else { return Ok(()) };
    if change.op == Op::Delete && !rows.key().contains(index) {
        return Ok(());
    }
    match datum {
        Datum::Null => rows.null(*index),
        Datum::Unchanged => rows.unchanged(*index),
        _ if change.ignore => rows.ignore(*index),
        _ => {
            let name = rows.contract.input.columns[*index].name.clone();
            return Err(RowError::Mismatch { name, why: why.clone() });
        }
    }
    Ok(())
}

fn write_old_key(
    columns: &[Column],
    rows: &mut Rows,
    change: &Change<'_>,
    scratch: &mut String,
) -> Result<(), RowError> {
    for at in 0..rows.key().len() {
        let index = rows.key()[at];
        let name = || rows.contract.input.columns[index].name.clone();
        let found = columns.iter().position(|c| matches!(c.target, Target::Column { index: i, .. } if i == index));
        let Some(place) = found else { return Err(RowError::Lacking { name: name() }) };
        let column = &columns[place];
        let Some(Datum::Text(bytes)) = Change::old_datum(change.old, column, place) else {
            return Err(RowError::Lacking { name: name() });
        };
        let text = simdutf8::basic::from_utf8(bytes).map_err(|_| RowError::Malformed)?;
        let shape = Token::Text(Text { raw: text, escaped: false }).shape();
        let written = token(column.reading, text, scratch)
            .map_err(Problem::Value)
            .and_then(|token| rows.old_key(at, column.wire, token));
        written.map_err(|problem| error(rows, index, shape, problem))?;
    }
    Ok(())
}

#[inline]
pub(super) fn append(
    column: &Column,
    rows: &mut Rows,
    index: usize,
    bytes: &[u8],
    ignore: bool,
    scratch: &mut String,
) -> Result<(), RowError> {
    let text = simdutf8::basic::from_utf8(bytes).map_err(|_| RowError::Malformed)?;
    let token = match token(column.reading, text, scratch) {
        Ok(token) => token,
        Err(why) => {
            let shape = Token::Text(Text { raw: text, escaped: false }).shape();
            return Err(error(rows, index, shape, Problem::Value(why)));
        }
    };
    match rows.append(index, column.wire, token) {
        Ok(()) => Ok(()),
        // Left out: null for a new row, unchanged for an update.
        Err(Problem::Kind(_)) if ignore => {
            rows.ignore(index);
            Ok(())
        }
        Err(problem) => {
            let shape = Token::Text(Text { raw: text, escaped: false }).shape();
            Err(error(rows, index, shape, problem))
        }
    }
}

#[cold]
fn error(rows: &Rows, index: usize, shape: String, problem: Problem) -> RowError {
    let column = &rows.contract.input.columns[index];
    RowError::Column { name: format!("`{}` ({})", column.name, column.data_type), shape, problem }
}

const INFINITE: Why = "it stands for infinity, which the column cannot hold; map it to a date or null at the source";
const BEFORE_CHRIST: Why = "it lies before Christ, which warehouses do not hold alike; map it to a text at the source";
const NOT_FINITE: Why =
    "it is NaN or infinity, which a decimal cannot hold; store it as double precision at the source";

/// A value's text as what the builders take.
#[inline]
fn token<'s>(reading: Reading, text: &'s str, scratch: &'s mut String) -> Result<Token<'s>, Why> {
    let plain = |raw: &'s str| Token::Text(Text { raw, escaped: false });
    match reading {
        Reading::Text => Ok(plain(text)),
        Reading::Number => Ok(Token::Number(text)),
        Reading::Boolean => match text {
            "t" => Ok(Token::Bool(true)),
            "f" => Ok(Token::Bool(false)),
            _ => Err("it is neither `t` nor `f`"),
        },
        Reading::Float if text.ends_with(|c: char| c.is_ascii_digit()) => Ok(Token::Number(text)),
        Reading::Float => Ok(plain(text)),
        Reading::Decimal if text.ends_with(|c: char| c.is_ascii_digit()) => Ok(plain(text)),
        Reading::Decimal => Err(NOT_FINITE),
        Reading::Moment if text.ends_with("infinity") => Err(INFINITE),
        Reading::Moment if text.ends_with("BC") => Err(BEFORE_CHRIST),
        Reading::Moment => Ok(plain(text)),
        Reading::Bytes => text.strip_prefix("\\x").map(plain).ok_or("it is not bytes in hexadecimal"),
        Reading::Hstore => {
            scratch.clear();
            text::hstore(text, scratch)?;
            Ok(plain(scratch))
        }
        Reading::Array(element, delimiter) => {
            scratch.clear();
            text::array(text, element, delimiter, scratch)?;
            Ok(plain(scratch))
        }
    }
}
