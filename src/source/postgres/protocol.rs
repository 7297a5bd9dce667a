//! What is asked of the server's plug-in, by its version.

use super::connection::{identifier, literal};
use crate::config::{PostgresOrigin, PostgresSource, PostgresStreaming};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::pgoutput::Lsn;

/// What the plug-in is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    /// The protocol's version.
    pub protocol: u8,
    /// Large transactions are sent while they run.
    pub streaming: bool,
    /// Logical messages are sent.
    pub messages: bool,
    /// Which origins; `None` where the server knows no choice.
    pub origin: Option<PostgresOrigin>,
}

impl Asked {
    /// What the topology asks of a server of that `version` (as `server_version_num`).
    pub fn new(source: &str, config: &PostgresSource, version: u32) -> Result<Self> {
        let protocol = match version / 10_000 {
            ..=13 => 1,
            14 => 2,
            15 => 3,
            _ => 4,
        };
        if config.origin == PostgresOrigin::None && protocol < 4 {
            return Err(too_old(source, "origin: none", 16, version));
        }
        if config.failover && version < 170_000 {
            return Err(too_old(source, "failover: true", 17, version));
        }
        Ok(Self {
            protocol,
            streaming: protocol >= 2 && config.streaming == PostgresStreaming::On,
            messages: protocol >= 2,
            origin: (protocol >= 4).then_some(config.origin),
        })
    }

    /// The command that begins the stream at `from`.
    pub fn start(&self, slot: &str, publication: &str, from: Lsn) -> String {
        let mut options =
            format!("proto_version '{}', publication_names {}", self.protocol, literal(&identifier(publication)));
        if self.messages {
            options += ", messages 'true'";
        }
        if self.streaming {
            options += ", streaming 'on'";
        }
        match self.origin {
            Some(PostgresOrigin::None) => options += ", origin 'none'",
            Some(PostgresOrigin::Any) => options += ", origin 'any'",
            None => {}
        }
        format!("START_REPLICATION SLOT {} LOGICAL {from} ({options})", identifier(slot))
    }
}

fn too_old(source: &str, what: &str, needs: u32, version: u32) -> Error {
    let what = format!("source {source}: `{what}` needs PostgreSQL {needs}, and the server is {}", version / 10_000);
    Error::new(ErrorKind::Config, what).help("take it out of the topology, or upgrade the server")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn start(more: &str, version: u32) -> Result<String> {
        let config = format!("{{\"url\": \"postgres://a@b/c\"{more}}}");
        let config: PostgresSource = serde_json::from_str(&config).unwrap();
        Ok(Asked::new("shop", &config, version)?.start("s", "p", Lsn(0x1_0000_0002)))
    }

    #[test]
    fn every_version_is_asked_for_what_it_knows() {
        let command = |options: &str| format!("START_REPLICATION SLOT \"s\" LOGICAL 1/2 ({options})");
        let names = "publication_names '\"p\"'";
        let expected = [
            ("", 130_014, format!("proto_version '1', {names}")),
            ("", 140_000, format!("proto_version '2', {names}, messages 'true', streaming 'on'")),
            ("", 150_018, format!("proto_version '3', {names}, messages 'true', streaming 'on'")),
            (", \"streaming\": \"off\"", 150_018, format!("proto_version '3', {names}, messages 'true'")),
            ("", 160_000, format!("proto_version '4', {names}, messages 'true', streaming 'on', origin 'any'")),
            (
                ", \"origin\": \"none\"",
                180_006,
                format!("proto_version '4', {names}, messages 'true', streaming 'on', origin 'none'"),
            ),
        ];
        for (more, version, options) in expected {
            assert_eq!(start(more, version).unwrap(), command(&options), "{version}");
        }
    }

    #[test]
    fn what_a_server_does_not_know_is_refused() {
        for (more, version) in [(", \"origin\": \"none\"", 150_018), (", \"failover\": true", 160_000)] {
            let error = start(more, version).expect_err("refused");
            assert_eq!(*error.kind(), ErrorKind::Config);
        }
    }
}
