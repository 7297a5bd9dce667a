//! Every metric name and label, and the set-up of the log. Nothing else in the code spells a metric's name.
//!
//! Units are base units and stand in the name: seconds, bytes; counters end in `_total`.

use std::io::IsTerminal;

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
/// Retries, counter, labels `part`, `reason`.
pub const RETRIES_TOTAL: &str = "dataflow_retries_total";
/// Time from an epoch's first record to its commit, histogram.
pub const EPOCH_DURATION_SECONDS: &str = "dataflow_epoch_duration_seconds";
/// Time of each step (`seal`, `upload`, `manifest`, `fold`, `apply`, `release`), histogram, labels `step`.
pub const STEP_DURATION_SECONDS: &str = "dataflow_step_duration_seconds";
/// The newest epoch in the log, gauge.
pub const LOG_EPOCH: &str = "dataflow_log_epoch";
/// The newest epoch in the warehouse, gauge, labels `group`.
pub const WAREHOUSE_EPOCH: &str = "dataflow_warehouse_epoch";
/// Bytes read and held but not yet sealed, gauge.
pub const INFLIGHT_BYTES: &str = "dataflow_inflight_bytes";
/// 1 while the table is parked or paused, gauge, labels `table`, `why`.
pub const TABLE_STOPPED: &str = "dataflow_table_stopped";
/// 1, labels `version`, `log`.
pub const BUILD_INFO: &str = "dataflow_build_info";

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
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn"));
    let registry = tracing_subscriber::registry().with(filter);
    let output = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    // A second set-up in one process (tests) keeps the first.
    let _already_set = match form {
        LogForm::Text => registry.with(output.with_ansi(terminal).with_target(false)).try_init(),
        LogForm::Json => registry.with(output.json().flatten_event(true)).try_init(),
    };
}
