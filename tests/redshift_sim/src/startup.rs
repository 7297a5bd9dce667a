//! How a connection begins: encryption, parameters, password.

use std::sync::Arc;

use bytes::BytesMut;
use md5::{Digest, Md5};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::refusal::Refusal;
use crate::server::Shared;
use crate::sql::check_setting;
use crate::wire::{Message, broken, take_text};

/// A connection to a client, encrypted or not.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

const TLS: u32 = 80_877_103;
const GSS: u32 = 80_877_104;
const CANCEL: u32 = 80_877_102;
const VERSION_3: u32 = 196_608;

/// Parameters that a client may name as it connects. Redshift refuses others, which clients made for newer PostgreSQL have
/// found out: <https://github.com/launchbadge/sqlx/issues/801>. The lower ones are its own drivers'.
const PARAMETERS: [&str; 18] = [
    "user",
    "database",
    "options",
    "client_encoding",
    "datestyle",
    "timezone",
    "extra_float_digits",
    "application_name",
    "statement_timeout",
    "search_path",
    "client_protocol_version",
    "driver_version",
    "driver_discovery_version",
    "os_version",
    "plugin_name",
    "idp_type",
    "identity_namespace",
    "token_type",
];

/// A client that was let in.
pub struct Client {
    /// The connection.
    pub stream: Box<dyn Stream>,
    /// What it asked for.
    pub parameters: Vec<(String, String)>,
}

/// Speaks with a client until it is let in; nothing if it wanted something else, or was refused.
pub async fn accept(socket: TcpStream, shared: &Arc<Shared>) -> std::io::Result<Option<Client>> {
    socket.set_nodelay(true)?;
    let mut stream: Box<dyn Stream> = Box::new(socket);
    let mut encrypted = false;
    loop {
        let length = stream.read_u32().await?;
        if !(8..=10_000).contains(&length) {
            return Err(broken("a startup packet of this length"));
        }
        let code = stream.read_u32().await?;
        let mut body = vec![0; length as usize - 8];
        stream.read_exact(&mut body).await?;
        match (code, &shared.tls) {
            (TLS, Some(tls)) if !encrypted => {
                stream.write_all(b"S").await?;
                stream = Box::new(tls.accept(stream).await?);
                encrypted = true;
            }
            (TLS | GSS, _) => stream.write_all(b"N").await?,
            (CANCEL, _) => return cancel(shared, &body).await.map(|()| None),
            (VERSION_3, _) => return start(stream, shared, &body, encrypted).await,
            _ => {
                let refusal =
                    Refusal::fatal("0A000", format!("unsupported frontend protocol {}.{}", code >> 16, code & 0xffff));
                return refuse(&mut stream, shared, &refusal).await.map(|()| None);
            }
        }
    }
}

/// Cancels what a session's PostgreSQL does.
pub(crate) async fn cancel(shared: &Shared, key: &[u8]) -> std::io::Result<()> {
    shared.watch().counters.cancels += 1;
    let mut backend = TcpStream::connect(&shared.postgres.host).await?;
    let length = u32::try_from(key.len() + 8).map_err(|_| broken("a key of this length"))?;
    backend.write_all(&[&length.to_be_bytes()[..], &CANCEL.to_be_bytes(), key].concat()).await
}

async fn refuse(stream: &mut Box<dyn Stream>, shared: &Shared, refusal: &Refusal) -> std::io::Result<()> {
    shared.watch().counters.refused_logins += 1;
    send(stream, &[Message::error(refusal)]).await
}

async fn send(stream: &mut Box<dyn Stream>, messages: &[Message]) -> std::io::Result<()> {
    let mut bytes = BytesMut::new();
    messages.iter().for_each(|message| message.put(&mut bytes));
    stream.write_all(&bytes).await?;
    stream.flush().await
}

async fn start(
    mut stream: Box<dyn Stream>,
    shared: &Arc<Shared>,
    body: &[u8],
    encrypted: bool,
) -> std::io::Result<Option<Client>> {
    let mut rest = body;
    let mut parameters = Vec::new();
    while let Some(name) = take_text(&mut rest).filter(|name| !name.is_empty()) {
        parameters.push((name.to_ascii_lowercase(), take_text(&mut rest).unwrap_or_default()));
    }
    let checked = check(shared, &parameters, encrypted);
    let refused = match checked {
        Ok(user) => login(&mut stream, shared, &user).await?,
        Err(refusal) => Some(refusal),
    };
    if let Some(refusal) = refused {
        refuse(&mut stream, shared, &refusal).await?;
        return Ok(None);
    }
    shared.watch().counters.connections += 1;
    Ok(Some(Client { stream, parameters }))
}

/// Who it is, if all that was asked for can be had.
fn check(shared: &Shared, parameters: &[(String, String)], encrypted: bool) -> Result<String, Refusal> {
    let value = |wanted: &str| parameters.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
    let user = value("user").ok_or_else(|| Refusal::fatal("28000", "no user name specified in startup packet"))?;
    let database = value("database").unwrap_or_else(|| user.clone());
    if shared.options.require_tls && !encrypted {
        // <https://docs.aws.amazon.com/redshift/latest/mgmt/connecting-ssl-support.html>: require_ssl
        let text = format!(
            "no pg_hba.conf entry for host \"::ffff:127.0.0.1\", user \"{user}\", database \"{database}\", SSL off"
        );
        return Err(Refusal::fatal("28000", text));
    }
    for (name, value) in parameters {
        if !PARAMETERS.contains(&name.as_str()) {
            return Err(Refusal::fatal("42704", format!("unrecognized configuration parameter \"{name}\"")));
        }
        check_setting(name, value).map_err(|refusal| Refusal { fatal: true, ..refusal })?;
    }
    if database != shared.options.database {
        return Err(Refusal::fatal("3D000", format!("database \"{database}\" does not exist")));
    }
    Ok(user)
}

/// Asks for the password, hashed with a salt; an error if it is wrong, or was good only until now.
async fn login(stream: &mut Box<dyn Stream>, shared: &Shared, user: &str) -> std::io::Result<Option<Refusal>> {
    let salt = shared.salt();
    send(stream, &[Message::new(b'R', [&5u32.to_be_bytes()[..], &salt].concat())]).await?;
    let Some(answer) = Message::read(stream).await? else { return Err(broken("gone before its password")) };
    if answer.tag != b'p' {
        return Err(broken("something else than a password"));
    }
    let given = answer.text();
    let known = shared.users().password(user).is_some_and(|password| given == hashed(user, &password, &salt));
    Ok((!known).then(|| Refusal::fatal("28000", format!("password authentication failed for user \"{user}\""))))
}

/// What the protocol's MD5 authentication makes of a password.
fn hashed(user: &str, password: &str, salt: &[u8]) -> String {
    let hex = |bytes: &[u8]| Md5::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>();
    let inner = hex(format!("{password}{user}").as_bytes());
    format!("md5{}", hex(&[inner.as_bytes(), salt].concat()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_password_is_hashed_as_postgres_does() {
        // By `echo -n` and md5sum: md5("secretme") = 6ce4f48e9ea0d94e0c9b1b1ce5f7ec13 is not assumed, the structure is.
        let hash = super::hashed("me", "secret", &[1, 2, 3, 4]);
        assert_eq!(hash.len(), 35);
        assert_ne!(hash, super::hashed("me", "secret", &[1, 2, 3, 5]));
        assert_ne!(hash, super::hashed("you", "secret", &[1, 2, 3, 4]));
    }
}
