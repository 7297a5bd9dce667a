//! GIVEN a lake that has kept what was read, WHEN `dataflow reprocess` builds a new lake and warehouse from it, THEN both
//! are what a fresh run of today's rules on the source gives, and `run` goes on at the source where raw ends.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use loadtest::{Options, Shop};
use serde_json::Value;
use tempfile::TempDir;

use crate::exactly_once::kills::log_beyond;
use crate::exactly_once::world::{EPOCHS, LakeStore, Stock, TABLES, busy_shop};
use crate::support::oracle::{LogReader, Oracle};
use crate::support::process::Launch;

mod archived;
#[cfg(all(feature = "mysql", feature = "postgres"))]
mod databases;
#[cfg(feature = "kafka")]
mod from_kafka;
mod made;

const PLAIN: &str = "{ keep: plain }";
const NONE: &str = "{ keep: none }";

fn encrypted(byte: &str) -> String {
    format!("{{ keep: encrypted, retention: 7d, key: \"{}\" }}", byte.repeat(32))
}

/// Rules of another day: what was too small is right, a column more, another one masked, one row less.
const OTHER_TABLES: &str = r#"
tables:
  orders:
    from: shop.public.orders
    key: [id]
    operators:
      - validate: { name: sane_amount, rule: "amount >= -1000000" }
      - compute: { net: "amount - discount" }
      - filter: { name: old_only, keep: "status <> 'new'" }
  order_lines: { from: shop.public.order_lines, key: [order_id, line_no], deletes: soft }
  customers:
    from: shop.public.customers
    key: [id]
    operators: [{ mask: { columns: [email], with: hmac, domain: customer, key: "0123456789abcdef0123456789abcdef" } }]
  products: { from: shop.public.products, key: [id] }
  page_views: { from: shop.public.page_views, key: [] }
"#;

/// Everything that people and the product see of each table, but for the time of loading.
type Dump = BTreeMap<String, Vec<Vec<Option<String>>>>;

/// Several lakes and warehouses that stand on the same files.
struct Case {
    folder: TempDir,
}

impl Case {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn events(&self) -> PathBuf {
        self.path("events")
    }

    /// The topology `name` with a lake and a warehouse of its own.
    fn topology(&self, name: &str, tables: &str, raw: &str) -> Launch {
        self.topology_in(name, name, tables, raw)
    }

    fn topology_in(&self, name: &str, lake: &str, tables: &str, raw: &str) -> Launch {
        let text = format!(
            "version: 1\nname: {name}\nsources: {{ shop: {{ kind: file, path: events }} }}\n{tables}\n\
             lake: {{ url: lake-{lake}, raw: {raw}, quarantine: {{ key: \"{key}\", retention: 30d }} }}\n\
             warehouse: {{ kind: sqlite, path: {lake}.db }}\n{EPOCHS}",
            key = "5a".repeat(32),
        );
        Launch::named(self.folder.path(), name, &text)
    }

    fn oracle(&self, name: &str) -> Oracle {
        Oracle::sqlite(self.path(&format!("{name}.db")))
    }

    fn lake(&self, name: &str) -> LakeStore {
        LakeStore::folder(&self.path(&format!("lake-{name}")))
    }

    /// What the warehouse holds of those tables, but for the columns `without`.
    async fn dump(&self, name: &str, tables: &[&str], without: &[&str]) -> Dump {
        let oracle = self.oracle(name);
        let mut dump = Dump::new();
        for table in tables {
            let columns = oracle.rows(&format!("SELECT name FROM pragma_table_info('{table}') ORDER BY name")).await;
            let columns = columns.unwrap().into_iter().map(|row| row[0].clone().unwrap());
            let columns: Vec<String> =
                columns.filter(|c| !without.contains(&c.as_str())).map(|c| format!("CAST(\"{c}\" AS TEXT)")).collect();
            let mut rows = oracle.rows(&format!("SELECT {} FROM {table}", columns.join(", "))).await.unwrap();
            rows.sort();
            rows.insert(0, columns.into_iter().map(Some).collect());
            dump.insert((*table).to_owned(), rows);
        }
        dump
    }

