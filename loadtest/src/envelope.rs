//! Debezium's envelope, key and schema block, as the PostgreSQL connector 3.x and Kafka Connect's JSON converter write them.

use crate::json;
use crate::table::{Cell, Column, Kind, Subject};

/// The connector's `topic.prefix`.
pub const PREFIX: &str = "shop";

/// The `source` block's moving parts, and the connector's own clock.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    /// Commit time, microseconds since 1970.
    pub committed_us: i64,
    /// When the connector saw it, microseconds since 1970.
    pub seen_us: i64,
    /// Where the change stands in the WAL.
    pub lsn: u64,
    /// Where the last committed transaction stands.
    pub last_commit_lsn: u64,
    /// The transaction.
    pub transaction: u64,
    /// Whether a snapshot reads it.
    pub snapshot: bool,
}

/// What the parts of one table's messages look like.
#[derive(Debug, Clone)]
pub struct Shape {
    subject: Subject,
    table: String,
    grown: bool,
    value_head: Vec<u8>,
    key_head: Vec<u8>,
    tail: &'static [u8],
}

impl Shape {
    /// The shape of `table`; `grown`: with the added column; `schema_block`: with the schema in every message.
    pub fn new(subject: Subject, table: &str, grown: bool, schema_block: bool) -> Self {
        let columns = &subject.columns()[..subject.width(grown)];
        let (value_head, key_head, tail): (_, _, &[u8]) = if schema_block {
            (value_schema(table, columns), key_schema(table, &columns[..subject.key_columns()]), b"}")
        } else {
            (Vec::new(), Vec::new(), b"")
        };
        Self { subject, table: table.to_owned(), grown, value_head, key_head, tail }
    }

    /// The key's columns and values alone, as they stand in the key and in the headers of a key update.
    fn write_key_struct(&self, cells: &[Cell], out: &mut Vec<u8>) {
        write_row(&self.subject.columns()[..self.subject.key_columns()], cells, out);
    }

    /// The message key, or `None` for a table without one.
    pub fn key(&self, cells: &[Cell]) -> Option<Vec<u8>> {
        (self.subject.key_columns() > 0).then(|| {
            let mut out = Vec::with_capacity(self.key_head.len() + 48);
            out.extend_from_slice(&self.key_head);
            self.write_key_struct(cells, &mut out);
            out.extend_from_slice(self.tail);
            out
        })
    }

    /// The message value. `before` holds the key of what goes, `after` the row that is there now.
    pub fn value(&self, op: u8, before: Option<&[Cell]>, after: Option<&[Cell]>, origin: &Origin) -> Vec<u8> {
        let columns = &self.subject.columns()[..self.subject.width(self.grown)];
        let mut out = Vec::with_capacity(self.value_head.len() + 1400);
        out.extend_from_slice(&self.value_head);
        out.extend_from_slice(b"{\"before\":");
        match before {
            Some(cells) => write_row(columns, cells, &mut out),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"after\":");
        match after {
            Some(cells) => write_row(columns, cells, &mut out),
            None => out.extend_from_slice(b"null"),
        }
        self.write_source(origin, &mut out);
        out.extend_from_slice(b",\"transaction\":null,\"op\":\"");
        out.push(op);
        out.push(b'"');
        json::int_field(&mut out, "ts_ms", origin.seen_us / 1000);
        json::int_field(&mut out, "ts_us", origin.seen_us);
        json::int_field(&mut out, "ts_ns", origin.seen_us * 1000);
        out.push(b'}');
        out.extend_from_slice(self.tail);
        out
    }

    fn write_source(&self, origin: &Origin, out: &mut Vec<u8>) {
        out.extend_from_slice(b",\"source\":{\"version\":\"3.2.0.Final\",\"connector\":\"postgresql\",\"name\":\"");
        out.extend_from_slice(PREFIX.as_bytes());
        out.push(b'"');
        json::int_field(out, "ts_ms", origin.committed_us / 1000);
        out.extend_from_slice(if origin.snapshot { b",\"snapshot\":\"true\"" } else { b",\"snapshot\":\"false\"" });
        out.extend_from_slice(b",\"db\":\"shop\",\"sequence\":\"[");
        if origin.snapshot {
            out.extend_from_slice(b"null");
        } else {
            quoted_number(out, origin.last_commit_lsn);
        }
        out.push(b',');
        quoted_number(out, origin.lsn);
        out.extend_from_slice(b"]\"");
        json::int_field(out, "ts_us", origin.committed_us);
        json::int_field(out, "ts_ns", origin.committed_us * 1000);
        out.extend_from_slice(b",\"schema\":\"public\",\"table\":\"");
        out.extend_from_slice(self.table.as_bytes());
        out.push(b'"');
        json::int_field(out, "txId", origin.transaction as i64);
        json::int_field(out, "lsn", origin.lsn as i64);
        out.extend_from_slice(b",\"xmin\":null}");
    }

    /// The row that Debezium sends as `before` under the default replica identity: the key is real, the rest invented.
    pub fn key_only(&self, cells: &[Cell]) -> Vec<Cell> {
        let columns = &self.subject.columns()[..self.subject.width(self.grown)];
        let key = self.subject.key_columns();
        columns
            .iter()
            .enumerate()
            .map(|(i, column)| if i < key { cells[i].clone() } else { Cell::invented(column) })
            .collect()
    }

