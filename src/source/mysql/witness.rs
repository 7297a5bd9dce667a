//! The tables as they are now.
//!
//! A reading is a transaction that sees one moment. Where the log ends is asked inside it, after it has begun to see: a
//! server writes its log before it commits, so what the reading shows stands before that place. The converse need not
//! hold, because whoever compares must allow for what comes after the reading anyway.
//!
//! A position in the lake moves on only now and then while nothing of ours changes. What is between it and the log's end
//! is therefore listed (`SHOW BINLOG EVENTS`): the events say which tables they are about.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use mysql_async::prelude::{Query, WithParams};
use mysql_async::{Row, Value};

use super::catalog::{self, CatalogTable};
use super::connection::{Connection, Trouble, identifier, literal, table_identifier, within};
use super::gtids::Gtids;
use super::place::{Place, file_number};
use super::settings::Settings;
use super::setup::{self, End, Server};
use super::snapshot::typed;
use crate::batch::{NO_TIME, RawBatch, RawRecords};
use crate::config::MysqlSource;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::{Partition, Position, Progress, Span};
use crate::source::{Keys, Reached, Witness};
use crate::wire::binlog::{SnapshotWriter, describe_key};

/// Payload bytes in one batch.
const BATCH_BYTES: usize = 1 << 20;
/// How long the server may think before the next row.
const ROW_TIMEOUT: Duration = Duration::from_secs(600);
/// How often the log between two places is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Events that are asked for at once, and how often.
const EVENTS: usize = 1000;
const ROUNDS: usize = 100;

/// The tables of a MySQL or MariaDB server.
pub struct Tables {
    name: Arc<str>,
    settings: Settings,
    reading: Option<Reading>,
    taken: Option<Taken>,
    /// What the last look at the log behind a place found, and when.
    looked: Option<(Position, Instant, Reached)>,
}

/// The newest reading: its stream, the server, and where its log ended then.
struct Taken {
    stream: String,
    server: Server,
    end: End,
}

struct Reading {
    rows: BoxStream<'static, mysql_async::Result<Row>>,
    /// What the decoder must know first.
    shape: Option<Vec<u8>>,
    writer: SnapshotWriter,
    columns: usize,
    ended: bool,
}

/// The number that the rows name; there is only one table in a reading.
const TABLE: u64 = 1;

impl Tables {
    /// Reads the tables of the source `name`. Connects to nothing yet.
    pub fn new(name: &str, config: &MysqlSource) -> Result<Self> {
        let settings = Settings::new(name, config)?;
        Ok(Self { name: name.into(), settings, reading: None, taken: None, looked: None })
    }

    fn doing(&self, stream: &str) -> String {
        format!("source {}: read the rows of {stream}", self.name)
    }

    /// Whether what lies behind the place is nothing of the table; looked at now and then.
    async fn quiet_behind(&mut self, position: &Position, place: &Place) -> Result<Reached> {
        if let Some((known, at, found)) = &self.looked
            && known == position
            && at.elapsed() < LOOK_EVERY
        {
            return Ok(found.clone());
        }
        let Some(taken) = &self.taken else { return Ok(Reached::No("nothing was read".to_owned())) };
        let no = |why: &str| {
            let (file, pos) = (&taken.end.file, taken.end.pos);
            Reached::No(format!("the lake has read up to {}, the table was read at {file}:{pos}; {why}", place.shown()))
        };
        let found = match is_quiet(&self.settings, taken, place).await {
            Ok(true) => Reached::Yes,
            Ok(false) => no("the table may have changed in between"),
            Err(error) => no(&format!("whether the table has changed in between is not known: {error}")),
        };
        self.looked = Some((position.clone(), Instant::now(), found.clone()));
        Ok(found)
    }
}

/// Whether no event between the place and the reading's is about the table.
async fn is_quiet(settings: &Settings, taken: &Taken, place: &Place) -> Result<bool> {
    let failed = |trouble: Trouble| trouble.error("list the events of the binary log");
    let mut connection = Connection::open(settings).await?;
    let files = setup::files(&mut connection, &taken.server).await?;
    let between = |file: &&(String, u64)| {
        (file_number(&place.file)..=file_number(&taken.end.file)).contains(&file_number(&file.0))
    };
    for (file, _) in files.iter().filter(between) {
        let mut pos = if *file == place.file { place.pos } else { 4 };
        for _round in 0..ROUNDS {
            if (file_number(file), pos) >= taken.end.order() {
                return Ok(true);
            }
            let sql = format!("SHOW BINLOG EVENTS IN {} FROM {pos} LIMIT {EVENTS}", literal(file));
            let events = connection.query(&sql).await.map_err(failed)?;
            for event in &events {
                if is_about(&taken.stream, &event.text(2), &event.text(5)) {
                    return Ok(false);
                }
                pos = pos.max(event.number(4));
            }
            if events.len() < EVENTS {
                break;
            }
        }
    }
    Ok(true)
}

