//! The lake outlives its warehouse: loaded again into a second schema, and read anew by other rules, before and after its
//! closed hours were compacted and its raw records moved to the archive.

use std::path::Path;

use chrono::{TimeDelta, Utc};
use dataflow::config;
use dataflow::lake::{Access, Lake, Log, NoOutsiders, retire_as_of, sweep_as_of};
use serde_json::Value;

use super::oracle::{Rows, assert_rows, rows};
use super::rows::{ITEMS, SETUP, changes};
use super::world::{By, World};
use crate::support::process::Launch;

/// Everything that a schema of the cluster holds of a table, but for the time of loading.
async fn everything(world: &World, schema: &str, table: &str) -> Rows {
    let mut connection = world.warehouse().await;
    let columns = format!(
        "SELECT column_name::text FROM information_schema.columns WHERE table_schema = '{schema}' AND table_name = '{table}' \
         AND column_name <> '_synced_at'"
    );
    let columns: Vec<String> = rows(&mut connection, &columns)
        .await
        .into_iter()
        .map(|row| format!("\"{}\"::text", row[0].clone().unwrap()))
        .collect();
    assert!(columns.len() > 3, "{schema}.{table}: {columns:?}");
    rows(&mut connection, &format!("SELECT {} FROM {schema}.{table}", columns.join(", "))).await
}

/// What people see: the views of a schema, as they were made.
async fn shown(world: &World, views: &str) -> Vec<String> {
    world.held(&format!("SELECT sql FROM sim.late_views WHERE schema = '{views}' ORDER BY name")).await
}

