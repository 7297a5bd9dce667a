//! `compute`: columns are added or replaced by SQL expressions. All expressions of one operator see the columns before
//! it, so their order does not matter.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{ArrayRef, UInt32Array, new_null_array};
use arrow::buffer::BooleanBuffer;
use arrow::compute::take;

use crate::contract::Column;
use crate::error::{Error, ErrorKind, Result};

use super::expression::Expression;
use super::rows::{Context, Rows, Selection};
use super::scope::{Scope, ScopeColumn};
use super::syntax::Syntax;
use super::{Fault, Lineage, Step, Transform};

/// Computed columns without the columns that they read.
pub(super) struct Compute {
    columns: Vec<(String, Syntax)>,
}

/// Computed columns.
struct Computed {
    columns: Vec<Target>,
}

struct Target {
    /// In the quarantine and the account: `compute.<column>`.
    rule: String,
    /// The column that is replaced; the others are appended in order.
    replaces: Option<usize>,
    expression: Expression,
}

impl Compute {
    /// Reads the operator.
    pub fn new(config: &BTreeMap<String, String>) -> Result<Self, Vec<Fault>> {
        let (mut columns, mut faults) = (Vec::new(), Vec::new());
        if config.is_empty() {
            faults.push(Fault::new("compute", "there is no column to compute"));
        }
        for (name, text) in config {
            let path = format!("compute.{name}");
            if name.trim().is_empty() {
                faults.push(Fault::new(path.clone(), "the column's name is empty"));
            }
            match Syntax::parse(path, text) {
                Ok(syntax) => columns.push((name.clone(), syntax)),
                Err(fault) => faults.push(fault),
            }
        }
        if faults.is_empty() { Ok(Self { columns }) } else { Err(faults) }
    }
}

impl Transform for Compute {
    fn bind(&self, scope: &mut Scope) -> Result<Box<dyn Step>, Fault> {
        let mut columns = Vec::with_capacity(self.columns.len());
        let mut after = scope.clone();
        for (name, syntax) in &self.columns {
            let expression = Expression::bind(syntax, scope)?;
            let replaces = scope.columns.iter().position(|c| c.column.name == *name);
            if replaces.is_some_and(|index| scope.is_key(index)) {
                return Err(syntax
                    .fault(None, format!("`{name}` is part of the key and cannot be computed"))
                    .help("compute a column with another name"));
            }
            let column = ScopeColumn {
                column: Column::new(name.clone(), expression.data_type),
                source: None,
                from: expression.sources.clone(),
                named: true,
            };
            match replaces {
                Some(index) => after.columns[index] = column,
                None => after.columns.push(column),
            }
            columns.push(Target { rule: format!("compute.{name}"), replaces, expression });
        }
        *scope = after;
        Ok(Box::new(Computed { columns }))
    }

    fn trace(&self, names: &mut Lineage, _masked: &mut BTreeSet<String>) {
        let before = names.clone();
        for (name, syntax) in &self.columns {
            // Without the columns it is not known which spelling is meant: every one that fits counts.
            let mut from = BTreeSet::new();
            for read in syntax.identifiers() {
                let alike: Vec<_> = before.iter().filter(|(known, _)| known.eq_ignore_ascii_case(&read)).collect();
                from.extend(alike.iter().flat_map(|(_, sources)| sources.iter().cloned()));
                if !before.contains_key(&read) {
                    from.insert(read);
                }
            }
            names.insert(name.clone(), from);
        }
    }
}

impl Step for Computed {
    fn apply(&self, rows: &mut Rows, context: &Context<'_>) -> Result<()> {
        let mut made = Vec::with_capacity(self.columns.len());
        let mut refused = Vec::new();
        for target in &self.columns {
            let selection = rows.select(&target.expression.columns);
            let result = rows.evaluate(&target.expression, &selection)?;
            for (index, words) in &result.failures {
                refused.push((selection.row(*index), target, context.failure(&target.expression, words)));
            }
            made.push((scatter(&result.values, &selection, rows.len())?, unchanged(&selection, rows.len())));
        }
        for (target, (values, unchanged)) in self.columns.iter().zip(made) {
            match target.replaces {
                Some(index) => {
                    rows.columns[index] = values;
                    rows.unchanged[index] = unchanged;
                }
                None => {
                    rows.columns.push(values);
                    rows.unchanged.push(unchanged);
                }
            }
        }
        // A row that fails in two columns is refused once, for the first.
        let mut seen = BTreeSet::new();
        for (row, target, why) in refused {
            if seen.insert(row) {
                rows.refuse(row, &target.rule, why);
            }
        }
        Ok(())
    }
}

/// Results to the places of their rows; null elsewhere.
fn scatter(values: &ArrayRef, selection: &Selection, len: usize) -> Result<ArrayRef> {
    let Some(rows) = &selection.rows else { return Ok(values.clone()) };
    if rows.is_empty() {
        return Ok(new_null_array(values.data_type(), len));
    }
    let mut places = vec![None; len];
    for (index, row) in rows.values().iter().enumerate() {
        places[*row as usize] = Some(index as u32);
    }
    take(values, &UInt32Array::from(places), None)
        .map_err(|error| Error::new(ErrorKind::Internal, "put computed values in place").because(error))
}

fn unchanged(selection: &Selection, len: usize) -> Option<BooleanBuffer> {
    if selection.blocked.is_empty() {
        return None;
    }
    let mut bits = vec![false; len];
    for row in &selection.blocked {
        bits[*row] = true;
    }
    Some(BooleanBuffer::from(bits))
}
