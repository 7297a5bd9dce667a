//! Before anything is read: what must be there is checked, what is missing is made, and what the role may not make is
//! said as the SQL to run.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::catalog::{self, CatalogTable, Publication};
use super::connection::{Connection, Purpose, Trouble, identifier, literal};
use super::settings::Settings;
use crate::error::{Error, ErrorKind, Result};
use crate::wire::pgoutput::Lsn;

/// The oldest server that is read.
pub(super) const OLDEST: u32 = 130_000;

/// How long a slot that is being made is waited for, and how often it is looked at.
const BEING_MADE: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What the server says of itself.
#[derive(Debug, Clone)]
pub(super) struct Server {
    /// As `server_version_num`: 150004.
    pub version: u32,
    pub system: String,
    pub timeline: u32,
    /// Where its log ends.
    pub end: Lsn,
}

/// A replication slot as the server has it.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub confirmed: Lsn,
    /// From where on the server keeps its log for it.
    pub begins: Lsn,
    /// Why it no longer has what must come next.
    pub lost: Option<String>,
    /// Whether it is kept ready on standbys.
    pub failover: bool,
}

fn refused(what: impl Into<String>, sql: &str) -> Error {
    Error::new(ErrorKind::SourceRefused, what).help(format!("run as a superuser or the owner:\n    {sql}"))
}

/// What the source is to read.
pub(super) struct Wanted<'a> {
    /// The source's name in the topology.
    pub source: &'a str,
    pub publication: &'a str,
    /// The server's, as `server_version_num`.
    pub version: u32,
    pub slot: &'a str,
    /// `<schema>.<table>`
    pub tables: &'a [String],
}

/// The server's identity, by a connection of the replication protocol: only a role that may replicate gets one. A server
/// that is still being recovered cannot be judged yet: its log grows until it is what it will be.
pub(super) async fn identify(settings: &Settings) -> Result<(Server, Connection)> {
    let mut connection = Connection::open(settings, Purpose::Replication).await.map_err(|error| {
        let role = identifier(&settings.user);
        if error.kind() == &ErrorKind::SourceRefused && error.to_string().contains("(42501)") {
            return refused(format!("the role {role} may not replicate"), &format!("ALTER ROLE {role} REPLICATION;"));
        }
        error
    })?;
    let failed = |trouble: Trouble| trouble.error(format!("ask {} who it is", settings.place()));
    let rows = connection.query("IDENTIFY_SYSTEM").await.map_err(failed)?;
    let row =
        rows.first().ok_or_else(|| Error::new(ErrorKind::SourceUnavailable, "the server does not say who it is"))?;
    let (system, timeline) = (row.text(0).to_owned(), row.text(1).parse().unwrap_or(0));
    let end = row.text(2).parse().unwrap_or_default();
    let failed = |trouble: Trouble| trouble.error(format!("ask {} for its version", settings.place()));
    let rows = connection.query("SHOW server_version_num").await.map_err(failed)?;
    let version = rows.first().and_then(|row| row.text(0).parse().ok()).unwrap_or(0);
    if version < OLDEST {
        return Err(Error::new(ErrorKind::SourceRefused, format!("{} is older than PostgreSQL 13", settings.place()))
            .help("upgrade the server"));
    }
    let failed = |trouble: Trouble| trouble.error(format!("ask {} whether it takes writes", settings.place()));
    if connection.query("SELECT pg_is_in_recovery()").await.map_err(failed)?.first().is_some_and(|row| row.is(0)) {
        let what = format!("{} is in recovery: it is a standby, or is being restored", settings.place());
        return Err(Error::new(ErrorKind::SourceUnavailable, what).help(
            "it is read once it is promoted; if it is to stay a standby, name the primary in the source's `url:`",
        ));
    }
    Ok((Server { version, system, timeline, end }, connection))
}

/// Checks settings and tables, all of which must be there; the tables as the catalog has them.
pub(super) async fn check(connection: &mut Connection, wanted: &Wanted<'_>) -> Result<Vec<CatalogTable>> {
    let found = check_those_there(connection, wanted).await?;
    match wanted.tables.iter().find(|name| found.iter().all(|table| table.name != **name)) {
        None => Ok(found),
        Some(name) => Err(Error::new(
            ErrorKind::SourceRefused,
            format!("source {}: there is no table {name} that the role can see", wanted.source),
        )
        .help("correct `from:` in the topology, make the table, or grant USAGE on its schema")),
    }
}

