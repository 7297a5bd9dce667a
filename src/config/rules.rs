//! What the schema cannot say: names, references between sections, streams and sources, masks and the raw zone.

use std::collections::{BTreeMap, BTreeSet};

use super::document::At;
use super::freshness;
use super::layout;
use super::mistake::{Mistake, suggest};
use super::mysql_source::MysqlSource;
use super::postgres_source::PostgresSource;
use super::redshift_warehouse;
use super::sheet::{Place, Sheet};
use super::streams;
use super::topology::*;
use super::units::Span;

/// As much of a topology as is sound by itself; `None` where a section has mistakes of its own.
pub(super) struct Draft {
    pub version: Option<u32>,
    pub name: Option<String>,
    pub sources: BTreeMap<String, Option<Source>>,
    pub tables: BTreeMap<String, Option<Table>>,
    /// The operators of each table, one by one.
    pub operators: BTreeMap<String, Vec<Option<Operator>>>,
    pub groups: BTreeMap<String, Option<Vec<String>>>,
    pub fresh_within: Option<Span>,
    pub lake: Option<Lake>,
    pub warehouse: Option<Warehouse>,
    pub epoch: Option<Epoch>,
    pub admin: Option<Admin>,
    pub limits: Option<Limits>,
}

/// Collects mistakes of one file.
pub(super) struct Findings<'a> {
    pub sheet: &'a Sheet,
    pub list: Vec<Mistake>,
}

impl<'a> Findings<'a> {
    pub fn new(sheet: &'a Sheet) -> Self {
        Self { sheet, list: Vec::new() }
    }

    /// At the value of `path`, or at the key of what it should stand in.
    pub fn value(&mut self, path: &str, message: impl Into<String>, help: impl Into<String>) {
        let at = match self.sheet.exact(path) {
            Some(Place { value, .. }) => value,
            None => self.sheet.place(path).key,
        };
        self.at(at, path, message, help);
    }

    /// At the key of `path`.
    pub fn key(&mut self, path: &str, message: impl Into<String>, help: impl Into<String>) {
        self.at(self.sheet.place(path).key, path, message, help);
    }

    fn at(&mut self, at: At, path: &str, message: impl Into<String>, help: impl Into<String>) {
        self.list.push(self.sheet.mistake(at, path, message, Some(help.into()).filter(|h| !h.is_empty())));
    }
}

/// Everything that is wrong between and inside the sections.
pub(super) fn check(draft: &Draft, found: &mut Findings<'_>) {
    head(draft, found);
    for (name, source) in &draft.sources {
        let path = format!("sources.{name}");
        name_rule(found, &path, name, "source", true);
        match source {
            Some(Source::Kafka(kafka)) => kafka_source(found, &path, kafka),
            Some(Source::Postgres(postgres)) => postgres_source(found, &path, postgres),
            Some(Source::Mysql(mysql)) => mysql_source(found, &path, mysql),
            Some(Source::File(file)) => file_source(found, &path, file),
            None => {}
        }
    }
    for (name, table) in &draft.tables {
        let path = format!("tables.{name}");
        name_rule(found, &path, name, "table", false);
        if let Some(table) = table {
            streams::check(found, &path, table, &draft.sources);
            table_key(found, &path, table);
            gone_columns(found, &path, table);
        }
    }
    for (name, list) in &draft.operators {
        operators(found, &format!("tables.{name}"), list);
    }
    groups(draft, found);
    freshness::check(draft, found);
    layout::check(draft, found);
    if let Some(lake) = &draft.lake {
        lake_url(found, lake);
        raw_zone(draft, lake, found);
        quarantine(found, lake);
    }
    warehouse(draft, found);
    limits(draft, found);
}

fn head(draft: &Draft, found: &mut Findings<'_>) {
    if let Some(version) = draft.version.filter(|version| *version != 1) {
        found.value("version", format!("version {version} is not known"), "this program reads version 1");
    }
    if let Some(name) = &draft.name {
        if name.is_empty() {
            found.value("name", "the name is empty", "it stands in metrics, in the ledger and in the Kafka group id");
        } else if !fits(name, true) {
            found.value("name", format!("`{name}` cannot be a name"), name_help(true));
        }
    }
    if draft.sources.is_empty() && found.sheet.exact("sources").is_some() {
        found.key("sources", "there is no source", "name at least one, e.g. `shop: { kind: file, path: events/ }`");
    }
    if draft.tables.is_empty() && found.sheet.exact("tables").is_some() {
        found.key("tables", "there is no table", "name at least one, e.g. `orders: { from: shop.public.orders }`");
    }
}

