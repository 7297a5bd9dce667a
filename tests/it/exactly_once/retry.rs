//! GIVEN refused rows whose keys have gone on living (or died) since, WHEN they are brought in again from quarantine, THEN
//! nothing old comes back over something newer, and what was missing appears, once.

use std::path::Path;

use dataflow::config;
use dataflow::lake::{Access, Lake, Log};
use dataflow::pipeline::quarantine::{drop_rejects, open_rejects, retry_rejects};
use serde_json::{Value, json};

use super::world::World;
use crate::support::process::Launch;

/// One Debezium event of table `t`, without its schema.
fn event(op: &str, lsn: u64, before: &Value, after: &Value) -> String {
    let source = json!({
        "version": "3.0.0", "connector": "postgresql", "name": "shop", "ts_ms": 1_780_000_000_000u64 + lsn,
        "snapshot": "false", "db": "shop", "schema": "public", "table": "t", "txId": lsn, "lsn": lsn
    });
    json!({ "op": op, "before": before, "after": after, "source": source, "ts_ms": 1_780_000_000_000u64 + lsn })
        .to_string()
}

fn row(id: i64, amount: i64) -> Value {
    json!({ "id": id, "amount": amount })
}

const NONE: Value = Value::Null;

/// The story of each key: 1 lives on with a newer version, 2 was deleted, 3 was only ever refused, 4 was refused, then
/// came valid, then went.
fn story() -> Vec<String> {
    vec![
        event("c", 10, &NONE, &row(1, 5)),
        event("c", 20, &NONE, &row(2, -5)),
        event("c", 30, &NONE, &row(3, -7)),
        event("u", 40, &NONE, &row(1, -1)),
        event("u", 50, &NONE, &row(1, 9)),
        event("d", 60, &row(2, -5), &NONE),
        event("c", 70, &NONE, &row(4, -4)),
        event("u", 80, &NONE, &row(4, 4)),
        event("d", 90, &row(4, 4), &NONE),
    ]
}

fn tables(key: &str, rule: &str, deletes: &str) -> String {
    format!(
        "tables: {{ t: {{ from: shop.public.t, key: {key}, deletes: {deletes}, \
         operators: [{{ validate: {{ name: positive, rule: \"{rule}\" }} }}] }} }}"
    )
}

const STRICT: &str = "amount >= 0";
const LENIENT: &str = "amount >= -100";
const EPOCHS: &str = "epoch: { every: 200ms }\n";

struct Retried {
    world: World,
    /// The same topology with a rule that lets everything pass.
    lenient: Launch,
}

impl Retried {
    fn new(key: &str, deletes: &str) -> Self {
        let world = World::embedded_with(&tables(key, STRICT, deletes), EPOCHS, "true");
        let text = std::fs::read_to_string(world.launch.topology()).unwrap().replace(STRICT, LENIENT);
        let lenient = Launch::named(world.folder.path(), "lenient", &text);
        std::fs::create_dir(world.events()).unwrap();
        Self { world, lenient }
    }

    fn write(&self, name: &str, events: &[String]) {
        std::fs::write(self.world.events().join(name), events.join("\n") + "\n").unwrap();
    }

    fn retry(&self) {
        let output = self.lenient.other(&["quarantine", "retry"], &["--table", "t"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    async fn shown(&self, condition: &str) -> Vec<(i64, i64)> {
        let sql = format!("SELECT CAST(id AS TEXT), CAST(amount AS TEXT) FROM t WHERE {condition} ORDER BY id, amount");
        let rows = self.world.oracle.rows(&sql).await.unwrap();
        let number = |text: &Option<String>| text.as_ref().unwrap().parse().unwrap();
        rows.iter().map(|row| (number(&row[0]), number(&row[1]))).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_after_everything_was_loaded() {
    for (deletes, seen) in [("hard", "true"), ("soft", "NOT _deleted")] {
        let case = Retried::new("[id]", deletes);
        // Each event in an epoch and a unit of its own.
        for (number, event) in story().into_iter().enumerate() {
            case.write(&format!("{number:02}.jsonl"), &[event]);
            case.world.launch.run_until_caught_up().await;
        }
        assert_eq!(case.shown(seen).await, [(1, 9)], "{deletes}: before");
        case.retry();
        case.lenient.run_until_caught_up().await;
        assert_eq!(case.shown(seen).await, [(1, 9), (3, -7)], "{deletes}: after");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_is_loaded_together_with_what_it_is_older_than() {
    for (deletes, seen) in [("hard", "true"), ("soft", "NOT _deleted")] {
        for cut in [0, 4, 7] {
            let case = Retried::new("[id]", deletes);
            let story = story();
            case.write("0.jsonl", &story[..cut]);
            case.world.launch.run_until_caught_up().await;
            case.write("1.jsonl", &story[cut..]);
            // Only the log learns of the rest, and of the retry: the warehouse gets all of it in one unit.
            case.world.launch.clone().arg("--role").arg("ingest").run_until_caught_up().await;
            case.retry();
            case.lenient.run_until_caught_up().await;
            assert_eq!(case.shown(seen).await, [(1, 9), (3, -7)], "{deletes}, cut at {cut}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_retry_the_same_rows_of_a_table_without_a_key() {
    let case = Retried::new("[]", "hard");
    case.write("0.jsonl", &[event("c", 10, &NONE, &row(1, 5)), event("c", 20, &NONE, &row(2, -5))]);
    case.world.launch.run_until_caught_up().await;
    let loaded = config::load(Path::new(case.lenient.topology()), &[]).unwrap();
    // Relative paths of the topology are relative to where a process is started.
    let url = case.world.folder.path().join("lake").to_str().unwrap().to_owned();
    let lake = Lake::open(&config::Lake { url, ..loaded.topology.lake.clone() }).unwrap();
    let log = Log::open(lake.clone(), "once", Access::Write).await.unwrap();
    let seen_by_both = open_rejects(&lake, &log).await.unwrap();
    assert_eq!(seen_by_both.len(), 1);
    retry_rejects(&loaded, &lake, &log, &seen_by_both).await.unwrap();
    // The other one had looked at the list before that.
    let late = retry_rejects(&loaded, &lake, &log, &seen_by_both).await;
    let dropped = drop_rejects(&log, &seen_by_both).await;
    case.lenient.run_until_caught_up().await;
    assert_eq!(case.shown("true").await, [(1, 5), (2, -5)], "once each");
    assert!(late.is_err() && dropped.is_err(), "the second one is told that the entries are closed");
}
