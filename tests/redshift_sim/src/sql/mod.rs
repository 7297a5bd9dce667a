//! One statement of Redshift's becomes one of PostgreSQL's, or a refusal.
//!
//! The work is done on tokens: `sqlparser`, which the workspace has, neither gives back what it read nor knows some of the
//! grammar that matters here (`MERGE … REMOVE DUPLICATES`, `LOCK`), and accepts what Redshift refuses.

mod change;
pub mod copy;
mod expression;
mod function;
mod merge;
mod table;

use crate::fault::Kind;
use crate::lex::{Token, identifier, literal, render};
use crate::names::short;
use crate::refusal::Refusal;

use copy::Copy;
pub use function::{case_sensitivity, check_value as check_setting};

/// A statement as the emulator runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What it is to the counters and the faults.
    pub kind: Kind,
    /// What PostgreSQL is asked.
    pub sql: String,
    /// The tag of the answer, if PostgreSQL's own is not Redshift's.
    pub tag: Option<&'static str>,
    /// What else happens.
    pub effect: Effect,
}

/// What a statement does besides being passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// It reads, or defines something.
    Query,
    /// It neither takes a snapshot nor reads: settings, locks, cursors' ends.
    Quiet,
    /// It writes a table; `reads` says that what it does depends on the table's rows.
    Write {
        /// The table, as PostgreSQL reads its name.
        table: String,
        /// Whether the table is read too.
        reads: bool,
    },
    /// It writes a table and commits: <https://docs.aws.amazon.com/redshift/latest/dg/r_TRUNCATE.html>.
    Truncate(String),
    /// It loads.
    Copy(Box<Copy>),
    /// A transaction begins.
    Begin,
    /// It ends well.
    Commit,
    /// It ends.
    Rollback,
    /// It must not run in a transaction; the text is what it is called in the refusal.
    Alone(&'static str),
    /// It is accepted and does nothing here.
    Nothing,
}

/// What of the session's settings decides how SQL is read.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Late-binding views: (schema, name, SQL for PostgreSQL).
    pub late_views: Vec<(String, String, String)>,
    /// Whether tables of a provisioned cluster (`stl_…`) are out of reach.
    pub serverless: bool,
}

impl Plan {
    fn new(kind: Kind, sql: impl Into<String>, effect: Effect) -> Self {
        Self { kind, sql: sql.into(), tag: None, effect }
    }

    fn tagged(self, tag: &'static str) -> Self {
        Self { tag: Some(tag), ..self }
    }
}

/// Plans one statement.
pub fn plan(tokens: &[Token], settings: &Settings) -> Result<Plan, Refusal> {
    let first = tokens.first().ok_or_else(|| Refusal::syntax(";"))?;
    match first.value.as_str() {
        "copy" => return copy::plan(tokens),
        "alter" if late_view_at(tokens, 2, settings).is_some() => return alter_late_view(tokens),
        "alter" => return table::alter(tokens),
        "create" | "drop" | "grant" | "revoke" | "comment" => return definition(tokens, settings),
        _ => {}
    }
    if let Some(plan) = session(tokens)? {
        return Ok(plan);
    }
    expression::refuse(tokens, settings)?;
    match first.value.as_str() {
        "with" if writes(tokens) => Err(Refusal::not_emulated("WITH before a statement that writes")),
        "select" | "with" | "(" | "explain" | "values" => {
            function::refuse_leader_only(tokens)?;
            Ok(Plan::new(Kind::Select, expression::translate(tokens, settings), Effect::Query))
        }
        "insert" | "update" | "delete" => change::plan(tokens, settings),
        "merge" => merge::plan(tokens, settings),
        "declare" if tokens.iter().any(|t| t.is("hold")) => {
            // <https://docs.aws.amazon.com/redshift/latest/dg/declare.html>: a cursor lives in its transaction.
            Err(Refusal::syntax("hold"))
        }
        "declare" => Ok(Plan::new(Kind::Select, expression::translate(tokens, settings), Effect::Query)),
        "fetch" | "close" | "deallocate" | "prepare" | "execute" => {
            Ok(Plan::new(Kind::Other, render(tokens), Effect::Query))
        }
        _ => unknown(tokens),
    }
}

