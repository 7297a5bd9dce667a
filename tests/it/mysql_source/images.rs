//! Row images that leave columns out, metadata that leaves names out, and documents that are sent as differences.

use tokio_util::sync::CancellationToken;

use crate::mysql_source::{ITEMS, ROWS, World, families, items, write_until};
use crate::support::mysql::{Family, Server};
use crate::support::process::{LIMIT, table};

const CHANGES: &str = "INSERT INTO wide VALUES (1, 'a', repeat('x', 900), 1), (2, 'b', 'text', NULL), (3, NULL, 'c', 3), (4, 'd', 'd', 4); \
    INSERT INTO wide (id) VALUES (5); UPDATE wide SET v = 'new' WHERE id = 1; UPDATE wide SET n = NULL WHERE id = 3; \
    UPDATE wide SET id = 20, n = 7 WHERE id = 2; DELETE FROM wide WHERE id = 4; UPDATE wide SET t = 'later' WHERE id = 20; \
    UPDATE wide SET id = 30 WHERE id = 3";
const WIDE: &str = "SELECT CAST(id AS text), v, t, CAST(n AS text) FROM wide ORDER BY id";

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_row_image_rows_end_equal() {
    for family in families() {
        for image in ["FULL", "NOBLOB", "MINIMAL"] {
            let server = Server::start(family, &[&format!("--binlog-row-image={image}")]);
            let mut world = World::on(
                &server,
                "CREATE TABLE wide (id int PRIMARY KEY, v varchar(20) DEFAULT 'dflt', t text, n int DEFAULT 5); \
                 INSERT INTO wide VALUES (100, 'there', 'already', 1)",
            )
            .await;
            let launch = world.launch("{ wide: { from: $.wide } }", "");
            launch.run_until_caught_up().await;
            world.run(CHANGES).await;
            world.run("UPDATE wide SET v = 'changed' WHERE id = 100").await;
            launch.run_until_caught_up().await;
            world.assert_equal(WIDE).await;
            launch.assert_equal();
            assert_eq!(table(&launch.status(), "wide")["rejects_open"], 0, "{family:?} {image}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn minimal_images_are_read_under_load() {
    for family in families() {
        let server = Server::start(family, &["--binlog-row-image=MINIMAL"]);
        let mut world = World::on(&server, &items(20_000)).await;
        let stop = CancellationToken::new();
        let writer = tokio::spawn(write_until(world.connect().await, stop.clone()));
        let launch = world.launch(ITEMS, ", snapshot: { chunk_rows: 500 }");
        let mut broken = launch.clone().failpoints("mysql.snapshot.piece=1*sleep(600)->return(kill)").run();
        assert!(!broken.exit(LIMIT).await.success());
        launch.run_until_caught_up().await;
        stop.cancel();
        writer.await.unwrap();
        launch.run_until_caught_up().await;
        world.assert_equal(ROWS).await;
        launch.assert_equal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_are_sent_as_differences_end_equal() {
    if !families().contains(&Family::MySql) {
        return;
    }
    let mut world = World::new(
        Family::MySql,
        "CREATE TABLE docs (id int PRIMARY KEY, j json, n int); \
         INSERT INTO docs VALUES (1, '{\"a\": [1, 2, 3], \"b\": {\"c\": \"x\"}, \"long\": \"................................................................\"}', 1)",
    )
    .await;
    let launch = world.launch("{ docs: { from: $.docs } }", "");
    launch.run_until_caught_up().await;
    world
        .run(
            "SET binlog_row_value_options = PARTIAL_JSON; UPDATE docs SET j = JSON_SET(j, '$.b.c', 'y', '$.new', TRUE); \
             UPDATE docs SET j = JSON_REMOVE(j, '$.a[1]'), n = 2; UPDATE docs SET j = JSON_REPLACE(j, '$.a[0]', 1.5)",
        )
        .await;
    launch.run_until_caught_up().await;
    world.assert_equal("SELECT CAST(id AS text), CAST(j AS text), CAST(n AS text) FROM docs").await;
    launch.assert_equal();
    assert_eq!(table(&launch.status(), "docs")["rejects_open"], 0);
}
