//! Before anything is read: what must be there is checked, and what the account lacks is said as the SQL to run.

use super::connection::{Connection, Trouble, literal, table_identifier};
use super::place::{Place, file_number};
use super::settings::Settings;
use crate::error::{Error, ErrorKind, Result};

/// Binary logs that are kept for less than this are soon gone when we are away.
const SHORT_RETENTION_SECONDS: u64 = 24 * 3600;

/// Whose server it is: the two differ in status statements, in GTIDs and in how a snapshot meets the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flavour {
    MySql,
    MariaDb,
}

/// What the server says of itself.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub flavour: Flavour,
    /// `(8, 4, 0)`
    pub version: (u32, u32, u32),
    /// What tells it from others: see [`Place::server`].
    pub identity: String,
    pub server_id: u32,
    /// Who we are there, as GRANT takes it.
    pub account: String,
    /// Whether transactions have GTIDs.
    pub gtids: bool,
    /// Whether the log names columns (`binlog_row_metadata=FULL`).
    pub names_columns: bool,
    /// Whether row images hold every column (`binlog_row_image=FULL`, and no partial JSON).
    pub full_images: bool,
}

/// Where the server's log ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    pub file: String,
    pub pos: u64,
    /// MySQL: what was executed; MariaDB: the position at that place.
    pub gtids: Option<String>,
}

impl End {
    /// The order of this place among those of one server.
    pub fn order(&self) -> (u64, u64) {
        (file_number(&self.file), self.pos)
    }
}

/// What the source is to read.
pub(super) struct Wanted<'a> {
    /// The source's name in the topology.
    pub source: &'a str,
    /// `<database>.<table>`
    pub tables: &'a [String],
    /// Our number, and the name that we register under.
    pub server_id: u32,
    pub host: &'a str,
}

fn refused(what: impl Into<String>, sql: &str) -> Error {
    Error::new(ErrorKind::SourceRefused, what).help(format!("run as an administrator:\n    {sql}"))
}

/// The account as GRANT takes it, before the server has said it.
const ACCOUNT: &str = "<the account of the source>";

/// `reader@%` as GRANT takes it.
fn quoted_account(account: &str) -> String {
    let quoted = |part: &str| format!("'{}'", part.replace('\'', "''"));
    match account.rsplit_once('@') {
        Some((user, host)) => format!("{}@{}", quoted(user), quoted(host)),
        None => ACCOUNT.to_owned(),
    }
}

/// Says which privilege is missing, where the server refused for that.
pub(super) fn explain(trouble: Trouble, server: Option<&Server>, doing: String) -> Error {
    let privilege = match (trouble.code(), server.map(|server| server.flavour)) {
        (1227, Some(Flavour::MariaDb)) => "REPLICATION SLAVE, BINLOG MONITOR",
        (1227, _) => "REPLICATION SLAVE, REPLICATION CLIENT",
        _ => return trouble.error(doing),
    };
    let account = server.map_or(ACCOUNT, |server| &server.account);
    let sql = format!("GRANT {privilege} ON *.* TO {account};");
    let Trouble::Refused { message, .. } = trouble else { return Error::new(ErrorKind::Internal, doing) };
    refused(doing, &sql).because(message)
}

