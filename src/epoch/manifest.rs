//! One object of the log. Its put-if-absent is the atomic commit of a whole epoch.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use ulid::Ulid;
use uuid::Uuid;

use super::{Account, EpochNumber};
use crate::contract::Contract;
use crate::progress::Advance;

/// The newest manifest format that this code writes and reads. A manifest whose `reader` is higher is refused.
pub const FORMAT_VERSION: u32 = 1;

/// One committed epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format that it is written in.
    pub format: u32,
    /// The lowest format version that a reader must know.
    pub reader: u32,
    /// The log that it belongs to.
    pub log: Uuid,
    /// Its number.
    pub n: EpochNumber,
    /// Which attempt wrote it: how a writer whose answer was lost recognises its own.
    pub attempt: Ulid,
    /// When the epoch was sealed, by the writer's clock.
    pub sealed_at: DateTime<Utc>,
    /// How far it read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spans: Vec<Advance>,
    /// Data by table.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tables: BTreeMap<String, TableEpoch>,
    /// What was refused; one file at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<RejectFile>,
    /// Raw payloads, when the topology keeps them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<DataFile>,
    /// New versions of contracts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contracts: Vec<Contract>,
    /// What people asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub control: Vec<Control>,
    /// What became of every record and row.
    #[serde(default)]
    pub account: Account,
}

/// What an epoch holds of one table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TableEpoch {
    /// The files in order: a key's later change is never in an earlier file.
    pub files: Vec<DataFile>,
    /// The newest commit time at the source, microseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_source_time_us: Option<i64>,
    /// The oldest commit time at the source, microseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_source_time_us: Option<i64>,
    /// Whether a key may appear more than once, or move, or be partial: then the epoch must be folded. `false` = every
    /// key once and every row whole, so the file can be loaded as it stands.
    pub fold: bool,
    /// Whether a truncate is inside.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncate: bool,
}

/// One immutable Parquet object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    /// Its path below the lake's root, e.g. `processed/orders/dt=2026-11-22/hour=14/01K….parquet`.
    pub path: String,
    /// The contract version whose output the columns follow (by name; missing columns were added later).
    pub contract: u32,
    /// Rows, markers included.
    pub rows: u64,
    /// Size of the object.
    pub bytes: u64,
    /// Size of the rows in memory (Arrow), for planning units.
    pub memory_bytes: u64,
    /// CRC-32 (IEEE) of the object.
    pub crc32: u32,
}

/// The epoch's quarantine file, with counts so that nobody must open it to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RejectFile {
    /// The file.
    pub file: DataFile,
    /// Entries by table (`""` where the table is not known).
    pub by_table: BTreeMap<String, u64>,
}

/// What a person asked for, in log order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Control {
    /// Changes of the table wait in the lake.
    Pause {
        table: String,
        why: String,
        /// It stopped by itself: no person asked for it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        parked: bool,
    },
    /// They are loaded again.
    Resume { table: String },
    /// The table is read again from its source.
    Resync { table: String },
    /// These quarantined entries (epoch and row in its quarantine file) came in again with this manifest.
    Retried { epoch: EpochNumber, rows: Vec<u64>, table: String },
    /// These quarantined entries were given up by a person.
    Dropped { epoch: EpochNumber, rows: Vec<u64>, table: String },
    /// The retention of what was refused up to and with the epoch `through` is over: entries that were still `open` (by
    /// table, `""` where it is not known) are closed, and their files go.
    Expired { through: EpochNumber, open: BTreeMap<String, u64> },
}
