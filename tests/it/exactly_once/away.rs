//! GIVEN a warehouse that is away for many epochs, WHEN it comes back, THEN nothing was held up meanwhile (the log and the
//! group's offsets moved on), and a few transactions bring it all, a column that appeared on the way included.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::feed::OpenShop;
use super::kills::log_beyond;
use super::world::{EPOCHS, ONE_PARTITION, Partitions, Servers, busy_shop};
use crate::support::process::LIMIT;

const AWAY_EPOCHS: usize = 30;

/// A way to a server that can be cut.
struct Switch {
    address: String,
    open: Arc<AtomicBool>,
    cut: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Switch {
    async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (open, cut) = (Arc::new(AtomicBool::new(true)), Arc::new(Notify::new()));
        let (passing, cutting) = (Arc::clone(&open), Arc::clone(&cut));
        let task = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (server, passing, cutting) = (server.clone(), Arc::clone(&passing), Arc::clone(&cutting));
                tokio::spawn(async move {
                    let cut = cutting.notified();
                    if !passing.load(Ordering::Acquire) {
                        return;
                    }
                    let Ok(mut there) = TcpStream::connect(&server).await else { return };
                    tokio::select! {
                        _ended = tokio::io::copy_bidirectional(&mut client, &mut there) => {}
                        () = cut => {}
                    }
                });
            }
        });
        Self { address, open, cut, task }
    }

    fn cut(&self) {
        self.open.store(false, Ordering::Release);
        self.cut.notify_waiters();
    }

    fn mend(&self) {
        self.open.store(true, Ordering::Release);
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the consumer group has told the broker, over all topics.
fn released(servers: &Servers, group: &str) -> i64 {
    let partitions = loadtest::TABLE_NAMES.iter().flat_map(|table| [(table, 0), (table, 1)]);
    partitions
        .filter_map(|(table, number)| {
            let topic = format!("{}.{table}", servers.prefix);
            (number == 0 || !ONE_PARTITION.contains(table))
                .then(|| servers.broker.committed(group, &topic, number))
                .flatten()
        })
        .sum()
}

/// How many transactions the process has applied.
fn applied(metrics: &str) -> u64 {
    let line =
        metrics.lines().find(|l| l.starts_with("dataflow_step_duration_seconds_count") && l.contains("\"apply\""));
    line.and_then(|l| l.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warehouse_that_is_away_for_thirty_epochs() {
    let Some(servers) = Servers::start("away", Partitions::Two).await else { return };
    let servers = Arc::new(servers);
    let host = servers.database.split('@').nth(1).unwrap().split('/').next().unwrap().to_owned();
    let switch = Switch::to(host.clone()).await;
    let through = servers.database.replace(&host, &switch.address);
    let world = servers.world_of("away", &servers.topology_with("away", "", &through, EPOCHS));
    let mut process = world.launch.run();
    // The column comes while the warehouse is away: before, the shop does not sell enough.
    let options = loadtest::Options { add_column_after: Some(1_000), ..busy_shop(1_000) };
    let shop = OpenShop::open_until(900, 41, options, Arc::clone(&servers));
    process.wait_for("something is loaded", LIMIT, |status| status["account"]["applied"].as_u64() > Some(50)).await;
    switch.cut();
    shop.go_on();
    let before = log_beyond(&world.lake, 0).await;
    let released_before = released(&servers, "dataflow-away-shop");
    let mut now = before;
    while now < before + AWAY_EPOCHS || shop.sold() < 1_200 {
        now = log_beyond(&world.lake, now).await;
    }
    let begun = Instant::now();
    while released(&servers, "dataflow-away-shop") <= released_before {
        assert!(begun.elapsed() < LIMIT, "the group's offsets stand still while the warehouse is away");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (expected, records) = shop.close();
    assert!(expected.tables["orders"].added_column.is_some());
    // What is sealed once the warehouse is back is loaded by itself: a slow reader would make many loads of it.
    process.wait_for("all is read", LIMIT, |status| status["account"]["read"] == records).await;
    let transactions = applied(&process.page("/metrics").await.unwrap());
    switch.mend();
    process
        .wait_for("all is loaded", LIMIT, |status| {
            let groups = status["groups"].as_array().unwrap();
            status["account"]["read"] == records && groups.iter().all(|g| g["warehouse_epoch"] == status["epoch"])
        })
        .await;
    let catch_up = applied(&process.page("/metrics").await.unwrap()) - transactions;
    process.stop().await;
    world.oracle.assert(&world.judge(&expected, records).await);
    // Four groups, each with one fold over everything (and perhaps one over what was sealed last).
    assert!(catch_up <= 12, "{catch_up} transactions for {AWAY_EPOCHS} epochs of 4 groups");
}
