//! A shop's events, a lake and a warehouse of one test, the process between them, and the judge.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use loadtest::{Event, Expected, Options, Shop};
use object_store::ObjectStore;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tempfile::TempDir;

use crate::support::kafka::{Broker, broker};
use crate::support::oracle::{LogReader, Oracle};
use crate::support::process::{Launch, available};
use crate::support::s3::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY};

/// How long a run may take to its end.
pub const RUN_LIMIT: Duration = Duration::from_secs(90);

/// The events of a shop and what they must lead to.
pub struct Stock {
    pub events: Vec<Event>,
    pub expected: Expected,
}

impl Stock {
    /// `generated` row events and what belongs to them.
    pub fn make(seed: u64, options: Options, generated: u64) -> Self {
        let mut shop = Shop::new(seed, options);
        let mut events = Vec::new();
        while shop.generated() < generated {
            events.push(shop.next_event());
        }
        events.extend(shop.drain());
        Self { expected: shop.expected(), events }
    }

    /// The events that a file can hold: tombstones have no line.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.events.iter().filter_map(|event| event.value.as_deref())
    }

    /// Writes the lines into `folder` as `files` files that follow each other by name.
    pub fn write_files(&self, folder: &Path, files: usize) {
        std::fs::create_dir_all(folder).unwrap();
        let lines: Vec<&[u8]> = self.lines().collect();
        for (number, chunk) in lines.chunks(lines.len().div_ceil(files)).enumerate() {
            let mut text = chunk.join(&b'\n');
            text.push(b'\n');
            std::fs::write(folder.join(format!("{number:04}.jsonl")), text).unwrap();
        }
    }
}

/// What the shop does in most tests here: everything that files can carry.
pub fn busy_shop(generated: u64) -> Options {
    Options {
        schema_block: true,
        bad_rows: 0.02,
        add_column_after: Some(generated / 2),
        moves: true,
        toast: true,
        ..Options::default()
    }
}

/// The tables of the shop as a topology says them.
pub const TABLES: &str = r#"
tables:
  orders:
    from: shop.public.orders
    key: [id]
    operators: [{ validate: { name: positive_amount, rule: "amount >= 0" } }]
  order_lines: { from: shop.public.order_lines, key: [order_id, line_no] }
  customers: { from: shop.public.customers, key: [id] }
  products: { from: shop.public.products, key: [id] }
  page_views: { from: shop.public.page_views, key: [] }
groups: { sales: [orders, order_lines] }
"#;

/// The same tables, read from topics with another prefix, so that tests share one broker.
pub fn tables_from(prefix: &str) -> String {
    TABLES.replace("shop.public.", &format!("{prefix}."))
}

/// Kafka, S3 and PostgreSQL, shared by the worlds of one test.
pub struct Servers {
    pub broker: &'static Broker,
    pub s3: S3Server,
    /// A database's URL.
    pub database: String,
    /// What the topics' names begin with.
    pub prefix: String,
}

/// The tables whose topic always has one partition.
pub const ONE_PARTITION: [&str; 2] = ["page_views", "orders"];

/// How many partitions the keyed topics of a test have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partitions {
    One,
    /// Topics have two, but for `page_views` (what is delivered again must come where it was) and `orders` (see
    /// `redelivery::a_column_that_one_partition_shows_before_the_other`).
    Two,
}

impl Servers {
    /// Starts what is missing and makes the shop's topics; `None` (and a loud skip) when a component is not installed.
    pub async fn start(prefix: &str, partitions: Partitions) -> Option<Self> {
        if !available("kafka") || !available("postgres") {
            return None;
        }
        let broker = tokio::task::spawn_blocking(broker).await.unwrap();
        let servers = Self {
            broker,
            s3: S3Server::start().await,
            database: crate::support::postgres::server().database().await + "?sslmode=disable",
            prefix: prefix.to_owned(),
        };
        for table in loadtest::TABLE_NAMES {
            let count = if partitions == Partitions::One || ONE_PARTITION.contains(&table) { 1 } else { 2 };
            servers.broker.create_topic(&format!("{prefix}.{table}"), count, &[]).await;
        }
        Some(servers)
    }

