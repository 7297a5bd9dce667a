//! What people write alike of every database that is read directly.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::Bytes;

pub(super) fn gibibyte() -> Bytes {
    Bytes(1 << 30)
}

/// TLS towards a database server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DatabaseTls {
    /// How much is asked of the connection; `verify-full` unless this or the URL (`sslmode`, `ssl-mode`) says otherwise.
    pub mode: Option<TlsMode>,
    /// A file with the authority's certificates (PEM); the system's when absent.
    pub ca: Option<String>,
    /// Our certificate (PEM file).
    pub certificate: Option<String>,
    /// Our key (PEM file).
    pub key: Option<String>,
}

/// How much is asked of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// Everything in clear text, for a server on this machine or behind a tunnel.
    Disable,
    /// The server's certificate must come from the authority and bear the server's name.
    VerifyFull,
}

/// Whether the rows are read that are there already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotMode {
    /// Every captured table is read once, without a gap to its changes or an overlap.
    #[default]
    Initial,
    /// Only what changes from now on.
    Never,
}

/// What happens when rows have got values without any event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFilledColumn {
    /// The log says so, and `status` says that the table needs a resync; those rows stay as they were until they change.
    #[default]
    Warn,
    /// The table is read again.
    ReadAgain,
}