/// Whether an event, by its kind and what the server says of it, may change the table.
fn is_about(stream: &str, kind: &str, said: &str) -> bool {
    let kind = kind.to_ascii_lowercase();
    if kind.contains("table_map") {
        return said.contains(&format!("({stream})"));
    }
    // A statement of any form that has the name in it; a compressed transaction does not say what it holds.
    let (database, bare) = stream.split_once('.').unwrap_or(("", stream));
    let elsewhere = said.starts_with("use `") && !said.contains(database);
    (kind.contains("query") && said.contains(bare) && !elsewhere)
        || kind.contains("payload")
        || kind.contains("compressed")
}

/// Keys that compare with their columns as they do here; others are found among all rows.
fn condition(table: &CatalogTable, keys: &Keys) -> Option<String> {
    let column = |name: &String| table.columns.iter().find(|column| column.name == *name);
    let kinds: Vec<bool> = keys
        .columns
        .iter()
        .map(|name| match column(name)?.data_type.as_str() {
            "tinyint" | "smallint" | "mediumint" | "int" | "bigint" => Some(true),
            "char" | "varchar" => Some(false),
            _ => None,
        })
        .collect::<Option<_>>()?;
    if keys.rows.is_empty() {
        return Some(" WHERE FALSE".to_owned());
    }
    let value = |(text, number): (&String, &bool)| match number {
        true => text.parse::<i128>().ok().map(|number| number.to_string()),
        false => Some(literal(text)),
    };
    let row = |values: &Vec<String>| {
        let values: Option<Vec<String>> = values.iter().zip(&kinds).map(value).collect();
        values.map(|values| format!("({})", values.join(", ")))
    };
    let rows: Vec<String> = keys.rows.iter().map(row).collect::<Option<_>>()?;
    let names: Vec<String> = keys.columns.iter().map(|name| identifier(name)).collect();
    Some(format!(" WHERE ({}) IN ({})", names.join(", "), rows.join(", ")))
}

