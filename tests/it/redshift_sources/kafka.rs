//! Events by Kafka into Redshift.

use super::lake_and_warehouse;
use crate::exactly_once::world::{EPOCHS, Partitions, Servers, tables_from};
use crate::support::cluster::Cluster;
use crate::support::process::Launch;

/// A shop in Kafka, and the cluster that it goes to.
struct Shop {
    servers: Servers,
    cluster: Cluster,
    folder: tempfile::TempDir,
    topology: String,
}

impl Shop {
    /// `None` when Kafka is missing.
    async fn open(name: &str) -> Option<Self> {
        let servers = Servers::start(name, Partitions::Two).await?;
        let cluster = Cluster::start().await;
        let topology = format!(
            "version: 1\nname: {name}\nsources:\n  shop:\n    kind: kafka\n    brokers: \"{}\"\n    topics: [\"{name}.*\"]\n    \
             properties: {{ session.timeout.ms: \"6000\", heartbeat.interval.ms: \"500\", group.instance.id: one }}\n{}\n{}{EPOCHS}",
            servers.broker.address,
            tables_from(name),
            lake_and_warehouse(&cluster, cluster.sim.port()),
        );
        Some(Self { servers, cluster, folder: tempfile::tempdir().unwrap(), topology })
    }
}

/// GIVEN a table that shows a wider and then an incompatible column, by Kafka, THEN what fits is loaded, and what does not
/// waits in quarantine.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_changes_its_type() {
    let Some(shop) = Shop::open("rs_types").await else { return };
    let topic = "rs_types.things";
    shop.servers.broker.create_topic(topic, 1, &[]).await;
    let tables = format!("tables: {{ things: {{ from: {topic}, key: [id] }} }}\n");
    let topology = shop.topology.replace(&tables_from("rs_types"), &tables);
    let launch = Launch::new(shop.folder.path(), &topology);
    let event = |id: u32, kind: &str, value: &str| {
        let field = |name: &str, kind: &str| format!("{{\"field\":\"{name}\",\"type\":\"{kind}\",\"optional\":true}}");
        let row = format!(
            "{{\"type\":\"struct\",\"optional\":true,\"fields\":[{},{}],\"field\":\"",
            field("id", "int32"),
            field("v", kind)
        );
        let fields = format!("[{row}before\"}},{row}after\"}},{}]", field("op", "string"));
        format!(
            "{{\"schema\":{{\"type\":\"struct\",\"fields\":{fields}}},\"payload\":{{\"before\":null,\
             \"after\":{{\"id\":{id},\"v\":{value}}},\"op\":\"c\"}}}}"
        )
    };
    let send = |id: u32, kind: &str, value: &str| {
        let (key, event) = (format!("{{\"id\":{id}}}"), event(id, kind, value));
        shop.servers.broker.produce(topic, 0, &[(&key, Some(&event))]);
    };
    send(1, "string", "\"short\"");
    launch.run_until_caught_up().await;
    send(2, "string", &format!("\"{}\"", "x".repeat(65_535)));
    send(3, "string", &format!("\"{}\"", "x".repeat(65_536)));
    send(4, "int64", "4");
    send(5, "string", "\"a\\u0000b\"");
    launch.run_until_caught_up().await;
    let list = String::from_utf8_lossy(&launch.other(&["quarantine", "list"], &[]).stdout).into_owned();
    for reason in ["65536 bytes are more", "NUL character at byte 2", "contract"] {
        assert!(list.contains(reason), "{reason}: {list}");
    }
    let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&shop.cluster.postgres_url).await.unwrap();
    let rows: Vec<(i32, i32)> =
        sqlx::query_as("SELECT id, length(v) FROM shop.things ORDER BY id").fetch_all(&mut connection).await.unwrap();
    assert_eq!(rows, [(1, 5), (2, 65_535)]);
}
