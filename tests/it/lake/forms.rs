//! What is stored: its forms, golden files, and what is refused.

use super::*;

#[tokio::test]
async fn a_log_that_was_cut_off_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&local(folder.path())).unwrap();
    let open = || Log::open(lake.clone(), "sales", Access::Write);
    let (log, late, cut) = (open().await.unwrap(), open().await.unwrap(), open().await.unwrap());
    let draft = || Draft::new(Ulid::new(), Utc::now());
    for n in 1..=70 {
        log.commit(draft(), &same).await.unwrap();
        if n == 40 {
            cut.refresh().await.unwrap();
        }
    }
    // A writer that was away for long catches up by itself.
    assert_eq!(late.commit(draft(), &same).await.unwrap().n, 71);
    // Restored from an old copy, but for the checkpoint.
    let manifest = |n: u64| folder.path().join(format!("lake/_log/{n:020}.json"));
    for n in 41..=71 {
        std::fs::remove_file(manifest(n)).unwrap();
    }
    let at_start = open().await.unwrap_err();
    assert_eq!(at_start.kind(), &ErrorKind::LogCorrupt);
    assert!(at_start.to_string().contains("checkpoint 64"), "{at_start}");
    assert_eq!(cut.state().n, 40);
    assert_eq!(cut.commit(draft(), &same).await.unwrap_err().kind(), &ErrorKind::LogCorrupt);
    assert!(!manifest(41).exists());
}

#[tokio::test]
async fn what_a_newer_program_wrote_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&local(folder.path())).unwrap();
    let log = Log::open(lake.clone(), "sales", Access::Write).await.unwrap();
    let path = folder.path().join("lake/_log/00000000000000000001.json");
    std::fs::write(&path, r#"{"format":9,"reader":9,"something":"else"}"#).unwrap();
    let error = log.refresh().await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Config);
    assert!(error.help_text().unwrap().contains("newer"));
    std::fs::write(&path, "{").unwrap();
    assert_eq!(log.refresh().await.unwrap_err().kind(), &ErrorKind::LogCorrupt);
}

/// A manifest of format 1 as it was written once: it must parse for ever, and mean the same.
#[test]
fn the_golden_manifest_of_format_1_is_read_and_written_as_it_stands() {
    let text = include_str!("../../golden/manifest-v1.json");
    let manifest: Manifest = serde_json::from_str(text).unwrap();
    assert_eq!((manifest.n, manifest.format, manifest.reader), (17, 1, 1));
    assert_eq!(manifest.spans[1].mark.as_deref(), Some("lsn:77"));
    assert_eq!(manifest.contracts[0].output.columns[1].data_type, Type::Decimal { precision: 12, scale: 2 });
    assert_eq!(manifest.control.len(), 5);
    assert_eq!(manifest.account.imbalance(), None);
    let golden: serde_json::Value = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_value(&manifest).unwrap(), golden, "the stored form must not change within a format");
    let least = r#"{"format":1,"reader":1,"log":"6e1f5a52-2c47-4d7e-9d0e-0b8f3a0c9a11","n":1,
        "attempt":"01KAM5ZQ0W8R4T2V6X8Z0B3D5F","sealed_at":"2026-11-22T12:34:56Z"}"#;
    assert_eq!(serde_json::from_str::<Manifest>(least).unwrap().tables, BTreeMap::new());
}

/// The same of format 2, which brought compactions.
#[test]
fn the_golden_manifest_of_format_2_is_read_and_written_as_it_stands() {
    let text = include_str!("../../golden/manifest-v2.json");
    let manifest: Manifest = serde_json::from_str(text).unwrap();
    let Control::Compacted { hour, tables, considered } = &manifest.control[0] else { panic!("{manifest:?}") };
    assert_eq!((hour.as_str(), *considered, manifest.control[0].reader()), ("dt=2026-11-22/hour=14", 17, 2));
    assert_eq!((&manifest.control[1], manifest.control[1].reader()), (&Control::Retired { through: 12 }, 2));
    assert_eq!((tables["orders"].first, tables["orders"].last, tables["orders"].files[0].rows), (3, 17, 120));
    let golden: serde_json::Value = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_value(&manifest).unwrap(), golden, "the stored form must not change within a format");
}
