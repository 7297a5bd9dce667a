//! Large transactions that the server sends while they run: kept apart, and in the end the same as any other.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::postgres_source::{ITEMS, SUMS, World};
use crate::support::process::{LIMIT, Launch, available, table};

/// A world whose server sends whatever is larger than 64 kB while it runs.
async fn world(setup: &str) -> World {
    let mut world = World::new(setup).await;
    let database = world.url.rsplit('/').next().unwrap().to_owned();
    world.run(&format!("ALTER DATABASE {database} SET logical_decoding_work_mem = '64kB'")).await;
    world
}

const TABLE: &str = "CREATE TABLE items (id int PRIMARY KEY, n int, t text); INSERT INTO items VALUES (0, 0, '')";

async fn another(world: &World) -> PgConnection {
    let mut connection = PgConnection::connect(&world.url).await.unwrap();
    connection.execute("SET synchronous_commit = on").await.unwrap();
    connection
}

async fn run(connection: &mut PgConnection, sql: &str) {
    connection.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
}

/// How many bytes of running transactions the process keeps.
async fn kept(process: &crate::support::process::Running) -> f64 {
    let page = process.page("/metrics").await.unwrap_or_default();
    let line = page.lines().find(|line| line.starts_with("dataflow_spool_bytes{"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
}

async fn until_kept(process: &crate::support::process::Running, at_least: f64) {
    let begun = std::time::Instant::now();
    while kept(process).await < at_least {
        assert!(begun.elapsed() < LIMIT, "nothing is kept of the running transaction\n{}", process.log_tail());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Ends when everything is there, and the two sides are equal.
async fn ends_equal(launch: &Launch, world: &mut World) {
    launch.run_until_caught_up().await;
    assert_eq!(world.held(SUMS).await, world.there(SUMS).await);
    assert_eq!(table(&launch.status(), "items")["rejects_open"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rolled_back_sub_transactions_of_a_running_transaction_leave_nothing() {
    if !available("postgres") {
        return;
    }
    let mut world = world(TABLE).await;
    let launch = world.launch(ITEMS, "");
    launch.run_until_caught_up().await;
    let mut process = launch.run();
    process.wait_for("a status", LIMIT, |status| status["ready"] == true).await;
    let fill = |from: u32, letter: &str| {
        format!(
            "INSERT INTO items SELECT n, n, repeat('{letter}', 50) FROM generate_series({from}, {}) n;",
            from + 1499
        )
    };
    let mut other = another(&world).await;
    let sql = format!(
        "BEGIN; {} SAVEPOINT a; {} SAVEPOINT b; UPDATE items SET n = -1 WHERE id < 5000; ROLLBACK TO a; {} \
         SAVEPOINT c; {} RELEASE c; SAVEPOINT d; DELETE FROM items WHERE id < 100; ROLLBACK TO d; \
         UPDATE items SET n = n + 1 WHERE id % 3 = 0;",
        fill(1, "a"),
        fill(5001, "b"),
        fill(10_001, "c"),
        fill(15_001, "d")
    );
    run(&mut other, &sql).await;
    until_kept(&process, 100_000.0).await;
    assert_eq!(world.held("SELECT CAST(count(*) AS text) FROM items").await, ["1"], "it is not committed");
    run(&mut other, "COMMIT").await;
    ends_equal_while(&mut process, &mut world).await;
    process.stop().await;
    ends_equal(&launch, &mut world).await;
    assert_eq!(world.held("SELECT CAST(count(*) AS text) FROM items").await, ["4501"]);
}

/// Waits until the warehouse of a running process is equal to the source.
async fn ends_equal_while(process: &mut crate::support::process::Running, world: &mut World) {
    let there = world.there(SUMS).await;
    let begun = std::time::Instant::now();
    while world.held(SUMS).await != there {
        assert!(begun.elapsed() < LIMIT, "{:?} is not {there:?}\n{}", world.held(SUMS).await, process.log_tail());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn running_transactions_that_interleave_are_kept_apart() {
    if !available("postgres") {
        return;
    }
    let mut world = world(TABLE).await;
    let launch = world.launch(ITEMS, "");
    launch.run_until_caught_up().await;
    let mut process = launch.run();
    process.wait_for("a status", LIMIT, |status| status["ready"] == true).await;
    let (mut first, mut second, mut third) = (another(&world).await, another(&world).await, another(&world).await);
    for connection in [&mut first, &mut second, &mut third] {
        run(connection, "BEGIN").await;
    }
    for round in 0..5 {
        for (connection, base) in [(&mut first, 10_000), (&mut second, 200_000), (&mut third, 400_000)] {
            let from = base + round * 1000;
            let sql = format!(
                "INSERT INTO items SELECT n, {round}, repeat('x', 40) FROM generate_series({from}, {}) n; \
                 UPDATE items SET n = n + 10 WHERE id BETWEEN {from} AND {}",
                from + 999,
                from + 499
            );
            run(connection, &sql).await;
        }
        // A small one, between them.
        world
            .run(&format!("UPDATE items SET n = n + 1 WHERE id = 0; INSERT INTO items VALUES ({}, 0, '')", 1 + round))
            .await;
    }
    until_kept(&process, 100_000.0).await;
    run(&mut second, "ROLLBACK").await;
    run(&mut third, "COMMIT").await;
    run(&mut first, "COMMIT").await;
    ends_equal_while(&mut process, &mut world).await;
    assert_eq!(world.held("SELECT CAST(count(*) AS text) FROM items").await, ["10006"]);
    let begun = std::time::Instant::now();
    while kept(&process).await > 0.0 {
        assert!(begun.elapsed() < LIMIT, "what has ended is still kept");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    process.stop().await;
    ends_equal(&launch, &mut world).await;
}
