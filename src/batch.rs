//! What flows: raw records from a source, columnar changes from the decoder on, and rejects.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::buffer::BooleanBuffer;

use crate::contract::Contract;
use crate::progress::{Generation, Partition, Span};

/// Records of one partition exactly as they were read, with the span that they cover.
#[derive(Debug, Clone)]
pub struct RawBatch {
    /// Where they come from.
    pub partition: Partition,
    /// The generation that their delivery order belongs to.
    pub generation: Generation,
    /// What was read; may be larger than the records show (compaction, transaction markers, blank lines).
    pub span: Span,
    /// The stream's name that tables refer to by `from:` (the topic); `None` when only the event itself names its table.
    pub stream: Option<Arc<str>>,
    /// The records, in delivery order.
    pub records: RawRecords,
    /// Whether it ends inside a transaction: an epoch that ends there would show half of it. Never so where a source has
    /// no transactions.
    pub inside_transaction: bool,
}

/// A slice of a [`RawRecords`] arena; `start == u32::MAX` stands for null.
#[derive(Debug, Clone, Copy)]
struct Slice {
    start: u32,
    len: u32,
}

const NULL: Slice = Slice { start: u32::MAX, len: 0 };

#[derive(Debug, Clone)]
struct RawRow {
    offset: u64,
    minor: u64,
    ordinal: u32,
    timestamp_us: i64,
    key: Slice,
    value: Slice,
    headers: Range<u32>,
}

/// Many small byte strings in one allocation. Holds at most 4 GiB; sources cut batches far below that.
#[derive(Debug, Clone, Default)]
pub struct RawRecords {
    bytes: Vec<u8>,
    rows: Vec<RawRow>,
    headers: Vec<(Slice, Slice)>,
    log_bytes: u64,
    recalled: Box<[Arc<[u8]>]>,
}

/// Stands for "the source says no time".
pub const NO_TIME: i64 = i64::MIN;

/// One record of a [`RawRecords`].
#[derive(Debug, Clone, Copy)]
pub struct RawRecord<'a> {
    owner: &'a RawRecords,
    row: &'a RawRow,
}

impl RawRecords {
    /// None, with room for as much as `other` holds and a little more: the next batch is about as large.
    pub fn with_room_of(other: &Self) -> Self {
        let room = |len: usize| len + len / 8;
        Self {
            bytes: Vec::with_capacity(room(other.bytes.len())),
            rows: Vec::with_capacity(room(other.rows.len())),
            headers: Vec::with_capacity(room(other.headers.len())),
            log_bytes: 0,
            recalled: Box::default(),
        }
    }

    /// Appends a record. `offset` is its place in the partition (Kafka offset, byte offset); `timestamp_us` is the
    /// transport's time in microseconds since 1970 or [`NO_TIME`].
    pub fn push(&mut self, offset: u64, timestamp_us: i64, key: Option<&[u8]>, value: Option<&[u8]>) {
        self.push_within(offset, (0, 0), timestamp_us, key, value);
    }

    /// Appends one of several records that share an offset (a commit's LSN, a binary log file); `within` says where in it:
    /// what becomes [`Seq::minor`] and [`Seq::ordinal`].
    pub fn push_within(
        &mut self,
        offset: u64,
        within: (u64, u32),
        timestamp_us: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) {
        let key = self.store(key);
        let value = self.store(value);
        let at = self.headers.len() as u32;
        let (minor, ordinal) = within;
        self.rows.push(RawRow { offset, minor, ordinal, timestamp_us, key, value, headers: at..at });
    }

    /// The same without a key, for a value that `write` puts at the end of what it is given; what that says.
    #[inline]
    pub fn push_written<T>(
        &mut self,
        offset: u64,
        within: (u64, u32),
        timestamp_us: i64,
        write: impl FnOnce(&mut Vec<u8>) -> T,
    ) -> T {
        let start = self.bytes.len();
        let said = write(&mut self.bytes);
        let value = Slice { start: start as u32, len: (self.bytes.len() - start) as u32 };
        let at = self.headers.len() as u32;
        let (minor, ordinal) = within;
        self.rows.push(RawRow { offset, minor, ordinal, timestamp_us, key: NULL, value, headers: at..at });
        said
    }

    /// Adds a header to the record that was pushed last.
    pub fn push_header(&mut self, name: &str, value: Option<&[u8]>) {
        let entry = (self.store(Some(name.as_bytes())), self.store(value));
        self.headers.push(entry);
        if let Some(row) = self.rows.last_mut() {
            row.headers.end = self.headers.len() as u32;
        }
    }

    fn store(&mut self, bytes: Option<&[u8]>) -> Slice {
        let Some(bytes) = bytes else { return NULL };
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(bytes);
        Slice { start, len: bytes.len() as u32 }
    }

