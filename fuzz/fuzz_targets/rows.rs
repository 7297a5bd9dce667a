//! Records of rows, decoded: every record is a row or a reject.

#![no_main]

use dataflow::batch::{RawBatch, RawRecords};
use dataflow::config::OnMismatch;
use dataflow::decode::Decoder;
use dataflow::decode::binlog::BinlogDecoder;
use dataflow::decode::debezium::TableRoute;
use dataflow::progress::{Partition, Position, Span};
use libfuzzer_sys::fuzz_target;

/// A table with a column of every kind.
const TABLE: &[u8] = br#"{"id":7,"name":"shop.t","columns":[
    {"name":"id","form":{"integer":1},"type":"integer","key":true},
    {"name":"t","form":{"bytes":1},"type":"text","charset":"utf8"},
    {"name":"j","form":{"json":4},"type":"json"},
    {"name":"d","form":{"decimal":{"precision":65,"scale":30}},"type":"decimal"},
    {"name":"n","form":{"date_time":6},"type":"date_time"},
    {"name":"l","form":{"time":3},"type":"time"},
    {"name":"e","form":{"enum":1},"type":"enum","members":["a","b"]},
    {"name":"s","form":{"set":1},"type":"set","members":["a","b"]},
    {"name":"g","form":{"bytes":4},"type":"geometry"},
    {"name":"v","form":{"bytes":4},"type":"vector"}]}"#;

fuzz_target!(|bytes: &[u8]| {
    let on_mismatch = OnMismatch::Quarantine;
    let route = TableRoute {
        table: "t".into(),
        stream: "shop.t".into(),
        key: None,
        contract: None,
        on_mismatch,
        gone: Vec::new(),
    };
    let Ok(mut decoder) = BinlogDecoder::new("s", vec![route]) else { return };
    let mut records = RawRecords::default();
    records.push(1, 0, Some(TABLE), None);
    for kind in *b"rcudp" {
        let head = [&[kind][..], &7u64.to_le_bytes(), &10u16.to_le_bytes()].concat();
        records.push(1, 0, None, Some(&[&head, bytes].concat()));
    }
    let span = Span { from: Position("a".into()), to: Position("b".into()) };
    let partition = Partition::new("s", "log");
    let raw = RawBatch { partition, generation: 0, span, stream: None, records, inside_transaction: false };
    assert!(decoder.decode(&raw).is_ok_and(|batch| batch.account.balances()));
});
