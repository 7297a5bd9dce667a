//! A session: one statement at a time, waited for, given up, cancelled.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answers::{Described, Submitted};
use super::calls::Destination;
use super::refusals::{failed, not_answered, passes, session_is_gone, too_long};
use super::{DataApi, Forsaken, KEPT, STATEMENT_BYTES};
use crate::error::{Error, ErrorKind, Result};
use crate::warehouse::redshift::failure::{message, silent};
use crate::warehouse::redshift::session::settings;

/// A session that the API will end so soon is not used any more.
const SPARE: Duration = Duration::from_secs(15);
/// The pause between two looks at a statement, where the service does not wait itself; it doubles.
const FIRST_LOOK: Duration = Duration::from_millis(50);
/// The longest such pause.
const LAST_LOOK: Duration = Duration::from_secs(2);
/// How long nobody may say how a statement stands before it is given up.
const UNHEARD: Duration = Duration::from_secs(60);
/// Statements of which the number of rows that they change is of interest.
const CHANGES: [&str; 5] = ["insert", "update", "delete", "merge", "copy"];

/// A session that the API keeps.
pub(in crate::warehouse::redshift) struct Session {
    api: Arc<DataApi>,
    id: String,
    /// When its last statement ended.
    used: Instant,
    in_transaction: bool,
    /// The API does not have it any more.
    gone: bool,
    /// A statement was sent, and nobody has heard how it ended.
    unheard: bool,
    /// The identifier of that statement, if it is known.
    running: Option<String>,
}

impl Session {
    /// Opens one by its first setting.
    pub async fn open(api: &Arc<DataApi>) -> Result<Self> {
        let mut settings = settings(api.limit, api.query_group.as_deref()).into_iter();
        let first = settings.next().unwrap_or_else(|| "SELECT 1".to_owned());
        let doing = || format!("open a session with {}", api.name);
        let submitted = api.calls.execute(&first, Destination::New(&api.target)).await;
        let submitted = submitted.map_err(|refusal| not_answered(refusal, None).doing(doing()))?;
        let id = submitted.session_id.clone().ok_or_else(|| {
            Error::new(ErrorKind::WarehouseRefused, format!("{} keeps no session", api.name))
                .help("the Data API of this region does not know sessions: use a connection")
        })?;
        let mut session = Self {
            api: Arc::clone(api),
            id,
            used: Instant::now(),
            in_transaction: false,
            gone: false,
            unheard: true,
            running: None,
        };
        let begun = session.used;
        session.hear(submitted, &first, begun, None, &mut |_| Ok(())).await.map_err(|error| error.doing(doing()))?;
        for setting in settings {
            session.each(&setting, None, |_| Ok(())).await?;
        }
        Ok(session)
    }

    /// Runs one statement, and hands its rows over; the number of rows that it changed.
    pub async fn each(
        &mut self,
        statement: &str,
        table: Option<&str>,
        mut take: impl FnMut(Vec<Option<String>>) -> Result<()> + Send,
    ) -> Result<u64> {
        if statement.len() > STATEMENT_BYTES {
            return Err(too_long(statement.len(), table));
        }
        self.in_transaction |= begins_with(statement, "begin");
        self.unheard = true;
        let begun = Instant::now();
        let submitted = self.api.calls.execute(statement, Destination::Session(&self.id)).await;
        let submitted = submitted.map_err(|refusal| {
            // One that nothing runs in is not there any more, and so is what it did.
            let gone = session_is_gone(&refusal);
            (self.gone, self.unheard) = (gone, !gone);
            not_answered(refusal, table)
        })?;
        self.hear(submitted, statement, begun, table, &mut take).await
    }

