//! The stream: transactions in commit order, as the server sends them once they are committed.
//!
//! ```text
//! server ──w (B R I U D … C)──▶ pieces of about 1 MiB ──▶ ingest ──▶ lake log
//!        ──k (how far)───────▶                                        │
//!        ◀─r (flushed = what the lake log holds) ◀────────────────────┘ released
//! ```
//!
//! * A large transaction comes piece by piece, so nothing of it is collected here: the server keeps it on its own disk
//!   until it is committed, or sends it while it runs, and then it is kept on ours (`running.rs`).
//! * What is acknowledged is never beyond what the lake log holds. While nothing of ours changes, the place moves on by
//!   what the server says that it has read, goes into the log, and is acknowledged after that.
//! * The server is answered while ingest takes nothing: it would end the connection after `wal_sender_timeout`.

mod chunks;
mod running;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hashbrown::HashMap;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use self::chunks::Beside;
use self::tables::Emptied;
use super::catalog;
use super::connection::{Connection, Copied, Next, Purpose, Trouble};
use super::guardian;
use super::lineage;
use super::place::{Place, Within};
use super::protocol::Asked;
use super::setup;
use super::spool::Spools;
use super::worker::{Item, Job, Piece, push_shape, unwanted};
use crate::batch::RawRecords;
use crate::epoch::EpochNumber;
use crate::error::{Error, ErrorKind, Result};
use crate::wire::pgoutput::{Lsn, Malformed, Message, parse, relation_of_row, truncate_message};
use crate::wire::pgtype::RelationShape;

/// Payload bytes in one piece.
const PIECE_BYTES: usize = 1 << 20;
/// With so many more it ends inside a transaction.
const TO_COMMIT_BYTES: usize = PIECE_BYTES / 4;
/// How long records wait for more before they are handed out.
const LINGER: Duration = Duration::from_millis(20);
/// How often the server is told how far we are, and asked.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How often a place that moved without records is handed out.
const QUIET_EVERY: Duration = Duration::from_secs(1);

/// A relation that the stream has announced.
struct Known {
    /// Its changes count from here on; `None` when no table reads it.
    from: Option<Lsn>,
    /// Its columns, as they were announced.
    shape: Option<RelationShape>,
}

/// The transaction that is being sent.
struct Open {
    xid: u32,
    commit: Lsn,
    time_us: i64,
    /// The log record of the last change, and the number of changes in it.
    last: (Lsn, u32),
}

/// The stream of one connection.
pub(super) struct Stream {
    job: Arc<Job>,
    confirmed: watch::Receiver<Lsn>,
    wanted: watch::Receiver<BTreeMap<String, EpochNumber>>,
    connection: Connection,
    /// For the catalog, heartbeats and the state of the slot.
    side: Connection,
    place: Place,
    /// The place that was handed out last.
    handed: Place,
    handed_at: Instant,
    out: mpsc::Sender<Result<Item>>,
    relations: HashMap<u32, Known>,
    records: RawRecords,
    open: Option<Open>,
    /// What has come of transactions that run, and which of them is being sent.
    spools: Spools,
    segment: Option<u32>,
    /// Whether the stream must be begun again, asked for something else.
    begin_again: bool,
    /// Everything before this was there when we began to look.
    target: Lsn,
    /// Where the server's log ends, as far as it was said.
    end: Lsn,
    tick: Interval,
    heard: Instant,
    /// Whether the end was said since the last piece.
    said_end: bool,
    /// Whether a table must be read as a whole, while the stream waits.
    must_read: bool,
    beside: Beside,
    heartbeat: Instant,
    looked: Instant,
    /// From where on the server kept its log for the slot at the last look.
    slot_begins: Option<Lsn>,
    /// Tables whose partitions were emptied, not yet told whether as a whole.
    emptied: BTreeMap<String, Emptied>,
    /// The transactions that emptied whole tables since the last look.
    truncated: BTreeMap<String, BTreeSet<u32>>,
}

