//! Partitions and tablespaces: what an ALTER does to rows without any event, also to the table that it only mentions.

use mysql_async::prelude::Queryable;

use crate::mysql_source::{World, families, run};
use crate::support::mysql::{Family, Server};
use crate::support::process::{Launch, table};

const COLUMNS: &str = "(id int PRIMARY KEY, n int, t varchar(200))";
const PARTITIONS: &str = "PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN (20), \
    PARTITION p2 VALUES LESS THAN (30), PARTITION p3 VALUES LESS THAN (40), PARTITION p4 VALUES LESS THAN (50))";
const TABLES: &str = "{ parted: { from: $.parted }, plain: { from: $.plain } }";

/// Two tables that are read, one of them partitioned, and two such that nobody reads.
async fn world(server: &Server) -> World {
    let mut world = World::on(
        server,
        &format!(
            "CREATE TABLE parted {COLUMNS} {PARTITIONS}; CREATE TABLE outside {COLUMNS} {PARTITIONS}; \
             CREATE TABLE plain {COLUMNS}; CREATE TABLE other {COLUMNS}; INSERT INTO plain VALUES (1, 1, 'plain'); \
             INSERT INTO other VALUES (31, 1, 'other')"
        ),
    )
    .await;
    for id in [5, 15, 25, 35, 45] {
        world
            .run(&format!(
                "INSERT INTO parted VALUES ({id}, 1, 'parted'); INSERT INTO outside VALUES ({id}, 2, 'outside')"
            ))
            .await;
    }
    world
}

/// Reads again what an ALTER changed; then both sides are equal, and what the table holds.
async fn after(world: &mut World, launch: &Launch, sql: &str, name: &str) -> Vec<String> {
    world.run(sql).await;
    launch.run_until_caught_up().await;
    launch.assert_equal();
    world.held(&format!("SELECT CAST(id AS text), t FROM {name} ORDER BY id")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_come_and_go_with_partitions_are_read_again() {
    for family in families() {
        let server = Server::start(family, &[]);
        let mut world = world(&server).await;
        let again = ", snapshot: { on_filled_column: read_again }";
        let launch = world.launch(TABLES, again);
        launch.run_until_caught_up().await;
        launch.assert_equal();
        let held = after(&mut world, &launch, "ALTER TABLE parted TRUNCATE PARTITION p0, p1", "parted").await;
        assert_eq!(held, ["25|parted", "35|parted", "45|parted"], "{family:?}");
        let held = after(&mut world, &launch, "ALTER TABLE parted DROP PARTITION p2", "parted").await;
        assert_eq!(held, ["35|parted", "45|parted"], "{family:?}");
        let exchange = "ALTER TABLE parted EXCHANGE PARTITION p3 WITH TABLE other";
        assert_eq!(after(&mut world, &launch, exchange, "parted").await, ["31|other", "45|parted"], "{family:?}");
        // Nobody reads the table that is altered.
        let exchange = "ALTER TABLE outside EXCHANGE PARTITION p0 WITH TABLE plain";
        assert_eq!(after(&mut world, &launch, exchange, "plain").await, ["5|outside"], "{family:?}");
        // Between two that are read.
        world.run("UPDATE plain SET id = 41").await;
        let exchange = "ALTER TABLE parted EXCHANGE PARTITION p4 WITH TABLE plain";
        assert_eq!(after(&mut world, &launch, exchange, "plain").await, ["45|parted"], "{family:?}");
        assert_eq!(world.held("SELECT t FROM parted WHERE id = 41").await, ["outside"], "{family:?}");
        if family == Family::MariaDb {
            let convert = "ALTER TABLE outside CONVERT TABLE plain TO PARTITION p5 VALUES LESS THAN (60); \
                ALTER TABLE outside CONVERT PARTITION p1 TO TABLE plain";
            // What does not lie in the new partition would be refused.
            world.run("UPDATE plain SET id = 55").await;
            assert_eq!(after(&mut world, &launch, convert, "plain").await, ["15|outside"], "{family:?}");
        }
        import(&server, &mut world).await;
        launch.run_until_caught_up().await;
        launch.assert_equal();
        assert_eq!(world.held("SELECT t FROM plain").await, ["imported"], "{family:?}");
    }
}

/// Gives `plain` the file of another table in place of its own.
async fn import(server: &Server, world: &mut World) {
    world.run(&format!("CREATE TABLE origin {COLUMNS}; INSERT INTO origin VALUES (9, 9, 'imported')")).await;
    world.run("ALTER TABLE plain DISCARD TABLESPACE").await;
    let mut conn = world.connect().await;
    run(&mut conn, "FLUSH TABLES origin FOR EXPORT").await;
    let folder = server.data().join(&world.database);
    for kind in ["ibd", "cfg"] {
        std::fs::copy(folder.join(format!("origin.{kind}")), folder.join(format!("plain.{kind}"))).unwrap();
    }
    run(&mut conn, "UNLOCK TABLES").await;
    conn.query_drop("ALTER TABLE plain IMPORT TABLESPACE").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_rows_came_from_a_partition_says_that_it_needs_a_resync() {
    for family in families() {
        let mut world = world(crate::support::mysql::server(family)).await;
        let launch = world.launch(TABLES, "");
        launch.run_until_caught_up().await;
        world.run("ALTER TABLE outside EXCHANGE PARTITION p0 WITH TABLE plain").await;
        launch.run_until_caught_up().await;
        let status = launch.status();
        assert!(table(&status, "plain")["needs_resync"].is_string(), "{family:?}: {status}");
        assert!(table(&status, "parted")["needs_resync"].is_null(), "{family:?}: {status}");
        assert!(launch.other(&["table", "resync"], &["plain"]).status.success());
        launch.run_until_caught_up().await;
        launch.assert_equal();
        assert!(table(&launch.status(), "plain")["needs_resync"].is_null(), "{family:?}");
    }
}
