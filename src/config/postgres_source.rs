//! PostgreSQL as a source: what people write.

use std::num::{NonZeroU32, NonZeroU64};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::database_source::{DatabaseTls, OnFilledColumn, SnapshotMode, gibibyte};
use super::hidden;
use super::units::{Bytes, Span};

/// PostgreSQL 13 or newer, read by logical replication.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresSource {
    /// `postgres://user:password@host:port/database`. What is written beside it (`host`, `user`, …) goes before its parts.
    #[serde(default, serialize_with = "hidden::optional_url")]
    pub url: Option<String>,
    /// The server's name or address.
    #[serde(default)]
    pub host: Option<String>,
    /// The server's port; 5432 when absent.
    #[serde(default)]
    pub port: Option<u16>,
    /// The role: it needs `REPLICATION` and `SELECT` on the tables.
    #[serde(default)]
    pub user: Option<String>,
    /// Its password.
    #[serde(default, serialize_with = "hidden::optional")]
    pub password: Option<String>,
    /// The database.
    #[serde(default)]
    pub database: Option<String>,
    /// TLS towards the server.
    #[serde(default)]
    pub tls: DatabaseTls,
    /// The publication; made when it is missing and the role may. `dataflow_<topology>_<source>` when absent.
    #[serde(default)]
    pub publication: Option<String>,
    /// The replication slot; made when it is missing. `dataflow_<topology>_<source>` when absent.
    #[serde(default)]
    pub slot: Option<String>,
    /// Which tables may be read, as `schema.table`; `*` stands for any characters, and a leading `^` makes the entry a
    /// regular expression. Those that a table of the topology reads (`from: public.orders`) are captured.
    #[serde(default = "public_tables")]
    pub tables: Vec<String>,
    /// How the rows are read that are there already.
    #[serde(default)]
    pub snapshot: PostgresSnapshot,
    /// How often a small message is written into the log (`pg_logical_emit_message`), so that the slot moves on while the
    /// captured tables are quiet; `0s` writes none.
    #[serde(default = "minute")]
    pub heartbeat: Span,
    /// A connection from which nothing came for this long is taken for dead, and made anew.
    #[serde(default = "minute_and_a_half")]
    pub receive_timeout: Span,
    /// A transaction becomes visible at once unless it has more payload bytes than this; then it says so in the log.
    #[serde(default = "gibibyte")]
    pub max_transaction: Bytes,
    /// Whether the server sends large transactions (above its `logical_decoding_work_mem`) while they still run. They are
    /// kept in `spool` until they are committed, instead of on the server's disk. PostgreSQL 14 or newer.
    #[serde(default)]
    pub streaming: PostgresStreaming,
    /// The folder for transactions that the server sends while they run; the system's folder for temporary files when
    /// absent. Nothing is left in it, however the process ends.
    #[serde(default)]
    pub spool: Option<String>,
    /// The bytes that `spool` may take. When they do not suffice, what is there is given up, and the server keeps large
    /// transactions on its own disk until the next connection.
    #[serde(default = "gibibyte")]
    pub max_spool: Bytes,
    /// Changes that the server has itself got from elsewhere by logical replication: `any` takes them, `none` leaves
    /// them out (PostgreSQL 16 or newer).
    #[serde(default)]
    pub origin: PostgresOrigin,
    /// Makes the slot one that is kept ready on standbys, so that a promoted one has it (PostgreSQL 17 or newer; the
    /// standby needs `sync_replication_slots`, `hot_standby_feedback` and a `dbname` in `primary_conninfo`).
    #[serde(default)]
    pub failover: bool,
}

fn public_tables() -> Vec<String> {
    vec!["public.*".into()]
}

fn minute() -> Span {
    Span::seconds(60)
}

fn minute_and_a_half() -> Span {
    Span::seconds(90)
}

/// Whether large transactions are sent while they run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PostgresStreaming {
    /// They are, where the server can.
    #[default]
    On,
    /// The server keeps them until they are committed.
    Off,
}

/// Which changes are read, by where they were made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PostgresOrigin {
    /// All of them.
    #[default]
    Any,
    /// Those that were made on the server itself.
    None,
}

/// The rows that are there before the stream begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PostgresSnapshot {
    /// Whether they are read.
    pub mode: SnapshotMode,
    /// What happens when the slot is gone and changes with it.
    pub on_lost_slot: OnLostSlot,
    /// What happens when rows get values and no event says so: a column is added with a default, or DDL writes the table
    /// anew (`ALTER COLUMN … TYPE`, a volatile default).
    pub on_filled_column: OnFilledColumn,
    /// How many tables are read at once, each over a connection of its own.
    pub parallel: NonZeroU32,
    /// A table is read in parts of at most so many rows: the stream waits for no longer than a part takes.
    pub chunk_rows: NonZeroU64,
    /// About the most bytes of a part, as far as the size of rows can be guessed.
    pub chunk_bytes: Bytes,
}

impl Default for PostgresSnapshot {
    fn default() -> Self {
        Self {
            mode: SnapshotMode::default(),
            on_lost_slot: OnLostSlot::default(),
            on_filled_column: OnFilledColumn::default(),
            parallel: NonZeroU32::MIN.saturating_add(1),
            chunk_rows: NonZeroU64::MIN.saturating_add(99_999),
            chunk_bytes: Bytes(64 << 20),
        }
    }
}

/// What happens when the slot no longer has what must come next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnLostSlot {
    /// The process stops and says how to go on.
    #[default]
    Halt,
    /// A new slot is made, and every table is read again. Changes in between are never seen one by one.
    SnapshotAgain,
}
