//! What must stand in the warehouse: a source's rows, decoded and through the table's operators as ingest does it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};

use super::layout::Layout;
use crate::batch::{ChangeBatch, Op, RawBatch, RawRecords, Seq, TableChanges};
use crate::config::Loaded;
use crate::contract::{Contract, Type};
use crate::decode::Decoder;
use crate::error::Result;
use crate::operator::{Chain, text};
use crate::pipeline::build;
use crate::pipeline::reader::Transforms;
use crate::source::Witness;

/// What is expected of a key.
#[derive(Debug, Clone, Copy)]
pub enum Told<'a> {
    /// This row.
    Row { key: &'a [u8], row: &'a [u8] },
    /// The source's row is refused, so what the warehouse shows of the key is another version, or nothing.
    Refused { key: &'a [u8], rule: &'a str },
}

/// Rows that are expected nowhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passed {
    /// Rows of the source.
    pub read: u64,
    /// A filter leaves them out.
    pub filtered: u64,
    /// Refused, and nothing is known of the key (or the table has none).
    pub unknown: u64,
}

/// Makes rows as they are expected out of what a witness reads.
pub struct Expected<'a> {
    layout: &'a Layout,
    decoder: Box<dyn Decoder>,
    transforms: Transforms,
    /// What became of the rows.
    pub passed: Passed,
}

/// Why rows were refused, by their order.
type Reasons = BTreeMap<Seq, String>;

impl<'a> Expected<'a> {
    /// Reads as the log's newest `contracts` say.
    pub fn new(
        loaded: &Loaded,
        source: &str,
        contracts: &[Arc<Contract>],
        chains: &Arc<BTreeMap<String, Chain>>,
        layout: &'a Layout,
    ) -> Result<Self> {
        let mut decoder = build::decoder(loaded, source)?;
        decoder.adopt(contracts)?;
        Ok(Self { layout, decoder, transforms: Transforms::new(Arc::clone(chains)), passed: Passed::default() })
    }

    /// What is expected of the rows in `raw`.
    pub fn take(
        &mut self,
        raw: &RawBatch,
        witness: &dyn Witness,
        told: &mut (dyn FnMut(Told<'_>) -> Result<()> + Send),
    ) -> Result<()> {
        let mut batch = self.decoder.decode(raw)?;
        self.passed.read += batch.account.rows + batch.account.rejected;
        let mut refused: Reasons = batch.rejects.iter().map(|reject| (reject.seq, reject.rule.clone())).collect();
        for changes in &mut batch.tables {
            // A decoder may leave a mark of its own under the key.
            let marked = changes.ops.iter().zip(&changes.seqs).filter(|(op, _)| **op == Op::Refused);
            marked.for_each(|(_, seq)| drop(refused.remove(seq)));
            // As updates they leave a trace whatever becomes of them; a table without a key can only be added to.
            if !changes.contract.input.key.is_empty() {
                changes.ops.iter_mut().filter(|op| op.has_row()).for_each(|op| *op = Op::Update);
            }
        }
        self.tell(raw, batch, None, told)?;
        if refused.is_empty() { Ok(()) } else { self.refused(raw, witness, &refused, told) }
    }

    /// Rows that cannot be decoded as a whole: at least their keys.
    fn refused(
        &mut self,
        raw: &RawBatch,
        witness: &dyn Witness,
        refused: &Reasons,
        told: &mut (dyn FnMut(Told<'_>) -> Result<()> + Send),
    ) -> Result<()> {
        let mut records = RawRecords::default();
        for seq in refused.keys() {
            let record = raw.records.at(seq);
            let gone = record.and_then(|record| witness.gone(record.value()?));
            match (record, gone) {
                (Some(record), Some(gone)) if !self.layout.key.is_empty() => {
                    records.push_within(record.offset(), record.within(), record.timestamp_us(), None, Some(&gone));
                }
                _ => self.passed.unknown += 1,
            }
        }
        let raw = RawBatch { records, ..raw.clone() };
        let batch = self.decoder.decode(&raw)?;
        self.passed.unknown += batch.account.rejected;
        self.tell(&raw, batch, Some(refused), told)
    }

    fn tell(
        &mut self,
        raw: &RawBatch,
        batch: ChangeBatch,
        refused: Option<&Reasons>,
        told: &mut (dyn FnMut(Told<'_>) -> Result<()> + Send),
    ) -> Result<()> {
        let span = RawBatch { records: RawRecords::default(), ..raw.clone() };
        let done = self.transforms.apply(span, batch, Vec::new())?;
        let ours = done.accounts.get(&self.layout.table);
        self.passed.filtered += ours.map_or(0, |account| account.filtered.values().sum());
        if self.layout.key.is_empty() {
            self.passed.unknown += ours.map_or(0, |account| account.rejected.values().sum());
        }
        let rules: Reasons = done.rejects.iter().map(|reject| (reject.seq, reject.rule.clone())).collect();
        for changes in done.tables.iter().filter(|changes| changes.contract.table == self.layout.table) {
            self.rows(changes, refused.unwrap_or(&rules), refused.is_some(), told)?;
        }
        Ok(())
    }

    fn rows(
        &mut self,
        changes: &TableChanges,
        rules: &Reasons,
        all_refused: bool,
        told: &mut (dyn FnMut(Told<'_>) -> Result<()> + Send),
    ) -> Result<()> {
        let output = &changes.contract.output;
        let columns: Vec<Option<(&ArrayRef, Type)>> = self
            .layout
            .columns
            .iter()
            .map(|(name, _)| output.index(name).map(|at| (changes.rows.column(at), output.columns[at].data_type)))
            .collect();
        let (mut row, mut key, mut scratch) = (Vec::new(), Vec::new(), String::new());
        for at in 0..changes.len() {
            let cell = |column: usize, out: &mut String| match columns[column] {
                Some((values, data_type)) if values.is_valid(at) => {
                    text::write_normal(values, data_type, at, out);
                    true
                }
                _ => false,
            };
            self.layout.write(&mut row, &mut key, cell, &mut scratch);
            let rule = rules.get(&changes.seqs[at]).map_or("decode", String::as_str);
            match changes.ops[at] {
                op if op.has_row() => told(Told::Row { key: &key, row: &row })?,
                Op::Refused => told(Told::Refused { key: &key, rule })?,
                _ if all_refused => told(Told::Refused { key: &key, rule })?,
                // A filter, or a rule that removes: nothing must be there.
                _ => self.passed.filtered += 1,
            }
        }
        Ok(())
    }
}
