//! What `check --connect` looks at: everything that [`Mysql::open`](super::Mysql::open) would stumble over, one thing after
//! the other. Changes nothing.

use super::connection::Connection;
use super::registered;
use super::settings::Settings;
use super::setup::{self, Flavour, Server, Wanted};
use crate::config::{MysqlSource, OnFilledColumn};
use crate::error::Result;
use crate::finding::{Findings, Level};

/// Looks at the source `name`, whose `streams` are read.
pub async fn probe(name: &str, config: &MysqlSource, topology: &str, streams: &[String], found: &mut Findings) {
    if let Err(error) = look(name, config, topology, streams, found).await {
        found.failure(&error);
    }
}

async fn look(
    name: &str,
    config: &MysqlSource,
    topology: &str,
    streams: &[String],
    found: &mut Findings,
) -> Result<()> {
    let settings = Settings::new(name, config)?;
    let us = registered(topology, name, config);
    let mut connection = Connection::open(&settings).await?;
    found.good(format!("connected to {} as {}", settings.place(), settings.user));
    if settings.options.ssl_opts().is_none() {
        let help = "`tls: { mode: verify-full }` proves who the server is".to_owned();
        found.add(Level::Note, "the connection is in clear text", Some(help));
    }
    let server = setup::identify(&mut connection, &settings).await?;
    found.good(format!("writes its binary log by rows, as server {}", server.identity));
    settings_of(&server, config, found);
    rights(&mut connection, &server, name, found).await;
    let wanted = Wanted { source: name, tables: streams, server_id: us.server_id, host: &us.host };
    match setup::check_number(&mut connection, &server, &wanted).await {
        Ok(()) => found.good(format!("nobody else reads it as server_id {}", us.server_id)),
        Err(error) => found.failure(&error),
    }
    if let Some(seconds) = setup::short_retention(&mut connection, name).await? {
        let help = "SET GLOBAL binlog_expire_logs_seconds = 604800; -- a week".to_owned();
        let what =
            format!("keeps its binary logs for {seconds} s only: who is away for longer must read the tables again");
        found.add(Level::Warning, what, Some(help));
    }
    for table in streams {
        match setup::check_table(&mut connection, &server, &wanted, table).await {
            Ok(()) => found.good(format!("{table} can be read")),
            Err(error) => found.failure(&error),
        }
    }
    Ok(())
}

/// What the account may do with the log: all that it lacks.
async fn rights(connection: &mut Connection, server: &Server, name: &str, found: &mut Findings) {
    match setup::end(connection, server).await {
        Ok(end) => found.good(format!("its log ends at {}:{}, and the account may see that", end.file, end.pos)),
        Err(error) => found.failure(&error),
    }
    // MySQL says it where it is asked who else reads the log.
    if server.flavour == Flavour::MariaDb {
        match setup::may_replicate(connection, server, name).await {
            Ok(()) => found.good("the account may read its log"),
            Err(error) => found.failure(&error),
        }
    }
}

fn settings_of(server: &Server, config: &MysqlSource, found: &mut Findings) {
    if !server.names_columns {
        let help = "SET GLOBAL binlog_row_metadata = 'FULL'; -- and in the server's options".to_owned();
        let what = "its log does not name columns (binlog_row_metadata): what they are is worked out from statements";
        found.add(Level::Warning, what, Some(help));
    }
    if !server.full_images {
        let help = "SET GLOBAL binlog_row_image = 'FULL'; -- and binlog_row_value_options = ''".to_owned();
        let what =
            "its log leaves unchanged columns out (binlog_row_image): tables are read in one go, the stream waiting";
        found.add(Level::Note, what, Some(help));
    }
    if server.flavour == Flavour::MySql && !server.gtids {
        let help = "set gtid_mode = ON and enforce_gtid_consistency = ON".to_owned();
        found.add(Level::Note, "it writes no GTIDs: a failover to another server cannot be followed", Some(help));
    }
    if config.snapshot.on_filled_column == OnFilledColumn::Warn {
        found.add(Level::Note, "defaults of new columns do not reach rows that are there", None);
    }
}
