//! What the process is doing right now, as one snapshot: the pipeline writes it, the status page, `/metrics` and the live
//! view read it.
//!
//! Ages are computed when the snapshot is read, never when it is written: a process that is stuck shows them growing.

use std::sync::{PoisonError, RwLock};

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::reading::TableReading;

/// The shared place where the newest snapshot stands.
#[derive(Debug)]
pub struct Status {
    current: RwLock<StatusSnapshot>,
}

/// Everything that a person asks at three in the morning.
#[derive(Debug, Clone, Serialize)]
pub struct StatusSnapshot {
    /// The topology's name.
    pub name: String,
    /// The program's version.
    pub version: String,
    /// The log's UUID; empty until it is open.
    pub log: String,
    /// The newest epoch in the log.
    pub epoch: u64,
    /// When the process began.
    pub started_at: DateTime<Utc>,
    /// Seconds since then; set on reading.
    pub uptime_s: u64,
    /// When the snapshot was read; set on reading.
    pub now: DateTime<Utc>,
    /// Log and warehouse are open and sources are read (`/readyz`).
    pub ready: bool,
    /// Nothing has halted (`/healthz`).
    pub healthy: bool,
    /// A table that has something to load is late when its freshness is above this, in seconds.
    pub late_after_s: u64,
    /// What a person should know about, oldest first.
    pub problems: Vec<Problem>,
    /// Sources.
    pub sources: Vec<SourceStatus>,
    /// Groups of tables.
    pub groups: Vec<GroupStatus>,
    /// Tables.
    pub tables: Vec<TableStatus>,
    /// What is done beside the stream, by this process.
    pub upkeep: Vec<UpkeepStatus>,
    /// What became of everything.
    pub account: AccountStatus,
    /// Bytes read and held but not yet sealed.
    pub inflight_bytes: u64,
    /// Refused records whose table is not known, neither retried nor given up.
    pub undecoded_open: u64,
    /// Of these, still open when their retention was over, since the log began.
    pub undecoded_expired: u64,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What does not work, e.g. `load of group sales`.
    pub what: String,
    /// Why: the error's text.
    pub why: String,
    /// What a person can do.
    pub help: Option<String>,
    /// Since when.
    pub since: DateTime<Utc>,
}

/// A source.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SourceStatus {
    /// Its name in the topology.
    pub name: String,
    /// What this process reads of it.
    pub partitions: Vec<PartitionStatus>,
    /// Records (Kafka) or bytes (files) not yet read, over all partitions; `None` while unknown.
    pub behind: Option<u64>,
    /// When something was read last.
    pub last_record_at: Option<DateTime<Utc>>,
    /// Commit time at the source of the record read last, microseconds since 1970.
    pub newest_source_time_us: Option<i64>,
    /// Now minus that time, seconds; set on reading. Grows when the source is quiet, too.
    pub behind_s: Option<f64>,
    /// The replication slot that it reads, where it reads one.
    pub slot: Option<super::SlotStatus>,
}

/// A partition of a source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionStatus {
    /// Its name.
    pub name: String,
    /// The next position that will be read.
    pub position: String,
    /// Records or bytes not yet read; `None` while unknown.
    pub behind: Option<u64>,
}

/// Tables that are committed together.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct GroupStatus {
    /// Its name.
    pub group: String,
    /// The newest epoch up to which the warehouse holds everything of the group.
    pub warehouse_epoch: u64,
    /// When the changes that wait are loaded; `None` when none do, or they are being loaded.
    pub due_at: Option<DateTime<Utc>>,
    /// Until then, seconds; set on reading.
    pub due_in_s: Option<f64>,
    /// What was decided last, and why.
    pub decision: Option<String>,
    /// When it was last committed.
    pub committed_at: Option<DateTime<Utc>>,
    /// Now minus that time, seconds; set on reading.
    pub commit_age_s: Option<f64>,
}

/// Something that is done now and then: `sweep`, `compaction`, `catalog`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct UpkeepStatus {
    /// Its name.
    pub task: String,
    /// When it last succeeded.
    pub succeeded_at: Option<DateTime<Utc>>,
    /// Now minus that time, or minus the beginning of the process, seconds; set on reading.
    pub age_s: f64,
    /// How often it failed since the process began.
    pub failures: u64,
}

/// How a table is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TableState {
    /// Nothing has come yet.
    #[default]
    Waiting,
    /// Changes are loaded.
    Running,
    /// A person stopped it; its changes wait in the lake.
    Paused,
    /// It stopped by itself; its changes wait in the lake.
    Parked,
}

impl TableState {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Parked => "parked",
        }
    }

    /// Whether its changes wait in the lake.
    pub fn is_stopped(self) -> bool {
        matches!(self, Self::Paused | Self::Parked)
    }
}

/// A load of a table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LastLoad {
    /// When it was applied.
    pub at: DateTime<Utc>,
    /// Seconds since the one before.
    pub after_s: f64,
    /// The changes that it brought.
    pub changes: u64,
}

