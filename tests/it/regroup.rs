//! GIVEN tables (one of them append-only) that change their groups between runs, with changes in the lake that are not loaded
//! yet, that leave the topology meanwhile and come back, and a process that is killed while it moves them, THEN every change is
//! loaded once.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::exactly_once::world::{EPOCHS, Stock, TABLES, busy_shop};
use crate::support::oracle::Oracle;
#[cfg(feature = "postgres")]
use crate::support::process::available;
use crate::support::process::{LIMIT, Launch};

/// The shop's tables, but for `without`, in these groups.
fn tables(without: &[&str], groups: &str) -> String {
    let stays = |line: &&str| {
        !line.starts_with("groups:") && !without.iter().any(|table| line.starts_with(&format!("  {table}:")))
    };
    let lines: Vec<&str> = TABLES.lines().filter(stays).collect();
    format!("{}\ngroups: {groups}\n", lines.join("\n"))
}

/// Files of events that appear one after the other.
pub struct Arrivals {
    files: std::vec::IntoIter<PathBuf>,
    events: PathBuf,
}

impl Arrivals {
    pub fn of(stock: &Stock, folder: &Path, files: usize) -> Self {
        let (come, events) = (folder.join("to-come"), folder.join("events"));
        stock.write_files(&come, files);
        std::fs::create_dir(&events).unwrap();
        let mut files: Vec<_> = std::fs::read_dir(&come).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        Self { files: files.into_iter(), events }
    }

    /// The next one is there.
    pub fn next(&mut self) {
        let file = self.files.next().expect("a file that has not come yet");
        std::fs::rename(&file, self.events.join(file.file_name().unwrap())).unwrap();
    }
}

/// Reads into the lake what there is, and loads nothing.
pub async fn only_ingest(launch: &Launch) {
    launch.clone().arg("--role").arg("ingest").run_until_caught_up().await;
}

async fn dies(launch: &Launch, failpoints: &str) {
    let mut process = launch.clone().failpoints(failpoints).arg("--until-caught-up").run();
    let status = process.exit(LIMIT).await;
    assert!(!status.success(), "{failpoints} was not passed\n{}", process.log_tail());
}

/// `topology`: one with these tables. `oracle`: of the warehouse that it loads, whose files are in a folder.
pub async fn moves(seed: u64, topology: &dyn Fn(&str) -> String, oracle: impl FnOnce(&Path) -> Oracle) {
    let folder = tempfile::tempdir().unwrap();
    let stock = Stock::make(seed, busy_shop(1_200), 1_200);
    let mut arrivals = Arrivals::of(&stock, folder.path(), 6);
    let launch = |name: &str, tables: &str| Launch::named(folder.path(), name, &topology(tables));
    let usual = launch("usual", TABLES);
    arrivals.next();
    usual.run_until_caught_up().await;
    // More is in the lake when two tables leave; the others go on without them.
    arrivals.next();
    only_ingest(&usual).await;
    let fewer = launch("fewer", &tables(&["customers", "page_views"], "{ sales: [orders, order_lines] }"));
    fewer.run_until_caught_up().await;
    // They come back to other groups, and `orders` leaves its own.
    let mixed = launch("mixed", &tables(&[], "{ mine: [customers, orders], sales: [order_lines, page_views] }"));
    arrivals.next();
    mixed.run_until_caught_up().await;
    arrivals.next();
    only_ingest(&mixed).await;
    let apart = launch("apart", &tables(&[], "{ views: [page_views], rest: [orders, customers] }"));
    dies(&apart, "warehouse.regroup.before=return(kill)").await;
    dies(&apart, "warehouse.regroup.after=return(kill)").await;
    apart.run_until_caught_up().await;
    arrivals.next();
    usual.run_until_caught_up().await;
    arrivals.next();
    mixed.run_until_caught_up().await;
    assert!(mixed.whole_log().contains("is loaded with another group from now on"));
    let oracle = oracle(folder.path());
    oracle.assert(&oracle.differences(&stock.expected).await);
    assert_eq!(mixed.status()["account"]["imbalance"], Value::Null);
}

fn local(tables: &str, warehouse: &str) -> String {
    format!(
        "version: 1\nname: shop\nsources: {{ shop: {{ kind: file, path: events, follow: false }} }}\n{tables}\n\
         lake: {{ url: lake, raw: {{ keep: none }}, quarantine: {{ key: \"{}\", retention: 30d }} }}\n\
         warehouse: {warehouse}\n{EPOCHS}",
        "5a".repeat(32)
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_move_between_groups_in_sqlite() {
    let topology = |tables: &str| local(tables, "{ kind: sqlite, path: warehouse.db }");
    moves(181, &topology, |folder| Oracle::sqlite(folder.join("warehouse.db"))).await;
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn tables_move_between_groups_in_postgres() {
    if !available("postgres") {
        return;
    }
    let url = crate::support::postgres::server().database().await + "?sslmode=disable";
    let warehouse = format!("{{ kind: postgres, url: \"{url}\", schema: shop }}");
    let oracle = Oracle::postgres(&url, "shop");
    moves(182, &|tables| local(tables, &warehouse), |_| oracle).await;
}