impl Stream {
    /// Begins to stream from `place` on.
    pub async fn open(job: Arc<Job>, place: Place, out: mpsc::Sender<Result<Item>>) -> Result<Self> {
        let doing = format!("source {}: read slot {}", job.name, job.slot);
        // A heartbeat writes: only what was read before gets one.
        let mut connection = lineage::same_server(&job.settings, &job.name, &job.server, &place).await?;
        let mut side = Connection::open(&job.settings, Purpose::Query).await?;
        lineage::must_have(&mut side, &job.name, &job.slot, &place).await?;
        let target = match job.heartbeat.is_zero() {
            true => catalog::log_end(&mut side).await,
            false => catalog::heartbeat(&mut side).await,
        };
        let target = target.map_err(|trouble| trouble.error(&doing))?;
        let asked = Asked { streaming: job.streaming.load(Ordering::Relaxed), ..job.asked };
        let sql = asked.start(&job.slot, &job.publication, place.lsn);
        connection.copy_both(&sql).await.map_err(|trouble| match trouble.code() {
            "42704" | "55000" => super::lost(&job.name, &job.slot, &trouble.error(doing).to_string()),
            _ => trouble.error(doing),
        })?;
        let beside = Beside::begin(&mut side, &job).await?;
        let mut tick = interval(TELL_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let now = Instant::now();
        Ok(Self {
            confirmed: job.confirmed.clone(),
            wanted: job.wanted.clone(),
            spools: Spools::new(job.spool.clone(), job.max_spool),
            segment: None,
            begin_again: false,
            job,
            connection,
            side,
            handed: place.clone(),
            place,
            handed_at: now,
            out,
            relations: HashMap::new(),
            records: RawRecords::default(),
            open: None,
            target,
            end: target,
            tick,
            heard: now,
            said_end: false,
            must_read: false,
            beside,
            heartbeat: now,
            looked: now,
            slot_begins: None,
            emptied: BTreeMap::new(),
            truncated: BTreeMap::new(),
        })
    }

    /// Streams until something breaks, nobody listens any more, or it must be begun anew (a table is to be read again,
    /// running transactions cannot be kept); the place then.
    pub async fn run(mut self) -> Result<Place> {
        self.begin_readings().await?;
        self.tell().await?;
        if self.job.captured.values().any(|known| known.state.leaves.is_some()) {
            // What was left open when nobody read.
            self.look_at_tables().await?;
        }
        self.reached_end().await?;
        let mut linger: Option<Instant> = None;
        loop {
            let until = async |at: Option<Instant>| match at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            };
            let turn = self.next_turn();
            tokio::select! {
                next = self.connection.copied_or_said() => {
                    let Next::Copied(copied) = next.map_err(|trouble| self.broken(trouble))? else {
                        let what = format!("source {}: the server ended the stream", self.job.name);
                        return Err(Error::new(ErrorKind::SourceUnavailable, what));
                    };
                    self.heard = Instant::now();
                    self.take(&copied).await?;
                }
                () = until(linger) => self.hand_out().await?,
                () = until(turn) => {}
                _ = self.tick.tick() => self.on_tick().await?,
                changed = self.confirmed.changed() => {
                    changed.map_err(|_| unwanted())?;
                    self.tell().await?;
                }
                changed = self.wanted.changed() => {
                    changed.map_err(|_| unwanted())?;
                    self.begin_readings().await?;
                }
            }
            if self.is_over() {
                self.hand_out().await?;
                return Ok(self.place);
            }
            self.judge_emptied().await?;
            self.read_beside().await?;
            linger = if self.records.is_empty() { None } else { linger.or_else(|| Some(Instant::now() + LINGER)) };
        }
    }

    fn broken(&self, trouble: Trouble) -> Error {
        let doing = format!("source {}: read slot {}", self.job.name, self.job.slot);
        match trouble.code() {
            // The slot was invalidated, or its publication dropped, under our hands: what was asked for is no more.
            "42704" | "55000" => super::lost(&self.job.name, &self.job.slot, &trouble.error(doing).to_string()),
            _ => trouble.error(doing),
        }
    }

    /// Whether it must be begun anew, and may be.
    fn is_over(&self) -> bool {
        (self.must_read || self.begin_again) && self.open.is_none()
    }

