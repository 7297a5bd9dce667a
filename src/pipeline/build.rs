//! Sources, decoders and operators from a topology.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{Loaded, Source as SourceConfig, Topology};
use crate::decode::Decoder;
use crate::decode::binlog::BinlogDecoder;
use crate::decode::debezium::{DebeziumJson, TableRoute};
use crate::decode::pgoutput::PgOutput;
use crate::error::{Error, ErrorKind, Result};
use crate::operator::Chain;
pub use crate::pipeline::grouping::groups;
use crate::progress::Standings;
use crate::source::{Source, Witness};
use crate::telemetry::Status;

/// What ingest is made of.
pub struct Parts {
    /// Each table's operators.
    pub chains: Arc<BTreeMap<String, Chain>>,
    /// Each source with its decoder.
    pub sources: Vec<SourcePart>,
}

/// A source and its decoder.
pub struct SourcePart {
    pub name: Arc<str>,
    pub source: Box<dyn Source>,
    pub decoder: Box<dyn Decoder>,
}

/// Each table's operators.
pub fn chains(topology: &Topology) -> Result<BTreeMap<String, Chain>> {
    let mut chains = BTreeMap::new();
    for (name, table) in &topology.tables {
        let chain = Chain::build(name, table).map_err(|mistakes| {
            let text = mistakes.iter().map(|m| format!("operator {}: {}", m.operator + 1, m.message));
            Error::new(ErrorKind::Config, format!("table {name}: {}", text.collect::<Vec<_>>().join("; ")))
        })?;
        chains.insert(name.clone(), chain.limited(topology.warehouse.limits()));
    }
    Ok(chains)
}

/// Connects the sources and makes their decoders.
pub async fn parts(loaded: &Loaded, standings: &Arc<dyn Standings>, status: &Arc<Status>) -> Result<Parts> {
    let topology = &loaded.topology;
    let mut sources = Vec::new();
    for (name, source) in &topology.sources {
        let streams = streams(loaded, name);
        let decoder = decoder(loaded, name)?;
        let source = open_source(name, source, topology, &streams, standings, status).await?;
        sources.push(SourcePart { name: name.as_str().into(), source, decoder });
    }
    Ok(Parts { chains: Arc::new(chains(topology)?), sources })
}

/// Nothing to read.
pub fn no_parts(loaded: &Loaded) -> Result<Parts> {
    Ok(Parts { chains: Arc::new(chains(&loaded.topology)?), sources: Vec::new() })
}

/// The decoder of a source.
pub fn decoder(loaded: &Loaded, name: &str) -> Result<Box<dyn Decoder>> {
    let debezium = match loaded.topology.sources.get(name) {
        Some(SourceConfig::Kafka(kafka)) => &kafka.debezium,
        Some(SourceConfig::File(file)) => &file.debezium,
        Some(SourceConfig::Postgres(_)) => return Ok(Box::new(PgOutput::new(name, routes(loaded, name))?)),
        Some(SourceConfig::Mysql(_)) => return Ok(Box::new(BinlogDecoder::new(name, routes(loaded, name))?)),
        None => {
            return Err(Error::new(ErrorKind::Config, format!("the topology has no source {name} any more"))
                .help("put it back to read what came from it again"));
        }
    };
    Ok(Box::new(DebeziumJson::new(name, debezium, routes(loaded, name))?))
}

/// The streams of source `name` that are read.
pub fn streams(loaded: &Loaded, name: &str) -> Vec<String> {
    routes(loaded, name).into_iter().map(|route| route.stream).collect()
}

/// The tables that read from source `name`.
pub(super) fn routes(loaded: &Loaded, name: &str) -> Vec<TableRoute> {
    let topology = &loaded.topology;
    topology
        .tables
        .iter()
        .filter(|(_, table)| topology.source_of(table).is_some_and(|(source, _)| source == name))
        .map(|(table_name, table)| TableRoute {
            table: table_name.clone(),
            stream: table.from.clone(),
            key: table.key.clone(),
            contract: loaded.contracts.get(table_name).cloned(),
            on_mismatch: table.on_mismatch,
            gone: table.gone.clone(),
        })
        .collect()
}

