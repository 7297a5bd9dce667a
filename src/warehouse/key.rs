//! A key as text: how tombstones and quarantined rows name it.

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::error::{Error, ErrorKind, Result};

/// The key columns of one batch, ready to be written as JSON objects in key order.
pub struct KeyText<'a> {
    columns: Vec<(String, ArrayFormatter<'a>, bool)>,
}

impl<'a> KeyText<'a> {
    /// Over the columns `key` of `rows`, named `names`.
    pub fn new(rows: &'a RecordBatch, names: &[String], key: &[usize]) -> Result<Self> {
        const OPTIONS: FormatOptions<'static> = FormatOptions::new();
        let columns = names
            .iter()
            .zip(key)
            .map(|(name, &index)| {
                let array = rows.column(index).as_ref();
                let bare = matches!(
                    array.data_type(),
                    DataType::Int16 | DataType::Int32 | DataType::Int64 | DataType::Boolean
                );
                let formatter = ArrayFormatter::try_new(array, &OPTIONS).map_err(|error| {
                    Error::new(ErrorKind::Internal, format!("write key column {name} as text")).because(error)
                })?;
                Ok((name.clone(), formatter, bare))
            })
            .collect::<Result<_>>()?;
        Ok(Self { columns })
    }

    /// The key of row `row`, e.g. `{"id":7}`.
    pub fn json(&self, row: usize) -> String {
        let mut out = String::from("{");
        for (index, (name, formatter, bare)) in self.columns.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            push_json_text(&mut out, name);
            out.push(':');
            let value = formatter.value(row).to_string();
            if *bare && !value.is_empty() {
                out.push_str(&value);
            } else {
                push_json_text(&mut out, &value);
            }
        }
        out.push('}');
        out
    }
}

fn push_json_text(out: &mut String, text: &str) {
    out.push_str(&serde_json::Value::from(text).to_string());
}
