//! How a replication slot is doing.

use serde::Serialize;

/// A replication slot, as its server saw it last.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SlotStatus {
    /// Its name.
    pub name: String,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: String,
    /// Log that the server keeps for it.
    pub retained_bytes: Option<u64>,
    /// Log that may still be written before it is lost; `None` where the server sets no limit.
    pub safe_bytes: Option<i64>,
    /// Log between what was acknowledged and the server's end.
    pub behind_bytes: Option<u64>,
    /// Log that the server has written per second, over the last minutes.
    pub wal_bytes_per_s: Option<f64>,
    /// Seconds until it is lost if it goes on like in the last minutes; `None` while that does not come.
    pub runs_out_in_s: Option<f64>,
    /// Why somebody should look after it.
    pub alert: Option<String>,
    /// Why the server has made it unusable (PostgreSQL 16 and newer).
    pub invalidation_reason: Option<String>,
    /// Since when nobody reads it (PostgreSQL 17 and newer).
    pub inactive_since: Option<String>,
    /// The server gives it up when nobody has read it for this long; `None`: never, or older than PostgreSQL 18.
    pub idle_timeout_s: Option<u64>,
    /// Whether it is kept ready on standbys.
    pub failover: bool,
    /// Whether it came from another server, which was the primary before this one.
    pub synced: bool,
}
