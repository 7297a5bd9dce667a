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
///
/// 2: [`Control::Compacted`] and [`Control::Retired`]. A manifest without them is still of format 1, which older programs read.
pub const FORMAT_VERSION: u32 = 2;

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
    /// The processed files of these tables in one hour (`dt=2026-11-22/hour=14`) are also in other files. Nothing is left to
    /// compact up to and with the epoch `considered`.
    Compacted { hour: String, tables: BTreeMap<String, Compaction>, considered: EpochNumber },
    /// What compactions up to and with the epoch `through` replaced is deleted.
    Retired { through: EpochNumber },
}

impl Control {
    /// The lowest format version that a reader must know.
    pub fn reader(&self) -> u32 {
        if matches!(self, Self::Compacted { .. } | Self::Retired { .. }) { 2 } else { 1 }
    }
}

/// An hour of a table in files that are sorted by key. Every row says which epoch it is of and where it stood there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compaction {
    /// The first epoch inside.
    pub first: EpochNumber,
    /// The last one.
    pub last: EpochNumber,
    /// The files, below a folder that holds nothing else.
    pub files: Vec<DataFile>,
}
