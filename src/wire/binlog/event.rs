//! The header of an event, its checksum, and which event it is.

use super::bytes::Bytes;
use super::compress::Payload;
use super::rows::{RowsEvent, RowsKind};
use super::session::{Gtid, Heartbeat, Query, XaPrepare};
use super::table_map::TableMapEvent;
use super::{Malformed, session};
use crate::wire::gtid::{MariaGtid, MysqlGtidSet};

/// Bytes of an event's header.
pub(super) const HEADER: usize = 19;
const CRC: usize = 4;

/// How events are protected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Checksum {
    /// Not at all.
    #[default]
    None,
    /// Four bytes behind the body.
    Crc32,
}

/// What every event begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Seconds since 1970; 0 in events that the server makes up for a connection.
    pub timestamp: u32,
    /// Its type.
    pub code: u8,
    /// The server that wrote it first.
    pub server_id: u32,
    /// Its length, header and checksum included.
    pub size: u32,
    /// Where it ends in its file, modulo 2³²; 0 when it stands in no file or inside a compressed transaction.
    pub log_pos: u32,
    /// See the `…_FLAG` constants.
    pub flags: u16,
}

impl Header {
    /// The file was not closed properly, or is being written.
    pub const IN_USE_FLAG: u16 = 0x1;
    /// The server made it up for this connection: it stands in no file.
    pub const ARTIFICIAL_FLAG: u16 = 0x20;
    /// Whoever does not know it may pass it over.
    pub const IGNORABLE_FLAG: u16 = 0x80;

    /// Whether the server made it up for this connection.
    pub fn is_artificial(&self) -> bool {
        self.flags & Self::ARTIFICIAL_FLAG != 0
    }

    pub(super) fn parse(bytes: &mut Bytes<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            timestamp: bytes.u32()?,
            code: bytes.u8()?,
            server_id: bytes.u32()?,
            size: bytes.u32()?,
            log_pos: bytes.u32()?,
            flags: bytes.u16()?,
        })
    }
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'a> {
    pub header: Header,
    pub body: Body<'a>,
}

