//! Debezium JSON to Arrow on one core, beside serde_json into typed borrowed structs and the same builders.
//!
//! `cargo bench --bench decode`. Before anything is timed, both must have made the same columns.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Decimal128Builder, Int32Builder, Int64Builder, RecordBatch, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::datatypes::SchemaRef;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dataflow::batch::{Op, RawBatch, RawRecords, Seq};
use dataflow::config::{ContractFile, Debezium, Encoding, OnMismatch};
use dataflow::contract::{Column, Type};
use dataflow::decode::Decoder;
use dataflow::decode::debezium::{DebeziumJson, TableRoute};
use dataflow::progress::{Partition, Position, Span};
use serde::Deserialize;
use serde_json::value::RawValue;

/// The process's allocator, for both.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RECORDS: u64 = 20_000;
const STREAM: &str = "shop.public.orders";

fn columns() -> Vec<Column> {
    let decimal = Type::Decimal { precision: 12, scale: 2 };
    let types = [
        ("id", Type::BigInt),
        ("customer_id", Type::BigInt),
        ("status", Type::TEXT),
        ("email", Type::TEXT),
        ("amount", decimal),
        ("currency", Type::TEXT),
        ("quantity", Type::Int),
        ("paid", Type::Boolean),
        ("order_date", Type::Date),
        ("created_at", Type::Timestamp),
        ("updated_at", Type::TimestampTz),
        ("note", Type::TEXT),
    ];
    types.into_iter().map(|(name, data_type)| Column::new(name, data_type)).collect()
}

/// A sequence of numbers that is the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

fn row(id: u64, numbers: &mut Numbers) -> String {
    let cents = numbers.next(10_000_000) as i64;
    let bytes = cents.to_be_bytes();
    let start = bytes.iter().position(|b| *b != 0).unwrap_or(7).min(7);
    let start = if bytes[start] & 0x80 != 0 { start - 1 } else { start };
    let amount = STANDARD.encode(&bytes[start..]);
    let status = ["new", "paid", "shipped", "delivered"][numbers.next(4) as usize];
    let note =
        if numbers.next(3) == 0 { "null".to_owned() } else { format!("\"leave at the door {}\"", numbers.next(99)) };
    format!(
        r#"{{"id":{id},"customer_id":{},"status":"{status}","email":"customer{}@example.org","amount":"{amount}","currency":"EUR","quantity":{},"paid":{},"order_date":{},"created_at":{},"updated_at":"2026-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z","note":{note}}}"#,
        numbers.next(1_000_000),
        numbers.next(1_000_000),
        numbers.next(20),
        numbers.next(2) == 0,
        20_000 + numbers.next(700),
        1_790_000_000_000_000 + numbers.next(1_000_000_000_000),
        1 + numbers.next(12),
        1 + numbers.next(28),
        numbers.next(24),
        numbers.next(60),
        numbers.next(60),
        numbers.next(1_000_000),
    )
}

fn envelope(n: u64, numbers: &mut Numbers) -> (u64, String) {
    let id = 1_000_000 + numbers.next(500_000);
    let none = || "null".to_owned();
    let (op, before, after) = match n % 10 {
        0..3 => ('c', none(), row(id, numbers)),
        3..7 => ('u', row(id, numbers), row(id, numbers)),
        7..9 => ('u', none(), row(id, numbers)),
        _ => ('d', row(id, numbers), none()),
    };
    let (us, lsn) = (1_795_000_000_000_000 + n * 1_000, 24_000_000_000 + n * 128);
    let value = format!(
        r#"{{"before":{before},"after":{after},"source":{{"version":"3.0.8.Final","connector":"postgresql","name":"shop","ts_ms":{},"snapshot":"false","db":"shop","sequence":"[\"{lsn}\",\"{}\"]","ts_us":{us},"ts_ns":{us}000,"schema":"public","table":"orders","txId":{},"lsn":{},"xmin":null}},"transaction":null,"op":"{op}","ts_ms":{},"ts_us":{},"ts_ns":{}000}}"#,
        us / 1_000,
        lsn + 64,
        700_000 + n,
        lsn + 64,
        us / 1_000 + 300,
        us + 300_000,
        us + 300_000,
    );
    (id, value)
}

