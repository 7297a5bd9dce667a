//! Debezium JSON to Arrow on one core, beside serde_json into typed borrowed structs and the same builders.
//!
//! `cargo bench --bench decode`. Before anything is timed, both must have made the same columns.

mod events;

use std::borrow::Cow;
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
use dataflow::batch::{Op, RawBatch, Seq};
use dataflow::decode::Decoder;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The process's allocator, for both.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const RECORDS: u64 = 20_000;

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
        let raw = events::batch(0, RECORDS, with_schema);
        let mut decoder = events::decoder();
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
