//! A small Debezium: reads the changes of a PostgreSQL database from a slot, as its connector does, and writes the same events
//! into Kafka.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};

use super::connect::{PgType, UNAVAILABLE};
use super::pgoutput::{Cell, Message, Relation, read};
use crate::support::kafka::{Broker, broker};

const SLOT_AND_PUBLICATION: &str = "debezium";

/// The connector of one database.
pub struct Debezium {
    connection: PgConnection,
    broker: &'static Broker,
    producer: BaseProducer,
    /// `topic.prefix`: the database's name.
    prefix: String,
    slot: String,
    relations: HashMap<u32, Relation>,
    types: HashMap<u32, PgType>,
    topics: BTreeSet<String>,
    /// What is there before the stream begins is read, not created.
    pub reads: bool,
}

/// Where an event comes from.
#[derive(Debug, Clone, Copy)]
struct Origin {
    commit_time_us: i64,
    transaction: u32,
    lsn: u64,
}

impl Debezium {
    /// Follows an empty database.
    pub async fn follow(url: &str, name: &str) -> Self {
        let broker = tokio::task::spawn_blocking(broker).await.unwrap();
        let mut connection = PgConnection::connect(url).await.unwrap();
        // How values are written is the session's.
        for sql in [
            "SET timezone = 'UTC'".to_owned(),
            "SET intervalstyle = 'iso_8601'".to_owned(),
            format!("CREATE PUBLICATION {SLOT_AND_PUBLICATION} FOR ALL TABLES"),
            format!("SELECT pg_create_logical_replication_slot('{SLOT_AND_PUBLICATION}_{name}', 'pgoutput')"),
        ] {
            connection.execute(AssertSqlSafe(sql)).await.unwrap();
        }
        Self {
            connection,
            broker,
            producer: broker.producer(),
            prefix: name.to_owned(),
            slot: format!("{SLOT_AND_PUBLICATION}_{name}"),
            relations: HashMap::new(),
            types: HashMap::new(),
            topics: BTreeSet::new(),
            reads: true,
        }
    }

    /// Where the broker is.
    pub fn brokers(&self) -> &str {
        &self.broker.address
    }

    /// Brings everything that was committed into Kafka, and waits until it is there.
    pub async fn relay(&mut self) {
        let sql = format!(
            "SELECT (lsn - '0/0')::bigint, data FROM pg_logical_slot_get_binary_changes('{}', NULL, NULL, \
             'proto_version', '1', 'publication_names', '{SLOT_AND_PUBLICATION}')",
            self.slot
        );
        let rows = self.connection.fetch_all(AssertSqlSafe(sql)).await.unwrap();
        let messages: Vec<(u64, Message)> =
            rows.iter().map(|row| (row.get::<i64, _>(0).cast_unsigned(), read(&row.get::<Vec<u8>, _>(1)))).collect();
        self.learn(&messages).await;
        let mut origin = Origin { commit_time_us: 0, transaction: 0, lsn: 0 };
        for (lsn, message) in messages {
            origin.lsn = lsn;
            if let Message::Begin { commit_time_us, transaction } = message {
                (origin.commit_time_us, origin.transaction) = (commit_time_us, transaction);
            } else {
                self.tell(message, origin).await;
            }
        }
        self.producer.flush(Duration::from_secs(60)).unwrap();
    }

    /// Types and topics of the tables that are described.
    async fn learn(&mut self, messages: &[(u64, Message)]) {
        let described = messages.iter().filter_map(|(_, message)| match message {
            Message::Relation(_, relation) => Some(relation),
            _ => None,
        });
        let relations: Vec<&Relation> = described.collect();
        for column in relations.iter().flat_map(|relation| &relation.columns) {
            if !self.types.contains_key(&column.type_oid) {
                let found = self.type_of(column.type_oid).await;
                self.types.insert(column.type_oid, found);
            }
        }
        let topics: BTreeSet<String> = relations.iter().map(|relation| self.topic(relation)).collect();
        let new: Vec<String> = topics.difference(&self.topics).cloned().collect();
        if !new.is_empty() {
            self.broker.create_topics(&new).await;
            self.topics.extend(new);
        }
    }

