//! A real Apache Kafka broker (KRaft, one node), shared by all tests of the process.

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::process::free_port;

// These end a hang; machines are shared.
const START: Duration = Duration::from_secs(180);
const ANSWER: Duration = Duration::from_secs(120);

/// A running broker. A shell watches over it: it ends when this process ends, however that comes about.
pub struct Broker {
    process: Mutex<Child>,
    /// The process after a restart.
    again: Option<Child>,
    dir: tempfile::TempDir,
    /// `host:port`.
    pub address: String,
    /// `host:port` where one must say who one is: `reader` with the password `secret`, by PLAIN, SCRAM-SHA-512 or
    /// OAUTHBEARER (tokens without a signature).
    pub sasl_address: String,
    /// From the start of the process to its first answer.
    pub started_in: Duration,
}

/// The broker that all tests of this process share; each takes topics of its own.
pub fn broker() -> &'static Broker {
    static SHARED: OnceLock<Broker> = OnceLock::new();
    SHARED.get_or_init(Broker::start)
}

fn jars() -> PathBuf {
    let jars = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/kafka/lib");
    assert!(jars.is_dir(), "Apache Kafka is not installed in {}: run `make deps`", jars.display());
    jars.join("*")
}

impl Broker {
    /// A broker of one's own, for tests that stop it.
    pub fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("kafka-").tempdir().unwrap();
        let (port, sasl, controller) = (free_port(), free_port(), free_port());
        let (address, sasl_address) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{sasl}"));
        let settings = dir.path().join("server.properties");
        fs::write(&settings, server_properties(dir.path(), port, sasl, controller)).unwrap();
        fs::write(dir.path().join("log4j2.properties"), LOG4J).unwrap();
        format_storage(dir.path(), &settings);
        let begun = Instant::now();
        let process = Command::new("sh")
            .args(["-c", WATCH, "watch"])
            .arg(dir.path())
            .args(java_arguments(dir.path()))
            .arg("kafka.Kafka")
            .arg(&settings)
            .stdin(Stdio::piped())
            .stdout(fs::File::create(dir.path().join("out")).unwrap())
            .stderr(fs::File::create(dir.path().join("err")).unwrap())
            .spawn()
            .expect("java 17 or newer is installed");
        let mut broker =
            Self { process: Mutex::new(process), again: None, dir, address, sasl_address, started_in: Duration::ZERO };
        broker.wait_until_it_answers(begun);
        broker.started_in = begun.elapsed();
        eprintln!("kafka: {} ready in {:?}, {:?} KiB", broker.address, broker.started_in, broker.resident_kib());
        broker
    }

    /// Dies, and comes back where it was with what it holds: each of its partitions has a leader of a later epoch.
    pub fn restart(&mut self) {
        let pid = self.pid().unwrap().to_string();
        assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
        let log = |name| fs::OpenOptions::new().append(true).open(self.dir.path().join(name)).unwrap();
        let process = Command::new("sh")
            .args(["-c", WATCH_AGAIN, "watch"])
            .arg(self.dir.path())
            .args(java_arguments(self.dir.path()))
            .arg("kafka.Kafka")
            .arg(self.dir.path().join("server.properties"))
            .stdin(Stdio::piped())
            .stdout(log("out"))
            .stderr(log("err"))
            .spawn()
            .unwrap();
        assert!(self.again.replace(process).is_none(), "it is restarted once");
        self.wait_until_it_answers(Instant::now());
    }

    fn wait_until_it_answers(&self, begun: Instant) {
        loop {
            let ended = self.pid().is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
            if ended || begun.elapsed() > START {
                let mut text = String::new();
                for name in ["out", "err"] {
                    fs::File::open(self.dir.path().join(name)).unwrap().read_to_string(&mut text).unwrap();
                }
                panic!("the broker did not start:\n{text}");
            }
            if TcpStream::connect(&self.address).is_ok() {
                break;
            }
            // Between two attempts to connect, which is the signal.
            std::thread::sleep(Duration::from_millis(20));
        }
        self.consumer().fetch_metadata(None, START).expect("the broker answers");
    }

    fn pid(&self) -> Option<u32> {
        fs::read_to_string(self.dir.path().join("pid")).ok()?.trim().parse().ok()
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.address);
        config
    }

    fn consumer(&self) -> BaseConsumer {
        self.client().create().unwrap()
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().unwrap()
    }

    /// Makes a topic with these settings (`("cleanup.policy", "compact")`).
    pub async fn create_topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let topic =
            settings.iter().fold(NewTopic::new(name, partitions, TopicReplication::Fixed(1)), |topic, (key, value)| {
                topic.set(key, value)
            });
        let made = self.admin().create_topics([&topic], &options()).await.unwrap();
        assert!(made.iter().all(Result::is_ok), "{made:?}");
        self.until(name, |count| count == partitions as usize);
    }

    /// Makes topics of one partition, all at once.
    pub async fn create_topics(&self, names: &[String]) {
        let topics: Vec<_> = names.iter().map(|name| NewTopic::new(name, 1, TopicReplication::Fixed(1))).collect();
        let made = self.admin().create_topics(&topics, &options()).await.unwrap();
        assert!(made.iter().all(Result::is_ok), "{made:?}");
        let consumer = self.consumer();
        let begun = Instant::now();
        loop {
            let metadata = consumer.fetch_metadata(None, ANSWER).unwrap();
            let ready = |topic: &&rdkafka::metadata::MetadataTopic| {
                topic.partitions().len() == 1 && topic.partitions().iter().all(|p| p.leader() >= 0)
            };
            let there: Vec<&str> = metadata.topics().iter().filter(ready).map(|topic| topic.name()).collect();
            if names.iter().all(|name| there.contains(&name.as_str())) {
                return;
            }
            assert!(begun.elapsed() < ANSWER, "{names:?} are not all there");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Deletes a topic and waits until it is gone.
    pub async fn delete_topic(&self, name: &str) {
        let gone = self.admin().delete_topics(&[name], &options()).await.unwrap();
        assert!(gone.iter().all(Result::is_ok), "{gone:?}");
        self.until(name, |count| count == 0);
    }

    /// Gives a topic more partitions.
    pub async fn add_partitions(&self, name: &str, total: usize) {
        let made = self.admin().create_partitions([&NewPartitions::new(name, total)], &options()).await.unwrap();
        assert!(made.iter().all(Result::is_ok), "{made:?}");
        self.until(name, |count| count == total);
    }

    /// Deletes the records of a partition before an offset, as retention does.
    pub async fn delete_records(&self, topic: &str, partition: i32, before: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(before)).unwrap();
        let deleted = self.admin().delete_records(&list, &options()).await.unwrap();
        assert!(deleted.elements().iter().all(|e| e.error().is_ok()), "{deleted:?}");
    }

    /// The first and the next offset of a partition.
    pub fn watermarks(&self, topic: &str, partition: i32) -> (i64, i64) {
        self.consumer().fetch_watermarks(topic, partition, ANSWER).unwrap()
    }

    /// What the group has committed to the broker.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        let consumer: BaseConsumer = self.client().set("group.id", group).create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, partition);
        let list = consumer.committed_offsets(list, ANSWER).unwrap();
        list.find_partition(topic, partition)?.offset().to_raw().filter(|offset| *offset >= 0)
    }

    fn until(&self, topic: &str, right: impl Fn(usize) -> bool) {
        let consumer = self.consumer();
        let begun = Instant::now();
        loop {
            let metadata = consumer.fetch_metadata(None, ANSWER).unwrap();
            let found = metadata.topics().iter().find(|t| t.name() == topic);
            let ready = found.is_none_or(|t| t.partitions().iter().all(|p| p.leader() >= 0));
            if ready && right(found.map_or(0, |t| t.partitions().len())) {
                return;
            }
            assert!(begun.elapsed() < ANSWER, "{topic} did not become what it should");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A producer that keeps order.
    pub fn producer(&self) -> BaseProducer {
        self.client().set("linger.ms", "5").set("enable.idempotence", "true").create().unwrap()
    }

    /// A producer for transactions.
    pub fn transactional(&self, id: &str) -> BaseProducer {
        let producer: BaseProducer = self.client().set("transactional.id", id).set("linger.ms", "0").create().unwrap();
        producer.init_transactions(ANSWER).unwrap();
        producer
    }

    /// Writes `(key, value)` records into one partition and waits until they are there.
    pub fn produce(&self, topic: &str, partition: i32, records: &[(&str, Option<&str>)]) {
        let producer = self.producer();
        send(&producer, topic, partition, records);
        producer.flush(ANSWER).unwrap();
    }

    /// Resident memory of the broker in KiB.
    pub fn resident_kib(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()?)).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }
}

