//! PostgreSQL and MySQL, read directly, and again from the raw zone: rows that were there, changes in one session of the
//! source and in several, columns that come, keys that move, values that stay, tables that are emptied and read again.

use std::time::{Duration, Instant};

use dataflow::progress::Position;
use dataflow::source::without_orders;
use mysql_async::prelude::Queryable;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use super::*;
use crate::support::mysql::{self, Family};
use crate::support::postgres;
use crate::support::process::{LIMIT, Running, available};

const TABLES: [&str; 3] = ["items", "tags", "words"];
/// Columns that the time of loading, or the way by which rows came, decides.
const OURS: [&str; 3] = ["_synced_at", "_seq", "_partition"];

const CHECKED: &str = ", operators: [{ validate: { name: positive, rule: \"price >= 0\" } }]";
const FREE: &str = "";
const OTHER: &str = ", operators: [{ compute: { twice: \"price * 2\" } }, { mask: { columns: [name], with: hmac, domain: \
     customer, key: \"0123456789abcdef0123456789abcdef\" } }, { filter: { name: cheap, keep: \"price < 30\" } }]";

/// The database.
enum Server {
    Postgres(Box<PgConnection>),
    Mysql(Box<mysql_async::Conn>),
}

/// A database, and topologies that read it, or what was read of it.
struct World {
    case: Case,
    server: Server,
    /// What stands in the source of each topology but the slot.
    source: String,
    /// The schema or database of its tables.
    schema: String,
    slot: String,
    rounds: u32,
}

impl World {
    async fn of_postgres() -> Self {
        let url = postgres::server().database().await;
        let mut connection = PgConnection::connect(&url).await.unwrap();
        connection.execute("SET synchronous_commit = on").await.unwrap();
        let source = format!("kind: postgres, url: \"{url}?sslmode=disable\", publication: p");
        let slot = url.rsplit('/').next().unwrap().to_owned();
        Self::new(Server::Postgres(Box::new(connection)), source, "public".to_owned(), slot).await
    }

    async fn of_mysql(family: Family) -> Self {
        let server = mysql::server(family);
        let url = server.database().await;
        let schema = url.rsplit('/').next().unwrap().to_owned();
        let connection = server.connect(&schema).await;
        let source = format!(
            "kind: mysql, url: \"mysql://root@127.0.0.1:{}?ssl-mode=disabled\", heartbeat: 1s, tables: [\"{schema}.*\"]",
            server.port()
        );
        Self::new(Server::Mysql(Box::new(connection)), source, schema.clone(), schema).await
    }

    async fn new(server: Server, source: String, schema: String, slot: String) -> Self {
        let mut world = Self { case: Case::new(), server, source, schema, slot, rounds: 0 };
        world
            .run(
                "CREATE TABLE items (id int PRIMARY KEY, name varchar(40), price numeric(8,2), doc text); \
                 CREATE TABLE tags (id int PRIMARY KEY, v varchar(20)); CREATE TABLE words (word varchar(20))",
            )
            .await;
        if matches!(world.server, Server::Postgres(_)) {
            // What is long stands apart, and is not sent while it stays.
            world
                .run("ALTER TABLE items ALTER doc SET STORAGE EXTERNAL; ALTER TABLE words REPLICA IDENTITY FULL")
                .await;
        }
        world.run(&items(1, 60, None)).await;
        world.run("INSERT INTO tags VALUES (1, 'one'), (2, 'two'); INSERT INTO words VALUES ('a'), ('b'), ('a')").await;
        world
    }

