//! The rows of one table by binary COPY: as a whole, or part by part in the order of its key.
//!
//! What the decoder reads exactly from its binary form is sent so; everything else, and a key whose text is not certain
//! from it, as the text that the stream would bring (`concat` writes values as a type's output function does; a cast does
//! not).

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::catalog::{self, CatalogTable, OrderColumn};
use super::connection::{Connection, Trouble, identifier, literal};
use super::place::Reading;
use super::worker::{Job, push_shape, unwanted};
use crate::batch::RawRecords;
use crate::error::{Error, ErrorKind, Result};
use crate::wire::pgcopy::{BadCopy, CopyRow, CopyRows};
use crate::wire::pgoutput::{Datum, InsertWriter, Lsn, Message, parse};
use crate::wire::pgtype::{ColumnShape, RelationShape};

/// Payload bytes in one piece.
const PIECE_BYTES: usize = 1 << 20;
/// Rows of the first part of a table whose rows nobody has measured.
const FIRST_ROWS: u64 = 10_000;
/// How often the log says how far a table is.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Rows of a table.
pub(super) struct Part {
    pub table: String,
    pub records: RawRecords,
    pub step: Step,
}

/// What a part says of the reading that it belongs to.
pub(super) enum Step {
    /// It begins.
    Begin(Box<Reading>),
    /// So many rows, and the key of the last one.
    Rows(u64, Vec<String>),
    /// It is at its end.
    End,
}

/// How far a table is, in this process.
pub(super) struct Cursor {
    /// The key of the row that was read last.
    pub after: Vec<String>,
    /// Rows read, and about how many there are.
    pub rows: u64,
    pub of: u64,
    /// Bytes and rows that this process has read.
    bytes: u64,
    own_rows: u64,
    begun: Instant,
    said: Instant,
}

impl Cursor {
    /// Goes on behind `after`.
    pub fn new(after: Vec<String>, rows: u64, of: u64) -> Self {
        let now = Instant::now();
        Self { after, rows, of, bytes: 0, own_rows: 0, begun: now, said: now }
    }

    /// Rows of the next part.
    pub fn next_rows(&self, job: &Job) -> u64 {
        let most = job.snapshot.chunk_rows.get();
        match self.bytes.checked_div(self.own_rows) {
            Some(each) => (job.snapshot.chunk_bytes.0 / each.max(1)).clamp(1, most),
            None => most.min(FIRST_ROWS),
        }
    }

    /// A row was read.
    fn count(&mut self, bytes: usize) {
        self.rows += 1;
        self.own_rows += 1;
        self.bytes += bytes as u64;
    }

    /// Says how far it is, now and then.
    fn say(&mut self, job: &Job, table: &str) {
        if self.said.elapsed() < SAY_EVERY {
            return;
        }
        self.said = Instant::now();
        let percent = (self.rows.min(self.of) * 100).checked_div(self.of);
        let missing = self.of.saturating_sub(self.rows) as f64;
        let left_s = (missing / self.own_rows.max(1) as f64 * self.begun.elapsed().as_secs_f64()) as u64;
        tracing::info!(
            source = &*job.name,
            table,
            rows = self.rows,
            of = self.of,
            percent,
            left_s,
            "reading the rows that are there"
        );
    }
}

/// Where in the order of changes rows stand.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    pub lsn: Lsn,
    pub time_us: i64,
}

/// What reads one table.
pub(super) struct TableReader {
    pub table: CatalogTable,
    pub shape: RelationShape,
    /// The columns that rows are ordered by; none: it is read as a whole.
    pub order: Vec<OrderColumn>,
    /// Per column: whether it comes in its binary form.
    binary: Vec<bool>,
    /// Where the columns of the order are.
    places: Vec<usize>,
}

impl TableReader {
    /// Looks the table up; `None` when it is not there any more.
    pub async fn find(connection: &mut Connection, job: &Job, name: &str) -> Result<Option<Self>> {
        let failed = |trouble: Trouble| trouble.error(format!("source {}: look up {name}", job.name));
        let mut found = catalog::tables(connection, &[name.to_owned()], job.shown_by()).await.map_err(failed)?;
        let Some(table) = found.pop() else { return Ok(None) };
        let order = catalog::order(connection, table.id, table.identity).await.map_err(failed)?;
        let shape = catalog::published(connection, &table, job.shown_by()).await.map_err(failed)?;
        Ok(Some(Self::new(table, shape, order)))
    }

