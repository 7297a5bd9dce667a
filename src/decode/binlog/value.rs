//! Values of row images: from their bytes to what the builders take.

use std::fmt::Write as _;
use std::io::Read as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::json;
use crate::decode::debezium::native::Native;
use crate::decode::debezium::time::{DAY_US, days};
use crate::decode::debezium::value::{Unscaled, Why};
use crate::wire::mysqlcharset::Charset;
use crate::wire::mysqltype::{Form, Kind, fraction_length, little_endian};

/// A value, ready for its builder.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Native(Native<'a>),
    Text(&'a str),
}

/// Where values are put together that do not stand in the image as they are.
#[derive(Debug)]
pub(super) struct Scratch {
    pub text: String,
    pub bytes: Vec<u8>,
    pub unscaled: Unscaled,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { text: String::new(), bytes: Vec::new(), unscaled: Unscaled::Small(0) }
    }
}

const DAMAGED: Why = "its bytes are not a value of its type";
pub(super) const ZERO_DATE: Why = "it is a zero or partial date, which is no day of the calendar; map it to a date or null at the \
                        source";
const NO_TEXT: Why = "it is not text in the column's character set; convert the column at the source";
const NO_MEMBER: Why = "its number is not one of the column's members; what it was is not in the log";

type Got<T> = Result<T, Why>;

/// Reads the value of a column, its length field included.
#[inline]
pub(super) fn read<'v>(form: Form, kind: &'v Kind, bytes: &'v [u8], scratch: &'v mut Scratch) -> Got<Value<'v>> {
    let content = match form {
        Form::Bytes(size) | Form::Json(size) => bytes.get(usize::from(size)..).ok_or(DAMAGED)?,
        _ => bytes,
    };
    let native = match kind {
        Kind::Integer { unsigned } => integer(content, *unsigned),
        Kind::Text { charset } => return text(*charset, content, &mut scratch.text),
        Kind::Decimal => {
            let Form::Decimal { precision, scale } = form else { return Err(DAMAGED) };
            scratch.unscaled = packed_decimal(content, precision, scale).ok_or(DAMAGED)?;
            Native::Decimal(&scratch.unscaled, i32::from(scale))
        }
        Kind::Real => match form {
            Form::Float => Native::Single(f32::from_le_bytes(content.try_into().map_err(|_| DAMAGED)?)),
            _ => Native::Double(f64::from_le_bytes(content.try_into().map_err(|_| DAMAGED)?)),
        },
        Kind::Bit => bits(content),
        Kind::Year => Native::Whole(match content.first() {
            Some(0) => 0,
            Some(years) => 1900 + i64::from(*years),
            None => return Err(DAMAGED),
        }),
        Kind::Date | Kind::DateTime | Kind::Timestamp | Kind::Time => moment(form, content)?,
        Kind::Binary { width } => Native::Bytes(padded(content, usize::from(*width), &mut scratch.bytes)),
        Kind::PackedText { charset } => {
            return text(*charset, unpacked(content, &mut scratch.bytes)?, &mut scratch.text);
        }
        Kind::PackedBinary => Native::Bytes(unpacked(content, &mut scratch.bytes)?),
        Kind::Enum { members } => return member(members, little_endian(content)),
        Kind::Set { members } => return set(members, little_endian(content), &mut scratch.text),
        Kind::Json => {
            scratch.text.clear();
            json::write(content, &mut scratch.text)?;
            Native::Document(&scratch.text)
        }
        Kind::Geometry => return geometry(content, &mut scratch.text),
        Kind::Vector => return vector(content, &mut scratch.text).map(Value::Native),
        Kind::Uuid | Kind::Inet4 | Kind::Inet6 => {
            return address(kind, padded(content, 16, &mut scratch.bytes), &mut scratch.text);
        }
        Kind::Unread { .. } => return Err(DAMAGED),
    };
    Ok(Value::Native(native))
}

#[inline]
fn integer<'v>(bytes: &[u8], unsigned: bool) -> Native<'v> {
    let number = little_endian(bytes);
    if unsigned {
        return match i64::try_from(number) {
            Ok(number) => Native::Whole(number),
            Err(_) => Native::Unsigned(number),
        };
    }
    let open = 64u32.saturating_sub(bytes.len() as u32 * 8).min(63);
    Native::Whole((number << open) as i64 >> open)
}

fn bits<'v>(bytes: &[u8]) -> Native<'v> {
    Native::Unsigned(big_endian(bytes))
}

