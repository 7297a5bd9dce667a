//! Events of sessions: statements, transactions and their identifiers, heartbeats, and what says nothing about data.

use std::borrow::Cow;

use super::Malformed;
use super::bytes::Bytes;
use super::compress::inflate;
use super::event::{Body, Header, code};
use crate::wire::gtid::{MariaGtid, MysqlGtidSet, Tag, Uuid};
use crate::wire::mysqlcharset::{Charset, of_collation};

/// A statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query<'a> {
    /// The connection that ran it.
    pub thread: u32,
    /// What it ended with; 0 when it went well.
    pub error: u16,
    /// The `sql_mode` that it ran under, in the server's bits.
    pub mode: u64,
    /// The database that it ran in; may be empty.
    pub database: Cow<'a, str>,
    /// Its text. What is not text in the character set that it was sent in stands as U+FFFD.
    pub text: Cow<'a, str>,
}

/// A transaction of MySQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gtid {
    /// The server that it was committed on first.
    pub uuid: Uuid,
    pub tag: Option<Tag>,
    pub number: u64,
    /// When the server that sends it committed it, in microseconds since 1970; not said before 8.0.1.
    pub commit_us: Option<i64>,
}

/// Where an idle server stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat<'a> {
    pub file: &'a str,
    /// Modulo 2³² in the old form.
    pub position: u64,
}

/// A transaction of two phases that is prepared: its fate comes later as `XA COMMIT` or `XA ROLLBACK`, and its changes
/// stand before this event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XaPrepare<'a> {
    /// It is committed at once.
    pub one_phase: bool,
    pub format: u32,
    pub global: &'a [u8],
    pub branch: &'a [u8],
}

