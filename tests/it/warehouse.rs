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

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for cut in self.cuts.windows(2) {
            writeln!(f, "-- unit")?;
            self.delivered[cut[0]..cut[1]].iter().try_for_each(|i| writeln!(f, "{:?}", self.changes[*i]))?;
        }
        Ok(())
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

/// Row by row, as the words of the design say it.
#[derive(Debug, Default)]
struct Model {
    rows: BTreeMap<i64, Values>,
    deleted: BTreeMap<i64, u64>,
    refused: BTreeMap<i64, Vec<u64>>,
    floor: u64,
    soft: bool,
}

impl Model {
    fn newest(&self, id: i64) -> u64 {
        self.rows.get(&id).map_or(0, |r| r.0).max(self.deleted.get(&id).copied().unwrap_or(0))
    }

    fn delete(&mut self, id: i64, seq: u64) {
        if self.newest(id) >= seq {
            return;
        }
        if self.soft {
            match self.rows.get_mut(&id) {
                Some(row) => (row.0, row.3) = (seq, true),
                None => {
                    self.deleted.insert(id, seq);
                }
            }
        } else {
            self.rows.remove(&id);
            self.deleted.insert(id, seq);
        }
    }

    fn filled(&self, change: &Change) -> Option<(i64, Option<String>)> {
        if let (Some(a), Some(b)) = (change.a, &change.b) {
            return Some((a, b.clone()));
        }
        let live = |id: i64| self.rows.get(&id).filter(|row| row.0 < change.seq && !row.3);
        let base = change.old.unwrap_or(change.id);
        let refused =
            |row: &&Values| self.refused.get(&base).is_some_and(|m| m.iter().any(|m| row.0 < *m && *m < change.seq));
        // A source has nothing under the key that a row moves to, so a row there says that the move came before.
        let own = change.old.and_then(|_| live(change.id));
        let row = own.or_else(|| live(base).filter(|row| !refused(row)))?;
        Some((change.a.unwrap_or(row.1), change.b.clone().unwrap_or_else(|| row.2.clone())))
    }

    fn change(&mut self, change: &Change) {
        match change.op {
            Op::Truncate => {
                self.floor = self.floor.max(change.seq);
                self.rows.retain(|_, row| row.0 >= change.seq);
                self.deleted.retain(|_, seq| *seq >= change.seq);
            }
            _ if change.seq < self.floor => {}
            Op::Refused => self.refused.entry(change.id).or_default().push(change.seq),
            Op::Delete => self.delete(change.id, change.seq),
            _ => {
                let filled = self.filled(change);
                if let Some(old) = change.old {
                    self.delete(old, change.seq);
                }
                match filled {
                    _ if self.newest(change.id) >= change.seq => {}
                    Some((a, b)) => {
                        self.rows.insert(change.id, (change.seq, a, b, false));
                    }
                    // What had the key before is gone.
                    None if change.old.is_some() => self.delete(change.id, change.seq),
                    None => {}
                }
            }
        }
    }
}

/// What a source does, in its own order, and how far the reader goes back now and then.
#[derive(Clone)]
struct Script {
    changes: Vec<Change>,
    /// The order of delivery: indices into `changes`.
    delivered: Vec<usize>,
    /// Where units end.
    cuts: Vec<usize>,
}

#[derive(Debug, Clone)]
enum Step {
    Put { id: i64, a: i64, b: Option<String> },
    Some { id: i64, a: Option<i64>, b: Option<Option<String>> },
    Move { from: i64, to: i64, a: Option<i64>, b: Option<Option<String>> },
    Delete { id: i64 },
    Refused { id: i64 },
    Truncate,
}

fn step() -> impl Strategy<Value = Step> {
    let text = || proptest::option::of("[a-z]{0,3}");
    let id = || 0i64..6;
    prop_oneof![
        6 => (id(), 0i64..100, text()).prop_map(|(id, a, b)| Step::Put { id, a, b }),
        6 => (id(), proptest::option::of(0i64..100), proptest::option::of(text()))
            .prop_map(|(id, a, b)| Step::Some { id, a, b }),
        3 => (id(), id(), proptest::option::of(0i64..100), proptest::option::of(text()))
            .prop_map(|(from, to, a, b)| Step::Move { from, to, a, b }),
        2 => id().prop_map(|id| Step::Delete { id }),
        1 => id().prop_map(|id| Step::Refused { id }),
        1 => Just(Step::Truncate),
    ]
}

fn change(step: Step, seq: u64, fresh: bool) -> Change {
    let make = |op, id| Change { op, seq, id, old: None, a: None, b: None };
    match step {
        Step::Put { id, a, b } => Change { a: Some(a), b: Some(b), ..make(Op::Create, id) },
        Step::Some { id, a, b } => Change { a, b, ..make(Op::Update, id) },
        Step::Move { from, to, a, b } if from == to => Change { a, b, ..make(Op::Update, to) },
        Step::Move { from, a, b, .. } if fresh => Change { old: Some(from), a, b, ..make(Op::Move, 100 + seq as i64) },
        Step::Move { from, to, a, b } => Change { old: Some(from), a, b, ..make(Op::Move, to) },
        Step::Delete { id } => make(Op::Delete, id),
        Step::Refused { id } => make(Op::Refused, id),
        Step::Truncate => make(Op::Truncate, 0),
    }
}

/// `fresh`: moves go to keys that nothing had before, as a source without deferred constraints does it.
fn script(fresh: bool) -> impl Strategy<Value = Script> {
    let steps = proptest::collection::vec(step(), 1..60);
    let goes_back = |most: usize| proptest::collection::vec((0usize..60, 1usize..12), 0..most);
    (steps, goes_back(3), goes_back(4), proptest::collection::vec(0usize..100, 0..6)).prop_map(
        move |(steps, repeats, rewinds, mut cuts)| {
            let changes = steps.into_iter().enumerate().map(|(n, step)| change(step, n as u64 + 1, fresh)).collect();
            let changes = with_repeats(changes, &repeats);
            let mut delivered = Vec::new();
            let mut rewinds = rewinds.into_iter().map(|(at, back)| (at % changes.len(), back)).collect::<Vec<_>>();
            let mut next = 0;
            while next < changes.len() {
                delivered.push(next);
                next += 1;
                if let Some(found) = rewinds.iter().position(|(at, _)| *at == next) {
                    let (_, back) = rewinds.remove(found);
                    next = next.saturating_sub(back);
                }
            }
            cuts.iter_mut().for_each(|cut| *cut %= delivered.len());
            cuts.extend([0, delivered.len()]);
            cuts.sort_unstable();
            cuts.dedup();
            Script { changes, delivered, cuts }
        },
    )
}