impl LastLoad {
    /// Over the longer of its own interval and the time since: a table that stands still goes towards 0.
    fn rate(&self, now: DateTime<Utc>) -> f64 {
        let since = (now - self.at).num_milliseconds() as f64 / 1e3;
        self.changes as f64 / self.after_s.max(since).max(0.001)
    }
}

/// A table.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct TableStatus {
    /// Its name.
    pub table: String,
    /// Its group.
    pub group: String,
    /// How it is doing.
    pub state: TableState,
    /// Why it does not run.
    pub why: Option<String>,
    /// Why it should be read again: rows have got values without any event.
    pub needs_resync: Option<String>,
    /// How far its rows have been read beside its changes; `None` when they are not being read.
    pub reading: Option<TableReading>,
    /// Changes applied since the log began.
    pub changes_total: u64,
    /// Changes applied per second since the load before the last one; sinks while nothing is applied. Set on reading.
    pub changes_per_s: f64,
    /// The last load of this process, and how long after the one before it came.
    #[serde(skip)]
    pub last_load: Option<LastLoad>,
    /// Newest commit time at the source that the warehouse shows, microseconds since 1970.
    pub newest_source_time_us: Option<i64>,
    /// Now minus that time, seconds; set on reading.
    pub freshness_s: Option<f64>,
    /// How old its changes may be when the warehouse shows them, seconds; `None`: they do not wait.
    pub fresh_within_s: Option<f64>,
    /// Since when its oldest change in the lake waits, microseconds since 1970, where changes may wait.
    pub waiting_since_us: Option<i64>,
    /// The newest epoch in the log with changes of it.
    pub log_epoch: u64,
    /// The newest of those that the warehouse holds.
    pub warehouse_epoch: u64,
    /// Refused and neither retried nor given up.
    pub rejects_open: u64,
    /// Still open when their retention was over, since the log began.
    pub rejects_expired: u64,
    /// Partial rows that found no base in the warehouse and that nothing has healed yet; `None` until the warehouse said.
    pub incomplete_open: Option<u64>,
    /// There is something to load, and it has waited longer than `late_after_s` and than it may; set on reading.
    pub late: bool,
}

/// What became of everything, as sums.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AccountStatus {
    /// Records read.
    pub read: u64,
    /// Tombstones, heartbeats, re-delivered records, records of streams that no table reads.
    pub control: u64,
    /// Rows in the lake.
    pub written: u64,
    /// Rows that the warehouse shows, or whose deletion it shows.
    pub applied: u64,
    /// Rows that a newer version replaced before they were shown.
    pub superseded: u64,
    /// Rows left out by a filter.
    pub filtered: u64,
    /// Records and rows in quarantine.
    pub rejected: u64,
    /// Rows in the lake that are not yet in the warehouse.
    pub waiting: u64,
    /// The first sum that does not hold, in words; `None` = balanced.
    pub imbalance: Option<String>,
}

impl Status {
    /// A process that has just begun.
    pub fn new(name: impl Into<String>, late_after_s: u64) -> Self {
        let now = Utc::now();
        let current = StatusSnapshot {
            name: name.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            log: String::new(),
            epoch: 0,
            started_at: now,
            uptime_s: 0,
            now,
            ready: false,
            healthy: true,
            late_after_s,
            problems: Vec::new(),
            sources: Vec::new(),
            groups: Vec::new(),
            tables: Vec::new(),
            upkeep: Vec::new(),
            account: AccountStatus::default(),
            inflight_bytes: 0,
            undecoded_open: 0,
            undecoded_expired: 0,
        };
        Self { current: RwLock::new(current) }
    }