/// What an event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body<'a> {
    FormatDescription(FormatDescription),
    /// The next event stands in `file` at `position`.
    Rotate {
        position: u64,
        file: &'a str,
    },
    /// A statement: DDL, the border of a transaction, or data in statement format.
    Query(Query<'a>),
    /// The commit of a transaction.
    Xid(u64),
    TableMap(TableMapEvent<'a>),
    Rows(RowsEvent<'a>),
    /// A transaction in compressed form; its events are read by [`Payload::events`].
    Payload(Payload<'a>),
    /// MySQL's, tagged or not: what follows is this transaction.
    Gtid(Gtid),
    /// A transaction of a MySQL server without GTIDs; when it was committed in microseconds, where that is said.
    Anonymous {
        commit_us: Option<i64>,
    },
    /// All transactions before this file.
    PreviousGtids(MysqlGtidSet),
    /// MariaDB's: what follows is this transaction. `standalone`: it is one event long and has no commit.
    MariaGtid {
        gtid: MariaGtid,
        standalone: bool,
        ddl: bool,
    },
    /// MariaDB's: the last transaction of each domain and server before this file.
    MariaGtidList(Vec<MariaGtid>),
    /// The statement that the row events behind it come from.
    Annotate(&'a [u8]),
    Heartbeat(Heartbeat<'a>),
    /// MariaDB's: recovery begins in that file.
    Checkpoint(&'a [u8]),
    XaPrepare(XaPrepare<'a>),
    /// The server lost something that should be in its log: what follows does not join on.
    Incident {
        code: u16,
        message: String,
    },
    /// The server was stopped.
    Stop,
    /// Says nothing about data: context of a statement, group membership, padding, or an unknown event that is marked
    /// as one to pass over.
    Nothing,
}

/// How the events of a file are laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatDescription {
    /// `10.11.19-MariaDB-log`
    pub server_version: String,
    pub checksum: Checksum,
    /// The length of the fixed part of each event type's body, type 1 first.
    post_header: Vec<u8>,
}

impl FormatDescription {
    /// Whether the server is MariaDB.
    pub fn is_mariadb(&self) -> bool {
        self.server_version.contains("MariaDB")
    }

    fn parse(body: &mut Bytes<'_>) -> Result<Self, Malformed> {
        let version = body.u16()?;
        if version != 4 {
            return Err(Malformed::Other("its format is older than version 4 (MySQL 5.0)"));
        }
        let name = body.take(50)?;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        body.u32()?;
        if usize::from(body.u8()?) != HEADER {
            return Err(Malformed::Other("its events have headers of another length than 19"));
        }
        let server_version = String::from_utf8_lossy(name).into_owned();
        let mut rest = body.take(body.0.len())?;
        let mut checksum = Checksum::None;
        if knows_checksums(&server_version) {
            let at = rest.len().checked_sub(1 + CRC).ok_or(Malformed::Short)?;
            checksum = match rest[at] {
                0 | 255 => Checksum::None,
                1 => Checksum::Crc32,
                other => return Err(Malformed::ChecksumKind(other)),
            };
            rest = &rest[..at];
        }
        // Before 5.1 was ready, row events had the numbers that commits and loads have now.
        if rest.get(usize::from(code::XID) - 1).is_some_and(|length| *length != 0) {
            return Err(Malformed::Other(
                "it was written by a development version of MySQL 5.1, with other event types",
            ));
        }
        Ok(Self { server_version, checksum, post_header: rest.to_vec() })
    }

    /// Bytes of a table's number in that event type.
    fn table_id_width(&self, code: u8) -> usize {
        match self.post_header.get(usize::from(code).wrapping_sub(1)) {
            Some(6) => 4,
            _ => 6,
        }
    }
}

/// Checksums came with MySQL 5.6.1 and MariaDB 5.3.
fn knows_checksums(server_version: &str) -> bool {
    let mut numbers = server_version.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= if server_version.contains("MariaDB") { (5, 3, 0) } else { (5, 6, 1) }
}

/// Reads events one by one; knows what the last format description said.
#[derive(Debug, Clone)]
pub struct EventReader {
    format: FormatDescription,
}

impl EventReader {
    /// A reader that has not seen a format description yet; `checksum` is what was agreed upon with the server
    /// (`@master_binlog_checksum`), [`Checksum::None`] for a file.
    pub fn new(checksum: Checksum) -> Self {
        let format = FormatDescription { server_version: String::new(), checksum, post_header: Vec::new() };
        Self { format }
    }

    /// What the last format description said.
    pub fn format(&self) -> &FormatDescription {
        &self.format
    }

    /// The header alone.
    pub fn header(bytes: &[u8]) -> Result<Header, Malformed> {
        Header::parse(&mut Bytes(bytes))
    }

    /// Reads one whole event and checks its checksum.
    pub fn read<'a>(&mut self, bytes: &'a [u8]) -> Result<Event<'a>, Malformed> {
        let mut rest = Bytes(bytes);
        let header = Header::parse(&mut rest)?;
        let size = header.size as usize;
        if size != bytes.len() {
            return Err(if size < bytes.len() { Malformed::Long(bytes.len() - size) } else { Malformed::Short });
        }
        if header.code == code::FORMAT_DESCRIPTION {
            let format = FormatDescription::parse(&mut rest)?;
            if format.checksum == Checksum::Crc32 {
                check(bytes, header.flags)?;
            }
            self.format = format.clone();
            return Ok(Event { header, body: Body::FormatDescription(format) });
        }
        if self.format.checksum == Checksum::Crc32 {
            let body = rest.0.len().checked_sub(CRC).ok_or(Malformed::Short)?;
            check(bytes, 0)?;
            rest = Bytes(&rest.0[..body]);
        }
        Ok(Event { header, body: self.body(header, rest)? })
    }

    /// Reads an event of a compressed transaction, which has no checksum.
    pub fn read_inner<'a>(&self, bytes: &'a [u8]) -> Result<Event<'a>, Malformed> {
        let mut rest = Bytes(bytes);
        let header = Header::parse(&mut rest)?;
        if header.size as usize != bytes.len() {
            return Err(Malformed::Short);
        }
        if matches!(header.code, code::FORMAT_DESCRIPTION | code::TRANSACTION_PAYLOAD) {
            return Err(Malformed::Other("an event that stands alone stands inside a compressed transaction"));
        }
        Ok(Event { header, body: self.body(header, rest)? })
    }

    fn body<'a>(&self, header: Header, body: Bytes<'a>) -> Result<Body<'a>, Malformed> {
        let width = self.format.table_id_width(header.code);
        let rows = |kind, version| RowsEvent::parse(body, kind, version, width, false).map(Body::Rows);
        let compressed = |kind, version| RowsEvent::parse(body, kind, version, width, true).map(Body::Rows);
        match header.code {
            code::TABLE_MAP => TableMapEvent::parse(body, width, self.format.is_mariadb()).map(Body::TableMap),
            code::WRITE_ROWS_V1 => rows(RowsKind::Insert, 1),
            code::UPDATE_ROWS_V1 => rows(RowsKind::Update, 1),
            code::DELETE_ROWS_V1 => rows(RowsKind::Delete, 1),
            code::WRITE_ROWS => rows(RowsKind::Insert, 2),
            code::UPDATE_ROWS => rows(RowsKind::Update, 2),
            code::DELETE_ROWS => rows(RowsKind::Delete, 2),
            code::PARTIAL_UPDATE_ROWS => rows(RowsKind::PartialUpdate, 2),
            code::MARIA_WRITE_ROWS_COMPRESSED_V1 => compressed(RowsKind::Insert, 1),
            code::MARIA_UPDATE_ROWS_COMPRESSED_V1 => compressed(RowsKind::Update, 1),
            code::MARIA_DELETE_ROWS_COMPRESSED_V1 => compressed(RowsKind::Delete, 1),
            code::MARIA_WRITE_ROWS_COMPRESSED => compressed(RowsKind::Insert, 2),
            code::MARIA_UPDATE_ROWS_COMPRESSED => compressed(RowsKind::Update, 2),
            code::MARIA_DELETE_ROWS_COMPRESSED => compressed(RowsKind::Delete, 2),
            code::TRANSACTION_PAYLOAD => Payload::parse(body).map(Body::Payload),
            _ => session::body(header, body),
        }
    }
}

