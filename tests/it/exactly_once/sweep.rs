//! Every failpoint: GIVEN a process that is killed (or gets no answer, or a failure) there, WHEN it is started again, THEN
//! the warehouse holds everything once.

use std::time::Instant;

use dataflow::epoch::Control;
use dataflow::lake::{Access, Lake, Log};
use futures::StreamExt;

use super::world::{Partitions, RUN_LIMIT, Servers, Stock, World, busy_shop};
use crate::support::process::Launch;

/// One broken run.
#[derive(Debug, Clone, Copy)]
struct Case {
    place: &'static str,
    action: &'static str,
    /// Manifests to put before it begins, so that the checkpoint at 64 comes soon.
    head_start: u64,
}

const KILL: &str = "return(kill)";
const KILL_LATER: &str = "3*off->return(kill)";
const KILL_SECOND: &str = "1*off->return(kill)";
const ERROR: &str = "1*off->1*return(error)";
const LOST: &str = "1*off->1*return(lost)";
/// More often than the store tries again, so that the epoch is dropped.
const ERRORS: &str = "2*off->6*return(error)";

/// What is tried at each place. A fault `before` a step is not done or done without an answer; `after` it is always done.
const CASES: [(&str, &[&str]); 20] = [
    ("log.identity.before", &[KILL, "1*return(error)", "1*return(lost)"]),
    ("log.identity.after", &[KILL]),
    ("log.probe.before", &[KILL, KILL_SECOND, "1*return(error)"]),
    ("log.probe.after", &[KILL, KILL_SECOND, "1*return(lost)"]),
    ("lake.upload.before", &[KILL, KILL_LATER, ERROR, LOST, ERRORS]),
    ("lake.upload.after", &[KILL, KILL_LATER, ERRORS]),
    ("log.put.before", &[KILL, KILL_LATER, ERROR, LOST, ERRORS, "2*off->6*return(lost)"]),
    ("log.put.after", &[KILL, KILL_LATER, LOST, ERRORS]),
    ("log.checkpoint.before", &[KILL, "1*return(error)", "1*return(lost)"]),
    ("log.checkpoint.after", &[KILL, "6*return(error)"]),
    ("release.before", &[KILL, KILL_LATER, ERROR]),
    ("release.after", &[KILL, KILL_LATER]),
    ("warehouse.copy.before", &[KILL, KILL_LATER, ERROR]),
    ("warehouse.copy.after", &[KILL, KILL_LATER, ERROR]),
    ("warehouse.ledger.before", &[KILL, KILL_LATER, ERROR]),
    ("warehouse.ledger.after", &[KILL, KILL_LATER, ERROR]),
    ("warehouse.commit.before", &[KILL, KILL_LATER, ERROR]),
    ("warehouse.commit.after", &[KILL, KILL_LATER, LOST]),
    // Two at once: the answer is lost, and the process dies before it knows.
    ("log.put.before=1*return(lost);log.put.after", &[KILL_LATER]),
    ("warehouse.commit.after=1*return(lost);warehouse.copy.after", &[KILL_LATER]),
];

fn cases() -> Vec<(usize, Case)> {
    let head_start = |place: &str| if place.starts_with("log.checkpoint") { 61 } else { 0 };
    CASES
        .iter()
        .flat_map(|(place, actions)| {
            actions.iter().map(move |action| Case { place, action, head_start: head_start(place) })
        })
        .enumerate()
        .collect()
}