/// At most eight bytes as a number.
#[inline]
fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[inline]
fn text<'v>(charset: Charset, bytes: &'v [u8], scratch: &'v mut String) -> Got<Value<'v>> {
    match charset.decode(bytes).ok_or(NO_TEXT)? {
        std::borrow::Cow::Borrowed(text) => Ok(Value::Text(text)),
        std::borrow::Cow::Owned(text) => {
            *scratch = text;
            Ok(Value::Text(scratch))
        }
    }
}

/// Bytes with the zeros that the log leaves out at their end.
pub(super) fn padded<'v>(bytes: &'v [u8], width: usize, scratch: &'v mut Vec<u8>) -> &'v [u8] {
    if bytes.len() >= width {
        return bytes;
    }
    scratch.clear();
    scratch.extend_from_slice(bytes);
    scratch.resize(width, 0);
    scratch
}

/// The value of a `COMPRESSED` column: a byte that says how; its length, big-endian, and a deflate stream, or as it is.
fn unpacked<'v>(bytes: &'v [u8], scratch: &'v mut Vec<u8>) -> Got<&'v [u8]> {
    const LARGEST: u64 = 1 << 30;
    let Some((head, rest)) = bytes.split_first() else { return Ok(bytes) };
    let (method, bare, size) = (head >> 4, head & 8 != 0, usize::from(head & 7));
    if method == 0 {
        return Ok(rest);
    }
    let (length, rest) = rest.split_at_checked(size).ok_or(DAMAGED)?;
    let length = big_endian(length);
    if method != 8 || length > LARGEST {
        return Err("it is compressed in a way that is not known here, or larger than 1 GiB");
    }
    scratch.clear();
    let read = if bare {
        flate2::read::DeflateDecoder::new(rest).take(length + 1).read_to_end(scratch)
    } else {
        flate2::read::ZlibDecoder::new(rest).take(length + 1).read_to_end(scratch)
    };
    if read.is_ok_and(|read| read as u64 == length) { Ok(scratch) } else { Err(DAMAGED) }
}

fn member(members: &[String], number: u64) -> Got<Value<'_>> {
    // 0 is what a value became that is no member, in a server that is not strict.
    let Some(at) = number.checked_sub(1) else { return Ok(Value::Text("")) };
    let member = usize::try_from(at).ok().and_then(|at| members.get(at)).ok_or(NO_MEMBER)?;
    Ok(Value::Text(member))
}

fn set<'v>(members: &[String], bits: u64, scratch: &'v mut String) -> Got<Value<'v>> {
    if bits.checked_shr(members.len() as u32).unwrap_or(0) != 0 {
        return Err(NO_MEMBER);
    }
    scratch.clear();
    for (at, member) in members.iter().enumerate() {
        if bits >> at & 1 == 1 {
            if !scratch.is_empty() {
                scratch.push(',');
            }
            scratch.push_str(member);
        }
    }
    Ok(Value::Text(scratch))
}

/// Digits of a full group, and the bytes that it takes.
const GROUP: (u8, usize) = (9, 4);
const PART_BYTES: [usize; 9] = [0, 1, 1, 2, 2, 3, 3, 4, 4];
const POWERS: [u32; 10] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];
/// The longest packed decimal: 65 digits, 38 of them behind the point.
const DECIMAL_BYTES: usize = 40;

/// A packed decimal: the first bit is the sign, inverted; a negative one has all its bits inverted. The digits in front
/// of the point are filled up from the left, those behind it from the right.
pub(super) fn packed_decimal(bytes: &[u8], precision: u8, scale: u8) -> Option<Unscaled> {
    let mut buffer = [0u8; DECIMAL_BYTES];
    let buffer = buffer.get_mut(..bytes.len())?;
    let negative = bytes.first()? & 0x80 == 0;
    let mask = if negative { 0xFF } else { 0 };
    buffer.iter_mut().zip(bytes).for_each(|(to, from)| *to = from ^ mask);
    buffer[0] ^= 0x80;
    let whole = precision.checked_sub(scale)?;
    let groups = [(whole % GROUP.0, 1), (GROUP.0, whole / GROUP.0), (GROUP.0, scale / GROUP.0), (scale % GROUP.0, 1)];
    let mut rest = &*buffer;
    let mut small: i128 = 0;
    let mut large = String::new();
    for (digits, count) in groups {
        let size = if digits == GROUP.0 { GROUP.1 } else { PART_BYTES[usize::from(digits)] };
        for _ in 0..count {
            let (head, tail) = rest.split_at_checked(size)?;
            rest = tail;
            let group = big_endian(head) as u32;
            if group >= POWERS[usize::from(digits)] {
                return None;
            }
            if precision <= 38 {
                small = small * i128::from(POWERS[usize::from(digits)]) + i128::from(group);
            } else if digits > 0 {
                let _infallible = write!(large, "{group:0width$}", width = usize::from(digits));
            }
        }
    }
    rest.is_empty().then(|| match precision {
        ..=38 => Unscaled::Small(if negative { -small } else { small }),
        _ => Unscaled::Large { negative, digits: large },
    })
}

