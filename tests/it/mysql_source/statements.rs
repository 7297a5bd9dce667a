//! What stands in the log without its rows: it halts the source, wherever it was, unless somebody says that it does no harm.

use futures::future::join_all;
use mysql_async::prelude::Queryable;

use crate::mysql_source::lost::halts;
use crate::mysql_source::{ITEMS, ROWS, World, families, items};
use crate::support::mysql::{Family, Server};

/// `items`, a function that changes it, and a database that nobody reads, with a trigger that changes it too.
async fn world(server: &Server) -> (World, String) {
    let mut world = World::on(server, &items(3)).await;
    let database = world.database.clone();
    let audit = format!("audit_{database}");
    world.run(&format!("CREATE DATABASE {audit}; CREATE TABLE {audit}.entries (n int)")).await;
    let mut conn = world.connect().await;
    for sql in [
        "CREATE FUNCTION f() RETURNS int DETERMINISTIC MODIFIES SQL DATA BEGIN UPDATE items SET n = n + 1; RETURN 1; END"
            .to_owned(),
        format!(
            "CREATE TRIGGER {audit}.fires AFTER INSERT ON {audit}.entries FOR EACH ROW UPDATE {database}.items SET n = n + 1"
        ),
    ] {
        conn.query_drop(sql).await.unwrap();
    }
    (world, audit)
}

/// Runs it in a session of statement format.
async fn by_statement(world: &mut World, sql: &str) {
    world.run(&format!("SET SESSION binlog_format = STATEMENT; {sql}; SET SESSION binlog_format = ROW")).await;
}

const BOTH: [(&str, &str); 5] = [
    ("UPDATE items SET n = 9", "UPDATE"),
    ("SELECT f()", "SELECT"),
    ("DO f()", "SELECT"),
    ("SET @x = f()", "SELECT"),
    ("LOAD DATA INFILE '$' INTO TABLE items", "LOAD DATA"),
];
const OF_MARIADB: [(&str, &str); 3] = [
    ("SET STATEMENT max_statement_time = 100 FOR DELETE FROM items", "DELETE"),
    ("ANALYZE UPDATE items SET n = 2", "UPDATE"),
    ("CREATE TABLE made SELECT f() AS a", "CREATE TABLE … SELECT"),
];

