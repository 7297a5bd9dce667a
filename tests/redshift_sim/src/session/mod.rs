//! One client's session: what it asks, in order, each statement with what Redshift does around it.

mod extended;
mod run;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::BytesMut;
use tokio::io::{AsyncWriteExt, BufReader};

use crate::backend::{Backend, refusal_of};
use crate::fault::Kind;
use crate::lex::{self, Token};
use crate::names::short;
use crate::refusal::{Refusal, Stop};
use crate::server::Shared;
use crate::sql::{self, Effect, Plan, Settings};
use crate::startup::{Client, Stream};
use crate::wire::Message;

use extended::Prepared;

/// How much of an answer is kept before it is sent.
const KEPT: usize = 256 * 1024;

/// Parameters that Redshift reports as PostgreSQL does.
const REPORTED: [&str; 5] = ["DateStyle", "TimeZone", "integer_datetimes", "is_superuser", "session_authorization"];

/// How PostgreSQL is asked.
#[derive(Debug, Clone, Copy)]
enum Ask<'a> {
    Simple(&'a str),
    /// A portal, and what binds it anew, if it must be.
    Portal {
        bind: &'a [Message],
        execute: &'a Message,
    },
}

/// One client's session.
pub(crate) struct Session {
    client: BufReader<Box<dyn Stream>>,
    backend: Backend,
    shared: Arc<Shared>,
    /// What is to be sent.
    out: BytesMut,
    /// The number of the transaction that has taken its snapshot.
    transaction: Option<u64>,
    case_sensitive: bool,
    /// It has made late-binding views, or dropped some.
    views: bool,
    /// OIDs of the late-binding views that the statement reads.
    opens: Vec<String>,
    prepared: Prepared,
}

impl Session {
    /// Serves a client until it goes.
    pub async fn run(client: Client, shared: Arc<Shared>) -> std::io::Result<()> {
        let backend = Backend::connect(&shared.postgres).await?;
        let pid = u32::from_be_bytes(backend.key.get(..4).and_then(|b| b.try_into().ok()).unwrap_or_default());
        shared.backends().push(pid);
        let mut session = Self {
            client: BufReader::new(client.stream),
            backend,
            shared,
            out: BytesMut::new(),
            transaction: None,
            case_sensitive: false,
            views: false,
            opens: Vec::new(),
            prepared: Prepared::default(),
        };
        session.shared.watch().opened();
        let served = session.serve(&client.parameters).await;
        // The client still has its connection: whoever comes after it finds it gone.
        session.shared.watch().closed();
        session.leave();
        session.shared.backends().retain(|other| *other != pid);
        served
    }

