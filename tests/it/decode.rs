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
fn every_logical_type_is_read_exactly() {
    let time = |name: &str| format!("io.debezium.time.{name}");
    let data = |name: &str| format!("io.debezium.data.{name}");
    let cases: Vec<(String, &str, &str, &str)> = vec![
        (r#""type":"boolean""#.into(), "true", "boolean", "true"),
        (r#""type":"int8""#.into(), "-128", "smallint", "-128"),
        (r#""type":"int16""#.into(), "32767", "smallint", "32767"),
        (r#""type":"int32""#.into(), "-2147483648", "int", "-2147483648"),
        (r#""type":"int64""#.into(), "9223372036854775807", "bigint", "9223372036854775807"),
        (r#""type":"int64""#.into(), "-9223372036854775808", "bigint", "-9223372036854775808"),
        (r#""type":"float""#.into(), "123.102", "real", "123.102"),
        (r#""type":"float32""#.into(), "\"NaN\"", "real", "NaN"),
        (r#""type":"double""#.into(), "-1.5e-7", "double", "-1.5e-7"),
        (r#""type":"float64""#.into(), "\"-Infinity\"", "double", "-inf"),
        (r#""type":"string""#.into(), r#""a\u00e9\n""#, "text", "aé\n"),
        (r#""type":"string""#.into(), r#""""#, "text", ""),
        (r#""type":"bytes""#.into(), r#""AQID""#, "binary", "010203"),
        (decimal(4, Some(8)), r#""EtaH""#, "decimal(8,4)", "123.4567"),
        (decimal(0, Some(6)), r#""AVo=""#, "decimal(6,0)", "346"),
        (decimal(1, Some(65)), r#""FJqkSQ==""#, "decimal(65,1)", "34567892.1"),
        (decimal(0, Some(20)), r#""AP//////////""#, "decimal(20,0)", "18446744073709551615"),
        (decimal(2, None), r#""MDk=""#, "decimal(38,2)", "123.45"),
        (decimal(2, None), "123.45", "decimal(38,2)", "123.45"),
        (decimal(0, Some(20)), "18446744073709551615", "decimal(20,0)", "18446744073709551615"),
        (decimal(2, Some(4)), r#""/w==""#, "decimal(4,2)", "-0.01"),
        (decimal(-2, Some(3)), r#""AQ==""#, "decimal(5,0)", "100"),
        (decimal(4, Some(2)), r#""AQ==""#, "decimal(4,4)", "0.0001"),
        (logical("struct", &data("VariableScaleDecimal")), r#"{"scale":4,"value":"EtaH"}"#, "numeric", "123.4567"),
        (logical("struct", &data("VariableScaleDecimal")), r#"{"scale":0,"value":"Cg=="}"#, "numeric", "10"),
        (logical("struct", &data("VariableScaleDecimal")), r#"{"value":"/w==","scale":3}"#, "numeric", "-0.001"),
        (logical("int32", &time("Date")), "17109", "date", "2016-11-04"),
        (logical("int32", "org.apache.kafka.connect.data.Date"), "-1", "date", "1969-12-31"),
        (logical("int32", &time("Time")), "1000", "time", "00:00:01"),
        (logical("int32", "org.apache.kafka.connect.data.Time"), "1", "time", "00:00:00.001"),
        (logical("int64", &time("MicroTime")), "64822000000", "time", "18:00:22"),
        (logical("int64", &time("NanoTime")), "1000", "time", "00:00:00.000001"),
        (logical("int64", &time("Timestamp")), "1595008822123", "timestamp", "2020-07-17T18:00:22.123"),
        (logical("int64", "org.apache.kafka.connect.data.Timestamp"), "-1", "timestamp", "1969-12-31T23:59:59.999"),
        (logical("int64", &time("MicroTimestamp")), "1595008822123456", "timestamp", "2020-07-17T18:00:22.123456"),
        (logical("int64", &time("NanoTimestamp")), "1595008822123456000", "timestamp", "2020-07-17T18:00:22.123456"),
        (logical("string", &time("ZonedTimestamp")), r#""2016-11-04T11:51:30.123456Z""#, "timestamptz", "2016-11-04T11:51:30.123456Z"),
        (logical("string", &time("ZonedTimestamp")), r#""2016-11-04T13:51:30+02:00""#, "timestamptz", "2016-11-04T11:51:30Z"),
        (logical("string", &time("ZonedTimestamp")), r#""+21016-11-04T06:51:30.123456Z""#, "timestamptz", "+21016-11-04T06:51:30.123456Z"),
        (logical("string", &time("ZonedTimestamp")), r#""-4713-12-31T23:59:59.999999Z""#, "timestamptz", "-4713-12-31T23:59:59.999999Z"),
        (logical("string", &time("ZonedTime")), r#""11:51:30.123789Z""#, "text", "11:51:30.123789Z"),
        (logical("string", &time("IsoDate")), r#""2017-09-15Z""#, "date", "2017-09-15"),
        (logical("string", &time("IsoTime")), r#""04:05:11.789Z""#, "time", "04:05:11.789"),
        (logical("string", &time("IsoTimestamp")), r#""2020-02-29T00:00:00.5Z""#, "timestamp", "2020-02-29T00:00:00.500"),
        (logical("int64", &time("MicroDuration")), "-1", "duration", "-1"),
        (logical("int64", &time("NanoDuration")), "5000", "duration", "5"),
        (logical("string", &time("Interval")), r#""P1Y2M3DT4H5M6.78S""#, "text", "P1Y2M3DT4H5M6.78S"),
        (logical("int32", &time("Year")), "2026", "int", "2026"),
        (logical("bytes", &data("Bits")), r#""AQEBAQEBAQE=""#, "binary", "0101010101010101"),
        (logical("bytes", &data("Bits")), r#""""#, "binary", ""),
        (logical("string", &data("Json")), r#""{\"bar\": \"baz\"}""#, "json", r#"{"bar": "baz"}"#),
        (logical("string", &data("Uuid")), r#""B68A35A7-17ad-35b3-af2a-ae46edb4545a""#, "uuid", "b68a35a7-17ad-35b3-af2a-ae46edb4545a"),
        (logical("string", &data("Enum")), r#""red""#, "text", "red"),
        (logical("string", &data("EnumSet")), r#""a,b""#, "text", "a,b"),
        (logical("string", &data("Xml")), r#""<a/>""#, "text", "<a/>"),
        (logical("string", &data("Ltree")), r#""a.b""#, "text", "a.b"),
        (logical("struct", "io.debezium.data.geometry.Point"), r#"{"x":1.0,"y":1.0,"wkb":"AQ==","srid":null}"#, "json", r#"{"x":1.0,"y":1.0,"wkb":"AQ==","srid":null}"#),
        (r#""type":"array","items":{"type":"int32"}"#.into(), "[1,null]", "json", "[1,null]"),
        (r#""type":"map","keys":{"type":"int16"},"values":{"type":"double"}"#.into(), "[[1,2.5]]", "json", "[[1,2.5]]"),
        (r#""type":"int64""#.into(), "null", "bigint", "null"),
    ];
    for (field, value, data_type, expected) in cases {
        assert_eq!(read_with_schema(&field, value), (data_type.to_owned(), expected.to_owned()), "{field} {value}");
    }
}

#[test]
fn what_cannot_be_exact_is_refused_with_its_reason() {
    let time = |base: &str, name: &str| logical(base, &format!("io.debezium.time.{name}"));
    let cases: Vec<(String, &str, &str)> = vec![
        (r#""type":"int16""#.into(), "32768", "wider type"),
        (r#""type":"int64""#.into(), "9223372036854775808", "beyond 64 bits"),
        (r#""type":"int64""#.into(), "1.0", "not a whole number"),
        (r#""type":"int64""#.into(), "01", "not a whole number"),
        (r#""type":"int32""#.into(), "\"secret\"", "a text of 6 characters"),
        (r#""type":"double""#.into(), "1e999", "float"),
        (r#""type":"bytes""#.into(), r#""A""#, "base64"),
        (decimal(2, Some(4)), r#""AP//////////""#, "more digits than the column holds"),
        (decimal(2, Some(4)), r#""""#, "empty"),
        (decimal(2, Some(4)), "1.234", "behind the point"),
        (time("int32", "Date"), "-2147472693", "infinity"),
        (time("int64", "MicroTimestamp"), "9223372036825200000", "infinity"),
        (time("int64", "MicroTimestamp"), "-9223372036832400000", "infinity"),
        (time("int64", "Timestamp"), "9223372036825200", "infinity"),
        (time("int64", "NanoTimestamp"), "9223372036854775807", "infinity"),
        (time("int64", "NanoTimestamp"), "1", "nanoseconds"),
        (time("int64", "MicroTime"), "86400000001", "`duration`"),
        (time("int64", "MicroTime"), "-1", "`duration`"),
        (time("string", "ZonedTimestamp"), r#""infinity""#, "infinity"),
        (time("string", "ZonedTimestamp"), r#""2020-02-30T00:00:00Z""#, "not an ISO date"),
        (time("string", "ZonedTimestamp"), r#""2020-02-28T00:00:00""#, "no zone"),
        (time("string", "IsoTimestamp"), r#""+294247-01-10T04:00:25.2Z""#, "infinity"),
        (logical("string", "io.debezium.data.Uuid"), r#""b68a""#, "UUID"),
        (logical("string", "io.debezium.data.Json"), r#""{""#, "JSON"),
        (logical("struct", "io.debezium.data.VariableScaleDecimal"), r#"{"scale":4}"#, "base64 `value`"),
        (r#""type":"array","items":{"type":"int32"}"#.into(), "[1,]", "JSON"),
        (r#""type":"string""#.into(), r#""\ud800""#, "surrogate"),
    ];
    for (field, value, expected) in cases {
        let (kind, reason) = read_with_schema(&field, value);
        assert_eq!(kind, "refused", "{field} {value}: {reason}");
        assert!(reason.contains(expected) && reason.contains("`v`"), "{field} {value}: {reason}");
        assert!(!reason.contains("secret"), "{reason}");
    }
}

#[test]
fn schema_and_no_schema_and_flattened_mix_in_one_topic() {
    let mut d = decoder(vec![route()]);
    let text = r#""type":"string""#;
    let key = r#"{"schema":{"type":"struct","fields":[{"type":"int32","optional":false,"field":"id"}],"optional":false},"payload":{"id":1}}"#;
    let flat = r#"{"id":3,"v":"c","__op":"r","__table":"orders","__lsn":33832960,"__source_ts_ms":1596309876678,"__deleted":"false"}"#;
    let batch = decode(
        &mut d,
        &[
            rec(key, &with_schema(text, "c", r#"{"id":1,"v":"a"}"#)),
            rec(key, &with_schema(text, "c", r#"{"id":1,"v":"a2"}"#)),
            rec(r#"{"id":2}"#, &envelope("c", "null", r#"{"v":"b","id":2}"#)),
            rec(r#"{"id":3}"#, flat),
            rec(r#"{"id":3}"#, &flat.replace("\"false\"", "\"true\"")),
            rec(key, &with_schema(text, "d", "null")),
        ],
    );
    assert_eq!(batch.rejects.iter().map(|r| &r.reason).collect::<Vec<_>>(), Vec::<&String>::new());
    assert_eq!(
        rows(&batch),
        ["c id=1 v=a", "c id=1 v=a2", "c id=2 v=b", "r id=3 v=c", "d id=3 v=null", "d id=1 v=null"]
    );
    assert_eq!(batch.tables[0].source_times_us[3], 1_596_309_876_678_000);
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
fn a_flattened_delete_is_a_null_payload() {
    let mut d = decoder(vec![route()]);
    let schema = r#"{"type":"struct","fields":[{"type":"int32","optional":false,"field":"id"},{"type":"string","optional":true,"field":"v"}],"optional":false,"name":"shop.public.orders.Value"}"#;
    let of = |payload: &str| format!(r#"{{"schema":{schema},"payload":{payload}}}"#);
    let batch = decode(
        &mut d,
        &[
            rec(r#"{"id":1}"#, &of(r#"{"id":1,"v":"a"}"#)),
            rec(r#"{"id":1}"#, &of("null")),
            rec(r#"{"id":2}"#, "null"),
            tombstone(r#"{"id":3}"#),
        ],
    );
    assert_eq!(rows(&batch), ["u id=1 v=a", "d id=1 v=null", "d id=2 v=null", "d id=3 v=null"]);
}

#[test]
fn the_table_is_named_by_the_event_when_there_is_no_stream() {
    let mut d = decoder(vec![route(), TableRoute { table: "other".into(), stream: "shop.public.other".into(), ..route() }]);
    let event = envelope("c", "null", r#"{"id":1}"#);
    let batch = d
        .decode(&raw(0, None, &[
            rec(r#"{"id":1}"#, &event),
            rec(r#"{"id":1}"#, &event.replace(r#""table":"orders""#, r#""table":"other""#)),
            rec(r#"{"id":1}"#, &event.replace(r#""table":"orders""#, r#""table":"third""#)),
            rec(r#"{"id":1}"#, r#"{"id":1,"__table":"other","__op":"c"}"#),
            rec(r#"{"id":1}"#, r#"{"id":1}"#),
        ]))
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
            rec(key, &envelope("u", "null", r#"{"id":1,"t":"__debezium_unavailable_value","a":["__debezium_unavailable_value"]}"#)),
            rec(key, &envelope("c", "null", r#"{"id":1,"t":"__debezium_unavailable_value","a":[2]}"#)),
        ],
    );
    assert_eq!(rows(&batch), ["c id=1 t=x a=[1]", "u id=1 t=~ a=~"]);
    assert_eq!(batch.rejects[0].rule, "incomplete");
    assert!(batch.rejects[0].reason.contains("`t`"));
}

fn moved(id: u32, to: u32, after: &str) -> [Rec; 3] {
    let key = |id: u32| format!(r#"{{"id":{id}}}"#);
    [
        rec(&key(id), &envelope("d", &format!(r#"{{"id":{id},"t":""}}"#), "null")).header("__debezium.newkey", &key(to)),
        tombstone(&key(id)),
        rec(&key(to), &envelope("c", "null", after)).header("__debezium.oldkey", &key(id)),
    ]
}

const PARTIAL: &str = r#"{"id":2,"t":"__debezium_unavailable_value"}"#;

fn learned(d: &mut DebeziumJson) {
    decode(d, &[rec(r#"{"id":1}"#, &envelope("c", "null", r#"{"id":1,"t":"x"}"#))]);
}

#[test]
fn a_key_update_is_one_move_wherever_batches_end() {
    let records = moved(1, 2, PARTIAL);
    for cuts in [vec![], vec![1], vec![2], vec![1, 2]] {
        let mut d = decoder(vec![route()]);
        learned(&mut d);
        let mut out = Vec::new();
        let mut account = [0; 3];
        let mut at = 10;
        let mut from = 0;
        for cut in cuts.iter().copied().chain([records.len()]) {
            let batch = d.decode(&raw(10 + from as u64, Some(STREAM), &records[from..cut])).unwrap();
            assert!(batch.account.balances());
            assert_eq!(batch.span.from, Position::offset(at), "spans join on");
            at = batch.span.to.as_offset().unwrap();
            out.extend(rows(&batch));
            for (sum, part) in account.iter_mut().zip([batch.account.rows, batch.account.merged, batch.account.control]) {
                *sum += part;
            }
            for changes in &batch.tables {
                assert_eq!(changes.seqs[0].major, 12, "the create's place");
            }
            from = cut;
        }
        assert_eq!((out, account, at), (vec!["m id=2 t=~ old=1".to_owned()], [1, 1, 1], 13), "{cuts:?}");
        assert!(d.flush(&Partition::new("shop", "p/0")).unwrap().is_none());
    }
}

#[test]
fn half_a_move_is_a_delete_or_is_refused() {
    let partition = Partition::new("shop", "p/0");
    let records = moved(1, 2, PARTIAL);
    let mut d = decoder(vec![route()]);
    learned(&mut d);
    let batch = d.decode(&raw(10, Some(STREAM), &records[..2])).unwrap();
    assert_eq!((batch.account.read, batch.span.to.clone()), (0, Position::offset(10)));
    let flushed = d.flush(&partition).unwrap().unwrap();
    assert_eq!(rows(&flushed), ["d id=1 t=null"]);
    assert_eq!((flushed.span.from, flushed.span.to), (Position::offset(10), Position::offset(12)));
    assert_eq!((flushed.account.read, flushed.account.control), (2, 1));
    // Its create comes alone: without its base it is incomplete; a whole one is a row.
    let whole = r#"{"id":2,"t":"y"}"#;
    let batch = d.decode(&raw(12, Some(STREAM), &[records[2].clone(), moved(1, 2, whole)[2].clone()])).unwrap();
    assert_eq!((batch.rejects[0].rule.as_str(), rows(&batch)), ("incomplete", vec!["c id=2 t=y".to_owned()]));
    // The halves of two different moves are not one move.
    let batch = d.decode(&raw(14, Some(STREAM), &[records[0].clone(), moved(7, 8, r#"{"id":8,"t":"z"}"#)[2].clone()])).unwrap();
    assert_eq!(rows(&batch), ["d id=1 t=null", "c id=8 t=z"]);
    // A reset forgets what is kept back.
    d.decode(&raw(16, Some(STREAM), &records[..1])).unwrap();
    d.reset(&partition, None);
    assert!(d.flush(&partition).unwrap().is_none());
}

fn at(lsn: u64, row: &str) -> Rec {
    keyless(&envelope("c", "null", row).replace(r#"[\"10\",\"20\"]"#, &format!(r#"[\"{lsn}\",\"{lsn}\"]"#)))
}

#[test]
fn tables_without_a_key_take_each_event_once() {
    let e = |n: u64| at(n, &format!(r#"{{"n":{n}}}"#));
    let partition = Partition::new("shop", "p/0");
    let all = [e(1), e(2), e(3), e(2), e(3), e(4)];
    for cut in 0..=all.len() {
        let mut d = decoder(vec![route()]);
        let first = d.decode(&raw(0, Some(STREAM), &all[..cut])).unwrap();
        // A restart in between: the mark comes from the log.
        let mut d = decoder(vec![route()]);
        d.reset(&partition, first.mark.as_deref());
        d.adopt(&first.tables.iter().map(|t| t.contract.clone()).collect::<Vec<_>>()).unwrap();
        let second = d.decode(&raw(cut as u64, Some(STREAM), &all[cut..])).unwrap();
        let rows: Vec<_> = rows(&first).into_iter().chain(rows(&second)).collect();
        assert_eq!(rows, ["c n=1", "c n=2", "c n=3", "c n=4"], "{cut}");
        assert_eq!(first.account.redelivered + second.account.redelivered, 2);
    }
    let mut d = decoder(vec![route()]);
    let batch = decode(&mut d, &[e(1), keyless(&envelope("d", r#"{"n":1}"#, "null")), keyless(&envelope("u", "null", r#"{"n":1}"#))]);
    assert_eq!((batch.account.rows, batch.account.rejected), (1, 2));
    assert!(batch.rejects[0].reason.contains("`key:`"));
}
