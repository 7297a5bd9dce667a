//! The few sessions that all groups share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::api::{self, DataApi};
use super::credentials::Credentials;
use super::session::Session;
use super::wire;
use crate::config::{RedshiftTransport, RedshiftWarehouse};
use crate::error::{Error, ErrorKind, Result};

/// Sessions at the same time: commits are serial in the whole cluster, so more of them only wait there.
const MOST: usize = 4;

/// Where the sessions go.
pub(super) struct Place {
    name: String,
    /// How long the server may be silent.
    pub limit: Duration,
    /// Nobody on the way can read what is said.
    pub is_secure: bool,
    /// How long a statement may be.
    pub statement_bytes: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

/// How a session is opened.
enum Way {
    Wire(Arc<wire::Place>, Box<Credentials>),
    Api(Arc<DataApi>),
}

impl Way {
    fn new(config: &RedshiftWarehouse) -> Result<(Self, Place)> {
        let limit = config.statement_timeout.0;
        if config.transport == RedshiftTransport::DataApi {
            let api = DataApi::new(config)?;
            let (name, is_secure) = (api.name().to_owned(), api.is_secure());
            let place = Place { name, limit, is_secure, statement_bytes: api::STATEMENT_BYTES };
            return Ok((Self::Api(Arc::new(api)), place));
        }
        let there = Arc::new(wire::Place::new(config)?);
        let (name, is_secure) = (there.to_string(), there.is_secure());
        let credentials = Credentials::new(config, &there)?;
        let place = Place { name, limit, is_secure, statement_bytes: wire::STATEMENT_BYTES };
        Ok((Self::Wire(there, Box::new(credentials)), place))
    }

    async fn open(&self) -> Result<Session> {
        match self {
            Self::Wire(place, credentials) => {
                let session = log_in(place, credentials).await?;
                Ok(Session::Wire(Box::new(session)))
            }
            Self::Api(api) => Session::through(api).await,
        }
    }
}

async fn log_in(place: &Arc<wire::Place>, credentials: &Credentials) -> Result<wire::Session> {
    let login = credentials.login().await?;
    let refused = match wire::Session::open(place, &login.user, &login.password).await {
        Ok(session) => return Ok(session),
        Err(refused) => refused,
    };
    // What was lent may have been taken back, or the clocks disagree: another one, once.
    let again = if refused.login_refused { credentials.instead_of(&login).await? } else { None };
    let Some(login) = again else { return Err(refused.error) };
    tracing::info!(user = login.user, "the login of the Redshift warehouse did not hold any more; AWS lent another");
    wire::Session::open(place, &login.user, &login.password).await.map_err(|refused| refused.error)
}

/// Sessions that are open, and the way to open more.
pub(super) struct Sessions {
    pub place: Place,
    way: Way,
    /// With when each was last used.
    idle: Mutex<Vec<(Session, Instant)>>,
    slots: Semaphore,
}

/// A session that is in use. It is closed when it is dropped: what was not committed is undone, temporary tables go.
pub(super) struct Lease<'a> {
    pub session: Session,
    _slot: SemaphorePermit<'a>,
}

impl Sessions {
    pub fn new(config: &RedshiftWarehouse) -> Result<Self> {
        let (way, place) = Way::new(config)?;
        Ok(Self { place, way, idle: Mutex::default(), slots: Semaphore::new(MOST) })
    }

    /// A session that nobody else uses; waits for one when all are in use.
    pub async fn lease(&self) -> Result<Lease<'_>> {
        let slot = self.slots.acquire().await;
        let slot = slot.map_err(|error| Error::new(ErrorKind::Internal, "share sessions").because(error))?;
        if let Way::Api(api) = &self.way {
            api.end_forsaken().await;
        }
        while let Some(mut session) = self.take_idle() {
            if session.lives() {
                return Ok(Lease { session, _slot: slot });
            }
        }
        Ok(Lease { session: self.way.open().await?, _slot: slot })
    }

    fn take_idle(&self) -> Option<Session> {
        self.idle().pop().map(|(session, _)| session)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Session, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether every statement is a request to the Data API.
    pub fn through_api(&self) -> bool {
        matches!(self.way, Way::Api(_))
    }

    /// Closes sessions that nobody has used for so long: the last one used is the first one taken.
    pub fn close_unused(&self, unused_for: Duration) {
        self.idle().retain_mut(|(session, since)| since.elapsed() < unused_for && session.lives());
    }

    /// Keeps a session in which no transaction is open, for the next one who needs one.
    pub fn give_back(&self, lease: Lease<'_>) {
        self.idle().push((lease.session, Instant::now()));
    }
}
