//! The lake: Parquet files in zones, and the log whose manifests make them count.
//!
//! | file | what it owns |
//! |---|---|
//! | `store.rs` | objects on a local folder or S3: create-if-absent with three answers |
//! | `s3.rs` | the S3 client: encryption, checksums, retries, the count of requests |
//! | `policy.rs` | the least that the lake's role must be allowed |
//! | `form.rs` | the Parquet form of a `processed` file: columns, settings, encoding |
//! | `read.rs` | a `processed` file back to changes, mapped onto the newest contract |
//! | `table_writer.rs` | one table's open files in an epoch |
//! | `keys.rs` | whether the epoch must be folded |
//! | `epoch_writer.rs` | [`EpochWriter`]: all files of one attempt, streamed while the epoch is open |
//! | `quarantine.rs`, `raw.rs` | what was refused, and payloads as read |
//! | `crypt.rs` | payloads at rest |
//! | `log/` | [`Log`]: numbered manifests, the commit, checkpoints, the start-up probe |
//! | `expiry.rs` | closing quarantined entries in the log |
//! | `compact/` | the files of a closed hour written again as few, and how readers follow |
//! | `catalog/` | the tables and partitions of the lake in AWS Glue |
//! | `sweep.rs` | files that no manifest names, and retention |
//!
//! ```text
//! <lake>/_log/log.json                          identity: UUID, topology, format
//! <lake>/_log/00000000000000000001.json         manifests
//! <lake>/_log/checkpoint/00000000000000000064.json
//! <lake>/_log/probe/<ulid>                      tries the store out, and is deleted at once
//! <lake>/processed/<table>/dt=2026-11-22/hour=14/<attempt>.parquet
//! <lake>/compacted/<table>/dt=2026-11-22/hour=14/<attempt>/v<contract>-<number>.parquet
//! <lake>/catalog/<table>/dt=2026-11-22/hour=14/<attempt>.parquet
//!                                               copies of what manifests name: hours that are not compacted, for a catalog
//! <lake>/quarantine/dt=2026-11-22/<attempt>.parquet
//! <lake>/raw/dt=2026-11-22/hour=14/<attempt>.parquet
//! <lake>/archive/raw/dt=2026-11-22/hour=14/…     the same files, later
//! <lake>/_stage/<group>/<ulid>-….parquet         what a warehouse is loading; a manifest beside it
//! <lake>/_tmp/                                  local folders only: files before they get their name
//! ```

#[cfg(feature = "s3")]
mod catalog;
mod compact;
mod crypt;
mod epoch_writer;
mod expiry;
mod form;
mod keys;
mod log;
mod policy;
mod quarantine;
mod raw;
mod read;
#[cfg(feature = "s3")]
mod s3;
mod store;
mod sweep;
mod table_writer;

#[cfg(feature = "s3")]
pub use catalog::{Catalog, CatalogReport};
pub use compact::{CompactOptions, CompactReport, NoOutsiders, Outsiders, Retired, compact, retire, retire_as_of};
pub use epoch_writer::{EpochWriter, SealedFiles};
pub use expiry::Closings;
pub use log::{Access, Derive, Draft, DraftTable, Log, LogState, Stopped, TableTotals};
pub use policy::policy;
pub use quarantine::{Payload, StoredReject};
pub use raw::{RawFile, RawFiles};
pub use sweep::{Archived, SweepReport, archive_raw, sweep, sweep_as_of, sweep_everything};

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::config::{self, Compression, RawKeep};
use crate::epoch::DataFile;
use crate::error::{Error, ErrorKind, Result};
use crypt::MasterKey;
use store::Store;

/// Files that a warehouse is about to load.
const STAGE: &str = "_stage";

/// In front of the path of a raw file that has moved.
const ARCHIVE: &str = "archive";

/// An object store with the lake's root and settings. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Lake {
    store: Store,
    settings: Arc<Settings>,
}

#[derive(Debug)]
struct Settings {
    compression: Compression,
    raw: RawKeep,
    raw_key: Option<MasterKey>,
    raw_retention: Option<Duration>,
    raw_archive_after: Option<Duration>,
    quarantine_key: Option<MasterKey>,
    quarantine_retention: Option<Duration>,
}

