//! Real servers and the oracle that the tests stand on.

pub mod cluster;
pub mod kafka;
pub mod mysql;
pub mod oracle;
pub mod places;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod s3;