/// Checks settings, and the tables that are there.
pub(super) async fn check_those_there(connection: &mut Connection, wanted: &Wanted<'_>) -> Result<Vec<CatalogTable>> {
    let failed = |trouble: Trouble| trouble.error(format!("source {}: check the server", wanted.source));
    let rows = connection.query("SHOW wal_level").await.map_err(failed)?;
    let level = rows.first().map(|row| row.text(0).to_owned()).unwrap_or_default();
    if level != "logical" {
        return Err(refused(
            format!(
                "source {}: the server's wal_level is `{level}`; changes can be read when it is `logical`",
                wanted.source
            ),
            "ALTER SYSTEM SET wal_level = logical; -- then restart the server",
        ));
    }
    let shown_by = Publication { name: wanted.publication, version: wanted.version };
    let tables = catalog::tables(connection, wanted.tables, shown_by).await.map_err(failed)?;
    tables.iter().try_for_each(|table| check_table(table, wanted))?;
    Ok(tables)
}

fn check_table(table: &CatalogTable, wanted: &Wanted<'_>) -> Result<()> {
    match unfit(table).into_iter().next() {
        Some((what, sql)) => Err(refused(format!("source {}: {what}", wanted.source), &sql)),
        None => Ok(()),
    }
}

/// Why a table cannot be captured, and the SQL that changes it.
pub(super) fn unfit(table: &CatalogTable) -> Vec<(String, String)> {
    let name = &table.sql_name;
    let mut found = Vec::new();
    if !table.may_use_schema {
        let schema = name.split_once('.').map_or(name.as_str(), |(schema, _)| schema);
        let what = format!("the role may not use the schema of {}", table.name);
        found.push((what, format!("GRANT USAGE ON SCHEMA {schema} TO <the role of the source>;")));
    }
    if !table.may_select {
        let sql = format!("GRANT SELECT ON {name} TO <the role of the source>;");
        found.push((format!("the role may not read {}", table.name), sql));
    }
    // Publishing the updates of such a table makes them fail for the application.
    if table.identity == 'n' || (table.identity == 'd' && !table.has_key) {
        let what = if table.identity == 'n' { "its replica identity is NOTHING" } else { "it has no primary key" };
        found.push((
            format!(
                "{} cannot be captured, because {what}: once it is published, the application's updates and deletes of \
                 it would fail",
                table.name
            ),
            format!(
                "ALTER TABLE {name} ADD PRIMARY KEY (…);  -- or, with a `key:` in the topology:\n    ALTER TABLE {name} REPLICA IDENTITY FULL;"
            ),
        ));
    }
    found
}

/// Whether there is a publication of that name.
pub(super) async fn has_publication(connection: &mut Connection, wanted: &Wanted<'_>) -> Result<bool> {
    let sql = format!("SELECT 1 FROM pg_publication WHERE pubname = {}", literal(wanted.publication));
    let doing = || format!("look at publication {}", wanted.publication);
    let rows = connection.query(&sql).await.map_err(|trouble| trouble.error(doing()))?;
    Ok(!rows.is_empty())
}

/// What had to be added to the publication: changes before that were not for us.
#[derive(Debug, Default)]
pub(super) struct Added {
    /// It was not there at all.
    pub publication: bool,
    pub tables: Vec<String>,
}

/// Makes sure that the publication shows all changes of the tables.
pub(super) async fn publication(
    connection: &mut Connection,
    wanted: &Wanted<'_>,
    tables: &[CatalogTable],
) -> Result<Added> {
    let failed = |trouble: Trouble| trouble.error(format!("look at publication {}", wanted.publication));
    let name = identifier(wanted.publication);
    let sql = format!(
        "SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate, pubviaroot FROM pg_publication WHERE pubname = {}",
        literal(wanted.publication)
    );
    let rows = connection.query(&sql).await.map_err(failed)?;
    let all: Vec<&str> = tables.iter().map(|table| table.sql_name.as_str()).collect();
    let Some(row) = rows.first() else {
        let sql = create_publication(wanted.publication, &all);
        make(connection, wanted, "make the publication", &sql).await?;
        return Ok(Added { publication: true, tables: Vec::new() });
    };
    if !row.is(0) {
        return Err(refused(
            format!("source {}: the publication {name} leaves out some kinds of changes", wanted.source),
            &format!("ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate');"),
        ));
    }
    let published = published_tables(connection, wanted.publication).await.map_err(failed)?;
    let shown = |table: &CatalogTable| published.contains(&table.name);
    if let Some(hidden) = tables.iter().find(|table| table.partitioned && !row.is(1)) {
        return Err(refused(
            format!(
                "source {}: the publication {name} shows the partitions of {} one by one",
                wanted.source, hidden.name
            ),
            &format!("ALTER PUBLICATION {name} SET (publish_via_partition_root = true);"),
        ));
    }
    let missing: Vec<&CatalogTable> = tables.iter().filter(|table| !shown(table)).collect();
    if !missing.is_empty() {
        let list: Vec<&str> = missing.iter().map(|table| table.sql_name.as_str()).collect();
        let sql = format!("ALTER PUBLICATION {name} ADD TABLE {};", list.join(", "));
        make(connection, wanted, "add tables to the publication", &sql).await?;
    }
    Ok(Added { publication: false, tables: missing.into_iter().map(|table| table.name.clone()).collect() })
}

