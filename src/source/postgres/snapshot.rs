//! The rows that are there at first: all tables as of one exact place of the log, several at once.
//!
//! A temporary slot gives both: the place where its stream would begin, and a snapshot that shows what was committed
//! before it and nothing else. Of the stream the changes of such a table count from that place on, so nothing is seen
//! twice and nothing is left out, however long reading takes.
//!
//! The snapshot dies with its connection. What it had not read of a table with a key is then read beside the stream (see
//! `stream/chunks.rs`), behind the key of the last row that is in the lake. A table without a key has no such place: it
//! is emptied and read again as a whole, under a snapshot of its own, and the stream waits for it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::{try_join, try_join_all};
use tokio::sync::mpsc;

use super::catalog;
use super::connection::{Connection, Purpose, Trouble, identifier, literal};
use super::lineage;
use super::place::{Place, Reading};
use super::rows::{At, Cursor, Part, Step, TableReader};
use super::worker::{Item, Job, Piece, unwanted};
use crate::batch::{NO_TIME, RawRecords};
use crate::error::{Error, ErrorKind, Result};
use crate::source::RowsRead;
use crate::wire::pgoutput::{Lsn, truncate_message};

/// Parts between those who read tables and whoever hands them out.
const PARTS: usize = 2;

/// A snapshot and the place of the log that it shows. The connection must stay as it is: its next command ends it.
struct Exported {
    name: String,
    lsn: Lsn,
    _connection: Connection,
}

/// Reads the tables that must be read under a snapshot, and brings `place` up to date.
pub(super) async fn read(job: &Arc<Job>, place: &mut Place, out: &mpsc::Sender<Result<Item>>) -> Result<()> {
    place.give_up_wholes();
    let names = wanted(job, place).await?;
    if names.is_empty() {
        return Ok(());
    }
    let exported = export(job, place).await?;
    let workers = names.len().min(job.snapshot.parallel.get() as usize);
    let queue = Mutex::new(VecDeque::from(names));
    let (give, mut parts) = mpsc::channel(PARTS);
    let again = place.again.clone();
    let reading = async {
        let worker = |give| read_tables(job, &exported, &queue, &again, give);
        try_join_all((0..workers).map(|_| worker(give.clone()))).await?;
        drop(give);
        Ok(())
    };
    let handing_out = async {
        while let Some(Part { table, records, step }) = parts.recv().await {
            place.take(&table, step);
            let _hit = crate::failpoint::hit("postgres.snapshot.piece");
            let piece = Piece { records, place: place.clone(), inside: false, behind: 0 };
            // A closed channel means that nobody wants the rest.
            out.send(Ok(Item::Piece(Box::new(piece)))).await.map_err(|_| unwanted())?;
        }
        Ok(())
    };
    try_join(reading, handing_out).await.map(|((), ())| ())
}

/// All tables at first, later those alone that have no key: the others are read beside the stream. Large ones come first,
/// so that none is left over when the others are read.
async fn wanted(job: &Job, place: &Place) -> Result<Vec<String>> {
    let missing = |name: &&String| !place.tables.contains_key(*name) && !place.reading.contains_key(*name);
    let names: Vec<String> = job.captured.keys().filter(missing).cloned().collect();
    if names.is_empty() {
        return Ok(names);
    }
    let failed = |trouble: Trouble| trouble.error(format!("source {}: look tables up", job.name));
    let mut connection = Connection::open(&job.settings, Purpose::Query).await?;
    let mut tables = catalog::tables(&mut connection, &names, job.shown_by()).await.map_err(failed)?;
    if place.tables.is_empty() && place.reading.is_empty() {
        tables.sort_by_key(|table| std::cmp::Reverse(table.estimate));
        // One that is not there any more is said where it is looked for.
        let found: Vec<String> = tables.into_iter().map(|table| table.name).collect();
        let gone = names.into_iter().filter(|name| !found.contains(name)).collect::<Vec<_>>();
        return Ok(gone.into_iter().chain(found.iter().cloned()).collect());
    }
    let mut whole = Vec::new();
    for name in names {
        let reader = TableReader::find(&mut connection, job, &name).await?;
        if reader.is_none_or(|reader| reader.order.is_empty()) {
            whole.push(name);
        }
    }
    Ok(whole)
}

