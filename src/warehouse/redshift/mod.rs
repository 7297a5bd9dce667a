//! Amazon Redshift, provisioned or serverless.
//!
//! | file | what it owns |
//! |---|---|
//! | `session.rs`, `sessions.rs` | plain statements, one at a time; the few sessions that groups share |
//! | `wire.rs`, `api/` | the two ways to a cluster: a connection (TLS, log-in), or the Data API |
//! | `credentials.rs` | user and password, from the URL or lent by AWS |
//! | `failure.rs` | what a failure means, by SQLSTATE and text |
//! | `patience.rs` | how often a statement may be ended by a limit, or fail for no reason, and for how long |
//! | `sql.rs` | SQL text |
//! | `types.rs` | contract types, the stage's and the catalog's |
//! | `stage.rs`, `documents.rs`, `attributes.rs` | folded rows as the Parquet file of a stage; documents that are too long for a text, or name something twice |
//! | `layout.rs`, `range.rs` | distribution and sort keys; the range of keys that a merge looks at |
//! | `homes.rs` | which group loads which table |
//! | `views.rs` | views for people and their tools |
//! | `state.rs` | a group's control table: ledger, accounts, floors |
//! | `ensure.rs`, `replace.rs` | control tables, and tables as their contracts say; wider columns in the place of narrow ones |
//! | `upload.rs`, `parts.rs` | what a load stages before its transaction begins; in how many files |
//! | `apply.rs` | one unit, one transaction |
//! | `inspect.rs` | what people ask |
//! | `probe.rs`, `conformance.rs` | what a cluster lets us do; what it makes of what no page promises |
//! | `policy.rs` | what the loader and COPY must be allowed to do |
//!
//! Rows go through the lake: Parquet files and a manifest for every table of a unit, then `LOCK` of the group's lock
//! table, the ledger's compare-and-set, `COPY` into a temporary table, and delete-and-insert, in one transaction.

mod api;
mod apply;
mod attributes;
mod conformance;
mod credentials;
mod documents;
mod ensure;
mod failure;
mod homes;
mod inspect;
mod layout;
mod parts;
mod patience;
mod policy;
mod probe;
mod range;
mod replace;
mod session;
mod sessions;
mod sql;
mod stage;
mod state;
mod types;
mod upload;
mod views;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use self::patience::{Patience, at_start};
pub use self::policy::needs;
pub use self::probe::probe;
use self::sessions::Sessions;
use self::sql::{Documents, GroupNames, STATE_COLUMNS, STATE_PREFIX, StageForm, StageKind};
use self::state::{Row, State};
pub use self::views::Shown;
use super::merge::Needs;
use super::names::literal;
use super::staging::Staging;
use super::{Freshness, IncompleteRow, Lost, Warehouse, incomplete_of};
use crate::config::{RedshiftWarehouse, TableLayout};
use crate::contract::Contract;
use crate::epoch::{Applied, DeleteMode, EpochNumber, Incomplete, LoadUnit};
use crate::error::{Error, ErrorKind, Result};

/// A schema of a Redshift database.
pub struct Redshift {
    sessions: Sessions,
    names: sql::Names,
    /// The schema of the views.
    views: String,
    topology: String,
    /// Tables of which the topology says how they lie.
    layouts: BTreeMap<String, TableLayout>,
    iam_role: String,
    /// How much of a table goes into one staged file.
    file_bytes: u64,
    /// `None`: to look at it only.
    staging: Option<Arc<dyn Staging>>,
    /// The states of groups as the last commit left them.
    known: Mutex<BTreeMap<String, State>>,
    /// Groups whose control tables are there.
    ready: Mutex<BTreeSet<String>>,
    patience: Patience,
}

impl Redshift {
    /// Connects, and makes the schema when it is missing.
    pub async fn connect(config: &RedshiftWarehouse, topology: &str, staging: Arc<dyn Staging>) -> Result<Self> {
        let warehouse = Self::new(config, topology, Some(staging))?;
        let doing = format!("open the Redshift warehouse {}, schema {}", warehouse.sessions.place, config.schema);
        warehouse.set_up().await.map_err(|e| at_start(e).doing(&doing))?;
        Ok(warehouse)
    }

    fn new(config: &RedshiftWarehouse, topology: &str, staging: Option<Arc<dyn Staging>>) -> Result<Self> {
        Ok(Self {
            sessions: Sessions::new(config)?,
            names: sql::Names::new(&config.schema),
            views: config.views.clone(),
            layouts: BTreeMap::new(),
            topology: topology.to_owned(),
            iam_role: config.iam_role.clone(),
            file_bytes: config.file_bytes.0,
            staging,
            known: Mutex::default(),
            ready: Mutex::default(),
            patience: Patience::default(),
        })
    }

