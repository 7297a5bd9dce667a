//! Refused rows as JSON: exact and masked.
//!
//! Whole numbers and finite floats are JSON numbers; decimals, times and everything else are strings with the value's
//! text ([`text`](super::text)); bytes are Base64. A column that the source left unchanged, or that the topology drops,
//! is not in the object.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Float32Type, Float64Type};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

use crate::batch::TableChanges;
use crate::contract::{TableSchema, Type};
use crate::error::{Error, ErrorKind, Result};

use super::scope::Disclosure;
use super::text;

/// The text of something that may not be shown.
const HIDDEN: &str = "***";

/// A few rows of a batch, ready to be shown.
pub(super) struct Shown {
    columns: Vec<Option<(String, Type, ArrayRef)>>,
    hidden: Vec<bool>,
}

impl Shown {
    /// Takes `rows` out of `changes` (in its contract's `input` columns) and masks them.
    pub fn new(changes: &TableChanges, disclosures: &[Disclosure], rows: &[usize]) -> Result<Self> {
        let schema = &changes.contract.input;
        let picked = UInt32Array::from_iter_values(rows.iter().map(|row| *row as u32));
        let mut columns = Vec::with_capacity(schema.columns.len());
        for (column, (disclosure, values)) in
            schema.columns.iter().zip(disclosures.iter().zip(columns_of(&changes.rows)))
        {
            if disclosure.dropped {
                columns.push(None);
                continue;
            }
            let mut values = take(values, &picked, None)
                .map_err(|error| Error::new(ErrorKind::Internal, "take refused rows").because(error))?;
            let mut data_type = column.data_type;
            for mask in &disclosure.masks {
                values = mask.apply(&values, data_type);
                // The chain was bound, so the mask takes this type.
                data_type = mask.output(data_type).unwrap_or(data_type);
            }
            columns.push(Some((column.name.clone(), data_type, values)));
        }
        Ok(Self { columns, hidden: disclosures.iter().map(|d| d.hidden).collect() })
    }

    /// Row `shown` (position among those taken), which was row `row` of `changes`.
    pub fn values(&self, changes: &TableChanges, shown: usize, row: usize) -> String {
        let all = (0..self.columns.len()).filter(|column| !changes.is_unchanged(*column, row));
        self.object(all, shown)
    }

    /// The key of row `shown`; `None` when the table has no key.
    pub fn key(&self, schema: &TableSchema, shown: usize) -> Option<String> {
        let key = schema.key_indices();
        (!key.is_empty()).then(|| self.object(key.into_iter(), shown))
    }

    fn object(&self, columns: impl Iterator<Item = usize>, shown: usize) -> String {
        let mut out = String::from("{");
        for index in columns {
            let Some((name, data_type, values)) = &self.columns[index] else { continue };
            if out.len() > 1 {
                out.push(',');
            }
            write_string(name, &mut out);
            out.push(':');
            if values.is_null(shown) {
                out.push_str("null");
            } else if self.hidden[index] {
                write_string(HIDDEN, &mut out);
            } else {
                write_json(values, *data_type, shown, &mut out);
            }
        }
        out.push('}');
        out
    }
}

fn columns_of(rows: &RecordBatch) -> impl Iterator<Item = &ArrayRef> {
    rows.columns().iter()
}

fn write_json(values: &ArrayRef, data_type: Type, row: usize, out: &mut String) {
    let mut value = String::new();
    let is_finite = match data_type {
        Type::Real => values.as_primitive::<Float32Type>().value(row).is_finite(),
        Type::Double => values.as_primitive::<Float64Type>().value(row).is_finite(),
        _ => true,
    };
    if data_type == Type::Binary {
        STANDARD.encode_string(values.as_binary::<i32>().value(row), &mut value);
        return write_string(&value, out);
    }
    text::write_value(values, data_type, row, &mut value);
    match data_type {
        Type::Boolean | Type::SmallInt | Type::Int | Type::BigInt | Type::Duration => out.push_str(&value),
        Type::Real | Type::Double if is_finite => out.push_str(&value),
        // A document is shown as it is, digit by digit.
        Type::Json if serde_json::from_str::<&RawValue>(&value).is_ok() => out.push_str(&value),
        _ => write_string(&value, out),
    }
}

fn write_string(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}
