//! A YAML document as a tree that knows where everything stands, before any meaning is given to it.

use std::collections::BTreeMap;

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};

/// A place in a file; lines and columns count from 1. Line 0 is the command line (`--set`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At {
    pub line: u32,
    pub column: u32,
    /// Characters to underline.
    pub width: u32,
}

/// A value and where it stands.
#[derive(Clone)]
pub(super) struct Node {
    pub at: At,
    /// The last line that it covers.
    pub last_line: u32,
    pub value: Value,
}

/// What a node holds. Scalars keep their text: the schema decides what type it has.
#[derive(Clone)]
pub(super) enum Value {
    Null,
    /// A reference that could not be resolved: reported already, unknown to everything that follows.
    Unresolved,
    Scalar {
        text: String,
    },
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// The key of a mapping's entry.
#[derive(Clone)]
pub(super) struct Key {
    pub text: String,
    pub at: At,
}

/// Why a text is not a document.
pub(super) struct Malformed {
    pub at: At,
    pub message: String,
}

/// Aliases are copied out; more nodes than this are refused, so that a small file cannot become a huge one.
const MAX_NODES: usize = 100_000;
/// Deeper nesting is refused.
const MAX_DEPTH: usize = 64;

/// Reads the one document of `text`. Duplicate keys and the like are collected; only broken YAML stops the reading.
pub(super) fn parse(text: &str) -> Result<(Node, Vec<Malformed>), Malformed> {
    let mut reader =
        Reader { events: Parser::new_from_str(text), anchors: BTreeMap::new(), nodes: 0, mistakes: Vec::new() };
    let mut root = None;
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamEnd => break,
            Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
            _ if root.is_some() => {
                return Err(malformed(&span, "only one document per file; a second one begins here"));
            }
            event => root = Some(reader.node(event, span, 0)?),
        }
    }
    let empty = || Node { at: At { line: 1, column: 1, width: 1 }, last_line: 1, value: Value::Null };
    Ok((root.unwrap_or_else(empty), reader.mistakes))
}

struct Reader<'a> {
    events: Parser<'a, StrInput<'a>>,
    anchors: BTreeMap<usize, (Node, usize)>,
    nodes: usize,
    mistakes: Vec<Malformed>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Malformed> {
        match self.events.next() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(Malformed {
                at: At { line: error.marker().line() as u32, column: error.marker().col() as u32 + 1, width: 1 },
                message: format!("this is not YAML: {}", error.info()),
            }),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Malformed> {
        self.count(&span, 1)?;
        if depth > MAX_DEPTH {
            return Err(malformed(&span, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        let before = self.nodes;
        let (anchor, value) = match event {
            Event::Alias(id) => return self.alias(id, &span),
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(&span, tag.as_deref());
                (anchor, scalar(text.into_owned(), style == ScalarStyle::Plain))
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_tag(&span, tag.as_deref());
                (anchor, self.list(depth)?)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse_tag(&span, tag.as_deref());
                (anchor, self.map(depth)?)
            }
            _ => return Err(malformed(&span, "a value is missing here")),
        };
        let node = Node { at: at(&span), last_line: last_line(&span, &value), value };
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), self.nodes - before + 1));
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Value, Malformed> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, Malformed> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let text = match event {
                Event::MappingEnd => break,
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(malformed(&span, "a name is expected here")),
            };
            let key = Key { text, at: at(&span) };
            let (event, span) = self.next()?;
            let node = self.node(event, span, depth + 1)?;
            if key.text == "<<" {
                merged.push((key, node));
            } else if let Some((first, _)) = entries.iter().find(|(k, _)| k.text == key.text) {
                let message = format!("`{}` is written twice; first in line {}", key.text, first.at.line);
                self.mistakes.push(Malformed { at: key.at, message });
            } else {
                entries.push((key, node));
            }
        }
        for (key, node) in merged {
            self.merge(&mut entries, &key, node);
        }
        Ok(Value::Map(entries))
    }

    /// `<<: *other`: the other mapping's entries, where there are none of that name.
    fn merge(&mut self, entries: &mut Vec<(Key, Node)>, key: &Key, node: Node) {
        match node.value {
            Value::Map(others) => {
                for (other, node) in others {
                    if entries.iter().all(|(known, _)| known.text != other.text) {
                        entries.push((other, node));
                    }
                }
            }
            Value::List(nodes) => nodes.into_iter().for_each(|node| self.merge(entries, key, node)),
            _ => self.mistakes.push(Malformed { at: key.at, message: "`<<` takes a mapping to merge".into() }),
        }
    }

    fn alias(&mut self, id: usize, span: &Span) -> Result<Node, Malformed> {
        let found = self.anchors.get(&id).cloned();
        let (node, size) = found.ok_or_else(|| malformed(span, "this alias stands inside what it names"))?;
        self.count(span, size)?;
        Ok(node)
    }

    fn count(&mut self, span: &Span, more: usize) -> Result<(), Malformed> {
        self.nodes += more;
        if self.nodes > MAX_NODES {
            return Err(malformed(span, format!("more than {MAX_NODES} values in one file")));
        }
        Ok(())
    }

    fn refuse_tag(&mut self, span: &Span, tag: Option<&Tag>) {
        if tag.is_some_and(|tag| tag.core_suffix().is_none()) {
            self.mistakes.push(malformed(span, "tags (`!name`) mean nothing here"));
        }
    }
}

