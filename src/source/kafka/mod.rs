//! Apache Kafka: the consumer group hands out partitions, the lake log says where each is read from.
//!
//! | file | what it owns |
//! |---|---|
//! | `mod.rs` | the [`Source`]: the bridge between tasks and the thread that polls |
//! | `settings.rs` | librdkafka's properties |
//! | `reader.rs` | the thread that polls: back-pressure, errors, commands |
//! | `coordinator.rs` | assigned partitions: where they stand, what is collected, hand-over |
//! | `assigned.rs` | what is known of each |
//! | `topics.rs` | topics that grow or are made again while they are read |
//! | `plan.rs` | positions and generations, pure |
//! | `probe.rs` | questions to the cluster: topic ids, watermarks, times |
//! | `context.rs` | librdkafka's callbacks |
//! | `token.rs` | SASL tokens |
//!
//! # Partitions and positions
//!
//! A partition is named `<topic>#<topic id>/<number>`; its position is the next offset. Spans may be wider than the
//! offsets of their records: compaction and transaction markers leave holes that are no gaps. A span begins with an empty
//! batch when a partition is assigned, so that the log holds every partition from its first epoch on.
//!
//! The topic's id is what the client's own log says (`Topic … changed id from … to …`): the binding has no call for it.
//! That the text is still the same after an update of librdkafka is held by a test on a real broker.
//!
//! # Generations
//!
//! Offsets order the changes of a key as long as the key stays in its partition.
//!
//! * A topic that was deleted and made again (another id) is read from its beginning in the highest generation that the
//!   topic ever had, plus one. What of the old topic was not read yet is gone, and a warning says so. Another client reads
//!   it: librdkafka never goes back to a lower leader epoch, and those of a new topic begin at 0. It would ask for the new
//!   topic by the old one's epoch for ever, without a word.
//! * When a topic gets more partitions, keys move. The new partitions begin one generation higher at once; the old ones
//!   go on in their generation up to the high watermark at which the growth was noticed, and are cut there. What was
//!   written in between by a producer that knew the growth before us is ordered as before: the check runs every 5 s,
//!   producers refresh their view every 5 minutes by default.
//! * A generation too many is harmless: inside a partition order stays, and a key is in one partition at a time.
//!
//! # What cannot be noticed
//!
//! * On brokers older than 2.8 topics have no id: a topic made again is then noticed only when it ends before our
//!   position.
//! * Brokers that answer fetches by topic name (older than 3.1) may deliver records of the new topic under the old
//!   name in the moment before the client's metadata are refreshed; they are read again from the beginning afterwards.

mod assigned;
mod context;
mod coordinator;
mod plan;
mod probe;
mod reader;
mod settings;
mod token;
mod topics;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc as sync;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::{Lag, Polled, Source};
use crate::config::KafkaSource;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::{Partition, Progress, Standings};
use coordinator::{Coordinator, Event, weight};
use probe::Probe;
use reader::{Command, Ends, Reader, Seat};

/// How long dropping the source waits for the consumer to leave its group.
const LEAVE: Duration = Duration::from_secs(5);

/// A Kafka consumer group member.
pub struct Kafka {
    events: mpsc::UnboundedReceiver<Event>,
    commands: sync::Sender<Command>,
    coordinator: Arc<Coordinator>,
    /// Grows with every rewind; what was read before is not handed out any more.
    era: u64,
    /// The next offset of what was handed out.
    handed_out: BTreeMap<Partition, u64>,
    ends: Ends,
    left: sync::Receiver<()>,
}

