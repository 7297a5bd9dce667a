//! The partitions that this process reads: where each stands, what is collected of it, and how it comes and goes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message, Timestamp};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::{mpsc, oneshot};

use super::assigned::{Assigned, State, find};
use super::context::{Context, lock};
use super::plan::{Begin, Known, Topic, Watermarks, begin, check_reachable, configured};
use super::probe::Probe;
use crate::batch::{NO_TIME, RawBatch, RawRecords};
use crate::config::Start;
use crate::error::{Disposition, Error, ErrorKind, Result};
use crate::failpoint;
use crate::progress::{Generation, Partition, Position, Progress, Span, Standings};

const BATCH_BYTES: usize = 1 << 20;
const BATCH_RECORDS: usize = 10_000;
/// How long a record waits for others of its batch.
pub(super) const BATCH_DELAY: Duration = Duration::from_millis(20);
/// How long a revoked partition waits for its commit: below the group's default rebalance time of five minutes.
const HAND_OVER: Duration = Duration::from_secs(120);
/// How long a member without partitions waits for some before it has nothing to catch up with.
const SETTLE: Duration = Duration::from_secs(10);
/// How long an assignment tries again while the log or the brokers do not answer.
const RESOLVE: Duration = Duration::from_secs(120);

/// What the reading thread says.
pub(super) enum Event {
    Batch { era: u64, batch: RawBatch },
    CaughtUp { era: u64 },
    Revoking { partitions: Vec<Partition>, done: oneshot::Sender<()> },
    Lost(Vec<Partition>),
    Failed(Error),
}

/// What the thread that polls, its callbacks and the task that reads share.
pub(super) struct Coordinator {
    pub(super) source: Arc<str>,
    pub(super) probe: Probe,
    pub(super) standings: Arc<dyn Standings>,
    pub(super) runtime: tokio::runtime::Handle,
    start: Start,
    events: mpsc::UnboundedSender<Event>,
    pub(super) stop: Arc<AtomicBool>,
    /// Bytes in the channel.
    pub(super) backlog: Arc<AtomicUsize>,
    pub(super) era: AtomicU64,
    /// A failure after which reading cannot go on.
    pub(super) dead: AtomicBool,
    pub(super) state: Mutex<State>,
}

