//! Tables change their shape in the middle of everything; every row is decoded by the shape that it was written under.

use super::*;

/// Everything, whatever columns the table has in the end.
const END: &str =
    "SELECT CAST(id AS text), CAST(n AS text), CAST(price AS text), CAST(extra AS text) FROM items ORDER BY items.id";

/// A column is added, one dropped, one renamed, one widened, rows written between each, under the running process that is
/// killed in the middle.
#[tokio::test(flavor = "multi_thread")]
async fn columns_come_go_are_renamed_and_grow() {
    on_stages(async |stage| {
        let setup = filled(200, 64).replace("n bigint", "n int");
        let mut world = World::new(stage, &setup).await;
        let launch = world.launch("").await;
        let mut process = launch.run();
        world.until_agreed(&mut process, SUMS).await;
        world
            .run(
                "INSERT INTO items VALUES (1001, 1, 'a', 1); ALTER TABLE items ADD more int; \
                 INSERT INTO items VALUES (1002, 2, 'b', 2, 22); BEGIN; UPDATE items SET n = 0 WHERE id < 10; \
                 ALTER TABLE items DROP t; UPDATE items SET n = -1 WHERE id < 5; COMMIT",
            )
            .await;
        process.kill();
        world
            .run(
                "ALTER TABLE items ALTER n TYPE bigint; INSERT INTO items VALUES (1003, 5000000000, 3, 33); \
                 ALTER TABLE items RENAME more TO extra; UPDATE items SET extra = id WHERE id > 50",
            )
            .await;
        let mut process = launch.run();
        world.run("DELETE FROM items WHERE id = 1; UPDATE items SET id = id + 5000 WHERE id BETWEEN 20 AND 30").await;
        // Rows that did not change after a column was renamed have nothing under its new name: all of them change.
        world.run("UPDATE items SET extra = coalesce(extra, 7)").await;
        world.until_agreed(&mut process, END).await;
        process.stop().await;
        world.must_agree(&launch, END).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_dropped_and_made_again_while_nobody_reads() {
    on_stages(async |stage| {
        let mut world = World::new(stage, &filled(200, 64)).await;
        let launch = world.launch("").await;
        launch.run_until_caught_up().await;
        world.until_idle().await;
        world.run(&format!("UPDATE items SET n = 1; DROP TABLE items; {}", filled(50, 32))).await;
        world.run("DELETE FROM items WHERE id = 7").await;
        launch.run_until_caught_up().await;
        world.must_agree(&launch, ALL).await;
        world.run("UPDATE items SET n = 2 WHERE id > 20; INSERT INTO items VALUES (1001, 1, 'new', 1)").await;
        launch.run_until_caught_up().await;
        world.must_agree(&launch, ALL).await;
    })
    .await;
}

/// It is not in the publication any more, and the process cannot see that from the stream; the next start finds it.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_dropped_and_made_again_under_the_running_process() {
    on_stages(async |stage| {
        let mut world = World::new(stage, &filled(200, 64)).await;
        let launch = world.launch("").await;
        let mut process = launch.run();
        world.until_agreed(&mut process, ALL).await;
        world.run(&format!("DELETE FROM items WHERE id < 9; DROP TABLE items; {}", filled(50, 32))).await;
        world.run("ALTER PUBLICATION p ADD TABLE items; DELETE FROM items WHERE id = 7").await;
        process.stop().await;
        launch.run_until_caught_up().await;
        world.must_agree(&launch, ALL).await;
    })
    .await;
}

/// Changes that the publication does not show: they come between `out` and `back`.
fn missed(turn: usize, out: &str, back: &str) -> String {
    format!(
        "{out}; UPDATE items SET n = -{turn} WHERE id > 50; DELETE FROM items WHERE id = {turn} + 1; \
         INSERT INTO items VALUES ({turn} + 2001, 1, 'missed', 1); {back}"
    )
}

/// No message of the stream says that changes did not come because the publication did not show them.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_leaves_the_publication_and_comes_back() {
    on_stages(async |stage| {
        let mut world = World::new(stage, &filled(100, 64)).await;
        let launch = world.launch(", heartbeat: 1s").await;
        launch.run_until_caught_up().await;
        let whole = "ALTER PUBLICATION p SET (publish = 'insert, update, delete, truncate')";
        let schema = "ALTER PUBLICATION p ADD TABLES IN SCHEMA public";
        let ways = [
            ("ALTER PUBLICATION p DROP TABLE items", "ALTER PUBLICATION p ADD TABLE items"),
            ("ALTER PUBLICATION p SET (publish = 'insert')", whole),
            ("ALTER PUBLICATION p DROP TABLE items", schema),
            ("ALTER PUBLICATION p DROP TABLES IN SCHEMA public", schema),
        ];
        for (turn, (out, back)) in ways.into_iter().enumerate() {
            world.run(&missed(turn, out, back)).await;
            launch.run_until_caught_up().await;
            world.must_agree(&launch, ALL).await;
        }
        world.run("ALTER PUBLICATION p SET TABLE items").await;
        let mut process = launch.run();
        for (turn, (out, back)) in ways.into_iter().enumerate() {
            process.wait_for("a status", LIMIT, |status| status["ready"] == true).await;
            world.until_agreed(&mut process, ALL).await;
            // At once, or the process may see it out, and adds it or halts.
            world.run(&format!("BEGIN; {}; COMMIT", missed(turn + 10, out, back))).await;
            world.until_agreed(&mut process, ALL).await;
        }
        process.stop().await;
        // Left alone, nothing is read again: nor by a schema beside the table's own entry.
        world.run("ALTER PUBLICATION p ADD TABLE items").await;
        let mut process = launch.clone().arg("--until-caught-up").run();
        assert!(process.exit(LIMIT).await.success(), "{}", process.log_tail());
        assert!(!process.log().contains("reading the rows"), "{}", process.log_tail());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_renamed_and_back() {
    on_stages(async |stage| {
        let mut world = World::new(stage, &filled(100, 64)).await;
        let launch = world.launch("").await;
        let mut process = launch.run();
        world.until_agreed(&mut process, ALL).await;
        world.run("ALTER TABLE items RENAME TO old_items; UPDATE old_items SET n = 1").await;
        must_end(&mut process, &["public.items is called public.old_items now", "rename it back"]).await;
        world.run("ALTER TABLE old_items RENAME TO items; UPDATE items SET n = 2").await;
        launch.run_until_caught_up().await;
        world.must_agree(&launch, ALL).await;
    })
    .await;
}

/// The old one is out of the way and a new one stands in its place, in one transaction.
fn swap(turn: u32) -> String {
    let other = ITEMS.replace("items", "next_items");
    format!(
        "BEGIN; {other}; ALTER TABLE items RENAME TO old_items_{turn}; ALTER TABLE next_items RENAME TO items; \
         ALTER PUBLICATION p ADD TABLE items; INSERT INTO items VALUES (1, {turn}, 'the new one', 1), (7001, 1, 'x', 1); COMMIT; \
         UPDATE items SET n = n + 1 WHERE id = 1"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_renamed_and_another_takes_its_name() {
    on_stages(async |stage| {
        let mut world = World::new(stage, &filled(100, 64)).await;
        let launch = world.launch("").await;
        let mut process = launch.run();
        world.until_agreed(&mut process, ALL).await;
        // The stream meets the new one before anybody looks into the catalog again.
        world.run("INSERT INTO items VALUES (3001, 1, 'to the old one', 1)").await;
        world.run(&swap(1)).await;
        process.wait_for_log("public.items is another one by that name now", LIMIT).await;
        world.until_agreed(&mut process, ALL).await;
        world.run("UPDATE old_items_1 SET n = 9; INSERT INTO items VALUES (8001, 1, 'to the new one', 1)").await;
        world.until_agreed(&mut process, ALL).await;
        process.stop().await;
        world.must_agree(&launch, ALL).await;
        // Rows of the old one by that name that are still to come are not those of the new one.
        world.until_idle().await;
        world.run("UPDATE items SET n = 77; INSERT INTO items VALUES (9001, 1, 'to the old one', 1)").await;
        world.run(&swap(2)).await;
        launch.run_until_caught_up().await;
        world.must_agree(&launch, ALL).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_emptied_while_others_write() {
    on_stages(async |stage| {
        let mut world = World::new(stage, &filled(3_000, 64)).await;
        let launch = world.launch("").await;
        let mut process = launch.run();
        let writer = world.write(3_000);
        for _ in 0..3 {
            world
                .run("TRUNCATE items; INSERT INTO items SELECT n, n, 'again', NULL FROM generate_series(1, 500) n")
                .await;
        }
        writer.end().await;
        world.until_agreed(&mut process, ALL).await;
        process.stop().await;
        world.must_agree(&launch, ALL).await;
    })
    .await;
}
