//! From payloads to columns. A bad record is a [`Reject`](crate::batch::Reject), never an error.

pub mod binlog;
pub mod debezium;
pub mod pgoutput;
mod routed;

use std::sync::Arc;

use crate::batch::{ChangeBatch, RawBatch};
use crate::contract::Contract;
use crate::error::Result;
use crate::progress::{Partition, Progress};

/// Makes columnar changes of raw records. Does no I/O; may keep what it learned.
pub trait Decoder: Send {
    /// Decodes a batch. Batches of one partition come in order and join on. Every record is in the returned account.
    ///
    /// The returned span may end early: when the last records cannot be understood without the ones that follow (half of
    /// a key update), they are kept and become part of the partition's next batch.
    fn decode(&mut self, raw: &RawBatch) -> Result<ChangeBatch>;

    /// Gives out what is kept back in `partition`, as far as it can be understood alone; `None` when nothing is kept.
    /// Called when half a move has waited for a whole epoch, and before a shutdown.
    fn flush(&mut self, partition: &Partition) -> Result<Option<ChangeBatch>>;

    /// Takes over contracts from the log (at start, and when another process has learned something). Known contracts
    /// only ever grow.
    fn adopt(&mut self, contracts: &[Arc<Contract>]) -> Result<()>;

    /// Starts or starts again where the log stands: forgets what is kept back, and takes the mark from the log.
    fn reset(&mut self, partition: &Partition, progress: &Progress);

    /// Starts with records of a partition that are read in again, out of their order (a retry from quarantine): the log
    /// stands beyond them, so nothing counts as delivered before.
    fn revisit(&mut self, partition: &Partition, progress: &Progress);
}
