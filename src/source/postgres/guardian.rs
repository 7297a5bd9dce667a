//! Looks after the slot, whatever else is going on: how much log the server keeps for it, and how long that will do.
//!
//! It has a connection of its own, because it matters most when nothing else moves: while a snapshot is read, and while
//! the lake cannot take anything.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::{Connection, Purpose, Row, Trouble, literal};
use super::settings::Settings;
use crate::telemetry::{self, SlotStatus, Status};

/// How often the slot is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// What rates are taken over.
const WINDOW: Duration = Duration::from_secs(300);
/// A slot that runs out sooner than this needs somebody.
const ALERT_S: f64 = 3600.0;

/// Which slot is looked after, and where it is told.
pub(super) struct Guard {
    pub source: Arc<str>,
    pub settings: Settings,
    pub slot: String,
    pub every: Duration,
    pub status: Arc<Status>,
}

/// How often, where heartbeats are written that often.
pub(super) fn every(heartbeat: Duration) -> Duration {
    if heartbeat.is_zero() { LOOK_EVERY } else { heartbeat.min(LOOK_EVERY) }
}

/// Looks until it is stopped. That the server does not answer is noticed, and said, by whoever reads.
pub(super) async fn watch(guard: Guard) {
    let mut samples = Samples::default();
    let mut connection = None;
    loop {
        if connection.is_none() {
            connection = Connection::open(&guard.settings, Purpose::Query).await.ok();
        }
        if let Some(open) = &mut connection {
            match look(open, &guard.slot).await {
                Ok(Some((end, seen))) => guard.tell(&samples.judge(Instant::now(), end, seen)),
                // It is being made, or gone: that is for whoever reads it.
                Ok(None) => {}
                Err(_) => connection = None,
            }
        }
        tokio::time::sleep(guard.every).await;
    }
}

/// The slot as it is now and where the log ends; `None` when there is none. What only several looks tell is left out.
pub(super) async fn look(connection: &mut Connection, slot: &str) -> Result<Option<(u64, SlotStatus)>, Trouble> {
    let sql = format!(
        "WITH log AS (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS at) \
         SELECT pg_wal_lsn_diff(log.at, '0/0')::bigint, pg_wal_lsn_diff(log.at, restart_lsn)::bigint, safe_wal_size, \
         pg_wal_lsn_diff(log.at, confirmed_flush_lsn)::bigint, wal_status, to_jsonb(s) ->> 'invalidation_reason', \
         to_jsonb(s) ->> 'inactive_since', to_jsonb(s) ->> 'failover', to_jsonb(s) ->> 'synced', \
         (SELECT setting FROM pg_settings WHERE name = 'idle_replication_slot_timeout'), \
         (SELECT unit FROM pg_settings WHERE name = 'idle_replication_slot_timeout') \
         FROM pg_replication_slots s, log WHERE slot_name = {}",
        literal(slot)
    );
    let rows = connection.query(&sql).await?;
    Ok(rows.first().map(|row| (row.text(0).parse().unwrap_or(0), seen(slot, row))))
}

fn seen(slot: &str, row: &Row) -> SlotStatus {
    let unit = if row.text(10) == "min" { 60 } else { 1 };
    let idle = row.get(9).and_then(|setting| setting.parse::<u64>().ok()).filter(|seconds| *seconds > 0);
    SlotStatus {
        name: slot.to_owned(),
        wal_status: row.text(4).to_owned(),
        retained_bytes: row.text(1).parse().ok(),
        safe_bytes: row.text(2).parse().ok(),
        behind_bytes: row.text(3).parse().ok(),
        invalidation_reason: row.get(5).map(str::to_owned),
        inactive_since: row.get(6).map(str::to_owned),
        idle_timeout_s: idle.map(|number| number * unit),
        failover: row.text(7) == "true",
        synced: row.text(8) == "true",
        ..SlotStatus::default()
    }
}

/// What was seen over the last minutes: when, the end of the log, what may still be written.
#[derive(Default)]
struct Samples(VecDeque<(Instant, u64, Option<i64>)>);

impl Samples {
    fn judge(&mut self, now: Instant, end: u64, seen: SlotStatus) -> SlotStatus {
        while self.0.front().is_some_and(|(at, ..)| now - *at > WINDOW) {
            self.0.pop_front();
        }
        let oldest = self.0.front().copied();
        self.0.push_back((now, end, seen.safe_bytes));
        let over = oldest.map(|(at, ..)| (now - at).as_secs_f64()).filter(|seconds| *seconds > 0.0);
        let (Some((_, then, safe_then)), Some(seconds)) = (oldest, over) else {
            return SlotStatus { alert: alert(&seen), ..seen };
        };
        let rate = end.saturating_sub(then) as f64 / seconds;
        // A slot that moves along keeps its distance however much is written: what counts is how that shrinks.
        let shrinks = safe_then.zip(seen.safe_bytes).map(|(then, now)| then.saturating_sub(now) as f64 / seconds);
        let left = shrinks.zip(seen.safe_bytes).filter(|(shrinks, _)| *shrinks > 0.0);
        let runs_out_in_s = left.map(|(shrinks, safe)| safe.max(0) as f64 / shrinks);
        let judged = SlotStatus { wal_bytes_per_s: Some(rate), runs_out_in_s, ..seen };
        SlotStatus { alert: alert(&judged), ..judged }
    }
}

