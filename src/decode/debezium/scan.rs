//! A scanner over JSON text that is known to be UTF-8. It finds where values end and hands out slices; what is never
//! looked at (`before`, most of `source`) costs one pass over its bytes and no allocation.
//!
//! Skipped parts are not checked against the grammar beyond strings and brackets; what reaches a column is.

use std::fmt::Write as _;

/// A JSON value, not yet interpreted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::decode) enum Token<'a> {
    Null,
    Bool(bool),
    /// The characters of a number, not yet checked against the grammar.
    Number(&'a str),
    Text(Text<'a>),
    /// The raw text of an object.
    Object(&'a str),
    /// The raw text of an array.
    Array(&'a str),
}

/// The inside of a JSON string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::decode) struct Text<'a> {
    pub raw: &'a str,
    pub escaped: bool,
}

impl<'a> Text<'a> {
    /// The text itself; `scratch` is used only when there are escapes. `None` for a bad escape or half a surrogate.
    #[inline]
    pub fn decode<'s>(&self, scratch: &'s mut String) -> Option<&'s str>
    where
        'a: 's,
    {
        if !self.escaped {
            return Some(self.raw);
        }
        scratch.clear();
        unescape(self.raw, scratch)?;
        Some(scratch)
    }
}

impl Token<'_> {
    /// What the value looks like, for messages: never the value itself.
    pub fn shape(&self) -> String {
        let mut out = String::new();
        let _infallible = match self {
            Self::Null => write!(out, "null"),
            Self::Bool(_) => write!(out, "a boolean"),
            Self::Number(text) if text.bytes().all(|b| b.is_ascii_digit() || b == b'-') => {
                write!(out, "a whole number of {} digits", text.trim_start_matches('-').len())
            }
            Self::Number(_) => write!(out, "a number with a fraction or an exponent"),
            Self::Text(text) => write!(out, "a text of {} characters", text.raw.chars().count()),
            Self::Object(_) => write!(out, "an object"),
            Self::Array(_) => write!(out, "an array"),
        };
        out
    }
}

/// A place in a JSON text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub fn at(text: &'a str, at: usize) -> Self {
        Self { text, at }
    }

    pub fn place(&self) -> usize {
        self.at
    }

    pub fn slice(&self, from: usize) -> &'a str {
        self.text.get(from..self.at).unwrap_or_default()
    }

    #[inline]
    fn bytes(&self) -> &'a [u8] {
        self.text.as_bytes()
    }

    #[inline]
    pub fn space(&mut self) {
        while let Some(byte) = self.bytes().get(self.at) {
            // One comparison says no for nearly every byte.
            if *byte > b' ' || !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return;
            }
            self.at += 1;
        }
    }

    /// The next byte that is not white space, not taken.
    #[inline]
    pub fn peek(&mut self) -> Option<u8> {
        self.space();
        self.bytes().get(self.at).copied()
    }

    /// Takes `byte` if it is next.
    #[inline]
    pub fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Takes these exact bytes if they are next, white space not skipped.
    #[inline]
    pub fn take_literal(&mut self, literal: &str) -> bool {
        let end = self.at + literal.len();
        let found = self.bytes().get(self.at..end).is_some_and(|b| b == literal.as_bytes());
        if found {
            self.at = end;
        }
        found
    }

    /// Whether only white space is left.
    pub fn ended(&mut self) -> bool {
        self.peek().is_none()
    }

    /// A field's name and its colon.
    pub fn name(&mut self) -> Option<Text<'a>> {
        if !self.take(b'"') {
            return None;
        }
        let name = self.text_inside()?;
        self.take(b':').then_some(name)
    }

    #[inline]
    fn text_inside(&mut self) -> Option<Text<'a>> {
        let from = self.at;
        let (end, escaped) = string_end(self.bytes(), from)?;
        self.at = end + 1;
        Some(Text { raw: self.text.get(from..end)?, escaped })
    }

    /// After a value: whether another field or element follows. `None` when neither a comma nor `close` is there.
    #[inline]
    pub fn more(&mut self, close: u8) -> Option<bool> {
        let next = self.peek()?;
        self.at += 1;
        match next {
            b',' => Some(true),
            _ if next == close => Some(false),
            _ => None,
        }
    }

    /// Any value.
    #[inline]
    pub fn value(&mut self) -> Option<Token<'a>> {
        let first = self.peek()?;
        match first {
            b'"' => {
                self.at += 1;
                Some(Token::Text(self.text_inside()?))
            }
            b'-' | b'0'..=b'9' => Some(Token::Number(self.number())),
            b'n' => self.take_literal("null").then_some(Token::Null),
            b't' => self.take_literal("true").then_some(Token::Bool(true)),
            b'f' => self.take_literal("false").then_some(Token::Bool(false)),
            b'{' | b'[' => {
                let from = self.at;
                self.at = nested_end(self.bytes(), from)?;
                let raw = self.text.get(from..self.at)?;
                Some(if first == b'{' { Token::Object(raw) } else { Token::Array(raw) })
            }
            _ => None,
        }
    }

    /// Takes a whole number of at most eighteen digits if it is next and a comma or a brace follows at once.
    #[inline]
    pub fn take_whole(&mut self) -> Option<i64> {
        let rest = self.bytes().get(self.at..)?;
        if !matches!(rest.first(), Some(b'-' | b'0'..=b'9')) {
            return None;
        }
        let digits = rest.strip_prefix(b"-").unwrap_or(rest);
        let (mut value, mut count) = (0, 0);
        while let Some(eight) = digits.get(count..).and_then(<[u8]>::first_chunk::<8>).filter(|eight| are_digits(eight))
        {
            if count > 8 {
                return None;
            }
            value = value * 100_000_000 + eight_digits(eight);
            count += 8;
        }
        while let Some(digit @ b'0'..=b'9') = digits.get(count) {
            if count == 18 {
                return None;
            }
            value = value * 10 + i64::from(digit - b'0');
            count += 1;
        }
        let whole = count == 1 || (count > 1 && digits.first() != Some(&b'0'));
        if !whole || !matches!(digits.get(count), Some(b',' | b'}')) {
            return None;
        }
        let negative = digits.len() != rest.len();
        self.at += count + usize::from(negative);
        Some(if negative { -value } else { value })
    }

    #[inline]
    fn number(&mut self) -> &'a str {
        let from = self.at;
        while self.bytes().get(self.at..).and_then(<[u8]>::first_chunk::<8>).is_some_and(are_digits) {
            self.at += 8;
        }
        while let Some(b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E') = self.bytes().get(self.at) {
            self.at += 1;
        }
        self.slice(from)
    }
}

