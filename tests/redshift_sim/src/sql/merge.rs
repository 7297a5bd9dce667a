//! MERGE: <https://docs.aws.amazon.com/redshift/latest/dg/r_MERGE.html>.

use crate::fault::Kind;
use crate::lex::{Token, render};
use crate::refusal::Refusal;

use super::{Effect, Plan, Settings, behind, expression, name_parts};

/// Plans a MERGE: one WHEN MATCHED and one WHEN NOT MATCHED without further conditions, an equality in ON, no alias of the
/// target, a source that is another table; or REMOVE DUPLICATES, which deletes what matches and inserts the source.
pub fn plan(tokens: &[Token], settings: &Settings) -> Result<Plan, Refusal> {
    let (target, parts, after) = name_parts(tokens, 2)?;
    if !tokens[1].is("into") || !tokens.get(after).is_some_and(|t| t.is("using")) {
        return Err(Refusal::syntax(tokens.get(after).map_or("end of input", |t| &t.value)));
    }
    let source = source_end(tokens, after + 1, &parts)?;
    let on = tokens[source..].iter().position(|t| t.is("on")).ok_or_else(|| Refusal::syntax("end of input"))? + source;
    if on > source + 2 {
        return Err(Refusal::syntax(&tokens[source].value));
    }
    let end = tokens[on..]
        .windows(2)
        .position(|pair| pair[0].is("when") || pair[0].is("remove") && pair[1].is("duplicates"))
        .ok_or_else(|| Refusal::syntax("end of input"))?
        + on;
    let condition = &tokens[on + 1..end];
    if !condition.iter().any(|t| t.is_symbol("=")) || condition.iter().any(|t| t.is("or")) {
        return Err(Refusal::unsupported("MERGE requires a join condition of equality"));
    }
    let sql = if tokens[end].is("remove") {
        remove_duplicates(&target, &tokens[after + 1..on], condition, settings)
    } else {
        clauses(&tokens[end..])?;
        expression::translate(tokens, settings)
    };
    let tag = tokens[end].is("remove").then_some("MERGE");
    Ok(Plan { kind: Kind::Merge, sql, tag, effect: Effect::Write { table: target, reads: true } })
}

/// Where the source's alias begins, or ON.
fn source_end(tokens: &[Token], at: usize, target: &[String]) -> Result<usize, Refusal> {
    if tokens.get(at).is_some_and(|t| t.is_symbol("(")) {
        return behind(tokens, at);
    }
    let (_, parts, after) = name_parts(tokens, at)?;
    if parts == target {
        return Err(Refusal::unsupported("MERGE: the source table must not be the target table"));
    }
    Ok(after)
}

fn clauses(tokens: &[Token]) -> Result<(), Refusal> {
    let (mut matched, mut unmatched) = (0, 0);
    for at in (0..tokens.len()).filter(|at| tokens[*at].is("when")) {
        let word = |n: usize, word: &str| tokens.get(at + n).is_some_and(|t| t.is(word));
        let then = match (word(1, "matched"), word(1, "not") && word(2, "matched")) {
            (true, _) => {
                matched += 1;
                2
            }
            (_, true) => {
                unmatched += 1;
                3
            }
            // A CASE within an expression.
            _ => continue,
        };
        if !word(then, "then") {
            return Err(Refusal::syntax(tokens.get(at + then).map_or("end of input", |t| &t.value)));
        }
    }
    if matched + unmatched < 2 {
        return Err(Refusal::unsupported("MERGE statement with a single WHEN clause is not enabled"));
    }
    if (matched, unmatched) != (1, 1) {
        return Err(Refusal::unsupported("MERGE statement with more than one WHEN MATCHED or WHEN NOT MATCHED clause"));
    }
    Ok(())
}

fn remove_duplicates(target: &str, source: &[Token], condition: &[Token], settings: &Settings) -> String {
    let (source, condition) = (expression::translate(source, settings), render(condition));
    let columns = source.rsplit(' ').next().unwrap_or(&source);
    format!(
        "WITH gone AS (DELETE FROM {target} USING {source} WHERE {condition}) INSERT INTO {target} SELECT DISTINCT {columns}.* FROM {source}"
    )
}
