//! What the process knows about itself right now, for the status page, the terminal view and metrics.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::epoch::{Account, EpochNumber, LoadAccount};

/// Shared between the pipeline, which writes it, and whoever shows it.
#[derive(Debug)]
pub struct Status(Mutex<StatusSnapshot>);

impl Status {
    /// A process that is about to start.
    pub fn new(name: &str) -> Self {
        Self(Mutex::new(StatusSnapshot {
            name: name.to_owned(),
            version: env!("CARGO_PKG_VERSION"),
            started_at: Utc::now(),
            now: Utc::now(),
            log: String::new(),
            epoch: 0,
            ready: false,
            problems: Vec::new(),
            sources: BTreeMap::new(),
            tables: BTreeMap::new(),
            account: Account::default(),
            balanced: true,
        }))
    }

    /// Changes it under the lock. A panic elsewhere does not make the status unreadable.
    pub fn update(&self) -> MutexGuard<'_, StatusSnapshot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy as of now: ages are computed at this moment, so they grow while nothing moves.
    pub fn snapshot(&self) -> StatusSnapshot {
        let mut snapshot = self.update().clone();
        snapshot.now = Utc::now();
        for table in snapshot.tables.values_mut() {
            let newest = table.newest_source_time_us.and_then(DateTime::from_timestamp_micros);
            table.freshness_seconds = newest.map(|t| (snapshot.now - t).num_milliseconds() as f64 / 1000.0);
        }
        snapshot
    }
}

/// Everything at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct StatusSnapshot {
    /// The topology's name.
    pub name: String,
    /// Ours.
    pub version: &'static str,
    /// When the process began.
    pub started_at: DateTime<Utc>,
    /// When the copy was made.
    pub now: DateTime<Utc>,
    /// The log's UUID.
    pub log: String,
    /// The newest epoch in the log.
    pub epoch: EpochNumber,
    /// Whether sources, lake and warehouse were all reached once.
    pub ready: bool,
    /// What is wrong, newest first.
    pub problems: Vec<Problem>,
    /// By source name.
    pub sources: BTreeMap<String, SourceStatus>,
    /// By table name.
    pub tables: BTreeMap<String, TableStatus>,
    /// The log's account: everything that was ever read.
    pub account: Account,
    /// Whether every account balances.
    pub balanced: bool,
}

/// Something that a person should know.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    /// Where: a source, a group, a table.
    pub what: String,
    /// What happened, and what to do.
    pub why: String,
    /// When it was seen last.
    pub at: DateTime<Utc>,
    /// How often in a row.
    pub times: u64,
}

/// One source.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SourceStatus {
    /// Records read since the process began.
    pub records: u64,
    /// By partition: the next position and how far behind the end (records or bytes).
    pub partitions: BTreeMap<String, PartitionStatus>,
    /// When the last record came.
    pub last_record_at: Option<DateTime<Utc>>,
}

/// One partition.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PartitionStatus {
    /// The next position to read.
    pub position: String,
    /// Records (Kafka) or bytes (files) behind the end.
    pub behind: u64,
}

/// One table.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TableStatus {
    /// The group that it becomes visible with.
    pub group: String,
    /// `running`, or `stopped` with `why`.
    pub state: TableState,
    /// Why it is stopped.
    pub why: Option<String>,
    /// Rows written to the lake since the log began.
    pub written: u64,
    /// Rows that rules refused since the log began.
    pub rejected: u64,
    /// Rows that filters left out since the log began.
    pub filtered: u64,
    /// Quarantine entries that nobody has closed.
    pub quarantine_open: u64,
    /// What the warehouse did with the written rows since this process began.
    pub load: LoadAccount,
    /// The newest epoch with rows of it in the log.
    pub log_epoch: EpochNumber,
    /// The newest epoch in the warehouse.
    pub warehouse_epoch: EpochNumber,
    /// The newest commit time at the source that the warehouse shows, microseconds since 1970.
    pub newest_source_time_us: Option<i64>,
    /// Now minus that; computed for every copy.
    pub freshness_seconds: Option<f64>,
    /// When the warehouse was last changed.
    pub applied_at: Option<DateTime<Utc>>,
}

/// Whether a table is loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TableState {
    #[default]
    Running,
    Stopped,
}
