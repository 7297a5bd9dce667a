//! The catalog of the lake in an emulator of AWS Glue (moto).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use dataflow::config;
use dataflow::contract::{Column, TableSchema, Type};
use dataflow::epoch::{Compaction, Control, DataFile, TableEpoch};
use dataflow::error::Result;
use dataflow::lake::{Access, Catalog, Draft, DraftTable, Lake, Log, Outsiders};
use dataflow::net::aws::{Environment, JsonClient, Wanted, account};
use serde_json::{Value, json};
use ulid::Ulid;

use crate::exactly_once::world::{EPOCHS, Stock, TABLES, busy_shop};
use crate::support::process::{LIMIT, Launch, available, free_port, metric, python, upkeep};
use crate::support::s3::{ACCESS_KEY, S3Server, SECRET_KEY};

/// A server of moto; ends with the value.
struct Moto {
    child: Child,
    endpoint: String,
}

impl Moto {
    async fn start() -> Self {
        let port = free_port();
        // Not by the script beside it, which names the folder that it was installed into: a checkout may be moved.
        let child = Command::new(python())
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(begun.elapsed() < LIMIT, "moto does not start");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Self { child, endpoint: format!("http://127.0.0.1:{port}") }
    }

    fn client(&self) -> JsonClient {
        let keys = Some((ACCESS_KEY.to_owned(), SECRET_KEY.to_owned()));
        let wanted = Wanted { keys, region: Some("eu-west-3".into()), ..Wanted::default() };
        let account = account(&wanted, &Environment::default()).unwrap();
        JsonClient::new("glue", "AWSGlue", &account, Some(&self.endpoint)).unwrap()
    }

    async fn ask(&self, operation: &str, body: Value) -> Value {
        self.client().call(operation, &body).await.unwrap()
    }

    /// The partitions of a table, by their values.
    async fn partitions(&self, table: &str) -> BTreeMap<String, Value> {
        let mut found = BTreeMap::new();
        let mut next = Value::Null;
        loop {
            let mut body = json!({ "DatabaseName": "sales", "TableName": table });
            if !next.is_null() {
                body["NextToken"] = next;
            }
            let answer = self.ask("GetPartitions", body).await;
            for partition in answer["Partitions"].as_array().unwrap() {
                let values: Vec<&str> =
                    partition["Values"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
                assert!(found.insert(values.join("/"), partition.clone()).is_none(), "a partition twice");
            }
            next = answer["NextToken"].clone();
            if next.is_null() {
                return found;
            }
        }
    }

    /// Where each partition of a table is.
    async fn places(&self, table: &str) -> BTreeMap<String, String> {
        let place = |partition: &Value| partition["StorageDescriptor"]["Location"].as_str().unwrap().to_owned();
        self.partitions(table).await.iter().map(|(values, partition)| (values.clone(), place(partition))).collect()
    }

    async fn table(&self, table: &str) -> Value {
        self.ask("GetTable", json!({ "DatabaseName": "sales", "Name": table })).await["Table"].take()
    }
}

/// Names and types of the columns of a table or a partition.
fn columns(of: &Value) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let columns = of["StorageDescriptor"]["Columns"].as_array().unwrap().iter();
    columns.map(|column| (text(&column["Name"]), text(&column["Type"]))).collect()
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _waited = self.child.wait();
    }
}

fn same(_: &str, input: &TableSchema) -> Result<TableSchema> {
    Ok(input.clone())
}

fn schema(columns: &[(&str, Type)]) -> TableSchema {
    let columns = columns.iter().map(|(name, kind)| Column::new(*name, *kind)).collect();
    TableSchema { columns, key: vec!["id".into()] }
}

fn hour(number: usize) -> String {
    format!("dt=2026-01-{:02}/hour={:02}", number / 24 + 1, number % 24)
}

