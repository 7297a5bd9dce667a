//! What `status` and `quarantine` say of a real lake and warehouse, and of those that are not there.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::support::process::{LIMIT, Launch, available, free_port, table};

/// Debezium's word for a column that it does not know.
const UNAVAILABLE: &str = "__debezium_unavailable_value";

const TOPOLOGY: &str = r#"version: 1
name: shop
sources: { files: { kind: file, path: events } }
tables:
  things: { from: shop.public.things, key: [id] }
  softly: { from: shop.public.softly, key: [id], deletes: soft }
  kept: { from: shop.public.kept, key: [id], deletes: history }
lake: { url: lake }
epoch: { every: 200ms }
"#;

fn launch(folder: &Path, warehouse: &str) -> Launch {
    std::fs::create_dir_all(folder.join("events")).unwrap();
    Launch::new(folder, &format!("{TOPOLOGY}warehouse: {warehouse}\n"))
}

const SQLITE: &str = "{ kind: sqlite, path: warehouse.db }";

fn event(table: &str, op: &str, lsn: u64, before: &Value, after: &Value) -> String {
    let source = json!({
        "version": "3.0.0", "connector": "postgresql", "name": "shop", "ts_ms": 1_780_000_000_000u64 + lsn,
        "snapshot": "false", "db": "shop", "schema": "public", "table": table, "txId": lsn, "lsn": lsn
    });
    json!({ "op": op, "before": before, "after": after, "source": source, "ts_ms": 1_780_000_000_000u64 + lsn })
        .to_string()
}

fn row(id: i64, text: &str) -> Value {
    json!({ "id": id, "note": text })
}

const NONE: Value = Value::Null;