    fn new(table: CatalogTable, shape: RelationShape, mut order: Vec<OrderColumn>) -> Self {
        let place = |name: &String| shape.columns.iter().position(|column| column.name == *name);
        let mut places: Vec<usize> = order.iter().filter_map(|column| place(&column.name)).collect();
        if places.len() < order.len() {
            // A column list leaves a part of the key out.
            (order, places) = (Vec::new(), Vec::new());
        }
        let is_binary = |(at, column): (usize, &ColumnShape)| match places.contains(&at) {
            true => column.kind.is_exact_key(),
            false => column.kind.binary().is_some(),
        };
        let binary = shape.columns.iter().enumerate().map(is_binary).collect();
        Self { table, shape, order, binary, places }
    }

    /// About how many rows there are; 0 while a lock keeps that from being had.
    pub async fn measure(&mut self, connection: &mut Connection) -> Result<u64, Trouble> {
        if self.table.estimate.is_none() {
            self.table.estimate = match catalog::measure(connection, &self.table).await {
                Err(trouble) if trouble.code() == "55P03" => None,
                measured => Some(measured?),
            };
        }
        Ok(self.table.estimate.unwrap_or(0))
    }

    /// What changes when its columns do.
    pub fn hash(&self) -> u32 {
        // Plain data always has a JSON form.
        crc32fast::hash(&serde_json::to_vec(&self.shape).unwrap_or_default()).max(1)
    }

    /// The names of the columns of its order.
    pub fn key(&self) -> Vec<String> {
        self.order.iter().map(|column| column.name.clone()).collect()
    }

    fn select(&self) -> String {
        let column = |(column, binary): (&ColumnShape, &bool)| {
            let name = identifier(&column.name);
            if *binary { name } else { format!("CASE WHEN {name} IS DISTINCT FROM NULL THEN concat({name}) END") }
        };
        let columns: Vec<String> = self.shape.columns.iter().zip(&self.binary).map(column).collect();
        // Tables that inherit are tables of their own; partitions are not.
        let only = if self.table.partitioned { "" } else { "ONLY " };
        format!("SELECT {} FROM {only}{}", columns.join(", "), self.table.sql_name)
    }

    fn order_list(&self) -> String {
        self.order.iter().map(|column| identifier(&column.name)).collect::<Vec<_>>().join(", ")
    }

    fn values(&self, key: &[String]) -> String {
        let value = |(text, column): (&String, &OrderColumn)| format!("{}::{}", literal(text), column.kind);
        key.iter().zip(&self.order).map(value).collect::<Vec<_>>().join(", ")
    }

    /// All rows.
    pub fn all(&self) -> String {
        self.select()
    }

    /// The next rows in the order of the key.
    pub fn next_part(&self, after: &[String], rows: u64) -> String {
        let order = self.order_list();
        let from = match after {
            [] => String::new(),
            after => format!(" WHERE ({order}) > ({})", self.values(after)),
        };
        format!("{}{from} ORDER BY {order} LIMIT {rows}", self.select())
    }

