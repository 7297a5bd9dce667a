//! A catalog of the lake's tables in AWS Glue: what Athena, Redshift Spectrum and EMR find.
//!
//! | file | what it owns |
//! |---|---|
//! | `form.rs` | tables and partitions as Glue describes them |
//! | `glue.rs` | the requests |
//! | `hours.rs` | what the log says of the hours: new files, and where compacted ones are |
//!
//! The catalog is a function of the log: tables are the contracts, partitions are the hours that have files. So a pass that
//! was cut off is just done again. How far a table's partitions have been brought stands in the table itself
//! (`dataflow.through`), for the next process; this one knows it, so a table without news costs no request.
//!
//! # No row twice
//!
//! Who reads by a catalog lists folders, and knows nothing of the log. In `processed/` lies also what no manifest names: the
//! files of an attempt that was killed before its manifest was put, and whose rows were read again. So no partition is
//! there. An hour that is not compacted is shown by a folder of its own (`catalog/T/H/`), into which a pass copies the files
//! of the manifests, under their own names. An hour that is compacted is shown by the folder of the newest entry about it,
//! which holds the files of that entry alone. A partition moves from one to the other in one request, after the entry
//! is in the log; both hold the same rows.
//!
//! The copies go when their partition has been elsewhere for a day ([`Outsiders`]), which is looked at just before, and the
//! originals after them: a query that was planned on them is over, and a process that was slow to move a partition back is
//! corrected. A partition is registered after its first file, so a reader may see the last minute late, and no row twice.
//!
//! # Types
//!
//! A partition has the columns that its files have: those of the version of the contract that they were written with, the
//! newest where an hour has several. A table has those of the newest. Athena reads a file by its partition's types and casts
//! to the table's; a partition that claimed wider types than its files have would be refused.

mod form;
mod glue;
mod hours;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};
use tokio::sync::Mutex;

use super::sweep::MINIMUM_AGE;
use super::{Lake, Log, LogState, Outsiders};
use crate::config;
use crate::contract::Contract;
use crate::epoch::{Compaction, EpochNumber};
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint;
use crate::telemetry;
use glue::{Found, Glue};
use hours::{Places, news};

/// A table says how far its partitions were brought when it has new ones, and after so many epochs without.
const WORTH_AN_UPDATE: u64 = 1024;
/// Manifests that are read at the same time.
const READ_AHEAD: usize = 16;
/// Manifests whose files are shown before it is noted.
const AT_ONCE: EpochNumber = 1024;
/// Files that are copied at the same time.
const COPIES: usize = 8;
/// The folder of hours that are not compacted, as readers of the catalog see them.
const ZONE: &str = "catalog";
/// Hours of a table that are known to be registered.
const HOURS_KNOWN: usize = 48;

/// What a pass did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CatalogReport {
    /// Tables that were made or changed.
    pub tables: Vec<String>,
    /// Partitions that were made.
    pub registered: u64,
    /// Partitions whose place moved.
    pub moved: u64,
}

impl CatalogReport {
    fn count(&self) {
        let made = [("tables", self.tables.len() as u64), ("registered", self.registered), ("moved", self.moved)];
        for (what, count) in made {
            metrics::counter!(telemetry::CATALOG_CHANGES_TOTAL, "what" => what).increment(count);
        }
    }
}

/// The catalog, and what this process knows to be in it.
pub struct Catalog {
    glue: Glue,
    every: Duration,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    database: bool,
    tables: BTreeMap<String, KnownTable>,
}

struct KnownTable {
    /// The version of the contract whose columns it has.
    contract: u32,
    /// How far its partitions were brought, and how far it says so itself.
    through: EpochNumber,
    noted: EpochNumber,
    /// Registered hours, and of which version their columns are.
    hours: BTreeMap<String, u32>,
}

impl Catalog {
    /// The catalog that the topology names. No request.
    pub fn open(lake: &config::Lake) -> Result<Option<Self>> {
        let Some(config::Catalog::Glue(settings)) = &lake.catalog else { return Ok(None) };
        let glue = Glue::open(lake, settings)?;
        Ok(Some(Self { glue, every: settings.every.0, known: Mutex::default() }))
    }

    /// How often it is to be brought up to date.
    pub fn every(&self) -> Duration {
        self.every
    }

    /// Brings the catalog up to the log's end.
    pub async fn follow(&self, log: &Log) -> Result<CatalogReport> {
        let mut known = self.known.lock().await;
        let mut report = CatalogReport::default();
        let followed = self.bring(log, &mut known, &mut report).await;
        // Also of a pass that was cut off: that much is done.
        report.count();
        if followed.is_err() {
            // Somebody may have deleted a table: the next pass asks for everything.
            *known = Known::default();
        }
        followed.map(|()| report)
    }

