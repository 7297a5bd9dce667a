//! What may stand inside a query: words that are written otherwise for PostgreSQL, and what Redshift refuses.

use crate::lex::{Kind, Token, identifier, render, statements};
use crate::refusal::Refusal;

use super::{Settings, function, not_supported};

/// Parts of dates that stand without quotes as the first argument:
/// <https://docs.aws.amazon.com/redshift/latest/dg/r_Dateparts_for_datetime_functions.html>.
const WITH_DATEPART: [&str; 5] = ["dateadd", "date_add", "datediff", "date_diff", "datepart"];

/// Operators on JSON that PostgreSQL has and Redshift has not.
const JSON_OPERATORS: [&str; 8] = ["->", "->>", "#>", "#>>", "@>", "<@", "@?", "@@"];

/// A query as PostgreSQL reads it.
pub fn translate(tokens: &[Token], settings: &Settings) -> String {
    let mut written = tokens.to_vec();
    words(&mut written);
    top(&mut written);
    late_views(&mut written, settings);
    render(&written)
}

fn words(tokens: &mut [Token]) {
    for at in 0..tokens.len() {
        if tokens[at].kind != Kind::Word {
            continue;
        }
        let called = tokens.get(at + 1).is_some_and(|t| t.is_symbol("("));
        let part_of_name = at > 0 && tokens[at - 1].is_symbol(".");
        let word = tokens[at].value.clone();
        match word.as_str() {
            // <https://docs.aws.amazon.com/redshift/latest/dg/r_NVL_function.html>
            "nvl" if called => tokens[at].value = "coalesce".into(),
            // <https://docs.aws.amazon.com/redshift/latest/dg/r_SYSDATE.html>: without brackets.
            "sysdate" if !called && !part_of_name => tokens[at] = Token::written("pg_catalog.sysdate()"),
            "date_add" | "date_diff" if called => tokens[at].value = word.replace('_', ""),
            "datepart" if called => tokens[at].value = "date_part".into(),
            "varchar" | "nvarchar" if called && tokens.get(at + 2).is_some_and(|t| t.is("max")) => {
                tokens[at].value = "varchar".into();
                tokens[at + 2] = Token::written("65535");
            }
            "columns" if part_of_name && at > 1 && tokens[at - 2].value == "information_schema" => {
                tokens[at - 2] = Token::written("sim");
                tokens[at] = Token::written("information_columns");
            }
            "tables" if part_of_name && at > 1 && tokens[at - 2].value == "information_schema" => {
                tokens[at - 2] = Token::written("sim");
                tokens[at] = Token::written("information_tables");
            }
            // With names in full.
            "pg_tables" if !part_of_name => tokens[at] = Token::written("sim.pg_tables"),
            _ => {}
        }
        if called
            && WITH_DATEPART.contains(&word.as_str())
            && let Some(part) = tokens.get_mut(at + 2).filter(|t| t.kind == Kind::Word)
        {
            *part = Token { kind: Kind::Text, value: part.value.clone() };
        }
    }
}

/// `SELECT TOP n` becomes a LIMIT at the end of its query: <https://docs.aws.amazon.com/redshift/latest/dg/r_SELECT_list.html>.
fn top(tokens: &mut Vec<Token>) {
    while let Some(at) = (1..tokens.len()).find(|at| is_top(tokens, *at)) {
        let number = tokens[at + 1].value.clone();
        tokens.drain(at..at + 2);
        let (mut depth, mut end) = (0, tokens.len());
        for (i, token) in tokens.iter().enumerate().skip(at) {
            depth += i32::from(token.is_symbol("(")) - i32::from(token.is_symbol(")"));
            if depth < 0 {
                end = i;
                break;
            }
        }
        tokens.insert(end, Token::written(format!("LIMIT {number}")));
    }
}

fn is_top(tokens: &[Token], at: usize) -> bool {
    tokens[at].is("top")
        && tokens[at - 1].is_any(&["select", "distinct", "all"])
        && tokens.get(at + 1).is_some_and(|t| t.kind == Kind::Number)
}

/// The query of a late-binding view, with those of the views that it reads in turn.
fn late_query(view: usize, settings: &Settings) -> String {
    let mut others = settings.clone();
    let (_, _, sql) = others.late_views.remove(view);
    let Some(mut tokens) = statements(&sql, true).ok().and_then(|mut found| found.pop()) else { return sql };
    late_views(&mut tokens, &others);
    render(&tokens)
}

/// A late-binding view is its query, in brackets, under its name.
fn late_views(tokens: &mut Vec<Token>, settings: &Settings) {
    for (number, (schema, name, _)) in settings.late_views.iter().enumerate() {
        let mut at = 1;
        while at + 2 < tokens.len() {
            let named = tokens[at].name() == Some(schema)
                && tokens[at + 1].is_symbol(".")
                && tokens[at + 2].name() == Some(name)
                && !tokens.get(at + 3).is_some_and(|t| t.is_symbol("."));
            if named && begins_relation(&tokens[at - 1]) {
                let alias =
                    if has_alias(tokens.get(at + 3)) { String::new() } else { format!(" AS {}", identifier(name)) };
                let sql = late_query(number, settings);
                tokens.splice(at..at + 3, [Token::written(format!("({sql}){alias}"))]);
            }
            at += 1;
        }
    }
}

