//! Opening what may be away when a process starts. Without its warehouse it reads its sources into the lake meanwhile;
//! without a source it loads what the lake has.

use std::sync::Arc;

use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::config::{Loaded, Topology};
use crate::error::{Disposition, Result};
use crate::lake::Log;
use crate::pipeline::backoff::Backoff;
use crate::pipeline::build::{self, Parts};
use crate::pipeline::report::{Report, WAREHOUSE};
use crate::pipeline::staging::open_to_load;
use crate::progress::Standings;
use crate::telemetry::Status;
use crate::warehouse::{Inspect, Staging};

/// The warehouse that all loaders of a process share, once it is open.
#[derive(Clone)]
pub struct Opening {
    topology: Arc<Topology>,
    log: Arc<Log>,
    report: Arc<Report>,
    staging: Arc<dyn Staging>,
    open: Arc<OnceCell<Arc<dyn Inspect>>>,
}

impl Opening {
    /// Nothing is opened yet. `staging`: where it stages what it loads.
    pub fn new(topology: Arc<Topology>, log: Arc<Log>, report: Arc<Report>, staging: Arc<dyn Staging>) -> Self {
        Self { topology, log, report, staging, open: Arc::default() }
    }

    /// One attempt, which all who ask at the same time share.
    pub async fn once(&self) -> Result<Arc<dyn Inspect>> {
        let opened = self.open.get_or_try_init(|| async {
            let warehouse = open_to_load(&self.topology, &self.staging, &self.log.state()).await?;
            for fresh in warehouse.freshness().await? {
                self.report.fresh(&fresh.table, fresh.max_source_time_us);
            }
            Ok(warehouse)
        });
        opened.await.cloned()
    }

    /// What is open.
    pub fn open(&self) -> Option<&Arc<dyn Inspect>> {
        self.open.get()
    }

    /// Attempts until it is open; `None` once `stop` is cancelled. What will not pass is an error.
    pub async fn patiently(&self, stop: &CancellationToken) -> Result<Option<Arc<dyn Inspect>>> {
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

/// What a source that cannot be opened is called among the problems.
const SOURCES: &str = "opening the sources";

/// Connects the sources, as often as it takes; none of them once `stop` is cancelled. Who wants an end (`once`) wants to know
/// that it is not one.
pub async fn sources(
    loaded: &Loaded,
    standings: &Arc<dyn Standings>,
    once: bool,
    status: &Arc<Status>,
    stop: &CancellationToken,
) -> Result<Parts> {
    let mut backoff = Backoff::default();
    loop {
        let opened = tokio::select! {
            opened = build::parts(loaded, standings, status) => opened,
            () = stop.cancelled() => return build::no_parts(loaded),
        };
        match opened {
            Err(error) if error.disposition() == Disposition::Retry && !once => {
                tracing::warn!(attempt = backoff.attempts(), "{error}; trying again");
                status.problem(SOURCES, error.to_string(), error.help_text().map(str::to_owned));
            }
            opened => {
                status.solved(SOURCES);
                return opened;
            }
        }
        tokio::select! { () = stop.cancelled() => {} () = backoff.wait() => {} }
    }
}
