//! One decoder for the records of all sources.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::batch::{ChangeBatch, RawBatch};
use crate::config::Loaded;
use crate::contract::Contract;
use crate::decode::Decoder;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::build;
use crate::progress::{Partition, Progress};

/// Each source's decoder.
pub struct BySource(BTreeMap<String, Box<dyn Decoder>>);

impl BySource {
    /// Makes the decoder of every source of the topology.
    pub fn new(loaded: &Loaded) -> Result<Self> {
        let names = loaded.topology.sources.keys();
        names.map(|name| Ok((name.clone(), build::decoder(loaded, name)?))).collect::<Result<_>>().map(Self)
    }

    fn of(&mut self, partition: &Partition) -> Result<&mut Box<dyn Decoder>> {
        let decoder = self.0.get_mut(&*partition.source);
        decoder.ok_or_else(|| Error::new(ErrorKind::Internal, format!("{partition} is of no source of the topology")))
    }
}

impl Decoder for BySource {
    fn decode(&mut self, raw: &RawBatch) -> Result<ChangeBatch> {
        self.of(&raw.partition)?.decode(raw)
    }

    fn flush(&mut self, partition: &Partition) -> Result<Option<ChangeBatch>> {
        self.of(partition)?.flush(partition)
    }

    fn adopt(&mut self, contracts: &[Arc<Contract>]) -> Result<()> {
        self.0.values_mut().try_for_each(|decoder| decoder.adopt(contracts))
    }

    fn reset(&mut self, partition: &Partition, progress: &Progress) {
        if let Ok(decoder) = self.of(partition) {
            decoder.reset(partition, progress);
        }
    }

    fn revisit(&mut self, partition: &Partition, progress: &Progress) {
        if let Ok(decoder) = self.of(partition) {
            decoder.revisit(partition, progress);
        }
    }
}
