//! Compaction: the minute files of a table's closed hour, written again as a few large ones sorted by key.
//!
//! | file | what it owns |
//! |---|---|
//! | `plan.rs` | which hours of which tables, from the log alone |
//! | `rewrite.rs` | one hour of one table: sorted by key range, in bounded memory, uploaded |
//! | `restore.rs` | an epoch's changes out of compacted files, as they were: what the loader falls back to |
//! | `retire.rs` | the files that were replaced, a day later |
//!
//! # The argument
//!
//! *Nothing is replaced.* Manifests stay as they are. A compaction is an entry of the log of its own
//! ([`Control::Compacted`]): it says that the files of hour `H` of table `T`, from epochs `first` to `last`, are also in
//! these new files, below a folder of their own (`compacted/T/H/<attempt>/`). Its put is the one moment in which a reader of
//! the log goes from one set of files to the other; a catalog moves the location of the partition `T/H` from one folder to
//! the other, which is one moment too. Both sets hold the same rows, and no folder ever holds both.
//!
//! *Epochs stay recoverable.* Every row keeps the number of its epoch (`_epoch`) and its place in it (`_row`), and a file
//! holds rows of one version of the contract only. So the changes of an epoch come back exactly as they were: same rows,
//! same order, same columns. `replay --from N`, a ledger that is a year behind, a loader in the middle of an hour: all
//! work from either set, and the choice cannot be seen in what they load. Therefore nobody *needs* the first set any more,
//! and the slowest reader cannot be harmed by its removal.
//!
//! *Readers look for the first set, then for the second.* Originals go a day after the entry, by the store's clock
//! ([`retire`]), and not before a catalog has sent its readers elsewhere for a day ([`Outsiders`]); the log says when they
//! have ([`Control::Retired`]). A reader whose file is gone reads the log on, finds
//! the entry that covers the epoch, and reads there. Only when there is none is a file missing.
//!
//! *A crash costs work, never truth.* Before the entry is put, new files are files that no manifest names: swept after a
//! day. After it, originals that are still there are deleted at the next pass, however often that is cut off.
//!
//! *Two compactors do no harm.* Each entry moves one partition of the log on by one, from where it stood when the pass was
//! planned. So of two that were planned at the same place the second is fenced, and its files are swept.
//!
//! *An hour is taken up whole.* A catalog shows a compacted hour by its new folder alone, so an entry that said the first
//! half of it would hide the second. However many manifests an hour has, they are planned together.
//!
//! *Late files.* An hour is closed when no attempt that began in it can still be committed. Should one be all the same (a
//! clock was wrong), the next pass makes the hour again out of what it compacted and what came, under another folder, and
//! the newer entry counts.

mod plan;
mod restore;
mod retire;
mod rewrite;

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use ulid::Ulid;

use super::{Draft, Log, LogState};
use crate::contract::TableSchema;
use crate::epoch::{Compaction, Control, DataFile, EpochNumber};
use crate::error::{Error, ErrorKind, Result};
use crate::progress::{Advance, Partition, Position, Span};
use crate::telemetry;
pub use retire::{NoOutsiders, Outsiders, Retired, retire, retire_as_of};

/// The folder of compacted files.
pub(super) const ZONE: &str = "compacted";
/// The number of a row's epoch.
pub(super) const EPOCH: &str = "_epoch";
/// A row's place in its epoch.
pub(super) const ROW: &str = "_row";
/// Bytes of files that one entry replaces at most, roughly: what a crash can cost.
const ENTRY_BYTES: u64 = 2 << 30;
/// Epochs without anything to do are passed for good now and then, so that a pass does not look at them again.
const WORTH_A_MANIFEST: u64 = 1024;
/// How long after an hour's end epochs that began in it can be sealed and committed: an attempt may try for an hour.
const STRAGGLERS: TimeDelta = TimeDelta::minutes(75);

