//! Turns what happened into metrics and status. Decides nothing.

use std::sync::Arc;

use chrono::Utc;

use crate::batch::NO_TIME;
use crate::epoch::{Applied, LoadUnit, Manifest};
use crate::error::Error;
use crate::lake::LogState;
use crate::pipeline::reader::Transformed;
use crate::pipeline::status::{Problem, Status, TableState};
use crate::telemetry;

/// The most problems that are kept.
const PROBLEMS: usize = 20;

/// Writes the status and the metrics.
#[derive(Debug)]
pub struct Report {
    status: Arc<Status>,
}

impl Report {
    /// Reports into `status`.
    pub fn new(status: Arc<Status>) -> Self {
        Self { status }
    }

    /// A reader handed over a batch.
    pub fn read(&self, source: &Arc<str>, done: &Transformed) {
        let account = &done.records;
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
        for reject in &done.rejects {
            let table = reject.table.clone().unwrap_or_default();
            metrics::counter!(telemetry::REJECTS_TOTAL, "table" => table, "rule" => reject.rule.clone()).increment(1);
        }
        let newest = done.tables.iter().flat_map(|t| &t.source_times_us).copied().max().unwrap_or(NO_TIME);
        if newest != NO_TIME {
            let behind = (Utc::now().timestamp_micros() - newest) as f64 / 1e6;
            metrics::gauge!(telemetry::SOURCE_BEHIND_SECONDS, "source" => source.to_string()).set(behind);
        }
        let mut status = self.status.update();
        let entry = status.sources.entry(source.to_string()).or_default();
        entry.records += account.read;
        entry.last_record_at = Some(Utc::now());
        let partition = entry.partitions.entry(done.advance.partition.name.to_string()).or_default();
        partition.position = done.advance.span.to.to_string();
        for lag in &done.lag {
            metrics::gauge!(telemetry::SOURCE_LAG_RECORDS, "source" => source.to_string(), "partition" => lag.partition.name.to_string())
                .set(lag.behind as f64);
            entry.partitions.entry(lag.partition.name.to_string()).or_default().behind = lag.behind;
        }
    }

    /// The log was opened or has grown.
    pub fn log(&self, state: &LogState) {
        metrics::gauge!(telemetry::LOG_EPOCH).set(state.n as f64);
        let mut status = self.status.update();
        status.log = state.log.to_string();
        status.epoch = state.n;
        status.account = state.account.clone();
        let imbalance = state.account.imbalance();
        status.balanced = imbalance.is_none();
        for (name, table) in &mut status.tables {
            let stopped = state.stopped.get(name);
            table.state = if stopped.is_some() { TableState::Stopped } else { TableState::Running };
            table.why = stopped.map(|s| s.why.clone());
            metrics::gauge!(telemetry::TABLE_STOPPED, "table" => name.clone())
                .set(if stopped.is_some() { 1.0 } else { 0.0 });
            table.quarantine_open = state.open_quarantine.get(name).copied().unwrap_or(0);
            if let Some(account) = state.account.tables.get(name) {
                table.written = account.written;
                table.rejected = account.rejected.values().sum();
                table.filtered = account.filtered.values().sum();
            }
        }
    }

    /// Ingest committed an epoch.
    pub fn committed(&self, manifest: &Manifest, state: &LogState) {
        for (table, account) in &manifest.account.tables {
            let rejected = account.rejected.values().sum();
            let filtered = account.filtered.values().sum();
            for (result, count) in [("written", account.written), ("rejected", rejected), ("filtered", filtered)] {
                count_rows(table, result, count);
            }
        }
        self.log(state);
        let mut status = self.status.update();
        for table in manifest.tables.keys() {
            status.tables.entry(table.clone()).or_default().log_epoch = manifest.n;
        }
    }

    /// A group was applied.
    pub fn applied(&self, unit: &LoadUnit, applied: &Applied, state: &LogState) {
        let now = Utc::now();
        for table in &unit.tables {
            let name = &table.contract.table;
            let account = applied.accounts.get(name).copied().unwrap_or_default();
            for (result, count) in
                [("applied", account.applied), ("superseded", account.superseded), ("incomplete", account.incomplete)]
            {
                count_rows(name, result, count);
            }
            let latency = metrics::histogram!(telemetry::END_TO_END_LATENCY_SECONDS, "table" => name.clone());
            for changes in &table.rows {
                for time in changes.source_times_us.iter().filter(|t| **t != NO_TIME) {
                    latency.record((now.timestamp_micros() - time) as f64 / 1e6);
                }
            }
            let mut status = self.status.update();
            let entry = status.tables.entry(name.clone()).or_default();
            entry.load.add(&account);
            entry.applied_at = Some(now);
            if table.max_source_time_us != NO_TIME {
                let newest = entry.newest_source_time_us.unwrap_or(i64::MIN).max(table.max_source_time_us);
                entry.newest_source_time_us = Some(newest);
            }
        }
        self.idle(&unit.group, applied, state);
        self.status.update().problems.retain(|p| p.what != unit.group);
    }

    /// A group's ledger was read.
    pub fn idle(&self, group: &str, applied: &Applied, state: &LogState) {
        metrics::gauge!(telemetry::WAREHOUSE_EPOCH, "group" => group.to_owned()).set(applied.through as f64);
        self.log(state);
        let mut status = self.status.update();
        status.ready = true;
        for (name, table) in status.tables.iter_mut().filter(|(_, t)| t.group == group) {
            table.warehouse_epoch = applied.held.get(name).copied().unwrap_or(applied.through);
        }
    }

    /// Something failed that will be tried again, or stopped a table.
    pub fn problem(&self, what: &str, error: &Error) {
        let mut status = self.status.update();
        let why = error.to_string();
        let now = Utc::now();
        if let Some(known) = status.problems.iter_mut().find(|p| p.what == what && p.why == why) {
            known.at = now;
            known.times += 1;
            return;
        }
        status.problems.insert(0, Problem { what: what.to_owned(), why, at: now, times: 1 });
        status.problems.truncate(PROBLEMS);
    }
}

fn count_rows(table: &str, result: &'static str, count: u64) {
    if count > 0 {
        metrics::counter!(telemetry::ROWS_TOTAL, "table" => table.to_owned(), "result" => result).increment(count);
    }
}
