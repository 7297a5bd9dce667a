//! The thread that polls: records, callbacks, back-pressure, errors and what the task asks for.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::context::{Context, lock};
use super::coordinator::Coordinator;
use super::probe::classify;
use super::settings;
use crate::config::KafkaSource;
use crate::error::{Disposition, Error, ErrorKind, Result};
use crate::progress::{Partition, Progress};

/// The ends of assigned partitions, as far as they are known.
pub(super) type Ends = Arc<Mutex<BTreeMap<Partition, u64>>>;

/// The longest that a command or a stop waits for a poll.
const POLL: Duration = Duration::from_millis(50);
/// How often the cluster is asked whether topics grew or were made again.
const LOOK: Duration = Duration::from_secs(5);
/// How long polling rests while the channel is full, before fetching is paused: pausing throws away what is fetched.
const REST: Duration = Duration::from_secs(2);
/// How long a named topic may be missing.
const MISSING: Duration = Duration::from_secs(30);

/// What the task asks the thread for.
pub(super) enum Command {
    Release(Progress),
    Rewind { committed: Progress, era: u64 },
    Stop,
}

/// What stays when a client makes room for another one.
pub(super) struct Seat {
    pub(super) config: KafkaSource,
    pub(super) properties: ClientConfig,
    pub(super) coordinator: Arc<Coordinator>,
    pub(super) commands: Receiver<Command>,
    pub(super) ends: Ends,
    pub(super) inflight: usize,
}

/// The thread's state.
pub(super) struct Reader {
    consumer: BaseConsumer<Context>,
    coordinator: Arc<Coordinator>,
    seat: Seat,
    /// Half of the bytes in flight: the other half waits in librdkafka.
    limit: usize,
    full_since: Option<Instant>,
    paused: bool,
    looked: Instant,
    unavailable_said: bool,
    missing_since: Option<Instant>,
}

