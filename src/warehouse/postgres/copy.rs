//! Arrow columns to PostgreSQL's binary COPY format, exactly.

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, Time64MicrosecondType, TimestampMicrosecondType,
};

use crate::batch::NO_TIME;
use crate::contract::Type;

/// What a stream begins with: signature, no flags, no extension.
pub(crate) const HEADER: [u8; 19] = *b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What it ends with.
pub(crate) const TRAILER: [u8; 2] = [0xff, 0xff];

const DAYS_1970_TO_2000: i32 = 10_957;
const MICROS_1970_TO_2000: i64 = 946_684_800_000_000;

/// A column's values, ready to be written.
pub(crate) struct Column<'a> {
    array: &'a ArrayRef,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Boolean(&'a arrow::array::BooleanArray),
    SmallInt(&'a PrimitiveArray<Int16Type>),
    Int(&'a PrimitiveArray<Int32Type>),
    BigInt(&'a PrimitiveArray<Int64Type>),
    Real(&'a PrimitiveArray<Float32Type>),
    Double(&'a PrimitiveArray<Float64Type>),
    Decimal(&'a PrimitiveArray<Decimal128Type>, u32),
    Wide(&'a PrimitiveArray<Decimal256Type>),
    Date(&'a PrimitiveArray<Date32Type>),
    Time(&'a PrimitiveArray<Time64MicrosecondType>),
    Duration(&'a PrimitiveArray<Int64Type>),
    Timestamp(&'a PrimitiveArray<TimestampMicrosecondType>),
    Numeric(&'a arrow::array::StringArray),
    Text(&'a arrow::array::StringArray),
    Uuid(&'a arrow::array::StringArray),
    Binary(&'a arrow::array::BinaryArray),
}

impl<'a> Column<'a> {
    /// The values of `array`, which has the Arrow layout of `data_type`.
    pub(crate) fn new(data_type: Type, array: &'a ArrayRef) -> Self {
        fn of<T: ArrowPrimitiveType>(array: &ArrayRef) -> &PrimitiveArray<T> {
            array.as_primitive::<T>()
        }
        let kind = match data_type {
            Type::Boolean => Kind::Boolean(array.as_boolean()),
            Type::SmallInt => Kind::SmallInt(of(array)),
            Type::Int => Kind::Int(of(array)),
            Type::BigInt => Kind::BigInt(of(array)),
            Type::Real => Kind::Real(of(array)),
            Type::Double => Kind::Double(of(array)),
            Type::Decimal { precision, scale } if precision <= 38 => Kind::Decimal(of(array), scale.max(0) as u32),
            Type::Decimal { .. } => Kind::Wide(of(array)),
            Type::Date => Kind::Date(of(array)),
            Type::Time => Kind::Time(of(array)),
            Type::Duration => Kind::Duration(of(array)),
            Type::Timestamp | Type::TimestampTz => Kind::Timestamp(of(array)),
            Type::Numeric => Kind::Numeric(array.as_string()),
            Type::Text { .. } | Type::Json => Kind::Text(array.as_string()),
            Type::Uuid => Kind::Uuid(array.as_string()),
            Type::Binary => Kind::Binary(array.as_binary()),
        };
        Self { array, kind }
    }

    /// Appends the value of row `row` with its length; `Err` says why PostgreSQL cannot hold it.
    pub(crate) fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        if self.array.is_null(row) {
            null(out);
            return Ok(());
        }
        match &self.kind {
            Kind::Boolean(values) => field(out, &[u8::from(values.value(row))]),
            Kind::SmallInt(values) => field(out, &values.value(row).to_be_bytes()),
            Kind::Int(values) => field(out, &values.value(row).to_be_bytes()),
            Kind::BigInt(values) => field(out, &values.value(row).to_be_bytes()),
            Kind::Real(values) => field(out, &values.value(row).to_be_bytes()),
            Kind::Double(values) => field(out, &values.value(row).to_be_bytes()),
            Kind::Decimal(values, scale) => match scaled(values.value(row), *scale) {
                Some(digits) => numeric(out, &digits),
                None => numeric(out, &Digits::parse(&values.value_as_string(row))?),
            },
            Kind::Wide(values) => numeric(out, &Digits::parse(&values.value_as_string(row))?),
            Kind::Numeric(values) => numeric(out, &Digits::parse(values.value(row))?),
            Kind::Date(values) => field(out, &date(values.value(row))?.to_be_bytes()),
            Kind::Time(values) => field(out, &values.value(row).to_be_bytes()),
            Kind::Duration(values) => interval(out, values.value(row)),
            Kind::Timestamp(values) => field(out, &timestamp(values.value(row))?.to_be_bytes()),
            Kind::Text(values) => text(out, values.value(row))?,
            Kind::Uuid(values) => uuid(out, values.value(row))?,
            Kind::Binary(values) => field(out, values.value(row)),
        }
        Ok(())
    }
}

/// Appends bytes with their length.
pub(crate) fn field(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Appends null.
pub(crate) fn null(out: &mut Vec<u8>) {
    out.extend_from_slice(&(-1i32).to_be_bytes());
}

/// Appends a time in microseconds since 1970; [`NO_TIME`] and what PostgreSQL cannot hold become null.
pub(crate) fn time_or_null(out: &mut Vec<u8>, micros: i64) {
    match timestamp(micros) {
        Ok(time) if micros != NO_TIME => field(out, &time.to_be_bytes()),
        _ => null(out),
    }
}

fn text(out: &mut Vec<u8>, value: &str) -> Result<(), String> {
    if memchr::memchr(0, value.as_bytes()).is_some() {
        return Err("the text holds a NUL character (U+0000)".to_owned());
    }
    field(out, value.as_bytes());
    Ok(())
}

fn uuid(out: &mut Vec<u8>, value: &str) -> Result<(), String> {
    let parsed = uuid::Uuid::parse_str(value).map_err(|_| "the text is not a UUID".to_owned())?;
    field(out, parsed.as_bytes());
    Ok(())
}

fn interval(out: &mut Vec<u8>, micros: i64) {
    let mut bytes = [0u8; 16];
    bytes[..8].copy_from_slice(&micros.to_be_bytes());
    field(out, &bytes);
}

/// The lowest number stands for minus infinity, so it is not a date.
fn date(days: i32) -> Result<i32, String> {
    let shifted = days.checked_sub(DAYS_1970_TO_2000).filter(|days| *days != i32::MIN);
    shifted.ok_or_else(|| format!("the date {days} days after 1970-01-01 is out of range"))
}

fn timestamp(micros: i64) -> Result<i64, String> {
    let shifted = micros.checked_sub(MICROS_1970_TO_2000).filter(|micros| *micros != i64::MIN);
    shifted.ok_or_else(|| format!("the time {micros} microseconds after 1970 is out of range"))
}

const POSITIVE: u16 = 0x0000;
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const MINUS_INFINITY: u16 = 0xF000;

/// A number in groups of four decimal digits, most significant first.
#[derive(Debug, PartialEq, Eq)]
struct Digits {
    sign: u16,
    /// The power of 10000 of the first group.
    weight: i16,
    /// Digits after the point.
    scale: u16,
    groups: Vec<i16>,
}

impl Digits {
    fn special(sign: u16) -> Self {
        Self { sign, weight: 0, scale: 0, groups: Vec::new() }
    }

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "NaN" => return Ok(Self::special(NAN)),
            "Infinity" => return Ok(Self::special(INFINITY)),
            "-Infinity" => return Ok(Self::special(MINUS_INFINITY)),
            _ => {}
        }
        let wrong = || "the text is not a decimal number".to_owned();
        let (sign, digits) = match text.strip_prefix('-') {
            Some(rest) => (NEGATIVE, rest),
            None => (POSITIVE, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let only_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.len() + fraction.len() == 0 || !only_digits(whole) || !only_digits(fraction) {
            return Err(wrong());
        }
        let scale = u16::try_from(fraction.len()).ok().filter(|scale| *scale <= 16_383).ok_or_else(wrong)?;
        let lead = (4 - whole.len() % 4) % 4;
        let tail = (4 - fraction.len() % 4) % 4;
        let zeros = |count: usize| std::iter::repeat_n(b'0', count);
        let all: Vec<u8> = zeros(lead).chain(whole.bytes()).chain(fraction.bytes()).chain(zeros(tail)).collect();
        let group = |four: &[u8]| four.iter().fold(0i16, |sum, digit| sum * 10 + i16::from(digit - b'0'));
        let groups: Vec<i16> = all.chunks(4).map(group).collect();
        let weight = i16::try_from((whole.len() + lead) / 4).map_err(|_| wrong())? - 1;
        i16::try_from(groups.len()).map_err(|_| wrong())?;
        Ok(Self { sign, weight, scale, groups })
    }
}

/// The groups of `value / 10^scale` without a detour over text; `None` when it does not fit.
fn scaled(value: i128, scale: u32) -> Option<Digits> {
    let pad = (4 - scale % 4) % 4;
    let mut rest = value.unsigned_abs().checked_mul(10u128.pow(pad))?;
    let mut groups = Vec::with_capacity(10);
    while rest > 0 {
        // Division of 128 bits is slow, and most numbers are small.
        if let Ok(small) = u64::try_from(rest) {
            groups.push((small % 10_000) as i16);
            rest = u128::from(small / 10_000);
        } else {
            groups.push((rest % 10_000) as i16);
            rest /= 10_000;
        }
    }
    groups.reverse();
    let sign = if value < 0 { NEGATIVE } else { POSITIVE };
    let fraction_groups = (scale + pad) / 4;
    let weight = groups.len() as i16 - fraction_groups as i16 - 1;
    Some(Digits { sign, weight, scale: scale as u16, groups })
}

fn numeric(out: &mut Vec<u8>, digits: &Digits) {
    let length = 8 + 2 * digits.groups.len();
    out.extend_from_slice(&(length as i32).to_be_bytes());
    out.extend_from_slice(&(digits.groups.len() as i16).to_be_bytes());
    out.extend_from_slice(&digits.weight.to_be_bytes());
    out.extend_from_slice(&digits.sign.to_be_bytes());
    out.extend_from_slice(&digits.scale.to_be_bytes());
    for group in &digits.groups {
        out.extend_from_slice(&group.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What the groups stand for, as digits with the point `scale` from the right.
    fn value(digits: &Digits) -> (bool, String) {
        let all: String = digits.groups.iter().map(|group| format!("{group:04}")).collect();
        let whole = (i32::from(digits.weight) + 1) * 4;
        let (whole, fraction) = if whole >= 0 {
            let all = format!("{all:0<width$}", width = whole as usize);
            (all[..whole as usize].to_owned(), all[whole as usize..].to_owned())
        } else {
            (String::new(), format!("{}{all}", "0".repeat(-whole as usize)))
        };
        let fraction = format!("{fraction:0<width$}", width = usize::from(digits.scale));
        let fraction = &fraction[..usize::from(digits.scale)];
        (digits.sign == NEGATIVE, format!("{}.{fraction}", whole.trim_start_matches('0')))
    }

    proptest! {
        #[test]
        fn both_ways_to_write_a_decimal_agree(number: i128, scale in 0u32..=38) {
            let number = number % 10i128.pow(38);
            let digits = number.unsigned_abs().to_string();
            let digits = format!("{digits:0>width$}", width = scale as usize + 1);
            let (whole, fraction) = digits.split_at(digits.len() - scale as usize);
            let sign = if number < 0 { "-" } else { "" };
            let parsed = Digits::parse(&format!("{sign}{whole}.{fraction}")).expect("a number");
            let expected = (number < 0, format!("{}.{fraction}", whole.trim_start_matches('0')));
            prop_assert_eq!(value(&parsed), expected.clone());
            if let Some(quick) = scaled(number, scale) {
                prop_assert_eq!(value(&quick), expected);
            }
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", "-", ".", "1e5", "1,5", "--1", "0x1"] {
            assert!(Digits::parse(text).is_err(), "{text}");
        }
        assert_eq!(Digits::parse("NaN"), Ok(Digits::special(NAN)));
    }
}
