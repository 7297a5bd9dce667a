//! PostgreSQL's messages (text form, 16 columns; 20 of 100 insert, 60 update, 20 delete) to Arrow on one core, beside the
//! same builders fed by hand for this one table, with what the standard library, chrono and uuid parse.
//!
//! `cargo bench --bench pgoutput`. Before anything is timed, both must have made the same columns.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Decimal128Builder, Float64Builder, Int16Builder, Int32Builder,
    Int64Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::SchemaRef;
use chrono::{DateTime, NaiveDate, NaiveDateTime};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dataflow::batch::{NO_TIME, Op, RawBatch, RawRecords};
use dataflow::config::OnMismatch;
use dataflow::decode::Decoder;
use dataflow::decode::debezium::TableRoute;
use dataflow::decode::pgoutput::PgOutput;
use dataflow::progress::{Partition, Position, Span};
use dataflow::wire::pgoutput::{Datum, Message, Tuple, parse};
use dataflow::wire::pgtype::{ColumnShape, RelationShape, TypeShape};

/// The process's allocator, for both.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const RECORDS: u64 = 4_000;
const RELATION: u32 = 16_384;
const COLUMNS: [(&str, &str, i32); 16] = [
    ("id", "int8", -1),
    ("customer_id", "int8", -1),
    ("status", "text", -1),
    ("email", "text", -1),
    ("amount", "numeric", 4 + (12 << 16 | 2)),
    ("discount", "numeric", 4 + (8 << 16 | 4)),
    ("currency", "bpchar", 7),
    ("quantity", "int4", -1),
    ("priority", "int2", -1),
    ("paid", "bool", -1),
    ("weight", "float8", -1),
    ("order_date", "date", -1),
    ("created_at", "timestamp", -1),
    ("updated_at", "timestamptz", -1),
    ("token", "uuid", -1),
    ("note", "text", -1),
];

fn shape() -> Vec<u8> {
    let column = |(at, (name, kind, modifier)): (usize, &(&str, &str, i32))| ColumnShape {
        name: (*name).to_owned(),
        kind: TypeShape { modifier: *modifier, ..TypeShape::plain(*kind) },
        key: at == 0,
        identity: at == 0,
    };
    let columns = COLUMNS.iter().enumerate().map(column).collect();
    let shape = RelationShape { id: RELATION, name: "public.orders".into(), identity: 'd', columns };
    serde_json::to_vec(&shape).expect("it has a JSON form")
}

/// The texts that PostgreSQL sends for a row.
fn row(id: u64, salt: u64) -> Vec<Option<String>> {
    let mixed = (id * 7_919 + salt * 31) % 1_000_003;
    let (day, hour, second) = (1 + id % 28, salt % 24, mixed % 60);
    vec![
        Some(id.to_string()),
        Some(mixed.to_string()),
        Some(["new", "paid", "shipped", "delivered"][(id % 4) as usize].to_owned()),
        Some(format!("customer{mixed}@example.org")),
        Some(format!("{}.{:02}", mixed / 10, mixed % 100)),
        (!id.is_multiple_of(3)).then(|| format!("0.{:04}", mixed % 10_000)),
        Some("EUR".to_owned()),
        Some((mixed % 20).to_string()),
        Some((salt % 5).to_string()),
        Some(if mixed.is_multiple_of(2) { "t" } else { "f" }.to_owned()),
        Some((f64::from((id % 1_000) as u32) / 8.0).to_string()),
        Some(format!("2024-{:02}-{day:02}", 1 + id % 12)),
        Some(format!("2026-01-{day:02} {hour:02}:{:02}:{second:02}.{:06}", id % 60, mixed % 999_999 + 1)),
        Some(format!("2026-06-{day:02} {hour:02}:{:02}:{second:02}.{:03}+00", id % 60, mixed % 900 + 101)),
        Some(uuid::Uuid::from_u64_pair(mixed * 0x9E37_79B9, id).to_string()),
        (!id.is_multiple_of(3)).then(|| format!("leave at the door {}", mixed % 99)),
    ]
}

