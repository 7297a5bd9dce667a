//! The topology: what people write. Every field is documented here, and `dataflow schema` prints these documents as JSON
//! Schema for editors. Unknown fields are refused.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::hidden;
use super::lake::{Catalog, Compact, Sse};
use super::layout::Distribution;
use super::mysql_source::MysqlSource;
use super::postgres_source::PostgresSource;
use super::redshift_warehouse::RedshiftWarehouse;
use super::units::{Bytes, Span};
use crate::epoch::DeleteMode;

/// One topology file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Topology {
    /// The version of the file format: 1.
    pub version: u32,
    /// The name; stands in metrics, in the ledger and in the Kafka group id.
    pub name: String,
    /// Where changes come from, by name.
    pub sources: BTreeMap<String, Source>,
    /// What becomes of them, by table name.
    pub tables: BTreeMap<String, Table>,
    /// Tables that become visible together, in one warehouse transaction. A table in no group is a group of its own; with
    /// Redshift such tables are packed, up to twenty in a group.
    #[serde(default)]
    pub groups: BTreeMap<String, Vec<String>>,
    /// How old a change may be when the warehouse shows it, e.g. `5m`: until then changes wait in the lake, and one load
    /// takes all of them. When absent, changes are loaded as soon as they are in the lake; into Redshift, within a minute.
    #[serde(default)]
    pub fresh_within: Option<Span>,
    /// Where Parquet files and the log are kept.
    pub lake: Lake,
    /// Where people look.
    pub warehouse: Warehouse,
    /// When an epoch is cut.
    #[serde(default)]
    pub epoch: Epoch,
    /// The status page and metrics.
    #[serde(default)]
    pub admin: Admin,
    /// Limits of the process.
    #[serde(default)]
    pub limits: Limits,
}

/// A source, chosen by `kind`.
#[allow(clippy::large_enum_variant, reason = "a topology has a handful of sources")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Source {
    /// Apache Kafka and what speaks its protocol.
    Kafka(KafkaSource),
    /// PostgreSQL, read by logical replication: a snapshot, then the stream.
    Postgres(PostgresSource),
    /// MySQL or MariaDB, read by the binary log: a snapshot, then the stream.
    Mysql(MysqlSource),
    /// JSON lines in files.
    File(FileSource),
}

/// How payloads are to be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Format {
    /// Debezium's JSON envelopes, with or without the schema block, or flattened by `ExtractNewRecordState`.
    #[default]
    #[serde(rename = "debezium-json")]
    DebeziumJson,
}

/// Choices of a Debezium decoder that the events themselves do not tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Debezium {
    /// The connector's `unavailable.value.placeholder`; a `hex:` prefix is understood.
    pub unavailable_value_placeholder: String,
    /// The prefix of the metadata fields of flattened events (`add.fields.prefix`).
    pub flattened_prefix: String,
    /// The column that flattened deletes are marked with (`__deleted` by default).
    pub flattened_deleted_field: String,
}

impl Default for Debezium {
    fn default() -> Self {
        Self {
            unavailable_value_placeholder: "__debezium_unavailable_value".into(),
            flattened_prefix: "__".into(),
            flattened_deleted_field: "__deleted".into(),
        }
    }
}

/// Where a partition without an entry in the log is read from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// The oldest record that the broker still has.
    #[default]
    Earliest,
    /// Only what comes from now on.
    Latest,
    /// The first record at or after this moment (RFC 3339).
    Timestamp(chrono::DateTime<chrono::Utc>),
}

/// Kafka.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaSource {
    /// `host:port`, comma separated.
    pub brokers: String,
    /// Topic names; `*` stands for any characters, and a leading `^` makes the entry a regular expression.
    pub topics: Vec<String>,
    /// How payloads are to be read.
    #[serde(default)]
    pub format: Format,
    /// Choices of the Debezium decoder.
    #[serde(default)]
    pub debezium: Debezium,
    /// The consumer group; `dataflow-<topology>-<source>` when absent.
    #[serde(default)]
    pub group: Option<String>,
    /// Where partitions without an entry in the log start: `earliest`, `latest` or `timestamp: …`.
    #[serde(default)]
    pub start: Start,
    /// TLS towards the brokers.
    #[serde(default)]
    pub tls: Option<KafkaTls>,
    /// Who we are.
    #[serde(default)]
    pub sasl: Option<KafkaSasl>,
    /// Any other librdkafka property. Those that exactly-once stands on (`enable.auto.commit`, `isolation.level`, …) are
    /// refused.
    #[serde(default, serialize_with = "hidden::properties")]
    pub properties: BTreeMap<String, String>,
}