    /// Changes the snapshot. Short: readers wait.
    pub fn update(&self, change: impl FnOnce(&mut StatusSnapshot)) {
        // A writer that panicked leaves numbers behind, nothing that could be half true.
        change(&mut self.current.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Notes a problem, or renews it under the same `what` keeping its beginning.
    pub fn problem(&self, what: &str, why: impl Into<String>, help: Option<String>) {
        let why = why.into();
        self.update(|s| match s.problems.iter_mut().find(|p| p.what == what) {
            Some(known) => (known.why, known.help) = (why, help),
            None => s.problems.push(Problem { what: what.to_owned(), why, help, since: Utc::now() }),
        });
    }

    /// The problem is over.
    pub fn solved(&self, what: &str) {
        self.update(|s| s.problems.retain(|p| p.what != what));
    }

    /// A task beside the stream has begun to be done now and then, succeeded or failed.
    pub fn kept_up(&self, task: &str, succeeded: Option<bool>) {
        self.update(|s| {
            if !s.upkeep.iter().any(|known| known.task == task) {
                s.upkeep.push(UpkeepStatus { task: task.to_owned(), ..UpkeepStatus::default() });
            }
            let Some(known) = s.upkeep.iter_mut().find(|known| known.task == task) else { return };
            match succeeded {
                Some(true) => known.succeeded_at = Some(Utc::now()),
                Some(false) => known.failures += 1,
                None => {}
            }
        });
    }

    /// The snapshot with its ages as of now.
    pub fn snapshot(&self) -> StatusSnapshot {
        self.snapshot_at(Utc::now())
    }

    /// The snapshot with its ages as of `now`.
    pub fn snapshot_at(&self, now: DateTime<Utc>) -> StatusSnapshot {
        let mut snapshot = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        snapshot.age(now);
        snapshot
    }
}

impl StatusSnapshot {
    fn age(&mut self, now: DateTime<Utc>) {
        let age = |us: i64| (now.timestamp_micros() - us).max(0) as f64 / 1e6;
        self.now = now;
        self.uptime_s = (now - self.started_at).num_seconds().max(0) as u64;
        for source in &mut self.sources {
            source.behind_s = source.newest_source_time_us.map(age);
        }
        for group in &mut self.groups {
            group.commit_age_s = group.committed_at.map(|at| age(at.timestamp_micros()));
            group.due_in_s = group.due_at.map(|at| (at - now).num_milliseconds().max(0) as f64 / 1e3);
        }
        for task in &mut self.upkeep {
            task.age_s = age(task.succeeded_at.unwrap_or(self.started_at).timestamp_micros());
        }
        let unread = self.sources.iter().any(|source| source.behind.is_some_and(|behind| behind > 0));
        for table in &mut self.tables {
            table.freshness_s = table.newest_source_time_us.map(age);
            table.changes_per_s = table.last_load.map_or(table.changes_per_s, |load| load.rate(now));
            // Without anything to load an old table is quiet, not late.
            let pending = unread || table.log_epoch > table.warehouse_epoch;
            let allowed = table.fresh_within_s.unwrap_or(0.0).max(self.late_after_s as f64);
            let old = table.freshness_s.is_none_or(|seconds| seconds > allowed);
            // Nor is one whose changes wait because they may, however old the one before them is.
            let waits = table.waiting_since_us.map(age).is_some_and(|seconds| seconds <= allowed);
            let long_enough = self.uptime_s as f64 > allowed || table.freshness_s.is_some();
            table.late = pending && old && long_enough && (unread || !waits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    fn one_table(log_epoch: u64, warehouse_epoch: u64) -> (Status, DateTime<Utc>) {
        let status = Status::new("sales", 300);
        let start = Utc::now();
        status.update(|s| {
            let newest = Some(start.timestamp_micros());
            let table = TableStatus { table: "orders".into(), log_epoch, warehouse_epoch, ..TableStatus::default() };
            s.tables = vec![TableStatus { newest_source_time_us: newest, ..table }];
        });
        (status, start)
    }

    #[test]
    fn freshness_grows_without_anybody_writing() {
        let (status, start) = one_table(7, 6);
        let at = |seconds| status.snapshot_at(start + TimeDelta::seconds(seconds)).tables.remove(0);
        assert_eq!((at(10).freshness_s, at(10).late), (Some(10.0), false));
        assert_eq!((at(400).freshness_s, at(400).late), (Some(400.0), true));
    }

    #[test]
    fn a_quiet_table_is_old_but_not_late() {
        let (status, start) = one_table(7, 7);
        let table = status.snapshot_at(start + TimeDelta::seconds(4000)).tables.remove(0);
        assert_eq!((table.freshness_s, table.late), (Some(4000.0), false));
        status.update(|s| s.sources = vec![SourceStatus { behind: Some(3), ..SourceStatus::default() }]);
        assert!(status.snapshot_at(start + TimeDelta::seconds(4000)).tables[0].late);
    }

    #[test]
    fn a_table_whose_changes_may_wait_is_late_when_they_have_waited_too_long() {
        let (status, start) = one_table(7, 6);
        status.update(|s| s.tables[0].fresh_within_s = Some(3600.0));
        let late = |seconds| status.snapshot_at(start + TimeDelta::seconds(seconds)).tables[0].late;
        assert_eq!((late(400), late(3500), late(3700)), (false, false, true));
        // Nothing had come for long; what waits came just now.
        let since = start + TimeDelta::seconds(9000);
        status.update(|s| s.tables[0].waiting_since_us = Some(since.timestamp_micros()));
        assert_eq!((late(9100), late(12_500), late(12_700)), (false, false, true));
    }

    #[test]
    fn the_rate_sinks_while_nothing_is_applied() {
        let (status, start) = one_table(7, 7);
        let last_load = Some(LastLoad { at: start, after_s: 2.0, changes: 100 });
        status.update(|s| s.tables[0].last_load = last_load);
        let rate = |seconds| status.snapshot_at(start + TimeDelta::seconds(seconds)).tables[0].changes_per_s;
        assert_eq!((rate(1), rate(2), rate(1000)), (50.0, 50.0, 0.1));
    }

    #[test]
    fn a_problem_keeps_its_beginning() {
        let status = Status::new("sales", 300);
        status.problem("load", "first", None);
        let since = status.snapshot().problems[0].since;
        status.problem("load", "second", Some("do this".into()));
        let problems = status.snapshot().problems;
        assert_eq!((problems.len(), problems[0].since, problems[0].why.as_str()), (1, since, "second"));
        status.solved("load");
        assert!(status.snapshot().problems.is_empty());
    }
}
