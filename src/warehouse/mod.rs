//! Where people look. The ledger stands in the same transaction as the rows.
//!
//! | file | what it owns |
//! |---|---|
//! | `merge/` | how a staged unit becomes rows, as SQL text |
//! | `shape.rs` | what a unit's table needs: a stage, a base, tombstones |
//! | `regroup.rs` | tables that move between groups |
//! | `key.rs` | a key as text |
//! | `inspect.rs` | [`Inspect`]: what people ask, and nothing that a load needs |
//! | `names.rs` | ledger and system column names, quoting |
//! | `staging.rs` | [`Staging`]: files in the lake that a warehouse is about to load |
//! | `sqlite/`, `postgres/`, `redshift/` | client, SQL, types and apply of each; none knows another |

mod inspect;
mod key;
mod merge;
mod names;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redshift")]
pub mod redshift;
mod regroup;
mod shape;
pub mod sqlite;
mod staging;

pub use inspect::{HeldKeys, HeldQuery, HeldRow, Inspect, LiveRows, OpenIncomplete, Rest, TakeRow, find};
pub use key::KeyText;
pub use staging::Staging;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;

use crate::config;
use crate::contract::Contract;
use crate::epoch::{Applied, DeleteMode, EpochNumber, Incomplete, LoadAccount, LoadUnit};
use crate::error::{Error, ErrorKind, Result};
use crate::finding::Findings;

/// How fresh a table is: one row of the view `freshness`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freshness {
    /// The table.
    pub table: String,
    /// The newest commit time at the source, microseconds since 1970, when one is known.
    pub max_source_time_us: Option<i64>,
    /// When the last unit with changes of the table was applied, microseconds since 1970, by the warehouse's clock.
    pub applied_at_us: i64,
    /// Changes applied so far.
    pub rows: u64,
    /// The last epoch of that unit.
    pub epoch: EpochNumber,
    /// What became of all rows so far.
    pub account: LoadAccount,
}

/// A warehouse.
#[async_trait]
pub trait Warehouse: Send + Sync {
    /// Reads the group's ledger; `None` = never loaded.
    async fn applied(&self, group: &str) -> Result<Option<Applied>>;

    /// Makes the live table what the contract's `output` says: creates it, adds columns, widens types. Repeatable; never
    /// drops or narrows anything; columns that people added themselves stay. Runs outside the load's transaction.
    async fn ensure_or(&self, contract: &Contract, mode: DeleteMode, lost: Lost) -> Result<()>;

    /// Applies a unit in one transaction, ledger included, as a compare-and-set: [`ErrorKind::LedgerMoved`]
    /// (crate::error::ErrorKind::LedgerMoved) when the ledger does not stand at `unit.after`. When the answer to the
    /// commit is lost, the caller reads the ledger. Deterministic: the same units give the same rows. Every table of the
    /// unit must have been ensured with its contract.
    async fn apply(&self, unit: &LoadUnit) -> Result<Applied>;

    /// How fresh every table of the topology is, in name order.
    async fn freshness(&self) -> Result<Vec<Freshness>>;

    /// The partial rows of `group` that found no base in epochs after `after`, in the order in which they came.
    async fn incompletes(&self, group: &str, after: EpochNumber) -> Result<Vec<Incomplete>>;
}

/// What is done about a table that has been loaded and is not there any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// It is parked: an empty one in its place would be wrong without a word.
    Park,
    /// It is made again: all of its rows have been ordered anew.
    MakeAnew,
}

impl dyn Warehouse + '_ {
    /// [`Warehouse::ensure_or`] for a table of which nobody has ordered the rows anew.
    ///
    /// # Errors
    /// Those of `ensure_or`; one that parks the table where it was loaded and is gone.
    pub async fn ensure(&self, contract: &Contract, mode: DeleteMode) -> Result<()> {
        self.ensure_or(contract, mode, Lost::Park).await
    }
}

/// What a person can do about a table that was loaded and is gone.
const LOST_HELP: &str = "put the table back as it was (a backup, a snapshot of the warehouse), or have its rows read again: \
     `dataflow table resync` where the source is a database, else `dataflow replay` into another schema; then `dataflow \
     table resume`";

/// A table that was loaded and is gone.
fn lost(table: &str, epoch: EpochNumber) -> Error {
    let what = format!(
        "table {table} has been loaded up to epoch {epoch}, and is not there any more: somebody dropped or renamed it"
    );
    Error::new(ErrorKind::Table(table.to_owned()), what).help(LOST_HELP)
}

/// Opens the warehouse of a topology; makes its ledger tables and the `freshness` view when they are missing. `staging`:
/// where files stand that it is to load, for a warehouse that takes its rows from there.
pub async fn open(config: &config::Warehouse, topology: &str, staging: Arc<dyn Staging>) -> Result<Arc<dyn Warehouse>> {
    Ok(open_laid_out(config, topology, staging, BTreeMap::new()).await?)
}

