//! The binary log of MySQL and MariaDB: bytes to events, and row events to one record per row.
//!
//! ```text
//! file    fe 'bin'  event*                          network  00 event   (one per packet)
//! event   header 19 | body | CRC32, when the format description says so
//! MySQL   GTID QUERY(BEGIN) (TABLE_MAP+ ROWS+)* XID               | GTID QUERY(DDL)
//!         GTID TRANSACTION_PAYLOAD(QUERY … XID, compressed: without checksums, log_pos 0)
//! MariaDB GTID (ANNOTATE TABLE_MAP+ ROWS+)* XID                   | GTID(standalone) QUERY(DDL)
//! ```
//!
//! | file | what it owns |
//! |---|---|
//! | `event.rs` | the header, the checksum, and which event it is |
//! | `session.rs` | events of sessions: queries, GTIDs, heartbeats |
//! | `table_map.rs` | table maps and their metadata |
//! | `describe.rs` | a table map and what the catalog says, joined to a shape |
//! | `rows.rs` | row events, split into rows without reading a value |
//! | `record.rs` | the record of one row: what the source pushes and the decoder reads |
//! | `compress.rs` | compressed transactions and events |
//! | `file.rs` | the events of a file |
//!
//! # What surprises
//!
//! * `log_pos` is where the event *ends*, and wraps at 4 GiB; inside a compressed transaction it is 0.
//! * A table's number lives until the table is changed or the server restarts: it names a table map, not a table.
//! * A row event has no types: it cannot be read, not even skipped row by row, without its table map.
//! * A row image lists the columns that it has in a bitmap of its own; absent is not null.
//! * `STRING` in a table map may be an `ENUM`, a `SET` or a `CHAR`, and a `CHAR` longer than 255 bytes hides two bits of
//!   its length in its type.

mod bytes;
mod compress;
mod describe;
mod event;
mod file;
mod record;
mod rows;
mod session;
mod table_map;
#[cfg(test)]
mod tests;

pub(in crate::wire) use self::bytes::Bytes;
pub use self::compress::Payload;
pub use self::describe::{Misfit, fits, shape};
pub use self::event::{Body, Checksum, Event, EventReader, FormatDescription, Header};
pub use self::file::BinlogFile;
pub use self::record::{Record, RecordKind, SnapshotWriter, Typed, TypedValues, describe_key, truncate_record};
pub use self::rows::{Cell, Images, Presence, RowSplitter, RowsEvent, RowsKind};
pub use self::session::{Gtid, Heartbeat, Query, XaPrepare};
pub use self::table_map::{MapColumn, Metadata, TableMap, TableMapEvent};

/// Why bytes are not an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("it ends in the middle of an event")]
    Short,
    #[error("it has {0} bytes more than its event")]
    Long(usize),
    #[error("a length in it is not a number")]
    Number,
    #[error("a name in it is not UTF-8")]
    Encoding,
    #[error("its checksum is {found:08x}, and {expected:08x} is what its bytes give; the log is damaged")]
    Checksum { expected: u32, found: u32 },
    #[error("its checksums are of an unknown kind ({0})")]
    ChecksumKind(u8),
    #[error("events of type {0} are not known here, and this one is not marked as one to pass over")]
    Unknown(u8),
    #[error("events of type {0} were written by servers before MySQL 5.1 and are not read")]
    Ancient(u8),
    #[error("the log is encrypted and was read as a file; let the server send it")]
    Encrypted,
    #[error("its compressed part cannot be read: {0}")]
    Compressed(String),
    #[error("its rows have {event} columns and its table map {map}")]
    Width { event: usize, map: usize },
    #[error("column {0} is of a type that is not known here (code {1}, metadata {2})")]
    Type(usize, u8, u16),
    #[error("{0}")]
    Other(&'static str),
}
