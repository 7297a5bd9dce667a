//! SQL text to syntax tree. Everything that can be refused without knowing the columns is refused here, with the
//! position of the mistake.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName,
    ObjectNamePart, Spanned, Value, VisitMut, VisitorMut, visit_expressions,
};
use datafusion_sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion_sql::sqlparser::parser::Parser;
use datafusion_sql::sqlparser::tokenizer::{Location, Span, Token};

use super::functions::{self, Known};
use super::{Fault, nearest};

/// A scalar SQL expression that was read but not yet bound to columns.
#[derive(Clone)]
pub(super) struct Syntax {
    /// What the topology says.
    pub text: String,
    /// The field that it stands in, e.g. `validate.rule`.
    pub path: String,
    tree: Expr,
}

impl Syntax {
    /// Reads `text`, which stands in the field `path`.
    pub fn parse(path: impl Into<String>, text: &str) -> Result<Self, Fault> {
        let path = path.into();
        let failed = |error: String| {
            let (message, offset) = split_position(&error, text);
            Fault::new(path.clone(), format!("cannot read the expression: {message}")).offset(offset)
        };
        let mut parser =
            Parser::new(&PostgreSqlDialect {}).try_with_sql(text).map_err(|error| failed(error.to_string()))?;
        let mut tree = parser.parse_expr().map_err(|error| failed(error.to_string()))?;
        let rest = parser.peek_token();
        if rest.token != Token::EOF {
            return Err(Fault::new(path, format!("one expression is wanted, but `{}` follows it", rest.token))
                .offset(byte_offset(text, rest.span.start)));
        }
        let _: ControlFlow<()> = tree.visit(&mut Desugar);
        let syntax = Self { text: text.to_owned(), path, tree };
        syntax.check()?;
        Ok(syntax)
    }

    /// A mistake in this expression.
    pub fn fault(&self, at: Option<Location>, message: impl Into<String>) -> Fault {
        Fault::new(self.path.clone(), message).offset(at.and_then(|at| byte_offset(&self.text, at)))
    }

    /// Refuses what is not a scalar expression that always gives the same result.
    fn check(&self) -> Result<(), Fault> {
        let found = visit_expressions(&self.tree, |expr| match self.refusal(expr) {
            Some(fault) => ControlFlow::Break(Box::new(fault)),
            None => ControlFlow::Continue(()),
        });
        match found {
            ControlFlow::Break(fault) => Err(*fault),
            ControlFlow::Continue(()) => Ok(()),
        }
    }

    fn refusal(&self, expr: &Expr) -> Option<Fault> {
        let at = Some(expr.span().start);
        match expr {
            Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => Some(
                self.fault(at, "a subquery cannot be used here").help("an expression sees the columns of one row only"),
            ),
            Expr::Value(value) if matches!(value.value, Value::Placeholder(_)) => {
                Some(self.fault(at, format!("`{}` is a placeholder; write the value itself", value.value)))
            }
            Expr::SimilarTo { .. } => {
                Some(self.fault(at, "SIMILAR TO is not supported").help("take LIKE, or a regular expression with `~`"))
            }
            Expr::Collate { .. } => Some(
                self.fault(at, "COLLATE is not supported")
                    .help("text is compared byte by byte; see lower() and upper()"),
            ),
            Expr::CompoundIdentifier(parts) => Some(
                self.fault(at, format!("`{expr}` has more than one part"))
                    .help(format!("write the column's name alone: {}", parts.last().map_or("", |p| &p.value))),
            ),
            Expr::Function(function) => self.function_refusal(function),
            _ => None,
        }
    }

    fn function_refusal(&self, function: &Function) -> Option<Fault> {
        let name = match function.name.0.as_slice() {
            [ObjectNamePart::Identifier(name)] => name,
            _ => return Some(self.fault(Some(function.name.span().start), "a function's name has one part")),
        };
        let at = Some(name.span.start);
        if function.over.is_some() {
            return Some(
                self.fault(at, format!("`{}(…) over …` is a window function", name.value))
                    .help("an expression sees one row; windows are declared under `windows:`"),
            );
        }
        match functions::lookup(&name.value) {
            Known::Scalar(_) => None,
            Known::Clock => Some(
                self.fault(at, format!("`{}` gives another result each time", name.value))
                    .help("the same change must give the same row in every process; use a column of the change"),
            ),
            Known::Aggregate => Some(
                self.fault(at, format!("`{}` is an aggregate", name.value))
                    .help("an expression sees one row; aggregates are declared under `windows:`"),
            ),
            Known::No => {
                let fault = self.fault(at, format!("there is no function `{}`", name.value));
                Some(match nearest(&name.value, functions::names()) {
                    Some(near) => fault.help(format!("did you mean `{near}`?")),
                    None => fault,
                })
            }
        }
    }

