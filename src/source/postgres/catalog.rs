//! What the server's catalog says: settings, tables, types. The queries of this source stand here and in `setup.rs`.

use std::collections::HashMap;

use super::connection::{Connection, Row, Trouble, identifier, literal};
use super::leaf::{Leaf, leaves};
use super::silent::TableState;
use crate::wire::pgoutput::{Lsn, Relation};
use crate::wire::pgtype::{Class, ColumnShape, RelationShape, TypeShape};

/// A table as the catalog has it.
#[derive(Debug, Clone)]
pub(super) struct CatalogTable {
    pub id: u32,
    /// `<schema>.<table>`
    pub name: String,
    /// Quoted.
    pub sql_name: String,
    /// `REPLICA IDENTITY`
    pub identity: char,
    /// Whether it is the root of partitions.
    pub partitioned: bool,
    pub has_key: bool,
    /// The role may read it, and its schema.
    pub may_select: bool,
    pub may_use_schema: bool,
    /// The role may add it to a publication.
    pub owned: bool,
    /// Generated columns: stored ones, which can be published, as names.
    pub generated: Vec<String>,
    /// Rows, where the statistics know.
    pub estimate: Option<u64>,
    pub state: TableState,
}

/// Pages that are looked at to estimate how many rows there are.
const SAMPLED_PAGES: f64 = 100.0;

/// The newest column of `c` that has a value in rows which were there before it. A partitioned table has none of its
/// own: its partitions do.
const FILLED: &str = "SELECT coalesce(max(f.attnum), 0) FROM pg_attribute f WHERE f.atthasmissing AND NOT f.attisdropped \
                      AND (f.attrelid = c.oid OR f.attrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = c.oid))";

/// The numbers of `c` and of its partitions, however deep. Takes no lock on any of them.
const TREE: &str = "WITH RECURSIVE tree (id) AS (SELECT c.oid UNION ALL SELECT i.inhrelid FROM tree JOIN pg_inherits i \
                    ON i.inhparent = tree.id WHERE c.relkind = 'p')";

/// The rows of `c`, if those of all the tables that hold them have been counted. 0 may say that nobody has.
const ROWS: &str = "SELECT CASE WHEN bool_and(f.reltuples > 0) THEN sum(f.reltuples)::bigint END \
                    FROM tree JOIN pg_class f ON f.oid = tree.id AND f.relkind <> 'p'";

/// A hash over the entries of the columns of `c`. An entry's own transaction tells that DDL has touched it.
const COLUMNS: &str = "SELECT substr(md5(coalesce(string_agg(concat_ws(' ', f.attnum, f.atttypid, f.atttypmod, f.xmin), ',' \
                       ORDER BY f.attnum), '')), 1, 8) FROM pg_attribute f WHERE f.attrelid = c.oid AND f.attnum > 0";

/// A publication, on a server of that version (as `server_version_num`).
#[derive(Debug, Clone, Copy)]
pub(super) struct Publication<'a> {
    pub name: &'a str,
    pub version: u32,
}

impl Publication<'_> {
    /// A hash over what shows `c` here, by itself, by its schema or by the table that it is a partition of. Of several
    /// entries the oldest tells that there was one all the time. The publication's own transaction tells that somebody
    /// has altered it: what it publishes, or its name.
    fn shows(self) -> String {
        const IT: &str = "c.oid UNION SELECT relid FROM pg_partition_ancestors(c.oid) WHERE NOT p.pubviaroot";
        let mut entries =
            format!("SELECT e.oid FROM pg_publication_rel e WHERE e.prpubid = p.oid AND e.prrelid IN (SELECT {IT})");
        if self.version >= 150_000 {
            entries += &format!(
                " UNION ALL SELECT e.oid FROM pg_publication_namespace e JOIN pg_class t ON t.relnamespace = e.pnnspid \
                 WHERE e.pnpubid = p.oid AND t.oid IN (SELECT {IT})"
            );
        }
        format!(
            "SELECT substr(md5(concat_ws(' ', p.oid, p.xmin, shown.by)), 1, 8) FROM pg_publication p \
             CROSS JOIN LATERAL (SELECT min(oid) AS by FROM ({entries}) AS every) AS shown \
             WHERE p.pubname = {} AND (p.puballtables OR shown.by IS NOT NULL)",
            literal(self.name)
        )
    }
}

