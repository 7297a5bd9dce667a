//! What the log says of the hours of tables.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt};

use super::form::Partition;
use super::{KnownTable, READ_AHEAD, ZONE};
use crate::epoch::{Control, EpochNumber};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::compact::hour_of;
use crate::lake::{Log, LogState};

/// What came to an hour of a table.
#[derive(Default)]
pub(super) struct News {
    pub files: Vec<String>,
    /// The newest version of the contract among them.
    pub contract: u32,
    pub compacted: bool,
}

/// What came to the hours of each table after the epoch that the table is through with.
pub(super) async fn news(
    log: &Log,
    to: EpochNumber,
    known: &BTreeMap<String, KnownTable>,
) -> Result<BTreeMap<String, BTreeMap<String, News>>> {
    let mut found: BTreeMap<String, BTreeMap<String, News>> = BTreeMap::new();
    let from = known.values().map(|known| known.through).min().unwrap_or(to);
    let mut manifests = futures::stream::iter(from + 1..=to).map(|n| log.manifest(n)).buffered(READ_AHEAD);
    while let Some(manifest) = manifests.try_next().await? {
        let n = manifest.n;
        let behind = |table: &String| known.get(table).is_some_and(|known| known.through < n);
        for (table, epoch) in manifest.tables.iter().filter(|(table, _)| behind(table)) {
            for file in &epoch.files {
                let Some(hour) = hour_of(&file.path) else { continue };
                let news = found.entry(table.clone()).or_default().entry(hour.to_owned()).or_default();
                news.contract = news.contract.max(file.contract);
                news.files.push(file.path.clone());
            }
        }
        for control in &manifest.control {
            let Control::Compacted { hour, tables, .. } = control else { continue };
            for table in tables.keys().filter(|table| behind(table)) {
                found.entry(table.clone()).or_default().entry(hour.clone()).or_default().compacted = true;
            }
        }
    }
    Ok(found)
}

/// The folders of compacted hours and the newest version of the contract in them, by hour and table.
pub(super) struct Places(BTreeMap<String, BTreeMap<String, (String, u32)>>);

impl Places {
    /// Those of these hours. Every entry of the log is read once, however many tables it is about.
    pub async fn of(log: &Log, state: &LogState, hours: impl IntoIterator<Item = &String>) -> Result<Self> {
        let hours: BTreeSet<&String> = hours.into_iter().collect();
        let entries: Vec<EpochNumber> =
            hours.iter().flat_map(|hour| state.compactions.get(*hour).into_iter().flatten().copied()).collect();
        let mut manifests = futures::stream::iter(entries).map(|n| log.manifest(n)).buffered(READ_AHEAD);
        let mut found: BTreeMap<String, BTreeMap<String, (String, u32)>> = BTreeMap::new();
        while let Some(manifest) = manifests.try_next().await? {
            for control in &manifest.control {
                let Control::Compacted { hour, tables, .. } = control else { continue };
                for (table, compaction) in tables {
                    let folder = compaction.files.first().and_then(|file| file.path.rsplit_once('/'));
                    let version = compaction.files.iter().map(|file| file.contract).max().unwrap_or(0);
                    let of_hour = found.entry(hour.clone()).or_default();
                    // The entries of an hour are in order: the newest counts.
                    of_hour.extend(folder.map(|(folder, _)| (table.clone(), (folder.to_owned(), version))));
                }
            }
        }
        Ok(Self(found))
    }

    /// The partition of an hour. `newest`: the version of the contract of its newest file, unless it is compacted.
    pub fn partition(&self, log: &Log, state: &LogState, table: &str, hour: &str, newest: u32) -> Result<Partition> {
        let compacted = self.0.get(hour).and_then(|tables| tables.get(table)).cloned();
        let moved = compacted.is_some();
        let (folder, version) = compacted.unwrap_or_else(|| (format!("{ZONE}/{table}/{hour}"), newest));
        let contract = state.contract(table, version).or_else(|| state.contracts.get(table));
        let contract = contract.cloned().ok_or_else(|| {
            Error::new(ErrorKind::LogCorrupt, format!("no one knows version {version} of contract {table}"))
        })?;
        Ok(Partition { hour: hour.to_owned(), location: format!("{}/{folder}/", log.lake().url()), contract, moved })
    }
}
