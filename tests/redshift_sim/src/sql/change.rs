//! INSERT, UPDATE and DELETE.

use crate::fault::Kind;
use crate::lex::Token;
use crate::refusal::Refusal;

use super::{Effect, Plan, Settings, expression, function, name_parts};

/// Plans a change of rows.
pub fn plan(tokens: &[Token], settings: &Settings) -> Result<Plan, Refusal> {
    match tokens[0].value.as_str() {
        "insert" => insert(tokens, settings),
        "update" => update(tokens, settings),
        _ => delete(tokens, settings),
    }
}

/// <https://docs.aws.amazon.com/redshift/latest/dg/r_INSERT_30.html>: no alias, no OVERRIDING.
fn insert(tokens: &[Token], settings: &Settings) -> Result<Plan, Refusal> {
    if !tokens.get(1).is_some_and(|t| t.is("into")) {
        return Err(Refusal::syntax(tokens.get(1).map_or("end of input", |t| &t.value)));
    }
    let (table, _, after) = name_parts(tokens, 2)?;
    if let Some(token) = tokens.get(after).filter(|t| t.is_any(&["as", "overriding"])) {
        return Err(Refusal::syntax(&token.value));
    }
    function::refuse_leader_only(tokens)?;
    let effect = Effect::Write { table, reads: false };
    Ok(Plan::new(Kind::Insert, expression::translate(tokens, settings), effect))
}

/// <https://docs.aws.amazon.com/redshift/latest/dg/r_UPDATE.html>: a join must be an equijoin; no list of columns on the left.
fn update(tokens: &[Token], settings: &Settings) -> Result<Plan, Refusal> {
    let (table, _, after) = name_parts(tokens, 1)?;
    let set = tokens.iter().position(|t| t.is("set")).ok_or_else(|| Refusal::syntax("end of input"))?;
    if set > after + 2 {
        return Err(Refusal::syntax(&tokens[after].value));
    }
    if tokens.get(set + 1).is_some_and(|t| t.is_symbol("(")) {
        return Err(Refusal::syntax("("));
    }
    if outermost(tokens, "from").is_some() {
        equijoin(tokens)?;
    }
    let effect = Effect::Write { table, reads: true };
    Ok(Plan::new(Kind::Update, expression::translate(tokens, settings), effect))
}

/// <https://docs.aws.amazon.com/redshift/latest/dg/r_DELETE.html>: no alias of the target; USING names tables.
fn delete(tokens: &[Token], settings: &Settings) -> Result<Plan, Refusal> {
    let from = 1 + usize::from(tokens.get(1).is_some_and(|t| t.is("from")));
    let (table, _, after) = name_parts(tokens, from)?;
    match tokens.get(after) {
        None => {}
        Some(token) if token.is("where") => {}
        Some(token) if token.is("using") => {
            let end = outermost(tokens, "where").unwrap_or(tokens.len());
            if tokens[after..end].iter().any(|t| t.is_symbol("(")) {
                return Err(Refusal::syntax("("));
            }
            equijoin(tokens)?;
        }
        Some(token) => return Err(Refusal::syntax(&token.value)),
    }
    let mut whole = tokens.to_vec();
    if from == 1 {
        whole.insert(1, Token::written("FROM"));
    }
    let effect = Effect::Write { table, reads: true };
    Ok(Plan::new(Kind::Delete, expression::translate(&whole, settings), effect))
}

/// Where a keyword stands outside brackets.
fn outermost(tokens: &[Token], word: &str) -> Option<usize> {
    let mut depth = 0;
    tokens.iter().position(|token| {
        depth += i32::from(token.is_symbol("(")) - i32::from(token.is_symbol(")"));
        depth == 0 && token.is(word)
    })
}

fn equijoin(tokens: &[Token]) -> Result<(), Refusal> {
    let condition = outermost(tokens, "where").map_or(&[][..], |at| &tokens[at..]);
    if condition.iter().any(|t| t.is_symbol("=")) {
        return Ok(());
    }
    Err(Refusal::unsupported("Target table must be part of an equijoin predicate"))
}
