//! The Kafka source against a real Apache Kafka.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataflow::batch::RawBatch;
use dataflow::config::{KafkaSource, Start};
use dataflow::error::{Error, ErrorKind, Result};
use dataflow::progress::{Partition, Progress};
use dataflow::source::kafka::Kafka;
use dataflow::source::{Polled, Source};
use rdkafka::producer::Producer;

use crate::file::Log;
use crate::support::kafka::{Broker, broker, send};

mod topics;

/// Ends a hang: machines are shared.
const PATIENCE: Duration = Duration::from_secs(180);
const INFLIGHT: usize = 32 << 20;

fn settings(broker: &Broker, topics: &[&str]) -> KafkaSource {
    let topics = topics.join(",");
    serde_saphyr::from_str(&format!(
        "{{brokers: '{}', topics: [{topics}], properties: {{session.timeout.ms: '45000', heartbeat.interval.ms: '300', \
         topic.metadata.refresh.interval.ms: '1000'}}}}",
        broker.address
    ))
    .unwrap()
}

/// A member of the group of one topology, with the log that all members share.
struct Member {
    kafka: Kafka,
    log: Arc<Log>,
    /// Records by partition, as `key=value`.
    seen: BTreeMap<Partition, Vec<String>>,
    batches: Vec<RawBatch>,
}

impl Member {
    async fn try_open(config: &KafkaSource, topology: &str, log: &Arc<Log>) -> Result<Self> {
        let kafka = Kafka::open("k", config, topology, &[], INFLIGHT, log.clone()).await?;
        Ok(Self { kafka, log: log.clone(), seen: BTreeMap::new(), batches: Vec::new() })
    }

    async fn open(config: &KafkaSource, topology: &str, log: &Arc<Log>) -> Self {
        Self::try_open(config, topology, log).await.unwrap()
    }

    async fn next(&mut self) -> Result<Polled> {
        tokio::time::timeout(PATIENCE, self.kafka.next()).await.expect("the source says something in time")
    }

    fn take(&mut self, batch: RawBatch) {
        self.log.commit(&batch);
        let seen = self.seen.entry(batch.partition.clone()).or_default();
        seen.extend(batch.records.iter().map(|r| text(r.key()) + "=" + &text(r.value())));
        self.batches.push(batch);
    }

    /// Reads and commits until everything that was there has been handed out.
    async fn catch_up(&mut self) -> &mut Self {
        loop {
            match self.next().await.unwrap() {
                Polled::Batch(batch) => self.take(batch),
                Polled::CaughtUp => return self,
                Polled::Revoking { done, .. } => done.send(()).unwrap(),
                Polled::Lost(partitions) => panic!("lost {partitions:?}"),
            }
        }
    }

    /// Reads and commits until `enough` records came since the beginning.
    async fn read(&mut self, enough: usize) -> &mut Self {
        while self.count() < enough {
            match self.next().await.unwrap() {
                Polled::Batch(batch) => self.take(batch),
                Polled::Revoking { done, .. } => done.send(()).unwrap(),
                _ => {}
            }
        }
        self
    }

    async fn fail(&mut self) -> Error {
        loop {
            match self.next().await {
                Err(error) => return error,
                Ok(Polled::Batch(batch)) => self.take(batch),
                Ok(_) => {}
            }
        }
    }

    fn count(&self) -> usize {
        self.seen.values().map(Vec::len).sum()
    }

    fn all(&self) -> Vec<String> {
        self.seen.values().flatten().cloned().collect()
    }
}

fn text(bytes: Option<&[u8]>) -> String {
    bytes.map_or_else(|| "null".into(), |bytes| String::from_utf8(bytes.to_vec()).unwrap())
}

fn numbered(range: std::ops::Range<usize>) -> Vec<(String, String)> {
    range.map(|n| (format!("k{n}"), format!("v{n}"))).collect()
}

