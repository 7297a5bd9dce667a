//! Whether everything that a topology names can be reached and has what it takes. Changes nothing.

use futures::future::join_all;

use super::build;
use crate::config::Loaded;
use crate::lake::Lake;
use crate::source::probe::{Finding, Findings, probe as probe_source};
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
    match warehouse::find(&loaded.topology.warehouse, &loaded.topology.name).await {
        Ok(Some(_)) => found.good("answers, and has been loaded before"),
        Ok(None) => found.good("nothing has been loaded yet"),
        Err(error) => found.failure(&error),
    }
    found.list
}
