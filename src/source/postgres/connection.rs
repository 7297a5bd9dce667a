//! One connection: framing and authentication by the protocol crate, plain queries, COPY out, and the two-way COPY that
//! replication speaks in, which no client crate offers.

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use postgres_protocol::message::backend::{DataRowBody, ErrorFields, Header, Message};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::settings::Settings;
use super::tls;
use crate::config::TlsMode;
use crate::error::{Error, ErrorKind, Result};

/// How long connecting and logging in may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Bytes asked of the socket at once.
const READ_BYTES: usize = 64 << 10;
/// The reply to a command that begins a two-way COPY; the protocol crate does not know it.
const COPY_BOTH_TAG: u8 = b'W';

/// A piece of a copy.
const COPY_DATA_TAG: u8 = b'd';
/// A message's tag and its length, which counts itself.
const HEAD_BYTES: usize = 5;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Queries and COPY.
    Query,
    /// Commands of the replication protocol.
    Replication,
}

trait Socket: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Socket for T {}

/// A connection that has logged in.
pub(super) struct Connection {
    socket: Box<dyn Socket>,
    inbox: BytesMut,
    outbox: BytesMut,
    place: String,
    settings: Settings,
    /// The server's process.
    pid: i32,
    /// How long the server may be silent while something is asked of it; `None` for as long as it likes.
    silence: Option<Duration>,
}

/// A row of a plain query: every value as text.
#[derive(Debug, Clone)]
pub(super) struct Row(Vec<Option<String>>);

impl Row {
    /// The value of that column; empty when null or absent.
    pub fn text(&self, column: usize) -> &str {
        self.get(column).unwrap_or_default()
    }

    /// The value of that column.
    pub fn get(&self, column: usize) -> Option<&str> {
        self.0.get(column).and_then(Option::as_deref)
    }

    /// Whether that column is true.
    pub fn is(&self, column: usize) -> bool {
        self.text(column) == "t"
    }
}

/// Pieces of a copy that came together: to take each of them apart from the others would cost more than to read it.
pub(super) struct Copied(Bytes);

impl Copied {
    /// The pieces in order.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        pieces(&self.0)
    }
}

/// The pieces that `bytes` begin with, as far as they are whole.
fn pieces(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let ([COPY_DATA_TAG, len @ ..], behind) = rest.split_first_chunk::<HEAD_BYTES>()? else { return None };
        let len = usize::try_from(u32::from_be_bytes(*len)).ok()?.checked_sub(HEAD_BYTES - 1)?;
        let (piece, behind) = behind.split_at_checked(len)?;
        rest = behind;
        Some(piece)
    })
}

/// What comes while something is copied.
pub(super) enum Next {
    Copied(Copied),
    Said(Message),
}

/// What goes wrong on a connection.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The connection is of no use any more.
    Broken(std::io::Error),
    /// The server refuses.
    Refused { code: String, message: String },
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::Broken(error)
    }
}

impl Trouble {
    /// The server's SQLSTATE.
    pub fn code(&self) -> &str {
        match self {
            Self::Broken(_) => "",
            Self::Refused { code, .. } => code,
        }
    }

    /// An error that says what was being done.
    pub fn error(self, doing: impl Into<String>) -> Error {
        match self {
            Self::Broken(cause) => Error::new(ErrorKind::SourceUnavailable, doing).because(cause),
            Self::Refused { code, message } => Error::new(kind(&code), doing).because(format!("{message} ({code})")),
        }
    }
}

/// What a SQLSTATE means for what happens next.
fn kind(code: &str) -> ErrorKind {
    let passing = ["08", "53", "57", "58", "40", "XX"].iter().any(|class| code.starts_with(class))
        // A slot or an object that somebody else is using, a lock that was not to be had.
        || matches!(code, "55006" | "55P03");
    if passing { ErrorKind::SourceUnavailable } else { ErrorKind::SourceRefused }
}

fn broken(what: &str) -> Trouble {
    Trouble::Broken(std::io::Error::other(what.to_owned()))
}

fn refused(mut fields: ErrorFields<'_>) -> Trouble {
    use fallible_iterator::FallibleIterator as _;
    let (mut code, mut message) = (String::new(), String::new());
    while let Ok(Some(field)) = fields.next() {
        let value = String::from_utf8_lossy(field.value_bytes());
        match field.type_() {
            b'C' => code = value.into_owned(),
            b'M' => message.insert_str(0, &value),
            b'D' | b'H' => message.push_str(&format!("; {value}")),
            _ => {}
        }
    }
    Trouble::Refused { code, message }
}