/// Bytes that every warehouse accepts in a name.
pub(super) const MAX_NAME_BYTES: usize = 63;

fn fits(name: &str, dash: bool) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || (dash && c == '-');
    name.len() <= MAX_NAME_BYTES && name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(inner)
}

fn name_help(dash: bool) -> String {
    let dash = if dash { ", `-`" } else { "" };
    format!("a letter a-z, then a-z, 0-9, `_`{dash}; at most {MAX_NAME_BYTES} characters")
}

fn name_rule(found: &mut Findings<'_>, path: &str, name: &str, what: &str, dash: bool) {
    if !fits(name, dash) {
        found.key(path, format!("`{name}` cannot be the name of a {what}"), name_help(dash));
    }
}

/// Properties that exactly-once stands on, or that have a field of their own.
const REFUSED_PROPERTIES: [(&str, &str); 17] = [
    ("auto.commit.enable", "positions come from the lake log"),
    ("auto.commit.interval.ms", "positions come from the lake log"),
    ("auto.offset.reset", "write `start:`"),
    ("bootstrap.servers", "write `brokers:`"),
    ("enable.auto.commit", "positions come from the lake log"),
    ("enable.auto.offset.store", "positions come from the lake log"),
    ("enable.partition.eof", "the source needs it as it is"),
    ("group.id", "write `group:`"),
    ("group.protocol", "the cooperative-sticky protocol is part of how epochs are sealed"),
    ("group.remote.assignor", "the cooperative-sticky protocol is part of how epochs are sealed"),
    ("isolation.level", "only committed records may be read"),
    ("metadata.broker.list", "write `brokers:`"),
    ("offset.store.method", "positions come from the lake log"),
    ("partition.assignment.strategy", "the cooperative-sticky protocol is part of how epochs are sealed"),
    ("sasl.oauthbearer.config", "write `sasl:`"),
    ("enable.sasl.oauthbearer.unsecure.jwt", "write `sasl:`"),
    ("plugin.library.paths", "no foreign code is loaded into the process"),
];

fn kafka_source(found: &mut Findings<'_>, path: &str, kafka: &KafkaSource) {
    if cfg!(not(feature = "kafka")) {
        let help = "build it with the feature `kafka`";
        found.value(&format!("{path}.kind"), "this program was built without Kafka", help);
    }
    let brokers = format!("{path}.brokers");
    for broker in kafka.brokers.split(',').map(str::trim) {
        let port = broker.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        if broker.is_empty() {
            found.value(&brokers, "a broker's address is empty", "write `host:port`, comma separated");
        } else if port.is_none_or(|(host, port)| host.is_empty() || port == 0) {
            found.value(&brokers, format!("`{broker}` is not an address"), "write `host:port`, e.g. `broker-1:9092`");
        }
    }
    if kafka.topics.is_empty() {
        found.value(&format!("{path}.topics"), "there is no topic", "e.g. `topics: [\"shop.public.*\"]`");
    }
    for (i, topic) in kafka.topics.iter().enumerate() {
        let path = format!("{path}.topics[{i}]");
        if topic.is_empty() {
            found.value(&path, "the topic's name is empty", "");
        } else if let Err(error) = streams::topic_pattern(topic) {
            found.value(&path, format!("`{topic}` is not a regular expression: {error}"), "a leading `^` makes it one");
        }
    }
    for (name, why) in REFUSED_PROPERTIES {
        if kafka.properties.contains_key(name) {
            let message = format!("the property `{name}` cannot be set");
            found.key(&format!("{path}.properties.{name}"), message, why);
        }
    }
    if kafka.group.as_deref() == Some("") {
        found.value(&format!("{path}.group"), "the consumer group is empty", "leave it out for the usual one");
    }
    if let Some(tls) = &kafka.tls
        && tls.certificate.is_some() != tls.key.is_some()
    {
        found.value(&format!("{path}.tls"), "`certificate` and `key` belong together", "give both or none");
    }
}

