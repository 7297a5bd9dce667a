//! MySQL's binary JSON, as the text that the server prints of it.
//!
//! ```text
//! object  count | size | count × (key's offset, length u16) | count × (type u8, offset or the value itself) | …
//! array   count | size |                                      count × (type u8, offset or the value itself) | …
//! ```
//!
//! Counts, sizes and offsets have two bytes in small ones and four in large ones; offsets count from `count`. A document
//! is a type and a value. What is damaged could let many entries share one value and unfold without end: every value
//! and every character is counted, and there cannot be more of them than the document has bytes.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::value::{day, length_us, packed_decimal};
use crate::decode::debezium::value::{Unscaled, Why};
use crate::wire::mysqltype::{code, little_endian};

pub(super) const DAMAGED: Why = "its bytes are not a JSON document as MySQL stores one";
/// MySQL's own limit is 100.
const DEPTH: usize = 128;

type Got<T> = Result<T, Why>;

/// A value: its type, and the bytes from where it begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Binary<'a> {
    pub kind: u8,
    pub bytes: &'a [u8],
}

/// An object or an array.
#[derive(Debug, Clone, Copy)]
pub(super) struct Container<'a> {
    pub is_object: bool,
    large: bool,
    pub count: usize,
    bytes: &'a [u8],
}

impl<'a> Binary<'a> {
    /// A whole document. An empty one is what the server stored for a null that it could not refuse.
    pub fn document(bytes: &'a [u8]) -> Self {
        match bytes.split_first() {
            Some((kind, bytes)) => Self { kind: *kind, bytes },
            None => Self { kind: kind::LITERAL, bytes: &[0] },
        }
    }

    /// The object or array that it is.
    pub fn container(self) -> Got<Option<Container<'a>>> {
        let (is_object, large) = match self.kind {
            kind::SMALL_OBJECT => (true, false),
            kind::LARGE_OBJECT => (true, true),
            kind::SMALL_ARRAY => (false, false),
            kind::LARGE_ARRAY => (false, true),
            _ => return Ok(None),
        };
        let width = if large { 4 } else { 2 };
        let number = |at: usize| self.bytes.get(at * width..(at + 1) * width).map(|n| little_endian(n) as usize);
        let (count, size) = number(0).zip(number(1)).ok_or(DAMAGED)?;
        let bytes = self.bytes.get(..size).ok_or(DAMAGED)?;
        Ok(Some(Container { is_object, large, count, bytes }))
    }
}

impl<'a> Container<'a> {
    fn width(&self) -> usize {
        if self.large { 4 } else { 2 }
    }

    fn number(&self, at: usize, width: usize) -> Got<usize> {
        let bytes = at.checked_add(width).and_then(|end| self.bytes.get(at..end)).ok_or(DAMAGED)?;
        Ok(little_endian(bytes) as usize)
    }

    /// The key of an entry of an object.
    pub fn key(&self, at: usize) -> Got<&'a str> {
        let width = self.width();
        let entry = 2 * width + at * (width + 2);
        let (offset, length) = (self.number(entry, width)?, self.number(entry + width, 2)?);
        let key = offset.checked_add(length).and_then(|end| self.bytes.get(offset..end)).ok_or(DAMAGED)?;
        simdutf8::basic::from_utf8(key).map_err(|_| DAMAGED)
    }

    /// The value of an entry.
    pub fn value(&self, at: usize) -> Got<Binary<'a>> {
        let width = self.width();
        let keys = if self.is_object { self.count * (width + 2) } else { 0 };
        let entry = 2 * width + keys + at * (width + 1);
        let kind = self.number(entry, 1)? as u8;
        let inlined = matches!(kind, kind::LITERAL | kind::INT16 | kind::UINT16)
            || self.large && matches!(kind, kind::INT32 | kind::UINT32);
        let from = if inlined { entry + 1 } else { self.number(entry + 1, width)? };
        Ok(Binary { kind, bytes: self.bytes.get(from..).ok_or(DAMAGED)? })
    }
}

/// Appends the text of a document.
pub(super) fn write(bytes: &[u8], out: &mut String) -> Got<()> {
    let mut budget = Budget(bytes.len().max(1));
    value(Binary::document(bytes), &mut budget, 0, out)
}

/// What a document can still hold.
pub(super) struct Budget(pub usize);

impl Budget {
    pub fn spend(&mut self, count: usize) -> Got<()> {
        self.0 = self.0.checked_sub(count).ok_or(DAMAGED)?;
        Ok(())
    }
}

