//! One task per source: read, decode, transform, hand over.
//!
//! The reader never decides about durability: it hands over in order and does what ingest says (release, rewind).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::batch::{ChangeBatch, Described, Op, RawBatch, RawRecords, ReadBy, Reject, TableChanges};
use crate::contract::{Contract, TableSchema};
use crate::decode::Decoder;
use crate::epoch::{EpochNumber, TableAccount};
use crate::error::{Disposition, Error, ErrorKind, Result};
use crate::operator::{Chain, LeftOut, Output};
use crate::pipeline::backoff::Backoff;
use crate::pipeline::report::Report;
use crate::progress::{Advance, Partition, Progress, Standings};
use crate::source::{Lag, Polled, Source};
use crate::telemetry;

/// What a reader hands to ingest.
#[derive(Debug)]
pub struct Handover {
    /// The source's name.
    pub source: Arc<str>,
    /// The era that it was read in.
    pub era: u64,
    /// What.
    pub what: What,
}

/// What a reader found.
#[derive(Debug)]
pub enum What {
    /// Transformed changes of one partition, with the raw records for the raw zone and the quarantine.
    Changes(Box<Transformed>),
    /// See [`Polled::Revoking`].
    Revoking(oneshot::Sender<()>),
    /// See [`Polled::CaughtUp`].
    CaughtUp,
    /// The reader cannot go on.
    Failed(Error),
}

/// A decoded and transformed batch.
#[derive(Debug)]
pub struct Transformed {
    /// The records that the span covers, as read: what a decoder keeps back comes with the batch that gives it out.
    pub raw: RawBatch,
    /// The decoder's result, its `tables` moved to `tables`, its rejects first in `rejects`.
    pub advance: Advance,
    /// What became of the records.
    pub records: crate::batch::RecordAccount,
    /// Rows for the lake.
    pub tables: Vec<TableChanges>,
    /// What was refused on the way.
    pub rejects: Vec<Reject>,
    /// What the records say nothing without.
    pub described: Vec<Described>,
    /// The descriptions that the records were read by.
    pub read_by: ReadBy,
    /// Row accounts by table.
    pub accounts: BTreeMap<String, TableAccount>,
    /// How far behind the source is after this batch.
    pub lag: Vec<Lag>,
    /// Whether the batch ends inside a transaction of the source.
    pub inside_transaction: bool,
    /// Values that became null, by table and column.
    pub left_out: BTreeMap<(String, String), LeftOut>,
}

/// What ingest tells a reader.
#[derive(Debug)]
pub enum Order {
    /// Durable up to here.
    Release(Progress),
    /// Begin `era` at the log's standing; drop what was fetched.
    Rewind { era: u64, progress: Progress },
    /// The log has learned something.
    Adopt(Vec<Arc<Contract>>),
    /// See [`Source::read_again`].
    ReadAgain(BTreeMap<String, EpochNumber>),
}

/// The operators of each table, and the contracts that they made of what was decoded.
pub struct Transforms {
    chains: Arc<BTreeMap<String, Chain>>,
    derived: HashMap<String, (Arc<Contract>, Arc<Contract>)>,
}

impl Transforms {
    /// The chains by table name.
    pub fn new(chains: Arc<BTreeMap<String, Chain>>) -> Self {
        Self { chains, derived: HashMap::new() }
    }

    /// The contract with the output side that the table's operators make of `decoded.input`. Version 0: the log gives
    /// the version when it commits.
    fn derive(&mut self, decoded: &Arc<Contract>) -> Result<Arc<Contract>> {
        if let Some((from, contract)) = self.derived.get(&decoded.table)
            && (Arc::ptr_eq(from, decoded) || from.input == decoded.input)
        {
            return Ok(Arc::clone(contract));
        }
        let output = output_schema(&self.chains, &decoded.table, &decoded.input)?;
        let contract =
            Arc::new(Contract { table: decoded.table.clone(), version: 0, input: decoded.input.clone(), output });
        self.derived.insert(decoded.table.clone(), (Arc::clone(decoded), Arc::clone(&contract)));
        Ok(contract)
    }

    /// Transforms what a decoder made of `raw`.
    pub fn apply(&mut self, raw: RawBatch, batch: ChangeBatch, lag: Vec<Lag>) -> Result<Transformed> {
        let mut done = Transformed {
            raw,
            advance: Advance {
                partition: batch.partition,
                span: batch.span,
                generation: batch.generation,
                mark: batch.mark,
            },
            records: batch.account,
            tables: Vec::with_capacity(batch.tables.len()),
            rejects: batch.rejects,
            described: batch.described,
            read_by: batch.read_by,
            accounts: BTreeMap::new(),
            left_out: BTreeMap::new(),
            lag,
            inside_transaction: false,
        };
        for changes in batch.tables {
            let contract = self.derive(&changes.contract)?;
            let mut output = Output::default();
            output.account.decoded = counted(&changes);
            let Some(chain) = self.chains.get(&contract.table) else {
                return Err(Error::new(ErrorKind::Internal, format!("table {} has no operators", contract.table)));
            };
            let rows = chain.apply(changes, &contract, &mut output)?;
            output.account.written = counted(&rows);
            done.accounts.entry(contract.table.clone()).or_default().add(&output.account);
            done.rejects.append(&mut output.rejects);
            for (column, left_out) in output.left_out {
                done.left_out.entry((contract.table.clone(), column)).or_default().add(left_out);
            }
            if !rows.is_empty() {
                done.tables.push(rows);
            }
        }
        Ok(done)
    }
}

