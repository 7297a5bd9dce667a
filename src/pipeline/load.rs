//! One task per group: what the log has and the ledger lacks becomes a unit, folded and applied in one transaction.
//!
//! Nothing is remembered that the ledger does not say: after any failure the ledger is read again. An apply whose answer
//! was lost is therefore either found done, or done again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::batch::NO_TIME;
use crate::config::Topology;
use crate::contract::Contract;
use crate::epoch::{Applied, Control, EpochNumber, LoadUnit};
use crate::error::{Disposition, Error, ErrorKind, Result};
use crate::lake::{Log, LogState};
use crate::pipeline::backlog::Backlog;
use crate::pipeline::backoff::Backoff;
use crate::pipeline::fold::fold;
use crate::pipeline::governor::{Decision, Governor, Situation};
use crate::pipeline::quarantine::commit_control;
use crate::pipeline::report::{LoadStanding, Report, TableLacks};
use crate::pipeline::unit::{self, Standing, UnitPlan};
use crate::telemetry;
use crate::warehouse::{Lost, Warehouse};

/// The longest sleep until a load is due: the machine's clock may be set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// How often the limit of a unit is halved at most; one epoch is always taken.
const MOST_HALVINGS: u32 = 16;

/// Loads one group.
pub struct Loader {
    pub group: String,
    pub tables: Vec<String>,
    pub topology: Arc<Topology>,
    pub log: Arc<Log>,
    pub warehouse: Arc<dyn Warehouse>,
    /// The newest epoch that this process knows of.
    pub head: watch::Receiver<EpochNumber>,
    pub report: Arc<Report>,
    /// The ledger as it was left by this loader; `None` = it must be read.
    pub known: Option<Applied>,
    /// The contract that the live table was last made to fit.
    pub ensured: BTreeMap<String, Arc<Contract>>,
    /// What the loaders of this process may hold of rows at the same time: see [`memory`].
    pub memory: Arc<Semaphore>,
    /// What waits to be loaded.
    pub backlog: Backlog,
    /// When it is.
    pub governor: Governor,
    /// How often a unit is halved, because a limit of the warehouse ended a larger one.
    pub halvings: u32,
}

/// What a step has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// A unit was applied: there may be more.
    Applied,
    /// There is nothing to do.
    Idle,
    /// What there is to do is not due for so long.
    Waits(Duration),
}

/// One permit is a KiB of rows; `limits.unit_bytes` of them, however many groups there are.
pub fn memory(topology: &Topology) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(memory_limit(topology) as usize))
}

fn memory_limit(topology: &Topology) -> u32 {
    u32::try_from(topology.limits.unit_bytes.0 / 1024).unwrap_or(u32::MAX).clamp(1, 1 << 28)
}

impl Loader {
    /// Loads until `stop`, then what the log still has, then returns.
    pub async fn run(mut self, stop: CancellationToken) -> Result<()> {
        let mut backoff = Backoff::default();
        loop {
            // Asked before the log is read: what ingest commits last, it commits before it says stop.
            let stopping = stop.is_cancelled();
            match self.step(stopping).await {
                Ok(Step::Applied) => {
                    backoff.reset();
                    self.halvings = self.halvings.saturating_sub(1);
                }
                Ok(_) if stopping => return Ok(()),
                Ok(Step::Idle) => self.wait(&stop, None).await,
                Ok(Step::Waits(time)) => self.wait(&stop, Some(time)).await,
                // Also while stopping: the grace period bounds it, not we.
                Err(error) => self.handle(error, &mut backoff).await?,
            }
        }
    }

