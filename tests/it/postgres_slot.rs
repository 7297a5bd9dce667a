//! The slot of a PostgreSQL source: what is acknowledged, what the server keeps, and who is told.

use std::path::Path;

use serde_json::Value;

use crate::postgres_source::{ITEMS, World};
use crate::support::postgres::{Server, Version};
use crate::support::process::{LIMIT, available};

const TABLE: &str = "CREATE TABLE items (id int PRIMARY KEY, n int, t text); INSERT INTO items VALUES (0, 0, ''); \
                     CREATE TABLE busy (t text)";

fn problem<'a>(status: &'a Value, what: &str) -> Option<&'a Value> {
    status["problems"].as_array()?.iter().find(|problem| problem["what"].as_str().is_some_and(|w| w.starts_with(what)))
}

/// The place that the newest manifest of the lake gives.
fn committed(folder: &Path) -> String {
    let manifests = std::fs::read_dir(folder.join("lake/_log")).unwrap();
    let number = |path: &Path| path.file_stem()?.to_str()?.parse::<u64>().ok();
    let newest =
        manifests.filter_map(|entry| Some(entry.ok()?.path())).filter_map(|path| Some((number(&path)?, path))).max();
    let text = std::fs::read_to_string(newest.unwrap().1).unwrap();
    let at = text.rfind("\\\"lsn\\\":\\\"").unwrap_or_else(|| panic!("{text}")) + 10;
    text[at..].split('\\').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_that_the_lake_does_not_hold() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new(TABLE).await;
    let slot = world.url.rsplit('/').next().unwrap().to_owned();
    let launch = world.launch(ITEMS, ", heartbeat: 1s");
    launch.run_until_caught_up().await;
    world.until_idle(&slot).await;
    // The lake takes nothing: every put of a manifest fails.
    let mut process = launch.clone().failpoints("log.put.before=return(error)").run();
    process.wait_for("a status", LIMIT, |status| status["ready"] == true).await;
    let held = committed(world.path());
    for round in 0..5 {
        world
            .run(&format!(
                "INSERT INTO items SELECT n, {round}, 'x' FROM generate_series({0}, {0} + 999) n",
                round * 1000 + 1
            ))
            .await;
        world.run("INSERT INTO busy SELECT repeat('y', 1000) FROM generate_series(1, 1000)").await;
    }
    // It has read all of it and tries to commit.
    process.wait_for("attempts", LIMIT, |status| problem(status, "the commit of epochs").is_some()).await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let query = format!(
        "SELECT CAST(confirmed_flush_lsn <= '{held}' AS text), CAST(pg_current_wal_lsn() > '{held}' AS text) \
         FROM pg_replication_slots WHERE slot_name = '{slot}'"
    );
    assert_eq!(world.there(&query).await, ["true|true"], "acknowledged beyond {held}");
    process.kill();
    launch.run_until_caught_up().await;
    assert_eq!(world.held("SELECT CAST(count(*) AS text) FROM items").await, ["5001"]);
    launch.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_runs_out_is_said_before_it_is_lost_and_halts_after() {
    if !available("postgres") {
        return;
    }
    let server =
        Server::start(Version::Debian, &["max_slot_wal_keep_size=64MB", "max_wal_size=32MB", "min_wal_size=32MB"]);
    let mut world = World::at(server.database().await, TABLE).await;
    let launch = world.launch(ITEMS, ", heartbeat: 1s");
    launch.run_until_caught_up().await;
    let mut process = launch.clone().failpoints("log.put.before=return(error)").run();
    let room = |status: &Value| status["sources"][0]["slot"]["safe_bytes"].as_i64();
    let seen = process
        .wait_for("the slot to be seen", LIMIT, |status| status["ready"] == true && room(status).is_some())
        .await;
    assert_eq!(seen["sources"][0]["slot"]["wal_status"], "reserved", "{seen}");
    world.run("INSERT INTO items VALUES (1, 1, 'x')").await;
    // A turn for each look at the slot, so that it never runs out before somebody looks. An alert may go once more: the
    // server moves the slot on by what the lake held before, and that can be a file of the log.
    let (mut left, mut turns) = (room(&seen), 0);
    let status = loop {
        world.run("INSERT INTO busy SELECT repeat('y', 1000) FROM generate_series(1, 1000)").await;
        let status = process.wait_for("another look at the slot", LIMIT, |status| room(status) != left).await;
        left = room(&status);
        let metrics = process.page("/metrics").await.unwrap();
        let counted = metrics.contains("dataflow_slot_alert{source=\"shop\"} 1");
        if problem(&status, "slot ").is_some() && counted {
            assert!(metrics.contains("dataflow_slot_runs_out_seconds"), "{metrics}");
            break status;
        }
        turns += 1;
        assert!(turns < 45, "it was about to be lost and nobody said so: {status}\n{metrics}");
    };
    let slot = &status["sources"][0]["slot"];
    assert!(slot["alert"].is_string() && status["ready"] == true && status["healthy"] == true, "{status}");
    let shown = launch.status();
    assert_eq!(shown["slots"][0]["slot"]["name"], slot["name"], "{shown}");
    process.kill();
    // Nobody reads it any more, and the server goes on.
    for _ in 0..6 {
        world
            .run("INSERT INTO busy SELECT repeat('y', 1000) FROM generate_series(1, 20000); SELECT pg_switch_wal()")
            .await;
        world.run("CHECKPOINT").await;
    }
    assert_eq!(world.there("SELECT wal_status FROM pg_replication_slots").await, ["lost"]);
    let mut process = launch.run();
    assert!(!process.exit(LIMIT).await.success());
    assert!(process.log().contains("no longer has what must come next"), "{}", process.log_tail());
    assert!(launch.status()["slots"][0]["slot"]["alert"].is_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_is_made_one_that_standbys_keep_ready() {
    if !available(Version::Newest.component()) {
        return;
    }
    let server = Server::start(Version::Newest, &[]);
    let mut world = World::at(server.database().await, TABLE).await;
    let launch = world.launch(ITEMS, ", heartbeat: 1s");
    launch.run_until_caught_up().await;
    let query = "SELECT CAST(failover AS text) FROM pg_replication_slots WHERE slot_type = 'logical'";
    assert_eq!(world.there(query).await, ["false"]);
    // Asked for later, it becomes one.
    world.launch(ITEMS, ", heartbeat: 1s, failover: true").run_until_caught_up().await;
    assert_eq!(world.there(query).await, ["true"]);
    let output = launch.other(&["check"], &["--connect"]);
    assert!(output.status.success());
    let old = World::new(TABLE).await;
    let mut process = old.launch(ITEMS, ", failover: true").run();
    assert!(!process.exit(LIMIT).await.success());
    assert!(process.log().contains("needs PostgreSQL 17"), "{}", process.log_tail());
}
