//! Reading the rows that are there against a real PostgreSQL: at first, again, and for tables that join.

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, SqliteConnection};

use crate::postgres_source::World;
use crate::support::oracle::LogReader;
use crate::support::process::{LIMIT, Running, available, table};

const ITEMS: &str = "{ items: { from: public.items } }";
const HELD: &str = "SELECT CAST(id AS text), name FROM items ORDER BY id";

/// Writes into the warehouse behind the program's back.
async fn spoil(world: &World, sql: &str) {
    let options = SqliteConnectOptions::new().filename(world.path().join("w.db"));
    let mut warehouse = SqliteConnection::connect_with(&options).await.unwrap();
    warehouse.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
}

/// Both sides must give the same rows; shows the first that only one of them has.
#[track_caller]
fn assert_same(held: &[String], there: &[String], what: &str) {
    let only = |some: &[String], others: &[String]| {
        let others: std::collections::BTreeSet<&String> = others.iter().collect();
        let only = some.iter().filter(|row| !others.contains(row));
        only.take(5).map(|row| row.chars().take(60).collect::<String>()).collect::<Vec<_>>()
    };
    let (too_much, missing) = (only(held, there), only(there, held));
    let same = too_much.is_empty() && missing.is_empty() && held.len() == there.len();
    assert!(same, "{what}: {} and {} rows, too much {too_much:?}, missing {missing:?}", held.len(), there.len());
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

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_somebody_dropped_is_parked_until_it_is_read_again() {
    if !available("postgres") {
        return;
    }
    let setup = "CREATE TABLE items (id int PRIMARY KEY, name text); INSERT INTO items VALUES (1, 'one'), (2, 'two')";
    let mut world = World::new(setup).await;
    let launch = world.launch(ITEMS, "");
    launch.run_until_caught_up().await;
    let parked = |status: &serde_json::Value| table(status, "items")["state"] == "parked";
    let resync = |launch: &crate::support::process::Launch| {
        for action in ["resync", "resume"] {
            assert!(launch.other(&["table", action], &["items"]).status.success(), "{action}");
        }
    };
    // While nobody runs: nothing is made in its place.
    spoil(&world, "DROP TABLE items").await;
    world.run("INSERT INTO items VALUES (3, 'three')").await;
    let mut process = launch.run();
    let status = process.wait_for("items is parked", LIMIT, parked).await;
    let why = table(&status, "items").to_string();
    assert!(why.contains("not there any more"), "{why}");
    process.stop().await;
    assert_eq!(world.held("SELECT name FROM sqlite_schema WHERE name = 'items'").await, [""; 0]);
    resync(&launch);
    launch.run_until_caught_up().await;
    assert_eq!(world.held(HELD).await, ["1|one", "2|two", "3|three"]);
    // While it is loaded.
    let mut process = launch.run();
    process.wait_for("a status", LIMIT, |status| status["ready"] == true).await;
    world.run("INSERT INTO items VALUES (4, 'four')").await;
    until_held(&world, &mut process, HELD, &["1|one", "2|two", "3|three", "4|four"]).await;
    spoil(&world, "DROP TABLE items").await;
    world.run("DELETE FROM items WHERE id = 1").await;
    process.wait_for("items is parked", LIMIT, parked).await;
    resync(&launch);
    until_held(&world, &mut process, "SELECT name FROM sqlite_schema WHERE name = 'items'", &["items"]).await;
    until_held(&world, &mut process, HELD, &["2|two", "3|three", "4|four"]).await;
    process.stop().await;
}

/// Small parts, so that a table has many.
fn parts(rows: u32, parallel: u32) -> String {
    format!(", snapshot: {{ chunk_rows: {rows}, parallel: {parallel} }}")
}

/// Types of keys, each with values that order, quote or print in their own way.
const KEYS: [(&str, &str); 12] = [
    ("smallint", "(-32768), (0), (32767)"),
    ("bigint", "(-9223372036854775808), (5), (9223372036854775807)"),
    ("text", "(''), ('a''b'), ('B'), ('\\\\'), ('é')"),
    ("varchar(5)", "('x'), ('xy'), ('z ')"),
    ("char(3)", "('a'), ('ab'), ('b')"),
    ("numeric", "(-1.50), (0), (99999999999999999999.25)"),
    ("uuid", "('00000000-0000-0000-0000-000000000001'), ('ffffffff-0000-0000-0000-000000000000')"),
    ("date", "('0001-01-01'), ('2024-02-29'), ('9999-12-31')"),
    ("timestamptz", "('2001-02-03 04:05:06.7+02'), ('2001-02-03 04:05:06.70001+02')"),
    ("boolean", "(false), (true)"),
    ("mood", "('sad'), ('ok'), ('high')"),
    ("cents", "(1), (2.5), (10)"),
];

/// Keys of several columns, of an index, of partitions, and none; and no rows.
const TABLES: &str = "CREATE TABLE pairs (b text, a int, n int, PRIMARY KEY (b, a) INCLUDE (n)); \
     INSERT INTO pairs SELECT 'b' || (n % 3), n, n FROM generate_series(1, 20) n; \
     CREATE TABLE other (id int PRIMARY KEY, u text NOT NULL UNIQUE); ALTER TABLE other REPLICA IDENTITY USING INDEX other_u_key; \
     INSERT INTO other SELECT n, 'u' || n FROM generate_series(1, 9) n; \
     CREATE TABLE parted (id int PRIMARY KEY, n int) PARTITION BY RANGE (id); \
     CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10); \
     CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (10) TO (30); \
     INSERT INTO parted SELECT n, n FROM generate_series(0, 25) n; \
     CREATE TABLE keyless (n int, t text); ALTER TABLE keyless REPLICA IDENTITY FULL; \
     INSERT INTO keyless SELECT n / 2, NULL FROM generate_series(1, 7) n; \
     CREATE TABLE empty (id int PRIMARY KEY, t text)";

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_read_part_by_part_whatever_its_key() {
    if !available("postgres") {
        return;
    }
    let mut setup = "CREATE TYPE mood AS ENUM ('sad', 'ok', 'high'); CREATE DOMAIN cents AS numeric(10,2); ".to_owned();
    let mut tables = Vec::new();
    for (number, (kind, values)) in KEYS.iter().enumerate() {
        setup.push_str(&format!(
            "CREATE TABLE t{number} (k {kind} PRIMARY KEY); INSERT INTO t{number} VALUES {values}; "
        ));
        tables.push(format!("t{number}: {{ from: public.t{number} }}"));
    }
    setup.push_str(TABLES);
    let more = ["pairs", "other", "parted", "empty"].map(|name| format!("{name}: {{ from: public.{name} }}"));
    tables.extend(more);
    tables.push("keyless: { from: public.keyless, key: [] }".to_owned());
    let mut world = World::new(&setup).await;
    let launch = world.launch(&format!("{{ {} }}", tables.join(", ")), &parts(2, 3));
    launch.run_until_caught_up().await;
    let check = async |world: &mut World| {
        for (number, (kind, _)) in KEYS.iter().enumerate() {
            let count = format!("SELECT CAST(count(*) AS text) FROM t{number}");
            assert_same(&world.held(&count).await, &world.there(&count).await, kind);
        }
        for (table, columns) in [("pairs", "b, a, n"), ("other", "u, id"), ("parted", "id, n"), ("keyless", "n, t")] {
            let columns: Vec<String> = columns.split(", ").map(|c| format!("CAST({c} AS text)")).collect();
            let query = format!("SELECT {} FROM {table} ORDER BY 1, 2", columns.join(", "));
            assert_same(&world.held(&query).await, &world.there(&query).await, "rows");
        }
    };
    check(&mut world).await;
    // And once more, all of them beside the stream, over rows that somebody has spoiled.
    spoil(
        &world,
        "UPDATE pairs SET n = 0; DELETE FROM other WHERE id < 5; UPDATE parted SET n = -1; DELETE FROM keyless",
    )
    .await;
    let all: Vec<String> = (0..KEYS.len()).map(|n| format!("t{n}")).collect();
    for table in all.iter().map(String::as_str).chain(["pairs", "other", "parted", "keyless"]) {
        spoil(&world, &format!("DELETE FROM {table} WHERE rowid = 1")).await;
        let ordered = launch.other(&["table", "resync"], &[table]);
        assert!(ordered.status.success(), "{ordered:?}");
    }
    launch.run_until_caught_up().await;
    check(&mut world).await;
    let status = launch.status();
    for table in status["tables"].as_array().unwrap() {
        assert_eq!((&table["rejects_open"], &table["incomplete_open"]), (&0.into(), &0.into()), "{table}");
    }
    // Nothing can be said of a table that the log knows nothing of.
    world.run("INSERT INTO empty VALUES (1, 'not any more')").await;
    launch.run_until_caught_up().await;
    launch.assert_equal();
}

/// Everything that rows hold, in both kinds of SQL.
const ALL: &str = "SELECT CAST(id AS text), CAST(n AS text), t, big FROM items ORDER BY id";

/// Rows with large values that updates leave out.
const LARGE: &str = "CREATE TABLE items (id int PRIMARY KEY, n int, t text, big text); \
    ALTER TABLE items ALTER big SET STORAGE EXTERNAL; \
    INSERT INTO items SELECT n, n, 't' || n, repeat(chr(97 + n % 26), 2500) FROM generate_series(1, 3000) n";

/// Inserts, partial and whole updates, deletes, keys that come back, and moves with what is large left out: across what is
/// read already and what is not.
async fn write_everything(url: String, begin: u32, stop: tokio_util::sync::CancellationToken) {
    let mut conn = sqlx::PgConnection::connect(&url).await.unwrap();
    let mut turn = begin;
    while !stop.is_cancelled() {
        turn += 1;
        let id = |step: u32| (turn.wrapping_mul(7919) + step * 613) % 3000 + 1;
        let sql = format!(
            "BEGIN; UPDATE items SET n = n + 1 WHERE id IN ({}, {}); UPDATE items SET big = repeat('x', {}) WHERE id = {}; \
             DELETE FROM items WHERE id = {}; INSERT INTO items VALUES ({}, {turn}, 'back', repeat('y', 2600)) ON CONFLICT DO NOTHING; \
             UPDATE items SET id = 10000 + {turn} WHERE id = {}; \
             UPDATE items SET id = -{turn} WHERE id = {}; UPDATE items SET id = {} WHERE id = 10000 + {turn} - 3 \
             AND NOT EXISTS (SELECT 1 FROM items WHERE id = {}); COMMIT",
            id(0),
            id(1),
            2600 + turn % 100,
            id(2),
            id(3),
            id(4),
            id(5),
            id(6),
            id(7),
            id(7),
        );
        conn.execute(AssertSqlSafe(sql)).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_that_is_killed_everywhere_under_load_ends_equal_to_the_source() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new(LARGE).await;
    let launch = world.launch(ITEMS, &parts(150, 2));
    let stop = tokio_util::sync::CancellationToken::new();
    let writer = tokio::spawn(write_everything(world.url.clone(), 0, stop.clone()));
    let die = async |failpoints: &str| {
        let mut process = launch.clone().failpoints(failpoints).run();
        assert!(!process.exit(LIMIT).await.success(), "{failpoints}");
    };
    // First while the tables are read as of one place, with some of it in the lake; then beside the stream.
    die("postgres.snapshot.piece=4*sleep(250)->return(kill)").await;
    let half = launch.status();
    let read = table(&half, "items")["reading"]["rows"].as_u64().unwrap_or(0);
    assert!(read > 0, "a part is in the lake: {half}");
    for round in 0..4 {
        die(&format!("postgres.chunk.before={}*sleep(60)->return(kill)", 1 + round % 2)).await;
        die(&format!("postgres.chunk.after={}*sleep(60)->return(kill)", 1 + round / 4)).await;
    }
    for wait_ms in [350, 600, 450] {
        let mut process = launch.clone().failpoints("postgres.chunk.after=sleep(40)").run();
        tokio::time::sleep(std::time::Duration::from_millis(wait_ms)).await;
        process.kill();
    }
    let mut process = launch.clone().failpoints("postgres.chunk.after=sleep(20)").run();
    process
        .wait_for("all rows", LIMIT, |status| {
            let items = table(status, "items");
            items["reading"].is_null() && items["log_epoch"].as_u64() > Some(0)
        })
        .await;
    process.kill();
    stop.cancel();
    writer.await.unwrap();
    launch.run_until_caught_up().await;
    assert_same(&world.held(ALL).await, &world.there(ALL).await, "rows");
    let status = launch.status();
    assert_eq!(table(&status, "items")["rejects_open"], 0);
    assert_eq!(status["account"]["imbalance"], serde_json::Value::Null);
    // Read again under the same load, and killed as well.
    let stop = tokio_util::sync::CancellationToken::new();
    let writer = tokio::spawn(write_everything(world.url.clone(), 100_000, stop.clone()));
    spoil(&world, "UPDATE items SET t = 'wrong' WHERE id % 2 = 0; DELETE FROM items WHERE id % 5 = 0").await;
    spoil(&world, "INSERT INTO items SELECT 900000, n, t, big, _seq, _synced_at FROM items LIMIT 1").await;
    assert!(launch.other(&["table", "resync"], &["items"]).status.success());
    for round in 0..3 {
        die(&format!("postgres.chunk.after={}*sleep(60)->return(kill)", 1 + round)).await;
    }
    stop.cancel();
    writer.await.unwrap();
    launch.run_until_caught_up().await;
    assert_same(&world.held(ALL).await, &world.there(ALL).await, "rows");
    launch.assert_equal();
}

/// What was in the lake before the crash is not read again: in all no more than the rows, and a part for each reader.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_costs_a_part_of_the_rows_and_no_more() {
    const ROWS: u64 = 3000;
    if !available("postgres") {
        return;
    }
    let mut world = World::new(LARGE).await;
    let launch = world.launch(ITEMS, &parts(150, 2));
    let written =
        async || LogReader::folder(&world.path().join("lake")).await.written().get("items").copied().unwrap_or(0);
    let mut before = 0;
    // It dies with its third epoch, which comes before so many parts that take so long.
    for slow in ["postgres.snapshot.piece", "postgres.chunk.after"] {
        let failpoints = format!("{slow}=sleep(300);log.put.after=2*off->return(kill)");
        let mut process = launch.clone().failpoints(&failpoints).run();
        assert!(!process.exit(LIMIT).await.success(), "{failpoints}");
        let (read, lake) = (table(&launch.status(), "items")["reading"]["rows"].as_u64(), written().await);
        assert!(lake > before && lake < ROWS, "{failpoints}: {lake} rows in the lake, {before} before");
        assert_eq!(read, Some(lake), "{failpoints}: the place and the rows are in one epoch");
        before = lake;
    }
    launch.run_until_caught_up().await;
    let in_all = written().await;
    assert!(
        (ROWS..=ROWS + 2 * 150).contains(&in_all),
        "{in_all} rows were written of {ROWS}, {before} before the last start"
    );
    assert_same(&world.held(ALL).await, &world.there(ALL).await, "rows");
    launch.assert_equal();
}

/// Nobody has counted its rows: statistics come with ANALYZE. How far it is is shown all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_nobody_has_counted_shows_how_far_it_is() {
    if !available("postgres") {
        return;
    }
    let setup = |name: &str| {
        format!(
            "CREATE TABLE {name} (id int PRIMARY KEY, t text) WITH (autovacuum_enabled = off); \
             INSERT INTO {name} SELECT n, repeat('b', 100) FROM generate_series(1, 30000) n"
        )
    };
    let mut world = World::new(&setup("items")).await;
    let uncounted = "SELECT CAST(reltuples AS text) FROM pg_class WHERE relname IN ('items', 'big')";
    assert_eq!(world.there(uncounted).await, ["-1"]);
    let near = |of: Option<u64>| of.is_some_and(|of| (18_000..45_000).contains(&of));
    // At first.
    let reading = |status: &serde_json::Value, name: &str| table(status, name)["reading"]["of"].as_u64();
    let mut process = world.launch(ITEMS, &parts(500, 1)).failpoints("postgres.snapshot.piece=sleep(150)").run();
    let begun = |status: &serde_json::Value| table(status, "items")["reading"]["rows"].as_u64() > Some(0);
    let status = process.wait_for("a part of it", LIMIT, begun).await;
    assert!(near(reading(&status, "items")), "{status:#}");
    process.kill();
    world.launch(ITEMS, "").run_until_caught_up().await;
    // And when it joins.
    world.run(&setup("big")).await;
    let both = "{ items: { from: public.items }, big: { from: public.big } }";
    let mut process = world.launch(both, &parts(500, 1)).failpoints("postgres.chunk.before=sleep(150)").run();
    let begun = |status: &serde_json::Value| table(status, "big")["reading"]["rows"].as_u64() > Some(0);
    let status = process.wait_for("a part of it", LIMIT, begun).await;
    assert!(near(reading(&status, "big")), "{status:#}");
    assert_eq!(world.there(uncounted).await, ["-1", "-1"]);
    process.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_changes_of_others_go_on_while_a_large_table_joins() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new(
        "CREATE TABLE items (id int PRIMARY KEY, name text); INSERT INTO items VALUES (1, 'one'); \
         CREATE TABLE big (id int PRIMARY KEY, t text); \
         INSERT INTO big SELECT n, repeat('b', 100) FROM generate_series(1, 4000) n; ANALYZE big",
    )
    .await;
    world.launch(ITEMS, "").run_until_caught_up().await;
    let both = "{ items: { from: public.items }, big: { from: public.big } }";
    let launch = world.launch(both, &parts(100, 2)).failpoints("postgres.chunk.before=sleep(150)");
    let mut process = launch.run();
    let begun = |status: &serde_json::Value| table(status, "big")["reading"]["rows"].as_u64() > Some(0);
    let status = process.wait_for("a part of it", LIMIT, begun).await;
    assert_eq!(table(&status, "big")["reading"]["of"], 4000, "{status}");
    world.run("INSERT INTO items VALUES (2, 'two'); UPDATE items SET name = 'uno' WHERE id = 1").await;
    world.run("INSERT INTO big VALUES (9000, 'new'); DELETE FROM big WHERE id IN (1, 3999); UPDATE big SET id = -5 WHERE id = 5").await;
    until_held(&world, &mut process, HELD, &["1|uno", "2|two"]).await;
    let status = process.status().await.unwrap();
    assert!(!table(&status, "big")["reading"].is_null(), "it is still being read: {status}");
    let said = launch.other(&["status"], &[]);
    assert!(String::from_utf8_lossy(&said.stdout).contains("reading "), "{said:?}");
    assert!(process.page("/metrics").await.unwrap().contains("dataflow_snapshot_rows{table=\"big\"}"));
    process.stop().await;
    world.launch(both, "").run_until_caught_up().await;
    let all = "SELECT CAST(id AS text), t FROM big ORDER BY id";
    assert_same(&world.held(all).await, &world.there(all).await, "rows");
    world.launch(both, "").assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_less_while_a_table_is_read_again() {
    if !available("postgres") {
        return;
    }
    let world = World::new(
        "CREATE TABLE items (id int PRIMARY KEY, name text); INSERT INTO items SELECT n, 'n' || n FROM generate_series(1, 2000) n",
    )
    .await;
    let launch = world.launch(ITEMS, &parts(100, 1)).failpoints("postgres.chunk.after=sleep(30)");
    launch.run_until_caught_up().await;
    spoil(&world, "INSERT INTO items SELECT 5000 + id, 'too much', _seq, _synced_at FROM items WHERE id <= 10").await;
    let mut process = launch.run();
    process.wait_for("a status", LIMIT, |status| status["ready"] == true).await;
    assert!(launch.other(&["table", "resync"], &["items"]).status.success());
    let count = "SELECT CAST(count(*) AS text) FROM items";
    let mut counts = std::collections::BTreeSet::new();
    while !counts.contains(&2000) {
        counts.insert(world.held(count).await[0].parse::<u32>().unwrap());
        assert!(!process.has_ended(), "{}", process.log_tail());
    }
    process.stop().await;
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), [2000, 2010]);
    launch.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_change_while_a_table_is_read_make_it_begin_again() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new(
        "CREATE TABLE items (id int PRIMARY KEY, name text, gone int); \
         INSERT INTO items SELECT n, 'n' || n, n FROM generate_series(1, 1000) n",
    )
    .await;
    let launch = world.launch("{ items: { from: public.items, on_mismatch: ignore } }", &parts(100, 1));
    launch.run_until_caught_up().await;
    assert!(launch.other(&["table", "resync"], &["items"]).status.success());
    let slow = launch.clone().failpoints("postgres.chunk.before=sleep(100)");
    let mut process = slow.run();
    let begun = |status: &serde_json::Value| table(status, "items")["reading"]["rows"].as_u64() > Some(100);
    process.wait_for("a part of it", LIMIT, begun).await;
    world
        .run(
            "UPDATE items SET name = 'before' WHERE id = 999; ALTER TABLE items ADD more int DEFAULT 7, DROP gone; \
             UPDATE items SET name = 'after' WHERE id = 2; INSERT INTO items VALUES (2000, 'new', 8)",
        )
        .await;
    // The stream or the next part notices it, whichever comes first.
    process.wait_for_log("its rows are read from the first on", LIMIT).await;
    process.kill();
    launch.run_until_caught_up().await;
    let all = "SELECT CAST(id AS text), name, CAST(more AS text) FROM items ORDER BY id";
    assert_same(&world.held(all).await, &world.there(all).await, "rows");
    assert_eq!(table(&launch.status(), "items")["rejects_open"], 0);
    launch.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_read_at_once_at_first() {
    if !available("postgres") {
        return;
    }
    let rows = "(id int PRIMARY KEY, t text); INSERT INTO";
    let mut world = World::new(&format!(
        "CREATE TABLE items {rows} items SELECT n, repeat('a', 1000) FROM generate_series(1, 9000) n; \
         CREATE TABLE other {rows} other SELECT n, repeat('b', 1000) FROM generate_series(1, 9000) n"
    ))
    .await;
    let both = "{ items: { from: public.items }, other: { from: public.other } }";
    let launch = world.launch(both, &parts(1000, 2)).failpoints("postgres.snapshot.piece=sleep(20)");
    launch.run_until_caught_up().await;
    let log = launch.whole_log();
    let said: Vec<&str> = log.lines().filter(|line| line.contains("the rows that are there")).collect();
    let begun = said.iter().take_while(|line| line.contains("reading the rows")).count();
    assert_eq!((begun, said.len()), (2, 4), "{said:#?}");
    for name in ["items", "other"] {
        let sums = format!("SELECT CAST(count(*) AS text), CAST(sum(length(t)) AS text) FROM {name}");
        assert_same(&world.held(&sums).await, &world.there(&sums).await, "rows");
    }
    launch.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_row_takes_the_same_way() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new(
        "CREATE TABLE items (id int PRIMARY KEY, t text); INSERT INTO items SELECT n, repeat(md5(n::text), 400000) FROM generate_series(1, 3) n; \
         INSERT INTO items VALUES (4, 'small')",
    )
    .await;
    let launch = world.launch(ITEMS, ", snapshot: { chunk_bytes: 1MiB }");
    launch.run_until_caught_up().await;
    let sums = "SELECT CAST(id AS text), CAST(length(t) AS text), substr(t, 12799990, 20) FROM items ORDER BY id";
    assert_same(&world.held(sums).await, &world.there(sums).await, "rows");
    assert!(launch.other(&["table", "resync"], &["items"]).status.success());
    launch.run_until_caught_up().await;
    assert_same(&world.held(sums).await, &world.there(sums).await, "rows");
    launch.assert_equal();
}