/// What a command that must succeed says as JSON.
fn done(launch: &Launch, words: &[&str], more: &[&str]) -> Value {
    let output = launch.other(words, &[more, &["--json"]].concat());
    assert!(output.status.success(), "{words:?} {more:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn files_below(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let count = |path: &Path| if path.is_dir() { files_below(path) } else { 1 };
    entries.map(|entry| count(&entry.unwrap().path())).sum()
}

/// What a lake does with its files as time goes by: closed hours are compacted, the originals deleted, raw files archived.
async fn grow_old(world: &World, launch: &Launch, raw: Option<config::Raw>) {
    let tomorrow = (Utc::now() + TimeDelta::days(1)).to_rfc3339();
    let compacted = done(launch, &["compact"], &["--as-of", &tomorrow]);
    assert!(compacted["files_before"].as_u64() > compacted["files_after"].as_u64(), "{compacted}");
    let archives = raw.is_some();
    let lake = Lake::open(&config::Lake { raw, ..world.cluster.lake() }).unwrap();
    let log = Log::open(lake, &world.name, Access::Write).await.unwrap();
    let later = Utc::now() + TimeDelta::days(3);
    let retired = retire_as_of(&log, &NoOutsiders, later).await.unwrap();
    assert_eq!(Some(retired.files), compacted["files_before"].as_u64());
    let swept = sweep_as_of(&log, later).await.unwrap();
    assert_eq!((swept.unnamed.len(), swept.archived_raw.is_empty()), (0, !archives));
    let folder = world.cluster.s3.folder().join("lake");
    assert_eq!((files_below(&folder.join("processed")), files_below(&folder.join("raw"))), (0, 0));
}

/// GIVEN a lake of rows that changed, moved, went and were all taken away, WHEN it is loaded again into a second schema, and
/// into a third after it was compacted, THEN all schemas hold the same, the views show the first, and that goes on.
pub async fn loaded_again(by: By) {
    let Some(mut world) = World::new(by, SETUP).await else { return };
    let launch = world.launch(ITEMS);
    launch.run_until_caught_up().await;
    for n in 1..=4 {
        if n == 3 {
            world.run("TRUNCATE items; INSERT INTO items VALUES (1, 1, 'again', 'x')").await;
        }
        world.run(&changes(n)).await;
        launch.run_until_caught_up().await;
    }
    world.assert_same(&launch, ITEMS).await;
    let (first, views) = (everything(&world, "shop", "items").await, shown(&world, "bi").await);
    assert!(views.iter().any(|view| view.contains("\"shop\" . \"items\"")), "{views:?}");
    let again =
        |schema: &str| done(&launch, &["replay"], &["--from", "1", "--set", &format!("warehouse.schema={schema}")]);
    let report = again("second");
    assert!(report["applied"].as_u64() >= Some(first.len() as u64), "{report}");
    assert_rows("second", &everything(&world, "second", "items").await, &first, || report.to_string());
    grow_old(&world, &launch, None).await;
    let report = again("third");
    assert_rows("third", &everything(&world, "third", "items").await, &first, || report.to_string());
    assert_eq!(shown(&world, "bi").await, views);
    world.run(&changes(5)).await;
    launch.run_until_caught_up().await;
    world.assert_same(&launch, ITEMS).await;
}

const SALES: &str = "CREATE TABLE sales (id int PRIMARY KEY, region text, amount int, note text); INSERT INTO sales SELECT n, \
    CASE WHEN n % 3 = 0 THEN 'north' ELSE 'south' END, n, 'old' FROM generate_series(1, 60) n";

/// A round of sales: every seventh is of an amount that the old rule refuses.
fn sales(n: i32) -> String {
    let at = 100 * n;
    format!(
        "INSERT INTO sales SELECT n, CASE WHEN n % 3 = 0 THEN 'north' ELSE 'south' END, \
         CASE WHEN n % 7 = 0 THEN -n ELSE n END, 'new' FROM generate_series({at}, {at} + 29) n; \
         UPDATE sales SET amount = amount + 1, note = 'changed' WHERE amount >= 0 AND id % 4 = {n} % 4; \
         UPDATE sales SET id = id + 50 WHERE id BETWEEN {at} AND {at} + 3; DELETE FROM sales WHERE id BETWEEN {at} + 8 AND {at} + 12"
    )
}

const OLD_RULES: &str = ", operators: [{ validate: { name: positive, rule: \"amount >= 0\" } }]";
const NEW_RULES: &str =
    ", operators: [{ compute: { twice: \"amount * 2\" } }, { filter: { name: south, keep: \"region <> 'north'\" } }]";

/// GIVEN a lake that keeps what was read, WHEN it is read anew by rules of another day into a second lake and schema, and into
/// a third after it grew old, THEN these hold what the new rules make of the source, the difference is what the rules say,
/// and both go on at the source: of a database's slot, one of them.
pub async fn built_anew(by: By) {
    let Some(mut world) = World::new(by, SALES).await else { return };
    let keeping = "raw: { keep: plain, archive_after: 2d, retention: 7d }";
    let topology = |name: &str, rules: &str, lake: &str, schema: &str| {
        let text = world.topology(name, &[("sales", rules)]).replace("raw: { keep: none }", keeping);
        let text = text.replace("s3://lake/lake\"", &format!("s3://lake/{lake}\""));
        let text = text.replace(&format!("slot: {name},"), &format!("slot: {},", world.name));
        text.replace("schema: shop", &format!("schema: {schema}, views: bi_{schema}"))
    };
    let old = Launch::new(world.path(), &topology(&world.name, OLD_RULES, "lake", "shop"));
    let name = format!("{}_anew", world.name);
    let second = Launch::named(world.path(), "second", &topology(&name, NEW_RULES, "second", "second"));
    let third = Launch::named(world.path(), "third", &topology(&name, NEW_RULES, "third", "third"));
    old.run_until_caught_up().await;
    for n in 1..=3 {
        world.run(&sales(n)).await;
        old.run_until_caught_up().await;
    }
    assert_as_the_rules_say(&mut world, &old, &[]).await;
    let before = everything(&world, "shop", "sales").await;
    let report = done(&second, &["reprocess"], &["--from-lake", "s3://lake/lake"]);
    assert_as_the_rules_say(&mut world, &old, &[(&second, "second")]).await;
    let days = |n: u64| Some(config::Span::seconds(n * 24 * 3600));
    let raw = config::Raw { keep: config::RawKeep::Plain, retention: days(7), archive_after: days(2), key: None };
    grow_old(&world, &old, Some(raw)).await;
    let again = done(&third, &["reprocess"], &["--from-lake", "s3://lake/lake"]);
    assert_eq!(report["read"], again["read"]);
    let second_rows = everything(&world, "second", "sales").await;
    assert_rows("third", &everything(&world, "third", "sales").await, &second_rows, || again.to_string());
    assert_rows("shop", &everything(&world, "shop", "sales").await, &before, || "it was only read".to_owned());
    assert_eq!(shown(&world, "bi_second").await, Vec::<String>::new(), "before it runs, nobody is to see it");
    world.run(&sales(4)).await;
    if by == By::Kafka {
        for launch in [&old, &second] {
            launch.run_until_caught_up().await;
        }
        assert_as_the_rules_say(&mut world, &old, &[(&second, "second")]).await;
    }
    third.run_until_caught_up().await;
    assert_anew(&mut world, &third, "third").await;
    assert!(shown(&world, "bi_third").await.iter().any(|view| view.contains("twice")));
}

/// The first schema holds the source's rows of the amounts that the old rule lets pass, and the others wait; those of the new
/// rules hold the others too, without the north, and a column more.
async fn assert_as_the_rules_say(world: &mut World, old: &Launch, anew: &[(&Launch, &str)]) {
    let negative = rows(&mut world.source, "SELECT id::text FROM sales WHERE amount < 0").await.len();
    assert!(negative > 3, "{negative}");
    world.assert_same_where(old, "sales", "amount >= 0").await;
    let waiting = world.waiting(old);
    let [all, _] = world.both_sides("sales", "shop", "amount < 0").await;
    let ids = all.iter().map(|row| row[0].clone().unwrap());
    let waits = |id: &String| {
        waiting
            .iter()
            .any(|(waits, why)| waits.is_some_and(|waits| waits.to_string() == *id) && why.contains("amount >= 0"))
    };
    let missing: Vec<String> = ids.filter(|id| !waits(id)).collect();
    assert!(missing.is_empty(), "{missing:?} do not wait: {waiting:?}");
    for (launch, schema) in anew {
        assert_anew(world, launch, schema).await;
    }
}

async fn assert_anew(world: &mut World, launch: &Launch, schema: &str) {
    let expected = "SELECT id::text, region, amount::text, note, (amount * 2)::text FROM sales WHERE region <> 'north'";
    let expected = rows(&mut world.source, expected).await;
    let held = format!("SELECT id::text, region, amount::text, note, twice::text FROM {schema}.sales");
    let held = rows(&mut world.warehouse().await, &held).await;
    assert_rows(schema, &held, &expected, || launch.whole_log());
    assert!(world.waiting(launch).is_empty(), "{schema}");
}
