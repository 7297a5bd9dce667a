//! `dataflow verify` on MySQL and MariaDB.

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{ITEMS, World, families, items, write_until};
use crate::support::process::{LIMIT, table};

fn kinds(report: &Value) -> Vec<String> {
    let differences = table(report, "items")["differences"].as_array().cloned().unwrap_or_default();
    let mut kinds: Vec<String> = differences
        .iter()
        .map(|d| format!("{} {}", d["kind"].as_str().unwrap(), d["key"]["id"].as_str().unwrap()))
        .collect();
    kinds.sort();
    kinds
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_by_hand_is_found_also_when_nothing_runs() {
    for family in families() {
        let setup = format!("{}; CREATE TABLE other (n int)", items(100));
        let mut world = World::new(family, &setup).await;
        let launch = world.launch(ITEMS, "");
        launch.run_until_caught_up().await;
        launch.assert_equal();
        world.run("UPDATE items SET n = 7 WHERE id = 70; DELETE FROM items WHERE id = 71").await;
        launch.run_until_caught_up().await;
        launch.assert_equal();
        world.spoil("UPDATE items SET n = 8 WHERE id = 70").await;
        world.spoil("DELETE FROM items WHERE id = 72").await;
        world.spoil("INSERT INTO items (id, n) VALUES (1000, 1)").await;
        // What others write moves the log on, but changes nothing of the table.
        world.run("INSERT INTO other VALUES (1), (2)").await;
        let (code, report) = launch.verify(&["--timeout", "30s"]);
        let expected = ["different 70", "extra 1000", "missing 72"];
        assert_eq!((code, kinds(&report)), (1, expected.map(str::to_owned).to_vec()), "{family:?} {report:#}");
        world.run("UPDATE items SET n = 9 WHERE id = 73").await;
        let (code, report) = launch.verify(&["--timeout", "500ms"]);
        let why = table(&report, "items")["why"].as_str().unwrap_or_default().to_owned();
        assert!(code == 1 && why.contains("may have changed in between"), "{family:?} {report:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_both_sides_are_live_it_says_equal() {
    for family in families() {
        let world = World::new(family, &items(5000)).await;
        let launch = world.launch(ITEMS, "");
        let mut process = launch.run();
        process.wait_for("rows", LIMIT, |s| table(s, "items")["warehouse_epoch"].as_u64().unwrap_or(0) > 0).await;
        let stop = CancellationToken::new();
        let writer = tokio::spawn(write_until(world.connect().await, stop.clone()));
        for _turn in 0..3 {
            let (code, report) = launch.verify(&[]);
            assert_eq!(code, 0, "{family:?} {report:#}\n{}", process.log_tail());
        }
        world.spoil("INSERT INTO items (id, n, _seq) VALUES (90000, 1, '0')").await;
        let (code, report) = launch.verify(&[]);
        assert_eq!((code, kinds(&report)), (1, vec!["extra 90000".to_owned()]), "{family:?} {report:#}");
        stop.cancel();
        writer.await.unwrap();
        process.stop().await;
    }
}
