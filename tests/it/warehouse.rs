//! The warehouses, held against a model that goes row by row.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::buffer::BooleanBuffer;
use dataflow::batch::{NO_TIME, Op, Seq, TableChanges};
use dataflow::contract::{Column, Contract, TableSchema, Type};
use dataflow::epoch::{DeleteMode, LoadAccount, LoadUnit, TableLoad};
use dataflow::error::ErrorKind;
use dataflow::pipeline::fold::fold;
use dataflow::progress::Partition;
use dataflow::warehouse::{Lost, Warehouse};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sqlx::Row;
use uuid::Uuid;

mod cases;
mod each;
mod history;
mod model;

/// A change of the model's table `(id bigint key, a bigint, b text)`; `None` = unchanged.
#[derive(Clone)]
pub(crate) struct Change {
    pub(crate) op: Op,
    pub(crate) seq: u64,
    pub(crate) id: i64,
    pub(crate) old: Option<i64>,
    pub(crate) a: Option<i64>,
    pub(crate) b: Option<Option<String>>,
}

impl std::fmt::Debug for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { op, seq, id, old, a, b } = self;
        write!(f, "{op:?}@{seq} id={id}")?;
        old.map_or(Ok(()), |old| write!(f, " from {old}"))?;
        if op.has_row() { write!(f, " a={a:?} b={b:?}") } else { Ok(()) }
    }
}

fn seq(n: u64) -> Seq {
    Seq { major: n, ..Seq::default() }
}

/// How the keys of the model stand in its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keys {
    Numbers,
    /// Texts that differ in trailing blanks alone.
    #[cfg(all(feature = "redshift", feature = "postgres"))]
    Blanks,
}

impl Keys {
    fn contract(self) -> Arc<Contract> {
        let id = if self == Self::Numbers { Type::BigInt } else { Type::TEXT };
        let schema = TableSchema {
            columns: vec![Column::new("id", id), Column::new("a", Type::BigInt), Column::new("b", Type::TEXT)],
            key: vec!["id".into()],
        };
        Arc::new(Contract { table: "things".into(), version: 1, input: schema.clone(), output: schema })
    }

    /// The key as a number, in SQL.
    fn number(self) -> &'static str {
        if self == Self::Numbers { "things.id" } else { "octet_length(things.id) - 1" }
    }
}

pub(crate) fn contract() -> Arc<Contract> {
    Keys::Numbers.contract()
}

/// The values of a key's column.
fn keys(contract: &Contract, ids: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    if contract.output.columns[0].data_type == Type::BigInt {
        return Arc::new(Int64Array::from_iter(ids));
    }
    let text = |id: i64| format!("k{}", " ".repeat(usize::try_from(id).unwrap()));
    Arc::new(ids.map(|id| id.map(text)).collect::<StringArray>())
}

fn bits(rows: &[Change], unchanged: impl Fn(&Change) -> bool) -> Option<BooleanBuffer> {
    rows.iter().any(&unchanged).then(|| rows.iter().map(unchanged).collect())
}

/// The changes as the lake would give them.
pub(crate) fn batch(contract: &Arc<Contract>, rows: &[Change]) -> TableChanges {
    let id = keys(contract, rows.iter().map(|r| (r.op != Op::Truncate).then_some(r.id)));
    let a: ArrayRef = Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.a.filter(|_| r.op.has_row()))));
    let b: ArrayRef =
        Arc::new(StringArray::from_iter(rows.iter().map(|r| r.b.clone().flatten().filter(|_| r.op.has_row()))));
    let partial = |r: &Change, is: bool| r.op.has_row() && is;
    let old = RecordBatch::try_from_iter_with_nullable([("id", keys(contract, rows.iter().map(|r| r.old)), true)]);
    TableChanges {
        contract: Arc::clone(contract),
        partition: Partition::new("shop", "things/0"),
        rows: RecordBatch::try_new(contract.output.arrow(), vec![id, a, b]).unwrap(),
        ops: rows.iter().map(|r| r.op).collect(),
        seqs: rows.iter().map(|r| seq(r.seq)).collect(),
        source_times_us: rows.iter().map(|r| r.seq as i64 * 1_000_000).collect(),
        unchanged: vec![None, bits(rows, |r| partial(r, r.a.is_none())), bits(rows, |r| partial(r, r.b.is_none()))],
        old_keys: rows.iter().any(|r| r.old.is_some()).then(|| old.unwrap()),
    }
}

/// A row of the model: order, values, deleted.
pub(crate) type Values = (u64, i64, Option<String>, bool);