    async fn bring(&self, log: &Log, known: &mut Known, report: &mut CatalogReport) -> Result<()> {
        let state = log.refresh().await?;
        if !known.database {
            self.glue.ensure_database().await?;
            known.database = true;
        }
        for contract in state.contracts.values() {
            self.bring_table(log.lake().url(), contract, known, report).await?;
        }
        let through = known.tables.values().map(|known| known.through).min().unwrap_or(state.n);
        let mut to = through;
        while to < state.n {
            to = state.n.min(to + AT_ONCE);
            self.bring_partitions(log, &state, to, &mut known.tables, report).await?;
        }
        Ok(())
    }

    /// Shows the files of the manifests up to `to`.
    async fn bring_partitions(
        &self,
        log: &Log,
        state: &LogState,
        to: EpochNumber,
        known: &mut BTreeMap<String, KnownTable>,
        report: &mut CatalogReport,
    ) -> Result<()> {
        let news = news(log, to, known).await?;
        let places = Places::of(log, state, news.values().flat_map(BTreeMap::keys)).await?;
        for (table, hours) in news {
            let Some(known) = known.get_mut(&table) else { continue };
            let mut partitions = Vec::new();
            for (hour, news) in hours {
                let partition = places.partition(log, state, &table, &hour, news.contract)?;
                if !partition.moved {
                    show(log.lake(), news.files).await?;
                }
                let as_known = known.hours.get(&hour).is_some_and(|version| *version >= partition.contract.version);
                if news.compacted || !as_known {
                    partitions.push(partition);
                }
            }
            if partitions.is_empty() {
                continue;
            }
            let (registered, moved) = self.glue.register(&table, &partitions).await?;
            (report.registered, report.moved) = (report.registered + registered, report.moved + moved);
            self.glue.note(&table, form::THROUGH, to).await?;
            known.noted = to;
            known.hours.extend(partitions.into_iter().map(|partition| (partition.hour, partition.contract.version)));
            while known.hours.len() > HOURS_KNOWN {
                known.hours.pop_first();
            }
        }
        for (table, known) in known.iter_mut().filter(|(_, known)| known.through < to) {
            known.through = to;
            if to >= known.noted + WORTH_AN_UPDATE {
                self.glue.note(table, form::THROUGH, to).await?;
                known.noted = to;
            }
        }
        Ok(())
    }

    /// Makes a table, or gives it the columns of its contract.
    async fn bring_table(
        &self,
        url: &str,
        contract: &Contract,
        known: &mut Known,
        report: &mut CatalogReport,
    ) -> Result<()> {
        let table = &contract.table;
        if known.tables.get(table).is_some_and(|known| known.contract == contract.version) {
            return Ok(());
        }
        let Found { through, changed } = self.glue.ensure_table(contract, &form::table(url, contract)).await?;
        if changed {
            report.tables.push(table.clone());
        }
        let fresh = KnownTable { contract: contract.version, through, noted: through, hours: BTreeMap::new() };
        known.tables.entry(table.clone()).or_insert(fresh).contract = contract.version;
        Ok(())
    }
}

#[async_trait]
impl Outsiders for Catalog {
    async fn have_left(
        &self,
        log: &Log,
        hour: &str,
        tables: &BTreeMap<String, Compaction>,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        let state = log.state();
        let places = Places::of(log, &state, [&hour.to_owned()]).await?;
        let mut left = true;
        for table in tables.keys() {
            let Some((location, moved_at)) = self.glue.partition(table, hour).await? else { continue };
            let wanted = places.partition(log, &state, table, hour, 0)?;
            if location != wanted.location {
                tracing::warn!(table, hour, location, "the catalog has an older place of a partition; moving it");
                self.glue.update(table, &[wanted]).await?;
                left = false;
            } else {
                left &= moved_at.is_none_or(|moved_at| now - moved_at > MINIMUM_AGE);
            }
        }
        if left {
            for table in tables.keys() {
                forget(log.lake(), table, hour).await?;
            }
        }
        Ok(left)
    }
}

/// Copies committed files to where readers of the catalog see them.
async fn show(lake: &Lake, files: Vec<String>) -> Result<()> {
    futures::stream::iter(files)
        .map(|path| async move {
            let shown = shown(&path);
            if lake.store.exists(&shown).await? {
                return Ok(());
            }
            failpoint::hit("catalog.copy.before");
            let Err(error) = lake.store.copy(&path, &shown).await else { return Ok(()) };
            if lake.store.exists(&path).await? {
                return Err(error);
            }
            Err(Error::new(ErrorKind::LogCorrupt, format!("{}/{path} is missing", lake.url()))
                .help("a manifest names it, and its hour is not compacted: restore it from a copy of the lake"))
        })
        .buffer_unordered(COPIES)
        .try_collect()
        .await
}

/// Where a processed file is shown.
fn shown(path: &str) -> String {
    format!("{ZONE}/{}", path.split_once('/').map_or(path, |(_, rest)| rest))
}

/// Deletes what was shown of an hour before it was compacted.
async fn forget(lake: &Lake, table: &str, hour: &str) -> Result<()> {
    let files = lake.store.list(&format!("{ZONE}/{table}/{hour}")).await?;
    lake.store.delete_all(files.into_iter().map(|file| file.location.to_string()).collect()).await
}
