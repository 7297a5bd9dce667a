//! How far each partition of each source has come, and the rule that spans join on.
//!
//! A position is *the next thing to read*: for Kafka the next offset, for a file the next byte. It is opaque here: only
//! the source that made it can order it. What the log checks is equality: a span begins exactly where the last one
//! ended, so nothing is read twice and nothing is left out.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// One ordered sub-stream of a source: a Kafka partition of one topic id, a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Partition {
    /// The source's name in the topology.
    pub source: Arc<str>,
    /// The source's own name for it, e.g. `shop.public.orders#<topic id>/3` or `orders.jsonl#<identity>`.
    pub name: Arc<str>,
}

impl Partition {
    /// The partition `name` of `source`.
    pub fn new(source: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { source: source.into(), name: name.into() }
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source, self.name)
    }
}

/// The next thing to read in a partition, in the source's own text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub String);

impl Position {
    /// A position that is a number: an offset.
    pub fn offset(offset: u64) -> Self {
        Self(offset.to_string())
    }

    /// The number that [`Position::offset`] was made of.
    pub fn as_offset(&self) -> Option<u64> {
        self.0.parse().ok()
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The half-open range `[from, to)` that was read in one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// The first position that is inside.
    pub from: Position,
    /// The first position that is not.
    pub to: Position,
}

/// Grows when the delivery order of a partition cannot be compared with what came before (it is the first part of a change's `_seq`).
pub type Generation = u32;

/// Where one partition stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The next position to read.
    pub position: Position,
    /// The generation of what was read last.
    pub generation: Generation,
    /// What the decoder needs to recognise re-delivered events (its own text).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<String>,
}

/// A partition's move forward in one epoch, as the manifest stores it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advance {
    /// Which partition.
    #[serde(flatten)]
    pub partition: Partition,
    /// What was read.
    #[serde(flatten)]
    pub span: Span,
    /// The generation at the end of the span.
    pub generation: Generation,
    /// The decoder's mark at the end of the span.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<String>,
}

/// Where all partitions stand: the sum of all committed advances.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    standings: BTreeMap<Partition, Standing>,
}

impl Progress {
    /// Where `partition` stands, if it has ever been read.
    pub fn get(&self, partition: &Partition) -> Option<&Standing> {
        self.standings.get(partition)
    }

    /// All partitions, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Partition, &Standing)> {
        self.standings.iter()
    }

    /// All partitions of one source, in order.
    pub fn of_source<'a>(&'a self, source: &'a str) -> impl Iterator<Item = (&'a Partition, &'a Standing)> {
        self.standings.iter().filter(move |(partition, _)| &*partition.source == source)
    }

    /// Sets a standing without checking (reading a checkpoint, building what to release).
    pub fn set(&mut self, partition: Partition, standing: Standing) {
        self.standings.insert(partition, standing);
    }

    /// Whether `advance` joins on to where its partition stands. A partition that was never read may start anywhere.
    pub fn joins(&self, advance: &Advance) -> bool {
        self.standings
            .get(&advance.partition)
            .is_none_or(|standing| standing.position == advance.span.from && standing.generation <= advance.generation)
    }

    /// Moves forward, or refuses an overlap or a gap with [`ErrorKind::Fenced`].
    pub fn advance(&mut self, advance: &Advance) -> Result<()> {
        if !self.joins(advance) {
            let at = self.standings.get(&advance.partition).map(|s| s.position.to_string()).unwrap_or_default();
            return Err(Error::new(
                ErrorKind::Fenced,
                format!(
                    "partition {} stands at {at} in the log but the epoch reads it from {}",
                    advance.partition, advance.span.from
                ),
            )
            .help("another process reads this partition too; this one drops its epoch and reads again from the log"));
        }
        self.standings.insert(
            advance.partition.clone(),
            Standing { position: advance.span.to.clone(), generation: advance.generation, mark: advance.mark.clone() },
        );
        Ok(())
    }
}

/// Where a source asks for the newest committed standings; the lake log answers.
#[async_trait]
pub trait Standings: Send + Sync {
    /// Reads the log's head, so that what another process has committed is seen.
    async fn latest(&self) -> Result<Progress>;
}
