//! Rows that are read while the stream goes on: of tables that join, that are ordered to be read again, or whose first
//! reading was broken off. No lock, no second slot.
//!
//! ```text
//! stream   … B C ┆ B C B C B C ┆ B C …         between two transactions the stream waits while a part is read
//! rows           └ part 1      └ part 2        in the order of the key, behind the key of the last row
//! ```
//!
//! # Why it ends equal to the source
//!
//! A part is read at a place P of the stream, by a snapshot S that shows everything which the stream has brought so far
//! (`visible.rs`), and perhaps more: the stream may be behind. Its rows are handed out at P and have the order (P, 0, n).
//! So what came before is older than they are, what comes after is newer, and the lake has them in that order.
//!
//! * *Before P:* a row of the part replaces whatever there was; a partial change whose row was not there yet is healed.
//! * *Between P and S:* these changes come again over rows that show them already. The last one of every key decides, and
//!   it is what S shows; until it has come, a row may show columns of its own future. A delete finds nothing, an insert
//!   and a whole update bring everything, a partial update takes from the row of S what it does not bring, and if that
//!   was changed later, then by a later change. A key that is given up leaves, and one that is taken comes.
//! * *A partial move* (another key, large values not sent) may find no row to stand on: neither under its old key, whose
//!   part comes later or was read when the row had left it, nor under its new one, whose part was read before. Such keys
//!   are written down in the place and read once more at the end, until no more come.
//! * *What is missing at the source:* rows that were there before and were neither read nor changed since are older than
//!   the first part. A truncate with the order of that place takes them away at the end; nobody ever sees less.
//! * *A crash:* the place has the key of the last row that was handed out before it. Rows do not move along their key, so
//!   the rest is what comes behind it, whatever the snapshot. (Places on disk would not do: an updated row goes to
//!   another page, where no part might see it, and its change may be partial.)
//! * *DDL:* rows are read once the stream has passed what was written before their columns were looked up, so that no
//!   change with other columns can follow them. When a part finds other columns, everything is read again.
//!
//! It is over when the stream has passed everything that the last part can have seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::try_join_all;
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant};

use super::super::connection::{Connection, Purpose, Trouble};
use super::super::place::Reading;
use super::super::rows::{At, Cursor, Part, TableReader};
use super::super::snapshot::{self, IN_ORDER};
use super::super::visible::{Brought, Seen};
use super::super::worker::{Item, Job, Piece, push_shape};
use super::super::{catalog, worker};
use super::Stream;
use crate::batch::{NO_TIME, RawRecords};
use crate::epoch::EpochNumber;
use crate::error::{Error, Result};
use crate::source::RowsRead;
use crate::wire::pgoutput::{Datum, Lsn, Tuple};

/// Parts between those who read tables and whoever hands them out.
const PARTS: usize = 2;
/// Keys that are remembered to be read once more; beyond it the whole table is.
const MOVED_LIMIT: usize = 10_000;
/// How long a part waits for a lock that somebody holds against readers.
const LOCK_WAIT: &str = "SET lock_timeout = '1s'";
/// How long until something is tried again that could not be had.
const TRY_AGAIN: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// How long transactions that cannot be seen yet are waited for without a word.
const SAY_HIDDEN: Duration = Duration::from_secs(10);

/// A table that is being read.
struct Side {
    connection: Connection,
    reader: TableReader,
    cursor: Cursor,
    /// The next part is read when the stream has come so far.
    not_before: Lsn,
    /// And not before then.
    rest_until: Instant,
    /// Since when a transaction that the stream has brought cannot be seen.
    hidden_since: Option<Instant>,
    /// The server's time at the last part.
    time_us: i64,
}

/// What is read beside the stream.
#[derive(Default)]
pub(super) struct Beside {
    sides: BTreeMap<String, Side>,
    brought: Arc<Mutex<Brought>>,
}

