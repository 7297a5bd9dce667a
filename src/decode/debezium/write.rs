//! An event's columns: read, completed, checked; and what is said when that fails.

use super::Refusal;
use super::builder::Problem;
use super::change::Event;
use super::key;
use super::redelivery::Marks;
use super::row::{self, Layout, Reading, RowError, Target};
use super::rows::Rows;
use super::scan::Token;
use super::schema::WireColumn;
use super::shown::Place;
use super::wire::Wire;
use crate::batch::Op;

/// Writes the event as the current row, finished when it succeeds.
pub(super) fn write_row(
    layout: &Layout,
    rows: &mut Rows,
    event: &Event<'_>,
    how: Reading<'_>,
    key_wires: &[WireColumn],
    marks: &mut Marks,
) -> std::result::Result<(), RowError> {
    let mut news = None;
    if event.op == Op::Delete {
        write_key(layout, rows, event, key_wires, true)?;
        fill(rows, false);
    } else {
        row::read(event.row.unwrap_or("{}"), layout, rows, how)?;
        write_key(layout, rows, event, key_wires, false)?;
        write_old_key(layout, rows, event, key_wires)?;
        if !rows.is_usual() {
            news = judge_columns(rows, event, how, marks)?;
        }
        fill(rows, matches!(event.op, Op::Update | Op::Move));
    }
    if let Some(column) = rows.lacking(event.op != Op::Delete) {
        return Err(RowError::Lacking { name: rows.contract.input.columns[column].name.clone() });
    }
    if matches!(event.op, Op::Create | Op::Read)
        && let Some(column) = rows.any_unchanged()
    {
        return Err(RowError::Incomplete { name: rows.contract.input.columns[column].name.clone() });
    }
    if let Some(news) = news {
        news.note(rows, marks);
    }
    rows.finish_row(event.op, event.seq, event.time);
    Ok(())
}

/// Writes only the event's key, as the mark of a version that was refused; nothing when the key cannot be read.
pub(super) fn write_refused(layout: &Layout, rows: &mut Rows, event: &Event<'_>, key_wires: &[WireColumn]) {
    let key = write_key(layout, rows, event, key_wires, true);
    if key.is_err() || rows.lacking(false).is_some() {
        return rows.abandon();
    }
    fill(rows, false);
    rows.finish_row(Op::Refused, event.seq, event.time);
}

/// What a row that is taken changes in what its partition has shown.
struct News {
    place: Place,
    shown: Vec<usize>,
    gone: Vec<usize>,
}

impl News {
    #[cold]
    fn note(self, rows: &mut Rows, marks: &mut Marks) {
        let shown = marks.shown_mut(&rows.contract.table);
        for column in self.gone {
            shown.forget(rows.name(column));
            rows.note_shown(column, false);
        }
        if !self.shown.is_empty() {
            shown.show(self.place, self.shown.iter().map(|column| rows.name(*column).to_owned()).collect());
        }
        for column in self.shown {
            rows.note_shown(column, true);
        }
    }
}

/// Compares the current row's columns with those that its partition has shown. Columns that are gone are an error, or
/// news with `on_mismatch: ignore`; columns that are not there yet are nothing.
fn judge_columns(
    rows: &mut Rows,
    event: &Event<'_>,
    how: Reading<'_>,
    marks: &Marks,
) -> std::result::Result<Option<News>, RowError> {
    let known = marks.shown(&rows.contract.table);
    rows.recall(|column| known.is_some_and(|shown| shown.has(column)));
    let (shown, absent) = (rows.first_shown(), rows.absent());
    if shown.is_empty() && absent.is_empty() {
        return Ok(None);
    }
    let place = Place::of(event);
    let is_gone = |column: &usize| known.is_some_and(|shown| shown.is_gone(rows.name(*column), &place));
    let gone: Vec<usize> = absent.into_iter().filter(is_gone).collect();
    if gone.is_empty() || how.ignore {
        return Ok((!shown.is_empty() || !gone.is_empty()).then_some(News { place, shown, gone }));
    }
    let names = |columns: Vec<usize>| columns.into_iter().map(|column| rows.name(column).to_owned()).collect();
    Err(RowError::Gone { names: names(gone), new: names(shown) })
}

