//! From the topology to where and how to connect.

use std::path::PathBuf;
use std::time::Duration;

use mysql_async::{ClientIdentity, Opts, OptsBuilder, SslOpts};

use crate::config::{MysqlSource, TlsMode};
use crate::error::{Error, ErrorKind, Result};

/// The largest packet that is taken: an event may be as large as the server's largest row.
const MAX_PACKET_BYTES: usize = 1 << 30;
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Where and as whom to connect.
#[derive(Clone)]
pub(super) struct Settings {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub options: Opts,
}

fn bad(name: &str, what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, format!("source {name}: {}", what.into()))
}

impl Settings {
    /// The settings of the source `name`: the URL's parts, and what is written beside it.
    pub fn new(name: &str, config: &MysqlSource) -> Result<Self> {
        let url = config.url.as_deref().map(|url| Url::parse(name, url)).transpose()?.unwrap_or_default();
        let host = config.host.clone().or(url.host).unwrap_or_else(|| "localhost".into());
        let port = config.port.or(url.port).unwrap_or(3306);
        let user = config.user.clone().or(url.user).ok_or_else(|| {
            bad(name, "no account to connect as").help("write it into the URL (`mysql://account@…`) or as `user:`")
        })?;
        let mode = match (config.tls.mode, url.ssl_mode.as_deref()) {
            (Some(mode), _) => mode,
            (None, None | Some("verify_identity" | "verify-full")) => TlsMode::VerifyFull,
            (None, Some("disabled" | "disable")) => TlsMode::Disable,
            (None, Some(other)) => {
                return Err(bad(name, format!("ssl-mode `{other}` is not offered")).help(
                    "`verify-full` (the default) proves who the server is; `disable` is for a server on this machine. \
                     What lies between can be read and changed by anyone on the way",
                ));
            }
        };
        let ca = config.tls.ca.clone().or(url.ssl_ca);
        let tls = match mode {
            TlsMode::Disable => None,
            TlsMode::VerifyFull => Some(tls(ca, &config.tls.certificate, &config.tls.key)?),
        };
        let options = OptsBuilder::default()
            .ip_or_hostname(host.clone())
            .tcp_port(port)
            .user(Some(user.clone()))
            .pass(config.password.clone().or(url.password))
            .prefer_socket(false)
            .tcp_keepalive(Some(KEEPALIVE))
            .max_allowed_packet(Some(MAX_PACKET_BYTES))
            .stmt_cache_size(0)
            .ssl_opts(tls)
            .into();
        Ok(Self { host, port, user, options })
    }

    /// The server, for messages.
    pub fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

fn tls(ca: Option<String>, certificate: &Option<String>, key: &Option<String>) -> Result<SslOpts> {
    // The library asks for the process's provider; that somebody else has chosen it already is as good.
    let _chosen = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let roots = match ca {
        Some(path) => {
            let unread = |error| {
                Error::new(ErrorKind::Config, format!("read the authority's certificates from {path}")).because(error)
            };
            vec![std::fs::read(&path).map_err(unread)?.into()]
        }
        None => {
            let found = rustls_native_certs::load_native_certs().certs;
            found.into_iter().map(|certificate| certificate.as_ref().to_vec().into()).collect::<Vec<_>>()
        }
    };
    if roots.is_empty() {
        return Err(Error::new(ErrorKind::Config, "there is no certificate of an authority to trust")
            .help("name the file of the one that signed the server's: `tls: { ca: … }`"));
    }
    let identity = match (certificate, key) {
        (Some(certificate), Some(key)) => {
            Some(ClientIdentity::new(PathBuf::from(certificate).into(), PathBuf::from(key).into()))
        }
        _ => None,
    };
    Ok(SslOpts::default().with_disable_built_in_roots(true).with_root_certs(roots).with_client_identity(identity))
}

#[derive(Default)]
struct Url {
    host: Option<String>,
    port: Option<u16>,
    user: Option<String>,
    password: Option<String>,
    ssl_mode: Option<String>,
    ssl_ca: Option<String>,
}

impl Url {
    fn parse(name: &str, text: &str) -> Result<Self> {
        let malformed = || {
            bad(name, "`url` is not the URL of a MySQL or MariaDB server").help(
                "write `mysql://user:password@host:port`; signs such as `@` and `/` in a password as `%40`, `%2F`",
            )
        };
        let rest = text.strip_prefix("mysql://").or_else(|| text.strip_prefix("mariadb://")).ok_or_else(malformed)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        // The library reads the parts; a scheme of its own, and no parameters but ours.
        let parsed = Opts::from_url(&format!("mysql://{rest}")).map_err(|_| malformed())?;
        let authority = rest.split('/').next().unwrap_or_default();
        let address = authority.rsplit('@').next().unwrap_or_default();
        let has_port = address.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let host = given(parsed.ip_or_hostname()).filter(|_| !address.is_empty());
        let mut url = Self {
            host,
            port: has_port.then(|| parsed.tcp_port()),
            user: parsed.user().and_then(given),
            password: parsed.pass().and_then(given),
            ..Self::default()
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(malformed)?;
            match key {
                "ssl-mode" | "sslmode" => url.ssl_mode = Some(value.to_lowercase()),
                "ssl-ca" => url.ssl_ca = given(value),
                other => {
                    return Err(bad(name, format!("the URL's parameter `{other}` is not known"))
                        .help("known are ssl-mode and ssl-ca"));
                }
            }
        }
        Ok(url)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn settings(url: &str) -> Result<Settings> {
        let text = serde_json::json!({ "url": url, "tables": ["shop.*"] });
        Settings::new("shop", &serde_json::from_value(text).unwrap())
    }

    #[test]
    fn a_url_is_taken_apart() {
        let read = settings("mysql://me:p%40ss@db.example:3307/shop?ssl-mode=disabled").unwrap();
        assert_eq!((read.host.as_str(), read.port, read.user.as_str()), ("db.example", 3307, "me"));
        assert_eq!(read.options.pass(), Some("p@ss"));
        assert!(read.options.ssl_opts().is_none());
        let read = settings("mariadb://me@db").unwrap();
        assert_eq!((read.port, read.options.pass()), (3306, None));
        assert!(read.options.ssl_opts().is_some());
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for url in [
            "postgres://a@b/c",
            "mysql://a@b:x/c",
            "mysql://b/c",
            "mysql://a@b/c?ssl-mode=preferred",
            "mysql://a@b?x=1",
        ] {
            assert!(settings(url).is_err(), "{url}");
        }
    }
}
