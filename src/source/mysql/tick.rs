//! What is looked at every second beside the stream: how far it has come, and whether the server still sends its log.

use std::time::Duration;

use tokio::time::Instant;

use super::place::file_number;
use super::setup;
use super::stream::Stream;
use crate::error::{Error, ErrorKind, Result};
use crate::telemetry;

/// How often a place that moved without records is handed out.
const QUIET_EVERY: Duration = Duration::from_secs(1);
/// How often the server is asked where its log ends.
const LOOK_AT_END: Duration = Duration::from_secs(10);
/// How often it is said that what must come has not come.
const SAY_EVERY: Duration = Duration::from_secs(30);
/// When it has not come for so long, the server is asked anew.
const WAIT_LIMIT: Duration = Duration::from_secs(300);

/// How long the log has not gone on, although it must.
#[derive(Default)]
pub(super) struct Waiting {
    since: Option<Instant>,
    /// How far it had been read then.
    seen: (u64, u64),
    said: u32,
}

/// What a wait has come to.
#[derive(Debug, PartialEq, Eq)]
enum Wait {
    Patient,
    /// It is time to say so.
    Say(Duration),
    Over,
}

impl Waiting {
    /// Looks at the log, which has been read up to `seen`, and `must` go on.
    fn look(&mut self, must: bool, seen: (u64, u64), now: Instant) -> Wait {
        let since = *self.since.get_or_insert(now);
        if !must || seen != self.seen {
            *self = Self { since: Some(now), seen, said: 0 };
            return Wait::Patient;
        }
        let waited = now - since;
        if waited >= WAIT_LIMIT {
            return Wait::Over;
        }
        if waited >= SAY_EVERY * (self.said + 1) {
            self.said += 1;
            return Wait::Say(waited);
        }
        Wait::Patient
    }
}

impl Stream {
    pub(super) async fn on_tick(&mut self) -> Result<()> {
        let moved = self.open.is_none() && self.records.is_empty() && self.handed.order() != self.place.order();
        if moved && self.handed_at.elapsed() >= QUIET_EVERY {
            self.hand_out().await?;
        }
        self.look_at_wait()?;
        if self.looked.elapsed() >= LOOK_AT_END {
            self.looked = Instant::now();
            self.look_at_log().await?;
        }
        Ok(())
    }

    /// The server has to send what its log had when we began, what rows that were read by query may show, and the
    /// transaction that was read last. Signs of life alone are not enough.
    fn look_at_wait(&mut self) -> Result<()> {
        let must_come = self.target.max(self.settled);
        let must = self.verify.is_some() || self.seen < must_come;
        let what = || match self.seen {
            (0, 0) => "the server has not begun to send its log".to_owned(),
            (file, pos) => format!(
                "the server sends nothing behind {pos} of file {file} of its log, which goes on to {} of file {}",
                must_come.1, must_come.0
            ),
        };
        match self.waiting.look(must, self.seen, Instant::now()) {
            Wait::Patient => Ok(()),
            Wait::Say(waited) => {
                let source = &*self.job.name;
                tracing::warn!(source, seconds = waited.as_secs(), "{}; `SHOW PROCESSLIST` shows what it does", what());
                Ok(())
            }
            Wait::Over => {
                let why = format!("{} for {WAIT_LIMIT:?}", what());
                Err(Error::new(ErrorKind::SourceUnavailable, self.doing()).because(why))
            }
        }
    }

    /// How far behind we are and how much the server keeps, as metrics.
    async fn look_at_log(&mut self) -> Result<()> {
        let files = setup::files(&mut self.side, &self.job.server).await?;
        if let Some((file, size)) = files.last() {
            self.end = self.end.max((file_number(file), *size));
        }
        let retained: u64 = files.iter().map(|(_, size)| size).sum();
        let source = self.job.name.to_string();
        metrics::gauge!(telemetry::BINLOG_RETAINED_BYTES, "source" => source.clone()).set(retained as f64);
        metrics::gauge!(telemetry::BINLOG_BEHIND_BYTES, "source" => source).set(behind(&files, self.seen) as f64);
        Ok(())
    }
}

/// Bytes of log between a place and the end.
fn behind(files: &[(String, u64)], (file, pos): (u64, u64)) -> u64 {
    let later = files.iter().filter(|(name, _)| file_number(name) >= file);
    let total: u64 = later.map(|(_, size)| size).sum();
    total.saturating_sub(pos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_does_not_go_on_is_said_and_then_asked_for_anew() {
        let (mut waiting, begun) = (Waiting::default(), Instant::now());
        let mut at = |seconds, must, seen| waiting.look(must, seen, begun + Duration::from_secs(seconds));
        assert_eq!(at(0, true, (0, 0)), Wait::Patient);
        assert_eq!(at(29, true, (0, 0)), Wait::Patient);
        assert_eq!(at(30, true, (0, 0)), Wait::Say(Duration::from_secs(30)));
        assert_eq!(at(31, true, (0, 0)), Wait::Patient);
        assert_eq!(at(60, true, (0, 0)), Wait::Say(Duration::from_secs(60)));
        // It goes on, and nothing need come.
        assert_eq!(at(61, true, (1, 4)), Wait::Patient);
        assert_eq!(at(500, false, (1, 4)), Wait::Patient);
        assert_eq!(at(799, true, (1, 4)), Wait::Say(Duration::from_secs(299)));
        assert_eq!(at(800, true, (1, 4)), Wait::Over);
    }
}
