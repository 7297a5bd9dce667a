//! Records as they came, in the raw zone and in quarantine.

use super::*;

#[tokio::test]
async fn raw_records_come_back_plain_and_encrypted() {
    let folder = tempfile::tempdir().unwrap();
    let open = |keep, key: Option<String>| {
        let raw = config::Raw { keep, retention: None, archive_after: None, key };
        Lake::open(&config::Lake { raw: Some(raw), ..local(folder.path()) })
    };
    assert_eq!(open(config::RawKeep::Encrypted, None).unwrap_err().kind(), &ErrorKind::Config);
    let second = RawBatch { partition: Partition::new("shop", "other"), stream: None, ..raw_batch() };
    for (keep, key) in [(config::RawKeep::Plain, None), (config::RawKeep::Encrypted, Some("5a".repeat(32)))] {
        let lake = open(keep, key.clone()).unwrap();
        let mut writer = EpochWriter::begin(&lake);
        for batch in [&raw_batch(), &second, &raw_batch()] {
            writer.raw(batch).unwrap();
        }
        let file = writer.finish().await.unwrap().raw.unwrap();
        let back = lake.read_raw(&file).await.unwrap();
        assert_eq!(
            back.iter().map(|b| b.partition.clone()).collect::<Vec<_>>(),
            [raw_batch().partition, second.partition.clone(), raw_batch().partition]
        );
        for batch in &back {
            assert_eq!((batch.generation, &batch.span), (3, &raw_batch().span));
            assert_eq!(all_records(batch), all_records(&raw_batch()));
        }
        assert_eq!((back[0].stream.as_deref(), back[1].stream.as_deref()), (Some("shop.public.orders"), None));
        let stored = std::fs::read(folder.path().join("lake").join(&file.path)).unwrap();
        let plain_inside = stored.windows(7).any(|window| window == b"{\"a\":1}");
        assert_eq!(plain_inside, key.is_none());
        if key.is_some() {
            let other = open(keep, Some("77".repeat(32))).unwrap();
            assert_eq!(other.read_raw(&file).await.unwrap_err().kind(), &ErrorKind::Config);
        }
    }
    let none = open(config::RawKeep::None, None).unwrap();
    let mut writer = EpochWriter::begin(&none);
    writer.raw(&raw_batch()).unwrap();
    assert!(writer.is_empty() && !none.keeps_raw());
}

#[tokio::test]
async fn rejects_come_back_and_their_payload_only_with_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let open = |key: Option<String>| {
        let quarantine = config::Quarantine { key, retention: None };
        Lake::open(&config::Lake { quarantine, ..local(folder.path()) }).unwrap()
    };
    let (with_key, without, other) = (open(Some("5a".repeat(32))), open(None), open(Some("77".repeat(32))));
    let raw = raw_batch();
    let write = async |lake: &Lake| {
        let mut writer = EpochWriter::begin(lake);
        for record in raw.records.iter() {
            writer.reject(reject(record.offset()), Some(record)).unwrap();
        }
        writer.reject(reject(99), None).unwrap();
        writer.finish().await.unwrap().quarantine.unwrap()
    };
    let kept = write(&with_key).await;
    assert_eq!(kept.by_table, BTreeMap::from([(String::new(), 1), ("orders".to_owned(), 3)]));
    let entries = with_key.read_rejects(&kept.file).await.unwrap();
    assert_eq!(entries.iter().map(|e| e.row).collect::<Vec<_>>(), [0, 1, 2, 3]);
    for (entry, offset) in entries.iter().zip([10, 12, 13, 99]) {
        assert_eq!(format!("{:?}", entry.reject), format!("{:?}", reject(offset)));
    }
    let headers = vec![
        ("trace".to_owned(), Some(b"abc".to_vec())),
        ("bytes".to_owned(), Some(vec![0xff, 0x00])),
        ("null".to_owned(), None),
    ];
    let value = Some(b"{\"a\":1}".to_vec());
    let payload = Payload::Open { offset: 10, timestamp_us: 5_000_000, key: Some(b"k".to_vec()), value, headers };
    assert_eq!(entries[0].payload, payload);
    let tombstone =
        Payload::Open { offset: 13, timestamp_us: 6_000_000, key: Some(vec![0xfe]), value: None, headers: vec![] };
    assert_eq!((&entries[2].payload, &entries[3].payload), (&tombstone, &Payload::Absent));
    for lake in [&without, &other] {
        assert_eq!(lake.read_rejects(&kept.file).await.unwrap()[0].payload, Payload::Locked);
    }
    let dropped = write(&without).await;
    assert!(with_key.read_rejects(&dropped.file).await.unwrap().iter().all(|e| e.payload == Payload::Absent));
}

#[tokio::test]
async fn quarantine_counts_open_entries_until_they_are_retried_or_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let lake = Lake::open(&local(folder.path())).unwrap();
    let log = Log::open(lake.clone(), "sales", Access::Write).await.unwrap();
    let mut writer = EpochWriter::begin(&lake);
    for offset in [1, 2, 3, 12] {
        writer.reject(reject(offset), None).unwrap();
    }
    let quarantine = writer.finish().await.unwrap().quarantine;
    let draft = || Draft::new(Ulid::new(), Utc::now());
    log.commit(Draft { quarantine, ..draft() }, &same).await.unwrap();
    let (table, epoch) = ("orders".to_owned(), 1);
    let pause = Control::Pause { table: table.clone(), why: "a look".into(), parked: false };
    let retried = Control::Retried { epoch, rows: vec![0, 2], table: table.clone() };
    log.commit(Draft { control: vec![pause, retried], ..draft() }, &same).await.unwrap();
    assert_eq!(log.state().open_quarantine, BTreeMap::from([(String::new(), 1), (table.clone(), 1)]));
    assert_eq!(log.state().stopped[&table].since, 2);
    let dropped = Control::Dropped { epoch, rows: vec![1], table: table.clone() };
    log.commit(Draft { control: vec![Control::Resume { table }, dropped], ..draft() }, &same).await.unwrap();
    assert_eq!(log.state().open_quarantine, BTreeMap::from([(String::new(), 1)]));
    assert!(log.state().stopped.is_empty());
}