fn write(folder: &Path, name: &str, events: &[String]) {
    std::fs::write(folder.join("events").join(name), events.join("\n") + "\n").unwrap();
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn live_rows_are_those_that_people_see() {
    let folder = tempfile::tempdir().unwrap();
    let launch = launch(folder.path(), SQLITE);
    for (number, table) in ["things", "softly", "kept"].into_iter().enumerate() {
        let at = |n| number as u64 * 100 + n;
        let events = [
            event(table, "c", at(1), &NONE, &row(1, "one")),
            event(table, "c", at(2), &NONE, &row(2, "two")),
            event(table, "c", at(3), &NONE, &row(3, "three")),
            event(table, "u", at(4), &row(1, "one"), &row(1, "uno")),
            event(table, "d", at(5), &row(2, "two"), &NONE),
        ];
        write(folder.path(), &format!("{number}.jsonl"), &events);
    }
    launch.run_until_caught_up().await;
    let status = launch.status();
    for name in ["things", "softly", "kept"] {
        let found = table(&status, name);
        assert_eq!((&found["rows"], &found["rows_estimated"]), (&json!(2), &json!(false)), "{name}: {found}");
    }
    assert_eq!(status["account"]["imbalance"], NONE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_row_without_a_base_is_shown_explained_and_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let launch = launch(folder.path(), SQLITE);
    let partial = row(7, UNAVAILABLE);
    let events = [event("things", "c", 1, &NONE, &row(1, "one")), event("things", "u", 2, &NONE, &partial)];
    write(folder.path(), "0.jsonl", &events);
    launch.run_until_caught_up().await;
    let status = launch.status();
    let found = table(&status, "things");
    assert_eq!((&found["rows"], &found["incomplete_open"]), (&json!(1), &json!(1)), "{found}");
    let (_, text, _) = said(&launch.other(&["status"], &[]));
    assert!(text.contains("1 partial rows without a base; `dataflow quarantine list` shows them"), "{text}");

    let (code, list, _) = said(&launch.other(&["quarantine", "list"], &["--json"]));
    assert_eq!(code, Some(0));
    let line: Value = serde_json::from_str(list.trim()).unwrap();
    assert_eq!((&line["id"], &line["table"], &line["rule"]), (&json!("w1"), &json!("things"), &json!("incomplete")));
    assert_eq!((&line["key"], &line["epoch"]), (&json!("{\"id\":7}"), &status["epoch"]));
    let reason = line["reason"].as_str().unwrap();
    assert!(reason.contains("note") && reason.contains("next full image"), "{reason}");
    let (code, full, _) = said(&launch.other(&["quarantine", "show"], &["w1"]));
    assert!(code == Some(0) && full.contains("read at") && full.contains("not possible"), "{full}");

    let (code, _, error) = said(&launch.other(&["quarantine", "retry"], &["w1"]));
    assert_eq!(code, Some(2));
    assert!(error.contains("no payload to read again") && error.contains("table resync"), "{error}");
    let (code, _, error) = said(&launch.other(&["quarantine", "drop"], &["w1"]));
    assert!(code == Some(2) && error.contains("--yes"), "{error}");
    let (code, done, _) = said(&launch.other(&["quarantine", "drop"], &["--table", "things", "--yes"]));
    assert!(code == Some(0) && done.starts_with("1 partial rows"), "{done}");
    let (_, list, _) = said(&launch.other(&["quarantine", "list"], &[]));
    assert_eq!(list, "the quarantine is empty\n");
    let status = launch.status();
    assert_eq!((&table(&status, "things")["incomplete_open"], &status["account"]["imbalance"]), (&json!(0), &NONE));
    let (code, _, error) = said(&launch.other(&["quarantine", "show"], &["w1"]));
    assert!(code == Some(2) && error.contains("show w1: no such entry is open"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_running_process_counts_partial_rows_without_a_base() {
    let folder = tempfile::tempdir().unwrap();
    let launch = launch(folder.path(), SQLITE);
    write(folder.path(), "0.jsonl", &[event("things", "u", 2, &NONE, &row(7, UNAVAILABLE))]);
    let mut process = launch.run();
    process.wait_for("the count", LIMIT, |status| table(status, "things")["incomplete_open"] == 1).await;
    let metrics = process.page("/metrics").await.unwrap();
    assert!(metrics.contains("dataflow_incomplete_open{table=\"things\"} 1"), "{metrics}");
    process.stop().await;
}

#[test]
fn looking_at_what_is_not_there_makes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let launch = launch(folder.path(), SQLITE);
    let (code, text, _) = said(&launch.other(&["status"], &[]));
    assert_eq!(code, Some(0));
    assert!(text.starts_with("shop  no log in lake yet: `dataflow run` makes it\n"), "{text}");
    assert_eq!(table(&launch.status(), "things")["state"], "waiting");
    let (code, text, _) = said(&launch.other(&["quarantine", "list"], &[]));
    assert_eq!(code, Some(0));
    assert_eq!(text, "nothing is in quarantine: there is no log in lake yet (`dataflow run` makes it)\n");
    for (word, more) in [("retry", &["--rule", "x"][..]), ("drop", &["--rule", "x", "--yes"])] {
        let (code, text, _) = said(&launch.other(&["quarantine", word], more));
        assert!(code == Some(0) && text.contains("there is no log in lake yet"), "{text}");
    }
    let (code, _, error) = said(&launch.other(&["quarantine", "list"], &["--table", "thing"]));
    assert_eq!(code, Some(2));
    assert!(error.contains("has no table `thing`") && error.contains("did you mean `things`?"), "{error}");
    let mut made: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    made.sort();
    assert_eq!(made, ["events", "topology.yaml"]);
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn a_warehouse_that_is_away_at_the_start_holds_up_no_source() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = format!("{{ kind: postgres, url: \"postgres://u:p@127.0.0.1:{}/d\", schema: s }}", free_port());
    let launch = launch(folder.path(), &nobody);
    write(folder.path(), "0.jsonl", &[event("things", "c", 1, &NONE, &row(1, "one"))]);
    let mut process = launch.run();
    let status = process
        .wait_for("an epoch in the lake, and the reason why it is not loaded", LIMIT, |status| {
            let problems = status["problems"].as_array().unwrap();
            status["epoch"] == 1 && problems.iter().any(|p| p["what"] == "the warehouse")
        })
        .await;
    assert_eq!((&status["ready"], &status["healthy"]), (&json!(false), &json!(true)));
    let (code, text, error) = said(&launch.other(&["status"], &[]));
    assert_eq!(code, Some(1));
    assert!(text.contains("epoch 1\n") && text.contains("! warehouse: look at the PostgreSQL warehouse"), "{text}");
    assert!(error.starts_with("error: ask the warehouse"), "{error}");
    let (code, _, error) = said(&launch.other(&["quarantine", "list"], &[]));
    assert!(code == Some(1) && error.contains("list the partial rows that the warehouse holds back"), "{error}");
    process.stop().await;
    // Who waits for the end must not take this for one.
    let mut process = launch.clone().arg("--until-caught-up").run();
    assert_eq!(process.exit(LIMIT).await.code(), Some(1));
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn postgres_estimates_what_takes_too_long_to_count() {
    use dataflow::epoch::DeleteMode;
    use dataflow::warehouse::{Inspect, LiveRows, postgres::Postgres};

    if !available("postgres") {
        return;
    }
    let url = crate::support::postgres::server().database().await + "?sslmode=disable";
    let config = dataflow::config::PostgresWarehouse { url: url.clone(), schema: "s".into() };
    assert!(Postgres::find(&config, "shop").await.unwrap().is_none(), "nothing is made by looking");
    Postgres::connect(&config, "shop").await.unwrap();
    let found = Postgres::find(&config, "shop").await.unwrap().expect("the ledger is there");
    assert_eq!(found.live_rows("big", DeleteMode::Hard).await.unwrap(), None);
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    for statement in ["CREATE TABLE s.big AS SELECT n AS id FROM generate_series(1, 1000000) n", "VACUUM ANALYZE s.big"]
    {
        sqlx::query(statement).execute(&pool).await.unwrap();
    }
    let exact = found.live_rows("big", DeleteMode::Hard).await.unwrap();
    assert_eq!(exact, Some(LiveRows { rows: 1_000_000, estimated: false }));
    let guess = found.live_rows_within("big", DeleteMode::Hard, 1).await.unwrap().unwrap();
    assert!(guess.estimated && guess.rows.abs_diff(1_000_000) < 50_000, "{guess:?}");
    assert_eq!(found.open_incompletes().await.unwrap(), []);
    assert_eq!(found.drop_incompletes(&[1, 2]).await.unwrap(), 0);
}
