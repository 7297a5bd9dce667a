//! What happens to rows between decoder and lake: stateless operators over Arrow batches. No clock, no I/O.
//!
//! | file | what it owns |
//! |---|---|
//! | `chain.rs` | [`Chain`]: all operators of a table; checked once, bound to columns once per schema |
//! | `rows.rs` | the rows on their way through a chain, and what becomes of those that leave it |
//! | `scope.rs` | the columns between two operators, and which source columns they come from |
//! | `syntax.rs` | SQL text to syntax tree; positions of mistakes |
//! | `functions.rs` | which SQL functions and types an expression may use |
//! | `expression.rs` | syntax tree to physical expression, evaluated so that a bad row spoils only itself |
//! | `validate.rs` `filter.rs` `mask.rs` `compute.rs` `rename.rs` | one operator each (`rename.rs` also drops) |
//! | `loads.rs` | what the warehouse cannot hold is refused |
//! | `naming.rs` | the one rule that maps column names to what every warehouse accepts |
//! | `text.rs` | one text per value: pseudonyms are made of it |
//! | `row_json.rs` | refused rows as JSON, masked |
//!
//! # What becomes of a row
//!
//! Deletes, truncates and markers pass: only their key is masked and renamed. Every other row is seen by each operator
//! in order until one takes it out:
//!
//! | | insert, snapshot row | update | move (the key changes) |
//! |---|---|---|---|
//! | filter does not keep it | left out, `filtered` | delete | delete of the old key |
//! | rule broken, `keep_last` | `rejected` | marker [`Op::Refused`](crate::batch::Op::Refused), `rejected` | delete of the old key, `replaced` |
//! | rule broken, `remove` | delete, `replaced` | delete, `replaced` | delete of the old key, `replaced` |
//!
//! A move is the end of one key and the begin of another. When its new version is refused the old key ends all the
//! same: the source has no such row any more, and nothing that comes later could ever remove it.
//!
//! In a table without a key nothing can be deleted or marked: what a rule breaks is `rejected`, what a filter does not
//! keep is `filtered`.
//!
//! A rule that is null, or that fails on a row (division by zero, a cast), is broken. An expression that reads a column
//! which the source left unchanged cannot be judged here: rule and filter refuse the row as `keep_last` would and say
//! that full images are needed; a computed column becomes unchanged too.

mod chain;
mod compute;
mod expression;
mod filter;
mod functions;
mod loads;
mod mask;
mod naming;
mod rename;
mod row_json;
mod rows;
mod scope;
mod syntax;
pub(crate) mod text;
mod validate;

pub use chain::{Chain, ChainMistake};
pub use naming::{MAX_NAME_BYTES, safe_name};

use std::collections::{BTreeMap, BTreeSet};

use crate::batch::Reject;
use crate::epoch::TableAccount;
use crate::error::Result;

use rows::{Context, Rows};
use scope::Scope;

/// What operators leave beside the rows.
#[derive(Debug, Default)]
pub struct Output {
    /// Rows that were refused.
    pub rejects: Vec<Reject>,
    /// Rows filtered and refused, by name. `decoded` and `written` are the caller's.
    pub account: TableAccount,
    /// Values that became null because the warehouse cannot hold them (`on_mismatch: ignore`), by column.
    pub left_out: BTreeMap<String, LeftOut>,
}

/// Values of a column that became null.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// How many.
    pub values: u64,
    /// What is wrong with the first of them.
    pub why: String,
}

impl LeftOut {
    /// Adds what was left out after it.
    pub fn add(&mut self, more: Self) {
        self.values += more.values;
        if self.why.is_empty() {
            self.why = more.why;
        }
    }
}

/// Which source columns a name stands for, while a chain is read without knowing the columns. A name that is not in it
/// stands for itself.
type Lineage = BTreeMap<String, BTreeSet<String>>;

/// A stateless operator as the topology says it, checked as far as that goes without columns.
trait Transform: Send + Sync {
    /// Checks names and types against the columns before it, and makes the columns after it.
    fn bind(&self, scope: &mut Scope) -> Result<Box<dyn Step>, Fault>;

    /// Follows names through the operator; source columns that it masks go to `masked`.
    fn trace(&self, _names: &mut Lineage, _masked: &mut BTreeSet<String>) {}
}

/// An operator that is bound to columns: same input, same output, in every process.
trait Step: Send + Sync {
    /// Works on the rows in place.
    fn apply(&self, rows: &mut Rows, context: &Context<'_>) -> Result<()>;
}

/// A mistake inside one operator.
#[derive(Debug)]
struct Fault {
    /// The field, e.g. `validate.rule`.
    path: String,
    /// The byte in an expression's text.
    offset: Option<usize>,
    message: String,
    help: Option<String>,
}

impl Fault {
    fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), offset: None, message: message.into(), help: None }
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    fn offset(mut self, offset: Option<usize>) -> Self {
        self.offset = offset;
        self
    }
}

/// The known name that is most like `name`, when one is like it at all.
fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = name.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&wanted, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| distance * 2 <= wanted.chars().count().max(candidate.chars().count()))
        .min_by(|a, b| a.0.cmp(&b.0).then(a.1.cmp(b.1)))
        .map(|(_, candidate)| candidate)
}
