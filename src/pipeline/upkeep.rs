//! What is looked after now and then, beside the stream: the lake's sweep and compaction, and rows that the warehouse holds
//! back. None of it stops the process: what fails is said, and tried again at the next turn.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use tokio_util::sync::CancellationToken;

use crate::config::Topology;
use crate::error::Result;
use crate::lake::{CompactOptions, Log, Outsiders, compact, retire, sweep};
use crate::pipeline::opening::Opening;
use crate::pipeline::report::{Report, WAREHOUSE};
use crate::warehouse::Inspect;

/// The first sweep comes after what a start-up has to do.
const FIRST_SWEEP: Duration = Duration::from_secs(60);
/// Often enough that what expires is announced well before.
const SWEEP_EVERY: Duration = Duration::from_secs(6 * 3600);
/// The first compaction comes after the first sweep.
const FIRST_COMPACTION: Duration = Duration::from_secs(120);
/// How often the warehouse is asked for rows without a base.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// A connection to the warehouse that nobody has used for so long is closed.
const UNUSED: Duration = Duration::from_secs(300);

/// Sweeps the lake until `stop`.
pub async fn sweep_regularly(log: Arc<Log>, report: Arc<Report>, stop: CancellationToken) -> Result<()> {
    let mut pause = FIRST_SWEEP;
    let task = Task::new("sweep", &report);
    while pass(pause, &stop).await {
        pause = SWEEP_EVERY;
        let swept = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            swept = task.done(sweep(&log)) => swept,
        };
        if let Some(swept) = swept {
            let deleted = swept.unnamed.len() + swept.expired_raw.len() + swept.expired_quarantine.len();
            tracing::info!(seen = swept.seen, deleted, bytes = swept.bytes, "swept the lake");
            report.swept(&swept);
        }
    }
    Ok(())
}

/// Compacts closed hours until `stop`, every so often, and deletes what was replaced a day ago.
pub async fn compact_regularly(
    log: Arc<Log>,
    every: Duration,
    options: CompactOptions,
    outsiders: Arc<dyn Outsiders>,
    report: Arc<Report>,
    stop: CancellationToken,
) -> Result<()> {
    let mut pause = FIRST_COMPACTION.min(every);
    let task = Task::new("compaction", &report);
    while pass(pause, &stop).await {
        pause = every;
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _done = task.done(compact_once(&log, &options, &*outsiders)) => {}
        }
    }
    Ok(())
}

async fn compact_once(log: &Log, options: &CompactOptions, outsiders: &dyn Outsiders) -> Result<()> {
    compact(log, Utc::now(), options).await?;
    let retired = retire(log, outsiders).await?;
    if retired.entries > 0 {
        let (files, bytes) = (retired.files, retired.bytes);
        tracing::info!(files, bytes, "deleted files that were compacted a day ago");
    }
    Ok(())
}

/// Brings the lake's catalog up to date until `stop`.
#[cfg(feature = "s3")]
pub async fn catalog_regularly(
    log: Arc<Log>,
    catalog: Arc<crate::lake::Catalog>,
    every: Duration,
    report: Arc<Report>,
    stop: CancellationToken,
) -> Result<()> {
    let task = Task::new("catalog", &report);
    while pass(every, &stop).await {
        let followed = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            followed = task.done(catalog.follow(&log)) => followed,
        };
        if let Some(report) = followed {
            tracing::debug!(?report, "the catalog is up to date");
        }
    }
    Ok(())
}

/// Something that is done now and then: how long it takes, and whether it fails, is said.
struct Task<'a> {
    name: &'static str,
    report: &'a Report,
}

impl<'a> Task<'a> {
    fn new(name: &'static str, report: &'a Report) -> Self {
        report.keeps_up(name);
        Self { name, report }
    }

    async fn done<T>(&self, what: impl Future<Output = Result<T>>) -> Option<T> {
        let begun = Instant::now();
        let done = what.await;
        self.report.kept_up(self.name, begun.elapsed(), done.as_ref().err());
        done.inspect_err(|error| tracing::warn!("{} of the lake: {error}; trying again at the next turn", self.name))
            .ok()
    }
}

/// Asks the warehouse how many partial rows wait there for a base, until `stop`, through the connections of the loaders: only
/// after loads, where an idle warehouse costs nothing and a question wakes it up. Closes connections that are not used.
pub async fn watch_warehouse(
    topology: Arc<Topology>,
    report: Arc<Report>,
    opening: Opening,
    stop: CancellationToken,
) -> Result<()> {
    let mut asked_after: Option<u64> = None;
    loop {
        if let Some(warehouse) = opening.open() {
            warehouse.close_unused(UNUSED);
            let units = report.units();
            if asked_after != Some(units) || !topology.warehouse.sleeps_when_idle() {
                let asked = tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    asked = ask(&**warehouse, &report) => asked,
                };
                asked_after = asked.is_ok().then_some(units);
                match asked {
                    Ok(()) => report.solved(WAREHOUSE),
                    Err(error) => {
                        tracing::debug!("{error}");
                        report.problem(WAREHOUSE, &error);
                    }
                }
            }
        }
        if !pass(ASK_EVERY, &stop).await {
            return Ok(());
        }
    }
}

async fn ask(warehouse: &dyn Inspect, report: &Report) -> Result<()> {
    report.incompletes(&warehouse.count_incompletes().await?);
    Ok(())
}

/// Waits; `false` when it is time to stop.
async fn pass(time: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        () = tokio::time::sleep(time) => true,
    }
}
