//! Processes that die at every place or hang, what is large, what is locked, and what is quiet.

use std::time::{Duration, Instant};

use futures::StreamExt;
use mysql_async::prelude::Queryable;
use tokio_util::sync::CancellationToken;

use crate::mysql_source::lost::end_readers;
use crate::mysql_source::{ITEMS, ROWS, SUMS, World, families, items, run, write_until};
use crate::support::mysql::{Family, Server};
use crate::support::places::{PLACES, passed_again, places_in};
use crate::support::process::LIMIT;

const CHANGES: &str = "BEGIN; UPDATE items SET n = n + 1, t = repeat('c', 150); DELETE FROM items WHERE id % 7 = 0; \
    UPDATE items SET id = -id WHERE id % 11 = 0; COMMIT";

/// Dies the first, or a later time that it passes the place: while rows are read and others write, or while a transaction
/// is streamed that is larger than an epoch may be. Then everything is there once.
async fn dies_and_comes_back(family: Family, place: &str, action: &str, large: bool) -> Result<(), String> {
    let mut world = World::new(family, &items(12_000)).await;
    let launch = world.launch_small(ITEMS, ", snapshot: { chunk_rows: 3000 }");
    let stop = CancellationToken::new();
    let mut writer = None;
    if large {
        launch.run_until_caught_up().await;
        world.run(CHANGES).await;
    } else {
        writer = Some(tokio::spawn(write_until(world.connect().await, stop.clone())));
    }
    let mut broken = launch.clone().failpoints(format!("{place}={action}")).run();
    let begun = Instant::now();
    while !broken.has_ended() && begun.elapsed() < Duration::from_secs(60) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let passed = broken.log().contains(&format!("failpoint {place} does"));
    drop(broken);
    stop.cancel();
    if let Some(writer) = writer {
        writer.await.unwrap();
    }
    world.run("INSERT INTO items VALUES (50000, 1, 'last')").await;
    launch.run_until_caught_up().await;
    let (held, there) = (world.held(ROWS).await, world.there(ROWS).await);
    if held != there {
        let differs = held.iter().zip(&there).find(|(held, there)| held != there);
        return Err(format!("{} rows held, {} there: {differs:?}\n{}", held.len(), there.len(), launch.whole_log()));
    }
    launch.compare().await?;
    if passed { Ok(()) } else { Err("the place was never passed".to_owned()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_place_it_ends_equal_to_the_source() {
    let families = families();
    if families.is_empty() {
        return;
    }
    let mut of_the_source = places_in("src/source/mysql");
    // No step of anything: where a test takes the clock away.
    assert!(of_the_source.remove("mysql.stream.clock"));
    let once = PLACES.iter().map(|place| (*place, "return(kill)", false));
    let later = passed_again().iter().map(|place| (*place, "3*off->return(kill)", false));
    // The families take turns.
    let shared = once.chain(later).enumerate().map(|(n, case)| (families[n % families.len()], case));
    let own = of_the_source
        .iter()
        .flat_map(|place| [(place.as_str(), "return(kill)", false), (place.as_str(), "2*off->return(kill)", false)]);
    let large = [
        ("mysql.stream.piece", "return(kill)", true),
        ("mysql.stream.piece", "2*off->return(kill)", true),
        ("lake.upload.after", "1*off->return(kill)", true),
        ("log.put.before", "1*off->return(kill)", true),
        ("log.put.after", "1*off->return(kill)", true),
    ];
    let on_both = own.chain(large).flat_map(|case| families.iter().map(move |family| (*family, case)));
    let outcomes: Vec<Option<String>> = futures::stream::iter(shared.chain(on_both))
        .map(async |(family, (place, action, large))| {
            let outcome = dies_and_comes_back(family, place, action, large).await;
            outcome.err().map(|why| format!("{family:?} {place}={action}, large: {large}: {why}"))
        })
        .buffer_unordered(3)
        .collect()
        .await;
    let failed: Vec<String> = outcomes.into_iter().flatten().collect();
    assert!(failed.is_empty(), "{} of them:\n{}", failed.len(), failed.join("\n"));
}

/// The most that the process may take while it reads a transaction that is three times as large: 170 were measured, from
/// the first rows to the last.
const MEMORY_LIMIT_MIB: u64 = 216;
/// What a row has besides its number.
const ROW_BYTES: u64 = 690;
const _: () = assert!(1_000_000 * ROW_BYTES / (1 << 20) > 3 * MEMORY_LIMIT_MIB);

async fn a_million_rows(family: Family) {
    let mut world = World::new(family, "CREATE TABLE items (id int PRIMARY KEY, n int, t varchar(1000))").await;
    let url = format!("mysql://root@127.0.0.1:{}?ssl-mode=disabled", world.port);
    let epoch = "every: 200ms, max_bytes: 4MiB }\nlimits: { inflight_bytes: 8MiB, unit_bytes: 16MiB";
    let launch = world.launch_epochs(&url, ITEMS, ", max_transaction: 4MiB", epoch);
    launch.run_until_caught_up().await;
    world
        .run(&format!(
            "CREATE TABLE ten (n int); INSERT INTO ten VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9); \
             INSERT INTO items SELECT id, 1, repeat('x', {ROW_BYTES}) FROM (SELECT a.n + 10*b.n + 100*c.n + 1000*d.n \
             + 10000*e.n + 100000*f.n AS id FROM ten a, ten b, ten c, ten d, ten e, ten f ORDER BY 1 LIMIT 1000000) numbers"
        ))
        .await;
    let mut process = launch.run();
    world.until_held(&mut process, "SELECT CAST(count(*) AS text) FROM items", &["1000000"]).await;
    let peak = process.peak_mib();
    process.stop().await;
    world.assert_equal(SUMS).await;
    println!("{family:?}: peak memory {peak} MiB");
    assert!(peak < MEMORY_LIMIT_MIB, "{family:?}: {peak} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_a_million_rows_takes_bounded_memory() {
    futures::future::join_all(families().into_iter().map(a_million_rows)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_hangs_does_not_keep_its_successor_waiting() {
    for family in families() {
        let mut world = World::new(family, &items(12_000)).await;
        let launch = world.launch(ITEMS, ", snapshot: { chunk_rows: 3000 }");
        // Its connections stay open and nobody answers on them; the warehouse's file is nothing that it holds.
        let mut hung = world.beside(&launch).arg("--role").arg("ingest").run();
        hung.wait_for_log("reading the rows that are there", LIMIT).await;
        hung.signal("-STOP");
        world.run(CHANGES).await;
        launch.run_until_caught_up().await;
        world.assert_equal(ROWS).await;
        launch.assert_equal();
        hung.kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_on_a_table_is_named_and_waited_for() {
    // Beside each other: the time goes into waiting.
    futures::future::join_all(families().into_iter().map(a_locked_table)).await;
}

async fn a_locked_table(family: Family) {
    let mut world = World::new(family, &items(100)).await;
    let launch = world.launch(ITEMS, "");
    let mut locker = world.connect().await;
    run(&mut locker, "LOCK TABLES items WRITE").await;
    let mut process = launch.run();
    let line = process.wait_for_log("Lock wait timeout exceeded", LIMIT).await;
    for part in [&format!("look at table {}.items", world.database), "SHOW FULL PROCESSLIST", "trying again"] {
        assert!(line.contains(part), "no `{part}` in {line}");
    }
    run(&mut locker, "UNLOCK TABLES").await;
    let there = world.there(SUMS).await;
    let there: Vec<&str> = there.iter().map(String::as_str).collect();
    world.until_held(&mut process, SUMS, &there).await;
    process.stop().await;
    launch.assert_equal();
}

/// The captured table is quiet and the server is busy: the place in the lake moves on with every 64 MiB of log, so that
/// files can be purged that nobody needs, and the lake does not fill with epochs that say nothing.
#[tokio::test(flavor = "multi_thread")]
async fn quiet_tables_on_a_busy_server_hold_nothing_back() {
    for family in families() {
        let server = Server::start(family, &[]);
        let mut world = World::on(&server, &items(20)).await;
        world.run("CREATE DATABASE busy; CREATE TABLE busy.large (t longtext)").await;
        let launch = world.launch(ITEMS, "");
        let mut process = launch.run();
        let there = world.there(SUMS).await;
        world.until_held(&mut process, SUMS, &[&there[0]]).await;
        let manifests = || std::fs::read_dir(world.path().join("lake/_log")).unwrap().count();
        let before = manifests();
        let mut writer = server.connect("busy").await;
        for _ in 0..12 {
            run(&mut writer, "INSERT INTO large VALUES (repeat('x', 8 * 1024 * 1024)); FLUSH BINARY LOGS").await;
        }
        let begun = Instant::now();
        while manifests() == before {
            assert!(begun.elapsed() < LIMIT, "{family:?}: the place stays where it was\n{}", process.log_tail());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(manifests() - before < 10, "{} manifests that say nothing", manifests() - before);
        process.kill();
        // A file holds 8 MiB, and the place has passed 64.
        let files: Vec<mysql_async::Row> = writer.query("SHOW BINARY LOGS").await.unwrap();
        let needed: String = files[6].get(0).unwrap();
        end_readers(&mut writer).await;
        run(&mut writer, &format!("PURGE BINARY LOGS TO '{needed}'")).await;
        let files: Vec<mysql_async::Row> = writer.query("SHOW BINARY LOGS").await.unwrap();
        assert_eq!(files[0].get::<String, _>(0).unwrap(), needed, "{family:?}: nothing was purged");
        world.run("INSERT INTO items VALUES (1001, 1, 'awake')").await;
        launch.run_until_caught_up().await;
        world.assert_equal(ROWS).await;
        launch.assert_equal();
    }
}
