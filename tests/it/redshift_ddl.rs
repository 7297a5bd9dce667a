//! Tables and views change in Redshift while others load and read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int32Array, Int64Array};
use dataflow::contract::{Contract, Type};
use dataflow::epoch::DeleteMode;
use dataflow::error::Disposition;
use dataflow::pipeline::fold::fold;
use dataflow::warehouse::Warehouse;
use redshift_sim::{Fault, Isolation, Kind, Rule};
use tokio_postgres::SimpleQueryMessage;

use crate::support::process::LIMIT;
use crate::warehouse::{Under, created, table, try_load, unit};

/// Waits until something is so.
async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is().await {
        assert!(begun.elapsed() < LIMIT, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether somebody waits for a lock in the cluster's database.
async fn somebody_waits(under: &Under) -> bool {
    let waits = "SELECT count(*)::text FROM pg_locks JOIN pg_database d ON d.oid = database \
         WHERE NOT granted AND datname = current_database()";
    under.rows(waits).await[0][0].as_deref() != Some("0")
}

/// Makes the table what the contract says, as a loader does: what passes is tried again.
async fn ensure_patiently(warehouse: &dyn Warehouse, contract: &Contract) {
    for _ in 0..20 {
        match warehouse.ensure(contract, DeleteMode::Hard).await {
            Ok(()) => return,
            Err(error) => assert_eq!(error.disposition(), Disposition::Retry, "{error}"),
        }
    }
    panic!("it never came through");
}

/// A key and a number.
fn of(data_type: Type) -> Arc<Contract> {
    table(&[("id", data_type), ("a", data_type)], true)
}

fn ints(values: [i32; 2]) -> ArrayRef {
    Arc::new(Int32Array::from(values.to_vec()))
}

/// The numbers by their keys: every key once, and nothing empty.
async fn rows(under: &Under) -> BTreeMap<i64, i64> {
    let rows = under.rows("SELECT id::text, a::text FROM t ORDER BY id").await;
    let number = |cell: &Option<String>| cell.as_ref().unwrap_or_else(|| panic!("{rows:?}")).parse::<i64>().unwrap();
    let numbers: BTreeMap<i64, i64> = rows.iter().map(|row| (number(&row[0]), number(&row[1]))).collect();
    assert_eq!(numbers.len(), rows.len(), "a key is there twice: {rows:?}");
    numbers
}

/// GIVEN a load that stands still, before it has written the table, or before it commits, WHEN another loader makes the
/// columns wider meanwhile, THEN no value is lost, and no row is there twice, also after the next load.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_is_replaced_while_another_loader_loads() {
    for isolation in [Isolation::Snapshot, Isolation::Serializable] {
        // Rows that replace others and such that do not: only those that do may meet a conflict.
        for (held, ids) in [(Kind::Commit, [3, 4]), (Kind::Commit, [2, 3]), (Kind::Copy, [2, 3])] {
            replaced_while_loading(isolation, held, ids).await;
        }
    }
}

async fn replaced_while_loading(isolation: Isolation, held: Kind, ids: [i32; 2]) {
    let under = Under::isolated(isolation).await;
    let (other, sim) = (under.another().await, &under.cluster().sim);
    let (narrow, wide) = (of(Type::Int), of(Type::BigInt));
    under.warehouse().ensure(&narrow, DeleteMode::Hard).await.unwrap();
    try_load(&under, 0, created(&narrow, 1, vec![ints([1, 2]), ints([10, 20])])).await.unwrap();
    let met = sim.fail(Rule::new(Fault::Held).on(held).times(1));
    let done = AtomicBool::new(false);
    let load = try_load(&under, 1, created(&narrow, 3, vec![ints(ids), ints(ids.map(|id| id * 10 + 1))]));
    let widen = async {
        until("the load stands still", async || met.times() == 1).await;
        ensure_patiently(&*other, &wide).await;
        done.store(true, Ordering::Relaxed);
    };
    let go_on = async {
        let waits = async || met.times() == 1 && (done.load(Ordering::Relaxed) || somebody_waits(&under).await);
        until("the columns are made wider", waits).await;
        sim.heal();
    };
    let (loaded, (), ()) = tokio::join!(load, widen, go_on);
    loaded.unwrap();
    let what = format!("{isolation:?}, {ids:?} held at {held:?}");
    let mut expected = BTreeMap::from([(1, 10), (2, 20)]);
    expected.extend(ids.map(|id| (i64::from(id), i64::from(id) * 10 + 1)));
    assert_eq!(rows(&under).await, expected, "{what}");
    let big = |values: [i64; 2]| -> ArrayRef { Arc::new(Int64Array::from(values.to_vec())) };
    let next = created(&wide, 5, vec![big([3, 5]), big([32, 1 << 40])]);
    let next = fold(&wide, DeleteMode::Hard, vec![next], false).unwrap();
    assert_eq!(other.apply(&unit(2, vec![next])).await.unwrap().through, 3, "{what}");
    expected.extend([(3, 32), (5, 1 << 40)]);
    assert_eq!(rows(&under).await, expected, "{what}");
}

/// GIVEN a loader that has an older contract and stands still when it has seen a narrow column, WHEN another one makes that
/// wider than the older contract says, THEN it stays so.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_contract_does_not_make_a_column_narrower() {
    let under = Under::isolated(Isolation::Snapshot).await;
    let (older, sim) = (under.another().await, &under.cluster().sim);
    let digits = |precision| table(&[("id", Type::Int), ("a", Type::Decimal { precision, scale: 2 })], true);
    under.warehouse().ensure(&digits(10), DeleteMode::Hard).await.unwrap();
    let met = sim.fail(Rule::new(Fault::Held).on(Kind::Begin).times(1));
    let contract = digits(12);
    let late = ensure_patiently(&*older, &contract);
    let newer = async {
        until("the older contract stands still", async || met.times() == 1).await;
        under.warehouse().ensure(&digits(18), DeleteMode::Hard).await.unwrap();
        sim.heal();
    };
    tokio::join!(late, newer);
    let digits =
        "SELECT numeric_precision::text FROM information_schema.columns WHERE table_name = 't' AND column_name = 'a'";
    assert_eq!(under.rows(digits).await, [[Some("18".to_owned())]]);
}

