//! What the API's refusals mean: those of the API itself by their code, those of the cluster by their text, for it passes no
//! SQLSTATE on.

use super::STATEMENT_BYTES;
use crate::error::{Error, ErrorKind};
use crate::net::aws::Refusal;
use crate::warehouse::redshift::failure::{counted, message, refused};

/// Codes of refusals that pass when there is less to do: too many statements or sessions at the same time.
const BUSY: [&str; 3] =
    ["ActiveStatementsExceededException", "ActiveSessionsExceededException", "ActiveWaitingRequestsExceededException"];
/// Codes that say that the API has lost the cluster.
const LOST: [&str; 3] = ["QueryTimeoutException", "DatabaseConnectionException", "ExecuteStatementException"];

/// What a cluster's texts are, by SQLSTATE: all words of the first that has them.
const TEXTS: [(&[&str], &str); 20] = [
    (&["authentication failed"], "28000"),
    (&["current transaction is aborted"], "25P02"),
    (&["permission denied"], "42501"),
    (&["must be owner of"], "42501"),
    (&["database \"", "does not exist"], "3D000"),
    (&["schema \"", "does not exist"], "3F000"),
    (&["function ", "does not exist"], "42883"),
    (&["column ", "does not exist"], "42703"),
    (&["relation \"", "does not exist"], "42P01"),
    (&["already exists"], "42P07"),
    (&["syntax error"], "42601"),
    (&["value too long"], "22001"),
    (&["cannot insert a null value"], "23502"),
    (&["cannot run inside a transaction block"], "25001"),
    (&["not supported"], "0A000"),
    (&["should be different"], "0A000"),
    (&["out of memory"], "53200"),
    (&["disk full"], "53100"),
    (&["connection"], "08006"),
    (&["terminat"], "57P01"),
];
/// Whatever else it says.
const OTHER: &str = "XX000";

/// Whether a request may be answered at its next attempt.
pub(super) fn passes(refusal: &Refusal) -> bool {
    refusal.passes() || BUSY.contains(&refusal.code.as_str())
}

/// Whether a session is not there any more, or runs something: the API says the same of both, "Session is not available"
/// (<https://github.com/awslabs/mcp/issues/4587>, <https://github.com/awslabs/mcp/issues/4375>).
pub(super) fn session_is_gone(refusal: &Refusal) -> bool {
    let text = refusal.message.to_ascii_lowercase();
    refusal.code == "ValidationException"
        && text.contains("session")
        && ["not available", "invalid", "expired", "closed"].iter().any(|word| text.contains(word))
}

/// One more that passes.
pub(super) fn count(refusal: &Refusal) {
    counted(match refusal.code.as_str() {
        code if BUSY.contains(&code) => "resources",
        code if code.contains("Throttling") || code.contains("TooManyRequests") => "throttled",
        code if code.contains("ExpiredToken") => "credentials",
        _ => "connection",
    });
}

/// A request about a statement on `table` that is not answered.
pub(super) fn not_answered(refusal: Refusal, table: Option<&str>) -> Error {
    let gone = session_is_gone(&refusal);
    let lost = gone || LOST.contains(&refusal.code.as_str()) || refusal.code == "ResourceNotFoundException";
    if passes(&refusal) || lost {
        if lost {
            counted("connection");
        } else {
            count(&refusal);
        }
        let what = if gone { "the session with the Data API is gone" } else { "the Data API does not do it right now" };
        return refusal_of(refusal, ErrorKind::WarehouseUnavailable, &message(table, what));
    }
    let what = message(table, "the Data API refuses it");
    let denied = refusal.code.starts_with("AccessDenied");
    let error = refusal_of(refusal, ErrorKind::WarehouseRefused, &what);
    error.help(match denied {
        true => "`dataflow plan` prints the policy that the loader's role needs",
        false => {
            "correct what warehouse.auth says (cluster or workgroup, region, user, secret), or the database of the URL"
        }
    })
}

fn refusal_of(refusal: Refusal, kind: ErrorKind, what: &str) -> Error {
    Error::new(kind, what).because(refusal.message)
}

