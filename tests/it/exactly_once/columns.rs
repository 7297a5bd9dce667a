//! GIVEN rows that leave their contract or cannot be decoded, WHEN the real process reads them, restarted in between,
//! THEN the table's `on_mismatch` decides, a person can take the change, and nothing stands on a refused version.

use serde_json::{Value, json};

use super::world::World;
use crate::support::process::{Launch, table};

fn event(op: &str, lsn: u64, row: &Value) -> String {
    let time = 1_780_000_000_000u64 + lsn;
    let source = json!({
        "version": "3.0.0", "connector": "postgresql", "name": "shop", "ts_ms": time, "snapshot": "false", "db": "shop",
        "sequence": format!("[\"{lsn}\",\"{lsn}\"]"), "schema": "public", "table": "t", "txId": lsn, "lsn": lsn
    });
    json!({ "op": op, "before": null, "after": row, "source": source, "ts_ms": time }).to_string()
}

struct Case {
    world: World,
    files: usize,
}

impl Case {
    fn new(table: &str, contract: Option<&str>) -> Self {
        let tables = format!("tables: {{ t: {{ from: shop.public.t, key: [id], {table} }} }}");
        let world = World::embedded_with(&tables, "epoch: { every: 200ms }\n", "true");
        std::fs::create_dir(world.events()).unwrap();
        if let Some(contract) = contract {
            std::fs::write(world.folder.path().join("contract.yaml"), contract).unwrap();
        }
        Self { world, files: 0 }
    }

    /// One more file, a partition of its own.
    fn write(&mut self, events: &[String]) {
        let name = format!("{:02}.jsonl", self.files);
        std::fs::write(self.world.events().join(name), events.join("\n") + "\n").unwrap();
        self.files += 1;
    }

    async fn run(&self) {
        self.world.launch.run_until_caught_up().await;
    }

    /// The table's columns as text, rows by id.
    async fn shown(&self, columns: &str) -> Vec<Vec<Option<String>>> {
        self.world.oracle.rows(&format!("SELECT {columns} FROM t ORDER BY id")).await.unwrap()
    }

    /// The same lake under a corrected topology.
    fn corrected(&self, from: &str, to: &str) -> Launch {
        let text = std::fs::read_to_string(self.world.launch.topology()).unwrap();
        Launch::named(self.world.folder.path(), "corrected", &text.replace(from, to))
    }
}

fn does(launch: &Launch, words: &[&str], more: &[&str]) -> String {
    let output = launch.other(words, more);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn texts(rows: &[Vec<Option<String>>]) -> Vec<String> {
    rows.iter().map(|row| row.iter().map(|v| v.as_deref().unwrap_or("-")).collect::<Vec<_>>().join(" ")).collect()
}

const COLUMNS: &str = "CAST(id AS TEXT), CAST(amount AS TEXT), note";

/// A table whose column `note` is dropped: old rows come late, a new one comes after a restart.
async fn dropped(policy: &str) -> Case {
    let mut case = Case::new(&format!("on_mismatch: {policy}"), None);
    case.write(&[event("c", 10, &json!({ "id": 1, "amount": 5, "note": "n" }))]);
    case.run().await;
    case.write(&[
        event("c", 4, &json!({ "id": 2, "amount": 2 })),
        event("c", 11, &json!({ "id": 3, "amount": 3, "note": "m" })),
        event("u", 20, &json!({ "id": 1, "amount": 7 })),
    ]);
    case.run().await;
    case
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_column_is_quarantined_until_a_person_takes_it() {
    let case = dropped("quarantine").await;
    assert_eq!(texts(&case.shown(COLUMNS).await), ["1 5 n", "2 2 -", "3 3 m"]);
    let listed = does(&case.world.launch, &["quarantine", "list"], &["--json"]);
    assert!(listed.contains("column `note` is gone") && listed.contains("`gone:`"), "{listed}");
    // Nothing has been taken, so a retry changes nothing.
    does(&case.world.launch, &["quarantine", "retry"], &["--table", "t"]);
    case.run().await;
    assert_eq!(texts(&case.shown(COLUMNS).await), ["1 5 n", "2 2 -", "3 3 m"]);
    let corrected = case.corrected("on_mismatch: quarantine", "gone: [note]");
    does(&corrected, &["quarantine", "retry"], &["--table", "t"]);
    corrected.run_until_caught_up().await;
    assert_eq!(texts(&case.shown(COLUMNS).await), ["1 7 -", "2 2 -", "3 3 m"]);
    assert_eq!(table(&corrected.status(), "t")["rejects_open"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_column_parks_its_table() {
    let case = dropped("park").await;
    let status = case.world.launch.status();
    let why = table(&status, "t")["why"].as_str().unwrap_or_default().to_owned();
    assert!(why.starts_with("on_mismatch: park: column `note` is gone"), "{status}");
    let corrected = case.corrected("on_mismatch: park", "on_mismatch: park, gone: [note]");
    does(&corrected, &["quarantine", "retry"], &["--table", "t"]);
    does(&corrected, &["table", "resume"], &["t"]);
    corrected.run_until_caught_up().await;
    assert_eq!(texts(&case.shown(COLUMNS).await), ["1 7 -", "2 2 -", "3 3 m"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_column_is_null_where_mismatches_are_ignored() {
    let case = dropped("ignore").await;
    assert_eq!(texts(&case.shown(COLUMNS).await), ["1 7 -", "2 2 -", "3 3 m"]);
}

const CONTRACT: &str = r"
version: 1
widen: false
columns:
  - { name: id, type: bigint }
  - { name: price, type: 'decimal(10,2)' }
  - { name: doc, type: text }
key: [id]
encodings: { price: text }
";

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_row_never_stands_on_what_was_before_a_refused_row() {
    let row = |price: &str, doc: &str| json!({ "id": 1, "price": price, "doc": doc });
    let story = [
        event("c", 10, &row("1.00", "old")),
        event("u", 20, &row("2.005", "new")),
        event("u", 30, &row("3.00", "__debezium_unavailable_value")),
        event("u", 40, &row("4.00", "whole")),
        event("u", 50, &row("5.00", "__debezium_unavailable_value")),
    ];
    // All but the last two at once, or each in an epoch and a unit of its own.
    for cuts in [vec![3], vec![1, 2, 3]] {
        let mut case = Case::new("contract: contract.yaml", Some(CONTRACT));
        let mut from = 0;
        for cut in cuts {
            case.write(&story[from..cut]);
            case.run().await;
            from = cut;
        }
        let columns = "CAST(price AS TEXT), doc";
        assert_eq!(case.shown(columns).await[0][1].as_deref(), Some("old"), "the refused update is not applied");
        assert!(case.shown(columns).await[0][0].as_deref().unwrap().starts_with('1'), "the partial one neither");
        case.write(&story[3..]);
        case.run().await;
        let healed = case.shown(columns).await;
        assert!(
            healed[0][0].as_deref().unwrap().starts_with('5') && healed[0][1].as_deref() == Some("whole"),
            "{healed:?}"
        );
    }
}