    /// Writes events into the topics, in order, and waits until they are there.
    pub fn produce(&self, events: &[Event]) {
        let producer: BaseProducer = rdkafka::ClientConfig::new()
            .set("bootstrap.servers", &self.broker.address)
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .set("partitioner", "murmur2_random")
            .create()
            .unwrap();
        for event in events {
            let topic = event.topic.replace("shop.public", &self.prefix);
            let headers = event.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header { key, value: Some(value.as_slice()) })
            });
            let mut record: BaseRecord<'_, Vec<u8>, Vec<u8>> = BaseRecord::to(&topic).headers(headers);
            record.key = event.key.as_ref();
            record.payload = event.value.as_ref();
            while let Err((error, back)) = producer.send(record) {
                assert_eq!(error.rdkafka_error_code(), Some(rdkafka::error::RDKafkaErrorCode::QueueFull), "{error}");
                producer.poll(Duration::from_millis(10));
                record = back;
            }
        }
        producer.flush(Duration::from_secs(30)).unwrap();
    }

    /// The topology `name`, whose consumer group, lake and schema are its own. `more` goes into the Kafka source.
    pub fn topology(&self, name: &str, more: &str) -> String {
        self.topology_with(name, more, &self.database, EPOCHS)
    }

    /// The same with another way to the database and other settings.
    pub fn topology_with(&self, name: &str, more: &str, database: &str, settings: &str) -> String {
        format!(
            "version: 1\nname: {name}\nsources:\n  shop:\n    kind: kafka\n    brokers: \"{brokers}\"\n    \
             topics: [\"{prefix}.*\"]\n    properties: {{ session.timeout.ms: \"6000\", heartbeat.interval.ms: \"500\"{more} }}\n\
             {tables}\nlake: {{ url: \"s3://{BUCKET}/{name}\", region: eu-west-3, endpoint: \"{endpoint}\", \
             access_key_id: {ACCESS_KEY}, secret_access_key: {SECRET_KEY}, raw: {{ keep: plain }}, \
             quarantine: {{ key: \"{key}\", retention: 30d }} }}\n\
             warehouse: {{ kind: postgres, url: \"{database}\", schema: {name} }}\n{settings}",
            brokers = self.broker.address,
            prefix = self.prefix,
            tables = tables_from(&self.prefix),
            endpoint = self.s3.endpoint,
            key = "5a".repeat(32),
        )
    }

    /// How many records the broker holds.
    pub fn held(&self) -> u64 {
        let partitions = loadtest::TABLE_NAMES.iter().flat_map(|table| [(table, 0), (table, 1)]);
        let there = partitions.filter(|(table, number)| *number == 0 || !ONE_PARTITION.contains(table));
        there.map(|(table, n)| self.broker.watermarks(&format!("{}.{table}", self.prefix), n).1 as u64).sum()
    }

    /// The partitions whose end the log has not reached: what is missing of them was not lost, but never read.
    pub fn unread(&self, log: &LogReader) -> Vec<String> {
        let spans = log.manifests.iter().flat_map(|manifest| &manifest.spans);
        let ends: BTreeMap<&str, &str> = spans.map(|a| (&*a.partition.name, a.span.to.0.as_str())).collect();
        let behind = |(name, to): (&str, &str)| {
            let (topic, rest) = name.split_once('#')?;
            let end = self.broker.watermarks(topic, rest.rsplit_once('/')?.1.parse().ok()?).1;
            (to != end.to_string()).then(|| format!("{name} was read up to {to}, its end is {end}"))
        };
        ends.into_iter().filter_map(behind).collect()
    }

    /// A world of its own on the shared servers. A static member need not wait for the one that was killed.
    pub fn world(&self, name: &str) -> World {
        self.world_of(name, &self.topology(name, ", group.instance.id: one"))
    }

    /// The same of any topology.
    pub fn world_of(&self, name: &str, topology: &str) -> World {
        let folder = tempfile::tempdir().unwrap();
        World {
            launch: Launch::new(folder.path(), topology),
            oracle: Oracle::postgres(self.database.clone(), name),
            lake: LakeStore::folder(&self.s3.folder().join(name)),
            folder,
        }
    }
}

