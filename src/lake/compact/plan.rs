//! Which hours of which tables are compacted: a function of the log and of the time.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use futures::{StreamExt, TryStreamExt};

use super::{CompactOptions, hour_of};
use crate::contract::Column;
use crate::epoch::{Compaction, Control, DataFile, EpochNumber, Manifest};
use crate::error::Result;
use crate::lake::{Log, LogState};

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

/// Looks at what earlier passes have not dealt with. Hours are closed that ended `closed_after` before `now`.
///
/// An hour is only taken up whole. A log that goes on behind what was looked at may hold more of it, until a manifest is
/// found that was sealed when the hour was closed.
pub(super) async fn plan(log: &Log, state: &LogState, now: DateTime<Utc>, options: &CompactOptions) -> Result<Plan> {
    let begin = state.compacted_through + 1;
    let closed = now - options.closed_after;
    let mut found = Found::default();
    let mut end = begin - 1;
    let (whole, open_from) = loop {
        let next = end + 1;
        end = state.n.min(end + options.manifests.max(1));
        let mut manifests = futures::stream::iter(next..=end).map(|n| log.manifest(n)).buffered(READ_AHEAD);
        while let Some(manifest) = manifests.try_next().await? {
            found.look_at(&manifest);
        }
        let known = if end < state.n { found.sealed_at - options.closed_after } else { closed };
        let (whole, open_from) = found.whole(closed.min(known));
        // Read on, unless the log knows of enough that is done when the plan is: the next plan begins behind it.
        let put_off = open_from != found.whole(closed).1;
        if end == state.n || !put_off || open_from >= Some(begin + options.manifests) {
            break (whole, open_from);
        }
    };
    let through = open_from.map_or(end, |n| n - 1);
    let mut plan = Plan { jobs: Vec::new(), through, cut: end < state.n };
    for hour in whole {
        for (table, epochs) in found.hours.remove(&hour).unwrap_or_default() {
            plan.jobs.extend(job(log, state, hour.clone(), table, epochs).await?);
        }
    }
    Ok(plan)
}

type Epochs = Vec<(EpochNumber, Vec<DataFile>)>;

/// The files of manifests by hour and table.
#[derive(Default)]
struct Found {
    hours: BTreeMap<String, BTreeMap<String, Epochs>>,
    /// When the newest manifest was sealed.
    sealed_at: DateTime<Utc>,
}

impl Found {
    fn look_at(&mut self, manifest: &Manifest) {
        self.sealed_at = self.sealed_at.max(manifest.sealed_at);
        for (table, epoch) in &manifest.tables {
            let Some(hour) = epoch.files.first().and_then(|file| hour_of(&file.path)) else { continue };
            let of_table = self.hours.entry(hour.to_owned()).or_default().entry(table.clone()).or_default();
            of_table.push((manifest.n, epoch.files.clone()));
        }
    }

    /// The hours that ended before `closed`, and the first epoch that has files in another one.
    fn whole(&self, closed: DateTime<Utc>) -> (Vec<String>, Option<EpochNumber>) {
        let is_whole = |hour: &str| end_of(hour).is_some_and(|end| end <= closed);
        let (whole, open): (Vec<_>, Vec<_>) = self.hours.iter().partition(|(hour, _)| is_whole(hour));
        let open_from = open.iter().flat_map(|(_, tables)| tables.values()).filter_map(|epochs| epochs.first());
        (whole.into_iter().map(|(hour, _)| hour.clone()).collect(), open_from.map(|(n, _)| *n).min())
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
