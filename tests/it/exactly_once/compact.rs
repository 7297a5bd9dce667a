//! GIVEN a lake of many small files, WHEN closed hours are compacted, killed at every step, by two at once, and the
//! originals are deleted, THEN every epoch still reads exactly as it did, and loads, replays and reprocessings give the same
//! warehouse.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow::util::display::array_value_to_string;
use chrono::{DateTime, TimeDelta, Utc};
use dataflow::batch::TableChanges;
use dataflow::config;
use dataflow::epoch::{Compaction, Control};
use dataflow::lake::{Access, CompactOptions, Lake, Log, NoOutsiders, compact, retire_as_of, sweep_as_of};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::world::{EPOCHS, Stock, TABLES, World, busy_shop};
use crate::support::oracle::Oracle;
use crate::support::process::{LIMIT, Launch, metric, upkeep};

const GENERATED: u64 = 1_500;
/// So small that the test's few rows make many ranges and files, and that an hour has more manifests than a plan looks at.
const SMALL: CompactOptions =
    CompactOptions { closed_after: TimeDelta::hours(2), range_bytes: 16 << 10, file_bytes: 8 << 10, manifests: 3 };

/// A shop that was read into a lake and loaded, in a dozen epochs.
async fn sold() -> (World, Stock) {
    let world = World::embedded();
    let stock = Stock::make(91, busy_shop(GENERATED), GENERATED);
    stock.write_files(&world.events(), 4);
    world.launch.run_until_caught_up().await;
    assert!(world.lake.manifests().await > 5);
    (world, stock)
}

async fn open(folder: &Path) -> Log {
    let settings = config::Lake { url: folder.join("lake").to_str().unwrap().to_owned(), ..config::Lake::default() };
    Log::open(Lake::open(&settings).unwrap(), "once", Access::Write).await.unwrap()
}

fn tomorrow() -> DateTime<Utc> {
    Utc::now() + TimeDelta::days(1)
}

/// When what is compacted now may go.
fn in_two_days() -> DateTime<Utc> {
    Utc::now() + TimeDelta::days(2)
}

/// Every change of every epoch as text, in order.
type Told = BTreeMap<(String, u64), Vec<String>>;

fn tell(changes: &TableChanges) -> Vec<String> {
    let cell = |column: usize, row: usize| {
        let unchanged = if changes.is_unchanged(column, row) { "=" } else { "" };
        let array = changes.rows.column(column);
        let value = if array.is_null(row) { "null".to_owned() } else { array_value_to_string(array, row).unwrap() };
        format!("{unchanged}{value}")
    };
    let old = |row: usize| match &changes.old_keys {
        Some(old) if changes.ops[row] == dataflow::batch::Op::Move => {
            old.columns().iter().map(|array| array_value_to_string(array, row).unwrap()).collect::<Vec<_>>().join(",")
        }
        _ => String::new(),
    };
    let line = |row: usize| {
        let cells: Vec<String> = (0..changes.rows.num_columns()).map(|column| cell(column, row)).collect();
        let (op, seq, time) = (changes.ops[row].letter(), changes.seqs[row], changes.source_times_us[row]);
        format!("{op} {seq} {} {time} {} <{}>", changes.partition, cells.join("|"), old(row))
    };
    (0..changes.len()).map(line).collect()
}

async fn told(log: &Log) -> Told {
    let state = log.refresh().await.unwrap();
    let mut told = Told::new();
    for n in 1..=state.n {
        let manifest = log.manifest(n).await.unwrap();
        for (table, epoch) in &manifest.tables {
            let contract = Arc::clone(&state.contracts[table]);
            let changes = log.changes(table, &[(n, epoch)], &contract).await.unwrap();
            told.insert((table.clone(), n), changes.iter().flat_map(tell).collect());
        }
    }
    told
}