#[cold]
fn damaged(expected: u32, found: u32) -> Malformed {
    Malformed::Checksum { expected, found }
}

/// Checks the last four bytes. A format description is protected as it is when its file is closed.
fn check(bytes: &[u8], flags: u16) -> Result<(), Malformed> {
    const FLAGS_AT: usize = 17;
    let (body, crc) = bytes.split_last_chunk::<CRC>().ok_or(Malformed::Short)?;
    let found = u32::from_le_bytes(*crc);
    let expected = if flags & Header::IN_USE_FLAG == 0 {
        crc32fast::hash(body)
    } else {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&body[..FLAGS_AT]);
        hasher.update(&(flags & !Header::IN_USE_FLAG).to_le_bytes());
        hasher.update(body.get(HEADER..).ok_or(Malformed::Short)?);
        hasher.finalize()
    };
    if expected == found { Ok(()) } else { Err(damaged(expected, found)) }
}

/// The codes of event types.
pub(super) mod code {
    pub const QUERY: u8 = 2;
    pub const STOP: u8 = 3;
    pub const ROTATE: u8 = 4;
    pub const INTVAR: u8 = 5;
    pub const APPEND_BLOCK: u8 = 9;
    pub const DELETE_FILE: u8 = 11;
    pub const RAND: u8 = 13;
    pub const USER_VAR: u8 = 14;
    pub const FORMAT_DESCRIPTION: u8 = 15;
    pub const XID: u8 = 16;
    pub const BEGIN_LOAD_QUERY: u8 = 17;
    pub const EXECUTE_LOAD_QUERY: u8 = 18;
    pub const TABLE_MAP: u8 = 19;
    pub const WRITE_ROWS_V1: u8 = 23;
    pub const UPDATE_ROWS_V1: u8 = 24;
    pub const DELETE_ROWS_V1: u8 = 25;
    pub const INCIDENT: u8 = 26;
    pub const HEARTBEAT: u8 = 27;
    pub const IGNORABLE: u8 = 28;
    pub const ROWS_QUERY: u8 = 29;
    pub const WRITE_ROWS: u8 = 30;
    pub const UPDATE_ROWS: u8 = 31;
    pub const DELETE_ROWS: u8 = 32;
    pub const GTID: u8 = 33;
    pub const ANONYMOUS_GTID: u8 = 34;
    pub const PREVIOUS_GTIDS: u8 = 35;
    pub const TRANSACTION_CONTEXT: u8 = 36;
    pub const VIEW_CHANGE: u8 = 37;
    pub const XA_PREPARE: u8 = 38;
    pub const PARTIAL_UPDATE_ROWS: u8 = 39;
    pub const TRANSACTION_PAYLOAD: u8 = 40;
    pub const HEARTBEAT_V2: u8 = 41;
    pub const GTID_TAGGED: u8 = 42;
    /// Aurora fills its files with it.
    pub const AURORA_PADDING: u8 = 100;
    pub const MARIA_ANNOTATE_ROWS: u8 = 160;
    pub const MARIA_CHECKPOINT: u8 = 161;
    pub const MARIA_GTID: u8 = 162;
    pub const MARIA_GTID_LIST: u8 = 163;
    pub const MARIA_START_ENCRYPTION: u8 = 164;
    pub const MARIA_QUERY_COMPRESSED: u8 = 165;
    pub const MARIA_WRITE_ROWS_COMPRESSED_V1: u8 = 166;
    pub const MARIA_UPDATE_ROWS_COMPRESSED_V1: u8 = 167;
    pub const MARIA_DELETE_ROWS_COMPRESSED_V1: u8 = 168;
    pub const MARIA_WRITE_ROWS_COMPRESSED: u8 = 169;
    pub const MARIA_UPDATE_ROWS_COMPRESSED: u8 = 170;
    pub const MARIA_DELETE_ROWS_COMPRESSED: u8 = 171;
}
