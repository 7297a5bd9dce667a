//! Row events, split into rows. Lengths alone are read here: what values are is the decoder's.

use std::borrow::Cow;

use super::Malformed;
use super::bytes::{Bytes, bit};
use super::compress::inflate;
use crate::wire::mysqltype::Form;

/// What a row event did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowsKind {
    Insert,
    Update,
    Delete,
    /// An update whose JSON values may be differences (`binlog_row_value_options=PARTIAL_JSON`).
    PartialUpdate,
}

/// Rows of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowsEvent<'a> {
    /// The table map that they are read by.
    pub table_id: u64,
    pub kind: RowsKind,
    /// The statement ends with it: its table maps are not valid any more.
    pub ends_statement: bool,
    /// The number of the table's columns.
    pub width: usize,
    /// Which columns old rows have; nothing for an insert.
    pub before: Presence<'a>,
    /// Which columns new rows have; nothing for a delete.
    pub after: Presence<'a>,
    rows: Cow<'a, [u8]>,
}

/// Which columns an image has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Presence<'a>(pub(super) &'a [u8]);

impl Presence<'_> {
    /// Whether images have the column at that position.
    #[inline]
    pub fn has(&self, column: usize) -> bool {
        bit(self.0, column)
    }

    /// How many of `width` columns images have.
    fn count(&self, width: usize) -> usize {
        let full: usize = self.0[..width / 8].iter().map(|byte| byte.count_ones() as usize).sum();
        let rest = self.0.get(width / 8).map_or(0, |byte| byte & ((1u16 << (width % 8)) - 1) as u8);
        full + rest.count_ones() as usize
    }
}

impl<'a> RowsEvent<'a> {
    pub(super) fn parse(
        mut body: Bytes<'a>,
        kind: RowsKind,
        version: u8,
        id_width: usize,
        compressed: bool,
    ) -> Result<Self, Malformed> {
        const STATEMENT_END: u16 = 1;
        let (table_id, flags) = (body.number(id_width)?, body.u16()?);
        if version == 2 {
            // What the server's own replicas use: partitions, and information of storage engines.
            let extra = usize::from(body.u16()?).checked_sub(2).ok_or(Malformed::Number)?;
            body.take(extra)?;
        }
        let width = usize::try_from(body.lenenc()?).map_err(|_| Malformed::Number)?;
        if width > usize::from(u16::MAX) {
            return Err(Malformed::Number);
        }
        let (mut before, mut after) = (Presence::default(), Presence::default());
        if kind != RowsKind::Insert {
            before = Presence(body.take(width.div_ceil(8))?);
        }
        if kind != RowsKind::Delete {
            after = Presence(body.take(width.div_ceil(8))?);
        }
        let rows = if compressed { Cow::Owned(inflate(body.0)?) } else { Cow::Borrowed(body.0) };
        Ok(Self { table_id, kind, ends_statement: flags & STATEMENT_END != 0, width, before, after, rows })
    }

    /// The rows, one by one, as the bytes of their images; `forms` are those of the table's columns.
    pub fn split<'r>(&'r self, forms: &'r [Form]) -> Result<RowSplitter<'r>, Malformed> {
        // A statement that has changed nothing ends with an event for no table.
        if forms.len() != self.width && !self.rows.is_empty() {
            return Err(Malformed::Width { event: self.width, map: forms.len() });
        }
        let images = Images { kind: self.kind, forms, before: self.before, after: self.after };
        Ok(RowSplitter { images, rest: &self.rows })
    }
}

/// How the images of a row are read.
#[derive(Debug, Clone, Copy)]
pub struct Images<'a> {
    pub kind: RowsKind,
    pub forms: &'a [Form],
    pub before: Presence<'a>,
    pub after: Presence<'a>,
}

/// What an image has for a column.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Cell<'a> {
    /// Nothing: the image leaves it out.
    #[default]
    Absent,
    Null,
    /// The value, its own length field included.
    Value(&'a [u8]),
    /// A list of changes to the JSON document that the old row has.
    Diff(&'a [u8]),
}

impl<'a> Images<'a> {
    /// Finds the values of a row; `cell(after, column, what)` is called for every column that its images have. Returns
    /// how many bytes the images take.
    #[inline]
    pub fn walk(&self, bytes: &'a [u8], mut cell: impl FnMut(bool, usize, Cell<'a>)) -> Result<usize, Malformed> {
        let mut rest = Bytes(bytes);
        if self.kind != RowsKind::Insert {
            self.image(&mut rest, self.before, &[], |column, found| cell(false, column, found))?;
        }
        if self.kind != RowsKind::Delete {
            let diffs = if self.kind == RowsKind::PartialUpdate { self.diffs(&mut rest)? } else { &[] };
            self.image(&mut rest, self.after, diffs, |column, found| cell(true, column, found))?;
        }
        Ok(bytes.len() - rest.0.len())
    }

    /// Which JSON columns, counted among themselves, are sent as differences.
    fn diffs(&self, rest: &mut Bytes<'a>) -> Result<&'a [u8], Malformed> {
        const PARTIAL_JSON: u64 = 1;
        if rest.lenenc()? & PARTIAL_JSON == 0 {
            return Ok(&[]);
        }
        let count = self.forms.iter().filter(|form| matches!(form, Form::Json(_))).count();
        rest.take(count.div_ceil(8))
    }

    #[inline]
    fn image(
        &self,
        rest: &mut Bytes<'a>,
        present: Presence<'a>,
        diffs: &[u8],
        mut cell: impl FnMut(usize, Cell<'a>),
    ) -> Result<(), Malformed> {
        let nulls = rest.take(present.count(self.forms.len()).div_ceil(8))?;
        let (mut at, mut documents) = (0, 0);
        for (column, form) in self.forms.iter().enumerate() {
            let is_document = matches!(form, Form::Json(_));
            let is_diff = is_document && bit(diffs, documents);
            documents += usize::from(is_document);
            if !present.has(column) {
                continue;
            }
            if bit(nulls, at) {
                cell(column, Cell::Null);
            } else {
                let length = form.length(rest.0).ok_or(Malformed::Short)?;
                let value = rest.take(length)?;
                cell(column, if is_diff { Cell::Diff(value) } else { Cell::Value(value) });
            }
            at += 1;
        }
        Ok(())
    }
}

/// The rows of an event.
#[derive(Debug, Clone)]
pub struct RowSplitter<'r> {
    images: Images<'r>,
    rest: &'r [u8],
}

impl<'r> Iterator for RowSplitter<'r> {
    type Item = Result<&'r [u8], Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match self.images.walk(self.rest, |_, _, _| ()) {
            // A row without a byte would never end.
            Ok(0) => {
                self.rest = &[];
                Some(Err(Malformed::Other("its rows have no columns")))
            }
            Ok(length) => {
                let (row, rest) = self.rest.split_at(length);
                self.rest = rest;
                Some(Ok(row))
            }
            Err(malformed) => {
                self.rest = &[];
                Some(Err(malformed))
            }
        }
    }
}
