//! Whether everything that a topology names can be reached and has what it takes. Nothing that it makes stays.

use std::sync::Arc;

use futures::future::join_all;

use super::build;
use super::staging::staging;
use crate::config::Loaded;
use crate::finding::{Finding, Findings};
use crate::lake::Lake;
use crate::source::probe::probe as probe_source;
use crate::warehouse;

/// Looks at every source, the lake and the warehouse, all at the same time.
pub async fn probe(loaded: &Loaded) -> Vec<Finding> {
    let topology = &loaded.topology;
    let sources = topology.sources.iter().map(|(name, source)| async move {
        let streams = build::streams(loaded, name);
        probe_source(name, source, &topology.name, &streams).await
    });
    let (sources, lake, warehouse) = tokio::join!(join_all(sources), lake(loaded), warehouse_of(loaded));
    sources.into_iter().flatten().chain(lake).chain(warehouse).collect()
}

async fn lake(loaded: &Loaded) -> Vec<Finding> {
    let mut found = Findings::at("lake");
    let looked = async {
        let lake = Lake::open(&loaded.topology.lake)?;
        let there = lake.has_log().await?;
        Ok::<_, crate::error::Error>((lake.url().to_owned(), there))
    };
    match looked.await {
        Ok((url, true)) => found.good(format!("{url} holds a log")),
        Ok((url, false)) => found.good(format!("{url} answers; there is no log yet")),
        Err(error) => found.failure(&error),
    }
    found.list
}

async fn warehouse_of(loaded: &Loaded) -> Vec<Finding> {
    let mut found = Findings::at("warehouse");
    let topology = &loaded.topology;
    match Lake::open(&topology.lake) {
        Ok(lake) => {
            let tables: Vec<&str> = topology.tables.keys().map(String::as_str).collect();
            let staging = staging(&lake);
            warehouse::probe(&topology.warehouse, &topology.name, Arc::clone(&staging), &tables, &mut found).await;
            staging.settle().await;
        }
        Err(error) => found.failure(&error),
    }
    found.list
}