/// TLS towards Kafka brokers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaTls {
    /// A file with the authority's certificates (PEM); the system's when absent.
    pub ca: Option<String>,
    /// Our certificate (PEM file).
    pub certificate: Option<String>,
    /// Our key (PEM file).
    pub key: Option<String>,
}

/// SASL towards Kafka brokers.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "mechanism", deny_unknown_fields)]
pub enum KafkaSasl {
    /// A name and a password, in clear text below TLS.
    #[serde(rename = "PLAIN")]
    Plain {
        username: String,
        #[serde(serialize_with = "hidden::text")]
        password: String,
    },
    /// Challenge and response with SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256 {
        username: String,
        #[serde(serialize_with = "hidden::text")]
        password: String,
    },
    /// Challenge and response with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512 {
        username: String,
        #[serde(serialize_with = "hidden::text")]
        password: String,
    },
    /// OAuth 2 client credentials.
    #[serde(rename = "OAUTHBEARER")]
    OauthBearer {
        /// The token endpoint.
        token_url: String,
        client_id: String,
        #[serde(serialize_with = "hidden::text")]
        client_secret: String,
        #[serde(default)]
        scope: Option<String>,
    },
    /// Amazon MSK with IAM: a signed token made from the AWS credentials of the environment.
    #[serde(rename = "AWS_MSK_IAM")]
    AwsMskIam { region: String },
}

/// JSON lines in files: plain, `.gz` or `.zst`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSource {
    /// A file, a folder (its `*.json`, `*.jsonl`, `*.ndjson`, each also with `.gz` or `.zst`), or a glob.
    pub path: String,
    /// How lines are to be read.
    #[serde(default)]
    pub format: Format,
    /// Choices of the Debezium decoder.
    #[serde(default)]
    pub debezium: Debezium,
    /// The stream's name for `from:`; when absent each event names its own (`<name>.<schema or db>.<table>`).
    #[serde(default)]
    pub stream: Option<String>,
    /// Keep reading what is appended, and pick up new files.
    #[serde(default)]
    pub follow: bool,
}

/// A table of the warehouse.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// The stream: a Kafka topic, `<topic prefix>.<schema or database>.<table>`, or a database's own `<schema or database>.<table>`.
    pub from: String,
    /// The source, when more than one could have the stream.
    #[serde(default)]
    pub source: Option<String>,
    /// The contract's file, relative to the topology; learned from the stream when absent.
    #[serde(default)]
    pub contract: Option<String>,
    /// The key, when the events do not tell it (or another than they tell). `[]` makes the table append-only.
    #[serde(default)]
    pub key: Option<Vec<String>>,
    /// What happens to every change, in order.
    #[serde(default)]
    pub operators: Vec<Operator>,
    /// What a delete at the source does: `hard`, `soft` or `history`.
    #[serde(default)]
    pub deletes: DeleteMode,
    /// How old its changes may be when the warehouse shows them: instead of the topology's `fresh_within`. The most
    /// urgent table of a group decides for all of them.
    #[serde(default)]
    pub fresh_within: Option<Span>,
    /// Redshift: which node has which row: `auto`, `even`, `all` or `key: column`. Given to a table that is made; one that
    /// is there is not changed, `dataflow plan` prints the statements.
    #[serde(default)]
    pub distribution: Distribution,
    /// Redshift: the columns that rows are sorted by; Redshift decides where none is named. A load reads only the blocks
    /// between the lowest and the highest value that it brings when the first of them is a part of the key.
    #[serde(default)]
    pub sort: Vec<String>,
    /// What happens to a row that the contract cannot take by widening (a type changed, a column gone), or that holds a value
    /// that the warehouse cannot hold.
    #[serde(default)]
    pub on_mismatch: OnMismatch,
    /// Columns that the source has dropped or renamed: rows without them are taken, with null, whatever `on_mismatch`
    /// says.
    #[serde(default)]
    pub gone: Vec<String>,
}