/// A warehouse under test and a way to read what it shows.
pub(crate) struct Under {
    warehouse: Arc<dyn Warehouse>,
    reader: Reader,
    /// What `open` was given, to open it a second time.
    config: dataflow::config::Warehouse,
    /// Where it finds what it is to load.
    staging: Arc<dyn dataflow::warehouse::Staging>,
    _kept: Box<dyn std::any::Any + Send + Sync>,
}

#[derive(Clone)]
enum Reader {
    Sqlite(sqlx::SqlitePool),
    #[cfg(feature = "postgres")]
    Postgres(sqlx::PgPool),
}

/// For warehouses that take their rows through their connection.
fn nowhere() -> Arc<dyn dataflow::warehouse::Staging> {
    let url = std::env::temp_dir().join("no-lake").to_str().unwrap().to_owned();
    let lake = dataflow::config::Lake { url, ..Default::default() };
    dataflow::pipeline::staging::staging(&dataflow::lake::Lake::open(&lake).unwrap())
}

impl Under {
    async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.db").to_str().unwrap().to_owned();
        let reader = Reader::Sqlite(sqlx::SqlitePool::connect(&format!("{path}?mode=rwc")).await.unwrap());
        let config = dataflow::config::Warehouse::Sqlite(dataflow::config::SqliteWarehouse { path });
        let warehouse = dataflow::warehouse::open(&config, "t", nowhere()).await.unwrap();
        Self { warehouse, reader, config, staging: nowhere(), _kept: Box::new(folder) }
    }

    #[cfg(feature = "postgres")]
    async fn postgres() -> Self {
        let url = crate::support::postgres::server().database().await;
        let reader = Reader::Postgres(sqlx::PgPool::connect(&url).await.unwrap());
        let schema = "public".to_owned();
        let config = dataflow::config::Warehouse::Postgres(dataflow::config::PostgresWarehouse { url, schema });
        let warehouse = dataflow::warehouse::open(&config, "t", nowhere()).await.unwrap();
        Self { warehouse, reader, config, staging: nowhere(), _kept: Box::new(()) }
    }

    /// Read behind the emulator's back.
    #[cfg(all(feature = "redshift", feature = "postgres"))]
    pub(crate) async fn redshift() -> Self {
        Self::on_cluster(crate::support::cluster::Cluster::start().await, 32 << 20).await
    }

    /// With so much of a table in one staged file.
    #[cfg(all(feature = "redshift", feature = "postgres"))]
    pub(crate) async fn redshift_in_files(bytes: u64) -> Self {
        Self::on_cluster(crate::support::cluster::Cluster::start().await, bytes).await
    }

    /// With transactions that are kept apart in that way.
    #[cfg(all(feature = "redshift", feature = "postgres"))]
    pub(crate) async fn isolated(isolation: redshift_sim::Isolation) -> Self {
        let with = |options| redshift_sim::Options { isolation, ..options };
        Self::on_cluster(crate::support::cluster::Cluster::start_with(with).await, 32 << 20).await
    }

    /// Through the Data API.
    #[cfg(all(feature = "redshift", feature = "postgres"))]
    pub(crate) async fn redshift_through_data_api() -> Self {
        let cluster = crate::support::cluster::Cluster::start().await;
        let redshift = cluster.through_data_api();
        Self::of_cluster(cluster, redshift).await
    }

    #[cfg(all(feature = "redshift", feature = "postgres"))]
    async fn on_cluster(cluster: crate::support::cluster::Cluster, bytes: u64) -> Self {
        let file_bytes = dataflow::config::Bytes(bytes);
        let redshift = dataflow::config::RedshiftWarehouse { file_bytes, ..cluster.warehouse() };
        Self::of_cluster(cluster, redshift).await
    }

    #[cfg(all(feature = "redshift", feature = "postgres"))]
    async fn of_cluster(
        cluster: crate::support::cluster::Cluster,
        redshift: dataflow::config::RedshiftWarehouse,
    ) -> Self {
        let reader = Reader::Postgres(sqlx::PgPool::connect(&cluster.postgres_url).await.unwrap());
        let lake = dataflow::lake::Lake::open(&cluster.lake()).unwrap();
        let staging = dataflow::pipeline::staging::staging(&lake);
        let config = dataflow::config::Warehouse::Redshift(redshift);
        let warehouse = dataflow::warehouse::open(&config, "t", Arc::clone(&staging)).await.unwrap();
        Self { warehouse, reader, config, staging, _kept: Box::new(cluster) }
    }

    /// What the warehouse stands on.
    #[cfg(all(feature = "redshift", feature = "postgres"))]
    pub(crate) fn kept<T: 'static>(&self) -> &T {
        self._kept.downcast_ref().expect("another warehouse")
    }

    pub(crate) fn warehouse(&self) -> &dyn Warehouse {
        &*self.warehouse
    }

    /// Another loader of the same topology.
    pub(crate) async fn another(&self) -> Arc<dyn Warehouse> {
        dataflow::warehouse::open(&self.config, "t", Arc::clone(&self.staging)).await.unwrap()
    }

    pub(crate) fn config(&self) -> &dataflow::config::Warehouse {
        &self.config
    }

    pub(crate) fn staging(&self) -> &dyn dataflow::warehouse::Staging {
        &*self.staging
    }

    pub(crate) async fn execute(&self, sql: &str) {
        let sql = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()));
        match &self.reader {
            Reader::Sqlite(pool) => sql.execute(pool).await.map(|_| ()).unwrap(),
            #[cfg(feature = "postgres")]
            Reader::Postgres(pool) => sql.execute(pool).await.map(|_| ()).unwrap(),
        }
    }

    /// All rows of a query whose columns are texts.
    pub(crate) async fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        match &self.reader {
            Reader::Sqlite(pool) => {
                let rows = sqlx::query(sql).fetch_all(pool).await.unwrap();
                rows.iter().map(|r| (0..r.len()).map(|i| r.get_unchecked(i)).collect()).collect()
            }
            #[cfg(feature = "postgres")]
            Reader::Postgres(pool) => {
                let rows = sqlx::query(sql).fetch_all(pool).await.unwrap();
                rows.iter().map(|r| (0..r.len()).map(|i| r.get(i)).collect()).collect()
            }
        }
    }

    pub(crate) async fn things(&self, soft: bool) -> BTreeMap<i64, Values> {
        self.things_of(Keys::Numbers, soft).await
    }

    async fn things_of(&self, keys: Keys, soft: bool) -> BTreeMap<i64, Values> {
        let id = keys.number();
        let deleted = if soft { "CASE WHEN _deleted THEN '1' ELSE '0' END" } else { "'0'" };
        let sql = format!("SELECT CAST({id} AS text), _seq, CAST(a AS text), b, {deleted} FROM things");
        let rows = self.rows(&sql).await.into_iter().map(|r| {
            let seq = Seq::parse(r[1].as_ref().unwrap()).unwrap().major;
            let number = |i: usize| r[i].as_ref().unwrap().parse::<i64>().unwrap();
            (number(0), (seq, number(2), r[3].clone(), r[4].as_deref() == Some("1")))
        });
        rows.collect()
    }

    pub(crate) async fn reset(&self) {
        let mut tables = ["_dataflow_ledger", "_dataflow_tables", "_dataflow_tombstones", "_dataflow_incomplete"]
            .map(str::to_owned)
            .to_vec();
        if matches!(self.config, dataflow::config::Warehouse::Redshift(_)) {
            let control = "SELECT tablename::text FROM pg_tables WHERE tablename LIKE '\\_dataflow\\_%'";
            tables = self.rows(control).await.into_iter().filter_map(|row| row[0].clone()).collect();
        }
        let clear: String = tables.iter().map(|t| format!("DELETE FROM {t};")).collect();
        self.execute(&format!("{clear} DROP TABLE IF EXISTS things;")).await;
    }
}

