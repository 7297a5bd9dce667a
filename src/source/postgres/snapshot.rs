//! The rows that are there already: one table after the other, each as of an exact place of the log.
//!
//! A temporary slot gives both: the place where its stream would begin, and a snapshot that shows what was committed
//! before it and nothing else. Of the stream the changes of such a table count from that place on, so nothing is seen
//! twice and nothing is left out, however long reading takes and whenever a table joins.
//!
//! A table whose reading was broken off is emptied and read again under a new snapshot: rows that were deleted in
//! between would otherwise stay for ever.

use bytes::Bytes;
use tokio::sync::mpsc;

use super::catalog::{self, CatalogTable};
use super::connection::{Connection, Purpose, Trouble, identifier, literal};
use super::place::{Place, Taken};
use super::setup;
use super::worker::{Item, Job, Piece};
use crate::batch::RawRecords;
use crate::epoch::EpochNumber;
use crate::error::{Error, ErrorKind, Result};
use crate::wire::pgoutput::{InsertWriter, Lsn, truncate_message};
use crate::wire::pgtype::RelationShape;

/// Payload bytes in one piece.
const PIECE_BYTES: usize = 1 << 20;
/// Rows between two lines in the log.
const SAY_EVERY_ROWS: u64 = 1_000_000;

/// A snapshot and the place of the log that it shows. The connection must stay as it is: its next command ends it.
struct Exported {
    name: String,
    lsn: Lsn,
    _connection: Connection,
}

/// Reads the tables that `place` lacks, and brings it up to date.
pub(super) async fn read(job: &Job, place: &mut Place, out: &mpsc::Sender<Result<Item>>) -> Result<()> {
    let names: Vec<String> = job.captured.keys().filter(|table| !place.tables.contains_key(*table)).cloned().collect();
    if names.is_empty() {
        return Ok(());
    }
    let exported = export(job).await?;
    let doing = || format!("source {}: read the rows that are there", job.name);
    let mut connection = Connection::open(&job.settings, Purpose::Query).await?;
    begin(&mut connection, &exported).await.map_err(|trouble| trouble.error(doing()))?;
    let tables = catalog::tables(&mut connection, &names).await.map_err(|trouble| trouble.error(doing()))?;
    for name in &names {
        let captured = job.captured.get(name).map(|known| known.id);
        let Some(table) = tables.iter().find(|table| table.name == *name && Some(table.id) == captured) else {
            return Err(Error::new(ErrorKind::SourceRefused, doing())
                .because(format!("{name} has been dropped or made again since this process began"))
                .help("start the process again"));
        };
        let order = job.wanted.borrow().get(name).copied().unwrap_or(0);
        let mut reading = TableReading { job, table, order, lsn: exported.lsn, out, rows: 0, time_us: 0 };
        reading.run(&mut connection, place).await?;
    }
    Ok(())
}

async fn export(job: &Job) -> Result<Exported> {
    let doing = format!("source {}: export a snapshot", job.name);
    let (_, mut connection) = setup::same_server(&job.settings, &job.name, &job.server).await?;
    let name = identifier(&format!("dataflow_snapshot_{}", uuid::Uuid::new_v4().simple()));
    let sql = format!("CREATE_REPLICATION_SLOT {name} TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT");
    let rows = connection.long_query(&sql).await.map_err(|trouble| match trouble.code() {
        "53400" => {
            trouble.error(&doing).help("a snapshot needs a second slot for a while: raise max_replication_slots")
        }
        _ => trouble.error(&doing),
    })?;
    let row = rows.first().ok_or_else(|| Error::new(ErrorKind::SourceUnavailable, &doing))?;
    let lsn =
        row.text(1).parse().map_err(|error: String| Error::new(ErrorKind::SourceUnavailable, doing).because(error))?;
    Ok(Exported { name: row.text(2).to_owned(), lsn, _connection: connection })
}

async fn begin(connection: &mut Connection, exported: &Exported) -> Result<(), Trouble> {
    connection.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    connection.query(&format!("SET TRANSACTION SNAPSHOT {}", literal(&exported.name))).await?;
    Ok(())
}

/// One table being read.
struct TableReading<'a> {
    job: &'a Job,
    table: &'a CatalogTable,
    /// The newest order that this reading fulfils.
    order: EpochNumber,
    lsn: Lsn,
    out: &'a mpsc::Sender<Result<Item>>,
    rows: u64,
    time_us: i64,
}