impl Beside {
    /// Begins where the stream begins.
    pub async fn begin(connection: &mut Connection, job: &Job) -> Result<Self> {
        let failed = |trouble: Trouble| trouble.error(format!("source {}: look at what runs", job.name));
        // Transactions that began before this one are below the snapshot's end, or among those that run.
        catalog::advance_log(connection).await.map_err(failed)?;
        let seen = seen(connection).await.map_err(failed)?;
        Ok(Self { sides: BTreeMap::new(), brought: Arc::new(Mutex::new(Brought::begin(seen))) })
    }

    /// The stream has brought a transaction.
    pub fn note(&mut self, xid: u32) {
        self.brought.lock().unwrap_or_else(PoisonError::into_inner).note(xid);
    }
}

pub(super) async fn seen(connection: &mut Connection) -> Result<Seen, Trouble> {
    let rows = connection.query("SELECT pg_current_snapshot()").await?;
    let seen = rows.first().and_then(|row| Seen::parse(row.text(0)));
    seen.ok_or_else(|| Trouble::Broken(std::io::Error::other("the server does not say which transactions run")))
}

/// What came of a turn.
enum Turn {
    /// Rows were read; nothing that they show stands behind `seen`, and the log was on disk up to `on_disk`. Whether they
    /// were the last ones.
    Read { seen: Lsn, on_disk: Lsn, last: bool },
    /// The table has other columns now.
    Changed,
    /// Not now.
    Later(Instant),
}

impl Stream {
    /// Begins to read what is missing, and what was ordered.
    pub(super) async fn begin_readings(&mut self) -> Result<()> {
        let (wanted, place) = (self.wanted.borrow_and_update().clone(), &self.place);
        let missing = self.job.captured.keys().filter(|name| !place.tables.contains_key(*name));
        let missing = missing.filter(|name| !place.reading.contains_key(*name)).cloned();
        let names: Vec<String> = missing.chain(place.ordered(&wanted)).collect();
        for name in names {
            let order = wanted.get(&name).copied().unwrap_or(0);
            self.begin_reading(&name, order).await?;
        }
        Ok(())
    }

    /// Begins to read a table, beside the stream if it has a key.
    pub(super) async fn begin_reading(&mut self, name: &str, order: EpochNumber) -> Result<()> {
        let doing = format!("source {}: look up {name}", self.job.name);
        let reader = TableReader::find(&mut self.side, &self.job, name).await?;
        let captured = self.job.captured.get(name).map(|known| known.id);
        let Some(reader) = reader.filter(|reader| Some(reader.table.id) == captured) else {
            return Err(snapshot::gone(&doing, name));
        };
        self.beside.sides.remove(name);
        self.emptied.remove(name);
        if reader.order.is_empty() {
            self.place.forget(name);
            self.must_read = true;
            return Ok(());
        }
        let (table, place) = (&reader.table, &mut self.place);
        let again = place.tables.contains_key(name) | place.reading.contains_key(name) | place.again.remove(name);
        let reading = Reading {
            id: table.id,
            from: place.counted_from(name, table.id).unwrap_or(place.lsn),
            state: table.state.clone(),
            order,
            after: Vec::new(),
            key: reader.key(),
            shape: 0,
            progress: RowsRead { rows: 0, of: table.estimate.unwrap_or(0), again },
            floor: None,
            moved: BTreeSet::new(),
            ended: None,
        };
        tracing::info!(
            source = &*self.job.name,
            table = name,
            rows = table.estimate,
            again,
            "reading the rows that are there, beside the changes"
        );
        place.reading.insert(name.to_owned(), reading);
        Ok(())
    }

    /// The tables whose turn it is.
    fn due(&self) -> Vec<String> {
        let now = Instant::now();
        let due = |(name, reading): &(&String, &Reading)| match self.beside.sides.get(*name) {
            None => true,
            Some(side) => {
                let wait = side.not_before.max(reading.from).max(reading.ended.unwrap_or_default());
                self.place.lsn >= wait && now >= side.rest_until
            }
        };
        let due = self.place.reading.iter().filter(due).map(|(name, _)| name.clone());
        due.take(self.job.snapshot.parallel.get() as usize).collect()
    }

