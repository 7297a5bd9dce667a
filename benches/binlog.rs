//! Rows of the binary log to Arrow on one core, beside mysql_common's own reading of the same bytes into values.
//!
//! `cargo bench --bench binlog`. Ours does more: one record per row, as the source pushes it, then typed columns.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dataflow::batch::{ChangeBatch, RawBatch, RawRecords};
use dataflow::config::OnMismatch;
use dataflow::decode::Decoder;
use dataflow::decode::binlog::BinlogDecoder;
use dataflow::decode::debezium::TableRoute;
use dataflow::progress::{Partition, Position, Span};
use dataflow::wire::binlog::{Body, Checksum, EventReader, describe_key, shape};
use dataflow::wire::mysqltype::Form;
use mysql_async::binlog::BinlogVersion;
use mysql_async::binlog::events::{Event, EventData, FormatDescriptionEvent, TableMapEvent};

/// The process's allocator, for both.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const ROWS: u64 = 20_000;
/// As a server fills an event of 8 KiB.
const ROWS_PER_EVENT: u64 = 50;
const TABLE_ID: [u8; 6] = [7, 0, 0, 0, 0, 0];

/// Name, type, metadata; `CHAR` and `ENUM` share a type in the log.
const COLUMNS: [(&str, u8, &[u8]); 16] = [
    ("id", 8, &[]),
    ("customer_id", 8, &[]),
    ("status", 15, &[80, 0]),
    ("email", 15, &[200, 1]),
    ("amount", 246, &[12, 2]),
    ("currency", 254, &[254, 12]),
    ("quantity", 3, &[]),
    ("paid", 1, &[]),
    ("order_date", 10, &[]),
    ("created_at", 18, &[6]),
    ("updated_at", 17, &[6]),
    ("note", 252, &[2]),
    ("weight", 5, &[8]),
    ("points", 2, &[]),
    ("version", 3, &[]),
    ("views", 8, &[]),
];

fn event(code: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = 1_700_000_000u32.to_le_bytes().to_vec();
    bytes.push(code);
    bytes.extend(1u32.to_le_bytes());
    bytes.extend((body.len() as u32 + 19).to_le_bytes());
    bytes.extend([0; 6]);
    bytes.extend(body);
    bytes
}

fn format_description() -> Vec<u8> {
    let lengths = [
        0, 13, 0, 8, 0, 0, 0, 0, 4, 0, 4, 0, 0, 0, 98, 0, 4, 26, 8, 0, 0, 0, 8, 8, 8, 2, 0, 0, 0, 10, 10, 10, 42, 42,
        0, 18, 52, 0, 10, 40, 0,
    ];
    let mut body = 4u16.to_le_bytes().to_vec();
    let mut version = b"8.4.0".to_vec();
    version.resize(50, 0);
    body.extend(version);
    body.extend([0, 0, 0, 0, 19]);
    body.extend(lengths);
    body.extend([0, 0, 0, 0, 0]);
    event(15, &body)
}

fn counted(bytes: &[u8]) -> Vec<u8> {
    [&[bytes.len() as u8], bytes].concat()
}

fn table_map() -> Vec<u8> {
    let names: Vec<u8> = COLUMNS.iter().flat_map(|(name, _, _)| counted(name.as_bytes())).collect();
    let types: Vec<u8> = COLUMNS.iter().map(|(_, code, _)| *code).collect();
    let metas: Vec<u8> = COLUMNS.iter().flat_map(|(_, _, meta)| meta.to_vec()).collect();
    let body = [
        &TABLE_ID[..],
        &[1, 0],
        &counted(b"shop"),
        &[0],
        &counted(b"orders"),
        &[0],
        &counted(&types),
        &counted(&metas),
        &[0xFE, 0xFF],
        &[1, 2, 0, 0],
        &[2, 1, 45],
        &[4],
        &counted(&names),
        &[8, 1, 0],
    ];
    event(19, &body.concat())
}

fn row(number: u64, out: &mut Vec<u8>) {
    let word = |text: &str, out: &mut Vec<u8>| out.extend(counted(text.as_bytes()));
    let note = !number.is_multiple_of(4);
    out.extend([0, if note { 0 } else { 0b1000 }]);
    out.extend(number.to_le_bytes());
    out.extend((number % 977).to_le_bytes());
    word(["new", "paid", "delivered"][number as usize % 3], out);
    let email = format!("customer-{}@shop.example", number % 977);
    out.extend((email.len() as u16).to_le_bytes());
    out.extend(email.as_bytes());
    // Ten digits in front of the point: one, then nine; two behind it.
    out.push(0x80);
    out.extend((number as u32 % 100_000).to_be_bytes());
    out.push((number % 100) as u8);
    word("EUR", out);
    out.extend((number as u32 % 9).to_le_bytes());
    out.push((number % 2) as u8);
    out.extend(&(2024u32 << 9 | (number as u32 % 12 + 1) << 5 | (number as u32 % 28 + 1)).to_le_bytes()[..3]);
    let created = ((2024u64 * 13 + 3) << 22 | 5 << 17 | (number % 24) << 12 | (number % 60) << 6 | 7) | 1 << 39;
    out.extend(&created.to_be_bytes()[3..]);
    out.extend(&(number as u32 % 1_000_000).to_be_bytes()[1..]);
    out.extend((1_700_000_000 + number as u32).to_be_bytes());
    out.extend(&(number as u32 % 1_000_000).to_be_bytes()[1..]);
    if note {
        let note = "please leave it at the door ".repeat(number as usize % 4 + 1);
        out.extend((note.len() as u16).to_le_bytes());
        out.extend(note.as_bytes());
    }
    out.extend((number as f64 / 7.0).to_le_bytes());
    out.extend((number as u16 % 1_000).to_le_bytes());
    out.extend(1u32.to_le_bytes());
    out.extend((number * 31).to_le_bytes());
}

