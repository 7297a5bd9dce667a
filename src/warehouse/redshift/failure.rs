//! What a failure of Redshift means. SQLSTATE alone does not say it: much that passes comes as `XX000`, with its meaning
//! in the text.
//!
//! | reason | what | tried again |
//! |---|---|---|
//! | `serializable`, `conflict`, `relation` | another transaction was in the way | for ever |
//! | `connection`, `server`, `resources` | the cluster is away, restarts, or has no room | for ever |
//! | `store`, `credentials` | S3 is slow; a login has expired | for ever |
//! | `queue`, `silence` | a limit on time or on waiting ended the statement: the queue's, the user's, ours | a few times: see `patience.rs` |
//! | `internal` | Redshift does not say what | for a while: see `patience.rs` |
//!
//! The first three say nothing of what was asked, and pass without anybody changing the topology. A limit may be one that
//! the same statement exceeds each time, and then only a person can end it.

use crate::error::{Error, ErrorKind};
use crate::telemetry;
use crate::warehouse::LOST_HELP;

/// Texts of failures that pass, with the reason that they are counted by.
const PASSING: [(&str, &str); 15] = [
    ("serializable isolation violation", "serializable"),
    ("conflict with concurrent transaction", "conflict"),
    ("concurrent transaction", "conflict"),
    ("deadlock detected", "conflict"),
    ("could not open relation", "relation"),
    ("relation was dropped", "relation"),
    ("queue wait", "queue"),
    ("cancelled on user's request", "queue"),
    ("cancelled by wlm", "queue"),
    ("canceling statement due to", "queue"),
    ("slowdown", "store"),
    ("slow down", "store"),
    ("s3serviceexception:internal", "store"),
    ("expiredtoken", "credentials"),
    ("token has expired", "credentials"),
];

/// The reason that the same statement may meet each time.
const LIMIT: &str = "queue";

/// SQLSTATEs and classes of them that pass.
const PASSING_CODES: [(&str, &str); 11] = [
    ("08", "connection"),
    ("57P01", "connection"),
    ("57P02", "connection"),
    ("57P03", "connection"),
    ("57014", "queue"),
    ("40001", "serializable"),
    ("40P01", "conflict"),
    ("55P03", "conflict"),
    ("53", "resources"),
    ("58", "server"),
    ("25006", "server"),
];

/// Why a refusal passes, if it does.
pub(super) fn passes(code: &str, text: &str) -> Option<&'static str> {
    let text = text.to_ascii_lowercase();
    // A login is refused for good, whatever the text says.
    if code.starts_with("28") {
        return ["expired", "token"].iter().any(|word| text.contains(word)).then_some("credentials");
    }
    // The whole message of the error itself; a number inside a text may be anything.
    if text.trim() == "1023" || text.starts_with("1023;") {
        return Some("serializable");
    }
    let by_text = PASSING.iter().find(|(words, _)| text.contains(words));
    let by_code = || PASSING_CODES.iter().find(|(start, _)| code.starts_with(start));
    by_text.or_else(by_code).map(|(_, reason)| *reason)
}

/// What to do where rights are missing.
const RIGHTS: &str =
    "`dataflow plan` prints the grants: the user needs USAGE and CREATE on the schema and must own its tables";

/// Whether a missing right is one on a table, which says nothing of the others.
fn is_of_one_table(text: &str) -> bool {
    ["must be owner of", "permission denied for relation", "permission denied for table"]
        .iter()
        .any(|words| text.contains(words))
}

/// One more failure that passes.
pub(super) fn counted(reason: &'static str) {
    metrics::counter!(telemetry::WAREHOUSE_FAULTS_TOTAL, "reason" => reason).increment(1);
}

/// Whether COPY says that its role is not let in.
fn may_not_read(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["access denied", "accessdenied", "not authorized to"].iter().any(|words| text.contains(words))
}

/// Whether an error of a statement says nothing of what is wrong: the same may well succeed at the next attempt.
pub(super) fn is_doubtful(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Table(_) | ErrorKind::Internal) && error.to_string().contains("(XX000)")
}

pub(super) fn message(table: Option<&str>, what: &str) -> String {
    match table {
        Some(table) => format!("Redshift, table {table}: {what}"),
        None => format!("Redshift: {what}"),
    }
}

