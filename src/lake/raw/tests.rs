use arrow::array::{BinaryArray, RecordBatch, StringArray, UInt64Array};
use arrow::compute::take_record_batch;

use super::*;

fn file_of(body: &Bytes, rows: u64) -> DataFile {
    let (path, bytes) = ("raw/x.parquet".to_owned(), body.len() as u64);
    DataFile { path, contract: 0, rows, bytes, memory_bytes: 1_000, crc32: 0 }
}

/// What is read of a file.
fn read(body: Bytes, rows: u64, key: Option<&MasterKey>) -> Result<(Vec<RawBatch>, bool)> {
    let mut open = RawFile::open(&file_of(&body, rows), body, key.cloned())?;
    let mut batches = Vec::new();
    while let Some(more) = open.step()? {
        batches.extend(more);
    }
    Ok((batches, open.tells_apart()))
}

fn key() -> MasterKey {
    MasterKey::from_hex("lake.raw.key", &"0a".repeat(32)).unwrap()
}

fn batch(records: RawRecords) -> RawBatch {
    let span = Span { from: Position("{}".into()), to: Position("{}".into()) };
    let partition = Partition::new("shop", "slot@1");
    RawBatch { partition, generation: 2, span, stream: None, records, inside_transaction: true }
}

type Record = (u64, (u64, u32), Option<Vec<u8>>);

fn records(batch: &RawBatch) -> Vec<Record> {
    let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
    batch.records.iter().map(|record| (record.offset(), record.within(), owned(record.value()))).collect()
}

fn written(batch: &RawBatch, read_by: &ReadBy, keep: RawKeep) -> LocalFile {
    let mut writer = RawWriter::new(Ulid::new(), keep, Some(&key()), Compression::default());
    writer.push(batch, read_by).unwrap();
    writer.finish().unwrap().unwrap()
}

/// GIVEN records of a database's log, rows that were read beside it among them, THEN each comes back at its place, in the
/// file's order, with what was said of them before; and no batch has two of one place.
#[test]
fn records_of_one_offset_are_told_apart() {
    let places: [(u64, (u64, u32)); 7] = [
        (9, (0, 0)),
        (9, (0, 1)),
        (9, (0, 1)),
        (u64::MAX, (u64::MAX - 1, u32::MAX)),
        (9, (7, 2)),
        (9, (7, 3)),
        (9, (8, 0)),
    ];
    let mut given = RawRecords::default();
    for (number, (offset, within)) in places.into_iter().enumerate() {
        given.push_within(offset, within, NO_TIME, None, Some(format!("value {number}").as_bytes()));
    }
    let given = batch(given);
    let read_by = ReadBy { earlier: vec![(1, b"{\"id\":1}"[..].into())], own: Vec::new() };
    for keep in [RawKeep::Plain, RawKeep::Encrypted] {
        let file = written(&given, &read_by, keep);
        let (back, tells_apart) = read(file.body, file.rows, Some(&key())).unwrap();
        assert!(tells_apart);
        assert_eq!(back.iter().flat_map(records).collect::<Vec<_>>(), records(&given), "{keep:?}");
        assert_eq!(back.iter().map(|batch| batch.records.len()).collect::<Vec<_>>(), [2, 2, 3], "{keep:?}");
        let recalled: Vec<usize> = back.iter().map(|batch| batch.records.recalled().len()).collect();
        assert_eq!((recalled, &*back[0].records.recalled()[0]), (vec![1, 0, 0], &b"{\"id\":1}"[..]), "{keep:?}");
    }
}

/// The columns of a file in another order of their rows, or without the last ones.
fn rewritten(body: Bytes, change: impl FnOnce(RecordBatch) -> RecordBatch) -> Bytes {
    let mut steps = ParquetRecordBatchReaderBuilder::try_new(body).unwrap().build().unwrap();
    let changed = change(steps.next().unwrap().unwrap());
    let mut open = OpenFile::begin(changed.schema(), form::properties(Compression::default())).unwrap();
    open.write(&changed).unwrap();
    open.finish().unwrap().body
}

#[test]
fn payloads_of_one_place_cannot_change_theirs() {
    let mut given = RawRecords::default();
    given.push_within(9, (0, 1), NO_TIME, None, Some(b"of one table"));
    given.push_within(9, (0, 1), NO_TIME, None, Some(b"of another"));
    let given = batch(given);
    let file = written(&given, &ReadBy::default(), RawKeep::Encrypted);
    let whole = rewritten(file.body.clone(), |batch| batch);
    assert_eq!(read(whole, 2, Some(&key())).unwrap().0.iter().flat_map(records).collect::<Vec<_>>(), records(&given));
    let swapped = rewritten(file.body, |batch| take_record_batch(&batch, &UInt64Array::from(vec![1, 0])).unwrap());
    assert_eq!(read(swapped, 2, Some(&key())).unwrap_err().kind(), &ErrorKind::Config);
}

/// GIVEN a file from before records of one offset were told apart, plain or encrypted, THEN it is read as ever, and says so.
#[test]
fn older_files_are_read() {
    let mut given = RawRecords::default();
    given.push(7, 5, None, Some(b"seven"));
    given.push(8, NO_TIME, Some(b"k"), None);
    let given = batch(given);
    let file = written(&given, &ReadBy::default(), RawKeep::Plain);
    let old = |batch: RecordBatch| batch.project(&(0..OLD_COLUMNS).collect::<Vec<_>>()).unwrap();
    let plain = rewritten(file.body.clone(), old);
    let attempt = Ulid::new().to_string();
    let file_key = key().for_file(&salt(&attempt));
    let encrypted = rewritten(file.body, |batch| {
        let batch = old(batch);
        let mut columns = batch.columns().to_vec();
        let seal = |part: &str, plain: &[u8]| file_key.seal(part, plain).unwrap();
        let value = seal("shop:slot@1/7/value", b"seven");
        columns[5] = Arc::new(BinaryArray::from_opt_vec(vec![None, Some(&seal("shop:slot@1/8/key", b"k"))]));
        columns[6] = Arc::new(BinaryArray::from_opt_vec(vec![Some(&value), None]));
        columns[8] = Arc::new(StringArray::from(vec![attempt.clone(); 2]));
        RecordBatch::try_new(batch.schema(), columns).unwrap()
    });
    for body in [plain, encrypted] {
        let (back, tells_apart) = read(body, 2, Some(&key())).unwrap();
        assert!(!tells_apart);
        assert_eq!(back.iter().flat_map(records).collect::<Vec<_>>(), records(&given));
        assert_eq!(back[0].records.get(1).unwrap().key(), Some(&b"k"[..]));
    }
}