impl Lake {
    /// Opens the lake that the topology describes. Touches neither network nor disk.
    pub fn open(config: &config::Lake) -> Result<Self> {
        let raw = config.raw.as_ref();
        let keep = raw.map_or(RawKeep::None, |raw| raw.keep);
        let raw_key = raw.and_then(|raw| raw.key.as_deref());
        let raw_key = raw_key.map(|text| MasterKey::from_hex("lake.raw.key", text)).transpose()?;
        if keep == RawKeep::Encrypted && raw_key.is_none() {
            return Err(Error::new(ErrorKind::Config, "lake.raw: `keep: encrypted` needs a key")
                .help("set lake.raw.key to 64 hexadecimal digits, e.g. from `openssl rand -hex 32`"));
        }
        let quarantine_key = config.quarantine.key.as_deref();
        let settings = Settings {
            compression: config.compression,
            raw: keep,
            raw_key,
            raw_retention: raw.and_then(|raw| raw.retention).map(|span| span.0),
            raw_archive_after: raw.and_then(|raw| raw.archive_after).map(|span| span.0),
            quarantine_key: quarantine_key.map(|text| MasterKey::from_hex("lake.quarantine.key", text)).transpose()?,
            quarantine_retention: config.quarantine.retention.map(|span| span.0),
        };
        Ok(Self { store: Store::open(config)?, settings: Arc::new(settings) })
    }

    /// The root, as the topology writes it.
    pub fn url(&self) -> &str {
        self.store.url()
    }

    /// Whether there is a log. Writes nothing.
    pub async fn has_log(&self) -> Result<bool> {
        Ok(self.store.get(log::IDENTITY).await?.is_some())
    }

    /// The URL of a file that a warehouse is to load.
    pub fn staged_url(&self, name: &str) -> String {
        format!("{}/{STAGE}/{name}", self.url())
    }

    /// Puts a file that a warehouse is to load, under a name that nobody else uses.
    pub async fn put_staged(&self, name: &str, body: Bytes) -> Result<()> {
        self.store.create_own("lake.stage", &format!("{STAGE}/{name}"), body).await
    }

    /// Removes files that a warehouse has loaded, or will not load.
    pub async fn discard_staged(&self, names: &[String]) -> Result<()> {
        self.store.delete_all(names.iter().map(|name| format!("{STAGE}/{name}")).collect()).await
    }

    /// Whether raw payloads are kept.
    pub fn keeps_raw(&self) -> bool {
        self.settings.raw != RawKeep::None
    }

    /// The whole object, its length and checksum as the manifest says.
    async fn fetch(&self, file: &DataFile) -> Result<Bytes> {
        if let Some(body) = self.find(file).await? {
            return Ok(body);
        }
        if file.path.starts_with("raw/")
            && let Some(body) =
                self.find(&DataFile { path: format!("{ARCHIVE}/{}", file.path), ..file.clone() }).await?
        {
            return Ok(body);
        }
        let expires = ["raw/", "quarantine/"].iter().any(|zone| file.path.starts_with(zone));
        Err(if expires {
            Error::new(ErrorKind::Config, format!("{}/{} is gone", self.url(), file.path))
                .help("its retention is over: see lake.raw.retention and lake.quarantine.retention")
        } else {
            self.corrupt(file, "is missing")
        })
    }

    fn corrupt(&self, file: &DataFile, why: &str) -> Error {
        Error::new(ErrorKind::LogCorrupt, format!("{}/{} {why}", self.url(), file.path))
            .help("a manifest names this file: restore it from a copy of the lake")
    }

    /// The same; `None` when there is no such object.
    async fn find(&self, file: &DataFile) -> Result<Option<Bytes>> {
        let corrupt = |why: String| self.corrupt(file, &why);
        let Some((body, _)) = self.store.get(&file.path).await? else { return Ok(None) };
        if body.len() as u64 != file.bytes {
            return Err(corrupt(format!("has {} bytes where its manifest says {}", body.len(), file.bytes)));
        }
        if crc32fast::hash(&body) != file.crc32 {
            return Err(corrupt("does not have the checksum that its manifest says".to_owned()));
        }
        Ok(Some(body))
    }
}

/// An error about a file whose checksum holds but whose content does not make sense.
fn unreadable(file: &DataFile, why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::LogCorrupt, format!("{} cannot be read: {why}", file.path))
}