/// The same, with what the topology says of how tables lie; people's questions go through the same connections.
pub async fn open_laid_out(
    config: &config::Warehouse,
    topology: &str,
    staging: Arc<dyn Staging>,
    layouts: BTreeMap<String, config::TableLayout>,
) -> Result<Arc<dyn Inspect>> {
    #[cfg(not(feature = "redshift"))]
    drop((staging, layouts));
    match config {
        config::Warehouse::Sqlite(config) => Ok(Arc::new(sqlite::Sqlite::open(config, topology).await?)),
        #[cfg(feature = "postgres")]
        config::Warehouse::Postgres(config) => Ok(Arc::new(postgres::Postgres::connect(config, topology).await?)),
        #[cfg(not(feature = "postgres"))]
        config::Warehouse::Postgres(_) => Err(Error::new(ErrorKind::Config, "open the warehouse of kind postgres")
            .help("this binary was built without it; build with `--features postgres`")),
        #[cfg(feature = "redshift")]
        config::Warehouse::Redshift(config) => {
            Ok(Arc::new(redshift::Redshift::connect(config, topology, staging).await?.laid_out(layouts)))
        }
        #[cfg(not(feature = "redshift"))]
        config::Warehouse::Redshift(_) => Err(Error::new(ErrorKind::Config, "open the warehouse of kind redshift")
            .help("this binary was built without it; build with `--features redshift`")),
    }
}

/// Looks whether the warehouse has what loads take. `tables`: those of the topology. Nothing that is made for it stays.
pub async fn probe(
    config: &config::Warehouse,
    topology: &str,
    staging: Arc<dyn Staging>,
    tables: &[&str],
    found: &mut Findings,
) {
    match config {
        #[cfg(feature = "redshift")]
        config::Warehouse::Redshift(config) => redshift::probe(config, topology, staging, tables, found).await,
        _ => {
            let _only_for_some = (staging, tables);
            match find(config, topology).await {
                Ok(Some(_)) => found.good("answers, and has been loaded before"),
                Ok(None) => found.good("nothing has been loaded yet"),
                Err(error) => found.failure(&error),
            }
        }
    }
}

/// Gives every table of a topology the group that loads it, before any of them is loaded: one that was loaded with another
/// group takes along where it stands. `shown`: what people see through views, where the warehouse has such. Repeatable.
pub async fn assign(
    config: &config::Warehouse,
    topology: &str,
    groups: &BTreeMap<String, Vec<String>>,
    shown: &[(Arc<Contract>, DeleteMode)],
) -> Result<()> {
    #[cfg(not(feature = "redshift"))]
    let _only_for_some = shown;
    match config {
        #[cfg(feature = "redshift")]
        config::Warehouse::Redshift(config) => redshift::assign(config, topology, groups, shown).await,
        config::Warehouse::Sqlite(config) => sqlite::Sqlite::open(config, topology).await?.assign(groups).await,
        #[cfg(feature = "postgres")]
        config::Warehouse::Postgres(config) => {
            postgres::Postgres::connect(config, topology).await?.assign(groups).await
        }
        // What this binary was built without was not opened either.
        #[allow(unreachable_patterns, reason = "with all features")]
        _ => Ok(()),
    }
}

/// The SQL that `ensure` and `apply` would run for this contract on an empty warehouse. Needs no connection.
pub fn plan(
    config: &config::Warehouse,
    topology: &str,
    contract: &Contract,
    mode: DeleteMode,
    layout: &config::TableLayout,
) -> Vec<String> {
    #[cfg(not(feature = "redshift"))]
    let _only_for_some = layout;
    match config {
        config::Warehouse::Sqlite(_) => sqlite::plan(topology, contract, mode),
        #[cfg(feature = "postgres")]
        config::Warehouse::Postgres(config) => postgres::plan(&config.schema, topology, contract, mode),
        #[cfg(not(feature = "postgres"))]
        config::Warehouse::Postgres(_) => vec!["-- this binary was built without the feature `postgres`".to_owned()],
        #[cfg(feature = "redshift")]
        config::Warehouse::Redshift(config) => redshift::plan(config, topology, contract, mode, layout),
        #[cfg(not(feature = "redshift"))]
        config::Warehouse::Redshift(_) => vec!["-- this binary was built without the feature `redshift`".to_owned()],
    }
}

