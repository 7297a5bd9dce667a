//! Which columns of a table are compared, and what may be shown of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::Operator;
use crate::contract::{Contract, Type};
use crate::error::{Error, ErrorKind, Result};
use crate::operator::Chain;
use crate::source::Keys;
use crate::warehouse::HeldKeys;

use super::value;

/// The columns of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The table.
    pub table: String,
    /// Names and types, as the warehouse has them.
    pub columns: Vec<(String, Type)>,
    /// The positions of the key; empty: a table without one, whose rows are compared as a whole.
    pub key: Vec<usize>,
    /// The key's columns by the source's names.
    pub source_key: Vec<String>,
    /// Whether the key's values are those of the source.
    pub plain_key: bool,
    /// Whose values must not be shown.
    pub hidden: Vec<bool>,
    /// Columns of the warehouse that are not compared, and why.
    pub left_out: Vec<String>,
    /// The warehouse keeps JSON as documents, whose text is its own.
    pub documents: bool,
}

impl Layout {
    /// The columns of `contract` (the log's newest) that today's operators make of what the source has now.
    pub fn new(contract: &Arc<Contract>, chain: &Chain, operators: &[Operator], source: &[String]) -> Result<Self> {
        let unfit = |mistake| {
            Error::new(ErrorKind::Table(contract.table.clone()), format!("the operators do not fit: {mistake}"))
                .help("run `dataflow check`")
        };
        let made = chain.output(&contract.input).map_err(unfit)?;
        let names = chain.names(&contract.input).map_err(unfit)?;
        let masked = masked(chain, operators);
        let origin = |name: &str| names.iter().find(|(_, output)| output == name).map(|(origin, _)| origin.as_str());
        let mut layout = Self {
            table: contract.table.clone(),
            columns: Vec::new(),
            key: Vec::new(),
            source_key: Vec::new(),
            plain_key: true,
            hidden: Vec::new(),
            left_out: Vec::new(),
            documents: false,
        };
        for column in &contract.output.columns {
            let from = origin(&column.name);
            if made.column(&column.name).is_none() {
                layout.left_out.push(format!("{} (today's operators do not make it)", column.name));
            } else if from
                .is_some_and(|from| contract.input.column(from).is_some() && !source.iter().any(|s| s == from))
            {
                layout.left_out.push(format!("{} (the source no longer has it)", column.name));
            } else {
                layout.columns.push((column.name.clone(), column.data_type));
                layout.hidden.push(from.is_some_and(|from| masked.contains(from)));
            }
        }
        let new = made.columns.iter().filter(|column| contract.output.column(&column.name).is_none());
        layout.left_out.extend(new.map(|column| format!("{} (nothing of it has been read yet)", column.name)));
        for name in &contract.output.key {
            let at = layout.columns.iter().position(|(column, _)| column == name);
            let (Some(at), Some(from)) = (at, origin(name)) else {
                let what = format!("the key column {name} of table {} is not at the source any more", contract.table);
                return Err(Error::new(ErrorKind::Table(contract.table.clone()), what));
            };
            layout.key.push(at);
            layout.plain_key &= !layout.hidden[at] && contract.input.column(from).is_some();
            layout.source_key.push(from.to_owned());
        }
        Ok(layout)
    }

    /// A row and its key as bytes, from its values in order.
    pub fn write<'c>(
        &self,
        row: &mut Vec<u8>,
        key: &mut Vec<u8>,
        cells: impl Fn(usize, &mut String) -> bool + 'c,
        text: &mut String,
    ) {
        row.clear();
        key.clear();
        let mut spans = Vec::with_capacity(self.columns.len());
        for at in 0..self.columns.len() {
            text.clear();
            let mut there = cells(at, text);
            if self.documents && self.columns[at].1 == Type::Json {
                value::document(text);
                // Whether the document `null` is told from none is nowhere promised.
                there &= text != "null";
            }
            let start = row.len();
            value::push_cell(row, there.then_some(text.as_str()));
            spans.push(start..row.len());
        }
        if self.key.is_empty() {
            key.extend_from_slice(row);
        }
        self.key.iter().for_each(|at| key.extend_from_slice(&row[spans[*at].clone()]));
    }

    /// The same keys as the source and the warehouse take them; `None` where they must be found among all rows.
    pub fn keys<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) -> Option<(Option<Keys>, HeldKeys)> {
        if self.key.is_empty() {
            return None;
        }
        let columns: Vec<(String, Type)> = self.key.iter().map(|at| self.columns[*at].clone()).collect();
        let mut rows = Vec::new();
        for key in keys {
            let values: Option<Vec<String>> = value::cells(key).into_iter().collect();
            rows.push(
                values?.into_iter().zip(&columns).map(|(text, (_, data_type))| literal(*data_type, text)).collect(),
            );
        }
        let source = self.plain_key.then(|| Keys { columns: self.source_key.clone(), rows: rows.clone() });
        Some((source, HeldKeys { columns, rows }))
    }
}

/// The text of a key's value as databases take it.
fn literal(data_type: Type, normal: String) -> String {
    if data_type == Type::Binary { format!("\\x{normal}") } else { normal }
}

/// Names that a mask lies on: of source columns, and of columns that operators make.
fn masked(chain: &Chain, operators: &[Operator]) -> BTreeSet<String> {
    let mut masked = chain.masked_columns();
    let mut named: BTreeSet<String> = BTreeSet::new();
    for operator in operators {
        match operator {
            Operator::Mask(mask) => named.extend(mask.columns.iter().cloned()),
            Operator::Rename(names) => {
                named = named.into_iter().map(|name| names.get(&name).cloned().unwrap_or(name)).collect();
            }
            _ => {}
        }
    }
    masked.append(&mut named);
    masked
}
