//! A PostgreSQL database, the way by which its changes are read, and the cluster that they go to.

use std::path::Path;

use redshift_sim::Options;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};

use super::debezium::Debezium;
use super::lake_and_warehouse;
use crate::support::cluster::Cluster;
use crate::support::postgres::server;
use crate::support::process::{Launch, available};

/// The way by which changes come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The database is read.
    Postgres,
    /// Debezium's events are.
    Kafka,
}

/// A database that is read, and the cluster that it goes to.
pub struct World {
    pub by: By,
    pub cluster: Cluster,
    /// The database's name, which topology, slot and topics share.
    pub name: String,
    pub(super) source: PgConnection,
    folder: tempfile::TempDir,
    url: String,
    debezium: Option<Debezium>,
}

impl World {
    /// A database after `setup`. `None` when a component is missing.
    pub async fn new(by: By, setup: &str) -> Option<Self> {
        Self::on(by, setup, |options| options).await
    }

    /// The same with a cluster of another kind.
    pub async fn on(by: By, setup: &str, kind: impl FnOnce(Options) -> Options) -> Option<Self> {
        if !available("postgres") || (by == By::Kafka && !available("kafka")) {
            return None;
        }
        let url = server().database().await;
        let name = url.rsplit('/').next().unwrap().to_owned();
        let mut source = PgConnection::connect(&url).await.unwrap();
        // What a test has written is on the server's disk, where a slot can read it.
        source
            .execute("SET synchronous_commit = on; SET timezone = 'UTC'; SET intervalstyle = 'iso_8601'")
            .await
            .unwrap();
        let debezium = if by == By::Kafka { Some(Debezium::follow(&url, &name).await) } else { None };
        let cluster = Cluster::start_with(kind).await;
        let mut world = Self { by, cluster, name, source, folder: tempfile::tempdir().unwrap(), url, debezium };
        world.run(setup).await;
        if let Some(debezium) = &mut world.debezium {
            debezium.reads = false;
        }
        Some(world)
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// What a table is called at the source.
    fn stream(&self, table: &str) -> String {
        match self.by {
            By::Postgres => format!("public.{table}"),
            By::Kafka => format!("{}.public.{table}", self.name),
        }
    }

    /// The topology `name` of these tables, each with what is said of it beyond its source.
    pub fn topology(&self, name: &str, tables: &[(&str, &str)]) -> String {
        let source = match &self.debezium {
            None => format!("kind: postgres, url: \"{}?sslmode=disable\", slot: {name}, publication: p", self.url),
            // A static member need not wait for the one that was killed.
            Some(debezium) => format!(
                "kind: kafka, brokers: \"{}\", topics: [\"{}.public.*\"], properties: {{ session.timeout.ms: \"6000\", \
                 heartbeat.interval.ms: \"500\", group.instance.id: one }}",
                debezium.brokers(),
                self.name
            ),
        };
        let table = |(name, more): &(&str, &str)| format!("  {name}: {{ from: {}{more} }}\n", self.stream(name));
        format!(
            "version: 1\nname: {name}\nsources:\n  shop: {{ {source} }}\ntables:\n{}{}epoch: {{ every: 200ms }}\n",
            tables.iter().map(table).collect::<String>(),
            lake_and_warehouse(&self.cluster, self.cluster.sim.port())
        )
    }

    /// How to start it.
    pub fn launch(&self, tables: &[&str]) -> Launch {
        let tables: Vec<(&str, &str)> = tables.iter().map(|table| (*table, "")).collect();
        Launch::new(self.path(), &self.topology(&self.name, &tables))
    }

    /// The same with the cluster at another port.
    pub fn launch_at(&self, tables: &[&str], port: u16) -> Launch {
        let tables: Vec<(&str, &str)> = tables.iter().map(|table| (*table, "")).collect();
        let (here, there) = (format!(":{}/", self.cluster.sim.port()), format!(":{port}/"));
        Launch::new(self.path(), &self.topology(&self.name, &tables).replace(&here, &there))
    }

    /// Changes the source.
    pub async fn run(&mut self, sql: &str) {
        self.source.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
        if let Some(debezium) = &mut self.debezium {
            debezium.relay().await;
        }
    }

    /// What the cluster holds, behind the emulator's back: every value of every row, which must be text.
    pub async fn held(&self, query: &str) -> Vec<String> {
        let mut connection = self.warehouse().await;
        let rows = connection.fetch_all(AssertSqlSafe(query.to_owned())).await.unwrap();
        let value =
            |row: &sqlx::postgres::PgRow, at: usize| row.get::<Option<String>, _>(at).unwrap_or_else(|| "∅".to_owned());
        rows.iter().map(|row| (0..row.columns().len()).map(|at| value(row, at)).collect::<Vec<_>>().join("|")).collect()
    }

    /// A connection to the cluster's database, in the schema of the tables.
    pub async fn warehouse(&self) -> PgConnection {
        let mut connection = PgConnection::connect(&self.cluster.postgres_url).await.unwrap();
        connection.execute("SET search_path TO shop, public").await.unwrap();
        connection
    }
}
