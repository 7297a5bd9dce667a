//! Closing quarantined entries in the log: one at a time, and all of an age at once when their retention is over.
//!
//! Every closing moves one partition of the log forward, so of two that were begun at the same time the second is fenced.
//! That is what lets an expiry say how many entries it closes: nobody closed one of them meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use ulid::Ulid;

use super::sweep::MINIMUM_AGE;
use super::{Draft, Log, LogState};
use crate::contract::TableSchema;
use crate::epoch::{Control, EpochNumber, Manifest};
use crate::error::{Error, ErrorKind, Result};
use crate::progress::{Advance, Partition, Position, Span};

/// How long before the end of their retention open entries are announced.
const NOTICE: TimeDelta = TimeDelta::days(1);
/// So many epochs without an open entry are worth a manifest that says so: the next sweep begins after them.
const WORTH_A_MANIFEST: u64 = 1024;

/// The log's count of closings, as far as one process has seen it.
#[derive(Debug)]
pub struct Closings {
    at: u64,
}

impl Closings {
    /// Where the count stands.
    pub fn at(state: &LogState) -> Self {
        let standing = state.progress.get(&Self::partition());
        Self { at: standing.and_then(|standing| standing.position.as_offset()).unwrap_or(0) }
    }

    fn partition() -> Partition {
        Partition::new("quarantine", "closings")
    }

    /// Moves the count on by one: a span for the manifest that closes something.
    pub fn advance(&mut self) -> Advance {
        let from = Position::offset(self.at);
        self.at += 1;
        let span = Span { from, to: Position::offset(self.at) };
        Advance { partition: Self::partition(), span, generation: 0, mark: None }
    }
}

/// What is past its retention, and what soon will be.
#[derive(Debug, Default, PartialEq, Eq)]
struct Aged {
    /// The newest epoch past the retention.
    through: EpochNumber,
    /// Entries up to it that are still open, by table.
    open: BTreeMap<String, u64>,
    /// The files of these epochs.
    files: Vec<(String, u64)>,
    /// Open entries that follow within [`NOTICE`], by table.
    soon: BTreeMap<String, u64>,
}

/// What an expiry did.
#[derive(Debug, Default)]
pub(super) struct Expired {
    /// Entries that were closed, by table.
    pub closed: BTreeMap<String, u64>,
    /// Entries that will be within a day, by table.
    pub soon: BTreeMap<String, u64>,
    /// The files that nobody needs any more: path and bytes.
    pub files: Vec<(String, u64)>,
}

/// Closes what is open past its retention as of `now`, by the store's clock. Only then may its files go.
pub(super) async fn expire(log: &Log, now: DateTime<Utc>, retention: Duration) -> Result<Expired> {
    let Ok(retention) = TimeDelta::from_std(retention) else { return Ok(Expired::default()) };
    let state = log.refresh().await?;
    let aged = aged(log, &state, now, retention.max(MINIMUM_AGE)).await?;
    for (table, count) in &aged.soon {
        tracing::warn!(
            table,
            count,
            "quarantined entries are past their retention within a day and will be closed as expired; to keep them, bring \
             them in again (`dataflow quarantine retry`) or raise lake.quarantine.retention"
        );
    }
    if !aged.open.is_empty() || aged.through >= state.expired_through + WORTH_A_MANIFEST {
        let control = vec![Control::Expired { through: aged.through, open: aged.open.clone() }];
        let spans = vec![Closings::at(&state).advance()];
        let draft = Draft { control, spans, ..Draft::new(Ulid::new(), Utc::now()) };
        log.commit(draft, &without_rows).await?;
    }
    for (table, count) in &aged.open {
        tracing::warn!(
            table,
            count,
            through = aged.through,
            "quarantined entries expired: their retention is over, and they are closed without having been loaded"
        );
    }
    Ok(Expired { closed: aged.open, soon: aged.soon, files: aged.files })
}

/// Reads the manifests from the first that may hold open entries to the first that is too young.
async fn aged(log: &Log, state: &LogState, now: DateTime<Utc>, retention: TimeDelta) -> Result<Aged> {
    let mut aged = Aged { through: state.expired_through, ..Aged::default() };
    for n in state.expired_through + 1..=state.n {
        let (manifest, put_at) = log.manifest_and_time(n).await?;
        let age = now - put_at;
        if age <= retention - NOTICE {
            break;
        }
        let past = age > retention && aged.through == n - 1;
        if past {
            aged.through = n;
            aged.files.extend(manifest.quarantine.iter().map(|q| (q.file.path.clone(), q.file.bytes)));
        }
        let into = if past { &mut aged.open } else { &mut aged.soon };
        for (table, count) in open_of(state, &manifest) {
            *into.entry(table).or_default() += count;
        }
    }
    Ok(aged)
}

/// The entries of a manifest that nobody has closed, by table.
fn open_of(state: &LogState, manifest: &Manifest) -> BTreeMap<String, u64> {
    let closed = state.closed_quarantine.get(&manifest.n);
    let open = manifest.quarantine.iter().flat_map(|file| &file.by_table).map(|(table, count)| {
        let closed = closed.and_then(|tables| tables.get(table)).copied().unwrap_or(0);
        (table.clone(), count.saturating_sub(closed))
    });
    open.filter(|(_, count)| *count > 0).collect()
}

fn without_rows(table: &str, _: &TableSchema) -> Result<TableSchema> {
    Err(Error::new(ErrorKind::Internal, format!("a control entry has no rows of table {table}")))
}
