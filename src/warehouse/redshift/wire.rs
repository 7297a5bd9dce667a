//! A session over a connection of its own: TLS, log-in, and plain statements one at a time.
//!
//! Everything goes through the simple protocol: Redshift's catalog lacks what prepared statements look up, and several
//! statements in one message would be one transaction. Nothing is spawned: whoever waits for an answer drives the
//! connection.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::config::SslMode;
use tokio_postgres::{CancelToken, Client, NoTls, SimpleQueryMessage};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::failure::{failure, silent};
use super::session::settings;
use crate::config::RedshiftWarehouse;
use crate::error::{Error, ErrorKind, Result};

/// A connection that is quiet for so long is asked whether the other end is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long connecting and logging in may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take to have a statement cancelled.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);
const PORT: u16 = 5439;
/// How long a statement may be, in bytes: <https://docs.aws.amazon.com/redshift/latest/dg/c_redshift-sql.html>.
pub(super) const STATEMENT_BYTES: usize = 16 * 1024 * 1024;
/// What asks a server to go on in TLS: length 8, then 80877103.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Where the database is, and how a connection proves both ends.
pub(super) struct Place {
    pub host: String,
    pub port: u16,
    pub database: String,
    /// Who the URL says that we are.
    pub user: Option<String>,
    pub password: Option<Vec<u8>>,
    /// How long the server may be silent.
    pub limit: Duration,
    /// By which the cluster chooses a queue.
    query_group: Option<String>,
    /// `None`: no TLS.
    tls: Option<Arc<ClientConfig>>,
}

/// Why there is no session.
pub(super) struct NotOpened {
    pub error: Error,
    /// The server does not know this user with this password.
    pub login_refused: bool,
}

impl From<Error> for NotOpened {
    fn from(error: Error) -> Self {
        Self { error, login_refused: false }
    }
}

impl From<tokio_postgres::Error> for NotOpened {
    fn from(error: tokio_postgres::Error) -> Self {
        let login_refused = error.code().is_some_and(|code| code.code().starts_with("28"));
        Self { error: failure(&error, None), login_refused }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}/{}", self.host, self.port, self.database)
    }
}

impl Place {
    /// Whether the server must prove who it is.
    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// What the URL says. Never prints the URL.
    pub fn new(config: &RedshiftWarehouse) -> Result<Self> {
        let wrong = |what: &str| {
            Error::new(ErrorKind::Config, format!("the URL of the Redshift warehouse cannot be read: {what}")).help(
                "write it as redshift://user:password@host:5439/database; escape special characters in the password",
            )
        };
        let (base, query) = config.url.split_once('?').unwrap_or((&config.url, ""));
        let rest = base.split_once("://").map(|(_, rest)| rest).ok_or_else(|| wrong("it has no scheme"))?;
        let parsed: tokio_postgres::Config =
            format!("postgres://{rest}").parse().map_err(|_| wrong("a part of it is malformed"))?;
        let host = match parsed.get_hosts() {
            [tokio_postgres::config::Host::Tcp(host)] => host.clone(),
            _ => return Err(wrong("it must name one host")),
        };
        let secure = match query {
            "" | "sslmode=verify-full" => true,
            "sslmode=disable" => false,
            _ => return Err(wrong("the only parameter is `sslmode`, `verify-full` or `disable`")),
        };
        Ok(Self {
            host,
            // The library takes PostgreSQL's port where none is written.
            port: parsed.get_ports().first().copied().filter(|_| names_port(rest)).unwrap_or(PORT),
            database: parsed.get_dbname().ok_or_else(|| wrong("it names no database"))?.to_owned(),
            user: parsed.get_user().map(str::to_owned),
            password: parsed.get_password().map(<[u8]>::to_vec),
            limit: config.statement_timeout.0,
            query_group: config.query_group.clone(),
            tls: if secure { Some(Arc::new(tls(config.root_certificate.as_deref())?)) } else { None },
        })
    }
}

/// Whether a URL behind its scheme names a port.
fn names_port(rest: &str) -> bool {
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    // What stands in brackets is an address with colons of its own.
    host.rsplit(']').next().is_some_and(|rest| rest.contains(':'))
}