impl TableReading<'_> {
    async fn run(&mut self, connection: &mut Connection, place: &mut Place) -> Result<()> {
        let doing = format!("source {}: read the rows of {}", self.job.name, self.table.name);
        let failed = |trouble: Trouble| trouble.error(&doing);
        tracing::info!(
            source = &*self.job.name,
            table = self.table.name,
            rows = self.table.estimate,
            "reading the rows that are there"
        );
        let now = connection.query("SELECT (extract(epoch FROM now()) * 1000000)::bigint").await.map_err(failed)?;
        self.time_us = now.first().and_then(|row| row.text(0).parse().ok()).unwrap_or(crate::batch::NO_TIME);
        let publication = &self.job.publication;
        let shape =
            catalog::published(connection, self.table, publication, self.job.server.version).await.map_err(failed)?;
        let mut records = RawRecords::default();
        super::worker::push_shape(&mut records, self.lsn, (0, 0), self.time_us, &shape);
        if place.again.contains(&self.table.name) {
            let truncate = truncate_message(&[self.table.id]);
            records.push_within(self.lsn.0, (0, 0), self.time_us, None, Some(&truncate));
        }
        // From here on some of its rows may be in the log.
        place.again.insert(self.table.name.clone());
        connection.copy_out(&self.copy_sql(&shape)).await.map_err(failed)?;
        let mut writer = InsertWriter::new(self.table.id);
        while let Some(line) = connection.copied().await.map_err(failed)? {
            self.row(&line, &mut writer, &mut records, shape.columns.len())?;
            if records.bytes() >= PIECE_BYTES {
                self.hand_out(std::mem::take(&mut records), place).await?;
            }
        }
        place.again.remove(&self.table.name);
        let taken = Taken { id: self.table.id, from: self.lsn, filled: self.table.filled, order: self.order };
        place.tables.insert(self.table.name.clone(), taken);
        self.hand_out(records, place).await?;
        tracing::info!(source = &*self.job.name, table = self.table.name, rows = self.rows, lsn = %self.lsn, "the rows that are there were read");
        Ok(())
    }

    fn copy_sql(&self, shape: &RelationShape) -> String {
        let columns: Vec<String> = shape.columns.iter().map(|column| identifier(&column.name)).collect();
        // Tables that inherit are tables of their own; partitions are not.
        let only = if self.table.partitioned { "" } else { "ONLY " };
        format!("COPY (SELECT {} FROM {only}{}) TO STDOUT", columns.join(", "), self.table.sql_name)
    }

    /// Takes a line of COPY's text form over into a message of the stream.
    fn row(&mut self, line: &Bytes, writer: &mut InsertWriter, records: &mut RawRecords, columns: usize) -> Result<()> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        writer.clear();
        if columns > 0 {
            for field in line.split(|byte| *byte == b'\t') {
                if field == b"\\N" {
                    writer.null();
                } else {
                    let at = writer.begin_text();
                    unescape(field, writer.value());
                    writer.end_text(at);
                }
            }
        }
        if writer.columns() != columns {
            return Err(Error::new(
                ErrorKind::Internal,
                format!(
                    "read {}: a row has {} values where {columns} were asked for",
                    self.table.name,
                    writer.columns()
                ),
            ));
        }
        self.rows += 1;
        let ordinal = u32::try_from(self.rows).unwrap_or(u32::MAX);
        records.push_within(self.lsn.0, (0, ordinal), self.time_us, None, Some(writer.finish()));
        if self.rows.is_multiple_of(SAY_EVERY_ROWS) {
            tracing::info!(
                source = &*self.job.name,
                table = self.table.name,
                rows = self.rows,
                of = self.table.estimate,
                "reading the rows that are there"
            );
        }
        Ok(())
    }

    async fn hand_out(&self, records: RawRecords, place: &Place) -> Result<()> {
        let _hit = crate::failpoint::hit("postgres.snapshot.piece");
        let piece = Piece { records, place: place.clone(), inside: false, behind: 0 };
        // A closed channel means that nobody wants the rest.
        self.out.send(Ok(Item::Piece(Box::new(piece)))).await.map_err(|_| super::worker::unwanted())
    }
}

/// Undoes the escapes of COPY's text form.
fn unescape(field: &[u8], out: &mut Vec<u8>) {
    let mut rest = field;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let (byte, taken) = match rest.get(at + 1) {
            Some(b'b') => (8, 2),
            Some(b'f') => (12, 2),
            Some(b'n') => (b'\n', 2),
            Some(b'r') => (b'\r', 2),
            Some(b't') => (b'\t', 2),
            Some(b'v') => (11, 2),
            Some(other) => (*other, 2),
            None => (b'\\', 1),
        };
        out.push(byte);
        rest = &rest[at + taken..];
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone() {
        let mut out = Vec::new();
        unescape(b"a\\tb\\nc\\\\d\\\\N\\b\\f\\r\\v", &mut out);
        assert_eq!(out, b"a\tb\nc\\d\\N\x08\x0c\r\x0b");
    }
}
