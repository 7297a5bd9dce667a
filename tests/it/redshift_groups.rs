//! Groups, views and layouts of Redshift, against the emulator.

use std::path::Path;

use redshift_sim::{Fault, Kind, Rule};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection};
use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::exactly_once::world::{EPOCHS, Stock, TABLES, busy_shop};
use crate::regroup::{Arrivals, moves, only_ingest};
use crate::support::cluster::Cluster;
use crate::support::oracle::Oracle;
use crate::support::process::{LIMIT, Launch, available, table};
use crate::support::s3::{ACCESS_KEY, SECRET_KEY};

/// Files → a lake on S3 → the cluster.
fn topology(cluster: &Cluster, tables: &str) -> String {
    let (lake, warehouse) = (cluster.lake(), cluster.warehouse());
    format!(
        "version: 1\nname: shop\nsources: {{ shop: {{ kind: file, path: events, follow: false }} }}\n{tables}\n\
         lake: {{ url: \"{}\", region: eu-west-3, endpoint: \"{}\", access_key_id: {ACCESS_KEY}, \
         secret_access_key: {SECRET_KEY}, raw: {{ keep: none }}, quarantine: {{ key: \"{}\", retention: 30d }} }}\n\
         warehouse: {{ kind: redshift, url: \"{}\", schema: shop, iam_role: \"{}\" }}\nfresh_within: 250ms\n{EPOCHS}",
        lake.url,
        cluster.s3.endpoint,
        "5a".repeat(32),
        warehouse.url,
        warehouse.iam_role,
    )
}

/// GIVEN the same as in [`crate::regroup`], with the groups' own control tables.
#[tokio::test(flavor = "multi_thread")]
async fn tables_move_between_groups_without_loss_or_double() {
    if !available("postgres") {
        return;
    }
    let cluster = Cluster::start().await;
    let oracle = Oracle::postgres(&cluster.postgres_url, "shop");
    moves(171, &|tables| topology(&cluster, tables), |_| oracle).await;
}

/// A new row in each of these tables, as one file.
fn write(folder: &Path, round: usize, tables: impl Iterator<Item = usize>) {
    let line = |(number, table): (usize, usize)| {
        let lsn = round * 1000 + number;
        let at = 1_780_000_000_000u64 + lsn as u64;
        let source = json!({
            "version": "3.0.0", "connector": "postgresql", "name": "shop", "ts_ms": at, "snapshot": "false",
            "db": "shop", "schema": "public", "table": format!("t{table:02}"), "txId": lsn, "lsn": lsn
        });
        json!({ "op": "c", "before": null, "after": { "id": round }, "source": source, "ts_ms": at }).to_string()
    };
    let events = folder.join("events");
    std::fs::create_dir_all(&events).unwrap();
    let text: Vec<String> = tables.enumerate().map(line).collect();
    std::fs::write(events.join(format!("{round:03}.jsonl")), text.join("\n") + "\n").unwrap();
}

fn many(range: std::ops::Range<usize>, slow: usize) -> String {
    let table = |n: usize| {
        let pace = if n % 5 == slow { ", fresh_within: 1h" } else { "" };
        format!("  t{n:02}: {{ from: shop.public.t{n:02}, key: []{pace} }}\n")
    };
    format!("tables:\n{}", range.map(table).collect::<String>())
}