fn scalar(text: String, plain: bool) -> Value {
    if plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL") {
        return Value::Null;
    }
    Value::Scalar { text }
}

fn at(span: &Span) -> At {
    let one_line = span.start.line() == span.end.line();
    let width = if one_line { span.end.col().saturating_sub(span.start.col()).max(1) } else { 1 };
    At { line: span.start.line() as u32, column: span.start.col() as u32 + 1, width: width as u32 }
}

/// The span of a collection's start event ends where it begins; its last child knows better.
fn last_line(span: &Span, value: &Value) -> u32 {
    // A block scalar ends where the next line begins.
    let end = span.end.line() - usize::from(span.end.col() == 0 && span.end.line() > span.start.line());
    let own = end.max(span.start.line()) as u32;
    match value {
        Value::List(items) => items.last().map_or(own, |node| node.last_line.max(own)),
        Value::Map(entries) => entries.last().map_or(own, |(_, node)| node.last_line.max(own)),
        _ => own,
    }
}

fn malformed(span: &Span, message: impl Into<String>) -> Malformed {
    Malformed { at: at(span), message: message.into() }
}

impl Node {
    /// What it is, in words.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null | Value::Unresolved => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// The entry of that name, when this is a mapping that has one.
    pub fn get(&self, name: &str) -> Option<&Self> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(key, _)| key.text == name).map(|(_, node)| node),
            _ => None,
        }
    }

    /// Visits every node below (and this one) with its path and the place of its key.
    pub fn visit<'n>(&'n self, path: &str, key: At, see: &mut impl FnMut(&str, At, &'n Self)) {
        see(path, key, self);
        match &self.value {
            Value::List(items) => {
                for (i, item) in items.iter().enumerate() {
                    item.visit(&format!("{path}[{i}]"), item.at, see);
                }
            }
            Value::Map(entries) => {
                for (key, node) in entries {
                    node.visit(&join(path, &key.text), key.at, see);
                }
            }
            _ => {}
        }
    }
}

/// `path.name`.
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<(String, u32, u32)> {
        let (root, mistakes) = parse(text).ok().expect("YAML");
        assert!(mistakes.is_empty());
        let mut seen = Vec::new();
        root.visit("", root.at, &mut |path, _, node| seen.push((path.to_owned(), node.at.line, node.at.column)));
        seen
    }

    #[test]
    fn every_value_knows_its_place() {
        let seen = paths("a:\n  b: [x, 'y']\n  c: {d: 1}\n");
        let expected = [("", 1, 1), ("a", 2, 3), ("a.b", 2, 6), ("a.b[0]", 2, 7), ("a.b[1]", 2, 10)];
        for (path, line, column) in expected {
            assert!(seen.contains(&(path.to_owned(), line, column)), "{path} in {seen:?}");
        }
        assert!(seen.contains(&("a.c.d".to_owned(), 3, 10)), "{seen:?}");
    }

    #[test]
    fn aliases_and_merges_are_copied_and_bounded() {
        let (root, _) = parse("base: &b {x: 1, y: 2}\nmore: {<<: *b, y: 3}\n").ok().expect("YAML");
        let more = root.get("more").expect("there");
        assert!(matches!(&more.get("y").expect("own").value, Value::Scalar { text, .. } if text == "3"));
        assert!(matches!(&more.get("x").expect("merged").value, Value::Scalar { text, .. } if text == "1"));
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..9 {
            let item = format!("*a{}", i - 1);
            bomb.push_str(&format!("a{i}: &a{i} [{}]\n", vec![item; 10].join(", ")));
        }
        assert!(parse(&bomb).is_err_and(|e| e.message.contains("more than")));
    }

    #[test]
    fn duplicate_names_and_broken_text_are_mistakes() {
        let (_, mistakes) = parse("a: 1\nb: 2\na: 3\n").ok().expect("YAML");
        assert_eq!(mistakes.len(), 1);
        assert_eq!((mistakes[0].at.line, mistakes[0].at.column), (3, 1));
        assert!(parse("a: [1\nb: 2\n").is_err());
        assert!(parse("a: 1\n---\nb: 2\n").is_err_and(|e| e.at.line == 3));
    }
}