/// When an hour is closed, how much is held and how large files become.
#[derive(Debug, Clone, Copy)]
pub struct CompactOptions {
    /// How long after its end an hour may still get files.
    pub closed_after: TimeDelta,
    /// Rows (Arrow, in memory) that are sorted at once; two to three times as much is held while they are.
    pub range_bytes: u64,
    /// A file ends when it has so many bytes.
    pub file_bytes: usize,
    /// Manifests that a plan looks at, and more only where an hour has not ended by then.
    pub manifests: u64,
}

impl CompactOptions {
    /// For a lake whose epochs are open for so long.
    pub fn for_epochs(every: Duration) -> Self {
        let open = TimeDelta::from_std(every).unwrap_or(TimeDelta::days(1));
        Self {
            closed_after: (open + STRAGGLERS).max(TimeDelta::hours(2)),
            range_bytes: 96 << 20,
            file_bytes: 128 << 20,
            manifests: 1024,
        }
    }
}

/// What a compaction did.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct CompactReport {
    /// Hours of tables that were written again.
    pub hours: u64,
    /// Files that they were in, and are in now.
    pub files_before: u64,
    pub files_after: u64,
    /// Their bytes.
    pub bytes_before: u64,
    pub bytes_after: u64,
    /// Rows.
    pub rows: u64,
    /// Somebody else compacted at the same time: the rest is theirs.
    pub fenced: bool,
}

/// Compacts every hour that is closed at `now`.
pub async fn compact(log: &Log, now: DateTime<Utc>, options: &CompactOptions) -> Result<CompactReport> {
    let mut report = CompactReport::default();
    loop {
        let state = log.refresh().await?;
        let plan = plan::plan(log, &state, now, options).await?;
        // By hour: what is done first is the oldest.
        let ended = plan.jobs.first().and_then(|job| plan::end_of(&job.hour));
        behind(ended.map_or(0.0, |ended| (now - ended).as_seconds_f64()));
        let cut = plan.cut;
        let pass = Pass { log, state: &state, options, passes: Passes::at(&state), report: &mut report };
        let moved = pass.run(plan).await?;
        if report.fenced {
            return Ok(report);
        }
        // The same plan would be made again where the log does not say that this one is done.
        if !cut || !moved {
            behind(0.0);
            return Ok(report);
        }
    }
}

fn behind(seconds: f64) {
    metrics::gauge!(telemetry::COMPACTION_BEHIND_SECONDS).set(seconds);
}

impl CompactReport {
    fn add(&mut self, more: &Self) {
        self.hours += more.hours;
        self.rows += more.rows;
        self.files_before += more.files_before;
        self.files_after += more.files_after;
        self.bytes_before += more.bytes_before;
        self.bytes_after += more.bytes_after;
        metrics::counter!(telemetry::COMPACTION_HOURS_TOTAL).increment(more.hours);
        metrics::counter!(telemetry::COMPACTION_ROWS_TOTAL).increment(more.rows);
        let sets = [("before", more.files_before, more.bytes_before), ("after", more.files_after, more.bytes_after)];
        for (set, files, bytes) in sets {
            metrics::counter!(telemetry::COMPACTION_FILES_TOTAL, "set" => set).increment(files);
            metrics::counter!(telemetry::COMPACTION_BYTES_TOTAL, "set" => set).increment(bytes);
        }
    }
}

/// One plan on its way.
struct Pass<'a> {
    log: &'a Log,
    state: &'a LogState,
    options: &'a CompactOptions,
    passes: Passes,
    report: &'a mut CompactReport,
}