/// GIVEN tables without a key in no group, so that whatever is loaded twice shows, WHEN tables are added, some removed, some
/// get another pace, and half of the changes wait in the lake at each of these moments, THEN each has every row once; and
/// `bi.freshness` knows all of them.
#[tokio::test(flavor = "multi_thread")]
async fn default_groups_change_with_the_tables() {
    if !available("postgres") {
        return;
    }
    let cluster = Cluster::start().await;
    let folder = tempfile::tempdir().unwrap();
    // Range of tables, and which of them may wait.
    let topologies = [(0..18, 9), (0..32, 9), (5..32, 9), (0..32, 2)];
    let mut expected = [0i64; 32];
    let mut groups = Vec::new();
    let mut round = 0;
    for (number, (range, slow)) in topologies.into_iter().enumerate() {
        let launch =
            Launch::named(folder.path(), &format!("n{number}"), &topology(&cluster, &many(range.clone(), slow)));
        for ingest_only in [false, true] {
            round += 1;
            write(folder.path(), round, range.clone());
            range.clone().for_each(|n| expected[n] += 1);
            if ingest_only { only_ingest(&launch).await } else { launch.run_until_caught_up().await }
        }
        let status = launch.status();
        let names: std::collections::BTreeSet<String> =
            range.map(|n| table(&status, &format!("t{n:02}"))["group"].to_string()).collect();
        groups.push(names.len());
    }
    let last = Launch::named(folder.path(), "last", &topology(&cluster, &many(0..32, 2)));
    last.run_until_caught_up().await;
    assert!(groups[0] == 1 && groups[1..].iter().all(|count| (2..=6).contains(count)), "{groups:?}");
    let mut found = [0i64; 32];
    let mut connection = sqlx::PgConnection::connect(&cluster.postgres_url).await.unwrap();
    for (n, found) in found.iter_mut().enumerate() {
        let count = format!("SELECT count(*) FROM shop.t{n:02}");
        *found = sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(&mut connection).await.unwrap();
    }
    assert_eq!(found, expected);
    assert_eq!(last.status()["account"]["imbalance"], Value::Null);
    let fresh = ask(&cluster, "SELECT table_name, changes, committed_at FROM bi.freshness ORDER BY table_name").await;
    let changes: Vec<i64> = fresh.iter().map(|row| row[1].as_deref().unwrap().parse().unwrap()).collect();
    assert_eq!(changes, expected);
    assert!(fresh.iter().all(|row| row[2].as_deref().unwrap().starts_with("2026-")), "{fresh:?}");
}

/// What a tool's query gives.
async fn ask(cluster: &Cluster, query: &str) -> Vec<Vec<Option<String>>> {
    let (client, connection) = tokio_postgres::connect(&cluster.sim.url(), NoTls).await.unwrap();
    let driver = tokio::spawn(connection);
    let messages = client.simple_query(query).await.unwrap_or_else(|error| panic!("{query}: {error:?}"));
    driver.abort();
    let cells = |message: SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()),
        _ => None,
    };
    messages.into_iter().filter_map(cells).collect()
}

/// As Power BI asks in DirectQuery: sub-select in sub-select, with names in quotes.
fn nested(top: &str, limit: &str) -> String {
    format!(
        r#"select {top}"_"."customer_id", "_"."a0" from (select "rows"."customer_id" as "customer_id", sum("rows"."one") as "a0"
           from (select "_"."id" as "id", "_"."customer_id" as "customer_id", 1 as "one" from
           (select "id", "customer_id", "amount" from "bi"."orders" "$Table") "_" where "_"."id" >= 1) "rows"
           group by "customer_id") "_" where not "_"."a0" is null{limit}"#
    )
}

fn sum(rows: &[Vec<Option<String>>]) -> i64 {
    rows.iter().map(|row| row[1].as_deref().unwrap().parse::<i64>().unwrap()).sum()
}