/// Text that is expected, so that it is compared a word at a time where it is short.
#[derive(Debug)]
pub(super) struct Literal {
    head: u128,
    mask: u128,
    text: String,
}

impl Literal {
    pub fn new(text: String) -> Self {
        let mut head = [0; 16];
        let length = text.len().min(16);
        head[..length].copy_from_slice(&text.as_bytes()[..length]);
        let mask = if length == 16 { u128::MAX } else { (1 << (8 * length)) - 1 };
        Self { head: u128::from_le_bytes(head), mask, text }
    }
}

impl Cursor<'_> {
    /// Takes the expected text if it is next, white space not skipped.
    #[inline]
    pub fn take_expected(&mut self, literal: &Literal) -> bool {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let found = match rest.first_chunk::<16>() {
            Some(chunk) if u128::from_le_bytes(*chunk) & literal.mask != literal.head => false,
            Some(_) if literal.text.len() <= 16 => true,
            _ => rest.starts_with(literal.text.as_bytes()),
        };
        self.at += if found { literal.text.len() } else { 0 };
        found
    }
}

/// Calls `each` for every field of the object `text`. `None` when it is not one object and nothing else.
pub(super) fn fields<'a>(text: &'a str, mut each: impl FnMut(Text<'a>, Token<'a>)) -> Option<()> {
    let mut cursor = Cursor::new(text);
    if !cursor.take(b'{') {
        return None;
    }
    if !cursor.take(b'}') {
        loop {
            let name = cursor.name()?;
            each(name, cursor.value()?);
            if !cursor.more(b'}')? {
                break;
            }
        }
    }
    cursor.ended().then_some(())
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Marks the bytes of `word` that are zero; exact up to the first one.
#[inline]
fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGHS
}

/// Whether all eight bytes are decimal digits.
#[inline]
pub(super) fn are_digits(bytes: &[u8; 8]) -> bool {
    let value = u64::from_le_bytes(*bytes) ^ (ONES * u64::from(b'0'));
    // Digits are now 0 to 9; anything else has a high bit or gets one.
    (value | value.wrapping_add(ONES * 0x76)) & HIGHS == 0
}

/// The number that eight digits spell: neighbours are joined to pairs, pairs to fours, fours to the whole.
#[inline]
pub(super) fn eight_digits(digits: &[u8; 8]) -> i64 {
    const PAIRS: u64 = 0x00FF_00FF_00FF_00FF;
    const FOURS: u64 = 0x0000_FFFF_0000_FFFF;
    let ones = u64::from_le_bytes(*digits) & 0x0F0F_0F0F_0F0F_0F0F;
    let pairs = (ones & PAIRS) * 10 + (ones >> 8 & PAIRS);
    let fours = (pairs & FOURS) * 100 + (pairs >> 16 & FOURS);
    ((fours & 0xFFFF_FFFF) * 10_000 + (fours >> 32)) as i64
}

/// The index of the closing quote of a string whose inside begins at `at`, and whether it has escapes.
#[inline(always)]
fn string_end(bytes: &[u8], mut at: usize) -> Option<(usize, bool)> {
    let mut escaped = false;
    loop {
        while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
            let word = u64::from_le_bytes(*chunk);
            let hit = zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * u64::from(b'\\')));
            if hit != 0 {
                at += (hit.trailing_zeros() / 8) as usize;
                break;
            }
            at += 8;
        }
        match bytes.get(at)? {
            b'"' => return Some((at, escaped)),
            b'\\' => {
                escaped = true;
                at += 2;
            }
            _ => at += 1,
        }
    }
}

/// Bytes that are surveyed at once: a vector of nearly any machine.
const LANES: usize = 16;

