//! Old lakes made by hand: what a live source does only now and then.

use chrono::Utc;
use dataflow::batch::{NO_TIME, RawBatch, RawRecords, RecordAccount, Seq};
use dataflow::config;
use dataflow::contract::TableSchema;
use dataflow::error::{Error, ErrorKind, Result};
use dataflow::lake::{Access, Draft, EpochWriter, Lake, Log};
use dataflow::progress::{Advance, Generation, Partition, Position, Span};
use serde_json::json;

use super::{Case, places, refused, reprocess, reprocessed, sound};
use crate::support::process::Launch;

const STREAM: &str = "shop.public.t";

/// A record: partition, offset, generation, key, value, headers.
struct Record {
    partition: &'static str,
    offset: u64,
    generation: Generation,
    stream: Option<&'static str>,
    key: Option<String>,
    value: Option<String>,
    headers: Vec<(&'static str, String)>,
}

fn key(id: u64) -> String {
    json!({ "id": id }).to_string()
}

fn record(partition: &'static str, offset: u64, generation: Generation, op: &str, id: u64) -> Record {
    let row = json!({ "id": id, "at": format!("{partition}/{offset}") });
    let (before, after) = if op == "d" { (row, json!(null)) } else { (json!(null), row) };
    let source = json!({ "connector": "postgresql", "name": "shop", "ts_ms": 1_780_000_000_000u64, "db": "shop",
                         "schema": "public", "table": "t", "lsn": offset });
    let value = json!({ "op": op, "before": before, "after": after, "source": source }).to_string();
    let (key, value) = (Some(key(id)), Some(value));
    Record { partition, offset, generation, stream: Some(STREAM), key, value, headers: Vec::new() }
}

fn halves(partition: &'static str, offset: u64, old: u64, new: u64) -> [Record; 3] {
    let [mut delete, mut create] = [record(partition, offset, 0, "d", old), record(partition, offset + 2, 0, "c", new)];
    delete.headers = vec![("__debezium.newkey", key(new))];
    create.headers = vec![("__debezium.oldkey", key(old))];
    let tombstone = Record { value: None, headers: Vec::new(), ..record(partition, offset + 1, 0, "d", old) };
    [delete, tombstone, create]
}

fn span(name: &str, from: u64, to: u64, generation: Generation) -> Advance {
    let span = Span { from: Position::offset(from), to: Position::offset(to) };
    Advance { partition: Partition::new("shop", name), span, generation, mark: None }
}

/// A lake as a Kafka source would have left it.
struct Made {
    case: Case,
    lake: Lake,
    log: Log,
}

impl Made {
    async fn new() -> Self {
        let case = Case::new();
        let raw = config::Raw { keep: config::RawKeep::Plain, retention: None, archive_after: None, key: None };
        let settings = config::Lake {
            url: case.path("lake-old").to_str().unwrap().to_owned(),
            raw: Some(raw),
            ..config::Lake::default()
        };
        let lake = Lake::open(&settings).unwrap();
        let log = Log::open(lake.clone(), "another-name", Access::Write).await.unwrap();
        Self { case, lake, log }
    }

    /// Commits an epoch that says that it read `said` records.
    async fn epoch(&self, spans: Vec<Advance>, records: Vec<Record>, said: u64) {
        let mut writer = EpochWriter::begin(&self.lake);
        for record in records {
            let mut one = RawRecords::default();
            let bytes = |text: &Option<String>| text.as_ref().map(|text| text.as_bytes().to_vec());
            one.push(record.offset, NO_TIME, bytes(&record.key).as_deref(), bytes(&record.value).as_deref());
            record.headers.iter().for_each(|(name, value)| one.push_header(name, Some(value.as_bytes())));
            let partition = Partition::new("shop", record.partition);
            let span = Span { from: Position::offset(record.offset), to: Position::offset(record.offset + 1) };
            let stream = record.stream.map(Into::into);
            let generation = record.generation;
            let raw = RawBatch { partition, generation, span, stream, records: one, inside_transaction: false };
            writer.raw(&raw).unwrap();
        }
        let attempt = writer.attempt();
        let raw = writer.finish().await.unwrap().raw;
        let mut draft = Draft { spans, raw, ..Draft::new(attempt, Utc::now()) };
        let account = RecordAccount { read: said, rows: said, ..RecordAccount::default() };
        draft.account.records.insert("shop".to_owned(), account);
        let without_rows = |_: &str, _: &TableSchema| -> Result<TableSchema> {
            Err(Error::new(ErrorKind::Internal, "there are no rows"))
        };
        self.log.commit(draft, &without_rows).await.unwrap();
    }