    fn slice(&self, slice: Slice) -> Option<&[u8]> {
        (slice.start != u32::MAX).then(|| &self.bytes[slice.start as usize..(slice.start + slice.len) as usize])
    }

    /// The number of records.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Payload bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Says how much of the server's log was read for these records, other people's included: the server keeps it until they
    /// are in the lake.
    pub fn note_log_bytes(&mut self, bytes: u64) {
        self.log_bytes += bytes;
    }

    /// Bytes of log that the server keeps for these records.
    pub fn log_bytes(&self) -> u64 {
        self.log_bytes
    }

    /// Says what describes some of these records although it came long before them: whoever reads from here on alone
    /// needs it. Each is the key of a record without a value, and no record of this batch.
    pub fn recall(&mut self, descriptions: Vec<Arc<[u8]>>) {
        self.recalled = descriptions.into();
    }

    /// What was recalled: it holds before the first record.
    pub fn recalled(&self) -> &[Arc<[u8]>] {
        &self.recalled
    }

    /// Record number `index`.
    pub fn get(&self, index: usize) -> Option<RawRecord<'_>> {
        self.rows.get(index).map(|row| RawRecord { owner: self, row })
    }

    /// The record that was pushed last.
    pub fn last(&self) -> Option<RawRecord<'_>> {
        self.rows.last().map(|row| RawRecord { owner: self, row })
    }

    /// The record at that offset, by binary search.
    pub fn at_offset(&self, offset: u64) -> Option<RawRecord<'_>> {
        self.rows.binary_search_by_key(&offset, |r| r.offset).ok().and_then(|index| self.get(index))
    }

    /// The record that became the row of that order, by binary search.
    pub fn at(&self, seq: &Seq) -> Option<RawRecord<'_>> {
        let place = |row: &RawRow| (row.offset, row.minor, row.ordinal);
        let wanted = (seq.major, seq.minor, seq.ordinal);
        self.rows.binary_search_by_key(&wanted, place).ok().and_then(|index| self.get(index))
    }

    /// All records in delivery order.
    pub fn iter(&self) -> impl Iterator<Item = RawRecord<'_>> {
        self.rows.iter().map(|row| RawRecord { owner: self, row })
    }
}

impl<'a> RawRecord<'a> {
    /// Its place in the partition.
    pub fn offset(&self) -> u64 {
        self.row.offset
    }

    /// Its place among the records of the same offset.
    pub fn within(&self) -> (u64, u32) {
        (self.row.minor, self.row.ordinal)
    }

    /// The transport's time, microseconds since 1970, or [`NO_TIME`].
    pub fn timestamp_us(&self) -> i64 {
        self.row.timestamp_us
    }

    /// The key's bytes.
    pub fn key(&self) -> Option<&'a [u8]> {
        self.owner.slice(self.row.key)
    }

    /// The value's bytes; `None` is a tombstone.
    pub fn value(&self) -> Option<&'a [u8]> {
        self.owner.slice(self.row.value)
    }

    /// Header names (raw bytes of UTF-8) and values.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        let owner = self.owner;
        owner.headers[self.row.headers.start as usize..self.row.headers.end as usize]
            .iter()
            .map(move |(name, value)| (owner.slice(*name).unwrap_or_default(), owner.slice(*value)))
    }

    /// The value of the header `name`, if it is there and not null.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers().find(|(n, _)| *n == name.as_bytes()).and_then(|(_, value)| value)
    }
}

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Op {
    /// Read by a snapshot
    Read = b'r',
    /// Inserted
    Create = b'c',
    /// Updated, the key unchanged
    Update = b'u',
    /// Updated with another key: `old_keys` holds the key that it had
    Move = b'm',
    /// Deleted: only the key columns hold data
    Delete = b'd',
    /// The whole table was emptied: no column holds data
    Truncate = b't',
    /// A version that a rule refused and that people do not see (only the key holds data): later partial rows that
    /// would stand on it are refused as well
    Refused = b'x',
}

impl Op {
    /// Every one.
    pub const ALL: [Self; 7] =
        [Self::Read, Self::Create, Self::Update, Self::Move, Self::Delete, Self::Truncate, Self::Refused];

    /// The letter that stands in files and warehouses.
    pub fn letter(self) -> &'static str {
        match self {
            Self::Read => "r",
            Self::Create => "c",
            Self::Update => "u",
            Self::Move => "m",
            Self::Delete => "d",
            Self::Truncate => "t",
            Self::Refused => "x",
        }
    }

    /// The reverse of [`Op::letter`].
    pub fn from_letter(letter: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.letter() == letter)
    }

    /// Whether the row holds values beyond its key.
    pub fn has_row(self) -> bool {
        matches!(self, Self::Read | Self::Create | Self::Update | Self::Move)
    }
}

