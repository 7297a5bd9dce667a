//! Files that no manifest names, and retention.
//!
//! What is in quarantine and still open when its retention is over is first closed in the log, as expired, so that every
//! reader agrees; then its file goes.
//!
//! An attempt gives up after an hour, so a file that is older than a day by the store's clock and that no manifest names
//! never will be. Nothing younger is touched, whatever it is.
//!
//! A file is uploaded before its manifest is put. So it is enough to read the manifests back to one that the store got
//! before the oldest file in question: a sweep costs what the swept days hold, not what the log holds.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use object_store::ObjectMeta;
use ulid::Ulid;

use super::compact::ZONE as COMPACTED;
use super::expiry;
use super::log::PROBES;
use super::store::{STAGING, Store, place, vanished};
use super::{ARCHIVE, Access, Lake, Log, STAGE};
use crate::epoch::{Control, DataFile, Manifest};
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint;

/// Nothing younger is deleted.
pub(super) const MINIMUM_AGE: TimeDelta = TimeDelta::days(1);
/// How far back a usual sweep looks. What is older when the process was away for longer stays until
/// [`sweep_everything`], which reads the whole log.
const USUAL_REACH: TimeDelta = TimeDelta::days(8);
/// How much older than its retention a quarantine file is that nobody can still need.
const LEFTOVER_SLACK: Duration = Duration::from_secs(2 * 3600);
/// How far the store's times of two objects may be out of order.
const SLACK: TimeDelta = TimeDelta::hours(2);

/// What a sweep did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Files old enough to be looked at.
    pub seen: u64,
    /// Files that no manifest names, deleted.
    pub unnamed: Vec<String>,
    /// Raw files past their retention, deleted.
    pub expired_raw: Vec<String>,
    /// Raw files that moved to the archive.
    pub archived_raw: Vec<String>,
    /// Quarantine files past their retention, deleted. Their manifests go on naming them.
    pub expired_quarantine: Vec<String>,
    /// Entries that were open in these files and are now closed as expired, by table.
    pub expired_rejects: BTreeMap<String, u64>,
    /// Open entries that will be past their retention within a day, by table.
    pub expiring_rejects: BTreeMap<String, u64>,
    /// Bytes that were freed.
    pub bytes: u64,
}

/// Deletes data files that no manifest names and that are between one and eight days old by the store's clock, and raw
/// and quarantine files past their retention.
pub async fn sweep(log: &Log) -> Result<SweepReport> {
    let now = store_now(&log.lake().store).await?;
    sweep_back(log, now, Some(USUAL_REACH)).await
}

/// As [`sweep`] would do at the time `now` of the store's clock.
pub async fn sweep_as_of(log: &Log, now: DateTime<Utc>) -> Result<SweepReport> {
    sweep_back(log, now, Some(USUAL_REACH)).await
}

/// As [`sweep`], however old the files are. Reads the whole log.
pub async fn sweep_everything(log: &Log) -> Result<SweepReport> {
    let now = store_now(&log.lake().store).await?;
    sweep_back(log, now, None).await
}

async fn sweep_back(log: &Log, now: DateTime<Utc>, reach: Option<TimeDelta>) -> Result<SweepReport> {
    if log.access() == Access::Read {
        return Err(Error::new(ErrorKind::Internal, "sweep a log that was opened to be read"));
    }
    let (lake, mut report) = (log.lake(), SweepReport::default());
    let settings = &lake.settings;
    report.expired_raw = expire(lake, now, "raw", settings.raw_retention, &mut report.bytes).await?;
    report.expired_raw.extend(expire_archived(lake, now, &mut report.bytes).await?);
    expire_quarantine(log, now, &mut report).await?;

    // Listed before the log is read: what is committed meanwhile is named.
    let oldest = reach.map(|reach| now - reach);
    let mut candidates = candidates(&lake.store, now, oldest).await?;
    report.seen = candidates.len() as u64;
    if let Some(first) = candidates.values().map(|file| file.last_modified).min() {
        keep_named(log, first - SLACK, &mut candidates).await?;
    }
    for (path, file) in candidates {
        lake.store.delete(&path).await?;
        report.bytes += file.size;
        report.unnamed.push(path);
    }
    // No manifest ever names what was staged for a warehouse, and no load takes a day.
    let staged = expire(lake, now, STAGE, MINIMUM_AGE.to_std().ok(), &mut report.bytes).await?;
    report.seen += staged.len() as u64;
    report.unnamed.extend(staged);
    // Last: what no manifest names is no longer there.
    report.archived_raw = archive(lake, now).await?;
    Ok(report)
}