#[async_trait]
impl Witness for Tables {
    async fn read(&mut self, stream: &str, keys: Option<&Keys>) -> Result<Vec<String>> {
        let doing = self.doing(stream);
        let failed = |trouble: Trouble| trouble.error(&doing);
        let mut connection = Connection::open(&self.settings).await?;
        let server = setup::identify(&mut connection, &self.settings).await?;
        connection.run("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ").await.map_err(failed)?;
        connection.run("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await.map_err(failed)?;
        let end = setup::end(&mut connection, &server).await?;
        let table = catalog::table(&mut connection, server.flavour, stream).await.map_err(failed)?;
        if table.columns.is_empty() {
            return Err(Error::new(ErrorKind::SourceRefused, doing)
                .because("there is no such table that the account can see")
                .help("correct `from:` in the topology, make the table, or grant SELECT on it"));
        }
        let shape = catalog::read_shape(TABLE, stream, &table)
            .map_err(|misfit| Error::new(ErrorKind::SourceRefused, &doing).because(misfit))?;
        let names: Vec<String> = table.columns.iter().map(|column| column.name.clone()).collect();
        let columns: Vec<String> = names.iter().map(|name| identifier(name)).collect();
        let condition = keys.and_then(|keys| condition(&table, keys)).unwrap_or_default();
        let sql = format!("SELECT {} FROM {}{condition}", columns.join(", "), table_identifier(stream));
        let rows = within(ROW_TIMEOUT, sql.with(()).stream::<Row, _>(connection.conn)).await.map_err(failed)?;
        self.taken = Some(Taken { stream: stream.to_owned(), server, end });
        self.looked = None;
        self.reading = Some(Reading {
            rows: rows.boxed(),
            shape: Some(describe_key(&shape)),
            writer: SnapshotWriter::new(TABLE),
            columns: names.len(),
            ended: false,
        });
        Ok(names)
    }

    async fn next(&mut self) -> Result<Option<RawBatch>> {
        let stream = self.taken.as_ref().map_or_else(String::new, |taken| taken.stream.clone());
        let doing = self.doing(&stream);
        let Some(reading) = self.reading.as_mut().filter(|reading| !reading.ended) else { return Ok(None) };
        let mut records = RawRecords::default();
        let mut ordinal = 0;
        if let Some(shape) = reading.shape.take() {
            records.push_within(0, (0, ordinal), NO_TIME, Some(&shape), None);
        }
        while records.bytes() < BATCH_BYTES {
            let next = async { reading.rows.next().await.transpose() };
            let Some(row) = within(ROW_TIMEOUT, next).await.map_err(|trouble| trouble.error(&doing))? else {
                reading.ended = true;
                break;
            };
            ordinal += 1;
            reading.writer.clear();
            for column in 0..reading.columns {
                reading.writer.push(typed(row.as_ref(column).unwrap_or(&Value::NULL)));
            }
            records.push_within(0, (0, ordinal), NO_TIME, None, Some(reading.writer.record()));
        }
        if reading.ended {
            // With its connection the moment that it sees ends, which the server keeps old rows for.
            self.reading = None;
        }
        let position = || Position(String::new());
        Ok(Some(RawBatch {
            partition: Partition::new(Arc::clone(&self.name), "verify"),
            generation: 0,
            span: Span { from: position(), to: position() },
            stream: None,
            records,
            inside_transaction: false,
        }))
    }

    fn gone(&self, _record: &[u8]) -> Option<Vec<u8>> {
        // The decoder itself leaves the keys of rows that it refuses.
        None
    }

    async fn reached(&mut self, progress: &Progress) -> Result<Reached> {
        let no = |why: &str| Ok(Reached::No(why.to_owned()));
        let Some(taken) = &self.taken else { return no("nothing was read") };
        let Some((_, standing)) = progress.of_source(&self.name).next() else {
            return no("nothing has been read of the source yet");
        };
        let position = standing.position.clone();
        let place = Place::parse(&position)?;
        let there = place.tables.get(&taken.stream).is_some_and(|table| table.behind.is_none());
        if !there || place.again.contains(&taken.stream) {
            return no("the rows that were there at the beginning are still being read");
        }
        if place.server == taken.server.identity && place.pos > 0 {
            if (file_number(&place.file), place.pos) >= taken.end.order() {
                return Ok(Reached::Yes);
            }
            return self.quiet_behind(&position, &place).await;
        }
        let flavour = taken.server.flavour;
        let shown = Gtids::parse(flavour, taken.end.gtids.as_deref())?;
        let read = Gtids::parse(flavour, place.gtids.as_deref())?;
        match (&shown, shown.missing_in(&read)) {
            (Gtids::None, _) => no("the lake's position is another server's, and there are no GTIDs to compare"),
            (_, None) => Ok(Reached::Yes),
            (_, Some(missing)) => no(&format!("the lake has not read the transactions {missing} yet")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::mysqltype::CatalogColumn;

    #[test]
    fn events_say_which_table_they_are_about() {
        assert!(is_about("shop.items", "Table_map", "table_id: 18 (shop.items)"));
        assert!(!is_about("shop.items", "Table_map", "table_id: 18 (shop.items2)"));
        assert!(is_about("shop.items", "Query", "use `shop`; TRUNCATE items"));
        assert!(!is_about("shop.items", "Query", "BEGIN"));
        assert!(!is_about("shop.items", "Query", "use `other`; CREATE TABLE items (id int)"));
        assert!(is_about("shop.items", "Query", "use `other`; DROP TABLE shop.items"));
        assert!(is_about("shop.items", "Transaction_payload", "compression='ZSTD'"));
        assert!(!is_about("shop.items", "Xid", "COMMIT /* xid=7 */"));
    }

    #[test]
    fn only_keys_that_compare_plainly_are_asked_for() {
        let column = |name: &str, data_type: &str| CatalogColumn {
            name: name.into(),
            data_type: data_type.into(),
            ..CatalogColumn::default()
        };
        let columns = vec![column("id", "bigint"), column("code", "varchar"), column("at", "datetime")];
        let table = CatalogTable { columns, ..CatalogTable::default() };
        let keys = |columns: &[&str], row: &[&str]| Keys {
            columns: columns.iter().map(|name| (*name).to_owned()).collect(),
            rows: vec![row.iter().map(|value| (*value).to_owned()).collect()],
        };
        let sql = condition(&table, &keys(&["id", "code"], &["7", "a"]));
        assert_eq!(sql.as_deref(), Some(" WHERE (`id`, `code`) IN ((7, 'a'))"));
        assert_eq!(condition(&table, &keys(&["at"], &["2024-01-01T00:00:00Z"])), None);
    }
}
