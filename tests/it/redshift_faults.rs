//! What goes wrong at a cluster, and what becomes of it: tried again, explained, parked; never silent, never a secret.

use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use async_trait::async_trait;
use bytes::Bytes;
use dataflow::config::{self, RedshiftWarehouse, Span};
use dataflow::contract::Contract;
use dataflow::epoch::DeleteMode;
use dataflow::error::{Disposition, ErrorKind, Result};
use dataflow::pipeline::fold::fold;
use dataflow::warehouse::Staging;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use redshift_sim::{Fault, Kind, Rule};

use crate::redshift::{apply_patiently, shop};
use crate::support::cluster::Cluster;
use crate::support::oracle::Oracle;
use crate::support::process::{LIMIT, Launch, table};
use crate::warehouse::{Under, batch, contract, put, unit};

/// One row for the table of the tests, as the first unit.
fn one_row() -> dataflow::epoch::LoadUnit {
    let contract = contract();
    let rows = batch(&contract, &[put(1, 1, 10, "one")]);
    unit(0, vec![fold(&contract, DeleteMode::Hard, vec![rows], false).unwrap()])
}

/// GIVEN a COPY that fails for a reason that Redshift does not give, THEN it is tried again, and parks no table however often
/// that happens within minutes; where another table of the group goes through, a few times park the one that does not.
#[tokio::test(flavor = "multi_thread")]
async fn what_redshift_does_not_explain_is_tried_again_while_all_tables_meet_it() {
    let under = Under::redshift().await;
    let (warehouse, sim) = (under.warehouse(), &under.cluster().sim);
    let other = Arc::new(Contract { table: "others".into(), ..Contract::clone(&contract()) });
    for contract in [&contract(), &other] {
        warehouse.ensure(contract, DeleteMode::Hard).await.unwrap();
    }
    let of_both = |after: u64| {
        let rows = |contract: &Arc<Contract>| batch(contract, &[put(after + 1, 1, 10, "one")]);
        let load = |contract| fold(contract, DeleteMode::Hard, vec![rows(contract)], false).unwrap();
        unit(after, vec![load(&other), load(&contract())])
    };
    sim.fail(Rule::new(Fault::ScanFailed).on(Kind::Copy).times(12));
    assert_eq!(apply_patiently(&under, &of_both(0)).await, 13);

    sim.fail(Rule::new(Fault::ScanFailed).on(Kind::Insert).containing("\"things\""));
    for attempt in 0..3 {
        let error = warehouse.apply(&of_both(1)).await.unwrap_err();
        assert_eq!(error.disposition(), Disposition::Retry, "attempt {attempt}: {error}");
    }
    let error = warehouse.apply(&of_both(1)).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Table("things".into()), "{error}");
    for part in ["4 times in a row, while other tables", "Task failed due to an internal error"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    // Whoever resumes the table gets all attempts again.
    let error = warehouse.apply(&of_both(1)).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Retry, "{error}");
}

/// Puts a text into what is staged that is longer than its column.
struct Tampering {
    inner: Arc<dyn Staging>,
    length: Mutex<usize>,
}

fn with_long_text(body: &Bytes) -> Bytes {
    let reader = ParquetRecordBatchReaderBuilder::try_new(body.clone()).unwrap().build().unwrap();
    let batch = reader.map(|batch| batch.unwrap()).next().unwrap();
    let mut columns = batch.columns().to_vec();
    let at = batch.schema().index_of("b").unwrap();
    columns[at] = Arc::new(StringArray::from(vec!["x".repeat(70_000); batch.num_rows()])) as ArrayRef;
    let batch = RecordBatch::try_new(batch.schema(), columns).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap().into()
}

#[async_trait]
impl Staging for Tampering {
    fn url(&self, name: &str) -> String {
        self.inner.url(name)
    }

