//! Refused rows of a PostgreSQL source, brought in again from quarantine: by the columns that they were written with, at
//! the place in the order that they had.

use crate::postgres_source::{World, held_in};
use crate::support::process::{Launch, available, table};

const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const STRICT: &str = "n >= 0";
const TABLES: &str =
    "{ items: { from: public.items, operators: [{ validate: { name: positive, rule: \"n >= 0\" } }] } }";

/// The topology with a key for what is refused, and the same with a rule that lets everything pass.
fn launches(world: &World, folder: &std::path::Path, slot: &str) -> (Launch, Launch) {
    let name = world.url.rsplit('/').next().unwrap();
    let text = std::fs::read_to_string(world.launch(TABLES, "").topology()).unwrap();
    let text = text
        .replace(
            "lake: { url: ./lake }",
            &format!("lake: {{ url: ./lake, quarantine: {{ key: \"{KEY}\", retention: 30d }} }}"),
        )
        .replace(&format!("slot: {name}"), &format!("slot: {name}{slot}"));
    let lenient = text.replace(STRICT, "n >= -100");
    (Launch::named(folder, "strict", &text), Launch::named(folder, "lenient", &lenient))
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_rule_refused_come_back_as_they_were_written() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new(
        "CREATE TABLE items (id int PRIMARY KEY, n int, amount numeric(6,2), t text); \
         INSERT INTO items VALUES (1, 5, 1, 'one'), (2, -5, 2.25, 'by the snapshot')",
    )
    .await;
    let other = tempfile::tempdir().unwrap();
    let (strict, lenient) = launches(&world, world.path(), "");
    // What it must be like in the end: a pipeline that never refused anything.
    let (_, never) = launches(&world, other.path(), "_never");
    strict.run_until_caught_up().await;
    never.run_until_caught_up().await;
    world
        .run(
            "INSERT INTO items VALUES (3, -7, 3.5, 'by the stream'); UPDATE items SET n = -1 WHERE id = 1; \
             UPDATE items SET n = 9 WHERE id = 1; ALTER TABLE items DROP t; ALTER TABLE items ADD d date; \
             INSERT INTO items VALUES (4, -4, 4, '2024-02-29'), (5, 5, 'NaN', NULL); \
             INSERT INTO items VALUES (6, -6, 6, NULL); DELETE FROM items WHERE id = 6",
        )
        .await;
    strict.run_until_caught_up().await;
    never.run_until_caught_up().await;
    let query =
        "SELECT CAST(id AS text), CAST(n AS text), CAST(amount AS text), t, CAST(d AS text) FROM items ORDER BY id";
    assert_eq!(world.held(query).await, ["1|9|1.00|one|∅"]);
    assert_eq!(table(&strict.status(), "items")["rejects_open"], 6);
    let output = lenient.other(&["quarantine", "retry"], &["--table", "items"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    lenient.run_until_caught_up().await;
    let held = world.held(query).await;
    assert_eq!(held, held_in(other.path(), query).await);
    assert_eq!(
        held,
        ["1|9|1.00|one|∅", "2|-5|2.25|by the snapshot|∅", "3|-7|3.50|by the stream|∅", "4|-4|4.00|∅|2024-02-29"]
    );
    let order = "SELECT CAST(id AS text), _seq FROM items WHERE id > 2 ORDER BY id";
    assert_eq!(world.held(order).await, held_in(other.path(), order).await, "the order that they had");
    // What no rule can let pass is refused again.
    let status = lenient.status();
    assert_eq!(table(&status, "items")["rejects_open"], 1, "{status}");
    assert_eq!(status["account"]["imbalance"], serde_json::Value::Null, "{status}");
}