/// The rows of a query, as somebody's tool asks it; or why there are none.
async fn ask(url: &str, query: &str) -> Result<usize, String> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.map_err(|e| e.to_string())?;
    let driver = tokio::spawn(connection);
    let answer = client.simple_query(query).await;
    driver.abort();
    let is_row = |message: &&SimpleQueryMessage| matches!(message, SimpleQueryMessage::Row(_));
    let why = |error: tokio_postgres::Error| error.as_db_error().map_or(error.to_string(), ToString::to_string);
    answer.map(|messages| messages.iter().filter(is_row).count()).map_err(why)
}

/// The views that people see, and what is left beside them.
async fn views(under: &Under) -> Vec<String> {
    let rows = under.rows("SELECT name || ': ' || sql FROM sim.late_views WHERE schema = 'bi' ORDER BY name").await;
    rows.into_iter().filter_map(|row| row[0].clone()).collect()
}

/// GIVEN a table with a view and a row.
async fn shown() -> Under {
    let under = Under::redshift().await;
    let groups = [("g".to_owned(), vec!["t".to_owned()])].into();
    dataflow::warehouse::assign(under.config(), "t", &groups, &[]).await.unwrap();
    let contract = of(Type::Int);
    under.warehouse().ensure(&contract, DeleteMode::Hard).await.unwrap();
    try_load(&under, 0, created(&contract, 1, vec![ints([1, 2]), ints([10, 20])])).await.unwrap();
    under
}

fn with_more() -> Arc<Contract> {
    table(&[("id", Type::Int), ("a", Type::Int), ("more", Type::Int)], true)
}

/// GIVEN a view that is made anew because its table has got a column, WHEN somebody's query comes while that is not
/// committed, THEN it waits and is answered; and nothing is left of the old view.
#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_meets_a_view_that_is_made_anew_is_answered() {
    let under = shown().await;
    let (sim, contract) = (&under.cluster().sim, with_more());
    let met = sim.fail(Rule::new(Fault::Held).on(Kind::Commit).times(1));
    let url = sim.url();
    let query = "SELECT id FROM bi.t /* somebody */";
    let reader = async {
        until("the view is made anew", async || met.times() == 1).await;
        ask(&url, query).await
    };
    let go_on = async {
        let came = async || sim.history().iter().any(|sql| sql.eq_ignore_ascii_case("SELECT id FROM bi . t"));
        until("the query comes", came).await;
        sim.heal();
    };
    let (made, answer, ()) = tokio::join!(under.warehouse().ensure(&contract, DeleteMode::Hard), reader, go_on);
    made.unwrap();
    assert_eq!(answer, Ok(2));
    let views = views(&under).await;
    let tables: Vec<&String> = views.iter().filter(|view| !view.starts_with("_dataflow_freshness")).collect();
    assert!(tables.iter().any(|view| view.starts_with("t: ") && view.contains("\"more\"")), "{views:#?}");
    assert!(
        !views.iter().any(|view| view.starts_with("_dataflow_next") || view.starts_with("_dataflow_last")),
        "{views:#?}"
    );
}

/// GIVEN somebody who reads a view for longer than a load is to wait, WHEN its table gets a column, THEN the table has it and
/// loads go on, the view stays as it was, and the next start makes it, and takes away what was left.
#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_is_read_for_long_does_not_keep_loads_waiting() {
    let under = shown().await;
    let (sim, contract) = (&under.cluster().sim, with_more());
    sim.fail(Rule::new(Fault::QueueTimeout).on(Kind::Alter).containing("rename to").times(1));
    under.warehouse().ensure(&contract, DeleteMode::Hard).await.unwrap();
    assert_eq!(sim.counters().injected, 1);
    let next = vec![ints([3, 4]), ints([30, 40]), ints([5, 6])];
    try_load(&under, 1, created(&contract, 3, next)).await.unwrap();
    assert_eq!(ask(&sim.url(), "SELECT id, a FROM bi.t").await, Ok(4));
    assert!(views(&under).await.iter().any(|view| view.starts_with("_dataflow_next_t_")), "nothing was left");
    let groups = [("g".to_owned(), vec!["t".to_owned()])].into();
    dataflow::warehouse::assign(under.config(), "t", &groups, &[(contract, DeleteMode::Hard)]).await.unwrap();
    assert_eq!(ask(&sim.url(), "SELECT id, a, more FROM bi.t WHERE more > 0").await, Ok(2));
    assert!(!views(&under).await.iter().any(|view| view.starts_with("_dataflow_next")), "something is left");
}
