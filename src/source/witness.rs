//! A source's tables as they are now, to be held against what was made of its changes.

use async_trait::async_trait;

use crate::batch::RawBatch;
use crate::error::Result;
use crate::progress::Progress;

/// Keys of rows, as texts that the source understands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// The key's columns, by the source's names.
    pub columns: Vec<String>,
    /// The values, in that order.
    pub rows: Vec<Vec<String>>,
}

/// Whether the log has come to where a reading was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reached {
    /// Everything that the reading shows of the table stands in the log.
    Yes,
    /// Not yet, or nobody can tell: why.
    No(String),
}

/// A source whose tables can be read at any time, beside the process that reads its changes.
#[async_trait]
pub trait Witness: Send {
    /// Begins a reading of `stream`: its rows as of one moment, that of this call. With `keys` at least the rows of those
    /// keys, otherwise all. Says which columns the stream has.
    async fn read(&mut self, stream: &str, keys: Option<&Keys>) -> Result<Vec<String>>;

    /// The next rows of the reading, in the form that the source's decoder takes, each as if a snapshot had read it;
    /// `None` at their end.
    async fn next(&mut self) -> Result<Option<RawBatch>>;

    /// The record that takes the row of `record` away. Of such a one only the key is decoded, so it tells the key of a row
    /// that cannot be decoded as a whole. `None` where `record` is no row.
    fn gone(&self, record: &[u8]) -> Option<Vec<u8>>;

    /// Whether all changes of the newest reading's stream that the reading shows stand before `progress`.
    async fn reached(&mut self, progress: &Progress) -> Result<Reached>;
}
