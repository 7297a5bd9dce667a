//! Values that a snapshot read by the binary protocol: what the same value is in a row image.

use super::value::{Scratch, Value, ZERO_DATE, date_time, day, geometry, length_us, padded, vector};
use crate::decode::debezium::native::Native;
use crate::decode::debezium::value::{Why, decimal_text};
use crate::wire::binlog::Typed;
use crate::wire::mysqltype::{Form, Kind};

const OTHER: Why = "what the server sent is not of the column's type";

/// Reads a value.
pub(super) fn read<'v>(form: Form, kind: &Kind, typed: Typed<'v>, scratch: &'v mut Scratch) -> Result<Value<'v>, Why> {
    let native = match (kind, typed) {
        (Kind::Integer { .. } | Kind::Year | Kind::Bit, Typed::Int(number)) => Native::Whole(number),
        (Kind::Integer { .. } | Kind::Year | Kind::Bit, Typed::UInt(number)) => match i64::try_from(number) {
            Ok(number) => Native::Whole(number),
            Err(_) => Native::Unsigned(number),
        },
        (Kind::Integer { .. } | Kind::Year, Typed::Bytes(digits)) => number(text(digits)?)?,
        (Kind::Bit, Typed::Bytes(bytes)) if bytes.len() <= 8 => {
            Native::Unsigned(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
        }
        (Kind::Real, Typed::Float(number)) => Native::Single(number),
        (Kind::Real, Typed::Double(number)) => Native::Double(number),
        (Kind::Real, Typed::Bytes(digits)) => {
            let digits = text(digits)?;
            match form {
                Form::Float => Native::Single(digits.parse().map_err(|_| OTHER)?),
                _ => Native::Double(digits.parse().map_err(|_| OTHER)?),
            }
        }
        (Kind::Decimal, Typed::Bytes(digits)) => {
            let (unscaled, scale) = decimal_text(text(digits)?)?;
            scratch.unscaled = unscaled;
            Native::Decimal(&scratch.unscaled, scale)
        }
        (Kind::Date | Kind::DateTime | Kind::Timestamp, Typed::Moment { .. }) => moment(kind, typed)?,
        (Kind::Date | Kind::DateTime | Kind::Timestamp, Typed::Bytes(bytes)) => moment(kind, spelled(text(bytes)?)?)?,
        (Kind::Time, Typed::Time { negative, days, hours, minutes, seconds, micros }) => {
            let hours = u64::from(days) * 24 + u64::from(hours);
            let length = length_us([hours, u64::from(minutes), u64::from(seconds)], u64::from(micros))?;
            Native::Micros(if negative { -length } else { length })
        }
        (Kind::Binary { width }, Typed::Bytes(bytes)) => {
            Native::Bytes(padded(bytes, usize::from(*width), &mut scratch.bytes))
        }
        (Kind::PackedBinary, Typed::Bytes(bytes)) => Native::Bytes(bytes),
        (Kind::Geometry, Typed::Bytes(bytes)) => return geometry(bytes, &mut scratch.text),
        (Kind::Vector, Typed::Bytes(bytes)) => vector(bytes, &mut scratch.text)?,
        (
            Kind::Text { .. }
            | Kind::PackedText { .. }
            | Kind::Enum { .. }
            | Kind::Set { .. }
            | Kind::Json
            | Kind::Uuid
            | Kind::Inet4
            | Kind::Inet6,
            Typed::Bytes(bytes),
        ) => return text(bytes).map(Value::Text),
        _ => return Err(OTHER),
    };
    Ok(Value::Native(native))
}

fn text(bytes: &[u8]) -> Result<&str, Why> {
    simdutf8::basic::from_utf8(bytes).map_err(|_| "it is not UTF-8; the connection must speak utf8mb4")
}

fn number<'v>(digits: &str) -> Result<Native<'v>, Why> {
    if let Ok(number) = digits.parse() {
        return Ok(Native::Whole(number));
    }
    digits.parse().map(Native::Unsigned).map_err(|_| OTHER)
}

fn moment<'v>(kind: &Kind, typed: Typed<'_>) -> Result<Native<'v>, Why> {
    let Typed::Moment { year, month, day: of_month, hour, minute, second, micros } = typed else { return Err(OTHER) };
    let date = day(u64::from(year), u64::from(month), u64::from(of_month))?;
    if *kind == Kind::Date {
        return Ok(Native::Days(date));
    }
    let time = [u64::from(hour), u64::from(minute), u64::from(second)];
    Ok(Native::Micros(date_time(date, time, u64::from(micros))?))
}

/// `2000-01-01 10:11:12.5` as the default of a column is spelled.
fn spelled(text: &str) -> Result<Typed<'_>, Why> {
    let (date, time) = text.split_once(' ').unwrap_or((text, "00:00:00"));
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let fields = |text: &str, sign| text.split(sign).map(str::parse::<u16>).collect::<Result<Vec<_>, _>>();
    let (date, time) = fields(date, '-').ok().zip(fields(time, ':').ok()).ok_or(OTHER)?;
    let micros = format!("{fraction:0<6}").parse().map_err(|_| OTHER)?;
    let small = |number: u16| u8::try_from(number).map_err(|_| ZERO_DATE);
    match (date.as_slice(), time.as_slice()) {
        ([year, month, day], [hour, minute, second]) => Ok(Typed::Moment {
            year: *year,
            month: small(*month)?,
            day: small(*day)?,
            hour: small(*hour)?,
            minute: small(*minute)?,
            second: small(*second)?,
            micros,
        }),
        _ => Err(OTHER),
    }
}
