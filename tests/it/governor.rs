//! GIVEN tables that may be shown later than others, WHEN changes keep coming, THEN those that may wait do, in the lake, and
//! one load takes all of them; what never changes costs the warehouse nothing; and whatever ends the process, nothing is
//! missing afterwards.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::process::{LIMIT, Launch, Running, available, table};

const TOPOLOGY: &str = r#"version: 1
name: paces
sources: { files: { kind: file, path: events, follow: true } }
tables:
  fast: { from: shop.public.fast, key: [id], fresh_within: 200ms }
  soon: { from: shop.public.soon, key: [id], fresh_within: 2s }
  slow: { from: shop.public.slow, key: [id] }
  quiet: { from: shop.public.quiet, key: [id] }
fresh_within: 1d
lake: { url: lake }
epoch: { every: 200ms }
"#;

const SQLITE: &str = "{ kind: sqlite, path: warehouse.db }";

fn launch(folder: &Path, warehouse: &str, more: &str) -> Launch {
    std::fs::create_dir_all(folder.join("events")).unwrap();
    Launch::new(folder, &format!("{TOPOLOGY}warehouse: {warehouse}\n{more}"))
}

async fn postgres() -> Option<String> {
    if !available("postgres") {
        return None;
    }
    let url = crate::support::postgres::server().database().await + "?sslmode=disable";
    Some(format!("{{ kind: postgres, url: \"{url}\", schema: paces }}"))
}

/// A new row in each of these tables, as one file that appears at once.
fn write(folder: &Path, number: u64, tables: &[&str]) {
    let now_ms = chrono::Utc::now().timestamp_millis();
    let lines = tables.iter().zip(0..).map(|(table, more)| {
        let lsn = number * 100 + more;
        let source = json!({
            "version": "3.0.0", "connector": "postgresql", "name": "shop", "ts_ms": now_ms, "snapshot": "false",
            "db": "shop", "schema": "public", "table": table, "txId": lsn, "lsn": lsn
        });
        json!({ "op": "c", "before": null, "after": { "id": number }, "source": source, "ts_ms": now_ms }).to_string()
    });
    let text = lines.collect::<Vec<_>>().join("\n") + "\n";
    let aside = folder.join("aside");
    std::fs::write(&aside, text).unwrap();
    std::fs::rename(aside, folder.join("events").join(format!("{number:03}.jsonl"))).unwrap();
}

fn changes(status: &Value, name: &str) -> u64 {
    table(status, name)["changes_total"].as_u64().unwrap_or(0)
}

fn group<'a>(status: &'a Value, name: &str) -> &'a Value {
    status["groups"].as_array().unwrap().iter().find(|group| group["group"] == name).unwrap()
}

/// The loads of a group that the log tells of: why, and how many epochs.
fn loads(log: &str, group: &str) -> Vec<(String, u64)> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let loads = lines.filter(|l| l["group"] == group && l["message"].as_str().unwrap_or("").starts_with("loading"));
    loads.map(|l| (l["why"].as_str().unwrap().to_owned(), l["epochs"].as_u64().unwrap())).collect()
}

/// Writes one file after the other, each when the one before is shown of `fast`.
async fn feed(process: &mut Running, folder: &Path, numbers: std::ops::RangeInclusive<u64>) -> Value {
    let mut status = Value::Null;
    for number in numbers {
        write(folder, number, &["fast", "soon", "slow"]);
        status = process.wait_for("fast", LIMIT, |status| changes(status, "fast") == number).await;
    }
    status
}

/// Rows that the warehouse shows of each table.
fn rows(launch: &Launch) -> [Value; 4] {
    let status = launch.status();
    assert_eq!(status["account"]["imbalance"], Value::Null);
    ["fast", "soon", "slow", "quiet"].map(|name| table(&status, name)["rows"].clone())
}