/// What happens when the stream leaves the contract.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnMismatch {
    /// The row goes to quarantine.
    #[default]
    Quarantine,
    /// The table stops; its changes wait.
    Park,
    /// The row goes on without the column's value: what does not fit is left out (it stays as it is in the warehouse), a
    /// column that is gone is null, and so is a value that the warehouse cannot hold.
    Ignore,
}

/// A stateless operator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    /// Rows that break the rule are refused.
    Validate(Validate),
    /// Column values are made unreadable.
    Mask(Mask),
    /// Columns get other names: `old: new`.
    Rename(BTreeMap<String, String>),
    /// Columns are left out.
    Drop(Vec<String>),
    /// Rows for which the condition does not hold are left out.
    Filter(Filter),
    /// Columns are added (or replaced) by SQL expressions: `name: expression`.
    Compute(BTreeMap<String, String>),
}

/// A rule on every row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Validate {
    /// The rule's name, in quarantine and metrics.
    pub name: String,
    /// An SQL condition. A row for which it is false or null breaks the rule.
    pub rule: String,
    /// What becomes of the row.
    #[serde(default)]
    pub otherwise: Otherwise,
}

/// What becomes of a row that breaks a rule. The refused version always goes to quarantine (but for `tag`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Otherwise {
    /// People go on seeing the last valid version.
    #[default]
    KeepLast,
    /// The row disappears until a valid version comes.
    Remove,
    /// The row passes, and the rule's name is added to its `tags` column.
    Tag,
    /// Everything stops.
    Halt,
}

/// Rows are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// The filter's name, in the account.
    pub name: String,
    /// An SQL condition: rows for which it is true stay.
    pub keep: String,
}

/// How values are made unreadable.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mask {
    /// Which columns.
    pub columns: Vec<String>,
    /// How.
    #[serde(rename = "with")]
    pub method: MaskMethod,
    /// `hmac`: the pseudonymisation domain. Equal values get equal pseudonyms inside a domain only.
    #[serde(default)]
    pub domain: Option<String>,
    /// `hmac`: the secret key, at least 32 bytes.
    #[serde(default, serialize_with = "hidden::optional")]
    pub key: Option<String>,
    /// `hmac`: the key's version; stands in front of the pseudonym, so that keys can be changed.
    #[serde(default)]
    pub key_version: Option<u32>,
    /// `redact`: what stands there instead.
    #[serde(default)]
    pub replacement: Option<String>,
    /// `partial`: how many characters stay at the start.
    #[serde(default)]
    pub keep_first: Option<u32>,
    /// `partial`: how many characters stay at the end.
    #[serde(default)]
    pub keep_last: Option<u32>,
    /// `truncate_date`: to `month` or `year`.
    #[serde(default)]
    pub to: Option<DatePart>,
}

/// How a mask works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MaskMethod {
    /// A keyed pseudonym (HMAC-SHA-256): joins still work inside the domain.
    Hmac,
    /// A fixed text.
    Redact,
    /// Some characters stay, the others become `*`.
    Partial,
    /// Nothing stays.
    Null,
    /// A date or time is cut to the first of its month or year.
    TruncateDate,
}

/// What a date is cut to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DatePart {
    Month,
    Year,
}

/// The lake.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lake {
    /// `s3://bucket/prefix`, or a folder.
    pub url: String,
    /// The bucket's region.
    #[serde(default)]
    pub region: Option<String>,
    /// Another endpoint than Amazon's, e.g. `http://127.0.0.1:9000`.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Access key. When absent: the environment's keys, the profile, a web identity, the container's or the instance's
    /// role, whatever is found first.
    #[serde(default, serialize_with = "hidden::optional")]
    pub access_key_id: Option<String>,
    /// Secret key.
    #[serde(default, serialize_with = "hidden::optional")]
    pub secret_access_key: Option<String>,
    /// A profile of `~/.aws/config` and `~/.aws/credentials`, instead of what the environment says.
    #[serde(default)]
    pub profile: Option<String>,
    /// How the store encrypts objects; as the bucket says when absent.
    #[serde(default)]
    pub sse: Option<Sse>,
    /// Whether payloads are kept as they were read. Must be said when a column is masked.
    #[serde(default)]
    pub raw: Option<Raw>,
    /// What the quarantine keeps of a refused record.
    #[serde(default)]
    pub quarantine: Quarantine,
    /// How Parquet files are compressed.
    #[serde(default)]
    pub compression: Compression,
    /// Whether the processes that load also write closed hours again as few, sorted files. `dataflow compact` does it at any
    /// time.
    #[serde(default)]
    pub compact: Option<Compact>,
    /// Where others find the tables of the lake.
    #[serde(default)]
    pub catalog: Option<Catalog>,
}

