//! What goes wrong because a test asks for it, and what has been counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::refusal::Refusal;

/// Kinds of statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each is the statement of its name")]
pub enum Kind {
    Select,
    Insert,
    Update,
    Delete,
    Merge,
    Copy,
    Truncate,
    Lock,
    Begin,
    Commit,
    Rollback,
    Create,
    Alter,
    Drop,
    Set,
    Other,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Error 1023; the transaction is lost.
    Serializable,
    /// "could not complete because of conflict with concurrent transaction": DDL beside a refresh or an optimisation.
    Conflict,
    /// "could not open relation with OID …": a table went while the statement was planned.
    RelationMissing,
    /// The statement was cancelled: it waited too long in its queue, or ran too long.
    QueueTimeout,
    /// The statement is done; the connection is closed instead of an answer.
    AnswerLost,
    /// The connection is closed; the statement is not done.
    ResetBefore,
    /// The statement is not done, and no answer comes.
    Silence,
    /// The statement runs, until somebody cancels it or it has taken too long; the client may go, it goes on.
    Stuck,
    /// The statement is done only once `Sim::heal` is called; whoever holds a lock holds it meanwhile.
    Held,
    /// COPY only: the scan of a file fails for no reason of the file's.
    ScanFailed,
}

impl Fault {
    /// The error that it is, if it is one.
    pub(crate) fn refusal(self) -> Option<Refusal> {
        match self {
            Self::Serializable => Some(Refusal::serializable(100_000, &[1, 2])),
            Self::Conflict => {
                Some(Refusal::new("XX000", "could not complete because of conflict with concurrent transaction"))
            }
            Self::RelationMissing => Some(Refusal::new("XX000", "could not open relation with OID 100000")),
            // <https://repost.aws/knowledge-center/redshift-query-abort>
            Self::QueueTimeout => Some(Refusal::new("57014", "Query (100000) cancelled on user's request")),
            Self::ScanFailed => Some(Refusal::spectrum(15_001, "Task failed due to an internal error.")),
            Self::AnswerLost | Self::ResetBefore | Self::Silence | Self::Stuck | Self::Held => None,
        }
    }
}

/// When a fault happens: at statements of a kind, or with a text, or both.
///
/// ```
/// use redshift_sim::{Fault, Kind, Rule};
/// let every_third_commit = Rule::new(Fault::Serializable).on(Kind::Commit).every(3);
/// let second_copy = Rule::new(Fault::ResetBefore).on(Kind::Copy).after(1).times(1);
/// let ledger = Rule::new(Fault::AnswerLost).containing("ledger").times(1);
/// ```
#[derive(Debug, Clone)]
pub struct Rule {
    fault: Fault,
    kind: Option<Kind>,
    containing: Option<String>,
    after: u64,
    every: u64,
    times: u64,
    seen: u64,
    met: Met,
}

/// How often a rule has been met.
#[derive(Debug, Clone, Default)]
pub struct Met(Arc<AtomicU64>);

