//! A client beside the consumer that only asks: topic ids, watermarks, offsets for times.

use std::time::{Duration, Instant};

use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::context::Context;
use super::plan::{Topic, Watermarks};
use crate::config::KafkaSasl;
use crate::error::{Error, ErrorKind, Result};

/// How long one question may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How long one attempt to get an answer may take: reasons for a refusal come beside it.
const ATTEMPT: Duration = Duration::from_secs(3);
/// How long a topic id is waited for after the metadata that carries it has come.
const ID_WAIT: Duration = Duration::from_millis(500);

/// Asks the cluster.
pub(super) struct Probe {
    source: String,
    client: BaseConsumer<Context>,
}

impl Probe {
    pub(super) fn new(source: &str, config: &ClientConfig, sasl: Option<KafkaSasl>) -> Result<Self> {
        let client = BaseConsumer::from_config_and_context(config, Context::new(sasl, None)).map_err(|error| {
            Error::new(ErrorKind::Config, format!("source {source}: the Kafka client refuses its settings"))
                .because(error)
                .help("see `properties:`, `tls:` and `sasl:` of the source")
        })?;
        let probe = Self { source: source.to_owned(), client };
        probe.serve();
        Ok(probe)
    }

    /// Serves tokens, errors and log lines until none waits.
    fn serve(&self) {
        loop {
            let before = self.client.context().served();
            // A served event and an empty queue both give `None`; only the context tells them apart.
            if self.client.poll(Duration::ZERO).is_none() && self.client.context().served() == before {
                return;
            }
        }
    }

    /// The names of all topics.
    pub(super) fn topics(&self) -> Result<Vec<String>> {
        let metadata = self.ask("list the topics", |wait| self.client.fetch_metadata(None, wait))?;
        Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
    }

    /// The topic as it is now; `None` when there is no such topic.
    pub(super) fn topic(&self, name: &str) -> Result<Option<Topic>> {
        let doing = format!("look at topic {name}");
        let metadata = self.ask(&doing, |wait| self.client.fetch_metadata(Some(name), wait))?;
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else { return Ok(None) };
        match topic.error().map(RDKafkaErrorCode::from) {
            None => {}
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => return Ok(None),
            Some(code) => return Err(self.failed(&doing, &KafkaError::MetadataFetch(code))),
        }
        let partitions = i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX);
        if partitions == 0 {
            return Ok(None);
        }
        Ok(Some(Topic { name: name.to_owned(), id: self.topic_id(name), partitions }))
    }

    /// The metadata answer writes the id to the client's log, if it is new to it, before it is returned.
    fn topic_id(&self, name: &str) -> String {
        let deadline = Instant::now() + ID_WAIT;
        self.serve();
        loop {
            if let Some(id) = self.client.context().topic_id(name) {
                return id;
            }
            if Instant::now() >= deadline {
                return "none".to_owned();
            }
            let _served = self.client.poll(Duration::from_millis(10));
        }
    }

    /// What the broker has of a partition, up to the last stable offset.
    pub(super) fn watermarks(&self, topic: &str, number: i32) -> Result<Watermarks> {
        let doing = format!("ask for the ends of topic {topic}, partition {number}");
        let (low, high) = self.ask(&doing, |wait| self.client.fetch_watermarks(topic, number, wait))?;
        match (u64::try_from(low), u64::try_from(high)) {
            (Ok(low), Ok(high)) => Ok(Watermarks { low, high }),
            _ => Err(Error::new(
                ErrorKind::SourceUnavailable,
                format!("source {}: {doing}: the broker does not know", self.source),
            )),
        }
    }

    /// The first offset at or after a time in milliseconds since 1970; the end when there is none.
    pub(super) fn offset_at(&self, topic: &str, number: i32, time_ms: i64) -> Result<Option<u64>> {
        let doing = format!("ask for the offset of a time in topic {topic}, partition {number}");
        let answer = self.ask(&doing, |wait| {
            let mut wanted = TopicPartitionList::new();
            wanted.add_partition_offset(topic, number, Offset::Offset(time_ms))?;
            self.client.offsets_for_times(wanted, wait)
        })?;
        let found = answer.find_partition(topic, number).map(|element| element.offset());
        Ok(match found {
            Some(Offset::Offset(offset)) => u64::try_from(offset).ok(),
            _ => None,
        })
    }

    /// Whether `[from, end)` of a partition holds no record that may be read: only transaction markers and what was
    /// aborted or compacted away. `false` also when that cannot be told right now.
    pub(super) fn is_empty_between(&self, topic: &str, number: i32, from: u64, end: u64) -> bool {
        let mut wanted = TopicPartitionList::new();
        let placed = wanted.add_partition_offset(topic, number, Offset::Offset(from as i64));
        if placed.and_then(|()| self.client.assign(&wanted)).is_err() {
            return false;
        }
        let deadline = Instant::now() + ATTEMPT;
        let mut empty = false;
        while Instant::now() < deadline {
            match self.client.poll(Duration::from_millis(20)) {
                Some(Ok(message)) => {
                    empty = u64::try_from(message.offset()).is_ok_and(|offset| offset >= end);
                    break;
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    empty = true;
                    break;
                }
                Some(Err(_)) | None => {}
            }
        }
        self.client.unassign().is_ok() && empty
    }

    /// Asks again while brokers do not answer; a refusal ends it at once.
    fn ask<T>(&self, doing: &str, question: impl Fn(Duration) -> Result<T, KafkaError>) -> Result<T> {
        let deadline = Instant::now() + ANSWER;
        loop {
            self.serve();
            let error = match question(ATTEMPT) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            self.serve();
            let error = self.failed(doing, &error);
            if *error.kind() == ErrorKind::SourceRefused || Instant::now() >= deadline {
                return Err(error);
            }
        }
    }

    fn failed(&self, doing: &str, error: &KafkaError) -> Error {
        // The call itself only says that time ran out; why stands in the last error of the client.
        let (code, reason) = match self.client.context().take_error() {
            Some((code, reason)) => (Some(code), reason),
            None => (error.rdkafka_error_code(), error.to_string()),
        };
        classify(&format!("source {}: {doing}", self.source), code, &reason)
    }
}

/// What an error of the client means for us.
pub(super) fn classify(doing: &str, code: Option<RDKafkaErrorCode>, reason: &str) -> Error {
    use RDKafkaErrorCode as Code;
    let (kind, help) = match code {
        // The token endpoint may be away for a moment.
        Some(Code::Authentication) if reason.contains("OAUTHBEARER token") => {
            (ErrorKind::SourceUnavailable, "check `token_url`, `client_id` and `client_secret`, or the AWS credentials")
        }
        Some(Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism) => {
            (ErrorKind::SourceRefused, "check `sasl:` of the source: mechanism, user name, password")
        }
        Some(Code::SSL) => {
            (ErrorKind::SourceRefused, "check `tls:` of the source: the authority, our certificate, the broker's name")
        }
        Some(Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed | Code::ClusterAuthorizationFailed) => (
            ErrorKind::SourceRefused,
            "allow this user Read and Describe on the topics and Read on the consumer group (`group:`)",
        ),
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::InvalidTopic) => {
            (ErrorKind::SourceRefused, "create the topic, or correct `topics:` of the source")
        }
        _ => (ErrorKind::SourceUnavailable, "is the address in `brokers:` right, and can it be reached from here?"),
    };
    Error::new(kind, format!("{doing}: {reason}")).help(help)
}