impl Pass<'_> {
    /// Does what is planned. Says whether the log knows that it is done.
    async fn run(mut self, plan: plan::Plan) -> Result<bool> {
        let mut entry = Entry::default();
        for job in plan.jobs {
            let full = entry.hour.as_deref().is_some_and(|hour| hour != job.hour) || entry.bytes >= ENTRY_BYTES;
            if full && !self.commit(std::mem::take(&mut entry), self.state.compacted_through).await? {
                return Ok(false);
            }
            let files = rewrite::rewrite(self.log.lake(), self.state, &job, entry.attempt, self.options).await?;
            entry.add(&job, files);
        }
        let worth = WORTH_A_MANIFEST.min(self.options.manifests);
        let idle = entry.tables.is_empty() && plan.through < self.state.compacted_through + worth;
        Ok(!idle && self.commit(entry, plan.through).await?)
    }

    /// Puts the entry; `false` when somebody else was quicker.
    async fn commit(&mut self, entry: Entry, considered: EpochNumber) -> Result<bool> {
        let after: Vec<&DataFile> = entry.tables.values().flat_map(|table| &table.files).collect();
        let (files, bytes) = (after.len() as u64, after.iter().map(|file| file.bytes).sum::<u64>());
        let (rows, hours) = (after.iter().map(|file| file.rows).sum::<u64>(), entry.tables.len() as u64);
        let hour = entry.hour.unwrap_or_default();
        let control = vec![Control::Compacted { hour: hour.clone(), tables: entry.tables, considered }];
        let draft = Draft { control, spans: vec![self.passes.advance()], ..Draft::new(entry.attempt, Utc::now()) };
        match self.log.commit(draft, &without_rows).await {
            Ok(manifest) => {
                let n = manifest.n;
                tracing::info!(n, hour, hours, rows, files_before = entry.files, files, bytes, "compacted");
                self.report.add(&CompactReport {
                    hours,
                    files_before: entry.files,
                    files_after: files,
                    bytes_before: entry.bytes,
                    bytes_after: bytes,
                    rows,
                    fenced: false,
                });
                Ok(true)
            }
            Err(error) if error.kind() == &ErrorKind::Fenced => {
                tracing::info!("another process compacts this lake: {error}");
                self.report.fenced = true;
                Ok(false)
            }
            Err(error) => Err(error.doing("commit a compaction")),
        }
    }
}

/// What the next manifest will say.
#[derive(Debug)]
struct Entry {
    attempt: Ulid,
    hour: Option<String>,
    tables: BTreeMap<String, Compaction>,
    /// Of the files that are replaced.
    bytes: u64,
    files: u64,
}

impl Default for Entry {
    fn default() -> Self {
        Self { attempt: Ulid::new(), hour: None, tables: BTreeMap::new(), bytes: 0, files: 0 }
    }
}

impl Entry {
    fn add(&mut self, job: &plan::Job, files: Vec<DataFile>) {
        self.hour = Some(job.hour.clone());
        self.bytes += job.sources.iter().map(|source| source.file.bytes).sum::<u64>();
        self.files += job.sources.len() as u64;
        self.tables.insert(job.table.clone(), Compaction { first: job.first, last: job.last, files });
    }
}

/// The log's count of compactions and retirements, as far as the state said that a plan was made from.
#[derive(Debug)]
struct Passes {
    at: u64,
}

impl Passes {
    fn at(state: &LogState) -> Self {
        let standing = state.progress.get(&Self::partition());
        Self { at: standing.and_then(|standing| standing.position.as_offset()).unwrap_or(0) }
    }

    /// Beside the count of closings, below a name that no source can have.
    fn partition() -> Partition {
        Partition::new("quarantine", "compactions")
    }

    /// Moves the count on by one: a span for the next manifest.
    fn advance(&mut self) -> Advance {
        let from = Position::offset(self.at);
        self.at += 1;
        let span = Span { from, to: Position::offset(self.at) };
        Advance { partition: Self::partition(), span, generation: 0, mark: None }
    }
}

fn without_rows(table: &str, _: &TableSchema) -> Result<TableSchema> {
    Err(Error::new(ErrorKind::Internal, format!("a compaction brings no rows of table {table}")))
}

/// The hour that a processed file belongs to, by its path: `processed/<table>/<dt=…/hour=…>/<name>`.
pub(super) fn hour_of(path: &str) -> Option<&str> {
    let day = path.find("/dt=")? + 1;
    let (folder, _) = path.rsplit_once('/')?;
    folder.get(day..)
}