/// The server's identity and settings, as far as changes can be read with them.
pub(super) async fn identify(connection: &mut Connection, settings: &Settings) -> Result<Server> {
    let place = settings.place();
    let failed = |trouble: Trouble| trouble.error(format!("ask {place} who it is"));
    let sql =
        "SELECT @@version, @@server_id, @@log_bin, @@global.binlog_format, @@global.binlog_row_image, CURRENT_USER()";
    let rows = connection.query(sql).await.map_err(failed)?;
    let row =
        rows.first().ok_or_else(|| Error::new(ErrorKind::SourceUnavailable, "the server does not say who it is"))?;
    let (text, server_id) = (row.text(0), row.number(1) as u32);
    let flavour = if text.contains("MariaDB") { Flavour::MariaDb } else { Flavour::MySql };
    let version = version(&text);
    let oldest = if flavour == Flavour::MariaDb { (10, 6, 0) } else { (8, 0, 0) };
    if version < oldest {
        let what = format!("{place} is version {text}; read are MySQL 8 and MariaDB 10.6 or newer");
        return Err(Error::new(ErrorKind::SourceRefused, what).help("upgrade the server"));
    }
    if row.text(2) != "1" {
        return Err(Error::new(ErrorKind::SourceRefused, format!("{place} writes no binary log")).help(
            "start the server with `log_bin = binlog` and a `server_id` in the section [mysqld] of its options",
        ));
    }
    if row.text(3) != "ROW" {
        let what = format!("{place} writes its binary log by binlog_format={}", row.text(3));
        return Err(refused(
            what,
            "SET GLOBAL binlog_format = 'ROW'; -- and in the server's options; sessions begin anew",
        ));
    }
    if server_id == 0 {
        let what = format!("{place} has the server_id 0: nobody may read its log");
        return Err(refused(what, "SET GLOBAL server_id = 1; -- and in the server's options"));
    }
    let metadata = variable(connection, "binlog_row_metadata").await.map_err(failed)?;
    let partial = variable(connection, "binlog_row_value_options").await.map_err(failed)?;
    let (identity, gtids) = match flavour {
        Flavour::MariaDb => (server_id.to_string(), true),
        Flavour::MySql => {
            let uuid = variable(connection, "server_uuid").await.map_err(failed)?;
            (uuid, variable(connection, "gtid_mode").await.map_err(failed)? == "ON")
        }
    };
    Ok(Server {
        flavour,
        version,
        identity,
        server_id,
        account: quoted_account(&row.text(5)),
        gtids,
        names_columns: metadata == "FULL",
        full_images: row.text(4) == "FULL" && !partial.contains("PARTIAL_JSON"),
    })
}

async fn variable(connection: &mut Connection, name: &str) -> Result<String, Trouble> {
    let rows = connection.query(&format!("SHOW GLOBAL VARIABLES LIKE '{name}'")).await?;
    Ok(rows.first().map(|row| row.text(1)).unwrap_or_default())
}

fn version(text: &str) -> (u32, u32, u32) {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next(), next())
}

/// Checks settings, privileges, our number, and the tables.
pub(super) async fn check(connection: &mut Connection, server: &Server, wanted: &Wanted<'_>) -> Result<()> {
    let source = wanted.source;
    end(connection, server).await.map_err(|e| e.doing(format!("source {source}")))?;
    check_number(connection, server, wanted).await?;
    if let Some(seconds) = short_retention(connection, source).await? {
        tracing::warn!(
            source,
            "the server keeps its binary logs for {seconds} s only: when this process is away for longer, its tables must \
             be read again. `SET GLOBAL binlog_expire_logs_seconds = 604800` keeps a week"
        );
    }
    for name in wanted.tables {
        check_table(connection, server, wanted, name).await?;
    }
    Ok(())
}

/// Two readers of one number throw each other out for ever.
pub(super) async fn check_number(connection: &mut Connection, server: &Server, wanted: &Wanted<'_>) -> Result<()> {
    let (source, number) = (wanted.source, wanted.server_id);
    let help = "give the source a `server_id:` of its own in the topology (1 to 4294967295)";
    if number == server.server_id {
        let what = format!("source {source}: {number} is the server's own server_id, and ours must be another");
        return Err(Error::new(ErrorKind::SourceRefused, what).help(help));
    }
    let sql = match server.flavour {
        Flavour::MySql if server.version >= (8, 0, 22) => "SHOW REPLICAS",
        _ => "SHOW SLAVE HOSTS",
    };
    let rows = match connection.query(sql).await {
        Ok(rows) => rows,
        // MariaDB wants a privilege for it that reading the log does not.
        Err(trouble) if server.flavour == Flavour::MariaDb && trouble.code() == 1227 => return Ok(()),
        Err(trouble) => {
            return Err(explain(
                trouble,
                Some(server),
                format!("source {source}: ask who else reads the server's log"),
            ));
        }
    };
    let clash = rows.iter().find(|row| row.number(0) == u64::from(number) && row.text(1) != wanted.host);
    match clash {
        Some(row) => Err(clashes(source, number).because(format!("`{}` is registered with it", row.text(1)))),
        None => Ok(()),
    }
}

