//! The messages of PostgreSQL's logical replication plug-in `pgoutput`, protocol versions 1 to 4.
//!
//! ```text
//! B  (R|Y|O|I|U|D|T|M)*  C                          a transaction, after its commit
//! S xid (R|Y|I|U|D|T|M)* E … S … E   c xid | A xid  a large one while it runs: segments of several interleave
//! M                                                 a logical message outside a transaction
//! ```
//!
//! Inside `S`…`E` every message carries the number of the (sub-)transaction that it belongs to; `A` with a
//! sub-transaction takes back what that one did and nothing else. A tuple has one entry per column of the newest `R`;
//! in an old tuple of kind `K` only the columns of the replica identity are data, the others are sent as null.

use std::fmt;

/// A place in the write-ahead log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl std::str::FromStr for Lsn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let half = |half: &str| u32::from_str_radix(half, 16).map_err(|_| format!("`{text}` is not an LSN"));
        let (high, low) = text.split_once('/').ok_or_else(|| format!("`{text}` is not an LSN"))?;
        Ok(Self(u64::from(half(high)?) << 32 | u64::from(half(low)?)))
    }
}

impl serde::Serialize for Lsn {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Lsn {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Microseconds from 1970-01-01 to 2000-01-01, where PostgreSQL begins to count.
const EPOCH_US: i64 = 946_684_800_000_000;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    Begin {
        /// Where the commit record is.
        commit: Lsn,
        /// Microseconds since 1970.
        time_us: i64,
        xid: u32,
    },
    Commit {
        commit: Lsn,
        /// Where the transaction ends: what is to be acknowledged.
        end: Lsn,
        time_us: i64,
    },
    /// The transaction was replicated from elsewhere.
    Origin {
        name: &'a str,
    },
    Relation(Relation<'a>),
    /// A type that is not built in.
    Type {
        xid: Option<u32>,
        id: u32,
        schema: &'a str,
        name: &'a str,
    },
    Insert {
        xid: Option<u32>,
        relation: u32,
        new: Tuple<'a>,
    },
    Update {
        xid: Option<u32>,
        relation: u32,
        old: Option<Old<'a>>,
        new: Tuple<'a>,
    },
    Delete {
        xid: Option<u32>,
        relation: u32,
        old: Old<'a>,
    },
    Truncate {
        xid: Option<u32>,
        relations: Vec<u32>,
        cascade: bool,
        restart_identity: bool,
    },
    /// What `pg_logical_emit_message` wrote.
    Logical {
        xid: Option<u32>,
        transactional: bool,
        lsn: Lsn,
        prefix: &'a str,
        content: &'a [u8],
    },
    StreamStart {
        xid: u32,
        first: bool,
    },
    StreamStop,
    StreamCommit {
        xid: u32,
        commit: Lsn,
        end: Lsn,
        time_us: i64,
    },
    /// `subxid` differs from `xid` when only a sub-transaction was rolled back.
    StreamAbort {
        xid: u32,
        subxid: u32,
    },
}

/// A relation: sent before its first row and after every change of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation<'a> {
    pub xid: Option<u32>,
    pub id: u32,
    /// Empty for `pg_catalog`.
    pub schema: &'a str,
    pub name: &'a str,
    /// `d`, `n`, `f` or `i`.
    pub identity: u8,
    pub columns: Vec<RelationColumn<'a>>,
}

/// A column of a relation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelationColumn<'a> {
    /// Part of the replica identity; with identity `f` every column is.
    pub key: bool,
    pub name: &'a str,
    pub type_id: u32,
    pub modifier: i32,
}

/// An old row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Old<'a> {
    /// Only the columns of the replica identity are data.
    Key(Tuple<'a>),
    /// The whole row.
    Full(Tuple<'a>),
}

impl<'a> Old<'a> {
    /// The values.
    pub fn tuple(&self) -> Tuple<'a> {
        match self {
            Self::Key(tuple) | Self::Full(tuple) => *tuple,
        }
    }
}

/// The values of a row, checked to be whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple<'a> {
    count: u16,
    bytes: &'a [u8],
}

/// One value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datum<'a> {
    Null,
    /// A value that is stored apart and was not changed: it is not sent.
    Unchanged,
    Text(&'a [u8]),
    Binary(&'a [u8]),
}

impl<'a> Tuple<'a> {
    /// The number of values.
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The values in column order.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = Datum<'a>> + use<'a> {
        let mut bytes = Bytes(self.bytes);
        (0..self.count).map_while(move |_| bytes.datum().ok())
    }
}

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("it ends in the middle of a message")]
    Short,
    #[error("it has {0} bytes more than its message")]
    Long(usize),
    #[error("a name in it is not UTF-8; the connection must speak UTF-8")]
    Encoding,
    #[error("`{0}` is no message of protocol versions 1 to 4")]
    Unknown(char),
    #[error("`{0}` is no kind of tuple or value")]
    Kind(char),
    #[error(
        "it is a message of a two-phase commit (`{0}`), which was not asked for: create the slot with two_phase off"
    )]
    TwoPhase(char),
}

