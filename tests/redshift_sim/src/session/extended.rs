//! The extended protocol: each message is answered before the next is read, so that what Redshift does around a statement
//! can be asked of PostgreSQL in between. Statements that PostgreSQL does not run itself (COPY, …) are prepared here.

use std::collections::HashMap;

use crate::fault::Kind;
use crate::lex;
use crate::refusal::{Refusal, Stop};
use crate::sql::{self, Effect, Plan};
use crate::wire::{Message, broken, take_text};

use super::{Ask, Session};

/// What has been prepared: by name; the plan and the client's text.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    statements: HashMap<String, (Plan, String)>,
    portals: HashMap<String, Portal>,
    /// An error was answered: everything up to `Sync` is ignored.
    failed: bool,
    /// PostgreSQL has had messages since the last `Sync`.
    open: bool,
}

#[derive(Debug, Clone)]
struct Portal {
    plan: Plan,
    text: String,
    bind: Message,
}

impl Prepared {
    /// PostgreSQL has been sent something that only `Sync` ends.
    pub fn opened(&mut self) {
        self.open = true;
    }

    /// Whether PostgreSQL must be brought to an end before it is asked something else.
    pub fn portal_is_open(&mut self) -> bool {
        std::mem::take(&mut self.open)
    }
}

/// Whether the statement runs by the simple protocol whatever the client speaks.
fn is_ours(effect: &Effect) -> bool {
    match effect {
        Effect::Copy(_) | Effect::Nothing | Effect::Begin | Effect::Commit | Effect::Rollback | Effect::Alone(_) => {
            true
        }
        Effect::Query | Effect::Quiet | Effect::Write { .. } | Effect::Truncate(_) => false,
    }
}

/// The unnamed ones would not outlive what is asked in between.
fn inner(name: &str) -> String {
    format!("sim {name}")
}

fn close_of(portal: &str) -> Message {
    Message::new(b'C', [b"P", inner(portal).as_bytes(), b"\0"].concat())
}

impl Session {
    pub(super) async fn extended(&mut self, message: &Message) -> Result<(), Stop> {
        if message.tag == b'S' {
            return self.end_of_batch().await;
        }
        if self.prepared.failed {
            return Ok(());
        }
        let done = match message.tag {
            b'P' => self.parse(message).await,
            b'B' => self.bind(message).await,
            b'D' => self.describe(message).await,
            b'E' => self.execute_portal(message).await,
            b'C' => self.close(message).await,
            _ => Ok(self.flush().await?),
        };
        match done {
            Err(Stop::Refused(refusal)) => {
                self.prepared.failed = true;
                // PostgreSQL reads on from here, and so its transaction fails as the client's does.
                self.prepared.open = false;
                self.backend.sync().await?;
                self.backend.spoil().await?;
                self.put_error(&refusal);
                if refusal.fatal { Err(Stop::Gone(std::io::ErrorKind::ConnectionAborted.into())) } else { Ok(()) }
            }
            other => other,
        }
    }

    async fn end_of_batch(&mut self) -> Result<(), Stop> {
        self.prepared.failed = false;
        self.prepared.open = false;
        self.backend.sync().await?;
        self.settle();
        self.put(&Message::ready(self.backend.status));
        Ok(self.flush().await?)
    }

    async fn parse(&mut self, message: &Message) -> Result<(), Stop> {
        let mut rest = message.body.as_slice();
        let (name, text) = (read(&mut rest)?, read(&mut rest)?);
        let statements = lex::statements(&text, self.case_sensitive)?;
        let tokens = match statements.as_slice() {
            [one] => one,
            [] => return self.parse_nothing(&name, rest).await,
            _ => return Err(Refusal::new("42601", "cannot insert multiple commands into a prepared statement").into()),
        };
        let settings = self.settings(tokens).await?;
        let text = lex::render(tokens);
        let plan = sql::plan(tokens, &settings).inspect_err(|_| {
            self.shared.watch().statement(Kind::Other, &text);
        })?;
        self.note(&plan, tokens);
        if is_ours(&plan.effect) {
            self.put(&Message::new(b'1', []));
        } else {
            self.forward_parse(&name, &plan.sql, rest).await?;
        }
        self.prepared.statements.insert(name, (plan, text));
        Ok(())
    }

    async fn parse_nothing(&mut self, name: &str, types: &[u8]) -> Result<(), Stop> {
        let plan = Plan { kind: Kind::Other, sql: String::new(), tag: None, effect: Effect::Quiet };
        self.prepared.statements.insert(name.to_owned(), (plan, String::new()));
        self.forward_parse(name, "", types).await
    }

