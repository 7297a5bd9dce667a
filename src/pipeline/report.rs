//! Turns what happened into counters and status. Decides nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::batch::{NO_TIME, RecordAccount};
use crate::config::Topology;
use crate::epoch::{Applied, EpochNumber, LoadAccount, LoadUnit, Manifest};
use crate::error::Error;
use crate::lake::{LogState, SweepReport};
use crate::pipeline::build;
use crate::pipeline::governor::Decision;
use crate::pipeline::open_epoch::Written;
use crate::pipeline::reader::Transformed;
use crate::pipeline::readings::Streams;
use crate::pipeline::unit::UnitPlan;
use crate::telemetry::{
    self, AccountStatus, GroupStatus, LastLoad, PartitionStatus, SourceStatus, Status, TableState, TableStatus,
};

/// What a problem with the warehouse is called.
pub const WAREHOUSE: &str = "the warehouse";

/// What a group has in the warehouse and what it lacks.
#[derive(Debug)]
pub struct LoadStanding<'a> {
    pub group: &'a str,
    /// Its tables.
    pub tables: Vec<TableLacks>,
    /// Since when the oldest change of a table waits, microseconds since 1970.
    pub since_us: BTreeMap<&'a str, i64>,
    /// The last epoch that was looked at.
    pub seen: EpochNumber,
}

/// What the warehouse lacks of a table.
#[derive(Debug)]
pub struct TableLacks {
    pub name: String,
    /// Its changes are loaded.
    pub runs: bool,
    /// The first epoch with something of it.
    pub lacks: Option<EpochNumber>,
}

/// Writes the status and the counters.
#[derive(Debug)]
pub struct Report {
    status: Arc<Status>,
    streams: Streams,
    loads: Mutex<BTreeMap<String, LoadAccount>>,
    applied_at: Mutex<BTreeMap<String, Instant>>,
    units: AtomicU64,
}

impl Report {
    /// Reports into `status`, beginning with what the topology names.
    pub fn new(status: Arc<Status>, topology: &Topology) -> Self {
        status.update(|s| {
            s.sources = topology
                .sources
                .keys()
                .map(|name| SourceStatus { name: name.clone(), ..SourceStatus::default() })
                .collect();
            for (group, tables) in build::groups(topology) {
                s.groups.push(GroupStatus { group: group.clone(), ..GroupStatus::default() });
                s.tables.extend(tables.into_iter().map(|table| TableStatus {
                    fresh_within_s: topology.fresh_within(&table).map(|span| span.0.as_secs_f64()),
                    table,
                    group: group.clone(),
                    ..TableStatus::default()
                }));
            }
            s.tables.sort_by(|a, b| a.table.cmp(&b.table));
        });
        let streams = Streams::of(topology);
        Self { status, streams, loads: Mutex::default(), applied_at: Mutex::default(), units: AtomicU64::default() }
    }

    /// How many units this process has loaded.
    pub fn units(&self) -> u64 {
        self.units.load(Ordering::Relaxed)
    }

    /// A reader handed over a batch.
    pub fn read(&self, source: &Arc<str>, done: &Transformed) {
        count_records(source, &done.records);
        for reject in &done.rejects {
            let table = reject.table.clone().unwrap_or_default();
            metrics::counter!(telemetry::REJECTS_TOTAL, "table" => table, "rule" => reject.rule.clone()).increment(1);
        }
        let newest = done.tables.iter().flat_map(|t| &t.source_times_us).copied().max().filter(|t| *t != NO_TIME);
        self.status.update(|s| {
            let Some(entry) = s.sources.iter_mut().find(|entry| entry.name == **source) else { return };
            entry.last_record_at = Some(Utc::now());
            entry.newest_source_time_us = entry.newest_source_time_us.max(newest);
            let behind = done.lag.iter().map(|lag| (&lag.partition, lag.behind));
            partition(entry, &done.advance.partition.name).position = done.advance.span.to.to_string();
            behind.for_each(|(name, behind)| partition(entry, &name.name).behind = Some(behind));
            entry.behind = entry.partitions.iter().map(|p| p.behind).sum();
        });
    }

