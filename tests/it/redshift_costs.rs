//! What a whole process costs a cluster in statements and commits, with 1, 20 and 200 tables: busy, with one table busy, and
//! idle.

use std::path::Path;
use std::time::Duration;

use redshift_sim::Sim;
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::process::{LIMIT, Launch, table};
use crate::support::s3::{ACCESS_KEY, SECRET_KEY};

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