fn produce(broker: &Broker, topic: &str, partition: i32, range: std::ops::Range<usize>) {
    let records = numbered(range);
    let records: Vec<_> = records.iter().map(|(k, v)| (k.as_str(), Some(v.as_str()))).collect();
    broker.produce(topic, partition, &records);
}

fn pairs(range: std::ops::Range<usize>) -> Vec<String> {
    numbered(range).into_iter().map(|(k, v)| k + "=" + &v).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_come_from_the_log_and_offsets_are_committed_for_lag_tools_only() {
    let broker = broker();
    broker.create_topic("resume", 1, &[]).await;
    produce(broker, "resume", 0, 0..10);
    broker.produce("resume", 0, &[("gone", None)]);
    let log = Arc::new(Log::default());
    let config = settings(broker, &["resume"]);
    let mut member = Member::open(&config, "resume", &log).await;
    member.catch_up().await;
    let mut expected = pairs(0..10);
    expected.push("gone=null".into());
    assert_eq!(member.all(), expected);
    let record = member.batches.iter().flat_map(|b| b.records.iter()).nth(3).unwrap();
    assert_eq!((record.offset(), record.header("n")), (3, Some(&b"3"[..])));
    assert!(record.timestamp_us() > 1_600_000_000_000_000);
    assert_eq!(member.batches.last().unwrap().stream.as_deref(), Some("resume"));
    let name = &member.batches[0].partition.name;
    assert!(name.starts_with("resume#") && name.ends_with("/0") && name.len() == "resume#/0".len() + 22, "{name}");

    member.kafka.release(&log.progress()).await.unwrap();
    let begun = Instant::now();
    while broker.committed("dataflow-resume-k", "resume", 0) != Some(11) {
        assert!(begun.elapsed() < PATIENCE, "offsets are not committed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(member);

    // The log stands elsewhere than the broker: the log wins.
    let at_four = Arc::new(Log::default());
    let (partition, mut standing) = log.progress().iter().map(|(p, s)| (p.clone(), s.clone())).next().unwrap();
    standing.position = dataflow::progress::Position::offset(4);
    at_four.set(partition, standing);
    let mut member = Member::open(&config, "resume", &at_four).await;
    member.catch_up().await;
    assert_eq!(member.all(), expected[4..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn aborted_transactions_are_not_seen_and_markers_are_passed() {
    let broker = broker();
    broker.create_topic("tx", 1, &[]).await;
    let producer = broker.transactional("tx-1");
    for (n, commit) in [(0, true), (10, false), (20, true), (30, false)] {
        producer.begin_transaction().unwrap();
        let records = numbered(n..n + 3);
        let records: Vec<_> = records.iter().map(|(k, v)| (k.as_str(), Some(v.as_str()))).collect();
        send(&producer, "tx", 0, &records);
        producer.flush(PATIENCE).unwrap();
        if commit {
            producer.commit_transaction(PATIENCE).unwrap()
        } else {
            producer.abort_transaction(PATIENCE).unwrap()
        }
    }
    let log = Arc::new(Log::default());
    let mut member = Member::open(&settings(broker, &["tx"]), "tx", &log).await;
    member.catch_up().await;
    assert_eq!(member.all(), [pairs(0..3), pairs(20..23)].concat());
    // Four times three records and a marker: the span covers the aborted end too.
    let end = broker.watermarks("tx", 0).1;
    assert_eq!(end, 16);
    assert_eq!(log.progress().iter().next().unwrap().1.position.0, end.to_string());
    // An open transaction holds back what is behind it.
    producer.begin_transaction().unwrap();
    send(&producer, "tx", 0, &[("open", Some("1"))]);
    producer.flush(PATIENCE).unwrap();
    produce(broker, "tx", 0, 40..41);
    drop(member);
    let mut member = Member::open(&settings(broker, &["tx"]), "tx", &log).await;
    assert_eq!(member.catch_up().await.count(), 0);
    producer.commit_transaction(PATIENCE).unwrap();
    assert_eq!(member.read(2).await.all(), ["open=1", "k40=v40"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_whose_ends_hold_no_record_are_caught_up_with_also_after_a_rewind() {
    let broker = broker();
    let producer = broker.transactional("ends-1");
    for (topic, aborted) in [("ends.a", 3), ("ends.b", 5)] {
        broker.create_topic(topic, 1, &[]).await;
        produce(broker, topic, 0, 0..100);
        producer.begin_transaction().unwrap();
        let records = numbered(0..aborted);
        let records: Vec<_> = records.iter().map(|(k, v)| (k.as_str(), Some(v.as_str()))).collect();
        send(&producer, topic, 0, &records);
        producer.flush(PATIENCE).unwrap();
        producer.abort_transaction(PATIENCE).unwrap();
    }
    let log = Arc::new(Log::default());
    let config = settings(broker, &["ends.*"]);
    let mut member = Member::open(&config, "ends", &log).await;
    member.catch_up().await;
    assert_eq!(member.count(), 200);
    let at = |log: &Log| log.progress().iter().map(|(_, s)| s.position.as_offset().unwrap()).collect::<Vec<_>>();
    assert_eq!(at(&log), [104, 106]);
    drop(member);

    // From just before the ends, where nothing is left but what was aborted; then back, and from there again.
    let short = Arc::new(Log::default());
    for (partition, mut standing) in log.progress().iter().map(|(p, s)| (p.clone(), s.clone())) {
        standing.position = dataflow::progress::Position::offset(100);
        short.set(partition, standing);
    }
    let from_100 = short.progress();
    let mut member = Member::open(&config, "ends", &short).await;
    member.catch_up().await;
    assert_eq!((member.count(), at(&short)), (0, vec![104, 106]));
    for (partition, standing) in from_100.iter() {
        short.set(
            partition.clone(),
            dataflow::progress::Standing { position: dataflow::progress::Position::offset(40), ..standing.clone() },
        );
    }
    member.kafka.rewind(&short.progress()).await.unwrap();
    member.catch_up().await;
    assert_eq!((member.count(), at(&short)), (120, vec![104, 106]));
}

#[tokio::test(flavor = "multi_thread")]
async fn holes_of_compaction_are_no_gaps() {
    let broker = broker();
    let policy = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "100"),
        ("min.cleanable.dirty.ratio", "0.001"),
        ("max.compaction.lag.ms", "100"),
    ];
    broker.create_topic("compacted", 1, &policy).await;
    for n in 0..20 {
        broker.produce("compacted", 0, &[("same", Some(&format!("{n}")))]);
    }
    let begun = Instant::now();
    let seen = loop {
        // Rolls the active segment, which is never compacted.
        tokio::time::sleep(Duration::from_millis(200)).await;
        broker.produce("compacted", 0, &[("other", Some("x"))]);
        let log = Arc::new(Log::default());
        let mut member = Member::open(&settings(broker, &["compacted"]), "compacted", &log).await;
        member.catch_up().await;
        let offsets: Vec<u64> = member.batches.iter().flat_map(|b| b.records.iter()).map(|r| r.offset()).collect();
        let end = log.progress().iter().next().unwrap().1.position.as_offset().unwrap();
        assert!(end >= 20);
        if (offsets.len() as u64) < end {
            break member.all();
        }
        assert!(begun.elapsed() < PATIENCE, "the broker does not compact");
    };
    assert!(seen.contains(&"same=19".to_owned()), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_offsets_halt_and_the_message_says_which() {
    let broker = broker();
    broker.create_topic("lost", 1, &[]).await;
    produce(broker, "lost", 0, 0..100);
    let log = Arc::new(Log::default());
    let mut member = Member::open(&settings(broker, &["lost"]), "lost", &log).await;
    member.catch_up().await;
    drop(member);
    produce(broker, "lost", 0, 100..200);
    broker.delete_records("lost", 0, 150).await;
    let error = Member::open(&settings(broker, &["lost"]), "lost", &log).await.fail().await;
    assert_eq!(*error.kind(), ErrorKind::PositionLost);
    let words = error.to_string();
    assert!(words.contains("topic lost, partition 0") && words.contains("offsets [100, 150)"), "{words}");
    assert!(words.contains("help:"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_member_gets_its_share_after_the_first_has_committed() {
    let broker = broker();
    broker.create_topic("share", 4, &[]).await;
    for partition in 0..4 {
        produce(broker, "share", partition, 0..50);
    }
    let log = Arc::new(Log::default());
    let config = settings(broker, &["share"]);
    let mut first = Member::open(&config, "share", &log).await;
    // Read, not committed yet.
    let mut held = Vec::new();
    while held.iter().map(|b: &RawBatch| b.records.len()).sum::<usize>() < 200 {
        if let Polled::Batch(batch) = first.next().await.unwrap() {
            held.push(batch);
        }
    }
    let mut second = Member::open(&config, "share", &log).await;
    let (revoked, done) = loop {
        if let Polled::Revoking { partitions, done } = first.next().await.unwrap() {
            break (partitions, done);
        }
    };
    assert_eq!(revoked.len(), 2, "half of the partitions go");
    for batch in held {
        first.take(batch);
    }
    done.send(()).unwrap();
    // Nothing is read twice: the second goes on where the first has committed.
    assert_eq!(second.catch_up().await.count(), 0);
    let given = second.batches.iter().map(|b| b.partition.clone()).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(given.into_iter().collect::<Vec<_>>(), revoked);
    for partition in 0..4 {
        produce(broker, "share", partition, 50..60);
    }
    second.read(20).await;
    first.read(220).await;
    // How far behind each is becomes known from the client's statistics.
    let begun = Instant::now();
    while second.kafka.lag().len() < 2 || second.kafka.lag().iter().any(|lag| lag.behind > 0) {
        assert!(begun.elapsed() < PATIENCE, "{:?}", second.kafka.lag());
        if let Ok(polled) = tokio::time::timeout(Duration::from_millis(100), second.kafka.next()).await
            && let Polled::Batch(batch) = polled.unwrap()
        {
            second.take(batch);
        }
    }
    // The first leaves; the second takes over all.
    drop(first);
    for partition in 0..4 {
        produce(broker, "share", partition, 60..70);
    }
    second.read(60).await;
    assert!(log.progress().iter().all(|(_, standing)| standing.position.0 == "70"), "{:?}", log.progress());
}

#[tokio::test(flavor = "multi_thread")]
async fn rewinding_hands_out_again_from_the_log() {
    let broker = broker();
    broker.create_topic("rewind", 2, &[]).await;
    let value = "x".repeat(10_000);
    let keys: Vec<_> = (0..800).map(|n| format!("k{n}")).collect();
    let records: Vec<_> = keys.iter().map(|key| (key.as_str(), Some(value.as_str()))).collect();
    broker.produce("rewind", 0, &records);
    broker.produce("rewind", 1, &records);
    let log = Arc::new(Log::default());
    let mut member = Member::open(&settings(broker, &["rewind"]), "rewind", &log).await;
    for _ in 0..4 {
        // One batch with records is committed, one is read and given up.
        for commit in [true, false] {
            let batch = loop {
                match member.next().await.unwrap() {
                    Polled::Batch(batch) if !batch.records.is_empty() => break batch,
                    _ => {}
                }
            };
            if commit {
                member.take(batch);
            }
        }
        member.kafka.rewind(&log.progress()).await.unwrap();
    }
    assert!(member.count() < 1600, "nothing is left to test");
    // Two in a row: only the last counts.
    member.kafka.rewind(&Progress::default()).await.unwrap();
    member.kafka.rewind(&log.progress()).await.unwrap();
    member.catch_up().await;
    for seen in member.seen.values() {
        assert_eq!(seen.iter().map(|r| r.split('=').next().unwrap()).collect::<Vec<_>>(), keys);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_bounded_and_all_of_it_comes() {
    let broker = broker();
    broker.create_topic("bounded", 1, &[]).await;
    let value = "x".repeat(100_000);
    let records: Vec<_> = (0..300).map(|_| ("k", Some(value.as_str()))).collect();
    broker.produce("bounded", 0, &records);
    let log = Arc::new(Log::default());
    let inflight = 4 << 20;
    let config = settings(broker, &["bounded"]);
    let mut kafka = Kafka::open("k", &config, "bounded", &[], inflight, log.clone()).await.unwrap();
    // Longer than polling rests, so that fetching is paused: the group must not throw us out meanwhile.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(kafka.waiting_bytes() > 0);
    let mut records = 0;
    let mut most = 0;
    while records < 300 {
        most = most.max(kafka.waiting_bytes());
        match tokio::time::timeout(PATIENCE, kafka.next()).await.expect("in time").unwrap() {
            Polled::Batch(batch) => records += batch.records.len(),
            Polled::CaughtUp => {}
            other => panic!("{other:?}"),
        }
    }
    // Half of it, and the batch that crosses the line.
    assert!(most <= inflight / 2 + (1 << 20) + 200_000, "{most} bytes wait");
    assert_eq!(records, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_is_said_at_once() {
    let broker = broker();
    let log = Arc::new(Log::default());
    let error = Member::try_open(&settings(broker, &["not.there"]), "refused", &log).await.err().unwrap();
    assert_eq!(*error.kind(), ErrorKind::SourceRefused);
    assert!(error.to_string().contains("topic not.there does not exist"), "{error}");

    let mut config = settings(broker, &["not.there"]);
    config.properties.insert("isolation.level".into(), "read_uncommitted".into());
    let error = Member::try_open(&config, "refused", &log).await.err().unwrap();
    assert_eq!(*error.kind(), ErrorKind::Config);

    config.properties.clear();
    config.brokers = "127.0.0.1:1".into();
    let error = Member::try_open(&config, "refused", &log).await.err().unwrap();
    assert_eq!(*error.kind(), ErrorKind::SourceUnavailable, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn broker_errors_that_pass_are_waited_for() {
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("shaky", 1, 1).unwrap();
    let producer: rdkafka::producer::BaseProducer =
        rdkafka::ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).create().unwrap();
    send(&producer, "shaky", 0, &[("a", Some("1"))]);
    producer.flush(PATIENCE).unwrap();
    let mut config = settings(broker(), &["shaky"]);
    config.brokers = cluster.bootstrap_servers();
    let log = Arc::new(Log::default());
    let mut member = Member::open(&config, "shaky", &log).await;
    member.read(1).await;
    // Fetches fail for a while, then the broker goes away and comes back.
    cluster.request_errors(RDKafkaApiKey::Fetch, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION; 5]);
    send(&producer, "shaky", 0, &[("b", Some("2"))]);
    producer.flush(PATIENCE).unwrap();
    member.read(2).await;
    cluster.broker_down(1).unwrap();
    assert!(
        tokio::time::timeout(Duration::from_secs(1), member.kafka.next()).await.map_or(true, |polled| polled.is_ok())
    );
    cluster.broker_up(1).unwrap();
    send(&producer, "shaky", 0, &[("c", Some("3"))]);
    producer.flush(PATIENCE).unwrap();
    assert_eq!(member.read(3).await.all(), ["a=1", "b=2", "c=3"]);
    // What we may not do is said, and ends it.
    cluster.request_errors(RDKafkaApiKey::Fetch, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED; 3]);
    send(&producer, "shaky", 0, &[("d", Some("4"))]);
    let error = member.fail().await;
    assert_eq!(*error.kind(), ErrorKind::SourceRefused, "{error}");
}

/// A token endpoint that grants a token without a signature, which the broker takes in its development mode.
async fn token_endpoint() -> String {
    use base64::Engine as _;
    let encode = |text: String| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    let grant = move || {
        let now = chrono::Utc::now().timestamp();
        let claims = format!(r#"{{"sub":"reader","iat":{now},"exp":{}}}"#, now + 600);
        let token = format!("{}.{}.", encode(r#"{"alg":"none"}"#.into()), encode(claims));
        format!(r#"{{"access_token":"{token}","token_type":"bearer","expires_in":600}}"#)
    };
    let router = axum::Router::new().route("/token", axum::routing::post(async move || grant()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn we_say_who_we_are_by_every_mechanism() {
    use dataflow::config::KafkaSasl;
    let broker = broker();
    broker.create_topic("private", 1, &[]).await;
    produce(broker, "private", 0, 0..3);
    let mut config = settings(broker, &["private"]);
    config.brokers = broker.sasl_address.clone();
    let (username, password) = ("reader".to_owned(), "secret".to_owned());
    let token_url = token_endpoint().await;
    let mechanisms = [
        KafkaSasl::Plain { username: username.clone(), password: password.clone() },
        KafkaSasl::ScramSha512 { username: username.clone(), password },
        KafkaSasl::OauthBearer { token_url, client_id: username.clone(), client_secret: "s".into(), scope: None },
    ];
    for (n, mechanism) in mechanisms.into_iter().enumerate() {
        config.sasl = Some(mechanism);
        let log = Arc::new(Log::default());
        let mut member = Member::open(&config, &format!("private{n}"), &log).await;
        assert_eq!(member.catch_up().await.all(), pairs(0..3), "{:?}", config.sasl);
    }
    config.sasl = Some(KafkaSasl::Plain { username, password: "wrong".into() });
    let error = Member::try_open(&config, "private", &Arc::new(Log::default())).await.err().unwrap();
    assert_eq!(*error.kind(), ErrorKind::SourceRefused, "{error}");
    assert!(error.to_string().contains("check `sasl:`") && !error.to_string().contains("wrong"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_come_and_go_read_everything_once() {
    const PARTITIONS: i32 = 6;
    const EACH: usize = 400;
    let broker = broker();
    broker.create_topic("storm", PARTITIONS, &[]).await;
    let value = "x".repeat(5_000);
    let records: Vec<_> = (0..EACH).map(|_| ("k", Some(value.as_str()))).collect();
    for partition in 0..PARTITIONS {
        broker.produce("storm", partition, &records);
    }
    let log = Arc::new(Log::default());
    let read = Arc::new(std::sync::Mutex::new(Vec::new()));
    let all = PARTITIONS as usize * EACH;
    let config = settings(broker, &["storm"]);
    let pods = (1..=3).map(|pod| {
        let (log, read, config) = (log.clone(), read.clone(), config.clone());
        tokio::spawn(async move {
            let mut lives = 0;
            while read.lock().unwrap().len() < all {
                lives += 1;
                let mut member = Member::open(&config, "storm", &log).await;
                // The first to finish its share leaves, and the others take over.
                let mut left = pod;
                while left > 0 && read.lock().unwrap().len() < all {
                    let Ok(polled) = tokio::time::timeout(Duration::from_millis(500), member.kafka.next()).await else {
                        continue;
                    };
                    match polled.unwrap() {
                        Polled::Batch(batch) => {
                            let offsets = batch.records.iter().map(|r| (batch.partition.clone(), r.offset()));
                            let mut read = read.lock().unwrap();
                            if log.try_commit(&batch).is_ok() {
                                read.extend(offsets);
                                left -= usize::from(!batch.records.is_empty());
                                continue;
                            }
                            drop(read);
                            member.kafka.rewind(&log.progress()).await.unwrap();
                        }
                        Polled::Revoking { done, .. } => done.send(()).unwrap(),
                        Polled::Lost(_) | Polled::CaughtUp => {}
                    }
                }
            }
            lives
        })
    });
    let lives = tokio::time::timeout(3 * PATIENCE, futures::future::join_all(pods)).await.expect("all is read in time");
    let lives: usize = lives.into_iter().map(Result::unwrap).sum();
    assert!(lives > 4, "members have to come and go");
    let read = read.lock().unwrap();
    let once: std::collections::BTreeSet<_> = read.iter().collect();
    assert_eq!((read.len(), once.len()), (all, all), "nothing twice, nothing left out");
}