    /// The rows of those keys, as far as they are there.
    pub fn of_keys<'k>(&self, keys: impl Iterator<Item = &'k Vec<String>>) -> String {
        let keys: Vec<String> = keys.map(|key| format!("({})", self.values(key))).collect();
        let order = self.order_list();
        format!("{} WHERE ({order}) IN ({}) ORDER BY {order}", self.select(), keys.join(", "))
    }

    /// What the decoder needs before rows.
    pub fn describe(&self, at: At) -> RawRecords {
        let mut records = RawRecords::default();
        push_shape(&mut records, at.lsn, (0, 0), at.time_us, &self.shape);
        records
    }

    /// Copies what `select` selects out; how many rows that were.
    pub async fn copy(
        &self,
        connection: &mut Connection,
        job: &Job,
        select: &str,
        at: At,
        cursor: &mut Cursor,
        give: &mpsc::Sender<Part>,
    ) -> Result<u64> {
        let doing = format!("source {}: read the rows of {}", job.name, self.table.name);
        let failed = |trouble: Trouble| trouble.error(&doing);
        let bad = |why: BadCopy| Error::new(ErrorKind::SourceUnavailable, &doing).because(why);
        connection.copy_out(&format!("COPY ({select}) TO STDOUT (FORMAT binary)")).await.map_err(failed)?;
        let mut copy = CopyRows::default();
        let (mut total, mut fresh) = (0, 0);
        let mut records = self.describe(at);
        while let Some(copied) = connection.copied().await.map_err(failed)? {
            for piece in copied.pieces() {
                copy.feed(piece).map_err(bad)?;
            }
            while let Some(row) = copy.next_row().map_err(bad)? {
                let (before, ordinal) = (records.bytes(), u32::try_from(cursor.rows + 1).unwrap_or(u32::MAX));
                records.push_written(at.lsn.0, (0, ordinal), at.time_us, |out| self.write(row, out))?;
                (total, fresh) = (total + 1, fresh + 1);
                cursor.count(records.bytes() - before);
                if records.bytes() >= PIECE_BYTES {
                    let next = RawRecords::with_room_of(&records);
                    self.give(std::mem::replace(&mut records, next), std::mem::take(&mut fresh), cursor, give).await?;
                    cursor.say(job, &self.table.name);
                }
            }
        }
        copy.finish().map_err(bad)?;
        if fresh > 0 {
            self.give(records, fresh, cursor, give).await?;
        }
        Ok(total)
    }

    async fn give(&self, records: RawRecords, rows: u64, cursor: &mut Cursor, to: &mpsc::Sender<Part>) -> Result<()> {
        cursor.after = self.key_of_last(&records)?;
        let step = Step::Rows(rows, cursor.after.clone());
        to.send(Part { table: self.table.name.clone(), records, step }).await.map_err(|_| unwanted())
    }

    /// Takes a row over into a message of the stream.
    fn write(&self, row: CopyRow<'_>, out: &mut Vec<u8>) -> Result<()> {
        if row.len() != self.binary.len() {
            let (name, got, asked) = (&self.table.name, row.len(), self.binary.len());
            let what = format!("read {name}: a row has {got} values where {asked} were asked for");
            return Err(Error::new(ErrorKind::Internal, what));
        }
        let mut writer = InsertWriter::new(out, self.table.id);
        for (value, binary) in row.iter().zip(&self.binary) {
            match value {
                None => writer.null(),
                Some(bytes) if *binary => writer.binary(bytes),
                Some(text) => writer.text(text),
            }
        }
        writer.finish();
        Ok(())
    }

    /// The key of the row that was taken over last, as text.
    fn key_of_last(&self, records: &RawRecords) -> Result<Vec<String>> {
        if self.places.is_empty() {
            return Ok(Vec::new());
        }
        let last = records.len().checked_sub(1).and_then(|last| records.get(last)?.value());
        let Some(Ok(Message::Insert { new, .. })) = last.map(|message| parse(message, false)) else {
            return Err(self.keyless());
        };
        let part = |place: &usize| {
            let text = match new.iter().nth(*place)? {
                Datum::Text(text) => String::from_utf8_lossy(text).into_owned(),
                Datum::Binary(bytes) => self.shape.columns[*place].kind.key_text(bytes)?,
                Datum::Null | Datum::Unchanged => return None,
            };
            Some(text)
        };
        self.places.iter().map(part).collect::<Option<_>>().ok_or_else(|| self.keyless())
    }

    fn keyless(&self) -> Error {
        let what = format!("read {}: the key of its last row cannot be read", self.table.name);
        Error::new(ErrorKind::Internal, what)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::wire::pgtype::{ColumnShape, TypeShape};

    fn reader(order: &[(&str, &str)]) -> TableReader {
        let column = |name: &str, kind: &str| ColumnShape {
            name: name.into(),
            kind: TypeShape::plain(kind),
            key: false,
            identity: false,
        };
        let table = CatalogTable {
            id: 7,
            name: "public.t".into(),
            sql_name: "\"public\".\"t\"".into(),
            identity: 'd',
            partitioned: false,
            has_key: true,
            may_select: true,
            may_use_schema: true,
            owned: true,
            generated: Vec::new(),
            estimate: Some(0),
            state: crate::source::postgres::silent::TableState::default(),
        };
        let columns = vec![column("a", "int4"), column("b", "text"), column("c", "inet"), column("d", "date")];
        let shape = RelationShape { id: 7, name: "public.t".into(), identity: 'd', columns };
        let order = order.iter().map(|(name, kind)| OrderColumn { name: (*name).into(), kind: (*kind).into() });
        TableReader::new(table, shape, order.collect())
    }

    #[test]
    fn what_has_no_exact_binary_form_comes_as_text() {
        let text = |name: &str| format!("CASE WHEN \"{name}\" IS DISTINCT FROM NULL THEN concat(\"{name}\") END");
        let reader = reader(&[("b", "text"), ("a", "integer")]);
        let select = format!("SELECT \"a\", \"b\", {}, \"d\" FROM ONLY \"public\".\"t\"", text("c"));
        assert_eq!(reader.next_part(&[], 5), format!("{select} ORDER BY \"b\", \"a\" LIMIT 5"));
        let key = ["it's".to_owned(), "7".to_owned()];
        assert_eq!(
            reader.next_part(&key, 5),
            format!("{select} WHERE (\"b\", \"a\") > ('it''s'::text, '7'::integer) ORDER BY \"b\", \"a\" LIMIT 5")
        );
        assert_eq!(
            reader.of_keys([key.to_vec()].iter()),
            format!("{select} WHERE (\"b\", \"a\") IN (('it''s'::text, '7'::integer)) ORDER BY \"b\", \"a\"")
        );
    }

    #[test]
    fn a_date_is_exact_as_a_value_and_not_as_a_key() {
        let text = "CASE WHEN \"d\" IS DISTINCT FROM NULL THEN concat(\"d\") END FROM";
        assert!(reader(&[("d", "date")]).all().contains(text));
        assert!(!reader(&[("a", "integer")]).all().contains(text));
    }

    #[test]
    fn the_key_of_the_last_row_is_the_text_that_the_server_would_write() {
        let reader = reader(&[("b", "text"), ("a", "integer")]);
        let row = |id: i32, name: &[u8], records: &mut RawRecords| {
            records.push_written(1, (0, 1), 0, |out| {
                let mut writer = InsertWriter::new(out, 7);
                writer.binary(&id.to_be_bytes());
                writer.binary(name);
                writer.null();
                writer.null();
                writer.finish();
            });
        };
        let mut records = RawRecords::default();
        row(7, b"first", &mut records);
        row(-8, "it's".as_bytes(), &mut records);
        assert_eq!(reader.key_of_last(&records).unwrap(), ["it's", "-8"]);
        assert!(reader.key_of_last(&RawRecords::default()).is_err());
    }

    #[test]
    fn keys_are_written_as_the_server_writes_them() {
        let text = |kind: &str, bytes: &[u8]| TypeShape::plain(kind).key_text(bytes);
        assert_eq!(text("int2", &(-5i16).to_be_bytes()).as_deref(), Some("-5"));
        assert_eq!(text("int8", &i64::MIN.to_be_bytes()).as_deref(), Some("-9223372036854775808"));
        assert_eq!(text("oid", &u32::MAX.to_be_bytes()).as_deref(), Some("4294967295"));
        assert_eq!(text("bpchar", b"ab  ").as_deref(), Some("ab  "));
        let uuid = u128::to_be_bytes(0xa0eebc99_9c0b_4ef8_bb6d_6bb9bd380a11);
        assert_eq!(text("uuid", &uuid).as_deref(), Some("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"));
        for (kind, bytes) in [("int4", &b"123"[..]), ("uuid", b"short"), ("date", &[0; 4]), ("money", &[0; 8])] {
            assert_eq!(text(kind, bytes), None, "{kind}");
        }
    }

    #[test]
    fn a_table_without_a_key_that_is_published_is_read_as_a_whole() {
        let reader = reader(&[("gone", "integer")]);
        assert!(reader.order.is_empty());
        assert!(reader.all().starts_with("SELECT \"a\", \"b\", CASE"), "{}", reader.all());
    }
}