/// What a connector delivers that starts again now and then: the last changes a second time, as newer ones.
fn with_repeats(changes: Vec<Change>, repeats: &[(usize, usize)]) -> Vec<Change> {
    let mut all: Vec<Change> = Vec::new();
    for (n, change) in changes.into_iter().enumerate() {
        all.push(change);
        for (_, back) in repeats.iter().filter(|(at, _)| *at == n) {
            all.extend_from_within(all.len().saturating_sub(*back)..);
        }
    }
    all.iter_mut().zip(1..).for_each(|(change, seq)| change.seq = seq);
    all
}

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

    #[cfg(all(feature = "redshift", feature = "postgres"))]
    async fn on_cluster(cluster: crate::support::cluster::Cluster, bytes: u64) -> Self {
        let reader = Reader::Postgres(sqlx::PgPool::connect(&cluster.postgres_url).await.unwrap());
        let lake = dataflow::lake::Lake::open(&cluster.lake()).unwrap();
        let staging = dataflow::pipeline::staging::staging(&lake);
        let file_bytes = dataflow::config::Bytes(bytes);
        let redshift = dataflow::config::RedshiftWarehouse { file_bytes, ..cluster.warehouse() };
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

/// Of deleted rows the order does not count: a move that cannot be shown may have touched it.
fn shown(mut rows: BTreeMap<i64, Values>) -> BTreeMap<i64, Values> {
    rows.values_mut().filter(|row| row.3).for_each(|row| row.0 = 0);
    rows
}

async fn run_script(under: &Under, script: &Script, mode: DeleteMode, keys: Keys) {
    let contract = keys.contract();
    under.reset().await;
    under.warehouse().ensure(&contract, mode).await.unwrap();
    let mut model = Model { soft: mode == DeleteMode::Soft, ..Model::default() };
    let mut total = LoadAccount::default();
    let counted = |c: &Change| u64::from(c.op != Op::Refused);
    for (n, cut) in script.cuts.windows(2).enumerate() {
        let rows: Vec<Change> = script.delivered[cut[0]..cut[1]].iter().map(|i| script.changes[*i].clone()).collect();
        let batches = rows.chunks(7).map(|rows| batch(&contract, rows)).collect();
        let load = fold(&contract, mode, batches, true).unwrap();
        let applied = under.warehouse().apply(&unit(n as u64, vec![load])).await.unwrap();
        let account = applied.accounts["things"];
        assert!(account.balances(), "{account:?}");
        assert_eq!(account.loaded, rows.iter().map(counted).sum::<u64>());
        total.add(&account);
        rows.iter().for_each(|change| model.change(change));
        assert_eq!(shown(under.things_of(keys, model.soft).await), shown(model.rows.clone()), "after unit {n}");
    }
    let ledger = under.warehouse().applied("g").await.unwrap().unwrap();
    assert_eq!(ledger.accounts["things"], total);
}

fn scripts(cases: u32, mode: DeleteMode, open: impl AsyncFn() -> Under) {
    scripts_of(Keys::Numbers, cases, mode, open);
}

/// Runs random scripts, each shrunk when it fails.
fn scripts_of(keys: Keys, cases: u32, mode: DeleteMode, open: impl AsyncFn() -> Under) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let under = runtime.block_on(open());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 100, ..Config::default() };
    let result = TestRunner::new(config).run(&script(mode == DeleteMode::Soft), |script| {
        let run = std::panic::AssertUnwindSafe(|| match mode {
            DeleteMode::History => runtime.block_on(run_history(&under, &script, keys)),
            _ => runtime.block_on(run_script(&under, &script, mode, keys)),
        });
        std::panic::catch_unwind(run)
            .map_err(|e| TestCaseError::fail(e.downcast_ref::<String>().cloned().unwrap_or_default()))
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn sqlite_equals_the_model_hard() {
    scripts(60, DeleteMode::Hard, Under::sqlite);
}

#[test]
fn sqlite_equals_the_model_soft() {
    scripts(60, DeleteMode::Soft, Under::sqlite);
}

#[cfg(feature = "postgres")]
#[test]
fn postgres_equals_the_model_hard() {
    scripts(16, DeleteMode::Hard, Under::postgres);
}

#[cfg(feature = "postgres")]
#[test]
fn postgres_equals_the_model_soft() {
    scripts(16, DeleteMode::Soft, Under::postgres);
}

#[cfg(all(feature = "redshift", feature = "postgres"))]
#[test]
fn redshift_equals_the_model_hard() {
    scripts(10, DeleteMode::Hard, Under::redshift);
}

#[cfg(all(feature = "redshift", feature = "postgres"))]
#[test]
fn redshift_equals_the_model_soft() {
    scripts(10, DeleteMode::Soft, Under::redshift);
}

#[cfg(all(feature = "redshift", feature = "postgres"))]
#[test]
fn redshift_equals_the_model_history() {
    scripts(10, DeleteMode::History, Under::redshift);
}

/// Redshift takes keys for one another that differ in trailing blanks alone; a source does not.
#[cfg(all(feature = "redshift", feature = "postgres"))]
mod blanks {
    use super::{DeleteMode, Keys, Under, scripts_of};

    #[test]
    fn redshift_equals_the_model_hard() {
        scripts_of(Keys::Blanks, 8, DeleteMode::Hard, Under::redshift);
    }

    #[test]
    fn redshift_equals_the_model_soft() {
        scripts_of(Keys::Blanks, 8, DeleteMode::Soft, Under::redshift);
    }

    #[test]
    fn redshift_equals_the_model_history() {
        scripts_of(Keys::Blanks, 8, DeleteMode::History, Under::redshift);
    }
}

/// The changes of a source that keeps its own rules: what is updated, moved or deleted is there, and nothing has the key
/// that a row moves to. Keys that were left are used again.
fn of_a_source(steps: Vec<Step>) -> Vec<Change> {
    let mut live: Vec<i64> = Vec::new();
    let mut changes: Vec<Change> = Vec::new();
    for (step, n) in steps.into_iter().zip(1u64..) {
        let at = |id: i64| live.get(id as usize % live.len().max(1)).copied();
        let step = match step {
            Step::Put { .. } => Some(step),
            Step::Some { id, a, b } => at(id).map(|id| Step::Some { id, a, b }),
            Step::Move { from, a, b, .. } => at(from).map(|from| Step::Move { from, to: -1, a, b }),
            Step::Delete { id } => at(id).map(|id| Step::Delete { id }),
            Step::Refused { .. } | Step::Truncate => None,
        };
        let Some(change) = step.map(|step| change(step, n, true)) else { continue };
        live.retain(|id| *id != change.old.unwrap_or(change.id));
        if change.op.has_row() {
            live.push(change.id);
        }
        changes.push(change);
    }
    with_repeats(changes, &[])
}

/// GIVEN a connector that delivers the last changes a second time, partial moves among them, in any units, WHEN all is
/// loaded, THEN people see what they would see without it.
fn repeats_converge(mode: DeleteMode) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let under = runtime.block_on(Under::sqlite());
    let soft = mode == DeleteMode::Soft;
    let live = |rows: BTreeMap<i64, Values>| {
        rows.into_iter().filter(|(_, row)| !row.3).map(|(id, row)| (id, row.1, row.2)).collect::<Vec<_>>()
    };
    let input = (proptest::collection::vec(step(), 1..40), 1usize..40, proptest::collection::vec(0usize..80, 0..5));
    let config = Config { cases: 40, failure_persistence: None, max_shrink_iters: 50, ..Config::default() };
    let result = TestRunner::new(config).run(&input, |(steps, back, mut cuts)| {
        let once = of_a_source(steps);
        prop_assume!(!once.is_empty());
        let mut model = Model { soft, ..Model::default() };
        once.iter().for_each(|change| model.change(change));
        let changes = with_repeats(once.clone(), &[(once.len().saturating_sub(1), back)]);
        cuts.iter_mut().for_each(|cut| *cut %= changes.len() + 1);
        cuts.extend([0, changes.len()]);
        cuts.sort_unstable();
        cuts.dedup();
        let script = Script { delivered: (0..changes.len()).collect(), changes, cuts };
        runtime.block_on(run_script(&under, &script, mode, Keys::Numbers));
        assert_eq!(live(runtime.block_on(under.things(soft))), live(model.rows), "{script:?}");
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn repeated_partial_moves_converge() {
    repeats_converge(DeleteMode::Hard);
    repeats_converge(DeleteMode::Soft);
}

/// What history must show, from all that ever happened to a key: versions, and what ended them.
#[derive(Debug, Default)]
struct Past {
    versions: BTreeMap<(i64, u64), (i64, Option<String>)>,
    ends: std::collections::BTreeSet<(i64, u64)>,
    truncates: std::collections::BTreeSet<u64>,
    refused: std::collections::BTreeSet<(i64, u64)>,
}

impl Past {
    fn end(&self, id: i64, seq: u64) -> Option<u64> {
        let version = self.versions.range((id, seq + 1)..=(id, u64::MAX)).next().map(|((_, end), _)| *end);
        let end = self.ends.range((id, seq + 1)..=(id, u64::MAX)).next().map(|(_, end)| *end);
        let truncate = self.truncates.range(seq + 1..).next().copied();
        [version, end, truncate].into_iter().flatten().min()
    }

    fn filled(&self, change: &Change) -> Option<(i64, Option<String>)> {
        if let (Some(a), Some(b)) = (change.a, &change.b) {
            return Some((a, b.clone()));
        }
        let valid = |id: i64| {
            let newest = self.versions.range((id, 0)..(id, change.seq)).next_back();
            newest.filter(|((_, seq), _)| self.end(id, *seq).is_none_or(|end| end >= change.seq))
        };
        let base = change.old.unwrap_or(change.id);
        let refused = |seq: u64| self.refused.range((base, seq + 1)..(base, change.seq)).next().is_some();
        let own = change.old.and_then(|_| valid(change.id));
        let (_, (a, b)) = own.or_else(|| valid(base).filter(|((_, seq), _)| !refused(*seq)))?;
        Some((change.a.unwrap_or(*a), change.b.clone().unwrap_or_else(|| b.clone())))
    }

    fn change(&mut self, change: &Change) {
        let at = (change.id, change.seq);
        match change.op {
            Op::Truncate => drop(self.truncates.insert(change.seq)),
            Op::Refused => drop(self.refused.insert(at)),
            Op::Delete => drop(self.ends.insert(at)),
            _ => {
                let filled = self.filled(change);
                if let Some(old) = change.old {
                    self.ends.insert((old, change.seq));
                }
                match filled {
                    _ if self.versions.contains_key(&at) => {}
                    Some(values) => drop(self.versions.insert(at, values)),
                    None if change.old.is_some() => drop(self.ends.insert(at)),
                    None => {}
                }
            }
        }
    }

    fn rows(&self) -> Vec<Vec<Option<String>>> {
        let row = |((id, seq), (a, b)): (&(i64, u64), &(i64, Option<String>))| {
            let end = self.end(*id, *seq);
            let end_seq = end.map(|end| self::seq(end).to_string());
            let current = if end.is_none() { "1" } else { "0" };
            vec![
                Some(id.to_string()),
                Some(self::seq(*seq).to_string()),
                Some(a.to_string()),
                b.clone(),
                end_seq,
                Some(current.to_owned()),
                Some(clock(*seq)),
                end.map(clock),
            ]
        };
        self.versions.iter().map(row).collect()
    }
}

/// The commit time of change `seq`, to the minute and second.
fn clock(seq: u64) -> String {
    format!("{:02}:{:02}", seq / 60, seq % 60)
}

async fn run_history(under: &Under, script: &Script, keys: Keys) {
    let contract = keys.contract();
    under.reset().await;
    under.warehouse().ensure(&contract, DeleteMode::History).await.unwrap();
    let mut past = Past::default();
    let clock = match &under.reader {
        Reader::Sqlite(_) => |column: &str| format!("strftime('%M:%S', {column})"),
        #[cfg(feature = "postgres")]
        Reader::Postgres(_) => |column: &str| format!("to_char({column} AT TIME ZONE 'UTC', 'MI:SS')"),
    };
    let query = format!(
        "SELECT CAST({id} AS text), _seq, CAST(a AS text), b, _end_seq, CASE WHEN _current THEN '1' ELSE '0' END, {}, {} \
         FROM things ORDER BY {id}, _seq",
        clock("_valid_from"),
        clock("_valid_to"),
        id = keys.number()
    );
    for (n, cut) in script.cuts.windows(2).enumerate() {
        let rows: Vec<Change> = script.delivered[cut[0]..cut[1]].iter().map(|i| script.changes[*i].clone()).collect();
        let batches = rows.chunks(7).map(|rows| batch(&contract, rows)).collect();
        let load = fold(&contract, DeleteMode::History, batches, true).unwrap();
        let applied = under.warehouse().apply(&unit(n as u64, vec![load])).await.unwrap();
        assert!(applied.accounts["things"].balances());
        rows.iter().for_each(|change| past.change(change));
        let (left, right) = (under.rows(&query).await, past.rows());
        let differ = left.iter().zip(&right).find(|(left, right)| left != right);
        assert!(left.len() == right.len() && differ.is_none(), "after unit {n}: {differ:?}");
    }
}

#[test]
fn sqlite_equals_the_model_history() {
    scripts(60, DeleteMode::History, Under::sqlite);
}

#[cfg(feature = "postgres")]
#[test]
fn postgres_equals_the_model_history() {
    scripts(16, DeleteMode::History, Under::postgres);
}

// Every scenario runs on both warehouses.

mod on_sqlite {
    use super::Under;

    #[tokio::test(flavor = "multi_thread")]
    async fn every_type_is_kept_exactly() {
        super::every_type_is_kept_exactly(Under::sqlite().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nul_in_text() {
        super::nul_in_text(Under::sqlite().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_table_that_is_gone_is_not_made_again_in_silence() {
        super::a_table_that_is_gone_is_not_made_again_in_silence(Under::sqlite().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn keys_move_and_swap() {
        super::keys_move_and_swap(Under::sqlite().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn incomplete_rows_are_kept_apart() {
        super::incomplete_rows_are_kept_apart(Under::sqlite().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_becomes_whole_is_not_incomplete_any_more() {
        super::what_becomes_whole_is_not_incomplete_any_more(Under::sqlite().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn partial_moves_come_again() {
        super::partial_moves_come_again(Under::sqlite().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn tombstones_outlive_rows() {
        super::tombstones_outlive_rows(Under::sqlite().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn two_loaders_race() {
        super::two_loaders_race(Under::sqlite().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn another_log_is_refused() {
        super::another_log_is_refused(Under::sqlite().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn tables_grow() {
        super::tables_grow(Under::sqlite().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn own_columns_stay() {
        super::own_columns_stay(Under::sqlite().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn incompatible_columns_are_refused() {
        super::incompatible_columns_are_refused(Under::sqlite().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn append_only_tables() {
        super::append_only_tables(Under::sqlite().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn readers_are_not_blocked() {
        super::readers_are_not_blocked(Under::sqlite().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_taken_view_name() {
        super::a_taken_view_name(Under::sqlite().await).await;
    }
}

#[cfg(all(feature = "redshift", feature = "postgres"))]
mod on_redshift {
    use super::Under;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_table_that_is_gone_is_not_made_again_in_silence() {
        super::a_table_that_is_gone_is_not_made_again_in_silence(Under::redshift().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn keys_move_and_swap() {
        super::keys_move_and_swap(Under::redshift().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_becomes_whole_is_not_incomplete_any_more() {
        super::what_becomes_whole_is_not_incomplete_any_more(Under::redshift().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn partial_moves_come_again() {
        super::partial_moves_come_again(Under::redshift().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn tombstones_outlive_rows() {
        super::tombstones_outlive_rows(Under::redshift().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn two_loaders_race() {
        super::two_loaders_race(Under::redshift().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn another_log_is_refused() {
        super::another_log_is_refused(Under::redshift().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn append_only_tables() {
        super::append_only_tables(Under::redshift().await).await;
    }
}

#[cfg(feature = "postgres")]
mod on_postgres {
    use super::Under;

    #[tokio::test(flavor = "multi_thread")]
    async fn every_type_is_kept_exactly() {
        super::every_type_is_kept_exactly(Under::postgres().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nul_in_text() {
        super::nul_in_text(Under::postgres().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_table_that_is_gone_is_not_made_again_in_silence() {
        super::a_table_that_is_gone_is_not_made_again_in_silence(Under::postgres().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn keys_move_and_swap() {
        super::keys_move_and_swap(Under::postgres().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn incomplete_rows_are_kept_apart() {
        super::incomplete_rows_are_kept_apart(Under::postgres().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_becomes_whole_is_not_incomplete_any_more() {
        super::what_becomes_whole_is_not_incomplete_any_more(Under::postgres().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn partial_moves_come_again() {
        super::partial_moves_come_again(Under::postgres().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn tombstones_outlive_rows() {
        super::tombstones_outlive_rows(Under::postgres().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn two_loaders_race() {
        super::two_loaders_race(Under::postgres().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn another_log_is_refused() {
        super::another_log_is_refused(Under::postgres().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn tables_grow() {
        super::tables_grow(Under::postgres().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn own_columns_stay() {
        super::own_columns_stay(Under::postgres().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn incompatible_columns_are_refused() {
        super::incompatible_columns_are_refused(Under::postgres().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn append_only_tables() {
        super::append_only_tables(Under::postgres().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn readers_are_not_blocked() {
        super::readers_are_not_blocked(Under::postgres().await).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_taken_view_name() {
        super::a_taken_view_name(Under::postgres().await).await;
    }
}

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

async fn every_type_is_kept_exactly(under: Under) {
    let decimal = |precision, scale| Type::Decimal { precision, scale };
    let columns = [
        ("id", Type::Int),
        ("yes", Type::Boolean),
        ("small", Type::SmallInt),
        ("big", Type::BigInt),
        ("f4", Type::Real),
        ("f8", Type::Double),
        ("dec", decimal(38, 10)),
        ("wide", decimal(76, 0)),
        ("num", Type::Numeric),
        ("day", Type::Date),
        ("clock", Type::Time),
        ("span", Type::Duration),
        ("ts", Type::Timestamp),
        ("tstz", Type::TimestampTz),
        ("word", Type::TEXT),
        ("short", Type::Text { max_bytes: Some(8) }),
        ("raw", Type::Binary),
        ("doc", Type::Json),
        ("uid", Type::Uuid),
        ("or\"der", Type::TEXT),
    ];
    let contract = table(&columns, true);
    let cast = |texts: [Option<&str>; 4], data_type: Type| -> ArrayRef {
        arrow::compute::cast(&(Arc::new(StringArray::from(texts.to_vec())) as ArrayRef), &data_type.arrow()).unwrap()
    };
    let max38 = "9999999999999999999999999999.9999999999";
    let max76 = "9".repeat(76);
    let us = |values: [Option<i64>; 4]| TimestampMicrosecondArray::from(values.to_vec());
    // 2000 years of microseconds: far, but inside what everybody prints.
    let far = 63_113_904_000_000_000;
    let times = [Some(0), Some(-1), Some(far), None];
    let values: Vec<ArrayRef> = vec![
        Arc::new(arrow::array::Int32Array::from(vec![1, 2, i32::MIN, 4])),
        Arc::new(arrow::array::BooleanArray::from(vec![Some(true), Some(false), None, None])),
        Arc::new(arrow::array::Int16Array::from(vec![Some(i16::MIN), Some(i16::MAX), Some(0), None])),
        Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(i64::MAX), Some(0), None])),
        Arc::new(arrow::array::Float32Array::from(vec![Some(f32::NAN), Some(f32::INFINITY), Some(0.1), None])),
        Arc::new(arrow::array::Float64Array::from(vec![Some(f64::NAN), Some(f64::NEG_INFINITY), Some(0.1), None])),
        cast([Some(max38), Some("-0.0000000001"), Some("0"), None], decimal(38, 10)),
        cast([Some(&max76), Some(&format!("-{max76}")), Some("10000"), None], decimal(76, 0)),
        Arc::new(StringArray::from(vec![Some("-12345678901234567890.0123450"), Some("NaN"), Some("0.0001"), None])),
        Arc::new(arrow::array::Date32Array::from(vec![Some(0), Some(-735_160), Some(2_932_896), None])),
        Arc::new(arrow::array::Time64MicrosecondArray::from(vec![
            Some(0),
            Some(86_399_999_999),
            Some(86_400_000_000),
            None,
        ])),
        Arc::new(Int64Array::from(vec![Some(0), Some(-90_061_000_001), Some(3_600_000_000_000), None])),
        Arc::new(us(times)),
        Arc::new(us(times).with_timezone("UTC")),
        Arc::new(StringArray::from(vec![Some(""), Some("it's \"quoted\" \\N \t\n"), Some("日本 🎉"), None])),
        Arc::new(StringArray::from(vec![Some(""), Some("12345678"), Some("日本"), None])),
        Arc::new(arrow::array::BinaryArray::from(vec![Some(&b""[..]), Some(b"\0\xff"), Some(b"abc"), None])),
        Arc::new(StringArray::from(vec![
            Some("{\"b\":1,  \"a\":[1.0,null]}"),
            Some("null"),
            Some("\"\\u0000\""),
            None,
        ])),
        Arc::new(StringArray::from(vec![
            Some("00000000-0000-0000-0000-000000000000"),
            Some("ffffffff-ffff-ffff-ffff-ffffffffffff"),
            Some("123e4567-e89b-12d3-a456-426614174000"),
            None,
        ])),
        Arc::new(StringArray::from(vec![Some("x"), None, Some(""), None])),
    ];
    under.warehouse().ensure(&contract, DeleteMode::Hard).await.unwrap();
    let account = try_load(&under, 0, created(&contract, 1, values)).await.unwrap();
    assert_eq!(account, LoadAccount { loaded: 4, applied: 4, ..LoadAccount::default() });
    let text = |name: &str| {
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        let binary = if under.is_sqlite() { "hex(raw)" } else { "upper(encode(raw, 'hex'))" };
        if name == "raw" {
            format!("CASE WHEN raw IS NOT NULL THEN {binary} END")
        } else {
            format!("CAST({quoted} AS text)")
        }
    };
    let mut shown = Vec::new();
    for (name, _) in &columns[1..] {
        let rows = under.rows(&format!("SELECT {} FROM t ORDER BY _seq", text(name))).await;
        let values: Vec<String> =
            rows.into_iter().map(|r| r[0].as_ref().map_or("∅".into(), |v| v.escape_debug().to_string())).collect();
        shown.push(format!("{name}: {}", values.join(" | ")));
    }
    let shown = shown.join("\n");
    if under.is_sqlite() {
        insta::assert_snapshot!(shown, @r##"
            yes: 1 | 0 | ∅ | ∅
            small: -32768 | 32767 | 0 | ∅
            big: -9223372036854775808 | 9223372036854775807 | 0 | ∅
            f4: NaN | Inf | 0.100000001490116 | ∅
            f8: NaN | -Inf | 0.1 | ∅
            dec: 9999999999999999999999999999.9999999999 | -0.0000000001 | 0.0000000000 | ∅
            wide: 9999999999999999999999999999999999999999999999999999999999999999999999999999 | -9999999999999999999999999999999999999999999999999999999999999999999999999999 | 10000 | ∅
            num: -12345678901234567890.0123450 | NaN | 0.0001 | ∅
            day: 1970-01-01 | -0043-03-15 | 9999-12-31 | ∅
            clock: 00:00:00.000000 | 23:59:59.999999 | 24:00:00.000000 | ∅
            span: 0 | -90061000001 | 3600000000000 | ∅
            ts: 1970-01-01T00:00:00.000000 | 1969-12-31T23:59:59.999999 | 3970-01-01T00:00:00.000000 | ∅
            tstz: 1970-01-01T00:00:00.000000Z | 1969-12-31T23:59:59.999999Z | 3970-01-01T00:00:00.000000Z | ∅
            word:  | it\'s \"quoted\" \\N \t\n | 日本 🎉 | ∅
            short:  | 12345678 | 日本 | ∅
            raw:  | 00FF | 616263 | ∅
            doc: {\"b\":1,  \"a\":[1.0,null]} | null | \"\\u0000\" | ∅
            uid: 00000000-0000-0000-0000-000000000000 | ffffffff-ffff-ffff-ffff-ffffffffffff | 123e4567-e89b-12d3-a456-426614174000 | ∅
            or"der: x | ∅ |  | ∅
            "##);
    } else {
        insta::assert_snapshot!(shown, @r##"
            yes: true | false | ∅ | ∅
            small: -32768 | 32767 | 0 | ∅
            big: -9223372036854775808 | 9223372036854775807 | 0 | ∅
            f4: NaN | Infinity | 0.1 | ∅
            f8: NaN | -Infinity | 0.1 | ∅
            dec: 9999999999999999999999999999.9999999999 | -0.0000000001 | 0.0000000000 | ∅
            wide: 9999999999999999999999999999999999999999999999999999999999999999999999999999 | -9999999999999999999999999999999999999999999999999999999999999999999999999999 | 10000 | ∅
            num: -12345678901234567890.0123450 | NaN | 0.0001 | ∅
            day: 1970-01-01 | 0044-03-15 BC | 9999-12-31 | ∅
            clock: 00:00:00 | 23:59:59.999999 | 24:00:00 | ∅
            span: 00:00:00 | -25:01:01.000001 | 1000:00:00 | ∅
            ts: 1970-01-01 00:00:00 | 1969-12-31 23:59:59.999999 | 3970-01-01 00:00:00 | ∅
            tstz: 1970-01-01 00:00:00+00 | 1969-12-31 23:59:59.999999+00 | 3970-01-01 00:00:00+00 | ∅
            word:  | it\'s \"quoted\" \\N \t\n | 日本 🎉 | ∅
            short:  | 12345678 | 日本 | ∅
            raw:  | 00FF | 616263 | ∅
            doc: {\"b\":1,  \"a\":[1.0,null]} | null | \"\\u0000\" | ∅
            uid: 00000000-0000-0000-0000-000000000000 | ffffffff-ffff-ffff-ffff-ffffffffffff | 123e4567-e89b-12d3-a456-426614174000 | ∅
            or"der: x | ∅ |  | ∅
            "##);
    }
}

async fn a_table_that_is_gone_is_not_made_again_in_silence(under: Under) {
    let (contract, mode) = (contract(), DeleteMode::Hard);
    under.warehouse().ensure(&contract, mode).await.unwrap();
    // Nothing was in it: it is made again.
    under.execute("DROP TABLE things").await;
    under.warehouse().ensure(&contract, mode).await.unwrap();
    under.load(0, mode, false, &[put(1, 1, 10, "one")]).await;
    under.execute("DROP TABLE things").await;
    let load = fold(&contract, mode, vec![batch(&contract, &[put(2, 2, 20, "two")])], false).unwrap();
    let second = dataflow::warehouse::open(&under.config, "t", Arc::clone(&under.staging)).await.unwrap();
    let errors = [
        under.warehouse().apply(&unit(1, vec![load])).await.map(drop),
        under.warehouse().ensure(&contract, mode).await,
        under.warehouse().ensure(&contract, mode).await,
        second.ensure(&contract, mode).await,
    ];
    for error in errors.map(Result::unwrap_err) {
        assert_eq!(*error.kind(), ErrorKind::Table("things".into()), "{error}");
        assert!(error.help_text().is_some_and(|help| help.contains("table resync")), "{error}");
    }
    // Another topology has nothing to do with it.
    let other = dataflow::warehouse::open(&under.config, "other", Arc::clone(&under.staging)).await.unwrap();
    other.ensure(&contract, mode).await.unwrap();
    under.execute("DROP TABLE things").await;
    second.ensure_or(&contract, mode, Lost::MakeAnew).await.unwrap();
    second.ensure(&contract, mode).await.unwrap();
    assert_eq!(under.things(false).await, BTreeMap::new());
}

async fn nul_in_text(under: Under) {
    let contract = table(&[("id", Type::Int), ("word", Type::TEXT)], true);
    under.warehouse().ensure(&contract, DeleteMode::Hard).await.unwrap();
    let id: ArrayRef = Arc::new(arrow::array::Int32Array::from(vec![1]));
    let word: ArrayRef = Arc::new(StringArray::from(vec!["a\0b"]));
    let result = try_load(&under, 0, created(&contract, 1, vec![id, word])).await;
    if under.is_sqlite() {
        assert_eq!(result.unwrap().applied, 1);
        assert_eq!(under.rows("SELECT hex(word) FROM t").await, [[Some("610062".to_owned())]]);
        return;
    }
    let error = result.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Table("t".into()));
    assert!(error.to_string().contains("t.word") && error.to_string().contains("NUL"), "{error}");
    // Nothing of the unit is there, and the connection is fit for the next one.
    assert_eq!(under.warehouse().applied("g").await.unwrap(), None);
    let id: ArrayRef = Arc::new(arrow::array::Int32Array::from(vec![1]));
    let word: ArrayRef = Arc::new(StringArray::from(vec!["ab"]));
    assert_eq!(try_load(&under, 0, created(&contract, 1, vec![id, word])).await.unwrap().applied, 1);
}

async fn keys_move_and_swap(under: Under) {
    let mode = DeleteMode::Hard;
    under.warehouse().ensure(&contract(), mode).await.unwrap();
    under.load(0, mode, false, &[put(1, 1, 10, "one"), put(2, 2, 20, "two")]).await;
    // Through a third key, partial rows only: bases must be read before anything is deleted or overwritten.
    let account = under.load(1, mode, false, &[moved(3, 1, 9), moved(4, 2, 1), moved(5, 9, 2)]).await;
    // The third key was shown between two rounds of the transaction, so that move counts as applied.
    assert_eq!(account, LoadAccount { loaded: 3, applied: 3, superseded: 0, incomplete: 0 });
    let two_and_one = [(1, (4, 20, Some("two".into()), false)), (2, (5, 10, Some("one".into()), false))];
    assert_eq!(under.things(false).await, BTreeMap::from(two_and_one));
}

async fn incomplete_rows_are_kept_apart(under: Under) {
    let mode = DeleteMode::Hard;
    under.warehouse().ensure(&contract(), mode).await.unwrap();
    let account =
        under.load(0, mode, false, &[put(1, 1, 10, "one"), partial(2, 7, 70), gone(3, 1), partial(4, 1, 11)]).await;
    assert_eq!(account, LoadAccount { loaded: 4, applied: 1, superseded: 1, incomplete: 2 });
    assert_eq!(under.things(false).await, BTreeMap::new());
    let mut found = under.warehouse().incompletes("g", 0).await.unwrap();
    found.sort_by(|a, b| a.seq.cmp(&b.seq));
    let keys: Vec<&str> = found.iter().map(|row| row.key.as_str()).collect();
    assert_eq!(keys, ["{\"id\":7}", "{\"id\":1}"]);
    assert_eq!(found[0].missing, ["b"]);
    assert_eq!(found[0].partition, "shop:things/0");
    assert_eq!(under.warehouse().incompletes("g", 1).await.unwrap(), []);
    let fresh = under.warehouse().freshness().await.unwrap();
    assert_eq!((fresh[0].rows, fresh[0].epoch, fresh[0].max_source_time_us), (1, 1, Some(4_000_000)));
    let view = under.rows("SELECT \"table\", CAST(rows AS text), CAST(epoch AS text) FROM freshness").await;
    assert_eq!(view, [[Some("things".to_owned()), Some("1".to_owned()), Some("1".to_owned())]]);
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

async fn what_becomes_whole_is_not_incomplete_any_more(under: Under) {
    for mode in [DeleteMode::Hard, DeleteMode::Soft, DeleteMode::History] {
        under.reset().await;
        under.warehouse().ensure(&contract(), mode).await.unwrap();
        under.load(0, mode, false, &[1, 2, 3, 4, 5].map(|id| partial(id as u64, id, 1))).await;
        assert_eq!(under.open_incompletes().await, [1, 2, 3, 4, 5]);
        // A whole row, a delete, a move away; what is only partial, and what is older, settles nothing.
        under.load(1, mode, false, &[put(6, 1, 1, "whole"), gone(7, 2), moved(8, 3, 9), partial(9, 4, 2)]).await;
        assert_eq!(under.open_incompletes().await, [4, 5, 8, 9]);
        // In the unit itself, with an incomplete row after it.
        let deleted_then_updated = [put(10, 5, 1, ""), gone(11, 5), partial(12, 5, 1)];
        under.load(2, mode, false, &deleted_then_updated).await;
        assert_eq!(under.open_incompletes().await, [4, 8, 9, 12]);
        under.load(3, mode, false, &[put(13, 5, 1, "")]).await;
        assert_eq!(under.open_incompletes().await, [4, 8, 9]);
        let emptied = Change { op: Op::Truncate, ..gone(14, 0) };
        under.load(4, mode, false, &[emptied, partial(15, 4, 1)]).await;
        assert_eq!(under.open_incompletes().await, [15]);
    }
}

/// A connector that starts again repeats its last changes as newer ones.
async fn partial_moves_come_again(under: Under) {
    for mode in [DeleteMode::Hard, DeleteMode::Soft] {
        let soft = mode == DeleteMode::Soft;
        under.reset().await;
        under.warehouse().ensure(&contract(), mode).await.unwrap();
        let live = async || {
            let rows = under.things(soft).await.into_iter().filter(|(_, row)| !row.3);
            rows.map(|(id, row)| (id, row.0, row.1, row.2.unwrap())).collect::<Vec<_>>()
        };
        let row = |id: i64, seq: u64, a: i64, b: &str| (id, seq, a, b.to_owned());
        under.load(0, mode, false, &[put(1, 1, 10, "one")]).await;
        under.load(1, mode, false, &[moved(2, 1, 5)]).await;
        under.load(2, mode, false, &[moved(3, 1, 5)]).await;
        assert_eq!(live().await, [row(5, 3, 10, "one")], "in a later unit");
        let twice = [moved(4, 5, 6), partial(5, 6, 11), moved(6, 5, 6), partial(7, 6, 11)];
        let account = under.load(3, mode, false, &twice).await;
        assert_eq!(account.incomplete, 0);
        assert_eq!(live().await, [row(6, 7, 11, "one")], "in the same unit, with an update in between");
        under.load(4, mode, false, &[partial(8, 6, 12), moved(9, 5, 6)]).await;
        assert_eq!(live().await, [row(6, 9, 12, "one")], "after an update of the unit");
        under.load(5, mode, false, &[moved(10, 6, 7), moved(11, 7, 8)]).await;
        under.load(6, mode, false, &[moved(12, 6, 7), moved(13, 7, 8)]).await;
        assert_eq!(live().await, [row(8, 13, 12, "one")], "one move after another");
        assert_eq!(under.open_incompletes().await, [0; 0], "the row has left the key that lacked a base");

        under.load(7, mode, false, &[gone(14, 8)]).await;
        assert_eq!(under.load(8, mode, false, &[moved(15, 7, 8)]).await.incomplete, 1);
        assert_eq!((live().await, under.open_incompletes().await), (vec![], vec![15]), "deleted at the source");
        under.load(9, mode, false, &[gone(16, 8)]).await;
        assert_eq!((live().await, under.open_incompletes().await), (vec![], vec![]));

        // The old key has another row by now, which has no part in the move.
        under.load(10, mode, false, &[put(17, 1, 1, "archived"), moved(18, 1, 2), put(19, 1, 3, "new")]).await;
        under.load(11, mode, false, &[moved(20, 1, 2), put(21, 1, 3, "new")]).await;
        assert_eq!(live().await, [row(1, 21, 3, "new"), row(2, 20, 1, "archived")]);
    }
}

async fn tombstones_outlive_rows(under: Under) {
    let mode = DeleteMode::Hard;
    under.warehouse().ensure(&contract(), mode).await.unwrap();
    under.load(0, mode, true, &[put(1, 1, 10, "one"), put(2, 2, 20, "two")]).await;
    under.load(1, mode, true, &[gone(5, 1)]).await;
    let late = under.load(2, mode, true, &[put(3, 1, 10, "late"), put(1, 2, 0, "older")]).await;
    assert_eq!((late.applied, late.superseded), (0, 2));
    assert_eq!(under.things(false).await.keys().collect::<Vec<_>>(), [&2]);
    let newer = under.load(3, mode, true, &[put(6, 1, 11, "again")]).await;
    assert_eq!(newer.applied, 1);
    assert_eq!(under.tombstones().await, 0);
    under.load(4, mode, true, &[gone(7, 1)]).await;
    assert_eq!(under.tombstones().await, 1);
    under.load(5, mode, false, &[put(8, 3, 0, "")]).await;
    assert_eq!(under.tombstones().await, 0);
}

async fn two_loaders_race(under: Under) {
    let mode = DeleteMode::Hard;
    under.warehouse().ensure(&contract(), mode).await.unwrap();
    let other = dataflow::warehouse::open(&under.config, "t", Arc::clone(&under.staging)).await.unwrap();
    for n in 0..5 {
        let load = |a| {
            let contract = contract();
            let rows = [put(n + 1, 1, a, "x"), put(n + 1, 2 + n as i64, a, "y")];
            unit(n, vec![fold(&contract, mode, vec![batch(&contract, &rows)], false).unwrap()])
        };
        let (first, second) = (load(1), load(1));
        let (first, second) = tokio::join!(under.warehouse().apply(&first), other.apply(&second));
        let (won, lost) = if first.is_ok() { (first, second) } else { (second, first) };
        assert_eq!(won.unwrap().accounts["things"].applied, 2);
        assert_eq!(*lost.unwrap_err().kind(), ErrorKind::LedgerMoved);
    }
    let applied = under.warehouse().applied("g").await.unwrap().unwrap();
    assert_eq!((applied.through, applied.accounts["things"].applied), (5, 10));
}

async fn another_log_is_refused(under: Under) {
    under.warehouse().ensure(&contract(), DeleteMode::Hard).await.unwrap();
    under.load(0, DeleteMode::Hard, false, &[put(1, 1, 1, "")]).await;
    let foreign = LoadUnit { log: Uuid::max(), ..unit(1, Vec::new()) };
    let error = under.warehouse().apply(&foreign).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::LedgerForeign);
    assert!(error.help_text().is_some());
    let early = under.warehouse().apply(&unit(7, Vec::new())).await.unwrap_err();
    assert_eq!(*early.kind(), ErrorKind::LedgerMoved);
}

async fn tables_grow(under: Under) {
    let first = table(&[("id", Type::Int), ("n", Type::Int), ("s", Type::Text { max_bytes: Some(3) })], true);
    let decimal = Type::Decimal { precision: 12, scale: 2 };
    let second = table(&[("id", Type::BigInt), ("n", decimal), ("s", Type::TEXT), ("new", Type::Boolean)], true);
    let ints = |values: Vec<i32>| -> ArrayRef { Arc::new(arrow::array::Int32Array::from(values)) };
    under.warehouse().ensure(&first, DeleteMode::Hard).await.unwrap();
    let abc: ArrayRef = Arc::new(StringArray::from(vec!["abc"]));
    try_load(&under, 0, created(&first, 1, vec![ints(vec![1]), ints(vec![7]), abc])).await.unwrap();
    for _ in 0..2 {
        under.warehouse().ensure(&second, DeleteMode::Hard).await.unwrap();
    }
    let big: ArrayRef = Arc::new(Int64Array::from(vec![i64::MAX]));
    let money = arrow::array::Decimal128Array::from(vec![123_456_789_012]).with_precision_and_scale(12, 2).unwrap();
    let long: ArrayRef = Arc::new(StringArray::from(vec!["longer than three"]));
    let new: ArrayRef = Arc::new(arrow::array::BooleanArray::from(vec![true]));
    try_load(&under, 1, created(&second, 2, vec![big, Arc::new(money), long, new])).await.unwrap();
    let rows = under.rows("SELECT CAST(id AS text), CAST(n AS text), s FROM t ORDER BY _seq").await;
    let seven = if under.is_sqlite() { "7" } else { "7.00" };
    let text = |text: &str| Some(text.to_owned());
    let expected = [
        [text("1"), text(seven), text("abc")],
        [text("9223372036854775807"), text("1234567890.12"), text("longer than three")],
    ];
    assert_eq!(rows, expected);
    // An older contract (a loader that has not seen the new one yet) changes nothing.
    under.warehouse().ensure(&first, DeleteMode::Hard).await.unwrap();
}

async fn own_columns_stay(under: Under) {
    under.execute("CREATE TABLE t (note text DEFAULT 'mine', id bigint, extra integer)").await;
    under.execute("INSERT INTO t (id, extra) VALUES (1, 5)").await;
    let contract = table(&[("id", Type::Int), ("word", Type::TEXT)], true);
    under.warehouse().ensure(&contract, DeleteMode::Hard).await.unwrap();
    let ids: ArrayRef = Arc::new(arrow::array::Int32Array::from(vec![2, 3]));
    let words: ArrayRef = Arc::new(StringArray::from(vec!["b", "c"]));
    try_load(&under, 0, created(&contract, 1, vec![ids, words])).await.unwrap();
    let rows = under.rows("SELECT note, CAST(id AS text), CAST(extra AS text), word FROM t ORDER BY t.id").await;
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(rows[0], [text("mine"), text("1"), text("5"), None]);
    assert_eq!(rows[2], [text("mine"), text("3"), None, text("c")]);
    // A key that is not unique cannot be merged into, and the message says so.
    under.execute("CREATE TABLE things (id bigint, a bigint, b text); INSERT INTO things (id) VALUES (1), (1)").await;
    let error = under.warehouse().ensure(&self::contract(), DeleteMode::Hard).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Table("things".into()));
    assert!(error.help_text().unwrap().contains("unique"));
}

async fn incompatible_columns_are_refused(under: Under) {
    under.execute("CREATE TABLE t (id integer PRIMARY KEY, word integer)").await;
    let contract = table(&[("id", Type::Int), ("word", Type::Binary)], true);
    let error = match under.is_sqlite() {
        // SQLite keeps bytes in any column, but no whole numbers as floats.
        true => {
            under.execute("CREATE TABLE things (id integer PRIMARY KEY, a real, b text)").await;
            under.warehouse().ensure(&self::contract(), DeleteMode::Hard).await.unwrap_err()
        }
        false => under.warehouse().ensure(&contract, DeleteMode::Hard).await.unwrap_err(),
    };
    assert!(matches!(error.kind(), ErrorKind::Table(_)), "{error}");
    assert!(error.help_text().is_some());
}

async fn append_only_tables(under: Under) {
    let contract = table(&[("a", Type::Int), ("b", Type::TEXT)], false);
    under.warehouse().ensure(&contract, DeleteMode::Hard).await.unwrap();
    let columns = || -> Vec<ArrayRef> {
        let same: ArrayRef = Arc::new(StringArray::from(vec!["same", "same"]));
        vec![Arc::new(arrow::array::Int32Array::from(vec![1, 1])), same]
    };
    let account = try_load(&under, 0, created(&contract, 1, columns())).await.unwrap();
    assert_eq!(account, LoadAccount { loaded: 2, applied: 2, ..LoadAccount::default() });
    try_load(&under, 1, created(&contract, 3, columns())).await.unwrap();
    let rows = under.rows("SELECT _seq, _partition FROM t ORDER BY _seq").await;
    assert_eq!(rows.len(), 4);
    assert_eq!(rows[3], [Some(seq(4).to_string()), Some("shop:t/0".to_owned())]);
}

async fn readers_are_not_blocked(under: Under) {
    let mode = DeleteMode::Hard;
    under.warehouse().ensure(&contract(), mode).await.unwrap();
    under.load(0, mode, false, &[put(1, 1, 1, "before")]).await;
    // A reader in the middle of its transaction sees what it saw, and the load does not wait for it.
    match &under.reader {
        Reader::Sqlite(pool) => {
            let mut reader = pool.begin().await.unwrap();
            let count = "SELECT count(*) FROM things";
            assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&mut *reader).await.unwrap(), 1);
            under.load(1, mode, false, &[put(2, 2, 2, "after")]).await;
            assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&mut *reader).await.unwrap(), 1);
        }
        #[cfg(feature = "postgres")]
        Reader::Postgres(pool) => {
            let mut reader = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
            let count = "SELECT count(*) FROM things";
            assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&mut *reader).await.unwrap(), 1);
            under.load(1, mode, false, &[put(2, 2, 2, "after")]).await;
            assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&mut *reader).await.unwrap(), 1);
        }
    }
    assert_eq!(under.things(false).await.len(), 2);
}

async fn a_taken_view_name(under: Under) {
    under.execute("DROP VIEW freshness").await;
    under.execute("CREATE TABLE freshness (mine integer)").await;
    for _ in 0..2 {
        dataflow::warehouse::open(&under.config, "t", nowhere()).await.unwrap();
    }
    assert_eq!(under.rows("SELECT \"table\" FROM dataflow_freshness").await.len(), 0);
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
