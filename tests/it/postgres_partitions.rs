//! Partitions with rows that come, go and are emptied by themselves: no event tells of their rows, the catalog does.

use serde_json::Value;

use crate::postgres_source::{ITEMS, World};
use crate::support::process::{LIMIT, Launch, Running, available, table};

/// Two partitions with rows, and one below another.
const PARTS: &str = "CREATE TABLE items (id int PRIMARY KEY, n int, t text) PARTITION BY RANGE (id); \
    CREATE TABLE items_1 PARTITION OF items FOR VALUES FROM (0) TO (10); \
    CREATE TABLE items_2 PARTITION OF items FOR VALUES FROM (10) TO (20); \
    CREATE TABLE deep PARTITION OF items FOR VALUES FROM (50) TO (70) PARTITION BY RANGE (id); \
    CREATE TABLE deep_5 PARTITION OF deep FOR VALUES FROM (50) TO (60); \
    INSERT INTO items SELECT n, n, 'at first' FROM generate_series(0, 19) n; \
    INSERT INTO items SELECT n, n, 'deep' FROM generate_series(50, 59) n";

/// What changes rows, and no event says so.
const SILENT: [&str; 8] = [
    "CREATE TABLE items_3 (LIKE items INCLUDING ALL); INSERT INTO items_3 SELECT n, n, 'attached' FROM generate_series(20, 29) n; \
     ALTER TABLE items ATTACH PARTITION items_3 FOR VALUES FROM (20) TO (30)",
    "TRUNCATE items_2",
    "TRUNCATE deep_5; INSERT INTO items VALUES (55, 5, 'after')",
    "ALTER TABLE items DETACH PARTITION items_1",
    // It has changed while it was away.
    "UPDATE items_1 SET n = -1; ALTER TABLE items ATTACH PARTITION items_1 FOR VALUES FROM (0) TO (10)",
    "DROP TABLE items_3",
    // Below one that is attached as a whole.
    "CREATE TABLE late (id int NOT NULL, n int, t text) PARTITION BY RANGE (id); \
     CREATE TABLE late_8 PARTITION OF late FOR VALUES FROM (80) TO (90); INSERT INTO late VALUES (81, 1, 'late'); \
     ALTER TABLE items ATTACH PARTITION late FOR VALUES FROM (80) TO (100)",
    "ALTER TABLE items DETACH PARTITION deep",
];

/// What makes partitions, or new files of them, and changes no row without an event.
const LOUD: [&str; 6] = [
    "CREATE TABLE items_9 PARTITION OF items FOR VALUES FROM (900) TO (910)",
    "INSERT INTO items SELECT n, n, 'new' FROM generate_series(900, 909) n; ALTER TABLE items_9 SET (fillfactor = 90)",
    "CREATE TABLE empty (LIKE items INCLUDING ALL); ALTER TABLE items ATTACH PARTITION empty FOR VALUES FROM (910) TO (920)",
    "VACUUM FULL items",
    "TRUNCATE items; INSERT INTO items SELECT n, n, 'again' FROM generate_series(0, 9) n",
    "DELETE FROM items_1 WHERE id < 5; UPDATE items SET id = id + 10 WHERE id = 7",
];

const ALL: &str = "SELECT CAST(id AS text), CAST(n AS text), t FROM items ORDER BY items.id";

/// One statement after the other: VACUUM runs alone.
async fn run(world: &mut World, sql: &str) {
    for statement in sql.split("; ") {
        world.run(statement).await;
    }
}

/// Runs to the end of what is there; what it has said.
async fn caught_up(launch: &Launch) -> String {
    let mut process = launch.clone().arg("--until-caught-up").run();
    assert!(process.exit(LIMIT).await.success(), "{}", process.log_tail());
    process.log()
}

async fn until_equal(world: &mut World, process: &mut Running, what: &str) {
    let begun = std::time::Instant::now();
    loop {
        let (held, there) = (world.held(ALL).await, world.there(ALL).await);
        if held == there {
            return;
        }
        let over = process.has_ended() || begun.elapsed() > LIMIT;
        assert!(!over, "{what}: {} held, {} there\n{}", held.len(), there.len(), process.log_tail());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

async fn goes_on(launch: &Launch) -> Running {
    let mut process = launch.run();
    // It is ready before it has met the server.
    let reads = |status: &Value| status["sources"][0]["slot"]["wal_status"].is_string();
    process.wait_for("the slot to be looked after", LIMIT, reads).await;
    process
}

const AGAIN: &str = ", heartbeat: 1s, snapshot: { on_filled_column: read_again }";

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_come_and_go_with_partitions_are_noticed_while_nobody_reads() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new(PARTS).await;
    let launch = world.launch(ITEMS, AGAIN);
    caught_up(&launch).await;
    for sql in SILENT {
        run(&mut world, sql).await;
        let log = caught_up(&launch).await;
        assert!(log.contains("partitions with rows were"), "{sql}\n{log}");
        assert_eq!(world.held(ALL).await, world.there(ALL).await, "{sql}\n{log}");
    }
    launch.assert_equal();
    for sql in LOUD {
        run(&mut world, sql).await;
        let log = caught_up(&launch).await;
        assert!(!log.contains("reading the rows") && !log.contains("partitions with rows"), "{sql}\n{log}");
        assert_eq!(world.held(ALL).await, world.there(ALL).await, "{sql}\n{log}");
    }
    launch.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_come_and_go_with_partitions_are_noticed_while_it_runs() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new(PARTS).await;
    let launch = world.launch(ITEMS, AGAIN);
    caught_up(&launch).await;
    let mut process = goes_on(&launch).await;
    for (turn, sql) in SILENT.into_iter().enumerate() {
        run(&mut world, sql).await;
        until_equal(&mut world, &mut process, sql).await;
        assert_eq!(process.log().matches("partitions with rows were").count(), turn + 1, "{sql}\n{}", process.log());
    }
    let readings = process.log().matches("reading the rows that are there, beside").count();
    for sql in LOUD {
        run(&mut world, sql).await;
        until_equal(&mut world, &mut process, sql).await;
    }
    // Another one that must be read again: by then it has looked at all of the others.
    run(&mut world, "TRUNCATE items_1").await;
    until_equal(&mut world, &mut process, "the end").await;
    let now = process.log().matches("reading the rows that are there, beside").count();
    assert_eq!(now, readings + 1, "{}", process.log());
    process.stop().await;
    launch.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_goes_asks_for_a_resync() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new(PARTS).await;
    let launch = world.launch(ITEMS, ", heartbeat: 1s");
    caught_up(&launch).await;
    let before = world.held(ALL).await;
    let mut process = goes_on(&launch).await;
    world.run("DROP TABLE items_1").await;
    let asks =
        |status: &Value| table(status, "items")["needs_resync"].as_str().is_some_and(|why| why.contains("partitions"));
    process.wait_for("a resync to be asked for", LIMIT, asks).await;
    process.stop().await;
    assert_eq!(world.held(ALL).await, before, "nothing is read by itself");
    assert!(asks(&launch.status()), "{:#}", launch.status());
    assert!(launch.other(&["table", "resync"], &["items"]).status.success());
    caught_up(&launch).await;
    assert_eq!(table(&launch.status(), "items")["needs_resync"], Value::Null);
    launch.assert_equal();
}
