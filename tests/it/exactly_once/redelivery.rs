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
    // One partition each, so that the halves of partial moves meet.
    let options = loadtest::Options { redeliver: 0.5, partial_moves: true, ..busy_shop(generated) };
    let stock = Stock::make(62, options, generated);
    servers.produce(&stock.events);
    let world = servers.world("again");
    with_a_kill_between(&world.launch).await;
    world.oracle.assert(&world.judge(&stock.expected, stock.events.len() as u64).await);
    assert!(stock.expected.tables["products"].moves > 0 && stock.expected.tables["page_views"].redelivered > 100);
}
