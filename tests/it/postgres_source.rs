//! The PostgreSQL source against a real server: snapshot, stream, restarts, what is lost.

use std::path::Path;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row, SqliteConnection, ValueRef};

use crate::support::postgres::server;
use crate::support::process::{LIMIT, Launch, available, table};

pub(crate) mod types;

/// A database of the shared server, and a topology that reads it into SQLite.
pub struct World {
    folder: tempfile::TempDir,
    pub url: String,
    pub source: PgConnection,
}

impl World {
    pub async fn new(setup: &str) -> Self {
        Self::at(server().database().await, setup).await
    }

    /// The same in a database that is there.
    pub async fn at(url: String, setup: &str) -> Self {
        let mut source = PgConnection::connect(&url).await.unwrap();
        // What a test has written is on the server's disk, where a slot can read it.
        source.execute("SET synchronous_commit = on").await.unwrap();
        source.execute(AssertSqlSafe(setup.to_owned())).await.unwrap();
        Self { folder: tempfile::tempdir().unwrap(), url, source }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The topology: `tables` is YAML below `tables:`, `more` stands inside the source.
    pub fn launch(&self, tables: &str, more: &str) -> Launch {
        self.launch_epochs(tables, more, "every: 200ms")
    }

    /// The same where an epoch ends with every MiB, also inside of a transaction: however quick or slow the machine is,
    /// what is larger takes several.
    pub fn launch_small(&self, tables: &str, more: &str) -> Launch {
        let more = format!(", max_transaction: 1MiB{more}");
        self.launch_epochs(tables, &more, "every: 200ms, max_bytes: 1MiB")
    }

    pub fn launch_epochs(&self, tables: &str, more: &str, epoch: &str) -> Launch {
        // Names of slots are the server's, not the database's.
        let name = self.url.rsplit('/').next().unwrap();
        let topology = format!(
            "version: 1\nname: pg\nsources:\n  shop: {{ kind: postgres, url: \"{}?sslmode=disable\", slot: {name}, \
             publication: p{more} }}\ntables: {tables}\nlake: {{ url: ./lake }}\nwarehouse: {{ kind: sqlite, path: w.db }}\n\
             epoch: {{ {epoch} }}\n",
            self.url
        );
        Launch::new(self.path(), &topology)
    }

    pub async fn run(&mut self, sql: &str) {
        self.source.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
    }

    /// Waits until nobody reads the slot any more: the server notices the end of a process a little later.
    pub async fn until_idle(&mut self, slot: &str) {
        let query = format!("SELECT CAST(active AS text) FROM pg_replication_slots WHERE slot_name = '{slot}'");
        while self.there(&query).await == ["true"] {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// What the warehouse holds: every value of the named columns as text.
    pub async fn held(&self, query: &str) -> Vec<String> {
        held_in(self.path(), query).await
    }

    /// The same of the source.
    pub async fn there(&mut self, query: &str) -> Vec<String> {
        let rows = self.source.fetch_all(AssertSqlSafe(query.to_owned())).await.unwrap();
        let value =
            |row: &sqlx::postgres::PgRow, at: usize| row.get::<Option<String>, _>(at).unwrap_or_else(|| "∅".to_owned());
        rows.iter().map(|row| (0..row.columns().len()).map(|at| value(row, at)).collect::<Vec<_>>().join("|")).collect()
    }
}

async fn warehouse(folder: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(folder.join("w.db")).read_only(true);
    SqliteConnection::connect_with(&options).await.unwrap()
}

/// What the warehouse in that folder holds: every value of the named columns as text.
pub async fn held_in(folder: &Path, query: &str) -> Vec<String> {
    let rows = warehouse(folder).await.fetch_all(AssertSqlSafe(query.to_owned())).await.unwrap();
    let value = |row: &sqlx::sqlite::SqliteRow, at: usize| {
        if row.try_get_raw(at).unwrap().is_null() { "∅".to_owned() } else { row.get::<String, _>(at) }
    };
    rows.iter().map(|row| (0..row.columns().len()).map(|at| value(row, at)).collect::<Vec<_>>().join("|")).collect()
}

pub const ITEMS: &str = "{ items: { from: public.items } }";

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_there_and_changes_after_them_arrive_once() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new(
        "CREATE TABLE items (id int PRIMARY KEY, name text, price numeric(8,2)); \
         INSERT INTO items VALUES (1, 'one', 1.50), (2, 'two', NULL), (3, E'tab\\there \\\\ \\'quote', 3)",
    )
    .await;
    let launch = world.launch(ITEMS, "");
    launch.run_until_caught_up().await;
    let query = "SELECT CAST(id AS text), name, CAST(price AS text) FROM items ORDER BY id";
    assert_eq!(world.held(query).await, ["1|one|1.50", "2|two|∅", "3|tab\there \\ 'quote|3.00"]);
    world
        .run(
            "INSERT INTO items VALUES (4, 'four', 4); UPDATE items SET price = 2.25 WHERE id = 2; \
             DELETE FROM items WHERE id = 1; UPDATE items SET id = 30 WHERE id = 3",
        )
        .await;
    launch.run_until_caught_up().await;
    assert_eq!(world.held(query).await, ["2|two|2.25", "4|four|4.00", "30|tab\there \\ 'quote|3.00"]);
    world.run("TRUNCATE items; INSERT INTO items VALUES (5, 'five', 5)").await;
    launch.run_until_caught_up().await;
    assert_eq!(world.held(query).await, ["5|five|5.00"]);
    let status = launch.status();
    assert_eq!(table(&status, "items")["rejects_open"], 0, "{status}");
    launch.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn unchanged_large_values_stay_whatever_the_replica_identity() {
    if !available("postgres") {
        return;
    }
    let mut setup = String::new();
    for (name, identity) in [("plain", ""), ("whole", "FULL"), ("indexed", "USING INDEX indexed_code")] {
        setup += &format!(
            "CREATE TABLE {name} (id int PRIMARY KEY, code int NOT NULL, note text, large text); \
             ALTER TABLE {name} ALTER large SET STORAGE EXTERNAL; CREATE UNIQUE INDEX {name}_code ON {name} (code); "
        );
        if !identity.is_empty() {
            setup += &format!("ALTER TABLE {name} REPLICA IDENTITY {identity}; ");
        }
    }
    let mut world = World::new(&setup).await;
    let tables = "{ plain: { from: public.plain }, whole: { from: public.whole }, indexed: { from: public.indexed } }";
    let launch = world.launch(tables, "");
    launch.run_until_caught_up().await;
    for name in ["plain", "whole", "indexed"] {
        world
            .run(&format!(
                "INSERT INTO {name} SELECT n, 100 + n, 'a', repeat('x' || n, 4000) FROM generate_series(1, 4) n"
            ))
            .await;
    }
    launch.run_until_caught_up().await;
    for name in ["plain", "whole", "indexed"] {
        world
            .run(&format!(
                "UPDATE {name} SET note = 'b' WHERE id = 1; UPDATE {name} SET id = 20, code = 120 WHERE id = 2; \
                 UPDATE {name} SET note = 'c', id = 30, code = 130 WHERE id = 3; DELETE FROM {name} WHERE id = 4"
            ))
            .await;
    }
    launch.run_until_caught_up().await;
    for name in ["plain", "whole", "indexed"] {
        let query = format!(
            "SELECT CAST(id AS text), CAST(code AS text), note, CAST(length(large) AS text), substr(large, 1, 2) \
             FROM {name} ORDER BY id"
        );
        let held = world.held(&query).await;
        assert_eq!(held, ["1|101|b|8000|x1", "20|120|a|8000|x2", "30|130|c|8000|x3"], "{name}");
        assert_eq!(world.there(&query.replace("public.", "")).await, held);
    }
    assert_eq!(table(&launch.status(), "plain")["rejects_open"], 0);
    launch.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_come_go_and_grow_while_it_runs() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new("CREATE TABLE items (id int PRIMARY KEY, a int, b text)").await;
    let launch = world.launch(ITEMS, "");
    launch.run_until_caught_up().await;
    world
        .run(
            "INSERT INTO items VALUES (1, 1, 'x'); ALTER TABLE items ADD c numeric(6,2); INSERT INTO items VALUES (2, 2, 'y', 2.5); \
             ALTER TABLE items DROP b; INSERT INTO items VALUES (3, 3, 3.5); ALTER TABLE items ALTER a TYPE bigint; \
             INSERT INTO items VALUES (4, 5000000000, NULL); ALTER TABLE items RENAME c TO d; INSERT INTO items VALUES (5, 5, 5.5)",
        )
        .await;
    launch.run_until_caught_up().await;
    let query = "SELECT CAST(id AS text), CAST(a AS text), b, CAST(c AS text), CAST(d AS text) FROM items ORDER BY id";
    let expected = ["1|1|x|∅|∅", "2|2|y|2.50|∅", "3|3|∅|3.50|∅", "4|5000000000|∅|∅|∅", "5|5|∅|∅|5.50"];
    assert_eq!(world.held(query).await, expected);
}

/// Counts and a hash of everything, on both sides.
pub const SUMS: &str = "SELECT CAST(count(*) AS text), CAST(sum(id) AS text), CAST(sum(n) AS text), CAST(sum(length(t)) AS text) FROM items";

/// Changes rows below `rows`, adds and deletes some and changes keys, until it is told to stop; `also` is done every time.
pub async fn write_until(url: String, rows: i64, also: &str, stop: tokio_util::sync::CancellationToken) {
    let mut conn = PgConnection::connect(&url).await.unwrap();
    let mut turn = 0;
    while !stop.is_cancelled() {
        turn += 1;
        let id = turn * 37 % rows;
        let sql = format!(
            "BEGIN; UPDATE items SET n = n + 1 WHERE id = {id}; DELETE FROM items WHERE id = {}; \
             INSERT INTO items VALUES ({}, {turn}, repeat('z', {})); UPDATE items SET id = {} WHERE id = {}; {also}; COMMIT",
            id + 1,
            100_000 + turn,
            turn % 50,
            500_000 + turn,
            id + 2
        );
        conn.execute(AssertSqlSafe(sql)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_under_load_it_ends_equal_to_the_source() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new(
        "CREATE TABLE items (id int PRIMARY KEY, n int, t text); \
         INSERT INTO items SELECT n, n, repeat('a', 100) FROM generate_series(1, 20000) n",
    )
    .await;
    let launch = world.launch(ITEMS, "");
    let stop = tokio_util::sync::CancellationToken::new();
    let writer = tokio::spawn(write_until(world.url.clone(), 20_000, "", stop.clone()));
    // The first deaths come while the rows that are there are read, the others while it streams.
    for wait_ms in [150, 400, 700, 900, 1100, 1500, 800, 1300] {
        let mut process = launch.run();
        tokio::time::sleep(std::time::Duration::from_millis(wait_ms)).await;
        process.kill();
    }
    let mut process = launch.run();
    process.wait_for("rows", LIMIT, |status| table(status, "items")["warehouse_epoch"].as_u64().unwrap_or(0) > 0).await;
    process.kill();
    stop.cancel();
    writer.await.unwrap();
    launch.run_until_caught_up().await;
    assert_eq!(world.held(SUMS).await, world.there(SUMS).await);
    launch.assert_equal();
    assert_eq!(table(&launch.status(), "items")["rejects_open"], 0);
}

/// A process that dies while it makes its slot leaves a server that goes on making it.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_still_being_made_is_waited_for() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new("CREATE TABLE items (id int PRIMARY KEY); INSERT INTO items VALUES (1)").await;
    let slot = world.url.rsplit('/').next().unwrap().to_owned();
    // Making a slot waits for the transactions that run.
    let mut busy = PgConnection::connect(&world.url).await.unwrap();
    busy.execute("BEGIN; INSERT INTO items VALUES (2)").await.unwrap();
    let mut maker = PgConnection::connect(&world.url).await.unwrap();
    let make = format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')");
    let making = tokio::spawn(async move { maker.execute(AssertSqlSafe(make)).await.map(|_done| ()) });
    let query =
        format!("SELECT CAST(confirmed_flush_lsn AS text) FROM pg_replication_slots WHERE slot_name = '{slot}'");
    while world.there(&query).await != ["∅"] {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let launch = world.launch(ITEMS, "");
    let reading = {
        let launch = launch.clone();
        tokio::spawn(async move { launch.run_until_caught_up().await })
    };
    let looks = format!(
        "SELECT CAST(count(*) AS text) FROM pg_stat_activity WHERE datname = '{slot}' AND query LIKE '%invalidation_reason%' \
         AND pid <> pg_backend_pid()"
    );
    while world.there(&looks).await == ["0"] {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    busy.execute("COMMIT").await.unwrap();
    making.await.unwrap().unwrap();
    reading.await.unwrap();
    world.run("INSERT INTO items VALUES (3)").await;
    launch.run_until_caught_up().await;
    assert_eq!(world.held("SELECT CAST(id AS text) FROM items ORDER BY id").await, ["1", "2", "3"]);
    launch.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_reading_was_broken_off_is_emptied_and_read_again() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new(
        "CREATE TABLE items (id int PRIMARY KEY, n int, t text); \
         INSERT INTO items SELECT n, n, repeat('a', 1000) FROM generate_series(1, 8000) n",
    )
    .await;
    let launch = world.launch(ITEMS, "");
    // Pieces are of 1 MiB: some reach the log before it dies at the sixth.
    let died = {
        let mut broken = launch.clone().failpoints("postgres.snapshot.piece=5*sleep(300)->return(kill)").run();
        let ended = broken.exit(LIMIT).await;
        !ended.success()
    };
    assert!(died);
    world.run("DELETE FROM items WHERE id <= 4000; UPDATE items SET n = 0 WHERE id > 7000").await;
    launch.run_until_caught_up().await;
    assert_eq!(world.held(SUMS).await, world.there(SUMS).await);
    launch.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_becomes_visible_at_once_or_says_that_it_does_not() {
    if !available("postgres") {
        return;
    }
    let mut world =
        World::new("CREATE TABLE items (id int PRIMARY KEY, n int, t text); INSERT INTO items VALUES (0, 0, '')").await;
    let launch = world.launch(ITEMS, "");
    launch.run_until_caught_up().await;
    let mut process = launch.run();
    process.wait_for("a status", LIMIT, |status| status["ready"] == true).await;
    world.run("INSERT INTO items SELECT n, n, repeat('a', 100) FROM generate_series(1, 100000) n").await;
    let counted = "SELECT CAST(count(*) AS text) FROM items";
    let begun = std::time::Instant::now();
    loop {
        let count = world.held(counted).await.remove(0);
        if count == "100001" {
            break;
        }
        assert_eq!(count, "1", "half a transaction is visible");
        assert!(begun.elapsed() < LIMIT, "{}", process.log_tail());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    process.stop().await;
    assert!(!launch.whole_log().contains("larger than max_transaction"));
    let small = world.launch_small(ITEMS, "");
    world.run("UPDATE items SET n = n + 1").await;
    // Its second epoch ends inside the transaction, and it goes on there.
    let mut broken = small.clone().failpoints("log.put.after=1*off->return(kill)").run();
    assert!(!broken.exit(LIMIT).await.success());
    small.run_until_caught_up().await;
    assert!(launch.whole_log().contains("larger than max_transaction"));
    assert_eq!(world.held(SUMS).await, world.there(SUMS).await);
    small.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_gone_or_was_moved_halts_with_the_way_out() {
    if !available("postgres") {
        return;
    }
    let mut world =
        World::new("CREATE TABLE items (id int PRIMARY KEY, n int, t text); INSERT INTO items VALUES (1, 1, 'a')")
            .await;
    let slot = world.url.rsplit('/').next().unwrap().to_owned();
    let launch = world.launch(ITEMS, "");
    launch.run_until_caught_up().await;
    world.run("INSERT INTO items VALUES (2, 2, 'b')").await;
    world.until_idle(&slot).await;
    // Another reader takes what was meant for us.
    world.run(&format!("SELECT pg_replication_slot_advance('{slot}', pg_current_wal_lsn())")).await;
    let mut process = launch.run();
    assert!(!process.exit(LIMIT).await.success());
    assert!(process.log().contains("no longer has what must come next"), "{}", process.log_tail());
    world.until_idle(&slot).await;
    world.run(&format!("SELECT pg_drop_replication_slot('{slot}'); DELETE FROM items WHERE id = 1")).await;
    let mut process = launch.run();
    assert!(!process.exit(LIMIT).await.success());
    let log = process.log();
    assert!(log.contains("it is not there any more") && log.contains("snapshot_again"), "{}", process.log_tail());
    // The way out that it names.
    world.launch(ITEMS, ", snapshot: { on_lost_slot: snapshot_again }").run_until_caught_up().await;
    assert_eq!(world.held("SELECT CAST(id AS text) FROM items").await, ["2"]);
    world.run("INSERT INTO items VALUES (3, 3, 'c')").await;
    launch.run_until_caught_up().await;
    assert_eq!(world.held(SUMS).await, world.there(SUMS).await);
    launch.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn quiet_tables_do_not_hold_the_slot_back() {
    if !available("postgres") {
        return;
    }
    let mut world =
        World::new("CREATE TABLE items (id int PRIMARY KEY, n int, t text); CREATE TABLE busy (n int)").await;
    let slot = world.url.rsplit('/').next().unwrap().to_owned();
    let launch = world.launch(ITEMS, ", heartbeat: 1s");
    launch.run_until_caught_up().await;
    world.run("INSERT INTO busy SELECT generate_series(1, 50000)").await;
    let end = world.there("SELECT CAST(pg_current_wal_lsn() AS text)").await.remove(0);
    launch.run_until_caught_up().await;
    let query = format!(
        "SELECT CAST(confirmed_flush_lsn >= '{end}' AS text) FROM pg_replication_slots WHERE slot_name = '{slot}'"
    );
    assert_eq!(world.there(&query).await, ["true"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_joins_later_is_read_and_one_without_a_key_is_refused() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new(
        "CREATE TABLE items (id int PRIMARY KEY, n int, t text); INSERT INTO items VALUES (1, 1, 'a'); \
         CREATE TABLE more (id int PRIMARY KEY); INSERT INTO more VALUES (1), (2); CREATE TABLE keyless (n int); \
         CREATE TABLE parts (id int PRIMARY KEY, n int) PARTITION BY RANGE (id); \
         CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10); \
         CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (20); INSERT INTO parts VALUES (1, 1), (11, 11)",
    )
    .await;
    world.launch(ITEMS, "").run_until_caught_up().await;
    world.run("INSERT INTO more VALUES (3); INSERT INTO items VALUES (2, 2, 'b')").await;
    let three = "{ items: { from: public.items }, more: { from: public.more }, parts: { from: public.parts } }";
    world.launch(three, "").run_until_caught_up().await;
    world
        .run("DELETE FROM more WHERE id = 1; UPDATE parts SET n = 12 WHERE id = 11; INSERT INTO parts VALUES (2, 2)")
        .await;
    world.launch(three, "").run_until_caught_up().await;
    assert_eq!(world.held("SELECT CAST(id AS text) FROM more ORDER BY id").await, ["2", "3"]);
    assert_eq!(
        world.held("SELECT CAST(id AS text), CAST(n AS text) FROM parts ORDER BY id").await,
        ["1|1", "2|2", "11|12"]
    );
    assert_eq!(world.held(SUMS).await, world.there(SUMS).await);
    let launch = world.launch("{ keyless: { from: public.keyless } }", "");
    let mut process = launch.run();
    assert!(!process.exit(LIMIT).await.success());
    assert!(process.log().contains("REPLICA IDENTITY FULL"), "{}", process.log_tail());
    // Published, the application's updates and deletes of it would fail.
    world.run("CREATE TABLE nobody (id int PRIMARY KEY); ALTER TABLE nobody REPLICA IDENTITY NOTHING").await;
    let launch = world.launch("{ nobody: { from: public.nobody } }", "");
    let mut process = launch.run();
    assert!(!process.exit(LIMIT).await.success());
    let log = process.log();
    assert!(log.contains("its replica identity is NOTHING") && log.contains("updates and deletes"), "{log}");
    assert_eq!(
        world.there("SELECT tablename::text FROM pg_publication_tables WHERE tablename = 'nobody'").await,
        [""; 0]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_rights_gets_the_sql_to_run() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new("CREATE TABLE items (id int PRIMARY KEY)").await;
    let role = format!("reader_{}", world.url.rsplit('/').next().unwrap());
    world.run(&format!("CREATE ROLE {role} LOGIN")).await;
    world.url = world.url.replace("postgres@", &format!("{role}@"));
    let wants = |log: String, wanted: &str| assert!(log.contains(wanted), "{wanted}: {log}");
    for (wanted, fix) in [
        (format!("ALTER ROLE \"{role}\" REPLICATION"), format!("ALTER ROLE {role} REPLICATION")),
        ("GRANT SELECT ON".to_owned(), format!("GRANT SELECT ON items TO {role}")),
        (
            "CREATE PUBLICATION".to_owned(),
            "CREATE PUBLICATION p FOR TABLE items WITH (publish_via_partition_root = true)".to_owned(),
        ),
    ] {
        let mut process = world.launch(ITEMS, "").run();
        assert!(!process.exit(LIMIT).await.success());
        wants(process.log(), &wanted);
        world.run(&fix).await;
    }
    world.run("INSERT INTO items VALUES (7)").await;
    world.launch(ITEMS, "").run_until_caught_up().await;
    assert_eq!(world.held("SELECT CAST(id AS text) FROM items").await, ["7"]);
    world.launch(ITEMS, "").assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_default_of_a_new_column_reaches_the_rows_that_were_there() {
    if !available("postgres") {
        return;
    }
    let mut world =
        World::new("CREATE TABLE items (id int PRIMARY KEY); INSERT INTO items SELECT generate_series(1, 3)").await;
    let launch = world.launch(ITEMS, ", snapshot: { on_filled_column: read_again }");
    launch.run_until_caught_up().await;
    let query = "SELECT CAST(id AS text), CAST(a AS text), CAST(b AS text) FROM items ORDER BY id";
    // Seen at the start, and in the middle of the stream.
    world.run("ALTER TABLE items ADD a int DEFAULT 7").await;
    launch.run_until_caught_up().await;
    let mut process = launch.run();
    process.wait_for("a status", LIMIT, |status| status["ready"] == true).await;
    world
        .run(
            "ALTER TABLE items ADD b int DEFAULT 8; DELETE FROM items WHERE id = 2; INSERT INTO items VALUES (4, 1, 2)",
        )
        .await;
    process.wait_for_log("the rows that are there were read", LIMIT).await;
    process.stop().await;
    launch.run_until_caught_up().await;
    assert_eq!(world.held(query).await, ["1|7|8", "3|7|8", "4|1|2"]);
    launch.assert_equal();
}
