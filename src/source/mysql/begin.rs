//! Where the stream begins on the server that answers: behind what the lake log has, or nowhere.

use super::connection::{Connection, Trouble, literal};
use super::errant;
use super::gtids::Gtids;
use super::place::Place;
use super::setup::{self, Flavour, Server};
use crate::config::OnLostPosition;
use crate::error::{Error, Result};

/// Where to begin.
pub(super) struct Begun {
    pub place: Place,
    /// Files and positions cannot be compared with what came before: the generation grows.
    pub elsewhere: bool,
}

/// Finds out where to go on behind `known`, which the log does not have before the first time.
pub(super) async fn begin(
    connection: &mut Connection,
    server: &Server,
    source: &str,
    known: Option<&Place>,
    on_lost: OnLostPosition,
) -> Result<Begun> {
    let Some(known) = known else {
        return anew(connection, server, None).await;
    };
    let why = match go_on(connection, server, source, known).await? {
        Ok(begun) => return Ok(begun),
        Err(why) => why,
    };
    if on_lost == OnLostPosition::Halt {
        return Err(why);
    }
    tracing::warn!(source, "the stream begins anew, and all tables are read again: {why}");
    anew(connection, server, Some(known)).await
}

/// Begins at the server's end; tables of which rows are there are emptied and read again.
pub(super) async fn anew(connection: &mut Connection, server: &Server, known: Option<&Place>) -> Result<Begun> {
    let mut place = at_end(connection, server).await?;
    if let Some(known) = known {
        place.again = known.again.clone();
        place.again.extend(known.tables.keys().cloned());
    }
    Ok(Begun { place, elsewhere: known.is_some() })
}

/// A place at the server's end whose tables are not read yet.
async fn at_end(connection: &mut Connection, server: &Server) -> Result<Place> {
    let end = setup::end(connection, server).await?;
    // What MySQL has executed says exactly where to begin, its file and position only about where: a transaction stands in
    // the log before it is executed.
    let pos = if server.flavour == Flavour::MySql && server.gtids { 0 } else { end.pos };
    Ok(Place {
        server: server.identity.clone(),
        file: end.file,
        pos,
        gtids: end.gtids.filter(|_| server.gtids),
        seen: errant::learn(connection, server).await?,
        last: None,
        within: None,
        ordinal: 0,
        tables: Default::default(),
        again: Default::default(),
        history: Default::default(),
    })
}

/// The place on this server, or what was lost.
async fn go_on(
    connection: &mut Connection,
    server: &Server,
    source: &str,
    known: &Place,
) -> Result<Result<Begun, Error>> {
    if let Some(missing) = lacking(connection, server, known).await? {
        let why = format!(
            "it lacks transactions that were read ({missing}); it was put back, or was not up to date when it became the \
             primary"
        );
        return Ok(Err(setup::put_back(source, known, &why)));
    }
    let files = setup::files(connection, server).await?;
    let same = server.identity == known.server;
    if same && known.pos > 0 {
        match files.iter().find(|(file, _)| *file == known.file) {
            Some((_, size)) if *size >= known.pos => {
                let mut place = known.clone();
                // Of a file that is gone the last transaction cannot be looked at any more.
                place.last = place.last.filter(|last| files.iter().any(|(file, _)| *file == last.file));
                return Ok(Ok(Begun { place, elsewhere: false }));
            }
            Some((_, size)) if known.gtids.is_none() => {
                let why = format!("its file {} ends at {size}", known.file);
                return Ok(Err(setup::put_back(source, known, &why)));
            }
            _ => {}
        }
    }
    let first = files.first().map(|(file, _)| file.clone()).unwrap_or_default();
    if known.gtids.is_none() {
        let why = match same {
            true => format!("its oldest file is {first}"),
            false => format!(
                "it is another server ({}), and without GTIDs nothing says where to go on there",
                server.identity
            ),
        };
        return Ok(Err(setup::lost(source, known, &why)));
    }
    if let Some(gone) = purged(connection, server, known).await? {
        return Ok(Err(setup::lost(source, known, &format!("it has purged transactions that were not read ({gone})"))));
    }
    if known.pos > 0 || !same {
        tracing::warn!(source, "going on behind {} by GTIDs: server {}", known.shown(), server.identity);
    }
    let elsewhere = known.pos > 0 || !same;
    let mut place = Place {
        server: server.identity.clone(),
        file: first,
        pos: 0,
        last: None,
        ordinal: if elsewhere { 0 } else { known.ordinal },
        ..known.clone()
    };
    if elsewhere {
        // It was a place of the other server.
        place.tables.values_mut().for_each(|taken| taken.known_from = None);
    }
    Ok(Ok(Begun { place, elsewhere }))
}

/// What was read and the server does not have.
async fn lacking(connection: &mut Connection, server: &Server, known: &Place) -> Result<Option<String>> {
    let Some(text) = &known.gtids else { return Ok(None) };
    let ours = Gtids::parse(server.flavour, Some(text))?;
    let sql = match server.flavour {
        Flavour::MySql => "SELECT @@global.gtid_executed",
        Flavour::MariaDb => "SELECT @@global.gtid_binlog_pos",
    };
    let theirs = text_of(connection, sql).await?;
    let theirs = Gtids::parse(server.flavour, Some(&theirs))?;
    Ok(ours.missing_in(&theirs))
}

/// What was not read and the server no longer has.
async fn purged(connection: &mut Connection, server: &Server, known: &Place) -> Result<Option<String>> {
    if server.flavour == Flavour::MariaDb {
        // It says so itself when its log is asked for.
        return Ok(None);
    }
    let gone = setup::purged(connection).await?;
    let ours = known.gtids.as_deref().unwrap_or_default();
    let sql = format!("SELECT GTID_SUBTRACT({}, {})", literal(&gone), literal(ours));
    let missing = text_of(connection, &sql).await?;
    Ok(Some(missing).filter(|missing| !missing.is_empty()))
}

async fn text_of(connection: &mut Connection, sql: &str) -> Result<String> {
    let failed = |trouble: Trouble| trouble.error("ask the server for its GTIDs");
    let rows = connection.query(sql).await.map_err(failed)?;
    Ok(rows.first().map(|row| row.text(0).replace(['\n', ' '], "")).unwrap_or_default())
}
