//! Keeps secrets out of what is printed: the types that hold some serialize without them, and their `Debug` form is made
//! of that.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};

use super::mysql_source::MysqlSource;
use super::postgres_source::PostgresSource;
use super::redshift_warehouse::{RedshiftAuth, RedshiftWarehouse};
use super::sheet::{is_secret, url_password};
use super::topology::{KafkaSasl, KafkaSource, Lake, Mask, PostgresWarehouse, Quarantine, Raw};

const INSTEAD: &str = "***";

#[allow(clippy::ptr_arg, reason = "serde passes the field's own type")]
pub(super) fn text<S: Serializer>(_: &String, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(INSTEAD)
}

pub(super) fn optional<S: Serializer>(value: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    value.as_ref().map(|_| INSTEAD).serialize(serializer)
}

/// A URL without its password, and without its parameters: libpq takes `?password=` too.
pub(super) fn url<S: Serializer>(value: &str, serializer: S) -> Result<S::Ok, S::Error> {
    let shown = match url_password(value) {
        Some(password) => value.replacen(&format!(":{password}@"), &format!(":{INSTEAD}@"), 1),
        None => value.to_owned(),
    };
    serializer.serialize_str(shown.split('?').next().unwrap_or_default())
}

pub(super) fn optional_url<S: Serializer>(value: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => url(value, serializer),
        None => serializer.serialize_none(),
    }
}

pub(super) fn properties<S: Serializer>(value: &BTreeMap<String, String>, serializer: S) -> Result<S::Ok, S::Error> {
    let shown = |name, value| (name, if is_secret(name) { INSTEAD } else { value });
    serializer.collect_map(value.iter().map(|(name, value)| shown(name.as_str(), value.as_str())))
}

fn print(value: &impl Serialize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(&serde_json::to_string(value).map_err(|_| fmt::Error)?)
}

impl fmt::Debug for KafkaSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(self, f)
    }
}

impl fmt::Debug for PostgresSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(self, f)
    }
}

impl fmt::Debug for MysqlSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(self, f)
    }
}

impl fmt::Debug for KafkaSasl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(self, f)
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(self, f)
    }
}

impl fmt::Debug for Lake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(self, f)
    }
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(self, f)
    }
}

impl fmt::Debug for Quarantine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(self, f)
    }
}

impl fmt::Debug for PostgresWarehouse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(self, f)
    }
}

impl fmt::Debug for RedshiftAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(self, f)
    }
}

impl fmt::Debug for RedshiftWarehouse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(self, f)
    }
}
