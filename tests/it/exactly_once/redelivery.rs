//! GIVEN a connector that was restarted and delivers e1 e2 e3 e2 e3, WHEN that is loaded with and without keys, THEN
//! every change counts once.

use super::world::{Partitions, Servers, Stock, World, busy_shop};
use crate::support::process::Launch;

/// Kills the process after a few epochs, so that the second delivery may come in another life, and then ends.
async fn with_a_kill_between(launch: &Launch) {
    let broken = launch.clone().arg("--until-caught-up").failpoints("log.put.after=3*off->return(kill)");
    let mut process = broken.run();
    assert!(!process.exit(super::world::RUN_LIMIT).await.success(), "it was to be killed\n{}", process.log_tail());
    launch.run_until_caught_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delivered_again_in_a_file() {
    let world = World::embedded();
    let generated = 2_500;
    let stock = Stock::make(61, loadtest::Options { redeliver: 0.5, ..busy_shop(generated) }, generated);
    stock.write_files(&world.events(), 1);
    with_a_kill_between(&world.launch).await;
    let records = stock.lines().count() as u64;
    world.oracle.assert(&world.judge(&stock.expected, records).await);
    assert!(stock.expected.tables["page_views"].redelivered > 100 && stock.expected.tables["orders"].redelivered > 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn delivered_again_in_kafka() {
    let Some(servers) = Servers::start("again", Partitions::One).await else { return };
    let generated = 2_500;
    let options = loadtest::Options { redeliver: 0.5, ..busy_shop(generated) };
    let stock = Stock::make(62, options, generated);
    servers.produce(&stock.events);
    let world = servers.world("again");
    with_a_kill_between(&world.launch).await;
    world.oracle.assert(&world.judge(&stock.expected, stock.events.len() as u64).await);
    assert!(stock.expected.tables["customers"].moves > 0 && stock.expected.tables["page_views"].redelivered > 100);
}

/// The create half of a move may leave columns unchanged, and when it comes again the row under the old key is gone: it
/// stands on what its own key holds.
#[tokio::test(flavor = "multi_thread")]
async fn partial_moves_delivered_again() {
    let Some(servers) = Servers::start("moves", Partitions::One).await else { return };
    let generated = 2_500;
    let options = loadtest::Options { redeliver: 0.5, partial_moves: true, ..busy_shop(generated) };
    let stock = Stock::make(62, options, generated);
    servers.produce(&stock.events);
    let world = servers.world("moves");
    world.launch.run_until_caught_up().await;
    world.oracle.assert(&world.judge(&stock.expected, stock.events.len() as u64).await);
    assert!(stock.expected.tables["products"].moves > 0);
}

/// An event from before a column was added may be decoded after another partition has shown the column. It is whole all
/// the same, also after a refused version of its key.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_one_partition_shows_before_the_other() {
    let Some(servers) = Servers::start("grown", Partitions::One).await else { return };
    servers.broker.add_partitions("grown.orders", 2).await;
    let generated = 2_000;
    let stock = Stock::make(12, loadtest::Options { redeliver: 0.1, ..busy_shop(generated) }, generated);
    servers.produce(&stock.events);
    let world = servers.world("grown");
    world.launch.run_until_caught_up().await;
    world.oracle.assert(&world.judge(&stock.expected, stock.events.len() as u64).await);
}
