//! A catalog of the lake's tables in AWS Glue: what Athena, Redshift Spectrum and EMR find.
//!
//! | file | what it owns |
//! |---|---|
//! | `form.rs` | tables and partitions as Glue describes them |
//! | `glue.rs` | the requests |
//!
//! The catalog is a function of the log: tables are the contracts, partitions are the hours that have files, and a
//! partition's place is the hour's folder, or the folder of its compaction. So a pass that was cut off is just done again.
//! How far a table's partitions have been brought stands in the table itself (`dataflow.through`), for the next process;
//! this one knows it, so a table without news costs no request.
//!
//! A partition moves from one folder to the other in one request, after the entry that says so is in the log; both folders
//! hold the same rows. Files go when their partition has been elsewhere for a day ([`Outsiders`]), which is looked at just
//! before: a query that was planned on them is over, and a process that was slow to move a partition back is corrected. A
//! partition is registered after its first file, so a reader may see the last minute late, and no row twice.

mod form;
mod glue;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};
use tokio::sync::Mutex;

use super::compact::hour_of;
use super::sweep::MINIMUM_AGE;
use super::{Log, LogState, Outsiders};
use crate::config;
use crate::contract::Contract;
use crate::epoch::{Compaction, Control, EpochNumber};
use crate::error::Result;
use crate::telemetry;
use form::Partition;
use glue::{Found, Glue};

/// A table says how far its partitions were brought when it has new ones, and after so many epochs without.
const WORTH_AN_UPDATE: u64 = 1024;
/// Manifests that are read at the same time.
const READ_AHEAD: usize = 16;
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
    /// Partitions that got the columns that their table has now.
    pub refitted: u64,
}

impl CatalogReport {
    fn count(&self) {
        let made = [
            ("tables", self.tables.len() as u64),
            ("registered", self.registered),
            ("moved", self.moved),
            ("refitted", self.refitted),
        ];
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
    hours: BTreeSet<String>,
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
        let hours = hours(log, state.n, &known.tables).await?;
        let places = Places::of(log, &state, hours.values().flat_map(BTreeMap::keys)).await?;
        for (table, hours) in hours {
            let (Some(contract), Some(known)) = (state.contracts.get(&table), known.tables.get_mut(&table)) else {
                continue;
            };
            let mut partitions = Vec::new();
            for (hour, compacted) in hours {
                if compacted || !known.hours.contains(&hour) {
                    partitions.push(places.partition(log.lake().url(), &table, &hour));
                }
            }
            if partitions.is_empty() {
                continue;
            }
            let (registered, moved) = self.glue.register(&table, contract, &partitions).await?;
            (report.registered, report.moved) = (report.registered + registered, report.moved + moved);
            self.glue.note(&table, form::THROUGH, state.n).await?;
            known.noted = state.n;
            known.hours.extend(partitions.into_iter().map(|partition| partition.hour));
            while known.hours.len() > HOURS_KNOWN {
                known.hours.pop_first();
            }
        }
        for (table, known) in &mut known.tables {
            known.through = state.n;
            if state.n >= known.noted + WORTH_AN_UPDATE {
                self.glue.note(table, form::THROUGH, state.n).await?;
                known.noted = state.n;
            }
        }
        Ok(())
    }

    /// Makes a table, or gives it and its partitions the columns of its contract.
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
        let Found { through, changed, refitted } =
            self.glue.ensure_table(contract, &form::table(url, contract)).await?;
        if changed {
            report.tables.push(table.clone());
        }
        if !refitted {
            report.refitted += self.glue.refit(contract).await?;
            self.glue.note(table, form::REFITTED, contract.version.into()).await?;
        }
        let fresh = KnownTable { contract: contract.version, through, noted: through, hours: BTreeSet::new() };
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
            let Some(contract) = state.contracts.get(table) else { continue };
            let Some((location, moved_at)) = self.glue.partition(table, hour).await? else { continue };
            let wanted = places.partition(log.lake().url(), table, hour);
            if location != wanted.location {
                tracing::warn!(table, hour, location, "the catalog has an older place of a partition; moving it");
                self.glue.update(table, contract, &[wanted]).await?;
                left = false;
            } else {
                left &= moved_at.is_none_or(|moved_at| now - moved_at > MINIMUM_AGE);
            }
        }
        Ok(left)
    }
}

/// The hours of each table that got files, and whether they were compacted, after the epoch that its table is through with.
async fn hours(
    log: &Log,
    to: EpochNumber,
    known: &BTreeMap<String, KnownTable>,
) -> Result<BTreeMap<String, BTreeMap<String, bool>>> {
    let mut found: BTreeMap<String, BTreeMap<String, bool>> = BTreeMap::new();
    let from = known.values().map(|known| known.through).min().unwrap_or(to);
    let mut manifests = futures::stream::iter(from + 1..=to).map(|n| log.manifest(n)).buffered(READ_AHEAD);
    while let Some(manifest) = manifests.try_next().await? {
        let n = manifest.n;
        let behind = |table: &String| known.get(table).is_some_and(|known| known.through < n);
        for (table, epoch) in manifest.tables.iter().filter(|(table, _)| behind(table)) {
            for hour in epoch.files.iter().filter_map(|file| hour_of(&file.path)) {
                found.entry(table.clone()).or_default().entry(hour.to_owned()).or_default();
            }
        }
        for control in &manifest.control {
            let Control::Compacted { hour, tables, .. } = control else { continue };
            for table in tables.keys().filter(|table| behind(table)) {
                found.entry(table.clone()).or_default().insert(hour.clone(), true);
            }
        }
    }
    Ok(found)
}

/// Where the files of compacted hours are, by hour and table.
struct Places(BTreeMap<String, BTreeMap<String, String>>);

impl Places {
    /// Those of these hours. Every entry of the log is read once, however many tables it is about.
    async fn of(log: &Log, state: &LogState, hours: impl IntoIterator<Item = &String>) -> Result<Self> {
        let hours: BTreeSet<&String> = hours.into_iter().collect();
        let entries: Vec<EpochNumber> =
            hours.iter().flat_map(|hour| state.compactions.get(*hour).into_iter().flatten().copied()).collect();
        let mut manifests = futures::stream::iter(entries).map(|n| log.manifest(n)).buffered(READ_AHEAD);
        let mut found: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        while let Some(manifest) = manifests.try_next().await? {
            for control in &manifest.control {
                let Control::Compacted { hour, tables, .. } = control else { continue };
                for (table, compaction) in tables {
                    let folder = compaction.files.first().and_then(|file| file.path.rsplit_once('/'));
                    let of_hour = found.entry(hour.clone()).or_default();
                    // The entries of an hour are in order: the newest counts.
                    of_hour.extend(folder.map(|(folder, _)| (table.clone(), folder.to_owned())));
                }
            }
        }
        Ok(Self(found))
    }

    fn partition(&self, url: &str, table: &str, hour: &str) -> Partition {
        let compacted = self.0.get(hour).and_then(|tables| tables.get(table));
        let folder = compacted.cloned().unwrap_or_else(|| format!("processed/{table}/{hour}"));
        Partition { hour: hour.to_owned(), location: format!("{url}/{folder}/"), moved: compacted.is_some() }
    }
}
