//! A PostgreSQL source whose world breaks: after each scenario the warehouse holds what the source holds, value by value, or
//! the process has stopped and said why and what to do. Besides the tests' own queries, `dataflow verify` says so.
//!
//! | file | what breaks |
//! |---|---|
//! | `network.rs` | the connection: cut, stalled, reset, half closed, refused, at every stage |
//! | `slot.rs` | the slot and the log behind it |
//! | `history.rs` | the server: put back, failed over, another one at the same address |
//! | `tables.rs` | the tables' shape, in the middle of everything |
//! | `volume.rs` | large transactions, writers that never stop, tables that never change |
//! | `kills.rs` | our own process, at every named place and at random |
//!
//! Each runs on Debian's PostgreSQL into SQLite and on the newest into PostgreSQL, where the two can differ.

mod history;
mod kills;
mod network;
mod slot;
mod tables;
mod volume;

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row, SqliteConnection, ValueRef};
use tokio_util::sync::CancellationToken;

use crate::support::postgres::{Server, Version, newest, server};
use crate::support::process::{LIMIT, Launch, Running, available};
use crate::support::proxy::Proxy;

/// Where the rows go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Sqlite,
    Postgres,
}

/// A server version and a warehouse.
#[derive(Debug, Clone, Copy)]
struct Stage {
    version: Version,
    target: Target,
}

const STAGES: [Stage; 2] = [
    Stage { version: Version::Debian, target: Target::Sqlite },
    Stage { version: Version::Newest, target: Target::Postgres },
];

/// Runs a scenario on every stage whose servers are there, side by side.
async fn on_stages(scenario: impl AsyncFn(Stage)) {
    let there = |stage: &Stage| available(stage.version.component()) && available("postgres");
    let stages: Vec<Stage> = STAGES.into_iter().filter(there).collect();
    join_all(stages.into_iter().map(|stage| scenario(stage))).await;
}

/// The table that most scenarios use.
const ITEMS: &str = "CREATE TABLE items (id int PRIMARY KEY, n bigint, t text, price numeric(12,2))";
/// All of it, in text that both sides write alike.
const ALL: &str = "SELECT CAST(id AS text), CAST(n AS text), t, CAST(price AS text) FROM items ORDER BY items.id";
/// As much of it as can be asked of a million rows.
const SUMS: &str = "SELECT CAST(count(*) AS text), CAST(sum(id) AS text), CAST(sum(n) AS text), CAST(sum(length(t)) AS text) FROM items";

/// A database of a server, seen through a proxy, and a topology that reads it.
struct World {
    folder: tempfile::TempDir,
    stage: Stage,
    port: u16,
    database: String,
    proxy: Proxy,
    source: PgConnection,
}

impl World {
    /// In a database of its own on a shared server.
    async fn new(stage: Stage, setup: &str) -> Self {
        let server = match stage.version {
            Version::Debian => tokio::task::spawn_blocking(server).await.unwrap(),
            Version::Newest => tokio::task::spawn_blocking(newest).await.unwrap(),
        };
        Self::of(stage, server, setup).await
    }