pub(crate) fn unit(after: u64, tables: Vec<TableLoad>) -> LoadUnit {
    LoadUnit {
        group: "g".into(),
        log: Uuid::nil(),
        after,
        through: after + 1,
        held: BTreeMap::new(),
        held_before: BTreeMap::new(),
        tables,
    }
}

/// GIVEN more groups than connections, WHEN all read their ledgers at once, THEN none waits for another one's connection.
#[tokio::test]
async fn many_groups_read_their_ledgers_at_once() {
    let under = Under::sqlite().await;
    let groups: Vec<String> = (0..16).map(|n| format!("g{n}")).collect();
    for group in &groups {
        let empty = LoadUnit { group: group.clone(), ..unit(0, Vec::new()) };
        under.warehouse().apply(&empty).await.unwrap();
    }
    let all = futures::future::join_all(groups.iter().map(|group| under.warehouse().applied(group)));
    let answers = tokio::time::timeout(std::time::Duration::from_secs(20), all).await.expect("nobody is stuck");
    assert!(answers.into_iter().all(|answer| answer.unwrap().unwrap().through == 1));
}

// Every scenario runs on both warehouses.

impl Under {
    fn is_sqlite(&self) -> bool {
        matches!(self.reader, Reader::Sqlite(_))
    }

    async fn load(&self, n: u64, mode: DeleteMode, keep: bool, rows: &[Change]) -> LoadAccount {
        let contract = contract();
        let load = fold(&contract, mode, vec![batch(&contract, rows)], keep).unwrap();
        let applied = self.warehouse().apply(&unit(n, vec![load])).await.unwrap();
        assert!(applied.accounts["things"].balances());
        applied.accounts["things"]
    }
}

