//! A statement, with what Redshift does around it: snapshots, locks, conflicts, commits; and what a test makes go wrong.

use crate::Isolation;
use crate::fault::{Fault, Kind};
use crate::lex::literal;
use crate::refusal::{Refusal, Stop};
use crate::sql::{Effect, Plan};
use crate::wire::Message;

use super::{Ask, Session};

impl Session {
    /// Runs a statement and puts its answer.
    pub(super) async fn execute(&mut self, plan: &Plan, text: &str, ask: Ask<'_>) -> Result<(), Stop> {
        let mut healed = self.shared.heals.subscribe();
        let fault = self.shared.watch().statement(plan.kind, text);
        match fault {
            // Whoever says that nothing goes wrong any more goes only when the emulator does.
            Some(Fault::Held) => _ = healed.changed().await,
            Some(Fault::ResetBefore) => return Err(Stop::Gone(std::io::ErrorKind::ConnectionReset.into())),
            Some(Fault::Silence) => return self.be_silent().await,
            Some(Fault::Stuck) => return self.relay(Ask::Simple("SELECT pg_sleep(86400)")).await.map(|_| ()),
            _ => {}
        }
        if let Some(refusal) = fault.and_then(Fault::refusal) {
            if plan.kind == Kind::Commit {
                self.roll_back().await?;
            }
            return Err(refusal.into());
        }
        let ends = matches!(plan.effect, Effect::Commit | Effect::Rollback);
        if self.backend.status == b'E' && !ends {
            let text = "current transaction is aborted, commands ignored until end of transaction block";
            return Err(Refusal::new("25P02", text).into());
        }
        self.refuse_in_block(&plan.effect)?;
        self.open_views().await?;
        let last = self.with_effect(plan, ask).await?;
        if fault == Some(Fault::AnswerLost) {
            return Err(Stop::Gone(std::io::ErrorKind::ConnectionReset.into()));
        }
        match (plan.tag, last) {
            (Some(tag), _) => self.put(&Message::complete(tag)),
            (None, Some(last)) => self.put(&last),
            (None, None) => {}
        }
        Ok(())
    }

    async fn with_effect(&mut self, plan: &Plan, ask: Ask<'_>) -> Result<Option<Message>, Stop> {
        match &plan.effect {
            Effect::Quiet | Effect::Begin | Effect::Alone(_) => self.relay(ask).await,
            Effect::Nothing => Ok(None),
            Effect::Query => {
                if self.backend.status == b'T' {
                    self.snapshot().await?;
                }
                let last = self.relay(ask).await?;
                self.note_reads().await?;
                Ok(last)
            }
            Effect::Write { table, reads } => {
                let alone = self.before_write(table, *reads).await?;
                let done = self.relay(ask).await;
                self.after_write(alone, done).await
            }
            Effect::Truncate(table) => {
                self.before_write(table, false).await?;
                let done = self.relay(ask).await;
                // With it the whole transaction commits, whatever else it did.
                self.after_write(true, done).await
            }
            Effect::Copy(copy) => {
                let alone = self.before_write(&copy.table, false).await?;
                let done = self.copy(copy).await.map(|()| Some(Message::complete("COPY")));
                self.after_write(alone, done).await
            }
            Effect::Commit => self.commit().await,
            Effect::Rollback => {
                self.leave();
                self.shared.watch().counters.rollbacks += 1;
                self.relay(Ask::Simple("ROLLBACK")).await
            }
        }
    }

    /// Says nothing until the client goes.
    async fn be_silent(&mut self) -> Result<(), Stop> {
        while Message::read(&mut self.client).await?.is_some() {}
        Err(Stop::Gone(std::io::ErrorKind::ConnectionReset.into()))
    }

    /// The first statement that reads or writes fixes what the transaction sees, before it waits for any lock; LOCK does not.
    /// <https://docs.aws.amazon.com/redshift/latest/dg/c_serial_isolation.html>
    async fn snapshot(&mut self) -> Result<(), Stop> {
        if self.transaction.is_none() {
            self.backend.rows("SELECT 1").await?;
            self.transaction = Some(self.shared.conflicts().begin());
        }
        Ok(())
    }