    /// With what the topology says of how tables lie.
    pub fn laid_out(mut self, layouts: BTreeMap<String, TableLayout>) -> Self {
        self.layouts = layouts;
        self
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, State>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ready(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn group(&self, group: &str) -> GroupNames {
        GroupNames::new(&self.topology, group)
    }

    /// Runs one statement in a session of its own, outside a transaction.
    async fn once(&self, statement: &str, table: Option<&str>) -> Result<session::Answer> {
        let mut lease = self.sessions.lease().await?;
        let answer = lease.session.run(statement, table).await?;
        self.sessions.give_back(lease);
        Ok(answer)
    }

    /// The rows of all queries, in a session of its own.
    async fn all(&self, queries: &[String]) -> Result<Vec<Vec<Option<String>>>> {
        let mut lease = self.sessions.lease().await?;
        let rows = lease.session.all(queries, None).await?;
        self.sessions.give_back(lease);
        Ok(rows)
    }

    /// The tables whose names begin like that.
    async fn tables_like(&self, prefix: &str) -> Result<Vec<String>> {
        let answer = self.once(&self.names.tables_like(prefix), None).await?;
        Ok(answer.rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
    }

    async fn read_freshness(&self) -> Result<Vec<Freshness>> {
        let states = self.tables_like(STATE_PREFIX).await?;
        let select = |state: &String| {
            let (of, topology) = (self.names.of(state), text(&self.topology));
            format!("SELECT {STATE_COLUMNS} FROM {of} WHERE table_name <> '' AND epoch > 0 AND topology = {topology}")
        };
        if states.is_empty() {
            return Ok(Vec::new());
        }
        let rows = self.all(&states.iter().map(select).collect::<Vec<_>>()).await?;
        let mut fresh = rows.iter().map(|row| Row(row).freshness()).collect::<Result<Vec<_>>>()?;
        fresh.sort_by(|a, b| a.table.cmp(&b.table));
        Ok(fresh)
    }

    async fn read_incompletes(&self, group: &str, after: EpochNumber) -> Result<Vec<Incomplete>> {
        let names = self.group(group);
        if !self.tables_like(&names.incomplete).await?.contains(&names.incomplete) {
            return Ok(Vec::new());
        }
        let statement = format!(
            "SELECT table_name, key, seq, source_partition, missing FROM {} WHERE epoch > {after} ORDER BY id",
            self.names.of(&names.incomplete)
        );
        let answer = self.once(&statement, None).await?;
        let cells = |row: Vec<Option<String>>| -> IncompleteRow {
            let mut cells = row.into_iter().map(Option::unwrap_or_default);
            let mut next = || cells.next().unwrap_or_default();
            (next(), next(), next(), next(), next())
        };
        answer.rows.into_iter().map(|row| incomplete_of(cells(row))).collect()
    }

    /// The state of a group; `None` when it has no control tables.
    async fn read_state(&self, group: &str) -> Result<Option<State>> {
        let names = self.group(group);
        if !self.tables_like(&names.state).await?.contains(&names.state) {
            return Ok(None);
        }
        let answer = self.once(&self.names.state(&names.state), None).await?;
        State::read(group, &answer.rows).map(Some)
    }
}

/// A text literal. A backslash would begin an escape in Redshift's.
fn text(value: &str) -> String {
    match value.contains('\\') {
        true => format!("({})", value.split('\\').map(literal).collect::<Vec<_>>().join(" || chr(92) || ")),
        false => literal(value),
    }
}

#[async_trait]
impl Warehouse for Redshift {
    async fn applied(&self, group: &str) -> Result<Option<Applied>> {
        let doing = || format!("read the ledger of group {group}");
        let found = self
            .patience
            .judge(&format!("ledger of {group}"), self.read_state(group).await)
            .map_err(|e| e.doing(doing()))?;
        let Some(state) = found else { return Ok(None) };
        let accounts = state.tables.iter().map(|(table, known)| (table.clone(), known.account)).collect();
        let applied = state.ledger.clone().map(|ledger| Applied {
            log: ledger.log,
            through: ledger.through,
            held: ledger.held,
            accounts,
        });
        self.known().insert(group.to_owned(), state);
        Ok(applied)
    }

    async fn ensure_or(&self, contract: &Contract, mode: DeleteMode, lost: Lost) -> Result<()> {
        let ensured = self.ensure_table(contract, mode, lost).await;
        self.patience.judge(&format!("table {}", contract.table), ensured).map_err(|e| {
            e.doing(format!("make table {} what its contract version {} says", contract.table, contract.version))
        })
    }

    async fn apply(&self, unit: &LoadUnit) -> Result<Applied> {
        let applied = apply::apply(self, unit).await;
        if applied.is_err() {
            self.known().remove(&unit.group);
        }
        self.patience
            .judge(&apply::load_of(&unit.group), applied)
            .map_err(|e| e.doing(format!("apply epochs {}..={} of group {}", unit.after + 1, unit.through, unit.group)))
    }

    async fn freshness(&self) -> Result<Vec<Freshness>> {
        let fresh = self.read_freshness().await;
        self.patience.judge("freshness", fresh).map_err(|e| e.doing("read how fresh the tables are"))
    }

    async fn incompletes(&self, group: &str, after: EpochNumber) -> Result<Vec<Incomplete>> {
        let found = self.read_incompletes(group, after).await;
        let doing = format!("read the incomplete rows of group {group}");
        self.patience.judge(&doing, found).map_err(|e| e.doing(&doing))
    }
}

/// Gives every table the group that loads it, before any of them is loaded, and shows people those that are there.
pub async fn assign(
    config: &RedshiftWarehouse,
    topology: &str,
    groups: &BTreeMap<String, Vec<String>>,
    shown: &[Shown],
) -> Result<()> {
    Redshift::new(config, topology, None)?.assign(groups, shown).await.map_err(at_start)
}

/// The SQL of an empty warehouse, for `dataflow plan`.
pub fn plan(
    config: &RedshiftWarehouse,
    topology: &str,
    contract: &Contract,
    mode: DeleteMode,
    table_layout: &TableLayout,
) -> Vec<String> {
    let names = sql::Names::new(&config.schema);
    let (table, schema, stage) = (contract.table.as_str(), &contract.output, "_dataflow_stage_0");
    let group = GroupNames::new(topology, table);
    let mut out = vec![names.create(table, schema, mode) + &layout::clause(table_layout)];
    let alters = layout::alters(&names, table, table_layout);
    if !alters.is_empty() {
        let alters = alters.join(";\n");
        out.push(format!("-- not run: what gives the table this layout where it is there already\n{alters}"));
    }
    if !config.views.is_empty() {
        out.push(views::of_table(&config.views, &names, contract, mode));
    }
    let merge = names.merge(topology, &group, table, schema, mode, stage);
    let staged = |kind, documents| {
        let form = StageForm::new(kind, documents);
        let copy = sql::copy(stage, schema, form, "s3://…/….manifest", &config.iam_role);
        [sql::create_stage(stage, schema, form, ""), copy]
    };
    let counted = || sql::COPIED.to_owned();
    let large = |kind| {
        let form = StageForm::new(kind, Documents::Whole);
        let create = sql::create_stage(stage, schema, form, &layout::lies(table_layout));
        let copy = sql::copy(stage, schema, form, "s3://…/….manifest", &config.iam_role);
        let what = "-- rows with a document beyond 65535 bytes go into a stage of their own, and from there as the others do\n";
        [format!("{what}{create}"), copy, sql::document_kinds(stage, schema)]
    };
    let has_documents = documents::has_documents(schema);
    if schema.key.is_empty() {
        out.extend(staged(StageKind::Append, Documents::Text).into_iter().chain([counted()]));
        out.push(names.append(&merge));
        out.extend(has_documents.then(|| large(StageKind::Append)).into_iter().flatten());
        return out;
    }
    if mode != DeleteMode::History {
        out.extend(staged(StageKind::Plain, Documents::Text).into_iter().chain([counted()]));
        out.push(merge.supersede());
        out.extend(merge.replace(false, false));
    }
    let beside = if has_documents { Documents::Beside } else { Documents::Text };
    out.extend(staged(StageKind::Merge, beside));
    let merge = StageForm::new(StageKind::Merge, beside).merged(merge);
    out.extend(merge.statements(Needs { partial: true, moves: true, gone: true, marked: true }, None, true));
    out.push(merge.count_and_incomplete());
    let kind = if mode == DeleteMode::History { StageKind::Merge } else { StageKind::Plain };
    out.extend(has_documents.then(|| large(kind)).into_iter().flatten());
    out
}

/// What only those can do who have a place for staged files.
fn not_staged() -> Error {
    Error::new(ErrorKind::Config, "Redshift loads from the lake, and none was given")
        .help("set lake.url to s3://bucket/prefix, in the region of the cluster")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_backslash_begins_an_escape() {
        assert_eq!(text("it's"), "'it''s'");
        assert_eq!(text(r#"{"a\"b":1}"#), r#"('{"a' || chr(92) || '"b":1}')"#);
    }
}
