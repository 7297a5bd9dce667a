//! SQL as tokens: what Redshift's lexer makes of it, written again so that PostgreSQL reads the same.
//!
//! * A backslash in a plain literal escapes the character that follows, as in the PostgreSQL 8 that Redshift came from;
//!   PostgreSQL of today takes it for itself unless it is written again.
//! * Identifiers are folded to lower case, quoted ones too, unless `enable_case_sensitive_identifier` is on:
//!   <https://docs.aws.amazon.com/redshift/latest/dg/r_names.html>.

use crate::names::{MOST_BYTES, cut, short};
use crate::refusal::Refusal;

/// The longest statement: <https://docs.aws.amazon.com/redshift/latest/dg/c_redshift-sql.html>.
const STATEMENT_BYTES: usize = 16 * 1024 * 1024;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A keyword or an identifier without quotes; its value is in lower case.
    Word,
    /// An identifier in double quotes; its value is without them.
    Quoted,
    /// A text literal; its value is what it stands for.
    Text,
    /// A number.
    Number,
    /// `$1`.
    Parameter,
    /// An operator, a bracket, a comma, a period, a semicolon.
    Symbol,
    /// SQL for PostgreSQL that the translation has written.
    Written,
}

/// One token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// What it stands for.
    pub value: String,
}

impl Token {
    /// SQL that goes to PostgreSQL as it stands.
    pub fn written(sql: impl Into<String>) -> Self {
        Self { kind: Kind::Written, value: sql.into() }
    }

    /// Whether it is this keyword (in lower case).
    pub fn is(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.value == word
    }

    /// Whether it is one of these keywords.
    pub fn is_any(&self, words: &[&str]) -> bool {
        self.kind == Kind::Word && words.contains(&self.value.as_str())
    }

    /// Whether it is this symbol.
    pub fn is_symbol(&self, symbol: &str) -> bool {
        self.kind == Kind::Symbol && self.value == symbol
    }

    /// The name, if it can be one.
    pub fn name(&self) -> Option<&str> {
        matches!(self.kind, Kind::Word | Kind::Quoted).then_some(self.value.as_str())
    }

    /// As PostgreSQL reads it.
    pub fn render(&self) -> String {
        match self.kind {
            Kind::Quoted => identifier(&self.value),
            Kind::Text => literal(&self.value),
            // A word has no name in it that is longer than a keyword, or is one.
            Kind::Word if short(&self.value) != self.value => identifier(&self.value),
            Kind::Word | Kind::Number | Kind::Parameter | Kind::Symbol | Kind::Written => self.value.clone(),
        }
    }
}

/// A name in double quotes.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", short(name).replace('"', "\"\""))
}

/// A text literal as PostgreSQL reads it, whatever is in it.
pub fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// The tokens as one text.
pub fn render(tokens: &[Token]) -> String {
    tokens.iter().map(Token::render).collect::<Vec<_>>().join(" ")
}

/// The statements of a text, without comments and without the semicolons between them.
pub fn statements(sql: &str, case_sensitive: bool) -> Result<Vec<Vec<Token>>, Refusal> {
    if sql.len() > STATEMENT_BYTES {
        return Err(Refusal::new(
            "54000",
            format!(
                "Statement is too large. Statement Size: {} bytes. Maximum Allowed: {STATEMENT_BYTES} bytes",
                sql.len()
            ),
        ));
    }
    let mut all = vec![Vec::new()];
    for token in (Lexer { rest: sql, case_sensitive }).all()? {
        if token.is_symbol(";") {
            all.push(Vec::new());
        } else if let Some(last) = all.last_mut() {
            last.push(token);
        }
    }
    all.retain(|tokens| !tokens.is_empty());
    Ok(all)
}

struct Lexer<'a> {
    rest: &'a str,
    case_sensitive: bool,
}

const OPERATORS: &str = "+-*/<>=~!@#%^&|`?";

