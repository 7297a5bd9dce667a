//! How Debezium's connector for PostgreSQL writes a column: the field of its schema, and its values.
//! <https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-data-types>

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
use serde_json::{Value, json};

/// What stands for a value that is stored out of line and not changed.
pub const UNAVAILABLE: &str = "__debezium_unavailable_value";

/// Hours of a month, as Debezium counts them: 365.25 / 12 days.
const MONTH_US: i64 = 2_629_800_000_000;

/// A type of PostgreSQL, domains resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PgType {
    pub name: String,
    /// As SQL writes it.
    pub sql: String,
    pub is_enum: bool,
    pub is_composite: bool,
    /// Digits, and how many of them behind the point, of a `numeric` that says so.
    pub scale: Option<(i32, i32)>,
    /// What an array is of.
    pub element: Option<Box<PgType>>,
}

impl PgType {
    /// Digits and scale of a `numeric`'s modifier.
    pub fn scale_of(modifier: i32) -> Option<(i32, i32)> {
        (modifier >= 4).then(|| ((modifier - 4) >> 16, (modifier - 4) & 0x7ff))
    }

    /// Whether Debezium says nothing of such columns, unless it is told to.
    pub fn is_left_out(&self) -> bool {
        self.is_composite
    }

    /// Base type, logical type, and what else the schema says.
    fn schema(&self) -> Value {
        let named = |kind: &str, name: &str| json!({"type": kind, "name": name, "version": 1});
        if let Some(element) = &self.element {
            let mut items = element.schema();
            items["optional"] = true.into();
            return json!({"type": "array", "items": items});
        }
        if self.is_enum {
            return named("string", "io.debezium.data.Enum");
        }
        match self.name.as_str() {
            "bool" => json!({"type": "boolean"}),
            "int2" => json!({"type": "int16"}),
            "int4" => json!({"type": "int32"}),
            "int8" | "oid" => json!({"type": "int64"}),
            "float4" => json!({"type": "float"}),
            "float8" => json!({"type": "double"}),
            "numeric" => match self.scale {
                Some((precision, scale)) => json!({"type": "bytes", "name": "org.apache.kafka.connect.data.Decimal",
                    "version": 1, "parameters": {"scale": scale.to_string(), "connect.decimal.precision": precision.to_string()}}),
                None => {
                    json!({"type": "struct", "name": "io.debezium.data.VariableScaleDecimal", "version": 1, "fields": [
                    {"type": "int32", "optional": false, "field": "scale"}, {"type": "bytes", "optional": false, "field": "value"}]})
                }
            },
            "money" => json!({"type": "bytes", "name": "org.apache.kafka.connect.data.Decimal", "version": 1,
                "parameters": {"scale": "2"}}),
            "bytea" => json!({"type": "bytes"}),
            "bit" => named("bytes", "io.debezium.data.Bits"),
            "date" => named("int32", "io.debezium.time.Date"),
            "time" => named("int64", "io.debezium.time.MicroTime"),
            "timestamp" => named("int64", "io.debezium.time.MicroTimestamp"),
            "timestamptz" => named("string", "io.debezium.time.ZonedTimestamp"),
            "interval" => named("int64", "io.debezium.time.MicroDuration"),
            "json" | "jsonb" | "hstore" => named("string", "io.debezium.data.Json"),
            "uuid" => named("string", "io.debezium.data.Uuid"),
            "xml" => named("string", "io.debezium.data.Xml"),
            _ => json!({"type": "string"}),
        }
    }

    /// The field of a row's schema.
    pub fn field(&self, name: &str, is_key: bool) -> Value {
        let mut field = self.schema();
        field["field"] = name.into();
        field["optional"] = (!is_key).into();
        field
    }

