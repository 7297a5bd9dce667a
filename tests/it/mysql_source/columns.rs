//! A log that does not name columns (`binlog_row_metadata` as servers have it when nobody sets it): rows are read by the
//! columns that they were written with, or not at all.

use tokio_util::sync::CancellationToken;

use crate::mysql_source::{ITEMS, SUMS, World, families, items, run, write_until};
use crate::support::mysql::{Family, Server};
use crate::support::process::{LIMIT, table};

fn nameless(family: Family) -> Server {
    let metadata = if family == Family::MySql { "MINIMAL" } else { "NO_LOG" };
    Server::start(family, &[&format!("--binlog-row-metadata={metadata}")])
}

/// Every statement is followed by rows that only its columns fit.
const BACKLOG: &str = "INSERT INTO items VALUES (1, 4294967295, 'é', 'y', repeat('1', 700000)); \
    ALTER TABLE items ADD c decimal(12,2) AFTER id; INSERT INTO items VALUES (2, 1.25, 2, 'zwei', 'x', repeat('2', 700000)); \
    ALTER TABLE `items` DROP COLUMN b, ADD COLUMN `f g` set('p','q') NULL /*!50100 FIRST */, ALGORITHM = COPY; \
    INSERT INTO items VALUES ('p,q', 3, 2.25, 3, 'y', repeat('3', 700000)); \
    ALTER TABLE items CHANGE a d decimal(12,2) AFTER id, RENAME COLUMN c TO price; \
    INSERT INTO items VALUES (NULL, 4, -4, 4.5, 'x', repeat('4', 700000)); \
    ALTER TABLE items CHANGE price d decimal(12,2), CHANGE d price decimal(12,2); \
    INSERT INTO items VALUES ('q', 5, 5.5, -5, NULL, repeat('5', 700000)); \
    CREATE TABLE _items_gho LIKE items; ALTER TABLE _items_gho MODIFY e enum('new', 'x', 'y'), ADD late varchar(9) CHARACTER SET latin1; \
    INSERT INTO _items_gho SELECT items.*, NULL FROM items; \
    RENAME /* gh-ost */ TABLE items TO _items_del, _items_gho TO items; DROP TABLE _items_del; \
    INSERT INTO items VALUES (NULL, 6, 6.5, -6, 'new', repeat('6', 700000), 'ü'); \
    CREATE TABLE _items_new (`f g` set('p','q'), id int NOT NULL, d decimal(12,2), price decimal(12,2), late varchar(9), \
      e enum('new', 'x', 'y'), t mediumtext, PRIMARY KEY (id)); \
    INSERT INTO _items_new SELECT `f g`, id, d, price, late, e, t FROM items; \
    RENAME TABLE items TO _items_old, _items_new TO items; DROP TABLE IF EXISTS _items_old; \
    INSERT INTO items VALUES (NULL, 7, -7, 7.5, 'ß', 'x', repeat('7', 700000)); \
    ALTER TABLE items CONVERT TO CHARACTER SET utf8mb3, MODIFY id bigint; \
    INSERT INTO items VALUES (NULL, 9007199254740993, -8, 8.5, 'ø', 'y', repeat('8', 700000)); \
    CREATE TEMPORARY TABLE items (id int); ALTER TABLE items ADD x int; INSERT INTO items VALUES (9, 9); DROP TEMPORARY TABLE items; \
    SET SESSION binlog_format = STATEMENT; CREATE TEMPORARY TABLE items (id int); ALTER TABLE items ADD x int; \
    DROP TEMPORARY TABLE items; SET SESSION binlog_format = ROW; \
    ALTER TABLE aside DROP a; CREATE TABLE more AS SELECT * FROM aside; ALTER TABLE more ADD x int; \
    UPDATE items SET price = 20 WHERE id = 2; DELETE FROM items WHERE id = 4";

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_read_by_the_columns_that_they_were_written_with() {
    for family in families() {
        let server = nameless(family);
        let setup = "CREATE TABLE items (id int PRIMARY KEY, a int unsigned, b varchar(9), e enum('x', 'y'), t mediumtext); \
                     CREATE TABLE aside (a int, b int)";
        let mut world = World::on(&server, setup).await;
        let launch = world.launch(ITEMS, "");
        launch.run_until_caught_up().await;
        // While nobody reads: the catalog shows only what came of it.
        world.run(BACKLOG).await;
        let database = world.database.clone();
        world
            .run(&format!(
                "CREATE DATABASE away; USE away; CREATE TABLE items (z int); ALTER TABLE items ADD y int; \
            ALTER TABLE {database}.items MODIFY late varchar(9) CHARACTER SET latin1 FIRST; USE {database}"
            ))
            .await;
        world.run("INSERT INTO items VALUES ('é', NULL, 10, -10, 0.5, 'x', 'after')").await;
        // A piece is a MiB: some reach the log before it dies, in the middle of all that.
        for pieces in [2, 1] {
            let place = format!("mysql.stream.piece={pieces}*sleep(600)->return(kill)");
            let mut broken = launch.clone().failpoints(&place).run();
            assert!(!broken.exit(LIMIT).await.success(), "{family:?}: {}", broken.log_tail());
        }
        launch.run_until_caught_up().await;
        let query = "SELECT CAST(id AS text), CAST(a AS text), b, CAST(c AS text), CAST(d AS text), CAST(price AS text), e, \
                     CAST(f_g AS text), late, substr(t, 1, 1) || CAST(length(t) AS text) FROM items ORDER BY items.id";
        let expected = [
            "1|4294967295|é|∅|∅|∅|y|∅|∅|1700000",
            "2|∅|∅|∅|1.25|20.00|x|∅|∅|2700000",
            "3|3|∅|2.25|∅|∅|y|p,q|∅|3700000",
            "5|∅|∅|∅|-5.00|5.50|∅|q|∅|5700000",
            "6|∅|∅|∅|-6.00|6.50|new|∅|ü|6700000",
            "7|∅|∅|∅|-7.00|7.50|x|∅|ß|7700000",
            "10|∅|∅|∅|-10.00|0.50|x|∅|é|a5",
            "9007199254740993|∅|∅|∅|-8.00|8.50|y|∅|ø|8700000",
        ];
        assert_eq!(world.held(query).await, expected, "{family:?}");
        let status = launch.status();
        assert_eq!(table(&status, "items")["rejects_open"], 0, "{family:?} {status}");
        assert!(table(&status, "items")["needs_resync"].is_string(), "{family:?} {status}");
        assert!(!launch.whole_log().contains("read again"), "{}", launch.whole_log());
        // Rows that change have all of their columns; read again, all have.
        assert!(launch.other(&["table", "resync"], &["items"]).status.success());
        launch.run_until_caught_up().await;
        launch.assert_equal();
        assert!(table(&launch.status(), "items")["needs_resync"].is_null(), "{family:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_the_history_stops_the_source_or_is_read_again() {
    for family in families() {
        // Columns are gone; a type is another; a sign is, which only MySQL says.
        for unseen in ["DROP b", "MODIFY a bigint", "MODIFY a int unsigned"] {
            if unseen.ends_with("unsigned") && family == Family::MariaDb {
                continue;
            }
            let server = nameless(family);
            let mut world = World::on(
                &server,
                "CREATE TABLE items (id int PRIMARY KEY, a int, b varchar(9)); INSERT INTO items VALUES (1, 1, 'x')",
            )
            .await;
            let halting = world.launch(ITEMS, "");
            halting.run_until_caught_up().await;
            world.run(&format!("SET sql_log_bin = 0; ALTER TABLE items {unseen}; SET sql_log_bin = 1")).await;
            world.run("INSERT INTO items (id, a) VALUES (2, 2)").await;
            let mut process = halting.run();
            assert!(!process.exit(LIMIT).await.success());
            let log = process.log();
            assert!(log.contains("it was changed unseen") && log.contains("dataflow table resync"), "{log}");
            // Neither did anything of it become visible, nor does it the next time.
            let mut process = halting.run();
            assert!(!process.exit(LIMIT).await.success());
            assert_eq!(world.held("SELECT CAST(id AS text) FROM items").await, ["1"], "{family:?} {unseen}");
            if unseen == "DROP b" {
                assert!(halting.other(&["table", "resync"], &["items"]).status.success());
                halting.run_until_caught_up().await;
            } else {
                world.launch(ITEMS, ", snapshot: { on_unknown_columns: read_again }").run_until_caught_up().await;
            }
            let halting = world.launch(ITEMS, "");
            halting.assert_equal();
            world.run("INSERT INTO items (id, a) VALUES (3, 3)").await;
            halting.run_until_caught_up().await;
            halting.assert_equal();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_is_not_understood_stops_the_source_at_the_next_row() {
    for family in families() {
        let server = nameless(family);
        // Which index stands for the key once the other one is gone, the statements do not say.
        let create = "CREATE TABLE items (id int NOT NULL, n int NOT NULL, t varchar(9), UNIQUE KEY k (id), UNIQUE KEY l (n)); \
                      INSERT INTO items VALUES (1, 1, 'a')";
        let mut world = World::on(&server, create).await;
        let launch = world.launch(ITEMS, "");
        launch.run_until_caught_up().await;
        world.run("ALTER TABLE items DROP INDEX l; ALTER TABLE items DROP INDEX k, ADD PRIMARY KEY (id)").await;
        let mut process = launch.run();
        process.wait_for_log("its columns are not known from here on", LIMIT).await;
        process.stop().await;
        world.run("INSERT INTO items VALUES (2, 2, 'b')").await;
        let mut process = launch.run();
        assert!(!process.exit(LIMIT).await.success());
        assert!(process.log().contains("unique indexes stands for its primary key"), "{}", process.log_tail());
        let launch = world.launch(ITEMS, ", snapshot: { on_unknown_columns: read_again }");
        launch.run_until_caught_up().await;
        launch.assert_equal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_changes_is_read_without_names() {
    for family in families() {
        let server = nameless(family);
        let mut world = World::on(&server, &items(10)).await;
        let launch = world.launch(ITEMS, ", snapshot: { mode: never }");
        launch.run_until_caught_up().await;
        world.run("INSERT INTO items VALUES (11, 11, 'new'); ALTER TABLE items ADD m int AFTER id; INSERT INTO items VALUES (12, 5, 6, 'x')").await;
        launch.run_until_caught_up().await;
        let query = "SELECT CAST(id AS text), CAST(m AS text), CAST(n AS text), t FROM items ORDER BY id";
        assert_eq!(world.held(query).await, ["11|∅|11|new", "12|5|6|x"], "{family:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_change_while_rows_are_read_and_written() {
    for family in families() {
        let server = nameless(family);
        let mut world = World::on(&server, &items(20_000)).await;
        let stop = CancellationToken::new();
        let writer = tokio::spawn(write_until(world.connect().await, stop.clone()));
        let launch = world.launch(ITEMS, ", snapshot: { chunk_rows: 500 }");
        let mut process = launch.run();
        process.wait_for_log("reading the rows that are there", LIMIT).await;
        let mut other = world.connect().await;
        for turn in 0..6 {
            // The writer names no columns: only what stays behind its own may come, and go again.
            run(&mut other, &format!("ALTER TABLE items ADD c{turn} varchar(9) INVISIBLE, MODIFY n bigint")).await;
            run(&mut other, &format!("UPDATE items SET c{turn} = 'x' WHERE id = 1900{turn}")).await;
            run(&mut other, &format!("ALTER TABLE items DROP c{turn}, ADD d{turn} int INVISIBLE")).await;
        }
        stop.cancel();
        writer.await.unwrap();
        process.stop().await;
        launch.run_until_caught_up().await;
        world.assert_equal(SUMS).await;
        assert_eq!(table(&launch.status(), "items")["rejects_open"], 0, "{family:?}");
        launch.assert_equal();
    }
}
