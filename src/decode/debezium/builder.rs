//! Columns under construction: from a token straight into an Arrow builder.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Decimal256Builder, Float32Builder,
    Float64Builder, Int16Builder, Int32Builder, Int64Builder, StringBuilder, Time64MicrosecondBuilder,
    TimestampMicrosecondBuilder,
};

use super::native::Native;
use super::scan::{Text, Token, fields};
use super::time;
use super::value::{self, Spelling, Unit, Unscaled, Why};
use super::wire::Wire;
use crate::contract::{Type, growth};

/// Why a value does not come into its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::decode) enum Problem {
    /// The kind of value does not fit the type of the column: the stream has left the contract.
    Kind(Why),
    /// The column is too narrow for the value, and may become this.
    Narrow(Type),
    /// The kind fits, this value does not.
    Value(Why),
}

impl From<Why> for Problem {
    fn from(why: Why) -> Self {
        Self::Value(why)
    }
}

type Done = Result<(), Problem>;

/// One builder per Arrow layout and reading.
#[derive(Debug)]
enum Builder {
    Boolean(BooleanBuilder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Duration(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Decimal128(Decimal128Builder, Digits),
    Decimal256(Decimal256Builder, u8, i8),
    Numeric(StringBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    TimestampTz(TimestampMicrosecondBuilder),
    Text(StringBuilder, Option<u32>),
    Json(StringBuilder),
    Uuid(StringBuilder),
    Binary(BinaryBuilder),
}

/// Whether a column becomes wider for a value that it does not hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::decode) enum Widening {
    #[default]
    Never,
    /// But for a decimal's scale: keys are also compared by their texts, which have all digits of the scale.
    Key,
    Always,
}

impl Widening {
    /// Of a column whose contract says so; `key`: of a table's key.
    pub fn of(widens: bool, key: bool) -> Self {
        match (widens, key) {
            (false, _) => Self::Never,
            (true, true) => Self::Key,
            (true, false) => Self::Always,
        }
    }
}

/// The digits of a decimal, and how many of them stand behind the point.
#[derive(Debug, Clone, Copy)]
struct Digits {
    precision: u8,
    scale: i8,
}

/// What is said of a text that is longer than its column.
const TOO_LONG: Why = "it is longer than the column; declare a wider varchar in the contract";
const BEYOND_38: Why = "with the digits that the column has already it makes more than 38, or 37 behind the point, beyond \
                        which a decimal does not widen; declare `numeric` in a contract";
const FINER_KEY: Why = "it has more digits behind the point than the column, which is part of the key and keeps its scale; \
                        declare a larger scale in the contract of a table that is begun anew";

/// A value in the form that a column keeps it in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::decode) enum Exact<'a> {
    Boolean(bool),
    Bytes(&'a [u8]),
    Text(&'a str),
    Single(f32),
    Double(f64),
    /// A number and how many of its digits stand behind the point.
    Decimal(i128, i32),
    Uuid([u8; 16]),
}

/// How much a column holds: values, and the bytes of those whose length varies.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::decode) struct Room {
    pub rows: usize,
    pub bytes: usize,
}

/// A column under construction.
#[derive(Debug)]
pub(in crate::decode) struct ColumnBuilder {
    builder: Builder,
    len: usize,
    /// One more than the index of the newest null.
    null_end: usize,
    scratch: String,
    widening: Widening,
}

const NEEDS_UNIT: Problem = Problem::Value(
    "without a schema block a number does not say its unit; name the column's unit under `encodings:` in a contract \
     file (`days`, `s`, `ms`, `us` or `ns`)",
);

impl ColumnBuilder {
    /// An empty column of `data_type`.
    pub fn new(data_type: Type) -> Self {
        Self::with_room(data_type, Room::default())
    }

    /// An empty column of `data_type` that will hold about as much as that.
    pub fn with_room(data_type: Type, Room { rows, bytes }: Room) -> Self {
        let text = || StringBuilder::with_capacity(rows, bytes);
        let timestamp = || TimestampMicrosecondBuilder::with_capacity(rows);
        let arrow = || data_type.arrow();
        let builder = match data_type {
            Type::Boolean => Builder::Boolean(BooleanBuilder::with_capacity(rows)),
            Type::SmallInt => Builder::Int16(Int16Builder::with_capacity(rows)),
            Type::Int => Builder::Int32(Int32Builder::with_capacity(rows)),
            Type::BigInt => Builder::Int64(Int64Builder::with_capacity(rows)),
            Type::Real => Builder::Float32(Float32Builder::with_capacity(rows)),
            Type::Double => Builder::Float64(Float64Builder::with_capacity(rows)),
            Type::Decimal { precision, scale } if precision <= 38 => {
                let builder = Decimal128Builder::with_capacity(rows).with_data_type(arrow());
                Builder::Decimal128(builder, Digits { precision, scale })
            }
            Type::Decimal { precision, scale } => {
                Builder::Decimal256(Decimal256Builder::with_capacity(rows).with_data_type(arrow()), precision, scale)
            }
            Type::Numeric => Builder::Numeric(text()),
            Type::Date => Builder::Date(Date32Builder::with_capacity(rows)),
            Type::Time => Builder::Time(Time64MicrosecondBuilder::with_capacity(rows)),
            Type::Duration => Builder::Duration(Int64Builder::with_capacity(rows)),
            Type::Timestamp => Builder::Timestamp(timestamp()),
            Type::TimestampTz => Builder::TimestampTz(timestamp().with_data_type(arrow())),
            Type::Text { max_bytes } => Builder::Text(text(), max_bytes),
            Type::Json => Builder::Json(text()),
            Type::Uuid => Builder::Uuid(text()),
            Type::Binary => Builder::Binary(BinaryBuilder::with_capacity(rows, bytes)),
        };
        Self { builder, len: 0, null_end: 0, scratch: String::new(), widening: Widening::Never }
    }

    /// The same, of a column that may become wider.
    pub fn widening(self, widening: Widening) -> Self {
        Self { widening, ..self }
    }

    /// Whether it may become wider.
    pub fn widens(&self) -> Widening {
        self.widening
    }

    /// How much it holds.
    pub fn room(&self) -> Room {
        let bytes = match &self.builder {
            Builder::Numeric(b) | Builder::Text(b, _) | Builder::Json(b) | Builder::Uuid(b) => b.values_slice().len(),
            Builder::Binary(b) => b.values_slice().len(),
            _ => 0,
        };
        Room { rows: self.len, bytes }
    }

    /// The number of values.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the value appended last is null.
    #[inline]
    pub fn ends_null(&self) -> bool {
        self.null_end == self.len
    }

    pub fn append_null(&mut self) {
        self.len += 1;
        self.null_end = self.len;
        match &mut self.builder {
            Builder::Boolean(b) => b.append_null(),
            Builder::Int16(b) => b.append_null(),
            Builder::Int32(b) => b.append_null(),
            Builder::Int64(b) | Builder::Duration(b) => b.append_null(),
            Builder::Float32(b) => b.append_null(),
            Builder::Float64(b) => b.append_null(),
            Builder::Decimal128(b, ..) => b.append_null(),
            Builder::Decimal256(b, ..) => b.append_null(),
            Builder::Date(b) => b.append_null(),
            Builder::Time(b) => b.append_null(),
            Builder::Timestamp(b) | Builder::TimestampTz(b) => b.append_null(),
            Builder::Numeric(b) | Builder::Text(b, _) | Builder::Json(b) | Builder::Uuid(b) => b.append_null(),
            Builder::Binary(b) => b.append_null(),
        }
    }

    /// The finished column.
    pub fn finish(&mut self) -> ArrayRef {
        self.len = 0;
        match &mut self.builder {
            Builder::Boolean(b) => Arc::new(b.finish()),
            Builder::Int16(b) => Arc::new(b.finish()),
            Builder::Int32(b) => Arc::new(b.finish()),
            Builder::Int64(b) | Builder::Duration(b) => Arc::new(b.finish()),
            Builder::Float32(b) => Arc::new(b.finish()),
            Builder::Float64(b) => Arc::new(b.finish()),
            Builder::Decimal128(b, ..) => Arc::new(b.finish()),
            Builder::Decimal256(b, ..) => Arc::new(b.finish()),
            Builder::Date(b) => Arc::new(b.finish()),
            Builder::Time(b) => Arc::new(b.finish()),
            Builder::Timestamp(b) | Builder::TimestampTz(b) => Arc::new(b.finish()),
            Builder::Numeric(b) | Builder::Text(b, _) | Builder::Json(b) | Builder::Uuid(b) => Arc::new(b.finish()),
            Builder::Binary(b) => Arc::new(b.finish()),
        }
    }

    /// Appends a whole number when nothing about it needs to be judged; says whether it did.
    #[inline]
    pub fn append_whole(&mut self, wire: Wire, number: i64) -> bool {
        let taken = match (&mut self.builder, wire) {
            (Builder::Int64(b), _) => {
                b.append_value(number);
                true
            }
            (Builder::Int32(b), _) => i32::try_from(number).map(|n| b.append_value(n)).is_ok(),
            (Builder::Int16(b), _) => i16::try_from(number).map(|n| b.append_value(n)).is_ok(),
            (Builder::Date(b), Wire::Days) => time::finite_date(number).map(|days| b.append_value(days)).is_ok(),
            (Builder::Timestamp(b) | Builder::TimestampTz(b), Wire::Timestamp(unit)) => {
                finite(number, unit).map(|us| b.append_value(us)).is_ok()
            }
            _ => false,
        };
        self.len += usize::from(taken);
        taken
    }

    /// Appends a value that the column keeps as it is, or a decimal that fits; says whether it did.
    #[inline]
    pub fn append_exact(&mut self, exact: Exact<'_>) -> bool {
        match (&mut self.builder, exact) {
            (Builder::Boolean(b), Exact::Boolean(value)) => b.append_value(value),
            (Builder::Decimal128(b, digits), Exact::Decimal(unscaled, from)) => {
                let unscaled = Unscaled::Small(unscaled);
                let Ok(value) = value::to_i128(&unscaled, from, digits.precision, digits.scale) else { return false };
                b.append_value(value);
            }
            (Builder::Numeric(b), Exact::Decimal(unscaled, from)) => {
                b.append_value(value::to_numeric(&Unscaled::Small(unscaled), from));
            }
            (Builder::Uuid(b), Exact::Uuid(bytes)) => {
                let mut text = [0; 36];
                b.append_value(uuid::Uuid::from_bytes(bytes).hyphenated().encode_lower(&mut text));
            }
            (Builder::Text(b, limit), Exact::Text(text)) if is_within(text, *limit) => b.append_value(text),
            (Builder::Binary(b), Exact::Bytes(bytes)) => b.append_value(bytes),
            (Builder::Float32(b), Exact::Single(value)) => b.append_value(value),
            (Builder::Float64(b), Exact::Double(value)) => b.append_value(value),
            _ => return false,
        }
        self.len += 1;
        true
    }

    /// Appends a value that came in binary; nothing is appended when it is refused.
    #[inline]
    pub fn append_native(&mut self, native: Native<'_>) -> Done {
        let widening = self.widening;
        match &mut self.builder {
            Builder::Boolean(b) => b.append_value(native.boolean()?),
            Builder::Int16(b) => b.append_value(native.whole(widening)?),
            Builder::Int32(b) => b.append_value(native.whole(widening)?),
            Builder::Int64(b) => b.append_value(native.whole(widening)?),
            Builder::Float32(b) => b.append_value(native.single()?),
            Builder::Float64(b) => b.append_value(native.double()?),
            Builder::Decimal128(b, digits) => {
                b.append_value(native.decimal(|unscaled, from| digits.fit(unscaled, from, widening))??);
            }
            Builder::Decimal256(b, precision, scale) => b.append_value(native.to_i256(*precision, *scale)?),
            Builder::Numeric(b) => b.append_value(native.to_numeric()?),
            Builder::Date(b) => b.append_value(native.days()?),
            Builder::Time(b) => b.append_value(time::of_day(native.micros()?)?),
            Builder::Duration(b) => b.append_value(native.micros()?),
            Builder::Timestamp(b) | Builder::TimestampTz(b) => b.append_value(native.micros()?),
            Builder::Text(b, limit) => {
                let text = native.instant()?;
                within(&text, *limit, widening)?;
                b.append_value(text);
            }
            Builder::Json(b) => b.append_value(native.document()?),
            Builder::Uuid(_) => return Err(Problem::Kind("a UUID is expected")),
            Builder::Binary(b) => b.append_value(native.bytes()?),
        }
        self.len += 1;
        Ok(())
    }

    /// Appends one value; nothing is appended when it is refused.
    #[inline]
    pub fn append(&mut self, wire: Wire, token: Token<'_>) -> Done {
        if token == Token::Null {
            self.append_null();
            return Ok(());
        }
        let (scratch, widening) = (&mut self.scratch, self.widening);
        match &mut self.builder {
            Builder::Boolean(b) => b.append_value(boolean(token)?),
            Builder::Int16(b) => b.append_value(narrow(token, widening)?),
            Builder::Int32(b) => b.append_value(narrow(token, widening)?),
            Builder::Int64(b) => b.append_value(whole(token)?),
            Builder::Duration(b) => b.append_value(duration(wire, token)?),
            Builder::Float32(b) => b.append_value(single(token)?),
            Builder::Float64(b) => b.append_value(double(wire, token)?),
            Builder::Decimal128(b, digits) => {
                let (unscaled, from) = decimal(wire, token, scratch)?;
                b.append_value(digits.fit(&unscaled, from, widening)?);
            }
            Builder::Decimal256(b, precision, scale) => {
                let (unscaled, from) = decimal(wire, token, scratch)?;
                b.append_value(value::to_i256(&unscaled, from, *precision, *scale).map_err(Problem::Kind)?);
            }
            Builder::Numeric(b) => {
                let (unscaled, from) = decimal(wire, token, scratch)?;
                b.append_value(value::to_numeric(&unscaled, from));
            }
            Builder::Date(b) => b.append_value(date(wire, token, scratch)?),
            Builder::Time(b) => b.append_value(time_of_day(wire, token, scratch)?),
            Builder::Timestamp(b) => b.append_value(timestamp(wire, token, scratch, time::iso_timestamp)?),
            Builder::TimestampTz(b) => b.append_value(timestamp(wire, token, scratch, time::iso_timestamptz)?),
            Builder::Text(b, limit) => b.append_value(text(token, scratch, *limit, widening)?),
            Builder::Json(b) => b.append_value(json(token, scratch)?),
            Builder::Uuid(b) => b.append_value(value::uuid(string(token, scratch)?)?),
            Builder::Binary(b) => b.append_value(binary(wire, token, scratch)?),
        }
        self.len += 1;
        Ok(())
    }
}

fn string<'s>(token: Token<'s>, scratch: &'s mut String) -> Result<&'s str, Problem> {
    match token {
        Token::Text(text) => decoded(text, scratch),
        _ => Err(Problem::Kind("a text is expected")),
    }
}

fn decoded<'s>(text: Text<'s>, scratch: &'s mut String) -> Result<&'s str, Problem> {
    text.decode(scratch).ok_or(Problem::Value("it has an escape that is not valid JSON or half a surrogate pair"))
}

fn boolean(token: Token<'_>) -> Result<bool, Problem> {
    match token {
        Token::Bool(value) => Ok(value),
        // MySQL's tinyint(1) comes as a number from a snapshot.
        Token::Number("0") => Ok(false),
        Token::Number("1") => Ok(true),
        _ => Err(Problem::Kind("true or false (or 1 or 0) is expected")),
    }
}

#[inline]
fn whole(token: Token<'_>) -> Result<i64, Problem> {
    match token {
        Token::Number(text) => Ok(value::integer(text)?),
        Token::Bool(value) => Ok(i64::from(value)),
        _ => Err(Problem::Kind("a whole number is expected")),
    }
}

#[inline]
fn narrow<T: TryFrom<i64>>(token: Token<'_>, widening: Widening) -> Result<T, Problem> {
    let number = whole(token)?;
    T::try_from(number).map_err(|_| too_large(number, widening))
}

/// What is to be said or done of a whole number that its column does not hold.
#[cold]
pub(super) fn too_large(number: impl TryInto<i64>, widening: Widening) -> Problem {
    match number.try_into() {
        Ok(number) if widening != Widening::Never => Problem::Narrow(growth::for_integer(number)),
        _ => Problem::Kind("it is too large for the column; declare a wider type in a contract"),
    }
}

impl Digits {
    /// The number as its column keeps it.
    #[inline]
    fn fit(self, unscaled: &Unscaled, from: i32, widening: Widening) -> Result<i128, Problem> {
        let fitted = value::to_i128(unscaled, from, self.precision, self.scale);
        fitted.map_err(|why| self.misfit(unscaled, from, widening, why))
    }

    /// What is to be said or done of a number that does not fit.
    #[cold]
    fn misfit(self, unscaled: &Unscaled, from: i32, widening: Widening, why: Why) -> Problem {
        if widening == Widening::Never {
            return Problem::Kind(why);
        }
        let (whole, fraction) = value::extent(unscaled, from);
        if widening == Widening::Key && fraction > u32::from(self.scale.unsigned_abs()) {
            return Problem::Kind(FINER_KEY);
        }
        let wider = growth::for_decimal(self.precision, self.scale, whole, fraction);
        wider.map_or(Problem::Kind(BEYOND_38), Problem::Narrow)
    }
}

fn single(token: Token<'_>) -> Result<f32, Problem> {
    match token {
        Token::Number(text) => Ok(value::single(text)?),
        Token::Text(text) => Ok(value::special_float(text.raw)? as f32),
        _ => Err(Problem::Kind("a number is expected")),
    }
}

fn double(wire: Wire, token: Token<'_>) -> Result<f64, Problem> {
    match token {
        // The shortest spelling of a 32-bit float names another 64-bit float.
        Token::Number(text) if wire == Wire::Float32 => Ok(f64::from(value::single(text)?)),
        Token::Number(text) => Ok(value::double(text)?),
        Token::Text(text) => Ok(value::special_float(text.raw)?),
        _ => Err(Problem::Kind("a number is expected")),
    }
}

fn decimal(wire: Wire, token: Token<'_>, scratch: &mut String) -> Result<(Unscaled, i32), Problem> {
    match (token, wire) {
        (Token::Number(text), Wire::Integer) => Ok((Unscaled::Small(i128::from(value::integer(text)?)), 0)),
        (Token::Number(text), _) => Ok(value::decimal_text(text)?),
        (Token::Text(text), Wire::Decimal { scale }) => Ok((value::base64_integer(decoded(text, scratch)?)?, scale)),
        (Token::Text(text), Wire::Plain) => {
            let text = decoded(text, scratch)?;
            if !text.contains('.') && value::bytes(text, Spelling::Base64).is_ok() {
                return Err(Problem::Value(
                    "without a schema block it could be base64 or digits; name the column under `encodings:` in a \
                     contract file (`base64` or `text`)",
                ));
            }
            Ok(value::decimal_text(text)?)
        }
        (Token::Text(text), _) => Ok(value::decimal_text(decoded(text, scratch)?)?),
        (Token::Object(raw), _) => variable_decimal(raw, scratch),
        _ => Err(Problem::Kind("a decimal number is expected")),
    }
}

fn variable_decimal(raw: &str, scratch: &mut String) -> Result<(Unscaled, i32), Problem> {
    let (mut scale, mut unscaled, mut more) = (None, None, false);
    let whole = fields(raw, |name, token| match (name.raw, token) {
        ("scale", Token::Number(text)) => scale = value::integer(text).ok().and_then(|s| i32::try_from(s).ok()),
        ("value", Token::Text(text)) => {
            unscaled = decoded(text, scratch).ok().and_then(|text| value::base64_integer(text).ok());
        }
        _ => more = true,
    });
    match (whole, scale, unscaled, more) {
        (Some(()), Some(scale), Some(unscaled), false) if scale.abs() <= 20_000 => Ok((unscaled, scale)),
        _ => Err(Problem::Value("an object with `scale` and base64 `value` is expected")),
    }
}

fn date(wire: Wire, token: Token<'_>, scratch: &mut String) -> Result<i32, Problem> {
    match token {
        Token::Number(text) if wire == Wire::Days => Ok(time::finite_date(value::integer(text)?)?),
        Token::Number(_) => Err(NEEDS_UNIT),
        Token::Text(text) => Ok(time::iso_date(decoded(text, scratch)?)?),
        _ => Err(Problem::Kind("a date is expected")),
    }
}

fn time_of_day(wire: Wire, token: Token<'_>, scratch: &mut String) -> Result<i64, Problem> {
    match (token, wire) {
        (Token::Number(text), Wire::Time(unit)) => Ok(time::of_day(unit.micros(value::integer(text)?)?)?),
        (Token::Number(_), _) => Err(NEEDS_UNIT),
        (Token::Text(text), _) => Ok(time::iso_time(decoded(text, scratch)?)?),
        _ => Err(Problem::Kind("a time of day is expected")),
    }
}

fn timestamp(
    wire: Wire,
    token: Token<'_>,
    scratch: &mut String,
    iso: fn(&str) -> Result<i64, Why>,
) -> Result<i64, Problem> {
    match (token, wire) {
        (Token::Number(text), Wire::Timestamp(unit)) => Ok(finite(value::integer(text)?, unit)?),
        (Token::Number(_), _) => Err(NEEDS_UNIT),
        (Token::Text(text), _) => Ok(iso(decoded(text, scratch)?)?),
        _ => Err(Problem::Kind("a date and time is expected")),
    }
}

#[inline]
fn finite(number: i64, unit: Unit) -> Result<i64, Why> {
    // The ends of the range stand for infinity in every unit.
    if unit != Unit::Micro && (number == i64::MAX || number == i64::MIN) {
        return time::finite_timestamp(number);
    }
    time::finite_timestamp(unit.micros(number)?)
}

fn duration(wire: Wire, token: Token<'_>) -> Result<i64, Problem> {
    match (token, wire) {
        (Token::Number(text), Wire::Duration(unit) | Wire::Time(unit)) => Ok(unit.micros(value::integer(text)?)?),
        (Token::Number(_), _) => Err(NEEDS_UNIT),
        (Token::Text(text), Wire::IsoTime) => Ok(time::iso_time(text.raw)?),
        _ => Err(Problem::Kind("a length of time as a number is expected")),
    }
}

#[inline]
fn text<'s>(
    token: Token<'s>,
    scratch: &'s mut String,
    limit: Option<u32>,
    widening: Widening,
) -> Result<&'s str, Problem> {
    let text = string(token, scratch)?;
    within(text, limit, widening)?;
    Ok(text)
}

