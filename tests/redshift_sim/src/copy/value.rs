//! Values of a file, as rows in PostgreSQL's text format; and which of them do not load.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StructArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use chrono::{DateTime, NaiveDate, TimeDelta};

use crate::refusal::Refusal;
use crate::sql::copy::Copy;

use super::column::{Column, ColumnType};
use super::{BadValue, Unloadable};

/// A VARBYTE without a length, which is all that loads: <https://docs.aws.amazon.com/redshift/latest/dg/r_VARBYTE_type.html>.
const VARBYTE_BYTES: usize = 64_000;

/// What is wrong with one value: the error's code in the views, and why.
struct Wrong(u32, Refusal);

/// Appends a batch's rows.
pub fn write(
    batch: &RecordBatch,
    columns: &[Column],
    copy: &Copy,
    rows_before: u64,
    url: &str,
    text: &mut Vec<u8>,
) -> Result<(), Unloadable> {
    for row in 0..batch.num_rows() {
        for (at, column) in columns.iter().enumerate() {
            if at > 0 {
                text.push(b'\t');
            }
            // FILLRECORD: what the file has not is NULL.
            let value = match batch.columns().get(at).filter(|array| !array.is_null(row)) {
                Some(array) => one(array, row, column, copy, url),
                None if column.not_null => Err(Wrong(
                    1213,
                    // <https://docs.aws.amazon.com/redshift/latest/dg/r_Load_Error_Reference.html>
                    Refusal::new("23502", format!("Cannot insert a NULL value into column {}", column.name)),
                )),
                None => Ok(None),
            };
            match value {
                Ok(Some(value)) => escape(&value, text),
                Ok(None) => text.extend_from_slice(b"\\N"),
                Err(Wrong(code, refusal)) => {
                    let row = rows_before + row as u64 + 1;
                    return Err(Unloadable::Value(Box::new(BadValue { refusal, code, column: at, row })));
                }
            }
        }
        text.push(b'\n');
    }
    Ok(())
}

fn escape(value: &[u8], text: &mut Vec<u8>) {
    for byte in value {
        match byte {
            b'\\' => text.extend_from_slice(b"\\\\"),
            b'\t' => text.extend_from_slice(b"\\t"),
            b'\n' => text.extend_from_slice(b"\\n"),
            b'\r' => text.extend_from_slice(b"\\r"),
            other => text.push(*other),
        }
    }
}

fn wrong(code: u32, context: &str) -> Wrong {
    Wrong(code, Refusal::spectrum(15_001, context))
}

/// One value that is there.
fn one(array: &ArrayRef, row: usize, column: &Column, copy: &Copy, url: &str) -> Result<Option<Vec<u8>>, Wrong> {
    let text = match &column.kind {
        ColumnType::Varchar(n) | ColumnType::Char(n) => {
            let text = string(bytes_of(array, row), copy, column)?;
            if text.len() > *n {
                // <https://docs.aws.amazon.com/redshift/latest/dg/r_Character_types.html>: in bytes.
                let context = format!(
                    "The length of the data column {} is longer than the length defined in the table. Table: {n}, Data: {}, File name: {url}",
                    column.name,
                    text.len()
                );
                return Err(wrong(1204, &context));
            }
            if matches!(column.kind, ColumnType::Char(_)) && !text.is_ascii() {
                return Err(wrong(1220, &format!("Column {}: CHAR holds single-byte characters only", column.name)));
            }
            text
        }
        ColumnType::Super => super_value(array, row, column, copy)?,
        ColumnType::Varbyte => {
            let bytes = array.as_binary::<i32>().value(row);
            if bytes.len() > VARBYTE_BYTES {
                let context = format!("Column {}: {} bytes; VARBYTE({VARBYTE_BYTES})", column.name, bytes.len());
                return Err(wrong(1204, &context));
            }
            let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            format!("\\x{hex}")
        }
        _ => scalar(array, row).ok_or_else(|| {
            wrong(1207, &format!("Column {}: a value that {} does not hold", column.name, column.type_name()))
        })?,
    };
    Ok(Some(text.into_bytes()))
}

fn bytes_of(array: &ArrayRef, row: usize) -> &[u8] {
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(row).as_bytes(),
        _ => array.as_binary::<i32>().value(row),
    }
}

/// UTF-8 of up to four bytes a character, and no zero byte: <https://docs.aws.amazon.com/redshift/latest/dg/multi-byte-character-load-errors.html>.
/// ACCEPTINVCHARS puts a character in place of what is not.
fn string(bytes: &[u8], copy: &Copy, column: &Column) -> Result<String, Wrong> {
    let invalid =
        || wrong(1220, &format!("Column {}: string contains invalid or unsupported UTF8 codepoints", column.name));
    let text = match (std::str::from_utf8(bytes), copy.accept_invalid) {
        (Ok(text), _) => text.to_owned(),
        (Err(_), Some(put)) => String::from_utf8_lossy(bytes).replace('\u{fffd}', &put.to_string()),
        (Err(_), None) => return Err(invalid()),
    };
    match copy.accept_invalid {
        _ if !text.contains('\0') => Ok(text),
        Some(put) => Ok(text.replace('\0', &put.to_string())),
        None => Err(invalid()),
    }
}

