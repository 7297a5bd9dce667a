//! Much at once, much all the time, and nothing for a long time.

use super::*;

/// A transaction with a million rows (about 150 MB of log) is visible all at once. It is folded as a whole for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_with_a_million_rows_is_visible_at_once() {
    if !available(Version::Newest.component()) || !available("postgres") {
        return;
    }
    let stage = Stage { version: Version::Newest, target: Target::Sqlite };
    let mut world = World::new(stage, &filled(10, 32)).await;
    let launch = world.launch("").await;
    let mut process = launch.run();
    world.until_agreed(&mut process, SUMS).await;
    world
        .run("INSERT INTO items SELECT n + 10, n, 'row number ' || n, n / 4.0 FROM generate_series(1, 1000000) n")
        .await;
    let begun = Instant::now();
    loop {
        let count = world.held("SELECT CAST(count(*) AS text) FROM items").await.remove(0);
        if count != "10" {
            assert_eq!(count, "1000010", "a part of the transaction is visible");
            break;
        }
        assert!(begun.elapsed() < LIMIT && !process.has_ended(), "{}", process.log_tail());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    world.must_answer_alike(&launch, SUMS).await;
    process.stop().await;
}

/// What the process may take, in MiB: a third more than it was seen to take.
const MOST_MIB: u64 = 260;
/// A transaction of more than three times that.
const ROWS: u64 = 128_000;
const VALUE_BYTES: u64 = 6_400;

/// What is larger than `max_transaction` passes through piece by piece, and the log says so. It comes while it runs, or as
/// a whole: nowhere is it held in memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_larger_than_the_limit_takes_bounded_memory() {
    const { assert!(ROWS * VALUE_BYTES >= 3 * (MOST_MIB << 20)) };
    if !available(Version::Newest.component()) || !available("postgres") {
        return;
    }
    let stage = Stage { version: Version::Newest, target: Target::Sqlite };
    for streaming in ["on", "off"] {
        let mut world = World::new(stage, &filled(10, 32)).await;
        let tables = "{ items: { from: public.items } }\nepoch: { every: 200ms, max_bytes: 4MiB }\n\
                      limits: { inflight_bytes: 8MiB, unit_bytes: 16MiB }";
        let more = format!(", max_transaction: 4MiB, streaming: \"{streaming}\"");
        let launch = world.launch_tables(tables, &more).await;
        let mut process = launch.run();
        world.until_agreed(&mut process, SUMS).await;
        let value = format!("repeat(md5(n::text), {})", VALUE_BYTES / 32);
        let storage = "ALTER TABLE items ALTER t SET STORAGE EXTERNAL";
        world.run(storage).await;
        world
            .run(&format!("INSERT INTO items SELECT n + 10, n, {value}, n / 4.0 FROM generate_series(1, {ROWS}) n"))
            .await;
        world.until_agreed(&mut process, SUMS).await;
        world.must_answer_alike(&launch, SUMS).await;
        let peak = process.peak_mib();
        println!("peak memory: {peak} MiB (streaming {streaming})");
        assert!(process.log().contains("larger than max_transaction"), "{}", process.log_tail());
        assert!(peak < MOST_MIB, "{peak} MiB (streaming {streaming})");
        process.stop().await;
    }
}

/// A table that nobody captures; its values are written as they are.
const BUSY: &str = "CREATE TABLE busy (t text); ALTER TABLE busy ALTER t SET STORAGE EXTERNAL";