fn postgres_source(found: &mut Findings<'_>, path: &str, postgres: &PostgresSource) {
    if cfg!(not(feature = "postgres")) {
        let help = "build it with the feature `postgres`";
        found.value(&format!("{path}.kind"), "this program was built without PostgreSQL", help);
    }
    match &postgres.url {
        Some(url) if !url.starts_with("postgres://") && !url.starts_with("postgresql://") => {
            let help = "write `postgres://user:password@host:port/database`";
            found.value(&format!("{path}.url"), "this is not the URL of a PostgreSQL database", help);
        }
        None if postgres.host.is_none() => {
            found.value(path, "the server's address is missing", "write `url: postgres://…`, or `host:`, `user:`, …");
        }
        _ => {}
    }
    for (field, name) in [("slot", &postgres.slot), ("publication", &postgres.publication)] {
        let sound = |name: &str| {
            let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.chars().all(inner)
        };
        if let Some(name) = name.as_ref().filter(|name| !sound(name)) {
            let help = format!("a-z, 0-9 and `_`, at most {MAX_NAME_BYTES} characters");
            found.value(&format!("{path}.{field}"), format!("`{name}` cannot be the name of a {field}"), help);
        }
    }
    table_patterns(found, path, &postgres.tables, ("schema", "public"));
}

/// Entries are `<where>.<table>`; `example` is one of what a database calls the first part.
fn table_patterns(found: &mut Findings<'_>, path: &str, tables: &[String], (what, example): (&str, &str)) {
    for (i, table) in tables.iter().enumerate() {
        let path = format!("{path}.tables[{i}]");
        if let Err(error) = streams::topic_pattern(table) {
            found.value(&path, format!("`{table}` is not a regular expression: {error}"), "a leading `^` makes it one");
        } else if !table.starts_with('^') && !table.contains('.') && table != "*" {
            found.value(&path, format!("`{table}` names no {what}"), format!("write `{example}.{table}`"));
        }
    }
}

fn mysql_source(found: &mut Findings<'_>, path: &str, mysql: &MysqlSource) {
    if cfg!(not(feature = "mysql")) {
        let help = "build it with the feature `mysql`";
        found.value(&format!("{path}.kind"), "this program was built without MySQL", help);
    }
    match &mysql.url {
        Some(url) if !url.starts_with("mysql://") && !url.starts_with("mariadb://") => {
            let help = "write `mysql://user:password@host:port`";
            found.value(&format!("{path}.url"), "this is not the URL of a MySQL or MariaDB server", help);
        }
        None if mysql.host.is_none() => {
            found.value(path, "the server's address is missing", "write `url: mysql://…`, or `host:`, `user:`, …");
        }
        _ => {}
    }
    if mysql.server_id == Some(0) {
        found.value(
            &format!("{path}.server_id"),
            "0 is no number of a replica",
            "1 to 4294967295, used by nobody else",
        );
    }
    if mysql.tables.is_empty() {
        found.value(&format!("{path}.tables"), "no table may be read", "write `tables: [\"shop.*\"]`");
    }
    for (field, number) in [("parallel", mysql.snapshot.parallel), ("chunk_rows", mysql.snapshot.chunk_rows)] {
        if number == 0 {
            found.value(&format!("{path}.snapshot.{field}"), "nothing would ever be read", "write 1 or more");
        }
    }
    if mysql.tls.certificate.is_some() != mysql.tls.key.is_some() {
        found.value(&format!("{path}.tls"), "`certificate` and `key` belong together", "give both or none");
    }
    table_patterns(found, path, &mysql.tables, ("database", "shop"));
    for (i, database) in mysql.ignore_statements_on.iter().enumerate() {
        if database.is_empty() || database.contains(['.', '*']) || database.starts_with('^') {
            let path = format!("{path}.ignore_statements_on[{i}]");
            found.value(&path, format!("`{database}` is not the name of a database"), "write its exact name: `audit`");
        }
    }
}

fn file_source(found: &mut Findings<'_>, path: &str, file: &FileSource) {
    if file.path.is_empty() {
        found.value(&format!("{path}.path"), "the path is empty", "a file, a folder or a glob");
    } else if let Err(error) = globset::Glob::new(&file.path) {
        found.value(&format!("{path}.path"), format!("this is not a path or glob: {}", error.kind()), "");
    }
    if file.stream.as_deref() == Some("") {
        let help = "leave it out when each event names its own";
        found.value(&format!("{path}.stream"), "the stream's name is empty", help);
    }
}

fn table_key(found: &mut Findings<'_>, path: &str, table: &Table) {
    let key = table.key.as_deref().unwrap_or_default();
    for (i, column) in key.iter().enumerate() {
        let path = format!("{path}.key[{i}]");
        if column.is_empty() {
            found.value(&path, "the column's name is empty", "`key: []` makes the table append-only");
        } else if key[..i].contains(column) {
            found.value(&path, format!("`{column}` is in the key twice"), "");
        }
    }
}