    /// The key struct as a header holds it (`__debezium.newkey`, `__debezium.oldkey`).
    pub fn key_header(&self, cells: &[Cell]) -> Vec<u8> {
        self.key(cells).unwrap_or_default()
    }
}

fn quoted_number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(b"\\\"");
    json::int(out, value as i64);
    out.extend_from_slice(b"\\\"");
}

fn write_row(columns: &[Column], cells: &[Cell], out: &mut Vec<u8>) {
    for (i, (column, cell)) in columns.iter().zip(cells).enumerate() {
        out.push(if i == 0 { b'{' } else { b',' });
        json::field(out, column.name);
        cell.write_json(column.kind, out);
    }
    out.push(b'}');
}

/// A field of a Connect schema: its physical type, and the logical type's name and parameters.
fn field_schema(column: &Column) -> String {
    let (physical, logical) = match column.kind {
        Kind::Boolean => ("boolean", String::new()),
        Kind::SmallInt => ("int16", String::new()),
        Kind::Int => ("int32", String::new()),
        Kind::BigInt => ("int64", String::new()),
        Kind::Double => ("double", String::new()),
        Kind::Text => ("string", String::new()),
        Kind::Date => ("int32", named("io.debezium.time.Date")),
        Kind::Timestamp => ("int64", named("io.debezium.time.MicroTimestamp")),
        Kind::TimestampTz => ("string", named("io.debezium.time.ZonedTimestamp")),
        Kind::Json => ("string", named("io.debezium.data.Json")),
        Kind::Uuid => ("string", named("io.debezium.data.Uuid")),
        Kind::Decimal { precision, scale } => {
            let parameters =
                format!(",\"parameters\":{{\"scale\":\"{scale}\",\"connect.decimal.precision\":\"{precision}\"}}");
            ("bytes", named("org.apache.kafka.connect.data.Decimal") + &parameters)
        }
    };
    plain(physical, column.nullable, &logical, column.name)
}

fn named(name: &str) -> String {
    format!(",\"name\":\"{name}\",\"version\":1")
}

fn plain(physical: &str, nullable: bool, logical: &str, name: &str) -> String {
    format!("{{\"type\":\"{physical}\",\"optional\":{nullable}{logical},\"field\":\"{name}\"}}")
}

fn structure(fields: &[String], nullable: bool, name: &str, field: &str) -> String {
    let field = if field.is_empty() { String::new() } else { format!(",\"field\":\"{field}\"") };
    format!("{{\"type\":\"struct\",\"fields\":[{}],\"optional\":{nullable},{name}{field}}}", fields.join(","))
}

fn key_schema(table: &str, key: &[Column]) -> Vec<u8> {
    let fields: Vec<String> = key.iter().map(field_schema).collect();
    let name = format!("\"name\":\"{PREFIX}.public.{table}.Key\"");
    format!("{{\"schema\":{},\"payload\":", structure(&fields, false, &name, "")).into_bytes()
}

fn value_schema(table: &str, columns: &[Column]) -> Vec<u8> {
    let row: Vec<String> = columns.iter().map(field_schema).collect();
    let row_name = format!("\"name\":\"{PREFIX}.public.{table}.Value\"");
    let mut fields = vec![
        structure(&row, true, &row_name, "before"),
        structure(&row, true, &row_name, "after"),
        source_schema(),
        structure(
            &[
                plain("string", false, "", "id"),
                plain("int64", false, "", "total_order"),
                plain("int64", false, "", "data_collection_order"),
            ],
            true,
            "\"name\":\"event.block\",\"version\":1",
            "transaction",
        ),
        plain("string", false, "", "op"),
    ];
    fields.extend(["ts_ms", "ts_us", "ts_ns"].map(|name| plain("int64", true, "", name)));
    let name = format!("\"name\":\"{PREFIX}.public.{table}.Envelope\",\"version\":2");
    format!("{{\"schema\":{},\"payload\":", structure(&fields, false, &name, "")).into_bytes()
}

fn source_schema() -> String {
    let snapshot = ",\"name\":\"io.debezium.data.Enum\",\"version\":1,\"parameters\":{\"allowed\":\"true,first,first_in_data_collection,last_in_data_collection,last,false,incremental\"},\"default\":\"false\"";
    let fields = [
        plain("string", false, "", "version"),
        plain("string", false, "", "connector"),
        plain("string", false, "", "name"),
        plain("int64", false, "", "ts_ms"),
        plain("string", true, snapshot, "snapshot"),
        plain("string", false, "", "db"),
        plain("string", true, "", "sequence"),
        plain("int64", true, "", "ts_us"),
        plain("int64", true, "", "ts_ns"),
        plain("string", false, "", "schema"),
        plain("string", false, "", "table"),
        plain("int64", true, "", "txId"),
        plain("int64", true, "", "lsn"),
        plain("int64", true, "", "xmin"),
    ];
    structure(&fields, false, "\"name\":\"io.debezium.connector.postgresql.Source\",\"version\":1", "source")
}
