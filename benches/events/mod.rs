//! Orders of a shop as Debezium's PostgreSQL connector writes them, the same in every run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dataflow::batch::{RawBatch, RawRecords};
use dataflow::config::{ContractFile, Debezium, Encoding, OnMismatch};
use dataflow::contract::{Column, Type};
use dataflow::decode::debezium::{DebeziumJson, TableRoute};
use dataflow::progress::{Partition, Position, Span};

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

/// `count` events from event number `first` on.
pub fn batch(first: u64, count: u64, with_schema: bool) -> RawBatch {
    let mut numbers = Numbers(7 + first);
    let schema = value_schema();
    let key_schema = r#"{"type":"struct","fields":[{"type":"int64","optional":false,"field":"id"}],"optional":false,"name":"shop.public.orders.Key"}"#;
    let mut records = RawRecords::default();
    for n in first..first + count {
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
        span: Span { from: Position::offset(first), to: Position::offset(first + count) },
        stream: Some(Arc::from(STREAM)),
        records,
        inside_transaction: false,
    }
}

/// A decoder that has the table's contract.
pub fn decoder() -> DebeziumJson {
    let encodings = BTreeMap::from([
        ("amount".to_owned(), Encoding::Base64),
        ("order_date".to_owned(), Encoding::Days),
        ("created_at".to_owned(), Encoding::Microseconds),
    ]);
    let key = vec!["id".into()];
    let contract = ContractFile { version: 1, columns: columns(), key, learn: true, widen: true, encodings };
    let route = TableRoute {
        table: "orders".into(),
        stream: STREAM.into(),
        key: None,
        contract: Some(contract),
        on_mismatch: OnMismatch::Quarantine,
        gone: vec![],
    };
    DebeziumJson::new("shop", &Debezium::default(), vec![route]).expect("the routes are right")
}