impl Connection {
    /// Connects and logs in.
    ///
    /// # Errors
    /// `SourceUnavailable` while the server cannot be reached, `SourceRefused` when it does not let us in.
    pub async fn open(settings: &Settings, purpose: Purpose) -> Result<Self> {
        let place = settings.place();
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, Self::try_open(settings, purpose)).await;
        opened.unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::SourceUnavailable,
                format!("connect to {place}: no answer in {CONNECT_TIMEOUT:?}"),
            ))
        })
    }

    async fn try_open(settings: &Settings, purpose: Purpose) -> Result<Self> {
        let place = settings.place();
        let unreachable =
            |error| Error::new(ErrorKind::SourceUnavailable, format!("connect to {place}")).because(error);
        let mut socket = TcpStream::connect((settings.host.as_str(), settings.port)).await.map_err(unreachable)?;
        socket.set_nodelay(true).map_err(unreachable)?;
        let mut binding = None;
        let socket: Box<dyn Socket> = match settings.tls.mode {
            TlsMode::Disable => Box::new(socket),
            TlsMode::VerifyFull => {
                let mut request = BytesMut::new();
                frontend::ssl_request(&mut request);
                socket.write_all(&request).await.map_err(unreachable)?;
                if socket.read_u8().await.map_err(unreachable)? != b'S' {
                    return Err(Error::new(ErrorKind::SourceRefused, format!("{place} does not speak TLS")).help(
                        "turn `ssl` on at the server, or, for a server on this machine or behind a tunnel, write \
                         `?sslmode=disable` into the URL",
                    ));
                }
                let stream = tls::wrap(socket, settings).await?;
                binding = tls::end_point(&stream);
                Box::new(stream)
            }
        };
        let mut connection = Self {
            socket,
            inbox: BytesMut::new(),
            outbox: BytesMut::new(),
            place,
            settings: settings.clone(),
            pid: 0,
            silence: Some(settings.receive_timeout),
        };
        let doing = format!("log in to {} as {}", connection.place, settings.user);
        connection.log_in(settings, purpose, binding).await.map_err(|trouble| trouble.error(doing))?;
        Ok(connection)
    }

    async fn log_in(&mut self, settings: &Settings, purpose: Purpose, binding: Option<Vec<u8>>) -> Result<(), Trouble> {
        use fallible_iterator::FallibleIterator as _;

        let mut parameters = vec![
            ("user", settings.user.as_str()),
            ("database", settings.database.as_str()),
            ("application_name", "dataflow"),
            // Every value is read from its text, which must not depend on how the server or the role is set up.
            ("client_encoding", "UTF8"),
            ("DateStyle", "ISO, YMD"),
            ("IntervalStyle", "iso_8601"),
            ("TimeZone", "UTC"),
            ("bytea_output", "hex"),
            ("extra_float_digits", "3"),
            ("statement_timeout", "0"),
            // A heartbeat takes what was committed before it to disk, where it can be read.
            ("synchronous_commit", "on"),
            ("idle_in_transaction_session_timeout", "0"),
        ];
        if purpose == Purpose::Replication {
            parameters.push(("replication", "database"));
        }
        frontend::startup_message(parameters, &mut self.outbox)?;
        self.flush().await?;
        loop {
            match self.message().await? {
                Message::AuthenticationOk => break,
                Message::AuthenticationCleartextPassword => {
                    frontend::password_message(password(settings)?, &mut self.outbox)?;
                }
                Message::AuthenticationMd5Password(body) => {
                    let hash = md5_hash(settings.user.as_bytes(), password(settings)?, body.salt());
                    frontend::password_message(hash.as_bytes(), &mut self.outbox)?;
                }
                Message::AuthenticationSasl(body) => {
                    let bound = body.mechanisms().any(|name| Ok(name == SCRAM_SHA_256_PLUS))?;
                    self.scram(password(settings)?, bound, binding.clone()).await?;
                }
                _ => return Err(broken("the server asks for an authentication that is not offered (GSS, SSPI)")),
            }
            self.flush().await?;
        }
        loop {
            match self.message().await? {
                Message::BackendKeyData(body) => self.pid = body.process_id(),
                Message::ReadyForQuery(_) => return Ok(()),
                _ => {}
            }
        }
    }

    /// `bound`: the server offers to bind the login to the connection. That we could is said even when it does not, so that
    /// it notices when somebody has left its offer out.
    async fn scram(&mut self, password: &[u8], bound: bool, binding: Option<Vec<u8>>) -> Result<(), Trouble> {
        let (mechanism, binding) = match binding {
            Some(hash) if bound => (SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(hash)),
            Some(_) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
            None => (SCRAM_SHA_256, ChannelBinding::unsupported()),
        };
        let mut scram = ScramSha256::new(password, binding);
        frontend::sasl_initial_response(mechanism, scram.message(), &mut self.outbox)?;
        self.flush().await?;
        let Message::AuthenticationSaslContinue(body) = self.message().await? else {
            return Err(broken("the server broke off the authentication"));
        };
        scram.update(body.data())?;
        frontend::sasl_response(scram.message(), &mut self.outbox)?;
        self.flush().await?;
        let Message::AuthenticationSaslFinal(body) = self.message().await? else {
            return Err(broken("the server broke off the authentication"));
        };
        scram.finish(body.data())?;
        Ok(())
    }

    async fn flush(&mut self) -> std::io::Result<()> {
        let sending = async {
            self.socket.write_all_buf(&mut self.outbox).await?;
            self.socket.flush().await
        };
        within(self.silence, sending).await
    }

    /// The next message that says something. Cancel-safe: what was read stays in the inbox.
    pub async fn message(&mut self) -> Result<Message, Trouble> {
        loop {
            if Header::parse(&self.inbox)?.is_some_and(|header| header.tag() == COPY_BOTH_TAG) {
                return Err(broken("the server began a replication stream that was not asked for"));
            }
            match self.buffered()? {
                Some(message) => return Ok(message),
                None => self.receive().await?,
            }
        }
    }

    /// The next message that says something, if it is there already.
    pub fn buffered(&mut self) -> Result<Option<Message>, Trouble> {
        loop {
            match Message::parse(&mut self.inbox)? {
                Some(Message::ErrorResponse(body)) => return Err(refused(body.fields())),
                Some(Message::NoticeResponse(_) | Message::ParameterStatus(_) | Message::NotificationResponse(_)) => {}
                other => return Ok(other),
            }
        }
    }

    async fn receive(&mut self) -> std::io::Result<()> {
        self.inbox.reserve(READ_BYTES);
        if within(self.silence, self.socket.read_buf(&mut self.inbox)).await? == 0 {
            return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the server closed the connection"));
        }
        Ok(())
    }

    /// Runs a query (or a command of the replication protocol) to its end.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<Row>, Trouble> {
        frontend::query(sql, &mut self.outbox)?;
        self.flush().await?;
        let mut rows = Vec::new();
        let mut failure = None;
        loop {
            match self.message().await {
                Ok(Message::DataRow(body)) => rows.push(row(&body)?),
                Ok(Message::ReadyForQuery(_)) => break,
                Ok(_) => {}
                Err(trouble @ Trouble::Refused { .. }) => failure = Some(trouble),
                Err(trouble @ Trouble::Broken(_)) => return Err(failure.unwrap_or(trouble)),
            }
        }
        failure.map_or(Ok(rows), Err)
    }

    /// Runs a query that may take as long as it takes, such as one that waits for other transactions. While the server is
    /// silent, another connection looks whether it still works on it.
    pub async fn long_query(&mut self, sql: &str) -> Result<Vec<Row>, Trouble> {
        let (settings, pid) = (self.settings.clone(), self.pid);
        self.silence = None;
        let answer = tokio::select! {
            answer = self.query(sql) => answer,
            trouble = given_up(&settings, pid) => Err(trouble),
        };
        self.silence = Some(settings.receive_timeout);
        answer
    }

    /// Begins `COPY … TO STDOUT`; its rows come from [`Connection::copied`].
    pub async fn copy_out(&mut self, sql: &str) -> Result<(), Trouble> {
        frontend::query(sql, &mut self.outbox)?;
        self.flush().await?;
        match self.message().await? {
            Message::CopyOutResponse(_) => Ok(()),
            _ => Err(broken("the server did not begin the copy")),
        }
    }

    /// The next pieces of a copy; `None` at its end, after which the connection takes queries again. Cancel-safe.
    pub async fn copied(&mut self) -> Result<Option<Copied>, Trouble> {
        loop {
            match self.copied_or_said().await? {
                Next::Copied(copied) => return Ok(Some(copied)),
                Next::Said(Message::ReadyForQuery(_)) => return Ok(None),
                Next::Said(_) => {}
            }
        }
    }

    /// The next pieces of a copy, or the next message that is none. Cancel-safe.
    pub async fn copied_or_said(&mut self) -> Result<Next, Trouble> {
        loop {
            let whole = pieces(&self.inbox).map(|piece| HEAD_BYTES + piece.len()).sum::<usize>();
            if whole > 0 {
                return Ok(Next::Copied(Copied(self.inbox.split_to(whole).freeze())));
            }
            match self.buffered()? {
                Some(message) => return Ok(Next::Said(message)),
                None => self.receive().await?,
            }
        }
    }

    /// Begins a two-way copy: `START_REPLICATION`.
    pub async fn copy_both(&mut self, sql: &str) -> Result<(), Trouble> {
        frontend::query(sql, &mut self.outbox)?;
        self.flush().await?;
        loop {
            match Header::parse(&self.inbox)? {
                Some(header) if header.tag() == COPY_BOTH_TAG => {
                    let whole = 1 + header.len() as usize;
                    while self.inbox.len() < whole {
                        self.receive().await?;
                    }
                    self.inbox.advance(whole);
                    return Ok(());
                }
                Some(_) => {
                    self.message().await?;
                }
                None => self.receive().await?,
            }
        }
    }

    /// Sends a piece of a two-way copy.
    pub async fn send_copy(&mut self, data: &[u8]) -> Result<(), Trouble> {
        self.outbox.put_u8(b'd');
        self.outbox.put_u32(4 + data.len() as u32);
        self.outbox.put_slice(data);
        Ok(self.flush().await?)
    }
}