    /// Waits until the log has more, `time` is over or it is time to stop.
    async fn wait(&mut self, stop: &CancellationToken, time: Option<Duration>) {
        let due = async {
            match time {
                Some(time) => tokio::time::sleep(time.min(LONGEST_SLEEP)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = due => {}
            // Whoever tells has gone only when the process stops.
            changed = self.head.changed() => if changed.is_err() { stop.cancelled().await },
        }
    }

    async fn handle(&mut self, error: Error, backoff: &mut Backoff) -> Result<()> {
        match error.disposition() {
            Disposition::Retry => {
                let reason = match error.kind() {
                    ErrorKind::LedgerMoved => "ledger_moved",
                    ErrorKind::StoreUnavailable => "store_unavailable",
                    ErrorKind::WarehouseLimit(_) => "warehouse_limit",
                    _ => "warehouse_unavailable",
                };
                if matches!(error.kind(), ErrorKind::WarehouseLimit(Some(_))) {
                    self.halvings = (self.halvings + 1).min(MOST_HALVINGS);
                    let bytes = self.unit_bytes();
                    tracing::info!(group = self.group, bytes, "the next load takes less: its first epoch, or so much");
                }
                tracing::warn!(group = self.group, attempt = backoff.attempts(), "{error}; trying again");
                metrics::counter!(telemetry::RETRIES_TOTAL, "part" => "load", "reason" => reason).increment(1);
                self.report.problem(&format!("group {}", self.group), &error);
                backoff.wait().await;
                Ok(())
            }
            Disposition::Park(table) => {
                tracing::error!(group = self.group, table, "{error}; the table is parked, the others go on");
                self.report.parked(&table, &error);
                // Whoever resumes it has changed something.
                self.ensured.remove(&table);
                let control = Control::Pause { table: table.clone(), why: error.to_string(), parked: true };
                match commit_control(&self.log, vec![control]).await {
                    // The next step fails in the same way and tries again to say so.
                    Err(error) if error.disposition() == Disposition::Retry => {
                        tracing::warn!(group = self.group, table, "{error}; the table is parked later");
                        backoff.wait().await;
                        Ok(())
                    }
                    parked => parked.map(drop),
                }
            }
            Disposition::Halt => Err(error.doing(format!("load group {}", self.group))),
        }
    }

    /// How much one unit may take.
    fn unit_bytes(&self) -> u64 {
        self.topology.limits.unit_bytes.0 >> self.halvings
    }

    /// Applies one unit, if there is one and it is time.
    async fn step(&mut self, stopping: bool) -> Result<Step> {
        self.head.borrow_and_update();
        // Taken out: after a failure the ledger is read again.
        let (applied, state) = match self.known.take() {
            Some(applied) => (applied, self.log.state()),
            None => self.look().await?,
        };
        let Some(plan) = self.plan(&applied, &state).await? else {
            self.known = Some(applied);
            // What failed last may have been done after all, its answer lost.
            self.report.solved(&format!("group {}", self.group));
            return Ok(Step::Idle);
        };
        let now_us = Utc::now().timestamp_micros();
        let situation = Situation {
            plan: &plan,
            after: applied.through,
            waiting: &self.backlog.epochs,
            full: self.backlog.is_full(self.topology.limits.unit_bytes.0),
            stopping,
            now_us,
        };
        let decision = self.governor.decide(&situation);
        self.report.decided(&self.group, &decision, &plan, self.governor.governs());
        if let Decision::Wait { until_us, .. } = decision {
            self.known = Some(applied);
            return Ok(Step::Waits(Duration::from_micros(until_us.abs_diff(now_us))));
        }
        let started = Instant::now();
        self.known = Some(self.load(&state, applied, plan).await?);
        self.governor.loaded(started.elapsed());
        Ok(Step::Applied)
    }

    /// The unit that would be loaded now; `None` when there is nothing to do.
    async fn plan(&mut self, applied: &Applied, state: &LogState) -> Result<Option<UnitPlan>> {
        let stopped: BTreeSet<String> = state.stopped.keys().cloned().collect();
        let gone = applied.accounts.keys().filter(|table| !self.tables.contains(table)).cloned().collect();
        let standing = Standing {
            tables: &self.tables,
            after: applied.through,
            held: &applied.held,
            stopped: &stopped,
            gone: &gone,
            max_bytes: self.unit_bytes(),
        };
        self.backlog.look(&self.log, &standing, state).await?;
        let since_us = self.governor.since(&self.backlog.epochs);
        let lacks = |table: &String| TableLacks {
            name: table.clone(),
            runs: standing.runs(table),
            lacks: self.backlog.first_of(table),
        };
        let tables = self.tables.iter().map(lacks).collect();
        self.report.ledger(
            &LoadStanding { group: &self.group, tables, since_us, seen: self.backlog.seen },
            applied,
            state,
        );
        Ok(unit::plan(&standing, &self.backlog.epochs, self.backlog.seen))
    }

    /// Folds and applies a unit. The ledger after it, with the sums of all loads.
    async fn load(&mut self, state: &LogState, applied: Applied, plan: UnitPlan) -> Result<Applied> {
        // A unit that is larger than the limit by itself waits until it is alone.
        let wanted = u32::try_from(plan.bytes / 1024).unwrap_or(u32::MAX).clamp(1, memory_limit(&self.topology));
        let memory = Arc::clone(&self.memory).acquire_many_owned(wanted).await;
        let _held_until_applied = memory.map_err(|e| Error::new(ErrorKind::Internal, "share memory").because(e))?;
        let started = Instant::now();
        let load = self.fold(state, &applied, plan).await?;
        metrics::histogram!(telemetry::STEP_DURATION_SECONDS, "step" => "fold").record(started.elapsed().as_secs_f64());
        for table in &load.tables {
            self.ensure(&table.contract, lost(state, &applied, &table.contract.table)).await?;
        }
        let started = Instant::now();
        let mut sums = applied.accounts;
        let applied = self.warehouse.apply(&load).await?;
        metrics::histogram!(telemetry::STEP_DURATION_SECONDS, "step" => "apply")
            .record(started.elapsed().as_secs_f64());
        check_accounts(&load, &applied)?;
        self.report.applied(&load, &applied);
        for (table, account) in &applied.accounts {
            sums.entry(table.clone()).or_default().add(account);
        }
        Ok(Applied { accounts: sums, ..applied })
    }

    /// Where the ledger and the log stand. The ledger is read first: another loader may be ahead of what the log was when
    /// we looked at it, never of what it is afterwards.
    async fn look(&self) -> Result<(Applied, Arc<LogState>)> {
        let applied = self.warehouse.applied(&self.group).await?;
        let state = self.log.refresh().await?;
        Ok((self.checked(applied, &state)?, state))
    }

    /// The ledger, which must belong to this log and not be ahead of it.
    fn checked(&self, applied: Option<Applied>, state: &LogState) -> Result<Applied> {
        let fresh = Applied { log: state.log, through: 0, held: BTreeMap::new(), accounts: BTreeMap::new() };
        let applied = applied.unwrap_or(fresh);
        if applied.log != state.log {
            return Err(Error::new(
                ErrorKind::LedgerForeign,
                format!("the ledger of group {} belongs to log {}, the lake holds log {}", self.group, applied.log, state.log),
            )
            .help("the warehouse was loaded from another lake; use the old lake, another schema, or remove the ledger row together with its tables"));
        }
        if applied.through > state.n {
            return Err(Error::new(
                ErrorKind::LogCorrupt,
                format!(
                    "the ledger of group {} stands at epoch {}, the log ends at {}",
                    self.group, applied.through, state.n
                ),
            )
            .help(
                "the lake has lost manifests (restored from an older copy?); restore them, or replay into a new schema",
            ));
        }
        Ok(applied)
    }

    async fn ensure(&mut self, contract: &Arc<Contract>, lost: Lost) -> Result<()> {
        let known = self.ensured.get(&contract.table);
        if known.is_some_and(|known| known.output == contract.output) {
            return Ok(());
        }
        let mode = self.topology.tables.get(&contract.table).map(|t| t.deletes).unwrap_or_default();
        self.warehouse.ensure_or(contract, mode, lost).await?;
        self.ensured.insert(contract.table.clone(), Arc::clone(contract));
        Ok(())
    }

    /// Reads the files of the plan table by table and folds them.
    async fn fold(&self, state: &LogState, applied: &Applied, plan: UnitPlan) -> Result<LoadUnit> {
        let mut tables = Vec::new();
        for table in &self.tables {
            let mut newest = NO_TIME;
            let Some(contract) = state.contracts.get(table) else { continue };
            let mut epochs = Vec::new();
            for take in plan.takes.iter().filter(|take| take.tables.contains(table)) {
                let epoch = self.backlog.epoch(take.n).and_then(|epoch| epoch.tables.get(table));
                epochs.extend(epoch.map(|epoch| (take.n, epoch)));
                newest = newest.max(epoch.and_then(|e| e.max_source_time_us).unwrap_or(NO_TIME));
            }
            let changes = self.log.changes(table, &epochs, contract).await?;
            if changes.is_empty() {
                continue;
            }
            let mode = self.topology.tables.get(table).map(|t| t.deletes).unwrap_or_default();
            let keep_tombstones = something_older_may_come(state, table, plan.through);
            let mut load = tokio::task::block_in_place(|| fold(contract, mode, changes, keep_tombstones))?;
            load.max_source_time_us = newest;
            tables.push(load);
        }
        Ok(LoadUnit {
            group: self.group.clone(),
            log: state.log,
            after: applied.through,
            through: plan.through,
            held: plan.held,
            held_before: applied.held.clone(),
            tables,
        })
    }
}

/// What is done if the table is gone: it may be made again where somebody has ordered a resync after what it held.
fn lost(state: &LogState, applied: &Applied, table: &str) -> Lost {
    let stands = applied.held.get(table).copied().unwrap_or(applied.through);
    if state.resyncs.get(table).is_some_and(|order| *order > stands) { Lost::MakeAnew } else { Lost::Park }
}

/// Only a retry from quarantine can bring a row that is older than what was loaded. While the ledger is behind the log,
/// entries that are closed by now may still have been open at the unit's epoch, so the tombstones stay.
fn something_older_may_come(state: &LogState, table: &str, through: EpochNumber) -> bool {
    // An entry whose table is not known may turn out to be of this one.
    let open = [table, ""].iter().any(|of| state.open_quarantine.get(*of).is_some_and(|n| *n > 0));
    let ever = state.account.tables.get(table).is_some_and(|a| a.replaced > 0 || !a.rejected.is_empty())
        || state.account.records.values().any(|a| a.rejected > 0);
    open || (ever && through < state.n)
}

fn check_accounts(unit: &LoadUnit, applied: &Applied) -> Result<()> {
    for table in &unit.tables {
        let account = applied.accounts.get(&table.contract.table).copied().unwrap_or_default();
        if !account.balances() || account.loaded != table.folded.loaded {
            return Err(Error::new(
                ErrorKind::Internal,
                format!(
                    "the account of table {} does not balance after epoch {}: {account:?}, {} rows were in the lake",
                    table.contract.table, unit.through, table.folded.loaded
                ),
            ));
        }
    }
    Ok(())
}
