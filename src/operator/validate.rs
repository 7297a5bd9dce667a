//! `validate`: rows that break a rule are refused, removed, tagged, or stop everything.

use arrow::array::{Array, AsArray};

use crate::config;
use crate::config::Otherwise;
use crate::error::{Error, ErrorKind, Result};

use super::expression::Expression;
use super::rows::{Context, Rows};
use super::scope::Scope;
use super::syntax::Syntax;
use super::{Fault, Step, Transform};

/// Names that stand for refusals of other parts.
const RESERVED: [&str; 4] = ["decode", "contract", "incomplete", "load"];

/// A rule without its columns.
pub(super) struct Validate {
    name: String,
    rule: Syntax,
    otherwise: Otherwise,
}

/// A rule over columns.
struct Rule {
    name: String,
    otherwise: Otherwise,
    condition: Expression,
}

impl Validate {
    /// Reads the operator.
    pub fn new(config: &config::Validate) -> Result<Self, Vec<Fault>> {
        let mut faults: Vec<Fault> = check_name("validate.name", &config.name).err().into_iter().collect();
        match Syntax::parse("validate.rule", &config.rule) {
            Ok(rule) if faults.is_empty() => Ok(Self { name: config.name.clone(), rule, otherwise: config.otherwise }),
            Ok(_) => Err(faults),
            Err(fault) => {
                faults.push(fault);
                Err(faults)
            }
        }
    }
}

/// Checks the name of a rule or filter.
pub(super) fn check_name(path: &str, name: &str) -> Result<(), Fault> {
    if name.trim().is_empty() {
        return Err(Fault::new(path, "the name is empty").help("it stands in the quarantine, the account and metrics"));
    }
    if name.contains(',') {
        return Err(Fault::new(path, format!("`{name}` has a comma")).help("names are listed with commas between them"));
    }
    if RESERVED.contains(&name) || name.starts_with("compute.") {
        return Err(Fault::new(path, format!("`{name}` stands for another kind of refusal")).help("take another name"));
    }
    Ok(())
}

impl Transform for Validate {
    fn bind(&self, scope: &mut Scope) -> Result<Box<dyn Step>, Fault> {
        let condition = Expression::condition(&self.rule, scope)?;
        scope.tags |= self.otherwise == Otherwise::Tag;
        Ok(Box::new(Rule { name: self.name.clone(), otherwise: self.otherwise, condition }))
    }
}

impl Rule {
    fn broken(&self, rows: &mut Rows, row: usize, why: String, context: &Context<'_>) -> Result<()> {
        match self.otherwise {
            Otherwise::KeepLast => rows.refuse(row, &self.name, why),
            Otherwise::Remove => rows.remove(row, &self.name, why),
            Otherwise::Tag => rows.tag(row, &self.name),
            Otherwise::Halt => {
                return Err(Error::new(
                    ErrorKind::RuleHalt,
                    format!(
                        "table {}, rule {}: {why}; the row is at {}, _seq {}",
                        context.table, self.name, context.partition, context.changes.seqs[row]
                    ),
                )
                .help(
                    "the rule says `otherwise: halt`: find out why the source sent the row, then set the rule to \
                     keep_last, remove or tag (or change it) and start again; nothing was lost",
                ));
            }
        }
        Ok(())
    }
}

impl Step for Rule {
    fn apply(&self, rows: &mut Rows, context: &Context<'_>) -> Result<()> {
        let selection = rows.select(&self.condition.columns);
        let result = rows.evaluate(&self.condition, &selection)?;
        let holds = result.values.as_boolean();
        let mut failures = result.failures.iter().peekable();
        for index in 0..holds.len() {
            if holds.is_valid(index) && holds.value(index) {
                continue;
            }
            let why = match failures.next_if(|(failed, _)| *failed == index) {
                Some((_, words)) => context.failure(&self.condition, words),
                None if holds.is_null(index) => format!("`{}` is null for this row", self.condition.text),
                None => format!("`{}` does not hold for this row", self.condition.text),
            };
            self.broken(rows, selection.row(index), why, context)?;
        }
        for row in selection.blocked {
            rows.refuse(row, &self.name, unjudged(&self.condition));
        }
        Ok(())
    }
}

/// Why a row that lacks values cannot be judged.
pub(super) fn unjudged(condition: &Expression) -> String {
    format!(
        "`{}` reads a column that the source left unchanged in this row; let the source send full images (PostgreSQL: \
         REPLICA IDENTITY FULL, MySQL: binlog_row_image=FULL)",
        condition.text
    )
}
