//! The rows that are there already: under load, broken off, for tables that join, and again on order.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::mysql_source::{ITEMS, ROWS, SUMS, World, families, items, run, write_until};
use crate::support::mysql::{Family, Server};
use crate::support::process::{LIMIT, table};

const SMALL_CHUNKS: &str = ", snapshot: { chunk_rows: 500 }";

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_read_while_they_change() {
    for family in families() {
        let mut world = World::new(family, &items(20_000)).await;
        let stop = CancellationToken::new();
        let writer = tokio::spawn(write_until(world.connect().await, stop.clone()));
        let launch = world.launch(ITEMS, SMALL_CHUNKS);
        launch.run_until_caught_up().await;
        let mut process = launch.run();
        process.wait_for("a status", LIMIT, |status| status["ready"] == true).await;
        stop.cancel();
        writer.await.unwrap();
        process.stop().await;
        launch.run_until_caught_up().await;
        world.assert_equal(SUMS).await;
        world.assert_equal(ROWS).await;
        launch.assert_equal();
        assert_eq!(table(&launch.status(), "items")["rejects_open"], 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_under_load_it_ends_equal_to_the_source() {
    for family in families() {
        let mut world = World::new(family, &items(20_000)).await;
        let stop = CancellationToken::new();
        let writer = tokio::spawn(write_until(world.connect().await, stop.clone()));
        let launch = world.launch(ITEMS, SMALL_CHUNKS);
        for turn in 0..8u64 {
            let mut process = launch.run();
            tokio::time::sleep(Duration::from_millis(250 + turn * 271 % 900)).await;
            process.kill();
        }
        stop.cancel();
        writer.await.unwrap();
        launch.run_until_caught_up().await;
        world.assert_equal(SUMS).await;
        world.assert_equal(ROWS).await;
        launch.assert_equal();
        assert_eq!(table(&launch.status(), "items")["rejects_open"], 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_reading_was_broken_off_goes_on_where_it_was() {
    for family in families() {
        let mut world = World::new(family, &items(20_000)).await;
        let launch = world.launch(ITEMS, ", snapshot: { chunk_rows: 4000 }");
        // It stands still behind its third part, and dies when the lake's log holds one: those before take longer than an epoch.
        let mut broken = launch.clone().failpoints("mysql.snapshot.chunk=2*sleep(400)->pause").run();
        let begun = Instant::now();
        let mut held = 0;
        while held == 0 {
            assert!(begun.elapsed() < LIMIT && !broken.has_ended(), "nothing is committed\n{}", broken.log_tail());
            tokio::time::sleep(Duration::from_millis(50)).await;
            held = table(&launch.status(), "items")["reading"]["rows"].as_u64().unwrap_or(0);
        }
        broken.kill();
        assert!(held < 20_000 && held.is_multiple_of(4_000), "{held}");
        // Read from its beginning it would have other numbers of rows.
        world
            .run("DELETE FROM items WHERE id <= 4000; UPDATE items SET n = 0 WHERE id > 7000; INSERT INTO items VALUES (-1, 5, 'before')")
            .await;
        launch.run_until_caught_up().await;
        world.assert_equal(ROWS).await;
        launch.assert_equal();
        let log = launch.whole_log();
        let line = log.lines().rfind(|line| line.contains("\"the rows that are there were read\"")).unwrap();
        let read = serde_json::from_str::<serde_json::Value>(line).unwrap()["rows"].as_u64().unwrap();
        assert_eq!(read, 20_000, "{family:?}: rows that are gone were read before it died, and none twice");
        assert_eq!(log.matches("\"reading the rows that are there\"").count(), 1, "{family:?}: it began once");
    }
}

/// GIVEN a server on which nothing happens, WHEN a table has several chunks, THEN they are read one after the other: none waits
/// for a sign of the server or for a clock, for there is neither.
#[tokio::test(flavor = "multi_thread")]
async fn the_chunks_of_a_quiet_server_are_read_without_a_pause() {
    for family in families() {
        let server = Server::start(family, &[]);
        let mut world = World::on(&server, &items(200)).await;
        let launch = world.launch(ITEMS, ", snapshot: { chunk_rows: 10 }");
        let topology = std::fs::read_to_string(launch.topology()).unwrap();
        std::fs::write(launch.topology(), topology.replace("heartbeat: 1s", "heartbeat: 1h")).unwrap();
        launch.clone().failpoints("mysql.stream.clock=return").run_until_caught_up().await;
        world.assert_equal(SUMS).await;
        launch.assert_equal();
    }
}

/// GIVEN a log that is written more quickly than it is read, WHEN rows of a table are still to be read, THEN they are read
/// between two of its transactions, while it is written on.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_read_between_two_transactions_of_a_log_that_does_not_end() {
    for family in families() {
        let setup = format!("{}; CREATE TABLE big (id int PRIMARY KEY, t text)", items(64));
        // What it writes would be in the way of those who share the server.
        let server = Server::start(family, &[]);
        let mut world = World::on(&server, &setup).await;
        let tables = "{ items: { from: $.items }, big: { from: $.big } }";
        let launch = world.launch(tables, ", snapshot: { chunk_rows: 40, parallel: 1 }");
        let slow = "mysql.snapshot.chunk=1*off->1*sleep(200)->off;mysql.stream.piece=sleep(500)";
        let mut process = launch.clone().failpoints(slow).run();
        process.wait_for_log(".items\"", LIMIT).await;
        let (begun, mut written) = (Instant::now(), 0);
        while !process.log().lines().any(|line| line.contains("were read\"") && line.contains(".items\"")) {
            assert!(begun.elapsed() < LIMIT, "{family:?}: the rows wait for the log's end\n{}", process.log_tail());
            // Of so many events that what the network has brought ends with a transaction by chance only.
            let rows = |part: u32| {
                let from = written * 2_000 + part * 100;
                format!("INSERT INTO big SELECT {from} + id, repeat('x', 1000) FROM items")
            };
            world.run(&format!("BEGIN; {}; COMMIT", (0..20).map(rows).collect::<Vec<_>>().join("; "))).await;
            written += 1;
            // About six times as quick as it is read.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        process.kill();
        world.launch(tables, "").run_until_caught_up().await;
        world.assert_equal(SUMS).await;
        world.assert_equal("SELECT CAST(count(*) AS text), CAST(sum(id) AS text) FROM big").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_read_side_by_side_whatever_their_keys_are() {
    for family in families() {
        let mut world = World::new(
            family,
            "CREATE TABLE texts (k varchar(20) COLLATE utf8mb4_general_ci, l varchar(9) CHARACTER SET latin1, PRIMARY KEY (k, l)); \
             INSERT INTO texts VALUES ('b', 'x'), ('B ', 'y'), ('a', 'é'), ('ä', 'f'), ('Z', ''), ('', 'z''s'), ('%_\\\\', '\"'); \
             CREATE TABLE moments (d datetime(6), e date, PRIMARY KEY (d, e)); \
             INSERT INTO moments VALUES ('2024-01-01 00:00:00.000001', '2024-02-29'), ('2024-01-01 00:00:00.000002', '1999-01-01'), ('0001-01-01', '9999-12-31'); \
             CREATE TABLE numbers (u bigint unsigned, i smallint, d decimal(30,10), PRIMARY KEY (u, i, d)); \
             INSERT INTO numbers VALUES (18446744073709551615, -32768, -1.5), (0, 0, 12345678901234567890.0000000001), (0, 0, 12345678901234567890.0000000002), (9007199254740993, 1, 0), (9007199254740992, 1, 0); \
             CREATE TABLE others (e enum('z', 'a', 'm'), b binary(3), y year, PRIMARY KEY (e, b, y)); \
             INSERT INTO others VALUES ('z', x'00ff00', 2001), ('a', x'ffffff', 1999), ('m', x'000000', 2155), ('m', x'000001', 1901); \
             CREATE TABLE keyless (n int, t varchar(9)); INSERT INTO keyless VALUES (1, 'a'), (1, 'a'), (2, NULL)",
        )
        .await;
        let tables = "{ texts: { from: $.texts }, moments: { from: $.moments }, numbers: { from: $.numbers }, \
                      others: { from: $.others }, keyless: { from: $.keyless } }";
        let launch = world.launch(tables, ", snapshot: { chunk_rows: 1, parallel: 3 }");
        launch.run_until_caught_up().await;
        for (name, count) in [("texts", "7"), ("moments", "3"), ("numbers", "5"), ("others", "4"), ("keyless", "3")] {
            let counted = format!("SELECT CAST(count(*) AS text) FROM {name}");
            assert_eq!(world.held(&counted).await, [count], "{family:?} {name}");
        }
        world.assert_equal("SELECT k, l FROM texts ORDER BY CAST(hex(k) AS text), CAST(hex(l) AS text)").await;
        let query = "SELECT CAST(u AS text), CAST(i AS text), CAST(d AS text) FROM numbers ORDER BY 1, 2, 3";
        world.assert_equal(query).await;
        assert_eq!(
            world.held("SELECT e, CAST(y AS text) FROM others ORDER BY e, y").await,
            ["a|1999", "m|1901", "m|2155", "z|2001"]
        );
        launch.assert_equal();
        // Three at a time: the first is not over when the third begins.
        let log = launch.whole_log();
        let third = log.match_indices("\"reading the rows that are there\"").nth(2).unwrap().0;
        assert!(third < log.find("\"the rows that are there were read\"").unwrap(), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_joins_later_is_read_while_the_others_go_on() {
    for family in families() {
        let mut world = World::new(family, &items(500)).await;
        world.launch(ITEMS, "").run_until_caught_up().await;
        world.run("CREATE TABLE more LIKE items; INSERT INTO more SELECT * FROM items; INSERT INTO items VALUES (1000, 1, 'a')").await;
        let two = "{ items: { from: $.items }, more: { from: $.more } }";
        let launch = world.launch(two, ", snapshot: { chunk_rows: 10 }");
        // Each part takes its time, and the changes of the other table do not wait for the last of them.
        let mut slow = launch.clone().failpoints("mysql.snapshot.chunk=sleep(500)").run();
        slow.wait_for_log("\"reading the rows that are there\"", LIMIT).await;
        for (id, t) in [(1002, "c"), (1003, "d")] {
            world.run(&format!("INSERT INTO items VALUES ({id}, 1, '{t}')")).await;
            world.until_held(&mut slow, &format!("SELECT t FROM items WHERE id = {id}"), &[t]).await;
        }
        assert!(
            !slow.log().contains("\"the rows that are there were read\""),
            "the reading was over\n{}",
            slow.log_tail()
        );
        slow.kill();
        launch.run_until_caught_up().await;
        world.run("DELETE FROM more WHERE id = 1; UPDATE more SET id = 5000 WHERE id = 2; INSERT INTO items VALUES (1001, 1, 'b')").await;
        launch.run_until_caught_up().await;
        world.assert_equal(ROWS).await;
        world.assert_equal(&SUMS.replace("items", "more")).await;
        // Left out for a while, it is emptied and read again.
        world.launch(ITEMS, "").run_until_caught_up().await;
        world.run("DELETE FROM more WHERE id < 50; INSERT INTO more VALUES (7000, 7, 'c')").await;
        world.launch(ITEMS, "").run_until_caught_up().await;
        let launch = world.launch(two, ", snapshot: { chunk_rows: 10 }");
        launch.run_until_caught_up().await;
        world.assert_equal(&SUMS.replace("items", "more")).await;
        launch.assert_equal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_somebody_spoiled_is_read_again_on_order() {
    for family in families() {
        let mut world = World::new(family, &items(50)).await;
        let launch = world.launch(ITEMS, ", snapshot: { chunk_rows: 7 }");
        launch.run_until_caught_up().await;
        world.spoil("UPDATE items SET t = 'wrong' WHERE id = 1; DELETE FROM items WHERE id = 2").await;
        let ordered = launch.other(&["table", "resync"], &["items"]);
        assert!(ordered.status.success(), "{ordered:?}");
        launch.run_until_caught_up().await;
        world.assert_equal(ROWS).await;
        let mut process = launch.run();
        process.wait_for("a status", LIMIT, |status| status["ready"] == true).await;
        world.spoil("UPDATE items SET t = 'wrong' WHERE id = 3; DELETE FROM items WHERE id = 4").await;
        world.run("INSERT INTO items VALUES (1000, 4, 'four')").await;
        assert!(launch.other(&["table", "resync"], &["items"]).status.success());
        let there = world.there(ROWS).await;
        let there: Vec<&str> = there.iter().map(String::as_str).collect();
        world.until_held(&mut process, ROWS, &there).await;
        process.stop().await;
        launch.assert_equal();
        // An order is obeyed once.
        world.spoil("UPDATE items SET t = 'wrong' WHERE id = 1").await;
        launch.run_until_caught_up().await;
        assert_eq!(world.held("SELECT t FROM items WHERE id = 1").await, ["wrong"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_changes_from_now_on_when_that_is_asked_for() {
    for family in families() {
        let mut world = World::new(family, &items(10)).await;
        let launch = world.launch(ITEMS, ", snapshot: { mode: never }");
        launch.run_until_caught_up().await;
        world.run("INSERT INTO items VALUES (11, 11, 'new'); DELETE FROM items WHERE id = 1").await;
        launch.run_until_caught_up().await;
        assert_eq!(world.held(ROWS).await, ["11|11|new"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_gtids_is_read_by_file_and_position() {
    if !families().contains(&Family::MySql) {
        return;
    }
    let server = Server::start(Family::MySql, &["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"]);
    let mut world = World::on(&server, &items(20_000)).await;
    let stop = CancellationToken::new();
    let writer = tokio::spawn(write_until(world.connect().await, stop.clone()));
    let launch = world.launch(ITEMS, SMALL_CHUNKS);
    launch.run_until_caught_up().await;
    stop.cancel();
    writer.await.unwrap();
    run(&mut world.connect().await, "FLUSH BINARY LOGS; INSERT INTO items VALUES (700000, 1, 'next file')").await;
    launch.run_until_caught_up().await;
    world.assert_equal(ROWS).await;
    launch.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn how_far_a_reading_has_come_is_said() {
    for family in families() {
        let mut world = World::new(family, &items(100)).await;
        let launch = world.launch(ITEMS, "");
        launch.run_until_caught_up().await;
        assert!(table(&launch.status(), "items")["reading"].is_null());
        world.run("CREATE TABLE big (id int PRIMARY KEY, n int, t varchar(200))").await;
        world.run("INSERT INTO big SELECT id, n, t FROM items; ANALYZE TABLE big").await;
        let both = "{ items: { from: $.items }, big: { from: $.big } }";
        let launch = world.launch(both, ", snapshot: { chunk_rows: 10 }");
        let mut process = launch.clone().failpoints("mysql.snapshot.chunk=sleep(700)").run();
        let read = |status: &serde_json::Value| table(status, "big")["reading"]["left_s"].as_f64().is_some();
        let status = process.wait_for("a part of it", LIMIT, read).await;
        let reading = &table(&status, "big")["reading"];
        let rows = reading["rows"].as_u64().unwrap();
        assert!(rows > 0 && rows < 100 && rows.is_multiple_of(10), "{status}");
        assert_eq!((&reading["of"], &reading["again"]), (&100.into(), &false.into()), "{status}");
        assert!(table(&status, "items")["reading"].is_null(), "{status}");
        let said = launch.other(&["status"], &[]);
        assert!(String::from_utf8_lossy(&said.stdout).contains("reading "), "{said:?}");
        assert!(process.page("/metrics").await.unwrap().contains("dataflow_snapshot_rows{table=\"big\"}"));
        process.kill();
        launch.run_until_caught_up().await;
        assert!(table(&launch.status(), "big")["reading"].is_null());
        // Read again, it was emptied before.
        assert!(launch.other(&["table", "resync"], &["big"]).status.success());
        let mut process = launch.clone().failpoints("mysql.snapshot.chunk=sleep(700)").run();
        let again = |status: &serde_json::Value| table(status, "big")["reading"]["again"] == true;
        process.wait_for("a part of it once more", LIMIT, again).await;
        process.kill();
        launch.run_until_caught_up().await;
        world.assert_equal("SELECT CAST(id AS text), t FROM big ORDER BY id").await;
        launch.assert_equal();
    }
}