async fn export(job: &Job, place: &Place) -> Result<Exported> {
    let doing = format!("source {}: export a snapshot", job.name);
    let mut connection = lineage::same_server(&job.settings, &job.name, &job.server, place).await?;
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

/// What the plan of a query in the order of a key must not do: sort the whole table for every part of it.
pub(super) const IN_ORDER: &str = "SET LOCAL enable_sort = off; SET LOCAL jit = off";

/// Begins to read under the snapshot; the server's time.
async fn begin(connection: &mut Connection, exported: &Exported) -> Result<i64, Trouble> {
    connection.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    connection.query(&format!("SET TRANSACTION SNAPSHOT {}", literal(&exported.name))).await?;
    connection.query(IN_ORDER).await?;
    let now = connection.query("SELECT (extract(epoch FROM now()) * 1000000)::bigint").await?;
    Ok(now.first().and_then(|row| row.text(0).parse().ok()).unwrap_or(NO_TIME))
}

/// Reads tables until there is none left.
async fn read_tables(
    job: &Job,
    exported: &Exported,
    queue: &Mutex<VecDeque<String>>,
    again: &std::collections::BTreeSet<String>,
    give: mpsc::Sender<Part>,
) -> Result<()> {
    let mut connection = Connection::open(&job.settings, Purpose::Query).await?;
    let doing = || format!("source {}: read the rows that are there", job.name);
    let time_us = begin(&mut connection, exported).await.map_err(|trouble| trouble.error(doing()))?;
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    while let Some(name) = next() {
        let reader = TableReader::find(&mut connection, job, &name).await?;
        let captured = job.captured.get(&name).map(|known| known.id);
        let Some(mut reader) = reader.filter(|reader| Some(reader.table.id) == captured) else {
            return Err(gone(&doing(), &name));
        };
        let at = At { lsn: exported.lsn, time_us };
        read_table(job, &mut reader, &mut connection, at, again.contains(&name), &give).await?;
    }
    Ok(())
}

/// A table that is not what it was when the process began.
pub(super) fn gone(doing: &str, name: &str) -> Error {
    Error::new(ErrorKind::SourceUnavailable, doing)
        .because(format!("{name} has been dropped or made again since it was looked at"))
}

async fn read_table(
    job: &Job,
    reader: &mut TableReader,
    connection: &mut Connection,
    at: At,
    again: bool,
    give: &mpsc::Sender<Part>,
) -> Result<()> {
    let doing = format!("source {}: estimate the rows of {}", job.name, reader.table.name);
    let of = reader.measure(connection).await.map_err(|trouble| trouble.error(doing))?;
    let reader = &*reader;
    let name = &reader.table.name;
    let keyed = !reader.order.is_empty();
    tracing::info!(source = &*job.name, table = name, rows = of, "reading the rows that are there");
    let send =
        async |records, step| give.send(Part { table: name.clone(), records, step }).await.map_err(|_| unwanted());
    let mut records = reader.describe(at);
    if again && !keyed {
        // Its rows cannot be told from those that an earlier reading has left.
        records.push_within(at.lsn.0, (0, 0), at.time_us, None, Some(&truncate_message(&[reader.table.id])));
    }
    let reading = Reading {
        id: reader.table.id,
        from: at.lsn,
        state: reader.table.state.clone(),
        order: job.wanted.borrow().get(name).copied().unwrap_or(0),
        after: Vec::new(),
        key: reader.key(),
        shape: reader.hash(),
        progress: RowsRead { rows: 0, of, again },
        floor: (again && keyed).then_some(at.lsn),
        moved: std::collections::BTreeSet::new(),
        ended: None,
    };
    send(records, Step::Begin(Box::new(reading))).await?;
    let mut cursor = Cursor::new(Vec::new(), 0, of);
    loop {
        let rows = cursor.next_rows(job);
        let select = if keyed { reader.next_part(&cursor.after, rows) } else { reader.all() };
        let read = reader.copy(connection, job, &select, at, &mut cursor, give).await?;
        if !keyed || read < rows {
            break;
        }
    }
    let mut records = RawRecords::default();
    if again && keyed {
        push_floor(&mut records, at.lsn, at.time_us, reader.table.id);
    }
    send(records, Step::End).await?;
    tracing::info!(source = &*job.name, table = name, rows = cursor.rows, lsn = %at.lsn, "the rows that are there were read");
    Ok(())
}

/// What is older than `floor` goes: it was not there to be read again.
pub(super) fn push_floor(records: &mut RawRecords, floor: Lsn, time_us: i64, table: u32) {
    records.push_within(floor.0, (0, 0), time_us, None, Some(&truncate_message(&[table])));
}
