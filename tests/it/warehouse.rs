//! The warehouses, held against a model that goes row by row.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Field, Schema};
use dataflow::batch::{Op, Seq, TableChanges};
use dataflow::contract::{Column, Contract, TableSchema, Type};
use dataflow::epoch::{DeleteMode, LoadAccount, LoadUnit, TableLoad};
use dataflow::pipeline::fold::fold;
use dataflow::progress::Partition;
use dataflow::warehouse::Warehouse;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sqlx::Row;
use uuid::Uuid;

/// A change of the model's table `(id bigint key, a bigint, b text)`; `None` = unchanged.
#[derive(Clone)]
struct Change {
    op: Op,
    seq: u64,
    id: i64,
    old: Option<i64>,
    a: Option<i64>,
    b: Option<Option<String>>,
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

fn contract() -> Arc<Contract> {
    let schema = TableSchema {
        columns: vec![Column::new("id", Type::BigInt), Column::new("a", Type::BigInt), Column::new("b", Type::TEXT)],
        key: vec!["id".into()],
    };
    Arc::new(Contract { table: "things".into(), version: 1, input: schema.clone(), output: schema })
}

fn bits(rows: &[Change], unchanged: impl Fn(&Change) -> bool) -> Option<BooleanBuffer> {
    rows.iter().any(&unchanged).then(|| rows.iter().map(unchanged).collect())
}

/// The changes as the lake would give them.
fn batch(contract: &Arc<Contract>, rows: &[Change]) -> TableChanges {
    let id: ArrayRef = Arc::new(Int64Array::from_iter(rows.iter().map(|r| (r.op != Op::Truncate).then_some(r.id))));
    let a: ArrayRef = Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.a.filter(|_| r.op.has_row()))));
    let b: ArrayRef =
        Arc::new(StringArray::from_iter(rows.iter().map(|r| r.b.clone().flatten().filter(|_| r.op.has_row()))));
    let partial = |r: &Change, is: bool| r.op.has_row() && is;
    let old: ArrayRef = Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.old)));
    let old = RecordBatch::try_new(Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)])), vec![old]);
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
type Values = (u64, i64, Option<String>, bool);

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
        let base = change.old.unwrap_or(change.id);
        let row = self.rows.get(&base).filter(|row| row.0 < change.seq && !row.3)?;
        let refused = self.refused.get(&base).is_some_and(|m| m.iter().any(|m| row.0 < *m && *m < change.seq));
        (!refused).then(|| (change.a.unwrap_or(row.1), change.b.clone().unwrap_or_else(|| row.2.clone())))
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
    (steps, proptest::collection::vec((0usize..60, 1usize..12), 0..4), proptest::collection::vec(0usize..100, 0..6))
        .prop_map(move |(steps, rewinds, mut cuts)| {
            let changes: Vec<Change> =
                steps.into_iter().enumerate().map(|(n, step)| change(step, n as u64 + 1, fresh)).collect();
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
        })
}

/// A warehouse under test and a way to read what it shows.
struct Under {
    warehouse: Arc<dyn Warehouse>,
    reader: Reader,
    /// What `open` was given, to open it a second time.
    config: dataflow::config::Warehouse,
    _folder: Option<tempfile::TempDir>,
}

#[derive(Clone)]
enum Reader {
    Sqlite(sqlx::SqlitePool),
    #[cfg(feature = "postgres")]
    Postgres(sqlx::PgPool),
}

