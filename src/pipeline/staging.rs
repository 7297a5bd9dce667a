//! The lake as the place from which a warehouse loads.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::task::TaskTracker;

use crate::config::Topology;
use crate::error::Result;
use crate::lake::{Lake, LogState};
use crate::pipeline::grouping::groups;
use crate::warehouse::{self, Inspect, Staging, Warehouse};

/// How long the removal of what one load has staged may take; the rest is swept.
const DISCARD_LIMIT: Duration = Duration::from_secs(60);

struct LakeStaging {
    lake: Lake,
    /// What is being removed.
    discards: TaskTracker,
}

#[async_trait]
impl Staging for LakeStaging {
    fn url(&self, name: &str) -> String {
        self.lake.staged_url(name)
    }

    async fn put(&self, name: &str, body: Bytes) -> Result<()> {
        self.lake.put_staged(name, body).await
    }

    async fn discard(&self, names: &[String]) {
        if names.is_empty() {
            return;
        }
        let (lake, names) = (self.lake.clone(), names.to_vec());
        self.discards.spawn(async move {
            let swept = "staged files stay behind, and are swept when they are a day old";
            match tokio::time::timeout(DISCARD_LIMIT, lake.discard_staged(&names)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!("{error}; {swept}"),
                Err(_) => {
                    tracing::warn!(files = names.len(), "the store removed nothing in {DISCARD_LIMIT:?}; {swept}")
                }
            }
        });
    }

    async fn settle(&self) {
        self.discards.close();
        self.discards.wait().await;
    }
}

/// The lake as a place for files that a warehouse is to load.
pub fn staging(lake: &Lake) -> Arc<dyn Staging> {
    Arc::new(LakeStaging { lake: lake.clone(), discards: TaskTracker::new() })
}

/// Opens the topology's warehouse to load it from `staging`. `state`: what the log says of its tables.
pub async fn open_to_load(
    topology: &Topology,
    staging: &Arc<dyn Staging>,
    state: &LogState,
) -> Result<Arc<dyn Inspect>> {
    let warehouse = open_staged(topology, Arc::clone(staging)).await?;
    let contracts =
        topology.tables.iter().filter_map(|(name, table)| Some((state.contracts.get(name)?, table.deletes)));
    let shown: Vec<_> = contracts.map(|(contract, mode)| (Arc::clone(contract), mode)).collect();
    warehouse::assign(&topology.warehouse, &topology.name, &groups(topology), &shown).await?;
    Ok(warehouse)
}

/// Opens the topology's warehouse.
pub async fn open_warehouse(topology: &Topology) -> Result<Arc<dyn Warehouse>> {
    Ok(open_staged(topology, staging(&Lake::open(&topology.lake)?)).await?)
}

async fn open_staged(topology: &Topology, staging: Arc<dyn Staging>) -> Result<Arc<dyn Inspect>> {
    warehouse::open_laid_out(&topology.warehouse, &topology.name, staging, topology.layouts()).await
}