/// Events as a server sends them: a table map before every rows event.
fn events() -> Vec<Vec<u8>> {
    let mut events = vec![format_description()];
    for first in (0..ROWS).step_by(ROWS_PER_EVENT as usize) {
        let mut body = [&TABLE_ID[..], &[1, 0], &[2, 0], &[16], &[0xFF, 0xFF]].concat();
        (first..first + ROWS_PER_EVENT).for_each(|number| row(number, &mut body));
        events.push(table_map());
        events.push(event(30, &body));
    }
    events
}

fn decoder() -> BinlogDecoder {
    let route = TableRoute {
        table: "orders".into(),
        stream: "shop.orders".into(),
        key: None,
        contract: None,
        on_mismatch: OnMismatch::Quarantine,
        gone: Vec::new(),
    };
    BinlogDecoder::new("shop", vec![route]).expect("a decoder")
}

/// As the source does it: a table map that says what the last one said is not read again.
fn ours(decoder: &mut BinlogDecoder, events: &[Vec<u8>]) -> ChangeBatch {
    let mut reader = EventReader::new(Checksum::None);
    let (mut records, mut record, mut known) = (RawRecords::default(), Vec::new(), Vec::new());
    let mut forms: Vec<Form> = Vec::new();
    for (number, bytes) in events.iter().enumerate() {
        match reader.read(bytes).expect("an event").body {
            Body::TableMap(map) if map.bytes == known => {}
            Body::TableMap(map) => {
                known = map.bytes.to_vec();
                let shape = shape(&map.parse_columns().expect("a table map"), None).expect("a shape");
                forms = shape.columns.iter().map(|column| column.form).collect();
                records.push_within(1, (number as u64, 0), 0, Some(&describe_key(&shape)), None);
            }
            Body::Rows(rows) => {
                for (ordinal, images) in rows.split(&forms).expect("rows").enumerate() {
                    rows.record(rows.table_id, images.expect("a row"), &mut record);
                    records.push_within(1, (number as u64, ordinal as u32 + 1), 1, None, Some(&record));
                }
            }
            _ => {}
        }
    }
    let span = Span { from: Position("a".into()), to: Position("b".into()) };
    let partition = Partition::new("shop", "log");
    let raw = RawBatch { partition, generation: 0, span, stream: None, records, inside_transaction: false };
    decoder.decode(&raw).expect("it decodes")
}

/// The number of values.
fn theirs(events: &[Vec<u8>]) -> usize {
    let mut format = FormatDescriptionEvent::new(BinlogVersion::Version4);
    let mut map: Option<TableMapEvent<'static>> = None;
    let mut values = 0;
    for bytes in events {
        let event = Event::read(&format, &bytes[..]).expect("an event");
        match event.read_data().expect("a body") {
            Some(EventData::FormatDescriptionEvent(read)) => format = read.into_owned(),
            Some(EventData::TableMapEvent(read)) => map = Some(read.into_owned()),
            Some(EventData::RowsEvent(rows)) => {
                for row in rows.rows(map.as_ref().expect("a table map")) {
                    let (_, after) = row.expect("a row");
                    values += black_box(after.expect("a new row").unwrap()).len();
                }
            }
            _ => {}
        }
    }
    values
}

/// Alternating runs, the best of each: ours, and the baseline.
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
    let events = events();
    let mut decoder = decoder();
    let first = ours(&mut decoder, &events);
    assert!(first.rejects.is_empty(), "{:?}", first.rejects.first());
    let cells = first.tables.iter().map(|table| table.len() * table.rows.num_columns()).sum::<usize>();
    assert_eq!((cells, theirs(&events)), (ROWS as usize * COLUMNS.len(), ROWS as usize * COLUMNS.len()));

    let (mine, others) = measure(
        || drop(black_box(ours(&mut decoder, black_box(&events)))),
        || assert!(black_box(theirs(black_box(&events))) > 0),
    );
    let bytes: usize = events.iter().map(Vec::len).sum();
    let rate = |time: Duration| ROWS as f64 / time.as_secs_f64();
    println!(
        "binlog: mean row {} bytes; ours {:.0} rows/s, mysql_common {:.0} rows/s, ratio {:.2}",
        bytes as u64 / ROWS,
        rate(mine),
        rate(others),
        others.as_secs_f64() / mine.as_secs_f64(),
    );

    let mut group = c.benchmark_group("binlog");
    group.sample_size(10).throughput(Throughput::Elements(ROWS));
    group.bench_function("decoder", |b| b.iter(|| ours(&mut decoder, black_box(&events))));
    group.bench_function("mysql_common", |b| b.iter(|| theirs(black_box(&events))));
    group.finish();
}

criterion_group!(benches, compare);
criterion_main!(benches);
