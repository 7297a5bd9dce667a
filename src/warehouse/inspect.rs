//! What people ask a warehouse, and nothing that a load needs: how many rows stand there, which they are, and which partial
//! rows found no base.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;

use super::{Warehouse, sqlite};
use crate::config;
use crate::contract::Type;
use crate::epoch::{DeleteMode, EpochNumber, Incomplete};
use crate::error::{Error, ErrorKind, Result};

/// How many rows a table holds for those who read it: deleted rows (soft) and past versions (history) do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LiveRows {
    /// The rows.
    pub rows: u64,
    /// The planner's guess: counting took too long.
    pub estimated: bool,
}

/// A partial row that found no base and that nothing has healed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenIncomplete {
    /// Its number in the warehouse's table of them.
    pub id: i64,
    /// The last epoch of the unit that brought it.
    pub epoch: EpochNumber,
    /// The row.
    pub row: Incomplete,
}

/// Which rows of a table are read.
#[derive(Debug, Clone, Copy)]
pub struct HeldQuery<'a> {
    /// The table.
    pub table: &'a str,
    /// The columns, which may be missing there: they are then null.
    pub columns: &'a [(String, Type)],
    /// What deletes do: only rows that are shown to those who read the table.
    pub mode: DeleteMode,
    /// At least the rows of these keys; `None` = all.
    pub keys: Option<&'a HeldKeys>,
}

/// Keys of rows, as texts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeldKeys {
    /// The key's columns.
    pub columns: Vec<(String, Type)>,
    /// The values, in that order.
    pub rows: Vec<Vec<String>>,
}

/// A row as the warehouse holds it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeldRow {
    /// The values in the order of the query's columns, as the warehouse writes them: times as ISO 8601 with a blank or a
    /// `T`, bytes as `\\x` and hexadecimal digits.
    pub cells: Vec<Option<String>>,
    /// Its order, where it has one.
    pub seq: Option<String>,
}

/// What is done with each row that is read.
pub type TakeRow<'a> = dyn FnMut(&HeldRow) -> Result<()> + Send + 'a;

/// What a warehouse keeps open while nobody asks anything of it.
pub trait Rest {
    /// Closes connections that nobody has used for so long.
    fn close_unused(&self, _unused_for: Duration) {}
}

/// Questions of people.
#[async_trait]
pub trait Inspect: Warehouse + Rest {
    /// The live rows of each table; `None` where the table is not there yet.
    async fn live_rows(&self, table: &str, mode: DeleteMode) -> Result<Option<LiveRows>>;

    /// The partial rows without a base, oldest first.
    async fn open_incompletes(&self) -> Result<Vec<OpenIncomplete>>;

    /// How many there are, by table.
    async fn count_incompletes(&self) -> Result<BTreeMap<String, u64>>;

    /// Forgets these; says how many were there.
    async fn drop_incompletes(&self, ids: &[i64]) -> Result<u64>;

    /// Reads the rows of a table as of one moment. `false`: the table is not there.
    async fn held_rows(&self, query: &HeldQuery<'_>, take: &mut TakeRow<'_>) -> Result<bool>;
}

/// Opens the warehouse of a topology to look at it: makes nothing. `None` = nothing has been loaded there yet.
pub async fn find(config: &config::Warehouse, topology: &str) -> Result<Option<Arc<dyn Inspect>>> {
    match config {
        config::Warehouse::Sqlite(config) => {
            let found = sqlite::Sqlite::find(config, topology).await?;
            Ok(found.map(|found| Arc::new(found) as Arc<dyn Inspect>))
        }
        #[cfg(feature = "postgres")]
        config::Warehouse::Postgres(config) => {
            let found = super::postgres::Postgres::find(config, topology).await?;
            Ok(found.map(|found| Arc::new(found) as Arc<dyn Inspect>))
        }
        #[cfg(not(feature = "postgres"))]
        config::Warehouse::Postgres(_) => Err(Error::new(ErrorKind::Config, "open the warehouse of kind postgres")
            .help("this binary was built without it; build with `--features postgres`")),
        #[cfg(feature = "redshift")]
        config::Warehouse::Redshift(config) => {
            let found = super::redshift::Redshift::find(config, topology).await?;
            Ok(found.map(|found| Arc::new(found) as Arc<dyn Inspect>))
        }
        #[cfg(not(feature = "redshift"))]
        config::Warehouse::Redshift(_) => Err(Error::new(ErrorKind::Config, "open the warehouse of kind redshift")
            .help("this binary was built without it; build with `--features redshift`")),
    }
}

/// A row of the table of incomplete rows: id, epoch, table, key, seq, partition, missing columns as JSON text.
pub(super) type Found = (i64, i64, String, String, String, String, String);

/// The columns of [`Found`], in order.
pub(super) const COLUMNS: &str = "id, epoch, table_name, key, seq, source_partition, missing";

pub(super) fn open_incomplete(found: Found) -> Result<OpenIncomplete> {
    let (id, epoch, table, key, seq, partition, missing) = found;
    let missing = serde_json::from_str(&missing).map_err(|error| {
        Error::new(ErrorKind::WarehouseRefused, format!("read row {id} of {}", super::names::INCOMPLETE)).because(error)
    })?;
    let row = Incomplete { table, key, seq, partition, missing };
    Ok(OpenIncomplete { id, epoch: epoch.unsigned_abs(), row })
}
