//! GIVEN a shop that goes on selling, WHEN the process is killed at any moment, again and again, THEN everything is there
//! once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::feed::{OpenShop, Till};
use super::world::{LakeStore, Partitions, Servers, World, busy_shop};
use crate::support::process::LIMIT;

const KILLS: u32 = 12;

/// Numbers that a seed decides.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Waits until the log holds more than `n` manifests.
pub async fn log_beyond(lake: &LakeStore, n: usize) -> usize {
    let begun = Instant::now();
    loop {
        let found = lake.manifests().await;
        if found > n {
            return found;
        }
        assert!(begun.elapsed() < LIMIT, "the log stays at {found}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn kill_at_any_moment(world: &World, shop: OpenShop, seed: u64) {
    let mut dice = Dice(seed);
    let mut at = 0;
    for _ in 0..KILLS {
        let mut process = world.launch.run();
        // Some runs die on the way up, some after the first epochs; where in an epoch is a matter of chance.
        let epochs = dice.below(4) as usize;
        if epochs > 0 {
            at = log_beyond(&world.lake, at + epochs - 1).await;
        }
        tokio::time::sleep(Duration::from_millis(dice.below(400))).await;
        process.kill();
        at = world.lake.manifests().await.max(at);
    }
    let (expected, records) = shop.close();
    world.launch.run_until_caught_up().await;
    let found = world.judge(&expected, records).await;
    world.oracle.assert(&found);
    assert!(at > KILLS as usize / 2, "only {at} epochs: nothing was interrupted");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_while_a_file_grows() {
    let world = World::embedded_with(super::world::TABLES, super::world::EPOCHS, "true");
    let options = loadtest::Options { redeliver: 0.1, ..busy_shop(1_000) };
    let shop = OpenShop::open(21, options, Till::open(&world.events()));
    kill_at_any_moment(&world, shop, 21).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_while_kafka_fills() {
    let Some(servers) = Servers::start("kills", Partitions::Two).await else { return };
    let servers = Arc::new(servers);
    let world = servers.world("kills");
    let options = loadtest::Options { redeliver: 0.1, ..busy_shop(1_000) };
    let shop = OpenShop::open(22, options, Arc::clone(&servers));
    kill_at_any_moment(&world, shop, 22).await;
}