impl Reader {
    /// Makes the consumer and subscribes.
    pub(super) fn join(seat: Seat) -> Result<Self> {
        let Seat { config, properties, coordinator, .. } = &seat;
        // The thread that polls comes here as well.
        let _runtime = coordinator.runtime.enter();
        let refused = |error: KafkaError| {
            Error::new(
                ErrorKind::Config,
                format!("source {}: the Kafka client refuses its settings", coordinator.source),
            )
            .because(error)
            .help("see `topics:`, `properties:`, `tls:` and `sasl:` of the source")
        };
        let context = Context::new(config.sasl.clone(), Some(coordinator.clone()));
        let consumer = BaseConsumer::from_config_and_context(properties, context).map_err(refused)?;
        let topics = settings::subscription(&config.topics);
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).map_err(refused)?;
        Ok(Self {
            consumer,
            coordinator: coordinator.clone(),
            limit: seat.inflight / 2,
            seat,
            full_since: None,
            paused: false,
            looked: Instant::now(),
            unavailable_said: false,
            missing_since: None,
        })
    }

    /// Polls until the source is dropped or cannot go on.
    pub(super) fn run(self) {
        let coordinator = self.coordinator.clone();
        let mut reader = self;
        while let Some(seat) = reader.read() {
            reader = match Self::join(seat) {
                Ok(reader) => reader,
                Err(error) => return coordinator.fail(error),
            };
        }
    }

    /// Polls until it is over, or another client must go on: it takes the seat.
    fn read(mut self) -> Option<Seat> {
        let mut wait = POLL;
        loop {
            if !self.obey() || self.coordinator.dead.load(Ordering::Acquire) {
                self.leave();
                return None;
            }
            if self.coordinator.was_made_again() {
                let Self { consumer, coordinator, seat, .. } = self;
                // Leaving the group hands everything over: what is collected is committed first.
                drop(consumer);
                coordinator.forget_assignment();
                return Some(seat);
            }
            if !self.make_room() {
                continue;
            }
            self.poll(wait);
            wait = self.coordinator.flush_due().unwrap_or(POLL).min(POLL);
            self.coordinator.say_caught_up();
            self.look_around();
        }
    }

    /// Leaving the group revokes what is assigned, and that must not wait for anybody.
    fn leave(self) {
        self.coordinator.stop.store(true, Ordering::Release);
    }

    /// Does what the task asked for; `false` when it asked to stop.
    fn obey(&mut self) -> bool {
        loop {
            match self.seat.commands.try_recv() {
                Ok(Command::Release(committed)) => {
                    let list = self.coordinator.committable(&committed);
                    if list.count() > 0
                        && let Err(error) = self.consumer.commit(&list, CommitMode::Async)
                    {
                        tracing::debug!(%error, "offsets were not committed to the broker; only lag tools miss them");
                    }
                }
                Ok(Command::Rewind { committed, era }) => self.coordinator.rewind(&self.consumer, &committed, era),
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    /// Whether there is room for more; rests when there is none, and pauses fetching when that lasts.
    fn make_room(&mut self) -> bool {
        let held = self.coordinator.backlog.load(Ordering::Acquire);
        if self.paused {
            if held <= self.limit / 2 {
                self.paused = false;
                self.full_since = None;
                self.change_fetching("resume", |consumer, all| consumer.resume(all));
            }
            // Polled all the same: the group must see that we live.
            return true;
        }
        if held < self.limit {
            self.full_since = None;
            return true;
        }
        if self.full_since.get_or_insert_with(Instant::now).elapsed() >= REST {
            self.paused = true;
            self.change_fetching("pause", |consumer, all| consumer.pause(all));
            return true;
        }
        std::thread::sleep(Duration::from_millis(2));
        false
    }

    fn change_fetching(
        &self,
        doing: &str,
        change: impl Fn(&BaseConsumer<Context>, &rdkafka::TopicPartitionList) -> rdkafka::error::KafkaResult<()>,
    ) {
        let all = self.coordinator.assignment();
        tracing::debug!(source = %self.coordinator.source, partitions = all.count(), "{doing} fetching");
        if let Err(error) = change(&self.consumer, &all) {
            tracing::warn!(source = %self.coordinator.source, %error, "could not {doing} fetching");
        }
    }

    fn poll(&mut self, wait: Duration) {
        let Some(polled) = self.consumer.poll(wait) else { return };
        // What the callbacks said on the way comes first: this record may be the first of a topic made again.
        if self.coordinator.was_made_again() {
            return;
        }
        match polled {
            Ok(message) => {
                self.coordinator.record(&message);
                drop(message);
                self.answered();
            }
            Err(KafkaError::PartitionEOF(number)) => {
                self.coordinator.at_end(&self.consumer, number);
                self.answered();
            }
            Err(error) => self.failed(&error),
        }
    }

    fn answered(&mut self) {
        self.unavailable_said = false;
        self.missing_since = None;
    }

    fn failed(&mut self, error: &KafkaError) {
        let (code, reason) = match self.consumer.context().take_error() {
            Some((code, reason)) => (Some(code), reason),
            None => (error.rdkafka_error_code(), error.to_string()),
        };
        match code {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                return self.out_of_range(&reason);
            }
            // Just deleted, or about to be made again.
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)
                if self.missing_since.get_or_insert_with(Instant::now).elapsed() < MISSING =>
            {
                tracing::debug!(%reason, "waiting for the topic");
                return;
            }
            _ => {}
        }
        let error = classify(&format!("source {}: read", self.coordinator.source), code, &reason);
        if error.disposition() == Disposition::Halt {
            self.coordinator.fail(error);
        } else if !self.unavailable_said {
            self.unavailable_said = true;
            tracing::warn!(source = %self.coordinator.source, %error, "the client goes on trying");
        }
    }

    /// There is no offset to fetch from: the topic was made again, or the log's position is not there any more.
    fn out_of_range(&self, reason: &str) {
        for attempt in 1.. {
            self.coordinator.follow_topics();
            if self.coordinator.was_made_again() {
                return;
            }
            match self.coordinator.check_positions() {
                // The client does not fetch any more where it said this, and it does not say where: perhaps an answer about
                // a topic that was made again meanwhile, after its new content had been placed.
                Ok(()) => {
                    tracing::debug!(%reason, "a position was out of range");
                    return self.coordinator.fetch_again(&self.consumer);
                }
                // Brokers take a moment to agree that a topic was made again.
                Err(_) if attempt < 3 => std::thread::sleep(Duration::from_millis(300)),
                Err(error) => return self.coordinator.fail(error),
            }
        }
    }

    /// Every few seconds: topics that grew or were made again, and the ends for the lag.
    fn look_around(&mut self) {
        if self.looked.elapsed() < LOOK {
            return;
        }
        self.looked = Instant::now();
        self.coordinator.follow_topics();
        let known = self.consumer.context().ends();
        let partitions = self.coordinator.partitions().into_iter();
        let ends = partitions.filter_map(|(topic, number, partition)| Some((partition, *known.get(&(topic, number))?)));
        *lock(&self.seat.ends) = ends.collect();
    }
}
