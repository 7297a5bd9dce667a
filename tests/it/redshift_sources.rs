//! Real sources, a real S3 protocol server, and the emulator of Redshift: what arrives is what the source holds, whatever
//! happens on the way.

mod kafka;
mod postgres;
mod proof;
mod tables;

use std::path::Path;

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};

use crate::support::cluster::Cluster;
use crate::support::postgres::server;
use crate::support::process::Launch;
use crate::support::s3::{ACCESS_KEY, SECRET_KEY};

/// What a topology says of its lake and of its warehouse, with the schema `shop`. `port`: where the cluster is asked.
pub fn lake_and_warehouse(cluster: &Cluster, port: u16) -> String {
    let (lake, warehouse) = (cluster.lake(), cluster.warehouse());
    format!(
        "lake: {{ url: \"{}\", region: eu-west-3, endpoint: \"{}\", access_key_id: {ACCESS_KEY}, secret_access_key: \
         {SECRET_KEY}, raw: {{ keep: none }}, quarantine: {{ key: \"{}\", retention: 30d }} }}\n\
         warehouse: {{ kind: redshift, url: \"{}\", schema: shop, iam_role: \"{}\" }}\n\
         fresh_within: 250ms\n",
        lake.url,
        cluster.s3.endpoint,
        "5a".repeat(32),
        warehouse.url.replace(&format!(":{}/", cluster.sim.port()), &format!(":{port}/")),
        warehouse.iam_role,
    )
}

/// Whether the warehouse holds what the log does.
pub fn is_loaded(status: &serde_json::Value) -> bool {
    let tables = status["tables"].as_array().map(Vec::as_slice).unwrap_or_default();
    let changed: Vec<_> = tables.iter().filter(|table| table["log_epoch"].as_u64() > Some(0)).collect();
    !changed.is_empty() && changed.iter().all(|table| table["warehouse_epoch"] == table["log_epoch"])
}

/// A database that is read, and the cluster that it goes to.
pub struct World {
    folder: tempfile::TempDir,
    pub cluster: Cluster,
    url: String,
    source: PgConnection,
}

impl World {
    pub async fn new(setup: &str) -> Self {
        let url = server().database().await;
        let mut source = PgConnection::connect(&url).await.unwrap();
        // What a test has written is on the server's disk, where a slot can read it.
        source.execute("SET synchronous_commit = on").await.unwrap();
        source.execute(AssertSqlSafe(setup.to_owned())).await.unwrap();
        Self { folder: tempfile::tempdir().unwrap(), cluster: Cluster::start().await, url, source }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The topology: `tables` is YAML below `tables:`.
    pub fn launch(&self, tables: &str) -> Launch {
        self.launch_at(tables, self.cluster.sim.port())
    }

    /// The same with the cluster at another port.
    pub fn launch_at(&self, tables: &str, port: u16) -> Launch {
        // Names of slots are the server's, not the database's.
        let name = self.url.rsplit('/').next().unwrap();
        let topology = format!(
            "version: 1\nname: {name}\nsources:\n  shop: {{ kind: postgres, url: \"{}?sslmode=disable\", slot: {name}, \
             publication: p }}\ntables: {tables}\n{}epoch: {{ every: 200ms }}\n",
            self.url,
            lake_and_warehouse(&self.cluster, port)
        );
        Launch::new(self.path(), &topology)
    }

    /// Changes the source.
    pub async fn run(&mut self, sql: &str) {
        self.source.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
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

    /// What waits in quarantine, as `quarantine list` says it.
    pub fn quarantined(&self, launch: &Launch) -> String {
        String::from_utf8_lossy(&launch.other(&["quarantine", "list"], &[]).stdout).into_owned()
    }
}
