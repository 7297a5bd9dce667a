//! Connections that break at every stage, processes that die at every place, and what is large.

use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use tokio_util::sync::CancellationToken;

use crate::mysql_source::lost::end_readers;
use crate::mysql_source::{ITEMS, ROWS, SUMS, World, families, items, run, write_until};
use crate::support::mysql::{Family, Server};
use crate::support::process::{LIMIT, table};
use crate::support::proxy::{Fault, Proxy};

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_at_any_stage_is_made_again() {
    for family in families() {
        let mut world = World::new(family, &items(20_000)).await;
        let proxy = Proxy::to(world.port).await;
        let direct = world.port;
        world.port = proxy.port();
        let launch = world.launch(ITEMS, ", snapshot: { chunk_rows: 2000 }");
        world.port = direct;
        let stop = CancellationToken::new();
        let writer = tokio::spawn(write_until(world.connect().await, stop.clone()));
        let mut process = launch.run();
        process.wait_for_log("reading the rows that are there", LIMIT).await;
        // In the middle of chunks, in the login, in the catalog, in the stream.
        let mut faults = 0;
        for (bytes, fault) in [
            (200_000, Fault::Reset),
            (60, Fault::Reset),
            (3_000, Fault::Cut),
            (900_000, Fault::HalfClose),
            (400_000, Fault::Cut),
            (100_000, Fault::Reset),
        ] {
            faults += 1;
            proxy.after(bytes, fault);
            while proxy.faults() < faults {
                assert!(!process.has_ended(), "{}", process.log_tail());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        proxy.now(Fault::Refuse);
        tokio::time::sleep(Duration::from_millis(300)).await;
        proxy.heal();
        stop.cancel();
        writer.await.unwrap();
        let there = world.there(SUMS).await;
        let there: Vec<&str> = there.iter().map(String::as_str).collect();
        world.until_held(&mut process, SUMS, &there).await;
        process.stop().await;
        launch.run_until_caught_up().await;
        world.assert_equal(ROWS).await;
        launch.assert_equal();
        assert_eq!(table(&launch.status(), "items")["rejects_open"], 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_silent_is_left_and_asked_again() {
    for family in families() {
        let mut world = World::new(family, &items(100)).await;
        let proxy = Proxy::to(world.port).await;
        let direct = world.port;
        world.port = proxy.port();
        let launch = world.launch(ITEMS, "");
        world.port = direct;
        let mut process = launch.run();
        let there = world.there(SUMS).await;
        let there: Vec<&str> = there.iter().map(String::as_str).collect();
        world.until_held(&mut process, SUMS, &there).await;
        proxy.now(Fault::Stall);
        world.run("UPDATE items SET n = n + 1").await;
        process.wait_for_log("trying again", LIMIT).await;
        // What hung is cut off, and what comes next gets through.
        proxy.now(Fault::Reset);
        proxy.heal();
        let there = world.there(SUMS).await;
        let there: Vec<&str> = there.iter().map(String::as_str).collect();
        world.until_held(&mut process, SUMS, &there).await;
        process.stop().await;
        launch.assert_equal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_place_it_ends_equal_to_the_source() {
    for family in families() {
        // While rows are read, and while a transaction that is larger than an epoch may be is streamed.
        for (place, streams) in [
            ("mysql.snapshot.piece=return(kill)", false),
            ("mysql.snapshot.chunk=2*off->return(kill)", false),
            ("log.put.before=return(kill)", false),
            ("log.put.after=return(kill)", false),
            ("mysql.stream.piece=return(kill)", true),
            ("mysql.stream.piece=2*off->return(kill)", true),
            ("log.put.before=1*off->return(kill)", true),
            ("log.put.after=1*off->return(kill)", true),
        ] {
            let mut world = World::new(family, &items(12_000)).await;
            let launch = world.launch_small(ITEMS, ", snapshot: { chunk_rows: 3000 }");
            if streams {
                launch.run_until_caught_up().await;
                world.run(CHANGES).await;
            }
            let mut broken = launch.clone().failpoints(place).run();
            assert!(!broken.exit(LIMIT).await.success(), "{place} is never passed");
            world.run("INSERT INTO items VALUES (50000, 1, 'last')").await;
            if !streams {
                world.run(CHANGES).await;
            }
            launch.run_until_caught_up().await;
            world.assert_equal(ROWS).await;
            launch.assert_equal();
        }
    }
}

const CHANGES: &str = "BEGIN; UPDATE items SET n = n + 1, t = repeat('c', 150); DELETE FROM items WHERE id % 7 = 0; \
    UPDATE items SET id = -id WHERE id % 11 = 0; COMMIT";

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_a_million_rows_takes_bounded_memory() {
    for family in families() {
        let mut world = World::new(family, &items(0)).await;
        let launch = world.launch(ITEMS, ", max_transaction: 16MiB");
        launch.run_until_caught_up().await;
        world
            .run(
                "CREATE TABLE ten (n int); INSERT INTO ten VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9); \
                 INSERT INTO items SELECT a.n + 10*b.n + 100*c.n + 1000*d.n + 10000*e.n + 100000*f.n, 1, 'a row of many' \
                 FROM ten a, ten b, ten c, ten d, ten e, ten f",
            )
            .await;
        let mut process = launch.clone().arg("--until-caught-up").run();
        let mut peak = 0;
        while !process.has_ended() {
            peak = peak.max(resident_mib(process.id()));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(process.exit(LIMIT).await.success(), "{}", process.log_tail());
        world.assert_equal(SUMS).await;
        assert!(peak > 0 && peak < 1_000, "{peak} MiB");
    }
}

fn resident_mib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
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
