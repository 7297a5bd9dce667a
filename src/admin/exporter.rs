//! `/metrics`: counters and histograms from where they happen, gauges from the status at the moment of the scrape.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::gauge;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::error::{Error, ErrorKind, Result};
use crate::telemetry::{self, AccountStatus, StatusSnapshot, TableState};

/// The process's metrics.
#[derive(Clone)]
pub struct Metrics {
    pub(super) handle: PrometheusHandle,
    /// Partitions (source and name) whose lag was exported.
    pub(super) lagging: Arc<Mutex<BTreeSet<(String, String)>>>,
}

/// Installs the recorder that every metric of the process goes to. Once per process.
pub fn install_metrics() -> Result<Metrics> {
    let failed = |error| Error::new(ErrorKind::Internal, "install the metrics recorder").because(error);
    let builder = PrometheusBuilder::new().set_buckets(&telemetry::LATENCY_BUCKETS_SECONDS).map_err(failed)?;
    let handle = builder.install_recorder().map_err(failed)?;
    telemetry::describe();
    Ok(Metrics { handle, lagging: Arc::default() })
}

impl Metrics {
    /// The exposition, with every age as of now.
    pub fn render(&self, snapshot: &StatusSnapshot) -> String {
        set_gauges(snapshot);
        self.set_lag(snapshot);
        self.handle.render()
    }

    fn set_lag(&self, snapshot: &StatusSnapshot) {
        let mut now = BTreeSet::new();
        for source in &snapshot.sources {
            for partition in &source.partitions {
                let Some(behind) = partition.behind else { continue };
                lag(&source.name, &partition.name).set(behind as f64);
                now.insert((source.name.clone(), partition.name.clone()));
            }
        }
        let mut lagging = self.lagging.lock().unwrap_or_else(PoisonError::into_inner);
        // What went to another process is behind there, not here.
        lagging.difference(&now).for_each(|(source, partition)| lag(source, partition).set(0.0));
        *lagging = now;
    }

    /// Moves histogram samples to where they take no more room. Never ends.
    pub async fn keep_up(&self) {
        let mut ticks = tokio::time::interval(Duration::from_secs(5));
        loop {
            ticks.tick().await;
            self.handle.run_upkeep();
        }
    }
}

fn lag(source: &str, partition: &str) -> metrics::Gauge {
    gauge!(telemetry::SOURCE_LAG_RECORDS, "source" => source.to_owned(), "partition" => partition.to_owned())
}

fn set_gauges(snapshot: &StatusSnapshot) {
    if !snapshot.log.is_empty() {
        let (version, log) = (snapshot.version.clone(), snapshot.log.clone());
        gauge!(telemetry::BUILD_INFO, "version" => version, "log" => log).set(1.0);
    }
    gauge!(telemetry::UPTIME_SECONDS).set(snapshot.uptime_s as f64);
    gauge!(telemetry::LOG_EPOCH).set(snapshot.epoch as f64);
    gauge!(telemetry::INFLIGHT_BYTES).set(snapshot.inflight_bytes as f64);
    for source in &snapshot.sources {
        if let Some(seconds) = source.behind_s {
            gauge!(telemetry::SOURCE_BEHIND_SECONDS, "source" => source.name.clone()).set(seconds);
        }
    }
    for group in &snapshot.groups {
        gauge!(telemetry::WAREHOUSE_EPOCH, "group" => group.group.clone()).set(group.warehouse_epoch as f64);
        gauge!(telemetry::LOAD_DUE_SECONDS, "group" => group.group.clone()).set(group.due_in_s.unwrap_or(0.0));
        if let Some(seconds) = group.commit_age_s {
            gauge!(telemetry::SINK_COMMIT_AGE_SECONDS, "group" => group.group.clone()).set(seconds);
        }
    }
    for task in &snapshot.upkeep {
        gauge!(telemetry::UPKEEP_AGE_SECONDS, "task" => task.task.clone()).set(task.age_s);
    }
    for table in &snapshot.tables {
        if let Some(seconds) = table.freshness_s {
            gauge!(telemetry::WAREHOUSE_FRESHNESS_SECONDS, "table" => table.table.clone()).set(seconds);
        }
        rejects(&table.table, table.rejects_open, table.rejects_expired);
        if let Some(open) = table.incomplete_open {
            gauge!(telemetry::INCOMPLETE_OPEN, "table" => table.table.clone()).set(open as f64);
        }
        let reading = table.reading.unwrap_or_default();
        gauge!(telemetry::SNAPSHOT_ROWS, "table" => table.table.clone()).set(reading.rows as f64);
        gauge!(telemetry::SNAPSHOT_ROWS_EXPECTED, "table" => table.table.clone()).set(reading.of as f64);
        let needs = f64::from(u8::from(table.needs_resync.is_some()));
        gauge!(telemetry::TABLE_NEEDS_RESYNC, "table" => table.table.clone()).set(needs);
        // Both values are always there, so that a table that runs again does not leave a 1 behind.
        for state in [TableState::Paused, TableState::Parked] {
            let stopped = gauge!(telemetry::TABLE_STOPPED, "table" => table.table.clone(), "why" => state.word());
            stopped.set(f64::from(u8::from(table.state == state)));
        }
    }
    // No table: the record could not be decoded so far.
    rejects("", snapshot.undecoded_open, snapshot.undecoded_expired);
    account(&snapshot.account);
}

fn rejects(table: &str, open: u64, expired: u64) {
    gauge!(telemetry::REJECTS_OPEN, "table" => table.to_owned()).set(open as f64);
    gauge!(telemetry::REJECTS_EXPIRED, "table" => table.to_owned()).set(expired as f64);
}

fn account(account: &AccountStatus) {
    gauge!(telemetry::ACCOUNT_BALANCED).set(f64::from(u8::from(account.imbalance.is_none())));
    let parts = [
        ("read", account.read),
        ("control", account.control),
        ("written", account.written),
        ("applied", account.applied),
        ("superseded", account.superseded),
        ("filtered", account.filtered),
        ("rejected", account.rejected),
        ("waiting", account.waiting),
    ];
    for (part, count) in parts {
        gauge!(telemetry::ACCOUNT, "part" => part).set(count as f64);
    }
}
