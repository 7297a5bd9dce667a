//! What becomes of refused entries: their retention, and the partial rows that found no base in the warehouse.

use std::collections::BTreeMap;
use std::path::Path;

use chrono::{TimeDelta, Utc};
use dataflow::batch::{Reject, Seq};
use dataflow::config;
use dataflow::contract::TableSchema;
use dataflow::epoch::Control;
use dataflow::error::{ErrorKind, Result};
use dataflow::lake::{Access, Draft, EpochWriter, Lake, Log, sweep, sweep_as_of};
use dataflow::pipeline::quarantine::{drop_rejects, open_rejects};
use dataflow::progress::Partition;

const RETENTION: TimeDelta = TimeDelta::days(3);

fn lake(folder: &Path) -> Lake {
    let seconds = RETENTION.num_seconds() as u64;
    let quarantine = config::Quarantine { key: None, retention: Some(config::Span::seconds(seconds)) };
    Lake::open(&config::Lake { url: folder.join("lake").display().to_string(), quarantine, ..config::Lake::default() })
        .unwrap()
}

fn same(_: &str, input: &TableSchema) -> Result<TableSchema> {
    Ok(input.clone())
}

fn reject(table: Option<&str>, offset: u64) -> Reject {
    Reject {
        table: table.map(str::to_owned),
        partition: Partition::new("shop", "orders/0"),
        seq: Seq { generation: 1, major: offset, ..Seq::default() },
        rule: "positive_amount".into(),
        reason: "amount is -1".into(),
        op: None,
        key: None,
        values: None,
        source_time_us: 77,
    }
}

/// An epoch that refuses two rows of `orders`, one of `lines`, and one of no known table.
async fn refuse(lake: &Lake, log: &Log) -> u64 {
    let mut writer = EpochWriter::begin(lake);
    for (offset, table) in [Some("orders"), Some("orders"), Some("lines"), None].into_iter().enumerate() {
        writer.reject(reject(table, offset as u64), None).unwrap();
    }
    let attempt = writer.attempt();
    let sealed = writer.finish().await.unwrap();
    let draft = Draft { quarantine: sealed.quarantine, ..Draft::new(attempt, Utc::now()) };
    log.commit(draft, &same).await.unwrap().n
}

fn counts(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
    of.iter().map(|(table, count)| ((*table).to_owned(), *count)).collect()
}

fn files(folder: &Path) -> usize {
    fn below(folder: &Path) -> usize {
        let entries = std::fs::read_dir(folder).map(|entries| entries.flatten().collect::<Vec<_>>());
        entries.unwrap_or_default().iter().map(|e| if e.path().is_dir() { below(&e.path()) } else { 1 }).sum()
    }
    below(&folder.join("lake/quarantine"))
}

/// Ages what the log holds of an epoch, as the store sees it.
fn age_manifest(folder: &Path, n: u64, by: TimeDelta) {
    let path = folder.join(format!("lake/_log/{n:020}.json"));
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(std::time::SystemTime::now() - by.to_std().unwrap()).unwrap();
}

#[tokio::test]
async fn entries_past_their_retention_are_closed_in_the_log_before_their_file_goes() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(folder.path());
    let log = Log::open(lake.clone(), "shop", Access::Write).await.unwrap();
    assert_eq!((refuse(&lake, &log).await, refuse(&lake, &log).await), (1, 2));
    age_manifest(folder.path(), 1, TimeDelta::hours(30));
    let given_up: Vec<_> = open_rejects(&lake, &log).await.unwrap().into_iter().take(1).collect();
    drop_rejects(&log, &given_up).await.unwrap();
    let now = Utc::now();
    assert_eq!(log.state().open_quarantine, counts(&[("", 2), ("lines", 2), ("orders", 3)]));

    // A day before the end of the older epoch's retention people are told, and nothing is closed.
    let report = sweep_as_of(&log, now + TimeDelta::hours(40)).await.unwrap();
    assert_eq!(report.expiring_rejects, counts(&[("", 1), ("lines", 1), ("orders", 1)]));
    assert_eq!((report.expired_rejects, report.expired_quarantine.len()), (BTreeMap::new(), 0));
    assert_eq!(log.state().n, 3, "nothing to say, no manifest");
    assert_eq!(sweep(&log).await.unwrap().expiring_rejects, BTreeMap::new());

    let report = sweep_as_of(&log, now + TimeDelta::hours(43)).await.unwrap();
    assert_eq!(report.expired_rejects, counts(&[("", 1), ("lines", 1), ("orders", 1)]));
    assert_eq!((report.expired_quarantine.len(), files(folder.path())), (1, 1));
    let manifest = log.manifest(4).await.unwrap();
    assert_eq!(manifest.control, [Control::Expired { through: 1, open: report.expired_rejects }]);

    // Every reader agrees, also one that begins at the beginning.
    let reader = Log::open(lake.clone(), "shop", Access::Read).await.unwrap();
    assert_eq!(reader.state(), log.state());
    let state = reader.state();
    assert_eq!(state.open_quarantine, counts(&[("", 1), ("lines", 1), ("orders", 2)]));
    assert_eq!(state.expired_quarantine, counts(&[("", 1), ("lines", 1), ("orders", 1)]));
    let open = open_rejects(&lake, &reader).await.unwrap();
    assert_eq!(open.iter().map(|o| (o.epoch, o.entry.row)).collect::<Vec<_>>(), [(2, 0), (2, 1), (2, 2), (2, 3)]);

    // Once is enough.
    let again = sweep_as_of(&log, now + TimeDelta::hours(43)).await.unwrap();
    assert_eq!((again.expired_rejects, log.state().n), (BTreeMap::new(), 4));
    let report = sweep_as_of(&log, now + TimeDelta::days(4)).await.unwrap();
    assert_eq!(report.expired_rejects, counts(&[("", 1), ("lines", 1), ("orders", 2)]));
    assert_eq!((files(folder.path()), log.state().open_quarantine.len()), (0, 0), "tombstones may go");
    assert!(log.state().closed_quarantine.is_empty());
}

#[tokio::test]
async fn who_closes_an_entry_that_expired_meanwhile_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(folder.path());
    let log = Log::open(lake.clone(), "shop", Access::Write).await.unwrap();
    refuse(&lake, &log).await;
    let meant = open_rejects(&lake, &log).await.unwrap();
    sweep_as_of(&log, Utc::now() + TimeDelta::days(4)).await.unwrap();
    let error = drop_rejects(&log, &meant).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Config);
    assert!(error.to_string().contains("entry 1/0: its retention is over"), "{error}");
}

#[tokio::test]
async fn a_sweep_that_was_cut_off_after_the_log_is_made_up_for() {
    let folder = tempfile::tempdir().unwrap();
    let lake = lake(folder.path());
    let log = Log::open(lake.clone(), "shop", Access::Write).await.unwrap();
    refuse(&lake, &log).await;
    let open = counts(&[("", 1), ("lines", 1), ("orders", 2)]);
    let control = vec![Control::Expired { through: 1, open }];
    log.commit(Draft { control, ..Draft::new(ulid::Ulid::new(), Utc::now()) }, &same).await.unwrap();
    assert_eq!(files(folder.path()), 1);
    let report = sweep_as_of(&log, Utc::now() + RETENTION + TimeDelta::hours(3)).await.unwrap();
    assert_eq!((report.expired_quarantine.len(), files(folder.path()), log.state().n), (1, 0, 2));
}
