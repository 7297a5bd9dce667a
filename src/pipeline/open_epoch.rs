//! What has been collected since the last cut: files being written, spans, account.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use chrono::Utc;

use crate::batch::{Described, Op, TableChanges};
use crate::config::{OnMismatch, Topology};
use crate::epoch::{Account, Control};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::{Draft, EpochWriter, Lake};
use crate::operator::LeftOut;
use crate::pipeline::reader::Transformed;
use crate::progress::{Advance, Partition};

/// What the metrics of a commit are made of.
#[derive(Debug, Clone, Default)]
pub struct Written {
    /// Rows by table and letter of the operation.
    pub by_op: BTreeMap<(String, &'static str), u64>,
    /// Values that became null, by table and column.
    pub left_out: BTreeMap<(String, String), LeftOut>,
}

/// The epoch that is being collected.
pub struct OpenEpoch {
    writer: EpochWriter,
    began: Option<Instant>,
    advances: BTreeMap<Partition, Advance>,
    account: Account,
    written: Written,
    control: Vec<Control>,
    payload_bytes: u64,
    holds_data: bool,
    log_bytes: u64,
    /// Partitions whose newest batch ends inside a transaction.
    inside: BTreeSet<Partition>,
}

impl OpenEpoch {
    /// An empty epoch, to be written into `lake`.
    pub fn begin(lake: &Lake) -> Self {
        Self {
            writer: EpochWriter::begin(lake),
            began: None,
            advances: BTreeMap::new(),
            account: Account::default(),
            written: Written::default(),
            control: Vec::new(),
            payload_bytes: 0,
            holds_data: false,
            log_bytes: 0,
            inside: BTreeSet::new(),
        }
    }

    /// When its first record came.
    pub fn began(&self) -> Option<Instant> {
        self.began
    }

    /// Payload bytes read into it.
    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// Whether nothing at all was read.
    pub fn is_empty(&self) -> bool {
        self.advances.is_empty() && self.control.is_empty()
    }

    /// Whether there is more than positions.
    pub fn holds_data(&self) -> bool {
        self.holds_data
    }

    /// Bytes of log that servers keep until it is committed.
    pub fn log_bytes(&self) -> u64 {
        self.log_bytes
    }

    /// Whether it ends inside a transaction of a source: committed now, people would see half of it.
    pub fn is_inside_transaction(&self) -> bool {
        !self.inside.is_empty()
    }

    /// Takes what a reader handed over. `stopped` names the tables that need no further pause.
    pub fn take(&mut self, done: Transformed, topology: &Topology, stopped: &BTreeSet<String>) -> Result<()> {
        self.began.get_or_insert_with(Instant::now);
        self.payload_bytes += done.raw.records.bytes() as u64;
        self.log_bytes += done.raw.records.log_bytes();
        self.account.records.entry(done.raw.partition.source.to_string()).or_default().add(&done.records);
        // An empty span is the claim of a partition that the log does not know yet: where it starts must not be decided
        // anew after a restart.
        let claim = done.advance.span.from == done.advance.span.to;
        self.holds_data |= claim || !done.tables.is_empty() || !done.rejects.is_empty();
        if done.inside_transaction {
            self.inside.insert(done.advance.partition.clone());
        } else {
            self.inside.remove(&done.advance.partition);
        }
        self.extend_span(done.advance)?;
        self.writer.raw_read_by(&done.raw, &done.read_by)?;
        for rows in &done.tables {
            self.count(rows);
            self.writer.write(rows)?;
        }
        for (table, account) in &done.accounts {
            self.account.tables.entry(table.clone()).or_default().add(account);
        }
        for (column, left_out) in done.left_out {
            self.written.left_out.entry(column).or_default().add(left_out);
        }
        for reject in done.rejects {
            self.park_if_asked(&reject, topology, stopped);
            let record = done.raw.records.at(&reject.seq);
            let of = |known: &&Described| Some(&known.table) == reject.table.as_ref() && known.from <= reject.seq;
            let described = done.described.iter().rev().find(of).map(|known| &*known.text);
            self.writer.reject_described(reject, record, described)?;
        }
        Ok(())
    }

    fn extend_span(&mut self, advance: Advance) -> Result<()> {
        let Some(open) = self.advances.get_mut(&advance.partition) else {
            self.advances.insert(advance.partition.clone(), advance);
            return Ok(());
        };
        if open.span.to != advance.span.from {
            return Err(Error::new(
                ErrorKind::Internal,
                format!(
                    "collect {}: its source handed out {} to {} after {}",
                    advance.partition, advance.span.from, advance.span.to, open.span.to
                ),
            ));
        }
        open.span.to = advance.span.to;
        open.generation = advance.generation;
        open.mark = advance.mark;
        Ok(())
    }

    /// What is counted when it is committed.
    pub fn written(&self) -> Written {
        self.written.clone()
    }

    fn count(&mut self, rows: &TableChanges) {
        let mut counts = [0u64; 256];
        rows.ops.iter().for_each(|op| counts[usize::from(*op as u8)] += 1);
        for op in Op::ALL {
            let count = counts[usize::from(op as u8)];
            if count > 0 {
                *self.written.by_op.entry((rows.contract.table.clone(), op.letter())).or_default() += count;
            }
        }
    }

    /// Adds what a person asked for.
    pub fn add_control(&mut self, control: Vec<Control>) {
        self.control.extend(control);
    }

    /// A row that the contract or the warehouse cannot take parks its table where the topology says so.
    fn park_if_asked(&mut self, reject: &crate::batch::Reject, topology: &Topology, stopped: &BTreeSet<String>) {
        let of_table = matches!(reject.rule.as_str(), "contract" | "load");
        let Some(table) = reject.table.as_ref().filter(|_| of_table) else { return };
        let asked = topology.tables.get(table).is_some_and(|t| t.on_mismatch == OnMismatch::Park);
        let told = stopped.contains(table)
            || self.control.iter().any(|c| matches!(c, Control::Pause { table: known, .. } if known == table));
        if asked && !told {
            let why = format!("on_mismatch: park: {}", reject.reason);
            self.control.push(Control::Pause { table: table.clone(), why, parked: true });
        }
    }

    /// Closes and uploads the files; what is left is the manifest's draft.
    pub async fn seal(self) -> Result<Draft> {
        let sealed_at = Utc::now();
        let attempt = self.writer.attempt();
        let files = self.writer.finish().await?;
        Ok(Draft {
            attempt,
            sealed_at,
            spans: self.advances.into_values().collect(),
            tables: files.tables,
            quarantine: files.quarantine,
            raw: files.raw,
            control: self.control,
            account: self.account,
        })
    }
}
