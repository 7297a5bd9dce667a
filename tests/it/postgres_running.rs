//! Large transactions that the server sends while they run: kept apart, and in the end the same as any other.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::postgres_source::{ITEMS, SUMS, World};
use crate::support::oracle::LogReader;
use crate::support::postgres::{Server, Version, newest};
use crate::support::process::{LIMIT, Launch, Running, available, table};

/// A world whose server sends whatever is larger than 64 kB while it runs.
async fn world(setup: &str) -> World {
    let mut world = World::new(setup).await;
    let database = world.url.rsplit('/').next().unwrap().to_owned();
    world.run(&format!("ALTER DATABASE {database} SET logical_decoding_work_mem = '64kB'")).await;
    world
}

const TABLE: &str = "CREATE TABLE items (id int PRIMARY KEY, n int, t text); INSERT INTO items VALUES (0, 0, '')";

/// Transactions of 2 MiB each.
const DOCUMENTS: u64 = 12;

async fn another(world: &World) -> PgConnection {
    let mut connection = PgConnection::connect(&world.url).await.unwrap();
    connection.execute("SET synchronous_commit = on").await.unwrap();
    connection
}

async fn run(connection: &mut PgConnection, sql: &str) {
    connection.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
}

/// How many bytes of running transactions the process keeps.
async fn kept(process: &Running) -> f64 {
    let page = process.page("/metrics").await.unwrap_or_default();
    let line = page.lines().find(|line| line.starts_with("dataflow_spool_bytes{"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
}

async fn until_kept(process: &Running, at_least: f64) {
    let begun = std::time::Instant::now();
    while kept(process).await < at_least {
        assert!(begun.elapsed() < LIMIT, "nothing is kept of the running transaction\n{}", process.log_tail());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// A process that has the rows that were there and goes on.
async fn goes_on(launch: &Launch) -> Running {
    launch.run_until_caught_up().await;
    let mut process = launch.run();
    process.wait_for("a status", LIMIT, |status| status["ready"] == true).await;
    process
}

/// Waits until the warehouse of a running process is equal to the source.
async fn ends_equal_while(process: &mut Running, world: &mut World, query: &str) {
    let there = world.there(query).await;
    let begun = std::time::Instant::now();
    while world.held(query).await != there {
        assert!(begun.elapsed() < LIMIT, "{:?} is not {there:?}\n{}", world.held(query).await, process.log_tail());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// Ends when everything is there, and the two sides are equal.
async fn ends_equal(launch: &Launch, world: &mut World) {
    launch.run_until_caught_up().await;
    assert_eq!(world.held(SUMS).await, world.there(SUMS).await);
    assert_eq!(table(&launch.status(), "items")["rejects_open"], 0);
    launch.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn rolled_back_sub_transactions_of_a_running_transaction_leave_nothing() {
    if !available("postgres") {
        return;
    }
    let mut world = world(TABLE).await;
    let launch = world.launch(ITEMS, "");
    let mut process = goes_on(&launch).await;
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
    ends_equal_while(&mut process, &mut world, SUMS).await;
    process.stop().await;
    ends_equal(&launch, &mut world).await;
    assert_eq!(world.held("SELECT CAST(count(*) AS text) FROM items").await, ["4501"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn running_transactions_that_interleave_are_kept_apart() {
    if !available("postgres") {
        return;
    }
    let mut world = world(TABLE).await;
    let launch = world.launch(ITEMS, "");
    let mut process = goes_on(&launch).await;
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
    ends_equal_while(&mut process, &mut world, SUMS).await;
    assert_eq!(world.held("SELECT CAST(count(*) AS text) FROM items").await, ["10006"]);
    let begun = std::time::Instant::now();
    while kept(&process).await > 0.0 {
        assert!(begun.elapsed() < LIMIT, "what has ended is still kept");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    process.stop().await;
    ends_equal(&launch, &mut world).await;
}

/// A second pipeline of the same database, with a slot and a folder of its own.
fn beside(world: &World, folder: &std::path::Path, more: &str) -> Launch {
    let name = world.url.rsplit('/').next().unwrap();
    let topology = format!(
        "version: 1\nname: pg\nsources:\n  shop: {{ kind: postgres, url: \"{}?sslmode=disable\", slot: {name}_beside, \
         publication: p{more} }}\ntables: {ITEMS}\nlake: {{ url: ./lake }}\nwarehouse: {{ kind: sqlite, path: w.db }}\n\
         epoch: {{ every: 200ms }}\n",
        world.url
    );
    Launch::new(folder, &topology)
}

/// Rows by several ways into one log record or several, in sub-transactions, some rolled back.
const MIXED: &str = "BEGIN; INSERT INTO items SELECT n, n, repeat('a', 60) FROM generate_series(1, 3000) n; \
    COPY items FROM PROGRAM 'seq 100001 103000 | sed s/$/,7,copied/' WITH (FORMAT csv); SAVEPOINT a; \
    UPDATE items SET n = -n WHERE id % 2 = 0; ROLLBACK TO a; SAVEPOINT b; \
    COPY items FROM PROGRAM 'seq 200001 203000 | sed s/$/,8,copied/' WITH (FORMAT csv); RELEASE b; \
    UPDATE items SET n = n + 1 WHERE id % 5 = 0; DELETE FROM items WHERE id % 7 = 0; \
    UPDATE items SET id = id + 1000000 WHERE id % 11 = 0; COMMIT";

#[tokio::test(flavor = "multi_thread")]
async fn rows_have_the_same_seq_whether_they_were_sent_early_or_not() {
    if !available("postgres") {
        return;
    }
    let mut world = world(TABLE).await;
    let other = tempfile::tempdir().unwrap();
    let (early, late) = (world.launch(ITEMS, ""), beside(&world, other.path(), ", streaming: \"off\""));
    early.run_until_caught_up().await;
    late.run_until_caught_up().await;
    world.run(MIXED).await;
    early.run_until_caught_up().await;
    late.run_until_caught_up().await;
    let query = "SELECT CAST(id AS text), CAST(n AS text), _seq FROM items WHERE id > 0 ORDER BY id";
    let early = world.held(query).await;
    assert!(early.len() > 5000, "{}", early.len());
    assert_eq!(early, crate::postgres_source::held_in(other.path(), query).await);
    world.launch(ITEMS, "").assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_inside_a_transaction_however_it_is_sent() {
    if !available("postgres") {
        return;
    }
    let mut world = world(TABLE).await;
    let sent = |how: &str| format!(", streaming: \"{how}\"");
    world.launch(ITEMS, "").run_until_caught_up().await;
    let slot = world.url.rsplit('/').next().unwrap().to_owned();
    for (n, (first, then)) in [("on", "off"), ("off", "on"), ("on", "on")].into_iter().enumerate() {
        world
            .run(&format!(
                "INSERT INTO items SELECT n, {n}, repeat('b', 100) FROM generate_series({0}000000, {0}030000) n; ",
                n + 1
            ))
            .await;
        world.run("UPDATE items SET n = n + 10").await;
        // The second epoch ends inside a transaction, and there the process dies.
        let mut broken = world.launch_small(ITEMS, &sent(first)).failpoints("log.put.after=1*off->return(kill)").run();
        assert!(!broken.exit(LIMIT).await.success());
        world.until_idle(&slot).await;
        let launch = world.launch_small(ITEMS, &sent(then));
        launch.run_until_caught_up().await;
        assert_eq!(world.held(SUMS).await, world.there(SUMS).await, "{first}, then {then}");
        let accounts = launch.status();
        assert_eq!(accounts["account"]["imbalance"], serde_json::Value::Null, "{accounts}");
    }
    world.launch_small(ITEMS, "").assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_keeps_and_while_it_hands_out_it_loses_and_doubles_nothing() {
    if !available("postgres") {
        return;
    }
    let mut world = world(TABLE).await;
    let spool = tempfile::tempdir().unwrap();
    let more = format!(", spool: \"{}\"", spool.path().display());
    let launch = world.launch(ITEMS, &more);
    launch.run_until_caught_up().await;
    for failpoint in ["postgres.running.segment=20*off->return(kill)", "postgres.running.hand_out=1*off->return(kill)"]
    {
        world.run("INSERT INTO items SELECT n, n, repeat('c', 200) FROM generate_series(1, 20000) n").await;
        world.run("UPDATE items SET n = n + 1; DELETE FROM items WHERE id % 3 = 1").await;
        let mut broken = launch.clone().failpoints(failpoint).run();
        assert!(!broken.exit(LIMIT).await.success(), "{failpoint}\n{}", broken.log_tail());
        assert!(broken.log().contains("failpoint postgres.running"), "{failpoint}");
        assert_eq!(std::fs::read_dir(spool.path()).unwrap().count(), 0, "something is left after {failpoint}");
        ends_equal(&launch, &mut world).await;
        world.run("TRUNCATE items").await;
        ends_equal(&launch, &mut world).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_into_the_spool_the_server_keeps() {
    if !available("postgres") {
        return;
    }
    let mut world = world(TABLE).await;
    let launch = world.launch(ITEMS, ", max_spool: 1MiB");
    let mut process = goes_on(&launch).await;
    let (mut small, mut large) = (another(&world).await, another(&world).await);
    run(&mut small, "BEGIN; INSERT INTO items SELECT n, 1, 'small' FROM generate_series(500001, 503000) n").await;
    run(&mut large, "BEGIN; INSERT INTO items SELECT n, 2, repeat('l', 100) FROM generate_series(1, 30000) n").await;
    process.wait_for_log("cannot be kept", LIMIT).await;
    run(&mut large, "UPDATE items SET n = 3; COMMIT").await;
    run(&mut small, "COMMIT").await;
    ends_equal_while(&mut process, &mut world, SUMS).await;
    process.stop().await;
    ends_equal(&launch, &mut world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_transaction_arrives_when_it_is_committed() {
    if !available("postgres") {
        return;
    }
    let server = Server::start(Version::Debian, &["max_prepared_transactions=5", "logical_decoding_work_mem=64kB"]);
    let mut world = World::at(server.database().await, TABLE).await;
    let launch = world.launch(ITEMS, "");
    let mut process = goes_on(&launch).await;
    for (name, from, count) in [("small", 1, 5), ("large", 1000, 5000), ("gone", 100_000, 5000)] {
        let to = from + count - 1;
        world
            .run(&format!(
                "BEGIN; INSERT INTO items SELECT n, 1, repeat('p', 50) FROM generate_series({from}, {to}) n; \
                 PREPARE TRANSACTION '{name}'"
            ))
            .await;
    }
    until_kept(&process, 100_000.0).await;
    assert_eq!(world.held("SELECT CAST(count(*) AS text) FROM items").await, ["1"], "it is not committed");
    world.run("COMMIT PREPARED 'large'").await;
    world.run("ROLLBACK PREPARED 'gone'").await;
    world.run("COMMIT PREPARED 'small'").await;
    ends_equal_while(&mut process, &mut world, SUMS).await;
    assert_eq!(world.held("SELECT CAST(count(*) AS text) FROM items").await, ["5006"]);
    process.stop().await;
    ends_equal(&launch, &mut world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_rows_in_one_running_transaction_take_bounded_memory() {
    if !available("postgres") {
        return;
    }
    let mut world = world(TABLE).await;
    let epoch = "every: 200ms, max_bytes: 4MiB }\nlimits: { inflight_bytes: 8MiB, unit_bytes: 16MiB";
    let launch = world.launch_epochs(ITEMS, ", max_transaction: 4MiB", epoch);
    let mut process = goes_on(&launch).await;
    let mut large = another(&world).await;
    let sql = "BEGIN; INSERT INTO items SELECT n, n % 100, repeat('m', 760) FROM generate_series(1, 1000000) n; \
               SAVEPOINT s; UPDATE items SET n = 0 WHERE id < 1000; ROLLBACK TO s";
    run(&mut large, sql).await;
    until_kept(&process, 755e6).await;
    let keeping = process.peak_mib();
    run(&mut large, "COMMIT").await;
    ends_equal_while(&mut process, &mut world, SUMS).await;
    let peak = process.peak_mib();
    println!("peak memory: {keeping} MiB while it is kept, {peak} MiB in all");
    // More than three times that came of it.
    assert!(keeping < 240, "{keeping} MiB while it is kept");
    assert!(peak < 240, "{peak} MiB");
    process.stop().await;
}

/// GIVEN transactions with a long document each, with `streaming` and without, WHEN they wait to be read, THEN an epoch ends
/// between two of them when it has its bytes: what one is in was handed out in the middle of it, and its end has to be told.
#[tokio::test(flavor = "multi_thread")]
async fn transactions_of_a_document_each_do_not_wait_for_one_another() {
    if !available("postgres") {
        return;
    }
    for more in ["", ", streaming: off"] {
        let mut world = world(TABLE).await;
        let launch = world.launch_epochs(ITEMS, more, "every: 60s, max_bytes: 4MiB");
        launch.run_until_caught_up().await;
        for n in 1..=DOCUMENTS {
            world.run(&format!("INSERT INTO items VALUES ({n}, {n}, repeat(md5('{n}'), 65536))")).await;
        }
        launch.run_until_caught_up().await;
        assert_eq!(world.held(SUMS).await, world.there(SUMS).await);
        let rows = LogReader::folder(&world.path().join("lake")).await.written_at_once("items");
        assert!(rows.iter().all(|rows| *rows <= 4), "rows of each epoch: {rows:?}");
        assert_eq!(rows.iter().sum::<u64>(), 1 + DOCUMENTS);
    }
}

/// GIVEN an epoch that ended inside a transaction, WHEN the source is opened again and the server, which has to read all of
/// that transaction first, says meanwhile how far it is, THEN what the lake has of it does not come twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_sign_of_life_in_front_of_a_transaction_that_was_begun_does_not_bring_it_twice() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new(
        "CREATE TABLE items (id int PRIMARY KEY, n int, t text); CREATE TABLE notes (n int, t text); \
         ALTER TABLE notes REPLICA IDENTITY FULL",
    )
    .await;
    let tables = "{ notes: { from: public.notes, key: [] } }";
    let launch = world.launch_small(tables, ", streaming: off, heartbeat: 0s");
    launch.run_until_caught_up().await;
    world
        .run(
            "BEGIN; INSERT INTO notes SELECT n, repeat('a', 100) FROM generate_series(1, 30000) n; \
             INSERT INTO items SELECT n, n, repeat('b', 200) FROM generate_series(1, 1500000) n; COMMIT",
        )
        .await;
    let mut broken = launch.clone().failpoints("log.put.after=1*off->return(kill)").run();
    assert!(!broken.exit(LIMIT).await.success());
    launch.run_until_caught_up().await;
    assert!(launch.whole_log().contains("larger than max_transaction"));
    assert_eq!(world.held("SELECT CAST(count(*) AS text) FROM notes").await, ["30000"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_server_sends_generated_columns_and_leaves_other_origins_out_in_running_transactions_too() {
    if !available(Version::Newest.component()) {
        return;
    }
    let url = newest().database().await;
    let database = url.rsplit('/').next().unwrap().to_owned();
    let setup = "CREATE TABLE items (id int PRIMARY KEY, n int, t text, twice int GENERATED ALWAYS AS (n * 2) STORED); \
                 INSERT INTO items VALUES (1, 1, ''); CREATE PUBLICATION p FOR TABLE items \
                 WITH (publish_via_partition_root = true, publish_generated_columns = stored)";
    let mut world = World::at(url, setup).await;
    world.run(&format!("ALTER DATABASE {database} SET logical_decoding_work_mem = '64kB'")).await;
    let launch = world.launch(ITEMS, ", origin: none");
    let mut process = goes_on(&launch).await;
    let mut elsewhere = another(&world).await;
    run(&mut elsewhere, &format!("SELECT pg_replication_origin_create('{database}')")).await;
    run(&mut elsewhere, &format!("SELECT pg_replication_origin_session_setup('{database}')")).await;
    run(&mut elsewhere, "INSERT INTO items SELECT n, 0, repeat('e', 50) FROM generate_series(900001, 905000) n").await;
    let mut here = another(&world).await;
    run(
        &mut here,
        "BEGIN; INSERT INTO items SELECT n, n, repeat('h', 50) FROM generate_series(2, 5000) n; SAVEPOINT s; \
         UPDATE items SET n = 0; ROLLBACK TO s; UPDATE items SET n = n + 1 WHERE id < 1000",
    )
    .await;
    until_kept(&process, 100_000.0).await;
    run(&mut here, "COMMIT").await;
    let query =
        "SELECT CAST(count(*) AS text), CAST(sum(n) AS text), CAST(sum(twice) AS text) FROM items WHERE id < 900000";
    ends_equal_while(&mut process, &mut world, query).await;
    process.stop().await;
    assert_eq!(world.held("SELECT CAST(count(*) AS text) FROM items").await, ["5000"], "other origins are left out");
    assert_eq!(table(&launch.status(), "items")["rejects_open"], 0);
}
