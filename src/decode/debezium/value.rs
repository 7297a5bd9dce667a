//! Scalars: from their spelling in JSON to exactly the value that the source had, or the reason why not.

use std::borrow::Cow;

use arrow::datatypes::i256;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

use super::scan::{are_digits, eight_digits, is_number};

/// Why a value is refused: what is wrong with it and what a person can do, without the value.
pub(in crate::decode) type Why = &'static str;

/// Units of times that are sent as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::decode) enum Unit {
    Second,
    Milli,
    Micro,
    Nano,
}

impl Unit {
    /// The number in microseconds.
    #[inline]
    pub fn micros(self, number: i64) -> Result<i64, Why> {
        match self {
            Self::Micro => Ok(number),
            Self::Milli => number.checked_mul(1_000).ok_or("it is beyond what microseconds can count"),
            Self::Second => number.checked_mul(1_000_000).ok_or("it is beyond what microseconds can count"),
            Self::Nano if number % 1_000 == 0 => Ok(number / 1_000),
            Self::Nano => Err("it has nanoseconds below the microsecond, which cannot be kept"),
        }
    }
}

/// A whole number without fraction or exponent.
#[inline]
pub(super) fn integer(text: &str) -> Result<i64, Why> {
    const BAD: Why = "it is not a whole number";
    let (digits, negative) = match text.as_bytes() {
        [b'-', digits @ ..] => (digits, true),
        digits => (digits, false),
    };
    if digits.is_empty() || (digits.len() > 1 && digits[0] == b'0') {
        return Err(BAD);
    }
    // Eighteen digits cannot overflow.
    if digits.len() <= 18 {
        let (eights, rest) = digits.as_chunks::<8>();
        let mut value = 0;
        for eight in eights {
            if !are_digits(eight) {
                return Err(BAD);
            }
            value = value * 100_000_000 + eight_digits(eight);
        }
        for digit in rest {
            if !digit.is_ascii_digit() {
                return Err(BAD);
            }
            value = value * 10 + i64::from(digit - b'0');
        }
        return Ok(if negative { -value } else { value });
    }
    let mut value: i64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return Err(BAD);
        }
        let digit = i64::from(digit - b'0');
        // Counting down holds i64::MIN as well.
        value = value
            .checked_mul(10)
            .and_then(|v| v.checked_sub(digit))
            .ok_or("it is beyond 64 bits; declare the column `decimal(20,0)` or `numeric` in a contract")?;
    }
    if negative { Ok(value) } else { value.checked_neg().ok_or("it is beyond 64 bits") }
}

/// A 64-bit float from a number, or one of the three that JSON spells as text.
pub(super) fn double(text: &str) -> Result<f64, Why> {
    let value: f64 = text.parse().map_err(|_| "it is not a number")?;
    if value.is_finite() && is_number(text) { Ok(value) } else { Err("it is not a number that a float holds") }
}

/// A 32-bit float.
pub(super) fn single(text: &str) -> Result<f32, Why> {
    let value: f32 = text.parse().map_err(|_| "it is not a number")?;
    if value.is_finite() && is_number(text) { Ok(value) } else { Err("it is not a number that a float holds") }
}

/// `NaN`, `Infinity`, `-Infinity`.
pub(super) fn special_float(text: &str) -> Result<f64, Why> {
    match text {
        "NaN" => Ok(f64::NAN),
        "Infinity" | "+Infinity" => Ok(f64::INFINITY),
        "-Infinity" => Ok(f64::NEG_INFINITY),
        _ => Err("it is not a number"),
    }
}

/// The longest decimal that is read, in bytes of its unscaled value: about 2,400 digits.
const DECIMAL_BYTES: usize = 1_000;

/// A decimal: an unscaled value and how many of its digits stand behind the point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::decode) enum Unscaled {
    /// What fits, which is nearly everything.
    Small(i128),
    /// Sign and decimal digits.
    Large { negative: bool, digits: String },
}

/// Base64 of a big-endian two's complement number.
#[inline]
pub(super) fn base64_integer(text: &str) -> Result<Unscaled, Why> {
    const BAD: Why = "it is not base64 of a decimal's bytes";
    let mut buffer = [0u8; 48];
    if text.len() <= 60 {
        let len = STANDARD.decode_slice(text, &mut buffer).map_err(|_| BAD)?;
        return unscaled(&buffer[..len]);
    }
    if text.len() > DECIMAL_BYTES * 4 / 3 {
        return Err("it has more than two thousand digits");
    }
    unscaled(&STANDARD.decode(text).map_err(|_| BAD)?)
}