/// A lake as the judge reads it.
#[derive(Clone)]
pub struct LakeStore {
    pub store: Arc<dyn ObjectStore>,
    pub prefix: String,
}

impl LakeStore {
    /// A folder.
    pub fn folder(path: &Path) -> Self {
        std::fs::create_dir_all(path).unwrap();
        let store = object_store::local::LocalFileSystem::new_with_prefix(path).unwrap();
        Self { store: Arc::new(store), prefix: String::new() }
    }

    /// How many manifests there are.
    pub async fn manifests(&self) -> usize {
        let folder = object_store::path::Path::from(format!("{}/_log", self.prefix).trim_start_matches('/'));
        let found = self.store.list_with_delimiter(Some(&folder)).await.unwrap();
        let numbered = |name: &str| name.strip_suffix(".json").is_some_and(|n| n.parse::<u64>().is_ok());
        found.objects.iter().filter(|object| object.location.filename().is_some_and(numbered)).count()
    }

    /// All manifests so far.
    pub async fn log(&self) -> LogReader {
        LogReader::read(&*self.store, &self.prefix).await
    }
}

/// One test's world.
pub struct World {
    pub launch: Launch,
    pub oracle: Oracle,
    pub lake: LakeStore,
    pub folder: TempDir,
}

/// The epochs of the tests: short, and small enough that a few thousand events make a dozen.
pub const EPOCHS: &str = "epoch: { every: 250ms, max_bytes: 128KiB }\n";

impl World {
    /// Files → a folder → SQLite.
    pub fn embedded() -> Self {
        Self::embedded_with(TABLES, EPOCHS, "false")
    }

    /// The same with other tables, other epochs, and perhaps files that are followed.
    pub fn embedded_with(tables: &str, more: &str, follow: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let topology = format!(
            "version: 1\nname: once\nsources: {{ shop: {{ kind: file, path: events, follow: {follow} }} }}\n{tables}\n\
             lake: {{ url: lake, raw: {{ keep: plain }}, quarantine: {{ key: \"{key}\", retention: 30d }} }}\n\
             warehouse: {{ kind: sqlite, path: warehouse.db }}\n{more}",
            key = "5a".repeat(32),
        );
        Self {
            launch: Launch::new(folder.path(), &topology),
            oracle: Oracle::sqlite(folder.path().join("warehouse.db")),
            lake: LakeStore::folder(&folder.path().join("lake")),
            folder,
        }
    }

    /// Where the events of a file source are.
    pub fn events(&self) -> PathBuf {
        self.folder.path().join("events")
    }

    /// Everything that differs from what must be, in the warehouse and in the lake.
    pub async fn judge(&self, expected: &Expected, records: u64) -> Vec<String> {
        let mut found = self.oracle.differences(expected).await;
        let log = self.lake.log().await;
        found.extend(log.broken_rules());
        found.extend(log.broken_files(&*self.lake.store, &self.lake.prefix).await);
        let counts = [
            ("records read", log.records_read(), records),
            ("payloads in the raw zone", log.raw_rows(), records),
            ("refused", log.refused(), expected.bad),
            ("quarantined", log.quarantined(), expected.bad),
        ];
        found.extend(
            counts.iter().filter(|(_, is, must)| is != must).map(|(what, is, must)| format!("{is} {what}, not {must}")),
        );
        match self.oracle.load_accounts().await {
            Ok(accounts) => found.extend(unbalanced(&log, &accounts)),
            Err(error) => found.push(error.to_string()),
        }
        found
    }
}

/// What the warehouse was given is what the lake holds, and all of it became something.
fn unbalanced(log: &LogReader, accounts: &std::collections::BTreeMap<String, [u64; 4]>) -> Vec<String> {
    let mut found = Vec::new();
    for (table, written) in log.written().into_iter().filter(|(_, written)| *written > 0) {
        let [loaded, applied, superseded, incomplete] = accounts.get(&table).copied().unwrap_or_default();
        if loaded != written {
            found.push(format!("{table}: {written} rows in the lake, {loaded} loaded"));
        }
        if loaded != applied + superseded + incomplete {
            found.push(format!("{table}: {loaded} loaded is not {applied} + {superseded} + {incomplete}"));
        }
    }
    found
}