/// Runs to the end with the fault in it, then (if that killed it) without.
async fn break_and_mend(launch: &Launch, case: Case) -> Result<(), String> {
    let launch = launch.clone().arg("--until-caught-up");
    let mut broken = launch.clone().failpoints(format!("{}={}", case.place, case.action)).run();
    let ended = broken.exit(RUN_LIMIT).await;
    let passed = case.place.split(';').all(|place| {
        let name = place.split('=').next().unwrap_or(place);
        broken.log().contains(&format!("failpoint {name} does"))
    });
    if !passed {
        return Err(format!("the place was never passed\n{}", broken.log_tail()));
    }
    let kill = case.action.ends_with(KILL);
    if kill == ended.success() {
        return Err(format!("the broken run ended with {ended}\n{}", broken.log_tail()));
    }
    if kill {
        let mut whole = launch.run();
        let ended = whole.exit(RUN_LIMIT).await;
        if !ended.success() {
            return Err(format!("the run after it ended with {ended}\n{}", whole.log_tail()));
        }
    }
    Ok(())
}

/// Fills the log with entries that say nothing.
async fn advance_log(lake: &dataflow::config::Lake, topology: &str, manifests: u64) {
    let log = Log::open(Lake::open(lake).unwrap(), topology, Access::Write).await.unwrap();
    for _ in 0..manifests {
        let nothing = Control::Resume { table: "orders".into() };
        dataflow::pipeline::quarantine::commit_control(&log, vec![nothing]).await.unwrap();
    }
}

/// Runs all cases, a few at a time, and reports every one that fails.
async fn sweep(cases: Vec<(usize, Case)>, at_once: usize, run: impl AsyncFn((usize, Case)) -> Vec<String>) {
    let begun = Instant::now();
    let count = cases.len();
    let outcomes: Vec<(Case, Vec<String>)> = futures::stream::iter(cases)
        .map(async |(number, case)| {
            let started = Instant::now();
            let found = run((number, case)).await;
            println!("{:>6.1} s  {}={}", started.elapsed().as_secs_f32(), case.place, case.action);
            (case, found)
        })
        .buffer_unordered(at_once)
        .collect()
        .await;
    println!("{count} cases in {:.0} s", begun.elapsed().as_secs_f32());
    let failed: Vec<String> = outcomes
        .into_iter()
        .filter(|(_, found)| !found.is_empty())
        .map(|(case, found)| format!("{}={}:\n    {}", case.place, case.action, found.join("\n    ")))
        .collect();
    assert!(failed.is_empty(), "{} of {count} cases:\n{}", failed.len(), failed.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failpoint_from_files_to_sqlite() {
    let generated = 1_500;
    let stock = Stock::make(11, busy_shop(generated), generated);
    let records = stock.lines().count() as u64;
    // The quick half: a first kill everywhere, and everything at the two commits.
    let quick = |case: &Case| case.action == KILL || case.place.contains("log.put") || case.place.contains("commit");
    let cases = cases().into_iter().filter(|(_, case)| quick(case)).collect();
    sweep(cases, 3, async |(_, case)| {
        let world = World::embedded();
        stock.write_files(&world.events(), 12);
        if case.head_start > 0 {
            let config: dataflow::config::Lake =
                serde_json::from_value(serde_json::json!({ "url": world.folder.path().join("lake") })).unwrap();
            advance_log(&config, "once", case.head_start).await;
        }
        match break_and_mend(&world.launch, case).await {
            Ok(()) => world.judge(&stock.expected, records).await,
            Err(why) => vec![why],
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failpoint_from_kafka_over_s3_to_postgres() {
    let Some(servers) = Servers::start("sweep", Partitions::Two).await else { return };
    let generated = 2_000;
    let options = loadtest::Options { redeliver: 0.1, ..busy_shop(generated) };
    let stock = Stock::make(12, options, generated);
    servers.produce(&stock.events);
    let records = stock.events.len() as u64;
    sweep(cases(), 3, async |(number, case)| {
        let name = format!("case_{number}");
        let world = servers.world(&name);
        if case.head_start > 0 {
            advance_log(&servers.s3.lake(&name), &name, case.head_start).await;
        }
        match break_and_mend(&world.launch, case).await {
            Ok(()) => world.judge(&stock.expected, records).await,
            Err(why) => vec![why],
        }
    })
    .await;
}