async fn halting(family: Family) {
    let server = Server::start(family, &["--secure-file-priv="]);
    let own = if family == Family::MariaDb { &OF_MARIADB[..] } else { &[] };
    for (sql, kind) in BOTH.iter().chain(own) {
        let (mut world, _) = world(&server).await;
        let launch = world.launch(ITEMS, "");
        launch.run_until_caught_up().await;
        let file = world.path().join("rows");
        std::fs::write(&file, "70\t1\tloaded\n").unwrap();
        by_statement(&mut world, &sql.replace('$', file.to_str().unwrap())).await;
        world.run("INSERT INTO items VALUES (80, 1, 'behind it')").await;
        halts(&launch, &[&format!("a statement of kind {kind} changed data"), "set binlog_format = ROW"]).await;
        assert_eq!(world.held("SELECT CAST(max(id) AS text) FROM items").await, ["3"], "{family:?}: {sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_without_rows_in_the_log_halts_loudly() {
    join_all(families().into_iter().map(halting)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_on_other_databases_halt_until_they_are_said_to_do_no_harm() {
    for family in families() {
        let server = Server::start(family, &[]);
        let (mut world, audit) = world(&server).await;
        let launch = world.launch(ITEMS, "");
        launch.run_until_caught_up().await;
        // What managed clouds write for themselves.
        world.run("CREATE TABLE mysql.rds_heartbeat2 (id int PRIMARY KEY, value bigint)").await;
        let beat = "INSERT INTO mysql.rds_heartbeat2(id, value) values (1, 1) ON DUPLICATE KEY UPDATE value = 2";
        by_statement(
            &mut world,
            &format!("{beat}; {beat}; CREATE TEMPORARY TABLE passing (n int); DROP TEMPORARY TABLE passing"),
        )
        .await;
        world.run("INSERT INTO items VALUES (4, 4, 'beside it')").await;
        launch.run_until_caught_up().await;
        launch.assert_equal();
        // What changes rows that are read by a trigger, in another database.
        by_statement(&mut world, &format!("INSERT INTO {audit}.entries VALUES (1)")).await;
        world.run("INSERT INTO items VALUES (5, 5, 'behind it')").await;
        let way_out = format!("`ignore_statements_on: [{audit}]`");
        halts(&launch, &["a statement of kind INSERT", &format!("it is about {audit}"), &way_out, "is missed"]).await;
        assert_eq!(world.held("SELECT CAST(max(id) AS text) FROM items").await, ["4"], "{family:?}");
        let passing = world.launch(ITEMS, &format!(", ignore_statements_on: [{audit}]"));
        passing.run_until_caught_up().await;
        assert_eq!(world.held("SELECT t FROM items WHERE id = 5").await, ["behind it"], "{family:?}");
        // It is as the message says.
        let (code, report) = passing.verify(&[]);
        assert_eq!(code, 1, "{family:?}: {report:#}");
        assert!(passing.other(&["table", "resync"], &["items"]).status.success());
        passing.run_until_caught_up().await;
        passing.assert_equal();
        // Where nothing fires, nothing is missed.
        world.run(&format!("DROP TRIGGER {audit}.fires")).await;
        by_statement(&mut world, &format!("INSERT INTO {audit}.entries VALUES (2); DELETE FROM {audit}.entries")).await;
        world.run("UPDATE items SET n = 0 WHERE id = 5").await;
        passing.run_until_caught_up().await;
        world.assert_equal(ROWS).await;
        passing.assert_equal();
    }
}

/// The server says so with a TRUNCATE, when the table is opened for the first time.
#[tokio::test(flavor = "multi_thread")]
async fn tables_in_memory_are_empty_after_a_restart() {
    for family in families() {
        let server = Server::start(family, &[]);
        let memory = "(id int PRIMARY KEY, n int, t varchar(9)) ENGINE=MEMORY";
        let mut world = World::on(
            &server,
            &format!(
                "CREATE TABLE items {memory}; INSERT INTO items VALUES (1, 1, 'a'), (2, 2, 'b'); \
                 CREATE DATABASE other; CREATE TABLE other.items {memory}; INSERT INTO other.items VALUES (1, 1, 'a')"
            ),
        )
        .await;
        let launch = world.launch(ITEMS, "");
        launch.run_until_caught_up().await;
        assert_eq!(world.held("SELECT CAST(count(*) AS text) FROM items").await, ["2"], "{family:?}");
        server.stop();
        server.start_again(&[]);
        world.connect_again(&server).await;
        world.run("INSERT INTO other.items VALUES (2, 2, 'b'); INSERT INTO items VALUES (3, 3, 'c')").await;
        launch.run_until_caught_up().await;
        assert_eq!(world.held(ROWS).await, ["3|3|c"], "{family:?}");
        launch.assert_equal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ddl_that_runs_with_settings_of_its_own_is_seen() {
    if !families().contains(&Family::MariaDb) {
        return;
    }
    let mut world = World::new(Family::MariaDb, &items(3)).await;
    let launch = world.launch(ITEMS, ", snapshot: { on_filled_column: read_again }");
    launch.run_until_caught_up().await;
    world
        .run(
            "SET STATEMENT lock_wait_timeout = 10, max_statement_time = 100 FOR ALTER TABLE items ADD c int DEFAULT 7; \
             INSERT INTO items VALUES (4, 4, 'd', 8)",
        )
        .await;
    launch.run_until_caught_up().await;
    let query = "SELECT CAST(id AS text), CAST(c AS text) FROM items ORDER BY id";
    assert_eq!(world.held(query).await, ["1|7", "2|7", "3|7", "4|8"]);
    launch.assert_equal();
}