/// The captured table is quiet and the database is busy: all but 64 MiB of the log is given back, and the lake does not fill with epochs
/// that say nothing: one for every 64 MiB of log, or five minutes.
#[tokio::test(flavor = "multi_thread")]
async fn quiet_tables_in_a_busy_database_hold_nothing_back() {
    on_stages(async |stage| {
        let mut world = World::new(stage, &format!("{}; {BUSY}", filled(50, 64))).await;
        let launch = world.launch(", heartbeat: 1s").await;
        let mut process = launch.run();
        world.until_agreed(&mut process, ALL).await;
        let before = world.manifests();
        world.run("INSERT INTO busy SELECT repeat(md5(n::text), 250) FROM generate_series(1, 13000) n").await;
        let end = world.there("SELECT CAST(pg_current_wal_lsn() AS text)").await.remove(0);
        let slot = world.slot();
        let told = format!(
            "SELECT CAST(pg_wal_lsn_diff('{end}', confirmed_flush_lsn) < 64 * 1024 * 1024 AS text) FROM pg_replication_slots \
             WHERE slot_name = '{slot}'"
        );
        let begun = Instant::now();
        while world.there(&told).await != ["true"] {
            assert!(begun.elapsed() < LIMIT, "the log is held back\n{}", process.log_tail());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let more = world.manifests() - before;
        assert!(more < 10, "{more} manifests that say nothing");
        world.run("INSERT INTO items VALUES (1001, 1, 'awake', 1)").await;
        world.until_agreed(&mut process, ALL).await;
        process.stop().await;
        world.must_agree(&launch, ALL).await;
    })
    .await;
}

/// Rows are read while they change, move and go, in transactions some of which are rolled back.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_read_while_others_write() {
    on_stages(async |stage| {
        let mut world = World::new(stage, &filled(30_000, 100)).await;
        let writers = [world.write(30_000), world.write(29_989)];
        let launch = world.launch("").await;
        launch.run_until_caught_up().await;
        for writer in writers {
            assert!(writer.end().await > 0);
        }
        launch.run_until_caught_up().await;
        world.must_agree(&launch, ALL).await;
    })
    .await;
}

/// What one transaction does to two tables of a group is seen of both at once, or of neither.
#[tokio::test(flavor = "multi_thread")]
async fn two_tables_of_a_group_are_never_seen_apart() {
    const COUNTS: &str = "SELECT CAST((SELECT count(*) FROM items) AS text), CAST((SELECT count(*) FROM copies) AS text), \
                          CAST((SELECT sum(n) FROM items) AS text), CAST((SELECT sum(n) FROM copies) AS text)";
    on_stages(async |stage| {
        let copies = ITEMS.replace("items", "copies");
        let mut world =
            World::new(stage, &format!("{}; {copies}; INSERT INTO copies TABLE items", filled(50, 32))).await;
        let tables =
            "{ items: { from: public.items }, copies: { from: public.copies } }\ngroups: { both: [items, copies] }";
        let launch = world.launch_tables(tables, "").await;
        launch.run_until_caught_up().await;
        let mut process = launch.run();
        let (stop, url) =
            (CancellationToken::new(), format!("postgres://postgres@127.0.0.1:{}/{}", world.port, world.database));
        let writing = stop.clone();
        let writer = tokio::spawn(async move {
            let mut connection = connect(&url).await;
            for turn in (1..).take_while(|_| !writing.is_cancelled()) {
                let both = |sql: &str| format!("{}; {}", sql, sql.replace("items", "copies"));
                let sql = format!(
                    "BEGIN; {}; {}; {}; COMMIT",
                    both(&format!("INSERT INTO items VALUES ({}, {turn}, 'x', 1)", 1_000 + turn)),
                    both(&format!("UPDATE items SET n = n + 1 WHERE id = {}", turn % 50)),
                    both(&format!("DELETE FROM items WHERE id = {} AND {turn} % 3 = 0", 990 + turn)),
                );
                connection.execute(AssertSqlSafe(sql)).await.unwrap();
            }
        });
        let (begun, mut seen) = (Instant::now(), std::collections::BTreeSet::new());
        while seen.len() < 12 {
            let counts = world.held(COUNTS).await.remove(0);
            let parts: Vec<&str> = counts.split('|').collect();
            assert_eq!((parts[0], parts[2]), (parts[1], parts[3]), "half a transaction is visible");
            assert!(begun.elapsed() < LIMIT && !process.has_ended(), "{}", process.log_tail());
            seen.insert(counts);
        }
        stop.cancel();
        writer.await.unwrap();
        world.until_agreed(&mut process, COUNTS).await;
        process.stop().await;
        world.must_agree(&launch, ALL).await;
    })
    .await;
}
