//! From the topology to librdkafka's properties, and what a topology may not change.

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::config::{KafkaSasl, KafkaSource};
use crate::error::{Error, ErrorKind, Result};

/// What exactly-once stands on, or what has a field of its own; with the reason.
const OURS: [(&str, &str); 13] = [
    ("enable.auto.commit", "positions come from the lake log; offsets are committed only after it"),
    ("enable.auto.offset.store", "positions come from the lake log; offsets are committed only after it"),
    ("isolation.level", "records of aborted transactions would become rows"),
    (
        "auto.offset.reset",
        "a lost position must halt, never jump; say `start:` for partitions without an entry in the log",
    ),
    ("enable.partition.eof", "the end of a partition is how transaction markers are passed"),
    ("partition.assignment.strategy", "partitions are handed over one by one, after they were committed"),
    ("group.protocol", "the hand-over of partitions is made for the classic group protocol"),
    ("group.id", "say `group:`"),
    ("bootstrap.servers", "say `brokers:`"),
    ("metadata.broker.list", "say `brokers:`"),
    ("log.queue", "the topic's id is read from the client's log"),
    ("log_level", "the topic's id is read from the client's log; RUST_LOG decides what is shown"),
    ("enable.sasl.oauthbearer.unsecure.jwt", "tokens without a signature prove nothing; say `sasl:`"),
];

/// The properties of the consumer that reads.
pub(super) fn consumer(name: &str, config: &KafkaSource, topology: &str, inflight: usize) -> Result<ClientConfig> {
    let mut properties = connection(name, config, topology)?;
    // Half of what may be in flight waits inside librdkafka, half in our own channel.
    let queued_kib = (inflight / 2 / 1024).clamp(1024, 1 << 20);
    let fetch_bytes = (inflight / 4).clamp(1 << 20, 50 << 20);
    properties.set("enable.auto.offset.store", "false").set("partition.assignment.strategy", "cooperative-sticky");
    for (key, value) in [
        ("queued.max.messages.kbytes", queued_kib.to_string()),
        ("fetch.max.bytes", fetch_bytes.to_string()),
        // A full queue is empty again in a moment; by default a partition then rests for a second.
        ("fetch.queue.backoff.ms", "10".to_owned()),
        ("message.max.bytes", (1 << 20).to_string()),
        ("max.partition.fetch.bytes", (1 << 20).to_string()),
        ("statistics.interval.ms", "5000".to_owned()),
        // New topics and partitions are found this quickly.
        ("topic.metadata.refresh.interval.ms", "10000".to_owned()),
        ("check.crcs", "true".to_owned()),
    ] {
        if !config.properties.contains_key(key) {
            properties.set(key, value);
        }
    }
    if !config.topics.iter().any(|topic| topic.contains("__")) && !config.properties.contains_key("topic.blacklist") {
        properties.set("topic.blacklist", "^__.*");
    }
    Ok(properties)
}

/// The properties of a client that only asks. It bears the group's name, because reading needs one, and never joins.
pub(super) fn connection(name: &str, config: &KafkaSource, topology: &str) -> Result<ClientConfig> {
    let mut properties = ClientConfig::new();
    properties.set("client.id", format!("dataflow-{topology}"));
    for (key, value) in &config.properties {
        if let Some((_, why)) = OURS.iter().find(|(ours, _)| ours == key) {
            return Err(Error::new(
                ErrorKind::Config,
                format!("source {name}: the property `{key}` cannot be set: {why}"),
            )
            .help(format!("take `{key}` out of `properties:`")));
        }
        properties.set(key, value);
    }
    let group = config.group.clone().unwrap_or_else(|| format!("dataflow-{topology}-{name}"));
    let debug = config.properties.get("debug").map_or_else(|| "metadata".to_owned(), |more| format!("metadata,{more}"));
    properties
        .set("bootstrap.servers", &config.brokers)
        .set("group.id", group)
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .set("enable.metrics.push", "false")
        .set("debug", debug)
        .set_log_level(RDKafkaLogLevel::Debug);
    security(name, config, &mut properties)?;
    Ok(properties)
}