/// Raw files that moved to the archive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Archived {
    /// How many.
    pub files: u64,
}

/// Moves raw files to the archive that are older than the topology says, by the store's clock. A sweep does it as well.
pub async fn archive_raw(log: &Log) -> Result<Archived> {
    let lake = log.lake();
    if lake.settings.raw_archive_after.is_none() {
        return Ok(Archived::default());
    }
    let archived = archive(lake, store_now(&lake.store).await?).await?;
    Ok(Archived { files: archived.len() as u64 })
}

/// Moves raw files of an age to the archive: copied, then deleted, so that there is always one of them.
async fn archive(lake: &Lake, now: DateTime<Utc>) -> Result<Vec<String>> {
    let Some(after) = lake.settings.raw_archive_after.and_then(|after| TimeDelta::from_std(after).ok()) else {
        return Ok(Vec::new());
    };
    let (mut archived, mut aged) = (Vec::new(), lake.store.list("raw").await?);
    aged.retain(|file| now - file.last_modified > after.max(MINIMUM_AGE));
    if aged.is_empty() {
        return Ok(archived);
    }
    // What a move that was cut off has copied. In a folder a file and its copy are one, and cannot be copied again.
    let there = lake.store.list(&format!("{ARCHIVE}/raw")).await?.into_iter();
    let there: BTreeMap<String, u64> = there.map(|file| (file.location.to_string(), file.size)).collect();
    for file in aged {
        let path = file.location.to_string();
        let target = format!("{ARCHIVE}/{path}");
        failpoint::hit("archive.copy.before");
        if there.get(&target) != Some(&file.size) {
            lake.store.copy(&path, &target).await?;
        }
        failpoint::hit("archive.copy.after");
        lake.store.delete(&path).await?;
        failpoint::hit("archive.delete.after");
        archived.push(path);
    }
    Ok(archived)
}

/// Deletes archived files that are past the retention of the raw zone, by the time in their names: the store's is that of
/// the move.
async fn expire_archived(lake: &Lake, now: DateTime<Utc>, bytes: &mut u64) -> Result<Vec<String>> {
    let Some(retention) = lake.settings.raw_retention.and_then(|retention| TimeDelta::from_std(retention).ok()) else {
        return Ok(Vec::new());
    };
    let mut expired = Vec::new();
    for file in lake.store.list(&format!("{ARCHIVE}/raw")).await? {
        let path = file.location.to_string();
        let attempt = file.location.filename().and_then(|name| Ulid::from_string(name.split('.').next()?).ok());
        let begun = attempt.and_then(|attempt| DateTime::from_timestamp_millis(attempt.timestamp_ms() as i64));
        if now - begun.unwrap_or(file.last_modified) > retention.max(MINIMUM_AGE) {
            lake.store.delete(&path).await?;
            *bytes += file.size;
            expired.push(path);
        }
    }
    Ok(expired)
}

/// Closes the entries that are past their retention, then deletes their files, and what an earlier sweep left behind when
/// it was cut off in between.
async fn expire_quarantine(log: &Log, now: DateTime<Utc>, report: &mut SweepReport) -> Result<()> {
    let lake = log.lake();
    let Some(retention) = lake.settings.quarantine_retention else { return Ok(()) };
    let expired = expiry::expire(log, now, retention).await?;
    (report.expired_rejects, report.expiring_rejects) = (expired.closed, expired.soon);
    for (path, bytes) in expired.files {
        lake.store.delete(&path).await?;
        report.bytes += bytes;
        report.expired_quarantine.push(path);
    }
    // A manifest follows its files within the hour that an attempt may take: what is older by more was closed above.
    let leftovers = Some(retention.max(MINIMUM_AGE.to_std().unwrap_or_default()) + LEFTOVER_SLACK);
    let found = expire(lake, now, "quarantine", leftovers, &mut report.bytes).await?;
    report.expired_quarantine.extend(found);
    Ok(())
}