/// What [`CatalogTable::state`] is by now; `None` when there is no such table any more.
pub(super) async fn state(
    connection: &mut Connection,
    id: u32,
    shown_by: Publication<'_>,
) -> Result<Option<TableState>, Trouble> {
    let sql = format!("SELECT {} FROM pg_class c WHERE c.oid = {id}", state_of(shown_by));
    Ok(connection.query(&sql).await?.first().map(|row| state_in(row, 0)))
}

/// The columns that [`state_in`] reads.
fn state_of(shown_by: Publication<'_>) -> String {
    let (shown, leaves) = (shown_by.shows(), leaves(shown_by));
    format!("({FILLED}), c.relfilenode, ({COLUMNS}), ({shown}), CASE WHEN c.relkind = 'p' THEN ({leaves}) END")
}

fn state_in(row: &Row, at: usize) -> TableState {
    let leaves = |text: &str| text.split(',').filter_map(Leaf::parse).collect();
    TableState {
        filled: row.text(at).parse().unwrap_or(0),
        file: row.text(at + 1).parse().unwrap_or(0),
        columns: u32::from_str_radix(row.text(at + 2), 16).unwrap_or(0),
        shown: u32::from_str_radix(row.text(at + 3), 16).unwrap_or(0),
        leaves: row.get(at + 4).map(leaves),
    }
}

/// Whether one of these tables holds anything. One that is locked at present may: that counts.
pub(super) async fn any_filled(connection: &mut Connection, ids: &[u32]) -> Result<bool, Trouble> {
    if ids.is_empty() {
        return Ok(false);
    }
    connection.query("SET lock_timeout = '1s'").await?;
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    let sql = format!(
        "SELECT coalesce(bool_or(pg_relation_size(id) > 0), false) FROM unnest('{{{}}}'::oid[]) AS ids (id)",
        ids.join(",")
    );
    match connection.query(&sql).await {
        Ok(rows) => Ok(rows.first().is_some_and(|row| row.is(0))),
        Err(trouble) if trouble.code() == "55P03" => Ok(true),
        Err(trouble) => Err(trouble),
    }
}

/// About how many rows a table has that nobody has counted: a few of its pages are.
pub(super) async fn measure(connection: &mut Connection, table: &CatalogTable) -> Result<u64, Trouble> {
    let sql = format!(
        "SELECT coalesce(sum(pg_relation_size(f.oid)), 0)::bigint / current_setting('block_size')::bigint \
         FROM pg_class c CROSS JOIN LATERAL ({TREE} SELECT f.oid FROM tree JOIN pg_class f ON f.oid = tree.id \
         AND f.relkind <> 'p') f WHERE c.oid = {}",
        table.id
    );
    let pages = connection.query(&sql).await?.first().and_then(|row| row.text(0).parse().ok()).unwrap_or(0.0f64);
    if pages == 0.0 {
        return Ok(0);
    }
    let percent = (100.0 * SAMPLED_PAGES / pages).min(100.0);
    let only = if table.partitioned { "" } else { "ONLY " };
    let sql = format!("SELECT count(*) FROM {only}{} TABLESAMPLE SYSTEM ({percent})", table.sql_name);
    let rows = connection.query(&sql).await?.first().and_then(|row| row.text(0).parse().ok()).unwrap_or(0.0f64);
    Ok((rows * 100.0 / percent) as u64)
}

/// The tables of those names that exist.
pub(super) async fn tables(
    connection: &mut Connection,
    names: &[String],
    shown_by: Publication<'_>,
) -> Result<Vec<CatalogTable>, Trouble> {
    let wanted: Vec<String> = names.iter().map(|name| literal(name)).collect();
    let state = state_of(shown_by);
    let sql = format!(
        "SELECT c.oid, n.nspname, c.relname, c.relreplident, c.relkind, \
         EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary), \
         has_table_privilege(c.oid, 'SELECT'), has_schema_privilege(n.oid, 'USAGE'), \
         pg_has_role(c.relowner, 'USAGE'), \
         coalesce((SELECT json_agg(g.attname) FROM pg_attribute g WHERE g.attrelid = c.oid AND g.attgenerated <> '' \
           AND NOT g.attisdropped), '[]'), \
         ({TREE} {ROWS}), {state} \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'p') AND n.nspname || '.' || c.relname IN ({}) ORDER BY n.nspname, c.relname",
        if wanted.is_empty() { "''".to_owned() } else { wanted.join(", ") }
    );
    let table = |row: &Row| CatalogTable {
        id: row.text(0).parse().unwrap_or(0),
        name: format!("{}.{}", row.text(1), row.text(2)),
        sql_name: format!("{}.{}", identifier(row.text(1)), identifier(row.text(2))),
        identity: row.text(3).chars().next().unwrap_or('d'),
        partitioned: row.text(4) == "p",
        has_key: row.is(5),
        may_select: row.is(6),
        may_use_schema: row.is(7),
        owned: row.is(8),
        generated: serde_json::from_str(row.text(9)).unwrap_or_default(),
        estimate: row.get(10).and_then(|rows| rows.parse().ok()),
        state: state_in(row, 11),
    };
    Ok(connection.query(&sql).await?.iter().map(table).collect())
}

