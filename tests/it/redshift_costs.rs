//! What a table, a load and a whole process cost a cluster in statements and commits: by what the rows are, with 1, 20 and 200
//! tables, busy, with one table busy, and idle.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dataflow::batch::Op;
use dataflow::contract::Contract;
use dataflow::epoch::{DeleteMode, LoadUnit};
use dataflow::pipeline::fold::fold;
use redshift_sim::Sim;
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::process::{LIMIT, Launch, table};
use crate::support::s3::{ACCESS_KEY, SECRET_KEY};
use crate::warehouse::{Change, Under, batch, contract, gone, moved, put, unit};

/// How long nothing must be heard of an idle process: longer than whatever it does regularly.
const LOOK: Duration = Duration::from_secs(11);
const LOOKS: usize = 5;
/// Tables of one group.
const GROUP: usize = 20;

fn names(tables: usize) -> Vec<String> {
    (0..tables).map(|n| format!("t{n:03}")).collect()
}

fn topology(cluster: &Cluster, names: &[String]) -> String {
    let (lake, warehouse) = (cluster.lake(), cluster.warehouse());
    let tables: String =
        names.iter().map(|name| format!("  {name}: {{ from: shop.public.{name}, key: [id] }}\n")).collect();
    let groups = names.chunks(GROUP).enumerate();
    let groups: String = groups.map(|(n, group)| format!("  g{n}: [{}]\n", group.join(", "))).collect();
    format!(
        "version: 1\nname: costs\nsources: {{ files: {{ kind: file, path: events, follow: true }} }}\ntables:\n{tables}\
         groups:\n{groups}lake: {{ url: \"{url}\", region: eu-west-3, endpoint: \"{endpoint}\", \
         access_key_id: {ACCESS_KEY}, secret_access_key: {SECRET_KEY}, raw: {{ keep: none }} }}\n\
         warehouse: {{ kind: redshift, url: \"{warehouse}\", schema: w, iam_role: \"{role}\" }}\n\
         fresh_within: 300ms\nepoch: {{ every: 300ms }}\n",
        url = lake.url,
        endpoint = cluster.s3.endpoint,
        warehouse = warehouse.url,
        role = warehouse.iam_role,
    )
}

/// A new row in each of these tables, as one file that appears at once.
fn write(folder: &Path, number: u64, names: &[String]) {
    let row = |(name, more): (&String, u64)| {
        let lsn = number * 1000 + more;
        let source = json!({
            "version": "3.0.0", "connector": "postgresql", "name": "shop", "ts_ms": 1_780_000_000_000u64 + lsn,
            "snapshot": "false", "db": "shop", "schema": "public", "table": name, "txId": lsn, "lsn": lsn
        });
        let ts_ms = 1_780_000_000_000u64 + lsn;
        json!({ "op": "c", "before": null, "after": { "id": number }, "source": source, "ts_ms": ts_ms }).to_string()
    };
    let text = names.iter().zip(0..).map(row).collect::<Vec<_>>().join("\n") + "\n";
    std::fs::create_dir_all(folder.join("events")).unwrap();
    std::fs::write(folder.join("aside"), text).unwrap();
    std::fs::rename(folder.join("aside"), folder.join("events").join(format!("{number:03}.jsonl"))).unwrap();
}

/// All statements, but for those that set a new session up: a second group may want one at any time.
fn statements(sim: &Sim) -> Vec<String> {
    sim.history().into_iter().filter(|sql| !sql.to_lowercase().starts_with("set ")).collect()
}