impl Coordinator {
    pub(super) fn new(
        source: &str,
        probe: Probe,
        standings: Arc<dyn Standings>,
        start: Start,
        events: mpsc::UnboundedSender<Event>,
    ) -> Self {
        Self {
            source: source.into(),
            probe,
            standings,
            runtime: tokio::runtime::Handle::current(),
            start,
            events,
            stop: Arc::default(),
            backlog: Arc::default(),
            era: AtomicU64::new(0),
            dead: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    fn send(&self, event: Event) {
        // A receiver that is gone has dropped the source: nobody wants more.
        let _closed = self.events.send(event);
    }

    /// Says a failure; one that does not pass ends the thread.
    pub(super) fn fail(&self, error: Error) {
        if error.disposition() == Disposition::Halt {
            self.dead.store(true, Ordering::Release);
        }
        self.send(Event::Failed(error));
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Acquire) || self.dead.load(Ordering::Acquire)
    }

    // ---- Coming

    /// The group gives us partitions: positions come from the log.
    pub(super) fn assign(&self, consumer: &BaseConsumer<Context>, given: &TopicPartitionList) {
        let mut wanted: BTreeMap<String, Vec<i32>> = BTreeMap::new();
        for element in given.elements() {
            wanted.entry(element.topic().to_owned()).or_default().push(element.partition());
        }
        let Some(resolved) = self.resolve_patiently(&wanted) else { return };
        let mut list = TopicPartitionList::new();
        for assigned in &resolved {
            // Offsets fit: Kafka's are signed.
            let offset = Offset::Offset(assigned.next as i64);
            if let Err(error) = list.add_partition_offset(&assigned.topic, assigned.number, offset) {
                return self.fail(internal("assign a partition", error));
            }
        }
        if let Err(error) = consumer.incremental_assign(&list) {
            return self.fail(internal("assign partitions", error));
        }
        let mut state = lock(&self.state);
        for assigned in resolved {
            tracing::info!(partition = %assigned.partition, offset = assigned.next, "reading");
            // An empty span puts the partition into the log, so that a restart knows where it was begun.
            self.send_batch(&assigned, assigned.next, assigned.next, assigned.generation, RawRecords::default());
            state.assigned.push(assigned);
        }
        state.assignment_seen = Some(Instant::now());
        state.caught_up_said = false;
        state.caught_up_before = false;
    }

    fn resolve_patiently(&self, wanted: &BTreeMap<String, Vec<i32>>) -> Option<Vec<Assigned>> {
        let deadline = Instant::now() + RESOLVE;
        let mut said = false;
        while !self.is_over() {
            match self.resolve(wanted) {
                Ok(resolved) => return Some(resolved),
                Err(error) if error.disposition() == Disposition::Retry && Instant::now() < deadline => {
                    if !said {
                        tracing::warn!(source = %self.source, %error, "cannot place assigned partitions yet; trying again");
                        said = true;
                    }
                    std::thread::sleep(Duration::from_millis(500));
                }
                Err(error) => {
                    self.dead.store(true, Ordering::Release);
                    self.send(Event::Failed(error));
                    return None;
                }
            }
        }
        None
    }

    /// Where partitions begin.
    fn resolve(&self, wanted: &BTreeMap<String, Vec<i32>>) -> Result<Vec<Assigned>> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let progress = self.runtime.block_on(self.standings.latest())?;
        let mut resolved = Vec::new();
        for (name, numbers) in wanted {
            let gone =
                || Error::new(ErrorKind::SourceUnavailable, format!("source {}: topic {name} is gone", self.source));
            let topic = self.probe.topic(name)?.ok_or_else(gone)?;
            failpoint::hit(&format!("kafka.place.{name}"));
            let known = Known::of(&progress, &self.source, &topic);
            if known.recreated() {
                tracing::warn!(topic = %name, id = %topic.id,
                    "the topic was deleted and made again: it is read from its beginning in a new generation; what was \
                     not yet read of the old one is gone");
            }
            let target = known.generation(topic.partitions).max(self.generation_floor(&topic));
            let placed: Result<Vec<_>> = numbers.iter().map(|number| self.place(&topic, &known, *number)).collect();
            // The ends may have been another topic's, which was made meanwhile under this name, or nobody's.
            if self.probe.topic(name)?.is_none_or(|now| now.id != topic.id) {
                return Err(gone());
            }
            for mut assigned in placed? {
                assigned.raise(target);
                resolved.push(assigned);
            }
        }
        Ok(resolved)
    }

    fn place(&self, topic: &Topic, known: &Known, number: i32) -> Result<Assigned> {
        let marks = self.probe.watermarks(&topic.name, number)?;
        let next = match begin(known, topic, number)? {
            Begin::At(offset) => offset,
            Begin::Configured => self.configured_start(topic, number, marks)?,
            Begin::Beginning => marks.low,
        };
        check_reachable(&topic.name, number, next, marks)?;
        let generation = known.same.get(&number).map(|standing| standing.generation);
        Ok(Assigned {
            topic: topic.name.clone(),
            id: topic.id.clone(),
            number,
            of: topic.partitions,
            partition: Partition::new(self.source.clone(), topic.partition_name(number)),
            stream: topic.name.as_str().into(),
            start: next,
            next,
            from: next,
            generation: generation.unwrap_or(0),
            base: generation.unwrap_or(0),
            // What is there already was written before the topic grew, as far as anybody can tell; a partition
            // without an entry is new.
            split: generation.is_none().then_some((next, 0)),
            goal: marks.high,
            ended: false,
            settled: false,
            records: RawRecords::default(),
            since: None,
        })
    }

    fn configured_start(&self, topic: &Topic, number: i32, marks: Watermarks) -> Result<u64> {
        if let Some(offset) = configured(&self.start, marks) {
            return Ok(offset);
        }
        let Start::Timestamp(time) = &self.start else { return Ok(marks.low) };
        let found = self.probe.offset_at(&topic.name, number, time.timestamp_millis())?;
        Ok(found.unwrap_or(marks.high).clamp(marks.low, marks.high))
    }

    // ---- Going

    /// The group takes partitions away: what is held of them is committed first, when there is time.
    pub(super) fn revoke(&self, consumer: &BaseConsumer<Context>, taken: &TopicPartitionList) {
        let lost = consumer.assignment_lost();
        let names = self.take(taken, lost);
        if !names.is_empty() && !self.is_over() {
            if lost {
                tracing::warn!(source = %self.source, partitions = names.len(),
                    "the group gave our partitions away without asking: what is not committed of them is dropped");
                self.send(Event::Lost(names));
            } else {
                self.hand_over(names);
            }
        }
        if let Err(error) = consumer.incremental_unassign(taken) {
            self.fail(internal("give partitions back", error));
        }
    }

