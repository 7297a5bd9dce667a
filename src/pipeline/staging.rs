//! The lake as the place from which a warehouse loads.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::config::Topology;
use crate::error::Result;
use crate::lake::{Lake, LogState};
use crate::pipeline::grouping::groups;
use crate::warehouse::{self, Staging, Warehouse};

struct LakeStaging(Lake);

#[async_trait]
impl Staging for LakeStaging {
    fn url(&self, name: &str) -> String {
        self.0.staged_url(name)
    }

    async fn put(&self, name: &str, body: Bytes) -> Result<()> {
        self.0.put_staged(name, body).await
    }

    async fn discard(&self, names: &[String]) {
        for name in names {
            if let Err(error) = self.0.discard_staged(name).await {
                tracing::warn!(name, "{error}; the staged file is swept when it is a day old");
            }
        }
    }
}

/// The lake as a place for files that a warehouse is to load.
pub fn staging(lake: &Lake) -> Arc<dyn Staging> {
    Arc::new(LakeStaging(lake.clone()))
}

/// Opens the topology's warehouse to load it. `state`: what the log says of its tables.
pub async fn open_to_load(topology: &Topology, state: &LogState) -> Result<Arc<dyn Warehouse>> {
    let warehouse = open_warehouse(topology).await?;
    let contracts =
        topology.tables.iter().filter_map(|(name, table)| Some((state.contracts.get(name)?, table.deletes)));
    let shown: Vec<_> = contracts.map(|(contract, mode)| (Arc::clone(contract), mode)).collect();
    warehouse::assign(&topology.warehouse, &topology.name, &groups(topology), &shown).await?;
    Ok(warehouse)
}

/// Opens the topology's warehouse.
pub async fn open_warehouse(topology: &Topology) -> Result<Arc<dyn Warehouse>> {
    let staging = staging(&Lake::open(&topology.lake)?);
    warehouse::open_laid_out(&topology.warehouse, &topology.name, staging, topology.layouts()).await
}
