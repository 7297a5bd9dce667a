//! The tables as they are now.
//!
//! A reading is a transaction that sees one moment. Where the log ends is asked inside it, after it has begun to see: what
//! it shows was committed before that place. The converse need not hold, because whoever compares must allow for what
//! comes after the reading anyway; so neither a slot nor a replicating role is needed to read.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::catalog::{self, Publication};
use super::connection::{Connection, Purpose, Trouble, identifier, literal};
use super::opening::names;
use super::place::Place;
use super::quiet::{self, Stretch};
use super::settings::Settings;
use super::worker::push_shape;
use crate::batch::{NO_TIME, RawBatch, RawRecords};
use crate::config::PostgresSource;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::{Partition, Position, Progress, Span};
use crate::source::{Keys, Reached, Witness};
use crate::wire::pgoutput::{InsertWriter, Lsn};
use crate::wire::pgtype::RelationShape;

/// Payload bytes in one batch.
const BATCH_BYTES: usize = 1 << 20;
/// How often the log between two places is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The tables of a PostgreSQL server.
pub struct Tables {
    name: Arc<str>,
    settings: Settings,
    slot: String,
    publication: String,
    reading: Option<Reading>,
    /// The newest reading's stream, and where the log ended then.
    taken: (String, Lsn),
    /// What the last look at the log between two places found, and when.
    looked: Option<(Lsn, Lsn, Instant, Reached)>,
}

struct Reading {
    connection: Connection,
    /// What the decoder must know first.
    first: VecDeque<RelationShape>,
    table: u32,
    /// The value in hand.
    text: Vec<u8>,
    columns: usize,
    ended: bool,
}

impl Tables {
    /// Reads the tables of the source `name` of `topology`. Connects to nothing yet.
    pub fn new(name: &str, config: &PostgresSource, topology: &str) -> Result<Self> {
        let (slot, publication) = names(topology, name, config)?;
        Ok(Self {
            name: name.into(),
            settings: Settings::new(name, config)?,
            slot,
            publication,
            reading: None,
            taken: (String::new(), Lsn(0)),
            looked: None,
        })
    }

    fn doing(&self, stream: &str) -> String {
        format!("source {}: read the rows of {stream}", self.name)
    }

    /// Begins a reading; `Err(None)`: the server does not understand the keys.
    async fn begin(&mut self, stream: &str, keys: Option<&Keys>) -> Result<Vec<String>, Option<Error>> {
        let doing = self.doing(stream);
        let failed = |trouble: Trouble| trouble.error(&doing);
        let mut connection = Connection::open(&self.settings, Purpose::Query).await?;
        let version = connection.query("SHOW server_version_num").await.map_err(failed)?;
        let version = version.first().and_then(|row| row.text(0).parse().ok()).unwrap_or(0);
        connection.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.map_err(failed)?;
        let lsn = catalog::written(&mut connection).await.map_err(failed)?;
        let shown_by = Publication { name: &self.publication, version };
        let tables = catalog::tables(&mut connection, &[stream.to_owned()], shown_by).await.map_err(failed)?;
        let Some(table) = tables.first() else {
            return Err(Some(
                Error::new(ErrorKind::SourceRefused, doing)
                    .because("there is no such table that the role can see")
                    .help("correct `from:` in the topology, make the table, or grant USAGE on its schema"),
            ));
        };
        let shape = catalog::published(&mut connection, table, shown_by).await.map_err(failed)?;
        if shape.columns.is_empty() {
            let what = format!("the publication {} shows no column of it", self.publication);
            let error = Error::new(ErrorKind::SourceRefused, doing).because(what);
            return Err(Some(error.help("`dataflow run` makes the publication, or says the SQL that does")));
        }
        let columns: Vec<String> = shape.columns.iter().map(|column| column.name.clone()).collect();
        // Tables that inherit are tables of their own; partitions are not.
        let from = format!("{}{}", if table.partitioned { "" } else { "ONLY " }, table.sql_name);
        match connection.copy_out(&copy_sql(&from, &columns, keys)).await {
            Err(trouble) if keys.is_some() && is_about_keys(&trouble) => return Err(None),
            begun => begun.map_err(failed)?,
        }
        self.taken = (stream.to_owned(), lsn);
        self.reading = Some(Reading {
            connection,
            text: Vec::new(),
            table: table.id,
            columns: columns.len(),
            // Whatever the table's identity is: a row taken away is given as a whole.
            first: VecDeque::from([RelationShape { identity: 'f', ..shape }]),
            ended: false,
        });
        Ok(columns)
    }

    /// Whether what lies between the two places is nothing of the table; looked at now and then.
    async fn quiet_between(&mut self, from: Lsn) -> Result<Reached> {
        let (table, to) = (&self.taken.0, self.taken.1);
        if let Some((known_from, known_to, at, found)) = &self.looked
            && (*known_from, *known_to) == (from, to)
            && at.elapsed() < LOOK_EVERY
        {
            return Ok(found.clone());
        }
        let stretch = Stretch { slot: &self.slot, publication: &self.publication, table, from, to };
        let no = |why: &str| Reached::No(format!("the lake has read up to {from}, the table was read at {to}; {why}"));
        let found = match quiet::is_quiet(&self.settings, &stretch).await {
            Ok(true) => Reached::Yes,
            Ok(false) => no("the table has changed in between"),
            Err(error) => no(&format!("whether the table has changed in between is not known: {error}")),
        };
        self.looked = Some((from, to, Instant::now(), found.clone()));
        Ok(found)
    }
}

/// Whether the server refuses because of a value's form or a comparison that does not exist.
fn is_about_keys(trouble: &Trouble) -> bool {
    trouble.code().starts_with("22") || matches!(trouble.code(), "42883" | "42804")
}

