//! Real sources, a real S3 protocol server, and the emulator of Redshift: what arrives is what the source holds, whatever
//! happens on the way.
//!
//! Every scenario is one function of the way by which a database's changes come: read by DataFlow itself, or as Debezium's
//! events in Kafka. The oracle is the database: `oracle.rs` compares every row, and proves the quarantine.
//!
//! | file | what it holds |
//! |---|---|
//! | `world.rs` | a database, the way, the cluster |
//! | `debezium.rs`, `pgoutput.rs`, `connect.rs` | a small Debezium |
//! | `oracle.rs` | the judge |
//! | `rows.rs`, `tables.rs`, `login.rs`, `lake.rs` | the scenarios |
//! | `postgres.rs`, `kafka.rs` | the tests: each scenario by each way, and what one of them alone has |
//! | `proof.rs` | values at their ends: what is proven loads, what is refused would not |

mod connect;
mod debezium;
mod documents;
mod kafka;
mod lake;
mod login;
mod oracle;
mod pgoutput;
mod postgres;
mod proof;
mod rows;
mod tables;
mod world;

use crate::support::cluster::Cluster;
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