fn gone_columns(found: &mut Findings<'_>, path: &str, table: &Table) {
    if !table.gone.is_empty() {
        column_list(found, &format!("{path}.gone"), &table.gone);
    }
    let key = table.key.as_deref().unwrap_or_default();
    for (i, column) in table.gone.iter().enumerate().filter(|(_, column)| key.contains(column)) {
        let help = "every row has its key; start the table anew under another name";
        found.value(&format!("{path}.gone[{i}]"), format!("`{column}` is part of the key"), help);
    }
}

fn operators(found: &mut Findings<'_>, path: &str, list: &[Option<Operator>]) {
    let mut names = BTreeSet::new();
    for (i, operator) in list.iter().enumerate() {
        let Some(operator) = operator else { continue };
        let path = format!("{path}.operators[{i}]");
        match operator {
            Operator::Validate(rule) => {
                rule_name(found, &format!("{path}.validate.name"), &rule.name, &mut names);
                expression(found, &format!("{path}.validate.rule"), &rule.rule);
            }
            Operator::Filter(filter) => {
                rule_name(found, &format!("{path}.filter.name"), &filter.name, &mut names);
                expression(found, &format!("{path}.filter.keep"), &filter.keep);
            }
            Operator::Mask(mask) => super::masks::check(found, &format!("{path}.mask"), mask),
            Operator::Rename(pairs) => rename(found, &format!("{path}.rename"), pairs),
            Operator::Drop(columns) => column_list(found, &format!("{path}.drop"), columns),
            Operator::Compute(columns) => {
                if columns.is_empty() {
                    found.key(&format!("{path}.compute"), "nothing is computed", "write `name: expression`");
                }
                columns.iter().for_each(|(name, text)| expression(found, &format!("{path}.compute.{name}"), text));
            }
        }
    }
}

/// What the program itself writes into quarantine where a rule's name stands.
const OWN_RULES: [&str; 4] = ["contract", "decode", "incomplete", "load"];

fn rule_name<'n>(found: &mut Findings<'_>, path: &str, name: &'n str, names: &mut BTreeSet<&'n str>) {
    if !fits(name, false) {
        found.value(path, format!("`{name}` cannot be the name of a rule"), name_help(false));
    } else if OWN_RULES.contains(&name) {
        let help = "`contract`, `decode`, `incomplete` and `load` are the program's own reasons; choose another name";
        found.value(path, format!("`{name}` cannot be the name of a rule"), help);
    } else if !names.insert(name) {
        found.value(path, format!("two rules of this table have the name `{name}`"), "metrics tell them apart by it");
    }
}

fn expression(found: &mut Findings<'_>, path: &str, text: &str) {
    if text.trim().is_empty() {
        found.value(path, "the expression is empty", "an SQL expression over the table's columns, e.g. `amount >= 0`");
    }
}

fn rename(found: &mut Findings<'_>, path: &str, pairs: &BTreeMap<String, String>) {
    if pairs.is_empty() {
        found.key(path, "nothing is renamed", "write `old: new`");
    }
    let mut targets = BTreeMap::new();
    for (old, new) in pairs {
        if new.is_empty() {
            found.value(&format!("{path}.{old}"), "the new name is empty", "write `old: new`");
        } else if let Some(first) = targets.insert(new, old) {
            found.value(&format!("{path}.{old}"), format!("`{first}` and `{old}` both become `{new}`"), "");
        }
    }
}

/// Columns that are named in a list: some, none empty, none twice.
pub(super) fn column_list(found: &mut Findings<'_>, path: &str, columns: &[String]) {
    if columns.is_empty() {
        found.value(path, "no column is named", "write `[a, b]`");
    }
    for (i, column) in columns.iter().enumerate() {
        let path = format!("{path}[{i}]");
        if column.is_empty() {
            found.value(&path, "the column's name is empty", "");
        } else if columns[..i].contains(column) {
            found.value(&path, format!("`{column}` is named twice"), "");
        }
    }
}