/// A column as a relation message or the catalog has it.
struct Bare {
    name: String,
    type_id: u32,
    modifier: i32,
    /// Whether old tuples carry it, where the stream has said so.
    identity: Option<bool>,
}

/// The shape of a relation that the stream has announced.
pub(super) async fn announced(connection: &mut Connection, relation: &Relation<'_>) -> Result<RelationShape, Trouble> {
    let schema = if relation.schema.is_empty() { "pg_catalog" } else { relation.schema };
    let bare = relation.columns.iter().map(|c| Bare {
        name: c.name.to_owned(),
        type_id: c.type_id,
        modifier: c.modifier,
        identity: Some(c.key),
    });
    let name = format!("{schema}.{}", relation.name);
    shape(connection, relation.id, name, char::from(relation.identity), bare.collect()).await
}

/// What a table is called now; nothing when it is not there any more.
pub(super) async fn name(connection: &mut Connection, id: u32) -> Result<Option<String>, Trouble> {
    let sql = format!(
        "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = {id}"
    );
    Ok(connection.query(&sql).await?.first().map(|row| row.text(0).to_owned()))
}

/// The shape of a table as its publication shows it now: without generated columns, and without those that a column list
/// leaves out.
pub(super) async fn published(
    connection: &mut Connection,
    table: &CatalogTable,
    shown_by: Publication<'_>,
) -> Result<RelationShape, Trouble> {
    let listed = if shown_by.version >= 150_000 {
        format!(
            "AND a.attname IN (SELECT unnest(p.attnames) FROM pg_publication_tables p WHERE p.pubname = {} \
             AND p.schemaname || '.' || p.tablename = {})",
            literal(shown_by.name),
            literal(&table.name)
        )
    } else {
        "AND a.attgenerated = ''".to_owned()
    };
    let sql = format!(
        "SELECT a.attname, a.atttypid, a.atttypmod FROM pg_attribute a \
         WHERE a.attrelid = {} AND a.attnum > 0 AND NOT a.attisdropped {listed} ORDER BY a.attnum",
        table.id
    );
    let rows = connection.query(&sql).await?;
    let bare = rows.iter().map(|row| Bare {
        name: row.text(0).to_owned(),
        type_id: row.text(1).parse().unwrap_or(0),
        modifier: row.text(2).parse().unwrap_or(-1),
        identity: None,
    });
    shape(connection, table.id, table.name.clone(), table.identity, bare.collect()).await
}

async fn shape(
    connection: &mut Connection,
    id: u32,
    name: String,
    identity: char,
    columns: Vec<Bare>,
) -> Result<RelationShape, Trouble> {
    let types = types(connection, &columns).await?;
    // Old tuples carry the identity's columns alone, so they are the key where the identity is an index of its own.
    let index = if identity == 'i' { "indisreplident" } else { "indisprimary" };
    let sql = format!(
        "SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid \
         AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1]) WHERE i.indrelid = {id} AND i.{index}"
    );
    let key: Vec<String> = connection.query(&sql).await?.iter().map(|row| row.text(0).to_owned()).collect();
    let carried = |bare: &Bare| match identity {
        'f' => true,
        'n' => false,
        _ => key.contains(&bare.name),
    };
    let column = |bare: Bare| {
        let identified = bare.identity.unwrap_or_else(|| carried(&bare));
        let known = types.get(&bare.type_id).cloned();
        // A type that has been dropped meanwhile: its text is kept as it comes.
        let known = known.unwrap_or_else(|| TypeShape::plain("unknown"));
        let modifier = if known.modifier == -1 { bare.modifier } else { known.modifier };
        // The stream says which columns were the key then; the catalog only what they are now.
        let key = match (identity, bare.identity) {
            ('d' | 'i', Some(then)) => then,
            _ if key.is_empty() => identified && identity != 'f',
            _ => key.contains(&bare.name),
        };
        ColumnShape { name: bare.name, kind: TypeShape { modifier, ..known }, key, identity: identified }
    };
    Ok(RelationShape { id, name, identity, columns: columns.into_iter().map(column).collect() })
}

