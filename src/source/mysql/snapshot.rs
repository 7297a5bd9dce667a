//! The rows that are there already, read chunk by chunk while the stream goes on.
//!
//! # How a chunk and the log meet
//!
//! Between two transactions the stream stands at a place *S*. A chunk (the next rows in the order of the primary key) is
//! read so that it shows at least everything that was committed before *S*, and is handed out at *S*: before every event
//! behind it. Until the stream has come to *E*, where the log ended when the chunk had been read, nothing may be cut, so
//! nobody sees rows of the chunk beside older rows of others.
//!
//! That *everything before S* is in the rows is not a matter of course, because a server writes its log before it commits:
//!
//! | server | how |
//! |---|---|
//! | MariaDB | a consistent snapshot knows its own place in the log (`binlog_snapshot_position`); one before *S* is made again |
//! | MySQL with GTIDs | `WAIT_FOR_EXECUTED_GTID_SET` of what the stream has read, before the rows are read |
//! | MySQL without | `FOR SHARE`: a transaction in the log holds its locks until it is committed |
//!
//! # Why it converges
//!
//! The rows of a chunk may show transactions between *S* and *E*, whose events follow. Take the last event behind *S* that
//! concerns a key: after it, the row is what that event says, whether the chunk showed it already or not. A key without
//! such an event was the same from *S* on, so the chunk's row is right, and a row that the chunk lacks was deleted before
//! *S* (its delete came earlier) or lies in another chunk. Events of keys that no chunk has reached yet count as well: a
//! row that they add or change is brought once more by its chunk, and one that they delete is in no chunk. A key that
//! moves from a part that was not read yet into one that was carries its whole row in the event; the other way round, its
//! chunk brings it. So no key is ever compared here, and the server's own order and collations decide.
//!
//! It follows that events must carry whole rows. Where they do not (`binlog_row_image` other than `FULL`), an update of a
//! row that no chunk has reached has no base. Such tables are read in one go: all chunks at one *S*, the stream waiting.
//! Then every event behind *S* finds its row, but for a key that moved between *S* and the reading: that one waits in
//! quarantine (`incomplete`) with its reason.
//!
//! # How long it takes
//!
//! Before the next chunk the stream must come to *E*, and meanwhile the log goes on. Where it grows more quickly than it is
//! read, each chunk would wait longer than the one before, so a round has several of them when the stream needed long:
//! reading has a tenth of the time (ten seconds in a round at most), and the stream loses no more than that.
//!
//! A chunk that was broken off goes on behind the last row that the log has, at another *S*: what was said above holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Row, Value};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::catalog::{self, CatalogTable};
use super::connection::{Connection, Trouble, identifier, literal, patiently, table_identifier, within};
use super::place::{Taken, file_number};
use super::settings::Settings;
use super::setup::{self, Flavour};
use super::stream::{PIECE_BYTES, Stream};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::binlog::{SnapshotWriter, Typed, describe_key, truncate_record};
use crate::wire::mysqltype::CatalogColumn;

/// How long the server may think before the next row of a chunk.
const ROW_TIMEOUT: Duration = Duration::from_secs(600);
/// How long a transaction that is in the log may take until it can be seen.
const VISIBLE_SECONDS: u64 = 60;
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// Rows between two lines in the log.
const SAY_EVERY_ROWS: u64 = 1_000_000;
/// Of the time that the log takes, rows may take one part in so many.
const SHARE: u32 = 10;
/// And no longer at once: no epoch ends between the chunks of a round.
const LONGEST_ROUND: Duration = Duration::from_secs(10);
/// Numbers of tables that a query reads, apart from those of the log.
const READ_IDS: u64 = 1 << 63;

/// What is kept from one round to the next.
#[derive(Default)]
pub(super) struct Rounds {
    idle: Vec<Connection>,
    readings: BTreeMap<String, Arc<Reading>>,
    /// Tables that are not there: a statement that makes one of that name changes that.
    absent: BTreeSet<String>,
    ids: u64,
    /// When the last one was over.
    ended: Option<Instant>,
}

/// A table being read: what a chunk's query needs.
struct Reading {
    id: u64,
    name: String,
    table: CatalogTable,
    key_columns: Vec<CatalogColumn>,
    shape: Vec<u8>,
    time_us: i64,
}

/// Some rows of a chunk.
struct Part {
    reading: Arc<Reading>,
    /// The rows' records, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// The key of the last one; `None`: there are no more rows.
    behind: Option<Vec<String>>,
}

