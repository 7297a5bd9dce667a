//! Logical types of Debezium, exactly or with the reason why not.

use super::*;

/// The field, its value, and what becomes of both.
type Case = (String, &'static str, &'static str, &'static str);

fn data(name: &str) -> String {
    format!("io.debezium.data.{name}")
}

fn numbers() -> Vec<Case> {
    vec![
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
    ]
}

fn times() -> Vec<Case> {
    let time = |name: &str| format!("io.debezium.time.{name}");
    vec![
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
    ]
}

fn structures() -> Vec<Case> {
    vec![
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
    ]
}

#[test]
fn every_logical_type_is_read_exactly() {
    for (field, value, data_type, expected) in [numbers(), times(), structures()].concat() {
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
fn mysql_times_beyond_a_day_fit_a_declared_duration() {
    let field = logical("int64", "io.debezium.time.MicroTime");
    let mut d = written(contract(&[("id", "int"), ("v", "duration")], &[]));
    let value = with_schema(&field, "c", r#"{"id":1,"v":-3020399000000}"#);
    assert_eq!(rows(&decode(&mut d, &[rec(r#"{"id":1}"#, &value)])), ["c id=1 v=-3020399000000"]);
}