/// What makes the publication.
pub(super) fn create_publication(publication: &str, tables: &[&str]) -> String {
    let (name, tables) = (identifier(publication), tables.join(", "));
    format!("CREATE PUBLICATION {name} FOR TABLE {tables} WITH (publish_via_partition_root = true);")
}

/// The tables that a publication shows, as `<schema>.<table>`.
pub(super) async fn published_tables(
    connection: &mut Connection,
    publication: &str,
) -> Result<BTreeSet<String>, Trouble> {
    let sql = format!(
        "SELECT schemaname || '.' || tablename FROM pg_publication_tables WHERE pubname = {}",
        literal(publication)
    );
    Ok(connection.query(&sql).await?.iter().map(|row| row.text(0).to_owned()).collect())
}

async fn make(connection: &mut Connection, wanted: &Wanted<'_>, doing: &str, sql: &str) -> Result<()> {
    match connection.query(sql).await {
        Ok(_) => {
            tracing::info!(source = wanted.source, "{sql}");
            Ok(())
        }
        Err(trouble) if trouble.code() == "42501" => {
            Err(refused(format!("source {}: the role may not {doing}", wanted.source), sql))
        }
        // Somebody has made it since we looked (duplicate_object): worth another look, not the end.
        Err(trouble) if trouble.code() == "42710" => {
            let what = format!("source {}: {doing}: somebody else has just done so", wanted.source);
            Err(Error::new(ErrorKind::SourceUnavailable, what).because(trouble.error("the server")))
        }
        Err(trouble) => Err(trouble.error(format!("source {}: {doing}", wanted.source))),
    }
}

/// The slot, if there is one of that name; an error when it is something else. One that is still being made (a process
/// that died has asked for it) is waited for: it has no place yet.
pub(super) async fn slot(connection: &mut Connection, source: &str, name: &str) -> Result<Option<Slot>> {
    let begun = Instant::now();
    loop {
        match look_at_slot(connection, source, name).await? {
            Looked::Absent => return Ok(None),
            Looked::There(slot) => return Ok(Some(slot)),
            Looked::BeingMade if begun.elapsed() < BEING_MADE => tokio::time::sleep(LOOK_AGAIN).await,
            Looked::BeingMade => {
                let what = format!("source {source}: the slot {name} is being made by another connection");
                return Err(Error::new(ErrorKind::SourceUnavailable, what).help(
                    "making a slot waits for the transactions that run: end the oldest of them (pg_stat_activity)",
                ));
            }
        }
    }
}

/// What is there by a slot's name.
enum Looked {
    Absent,
    BeingMade,
    There(Slot),
}

async fn look_at_slot(connection: &mut Connection, source: &str, name: &str) -> Result<Looked> {
    let failed = |trouble: Trouble| trouble.error(format!("source {source}: look at slot {name}"));
    let sql = format!(
        "SELECT plugin, database = current_database(), confirmed_flush_lsn, wal_status, restart_lsn, database, \
         to_jsonb(s) ->> 'invalidation_reason', to_jsonb(s) ->> 'failover', to_jsonb(s) ->> 'two_phase' FROM pg_replication_slots s WHERE slot_name = {}",
        literal(name)
    );
    let rows = connection.query(&sql).await.map_err(failed)?;
    let Some(row) = rows.first() else { return Ok(Looked::Absent) };
    if row.text(0) != "pgoutput" || !row.is(1) {
        return Err(Error::new(
            ErrorKind::SourceRefused,
            format!(
                "source {source}: the slot {name} is another one: plug-in `{}`, database `{}`",
                row.text(0),
                row.text(5)
            ),
        )
        .help("give the source another `slot:` in the topology"));
    }
    if row.text(8) == "true" {
        return Err(two_phase(source, name));
    }
    if row.get(2).is_none() && row.text(3) != "lost" {
        return Ok(Looked::BeingMade);
    }
    let lost = match (row.text(3), row.get(6), row.get(4)) {
        (_, Some(reason), _) => Some(format!("the server has invalidated it ({reason})")),
        ("lost", ..) => Some("the server has removed the log that it needs (max_slot_wal_keep_size)".to_owned()),
        (.., None) => Some("it has no place in the log any more".to_owned()),
        _ => None,
    };
    let failover = row.text(7) == "true";
    let lsn = |column| row.text(column).parse().unwrap_or_default();
    Ok(Looked::There(Slot { confirmed: lsn(2), begins: lsn(4), lost, failover }))
}

