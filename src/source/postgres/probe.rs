//! What `check --connect` looks at: everything that [`Postgres::open`](super::Postgres::open) would stumble over, all at
//! once, and what may stop the stream later. Changes nothing.

use std::collections::HashMap;

use super::catalog::{self, CatalogTable, Publication};
use super::connection::{Connection, Purpose, Trouble, identifier, literal};
use super::opening::names;
use super::protocol::Asked;
use super::settings::Settings;
use super::{guardian, setup};
use crate::config::{PostgresSource, TlsMode};
use crate::error::Error;
use crate::finding::{Findings, Level};
use crate::telemetry::SlotStatus;

/// The settings that are looked at.
const SETTINGS: &str = "'server_version_num', 'wal_level', 'max_replication_slots', 'max_wal_senders', \
                        'max_slot_wal_keep_size', 'wal_sender_timeout', 'idle_replication_slot_timeout', \
                        'synchronized_standby_slots'";
/// Slots that must be free when there is none of ours yet: one for the stream, one while the tables are read.
const SLOTS_NEEDED: u64 = 2;
/// The server ends a connection that is silent for this long; shorter than a minute, a busy lake may be too slow.
const SHORT_TIMEOUT_MS: u64 = 10_000;

/// Looks at the source `name`, whose `streams` are read.
pub async fn probe(name: &str, config: &PostgresSource, topology: &str, streams: &[String], found: &mut Findings) {
    let look = async {
        let settings = Settings::new(name, config)?;
        let (slot, publication) = names(topology, name, config)?;
        let connection = Connection::open(&settings, Purpose::Query).await?;
        Ok::<_, Error>((settings, slot, publication, connection))
    };
    let (settings, slot, publication, connection) = match look.await {
        Ok(opened) => opened,
        Err(error) => return found.failure(&error),
    };
    found.good(format!("connected to {} as {}", settings.place(), settings.user));
    let mut probe = Probe { name, config, settings, slot, publication, connection, found };
    probe.transport();
    if let Err(trouble) = probe.run(streams).await {
        let doing = format!("look at {}", probe.settings.place());
        probe.found.failure(&trouble.error(doing));
    }
}

/// The slot of the source `name`, as the server sees it now.
pub async fn slot_now(name: &str, config: &PostgresSource, topology: &str) -> Result<Option<SlotStatus>, Error> {
    let settings = Settings::new(name, config)?;
    let (slot, _) = names(topology, name, config)?;
    let mut connection = Connection::open(&settings, Purpose::Query).await?;
    let seen = guardian::look(&mut connection, &slot).await;
    let seen = seen.map_err(|trouble| trouble.error(format!("source {name}: look at slot {slot}")))?;
    Ok(seen.map(|(_, seen)| SlotStatus { alert: guardian::alert(&seen), ..seen }))
}

struct Probe<'a> {
    name: &'a str,
    config: &'a PostgresSource,
    settings: Settings,
    slot: String,
    publication: String,
    connection: Connection,
    found: &'a mut Findings,
}

/// What the server's settings say.
struct Server(HashMap<String, String>);

impl Server {
    fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.text(name).parse().ok()
    }
}

