//! The log: numbered manifests, each put once. Its head is the truth about what was read and what counts.
//!
//! | file | what it owns |
//! |---|---|
//! | `state.rs` | [`LogState`]: the sum of all manifests, a pure function of them |
//! | `commit.rs` | [`Log::commit`]: the one put, and what its ambiguous answers mean |
//! | `checkpoint.rs` | the state as an object, so that start-up is quick |
//! | `probe.rs` | the proof that the store refuses a second create |

mod checkpoint;
mod commit;
mod probe;
mod state;

pub use commit::{Derive, Draft, DraftTable};
pub(super) use probe::PROBES;
pub use state::{LogState, Stopped, TableTotals};

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use ulid::Ulid;
use uuid::Uuid;

use super::Lake;
use super::store::{Created, Pause, vanished};
use crate::epoch::{EpochNumber, FORMAT_VERSION, Manifest};
use crate::error::{Error, ErrorKind, Result};
use crate::progress::{Progress, Standings};

pub(super) const IDENTITY: &str = "_log/log.json";
/// The form of [`Identity`], which is not that of manifests.
const IDENTITY_FORMAT: u32 = 1;
/// Manifests that are read at the same time when there is a lot to catch up with.
const READ_AHEAD: usize = 16;
/// Manifests that are kept in memory.
const CACHED: usize = 128;

/// What a process wants of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Commit: makes the log when there is none, and proves that the store keeps its promises.
    Write,
    /// Look: never writes anything.
    Read,
}

/// Who the log is: one small object, made once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    uuid: Uuid,
    topology: String,
    format: u32,
}

/// The log of a lake. Cheap to clone; all clones share one state.
#[derive(Debug, Clone)]
pub struct Log {
    lake: Lake,
    access: Access,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Held by whoever moves the state forward.
    turn: tokio::sync::Mutex<()>,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    state: Arc<LogState>,
    recent: BTreeMap<EpochNumber, Arc<Manifest>>,
    /// Attempts that this process has seen committed, for as long as one may come back.
    attempts: HashMap<Ulid, EpochNumber>,
}

/// The path of manifest `n`. Padded, so that a listing is in order.
pub(super) fn manifest_path(n: EpochNumber) -> String {
    format!("_log/{n:020}.json")
}

impl Log {
    /// Opens the log of `topology`, from the newest checkpoint and the manifests after it.
    pub async fn open(lake: Lake, topology: &str, access: Access) -> Result<Self> {
        let identity = identify(&lake, topology, access).await?;
        Self::opened(lake, &identity, access).await
    }

    /// Opens a log to read it, whichever topology it belongs to: with that one's name.
    pub async fn open_any(lake: Lake) -> Result<(Self, String)> {
        let Some((body, _)) = lake.store.get(IDENTITY).await? else {
            return Err(Error::new(ErrorKind::Config, format!("there is no log in {}", lake.url()))
                .help("correct the URL: a lake holds `_log/log.json`"));
        };
        let identity = parse_identity(&lake, &body)?;
        let log = Self::opened(lake, &identity, Access::Read).await?;
        Ok((log, identity.topology))
    }

    async fn opened(lake: Lake, identity: &Identity, access: Access) -> Result<Self> {
        if access == Access::Write {
            probe::prove_put_if_absent(&lake.store).await?;
        }
        let state = match checkpoint::newest(&lake.store, identity.uuid).await? {
            Some(state) => state,
            None => LogState::new(identity.uuid),
        };
        let known = Known { state: Arc::new(state), recent: BTreeMap::new(), attempts: HashMap::new() };
        let shared = Arc::new(Shared { turn: tokio::sync::Mutex::new(()), known: Mutex::new(known) });
        let log = Self { lake, access, shared };
        log.refresh().await?;
        Ok(log)
    }

    /// What it was opened for.
    pub fn access(&self) -> Access {
        self.access
    }

    /// The lake that it belongs to.
    pub fn lake(&self) -> &Lake {
        &self.lake
    }

    /// What is known without asking the store.
    pub fn state(&self) -> Arc<LogState> {
        Arc::clone(&self.known().state)
    }

    /// Reads what others have committed.
    pub async fn refresh(&self) -> Result<Arc<LogState>> {
        let _turn = self.shared.turn.lock().await;
        // Most often there is nothing new: one read finds that out.
        let next = self.state().n + 1;
        if let Some(manifest) = self.read(next).await? {
            self.follow(manifest).await?;
            let mut ahead = futures::stream::iter(next + 1..).map(|n| self.read(n)).buffered(READ_AHEAD);
            while let Some(manifest) = ahead.next().await.transpose()?.flatten() {
                self.follow(manifest).await?;
            }
        }
        Ok(self.state())
    }

    /// Manifest `n`, which must be committed.
    pub async fn manifest(&self, n: EpochNumber) -> Result<Arc<Manifest>> {
        if let Some(manifest) = self.known().recent.get(&n) {
            return Ok(Arc::clone(manifest));
        }
        let found = self.read(n).await?.map(Arc::new);
        found.ok_or_else(|| self.missing(n))
    }

    /// Manifest `n`, and when the store got it.
    pub(super) async fn manifest_and_time(&self, n: EpochNumber) -> Result<(Manifest, DateTime<Utc>)> {
        match self.lake.store.get(&manifest_path(n)).await? {
            Some((body, meta)) => Ok((self.parse(n, &body)?, meta.last_modified)),
            None => Err(self.missing(n)),
        }
    }