/// Queues records with a header `n` that counts them.
pub fn send(producer: &BaseProducer, topic: &str, partition: i32, records: &[(&str, Option<&str>)]) {
    for (n, (key, value)) in records.iter().enumerate() {
        let n = n.to_string();
        loop {
            let headers = OwnedHeaders::new().insert(Header { key: "n", value: Some(&n) });
            let record = BaseRecord::to(topic).partition(partition).key(*key).headers(headers);
            let record = match value {
                Some(value) => record.payload(*value),
                None => record,
            };
            match producer.send(record) {
                Ok(()) => break,
                Err((error, _)) if error.rdkafka_error_code() == Some(rdkafka::error::RDKafkaErrorCode::QueueFull) => {
                    producer.poll(Duration::from_millis(10));
                }
                Err((error, _)) => panic!("{error}"),
            }
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(process) = &mut self.again {
            drop(process.stdin.take());
            let _status = process.wait();
        }
        if let Ok(process) = self.process.get_mut() {
            drop(process.stdin.take());
            let _status = process.wait();
        }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(ANSWER))
}

/// Runs java in the folder `$1` until standard input ends, then removes the folder.
const WATCH: &str =
    r#"dir=$1; shift; cd "$dir"; java "$@" & echo $! > pid; cat > /dev/null; kill -9 $!; wait $!; rm -rf "$dir""#;

/// The same for one that comes back; the folder is the first one's.
const WATCH_AGAIN: &str = r#"cd "$1"; shift; java "$@" & echo $! > pid; cat > /dev/null; kill -9 $!; wait $!"#;

fn java_arguments(dir: &Path) -> Vec<String> {
    let mut arguments = ["-Xmx384m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]
        .map(str::to_owned)
        .to_vec();
    arguments.push(format!("-Dlog4j2.configurationFile={}", dir.join("log4j2.properties").display()));
    arguments.extend(["-cp".to_owned(), jars().display().to_string()]);
    arguments
}

fn format_storage(dir: &Path, settings: &Path) {
    let output = Command::new("java")
        .args(java_arguments(dir))
        .args(["kafka.tools.StorageTool", "format", "--standalone", "-t", "dGVzdC1jbHVzdGVyLWlkMA"])
        .args(["--add-scram", "SCRAM-SHA-512=[name=reader,password=secret]", "-c"])
        .arg(settings)
        .output()
        .expect("java 17 or newer is installed");
    assert!(output.status.success(), "{output:?}");
}

const SECURITY: &str = "org.apache.kafka.common.security";

const LOG4J: &str = "rootLogger.level=WARN
rootLogger.appenderRef.out.ref=OUT
appender.out.type=Console
appender.out.name=OUT
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d %p %c %m%n
";

fn server_properties(dir: &Path, port: u16, sasl: u16, controller: u16) -> String {
    format!(
        "process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},SASL://127.0.0.1:{sasl},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},SASL://127.0.0.1:{sasl}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512,OAUTHBEARER
listener.name.sasl.plain.sasl.jaas.config={SECURITY}.plain.PlainLoginModule required user_reader=\"secret\";
listener.name.sasl.scram-sha-512.sasl.jaas.config={SECURITY}.scram.ScramLoginModule required;
listener.name.sasl.oauthbearer.sasl.jaas.config={SECURITY}.oauthbearer.OAuthBearerLoginModule required;
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
log.dirs={}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
auto.create.topics.enable=false
log.cleaner.backoff.ms=100
log.cleaner.dedupe.buffer.size=4194304
file.delete.delay.ms=100
",
        dir.join("data").display()
    )
}
