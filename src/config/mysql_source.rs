//! MySQL and MariaDB as a source: what people write.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::database_source::{DatabaseTls, OnFilledColumn, SnapshotMode, gibibyte};
use super::hidden;
use super::units::{Bytes, Span};

/// MySQL 8 or newer, or MariaDB 10.6 or newer, read by its row-based binary log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MysqlSource {
    /// `mysql://user:password@host:port`. What is written beside it (`host`, `user`, …) goes before its parts.
    #[serde(default, serialize_with = "hidden::optional_url")]
    pub url: Option<String>,
    /// The server's name or address.
    #[serde(default)]
    pub host: Option<String>,
    /// The server's port; 3306 when absent.
    #[serde(default)]
    pub port: Option<u16>,
    /// The account: it needs `REPLICATION SLAVE`, `REPLICATION CLIENT` (MariaDB: `BINLOG MONITOR`) and `SELECT` on the
    /// tables.
    #[serde(default)]
    pub user: Option<String>,
    /// Its password.
    #[serde(default, serialize_with = "hidden::optional")]
    pub password: Option<String>,
    /// TLS towards the server.
    #[serde(default)]
    pub tls: DatabaseTls,
    /// Which tables may be read, as `database.table`; `*` stands for any characters, and a leading `^` makes the entry a
    /// regular expression. Those that a table of the topology reads (`from: shop.orders`) are captured.
    pub tables: Vec<String>,
    /// The number under which this reader registers with the server; no replica and no other reader of the server may have
    /// the same. Derived from the names of topology and source when absent.
    #[serde(default)]
    pub server_id: Option<u32>,
    /// How the rows are read that are there already.
    #[serde(default)]
    pub snapshot: MysqlSnapshot,
    /// How often the server says that it is there while nothing happens; a connection that is silent for three times as
    /// long (and for 30 seconds at least) is given up and made again.
    #[serde(default = "ten_seconds")]
    pub heartbeat: Span,
    /// A transaction becomes visible at once unless it has more payload bytes than this; then it says so in the log.
    #[serde(default = "gibibyte")]
    pub max_transaction: Bytes,
    /// Databases on which statements are passed over that stand in the log without their rows (statement format), by their
    /// exact names; `mysql` and `sys` always are. Everywhere else such a statement halts the source: its triggers, foreign
    /// keys and functions may change captured tables, and what they change in those is never seen once it is passed over.
    #[serde(default)]
    pub ignore_statements_on: Vec<String>,
}

fn ten_seconds() -> Span {
    Span::seconds(10)
}

/// The rows that are there before the stream begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MysqlSnapshot {
    /// Whether they are read.
    pub mode: SnapshotMode,
    /// What happens when the server no longer has the binary log that must come next.
    pub on_lost_position: OnLostPosition,
    /// What happens when DDL gives rows values without any event: a column with a default, a conversion, another name.
    pub on_filled_column: OnFilledColumn,
    /// What happens when a row cannot be read because the columns that it was written with are not known: the log does not
    /// name them (`binlog_row_metadata` other than `FULL`), and it does not fit what the statements before it say.
    pub on_unknown_columns: OnUnknownColumns,
    /// How many tables are read at the same time.
    pub parallel: u32,
    /// How many rows are read at once, in the order of the primary key.
    pub chunk_rows: u32,
}

impl Default for MysqlSnapshot {
    fn default() -> Self {
        Self {
            mode: SnapshotMode::default(),
            on_lost_position: OnLostPosition::default(),
            on_filled_column: OnFilledColumn::default(),
            on_unknown_columns: OnUnknownColumns::default(),
            parallel: 4,
            chunk_rows: 20_000,
        }
    }
}

/// What happens when the server no longer has what must come next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnLostPosition {
    /// The process stops and says how to go on.
    #[default]
    Halt,
    /// The stream begins anew at the server's end, every table is emptied and read again. Changes in between are never
    /// seen one by one.
    SnapshotAgain,
}

/// What happens when the columns of a table are not known at some place of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnUnknownColumns {
    /// The process stops at the first such row and says how to go on.
    #[default]
    Halt,
    /// The table is emptied and read again, with the columns that it has by then.
    ReadAgain,
}
