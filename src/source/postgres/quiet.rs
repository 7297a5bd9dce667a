//! Whether a table changed between two places of the log.
//!
//! A position in the lake moves on only now and then while nothing of ours changes, and not at all while no process runs.
//! What is between it and the log's end is therefore looked at: a temporary copy of the slot is streamed, and dropped
//! with its connection. The slot itself stays as it is.

use std::time::{Duration, Instant};

use postgres_protocol::message::backend::Message as Backend;

use super::connection::{Connection, Purpose, Trouble, identifier, literal};
use super::settings::Settings;
use crate::error::{Error, ErrorKind, Result};
use crate::wire::pgoutput::{Lsn, Message, parse};

/// How often the server is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// How long one look may take.
const LOOK: Duration = Duration::from_secs(20);

/// A stretch of the log, and whose changes are looked for in it.
pub(super) struct Stretch<'a> {
    pub slot: &'a str,
    pub publication: &'a str,
    /// `<schema>.<table>`
    pub table: &'a str,
    pub from: Lsn,
    pub to: Lsn,
}

/// Whether nothing of the table was committed inside the stretch.
pub(super) async fn is_quiet(settings: &Settings, stretch: &Stretch<'_>) -> Result<bool> {
    let doing = || format!("look at the log of {} from {} to {}", settings.place(), stretch.from, stretch.to);
    let mut connection = Connection::open(settings, Purpose::Replication).await?;
    let failed = |trouble: Trouble| match trouble.code() {
        "53400" => trouble.error(doing()).help("this needs one more slot for a moment: raise max_replication_slots"),
        _ => trouble.error(doing()),
    };
    let copy = format!("dataflow_verify_{}", uuid::Uuid::new_v4().simple());
    let (slot, name) = (literal(stretch.slot), literal(&copy));
    let sql = format!("SELECT lsn FROM pg_copy_logical_replication_slot({slot}, {name}, true)");
    let rows = connection.query(&sql).await.map_err(failed)?;
    let begins = rows.first().and_then(|row| row.text(0).parse::<Lsn>().ok());
    if begins.is_none_or(|begins| begins > stretch.from) {
        // The lake has come further meanwhile: from here on nothing would be seen of what lies before that.
        let what = format!("{}: the slot has moved on", doing());
        return Err(Error::new(ErrorKind::SourceUnavailable, what));
    }
    let sql = format!(
        "START_REPLICATION SLOT {} LOGICAL {} (proto_version '1', publication_names {})",
        identifier(&copy),
        stretch.from,
        literal(&identifier(stretch.publication))
    );
    connection.copy_both(&sql).await.map_err(failed)?;
    let mut look = Look { stretch, relation: None, commit: Lsn(0) };
    let begun = Instant::now();
    ask(&mut connection).await.map_err(failed)?;
    while begun.elapsed() < LOOK {
        let Ok(message) = tokio::time::timeout(ASK_EVERY, connection.message()).await else {
            ask(&mut connection).await.map_err(failed)?;
            continue;
        };
        if let Backend::CopyData(body) = message.map_err(failed)?
            && let Some(quiet) = look.take(&body.into_bytes())?
        {
            return Ok(quiet);
        }
    }
    Err(Error::new(ErrorKind::SourceUnavailable, format!("{}: it takes longer than {LOOK:?}", doing())))
}

/// Tells the server that nothing is done with what it sends, and asks how far it is.
async fn ask(connection: &mut Connection) -> Result<(), Trouble> {
    let mut status = vec![b'r'];
    status.extend([0; 32]);
    status.push(1);
    connection.send_copy(&status).await
}

struct Look<'a> {
    stretch: &'a Stretch<'a>,
    /// The table's number in the stream.
    relation: Option<u32>,
    /// The commit of the transaction that is being sent.
    commit: Lsn,
}

impl Look<'_> {
    /// What a piece of the stream decides.
    fn take(&mut self, data: &[u8]) -> Result<Option<bool>> {
        let lsn = |at: usize| data.get(at..at + 8).and_then(|b| b.try_into().ok()).map(|b| Lsn(u64::from_be_bytes(b)));
        match (data.first(), lsn(1)) {
            (Some(b'k'), Some(end)) => Ok((end >= self.stretch.to).then_some(true)),
            (Some(b'w'), Some(_)) if data.len() >= 25 => {
                let message = parse(&data[25..], false)
                    .map_err(|malformed| Error::new(ErrorKind::SourceRefused, "read the log").because(malformed))?;
                Ok(self.change(&message))
            }
            _ => Ok(None),
        }
    }

    fn change(&mut self, message: &Message<'_>) -> Option<bool> {
        let ours = |relation: &u32| self.relation == Some(*relation);
        let changed = match message {
            Message::Begin { commit, .. } => {
                self.commit = *commit;
                return (*commit >= self.stretch.to).then_some(true);
            }
            Message::Commit { end, .. } => return (*end >= self.stretch.to).then_some(true),
            Message::Relation(relation) => {
                if format!("{}.{}", relation.schema, relation.name) == self.stretch.table {
                    self.relation = Some(relation.id);
                }
                false
            }
            Message::Insert { relation, .. } | Message::Update { relation, .. } | Message::Delete { relation, .. } => {
                ours(relation)
            }
            Message::Truncate { relations, .. } => relations.iter().any(ours),
            _ => false,
        };
        (changed && self.commit >= self.stretch.from).then_some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::pgoutput::truncate_message;

    #[test]
    fn only_changes_of_the_table_inside_the_stretch_count() {
        let stretch = Stretch { slot: "s", publication: "p", table: "public.t", from: Lsn(10), to: Lsn(20) };
        let begin = |commit| Message::Begin { commit: Lsn(commit), time_us: 0, xid: 1 };
        let emptied = |relation: u32| truncate_message(&[relation]);
        let mut look = Look { stretch: &stretch, relation: Some(7), commit: Lsn(0) };
        let mut told = |commit, relation| {
            let first = look.change(&begin(commit));
            first.or_else(|| look.change(&parse(&emptied(relation), false).expect("a message")))
        };
        assert_eq!(told(9, 7), None);
        assert_eq!(told(10, 8), None);
        assert_eq!(told(10, 7), Some(false));
        assert_eq!(told(20, 7), Some(true));
        let keepalive = |end: u64| [&b"k"[..], &end.to_be_bytes(), &[0; 9]].concat();
        assert_eq!(look.take(&keepalive(19)).expect("a look"), None);
        assert_eq!(look.take(&keepalive(20)).expect("a look"), Some(true));
    }
}