/// A statement that nobody answered.
pub(super) fn silent(limit: std::time::Duration, table: Option<&str>) -> Error {
    counted("silence");
    Error::new(ErrorKind::WarehouseLimit(table.map(str::to_owned)), message(table, &format!("no answer in {limit:?}")))
        .help("a statement may take longer when `warehouse.statement_timeout` says so")
}

/// The error of a statement about `table`. The statement itself is never shown.
pub(super) fn failure(error: &tokio_postgres::Error, table: Option<&str>) -> Error {
    let message = |what: &str| message(table, what);
    let Some(refusal) = error.as_db_error() else {
        counted("connection");
        let found = Error::new(ErrorKind::WarehouseUnavailable, message("the connection was lost"));
        return found.because(error.to_string());
    };
    let mut text = refusal.message().to_owned();
    for more in [refusal.detail(), refusal.hint()].into_iter().flatten() {
        // Redshift draws lines around its details.
        let words = more.split_whitespace().filter(|word| !word.bytes().all(|byte| byte == b'-'));
        text.push_str(&format!("; {}", words.collect::<Vec<_>>().join(" ")));
    }
    refused(refusal.code().code(), &text, table)
}

/// What an error with this SQLSTATE and text means, of a statement about `table`.
pub(super) fn refused(code: &str, text: &str, table: Option<&str>) -> Error {
    let message = |what: &str| message(table, what);
    let cause = format!("{text} ({code})");
    if let Some(reason) = passes(code, text) {
        counted(reason);
        let limit = ErrorKind::WarehouseLimit(table.map(str::to_owned));
        let kind = if reason == LIMIT { limit } else { ErrorKind::WarehouseUnavailable };
        return Error::new(kind, message("not possible right now")).because(cause);
    }
    let for_all = |what: &str, help: &str| Error::new(ErrorKind::WarehouseRefused, message(what)).help(help);
    let found = match code {
        code if code.starts_with("28") => {
            for_all("the server refuses the login", "check the user and the password, or the role that gives them out")
        }
        "3D000" => for_all("there is no such database", "create it, or change the URL"),
        "3F000" => for_all("there is no such schema", "create it, or let the user create it"),
        "42501" => match table.filter(|_| is_of_one_table(text)) {
            Some(name) => {
                Error::new(ErrorKind::Table(name.to_owned()), message("the user may not do this")).help(RIGHTS)
            }
            None => for_all("the user may not do this", RIGHTS),
        },
        _ if may_not_read(text) => for_all(
            "the role of COPY may not read the staged file",
            "`dataflow plan` prints the policy that warehouse.iam_role needs; it must be attached to the cluster",
        ),
        "42P01" if table.is_some() => {
            Error::new(ErrorKind::Table(table.unwrap_or_default().to_owned()), message("a table is gone"))
                .help(LOST_HELP)
        }
        _ => match table {
            Some(name) => Error::new(ErrorKind::Table(name.to_owned()), message("a statement failed")),
            None => Error::new(ErrorKind::Internal, message("a statement failed")),
        },
    };
    found.because(cause)
}

#[cfg(test)]
mod tests {
    use super::passes;

    #[test]
    fn what_passes_is_known_by_its_text() {
        let cases = [
            ("XX000", "1023; Serializable isolation violation on table - 108307", Some("serializable")),
            ("XX000", "could not complete because of conflict with concurrent transaction", Some("conflict")),
            ("XX000", "could not open relation with OID 1234", Some("relation")),
            ("57014", "Query (5) cancelled on user's request", Some("queue")),
            ("XX000", "S3ServiceException:Please reduce your request rate.,Status 503,Error SlowDown", Some("store")),
            ("08006", "broken", Some("connection")),
            ("28000", "IAM authentication token has expired", Some("credentials")),
            ("28P01", "password authentication failed for user \"loader\"", None),
            ("XX000", "Load into table 'x' failed. Check 'sys_load_error_detail' system table for details.", None),
            ("42703", "column \"b\" does not exist", None),
        ];
        for (code, text, reason) in cases {
            assert_eq!(passes(code, text), reason, "{text}");
        }
    }
}