/// Such a slot sends transactions when they are prepared, and they are no changes before they are committed.
fn two_phase(source: &str, slot: &str) -> Error {
    Error::new(ErrorKind::SourceRefused, format!("source {source}: the slot {slot} has two_phase on")).help(format!(
        "PostgreSQL 18 turns it off, over a replication connection (psql 'replication=database …'):\n    \
         ALTER_REPLICATION_SLOT {} (TWO_PHASE false);\n  Older ones do not: drop it, and a new one is made at the start:\n    \
         SELECT pg_drop_replication_slot({});\n  If tables were read by it, `snapshot: {{ on_lost_slot: snapshot_again }}` reads them again",
        identifier(slot),
        literal(slot)
    ))
}

/// What makes the slot; `failover`: so that it is kept ready on standbys.
pub(super) fn create_slot(slot: &str, failover: bool) -> String {
    let more = if failover { ", false, false, true" } else { "" };
    format!("SELECT lsn FROM pg_create_logical_replication_slot({}, 'pgoutput'{more});", literal(slot))
}

/// Makes the slot; changes are kept for it from the LSN that is returned.
pub(super) async fn make_slot(connection: &mut Connection, wanted: &Wanted<'_>, failover: bool) -> Result<Lsn> {
    let sql = create_slot(wanted.slot, failover);
    let rows = connection.long_query(&sql).await.map_err(|trouble| {
        let doing = format!("source {}: make the slot {}", wanted.source, wanted.slot);
        match trouble.code() {
            "42501" => refused(doing, &sql),
            "53400" => trouble
                .error(doing)
                .help("raise max_replication_slots and restart the server, or drop a slot that nobody reads"),
            _ => trouble.error(doing),
        }
    })?;
    tracing::info!(source = wanted.source, "{sql}");
    let lsn = rows.first().and_then(|row| row.text(0).parse().ok());
    lsn.ok_or_else(|| {
        let what = format!("source {}: the server does not say where the slot {} begins", wanted.source, wanted.slot);
        Error::new(ErrorKind::SourceUnavailable, what)
    })
}

/// Has a slot that is there kept ready on standbys from now on.
pub(super) async fn keep_on_standbys(replication: &mut Connection, wanted: &Wanted<'_>) -> Result<()> {
    let command = format!("ALTER_REPLICATION_SLOT {} (FAILOVER)", identifier(wanted.slot));
    let doing = format!("source {}: have slot {} kept ready on standbys", wanted.source, wanted.slot);
    replication.query(&command).await.map_err(|trouble| trouble.error(doing))?;
    tracing::info!(source = wanted.source, "{command}");
    Ok(())
}

/// Drops a slot that is of no use any more.
pub(super) async fn drop_slot(connection: &mut Connection, wanted: &Wanted<'_>) -> Result<()> {
    let sql = format!("SELECT pg_drop_replication_slot({});", literal(wanted.slot));
    make(connection, wanted, "drop the slot that was lost", &sql).await
}

/// Where the history of `timeline` left `old`; `None` when it never was on it.
pub(super) async fn left_timeline(connection: &mut Connection, timeline: u32, old: u32) -> Result<Option<Lsn>> {
    let failed = |trouble: Trouble| trouble.error("read the server's timeline history");
    let rows = connection.query(&format!("TIMELINE_HISTORY {timeline}")).await.map_err(failed)?;
    let content = rows.first().map(|row| row.text(1).to_owned()).unwrap_or_default();
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next()?.parse::<u32>().ok()? == old).then(|| words.next()?.parse().ok())?
    };
    Ok(content.lines().find_map(entry))
}