    /// A value, of the text that PostgreSQL writes. Not of arrays, nor of `hstore`.
    pub fn value(&self, text: &str) -> Value {
        match self.name.as_str() {
            _ if self.is_enum => text.into(),
            "bool" => (text == "t").into(),
            "int2" | "int4" | "int8" | "oid" => text.parse::<i64>().unwrap().into(),
            // JSON knows no others: they are written as text.
            "float4" | "float8" => match text.parse::<f64>().unwrap() {
                number if number.is_finite() => serde_json::from_str(text).unwrap(),
                _ => text.into(),
            },
            "numeric" => decimal(text, self.scale),
            "money" => decimal(&text.replace(['$', ','], ""), Some((19, 2))),
            "bytea" => STANDARD.encode(hex(text.strip_prefix("\\x").unwrap())).into(),
            "bit" => {
                let number = u64::from_str_radix(text, 2).unwrap().to_le_bytes();
                let bytes = number.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                STANDARD.encode(&number[..bytes]).into()
            }
            "date" => {
                let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").unwrap();
                date.signed_duration_since(NaiveDate::default()).num_days().into()
            }
            "time" => {
                let time = NaiveTime::parse_from_str(text, "%H:%M:%S%.f").unwrap();
                time.signed_duration_since(NaiveTime::MIN).num_microseconds().into()
            }
            "timestamp" => timestamp(text).and_utc().timestamp_micros().into(),
            "timestamptz" => {
                let time = timestamp(text.strip_suffix("+00").unwrap());
                time.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string().into()
            }
            "interval" => duration_us(text).into(),
            _ => text.into(),
        }
    }
}

fn timestamp(text: &str) -> NaiveDateTime {
    NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").unwrap()
}

/// Base64 of the unscaled number's bytes; beside its scale where the schema has none.
fn decimal(text: &str, scale: Option<(i32, i32)>) -> Value {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction = if scale.is_none() { fraction.trim_end_matches('0') } else { fraction };
    let number: i128 = format!("{whole}{fraction}").parse().unwrap();
    let bytes = number.to_be_bytes();
    // As few as keep the sign.
    let sign = if number < 0 { 0xff } else { 0 };
    let says_nothing = |at: &usize| bytes[*at] == sign && (bytes[*at + 1] >= 0x80) == (number < 0);
    let first = (0..bytes.len() - 1).take_while(says_nothing).count();
    let value = STANDARD.encode(&bytes[first..]);
    if scale.is_some() { value.into() } else { json!({"scale": fraction.len(), "value": value}) }
}

fn hex(digits: &str) -> Vec<u8> {
    (0..digits.len() / 2).map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap()).collect()
}

/// Of `P1Y2M3DT4H5M6.7S`.
fn duration_us(text: &str) -> i64 {
    let (date, time) = text[1..].split_once('T').unwrap_or((&text[1..], ""));
    let parts = |text: &str, units: &[(char, i64)]| {
        let mut sum = 0;
        let mut rest = text;
        while let Some(end) = rest.find(char::is_alphabetic) {
            let unit = units.iter().find(|(letter, _)| rest[end..].starts_with(*letter)).unwrap().1;
            sum += (rest[..end].parse::<f64>().unwrap() * unit as f64).round() as i64;
            rest = &rest[end + 1..];
        }
        sum
    };
    let day = 86_400_000_000;
    parts(date, &[('Y', 12 * MONTH_US), ('M', MONTH_US), ('W', 7 * day), ('D', day)])
        + parts(time, &[('H', 3_600_000_000), ('M', 60_000_000), ('S', 1_000_000)])
}

/// The examples of Debezium's own documentation.
#[test]
fn values_are_written_as_debezium_does() {
    let of = |name: &str, scale: Option<(i32, i32)>| PgType {
        name: name.into(),
        sql: name.into(),
        is_enum: false,
        is_composite: false,
        scale,
        element: None,
    };
    assert_eq!(of("numeric", Some((6, 4))).value("10.2345"), "AY/J");
    assert_eq!(of("numeric", Some((5, 2))).value("-1.28"), "gA==");
    assert_eq!(of("numeric", Some((5, 2))).value("1.28"), "AIA=");
    assert_eq!(of("numeric", None).value("10.50"), json!({"scale": 1, "value": "aQ=="}));
    assert_eq!(of("date", None).value("2016-11-04"), 17_109);
    assert_eq!(of("bit", None).value("1000000"), "QA==");
    assert_eq!(of("timestamptz", None).value("2016-11-04 11:51:30.123456+00"), "2016-11-04T11:51:30.123456Z");
    assert_eq!(of("interval", None).value("P1Y2M3DT4H5M6.7S"), 14 * MONTH_US + 259_200_000_000 + 14_706_700_000);
}