    /// Bytes that are held and not sealed.
    pub fn inflight(&self, bytes: u64) {
        self.status.update(|s| s.inflight_bytes = bytes);
    }

    /// The log was opened, or has grown.
    pub fn log(&self, state: &LogState) {
        let loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (readings, now) = (self.streams.readings(&state.progress), Utc::now());
        let mut needs = self.streams.needs(&state.progress);
        self.status.update(|s| {
            s.log = state.log.to_string();
            s.epoch = state.n;
            for table in &mut s.tables {
                let totals = state.tables.get(&table.table);
                let stopped = state.stopped.get(&table.table);
                table.why = stopped.map(|stopped| stopped.why.clone());
                table.state = match (stopped, totals) {
                    (Some(stopped), _) if stopped.parked => TableState::Parked,
                    (Some(_), _) => TableState::Paused,
                    (None, Some(_)) => TableState::Running,
                    (None, None) => TableState::Waiting,
                };
                table.needs_resync = needs.remove(&table.table);
                let before = table.reading.take();
                table.reading = readings.get(&table.table).map(|reading| reading.after(before, now));
                table.log_epoch = totals.map_or(0, |totals| totals.epoch);
                table.rejects_open = state.open_quarantine.get(&table.table).copied().unwrap_or(0);
                table.rejects_expired = state.expired_quarantine.get(&table.table).copied().unwrap_or(0);
            }
            s.undecoded_open = state.open_quarantine.get("").copied().unwrap_or(0);
            s.undecoded_expired = state.expired_quarantine.get("").copied().unwrap_or(0);
            s.account = sums(state, &loads);
            // Resumed, whoever did it: what it stumbles over again is said again.
            let running = |what: &str| state.stopped.keys().all(|table| table_problem(table) != what);
            s.problems.retain(|p| !p.what.starts_with(TABLE_PROBLEM) || !running(&p.what));
        });
    }

    /// Ingest committed an epoch.
    pub fn committed(&self, manifest: &Manifest, written: &Written, state: &LogState) {
        for (table, account) in &manifest.account.tables {
            count_rows(table, "any", "rejected", account.rejected.values().sum());
            count_rows(table, "any", "filtered", account.filtered.values().sum());
        }
        for ((table, op), count) in &written.by_op {
            count_rows(table, op, "written", *count);
        }
        for ((table, column), left_out) in &written.left_out {
            let (values, why) = (left_out.values, &left_out.why);
            tracing::warn!(table, column, values, "left out, and null in the warehouse, which cannot hold them: {why}");
            let labels = [("table", table.clone()), ("column", column.clone())];
            metrics::counter!(telemetry::VALUES_LEFT_OUT_TOTAL, &labels).increment(values);
        }
        self.log(state);
    }

    /// Where a group stands: `applied.accounts` are the sums of all loads.
    pub fn ledger(&self, standing: &LoadStanding<'_>, applied: &Applied, state: &LogState) {
        self.loads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(applied.accounts.iter().map(|(table, account)| (table.clone(), *account)));
        self.log(state);
        let lacks = |name: &str| standing.tables.iter().find(|table| table.name == name);
        self.status.update(|s| {
            s.ready = true;
            if let Some(entry) = s.groups.iter_mut().find(|entry| entry.group == standing.group) {
                let first = standing.tables.iter().filter_map(|table| table.lacks).min();
                entry.warehouse_epoch = first.map_or(standing.seen, |first| first - 1).max(applied.through);
                if first.is_none() {
                    entry.due_at = None;
                }
            }
            for table in s.tables.iter_mut().filter(|table| table.group == standing.group) {
                let through = applied.held.get(&table.table).copied().unwrap_or(applied.through);
                let holds = match lacks(&table.table) {
                    Some(TableLacks { runs: true, lacks: None, .. }) => standing.seen.max(through),
                    _ => through,
                };
                table.warehouse_epoch = holds.min(table.log_epoch);
                let waits = table.fresh_within_s.and_then(|_| standing.since_us.get(table.table.as_str()));
                table.waiting_since_us = waits.copied();
                table.changes_total = applied.accounts.get(&table.table).map_or(table.changes_total, |a| a.applied);
            }
        });
    }

