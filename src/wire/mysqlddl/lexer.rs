//! A statement's text as words: what MySQL and MariaDB take for one, comments left out.

/// What of a session's `sql_mode` decides what a statement means, and whose server it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mode {
    /// `"…"` is a name (`ANSI_QUOTES`).
    pub ansi_quotes: bool,
    /// `\` stands for itself (`NO_BACKSLASH_ESCAPES`).
    pub plain_backslash: bool,
    /// `REAL_AS_FLOAT`
    pub real_as_float: bool,
    /// What does not fit its new type is an error (`STRICT_TRANS_TABLES`).
    pub strict: bool,
    /// MariaDB's: what stands in `/*M! … */` is run, and JSON is text.
    pub mariadb: bool,
}

impl Mode {
    /// Of the bits that stand with a statement in the log.
    pub fn of(bits: u64, mariadb: bool) -> Self {
        Self {
            ansi_quotes: bits & 1 << 2 != 0,
            plain_backslash: bits & 1 << 20 != 0,
            real_as_float: bits & 1 != 0,
            strict: bits & (1 << 21 | 1 << 22) != 0,
            mariadb,
        }
    }
}

/// A word, a text, a number or a sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// A key word or a name.
    Plain(String),
    /// A name in quotes: never a key word.
    Quoted(String),
    Text(String),
    Number(String),
    Sign(char),
}

impl Word {
    /// Whether it is that key word.
    pub fn is(&self, key_word: &str) -> bool {
        matches!(self, Self::Plain(word) if word.eq_ignore_ascii_case(key_word))
    }

    pub fn is_sign(&self, sign: char) -> bool {
        *self == Self::Sign(sign)
    }

    /// A name, quoted or not.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Plain(name) | Self::Quoted(name) => Some(name),
            _ => None,
        }
    }

    /// The inside of a text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A number as it is written.
    pub fn number(&self) -> Option<&str> {
        match self {
            Self::Number(digits) => Some(digits),
            _ => None,
        }
    }
}

/// The words of a statement; `None` when a quote in it is not closed.
pub(super) fn words(text: &str, mode: Mode) -> Option<Vec<Word>> {
    let mut lexer = Lexer { rest: text, mode, words: Vec::new() };
    while lexer.step()? {}
    Some(lexer.words)
}

struct Lexer<'a> {
    rest: &'a str,
    mode: Mode,
    words: Vec<Word>,
}

fn in_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '$' | '@') || c == char::REPLACEMENT_CHARACTER
}

