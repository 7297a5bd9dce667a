//! Tables that change, and many of them.

use sqlx::Executor;

use super::World;
use crate::support::process::{LIMIT, available, table};

/// GIVEN a table whose columns come, widen and change their type, THEN columns are added and replaced by wider ones; rows of
/// another type wait in quarantine, and the others go on.
#[tokio::test(flavor = "multi_thread")]
async fn columns_come_widen_and_change() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new("CREATE TABLE items (id int PRIMARY KEY, n int, t varchar(5))").await;
    let launch = world.launch("{ items: { from: public.items } }");
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
    launch.assert_equal();
    // Wider, which Redshift does not do in place.
    world.run("ALTER TABLE items ALTER n TYPE bigint; INSERT INTO items VALUES (4, 5000000000, 'four', 4)").await;
    launch.run_until_caught_up().await;
    launch.assert_equal();
    // Another type altogether: refused, and the table goes on.
    world
        .run("ALTER TABLE items ALTER n TYPE text; INSERT INTO items VALUES (5, 'five', 'five', 5), (6, '6', 'six', 6)")
        .await;
    launch.run_until_caught_up().await;
    let status = launch.status();
    let items = table(&status, "items");
    assert!(items["state"] == "running" && items["rejects_open"].as_u64() > Some(0), "{items}");
    assert_eq!(
        world.held("SELECT CAST(id AS text) FROM items WHERE id < 5 ORDER BY items.id").await,
        ["1", "2", "3", "4"]
    );
}

/// GIVEN two hundred tables, for one of which Redshift refuses the DDL that it needs, THEN that one is parked with what to
/// do, and the others go on; once it is mended its changes arrive.
#[tokio::test(flavor = "multi_thread")]
async fn one_table_whose_ddl_is_refused_is_parked_while_the_others_go_on() {
    if !available("postgres") {
        return;
    }
    const TABLES: usize = 200;
    let names: Vec<String> = (0..TABLES).map(|n| format!("t{n:03}")).collect();
    let setup: String = names
        .iter()
        .map(|name| format!("CREATE TABLE {name} (id int PRIMARY KEY, v text); INSERT INTO {name} VALUES (1, 'one'); "))
        .collect();
    let mut world = World::new(&setup).await;
    // A longer text than the column takes, which has a default: Redshift lengthens no such column.
    let refused = "CREATE SCHEMA shop; CREATE TABLE shop.t007 (id int NOT NULL, v varchar(3) DEFAULT 'x', _seq varchar(48), \
         _synced_at timestamp)";
    world.warehouse().await.execute(refused).await.unwrap();
    let tables: Vec<String> = names.iter().map(|name| format!("  {name}: {{ from: public.{name} }}")).collect();
    let launch = world.launch(&format!("\n{}", tables.join("\n")));
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
    let change =
        |value: &str| -> String { names.iter().map(|name| format!("UPDATE {name} SET v = '{value}'; ")).collect() };
    world.run(&change("two")).await;
    let union = |names: &[String]| {
        names.iter().map(|name| format!("SELECT v FROM {name}")).collect::<Vec<_>>().join(" UNION ALL ")
    };
    let others: Vec<String> = names.iter().filter(|name| *name != "t007").cloned().collect();
    let count = format!("SELECT CAST(count(*) AS text) FROM ({}) AS a WHERE v = 'two'", union(&others));
    process.wait_for("the second round", LIMIT, |status| status["account"]["applied"] == 2 * (TABLES as u64 - 1)).await;
    assert_eq!(world.held(&count).await, [(TABLES - 1).to_string()]);
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
    assert_eq!(world.held("SELECT v FROM t007").await, ["two"]);
    process.stop().await;
}