/// A statement that the cluster has refused, with these words.
pub(super) fn failed(text: &str, table: Option<&str>) -> Error {
    let text = text.trim().trim_start_matches("ERROR:").trim_start_matches("FATAL:").trim();
    let words = text.split_whitespace().filter(|word| !word.bytes().all(|byte| byte == b'-'));
    let text = words.collect::<Vec<_>>().join(" ");
    let lower = text.to_ascii_lowercase();
    // <https://docs.aws.amazon.com/redshift/latest/mgmt/data-api-troubleshooting.html>
    if lower.contains("packet for query is too large") {
        return too_large("a row that is read back is longer than the 64 KB that the Data API takes", table)
            .because(text);
    }
    if lower.contains("exceeded size limit") || lower.contains("exceeded the size limit") {
        return too_large("what is read back is more than the 500 MB that the Data API takes", table).because(text);
    }
    let code = TEXTS.iter().find(|(words, _)| words.iter().all(|word| lower.contains(word))).map_or(OTHER, |(_, c)| *c);
    refused(code, &text, table)
}

fn too_large(what: &str, table: Option<&str>) -> Error {
    let kind = table.map_or(ErrorKind::WarehouseRefused, |table| ErrorKind::Table(table.to_owned()));
    Error::new(kind, message(table, what)).help(
        "over a connection of its own it can be read: leave `transport: data_api` out where the cluster can be reached",
    )
}

/// A statement that the API would not take.
pub(super) fn too_long(bytes: usize, table: Option<&str>) -> Error {
    let kind = table.map_or(ErrorKind::WarehouseRefused, |table| ErrorKind::Table(table.to_owned()));
    let what = format!("a statement of {bytes} bytes is longer than the {STATEMENT_BYTES} that the Data API takes");
    Error::new(kind, message(table, &what))
        .help("fewer or shorter columns, smaller groups, or a connection of its own (without `transport: data_api`)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Disposition;

    fn refusal(code: &str, message: &str) -> Refusal {
        let body = serde_json::json!({"__type": code, "Message": message}).to_string();
        Refusal::of("ExecuteStatement", 400, body.as_bytes())
    }

    #[test]
    fn what_a_cluster_says_has_the_meaning_that_it_has_over_a_connection() {
        let retry = [
            "ERROR: 1023\n  Detail: Serializable isolation violation on table - 1, transactions forming the cycle are: 1, 2",
            "ERROR: could not complete because of conflict with concurrent transaction",
            "ERROR: could not open relation with OID 1234",
            "ERROR: Query (5) cancelled on user's request",
            "An I/O error occurred: the connection was reset",
            "FATAL: terminating connection due to administrator command",
        ];
        for text in retry {
            assert_eq!(failed(text, Some("t")).disposition(), Disposition::Retry, "{text}");
        }
        let table = ErrorKind::Table("t".into());
        let cases = [
            ("ERROR: permission denied for schema w", ErrorKind::WarehouseRefused),
            ("ERROR: permission denied for relation t", table.clone()),
            ("ERROR: relation \"t\" does not exist", table.clone()),
            ("ERROR: column \"b\" of relation \"t\" does not exist", table.clone()),
            ("ERROR: database \"d\" does not exist", ErrorKind::WarehouseRefused),
            ("FATAL: password authentication failed for user \"u\"", ErrorKind::WarehouseRefused),
            ("Packet for query is too large (70000 > 65536)", table.clone()),
            ("Database response exceeded size limit", table),
        ];
        for (text, kind) in cases {
            assert_eq!(failed(text, Some("t")).kind(), &kind, "{text}");
        }
        assert!(failed("ERROR: function db_collation() does not exist", None).to_string().contains("(42883)"));
        assert!(failed("ERROR: Load into table 't' failed.", Some("t")).to_string().contains("(XX000)"));
    }

    #[test]
    fn what_the_api_says_is_tried_again_or_not() {
        let cases = [
            ("ValidationException", "Session is not available", Disposition::Retry),
            ("ValidationException", "Session with Id: 1 is invalid", Disposition::Retry),
            ("ActiveStatementsExceededException", "too many", Disposition::Retry),
            ("ActiveSessionsExceededException", "too many", Disposition::Retry),
            ("ThrottlingException", "Rate exceeded", Disposition::Retry),
            ("ExpiredTokenException", "expired", Disposition::Retry),
            ("ResourceNotFoundException", "Query does not exist.", Disposition::Retry),
            ("ValidationException", "Redshift endpoint doesn't exist in this region.", Disposition::Halt),
            ("AccessDeniedException", "not authorized to perform: redshift-data:ExecuteStatement", Disposition::Halt),
        ];
        for (code, text, disposition) in cases {
            let error = not_answered(refusal(code, text), None);
            assert_eq!(error.disposition(), disposition, "{error}");
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