impl Lexer<'_> {
    /// Takes one thing; whether there was one.
    fn step(&mut self) -> Option<bool> {
        self.rest = self.rest.trim_start_matches(|c: char| c.is_whitespace() || c.is_control());
        let Some(first) = self.rest.chars().next() else { return Some(false) };
        if self.comment() {
            return Some(true);
        }
        match first {
            '`' => {
                let name = self.quoted('`', false)?;
                self.words.push(Word::Quoted(name));
            }
            '"' if self.mode.ansi_quotes => {
                let name = self.quoted('"', false)?;
                self.words.push(Word::Quoted(name));
            }
            '\'' | '"' => {
                let text = self.quoted(first, !self.mode.plain_backslash)?;
                // Texts that follow each other are one.
                match self.words.last_mut() {
                    Some(Word::Text(before)) => before.push_str(&text),
                    _ => self.words.push(Word::Text(text)),
                }
            }
            first if in_word(first) => self.word(),
            first => {
                self.rest = &self.rest[first.len_utf8()..];
                self.words.push(Word::Sign(first));
            }
        }
        Some(true)
    }

    /// Passes over a comment, or over the borders of what looks like one and is run.
    fn comment(&mut self) -> bool {
        let rest = self.rest;
        let line = rest
            .strip_prefix('#')
            .or_else(|| rest.strip_prefix("--").filter(|rest| rest.is_empty() || rest.starts_with(|c: char| c <= ' ')));
        if let Some(line) = line {
            self.rest = line.split_once('\n').map_or("", |(_, rest)| rest);
            return true;
        }
        if let Some(rest) = rest.strip_prefix("*/") {
            self.rest = rest;
            return true;
        }
        let Some(inner) = rest.strip_prefix("/*") else { return false };
        // What a server did not run it has made a plain comment of before it wrote its log.
        let run = inner.strip_prefix('!').or_else(|| inner.strip_prefix("M!").filter(|_| self.mode.mariadb));
        self.rest = match run {
            Some(run) => run.trim_start_matches(|c: char| c.is_ascii_digit()),
            None => inner.split_once("*/").map_or("", |(_, rest)| rest),
        };
        true
    }

    fn quoted(&mut self, quote: char, escapes: bool) -> Option<String> {
        let mut text = String::new();
        let mut rest = self.rest[1..].chars();
        loop {
            match rest.next()? {
                '\\' if escapes => escaped(rest.next()?, &mut text),
                c if c == quote => {
                    if !rest.as_str().starts_with(quote) {
                        break;
                    }
                    rest.next();
                    text.push(quote);
                }
                c => text.push(c),
            }
        }
        self.rest = rest.as_str();
        Some(text)
    }

    /// A name, a key word or a number.
    fn word(&mut self) {
        // Behind a dot stands a name, whatever it begins with.
        let named = self.words.last().is_some_and(|word| word.is_sign('.'));
        let number = if named { 0 } else { number_length(self.rest) };
        let length = self.rest.find(|c: char| !in_word(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(length.max(number));
        self.words.push(if number >= length { Word::Number(word.to_owned()) } else { Word::Plain(word.to_owned()) });
        self.rest = rest;
    }
}

fn escaped(c: char, text: &mut String) {
    match c {
        '0' => text.push('\0'),
        'b' => text.push('\u{8}'),
        'n' => text.push('\n'),
        'r' => text.push('\r'),
        't' => text.push('\t'),
        'Z' => text.push('\u{1a}'),
        // Patterns keep theirs.
        '%' | '_' => text.extend(['\\', c]),
        c => text.push(c),
    }
}

/// How long the number is that a text begins with: `12`, `1.5`, `1e-3`; 0 when it begins with none.
fn number_length(text: &str) -> usize {
    let digits = |from: usize| text[from..].bytes().take_while(u8::is_ascii_digit).count();
    let mut length = digits(0);
    if length == 0 {
        return 0;
    }
    if text[length..].starts_with('.') {
        length += 1 + digits(length + 1);
    }
    if text[length..].starts_with(['e', 'E']) {
        let sign = usize::from(text[length + 1..].starts_with(['+', '-']));
        let exponent = digits(length + 1 + sign);
        length += if exponent > 0 { 1 + sign + exponent } else { 0 };
    }
    length
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn shown(text: &str, mode: Mode) -> Vec<String> {
        let shown = |word: &Word| match word {
            Word::Plain(word) => word.clone(),
            Word::Quoted(name) => format!("`{name}`"),
            Word::Text(text) => format!("'{text}'"),
            Word::Number(digits) => format!("#{digits}"),
            Word::Sign(sign) => sign.to_string(),
        };
        words(text, mode).unwrap().iter().map(shown).collect()
    }

    #[test]
    fn words_are_those_of_the_server() {
        let plain = Mode::default();
        let cases = [
            ("a -- b\n c # d\n/* e */ f--g", vec!["a", "c", "f", "-", "-", "g"]),
            ("/*!50100 a /*!b*/ c*/ d /*M! e */", vec!["a", "b", "c", "d"]),
            ("`a``b`.1c 1c 12 1.5e-3 .5 0x1F", vec!["`a`b`", ".", "1c", "1c", "#12", "#1.5e-3", ".", "5", "0x1F"]),
            (r#"'it''s' "a""b" "#, vec![r#"'it'sa"b'"#]),
            (r"'a\'b\\c\n\%' x", vec!["'a'b\\c\n\\%'", "x"]),
            ("decimal(10,2)", vec!["decimal", "(", "#10", ",", "#2", ")"]),
            ("größe", vec!["größe"]),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(text, plain), expected, "{text}");
        }
        let ansi = Mode { ansi_quotes: true, plain_backslash: true, mariadb: true, ..plain };
        assert_eq!(shown(r#""a" 'b\' /*M!100100 c*/"#, ansi), ["`a`", r"'b\'", "c"]);
        assert_eq!(words("'a", plain), None);
        assert_eq!(shown("a /* b", plain), ["a"]);
    }
}