impl Lexer<'_> {
    fn all(mut self) -> Result<Vec<Token>, Refusal> {
        let mut tokens = Vec::new();
        loop {
            self.skip_blanks()?;
            let Some(first) = self.rest.chars().next() else { return Ok(tokens) };
            tokens.push(self.token(first)?);
        }
    }

    fn skip_blanks(&mut self) -> Result<(), Refusal> {
        loop {
            self.rest = self.rest.trim_start();
            if let Some(comment) = self.rest.strip_prefix("--") {
                self.rest = comment.split_once('\n').map_or("", |(_, rest)| rest);
            } else if let Some(comment) = self.rest.strip_prefix("/*") {
                let (_, rest) = comment.split_once("*/").ok_or_else(|| unterminated("comment"))?;
                self.rest = rest;
            } else {
                return Ok(());
            }
        }
    }

    fn token(&mut self, first: char) -> Result<Token, Refusal> {
        let second = self.rest.chars().nth(1);
        match first {
            '\'' => self.text(1),
            'e' | 'E' if second == Some('\'') => self.text(2),
            '"' => self.quoted(),
            '$' if second.is_some_and(|c| c.is_ascii_digit()) => {
                Ok(self.take(Kind::Parameter, 1, |c| c.is_ascii_digit()))
            }
            '$' => self.dollar(),
            c if c.is_alphabetic() || c == '_' => {
                let mut word = self.take(Kind::Word, 0, |c| c.is_alphanumeric() || c == '_' || c == '$');
                word.value = cut(&word.value, MOST_BYTES).to_ascii_lowercase();
                Ok(word)
            }
            '#' if second.is_some_and(char::is_alphabetic) => Err(Refusal::not_emulated("names that begin with #")),
            c if c.is_ascii_digit() || (c == '.' && second.is_some_and(|c| c.is_ascii_digit())) => Ok(self.number()),
            ':' if second == Some(':') => Ok(self.first(2)),
            c if OPERATORS.contains(c) => Ok(self.operator()),
            _ => Ok(self.first(first.len_utf8())),
        }
    }

    fn first(&mut self, bytes: usize) -> Token {
        let (value, rest) = self.rest.split_at(bytes);
        self.rest = rest;
        Token { kind: Kind::Symbol, value: value.to_owned() }
    }

    fn take(&mut self, kind: Kind, from: usize, belongs: impl Fn(char) -> bool) -> Token {
        let end = self.rest[from..].find(|c| !belongs(c)).map_or(self.rest.len(), |at| from + at);
        Token { kind, ..self.first(end) }
    }

    /// An operator ends before a comment, and a sign is not part of one.
    fn operator(&mut self) -> Token {
        let end = self.rest.find(|c| !OPERATORS.contains(c)).unwrap_or(self.rest.len());
        let run = &self.rest[..end];
        let mut end = [run.find("--"), run.find("/*")].into_iter().flatten().fold(end, usize::min);
        while end > 1
            && run[..end].ends_with(['+', '-'])
            && !run[..end].contains(['~', '!', '@', '#', '%', '^', '&', '|', '`', '?'])
        {
            end -= 1;
        }
        self.first(end.max(1))
    }

    fn number(&mut self) -> Token {
        let mut seen_exponent = false;
        let mut last = ' ';
        let end = self
            .rest
            .find(|c: char| {
                let sign = (c == '+' || c == '-') && (last == 'e' || last == 'E');
                let exponent = (c == 'e' || c == 'E') && !seen_exponent;
                seen_exponent |= exponent;
                last = c;
                !(c.is_ascii_digit() || c == '.' || exponent || sign)
            })
            .unwrap_or(self.rest.len());
        Token { kind: Kind::Number, ..self.first(end) }
    }

    fn quoted(&mut self) -> Result<Token, Refusal> {
        let (mut value, mut at) = (String::new(), 1);
        loop {
            let end = self.rest[at..].find('"').ok_or_else(|| unterminated("quoted identifier"))? + at;
            value.push_str(&self.rest[at..end]);
            at = end + 1;
            if !self.rest[at..].starts_with('"') {
                break;
            }
            value.push('"');
            at += 1;
        }
        self.rest = &self.rest[at..];
        let value = if self.case_sensitive { value } else { value.to_ascii_lowercase() };
        Ok(Token { kind: Kind::Quoted, value: cut(&value, MOST_BYTES).to_owned() })
    }

    fn text(&mut self, from: usize) -> Result<Token, Refusal> {
        let mut value = String::new();
        let mut chars = self.rest[from..].char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            match c {
                '\'' if chars.next_if(|(_, next)| *next == '\'').is_some() => value.push('\''),
                '\'' => {
                    self.rest = &self.rest[from + at + 1..];
                    return Ok(Token { kind: Kind::Text, value });
                }
                '\\' => value.push(match chars.next().ok_or_else(|| unterminated("quoted string"))?.1 {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    'b' => '\u{8}',
                    'f' => '\u{c}',
                    c if c.is_digit(8) || c == 'x' => {
                        return Err(Refusal::not_emulated("an octal or hexadecimal escape in a literal"));
                    }
                    other => other,
                }),
                other => value.push(other),
            }
        }
        Err(unterminated("quoted string"))
    }

    fn dollar(&mut self) -> Result<Token, Refusal> {
        let close = self.rest[1..].find('$').ok_or_else(|| Refusal::syntax("$"))? + 2;
        let (tag, body) = self.rest.split_at(close);
        let (value, rest) = body.split_once(tag).ok_or_else(|| unterminated("dollar-quoted string"))?;
        self.rest = rest;
        Ok(Token { kind: Kind::Text, value: value.to_owned() })
    }
}

fn unterminated(what: &str) -> Refusal {
    Refusal::new("42601", format!("unterminated {what}"))
}
