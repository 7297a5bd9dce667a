//! `filter`: rows for which a condition does not hold are left out.

use arrow::array::{Array, AsArray};

use crate::config;
use crate::error::Result;

use super::expression::Expression;
use super::rows::{Context, Rows};
use super::scope::Scope;
use super::syntax::Syntax;
use super::validate::{check_name, unjudged};
use super::{Fault, Step, Transform};

/// A filter without its columns.
pub(super) struct Filter {
    name: String,
    keep: Syntax,
}

/// A filter over columns.
struct Condition {
    name: String,
    keep: Expression,
}

impl Filter {
    /// Reads the operator.
    pub fn new(config: &config::Filter) -> Result<Self, Vec<Fault>> {
        let mut faults: Vec<Fault> = check_name("filter.name", &config.name).err().into_iter().collect();
        match Syntax::parse("filter.keep", &config.keep) {
            Ok(keep) if faults.is_empty() => Ok(Self { name: config.name.clone(), keep }),
            Ok(_) => Err(faults),
            Err(fault) => {
                faults.push(fault);
                Err(faults)
            }
        }
    }
}

impl Transform for Filter {
    fn bind(&self, scope: &mut Scope) -> Result<Box<dyn Step>, Fault> {
        Ok(Box::new(Condition { name: self.name.clone(), keep: Expression::condition(&self.keep, scope)? }))
    }
}

impl Step for Condition {
    fn apply(&self, rows: &mut Rows, context: &Context<'_>) -> Result<()> {
        let selection = rows.select(&self.keep.columns);
        let result = rows.evaluate(&self.keep, &selection)?;
        let keep = result.values.as_boolean();
        let mut failures = result.failures.iter().peekable();
        for index in 0..keep.len() {
            if keep.is_valid(index) && keep.value(index) {
                continue;
            }
            let row = selection.row(index);
            match failures.next_if(|(failed, _)| *failed == index) {
                // Whether the row belongs here is not known: that is not the same as not belonging.
                Some((_, words)) => rows.refuse(row, &self.name, context.failure(&self.keep, words)),
                None => rows.leave_out(row, &self.name),
            }
        }
        for row in selection.blocked {
            rows.refuse(row, &self.name, unjudged(&self.keep));
        }
        Ok(())
    }
}