/// Every byte in two lower-case hexadecimal digits.
const HEXADECIMAL: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    pairs
};

/// The order of changes of one key: `generation | delivery order`. Larger is newer.
///
/// `major`/`minor` are (Kafka offset, 0), (commit LSN, LSN) or (binlog file, position); `ordinal` counts rows inside
/// one record. The text form has [`Seq::WIDTH`] characters of lower-case hexadecimal and sorts like the number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq {
    pub generation: Generation,
    pub major: u64,
    pub minor: u64,
    pub ordinal: u32,
}

impl Seq {
    /// Characters in the text form.
    pub const WIDTH: usize = 48;

    /// Writes the text form.
    pub fn write(&self, out: &mut [u8; Self::WIDTH]) {
        let mut bytes = [0u8; Self::WIDTH / 2];
        bytes[0..4].copy_from_slice(&self.generation.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.major.to_be_bytes());
        bytes[12..20].copy_from_slice(&self.minor.to_be_bytes());
        bytes[20..24].copy_from_slice(&self.ordinal.to_be_bytes());
        let (pairs, _) = out.as_chunks_mut::<2>();
        for (pair, byte) in pairs.iter_mut().zip(bytes) {
            *pair = HEXADECIMAL[usize::from(byte)];
        }
    }

    /// Reads the text form.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != Self::WIDTH || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        Some(Self {
            generation: u32::from_str_radix(&text[0..8], 16).ok()?,
            major: u64::from_str_radix(&text[8..24], 16).ok()?,
            minor: u64::from_str_radix(&text[24..40], 16).ok()?,
            ordinal: u32::from_str_radix(&text[40..48], 16).ok()?,
        })
    }
}

impl std::fmt::Display for Seq {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = [0u8; Self::WIDTH];
        self.write(&mut out);
        f.write_str(std::str::from_utf8(&out).unwrap_or_default())
    }
}

/// Changes of one table from one partition, in delivery order. All parts have the same number of rows.
#[derive(Debug, Clone)]
pub struct TableChanges {
    /// The contract whose `input` (before the operators) or `output` (after them) `rows` follows.
    pub contract: Arc<Contract>,
    /// Where the changes come from.
    pub partition: Partition,
    /// The column values. For deletes and refused rows only the key columns hold data.
    pub rows: RecordBatch,
    /// What happened, per row.
    pub ops: Vec<Op>,
    /// The order, per row.
    pub seqs: Vec<Seq>,
    /// Commit time at the source per row, microseconds since 1970 UTC, or [`NO_TIME`].
    pub source_times_us: Vec<i64>,
    /// Per column of `rows`: which rows do *not* carry the value because the source left it unchanged. `None` = all do.
    pub unchanged: Vec<Option<BooleanBuffer>>,
    /// For moves: the old key (the key columns' types, in key order; null elsewhere). `None` when no row moves.
    pub old_keys: Option<RecordBatch>,
}

impl TableChanges {
    /// The number of rows.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Rows `[at, at + len)`. Their values are shared.
    pub fn slice(&self, at: usize, len: usize) -> Self {
        Self {
            contract: Arc::clone(&self.contract),
            partition: self.partition.clone(),
            rows: self.rows.slice(at, len),
            ops: self.ops[at..at + len].to_vec(),
            seqs: self.seqs[at..at + len].to_vec(),
            source_times_us: self.source_times_us[at..at + len].to_vec(),
            unchanged: self.unchanged.iter().map(|bits| bits.as_ref().map(|b| b.slice(at, len))).collect(),
            old_keys: self.old_keys.as_ref().map(|old| old.slice(at, len)),
        }
    }

    /// Whether column `column` of row `row` is unchanged (its value unknown here).
    pub fn is_unchanged(&self, column: usize, row: usize) -> bool {
        self.unchanged.get(column).and_then(Option::as_ref).is_some_and(|bits| bits.value(row))
    }
}

/// The size of rows in memory, shared buffers counted by what is used of them.
pub fn memory_bytes(rows: &RecordBatch) -> u64 {
    let columns = rows.columns().iter();
    columns.map(|c| c.to_data().get_slice_memory_size().unwrap_or_else(|_| c.get_array_memory_size()) as u64).sum()
}

