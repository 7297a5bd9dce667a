//! The schema block of Kafka Connect's JSON converter: from its fields to columns.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::value::{Spelling, Unit};
use super::wire::Wire;
use crate::contract::Type;

/// A column as a schema block describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::decode) struct WireColumn {
    pub name: String,
    /// How its values are spelled.
    pub wire: Wire,
    /// The type that holds them all.
    pub natural: Type,
    /// Whether `natural` is as narrow as the source's type (a decimal may come without its precision).
    pub narrow: bool,
}

/// What a schema block describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Described {
    /// An envelope; the columns of its row.
    Envelope(Vec<WireColumn>),
    /// A row or a key.
    Row(Vec<WireColumn>),
    /// A heartbeat, a transaction's border, a schema change.
    Control,
    /// No schema at all (`"schema":null`).
    Nothing,
}

#[derive(Debug, Deserialize)]
struct Node {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    field: Option<String>,
    #[serde(default)]
    fields: Vec<Node>,
    #[serde(default)]
    parameters: Option<BTreeMap<String, String>>,
}

/// Reads a schema block. `None` when it is not one.
pub(super) fn describe(text: &str) -> Option<Described> {
    let Some(node) = serde_json::from_str::<Option<Node>>(text).ok()? else { return Some(Described::Nothing) };
    if node.kind != "struct" {
        return None;
    }
    let name = node.name.as_deref().unwrap_or_default();
    let control =
        ["Heartbeat", "TransactionMetadataValue", "TransactionMetadataKey", "SchemaChangeValue", "SchemaChangeKey"];
    let last = name.rsplit('.').next().unwrap_or_default();
    if name.starts_with("io.debezium.connector.") && control.contains(&last) {
        return Some(Described::Control);
    }
    let field = |wanted: &str| node.fields.iter().find(|f| f.field.as_deref() == Some(wanted));
    let row = |wanted| field(wanted).filter(|row| row.kind == "struct");
    let (after, before) = (row("after"), row("before"));
    if let Some(row) = after.or(before)
        && (field("op").is_some() || (after.is_some() && before.is_some()))
    {
        return Some(Described::Envelope(columns(&row.fields)));
    }
    Some(Described::Row(columns(&node.fields)))
}

fn columns(nodes: &[Node]) -> Vec<WireColumn> {
    let column = |node: &Node| {
        let (wire, natural, narrow) = reading(node);
        Some(WireColumn { name: node.field.clone()?, wire, natural, narrow })
    };
    nodes.iter().filter_map(column).collect()
}

fn reading(node: &Node) -> (Wire, Type, bool) {
    let name = node.name.as_deref().unwrap_or_default();
    if let Some((wire, natural)) = logical(node.kind.as_str(), name) {
        return (wire, natural, true);
    }
    if name == "org.apache.kafka.connect.data.Decimal" && node.kind == "bytes" {
        return decimal(node.parameters.as_ref());
    }
    let (wire, natural) = match node.kind.as_str() {
        "boolean" => (Wire::Boolean, Type::Boolean),
        "int8" | "int16" => (Wire::Integer, Type::SmallInt),
        "int32" => (Wire::Integer, Type::Int),
        "int64" => (Wire::Integer, Type::BigInt),
        "float" | "float32" => (Wire::Float32, Type::Real),
        "double" | "float64" => (Wire::Float64, Type::Double),
        "string" => (Wire::Text, Type::TEXT),
        "bytes" => (Wire::Bytes(Spelling::Base64), Type::Binary),
        _ => (Wire::Nested, Type::Json),
    };
    (wire, natural, true)
}

/// The logical types whose values mean something else than their base type says.
fn logical(kind: &str, name: &str) -> Option<(Wire, Type)> {
    Some(match (name, kind) {
        ("io.debezium.time.Date" | "org.apache.kafka.connect.data.Date", "int32") => (Wire::Days, Type::Date),
        ("io.debezium.time.Time" | "org.apache.kafka.connect.data.Time", "int32" | "int64") => {
            (Wire::Time(Unit::Milli), Type::Time)
        }
        ("io.debezium.time.MicroTime", "int64") => (Wire::Time(Unit::Micro), Type::Time),
        ("io.debezium.time.NanoTime", "int64") => (Wire::Time(Unit::Nano), Type::Time),
        ("io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp", "int64") => {
            (Wire::Timestamp(Unit::Milli), Type::Timestamp)
        }
        ("io.debezium.time.MicroTimestamp", "int64") => (Wire::Timestamp(Unit::Micro), Type::Timestamp),
        ("io.debezium.time.NanoTimestamp", "int64") => (Wire::Timestamp(Unit::Nano), Type::Timestamp),
        ("io.debezium.time.ZonedTimestamp", "string") => (Wire::ZonedTimestamp, Type::TimestampTz),
        ("io.debezium.time.IsoDate", "string") => (Wire::IsoDate, Type::Date),
        ("io.debezium.time.IsoTime", "string") => (Wire::IsoTime, Type::Time),
        ("io.debezium.time.IsoTimestamp", "string") => (Wire::IsoTimestamp, Type::Timestamp),
        ("io.debezium.time.MicroDuration", "int64") => (Wire::Duration(Unit::Micro), Type::Duration),
        ("io.debezium.time.NanoDuration", "int64") => (Wire::Duration(Unit::Nano), Type::Duration),
        ("io.debezium.data.Json", "string") => (Wire::JsonText, Type::Json),
        ("io.debezium.data.Uuid", "string") => (Wire::Uuid, Type::Uuid),
        ("io.debezium.data.VariableScaleDecimal", "struct") => (Wire::VariableDecimal, Type::Numeric),
        _ => return None,
    })
}

fn decimal(parameters: Option<&BTreeMap<String, String>>) -> (Wire, Type, bool) {
    let number = |name: &str| parameters.and_then(|p| p.get(name)).and_then(|v| v.parse::<i32>().ok());
    // A decimal whose scale is not said cannot be read; as bytes it is at least exact.
    let Some(scale) = number("scale") else { return (Wire::Bytes(Spelling::Base64), Type::Binary, true) };
    let wire = Wire::Decimal { scale };
    let known = number("connect.decimal.precision").filter(|p| *p > 0);
    let (precision, scale) = match (known, scale) {
        (Some(precision), i32::MIN..0) => (precision - scale, 0),
        (Some(precision), _) => (precision.max(scale), scale),
        (None, _) => (38, scale.max(0)),
    };
    if precision > 76 || scale > 38.min(precision) && known.is_none() {
        return (wire, Type::Numeric, known.is_some());
    }
    (wire, Type::Decimal { precision: precision as u8, scale: scale as i8 }, known.is_some())
}