/// Reads the tables of a source as they are now.
pub(super) fn witness(name: &str, source: &SourceConfig, topology: &str) -> Result<Box<dyn Witness>> {
    let refused = |what: &str| {
        Err(Error::new(
            ErrorKind::Config,
            format!("source {name} is {what}: it has no tables that could be read and compared"),
        )
        .help("verify compares tables of databases that are read directly; name those with --table"))
    };
    match source {
        SourceConfig::Kafka(_) => refused("Kafka, a stream of changes"),
        SourceConfig::File(_) => refused("files of changes"),
        #[cfg(feature = "mysql")]
        SourceConfig::Mysql(mysql) => Ok(Box::new(crate::source::mysql::Tables::new(name, mysql)?)),
        #[cfg(not(feature = "mysql"))]
        SourceConfig::Mysql(_) => Err(Error::new(ErrorKind::Config, format!("source {name}: this build has no MySQL"))
            .help("build with `--features mysql`")),
        #[cfg(feature = "postgres")]
        SourceConfig::Postgres(postgres) => {
            Ok(Box::new(crate::source::postgres::Tables::new(name, postgres, topology)?))
        }
        #[cfg(not(feature = "postgres"))]
        SourceConfig::Postgres(_) => {
            let _unused = topology;
            Err(Error::new(ErrorKind::Config, format!("source {name}: this build has no PostgreSQL"))
                .help("build with `--features postgres`"))
        }
    }
}

async fn open_source(
    name: &str,
    source: &SourceConfig,
    topology: &Topology,
    streams: &[String],
    standings: &Arc<dyn Standings>,
    status: &Arc<Status>,
) -> Result<Box<dyn Source>> {
    let _only_some_report = status;
    match source {
        SourceConfig::File(file) => {
            Ok(Box::new(crate::source::file::Files::open(name, file, Arc::clone(standings)).await?))
        }
        #[cfg(feature = "postgres")]
        SourceConfig::Postgres(postgres) => {
            let (standings, status) = (Arc::clone(standings), Arc::clone(status));
            let name_of = &topology.name;
            let postgres = crate::source::postgres::Postgres::open(name, postgres, name_of, streams, standings, status);
            Ok(Box::new(postgres.await?))
        }
        #[cfg(not(feature = "postgres"))]
        SourceConfig::Postgres(_) => {
            Err(Error::new(ErrorKind::Config, format!("source {name}: this build has no PostgreSQL"))
                .help("build with `--features postgres`"))
        }
        #[cfg(feature = "mysql")]
        SourceConfig::Mysql(mysql) => {
            let standings = Arc::clone(standings);
            Ok(Box::new(crate::source::mysql::Mysql::open(name, mysql, &topology.name, streams, standings).await?))
        }
        #[cfg(not(feature = "mysql"))]
        SourceConfig::Mysql(_) => Err(Error::new(ErrorKind::Config, format!("source {name}: this build has no MySQL"))
            .help("build with `--features mysql`")),
        #[cfg(feature = "kafka")]
        SourceConfig::Kafka(kafka) => {
            let inflight = topology.limits.inflight_bytes.0 as usize;
            let kafka = crate::source::kafka::Kafka::open(
                name,
                kafka,
                &topology.name,
                streams,
                inflight,
                Arc::clone(standings),
            )
            .await?;
            Ok(Box::new(kafka))
        }
        #[cfg(not(feature = "kafka"))]
        SourceConfig::Kafka(_) => {
            let _unused = (topology, streams);
            Err(Error::new(ErrorKind::Config, format!("source {name}: this build has no Kafka"))
                .help("build with `--features kafka`"))
        }
    }
}