/// What the warehouse's owner must grant: what it is, and its text. Needs no connection.
pub fn needs(config: &config::Warehouse, lake: &config::Lake) -> Vec<(String, String)> {
    match config {
        #[cfg(feature = "redshift")]
        config::Warehouse::Redshift(config) => redshift::needs(config, lake),
        _ => {
            let _only_for_some = lake;
            Vec::new()
        }
    }
}

/// A row of the table that `freshness` looks at: table, newest source time, applied at, epoch, and the account (loaded,
/// applied, superseded, incomplete).
type FreshnessRow = (String, Option<i64>, i64, i64, i64, i64, i64, i64);

impl Freshness {
    fn of(row: FreshnessRow) -> Self {
        let (table, max_source_time_us, applied_at_us, epoch, loaded, applied, superseded, incomplete) = row;
        let account = LoadAccount {
            loaded: loaded as u64,
            applied: applied as u64,
            superseded: superseded as u64,
            incomplete: incomplete as u64,
        };
        Self { table, max_source_time_us, applied_at_us, rows: account.applied, epoch: epoch as u64, account }
    }
}

/// Table, key, order, partition and missing columns (JSON text) of an incomplete row.
type IncompleteRow = (String, String, String, String, String);

fn incomplete_of((table, key, seq, partition, missing): IncompleteRow) -> Result<Incomplete> {
    let missing = serde_json::from_str(&missing)
        .map_err(|e| Error::new(ErrorKind::WarehouseRefused, format!("read {}", names::INCOMPLETE)).because(e))?;
    Ok(Incomplete { table, key, seq, partition, missing })
}

/// Passes a failpoint: whatever a test asks for becomes a passing failure of the warehouse.
fn place(name: &str) -> Result<()> {
    match crate::failpoint::hit(name) {
        None => Ok(()),
        Some(fault) => Err(Error::new(ErrorKind::WarehouseUnavailable, format!("failpoint {name}: {fault:?}"))),
    }
}

/// A group's row in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ledger {
    log: Uuid,
    through: EpochNumber,
    held: BTreeMap<String, EpochNumber>,
}

impl Ledger {
    /// From the row's values; `held` is JSON text.
    fn parse(group: &str, log: &str, through: i64, held: &str) -> Result<Self> {
        let broken = |what: String| {
            Error::new(ErrorKind::WarehouseRefused, format!("the ledger of group {group} cannot be read: {what}"))
                .help(format!("somebody changed {} by hand; restore the row", names::LEDGER))
        };
        let log = log.parse().map_err(|e| broken(format!("`{log}` names no log")).because(e))?;
        let through = u64::try_from(through).map_err(|e| broken(format!("epoch {through}")).because(e))?;
        let held = serde_json::from_str(held).map_err(|e| broken(format!("held tables `{held}`")).because(e))?;
        Ok(Self { log, through, held })
    }
}

/// The tables that stay behind, as the ledger keeps them.
fn held_text(held: &BTreeMap<String, EpochNumber>) -> Result<String> {
    serde_json::to_string(held)
        .map_err(|e| Error::new(ErrorKind::Internal, "write the held tables of the ledger").because(e))
}

/// What the ledger says, held against what the unit expects.
fn check_ledger(unit: &LoadUnit, found: Option<&Ledger>) -> Result<()> {
    let group = &unit.group;
    let (through, held) = match found {
        Some(Ledger { log, .. }) if *log != unit.log => {
            return Err(Error::new(
                ErrorKind::LedgerForeign,
                format!("the warehouse's ledger of group {group} belongs to log {log}, the lake's log is {}", unit.log),
            )
            .help(format!(
                "this warehouse was loaded from another lake: load into an empty schema, or, to start over here, drop the \
                 tables of the group and delete its row from {}",
                names::LEDGER
            )));
        }
        Some(ledger) => (ledger.through, ledger.held.clone()),
        None => (0, BTreeMap::new()),
    };
    if through == unit.after && held == unit.held_before {
        return Ok(());
    }
    let held_where = |held: &BTreeMap<String, EpochNumber>| {
        let tables: Vec<String> = held.iter().map(|(table, n)| format!("{table} at {n}")).collect();
        if tables.is_empty() { String::new() } else { format!(" with {}", tables.join(", ")) }
    };
    Err(Error::new(
        ErrorKind::LedgerMoved,
        format!(
            "the ledger of group {group} stands at epoch {through}{}, the unit begins after {}{}",
            held_where(&held),
            unit.after,
            held_where(&unit.held_before)
        ),
    ))
}

/// The final account of a table, which must balance.
fn settle(load: &crate::epoch::TableLoad, mut account: LoadAccount) -> Result<LoadAccount> {
    account.add(&load.folded);
    if account.balances() {
        return Ok(account);
    }
    Err(Error::new(
        ErrorKind::Internal,
        format!("the account of table {} does not balance: {account:?}", load.contract.table),
    ))
}