/// The bodies that are no table maps and no rows.
pub(super) fn body(header: Header, mut body: Bytes<'_>) -> Result<Body<'_>, Malformed> {
    Ok(match header.code {
        code::QUERY => Body::Query(query(body, 0, false)?),
        code::MARIA_QUERY_COMPRESSED => Body::Query(query(body, 0, true)?),
        code::EXECUTE_LOAD_QUERY => Body::Query(query(body, LOAD_HEAD, false)?),
        code::STOP => Body::Stop,
        code::ROTATE => Body::Rotate { position: body.u64()?, file: Bytes::utf8(body.0)? },
        code::XID => Body::Xid(body.u64()?),
        code::GTID => Body::Gtid(gtid(body)?),
        code::GTID_TAGGED => Body::Gtid(tagged(body)?),
        code::ANONYMOUS_GTID => Body::Anonymous { commit_us: gtid(body)?.commit_us },
        code::PREVIOUS_GTIDS => Body::PreviousGtids(MysqlGtidSet::decode(body.0)?),
        code::MARIA_GTID => maria_gtid(header, body)?,
        code::MARIA_GTID_LIST => Body::MariaGtidList(maria_list(body)?),
        code::MARIA_ANNOTATE_ROWS => Body::Annotate(body.0),
        code::ROWS_QUERY => {
            body.u8()?;
            Body::Annotate(body.0)
        }
        code::MARIA_CHECKPOINT => {
            let length = body.u32()?;
            Body::Checkpoint(body.take(length as usize)?)
        }
        code::MARIA_START_ENCRYPTION => return Err(Malformed::Encrypted),
        code::HEARTBEAT => {
            Body::Heartbeat(Heartbeat { file: Bytes::utf8(body.0)?, position: u64::from(header.log_pos) })
        }
        code::HEARTBEAT_V2 => Body::Heartbeat(heartbeat(body)?),
        code::XA_PREPARE => Body::XaPrepare(xa(body)?),
        code::INCIDENT => {
            let code = body.u16()?;
            let length = body.u8()?;
            Body::Incident { code, message: String::from_utf8_lossy(body.take(usize::from(length))?).into_owned() }
        }
        // The statement itself follows as a query.
        code::INTVAR | code::RAND | code::USER_VAR => Body::Nothing,
        code::BEGIN_LOAD_QUERY | code::APPEND_BLOCK | code::DELETE_FILE => Body::Nothing,
        code::TRANSACTION_CONTEXT | code::VIEW_CHANGE | code::IGNORABLE | code::AURORA_PADDING => Body::Nothing,
        1 | 6..=8 | 10 | 12 | 20..=22 => return Err(Malformed::Ancient(header.code)),
        _ if header.flags & Header::IGNORABLE_FLAG != 0 => Body::Nothing,
        other => return Err(Malformed::Unknown(other)),
    })
}

/// What a `LOAD DATA` says besides: the number of its file, where the file's name stands in the text, what becomes of
/// rows that are there.
const LOAD_HEAD: usize = 4 + 4 + 4 + 1;

fn query(mut body: Bytes<'_>, more: usize, compressed: bool) -> Result<Query<'_>, Malformed> {
    let thread = body.u32()?;
    body.u32()?;
    let database = body.u8()?;
    let error = body.u16()?;
    let variables = body.u16()?;
    body.take(more)?;
    let variables = body.take(usize::from(variables))?;
    let database = body.take(usize::from(database))?;
    body.u8()?;
    let (mode, charset) = session(variables);
    let charset = charset.unwrap_or(Charset::Utf8);
    let text = if compressed {
        Cow::Owned(text_in(charset, &inflate(body.0)?).into_owned())
    } else {
        text_in(charset, body.0)
    };
    // Names of databases are UTF-8, whatever the statement is.
    Ok(Query { thread, error, mode, database: String::from_utf8_lossy(database), text })
}

fn text_in(charset: Charset, bytes: &[u8]) -> Cow<'_, str> {
    charset.decode(bytes).unwrap_or_else(|| String::from_utf8_lossy(bytes))
}

/// The mode that the statement ran under and the character set that it was sent in, from its status variables.
fn session(variables: &[u8]) -> (u64, Option<Charset>) {
    let mut mode = 0;
    let charset = client_charset(Bytes(variables), &mut mode);
    (mode, charset)
}

fn client_charset(mut rest: Bytes<'_>, mode: &mut u64) -> Option<Charset> {
    loop {
        // Flags, mode, catalogue and increments stand before it, in this order; what comes later is not needed.
        let skip = match rest.u8().ok()? {
            0 | 3 => 4,
            1 => {
                *mode = rest.u64().ok()?;
                0
            }
            2 => usize::from(rest.u8().ok()?) + 1,
            6 => usize::from(rest.u8().ok()?),
            4 => return Charset::named(of_collation(u64::from(rest.u16().ok()?))?),
            _ => return None,
        };
        rest.take(skip).ok()?;
    }
}

fn gtid(mut body: Bytes<'_>) -> Result<Gtid, Malformed> {
    const LOGICAL_CLOCK: u8 = 2;
    body.u8()?;
    let uuid = Uuid(body.array()?);
    let number = body.u64()?;
    let mut commit_us = None;
    if !body.0.is_empty() && body.u8()? == LOGICAL_CLOCK {
        body.take(16)?;
        if body.0.len() >= 7 {
            // The highest bit says that the time of the first server follows.
            commit_us = Some((body.number(7)? & !(1 << 55)) as i64);
        }
    }
    Ok(Gtid { uuid, tag: None, number, commit_us })
}

/// A message of MySQL's serialisation library: fields behind their numbers, those from some number on to be ignored by
/// who does not know them.
fn tagged(mut body: Bytes<'_>) -> Result<Gtid, Malformed> {
    const VERSION: u64 = 1;
    if body.varlen()? != VERSION {
        return Err(Malformed::Other("its tagged GTID is of another version than 1"));
    }
    let before = body.0.len();
    let size = body.varlen()?;
    let last_needed = body.varlen()?;
    let head = 1 + (before - body.0.len()) as u64;
    let fields = size.checked_sub(head).and_then(|n| usize::try_from(n).ok()).ok_or(Malformed::Number)?;
    let mut fields = Bytes(body.take(fields)?);
    let mut gtid = Gtid { uuid: Uuid([0; 16]), tag: None, number: 0, commit_us: None };
    while !fields.0.is_empty() {
        match fields.varlen()? {
            0 | 7..=11 => {
                fields.varlen()?;
            }
            1 => {
                for byte in &mut gtid.uuid.0 {
                    *byte = u8::try_from(fields.varlen()?).map_err(|_| Malformed::Number)?;
                }
            }
            2 => gtid.number = u64::try_from(fields.varlen_signed()?).map_err(|_| Malformed::Number)?,
            3 => {
                let length = usize::try_from(fields.varlen()?).map_err(|_| Malformed::Number)?;
                gtid.tag = Tag::new(Bytes::utf8(fields.take(length)?)?);
            }
            4 | 5 => {
                fields.varlen_signed()?;
            }
            6 => gtid.commit_us = Some(fields.varlen()? as i64),
            unknown if unknown > last_needed => break,
            _ => return Err(Malformed::Other("its tagged GTID has a field that must be understood and is not known")),
        }
    }
    Ok(gtid)
}

fn maria_gtid(header: Header, mut body: Bytes<'_>) -> Result<Body<'_>, Malformed> {
    let (sequence, domain, flags) = (body.u64()?, body.u32()?, body.u8()?);
    let gtid = MariaGtid { domain, server: header.server_id, sequence };
    Ok(Body::MariaGtid { gtid, standalone: flags & 1 != 0, ddl: flags & 32 != 0 })
}

fn maria_list(mut body: Bytes<'_>) -> Result<Vec<MariaGtid>, Malformed> {
    let count = body.u32()? & 0x0FFF_FFFF;
    let one = |_| Ok(MariaGtid { domain: body.u32()?, server: body.u32()?, sequence: body.u64()? });
    (0..count).map(one).collect()
}

fn heartbeat(mut body: Bytes<'_>) -> Result<Heartbeat<'_>, Malformed> {
    let mut heartbeat = Heartbeat { file: "", position: 0 };
    while !body.0.is_empty() {
        match body.lenenc()? {
            0 => break,
            1 => heartbeat.file = Bytes::utf8(body.counted()?)?,
            2 => heartbeat.position = Bytes(body.counted()?).lenenc()?,
            _ => {
                body.counted()?;
            }
        }
    }
    Ok(heartbeat)
}

fn xa(mut body: Bytes<'_>) -> Result<XaPrepare<'_>, Malformed> {
    let (one_phase, format) = (body.u8()? != 0, body.u32()?);
    let (global, branch) = (body.u32()? as usize, body.u32()? as usize);
    Ok(XaPrepare { one_phase, format, global: body.take(global)?, branch: body.take(branch)? })
}
