//! What the server's catalog says of a table: columns and primary key, and the shape that rows read by a query have.

use super::connection::{Connection, LOCK_WAIT, Trouble, Values, literal, table_identifier};
use super::setup::{self, End, Flavour, Server};
use crate::error::Result as Outcome;
use crate::wire::binlog::{MapColumn, Metadata, Misfit, TableMap, shape};
use crate::wire::mysqlcharset::Charset;
use crate::wire::mysqlddl::{Scope, Shape};
use crate::wire::mysqltype::{CatalogColumn, DefaultValue, TableShape, code};

/// A table as the catalog has it now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct CatalogTable {
    pub columns: Vec<CatalogColumn>,
    /// The columns of the primary key, in its order.
    pub key: Vec<String>,
    /// Rows, as far as the statistics know.
    pub estimate: u64,
    /// What a column has that names no character set.
    pub charset: String,
    /// It has unique indexes besides the primary key.
    pub unique: bool,
}

impl CatalogTable {
    /// What a history begins with.
    pub fn shape(&self) -> Shape {
        Shape {
            charset: self.charset.clone(),
            columns: self.columns.clone(),
            primary: !self.key.is_empty(),
            unique: self.unique,
        }
    }
}

/// What a look at the catalog found.
pub(super) enum Look {
    /// The table as it is at that place of the log: every statement about it stands before, or behind and is not run yet.
    There(Box<CatalogTable>, End),
    Absent,
    /// A statement that alters it is waiting for others.
    Busy,
}

/// Looks at a table while no statement can alter it: whoever reads it is waited for.
pub(super) async fn look(connection: &mut Connection, server: &Server, name: &str, doing: &str) -> Outcome<Look> {
    let failed = |trouble: Trouble| trouble.error(doing);
    connection.run("SET SESSION lock_wait_timeout = 1").await.map_err(failed)?;
    connection.run("START TRANSACTION READ ONLY").await.map_err(failed)?;
    let found = match connection.query(&format!("SELECT 1 FROM {} LIMIT 0", table_identifier(name))).await {
        Ok(_) => {
            let table = table(connection, server.flavour, name).await.map_err(failed)?;
            let end = setup::end(connection, server).await?;
            if table.columns.is_empty() { Look::Absent } else { Look::There(Box::new(table), end) }
        }
        Err(trouble) if matches!(trouble.code(), 1146 | 1049) => Look::Absent,
        Err(trouble) if trouble.code() == LOCK_WAIT => Look::Busy,
        Err(trouble) => return Err(failed(trouble)),
    };
    connection.run("ROLLBACK").await.map_err(failed)?;
    Ok(found)
}

/// What a server's tables take when they name nothing, and how it spells their names.
pub(super) struct Defaults {
    pub charset: String,
    /// `explicit_defaults_for_timestamp`
    pub plain_timestamps: bool,
    pub scope: Scope,
}

pub(super) async fn defaults(connection: &mut Connection, captured: &[String], doing: &str) -> Outcome<Defaults> {
    let sql = "SELECT @@global.character_set_server, @@global.explicit_defaults_for_timestamp, \
               @@global.lower_case_table_names";
    let rows = connection.query(sql).await.map_err(|trouble| trouble.error(doing))?;
    let text = |column| rows.first().map(|row| row.text(column)).unwrap_or_default();
    let scope = Scope::new(captured, text(2).parse().unwrap_or(0));
    Ok(Defaults { charset: text(0), plain_timestamps: text(1) == "1", scope })
}

/// What the tables of a database have that name no character set.
pub(super) async fn database_charset(connection: &mut Connection, database: &str) -> Result<Option<String>, Trouble> {
    let database = literal(database);
    let sql =
        format!("SELECT DEFAULT_CHARACTER_SET_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {database}");
    Ok(connection.query(&sql).await?.first().and_then(|row| row.get(0)))
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
        "SELECT TABLE_ROWS, TABLE_COLLATION, (SELECT count(*) FROM information_schema.STATISTICS WHERE \
         TABLE_SCHEMA = {database} AND TABLE_NAME = {table} AND NON_UNIQUE = 0 AND INDEX_NAME <> 'PRIMARY') \
         FROM information_schema.TABLES WHERE TABLE_SCHEMA = {database} AND TABLE_NAME = {table}"
    );
    let rows = connection.query(&sql).await?;
    let Some(row) = rows.first() else { return Ok(CatalogTable::default()) };
    let charset = row.text(1).split('_').next().unwrap_or_default().to_owned();
    Ok(CatalogTable { columns, key, estimate: row.number(0), charset, unique: row.number(2) > 0 })
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