/// Transactions, settings, locks and maintenance.
fn session(tokens: &[Token]) -> Result<Option<Plan>, Refusal> {
    let plan = match tokens[0].value.as_str() {
        "begin" | "start" => begin(tokens)?,
        "commit" | "end" => Plan::new(Kind::Commit, "COMMIT", Effect::Commit),
        "rollback" | "abort" if tokens.iter().any(|t| t.is("to")) => {
            return Err(not_supported("ROLLBACK TO SAVEPOINT"));
        }
        "rollback" | "abort" => Plan::new(Kind::Rollback, "ROLLBACK", Effect::Rollback),
        "lock" => lock(tokens)?,
        "truncate" => {
            let table = name_at(tokens, 1 + usize::from(tokens.get(1).is_some_and(|t| t.is("table"))))?;
            Plan::new(Kind::Truncate, format!("TRUNCATE {}", table.0), Effect::Truncate(table.0))
                .tagged("TRUNCATE TABLE")
        }
        "set" | "show" | "reset" => return function::setting(tokens).map(Some),
        // <https://docs.aws.amazon.com/redshift/latest/dg/r_VACUUM_command.html>: not in a transaction block.
        "vacuum" => Plan::new(Kind::Other, "SET sim.vacuum TO ''", Effect::Alone("VACUUM")).tagged("VACUUM"),
        "analyze" => Plan::new(Kind::Other, "", Effect::Nothing).tagged("ANALYZE"),
        // <https://docs.aws.amazon.com/redshift/latest/dg/c_unsupported-postgresql-features.html>
        "savepoint" | "release" => return Err(not_supported("SAVEPOINT")),
        "listen" | "notify" | "unlisten" | "do" | "reindex" | "cluster" | "checkpoint" | "load" | "discard" => {
            return Err(not_supported(&tokens[0].value.to_uppercase()));
        }
        _ => return Ok(None),
    };
    Ok(Some(plan))
}

/// Every level that is asked for is the database's: <https://docs.aws.amazon.com/redshift/latest/dg/r_BEGIN.html>.
fn begin(tokens: &[Token]) -> Result<Plan, Refusal> {
    let known = [
        "begin",
        "start",
        "work",
        "transaction",
        "isolation",
        "level",
        "serializable",
        "read",
        "only",
        "write",
        "committed",
        "uncommitted",
        "repeatable",
    ];
    if let Some(other) = tokens.iter().find(|t| !t.is_any(&known) && !t.is_symbol(",")) {
        return Err(Refusal::syntax(&other.value));
    }
    let read_only = if tokens.iter().any(|t| t.is("only")) { " READ ONLY" } else { "" };
    Ok(Plan::new(Kind::Begin, format!("BEGIN ISOLATION LEVEL REPEATABLE READ{read_only}"), Effect::Begin)
        .tagged("BEGIN"))
}

/// Only the strongest lock, and no word about it: <https://docs.aws.amazon.com/redshift/latest/dg/r_LOCK.html>.
fn lock(tokens: &[Token]) -> Result<Plan, Refusal> {
    if let Some(other) = tokens.iter().find(|t| t.is_any(&["in", "mode", "nowait"])) {
        return Err(Refusal::syntax(&other.value));
    }
    let from = 1 + usize::from(tokens.get(1).is_some_and(|t| t.is("table")));
    let sql = format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", render(&tokens[from..]));
    Ok(Plan::new(Kind::Lock, sql, Effect::Quiet))
}