impl Kafka {
    /// Joins the group and begins to read.
    ///
    /// `streams` are the names that tables want to read; one that no topic bears is said in the log, since a router may
    /// still bring its events under another topic. `inflight` bounds the bytes that wait here and in librdkafka.
    ///
    /// # Errors
    /// `Config` for properties that cannot be set, `SourceUnavailable` when no broker answers, `SourceRefused` for a
    /// topic that does not exist or what the brokers do not allow.
    pub async fn open(
        name: &str,
        config: &KafkaSource,
        topology: &str,
        streams: &[String],
        inflight: usize,
        standings: Arc<dyn Standings>,
    ) -> Result<Self> {
        let consumer = settings::consumer(name, config, topology, inflight)?;
        let connection = settings::connection(name, config, topology)?;
        let (source, sasl) = (name.to_owned(), config.sasl.clone());
        let (wanted, streams) = (config.topics.clone(), streams.to_vec());
        let probing = tokio::task::spawn_blocking(move || {
            let probe = Probe::new(&source, &connection, sasl)?;
            check_topics(&source, &probe, &wanted, &streams)?;
            Ok::<_, Error>(probe)
        });
        let probe = probing.await.map_err(thread_lost)??;
        let (sender, events) = mpsc::unbounded_channel();
        let coordinator = Arc::new(Coordinator::new(name, probe, standings, config.start.clone(), sender));
        let (commands, orders) = sync::channel();
        let (leaving, left) = sync::channel();
        let ends = Ends::default();
        let reader = Reader::join(Seat {
            config: config.clone(),
            properties: consumer,
            coordinator: coordinator.clone(),
            commands: orders,
            ends: ends.clone(),
            inflight,
        })?;
        std::thread::Builder::new()
            .name(format!("kafka-{name}"))
            .spawn(move || {
                reader.run();
                drop(leaving);
            })
            .map_err(|error| Error::new(ErrorKind::Internal, "start the thread that polls Kafka").because(error))?;
        Ok(Self { events, commands, coordinator, era: 0, handed_out: BTreeMap::new(), ends, left })
    }
}

impl Kafka {
    /// Payload bytes that wait to be handed out, and a little for each record.
    pub fn waiting_bytes(&self) -> usize {
        self.coordinator.backlog.load(Ordering::Acquire)
    }
}

/// Whether the topics that were named are there.
fn check_topics(source: &str, probe: &Probe, topics: &[String], streams: &[String]) -> Result<()> {
    for topic in topics.iter().filter(|topic| !topic.starts_with('^') && !topic.contains('*')) {
        if probe.topic(topic)?.is_none() {
            return Err(Error::new(ErrorKind::SourceRefused, format!("source {source}: topic {topic} does not exist"))
                .help("create the topic (Debezium does when it starts), or correct `topics:` of the source"));
        }
    }
    let there = probe.topics()?;
    for stream in streams.iter().filter(|stream| !there.contains(stream)) {
        tracing::warn!(source, stream = %stream, "no topic has the name that a table reads `from:`; waiting for it");
    }
    Ok(())
}

#[async_trait]
impl Source for Kafka {
    async fn next(&mut self) -> Result<Polled> {
        loop {
            let event = self.events.recv().await.ok_or_else(|| {
                Error::new(ErrorKind::Internal, format!("source {}: reading has ended", self.coordinator.source))
                    .help("see the error before this one")
            })?;
            match event {
                Event::Batch { era, batch } => {
                    self.coordinator.backlog.fetch_sub(weight(&batch.records), Ordering::AcqRel);
                    if era != self.era {
                        continue;
                    }
                    if let Some(next) = batch.span.to.as_offset() {
                        self.handed_out.insert(batch.partition.clone(), next);
                    }
                    return Ok(Polled::Batch(batch));
                }
                Event::CaughtUp { era } if era == self.era => return Ok(Polled::CaughtUp),
                Event::CaughtUp { .. } => {}
                Event::Revoking { partitions, done } => {
                    self.handed_out.retain(|partition, _| !partitions.contains(partition));
                    return Ok(Polled::Revoking { partitions, done });
                }
                Event::Lost(partitions) => {
                    self.handed_out.retain(|partition, _| !partitions.contains(partition));
                    return Ok(Polled::Lost(partitions));
                }
                Event::Failed(error) => return Err(error),
            }
        }
    }

    async fn release(&mut self, committed: &Progress) -> Result<()> {
        // Only lag tools look at it: a thread that has ended is no failure here.
        let _ended = self.commands.send(Command::Release(committed.clone()));
        Ok(())
    }

    async fn rewind(&mut self, committed: &Progress) -> Result<()> {
        self.era += 1;
        self.handed_out.clear();
        // A thread that has ended says so in `next`.
        let _ended = self.commands.send(Command::Rewind { committed: committed.clone(), era: self.era });
        Ok(())
    }

    fn lag(&self) -> Vec<Lag> {
        let ends = context::lock(&self.ends);
        let behind = |(partition, end): (&Partition, &u64)| {
            let next = self.handed_out.get(partition)?;
            Some(Lag { partition: partition.clone(), behind: end.saturating_sub(*next) })
        };
        ends.iter().filter_map(behind).collect()
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.coordinator.stop.store(true, Ordering::Release);
        let _ended = self.commands.send(Command::Stop);
        // The sender is dropped when the consumer has left its group: the others need not wait for a time-out.
        let _left = self.left.recv_timeout(LEAVE);
    }
}

fn thread_lost(error: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Internal, "a thread that asks Kafka ended").because(error)
}
