//! Schema blocks are the same for thousands of messages: each is read once, remembered as bytes, and later only compared.

use super::row::Layout;
use super::scan::{Cursor, Token};
use super::schema::{Described, describe};

/// The most blocks that are remembered.
const LIMIT: usize = 256;
const OPEN: &[u8] = b"{\"schema\":";
const PAYLOAD: &[u8] = b",\"payload\":";

/// A schema block and what was made of it.
#[derive(Debug)]
pub(super) struct Block {
    schema: Vec<u8>,
    pub described: Described,
    /// How its rows are read: for which table, at which state of its contract.
    pub layout: Option<(usize, u64, Layout)>,
}

/// All blocks seen.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    list: Vec<Block>,
    oldest: usize,
}

/// A message that wraps its payload: under which schema block, if it has one, and where the payload begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub block: Option<usize>,
    pub payload: usize,
    /// Whether the message was seen to end well; else the payload must be followed by one closing brace.
    pub whole: bool,
}

impl Blocks {
    pub fn get(&self, index: usize) -> &Block {
        &self.list[index]
    }

    pub fn get_mut(&mut self, index: usize) -> &mut Block {
        &mut self.list[index]
    }

    pub fn described(&self, index: usize) -> &Described {
        &self.list[index].described
    }

    /// Recognises a block that was seen before, by its bytes; `hint` is tried first.
    #[inline]
    pub fn find(&self, message: &[u8], hint: usize) -> Option<Found> {
        let rest = message.strip_prefix(OPEN)?;
        let is = |index: &usize| {
            let Some(block) = self.list.get(*index) else { return false };
            rest.strip_prefix(block.schema.as_slice()).is_some_and(|rest| rest.starts_with(PAYLOAD))
        };
        let found = Some(hint).filter(is).or_else(|| (0..self.list.len()).find(is))?;
        let payload = OPEN.len() + self.list[found].schema.len() + PAYLOAD.len();
        Some(Found { block: Some(found), payload, whole: false })
    }

    /// Reads a message that may be `{"schema":…,"payload":…}`: those two and nothing else, or (the schema was taken out
    /// on the way) the payload alone. Remembers the block.
    pub fn learn(&mut self, message: &str) -> Option<Found> {
        let mut cursor = Cursor::new(message);
        let (mut schema, mut payload) = (None, None);
        if !cursor.take(b'{') {
            return None;
        }
        loop {
            let name = cursor.name()?;
            if !matches!(name.raw, "schema" | "payload") {
                return None;
            }
            cursor.peek()?;
            let from = cursor.place();
            let token = cursor.value()?;
            match (name.raw, token) {
                ("schema", Token::Object(_) | Token::Null) if schema.is_none() => schema = Some(cursor.slice(from)),
                ("payload", Token::Object(_) | Token::Null) if payload.is_none() => payload = Some(from),
                _ => return None,
            }
            if !cursor.more(b'}')? {
                break;
            }
        }
        let payload = payload?;
        let Some(schema) = schema else {
            return cursor.ended().then_some(Found { block: None, payload, whole: true });
        };
        let known = self.list.iter().position(|block| block.schema == schema.as_bytes());
        let block = match known {
            Some(block) => block,
            None => {
                self.remember(Block { schema: schema.as_bytes().to_vec(), described: describe(schema)?, layout: None })
            }
        };
        cursor.ended().then_some(Found { block: Some(block), payload, whole: true })
    }

    fn remember(&mut self, block: Block) -> usize {
        if self.list.len() < LIMIT {
            self.list.push(block);
            return self.list.len() - 1;
        }
        self.oldest = (self.oldest + 1) % LIMIT;
        self.list[self.oldest] = block;
        self.oldest
    }
}