/// Somebody else reads the server's log under our number.
pub(super) fn clashes(source: &str, number: u32) -> Error {
    Error::new(
        ErrorKind::SourceRefused,
        format!("source {source}: another replica or reader of the server has our server_id {number}"),
    )
    .help(
        "a server serves one reader per number, and throws the older one out. End the other one if it is a second process \
         of this topology; else give the source a `server_id:` of its own",
    )
}

/// Says so when the account may not read the log: MariaDB tells only whoever begins to.
pub(super) async fn may_replicate(connection: &mut Connection, server: &Server, source: &str) -> Result<()> {
    let doing = || format!("source {source}: ask for the account's rights");
    let rows = connection.query("SHOW GRANTS").await.map_err(|trouble| trouble.error(doing()))?;
    let grants = rows.iter().map(|row| row.text(0).to_uppercase());
    let everywhere = |grant: &String| grant.split_once(" TO ").is_some_and(|(what, _)| what.ends_with(" ON *.*"));
    let may = |grant: String| grant.contains("REPLICATION SLAVE") || grant.starts_with("GRANT ALL PRIVILEGES");
    if grants.filter(everywhere).any(may) {
        return Ok(());
    }
    let sql = format!("GRANT REPLICATION SLAVE ON *.* TO {};", server.account);
    Err(refused(format!("source {source}: the account may not read the binary log"), &sql))
}

/// How long binary logs are kept, when that is less than a day.
pub(super) async fn short_retention(connection: &mut Connection, source: &str) -> Result<Option<u64>> {
    let failed = |trouble: Trouble| trouble.error(format!("source {source}: ask how long binary logs are kept"));
    let seconds: u64 = variable(connection, "binlog_expire_logs_seconds").await.map_err(failed)?.parse().unwrap_or(0);
    Ok(Some(seconds).filter(|seconds| *seconds > 0 && *seconds < SHORT_RETENTION_SECONDS))
}

pub(super) async fn check_table(
    connection: &mut Connection,
    server: &Server,
    wanted: &Wanted<'_>,
    name: &str,
) -> Result<()> {
    let (source, sql_name) = (wanted.source, table_identifier(name));
    let doing = || format!("source {source}: look at table {name}");
    match connection.query(&format!("SELECT 1 FROM {sql_name} LIMIT 0")).await {
        Ok(_) => {}
        Err(trouble) if matches!(trouble.code(), 1142 | 1143 | 1044) => {
            let what = format!("source {source}: the account may not read {name}");
            return Err(refused(what, &format!("GRANT SELECT ON {sql_name} TO {};", server.account)));
        }
        Err(trouble) if matches!(trouble.code(), 1146 | 1049) => {
            return Err(Error::new(ErrorKind::SourceRefused, format!("source {source}: there is no table {name}"))
                .help("correct `from:` in the topology (`<database>.<table>`), or make the table"));
        }
        Err(trouble) => return Err(trouble.error(doing())),
    }
    let (database, table) = name.split_once('.').unwrap_or(("", name));
    let sql = format!(
        "SELECT t.TABLE_TYPE, t.ENGINE, (SELECT count(*) FROM information_schema.STATISTICS s WHERE s.TABLE_SCHEMA = {0} \
         AND s.TABLE_NAME = {1} AND s.INDEX_NAME = 'PRIMARY') FROM information_schema.TABLES t \
         WHERE t.TABLE_SCHEMA = {0} AND t.TABLE_NAME = {1}",
        literal(database),
        literal(table)
    );
    let rows = connection.query(&sql).await.map_err(|trouble| trouble.error(doing()))?;
    let Some(row) = rows.first() else { return Ok(()) };
    if row.text(0).contains("VIEW") {
        return Err(Error::new(ErrorKind::SourceRefused, format!("source {source}: {name} is a view"))
            .help("views do not change by events: read the tables that it is made of"));
    }
    if row.number(2) == 0 && !server.full_images {
        return Err(refused(
            format!(
                "source {source}: {name} has no primary key, and the log leaves columns out (binlog_row_image): which row \
                 an event is about cannot be known"
            ),
            &format!("ALTER TABLE {sql_name} ADD PRIMARY KEY (…); -- or SET GLOBAL binlog_row_image = 'FULL';"),
        ));
    }
    Ok(())
}

