//! Whether a source has what it takes, without reading from it and without changing anything.

use std::time::Duration;

use crate::config::Source;
use crate::error::Result;
#[cfg(feature = "postgres")]
use crate::error::{Error, ErrorKind};
use crate::finding::{Finding, Findings, Level};
use crate::telemetry::SlotStatus;

/// How long `status` waits for a server.
const ANSWER: Duration = Duration::from_secs(5);

/// The replication slot that the source reads, as its server sees it now; `None` for sources that read none.
pub async fn slot_of(name: &str, source: &Source, topology: &str) -> Option<Result<Option<SlotStatus>>> {
    match source {
        #[cfg(feature = "postgres")]
        Source::Postgres(postgres) => {
            let asked = tokio::time::timeout(ANSWER, super::postgres::slot_now(name, postgres, topology)).await;
            let late = |_| {
                let what = format!("source {name}: ask for its slot: no answer in {ANSWER:?}");
                Err(Error::new(ErrorKind::SourceUnavailable, what))
            };
            Some(asked.unwrap_or_else(late))
        }
        _ => {
            let _only_databases = (name, topology, ANSWER);
            None
        }
    }
}

/// Looks at the source `name`, of which `streams` are read.
pub async fn probe(name: &str, source: &Source, topology: &str, streams: &[String]) -> Vec<Finding> {
    let mut found = Findings::at(format!("source {name}"));
    match source {
        #[cfg(feature = "postgres")]
        Source::Postgres(postgres) => {
            super::postgres::probe(name, postgres, topology, streams, &mut found).await;
        }
        #[cfg(feature = "mysql")]
        Source::Mysql(mysql) => {
            super::mysql::probe(name, mysql, topology, streams, &mut found).await;
        }
        _ => {
            let _only_databases = (topology, streams);
            found.add(Level::Note, "is not connected to: only database sources are", None);
        }
    }
    found.list
}