/// Deletes the files of a zone that are past its retention, and never one that is younger than a day.
async fn expire(
    lake: &Lake,
    now: DateTime<Utc>,
    zone: &str,
    retention: Option<Duration>,
    bytes: &mut u64,
) -> Result<Vec<String>> {
    let Some(retention) = retention.and_then(|retention| TimeDelta::from_std(retention).ok()) else {
        return Ok(Vec::new());
    };
    let mut expired = Vec::new();
    for file in lake.store.list(zone).await? {
        if now - file.last_modified > retention.max(MINIMUM_AGE) {
            let path = file.location.to_string();
            lake.store.delete(&path).await?;
            *bytes += file.size;
            expired.push(path);
        }
    }
    Ok(expired)
}

/// What the store's clock says: when it saw an object that is made now.
pub(super) async fn store_now(store: &Store) -> Result<DateTime<Utc>> {
    let path = format!("{PROBES}/{}", Ulid::new());
    store.create_own("log.clock", &path, bytes::Bytes::from_static(b"now")).await?;
    let found: Option<ObjectMeta> = store.get(&path).await?.map(|(_, meta)| meta);
    store.delete(&path).await?;
    found.map(|meta| meta.last_modified).ok_or_else(|| vanished(&path))
}

/// Files that are older than a day, by path.
async fn candidates(
    store: &Store,
    now: DateTime<Utc>,
    oldest: Option<DateTime<Utc>>,
) -> Result<BTreeMap<String, ObjectMeta>> {
    let mut folders = vec![STAGING.to_owned(), PROBES.to_owned()];
    for zone in ["quarantine", "raw"] {
        folders.extend(days(store, zone, oldest).await?);
    }
    for zone in ["processed", COMPACTED] {
        for table in store.folders(zone).await? {
            folders.extend(days(store, &table, oldest).await?);
        }
    }
    let mut found = BTreeMap::new();
    for folder in folders {
        let files = store.list(&folder).await?.into_iter();
        let old = files.filter(|file| {
            now - file.last_modified > MINIMUM_AGE && oldest.is_none_or(|oldest| file.last_modified >= oldest)
        });
        found.extend(old.map(|file| (file.location.to_string(), file)));
    }
    Ok(found)
}

/// The `dt=` folders that may hold files of that age. The day in the name is the writer's.
async fn days(store: &Store, below: &str, oldest: Option<DateTime<Utc>>) -> Result<Vec<String>> {
    let first = oldest.map(|oldest| (oldest - TimeDelta::days(2)).date_naive());
    let mut folders = store.folders(below).await?;
    folders.retain(|folder| {
        let day = folder.rsplit_once("dt=").and_then(|(_, day)| day.parse::<NaiveDate>().ok());
        first.is_none() || day.is_none() || day >= first
    });
    Ok(folders)
}

/// Takes the files that manifests name out of `candidates`, from the newest manifest back to one put before `since`.
async fn keep_named(log: &Log, since: DateTime<Utc>, candidates: &mut BTreeMap<String, ObjectMeta>) -> Result<()> {
    for n in (1..=log.refresh().await?.n).rev() {
        let (manifest, put_at) = log.manifest_and_time(n).await?;
        for path in named_files(&manifest) {
            candidates.remove(&path);
        }
        if put_at < since || candidates.is_empty() {
            break;
        }
    }
    Ok(())
}

/// The paths of a manifest's data files, as the store spells them in a listing. Those that a compaction has replaced are
/// among them: they go [otherwise](super::retire).
fn named_files(manifest: &Manifest) -> impl Iterator<Item = String> {
    let files = manifest.tables.values().flat_map(|table| &table.files);
    let files = files.chain(manifest.control.iter().flat_map(compacted_files));
    let files = files.chain(manifest.quarantine.iter().map(|q| &q.file)).chain(&manifest.raw);
    files.map(|file| place(&file.path).to_string())
}

fn compacted_files(control: &Control) -> Vec<&DataFile> {
    match control {
        Control::Compacted { tables, .. } => tables.values().flat_map(|table| &table.files).collect(),
        _ => Vec::new(),
    }
}
