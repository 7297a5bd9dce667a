//! Kafka → S3 → PostgreSQL, and again from the raw zone.

use loadtest::Shop;

use super::{places, redelivering, reprocessed};
use crate::exactly_once::world::{Partitions, Servers, World};
use crate::support::s3::BUCKET;

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_of_kafka_is_built_anew_and_kafka_goes_on() {
    let Some(servers) = Servers::start("reprocess", Partitions::Two).await else { return };
    let mut shop = Shop::new(91, redelivering(3_000));
    let mut sell = |until: u64| {
        let mut events = Vec::new();
        while shop.generated() < until {
            events.push(shop.next_event());
        }
        events.extend(shop.drain());
        servers.produce(&events);
        shop.expected()
    };
    let expected = sell(2_000);
    let old = servers.world("rawold");
    old.launch.run_until_caught_up().await;
    let records = servers.held();
    found_nothing(&old, old.judge(&expected, records).await);
    let new = servers.world("rawnew");
    let url = format!("s3://{BUCKET}/rawold");
    let report = reprocessed(&new.launch, &["--from-lake", &url]);
    assert_eq!(report["read"], records);
    found_nothing(&new, new.judge(&expected, records).await);
    assert_eq!(places(&old.lake.log().await), places(&new.lake.log().await));
    let expected = sell(3_000);
    new.launch.run_until_caught_up().await;
    let unread = servers.unread(&new.lake.log().await);
    assert!(unread.is_empty(), "{unread:?}");
    found_nothing(&new, new.judge(&expected, servers.held()).await);
}

fn found_nothing(world: &World, found: Vec<String>) {
    world.oracle.assert(&found);
}