    async fn put(&self, name: &str, body: Bytes) -> Result<()> {
        let body = if name.ends_with(".parquet") {
            let body = with_long_text(&body);
            *self.length.lock().unwrap() = body.len();
            body
        } else {
            let mut manifest: serde_json::Value = serde_json::from_slice(&body).unwrap();
            manifest["entries"][0]["meta"]["content_length"] = (*self.length.lock().unwrap()).into();
            manifest.to_string().into()
        };
        self.inner.put(name, body).await
    }

    async fn discard(&self, names: &[String]) {
        self.inner.discard(names).await;
    }
}

/// GIVEN a file that COPY refuses, THEN the error names the column and the reason as Redshift has written them down, and
/// shows neither the statement nor a secret; the group goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_error_is_told_in_full() {
    let cluster = Cluster::start().await;
    let lake = dataflow::lake::Lake::open(&cluster.lake()).unwrap();
    let inner = dataflow::pipeline::staging::staging(&lake);
    let tampering = Arc::new(Tampering { inner: Arc::clone(&inner), length: Mutex::default() });
    let config = config::Warehouse::Redshift(cluster.warehouse());
    let warehouse = dataflow::warehouse::open(&config, "t", tampering).await.unwrap();
    warehouse.ensure(&contract(), DeleteMode::Hard).await.unwrap();
    let error = warehouse.apply(&one_row()).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Table("things".into()), "{error}");
    let text = error.to_string();
    for part in ["COPY of column b (VARCHAR)", "1204", "longer than the length defined"] {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
    for secret in ["Secret-1", "IAM_ROLE", "xxxx"] {
        assert!(!text.contains(secret), "{text}");
    }
    let honest = dataflow::warehouse::open(&config, "t", inner).await.unwrap();
    assert_eq!(honest.apply(&one_row()).await.unwrap().through, 1);
    assert!(warehouse.applied("g").await.unwrap().is_some_and(|applied| applied.through == 1));
}

/// GIVEN a file of more than 64 MiB, WHEN it is staged, THEN it goes in parts, of which one that fails is sent again alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_is_staged_in_parts() {
    let s3 = crate::support::s3::S3Server::start().await;
    let lake = dataflow::lake::Lake::open(&s3.lake("lake")).unwrap();
    let staging = dataflow::pipeline::staging::staging(&lake);
    let body: Bytes = (0..(65u32 << 20) / 4).flat_map(u32::to_le_bytes).collect::<Vec<u8>>().into();
    s3.fault(crate::support::s3::Fault::SlowDown, "PUT", "_stage", 1);
    staging.put("group/one.parquet", body.clone()).await.unwrap();
    let parts: Vec<usize> =
        s3.asked().into_iter().filter(|asked| asked.query.contains("partNumber")).map(|asked| asked.bytes).collect();
    assert_eq!(parts.len(), 6, "five parts, one of them twice: {parts:?}");
    assert!(parts.iter().all(|bytes| *bytes <= 16 << 20), "{parts:?}");
    let stored = std::fs::read(s3.folder().join("lake/_stage/group/one.parquet")).unwrap();
    assert!(stored == body, "another file is there");
}

/// GIVEN a cluster that takes a statement and says nothing, THEN it is given up after the time that the topology says, and
/// tried again.
#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_nobody_answers_is_given_up() {
    let cluster = Cluster::start().await;
    let lake = dataflow::lake::Lake::open(&cluster.lake()).unwrap();
    let short = RedshiftWarehouse { statement_timeout: Span::seconds(10), ..cluster.warehouse() };
    let staging = dataflow::pipeline::staging::staging(&lake);
    let warehouse = dataflow::warehouse::open(&config::Warehouse::Redshift(short), "t", staging).await.unwrap();
    warehouse.ensure(&contract(), DeleteMode::Hard).await.unwrap();
    cluster.sim.fail(Rule::new(Fault::Silence).on(Kind::Copy).times(1));
    let error = warehouse.apply(&one_row()).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Retry, "{error}");
    assert!(error.to_string().contains("no answer in 10s"), "{error}");
    assert_eq!(warehouse.apply(&one_row()).await.unwrap().through, 1);
}

