//! What PostgreSQL says of its changes (`pgoutput`, version 1), read by the tests themselves.
//! <https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html>

/// A table as it is described before its first row.
#[derive(Debug, Clone)]
pub struct Relation {
    pub schema: String,
    pub table: String,
    pub columns: Vec<Column>,
}

/// One of its columns.
#[derive(Debug, Clone)]
pub struct Column {
    pub is_key: bool,
    pub name: String,
    pub type_oid: u32,
    pub type_modifier: i32,
}

/// A value of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    Null,
    /// Stored out of line and not changed: it is not said.
    Unchanged,
    Text(String),
}

/// What happened.
#[derive(Debug)]
pub enum Message {
    Begin {
        commit_time_us: i64,
        transaction: u32,
    },
    Relation(u32, Relation),
    Insert(u32, Vec<Cell>),
    /// The old key only where it is another one.
    Update(u32, Option<Vec<Cell>>, Vec<Cell>),
    Delete(u32, Vec<Cell>),
    Truncate(Vec<u32>),
    /// A commit, a type, an origin.
    Other,
}

/// Microseconds from 1970 to 2000, PostgreSQL's year zero.
const EPOCH_US: i64 = 946_684_800_000_000;

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (taken, rest) = self.0.split_first_chunk::<N>().unwrap();
        self.0 = rest;
        *taken
    }

    fn byte(&mut self) -> u8 {
        self.take::<1>()[0]
    }

    fn count(&mut self) -> u16 {
        u16::from_be_bytes(self.take())
    }

    fn number(&mut self) -> u32 {
        u32::from_be_bytes(self.take())
    }

    fn name(&mut self) -> String {
        let end = self.0.iter().position(|byte| *byte == 0).unwrap();
        let name = String::from_utf8(self.0[..end].to_vec()).unwrap();
        self.0 = &self.0[end + 1..];
        name
    }

    fn row(&mut self) -> Vec<Cell> {
        (0..self.count()).map(|_| self.cell()).collect()
    }

    fn cell(&mut self) -> Cell {
        match self.byte() {
            b'n' => Cell::Null,
            b'u' => Cell::Unchanged,
            b't' => {
                let bytes = self.number() as usize;
                let (text, rest) = self.0.split_at(bytes);
                self.0 = rest;
                Cell::Text(String::from_utf8(text.to_vec()).unwrap())
            }
            other => panic!("a value of kind {other}"),
        }
    }

    fn relation(&mut self) -> Relation {
        let (schema, table) = (self.name(), self.name());
        let _identity = self.byte();
        let column = |reader: &mut Self| Column {
            is_key: reader.byte() == 1,
            name: reader.name(),
            type_oid: reader.number(),
            type_modifier: reader.number().cast_signed(),
        };
        let columns = (0..self.count()).map(|_| column(self)).collect();
        Relation { schema, table, columns }
    }

    fn update(&mut self) -> Message {
        let relation = self.number();
        let mut old = None;
        loop {
            match self.byte() {
                b'N' => return Message::Update(relation, old, self.row()),
                _ => old = Some(self.row()),
            }
        }
    }
}

/// Reads a message.
pub fn read(bytes: &[u8]) -> Message {
    let mut reader = Reader(bytes);
    match reader.byte() {
        b'B' => {
            let _lsn: [u8; 8] = reader.take();
            let commit_time_us = i64::from_be_bytes(reader.take()) + EPOCH_US;
            Message::Begin { commit_time_us, transaction: reader.number() }
        }
        b'R' => Message::Relation(reader.number(), reader.relation()),
        b'I' => {
            let relation = reader.number();
            assert_eq!(reader.byte(), b'N');
            Message::Insert(relation, reader.row())
        }
        b'U' => reader.update(),
        b'D' => {
            let relation = reader.number();
            let _kind = reader.byte();
            Message::Delete(relation, reader.row())
        }
        b'T' => {
            let count = reader.number();
            let _options = reader.byte();
            Message::Truncate((0..count).map(|_| reader.number()).collect())
        }
        b'C' | b'Y' | b'O' => Message::Other,
        other => panic!("a message of kind {}", char::from(other)),
    }
}
