//! Reading the rows that are there against a real PostgreSQL: at first, again, and for tables that join.

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, SqliteConnection};

use crate::postgres_source::World;
use crate::support::process::{LIMIT, Running, available, table};

const ITEMS: &str = "{ items: { from: public.items } }";
const HELD: &str = "SELECT CAST(id AS text), name FROM items ORDER BY id";

/// Writes into the warehouse behind the program's back.
async fn spoil(world: &World, sql: &str) {
    let options = SqliteConnectOptions::new().filename(world.path().join("w.db"));
    let mut warehouse = SqliteConnection::connect_with(&options).await.unwrap();
    warehouse.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
}

/// Waits until the warehouse holds those rows.
async fn until_held(world: &World, process: &mut Running, query: &str, expected: &[&str]) {
    let begun = std::time::Instant::now();
    while world.held(query).await != expected {
        assert!(
            !process.has_ended() && begun.elapsed() < LIMIT,
            "{:?}\n{}",
            world.held(query).await,
            process.log_tail()
        );
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_somebody_spoiled_is_read_again_on_order() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new(
        "CREATE TABLE items (id int PRIMARY KEY, name text); INSERT INTO items VALUES (1, 'one'), (2, 'two'), (3, 'three')",
    )
    .await;
    let launch = world.launch(ITEMS, "");
    launch.run_until_caught_up().await;
    spoil(&world, "UPDATE items SET name = 'wrong' WHERE id = 1; DELETE FROM items WHERE id = 2").await;
    spoil(&world, "INSERT INTO items SELECT 9, 'too much', _seq, _synced_at FROM items WHERE id = 3").await;
    // Ordered while nobody runs; then of a process that runs.
    let ordered = launch.other(&["table", "resync"], &["items"]);
    assert!(ordered.status.success(), "{ordered:?}");
    launch.run_until_caught_up().await;
    assert_eq!(world.held(HELD).await, ["1|one", "2|two", "3|three"]);
    let mut process = launch.run();
    process.wait_for("a status", LIMIT, |status| status["ready"] == true).await;
    spoil(&world, "UPDATE items SET name = 'wrong' WHERE id = 1; DELETE FROM items WHERE id = 2").await;
    world.run("INSERT INTO items VALUES (4, 'four')").await;
    assert!(launch.other(&["table", "resync"], &["items"]).status.success());
    until_held(&world, &mut process, HELD, &["1|one", "2|two", "3|three", "4|four"]).await;
    process.stop().await;
    // An order is obeyed once.
    spoil(&world, "UPDATE items SET name = 'wrong' WHERE id = 1").await;
    world.run("INSERT INTO items VALUES (5, 'five')").await;
    launch.run_until_caught_up().await;
    assert_eq!(world.held(HELD).await, ["1|wrong", "2|two", "3|three", "4|four", "5|five"]);
    assert_eq!(table(&launch.status(), "items")["rejects_open"], 0);
}
