//! The topology: types, reading, checking. Knows no connector, touches no network.
//!
//! | file | what it owns |
//! |---|---|
//! | `topology.rs` | the types that people write, and their documentation |
//! | `units.rs` | sizes and lengths of time |

mod topology;
mod units;

pub use topology::*;
pub use units::{Bytes, Span};