fn unscaled(bytes: &[u8]) -> Result<Unscaled, Why> {
    let first = *bytes.first().ok_or("it is empty where a decimal's bytes should be")?;
    let negative = first & 0x80 != 0;
    if bytes.len() <= 16 {
        let mut wide = [if negative { 0xFF } else { 0 }; 16];
        wide[16 - bytes.len()..].copy_from_slice(bytes);
        return Ok(Unscaled::Small(i128::from_be_bytes(wide)));
    }
    let mut magnitude = bytes.to_vec();
    if negative {
        magnitude.iter_mut().for_each(|b| *b = !*b);
        let _ = magnitude.iter_mut().rev().try_for_each(|b| {
            let (sum, carry) = b.overflowing_add(1);
            *b = sum;
            if carry { Ok(()) } else { Err(()) }
        });
        if magnitude.iter().all(|b| *b == 0) {
            magnitude.insert(0, 1);
        }
    }
    Ok(Unscaled::Large { negative, digits: digits_of(&magnitude) })
}

/// Decimal digits of a big-endian magnitude, by repeated multiplication in base 10⁹.
fn digits_of(magnitude: &[u8]) -> String {
    let mut limbs: Vec<u32> = vec![0];
    for byte in magnitude {
        let mut carry = u64::from(*byte);
        for limb in &mut limbs {
            let value = u64::from(*limb) * 256 + carry;
            *limb = (value % 1_000_000_000) as u32;
            carry = value / 1_000_000_000;
        }
        if carry > 0 {
            limbs.push(carry as u32);
        }
    }
    let mut out = limbs.last().map(u32::to_string).unwrap_or_default();
    for limb in limbs.iter().rev().skip(1) {
        out.push_str(&format!("{limb:09}"));
    }
    out
}

/// A decimal number as people write it, with an exponent or without: its digits and scale.
pub(in crate::decode) fn decimal_text(text: &str) -> Result<(Unscaled, i32), Why> {
    const BAD: Why = "it is not a decimal number";
    let text = text.strip_prefix('+').unwrap_or(text);
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], text[at + 1..].parse::<i32>().map_err(|_| BAD)?),
        None => (text, 0),
    };
    let (negative, body) = match mantissa.strip_prefix('-') {
        Some(body) => (true, body),
        None => (false, mantissa),
    };
    let (whole, fraction) = body.split_once('.').unwrap_or((body, ""));
    if body.len() > DECIMAL_BYTES * 2 || exponent.unsigned_abs() > 2_000 {
        return Err("it has more than two thousand digits");
    }
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return Err(BAD);
    }
    let scale = fraction.len() as i32 - exponent;
    // Eighteen digits cannot overflow.
    if whole.len() + fraction.len() <= 18 {
        let digit = |value: i64, digit: u8| value * 10 + i64::from(digit - b'0');
        let value = i128::from(whole.bytes().chain(fraction.bytes()).fold(0, digit));
        return Ok((Unscaled::Small(if negative { -value } else { value }), scale));
    }
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let unscaled = if digits.len() <= 38 {
        let value: i128 = if digits.is_empty() { 0 } else { digits.parse().map_err(|_| BAD)? };
        Unscaled::Small(if negative { -value } else { value })
    } else {
        Unscaled::Large { negative, digits: digits.to_owned() }
    };
    Ok((unscaled, scale))
}

pub(super) const TOO_LARGE: Why =
    "it has more digits than the column holds; declare a wider decimal or `numeric` in a contract";
const TOO_FINE: Why = "it has more digits behind the point than the column holds; declare a larger scale in a contract";

/// The unscaled value for `decimal(precision, scale)`, at most 38 digits.
#[inline]
pub(super) fn to_i128(value: &Unscaled, from: i32, precision: u8, scale: i8) -> Result<i128, Why> {
    let Unscaled::Small(value) = value else {
        return to_i256(value, from, precision, scale)?.to_i128().ok_or(TOO_LARGE);
    };
    let shift = i32::from(scale) - from;
    let value = match shift {
        0 => *value,
        1..=38 => value.checked_mul(10i128.pow(shift as u32)).ok_or(TOO_LARGE)?,
        -38..=-1 => {
            let divisor = 10i128.pow(shift.unsigned_abs());
            if value % divisor != 0 {
                return Err(TOO_FINE);
            }
            value / divisor
        }
        _ if *value == 0 => 0,
        _ => return Err(if shift > 0 { TOO_LARGE } else { TOO_FINE }),
    };
    let limit = POWERS.get(usize::from(precision)).copied().unwrap_or(u128::MAX);
    if value.unsigned_abs() < limit { Ok(value) } else { Err(TOO_LARGE) }
}