const SECOND_US: i64 = 1_000_000;

/// Dates and times.
#[inline]
fn moment<'v>(form: Form, bytes: &[u8]) -> Got<Native<'v>> {
    Ok(match form {
        Form::Date => {
            let packed = little_endian(bytes);
            Native::Days(day(packed >> 9, packed >> 5 & 15, packed & 31)?)
        }
        Form::DateTime(digits) => {
            let (head, fraction) = bytes.split_at_checked(5).ok_or(DAMAGED)?;
            let packed = big_endian(head) ^ 1 << 39;
            let (month, hms) = (packed >> 22, packed & 0x1_FFFF);
            let day = day(month / 13, month % 13, packed >> 17 & 31)?;
            Native::Micros(date_time(day, [hms >> 12, hms >> 6 & 63, hms & 63], micros(fraction, digits))?)
        }
        Form::Timestamp(digits) => {
            let (head, fraction) = bytes.split_at_checked(4).ok_or(DAMAGED)?;
            timestamp(big_endian(head), micros(fraction, digits))?
        }
        Form::OldTimestamp => timestamp(little_endian(bytes), 0)?,
        Form::OldDateTime => {
            let packed = little_endian(bytes);
            let (date, time) = (packed / 1_000_000, packed % 1_000_000);
            let day = day(date / 10_000, date / 100 % 100, date % 100)?;
            Native::Micros(date_time(day, [time / 10_000, time / 100 % 100, time % 100], 0)?)
        }
        Form::Time(digits) => Native::Micros(time(bytes, digits)?),
        Form::OldTime => {
            let packed = (little_endian(bytes) << 40) as i64 >> 40;
            let time = packed.unsigned_abs();
            let length = length_us([time / 10_000, time / 100 % 100, time % 100], 0)?;
            Native::Micros(if packed < 0 { -length } else { length })
        }
        _ => return Err(DAMAGED),
    })
}

fn micros(fraction: &[u8], digits: u8) -> u64 {
    match fraction_length(digits) {
        1 => big_endian(fraction) * 10_000,
        2 => big_endian(fraction) * 100,
        3 => big_endian(fraction),
        _ => 0,
    }
}

/// Days since 1970.
pub(super) fn day(year: u64, month: u64, day: u64) -> Got<i32> {
    if month == 0 || day == 0 {
        return Err(ZERO_DATE);
    }
    let days = days(year as i64, month as i64, day as i64);
    days.and_then(|days| i32::try_from(days).ok())
        .ok_or("it is no day of the calendar (ALLOW_INVALID_DATES); correct it at the source")
}

/// Microseconds since 1970 of a day and a time of it.
pub(super) fn date_time(day: i32, [hour, minute, second]: [u64; 3], micros: u64) -> Got<i64> {
    let time = length_us([hour, minute, second], micros)?;
    if hour > 23 {
        return Err(DAMAGED);
    }
    Ok(i64::from(day) * DAY_US + time)
}

/// A length of time.
pub(super) fn length_us([hours, minutes, seconds]: [u64; 3], micros: u64) -> Got<i64> {
    if hours > 1 << 24 || minutes > 59 || seconds > 59 || micros >= SECOND_US as u64 {
        return Err(DAMAGED);
    }
    Ok(((hours * 60 + minutes) * 60 + seconds) as i64 * SECOND_US + micros as i64)
}

fn timestamp<'v>(seconds: u64, micros: u64) -> Got<Native<'v>> {
    if seconds == 0 && micros == 0 {
        return Err(ZERO_DATE);
    }
    Ok(Native::Micros(seconds as i64 * SECOND_US + micros as i64))
}

