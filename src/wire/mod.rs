//! Protocols of databases: from bytes to messages and descriptions. Pure.
//!
//! | file | what it owns |
//! |---|---|
//! | `pgoutput.rs` | the messages of PostgreSQL's logical replication |
//! | `pgtype.rs` | what a PostgreSQL column is, as far as reading its text needs it |

pub mod pgoutput;
pub mod pgtype;
