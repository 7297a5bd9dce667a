//! A file as mistakes point into it: where every path stands, and its lines with secrets blanked out.

use std::collections::BTreeMap;

use super::document::{At, Node, Value};
use super::mistake::Mistake;

/// Where a value and its key stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub key: At,
    pub value: At,
}

/// One file.
#[derive(Clone)]
pub(super) struct Sheet {
    /// The file as it was named.
    pub name: String,
    /// Its lines, secrets blanked out.
    lines: Vec<String>,
    places: BTreeMap<String, Place>,
    /// What was written (or came from a reference) in places that hold secrets, and what to print instead.
    secrets: Vec<(String, String)>,
}

impl Sheet {
    /// A file whose YAML is broken: nothing is known of what its lines hold, so none is shown.
    pub fn unread(name: &str) -> Self {
        Self { name: name.to_owned(), lines: Vec::new(), places: BTreeMap::new(), secrets: Vec::new() }
    }

    /// Indexes a parsed file.
    pub fn new(name: &str, text: &str, root: &Node) -> Self {
        let mut sheet = Self { lines: text.lines().map(str::to_owned).collect(), ..Self::unread(name) };
        sheet.index("", At { line: 1, column: 1, width: 1 }, root);
        sheet
    }

    /// Notes the places of `node` and everything below it, and blanks out what is secret there.
    pub fn index(&mut self, path: &str, key: At, node: &Node) {
        node.visit(path, key, &mut |path, key, node| {
            self.places.insert(path.to_owned(), Place { key, value: node.at });
            let Value::Scalar { text, .. } = &node.value else { return };
            let inline = ["password=", "secret=", "token="].iter().any(|word| text.contains(word));
            if (is_secret(path) || inline) && !is_reference(text) {
                self.blank(node.at, node.last_line, None);
                self.hide(text, "***");
            } else if let Some(password) = url_password(text) {
                self.blank(node.at, node.last_line, Some(password));
                self.hide(password, "***");
            }
        });
    }

    /// Never prints `secret`; `instead` stands there.
    pub fn hide(&mut self, secret: &str, instead: &str) {
        // Replacing one or two characters would garble every message and hides nothing.
        if secret.len() > 2 {
            self.secrets.push((secret.to_owned(), instead.to_owned()));
            self.secrets.sort_by_key(|(secret, _)| std::cmp::Reverse(secret.len()));
        }
    }

    fn blank(&mut self, at: At, last_line: u32, only: Option<&str>) {
        for number in at.line..=last_line.max(at.line) {
            let Some(line) = (number as usize).checked_sub(1).and_then(|i| self.lines.get_mut(i)) else { continue };
            if let Some(part) = only.filter(|part| line.contains(*part)) {
                *line = line.replace(part, &"*".repeat(part.chars().count()));
                continue;
            }
            let (from, to) = if number > at.line || last_line > at.line {
                (if number == at.line { at.column as usize - 1 } else { 0 }, usize::MAX)
            } else {
                (at.column as usize - 1, (at.column + at.width) as usize - 1)
            };
            *line = line
                .chars()
                .enumerate()
                .map(|(i, c)| if (from..to).contains(&i) && !c.is_whitespace() { '*' } else { c })
                .collect();
        }
    }

    /// Where `path` stands, or the nearest thing around it that does.
    pub fn place(&self, path: &str) -> Place {
        let mut path = path;
        loop {
            if let Some(place) = self.places.get(path) {
                return *place;
            }
            let Some(end) = path.rfind(['.', '[']) else { break };
            path = &path[..end];
        }
        self.places.get("").copied().unwrap_or(Place { key: ROOT, value: ROOT })
    }

    /// Where `path` stands exactly.
    pub fn exact(&self, path: &str) -> Option<Place> {
        self.places.get(path).copied()
    }

