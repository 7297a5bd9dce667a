//! Groups, views and layouts of Redshift, against the emulator.

use std::collections::BTreeMap;
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

/// GIVEN views for people, WHEN a load stands still in the middle of its transaction, rows of a table deleted and not yet there
/// again, THEN they answer nested queries with TOP and LIMIT, of what was there before; and in sessions of every time zone they
/// say the same of how fresh it is.
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
    let before = ask(&cluster, ORDERS).await;
    arrivals.next();
    cluster.sim.reset_counters();
    let target = "\"shop\" . \"orders\"";
    let still =
        cluster.sim.fail(Rule::new(Fault::Silence).on(Kind::Insert).containing(format!("insert into {target}")));
    let mut process = launch.run();
    let begun = std::time::Instant::now();
    while still.times() == 0 {
        assert!(begun.elapsed() < LIMIT && !process.has_ended(), "{}", process.log_tail());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let history = cluster.sim.history();
    assert!(history.iter().any(|sql| sql.starts_with(&format!("delete from {target} "))), "{history:?}");
    assert_eq!(ask(&cluster, ORDERS).await, before);
    for query in [nested("", " limit 1000001"), nested("top 1000001 ", "")] {
        assert_eq!(sum(&ask(&cluster, &query).await), orders, "{query}");
    }
    let shown = ask(&cluster, r#"select * from (select * from "bi"."customers" "$Table") "_" limit 1000001"#).await;
    assert_eq!(Some(shown.len() as i64), table(&status, "customers")["rows"].as_i64());
    let technical = |row: &Vec<Option<String>>| row.len() == shown[0].len();
    assert!(
        shown.iter().all(technical) && !ask_columns(&cluster, "customers").await.iter().any(|c| c.starts_with('_'))
    );
    let lags = [ask_lag(&cluster, "UTC").await, ask_lag(&cluster, "Asia/Tokyo").await, ask_lag(&cluster, "UTC").await];
    assert!(lags.is_sorted(), "{lags:?}");
    process.kill();
    cluster.sim.heal();
    launch.run_until_caught_up().await;
    let after = ask(&cluster, ORDERS).await;
    assert!(before.iter().any(|row| !after.contains(row)), "no row that was there was deleted");
}

// A column comes with the second half, and stands in the views before the rows do.
const ORDERS: &str = "select id, customer_id, region, status, amount from bi.orders order by id";

/// How old the oldest table is, as a session in a time zone sees it, in seconds.
async fn ask_lag(cluster: &Cluster, zone: &str) -> i64 {
    let fresh =
        r#"select max("_"."lag_seconds") from (select "table_name", "lag_seconds" from "bi"."freshness" "$Table") "_""#;
    ask(cluster, &format!("set timezone to '{zone}'; {fresh}")).await[0][0].as_deref().unwrap().parse().unwrap()
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
    let stock = Stock::make(173, busy_shop(1_200), 1_200);
    let mut arrivals = Arrivals::of(&stock, folder.path(), 5);
    let laid_out = |layout: &str| TABLES.replace("products, key: [id] }", &format!("products, key: [id], {layout} }}"));
    let launch = Launch::new(folder.path(), &topology(&cluster, &laid_out("distribution: { key: id }, sort: [id]")));
    arrivals.next();
    launch.run_until_caught_up().await;
    let lies = r#"SELECT diststyle, sortkey1, sortkey_num FROM svv_table_info WHERE "schema" = 'shop' AND "table" = 'products'"#;
    let text = |text: &str| Some(text.to_owned());
    let history = cluster.sim.history();
    let merges =
        |statement: &&String| statement.to_lowercase().contains("delete from") && statement.contains("products");
    assert!(history.iter().filter(merges).any(|s| s.to_lowercase().contains("between")), "{history:?}");
    // Only whom a superuser lets sees how tables lie; the others load all the same.
    arrivals.next();
    launch.run_until_caught_up().await;
    assert!(launch.whole_log().contains("loads go on: GRANT SELECT ON svv_table_info"), "{}", launch.whole_log());
    cluster.sim.grant("svv_table_info");
    arrivals.next();
    let other = Launch::named(folder.path(), "other", &topology(&cluster, &laid_out("distribution: all, sort: [id]")));
    other.run_until_caught_up().await;
    assert_eq!(ask(&cluster, lies).await, [[text("KEY(id)"), text("id"), text("1")]]);
    let said = |launch: &Launch| -> Vec<String> {
        let log = launch.whole_log();
        let said = log.lines().filter_map(|line| line.split("is not changed; to do it: ").nth(1));
        said.filter_map(|rest| Some(rest.split("\",\"table\"").next()?.replace("\\\"", "\""))).collect()
    };
    assert_eq!(said(&other), ["ALTER TABLE \"shop\".\"products\" ALTER DISTSTYLE ALL"]);
    let plan = other.other(&["plan"], &[]);
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(
        plan.contains("DISTSTYLE ALL COMPOUND SORTKEY (\"id\")") && plan.contains("CREATE OR REPLACE VIEW"),
        "{plan}"
    );
    // Only the second column of the sort key is another one: nothing else is said.
    let second = Launch::named(
        folder.path(),
        "second",
        &topology(&cluster, &laid_out("distribution: { key: id }, sort: [id, description]")),
    );
    arrivals.next();
    second.run_until_caught_up().await;
    let alter = "ALTER TABLE \"shop\".\"products\" ALTER COMPOUND SORTKEY (\"id\", \"description\")";
    assert_eq!(said(&second), [alter]);
    let plan = second.other(&["plan"], &[]);
    assert!(String::from_utf8_lossy(&plan.stdout).contains(alter));
    // A person does it, and there is nothing left to say.
    ask(&cluster, alter).await;
    let mended = Launch::named(folder.path(), "mended", &std::fs::read_to_string(second.topology()).unwrap());
    arrivals.next();
    mended.run_until_caught_up().await;
    assert_eq!(said(&mended), [""; 0]);
    let oracle = Oracle::postgres(&cluster.postgres_url, "shop");
    oracle.assert(&oracle.differences(&stock.expected).await);
}

/// The views that stand in schema `bi`, and what they were made from.
async fn shown(cluster: &Cluster) -> BTreeMap<String, String> {
    let views = "SELECT c.relname, d.description FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN pg_description d ON d.objoid = c.oid WHERE n.nspname = 'bi' AND c.relkind = 'v'";
    let rows = ask(cluster, views).await;
    rows.into_iter().map(|row| (row[0].clone().unwrap(), row[1].clone().unwrap_or_default())).collect()
}

/// GIVEN a warehouse that has been loaded, WHEN a view is deleted, made by hand, or lost its schema, and a process starts
/// that has nothing to load, THEN the views are there again; and a start makes none that is there.
#[tokio::test(flavor = "multi_thread")]
async fn views_are_renewed_by_a_start_that_loads_nothing() {
    if !available("postgres") {
        return;
    }
    let cluster = Cluster::start().await;
    let folder = tempfile::tempdir().unwrap();
    let stock = Stock::make(174, busy_shop(400), 400);
    stock.write_files(&folder.path().join("events"), 1);
    let launch = Launch::new(folder.path(), &topology(&cluster, TABLES));
    launch.run_until_caught_up().await;
    let before = shown(&cluster).await;
    let names: Vec<&str> = before.keys().map(String::as_str).filter(|name| !name.starts_with('_')).collect();
    assert_eq!(names, ["customers", "freshness", "order_lines", "orders", "page_views", "products"]);
    let made = || {
        let history = cluster.sim.history();
        history.into_iter().filter(|sql| sql.to_lowercase().contains(" view ")).collect::<Vec<_>>()
    };
    cluster.sim.reset_counters();
    launch.run_until_caught_up().await;
    assert_eq!(made(), [""; 0], "everything was there");
    assert_eq!(cluster.sim.counters().of(Kind::Copy), 0);

    let spoilt = [
        "DROP VIEW bi.orders",
        "DROP VIEW bi.freshness",
        "DROP VIEW bi.products",
        "CREATE VIEW bi.products AS SELECT 1 AS one FROM shop.products WITH NO SCHEMA BINDING",
    ];
    for statement in spoilt {
        ask(&cluster, statement).await;
    }
    cluster.sim.reset_counters();
    launch.run_until_caught_up().await;
    assert_eq!(shown(&cluster).await, before);
    assert!(ask_columns(&cluster, "products").await.contains(&"description".to_owned()));
    assert_eq!(ask(&cluster, "SELECT table_name FROM bi.freshness").await.len(), 5);
    let made: Vec<String> = made().into_iter().filter(|sql| sql.to_lowercase().starts_with("create")).collect();
    // The one with other columns cannot be replaced, and is made anew.
    assert_eq!(made.len(), 4, "{made:#?}");

    ask(&cluster, "DROP SCHEMA bi CASCADE").await;
    launch.run_until_caught_up().await;
    assert_eq!(shown(&cluster).await, before);
    assert_eq!(ask(&cluster, "SELECT table_name FROM bi.freshness").await.len(), 5);
    // Another schema for the views: they are there without a load.
    let elsewhere = topology(&cluster, TABLES).replace("schema: shop,", "schema: shop, views: people,");
    Launch::named(folder.path(), "elsewhere", &elsewhere).run_until_caught_up().await;
    assert!(ask(&cluster, "SELECT count(*) FROM people.orders").await[0][0].is_some());
}

/// A topology of one table, with its events.
fn single(cluster: &Cluster, folder: &Path, name: &str, schema: &str, table: &str) -> Launch {
    let folder = folder.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    write(&folder, 1, [7usize].into_iter());
    let text = topology(cluster, &format!("tables:\n  {table}: {{ from: shop.public.t07, key: [id] }}\n"))
        .replace("name: shop\n", &format!("name: {name}\n"))
        .replace("schema: shop,", &format!("schema: {schema},"))
        .replace("/lake\"", &format!("/{name}\""));
    Launch::new(&folder, &text)
}

/// GIVEN two topologies that show their tables in one schema, THEN `bi.freshness` has those of both, whoever starts last, and
/// also when one is gone; a view of one name is refused to the second, with what to do.
#[tokio::test(flavor = "multi_thread")]
async fn topologies_share_the_schema_of_the_views() {
    if !available("postgres") {
        return;
    }
    let cluster = Cluster::start().await;
    let folder = tempfile::tempdir().unwrap();
    let first = single(&cluster, folder.path(), "first", "one", "items");
    let second = single(&cluster, folder.path(), "second", "two", "parcels");
    let fresh = async || {
        let rows = ask(&cluster, "SELECT topology, table_name FROM bi.freshness ORDER BY 1").await;
        rows.into_iter().map(|row| row.into_iter().flatten().collect::<Vec<_>>().join(".")).collect::<Vec<_>>()
    };
    first.run_until_caught_up().await;
    assert_eq!(fresh().await, ["first.items"]);
    second.run_until_caught_up().await;
    assert_eq!(fresh().await, ["first.items", "second.parcels"]);
    first.run_until_caught_up().await;
    assert_eq!(fresh().await, ["first.items", "second.parcels"]);
    // The same name in another schema of tables: its view is the first one's.
    let third = single(&cluster, folder.path(), "third", "three", "items");
    third.clone().arg("--until-caught-up").run().exit(LIMIT).await;
    let refused = third.clone().arg("--until-caught-up").run().exit(LIMIT).await;
    assert_eq!(refused.code(), Some(2), "{}", third.whole_log());
    let log = third.whole_log();
    assert!(log.contains("bi.items shows a table of topology first") && log.contains("warehouse.views"), "{log}");
    assert_eq!(ask(&cluster, "SELECT count(*) FROM bi.items").await, [[Some("1".to_owned())]]);
    // What a topology that is gone leaves behind does not spoil the others'.
    ask(&cluster, "DROP SCHEMA one CASCADE").await;
    ask(&cluster, "DROP VIEW bi.freshness").await;
    second.run_until_caught_up().await;
    assert!(fresh().await.contains(&"second.parcels".to_owned()));
    assert!(second.whole_log().contains("if that topology is gone: DROP VIEW"), "{}", second.whole_log());
}

/// GIVEN two topologies that load one table of one schema, THEN the second is refused before it has made or changed
/// anything, by a start and by `check --connect`, and the first goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_loaded_by_one_topology() {
    if !available("postgres") {
        return;
    }
    let cluster = Cluster::start().await;
    let folder = tempfile::tempdir().unwrap();
    let first = single(&cluster, folder.path(), "first", "one", "items");
    let second = single(&cluster, folder.path(), "second", "one", "items");
    first.run_until_caught_up().await;
    cluster.sim.reset_counters();
    let refused = second.clone().arg("--until-caught-up").run().exit(LIMIT).await;
    assert_eq!(refused.code(), Some(2), "{}", second.whole_log());
    let what = "table one.items is loaded by topology first";
    assert!(second.whole_log().contains(what), "{}", second.whole_log());
    for kind in [Kind::Create, Kind::Insert, Kind::Delete, Kind::Copy, Kind::Alter] {
        assert_eq!(cluster.sim.counters().of(kind), 0, "{kind:?}");
    }
    let checked = second.other(&["check"], &["--connect"]);
    assert!(String::from_utf8_lossy(&checked.stdout).contains(what), "{}", String::from_utf8_lossy(&checked.stdout));
    first.run_until_caught_up().await;
    // As the message says: what the first has loaded is forgotten.
    let forget = second.whole_log().split("its own lake: ").nth(1).unwrap().split("\n").next().unwrap().to_owned();
    let forget = forget.split("\",\"").next().unwrap().replace("\\\"", "\"");
    ask(&cluster, &forget).await;
    let moved = single(&cluster, folder.path(), "second", "one", "items");
    let views = std::fs::read_to_string(moved.topology()).unwrap().replace("schema: one,", "schema: one, views: bi2,");
    Launch::named(&folder.path().join("second"), "moved", &views).run_until_caught_up().await;
}