/// A signed number around the middle of its range: hours, minutes, seconds, and the fraction below them.
fn time(bytes: &[u8], digits: u8) -> Got<i64> {
    let below = fraction_length(digits);
    if bytes.len() != 3 + below {
        return Err(DAMAGED);
    }
    let packed = big_endian(bytes) as i64 - (0x80_0000 << (below * 8));
    let (whole, fraction) = (packed.unsigned_abs() >> (below * 8), packed.unsigned_abs() & ((1 << (below * 8)) - 1));
    let micros = micros(&fraction.to_be_bytes()[8 - below..], digits);
    let length = length_us([whole >> 12 & 0x3FF, whole >> 6 & 63, whole & 63], micros)?;
    Ok(if packed < 0 { -length } else { length })
}

/// An SRID and a WKB as EWKB in hexadecimal.
pub(super) fn geometry<'v>(bytes: &[u8], scratch: &'v mut String) -> Got<Value<'v>> {
    const SRID: u32 = 0x2000_0000;
    const NO_GEOMETRY: Why = "it is not an SRID and a geometry";
    scratch.clear();
    let (srid, wkb) = bytes.split_first_chunk::<4>().ok_or(NO_GEOMETRY)?;
    let (order, rest) = wkb.split_first().filter(|(order, _)| **order == 1).ok_or(NO_GEOMETRY)?;
    let (kind, rest) = rest.split_first_chunk::<4>().ok_or(NO_GEOMETRY)?;
    hexadecimal(&[*order], scratch);
    if *srid == [0; 4] {
        hexadecimal(kind, scratch);
    } else {
        hexadecimal(&(u32::from_le_bytes(*kind) | SRID).to_le_bytes(), scratch);
        hexadecimal(srid, scratch);
    }
    hexadecimal(rest, scratch);
    Ok(Value::Text(scratch))
}

fn hexadecimal(bytes: &[u8], out: &mut String) {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// 32-bit floats as a JSON array, each as short as it can be said.
pub(super) fn vector<'v>(bytes: &[u8], scratch: &'v mut String) -> Got<Native<'v>> {
    let (numbers, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return Err("it is not a vector of 32-bit floats");
    }
    scratch.clear();
    scratch.push('[');
    for (at, bytes) in numbers.iter().enumerate() {
        let number = f32::from_le_bytes(*bytes);
        if !number.is_finite() {
            return Err("it has a number that is not finite, which JSON does not have");
        }
        let comma = if at > 0 { "," } else { "" };
        let plain = number == 0.0 || (1e-6..1e16).contains(&number.abs());
        let _infallible = if plain { write!(scratch, "{comma}{number}") } else { write!(scratch, "{comma}{number:e}") };
    }
    scratch.push(']');
    Ok(Native::Document(scratch))
}

/// MariaDB's UUIDs and addresses, as it prints them.
fn address<'v>(kind: &Kind, bytes: &[u8], scratch: &'v mut String) -> Got<Value<'v>> {
    scratch.clear();
    let whole = bytes.first_chunk::<16>().filter(|_| bytes.len() == 16).ok_or(DAMAGED)?;
    let _infallible = match kind {
        Kind::Uuid => write!(scratch, "{}", uuid::Uuid::from_bytes(*whole)),
        Kind::Inet4 => {
            let [a, b, c, d, ..] = *whole;
            write!(scratch, "{}", Ipv4Addr::new(a, b, c, d))
        }
        _ => return Ok(Value::Text(inet6(*whole, scratch))),
    };
    Ok(Value::Text(scratch))
}

/// An address as MariaDB prints it: the longest run of zeros is left out, the first of several, even where it is but one
/// group; what embeds an IPv4 address ends in that.
fn inet6(bytes: [u8; 16], scratch: &mut String) -> &str {
    let groups = Ipv6Addr::from(bytes).segments();
    let zeros = |from: usize| groups[from..].iter().take_while(|group| **group == 0).count();
    let (mut gap, mut length) = (0, 0);
    for from in 0..groups.len() {
        if zeros(from) > length {
            (gap, length) = (from, zeros(from));
        }
    }
    let embeds = gap == 0 && (length == 6 || length == 5 && groups[5] == 0xFFFF);
    let end = if embeds { 6 } else { 8 };
    let mut at = 0;
    while at < end {
        if length > 0 && at == gap {
            scratch.push_str("::");
            at += length;
            continue;
        }
        let colon = if at > 0 && !scratch.ends_with(':') { ":" } else { "" };
        let _infallible = write!(scratch, "{colon}{:x}", groups[at]);
        at += 1;
    }
    if embeds {
        let [.., a, b, c, d] = bytes;
        let colon = if scratch.ends_with(':') { "" } else { ":" };
        let _infallible = write!(scratch, "{colon}{}", Ipv4Addr::new(a, b, c, d));
    }
    scratch
}
