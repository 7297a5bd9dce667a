//! The topology: types, reading, checking. Knows no connector, touches no network.
//!
//! | file | what it owns |
//! |---|---|
//! | `topology.rs` | the types that people write, and their documentation |
//! | `database_source.rs` | what sources that are databases have in common |
//! | `postgres_source.rs` | the part of them that a PostgreSQL source is |
//! | `mysql_source.rs` | the part of them that a MySQL or MariaDB source is |
//! | `redshift_warehouse.rs` | the part of them that a Redshift warehouse is |
//! | `lake.rs` | the part of them that says more of the lake than its place |
//! | `contract_file.rs` | a table's contract as people write it |
//! | `freshness.rs` | how long changes may wait |
//! | `layout.rs` | how a table lies in Redshift |
//! | `units.rs` | sizes and lengths of time |
//! | `load.rs` | [`load`]: from a file to a checked topology |
//! | `hidden.rs` | secrets stay out of what is printed |
//! | `document.rs` | YAML as a tree that knows its places |
//! | `reference.rs` | `${ENV}`, `file:` and `--set` |
//! | `shape.rs` | a document against the JSON Schema of the types |
//! | `rules.rs`, `masks.rs`, `streams.rs` | what a schema cannot say |
//! | `sheet.rs`, `mistake.rs` | where a mistake is, and how it is printed |

mod contract_file;
mod database_source;
mod document;
mod freshness;
mod hidden;
mod lake;
mod layout;
mod load;
mod masks;
mod mistake;
mod mysql_source;
mod postgres_source;
mod redshift_warehouse;
mod reference;
mod rules;
mod shape;
mod sheet;
mod streams;
mod topology;
mod units;

pub use contract_file::*;
pub use database_source::*;
pub use lake::*;
pub use layout::{Distribution, TableLayout};
pub use load::{Loaded, contract_schema, load, load_with, topology_schema};
pub use mistake::{Mistake, Mistakes, nearest};
pub use mysql_source::*;
pub use postgres_source::*;
pub use redshift_warehouse::*;
pub use reference::Environment;
pub use topology::*;
pub use units::{Bytes, Span};
