//! What is different about sources that read a database's own log.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::survey::Survey;
use crate::batch::RawBatch;
use crate::config::{Source, Topology};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::RawFile;
use crate::progress::Partition;

/// The sources of a topology that read a database's own log.
#[derive(Debug, Clone)]
pub struct Databases(Arc<BTreeSet<String>>);

impl Databases {
    /// Those of a topology.
    pub fn of(topology: &Topology) -> Self {
        let is_database = |source: &Source| matches!(source, Source::Postgres(_) | Source::Mysql(_));
        let names = topology.sources.iter().filter(|(_, source)| is_database(source)).map(|(name, _)| name.clone());
        Self(Arc::new(names.collect()))
    }

    /// Whether the partition is of one of them.
    pub fn hold(&self, partition: &Partition) -> bool {
        self.0.contains(&*partition.source)
    }

    /// Refuses records whose order is not all there: older versions kept one number of the three that make it.
    pub fn refuse_older(&self, file: &RawFile, batches: &[RawBatch]) -> Result<()> {
        let found = batches.iter().map(|batch| &batch.partition).find(|partition| self.hold(partition));
        let Some(partition) = found.filter(|_| !file.tells_apart()) else { return Ok(()) };
        let what = format!(
            "{} was written by a version that did not keep where inside of a transaction a change of {partition} stands",
            file.path()
        );
        Err(Error::new(ErrorKind::Config, what).help(
            "`replay` what was processed, or give the source another name in the topology to have its tables read anew; \
             when every table was read again since that version (`table resync`), --from the epoch where that began",
        ))
    }
}

/// Refuses what `run` could not go on with once the lake is filled. `old_name` is the name of the topology that filled the
/// old one.
pub fn refuse_other_sources(topology: &Topology, databases: &Databases, survey: &Survey, old_name: &str) -> Result<()> {
    for (partition, standing) in survey.end.iter() {
        // Only these sources' positions are more than a number or a text.
        let was_database = standing.position.0.starts_with('{');
        let source = &partition.source;
        if databases.hold(partition) != was_database {
            let at = &standing.position;
            let what = format!("the raw zone holds source {source} as one of another kind: it stands at {at}");
            return Err(Error::new(ErrorKind::Config, what)
                .help("a source keeps its kind: name the one that was read, and the new one otherwise"));
        }
        #[cfg(feature = "postgres")]
        refuse_other_slot(topology, partition, old_name)?;
    }
    #[cfg(not(feature = "postgres"))]
    let _only_with_postgres = (topology, old_name);
    Ok(())
}

/// `run` goes on at the slot that was read, by the publication that it was read by, and no other.
#[cfg(feature = "postgres")]
fn refuse_other_slot(topology: &Topology, partition: &Partition, old_name: &str) -> Result<()> {
    let source = &*partition.source;
    let Some(Source::Postgres(config)) = topology.sources.get(source) else { return Ok(()) };
    let slot = crate::source::postgres::slot_name(&topology.name, source, config)?;
    let read = partition.name.rsplit_once('@').map_or(&*partition.name, |(slot, _)| slot);
    let (what, write) = if read != slot {
        let what =
            format!("the raw zone holds source {source} as slot {read} read it, and the topology reads slot {slot}");
        (what, format!("`slot: {read}` and the `publication:` that it had"))
    } else if config.publication.is_none() && old_name != topology.name {
        let what = format!("source {source} names no publication, and slot {slot} was read by topology {old_name}'s");
        (
            what,
            "the `publication:` that it had (its name is like that of the slot when the old topology says none)".into(),
        )
    } else {
        return Ok(());
    };
    let then = "`run` goes on there, once the old pipeline is stopped for good";
    Err(Error::new(ErrorKind::Config, what).help(format!("write {write} into the source: {then}")))
}