    /// Takes partitions out of the state; what was collected of them goes out, unless they are lost.
    fn take(&self, taken: &TopicPartitionList, lost: bool) -> Vec<Partition> {
        let gone: Vec<(String, i32)> =
            taken.elements().iter().map(|element| (element.topic().to_owned(), element.partition())).collect();
        let mut state = lock(&self.state);
        state.last = 0;
        let (leaving, staying): (Vec<_>, Vec<_>) = std::mem::take(&mut state.assigned)
            .into_iter()
            .partition(|a| gone.iter().any(|(topic, number)| a.number == *number && a.topic == *topic));
        state.assigned = staying;
        let mut names = Vec::new();
        for mut assigned in leaving {
            if !lost {
                self.flush(&mut assigned);
            }
            names.push(assigned.partition);
        }
        names
    }

    fn hand_over(&self, partitions: Vec<Partition>) {
        let (done, mut committed) = oneshot::channel();
        self.send(Event::Revoking { partitions: partitions.clone(), done });
        let deadline = Instant::now() + HAND_OVER;
        loop {
            match committed.try_recv() {
                Ok(()) | Err(oneshot::error::TryRecvError::Closed) => return,
                Err(oneshot::error::TryRecvError::Empty) if self.is_over() => return,
                Err(oneshot::error::TryRecvError::Empty) if Instant::now() >= deadline => {
                    tracing::warn!(source = %self.source, "partitions were not committed in time; they are given back");
                    return self.send(Event::Lost(partitions));
                }
                Err(oneshot::error::TryRecvError::Empty) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    // ---- Records

    /// Collects a record.
    pub(super) fn record(&self, message: &BorrowedMessage<'_>) {
        let mut state = lock(&self.state);
        let Some(index) = find(&state, message.topic(), message.partition()) else { return };
        state.last = index;
        state.caught_up_said = false;
        let assigned = &mut state.assigned[index];
        let Ok(offset) = u64::try_from(message.offset()) else { return };
        // Fetched before a rewind.
        if offset < assigned.next {
            return;
        }
        assigned.ended = false;
        assigned.settled = true;
        if assigned.generation_at(offset) != assigned.generation {
            let at = assigned.split.map_or(offset, |(at, _)| at);
            assigned.next = at.max(assigned.next);
            self.flush(assigned);
            assigned.generation = assigned.generation_at(offset);
        }
        let timestamp_us = match message.timestamp() {
            Timestamp::CreateTime(ms) | Timestamp::LogAppendTime(ms) if ms >= 0 => ms.saturating_mul(1000),
            _ => NO_TIME,
        };
        assigned.records.push(offset, timestamp_us, message.key(), message.payload());
        if let Some(headers) = message.headers() {
            for header in headers.iter() {
                assigned.records.push_header(header.key, header.value);
            }
        }
        assigned.next = offset + 1;
        assigned.since.get_or_insert_with(Instant::now);
        if assigned.records.bytes() >= BATCH_BYTES || assigned.records.len() >= BATCH_RECORDS {
            self.flush(assigned);
        }
    }

    /// Hands out what has waited long enough; says how long the oldest of the rest may still wait.
    pub(super) fn flush_due(&self) -> Option<Duration> {
        let mut state = lock(&self.state);
        let mut left: Option<Duration> = None;
        for assigned in &mut state.assigned {
            let Some(since) = assigned.since else { continue };
            match BATCH_DELAY.checked_sub(since.elapsed()) {
                Some(rest) => left = Some(left.map_or(rest, |least| least.min(rest))),
                _ => self.flush(assigned),
            }
        }
        left
    }

    pub(super) fn flush(&self, assigned: &mut Assigned) {
        assigned.since = None;
        if assigned.next == assigned.from {
            return;
        }
        let records = std::mem::take(&mut assigned.records);
        self.send_batch(assigned, assigned.from, assigned.next, assigned.generation, records);
        assigned.from = assigned.next;
    }

    pub(super) fn send_batch(
        &self,
        assigned: &Assigned,
        from: u64,
        to: u64,
        generation: Generation,
        records: RawRecords,
    ) {
        self.backlog.fetch_add(weight(&records), Ordering::AcqRel);
        self.send(Event::Batch {
            era: self.era.load(Ordering::Acquire),
            batch: RawBatch {
                partition: assigned.partition.clone(),
                generation,
                span: Span { from: Position::offset(from), to: Position::offset(to) },
                stream: Some(assigned.stream.clone()),
                records,
                inside_transaction: false,
            },
        });
    }

    /// Keeps the offset out of `… reached end of partition at offset 17 (HighwaterMark 17)`.
    pub(super) fn end_reason(&self, reason: &str) {
        let offset = reason.split_once(" at offset ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        lock(&self.state).end_offset = offset;
    }

    /// A partition with that number has no more for now: passes transaction markers, which are no records.
    pub(super) fn at_end(&self, consumer: &BaseConsumer<Context>, number: i32) {
        let end_offset = lock(&self.state).end_offset.take();
        let named = self.ended_topic(number, end_offset);
        let positions = consumer.position().ok();
        for assigned in lock(&self.state).assigned.iter_mut().filter(|a| a.number == number) {
            let position = positions.as_ref().filter(|_| assigned.settled).and_then(|list| {
                match list.find_partition(&assigned.topic, assigned.number)?.offset() {
                    Offset::Offset(offset) => u64::try_from(offset).ok(),
                    _ => None,
                }
            });
            let reached = position.max(end_offset.filter(|_| named.as_ref() == Some(&assigned.topic)));
            assigned.ended = true;
            if let Some(reached) = reached.filter(|reached| *reached > assigned.next) {
                if assigned.generation_at(reached) != assigned.generation {
                    self.flush(assigned);
                    assigned.generation = assigned.generation_at(reached);
                }
                assigned.next = reached;
                assigned.since.get_or_insert_with(Instant::now);
            }
            if let Some(since) = &mut assigned.since {
                // Nothing more is coming to wait for.
                *since = since.checked_sub(BATCH_DELAY).unwrap_or(*since);
            }
        }
    }

    /// The topic whose partition ended at `end`, which the event does not name: the only one with that partition, or the
    /// only one that ends there.
    fn ended_topic(&self, number: i32, end: Option<u64>) -> Option<String> {
        let end = end?;
        let candidates: Vec<(String, u64, bool)> = {
            let state = lock(&self.state);
            let ours = state.assigned.iter().filter(|a| a.number == number);
            ours.map(|a| (a.topic.clone(), a.next, a.settled)).collect()
        };
        if let [(only, _, _)] = candidates.as_slice() {
            return Some(only.clone());
        }
        // Where a record came, the client's position tells; the brokers are asked for what is left.
        if !candidates.iter().any(|(_, next, settled)| !settled && *next < end) {
            return None;
        }
        let ends_there = |topic: &str| self.probe.watermarks(topic, number).is_ok_and(|marks| marks.high == end);
        let mut there = candidates.into_iter().filter(|(topic, _, _)| ends_there(topic));
        let (topic, next, _) = there.next().filter(|_| there.next().is_none())?;
        // It may still be another one's end, and this one's records on their way: they must not be skipped.
        self.probe.is_empty_between(&topic, number, next, end).then_some(topic)
    }

    /// Says that everything that was there has been handed out, once after every batch that reaches the end.
    pub(super) fn say_caught_up(&self) {
        let mut state = lock(&self.state);
        let first = !state.caught_up_before;
        let reached = |a: &Assigned| a.next >= a.goal && a.from == a.next && (first || a.ended);
        // A new member is given nothing at first, until the others have handed over.
        let settled = |seen: Instant| !state.assigned.is_empty() || seen.elapsed() >= SETTLE;
        let assigned = state.assignment_seen.is_some_and(settled);
        if assigned && !state.caught_up_said && state.assigned.iter().all(reached) {
            state.caught_up_said = true;
            state.caught_up_before = true;
            self.send(Event::CaughtUp { era: self.era.load(Ordering::Acquire) });
        }
    }

    // ---- Again from the log

    /// Begins again from `committed`; what was collected is dropped.
    pub(super) fn rewind(&self, consumer: &BaseConsumer<Context>, committed: &Progress, era: u64) {
        let mut list = TopicPartitionList::new();
        {
            let mut state = lock(&self.state);
            self.era.store(era, Ordering::Release);
            state.caught_up_said = false;
            // An end that was said before is not said again.
            state.caught_up_before = false;
            for assigned in &mut state.assigned {
                let standing = committed.get(&assigned.partition);
                let next = standing.and_then(|s| s.position.as_offset()).unwrap_or(assigned.start);
                assigned.next = next;
                assigned.from = next;
                assigned.records = RawRecords::default();
                assigned.since = None;
                assigned.ended = false;
                assigned.settled = false;
                assigned.generation = assigned.generation_at(next).max(standing.map_or(0, |s| s.generation));
                if standing.is_none() {
                    // What put it into the log was given up with the rest.
                    self.send_batch(assigned, next, next, assigned.generation, RawRecords::default());
                }
                let _outcome = list.add_partition_offset(&assigned.topic, assigned.number, Offset::Offset(next as i64));
            }
        }
        self.seek(consumer, list);
    }

    fn seek(&self, consumer: &BaseConsumer<Context>, list: TopicPartitionList) {
        if list.count() == 0 {
            return;
        }
        let mut left = list;
        for _ in 0..3 {
            let wanted = left.clone();
            match consumer.seek_partitions(wanted, Duration::from_secs(10)) {
                Ok(answer) => {
                    let mut again = TopicPartitionList::new();
                    for element in answer.elements().iter().filter(|element| element.error().is_err()) {
                        let _outcome =
                            again.add_partition_offset(element.topic(), element.partition(), element.offset());
                    }
                    if again.count() == 0 {
                        return;
                    }
                    left = again;
                }
                Err(error) => tracing::debug!(%error, "seeking again"),
            }
            // A partition that was just assigned is not ready to be sought in.
            std::thread::sleep(Duration::from_millis(50));
        }
        self.assign_again(consumer, &left);
    }

    /// Gives partitions back to the client and takes them again at other offsets: works also where fetching has stopped
    /// because the old offset was out of range.
    pub(super) fn assign_again(&self, consumer: &BaseConsumer<Context>, list: &TopicPartitionList) {
        if list.count() == 0 {
            return;
        }
        let taken = consumer.incremental_unassign(list).and_then(|()| consumer.incremental_assign(list));
        if let Err(error) = taken {
            self.fail(internal("go back to the log's positions", error));
        }
    }

    /// Has everything fetched again from where it stands.
    pub(super) fn fetch_again(&self, consumer: &BaseConsumer<Context>) {
        let mut list = TopicPartitionList::new();
        for assigned in &mut lock(&self.state).assigned {
            // What the client calls its position may be one of before.
            assigned.settled = false;
            let offset = Offset::Offset(assigned.next as i64);
            let _outcome = list.add_partition_offset(&assigned.topic, assigned.number, offset);
        }
        self.assign_again(consumer, &list);
    }

    /// Commits offsets for lag tools.
    pub(super) fn committable(&self, committed: &Progress) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for assigned in &lock(&self.state).assigned {
            let Some(offset) = committed.get(&assigned.partition).and_then(|s| s.position.as_offset()) else {
                continue;
            };
            let _outcome = list.add_partition_offset(&assigned.topic, assigned.number, Offset::Offset(offset as i64));
        }
        list
    }

    // ---- Looking after

    /// Whether every position can still be read. Positions in topics that were made again are not looked at: they have
    /// no meaning any more.
    pub(super) fn check_positions(&self) -> Result<()> {
        let positions: Vec<(String, String, i32, u64)> =
            lock(&self.state).assigned.iter().map(|a| (a.topic.clone(), a.id.clone(), a.number, a.next)).collect();
        for (topic, id, number, next) in positions {
            if self.probe.topic(&topic)?.is_some_and(|there| there.id == id) {
                check_reachable(&topic, number, next, self.probe.watermarks(&topic, number)?)?;
            }
        }
        Ok(())
    }

    /// Everything that is assigned.
    pub(super) fn assignment(&self) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for assigned in &lock(&self.state).assigned {
            list.add_partition(&assigned.topic, assigned.number);
        }
        list
    }

    /// The partitions, by what the client calls them.
    pub(super) fn partitions(&self) -> Vec<(String, i32, Partition)> {
        let state = lock(&self.state);
        state.assigned.iter().map(|a| (a.topic.clone(), a.number, a.partition.clone())).collect()
    }
}

/// What a batch counts for in the channel; a batch without records is not for nothing.
pub(super) fn weight(records: &RawRecords) -> usize {
    records.bytes() + 64 * records.len() + 256
}

fn internal(doing: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Internal, doing.to_owned()).because(error)
}
