//! One error type, and the one place that decides what a failure means.
//!
//! A bad record is data and becomes a [`Reject`](crate::batch::Reject). An [`Error`] is a bad world or a bad
//! configuration: it says what was being done, with what, why it failed and what a person can do. It is logged once,
//! where it is handled.

use std::fmt;

/// The result of everything that can meet a bad world.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as far as it matters for what happens next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorKind {
    /// The topology or a contract file is wrong: the user's mistake, found before anything ran.
    Config,
    /// A source cannot be reached right now, or answered with something that passes.
    SourceUnavailable,
    /// A source no longer has what the log says must come next: going on would lose rows.
    PositionLost,
    /// A source refuses us for good (authentication, authorisation, a missing topic).
    SourceRefused,
    /// The lake's store cannot be reached right now.
    StoreUnavailable,
    /// The lake's store breaks a promise that exactly-once stands on (put-if-absent, a changed object).
    StoreBroken,
    /// Something in the log or in a file that a manifest names cannot be read or does not match its checksum.
    LogCorrupt,
    /// Another process moved our partitions in the log: what we hold must be dropped and read again.
    Fenced,
    /// The warehouse cannot be reached right now, or rolled back for a passing reason.
    WarehouseUnavailable,
    /// A limit of the warehouse or of the topology, on time or on waiting, ended a statement about that table, if it is about
    /// one. It may pass; the warehouse counts how often it does not.
    WarehouseLimit(Option<String>),
    /// The ledger does not stand where the unit begins: plan again.
    LedgerMoved,
    /// The ledger belongs to another log.
    LedgerForeign,
    /// The warehouse refuses us for good (authentication, a missing schema).
    WarehouseRefused,
    /// One table cannot go on; the others can.
    Table(String),
    /// A rule of the topology says `otherwise: halt`.
    RuleHalt,
    /// An invariant of our own does not hold. A bug.
    Internal,
}

/// What the pipeline does about an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    /// Try again with back-off; it is expected to pass.
    Retry,
    /// Take this table out; its changes wait in the lake while the others go on.
    Park(String),
    /// Stop with the instruction that the error carries.
    Halt,
}

impl ErrorKind {
    /// The one decision table. No wildcard: a new kind must be decided here.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::SourceUnavailable
            | Self::StoreUnavailable
            | Self::Fenced
            | Self::WarehouseUnavailable
            | Self::WarehouseLimit(_)
            | Self::LedgerMoved => Disposition::Retry,
            Self::Table(table) => Disposition::Park(table.clone()),
            Self::Config
            | Self::PositionLost
            | Self::SourceRefused
            | Self::StoreBroken
            | Self::LogCorrupt
            | Self::LedgerForeign
            | Self::WarehouseRefused
            | Self::RuleHalt
            | Self::Internal => Disposition::Halt,
        }
    }
}

/// What was being done, why it failed, and what to do about it.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    help: Option<String>,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `message` says what was being done and with what ("read manifest 17 of s3://…").
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), help: None, cause: None }
    }

    /// Keeps the error below, which is printed after the message.
    pub fn because(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Says what a person can do.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Puts what the caller was doing in front of the message.
    pub fn doing(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// What happens next.
    pub fn disposition(&self) -> Disposition {
        self.kind.disposition()
    }

    /// What a person can do, when there is something.
    pub fn help_text(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// 1 for a failure, 2 for the user's mistake.
    pub fn exit_code(&self) -> u8 {
        if self.kind == ErrorKind::Config { 2 } else { 1 }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut cause: Option<&dyn std::error::Error> = match &self.cause {
            Some(cause) => Some(cause.as_ref()),
            None => None,
        };
        let mut last = String::new();
        while let Some(error) = cause {
            let text = error.to_string();
            // Many libraries repeat the text of the error below in their own.
            if !last.contains(&text) {
                write!(f, ": {text}")?;
            }
            last = text;
            cause = error.source();
        }
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