    /// A topology that could read the broker if there were one.
    fn target(&self) -> Launch {
        let text = "version: 1\nname: new\n\
                    sources: { shop: { kind: kafka, brokers: \"127.0.0.1:1\", topics: [shop.public.t] } }\n\
                    tables: { t: { from: shop.public.t, key: [id] } }\n\
                    lake: { url: lake-new, raw: { keep: plain } }\nwarehouse: { kind: sqlite, path: new.db }\n\
                    epoch: { every: 200ms }\n";
        Launch::named(self.case.folder.path(), "new", text)
    }

    async fn rows(&self) -> Vec<(u64, String, String)> {
        let oracle = self.case.oracle("new");
        let rows = oracle.rows("SELECT CAST(id AS TEXT), at, _seq FROM t ORDER BY id").await.unwrap();
        let text = |text: &Option<String>| text.clone().unwrap();
        rows.iter().map(|row| (text(&row[0]).parse().unwrap(), text(&row[1]), text(&row[2]))).collect()
    }
}

fn row(id: u64, partition: &str, offset: u64, generation: Generation) -> (u64, String, String) {
    let seq = Seq { generation, major: offset, minor: 0, ordinal: 0 };
    (id, format!("{partition}/{offset}"), seq.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn holes_claims_generations_and_halves_keep_their_places() {
    let made = Made::new().await;
    // Claims: partitions that were assigned and had nothing yet, one of them far into its topic.
    made.epoch(vec![span("t/0", 0, 0, 0), span("t/1", 500, 500, 0), span("t/2", 0, 0, 0)], Vec::new(), 0).await;
    // Holes at both ends, partitions in turns, halves of a move with others between two epochs' ends.
    let [delete, tombstone, create] = halves("t/1", 510, 2, 3);
    let mut records = vec![record("t/0", 4, 0, "c", 1), record("t/1", 505, 0, "c", 2), record("t/0", 7, 0, "u", 1)];
    records.extend([delete, tombstone, create]);
    made.epoch(vec![span("t/0", 0, 10, 0), span("t/1", 500, 520, 0)], records, 6).await;
    // The topic grew: a new generation in the middle of a span, and one that begins in a hole.
    let records = vec![record("t/0", 11, 0, "u", 1), record("t/0", 15, 2, "c", 4)];
    made.epoch(vec![span("t/0", 10, 20, 2), span("t/1", 520, 530, 2)], records, 2).await;
    // Half a move at the very end, which the old log gave out alone, without its stream.
    let [mut delete, mut tombstone, _] = halves("t/2", 30, 4, 5);
    (delete.stream, tombstone.stream) = (None, None);
    let records = vec![record("t/2", 29, 0, "c", 6), delete, tombstone];
    made.epoch(vec![span("t/2", 0, 40, 0)], records, 3).await;
    let report = reprocessed(&made.target(), &["--from-lake", "lake-old"]);
    assert_eq!((report["read"].as_u64(), report["merged"].as_u64()), (Some(11), Some(1)));
    let (old, new) = (sound(&made.case, "old").await, sound(&made.case, "new").await);
    // No decoder made the old log, so it has no marks.
    assert_eq!(places(&old), places(&new));
    let expected = [row(1, "t/0", 11, 0), row(3, "t/1", 512, 0), row(4, "t/0", 15, 2), row(6, "t/2", 29, 0)];
    assert_eq!(made.rows().await, expected, "the delete of 4 is of an older generation");
    assert_eq!(new.raw_rows(), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_file_with_fewer_records_than_were_read_is_no_silent_hole() {
    let made = Made::new().await;
    made.epoch(vec![span("t/0", 0, 10, 0)], vec![record("t/0", 4, 0, "c", 1)], 1).await;
    made.epoch(vec![span("t/0", 10, 20, 0)], vec![record("t/0", 14, 0, "c", 2)], 2).await;
    let output = reprocess(&made.target(), &["--from-lake", "lake-old"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("epoch 2 read 2 records of shop, its raw file holds 1"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_outside_of_the_span_and_unknown_sources_are_refused() {
    let made = Made::new().await;
    made.epoch(vec![span("t/0", 0, 10, 0)], vec![record("t/0", 12, 0, "c", 1)], 1).await;
    let output = reprocess(&made.target(), &["--from-lake", "lake-old"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("shop:t/0 at 12 to 12 is outside"), "{said}");
    let text = std::fs::read_to_string(made.target().topology()).unwrap();
    let renamed = text.replace("{ shop: {", "{ store: {").replace("lake-new", "lake-other");
    let renamed = Launch::named(made.case.folder.path(), "other", &renamed);
    refused(&renamed, &["--from-lake", "lake-old"], &["holds source shop, which the topology lacks"]);
}
