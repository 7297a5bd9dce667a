//! The few sessions that all groups share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::credentials::Credentials;
use super::session::{Place, Session};
use crate::config::RedshiftWarehouse;
use crate::error::{Error, ErrorKind, Result};

/// Sessions at the same time: commits are serial in the whole cluster, so more of them only wait there.
const MOST: usize = 4;

/// Sessions that are open, and the way to open more.
pub(super) struct Sessions {
    pub place: Arc<Place>,
    credentials: Credentials,
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
        let place = Arc::new(Place::new(config)?);
        let credentials = Credentials::new(config, &place)?;
        Ok(Self { place, credentials, idle: Mutex::default(), slots: Semaphore::new(MOST) })
    }

    /// A session that nobody else uses; waits for one when all are in use.
    pub async fn lease(&self) -> Result<Lease<'_>> {
        let slot = self.slots.acquire().await;
        let slot = slot.map_err(|error| Error::new(ErrorKind::Internal, "share sessions").because(error))?;
        while let Some(mut session) = self.take_idle() {
            if session.lives() {
                return Ok(Lease { session, _slot: slot });
            }
        }
        Ok(Lease { session: self.open().await?, _slot: slot })
    }

    fn take_idle(&self) -> Option<Session> {
        self.idle().pop().map(|(session, _)| session)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Session, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes sessions that nobody has used for so long: the last one used is the first one taken.
    pub fn close_unused(&self, unused_for: Duration) {
        self.idle().retain_mut(|(session, since)| since.elapsed() < unused_for && session.lives());
    }

    async fn open(&self) -> Result<Session> {
        let login = self.credentials.login().await?;
        let refused = match Session::open(&self.place, &login.user, &login.password).await {
            Ok(session) => return Ok(session),
            Err(refused) => refused,
        };
        // What was lent may have been taken back, or the clocks disagree: another one, once.
        let again = if refused.login_refused { self.credentials.instead_of(&login).await? } else { None };
        let Some(login) = again else { return Err(refused.error) };
        tracing::info!(
            user = login.user,
            "the login of the Redshift warehouse did not hold any more; AWS lent another"
        );
        Session::open(&self.place, &login.user, &login.password).await.map_err(|refused| refused.error)
    }

    /// Keeps a session in which no transaction is open, for the next one who needs one.
    pub fn give_back(&self, lease: Lease<'_>) {
        self.idle().push((lease.session, Instant::now()));
    }
}
