//! Transactions that the server sends while they run: kept apart, and at their commit handed out like any other.

use std::sync::atomic::Ordering;

use super::{Open, Stream};
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint;
use crate::source::postgres::spool::Trouble;
use crate::telemetry;
use crate::wire::pgoutput::{Lsn, Message, parse};

/// The messages of a running transaction that are kept; the others say nothing that is needed.
const KEPT: &[u8] = b"RIUDTM";

impl Stream {
    /// A message of the plug-in: kept as long as it belongs to a transaction that runs.
    pub(super) async fn received(&mut self, lsn: Lsn, data: &[u8]) -> Result<()> {
        let Some(tag) = data.first() else { return self.change(lsn, data).await };
        match (self.segment, tag) {
            (_, b'S' | b'E' | b'c' | b'A') => self.running(lsn, data).await,
            (None, _) => self.change(lsn, data).await,
            (Some(xid), tag) if KEPT.contains(tag) => match self.spools.push(xid, lsn, data) {
                Ok(()) => Ok(()),
                Err(trouble) => self.give_up(&trouble),
            },
            (Some(_), _) => Ok(()),
        }
    }

    async fn running(&mut self, lsn: Lsn, data: &[u8]) -> Result<()> {
        let message = parse(data, false).map_err(|malformed| self.malformed(lsn, malformed))?;
        match message {
            Message::StreamStart { xid, first } => {
                let _hit = failpoint::hit("postgres.running.segment");
                self.segment = Some(xid);
                self.spools.begin(xid, first).or_else(|trouble| self.give_up(&trouble))
            }
            Message::StreamStop => {
                self.segment = None;
                self.report_spool();
                Ok(())
            }
            Message::StreamAbort { xid, subxid } => {
                self.spools.roll_back(xid, subxid);
                self.report_spool();
                Ok(())
            }
            Message::StreamCommit { xid, commit, end, time_us } => {
                self.commit_running(xid, Open { xid, commit, time_us, last: (Lsn(0), 0) }).await?;
                self.open = None;
                self.place.lsn = end;
                self.place.within = None;
                self.report_spool();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Hands out what was kept of a transaction, as the server would have sent it now.
    async fn commit_running(&mut self, xid: u32, open: Open) -> Result<()> {
        let Some(spool) = self.spools.take(xid) else {
            return self.give_up(&Trouble::Protocol("the commit of a running transaction whose changes did not come"));
        };
        self.beside.note(xid);
        self.open = Some(open);
        let mut message = Vec::new();
        let mut entries = spool.entries().map_err(|error| self.unreadable(error))?;
        while let Some(lsn) = entries.next(&mut message).map_err(|error| self.unreadable(error))? {
            self.change(lsn, &message).await?;
            if self.is_piece() {
                let _hit = failpoint::hit("postgres.running.hand_out");
                self.hand_out().await?;
            }
        }
        Ok(())
    }

    /// What does not fit is not kept by us but by the server: the stream begins again without running transactions.
    fn give_up(&mut self, trouble: &Trouble) -> Result<()> {
        if let Trouble::Protocol(what) = trouble {
            let what = format!("source {}: the server sent {what}", self.job.name);
            return Err(Error::new(ErrorKind::SourceRefused, what)
                .help("write `streaming: off` into the source: the server then keeps large transactions itself"));
        }
        tracing::warn!(
            source = &*self.job.name,
            folder = %self.job.spool.display(),
            bytes = self.spools.bytes(),
            transactions = self.spools.len(),
            "what the server sends of running transactions cannot be kept: {trouble}; until the next start it keeps \
             large transactions itself. `spool:` and `max_spool:` of the source say where and how much"
        );
        self.job.streaming.store(false, Ordering::Relaxed);
        self.begin_again = true;
        Ok(())
    }

    fn unreadable(&self, error: std::io::Error) -> Error {
        self.job.streaming.store(false, Ordering::Relaxed);
        let what = format!("source {}: read what was kept of a running transaction", self.job.name);
        Error::new(ErrorKind::SourceUnavailable, what).because(error)
    }

    fn report_spool(&self) {
        metrics::gauge!(telemetry::SPOOL_BYTES, "source" => self.job.name.to_string()).set(self.spools.bytes() as f64);
    }
}
