//! The files that compaction has replaced: deleted a day after the entry that says so, whoever wrote it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};
use ulid::Ulid;

use super::plan::covering_before;
use super::{Passes, hour_of, without_rows};
use crate::epoch::{Compaction, Control, DataFile, EpochNumber, Manifest};
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint;
use crate::lake::sweep::{MINIMUM_AGE, store_now};
use crate::lake::{Draft, Log, LogState};
use crate::telemetry;

/// Entries of compactions that are done with before the log is told: what a crash makes be done again.
const ENTRIES_AT_ONCE: usize = 24;
/// Requests at the same time.
const AT_ONCE: usize = 8;

/// What was deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Retired {
    /// Entries of compactions whose originals are gone now.
    pub entries: u64,
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Who finds files of the lake without its log: a catalog.
#[async_trait]
pub trait Outsiders: Send + Sync {
    /// Whether they have been sent to the new files of an hour, and to no others, for a day.
    async fn have_left(
        &self,
        log: &Log,
        hour: &str,
        tables: &BTreeMap<String, Compaction>,
        now: DateTime<Utc>,
    ) -> Result<bool>;
}

/// There is no catalog.
#[derive(Debug)]
pub struct NoOutsiders;

#[async_trait]
impl Outsiders for NoOutsiders {
    async fn have_left(&self, _: &Log, _: &str, _: &BTreeMap<String, Compaction>, _: DateTime<Utc>) -> Result<bool> {
        Ok(true)
    }
}

/// Deletes what was replaced more than a day ago, once outsiders have left it.
pub async fn retire(log: &Log, outsiders: &dyn Outsiders) -> Result<Retired> {
    let now = store_now(&log.lake().store).await?;
    retire_as_of(log, outsiders, now).await
}

/// As [`retire`] would do at the time `now` of the store's clock.
pub async fn retire_as_of(log: &Log, outsiders: &dyn Outsiders, now: DateTime<Utc>) -> Result<Retired> {
    let mut retired = Retired::default();
    loop {
        let state = log.refresh().await?;
        let mut passes = Passes::at(&state);
        let mut due: Vec<EpochNumber> =
            state.compactions.values().flatten().copied().filter(|n| *n > state.retired_through).collect();
        due.sort_unstable();
        let mut through = None;
        for n in due.iter().take(ENTRIES_AT_ONCE) {
            let (manifest, put_at) = log.manifest_and_time(*n).await?;
            if now - put_at <= MINIMUM_AGE || !have_left(log, &manifest, outsiders, now).await? {
                break;
            }
            delete_replaced(log, &state, &manifest, &mut retired).await?;
            retired.entries += 1;
            through = Some(*n);
        }
        let Some(through) = through else { return Ok(retired) };
        let control = vec![Control::Retired { through }];
        let draft = Draft { control, spans: vec![passes.advance()], ..Draft::new(Ulid::new(), Utc::now()) };
        match log.commit(draft, &without_rows).await {
            Ok(_) if through < due[due.len() - 1] => {}
            Ok(_) => return Ok(retired),
            // Somebody else compacts or retires; what is left is theirs, or done at the next pass.
            Err(error) if error.kind() == &ErrorKind::Fenced => return Ok(retired),
            Err(error) => return Err(error.doing("say that replaced files are deleted")),
        }
    }
}

async fn have_left(log: &Log, entry: &Manifest, outsiders: &dyn Outsiders, now: DateTime<Utc>) -> Result<bool> {
    for control in &entry.control {
        if let Control::Compacted { hour, tables, .. } = control
            && !outsiders.have_left(log, hour, tables, now).await?
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Deletes what the entry replaced: the files of its epochs, and the files of the compaction before it.
async fn delete_replaced(log: &Log, state: &LogState, entry: &Manifest, retired: &mut Retired) -> Result<()> {
    for control in &entry.control {
        let Control::Compacted { hour, tables, .. } = control else { continue };
        let (Some(first), Some(last)) = (tables.values().map(|t| t.first).min(), tables.values().map(|t| t.last).max())
        else {
            continue;
        };
        let mut manifests = futures::stream::iter(first..=last).map(|n| log.manifest(n)).buffered(AT_ONCE);
        while let Some(manifest) = manifests.try_next().await? {
            delete(log, originals(&manifest, hour, tables), retired).await?;
        }
        for table in tables.keys() {
            let earlier = covering_before(log, state, hour, table, entry.n).await?;
            delete(log, earlier.into_iter().flat_map(|earlier| earlier.files), retired).await?;
        }
    }
    Ok(())
}

/// The files of a manifest that a compaction replaced.
fn originals(manifest: &Manifest, hour: &str, tables: &BTreeMap<String, Compaction>) -> Vec<DataFile> {
    let replaced = manifest.tables.iter().filter(|(table, _)| {
        tables.get(*table).is_some_and(|compaction| (compaction.first..=compaction.last).contains(&manifest.n))
    });
    let files = replaced.flat_map(|(_, epoch)| &epoch.files);
    files.filter(|file| hour_of(&file.path) == Some(hour)).cloned().collect()
}

async fn delete(log: &Log, files: impl IntoIterator<Item = DataFile>, retired: &mut Retired) -> Result<()> {
    let store = &log.lake().store;
    let mut deleted = futures::stream::iter(files)
        .map(|file| async move {
            failpoint::hit("compact.delete.before");
            store.delete(&file.path).await?;
            failpoint::hit("compact.delete.after");
            Ok::<_, Error>(file.bytes)
        })
        .buffer_unordered(AT_ONCE);
    while let Some(bytes) = deleted.try_next().await? {
        retired.files += 1;
        metrics::counter!(telemetry::COMPACTION_DELETED_TOTAL).increment(1);
        retired.bytes += bytes;
    }
    Ok(())
}