    /// Gives the tables that are being read their turn, between two transactions.
    pub(super) async fn read_beside(&mut self) -> Result<()> {
        if self.place.reading.is_empty() || self.open.is_some() {
            return Ok(());
        }
        let due = self.due();
        if due.is_empty() {
            return Ok(());
        }
        if !self.records.is_empty() {
            self.hand_out().await?;
        }
        let mut reading = Vec::new();
        for name in due {
            let over = self.place.reading.get(&name).is_some_and(|r| r.ended.is_some() && r.moved.is_empty());
            match self.beside.sides.remove(&name) {
                Some(side) if over => self.end_reading(&name, &side).await?,
                Some(side) => reading.push((name, side)),
                None => self.open_side(&name).await?,
            }
        }
        if !reading.is_empty() {
            self.read_parts(reading).await?;
        }
        // What comes next depends on how far the server says that it is.
        self.tell().await
    }

    async fn open_side(&mut self, name: &str) -> Result<()> {
        let doing = format!("source {}: look up {name}", self.job.name);
        let failed = |trouble: Trouble| trouble.error(&doing);
        let mut connection = Connection::open(&self.job.settings, Purpose::Query).await?;
        connection.query(LOCK_WAIT).await.map_err(failed)?;
        let found = TableReader::find(&mut connection, &self.job, name).await?;
        let Some(reading) = self.place.reading.get_mut(name) else { return Ok(()) };
        let Some(mut reader) = found.filter(|reader| reader.table.id == reading.id) else {
            return Err(snapshot::gone(&doing, name));
        };
        if reader.order.is_empty() {
            self.place.forget(name);
            self.must_read = true;
            return Ok(());
        }
        if reading.shape != reader.hash() || reading.key != reader.key() {
            reading.restart();
            (reading.shape, reading.key) = (reader.hash(), reader.key());
            reading.state = reader.table.state.clone();
        }
        // What is read from now on has a later place than whatever has been handed out.
        catalog::advance_log(&mut connection).await.map_err(failed)?;
        let not_before = catalog::log_written(&mut connection).await.map_err(failed)?;
        reading.progress.of = reader.measure(&mut connection).await.map_err(failed)?;
        let cursor = Cursor::new(reading.after.clone(), reading.progress.rows, reading.progress.of);
        let (rest_until, hidden_since, time_us) = (Instant::now(), None, NO_TIME);
        let side = Side { connection, reader, cursor, not_before, rest_until, hidden_since, time_us };
        self.beside.sides.insert(name.to_owned(), side);
        Ok(())
    }

    /// Reads the next part of each table, at the same place of the stream.
    async fn read_parts(&mut self, mut tables: Vec<(String, Side)>) -> Result<()> {
        let _hit = crate::failpoint::hit("postgres.chunk.before");
        for (name, side) in &mut tables {
            let Some(reading) = self.place.reading.get_mut(name) else { continue };
            if reading.progress.again && reading.after.is_empty() {
                reading.floor.get_or_insert(self.place.lsn);
            }
            side.cursor.after.clone_from(&reading.after);
        }
        let (give, mut parts) = mpsc::channel(PARTS);
        let (job, lsn, readings) = (Arc::clone(&self.job), self.place.lsn, self.place.reading.clone());
        let brought = Arc::clone(&self.beside.brought);
        let reading = async move {
            let (job, readings, brought, give) = (&*job, &readings, &*brought, give);
            let turn = |(name, mut side): (String, Side)| {
                let give = &give;
                async move {
                    let turn = side.turn(job, readings.get(&name), lsn, brought, give).await?;
                    Ok::<_, Error>((name, side, turn))
                }
            };
            try_join_all(tables.into_iter().map(turn)).await
        };
        tokio::pin!(reading);
        let mut turns = Vec::new();
        loop {
            tokio::select! {
                done = &mut reading, if turns.is_empty() => turns = done?,
                part = parts.recv() => match part {
                    Some(Part { table, records, step }) => {
                        self.place.take(&table, step);
                        self.send_rows(records).await?;
                    }
                    None => break,
                },
                _ = self.tick.tick() => self.tell().await?,
                changed = self.confirmed.changed() => {
                    changed.map_err(|_| worker::unwanted())?;
                    self.tell().await?;
                }
            }
        }
        let _hit = crate::failpoint::hit("postgres.chunk.after");
        for (name, side, turn) in turns {
            self.after_turn(name, side, turn);
        }
        Ok(())
    }

