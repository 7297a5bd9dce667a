//! A realistic shop as a Debezium PostgreSQL connector would report it, and the state that its tables must end in.
//!
//! ```
//! let mut shop = loadtest::Shop::new(7, loadtest::Options::default());
//! let events: Vec<loadtest::Event> = (0..1000).map(|_| shop.next_event()).collect();
//! assert_eq!(events.len(), 1000);
//! assert!(shop.expected().tables["orders"].rows > 0);
//! ```
//!
//! | file | what it owns |
//! |---|---|
//! | `table.rs` | the tables, their columns, and [`Row`](table::Row) contents as a pure function of seed, row and version |
//! | `json.rs` | JSON text straight into bytes |
//! | `envelope.rs` | Debezium's envelope, key and schema block |
//! | `shop.rs` | [`Shop`]: which change comes next, and what is expected in the end |
//! | `expected.rs` | [`Expected`]: counts, and order-free 128-bit hashes of canonical row texts |
//!
//! Everything but the clock in the envelope is determined by the seed. A row is never stored: four numbers are kept for
//! each live row, and its values are computed from them, so that ten million events need little memory.

mod envelope;
mod expected;
mod json;
mod shop;
mod table;

pub use expected::{AddedColumn, ColumnSpec, Expected, RowHash, TableExpected, row_hash};
pub use shop::{Bad, Clock, Event, Options, Shop, What};
pub use table::{Kind, TABLE_NAMES};