async fn each_table_at_its_pace(warehouse: &str) {
    let folder = tempfile::tempdir().unwrap();
    let launch = launch(folder.path(), warehouse, "");
    let mut process = launch.run();
    let status = feed(&mut process, folder.path(), 1..=4).await;
    let slow = table(&status, "slow");
    assert_eq!(
        (&slow["changes_total"], &slow["warehouse_epoch"], &slow["late"]),
        (&json!(0), &json!(0), &json!(false))
    );
    assert!(slow["log_epoch"].as_u64() >= Some(4) && slow["waiting_since_us"].is_i64(), "{slow}");
    let waits = group(&status, "slow");
    assert!(waits["due_in_s"].as_f64().unwrap() > 80_000.0, "{waits}");
    assert!(waits["decision"].as_str().unwrap().contains("slow, to be fresh within 1d"), "{waits}");
    // Less urgent than `fast`, and due nevertheless.
    process.wait_for("soon", LIMIT, |status| changes(status, "soon") == 4).await;
    // Nothing is lacking of what never changes, and it was not loaded.
    let quiet = |status: &Value| group(status, "quiet")["warehouse_epoch"] == status["epoch"];
    process.wait_for("the quiet group", LIMIT, quiet).await;
    let metrics = process.page("/metrics").await.unwrap();
    let counts =
        |name: &str| metrics.lines().any(|line| line.starts_with("dataflow_loads_total") && line.contains(name));
    assert!(counts("group=\"fast\",why=\"due\"") && !counts("\"slow\"") && !counts("\"quiet\""), "{metrics}");
    let due = metrics.lines().find(|line| line.starts_with("dataflow_load_due_seconds{group=\"slow\"}")).unwrap();
    assert!(due.rsplit(' ').next().unwrap().parse::<f64>().unwrap() > 80_000.0, "{due}");
    // What waits is in the lake, not in the process.
    process.kill();
    let mut process = launch.run();
    let status = feed(&mut process, folder.path(), 5..=6).await;
    assert_eq!(changes(&status, "slow"), 0);
    process.stop().await;
    assert_eq!(rows(&launch), [json!(6), json!(6), json!(6), Value::Null]);
    let log = launch.whole_log();
    let slow = loads(&log, "slow");
    assert!(matches!(&slow[..], [(why, epochs)] if why == "stopping" && *epochs >= 6), "{slow:?}");
    assert_eq!(loads(&log, "quiet"), []);
    let soon = loads(&log, "soon");
    assert!(soon.iter().any(|(why, _)| why == "due"), "{soon:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_table_at_its_pace_in_sqlite() {
    each_table_at_its_pace(SQLITE).await;
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn each_table_at_its_pace_in_postgres() {
    let Some(warehouse) = postgres().await else { return };
    each_table_at_its_pace(&warehouse).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_most_urgent_table_takes_its_group_along() {
    let folder = tempfile::tempdir().unwrap();
    let launch = launch(folder.path(), SQLITE, "groups: { together: [fast, slow] }\n");
    let mut process = launch.run();
    write(folder.path(), 1, &["slow"]);
    process.wait_for("slow in the lake", LIMIT, |status| table(status, "slow")["log_epoch"] == 1).await;
    write(folder.path(), 2, &["fast"]);
    let status = process.wait_for("fast", LIMIT, |status| changes(status, "fast") == 1).await;
    assert_eq!(changes(&status, "slow"), 1);
    process.stop().await;
    assert_eq!(loads(&launch.whole_log(), "together"), [("due".to_owned(), 2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wants_an_end_gets_everything_however_long_it_may_wait() {
    let folder = tempfile::tempdir().unwrap();
    let launch = launch(folder.path(), SQLITE, "").arg("--set").arg("sources.files.follow=false");
    (1..=3).for_each(|number| write(folder.path(), number, &["fast", "soon", "slow"]));
    launch.run_until_caught_up().await;
    assert_eq!(rows(&launch), [json!(3), json!(3), json!(3), Value::Null]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_unit_does_not_wait() {
    let folder = tempfile::tempdir().unwrap();
    let launch = launch(folder.path(), SQLITE, "limits: { unit_bytes: 1B }\n");
    let mut process = launch.run();
    write(folder.path(), 1, &["slow"]);
    process.wait_for("slow", LIMIT, |status| changes(status, "slow") == 1).await;
    process.stop().await;
    assert_eq!(loads(&launch.whole_log(), "slow"), [("full".to_owned(), 1)]);
}
