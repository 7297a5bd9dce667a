//! Protocols of databases: from bytes to messages and descriptions. Pure.
//!
//! | file | what it owns |
//! |---|---|
//! | `pgoutput.rs` | the messages of PostgreSQL's logical replication |
//! | `pgtype.rs` | what a PostgreSQL column is, as far as reading its text needs it |
//! | `binlog/` | the events of MySQL's and MariaDB's binary log, and the record of one row |
//! | `mysqltype.rs` | what a MySQL column is, as far as reading its bytes needs it |
//! | `mysqlcharset.rs` | MySQL's character sets and collations |
//! | `mysqlddl/` | what tables were at a place in the binary log, from the DDL in it |
//! | `gtid.rs` | sets and positions of global transaction identifiers |

pub mod binlog;
pub mod gtid;
pub mod mysqlcharset;
pub mod mysqlddl;
pub mod mysqltype;
pub mod pgcopy;
pub mod pgoutput;
pub mod pgtype;