    async fn forward_parse(&mut self, name: &str, sql: &str, types: &[u8]) -> Result<(), Stop> {
        let close = Message::new(b'C', [b"S", inner(name).as_bytes(), b"\0"].concat());
        self.ask(&close, b"3", false).await?;
        let body = [inner(name).as_bytes(), b"\0", sql.as_bytes(), b"\0", types].concat();
        self.ask(&Message::new(b'P', body), b"1", true).await
    }

    async fn bind(&mut self, message: &Message) -> Result<(), Stop> {
        let mut rest = message.body.as_slice();
        let (portal, statement) = (read(&mut rest)?, read(&mut rest)?);
        let known = self.prepared.statements.get(&statement).cloned();
        let prepared =
            known.ok_or_else(|| Refusal::new("26000", format!("prepared statement \"{statement}\" does not exist")))?;
        let (plan, text) = prepared;
        let ours = is_ours(&plan.effect);
        let body = [inner(&portal).as_bytes(), b"\0", inner(&statement).as_bytes(), b"\0", rest].concat();
        let bind = Message::new(b'B', body);
        self.prepared.portals.insert(portal.clone(), Portal { plan, text, bind: bind.clone() });
        if ours {
            self.put(&Message::new(b'2', []));
            return Ok(());
        }
        self.close_portal(&portal).await?;
        self.ask(&bind, b"2", true).await
    }

    async fn close_portal(&mut self, portal: &str) -> Result<(), Stop> {
        self.ask(&close_of(portal), b"3", false).await
    }

    async fn describe(&mut self, message: &Message) -> Result<(), Stop> {
        let name = Message::new(0, &message.body[1..]).text();
        let of_statement = message.body.first() == Some(&b'S');
        let plan = if of_statement {
            self.prepared.statements.get(&name).map(|(plan, _)| plan)
        } else {
            self.prepared.portals.get(&name).map(|portal| &portal.plan)
        };
        if plan.is_some_and(|plan| is_ours(&plan.effect)) {
            if of_statement {
                self.put(&Message::new(b't', [0, 0]));
            }
            self.put(&Message::new(b'n', []));
            return Ok(());
        }
        let body = [&message.body[..1], inner(&name).as_bytes(), b"\0"].concat();
        self.ask(&Message::new(b'D', body), b"nT", true).await
    }

    async fn close(&mut self, message: &Message) -> Result<(), Stop> {
        let name = Message::new(0, &message.body[1..]).text();
        let of_statement = message.body.first() == Some(&b'S');
        if of_statement {
            self.prepared.statements.remove(&name);
        } else {
            self.prepared.portals.remove(&name);
        }
        let body = [&message.body[..1], inner(&name).as_bytes(), b"\0"].concat();
        self.ask(&Message::new(b'C', body), b"3", true).await
    }

    async fn execute_portal(&mut self, message: &Message) -> Result<(), Stop> {
        let mut rest = message.body.as_slice();
        let portal = read(&mut rest)?;
        let known = self.prepared.portals.get(&portal).cloned();
        let Portal { plan, text, bind } =
            known.ok_or_else(|| Refusal::new("34000", format!("portal \"{portal}\" does not exist")))?;
        let execute = Message::new(b'E', [inner(&portal).as_bytes(), b"\0", rest].concat());
        if matches!(plan.effect, Effect::Query | Effect::Quiet) {
            return self.execute(&plan, &text, Ask::Portal { bind: &[], execute: &execute }).await;
        }
        // PostgreSQL is asked other things before: a transaction may begin. The portal is bound again in it.
        self.backend.sync().await?;
        self.prepared.open = false;
        if is_ours(&plan.effect) {
            return self.execute(&plan, &text, Ask::Simple(&plan.sql)).await;
        }
        self.execute(&plan, &text, Ask::Portal { bind: &[close_of(&portal), bind], execute: &execute }).await
    }

    /// Sends one message and passes on the answer, up to one of the tags that end it.
    async fn ask(&mut self, message: &Message, last: &[u8], pass_on: bool) -> Result<(), Stop> {
        self.prepared.open = true;
        self.backend.send(&[message.clone(), Message::new(b'H', [])]).await?;
        loop {
            let answer = self.backend.receive().await?;
            let ends = last.contains(&answer.tag);
            match answer.tag {
                b'E' => return Err(self.in_redshifts_words(crate::backend::refusal_of(&answer)).into()),
                b'S' => self.pass_parameter(&answer),
                b'T' if pass_on => self.put(&answer.with_redshift_types()),
                _ if pass_on => self.put(&answer),
                _ => {}
            }
            if ends {
                return Ok(());
            }
        }
    }
}

fn read(from: &mut &[u8]) -> Result<String, Stop> {
    take_text(from).ok_or_else(|| Stop::Gone(broken("a message without its end")))
}
