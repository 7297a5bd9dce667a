//! Partial updates of JSON: a list of changes, applied to the document of the old row.
//!
//! ```text
//! (op u8 | path, behind its length | value, behind its length, unless it is a removal)*
//! ```
//!
//! The server logs what it did, on the document that the old row has: whatever does not fit that document is refused, for
//! then it is another document.

use super::json::{self, Binary, Budget, DAMAGED};
use crate::decode::debezium::value::Why;

const OTHER: Why = "its JSON is sent as a difference that does not fit the old row's document; set \
                    binlog_row_value_options='' at the server, and update the row once";
const DEPTH: usize = 128;

type Got<T> = Result<T, Why>;

/// A document that can be changed; what is not touched stays in its bytes.
enum Node<'a> {
    Object(Vec<(&'a str, Node<'a>)>),
    Array(Vec<Node<'a>>),
    Kept(Binary<'a>),
}

/// A step of a path.
#[derive(Debug, PartialEq, Eq)]
enum Leg {
    Member(String),
    Cell(usize),
}

/// Appends the text of the document `old` after the changes in `diffs`.
pub(super) fn apply(old: &[u8], diffs: &[u8], out: &mut String) -> Got<()> {
    let (mut root, mut rest) = (Node::Kept(Binary::document(old)), diffs);
    // Paths outlive the nodes that take their names.
    let mut changes = Vec::new();
    while !rest.is_empty() {
        changes.push(Change::read(&mut rest)?);
    }
    for change in &changes {
        change.apply(&mut root)?;
    }
    let mut budget = Budget(old.len().max(1) + diffs.len());
    write(&root, &mut budget, 0, out)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Replace,
    Insert,
    Remove,
}

struct Change<'a> {
    op: Op,
    legs: Vec<Leg>,
    value: Option<Binary<'a>>,
}

impl<'a> Change<'a> {
    fn read(rest: &mut &'a [u8]) -> Got<Self> {
        let (op, after) = rest.split_first().ok_or(DAMAGED)?;
        *rest = after;
        let op = match op {
            0 => Op::Replace,
            1 => Op::Insert,
            2 => Op::Remove,
            _ => return Err(DAMAGED),
        };
        let path = simdutf8::basic::from_utf8(counted(rest)?).map_err(|_| DAMAGED)?;
        let value = if op == Op::Remove { None } else { Some(Binary::document(counted(rest)?)) };
        Ok(Self { op, legs: legs(path)?, value })
    }

    fn apply<'n>(&'n self, root: &mut Node<'n>) -> Got<()>
    where
        'a: 'n,
    {
        let new = || self.value.map(Node::Kept).ok_or(DAMAGED);
        let Some((last, parents)) = self.legs.split_last() else {
            if self.op != Op::Replace {
                return Err(OTHER);
            }
            *root = new()?;
            return Ok(());
        };
        let mut parent = root;
        for leg in parents {
            parent = parent.open()?.child(leg).ok_or(OTHER)?;
        }
        match (parent.open()?, last, self.op) {
            (Node::Object(members), Leg::Member(name), Op::Insert) => {
                // Members are in order of their length, then of their bytes.
                let at = members.binary_search_by(|(key, _)| (key.len(), *key).cmp(&(name.len(), name.as_str())));
                let at = at.err().ok_or(OTHER)?;
                members.insert(at, (name, new()?));
            }
            (Node::Array(cells), Leg::Cell(at), Op::Insert) => {
                let at = (*at).min(cells.len());
                cells.insert(at, new()?);
            }
            (Node::Object(members), Leg::Member(name), Op::Remove) => {
                let at = members.iter().position(|(key, _)| key == name).ok_or(OTHER)?;
                members.remove(at);
            }
            (Node::Array(cells), Leg::Cell(at), Op::Remove) if *at < cells.len() => {
                cells.remove(*at);
            }
            (node, leg, Op::Replace) => *node.child(leg).ok_or(OTHER)? = new()?,
            _ => return Err(OTHER),
        }
        Ok(())
    }
}