/// Appends the text of a value.
pub(super) fn value(binary: Binary<'_>, budget: &mut Budget, depth: usize, out: &mut String) -> Got<()> {
    budget.spend(1)?;
    if depth > DEPTH {
        return Err(DAMAGED);
    }
    let Some(container) = binary.container()? else { return scalar(binary, budget, out) };
    out.push(if container.is_object { '{' } else { '[' });
    for at in 0..container.count {
        if at > 0 {
            out.push_str(", ");
        }
        if container.is_object {
            let key = container.key(at)?;
            budget.spend(key.len())?;
            quote(key, out);
            out.push_str(": ");
        }
        value(container.value(at)?, budget, depth + 1, out)?;
    }
    out.push(if container.is_object { '}' } else { ']' });
    Ok(())
}

fn scalar(binary: Binary<'_>, budget: &mut Budget, out: &mut String) -> Got<()> {
    let bytes = binary.bytes;
    let fixed = |size: usize| bytes.get(..size).map(little_endian).ok_or(DAMAGED);
    let _infallible = match binary.kind {
        kind::LITERAL => {
            out.push_str(match bytes.first() {
                Some(0) => "null",
                Some(1) => "true",
                Some(2) => "false",
                _ => return Err(DAMAGED),
            });
            Ok(())
        }
        kind::INT16 => write!(out, "{}", fixed(2)? as u16 as i16),
        kind::UINT16 => write!(out, "{}", fixed(2)?),
        kind::INT32 => write!(out, "{}", fixed(4)? as u32 as i32),
        kind::UINT32 => write!(out, "{}", fixed(4)?),
        kind::INT64 => write!(out, "{}", fixed(8)? as i64),
        kind::UINT64 => write!(out, "{}", fixed(8)?),
        kind::DOUBLE => return double(f64::from_bits(fixed(8)?), out),
        kind::STRING => {
            let text = counted(bytes)?;
            budget.spend(text.len())?;
            quote(simdutf8::basic::from_utf8(text).map_err(|_| DAMAGED)?, out);
            Ok(())
        }
        kind::OPAQUE => {
            let (field, rest) = bytes.split_first().ok_or(DAMAGED)?;
            let data = counted(rest)?;
            budget.spend(data.len())?;
            return opaque(*field, data, out);
        }
        _ => return Err(DAMAGED),
    };
    Ok(())
}

/// Bytes behind their length, which comes seven bits at a time.
fn counted(bytes: &[u8]) -> Got<&[u8]> {
    let mut length = 0usize;
    for (at, byte) in bytes.iter().take(5).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            return length.checked_add(at + 1).and_then(|end| bytes.get(at + 1..end)).ok_or(DAMAGED);
        }
    }
    Err(DAMAGED)
}

/// What JSON has no type for.
fn opaque(field: u8, data: &[u8], out: &mut String) -> Got<()> {
    match field {
        code::NEWDECIMAL => decimal(data, out),
        code::DATE | code::DATETIME | code::TIMESTAMP | code::TIME => moment(field, data, out),
        field => {
            // The server breaks the lines of what it writes in base64.
            const LINE: usize = 76;
            let encoded = STANDARD.encode(data);
            let _infallible = write!(out, "\"base64:type{field}:");
            for (at, line) in encoded.as_bytes().chunks(LINE).enumerate() {
                out.push_str(if at > 0 { "\\n" } else { "" });
                out.push_str(std::str::from_utf8(line).map_err(|_| DAMAGED)?);
            }
            out.push('"');
            Ok(())
        }
    }
}

fn decimal(data: &[u8], out: &mut String) -> Got<()> {
    let [precision, scale, packed @ ..] = data else { return Err(DAMAGED) };
    let unscaled = packed_decimal(packed, *precision, *scale).ok_or(DAMAGED)?;
    let (negative, digits) = match unscaled {
        Unscaled::Small(number) => (number < 0, number.unsigned_abs().to_string()),
        Unscaled::Large { negative, digits } => (negative, digits.trim_start_matches('0').to_owned()),
    };
    let scale = usize::from(*scale);
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let (sign, point) = (if negative { "-" } else { "" }, if scale > 0 { "." } else { "" });
    let _infallible = write!(out, "{sign}{whole}{point}{fraction}");
    Ok(())
}

