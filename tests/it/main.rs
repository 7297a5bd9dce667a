//! One integration binary; a file per theme.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[cfg(feature = "s3")]
mod aws;
mod binlog;
mod commands;
mod config;
mod decode;
mod exactly_once;
mod file;
#[cfg(feature = "s3")]
mod glue;
mod governor;
mod kafka;
mod lake;
mod layers;
#[cfg(feature = "mysql")]
mod mysql_source;
mod operator;
#[cfg(feature = "postgres")]
mod postgres_check;
#[cfg(feature = "postgres")]
mod postgres_ddl;
#[cfg(feature = "postgres")]
mod postgres_faults;
#[cfg(feature = "postgres")]
mod postgres_partitions;
#[cfg(feature = "postgres")]
mod postgres_retry;
#[cfg(feature = "postgres")]
mod postgres_running;
#[cfg(feature = "postgres")]
mod postgres_slot;
#[cfg(feature = "postgres")]
mod postgres_snapshot;
#[cfg(feature = "postgres")]
mod postgres_source;
#[cfg(feature = "postgres")]
mod postgres_tls;
#[cfg(feature = "postgres")]
mod postgres_types;
mod quarantine;
mod readme;
#[cfg(all(feature = "redshift", feature = "postgres"))]
mod redshift;
#[cfg(all(feature = "redshift", feature = "postgres"))]
mod redshift_commands;
#[cfg(all(feature = "redshift", feature = "postgres"))]
mod redshift_costs;
#[cfg(all(feature = "redshift", feature = "postgres"))]
mod redshift_data_api;
#[cfg(all(feature = "redshift", feature = "postgres"))]
mod redshift_ddl;
#[cfg(all(feature = "redshift", feature = "postgres"))]
mod redshift_faults;
#[cfg(all(feature = "redshift", feature = "postgres"))]
mod redshift_groups;
#[cfg(all(feature = "redshift", feature = "postgres"))]
mod redshift_login;
#[cfg(all(feature = "redshift", feature = "postgres"))]
mod redshift_running;
#[cfg(all(feature = "redshift", feature = "postgres"))]
mod redshift_sources;
#[cfg(all(feature = "redshift", feature = "postgres"))]
mod redshift_values;
mod regroup;
mod reprocess;
mod servers;
mod status;
#[cfg(feature = "postgres")]
mod verify;
mod warehouse;
