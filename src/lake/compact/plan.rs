//! Which hours of which tables are compacted: a function of the log and of the time.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use futures::{StreamExt, TryStreamExt};

use super::hour_of;
use crate::contract::Column;
use crate::epoch::{Compaction, Control, DataFile, EpochNumber, Manifest};
use crate::error::Result;
use crate::lake::{Log, LogState};

/// Manifests that one plan looks at.
const MANIFESTS_PER_PLAN: u64 = 1024;
/// Manifests that are read at the same time.
const READ_AHEAD: usize = 16;

/// A file of a job, and where its rows stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    pub file: DataFile,
    /// The epoch and the place of its first row there; `None`: the file is compacted and says so itself.
    pub place: Option<(EpochNumber, u64)>,
}

/// An hour of a table to be written again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    pub table: String,
    /// `dt=2026-11-22/hour=14`
    pub hour: String,
    pub first: EpochNumber,
    pub last: EpochNumber,
    pub sources: Vec<Source>,
}

/// What there is to do.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// By hour, then by table.
    pub jobs: Vec<Job>,
    /// Up to here nothing is left to do when the jobs are done.
    pub through: EpochNumber,
    /// The log goes on behind what was looked at.
    pub cut: bool,
}

/// Looks at what earlier passes have not dealt with. Hours that end before `closed` are closed.
pub(super) async fn plan(log: &Log, state: &LogState, closed: DateTime<Utc>) -> Result<Plan> {
    let begin = state.compacted_through + 1;
    let end = state.n.min(begin + MANIFESTS_PER_PLAN - 1);
    let mut found = Found::default();
    let mut manifests = futures::stream::iter(begin..=end).map(|n| log.manifest(n)).buffered(READ_AHEAD);
    while let Some(manifest) = manifests.try_next().await? {
        found.look_at(&manifest, closed);
    }
    let cut = end < state.n;
    if cut {
        found.put_off_the_last_hours(begin);
    }
    let through = found.open_from.map_or(end, |n| n - 1);
    let mut plan = Plan { jobs: Vec::new(), through, cut };
    for ((hour, table), epochs) in found.closed {
        plan.jobs.extend(job(log, state, hour, table, epochs).await?);
    }
    Ok(plan)
}

type Epochs = Vec<(EpochNumber, Vec<DataFile>)>;

/// The files of manifests by hour and table.
#[derive(Default)]
struct Found {
    closed: BTreeMap<(String, String), Epochs>,
    /// The first epoch that has files in an hour that waits.
    open_from: Option<EpochNumber>,
    /// The newest manifest with files.
    last: EpochNumber,
}

impl Found {
    fn look_at(&mut self, manifest: &Manifest, closed: DateTime<Utc>) {
        for (table, epoch) in &manifest.tables {
            let Some(hour) = epoch.files.first().and_then(|file| hour_of(&file.path)) else { continue };
            self.last = manifest.n;
            if end_of(hour).is_some_and(|end| end <= closed) {
                let of_table = self.closed.entry((hour.to_owned(), table.clone())).or_default();
                of_table.push((manifest.n, epoch.files.clone()));
            } else {
                self.open_from.get_or_insert(manifest.n);
            }
        }
    }

    /// Hours that go on behind the end of the plan wait for the next one, unless the plan would be of nothing else.
    fn put_off_the_last_hours(&mut self, begin: EpochNumber) {
        let of_last = |epochs: &Epochs| epochs.last().is_some_and(|(n, _)| *n == self.last);
        let hours: Vec<String> =
            self.closed.iter().filter(|(_, epochs)| of_last(epochs)).map(|((hour, _), _)| hour.clone()).collect();
        let late = self.closed.iter().filter(|((hour, _), _)| hours.contains(hour));
        let first = late.filter_map(|(_, epochs)| epochs.first().map(|(n, _)| *n)).min();
        if let Some(first) = first.filter(|first| *first > begin) {
            self.closed.retain(|(hour, _), _| !hours.contains(hour));
            self.open_from = Some(self.open_from.map_or(first, |open| open.min(first)));
        }
    }
}

/// When an hour is over, by its folder's name.
pub(super) fn end_of(hour: &str) -> Option<DateTime<Utc>> {
    let start = NaiveDateTime::parse_from_str(&format!("{hour}:00"), "dt=%Y-%m-%d/hour=%H:%M").ok()?;
    Some(start.and_utc() + TimeDelta::hours(1))
}

/// The job that brings an hour of a table up to date, if it is not.
async fn job(log: &Log, state: &LogState, hour: String, table: String, mut epochs: Epochs) -> Result<Option<Job>> {
    let earlier = covering(log, state, &hour, &table).await?;
    if let Some(earlier) = &earlier {
        epochs.retain(|(n, _)| !(earlier.first..=earlier.last).contains(n));
    }
    // One file alone is written again too: then a table's hour is either all in the new folder or all in the old one.
    if epochs.is_empty() {
        return Ok(None);
    }
    // All versions there ever were: what is passed over once is passed over for ever, so an entry has no holes.
    let ours = |column: &Column| [super::EPOCH, super::ROW].contains(&column.name.as_str());
    let versions = state.versions.values().filter(|contract| contract.table == table);
    if versions.flat_map(|contract| &contract.output.columns).any(ours) {
        tracing::warn!(table, hour, "not compacted: the table has a column of its own called _epoch or _row");
        return Ok(None);
    }
    let numbers = epochs.iter().map(|(n, _)| *n);
    let covered = earlier.iter().flat_map(|earlier| [earlier.first, earlier.last]);
    let (first, last) = numbers.chain(covered).fold((EpochNumber::MAX, 0), |(a, b), n| (a.min(n), b.max(n)));
    let mut sources: Vec<Source> =
        earlier.into_iter().flat_map(|earlier| earlier.files).map(|file| Source { file, place: None }).collect();
    for (n, files) in epochs {
        let mut at = 0;
        for file in files {
            let rows = file.rows;
            sources.push(Source { file, place: Some((n, at)) });
            at += rows;
        }
    }
    Ok(Some(Job { table, hour, first, last, sources }))
}

/// The newest entry about an hour of a table.
pub(super) async fn covering(log: &Log, state: &LogState, hour: &str, table: &str) -> Result<Option<Compaction>> {
    covering_before(log, state, hour, table, EpochNumber::MAX).await
}

/// The newest entry about an hour of a table that is older than manifest `before`.
pub(super) async fn covering_before(
    log: &Log,
    state: &LogState,
    hour: &str,
    table: &str,
    before: EpochNumber,
) -> Result<Option<Compaction>> {
    let entries = state.compactions.get(hour).into_iter().flatten().rev();
    for n in entries.filter(|n| **n < before) {
        let manifest: Arc<Manifest> = log.manifest(*n).await?;
        for control in &manifest.control {
            if let Control::Compacted { hour: its, tables, .. } = control
                && its == hour
                && let Some(found) = tables.get(table)
            {
                return Ok(Some(found.clone()));
            }
        }
    }
    Ok(None)
}
