//! What a loader that runs leaves behind in its cluster and its store, and what it does not wait for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::Method;
use dataflow::config::{self, RedshiftWarehouse, Span};
use dataflow::contract::{Column, Contract, Type};
use dataflow::epoch::{DeleteMode, LoadUnit};
use dataflow::error::Disposition;
use dataflow::lake::{Access, Lake, Log, sweep_as_of};
use dataflow::pipeline::fold::fold;
use dataflow::pipeline::staging::staging;

use redshift_sim::{Fault, Kind, Rule};

use crate::redshift::apply_patiently;
use crate::support::cluster::Cluster;
use crate::support::process::LIMIT;
use crate::support::s3::{Fault as StoreFault, S3Server};
use crate::warehouse::{Under, batch, contract, put, unit};

/// One row for the table of the tests, as the unit after `after`.
pub(crate) fn one_row(after: u64) -> LoadUnit {
    let contract = contract();
    let rows = batch(&contract, &[put(after + 1, 1, 10, "one")]);
    unit(after, vec![fold(&contract, DeleteMode::Hard, vec![rows], false).unwrap()])
}

/// GIVEN a store that answers no deletion, WHEN a unit is loaded, THEN it is done all the same; what it has staged goes with
/// one request once the store answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_does_not_wait_for_what_it_has_staged_to_be_removed() {
    let under = Under::redshift().await;
    under.warehouse().ensure(&contract(), DeleteMode::Hard).await.unwrap();
    let s3 = &under.cluster().s3;
    for method in ["POST", "DELETE"] {
        s3.fault(StoreFault::Held, method, "", usize::MAX);
    }
    s3.asked();
    let applied = tokio::time::timeout(LIMIT, under.warehouse().apply(&one_row(0))).await;
    assert_eq!(applied.expect("it waits for the store").unwrap().through, 1);
    assert_eq!(under.cluster().staged().len(), 2);
    s3.heal();
    under.staging().settle().await;
    assert!(under.cluster().staged().is_empty(), "{:?}", under.cluster().staged());
    let asked = s3.asked().into_iter().filter(|asked| [Method::POST, Method::DELETE].contains(&asked.method));
    assert_eq!(asked.map(|asked| asked.query).collect::<Vec<_>>(), ["delete"]);
}