/// A record or a row that was refused: data for the quarantine, never an error.
#[derive(Debug, Clone)]
pub struct Reject {
    /// The table, when it is known.
    pub table: Option<String>,
    /// Where it comes from.
    pub partition: Partition,
    /// Its place there, and its order among the changes of its key.
    pub seq: Seq,
    /// The rule that refused it: `decode`, `contract`, `incomplete`, or the name of a validation rule.
    pub rule: String,
    /// Why, and what a person can do. Never holds the value of a masked column.
    pub reason: String,
    /// What happened to the row, when it is known.
    pub op: Option<Op>,
    /// The key as JSON text, masked, when it is known.
    pub key: Option<String>,
    /// The row as JSON text, masked; `None` when it could not be decoded.
    pub values: Option<String>,
    /// Commit time at the source in microseconds, or [`NO_TIME`].
    pub source_time_us: i64,
}

/// What records of a table say nothing without: kept with those that are refused, so that they can be read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// The table.
    pub table: String,
    /// It holds for the records from here on, until the next one.
    pub from: Seq,
    /// The key of a record without a value that tells a decoder.
    pub text: Arc<[u8]>,
}

/// By which descriptions the records of a batch were read, where they say nothing without: what an epoch that begins with
/// the batch must recall.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadBy {
    /// Those that came before the batch: the number that its records name, and the text.
    pub earlier: Vec<(u64, Arc<[u8]>)>,
    /// The numbers that the batch itself describes.
    pub own: Vec<u64>,
}

/// What a decoder makes of one [`RawBatch`].
#[derive(Debug, Clone)]
pub struct ChangeBatch {
    /// The partition read.
    pub partition: Partition,
    /// The generation of the span's end.
    pub generation: Generation,
    /// What is covered. May end before the raw batch's span when the decoder holds the last records back (half a move);
    /// the next batch's span then begins there.
    pub span: Span,
    /// Changes by table; a table may appear several times when its contract grew on the way.
    pub tables: Vec<TableChanges>,
    /// What was refused.
    pub rejects: Vec<Reject>,
    /// What the records say nothing without, in order; empty where every record speaks for itself.
    pub described: Vec<Described>,
    /// The descriptions that the records were read by.
    pub read_by: ReadBy,
    /// What became of the records.
    pub account: RecordAccount,
    /// The decoder's mark for the span's end.
    pub mark: Option<String>,
}

impl ChangeBatch {
    /// Nothing yet of what is covered by `span`.
    pub fn begin(partition: Partition, generation: Generation, span: Span) -> Self {
        Self {
            partition,
            generation,
            span,
            tables: Vec::new(),
            rejects: Vec::new(),
            described: Vec::new(),
            read_by: ReadBy::default(),
            account: RecordAccount::default(),
            mark: None,
        }
    }
}

/// What became of the records of a partition: `read = rows + merged + control + redelivered + rejected + unrouted`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct RecordAccount {
    /// Records read.
    pub read: u64,
    /// Records that became a row.
    pub rows: u64,
    /// Records that became one row together with another (the delete half of a move).
    pub merged: u64,
    /// Tombstones, heartbeats, transaction and schema-change events.
    pub control: u64,
    /// Recognised as delivered before.
    pub redelivered: u64,
    /// Refused while decoding.
    pub rejected: u64,
    /// Of streams that no table reads.
    pub unrouted: u64,
}

impl RecordAccount {
    /// Adds another account.
    pub fn add(&mut self, other: &Self) {
        self.read += other.read;
        self.rows += other.rows;
        self.merged += other.merged;
        self.control += other.control;
        self.redelivered += other.redelivered;
        self.rejected += other.rejected;
        self.unrouted += other.unrouted;
    }

    /// Whether nothing disappeared unsaid.
    pub fn balances(&self) -> bool {
        self.read == self.rows + self.merged + self.control + self.redelivered + self.rejected + self.unrouted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn seq_text_sorts_like_the_number(a: (u32, u64, u64, u32), b: (u32, u64, u64, u32)) {
            let seq = |(generation, major, minor, ordinal)| Seq { generation, major, minor, ordinal };
            let (a, b) = (seq(a), seq(b));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
            prop_assert_eq!(Seq::parse(&a.to_string()), Some(a));
        }
    }

    #[test]
    fn records_keep_null_and_empty_apart() {
        let mut records = RawRecords::default();
        records.push(7, NO_TIME, None, Some(b""));
        records.push_header("h", None);
        records.push(9, 5, Some(b"k"), None);
        let first = records.at_offset(7).expect("pushed");
        assert_eq!((first.key(), first.value()), (None, Some(&b""[..])));
        assert_eq!(first.headers().count(), 1);
        assert_eq!(first.header("h"), None);
        let second = records.get(1).expect("pushed");
        assert_eq!((second.offset(), second.key(), second.value()), (9, Some(&b"k"[..]), None));
        assert_eq!(second.headers().count(), 0);
    }
}
