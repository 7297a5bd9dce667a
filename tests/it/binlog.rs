//! The binary log's reader over real files of many servers: MySQL 5.1 to 9, MariaDB. They are not part of the repository:
//! without the folder there is nothing to read, and the tests are counted as skipped.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use arrow::util::display::{ArrayFormatter, FormatOptions};
use dataflow::batch::{ChangeBatch, RawBatch, RawRecords};
use dataflow::config::OnMismatch;
use dataflow::decode::Decoder;
use dataflow::decode::binlog::BinlogDecoder;
use dataflow::decode::debezium::TableRoute;
use dataflow::progress::{Partition, Position, Span};
use dataflow::wire::binlog::{BinlogFile, Body, EventReader, describe_key, shape};
use dataflow::wire::mysqltype::Form;

use crate::support::process::skipped;

fn samples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/samples/binlog");
    // Nothing installs them, so that they are missing is never a failure.
    let entries = std::fs::read_dir(folder).map(|entries| entries.map(|entry| entry.unwrap().path()));
    let mut files: Vec<PathBuf> = entries.map(Iterator::collect).unwrap_or_default();
    files.sort();
    if files.is_empty() {
        skipped("the folder of binary logs");
    }
    files
}

/// What a file has.
#[derive(Debug, Default)]
struct Contents {
    events: u64,
    rows: u64,
    /// Why reading ended before the file did.
    stopped: Option<String>,
    forms: HashMap<u64, Vec<Form>>,
    tables: BTreeMap<String, u64>,
    records: RawRecords,
}

impl Contents {
    fn of(bytes: &[u8]) -> Self {
        let mut contents = Self::default();
        let mut file = match BinlogFile::new(bytes) {
            Ok(file) => file,
            Err(malformed) => return Self { stopped: Some(malformed.to_string()), ..contents },
        };
        while let Some((at, event)) = file.next_event() {
            match event {
                Ok(event) => contents.take(at, &event.body, file.reader()),
                Err(malformed) => contents.stopped = Some(format!("at {at}: {malformed}")),
            }
        }
        contents
    }

    fn take(&mut self, at: u64, body: &Body<'_>, reader: &EventReader) {
        self.events += 1;
        match body {
            Body::TableMap(map) => {
                let map = map.parse_columns().unwrap();
                let forms = map.columns.iter().map(|column| Form::of(column.code, column.meta).unwrap()).collect();
                self.forms.insert(map.table_id, forms);
                if let Ok(shape) = shape(&map, None) {
                    *self.tables.entry(shape.name.clone()).or_default() += 1;
                    self.records.push_within(1, (at, 0), 0, Some(&describe_key(&shape)), None);
                }
            }
            Body::Rows(rows) => {
                let forms = self.forms.get(&rows.table_id).map(Vec::as_slice).unwrap_or_default();
                let mut record = Vec::new();
                for (number, row) in rows.split(forms).unwrap().enumerate() {
                    self.rows += 1;
                    rows.record(rows.table_id, row.unwrap(), &mut record);
                    self.records.push_within(1, (at, number as u32 + 1), 0, None, Some(&record));
                }
            }
            Body::Payload(payload) => {
                let mut events = payload.events().unwrap();
                while let Some(bytes) = events.next_event().unwrap() {
                    let inner = reader.read_inner(bytes).unwrap();
                    self.take(at, &inner.body, reader);
                }
            }
            _ => {}
        }
    }

    fn decode(self) -> ChangeBatch {
        let route = |name: &String| TableRoute {
            table: name.clone(),
            stream: name.clone(),
            key: None,
            contract: None,
            on_mismatch: OnMismatch::Quarantine,
            gone: Vec::new(),
        };
        let mut decoder = BinlogDecoder::new("s", self.tables.keys().map(route).collect()).unwrap();
        let span = Span { from: Position("a".into()), to: Position("b".into()) };
        let (partition, records) = (Partition::new("s", "log"), self.records);
        let raw = RawBatch { partition, generation: 0, span, stream: None, records, inside_transaction: false };
        decoder.decode(&raw).unwrap()
    }
}

/// Rows of the files that have some, as the servers' own programs count them.
const ROWS: [(&str, u64); 19] = [
    ("binlog-invisible-columns.000001", 3),
    ("binlog_56_gtid_reserved_word.000001", 1),
    ("bug32407.001", 2),
    ("json-opaque.binlog", 8),
    ("mariadb-bin.000001", 2),
    ("minimal_row_metadata.000001", 1),
    ("mysql-bin.checksum-crc32", 63),
    ("mysql-bin.checksum-none", 36),
    ("mysql-bin.compressed", 1),
    ("mysql-enum-string-set.000001", 3),
    ("mysql_type_bit.000001", 1),
    ("rpl_unfiltered_hidden_gcol.000001", 1),
    ("time_issue.000001", 1),
    ("update-full-row.binlog", 7),
    ("update-partial-row.binlog", 7),
    ("ver_5_1_23.001", 5),
    ("ver_trunk_row_v2.001", 5),
    ("write-full-row.binlog", 7),
    ("write-partial-row.binlog", 7),
];

#[test]
fn real_files_are_read_and_their_rows_counted() {
    for path in samples() {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let contents = Contents::of(&std::fs::read(&path).unwrap());
        // Two are of a development version of MySQL 5.1, whose events had other numbers.
        let readable = !name.starts_with("ver_5_1-wl2325");
        assert_eq!(contents.stopped.is_none(), readable, "{name}: {:?}", contents.stopped);
        let wanted = ROWS.iter().find(|(file, _)| *file == name).map_or(0, |(_, rows)| *rows);
        assert_eq!(contents.rows, wanted, "{name}");
        assert!(!readable || contents.events >= 3, "{name}: {} events", contents.events);
        let batch = contents.decode();
        assert!(batch.account.balances(), "{name}: {:?}", batch.account);
    }
}

/// The rows of a file that describes its tables, one text a row.
fn rows(name: &str) -> Option<Vec<String>> {
    let path = samples().into_iter().find(|path| path.ends_with(name))?;
    let batch = Contents::of(&std::fs::read(path).unwrap()).decode();
    let options = FormatOptions::default().with_null("null");
    let mut rows = Vec::new();
    for changes in &batch.tables {
        let columns: Vec<_> =
            changes.rows.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options).unwrap()).collect();
        for row in 0..changes.len() {
            let values: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
            rows.push(values.join(" | "));
        }
    }
    Some(rows)
}

#[test]
fn values_of_real_files_are_what_their_servers_show() {
    let Some(documents) = rows("json-opaque.binlog") else { return };
    assert_eq!(
        documents,
        [
            r#"{"a": "base64:type15:VQ=="}"#,
            r#"{"b": "2012-03-18"}"#,
            r#"{"c": "2012-03-18 11:30:45.000000"}"#,
            r#"{"c": "87:31:46.654321"}"#,
            r#"{"d": 123.456}"#,
            r#"{"e": 9.00}"#,
            r#"{"e": [0, 1, true, false]}"#,
            r#"{"e": null}"#,
        ]
    );
    let outbox = rows("mariadb-bin.000001").unwrap();
    assert_eq!(outbox[0], "62 | foo | JSON | 7b22666f6f223a317d | 2022-04-20T22:18:04Z");
    let choices = rows("mysql-enum-string-set.000001").unwrap();
    assert!(choices[0].ends_with(" | var1 | one,three | 0123456789"), "{choices:?}");
}
