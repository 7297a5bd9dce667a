//! Where people look. The ledger stands in the same transaction as the rows.

use async_trait::async_trait;

use crate::contract::Contract;
use crate::epoch::{Applied, DeleteMode, LoadUnit};
use crate::error::Result;

/// A warehouse.
#[async_trait]
pub trait Warehouse: Send + Sync {
    /// Reads the group's ledger; `None` = never loaded.
    async fn applied(&self, group: &str) -> Result<Option<Applied>>;

    /// Makes the live table what the contract's `output` says: creates it, adds columns, widens types. Repeatable; never
    /// drops or narrows anything; columns that people added themselves stay. Runs outside the load's transaction.
    async fn ensure(&self, contract: &Contract, mode: DeleteMode) -> Result<()>;

    /// Applies a unit in one transaction, ledger included, as a compare-and-set: [`ErrorKind::LedgerMoved`]
    /// (crate::error::ErrorKind::LedgerMoved) when the ledger does not stand at `unit.after`. When the answer to the
    /// commit is lost, the caller reads the ledger. Deterministic: the same units give the same rows.
    async fn apply(&self, unit: &LoadUnit) -> Result<Applied>;

    /// The SQL that `ensure` and `apply` would run for this contract on an empty warehouse, for `dataflow plan`.
    fn plan(&self, contract: &Contract, mode: DeleteMode) -> Vec<String>;
}