/// Public authorities vouch for the server, and those of `more`.
fn tls(more: Option<&str>) -> Result<ClientConfig> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = more {
        let bad = |error: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(ErrorKind::Config, format!("read warehouse.root_certificate {path}")).because(error)
        };
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| bad(e.into()))? {
            roots.add(certificate.map_err(|e| bad(e.into()))?).map_err(|e| bad(e.into()))?;
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(ErrorKind::Internal, "set up TLS").because(error))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

type Driver = Pin<Box<dyn Future<Output = Result<(), tokio_postgres::Error>> + Send>>;

/// A connection that has logged in.
pub(super) struct Session {
    client: Client,
    connection: Driver,
    ended: bool,
    place: Arc<Place>,
}

impl Session {
    /// Connects and logs in.
    pub async fn open(place: &Arc<Place>, user: &str, password: &[u8]) -> Result<Self, NotOpened> {
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, Self::try_open(place, user, password)).await;
        opened.unwrap_or_else(|_| Err(unreachable(place).because(format!("no answer in {CONNECT_TIMEOUT:?}")).into()))
    }

    async fn try_open(place: &Arc<Place>, user: &str, password: &[u8]) -> Result<Self, NotOpened> {
        // Only what Redshift knows: a parameter that it does not is refused.
        let mut config = tokio_postgres::Config::new();
        config.user(user).password(password).dbname(&place.database).ssl_mode(SslMode::Disable);
        let (client, connection) = config.connect_raw(dial(place).await?, NoTls).await?;
        let mut session = Self { client, connection: Box::pin(connection), ended: false, place: Arc::clone(place) };
        for setting in settings(place.limit, place.query_group.as_deref()) {
            session.each(&setting, None, |_| Ok(())).await?;
        }
        Ok(session)
    }

    /// Runs one statement, and hands its rows over as they come; the number in the command's tag. The server must not be
    /// silent for longer than the limit; how long all rows take does not matter. After an error of `take` the session can
    /// only be dropped.
    pub async fn each(
        &mut self,
        statement: &str,
        table: Option<&str>,
        mut take: impl FnMut(Vec<Option<String>>) -> Result<()> + Send,
    ) -> Result<u64> {
        let Self { client, connection, ended, place } = self;
        let token = client.cancel_token();
        let (mut drive, mut affected) = (Drive { connection, ended, place, token, table }, 0);
        let answer = drive.heard(client.simple_query_raw(statement)).await?;
        tokio::pin!(answer);
        while let Some(message) = drive.heard(answer.next().map(Ok)).await? {
            match message.map_err(|error| failure(&error, table))? {
                SimpleQueryMessage::Row(row) => {
                    take((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect())?;
                }
                SimpleQueryMessage::CommandComplete(rows) => affected = rows,
                _ => {}
            }
        }
        Ok(affected)
    }

    /// Whether the server has not hung up. For a session that nobody is using.
    pub fn lives(&mut self) -> bool {
        if !self.ended {
            let waker = std::task::Waker::noop();
            self.ended = self.connection.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_ready();
        }
        !self.ended
    }
}

/// What a session goes over.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Connects, and makes sure who it is that answers.
async fn dial(place: &Place) -> Result<Box<dyn Stream>> {
    let lost = |error: std::io::Error| unreachable(place).because(error);
    let mut socket = TcpStream::connect((place.host.as_str(), place.port)).await.map_err(lost)?;
    socket.set_nodelay(true).map_err(lost)?;
    // A balancer between us forgets quiet connections without a word, and a COPY is quiet.
    let alive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3).with_retries(4);
    SockRef::from(&socket).set_tcp_keepalive(&alive).map_err(lost)?;
    let Some(tls) = &place.tls else { return Ok(Box::new(socket)) };
    socket.write_all(&SSL_REQUEST).await.map_err(lost)?;
    if socket.read_u8().await.map_err(lost)? != b'S' {
        return Err(Error::new(ErrorKind::WarehouseRefused, format!("{place} does not speak TLS"))
            .help("Redshift always does: check the host and the port of the URL"));
    }
    let name = ServerName::try_from(place.host.clone()).map_err(|error| {
        Error::new(ErrorKind::Config, format!("`{}` cannot be in a certificate", place.host)).because(error)
    })?;
    let socket = TlsConnector::from(Arc::clone(tls)).connect(name, socket).await;
    Ok(Box::new(socket.map_err(|error| insecure(place, error))?))
}

