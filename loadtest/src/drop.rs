//! A consumer that drops what it reads: what reading Kafka costs at the least, in this client and on this machine.

use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

const WAIT: Duration = Duration::from_secs(30);

/// Reads all partitions of the topics that begin with `prefix`, from the first record to the end of each, with the
/// client's own settings.
pub fn run(brokers: &str, prefix: &str) -> Result<(), String> {
    let failed = |error: KafkaError| format!("read from Kafka at {brokers}: {error}");
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "loadtest-drop")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .create()
        .map_err(failed)?;
    let begun = Instant::now();
    let mut list = TopicPartitionList::new();
    let metadata = consumer.fetch_metadata(None, WAIT).map_err(failed)?;
    for topic in metadata.topics().iter().filter(|topic| topic.name().starts_with(prefix)) {
        for partition in topic.partitions() {
            list.add_partition_offset(topic.name(), partition.id(), Offset::Beginning).map_err(failed)?;
        }
    }
    if list.count() == 0 {
        return Err(format!("no topic begins with {prefix}"));
    }
    consumer.assign(&list).map_err(failed)?;
    let (mut messages, mut bytes) = (0u64, 0u64);
    let mut open = list.count();
    while open > 0 {
        match consumer.poll(WAIT) {
            None => return Err(format!("nothing came from Kafka for {} s", WAIT.as_secs())),
            Some(Ok(message)) => {
                messages += 1;
                bytes += (message.payload_len() + message.key_len()) as u64;
            }
            // Each partition ends once, as nobody writes meanwhile.
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(error)) => return Err(failed(error)),
        }
    }
    println!("dropped {messages} messages, {bytes} bytes, in {:.2} s", begun.elapsed().as_secs_f64());
    Ok(())
}
