//! What librdkafka calls back: rebalances, tokens, errors, statistics, and its log, where topic ids are read.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, TopicPartitionList};
use tokio::runtime::Handle;

use super::coordinator::Coordinator;
use super::token;
use crate::config::KafkaSasl;

/// Locks even after a panic elsewhere: what the locks here guard is replaced whole, never half.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a client tells besides records.
pub(super) struct Context {
    sasl: Option<KafkaSasl>,
    runtime: Handle,
    coordinator: Option<Arc<Coordinator>>,
    /// The newest id of every topic that was named in the log.
    ids: Mutex<HashMap<String, String>>,
    /// The ends of partitions, from the statistics: for the lag.
    ends: Mutex<HashMap<(String, i32), u64>>,
    last_error: Mutex<Option<(RDKafkaErrorCode, String)>>,
    /// Callbacks served.
    served: AtomicU64,
}

impl Context {
    /// Must be called inside a runtime, which asks for tokens.
    pub(super) fn new(sasl: Option<KafkaSasl>, coordinator: Option<Arc<Coordinator>>) -> Self {
        Self {
            sasl,
            runtime: Handle::current(),
            coordinator,
            ids: Mutex::default(),
            ends: Mutex::default(),
            last_error: Mutex::default(),
            served: AtomicU64::new(0),
        }
    }

    /// How many callbacks were served so far.
    pub(super) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// The id of a topic as the client's log said it last.
    pub(super) fn topic_id(&self, topic: &str) -> Option<String> {
        lock(&self.ids).get(topic).cloned()
    }

    /// The end of a partition when the client last said it.
    pub(super) fn ends(&self) -> HashMap<(String, i32), u64> {
        lock(&self.ends).clone()
    }

    /// The last error that is not the end of a partition, once.
    pub(super) fn take_error(&self) -> Option<(RDKafkaErrorCode, String)> {
        lock(&self.last_error).take()
    }
}

/// The id of a topic that is not known.
const NO_ID: &str = "AAAAAAAAAAAAAAAAAAAAAA";

/// Reads `Topic <name> changed id from <old> to <new>` out of a line of librdkafka's log.
fn changed_id(line: &str) -> Option<(&str, &str)> {
    let (before, ids) = line.split_once(" changed id from ")?;
    let (_, topic) = before.rsplit_once("Topic ")?;
    let (_, new) = ids.split_once(" to ")?;
    Some((topic, new.trim())).filter(|(_, new)| *new != NO_ID)
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.served.fetch_add(1, Ordering::Relaxed);
        match level {
            RDKafkaLogLevel::Debug => {
                if let Some((topic, id)) = changed_id(message) {
                    let before = lock(&self.ids).insert(topic.to_owned(), id.to_owned());
                    // Also of a topic that we do not read at the moment: the group may have taken it from us while it was gone.
                    if let (Some(coordinator), true) = (&self.coordinator, before.is_some_and(|before| before != id)) {
                        coordinator.topic_was_made_again();
                    }
                }
                tracing::trace!(facility, "{message}");
            }
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => tracing::debug!(facility, "{message}"),
            // A broker that is away is said once, by `error`; each attempt to reach it would be said here.
            _ => tracing::debug!(facility, warning = true, "{message}"),
        }
    }

    fn stats(&self, statistics: Statistics) {
        self.served.fetch_add(1, Ordering::Relaxed);
        let mut ends = lock(&self.ends);
        for (name, topic) in &statistics.topics {
            for (number, partition) in &topic.partitions {
                // Negative offsets stand for "not known yet".
                if let Ok(end) = u64::try_from(partition.ls_offset) {
                    ends.insert((name.clone(), *number), end);
                }
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.served.fetch_add(1, Ordering::Relaxed);
        let Some(code) = error.rdkafka_error_code() else { return };
        if code != RDKafkaErrorCode::PartitionEOF {
            let mut last = lock(&self.last_error);
            // That all brokers are down is said after each reason why, and must not hide it.
            if code != RDKafkaErrorCode::AllBrokersDown || last.is_none() {
                *last = Some((code, reason.to_owned()));
            }
        } else if let Some(coordinator) = &self.coordinator {
            coordinator.end_reason(reason);
        }
    }

    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn StdError>> {
        self.served.fetch_add(1, Ordering::Relaxed);
        token::generate(self.sasl.as_ref(), &self.runtime).inspect_err(|error| {
            tracing::warn!(%error, "no token for SASL OAUTHBEARER; the client asks again");
        })
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let Some(coordinator) = &self.coordinator else { return };
        match event {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => coordinator.assign(consumer, partitions),
            _ => coordinator.revoke(consumer, partitions),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(%error, "offsets were not committed to the broker; only lag tools miss them");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_ids_are_read_from_the_log() {
        let line =
            "[thrd:main]: Topic shop.public.orders changed id from AAAAAAAAAAAAAAAAAAAAAA to Gq9/xx-_SC2pnXbnXwQ4mg";
        assert_eq!(changed_id(line), Some(("shop.public.orders", "Gq9/xx-_SC2pnXbnXwQ4mg")));
        assert_eq!(
            changed_id(&format!("[thrd:main]: Topic x changed id from Gq9/xx-_SC2pnXbnXwQ4mg to {NO_ID}")),
            None
        );
        assert_eq!(changed_id("[thrd:main]: Topic x partition 3 Leader 1"), None);
    }
}