impl Rounds {
    /// A number for what a query reads.
    pub fn next_id(&mut self) -> u64 {
        self.ids += 1;
        READ_IDS + self.ids
    }

    /// The table is not what it was.
    pub fn forget(&mut self, table: &str) {
        self.readings.remove(table);
        self.absent.remove(table);
    }

    /// There is no such table.
    pub fn is_absent(&mut self, table: &str) {
        self.absent.insert(table.to_owned());
    }

    /// Whether there is such a table, as far as is known.
    pub fn is_there(&self, table: &str) -> bool {
        !self.absent.contains(table)
    }
}

impl Stream {
    /// Reads the next chunks and hands them out here; more than one of a table when the log took long since the last ones.
    pub(super) async fn round(&mut self) -> Result<()> {
        let begun = Instant::now();
        let share = self.rounds.ended.map_or(Duration::ZERO, |ended| begun - ended) / SHARE;
        while self.chunks().await? && begun.elapsed() < share.min(LONGEST_ROUND) {}
        let end = setup::end(&mut self.side, &self.job.server).await?;
        self.settled = end.order();
        self.end = self.end.max(self.settled);
        self.hand_out().await?;
        self.rounds.ended = Some(Instant::now());
        Ok(())
    }

    /// Reads the next chunk of several tables; whether there was one.
    async fn chunks(&mut self) -> Result<bool> {
        let unread = self.job.captured.iter().filter(|table| self.is_unread(table));
        let names: Vec<String> = unread.take(self.job.snapshot.parallel as usize).cloned().collect();
        let mut readings = Vec::new();
        for name in &names {
            let Some(reading) = self.reading(name).await? else { continue };
            self.begin_reading(&reading);
            readings.push(reading);
        }
        if readings.is_empty() {
            return Ok(false);
        }
        self.wait_until_visible().await?;
        let mut connections = Vec::new();
        for _ in &readings {
            let kept = self.rounds.idle.pop();
            connections.push(match kept {
                Some(connection) => connection,
                None => Connection::open(&self.job.settings).await?,
            });
        }
        let (parts, mut arriving) = mpsc::channel(2 * readings.len());
        let chunks: Vec<Chunk> = readings.into_iter().map(|reading| self.chunk(reading, parts.clone())).collect();
        drop(parts);
        let reading = futures::future::try_join_all(
            chunks.into_iter().zip(connections).map(|(chunk, connection)| chunk.read(connection)),
        );
        let merging = async {
            while let Some(part) = arriving.recv().await {
                self.part(part).await?;
            }
            Ok::<_, Error>(())
        };
        let (idle, ()) = futures::future::try_join(reading, merging).await?;
        self.rounds.idle = if self.must_read() { idle } else { Vec::new() };
        let _hit = crate::failpoint::hit("mysql.snapshot.chunk");
        Ok(true)
    }

    /// What the table's chunks are read by; `None` when it is not there.
    async fn reading(&mut self, name: &str) -> Result<Option<Arc<Reading>>> {
        if let Some(reading) = self.rounds.readings.get(name) {
            return Ok(Some(Arc::clone(reading)));
        }
        let Some(table) = self.look_up(name).await? else { return Ok(None) };
        let doing = || format!("source {}: read the rows of {name}", self.job.name);
        let id = self.rounds.next_id();
        let shape = catalog::read_shape(id, name, &table)
            .map_err(|misfit| Error::new(ErrorKind::SourceRefused, doing()).because(misfit))?;
        let column = |key: &String| table.columns.iter().find(|column| column.name == *key).cloned();
        let key_columns = table.key.iter().filter_map(column).collect();
        let now = self.side.query("SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)").await;
        let now = now.map_err(|trouble| trouble.error(doing()))?;
        let time_us = now.first().and_then(|row| row.text(0).parse().ok()).unwrap_or(crate::batch::NO_TIME);
        let shape = describe_key(&shape);
        let reading = Arc::new(Reading { id, name: name.to_owned(), table, key_columns, shape, time_us });
        let record = (self.place.order().0, self.next_here());
        self.records.push_within(record.0, record.1, time_us, Some(&reading.shape), None);
        self.rounds.readings.insert(name.to_owned(), Arc::clone(&reading));
        Ok(Some(reading))
    }