/// GIVEN a cluster on which everything goes wrong that may, WHEN a shop is loaded, THEN it comes through, and each reason is
/// counted by its name.
#[tokio::test(flavor = "multi_thread")]
async fn failures_are_counted_by_their_reasons() {
    let cluster = Cluster::start().await;
    let folder = tempfile::tempdir().unwrap();
    let stock = crate::exactly_once::world::Stock::make(95, crate::exactly_once::world::busy_shop(400), 400);
    stock.write_files(&folder.path().join("events"), 2);
    let faults = [
        (Fault::Serializable, Kind::Commit, "serializable"),
        (Fault::Conflict, Kind::Delete, "conflict"),
        (Fault::RelationMissing, Kind::Insert, "relation"),
        (Fault::QueueTimeout, Kind::Copy, "queue"),
        (Fault::ResetBefore, Kind::Lock, "connection"),
        (Fault::AnswerLost, Kind::Commit, "connection"),
        (Fault::ScanFailed, Kind::Copy, "internal"),
    ];
    let met = faults.map(|(fault, kind, _)| cluster.sim.fail(Rule::new(fault).on(kind).after(1).times(1)));
    let topology = shop(&cluster).replace("follow: false", "follow: true");
    let mut process = Launch::new(folder.path(), &topology).run();
    let tables = ["orders", "order_lines", "customers", "products"];
    let loaded = |status: &serde_json::Value| {
        let changes = |name: &str| crate::support::process::table(status, name)["changes_total"].as_u64();
        status["problems"].as_array().is_some_and(Vec::is_empty)
            && tables.iter().all(|table| changes(table).is_some_and(|n| n > 0))
            && met.iter().all(|met| met.times() > 0)
    };
    process.wait_for("the shop and every fault", LIMIT, loaded).await;
    for ((fault, kind, _), met) in faults.iter().zip(&met) {
        assert_eq!(met.times(), 1, "{fault:?} at {kind:?}");
    }
    let metrics = process.page("/metrics").await.unwrap();
    for (fault, _, reason) in faults {
        let counted = format!("dataflow_warehouse_faults_total{{reason=\"{reason}\"}}");
        assert!(metrics.contains(&counted), "{fault:?}: no {counted} in\n{metrics}");
    }
    process.stop().await;
    assert!(!process.whole_log().contains("Secret-1"));
}

/// GIVEN a limit that ends every INSERT into one table, THEN its group loads less and less at a time, then that table is
/// parked with what to do, and the others go on; once there is room and somebody resumes it, its rows arrive.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_limit_ends_each_time_parks_its_table() {
    let cluster = Cluster::start().await;
    let folder = tempfile::tempdir().unwrap();
    let stock = crate::exactly_once::world::Stock::make(96, crate::exactly_once::world::busy_shop(400), 400);
    stock.write_files(&folder.path().join("events"), 2);
    cluster.sim.fail(Rule::new(Fault::QueueTimeout).on(Kind::Insert).containing("insert into \"shop\" . \"orders\""));
    let launch = Launch::new(folder.path(), &shop(&cluster).replace("follow: false", "follow: true"));
    let mut process = launch.run();
    let parked = |status: &serde_json::Value| {
        table(status, "orders")["state"] == "parked"
            && ["order_lines", "customers", "products"]
                .iter()
                .all(|t| table(status, t)["changes_total"].as_u64() > Some(0))
    };
    let status = process.wait_for("orders is parked, the others are loaded", LIMIT, parked).await;
    let why = table(&status, "orders").to_string();
    assert!(why.contains("a limit ended it 6 times in a row") && why.contains("query_group"), "{why}");
    assert_eq!(cluster.sim.counters().injected, 6);
    process.stop().await;
    cluster.sim.heal();
    let resumed = launch.other(&["table", "resume"], &["orders"]);
    assert!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
    launch.run_until_caught_up().await;
    let oracle = Oracle::postgres(&cluster.postgres_url, "shop");
    oracle.assert(&oracle.differences(&stock.expected).await);
}