/// Why somebody should look after the slot.
pub(super) fn alert(slot: &SlotStatus) -> Option<String> {
    if let Some(reason) = &slot.invalidation_reason {
        return Some(format!("the server has invalidated it ({reason})"));
    }
    match (slot.wal_status.as_str(), slot.runs_out_in_s) {
        ("lost", _) => Some("the server has removed log that it still needs".into()),
        ("unreserved", _) => {
            Some("the server is about to remove log that it still needs, at its next checkpoint".into())
        }
        (_, Some(seconds)) if seconds < ALERT_S => Some(format!(
            "it runs out in {} if it goes on like in the last minutes: the server may write {} MiB more before it \
             removes log that is still needed",
            minutes(seconds),
            slot.safe_bytes.unwrap_or(0).max(0) >> 20,
        )),
        _ => None,
    }
}

fn minutes(seconds: f64) -> String {
    if seconds < 120.0 { format!("{seconds:.0} s") } else { format!("{:.0} min", seconds / 60.0) }
}

const HELP: &str = "what was read is acknowledged once it is in the lake: find out why it is not (the other problems, the \
                    lake's store). Until then raise the limit: ALTER SYSTEM SET max_slot_wal_keep_size = '…'; \
                    SELECT pg_reload_conf();";

impl Guard {
    fn tell(&self, slot: &SlotStatus) {
        self.export(slot);
        let what = format!("slot {} of source {}", self.slot, self.source);
        self.status.update(|s| {
            if let Some(entry) = s.sources.iter_mut().find(|entry| entry.name == *self.source) {
                entry.slot = Some(slot.clone());
            }
        });
        match &slot.alert {
            Some(why) => {
                let known = self.status.snapshot().problems.iter().any(|problem| problem.what == what);
                if !known {
                    tracing::warn!(source = &*self.source, "slot {}: {why}\n  help: {HELP}", self.slot);
                }
                self.status.problem(&what, why.clone(), Some(HELP.to_owned()));
            }
            None => self.status.solved(&what),
        }
    }

    fn export(&self, slot: &SlotStatus) {
        let gauge = |name: &'static str, value: Option<f64>| {
            if let Some(value) = value {
                metrics::gauge!(name, "source" => self.source.to_string()).set(value);
            }
        };
        gauge(telemetry::SLOT_RETAINED_BYTES, slot.retained_bytes.map(|bytes| bytes as f64));
        gauge(telemetry::SLOT_SAFE_BYTES, slot.safe_bytes.map(|bytes| bytes as f64));
        gauge(telemetry::SLOT_BEHIND_BYTES, slot.behind_bytes.map(|bytes| bytes as f64));
        gauge(telemetry::SLOT_WAL_BYTES_PER_SECOND, slot.wal_bytes_per_s);
        gauge(telemetry::SLOT_RUNS_OUT_SECONDS, Some(slot.runs_out_in_s.unwrap_or(-1.0)));
        gauge(telemetry::SLOT_ALERT, Some(f64::from(u8::from(slot.alert.is_some()))));
        for status in ["reserved", "extended", "unreserved", "lost"] {
            let is = f64::from(u8::from(slot.wal_status == status));
            metrics::gauge!(telemetry::SLOT_STATUS, "source" => self.source.to_string(), "status" => status).set(is);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(safe: i64) -> SlotStatus {
        SlotStatus { wal_status: "extended".into(), safe_bytes: Some(safe), ..SlotStatus::default() }
    }

    #[test]
    fn a_slot_runs_out_by_how_its_room_shrinks_and_not_by_what_is_written() {
        let (start, mut samples) = (Instant::now(), Samples::default());
        let mut at =
            |seconds: u64, end: u64, safe| samples.judge(start + Duration::from_secs(seconds), end, slot(safe));
        assert_eq!(at(0, 0, 100_000_000).runs_out_in_s, None);
        // Much is written, and as much is acknowledged.
        let moving = at(10, 50_000_000, 100_000_000);
        assert_eq!((moving.wal_bytes_per_s, moving.runs_out_in_s, moving.alert), (Some(5e6), None, None));
        let stuck = at(20, 60_000_000, 80_000_000);
        assert_eq!((stuck.wal_bytes_per_s, stuck.runs_out_in_s), (Some(3e6), Some(80.0)));
        assert!(stuck.alert.is_some_and(|why| why.contains("80 s")));
        // What is older than the window does not count.
        assert_eq!(at(400, 60_000_001, 80_000_000).runs_out_in_s, None);
    }

    #[test]
    fn what_cannot_be_helped_by_waiting_is_an_alert_at_once() {
        let judge = |slot| Samples::default().judge(Instant::now(), 1, slot).alert;
        assert_eq!(judge(slot(5)), None);
        assert!(judge(SlotStatus { wal_status: "unreserved".into(), ..slot(-5) }).is_some());
        assert!(judge(SlotStatus { wal_status: "lost".into(), ..slot(0) }).is_some());
        let idle = SlotStatus { invalidation_reason: Some("idle_timeout".into()), ..slot(5) };
        assert!(judge(idle).is_some_and(|why| why.contains("idle_timeout")));
    }
}
