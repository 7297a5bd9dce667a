//! DDL at a PostgreSQL source, before, between and after changes: every row by the columns that it was written with, and
//! what changes rows without any event is noticed.

use serde_json::Value;

use crate::postgres_source::{ITEMS, World};
use crate::support::process::{LIMIT, Launch, available, table};

fn needs(launch: &Launch) -> Value {
    table(&launch.status(), "items")["needs_resync"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_with_ddl_in_it_is_read_by_the_columns_of_then() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new(
        "CREATE TABLE items (id int PRIMARY KEY, a int, b text, c numeric(6,2)); INSERT INTO items VALUES (0, 0, 'b', 1)",
    )
    .await;
    let tables = "{ items: { from: public.items, on_mismatch: ignore } }";
    let launch = world.launch(tables, "");
    launch.run_until_caught_up().await;
    // Nobody reads. When somebody does, the catalog knows only the last of these tables.
    world
        .run(
            "INSERT INTO items VALUES (1, 1, 'b1', 1.25); ALTER TABLE items DROP b; INSERT INTO items VALUES (2, 2, 2.25); \
             ALTER TABLE items ADD d text; INSERT INTO items VALUES (3, 3, 3.25, 'd3'); \
             ALTER TABLE items RENAME a TO e; INSERT INTO items VALUES (4, 4, 4.25, 'd4'); \
             ALTER TABLE items RENAME e TO a; INSERT INTO items VALUES (5, 5, 5.25, 'd5'); \
             ALTER TABLE items ALTER a TYPE bigint; INSERT INTO items VALUES (6, 6000000000, 6.25, 'd6'); \
             CREATE TYPE mood AS ENUM ('sad', 'ok'); ALTER TABLE items ADD m mood; INSERT INTO items VALUES (7, 7, 7, 'd', 'ok'); \
             ALTER TABLE items DROP m; DROP TYPE mood; UPDATE items SET d = 'late' WHERE id = 1; DELETE FROM items WHERE id = 2; \
             ALTER TABLE items RENAME TO other; INSERT INTO other VALUES (8, 8, 8, 'other'); ALTER TABLE other RENAME TO items; \
             INSERT INTO items VALUES (9, 9, 9, 'd9')",
        )
        .await;
    launch.run_until_caught_up().await;
    let query = "SELECT CAST(id AS text), CAST(a AS text), CAST(c AS text), d, m FROM items ORDER BY id";
    let expected = [
        "0|0|1.00|∅|∅",
        "1|1|1.25|late|∅",
        "3|3|3.25|d3|∅",
        "4|∅|4.25|d4|∅",
        "5|5|5.25|d5|∅",
        "6|6000000000|6.25|d6|∅",
        "7|7|7.00|d|ok",
        "8|8|8.00|other|∅",
        "9|9|9.00|d9|∅",
    ];
    assert_eq!(world.held(query).await, expected);
    assert_eq!(table(&launch.status(), "items")["rejects_open"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_renamed_in_a_backlog_is_the_key_of_then() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new(
        "CREATE TABLE items (id int PRIMARY KEY, n int, t text); CREATE TABLE whole (id int PRIMARY KEY, n int); \
         ALTER TABLE whole REPLICA IDENTITY FULL; INSERT INTO items VALUES (1, 1, 'a'), (2, 2, 'b'); \
         INSERT INTO whole VALUES (1, 1), (2, 2)",
    )
    .await;
    let tables = "{ items: { from: public.items }, whole: { from: public.whole } }";
    let launch = world.launch(tables, "");
    launch.run_until_caught_up().await;
    world
        .run(
            "UPDATE items SET n = 10 WHERE id = 1; DELETE FROM items WHERE id = 2; ALTER TABLE items RENAME id TO key; \
             UPDATE whole SET n = 10 WHERE id = 1; DELETE FROM whole WHERE id = 2; ALTER TABLE whole RENAME id TO key",
        )
        .await;
    launch.run_until_caught_up().await;
    for name in ["items", "whole"] {
        let held = world.held(&format!("SELECT CAST(id AS text), CAST(n AS text) FROM {name}")).await;
        assert_eq!(held, ["1|10"], "{name}");
        assert_eq!(table(&launch.status(), name)["rejects_open"], 0, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewrite_by_ddl_is_noticed_and_other_new_files_are_not() {
    if !available("postgres") {
        return;
    }
    let mut world =
        World::new("CREATE TABLE items (id int PRIMARY KEY, n int); INSERT INTO items VALUES (1, 1), (2, 2)").await;
    let launch = world.launch(ITEMS, ", heartbeat: 1s");
    launch.run_until_caught_up().await;
    let query = "SELECT CAST(id AS text), CAST(n AS text) FROM items ORDER BY id";
    world.run("VACUUM FULL items").await;
    launch.run_until_caught_up().await;
    world.run("ALTER TABLE items ALTER n SET STATISTICS 50; UPDATE items SET n = 3 WHERE id = 1").await;
    launch.run_until_caught_up().await;
    world.run("TRUNCATE items; INSERT INTO items VALUES (1, 3), (2, 2)").await;
    launch.run_until_caught_up().await;
    assert_eq!((needs(&launch), world.held(query).await), (Value::Null, vec!["1|3".into(), "2|2".into()]));
    // The same type: no message of the stream would ever tell. Noticed while it runs, without any change.
    let mut process = launch.run();
    // It is ready before it has met the server.
    let reads = |status: &Value| status["sources"][0]["slot"]["wal_status"].is_string();
    process.wait_for("the slot to be looked after", LIMIT, reads).await;
    world.run("ALTER TABLE items ALTER n TYPE int USING n * 100").await;
    let status = process
        .wait_for("a resync to be asked for", LIMIT, |status| table(status, "items")["needs_resync"].is_string());
    let status = status.await;
    assert!(table(&status, "items")["needs_resync"].as_str().unwrap().contains("written the table anew"), "{status}");
    process.stop().await;
    assert!(needs(&launch).is_string());
    assert_eq!(world.held(query).await, ["1|3", "2|2"], "nothing is read by itself");
    // A person asks for it, and then it is as it should be.
    let output = launch.other(&["table", "resync"], &["items"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    launch.run_until_caught_up().await;
    assert_eq!((needs(&launch), world.held(query).await), (Value::Null, vec!["1|300".into(), "2|200".into()]));
    // By itself, when nobody read, and with a volatile default.
    let launch = world.launch(ITEMS, ", snapshot: { on_filled_column: read_again }");
    world.run("ALTER TABLE items ALTER n TYPE bigint USING n + 1; ALTER TABLE items ADD r int DEFAULT (random() * 0 + 5)::int").await;
    launch.run_until_caught_up().await;
    let query = "SELECT CAST(id AS text), CAST(n AS text), CAST(r AS text) FROM items ORDER BY id";
    assert_eq!((needs(&launch), world.held(query).await), (Value::Null, vec!["1|301|5".into(), "2|201|5".into()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_dropped_and_made_again_while_it_runs_is_read_anew() {
    if !available("postgres") {
        return;
    }
    let mut world =
        World::new("CREATE TABLE items (id int PRIMARY KEY, n int); INSERT INTO items VALUES (1, 1), (2, 2); CREATE TABLE more (id int PRIMARY KEY)").await;
    let tables = "{ items: { from: public.items }, more: { from: public.more } }";
    let launch = world.launch(tables, ", heartbeat: 1s");
    launch.run_until_caught_up().await;
    let mut process = launch.run();
    // It is ready before it has met the server; a process that does not find the table there when it begins is a mistake.
    let reads = |status: &Value| status["sources"][0]["slot"]["wal_status"].is_string();
    process.wait_for("the slot to be looked after", LIMIT, reads).await;
    world.run("UPDATE items SET n = 5 WHERE id = 1; DROP TABLE items").await;
    let dropped = |status: &Value| {
        status["problems"].as_array().unwrap().iter().any(|p| p["why"].as_str().unwrap().contains("dropped"))
    };
    process.wait_for("the table to be missed", LIMIT, dropped).await;
    // A connection that breaks meanwhile does not make more of it: the other table goes on.
    world.run("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active AND database = current_database()").await;
    process.wait_for_log("trying again", LIMIT).await;
    world.run("INSERT INTO more VALUES (1)").await;
    let more = |status: &Value| table(status, "more")["warehouse_epoch"].as_u64().unwrap_or(0) > 0;
    process.wait_for("the other table's row", LIMIT, more).await;
    world.run("CREATE TABLE items (id int PRIMARY KEY, n int); INSERT INTO items VALUES (7, 7)").await;
    process.wait_for("the table to be there again", LIMIT, |status| !dropped(status)).await;
    process.wait_for_log("the rows that are there were read", LIMIT).await;
    world.run("INSERT INTO items VALUES (8, 8)").await;
    process.stop().await;
    launch.run_until_caught_up().await;
    assert_eq!(world.held("SELECT CAST(id AS text), CAST(n AS text) FROM items ORDER BY id").await, ["7|7", "8|8"]);
    assert_eq!(world.held("SELECT CAST(id AS text) FROM more").await, ["1"]);
    launch.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_reading_a_table_that_was_not_published_needs_a_resync() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new("CREATE TABLE items (id int PRIMARY KEY, n int)").await;
    let launch = world.launch(ITEMS, ", snapshot: { mode: never }");
    launch.run_until_caught_up().await;
    world.run("INSERT INTO items VALUES (1, 1)").await;
    launch.run_until_caught_up().await;
    assert_eq!(needs(&launch), Value::Null);
    for sql in ["DROP TABLE items", "ADD TABLE items"] {
        world.run(&format!("ALTER PUBLICATION p {sql}; INSERT INTO items SELECT max(id) + 1, 2 FROM items")).await;
    }
    launch.run_until_caught_up().await;
    assert!(
        needs(&launch).as_str().is_some_and(|why| why.contains("publication did not show it")),
        "{}",
        launch.status()
    );
    assert!(launch.other(&["table", "resync"], &["items"]).status.success());
    launch.run_until_caught_up().await;
    assert_eq!(needs(&launch), Value::Null);
    assert_eq!(world.held("SELECT CAST(id AS text) FROM items ORDER BY id").await, ["1", "2", "3"]);
    launch.assert_equal();
}
