//! The PostgreSQL source against a real server: snapshot, stream, restarts, what is lost.

use std::collections::BTreeMap;
use std::path::Path;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Column, Connection, Executor, PgConnection, Row, SqliteConnection, ValueRef};

use crate::support::postgres::server;
use crate::support::process::{LIMIT, Launch, available, table};

/// A database of the shared server, and a topology that reads it into SQLite.
struct World {
    folder: tempfile::TempDir,
    url: String,
    source: PgConnection,
}

impl World {
    async fn new(setup: &str) -> Self {
        let url = server().database().await;
        let mut source = PgConnection::connect(&url).await.unwrap();
        source.execute(AssertSqlSafe(setup.to_owned())).await.unwrap();
        Self { folder: tempfile::tempdir().unwrap(), url, source }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The topology: `tables` is YAML below `tables:`, `more` stands inside the source.
    fn launch(&self, tables: &str, more: &str) -> Launch {
        // Names of slots are the server's, not the database's.
        let name = self.url.rsplit('/').next().unwrap();
        let topology = format!(
            "version: 1\nname: pg\nsources:\n  shop: {{ kind: postgres, url: \"{}?sslmode=disable\", slot: {name}, \
             publication: p{more} }}\ntables: {tables}\nlake: {{ url: ./lake }}\nwarehouse: {{ kind: sqlite, path: w.db }}\n\
             epoch: {{ every: 200ms }}\n",
            self.url
        );
        Launch::new(self.path(), &topology)
    }

    async fn run(&mut self, sql: &str) {
        self.source.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
    }

    async fn warehouse(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.path().join("w.db")).read_only(true);
        SqliteConnection::connect_with(&options).await.unwrap()
    }

    /// What the warehouse holds: every value of the named columns as text.
    async fn held(&self, query: &str) -> Vec<String> {
        let mut warehouse = self.warehouse().await;
        let rows = warehouse.fetch_all(AssertSqlSafe(query.to_owned())).await.unwrap();
        let value = |row: &sqlx::sqlite::SqliteRow, at: usize| {
            if row.try_get_raw(at).unwrap().is_null() { "∅".to_owned() } else { row.get::<String, _>(at) }
        };
        rows.iter().map(|row| (0..row.columns().len()).map(|at| value(row, at)).collect::<Vec<_>>().join("|")).collect()
    }

    /// The same of the source.
    async fn there(&mut self, query: &str) -> Vec<String> {
        let rows = self.source.fetch_all(AssertSqlSafe(query.to_owned())).await.unwrap();
        let value = |row: &sqlx::postgres::PgRow, at: usize| {
            row.get::<Option<String>, _>(at).unwrap_or_else(|| "∅".to_owned())
        };
        rows.iter().map(|row| (0..row.columns().len()).map(|at| value(row, at)).collect::<Vec<_>>().join("|")).collect()
    }
}

const ITEMS: &str = "{ items: { from: public.items } }";

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_there_and_changes_after_them_arrive_once() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new(
        "CREATE TABLE items (id int PRIMARY KEY, name text, price numeric(8,2)); \
         INSERT INTO items VALUES (1, 'one', 1.50), (2, 'two', NULL), (3, E'tab\\there \\\\ \\'quote', 3)",
    )
    .await;
    let launch = world.launch(ITEMS, "");
    launch.run_until_caught_up().await;
    let query = "SELECT CAST(id AS text), name, CAST(price AS text) FROM items ORDER BY id";
    assert_eq!(world.held(query).await, ["1|one|1.50", "2|two|∅", "3|tab\there \\ 'quote|3.00"]);
    world
        .run(
            "INSERT INTO items VALUES (4, 'four', 4); UPDATE items SET price = 2.25 WHERE id = 2; \
             DELETE FROM items WHERE id = 1; UPDATE items SET id = 30 WHERE id = 3",
        )
        .await;
    launch.run_until_caught_up().await;
    assert_eq!(world.held(query).await, ["2|two|2.25", "4|four|4.00", "30|tab\there \\ 'quote|3.00"]);
    world.run("TRUNCATE items; INSERT INTO items VALUES (5, 'five', 5)").await;
    launch.run_until_caught_up().await;
    assert_eq!(world.held(query).await, ["5|five|5.00"]);
    let status = launch.status();
    assert_eq!(table(&status, "items")["rejects_total"], 0, "{status}");
}
