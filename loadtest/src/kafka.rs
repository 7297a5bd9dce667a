//! Events into Kafka, idempotently and with every answer checked.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use loadtest::Event;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use crate::Sink;

const WAIT: Duration = Duration::from_secs(30);

/// Counts what the broker refused; one lost message makes the expected state worthless.
#[derive(Default)]
struct Answers {
    failed: AtomicU64,
    first: Mutex<Option<String>>,
}

#[derive(Clone, Default)]
struct Context(Arc<Answers>);

impl ClientContext for Context {}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): Self::DeliveryOpaque) {
        if let Err((error, _)) = result {
            self.0.failed.fetch_add(1, Ordering::Relaxed);
            if let Ok(mut first) = self.0.first.lock() {
                first.get_or_insert_with(|| error.to_string());
            }
        }
    }
}

/// A producer.
pub struct Kafka {
    brokers: String,
    partitions: Option<i32>,
    known: HashSet<Arc<str>>,
    producer: ThreadedProducer<Context>,
    answers: Arc<Answers>,
}

impl Kafka {
    /// Connects; topics are made on their first message when `partitions` says how.
    pub fn connect(brokers: &str, partitions: Option<i32>) -> Result<Self, String> {
        let context = Context::default();
        let answers = Arc::clone(&context.0);
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            // As the Java producer, and so Debezium, chooses a partition.
            .set("partitioner", "murmur2_random")
            .create_with_context(context)
            .map_err(|error| format!("connect to Kafka at {brokers}: {error}"))?;
        Ok(Self { brokers: brokers.to_owned(), partitions, known: HashSet::new(), producer, answers })
    }

    fn make_topic(&mut self, topic: &Arc<str>) -> Result<(), String> {
        if !self.known.insert(Arc::clone(topic)) {
            return Ok(());
        }
        let Some(partitions) = self.partitions else { return Ok(()) };
        let failed = |error: String| format!("make the topic {topic}: {error}");
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .create()
            .map_err(|error| failed(error.to_string()))?;
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| failed(error.to_string()))?;
        let options = AdminOptions::new().operation_timeout(Some(WAIT));
        let results =
            runtime.block_on(admin.create_topics([&new], &options)).map_err(|error| failed(error.to_string()))?;
        match results.into_iter().next() {
            Some(Err((_, code))) if code != RDKafkaErrorCode::TopicAlreadyExists => Err(failed(code.to_string())),
            _ => Ok(()),
        }
    }

    fn refused(&self) -> Result<(), String> {
        let failed = self.answers.failed.load(Ordering::Relaxed);
        if failed == 0 {
            return Ok(());
        }
        let first = self.answers.first.lock().ok().and_then(|first| first.clone()).unwrap_or_default();
        Err(format!("Kafka did not take {failed} messages; the first: {first}"))
    }
}

impl Sink for Kafka {
    fn send(&mut self, event: Event) -> Result<(), String> {
        self.make_topic(&event.topic)?;
        let headers = event.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value.as_slice()) })
        });
        let mut record: BaseRecord<'_, Vec<u8>, Vec<u8>> = BaseRecord::to(&event.topic).headers(headers);
        record.key = event.key.as_ref();
        record.payload = event.value.as_ref();
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.producer.poll(Duration::from_millis(20));
                }
                Err((error, _)) => return Err(format!("send to {}: {error}", event.topic)),
            }
        }
    }

    fn flush(&mut self, last: bool) -> Result<(), String> {
        if last {
            self.producer.flush(WAIT).map_err(|error| format!("wait for Kafka's answers: {error}"))?;
        }
        self.refused()
    }
}
