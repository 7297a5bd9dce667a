//! From the topology to where and how to connect.

use std::time::Duration;

use crate::config::{PostgresSource, TlsMode};
use crate::error::{Error, ErrorKind, Result};

/// Where and as whom to connect.
#[derive(Clone)]
pub(super) struct Settings {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: Option<String>,
    pub database: String,
    pub tls: TlsSettings,
    /// Without a word for this long, a connection is dead.
    pub receive_timeout: Duration,
}

/// The server is asked to say something every second.
const SHORTEST_TIMEOUT: Duration = Duration::from_secs(3);

/// What is asked of the connection.
#[derive(Debug, Clone)]
pub(super) struct TlsSettings {
    pub mode: TlsMode,
    pub ca: Option<String>,
    pub certificate: Option<String>,
    pub key: Option<String>,
}

fn bad(name: &str, what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, format!("source {name}: {}", what.into()))
}

impl Settings {
    /// The settings of the source `name`: the URL's parts, and what is written beside it.
    pub fn new(name: &str, config: &PostgresSource) -> Result<Self> {
        let url = config.url.as_deref().map(|url| Url::parse(name, url)).transpose()?.unwrap_or_default();
        let host = config.host.clone().or(url.host).unwrap_or_else(|| "localhost".into());
        let user = config.user.clone().or(url.user).ok_or_else(|| {
            bad(name, "no role to connect as").help("write it into the URL (`postgres://role@…`) or as `user:`")
        })?;
        let mode = match (config.tls.mode, url.sslmode.as_deref()) {
            (Some(mode), _) => mode,
            (None, None | Some("verify-full")) => TlsMode::VerifyFull,
            (None, Some("disable")) => TlsMode::Disable,
            (None, Some(other)) => {
                return Err(bad(name, format!("sslmode `{other}` is not offered")).help(
                    "`verify-full` (the default) proves who the server is; `disable` is for a server on this machine. \
                     What lies between can be read and changed by anyone on the way",
                ));
            }
        };
        if config.receive_timeout.0 < SHORTEST_TIMEOUT {
            return Err(bad(name, format!("`receive_timeout` is less than {SHORTEST_TIMEOUT:?}"))
                .help("a server that is busy needs longer for an answer: leave it out for 90 seconds"));
        }
        Ok(Self {
            receive_timeout: config.receive_timeout.0,
            database: config.database.clone().or(url.database).unwrap_or_else(|| user.clone()),
            host,
            port: config.port.or(url.port).unwrap_or(5432),
            user,
            password: config.password.clone().or(url.password),
            tls: TlsSettings {
                mode,
                ca: config.tls.ca.clone().or(url.sslrootcert),
                certificate: config.tls.certificate.clone(),
                key: config.tls.key.clone(),
            },
        })
    }

    /// The server, for messages.
    pub fn place(&self) -> String {
        format!("{}:{}/{}", self.host, self.port, self.database)
    }
}

#[derive(Default)]
struct Url {
    host: Option<String>,
    port: Option<u16>,
    user: Option<String>,
    password: Option<String>,
    database: Option<String>,
    sslmode: Option<String>,
    sslrootcert: Option<String>,
}

impl Url {
    fn parse(name: &str, text: &str) -> Result<Self> {
        let malformed = || {
            bad(name, "`url` is not the URL of a PostgreSQL database")
                .help("write `postgres://user:password@host:port/database`; signs such as `@` and `/` in a password as `%40`, `%2F`")
        };
        let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
        let rest = rest.ok_or_else(malformed)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, address) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (login, None),
        };
        let (host, port) = match address.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
            Some((host, port)) => (host, Some(port.parse().map_err(|_| malformed())?)),
            None => (address, None),
        };
        let text = |part: &str| decode(part).ok_or_else(malformed).map(|text| Some(text).filter(|t| !t.is_empty()));
        let mut url = Self {
            host: text(host.trim_start_matches('[').trim_end_matches(']'))?,
            port,
            user: text(user)?,
            password: password.map(text).transpose()?.flatten(),
            database: text(database)?,
            ..Self::default()
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(malformed)?;
            match key {
                "sslmode" => url.sslmode = text(value)?,
                "sslrootcert" => url.sslrootcert = text(value)?,
                "password" => url.password = text(value)?,
                "user" => url.user = text(value)?,
                other => {
                    return Err(bad(name, format!("the URL's parameter `{other}` is not known"))
                        .help("known are sslmode, sslrootcert, user and password"));
                }
            }
        }
        Ok(url)
    }
}

/// Undoes percent-encoding.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
            bytes.push((digit(rest.next())? * 16 + digit(rest.next())?) as u8);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn settings(url: &str) -> Result<Settings> {
        let text = serde_json::json!({ "url": url });
        Settings::new("shop", &serde_json::from_value(text).unwrap())
    }

    #[test]
    fn a_url_is_taken_apart() {
        let read = settings("postgres://me:p%40ss@[::1]:5433/shop?sslmode=disable").unwrap();
        assert_eq!((read.host.as_str(), read.port, read.database.as_str()), ("::1", 5433, "shop"));
        assert_eq!((read.user.as_str(), read.password.as_deref()), ("me", Some("p@ss")));
        assert_eq!(read.tls.mode, TlsMode::Disable);
        let read = settings("postgres://me@db").unwrap();
        assert_eq!((read.port, read.database.as_str(), read.tls.mode), (5432, "me", TlsMode::VerifyFull));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for url in ["mysql://a@b/c", "postgres://a@b:x/c", "postgres://b/c", "postgres://a@b/c?sslmode=prefer"] {
            assert!(settings(url).is_err(), "{url}");
        }
        assert!(settings("postgres://a%4@b/c").is_err());
    }
}
