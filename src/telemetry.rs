//! Every metric name and label, the set-up of the log, and the status that is shown. Nothing else in the code spells a
//! metric's name.
//!
//! Units are base units and stand in the name: seconds, bytes; counters end in `_total`.

mod reading;
mod screen;
mod slot;
mod status;

pub use reading::TableReading;
pub use screen::Screen;
pub use slot::SlotStatus;
pub use status::{
    AccountStatus, GroupStatus, LastLoad, PartitionStatus, Problem, SourceStatus, Status, StatusSnapshot, TableState,
    TableStatus, UpkeepStatus,
};

use std::io::IsTerminal;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Time from the commit at the source to the commit in the warehouse, histogram, labels `table`.
pub const END_TO_END_LATENCY_SECONDS: &str = "dataflow_end_to_end_latency_seconds";
/// Now minus the newest commit time that the warehouse shows; grows while stuck; gauge, labels `table`.
pub const WAREHOUSE_FRESHNESS_SECONDS: &str = "dataflow_warehouse_freshness_seconds";
/// Now minus the last warehouse commit of the table's group, gauge, labels `group`.
pub const SINK_COMMIT_AGE_SECONDS: &str = "dataflow_sink_commit_age_seconds";
/// Records between what was read and the source's end, gauge, labels `source`, `partition`.
pub const SOURCE_LAG_RECORDS: &str = "dataflow_source_lag_records";
/// Now minus the commit time of the record read last, gauge, labels `source`.
pub const SOURCE_BEHIND_SECONDS: &str = "dataflow_source_behind_seconds";
/// Records by what became of them, counter, labels `source`, `result`.
pub const RECORDS_TOTAL: &str = "dataflow_records_total";
/// Rows by table, op and result (`written`, `applied`, `superseded`, `filtered`, `rejected`, `incomplete`), counter.
pub const ROWS_TOTAL: &str = "dataflow_rows_total";
/// Rejects, counter, labels `table`, `rule`.
pub const REJECTS_TOTAL: &str = "dataflow_rejects_total";
/// Values that became null because the warehouse cannot hold them (`on_mismatch: ignore`), counter, labels `table`, `column`.
pub const VALUES_LEFT_OUT_TOTAL: &str = "dataflow_values_left_out_total";
/// Retries, counter, labels `part`, `reason`.
pub const RETRIES_TOTAL: &str = "dataflow_retries_total";
/// Passing failures of a Redshift warehouse, counter, labels `reason` (`serializable`, `conflict`, `relation`, `queue`,
/// `store`, `credentials`, `connection`, `silence`, `resources`, `server`, `internal`).
pub const WAREHOUSE_FAULTS_TOTAL: &str = "dataflow_warehouse_faults_total";
/// Loads by the reason why they were begun, counter, labels `group`, `why` (`committed`, `due`, `full`, `stopping`, `behind`,
/// `ledger`).
pub const LOADS_TOTAL: &str = "dataflow_loads_total";
/// Seconds until a group's changes that wait are due (0: nothing waits), gauge, labels `group`.
pub const LOAD_DUE_SECONDS: &str = "dataflow_load_due_seconds";
/// Time from an epoch's first record to its commit, histogram.
pub const EPOCH_DURATION_SECONDS: &str = "dataflow_epoch_duration_seconds";
/// Time of each step (`seal`, `upload`, `manifest`, `fold`, `apply`, `release`), histogram, labels `step`.
pub const STEP_DURATION_SECONDS: &str = "dataflow_step_duration_seconds";
/// Requests to the lake's store, counter, labels `operation` (`get`, `put`, `list`, …), `answer` (`ok`, `exists`, `absent`,
/// `slow_down`, …).
pub const STORE_REQUESTS_TOTAL: &str = "dataflow_store_requests_total";
/// Bytes sent to the lake's store, counter, labels `operation`.
pub const STORE_SENT_BYTES_TOTAL: &str = "dataflow_store_sent_bytes_total";
/// Now minus the time at which a task beside the stream last succeeded, or the process began; gauge, labels `task` (`sweep`,
/// `compaction`, `catalog`).
pub const UPKEEP_AGE_SECONDS: &str = "dataflow_upkeep_age_seconds";
/// How long it took, histogram, labels `task`.
pub const UPKEEP_DURATION_SECONDS: &str = "dataflow_upkeep_duration_seconds";
/// How often it failed, counter, labels `task`.
pub const UPKEEP_FAILURES_TOTAL: &str = "dataflow_upkeep_failures_total";
/// Hours of tables that were compacted, counter.
pub const COMPACTION_HOURS_TOTAL: &str = "dataflow_compaction_hours_total";
/// Files that compactions replaced and made, counter, labels `set` (`before`, `after`).
pub const COMPACTION_FILES_TOTAL: &str = "dataflow_compaction_files_total";
/// Their bytes, counter, labels `set`.
pub const COMPACTION_BYTES_TOTAL: &str = "dataflow_compaction_bytes_total";
/// Rows that were written again, counter.
pub const COMPACTION_ROWS_TOTAL: &str = "dataflow_compaction_rows_total";
/// Files that were deleted a day after they had been compacted, counter.
pub const COMPACTION_DELETED_TOTAL: &str = "dataflow_compaction_deleted_total";
/// How long ago the oldest hour ended that is closed and was not compacted (0: none), as of the last look, gauge.
pub const COMPACTION_BEHIND_SECONDS: &str = "dataflow_compaction_behind_seconds";
/// Requests to the catalog, counter, labels `operation`, `answer` (`ok`, or the error's code).
pub const CATALOG_REQUESTS_TOTAL: &str = "dataflow_catalog_requests_total";
/// What was made or changed in the catalog, counter, labels `what` (`tables`, `registered`, `moved` partitions).
pub const CATALOG_CHANGES_TOTAL: &str = "dataflow_catalog_changes_total";
/// The newest epoch in the log, gauge.
pub const LOG_EPOCH: &str = "dataflow_log_epoch";
/// The newest epoch in the warehouse, gauge, labels `group`.
pub const WAREHOUSE_EPOCH: &str = "dataflow_warehouse_epoch";
/// Bytes read and held but not yet sealed, gauge.
pub const INFLIGHT_BYTES: &str = "dataflow_inflight_bytes";
/// 1 while the table is parked or paused, gauge, labels `table`, `why`.
pub const TABLE_STOPPED: &str = "dataflow_table_stopped";
/// 1 while a table should be read again because rows have got values without any event, gauge, labels `table`.
pub const TABLE_NEEDS_RESYNC: &str = "dataflow_table_needs_resync";
/// Rows of a table that were read beside its changes so far, 0 when it is not being read; gauge, labels `table`.
pub const SNAPSHOT_ROWS: &str = "dataflow_snapshot_rows";
/// About how many rows there are to be read, gauge, labels `table`.
pub const SNAPSHOT_ROWS_EXPECTED: &str = "dataflow_snapshot_rows_expected";
/// Log that a replication slot makes its server keep, gauge, labels `source`.
pub const SLOT_RETAINED_BYTES: &str = "dataflow_slot_retained_bytes";
/// Log that the server may still write before the slot is lost (absent without a limit), gauge, labels `source`.
pub const SLOT_SAFE_BYTES: &str = "dataflow_slot_safe_bytes";
/// Log between what was acknowledged and the server's end, gauge, labels `source`.
pub const SLOT_BEHIND_BYTES: &str = "dataflow_slot_behind_bytes";
/// 1 for the slot's `wal_status`, gauge, labels `source`, `status` (`reserved`, `extended`, `unreserved`, `lost`).
pub const SLOT_STATUS: &str = "dataflow_slot_status";
/// Log that the server writes per second, over the last minutes, gauge, labels `source`.
pub const SLOT_WAL_BYTES_PER_SECOND: &str = "dataflow_slot_wal_bytes_per_second";
/// When the slot is lost if it goes on like in the last minutes (-1: never), gauge, labels `source`.
pub const SLOT_RUNS_OUT_SECONDS: &str = "dataflow_slot_runs_out_seconds";
/// 1 while somebody should look after the slot, gauge, labels `source`.
pub const SLOT_ALERT: &str = "dataflow_slot_alert";
/// What is kept of transactions that the server sends while they run, gauge, labels `source`.
pub const SPOOL_BYTES: &str = "dataflow_spool_bytes";
/// Binary log that a MySQL or MariaDB server keeps, gauge, labels `source`.
pub const BINLOG_RETAINED_BYTES: &str = "dataflow_binlog_retained_bytes";
/// Binary log between what was read and the server's end, gauge, labels `source`.
pub const BINLOG_BEHIND_BYTES: &str = "dataflow_binlog_behind_bytes";
/// 1, labels `version`, `log`.
pub const BUILD_INFO: &str = "dataflow_build_info";