/// Asks the server to end what a session does, over a connection of its own.
async fn cancel(place: &Place, token: &CancelToken) {
    let asked = async {
        let sent = token.cancel_query_raw(dial(place).await?, NoTls).await;
        sent.map_err(|error| unreachable(place).because(error))
    };
    let asked = tokio::time::timeout(CANCEL_TIMEOUT, asked).await;
    if let Err(error) =
        asked.unwrap_or_else(|_| Err(unreachable(place).because(format!("no answer in {CANCEL_TIMEOUT:?}"))))
    {
        tracing::warn!("cancel a statement that was given up: {error}; the server ends it at its statement_timeout");
    }
}

/// A connection that goes on while somebody waits.
struct Drive<'a> {
    connection: &'a mut Driver,
    ended: &'a mut bool,
    place: &'a Place,
    /// What cancels the statement.
    token: CancelToken,
    /// What the statement is about.
    table: Option<&'a str>,
}

impl Drive<'_> {
    /// What the server says next.
    async fn heard<T>(&mut self, answer: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T> {
        let (limit, table) = (self.place.limit, self.table);
        match tokio::time::timeout(limit, self.until(answer)).await {
            Ok(answer) => answer.map_err(|error| failure(&error, table)),
            Err(_) => {
                // Nobody knows what becomes of the statement; at least it is not to hold its locks and its place in the queue.
                *self.ended = true;
                cancel(self.place, &self.token).await;
                Err(silent(limit, table))
            }
        }
    }

    async fn until<T>(
        &mut self,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, tokio_postgres::Error> {
        tokio::pin!(answer);
        if !*self.ended {
            tokio::select! {
                biased;
                answer = &mut answer => return answer,
                gone = &mut *self.connection => {
                    *self.ended = true;
                    gone?;
                }
            }
        }
        // The connection has ended: the answer says so.
        answer.await
    }
}

fn unreachable(place: &Place) -> Error {
    Error::new(ErrorKind::WarehouseUnavailable, format!("connect to Redshift at {place}"))
}

fn insecure(place: &Place, error: std::io::Error) -> Error {
    let refused = error.get_ref().is_some_and(|cause| cause.is::<tokio_rustls::rustls::Error>());
    let kind = if refused { ErrorKind::WarehouseRefused } else { ErrorKind::WarehouseUnavailable };
    Error::new(kind, format!("speak TLS with {place}")).because(error).help(
        "the server's certificate must be signed by a public authority, or one that `warehouse.root_certificate` names, and \
         bear the host name of the URL",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: &str) -> Result<Place> {
        let (schema, iam_role) = ("public".to_owned(), "default".to_owned());
        let config = RedshiftWarehouse {
            url: url.to_owned(),
            schema,
            views: "bi".to_owned(),
            iam_role,
            root_certificate: None,
            auth: None,
            statement_timeout: crate::config::Span::seconds(9),
            file_bytes: crate::config::Bytes(32 << 20),
            query_group: None,
            transport: crate::config::RedshiftTransport::Connection,
        };
        Place::new(&config)
    }

    #[test]
    fn a_url_is_read_and_tls_is_the_rule() {
        let found = place("redshift://loader:p%40ss@cluster.example.com/dev").expect("a URL");
        assert_eq!((found.to_string().as_str(), found.tls.is_some()), ("cluster.example.com:5439/dev", true));
        assert_eq!(found.password.as_deref(), Some(&b"p@ss"[..]));
        assert!(place("redshift://u:p@h:5440/d?sslmode=disable").is_ok_and(|p| p.tls.is_none() && p.port == 5440));
        assert!(place("redshift://u:p@h/d?sslmode=require").is_err());
        assert!(place("redshift://h/d").is_ok_and(|p| p.port == 5439 && p.user.is_none()));
    }

    #[test]
    fn no_error_shows_the_url() {
        for url in ["redshift://u:s3cret@host:port/d", "redshift://u:s3cret@host", "s3cret"] {
            let error = place(url).map(|_| ()).expect_err("it is wrong");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
    }
}