/// A row of each of these tables, as one file.
fn write_notes(folder: &Path, round: usize, note: &str) {
    let line = |(number, table): (usize, &str)| {
        let lsn = round * 1000 + number;
        let source = json!({
            "version": "3.0.0", "connector": "postgresql", "name": "shop", "ts_ms": 1_780_000_000_000u64 + lsn as u64,
            "snapshot": "false", "db": "shop", "schema": "public", "table": table, "txId": lsn, "lsn": lsn
        });
        let after = json!({ "id": round, "note": note });
        json!({ "op": "c", "before": null, "after": after, "source": source, "ts_ms": 1_780_000_000_000u64 })
            .to_string()
    };
    let text: Vec<String> = ["fixed", "notes", "stuck"].into_iter().enumerate().map(line).collect();
    std::fs::create_dir_all(folder.join("events")).unwrap();
    std::fs::write(folder.join("events").join(format!("{round:03}.jsonl")), text.join("\n") + "\n").unwrap();
}

/// GIVEN texts that are longer than their written columns, THEN the column is lengthened before the load; where the contract
/// says `widen: false` the row waits in quarantine; a table whose column Redshift does not lengthen is parked alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_is_too_long_lengthens_its_column() {
    if !available("postgres") {
        return;
    }
    let cluster = Cluster::start().await;
    let folder = tempfile::tempdir().unwrap();
    for (table, more) in [("fixed", "widen: false\n"), ("notes", ""), ("stuck", "")] {
        let columns =
            "columns:\n  - { name: id, type: bigint, nullable: false }\n  - { name: note, type: varchar(5) }\n";
        let text = format!("version: 1\n{columns}key: [id]\n{more}");
        std::fs::write(folder.path().join(format!("{table}.yaml")), text).unwrap();
    }
    // Redshift lengthens no column that has a default.
    ask(&cluster, "CREATE SCHEMA shop").await;
    let stuck = "CREATE TABLE shop.stuck (id bigint NOT NULL, note varchar(5) DEFAULT 'x', _seq varchar(48), _synced_at timestamp)";
    ask(&cluster, stuck).await;
    let table_of = |name: &str| format!("  {name}: {{ from: shop.public.{name}, contract: {name}.yaml }}\n");
    let tables: String = ["fixed", "notes", "stuck"].map(table_of).concat();
    let launch = Launch::new(folder.path(), &topology(&cluster, &format!("tables:\n{tables}")));
    write_notes(folder.path(), 1, "short");
    launch.run_until_caught_up().await;
    write_notes(folder.path(), 2, "twenty bytes of text");
    cluster.sim.reset_counters();
    launch.run_until_caught_up().await;
    let history = cluster.sim.history();
    let at = |words: &str| history.iter().position(|sql| sql.to_lowercase().contains(words));
    let (altered, loaded) = (at("alter column \"note\" type varchar ( 32 )"), at("insert into \"shop\" . \"notes\""));
    assert!(altered.is_some() && altered < loaded, "{altered:?} {loaded:?} {history:#?}");
    let notes = ask(&cluster, "SELECT note FROM bi.notes ORDER BY id").await;
    assert_eq!(notes, [[Some("short".to_owned())], [Some("twenty bytes of text".to_owned())]]);
    let status = launch.status();
    assert_eq!(
        (&table(&status, "fixed")["rejects_open"], &table(&status, "fixed")["state"]),
        (&json!(1), &json!("running"))
    );
    assert_eq!(table(&status, "stuck")["state"], "parked");
    assert!(table(&status, "stuck")["why"].as_str().unwrap().contains("ENCODE zstd"), "{status}");
    write_notes(folder.path(), 3, "fits");
    launch.run_until_caught_up().await;
    assert_eq!(ask(&cluster, "SELECT count(*) FROM bi.notes").await, [[Some("3".to_owned())]]);
    assert_eq!(ask(&cluster, "SELECT count(*) FROM bi.fixed").await, [[Some("2".to_owned())]]);
    // A restart knows the longer column.
    assert_eq!(launch.other(&["check"], &[]).status.code(), Some(0));
}