/// An insert, an update or a delete as the server writes it.
fn message(n: u64) -> Vec<u8> {
    let (tag, tuple) = match n % 10 {
        0..2 => (b'I', b'N'),
        2..8 => (b'U', b'N'),
        _ => (b'D', b'K'),
    };
    let mut bytes = vec![tag];
    bytes.extend(RELATION.to_be_bytes());
    bytes.push(tuple);
    bytes.extend((COLUMNS.len() as u16).to_be_bytes());
    for (at, value) in row(1_000_000 + n, n / 10).into_iter().enumerate() {
        match value.filter(|_| tag != b'D' || at == 0) {
            None => bytes.push(b'n'),
            Some(text) => {
                bytes.push(b't');
                bytes.extend((text.len() as u32).to_be_bytes());
                bytes.extend(text.as_bytes());
            }
        }
    }
    bytes
}

fn batch() -> RawBatch {
    let mut records = RawRecords::default();
    records.push_within(1 << 30, (1, 1), NO_TIME, Some(&shape()), None);
    for n in 0..RECORDS {
        records.push_within((1 << 30) + n / 1_000, ((1 << 29) + n, 2), 1_795_000_000_000_000, None, Some(&message(n)));
    }
    let span = Span { from: Position("a".into()), to: Position("b".into()) };
    RawBatch {
        partition: Partition::new("shop", "slot@1"),
        generation: 0,
        span,
        stream: None,
        inside_transaction: false,
        records,
    }
}

fn decoder() -> PgOutput {
    let route = TableRoute {
        table: "orders".into(),
        stream: "public.orders".into(),
        key: None,
        contract: None,
        on_mismatch: OnMismatch::Quarantine,
        gone: Vec::new(),
    };
    PgOutput::new("shop", vec![route]).expect("one table")
}

#[derive(Default)]
struct Builders {
    longs: [Int64Builder; 2],
    texts: [StringBuilder; 5],
    decimals: [Decimal128Builder; 2],
    quantity: Int32Builder,
    priority: Int16Builder,
    paid: BooleanBuilder,
    weight: Float64Builder,
    date: Date32Builder,
    times: [TimestampMicrosecondBuilder; 2],
    ops: Vec<Op>,
}

fn decimal(text: &str) -> i128 {
    let (whole, fraction) = text.split_once('.').expect("a point");
    let scale = 10i128.pow(fraction.len() as u32);
    whole.parse::<i128>().expect("digits") * scale + fraction.parse::<i128>().expect("digits")
}

fn days(text: &str) -> i32 {
    let date: NaiveDate = text.parse().expect("a date");
    (date - NaiveDate::default()).num_days() as i32
}

fn micros(text: &str) -> i64 {
    NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").expect("a time").and_utc().timestamp_micros()
}

fn zoned_micros(text: &str) -> i64 {
    DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%#z").expect("a time").timestamp_micros()
}

impl Builders {
    fn push(&mut self, op: Op, tuple: Tuple<'_>) {
        let mut values = tuple.iter().map(|datum| match datum {
            Datum::Text(bytes) => Some(std::str::from_utf8(bytes).expect("UTF-8")),
            _ => None,
        });
        let mut next = || values.next().flatten();
        self.longs.iter_mut().for_each(|b| b.append_option(next().map(|t| t.parse::<i64>().expect("a number"))));
        self.texts[..2].iter_mut().for_each(|b| b.append_option(next()));
        self.decimals.iter_mut().for_each(|b| b.append_option(next().map(decimal)));
        self.texts[2].append_option(next());
        self.quantity.append_option(next().map(|t| t.parse::<i32>().expect("a number")));
        self.priority.append_option(next().map(|t| t.parse::<i16>().expect("a number")));
        self.paid.append_option(next().map(|t| t == "t"));
        self.weight.append_option(next().map(|t| t.parse::<f64>().expect("a number")));
        self.date.append_option(next().map(days));
        self.times[0].append_option(next().map(micros));
        self.times[1].append_option(next().map(zoned_micros));
        self.texts[3].append_option(next().map(|t| uuid::Uuid::parse_str(t).expect("a UUID").to_string()));
        self.texts[4].append_option(next());
        self.ops.push(op);
    }