impl<'a> Node<'a> {
    /// Opens what is still in its bytes, one level deep.
    fn open(&mut self) -> Got<&mut Self> {
        if let Self::Kept(binary) = self
            && let Some(container) = binary.container()?
        {
            // Each entry takes more than a byte, so that a count cannot promise more than there is.
            let children = (0..container.count).map(|at| container.value(at).map(Node::Kept));
            *self = if container.is_object {
                let entries = children.enumerate().map(|(at, child)| Ok((container.key(at)?, child?)));
                Self::Object(entries.collect::<Got<_>>()?)
            } else {
                Self::Array(children.collect::<Got<_>>()?)
            };
        }
        Ok(self)
    }

    fn child(&mut self, leg: &Leg) -> Option<&mut Self> {
        match (self, leg) {
            (Self::Object(members), Leg::Member(name)) => {
                members.iter_mut().find(|(key, _)| key == name).map(|(_, node)| node)
            }
            (Self::Array(cells), Leg::Cell(at)) => cells.get_mut(*at),
            _ => None,
        }
    }
}

fn write(node: &Node<'_>, budget: &mut Budget, depth: usize, out: &mut String) -> Got<()> {
    if depth > DEPTH {
        return Err(DAMAGED);
    }
    match node {
        Node::Kept(binary) => json::value(*binary, budget, depth, out)?,
        Node::Object(members) => {
            out.push('{');
            for (at, (key, node)) in members.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                json::quote(key, out);
                out.push_str(": ");
                write(node, budget, depth + 1, out)?;
            }
            out.push('}');
        }
        Node::Array(cells) => {
            out.push('[');
            for (at, node) in cells.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                write(node, budget, depth + 1, out)?;
            }
            out.push(']');
        }
    }
    Ok(())
}

/// Bytes behind their length, as the log writes it.
fn counted<'a>(rest: &mut &'a [u8]) -> Got<&'a [u8]> {
    let (first, after) = rest.split_first().ok_or(DAMAGED)?;
    let size = match first {
        0..=250 => 0,
        252 => 2,
        253 => 3,
        254 => 8,
        _ => return Err(DAMAGED),
    };
    let (length, after) = after.split_at_checked(size).ok_or(DAMAGED)?;
    let length = if size == 0 { u64::from(*first) } else { crate::wire::mysqltype::little_endian(length) };
    let length = usize::try_from(length).map_err(|_| DAMAGED)?;
    let (bytes, after) = after.split_at_checked(length).ok_or(DAMAGED)?;
    *rest = after;
    Ok(bytes)
}

/// The steps of `$.a."b c"[2]`.
fn legs(path: &str) -> Got<Vec<Leg>> {
    let mut rest = path.strip_prefix('$').ok_or(DAMAGED)?;
    let mut legs = Vec::new();
    while !rest.is_empty() {
        if let Some(cell) = rest.strip_prefix('[') {
            let (number, after) = cell.split_once(']').ok_or(DAMAGED)?;
            legs.push(Leg::Cell(number.trim().parse().map_err(|_| DAMAGED)?));
            rest = after;
        } else {
            let member = rest.strip_prefix('.').ok_or(DAMAGED)?;
            if member.starts_with('"') {
                let end = quoted_end(member).ok_or(DAMAGED)?;
                legs.push(Leg::Member(serde_json::from_str(&member[..end]).map_err(|_| DAMAGED)?));
                rest = &member[end..];
            } else {
                let end = member.find(['.', '[']).unwrap_or(member.len());
                legs.push(Leg::Member(member[..end].to_owned()));
                rest = &member[end..];
            }
        }
    }
    Ok(legs)
}

/// Where the quoted text that `text` begins with ends.
fn quoted_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart() {
        let member = |name: &str| Leg::Member(name.to_owned());
        assert_eq!(legs("$"), Ok(vec![]));
        assert_eq!(legs("$.a[2].\"b \\\"c.\"[0]"), Ok(vec![member("a"), Leg::Cell(2), member("b \"c."), Leg::Cell(0)]));
        for bad in ["", "a", "$a", "$[x]", "$[", "$.\"a", "$.a\"["] {
            assert!(legs(bad).is_err(), "{bad}");
        }
    }
}