/// Seconds since the process began, gauge.
pub const UPTIME_SECONDS: &str = "dataflow_uptime_seconds";
/// Refused and neither retried nor given up, gauge, labels `table`.
pub const REJECTS_OPEN: &str = "dataflow_rejects_open";
/// Entries that were still in quarantine when their retention was over, gauge (since the log began), labels `table`.
pub const REJECTS_EXPIRED: &str = "dataflow_rejects_expired";
/// Partial rows that found no base in the warehouse and that nothing has healed yet, gauge, labels `table`.
pub const INCOMPLETE_OPEN: &str = "dataflow_incomplete_open";
/// 1 while both sums of the account hold, 0 when one does not, gauge.
pub const ACCOUNT_BALANCED: &str = "dataflow_account_balanced";
/// What became of everything, gauge, labels `part` (`read`, `control`, `written`, `applied`, `superseded`, `filtered`,
/// `rejected`, `waiting`).
pub const ACCOUNT: &str = "dataflow_account";

/// Gives every metric its help text and unit. Called once, after the recorder is installed.
pub fn describe() {
    describe_histogram!(
        END_TO_END_LATENCY_SECONDS,
        Unit::Seconds,
        "From the commit at the source to the commit in the warehouse"
    );
    describe_gauge!(
        WAREHOUSE_FRESHNESS_SECONDS,
        Unit::Seconds,
        "Now minus the newest commit time that the warehouse shows"
    );
    describe_gauge!(SINK_COMMIT_AGE_SECONDS, Unit::Seconds, "Now minus the group's last warehouse commit");
    describe_gauge!(
        SOURCE_LAG_RECORDS,
        Unit::Count,
        "Records (files: bytes) between what was read and the source's end"
    );
    describe_gauge!(SOURCE_BEHIND_SECONDS, Unit::Seconds, "Now minus the commit time of the record read last");
    describe_counter!(RECORDS_TOTAL, Unit::Count, "Records by what became of them");
    describe_counter!(ROWS_TOTAL, Unit::Count, "Rows by table, operation and result");
    describe_counter!(REJECTS_TOTAL, Unit::Count, "Rejects by table and rule");
    describe_counter!(
        VALUES_LEFT_OUT_TOTAL,
        Unit::Count,
        "Values that became null because the warehouse cannot hold them"
    );
    describe_counter!(RETRIES_TOTAL, Unit::Count, "Retries by part and reason");
    describe_counter!(STORE_REQUESTS_TOTAL, Unit::Count, "Requests to the lake's store by operation and answer");
    describe_counter!(STORE_SENT_BYTES_TOTAL, Unit::Bytes, "Bytes sent to the lake's store");
    describe_counter!(WAREHOUSE_FAULTS_TOTAL, Unit::Count, "Passing failures of the warehouse by reason");
    describe_counter!(LOADS_TOTAL, Unit::Count, "Loads by group and the reason why they were begun");
    describe_gauge!(LOAD_DUE_SECONDS, Unit::Seconds, "Until the group's changes that wait are due; 0: nothing waits");
    describe_histogram!(EPOCH_DURATION_SECONDS, Unit::Seconds, "From an epoch's first record to its commit");
    describe_histogram!(STEP_DURATION_SECONDS, Unit::Seconds, "Time of each step of an epoch");
    describe_upkeep();
    describe_gauge!(LOG_EPOCH, Unit::Count, "The newest epoch in the log");
    describe_gauge!(WAREHOUSE_EPOCH, Unit::Count, "The newest epoch in the warehouse");
    describe_gauge!(INFLIGHT_BYTES, Unit::Bytes, "Bytes read and held but not yet sealed");
    describe_gauge!(TABLE_STOPPED, Unit::Count, "1 while the table is parked or paused");
    describe_gauge!(TABLE_NEEDS_RESYNC, Unit::Count, "1 while rows have got values without any event");
    describe_gauge!(SNAPSHOT_ROWS, Unit::Count, "Rows read beside the table's changes so far; 0 when it is not read");
    describe_gauge!(SNAPSHOT_ROWS_EXPECTED, Unit::Count, "About how many rows there are to be read");
    describe_gauge!(SLOT_RETAINED_BYTES, Unit::Bytes, "Log that a replication slot makes its server keep");
    describe_gauge!(SLOT_SAFE_BYTES, Unit::Bytes, "Log that may still be written before the slot is lost");
    describe_gauge!(SLOT_BEHIND_BYTES, Unit::Bytes, "Log between what was acknowledged and the server's end");
    describe_gauge!(SLOT_STATUS, Unit::Count, "1 for the slot's wal_status");
    describe_gauge!(SLOT_WAL_BYTES_PER_SECOND, Unit::Bytes, "Log that the server writes per second");
    describe_gauge!(SLOT_RUNS_OUT_SECONDS, Unit::Seconds, "When the slot is lost if it goes on like this; -1: never");
    describe_gauge!(SLOT_ALERT, Unit::Count, "1 while somebody should look after the slot");
    describe_gauge!(SPOOL_BYTES, Unit::Bytes, "What is kept of transactions that are sent while they run");
    describe_gauge!(BINLOG_RETAINED_BYTES, Unit::Bytes, "Binary log that the server keeps");
    describe_gauge!(BINLOG_BEHIND_BYTES, Unit::Bytes, "Binary log between what was read and the server's end");
    describe_gauge!(BUILD_INFO, Unit::Count, "1, with the program's version and the log's UUID");
    describe_gauge!(UPTIME_SECONDS, Unit::Seconds, "Seconds since the process began");
    describe_gauge!(REJECTS_OPEN, Unit::Count, "Refused and neither retried nor given up");
    describe_gauge!(
        REJECTS_EXPIRED,
        Unit::Count,
        "Entries that were still in quarantine when their retention was over, since the log began"
    );
    describe_gauge!(
        INCOMPLETE_OPEN,
        Unit::Count,
        "Partial rows that found no base in the warehouse and that nothing has healed yet"
    );
    describe_gauge!(ACCOUNT_BALANCED, Unit::Count, "1 while both sums of the account hold");
    describe_gauge!(ACCOUNT, Unit::Count, "What became of everything, since the log began");
}

