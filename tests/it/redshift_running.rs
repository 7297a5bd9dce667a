//! What a loader that runs leaves behind in its cluster and its store, and what it does not wait for.

use axum::http::Method;
use dataflow::epoch::{DeleteMode, LoadUnit};
use dataflow::lake::{Access, Lake, Log, sweep_as_of};
use dataflow::pipeline::fold::fold;
use dataflow::pipeline::staging::staging;

use crate::support::process::LIMIT;
use crate::support::s3::{Fault as StoreFault, S3Server};
use crate::warehouse::{Under, batch, contract, put, unit};

/// One row for the table of the tests, as the unit after `after`.
fn one_row(after: u64) -> LoadUnit {
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