/// Reads one message. `streaming`: it stands between `S` and `E`.
pub fn parse(bytes: &[u8], streaming: bool) -> Result<Message<'_>, Malformed> {
    let mut rest = Bytes(bytes);
    let tag = rest.u8()?;
    let message = match tag {
        b'B' => Message::Begin { commit: rest.lsn()?, time_us: rest.time()?, xid: rest.u32()? },
        b'C' => {
            rest.u8()?;
            Message::Commit { commit: rest.lsn()?, end: rest.lsn()?, time_us: rest.time()? }
        }
        b'O' => {
            rest.lsn()?;
            Message::Origin { name: rest.text()? }
        }
        b'S' => Message::StreamStart { xid: rest.u32()?, first: rest.u8()? != 0 },
        b'E' => Message::StreamStop,
        b'c' => {
            let xid = rest.u32()?;
            rest.u8()?;
            Message::StreamCommit { xid, commit: rest.lsn()?, end: rest.lsn()?, time_us: rest.time()? }
        }
        b'A' => {
            let abort = Message::StreamAbort { xid: rest.u32()?, subxid: rest.u32()? };
            if !rest.0.is_empty() {
                // Version 4 with parallel streaming adds where and when.
                rest.lsn()?;
                rest.time()?;
            }
            abort
        }
        b'b' | b'P' | b'K' | b'r' | b'p' => return Err(Malformed::TwoPhase(char::from(tag))),
        b'R' | b'Y' | b'I' | b'U' | b'D' | b'T' | b'M' => {
            let xid = if streaming { Some(rest.u32()?) } else { None };
            rest.change(tag, xid)?
        }
        other => return Err(Malformed::Unknown(char::from(other))),
    };
    if rest.0.is_empty() { Ok(message) } else { Err(Malformed::Long(rest.0.len())) }
}

