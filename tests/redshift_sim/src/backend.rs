//! The emulator's own connection to PostgreSQL: one for each client, and one for what must outlive a rollback.

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::refusal::{Refusal, Stop};
use crate::wire::{Message, broken};

/// Where PostgreSQL is: `postgres://user@host:port/database`, without a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The user, who must be a superuser.
    pub user: String,
    /// Name or address, and port.
    pub host: String,
    /// The database, which the emulator makes its own.
    pub database: String,
}

impl Address {
    /// Reads a URL.
    pub fn parse(url: &str) -> Result<Self, String> {
        let wrong = || format!("{url}: expected postgres://user@host:port/database");
        let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://")).ok_or_else(wrong)?;
        let (user, rest) = rest.split_once('@').ok_or_else(wrong)?;
        let (host, database) = rest.split_once('/').ok_or_else(wrong)?;
        let database = database.split('?').next().unwrap_or_default();
        if user.contains(':') {
            return Err(format!("{url}: PostgreSQL must let the emulator in without a password"));
        }
        Ok(Self { user: user.into(), host: host.into(), database: database.into() })
    }
}

/// A connection.
#[derive(Debug)]
pub struct Backend {
    stream: BufReader<TcpStream>,
    /// What it has said about itself: `ParameterStatus`.
    pub parameters: Vec<(String, String)>,
    /// Process and secret, as `CancelRequest` has them.
    pub key: Vec<u8>,
    /// `I`, `T` or `E`: no transaction, in one, in one that has failed.
    pub status: u8,
}

impl Backend {
    /// Connects.
    pub async fn connect(address: &Address) -> std::io::Result<Self> {
        let stream = TcpStream::connect(&address.host).await?;
        stream.set_nodelay(true)?;
        let mut backend =
            Self { stream: BufReader::new(stream), parameters: Vec::new(), key: Vec::new(), status: b'I' };
        let mut body = BytesMut::new();
        body.put_u32(196_608);
        let parameters = [
            ("user", address.user.as_str()),
            ("database", &address.database),
            ("client_encoding", "UTF8"),
            ("datestyle", "ISO, MDY"),
            ("timezone", "UTC"),
            ("extra_float_digits", "0"),
            ("default_transaction_isolation", "repeatable read"),
        ];
        for (name, value) in parameters {
            body.put_slice(&[name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
        }
        body.put_u8(0);
        let mut startup = BytesMut::new();
        startup.put_u32(u32::try_from(body.len() + 4).map_err(|_| broken("startup"))?);
        startup.put_slice(&body);
        backend.stream.get_mut().write_all(&startup).await?;
        backend.start().await?;
        Ok(backend)
    }

    async fn start(&mut self) -> std::io::Result<()> {
        loop {
            let message = self.receive().await?;
            match message.tag {
                b'R' if message.body[..4] == [0; 4] => {}
                b'R' => return Err(broken("PostgreSQL asks the emulator for a password")),
                b'S' => {
                    let mut rest = message.body.as_slice();
                    let mut text = || crate::wire::take_text(&mut rest).unwrap_or_default();
                    let parameter = (text(), text());
                    self.parameters.push(parameter);
                }
                b'K' => self.key = message.body,
                b'Z' => return Ok(()),
                b'E' => return Err(broken(&message.error_field(b'M'))),
                _ => {}
            }
        }
    }

    /// Sends messages.
    pub async fn send(&mut self, messages: &[Message]) -> std::io::Result<()> {
        let mut bytes = BytesMut::new();
        messages.iter().for_each(|message| message.put(&mut bytes));
        self.stream.get_mut().write_all(&bytes).await
    }

    /// The next message; notes the state of the transaction.
    pub async fn receive(&mut self) -> std::io::Result<Message> {
        let message = Message::read(&mut self.stream).await?;
        let message = message.ok_or_else(|| broken("PostgreSQL has closed the connection"))?;
        if message.tag == b'Z' {
            self.status = message.body.first().copied().unwrap_or(b'I');
        }
        Ok(message)
    }

    /// Runs statements; the rows of the last one.
    pub async fn rows(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Stop> {
        self.send(&[Message::query(sql)]).await?;
        let (mut rows, mut error) = (Vec::new(), None);
        loop {
            let message = self.receive().await?;
            match message.tag {
                b'T' => rows.clear(),
                b'D' => rows.push(message.values()),
                b'E' => error = Some(refusal_of(&message)),
                b'Z' => return error.map_or(Ok(rows), |refusal| Err(Stop::Refused(refusal))),
                _ => {}
            }
        }
    }

    /// The first value of the first row.
    pub async fn value(&mut self, sql: &str) -> Result<Option<String>, Stop> {
        Ok(self.rows(sql).await?.into_iter().next().and_then(|row| row.into_iter().next()).flatten())
    }

    /// Runs a COPY of PostgreSQL's: its statement, its rows, its end. The rows go out while PostgreSQL reads them: it says
    /// nothing before the end that could fill its side.
    pub async fn copy_in(&mut self, messages: Vec<Message>) -> Result<(), Stop> {
        self.send(&messages[..1]).await?;
        let mut error = None;
        loop {
            let message = self.receive().await?;
            match message.tag {
                b'G' => self.send(&messages[1..]).await?,
                b'E' => error = Some(refusal_of(&message)),
                b'Z' => return error.map_or(Ok(()), |refusal| Err(Stop::Refused(refusal))),
                _ => {}
            }
        }
    }

    /// Ends what was begun with the extended protocol.
    pub async fn sync(&mut self) -> std::io::Result<()> {
        self.send(&[Message::new(b'S', [])]).await?;
        while self.receive().await?.tag != b'Z' {}
        Ok(())
    }

    /// Fails the transaction that is open, if one is: Redshift's refusals fail one, and PostgreSQL knows nothing of them.
    pub async fn spoil(&mut self) -> Result<(), Stop> {
        if self.status == b'T' {
            match self.rows("redshift_sim refuses").await {
                Err(Stop::Gone(error)) => return Err(Stop::Gone(error)),
                Ok(_) | Err(Stop::Refused(_)) => {}
            }
        }
        Ok(())
    }
}

/// What an `ErrorResponse` of PostgreSQL says, in Redshift's words.
pub fn refusal_of(message: &Message) -> Refusal {
    let (code, text) = (message.error_field(b'C'), message.error_field(b'M'));
    let guard = message.error_field(b'n');
    if let Some(bytes) = guard.strip_prefix("sim_bytes_").and_then(|rest| rest.split_once('_')) {
        // <https://docs.aws.amazon.com/redshift/latest/dg/r_Character_types.html>: the length is in bytes.
        return Refusal::new("22001", format!("value too long for type character varying({})", bytes.1));
    }
    let fatal = message.error_field(b'S') != "ERROR";
    let mut refusal = Refusal { fatal, ..Refusal::new(&code, text) }.detail(message.error_field(b'D'));
    if code == "23502" {
        // <https://docs.aws.amazon.com/redshift/latest/dg/r_Load_Error_Reference.html>: a NULL in a NOT NULL column.
        let column = message.error_field(b'c');
        refusal = Refusal::new("23502", format!("Cannot insert a NULL value into column {column}"));
    }
    refusal.hint(message.error_field(b'H'))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let address = Address::parse("postgres://me@127.0.0.1:5432/d?x=y").unwrap();
        assert_eq!((&*address.user, &*address.host, &*address.database), ("me", "127.0.0.1:5432", "d"));
        for wrong in ["mysql://a@b/c", "postgres://b:1/c", "postgres://a@b:1", "postgres://a:secret@b:1/c"] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }
}