/// The powers of ten that 38 digits need.
const POWERS: [u128; 39] = {
    let mut powers = [1; 39];
    let mut at = 1;
    while at < 39 {
        powers[at] = powers[at - 1] * 10;
        at += 1;
    }
    powers
};

/// The unscaled value for `decimal(precision, scale)`, at most 76 digits.
pub(super) fn to_i256(value: &Unscaled, from: i32, precision: u8, scale: i8) -> Result<i256, Why> {
    let (negative, mut digits) = parts(value);
    let shift = i32::from(scale) - from;
    if digits == "0" {
        return Ok(i256::ZERO);
    }
    if shift >= 0 {
        if shift > 76 {
            return Err(TOO_LARGE);
        }
        digits.extend(std::iter::repeat_n('0', shift as usize));
    } else {
        let cut = shift.unsigned_abs() as usize;
        let keep = digits.len().checked_sub(cut).filter(|keep| digits[*keep..].bytes().all(|b| b == b'0'));
        digits.truncate(keep.ok_or(TOO_FINE)?);
    }
    if digits.len() > usize::from(precision) {
        return Err(TOO_LARGE);
    }
    let value = if digits.is_empty() { Some(i256::ZERO) } else { i256::from_string(&digits) }.ok_or(TOO_LARGE)?;
    Ok(if negative { value.wrapping_neg() } else { value })
}

/// How many digits a number has in front of the point and behind it, zeros that say nothing left out.
#[cold]
pub(super) fn extent(value: &Unscaled, scale: i32) -> (u32, u32) {
    let (_, digits) = parts(value);
    let significant = digits.trim_end_matches('0').len() as i64;
    if significant == 0 {
        return (0, 0);
    }
    let scale = i64::from(scale);
    let (whole, zeros) = (digits.len() as i64 - scale, digits.len() as i64 - significant);
    (whole.max(0) as u32, (scale - zeros).max(0) as u32)
}

fn parts(value: &Unscaled) -> (bool, String) {
    match value {
        Unscaled::Small(value) => (*value < 0, value.unsigned_abs().to_string()),
        Unscaled::Large { negative, digits } => {
            let digits = digits.trim_start_matches('0');
            (*negative, if digits.is_empty() { "0".to_owned() } else { digits.to_owned() })
        }
    }
}

/// The canonical text: no exponent, no zeros that say nothing, no negative zero.
pub(super) fn to_numeric(value: &Unscaled, scale: i32) -> String {
    let (negative, mut digits) = parts(value);
    if digits == "0" {
        return digits;
    }
    if scale <= 0 {
        digits.extend(std::iter::repeat_n('0', scale.unsigned_abs() as usize));
    } else {
        let scale = scale as usize;
        if digits.len() <= scale {
            digits.insert_str(0, &"0".repeat(scale + 1 - digits.len()));
        }
        digits.insert(digits.len() - scale, '.');
        digits.truncate(digits.trim_end_matches('0').trim_end_matches('.').len());
    }
    if negative {
        digits.insert(0, '-');
    }
    digits
}

/// How bytes are spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::decode) enum Spelling {
    Base64,
    Base64Url,
    Hex,
}

/// Bytes from their spelling.
pub(super) fn bytes(text: &str, spelling: Spelling) -> Result<Vec<u8>, Why> {
    match spelling {
        Spelling::Base64 => STANDARD.decode(text).map_err(|_| "it is not base64"),
        Spelling::Base64Url => URL_SAFE.decode(text).map_err(|_| "it is not URL-safe base64"),
        Spelling::Hex => hex(text).ok_or("it is not hexadecimal"),
    }
}

pub(super) fn hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let mut out = Vec::with_capacity(pairs.len());
    let mut all = 0;
    for [high, low] in pairs {
        let (high, low) = (HEX[usize::from(*high)], HEX[usize::from(*low)]);
        all |= high | low;
        out.push(high << 4 | low & 0xF);
    }
    (all < 16).then_some(out)
}

/// What a hexadecimal digit stands for; 255 for any other byte.
const HEX: [u8; 256] = {
    let mut digits = [255; 256];
    let mut at = 0;
    while at < 16 {
        digits[b"0123456789abcdef"[at] as usize] = at as u8;
        digits[b"0123456789ABCDEF"[at] as usize] = at as u8;
        at += 1;
    }
    digits
};