impl Probe<'_> {
    async fn run(&mut self, streams: &[String]) -> Result<(), Trouble> {
        let sql = format!("SELECT name, setting FROM pg_settings WHERE name IN ({SETTINGS})");
        let rows = self.connection.query(&sql).await?;
        let server = Server(rows.iter().map(|row| (row.text(0).to_owned(), row.text(1).to_owned())).collect());
        let version = server.number("server_version_num").and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
        self.version(version, &server);
        self.replicates().await;
        self.room(&server).await?;
        self.limits(&server);
        let shown_by = Publication { name: &self.publication, version };
        let tables = catalog::tables(&mut self.connection, streams, shown_by).await?;
        self.tables(streams, &tables);
        self.publication(&tables, version).await?;
        self.slot().await
    }

    fn transport(&mut self) {
        let near = ["localhost", "127.0.0.1", "::1"].contains(&self.settings.host.as_str());
        match self.settings.tls.mode {
            TlsMode::VerifyFull => self.found.good("TLS, and the certificate bears the server's name"),
            TlsMode::Disable if near => {
                self.found.add(Level::Note, "the connection is in clear text, to this machine", None);
            }
            TlsMode::Disable => self.found.add(
                Level::Warning,
                "the connection is in clear text: whoever is on the way can read and change everything",
                Some("take `sslmode=disable` out of the URL".into()),
            ),
        }
    }

    fn version(&mut self, version: u32, server: &Server) {
        if version < setup::OLDEST {
            self.found.mistake(format!("the server is older than PostgreSQL 13 ({version})"), "upgrade the server");
        } else {
            match Asked::new(self.name, self.config, version) {
                Ok(asked) => {
                    let running = if asked.streaming { ", large transactions while they run" } else { "" };
                    let what = format!("PostgreSQL {}: protocol version {}{running}", version / 10_000, asked.protocol);
                    self.found.good(what);
                }
                Err(error) => self.found.failure(&error),
            }
        }
        match server.text("wal_level") {
            "logical" => self.found.good("wal_level is logical"),
            other => self.found.mistake(
                format!("the server's wal_level is `{other}`; changes can be read when it is `logical`"),
                "run as a superuser:\n    ALTER SYSTEM SET wal_level = logical; -- then restart the server",
            ),
        }
        if self.config.failover && server.text("synchronized_standby_slots").is_empty() {
            self.found.add(
                Level::Warning,
                "failover: true, and the server does not wait for a standby: one that is promoted may lack what was read",
                Some(
                    "name the standby's physical slot in synchronized_standby_slots; the standby needs \
                     sync_replication_slots = on, hot_standby_feedback = on, and a dbname in primary_conninfo"
                        .into(),
                ),
            );
        }
    }

    async fn replicates(&mut self) {
        match Connection::open(&self.settings, Purpose::Replication).await {
            Ok(_) => self.found.good(format!("the role {} may replicate", self.settings.user)),
            Err(error) if error.to_string().contains("(42501)") => {
                let role = identifier(&self.settings.user);
                let sql = format!("run as a superuser:\n    ALTER ROLE {role} REPLICATION;");
                self.found.mistake(format!("the role {role} may not replicate"), sql);
            }
            Err(error) => self.found.failure(&error),
        }
    }

    async fn room(&mut self, server: &Server) -> Result<(), Trouble> {
        let sql = format!(
            "SELECT (SELECT count(*) FROM pg_replication_slots), (SELECT count(*) FROM pg_stat_replication), \
             EXISTS (SELECT 1 FROM pg_replication_slots WHERE slot_name = {})",
            literal(&self.slot)
        );
        let rows = self.connection.query(&sql).await?;
        let Some(row) = rows.first() else { return Ok(()) };
        let count = |column: usize| row.text(column).parse::<u64>().unwrap_or(0);
        let needed = if row.is(2) { SLOTS_NEEDED - 1 } else { SLOTS_NEEDED };
        for (setting, used, needed, what) in [
            ("max_replication_slots", count(0), needed, "slots: one for the stream, one while tables are read"),
            ("max_wal_senders", count(1), SLOTS_NEEDED, "connections that replicate"),
        ] {
            let limit = server.number(setting).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
            if used + needed > limit {
                self.found.mistake(
                    format!("{setting} is {limit}, {used} are taken, and this source needs {needed} more {what}"),
                    format!(
                        "run as a superuser:\n    ALTER SYSTEM SET {setting} = {}; -- then restart the server",
                        used + needed + 2
                    ),
                );
            } else {
                self.found.good(format!("{setting}: {used} of {limit} are taken"));
            }
        }
        Ok(())
    }

    fn limits(&mut self, server: &Server) {
        match server.number("max_slot_wal_keep_size") {
            Some(-1) => self.found.add(
                Level::Warning,
                "max_slot_wal_keep_size is -1: while nobody reads, the log grows until the server's disk is full",
                Some(
                    "set it to what the disk has to spare; a slot that needs more is then lost, and its tables must be read \
                     again:\n    ALTER SYSTEM SET max_slot_wal_keep_size = '…'; SELECT pg_reload_conf();"
                        .into(),
                ),
            ),
            Some(mib) => self.found.good(format!("max_slot_wal_keep_size is {mib} MB")),
            None => {}
        }
        let timeout = server.number("wal_sender_timeout").and_then(|ms| u64::try_from(ms).ok());
        if let Some(ms @ 1..SHORT_TIMEOUT_MS) = timeout {
            self.found.add(
                Level::Warning,
                format!("wal_sender_timeout is {ms} ms: a short stall ends the connection"),
                Some(format!(
                    "for this role alone:\n    ALTER ROLE {} SET wal_sender_timeout = '60s';",
                    identifier(&self.settings.user)
                )),
            );
        }
        if let Some(seconds) = server.number("idle_replication_slot_timeout").filter(|seconds| *seconds > 0) {
            self.found.add(
                Level::Warning,
                format!(
                    "idle_replication_slot_timeout is {seconds} s: when this process is stopped for longer, its slot is lost"
                ),
                None,
            );
        }
    }

    fn tables(&mut self, streams: &[String], tables: &[CatalogTable]) {
        for stream in streams {
            let Some(table) = tables.iter().find(|table| table.name == *stream) else {
                self.found.mistake(
                    format!("there is no table {stream}"),
                    "correct `from:` in the topology, or make the table",
                );
                continue;
            };
            let unfit = setup::unfit(table);
            if unfit.is_empty() {
                let identity = match table.identity {
                    'f' => "replica identity FULL: all old values come",
                    'i' => "replica identity USING INDEX: that index is the key",
                    _ => "replica identity DEFAULT: the primary key is the key",
                };
                let rows =
                    table.estimate.map_or_else(|| "rows that nobody has counted".into(), |n| format!("about {n} rows"));
                self.found.good(format!("{stream}: {rows}, {identity}"));
            }
            for (what, sql) in unfit {
                self.found.mistake(what, format!("run as a superuser or the owner:\n    {sql}"));
            }
        }
    }

    async fn publication(&mut self, tables: &[CatalogTable], version: u32) -> Result<(), Trouble> {
        let name = identifier(&self.publication);
        let generated = if version >= 180_000 { "pubgencols::text = 's'" } else { "false" };
        let sql = format!(
            "SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate, pubviaroot, {generated}, \
             has_database_privilege(current_database(), 'CREATE'), pg_has_role(pubowner, 'USAGE') \
             FROM pg_publication WHERE pubname = {0} UNION ALL \
             SELECT NULL, NULL, NULL, has_database_privilege(current_database(), 'CREATE'), NULL \
             WHERE NOT EXISTS (SELECT 1 FROM pg_publication WHERE pubname = {0})",
            literal(&self.publication)
        );
        let rows = self.connection.query(&sql).await?;
        let Some(row) = rows.first().cloned() else { return Ok(()) };
        let all: Vec<&str> = tables.iter().map(|table| table.sql_name.as_str()).collect();
        if row.get(0).is_none() {
            let sql = setup::create_publication(&self.publication, &all);
            let may = row.is(3) && tables.iter().all(|table| table.owned);
            self.missing(may, format!("there is no publication {name}"), &sql);
            return Ok(());
        }
        if !row.is(0) {
            let sql = format!("ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate');");
            let what = format!("the publication {name} leaves out some kinds of changes");
            self.found.mistake(what, format!("run as its owner:\n    {sql}"));
        }
        if let Some(table) = tables.iter().find(|table| table.partitioned && !row.is(1)) {
            let what = format!("the publication {name} shows the partitions of {} one by one", table.name);
            let sql = format!("ALTER PUBLICATION {name} SET (publish_via_partition_root = true);");
            self.found.mistake(what, format!("run as its owner:\n    {sql}"));
        }
        let shown = setup::published_tables(&mut self.connection, &self.publication).await?;
        let lacking: Vec<&CatalogTable> = tables.iter().filter(|table| !shown.contains(&table.name)).collect();
        if lacking.is_empty() {
            self.found.good(format!("the publication {name} shows every table"));
        } else {
            let list: Vec<&str> = lacking.iter().map(|table| table.sql_name.as_str()).collect();
            let sql = format!("ALTER PUBLICATION {name} ADD TABLE {};", list.join(", "));
            let may = row.is(4) && lacking.iter().all(|table| table.owned);
            self.missing(may, format!("the publication {name} does not show {}", list.join(", ")), &sql);
        }
        self.generated(tables, row.is(2), version);
        Ok(())
    }

    fn generated(&mut self, tables: &[CatalogTable], published: bool, version: u32) {
        for table in tables.iter().filter(|table| !table.generated.is_empty() && !published) {
            let names = table.generated.join(", ");
            let what =
                format!("{}: generated columns are not published, and so not in the contract: {names}", table.name);
            let help = (version >= 180_000).then(|| {
                let name = identifier(&self.publication);
                format!("stored ones are after ALTER PUBLICATION {name} SET (publish_generated_columns = stored);")
            });
            self.found.add(
                Level::Note,
                what,
                help.or_else(|| Some("compute them in the topology (`compute:`)".into())),
            );
        }
    }

    /// Something that is made at the start where the role may.
    fn missing(&mut self, may: bool, what: String, sql: &str) {
        if may {
            self.found.add(
                Level::Note,
                format!("{what}: it is made at the start"),
                Some(format!("as if by\n    {sql}")),
            );
        } else {
            let help = format!("run as a superuser or the owner of the tables:\n    {sql}");
            self.found.mistake(format!("{what}, and the role may not change that"), help);
        }
    }

    async fn slot(&mut self) -> Result<(), Trouble> {
        let name = identifier(&self.slot);
        let looked = setup::slot(&mut self.connection, self.name, &self.slot).await;
        match looked {
            Err(error) => self.found.failure(&error),
            Ok(None) => {
                let sql = setup::create_slot(&self.slot, self.config.failover);
                self.missing(true, format!("there is no slot {name}"), &sql);
            }
            Ok(Some(setup::Slot { lost: Some(why), .. })) => self.found.mistake(
                format!("the slot {name} no longer has what must come next: {why}"),
                "write `snapshot: { on_lost_slot: snapshot_again }` into the source to read its tables again",
            ),
            Ok(Some(slot)) => {
                let kept = guardian::look(&mut self.connection, &self.slot).await?;
                let kept = kept.and_then(|(_, seen)| seen.retained_bytes).unwrap_or(0) >> 20;
                self.found.good(format!(
                    "the slot {name} begins at {}; the server keeps {kept} MiB of log for it",
                    slot.confirmed
                ));
            }
        }
        Ok(())
    }
}