    /// What is done with a group's changes that wait.
    pub fn decided(&self, group: &str, decision: &Decision, plan: &UnitPlan, governed: bool) {
        let epochs = plan.takes.len();
        let (due_at, words) = match decision {
            Decision::Load(reason) => {
                let (why, words) = (reason.label(), reason.words());
                metrics::counter!(telemetry::LOADS_TOTAL, "group" => group.to_owned(), "why" => why).increment(1);
                let (through, bytes) = (plan.through, plan.bytes);
                // Where nothing waits, every epoch is a load, and its log line would say nothing new.
                match governed {
                    true => tracing::info!(group, why, epochs, through, bytes, "loading: {words}"),
                    false => tracing::debug!(group, why, epochs, through, bytes, "loading: {words}"),
                }
                (None, format!("loaded: {words}"))
            }
            Decision::Wait { until_us, table, fresh_within } => {
                let words = format!("waits: the first that is due is {table}, to be fresh within {fresh_within}");
                (DateTime::from_timestamp_micros(*until_us), words)
            }
        };
        self.status.update(|s| {
            let Some(entry) = s.groups.iter_mut().find(|entry| entry.group == group) else { return };
            if let Some(due_at) = due_at.filter(|due_at| entry.due_at != Some(*due_at)) {
                tracing::debug!(group, epochs, %due_at, "{words}");
            }
            (entry.due_at, entry.decision) = (due_at, Some(words));
        });
    }

    /// What the warehouse says about freshness when the process begins.
    pub fn fresh(&self, table: &str, max_source_time_us: Option<i64>) {
        self.status.update(|s| {
            if let Some(entry) = s.tables.iter_mut().find(|entry| entry.table == table) {
                entry.newest_source_time_us = entry.newest_source_time_us.max(max_source_time_us);
            }
        });
    }

    /// The warehouse was asked for its partial rows without a base: how many, by table.
    pub fn incompletes(&self, open: &BTreeMap<String, u64>) {
        self.status.update(|s| {
            for table in &mut s.tables {
                table.incomplete_open = Some(open.get(&table.table).copied().unwrap_or(0));
            }
        });
    }

    /// A sweep has ended. What is about to expire is a person's business while there is still time.
    pub fn swept(&self, swept: &SweepReport) {
        const WHAT: &str = "quarantine";
        let soon = &swept.expiring_rejects;
        if soon.is_empty() {
            return self.solved(WHAT);
        }
        let tables: Vec<String> = soon.iter().map(|(table, count)| format!("{} {count}", table_words(table))).collect();
        let why = format!("entries are past their retention within a day, and then gone: {}", tables.join(", "));
        let help = "bring them in again (`dataflow quarantine retry`) or give them up (`dataflow quarantine drop`)";
        self.status.problem(WHAT, why, Some(help.to_owned()));
    }

    /// A task beside the stream is done now and then.
    pub fn keeps_up(&self, task: &'static str) {
        self.status.kept_up(task, None);
    }

    /// It was done in so long, or failed.
    pub fn kept_up(&self, task: &'static str, took: Duration, failure: Option<&Error>) {
        self.status.kept_up(task, Some(failure.is_none()));
        let Some(error) = failure else {
            metrics::histogram!(telemetry::UPKEEP_DURATION_SECONDS, "task" => task).record(took.as_secs_f64());
            return self.solved(task);
        };
        metrics::counter!(telemetry::UPKEEP_FAILURES_TOTAL, "task" => task).increment(1);
        self.problem(task, error);
    }