/// GIVEN so many tables, THEN each that is due takes six statements of a load, a load seven more and one commit; a table
/// without changes is in no statement; a process without anything to do says nothing; and beside loads it asks nothing at all.
async fn costs(tables: usize) {
    let cluster = Cluster::start().await;
    let folder = tempfile::tempdir().unwrap();
    let names = names(tables);
    write(folder.path(), 1, &names);
    let mut process = Launch::new(folder.path(), &topology(&cluster, &names)).run();
    let all = |status: &Value, changes: u64| names.iter().all(|name| table(status, name)["changes_total"] == changes);
    process.wait_for("the first rows", LIMIT, |status| all(status, 1)).await;

    cluster.sim.reset_counters();
    write(folder.path(), 2, &names);
    process.wait_for("the second rows", LIMIT, |status| all(status, 2)).await;
    let (asked, commits) = (statements(&cluster.sim).len() as u64, cluster.sim.counters().commits);
    assert!(commits >= tables.div_ceil(GROUP) as u64);
    assert_eq!(asked, 6 * tables as u64 + 7 * commits, "{tables} tables, {commits} loads");

    cluster.sim.reset_counters();
    write(folder.path(), 3, &names[..1]);
    process.wait_for("one row", LIMIT, |status| table(status, &names[0])["changes_total"] == 3).await;
    let history = statements(&cluster.sim);
    assert_eq!((history.len(), cluster.sim.counters().commits), (6 + 7, 1), "{history:#?}");
    assert!(history.iter().all(|sql| names[1..].iter().all(|name| !sql.contains(name.as_str()))), "{history:#?}");

    // There is nothing to ask: one long look must be quiet. There are as many sessions as groups that loaded
    // at the same time, and perhaps one that asked meanwhile.
    let mut heard = Vec::new();
    for _ in 0..LOOKS {
        cluster.sim.reset_counters();
        tokio::time::sleep(LOOK).await;
        heard = cluster.sim.history();
        if heard.is_empty() {
            break;
        }
    }
    assert!(heard.is_empty(), "an idle process asks: {heard:#?}");
    let (open, most) = (cluster.sim.sessions(), (tables.div_ceil(GROUP) + 1).min(4) as u64);
    assert!(open <= most, "{open} sessions");
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_table_costs_little() {
    costs(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_tables_cost_little() {
    costs(20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_tables_cost_little() {
    costs(200).await;
}

/// What a load costs, in statements, with 1, 20 and 200 tables in groups of up to 20: six for each table that is due, seven
/// around them, one commit; for a table without changes none.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_takes_few_statements() {
    const GROUP: usize = 20;
    let under = Under::redshift().await;
    let contracts: Vec<Arc<Contract>> =
        (0..200).map(|n| Arc::new(Contract { table: format!("t{n:03}"), ..Contract::clone(&contract()) })).collect();
    for contract in &contracts {
        under.warehouse().ensure(contract, DeleteMode::Hard).await.unwrap();
    }
    let unit_of = |n: u64, contracts: &[Arc<Contract>]| {
        let loads = contracts.iter().map(|contract| {
            let rows = [put(n + 1, 1, 1, "x"), put(n + 1, 2, 1, "y")];
            fold(contract, DeleteMode::Hard, vec![batch(contract, &rows)], false).unwrap()
        });
        LoadUnit { group: contracts[0].table.clone(), ..unit(n, loads.collect()) }
    };
    // The first load of a group makes its control tables.
    for group in contracts.chunks(GROUP) {
        under.warehouse().apply(&unit_of(0, group)).await.unwrap();
    }
    for (n, tables) in [(1, 200usize), (2, 20), (3, 1)] {
        under.cluster().sim.reset_counters();
        let groups: Vec<_> = contracts[..tables].chunks(GROUP).collect();
        for group in &groups {
            under.warehouse().apply(&unit_of(n, group)).await.unwrap();
        }
        let (counters, groups) = (under.cluster().sim.counters(), groups.len() as u64);
        let (of_tables, around) = (6 * tables as u64, 7 * groups);
        assert_eq!((counters.all(), counters.commits), (of_tables + around, groups), "{tables} tables");
        assert!(of_tables <= 8 * tables as u64 && around <= 8 * groups);
    }
    // Of a group of 20, one table is due: the others are in no statement.
    let history = under.cluster().sim.history();
    assert!(history.iter().all(|sql| !sql.contains("t001")), "{history:#?}");
}

/// What a table costs, in statements, by what its rows are and how it is kept: what is not asked is not needed either, because
/// every load ends as the model says.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_takes_more_statements_only_for_rows_that_need_them() {
    let under = Under::redshift().await;
    let contract = contract();
    let partial = |seq, id| Change { op: Op::Update, seq, id, old: None, a: Some(-id), b: None };
    let loads = [
        ("the first rows", vec![put(1, 1, 1, "x"), put(2, 2, 2, "y"), put(3, 3, 3, "z")]),
        ("whole rows", vec![put(4, 1, 1, "x"), put(5, 2, 2, "y")]),
        ("a delete", vec![gone(6, 1)]),
        ("unchanged columns", vec![partial(7, 2), put(8, 4, 4, "w")]),
        ("unchanged columns and a delete", vec![partial(9, 4), gone(10, 2)]),
        ("a key that moves", vec![moved(11, 3, 5)]),
    ];
    // For each but the first one, which makes the control tables of its group, too.
    let modes = [
        (DeleteMode::Hard, [6, 6, 7, 7, 8], "true"),
        (DeleteMode::Soft, [6, 7, 7, 7, 10], "NOT _deleted"),
        (DeleteMode::History, [7, 7, 8, 8, 9], "_current"),
    ];
    for (mode, statements, stands) in modes {
        let table = format!("{mode:?}").to_lowercase();
        let contract = Arc::new(Contract { table: table.clone(), ..Contract::clone(&contract) });
        under.warehouse().ensure(&contract, mode).await.unwrap();
        for (n, (what, rows)) in (0..).zip(&loads) {
            under.cluster().sim.reset_counters();
            let load = fold(&contract, mode, vec![batch(&contract, rows)], false).unwrap();
            let unit = LoadUnit { group: table.clone(), ..unit(n, vec![load]) };
            under.warehouse().apply(&unit).await.unwrap();
            if let Some(statements) = (n as usize).checked_sub(1).map(|n| statements[n]) {
                let history = under.cluster().sim.history();
                assert_eq!(under.cluster().sim.counters().all(), statements + 7, "{mode:?}, {what}: {history:#?}");
            }
        }
        let sql = format!("SELECT CAST(id AS text), CAST(a AS text), b FROM {table} WHERE {stands} ORDER BY id");
        let rows = under.rows(&sql).await;
        let rows: Vec<String> =
            rows.into_iter().map(|row| row.into_iter().flatten().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(rows, ["4 -4 w", "5 3 z"], "{mode:?}");
    }
}
