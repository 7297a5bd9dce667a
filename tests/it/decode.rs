//! Debezium JSON to columns.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use dataflow::batch::{ChangeBatch, NO_TIME, RawBatch, RawRecords};
use dataflow::config::{ContractFile, Debezium, Encoding, OnMismatch};
use dataflow::contract::{Column, Contract, Type};
use dataflow::decode::Decoder;
use dataflow::decode::debezium::{DebeziumJson, TableRoute};
use dataflow::progress::{Partition, Position, Span};

const STREAM: &str = "shop.public.orders";

fn route() -> TableRoute {
    TableRoute {
        table: "orders".into(),
        stream: STREAM.into(),
        key: None,
        contract: None,
        on_mismatch: OnMismatch::Quarantine,
    }
}

fn decoder(routes: Vec<TableRoute>) -> DebeziumJson {
    DebeziumJson::new("shop", &Debezium::default(), routes).unwrap()
}

/// A record: key, value, headers.
#[derive(Debug, Clone, Default)]
struct Rec {
    key: Option<String>,
    value: Option<String>,
    headers: Vec<(String, String)>,
}

fn rec(key: &str, value: &str) -> Rec {
    Rec { key: Some(key.into()), value: Some(value.into()), headers: vec![] }
}

fn keyless(value: &str) -> Rec {
    Rec { key: None, value: Some(value.into()), headers: vec![] }
}

fn tombstone(key: &str) -> Rec {
    Rec { key: Some(key.into()), ..Rec::default() }
}

impl Rec {
    fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// A batch that begins at offset `from`.
fn raw(from: u64, stream: Option<&str>, records: &[Rec]) -> RawBatch {
    let mut raw = RawRecords::default();
    for (at, record) in records.iter().enumerate() {
        let offset = from + at as u64;
        raw.push(offset, NO_TIME, record.key.as_deref().map(str::as_bytes), record.value.as_deref().map(str::as_bytes));
        for (name, value) in &record.headers {
            raw.push_header(name, Some(value.as_bytes()));
        }
    }
    RawBatch {
        partition: Partition::new("shop", "p/0"),
        generation: 1,
        span: Span { from: Position::offset(from), to: Position::offset(from + records.len() as u64) },
        stream: stream.map(Arc::from),
        records: raw,
    }
}

fn decode(decoder: &mut DebeziumJson, records: &[Rec]) -> ChangeBatch {
    let batch = decoder.decode(&raw(0, Some(STREAM), records)).unwrap();
    assert!(batch.account.balances(), "{:?}", batch.account);
    batch
}

fn text(array: &ArrayRef, row: usize) -> String {
    if array.is_null(row) {
        return "null".into();
    }
    let options = FormatOptions::default();
    ArrayFormatter::try_new(array, &options).unwrap().value(row).to_string()
}

/// Every row as `op column=value …`; `~` stands for unchanged.
fn rows(batch: &ChangeBatch) -> Vec<String> {
    let mut out = Vec::new();
    for changes in &batch.tables {
        assert_eq!(changes.rows.schema(), changes.contract.input.arrow());
        assert_eq!(changes.rows.num_rows(), changes.len());
        for row in 0..changes.len() {
            let mut line = changes.ops[row].letter().to_owned();
            for (at, column) in changes.contract.input.columns.iter().enumerate() {
                let value = text(changes.rows.column(at), row);
                let value = if changes.is_unchanged(at, row) { "~".to_owned() } else { value };
                line.push_str(&format!(" {}={value}", column.name));
            }
            if let Some(old) = &changes.old_keys {
                let old: Vec<_> = old.columns().iter().map(|c| text(c, row)).collect();
                line.push_str(&format!(" old={}", old.join(",")));
            }
            out.push(line);
        }
    }
    out
}

fn envelope(op: &str, before: &str, after: &str) -> String {
    format!(
        r#"{{"before":{before},"after":{after},"source":{{"version":"3.0.0.Final","connector":"postgresql","name":"shop","ts_ms":1700000000000,"snapshot":"false","db":"shop","sequence":"[\"10\",\"20\"]","ts_us":1700000000000123,"schema":"public","table":"orders","txId":7,"lsn":20,"xmin":null}},"transaction":null,"op":"{op}","ts_ms":1700000000500}}"#
    )
}

#[test]
fn plain_envelopes_are_learned() {
    let mut d = decoder(vec![route()]);
    let batch = decode(
        &mut d,
        &[
            rec(r#"{"id":1}"#, &envelope("c", "null", r#"{"id":1,"name":"a\"b","ok":true,"tags":["x"],"gone":null}"#)),
            rec(r#"{"id":1}"#, &envelope("u", r#"{"id":1}"#, r#"{"id":1,"name":null,"ok":false,"tags":null,"gone":"g"}"#)),
            rec(r#"{"id":1}"#, &envelope("d", r#"{"id":1,"name":"x"}"#, "null")),
            tombstone(r#"{"id":1}"#),
        ],
    );
    assert_eq!(
        rows(&batch),
        [
            "c id=1 name=a\"b ok=true tags=[\"x\"]",
            "u id=1 name=null ok=false tags=null gone=g",
            "d id=1 name=null ok=null tags=null gone=null",
        ]
    );
    assert_eq!((batch.account.rows, batch.account.control, batch.account.read), (3, 1, 4));
    assert_eq!(batch.tables[0].source_times_us, [1_700_000_000_000_123]);
    assert_eq!(batch.tables[1].contract.input.key, ["id"]);
}
