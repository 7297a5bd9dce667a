//! What happens to rows, and what happens to the cluster, the store and the process meanwhile.

use redshift_sim::{Fault, Kind, Rule};
use serde_json::Value;

use super::is_loaded;
use super::world::{By, World};
use crate::postgres_source::types::TYPES;
use crate::support::process::{LIMIT, Running};
use crate::support::proxy::{self, Proxy};
use crate::support::s3;

pub const ITEMS: &[&str] = &["items"];
/// Rows whose `large` is stored out of line: an update of others leaves it unchanged.
pub const SETUP: &str = "CREATE TABLE items (id int PRIMARY KEY, n int, note text, large text); \
    ALTER TABLE items ALTER large SET STORAGE EXTERNAL; \
    INSERT INTO items SELECT n, n, 'note ' || n, repeat('x' || n, 2000) FROM generate_series(1, 40) n";

/// A round of everything that happens to rows. `n` tells rounds apart.
pub fn changes(n: i32) -> String {
    let at = 100 * n;
    format!(
        "INSERT INTO items SELECT n, n, 'new', repeat('y' || n, 2000) FROM generate_series({at}, {at} + 19) n; \
         UPDATE items SET n = n + 1 WHERE id % 3 = 0; UPDATE items SET note = NULL WHERE id % 7 = {n} % 7; \
         UPDATE items SET id = id + 50 WHERE id BETWEEN {at} AND {at} + 5; \
         UPDATE items SET id = id + 20, note = 'moved' WHERE id = {at} + 6; \
         UPDATE items SET large = 'short' WHERE id = {at} + 7; DELETE FROM items WHERE id BETWEEN {at} + 8 AND {at} + 10"
    )
}

/// Waits for an epoch beyond `epoch`.
async fn epoch_after(process: &mut Running, epoch: u64) -> u64 {
    let status = process.wait_for("the next epoch", LIMIT, |status| status["epoch"].as_u64() > Some(epoch)).await;
    status["epoch"].as_u64().unwrap()
}

/// Waits until more was read than `read`, and all of it is loaded; what was read now.
pub async fn loaded_beyond(process: &mut Running, what: &str, read: u64) -> u64 {
    let loaded = |status: &Value| status["account"]["read"].as_u64() > Some(read) && is_loaded(status);
    process.wait_for(what, LIMIT, loaded).await["account"]["read"].as_u64().unwrap()
}

