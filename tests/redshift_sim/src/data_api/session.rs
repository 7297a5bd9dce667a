//! A session that the API keeps: a client of the emulator's own, one statement at a time.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

use crate::server::Shared;
use crate::session::Session;
use crate::startup::Client;
use crate::wire::Message;

use super::answer::{Gave, Statement};

/// How much goes between the API and a session before one waits for the other.
const BUFFER: usize = 64 * 1024;

/// The API's end of a session.
#[derive(Debug)]
pub(super) struct Kept {
    statements: Option<mpsc::UnboundedSender<Arc<Statement>>>,
    busy: Arc<AtomicBool>,
}

impl Kept {
    /// Hands a statement over; not if it is busy or gone.
    pub fn run(&mut self, statement: &Arc<Statement>) -> bool {
        let Some(statements) = self.statements.as_ref().filter(|open| !open.is_closed()) else { return false };
        !self.busy.swap(true, Ordering::AcqRel) && statements.send(Arc::clone(statement)).is_ok()
    }

    pub fn is_open(&self) -> bool {
        self.statements.as_ref().is_some_and(|open| !open.is_closed())
    }

    /// It ends; what runs in it first.
    pub fn end(&mut self) {
        self.statements = None;
    }
}

/// Opens a session that is kept for so long after each of its statements; what is returned beside it serves it.
pub(super) fn open(
    shared: Arc<Shared>,
    user: &str,
    database: &str,
    kept: Duration,
) -> (Kept, impl Future<Output = ()> + Send + use<>) {
    let (statements, mut asked) = mpsc::unbounded_channel::<Arc<Statement>>();
    let busy = Arc::new(AtomicBool::new(false));
    let (served_busy, user, database) = (Arc::clone(&busy), user.to_owned(), database.to_owned());
    let serve = async move {
        let (mut stream, theirs) = tokio::io::duplex(BUFFER);
        let known = database == shared.options.database;
        let parameters = vec![("user".to_owned(), user), ("database".to_owned(), database.clone())];
        let client = Client { stream: Box::new(theirs), parameters };
        shared.watch().counters.connections += 1;
        let session = Session::run(client, shared);
        let statements = async move {
            let mut key = None;
            let mut first = true;
            while let Some(statement) = next(&mut asked, kept, &mut first).await {
                if key.is_none() {
                    key = greeted(&mut stream).await;
                }
                let Some(key) = key.as_deref().filter(|_| known) else {
                    let error = format!("FATAL: database \"{database}\" does not exist");
                    statement.ends(Gave { error: Some(error), ..Gave::default() });
                    return;
                };
                statement.started(key);
                let gave = ask(&mut stream, &statement.sql).await;
                let lost = gave.is_none();
                // Whoever hears of the end finds the session free, or gone.
                if lost {
                    asked.close();
                }
                served_busy.store(false, Ordering::Release);
                let error = "An I/O error occurred while sending to the backend: the connection was reset".to_owned();
                statement.ends(gave.unwrap_or(Gave { error: Some(error), ..Gave::default() }));
                if lost {
                    return;
                }
            }
        };
        // When the API lets go of its end, the session finds that its client has gone.
        let (_served, ()) = tokio::join!(session, statements);
    };
    (Kept { statements: Some(statements), busy }, serve)
}

/// The next statement, unless the session has not been used for so long.
async fn next(
    asked: &mut mpsc::UnboundedReceiver<Arc<Statement>>,
    kept: Duration,
    first: &mut bool,
) -> Option<Arc<Statement>> {
    if std::mem::take(first) {
        return asked.recv().await;
    }
    tokio::time::timeout(kept, asked.recv()).await.ok().flatten()
}

/// What the session says of itself first; its key.
async fn greeted(stream: &mut DuplexStream) -> Option<Vec<u8>> {
    let mut key = None;
    loop {
        let message = Message::read(stream).await.ok()??;
        match message.tag {
            b'K' => key = Some(message.body),
            b'Z' => return key,
            b'E' => return None,
            _ => {}
        }
    }
}

/// Runs a statement; nothing: the session is gone.
async fn ask(stream: &mut DuplexStream, sql: &str) -> Option<Gave> {
    let mut bytes = BytesMut::new();
    Message::query(sql).put(&mut bytes);
    stream.write_all(&bytes).await.ok()?;
    let mut gave = Gave::default();
    loop {
        let message = Message::read(stream).await.ok()??;
        match message.tag {
            b'T' => gave.types = Some(message.column_types()),
            b'D' => gave.rows.push(message.values()),
            b'C' => gave.affected = message.text().rsplit(' ').next().and_then(|rows| rows.parse().ok()),
            b'E' => gave = Gave { error: Some(error(&message)), ..Gave::default() },
            b'Z' => return Some(gave),
            _ => {}
        }
    }
}

/// As the driver of the API writes it: <https://github.com/uswitch/blueshift/issues/11>.
fn error(message: &Message) -> String {
    let part = |name: &str, letter: u8| match message.error_field(letter) {
        text if text.is_empty() => String::new(),
        text => format!("\n  {name}: {text}"),
    };
    let severity = message.error_field(b'S');
    format!("{severity}: {}{}{}", message.error_field(b'M'), part("Detail", b'D'), part("Hint", b'H'))
}