/// A column of the index by which a table's rows are read in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OrderColumn {
    pub name: String,
    /// The type as SQL names it.
    pub kind: String,
}

/// The columns of a table's key in the order of its index; none when it has no key.
pub(super) async fn order(connection: &mut Connection, id: u32, identity: char) -> Result<Vec<OrderColumn>, Trouble> {
    let index = if identity == 'i' { "indisreplident" } else { "indisprimary" };
    let sql = format!(
        "SELECT a.attname, format_type(a.atttypid, -1) FROM pg_index i \
         CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k (attnum, n) \
         JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
         WHERE i.indrelid = {id} AND i.{index} AND k.n <= i.indnkeyatts ORDER BY k.n"
    );
    let rows = connection.query(&sql).await?;
    Ok(rows.iter().map(|row| OrderColumn { name: row.text(0).to_owned(), kind: row.text(1).to_owned() }).collect())
}

/// The types of the columns, domains taken down to what they stand on.
async fn types(connection: &mut Connection, columns: &[Bare]) -> Result<HashMap<u32, TypeShape>, Trouble> {
    let ids: Vec<String> = columns.iter().map(|column| column.type_id.to_string()).collect();
    let sql = format!(
        "WITH RECURSIVE chain AS ( \
           SELECT oid AS asked, -1 AS modifier, oid, typtype, typbasetype, typtypmod FROM pg_type \
           WHERE oid = ANY ('{{{}}}'::oid[]) \
           UNION ALL \
           SELECT c.asked, CASE WHEN c.typtypmod = -1 THEN c.modifier ELSE c.typtypmod END, \
             t.oid, t.typtype, t.typbasetype, t.typtypmod \
           FROM chain c JOIN pg_type t ON t.oid = c.typbasetype WHERE c.typtype = 'd') \
         SELECT c.asked, c.modifier, t.typname, t.typtype, e.typname, e.typtype, e.typdelim \
         FROM chain c JOIN pg_type t ON t.oid = c.oid \
         LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A' AND t.typlen = -1 \
           AND t.typname NOT IN ('int2vector', 'oidvector') \
         WHERE c.typtype <> 'd'",
        ids.join(",")
    );
    let class = |letter: &str| match letter {
        "e" => Class::Enum,
        "c" => Class::Composite,
        "r" | "m" => Class::Range,
        _ => Class::Base,
    };
    let shape = |row: &Row| {
        let array = row.get(4).is_some();
        let (name, kind) = if array { (row.text(4), row.text(5)) } else { (row.text(2), row.text(3)) };
        TypeShape {
            name: name.to_owned(),
            class: class(kind),
            modifier: row.text(1).parse().unwrap_or(-1),
            array,
            delimiter: row.text(6).chars().next().unwrap_or(','),
        }
    };
    let rows = connection.query(&sql).await?;
    Ok(rows.iter().map(|row| (row.text(0).parse().unwrap_or(0), shape(row))).collect())
}

/// Where the log ends: what this transaction sees was committed before.
pub(super) async fn written(connection: &mut Connection) -> Result<Lsn, Trouble> {
    let place = "CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END";
    lsn(connection, &format!("SELECT {place}")).await
}

/// Where the log ends, as far as it is on disk.
pub(super) async fn log_end(connection: &mut Connection) -> Result<Lsn, Trouble> {
    lsn(connection, "SELECT pg_current_wal_flush_lsn()").await
}

/// Writes a message into the log: its place. What was committed before it stands before it, and is on disk.
pub(super) async fn heartbeat(connection: &mut Connection) -> Result<Lsn, Trouble> {
    lsn(connection, "SELECT pg_logical_emit_message(true, 'dataflow', 'heartbeat')").await
}

/// Where the log ends, on disk or not: nothing that can be seen now stands behind it.
pub(super) async fn log_written(connection: &mut Connection) -> Result<Lsn, Trouble> {
    lsn(connection, "SELECT pg_current_wal_insert_lsn()").await
}

/// Makes the log grow: whatever is read after it has a later place than what was read before.
pub(super) async fn advance_log(connection: &mut Connection) -> Result<(), Trouble> {
    connection.query("SELECT pg_current_xact_id()").await.map(drop)
}

async fn lsn(connection: &mut Connection, sql: &str) -> Result<Lsn, Trouble> {
    let rows = connection.query(sql).await?;
    Ok(rows.first().and_then(|row| row.text(0).parse().ok()).unwrap_or_default())
}
