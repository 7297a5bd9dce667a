//! Reading both sides of one table.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::expected::{Expected, Passed, Told};
use super::layout::Layout;
use super::value;
use crate::config::Loaded;
use crate::contract::Contract;
use crate::epoch::{DeleteMode, EpochNumber};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::Log;
use crate::operator::Chain;
use crate::source::{Reached, Witness};
use crate::warehouse::{HeldQuery, HeldRow, Inspect};

/// How often log and ledger are looked at while the warehouse is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Refused keys that are remembered.
const MOST_REFUSED: usize = 1_000_000;

/// Keys whose row at the source is refused, and by which rule.
pub type Refused = HashMap<Box<[u8]>, String>;

/// Both sides of a table.
pub struct Sides<'a> {
    pub loaded: &'a Loaded,
    pub table: &'a str,
    pub source: &'a str,
    pub group: String,
    pub log: &'a Log,
    pub warehouse: &'a dyn Inspect,
    pub chains: &'a Arc<BTreeMap<String, Chain>>,
    pub witness: &'a mut dyn Witness,
    pub timeout: Duration,
}

/// What one reading of the source gave beside its rows.
#[derive(Debug)]
pub struct Reading {
    /// The columns that were compared.
    pub layout: Layout,
    /// Keys whose rows are refused.
    pub refused: Refused,
    /// What became of the rows that are expected nowhere.
    pub passed: Passed,
}

/// Done with each row: its key and its bytes.
pub type TakeExpected<'a> = dyn FnMut(&[u8], &[u8]) -> Result<()> + Send + 'a;
/// Done with each row: its key, its bytes and its order.
pub type TakeHeld<'a> = dyn FnMut(&[u8], &[u8], Option<&str>) -> Result<()> + Send + 'a;

impl<'a> Sides<'a> {
    fn config(&self) -> &'a crate::config::Table {
        &self.loaded.topology.tables[self.table]
    }

    /// The log's newest contracts; `None` where it knows nothing of the table.
    async fn contracts(&self) -> Result<Option<(Arc<Contract>, Vec<Arc<Contract>>)>> {
        let state = self.log.refresh().await?;
        let ours = state.contracts.get(self.table).cloned();
        Ok(ours.map(|ours| (ours, state.contracts.values().cloned().collect())))
    }

    /// Reads the source: all rows, or at least those of `keys`. `None`: the log knows nothing of the table.
    pub async fn expected(
        &mut self,
        keys: Option<(&Layout, &[&[u8]])>,
        take: &mut TakeExpected<'_>,
    ) -> Result<Option<Reading>> {
        let Some((contract, contracts)) = self.contracts().await? else { return Ok(None) };
        let wanted = keys.and_then(|(layout, keys)| layout.keys(keys.iter().copied())?.0);
        let columns = self.witness.read(&self.config().from, wanted.as_ref()).await?;
        let chain = self.chains.get(self.table).ok_or_else(|| self.unknown())?;
        let mut layout = Layout::new(&contract, chain, &self.config().operators, &columns)?;
        layout.documents = self.loaded.topology.warehouse.keeps_documents();
        let mut refused = Refused::new();
        let mut expected = Expected::new(self.loaded, self.source, &contracts, self.chains, &layout)?;
        let mut told = |told: Told<'_>| match told {
            Told::Row { key, row } => take(key, row),
            Told::Refused { key, rule } => {
                refused.insert(key.into(), rule.to_owned());
                if refused.len() > MOST_REFUSED {
                    let what = format!("more than {MOST_REFUSED} rows of {} are refused", layout.table);
                    return Err(Error::new(ErrorKind::Table(layout.table.clone()), what)
                        .help("see `dataflow quarantine list`, and correct the rule or the contract"));
                }
                Ok(())
            }
        };
        while let Some(raw) = self.witness.next().await? {
            tokio::task::block_in_place(|| expected.take(&raw, self.witness, &mut told))?;
        }
        let passed = expected.passed;
        Ok(Some(Reading { layout, refused, passed }))
    }

    fn unknown(&self) -> Error {
        Error::new(ErrorKind::Internal, format!("table {} has no operators", self.table))
    }

    /// Reads the warehouse: all rows, or at least those of `keys`.
    pub async fn held(&self, layout: &Layout, keys: Option<&[&[u8]]>, take: &mut TakeHeld<'_>) -> Result<()> {
        let keys = keys.and_then(|keys| Some(layout.keys(keys.iter().copied())?.1));
        let mode: DeleteMode = self.config().deletes;
        let query = HeldQuery { table: self.table, columns: &layout.columns, mode, keys: keys.as_ref() };
        let (mut row, mut key, mut text) = (Vec::new(), Vec::new(), String::new());
        let mut take_row = |held: &HeldRow| {
            let cell = |at: usize, out: &mut String| match &held.cells[at] {
                Some(stored) => {
                    value::write_stored(layout.columns[at].1, stored, out);
                    true
                }
                None => false,
            };
            layout.write(&mut row, &mut key, cell, &mut text);
            take(&key, &row, held.seq.as_deref())
        };
        self.warehouse.held_rows(&query, &mut take_row).await?;
        Ok(())
    }

    /// Waits until the warehouse holds what the newest reading of the source shows. `Some`: why it did not come to that.
    pub async fn meet(&mut self) -> Result<Option<String>> {
        let begun = Instant::now();
        let wanted = loop {
            let state = self.log.refresh().await?;
            if let Some(stopped) = state.stopped.get(self.table) {
                let how = if stopped.parked { "parked" } else { "paused" };
                return Ok(Some(format!("the table is {how} since epoch {}: {}", stopped.since, stopped.why)));
            }
            let why = match self.witness.reached(&state.progress).await? {
                // A ledger is not moved for epochs that have nothing for it.
                Reached::Yes => break state.tables.get(self.table).map_or(0, |totals| totals.epoch),
                Reached::No(why) => why,
            };
            if begun.elapsed() >= self.timeout {
                return Ok(Some(format!(
                    "the lake did not come to where the source was read, in {:?}: {why}; is `dataflow run` running?",
                    self.timeout
                )));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        loop {
            let holds = self.holds().await?;
            if holds >= wanted {
                return Ok(None);
            }
            if begun.elapsed() >= self.timeout {
                return Ok(Some(format!(
                    "the warehouse holds epoch {holds} of group {} and did not come to epoch {wanted} in {:?}; is \
                     `dataflow run` running{}?",
                    self.group,
                    self.timeout,
                    self.may_wait()
                )));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn may_wait(&self) -> String {
        let span = self.loaded.topology.fresh_within(self.table).filter(|span| span.0 > self.timeout);
        span.map_or_else(String::new, |span| format!(", and is the timeout longer than fresh_within ({span})"))
    }

    /// The epoch up to which the warehouse holds the table.
    pub async fn holds(&self) -> Result<EpochNumber> {
        let Some(applied) = self.warehouse.applied(&self.group).await? else { return Ok(0) };
        let log = self.log.state().log;
        if applied.log != log {
            let what = format!("the warehouse's ledger belongs to log {}, the lake's log is {log}", applied.log);
            return Err(Error::new(ErrorKind::LedgerForeign, what)
                .help("the warehouse was loaded from another lake: correct `lake:` or `warehouse:`"));
        }
        Ok(applied.held.get(self.table).copied().unwrap_or(applied.through))
    }
}