pub(crate) fn put(seq: u64, id: i64, a: i64, b: &str) -> Change {
    Change { op: Op::Create, seq, id, old: None, a: Some(a), b: Some(Some(b.into())) }
}

pub(crate) fn moved(seq: u64, old: i64, id: i64) -> Change {
    Change { op: Op::Move, seq, id, old: Some(old), a: None, b: None }
}

pub(crate) fn gone(seq: u64, id: i64) -> Change {
    Change { op: Op::Delete, seq, id, old: None, a: None, b: None }
}

fn partial(seq: u64, id: i64, a: i64) -> Change {
    Change { op: Op::Update, seq, id, old: None, a: Some(a), b: None }
}

/// A contract of the table `t` with these columns; the first is the key unless `key` is false.
pub(crate) fn table(columns: &[(&str, Type)], key: bool) -> Arc<Contract> {
    let schema = TableSchema {
        columns: columns.iter().map(|(name, data_type)| Column::new(*name, *data_type)).collect(),
        key: if key { vec![columns[0].0.to_owned()] } else { Vec::new() },
    };
    Arc::new(Contract { table: "t".into(), version: 1, input: schema.clone(), output: schema })
}

pub(crate) fn created(contract: &Arc<Contract>, first: u64, columns: Vec<ArrayRef>) -> TableChanges {
    let rows = RecordBatch::try_new(contract.output.arrow(), columns).unwrap();
    let count = rows.num_rows();
    TableChanges {
        contract: Arc::clone(contract),
        partition: Partition::new("shop", "t/0"),
        ops: vec![Op::Create; count],
        seqs: (first..first + count as u64).map(seq).collect(),
        source_times_us: vec![NO_TIME; count],
        unchanged: vec![None; rows.num_columns()],
        old_keys: None,
        rows,
    }
}

pub(crate) async fn try_load(under: &Under, n: u64, changes: TableChanges) -> dataflow::error::Result<LoadAccount> {
    let contract = Arc::clone(&changes.contract);
    let load = fold(&contract, DeleteMode::Hard, vec![changes], false)?;
    Ok(under.warehouse().apply(&unit(n, vec![load])).await?.accounts["t"])
}

impl Under {
    async fn tombstones(&self) -> usize {
        if !matches!(self.config, dataflow::config::Warehouse::Redshift(_)) {
            return self.rows("SELECT key FROM _dataflow_tombstones").await.len();
        }
        let control = "SELECT tablename::text FROM pg_tables WHERE tablename LIKE '\\_dataflow\\_tombstones\\_%'";
        let table = self.rows(control).await[0][0].clone().unwrap();
        self.rows(&format!("SELECT key FROM {table}")).await.len()
    }

    /// The orders of what is written down as incomplete.
    async fn open_incompletes(&self) -> Vec<u64> {
        let open = self.warehouse().incompletes("g", 0).await.unwrap();
        open.iter().map(|row| Seq::parse(&row.seq).unwrap().major).collect()
    }
}

/// The process that loses the answer to its commit: failpoints belong to a whole process, so it is one of its own.
#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the_ledger_tells_what_a_lost_answer_did"]
async fn loses_answers() {
    dataflow::failpoint::setup();
    #[cfg_attr(not(feature = "postgres"), allow(unused_mut, reason = "one warehouse"))]
    let mut all = vec![Under::sqlite().await];
    #[cfg(feature = "postgres")]
    all.push(Under::postgres().await);
    for under in all {
        under.warehouse().ensure(&contract(), DeleteMode::Hard).await.unwrap();
        let load = fold(&contract(), DeleteMode::Hard, vec![batch(&contract(), &[put(1, 1, 1, "")])], false).unwrap();
        let error = under.warehouse().apply(&unit(0, vec![load])).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::WarehouseUnavailable);
        let through = under.warehouse().applied("g").await.unwrap().map(|applied| applied.through);
        println!("through={} rows={}", through.unwrap_or(0), under.things(false).await.len());
    }
}

#[cfg(feature = "failpoints")]
#[test]
fn the_ledger_tells_what_a_lost_answer_did() {
    let run = |failpoint: &str| {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "warehouse::loses_answers", "--ignored", "--nocapture"])
            .env("FAILPOINTS", failpoint)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        text.lines().filter(|line| line.starts_with("through=")).map(str::to_owned).collect::<Vec<_>>()
    };
    let warehouses = if cfg!(feature = "postgres") { 2 } else { 1 };
    assert_eq!(run("warehouse.commit.after=return(lost)"), vec!["through=1 rows=1"; warehouses]);
    for place in ["copy.before", "copy.after", "ledger.before", "ledger.after", "commit.before"] {
        let found = run(&format!("warehouse.{place}=return(error)"));
        assert_eq!(found, vec!["through=0 rows=0"; warehouses], "{place}");
    }
}