    fn after_turn(&mut self, name: String, mut side: Side, turn: Turn) {
        let Some(reading) = self.place.reading.get_mut(&name) else { return };
        match turn {
            Turn::Read { on_disk, .. } if reading.ended.is_none() && !turn.is_last() => side.not_before = on_disk,
            Turn::Read { seen, .. } => {
                if reading.ended.replace(seen).is_some() {
                    // That was what had moved.
                    reading.moved.clear();
                }
            }
            Turn::Changed => {
                let source = &*self.job.name;
                tracing::info!(source, table = name, "its columns have changed: its rows are read from the first on");
                reading.restart();
                return;
            }
            Turn::Later(at) => side.rest_until = at,
        }
        self.recall_shape(&name, &side.reader);
        self.beside.sides.insert(name, side);
    }

    /// The stream goes on with the columns that it has announced.
    fn recall_shape(&mut self, name: &str, reader: &TableReader) {
        let shapes = self.relations.values().filter_map(|known| known.shape.as_ref());
        let Some(announced) = shapes.into_iter().find(|shape| shape.name == name && **shape != reader.shape) else {
            return;
        };
        push_shape(&mut self.records, self.place.lsn, (0, u32::MAX), NO_TIME, announced);
    }

    async fn send_rows(&mut self, records: RawRecords) -> Result<()> {
        let behind = self.end.0.saturating_sub(self.place.lsn.0);
        let piece = Piece { records, place: self.place.clone(), inside: self.place.within.is_some(), behind };
        self.handed = self.place.clone();
        self.handed_at = Instant::now();
        self.send(Item::Piece(Box::new(piece))).await
    }

    /// All rows are there, and the stream has passed what they show.
    async fn end_reading(&mut self, name: &str, side: &Side) -> Result<()> {
        let Some(reading) = self.place.reading.get(name) else { return Ok(()) };
        let mut records = RawRecords::default();
        if let Some(floor) = reading.floor {
            // The decoder may have been begun since.
            records = side.reader.describe(At { lsn: floor, time_us: side.time_us });
            snapshot::push_floor(&mut records, floor, side.time_us, reading.id);
        }
        tracing::info!(
            source = &*self.job.name,
            table = name,
            rows = reading.progress.rows,
            lsn = %self.place.lsn,
            "the rows that are there were read"
        );
        self.place.finish(name);
        self.send_rows(records).await?;
        self.recall_shape(name, &side.reader);
        Ok(())
    }

    /// When a table is due without anything having come.
    pub(super) fn next_turn(&self) -> Option<Instant> {
        let now = Instant::now();
        self.beside.sides.values().map(|side| side.rest_until).filter(|at| *at > now).min()
    }

    /// A row has got another key, and perhaps not everything of it was sent.
    pub(super) fn note_move(&mut self, relation: u32, new: Tuple<'_>) {
        if self.place.reading.is_empty() || !new.iter().any(|datum| datum == Datum::Unchanged) {
            return;
        }
        let Some(shape) = self.relations.get(&relation).and_then(|known| known.shape.as_ref()) else { return };
        let Some(reading) = self.place.reading.get_mut(&shape.name) else { return };
        let part = |name: &String| {
            let at = shape.columns.iter().position(|column| column.name == *name)?;
            match new.iter().nth(at)? {
                Datum::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
                _ => None,
            }
        };
        match reading.key.iter().map(part).collect::<Option<Vec<String>>>() {
            Some(key) if reading.moved.len() < MOVED_LIMIT => {
                reading.moved.insert(key);
            }
            _ => reading.restart(),
        }
    }
}

impl Turn {
    fn is_last(&self) -> bool {
        matches!(self, Self::Read { last: true, .. })
    }
}