fn begins_relation(before: &Token) -> bool {
    before.is_any(&["from", "join", "using"]) || before.is_symbol(",") || before.is_symbol("(")
}

const NO_ALIAS: [&str; 22] = [
    "where",
    "group",
    "order",
    "limit",
    "having",
    "join",
    "left",
    "right",
    "full",
    "inner",
    "cross",
    "natural",
    "on",
    "using",
    "union",
    "intersect",
    "except",
    "minus",
    "offset",
    "qualify",
    "when",
    "with",
];

fn has_alias(after: Option<&Token>) -> bool {
    after.is_some_and(|t| t.name().is_some() && !t.is_any(&NO_ALIAS))
}

/// Every relation in a late-binding view has its schema: <https://docs.aws.amazon.com/redshift/latest/dg/r_CREATE_VIEW.html>.
pub fn refuse_unqualified(tokens: &[Token]) -> Result<(), Refusal> {
    let common: Vec<&str> =
        tokens.windows(3).filter(|w| w[1].is("as") && w[2].is_symbol("(")).map(|w| &*w[0].value).collect();
    for pair in 0..tokens.len().saturating_sub(1) {
        let [word, relation] = [&tokens[pair], &tokens[pair + 1]];
        let qualified = tokens.get(pair + 2).is_some_and(|t| t.is_symbol(".") || t.is_symbol("("));
        if word.is_any(&["from", "join"]) && relation.name().is_some_and(|name| !common.contains(&name)) && !qualified {
            return Err(Refusal::unsupported(
                "All the relation names inside should be qualified when creating VIEW WITH NO SCHEMA BINDING.",
            ));
        }
    }
    Ok(())
}

/// What PostgreSQL would take and Redshift does not:
/// <https://docs.aws.amazon.com/redshift/latest/dg/c_unsupported-postgresql-features.html>,
/// `…/c_unsupported-postgresql-datatypes.html`, `…/c_unsupported-postgresql-functions.html`.
pub fn refuse(tokens: &[Token], settings: &Settings) -> Result<(), Refusal> {
    refuse_casts(tokens)?;
    for at in 0..tokens.len() {
        let rest = &tokens[at..];
        let word = |n: usize, word: &str| rest.get(n).is_some_and(|t| t.is(word));
        let symbol = |n: usize, symbol: &str| rest.get(n).is_some_and(|t| t.is_symbol(symbol));
        let named = at > 0 && (tokens[at - 1].is_symbol(".") || tokens[at - 1].is("as"));
        if rest[0].kind == Kind::Symbol && JSON_OPERATORS.contains(&rest[0].value.as_str()) {
            return Err(Refusal::new("42883", format!("operator does not exist: {}", rest[0].value)));
        }
        if symbol(0, "[") && symbol(1, "]") {
            return Err(Refusal::unsupported("array types are not supported on Redshift tables."));
        }
        if rest[0].kind != Kind::Word || named {
            continue;
        }
        match rest[0].value.as_str() {
            "on" if word(1, "conflict") => return Err(Refusal::syntax("conflict")),
            "returning" => return Err(Refusal::syntax("returning")),
            "for" if word(1, "update") || word(1, "share") || word(1, "no") && word(2, "key") => {
                return Err(not_supported("SELECT FOR UPDATE"));
            }
            "array" if symbol(1, "[") => {
                return Err(Refusal::unsupported("array constructors are not supported on Redshift tables."));
            }
            "distinct" if word(1, "on") && symbol(2, "(") => {
                return Err(Refusal::unsupported("SELECT DISTINCT ON is not supported"));
            }
            "lateral" | "tablesample" => return Err(Refusal::syntax(&rest[0].value)),
            "filter" if symbol(1, "(") && word(2, "where") => return Err(Refusal::syntax("(")),
            "qualify" => return Err(Refusal::not_emulated("QUALIFY")),
            "materialized" if word(1, "(") => return Err(Refusal::syntax("materialized")),
            "as" if symbol(1, "(") && ["insert", "update", "delete"].iter().any(|verb| word(2, verb)) => {
                return Err(Refusal::syntax(&rest[2].value));
            }
            table if settings.serverless && (table.starts_with("stl_") || table.starts_with("svl_")) => {
                // <https://docs.aws.amazon.com/redshift/latest/mgmt/serverless-considerations.html>
                return Err(Refusal::new("42501", format!("permission denied for relation {table}")));
            }
            _ => {}
        }
        function::refuse_unknown(rest)?;
        types(rest)?;
    }
    Ok(())
}

/// Types that Redshift has not, in casts.
fn types(rest: &[Token]) -> Result<(), Refusal> {
    let cast = rest[0].is("as") && rest.get(2).is_some_and(|t| t.is_symbol(")"));
    let Some(name) = (if cast { rest.get(1) } else { None }) else { return Ok(()) };
    if super::table::UNSUPPORTED_TYPES.contains(&name.value.as_str()) {
        return Err(Refusal::new("42704", format!("type \"{}\" does not exist", name.value)));
    }
    Ok(())
}

/// Types behind `::`.
fn refuse_casts(tokens: &[Token]) -> Result<(), Refusal> {
    for pair in tokens.windows(2).filter(|pair| pair[0].is_symbol("::")) {
        if super::table::UNSUPPORTED_TYPES.contains(&pair[1].value.as_str()) {
            return Err(Refusal::new("42704", format!("type \"{}\" does not exist", pair[1].value)));
        }
    }
    Ok(())
}
