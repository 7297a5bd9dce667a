//! Rows that are there, changes after them, and what statements do to tables.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use mysql_async::Conn;
use tokio_util::sync::CancellationToken;

use crate::mysql_source::{ITEMS, ROWS, SUMS, World, families, items, run};
use crate::support::mysql::{Family, Server};
use crate::support::oracle::LogReader;
use crate::support::process::{LIMIT, Launch, table};

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_there_and_changes_after_them_arrive_once() {
    for family in families() {
        let mut world = World::new(
            family,
            "CREATE TABLE items (id int PRIMARY KEY, name varchar(40), price decimal(8,2)); \
             INSERT INTO items VALUES (1, 'one', 1.50), (2, 'two', NULL), (3, 'tab\\there \\\\ ''quote é😀', 3)",
        )
        .await;
        let launch = world.launch(ITEMS, "");
        launch.run_until_caught_up().await;
        let query = "SELECT CAST(id AS text), name, CAST(price AS text) FROM items ORDER BY id";
        assert_eq!(world.held(query).await, ["1|one|1.50", "2|two|∅", "3|tab\there \\ 'quote é😀|3.00"], "{family:?}");
        world
            .run(
                "INSERT INTO items VALUES (4, 'four', 4); UPDATE items SET price = 2.25 WHERE id = 2; \
                 DELETE FROM items WHERE id = 1; UPDATE items SET id = 30 WHERE id = 3",
            )
            .await;
        launch.run_until_caught_up().await;
        assert_eq!(
            world.held(query).await,
            ["2|two|2.25", "4|four|4.00", "30|tab\there \\ 'quote é😀|3.00"],
            "{family:?}"
        );
        world.run("TRUNCATE items; INSERT INTO items VALUES (5, 'five', 5)").await;
        launch.run_until_caught_up().await;
        assert_eq!(world.held(query).await, ["5|five|5.00"], "{family:?}");
        launch.assert_equal();
        let status = launch.status();
        assert_eq!(table(&status, "items")["rejects_open"], 0, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_come_go_and_grow_while_it_runs() {
    for family in families() {
        let mut world = World::new(family, "CREATE TABLE items (id int PRIMARY KEY, a int, b varchar(9))").await;
        let launch = world.launch(ITEMS, "");
        launch.run_until_caught_up().await;
        world
            .run(
                "INSERT INTO items VALUES (1, 1, 'x'); ALTER TABLE items ADD c decimal(6,2); \
                 INSERT INTO items VALUES (2, 2, 'y', 2.5); ALTER TABLE items DROP b; INSERT INTO items VALUES (3, 3, 3.5); \
                 ALTER TABLE items MODIFY a bigint; INSERT INTO items VALUES (4, 5000000000, NULL); \
                 ALTER TABLE items CHANGE c d decimal(6,2); INSERT INTO items VALUES (5, 5, 5.5)",
            )
            .await;
        launch.run_until_caught_up().await;
        let query =
            "SELECT CAST(id AS text), CAST(a AS text), b, CAST(c AS text), CAST(d AS text) FROM items ORDER BY id";
        let expected = ["1|1|x|∅|∅", "2|2|y|2.50|∅", "3|3|∅|3.50|∅", "4|5000000000|∅|∅|∅", "5|5|∅|∅|5.50"];
        assert_eq!(world.held(query).await, expected, "{family:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_default_of_a_new_column_reaches_the_rows_that_were_there() {
    for family in families() {
        let mut world =
            World::new(family, "CREATE TABLE items (id int PRIMARY KEY); INSERT INTO items VALUES (1), (2), (3)").await;
        let launch = world.launch(ITEMS, ", snapshot: { on_filled_column: read_again }");
        launch.run_until_caught_up().await;
        let query = "SELECT CAST(id AS text), CAST(a AS text), CAST(b AS text) FROM items ORDER BY id";
        // While nobody reads, and in the middle of the stream.
        world.run("ALTER TABLE items ADD a int DEFAULT 7").await;
        launch.run_until_caught_up().await;
        let mut process = launch.run();
        process.wait_for("a status", LIMIT, |status| status["ready"] == true).await;
        world
            .run("ALTER TABLE items ADD b int NOT NULL DEFAULT 8; DELETE FROM items WHERE id = 2; INSERT INTO items VALUES (4, 1, 2)")
            .await;
        world.until_held(&mut process, query, &["1|7|8", "3|7|8", "4|1|2"]).await;
        process.stop().await;
        launch.assert_equal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_online_schema_change_loses_no_row() {
    for family in families() {
        let mut world = World::new(family, &items(200)).await;
        let launch = world.launch(ITEMS, "");
        launch.run_until_caught_up().await;
        let mut process = launch.run();
        process.wait_for("a status", LIMIT, |status| status["ready"] == true).await;
        // As gh-ost does it: a copy with the new column, changes applied to both, then one rename of two tables.
        world
            .run(
                "CREATE TABLE _items_gho LIKE items; ALTER TABLE _items_gho ADD extra int; \
                 INSERT INTO _items_gho (id, n, t) SELECT id, n, t FROM items WHERE id <= 100; \
                 UPDATE items SET n = 1000 WHERE id = 7; UPDATE _items_gho SET n = 1000 WHERE id = 7; \
                 INSERT INTO _items_gho (id, n, t) SELECT id, n, t FROM items WHERE id > 100; \
                 INSERT INTO items VALUES (201, 201, 'late'); INSERT INTO _items_gho VALUES (201, 201, 'late', NULL); \
                 RENAME /* gh-ost */ TABLE items TO _items_del, _items_gho TO items; \
                 INSERT INTO items VALUES (202, 202, 'after', 5); UPDATE items SET extra = 6 WHERE id = 1; \
                 DELETE FROM items WHERE id = 2; DROP TABLE _items_del",
            )
            .await;
        let query = "SELECT CAST(id AS text), CAST(n AS text), CAST(extra AS text) FROM items WHERE id IN (1, 2, 7, 201, 202) ORDER BY id";
        world.until_held(&mut process, query, &["1|1|6", "7|1000|∅", "201|201|∅", "202|202|5"]).await;
        process.stop().await;
        world.assert_equal(SUMS).await;
        assert!(launch.whole_log().contains("going on with it"));
        // Any other table in its place has other rows.
        world
            .run("CREATE TABLE other LIKE items; INSERT INTO other VALUES (9, 9, 'nine', 9); RENAME TABLE items TO old, other TO items")
            .await;
        launch.run_until_caught_up().await;
        assert_eq!(world.held(ROWS).await, ["9|9|nine"], "{family:?}");
        launch.assert_equal();
        assert_eq!(table(&launch.status(), "items")["rejects_open"], 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_dropped_and_made_again_is_read_anew() {
    for family in families() {
        let mut world = World::new(family, &items(3)).await;
        let launch = world.launch(ITEMS, "");
        launch.run_until_caught_up().await;
        let mut process = launch.run();
        world.run("INSERT INTO items VALUES (4, 4, 'd')").await;
        world.until_held(&mut process, "SELECT t FROM items WHERE id = 4", &["d"]).await;
        world.run("DROP TABLE items").await;
        process.wait_for_log("was dropped or renamed", LIMIT).await;
        world
            .run("CREATE TABLE items (id int PRIMARY KEY, n int, t varchar(9)); INSERT INTO items VALUES (7, 8, 'new')")
            .await;
        world.until_held(&mut process, ROWS, &["7|8|new"]).await;
        process.stop().await;
        launch.assert_equal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_becomes_visible_at_once_or_says_that_it_does_not() {
    for family in families() {
        let mut world = World::new(family, &items(20_000)).await;
        world.run("CREATE TABLE more LIKE items; INSERT INTO more SELECT id + 20000, n, t FROM items").await;
        let launch = world.launch(ITEMS, "");
        launch.run_until_caught_up().await;
        let mut process = launch.run();
        process.wait_for("a status", LIMIT, |status| status["ready"] == true).await;
        world.run("INSERT INTO items SELECT * FROM more").await;
        let counted = "SELECT CAST(count(*) AS text) FROM items";
        let begun = Instant::now();
        loop {
            let count = world.held(counted).await.remove(0);
            if count == "40000" {
                break;
            }
            assert_eq!(count, "20000", "half a transaction is visible");
            assert!(begun.elapsed() < LIMIT, "{}", process.log_tail());
            tokio::time::sleep(Duration::from_millis(20)).await;
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
        world.assert_equal(SUMS).await;
        small.assert_equal();
    }
}

/// GIVEN transactions with a long document each, WHEN they wait to be read, THEN an epoch ends
/// between two of them when it has its bytes: what one is in was handed out in the middle of it, and its end has to be told.
#[tokio::test(flavor = "multi_thread")]
async fn transactions_of_a_document_each_do_not_wait_for_one_another() {
    const DOCUMENTS: u64 = 12;
    for family in families() {
        let mut world = World::new(family, "CREATE TABLE items (id int PRIMARY KEY, n int, t longtext)").await;
        let url = format!("mysql://root@127.0.0.1:{}?ssl-mode=disabled", world.port);
        let launch = world.launch_epochs(&url, ITEMS, "", "every: 60s, max_bytes: 4MiB");
        launch.run_until_caught_up().await;
        for n in 1..=DOCUMENTS {
            world.run(&format!("INSERT INTO items VALUES ({n}, {n}, repeat(sha2('{n}', 256), 32768))")).await;
        }
        launch.run_until_caught_up().await;
        world.assert_equal(SUMS).await;
        let rows = LogReader::folder(&world.path().join("lake")).await.written_at_once("items");
        assert!(rows.iter().all(|rows| *rows <= 4), "{family:?}, rows of each epoch: {rows:?}");
        assert_eq!(rows.iter().sum::<u64>(), DOCUMENTS);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_transactions_and_tagged_ones_are_read_like_others() {
    for family in families() {
        // What others compress would be in the way of those who share the server.
        let server = Server::start(family, &[]);
        let mut world = World::on(&server, &items(100)).await;
        let launch = world.launch(ITEMS, "");
        launch.run_until_caught_up().await;
        if family == Family::MySql {
            world
                .run(
                    "SET binlog_transaction_compression = ON; BEGIN; UPDATE items SET n = n + 1; DELETE FROM items WHERE id < 10; \
                     INSERT INTO items VALUES (1000, 1, 'compressed'); COMMIT; \
                     SET gtid_next = 'AUTOMATIC:blue'; INSERT INTO items VALUES (1001, 1, 'tagged'); SET gtid_next = 'AUTOMATIC'",
                )
                .await;
        } else {
            world
                .run(
                    "SET GLOBAL log_bin_compress = ON; BEGIN; UPDATE items SET n = n + 1, t = repeat('b', 190); \
                     DELETE FROM items WHERE id < 10; COMMIT; SET GLOBAL log_bin_compress = OFF",
                )
                .await;
        }
        launch.run_until_caught_up().await;
        world.assert_equal(ROWS).await;
        // What was read of a tagged transaction is known again.
        world.run("INSERT INTO items VALUES (2000, 1, 'last')").await;
        launch.run_until_caught_up().await;
        world.assert_equal(ROWS).await;
        launch.assert_equal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_a_group_are_visible_together() {
    for family in families() {
        let setup = "CREATE TABLE items (id int PRIMARY KEY, n int); INSERT INTO items VALUES (0, 0); \
            CREATE TABLE parts LIKE items; INSERT INTO parts VALUES (0, 0)";
        let world = World::new(family, setup).await;
        let apart = world.launch("{ items: { from: $.items }, parts: { from: $.parts } }", "");
        let text = std::fs::read_to_string(apart.topology()).unwrap();
        let own: Vec<&str> = text.lines().filter(|line| !line.starts_with("admin:")).collect();
        let launch = Launch::named(
            world.path(),
            "grouped",
            &format!("{}\ngroups: {{ pair: [items, parts] }}\n", own.join("\n")),
        );
        launch.run_until_caught_up().await;
        let mut process = launch.run();
        let stop = CancellationToken::new();
        let writer = tokio::spawn(write_pairs(world.connect().await, stop.clone()));
        // One statement sees one state.
        let query = "SELECT CAST(i.c AS text), CAST(i.s AS text), CAST(p.c AS text), CAST(p.s AS text) FROM \
            (SELECT count(*) AS c, total(n) AS s FROM items) AS i, (SELECT count(*) AS c, total(n) AS s FROM parts) AS p";
        let (mut seen, begun) = (BTreeSet::new(), Instant::now());
        while seen.len() < 12 {
            let state = world.held(query).await.remove(0);
            let values: Vec<&str> = state.split('|').collect();
            assert_eq!(values[..2], values[2..], "{family:?}: half a transaction is visible");
            seen.insert(state);
            assert!(begun.elapsed() < LIMIT && !process.has_ended(), "{seen:?}\n{}", process.log_tail());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.cancel();
        writer.await.unwrap();
        process.stop().await;
        launch.run_until_caught_up().await;
        launch.assert_equal();
    }
}

/// Both tables hold the same after every transaction, and not before.
async fn write_pairs(mut conn: Conn, stop: CancellationToken) {
    let mut turn = 0;
    while !stop.is_cancelled() {
        turn += 1;
        let sql = format!(
            "BEGIN; INSERT INTO items VALUES ({turn}, {turn}); UPDATE items SET n = n + 1 WHERE id = {0}; \
             DELETE FROM items WHERE id = {1}; INSERT INTO parts VALUES ({turn}, {turn}); \
             UPDATE parts SET n = n + 1 WHERE id = {0}; DELETE FROM parts WHERE id = {1}; COMMIT",
            turn / 2,
            turn / 3,
        );
        run(&mut conn, &sql).await;
    }
}