/// What the log says of compactions, the newest of each hour of a table.
async fn compactions(log: &Log) -> BTreeMap<(String, String), Compaction> {
    let mut found = BTreeMap::new();
    for n in 1..=log.refresh().await.unwrap().n {
        for control in &log.manifest(n).await.unwrap().control {
            let Control::Compacted { hour, tables, .. } = control else { continue };
            for (table, compaction) in tables {
                found.insert((table.clone(), hour.clone()), compaction.clone());
            }
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn parquet_files(folder: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let count = |path: &Path| if path.is_dir() { parquet_files(path) } else { 1 };
    entries.map(|entry| count(&entry.unwrap().path())).sum()
}

/// A warehouse built anew from the log.
async fn replayed(world: &World, from: u64, file: &str) -> Oracle {
    let place = format!("warehouse.path={file}");
    let output = world.launch.other(&["replay"], &["--from", &from.to_string(), "--set", &place]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Oracle::sqlite(world.folder.path().join(file))
}

/// All rows of all tables, but for the time of loading.
async fn everything(oracle: &Oracle) -> Vec<Vec<Option<String>>> {
    let mut rows = Vec::new();
    for table in loadtest::TABLE_NAMES {
        let columns = oracle
            .rows(&format!("SELECT name FROM pragma_table_info('{table}') WHERE name <> '_synced_at' ORDER BY name"))
            .await
            .unwrap();
        let casts: Vec<String> = columns.iter().flatten().flatten().map(|c| format!("CAST(\"{c}\" AS TEXT)")).collect();
        if !casts.is_empty() {
            let mut found = oracle.rows(&format!("SELECT {} FROM \"{table}\"", casts.join(", "))).await.unwrap();
            found.sort();
            rows.extend(found);
        }
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn every_epoch_reads_the_same_from_compacted_files() {
    let (world, stock) = sold().await;
    let log = open(world.folder.path()).await;
    let before = told(&log).await;
    let head = log.state().n;
    let half = everything(&replayed(&world, head / 2, "half-before.db").await).await;
    let (rows, files): (usize, usize) = (before.values().map(Vec::len).sum(), before.len());

    let none = compact(&log, Utc::now(), &SMALL).await.unwrap();
    assert_eq!((none.hours, log.state().n), (0, head), "the hour is open");
    let report = compact(&log, tomorrow(), &SMALL).await.unwrap();
    assert_eq!((report.rows, report.fenced), (rows as u64, false));
    assert!(report.files_before >= files as u64 && report.hours >= 5, "{report:?}");
    assert_eq!(told(&log).await, before, "from the originals");
    let again = compact(&log, tomorrow(), &SMALL).await.unwrap();
    assert_eq!((again.hours, again.rows), (0, 0), "nothing is left to do");
    // A catalog shows the newest folder of an hour: it has to hold all of it.
    let whole: u64 = compactions(&log).await.values().flat_map(|c| &c.files).map(|file| file.rows).sum();
    assert_eq!(
        (whole, report.hours),
        (rows as u64, compactions(&log).await.len() as u64),
        "hours in pieces: {report:?}"
    );

    let early = retire_as_of(&log, &NoOutsiders, Utc::now() + TimeDelta::hours(20)).await.unwrap();
    assert_eq!((early.entries, early.files), (0, 0), "readers have a day");
    let retired = retire_as_of(&log, &NoOutsiders, in_two_days()).await.unwrap();
    assert_eq!((retired.files, retired.bytes), (report.files_before, report.bytes_before));
    assert_eq!(retire_as_of(&log, &NoOutsiders, in_two_days()).await.unwrap().entries, 0, "once");
    assert_eq!(parquet_files(&world.folder.path().join("lake/processed")), 0);
    let swept = sweep_as_of(&log, in_two_days()).await.unwrap();
    assert_eq!(swept.unnamed, Vec::<String>::new());
    assert_eq!(told(&log).await, before, "from the compacted files");
    assert_eq!(told(&open(world.folder.path()).await).await, before, "to one who starts now");

    let whole = replayed(&world, 1, "whole.db").await;
    whole.assert(&whole.differences(&stock.expected).await);
    assert_eq!(
        everything(&replayed(&world, head / 2, "half-after.db").await).await,
        half,
        "from the middle of an hour"
    );
    let anew = reprocessed(&world);
    anew.assert(&anew.differences(&stock.expected).await);
    sorted_by_key(&world, &log).await;
}

/// A lake and a warehouse built anew from the raw zone of a compacted lake.
fn reprocessed(world: &World) -> Oracle {
    let topology = format!(
        "version: 1\nname: anew\nsources: {{ shop: {{ kind: file, path: events }} }}\n{TABLES}\n\
         lake: {{ url: lake-anew, quarantine: {{ key: \"{key}\", retention: 30d }} }}\n\
         warehouse: {{ kind: sqlite, path: anew.db }}\n{EPOCHS}",
        key = "5a".repeat(32),
    );
    let launch = Launch::named(world.folder.path(), "anew", &topology);
    let output = launch.other(&["reprocess"], &["--from-lake", "lake"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Oracle::sqlite(world.folder.path().join("anew.db"))
}

/// GIVEN a ledger in the middle of an hour, WHEN the hour is compacted and its originals are deleted, THEN the load goes on
/// from there, and rows that it has already are not loaded again.
#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_lags_goes_on_from_compacted_files() {
    let world = World::embedded();
    let stock = Stock::make(93, busy_shop(GENERATED), GENERATED);
    let store = world.folder.path().join("all");
    stock.write_files(&store, 4);
    std::fs::create_dir_all(world.events()).unwrap();
    let sell = |files: std::ops::Range<usize>| {
        for file in files {
            let name = format!("{file:04}.jsonl");
            std::fs::rename(store.join(&name), world.events().join(&name)).unwrap();
        }
    };
    sell(0..2);
    world.launch.run_until_caught_up().await;
    sell(2..4);
    world.launch.clone().arg("--role").arg("ingest").run_until_caught_up().await;
    let log = open(world.folder.path()).await;
    let report = compact(&log, tomorrow(), &SMALL).await.unwrap();
    let retired = retire_as_of(&log, &NoOutsiders, in_two_days()).await.unwrap();
    assert_eq!(retired.files, report.files_before);
    world.launch.run_until_caught_up().await;
    world.oracle.assert(&world.oracle.differences(&stock.expected).await);
    let accounts = world.oracle.load_accounts().await.unwrap();
    let loaded: u64 = accounts.values().map(|account| account[0]).sum();
    let written: u64 = world.lake.log().await.written().values().sum();
    assert_eq!(loaded, written, "every row was loaded once");
}

/// GIVEN a lake whose hours are long over, WHEN a process that loads is told to compact, THEN it does, beside the stream.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_loads_compacts() {
    let (world, stock) = sold().await;
    let lake = world.folder.path().join("lake");
    let moved = move_to_the_past(&lake);
    assert!(moved > 0);
    // At first a file is not to be found, so the pass fails.
    let orders = lake.join("processed/orders/dt=2026-01-01/hour=00");
    let file = std::fs::read_dir(&orders).unwrap().next().unwrap().unwrap().path();
    let hidden = world.folder.path().join("hidden.parquet");
    std::fs::rename(&file, &hidden).unwrap();
    let every = world.launch.clone().arg("--set").arg("lake.compact.every=1s");
    let mut process = every.arg("--set").arg("sources.shop.follow=true").run();
    let failed = |status: &serde_json::Value| upkeep(status, "compaction")["failures"].as_u64() > Some(0);
    let status = process.wait_for("a compaction that fails", LIMIT, failed).await;
    assert!(status["problems"].to_string().contains("compaction"), "{status}");
    let metrics = process.page("/metrics").await.unwrap();
    assert!(metric(&metrics, "dataflow_upkeep_failures_total{task=\"compaction\"}") >= Some(1.0), "{metrics}");
    assert!(metric(&metrics, "dataflow_compaction_behind_seconds") > Some(86_400.0), "{metrics}");
    assert!(metric(&metrics, "dataflow_upkeep_age_seconds{task=\"compaction\"}").is_some(), "{metrics}");
    std::fs::rename(&hidden, &file).unwrap();
    let done = |status: &serde_json::Value| upkeep(status, "compaction")["succeeded_at"].is_string();
    let status = process.wait_for("the compaction", LIMIT, done).await;
    assert!(!status["problems"].to_string().contains("compaction"), "{status}");
    let metrics = process.page("/metrics").await.unwrap();
    process.stop().await;
    let log = open(world.folder.path()).await;
    let compacted = compactions(&log).await;
    let files = || compacted.values().flat_map(|c| &c.files);
    let rows: u64 = files().map(|file| file.rows).sum();
    let held: u64 = told(&log).await.values().map(|rows| rows.len() as u64).sum();
    assert_eq!(rows, held, "every row once");
    let counted = |name: &str| metric(&metrics, name).map(|value| value as u64);
    let expected = [
        ("dataflow_compaction_hours_total", compacted.len() as u64),
        ("dataflow_compaction_rows_total", rows),
        ("dataflow_compaction_files_total{set=\"before\"}", moved as u64),
        ("dataflow_compaction_files_total{set=\"after\"}", files().count() as u64),
        ("dataflow_compaction_bytes_total{set=\"after\"}", files().map(|file| file.bytes).sum()),
        ("dataflow_compaction_behind_seconds", 0),
    ];
    for (name, value) in expected {
        assert_eq!(counted(name), Some(value), "{name}\n{metrics}");
    }
    assert!(counted("dataflow_compaction_bytes_total{set=\"before\"}") > Some(0));
    assert!(counted("dataflow_upkeep_duration_seconds_count{task=\"compaction\"}") >= Some(1), "{metrics}");
    retire_as_of(&log, &NoOutsiders, in_two_days()).await.unwrap();
    let whole = replayed(&world, 1, "whole.db").await;
    whole.assert(&whole.differences(&stock.expected).await);
}

/// Gives a lake that was written just now the hours of a day long ago. Says how many files moved.
fn move_to_the_past(lake: &Path) -> usize {
    let mut moved = 0;
    for table in std::fs::read_dir(lake.join("processed")).unwrap().map(|entry| entry.unwrap().path()) {
        let past = table.join("dt=2026-01-01/hour=00");
        let days: Vec<_> = std::fs::read_dir(&table).unwrap().map(|entry| entry.unwrap().path()).collect();
        std::fs::create_dir_all(&past).unwrap();
        let hours = days.iter().flat_map(|day| std::fs::read_dir(day).unwrap()).map(|hour| hour.unwrap().path());
        for file in hours.flat_map(|hour| std::fs::read_dir(hour).unwrap()).map(|file| file.unwrap().path()) {
            std::fs::rename(&file, past.join(file.file_name().unwrap())).unwrap();
            moved += 1;
        }
    }
    let manifests = std::fs::read_dir(lake.join("_log")).unwrap().map(|entry| entry.unwrap().path());
    for path in manifests.filter(|path| path.extension().is_some_and(|e| e == "json")) {
        let mut manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        for table in manifest["tables"].as_object_mut().into_iter().flat_map(|tables| tables.values_mut()) {
            for file in table["files"].as_array_mut().into_iter().flatten() {
                let path = file["path"].as_str().unwrap();
                let (folder, _) = path.split_once("/dt=").unwrap();
                let name = path.rsplit_once('/').unwrap().1;
                file["path"] = format!("{folder}/dt=2026-01-01/hour=00/{name}").into();
            }
        }
        std::fs::write(&path, serde_json::to_vec(&manifest).unwrap()).unwrap();
    }
    moved
}

/// Makes everything that the log says two days older, by the store's clock.
fn make_older(lake: &Path) {
    let then = SystemTime::now() - Duration::from_secs(2 * 86_400);
    for entry in std::fs::read_dir(lake.join("_log")).unwrap().map(|entry| entry.unwrap()) {
        if entry.path().is_file() {
            std::fs::File::options().write(true).open(entry.path()).unwrap().set_modified(then).unwrap();
        }
    }
}

/// The files of a table's hour and version follow each other in the order of the key, and so do the rows in them.
async fn sorted_by_key(world: &World, log: &Log) {
    let state = log.state();
    let mut more_than_one = 0;
    for ((table, _), compaction) in compactions(log).await {
        let mut last: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        let mut sizes: BTreeMap<u32, u32> = BTreeMap::new();
        for file in &compaction.files {
            *sizes.entry(file.contract).or_default() += 1;
            let key = state.contract(&table, file.contract).unwrap().output.key.clone();
            let names = if key.is_empty() { vec!["_partition".to_owned()] } else { key };
            let body = std::fs::File::open(world.folder.path().join("lake").join(&file.path)).unwrap();
            for batch in ParquetRecordBatchReaderBuilder::try_new(body).unwrap().build().unwrap() {
                let batch = batch.unwrap();
                let columns: Vec<_> = names.iter().map(|n| Arc::clone(batch.column_by_name(n).unwrap())).collect();
                let fields = columns.iter().map(|c| arrow::row::SortField::new(c.data_type().clone())).collect();
                let converter = arrow::row::RowConverter::new(fields).unwrap();
                for row in &converter.convert_columns(&columns).unwrap() {
                    let last = last.entry(file.contract).or_default();
                    assert!(last.as_slice() <= row.as_ref(), "{}", file.path);
                    *last = row.as_ref().to_vec();
                }
            }
        }
        more_than_one += sizes.values().filter(|count| **count > 1).count();
    }
    assert!(more_than_one > 0, "no hour needed a second file: the sizes of the test are too large");
}

fn kill_at(place: &str, passed: u32) -> String {
    if passed == 0 { format!("{place}=return(kill)") } else { format!("{place}={passed}*off->return(kill)") }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_step_a_compaction_is_done_or_not_begun() {
    let (world, stock) = sold().await;
    let lake = world.folder.path().join("lake");
    let pristine = world.folder.path().join("pristine");
    copy(&lake, &pristine);
    let before = told(&open(world.folder.path()).await).await;
    let as_of = tomorrow().to_rfc3339();
    let places = [
        ("compact.upload.before", 0),
        ("compact.upload.after", 0),
        ("compact.upload.after", 3),
        ("log.put.before", 0),
        ("log.put.after", 0),
    ];
    for (place, passed) in places {
        std::fs::remove_dir_all(&lake).unwrap();
        copy(&pristine, &lake);
        let failpoints = kill_at(place, passed);
        let killed = world.launch.broken(&failpoints, &["compact"], &["--as-of", &as_of]);
        assert_eq!(killed.status.code(), None, "{failpoints}: {}", String::from_utf8_lossy(&killed.stderr));
        assert_eq!(told(&open(world.folder.path()).await).await, before, "after {failpoints}");
        compact_whole(&world, &as_of);
        let log = open(world.folder.path()).await;
        let rows: u64 = compactions(&log).await.values().flat_map(|c| &c.files).map(|file| file.rows).sum();
        assert_eq!(rows, before.values().map(Vec::len).sum::<usize>() as u64, "every row once, after {failpoints}");
        // What the killed one had uploaded is swept.
        sweep_as_of(&log, in_two_days()).await.unwrap();
        let named: usize = compactions(&log).await.values().map(|c| c.files.len()).sum();
        assert_eq!(parquet_files(&lake.join("compacted")), named, "after {failpoints}");
        retire_as_of(&log, &NoOutsiders, in_two_days()).await.unwrap();
        assert_eq!(told(&log).await, before, "after {failpoints}, without originals");
    }
    let whole = replayed(&world, 1, "whole.db").await;
    whole.assert(&whole.differences(&stock.expected).await);
}

fn compact_whole(world: &World, as_of: &str) -> serde_json::Value {
    let output = world.launch.other(&["compact"], &["--as-of", as_of, "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_it_deletes_originals_it_goes_on_the_next_time() {
    let (world, stock) = sold().await;
    let lake = world.folder.path().join("lake");
    let before = told(&open(world.folder.path()).await).await;
    let as_of = tomorrow().to_rfc3339();
    let compacted = compact_whole(&world, &as_of);
    assert_eq!(compacted["retired"]["files"], 0, "readers have a day");
    make_older(&lake);
    let originals = parquet_files(&lake.join("processed"));
    assert!(originals > 20, "{originals}");
    let mut left = originals;
    let places = [
        ("compact.delete.before", 0),
        ("compact.delete.after", 0),
        ("compact.delete.before", 9),
        ("compact.delete.after", 9),
        ("log.put.before", 0),
        ("log.put.after", 0),
    ];
    for (place, passed) in places {
        let failpoints = kill_at(place, passed);
        let killed = world.launch.broken(&failpoints, &["compact"], &["--as-of", &as_of]);
        assert_eq!(killed.status.code(), None, "{failpoints}: {}", String::from_utf8_lossy(&killed.stderr));
        let now = parquet_files(&lake.join("processed"));
        assert!(now <= left, "{failpoints}");
        left = now;
        assert_eq!(told(&open(world.folder.path()).await).await, before, "after {failpoints}");
    }
    assert_eq!(left, 0, "the log was told after the last file");
    assert_eq!(compact_whole(&world, &as_of)["retired"]["entries"], 0, "the log knows");
    assert_eq!(told(&open(world.folder.path()).await).await, before);
    let whole = replayed(&world, 1, "whole.db").await;
    whole.assert(&whole.differences(&stock.expected).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_compactors_and_late_files_do_no_harm() {
    let (world, _) = sold().await;
    let (one, other) = (open(world.folder.path()).await, open(world.folder.path()).await);
    let before = told(&one).await;
    let (a, b) = tokio::join!(compact(&one, tomorrow(), &SMALL), compact(&other, tomorrow(), &SMALL));
    let (a, b) = (a.unwrap(), b.unwrap());
    let rows = before.values().map(Vec::len).sum::<usize>() as u64;
    assert_eq!(a.rows + b.rows, rows, "{a:?} {b:?}");
    assert!(a.fenced || b.fenced || a.rows == 0 || b.rows == 0, "{a:?} {b:?}");
    assert_eq!(told(&one).await, before);

    // More is sold in the same hour, which was taken as closed too early.
    let more = Stock::make(92, busy_shop(300), 300);
    let lines: Vec<&[u8]> = more.lines().collect();
    std::fs::write(world.events().join("9999.jsonl"), [lines.join(&b'\n'), b"\n".to_vec()].concat()).unwrap();
    world.launch.run_until_caught_up().await;
    let later = told(&one).await;
    assert!(later.len() > before.len());
    let third = compact(&one, tomorrow(), &SMALL).await.unwrap();
    assert!(third.rows > 0);
    assert_eq!(told(&one).await, later);
    let lake = world.folder.path().join("lake");
    retire_as_of(&one, &NoOutsiders, in_two_days()).await.unwrap();
    sweep_as_of(&one, in_two_days()).await.unwrap();
    // One who did not hear of the third compaction looks for the files of the first.
    assert_eq!(told(&one).await, later);
    assert_eq!(told(&other).await, later);
    let named: usize = compactions(&one).await.values().map(|c| c.files.len()).sum();
    assert_eq!((parquet_files(&lake.join("processed")), parquet_files(&lake.join("compacted"))), (0, named));
}

/// GIVEN a compactor that planned and was held up, WHEN another one has compacted more meanwhile, in a log that both know
/// of, THEN the slow one is fenced: what it would say is less than what is true.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_compactor_is_fenced_even_in_one_process() {
    let (world, _) = sold().await;
    let log = open(world.folder.path()).await;
    let before = told(&log).await;
    let (a, b) = tokio::join!(compact(&log, tomorrow(), &SMALL), compact(&log, tomorrow(), &SMALL));
    let (a, b) = (a.unwrap(), b.unwrap());
    assert_eq!(a.rows + b.rows, before.values().map(Vec::len).sum::<usize>() as u64, "{a:?} {b:?}");
    assert!(a.fenced != b.fenced, "{a:?} {b:?}");
    retire_as_of(&log, &NoOutsiders, in_two_days()).await.unwrap();
    assert_eq!(told(&log).await, before);
}