    /// From here on the table's events count; if rows of an earlier reading are there, it is emptied.
    fn begin_reading(&mut self, reading: &Reading) {
        let name = &reading.name;
        if self.place.tables.contains_key(name) {
            return;
        }
        tracing::info!(
            source = &*self.job.name,
            table = name,
            rows = reading.table.estimate,
            "reading the rows that are there"
        );
        let again = self.place.again.remove(name);
        if again {
            let (major, within) = (self.place.order().0, self.next_here());
            self.records.push_within(major, within, reading.time_us, None, Some(&truncate_record(reading.id)));
        }
        let order = self.job.wanted.borrow().get(name).copied().unwrap_or(0);
        let of = reading.table.estimate;
        let taken = Taken { behind: Some(Vec::new()), of, again, order, ..Taken::default() };
        self.place.tables.insert(name.clone(), taken);
    }

    /// The order of the next record at this very place.
    fn next_here(&mut self) -> (u64, u32) {
        self.place.ordinal += 1;
        (self.place.pos, self.place.ordinal)
    }

    /// What the stream has read must be committed before rows are read: see the head of this file.
    async fn wait_until_visible(&mut self) -> Result<()> {
        let Some(gtids) = self.gtids.shown().filter(|gtids| !gtids.is_empty() && !self.is_mariadb()) else {
            return Ok(());
        };
        let doing = || format!("source {}: wait until what was read can be seen", self.job.name);
        let sql = format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{gtids}', {VISIBLE_SECONDS})");
        let limit = Duration::from_secs(2 * VISIBLE_SECONDS);
        let session = (&self.job.settings, self.side.conn.id());
        let rows = patiently(limit, session, doing, self.side.conn.query::<u64, _>(sql)).await;
        let rows = rows.map_err(|trouble| trouble.error(doing()))?;
        if rows.first() == Some(&0) {
            return Ok(());
        }
        let why = format!("a transaction that is in the log is not committed after {VISIBLE_SECONDS} s");
        Err(Error::new(ErrorKind::SourceUnavailable, doing()).because(why).help(
            "`SHOW FULL PROCESSLIST` shows sessions that commit: a replica that must acknowledge (semi-synchronous \
             replication), a full disk or a backup may hold them up",
        ))
    }

    fn chunk(&self, reading: Arc<Reading>, out: mpsc::Sender<Part>) -> Chunk {
        let behind = self.place.tables.get(&reading.name).and_then(|taken| taken.behind.clone()).unwrap_or_default();
        let whole = !self.job.server.full_images || reading.table.key.is_empty();
        Chunk {
            source: Arc::clone(&self.job.name),
            settings: self.job.settings.clone(),
            flavour: self.job.server.flavour,
            shared: self.job.server.flavour == Flavour::MySql && !self.job.server.gtids,
            limit: if whole { u64::MAX } else { u64::from(self.job.snapshot.chunk_rows) },
            at: self.place.order(),
            behind,
            reading,
            out,
        }
    }

    async fn part(&mut self, part: Part) -> Result<()> {
        let (reading, mut from) = (part.reading, 0);
        let major = file_number(&self.place.file);
        for end in &part.ends {
            let within = self.next_here();
            self.records.push_within(major, within, reading.time_us, None, Some(&part.bytes[from..*end]));
            from = *end;
        }
        if let Some(taken) = self.place.tables.get_mut(&reading.name) {
            let before = taken.rows;
            taken.rows += part.ends.len() as u64;
            let source = &*self.job.name;
            if part.behind.is_none() {
                tracing::info!(source, table = reading.name, rows = taken.rows, "the rows that are there were read");
                (taken.rows, taken.of, taken.again) = (0, 0, false);
                self.rounds.readings.remove(&reading.name);
            } else if before / SAY_EVERY_ROWS != taken.rows / SAY_EVERY_ROWS {
                let of = reading.table.estimate;
                tracing::info!(source, table = reading.name, rows = taken.rows, of, "reading the rows that are there");
            }
            taken.behind = part.behind;
        }
        let _hit = crate::failpoint::hit("mysql.snapshot.piece");
        if self.records.bytes() >= PIECE_BYTES {
            self.hand_out_piece(true).await?;
        }
        Ok(())
    }
}

/// One chunk to read.
struct Chunk {
    source: Arc<str>,
    settings: Settings,
    flavour: Flavour,
    reading: Arc<Reading>,
    /// Rows are locked while they are read.
    shared: bool,
    limit: u64,
    /// The stream's place.
    at: (u64, u64),
    behind: Vec<String>,
    out: mpsc::Sender<Part>,
}

