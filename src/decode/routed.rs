//! What decoders of database logs share: which stream is which table, and what became of each record.

use std::collections::HashMap;
use std::sync::Arc;

use super::debezium::table::Table;
use super::debezium::{Refusal, TableRoute};
use crate::batch::{ChangeBatch, Described, Op, RawBatch, ReadBy, Reject, Seq};
use crate::contract::Contract;
use crate::error::{Error, ErrorKind, Result};

/// The tables of a source, by their streams.
pub(super) struct Routed {
    source: String,
    pub tables: Vec<Table>,
    by_stream: HashMap<String, usize>,
    /// Of each table, what its newest records say nothing without.
    described: Vec<Option<Arc<[u8]>>>,
    /// The batch that is being decoded.
    batch: u64,
    read_by: ReadBy,
}

/// A description as it came, for epochs that begin behind it.
pub(super) struct Heard {
    text: Arc<[u8]>,
    /// The batch that it came in, or that has last said that its records are read by it.
    batch: u64,
}

/// What a record became.
pub(super) enum Outcome {
    Row,
    Control,
    Unrouted,
    Refused(Option<usize>, Option<Op>, Refusal),
}

impl Outcome {
    /// Of what one record became in several tables, what is to be counted.
    pub fn max(self, other: Self) -> Self {
        match (&self, &other) {
            (Self::Row, _) | (_, Self::Unrouted) => self,
            _ => other,
        }
    }
}

impl Routed {
    /// The tables in `routes`, whose streams are `<schema or database>.<table>`.
    pub fn new(source: &str, routes: Vec<TableRoute>) -> Result<Self> {
        let mut by_stream = HashMap::new();
        let mut tables: Vec<Table> = Vec::with_capacity(routes.len());
        for route in routes {
            if let Some(other) = by_stream.insert(route.stream.clone(), tables.len()) {
                let other = &tables[other].route.table;
                return Err(Error::new(
                    ErrorKind::Config,
                    format!("tables {other} and {} both read {} of source {source}", route.table, route.stream),
                )
                .help("one stream becomes one table; remove one of them"));
            }
            tables.push(Table::new(route)?);
        }
        let described = vec![None; tables.len()];
        Ok(Self { source: source.to_owned(), tables, by_stream, described, batch: 0, read_by: ReadBy::default() })
    }

    /// Begins a batch.
    pub fn begin(&mut self, raw: &RawBatch) -> ChangeBatch {
        self.batch += 1;
        self.read_by = ReadBy::default();
        ChangeBatch::begin(raw.partition.clone(), raw.generation, raw.span.clone())
    }

    /// Takes a description of the records that name `id`: one of the batch's records, or one that is recalled with it.
    pub fn hear(&mut self, id: u64, text: &[u8], recalled: bool) -> Heard {
        if !recalled {
            self.read_by.own.push(id);
        }
        Heard { text: text.into(), batch: self.batch - u64::from(recalled) }
    }

    /// A record of the batch that names `id` is read by `heard`.
    #[inline]
    pub fn rely_on(&mut self, id: u64, heard: &mut Heard) {
        if heard.batch != self.batch {
            heard.batch = self.batch;
            self.read_by.earlier.push((id, Arc::clone(&heard.text)));
        }
    }

    /// The table that reads the stream.
    pub fn of(&self, stream: &str) -> Option<usize> {
        self.by_stream.get(stream).copied()
    }

    /// From here on records of the table say nothing without `text`.
    pub fn describe(&mut self, table: usize, text: &[u8]) {
        self.described[table] = Some(text.into());
    }

    /// A record of the table that is read by `heard` was refused: others may have been described since.
    pub fn describe_by(&mut self, table: usize, heard: &Heard) {
        self.described[table] = Some(Arc::clone(&heard.text));
    }

    /// Hands on what holds from `seq` on.
    pub fn say_described(&self, batch: &mut ChangeBatch, seq: Seq) {
        for (table, text) in self.tables.iter().zip(&self.described) {
            let Some(text) = text else { continue };
            let said = batch.described.iter().rev().find(|said| said.table == table.route.table);
            if said.is_none_or(|said| said.text != *text) {
                let (table, text) = (table.route.table.clone(), Arc::clone(text));
                batch.described.push(Described { table, from: seq, text });
            }
        }
    }

    /// Puts a record into the batch's account, and into its rejects when it was refused.
    pub fn count(&self, batch: &mut ChangeBatch, seq: Seq, time: i64, outcome: Outcome) {
        let account = &mut batch.account;
        account.read += 1;
        match outcome {
            Outcome::Row => account.rows += 1,
            Outcome::Control => account.control += 1,
            Outcome::Unrouted => account.unrouted += 1,
            Outcome::Refused(table, op, refusal) => {
                account.rejected += 1;
                batch.rejects.push(Reject {
                    table: table.map(|table| self.tables[table].route.table.clone()),
                    partition: batch.partition.clone(),
                    seq,
                    rule: refusal.rule.to_owned(),
                    reason: refusal.reason,
                    op,
                    key: None,
                    values: None,
                    source_time_us: time,
                });
            }
        }
    }

    /// Gives the rows under construction to the batch.
    pub fn close(&mut self, batch: &mut ChangeBatch) -> Result<()> {
        for table in &mut self.tables {
            table.close()?;
            batch.tables.append(&mut table.done);
        }
        batch.read_by = std::mem::take(&mut self.read_by);
        debug_assert!(batch.account.balances(), "every record is accounted for: {:?}", batch.account);
        Ok(())
    }

    /// Takes over contracts from the log.
    pub fn adopt(&mut self, contracts: &[Arc<Contract>]) -> Result<()> {
        for contract in contracts {
            if let Some(table) = self.tables.iter_mut().find(|t| t.route.table == contract.table) {
                table.adopt(contract).map_err(|e| e.doing(format!("source {}", self.source)))?;
            }
        }
        Ok(())
    }
}

/// What is wrong when the source's key is not the table's.
pub(super) fn other_key(table: &Table, key: &[String]) -> Option<String> {
    let known = table.contract.is_some() && table.fixed_key.is_none();
    if !known || table.key() == key {
        return None;
    }
    Some(format!(
        "the source's key is ({}) and the table's is ({}); if the primary key has changed, start the table anew under \
         another name, or fix its `key:` in the topology",
        key.join(", "),
        table.key().join(", ")
    ))
}

/// What is said of a change that needs a key, of a table without one.
pub(super) const NO_KEY: &str = "the table has no key, so a row can only be added; give the table a `key:` in the topology, \
                                 or the source table a primary key";
