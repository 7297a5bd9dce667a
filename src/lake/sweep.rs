//! Files that no manifest names, and retention.
//!
//! An attempt gives up after an hour, so a file that is older than a day by the store's clock and that no manifest names
//! never will be. Nothing younger is touched, whatever it is.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use object_store::ObjectMeta;
use ulid::Ulid;

use super::store::Store;
use super::{Access, Log};
use crate::epoch::Manifest;
use crate::error::{Error, ErrorKind, Result};

/// Nothing younger is deleted.
const MINIMUM_AGE: TimeDelta = TimeDelta::days(1);

/// What a sweep did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Files below the zones that were looked at.
    pub seen: u64,
    /// Files that no manifest names, deleted.
    pub unnamed: Vec<String>,
    /// Raw files past their retention, deleted.
    pub expired_raw: Vec<String>,
    /// Quarantine files past their retention, deleted.
    pub expired_quarantine: Vec<String>,
    /// Bytes that were freed.
    pub bytes: u64,
}

/// Deletes data files that no manifest names and that are older than a day by the store's clock, and raw and quarantine
/// files past their retention.
pub async fn sweep(log: &Log) -> Result<SweepReport> {
    if log.access() == Access::Read {
        return Err(Error::new(ErrorKind::Internal, "sweep a log that was opened to be read"));
    }
    let lake = log.lake();
    let now = store_now(&lake.store).await?;
    let mut files = Vec::new();
    for zone in ["processed", "quarantine", "raw", "_tmp"] {
        files.extend(lake.store.list(zone).await?);
    }
    // Listed before the log is read: what is committed meanwhile is named.
    let named = named_files(log).await?;
    let mut report = SweepReport { seen: files.len() as u64, ..SweepReport::default() };
    for file in files {
        let age = now - file.last_modified;
        let path = file.location.to_string();
        let settings = &lake.settings;
        let list = if !named.contains(&path) && age > MINIMUM_AGE {
            &mut report.unnamed
        } else if path.starts_with("raw/") && is_past(age, settings.raw_retention) {
            &mut report.expired_raw
        } else if path.starts_with("quarantine/") && is_past(age, settings.quarantine_retention) {
            &mut report.expired_quarantine
        } else {
            continue;
        };
        lake.store.delete(&path).await?;
        list.push(path);
        report.bytes += file.size;
    }
    Ok(report)
}

fn is_past(age: TimeDelta, retention: Option<Duration>) -> bool {
    // Never younger than a day: a load may still want it.
    let retention = retention.and_then(|retention| TimeDelta::from_std(retention).ok());
    age > MINIMUM_AGE && retention.is_some_and(|retention| age > retention)
}

/// What the store's clock says: when it saw an object that is made now.
async fn store_now(store: &Store) -> Result<DateTime<Utc>> {
    let path = format!("_log/clock-{}", Ulid::new());
    store.create_own("log.clock", &path, bytes::Bytes::from_static(b"now")).await?;
    let found: Option<ObjectMeta> = store.get(&path).await?.map(|(_, meta)| meta);
    store.delete(&path).await?;
    found.map(|meta| meta.last_modified).ok_or_else(|| super::store::vanished(&path))
}

/// The paths of all data files of all manifests.
async fn named_files(log: &Log) -> Result<HashSet<String>> {
    let newest = log.refresh().await?.n;
    let mut named = HashSet::new();
    for n in 1..=newest {
        name_files(&*log.manifest(n).await?, &mut named);
    }
    Ok(named)
}

fn name_files(manifest: &Manifest, named: &mut HashSet<String>) {
    let files = manifest.tables.values().flat_map(|table| &table.files);
    let files = files.chain(manifest.quarantine.iter().map(|q| &q.file)).chain(&manifest.raw);
    // As the store spells them in a listing.
    named.extend(files.map(|file| object_store::path::Path::from(file.path.as_str()).to_string()));
}