    async fn hear(
        &mut self,
        submitted: Submitted,
        statement: &str,
        begun: Instant,
        table: Option<&str>,
        take: &mut (dyn FnMut(Vec<Option<String>>) -> Result<()> + Send),
    ) -> Result<u64> {
        let Submitted { id, status, has_result_set, .. } = submitted;
        self.running = Some(id.clone());
        let changes = CHANGES.iter().any(|word| begins_with(statement, word));
        // What was told without asking: how many rows were changed, or why it failed, is not among it.
        let (has_rows, affected) = match (status.as_deref(), has_result_set) {
            (Some("FINISHED"), Some(has_rows)) if !changes => (has_rows, 0),
            _ => {
                let described = self.ended(&id, begun, table).await?;
                (described.has_result_set == Some(true), described.result_rows.unwrap_or(0))
            }
        };
        self.heard(statement);
        if has_rows {
            self.rows(&id, table, take).await?;
        }
        Ok(u64::try_from(affected).unwrap_or(0))
    }

    /// It has ended, whether well or not.
    fn heard(&mut self, statement: &str) {
        self.unheard = false;
        self.running = None;
        self.used = Instant::now();
        if ["commit", "rollback"].iter().any(|word| begins_with(statement, word)) {
            self.in_transaction = false;
        }
    }

    /// Waits until the statement has ended, and fails if it has not ended well.
    async fn ended(&mut self, id: &str, begun: Instant, table: Option<&str>) -> Result<Described> {
        let limit = self.api.limit;
        let (mut answered, mut look) = (Instant::now(), FIRST_LOOK);
        loop {
            let asked = Instant::now();
            match self.api.calls.describe(id, limit.saturating_sub(begun.elapsed())).await {
                Ok(described) => match described.status.as_str() {
                    "FINISHED" => return Ok(described),
                    "FAILED" | "ABORTED" => {
                        self.heard("");
                        let text = described
                            .error
                            .unwrap_or_else(|| format!("canceling statement due to {}", described.status));
                        return Err(failed(&text, table));
                    }
                    _ => answered = Instant::now(),
                },
                Err(refusal) if passes(&refusal) && answered.elapsed() < UNHEARD => {}
                Err(refusal) => return Err(not_answered(refusal, table)),
            }
            if begun.elapsed() >= limit {
                // Nobody knows what becomes of it; at least it is not to hold its locks and its place in the queue.
                self.api.calls.cancel(id).await;
                return Err(silent(limit, table));
            }
            // A service that waits itself has taken its time.
            if asked.elapsed() < look {
                tokio::time::sleep(look).await;
                look = (look * 2).min(LAST_LOOK);
            }
        }
    }

    async fn rows(
        &self,
        id: &str,
        table: Option<&str>,
        take: &mut (dyn FnMut(Vec<Option<String>>) -> Result<()> + Send),
    ) -> Result<()> {
        let mut next: Option<String> = None;
        loop {
            let page = self.api.calls.page(id, next.as_deref()).await;
            let page = page.map_err(|refusal| not_answered(refusal, table))?;
            for record in page.records {
                let cells = record.into_iter().map(super::answers::Field::text).collect::<Result<Vec<_>, _>>();
                let odd = |what: &'static str| {
                    Error::new(ErrorKind::WarehouseRefused, message(table, "read what the Data API gives"))
                        .because(what)
                };
                take(cells.map_err(odd)?)?;
            }
            next = page.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(());
            }
        }
    }

    /// Whether the API still has it. For a session that nobody is using.
    pub fn lives(&self) -> bool {
        !self.gone && !self.unheard && !self.in_transaction && self.used.elapsed() + SPARE < KEPT
    }
}

fn begins_with(statement: &str, word: &str) -> bool {
    statement.split_whitespace().next().is_some_and(|first| first.eq_ignore_ascii_case(word))
}

impl Drop for Session {
    /// Nobody can close it. Where it would hold locks, the next one who takes a session ends it.
    fn drop(&mut self) {
        if !self.gone && (self.in_transaction || self.unheard) {
            let session = std::mem::take(&mut self.id);
            let forsaken = Forsaken { session, busy: self.unheard, running: self.running.take() };
            self.api.forsaken().push(forsaken);
        }
    }
}
