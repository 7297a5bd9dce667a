//! The few sessions that all groups share.

use std::sync::{Mutex, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::session::{Place, Session};
use crate::config::RedshiftWarehouse;
use crate::error::{Error, ErrorKind, Result};

/// Sessions at the same time: commits are serial in the whole cluster, so more of them only wait there.
const MOST: usize = 4;

/// Sessions that are open, and the way to open more.
pub(super) struct Sessions {
    pub place: Place,
    idle: Mutex<Vec<Session>>,
    slots: Semaphore,
}

/// A session that is in use. It is closed when it is dropped: what was not committed is undone, temporary tables go.
pub(super) struct Lease<'a> {
    pub session: Session,
    _slot: SemaphorePermit<'a>,
}

impl Sessions {
    pub fn new(config: &RedshiftWarehouse) -> Result<Self> {
        Ok(Self { place: Place::new(config)?, idle: Mutex::default(), slots: Semaphore::new(MOST) })
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
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    async fn open(&self) -> Result<Session> {
        let (Some(user), Some(password)) = (&self.place.user, &self.place.password) else {
            return Err(Error::new(
                ErrorKind::Config,
                "the URL of the Redshift warehouse lacks the user or the password",
            )
            .help("write it as redshift://user:password@host:5439/database"));
        };
        Session::open(&self.place, user, password).await
    }

    /// Keeps a session in which no transaction is open, for the next one who needs one.
    pub fn give_back(&self, lease: Lease<'_>) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(lease.session);
    }
}