/// The relation of an insert, of a delete, or of an update whose old row does not come by its key alone: what can be told
/// without reading the row. `None` for any other message.
#[inline]
pub fn relation_of_row(bytes: &[u8]) -> Option<u32> {
    let (head, _) = bytes.split_first_chunk::<6>()?;
    match head {
        [b'I', id @ .., b'N'] | [b'U', id @ .., b'N' | b'O'] | [b'D', id @ .., b'K' | b'O'] => {
            Some(u32::from_be_bytes(*id))
        }
        _ => None,
    }
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    #[inline]
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(head)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn i32(&mut self) -> Result<i32, Malformed> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    fn lsn(&mut self) -> Result<Lsn, Malformed> {
        Ok(Lsn(u64::from_be_bytes(self.array()?)))
    }

    fn time(&mut self) -> Result<i64, Malformed> {
        Ok(i64::from_be_bytes(self.array()?).saturating_add(EPOCH_US))
    }

    fn text(&mut self) -> Result<&'a str, Malformed> {
        let end = memchr::memchr(0, self.0).ok_or(Malformed::Short)?;
        let text = self.take(end)?;
        self.u8()?;
        simdutf8::basic::from_utf8(text).map_err(|_| Malformed::Encoding)
    }

    #[inline]
    fn datum(&mut self) -> Result<Datum<'a>, Malformed> {
        match self.u8()? {
            b'n' => Ok(Datum::Null),
            b'u' => Ok(Datum::Unchanged),
            b't' => {
                let len = self.u32()?;
                Ok(Datum::Text(self.take(len as usize)?))
            }
            b'b' => {
                let len = self.u32()?;
                Ok(Datum::Binary(self.take(len as usize)?))
            }
            other => Err(Malformed::Kind(char::from(other))),
        }
    }

    fn tuple(&mut self) -> Result<Tuple<'a>, Malformed> {
        let count = self.u16()?;
        let all = self.0;
        for _ in 0..count {
            self.datum()?;
        }
        Ok(Tuple { count, bytes: &all[..all.len() - self.0.len()] })
    }

    fn old(&mut self, kind: u8) -> Result<Old<'a>, Malformed> {
        match kind {
            b'K' => Ok(Old::Key(self.tuple()?)),
            b'O' => Ok(Old::Full(self.tuple()?)),
            other => Err(Malformed::Kind(char::from(other))),
        }
    }

    /// A message that may stand in a streamed block.
    fn change(&mut self, tag: u8, xid: Option<u32>) -> Result<Message<'a>, Malformed> {
        match tag {
            b'R' => Ok(Message::Relation(self.relation(xid)?)),
            b'Y' => Ok(Message::Type { xid, id: self.u32()?, schema: self.text()?, name: self.text()? }),
            b'I' => {
                let relation = self.u32()?;
                self.new_tag()?;
                Ok(Message::Insert { xid, relation, new: self.tuple()? })
            }
            b'U' => {
                let relation = self.u32()?;
                let kind = self.u8()?;
                let old = if kind == b'N' {
                    None
                } else {
                    let old = self.old(kind)?;
                    self.new_tag()?;
                    Some(old)
                };
                Ok(Message::Update { xid, relation, old, new: self.tuple()? })
            }
            b'D' => {
                let relation = self.u32()?;
                let kind = self.u8()?;
                Ok(Message::Delete { xid, relation, old: self.old(kind)? })
            }
            b'T' => {
                let count = self.u32()?;
                let options = self.u8()?;
                let relations = (0..count).map(|_| self.u32()).collect::<Result<_, _>>()?;
                Ok(Message::Truncate { xid, relations, cascade: options & 1 != 0, restart_identity: options & 2 != 0 })
            }
            _ => {
                let (flags, lsn, prefix) = (self.u8()?, self.lsn()?, self.text()?);
                let len = self.u32()?;
                let content = self.take(len as usize)?;
                Ok(Message::Logical { xid, transactional: flags & 1 != 0, lsn, prefix, content })
            }
        }
    }

    fn new_tag(&mut self) -> Result<(), Malformed> {
        match self.u8()? {
            b'N' => Ok(()),
            other => Err(Malformed::Kind(char::from(other))),
        }
    }

    fn relation(&mut self, xid: Option<u32>) -> Result<Relation<'a>, Malformed> {
        let (id, schema, name, identity) = (self.u32()?, self.text()?, self.text()?, self.u8()?);
        let count = self.u16()?;
        let column = |_| {
            Ok(RelationColumn {
                key: self.u8()? & 1 != 0,
                name: self.text()?,
                type_id: self.u32()?,
                modifier: self.i32()?,
            })
        };
        let columns = (0..count).map(column).collect::<Result<_, _>>()?;
        Ok(Relation { xid, id, schema, name, identity, columns })
    }
}

/// Writes an insert as the server would, at the end of a buffer: what a snapshot reads takes the same way as what the
/// stream brings.
#[derive(Debug)]
pub struct InsertWriter<'o> {
    out: &'o mut Vec<u8>,
    /// Where its number of columns stands.
    count_at: usize,
    columns: u16,
}

impl<'o> InsertWriter<'o> {
    /// An insert into `relation` without values so far.
    pub fn new(out: &'o mut Vec<u8>, relation: u32) -> Self {
        out.push(b'I');
        out.extend_from_slice(&relation.to_be_bytes());
        out.extend_from_slice(b"N\0\0");
        Self { count_at: out.len() - 2, out, columns: 0 }
    }

    /// Adds a null.
    #[inline]
    pub fn null(&mut self) {
        self.out.push(b'n');
        self.columns += 1;
    }

    /// Adds a value's text.
    #[inline]
    pub fn text(&mut self, text: &[u8]) {
        self.value(b't', text);
    }

    /// Adds a value in its binary form.
    #[inline]
    pub fn binary(&mut self, bytes: &[u8]) {
        self.value(b'b', bytes);
    }

    #[inline]
    fn value(&mut self, kind: u8, bytes: &[u8]) {
        let [a, b, c, d] = (bytes.len() as u32).to_be_bytes();
        self.out.reserve(bytes.len() + 5);
        self.out.extend_from_slice(&[kind, a, b, c, d]);
        self.out.extend_from_slice(bytes);
        self.columns += 1;
    }

    /// The number of values so far.
    pub fn columns(&self) -> usize {
        usize::from(self.columns)
    }

    /// Ends the message.
    pub fn finish(self) {
        self.out[self.count_at..self.count_at + 2].copy_from_slice(&self.columns.to_be_bytes());
    }
}

/// A truncate as the server would write it.
pub fn truncate_message(relations: &[u32]) -> Vec<u8> {
    let mut bytes = vec![b'T'];
    bytes.extend((relations.len() as u32).to_be_bytes());
    bytes.push(0);
    relations.iter().for_each(|relation| bytes.extend(relation.to_be_bytes()));
    bytes
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
