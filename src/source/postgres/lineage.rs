//! Whether a server is the one whose log was read, and still has it. Asked whenever a server is met, before anything is
//! made or changed there: one that was put back to an earlier state, or another one, is left as it is.
//!
//! | what tells | when |
//! |---|---|
//! | the system identifier | another database answers |
//! | the timeline, and where it left the older one | a standby was promoted, or a backup recovered to a point in time |
//! | the end of the log | files were put back, and little was written since |
//! | where the slot's log begins | files were put back, however much was written since |

use super::connection::Connection;
use super::place::Place;
use super::settings::Settings;
use super::setup::{self, Server, Slot};
use crate::error::{Error, ErrorKind, Result};
use crate::progress::{Partition, Progress};

/// The log must not know this source as another slot or another database.
pub(super) fn refuse_another(name: &str, partition: &Partition, progress: &Progress) -> Result<()> {
    let Some((other, _)) = progress.of_source(name).find(|(known, _)| *known != partition) else { return Ok(()) };
    Err(Error::new(
        ErrorKind::PositionLost,
        format!("source {name}: the log knows it as {} and now it is {}", other.name, partition.name),
    )
    .help(
        "the name is `<slot>@<system identifier>`: another one is another database, or a restored or upgraded copy of it, \
         whose log cannot be compared. Connect to the old one, or give the source another name in the topology: its \
         tables are then read anew",
    ))
}

/// What was read is not in the server's history.
fn put_back(source: &str, why: &str) -> Error {
    Error::new(ErrorKind::PositionLost, format!("source {source}: {why}")).help(
        "the database was put back to an earlier state, or a standby became the server that lacks what was read. Nothing \
         was changed there. Connect to the one that was read, or give the source another name in the topology: its tables \
         are then read anew",
    )
}

/// The server's log must not end before what was read of it.
pub(super) fn must_reach(source: &str, server: &Server, place: &Place) -> Result<()> {
    if server.end >= place.lsn {
        return Ok(());
    }
    let why = format!("the server's log ends at {} and ours already stands at {}", server.end, place.lsn);
    Err(put_back(source, &why))
}

/// A connection that replicates, when the server is still the one that it was and has what was read of it.
pub(super) async fn same_server(
    settings: &Settings,
    source: &str,
    known: &Server,
    place: &Place,
) -> Result<Connection> {
    let (server, connection) = setup::identify(settings).await?;
    let what = if server.system != known.system {
        "is another one".to_owned()
    } else if server.timeline < known.timeline {
        format!("went back from timeline {} to {}", known.timeline, server.timeline)
    } else if server.timeline > known.timeline {
        "was promoted".to_owned()
    } else {
        return must_reach(source, &server, place).map(|()| connection);
    };
    Err(Error::new(
        ErrorKind::SourceRefused,
        format!("source {source}: the server at {} {what} since this process began", settings.place()),
    )
    .help("start the process again: it compares the server's log with its own"))
}

/// The server may be on another timeline: the place must be one that both have. Whether it is on another one.
pub(super) async fn follow(
    source: &str,
    server: &Server,
    place: &mut Place,
    replication: &mut Connection,
) -> Result<bool> {
    let (now, before) = (server.timeline, place.timeline);
    if now == before {
        return Ok(false);
    }
    // The first timeline has no history, and none leads back.
    let left = if now < before { None } else { setup::left_timeline(replication, now, before).await? };
    match left {
        Some(left) if place.lsn <= left => {
            tracing::warn!(source, "the server went from timeline {before} to {now}; going on at {}", place.lsn);
            place.timeline = now;
            // The slot of a standby stands where it was copied last.
            place.slot_begins = None;
            Ok(true)
        }
        Some(left) => {
            let why = format!(
                "the server is on timeline {now}, which left timeline {before} at {left}, and ours already stands at {}",
                place.lsn
            );
            Err(put_back(source, &why))
        }
        None => {
            let why = format!("the server is on timeline {now}, and what was read is on timeline {before}");
            Err(put_back(source, &why))
        }
    }
}

/// The slot, and why it no longer has what comes behind `place`. Where its log begins is on the server's disk before it
/// is shown, and only ever moves on: one that begins earlier than it did is a copy of that time.
pub(super) async fn look_at_slot(
    connection: &mut Connection,
    source: &str,
    name: &str,
    place: &Place,
) -> Result<(Option<Slot>, Option<String>)> {
    let slot = setup::slot(connection, source, name).await?;
    let why = match &slot {
        None => Some("it is not there any more".to_owned()),
        Some(Slot { lost: Some(why), .. }) => Some(why.clone()),
        Some(slot) if slot.confirmed > place.lsn => {
            Some(format!("it begins at {} and the log stands at {}", slot.confirmed, place.lsn))
        }
        Some(slot) => match place.slot_begins {
            Some(before) if slot.begins < before => {
                let why = format!(
                    "the slot {name} needs the server's log from {} on, and already did from {before} on",
                    slot.begins
                );
                return Err(put_back(source, &why));
            }
            _ => None,
        },
    };
    Ok((slot, why))
}

/// The slot must have what comes behind `place`: the server begins where it stands, silently, when that is further on.
pub(super) async fn must_have(connection: &mut Connection, source: &str, slot: &str, place: &Place) -> Result<()> {
    match look_at_slot(connection, source, slot, place).await? {
        (_, Some(why)) => Err(super::lost(source, slot, &why)),
        (_, None) => Ok(()),
    }
}