/// GIVEN a table whose file does not get into the store, WHEN a unit of several is loaded, THEN the others are staged meanwhile,
/// and all are loaded in their order.
#[tokio::test(flavor = "multi_thread")]
async fn tables_of_a_unit_are_staged_side_by_side() {
    let under = Under::redshift().await;
    let tables =
        ["a", "b", "c"].map(|table| Arc::new(Contract { table: table.into(), ..Contract::clone(&contract()) }));
    for contract in &tables {
        under.warehouse().ensure(contract, DeleteMode::Hard).await.unwrap();
    }
    let of_table =
        |contract| fold(contract, DeleteMode::Hard, vec![batch(contract, &[put(1, 1, 10, "one")])], false).unwrap();
    let unit = unit(0, tables.iter().map(of_table).collect());
    let cluster = under.cluster();
    cluster.s3.fault(StoreFault::Held, "PUT", "-0-0.parquet", usize::MAX);
    let others = async {
        let begun = Instant::now();
        while cluster.staged().iter().filter(|file| file.extension().is_some_and(|kind| kind == "manifest")).count() < 2
        {
            assert!(begun.elapsed() < LIMIT, "{:?}", cluster.staged());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cluster.s3.heal();
    };
    let (applied, ()) = tokio::join!(under.warehouse().apply(&unit), others);
    assert_eq!(applied.unwrap().through, 1);
    let fresh = under.warehouse().freshness().await.unwrap();
    assert!(fresh.len() == 3 && fresh.iter().all(|table| table.epoch == 1 && table.rows == 1), "{fresh:?}");
}

/// GIVEN staged files that nobody removed, WHEN the lake is swept, THEN they go when they are older than a day, however long
/// nobody swept; what a load may still need stays.
#[tokio::test(flavor = "multi_thread")]
async fn staged_files_that_stay_behind_are_swept() {
    let s3 = S3Server::start().await;
    let lake = Lake::open(&s3.lake("lake")).unwrap();
    let log = Log::open(lake.clone(), "shop", Access::Write).await.unwrap();
    let staging = staging(&lake);
    staging.put("group/one.parquet", bytes::Bytes::from_static(b"rows")).await.unwrap();
    let there = || s3.folder().join("lake/_stage/group/one.parquet").exists();
    let later = |hours| chrono::Utc::now() + chrono::TimeDelta::hours(hours);
    assert_eq!(sweep_as_of(&log, later(23)).await.unwrap().unnamed, [""; 0]);
    assert!(there());
    let swept = sweep_as_of(&log, later(24 * 30)).await.unwrap();
    assert!(!there() && swept.unnamed == ["_stage/group/one.parquet"] && swept.bytes == 4, "{swept:?}");
}

/// Waits until the cluster runs nothing any more.
async fn until_quiet(cluster: &Cluster) {
    let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&cluster.postgres_url).await.unwrap();
    let running = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND query LIKE 'SELECT pg_sleep%'";
    let begun = Instant::now();
    while sqlx::query_scalar::<_, i64>(running).fetch_one(&mut connection).await.unwrap() > 0 {
        assert!(begun.elapsed() < LIMIT, "a statement that was given up goes on at the server");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// GIVEN statements that do not end, WHEN they are given up, or whoever waits for them goes, THEN they end at the server too.
#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_is_given_up_ends_at_the_server() {
    let cluster = Cluster::start().await;
    let short = RedshiftWarehouse { statement_timeout: Span::seconds(10), ..cluster.warehouse() };
    let staging = staging(&Lake::open(&cluster.lake()).unwrap());
    let config = config::Warehouse::Redshift(short);
    let open = async || dataflow::warehouse::open(&config, "t", Arc::clone(&staging)).await.unwrap();
    let warehouse = open().await;
    warehouse.ensure(&contract(), DeleteMode::Hard).await.unwrap();
    let sets =
        cluster.sim.history().into_iter().filter(|sql| sql.eq_ignore_ascii_case("SET statement_timeout TO 10000"));
    assert_eq!(sets.count() as u64, cluster.sim.counters().connections);
    // Whoever waits says that it is given up.
    cluster.sim.fail(Rule::new(Fault::Silence).on(Kind::Copy).times(1));
    let error = warehouse.apply(&one_row(0)).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Retry, "{error}");
    assert_eq!(cluster.sim.counters().cancels, 1);
    cluster.sim.fail(Rule::new(Fault::Stuck).on(Kind::Copy).times(1));
    let error = warehouse.apply(&one_row(0)).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Retry, "{error}");
    until_quiet(&cluster).await;
    // Nobody waits any more.
    cluster.sim.fail(Rule::new(Fault::Stuck).on(Kind::Copy).times(1));
    let going = Arc::clone(&warehouse);
    let task = tokio::spawn(async move { going.apply(&one_row(0)).await.map(drop) });
    let begun = Instant::now();
    while cluster.sim.counters().injected < 3 {
        assert!(begun.elapsed() < LIMIT && !task.is_finished());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    task.abort();
    drop(warehouse);
    until_quiet(&cluster).await;
    assert_eq!(open().await.apply(&one_row(0)).await.unwrap().through, 1);
}

/// GIVEN sessions that nobody uses, THEN they are closed when it has been so for a while, and opened when somebody does.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_nobody_uses_are_closed() {
    let cluster = Cluster::start().await;
    let staging = staging(&Lake::open(&cluster.lake()).unwrap());
    let config = config::Warehouse::Redshift(cluster.warehouse());
    let warehouse = dataflow::warehouse::open_laid_out(&config, "t", staging, Default::default()).await.unwrap();
    let loads: Arc<dyn dataflow::warehouse::Warehouse> = warehouse.clone();
    loads.ensure(&contract(), DeleteMode::Hard).await.unwrap();
    assert_eq!(loads.apply(&one_row(0)).await.unwrap().through, 1);
    warehouse.close_unused(LIMIT);
    assert_eq!(cluster.sim.sessions(), 1);
    // What people ask goes through it, and what is known is not asked.
    cluster.sim.reset_counters();
    assert_eq!(warehouse.count_incompletes().await.unwrap(), Default::default());
    assert_eq!((cluster.sim.counters().all(), cluster.sim.counters().connections), (0, 0));
    warehouse.close_unused(Duration::ZERO);
    let begun = Instant::now();
    while cluster.sim.sessions() > 0 {
        assert!(begun.elapsed() < LIMIT, "it stays open");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(loads.apply(&one_row(1)).await.unwrap().through, 2);
}

/// The table of the tests with one column more.
fn wider() -> Contract {
    let mut wider = Contract::clone(&contract());
    for schema in [&mut wider.input, &mut wider.output] {
        schema.columns.push(Column::new("c", Type::BigInt));
    }
    wider
}