    /// The names of columns as they are written.
    pub fn identifiers(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let _: ControlFlow<()> = visit_expressions(&self.tree, |expr| {
            if let Expr::Identifier(name) = expr {
                names.insert(name.value.clone());
            }
            ControlFlow::Continue(())
        });
        names
    }

    /// The tree with every column's name as the schema writes it. An unquoted name may differ in case when that leaves
    /// one column.
    pub fn resolve(&self, columns: &[&str]) -> Result<Expr, Fault> {
        let mut tree = self.tree.clone();
        let mut resolver = Resolver { syntax: self, columns };
        match tree.visit(&mut resolver) {
            ControlFlow::Break(fault) => Err(*fault),
            ControlFlow::Continue(()) => Ok(tree),
        }
    }

    /// All parts of `tree`, children before their parents: for finding the smallest part that is wrong.
    pub fn parts(tree: &Expr) -> Vec<Expr> {
        let mut parts = Vec::new();
        let _: ControlFlow<()> = visit_expressions(tree, |expr| {
            parts.push(expr.clone());
            ControlFlow::Continue(())
        });
        // Parents are visited first.
        parts.reverse();
        parts
    }
}

/// Makes calls of special forms that the planner does not take: `SUBSTRING(x FROM 2 FOR 3)` becomes `substr(x, 2, 3)`.
struct Desugar;

impl VisitorMut for Desugar {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let span = expr.span();
        if let Expr::Substring { expr: text, substring_from, substring_for, .. } = expr {
            let one = || Box::new(Expr::Value(Value::Number("1".into(), false).with_span(span)));
            let from = substring_from.take().unwrap_or_else(one);
            let arguments = [Some(text.clone()), Some(from), substring_for.take()];
            *expr = call("substr", span, arguments.into_iter().flatten().map(|argument| *argument));
        }
        ControlFlow::Continue(())
    }
}

fn call(name: &str, span: Span, arguments: impl Iterator<Item = Expr>) -> Expr {
    let args = arguments.map(|argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))).collect();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::with_span(span, name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

struct Resolver<'a> {
    syntax: &'a Syntax,
    columns: &'a [&'a str],
}

impl Resolver<'_> {
    fn find(&self, name: &Ident) -> Result<String, Fault> {
        if self.columns.contains(&name.value.as_str()) {
            return Ok(name.value.clone());
        }
        let alike: Vec<&str> = self.columns.iter().copied().filter(|c| c.eq_ignore_ascii_case(&name.value)).collect();
        let at = Some(name.span.start);
        match alike.as_slice() {
            [one] if name.quote_style.is_none() => Ok((*one).to_owned()),
            [_, _, ..] if name.quote_style.is_none() => Err(self
                .syntax
                .fault(at, format!("`{}` could be any of {}", name.value, alike.join(", ")))
                .help("write the name in double quotes, exactly as the column is called")),
            _ => {
                let fault = self.syntax.fault(at, format!("there is no column `{}`", name.value));
                Err(match nearest(&name.value, self.columns.iter().copied()) {
                    Some(near) => fault.help(format!("did you mean `{near}`?")),
                    None => fault.help(format!("the columns here are {}", self.columns.join(", "))),
                })
            }
        }
    }
}

impl VisitorMut for Resolver<'_> {
    type Break = Box<Fault>;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        if let Expr::Identifier(name) = expr {
            match self.find(name) {
                Ok(found) => {
                    name.value = found;
                    name.quote_style = Some('"');
                }
                Err(fault) => return ControlFlow::Break(Box::new(fault)),
            }
        }
        ControlFlow::Continue(())
    }
}

/// The byte that a line and a column (both from 1, in characters) stand for.
fn byte_offset(text: &str, at: Location) -> Option<usize> {
    if at.line == 0 || at.column == 0 {
        return None;
    }
    let line_start: usize = text.split_inclusive('\n').take(at.line as usize - 1).map(str::len).sum();
    let line = text.get(line_start..)?;
    Some(line_start + line.chars().take(at.column as usize - 1).map(char::len_utf8).sum::<usize>())
}

/// Takes the parser's `… at Line: 1, Column: 8` off its message. A text that ends too early is wrong at its end.
fn split_position(error: &str, text: &str) -> (String, Option<usize>) {
    let error = error.strip_prefix("sql parser error: ").unwrap_or(error);
    let Some((message, position)) = error.rsplit_once(" at Line: ") else {
        let at_end = error.contains("EOF");
        return (error.replace("EOF", "the end"), at_end.then_some(text.len()));
    };
    let offset = position
        .split_once(", Column: ")
        .and_then(|(line, column)| Some(Location::new(line.trim().parse().ok()?, column.trim().parse().ok()?)))
        .and_then(|at| byte_offset(text, at));
    (message.replace("EOF", "the end"), offset)
}
