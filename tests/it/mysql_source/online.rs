//! Online schema changes as pt-online-schema-change and gh-ost make them, from their first statement to their last, while
//! others write.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio_util::sync::CancellationToken;

use crate::mysql_source::{ITEMS, World, families, items, run};
use crate::support::process::{LIMIT, table};

/// A deadlock, or a lock that was not had in time: the transaction is tried again.
const TRY_AGAIN: [u16; 2] = [1213, 1205];

/// Whether all of it was done.
async fn attempt(conn: &mut Conn, statements: &[String]) -> bool {
    for sql in statements {
        match conn.query_drop(sql).await {
            Ok(()) => {}
            Err(mysql_async::Error::Server(refused)) if TRY_AGAIN.contains(&refused.code) => {
                run(conn, "ROLLBACK").await;
                return false;
            }
            Err(error) => panic!("{sql}: {error}"),
        }
    }
    true
}

/// Inserts, updates, deletes and moves of keys, whatever other columns there are.
async fn write(mut conn: Conn, stop: CancellationToken) -> u64 {
    let mut turn = 0_u64;
    while !stop.is_cancelled() {
        let id = turn * 37 % 20_000;
        let statements = [
            "BEGIN".to_owned(),
            format!("UPDATE items SET n = n + 1 WHERE id = {id}"),
            format!("DELETE FROM items WHERE id = {}", id + 1),
            format!("INSERT INTO items (id, n, t) VALUES ({}, {turn}, repeat('z', {}))", 100_000 + turn, turn % 50),
            format!("UPDATE items SET id = {} WHERE id = {}", 500_000 + turn, id + 2),
            format!("UPDATE items SET id = -{} WHERE id = {}", turn + 1, 19_999 - id),
            "COMMIT".to_owned(),
        ];
        turn += u64::from(attempt(&mut conn, &statements).await);
    }
    turn
}

/// The copy with its new columns, the triggers that keep it up, and the rows, chunk by chunk.
async fn copy(conn: &mut Conn, copy: &str) {
    run(
        conn,
        &format!(
            "CREATE TABLE {copy} LIKE items; ALTER TABLE {copy} ADD extra int, MODIFY n bigint, MODIFY t varchar(300)"
        ),
    )
    .await;
    let replace = format!("REPLACE INTO {copy} (id, n, t) VALUES (NEW.id, NEW.n, NEW.t)");
    for trigger in [
        format!("osc_del AFTER DELETE ON items FOR EACH ROW DELETE IGNORE FROM {copy} WHERE id <=> OLD.id"),
        format!(
            "osc_upd AFTER UPDATE ON items FOR EACH ROW BEGIN DELETE IGNORE FROM {copy} WHERE NOT (OLD.id <=> NEW.id) \
             AND id <=> OLD.id; {replace}; END"
        ),
        format!("osc_ins AFTER INSERT ON items FOR EACH ROW {replace}"),
    ] {
        conn.query_drop(format!("CREATE TRIGGER {trigger}")).await.unwrap();
    }
    for chunk in 0..20 {
        let range = match chunk {
            0 => "id <= 1000".to_owned(),
            19 => "id > 19000".to_owned(),
            _ => format!("id > {} AND id <= {}", chunk * 1000, (chunk + 1) * 1000),
        };
        let sql = format!(
            "INSERT IGNORE INTO {copy} (id, n, t) SELECT id, n, t FROM items FORCE INDEX (PRIMARY) WHERE {range} \
             LOCK IN SHARE MODE"
        );
        while !attempt(conn, std::slice::from_ref(&sql)).await {}
    }
}

/// gh-ost's last step: the old name is taken by a sentry, and the rename waits until that is gone.
async fn cut_over(world: &World, conn: &mut Conn) {
    run(conn, "CREATE TABLE _items_del (id int PRIMARY KEY) COMMENT 'ghost-cut-over-sentry'").await;
    run(conn, "LOCK TABLES items WRITE, _items_del WRITE").await;
    let mut renamer = world.connect().await;
    let rename = tokio::spawn(async move {
        run(&mut renamer, "RENAME /* gh-ost */ TABLE items TO _items_del, _items_gho TO items").await;
    });
    let mut looker = world.connect().await;
    let waits = format!(
        "SELECT id FROM information_schema.processlist WHERE db = '{}' AND info LIKE 'RENAME%' AND state LIKE '%metadata lock%'",
        world.database
    );
    while looker.query_first::<u64, _>(&waits).await.unwrap().is_none() {
        assert!(!rename.is_finished(), "it did not wait");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    run(conn, "DROP TABLE _items_del; UNLOCK TABLES").await;
    rename.await.unwrap();
    run(conn, "DROP TABLE _items_del").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_rebuilt_under_writers_ends_equal_to_the_source() {
    for family in families() {
        for ghost in [false, true] {
            let world = World::new(family, &items(20_000)).await;
            let launch = world.launch(ITEMS, ", snapshot: { chunk_rows: 2000 }");
            let mut process = launch.run();
            let stop = CancellationToken::new();
            let writer = tokio::spawn(write(world.connect().await, stop.clone()));
            // The rows that are there are being read while it begins.
            process.wait_for_log("reading the rows that are there", LIMIT).await;
            let mut conn = world.connect().await;
            if ghost {
                copy(&mut conn, "_items_gho").await;
                cut_over(&world, &mut conn).await;
            } else {
                copy(&mut conn, "_items_new").await;
                run(&mut conn, "RENAME TABLE items TO _items_old, _items_new TO items; DROP TABLE _items_old").await;
            }
            process.wait_for_log("going on with it", LIMIT).await;
            run(&mut conn, "INSERT INTO items (id, n, t, extra) VALUES (900000, 1, 'after', 7)").await;
            stop.cancel();
            assert!(writer.await.unwrap() > 0);
            process.stop().await;
            launch.run_until_caught_up().await;
            launch.assert_equal();
            assert_eq!(world.held("SELECT CAST(extra AS text) FROM items WHERE id = 900000").await, ["7"]);
            assert_eq!(table(&launch.status(), "items")["rejects_open"], 0, "{family:?}, gh-ost: {ghost}");
        }
    }
}
