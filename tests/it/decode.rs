//! Debezium JSON to columns.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use dataflow::batch::{ChangeBatch, NO_TIME, Op, RawBatch, RawRecords, TableChanges};
use dataflow::config::{ContractFile, Debezium, Encoding, OnMismatch};
use dataflow::contract::{Column, Contract, Type};
use dataflow::decode::Decoder;
use dataflow::decode::debezium::{DebeziumJson, TableRoute};
use dataflow::progress::{Partition, Position, Progress, Span, Standing};

mod contracts;
mod flattened;
mod gone;
mod moves;
mod types;
mod widening;

const STREAM: &str = "shop.public.orders";

fn route() -> TableRoute {
    TableRoute {
        table: "orders".into(),
        stream: STREAM.into(),
        key: None,
        contract: None,
        on_mismatch: OnMismatch::Quarantine,
        gone: vec![],
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
        inside_transaction: false,
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

fn moved(id: u32, to: u32, after: &str) -> [Rec; 3] {
    let key = |id: u32| format!(r#"{{"id":{id}}}"#);
    [
        rec(&key(id), &envelope("d", &format!(r#"{{"id":{id},"t":""}}"#), "null"))
            .header("__debezium.newkey", &key(to)),
        tombstone(&key(id)),
        rec(&key(to), &envelope("c", "null", after)).header("__debezium.oldkey", &key(id)),
    ]
}

const PARTIAL: &str = r#"{"id":2,"t":"__debezium_unavailable_value"}"#;

fn learned(d: &mut DebeziumJson) {
    decode(d, &[rec(r#"{"id":1}"#, &envelope("c", "null", r#"{"id":1,"t":"x"}"#))]);
}

#[test]
fn plain_envelopes_are_learned() {
    let mut d = decoder(vec![route()]);
    let batch = decode(
        &mut d,
        &[
            rec(r#"{"id":1}"#, &envelope("c", "null", r#"{"id":1,"name":"a\"b","ok":true,"tags":["x"],"gone":null}"#)),
            rec(
                r#"{"id":1}"#,
                &envelope("u", r#"{"id":1}"#, r#"{"id":1,"name":null,"ok":false,"tags":null,"gone":"g"}"#),
            ),
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

/// A message with the schema block: the columns `id` and `v`.
fn with_schema(field: &str, op: &str, after: &str) -> String {
    let row = format!(
        r#"{{"type":"struct","fields":[{{"type":"int32","optional":false,"field":"id"}},{{{field},"optional":true,"field":"v"}}],"optional":true,"name":"shop.public.orders.Value","field":"F"}}"#
    );
    let (before, of_after) = (row.replace("\"F\"", "\"before\""), row.replace("\"F\"", "\"after\""));
    format!(
        r#"{{"schema":{{"type":"struct","fields":[{before},{of_after},{{"type":"struct","fields":[],"optional":false,"field":"source"}},{{"type":"string","optional":false,"field":"op"}}],"optional":false,"name":"shop.public.orders.Envelope"}},"payload":{}}}"#,
        envelope(op, "null", after)
    )
}

/// The reading of one value: its type and text, or the reason of its refusal.
fn read_with_schema(field: &str, value: &str) -> (String, String) {
    let mut d = decoder(vec![route()]);
    let batch = decode(&mut d, &[rec(r#"{"id":1}"#, &with_schema(field, "c", &format!(r#"{{"id":1,"v":{value}}}"#)))]);
    if let Some(reject) = batch.rejects.first() {
        return ("refused".into(), reject.reason.clone());
    }
    let changes = &batch.tables[0];
    (changes.contract.input.columns[1].data_type.to_string(), text(changes.rows.column(1), 0))
}

const DECIMAL: &str = "org.apache.kafka.connect.data.Decimal";

fn logical(base: &str, name: &str) -> String {
    format!(r#""type":"{base}","name":"{name}","version":1"#)
}

fn decimal(scale: i32, precision: Option<u32>) -> String {
    let precision = precision.map(|p| format!(r#","connect.decimal.precision":"{p}""#)).unwrap_or_default();
    format!(r#""type":"bytes","name":"{DECIMAL}","version":1,"parameters":{{"scale":"{scale}"{precision}}}"#)
}

#[test]
fn tombstones_heartbeats_transactions_and_unknown_streams() {
    let mut d = decoder(vec![route()]);
    let key = r#"{"id":1}"#;
    let batch = decode(
        &mut d,
        &[
            rec(key, &envelope("c", "null", r#"{"id":1}"#)),
            tombstone(key),
            rec(key, "null"),
            rec(key, ""),
            rec(key, r#"{"schema":null,"payload":null}"#),
            rec("null", r#"{"op":"m","ts_ms":5,"source":{"ts_ms":1},"message":{"prefix":"p","content":"eA=="}}"#),
        ],
    );
    assert_eq!((batch.account.rows, batch.account.control), (1, 5));
    let other = |d: &mut DebeziumJson, stream: &str, value: &str| {
        d.decode(&raw(0, Some(stream), &[keyless(value)])).unwrap().account
    };
    assert_eq!(other(&mut d, "__debezium-heartbeat.shop", r#"{"ts_ms":1}"#).control, 1);
    let begin = r#"{"status":"BEGIN","id":"7:20","event_count":null,"data_collections":null,"ts_ms":1}"#;
    assert_eq!(other(&mut d, "shop.transaction", begin).control, 1);
    let ddl = r#"{"source":{"server":"shop"},"ts_ms":1,"databaseName":"shop","schemaName":null,"ddl":"create","tableChanges":[]}"#;
    assert_eq!(other(&mut d, "shop", ddl).control, 1);
    assert_eq!(other(&mut d, "shop.public.other", &envelope("c", "null", r#"{"id":1}"#)).unrouted, 1);
    assert_eq!(other(&mut d, "shop.public.other", "garbage").unrouted, 1);
}

#[test]
fn the_table_is_named_by_the_event_when_there_is_no_stream() {
    let mut d =
        decoder(vec![route(), TableRoute { table: "other".into(), stream: "shop.public.other".into(), ..route() }]);
    let event = envelope("c", "null", r#"{"id":1}"#);
    let batch = d
        .decode(&raw(
            0,
            None,
            &[
                rec(r#"{"id":1}"#, &event),
                rec(r#"{"id":1}"#, &event.replace(r#""table":"orders""#, r#""table":"other""#)),
                rec(r#"{"id":1}"#, &event.replace(r#""table":"orders""#, r#""table":"third""#)),
                rec(r#"{"id":1}"#, r#"{"id":1,"__table":"other","__op":"c"}"#),
                rec(r#"{"id":1}"#, r#"{"id":1}"#),
            ],
        ))
        .unwrap();
    let tables: BTreeMap<_, _> = batch.tables.iter().map(|t| (t.contract.table.as_str(), t.len())).collect();
    assert_eq!(tables, BTreeMap::from([("orders", 1), ("other", 2)]));
    assert_eq!((batch.account.unrouted, batch.account.rejected), (1, 1));
    assert!(batch.rejects[0].reason.contains("stream:"), "{}", batch.rejects[0].reason);
}

#[test]
fn the_placeholder_is_unchanged() {
    let mut d = decoder(vec![route()]);
    let key = r#"{"id":1}"#;
    let batch = decode(
        &mut d,
        &[
            rec(key, &envelope("c", "null", r#"{"id":1,"t":"x","a":[1]}"#)),
            rec(
                key,
                &envelope(
                    "u",
                    "null",
                    r#"{"id":1,"t":"__debezium_unavailable_value","a":["__debezium_unavailable_value"]}"#,
                ),
            ),
            rec(key, &envelope("c", "null", r#"{"id":1,"t":"__debezium_unavailable_value","a":[2]}"#)),
        ],
    );
    assert_eq!(rows(&batch), ["c id=1 t=x a=[1]", "u id=1 t=~ a=~", "x id=1 t=null a=null"]);
    assert_eq!(batch.rejects[0].rule, "incomplete");
    assert!(batch.rejects[0].reason.contains("`t`"));
}

fn contract(columns: &[(&str, &str)], encodings: &[(&str, Encoding)]) -> ContractFile {
    ContractFile {
        version: 1,
        columns: columns.iter().map(|(name, t)| Column::new(*name, t.parse::<Type>().unwrap())).collect(),
        key: vec!["id".into()],
        learn: true,
        widen: true,
        encodings: encodings.iter().map(|(name, encoding)| ((*name).to_owned(), *encoding)).collect(),
    }
}

fn written(file: ContractFile) -> DebeziumJson {
    decoder(vec![TableRoute { contract: Some(file), ..route() }])
}

fn one(d: &mut DebeziumJson, after: &str) -> Result<String, String> {
    let batch = decode(d, &[rec(r#"{"id":1}"#, &envelope("c", "null", after))]);
    match batch.rejects.first() {
        Some(reject) => Err(format!("{}: {}", reject.rule, reject.reason)),
        None => Ok(rows(&batch).remove(0)),
    }
}

#[test]
fn keys_come_from_where_they_are() {
    // The row decides; what it lacks comes from the message key.
    let mut d = decoder(vec![route()]);
    let key = r#"{"id":1,"__dbz__physicalTableIdentifier":"shop.public.orders_1"}"#;
    let batch = decode(
        &mut d,
        &[
            rec(key, &envelope("c", "null", r#"{"id":1,"v":"a"}"#)),
            rec(key, &envelope("u", "null", r#"{"id":5,"v":"b"}"#)),
            rec(key, &envelope("d", r#"{"id":9}"#, "null")),
            rec(r#"{"id":1}"#, &envelope("u", "null", r#"{"id":1,"v":"c"}"#)),
        ],
    );
    assert_eq!(
        rows(&batch),
        [
            "c id=1 v=a __dbz__physicalTableIdentifier=shop.public.orders_1",
            "u id=5 v=b __dbz__physicalTableIdentifier=shop.public.orders_1",
            "d id=1 v=null __dbz__physicalTableIdentifier=shop.public.orders_1",
        ]
    );
    assert!(batch.rejects[0].reason.contains("table's key"), "{}", batch.rejects[0].reason);
    // Without a message key: the topology's key, from `before` for a delete.
    let mut d = decoder(vec![TableRoute { key: Some(vec!["id".into()]), ..route() }]);
    let records = [
        keyless(&envelope("c", "null", r#"{"id":1,"v":"a"}"#)),
        keyless(&envelope("d", r#"{"id":1,"v":"invented"}"#, "null")),
        keyless(&envelope("d", "null", "null")),
    ];
    let batch = decode(&mut d, &records);
    assert_eq!((rows(&batch), batch.rejects.len()), (vec!["c id=1 v=a".to_owned(), "d id=1 v=null".to_owned()], 1));
}

#[test]
fn truncates_and_bad_events() {
    let mut d = decoder(vec![route()]);
    learned(&mut d);
    let batch = decode(
        &mut d,
        &[
            keyless(&envelope("t", "null", "null").replace(r#""before":null,"after":null,"#, "")),
            keyless(&envelope("x", "null", r#"{"id":1}"#)),
            keyless(&envelope("c", "null", "null")),
            keyless(&envelope("d", "null", "null")),
            keyless("{\"before\":"),
            keyless("[]"),
        ],
    );
    assert_eq!(rows(&batch), ["t id=null t=null"]);
    assert_eq!((batch.account.rejected, batch.rejects.len()), (5, 5));
    assert!(batch.rejects.iter().all(|r| r.table.as_deref() == Some("orders")));
}

#[test]
fn a_key_that_no_row_has_is_refused() {
    let mut d = decoder(vec![TableRoute { key: Some(vec!["nope".into()]), ..route() }]);
    let records = [
        rec(r#"{"id":1}"#, &with_schema(r#""type":"string""#, "c", r#"{"id":1,"v":"a"}"#)),
        rec(r#"{"id":1}"#, &envelope("c", "null", r#"{"id":1,"v":"a"}"#)),
    ];
    let batch = decode(&mut d, &records);
    assert_eq!(batch.account.rejected, 2);
    assert!(batch.rejects.iter().all(|r| r.reason.contains("`nope`") && r.rule == "contract"));
}

#[test]
fn binlog_positions_recognise_re_delivery_across_files() {
    let at = |file: &str, pos: u32, row: u32, ms: u64, n: u32| {
        keyless(&format!(
            r#"{{"before":null,"after":{{"n":{n}}},"source":{{"connector":"mysql","name":"shop","ts_ms":{ms},"db":"shop","table":"orders","file":"{file}","pos":{pos},"row":{row}}},"op":"c","ts_ms":1}}"#
        ))
    };
    let records = [
        at("bin.999999", 100, 0, 1_000, 1),
        at("bin.999999", 100, 1, 1_000, 2),
        at("bin.1000000", 4, 0, 2_000, 3),
        at("bin.999999", 100, 1, 1_000, 2),
        at("bin.1000000", 4, 0, 2_000, 3),
        // A fail-over: lower positions, newer times.
        at("other.000007", 4, 0, 9_000, 4),
        at("other.000007", 4, 0, 9_000, 4),
    ];
    let batch = decode(&mut decoder(vec![route()]), &records);
    assert_eq!(rows(&batch), ["c n=1", "c n=2", "c n=3", "c n=4"]);
    assert_eq!(batch.account.redelivered, 3);
}

#[test]
fn decimal_keys_are_read_by_their_own_schema() {
    let id = r#"{"type":"bytes","optional":false,"name":"org.apache.kafka.connect.data.Decimal","version":1,"parameters":{"scale":"0","connect.decimal.precision":"20"},"field":"id"}"#;
    let key = format!(r#"{{"schema":{{"type":"struct","fields":[{id}],"optional":false}},"payload":{{"id":"AQ=="}}}}"#);
    let value = |op: &str, after: &str| {
        with_schema(r#""type":"string""#, op, after).replace(r#"{"type":"int32","optional":false,"field":"id"}"#, id)
    };
    let mut d = decoder(vec![route()]);
    let batch = decode(&mut d, &[rec(&key, &value("d", "null")), rec(&key, &value("c", r#"{"id":"AQ==","v":"x"}"#))]);
    assert_eq!(rows(&batch), ["d id=1 v=null", "c id=1 v=x"]);
    assert_eq!(batch.tables[0].contract.input.columns[0].data_type.to_string(), "decimal(20,0)");
}

#[test]
fn payloads_whose_schema_was_taken_out() {
    let alone = envelope("c", "null", r#"{"id":1,"v":"x"}"#);
    let wrapped = |text: &str| format!(r#"{{"payload":{text}}}"#);
    let key = r#"{"id":1}"#;
    let spaced = format!(" {{ \"payload\" : {} }} ", envelope("u", "null", r#"{"id":1,"v":"y"}"#));
    let records = [
        rec(key, &alone),
        rec(&wrapped(key), &wrapped(&alone)),
        rec(key, &spaced),
        rec(key, &with_schema(r#""type":"string""#, "u", r#"{"id":1,"v":"z"}"#)),
        rec(&wrapped(key), &wrapped(&envelope("d", r#"{"id":1,"v":"z"}"#, "null"))),
        rec(&wrapped(key), &wrapped("null")),
        rec(key, &wrapped(r#"{"ts_ms":1}"#)),
    ];
    let batch = decode(&mut decoder(vec![route()]), &records);
    assert_eq!(rows(&batch), ["c id=1 v=x", "c id=1 v=x", "u id=1 v=y", "u id=1 v=z", "d id=1 v=null"]);
    assert_eq!((batch.account.control, batch.account.rejected), (2, 0));
    // Learned from nothing else, flattened rows too.
    let flat = |row: &str| rec(&wrapped(key), &wrapped(row));
    let records = [flat(r#"{"id":1,"v":"x"}"#), flat(r#"{"id":1,"v":"x","__deleted":"true"}"#), flat("null")];
    assert_eq!(rows(&decode(&mut decoder(vec![route()]), &records)), ["u id=1 v=x", "d id=1 v=null", "d id=1 v=null"]);
    // A move's keys and headers may be wrapped too.
    let [old, _, new] = moved(1, 2, PARTIAL);
    let old = Rec { key: Some(wrapped(key)), ..old };
    let mut d = decoder(vec![route()]);
    learned(&mut d);
    assert_eq!(rows(&d.decode(&raw(10, Some(STREAM), &[old, new])).unwrap()), ["m id=2 t=~ old=1"]);
    // What is beside a payload belongs to a row.
    let row = rec(key, r#"{"payload":{"a":1},"id":1}"#);
    assert_eq!(rows(&decode(&mut decoder(vec![route()]), &[row])), [r#"u payload={"a":1} id=1"#]);
}

#[test]
fn what_is_refused_leaves_a_mark_under_its_key() {
    let columns = [("id", "bigint"), ("price", "decimal(10,2)"), ("t", "text")];
    let mut d = written(ContractFile { widen: false, ..contract(&columns, &[("price", Encoding::Text)]) });
    let key = r#"{"id":1}"#;
    let partial = r#"{"id":1,"price":"2.00","t":"__debezium_unavailable_value"}"#;
    let records = [
        rec(key, &envelope("c", "null", r#"{"id":1,"price":"1.00","t":"x"}"#)),
        // By the row's own key and by the message key, whatever of the value can be read.
        rec(key, &envelope("u", "null", r#"{"id":1,"price":"1.005","t":"y"}"#)),
        keyless(&envelope("u", "null", r#"{"id":2,"price":"many","t":"y"}"#)),
        rec(r#"{"id":3}"#, r#"{"before":null,"after":{"id":"#),
        rec(r#"{"id":4}"#, &envelope("?", "null", r#"{"id":4,"price":"1.00","t":"y"}"#)),
        rec(r#"{"id":5}"#, &envelope("u", "null", "null")),
        // Whose key cannot be read either.
        rec(r#"{"id":"many"}"#, &envelope("u", "null", r#"{"id":"many","price":"1.00","t":"y"}"#)),
        rec("{", r#"{"before":"#),
        rec(key, &envelope("u", "null", partial)),
    ];
    let batch = decode(&mut d, &records);
    let marks = ["x id=1", "x id=2", "x id=3", "x id=4", "x id=5"].map(|mark| format!("{mark} price=null t=null"));
    let mut expected = vec!["c id=1 price=1.00 t=x".to_owned()];
    expected.extend(marks);
    expected.push("u id=1 price=2.00 t=~".to_owned());
    assert_eq!(rows(&batch), expected);
    assert_eq!((batch.account.rows, batch.account.rejected), (2, 7));
    let seqs: Vec<_> = batch.tables[0].seqs.iter().map(|seq| seq.major).collect();
    assert_eq!(seqs, [0, 1, 2, 3, 4, 5, 8]);
    // A table without a key has nothing that a later row could stand on.
    let mut d = decoder(vec![TableRoute { key: Some(vec![]), ..route() }]);
    let batch = decode(
        &mut d,
        &[keyless(&envelope("c", "null", r#"{"a":1}"#)), keyless(&envelope("c", "null", r#"{"a":"x"}"#))],
    );
    assert_eq!((rows(&batch), batch.account.rejected), (vec!["c a=1".to_owned()], 1));
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    /// JSON that looks like events, and what is left of it when it is cut or stirred.
    fn any_value() -> impl Strategy<Value = String> {
        let row = prop_oneof![
            Just("null".to_owned()),
            Just(r#"{"id":1,"t":"x"}"#.to_owned()),
            "[ -~]{0,20}",
            (any::<i64>(), any::<String>(), any::<bool>())
                .prop_map(|(n, s, b)| format!(r#"{{"id":{n},"t":{},"b":{b}}}"#, serde_json::Value::from(s))),
            any::<f64>().prop_map(|n| format!(r#"{{"id":1,"f":{n}}}"#)),
        ];
        let event =
            ("[rcudtmx]", row.clone(), row.clone()).prop_map(|(op, before, after)| envelope(&op, &before, &after));
        let schema = ("[rcud]", row).prop_map(|(op, row)| with_schema(r#""type":"string""#, &op, &row));
        let whole = prop_oneof![event, schema, any::<String>(), Just("null".to_owned())];
        (whole, any::<prop::sample::Index>(), 0u8..4).prop_map(|(whole, at, how)| {
            let mut at = at.index(whole.len() + 1);
            while !whole.is_char_boundary(at) {
                at -= 1;
            }
            match how {
                0 => whole[..at].to_owned(),
                1 => format!("{}\\{}", &whole[..at], &whole[at..]),
                _ => whole,
            }
        })
    }

    fn any_record() -> impl Strategy<Value = Rec> {
        let key =
            proptest::option::of(prop_oneof![(0..4i64).prop_map(|n| format!(r#"{{"id":{n}}}"#)), any::<String>(),]);
        (key, proptest::option::of(any_value()), 0u8..6).prop_map(|(key, value, header)| {
            let record = Rec { key, value, headers: vec![] };
            match header {
                0 => record.header("__debezium.newkey", r#"{"id":1}"#),
                1 => record.header("__debezium.oldkey", r#"{"id":1}"#),
                _ => record,
            }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// Whatever comes: no panic, every record is accounted for once, spans join on.
        #[test]
        fn every_record_is_accounted_for(
            records in proptest::collection::vec(any_record(), 1..25),
            cut in any::<prop::sample::Index>(),
            streamless: bool,
        ) {
            let mut d = decoder(vec![route()]);
            let cut = cut.index(records.len() + 1);
            let stream = (!streamless).then_some(STREAM);
            let mut read = 0;
            let mut at = Position::offset(0);
            let mut batches = Vec::new();
            for (from, part) in [(0, &records[..cut]), (cut as u64, &records[cut..])] {
                batches.push(d.decode(&raw(from, stream, part)).unwrap());
            }
            batches.extend(d.flush(&Partition::new("shop", "p/0")).unwrap());
            for batch in &batches {
                prop_assert!(batch.account.balances());
                prop_assert_eq!(&batch.span.from, &at);
                at = batch.span.to.clone();
                read += batch.account.read;
                let changes = batch.tables.iter().flat_map(|t| t.ops.iter().zip(&t.seqs));
                let (marks, rows): (Vec<_>, Vec<_>) = changes.partition(|(op, _)| **op == Op::Refused);
                prop_assert_eq!(batch.account.rows, rows.len() as u64);
                prop_assert!(marks.iter().all(|(_, seq)| batch.rejects.iter().any(|r| r.seq == **seq)));
                prop_assert_eq!(batch.account.rejected, batch.rejects.len() as u64);
            }
            prop_assert_eq!((read, at), (records.len() as u64, Position::offset(records.len() as u64)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(value: Vec<u8>, key: Vec<u8>) {
            let mut records = RawRecords::default();
            records.push(0, NO_TIME, Some(&key), Some(&value));
            let mut batch = raw(0, Some(STREAM), &[]);
            batch.records = records;
            prop_assert_eq!(decoder(vec![route()]).decode(&batch).unwrap().account.read, 1);
        }
    }
}
