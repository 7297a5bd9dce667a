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
