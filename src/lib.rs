//! DataFlow makes warehouse tables fresh: change streams in, a Parquet lake and exactly-once upserts out.
//!
//! ```text
//! INGEST (many pods, no state)                      LOAD (one per group, deterministic)
//! source → decode → operators → Parquet ─▶ log ─▶ fold → warehouse
//!                               (lake)    n.json  (newest per key)  (rows + ledger, one transaction)
//!    ◀── release (offsets) ── after commit ──┘
//! ```
//!
//! # Code map
//!
//! | module | what it owns |
//! |---|---|
//! | [`error`] | one error type; retry, park or halt in one match |
//! | [`telemetry`] | every metric name; log set-up |
//! | [`finding`] | what `check --connect` says of a place |
//! | [`progress`] | partitions, positions, spans, the join-on rule |
//! | [`contract`] | column types, keys, widening as a lattice |
//! | [`batch`] | raw records, columnar changes, rejects |
//! | [`epoch`] | manifest, account, load unit |
//! | [`config`] | the topology: types, reading, checking |
//! | [`net`] | Amazon's credentials |
//! | [`wire`] | pgoutput and the binary log: bytes to messages |
//! | [`source`] | Kafka, PostgreSQL, MySQL and MariaDB, files |
//! | [`decode`] | Debezium JSON, pgoutput, the binary log: to columns |
//! | [`operator`] | validate, mask, compute, filter, rename, drop |
//! | [`lake`] | object store, Parquet, the log, quarantine, sweep |
//! | [`warehouse`] | SQLite, PostgreSQL, Redshift |
//! | [`pipeline`] | the only place that spawns tasks: ingest, fold, load, shutdown |
//! | [`admin`] | health, metrics, status page |
//! | [`cli`] | one file per command |
//!
//! # Invariants
//!
//! 1. One put-if-absent of a manifest is the atomic commit of an epoch: spans, data, contracts, account.
//! 2. Spans join on to where the log stands. Overlap and gap are both refused; this is the fence between processes.
//! 3. A source is released only after the commit.
//! 4. Load is a pure function of the log. A group's rows and its ledger change in one transaction, as a compare-and-set.
//! 5. A row never replaces one with a higher [`batch::Seq`].
//! 6. Nothing disappears unsaid: the [`epoch::Account`] is asserted at seal and at load.
//!
//! # What is absent
//!
//! No per-row maps of values: data is Arrow from the decoder on. No SQL outside `warehouse`, but for what a database
//! source asks its own server. No clock and no I/O in operators and fold. No state in ingest that the log does not have.
//! Modules import only layers below them (`tests/it/layers.rs`).

pub mod admin;
pub mod batch;
pub mod cli;
pub mod config;
pub mod contract;
pub mod decode;
pub mod epoch;
pub mod error;
pub mod failpoint;
pub mod finding;
pub mod lake;
pub mod net;
pub mod operator;
pub mod pipeline;
pub mod progress;
pub mod source;
pub mod telemetry;
pub mod warehouse;
pub mod wire;
