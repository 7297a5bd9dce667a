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

mod gone;
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
        (
            logical("string", &time("ZonedTimestamp")),
            r#""2016-11-04T11:51:30.123456Z""#,
            "timestamptz",
            "2016-11-04T11:51:30.123456Z",
        ),
        (
            logical("string", &time("ZonedTimestamp")),
            r#""2016-11-04T13:51:30+02:00""#,
            "timestamptz",
            "2016-11-04T11:51:30Z",
        ),
        (
            logical("string", &time("ZonedTimestamp")),
            r#""+21016-11-04T06:51:30.123456Z""#,
            "timestamptz",
            "+21016-11-04T06:51:30.123456Z",
        ),
        (
            logical("string", &time("ZonedTimestamp")),
            r#""-4713-12-31T23:59:59.999999Z""#,
            "timestamptz",
            "-4713-12-31T23:59:59.999999Z",
        ),
        (logical("string", &time("ZonedTime")), r#""11:51:30.123789Z""#, "text", "11:51:30.123789Z"),
        (logical("string", &time("IsoDate")), r#""2017-09-15Z""#, "date", "2017-09-15"),
        (logical("string", &time("IsoTime")), r#""04:05:11.789Z""#, "time", "04:05:11.789"),
        (
            logical("string", &time("IsoTimestamp")),
            r#""2020-02-29T00:00:00.5Z""#,
            "timestamp",
            "2020-02-29T00:00:00.500",
        ),
        (logical("int64", &time("MicroDuration")), "-1", "duration", "-1"),
        (logical("int64", &time("NanoDuration")), "5000", "duration", "5"),
        (logical("string", &time("Interval")), r#""P1Y2M3DT4H5M6.78S""#, "text", "P1Y2M3DT4H5M6.78S"),
        (logical("int32", &time("Year")), "2026", "int", "2026"),
        (logical("bytes", &data("Bits")), r#""AQEBAQEBAQE=""#, "binary", "0101010101010101"),
        (logical("bytes", &data("Bits")), r#""""#, "binary", ""),
        (logical("string", &data("Json")), r#""{\"bar\": \"baz\"}""#, "json", r#"{"bar": "baz"}"#),
        (
            logical("string", &data("Uuid")),
            r#""B68A35A7-17ad-35b3-af2a-ae46edb4545a""#,
            "uuid",
            "b68a35a7-17ad-35b3-af2a-ae46edb4545a",
        ),
        (logical("string", &data("Enum")), r#""red""#, "text", "red"),
        (logical("string", &data("EnumSet")), r#""a,b""#, "text", "a,b"),
        (logical("string", &data("Xml")), r#""<a/>""#, "text", "<a/>"),
        (logical("string", &data("Ltree")), r#""a.b""#, "text", "a.b"),
        (
            logical("struct", "io.debezium.data.geometry.Point"),
            r#"{"x":1.0,"y":1.0,"wkb":"AQ==","srid":null}"#,
            "json",
            r#"{"x":1.0,"y":1.0,"wkb":"AQ==","srid":null}"#,
        ),
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
            for (sum, part) in account.iter_mut().zip([batch.account.rows, batch.account.merged, batch.account.control])
            {
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
    assert_eq!((batch.rejects[0].rule.as_str(), batch.account.rejected), ("incomplete", 1));
    assert_eq!(rows(&batch), ["x id=2 t=null", "c id=2 t=y"]);
    // The halves of two different moves are not one move.
    let batch =
        d.decode(&raw(14, Some(STREAM), &[records[0].clone(), moved(7, 8, r#"{"id":8,"t":"z"}"#)[2].clone()])).unwrap();
    assert_eq!(rows(&batch), ["d id=1 t=null", "c id=8 t=z"]);
    // A reset forgets what is kept back.
    d.decode(&raw(16, Some(STREAM), &records[..1])).unwrap();
    d.reset(&partition, &Progress::default());
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
        let mut log = Progress::default();
        let (position, mark) = (first.span.to.clone(), first.mark.clone());
        log.set(partition.clone(), Standing { position, generation: 1, mark });
        d.reset(&partition, &log);
        d.adopt(&first.tables.iter().map(|t| t.contract.clone()).collect::<Vec<_>>()).unwrap();
        let second = d.decode(&raw(cut as u64, Some(STREAM), &all[cut..])).unwrap();
        let rows: Vec<_> = rows(&first).into_iter().chain(rows(&second)).collect();
        assert_eq!(rows, ["c n=1", "c n=2", "c n=3", "c n=4"], "{cut}");
        assert_eq!(first.account.redelivered + second.account.redelivered, 2);
    }
    let mut d = decoder(vec![route()]);
    let batch = decode(
        &mut d,
        &[e(1), keyless(&envelope("d", r#"{"n":1}"#, "null")), keyless(&envelope("u", "null", r#"{"n":1}"#))],
    );
    assert_eq!((batch.account.rows, batch.account.rejected), (1, 2));
    assert!(batch.rejects[0].reason.contains("`key:`"));
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
fn a_contract_reads_what_has_no_schema() {
    let columns = [
        ("id", "bigint"),
        ("price", "decimal(10,2)"),
        ("big", "decimal(50,3)"),
        ("free", "numeric"),
        ("day", "date"),
        ("at", "timestamp"),
        ("zoned", "timestamptz"),
        ("clock", "time"),
        ("took", "duration"),
        ("bytes", "binary"),
        ("doc", "json"),
        ("ok", "boolean"),
        ("ratio", "double"),
        ("code", "varchar(3)"),
    ];
    let encodings = [
        ("price", Encoding::Base64),
        ("day", Encoding::Days),
        ("at", Encoding::Milliseconds),
        ("clock", Encoding::Microseconds),
        ("took", Encoding::Microseconds),
        ("bytes", Encoding::Hex),
    ];
    let mut d = written(ContractFile { widen: false, ..contract(&columns, &encodings) });
    let row = r#"{"id":1,"price":"MDk=","big":"-1.5","free":{"scale":1,"value":"Dw=="},"day":17109,"at":1595008822123,"zoned":"2020-07-17T18:00:22Z","clock":1,"took":-90000000000,"bytes":"00ff","doc":"{\"a\":1}","ok":1,"ratio":2,"code":"abc"}"#;
    assert_eq!(
        one(&mut d, row).unwrap(),
        "c id=1 price=123.45 big=-1.500 free=1.5 day=2016-11-04 at=2020-07-17T18:00:22.123 zoned=2020-07-17T18:00:22Z \
         clock=00:00:00.000001 took=-90000000000 bytes=00ff doc={\"a\":1} ok=true ratio=2.0 code=abc"
    );
    assert!(one(&mut d, r#"{"id":1,"code":"äö"}"#).unwrap_err().starts_with("contract: column `code` (varchar(3))"));
    assert_eq!(one(&mut d, r#"{"id":1,"day":"2020-02-29"}"#).unwrap().split(' ').nth(5), Some("day=2020-02-29"));
}

/// GIVEN texts that are longer than their written columns, in bytes, THEN the columns become longer by powers of two, rows
/// before and after them are there, and what no column of the warehouse takes is refused.
#[test]
fn a_text_that_is_too_long_makes_its_column_longer() {
    let columns = [("id", "bigint"), ("code", "varchar(3)"), ("name", "varchar(100)"), ("note", "varchar(3)")];
    let row = |after: &str| rec(r#"{"id":1}"#, &envelope("c", "null", after));
    let records = [
        row(r#"{"id":1,"code":"abc","name":"x","note":"x"}"#),
        row(r#"{"id":2,"code":"äö","name":"x","note":"longer"}"#),
        row(&format!(r#"{{"id":3,"code":"{}","name":"x","note":"x"}}"#, "c".repeat(65_535))),
        row(&format!(r#"{{"id":4,"code":"{}","name":"x","note":"x"}}"#, "c".repeat(65_536))),
    ];
    let mut d = written(contract(&columns, &[]));
    let batch = decode(&mut d, &records);
    assert_eq!(batch.rejects.len(), 1);
    assert!(batch.rejects[0].reason.contains("longer than the column"), "{}", batch.rejects[0].reason);
    assert_eq!(batch.account.rows, 3);
    let types = |changes: &TableChanges| -> Vec<String> {
        changes.contract.input.columns[1..].iter().map(|column| column.data_type.to_string()).collect()
    };
    let rows_of = |changes: &TableChanges| changes.ops.iter().filter(|op| **op != Op::Refused).count();
    let grown: Vec<(usize, Vec<String>)> =
        batch.tables.iter().map(|changes| (rows_of(changes), types(changes))).collect();
    let of = |code: &str, note: &str| {
        vec![format!("varchar({code})"), "varchar(100)".to_owned(), format!("varchar({note})")]
    };
    // A row that was given up half-way leaves nothing.
    let held: Vec<_> = grown.into_iter().filter(|(rows, _)| *rows > 0).collect();
    assert_eq!(held, [(1, of("3", "3")), (1, of("4", "8")), (1, of("65535", "8"))]);
    // Refused where the contract says so; left out where the topology does.
    let file = ContractFile { widen: false, ..contract(&columns, &[]) };
    let batch = decode(&mut written(file.clone()), &records);
    assert_eq!((batch.account.rows, batch.account.rejected), (1, 3));
    assert!(batch.rejects.iter().all(|reject| reject.rule == "contract"));
    let ignoring = TableRoute { contract: Some(file), on_mismatch: OnMismatch::Ignore, ..route() };
    let batch = decode(&mut decoder(vec![ignoring]), &records);
    assert_eq!((batch.account.rows, batch.account.rejected), (4, 0));
    // What fits is not touched by a contract that could grow.
    let ignoring = TableRoute { contract: Some(contract(&columns, &[])), on_mismatch: OnMismatch::Ignore, ..route() };
    let batch = decode(&mut decoder(vec![ignoring]), &records[..2]);
    assert_eq!(rows(&batch), ["c id=1 code=abc name=x note=x", "c id=2 code=äö name=x note=longer"]);
}

#[test]
fn what_is_ambiguous_without_schema_names_the_field_to_add() {
    let columns =
        [("id", "bigint"), ("price", "decimal(10,2)"), ("at", "timestamp"), ("bytes", "binary"), ("took", "duration")];
    let mut d = written(contract(&columns, &[]));
    for (row, expected) in [
        (r#"{"id":1,"at":1595008822123}"#, "`encodings:`"),
        (r#"{"id":1,"took":5}"#, "`encodings:`"),
        (r#"{"id":1,"price":"1234"}"#, "`encodings:`"),
        (r#"{"id":1,"bytes":"00ff"}"#, "`encodings:`"),
        (r#"{"id":1,"fraction":1.5}"#, "contract"),
    ] {
        let error = one(&mut d, row).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    assert!(
        one(&mut d, r#"{"id":1,"price":12.5,"at":"2020-01-01T00:00:00","bytes":"AQID"}"#)
            .unwrap()
            .contains("price=12.50")
    );
    let bad = contract(&columns, &[("price", Encoding::Days)]);
    let error = DebeziumJson::new("s", &Debezium::default(), vec![TableRoute { contract: Some(bad), ..route() }]);
    assert_eq!(error.err().map(|e| e.exit_code()), Some(2));
}

#[test]
fn mysql_times_beyond_a_day_fit_a_declared_duration() {
    let field = logical("int64", "io.debezium.time.MicroTime");
    let mut d = written(contract(&[("id", "int"), ("v", "duration")], &[]));
    let value = with_schema(&field, "c", r#"{"id":1,"v":-3020399000000}"#);
    assert_eq!(rows(&decode(&mut d, &[rec(r#"{"id":1}"#, &value)])), ["c id=1 v=-3020399000000"]);
}

#[test]
fn with_schema_and_without_make_the_same_columns() {
    let cases = [
        (decimal(4, Some(8)), "decimal(8,4)", Some(Encoding::Base64), r#""EtaH""#),
        (
            logical("int64", "io.debezium.time.MicroTimestamp"),
            "timestamp",
            Some(Encoding::Microseconds),
            "1595008822123456",
        ),
        (logical("int64", "io.debezium.time.Timestamp"), "timestamp", Some(Encoding::Milliseconds), "1595008822123"),
        (logical("int32", "io.debezium.time.Date"), "date", Some(Encoding::Days), "17109"),
        (logical("int64", "io.debezium.time.MicroTime"), "time", Some(Encoding::Microseconds), "64822000000"),
        (logical("string", "io.debezium.time.ZonedTimestamp"), "timestamptz", None, r#""2016-11-04T11:51:30.5Z""#),
        (logical("string", "io.debezium.data.Uuid"), "uuid", None, r#""b68a35a7-17ad-35b3-af2a-ae46edb4545a""#),
        (logical("string", "io.debezium.data.Json"), "json", None, r#""[1]""#),
        (r#""type":"bytes""#.to_owned(), "binary", Some(Encoding::Base64), r#""AQID""#),
        (r#""type":"double""#.to_owned(), "double", None, "1.25"),
        (r#""type":"boolean""#.to_owned(), "boolean", None, "false"),
    ];
    for (field, data_type, encoding, value) in cases {
        let after = format!(r#"{{"id":1,"v":{value}}}"#);
        let encodings: Vec<_> = encoding.map(|e| ("v", e)).into_iter().collect();
        let mut plain = written(contract(&[("id", "int"), ("v", data_type)], &encodings));
        let plain = decode(&mut plain, &[rec(r#"{"id":1}"#, &envelope("c", "null", &after))]);
        let mut learned = decoder(vec![route()]);
        let learned = decode(&mut learned, &[rec(r#"{"id":1}"#, &with_schema(&field, "c", &after))]);
        assert_eq!(plain.tables[0].rows, learned.tables[0].rows, "{data_type}: {:?}", plain.rejects);
    }
}

#[test]
fn contracts_grow_and_widen_midway() {
    let mut d = decoder(vec![route()]);
    let key = r#"{"id":1}"#;
    let batch = decode(
        &mut d,
        &[
            rec(key, &with_schema(r#""type":"int32""#, "c", r#"{"id":1,"v":1}"#)),
            rec(key, &with_schema(r#""type":"int64""#, "c", r#"{"id":1,"v":5000000000}"#)),
            rec(key, &with_schema(r#""type":"int32""#, "u", r#"{"id":1,"v":2}"#)),
            rec(key, &envelope("u", "null", r#"{"id":1,"v":3,"new":true}"#)),
            rec(key, &envelope("u", "null", r#"{"id":1,"new":false}"#)),
            rec(key, &envelope("c", "null", r#"{"id":1}"#)),
        ],
    );
    assert_eq!(batch.rejects.len(), 0);
    assert_eq!(
        rows(&batch),
        [
            "c id=1 v=1",
            "c id=1 v=5000000000",
            "u id=1 v=2",
            "u id=1 v=3 new=true",
            "u id=1 v=null new=false",
            "c id=1 v=null new=null",
        ]
    );
    assert_eq!(batch.tables.iter().map(|t| t.len()).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(batch.tables.iter().all(|t| t.contract.version == 0 && t.contract.output == t.contract.input));
}

#[test]
fn incompatible_types_are_refused_or_left_out() {
    let key = r#"{"id":1}"#;
    let records = [
        rec(key, &with_schema(r#""type":"int32""#, "c", r#"{"id":1,"v":1}"#)),
        rec(key, &with_schema(r#""type":"string""#, "u", r#"{"id":1,"v":"secret"}"#)),
        rec(key, &envelope("u", "null", r#"{"id":1,"v":"secret"}"#)),
        rec(key, &with_schema(r#""type":"string""#, "c", r#"{"id":1,"v":null}"#)),
    ];
    let batch = decode(&mut decoder(vec![route()]), &records);
    assert_eq!(rows(&batch), ["c id=1 v=1", "x id=1 v=null", "x id=1 v=null", "c id=1 v=null"]);
    for reject in &batch.rejects {
        assert_eq!((reject.rule.as_str(), reject.table.as_deref()), ("contract", Some("orders")));
        assert!(reject.reason.contains("`v`") && !reject.reason.contains("secret"), "{}", reject.reason);
    }
    let mut ignoring = decoder(vec![TableRoute { on_mismatch: OnMismatch::Ignore, ..route() }]);
    let batch = decode(&mut ignoring, &records);
    assert_eq!(rows(&batch), ["c id=1 v=1", "u id=1 v=~", "u id=1 v=~", "c id=1 v=null"]);
}

#[test]
fn a_declared_column_that_must_have_a_value() {
    let mut file = contract(&[("id", "int"), ("v", "text"), ("w", "text")], &[]);
    file.columns[1].nullable = false;
    file.learn = false;
    let mut d = written(file);
    assert!(one(&mut d, r#"{"id":1,"w":"x"}"#).unwrap_err().contains("`v`"));
    assert!(one(&mut d, r#"{"id":1,"v":null}"#).unwrap_err().contains("`v`"));
    assert_eq!(one(&mut d, r#"{"id":1,"v":"x","more":1.5}"#).unwrap(), "c id=1 v=x w=null");
    assert!(one(&mut d, r#"{"id":null,"v":"x"}"#).unwrap_err().contains("`id`"));
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
fn contracts_of_the_log_are_taken_over_and_only_grow() {
    let mut d = decoder(vec![route()]);
    let schema = |columns: &[(&str, Type)]| dataflow::contract::TableSchema {
        columns: columns.iter().map(|(n, t)| Column { nullable: *n != "id", ..Column::new(*n, *t) }).collect(),
        key: vec!["id".into()],
    };
    let log = |version, input: dataflow::contract::TableSchema| {
        Arc::new(Contract { table: "orders".into(), version, output: input.clone(), input })
    };
    d.adopt(&[log(3, schema(&[("id", Type::BigInt), ("a", Type::TEXT)]))]).unwrap();
    let batch = decode(&mut d, &[rec(r#"{"id":1}"#, &envelope("c", "null", r#"{"id":1,"b":true}"#))]);
    assert_eq!((rows(&batch), batch.tables[0].contract.version), (vec!["c id=1 a=null b=true".to_owned()], 0));
    // Another process has learned `c`: both are kept, in the log's order first.
    d.adopt(&[log(4, schema(&[("id", Type::BigInt), ("a", Type::TEXT), ("c", Type::TEXT)]))]).unwrap();
    let batch = decode(&mut d, &[rec(r#"{"id":1}"#, &envelope("c", "null", r#"{"id":1}"#))]);
    assert_eq!(rows(&batch), ["c id=1 a=null c=null b=null"]);
    let newest = batch.tables[0].contract.input.clone();
    d.adopt(&[log(5, newest)]).unwrap();
    let batch = decode(&mut d, &[rec(r#"{"id":1}"#, &envelope("c", "null", r#"{"id":1}"#))]);
    assert_eq!(batch.tables[0].contract.version, 5);
    let other_key = dataflow::contract::TableSchema { key: vec!["a".into()], ..schema(&[("a", Type::TEXT)]) };
    assert!(d.adopt(&[log(6, other_key)]).is_err());
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
fn flattened_rows_with_a_custom_prefix_and_without_operations() {
    let settings = Debezium {
        flattened_prefix: "cdc.".into(),
        flattened_deleted_field: "is_gone".into(),
        unavailable_value_placeholder: "hex:6e6f".into(),
    };
    let mut d = DebeziumJson::new("shop", &settings, vec![route()]).unwrap();
    let key = r#"{"id":1}"#;
    let batch = decode(
        &mut d,
        &[
            rec(key, r#"{"id":1,"__mine":"x","v":"a","cdc.op":"c","cdc.source_ts_ms":5,"is_gone":"false"}"#),
            rec(key, r#"{"id":1,"__mine":"y","v":"no","cdc.op":"u","is_gone":"false"}"#),
            rec(key, r#"{"id":1,"__mine":"y","v":"b"}"#),
            rec(key, r#"{"id":1,"__mine":null,"v":null,"cdc.op":"d","is_gone":"true"}"#),
        ],
    );
    assert_eq!(
        rows(&batch),
        ["c id=1 __mine=x v=a", "u id=1 __mine=y v=~", "u id=1 __mine=y v=b", "d id=1 __mine=null v=null"]
    );
    assert_eq!(batch.tables[0].source_times_us, [5_000, NO_TIME, NO_TIME, NO_TIME]);
    // Without a key and without operations every row is a new one.
    let mut d = decoder(vec![route()]);
    assert_eq!(rows(&decode(&mut d, &[keyless(r#"{"n":1}"#), keyless(r#"{"n":1}"#)])), ["c n=1", "c n=1"]);
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
fn a_source_that_goes_back_hands_out_the_kept_half_again() {
    let mut d = decoder(vec![route()]);
    learned(&mut d);
    let records = moved(1, 2, PARTIAL);
    d.decode(&raw(10, Some(STREAM), &records[..1])).unwrap();
    let batch = d.decode(&raw(10, Some(STREAM), &records)).unwrap();
    assert_eq!((rows(&batch), batch.account.read), (vec!["m id=2 t=~ old=1".to_owned()], 3));
    assert_eq!(batch.span.from, Position::offset(10));
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