/// A date or time: a signed number of 64 bits, the microseconds in its lowest 24.
fn moment(field: u8, data: &[u8], out: &mut String) -> Got<()> {
    let packed = i64::from_le_bytes(data.try_into().map_err(|_| DAMAGED)?);
    let (whole, micros) = (packed.unsigned_abs() >> 24, packed.unsigned_abs() & 0xFF_FFFF);
    let (hms, date) = (whole & 0x1_FFFF, whole >> 17);
    let (minute, second) = (hms >> 6 & 63, hms & 63);
    if field == code::TIME {
        let hour = whole >> 12;
        length_us([hour, minute, second], micros).map_err(|_| DAMAGED)?;
        let sign = if packed < 0 { "-" } else { "" };
        let _infallible = write!(out, "\"{sign}{hour:02}:{minute:02}:{second:02}.{micros:06}\"");
        return Ok(());
    }
    let (year, month, of_month) = ((date >> 5) / 13, (date >> 5) % 13, date & 31);
    // Here a zero date is but text.
    let sound = month == 0 || of_month == 0 || day(year, month, of_month).is_ok();
    if packed < 0 || !sound {
        return Err(DAMAGED);
    }
    let _infallible = write!(out, "\"{year:04}-{month:02}-{of_month:02}");
    if field != code::DATE {
        let _infallible = write!(out, " {:02}:{minute:02}:{second:02}.{micros:06}", hms >> 12);
    }
    out.push('"');
    Ok(())
}

/// A text in quotes, escaped as the server does.
pub(super) fn quote(text: &str, out: &mut String) {
    out.push('"');
    let mut from = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= b' ' && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(&text[from..at]);
        from = at + 1;
        let _infallible = match byte {
            b'"' => out.write_str("\\\""),
            b'\\' => out.write_str("\\\\"),
            b'\n' => out.write_str("\\n"),
            b'\r' => out.write_str("\\r"),
            b'\t' => out.write_str("\\t"),
            0x08 => out.write_str("\\b"),
            0x0C => out.write_str("\\f"),
            byte => write!(out, "\\u{byte:04x}"),
        };
    }
    out.push_str(&text[from..]);
    out.push('"');
}

/// A double as the server prints it: the shortest digits that mean it, plain while the point stands within fifteen
/// places or behind some of the digits, else with an exponent; and never like a whole number.
fn double(number: f64, out: &mut String) -> Got<()> {
    if !number.is_finite() {
        return Err(DAMAGED);
    }
    let shortest = format!("{:e}", number.abs());
    let (mantissa, exponent) = shortest.split_once('e').ok_or(DAMAGED)?;
    let exponent: i32 = exponent.parse().map_err(|_| DAMAGED)?;
    let digits = even(number.abs(), mantissa.replace('.', ""));
    let (count, before) = (digits.len(), exponent + 1);
    out.push_str(if number.is_sign_negative() { "-" } else { "" });
    let plain = exponent >= -15 && (exponent <= 14 || count as i32 > before);
    let _infallible = match usize::try_from(before) {
        Ok(before) if plain && before > 0 && count <= before => write!(out, "{digits:0<before$}.0"),
        Ok(before) if plain && before > 0 => write!(out, "{}.{}", &digits[..before], &digits[before..]),
        _ if plain => write!(out, "0.{:0>width$}", digits, width = count + before.unsigned_abs() as usize),
        _ => {
            let (first, rest) = digits.split_at(1);
            write!(out, "{first}{}{rest}e{exponent}", if rest.is_empty() { "" } else { "." })
        }
    };
    Ok(())
}

/// Where a number lies exactly between the two shortest texts that mean it, the server takes the even one and the
/// standard library the larger one.
fn even(number: f64, shortest: String) -> String {
    const SURE: usize = 15;
    let count = shortest.len();
    if count < SURE {
        return shortest;
    }
    let exact = format!("{number:.40e}");
    let exact = exact.split('e').next().unwrap_or_default().replace('.', "");
    let (lower, rest) = exact.split_at(count);
    let halfway = rest.strip_prefix('5').is_some_and(|rest| rest.bytes().all(|digit| digit == b'0'));
    if halfway && lower.ends_with(['0', '2', '4', '6', '8']) { lower.to_owned() } else { shortest }
}

mod kind {
    pub const SMALL_OBJECT: u8 = 0;
    pub const LARGE_OBJECT: u8 = 1;
    pub const SMALL_ARRAY: u8 = 2;
    pub const LARGE_ARRAY: u8 = 3;
    pub const LITERAL: u8 = 4;
    pub const INT16: u8 = 5;
    pub const UINT16: u8 = 6;
    pub const INT32: u8 = 7;
    pub const UINT32: u8 = 8;
    pub const INT64: u8 = 9;
    pub const UINT64: u8 = 10;
    pub const DOUBLE: u8 = 11;
    pub const STRING: u8 = 12;
    pub const OPAQUE: u8 = 15;
}