/// GIVEN a backlog that is too much for a limit at once, THEN the next tries take less of it, and it comes through.
#[tokio::test(flavor = "multi_thread")]
async fn a_unit_that_a_limit_ends_is_halved() {
    let cluster = Cluster::start().await;
    let folder = tempfile::tempdir().unwrap();
    let stock = crate::exactly_once::world::Stock::make(97, crate::exactly_once::world::busy_shop(1_200), 1_200);
    let mut arrivals = crate::regroup::Arrivals::of(&stock, folder.path(), 4);
    let text = shop(&cluster).replace(
        "groups: { sales: [orders, order_lines] }",
        "groups: { all: [orders, order_lines, customers, products, page_views] }",
    );
    let launch = Launch::new(folder.path(), &format!("{text}\nlimits: {{ unit_bytes: 160KiB }}\n"));
    for _ in 0..4 {
        arrivals.next();
        crate::regroup::only_ingest(&launch).await;
    }
    cluster.sim.fail(Rule::new(Fault::QueueTimeout).on(Kind::Copy).times(4));
    launch.run_until_caught_up().await;
    let log = launch.whole_log();
    let begun = log.lines().filter(|line| line.contains("\"loading: "));
    let bytes: Vec<u64> =
        begun.filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()?["bytes"].as_u64()).collect();
    assert!(bytes[1] <= 80 * 1024 && bytes[0] > bytes[1], "the second try is not half of the first: {bytes:?}");
    assert_eq!(cluster.sim.counters().injected, 4);
    let oracle = Oracle::postgres(&cluster.postgres_url, "shop");
    oracle.assert(&oracle.differences(&stock.expected).await);
}

/// GIVEN a limit that ends even COMMIT, time after time, THEN nothing more is tried, and the error says what to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_ends_what_is_of_no_table_stops_the_process() {
    let under = Under::redshift().await;
    under.warehouse().ensure(&contract(), DeleteMode::Hard).await.unwrap();
    under.cluster().sim.fail(Rule::new(Fault::QueueTimeout).on(Kind::Commit));
    let mut retried = 0;
    let error = loop {
        let error = under.warehouse().apply(&one_row()).await.unwrap_err();
        if error.disposition() != Disposition::Retry {
            break error;
        }
        retried += 1;
        assert!(retried < 100, "for ever");
    };
    assert_eq!((retried, error.disposition()), (23, Disposition::Halt), "{error}");
    assert!(error.help_text().is_some_and(|help| help.contains("warehouse.query_group")), "{error}");
    under.cluster().sim.heal();
    assert_eq!(under.warehouse().apply(&one_row()).await.unwrap().through, 1);
}

/// GIVEN a query group in the topology, THEN every session begins with it, and the plan says so.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_belong_to_the_query_group_of_the_topology() {
    let cluster = Cluster::start().await;
    let folder = tempfile::tempdir().unwrap();
    let stock = crate::exactly_once::world::Stock::make(98, crate::exactly_once::world::busy_shop(100), 100);
    stock.write_files(&folder.path().join("events"), 1);
    let text = shop(&cluster).replace("schema: shop,", "schema: shop, query_group: \"etl's\",");
    let launch = Launch::new(folder.path(), &text);
    launch.run_until_caught_up().await;
    let set = "SET query_group TO 'etl''s'";
    let begun = cluster.sim.history().iter().filter(|sql| sql.eq_ignore_ascii_case(set)).count() as u64;
    assert_eq!(begun, cluster.sim.counters().connections);
    let plan = launch.other(&["plan"], &[]);
    assert!(String::from_utf8_lossy(&plan.stdout).contains(set));
}