    async fn type_of(&mut self, oid: u32) -> PgType {
        let sql = format!(
            "WITH RECURSIVE base AS (SELECT *, typtypmod AS modifier FROM pg_type WHERE oid = {oid} UNION ALL \
             SELECT t.*, base.modifier FROM pg_type t JOIN base ON base.typbasetype = t.oid) \
             SELECT typname::text, format_type(oid, NULL), typtype = 'e', typtype = 'c', modifier, \
             CASE WHEN typcategory = 'A' THEN typelem::bigint ELSE 0 END FROM base WHERE typbasetype = 0"
        );
        let row = self.connection.fetch_one(AssertSqlSafe(sql)).await.unwrap();
        let element = match row.get::<i64, _>(5) {
            0 => None,
            element => Some(Box::new(Box::pin(self.type_of(u32::try_from(element).unwrap())).await)),
        };
        PgType {
            name: row.get(0),
            sql: row.get(1),
            is_enum: row.get(2),
            is_composite: row.get(3),
            scale: PgType::scale_of(row.get(4)),
            element,
        }
    }

    fn topic(&self, relation: &Relation) -> String {
        format!("{}.{}.{}", self.prefix, relation.schema, relation.table)
    }

    async fn tell(&mut self, message: Message, origin: Origin) {
        match message {
            Message::Begin { .. } | Message::Other => {}
            Message::Relation(oid, relation) => drop(self.relations.insert(oid, relation)),
            Message::Insert(oid, row) => {
                let row = self.row(oid, &row).await;
                let op = if self.reads { "r" } else { "c" };
                self.send(oid, Some(&row), Some(self.event(oid, op, None, Some(&row), origin)), &[]);
            }
            Message::Update(oid, None, row) => {
                let row = self.row(oid, &row).await;
                self.send(oid, Some(&row), Some(self.event(oid, "u", None, Some(&row), origin)), &[]);
            }
            Message::Update(oid, Some(old), row) => {
                let (old, row) = (self.row(oid, &old).await, self.row(oid, &row).await);
                let keys = [self.key(oid, &old), self.key(oid, &row)];
                let delete = self.event(oid, "d", Some(&old), None, origin);
                self.send(oid, Some(&old), Some(delete), &[("__debezium.newkey", &keys[1])]);
                self.send(oid, Some(&old), None, &[]);
                let create = self.event(oid, "c", None, Some(&row), origin);
                self.send(oid, Some(&row), Some(create), &[("__debezium.oldkey", &keys[0])]);
            }
            Message::Delete(oid, old) => {
                let old = self.row(oid, &old).await;
                self.send(oid, Some(&old), Some(self.event(oid, "d", Some(&old), None, origin)), &[]);
                self.send(oid, Some(&old), None, &[]);
            }
            Message::Truncate(tables) => {
                for oid in tables {
                    self.send(oid, None, Some(self.event(oid, "t", None, None, origin)), &[]);
                }
            }
        }
    }

    /// A row as JSON has it.
    async fn row(&mut self, oid: u32, cells: &[Cell]) -> Value {
        let columns = self.relations[&oid].columns.clone();
        let mut row = serde_json::Map::new();
        for (column, cell) in columns.iter().zip(cells) {
            let of = self.types[&column.type_oid].clone();
            if of.is_left_out() {
                continue;
            }
            let of = PgType { scale: PgType::scale_of(column.type_modifier).or(of.scale), ..of };
            let value = match cell {
                Cell::Null => Value::Null,
                Cell::Unchanged => UNAVAILABLE.into(),
                Cell::Text(text) => self.value(&of, text).await,
            };
            row.insert(column.name.clone(), value);
        }
        row.into()
    }

