//! One old epoch while its records are handed out: batches under spans that join on, to exactly where it ended.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::databases::Databases;
use super::resume::{Rest, Resume, inside_position, passing_position};
use super::{advances, is_own, records_by_source};
use crate::batch::{RawBatch, RawRecords};
use crate::epoch::{EpochNumber, Manifest};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::RawFile;
use crate::progress::{Advance, Generation, Partition, Position, Span};

/// What orders the records of a span, and so tells where inside it one stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Both ends are offsets: then what is between them is one too.
    Offsets,
    /// The records' offsets, whatever the source makes of its ends.
    Ascending,
    /// The file alone: rows that a database source reads beside its stream stand between older and newer changes. Such an
    /// epoch is never cut, since it ends with a transaction.
    File,
}

/// A span of the epoch, as far as it has been handed out.
struct Part {
    /// Where the next batch begins; `None`: the target holds the whole span.
    at: Option<Position>,
    to: Position,
    order: Order,
    /// The target holds the records before this offset.
    first_offset: u64,
    /// The offset behind the last record that was seen; where the file orders them, the number of records.
    next_offset: u64,
    /// The generation at the end of the span.
    generation: Generation,
    /// The generation of the last batch; `None` while there was none.
    handed_out: Option<Generation>,
}

impl Part {
    fn new(n: EpochNumber, advance: &Advance, of_database: bool, resume: &mut Resume) -> Self {
        let (at, first_offset) = match resume.rest(n, advance) {
            Rest::Nothing => (None, u64::MAX),
            Rest::From { position, offset } => (Some(position), offset),
        };
        let offsets = advance.span.from.as_offset().is_some() && advance.span.to.as_offset().is_some();
        let order = match of_database {
            true => Order::File,
            false if offsets => Order::Offsets,
            false => Order::Ascending,
        };
        let (to, generation) = (advance.span.to.clone(), advance.generation);
        Self { at, to, order, first_offset, next_offset: 0, generation, handed_out: None }
    }

    /// Takes note of records; says what is wrong when they are outside of the span or were seen before.
    fn see(&mut self, records: &RawRecords, first: u64, last: u64) -> Result<(), String> {
        if self.order == Order::File {
            self.next_offset += records.len() as u64;
            return Ok(());
        }
        let beyond = self.order == Order::Offsets && self.to.as_offset().is_some_and(|to| last >= to);
        if first < self.next_offset || beyond {
            return Err(format!("at {first} to {last} is outside of what was read, or there twice"));
        }
        self.next_offset = last + 1;
        Ok(())
    }

    /// The batch with the span that it covers, without the records that the target holds; `None` when that is all.
    fn hand_out(&mut self, n: EpochNumber, batch: RawBatch, first: u64) -> Option<RawBatch> {
        let whole = self.order == Order::File;
        let from = self.at.clone().filter(|_| whole || self.next_offset > self.first_offset)?;
        let to = match self.order {
            Order::Offsets => Position::offset(self.next_offset),
            Order::Ascending => inside_position(n, self.next_offset),
            Order::File => passing_position(n, self.next_offset),
        };
        (self.at, self.handed_out) = (Some(to.clone()), Some(batch.generation));
        let held = !whole && first < self.first_offset;
        let records = if held { since(&batch.records, self.first_offset) } else { batch.records };
        Some(RawBatch { span: Span { from, to }, records, inside_transaction: whole, ..batch })
    }
}

/// An epoch of the old lake.
pub struct EpochInHand {
    manifest: Arc<Manifest>,
    databases: Databases,
    file: Option<RawFile>,
    waiting: VecDeque<RawBatch>,
    parts: BTreeMap<Partition, Part>,
    /// Records seen, by source.
    seen: BTreeMap<Arc<str>, u64>,
}

impl EpochInHand {
    /// Begins with what `resume` says is still to be read.
    pub fn begin(manifest: Arc<Manifest>, file: Option<RawFile>, databases: &Databases, resume: &mut Resume) -> Self {
        let part = |advance: Advance| {
            let of_database = databases.hold(&advance.partition);
            (advance.partition.clone(), Part::new(manifest.n, &advance, of_database, resume))
        };
        let parts = advances(&manifest).map(part).collect();
        let (waiting, seen) = (VecDeque::new(), BTreeMap::new());
        Self { manifest, databases: databases.clone(), file, waiting, parts, seen }
    }