/// Rows without the markers of refused versions: those are counted where they were refused.
fn counted(changes: &TableChanges) -> u64 {
    changes.ops.iter().filter(|op| **op != Op::Refused).count() as u64
}

/// What the operators of `table` make of `input`.
pub fn output_schema(chains: &BTreeMap<String, Chain>, table: &str, input: &TableSchema) -> Result<TableSchema> {
    let chain =
        chains.get(table).ok_or_else(|| Error::new(ErrorKind::Internal, format!("table {table} has no operators")))?;
    chain.output(input).map_err(|mistake| {
        let error = Error::new(
            ErrorKind::Table(table.to_owned()),
            format!("fit the operators of table {table} to its columns: {}: {}", mistake.path, mistake.message),
        );
        match mistake.help {
            Some(help) => error.help(help),
            None => error,
        }
    })
}

/// Records that a decoder keeps back, for the raw zone.
#[derive(Debug, Default)]
pub struct Carried {
    stream: Option<Arc<str>>,
    records: RawRecords,
}

/// Reads one source until it is told to stop.
pub struct Reader {
    /// The source's name.
    pub name: Arc<str>,
    /// The source.
    pub source: Box<dyn Source>,
    /// Its decoder.
    pub decoder: Box<dyn Decoder>,
    /// The operators of its tables.
    pub transforms: Transforms,
    /// Where it is told that the source does not answer.
    pub report: Arc<Report>,
    /// Where changes go.
    pub out: mpsc::Sender<Handover>,
    /// What ingest says.
    pub orders: mpsc::UnboundedReceiver<Order>,
    /// The era that is being read.
    pub era: u64,
    /// Where a partition's mark is asked for.
    pub standings: Arc<dyn Standings>,
    /// Partitions whose decoder has the log's mark.
    pub known: BTreeSet<Partition>,
    /// Releases after which what a decoder keeps back is given out; `None`: at the end of the source, because what
    /// follows is there already.
    pub patience: Option<u32>,
    /// Partitions whose decoder keeps something back, with the number of releases seen since.
    pub kept: BTreeMap<Partition, u32>,
    /// The records that it keeps back, and their stream.
    pub carried: BTreeMap<Partition, Carried>,
}

