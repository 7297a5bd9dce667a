//! Rows: from an object's text straight into builders.
//!
//! A [`Layout`] lists the fields in the order in which they are expected. The next field is compared with the next
//! expected one, name, quotes and colon at once; only when that fails is the name read and looked up.

use std::collections::HashMap;

use super::builder::Problem;
use super::envelope::FlatNames;
use super::placeholder::Placeholder;
use super::rows::Rows;
use super::scan::{Cursor, Literal, Token};
use super::wire::Wire;

/// Where a field goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::decode) enum Target {
    Column {
        index: usize,
        wire: Wire,
    },
    /// It is left out: metadata, or a column that a contract does not want.
    Skip,
    /// Its type does not fit its column.
    Mismatch {
        index: usize,
        why: String,
    },
}

#[derive(Debug)]
struct Expected {
    /// `"name":`
    literal: Literal,
    target: Target,
}

/// How the rows of one schema are read.
#[derive(Debug, Default)]
pub(in crate::decode) struct Layout {
    expected: Vec<Expected>,
    index: HashMap<String, usize>,
}

impl Layout {
    pub fn new(fields: Vec<(String, Target)>) -> Self {
        let mut layout = Self::default();
        for (name, target) in fields {
            layout.push(name, target);
        }
        layout
    }

    fn push(&mut self, name: String, target: Target) {
        let literal = Literal::new(format!("{}:", serde_json::Value::from(name.as_str())));
        self.index.insert(name, self.expected.len());
        self.expected.push(Expected { literal, target });
    }

    /// Where the field goes, when it is known.
    pub fn target(&self, name: &str) -> Option<&Target> {
        self.index.get(name).map(|at| &self.expected[*at].target)
    }
}

/// Why a row could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::decode) enum RowError {
    /// A field that is not known carries a value: learn, then read again.
    Learn,
    /// The text is not a row.
    Malformed,
    /// A value does not come into its column.
    Column { name: String, shape: String, problem: Problem },
    /// A column's type has changed beyond widening.
    Mismatch { name: String, why: String },
    /// Columns that earlier rows had are gone; perhaps the others, which are new, took their place.
    Gone { names: Vec<String>, new: Vec<String> },
    /// A column that must have a value has none.
    Lacking { name: String },
    /// A new row without a value for a column: the source says that it is unchanged.
    Incomplete { name: String },
}

/// What reading a row depends on beyond its layout.
#[derive(Clone, Copy)]
pub(super) struct Reading<'c> {
    pub placeholder: &'c Placeholder,
    /// Fields of a flattened row that are metadata.
    pub flat: Option<&'c FlatNames>,
    /// Whether unknown fields are to be learned, or left out.
    pub learn: bool,
    /// `on_mismatch: ignore`: what does not fit is left out instead of refused.
    pub ignore: bool,
}

/// Reads the fields of `text` into the current row of `rows`. What is missing stays missing.
pub(super) fn read(text: &str, layout: &Layout, rows: &mut Rows, how: Reading<'_>) -> Result<(), RowError> {
    let mut cursor = Cursor::new(text);
    if !cursor.take(b'{') {
        return Err(RowError::Malformed);
    }
    if cursor.take(b'}') {
        return Ok(());
    }
    let mut next = 0;
    loop {
        let at = match layout.expected.get(next) {
            Some(expected) if cursor.take_expected(&expected.literal) => next,
            _ => {
                let Some(at) = look_up(&mut cursor, layout, how)? else {
                    match cursor.more(b'}') {
                        Some(true) => continue,
                        Some(false) => return Ok(()),
                        None => return Err(RowError::Malformed),
                    }
                };
                at
            }
        };
        next = at + 1;
        let expected = &layout.expected[at];
        if !take_whole(&mut cursor, expected, rows) {
            let Some(token) = cursor.value() else { return Err(RowError::Malformed) };
            place(expected, token, rows, how)?;
        }
        match cursor.more(b'}') {
            Some(true) => {}
            Some(false) => return Ok(()),
            None => return Err(RowError::Malformed),
        }
    }
}

/// Reads a number straight into its column, as nearly all numbers can be; says whether it did.
#[inline]
fn take_whole(cursor: &mut Cursor<'_>, expected: &Expected, rows: &mut Rows) -> bool {
    let Target::Column { index, wire } = expected.target else { return false };
    let mut ahead = *cursor;
    let taken = ahead.take_whole().is_some_and(|number| rows.append_whole(index, wire, number));
    if taken {
        *cursor = ahead;
    }
    taken
}

/// Reads a name and finds its field; `None` when it is none, its value then is taken.
fn look_up(cursor: &mut Cursor<'_>, layout: &Layout, how: Reading<'_>) -> Result<Option<usize>, RowError> {
    let name = cursor.name().ok_or(RowError::Malformed)?;
    let mut scratch = String::new();
    let name = name.decode(&mut scratch).ok_or(RowError::Malformed)?;
    if let Some(at) = layout.index.get(name) {
        return Ok(Some(*at));
    }
    let token = cursor.value().ok_or(RowError::Malformed)?;
    let meta = how.flat.is_some_and(|flat| flat.is_meta(name));
    // A column that has only ever been null waits: its type is not known yet.
    if meta || !how.learn || token == Token::Null || how.placeholder.is(&token) {
        return Ok(None);
    }
    Err(RowError::Learn)
}

#[inline]
fn place(expected: &Expected, token: Token<'_>, rows: &mut Rows, how: Reading<'_>) -> Result<(), RowError> {
    match &expected.target {
        Target::Column { index, wire } => {
            if how.placeholder.is(&token) && !rows.has(*index) {
                rows.unchanged(*index);
                return Ok(());
            }
            match rows.append(*index, *wire, token) {
                Ok(()) => Ok(()),
                // Left out: null for a new row, unchanged for an update.
                Err(Problem::Kind(_)) if how.ignore => {
                    rows.ignore(*index);
                    Ok(())
                }
                Err(problem) => Err(refused(rows, *index, token, problem)),
            }
        }
        Target::Skip => Ok(()),
        Target::Mismatch { index, .. } if token == Token::Null && !rows.has(*index) => {
            rows.null(*index);
            Ok(())
        }
        Target::Mismatch { index, .. } if how.ignore => {
            rows.ignore(*index);
            Ok(())
        }
        Target::Mismatch { index, why } => Err(RowError::Mismatch { name: column(rows, *index), why: why.clone() }),
    }
}

fn column(rows: &Rows, index: usize) -> String {
    rows.contract.input.columns[index].name.clone()
}

#[cold]
fn refused(rows: &Rows, index: usize, token: Token<'_>, problem: Problem) -> RowError {
    let column = &rows.contract.input.columns[index];
    RowError::Column { name: format!("`{}` ({})", column.name, column.data_type), shape: token.shape(), problem }
}
