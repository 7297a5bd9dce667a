//! The epoch: everything that one process read between two cuts, as types and in its stored form.
//!
//! | file | what it owns |
//! |---|---|
//! | `manifest.rs` | [`Manifest`]: one object of the log; the atomic commit of an epoch |
//! | `account.rs` | [`Account`]: what became of every record and row |
//! | `unit.rs` | [`LoadUnit`]: what one warehouse transaction applies |

mod account;
mod manifest;
mod unit;

pub use account::{Account, LoadAccount, TableAccount};
pub use manifest::{Compaction, Control, DataFile, FORMAT_VERSION, Manifest, RejectFile, TableEpoch};
pub use unit::{Applied, DeleteMode, Incomplete, LoadUnit, TableLoad};

/// The number of a manifest: the first is 1.
pub type EpochNumber = u64;