/// CREATE, DROP and what belongs to them.
fn definition(tokens: &[Token], settings: &Settings) -> Result<Plan, Refusal> {
    let words: Vec<&str> = tokens.iter().take(6).map(|t| t.value.as_str()).collect();
    match words.as_slice() {
        ["create", "table" | "temp" | "temporary" | "local", ..] => table::create(tokens, settings),
        ["create", "view", ..] | ["create", "or", "replace", "view", ..] => view(tokens, settings),
        ["create", "schema", ..] => Ok(Plan::new(Kind::Create, render(&without_quota(tokens)), Effect::Query)),
        ["create", "database", ..] => Err(Refusal::not_emulated("CREATE DATABASE")),
        [
            "create" | "drop",
            "user" | "group" | "role" | "model" | "datashare" | "library" | "masking" | "rls" | "external"
            | "procedure" | "function" | "materialized",
            ..,
        ]
        | ["create", "or", "replace", ..] => Err(Refusal::not_emulated(&words[..2].join(" ").to_uppercase())),
        // <https://docs.aws.amazon.com/redshift/latest/dg/c_unsupported-postgresql-features.html>
        ["create", what, ..] => Err(not_supported(&format!("CREATE {}", what.to_uppercase()))),
        ["drop", "view", rest @ ..] if late_view(tokens, settings).is_some() => {
            let (schema, name) = late_view(tokens, settings).unwrap_or_default();
            let _ = rest;
            let sql = format!(
                "CALL sim.drop_late_view({}, {}, {})",
                literal(&schema),
                literal(&name),
                literal(&short(&name))
            );
            Ok(Plan::new(Kind::Drop, sql, Effect::Query).tagged("DROP VIEW"))
        }
        ["drop", "table" | "view" | "schema", ..] => Ok(Plan::new(Kind::Drop, render(tokens), Effect::Query)),
        ["drop", what, ..] => Err(not_supported(&format!("DROP {}", what.to_uppercase()))),
        ["grant" | "revoke", ..] => {
            let tag = if words[0] == "grant" { "GRANT" } else { "REVOKE" };
            // Rights are checked nowhere; those on views are kept, because views lose them with themselves.
            let plan = match is_on_late_view(tokens, settings) {
                true => Plan::new(Kind::Other, render(tokens), Effect::Query),
                false => Plan::new(Kind::Other, "", Effect::Nothing),
            };
            Ok(plan.tagged(tag))
        }
        ["comment", ..] => Ok(Plan::new(Kind::Other, render(tokens), Effect::Query)),
        _ => Err(Refusal::syntax(words.last().unwrap_or(&""))),
    }
}

/// `QUOTA 10 GB` limits a schema's size: <https://docs.aws.amazon.com/redshift/latest/dg/r_CREATE_SCHEMA.html>.
fn without_quota(tokens: &[Token]) -> Vec<Token> {
    tokens.iter().take_while(|t| !t.is("quota")).cloned().collect()
}

/// Views; one without schema binding is kept as text and put in where it is used.
/// <https://docs.aws.amazon.com/redshift/latest/dg/r_CREATE_VIEW.html>
fn view(tokens: &[Token], settings: &Settings) -> Result<Plan, Refusal> {
    let from = tokens.iter().position(|t| t.is("view")).unwrap_or(0) + 1;
    let (name, parts, after) = name_parts(tokens, from)?;
    let tail: Vec<&str> = tokens.iter().rev().take(4).map(|t| t.value.as_str()).collect();
    let late = tail == ["binding", "schema", "no", "with"];
    let end = if late { tokens.len() - 4 } else { tokens.len() };
    if !tokens.get(after).is_some_and(|t| t.is("as")) {
        return Err(if late {
            Refusal::not_emulated("column names of a late-binding view")
        } else {
            Refusal::syntax(&name)
        });
    }
    let body = &tokens[after + 1..end];
    expression::refuse(body, settings)?;
    // What is bound late is put in where it is read.
    let unbound = Settings { late_views: Vec::new(), ..settings.clone() };
    let query = expression::translate(body, if late { &unbound } else { settings });
    let replaces = tokens[1].is("or");
    if !late {
        let replace = if replaces { "OR REPLACE " } else { "" };
        return Ok(Plan::new(Kind::Create, format!("CREATE {replace}VIEW {name} AS {query}"), Effect::Query));
    }
    expression::refuse_unqualified(body)?;
    let [schema, view] = parts.as_slice() else {
        return Err(Refusal::not_emulated("a late-binding view without its schema"));
    };
    let (inside, query) = (literal(&short(view)), literal(&query));
    let sql = format!("CALL sim.make_late_view({}, {}, {inside}, {query}, {replaces})", literal(schema), literal(view));
    Ok(Plan::new(Kind::Create, sql, Effect::Query).tagged("CREATE VIEW"))
}

/// A view can only be renamed: <https://docs.aws.amazon.com/redshift/latest/dg/r_ALTER_TABLE.html>.
fn alter_late_view(tokens: &[Token]) -> Result<Plan, Refusal> {
    let (_, parts, after) = name_parts(tokens, 2)?;
    let words: Vec<&str> = tokens[after..].iter().map(|t| &*t.value).collect();
    let (["rename", "to", renamed], [schema, view]) = (words.as_slice(), parts.as_slice()) else {
        return Err(Refusal::not_emulated("ALTER TABLE of a view but for RENAME TO"));
    };
    let arguments = [schema.as_str(), view, &short(view), renamed, &short(renamed)].map(literal);
    let sql = format!("CALL sim.rename_late_view({})", arguments.join(", "));
    Ok(Plan::new(Kind::Alter, sql, Effect::Query).tagged("ALTER TABLE"))
}