    /// Messages of the copy.
    async fn take(&mut self, copied: &Copied) -> Result<()> {
        for data in copied.pieces() {
            if !self.take_row(data) {
                self.take_one(data).await?;
            }
            if self.is_piece() {
                self.hand_out().await?;
            }
            if self.is_over() {
                // What comes behind it is sent again.
                break;
            }
        }
        Ok(())
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

    /// Nearly every message is a row that keeps its key, and the decoder reads the rest of it; says whether it was.
    #[inline]
    fn take_row(&mut self, data: &[u8]) -> bool {
        let Some((Log { start, end }, change)) = log_data(data) else { return false };
        let Some(relation) = relation_of_row(change).filter(|_| self.segment.is_none()) else { return false };
        self.end = self.end.max(end);
        if self.counts(relation) {
            self.push(start, change);
        }
        true
    }

    /// One message of the copy: log data or a sign of life.
    async fn take_one(&mut self, data: &[u8]) -> Result<()> {
        if let Some((Log { start, end }, change)) = log_data(data) {
            self.end = self.end.max(end);
            return self.received(start, change).await;
        }
        let end = data.get(1..9).and_then(|bytes| bytes.try_into().ok()).map(|bytes| Lsn(u64::from_be_bytes(bytes)));
        match (data.first(), end) {
            (Some(b'k'), Some(end)) => {
                self.end = self.end.max(end);
                // In front of a transaction that goes on inside there is nothing to come to.
                if self.open.is_none() && self.place.within.is_none() && end > self.place.lsn {
                    self.place.lsn = end;
                }
                if data.get(17) == Some(&1) {
                    self.tell().await?;
                }
                self.reached_end().await
            }
            _ => Err(Error::new(ErrorKind::SourceUnavailable, format!("source {}: an unknown message", self.job.name))),
        }
    }

    async fn change(&mut self, lsn: Lsn, data: &[u8]) -> Result<()> {
        // Nearly every message is one of these; the decoder reads the rest of it. An update of a key is not among them.
        if let Some(relation) = relation_of_row(data) {
            if self.counts(relation) {
                self.push(lsn, data);
            }
            return Ok(());
        }
        let message = parse(data, false).map_err(|malformed| self.malformed(lsn, malformed))?;
        match message {
            Message::Begin { commit, time_us, xid } => {
                self.beside.note(xid);
                self.open = Some(Open { xid, commit, time_us, last: (Lsn(0), 0) });
            }
            Message::Commit { end, .. } => {
                self.open = None;
                self.place.lsn = end;
                self.place.within = None;
            }
            Message::Relation(relation) => {
                let name = format!("{}.{}", relation.schema, relation.name);
                let name = self.captured_name(relation.id, name).await?;
                self.look_at(relation.id, &name).await?;
                let from = self.place.counted_from(&name, relation.id);
                let mut shape = None;
                if from.is_some() {
                    let mut announced = catalog::announced(&mut self.side, &relation).await.map_err(|trouble| {
                        trouble.error(format!("source {}: look up the columns of {name}", self.job.name))
                    })?;
                    announced.name = name;
                    let (commit, time_us, (at, ordinal)) = self.now();
                    push_shape(&mut self.records, commit, (at.0, ordinal * 2 + 1), time_us, &announced);
                    shape = Some(announced);
                }
                self.relations.insert(relation.id, Known { from, shape });
            }
            Message::Update { relation, new, .. } if self.counts(relation) => {
                self.note_move(relation, new);
                self.push(lsn, data);
            }
            Message::Insert { relation, .. } | Message::Delete { relation, .. } if self.counts(relation) => {
                self.push(lsn, data);
            }
            Message::Insert { .. } | Message::Update { .. } | Message::Delete { .. } => {}
            Message::Truncate { relations, .. } => {
                self.note_truncate(&relations).await?;
                let counted: Vec<u32> = relations.into_iter().filter(|id| self.counts(*id)).collect();
                if !counted.is_empty() {
                    self.push(lsn, &truncate_message(&counted));
                }
            }
            Message::Origin { .. } | Message::Type { .. } | Message::Logical { .. } => {}
            Message::StreamStart { .. }
            | Message::StreamStop
            | Message::StreamCommit { .. }
            | Message::StreamAbort { .. } => {
                return Err(Error::new(ErrorKind::Internal, "a running transaction inside of another one"));
            }
        }
        Ok(())
    }

    fn malformed(&self, lsn: Lsn, malformed: Malformed) -> Error {
        Error::new(ErrorKind::SourceRefused, format!("source {}: read a message at {lsn}", self.job.name))
            .because(malformed)
    }

    /// The open transaction's commit record, time and last change.
    fn now(&self) -> (Lsn, i64, (Lsn, u32)) {
        let none = (self.place.lsn, crate::batch::NO_TIME, (Lsn(0), 0));
        self.open.as_ref().map_or(none, |open| (open.commit, open.time_us, open.last))
    }

    /// Whether changes of that relation are wanted: its rows were read before this transaction.
    fn counts(&self, relation: u32) -> bool {
        let (commit, ..) = self.now();
        self.relations.get(&relation).and_then(|known| known.from).is_some_and(|from| commit >= from)
    }

    /// Takes a change, unless it was handed out before the source was opened again.
    fn push(&mut self, lsn: Lsn, data: &[u8]) {
        let Some(open) = &mut self.open else { return };
        open.last = if open.last.0 == lsn { (lsn, open.last.1 + 1) } else { (lsn, 1) };
        let ordinal = open.last.1;
        let done = self.place.within.is_some_and(|w| w.commit == open.commit && (lsn, ordinal) <= (w.lsn, w.ordinal));
        if !done {
            // Even numbers are changes; a relation between two of them has the odd one.
            self.records.push_within(open.commit.0, (lsn.0, ordinal * 2), open.time_us, None, Some(data));
            self.place.within = Some(Within { commit: open.commit, lsn, ordinal });
        }
    }

    async fn hand_out(&mut self) -> Result<()> {
        let inside = self.place.within.is_some();
        self.records.note_log_bytes(self.place.lsn.0.saturating_sub(self.handed.lsn.0));
        // The next piece is about as large as this one.
        let next = RawRecords::with_room_of(&self.records);
        let piece = Piece {
            records: std::mem::replace(&mut self.records, next),
            place: self.place.clone(),
            inside,
            behind: self.end.0.saturating_sub(self.place.lsn.0),
        };
        self.handed = self.place.clone();
        self.handed_at = Instant::now();
        self.send(Item::Piece(Box::new(piece))).await?;
        self.reached_end().await
    }

    /// Says so when everything that was there at the beginning has been handed out.
    async fn reached_end(&mut self) -> Result<()> {
        let nothing_left = self.records.is_empty() && self.place.reading.is_empty() && self.emptied.is_empty();
        let reached = self.open.is_none() && self.place.lsn >= self.target && nothing_left;
        if reached && self.handed != self.place && self.handed.lsn < self.target {
            // The first time is worth a piece of its own.
            let piece = Piece { records: RawRecords::default(), place: self.place.clone(), inside: false, behind: 0 };
            self.handed = self.place.clone();
            self.send(Item::Piece(Box::new(piece))).await?;
        }
        if reached && self.handed == self.place && !self.said_end {
            self.send(Item::CaughtUp).await?;
        }
        Ok(())
    }

    /// Hands an item over, and answers the server as long as that takes.
    async fn send(&mut self, item: Item) -> Result<()> {
        let out = self.out.clone();
        let permit = loop {
            tokio::select! {
                permit = out.reserve() => break permit.map_err(|_| unwanted())?,
                _ = self.tick.tick() => self.tell().await?,
                changed = self.confirmed.changed() => {
                    changed.map_err(|_| unwanted())?;
                    self.tell().await?;
                }
            }
        };
        self.said_end = matches!(item, Item::CaughtUp);
        permit.send(Ok(item));
        // The server may have waited for us all that time.
        self.heard = Instant::now();
        Ok(())
    }

    async fn on_tick(&mut self) -> Result<()> {
        let silence = self.job.settings.receive_timeout;
        if self.heard.elapsed() > silence {
            return Err(Error::new(
                ErrorKind::SourceUnavailable,
                format!("source {}: the server has said nothing for {silence:?}", self.job.name),
            ));
        }
        self.tell().await?;
        let moved = self.open.is_none() && self.records.is_empty() && self.handed != self.place;
        if moved && self.handed_at.elapsed() >= QUIET_EVERY {
            self.hand_out().await?;
        }
        let heartbeat = self.job.heartbeat;
        if !heartbeat.is_zero() && self.heartbeat.elapsed() >= heartbeat {
            self.heartbeat = Instant::now();
            let doing = format!("source {}: write a heartbeat", self.job.name);
            catalog::heartbeat(&mut self.side).await.map_err(|trouble| trouble.error(doing))?;
        }
        if self.looked.elapsed() >= guardian::every(heartbeat) {
            self.looked = Instant::now();
            self.look_at_tables().await?;
            self.look_at_slot().await?;
        }
        Ok(())
    }

    /// Keeps in the log from where on the server keeps its own, by which a server that was put back is recognised. A
    /// look later: by then it is on the server's disk.
    async fn look_at_slot(&mut self) -> Result<()> {
        let slot = setup::slot(&mut self.side, &self.job.name, &self.job.slot).await?;
        let before = std::mem::replace(&mut self.slot_begins, slot.map(|slot| slot.begins));
        self.place.slot_begins = self.place.slot_begins.max(before);
        Ok(())
    }

    /// Tells the server what it need not keep any more, and asks how far it is.
    async fn tell(&mut self) -> Result<()> {
        let confirmed = *self.confirmed.borrow_and_update();
        let mut status = Vec::with_capacity(34);
        status.push(b'r');
        for _written_flushed_applied in 0..3 {
            status.extend(confirmed.0.to_be_bytes());
        }
        status.extend(0i64.to_be_bytes());
        status.push(1);
        self.connection.send_copy(&status).await.map_err(|trouble| self.broken(trouble))?;
        self.job.told.send_replace(Some(confirmed));
        Ok(())
    }
}

/// Where a piece of the log stands.
struct Log {
    start: Lsn,
    /// Where the server's log ends.
    end: Lsn,
}

/// `w`, where it stands, where the log ends, the server's clock, and a message of the plug-in.
#[inline]
fn log_data(data: &[u8]) -> Option<(Log, &[u8])> {
    let (head, change) = data.split_first_chunk::<25>()?;
    let lsn = |at: usize| Some(Lsn(u64::from_be_bytes(head[at..at + 8].try_into().ok()?)));
    (head[0] == b'w').then_some(())?;
    Some((Log { start: lsn(1)?, end: lsn(9)? }, change))
}