fn describe_upkeep() {
    describe_gauge!(UPKEEP_AGE_SECONDS, Unit::Seconds, "Now minus the last success of a task beside the stream");
    describe_histogram!(UPKEEP_DURATION_SECONDS, Unit::Seconds, "How long a task beside the stream took");
    describe_counter!(UPKEEP_FAILURES_TOTAL, Unit::Count, "How often a task beside the stream failed");
    describe_counter!(COMPACTION_HOURS_TOTAL, Unit::Count, "Hours of tables that were compacted");
    describe_counter!(COMPACTION_FILES_TOTAL, Unit::Count, "Files that compactions replaced and made");
    describe_counter!(COMPACTION_BYTES_TOTAL, Unit::Bytes, "Bytes of the files that compactions replaced and made");
    describe_counter!(COMPACTION_ROWS_TOTAL, Unit::Count, "Rows that compactions wrote again");
    describe_counter!(COMPACTION_DELETED_TOTAL, Unit::Count, "Files deleted a day after they were compacted");
    describe_gauge!(COMPACTION_BEHIND_SECONDS, Unit::Seconds, "Age of the oldest closed hour that is not compacted");
    describe_counter!(CATALOG_REQUESTS_TOTAL, Unit::Count, "Requests to the lake's catalog by operation and answer");
    describe_counter!(CATALOG_CHANGES_TOTAL, Unit::Count, "What was made or changed in the lake's catalog");
}

/// Buckets of latency histograms, in seconds.
pub const LATENCY_BUCKETS_SECONDS: [f64; 13] =
    [0.1, 0.5, 1.0, 2.0, 5.0, 15.0, 30.0, 60.0, 120.0, 180.0, 240.0, 300.0, 600.0];

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogForm {
    /// For a person at a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

/// Sets up logging to standard error: text when a terminal is there, JSON lines when not; `RUST_LOG` filters.
pub fn init_log(form: Option<LogForm>) {
    let terminal = std::io::stderr().is_terminal();
    let form = form.unwrap_or(if terminal { LogForm::Text } else { LogForm::Json });
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn,sqlx::query=error"));
    let registry = tracing_subscriber::registry().with(filter);
    let output = tracing_subscriber::fmt::layer().with_writer(Screen);
    // A second set-up in one process (tests) keeps the first.
    let _already_set = match form {
        LogForm::Text => registry.with(output.with_ansi(terminal).with_target(false)).try_init(),
        LogForm::Json => registry.with(output.json().flatten_event(true)).try_init(),
    };
}
