//! What happens to rows between decoder and lake: stateless operators over Arrow batches. No clock, no I/O.

use crate::batch::{Reject, TableChanges};
use crate::contract::TableSchema;
use crate::epoch::TableAccount;
use crate::error::Result;

/// What operators leave beside the rows.
#[derive(Debug, Default)]
pub struct Output {
    /// Rows that were refused.
    pub rejects: Vec<Reject>,
    /// Rows filtered and refused, by name. `decoded` and `written` are the caller's.
    pub account: TableAccount,
}

/// A stateless operator: same input, same output, in every process.
pub trait Transform: Send + Sync {
    /// The columns after this operator, given those before it; an error when a name or a type does not fit.
    fn schema(&self, input: &TableSchema) -> Result<TableSchema>;

    /// Transforms rows. Rows that leave are in `output`.
    fn apply(&self, changes: TableChanges, output: &mut Output) -> Result<TableChanges>;
}