impl Side {
    /// Reads the next part, or the rows that are to be read once more.
    async fn turn(
        &mut self,
        job: &Job,
        reading: Option<&Reading>,
        lsn: Lsn,
        brought: &Mutex<Brought>,
        give: &mpsc::Sender<Part>,
    ) -> Result<Turn> {
        let name = self.reader.table.name.clone();
        let doing = format!("source {}: read the rows of {name}", job.name);
        let failed = |trouble: Trouble| trouble.error(&doing);
        let Some(reading) = reading else { return Ok(Turn::Later(Instant::now() + TRY_AGAIN)) };
        if let Some(later) = self.begin(job, brought, &doing).await? {
            self.connection.query("ROLLBACK").await.map_err(failed)?;
            return Ok(Turn::Later(later));
        }
        let found = TableReader::find(&mut self.connection, job, &name).await?;
        let found = found.filter(|found| found.table.id == reading.id).ok_or_else(|| snapshot::gone(&doing, &name))?;
        if found.hash() != reading.shape {
            return Ok(Turn::Changed);
        }
        let rows = self.cursor.next_rows(job);
        let select = match reading.ended {
            None => self.reader.next_part(&reading.after, rows),
            Some(_) => self.reader.of_keys(reading.moved.iter()),
        };
        let at = At { lsn, time_us: self.time_us };
        let read = self.reader.copy(&mut self.connection, job, &select, at, &mut self.cursor, give).await?;
        self.connection.query("COMMIT").await.map_err(failed)?;
        let on_disk = catalog::log_end(&mut self.connection).await.map_err(failed)?;
        let seen = catalog::log_written(&mut self.connection).await.map_err(failed)?;
        Ok(Turn::Read { seen, on_disk, last: read < rows })
    }

    /// Begins a transaction that sees everything which the stream has brought, and the columns as they stay; or says when
    /// to try again.
    async fn begin(&mut self, job: &Job, brought: &Mutex<Brought>, doing: &str) -> Result<Option<Instant>> {
        let failed = |trouble: Trouble| trouble.error(doing);
        let table = &self.reader.table;
        let only = if table.partitioned { "" } else { "ONLY " };
        self.connection.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(failed)?;
        let lock = format!("LOCK TABLE {only}{} IN ACCESS SHARE MODE", table.sql_name);
        match self.connection.query(&lock).await {
            Ok(_) => {}
            Err(trouble) if trouble.code() == "55P03" => return Ok(Some(Instant::now() + TRY_AGAIN)),
            Err(trouble) if trouble.code() == "42P01" => return Err(snapshot::gone(doing, &table.name)),
            Err(trouble) => return Err(failed(trouble)),
        }
        let seen = seen(&mut self.connection).await.map_err(failed)?;
        let hidden = brought.lock().unwrap_or_else(PoisonError::into_inner).hidden_from(&seen);
        if let Some(xid) = hidden {
            return Ok(Some(self.wait_for(job, xid)));
        }
        self.hidden_since = None;
        self.connection.query(IN_ORDER).await.map_err(failed)?;
        let sql = "SELECT (extract(epoch FROM now()) * 1000000)::bigint";
        let now = self.connection.query(sql).await.map_err(failed)?;
        self.time_us = now.first().and_then(|row| row.text(0).parse().ok()).unwrap_or(NO_TIME);
        Ok(None)
    }

    /// A transaction that may have been brought is not to be seen yet: its commit waits, or it still runs.
    fn wait_for(&mut self, job: &Job, xid: u64) -> Instant {
        let since = *self.hidden_since.get_or_insert_with(Instant::now);
        if since.elapsed() < SAY_HIDDEN {
            return Instant::now() + LOOK_AGAIN;
        }
        self.hidden_since = Some(Instant::now());
        tracing::warn!(
            source = &*job.name,
            table = self.reader.table.name,
            "rows cannot be read before transaction {xid} has ended, which ran when the stream began (pg_stat_activity, \
             pg_prepared_xacts)"
        );
        Instant::now() + TRY_AGAIN
    }
}
