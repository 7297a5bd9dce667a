//! Exactly once, proved by breaking it: the real process is killed and lied to at every durable step, started again, and
//! the warehouse is compared with what the generator says must be there.
//!
//! | file | what it breaks |
//! |---|---|
//! | `world.rs` | nothing: a shop's events, a lake, a warehouse, and the judge |
//! | `feed.rs` | nothing: a shop that goes on selling |
//! | `sweep.rs` | every failpoint: killed, failing, answer lost |
//! | `kills.rs` | SIGKILL at random moments |
//! | `rivals.rs` | processes against each other |
//! | `away.rs` | the way to the warehouse |
//! | `compact.rs` | compaction: killed at every step, two at once, read from either set of files |
//! | `columns.rs` | the contract: columns that are gone, rows that cannot be decoded |
//! | `held.rs` | one table of a group: paused, parked |
//! | `retry.rs` | order: quarantined rows come in late |
//! | `redelivery.rs` | order: the connector delivers again |
//! | `stores.rs` | the lake's store |

mod away;
mod columns;
mod compact;
mod feed;
mod held;
pub mod kills;
mod redelivery;
mod retry;
mod rivals;
mod stores;
mod sweep;
pub mod world;