/// Writes a one to `special` for every backslash or bracket of a block, and to `quotes` for every quote.
///
/// Without branches, alone and through memory: the compiler makes vector instructions of this form, and of few others.
#[inline(never)]
fn survey(block: &[u8; LANES], special: &mut [u8; LANES], quotes: &mut [u8; LANES]) {
    for (special, byte) in special.iter_mut().zip(block) {
        let bracket = byte | 0x20;
        *special = u8::from(*byte == b'\\') | u8::from(bracket == b'{') | u8::from(bracket == b'}');
    }
    for (quote, byte) in quotes.iter_mut().zip(block) {
        *quote = u8::from(*byte == b'"');
    }
}

/// Whether two blocks hold a backslash or a bracket, and whether the number of their quotes is odd.
#[inline(never)]
fn survey_two(blocks: &[u8; 2 * LANES]) -> (bool, bool) {
    let (mut special, mut quotes) = ([0u8; LANES], [0u8; LANES]);
    for block in blocks.as_chunks::<LANES>().0 {
        for ((special, quotes), byte) in special.iter_mut().zip(&mut quotes).zip(block) {
            let bracket = byte | 0x20;
            *special |= u8::from(*byte == b'\\') | u8::from(bracket == b'{') | u8::from(bracket == b'}');
            *quotes ^= u8::from(*byte == b'"');
        }
    }
    (u128::from_le_bytes(special) != 0, u128::from_le_bytes(quotes).count_ones() % 2 == 1)
}

/// Whether the number of ones is odd, in bytes that are one or zero.
fn odd(ones: u128) -> bool {
    let halves = (ones >> 64) as u64 ^ ones as u64;
    halves.wrapping_mul(ONES) >> 56 & 1 == 1
}

/// The index behind the bracket that closes the one at `at`. What has neither backslashes nor brackets is passed in
/// blocks: only whether they end inside a string matters.
fn nested_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 1usize;
    let mut inside = false;
    at += 1;
    loop {
        let rest = bytes.get(at..)?;
        if let Some(blocks) = rest.first_chunk::<{ 2 * LANES }>()
            && let (false, odd) = survey_two(blocks)
        {
            inside ^= odd;
            at += 2 * LANES;
            continue;
        }
        let Some(block) = rest.first_chunk::<LANES>() else { return nested_tail(bytes, at, depth, inside) };
        let (mut special, mut quotes) = ([0; LANES], [0; LANES]);
        survey(block, &mut special, &mut quotes);
        let (special, quotes) = (u128::from_le_bytes(special), u128::from_le_bytes(quotes));
        // Up to the first special byte, or all of it.
        let lanes = special.trailing_zeros() / 8;
        inside ^= odd(if special == 0 { quotes } else { quotes & ((1 << (8 * lanes)) - 1) });
        at += lanes as usize;
        if special == 0 {
            continue;
        }
        if inside {
            at = string_end(bytes, at)?.0 + 1;
            inside = false;
            continue;
        }
        match bytes.get(at)? {
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 1 => return Some(at + 1),
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
}

/// The same for the last few bytes of a text, one by one.
#[cold]
fn nested_tail(bytes: &[u8], mut at: usize, mut depth: usize, inside: bool) -> Option<usize> {
    if inside {
        at = string_end(bytes, at)?.0 + 1;
    }
    loop {
        match bytes.get(at)? {
            b'"' => at = string_end(bytes, at + 1)?.0,
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 1 => return Some(at + 1),
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
}

fn unescape(raw: &str, out: &mut String) -> Option<()> {
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        out.push_str(&rest[..at]);
        let kind = *rest.as_bytes().get(at + 1)?;
        let mut used = 2;
        match kind {
            b'"' | b'\\' | b'/' => out.push(char::from(kind)),
            b'b' => out.push('\u{8}'),
            b'f' => out.push('\u{c}'),
            b'n' => out.push('\n'),
            b'r' => out.push('\r'),
            b't' => out.push('\t'),
            b'u' => {
                let high = hex4(rest, at + 2)?;
                used = 6;
                let code = if (0xD800..0xDC00).contains(&high) {
                    let low = (rest.get(at + 6..at + 8)? == "\\u").then(|| hex4(rest, at + 8))??;
                    used = 12;
                    0x10000 + ((high - 0xD800) << 10) + low.checked_sub(0xDC00).filter(|low| *low < 0x400)?
                } else {
                    high
                };
                out.push(char::from_u32(code)?);
            }
            _ => return None,
        }
        rest = rest.get(at + used..)?;
    }
    out.push_str(rest);
    Some(())
}

fn hex4(text: &str, at: usize) -> Option<u32> {
    let digits = text.get(at..at + 4)?;
    digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok())?
}

/// Whether `text` is a number of JSON's grammar.
pub(super) fn is_number(text: &str) -> bool {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let body = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match body.find(['e', 'E']) {
        Some(at) => (&body[..at], Some(&body[at + 1..])),
        None => (body, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    digits(whole)
        && (whole.len() == 1 || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|e| digits(e.strip_prefix(['+', '-']).unwrap_or(e)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