impl Reader {
    /// The loop. Once `stop` is cancelled it reads nothing more, but still does what it is told until ingest is gone. A
    /// failure that cannot be waited out is handed over.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut backoff = Backoff::default();
        let mut order = None;
        loop {
            if order.is_none() {
                order = self.orders.try_recv().ok();
            }
            let step = match &order {
                Some(told) => self.obey(told).await,
                None => tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    told = self.orders.recv() => match told {
                        Some(told) => { order = Some(told); continue }
                        None => return,
                    },
                    polled = self.source.next() => match polled {
                        Ok(polled) => self.take(polled).await,
                        Err(error) => Err(error),
                    },
                },
            };
            let Err(error) = step else {
                order = None;
                if backoff.attempts() > 0 {
                    backoff.reset();
                    self.report.solved(&format!("source {}", self.name));
                }
                continue;
            };
            if error.disposition() != Disposition::Retry {
                self.hand_over(What::Failed(error.doing(format!("read source {}", self.name)))).await;
                return;
            }
            tracing::warn!(source = &*self.name, attempt = backoff.attempts(), "{error}; trying again");
            self.report.problem(&format!("source {}", self.name), &error);
            metrics::counter!(telemetry::RETRIES_TOTAL, "part" => "source", "reason" => "unavailable").increment(1);
            tokio::select! { () = stop.cancelled() => break, () = backoff.wait() => {} }
        }
        while let Some(told) = self.orders.recv().await {
            if let Order::Release(progress) = told
                && let Err(error) = self.source.release(&progress).await
            {
                tracing::warn!(source = &*self.name, "release: {error}");
            }
        }
    }

    async fn hand_over(&mut self, what: What) {
        // A closed channel means that ingest has stopped, and then this task is about to be stopped as well.
        let _closed = self.out.send(Handover { source: Arc::clone(&self.name), era: self.era, what }).await;
    }

    async fn take(&mut self, polled: Polled) -> Result<()> {
        match polled {
            Polled::Batch(raw) => {
                self.meet(&raw.partition).await?;
                let lag = self.source.lag();
                let inside_transaction = raw.inside_transaction;
                let done = tokio::task::block_in_place(|| {
                    let batch = self.decoder.decode(&raw)?;
                    self.note_kept(&raw, &batch);
                    let raw = self.covered(raw, &batch);
                    self.transforms.apply(raw, batch, lag)
                })?;
                self.hand_over(What::Changes(Box::new(Transformed { inside_transaction, ..done }))).await;
            }
            Polled::Revoking { partitions, done } => {
                self.forget(&partitions);
                self.hand_over(What::Revoking(done)).await;
            }
            Polled::Lost(partitions) => {
                self.forget(&partitions);
                // What ingest holds of them still joins on, or the log refuses it: the fence decides, not we.
            }
            Polled::CaughtUp => {
                if self.patience.is_none() {
                    self.give_out(self.kept.keys().cloned().collect()).await?;
                }
                self.hand_over(What::CaughtUp).await;
            }
        }
        Ok(())
    }

    /// The first batch of a partition (at start, after a rewind, after a rebalance) is decoded with the log's mark.
    async fn meet(&mut self, partition: &Partition) -> Result<()> {
        if !self.known.contains(partition) {
            let mut backoff = Backoff::default();
            // The batch is in our hands: giving up here would leave a gap.
            let progress = loop {
                match self.standings.latest().await {
                    Err(error) if error.disposition() == Disposition::Retry => backoff.wait().await,
                    answer => break answer?,
                }
            };
            self.decoder.reset(partition, &progress);
            self.known.insert(partition.clone());
        }
        Ok(())
    }

    fn forget(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            self.known.remove(partition);
            self.kept.remove(partition);
            self.carried.remove(partition);
        }
    }

    /// The records that `batch` accounts for: those that the decoder kept back before, and without those that it keeps
    /// back now. The raw zone then holds what the manifests' spans cover, whoever reads the rest after a crash.
    fn covered(&mut self, raw: RawBatch, batch: &ChangeBatch) -> RawBatch {
        let before = self.carried.remove(&raw.partition);
        let read = batch.account.read as usize;
        if before.is_none() && read >= raw.records.len() {
            return raw;
        }
        let (mut now, mut later) = (RawRecords::default(), RawRecords::default());
        let before = before.unwrap_or_default().records;
        for (number, record) in before.iter().chain(raw.records.iter()).enumerate() {
            let into = if number < read { &mut now } else { &mut later };
            into.push_within(record.offset(), record.within(), record.timestamp_us(), record.key(), record.value());
            for (name, value) in record.headers() {
                into.push_header(&String::from_utf8_lossy(name), value);
            }
        }
        if !later.is_empty() {
            let stream = raw.stream.clone();
            self.carried.insert(raw.partition.clone(), Carried { stream, records: later });
        }
        RawBatch { records: now, ..raw }
    }

    fn note_kept(&mut self, raw: &RawBatch, batch: &ChangeBatch) {
        if raw.span.to == batch.span.to {
            self.kept.remove(&raw.partition);
        } else {
            self.kept.entry(raw.partition.clone()).or_insert(0);
        }
    }

    async fn obey(&mut self, order: &Order) -> Result<()> {
        match order {
            Order::Release(progress) => {
                self.give_out_kept().await?;
                if let Err(error) = self.source.release(progress).await {
                    // Nothing depends on it: positions come from the log. The next release covers this one.
                    tracing::warn!(source = &*self.name, "release: {error}");
                }
                Ok(())
            }
            Order::Rewind { era, progress } => {
                self.era = *era;
                self.kept.clear();
                self.carried.clear();
                self.known.clear();
                self.source.rewind(progress).await
            }
            Order::Adopt(contracts) => self.decoder.adopt(contracts),
            Order::ReadAgain(wanted) => self.source.read_again(wanted).await,
        }
    }

    /// What a decoder keeps back for a whole epoch is given out as far as it can be understood alone.
    async fn give_out_kept(&mut self) -> Result<()> {
        let Some(patience) = self.patience else { return Ok(()) };
        for waited in self.kept.values_mut() {
            *waited += 1;
        }
        self.give_out(self.kept.iter().filter(|(_, n)| **n > patience).map(|(p, _)| p.clone()).collect()).await
    }

    async fn give_out(&mut self, due: Vec<Partition>) -> Result<()> {
        for partition in due {
            self.kept.remove(&partition);
            let Carried { stream, records } = self.carried.remove(&partition).unwrap_or_default();
            let Some(batch) = self.decoder.flush(&partition)? else { continue };
            let (generation, span) = (batch.generation, batch.span.clone());
            let raw = RawBatch { partition, generation, span, stream, records, inside_transaction: false };
            let done = self.transforms.apply(raw, batch, Vec::new())?;
            self.hand_over(What::Changes(Box::new(done))).await;
        }
        Ok(())
    }
}