    fn finish(self, schema: SchemaRef) -> (RecordBatch, Vec<Op>) {
        let [mut id, mut customer] = self.longs;
        let [mut status, mut email, mut currency, mut token, mut note] = self.texts;
        let [mut amount, mut discount] = self.decimals;
        let [mut created, mut updated] = self.times;
        let (mut quantity, mut priority, mut paid) = (self.quantity, self.priority, self.paid);
        let (mut weight, mut date) = (self.weight, self.date);
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(id.finish()),
            Arc::new(customer.finish()),
            Arc::new(status.finish()),
            Arc::new(email.finish()),
            Arc::new(amount.finish().with_precision_and_scale(12, 2).expect("it fits")),
            Arc::new(discount.finish().with_precision_and_scale(8, 4).expect("it fits")),
            Arc::new(currency.finish()),
            Arc::new(quantity.finish()),
            Arc::new(priority.finish()),
            Arc::new(paid.finish()),
            Arc::new(weight.finish()),
            Arc::new(date.finish()),
            Arc::new(created.finish()),
            Arc::new(updated.finish().with_timezone("UTC")),
            Arc::new(token.finish()),
            Arc::new(note.finish()),
        ];
        (RecordBatch::try_new(schema, arrays).expect("the columns fit"), self.ops)
    }
}

fn by_hand(raw: &RawBatch, schema: &SchemaRef) -> (RecordBatch, Vec<Op>) {
    let mut out = Builders::default();
    for value in raw.records.iter().filter_map(|record| record.value()) {
        match parse(value, false).expect("a message") {
            Message::Insert { new, .. } => out.push(Op::Create, new),
            Message::Update { new, .. } => out.push(Op::Update, new),
            Message::Delete { old, .. } => out.push(Op::Delete, old.tuple()),
            _ => {}
        }
    }
    out.finish(Arc::clone(schema))
}

/// Alternating runs, the best of each: seconds of ours, seconds of the baseline.
fn measure(mut ours: impl FnMut(), mut theirs: impl FnMut()) -> (Duration, Duration) {
    let time = |run: &mut dyn FnMut()| {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    let mut best = (Duration::MAX, Duration::MAX);
    for _ in 0..50 {
        best = (best.0.min(time(&mut ours)), best.1.min(time(&mut theirs)));
    }
    best
}

fn compare(c: &mut Criterion) {
    let raw = batch();
    let mut decoder = decoder();
    let first = decoder.decode(&raw).expect("it decodes");
    assert_eq!((first.tables.len(), first.rejects.len()), (1, 0), "{:?}", first.rejects);
    let schema = first.tables[0].rows.schema();
    let (rows, ops) = by_hand(&raw, &schema);
    assert_eq!(first.tables[0].rows, rows, "both make the same columns");
    assert_eq!(first.tables[0].ops, ops);

    let (ours, theirs) = measure(
        || drop(black_box(decoder.decode(black_box(&raw)))),
        || drop(black_box(by_hand(black_box(&raw), &schema))),
    );
    let rate = |time: Duration| RECORDS as f64 / time.as_secs_f64();
    println!(
        "mean message {} bytes; ours {:.0} changes/s, by hand {:.0} changes/s, ratio {:.2}",
        raw.records.bytes() as u64 / RECORDS,
        rate(ours),
        rate(theirs),
        theirs.as_secs_f64() / ours.as_secs_f64(),
    );
    let mut group = c.benchmark_group("pgoutput");
    group.sample_size(10).throughput(Throughput::Elements(RECORDS));
    group.bench_function("decoder", |b| b.iter(|| decoder.decode(black_box(&raw))));
    group.bench_function("by_hand", |b| b.iter(|| by_hand(black_box(&raw), &schema)));
    group.finish();
}

criterion_group!(benches, compare);
criterion_main!(benches);