    fn missing(&self, n: EpochNumber) -> Error {
        let what = format!("{}/{} is missing", self.lake.url(), manifest_path(n));
        Error::new(ErrorKind::LogCorrupt, what).help("manifests are never deleted: restore it from a copy")
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.shared.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads manifest `n` from the store; `None` when it is not there.
    async fn read(&self, n: EpochNumber) -> Result<Option<Manifest>> {
        let path = manifest_path(n);
        match self.lake.store.get(&path).await? {
            Some((body, _)) => self.parse(n, &body).map(Some),
            None => Ok(None),
        }
    }

    fn parse(&self, n: EpochNumber, body: &[u8]) -> Result<Manifest> {
        let place = || format!("{}/{}", self.lake.url(), manifest_path(n));
        refuse_newer(&place(), body)?;
        let manifest: Manifest = serde_json::from_slice(body)
            .map_err(|error| Error::new(ErrorKind::LogCorrupt, format!("{} cannot be read", place())).because(error))?;
        let log = self.state().log;
        if manifest.n != n || manifest.log != log {
            let what = format!("{} says that it is manifest {} of log {}", place(), manifest.n, manifest.log);
            return Err(Error::new(ErrorKind::LogCorrupt, what).help(format!("this is log {log}; was it copied?")));
        }
        Ok(manifest)
    }

    /// Takes a committed manifest into the state, and leaves a checkpoint where one is due.
    async fn follow(&self, manifest: Manifest) -> Result<Arc<Manifest>> {
        let manifest = Arc::new(manifest);
        let state = {
            let mut known = self.known();
            let mut state = LogState::clone(&known.state);
            state.apply(&manifest)?;
            known.state = Arc::new(state);
            known.recent.insert(manifest.n, Arc::clone(&manifest));
            while known.recent.len() > CACHED {
                known.recent.pop_first();
            }
            known.attempts.insert(manifest.attempt, manifest.n);
            commit::forget_old_attempts(&mut known.attempts);
            Arc::clone(&known.state)
        };
        if self.access == Access::Write && checkpoint::is_due(state.n) {
            checkpoint::leave(&self.lake.store, &state).await;
        }
        Ok(manifest)
    }
}

#[async_trait]
impl Standings for Log {
    async fn latest(&self) -> Result<Progress> {
        Ok(self.refresh().await?.progress.clone())
    }
}

/// Refuses what a newer program wrote before the rest of it is looked at.
fn refuse_newer(place: &str, body: &[u8]) -> Result<()> {
    #[derive(Deserialize)]
    struct Header {
        reader: u32,
    }
    let header: Header = serde_json::from_slice(body)
        .map_err(|error| Error::new(ErrorKind::LogCorrupt, format!("{place} cannot be read")).because(error))?;
    if header.reader <= FORMAT_VERSION {
        return Ok(());
    }
    let what = format!("{place} needs format {} and this program knows {FORMAT_VERSION}", header.reader);
    Err(Error::new(ErrorKind::Config, what).help("run a newer dataflow: one has already written to this log"))
}

async fn identify(lake: &Lake, topology: &str, access: Access) -> Result<Identity> {
    let mut pause = Pause::default();
    let mut made = false;
    loop {
        if let Some((body, _)) = lake.store.get(IDENTITY).await? {
            return recognise(lake, topology, &body);
        }
        if made {
            pause.next(vanished(IDENTITY)).await?;
        }
        if access == Access::Read {
            return Err(Error::new(ErrorKind::Config, format!("there is no log in {}", lake.url()))
                .help("`dataflow run` makes it"));
        }
        let identity = Identity { uuid: Uuid::new_v4(), topology: topology.to_owned(), format: IDENTITY_FORMAT };
        let body = serde_json::to_vec_pretty(&identity)
            .map_err(|error| Error::new(ErrorKind::Internal, "write the log's identity").because(error))?;
        // Whatever the answer: what is read back decides, ours or another process's.
        match lake.store.create("log.identity", IDENTITY, body.into()).await {
            Created::Yes | Created::Exists => made = true,
            Created::Unknown(error) if error.kind() == &ErrorKind::StoreUnavailable => pause.next(error).await?,
            Created::Unknown(error) => return Err(error),
        }
    }
}

fn recognise(lake: &Lake, topology: &str, body: &[u8]) -> Result<Identity> {
    let identity = parse_identity(lake, body)?;
    if identity.topology != topology {
        let what = format!("the lake {} belongs to topology `{}`", lake.url(), identity.topology);
        return Err(Error::new(ErrorKind::Config, what).help(format!("give `{topology}` a lake of its own")));
    }
    Ok(identity)
}

fn parse_identity(lake: &Lake, body: &[u8]) -> Result<Identity> {
    let place = format!("{}/{IDENTITY}", lake.url());
    let identity: Identity = serde_json::from_slice(body)
        .map_err(|error| Error::new(ErrorKind::LogCorrupt, format!("{place} cannot be read")).because(error))?;
    if identity.format > IDENTITY_FORMAT {
        let what = format!("{place} has format {} and this program knows {IDENTITY_FORMAT}", identity.format);
        return Err(Error::new(ErrorKind::Config, what).help("run a newer dataflow"));
    }
    Ok(identity)
}