/// GIVEN failures inside Redshift that say nothing, WHEN a statement about no table meets them, or one that changes a table,
/// THEN it is tried again; only what goes on like that stops the process, with what to do.
#[tokio::test(flavor = "multi_thread")]
async fn what_redshift_does_not_explain_is_tried_again_whatever_it_is_about() {
    let under = Under::redshift().await;
    let (warehouse, sim) = (under.warehouse(), &under.cluster().sim);
    warehouse.ensure(&contract(), DeleteMode::Hard).await.unwrap();
    let kinds = [Kind::Begin, Kind::Lock, Kind::Select, Kind::Delete, Kind::Insert, Kind::Drop, Kind::Commit];
    for (n, kind) in (0..).zip(kinds) {
        sim.fail(Rule::new(Fault::ScanFailed).on(kind).times(2));
        apply_patiently(&under, &one_row(n)).await;
        assert_eq!(sim.counters().injected, 2 * (n + 1), "{kind:?}");
    }
    sim.fail(Rule::new(Fault::ScanFailed).on(Kind::Alter).times(2));
    sim.fail(Rule::new(Fault::ScanFailed).on(Kind::Select).times(2));
    for _ in 0..2 {
        let error = warehouse.freshness().await.unwrap_err();
        assert_eq!(error.disposition(), Disposition::Retry, "{error}");
    }
    for _ in 0..2 {
        let error = warehouse.ensure(&wider(), DeleteMode::Hard).await.unwrap_err();
        assert_eq!(error.disposition(), Disposition::Retry, "{error}");
    }
    warehouse.ensure(&wider(), DeleteMode::Hard).await.unwrap();
    assert_eq!(sim.counters().injected, 2 * kinds.len() as u64 + 4);
    sim.fail(Rule::new(Fault::ScanFailed).on(Kind::Lock));
    let mut retried = 0;
    let error = loop {
        match warehouse.apply(&one_row(kinds.len() as u64)).await.unwrap_err() {
            error if error.disposition() == Disposition::Retry => retried += 1,
            error => break error,
        }
        assert!(retried < 100, "for ever");
    };
    assert_eq!((retried, error.disposition()), (23, Disposition::Halt), "{error}");
    assert!(error.help_text().is_some_and(|help| help.contains("the cluster's health")), "{error}");
}

/// GIVEN views that can be replaced by views with the same columns only, WHEN a table gets a column, THEN its view shows it,
/// and whoever could read it still can; what passes while a view is made does not leave it out.
#[tokio::test(flavor = "multi_thread")]
async fn a_view_gets_the_columns_of_its_table_and_keeps_its_readers() {
    let under = Under::redshift().await;
    let (warehouse, sim) = (under.warehouse(), &under.cluster().sim);
    let groups = [("g".to_owned(), vec!["things".to_owned()])].into();
    dataflow::warehouse::assign(under.config(), "t", &groups, &[]).await.unwrap();
    let shown = async || under.rows("SELECT sql FROM sim.late_views WHERE schema = 'bi' AND name = 'things'").await;
    // A conflict passes: whoever loads asks again. What is not explained is tried at once.
    sim.fail(Rule::new(Fault::Conflict).on(Kind::Create).containing("view").times(1));
    let error = warehouse.ensure(&contract(), DeleteMode::Hard).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Retry, "{error}");
    sim.fail(Rule::new(Fault::ScanFailed).on(Kind::Create).containing("view").times(2));
    warehouse.ensure(&contract(), DeleteMode::Hard).await.unwrap();
    assert_eq!((shown().await.len(), sim.counters().injected), (1, 3));

    let reader = format!("reader_{}", under.rows("SELECT current_database()::text").await[0][0].clone().unwrap());
    under.execute(&format!("CREATE ROLE {reader}; GRANT SELECT ON bi.things TO {reader} WITH GRANT OPTION")).await;
    warehouse.ensure(&wider(), DeleteMode::Hard).await.unwrap();
    let view = shown().await[0][0].clone().unwrap();
    assert!(view.contains("\"b\" , \"c\""), "{view}");
    let may = format!("SELECT has_table_privilege('{reader}', 'bi.things', 'SELECT WITH GRANT OPTION')::text");
    let may = under.rows(&may).await[0][0].clone();
    let history = sim.history();
    under.execute(&format!("DROP OWNED BY {reader}; DROP ROLE {reader}")).await;
    assert_eq!(may.as_deref(), Some("true"), "{history:#?}");
}