/// What takes longer than that fails: a connection that nothing comes from is dead, and nobody says so.
async fn within<T>(limit: Option<Duration>, doing: impl Future<Output = std::io::Result<T>>) -> std::io::Result<T> {
    let Some(limit) = limit else { return doing.await };
    let silent = |_| std::io::Error::new(std::io::ErrorKind::TimedOut, format!("the server was silent for {limit:?}"));
    tokio::time::timeout(limit, doing).await.map_err(silent)?
}

/// Looks from time to time, by a connection of its own, whether the server's process works; ends when it cannot be asked,
/// or was found idle twice, so that its answer must have been lost.
async fn given_up(settings: &Settings, pid: i32) -> Trouble {
    let sql = format!("SELECT state FROM pg_stat_activity WHERE pid = {pid} AND state IS DISTINCT FROM 'idle'");
    let mut idle = 0;
    while idle < 2 {
        tokio::time::sleep(settings.receive_timeout).await;
        let mut other = match Connection::open(settings, Purpose::Query).await {
            Ok(other) => other,
            Err(error) => return Trouble::Broken(std::io::Error::other(error)),
        };
        match other.query(&sql).await {
            Ok(rows) if rows.is_empty() => idle += 1,
            Ok(_) => idle = 0,
            Err(trouble) => return trouble,
        }
    }
    broken("the server has done what was asked of it, and its answer did not come")
}

fn password(settings: &Settings) -> Result<&[u8], Trouble> {
    let missing = || Trouble::Refused {
        code: "28P01".into(),
        message: "the server asks for a password and the topology has none (in `url` or as `password:`)".into(),
    };
    settings.password.as_deref().map(str::as_bytes).ok_or_else(missing)
}

fn row(body: &DataRowBody) -> Result<Row, Trouble> {
    use fallible_iterator::FallibleIterator as _;
    let mut values = Vec::new();
    let mut ranges = body.ranges();
    while let Some(range) = ranges.next()? {
        values.push(range.map(|range| String::from_utf8_lossy(&body.buffer()[range]).into_owned()));
    }
    Ok(Row(values))
}

/// A name as SQL takes it.
pub(super) fn identifier(name: &str) -> String {
    postgres_protocol::escape::escape_identifier(name)
}

/// A text as SQL takes it.
pub(super) fn literal(text: &str) -> String {
    postgres_protocol::escape::escape_literal(text).trim_start().to_owned()
}
