//! What is wrong in a topology or a contract file, where, and what to do: printed like a compiler does.

use std::fmt::{self, Write as _};

use serde::Serialize;

use crate::error::{Error, ErrorKind};

/// One mistake. Holds no value that came from the environment, a secret file or `--set`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mistake {
    /// The file, as it was named.
    pub file: String,
    /// Line, from 1; 0 when the value came from the command line.
    pub line: u32,
    /// Column in characters, from 1; 0 when the value came from the command line.
    pub column: u32,
    /// Where in the topology, e.g. `tables.orders.operators[0].validate.rule`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do, the nearest valid name included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The line of the file, secrets blanked out.
    #[serde(skip)]
    pub(super) source: Option<String>,
    /// Characters to underline.
    #[serde(skip)]
    pub(super) width: u32,
}

/// Everything that is wrong, in the order of the files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl Mistake {
    /// As a compiler prints it: place and message, the line with a caret, help. `colour` is for terminals.
    pub fn render(&self, colour: bool) -> String {
        let paint = |code: &str, text: &str| {
            if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
        };
        let place = if self.line == 0 {
            format!("--set {}", self.path)
        } else {
            format!("{}:{}:{}", self.file, self.line, self.column)
        };
        let mut out = format!("{}: {} {}", paint("1", &place), paint("1;31", "error:"), self.message);
        if let Some(source) = &self.source {
            let number = self.line.to_string();
            let margin = " ".repeat(number.len());
            let indent: String =
                source.chars().take(self.column as usize - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            let room = (source.chars().count() + 1).saturating_sub(self.column as usize).max(1);
            let caret = "^".repeat((self.width.max(1) as usize).min(room));
            let bar = paint("34", "|");
            let _ = write!(out, "\n {} {bar} {source}", paint("34", &number));
            let _ = write!(out, "\n {margin} {bar} {indent}{}", paint("1;31", &caret));
        }
        if let Some(help) = &self.help {
            let _ = write!(out, "\n  {} {help}", paint("36", "help:"));
        }
        out
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl Mistakes {
    /// All of them, and how many there are.
    pub fn render(&self, colour: bool) -> String {
        let mut out: String = self.0.iter().map(|mistake| mistake.render(colour) + "\n\n").collect();
        let _ = write!(out, "{}", self.summary());
        out
    }

    fn summary(&self) -> String {
        match self.0.len() {
            1 => "1 mistake; nothing was started".into(),
            n => format!("{n} mistakes; nothing was started"),
        }
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Mistakes {}

impl From<Mistakes> for Error {
    fn from(mistakes: Mistakes) -> Self {
        Self::new(ErrorKind::Config, mistakes.to_string())
    }
}

/// The name that was probably meant, when one is near enough.
pub fn nearest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = wanted.to_lowercase();
    let scored = known.into_iter().map(|name| (strsim::damerau_levenshtein(&wanted, &name.to_lowercase()), name));
    let (distance, name) = scored.min_by_key(|(distance, _)| *distance)?;
    let longest = wanted.chars().count().max(name.chars().count());
    (distance <= longest.div_ceil(3)).then_some(name)
}

/// ``did you mean `x`?`` when something is near, else what there is.
pub(super) fn suggest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str> + Clone, what: &str) -> String {
    match nearest(wanted, known.clone()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => list(known, what),
    }
}

/// ``known fields are `a`, `b` ``.
pub(super) fn list<'a>(known: impl IntoIterator<Item = &'a str>, what: &str) -> String {
    let names: Vec<String> = known.into_iter().take(20).map(|name| format!("`{name}`")).collect();
    if names.is_empty() { format!("{what}: none") } else { format!("{what}: {}", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_reads_like_a_compilers() {
        let mistake = Mistake {
            file: "t.yaml".into(),
            line: 12,
            column: 5,
            path: "tables.orders.form".into(),
            message: "unknown field `form`".into(),
            help: Some("did you mean `from`?".into()),
            source: Some("    form: shop.public.orders".into()),
            width: 4,
        };
        let expected = "t.yaml:12:5: error: unknown field `form`\n 12 |     form: shop.public.orders\n    |     ^^^^\n  help: did you mean `from`?";
        assert_eq!(mistake.to_string(), expected);
        assert!(mistake.render(true).contains("\x1b[1;31merror:"));
    }

    #[test]
    fn only_near_names_are_suggested() {
        assert_eq!(nearest("form", ["from", "key", "source"]), Some("from"));
        assert_eq!(nearest("ordrs", ["orders", "order_lines"]), Some("orders"));
        assert_eq!(nearest("zebra", ["from", "key"]), None);
    }
}