impl Under {
    async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.db").to_str().unwrap().to_owned();
        let reader = Reader::Sqlite(sqlx::SqlitePool::connect(&format!("{path}?mode=rwc")).await.unwrap());
        let config = dataflow::config::Warehouse::Sqlite(dataflow::config::SqliteWarehouse { path });
        let warehouse = dataflow::warehouse::open(&config, "t").await.unwrap();
        Self { warehouse, reader, config, _folder: Some(folder) }
    }

    #[cfg(feature = "postgres")]
    async fn postgres() -> Self {
        let url = crate::support::postgres::server().database().await;
        let reader = Reader::Postgres(sqlx::PgPool::connect(&url).await.unwrap());
        let schema = "public".to_owned();
        let config = dataflow::config::Warehouse::Postgres(dataflow::config::PostgresWarehouse { url, schema });
        let warehouse = dataflow::warehouse::open(&config, "t").await.unwrap();
        Self { warehouse, reader, config, _folder: None }
    }

    fn warehouse(&self) -> &dyn Warehouse {
        &*self.warehouse
    }

    async fn execute(&self, sql: &str) {
        let sql = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()));
        match &self.reader {
            Reader::Sqlite(pool) => sql.execute(pool).await.map(|_| ()).unwrap(),
            #[cfg(feature = "postgres")]
            Reader::Postgres(pool) => sql.execute(pool).await.map(|_| ()).unwrap(),
        }
    }

    /// All rows of a query whose columns are texts.
    async fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
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

    async fn things(&self, soft: bool) -> BTreeMap<i64, Values> {
        let deleted = if soft { "CASE WHEN _deleted THEN '1' ELSE '0' END" } else { "'0'" };
        let sql = format!("SELECT CAST(id AS text), _seq, CAST(a AS text), b, {deleted} FROM things");
        let rows = self.rows(&sql).await.into_iter().map(|r| {
            let seq = Seq::parse(r[1].as_ref().unwrap()).unwrap().major;
            let number = |i: usize| r[i].as_ref().unwrap().parse::<i64>().unwrap();
            (number(0), (seq, number(2), r[3].clone(), r[4].as_deref() == Some("1")))
        });
        rows.collect()
    }

    async fn reset(&self) {
        let tables = ["_dataflow_ledger", "_dataflow_tables", "_dataflow_tombstones", "_dataflow_incomplete"];
        let clear: String = tables.map(|t| format!("DELETE FROM {t};")).concat();
        self.execute(&format!("{clear} DROP TABLE IF EXISTS things;")).await;
    }
}

fn unit(after: u64, tables: Vec<TableLoad>) -> LoadUnit {
    LoadUnit { group: "g".into(), log: Uuid::nil(), after, through: after + 1, tables }
}

async fn run_script(under: &Under, script: &Script, mode: DeleteMode) {
    let contract = contract();
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
        assert_eq!(under.things(model.soft).await, model.rows, "after unit {n}");
    }
    let ledger = under.warehouse().applied("g").await.unwrap().unwrap();
    assert_eq!(ledger.accounts["things"], total);
}

/// Runs random scripts, each shrunk when it fails.
fn scripts(cases: u32, mode: DeleteMode, open: impl AsyncFn() -> Under) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let under = runtime.block_on(open());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 300, ..Config::default() };
    let result = TestRunner::new(config).run(&script(mode != DeleteMode::Hard), |script| {
        let run = std::panic::AssertUnwindSafe(|| match mode {
            DeleteMode::History => runtime.block_on(run_history(&under, &script)),
            _ => runtime.block_on(run_script(&under, &script, mode)),
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
        let base = change.old.unwrap_or(change.id);
        let ((_, seq), (a, b)) = self.versions.range((base, 0)..(base, change.seq)).next_back()?;
        let refused = self.refused.range((base, seq + 1)..(base, change.seq)).next().is_some();
        let ended = self.end(base, *seq).is_some_and(|end| end < change.seq);
        (!refused && !ended).then(|| (change.a.unwrap_or(*a), change.b.clone().unwrap_or_else(|| b.clone())))
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

async fn run_history(under: &Under, script: &Script) {
    let contract = contract();
    under.reset().await;
    under.warehouse().ensure(&contract, DeleteMode::History).await.unwrap();
    let mut past = Past::default();
    let clock = match &under.reader {
        Reader::Sqlite(_) => |column: &str| format!("strftime('%M:%S', {column})"),
        #[cfg(feature = "postgres")]
        Reader::Postgres(_) => |column: &str| format!("to_char({column} AT TIME ZONE 'UTC', 'MI:SS')"),
    };
    let query = format!(
        "SELECT CAST(id AS text), _seq, CAST(a AS text), b, _end_seq, CASE WHEN _current THEN '1' ELSE '0' END, {}, {} \
         FROM things ORDER BY id, _seq",
        clock("_valid_from"),
        clock("_valid_to")
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