    async fn same(&self, one: &str, other: &str) {
        self.same_of(one, other, &loadtest::TABLE_NAMES, &["_synced_at"]).await;
    }

    async fn same_of(&self, one: &str, other: &str, tables: &[&str], without: &[&str]) {
        let (one, other) = (self.dump(one, tables, without).await, self.dump(other, tables, without).await);
        for (table, rows) in &one {
            assert!(rows.len() > 1, "{table} is empty");
            let different = rows.iter().zip(&other[table]).find(|(a, b)| a != b);
            assert_eq!((rows.len(), None), (other[table].len(), different), "{table}");
        }
    }
}

fn reprocess_command(target: &Launch, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dataflow"));
    let folder = target.topology().parent().unwrap();
    command.arg("reprocess").arg(target.topology()).args(arguments).current_dir(folder);
    command.env_remove("FAILPOINTS").env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

fn reprocess(target: &Launch, arguments: &[&str]) -> Output {
    reprocess_command(target, arguments).output().unwrap()
}

/// The report of one that must succeed.
fn reprocessed(target: &Launch, arguments: &[&str]) -> Value {
    let output = reprocess(target, &[arguments, &["--json"]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let sum: u64 = ["rows", "merged", "control", "redelivered", "rejected", "unrouted"]
        .iter()
        .map(|field| report[field].as_u64().unwrap())
        .sum();
    assert_eq!(report["read"], sum, "{report}");
    assert_eq!(report["finished"], true);
    report
}

/// What one that must be refused says.
fn refused(target: &Launch, arguments: &[&str], words: &[&str]) {
    let output = reprocess(target, arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    for word in words.iter().chain(&["help:"]) {
        assert!(said.contains(word), "no `{word}` in: {said}");
    }
}

/// Where every partition of the source stands.
fn ends(log: &LogReader) -> BTreeMap<String, (String, u32, Option<String>)> {
    let spans = log.manifests.iter().flat_map(|manifest| &manifest.spans);
    let spans = spans.filter(|advance| &*advance.partition.source == "shop");
    spans.map(|a| (a.partition.to_string(), (a.span.to.0.clone(), a.generation, a.mark.clone()))).collect()
}

/// The same without the marks: those say which row of a partition was the first to show a column that no other partition
/// had shown, so they depend on who came first.
fn places(log: &LogReader) -> Vec<(String, String, u32)> {
    ends(log).into_iter().map(|(partition, (to, generation, _))| (partition, to, generation)).collect()
}

/// The rows that a fresh reader of the log sees, in spite of how they are cut into epochs.
async fn sound(case: &Case, name: &str) -> LogReader {
    let lake = case.lake(name);
    let log = lake.log().await;
    let mut broken = log.broken_rules();
    broken.extend(log.broken_files(&*lake.store, &lake.prefix).await);
    assert!(broken.is_empty(), "{broken:?}");
    log
}

fn write(path: &Path, lines: &[&[u8]]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut text = std::fs::read(path).unwrap_or_default();
    text.extend(lines.iter().flat_map(|line| line.iter().chain(b"\n")));
    std::fs::write(path, text).unwrap();
}

fn redelivering(generated: u64) -> Options {
    Options { redeliver: 0.05, ..busy_shop(generated) }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_rules_give_the_same_lake_and_warehouse() {
    for (number, raw) in [PLAIN.to_owned(), encrypted("ab")].into_iter().enumerate() {
        let case = Case::new();
        let stock = Stock::make(31 + number as u64, redelivering(2_500), 2_500);
        stock.write_files(&case.events(), 3);
        case.topology("old", TABLES, &raw).run_until_caught_up().await;
        let target = case.topology("new", TABLES, &raw);
        // The same records in epochs of another size.
        let report = reprocessed(&target, &["--from-lake", "lake-old", "--set", "epoch.max_bytes=90KiB"]);
        assert_eq!(report["read"], stock.lines().count() as u64);
        assert!(report["redelivered"].as_u64().unwrap() > 0 && report["rejected"].as_u64().unwrap() > 0, "{report}");
        case.same("old", "new").await;
        let oracle = case.oracle("new");
        oracle.assert(&oracle.differences(&stock.expected).await);
        let (old, new) = (sound(&case, "old").await, sound(&case, "new").await);
        assert_eq!(ends(&old), ends(&new));
        assert_eq!((old.records_read(), old.raw_rows()), (new.records_read(), new.raw_rows()));
        assert_eq!((old.refused(), old.quarantined()), (new.refused(), new.quarantined()));
        assert_ne!(old.manifests.len(), new.manifests.len(), "cut anew");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_rules_give_what_a_fresh_run_of_them_gives() {
    let case = Case::new();
    Stock::make(41, redelivering(2_500), 2_500).write_files(&case.events(), 2);
    case.topology("old", TABLES, PLAIN).run_until_caught_up().await;
    case.topology("fresh", OTHER_TABLES, NONE).run_until_caught_up().await;
    let report = reprocessed(&case.topology("new", OTHER_TABLES, NONE), &["--from-lake", "lake-old"]);
    case.same("fresh", "new").await;
    let oracle = case.oracle("new");
    let now_valid = oracle.number("SELECT count(*) FROM orders WHERE CAST(amount AS REAL) < 0").await.unwrap();
    assert!(now_valid > 0, "what was refused is valid now");
    assert_eq!(sound(&case, "new").await.refused(), sound(&case, "fresh").await.refused());
    assert_eq!(sound(&case, "new").await.raw_rows(), 0, "the new lake keeps none");
    assert!(report["applied"].as_u64().unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_it_goes_on_and_the_live_source_after_it() {
    let case = Case::new();
    let mut shop = Shop::new(51, redelivering(4_000));
    let mut sell = |until: u64| {
        let mut events = Vec::new();
        while shop.generated() < until {
            events.push(shop.next_event());
        }
        events.extend(shop.drain());
        (events, shop.expected())
    };
    let lines = |events: &[loadtest::Event], path: &Path| {
        let values: Vec<&[u8]> = events.iter().filter_map(|event| event.value.as_deref()).collect();
        write(path, &values);
        values.len() as u64
    };
    let file = case.events().join("b.jsonl");
    let mut records = lines(&sell(1_000).0, &case.events().join("a.jsonl"));
    records += lines(&sell(3_000).0, &file);
    let raw = encrypted("cd");
    case.topology("old", TABLES, &raw).run_until_caught_up().await;
    let target = case.topology("new", TABLES, &raw);
    let from = ["--from-lake", "lake-old"];
    // Each passes its place some times and dies; what it has committed stays.
    let mut committed = 0;
    for place in
        ["log.put.after=2*off", "lake.upload.before=4*off", "log.put.before=1*off", "warehouse.commit.after=1*off"]
    {
        let mut command = reprocess_command(&target, &from);
        let output = command.env("FAILPOINTS", format!("{place}->return(kill)")).output().unwrap();
        assert_eq!(output.status.code(), None, "{place} is passed: {}", String::from_utf8_lossy(&output.stderr));
        let now = case.lake("new").manifests().await;
        assert!(now >= committed, "{place}");
        committed = now;
    }
    assert!(committed > 2, "only {committed} epochs before the last start");
    // As long as it is not finished, nothing live is read.
    let live = target.clone().arg("--until-caught-up").run().exit(crate::support::process::LIMIT).await;
    assert_eq!(live.code(), Some(2), "{}", target.whole_log());
    assert!(target.whole_log().contains("is being filled by `dataflow reprocess`"), "{}", target.whole_log());
    let report = reprocessed(&target, &from);
    assert_eq!(report["read"], records);
    case.same("old", "new").await;
    let (old, new) = (sound(&case, "old").await, sound(&case, "new").await);
    assert_eq!((ends(&old), old.raw_rows()), (ends(&new), new.raw_rows()));
    // The source goes on: more in the same file, and a new one.
    records += lines(&sell(3_500).0, &file);
    let (events, expected) = sell(4_500);
    records += lines(&events, &case.events().join("c.jsonl"));
    target.run_until_caught_up().await;
    let oracle = case.oracle("new");
    oracle.assert(&oracle.differences(&expected).await);
    let new = sound(&case, "new").await;
    assert_eq!((new.records_read(), new.raw_rows()), (records, records));
    // Once it reads live, the old lake has nothing more to give.
    assert_eq!(reprocess(&target, &from).status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_lake_that_goes_on_growing_is_followed() {
    let case = Case::new();
    let stock = Stock::make(61, busy_shop(2_000), 2_000);
    let lines: Vec<&[u8]> = stock.lines().collect();
    let old = case.topology("old", TABLES, PLAIN);
    let target = case.topology("new", TABLES, PLAIN);
    for part in lines.chunks(lines.len() / 3 + 1) {
        write(&case.events().join("0.jsonl"), part);
        old.run_until_caught_up().await;
        reprocessed(&target, &["--from-lake", "lake-old"]);
        case.same("old", "new").await;
    }
    let epochs = case.lake("new").manifests().await;
    let report = reprocessed(&target, &["--from-lake", "lake-old"]);
    assert_eq!(
        (case.lake("new").manifests().await, &report["read"]),
        (epochs, &Value::from(lines.len())),
        "nothing new"
    );
    let oracle = case.oracle("new");
    oracle.assert(&oracle.differences(&stock.expected).await);
}

/// A shop in an old lake, and a target that takes its time for every epoch.
async fn slow_target(seed: u64) -> (Case, Launch, Stock) {
    let case = Case::new();
    let stock = Stock::make(seed, redelivering(2_000), 2_000);
    stock.write_files(&case.events(), 2);
    case.topology("old", TABLES, PLAIN).run_until_caught_up().await;
    let target = case.topology("new", TABLES, PLAIN);
    (case, target, stock)
}

fn slowly(target: &Launch) -> Child {
    let mut command = reprocess_command(target, &["--from-lake", "lake-old"]);
    command.env("FAILPOINTS", "log.put.before=sleep(100)").stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_in_order_or_killed_it_goes_on() {
    let (case, target, stock) = slow_target(101).await;
    let lake = case.lake("new");
    let child = slowly(&target);
    let at = log_beyond(&lake, 2).await;
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("start the same command again"), "{said}");
    let child = slowly(&target);
    log_beyond(&lake, at + 2).await;
    assert!(Command::new("kill").args(["-KILL", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait_with_output().unwrap().status.code(), None);
    let report = reprocessed(&target, &["--from-lake", "lake-old"]);
    assert_eq!(report["read"], stock.lines().count() as u64);
    case.same("old", "new").await;
    assert_eq!(ends(&sound(&case, "old").await), ends(&sound(&case, "new").await));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_do_no_harm() {
    let (case, target, stock) = slow_target(111).await;
    for child in [slowly(&target), slowly(&target)] {
        let output = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap();
        assert!(output.status.code().is_some(), "it ends by itself, whether it won or gave up");
    }
    let report = reprocessed(&target, &["--from-lake", "lake-old"]);
    assert_eq!(report["read"], stock.lines().count() as u64);
    case.same("old", "new").await;
    assert_eq!(ends(&sound(&case, "old").await), ends(&sound(&case, "new").await));
    target.run_until_caught_up().await;
}

/// The raw files of a lake in the log's order: epoch, file.
fn raw_files(log: &LogReader) -> Vec<(u64, String)> {
    log.manifests.iter().filter_map(|m| Some((m.n, m.raw.as_ref()?.path.clone()))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_named_and_left_out_only_when_asked() {
    let case = Case::new();
    let stock = Stock::make(71, busy_shop(2_000), 2_000);
    stock.write_files(&case.events(), 2);
    case.topology("old", TABLES, PLAIN).run_until_caught_up().await;
    let log = case.lake("old").log().await;
    let files = raw_files(&log);
    assert!(files.len() > 4, "{} epochs", files.len());
    for (_, file) in &files[1..3] {
        std::fs::remove_file(case.path("lake-old").join(file)).unwrap();
    }
    let target = case.topology("new", TABLES, PLAIN);
    let (first, last) = (files[1].0, files[2].0);
    let words = [&*format!("epochs {first} to {last} ("), "lake.raw.retention", &*format!("--from {}", last + 1)];
    refused(&target, &["--from-lake", "lake-old"], &words);
    let begin = (last + 1).to_string();
    let report = reprocessed(&target, &["--from-lake", "lake-old", "--from", &begin]);
    let read = |n: u64| log.manifests[n as usize - 1].account.records.values().map(|a| a.read).sum::<u64>();
    let before: u64 = (1..=last).map(read).sum();
    assert_eq!((report["skipped"].as_u64(), report["from"].as_u64()), (Some(before), Some(last + 1)));
    assert_eq!(report["read"].as_u64().unwrap() + before, stock.lines().count() as u64);
    refused(&target, &["--from-lake", "lake-old", "--from", "1"], &["was begun with --from"]);
    // Files that were read wholly before that are not read again: every partition is known.
    let new = sound(&case, "new").await;
    assert_eq!(ends(&new).keys().collect::<Vec<_>>(), ends(&log).keys().collect::<Vec<_>>());
    target.run_until_caught_up().await;
    assert_eq!(sound(&case, "new").await.records_read() + before, stock.lines().count() as u64);
    refused(&case.topology("late", TABLES, PLAIN), &["--from-lake", "lake-old", "--from", "9999"], &["ends at epoch"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_not_be_right_is_refused_and_says_what_to_do() {
    let case = Case::new();
    Stock::make(81, busy_shop(600), 600).write_files(&case.events(), 1);
    case.topology("none", TABLES, NONE).run_until_caught_up().await;
    case.topology("old", TABLES, &encrypted("ee")).run_until_caught_up().await;
    let target = case.topology("new", TABLES, &encrypted("ff"));
    refused(&target, &["--from-lake", "lake-none"], &["not kept", "lake.raw.keep"]);
    refused(&target, &["--from-lake", "lake-old"], &["does not open with", "--from-raw-key"]);
    refused(&case.topology("plain", TABLES, PLAIN), &["--from-lake", "lake-old"], &["is encrypted", "--from-raw-key"]);
    refused(&target, &["--from-lake", "lake-new"], &["topology's own lake", "lake.url"]);
    let linked = case.path("lake-linked");
    std::os::unix::fs::symlink(case.path("lake-new"), &linked).unwrap();
    refused(&target, &["--from-lake", "lake-linked"], &["topology's own lake"]);
    refused(&target, &["--from-lake", "lake-nowhere"], &["there is no log in lake-nowhere"]);
    let spoken = reprocess(&target, &["--from-lake", "lake-old", "--from-raw-key", "abcdef"]);
    let said = String::from_utf8(spoken.stderr).unwrap();
    assert!(spoken.status.code() == Some(2) && said.contains("other processes see arguments"), "{said}");
    let other = case.topology_in("none", "none", TABLES, NONE);
    refused(&other, &["--from-lake", "lake-old"], &["was not begun from", "lake.url"]);
    let warehouse = ["--from-lake", "lake-old", "--from-raw-key", "file:old.key", "--set", "warehouse.path=old.db"];
    std::fs::write(case.path("old.key"), "ee".repeat(32) + "\n").unwrap();
    refused(&target, &warehouse, &["holds table", "of topology old", "another schema or file"]);
    // Under its own name, too.
    let renamed = [&warehouse[..4], &["--set", "name=old"]].concat();
    let renamed: Vec<&str> = [&renamed[..], &["--set", "warehouse.path=old.db", "--set", "lake.url=lake-x"]].concat();
    refused(&target, &renamed, &["has loaded group", "another schema or file"]);
    assert_eq!(case.lake("new").manifests().await, 0, "nothing was written");
    // With the right key, and the new lake encrypted with its own.
    reprocessed(&target, &warehouse[..4]);
    case.same("old", "new").await;
}