    /// Arrays and `hstore` are taken apart by the server.
    async fn value(&mut self, of: &PgType, text: &str) -> Value {
        if of.name == "hstore" {
            let sql = "SELECT hstore_to_json($1::text::hstore)::text";
            return sqlx::query(sql)
                .bind(text)
                .fetch_one(&mut self.connection)
                .await
                .unwrap()
                .get::<String, _>(0)
                .into();
        }
        let Some(element) = &of.element else { return of.value(text) };
        let sql = format!("SELECT unnest($1::text::{})::text", of.sql);
        let items = sqlx::query(AssertSqlSafe(sql)).bind(text).fetch_all(&mut self.connection).await.unwrap();
        let items = items.iter().map(|row| row.get::<Option<String>, _>(0));
        // The modifier of an array is its elements'.
        let element = PgType { scale: of.scale, ..(**element).clone() };
        items.map(|item| item.map_or(Value::Null, |text| element.value(&text))).collect()
    }

    fn fields(&self, oid: u32, only_key: bool) -> Vec<Value> {
        let columns = self.relations[&oid].columns.iter().filter(|column| column.is_key || !only_key);
        let field = |column: &super::pgoutput::Column| {
            let of = &self.types[&column.type_oid];
            let of = PgType { scale: PgType::scale_of(column.type_modifier).or(of.scale), ..of.clone() };
            (!of.is_left_out()).then(|| of.field(&column.name, column.is_key))
        };
        columns.filter_map(field).collect()
    }

    fn key(&self, oid: u32, row: &Value) -> String {
        let names = self.relations[&oid].columns.iter().filter(|column| column.is_key).map(|column| &column.name);
        let payload: serde_json::Map<String, Value> = names.map(|name| (name.clone(), row[name].clone())).collect();
        let name = format!("{}.Key", self.topic(&self.relations[&oid]));
        let schema = json!({"type": "struct", "fields": self.fields(oid, true), "optional": false, "name": name});
        json!({"schema": schema, "payload": payload}).to_string()
    }

    fn event(&self, oid: u32, op: &str, before: Option<&Value>, after: Option<&Value>, origin: Origin) -> String {
        let relation = &self.relations[&oid];
        let name = self.topic(relation);
        let row = |field: &str| {
            json!({"type": "struct", "fields": self.fields(oid, false), "optional": true, "name": format!("{name}.Value"),
                "field": field})
        };
        let plain = |kind: &str, field: &str| json!({"type": kind, "optional": true, "field": field});
        let source = [("string", "connector"), ("string", "name"), ("int64", "ts_ms"), ("string", "snapshot")];
        let more = [("string", "db"), ("string", "schema"), ("string", "table"), ("int64", "txId"), ("int64", "lsn")];
        let source: Vec<Value> = source.iter().chain(&more).map(|(kind, field)| plain(kind, field)).collect();
        let schema = json!({"type": "struct", "optional": false, "name": format!("{name}.Envelope"), "version": 2, "fields": [
            row("before"), row("after"),
            {"type": "struct", "optional": false, "name": "io.debezium.connector.postgresql.Source", "field": "source", "fields": source},
            plain("string", "op"), plain("int64", "ts_ms")]});
        let source = json!({"connector": "postgresql", "name": self.prefix, "ts_ms": origin.commit_time_us / 1000,
            "snapshot": if op == "r" { "true" } else { "false" }, "db": self.prefix, "schema": relation.schema,
            "table": relation.table, "txId": origin.transaction, "lsn": origin.lsn});
        let payload = json!({"before": before, "after": after, "source": source, "op": op,
            "ts_ms": origin.commit_time_us / 1000});
        json!({"schema": schema, "payload": payload}).to_string()
    }

    /// Queues a record under the key of `row`; no value is a tombstone.
    fn send(&self, oid: u32, row: Option<&Value>, value: Option<String>, headers: &[(&str, &String)]) {
        let topic = self.topic(&self.relations[&oid]);
        let key = row.map(|row| self.key(oid, row));
        let headers = headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value.as_str()) })
        });
        let mut record: BaseRecord<'_, String, String> = BaseRecord::to(&topic).partition(0).headers(headers);
        record.key = key.as_ref();
        record.payload = value.as_ref();
        while let Err((error, back)) = self.producer.send(record) {
            assert_eq!(error.rdkafka_error_code(), Some(rdkafka::error::RDKafkaErrorCode::QueueFull), "{error}");
            self.producer.poll(Duration::from_millis(10));
            record = back;
        }
    }
}