    async fn serve(&mut self, parameters: &[(String, String)]) -> std::io::Result<()> {
        self.greet(parameters).await?;
        while let Some(message) = Message::read(&mut self.client).await? {
            let done = match message.tag {
                b'Q' => self.simple(&message.text()).await,
                b'X' => return Ok(()),
                b'P' | b'B' | b'D' | b'E' | b'C' | b'H' | b'S' => self.extended(&message).await,
                // What is left of a COPY that was refused.
                b'd' | b'c' | b'f' => Ok(()),
                _ => Err(Stop::Refused(Refusal::fatal("08P01", "invalid frontend message type"))),
            };
            match done {
                Ok(()) => {}
                Err(Stop::Refused(refusal)) => {
                    self.put(&Message::error(&refusal));
                    return self.flush().await;
                }
                Err(Stop::Gone(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// <https://docs.aws.amazon.com/redshift/latest/dg/c_redshift-and-postgres-sql.html>: based on PostgreSQL 8.0.2.
    async fn greet(&mut self, parameters: &[(String, String)]) -> std::io::Result<()> {
        self.put(&Message::new(b'R', 0u32.to_be_bytes()));
        let asked = |wanted: &str| parameters.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        let encoding = asked("client_encoding").unwrap_or("UNICODE").to_owned();
        for (name, value) in
            [("server_version", "8.0.2"), ("server_encoding", "UNICODE"), ("client_encoding", &encoding)]
        {
            self.put(&Message::parameter(name, value));
        }
        for (name, value) in self.backend.parameters.clone() {
            if REPORTED.contains(&name.as_str()) {
                self.put(&Message::parameter(&name, &value));
            }
        }
        self.put(&Message::new(b'K', self.backend.key.clone()));
        for name in
            ["extra_float_digits", "datestyle", "timezone", "statement_timeout", "search_path", "application_name"]
        {
            if let Some(value) = asked(name) {
                let sql = format!("SET {name} TO {}", lex::literal(value));
                if let Err(Stop::Refused(refusal)) = self.backend.rows(&sql).await {
                    self.put(&Message::error(&Refusal { fatal: true, ..refusal }));
                    return self.flush().await;
                }
            }
        }
        self.put(&Message::ready(b'I'));
        self.flush().await
    }

    fn put(&mut self, message: &Message) {
        message.put(&mut self.out);
    }

    /// Tells the client of an error, and counts it.
    fn put_error(&mut self, refusal: &Refusal) {
        *self.shared.watch().counters.errors.entry(refusal.code.clone()).or_default() += 1;
        self.put(&Message::error(refusal));
    }

    async fn flush(&mut self) -> std::io::Result<()> {
        let bytes = self.out.split();
        self.client.get_mut().write_all(&bytes).await?;
        self.client.get_mut().flush().await
    }

    /// The simple protocol: all statements of one message, and one `ReadyForQuery`.
    async fn simple(&mut self, text: &str) -> Result<(), Stop> {
        match self.script(text).await {
            Ok(()) => {}
            Err(Stop::Refused(refusal)) => {
                self.backend.spoil().await?;
                self.put_error(&refusal);
                if refusal.fatal {
                    self.flush().await?;
                    return Err(Stop::Gone(std::io::ErrorKind::ConnectionAborted.into()));
                }
            }
            Err(gone) => return Err(gone),
        }
        self.settle();
        self.put(&Message::ready(self.backend.status));
        Ok(self.flush().await?)
    }

    async fn script(&mut self, text: &str) -> Result<(), Stop> {
        let statements = lex::statements(text, self.case_sensitive)?;
        if statements.is_empty() {
            self.put(&Message::new(b'I', []));
        }
        // Several statements in one message are one transaction, unless they say otherwise:
        // <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-MULTI-STATEMENT>.
        let together = statements.len() > 1 && self.backend.status == b'I';
        if together
            && !statements.iter().any(|s| s[0].is_any(&["begin", "start", "commit", "end", "rollback", "abort"]))
        {
            self.backend.rows("BEGIN ISOLATION LEVEL REPEATABLE READ").await?;
            let done = self.all(&statements).await;
            return match done {
                Ok(()) => self.commit().await.map(|_| ()),
                Err(Stop::Refused(refusal)) => {
                    self.roll_back().await?;
                    Err(Stop::Refused(refusal))
                }
                Err(gone) => Err(gone),
            };
        }
        self.all(&statements).await
    }

    async fn all(&mut self, statements: &[Vec<Token>]) -> Result<(), Stop> {
        for tokens in statements {
            let settings = self.settings(tokens).await?;
            let text = lex::render(tokens);
            // A refusal counts as a statement, too: it was sent.
            let plan = sql::plan(tokens, &settings).inspect_err(|_| {
                self.shared.watch().statement(Kind::Other, &text);
            })?;
            self.note(&plan, tokens);
            let sql = plan.sql.clone();
            self.execute(&plan, &text, Ask::Simple(&sql)).await?;
        }
        Ok(())
    }

    /// What decides how a statement is read.
    async fn settings(&mut self, tokens: &[Token]) -> Result<Settings, Stop> {
        self.shared.remember(tokens).await?;
        self.refuse_unseen(tokens)?;
        let mut settings = Settings { serverless: self.shared.options.serverless, late_views: Vec::new() };
        let quiet = ["lock", "begin", "start", "commit", "end", "rollback", "abort", "copy", "set", "show", "truncate"];
        if self.shared.late_views.load(Ordering::Acquire) && !tokens[0].is_any(&quiet) {
            let views = "SELECT schema, name, sql FROM sim.late_views";
            // Nobody else sees views that this transaction has made.
            let rows = if self.views && self.backend.status == b'T' {
                self.backend.rows(views).await?
            } else {
                self.shared.admin.lock().await.rows(views).await?
            };
            settings.late_views = rows
                .into_iter()
                .filter_map(|row| <[_; 3]>::try_from(row).ok())
                .map(|row| row.map(Option::unwrap_or_default).into())
                .collect();
        }
        self.look_up(tokens, &settings).await?;
        Ok(settings)
    }

    /// Which views the names of a statement mean, as its parser sees it: nobody looks again when their locks are had.
    async fn look_up(&mut self, tokens: &[Token], settings: &Settings) -> Result<(), Stop> {
        self.opens.clear();
        let own = self.views && self.backend.status == b'T';
        if own || !tokens[0].is_any(&["select", "with", "(", "insert"]) {
            return Ok(());
        }
        for (schema, view, _) in &settings.late_views {
            let named = |t: &[Token]| t[0].name() == Some(schema) && t[1].is_symbol(".") && t[2].name() == Some(view);
            if tokens.windows(3).any(named) {
                let name = format!("{}.{}", lex::identifier(schema), lex::identifier(&short(view)));
                let oid = format!("SELECT to_regclass({})::oid", lex::literal(&name));
                self.opens.extend(self.shared.admin.lock().await.value(&oid).await?);
            }
        }
        Ok(())
    }

    /// Waits for whoever changes a view that the statement reads. If it was dropped meanwhile, nobody finds the new one of its
    /// name; if it was renamed, it is still there: <https://github.com/dbt-labs/dbt-core/issues/3112>.
    async fn open_views(&mut self) -> Result<(), Stop> {
        for oid in std::mem::take(&mut self.opens) {
            // Opens what has this OID, in its turn behind those who have asked for its lock before.
            let opened = self.backend.value(&format!("SELECT pg_relation_size({oid}::oid::regclass)")).await?;
            if opened.is_none() {
                return Err(Refusal::new("XX000", format!("could not open relation with OID {oid}")).into());
            }
        }
        Ok(())
    }

    /// Only superusers see it, and those whom they let: <https://docs.aws.amazon.com/redshift/latest/dg/r_SVV_TABLE_INFO.html>.
    fn refuse_unseen(&self, tokens: &[Token]) -> Result<(), Refusal> {
        const UNSEEN: &str = "svv_table_info";
        let named = tokens.iter().any(|token| token.name() == Some(UNSEEN));
        if !named || self.shared.watch().granted.contains(UNSEEN) {
            return Ok(());
        }
        self.shared.watch().statement(Kind::Select, &lex::render(tokens));
        Err(Refusal::new("42501", format!("permission denied for relation {UNSEEN}")))
    }

    /// What a statement changes in how later ones are read.
    fn note(&mut self, plan: &Plan, tokens: &[Token]) {
        self.views |= plan.sql.contains("_late_view(");
        if plan.tag == Some("CREATE VIEW") {
            self.shared.late_views.store(true, Ordering::Release);
        }
        if let Some(sensitive) = sql::case_sensitivity(tokens) {
            self.case_sensitive = sensitive;
        }
    }

    /// Asks PostgreSQL, and passes on what it answers but its last word: the tag.
    async fn relay(&mut self, ask: Ask<'_>) -> Result<Option<Message>, Stop> {
        let (messages, simple) = match ask {
            Ask::Simple(sql) => (vec![Message::query(sql)], true),
            Ask::Portal { bind, execute } => {
                self.prepared.opened();
                (bind.iter().chain([execute, &Message::new(b'H', [])]).cloned().collect(), false)
            }
        };
        self.backend.send(&messages).await?;
        // Of the answers of the simple protocol, which are all text.
        let mut types = Vec::new();
        let (mut last, mut error) = (None, None);
        loop {
            let message = self.backend.receive().await?;
            match message.tag {
                b'Z' => break,
                b'C' | b'I' | b's' => last = Some(message),
                b'E' => error = Some(self.in_redshifts_words(refusal_of(&message))),
                b'T' => {
                    let message = message.with_redshift_types().with_names(&self.shared.names());
                    types = message.column_types();
                    self.put(&message);
                }
                b'D' if simple => match message.printed(&types) {
                    Ok(row) if error.is_none() => self.put(&row),
                    Ok(_) => {}
                    Err(refusal) => error = Some(refusal),
                },
                b'S' => self.pass_parameter(&message),
                b'2' | b'3' => {}
                _ => self.put(&message),
            }
            if !simple && (last.is_some() || error.is_some()) {
                break;
            }
            if self.out.len() > KEPT {
                self.flush().await?;
            }
        }
        error.map_or(Ok(last), |refusal| Err(Stop::Refused(refusal)))
    }

    fn pass_parameter(&mut self, message: &Message) {
        if REPORTED.contains(&message.text().as_str()) {
            self.put(message);
        }
    }

    /// A conflict of two transactions over a row.
    fn in_redshifts_words(&self, mut refusal: Refusal) -> Refusal {
        for text in [&mut refusal.message, &mut refusal.detail] {
            *text = self.shared.names().written_out(std::mem::take(text));
        }
        match (refusal.code.as_str(), self.shared.options.isolation) {
            ("40001", crate::Isolation::Serializable) => {
                self.shared.watch().counters.serialization_failures += 1;
                Refusal::serializable(0, &[self.transaction.unwrap_or_default()])
            }
            ("40001", crate::Isolation::Snapshot) => {
                Refusal::new("XX000", "could not complete because of conflict with concurrent transaction")
            }
            _ => refusal,
        }
    }

    /// Accounts for a transaction that PostgreSQL has ended by itself.
    fn settle(&mut self) {
        if self.backend.status == b'I' {
            self.leave();
        }
    }

    /// The open transaction, if any, is over without a commit.
    fn leave(&mut self) {
        if let Some(number) = self.transaction.take() {
            self.shared.conflicts().end(number, false);
        }
    }

    /// Whether a statement may run alone only, and cannot.
    fn refuse_in_block(&self, effect: &Effect) -> Result<(), Refusal> {
        match effect {
            Effect::Alone(what) if self.backend.status != b'I' => {
                Err(Refusal::new("25001", format!("{what} cannot run inside a transaction block")))
            }
            _ => Ok(()),
        }
    }
}