impl Chunk {
    async fn read(self, mut connection: Connection) -> Result<Connection> {
        let doing = || format!("source {}: read the rows of {}", self.source, self.reading.name);
        let failed = |trouble: Trouble| match trouble.code() {
            // It has been altered since its columns were looked up: they are looked up again.
            1054 | 1412 => Error::new(ErrorKind::SourceUnavailable, doing()).because(format!("{trouble:?}")),
            _ => trouble.error(doing()),
        };
        if self.flavour == Flavour::MariaDb {
            self.begin_snapshot(&mut connection).await.map_err(failed)?;
        }
        self.rows(&mut connection).await.map_err(failed)?;
        if self.flavour == Flavour::MariaDb {
            connection.run("COMMIT").await.map_err(failed)?;
        }
        Ok(connection)
    }

    /// A snapshot that stands at the stream's place or behind it.
    async fn begin_snapshot(&self, connection: &mut Connection) -> Result<(), Trouble> {
        connection.run("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
        // It keeps changes of columns waiting: one that is left by a process that died without a word goes soon.
        connection.run(&format!("SET SESSION idle_transaction_timeout = {VISIBLE_SECONDS}")).await?;
        let begun = Instant::now();
        loop {
            connection.run("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await?;
            let rows = connection.query("SHOW STATUS LIKE 'binlog_snapshot_%'").await?;
            let said =
                |name: &str| rows.iter().find(|row| row.text(0).eq_ignore_ascii_case(name)).map(|row| row.text(1));
            let file = said("binlog_snapshot_file").unwrap_or_default();
            let pos: u64 = said("binlog_snapshot_position").and_then(|pos| pos.parse().ok()).unwrap_or(0);
            if (file_number(&file), pos) >= self.at {
                return Ok(());
            }
            connection.run("ROLLBACK").await?;
            if begun.elapsed() > Duration::from_secs(VISIBLE_SECONDS) {
                let what = format!("the server's snapshots stand at {file}:{pos} and its log beyond {:?}", self.at);
                return Err(Trouble::Broken(what.into()));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn sql(&self) -> String {
        let names: Vec<String> = self.reading.table.columns.iter().map(|column| identifier(&column.name)).collect();
        let mut sql = format!("SELECT {}", names.join(", "));
        // An ENUM or a SET is ordered by its number.
        for column in self.reading.key_columns.iter().filter(|column| is_numbered(column)) {
            sql.push_str(&format!(", {} + 0", identifier(&column.name)));
        }
        sql.push_str(&format!(" FROM {}", table_identifier(&self.reading.name)));
        let key: Vec<String> = self.reading.table.key.iter().map(|name| identifier(name)).collect();
        if !key.is_empty() {
            sql.push_str(" FORCE INDEX (PRIMARY)");
        }
        if !self.behind.is_empty() {
            sql.push_str(&format!(" WHERE {}", beyond(&key, &self.behind)));
        }
        if !key.is_empty() {
            sql.push_str(&format!(" ORDER BY {}", key.join(", ")));
        }
        if self.limit != u64::MAX {
            sql.push_str(&format!(" LIMIT {}", self.limit));
        }
        if self.shared {
            sql.push_str(" FOR SHARE");
        }
        sql
    }

    async fn rows(&self, connection: &mut Connection) -> Result<(), Trouble> {
        let width = self.reading.table.columns.len();
        let mut writer = SnapshotWriter::new(self.reading.id);
        let waits_for = || format!("source {}: the next row of {}", self.source, self.reading.name);
        let session = (&self.settings, connection.conn.id());
        let mut result = patiently(ROW_TIMEOUT, session, waits_for, connection.conn.exec_iter(self.sql(), ())).await?;
        let (mut part, mut count) = (self.empty(), 0);
        let mut last: Option<Row> = None;
        while let Some(row) = patiently(ROW_TIMEOUT, session, waits_for, result.next()).await? {
            count += 1;
            writer.clear();
            for column in 0..width {
                writer.push(typed(row.as_ref(column).unwrap_or(&Value::NULL)));
            }
            part.bytes.extend_from_slice(writer.record());
            part.ends.push(part.bytes.len());
            if part.bytes.len() >= PIECE_BYTES {
                // What is read in one go cannot go on in the middle.
                part.behind = Some(if self.limit == u64::MAX { Vec::new() } else { self.key(&row) });
                let full = std::mem::replace(&mut part, self.empty());
                if self.out.send(full).await.is_err() {
                    return Ok(());
                }
            }
            last = Some(row);
        }
        within(ROW_TIMEOUT, result.drop_result()).await?;
        part.behind = last.filter(|_| count >= self.limit).map(|row| self.key(&row));
        // Whoever gave up has a reason of its own.
        let _given_up = self.out.send(part).await;
        Ok(())
    }

    fn empty(&self) -> Part {
        Part { reading: Arc::clone(&self.reading), bytes: Vec::new(), ends: Vec::new(), behind: None }
    }

    /// The key of a row, as SQL.
    fn key(&self, row: &Row) -> Vec<String> {
        let mut number = self.reading.table.columns.len();
        let mut part = |column: &CatalogColumn| {
            let mut at = self.reading.table.columns.iter().position(|known| known.name == column.name).unwrap_or(0);
            if is_numbered(column) {
                at = number;
                number += 1;
            }
            key_literal(column, row.as_ref(at).unwrap_or(&Value::NULL))
        };
        self.reading.key_columns.iter().map(&mut part).collect()
    }
}

fn is_numbered(column: &CatalogColumn) -> bool {
    matches!(column.data_type.as_str(), "enum" | "set")
}

/// What comes behind a key, in words that the index helps with: `a >= 1 AND (a > 1 OR (b > 2))`.
fn beyond(key: &[String], values: &[String]) -> String {
    let [column, columns @ ..] = key else { return "FALSE".into() };
    let [value, values @ ..] = values else { return "FALSE".into() };
    if columns.is_empty() {
        return format!("{column} > {value}");
    }
    format!("{column} >= {value} AND ({column} > {value} OR ({}))", beyond(columns, values))
}

/// A value of a key as SQL that compares with its column as the column's own order does.
fn key_literal(column: &CatalogColumn, value: &Value) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match value {
        Value::Int(number) => number.to_string(),
        Value::UInt(number) => number.to_string(),
        Value::Float(number) => format!("{:?}e0", f64::from(*number)),
        Value::Double(number) => format!("{number:?}e0"),
        Value::Bytes(bytes) => match column.data_type.as_str() {
            "decimal" => String::from_utf8_lossy(bytes).into_owned(),
            "uuid" | "inet4" | "inet6" => literal(&String::from_utf8_lossy(bytes)),
            "bit" => format!("(x'{}' + 0)", hex(bytes)),
            _ if column.charset.is_some() => format!("_utf8mb4 x'{}'", hex(bytes)),
            _ => format!("x'{}'", hex(bytes)),
        },
        Value::NULL => "NULL".into(),
        moment => moment.as_sql(true),
    }
}

/// A value as the decoder takes it.
pub(super) fn typed(value: &Value) -> Typed<'_> {
    match value {
        Value::NULL => Typed::Null,
        Value::Bytes(bytes) => Typed::Bytes(bytes),
        Value::Int(number) => Typed::Int(*number),
        Value::UInt(number) => Typed::UInt(*number),
        Value::Float(number) => Typed::Float(*number),
        Value::Double(number) => Typed::Double(*number),
        Value::Date(year, month, day, hour, minute, second, micros) => Typed::Moment {
            year: *year,
            month: *month,
            day: *day,
            hour: *hour,
            minute: *minute,
            second: *second,
            micros: *micros,
        },
        Value::Time(negative, days, hours, minutes, seconds, micros) => Typed::Time {
            negative: *negative,
            days: *days,
            hours: *hours,
            minutes: *minutes,
            seconds: *seconds,
            micros: *micros,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(data_type: &str, charset: Option<&str>) -> CatalogColumn {
        CatalogColumn { data_type: data_type.into(), charset: charset.map(str::to_owned), ..CatalogColumn::default() }
    }

    #[test]
    fn a_key_is_written_as_its_column_compares() {
        let bytes = |text: &str| Value::Bytes(text.into());
        assert_eq!(key_literal(&column("varchar", Some("latin1")), &bytes("é'")), "_utf8mb4 x'c3a927'");
        assert_eq!(key_literal(&column("varbinary", None), &bytes("a")), "x'61'");
        assert_eq!(key_literal(&column("decimal", None), &bytes("-1.50")), "-1.50");
        assert_eq!(key_literal(&column("bit", None), &Value::Bytes(vec![1, 2])), "(x'0102' + 0)");
        assert_eq!(key_literal(&column("float", None), &Value::Float(0.1)), "0.10000000149011612e0");
        let moment = Value::Date(2024, 2, 29, 1, 2, 3, 4);
        assert_eq!(key_literal(&column("datetime", None), &moment), "'2024-02-29 01:02:03.000004'");
        let two = ["`a`".to_owned(), "`b`".to_owned()];
        assert_eq!(beyond(&two, &["1".into(), "'x'".into()]), "`a` >= 1 AND (`a` > 1 OR (`b` > 'x'))");
    }
}
