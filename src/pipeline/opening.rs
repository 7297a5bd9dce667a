//! Opening the warehouse: a process whose warehouse is away when it starts reads its sources into the lake meanwhile.

use std::sync::Arc;

use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::config::Topology;
use crate::error::{Disposition, Result};
use crate::pipeline::backoff::Backoff;
use crate::pipeline::report::{Report, WAREHOUSE};
use crate::warehouse::{self, Warehouse};

/// The warehouse that all loaders of a process share, once it is open.
#[derive(Clone)]
pub struct Opening {
    topology: Arc<Topology>,
    report: Arc<Report>,
    open: Arc<OnceCell<Arc<dyn Warehouse>>>,
}

impl Opening {
    /// Nothing is opened yet.
    pub fn new(topology: Arc<Topology>, report: Arc<Report>) -> Self {
        Self { topology, report, open: Arc::default() }
    }

    /// One attempt, which all who ask at the same time share.
    pub async fn once(&self) -> Result<Arc<dyn Warehouse>> {
        let opened = self.open.get_or_try_init(|| async {
            let warehouse = warehouse::open(&self.topology.warehouse, &self.topology.name).await?;
            for fresh in warehouse.freshness().await? {
                self.report.fresh(&fresh.table, fresh.max_source_time_us);
            }
            Ok(warehouse)
        });
        opened.await.cloned()
    }

    /// Attempts until it is open; `None` once `stop` is cancelled. What will not pass is an error.
    pub async fn patiently(&self, stop: &CancellationToken) -> Result<Option<Arc<dyn Warehouse>>> {
        let mut backoff = Backoff::default();
        loop {
            // What is open already is used, also when it is time to stop: what the log has is still to be loaded.
            let opened = tokio::select! {
                biased;
                opened = self.once() => opened,
                () = stop.cancelled() => return Ok(None),
            };
            let error = match opened {
                Ok(warehouse) => return Ok(Some(warehouse)),
                Err(error) if error.disposition() == Disposition::Retry => error,
                Err(error) => return Err(error),
            };
            self.report.problem(WAREHOUSE, &error);
            tokio::select! {
                () = stop.cancelled() => return Ok(None),
                () = backoff.wait() => {}
            }
        }
    }
}