/// A UUID as 36 characters, lower case.
pub(super) fn uuid(text: &str) -> Result<Cow<'_, str>, Why> {
    const BAD: Why = "it is not a UUID of the form 8-4-4-4-12";
    let bytes: &[u8; 36] = text.as_bytes().try_into().map_err(|_| BAD)?;
    let digits = |from: usize, to: usize| bytes[from..to].iter().fold(0, |all, byte| all | HEX[usize::from(*byte)]);
    let wrong = digits(0, 8) | digits(9, 13) | digits(14, 18) | digits(19, 23) | digits(24, 36);
    if wrong > 15 || [8, 13, 18, 23].iter().any(|at| bytes[*at] != b'-') {
        return Err(BAD);
    }
    let upper = bytes.iter().any(u8::is_ascii_uppercase);
    Ok(if upper { Cow::Owned(text.to_ascii_lowercase()) } else { Cow::Borrowed(text) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn integers_are_read_as_the_standard_library_does(n: i64) {
            prop_assert_eq!(integer(&n.to_string()), Ok(n));
        }

        #[test]
        fn decimals_are_the_same_from_bytes_and_from_text(n: i128, scale in 0i32..30) {
            let bytes = base64_integer(&STANDARD.encode(n.to_be_bytes()));
            prop_assert_eq!(&bytes, &Ok(Unscaled::Small(n)));
            let numeric = to_numeric(&bytes.unwrap(), scale);
            let (back, from) = decimal_text(&numeric).unwrap();
            prop_assert_eq!(to_numeric(&back, from), numeric);
            prop_assert_eq!(to_i256(&back, from, 76, scale as i8), Ok(i256::from_i128(n)));
        }

        #[test]
        fn wide_decimals_keep_every_digit(high: i128, low: u128) {
            let value = i256::from_parts(low, high);
            let mut bytes = value.to_le_bytes();
            bytes.reverse();
            let unscaled = base64_integer(&STANDARD.encode(bytes)).unwrap();
            prop_assert_eq!(to_numeric(&unscaled, 0), value.to_string());
        }
    }

    #[test]
    fn hexadecimal_is_read_in_both_cases() {
        assert_eq!(hex("00fFA9"), Some(vec![0, 255, 0xA9]));
        for bad in ["0", "0g", "g0", "0 ", "é"] {
            assert_eq!(hex(bad), None, "{bad}");
        }
        let lower = "0f8fad5b-d9cb-469f-a165-70867728950e";
        assert_eq!(uuid(lower).as_deref(), Ok(lower));
        assert_eq!(uuid(&lower.to_ascii_uppercase()).as_deref(), Ok(lower));
        for at in 0..36 {
            let mut bad = lower.to_owned();
            bad.replace_range(at..=at, "x");
            assert!(uuid(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn digits_are_counted_on_both_sides_of_the_point() {
        for (text, digits) in [
            ("0", (0, 0)),
            ("-0.000", (0, 0)),
            ("0.05", (0, 2)),
            ("-0.50", (0, 1)),
            ("1", (1, 0)),
            ("100", (3, 0)),
            ("1.50", (1, 1)),
            ("-9999999999.999", (10, 3)),
            ("5e3", (4, 0)),
            ("1.5e-3", (0, 4)),
            ("123456789012345678901234567890123456789.10", (39, 1)),
            ("1e2000", (2001, 0)),
            ("1e-2000", (0, 2000)),
        ] {
            let (value, scale) = decimal_text(text).unwrap();
            assert_eq!(extent(&value, scale), digits, "{text}");
        }
    }

    #[test]
    fn rescaling_is_exact_or_refused() {
        let small = Unscaled::Small;
        assert_eq!(to_i128(&small(1_230), 3, 5, 2), Ok(123));
        assert_eq!(to_i128(&small(1_234), 3, 5, 2), Err(TOO_FINE));
        assert_eq!(to_i128(&small(99_999), 0, 5, 0), Ok(99_999));
        assert_eq!(to_i128(&small(100_000), 0, 5, 0), Err(TOO_LARGE));
        assert_eq!(to_i128(&small(i128::MAX), 0, 38, 1), Err(TOO_LARGE));
        assert_eq!(to_i128(&small(0), 60, 5, 2), Ok(0));
        assert_eq!(decimal_text("-1.50E+2").map(|(n, scale)| to_numeric(&n, scale)), Ok("-150".to_owned()));
        assert_eq!(decimal_text("1e-3").map(|(n, scale)| to_numeric(&n, scale)), Ok("0.001".to_owned()));
        // Behind eighteen digits the other way begins.
        for text in ["123456789012345678", "12345678901234567.89", "-0.00", "999999999999999999.9"] {
            let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
            let value: i128 = format!("{whole}{fraction}").parse().unwrap();
            assert_eq!(decimal_text(text), Ok((small(value), fraction.len() as i32)));
        }
        for bad in ["", "-", ".5", "NaN", "1e", "0x1", "1,5", "1e99999"] {
            assert!(decimal_text(bad).is_err(), "{bad}");
        }
    }
}
