//! Refused rows, brought in again from quarantine: by the columns that they were written with, at the place in the order
//! that they had.

use super::{World, families};
use crate::support::process::{Launch, table};

const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const TABLES: &str = "{ items: { from: $.items, operators: [{ validate: { name: positive, rule: \"n >= 0\" } }] } }";

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_rule_refused_come_back_as_they_were_written() {
    for family in families() {
        let mut world = World::new(
            family,
            "CREATE TABLE items (id int PRIMARY KEY, n int, amount decimal(6,2), t varchar(20)); \
             INSERT INTO items VALUES (1, 5, 1, 'one'), (2, -5, 2.25, 'by the snapshot')",
        )
        .await;
        let text = std::fs::read_to_string(world.launch(TABLES, "").topology()).unwrap();
        let kept = format!("lake: {{ url: ./lake, quarantine: {{ key: \"{KEY}\", retention: 30d }} }}");
        let text = text.replace("lake: { url: ./lake }", &kept);
        let strict = Launch::named(world.path(), "strict", &text);
        let lenient = Launch::named(world.path(), "lenient", &text.replace("n >= 0", "n >= -100"));
        strict.run_until_caught_up().await;
        world
            .run(
                "INSERT INTO items VALUES (3, -7, 3.5, 'by the stream'); UPDATE items SET n = -1 WHERE id = 1; \
                 UPDATE items SET n = 9 WHERE id = 1; ALTER TABLE items ADD d date; \
                 INSERT INTO items VALUES (4, -4, 4, 'wider', '2024-02-29'); \
                 INSERT INTO items VALUES (6, -6, 6, NULL, NULL); DELETE FROM items WHERE id = 6",
            )
            .await;
        strict.run_until_caught_up().await;
        assert_eq!(world.held("SELECT CAST(id AS text), CAST(n AS text) FROM items").await, ["1|9"], "{family:?}");
        assert_eq!(table(&strict.status(), "items")["rejects_open"], 5, "{family:?}");
        let output = lenient.other(&["quarantine", "retry"], &["--table", "items"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        lenient.run_until_caught_up().await;
        let query =
            "SELECT CAST(id AS text), CAST(n AS text), CAST(amount AS text), t, CAST(d AS text) FROM items ORDER BY id";
        world.assert_equal(query).await;
        assert_eq!(world.held(query).await.len(), 4, "{family:?}");
        let status = lenient.status();
        assert_eq!(table(&status, "items")["rejects_open"], 0, "{status}");
        assert_eq!(status["account"]["imbalance"], serde_json::Value::Null, "{status}");
    }
}