/// A manifest with one file of a table in an hour. The catalog does not look into it.
async fn commit(log: &Log, server: &S3Server, table: &str, schema: &TableSchema, number: usize) {
    let attempt = Ulid::new();
    let path = format!("processed/{table}/{}/{attempt}.parquet", hour(number));
    let place = server.folder().join("sales").join(&path);
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    std::fs::write(place, attempt.to_string()).unwrap();
    let file = DataFile { path, contract: 0, rows: 1, bytes: 1, memory_bytes: 1, crc32: 0 };
    let epoch = TableEpoch { files: vec![file], ..TableEpoch::default() };
    let part = DraftTable { epoch, input: schema.clone(), outputs: vec![schema.clone()] };
    let tables = BTreeMap::from([(table.to_owned(), part)]);
    log.commit(Draft { tables, ..Draft::new(attempt, Utc::now()) }, &same).await.unwrap();
}

/// The files in a folder.
fn names(folder: &Path) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return BTreeSet::new() };
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Says that an hour of orders was compacted, and gives the folder.
async fn compacted(log: &Log, number: usize, epochs: std::ops::RangeInclusive<u64>) -> (String, Control) {
    let folder = format!("compacted/orders/{}/{}", hour(number), Ulid::new());
    let path = |part: u32| format!("{folder}/v1-{part:04}.parquet");
    let file = |part| DataFile { path: path(part), contract: 1, rows: 1, bytes: 1, memory_bytes: 1, crc32: 0 };
    let compaction = Compaction { first: *epochs.start(), last: *epochs.end(), files: vec![file(0), file(1)] };
    let tables = BTreeMap::from([("orders".to_owned(), compaction)]);
    let control = Control::Compacted { hour: hour(number), tables, considered: *epochs.end() };
    log.commit(Draft { control: vec![control.clone()], ..Draft::new(Ulid::new(), Utc::now()) }, &same).await.unwrap();
    (format!("s3://lake/sales/{folder}/"), control)
}

/// Whether readers have been elsewhere for a day, as of `days` from now.
async fn have_left(catalog: &Catalog, log: &Log, control: &Control, days: i64) -> bool {
    let Control::Compacted { hour, tables, .. } = control else { panic!("{control:?}") };
    catalog.have_left(log, hour, tables, Utc::now() + TimeDelta::days(days)).await.unwrap()
}

/// A log in a lake on S3 that has orders in 230 hours and lines in one, and a catalog for it.
struct World {
    moto: Moto,
    lake: config::Lake,
    log: Log,
    server: S3Server,
}

impl World {
    async fn start() -> Option<Self> {
        if !available("python") {
            return None;
        }
        let (server, moto) = (S3Server::start().await, Moto::start().await);
        let every = config::Span::seconds(60);
        let glue = config::Glue { database: "Sales".into(), endpoint: Some(moto.endpoint.clone()), every };
        let lake = config::Lake { catalog: Some(config::Catalog::Glue(glue)), ..server.lake("sales") };
        let log = Log::open(Lake::open(&lake).unwrap(), "sales", Access::Write).await.unwrap();
        // More than one request takes.
        for number in 0..HOURS {
            commit(&log, &server, "orders", &narrow(), number).await;
        }
        commit(&log, &server, "lines", &narrow(), 7).await;
        Some(Self { moto, lake, log, server })
    }

    fn catalog(&self) -> Catalog {
        Catalog::open(&self.lake).unwrap().unwrap()
    }
}

const HOURS: usize = 230;