fn copy_sql(table: &str, columns: &[String], keys: Option<&Keys>) -> String {
    let columns: Vec<String> = columns.iter().map(|name| identifier(name)).collect();
    let rows = keys.map(|keys| {
        let row =
            |values: &Vec<String>| format!("({})", values.iter().map(|v| literal(v)).collect::<Vec<_>>().join(", "));
        let names: Vec<String> = keys.columns.iter().map(|name| identifier(name)).collect();
        match keys.rows.is_empty() {
            true => " WHERE false".to_owned(),
            false => {
                let rows: Vec<String> = keys.rows.iter().map(row).collect();
                format!(" WHERE ({}) IN ({})", names.join(", "), rows.join(", "))
            }
        }
    });
    format!("COPY (SELECT {} FROM {table}{}) TO STDOUT", columns.join(", "), rows.unwrap_or_default())
}

impl Reading {
    /// Takes a line of COPY's text form over into a message of the stream.
    fn row(&mut self, line: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut writer = InsertWriter::new(out, self.table);
        for field in line.split(|byte| *byte == b'\t') {
            if field == b"\\N" {
                writer.null();
            } else {
                self.text.clear();
                unescape(field, &mut self.text);
                writer.text(&self.text);
            }
        }
        let found = writer.columns();
        if found != self.columns {
            let what = format!("a row has {found} values where {} were asked for", self.columns);
            return Err(Error::new(ErrorKind::Internal, what));
        }
        writer.finish();
        Ok(())
    }
}

/// Undoes the escapes of COPY's text form.
fn unescape(field: &[u8], out: &mut Vec<u8>) {
    let mut bytes = field.iter();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'\\' => match bytes.next() {
                Some(b'b') => 8,
                Some(b'f') => 12,
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                Some(b'v') => 11,
                Some(other) => *other,
                None => b'\\',
            },
            other => *other,
        });
    }
}

#[async_trait]
impl Witness for Tables {
    async fn read(&mut self, stream: &str, keys: Option<&Keys>) -> Result<Vec<String>> {
        let mut begun = self.begin(stream, keys).await;
        if matches!(begun, Err(None)) {
            begun = self.begin(stream, None).await;
        }
        begun.map_err(|error| error.unwrap_or_else(|| Error::new(ErrorKind::Internal, self.doing(stream))))
    }

    async fn next(&mut self) -> Result<Option<RawBatch>> {
        let doing = self.doing(&self.taken.0);
        let lsn = self.taken.1;
        let Some(reading) = self.reading.as_mut().filter(|reading| !reading.ended) else { return Ok(None) };
        let mut records = RawRecords::default();
        let mut ordinal = 0;
        while let Some(shape) = reading.first.pop_front() {
            push_shape(&mut records, lsn, (0, ordinal), NO_TIME, &shape);
        }
        while records.bytes() < BATCH_BYTES {
            let Some(lines) = reading.connection.copied().await.map_err(|trouble| trouble.error(&doing))? else {
                reading.ended = true;
                break;
            };
            for line in lines.pieces() {
                ordinal += 1;
                let written = records.push_written(lsn.0, (0, ordinal), NO_TIME, |out| reading.row(line, out));
                written.map_err(|error| error.doing(&doing))?;
            }
        }
        let position = || Position(lsn.to_string());
        let batch = RawBatch {
            partition: Partition::new(Arc::clone(&self.name), "verify"),
            generation: 0,
            span: Span { from: position(), to: position() },
            stream: None,
            records,
            inside_transaction: false,
        };
        if reading.ended {
            // With its connection the moment that it sees ends, which the server keeps old rows for.
            self.reading = None;
        }
        Ok(Some(batch))
    }

    fn gone(&self, record: &[u8]) -> Option<Vec<u8>> {
        // An insert is `I`, the relation, `N` and the new row; a delete `D`, the relation, `O` and the old row.
        if record.first() != Some(&b'I') || record.get(5) != Some(&b'N') {
            return None;
        }
        let mut gone = record.to_vec();
        (gone[0], gone[5]) = (b'D', b'O');
        Some(gone)
    }

    async fn reached(&mut self, progress: &Progress) -> Result<Reached> {
        let (stream, lsn) = (&self.taken.0, self.taken.1);
        let Some((_, standing)) = progress.of_source(&self.name).next() else {
            return Ok(Reached::No("nothing has been read of the source yet".to_owned()));
        };
        let place = Place::parse(&standing.position)?;
        if !place.tables.contains_key(stream) {
            return Ok(Reached::No("the rows that were there at the beginning are still being read".to_owned()));
        }
        match place.lsn >= lsn {
            true => Ok(Reached::Yes),
            false => self.quiet_between(place.lsn).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone() {
        let mut out = Vec::new();
        unescape(b"a\\tb\\nc\\\\d\\\\N\\b\\f\\r\\v", &mut out);
        assert_eq!(out, b"a\tb\nc\\d\\N\x08\x0c\r\x0b");
    }

    #[test]
    fn keys_become_a_condition_that_an_index_serves() {
        let keys = Keys { columns: vec!["a".into(), "b".into()], rows: vec![vec!["1".into(), "o'k".into()]] };
        let sql = copy_sql("ONLY t", &["a".to_owned()], Some(&keys));
        assert!(sql.ends_with("WHERE (\"a\", \"b\") IN (('1', 'o''k'))) TO STDOUT"), "{sql}");
        let none = Keys { rows: Vec::new(), ..keys };
        assert!(copy_sql("t", &[], Some(&none)).contains("WHERE false"));
    }
}