    async fn run(&mut self, sql: &str) {
        match &mut self.server {
            Server::Postgres(connection) => drop(connection.execute(AssertSqlSafe(sql.to_owned())).await.unwrap()),
            Server::Mysql(connection) => {
                for statement in sql.split(';').filter(|statement| !statement.trim().is_empty()) {
                    connection.query_drop(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
                }
            }
        }
    }

    /// The topology `name`; `rules` stand in the table of items.
    fn topology(&self, name: &str, rules: &str) -> Launch {
        self.topology_at(name, rules, &self.slot)
    }

    fn topology_at(&self, name: &str, rules: &str, slot: &str) -> Launch {
        let slot = if matches!(self.server, Server::Postgres(_)) { format!(", slot: {slot}") } else { String::new() };
        let (source, schema, raw) = (&self.source, &self.schema, encrypted("ab"));
        let tables: String = TABLES
            .iter()
            .map(|table| {
                let rules = match *table {
                    "items" => rules,
                    "words" => ", key: []",
                    _ => "",
                };
                format!("  {table}: {{ from: {schema}.{table}{rules} }}\n")
            })
            .collect();
        let text = format!(
            "version: 1\nname: {name}\nsources:\n  shop: {{ {source}{slot}, snapshot: {{ chunk_rows: 25 }} }}\ntables:\n\
             {tables}lake: {{ url: lake-{name}, raw: {raw}, quarantine: {{ key: \"{key}\", retention: 30d }} }}\n\
             warehouse: {{ kind: sqlite, path: {name}.db }}\nepoch: {{ every: 200ms }}\n",
            key = "5a".repeat(32),
        );
        Launch::named(self.case.folder.path(), name, &text)
    }

    /// One of each kind of change, a word last that tells its end.
    async fn round(&mut self, extra: Option<u32>) {
        self.rounds += 1;
        let (n, at) = (self.rounds, 100 * self.rounds);
        let extra = extra.map(|extra| format!("{extra}"));
        self.run(&items(at, at + 12, extra.as_deref())).await;
        self.run(&format!(
            "UPDATE items SET name = 'round {n}' WHERE id % 4 = {n} % 4; UPDATE items SET price = price + 1 WHERE id % 5 = 0; \
             UPDATE items SET id = id + 5000 WHERE id BETWEEN {at} AND {at} + 2; DELETE FROM items WHERE id = {at} + 4; \
             UPDATE tags SET v = 'round {n}' WHERE id = 2; INSERT INTO words VALUES ('round {n}')"
        ))
        .await;
    }

    /// Waits until the old warehouse holds the last round.
    async fn held(&self, process: &mut Running) {
        let word = format!("round {}", self.rounds);
        let query = format!("SELECT count(*) FROM words WHERE word = '{word}'");
        self.until(process, &word, async || self.case.oracle("old").number(&query).await.is_ok_and(|n| n == 1)).await;
    }

    async fn until(&self, process: &mut Running, what: &str, done: impl AsyncFn() -> bool) {
        let begun = Instant::now();
        while !done().await {
            assert!(begun.elapsed() < LIMIT && !process.has_ended(), "no {what}: {}", process.log_tail());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Where the source stands in the lake `name`.
    async fn position(&self, name: &str) -> String {
        let ends = ends(&self.case.lake(name).log().await);
        ends.into_values().map(|(position, ..)| position).collect()
    }

    /// All that happens to the old pipeline. Two epochs of it: before the second one everything is in one session of the
    /// source, and behind it every row is brought again.
    async fn live(&mut self) -> usize {
        let old = self.topology("old", CHECKED);
        old.run_until_caught_up().await;
        self.round(None).await;
        old.run_until_caught_up().await;
        let mut process = old.run();
        for _ in 0..2 {
            self.round(None).await;
            self.held(&mut process).await;
        }
        let middle = self.case.lake("old").manifests().await;
        self.round(None).await;
        self.held(&mut process).await;
        self.run("ALTER TABLE items ADD COLUMN extra int").await;
        self.round(Some(7)).await;
        self.held(&mut process).await;
        self.run("TRUNCATE TABLE tags").await;
        self.run("INSERT INTO tags VALUES (2, 'anew'), (3, 'three')").await;
        self.round(Some(8)).await;
        self.held(&mut process).await;
        let ordered = old.other(&["table", "resync"], &["items"]);
        assert!(ordered.status.success(), "{}", String::from_utf8_lossy(&ordered.stderr));
        self.round(Some(9)).await;
        let read = async || {
            let position = self.position("old").await;
            position.contains("\"order\"") && !position.contains("\"reading\"") && !position.contains("\"behind\"")
        };
        self.until(&mut process, "rows that are read again", read).await;
        self.round(None).await;
        self.held(&mut process).await;
        process.stop().await;
        middle
    }

    /// Every place, and what became of every record, is what it was.
    async fn as_it_was(&self, name: &str) {
        let (old, new) = (sound(&self.case, "old").await, sound(&self.case, name).await);
        let without_orders = |log: &LogReader| {
            let ends = ends(log).into_iter();
            ends.map(|(partition, (to, ..))| (partition, without_orders(&Position(to)))).collect::<Vec<_>>()
        };
        assert_eq!(without_orders(&old), without_orders(&new), "{name}");
        assert_eq!((old.records_read(), old.raw_rows()), (new.records_read(), new.raw_rows()), "{name}");
    }
}

/// Rows of items: every seventh has a price that one rule refuses, and all have a value that is stored apart.
fn items(from: u32, to: u32, extra: Option<&str>) -> String {
    let row = |id: u32| {
        let price = if id.is_multiple_of(7) { format!("-{id}") } else { format!("{}.25", id % 90) };
        let extra = extra.map(|extra| format!(", {extra}")).unwrap_or_default();
        format!("({id}, 'name {id}', {price}, repeat('{}', 5000){extra})", id % 10)
    };
    let columns = if extra.is_some() { "(id, name, price, doc, extra)" } else { "(id, name, price, doc)" };
    format!("INSERT INTO items {columns} VALUES {};", (from..=to).map(row).collect::<Vec<_>>().join(", "))
}

const FROM: [&str; 2] = ["--from-lake", "lake-old"];

/// GIVEN a pipeline that has lived, WHEN its lake is read anew in every way, THEN nothing is lost, doubled or out of order.
async fn built_anew(mut world: World) {
    let middle = world.live().await;
    by_the_same_rules(&world).await;
    by_other_rules(&world).await;
    from_the_middle(&world, middle).await;
    killed_and_gone_on(&mut world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_of_postgres_is_built_anew_and_its_slot_goes_on() {
    if available("postgres") {
        built_anew(World::of_postgres().await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_of_mariadb_is_built_anew_and_its_log_goes_on() {
    if available(Family::MariaDb.component()) {
        built_anew(World::of_mysql(Family::MariaDb).await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_of_mysql_is_built_anew_and_its_log_goes_on() {
    if available(Family::MySql.component()) {
        built_anew(World::of_mysql(Family::MySql).await).await;
    }
}

/// GIVEN the same rules, THEN everything is as it was, down to the order of every change.
async fn by_the_same_rules(world: &World) {
    reprocessed(&world.topology("same", CHECKED), &FROM);
    world.case.same_of("old", "same", &TABLES, &["_synced_at"]).await;
    world.as_it_was("same").await;
    let (old, new) = (sound(&world.case, "old").await, sound(&world.case, "same").await);
    assert!(old.quarantined() > 0);
    assert_eq!((old.refused(), old.quarantined()), (new.refused(), new.quarantined()));
    let ordered = |position: &str| position.contains("\"order\"");
    assert!(ordered(&world.position("old").await) && !ordered(&world.position("same").await));
}

/// GIVEN other rules, THEN the warehouse holds what a fresh reading of the database by them gives.
async fn by_other_rules(world: &World) {
    world.topology_at("fresh", OTHER, &format!("{}_fresh", world.slot)).run_until_caught_up().await;
    let report = reprocessed(&world.topology("other", OTHER), &FROM);
    assert_eq!((report["rejected"].as_u64(), report["incomplete"].as_u64()), (Some(0), Some(0)), "{report}");
    world.case.same_of("fresh", "other", &TABLES, &OURS).await;
    world.as_it_was("other").await;
}

/// GIVEN an epoch behind which every row of two tables is brought again, THEN these are whole when reading begins with it,
/// although their columns were described long before.
async fn from_the_middle(world: &World, middle: usize) {
    let from = (middle + 1).to_string();
    let report = reprocessed(&world.topology("middle", CHECKED), &[&FROM[..], &["--from", &from]].concat());
    assert_eq!(report["rejected"], 0, "every record is read by its description: {report}");
    assert!(report["skipped"].as_u64() > Some(0), "{report}");
    world.case.same_of("old", "middle", &["items", "tags"], &["_synced_at"]).await;
}

/// GIVEN a process that is killed again and again, THEN the next one goes on, and after the last one `run` goes on at the
/// database: every row once, and what people order in the new log is done.
async fn killed_and_gone_on(world: &mut World) {
    let target = world.topology("free", FREE);
    let small = [&FROM[..], &["--set", "epoch.max_bytes=20KiB"]].concat();
    let mut committed = 0;
    for place in ["log.put.after=2*off", "lake.upload.before=6*off", "log.put.before=1*off"] {
        let mut command = reprocess_command(&target, &small);
        let output = command.env("FAILPOINTS", format!("{place}->return(kill)")).output().unwrap();
        assert_eq!(output.status.code(), None, "{place} is passed: {}", String::from_utf8_lossy(&output.stderr));
        let now = world.case.lake("free").manifests().await;
        assert!(now >= committed, "{place}");
        committed = now;
    }
    assert!(committed > 3, "{committed} epochs before the last start");
    let report = reprocessed(&target, &small);
    assert_eq!((report["rejected"].as_u64(), report["incomplete"].as_u64()), (Some(0), Some(0)), "{report}");
    world.as_it_was("free").await;
    assert!(world.case.lake("free").log().await.manifests.len() > 6, "cut where the old one was");
    target.assert_equal();
    world.round(Some(10)).await;
    target.run_until_caught_up().await;
    target.assert_equal();
    let ordered = target.other(&["table", "resync"], &["items"]);
    assert!(ordered.status.success(), "{}", String::from_utf8_lossy(&ordered.stderr));
    world.round(Some(11)).await;
    target.run_until_caught_up().await;
    target.assert_equal();
    assert!(world.position("free").await.contains("\"order\""), "its number is smaller than the one of the old log");
    sound(&world.case, "free").await;
    refused(&target, &FROM, &["reads the live source already"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_read_on_by_the_slot_that_was_read() {
    if !available("postgres") {
        return;
    }
    let mut world = World::of_postgres().await;
    world.topology("old", CHECKED).run_until_caught_up().await;
    let elsewhere = world.topology_at("new", CHECKED, "another");
    refused(&elsewhere, &FROM, &["reads slot another", &format!("`slot: {}`", world.slot)]);
    world.source = world.source.replace(", publication: p", "");
    refused(&world.topology("new", CHECKED), &FROM, &["names no publication", "topology old's", "`publication:`"]);
    let text = std::fs::read_to_string(elsewhere.topology()).unwrap();
    let start = text.find("shop: {").unwrap();
    let end = text.find("\ntables:").unwrap();
    let text = text.replace(&text[start..end], "shop: { kind: file, path: events }");
    let file = Launch::named(world.case.folder.path(), "file", &text.replace("lake-new", "lake-file"));
    refused(&file, &FROM, &["as one of another kind"]);
    assert_eq!(world.case.lake("new").manifests().await + world.case.lake("file").manifests().await, 0);
}