#[inline]
fn is_within(text: &str, limit: Option<u32>) -> bool {
    limit.is_none_or(|bytes| text.len() <= bytes as usize)
}

#[inline]
fn within(text: &str, limit: Option<u32>, widening: Widening) -> Done {
    if is_within(text, limit) { Ok(()) } else { Err(too_long(text, widening)) }
}

#[cold]
fn too_long(text: &str, widening: Widening) -> Problem {
    let longer = growth::for_text(text.len()).filter(|_| widening != Widening::Never);
    longer.map_or(Problem::Kind(TOO_LONG), Problem::Narrow)
}

fn json<'s>(token: Token<'s>, scratch: &'s mut String) -> Result<&'s str, Problem> {
    let text = match token {
        Token::Object(raw) | Token::Array(raw) => raw,
        Token::Text(text) => decoded(text, scratch)?,
        _ => return Err(Problem::Kind("a JSON document is expected")),
    };
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|_| Problem::Value("it is not a JSON document"))?;
    Ok(text)
}

fn binary(wire: Wire, token: Token<'_>, scratch: &mut String) -> Result<Vec<u8>, Problem> {
    let text = string(token, scratch)?;
    match wire {
        Wire::Bytes(spelling) => Ok(value::bytes(text, spelling)?),
        _ if !text.is_empty() && text.len() % 4 == 0 && value::hex(text).is_some() => Err(Problem::Value(
            "without a schema block it could be base64 or hexadecimal; name the column under `encodings:` in a \
             contract file (`base64`, `base64_url` or `hex`)",
        )),
        _ => Ok(value::bytes(text, Spelling::Base64)?),
    }
}