/// The raw zone.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    /// `none`, `plain` or `encrypted`.
    pub keep: RawKeep,
    /// How long files stay, e.g. `7d`.
    #[serde(default)]
    pub retention: Option<Span>,
    /// When files move from `raw/` to `archive/raw/`, e.g. `2d`: a folder for which the bucket can have another class of
    /// storage. They can be read there too, and their retention goes on.
    #[serde(default)]
    pub archive_after: Option<Span>,
    /// `encrypted`: 32 bytes as 64 hexadecimal digits.
    #[serde(default, serialize_with = "hidden::optional")]
    pub key: Option<String>,
}

/// How payloads are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RawKeep {
    None,
    Plain,
    Encrypted,
}

/// The quarantine zone.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Quarantine {
    /// 32 bytes as 64 hexadecimal digits: payloads are kept, encrypted with it, so that they can be retried. Without a
    /// key no payload is kept.
    #[serde(serialize_with = "hidden::optional")]
    pub key: Option<String>,
    /// How long files stay, e.g. `30d`.
    pub retention: Option<Span>,
}

/// Parquet compression.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// What every reader knows.
    #[default]
    Snappy,
    /// A third smaller, a quarter slower.
    Zstd,
}

/// The warehouse, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Warehouse {
    /// An embedded file that other programs can read while it is written.
    Sqlite(SqliteWarehouse),
    /// PostgreSQL 13 or newer.
    Postgres(PostgresWarehouse),
    /// Amazon Redshift.
    Redshift(RedshiftWarehouse),
}

impl Warehouse {
    /// Whether JSON is kept as documents: their text is then the warehouse's own.
    pub fn keeps_documents(&self) -> bool {
        matches!(self, Self::Redshift(_))
    }

    /// Which values it can hold; `None`: every one that a contract's type can say.
    pub fn limits(&self) -> Option<&'static crate::contract::Limits> {
        match self {
            Self::Sqlite(_) | Self::Postgres(_) => None,
            Self::Redshift(_) => Some(&crate::contract::Limits::REDSHIFT),
        }
    }

    /// Makes no views: for what fills a second warehouse, beside the one that people look at. `run` shows it to them.
    pub fn show_nothing(&mut self) {
        if let Self::Redshift(redshift) = self {
            redshift.views.clear();
        }
    }

    /// Whether an idle warehouse costs nothing, and every question wakes it up.
    pub fn sleeps_when_idle(&self) -> bool {
        matches!(self, Self::Redshift(_))
    }
}

/// SQLite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SqliteWarehouse {
    /// The database file.
    pub path: String,
}

/// PostgreSQL.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresWarehouse {
    /// `postgres://user:password@host:port/database`; `sslmode=verify-full` unless the URL says otherwise.
    #[serde(serialize_with = "hidden::url")]
    pub url: String,
    /// The schema of the tables; made when it is missing.
    #[serde(default = "public")]
    pub schema: String,
}

fn public() -> String {
    "public".into()
}

/// When an epoch is cut: whichever comes first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Epoch {
    /// The longest time that records wait, e.g. `60s`.
    pub every: Span,
    /// The most payload bytes in one epoch, e.g. `256MiB`.
    pub max_bytes: Bytes,
}

impl Default for Epoch {
    fn default() -> Self {
        Self { every: Span::seconds(60), max_bytes: Bytes(256 << 20) }
    }
}

/// The admin server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Where it listens; port 0 takes a free one.
    pub listen: String,
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: "127.0.0.1:9464".into() }
    }
}

/// Limits of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Payload bytes read from sources and not yet in an epoch; fetching pauses above.
    pub inflight_bytes: Bytes,
    /// The most row bytes (in memory) that one warehouse transaction folds; a larger backlog becomes several.
    pub unit_bytes: Bytes,
    /// How long a shutdown may take before it stops without sealing.
    pub grace: Span,
}

impl Default for Limits {
    fn default() -> Self {
        Self { inflight_bytes: Bytes(32 << 20), unit_bytes: Bytes(96 << 20), grace: Span::seconds(25) }
    }
}
