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

mod feed;
mod kills;
mod rivals;
mod sweep;
mod world;