fn security(name: &str, config: &KafkaSource, properties: &mut ClientConfig) -> Result<()> {
    let signed = matches!(config.sasl, Some(KafkaSasl::AwsMskIam { .. }));
    let protocol = match (config.tls.is_some() || signed, config.sasl.is_some()) {
        (true, true) => Some("SASL_SSL"),
        (true, false) => Some("SSL"),
        (false, true) => Some("SASL_PLAINTEXT"),
        (false, false) => None,
    };
    if let Some(protocol) = protocol {
        properties.set("security.protocol", protocol);
    }
    if let Some(tls) = &config.tls {
        let files = [
            ("ssl.ca.location", &tls.ca),
            ("ssl.certificate.location", &tls.certificate),
            ("ssl.key.location", &tls.key),
        ];
        for (key, file) in files {
            if let Some(file) = file {
                properties.set(key, file);
            }
        }
    }
    let mut password = |mechanism: &str, username: &str, password: &str| {
        properties.set("sasl.mechanism", mechanism).set("sasl.username", username).set("sasl.password", password);
    };
    match &config.sasl {
        None => {}
        Some(KafkaSasl::Plain { username, password: secret }) => {
            if config.tls.is_none() {
                tracing::warn!(source = name, "SASL PLAIN without `tls:` sends the password readable for everybody");
            }
            password("PLAIN", username, secret);
        }
        Some(KafkaSasl::ScramSha256 { username, password: secret }) => password("SCRAM-SHA-256", username, secret),
        Some(KafkaSasl::ScramSha512 { username, password: secret }) => password("SCRAM-SHA-512", username, secret),
        Some(KafkaSasl::AwsMskIam { .. } | KafkaSasl::OauthBearer { .. }) => {
            properties.set("sasl.mechanism", "OAUTHBEARER");
        }
    }
    Ok(())
}

/// The entries of `topics:` as librdkafka subscribes to them: a name, or a regular expression that begins with `^`.
pub(super) fn subscription(topics: &[String]) -> Vec<String> {
    topics
        .iter()
        .map(|topic| {
            if topic.starts_with('^') || !topic.contains('*') {
                return topic.clone();
            }
            let parts: Vec<String> = topic.split('*').map(regex::escape).collect();
            format!("^{}$", parts.join(".*"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(yaml: &str) -> KafkaSource {
        serde_saphyr::from_str(yaml).expect("a source")
    }

    #[test]
    fn patterns_become_regular_expressions() {
        let topics = ["shop.public.*", "plain", "^own.+"].map(str::to_owned);
        assert_eq!(subscription(&topics), ["^shop\\.public\\..*$", "plain", "^own.+"]);
    }

    #[test]
    fn what_exactly_once_stands_on_is_refused_with_the_reason() {
        for (property, why) in OURS {
            let config = source(&format!("{{brokers: 'b:1', topics: [t], properties: {{{property}: 'x'}}}}"));
            let error = connection("k", &config, "t").expect_err("refused");
            assert_eq!(*error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(why), "{error}");
        }
        let config = source("{brokers: 'b:1', topics: [t], properties: {fetch.wait.max.ms: '77', debug: broker}}");
        let properties = consumer("k", &config, "t", 32 << 20).expect("accepted");
        assert_eq!(properties.get("fetch.wait.max.ms"), Some("77"));
        assert_eq!(properties.get("debug"), Some("metadata,broker"));
        assert_eq!(properties.get("queued.max.messages.kbytes"), Some("16384"));
    }

    #[test]
    fn security_follows_from_tls_and_sasl() {
        let cases = [
            ("", None, None),
            (", tls: {ca: /ca}", Some("SSL"), None),
            (
                ", tls: {}, sasl: {mechanism: SCRAM-SHA-512, username: u, password: p}",
                Some("SASL_SSL"),
                Some("SCRAM-SHA-512"),
            ),
            (", sasl: {mechanism: PLAIN, username: u, password: p}", Some("SASL_PLAINTEXT"), Some("PLAIN")),
            (", sasl: {mechanism: AWS_MSK_IAM, region: eu-west-3}", Some("SASL_SSL"), Some("OAUTHBEARER")),
        ];
        for (more, protocol, mechanism) in cases {
            let config = source(&format!("{{brokers: 'b:1', topics: [t]{more}}}"));
            let properties = connection("k", &config, "t").expect("accepted");
            assert_eq!((properties.get("security.protocol"), properties.get("sasl.mechanism")), (protocol, mechanism));
        }
    }
}
