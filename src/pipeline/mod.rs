//! The running process: the only place that spawns tasks and makes channels.
//!
//! | file | what it owns |
//! |---|---|
//! | `build.rs` | sources, decoders, operators and warehouse from a topology |
//! | `readings.rs` | which tables are being read beside their changes |
//! | `reader.rs` | one task per source: read, decode, transform |
//! | `ingest.rs` | the epoch task: collect, seal, commit, release |
//! | `open_epoch.rs` | what has been collected since the last cut |
//! | `unit.rs` | which epochs become one warehouse transaction: pure |
//! | `backlog.rs` | what the log has for a group and the warehouse lacks |
//! | `governor.rs` | when a group is loaded: pure |
//! | `grouping.rs` | which tables are loaded together: pure |
//! | `fold.rs` | newest value per key: pure |
//! | `opening.rs` | the warehouse, also when it is away at the start |
//! | `staging.rs` | the lake as the place from which a warehouse loads |
//! | `load.rs` | one task per group: fold, ensure, apply |
//! | `quarantine.rs` | refused entries: list, retry, drop |
//! | `probe.rs` | `check --connect`: what can be reached, and what it lacks |
//! | `replay.rs` | a warehouse from the log alone |
//! | `reprocess.rs` | a lake and a warehouse from another lake's raw zone |
//! | `verify/` | the source's tables against the warehouse's |
//! | `backoff.rs` | how long to wait before trying again |
//! | `report.rs` | what happened, as counters and status |
//! | `upkeep.rs` | what is looked after now and then: the sweep, rows without a base |
//! | `run.rs` | start, supervision, shutdown |
//!
//! ```text
//!  reader (source A) ─┐  bounded   ┌─ seal + commit (at most one at a time) ─▶ lake log
//!  reader (source B) ─┴─ channel ─▶│ ingest
//!        ▲── release / rewind ─────┘                    log ─▶ load (group 1), load (group 2), …
//! ```
//!
//! What a reader hands over carries the *era* that it was read in. When an epoch is dropped (fenced, or the store stayed
//! away), ingest begins a new era, tells the readers where the log stands, and ignores what still comes from the old one.

mod backlog;
mod backoff;
pub mod build;
pub mod fold;
mod governor;
mod grouping;
mod ingest;
mod load;
mod open_epoch;
mod opening;
mod probe;
pub mod quarantine;
mod reader;
pub mod readings;
mod replay;
mod report;
pub mod reprocess;
mod run;
pub mod staging;
mod unit;
mod upkeep;
pub mod verify;

pub use probe::probe;
pub use reader::output_schema;
pub use replay::{Replayed, replay};
pub use run::{Options, Role, run};
