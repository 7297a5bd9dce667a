//! Message keys: the names of the key columns, and the key of a delete.

use super::block::Blocks;
use super::scan::{Cursor, Token, fields};
use super::schema::{Described, WireColumn};
use super::utf8;

/// A record's key.
#[derive(Debug, Clone, Copy)]
pub(super) enum MessageKey<'a> {
    /// There is none.
    Absent,
    /// An object; under its schema block, if it has one.
    Fields { text: &'a str, block: Option<usize> },
    /// Something whose columns have no names.
    Unreadable,
}

impl<'a> MessageKey<'a> {
    /// Reads a key.
    pub fn read(bytes: Option<&'a [u8]>, blocks: &mut Blocks, hint: &mut usize) -> Self {
        let Some(bytes) = bytes.filter(|bytes| !bytes.is_empty()) else { return Self::Absent };
        let (found, text) = match blocks.find(bytes, *hint) {
            Some(found) => (Some(found), bytes.get(found.payload..).and_then(utf8)),
            None => {
                let text = utf8(bytes);
                let found = text.and_then(|text| blocks.learn(text));
                (found, text.and_then(|text| text.get(found.map_or(0, |found| found.payload)..)))
            }
        };
        let Some(text) = text else { return Self::Unreadable };
        let mut cursor = Cursor::new(text);
        let token = cursor.value();
        let ended = match found {
            Some(found) => found.whole || (cursor.take(b'}') && cursor.ended()),
            None => cursor.ended(),
        };
        let block = found.and_then(|found| found.block);
        *hint = block.unwrap_or(*hint);
        match token.filter(|_| ended) {
            Some(Token::Object(text)) => Self::Fields { text, block },
            Some(Token::Null) => Self::Absent,
            _ => Self::Unreadable,
        }
    }

    /// The fields' text, for what reads them one by one.
    pub fn text(&self) -> &'a str {
        match self {
            Self::Fields { text, .. } => text,
            Self::Absent | Self::Unreadable => "{}",
        }
    }

    /// The columns that the key's own schema block describes.
    pub fn wires<'b>(&self, blocks: &'b Blocks) -> &'b [WireColumn] {
        match self {
            Self::Fields { block: Some(block), .. } => match blocks.described(*block) {
                Described::Row(wires) => wires,
                _ => &[],
            },
            _ => &[],
        }
    }

    /// The names of its fields, in order.
    pub fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        let _malformed_has_no_names = fields(self.text(), |name, _| {
            let mut scratch = String::new();
            names.extend(name.decode(&mut scratch).map(str::to_owned));
        });
        names
    }

    /// Whether its fields are exactly `key`, in any order.
    #[inline]
    pub fn is_of(&self, key: &[String]) -> bool {
        let mut count = 0;
        let mut all = true;
        let read = fields(self.text(), |name, _| {
            let at = key.get(count).filter(|k| k.as_str() == name.raw);
            all &= at.is_some() || known(key, name);
            count += 1;
        });
        read.is_some() && all && count == key.len()
    }

    /// The field of that name.
    pub fn field(&self, wanted: &str) -> Option<Token<'a>> {
        field(self.text(), wanted)
    }
}

fn known(key: &[String], name: super::scan::Text<'_>) -> bool {
    let mut scratch = String::new();
    name.decode(&mut scratch).is_some_and(|name| key.iter().any(|k| k == name))
}

/// The field `wanted` of the object `text`.
pub(super) fn field<'a>(text: &'a str, wanted: &str) -> Option<Token<'a>> {
    let mut found = None;
    let mut scratch = String::new();
    fields(text, |name, token| {
        if name.decode(&mut scratch) == Some(wanted) {
            found = Some(token);
        }
    })?;
    found
}