fn late_view(tokens: &[Token], settings: &Settings) -> Option<(String, String)> {
    late_view_at(tokens, 2 + 2 * usize::from(tokens.get(2).is_some_and(|t| t.is("if"))), settings)
}

/// Whether a right is one on a late-binding view.
fn is_on_late_view(tokens: &[Token], settings: &Settings) -> bool {
    let on = tokens.iter().position(|token| token.is("on"));
    on.is_some_and(|on| late_view_at(tokens, on + 1, settings).is_some())
}

fn late_view_at(tokens: &[Token], from: usize, settings: &Settings) -> Option<(String, String)> {
    let (_, parts, _) = name_parts(tokens, from).ok()?;
    let [schema, name] = parts.as_slice() else { return None };
    let known = settings.late_views.iter().any(|(s, n, _)| s == schema && n == name);
    known.then(|| (schema.clone(), name.clone()))
}

/// Whether the statement behind WITH writes.
fn writes(tokens: &[Token]) -> bool {
    let mut depth = 0;
    tokens.iter().any(|token| {
        depth += i32::from(token.is_symbol("(")) - i32::from(token.is_symbol(")"));
        depth == 0 && token.is_any(&["insert", "update", "delete", "merge"])
    })
}

/// A statement that is nobody's.
fn unknown(tokens: &[Token]) -> Result<Plan, Refusal> {
    let word = tokens[0].value.to_uppercase();
    Err(match word.as_str() {
        "UNLOAD" | "CALL" | "REFRESH" | "CANCEL" | "USE" | "ATTACH" | "DETACH" => Refusal::not_emulated(&word),
        _ => Refusal::syntax(&tokens[0].value),
    })
}

/// How Redshift names what PostgreSQL could do.
fn not_supported(command: &str) -> Refusal {
    Refusal::unsupported(format!("SQL command \"{command}\" not supported on Redshift tables."))
}

/// A name of up to three parts at `from`: as PostgreSQL reads it, and where it ends.
fn name_at(tokens: &[Token], from: usize) -> Result<(String, usize), Refusal> {
    name_parts(tokens, from).map(|(name, _, after)| (name, after))
}

/// The same with its parts.
fn name_parts(tokens: &[Token], from: usize) -> Result<(String, Vec<String>, usize), Refusal> {
    let (mut parts, mut at) = (Vec::new(), from);
    loop {
        let part = tokens.get(at).and_then(Token::name);
        let part = part.ok_or_else(|| Refusal::syntax(tokens.get(at).map_or("end of input", |t| &t.value)))?;
        parts.push(part.to_owned());
        at += 1;
        if !tokens.get(at).is_some_and(|t| t.is_symbol(".")) {
            break;
        }
        at += 1;
    }
    // `database.schema.table`: there is one database.
    let named = if parts.len() == 3 { parts.split_off(1) } else { parts };
    Ok((named.iter().map(|p| identifier(p)).collect::<Vec<_>>().join("."), named, at))
}

/// The index behind the bracket that closes the one at `open`.
fn behind(tokens: &[Token], open: usize) -> Result<usize, Refusal> {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        if token.is_symbol("(") {
            depth += 1;
        } else if token.is_symbol(")") {
            depth -= 1;
        }
        if depth == 0 {
            return Ok(at + 1);
        }
    }
    Err(Refusal::syntax("end of input"))
}

/// The parts between commas, those in brackets left whole.
fn by_commas(tokens: &[Token]) -> Vec<&[Token]> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0, 0);
    for (at, token) in tokens.iter().enumerate() {
        if token.is_symbol("(") {
            depth += 1;
        } else if token.is_symbol(")") {
            depth -= 1;
        } else if depth == 0 && token.is_symbol(",") {
            parts.push(&tokens[from..at]);
            from = at + 1;
        }
    }
    parts.push(&tokens[from..]);
    parts
}

#[cfg(test)]
mod tests;
