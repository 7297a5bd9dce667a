//! The stream: transactions in the order of the binary log, and between two of them the rows that are there already.
//!
//! ```text
//! server ──GTID (TABLE_MAP ROWS…)… XID──▶ pieces of about 1 MiB ──▶ ingest ──▶ lake log
//! ```
//!
//! * A place is always behind a whole transaction or at a file's beginning. Inside a transaction that is larger than an
//!   epoch may be, it also has the number of rows of each table that were handed out: the transaction is read again from
//!   its beginning, and so many of them are passed over.
//! * The server need not be answered: nothing is released to it, its binary logs go when they are old enough.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::catalog::CatalogTable;
use super::connection::{Connection, Trouble};
use super::dump::{self, Begin, Dump};
use super::errant;
use super::gtids::{Gtids, Transaction};
use super::place::{Last, Place, Within, file_number};
use super::refusal::{Reason, reason};
use super::schema::Schema;
use super::setup::{self, Flavour};
use super::snapshot::Rounds;
use super::tables::Known;
use super::tick::Waiting;
use super::worker::{Item, Job, Piece, unwanted};
use crate::batch::RawRecords;
use crate::epoch::EpochNumber;
use crate::error::{Error, ErrorKind, Result};
use crate::wire::binlog::{Body, Event, EventReader, Malformed, Payload};

/// Payload bytes in one piece.
pub(super) const PIECE_BYTES: usize = 1 << 20;
/// With so many more it ends inside a transaction.
const TO_COMMIT_BYTES: usize = PIECE_BYTES / 4;
/// How long records wait for more before they are handed out.
const LINGER: Duration = Duration::from_millis(20);
const TICK: Duration = Duration::from_secs(1);
const NEVER: Duration = Duration::from_secs(86_400);
/// Events in one turn, when so many are there: the clock, orders and rows to be read have theirs as well.
const TURN_EVENTS: usize = 1_000;

/// The transaction that is being read.
#[derive(Default)]
pub(super) struct Open {
    /// Where it begins.
    pub begins: u64,
    pub time_us: i64,
    gtid: Option<Transaction>,
    /// It is one statement long and has no commit.
    standalone: bool,
    /// Whether it has begun to change rows.
    pub begun: bool,
    /// It was read before: it only shows that the log is the one that was read.
    pub known: bool,
    /// The event that was read last, and the number of records of it.
    pub last: (u64, u32),
    /// Rows of each table, and how many of them were handed out before.
    pub rows: BTreeMap<String, u64>,
    pub before: BTreeMap<String, u64>,
    /// Whether records of it have been pushed.
    pub pushed: bool,
}

/// The stream of one connection.
pub(super) struct Stream {
    pub job: Job,
    dump: Dump,
    reader: Option<EventReader>,
    /// For the catalog and the server's state.
    pub side: Connection,
    pub place: Place,
    /// The place that was handed out last.
    pub handed: Place,
    /// Whether nothing may be cut there.
    handed_inside: bool,
    pub handed_at: Instant,
    pub out: mpsc::Sender<Result<Item>>,
    pub tables: HashMap<u64, Known>,
    pub catalog: BTreeMap<String, CatalogTable>,
    pub records: RawRecords,
    pub open: Option<Open>,
    pub gtids: Gtids,
    /// The transaction that must come first, when one must.
    pub verify: Option<Last>,
    /// Whether the log has shown that transactions begin where ours ended.
    fits: bool,
    /// Where the event that was read last ends.
    pub file: String,
    pub pos: u64,
    /// Everything before this has been read, in the order of [`Place::order`].
    pub seen: (u64, u64),
    /// Everything before this was there when we began to look.
    pub target: (u64, u64),
    /// Rows that were read by query may show what was committed before this.
    pub settled: (u64, u64),
    /// Where the server's log ends, as far as it was said.
    pub end: (u64, u64),
    tick: Interval,
    said_end: bool,
    pub looked: Instant,
    pub waiting: Waiting,
    wanted: watch::Receiver<BTreeMap<String, EpochNumber>>,
    pub rounds: Rounds,
    /// What the catalog said, and how the server's statements are read.
    pub schema: Schema,
}