    /// Opens a transaction if none is open, takes the snapshot, and the table's write lock: one writer at a time.
    /// <https://docs.aws.amazon.com/redshift/latest/dg/c_write_readwrite.html>
    async fn before_write(&mut self, table: &str, reads: bool) -> Result<bool, Stop> {
        let alone = self.backend.status == b'I';
        if alone {
            self.backend.rows("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
        }
        let done = self.lock_for_write(table, reads).await;
        if let (true, Err(Stop::Refused(_))) = (alone, &done) {
            self.roll_back().await?;
        }
        done.map(|()| alone)
    }

    async fn lock_for_write(&mut self, table: &str, reads: bool) -> Result<(), Stop> {
        self.snapshot().await?;
        let sql = format!(
            "SELECT oid FROM pg_class WHERE oid = to_regclass({}) AND relkind = 'r' AND relpersistence <> 't'",
            literal(table)
        );
        let Some(oid) = self.backend.value(&sql).await?.and_then(|oid| oid.parse().ok()) else { return Ok(()) };
        self.backend.rows(&format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")).await?;
        if let Some(number) = self.transaction {
            let mut conflicts = self.shared.conflicts();
            conflicts.writes(number, oid);
            if reads {
                conflicts.reads(number, oid);
            }
        }
        self.judge()
    }

    /// Fails if the transaction has no place in any order.
    fn judge(&self) -> Result<(), Stop> {
        let Some(number) = self.transaction.filter(|_| self.shared.options.isolation == Isolation::Serializable) else {
            return Ok(());
        };
        let Some((table, members)) = self.shared.conflicts().circle(number) else { return Ok(()) };
        self.shared.watch().counters.serialization_failures += 1;
        Err(Refusal::serializable(table, &members).into())
    }

    async fn after_write(
        &mut self,
        commits: bool,
        done: Result<Option<Message>, Stop>,
    ) -> Result<Option<Message>, Stop> {
        if self.prepared.portal_is_open() {
            self.backend.sync().await?;
        }
        match done {
            Ok(last) => {
                self.note_reads().await?;
                if commits {
                    self.commit().await?;
                }
                Ok(last)
            }
            Err(Stop::Refused(refusal)) if commits => {
                self.roll_back().await?;
                Err(refusal.into())
            }
            Err(other) => Err(other),
        }
    }

    /// What the transaction has read so far: PostgreSQL holds a lock on each such table until it ends.
    async fn note_reads(&mut self) -> Result<(), Stop> {
        let Some(number) = self.transaction else { return Ok(()) };
        if self.shared.options.isolation != Isolation::Serializable || self.backend.status != b'T' {
            return Ok(());
        }
        if self.prepared.portal_is_open() {
            self.backend.sync().await?;
        }
        let rows = self
            .backend
            .rows(
                "SELECT l.relation FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE l.pid = pg_backend_pid() AND l.mode = 'AccessShareLock' AND c.relkind = 'r' AND c.relpersistence <> 't' \
                 AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'sim')",
            )
            .await?;
        let mut conflicts = self.shared.conflicts();
        for oid in rows.into_iter().flatten().flatten().filter_map(|oid| oid.parse().ok()) {
            conflicts.reads(number, oid);
        }
        Ok(())
    }

    /// Commits, unless the transaction has no place in any order.
    pub(super) async fn commit(&mut self) -> Result<Option<Message>, Stop> {
        if self.backend.status == b'T'
            && let Err(stop) = self.judge()
        {
            self.roll_back().await?;
            return Err(stop);
        }
        let failed = self.backend.status == b'E';
        let last = self.relay(Ask::Simple("COMMIT")).await?;
        if let Some(number) = self.transaction.take() {
            self.shared.conflicts().end(number, !failed);
        }
        let mut watch = self.shared.watch();
        if failed {
            watch.counters.rollbacks += 1;
        } else {
            watch.counters.commits += 1;
        }
        Ok(last)
    }

    /// Gives up the transaction.
    pub(super) async fn roll_back(&mut self) -> Result<(), Stop> {
        self.leave();
        if self.backend.status != b'I' {
            self.backend.rows("ROLLBACK").await?;
            self.shared.watch().counters.rollbacks += 1;
        }
        Ok(())
    }

    /// What COPY needs of a session.
    pub(crate) fn shared(&self) -> &std::sync::Arc<crate::server::Shared> {
        &self.shared
    }

    /// Rows of a query of the emulator's own.
    pub(crate) async fn backend_rows(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Stop> {
        self.backend.rows(sql).await
    }

    /// Sends a COPY of PostgreSQL's with its rows.
    pub(crate) async fn send_copy(&mut self, messages: Vec<Message>) -> Result<(), Stop> {
        self.backend.copy_in(messages).await
    }

    /// What `pg_last_copy_count()` and `pg_last_copy_id()` say from now on:
    /// <https://docs.aws.amazon.com/redshift/latest/dg/PG_LAST_COPY_COUNT.html>.
    pub(crate) async fn note_copy(&mut self, rows: u64, id: u64) -> Result<(), Stop> {
        let sql = format!(
            "SELECT set_config('sim.last_copy_count', '{rows}', false), set_config('sim.last_copy_id', '{id}', false)"
        );
        self.backend.rows(&sql).await.map(|_| ())
    }

    /// Tells the client something that is no error.
    pub(crate) fn inform(&mut self, text: &str) {
        self.put(&Message::info(text));
    }
}