/// Where the server's log ends now.
pub(super) async fn end(connection: &mut Connection, server: &Server) -> Result<End> {
    let sql = match server.flavour {
        Flavour::MySql if server.version >= (8, 2, 0) => "SHOW BINARY LOG STATUS",
        _ => "SHOW MASTER STATUS",
    };
    let doing = || "ask where the server's log ends".to_owned();
    let rows = connection.query(sql).await.map_err(|trouble| explain(trouble, Some(server), doing()))?;
    let row = rows.first().ok_or_else(|| Error::new(ErrorKind::SourceRefused, "the server writes no binary log"))?;
    let (file, pos) = (row.text(0), row.number(1));
    let gtids = match server.flavour {
        Flavour::MySql if server.gtids => Some(row.text(4).replace(['\n', ' '], "")),
        Flavour::MySql => None,
        Flavour::MariaDb => {
            let sql = format!("SELECT BINLOG_GTID_POS({}, {pos})", literal(&file));
            let rows = connection.query(&sql).await.map_err(|trouble| explain(trouble, Some(server), doing()))?;
            rows.first().map(|row| row.text(0))
        }
    };
    Ok(End { file, pos, gtids })
}

/// The files of the server's log that are there, with their sizes.
pub(super) async fn files(connection: &mut Connection, server: &Server) -> Result<Vec<(String, u64)>> {
    let rows = connection.query("SHOW BINARY LOGS").await;
    let rows = rows.map_err(|trouble| explain(trouble, Some(server), "list the server's binary logs".into()))?;
    Ok(rows.iter().map(|row| (row.text(0), row.number(1))).collect())
}

/// What the server no longer has of its own history: MySQL's purged transactions.
pub(super) async fn purged(connection: &mut Connection) -> Result<String> {
    let failed = |trouble: Trouble| trouble.error("ask which transactions were purged");
    Ok(variable(connection, "gtid_purged").await.map_err(failed)?.replace(['\n', ' '], ""))
}

/// The server's log ends before what was read of it.
pub(super) fn put_back(source: &str, read: &Place, why: &str) -> Error {
    Error::new(
        ErrorKind::PositionLost,
        format!("source {source}: ours stands at {}, and the server's log is another one there: {why}", read.shown()),
    )
    .help(
        "the server was put back to an earlier state, or another one answers at its address. Connect to the one that was \
         read; or write `snapshot: { on_lost_position: snapshot_again }` into the source to empty its tables and read them \
         again, and take it out once they are there",
    )
}

/// What must come next is gone.
pub(super) fn lost(source: &str, read: &Place, why: &str) -> Error {
    Error::new(
        ErrorKind::PositionLost,
        format!("source {source}: the server no longer has what must come next, behind {}: {why}", read.shown()),
    )
    .help(
        "changes in between cannot be had any more. Write `snapshot: { on_lost_position: snapshot_again }` into the source \
         to empty its tables and read them again, and take it out once they are there; let the server keep its binary logs \
         for longer (binlog_expire_logs_seconds)",
    )
}