fn row_schema(field: &str) -> String {
    let decimal = r#""type":"bytes","name":"org.apache.kafka.connect.data.Decimal","version":1,"parameters":{"scale":"2","connect.decimal.precision":"12"}"#;
    let mut out = r#"{"type":"struct","fields":["#.to_owned();
    for (at, column) in columns().iter().enumerate() {
        let kind = match column.data_type {
            Type::BigInt => r#""type":"int64""#,
            Type::Int => r#""type":"int32""#,
            Type::Boolean => r#""type":"boolean""#,
            Type::Decimal { .. } => decimal,
            Type::Date => r#""type":"int32","name":"io.debezium.time.Date","version":1"#,
            Type::Timestamp => r#""type":"int64","name":"io.debezium.time.MicroTimestamp","version":1"#,
            Type::TimestampTz => r#""type":"string","name":"io.debezium.time.ZonedTimestamp","version":1"#,
            _ => r#""type":"string""#,
        };
        let comma = if at > 0 { "," } else { "" };
        let _infallible = write!(out, r#"{comma}{{{kind},"optional":{},"field":"{}"}}"#, at > 0, column.name);
    }
    let _infallible = write!(out, r#"],"optional":true,"name":"shop.public.orders.Value","field":"{field}"}}"#);
    out
}

fn value_schema() -> String {
    let plain = |kind: &str, name: &str| format!(r#"{{"type":"{kind}","optional":true,"field":"{name}"}}"#);
    let source = [
        ("string", "version"),
        ("string", "connector"),
        ("string", "name"),
        ("int64", "ts_ms"),
        ("string", "snapshot"),
        ("string", "db"),
        ("string", "sequence"),
        ("int64", "ts_us"),
        ("int64", "ts_ns"),
        ("string", "schema"),
        ("string", "table"),
        ("int64", "txId"),
        ("int64", "lsn"),
        ("int64", "xmin"),
    ];
    let source: Vec<_> = source.iter().map(|(kind, name)| plain(kind, name)).collect();
    let transaction = [plain("string", "id"), plain("int64", "total_order"), plain("int64", "data_collection_order")];
    format!(
        r#"{{"type":"struct","fields":[{},{},{{"type":"struct","fields":[{}],"optional":false,"name":"io.debezium.connector.postgresql.Source","field":"source"}},{{"type":"struct","fields":[{}],"optional":true,"name":"event.block","version":1,"field":"transaction"}},{},{},{},{}],"optional":false,"name":"shop.public.orders.Envelope","version":2}}"#,
        row_schema("before"),
        row_schema("after"),
        source.join(","),
        transaction.join(","),
        plain("string", "op"),
        plain("int64", "ts_ms"),
        plain("int64", "ts_us"),
        plain("int64", "ts_ns"),
    )
}

fn batch(with_schema: bool) -> RawBatch {
    let mut numbers = Numbers(7);
    let schema = value_schema();
    let key_schema = r#"{"type":"struct","fields":[{"type":"int64","optional":false,"field":"id"}],"optional":false,"name":"shop.public.orders.Key"}"#;
    let mut records = RawRecords::default();
    for n in 0..RECORDS {
        let (id, value) = envelope(n, &mut numbers);
        let key = format!(r#"{{"id":{id}}}"#);
        let (key, value) = if with_schema {
            let wrap = |schema: &str, payload: &str| format!(r#"{{"schema":{schema},"payload":{payload}}}"#);
            (wrap(key_schema, &key), wrap(&schema, &value))
        } else {
            (key, value)
        };
        records.push(n, 0, Some(key.as_bytes()), Some(value.as_bytes()));
    }
    RawBatch {
        partition: Partition::new("shop", "orders/0"),
        generation: 0,
        span: Span { from: Position::offset(0), to: Position::offset(RECORDS) },
        stream: Some(Arc::from(STREAM)),
        records,
    }
}

fn decoder() -> DebeziumJson {
    let encodings = BTreeMap::from([
        ("amount".to_owned(), Encoding::Base64),
        ("order_date".to_owned(), Encoding::Days),
        ("created_at".to_owned(), Encoding::Microseconds),
    ]);
    let contract = ContractFile { version: 1, columns: columns(), key: vec!["id".into()], learn: true, encodings };
    let route = TableRoute {
        table: "orders".into(),
        stream: STREAM.into(),
        key: None,
        contract: Some(contract),
        on_mismatch: OnMismatch::Quarantine,
    };
    DebeziumJson::new("shop", &Debezium::default(), vec![route]).expect("the routes are right")
}

// The baseline: what one writes with serde_json for this one table.

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    payload: Envelope<'a>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, rename = "before")]
    _before: Option<&'a RawValue>,
    #[serde(borrow)]
    after: Option<Row<'a>>,
    source: Source,
    #[serde(borrow)]
    op: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Source {
    ts_us: i64,
}

#[derive(Deserialize)]
struct KeyMessage {
    payload: Key,
}

#[derive(Deserialize)]
struct Key {
    id: i64,
}

#[derive(Deserialize)]
struct Row<'a> {
    id: i64,
    customer_id: Option<i64>,
    #[serde(borrow)]
    status: Option<Cow<'a, str>>,
    #[serde(borrow)]
    email: Option<Cow<'a, str>>,
    #[serde(borrow)]
    amount: Option<Cow<'a, str>>,
    #[serde(borrow)]
    currency: Option<Cow<'a, str>>,
    quantity: Option<i32>,
    paid: Option<bool>,
    order_date: Option<i32>,
    created_at: Option<i64>,
    #[serde(borrow)]
    updated_at: Option<Cow<'a, str>>,
    #[serde(borrow)]
    note: Option<Cow<'a, str>>,
}

#[derive(Default)]
struct Builders {
    id: Int64Builder,
    customer_id: Int64Builder,
    status: StringBuilder,
    email: StringBuilder,
    amount: Decimal128Builder,
    currency: StringBuilder,
    quantity: Int32Builder,
    paid: BooleanBuilder,
    order_date: Date32Builder,
    created_at: TimestampMicrosecondBuilder,
    updated_at: TimestampMicrosecondBuilder,
    note: StringBuilder,
    ops: Vec<Op>,
    seqs: Vec<Seq>,
    times: Vec<i64>,
}

fn decimal(text: &str) -> i128 {
    let mut buffer = [0; 16];
    let len = STANDARD.decode_slice(text, &mut buffer).expect("base64");
    let mut wide = [if buffer[0] & 0x80 != 0 { 0xFF } else { 0 }; 16];
    wide[16 - len..].copy_from_slice(&buffer[..len]);
    i128::from_be_bytes(wide)
}

impl Builders {
    fn push(&mut self, row: &Row<'_>) {
        self.id.append_value(row.id);
        self.customer_id.append_option(row.customer_id);
        self.status.append_option(row.status.as_deref());
        self.email.append_option(row.email.as_deref());
        self.amount.append_option(row.amount.as_deref().map(decimal));
        self.currency.append_option(row.currency.as_deref());
        self.quantity.append_option(row.quantity);
        self.paid.append_option(row.paid);
        self.order_date.append_option(row.order_date);
        self.created_at.append_option(row.created_at);
        let micros = |text: &str| chrono::DateTime::parse_from_rfc3339(text).expect("a time").timestamp_micros();
        self.updated_at.append_option(row.updated_at.as_deref().map(micros));
        self.note.append_option(row.note.as_deref());
    }

    fn key(&mut self, id: i64) {
        self.id.append_value(id);
        self.customer_id.append_null();
        self.status.append_null();
        self.email.append_null();
        self.amount.append_null();
        self.currency.append_null();
        self.quantity.append_null();
        self.paid.append_null();
        self.order_date.append_null();
        self.created_at.append_null();
        self.updated_at.append_null();
        self.note.append_null();
    }

    fn finish(mut self, schema: SchemaRef) -> (RecordBatch, Vec<Op>, Vec<i64>) {
        let amount = self.amount.finish().with_precision_and_scale(12, 2).expect("it fits");
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(self.id.finish()),
            Arc::new(self.customer_id.finish()),
            Arc::new(self.status.finish()),
            Arc::new(self.email.finish()),
            Arc::new(amount),
            Arc::new(self.currency.finish()),
            Arc::new(self.quantity.finish()),
            Arc::new(self.paid.finish()),
            Arc::new(self.order_date.finish()),
            Arc::new(self.created_at.finish()),
            Arc::new(self.updated_at.finish().with_timezone("UTC")),
            Arc::new(self.note.finish()),
        ];
        (RecordBatch::try_new(schema, arrays).expect("the columns fit"), self.ops, self.times)
    }
}

fn baseline(raw: &RawBatch, schema: &SchemaRef, with_schema: bool) -> (RecordBatch, Vec<Op>, Vec<i64>) {
    let mut out = Builders::default();
    for record in raw.records.iter() {
        let value = record.value().expect("a value");
        let envelope = if with_schema {
            serde_json::from_slice::<Message<'_>>(value).expect("an event").payload
        } else {
            serde_json::from_slice::<Envelope<'_>>(value).expect("an event")
        };
        let op = match envelope.op.as_ref() {
            "c" => Op::Create,
            "u" => Op::Update,
            _ => Op::Delete,
        };
        match &envelope.after {
            Some(row) => out.push(row),
            None => {
                let key = record.key().expect("a key");
                out.key(if with_schema {
                    serde_json::from_slice::<KeyMessage>(key).expect("a key").payload.id
                } else {
                    serde_json::from_slice::<Key>(key).expect("a key").id
                });
            }
        }
        out.ops.push(op);
        out.seqs.push(Seq { generation: 0, major: record.offset(), minor: 0, ordinal: 0 });
        out.times.push(envelope.source.ts_us);
    }
    out.finish(schema.clone())
}

/// Alternating runs, the best of each: seconds of ours, seconds of the baseline.
fn measure(mut ours: impl FnMut(), mut theirs: impl FnMut()) -> (Duration, Duration) {
    let time = |run: &mut dyn FnMut()| {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    let mut best = (Duration::MAX, Duration::MAX);
    for _ in 0..15 {
        best = (best.0.min(time(&mut ours)), best.1.min(time(&mut theirs)));
    }
    best
}

fn compare(c: &mut Criterion) {
    for (name, with_schema) in [("without_schema", false), ("with_schema", true)] {
        let raw = batch(with_schema);
        let mut decoder = decoder();
        let first = decoder.decode(&raw).expect("it decodes");
        assert_eq!((first.tables.len(), first.rejects.len()), (1, 0));
        let schema = first.tables[0].rows.schema();
        let (rows, ops, times) = baseline(&raw, &schema, with_schema);
        assert_eq!(first.tables[0].rows, rows, "both make the same columns");
        assert_eq!((&first.tables[0].ops, &first.tables[0].source_times_us), (&ops, &times));

        let (ours, theirs) = measure(
            || drop(black_box(decoder.decode(black_box(&raw)))),
            || drop(black_box(baseline(black_box(&raw), &schema, with_schema))),
        );
        let rate = |time: Duration| RECORDS as f64 / time.as_secs_f64();
        println!(
            "{name}: mean value {} bytes; ours {:.0} records/s, serde_json {:.0} records/s, ratio {:.2}",
            raw.records.iter().filter_map(|r| r.value()).map(<[u8]>::len).sum::<usize>() as u64 / RECORDS,
            rate(ours),
            rate(theirs),
            theirs.as_secs_f64() / ours.as_secs_f64(),
        );

        let mut group = c.benchmark_group(name);
        group.sample_size(10).throughput(Throughput::Elements(RECORDS));
        group.bench_function("decoder", |b| b.iter(|| decoder.decode(black_box(&raw))));
        group.bench_function("serde_json", |b| b.iter(|| baseline(black_box(&raw), &schema, with_schema)));
        group.finish();
    }
}

criterion_group!(benches, compare);
criterion_main!(benches);