/// Fills the key columns that the row does not have yet: from the message key, and for a delete without one from the row.
fn write_key(
    layout: &Layout,
    rows: &mut Rows,
    event: &Event<'_>,
    key_wires: &[WireColumn],
    delete: bool,
) -> std::result::Result<(), RowError> {
    for at in 0..rows.key().len() {
        let index = rows.key()[at];
        if rows.has(index) {
            continue;
        }
        let name = rows.contract.input.columns[index].name.clone();
        let in_row = || event.row.filter(|_| delete).and_then(|row| key::field(row, &name));
        let token = match event.key.field(&name) {
            Some(token) => Some((token, key_wires.iter().find(|w| w.name == name).map(|w| w.wire))),
            None => in_row().map(|token| (token, None)),
        };
        let Some((token, wire)) = token else { return Err(RowError::Lacking { name }) };
        let wire = wire.unwrap_or_else(|| wire_of(layout, &name));
        rows.append(index, wire, token).map_err(|problem| column_error(rows, index, token, problem))?;
    }
    Ok(())
}

/// A move's old key, from the message key of its delete half.
fn write_old_key(
    layout: &Layout,
    rows: &mut Rows,
    event: &Event<'_>,
    key_wires: &[WireColumn],
) -> std::result::Result<(), RowError> {
    let Some(old) = event.old_key else { return Ok(()) };
    for at in 0..rows.key().len() {
        let index = rows.key()[at];
        let name = rows.contract.input.columns[index].name.clone();
        let token = old.field(&name).filter(|token| *token != Token::Null);
        let Some(token) = token else { return Err(RowError::Lacking { name }) };
        let wire = key_wires.iter().find(|w| w.name == name).map_or_else(|| wire_of(layout, &name), |w| w.wire);
        rows.old_key(at, wire, token).map_err(|problem| column_error(rows, index, token, problem))?;
    }
    Ok(())
}

fn wire_of(layout: &Layout, name: &str) -> Wire {
    match layout.target(name) {
        Some(Target::Column { wire, .. }) => *wire,
        _ => Wire::Plain,
    }
}

fn column_error(rows: &Rows, index: usize, token: Token<'_>, problem: Problem) -> RowError {
    let column = &rows.contract.input.columns[index];
    RowError::Column { name: format!("`{}` ({})", column.name, column.data_type), shape: token.shape(), problem }
}

/// Completes the current row: what it lacks is null, because the source had no such column when the row was written
/// (Debezium sends every column). A value that was left out leaves the column of an update as it is.
#[inline]
pub(in crate::decode) fn fill(rows: &mut Rows, update: bool) {
    if rows.is_full() {
        return;
    }
    for column in 0..rows.width() {
        if !rows.has(column) {
            if update && rows.is_ignored(column) {
                rows.unchanged(column);
            } else {
                rows.null(column);
            }
        }
    }
}

/// A row error in words.
pub(in crate::decode) fn refusal(error: RowError) -> Refusal {
    match error {
        RowError::Learn => Refusal::decode("the row has a field that could not be learned"),
        RowError::Malformed => Refusal::decode("the row is not a JSON object"),
        RowError::Column { name, shape, problem: Problem::Value(why) } => {
            Refusal::decode(format!("column {name} has {shape}: {why}"))
        }
        RowError::Column { name, shape, problem: Problem::Kind(why) } => {
            Refusal::contract(format!("column {name} has {shape}: {why}"))
        }
        RowError::Column { name, shape, problem: Problem::Narrow(wider) } => {
            Refusal::contract(format!("column {name} has {shape}: it does not fit; declare {wider} in the contract"))
        }
        RowError::Mismatch { name, why } => Refusal::contract(format!("column `{name}` {why}")),
        RowError::Gone { names, new } => gone(&names, &new),
        RowError::Lacking { name } => Refusal {
            lacking: true,
            ..Refusal::contract(format!(
                "column `{name}` has no value, and it is part of the key or declared `nullable: false`; let the source \
                 send it, or change the contract"
            ))
        },
        RowError::Incomplete { name } => Refusal::incomplete(format!(
            "column `{name}` is left unchanged by an event that adds a row, so there is no value for it; let the source \
             send whole rows (Postgres: REPLICA IDENTITY FULL), then update the row once"
        )),
    }
}

fn gone(names: &[String], new: &[String]) -> Refusal {
    let listed = |names: &[String]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let renamed = match new {
        [] => String::new(),
        new => format!(" (new is {}: renamed?)", listed(new)),
    };
    let (word, them) = if names.len() == 1 { ("column", "it") } else { ("columns", "them") };
    Refusal::contract(format!(
        "{word} {} gone: older rows had {them}, this one does not{renamed}; if the source has dropped or renamed {them}, \
         list {them} in the table's `gone:` ([{}]) or set `on_mismatch: ignore`, and retry the row: {them} will be null",
        format_args!("{} {}", listed(names), if names.len() == 1 { "is" } else { "are" }),
        names.join(", "),
    ))
}
