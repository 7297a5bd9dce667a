//! What is taken away, and when.

use super::*;

/// Sets the times of all files below a folder back.
fn age(folder: &std::path::Path, by: std::time::Duration) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            age(&path, by);
        } else {
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(std::time::SystemTime::now() - by).unwrap();
        }
    }
}

const HOUR: std::time::Duration = std::time::Duration::from_secs(3600);

#[tokio::test]
async fn a_sweep_deletes_only_what_is_unnamed_and_old() {
    let folder = tempfile::tempdir().unwrap();
    let server = S3Server::start().await;
    for (config, root) in
        [(local(folder.path()), folder.path().join("lake")), (server.lake("sales"), server.folder().join("sales"))]
    {
        let raw = config::Raw { keep: config::RawKeep::Plain, retention: None, archive_after: None, key: None };
        let lake = Lake::open(&config::Lake { raw: Some(raw), ..config }).unwrap();
        let log = Log::open(lake.clone(), "sales", Access::Write).await.unwrap();
        let contract = contract("orders", &orders());
        let named = log.commit(seal(&lake, &contract, "0", 0, 5).await, &same).await.unwrap();
        let given_up = seal(&lake, &contract, "0", 5, 9).await;
        assert_eq!(sweep(&log).await.unwrap().unnamed, Vec::<String>::new(), "nothing is old");
        age(&root.join("processed"), 23 * HOUR);
        assert_eq!(sweep(&log).await.unwrap().unnamed, Vec::<String>::new(), "nothing is a day old");

        age(&root.join("processed"), 25 * HOUR);
        let young = seal(&lake, &contract, "0", 5, 9).await;
        let report = sweep(&log).await.unwrap();
        assert_eq!(report.unnamed, [given_up.tables["orders"].epoch.files[0].path.clone()]);
        for file in [&named.tables["orders"].files[0], &young.tables["orders"].epoch.files[0]] {
            assert_eq!(lake.read_changes(file, &contract).await.unwrap()[0].len() as u64, file.rows);
        }
        assert_eq!(sweep_everything(&log).await.unwrap().unnamed, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_usual_sweep_leaves_very_old_files_to_the_full_one() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&local(folder.path())).unwrap();
    let log = Log::open(lake.clone(), "sales", Access::Write).await.unwrap();
    let contract = contract("orders", &orders());
    log.commit(seal(&lake, &contract, "0", 0, 5).await, &same).await.unwrap();
    seal(&lake, &contract, "0", 5, 9).await;
    age(&folder.path().join("lake/processed"), 24 * 30 * HOUR);
    assert_eq!(sweep(&log).await.unwrap().unnamed.len(), 0);
    assert_eq!(sweep_everything(&log).await.unwrap().unnamed.len(), 1);
    assert_eq!(sweep_everything(&log).await.unwrap().seen, 1);
}

#[tokio::test]
async fn raw_and_quarantine_expire_after_their_retention() {
    let folder = tempfile::tempdir().unwrap();
    let days = |n: u64| Some(config::Span::seconds(n * 24 * 3600));
    let raw = config::Raw { keep: config::RawKeep::Plain, retention: days(7), archive_after: None, key: None };
    let quarantine = config::Quarantine { key: None, retention: days(3) };
    let lake = Lake::open(&config::Lake { raw: Some(raw), quarantine, ..local(folder.path()) }).unwrap();
    let log = Log::open(lake.clone(), "sales", Access::Write).await.unwrap();
    let mut writer = EpochWriter::begin(&lake);
    writer.raw(&raw_batch()).unwrap();
    writer.reject(reject(1), None).unwrap();
    let attempt = writer.attempt();
    let sealed = writer.finish().await.unwrap();
    let raw_file = sealed.raw.clone().unwrap();
    let draft = Draft { quarantine: sealed.quarantine, raw: sealed.raw, ..Draft::new(attempt, Utc::now()) };
    log.commit(draft, &same).await.unwrap();
    let root = folder.path().join("lake");
    let manifest = root.join("_log").join(format!("{:020}.json", 1));
    for (hours, raw, quarantine) in [(71, 0, 0), (73, 0, 1), (24 * 8, 1, 0)] {
        age(&root.join("raw"), hours * HOUR);
        age(&root.join("quarantine"), hours * HOUR);
        let manifest = std::fs::File::options().write(true).open(&manifest).unwrap();
        manifest.set_modified(std::time::SystemTime::now() - hours * HOUR).unwrap();
        let report = sweep(&log).await.unwrap();
        assert_eq!((report.expired_raw.len(), report.expired_quarantine.len()), (raw, quarantine), "{hours} h");
        assert_eq!(report.unnamed.len(), 0);
    }
    let gone = lake.read_raw(&raw_file).await.unwrap_err();
    assert!(gone.kind() == &ErrorKind::Config && gone.to_string().contains("retention"), "{gone}");
}

/// GIVEN raw files of some age, WHEN the lake is swept, THEN they move to the archive, are read there like before, also when
/// a sweep was cut off between the copy and the deletion, and go when the retention that began with them is over.
#[tokio::test]
async fn raw_files_move_to_the_archive_and_expire_there() {
    let folder = tempfile::tempdir().unwrap();
    let server = S3Server::start().await;
    for (config, root) in
        [(local(folder.path()), folder.path().join("lake")), (server.lake("sales"), server.folder().join("sales"))]
    {
        let days = |n: u64| Some(config::Span::seconds(n * 24 * 3600));
        let keep = config::RawKeep::Plain;
        let raw = config::Raw { keep, retention: days(7), archive_after: days(2), key: None };
        let lake = Lake::open(&config::Lake { raw: Some(raw), ..config }).unwrap();
        let log = Log::open(lake.clone(), "sales", Access::Write).await.unwrap();
        let mut writer = EpochWriter::begin(&lake);
        writer.raw(&raw_batch()).unwrap();
        let attempt = writer.attempt();
        let raw = writer.finish().await.unwrap().raw;
        let file = raw.clone().unwrap();
        log.commit(Draft { raw, ..Draft::new(attempt, Utc::now()) }, &same).await.unwrap();
        let (here, there) = (root.join(&file.path), root.join("archive").join(&file.path));
        let in_days = |days: i64| Utc::now() + TimeDelta::hours(days * 24 + 1);
        let read = || async { all_records(&lake.read_raw(&file).await.unwrap()[0]) };
        let known = || async { lake.raw_files().await.unwrap().hold(&file) };
        let whole = all_records(&raw_batch());

        assert_eq!(sweep_as_of(&log, in_days(1)).await.unwrap().archived_raw.len(), 0);
        assert!(here.exists() && !there.exists() && known().await);
        for again in [false, true] {
            if again {
                std::fs::copy(&there, &here).unwrap();
                assert_eq!(read().await, whole);
            }
            let swept = sweep_as_of(&log, in_days(2)).await.unwrap();
            assert_eq!((swept.archived_raw.len(), swept.expired_raw.len(), swept.unnamed.len()), (1, 0, 0));
            assert!(!here.exists() && there.exists() && known().await);
            assert_eq!(read().await, whole);
        }
        // The copy is as old as the store says; what it holds is older.
        age(&root.join("archive"), HOUR);
        assert_eq!(sweep_as_of(&log, in_days(6)).await.unwrap().expired_raw.len(), 0);
        assert_eq!(sweep_as_of(&log, in_days(7)).await.unwrap().expired_raw.len(), 1);
        assert!(!there.exists() && !known().await);
        assert!(lake.read_raw(&file).await.unwrap_err().to_string().contains("retention"));
    }
}