    /// The next batch; `None` when the epoch has been handed out. `streams` remembers what each partition's stream is.
    ///
    /// # Errors
    /// Those of [`RawFile::step`]; `LogCorrupt` when the file does not hold what the manifest says was read.
    pub fn step(&mut self, streams: &mut HashMap<Partition, Arc<str>>) -> Result<Option<RawBatch>> {
        loop {
            if let Some(mut batch) = self.waiting.pop_front() {
                if is_own(&batch.partition) {
                    continue;
                }
                match &batch.stream {
                    Some(stream) => drop(streams.insert(batch.partition.clone(), Arc::clone(stream))),
                    None => batch.stream = streams.get(&batch.partition).cloned(),
                }
                if let Some(batch) = self.under_span(batch)? {
                    return Ok(Some(batch));
                }
                continue;
            }
            if let Some(file) = &mut self.file {
                match file.step()? {
                    Some(batches) => {
                        self.databases.refuse_older(file, &batches)?;
                        self.waiting.extend(batches);
                    }
                    None => {
                        self.file = None;
                        self.check_whole()?;
                    }
                }
                continue;
            }
            let Some((partition, part)) = self.parts.pop_first() else { return Ok(None) };
            let stream = streams.get(&partition).cloned();
            if let Some(batch) = end_of(partition, part, stream) {
                return Ok(Some(batch));
            }
        }
    }

    /// The batch under the span that it covers; `None` when the target holds it.
    fn under_span(&mut self, batch: RawBatch) -> Result<Option<RawBatch>> {
        let n = self.manifest.n;
        let broken = |why: String| {
            Error::new(ErrorKind::LogCorrupt, format!("the raw records of epoch {n}: {why}"))
                .help("the raw file is not what its manifest says: restore both from a copy of the lake")
        };
        let (partition, records) = (&batch.partition, &batch.records);
        let part = self.parts.get_mut(partition);
        let part = part.ok_or_else(|| broken(format!("{partition} is not among the partitions that were read")))?;
        let Some((first, last)) = records.get(0).zip(records.last()) else { return Ok(None) };
        let (first, last) = (first.offset(), last.offset());
        part.see(records, first, last).map_err(|why| broken(format!("{partition} {why}")))?;
        *self.seen.entry(Arc::clone(&partition.source)).or_default() += records.len() as u64;
        Ok(part.hand_out(n, batch, first))
    }

    /// The account of the epoch says how many records were read of each source: fewer would be a silent hole.
    fn check_whole(&self) -> Result<()> {
        for (source, read) in records_by_source(&self.manifest) {
            let seen = self.seen.get(source).copied().unwrap_or(0);
            if seen != read {
                let what =
                    format!("epoch {} read {read} records of {source}, its raw file holds {seen}", self.manifest.n);
                return Err(Error::new(ErrorKind::LogCorrupt, what)
                    .help("the raw file is not what its manifest says: restore both from a copy of the lake"));
            }
        }
        Ok(())
    }
}

/// What is left of a span when its records have been handed out: a hole at its end, a new generation, or all of a span
/// without records.
fn end_of(partition: Partition, part: Part, stream: Option<Arc<str>>) -> Option<RawBatch> {
    let from = part.at?;
    if from == part.to && part.handed_out == Some(part.generation) {
        return None;
    }
    Some(RawBatch {
        partition,
        generation: part.generation,
        span: Span { from, to: part.to },
        stream,
        records: RawRecords::default(),
        inside_transaction: false,
    })
}

/// The records from that offset on.
fn since(records: &RawRecords, offset: u64) -> RawRecords {
    let mut rest = RawRecords::default();
    for record in records.iter().filter(|record| record.offset() >= offset) {
        rest.push(record.offset(), record.timestamp_us(), record.key(), record.value());
        for (name, value) in record.headers() {
            rest.push_header(&String::from_utf8_lossy(name), value);
        }
    }
    rest
}