impl Met {
    /// So often.
    pub fn times(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Once more.
    pub(crate) fn once(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Rule {
    /// Every statement, without end.
    pub fn new(fault: Fault) -> Self {
        Self { fault, kind: None, containing: None, after: 0, every: 1, times: u64::MAX, seen: 0, met: Met::default() }
    }

    /// Statements of this kind only.
    #[must_use]
    pub fn on(self, kind: Kind) -> Self {
        Self { kind: Some(kind), ..self }
    }

    /// Statements only that contain this text, as the client sent it.
    #[must_use]
    pub fn containing(self, text: impl Into<String>) -> Self {
        Self { containing: Some(text.into()), ..self }
    }

    /// The first so many of them pass.
    #[must_use]
    pub fn after(self, passed: u64) -> Self {
        Self { after: passed, ..self }
    }

    /// Only each so-manieth of them.
    #[must_use]
    pub fn every(self, every: u64) -> Self {
        Self { every: every.max(1), ..self }
    }

    /// So often, and then no more.
    #[must_use]
    pub fn times(self, times: u64) -> Self {
        Self { times, ..self }
    }

    /// How often it has been met so far, and will have been.
    pub(crate) fn met(&self) -> Met {
        self.met.clone()
    }

    fn meets(&mut self, kind: Kind, sql: &str) -> Option<Fault> {
        let meant =
            self.kind.is_none_or(|k| k == kind) && self.containing.as_ref().is_none_or(|text| sql.contains(text));
        if !meant || self.times == 0 {
            return None;
        }
        self.seen += 1;
        if self.seen <= self.after || !(self.seen - self.after).is_multiple_of(self.every) {
            return None;
        }
        self.times = self.times.saturating_sub(1);
        self.met.once();
        Some(self.fault)
    }
}

/// What has been counted since the start, or since `Sim::reset_counters`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Statements by kind, failed ones included.
    pub statements: BTreeMap<Kind, u64>,
    /// Transactions that committed, those of single statements that write included.
    pub commits: u64,
    /// Transactions that ended otherwise.
    pub rollbacks: u64,
    /// Connections that were let in.
    pub connections: u64,
    /// Sessions that were open at the same time, at most.
    pub most_sessions: u64,
    /// Logins that were refused.
    pub refused_logins: u64,
    /// Requests to cancel what a session does.
    pub cancels: u64,
    /// Logins that were lent.
    pub lent: u64,
    /// Logins that were asked for in vain.
    pub not_lent: u64,
    /// Files that COPY has read.
    pub copied_files: u64,
    /// Their bytes.
    pub copied_bytes: u64,
    /// Their rows.
    pub copied_rows: u64,
    /// Errors 1023 that arose between transactions; injected ones are counted under `injected`.
    pub serialization_failures: u64,
    /// Faults that happened because a test asked for them.
    pub injected: u64,
    /// Errors that a client was given, by SQLSTATE.
    pub errors: BTreeMap<String, u64>,
}

impl Counters {
    /// Statements of a kind.
    pub fn of(&self, kind: Kind) -> u64 {
        self.statements.get(&kind).copied().unwrap_or(0)
    }

    /// Statements of every kind.
    pub fn all(&self) -> u64 {
        self.statements.values().sum()
    }
}

/// The rules in force, what was counted, and what was asked.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    pub rules: Vec<Rule>,
    pub counters: Counters,
    pub history: Vec<String>,
    /// Sessions that are open.
    pub sessions: u64,
    /// What of the system's views users may see, beyond what all may.
    pub granted: BTreeSet<String>,
    /// The error of whoever asks for a login.
    pub lending_refused: Option<&'static str>,
    /// The longest that a login is lent, if that is not what the options say any more.
    pub lends: Option<std::time::Duration>,
}

impl Watch {
    /// A client was let in.
    pub fn opened(&mut self) {
        self.sessions += 1;
        self.counters.most_sessions = self.counters.most_sessions.max(self.sessions);
    }

    /// It has gone.
    pub fn closed(&mut self) {
        self.sessions = self.sessions.saturating_sub(1);
    }

    /// Counts a statement and says what goes wrong with it.
    pub fn statement(&mut self, kind: Kind, sql: &str) -> Option<Fault> {
        *self.counters.statements.entry(kind).or_default() += 1;
        self.history.push(sql.to_owned());
        let fault = self.rules.iter_mut().find_map(|rule| rule.meets(kind, sql));
        self.counters.injected += u64::from(fault.is_some());
        fault
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(rule: Rule, times: usize) -> Vec<usize> {
        let mut watch = Watch { rules: vec![rule], ..Watch::default() };
        (1..=times).filter(|_| watch.statement(Kind::Commit, "COMMIT").is_some()).collect()
    }

    #[test]
    fn rules_count_what_they_mean() {
        assert_eq!(met(Rule::new(Fault::Conflict).on(Kind::Commit).every(3), 7), [3, 6]);
        assert_eq!(met(Rule::new(Fault::Conflict).after(2).times(2), 7), [3, 4]);
        assert_eq!(met(Rule::new(Fault::Conflict).on(Kind::Copy), 3), [0; 0]);
        assert_eq!(met(Rule::new(Fault::Conflict).containing("COM").times(1), 3), [1]);
    }
}