/// Numbers, truths and times; nothing for what the type does not hold.
///
/// NaN and infinities: no page says that they load, so they do not.
fn scalar(array: &ArrayRef, row: usize) -> Option<String> {
    let text = match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).to_string(),
        DataType::Int8 => array.as_primitive::<Int8Type>().value(row).to_string(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(row).to_string(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::UInt8 => array.as_primitive::<UInt8Type>().value(row).to_string(),
        DataType::UInt16 => array.as_primitive::<UInt16Type>().value(row).to_string(),
        DataType::UInt32 => array.as_primitive::<UInt32Type>().value(row).to_string(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(row).to_string(),
        DataType::Float32 => {
            Some(array.as_primitive::<Float32Type>().value(row)).filter(|f| f.is_finite())?.to_string()
        }
        DataType::Float64 => {
            Some(array.as_primitive::<Float64Type>().value(row)).filter(|f| f.is_finite())?.to_string()
        }
        DataType::Decimal128(precision, _) => {
            // What has too many digits would be written with fewer.
            let values = array.as_primitive::<Decimal128Type>();
            let most = match precision {
                // Kept in 8 bytes: <https://docs.aws.amazon.com/redshift/latest/dg/r_Numeric_types201.html>.
                19 => i64::MAX.unsigned_abs().into(),
                precision => 10u128.pow(u32::from(*precision)) - 1,
            };
            let fits = values.value(row).unsigned_abs() <= most;
            fits.then(|| values.value_as_string(row))?
        }
        DataType::Date32 => date(array.as_primitive::<Date32Type>().value(row))?,
        DataType::Timestamp(unit, zone) => {
            let micros = match unit {
                TimeUnit::Millisecond => {
                    array.as_primitive::<TimestampMillisecondType>().value(row).checked_mul(1000)?
                }
                TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().value(row),
                TimeUnit::Second | TimeUnit::Nanosecond => return None,
            };
            time(micros, zone.is_some())?
        }
        _ => return None,
    };
    Some(text)
}

/// From 4713 BC to 294276 AD in theory; only the years 1 to 9999 are written the same everywhere, and the rest is refused:
/// <https://docs.aws.amazon.com/redshift/latest/dg/r_Datetime_types.html>.
fn date(days: i32) -> Option<String> {
    let date = NaiveDate::default().checked_add_signed(TimeDelta::try_days(days.into())?)?;
    plausible(date).then(|| date.to_string())
}

fn time(micros: i64, zoned: bool) -> Option<String> {
    let time = DateTime::from_timestamp_micros(micros)?.naive_utc();
    plausible(time.date()).then(|| format!("{time}{}", if zoned { "+00" } else { "" }))
}

fn plausible(date: NaiveDate) -> bool {
    use chrono::Datelike;
    (1..=9999).contains(&date.year())
}

/// With SERIALIZETOJSON nested values and JSON texts become documents; a plain text stays one string, whatever is in it.
/// <https://docs.aws.amazon.com/redshift/latest/dg/ingest-super.html>, <https://github.com/duckdb/duckdb/issues/14747>
fn super_value(array: &ArrayRef, row: usize, column: &Column, copy: &Copy) -> Result<String, Wrong> {
    let mut json = String::new();
    let invalid = |why: &str| wrong(1224, &format!("Column {}: {why}", column.name));
    if column_is_json(array, column, copy) {
        json = string(bytes_of(array, row), copy, column)?;
    } else {
        nested(array, row, &mut json).ok_or_else(|| invalid("a value that SUPER does not hold"))?;
    }
    super::document::check(&json, column.long_strings).map_err(|why| invalid(&why))?;
    Ok(json)
}

/// A text is a document only if the file says that it is JSON, and the statement that it is to be read so.
fn column_is_json(array: &ArrayRef, column: &Column, copy: &Copy) -> bool {
    copy.serialize_to_json && matches!(array.data_type(), DataType::Utf8) && column.is_json_text()
}

fn nested(array: &ArrayRef, row: usize, json: &mut String) -> Option<()> {
    if array.is_null(row) {
        json.push_str("null");
        return Some(());
    }
    match array.data_type() {
        DataType::Utf8 => quote(array.as_string::<i32>().value(row), json)?,
        DataType::Binary => quote(std::str::from_utf8(array.as_binary::<i32>().value(row)).ok()?, json)?,
        DataType::List(_) => list(&array.as_list::<i32>().value(row), json)?,
        DataType::Struct(_) => object(array.as_struct(), row, json)?,
        DataType::Map(..) => map(&array.as_map().value(row), json)?,
        DataType::Date32 | DataType::Timestamp(..) => quote(&scalar(array, row)?, json)?,
        _ => json.push_str(&scalar(array, row)?),
    }
    Some(())
}

fn quote(text: &str, json: &mut String) -> Option<()> {
    json.push_str(&serde_json::to_string(text).ok()?);
    Some(())
}

fn list(items: &ArrayRef, json: &mut String) -> Option<()> {
    json.push('[');
    for at in 0..items.len() {
        if at > 0 {
            json.push(',');
        }
        nested(items, at, json)?;
    }
    json.push(']');
    Some(())
}

fn object(of: &StructArray, row: usize, json: &mut String) -> Option<()> {
    json.push('{');
    for (at, (name, values)) in of.column_names().iter().zip(of.columns()).enumerate() {
        if at > 0 {
            json.push(',');
        }
        quote(name, json)?;
        json.push(':');
        nested(values, row, json)?;
    }
    json.push('}');
    Some(())
}

fn map(entries: &StructArray, json: &mut String) -> Option<()> {
    json.push('{');
    for at in 0..entries.len() {
        if at > 0 {
            json.push(',');
        }
        quote(entries.column(0).as_string_opt::<i32>()?.value(at), json)?;
        json.push(':');
        nested(entries.column(1), at, json)?;
    }
    json.push('}');
    Some(())
}