    /// The place `offset` bytes into the value at `path`, as far as the value stands in the file as it is read.
    pub fn inside(&self, path: &str, text: &str, offset: usize) -> At {
        let at = self.place(path).value;
        let rest = text.get(offset..).unwrap_or_default();
        // A block scalar (`|`, `>`) begins below its marker: look for the text's own line.
        let before = text.get(..offset).unwrap_or_default();
        let word = |text: &str| text.lines().next().unwrap_or_default().to_owned();
        let (line_start, wanted) = match before.rfind('\n') {
            Some(newline) => (newline + 1, word(&text[newline + 1..])),
            None => (0, word(text)),
        };
        for number in at.line..at.line + 2 + before.matches('\n').count() as u32 {
            let Some(line) = (number as usize).checked_sub(1).and_then(|i| self.lines.get(i)) else { break };
            let from = if number == at.line { at.column as usize - 1 } else { 0 };
            let tail: String = line.chars().skip(from).collect();
            if let Some(found) = tail.find(&wanted).filter(|_| !wanted.is_empty()) {
                let column = from + tail[..found].chars().count() + text[line_start..offset].chars().count() + 1;
                let width = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').count().max(1);
                return At { line: number, column: column as u32, width: width as u32 };
            }
        }
        at
    }

    /// A mistake at a place of this file.
    pub fn mistake(&self, at: At, path: &str, message: impl Into<String>, help: Option<String>) -> Mistake {
        let source = (at.line as usize).checked_sub(1).and_then(|i| self.lines.get(i)).cloned();
        Mistake {
            file: self.name.clone(),
            line: at.line,
            column: at.column,
            path: path.to_owned(),
            message: self.redact(message.into()),
            help: help.map(|help| self.redact(help)),
            source,
            width: at.width,
        }
    }

    fn redact(&self, text: String) -> String {
        self.secrets.iter().fold(text, |text, (secret, instead)| text.replace(secret.as_str(), instead))
    }
}

const ROOT: At = At { line: 1, column: 1, width: 1 };

/// Whether the field at `path` holds something that must not be printed.
pub(super) fn is_secret(path: &str) -> bool {
    let name = path.rsplit('.').next().unwrap_or(path).to_ascii_lowercase();
    let words = ["password", "secret", "token", "passphrase", "credential"];
    name == "key" || name == "access_key_id" || name == "pem" || words.iter().any(|word| name.contains(word))
}

/// Whether the whole value is a reference without a default: it shows where a secret is, not what it is.
fn is_reference(text: &str) -> bool {
    let named = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    named.is_some_and(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')) || text.starts_with("file:")
}

/// The password of `scheme://user:password@host`.
pub(super) fn url_password(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (user, _) = authority.rsplit_once('@')?;
    user.split_once(':').map(|(_, password)| password).filter(|p| !p.is_empty() && !p.starts_with("${"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::document::parse;

    #[test]
    fn lines_are_shown_without_their_secrets() {
        let text = "sasl: { mechanism: PLAIN, username: me, password: hunter22, x: 1 }\nurl: postgres://me:hunter33@h/d\nkey: |\n  line-one\n  line-two\nother: 1\n";
        let (root, _) = parse(text).ok().expect("YAML");
        let sheet = Sheet::new("t.yaml", text, &root);
        let shown = sheet.lines.join("\n");
        assert!(!shown.contains("hunter") && !shown.contains("line-"), "{shown}");
        assert!(shown.contains("password: ********, x: 1") && shown.contains("postgres://me:********@h/d"), "{shown}");
        assert!(shown.ends_with("other: 1"), "{shown}");
        let mistake = sheet.mistake(ROOT, "", "cannot use hunter22 or line-one\nline-two\n", None);
        assert!(!mistake.to_string().contains("hunter"));
    }

    #[test]
    fn offsets_are_found_inside_values() {
        let text = "a: \"x >= y\"\nb: |\n  first\n  second z\nc: plain\n";
        let (root, _) = parse(text).ok().expect("YAML");
        let sheet = Sheet::new("t.yaml", text, &root);
        let at = sheet.inside("a", "x >= y", 5);
        assert_eq!((at.line, at.column), (1, 10));
        let at = sheet.inside("b", "first\nsecond z\n", 13);
        assert_eq!((at.line, at.column), (4, 10));
        assert_eq!(sheet.place("c.not.there").value.line, 5);
        assert_eq!(sheet.exact("c.not"), None);
    }
}