fn narrow() -> TableSchema {
    schema(&[("id", Type::Int), ("Price", Type::Decimal { precision: 9, scale: 2 }), ("hour", Type::TEXT)])
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_and_partitions_follow_the_log() {
    let Some(World { moto, lake, log, server }) = World::start().await else { return };
    let catalog = Catalog::open(&lake).unwrap().unwrap();
    let first = catalog.follow(&log).await.unwrap();
    assert_eq!((first.registered, first.moved, first.tables.len()), (231, 0, 2));
    let found = moto.places("orders").await;
    assert_eq!(found.len(), HOURS);
    assert_eq!(found["2026-01-02/03"], "s3://lake/sales/catalog/orders/dt=2026-01-02/hour=03/");
    let of_table = columns(&moto.table("orders").await);
    assert_eq!((of_table["id"].as_str(), of_table["price"].as_str()), ("int", "decimal(9,2)"));
    assert_eq!((of_table["_seq"].as_str(), of_table["_source_time"].as_str()), ("string", "timestamp"));
    assert!(!of_table.contains_key("hour"), "the partitions have a column of that name");

    // Somebody says more of the table; a wider type, a new column, a file in an hour that is there already, a new hour.
    let mut input = moto.table("orders").await;
    let mut said = json!({ "Description": "what was ordered" });
    for kept in ["Name", "TableType", "PartitionKeys", "StorageDescriptor", "Parameters"] {
        said[kept] = input[kept].take();
    }
    said["Parameters"]["owner"] = "sales".into();
    moto.ask("UpdateTable", json!({ "DatabaseName": "sales", "TableInput": said })).await;
    let mut wide = narrow();
    wide.columns[0] = Column::new("id", Type::BigInt);
    wide.columns[1] = Column::new("Price", Type::Decimal { precision: 18, scale: 4 });
    wide.columns.push(Column::new("note", Type::TEXT));
    commit(&log, &server, "orders", &wide, HOURS - 1).await;
    commit(&log, &server, "orders", &wide, HOURS).await;
    let changed = catalog.follow(&log).await.unwrap();
    assert_eq!((changed.registered, changed.moved), (1, 0));
    assert_eq!(changed.tables, vec!["orders".to_owned()]);
    let table = moto.table("orders").await;
    assert_eq!((columns(&table)["id"].as_str(), columns(&table)["note"].as_str()), ("bigint", "string"));
    assert_eq!(columns(&table)["price"], "decimal(18,4)");
    assert_eq!((&table["Description"], &table["Parameters"]["owner"]), (&"what was ordered".into(), &"sales".into()));
    // A reader takes a file's types from its partition, and casts them to the table's.
    let partitions = moto.partitions("orders").await;
    let last_two = [HOURS - 1, HOURS].map(|number| format!("2026-01-{:02}/{:02}", number / 24 + 1, number % 24));
    for (values, partition) in &partitions {
        let wanted = if last_two.contains(values) { columns(&table) } else { of_table.clone() };
        assert_eq!(columns(partition), wanted, "the files of {values} have other columns");
    }
    for number in [0, HOURS - 1, HOURS] {
        let names = |zone: &str| names(&server.folder().join("sales").join(zone).join("orders").join(hour(number)));
        assert_eq!(names("catalog"), names("processed"), "files of hour {number}");
    }

    // One who starts anew finds it as it should be.
    let anew = Catalog::open(&lake).unwrap().unwrap().follow(&log).await.unwrap();
    assert_eq!((anew.registered, anew.moved, anew.tables.len()), (0, 0, 0));
    // Somebody deletes a table: it is made again, with all that it had.
    let before = moto.places("orders").await;
    moto.ask("DeleteTable", json!({ "DatabaseName": "sales", "Name": "orders" })).await;
    let anew = Catalog::open(&lake).unwrap().unwrap().follow(&log).await.unwrap();
    assert_eq!((anew.registered, anew.moved), (231, 0));
    assert_eq!(moto.places("orders").await, before);
    // Without news nothing is asked, not even whether it is there; with news in an hour that is known neither.
    drop(moto);
    assert_eq!(catalog.follow(&log).await.unwrap().registered, 0);
    commit(&log, &server, "orders", &wide, HOURS).await;
    assert_eq!(catalog.follow(&log).await.unwrap().registered, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_moves_its_partition_before_its_originals_may_go() {
    let Some(world) = World::start().await else { return };
    let (moto, log, catalog) = (&world.moto, &world.log, world.catalog());
    catalog.follow(log).await.unwrap();
    let mut expected = moto.places("orders").await;
    let (folder, entry) = compacted(log, 3, 4..=4).await;
    // Nobody has told the catalog yet: whoever is about to delete does.
    assert!(!have_left(&catalog, log, &entry, 2).await, "readers are sent to the originals");
    expected.insert("2026-01-01/03".into(), folder);
    assert_eq!(moto.places("orders").await, expected);
    let shown = world.server.folder().join("sales/catalog/orders").join(hour(3));
    assert!(!have_left(&catalog, log, &entry, 0).await, "queries that began before are not over");
    assert_eq!(names(&shown).len(), 1, "what they read");
    assert!(have_left(&catalog, log, &entry, 2).await);
    assert_eq!(names(&shown), BTreeSet::new());

    // The usual way: the catalog follows the log, and moves that partition and no other.
    let (folder, entry) = compacted(log, 5, 6..=6).await;
    let moved = catalog.follow(log).await.unwrap();
    assert_eq!((moved.registered, moved.moved), (0, 2), "the one before was not known to it");
    let older = expected.insert("2026-01-01/05".into(), folder).unwrap();
    assert_eq!(moto.places("orders").await, expected);
    assert!(have_left(&catalog, log, &entry, 2).await);

    // A process that was slow puts the partition back: that is seen before anything is deleted.
    let mut input = json!({ "Values": ["2026-01-01", "05"] });
    input["StorageDescriptor"] = moto.partitions("orders").await["2026-01-01/05"]["StorageDescriptor"].clone();
    input["StorageDescriptor"]["Location"] = older.into();
    let update = json!({
        "DatabaseName": "sales", "TableName": "orders",
        "Entries": [{ "PartitionValueList": ["2026-01-01", "05"], "PartitionInput": input }],
    });
    moto.ask("BatchUpdatePartition", update).await;
    assert_ne!(moto.places("orders").await, expected);
    assert!(!have_left(&catalog, log, &entry, 2).await);
    assert_eq!(moto.places("orders").await, expected);

    // Once more compacted, and a catalog that was away meanwhile.
    let (folder, _) = compacted(log, 5, 6..=7).await;
    expected.insert("2026-01-01/05".into(), folder);
    assert_eq!(world.catalog().follow(log).await.unwrap().moved, 1);
    assert_eq!(moto.places("orders").await, expected);
}

/// The topology of a shop whose lake has a catalog.
fn cataloged(s3: &S3Server, moto: &Moto, follow: bool) -> String {
    format!(
        "version: 1\nname: shop\nsources: {{ shop: {{ kind: file, path: events, follow: {follow} }} }}\n{TABLES}\n\
         lake: {{ url: \"s3://lake/shop\", region: eu-west-3, endpoint: \"{}\", access_key_id: {ACCESS_KEY}, \
         secret_access_key: {SECRET_KEY}, raw: {{ keep: none }}, quarantine: {{ key: \"{}\", retention: 30d }}, \
         catalog: {{ kind: glue, database: sales, endpoint: \"{}\", every: 1s }} }}\n\
         warehouse: {{ kind: sqlite, path: shop.db }}\n{EPOCHS}",
        s3.endpoint,
        "5a".repeat(32),
        moto.endpoint,
    )
}

/// GIVEN a process that is killed when it has uploaded an epoch and before the log has it, WHEN its rows are read again, THEN
/// one who lists the folders of the catalog finds the files of the manifests and no others: no row twice.
#[tokio::test(flavor = "multi_thread")]
async fn files_of_an_attempt_that_was_killed_are_not_shown() {
    if !available("python") {
        return;
    }
    let (moto, s3) = (Moto::start().await, S3Server::start().await);
    let folder = tempfile::tempdir().unwrap();
    let stock = Stock::make(182, busy_shop(1_500), 1_500);
    stock.write_files(&folder.path().join("events"), 4);
    let launch = Launch::new(folder.path(), &cataloged(&s3, &moto, false));
    let broken = launch.clone().arg("--until-caught-up").failpoints("log.put.before=1*off->return(kill)");
    let mut killed = broken.run();
    assert!(!killed.exit(LIMIT).await.success());
    launch.run_until_caught_up().await;

    let glue = config::Glue {
        database: "sales".into(),
        endpoint: Some(moto.endpoint.clone()),
        every: config::Span::seconds(1),
    };
    let lake = config::Lake { catalog: Some(config::Catalog::Glue(glue)), ..s3.lake("shop") };
    let log = Log::open(Lake::open(&lake).unwrap(), "shop", Access::Write).await.unwrap();
    Catalog::open(&lake).unwrap().unwrap().follow(&log).await.unwrap();
    let mut named: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for n in 1..=log.state().n {
        for (table, epoch) in &log.manifest(n).await.unwrap().tables {
            for file in &epoch.files {
                let parts: Vec<&str> = file.path.split('/').collect();
                let hour = parts[2..4].iter().map(|part| part.split_once('=').unwrap().1).collect::<Vec<_>>().join("/");
                assert!(named.entry((table.clone(), hour)).or_default().insert(parts[4].to_owned()));
            }
        }
    }
    let (mut shown, mut uploaded) = (BTreeMap::new(), BTreeSet::new());
    for table in log.state().contracts.keys() {
        for (values, place) in moto.places(table).await {
            let place = s3.folder().join(place.strip_prefix("s3://lake/").unwrap());
            shown.insert((table.clone(), values.clone()), names(&place));
            let (day, hour) = values.split_once('/').unwrap();
            let processed = format!("shop/processed/{table}/dt={day}/hour={hour}");
            uploaded.extend(names(&s3.folder().join(processed)).into_iter().map(|name| (table.clone(), name)));
        }
    }
    let count: usize = named.values().map(BTreeSet::len).sum();
    assert!(uploaded.len() > count, "the killed attempt left nothing: {uploaded:?}");
    assert_eq!(shown, named);
}

/// GIVEN a topology with a catalog, THEN a process that loads brings it up to date, and says how: what it made, what it asked
/// for, when it last succeeded; and that it cannot, when Glue is away.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_loads_keeps_the_catalog() {
    if !available("python") {
        return;
    }
    let (moto, s3) = (Moto::start().await, S3Server::start().await);
    let folder = tempfile::tempdir().unwrap();
    let stock = Stock::make(181, busy_shop(400), 400);
    stock.write_files(&folder.path().join("events"), 1);
    let topology = cataloged(&s3, &moto, true);
    let launch = Launch::new(folder.path(), &topology);
    let mut process = launch.run();
    let begun = Instant::now();
    let metrics = loop {
        let metrics = process.page("/metrics").await.unwrap_or_default();
        if metric(&metrics, "dataflow_catalog_changes_total{what=\"registered\"}") >= Some(5.0) {
            break metrics;
        }
        assert!(begun.elapsed() < LIMIT, "{metrics}\n{}", process.log_tail());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(metric(&metrics, "dataflow_catalog_changes_total{what=\"tables\"}"), Some(5.0), "{metrics}");
    let created = "dataflow_catalog_requests_total{operation=\"CreateTable\",answer=\"ok\"}";
    assert_eq!(metric(&metrics, created), Some(5.0), "{metrics}");
    assert!(metric(&metrics, "dataflow_upkeep_age_seconds{task=\"catalog\"}").is_some(), "{metrics}");
    process.wait_for("a pass", LIMIT, |status| upkeep(status, "catalog")["succeeded_at"].is_string()).await;
    assert_eq!(moto.partitions("orders").await.len(), 1);
    process.stop().await;
    drop(moto);
    // One that starts asks, also when there is no news.
    let mut process = launch.run();
    let failed = |status: &Value| upkeep(status, "catalog")["failures"].as_u64() > Some(0);
    let status = process.wait_for("a pass that fails", LIMIT, failed).await;
    assert!(status["problems"].to_string().contains("catalog"), "{status}");
    let metrics = process.page("/metrics").await.unwrap();
    assert!(metric(&metrics, "dataflow_upkeep_failures_total{task=\"catalog\"}") >= Some(1.0), "{metrics}");
    process.kill();
}
