//! GIVEN processes that each believe that the work is theirs, WHEN they run against each other, THEN the log (for what is
//! read) and the ledger (for what is loaded) let exactly one of them win each step.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::feed::{OpenShop, Till};
use super::kills::log_beyond;
use super::world::{EPOCHS, Partitions, RUN_LIMIT, Servers, Stock, TABLES, World, busy_shop};
use crate::support::process::{LIMIT, Launch, Running};

/// Says that an epoch was dropped because another process had moved the partitions.
const FENCED: &str = "the epoch is dropped and read again from the log";
/// Says that another loader was first.
const LEDGER_MOVED: &str = "stands at epoch";

/// Starts a rival again that gave up after it had lost too often in a row, as a supervisor would.
fn keep_alive(running: &mut Running, launch: &Launch) {
    if running.has_ended() {
        *running = launch.run();
    }
}

async fn let_them_fight(world: &World, rivals: &[Launch], epochs: usize) -> Vec<String> {
    let mut running: Vec<Running> = rivals.iter().map(Launch::run).collect();
    let mut at = 0;
    while at < epochs {
        at = log_beyond(&world.lake, at).await;
        running.iter_mut().zip(rivals).for_each(|(running, launch)| keep_alive(running, launch));
    }
    for process in &mut running {
        process.terminate();
    }
    for process in &mut running {
        process.exit(RUN_LIMIT).await;
    }
    running.iter().map(Running::whole_log).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_that_read_the_same_file_are_fenced_by_the_log() {
    let world = World::embedded_with(TABLES, EPOCHS, "true");
    let topology = std::fs::read_to_string(world.launch.topology()).unwrap();
    let topology: String =
        topology.lines().filter(|line| !line.starts_with("admin:")).map(|l| l.to_owned() + "\n").collect();
    let rivals = ["one", "other"].map(|name| Launch::named(world.folder.path(), name, &topology));
    let shop = OpenShop::open(31, busy_shop(1_000), Till::open(&world.events()));
    let logs = let_them_fight(&world, &rivals, 25).await;
    let (expected, records) = shop.close();
    world.launch.run_until_caught_up().await;
    world.oracle.assert(&world.judge(&expected, records).await);
    assert!(logs.iter().any(|log| log.contains(FENCED)), "they never met:\n{}", logs.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_consumer_groups_on_the_same_topics_are_fenced_by_the_log() {
    let Some(servers) = Servers::start("rivals", Partitions::Two).await else { return };
    let servers = Arc::new(servers);
    let world = servers.world("rivals");
    let topology = servers.topology("rivals", "");
    let rivals = ["one", "other"].map(|name| {
        let own_group = topology.replace("kind: kafka", &format!("kind: kafka\n    group: {name}"));
        Launch::named(world.folder.path(), name, &own_group)
    });
    let shop = OpenShop::open(32, busy_shop(1_000), Arc::clone(&servers));
    let logs = let_them_fight(&world, &rivals, 25).await;
    let (expected, records) = shop.close();
    world.launch.run_until_caught_up().await;
    world.oracle.assert(&world.judge(&expected, records).await);
    assert!(logs.iter().any(|log| log.contains(FENCED)), "they never met:\n{}", logs.join("\n"));
}

/// How often these pods were given a partition.
fn assignments(pods: &[Running], without: usize) -> usize {
    let others = pods.iter().enumerate().filter(|(pod, _)| *pod != without);
    others.map(|(_, pod)| pod.whole_log().matches("\"message\":\"reading\"").count()).sum()
}

/// Waits until the group has given up on `gone` and its partitions went to the others.
async fn others_take_over(pods: &[Running], gone: usize) {
    let (before, begun) = (assignments(pods, gone), Instant::now());
    while assignments(pods, gone) <= before {
        assert!(begun.elapsed() < LIMIT, "the group does not give up on the pod that stands still");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebalance_storm_of_three_pods() {
    let Some(servers) = Servers::start("storm", Partitions::Two).await else { return };
    let servers = Arc::new(servers);
    let topology = servers.topology("storm", "");
    let world = servers.world_of("storm", &topology);
    let pods = ["a", "b", "c"].map(|name| Launch::named(world.folder.path(), name, &topology));
    let shop = OpenShop::open(33, busy_shop(1_000), Arc::clone(&servers));
    let mut running: Vec<Running> = pods.iter().map(Launch::run).collect();
    let mut at = log_beyond(&world.lake, 1).await;
    // Ordered ends, sudden ends, and pods that stand still until the group gives up on them.
    for (round, how) in ["term", "kill", "stop", "term", "kill", "term"].into_iter().enumerate() {
        let pod = round % running.len();
        match how {
            "term" => running[pod].stop().await,
            "kill" => running[pod].kill(),
            _ => {
                // It wakes up when the others own its partitions, and still holds what it had read of them.
                running[pod].signal("-STOP");
                others_take_over(&running, pod).await;
                running[pod].signal("-CONT");
            }
        }
        at = log_beyond(&world.lake, at + 1).await;
        keep_alive(&mut running[pod], &pods[pod]);
        at = log_beyond(&world.lake, at + 1).await;
    }
    let (expected, records) = shop.close();
    assert_eq!(servers.held(), records, "the broker does not hold what was sold");
    for pod in &mut running {
        pod.terminate();
    }
    for pod in &mut running {
        pod.exit(RUN_LIMIT).await;
    }
    // A member that died during a rebalance keeps its share until its session ends, and a process that is caught up with
    // the rest ends before that: then another one reads what is left. What was skipped would never be found again.
    let mut unread = Vec::new();
    for _ in 0..5 {
        world.launch.run_until_caught_up().await;
        unread = servers.unread(&world.lake.log().await);
        if unread.is_empty() {
            break;
        }
        println!("left to a member that has died: {}", unread.join(", "));
    }
    let mut found = world.judge(&expected, records).await;
    found.extend(unread);
    if !found.is_empty() {
        pods.iter().for_each(|pod| println!("{}", pod.whole_log()));
        println!("{}", world.launch.whole_log());
    }
    world.oracle.assert(&found);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_loaders_on_one_warehouse() {
    let Some(servers) = Servers::start("loaders", Partitions::Two).await else { return };
    let servers = Arc::new(servers);
    let topology = servers.topology("loaders", "");
    let world = servers.world_of("loaders", &topology);
    let ingest = Launch::named(world.folder.path(), "ingest", &topology).arg("--role").arg("ingest");
    let loaders =
        ["one", "other"].map(|name| Launch::named(world.folder.path(), name, &topology).arg("--role").arg("load"));
    let shop = OpenShop::open(34, busy_shop(1_000), Arc::clone(&servers));
    let mut reading = ingest.run();
    let mut loading: Vec<Running> = loaders.iter().map(Launch::run).collect();
    log_beyond(&world.lake, 20).await;
    let (expected, records) = shop.close();
    reading.stop().await;
    for loader in &mut loading {
        loader.stop().await;
    }
    let logs: Vec<String> = loading.iter().map(Running::whole_log).collect();
    world.launch.run_until_caught_up().await;
    world.oracle.assert(&world.judge(&expected, records).await);
    assert!(logs.iter().any(|log| log.contains(LEDGER_MOVED)), "they never met:\n{}", logs.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_loaders_on_one_file() {
    let world = World::embedded_with(TABLES, EPOCHS, "true");
    let topology = std::fs::read_to_string(world.launch.topology()).unwrap();
    let topology: String =
        topology.lines().filter(|line| !line.starts_with("admin:")).map(|l| l.to_owned() + "\n").collect();
    let [ingest, one, other] = [("ingest", "ingest"), ("one", "load"), ("other", "load")]
        .map(|(name, role)| Launch::named(world.folder.path(), name, &topology).arg("--role").arg(role));
    let shop = OpenShop::open(35, busy_shop(1_000), Till::open(&world.events()));
    let mut reading = ingest.run();
    let mut loading = [one.run(), other.run()];
    log_beyond(&world.lake, 20).await;
    let (expected, records) = shop.close();
    reading.stop().await;
    for loader in &mut loading {
        loader.stop().await;
    }
    world.launch.run_until_caught_up().await;
    world.oracle.assert(&world.judge(&expected, records).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_process_has_read_another_loads_to_its_end() {
    let world = World::embedded_with(TABLES, EPOCHS, "true");
    let stock = Stock::make(36, busy_shop(300), 300);
    stock.write_files(&world.events(), 1);
    world.launch.clone().arg("--role").arg("ingest").run_until_caught_up().await;
    world.launch.clone().arg("--role").arg("load").run_until_caught_up().await;
    world.oracle.assert(&world.judge(&stock.expected, stock.lines().count() as u64).await);
}