impl Stream {
    /// Begins to stream from `place` on.
    pub async fn open(job: Job, mut place: Place, out: mpsc::Sender<Result<Item>>) -> Result<Self> {
        let mut side = Connection::open(&job.settings).await?;
        if job.server.flavour == Flavour::MySql {
            // It would tell about how many rows a table has as it was a day ago.
            let fresh = side.run("SET SESSION information_schema_stats_expiry = 0").await;
            fresh.map_err(|trouble| trouble.error(format!("source {}: set up a connection", job.name)))?;
        }
        let end = setup::end(&mut side, &job.server).await?;
        let gtids = Gtids::parse(job.server.flavour, place.gtids.as_deref())?;
        errant::refuse(&mut side, &job, &mut place).await?;
        let schema = Schema::begin(&mut side, &job, &mut place).await?;
        let verify = match &place.last {
            Some(last) if place.pos > 0 => Some(last.clone()),
            _ => None,
        };
        let at = match &verify {
            Some(last) => Some((last.file.as_str(), last.pos)),
            None if place.pos > 0 => Some((place.file.as_str(), place.pos)),
            None => None,
        };
        let dump = Dump::open(&job.settings, &job.server, &job.us, &Begin { place: &place, at }).await?;
        tracing::info!(source = &*job.name, behind = place.shown(), "reading the binary log");
        let (file, pos) = at.map_or_else(Default::default, |(file, pos)| (file.to_owned(), pos));
        // Without a clock a test sees what waits for it.
        let clock = crate::failpoint::hit("mysql.stream.clock").map_or(TICK, |_| NEVER);
        let mut tick = interval(clock);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (now, target) = (Instant::now(), end.order());
        let wanted = job.wanted.clone();
        place.begin_anew();
        place.obey(&wanted.borrow());
        Ok(Self {
            rounds: Rounds::default(),
            schema,
            dump,
            reader: None,
            side,
            handed: place.clone(),
            handed_inside: false,
            handed_at: now,
            out,
            tables: HashMap::new(),
            catalog: BTreeMap::new(),
            records: RawRecords::default(),
            open: None,
            gtids,
            verify,
            fits: false,
            file,
            pos,
            seen: (0, 0),
            target,
            settled: (0, 0),
            end: target,
            tick,
            said_end: false,
            looked: now,
            waiting: Waiting::default(),
            wanted,
            place,
            job,
        })
    }

    pub fn doing(&self) -> String {
        format!("source {}: read the binary log at {}:{}", self.job.name, self.file, self.pos)
    }