    /// A unit was applied; `applied.accounts` are the unit's.
    pub fn applied(&self, unit: &LoadUnit, applied: &Applied) {
        self.units.fetch_add(1, Ordering::Relaxed);
        let now = Utc::now();
        for table in &unit.tables {
            let name = &table.contract.table;
            let account = applied.accounts.get(name).copied().unwrap_or_default();
            for (result, count) in
                [("applied", account.applied), ("superseded", account.superseded), ("incomplete", account.incomplete)]
            {
                count_rows(name, "any", result, count);
            }
            let latency = metrics::histogram!(telemetry::END_TO_END_LATENCY_SECONDS, "table" => name.clone());
            for time in table.rows.iter().flat_map(|rows| &rows.source_times_us).filter(|t| **t != NO_TIME) {
                latency.record((now.timestamp_micros() - time) as f64 / 1e6);
            }
            self.fresh(name, Some(table.max_source_time_us).filter(|t| *t != NO_TIME));
            let before =
                self.applied_at.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), Instant::now());
            if let Some(before) = before {
                let after_s = before.elapsed().as_secs_f64();
                let last_load = Some(LastLoad { at: now, after_s, changes: account.loaded });
                self.status.update(|s| {
                    if let Some(entry) = s.tables.iter_mut().find(|entry| entry.table == *name) {
                        entry.last_load = last_load;
                    }
                });
            }
        }
        self.status.update(|s| {
            if let Some(entry) = s.groups.iter_mut().find(|entry| entry.group == unit.group) {
                entry.committed_at = Some(now);
            }
        });
        self.solved(&format!("group {}", unit.group));
    }

    /// A table has stopped by itself, or is about to.
    pub fn parked(&self, table: &str, error: &Error) {
        self.problem(&table_problem(table), error);
    }

    /// Something failed that will be tried again, or stopped a table.
    pub fn problem(&self, what: &str, error: &Error) {
        self.status.problem(what, error.to_string(), error.help_text().map(str::to_owned));
    }

    /// It works again.
    pub fn solved(&self, what: &str) {
        self.status.solved(what);
    }

    /// The process is about to end with this error.
    pub fn halted(&self, error: &Error) {
        self.problem("the process", error);
        self.status.update(|s| s.healthy = false);
    }
}

fn partition<'a>(source: &'a mut SourceStatus, name: &str) -> &'a mut PartitionStatus {
    let at = source.partitions.iter().position(|p| p.name == name).unwrap_or_else(|| {
        source.partitions.push(PartitionStatus { name: name.to_owned(), position: String::new(), behind: None });
        source.partitions.len() - 1
    });
    &mut source.partitions[at]
}

/// How problems of one table begin.
const TABLE_PROBLEM: &str = "table ";

fn table_problem(table: &str) -> String {
    format!("{TABLE_PROBLEM}{table}")
}

fn table_words(table: &str) -> &str {
    if table.is_empty() { "table not known" } else { table }
}

/// What became of everything.
fn sums(state: &LogState, loads: &BTreeMap<String, LoadAccount>) -> AccountStatus {
    let mut records = RecordAccount::default();
    state.account.records.values().for_each(|account| records.add(account));
    let mut load = LoadAccount::default();
    loads.values().for_each(|account| load.add(account));
    let tables = state.account.tables.values();
    let (mut written, mut filtered, mut rejected) = (0, 0, records.rejected);
    for table in tables {
        written += table.written;
        filtered += table.filtered.values().sum::<u64>();
        rejected += table.rejected.values().sum::<u64>();
    }
    AccountStatus {
        read: records.read,
        control: records.control + records.merged + records.redelivered + records.unrouted,
        written,
        applied: load.applied,
        superseded: load.superseded,
        filtered,
        rejected: rejected + load.incomplete,
        waiting: written.saturating_sub(load.loaded),
        imbalance: state.account.imbalance(),
    }
}

fn count_records(source: &Arc<str>, account: &RecordAccount) {
    let results = [
        ("rows", account.rows),
        ("merged", account.merged),
        ("control", account.control),
        ("redelivered", account.redelivered),
        ("rejected", account.rejected),
        ("unrouted", account.unrouted),
    ];
    for (result, count) in results.into_iter().filter(|(_, count)| *count > 0) {
        metrics::counter!(telemetry::RECORDS_TOTAL, "source" => source.to_string(), "result" => result)
            .increment(count);
    }
}

/// `op` is the letter of an operation, or `any` where the fold has brought several together.
fn count_rows(table: &str, op: &'static str, result: &'static str, count: u64) {
    if count > 0 {
        metrics::counter!(telemetry::ROWS_TOTAL, "table" => table.to_owned(), "op" => op, "result" => result)
            .increment(count);
    }
}