/// GIVEN views for people, WHEN a load stands still in the middle of its transaction, THEN they answer nested queries with TOP
/// and LIMIT, of what was there before.
#[tokio::test(flavor = "multi_thread")]
async fn views_answer_nested_queries_while_a_load_runs() {
    if !available("postgres") {
        return;
    }
    let cluster = Cluster::start().await;
    let folder = tempfile::tempdir().unwrap();
    let stock = Stock::make(172, busy_shop(600), 600);
    let mut arrivals = Arrivals::of(&stock, folder.path(), 2);
    let soft = TABLES.replace("customers, key: [id] }", "customers, key: [id], deletes: soft }");
    let launch = Launch::new(folder.path(), &topology(&cluster, &soft));
    arrivals.next();
    launch.run_until_caught_up().await;
    let status = launch.status();
    let orders = table(&status, "orders")["rows"].as_i64().unwrap();
    arrivals.next();
    cluster.sim.reset_counters();
    cluster.sim.fail(Rule::new(Fault::Silence).on(Kind::Delete).containing("shop"));
    let mut process = launch.run();
    let begun = std::time::Instant::now();
    while cluster.sim.counters().injected == 0 {
        assert!(begun.elapsed() < LIMIT && !process.has_ended(), "{}", process.log_tail());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    for query in [nested("", " limit 1000001"), nested("top 1000001 ", "")] {
        assert_eq!(sum(&ask(&cluster, &query).await), orders, "{query}");
    }
    let shown = ask(&cluster, r#"select * from (select * from "bi"."customers" "$Table") "_" limit 1000001"#).await;
    assert_eq!(Some(shown.len() as i64), table(&status, "customers")["rows"].as_i64());
    let technical = |row: &Vec<Option<String>>| row.len() == shown[0].len();
    assert!(
        shown.iter().all(technical) && !ask_columns(&cluster, "customers").await.iter().any(|c| c.starts_with('_'))
    );
    let fresh =
        r#"select max("_"."lag_seconds") from (select "table_name", "lag_seconds" from "bi"."freshness" "$Table") "_""#;
    assert!(ask(&cluster, fresh).await[0][0].is_some());
    process.kill();
}

/// The names of a view's columns.
async fn ask_columns(cluster: &Cluster, view: &str) -> Vec<String> {
    let (client, connection) = tokio_postgres::connect(&cluster.sim.url(), NoTls).await.unwrap();
    let driver = tokio::spawn(connection);
    let messages = client.simple_query(&format!("select * from bi.{view} limit 1")).await.unwrap();
    driver.abort();
    let names = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => Some(row.columns().iter().map(|c| c.name().to_owned()).collect()),
        _ => None,
    };
    messages.iter().find_map(names).unwrap_or_default()
}

/// GIVEN a table with a distribution and a sort key in the topology, THEN it is made with them, its merges are bound to the
/// keys that a load brings, and another layout later is said and not done.
#[tokio::test(flavor = "multi_thread")]
async fn tables_are_made_as_the_topology_lays_them_out() {
    if !available("postgres") {
        return;
    }
    let cluster = Cluster::start().await;
    let folder = tempfile::tempdir().unwrap();
    let stock = Stock::make(173, busy_shop(400), 400);
    let mut arrivals = Arrivals::of(&stock, folder.path(), 2);
    let laid_out = |layout: &str| TABLES.replace("products, key: [id] }", &format!("products, key: [id], {layout} }}"));
    let launch = Launch::new(folder.path(), &topology(&cluster, &laid_out("distribution: { key: id }, sort: [id]")));
    arrivals.next();
    launch.run_until_caught_up().await;
    let lies = r#"SELECT diststyle, sortkey1, sortkey_num FROM svv_table_info WHERE "schema" = 'shop' AND "table" = 'products'"#;
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(ask(&cluster, lies).await, [[text("KEY(id)"), text("id"), text("1")]]);
    let history = cluster.sim.history();
    let merges =
        |statement: &&String| statement.to_lowercase().contains("delete from") && statement.contains("products");
    assert!(history.iter().filter(merges).any(|s| s.to_lowercase().contains("between")), "{history:?}");
    arrivals.next();
    let other = Launch::named(folder.path(), "other", &topology(&cluster, &laid_out("distribution: all, sort: [id]")));
    other.run_until_caught_up().await;
    assert_eq!(ask(&cluster, lies).await, [[text("KEY(id)"), text("id"), text("1")]]);
    let log = other.whole_log();
    assert!(log.contains("is not changed; to do it: ALTER TABLE") && log.contains("ALTER DISTSTYLE ALL"), "{log}");
    let oracle = Oracle::postgres(&cluster.postgres_url, "shop");
    oracle.assert(&oracle.differences(&stock.expected).await);
    let plan = other.other(&["plan"], &[]);
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(
        plan.contains("DISTSTYLE ALL COMPOUND SORTKEY (\"id\")") && plan.contains("CREATE OR REPLACE VIEW"),
        "{plan}"
    );
}