    /// Streams until something breaks or nobody listens any more.
    pub async fn run(mut self) -> Result<()> {
        let mut linger: Option<Instant> = None;
        loop {
            let handing_out = async {
                match linger {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = self.dump.next() => {
                    let event = event.map_err(|trouble| self.broken(trouble))?;
                    self.take(event).await?;
                    self.take_buffered().await?;
                }
                // A quiet server would wake nobody between two chunks.
                () = std::future::ready(()), if self.may_read() && self.must_read() => {}
                () = handing_out => self.hand_out().await?,
                _ = self.tick.tick() => self.on_tick().await?,
                changed = self.wanted.changed() => {
                    changed.map_err(|_| unwanted())?;
                    self.place.obey(&self.wanted.borrow_and_update());
                }
            }
            if self.may_read() && self.must_read() {
                self.hand_out().await?;
                self.round().await?;
                self.dump.listen();
            }
            linger = if self.records.is_empty() { None } else { linger.or_else(|| Some(Instant::now() + LINGER)) };
        }
    }

    /// Takes what has come already. A log that is written as quickly as it is read has no end, and what the network brings
    /// seldom ends with a transaction: rows are read where they may be, and not where nothing more has come.
    async fn take_buffered(&mut self) -> Result<()> {
        let must_read = self.must_read();
        for _ in 0..TURN_EVENTS {
            if must_read && self.may_read() {
                break;
            }
            let Some(event) = self.dump.buffered() else { break };
            let event = event.map_err(|trouble| self.broken(trouble))?;
            self.take(event).await?;
        }
        Ok(())
    }

    /// Whether this is a place at which rows may be read.
    fn may_read(&self) -> bool {
        self.is_settled() && self.verify.is_none()
    }

    /// Whether a cut here shows neither half a transaction nor rows that are newer than the others.
    fn is_settled(&self) -> bool {
        self.open.is_none() && self.seen > (0, 0) && self.seen >= self.settled
    }

    /// Whether rows of a table are still to be read.
    pub fn must_read(&self) -> bool {
        self.job.captured.iter().any(|table| self.is_unread(table))
    }

    /// Whether rows of that table are still to be read, and can be.
    pub fn is_unread(&self, table: &str) -> bool {
        !self.place.is_whole(table) && self.rounds.is_there(table)
    }

    /// Whether reading the rows of that table has begun: then its events count.
    pub fn counts(&self, table: &str) -> bool {
        self.place.tables.contains_key(table)
    }

    fn broken(&self, trouble: Trouble) -> Error {
        let source = &self.job.name;
        match &trouble {
            // MariaDB has a number of its own for a clash.
            Trouble::Refused { code: 1236 | 4052, message } => match reason(message) {
                Reason::Clash => setup::clashes(source, self.job.us.server_id).because(message.clone()),
                Reason::PutBack => setup::put_back(source, &self.place, message),
                Reason::Gone => setup::lost(source, &self.place, message),
                Reason::Other if !self.fits => setup::put_back(source, &self.place, message),
                Reason::Other => Error::new(ErrorKind::SourceRefused, self.doing()).because(message.clone()),
            },
            _ => setup::explain(trouble, Some(&self.job.server), self.doing()),
        }
    }

    pub fn malformed(&self, malformed: &Malformed) -> Error {
        if !self.fits {
            let why = format!("no event begins there: {malformed}");
            return setup::put_back(&self.job.name, &self.place, &why);
        }
        Error::new(ErrorKind::SourceRefused, self.doing()).because(malformed.clone())
    }

    /// One event as it came.
    async fn take(&mut self, bytes: Vec<u8>) -> Result<()> {
        let mut reader = self.reader.take().unwrap_or_else(|| dump::reader(&bytes));
        let event = reader.read(&bytes).map_err(|malformed| self.malformed(&malformed))?;
        let begins = self.advance(&event);
        match event.body {
            Body::Payload(payload) => {
                self.dump.pass_over(&payload);
                self.payload(&reader, &payload, begins).await?;
            }
            _ => self.event(event, begins).await?,
        }
        self.reader = Some(reader);
        self.records.note_log_bytes(bytes.len() as u64);
        self.dump.give_back(bytes);
        self.seen = self.seen.max((file_number(&self.file), self.pos));
        self.end = self.end.max(self.seen);
        if self.is_piece() {
            self.hand_out().await?;
        }
        self.reached_end().await
    }

    /// Whether what there is makes a piece. The end of a transaction of which a piece was handed out is one however small:
    /// an epoch can end there, and not before.
    fn is_piece(&self) -> bool {
        match self.open {
            Some(_) => self.records.bytes() >= PIECE_BYTES + TO_COMMIT_BYTES,
            None => {
                self.records.bytes() >= PIECE_BYTES || (self.handed.within.is_some() && self.place.within.is_none())
            }
        }
    }

    /// Moves to the end of the event; where it begins.
    fn advance(&mut self, event: &Event<'_>) -> u64 {
        let header = &event.header;
        let made_up = header.is_artificial() || matches!(event.body, Body::Heartbeat(_) | Body::Rotate { .. });
        let size = u64::from(header.size);
        if header.log_pos != 0 && !made_up {
            // Positions are sent modulo 2³².
            let mut end = (self.pos & !u64::from(u32::MAX)) | u64::from(header.log_pos);
            if end < self.pos {
                end += 1 << 32;
            }
            self.pos = end;
        } else if self.open.is_some() && !made_up {
            self.pos += size;
        }
        self.pos.saturating_sub(size)
    }

    /// The events of a compressed transaction, all of which stand at its place.
    async fn payload(&mut self, reader: &EventReader, payload: &Payload<'_>, begins: u64) -> Result<()> {
        let mut events = payload.events().map_err(|malformed| self.malformed(&malformed))?;
        while let Some(bytes) = events.next_event().map_err(|malformed| self.malformed(&malformed))? {
            let event = reader.read_inner(bytes).map_err(|malformed| self.malformed(&malformed))?;
            self.event(event, begins).await?;
            if self.is_piece() {
                self.hand_out().await?;
            }
        }
        Ok(())
    }

    async fn event(&mut self, event: Event<'_>, begins: u64) -> Result<()> {
        let header = event.header;
        match event.body {
            Body::Rotate { position, file } => self.rotate(file, position, header.is_artificial())?,
            Body::FormatDescription(_) => self.refuse_broken_off()?,
            Body::Gtid(gtid) => {
                let time_us = gtid.commit_us.unwrap_or_else(|| micros(header.timestamp));
                self.begin(begins, time_us, Some(Transaction::MySql(gtid)), false)?;
            }
            Body::Anonymous { commit_us } => {
                self.begin(begins, commit_us.unwrap_or_else(|| micros(header.timestamp)), None, false)?;
            }
            Body::MariaGtid { gtid, standalone, .. } => {
                self.begin(begins, micros(header.timestamp), Some(Transaction::MariaDb(gtid)), standalone)?;
            }
            Body::Query(query) => self.query(&query, header.flags, begins).await?,
            Body::Xid(_) => self.commit()?,
            Body::TableMap(map) => self.table_map(&map).await?,
            Body::Rows(rows) => self.rows(&rows, begins)?,
            Body::Heartbeat(beat) => {
                if !beat.file.is_empty() {
                    self.seen = self.seen.max((file_number(beat.file), beat.position));
                }
            }
            Body::XaPrepare(xa) => {
                if !xa.one_phase {
                    return Err(self.refused_statement("XA PREPARE"));
                }
                self.commit()?;
            }
            Body::Incident { code, message } => return Err(self.incident(code, &message)),
            // Read where compressed transactions are taken apart; one inside another is refused by the reader.
            Body::Payload(_) => {}
            Body::PreviousGtids(_)
            | Body::MariaGtidList(_)
            | Body::Annotate(_)
            | Body::Checkpoint(_)
            | Body::Stop
            | Body::Nothing => {}
        }
        Ok(())
    }

    fn rotate(&mut self, file: &str, position: u64, artificial: bool) -> Result<()> {
        let position = position.max(4);
        if self.file == file && artificial {
            return Ok(());
        }
        if self.open.is_some() {
            self.refuse_broken_off()?;
        }
        self.file = file.to_owned();
        self.pos = position;
        self.seen = self.seen.max((file_number(file), position));
        if self.place.pos == 0 {
            // By GTIDs: this is where the server begins to look.
            self.place.file = file.to_owned();
        } else if self.verify.is_none() && self.place.file != file {
            self.place.file = file.to_owned();
            self.place.pos = position;
            self.place.ordinal = 0;
        }
        Ok(())
    }

    /// A transaction that ends with its file was never committed: the server died while it wrote it.
    fn refuse_broken_off(&mut self) -> Result<()> {
        match self.open.take() {
            Some(open) if open.pushed || self.place.within.is_some() => Err(setup::put_back(
                &self.job.name,
                &self.place,
                "it breaks off inside a transaction that was read already",
            )),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, begins: u64, time_us: i64, gtid: Option<Transaction>, standalone: bool) -> Result<()> {
        self.refuse_broken_off()?;
        let mut open = Open { begins, time_us, gtid, standalone, ..Open::default() };
        self.fits = true;
        if let Some(last) = self.verify.take() {
            let same = last.file == self.file && last.pos == begins && last.time == time_us;
            if !same {
                let why = format!(
                    "the transaction at {}:{begins} is of {time_us} µs and ours at {}:{} was of {} µs",
                    self.file, last.file, last.pos, last.time
                );
                return Err(setup::put_back(&self.job.name, &self.place, &why));
            }
            open.known = true;
        } else if let Some(within) = &self.place.within {
            open.before = within.rows.clone();
        }
        self.open = Some(open);
        Ok(())
    }

    /// The transaction is over.
    pub fn commit(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        if open.known {
            return self.refuse_other_end();
        }
        if let Some(gtid) = &open.gtid {
            self.gtids.add(gtid);
            if let (Some(seen), Transaction::MariaDb(gtid)) = (&mut self.place.seen, gtid) {
                seen.last.add(*gtid);
            }
        }
        self.place.file.clone_from(&self.file);
        self.place.pos = self.pos;
        self.place.ordinal = 0;
        self.place.within = None;
        self.place.last = Some(Last { file: self.file.clone(), pos: open.begins, time: open.time_us });
        Ok(())
    }

    /// A server that was put back may write at the same place within the same second, with the same GTID.
    fn refuse_other_end(&self) -> Result<()> {
        // The place is at the beginning of the next file when that was there already.
        if self.place.file != self.file || self.place.pos == self.pos {
            return Ok(());
        }
        let why = format!("the transaction that was read last ends at {}:{} now", self.file, self.pos);
        Err(setup::put_back(&self.job.name, &self.place, &why))
    }

    /// Whether a statement of this transaction stands alone: it is over with it.
    pub fn is_alone(&self) -> bool {
        self.open.as_ref().is_some_and(|open| !open.begun || open.standalone)
    }

    /// A table's events were handed out up to here.
    pub async fn hand_out(&mut self) -> Result<()> {
        let inside = match &self.open {
            Some(open) if open.pushed => {
                self.place.within = Some(Within { rows: open.rows.clone() });
                true
            }
            _ => !self.is_settled() && self.settled > self.seen,
        };
        self.hand_out_piece(inside).await
    }

    pub async fn hand_out_piece(&mut self, inside: bool) -> Result<()> {
        self.place.gtids = self.gtids.shown();
        // A sign of life that shows the log's end settles rows that were read, without a place of its own.
        if self.records.is_empty() && self.place == self.handed && self.handed_inside == inside {
            return Ok(());
        }
        if !self.records.is_empty() {
            let _hit = crate::failpoint::hit("mysql.stream.piece");
        }
        // The next piece is about as large as this one.
        let next = RawRecords::with_room_of(&self.records);
        let piece = Piece {
            records: std::mem::replace(&mut self.records, next),
            place: self.place.clone(),
            inside,
            behind: self.behind(),
        };
        self.handed = self.place.clone();
        self.handed_inside = inside;
        self.handed_at = Instant::now();
        self.send(Item::Piece(Box::new(piece))).await?;
        self.reached_end().await
    }

    fn behind(&self) -> u64 {
        match (self.end, self.seen) {
            ((end_file, end), (file, pos)) if end_file == file => end.saturating_sub(pos),
            ((_, end), _) => end,
        }
    }

    /// Says so when everything that was there at the beginning has been handed out.
    async fn reached_end(&mut self) -> Result<()> {
        let quiet = !self.said_end && self.records.is_empty() && self.seen >= self.target;
        if !quiet || !self.is_settled() || self.must_read() {
            return Ok(());
        }
        self.place.gtids = self.gtids.shown();
        if self.handed != self.place || self.handed_inside {
            let piece = Piece {
                records: RawRecords::default(),
                place: self.place.clone(),
                inside: false,
                behind: self.behind(),
            };
            self.handed = self.place.clone();
            self.handed_inside = false;
            self.send(Item::Piece(Box::new(piece))).await?;
        }
        self.send(Item::CaughtUp).await
    }

    async fn send(&mut self, item: Item) -> Result<()> {
        self.said_end = matches!(item, Item::CaughtUp);
        // A closed channel means that nobody wants the rest.
        self.out.send(Ok(item)).await.map_err(|_| unwanted())?;
        // The server may have waited for us all that time.
        self.dump.listen();
        self.waiting = Waiting::default();
        Ok(())
    }

    /// A change that the log does not tell: only the tables themselves do.
    pub fn refused_statement(&self, kind: &str) -> Error {
        let (source, file, pos) = (&self.job.name, &self.file, self.pos);
        let (what, first) = match kind.starts_with("XA") {
            true => (
                format!("an XA transaction stands at {file}:{pos} of the log, whose fate is told somewhere else"),
                "let applications end their XA transactions (`XA RECOVER` lists them; `XA COMMIT`, `XA ROLLBACK`)",
            ),
            false => (
                format!(
                    "a statement of kind {kind} changed data and stands at {file}:{pos} of the log without its rows"
                ),
                "set binlog_format = ROW for every session of the server",
            ),
        };
        Error::new(ErrorKind::PositionLost, format!("source {source}: {what}")).help(format!(
            "{first}. Then write `snapshot: {{ on_lost_position: snapshot_again }}` into the source to empty its tables and \
             read them again from the server's end on, and take it out once they are there"
        ))
    }

    fn incident(&self, code: u16, message: &str) -> Error {
        let why = format!("the server says that its log lacks something (incident {code}: {message})");
        setup::lost(&self.job.name, &self.place, &why)
    }

    pub fn is_mariadb(&self) -> bool {
        self.job.server.flavour == Flavour::MariaDb
    }
}

fn micros(seconds: u32) -> i64 {
    i64::from(seconds) * 1_000_000
}