fn groups(draft: &Draft, found: &mut Findings<'_>) {
    let mut member_of: BTreeMap<&str, &str> = BTreeMap::new();
    let mut groups: Vec<_> = draft.groups.iter().collect();
    groups.sort_by_key(|(group, _)| found.sheet.place(&format!("groups.{group}")).key);
    for (group, tables) in groups {
        let path = format!("groups.{group}");
        name_rule(found, &path, group, "group", true);
        let Some(tables) = tables else { continue };
        if tables.is_empty() {
            found.key(&path, "the group has no table", "name its tables, or leave it out");
        }
        for (i, table) in tables.iter().enumerate() {
            let path = format!("{path}[{i}]");
            if draft.tables.is_empty() {
                return;
            }
            if !draft.tables.contains_key(table) {
                let help = suggest(table, draft.tables.keys().map(String::as_str), "tables are");
                found.value(&path, format!("there is no table `{table}`"), help);
            } else if let Some(other) = member_of.insert(table, group) {
                let message = if other == group {
                    format!("`{table}` is in this group twice")
                } else {
                    format!("`{table}` is in the group `{other}` already")
                };
                found.value(&path, message, "a table is committed with one group; merge the groups or choose one");
            }
        }
    }
    for group in draft.groups.keys() {
        // A table in no group is a group of its own, under its own name.
        if draft.tables.contains_key(group) && !member_of.contains_key(group.as_str()) {
            let message = format!("the group `{group}` has the name of a table that is a group of its own");
            found.key(&format!("groups.{group}"), message, "put the table into it, or choose another name");
        }
    }
}

fn lake_url(found: &mut Findings<'_>, lake: &Lake) {
    let bucket = lake.url.strip_prefix("s3://");
    if lake.url.is_empty() {
        found.value("lake.url", "the lake has no place", "`s3://bucket/prefix`, or a folder such as `./data/lake`");
    } else if let Some(rest) = bucket {
        if rest.split('/').next().is_none_or(str::is_empty) {
            found.value("lake.url", "the bucket's name is missing", "write `s3://bucket/prefix`");
        }
        if cfg!(not(feature = "s3")) {
            found.value("lake.url", "this program was built without S3", "build it with the feature `s3`");
        }
    } else if let Some((scheme, _)) = lake.url.split_once("://") {
        let message = format!("a lake cannot be kept at `{scheme}://`");
        found.value("lake.url", message, "`s3://bucket/prefix`, or a folder without any scheme");
    }
    if bucket.is_none() {
        let fields = [
            ("region", lake.region.is_some()),
            ("endpoint", lake.endpoint.is_some()),
            ("access_key_id", lake.access_key_id.is_some()),
            ("profile", lake.profile.is_some()),
            ("sse", lake.sse.is_some()),
            ("catalog", lake.catalog.is_some()),
        ];
        for (name, _) in fields.iter().filter(|(_, given)| *given) {
            let message = format!("`{name}` means nothing for a folder");
            found.key(&format!("lake.{name}"), message, "leave it out, or write `url: s3://…`");
        }
    }
    if lake.access_key_id.is_some() != lake.secret_access_key.is_some() {
        let help = "give both, or none to use the environment's credentials";
        found.key("lake", "`access_key_id` and `secret_access_key` belong together", help);
    }
    if lake.profile.is_some() && lake.access_key_id.is_some() {
        found.key("lake.profile", "both a profile and keys are given", "leave one of them out");
    }
    if lake.sse.as_ref().is_some_and(|sse| sse.kms_key.trim().is_empty()) {
        found.value("lake.sse.kms_key", "the key is not named", "write the key's ARN, `arn:aws:kms:…`");
    }
    if lake.endpoint.as_ref().is_some_and(|e| !e.starts_with("http://") && !e.starts_with("https://")) {
        found.value("lake.endpoint", "the endpoint is not a URL", "write `http://host:port` or `https://host`");
    }
}