/// GIVEN a table with every type, WHEN its rows come by snapshot and by stream, THEN all are there as they are; those that
/// Redshift cannot hold wait in quarantine, where they stay when they are tried again, and are there once the source has
/// changed them.
pub async fn every_type(by: By) {
    let Some(mut world) = World::new(by, TYPES).await else { return };
    let launch = world.launch(&["types"]);
    launch.run_until_caught_up().await;
    world
        .run(
            "CREATE TEMP TABLE copy AS TABLE types; UPDATE copy SET id = id + 10; INSERT INTO types TABLE copy; \
             INSERT INTO types SELECT 21; UPDATE types SET (b, i2) = (SELECT b, i2 FROM copy WHERE id = 11) WHERE id = 21; \
             INSERT INTO types (id, t) VALUES (31, repeat('é', 32768)), (32, repeat('é', 32767)); \
             INSERT INTO types (id, jb) SELECT 33, jsonb_build_object('long', repeat('x', 70000))",
        )
        .await;
    launch.run_until_caught_up().await;
    let refused = [(3, "f4"), (13, "f4"), (31, "t"), (33, "jb")];
    world.assert_only_these_wait(&launch, "types", &refused).await;
    let again = launch.other(&["quarantine", "retry"], &["--table", "types"]);
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    launch.run_until_caught_up().await;
    world.assert_only_these_wait(&launch, "types", &refused).await;
    if by == By::Kafka {
        // Elements that are decimals stay as Debezium writes them.
        assert_eq!(world.held("SELECT da::text FROM types WHERE id = 1").await, [r#"["AJY=", "AMg="]"#]);
    }
    world
        .run(
            "UPDATE types SET f4 = 0, f8 = 0 WHERE id IN (3, 13); UPDATE types SET t = 'short' WHERE id = 31; \
             UPDATE types SET jb = '[]' WHERE id = 33; DELETE FROM types WHERE id = 12",
        )
        .await;
    launch.run_until_caught_up().await;
    world.assert_same_where(&launch, "types", "true").await;
    world.verified(&launch);
}

/// GIVEN inserts, updates, deletes, keys that move and columns that stay unchanged, THEN the table is the source's, also
/// after it was emptied.
pub async fn change_move_and_go(by: By) {
    let Some(mut world) = World::new(by, SETUP).await else { return };
    let launch = world.launch(ITEMS);
    launch.run_until_caught_up().await;
    for n in 1..3 {
        world.run(&changes(n)).await;
        launch.run_until_caught_up().await;
        world.assert_same(&launch, ITEMS).await;
    }
    world.run("TRUNCATE items; INSERT INTO items VALUES (1, 1, 'again', 'x')").await;
    world.run(&changes(3)).await;
    launch.run_until_caught_up().await;
    world.assert_same(&launch, ITEMS).await;
}

/// GIVEN a process that is killed before and after every step of a load, with changes in between, THEN the table is the
/// source's.
pub async fn killed_at_every_step(by: By) {
    const STEPS: [&str; 14] = [
        "lake.upload.before",
        "lake.upload.after",
        "log.put.before",
        "log.put.after",
        "lake.stage.before",
        "lake.stage.after",
        "warehouse.copy.before",
        "warehouse.copy.after",
        "warehouse.ledger.before",
        "warehouse.ledger.after",
        "warehouse.commit.before",
        "warehouse.commit.after",
        "release.before",
        "release.after",
    ];
    let Some(mut world) = World::new(by, SETUP).await else { return };
    let launch = world.launch(ITEMS);
    launch.run_until_caught_up().await;
    for (n, step) in (1..).zip(STEPS) {
        world.run(&changes(n)).await;
        let mut process = launch.clone().failpoints(format!("{step}=return(kill)")).arg("--until-caught-up").run();
        let killed = !process.exit(LIMIT).await.success();
        let passed = process.log().contains(&format!("failpoint {step} does"));
        assert!(killed && passed, "{step} was not passed\n{}", process.log_tail());
    }
    launch.run_until_caught_up().await;
    world.assert_same(&launch, ITEMS).await;
}

/// GIVEN a cluster that is away for thirty epochs, WHEN it comes back, THEN a few loads bring everything.
pub async fn away_for_thirty_epochs(by: By) {
    let Some(mut world) = World::new(by, SETUP).await else { return };
    let proxy = Proxy::to(world.cluster.sim.port()).await;
    let launch = world.launch_at(ITEMS, proxy.port());
    let mut process = launch.run();
    process.wait_for("the first rows", LIMIT, |status| status["account"]["applied"] == 40).await;
    proxy.now(proxy::Fault::Refuse);
    let first = epoch_after(&mut process, 0).await;
    let mut epoch = first;
    for n in 1..=30 {
        world.run(&changes(n)).await;
        epoch = epoch_after(&mut process, epoch).await;
    }
    assert!(epoch >= first + 30);
    world.cluster.sim.reset_counters();
    proxy.heal();
    process.wait_for("all is loaded", LIMIT, is_loaded).await;
    process.stop().await;
    let commits = world.cluster.sim.counters().commits;
    assert!(commits <= 6, "{commits} loads for thirty epochs");
    launch.run_until_caught_up().await;
    world.assert_same(&launch, ITEMS).await;
}

/// GIVEN a store that is slow, fails and loses answers at every kind of request that a load makes, THEN nothing is lost and
/// nothing doubled.
pub async fn a_store_that_fails(by: By) {
    let Some(mut world) = World::new(by, SETUP).await else { return };
    let launch = world.launch(ITEMS);
    let faults = [s3::Fault::SlowDown, s3::Fault::Unavailable, s3::Fault::AnswerLost];
    let requests = [("PUT", "_stage"), ("GET", "_stage"), ("POST", "/lake"), ("PUT", "processed"), ("PUT", "_log")];
    let mut process = launch.run();
    let mut read = process.wait_for("a status", LIMIT, |_| true).await["account"]["read"].as_u64().unwrap();
    let mut n = 0;
    for fault in faults {
        for (method, path) in requests {
            n += 1;
            world.cluster.s3.fault(fault, method, path, 2);
            world.run(&changes(n)).await;
            read = loaded_beyond(&mut process, "the changes", read).await;
            // What is staged is removed after the commit.
            let begun = std::time::Instant::now();
            while method == "POST" && !world.cluster.staged().is_empty() && begun.elapsed() < LIMIT {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            let left = world.cluster.s3.heal();
            assert!(left < 2, "{fault:?} at {method} of {path} did not happen");
        }
    }
    process.stop().await;
    launch.run_until_caught_up().await;
    world.assert_same(&launch, ITEMS).await;
}

/// GIVEN a cluster on which each third commit fails with 1023, and each fifth loses its answer, WHEN a database goes on
/// changing, THEN the table is the source's.
pub async fn commits_that_fail(by: By) {
    let Some(mut world) = World::new(by, SETUP).await else { return };
    let launch = world.launch(ITEMS);
    launch.run_until_caught_up().await;
    let refused = world.cluster.sim.fail(Rule::new(Fault::Serializable).on(Kind::Commit).every(3));
    let lost = world.cluster.sim.fail(Rule::new(Fault::AnswerLost).on(Kind::Commit).every(5));
    let mut process = launch.run();
    let mut read = process.wait_for("a status", LIMIT, |_| true).await["account"]["read"].as_u64().unwrap();
    for n in 1..=12 {
        world.run(&changes(n)).await;
        read = loaded_beyond(&mut process, "the changes", read).await;
    }
    process.stop().await;
    launch.run_until_caught_up().await;
    assert!(refused.times() >= 4 && lost.times() >= 2, "{refused:?} {lost:?}");
    world.cluster.sim.heal();
    world.assert_same(&launch, ITEMS).await;
}
