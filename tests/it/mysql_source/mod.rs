//! MySQL and MariaDB as a source, against real servers: one body for both families.

mod changes;
mod check;
mod columns;
mod errant;
mod faults;
mod history;
mod images;
mod lost;
mod network;
mod online;
mod partitions;
mod retry;
mod snapshot;
mod statements;
mod tls;
mod types;
mod verify;

use std::path::Path;
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Value};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, Row, SqliteConnection, ValueRef};
use tokio_util::sync::CancellationToken;

use crate::support::mysql::{Family, Server, server};
use crate::support::process::{LIMIT, Launch, Running, available};

/// The families whose servers are here.
pub fn families() -> Vec<Family> {
    [Family::MariaDb, Family::MySql].into_iter().filter(|family| available(family.component())).collect()
}

/// A database of a server, and a topology that reads it into SQLite.
pub struct World {
    folder: tempfile::TempDir,
    pub family: Family,
    /// The port that the topology names.
    pub port: u16,
    pub database: String,
    source: Conn,
}

impl World {
    /// On the server that all tests share.
    pub async fn new(family: Family, setup: &str) -> Self {
        Self::on(server(family), setup).await
    }

    pub async fn on(server: &Server, setup: &str) -> Self {
        let url = server.database().await;
        let database = url.rsplit('/').next().unwrap().to_owned();
        let source = server.connect(&database).await;
        let folder = tempfile::tempdir().unwrap();
        let mut world = Self { folder, family: server.family(), port: server.port(), database, source };
        world.run(setup).await;
        world
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The server's number of rows' own: a connection more.
    pub async fn connect(&self) -> Conn {
        let url = format!("mysql://root@127.0.0.1:{}/{}", self.port, self.database);
        Conn::from_url(&url).await.unwrap()
    }

    /// The connection broke, or the server is another one now.
    pub async fn connect_again(&mut self, server: &Server) {
        self.source = server.connect(&self.database).await;
    }

    /// The topology: `tables` is YAML below `tables:` with `$` for the database, `more` stands inside the source.
    pub fn launch(&self, tables: &str, more: &str) -> Launch {
        let url = format!("mysql://root@127.0.0.1:{}?ssl-mode=disabled", self.port);
        self.launch_url(&url, tables, more)
    }

    pub fn launch_url(&self, url: &str, tables: &str, more: &str) -> Launch {
        self.launch_epochs(url, tables, more, "every: 200ms")
    }

    /// The same where an epoch ends with every MiB, also inside of a transaction: however quick or slow the machine is,
    /// what is larger takes several.
    pub fn launch_small(&self, tables: &str, more: &str) -> Launch {
        let url = format!("mysql://root@127.0.0.1:{}?ssl-mode=disabled", self.port);
        let more = format!(", max_transaction: 1MiB{more}");
        self.launch_epochs(&url, tables, &more, "every: 200ms, max_bytes: 1MiB")
    }

    fn launch_epochs(&self, url: &str, tables: &str, more: &str, epoch: &str) -> Launch {
        let (database, tables) = (&self.database, tables.replace('$', &self.database));
        // Names of topologies tell readers of one server apart.
        let topology = format!(
            "version: 1\nname: my_{database}\nsources:\n  shop: {{ kind: mysql, url: \"{url}\", heartbeat: 1s, \
             tables: [\"{database}.*\"]{more} }}\ntables: {tables}\nlake: {{ url: ./lake }}\nwarehouse: {{ kind: sqlite, path: w.db }}\n\
             epoch: {{ {epoch} }}\n"
        );
        Launch::new(self.path(), &topology)
    }

    /// A second process of the same topology.
    pub fn beside(&self, launch: &Launch) -> Launch {
        let text = std::fs::read_to_string(launch.topology()).unwrap();
        let own: Vec<&str> = text.lines().filter(|line| !line.starts_with("admin:")).collect();
        Launch::named(self.path(), "beside", &own.join("\n"))
    }

    pub async fn run(&mut self, sql: &str) {
        run(&mut self.source, sql).await;
    }

    /// Writes into the warehouse behind the program's back.
    pub async fn spoil(&self, sql: &str) {
        let options = SqliteConnectOptions::new().filename(self.path().join("w.db"));
        let mut warehouse = SqliteConnection::connect_with(&options).await.unwrap();
        warehouse.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
    }

    /// What the warehouse holds: every value, which must be text, of every row.
    pub async fn held(&self, query: &str) -> Vec<String> {
        self.try_held(query).await.unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    async fn try_held(&self, query: &str) -> Result<Vec<String>, sqlx::Error> {
        let options = SqliteConnectOptions::new().filename(self.path().join("w.db")).read_only(true);
        let mut warehouse = SqliteConnection::connect_with(&options).await?;
        let rows = warehouse.fetch_all(AssertSqlSafe(query.to_owned())).await?;
        let value = |row: &sqlx::sqlite::SqliteRow, at: usize| {
            if row.try_get_raw(at).unwrap().is_null() { "∅".to_owned() } else { row.get::<String, _>(at) }
        };
        let row = |row: &sqlx::sqlite::SqliteRow| (0..row.columns().len()).map(|at| value(row, at)).collect::<Vec<_>>();
        Ok(rows.iter().map(|found| row(found).join("|")).collect())
    }

    /// The same of the source: `CAST(… AS text)` is `CHAR` there.
    pub async fn there(&mut self, query: &str) -> Vec<String> {
        let rows: Vec<mysql_async::Row> = self.source.query(query.replace("AS text", "AS CHAR")).await.unwrap();
        let value = |value: Value| match value {
            Value::NULL => "∅".to_owned(),
            Value::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            other => other.as_sql(true),
        };
        rows.into_iter().map(|row| row.unwrap().into_iter().map(value).collect::<Vec<_>>().join("|")).collect()
    }

    /// Both sides say the same.
    pub async fn assert_equal(&mut self, query: &str) {
        assert_eq!(self.held(query).await, self.there(query).await, "{:?}: {query}", self.family);
    }

    /// Waits until the warehouse holds those rows.
    pub async fn until_held(&self, process: &mut Running, query: &str, expected: &[&str]) {
        let begun = Instant::now();
        loop {
            // Until a table or a column is there, nothing is held of it.
            let held = self.try_held(query).await.unwrap_or_default();
            if held == expected {
                return;
            }
            assert!(!process.has_ended() && begun.elapsed() < LIMIT, "{held:?}\n{}", process.log_tail());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Runs statements one after the other; a `;` ends each.
pub async fn run(conn: &mut Conn, sql: &str) {
    for statement in sql.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
        conn.query_drop(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

pub const ITEMS: &str = "{ items: { from: $.items } }";

/// Counts and sums of everything, on both sides.
pub const SUMS: &str = "SELECT CAST(count(*) AS text), CAST(sum(id) AS text), CAST(sum(n) AS text), CAST(sum(length(t)) AS text) FROM items";

/// Every row, on both sides.
pub const ROWS: &str = "SELECT CAST(id AS text), CAST(n AS text), t FROM items ORDER BY id";

/// `items` with so many rows.
pub fn items(rows: u32) -> String {
    let mut sql = "CREATE TABLE items (id int PRIMARY KEY, n int, t varchar(200)); ".to_owned();
    if rows > 0 {
        sql.push_str("INSERT INTO items VALUES (1, 1, repeat('a', 100)); ");
        let mut there = 1;
        while there < rows {
            let more = there.min(rows - there);
            sql.push_str(&format!(
                "INSERT INTO items SELECT id + {there}, id + {there}, t FROM items WHERE id <= {more}; "
            ));
            there += more;
        }
    }
    sql
}

/// Changes rows, adds and deletes some and changes keys, until it is told to stop.
pub async fn write_until(mut conn: Conn, stop: CancellationToken) {
    let mut turn = 0;
    while !stop.is_cancelled() {
        turn += 1;
        let id = turn * 37 % 20_000;
        let sql = format!(
            "BEGIN; UPDATE items SET n = n + 1 WHERE id = {id}; DELETE FROM items WHERE id = {}; \
             INSERT INTO items VALUES ({}, {turn}, repeat('z', {})); UPDATE items SET id = {} WHERE id = {}; \
             UPDATE items SET id = {} WHERE id = {}; COMMIT",
            id + 1,
            100_000 + turn,
            turn % 50,
            500_000 + turn,
            id + 2,
            // From behind the part that was read into it.
            -turn,
            19_999 - id,
        );
        run(&mut conn, &sql).await;
    }
}