    /// In a database of its own on that server.
    async fn of(stage: Stage, server: &Server, setup: &str) -> Self {
        let url = server.database().await;
        let source = connect(&url).await;
        let proxy = Proxy::to(server.port()).await;
        let database = url.rsplit('/').next().unwrap().to_owned();
        let folder = tempfile::tempdir().unwrap();
        let mut world = Self { folder, stage, port: server.port(), database, proxy, source };
        world.run(setup).await;
        world
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The slot has the database's name: names of slots are the server's.
    fn slot(&self) -> String {
        // Two servers may have databases of the same name, and one server both at a time.
        self.database.clone()
    }

    /// The topology: `more` stands inside the source.
    async fn launch(&self, more: &str) -> Launch {
        self.launch_tables("{ items: { from: public.items } }", more).await
    }

    async fn launch_tables(&self, tables: &str, more: &str) -> Launch {
        let warehouse = match self.stage.target {
            Target::Sqlite => "{ kind: sqlite, path: w.db }".to_owned(),
            Target::Postgres => {
                format!(
                    "{{ kind: postgres, url: \"{}?sslmode=disable\", schema: {} }}",
                    warehouse_url().await,
                    self.schema()
                )
            }
        };
        // `tables` may bring more of the topology along.
        let epoch = if tables.contains("\nepoch:") { "" } else { "epoch: { every: 200ms }\n" };
        let topology = format!(
            "version: 1\nname: {}\nsources:\n  shop: {{ kind: postgres, \
             url: \"postgres://postgres@127.0.0.1:{}/{}?sslmode=disable\", slot: {}, publication: p, receive_timeout: 5s{more} }}\n\
             tables: {tables}\nlake: {{ url: ./lake }}\nwarehouse: {warehouse}\n{epoch}",
            self.schema(),
            self.proxy.port(),
            self.database,
            self.slot()
        );
        Launch::new(self.path(), &topology)
    }

    /// The warehouse is one for all scenarios; each has a schema of its own in it.
    fn schema(&self) -> String {
        let name = self.path().file_name().unwrap().to_string_lossy().to_lowercase();
        format!("s{}", name.chars().filter(char::is_ascii_alphanumeric).collect::<String>())
    }

    /// Entries in the lake's log.
    fn manifests(&self) -> usize {
        std::fs::read_dir(self.path().join("lake/_log")).unwrap().count()
    }

    async fn run(&mut self, sql: &str) {
        self.source.execute(AssertSqlSafe(sql.to_owned())).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }

    /// What the source answers: every value as text.
    async fn there(&mut self, query: &str) -> Vec<String> {
        postgres_rows(&mut self.source, query).await
    }

    /// What the warehouse answers.
    async fn held(&self, query: &str) -> Vec<String> {
        self.try_held(query).await.unwrap_or_else(|e| panic!("{query}: {e}"))
    }

    async fn try_held(&self, query: &str) -> sqlx::Result<Vec<String>> {
        if self.stage.target == Target::Postgres {
            let mut warehouse = connect(&warehouse_url().await).await;
            warehouse.execute(AssertSqlSafe(format!("SET search_path = {}", self.schema()))).await?;
            return try_rows(&mut warehouse, query).await;
        }
        let options = SqliteConnectOptions::new().filename(self.path().join("w.db")).read_only(true);
        let mut warehouse = SqliteConnection::connect_with(&options).await?;
        let rows = warehouse.fetch_all(AssertSqlSafe(query.to_owned())).await?;
        let value = |row: &sqlx::sqlite::SqliteRow, at: usize| {
            (!row.try_get_raw(at).unwrap().is_null()).then(|| row.get::<String, _>(at))
        };
        Ok(rows.iter().map(|row| joined((0..row.columns().len()).map(|at| value(row, at)))).collect())
    }

    /// Both sides must answer alike, nothing may wait in quarantine, and `dataflow verify` must find no difference.
    async fn must_agree(&mut self, launch: &Launch, query: &str) {
        self.must_answer_alike(launch, query).await;
        if let Err(why) = launch.compare().await {
            panic!("{why}\n{}", launch.whole_log());
        }
    }

    /// The same without `dataflow verify`, which would take its time over a million rows.
    async fn must_answer_alike(&mut self, launch: &Launch, query: &str) {
        let (held, there) = (self.held(query).await, self.there(query).await);
        let differs = held.iter().zip(&there).find(|(held, there)| held != there);
        assert!(
            held == there,
            "{} rows held, {} there; the first that differs: {differs:?}\n{}",
            held.len(),
            there.len(),
            launch.whole_log()
        );
        for table in launch.status()["tables"].as_array().unwrap() {
            assert_eq!(table["rejects_open"], 0, "{table}");
        }
    }

    /// Waits until both sides answer alike while the process runs; the process must not end.
    async fn until_agreed(&mut self, process: &mut Running, query: &str) {
        let begun = Instant::now();
        loop {
            // The table may not be there yet.
            let held = self.try_held(query).await.unwrap_or_default();
            let there = self.there(query).await;
            if held == there {
                return;
            }
            assert!(
                begun.elapsed() < LIMIT && !process.has_ended(),
                "the two never agreed: {} rows held, {} there, {:?}, {:?}\n{}",
                held.len(),
                there.len(),
                held.first(),
                there.first(),
                process.log_tail()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until nobody reads the slot any more: the server notices the end of a process a little later.
    async fn until_idle(&mut self) {
        let query =
            format!("SELECT CAST(active AS text) FROM pg_replication_slots WHERE slot_name = '{}'", self.slot());
        while self.there(&query).await == ["true"] {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Begins to write and writes until it is told to stop.
    fn write(&self, rows: i64) -> Writer {
        static WRITERS: AtomicI64 = AtomicI64::new(0);
        let own = WRITERS.fetch_add(1, Ordering::Relaxed) * 1_000_000;
        let stop = CancellationToken::new();
        let url = format!("postgres://postgres@127.0.0.1:{}/{}", self.port, self.database);
        let task = tokio::spawn(write_until(url, rows, own, stop.clone()));
        Writer { stop, task }
    }

    /// The process must stop with that in its last words.
    async fn must_halt(&self, launch: &Launch, words: &[&str]) {
        let mut process = launch.run();
        must_end(&mut process, words).await;
    }
}

/// It must end with a failure, and say so.
async fn must_end(process: &mut Running, words: &[&str]) {
    let status = process.exit(LIMIT).await;
    assert!(!status.success(), "{}", process.log_tail());
    for word in words {
        assert!(process.log().contains(word), "`{word}` is not said:\n{}", process.log_tail());
    }
}

/// The warehouse database that all scenarios share.
async fn warehouse_url() -> String {
    static URL: tokio::sync::OnceCell<String> = tokio::sync::OnceCell::const_new();
    URL.get_or_init(async || tokio::task::spawn_blocking(server).await.unwrap().database().await).await.clone()
}

async fn connect(url: &str) -> PgConnection {
    let mut connection = PgConnection::connect(url).await.unwrap_or_else(|e| panic!("{url}: {e}"));
    // What a test has written is on the server's disk, where a slot can read it.
    connection.execute("SET synchronous_commit = on").await.unwrap();
    connection
}

async fn postgres_rows(connection: &mut PgConnection, query: &str) -> Vec<String> {
    try_rows(connection, query).await.unwrap_or_else(|e| panic!("{query}: {e}"))
}

async fn try_rows(connection: &mut PgConnection, query: &str) -> sqlx::Result<Vec<String>> {
    let rows = connection.fetch_all(AssertSqlSafe(query.to_owned())).await?;
    Ok(rows.iter().map(|row| joined((0..row.columns().len()).map(|at| row.get::<Option<String>, _>(at)))).collect())
}

fn joined(values: impl Iterator<Item = Option<String>>) -> String {
    values.map(|value| value.unwrap_or_else(|| "∅".to_owned())).collect::<Vec<_>>().join("|")
}

/// Somebody who writes.
struct Writer {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<i64>,
}

impl Writer {
    /// Ends it; the number of its transactions.
    async fn end(self) -> i64 {
        self.stop.cancel();
        self.task.await.unwrap()
    }
}

/// Inserts, updates, deletes, key updates and transactions that are rolled back, on rows `1..=rows` and on new ones with
/// numbers of the writer's own.
async fn write_until(url: String, rows: i64, own: i64, stop: CancellationToken) -> i64 {
    let mut connection = connect(&url).await;
    let mut turn = 0;
    while !stop.is_cancelled() {
        turn += 1;
        let id = turn * 37 % rows;
        let sql = format!(
            "BEGIN; UPDATE items SET n = n + 1, price = {turn}.25 WHERE id = {id}; DELETE FROM items WHERE id = {}; \
             INSERT INTO items VALUES ({}, {turn}, repeat('z', {}), NULL); UPDATE items SET id = {} WHERE id = {}; COMMIT; \
             BEGIN; UPDATE items SET n = -1 WHERE id < 50; ROLLBACK",
            id + 1,
            100_000_000 + own + turn,
            turn % 50,
            500_000_000 + own + turn,
            id + 2
        );
        connection.execute(AssertSqlSafe(sql)).await.unwrap();
    }
    turn
}

/// Some of the rows of a table with `rows` rows of about `bytes` bytes.
fn filled(rows: u32, bytes: u32) -> String {
    format!(
        "{ITEMS}; INSERT INTO items SELECT n, n * 3, repeat(md5(n::text), {bytes} / 32), n / 100.0 FROM generate_series(1, {rows}) n"
    )
}