fn raw_zone(draft: &Draft, lake: &Lake, found: &mut Findings<'_>) {
    let masks = |list: &[Option<Operator>]| list.iter().any(|operator| matches!(operator, Some(Operator::Mask(_))));
    let masked = draft.operators.iter().find(|(_, list)| masks(list)).map(|(name, _)| name);
    let say = "write `raw: { keep: none }`, or `raw: { keep: encrypted, key: …, retention: 7d }`";
    match (&lake.raw, masked) {
        (None, Some(table)) => {
            let message = format!("`{table}` masks columns, but it is not said what the raw zone keeps of them");
            found.key("lake.raw", message, say);
        }
        (Some(Raw { keep: RawKeep::Plain, .. }), Some(table)) => {
            found.value("lake.raw.keep", format!("`plain` would keep what `{table}` masks"), say);
        }
        _ => {}
    }
    let Some(raw) = &lake.raw else { return };
    let encrypted = raw.keep == RawKeep::Encrypted;
    if encrypted && raw.key.is_none() {
        found.key("lake.raw.key", "`keep: encrypted` needs a `key`", HEX_KEY);
    }
    if encrypted && raw.retention.is_none() {
        found.key("lake.raw.retention", "`keep: encrypted` needs a `retention`", "how long files stay, e.g. `7d`");
    }
    if !encrypted && raw.key.is_some() {
        found.key("lake.raw.key", "`key` means nothing without `keep: encrypted`", "leave it out");
    }
    hex_key(found, "lake.raw.key", raw.key.as_deref());
    positive(found, "lake.raw.retention", raw.retention.map(|r| r.0.as_millis()));
    positive(found, "lake.raw.archive_after", raw.archive_after.map(|r| r.0.as_millis()));
    if let (Some(archive), Some(retention)) = (raw.archive_after, raw.retention)
        && archive >= retention
    {
        let message = "files would be deleted before they move";
        found.value("lake.raw.archive_after", message, "make it shorter than lake.raw.retention");
    }
}

fn quarantine(found: &mut Findings<'_>, lake: &Lake) {
    hex_key(found, "lake.quarantine.key", lake.quarantine.key.as_deref());
    positive(found, "lake.quarantine.retention", lake.quarantine.retention.map(|r| r.0.as_millis()));
    if lake.quarantine.key.is_some() && lake.quarantine.retention.is_none() {
        let help = "payloads must not stay for ever: say how long, e.g. `retention: 30d`";
        found.key("lake.quarantine.retention", "a quarantine that keeps payloads needs a `retention`", help);
    }
}

const HEX_KEY: &str = "32 bytes as 64 hexadecimal digits: `openssl rand -hex 32`; refer to it as `${NAME}` or `file:…`";

fn hex_key(found: &mut Findings<'_>, path: &str, key: Option<&str>) {
    if key.is_some_and(|key| key.len() != 64 || !key.chars().all(|c| c.is_ascii_hexdigit())) {
        found.value(path, "the key is not 64 hexadecimal digits", HEX_KEY);
    }
}

pub(super) fn positive(found: &mut Findings<'_>, path: &str, value: Option<u128>) {
    if value == Some(0) {
        found.value(path, "this must be more than nothing", "");
    }
}

fn warehouse(draft: &Draft, found: &mut Findings<'_>) {
    match &draft.warehouse {
        Some(Warehouse::Sqlite(sqlite)) if sqlite.path.is_empty() => {
            found.value("warehouse.path", "the path is empty", "the database file, e.g. `./data/warehouse.db`");
        }
        Some(Warehouse::Postgres(postgres)) => {
            if cfg!(not(feature = "postgres")) {
                let help = "build it with the feature `postgres`";
                found.value("warehouse.kind", "this program was built without PostgreSQL", help);
            }
            if !postgres.url.starts_with("postgres://") && !postgres.url.starts_with("postgresql://") {
                let help = "`postgres://user:password@host:port/database`";
                found.value("warehouse.url", "this is not the URL of a PostgreSQL database", help);
            }
            let schema = &postgres.schema;
            if schema.is_empty() || schema.len() > MAX_NAME_BYTES {
                found.value("warehouse.schema", "the schema's name is empty or too long", "1 to 63 bytes");
            }
        }
        Some(Warehouse::Redshift(redshift)) => redshift_warehouse::rules(draft, redshift, found),
        _ => {}
    }
}

fn limits(draft: &Draft, found: &mut Findings<'_>) {
    if let Some(epoch) = &draft.epoch {
        positive(found, "epoch.every", Some(epoch.every.0.as_millis()));
        positive(found, "epoch.max_bytes", Some(epoch.max_bytes.0.into()));
    }
    if let Some(limits) = &draft.limits {
        positive(found, "limits.inflight_bytes", Some(limits.inflight_bytes.0.into()));
        positive(found, "limits.unit_bytes", Some(limits.unit_bytes.0.into()));
        positive(found, "limits.grace", Some(limits.grace.0.as_millis()));
    }
    if let Some(admin) = &draft.admin {
        let port = admin.listen.rsplit_once(':').filter(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if port.is_none() {
            let help = "write `address:port`, e.g. `127.0.0.1:9464`; port 0 takes a free one";
            found.value("admin.listen", format!("`{}` is not an address", admin.listen), help);
        }
    }
}
