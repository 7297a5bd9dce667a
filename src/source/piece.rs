//! What the task that reads a database hands to whoever asks its source.

use crate::batch::RawRecords;
use crate::error::{Error, ErrorKind};

/// What the task found; `P` is the source's kind of place.
pub(super) enum Item<P> {
    Piece(Box<Piece<P>>),
    CaughtUp,
}

/// Records, and the place behind them.
pub(super) struct Piece<P> {
    pub records: RawRecords,
    pub place: P,
    /// Whether it ends inside a transaction.
    pub inside: bool,
    /// Bytes of log between the place and the server's end, as far as that is known.
    pub behind: u64,
}

/// The end of the channel was dropped: the task is about to end as well.
pub(super) fn unwanted() -> Error {
    Error::new(ErrorKind::Internal, "nobody reads this source any more")
}
