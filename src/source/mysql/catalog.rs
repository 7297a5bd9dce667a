//! What the server's catalog says of a table: columns and primary key, and the shape that rows read by a query have.

use super::connection::{Connection, Trouble, Values, literal};
use super::setup::Flavour;
use crate::wire::binlog::{MapColumn, Metadata, Misfit, TableMap, shape};
use crate::wire::mysqlcharset::Charset;
use crate::wire::mysqltype::{CatalogColumn, DefaultValue, TableShape, code};

/// A table as the catalog has it now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct CatalogTable {
    pub columns: Vec<CatalogColumn>,
    /// The columns of the primary key, in its order.
    pub key: Vec<String>,
    /// Rows, as far as the statistics know.
    pub estimate: u64,
}

/// The table of that name (`<database>.<table>`); without columns when there is none.
pub(super) async fn table(connection: &mut Connection, flavour: Flavour, name: &str) -> Result<CatalogTable, Trouble> {
    let (database, table) = name.split_once('.').unwrap_or(("", name));
    let (database, table) = (literal(database), literal(table));
    let sql = format!(
        "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, CHARACTER_SET_NAME, COLLATION_NAME, COLUMN_KEY, IS_NULLABLE, EXTRA, \
         ORDINAL_POSITION, COLUMN_DEFAULT FROM information_schema.COLUMNS \
         WHERE TABLE_SCHEMA = {database} AND TABLE_NAME = {table} ORDER BY ORDINAL_POSITION"
    );
    let columns = connection.query(&sql).await?.iter().map(|row| column(row, flavour)).collect();
    let sql = format!(
        "SELECT COLUMN_NAME FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = {database} AND TABLE_NAME = {table} \
         AND INDEX_NAME = 'PRIMARY' ORDER BY SEQ_IN_INDEX"
    );
    let key = connection.query(&sql).await?.iter().map(|row| row.text(0)).collect();
    let sql = format!(
        "SELECT TABLE_ROWS FROM information_schema.TABLES WHERE TABLE_SCHEMA = {database} AND TABLE_NAME = {table}"
    );
    let estimate = connection.query(&sql).await?.first().map_or(0, |row| row.number(0));
    Ok(CatalogTable { columns, key, estimate })
}

fn column(row: &Values, flavour: Flavour) -> CatalogColumn {
    let extra = row.text(7).to_uppercase().replace("DEFAULT_GENERATED", "EXPRESSION");
    let nullable = row.text(6) == "YES";
    let default = match (row.get(9), flavour) {
        (None, Flavour::MySql) => nullable.then_some(DefaultValue::Null),
        (Some(_), Flavour::MySql) if extra.contains("EXPRESSION") => None,
        (Some(text), Flavour::MySql) => Some(DefaultValue::Text(text)),
        (None, Flavour::MariaDb) => None,
        (Some(text), Flavour::MariaDb) => mariadb_default(&text),
    };
    let generated = extra.contains("GENERATED") || extra.contains("PERSISTENT");
    CatalogColumn {
        name: row.text(0),
        data_type: row.text(1).to_lowercase(),
        column_type: row.text(2),
        charset: row.get(3),
        collation: row.get(4),
        key: row.text(5) == "PRI",
        nullable,
        generated,
        invisible: extra.contains("INVISIBLE"),
        ordinal: row.number(8) as u32,
        default: if generated { None } else { default },
    }
}

/// MariaDB prints a default as SQL.
fn mariadb_default(text: &str) -> Option<DefaultValue> {
    if text.eq_ignore_ascii_case("NULL") {
        return Some(DefaultValue::Null);
    }
    if let Some(inner) = text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        return Some(DefaultValue::Text(inner.replace("''", "'").replace("\\'", "'").replace("\\\\", "\\")));
    }
    let number = text.bytes().all(|byte| byte.is_ascii_digit() || b".-+eE".contains(&byte));
    number.then(|| DefaultValue::Text(text.to_owned()))
}

/// The shape of rows that a query of all columns reads.
pub(super) fn read_shape(id: u64, name: &str, table: &CatalogTable) -> Result<TableShape, Misfit> {
    let (database, bare) = name.split_once('.').unwrap_or(("", name));
    let columns = table.columns.iter().map(map_column).collect::<Vec<_>>();
    let map = TableMap {
        table_id: id,
        database: database.to_owned(),
        table: bare.to_owned(),
        metadata: Metadata { members: vec![None; columns.len()], ..Metadata::default() },
        columns,
    };
    shape(&map, Some(&table.columns))
}

/// How the binary log would announce the column.
fn map_column(column: &CatalogColumn) -> MapColumn {
    let inside = column.column_type.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
    let mut numbers = inside.map_or("", |(inside, _)| inside).split(',').map(|n| n.trim().parse::<u16>().ok());
    let (first, second) = (numbers.next().flatten(), numbers.next().flatten());
    let widest = column.charset.as_deref().map_or(Some(1), Charset::widest).unwrap_or(1);
    let bytes = first.unwrap_or(1).saturating_mul(widest);
    let digits = first.unwrap_or(0);
    let (code, meta) = match column.data_type.as_str() {
        "tinyint" => (code::TINY, 0),
        "smallint" => (code::SHORT, 0),
        "mediumint" => (code::INT24, 0),
        "int" => (code::LONG, 0),
        "bigint" => (code::LONGLONG, 0),
        "float" => (code::FLOAT, 4),
        "double" => (code::DOUBLE, 8),
        "decimal" => (code::NEWDECIMAL, first.unwrap_or(10) | second.unwrap_or(0) << 8),
        "bit" => (code::BIT, first.unwrap_or(1)),
        "year" => (code::YEAR, 0),
        "date" => (code::DATE, 0),
        "time" => (code::TIME2, digits),
        "datetime" => (code::DATETIME2, digits),
        "timestamp" => (code::TIMESTAMP2, digits),
        "char" | "binary" => (code::STRING, bytes),
        "varchar" | "varbinary" => (code::VARCHAR, bytes),
        "tinyblob" | "tinytext" => (code::BLOB, 1),
        "blob" | "text" => (code::BLOB, 2),
        "mediumblob" | "mediumtext" => (code::BLOB, 3),
        "longblob" | "longtext" => (code::BLOB, 4),
        "json" => (code::JSON, 4),
        "enum" => (code::ENUM, 1),
        "set" => (code::SET, 8),
        "vector" => (code::VECTOR, 4),
        "uuid" | "inet6" => (code::STRING, 16),
        "inet4" => (code::STRING, 4),
        _ => (code::GEOMETRY, 4),
    };
    MapColumn { code, meta, nullable: column.nullable }
}
