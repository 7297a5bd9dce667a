//! Tables that change, many of them, and more than one process that loads them.

use std::time::Duration;

use redshift_sim::{Isolation, Options};
use sqlx::Executor;

use super::rows::{ITEMS, SETUP, changes};
use super::world::{By, World};
use crate::support::process::{LIMIT, Launch, Running, table};

/// GIVEN a table whose columns come, widen and change their type, THEN columns are added and replaced by wider ones; rows of
/// another type wait in quarantine, and the others go on.
pub async fn columns_come_widen_and_change(by: By) {
    let setup = "CREATE TABLE items (id int PRIMARY KEY, n int, t varchar(5))";
    let Some(mut world) = World::new(by, setup).await else { return };
    let launch = world.launch(ITEMS);
    world.run("INSERT INTO items VALUES (1, 1, 'one')").await;
    launch.run_until_caught_up().await;
    world
        .run(
            "ALTER TABLE items ADD more numeric(8,2); INSERT INTO items VALUES (2, 2, 'two', 2.5); \
             ALTER TABLE items ALTER t TYPE text; INSERT INTO items VALUES (3, 3, repeat('three ', 100), 3); \
             UPDATE items SET more = 1 WHERE id = 1",
        )
        .await;
    launch.run_until_caught_up().await;
    world.assert_same(&launch, ITEMS).await;
    // Wider, which Redshift does not do in place.
    world.run("ALTER TABLE items ALTER n TYPE bigint; INSERT INTO items VALUES (4, 5000000000, 'four', 4)").await;
    launch.run_until_caught_up().await;
    world.assert_same(&launch, ITEMS).await;
    // Another type altogether: refused, and the table goes on.
    world
        .run("ALTER TABLE items ALTER n TYPE text; INSERT INTO items VALUES (5, 'five', 'five', 5), (6, '6', 'six', 6)")
        .await;
    launch.run_until_caught_up().await;
    let status = launch.status();
    let items = table(&status, "items");
    assert!(items["state"] == "running" && items["rejects_open"] == 2, "{items}");
    world.assert_only_these_wait(&launch, "items", &[(5, "n"), (6, "n")]).await;
}

/// GIVEN two hundred tables, for one of which Redshift refuses the DDL that it needs, THEN that one is parked with what to
/// do, and the others go on; once it is mended its changes arrive.
pub async fn one_of_two_hundred_is_refused(by: By) {
    const TABLES: usize = 200;
    let names: Vec<String> = (0..TABLES).map(|n| format!("t{n:03}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let setup: String = names
        .iter()
        .map(|name| format!("CREATE TABLE {name} (id int PRIMARY KEY, v text); INSERT INTO {name} VALUES (1, 'one'); "))
        .collect();
    let Some(mut world) = World::new(by, &setup).await else { return };
    // A longer text than the column takes, which has a default: Redshift lengthens no such column.
    let refused = "CREATE SCHEMA shop; CREATE TABLE shop.t007 (id int NOT NULL, v varchar(3) DEFAULT 'x', _seq varchar(48), \
         _synced_at timestamp)";
    world.warehouse().await.execute(refused).await.unwrap();
    let launch = world.launch(&names);
    let mut process = launch.run();
    let running = |status: &serde_json::Value| {
        status["tables"].as_array().unwrap().iter().filter(|table| table["warehouse_epoch"].as_u64() > Some(0)).count()
    };
    process
        .wait_for("199 tables and one parked", LIMIT, |status| {
            running(status) >= TABLES - 1 && table(status, "t007")["state"] == "parked"
        })
        .await;
    // The others go on.
    let change: String = names.iter().map(|name| format!("UPDATE {name} SET v = 'two'; ")).collect();
    world.run(&change).await;
    process.wait_for("the second round", LIMIT, |status| status["account"]["applied"] == 2 * (TABLES as u64 - 1)).await;
    let others: Vec<&str> = names.iter().filter(|name| **name != "t007").copied().collect();
    for name in others {
        world.assert_same_where(&launch, name, "true").await;
    }
    assert_eq!(world.held("SELECT count(*)::text FROM t007").await, ["0"]);
    let why = table(&process.status().await.unwrap(), "t007")["why"].to_string();
    assert!(why.contains("with a default") && why.contains("dataflow table resume"), "{why}");
    // Mended by hand.
    world
        .warehouse()
        .await
        .execute("ALTER TABLE shop.t007 ALTER v TYPE varchar(65535), ALTER v DROP DEFAULT")
        .await
        .unwrap();
    assert!(launch.other(&["table", "resume"], &["t007"]).status.success());
    process
        .wait_for("the last table", LIMIT, |status| {
            let last = table(status, "t007");
            last["state"] == "running" && last["warehouse_epoch"] == last["log_epoch"]
        })
        .await;
    process.stop().await;
    world.assert_same_where(&launch, "t007", "true").await;
    assert!(world.waiting(&launch).is_empty());
}

/// GIVEN two loaders of one topology beside one process that reads, THEN each epoch of each group is loaded by one of them,
/// and both have their part.
pub async fn a_second_loader(by: By, isolation: Isolation) {
    const TABLES: [&str; 4] = ["a", "b", "c", "d"];
    let of_each = |sql: &str| TABLES.map(|table| sql.replace("items", table)).join("; ");
    let kind = |options| Options { isolation, ..options };
    let Some(mut world) = World::on(by, &of_each(SETUP), kind).await else { return };
    let topology = world.topology(&world.name, &TABLES.map(|table| (table, "")));
    let topology = topology + "groups: { one: [a], two: [b], three: [c], four: [d] }\n";
    let loaders =
        ["first", "second"].map(|name| Launch::named(world.path(), name, &topology).arg("--role").arg("load"));
    let reader = Launch::new(world.path(), &topology);
    let mut running: Vec<Running> = loaders.iter().map(Launch::run).collect();
    let mut committed = [false; 2];
    for n in 1..=40 {
        world.run(&of_each(&changes(n))).await;
        reader.clone().arg("--role").arg("ingest").run_until_caught_up().await;
        for ((process, launch), committed) in running.iter_mut().zip(&loaders).zip(&mut committed) {
            if process.has_ended() {
                *process = launch.run();
            }
            let status = process.status().await.unwrap_or_default();
            let groups = status["groups"].as_array();
            *committed |= groups.is_some_and(|groups| groups.iter().any(|group| group["committed_at"].is_string()));
        }
        if n >= 4 && committed == [true; 2] {
            break;
        }
    }
    assert_eq!(committed, [true; 2], "only one of them loads");
    // Each group has something to load; both loaders want to.
    let begun = std::time::Instant::now();
    loop {
        let status = reader.status();
        let is_loaded = |name: &str| {
            let epoch = |of: &str| table(&status, name)[of].as_u64();
            epoch("epoch_log").is_some() && epoch("epoch_warehouse") >= epoch("epoch_log")
        };
        if TABLES.iter().all(|name| is_loaded(name)) {
            break;
        }
        for (process, launch) in running.iter_mut().zip(&loaders) {
            // One that lost too often in a row has given up, and a supervisor would start it again.
            if process.has_ended() {
                *process = launch.run();
            }
        }
        let [first, second] = [&running[0], &running[1]].map(Running::log_tail);
        assert!(begun.elapsed() < LIMIT, "{status}\n{first}\n{second}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for process in &mut running {
        if !process.has_ended() {
            process.terminate();
            process.exit(LIMIT).await;
        }
    }
    reader.run_until_caught_up().await;
    world.assert_same(&reader, &TABLES).await;
}
